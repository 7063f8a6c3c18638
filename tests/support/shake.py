"""Random pauses in the tests' own lines: `make shake`, which finds tests that need a thread to be late or early.

A test that passes only if the dispatcher is slower than its next line fails once in a thousand runs, on somebody
else's machine. Here each line of a test, and each return of a Python function of epicsx into it, may be the moment at
which the thread that runs it is put aside for some milliseconds, in another place in each run (`EPICSX_SHAKE=seed`).

Threads
-------
The main thread and all threads that Python starts later are traced; the pauses let go of the GIL, so that all others
run on. What a test may lose by it is bounded: `PER_TEST` seconds, and each line is chosen `PER_LINE` times at most.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

LONGEST = 0.03
CHANCE = 0.5
PER_LINE = 2
PER_TEST = 1.0

_ROOT = Path(__file__).parents[2]
_TESTS = str(_ROOT / "tests") + os.sep
_PACKAGE = str(_ROOT / "src" / "epicsx") + os.sep
_NOT = (str(_ROOT / "tests" / "support") + os.sep, str(_ROOT / "tests" / "conftest.py"))

SEED = os.environ.get("EPICSX_SHAKE", "") or str(random.randrange(10**6))
_random = random.Random()
_lock = threading.Lock()
_seen: Counter[tuple[CodeType, int]] = Counter()
_left = 0.0


def _pause(frame: FrameType) -> None:
    global _left
    with _lock:
        here = (frame.f_code, frame.f_lineno)
        if _left <= 0 or _seen[here] >= PER_LINE or _random.random() > CHANCE:
            return
        _seen[here] += 1
        length = _random.random() * LONGEST
        _left -= length
    time.sleep(length)


def _in_a_test(frame: FrameType, event: str, arg: Any) -> Any:
    if event == "line":
        _pause(frame)
    return _in_a_test


def _in_the_package(frame: FrameType, event: str, arg: Any) -> Any:
    if (
        event == "return"
        and frame.f_back is not None
        and frame.f_back.f_code.co_filename.startswith(_TESTS)
    ):
        _pause(frame)
    return _in_the_package


def _called(frame: FrameType, event: str, arg: Any) -> Any:
    name = frame.f_code.co_filename
    if name.startswith(_TESTS) and not name.startswith(_NOT):
        return _in_a_test
    if name.startswith(_PACKAGE):
        frame.f_trace_lines = False
        return _in_the_package
    return None


def pytest_report_header() -> str:
    """Say which run this is: with its seed the main thread of each test pauses where it did."""
    return f"shaken: EPICSX_SHAKE={SEED}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Trace the test's own time, not that of its fixtures."""
    global _left
    with _lock:
        _random.seed(f"{SEED} {item.nodeid}")
        _seen.clear()
        _left = PER_TEST
    before = sys.gettrace(), threading.gettrace()
    threading.settrace(_called)
    sys.settrace(_called)
    try:
        yield
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])
        with _lock:
            _left = 0.0
