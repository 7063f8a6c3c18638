"""What every worker needs: clocks, the talk with the harness, ages of events, the result line."""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

SAMPLE_EVERY = 256  # events per noted age: rare enough to cost nothing


def cpu() -> float:
    """Seconds of CPU that this process has used, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss() -> int:
    """Bytes of memory that are resident now."""
    gc.collect()
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:  # no procfs: the high-water mark has to do
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wait_go() -> None:
    """Say that all is subscribed and wait until the event source runs."""
    print("\nREADY", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("no GO")


def finish(items: float, seconds: float, cpu_seconds: float, **more: object) -> NoReturn:
    """Print the result and leave at once: how a library takes leave is no row."""
    result = {"items": items, "seconds": seconds, "cpu": cpu_seconds, **more}
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)


def repeat(work: Callable[[], object], items: int, seconds: float) -> NoReturn:
    """Do `work`, which counts `items`, again and again for `seconds`, and report."""
    warm_until = time.perf_counter() + 0.1 * seconds
    work()
    while time.perf_counter() < warm_until:
        work()
    calls = 0
    used, start = cpu(), time.perf_counter()
    while True:
        work()
        calls += 1
        now = time.perf_counter()
        if now - start >= seconds:
            break
    finish(calls * items, now - start, cpu() - used)


class Ages:
    """Seconds from an event's time stamp to its delivery, noted now and then."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def halves_ms(self) -> list[float] | None:
        """Medians of the first and of the second half of the run, in ms: the age must not grow."""
        half = len(self.seconds) // 2
        if not half:
            return None
        parts = self.seconds[:half], self.seconds[half:]
        return [round(1e3 * statistics.median(part), 4) for part in parts]


def measure(
    counted: Callable[[], float],
    warm: float,
    seconds: float,
    ages: Ages,
    meanwhile: Callable[[], object] | None = None,
    more: Callable[[], Mapping[str, object]] | None = None,
) -> NoReturn:
    """Wait for GO, let events come for `seconds`, and report how far `counted` went."""
    wait_go()
    time.sleep(warm)
    ages.seconds.clear()
    used, start, first = cpu(), time.perf_counter(), counted()
    end = start + seconds
    while True:
        left = end - time.perf_counter()
        if left <= 0:
            break
        time.sleep(min(left, 0.01) if meanwhile else left)
        if meanwhile:
            meanwhile()
    last, stop, spent = counted(), time.perf_counter(), cpu() - used
    extra = more() if more else {}
    finish(last - first, stop - start, spent, age_ms=ages.halves_ms(), **extra)


def wait_until(ready: Callable[[], bool], timeout: float = 30.0) -> None:
    """Return as soon as `ready` says so; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"not ready after {timeout} s")
        time.sleep(0.001)


def array_like(native_type: str, count: int) -> npt.NDArray[Any]:
    """An array to put, of the record's own type."""
    dtype = np.uint8 if native_type == "char" else np.float64
    return (np.arange(count) % 251).astype(dtype)
