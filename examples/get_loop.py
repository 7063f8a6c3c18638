"""Read a PV again and again by `ca.get`, and tell how long the reads took.

get_loop.py PV [READS]
"""

import sys
import time

from epics import ca


def main(name, reads=1000):
    chid = ca.create_channel(name, connect=True)
    if not ca.isConnected(chid):
        sys.exit(f"{name} cannot be connected")
    values, times = [], []
    for _ in range(reads):
        begun = time.perf_counter()
        values.append(ca.get(chid))
        times.append(time.perf_counter() - begun)
    missed = values.count(None)
    times.sort()
    print(f"{name} on {ca.host_name(chid)}: {values[0]!r} ... {values[-1]!r}")
    print(f"{reads} reads, {missed} without an answer, {reads / sum(times):.0f} per second")
    print(
        f"a read took {1e6 * times[reads // 2]:.0f} us (median), "
        f"{1e6 * times[-1]:.0f} us at most; {len(set(map(str, values)))} different values"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3])))
