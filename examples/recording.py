"""Record a waveform straight to an HDF5 file, and read it back.

    recording.py PV FILE.h5 [SECONDS]

`epicsx record PV -o FILE.h5 --seconds 5` does the first half for any number of PVs. It needs h5py:
pip install 'epicsx[hdf5]'.
"""

import sys

import h5py
import numpy as np

import epicsx


def frames(group):
    """Each frame of a PV's group in order, as (run, index, timestamp_ns, values); `index` begins anew in each run."""
    found = []
    runs = group["runs"][:]
    if "data" in group:  # frames of one type and length
        index, stamps = group["index"][:], group["timestamp_ns"][:]
        run = np.searchsorted(runs["first_row"], np.arange(len(stamps)), side="right") - 1
        # data may have a row more than the others after a kill
        found += zip(run, index, stamps, group["data"], strict=False)
    other = group["varying"]  # those of another one
    names = ("index", "timestamp_ns", "type", "offset", "count")
    index, stamps, kinds, starts, counts = (other[name][:] for name in names)
    run = np.searchsorted(runs["first_varying"], np.arange(len(stamps)), side="right") - 1
    where = zip(kinds, starts, counts, strict=True)
    values = (other[kind.decode()][start : start + n] for kind, start, n in where)
    found += zip(run, index, stamps, values, strict=True)
    return sorted(found, key=lambda frame: frame[:2])


def main(name, path, seconds=5.0):
    with epicsx.stream(name, depth=1000) as stream:
        ledger = stream.to_hdf5(path, seconds=seconds, mode="a", progress=True)
    print(f"received {ledger.received}, dropped {ledger.dropped}, {ledger.bytes / 1e6:.1f} MB")

    with h5py.File(path) as file:
        group = file[name]  # a / in the name is %2F here
        noted = group["ledger"][-1]
        run = group["runs"][-1]
        print(f"stored {noted['stored']} in {(run['end_ns'] - run['start_ns']) * 1e-9:.1f} s")
        found = frames(group)
        for _, index, stamp, values in found[:3]:
            when = np.datetime64(int(stamp), "ns")
            mean = f"mean {values.mean():.6g}" if len(values) else "empty"
            print(f"  frame {index} of {when}: {len(values)} x {values.dtype}, {mean}")
        lost = sum(
            int(table["lost_before"][:].sum())
            for table in (group, group["varying"])
            if "lost_before" in table
        )
        print(f"{len(found)} frames in the file, {lost} known to be missing among them")
    return 1 if ledger.dropped else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4])))
