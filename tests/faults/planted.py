"""X: scenarios that hang, die, complain or miss something, for the test of the runner. No part of the catalogue."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time

from faults.harness import Figure, scenario
from faults.room import Room


@scenario("X1", how="hangs", expected="a failure", limit=4)
def x1(room: Room) -> Figure:
    while True:
        time.sleep(1.0)


@scenario("X2", how="dies of a signal", expected="a failure", limit=20)
def x2(room: Room) -> Figure:
    os.kill(os.getpid(), signal.SIGTERM)
    return Figure("still there")


@scenario("X3", how="ends badly after its figure", expected="a failure", limit=20)
def x3(room: Room) -> Figure:
    atexit.register(os._exit, 3)
    return Figure("done", seconds=1.5)


@scenario("X4", how="misses something", expected="a failure", limit=20)
def x4(room: Room) -> Figure:
    room.check(False, "2 of 3")
    return Figure("done")


@scenario("X5", how="asserts what is not so", expected="a failure", limit=20)
def x5(room: Room) -> Figure:
    room.wait(lambda: False, 0.01, "the impossible")
    return Figure("done")


@scenario("X6", how="complains", expected="a failure", limit=20)
def x6(room: Room) -> Figure:
    sys.stderr.write("Traceback (most recent call last):\n")
    return Figure("done")


@scenario("X7", how="is well", expected="no failure", limit=20)
def x7(room: Room) -> Figure:
    print("unasked")
    return Figure("done", seconds=1.5)
