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
        deadline = self._ended + 1.0
        while self._subscription.stats.pending and time.monotonic() < deadline:
            time.sleep(0.002)
        self._final = self._subscription.stats
        self._subscription.close()

    def on_update(self, sample: Any) -> None:
        """Account for one update; on the dispatcher."""
        self.last = sample
        self.updates += 1
        self.bytes += sample.count * self._size
        if not self.is_array and self.native != DBR.STRING:
            self.history.append((sample.timestamp, sample.value))
        self.examine(sample)

    def examine(self, sample: Any) -> None:
        """Look into the update, in the kinds of meter that do."""

    # ---- what it knows

    @property
    def stats(self) -> Counts:
        """The counts of its subscription."""
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
        if self.disconnects:
            found.append(f"{self.label}: the connection was lost {self.disconnects} times")
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
            low, high = self.number(value.min()), self.number(value.max())
            return f"{len(value)} x {value.dtype}, {low} to {high} {self.units}".rstrip()
        return f"{self.number(value)} {self.units}".rstrip()

    def number(self, value: Any) -> str:
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
    """An array about which nothing is known: how often does it differ from the one before?"""

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
        self.first: int | None = None
        self.number = 0  # type: ignore[assignment]
        self.distinct = 0
        self.repeated = 0
        self.skipped = 0  # made by the IOC, but never sent
        self.torn = 0

    def examine(self, sample: Any) -> None:
        """Read the counter in its pixels."""
