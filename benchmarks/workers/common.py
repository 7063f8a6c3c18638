"""What every worker needs: clocks, the talk with the harness, ages of events, the result line."""

from __future__ import annotations

import ctypes
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


class Delays:
    """How late each update of a counter came, from the IOC's stamp on, and how many never did."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what was before."""
        self.ns: list[int] = []
        self.lost = 0.0
        self._last: float | None = None

    def note(self, received_ns: int, stamp_ns: int, value: float) -> None:
        """One update."""
        self.ns.append(received_ns - stamp_ns)
        if self._last is not None:
            self.lost += value - self._last - 1
        self._last = value

    def figures(self) -> dict[str, float]:
        """Median, 99th percentile and greatest, in ms; how many were lost."""
        if not self.ns:
            raise SystemExit("no update came")
        p50, p99, most = np.percentile(np.array(self.ns) / 1e6, [50, 99, 100])
        return {"p50_ms": p50, "p99_ms": p99, "max_ms": most, "lost": self.lost}


def occupied(gil: str, seconds: float = 0.03) -> Callable[[], object]:
    """A function that takes so long, with the GIL released, or held by a C function."""
    if gil == "released":
        return lambda: time.sleep(seconds)
    if gil != "held":
        raise SystemExit(f"the GIL is released or held, not {gil!r}")
    # A sleep, not a computation, so that it takes as long on a busy machine; PyDLL keeps the GIL.
    usleep, microseconds = ctypes.PyDLL(None).usleep, int(1e6 * seconds)
    return lambda: usleep(microseconds)


def delayed(
    delays: Delays,
    warm: float,
    seconds: float,
    until: Callable[[float], object],
    more: Callable[[], Mapping[str, object]],
) -> NoReturn:
    """Wait for GO, note delays for `seconds`, and report them; `until` lets the time pass."""
    wait_go()
    until(time.perf_counter() + warm)
    used, start = cpu(), time.perf_counter()
    delays.start()
    until(start + seconds)
    figures, stop, spent = delays.figures(), time.perf_counter(), cpu() - used
    finish(len(delays.ns), stop - start, spent, **figures, **more())


def sleep_until(end: float) -> None:
    """Sleep until that time of perf_counter."""
    time.sleep(max(0.0, end - time.perf_counter()))


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
