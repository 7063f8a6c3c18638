"""The clock shim itself: steps are seen, waits for a time of day follow them, the monotonic clock stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import run_python, start_python

from faults import clock as clocks
from faults.clock import Clock

#: Waits so many seconds of the time of day by the functions that libCom and Python have for it.
WAITS = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("ns", ctypes.c_long)]
room = [ctypes.create_string_buffer(64) for _ in range(3)]
condition, mutex, semaphore = room
libc.pthread_mutex_lock(mutex)
libc.sem_init(semaphore, 0, 0)
waits = {
    "condition": lambda until: libc.pthread_cond_timedwait(condition, mutex, until),
    "semaphore": lambda until: libc.sem_timedwait(semaphore, until),
    "sleep": lambda until: libc.clock_nanosleep(time.CLOCK_REALTIME, 1, until, None),
}
print("ready")
for command in sys.stdin:
    what, seconds = command.split()
    if what == "time":
        print("now", time.time(), libc.time(None), time.monotonic())
        continue
    began = time.monotonic()
    now = time.clock_gettime_ns(time.CLOCK_REALTIME) + int(float(seconds) * 10**9)
    print("waits", began)
    waits[what](ctypes.byref(Timespec(now // 10**9, now % 10**9)))
    print("waited", time.monotonic() - began)
"""


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Give a clock, or skip where there is none."""
    try:
        made = Clock()
    except OSError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def test_a_step_is_seen_at_once_and_by_the_time_of_day_alone(clock: Clock) -> None:
    with start_python(WAITS, env=clock.env) as client:
        client.wait_line("ready")
        for step, offset in ((-3600.0, -3600.0), (7200.0, 3600.0)):
            clock.step(step)
            assert clock.offset == offset
            client.send("time 0")
            now, seconds, monotonic = map(float, client.wait_line("now").split()[1:])
            assert abs(now - offset - time.time()) < 30.0
            assert abs(seconds - offset - time.time()) < 30.0
            assert abs(monotonic - time.monotonic()) < 30.0
        client.finish()


@pytest.mark.parametrize("what", ["condition", "semaphore", "sleep"])
def test_a_wait_follows_a_step_made_meanwhile(clock: Clock, what: str) -> None:
    with start_python(WAITS, env=clock.env) as client:
        client.wait_line("ready")
        clock.step(-100.0)
        for _ in range(5):
            client.send(f"{what} 0.5")
            began = float(client.wait_line("waits").split()[1])
            clock.step(-1.0)
            stepped = time.monotonic()
            waited = float(client.wait_line("waited").split()[1])
            if (
                stepped < began + 0.5
            ):  # else we were put aside: the step may have come after the wait
                break
        assert waited > 1.4
        client.send(f"{what} 900")
        client.wait_line("waits")
        clock.step(1000.0)
        client.wait_line("waited", 20.0)
        client.finish()


def test_a_process_steps_its_own_clock_and_its_children_keep_the_real_time() -> None:
    try:
        env = clocks.env()
    except OSError as error:
        pytest.skip(str(error))
    script = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from faults import clock
clock.step(-3600.0)
child = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], capture_output=True, check=True)
print(float(child.stdout) - time.time())
"""
    result = run_python(script, str(Path(__file__).parents[1]), env=env)
    assert abs(float(result.stdout) - 3600.0) < 30.0
    with pytest.raises(RuntimeError, match="real time"):
        clocks.step(1.0)
