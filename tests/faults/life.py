"""L: Python's life cycle: exit, fork, callbacks, collection, threads, and other libraries in the same process."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import math
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from support import finished

import epicsx
from faults.data import COUNTED_ARRAY, KHZ, collect, fill, gaps, torn, whole
from faults.harness import Figure, scenario
from faults.room import Room, doubtful

EXIT_LIMIT = 1.5
"""Seconds from the last line of a program to the end of its process."""


class Ended:
    """How a program ended that printed `end` and the time at its last line."""

    def __init__(self, script: str, *args: str, limit: float = 60.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.limit = limit

    def wait(self) -> tuple[int | None, float, str]:
        """Return code (None: it hung and was killed), seconds from its last line to its end, standard error."""
        code, out, err, ended = finished(self.process, self.limit)
        began = [float(line.split()[1]) for line in out.splitlines() if line.startswith("end ")]
        return code, ended - began[-1] if began else float("nan"), err


# ---- L1: exit


DB_L1 = "".join(
    f'record(calc, "$(P)c{n}") {{ field(CALC, "VAL+1") field(SCAN, ".0005 second") }}\n'
    for n in range(20)
)
OPEN_L1 = {
    "epicsx": """
import os, signal, sys, threading, time
import epicsx
P = sys.argv[1]
seen = threading.Event()
channels = epicsx.connect([f"{P}c{n}" for n in range(20)], timeout=20.0)
handles = [channel.subscribe(lambda sample: seen.set()) for channel in channels]
assert seen.wait(20.0)
def get():
    epicsx.Channel(P + "nobody").get(timeout=20.0)
""",
    "pyepics": """
import os, signal, sys, threading, time
import epics
P = sys.argv[1]
seen = threading.Event()
pvs = [epics.PV(f"{P}c{n}", callback=lambda **_: seen.set()) for n in range(20)]
assert seen.wait(20.0)
def get():
    epics.caget(P + "nobody", timeout=20.0)
""",
}
END = 'print("end", time.monotonic(), flush=True)\n'
WAYS: dict[str, tuple[str, int]] = {
    "the end": (END, 0),
    "sys.exit": (END + "sys.exit(3)\n", 3),
    "sys.exit in a thread": (
        "thread = threading.Thread(target=sys.exit, args=(3,))\nthread.start()\nthread.join()\n"
        + END,
        0,
    ),
    "an exception": (END + "raise RuntimeError('meant')\n", 1),
    "os._exit": (END + "os._exit(5)\n", 5),
    "SIGTERM": (END + "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20.0)\n", -signal.SIGTERM),
    "SIGINT in a get": (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupt():\n    " + END + "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Timer(0.2, interrupt).start()\nget()\n",
        -signal.SIGINT,
    ),
}


def _exits(room: Room, face: str) -> Figure:
    ioc = room.ioc(DB_L1 if room.long else DB_L1.replace(".0005", ".002"))
    runs = 1000 if room.long else 14
    wrong: Counter[str] = Counter()
    seconds = []
    for number in range(runs):
        name = list(WAYS)[number % len(WAYS)]
        script, expected = WAYS[name]
        code, took, err = room.best(
            lambda script=script: Ended(OPEN_L1[face] + script, ioc.prefix, limit=30.0).wait(),  # type: ignore[misc]
            lambda found: not doubtful(found[1], EXIT_LIMIT),
        )
        seconds.append(took)
        if code != expected:
            wrong[f"{name}: {'hangs' if code is None else f'return code {code}'}"] += 1
        elif not took < EXIT_LIMIT:
            wrong[f"{name}: took longer than {EXIT_LIMIT} s"] += 1
        elif err and name not in ("an exception", "SIGINT in a get"):
            wrong[f"{name}: says {err.splitlines()[-1]:.80}"] += 1
    for what, count in wrong.items():
        room.check(False, f"{count} of {runs // len(WAYS)} {what}")
    p99 = sorted(seconds)[int(0.99 * len(seconds))]
    return Figure(
        f"{runs - wrong.total()} of {runs} ends as they should be (7 ways); exit p99 {p99:.2f} s",
        runs=runs,
        wrong=wrong.total(),
        p99=p99,
    )


@scenario(
    "L1",
    how="14 programs with 20 monitors of 500 Hz (long form: 1000, 2 kHz) end in 7 ways: their last line, sys.exit, "
    "sys.exit in a thread, an exception, os._exit, SIGTERM, SIGINT in a get",
    expected="the right return code, quietly, within 1.5 s",
    limit=240,
    quick=True,
)
def l1(room: Room) -> Figure:
    return _exits(room, room.face)


l1.both()


# ---- L2: exit while the IOC does not answer


DB_L2 = """
record(ao, "$(P)x") {}
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "1000000") }
"""
OPEN_L2 = {
    "epicsx": """
import sys, threading, time
import epicsx, numpy as np
P = sys.argv[1]
x, w = epicsx.connect([P + "x", P + "w"], timeout=20.0)
x.subscribe(lambda sample: None)
x.get(), w.get()
print("ready", flush=True)
sys.stdin.readline()
x.put_async(1.0)  # before the large one, which fills what libca has for sending: then this call would wait
threading.Thread(target=lambda: w.put(np.zeros(1_000_000)), daemon=True).start()
time.sleep(0.5)
""",
    "pyepics": """
import sys, threading, time
import epics, numpy as np
P = sys.argv[1]
x, w = epics.PV(P + "x", callback=lambda **_: None), epics.PV(P + "w", auto_monitor=False)
x.get(), w.get()
print("ready", flush=True)
sys.stdin.readline()
def put():
    epics.ca.use_initial_context()
    w.put(np.zeros(1_000_000))
x.put(1.0)
threading.Thread(target=put, daemon=True).start()
time.sleep(0.5)
""",
}


def _stopped_ioc(room: Room, face: str) -> Figure:
    ioc = room.ioc(DB_L2)

    def end() -> tuple[int | None, float, str]:
        ended = Ended(OPEN_L2[face] + END, ioc.prefix)
        assert ended.process.stdout is not None and ended.process.stdin is not None
        assert ended.process.stdout.readline() == "ready\n"
        ioc.pause()
        ended.process.stdin.write("go\n")
        ended.process.stdin.flush()
        try:
            return ended.wait()
        finally:
            ioc.resume()

    code, seconds, err = room.best(end, lambda found: not doubtful(found[1], EXIT_LIMIT))
    room.check(code == 0, f"return code {code}" if code is not None else "hangs")
    room.check(seconds < EXIT_LIMIT, f"exit took {seconds:.1f} s")
    room.check(not err, f"says {err.splitlines()[-1] if err else ''}")
    return Figure(f"exit within {seconds:.2f} s", seconds=seconds)


@scenario(
    "L2",
    how="the program ends while its IOC is stopped (SIGSTOP), with a put of 8 MB and a put with completion under way",
    expected="exit within 1.5 s, return code 0",
    limit=120,
    quick=True,
)
def l2(room: Room) -> Figure:
    return _stopped_ioc(room, room.face)


l2.both()


# ---- L3: fork


DB_L3 = """
record(ao, "$(P)x") { field(VAL, "1.5") field(PINI, "YES") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".01 second") }
"""
FORKS = {
    "epicsx": """
import epicsx
values = []
def start(P):
    channels[:] = epicsx.connect([P + "x", P + "count"], timeout=20.0)
    channels[1].subscribe(lambda sample: values.append(sample.value))
def use(P):
    try:
        return 0 if epicsx.Channel(P + "x").get(timeout=10.0).value == 1.5 else 5
    except RuntimeError as error:
        return 4 if "spawn" in str(error) else 6
""",
    "pyepics": """
import epics
values = []
def start(P):
    channels[:] = [epics.PV(P + "x"), epics.PV(P + "count", callback=lambda value, **_: values.append(value))]
    assert channels[0].get() == 1.5
def use(P):
    return 0 if epics.caget(P + "x", timeout=5.0) == 1.5 else 5
""",
}
FORK_ALL = """
import json, multiprocessing, os, signal, sys, time
channels = []
def work(P):
    sys.exit(use(P))
def forked(mode, P):
    pid = os.fork()
    if pid == 0:
        signal.alarm(patience)
        if mode == "use":
            code = 9
            try:
                code = use(P)
            finally:
                os._exit(code)
        if mode == "exit":
            sys.exit(0)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def process(method, P):
    child = multiprocessing.get_context(method).Process(target=work, args=(P,))
    child.start()
    child.join(patience)
    if child.exitcode is None:
        child.kill()
        child.join()
        return -signal.SIGALRM
    return child.exitcode
if __name__ == "__main__":
    P, count, patience = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    start(P)
    until = time.monotonic() + 20
    while len(values) < 5:
        assert time.monotonic() < until
        time.sleep(0.01)
    ways = {"use": forked, "exit": forked, "nothing": forked, "fork": process, "forkserver": process, "spawn": process}
    ended = {way: [] for way in ways}
    for number in range(count):
        # two of three by os.fork; new interpreters are slow
        way = list(ways)[number % 3 if number % 3 < 2 or number % 12 < 3 else 2 + number // 3 % 4]
        ended[way].append(ways[way](way, P))
    seen = len(values)
    until = time.monotonic() + 10
    while len(values) < seen + 20 and time.monotonic() < until:
        time.sleep(0.01)
    print("told", json.dumps([ended, len(values) - seen]), flush=True)
"""


def _forks(room: Room, face: str) -> Figure:
    ioc = room.ioc(DB_L3)
    count = 200 if room.long else 12
    patience = "20" if face == "epicsx" else "6"
    client = room.child(FORKS[face] + FORK_ALL, ioc.prefix, str(count), patience)
    told = client.wait_line("told", 300.0 if room.long else 90.0).partition(" ")[2]
    ended, went_on = json.loads(told)
    result = client.finish(30.0, check=False)
    room.check(result.returncode == 0, f"the parent returned {result.returncode}")
    hangs = clear = 0
    for way, codes in ended.items():
        for code, times in Counter(codes).items():
            if code == -signal.SIGALRM:
                hangs += times
                room.check(False, f"{way}: {times} of {len(codes)} hang")
            elif code == 4:
                clear += times  # the documented error
            elif code:
                room.check(False, f"{way}: {times} of {len(codes)} end with {code}")
    room.check(went_on >= 20, f"the parent got {went_on} updates afterwards")
    ways = ", ".join(f"{way} {len(codes)}" for way, codes in ended.items())
    return Figure(
        f"{hangs} of {count} hang ({ways}), {clear} told to use spawn; the parent goes on",
        hangs=hangs,
    )


@scenario(
    "L3",
    how="12 children (200 in the long form) of a process with monitors: os.fork and use, exit or do nothing; "
    "multiprocessing by fork, forkserver and spawn",
    expected="the child works, or is told to use spawn; none hangs; the parent is undisturbed",
    limit=130,
    quick=True,
)
def l3(room: Room) -> Figure:
    return _forks(room, room.face)


l3.both()


# ---- L4: a callback that raises


DB_L4 = 'record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".002 second") }\n'


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.records.append(record)


@scenario(
    "L4",
    how="a callback raises at each update of a 500 Hz counter, 2 s",
    expected="every update is still delivered; the first ten failures are logged, with traceback, then one a second, "
    "which tells how many were not",
    limit=40,
)
def l4(room: Room) -> Figure:
    ioc = room.ioc(DB_L4)
    lines = Lines()
    log = logging.getLogger("epicsx")
    log.addHandler(lines)
    log.propagate = False
    values: list[float] = []

    def fail(sample: Any) -> None:
        values.append(sample.value)
        raise ZeroDivisionError("meant")

    with epicsx.Channel(ioc["count"]) as channel:
        handle = channel.connect(10.0).subscribe(fail)
        time.sleep(2.0)
        ioc.write("count.SCAN", "Passive")
        room.wait(lambda: values and values[-1] == float(ioc.read("count")), 10.0, "the last one")
        counts = handle.stats
        assert not handle.closed
    assert counts.delivered == counts.received == len(values), counts
    told = [each for each in lines.records if each.exc_info]
    assert told and all(channel.name in each.getMessage() for each in told)
    assert 10 < len(told) < 20, f"{len(told)} tracebacks"
    assert all("more since" in each.getMessage() for each in told[10:])
    return Figure(
        f"{len(values)} of {counts.received} delivered, all raised; {len(told)} tracebacks logged",
        delivered=len(values),
        logged=len(told),
    )


@l4.pyepics
def l4_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_L4)
    values: list[float] = []

    def fail(value: float, **_: Any) -> None:
        values.append(value)
        raise ZeroDivisionError("meant")

    told = 0

    def hook(args: Any) -> None:
        nonlocal told
        told += 1

    sys.unraisablehook = hook
    pv = epics.PV(ioc["count"], callback=fail)
    room.wait(lambda: values, 10.0, "a value")
    time.sleep(2.0)
    ioc.write("count.SCAN", "Passive")
    last = float(ioc.read("count"))
    room.check(room.saw(lambda: values[-1] == last, 5.0), "the last update has not come")
    pv.disconnect()
    room.check(told < 20, f"{told} tracebacks, none with the PV's name")
    return Figure(f"{len(values)} called back, {gaps(values)} missing", logged=told)


# ---- L5: what a callback may do


DB_L5 = """
record(ao, "$(P)x") { field(VAL, "1.5") field(PINI, "YES") }
record(ao, "$(P)y") { field(VAL, "2.5") field(PINI, "YES") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
"""
SIGNALS = [
    sys.executable,
    "-c",
    "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('SigBlk')])",
]


def _blocked_signals() -> str:
    out = subprocess.run(SIGNALS, capture_output=True, text=True, check=True, timeout=20.0).stdout
    return f"{int(out, 16):x}"


def _in_thread() -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append("ran"))
    thread.start()
    thread.join(8.0)
    return found[0]


AT_ONCE = 4.0
"""Seconds that a work in a callback may take; some are starts of programs."""


def _in_callback(
    work: Callable[[Any], object], start: Callable[[Callable[..., None]], Any]
) -> tuple[object, float]:
    """Do a work once in a callback of its own: what it gave, or raised, and after how many seconds."""
    over = threading.Event()
    begun = threading.Event()
    kept: dict[str, Any] = {}
    told: list[tuple[object, float]] = []

    def callback(*args: Any, **kwargs: Any) -> None:
        if begun.is_set():
            return
        begun.set()
        began = time.monotonic()
        try:
            found = work(kept)
        except Exception as error:
            found = error
        told.append((found, time.monotonic() - began))
        over.set()

    kept["handle"] = start(callback)
    return told[0] if over.wait(20.0) else ("no end", math.inf)


def _tried(
    room: Room,
    works: dict[str, Callable[[Any], object]],
    start: Callable[[Callable[..., None]], Any],
) -> tuple[dict[str, object], int]:
    """Do each work in a callback; what each gave, and how many did not come back within 20 s."""
    gave: dict[str, object] = {}
    stuck = 0
    for name, work in works.items():
        found, seconds = room.best(
            partial(_in_callback, work, start), lambda found: not doubtful(found[1], AT_ONCE)
        )
        stuck += seconds == math.inf
        late = AT_ONCE < seconds < math.inf
        gave[name] = f"{found!r} after {seconds:.0f} s" if late else found
    return gave, stuck


@scenario(
    "L5",
    how="a callback ends its own subscription, another, its channel; starts a thread, a program; gets, puts with wait, "
    "connects, subscribes",
    expected="all of it works, none deadlocks; the program starts with no signal blocked",
    limit=120,
    quick=True,
)
def l5(room: Room) -> Figure:
    ioc = room.ioc(DB_L5)
    x, y, count = epicsx.connect([ioc["x"], ioc["y"], ioc["count"]], timeout=10.0)
    room.wait(lambda: count.get().value > 0, 10.0, "the counter counts")
    other = y.subscribe(lambda sample: None)
    made: list[Any] = []

    def start(callback: Callable[..., None]) -> Any:
        channel = epicsx.Channel(ioc["count"]).connect(10.0)
        made.append(channel)
        return channel.subscribe(callback)

    def own(kept: dict[str, Any]) -> bool:
        room.wait(lambda: "handle" in kept, 8.0, "the handle is there")
        kept["handle"].close()
        return bool(kept["handle"].closed)

    def subscribe(kept: dict[str, Any]) -> bool:
        made.append(y.subscribe(lambda sample: None))
        return bool(room.wait(lambda: made[-1].stats.received, 8.0, "libca's thread goes on"))

    def end_other(kept: dict[str, Any]) -> bool:
        other.close()
        return bool(other.closed)

    def put(kept: dict[str, Any]) -> object:
        y.put(3.5, wait=True, timeout=8.0)
        return y.get(timeout=8.0).value

    works: dict[str, tuple[Callable[[Any], object], object]] = {
        "its own subscription": (own, True),
        "another subscription": (end_other, True),
        "its channel": (lambda kept: made[-1].close(), None),
        "thread": (lambda kept: _in_thread(), "ran"),
        "program": (lambda kept: _blocked_signals(), "0"),
        "get": (lambda kept: x.get(timeout=8.0).value, 1.5),
        "get of its own": (lambda kept: count.get(timeout=8.0).value > 0, True),
        "put with wait": (put, 3.5),
        "connect": (lambda kept: epicsx.Channel(ioc["y"], priority=7).connect(8.0).connected, True),
        "subscribe": (subscribe, True),
    }
    gave, stuck = _tried(room, {name: work for name, (work, _) in works.items()}, start)
    assert stuck == 0, gave
    for name, (_, wanted) in works.items():
        assert gave[name] == wanted, (name, gave[name])
    for each in made:
        each.close()
    return Figure(
        f"{len(works)} of {len(works)} done, 0 deadlocks; SigBlk of the program 0", done=len(works)
    )


@l5.pyepics
def l5_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_L5)
    x, y = epics.PV(ioc["x"], auto_monitor=False), epics.PV(ioc["y"], auto_monitor=False)
    assert x.wait_for_connection(10.0) and y.wait_for_connection(10.0)
    made: list[Any] = []

    def start(callback: Callable[..., None]) -> Any:
        made.append(epics.PV(ioc["count"], callback=callback))
        return made[-1]

    works: dict[str, tuple[Callable[[Any], object], object]] = {
        "its own subscription": (lambda kept: made[-1].clear_callbacks(), None),
        "its channel": (lambda kept: made[-1].disconnect(), None),
        "thread": (lambda kept: _in_thread(), "ran"),
        "program": (lambda kept: _blocked_signals(), "0"),
        "get": (lambda kept: x.get(timeout=3.0, use_monitor=False), 1.5),
        "put with wait": (lambda kept: y.put(3.5, wait=True, timeout=3.0), 1),
        "connect": (lambda kept: epics.PV(ioc["y"] + ".DESC").wait_for_connection(3.0), True),
    }
    gave, stuck = _tried(room, {name: work for name, (work, _) in works.items()}, start)
    right = 0
    for name, (_, wanted) in works.items():
        found = gave[name]
        right += found == wanted
        what = f"SigBlk {found}" if name == "program" else f"gives {found!r:.60}"
        room.check(found == wanted, f"{name}: {what}")
    return Figure(f"{right} of {len(works)} done, {stuck} without end", done=right)


# ---- L6: collection


class Cyclic:
    """A user's object that a callback keeps alive, and that keeps the channel."""

    def __init__(self, name: str, make: Callable[[str, Callable[..., None]], Any]) -> None:
        self.seen = 0
        self.handle = make(name, self.told)

    def told(self, *args: Any, **kwargs: Any) -> None:
        """Count."""
        self.seen += 1


@scenario(
    "L6",
    how="1000 channels made, subscribed and dropped (10^5 in the long form) while updates flow; gc.collect() in "
    "callbacks, gc.set_threshold(1), cycles of PV and callback, the last reference dropped with updates in flight",
    expected="nothing is left: no object, no block, no channel at the IOC; memory flat",
    limit=240,
    quick=True,
)
def l6(room: Room) -> Figure:
    from epicsx._ca import blocks, lent

    ioc = room.ioc(DB_L1.replace(".0005", ".01"))
    names = [ioc[f"c{n}"] for n in range(20)]
    total = 100_000 if room.long else 1000

    def subscribed(name: str, callback: Callable[..., None]) -> Any:
        channel = epicsx.Channel(name)
        return channel, channel.subscribe(callback)

    def collects(sample: Any) -> None:
        gc.collect(0)

    def rounds(count: int) -> None:
        for number in range(count):
            name = names[number % 20]
            match number % 4:
                case 0:  # closed while updates flow
                    with epicsx.Channel(name) as channel:
                        channel.subscribe(collects)
                case 1:  # the value is held on
                    channel = epicsx.Channel(name)
                    channel.get(timeout=20.0)
                    del channel
                case 2:  # a PV with a callback, disconnected
                    pv = epicsx.PV(name, callback=lambda **_: None)
                    pv.disconnect()
                    del pv
                case 3:  # a cycle with an update in flight
                    one = Cyclic(name, subscribed)
                    if number % 40 == 3:
                        room.wait(partial(getattr, one, "seen"), 20.0, "an update")
                    one.handle[0].close()
                    del one

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    with epicsx.Channel(names[0]) as keep:
        keep.connect(10.0)
        rounds(400)
        room.wait(lambda: lent() <= 1, 20.0, "all channels end")
        before, memory = objects(), room.rss()
        gc.set_threshold(1)
        rounds(100)
        gc.set_threshold(700, 10, 10)
        rounds(total - 500)
        room.wait(lambda: lent() <= 1, 60.0, "all channels end")
        room.wait(lambda: objects() < before + 200, 20.0, "all objects end")
        grown = room.rss() - memory
    room.wait(lambda: (gc.collect() or lent(), blocks()) == (0, 0), 20.0, "nothing is lent")
    room.wait(lambda: ioc.casr().channel_count == 0, 20.0, "the IOC has no channel")
    slope = grown * 1024 / (total - 400)
    assert grown < 16.0, f"{grown:.1f} MB more"
    return Figure(
        f"{total} made and dropped: 0 lent, 0 blocks, 0 channels at the IOC; {grown:+.1f} MB ({slope:+.2f} kB each)",
        grown=grown,
    )


@l6.pyepics
def l6_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_L1.replace(".0005", ".01"))
    names = [ioc[f"c{n}"] for n in range(20)]
    total = 20_000 if room.long else 1000
    alive: list[weakref.ref[Any]] = []

    def rounds(count: int) -> None:
        for number in range(count):
            pv = epics.PV(names[number % 20], callback=lambda **_: None)
            pv.wait_for_connection(5.0)
            pv.disconnect()
            alive.append(weakref.ref(pv))
            del pv

    rounds(400)
    gc.collect()
    before, memory = len(gc.get_objects()), room.rss()
    alive.clear()
    gc.set_threshold(1)
    rounds(100)
    gc.set_threshold(700, 10, 10)
    rounds(total - 500)
    gc.collect()
    grown, more = room.rss() - memory, len(gc.get_objects()) - before
    left = sum(each() is not None for each in alive)
    room.check(left == 0, f"{left} PVs are never freed")
    room.check(more < 400, f"{more} objects more")
    return Figure(f"{total} made and disconnected: {grown:+.1f} MB", grown=grown)


# ---- L7: somebody holds the interpreter


def hold(seconds: float) -> None:
    """A C call that keeps the interpreter's lock: PyDLL does not release it."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def _held(
    room: Room, start: Callable[[Any, list[float], list[tuple[float, bool]]], Callable[[], object]]
) -> tuple[Figure, object]:
    n = 1 << 17
    seconds = 5.0 if room.long else 1.0
    ioc = room.ioc(COUNTED_ARRAY + KHZ, macros={"N": str(n)}, scan_rates=[0.05], seen=False)
    proxy = room.proxy(ioc)
    fill(ioc, n)
    scalars: list[float] = []
    frames: list[tuple[float, bool]] = []
    stop = start(ioc, scalars, frames)
    ioc.write("n.SCAN", ".05 second")
    room.wait(lambda: len(frames) > 5 and scalars, 20.0, "frames come")
    for _ in range(3):
        hold(seconds)
        time.sleep(0.5)
    ioc.write("n.SCAN", "Passive")
    ioc.write("khz.SCAN", "Passive")
    newest = room.saw(
        lambda: (scalars[-1], frames[-1][0]) == (float(ioc.read("khz")), float(ioc.read("n"))), 20.0
    )
    room.check(newest, "the newest values have not come")
    left = stop()
    values = [value for value, _ in frames]
    off = proxy.seen(command="EVENTS_OFF", direction="to_server")
    lost, missing = gaps(scalars), gaps(values)
    room.check(not off, f"{off} EVENTS_OFF")
    room.check(not any(bad for _, bad in frames), "torn frames")
    room.check(not lost, f"{lost} of {lost + len(scalars)} scalars lost")
    room.check(not missing, f"{missing} of {missing + len(frames)} frames lost")
    return Figure(
        f"{len(scalars)} scalars, {lost} lost; {len(frames)} frames, {missing} lost; {off} EVENTS_OFF",
        lost=lost,
        frames_lost=missing,
        events_off=off,
    ), left


@scenario(
    "L7",
    how="a C call holds the interpreter's lock 3 times for 1 s (5 s in the long form), with a 1 kHz counter and 1-MB "
    "frames at 20 Hz",
    expected="libca's threads never wait: nothing lost, no EVENTS_OFF",
    limit=90,
)
def l7(room: Room) -> Figure:
    def start(
        ioc: Any, scalars: list[float], frames: list[tuple[float, bool]]
    ) -> Callable[[], object]:
        khz = epicsx.Channel(ioc["khz"]).connect(20.0)
        handle = khz.subscribe(lambda sample: scalars.append(sample.value), queue=100_000)
        source = epicsx.stream(ioc["a"], depth=400, timeout=20.0)
        source.read(20.0)

        def read() -> None:
            for frame in source:
                frames.append((float(frame.data[-1]), torn(frame.data)))

        reader = threading.Thread(target=read)
        reader.start()

        def stop() -> object:
            found = source.ledger, handle.stats
            source.close()
            reader.join(10.0)
            khz.close()
            return found

        return stop

    figure, found = _held(room, start)
    ledger, counts = cast("tuple[Any, Any]", found)
    assert whole(ledger) and ledger.dropped == ledger.merged == 0, ledger
    assert whole(counts) and counts.dropped == counts.merged == 0, counts
    return figure


@l7.pyepics
def l7_pyepics(room: Room) -> Figure:
    import epics

    def start(
        ioc: Any, scalars: list[float], frames: list[tuple[float, bool]]
    ) -> Callable[[], object]:
        khz = epics.PV(ioc["khz"], callback=collect(scalars))
        array = epics.PV(
            ioc["a"],
            callback=lambda value, **_: frames.append((float(value[-1]), torn(value))),
            auto_monitor=True,
        )
        return lambda: (khz.disconnect(), array.disconnect())

    return _held(room, start)[0]


# ---- L8: threads


DB_L8 = "".join(f'record(ao, "$(P)x{n}") {{ field(VAL, "{n}") }}\n' for n in range(100))


def _threads(
    room: Room, get: Callable[[int], float | None], short: int
) -> tuple[list[str], int, int]:
    """100 threads at once, then many short ones; what went wrong, and files and threads beyond those of before."""
    wrong: list[str] = []

    def work(number: int) -> None:
        try:
            found = get(number % 100)
        except Exception as error:
            wrong.append(f"raises {error!r:.80}")
            return
        if found != number % 100:
            wrong.append(f"gives {found!r}")

    def together(count: int) -> None:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)

    get(0)
    files, tasks = room.fds(), room.threads()
    together(100)
    for _ in range(short // 10):
        together(10)
    room.saw(lambda: room.threads() <= tasks, 10.0)
    return wrong, room.fds() - files, room.threads() - tasks


@scenario(
    "L8",
    how="100 threads at once, then 1000 short ones (10^4 in the long form), get without any preparation",
    expected="each gets its value; no context, socket or thread is left",
    limit=180,
    quick=True,
)
def l8(room: Room) -> Figure:
    ioc = room.ioc(DB_L8)
    short = 10_000 if room.long else 1000
    channels = epicsx.connect([ioc[f"x{n}"] for n in range(100)], timeout=20.0)
    wrong, files, tasks = _threads(
        room, lambda n: float(channels[n].get(timeout=20.0).value), short
    )
    assert not wrong, Counter(wrong)
    assert files <= 0, f"{files} files more"
    assert tasks <= 0, f"{tasks} threads more"
    assert ioc.casr().clients == 1, ioc.casr()
    return Figure(
        f"{100 + short} of {100 + short} right; {files:+d} files, {tasks:+d} threads, 1 circuit",
        files=files,
    )


@l8.pyepics
def l8_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_L8)
    short = 10_000 if room.long else 1000
    pvs = [epics.PV(ioc[f"x{n}"], auto_monitor=False) for n in range(100)]
    assert all(pv.wait_for_connection(10.0) for pv in pvs)
    deadline = time.monotonic() + 60.0

    def get(n: int) -> float | None:
        if time.monotonic() > deadline:  # they wait for their time-outs
            raise TimeoutError("not tried any more after 60 s")
        found = pvs[n].get(use_monitor=False, timeout=1.0)
        return None if found is None else float(found)

    wrong, files, tasks = _threads(room, get, short)
    for what, count in Counter(wrong).most_common(2):
        room.check(False, f"{count} of {100 + short} {what}")
    room.check(files <= 0, f"{files} files more")
    room.check(tasks <= 0, f"{tasks} threads more")
    return Figure(f"{100 + short - len(wrong)} of {100 + short} right", files=files)


# ---- L9: other libraries in the same process


@scenario(
    "L9",
    how="one process imports epicsx with pyepics, aioca, cothread, p4p, softioc, epicscorelibs' libca, in 15 orders, "
    "does I/O with each twice, and ends",
    expected="no interference, return code 0",
    limit=240,
)
def l9(room: Room) -> Figure:
    from support import coexist

    ioc = room.ioc(coexist.DATABASE)
    coexist.fill(ioc)
    clean, skipped = 0, []
    slowest = 0.0
    for order in coexist.ORDERS:
        if lacks := coexist.missing(order):
            skipped.append(f"{', '.join(order)} (no {', '.join(lacks)})")
            continue
        found = coexist.run(order, ioc)
        if found.clean:
            clean += 1
            slowest = max(slowest, found.seconds)
        else:
            print(found, found.did, found.stderr, sep="\n")
            others = tuple(name for name in order if name != "epicsx")
            alone = coexist.run(others, ioc) if others else found
            room.check(False, f"{found}; without epicsx: {alone}")
    assert clean, "none of the other libraries is installed"
    missing = f"; not run: {'; '.join(skipped)}" if skipped else ""
    return Figure(
        f"{clean} of {len(coexist.ORDERS) - len(skipped)} orders clean, exit within {slowest:.2f} s{missing}",
        clean=clean,
        skipped=len(skipped),
    )


l9.without_pyepics(
    "it is one of the others; without epicsx, aioca loses answers in a process with pyepics"
)


# ---- L11: sub-interpreters


SUB = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
one = interpreters.create()
interpreters.run_string(one, '''
import sys
sys.path[:] = {path!r}
try:
    import {name}
    {use}
except ImportError as error:
    print("ImportError:", error)
else:
    print("imported")
sys.stdout.flush()
''')
interpreters.destroy(one)
import {name}
{use}
print("main")
"""


@scenario(
    "L11",
    how="epicsx is imported in a sub-interpreter, then in the main one",
    expected="ImportError with a word in the first, no crash; the second works",
    limit=120,
    quick=True,
)
def l11(room: Room) -> Figure:
    lines = _sub_lines("epicsx", "epicsx.Channel")
    assert lines[0].startswith("ImportError: epicsx works in the main interpreter"), lines
    assert lines[1:] == ["main"], lines
    return Figure(lines[0])


def _sub_lines(name: str, use: str) -> list[str]:
    script = SUB.replace("{path!r}", repr(sys.path)).replace("{name}", name).replace("{use}", use)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60.0, check=False
    )
    if done.returncode:
        return [(done.stderr.splitlines() or [f"return code {done.returncode}"])[-1]]
    return done.stdout.splitlines()


@l11.pyepics
def l11_pyepics(room: Room) -> Figure:
    ioc = room.ioc(DB_L3)
    lines = _sub_lines("epics", f"assert epics.caget({ioc['x']!r}) == 1.5")
    room.check(lines[0].startswith("ImportError"), f"in the sub-interpreter: {lines[0]}")
    room.check(lines[1:] == ["main"], f"in the main one: {lines[1:]}")
    return Figure("")


# ---- L12: a loop that is closed


@scenario(
    "L12",
    how="an asyncio loop with 20 monitors of 100 Hz is closed while updates arrive, 10 times",
    expected="what nobody took is dropped and counted; not a word on standard error; the next loop works",
    limit=120,
    quick=True,
)
def l12(room: Room) -> Figure:
    from epicsx import aio

    ioc = room.ioc(DB_L1.replace(".0005", ".01"))
    names = [ioc[f"c{n}"] for n in range(20)]
    lines = Lines()
    log = logging.getLogger("epicsx")
    log.addHandler(lines)
    log.propagate = False
    complaints: list[Any] = []

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(context)
        )
        flows = [aio.updates(name) for name in names]
        for flow in flows:
            await anext(flow)
        time.sleep(0.1)  # updates pile up
        return flows

    before = aio.lost()
    for number in range(100 if room.long else 10):
        if number % 2:
            flows = asyncio.run(main())
        else:  # closed under them, with nothing cancelled first
            loop = asyncio.new_event_loop()
            flows = loop.run_until_complete(main())
            loop.close()
        for flow in flows:
            if number % 2:
                room.wait(partial(getattr, flow, "closed"), 20.0, "the flow is closed")
            stats = flow.stats
            assert stats.received == stats.delivered + stats.dropped + stats.pending, stats
        del flows, flow
        gc.collect()
    room.wait(lambda: aio.lost() > before, 20.0, "lost ones are counted")
    dropped = aio.lost() - before
    assert not complaints, complaints[:2]
    assert not [each for each in lines.records if each.exc_info], lines.records
    return Figure(f"{dropped} updates dropped and counted, 0 exceptions", dropped=dropped)


l12.without_pyepics("it has no asyncio interface")
