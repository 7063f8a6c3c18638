"""What `epicsx monitor` does: subscriptions, and the views that make lines of their updates.

Threads
    Updates and connection news come on the dispatcher, which writes the lines itself: so a reader that is slow holds up
    the dispatcher alone, and the queues of epicsx, which are bounded, count what is lost. The main thread waits, for
    Ctrl-C too, and does what goes by the clock. Both take the lock to write; the main thread never after Ctrl-C. With
    --duration one more thread sees to it that the process ends where its reader takes nothing.

Lifetime
    A `Watch` holds its channels and subscriptions until `close`.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

from ..errors import CAError
from . import _facts
from ._format import (
    DISCONNECTED,
    ENUM,
    NOT_FOUND,
    STRING,
    Format,
    Stamps,
    named,
    stamp_text,
    wide_tail,
)
from ._reading import time_type
from ._tools import complain, opened, raw_name

if TYPE_CHECKING:
    from .._ca import Subscription
    from .._channel import Channel
    from .._sample import Sample
    from ._tools import Output

__all__ = ["Watch", "ending", "view_of"]

HISTORY = 4096
"""How many updates of a number a plot shows."""

PLOT_EVERY = 0.5
RATE_EVERY = 1.0
GRACE = 1.0
"""Seconds for which a reader may take nothing after the end."""
JUST = 0.01
"""The part of a period that has no lines of its own at the end."""


class Watched:
    """One PV, and what was heard of it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.name = raw_name(channel.name)
        self.native = -1
        self.count = 0
        self.subscription: Subscription | None = None
        self.printed: float | None = None
        self.waiting: Sample | None = None
        self.refused = False

    @property
    def once(self) -> bool:
        """Whether it was ever connected."""
        return self.native >= 0


# ---------------------------------------------------------------------- views


class View:
    """Lines as camonitor prints them."""

    encoding = "latin-1"
    facts = False
    """Whether values come in the record's own type, whatever the options say."""
    period: float | None = None
    """Seconds between two calls of `tick`, which then makes all lines; None where each update makes one."""

    def __init__(self, options: argparse.Namespace, how: Format, output: Output) -> None:
        self.options = options
        self.how = how
        self.terminal = output.terminal
        self.stamps = Stamps(options.stamps, time_ns())

    def begin(self) -> str:
        """What stands first."""
        return ""

    def update(self, pv: Watched, sample: Sample) -> str:
        """The line of an update."""
        how, now = self.how, time_ns()
        kind = sample.dbr_type % 7
        values = sample.raw(False)
        return (
            named(pv.name, len(values), how)
            + self.stamps.text(pv, sample.timestamp_ns, now)
            + wide_tail(kind, values, sample.status, sample.severity, self.options.count, how)
            + "\n"
        )

    def gone(self, pv: Watched) -> str:
        """The line of a lost connection."""
        return f"{named(pv.name, pv.count, self.how)}{stamp_text(time_ns())} {DISCONNECTED}\n"

    def absent(self, pv: Watched) -> str:
        """The line of a PV that nobody has."""
        return f"{named(pv.name, 0, self.how)}{NOT_FOUND}\n"

    def note(self, pv: Watched, sample: Sample) -> None:
        """Take an update, where lines are made by the clock."""

    def tick(self) -> str:
        """The lines of the time since the last call."""
        return ""

    def end(self) -> str:
        """What stands last."""
        return ""


class Json(View):
    """An object for each update, connection lost, and PV that was not found."""

    encoding = "utf-8"
    facts = True

    def _facts(self, pv: Watched, sample: Sample) -> dict[str, Any]:
        states = None
        if pv.native == ENUM and (control := pv.channel._core.peek_control()) is not None:
            states = control.enum_strings
        return _facts.of_sample(pv.name, sample, states, self.how.long_strings)

    def update(self, pv: Watched, sample: Sample) -> str:
        return _facts.json_line(self._facts(pv, sample))

    def _no_connection(self, pv: Watched) -> str:
        facts = {"name": _facts.text_of(pv.name), "connected": False, "timestamp": time_ns() / 1e9}
        return _facts.json_line(facts)

    gone = absent = _no_connection


class Aside:
    """What is no update goes to stderr."""

    def gone(self, pv: Watched) -> str:
        complain("monitor", f"'{pv.channel.name}' is disconnected")
        return ""

    def absent(self, pv: Watched) -> str:
        complain("monitor", f"'{pv.channel.name}' was not found")
        return ""


class Csv(Aside, Json):
    """A record for each update."""

    def begin(self) -> str:
        return _facts.csv_line(_facts.COLUMNS)

    def update(self, pv: Watched, sample: Sample) -> str:
        cells = _facts.row(self._facts(pv, sample), self.how.enum_numbers)
        return _facts.csv_line(cells, self.terminal)


class Rate(Aside, View):
    """How many updates a second each PV has sent."""

    facts = True

    def __init__(self, options: argparse.Namespace, how: Format, output: Output) -> None:
        super().__init__(options, how, output)
        self.period = options.every or RATE_EVERY
        self.pvs: list[Watched] = []
        self._seen: dict[Watched, int] = {}
        self._since: dict[Watched, float] = {}
        self._told = monotonic()

    def begin(self) -> str:
        if self.options.csv:
            return _facts.csv_line(("name", "timestamp", "updates", "seconds", "rate"))
        return ""

    def note(self, pv: Watched, sample: Sample) -> None:
        if pv in self._since:
            self._seen[pv] = self._seen.get(pv, 0) + 1
        else:  # the value that it had already: from here on updates are counted
            self._since[pv] = monotonic()

    def tick(self) -> str:
        lines, now = [], monotonic()
        self._told = now
        for pv in self.pvs:
            updates = self._seen.pop(pv, 0)
            seconds = now - self._since.get(pv, now)
            if pv in self._since:
                self._since[pv] = now
            rate = updates / seconds if seconds > 0 else 0.0
            name, stamp = _facts.text_of(pv.name), time_ns()
            if self.options.json:
                facts = {"name": name, "timestamp": stamp / 1e9, "updates": updates}
                line = _facts.json_line({**facts, "seconds": round(seconds, 6), "rate": rate})
            elif self.options.csv:
                cells = [
                    name,
                    _facts.iso_time(stamp),
                    str(updates),
                    f"{seconds:.6f}",
                    f"{rate:.6g}",
                ]
                line = _facts.csv_line(cells, self.terminal).encode().decode("latin-1")
            else:
                line = f"{named(pv.name, 1, self.how)}{rate:10.1f} /s\n"
            lines.append(line)
        return "".join(lines)

    def end(self) -> str:
        """The lines of the last period, which is not whole; none if one has just ended."""
        return self.tick() if monotonic() - self._told > JUST * (self.period or 0.0) else ""


class Plot(Aside, View):
    """A plot of each PV: numbers over their updates, arrays over their index."""

    facts = True

    def __init__(self, options: argparse.Namespace, how: Format, output: Output) -> None:
        super().__init__(options, how, output)
        self.period = options.every or PLOT_EVERY
        self.pvs: list[Watched] = []
        self._numbers: dict[Watched, deque[float]] = {}
        self._arrays: dict[Watched, Any] = {}
        self._drawn = 0

    def note(self, pv: Watched, sample: Sample) -> None:
        values = sample.raw(False)
        if pv.native == STRING:
            return
        if len(values) == 1:
            self._arrays.pop(pv, None)
            self._numbers.setdefault(pv, deque(maxlen=HISTORY)).append(float(values[0]))
        else:
            self._arrays[pv] = values

    def _plots(self) -> str:
        from ._plot import plotted

        lines = []
        for pv in self.pvs:
            values = (
                self._arrays[pv].tolist() if pv in self._arrays else list(self._numbers.get(pv, ()))
            )
            last = (
                "" if pv in self._arrays or not values else f"  {self.how.float_text(values[-1])}"
            )
            lines.append(_facts.text_of(self.how.shown(pv.name)) + last)
            lines += plotted(values) if values else ["(no numbers yet)"]
        return "".join(line + "\n" for line in lines)

    def tick(self) -> str:
        if not self.terminal:
            return ""
        text = self._plots()
        # over the one before
        back = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        self._drawn = text.count("\n")
        return back + text

    encoding = "utf-8"

    def end(self) -> str:
        if self.terminal:
            return self.tick()
        return self._plots()


def view_of(options: argparse.Namespace, how: Format, output: Output) -> View:
    """The view that the options ask for."""
    kind = (
        Plot
        if options.plot
        else Rate
        if options.rate
        else Json
        if options.json
        else Csv
        if options.csv
        else View
    )
    return kind(options, how, output)


# ---------------------------------------------------------------------- watching


@contextmanager
def ending(output: Output, duration: float | None) -> Iterator[None]:
    """End this process if, `duration` seconds from now and a grace later, a reader still takes nothing of a line.

    A thread that stands in the system call cannot be ended otherwise, be it the dispatcher or the main one.
    """
    over = threading.Event()

    def guard(seconds: float) -> None:
        if over.wait(seconds + GRACE):
            return
        while not over.wait(0.1):
            since = output.waiting_since
            if since is not None and monotonic() - since >= GRACE:
                # It may be the same pipe.
                if select.select([], [sys.stderr], [], 0.0)[1]:
                    complain("monitor", "standard output is not read: ended without its last lines")
                os._exit(1)

    if duration is not None:
        name = "epicsx-monitor-end"
        threading.Thread(target=guard, args=(duration,), name=name, daemon=True).start()
    try:
        yield
    finally:
        over.set()


class Watch:
    """The PVs of one command, watched until the end."""

    def __init__(
        self, options: argparse.Namespace, view: View, output: Output, timeout: float | None
    ) -> None:
        self._options = options
        self._view = view
        self._output = output
        self._every = None if view.period is not None else options.every
        self._began = monotonic()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._failed: BaseException | None = None
        self._ended = False
        self._write(view.begin())
        self._pvs = [Watched(channel) for channel in opened(options.pvs, options.priority)]
        if isinstance(view, (Plot, Rate)):
            view.pvs = self._pvs
        for pv in self._pvs:
            pv.channel.on_connection(partial(self._on_connection, pv))
            pv.channel.on_access(partial(self._on_access, pv))

    # ---- on the dispatcher

    def _on_connection(self, pv: Watched, channel: Channel, up: bool) -> None:
        try:
            if up:
                self._connected(pv)
            elif pv.once:
                with self._lock:
                    self._write(self._view.gone(pv))
        except CAError as error:
            # It was lost again before all was asked for; the next connection tries anew.
            complain("monitor", error)
        except BaseException as error:  # noqa: BLE001
            self._fail(error)

    def _connected(self, pv: Watched) -> None:
        core, options = pv.channel._core, self._options
        if pv.subscription is not None:
            if core.native_type == pv.native:
                return  # libca has subscribed again by itself
            pv.subscription.close()
            pv.subscription = None
        pv.native = core.native_type
        if (
            self._view.facts
            and pv.native == ENUM
            and options.json | options.csv
            and not options.rate
        ):
            core.control(self._timeout or 5.0)  # the names of its states, from now on
        pv.subscription = core.subscribe(
            partial(self._on_update, pv),
            options.mask,
            min(options.count, core.count),
            dbr_type=time_type(pv.native, options, self._view.facts),
            lane="default",  # one thread, so that lines stand in the order in which updates came
        )

    def _on_access(self, pv: Watched, channel: Channel, read: bool, write: bool) -> None:
        # Without a connection there is no access either; what holds now is what counts.
        refused = channel.connected and not channel.access & 1
        if refused and not pv.refused:
            complain("monitor", f"'{pv.channel.name}': the server gives no read access")
        pv.refused = refused

    def _on_update(self, pv: Watched, sample: Sample) -> None:
        try:
            with self._lock:
                if self._ended:
                    return
                pv.count = sample.count
                if self._view.period is not None:
                    self._view.note(pv, sample)
                    return
                if self._every is not None:
                    now = monotonic()
                    if pv.printed is not None and now < pv.printed + self._every:
                        pv.waiting = sample
                        self._wake.set()
                        return
                    pv.printed, pv.waiting = now, None
                self._write(self._view.update(pv, sample))
        except BaseException as error:  # noqa: BLE001
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Have the main thread raise it, and write no more."""
        self._ended = True
        self._failed = self._failed or error
        self._wake.set()

    def _write(self, text: str) -> None:
        if text:
            self._output.write(text, self._view.encoding)

    # ---- in the main thread

    def run(self) -> None:
        """Wait until the end: that of --duration, Ctrl-C, or a reader that has gone."""
        options, period = self._options, self._view.period
        end = None if options.duration is None else self._began + options.duration
        look = None if self._timeout is None else self._began + self._timeout
        tick = None if period is None else self._began + period
        try:
            while self._failed is None:
                now = monotonic()
                if look is not None and now >= look:
                    look = None
                    self._look()
                if tick is not None and period is not None and now >= tick:
                    with self._lock:
                        self._write(self._view.tick())
                    # a period that was missed is not made up for
                    tick = max(tick + period, now)
                if end is not None and now >= end:
                    with self._lock:  # the line that is being written is not cut off (see ending)
                        self._ended = True
                    break
                due = [self._flush(now), end, look, tick]
                left = min((d for d in due if d is not None), default=None)
                self._wake.wait(None if left is None else max(0.0, left - monotonic()))
                self._wake.clear()
        finally:
            if self._failed is None:
                self._write(self._view.end())
        if self._failed is not None:
            raise self._failed

    def _look(self) -> None:
        with self._lock:
            for pv in self._pvs:
                if not pv.once:
                    self._write(self._view.absent(pv))

    def _flush(self, now: float) -> float | None:
        """Print what has waited long enough; when the next is due."""
        if self._every is None:
            return None
        due = None
        with self._lock:
            for pv in self._pvs:
                if pv.waiting is None or pv.printed is None:
                    continue
                when = pv.printed + self._every
                if when <= now:
                    sample, pv.waiting, pv.printed = pv.waiting, None, now
                    self._write(self._view.update(pv, sample))
                else:
                    due = when if due is None else min(due, when)
        return due

    def code(self) -> int:
        """The exit code of a watch that ended by itself."""
        return 1 if self._lost or any(not pv.once or pv.refused for pv in self._pvs) else 0

    def close(self) -> None:
        """End all subscriptions, and tell of each PV whose updates were not all printed."""
        self._ended = True
        self._lost = 0
        for pv in self._pvs:
            if pv.subscription is not None:
                counts = pv.subscription.stats
                lost = counts.dropped + counts.merged
                self._lost += lost
                if lost and self._failed is None:
                    complain(
                        "monitor",
                        f"'{pv.channel.name}': {lost} updates came faster than they were taken",
                    )
                pv.subscription.close()
            pv.channel.close()
