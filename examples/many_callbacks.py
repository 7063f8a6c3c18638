"""Monitor many PVs, each with a callback, and tell what arrived.

    many_callbacks.py PATTERN COUNT [SECONDS]

PATTERN names the PVs by their number, as in 'XF:adc{:03d}'.
"""

import sys
import time
from collections import Counter

import epics


def main(pattern, count, seconds=3.0):
    updates, latest, up = Counter(), {}, {}

    def on_change(pvname=None, value=None, timestamp=None, **kws):
        updates[pvname] += 1
        latest[pvname] = (timestamp, value)

    def on_connection(pvname=None, conn=None, **kws):
        up[pvname] = conn

    begun = time.time()
    pvs = [
        epics.PV(pattern.format(i), callback=on_change, connection_callback=on_connection)
        for i in range(count)
    ]
    missing = [pv.pvname for pv in pvs if not pv.wait_for_connection(timeout=5.0)]
    print(f"{count - len(missing)} of {count} PVs connected after {time.time() - begun:.2f} s")
    while len(updates) < count - len(missing) and time.time() < begun + 10:
        epics.poll(0.01)
    print(f"{len(updates)} of them have sent a value after {time.time() - begun:.2f} s")

    before, begun = sum(updates.values()), time.time()
    while time.time() < begun + seconds:
        epics.poll(0.05)
    rate = (sum(updates.values()) - before) / (time.time() - begun)
    print(f"{rate:.0f} updates per second from then on")
    for name, number in updates.most_common(5):
        stamp, value = latest[name]
        print(f"  {name:32s} {number:6d} updates, the last {value!r} at {time.ctime(stamp)}")
    for pv in pvs:
        pv.disconnect()
    return 1 if missing else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:4])))
