"""Step a motor over a range, read a detector at each point, and go back to where the motor was.

motor_scan.py MOTOR DETECTOR START STOP POINTS
"""

import sys
import time

from epics import Motor, caget, poll


def arrive(motor, position, timeout=30.0):
    """Move and wait, for the readback too; whether it has got there."""
    status = motor.move(position, wait=True, timeout=timeout)
    if status < 0:
        print(f"the motor refuses {position:g}: move() gave {status}")
        return False
    near = max(abs(motor.get("MRES") or 0), 1e-6)
    end = time.time() + timeout
    while abs(motor.get_position(readback=True) - position) > near and time.time() < end:
        poll(0.02)
    return abs(motor.get_position(readback=True) - position) <= near


def main(name, detector, start, stop, points):
    motor = Motor(name)
    home = motor.get_position()
    print(f"{motor.description or name}: {home:g} {motor.units}, limits "
          f"{motor.low_limit:g} to {motor.high_limit:g}")  # fmt: skip
    readings = []
    for i in range(points):
        position = start + i * (stop - start) / max(1, points - 1)
        if not motor.within_limits(position):
            print(f"{position:g} is outside the limits")
            break
        if not arrive(motor, position):
            break
        readings.append((motor.readback, caget(detector, use_monitor=False)))
        print(f"  {readings[-1][0]:10.4f}   {readings[-1][1]!r}")
    back = arrive(motor, home)
    print(f"{len(readings)} points; {'back at' if back else 'did not get back to'} {home:g}")
    return 0 if back and len(readings) == points else 1


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:3], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])))
