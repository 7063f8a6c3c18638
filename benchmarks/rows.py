"""The rows: what is measured for each, which figures it shows, and what epicsx must reach.

A *measurement* is one process doing one thing for a few seconds; a *row* shows one figure of some
measurements beside each other.  A new row is an entry in `MEASUREMENTS` (one per library) and one
in `ROWS`; a new kind of work is a verb of a worker and of the C client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .source import SCALARS, SEGMENT, STATIC

Result = Mapping[str, object]


@dataclass(frozen=True)
class Source:
    """The record that the IOC processes meanwhile, and how many posts each processing makes."""

    record: str
    posts: int = 1
    beside: tuple[str, ...] = ()  # records that it processes at the same time


@dataclass(frozen=True)
class Measurement:
    """One worker: arguments after the program, in which {p}, {s}, {w} are filled in."""

    group: str
    # c, pyepics, aioca, epicsx (pyepics' interface), native, hardened (native, on the hardened
    # libca that `make bench-hardened` builds), aio, import
    program: str
    arguments: str
    source: Source | None = None


@dataclass(frozen=True)
class Goal:
    """What epicsx must reach: `factor` times another measurement, plus `offset`."""

    least: bool  # at least, else at most
    factor: float
    reference: str  # c, pyepics, aioca, numpy, or nothing
    offset: float = 0.0
    unit: str = ""

    def __str__(self) -> str:
        """The goal as the table shows it."""
        names = {"c": "C", "numpy": "numpy's import"}
        sign = ">=" if self.least else "<="
        if not self.reference:
            return f"{sign} {self.offset:g} {self.unit}"
        times = f"{self.factor:g} x " if self.factor != 1.0 else ""
        plus = f" + {self.offset:g} {self.unit}" if self.offset else ""
        return f"{sign} {times}{names.get(self.reference, self.reference)}{plus}"


@dataclass(frozen=True)
class Row:
    """One line of the table: keys of measurements per column, the figure taken, the goal."""

    group: str
    title: str
    figure: str  # a key of UNITS
    epicsx: str
    c: str | None = None
    pyepics: str | None = None
    goal: Goal | None = None
    numpy: str | None = None
    aioca: str | None = None


def at_least(factor: float, reference: str) -> Goal:
    """A goal for figures of which more is better."""
    return Goal(True, factor, reference)


def figure(result: Result, name: str) -> float:
    """The figure of one measurement that a row shows."""

    def number(key: str) -> float:
        value = result.get(key)
        return float(value) if isinstance(value, (int, float)) else float("nan")

    if name == "rate":
        return number("items") / number("seconds")
    if name == "cpu_us":
        items = number("items")
        return 1e6 * number("cpu") / items if items else float("nan")
    return number(name)


UNITS = {
    "rate": "/s",
    "cpu_us": "us CPU",
    "bytes_each": "bytes",
    "ms": "ms",
    "p99_ms": "ms",
    "lost": "lost",
    "growth": "bytes",
}

CHAIN = Source("all", SCALARS)
STEADY = Source("step", SEGMENT)
BESIDE = Source("tick", 1, ("camera",))

MEASUREMENTS: dict[str, Measurement] = {}
ROWS: list[Row] = []


def _measure(key: str, program: str, arguments: str, source: Source | None = None) -> str:
    MEASUREMENTS[key] = Measurement(key.split("/")[0], program, arguments, source)
    return key


def _both(group: str, verb: str, arguments: str, source: Source | None = None) -> tuple[str, str]:
    """The same worker on pyepics and on epicsx."""
    return (
        _measure(f"{group}/pyepics {verb}", "pyepics", f"{verb} {arguments}", source),
        _measure(f"{group}/epicsx {verb}", "epicsx", f"{verb} {arguments}", source),
    )


def _simple() -> None:
    c = _measure("get/c", "c", "get {p}n0 {s}")
    old, new = _both("get", "get", "{p}n0 {s}")
    native = _measure("get/native", "native", "get {p}n0 {s}")
    goal = at_least(0.9, "c")
    ROWS.append(Row("get", "get: `PV.get(use_monitor=False)`", "rate", new, c, old, goal))
    ROWS.append(Row("get", "get: `Channel.get`", "rate", native, c, old, goal))

    c = _measure("getmany/c", "c", "getmany {p}n 1000 {s}")
    old, new = _both("getmany", "getmany", "{p}n {s} 0 1000")
    native = _measure("getmany/native", "native", "getmany {p}n {s} 0 1000")
    goal = at_least(60.0, "pyepics")
    ROWS.append(Row("getmany", "`caget_many` of 1000 PVs", "rate", new, c, old, goal))
    ROWS.append(Row("getmany", "`get_many` of 1000 channels", "rate", native, c, old))
    columns = _measure("getmany/native snapshot", "native", "snapshot {p}n {s} 0 1000")
    goal = at_least(0.7, "c")
    ROWS.append(Row("getmany", "`snapshot` of 1000 PVs", "rate", columns, c, old, goal))

    c = _measure("put/c", "c", "put {p}put {p}put_posts {s}")
    old, new = _both("put", "put", "{p}put {s}")
    native = _measure("put/native", "native", "put {p}put {s}")
    goal = at_least(25.0, "pyepics")
    ROWS.append(Row("put", "put, no wait: `PV.put`", "rate", new, c, old, goal))
    ROWS.append(Row("put", "put, no wait: `Channel.put`", "rate", native, c, old))

    c = _measure("put_wait/c", "c", "put_wait {p}put {s}")
    old, new = _both("put_wait", "put_wait", "{p}put {s}")
    native = _measure("put_wait/native", "native", "put_wait {p}put {s}")
    goal = at_least(0.85, "c")
    ROWS.append(Row("put_wait", "put, wait: `PV.put(wait=True)`", "rate", new, c, old, goal))
    ROWS.append(Row("put_wait", "put, wait: `Channel.put`", "rate", native, c, old, goal))

    c = _measure("connect/c", "c", f"connect {{p}}n {STATIC} 0")
    old, new = _both("connect", "connect", f"{{p}}n 0 0 {STATIC}")
    native = _measure("connect/native", "native", f"connect {{p}}n 0 0 {STATIC}")
    text = f"connect {STATIC} PVs"
    fast = at_least(5.0, "pyepics")
    ROWS.append(Row("connect", f"{text}: `PV()`", "rate", new, c, old, fast))
    ROWS.append(
        Row("connect", f"{text}: `epicsx.connect`", "rate", native, c, old, at_least(0.4, "c"))
    )
    small = Goal(False, 0.0, "", 3000.0, "bytes")
    ROWS.append(Row("connect", "memory per unmonitored PV", "bytes_each", new, c, old, small))
    ROWS.append(Row("connect", "memory per channel", "bytes_each", native, c, old))

    c = _measure("first_values/c", "c", f"connect {{p}}n {STATIC} 1")
    old, new = _both("first_values", "connect_values", f"{{p}}n 0 0 {STATIC}")
    text = f"{STATIC} monitored PVs, each with its first value"
    ROWS.append(Row("first_values", text, "rate", new, c, old))
    ROWS.append(Row("first_values", "memory per monitored PV", "bytes_each", new, c, old))

    old, new = _both("cached_get", "cached_get", "{p}n0 {s}")
    goal = at_least(2.0, "pyepics")
    text = "`PV.get()` of a monitored PV, no network"
    ROWS.append(Row("cached_get", text, "rate", new, None, old, goal))

    _measure("import/numpy", "import", "numpy")
    old = _measure("import/pyepics", "import", "epics")
    new = _measure("import/epicsx", "import", "epicsx")
    goal = Goal(False, 1.0, "numpy", 30.0, "ms")
    ROWS.append(Row("import", "import", "ms", new, None, old, goal, "import/numpy"))


def _updates(group: str, text: str, source: Source, steady: bool) -> None:
    times = "{s} {w} 1000"
    c = _measure(f"{group}/c", "c", "updates {p}c 1000 {w} {s}", source)
    old, new = _both(group, "updates_callback", f"{{p}}c {times}", source)
    native = _measure(f"{group}/native", "native", f"updates {{p}}c {times}", source)
    recorder = _measure(f"{group}/native recorder", "native", f"recorder {{p}}c {times}", source)
    old_value, value = _both(group, "updates_value", f"{{p}}c {times}", source)
    callback = f"{text}: `callback(**kw)`"
    subscribe = f"{text}: `subscribe(callback)`"
    fresh = f"{text}: no callback, `.value` fresh"
    recorded = f"{text}: `Recorder`"
    lines = (
        (callback, new, old, at_least(10.0, "pyepics")),
        (subscribe, native, None, at_least(0.6, "c")),
        (fresh, value, old_value, at_least(0.9, "c")),
        (recorded, recorder, None, at_least(0.9, "c")),
    )
    for title, mine, theirs, goal in lines:
        ROWS.append(Row(group, title, "rate", mine, c, theirs, None if steady else goal))
    cpu_lines: tuple[tuple[str, str, str | None, Goal | None], ...] = (
        (callback, new, old, Goal(False, 0.2 if steady else 0.15, "pyepics")),
        (subscribe, native, None, Goal(False, 0.0, "", 1.0, "us")),
        (fresh, value, old_value, Goal(False, 3.0, "c")),
        (recorded, recorder, None, None),
    )
    for title, mine, theirs, most in cpu_lines:
        shown = None if steady and mine is not new else most
        ROWS.append(Row(group, f"CPU per update, {title}", "cpu_us", mine, c, theirs, shown))


def _arrays() -> None:
    texts = {
        "image": "image 4.18 MB uint8",
        "wave1m": "waveform 1M float64",
        "wave10k": "waveform 10k float64",
        "wave1k": "waveform 1k float64",
    }
    for record, text in texts.items():
        group = f"{record}_monitor"
        source = Source(record)
        c = _measure(f"{group}/c", "c", f"monitor {{p}}{record} {{w}} {{s}}", source)
        old, new = _both(group, "monitor", f"{{p}}{record} {{s}} {{w}}", source)
        arguments = f"monitor {{p}}{record} {{s}} {{w}}"
        native = _measure(f"{group}/native", "native", arguments, source)
        goal = at_least(0.8 if record == "wave10k" else 0.85, "c")
        ROWS.append(Row(group, f"{text}, monitor: `callback(**kw)`", "rate", new, c, old, goal))
        ROWS.append(Row(group, f"{text}, monitor: `subscribe`", "rate", native, c, old, goal))
        arguments = f"stream {{p}}{record} {{s}} {{w}}"
        stream = _measure(f"{group}/native stream", "native", arguments, source)
        title = f"{text}, `stream`"
        large = at_least(0.95, "c") if record in ("image", "wave1m") else None
        ROWS.append(Row(group, title, "rate", stream, c, old, large))
        if record == "image":
            arguments = f"reduce {{p}}{record} {{s}} {{w}}"
            mean = _measure(f"{group}/native reduce", "native", arguments, source)
            reduced = f"{text}, `stream(reduce=mean())`"
            ROWS.append(Row(group, reduced, "rate", mean, c, old, at_least(1.0, "c")))
            ROWS.append(Row(group, f"CPU per frame, {title}", "cpu_us", stream, c, old))
            ROWS.append(Row(group, f"CPU per frame, {reduced}", "cpu_us", mean, c, old))
    goal = at_least(0.95, "c")
    for record in ("image", "wave1m"):
        text, group = texts[record], f"{record}_get"
        arguments = f"{{p}}{record} {{s}}"
        c = _measure(f"{group}/c", "c", f"get {arguments}")
        old, new = _both(group, "get", arguments)
        native = _measure(f"{group}/native", "native", f"get {arguments}")
        out = _measure(f"{group}/native out", "native", f"get_out {arguments}")
        ROWS.append(Row(group, f"{text}, `PV.get`", "rate", new, c, old, goal))
        ROWS.append(Row(group, f"{text}, `Channel.get`", "rate", native, c, old, goal))
        ROWS.append(Row(group, f"{text}, `Channel.get(out=)`", "rate", out, c, old, goal))
    for record in ("image", "wave1m"):
        text, group = texts[record], f"{record}_put"
        arguments = f"put_wait {{p}}{record} {{s}}"
        c = _measure(f"{group}/c", "c", arguments)
        old, new = _both(group, "put_wait", f"{{p}}{record} {{s}}")
        native = _measure(f"{group}/native", "native", arguments)
        ROWS.append(Row(group, f"{text}, `PV.put(wait=True)`", "rate", new, c, old, goal))
        ROWS.append(Row(group, f"{text}, `Channel.put(wait=True)`", "rate", native, c, old, goal))


def _latency() -> None:
    group, ticks = "latency", "{p}tick {s} {w} 1 {p}camera"
    c = _measure(f"{group}/c", "c", "latency {p}tick {p}camera {w} {s}", BESIDE)
    for gil in ("released", "held"):
        first = gil == "released"
        goal = Goal(False, 0.0, "", 2.0, "ms") if first else None
        old, new = (
            _measure(f"{group}/{p} {gil}", p, f"latency {ticks} {gil}", BESIDE)
            for p in ("pyepics", "epicsx")
        )
        lines = [("`stream`", "stream", "auto"), ("`stream(lane='default')`", "stream", "default")]
        if first:
            lines.append(("`subscribe(lane='default')`", "subscribe", "default"))
        for title, how, lane in lines:
            arguments = f"latency {ticks} {gil} {how} {lane}"
            key = _measure(f"{group}/native {how} {lane} {gil}", "native", arguments, BESIDE)
            text = f"p99 of 1000 scalars/s beside images, {title}, GIL {gil}"
            shown = goal if lane == "auto" else None
            ROWS.append(Row(group, text, "p99_ms", key, c, old, shown))
            if shown:
                none = Goal(False, 0.0, "", 0.0, "lost")
                ROWS.append(Row(group, f"lost of these, {title}", "lost", key, c, old, none))
        text = f"p99 of 1000 scalars/s beside images, `PV(callback=)`, GIL {gil}"
        ROWS.append(Row(group, text, "p99_ms", new, c, old, goal))


def _memory() -> None:
    # At up to 10 000 frames a second, a minute at most. One object leaked per frame is 16 bytes.
    key = _measure("memory/native", "native", "memory {p}wave1k 60 0 100000", Source("wave1k"))
    title = "memory growth per frame, `stream` of 100 000"
    ROWS.append(Row("memory", title, "growth", key, goal=Goal(False, 0.0, "", 2.0, "bytes")))


def _asyncio() -> None:
    def both(group: str, verb: str, arguments: str, source: Source | None = None) -> list[str]:
        programs = ("aioca", "aio")
        words = f"{verb} {arguments}"
        return [_measure(f"{group}/{p} {verb}", p, words, source) for p in programs]

    theirs, mine = both("aio_get", "get", "{p}n0 {s}")
    goal = at_least(1.5, "aioca")
    ROWS.append(Row("aio_get", "asyncio: `caget`", "rate", mine, goal=goal, aioca=theirs))
    key = _measure("aio_get/aio aget", "aio", "aget {p}n0 {s}")
    ROWS.append(Row("aio_get", "asyncio: `Channel.aget`", "rate", key, goal=goal, aioca=theirs))

    theirs, mine = both("aio_getmany", "getmany", "{p}n {s} 0 1000")
    title, goal = "asyncio: `caget` of a list of 1000", at_least(50.0, "aioca")
    ROWS.append(Row("aio_getmany", title, "rate", mine, goal=goal, aioca=theirs))

    # No flood: that measures, below, what libca's threads leave to the others.
    flow = Source("flow", SCALARS)
    arguments, goal = "{p}c {s} {w} 1000", at_least(5.0, "aioca")
    theirs, mine = both("aio_updates", "monitor", arguments, flow)
    title = "asyncio, updates of 1000 scalars: `camonitor`"
    ROWS.append(Row("aio_updates", title, "rate", mine, goal=goal, aioca=theirs))
    key = _measure("aio_updates/aio updates", "aio", f"updates {arguments}", flow)
    text = "asyncio, updates of 1000 scalars: `async for`"
    ROWS.append(Row("aio_updates", text, "rate", key, goal=goal, aioca=theirs))
    for each, what in ((mine, title), (key, text)):
        ROWS.append(Row("aio_updates", f"CPU per update, {what}", "cpu_us", each, aioca=theirs))

    theirs, mine = both("aio_flood", "monitor", arguments, CHAIN)
    title = "asyncio, a flood of updates: `camonitor`"
    ROWS.append(Row("aio_flood", title, "rate", mine, aioca=theirs))
    key = _measure("aio_flood/aio updates", "aio", f"updates {arguments}", CHAIN)
    ROWS.append(
        Row("aio_flood", "asyncio, a flood of updates: `async for`", "rate", key, aioca=theirs)
    )


def _hardened() -> None:
    """epicsx beside itself: on the libca of the default build, and on the hardened one."""
    group, record, text = "hardened", "wave1m", "waveform 1M float64"
    words = f"get {{p}}{record} {{s}}"
    c = _measure(f"{group}/c", "c", words)
    old = _measure(f"{group}/pyepics", "pyepics", words)
    for program, libca in (("native", "this build's libca"), ("hardened", "hardened libca")):
        key = _measure(f"{group}/{program}", program, words)
        title = f"{text}, `Channel.get`, {libca}"
        ROWS.append(Row(group, f"CPU per frame, {title}", "cpu_us", key, c, old))
        ROWS.append(Row(group, title, "rate", key, c, old))
    source = Source(record)
    words = f"stream {{p}}{record} {{w}} {{s}}"
    for program, libca in (("native", "this build's libca"), ("hardened", "hardened libca")):
        key = _measure(f"{group}/{program} stream", program, words, source)
        title = f"CPU per frame, {text}, `stream`, {libca}"
        ROWS.append(Row(group, title, "cpu_us", key))


_simple()
_asyncio()
_updates("updates", "updates of 1000 scalars", CHAIN, steady=False)
_updates("updates_10k", "10 000 updates/s", STEADY, steady=True)
_arrays()
_latency()
_memory()
_hardened()

GROUPS = list(dict.fromkeys(m.group for m in MEASUREMENTS.values()))
