"""Count with a scaler for some time and print what its channels saw.

scaler_count.py SCALER [SECONDS] [CHANNELS]
"""

import sys
import time

from epics.devices import Scaler


def main(name, seconds=1.0, channels=8):
    scaler = Scaler(name, nchan=channels)
    scaler.OneShotMode()
    begun = time.time()
    scaler.Count(ctime=seconds, wait=True)
    print(f"{name} has counted for {seconds:g} s, done after {time.time() - begun:.2f} s")
    for number, (label, counts) in enumerate(zip(scaler.getNames(), scaler.Read(), strict=True), 1):
        if label:
            print(
                f"  {number:2d}  {label:16s} {counts:12.0f}   {counts / seconds:12.1f} per second"
            )
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4])))
