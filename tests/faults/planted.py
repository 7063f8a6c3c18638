"""X: scenarios that hang, die, complain or miss something, for the test of the runner. No part of the catalogue."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time

from faults import environment
from faults.harness import Figure, scenario
from faults.room import Room


@scenario("X1", how="hangs", expected="a failure", limit=4)
def x1(room: Room) -> Figure:
    while True:
        time.sleep(1.0)


@scenario("X2", how="dies of a signal", expected="a failure", limit=60)
def x2(room: Room) -> Figure:
    os.kill(os.getpid(), signal.SIGTERM)
    return Figure("still there")


@scenario("X3", how="ends badly after its figure", expected="a failure", limit=60)
def x3(room: Room) -> Figure:
    atexit.register(os._exit, 3)
    return Figure("done", seconds=1.5)


@scenario("X4", how="misses something", expected="a failure", limit=60)
def x4(room: Room) -> Figure:
    room.check(False, "2 of 3")
    return Figure("done")


@scenario("X5", how="asserts what is not so", expected="a failure", limit=60)
def x5(room: Room) -> Figure:
    room.wait(lambda: False, 0.01, "the impossible")
    return Figure("done")


@scenario("X6", how="complains", expected="a failure", limit=60)
def x6(room: Room) -> Figure:
    sys.stderr.write("Traceback (most recent call last):\n")
    return Figure("done")


@scenario("X7", how="is well", expected="no failure", limit=60)
def x7(room: Room) -> Figure:
    print("unasked")
    return Figure("done", seconds=1.5)


@scenario("X8", how="ends its process by an exception", expected="a failure", limit=60)
def x8(room: Room) -> Figure:
    raise SystemExit(0)


@scenario("X9", how="ends its process without a word", expected="a failure", limit=60)
def x9(room: Room) -> Figure:
    os._exit(0)


@scenario("X10", how="its client ends with return code 1", expected="a failure", limit=90)
def x10(room: Room) -> Figure:
    return Figure(environment.tried(room, "epicsx", "x", "all", "sys.exit(1)", False))


@scenario("X11", how="its client may not be prepared", expected="no failure", limit=90)
def x11(room: Room) -> Figure:
    return Figure(environment.tried(room, "epicsx", "x", "all", "sys.exit(REFUSED)", False))


@scenario(
    "X12",
    how="needs its environment",
    expected="no failure",
    limit=60,
    env={"EPICS_CA_CONN_TMO": "2", "PLANTED": "yes"},
)
def x12(room: Room) -> Figure:
    assert os.environ["EPICS_CA_CONN_TMO"] == "2"
    return Figure(os.environ["PLANTED"])
