"""Which metadata belong to which frame: the join of ArrayData with the PVs beside it. Pure: no CA, no clock.

CA hands over each PV by itself. What tells that some of their updates belong together is how ADCore posts them, which
`epicsx.testing.AreaDetectorIOC` describes with the source of each fact:

- Of each frame the parameters come in one burst, UniqueId_RBV behind all that say how to read the data,
  ArrayCounter_RBV before them. Usually the burst follows the data, under load it may precede them; the frame's sizes
  precede both.
- What has not changed is not posted. So a frame's mode is what was posted last until its burst has ended.

So a frame waits for its UniqueId_RBV, the first that follows its data or one just before them, and is read by all that
was posted until then. As a lagging client may not be told of some frame's data, or of its burst, the time between
frames has a say in it, and the wait is bounded. A frame for which no number comes is still read when nothing changed
around it; else it is unmatched. The sizes must fit in any case.

Times are any that grow alike for all events: the server's stamps, or the client's times of arrival where those of the
array and of the metadata come from different clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ._ndarray import Mode
from .errors import CAError

__all__ = ["FIELDS", "UNTOLD", "Joined", "Joiner"]

T = TypeVar("T")

FIELDS = ("dims", "color_mode", "data_type", "bayer", "codec", "compressed_size")
"""What makes a `Mode`, as `Joiner.news` takes it; beside them ``unique_id`` and ``counter``."""

_NUMBERS = ("unique_id", "counter")
_SOON = 2_000_000  # ns; taken for the time between frames before there is any
_KEPT = 1000  # numbers that no frame has taken

UNTOLD = "the updates of its PVs wait to be delivered"
"""The problem of a frame whose PVs may have said all, but are not heard."""


@dataclass(frozen=True)
class Joined(Generic[T]):
    """A frame, and what is known of it.

    Attributes
    ----------
    payload : object
        As it was given to `Joiner.array`.
    mode : Mode or None
        How to read it; None for a frame whose metadata did not come.
    number : int or None
        Its unique id, or its array counter where unique ids do not change; None where none came.
    by : 'unique_id', 'counter' or ''
        Which of them that is.
    problem : str
        Why there is no mode.
    """

    payload: T
    mode: Mode | None
    number: int | None = None
    by: str = ""
    problem: str = ""


@dataclass
class _Frame(Generic[T]):
    time: int
    payload: T
    deadline: int


@dataclass
class _Number:
    time: int
    value: int


@dataclass
class Joiner(Generic[T]):
    """The frames in their order, each with its mode, when that is known.

    Parameters
    ----------
    fits : callable(payload, Mode) -> bool
        Whether the array's size is what that mode says.
    patience : int, ns
        How long a frame waits for its metadata.
    caught_up : callable() -> bool
        Whether all metadata that have come have been told, too. Until then none is missing; but they are told in the
        order in which they came, so a number of a later time proves as much for what is before it.
    held_up : int, ns
        How much longer a frame waits for that.
    settle : int, ns
        How long a frame waits behind its array counter, where unique ids do not change: the mode comes behind that.
    """

    fits: Callable[[T, Mode], bool]
    patience: int = 150_000_000
    caught_up: Callable[[], bool] = lambda: True
    held_up: int = 2_000_000_000
    settle: int = 20_000_000
    _frames: deque[_Frame[T]] = field(default_factory=deque)
    _history: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)
    _numbers: dict[str, deque[_Number]] = field(
        default_factory=lambda: {name: deque(maxlen=_KEPT) for name in _NUMBERS}
    )
    _heard: dict[str, int] = field(default_factory=dict)
    _last: int | None = None
    _given_up: bool = False  # the last frame waited in vain for its number, which may still come
    _end: int | None = None
    _period: int | None = None
    _ids_change: bool = True
    _precede: bool = False  # the last burst that was clearly one frame's came before its data

    def news(self, name: str, value: Any, time: int) -> None:
        """Hear what a metadata PV says; `time` is its update's."""
        if name in _NUMBERS:
            if name == "unique_id":
                self._ids_change = True
            numbers = self._numbers[name]
            if (
                numbers and numbers[-1].time > time
            ):  # a queue in the server was full: a newer one took its place
                return
            if self._heard.get(name) is not None:
                self._pace(time - self._heard[name])
            self._heard[name] = time
            numbers.append(_Number(time, int(value)))
            return
        if name not in FIELDS:
            raise ValueError(f"no field {name!r}")
        kept = self._history.setdefault(name, deque())
        if not kept or kept[-1][0] <= time:
            kept.append((time, value))

    def array(self, payload: T, time: int, now: int) -> None:
        """Hear of a frame's data. `now` is the clock by which `take` and `deadline` count, in ns."""
        previous = self._frames[-1].time if self._frames else self._last
        if previous is not None:
            self._pace(time - previous)
        self._frames.append(_Frame(time, payload, now + self.patience))

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._frames)

    def deadline(self) -> int | None:
        """When `take` has something to do though nothing comes; None when no frame waits."""
        return self._frames[0].deadline if self._frames else None

    def take(self, now: int) -> list[Joined[T]]:
        """The frames that are settled, in their order."""
        done: list[Joined[T]] = []
        while self._frames:
            joined = self._settle(self._frames[0], now)
            if joined is None:
                break
            done.append(joined)
            self._last = self._frames.popleft().time
        return done

    def forget(self, name: str) -> None:
        """Forget what one PV has said, as when its connection is lost: what it says next counts whatever its stamp."""
        self._history.pop(name, None)
        if name in _NUMBERS:
            self._numbers[name].clear()
            self._heard.pop(name, None)
            if name == "unique_id":
                self._ids_change = True

    @property
    def by(self) -> str:
        """By which number frames are known now: 'unique_id', or 'counter' where unique ids do not change."""
        return "unique_id" if self._ids_change else "counter"

    def spend(self) -> None:
        """Count all numbers that were heard as taken, by a frame that somebody else has matched."""
        for numbers in self._numbers.values():
            numbers.clear()

    def abandon(self) -> list[Joined[T]]:
        """The frames that waited when the connection was lost, unmatched: what comes then is of other frames."""
        waiting = [Joined(f.payload, None, problem="the connection was lost") for f in self._frames]
        self._frames.clear()
        self._last = self._end = self._period = None
        return waiting

    def reset(self) -> list[Joined[T]]:
        """Forget all that is known, as after the loss of the connection; the frames that waited, unmatched."""
        for name in (*FIELDS, *_NUMBERS):
            self.forget(name)
        return self.abandon()

    # ---- which number

    def _settle(self, frame: _Frame[T], now: int) -> Joined[T] | None:
        waited = now >= frame.deadline
        late = waited and self._told(frame.time + self.patience)
        by = self.by
        number = self._number(frame, self._numbers[by], late)
        if number is None and late and by == "unique_id":
            # None for a whole wait: this driver may have no unique ids. They are believed again when one comes.
            number, by = self._number(frame, self._numbers["counter"], late), "counter"
            if number is not None and self._heard.get("unique_id", 0) < frame.time:
                self._ids_change = False
        if number is None:
            if late:
                self._given_up = True
                return self._without(frame)
            return self._held_up(frame, now)
        end = max(frame.time, number.time)
        if by == "counter":
            end += self.settle
            follows = len(self._frames) > 1 and self._frames[1].time > frame.time
            if follows:  # then its burst is over, and the sizes of the next frame are posted just before its data
                end = min(end, self._frames[1].time - 1)
            elif not late and now < frame.deadline - self.patience + self.settle:
                return None
            if not late and not self._told(end):
                return self._held_up(frame, now)
        self._given_up = False
        gap = abs(number.time - frame.time)
        if by == "unique_id" and 0 < gap <= self._within(4):
            self._precede = number.time < frame.time
        self._forget(number, by)
        self._end = end
        return self._read(frame, self._mode(end), number.value, by)

    def _held_up(self, frame: _Frame[T], now: int) -> Joined[T] | None:
        """What becomes of a frame while what has come may not be told: it waits, but not for ever."""
        if now < frame.deadline + self.held_up:
            return None
        self._given_up = True
        return Joined(frame.payload, None, problem=UNTOLD)

    def _number(self, frame: _Frame[T], numbers: deque[_Number], late: bool) -> _Number | None:
        """The number that belongs to a frame; None while that is not sure, and when there is none."""
        before = after = None
        for each in numbers:
            if each.time < frame.time:
                before = each
            else:
                after = each
                break
        following = self._frames[1].time if len(self._frames) > 1 else None
        ahead = None if before is None else frame.time - before.time
        behind = None if after is None else after.time - frame.time
        if behind == 0:
            return after
        # While bursts precede their data, one that stands right before the next data is not the missing one of these;
        # taken for it, it would shift the numbers of all frames to come.
        if (
            self._precede
            and after is not None
            and behind is not None
            and following is not None
            and 0 <= 4 * (following - after.time) < behind
        ):
            after = behind = None
        # A number that is behind the data, or none though all have been told: that before is the last one before them.
        sure = late or before is None or self._told(frame.time)
        # It is that of the frame before, if that waited for it in vain and bursts do not precede their data.
        theirs = (
            before is not None
            and self._given_up
            and self._last is not None
            and before.time >= self._last
        )
        # Nor does it matter then how long before its data a burst stands that the frame before has not taken.
        if (
            self._precede
            and before is not None
            and (self._last is None or before.time > self._last)
            and (behind is None or behind > self._within(4))
        ):
            return before if sure else None
        # A burst just before the data that no frame has taken: this plugin's bursts precede.
        if (
            before is not None
            and ahead is not None
            and ahead <= self._within(4)
            and (behind is None or ahead < behind)
            and (self._precede or not theirs or ahead < before.time - (self._last or 0))
        ):
            return before if sure else None
        if (
            after is not None
            and behind is not None
            and (following is None or after.time < following)
        ):
            # A frame's burst, if it is not there yet, is the next to come. But that of this frame may be missing.
            return after if following is not None or late or behind <= self._within(2) else None
        # The next burst is the next frame's, or none came.
        if (
            ahead is not None
            and (following is not None or late)
            and ahead <= self._within(1)
            and not theirs
        ):
            return before if sure else None
        return None

    def _told(self, time: int) -> bool:
        """Whether all that has come of that time and before has been told: what is told later proves it, too."""
        return any(heard >= time for heard in self._heard.values()) or self.caught_up()

    def _within(self, part: int) -> int:
        """That part of the time between two frames, in ns."""
        return max((_SOON if self._period is None else self._period) // part, 1)

    def _pace(self, gap: int) -> None:
        """Learn the time between frames: the shortest of the last ones, as some may be missing."""
        if gap > 0:
            slower = gap if self._period is None else self._period + self._period // 4 + 1
            self._period = min(gap, slower)

    def _forget(self, number: _Number, by: str) -> None:
        """A number that is taken goes, and all before it: those frames never came."""
        for name, numbers in self._numbers.items():
            while numbers and (numbers[0].time < number.time or numbers[0] is number):
                numbers.popleft()
            if name != by and numbers and numbers[0].time == number.time:
                numbers.popleft()

    # ---- which mode

    def _mode(self, until: int) -> Mode | str:
        """What all that was posted until then says together, or what is missing."""
        values: dict[str, Any] = {}
        for name in FIELDS:
            kept = self._history.get(name)
            if not kept:
                return f"nothing is known of its {name}"
            while len(kept) > 1 and kept[1][0] <= until:
                kept.popleft()
            values[name] = kept[0][1]
        try:
            return Mode.of(**values)
        except CAError as error:
            return error.message

    def _read(self, frame: _Frame[T], mode: Mode | str, number: int | None, by: str) -> Joined[T]:
        if isinstance(mode, str):
            return Joined(frame.payload, None, number, by, mode)
        if not self.fits(frame.payload, mode):
            return Joined(
                frame.payload,
                None,
                number,
                by,
                f"the array's size is not that of {mode.dims} {mode.data_type.name} {mode.codec}".rstrip(),
            )
        return Joined(frame.payload, mode, number, by)

    def _without(self, frame: _Frame[T]) -> Joined[T]:
        """A frame whose number has not come: readable when nothing has changed from the frame before to now."""
        for name in FIELDS:
            kept = self._history.get(name)
            if not kept:
                return Joined(frame.payload, None, problem=f"nothing is known of its {name}")
            if self._changed(name, self._end if self._end is not None else frame.time):
                return Joined(
                    frame.payload,
                    None,
                    problem=f"its {name} changed while no number came to tell which frame it belongs to",
                )
        return self._read(frame, self._mode(frame.time), None, "")

    def _changed(self, name: str, since: int) -> bool:
        kept = self._history[name]
        return len(kept) > 1 and kept[-1][0] > since
