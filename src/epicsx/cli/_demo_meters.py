"""What the demo measures: updates per PV, gaps of a counter, frames of an image, times of requests, use of the machine.

Threads. The `on_update` of a meter runs on epicsx's dispatcher; whoever draws reads its numbers from another thread,
each by itself, which is good enough for a live view. What the summary tells is read when no update comes any more.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..counts import Counts
from ..enums import DBR
from ..errors import CAError

T = TypeVar("T")

SIZES = {
    DBR.STRING: 40,
    DBR.SHORT: 2,
    DBR.FLOAT: 4,
    DBR.ENUM: 2,
    DBR.CHAR: 1,
    DBR.LONG: 4,
    DBR.DOUBLE: 8,
}
WINDOW = 2.0  # seconds over which the rates of the live view are taken
HISTORY = 20_000  # values of a scalar that are kept for its plot


class Meter:
    """One monitored PV: its updates, counted and kept as far as they are shown."""

    def __init__(self, channel: Any, label: str = "") -> None:
        self.channel = channel
        self.label = label or channel.name
        self.native = channel.native_type
        self.is_array = channel.count > 1
        self.kind = self._kind()
        self.last: Any = None  # the newest Sample
        self.updates = 0
        self.bytes = 0
        self.history: deque[tuple[float, float]] = deque(maxlen=HISTORY)
        self.units, self.precision, self.states = self._control()
        self._size = SIZES[self.native]
        self._seen: deque[tuple[float, int, int]] = deque()
        self._subscription: Any = None
        self._final: Counts | None = None
        self._began = 0.0
        self._ended = 0.0

    def _kind(self) -> str:
        if self.is_array:
            return "strings" if self.native == DBR.STRING else "waveform"
        return {DBR.STRING: "text", DBR.ENUM: "enum"}.get(self.native, "scalar")

    def _control(self) -> tuple[str, int | None, tuple[str, ...]]:
        if self.native == DBR.STRING:
            return "", None, ()
        control = self.channel.control()
        return control.units or "", control.precision, tuple(control.enum_strings or ())

    # ---- its life

    def start(self) -> None:
        """Subscribe."""
        self._began = time.monotonic()
        self._subscription = self.channel.subscribe(self.on_update)

    def stop(self) -> None:
        """Take the counts, then end the subscription: what still waited would count as dropped."""
        self._ended = time.monotonic()
        if self._subscription is None:  # interrupted before it began
            return
        deadline = self._ended + 1.0
        while (final := self._subscription.stats).pending and time.monotonic() < deadline:
            time.sleep(0.002)
        self._final = final
        self._subscription.close()

    def on_update(self, sample: Any) -> None:
        """Account for one update; on the dispatcher."""
        self.last = sample
        self.updates += 1
        self.bytes += sample.count * self._size
        if not self.is_array and self.native != DBR.STRING:
            # by our own clock: a record that was never processed has no stamp
            self.history.append((time.monotonic() - self._began, sample.value))
        self.examine(sample)

    def examine(self, sample: Any) -> None:
        """Look into the update, in the kinds of meter that do."""

    # ---- what it knows

    @property
    def stats(self) -> Counts:
        """The counts of its subscription."""
        if self._subscription is None:
            return Counts(0, 0, 0, 0, 0)
        return self._final or self._subscription.stats

    @property
    def seconds(self) -> float:
        """How long it has listened."""
        return max((self._ended or time.monotonic()) - self._began, 1e-9)

    @property
    def disconnects(self) -> int:
        """How often its connection was lost."""
        return int(self.channel.stats.disconnects)

    def rates(self) -> tuple[float, float]:
        """Updates and megabytes per second, over the last two seconds or so."""
        now, updates, volume = time.monotonic(), self.updates, self.bytes
        seen = self._seen
        if not seen:
            seen.append((self._began, 0, 0))
        seen.append((now, updates, volume))
        while len(seen) > 2 and now - seen[1][0] > WINDOW:
            seen.popleft()
        then, old_updates, old_volume = seen[0]
        took = max(now - then, 1e-9)
        return (updates - old_updates) / took, (volume - old_volume) / took / 1e6

    def mean_rates(self) -> tuple[float, float]:
        """Updates and megabytes per second, over all the time."""
        return self.updates / self.seconds, self.bytes / self.seconds / 1e6

    def failures(self) -> list[str]:
        """What went wrong, each as a sentence without its full stop."""
        found = []
        dropped = self.stats.dropped
        if dropped:
            found.append(f"{self.label}: epicsx dropped {dropped} of {self.stats.received} updates")
        if not self.updates:
            found.append(f"{self.label}: nothing arrived")
        if lost := self.disconnects:
            times = f", {lost} times" if lost > 1 else ""
            found.append(f"{self.label}: the connection was lost{times}")
        return found

    def remarks(self) -> str:
        """What there is to say beyond the counts."""
        return ""

    def text(self) -> str:
        """The newest value, in a few words."""
        if self.last is None:
            return "-"
        value = self.last.value
        if self.kind == "text":
            return str(value)
        if self.kind == "enum":
            return self.states[value] if value < len(self.states) else str(value)
        if self.kind == "strings":
            return f"{len(value)} strings" + (f", first {value[0]!r}" if value else "")
        if self.is_array:
            if not len(value):
                return "empty"
            low, high = self.digits(value.min()), self.digits(value.max())
            return f"{len(value)} x {value.dtype}, {low} to {high} {self.units}".rstrip()
        return f"{self.digits(value)} {self.units}".rstrip()

    def digits(self, value: Any) -> str:
        """A number as the record's precision has it."""
        if isinstance(value, (int, np.integer)):
            return str(value)
        if self.precision is None or self.precision < 0:
            return f"{value:g}"
        return f"{value:.{min(self.precision, 15)}f}" if abs(value) < 1e9 else f"{value:g}"


class Counter(Meter):
    """A counter: every increment must arrive."""

    def __init__(self, channel: Any, label: str = "") -> None:
        super().__init__(channel, label)
        self.gaps = 0  # increments that never arrived
        self._value: float | None = None

    def examine(self, sample: Any) -> None:
        """Compare it with the one before."""
        value, before = sample.value, self._value
        if before is not None and value != before:
            # A step back is an IOC that began again: no saying how much is missing, but something is.
            self.gaps += int(value - before - 1) if value > before else 1
        self._value = value

    def failures(self) -> list[str]:
        """What went wrong; a gap is."""
        found = super().failures()
        if self.gaps:
            found.append(f"{self.label}: {self.gaps} increments of the counter never arrived")
        return found

    def remarks(self) -> str:
        """The gaps."""
        return f"{self.gaps} gaps"


class Distinct(Meter):
    """An array about which nothing is known but how often it differs from the one before."""

    def __init__(self, channel: Any, label: str = "") -> None:
        super().__init__(channel, label)
        self.distinct = 0
        self._before: Any = None

    def examine(self, sample: Any) -> None:
        """Compare it with the one before, byte by byte: a NaN equals itself."""
        value = sample.value
        if not isinstance(value, list):
            value = value.view(np.uint8)
            same = self._before is not None and np.array_equal(value, self._before)
        else:
            same = value == self._before
        self.distinct += not same
        self._before = value

    def remarks(self) -> str:
        """How many were new."""
        return f"{self.distinct} distinct"


class Frames(Meter):
    """An image that has a frame counter in its pixels.

    Parameters
    ----------
    frame_of : callable
        The frame's number in the ring, and whether it is of one piece.
    ring : int
        Number of frames after which the counter begins again.
    rate : float
        Frames that the IOC makes per second.
    """

    def __init__(
        self,
        channel: Any,
        label: str,
        frame_of: Callable[[Any], tuple[int, bool]],
        ring: int,
        rate: float,
    ) -> None:
        super().__init__(channel, label)
        self.kind = "image"
        self._frame_of = frame_of
        self._ring = ring
        self._rate = rate
        self._stamp = 0.0
        self.frame = -1  # of the newest image, with the laps of the ring
        self.distinct = 0
        self.repeated = 0
        self.skipped = 0  # made by the IOC, but never sent
        self.torn = 0

    def examine(self, sample: Any) -> None:
        """Read the counter in its pixels."""
        if not sample.count:
            return  # before its first frame
        place, whole = self._frame_of(sample.value)
        self.torn += not whole
        stamp = sample.timestamp
        if self.frame < 0:
            self.frame, self.distinct = place, 1
        else:
            steps = (place - self.frame) % self._ring
            # The counter tells the place in the ring; whole laps without an image, only the clock.
            laps = round(((stamp - self._stamp) * self._rate - steps) / self._ring)
            steps += max(laps, 0) * self._ring
            if steps:
                self.frame += steps
                self.distinct += 1
                self.skipped += steps - 1
            else:
                self.repeated += 1
        self._stamp = stamp

    def failures(self) -> list[str]:
        """What went wrong; a frame of two halves is."""
        found = super().failures()
        if self.torn:
            found.append(f"{self.label}: {self.torn} frames were not of one piece")
        return found

    def remarks(self) -> str:
        """Distinct frames, and those that were not."""
        return f"{self.distinct} distinct frames, {self.repeated} repeated, {self.skipped} skipped by the IOC"

    def text(self) -> str:
        """The frame's number."""
        return f"frame {self.frame}" if self.frame >= 0 else "-"


class Requests:
    """The times of requests, by kind, and what went wrong with them. One thread writes."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.failed = 0
        self.first_failure = ""
        self.over = False  # no further requests

    def timed(self, kind: str, request: Callable[[], T]) -> T | None:
        """The result of `request`, timed; None if it failed, which is noted, or if all is over."""
        if self.over:
            return None
        began = time.perf_counter()
        try:
            result = request()
        except CAError as error:
            self.fail(str(error))
            return None
        self.times.setdefault(kind, []).append(time.perf_counter() - began)
        return result

    def fail(self, why: str) -> None:
        """Note a failure."""
        self.failed += 1
        self.first_failure = self.first_failure or why

    def rows(self) -> list[tuple[str, int, float, float]]:
        """Kind, number, median and 99th percentile in milliseconds."""
        found = []
        for kind, all_times in list(self.times.items()):
            times = sorted(all_times)
            # a percentile of few values is the largest of them
            p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
            found.append((kind, len(times), statistics.median(times) * 1e3, p99 * 1e3))
        return found

    def failures(self) -> list[str]:
        """What went wrong."""
        if not self.failed:
            return []
        return [f"{self.failed} requests failed, the first: {self.first_failure}"]


class Usage:
    """Processor time and memory of this process and of another, as far as the system tells."""

    def __init__(self, other: int | None = None) -> None:
        self._pids = {"this process": os.getpid()}
        if other is not None:
            self._pids["IOC"] = other
        self._began = {name: (time.monotonic(), _cpu(pid)) for name, pid in self._pids.items()}

    def text(self) -> str:
        """The processor share since the start and the memory now, of each."""
        parts = []
        for name, pid in self._pids.items():
            then, before = self._began[name]
            now, memory = _cpu(pid), _memory(pid)
            if before is None or now is None:
                continue
            share = (now - before) / max(time.monotonic() - then, 1e-9)
            parts.append(f"{name} {share:.0%} of a core" + (f", {memory:.0f} MB" if memory else ""))
        return "; ".join(parts)


def _cpu(pid: int) -> float | None:
    """Seconds of processor time that a process has used."""
    if pid == os.getpid():
        return time.process_time()
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _memory(pid: int) -> float | None:
    """Megabytes of memory that a process occupies."""
    if sys.platform != "linux":
        return None
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError):
        return None
