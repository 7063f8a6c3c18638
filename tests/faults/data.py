"""D: what comes and goes over a connection that is well: every update counted, no frame torn, no value changed.

D7 and D8 are in `faults.values`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import epicsx
from faults.harness import Figure, scenario
from faults.room import Room


def _fanout(name: str, to: str) -> str:
    links = "".join(f'field(LNK{each}, "$(P){to} PP") ' for each in "0123456789ABCDEF")
    return f'record(fanout, "$(P){name}") {{ {links}}}\n'


#: `n` counts; each time `a`, an array of $(N) elements, takes it as its last element and is posted, with
#: the same time stamp. One processing of
#: `n4096` is 4096 of `n`.
COUNTED_ARRAY = (
    """
record(calc, "$(P)n") { field(CALC, "VAL+1") field(FLNK, "$(P)a") }
record(compress, "$(P)a") {
    field(TSEL, "$(P)n.TIME")
    field(ALG, "Circular Buffer") field(INP, "$(P)n NPP") field(NSAM, "$(N)")
}
"""
    + _fanout("n16", "n")
    + _fanout("n256", "n16")
    + _fanout("n4096", "n256")
)
KHZ = 'record(calc, "$(P)khz") { field(CALC, "VAL+1") field(SCAN, ".001 second") }\n'


def fill(ioc: Any, n: int) -> None:
    """Fill `a` of COUNTED_ARRAY: from now on its elements always are n consecutive numbers."""
    for _ in range(-(-n // 4096)):
        ioc.write("n4096.PROC", 1)


def torn(array: Any) -> bool:
    """Whether an array of COUNTED_ARRAY is a mixture of two."""
    return len(array) < 2 or not bool(np.all(np.diff(array) == 1.0))


def gaps(values: Sequence[float]) -> int:
    """How many numbers of a counter are missing; in which order the others came is not asked."""
    return int(max(values) - min(values)) + 1 - len(set(values)) if values else 0


def whole(counts: Any) -> bool:
    """Whether every update that libca handed over is accounted for."""
    found = counts.delivered + counts.merged + counts.dropped + counts.pending
    return bool(counts.received == found)


def percentile(seconds: Sequence[float], which: float) -> float:
    return float(np.percentile(seconds, which)) if len(seconds) else 0.0


def ends_with(values: Sequence[float], last: float) -> Callable[[], bool]:
    """A condition: the newest value is there."""
    return lambda: bool(values) and values[-1] == last


def reached(frames: Sequence[tuple[Any, float]], last: float) -> Callable[[], bool]:
    """A condition: the newest frame is there."""
    return lambda: bool(frames) and frames[-1][1] == last


def collect(values: list[float]) -> Callable[..., None]:
    """A callback of pyepics that keeps the values."""
    return lambda value, **_: values.append(value)


# ---- D1: a fast counter


@scenario(
    "D1",
    how="a counter of 1 kHz for 5 s (10 min in the long form), the callback is fast",
    expected="received == delivered + merged + dropped + pending at every moment; nothing is lost here",
    limit=90,
)
def d1(room: Room) -> Figure:
    ioc = room.ioc(KHZ)
    seconds = 600.0 if room.long else 5.0
    values: list[float] = []
    looks = 0
    with epicsx.Channel(ioc["khz"]) as channel:
        handle = channel.connect(10.0).subscribe(lambda sample: values.append(sample.value))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert whole(handle.stats), handle.stats
            assert whole(channel.stats), channel.stats
            looks += 1
            time.sleep(0.01)
        ioc.write("khz.SCAN", "Passive")
        room.wait(
            lambda: values and values[-1] == float(ioc.read("khz")), 10.0, "the newest value comes"
        )
        counts = handle.stats
    assert (counts.delivered, counts.merged, counts.dropped) == (len(values), 0, 0), counts
    assert np.all(np.diff(values) >= 1), "an update came twice or out of order"
    lost = gaps(values)
    return Figure(
        f"{counts.received} received in {seconds:g} s, all delivered, the sum right in {looks} looks; {lost} "
        "merged by the IOC itself",
        received=counts.received,
        lost=lost,
    )


@d1.pyepics
def d1_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(KHZ)
    seconds = 600.0 if room.long else 5.0
    values: list[float] = []
    pv = epics.PV(ioc["khz"], callback=collect(values))
    room.wait(lambda: values, 10.0, "the first value")
    time.sleep(seconds)
    ioc.write("khz.SCAN", "Passive")
    last = float(ioc.read("khz"))
    room.check(room.saw(lambda: values[-1] == last, 10.0), "the newest value has not come")
    pv.disconnect()
    lost = gaps(values)
    room.check(hasattr(pv, "stats"), "it keeps no counts")
    return Figure(
        f"{len(values)} called back in {seconds:g} s, {lost} lost somewhere",
        received=len(values),
        lost=lost,
    )


# ---- D2: a slow callback


DB_D2 = (
    'record(calc, "$(P)slow") { field(CALC, "VAL+1") field(SCAN, ".001 second") }\n'
    'record(calc, "$(P)other") { field(CALC, "VAL+1") field(SCAN, ".01 second") }\n'
)
BLOCKED = 0.2


@scenario(
    "D2",
    how="a callback sleeps 0.2 s at each update of a 1 kHz counter (queue=10), beside a PV of 100 Hz",
    expected="the other PV loses nothing, and in another lane is called back meanwhile; drops counted exactly",
    limit=120,
    quick=True,
)
def d2(room: Room) -> Figure:
    ioc = room.ioc(DB_D2)
    seconds = 30.0 if room.long else 3.0
    late: dict[str, list[float]] = {}
    meanwhile: dict[str, int] = {}

    def beside(lane: Any) -> list[float]:
        """The values of the other PV while the slow callback runs in that lane."""
        values: list[float] = []
        ages: list[float] = []
        slept: list[int] = []

        def on_slow(sample: Any) -> None:
            before = len(values)
            time.sleep(BLOCKED)
            slept.append(len(values) - before)

        def on_other(sample: Any) -> None:
            ages.append(time.time() - sample.timestamp)
            values.append(sample.value)

        slow = epicsx.Channel(ioc["slow"], lane=lane).connect(10.0)
        other = epicsx.Channel(ioc["other"]).connect(10.0)
        handles = slow.subscribe(on_slow, queue=10), other.subscribe(on_other)
        time.sleep(seconds)
        room.wait(lambda: slept and handles[0].stats.dropped, 10.0, "updates of the slow are lost")
        if lane == "bulk":
            room.wait(lambda: max(slept) > 0, 10.0, "the other lane goes on")
        ioc.write("other.SCAN", "Passive")
        ioc.write("slow.SCAN", "Passive")
        room.wait(lambda: values and values[-1] == float(ioc.read("other")), 10.0, "the last value")
        counts, others = (handle.stats for handle in handles)
        assert whole(counts) and counts.dropped > 0 and counts.merged == 0, counts
        assert counts.pending <= 10, counts
        assert (others.dropped, others.merged, others.delivered) == (0, 0, len(values)), others
        late[lane], meanwhile[lane] = ages, max(slept)
        slow.close()
        other.close()
        ioc.write("other.SCAN", ".01 second")
        ioc.write("slow.SCAN", ".001 second")
        return values

    for lane in ("default", "bulk"):
        # The server itself merges updates of the one when those of the other have filled its queue, 0.1 s long.
        values = room.best(partial(beside, lane), lambda values: not gaps(values))
        assert gaps(values) == 0, f"{gaps(values)} updates of the other PV are missing"
    assert meanwhile["bulk"] > 0, "the other lane stood still"
    p99 = {lane: percentile(ages, 99) for lane, ages in late.items()}
    return Figure(
        f"0 of the other lost; its p99 is {p99['bulk'] * 1e3:.0f} ms with the slow callback in another lane, "
        f"{p99['default'] * 1e3:.0f} ms in the same",
        p99=p99["bulk"],
        p99_same_lane=p99["default"],
    )


@d2.pyepics
def d2_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_D2)
    values: list[float] = []
    ages: list[float] = []

    def on_other(value: float, timestamp: float, **_: Any) -> None:
        values.append(value)
        ages.append(time.time() - timestamp)

    slow = epics.PV(ioc["slow"], callback=lambda **_: time.sleep(BLOCKED))
    other = epics.PV(ioc["other"], callback=on_other)
    room.wait(lambda: values, 10.0, "a value")
    time.sleep(30.0 if room.long else 3.0)
    lost, p99 = gaps(values), percentile(ages, 99)
    slow.clear_callbacks()
    other.clear_callbacks()
    room.check(lost == 0, f"{lost} of {lost + len(values)} updates of the other PV lost")
    room.check(p99 < BLOCKED, "the other PV waits for the slow callback, and nothing is counted")
    return Figure(f"p99 of the other {p99 * 1e3:.0f} ms", p99=p99, lost=lost)


# ---- D3: frames and a fast scalar on one circuit


@scenario(
    "D3",
    how="frames of 1 MB, then of 8 MB, at 20 Hz with a 1 kHz counter on the same IOC, 5 s each",
    expected="no EVENTS_OFF is sent; nothing is lost here, and no frame is torn",
    limit=120,
    ports=2,
)
def d3(room: Room) -> Figure:
    return _frames(room, _epicsx_frames)


@d3.pyepics
def d3_pyepics(room: Room) -> Figure:
    return _frames(room, _pyepics_frames)


def _frames(room: Room, receive: Callable[..., tuple[list[float], list[float], int]]) -> Figure:
    seconds = 60.0 if room.long else 5.0
    parts = []
    numbers: dict[str, float] = {}
    for megabytes in (1, 8):
        n = megabytes << 17
        ioc = room.ioc(COUNTED_ARRAY + KHZ, macros={"N": str(n)}, scan_rates=[0.05], seen=False)
        proxy = room.proxy(ioc, port=room.port())
        fill(ioc, n)
        frames, scalars, bad = receive(room, ioc, seconds)
        off = proxy.seen(command="EVENTS_OFF", direction="to_server")
        room.check(not off, f"{off} EVENTS_OFF with frames of {megabytes} MB")
        room.check(not bad, f"{bad} frames of {megabytes} MB torn")
        room.check(len(frames) > 1, f"no frames of {megabytes} MB")
        lost, missing = gaps(scalars), gaps(frames)
        parts.append(
            f"{megabytes} MB: {len(frames)} frames, {missing} lost; {len(scalars)} scalars, {lost} lost; "
            f"{off} EVENTS_OFF"
        )
        numbers |= {f"frames_lost_{megabytes}": missing, f"scalars_lost_{megabytes}": lost}
        proxy.stop()
        ioc.stop()
    return Figure("; ".join(parts), **numbers)


def _epicsx_frames(room: Room, ioc: Any, seconds: float) -> tuple[list[float], list[float], int]:
    scalars: list[float] = []
    frames: list[float] = []
    bad = 0
    with (
        epicsx.Channel(ioc["khz"]) as khz,
        epicsx.stream(ioc["a"], timeout=20.0, depth=60) as source,
    ):
        handle = khz.connect(10.0).subscribe(lambda sample: scalars.append(sample.value))
        room.wait(lambda: scalars, 10.0, "a scalar")
        source.read(20.0)  # the array as it was
        ioc.write("n.SCAN", ".05 second")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            data = source.read(10.0).data
            bad += torn(data)
            frames.append(float(data[-1]))
        ioc.write("n.SCAN", "Passive")
        ledger, counts = source.ledger, handle.stats
    assert whole(ledger) and whole(counts), (ledger, counts)
    assert (ledger.dropped, ledger.merged) == (0, 0), ledger
    assert (counts.dropped, counts.merged) == (0, 0), counts
    return frames, scalars, bad


def _pyepics_frames(room: Room, ioc: Any, seconds: float) -> tuple[list[float], list[float], int]:
    import epics

    scalars: list[float] = []
    frames: list[float] = []
    bad: list[bool] = []

    def on_frame(value: Any, **_: Any) -> None:
        bad.append(torn(value))
        frames.append(float(value[-1]))

    khz = epics.PV(ioc["khz"], callback=collect(scalars))
    array = epics.PV(ioc["a"], callback=on_frame, auto_monitor=True)
    room.wait(lambda: scalars and frames, 20.0, "a frame")
    ioc.write("n.SCAN", ".05 second")
    time.sleep(seconds)
    ioc.write("n.SCAN", "Passive")
    time.sleep(0.5)
    khz.disconnect()
    array.disconnect()
    return frames[1:], scalars, sum(bad)


# ---- D4, D11: bursts


BURST, BURST_SIZE = 3, 20_000


def _bursts(
    room: Room,
    ioc: Any,
    count: int,
    burst: int,
    take: Callable[[float], list[tuple[float, float, bool]]],
) -> tuple[int, int, int, int]:
    """Post bursts of frames; the frames that came, and how many were repeated, lost and torn."""
    came = repeated = lost = bad = 0
    for _ in range(count):
        end = float(ioc.read("n")) + burst
        for _ in range(burst):
            ioc.shell(f"dbpf {ioc['n']}.PROC 1")
        found = take(end)
        values = [value for _, value, _ in found]
        came += len(values)
        repeated += len(values) - len(set(values))
        lost += burst - len(set(values))
        bad += sum(each for _, _, each in found)
    return came, repeated, lost, bad


def _until(
    read: Callable[[], tuple[float, float, bool]],
) -> Callable[[float], list[tuple[float, float, bool]]]:
    def take(end: float) -> list[tuple[float, float, bool]]:
        found: list[tuple[float, float, bool]] = []
        while not found or found[-1][1] != end:
            found.append(read())
        return found

    return take


@scenario(
    "D4",
    how="20 bursts of 3 frames (160 kB), posted back to back",
    expected="with the server's copies (coherent) no frame is lost, repeated or torn; without, losses are visible",
    limit=60,
)
def d4(room: Room) -> Figure:
    ioc = room.ioc(COUNTED_ARRAY, macros={"N": str(BURST_SIZE)})
    fill(ioc, BURST_SIZE)
    count = 500 if room.long else 20
    parts = []
    for coherent in (True, False):
        with epicsx.stream(ioc["a"], coherent=coherent, depth=100, timeout=20.0) as source:
            source.read(20.0)

            def read(source: Any = source) -> tuple[float, float, bool]:
                frame = source.read(10.0)
                return frame.timestamp, float(frame.data[-1]), torn(frame.data)

            came, repeated, lost, bad = _bursts(room, ioc, count, BURST, _until(read))
            ledger = source.ledger
        assert bad == 0, f"{bad} frames torn"
        assert whole(ledger) and ledger.dropped == ledger.merged == 0, ledger
        if coherent:
            assert (repeated, lost, came) == (0, 0, BURST * count), (repeated, lost, came)
        way = "coherent" if coherent else "plain"
        parts.append(
            f"{way}: {came} of {BURST * count} came, {lost} lost, {repeated} repeated, {bad} torn"
        )
    return Figure("; ".join(parts))


@d4.pyepics
def d4_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(COUNTED_ARRAY, macros={"N": str(BURST_SIZE)})
    fill(ioc, BURST_SIZE)
    count = 500 if room.long else 20
    waiting: list[tuple[float, float, bool]] = []

    def on_frame(value: Any, timestamp: float, **_: Any) -> None:
        waiting.append((timestamp, float(value[-1]), torn(value)))

    pv = epics.PV(ioc["a"], callback=on_frame, auto_monitor=True)
    room.wait(lambda: waiting, 20.0, "the first frame")
    waiting.clear()

    def read() -> tuple[float, float, bool]:
        room.wait(lambda: waiting, 10.0, "a frame")
        return waiting.pop(0)

    came, repeated, lost, bad = _bursts(room, ioc, count, BURST, _until(read))
    pv.disconnect()
    room.check(not bad, f"{bad} frames torn")
    room.check(not lost, f"{lost} of {BURST * count} frames lost")
    room.check(not repeated, f"{repeated} repeated")
    return Figure(f"{came} frames came", lost=lost, repeated=repeated)


@scenario(
    "D11",
    how="bursts of 40 frames whose last element is their number; a scalar tells which number has which stamp",
    expected="coherent: each stamp with its own data; plain: data of a later frame may come under an earlier stamp "
    "(epics-base issue 867)",
    limit=90,
)
def d11(room: Room) -> Figure:
    ioc = room.ioc(COUNTED_ARRAY, macros={"N": str(BURST_SIZE)})
    fill(ioc, BURST_SIZE)
    count = 50 if room.long else 5
    numbers: dict[int, float] = {}
    parts: dict[bool, tuple[int, int]] = {}
    coherent: bool
    with epicsx.Channel(ioc["n"] + ".PROC") as process, epicsx.Channel(ioc["n"]) as n:
        n.connect(10.0).subscribe(
            lambda sample: numbers.update({sample.timestamp_ns: sample.value})
        )
        for coherent in (True, False):
            seen: list[tuple[int, float]] = []
            with epicsx.stream(ioc["a"], coherent=coherent, depth=1000, timeout=20.0) as source:
                source.read(20.0)
                for _ in range(count):
                    end = n.get().value + 40
                    for _ in range(40):
                        process.put(1)
                    while not seen or seen[-1][1] != end:
                        frame = source.read(10.0)
                        seen.append((frame.timestamp_ns, float(frame.data[-1])))
            if coherent:  # the server's copies have stamps of their own, made when they were
                stamps, values = zip(*seen, strict=True)
                assert list(values) == list(np.arange(values[0], values[0] + 40 * count)), values
                assert sorted(set(stamps)) == list(stamps)
                parts[coherent] = 0, len(seen)
            else:
                parts[coherent] = lag(room, seen, numbers), len(seen)
    return Figure(
        "; ".join(
            f"{'coherent' if coherent else 'plain'}: {late} of {came} with data of a later frame "
            f"({100 * late / came:.0f} %), {40 * count - came} of {40 * count} lost"
            for coherent, (late, came) in parts.items()
        ),
        fraction=parts[False][0] / parts[False][1],
    )


def lag(room: Room, seen: Sequence[tuple[Any, float]], numbers: dict[Any, float]) -> int:
    """How many frames have another number than the scalar that was posted with their stamp."""
    room.saw(lambda: all(stamp in numbers for stamp, _ in seen), 10.0)
    known = [each for each in seen if each[0] in numbers]
    assert len(known) > len(seen) / 2, f"the scalar of {len(seen) - len(known)} frames is missing"
    return sum(numbers[stamp] != value for stamp, value in known)


@d11.pyepics
def d11_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(COUNTED_ARRAY, macros={"N": str(BURST_SIZE)})
    fill(ioc, BURST_SIZE)
    count = 50 if room.long else 5
    seen: list[tuple[Any, float]] = []
    numbers: dict[Any, float] = {}

    def on_frame(value: Any, posixseconds: int, nanoseconds: int, **_: Any) -> None:
        seen.append(((posixseconds, nanoseconds), float(value[-1])))

    def on_number(value: float, posixseconds: int, nanoseconds: int, **_: Any) -> None:
        numbers[posixseconds, nanoseconds] = value

    pv = epics.PV(ioc["a"], callback=on_frame, auto_monitor=True)
    n = epics.PV(ioc["n"], callback=on_number)
    process = epics.PV(ioc["n"] + ".PROC", auto_monitor=False)
    process.wait_for_connection(10.0)
    room.wait(lambda: seen and numbers, 20.0, "the first frame")
    seen.clear()
    for _ in range(count):
        end = float(ioc.read("n")) + 40
        for _ in range(40):
            process.put(1)
        room.wait(reached(seen, end), 20.0, "the last of a burst")
    late, came = lag(room, seen, numbers), len(seen)
    pv.disconnect()
    n.disconnect()
    room.check(not late, f"{late} of {came} with data of a later frame ({100 * late / came:.0f} %)")
    return Figure(f"{40 * count - came} of {40 * count} lost", fraction=late / came)


# ---- D5: a consumer that stands still


CONSUMER = """
import sys, threading, time
P, face, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
def rss():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
newest = {}
block = threading.Event()
block.set()
def seen(name, value):
    newest[name] = value
    block.wait()
if face == "epicsx":
    import epicsx
    khz, a = epicsx.connect([P + "khz", P + "a"], timeout=20.0)
    handles = [khz.subscribe(lambda s: seen("khz", s.value)), a.subscribe(lambda s: seen("a", float(s.value[-1])))]
else:
    import epics
    khz = epics.PV(P + "khz", callback=lambda value, **_: seen("khz", value))
    a = epics.PV(P + "a", callback=lambda value, **_: seen("a", float(value[-1])), auto_monitor=True)
until = time.monotonic() + 20
while len(newest) < 2:
    assert time.monotonic() < until
    time.sleep(0.01)
time.sleep(0.5)
print("running", rss(), flush=True)
for command in sys.stdin:
    if command == "block\\n":
        block.clear()
    elif command == "free\\n":
        block.set()
    elif command == "tell\\n":
        counts = [0, 0]
        if face == "epicsx":
            all_ = [each.stats for each in handles]
            assert all(s.received == s.delivered + s.merged + s.dropped + s.pending for s in all_), all_
            counts = [sum(s.dropped + s.merged for s in all_), sum(s.pending for s in all_)]
        print("told", rss(), newest["khz"], newest["a"], *counts, flush=True)
"""


def _consumer(room: Room, face: str) -> Figure:
    n = 1 << 17
    ioc = room.ioc(COUNTED_ARRAY + KHZ, macros={"N": str(n)}, scan_rates=[0.05])
    fill(ioc, n)
    ioc.write("n.SCAN", ".05 second")
    seconds = 60.0 if room.long else 5.0
    client = room.child(CONSUMER, ioc.prefix, face, str(seconds))
    before = float(client.wait_line("running").split()[1])

    def told() -> list[float]:
        client.send("tell")
        return [float(each) for each in client.wait_line("told", 30.0).split()[1:]]

    import os
    import signal

    os.kill(client.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(client.pid, signal.SIGCONT)
    resumed = time.monotonic()
    catch_up(room, ioc, told)
    caught_up = time.monotonic() - resumed
    stopped = told()[0]
    client.send("block")
    time.sleep(seconds)
    blocked = told()
    client.send("free")
    catch_up(room, ioc, told)
    after = told()
    client.finish()
    room.check(blocked[0] - before < 100.0, f"{blocked[0] - before:.0f} MB more while blocked")
    room.check(stopped - before < 100.0, f"{stopped - before:.0f} MB more after SIGSTOP")
    return Figure(
        f"stopped {seconds:g} s: {stopped - before:+.0f} MB, at the newest {caught_up:.1f} s after; callback blocked "
        f"{seconds:g} s: {blocked[0] - before:+.0f} MB, "
        + (f"{after[3]:.0f} dropped or merged, counted" if face == "epicsx" else "losses unknown"),
        rss=blocked[0] - before,
        dropped=after[3],
    )


def catch_up(room: Room, ioc: Any, told: Callable[[], list[float]]) -> None:
    """Wait until the consumer has values that were posted after now."""
    khz, a = float(ioc.read("khz")), float(ioc.read("n"))
    room.wait(lambda: (now := told())[1] >= khz and now[2] >= a, 20.0, "the newest values come")


@scenario(
    "D5",
    how="the consumer of a 1 kHz counter and of 1-MB frames at 20 Hz is stopped for 5 s (60 s in the long form) by "
    "SIGSTOP, then its callback blocks as long",
    expected="memory bounded (100 MB), the newest values soon after, what was dropped is counted",
    limit=120,
)
def d5(room: Room) -> Figure:
    return _consumer(room, room.face)


d5.both()


# ---- D6: length 0


@scenario(
    "D6",
    how="the length of a waveform goes 3, 0, 3, 0",
    expected="an empty array is delivered as one; none is stale",
    limit=90,
    quick=True,
)
def d6(room: Room) -> Figure:
    ioc = room.ioc('record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10") }')
    lengths: list[int] = []
    with epicsx.Channel(ioc["w"]) as channel:
        channel.connect(10.0).subscribe(lambda sample: lengths.append(len(sample.value)))
        room.wait(lambda: lengths, 10.0, "the first value")
        for length in (3, 0, 3, 0):
            channel.put(np.arange(float(length)), wait=True)
            room.wait(ends_with(lengths, length), 10.0, f"{length} elements")
            assert len(channel.get().value) == length
    assert lengths == [0, 3, 0, 3, 0], lengths
    return Figure("0 of 5 stale", stale=0)


@d6.pyepics
def d6_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc('record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10") }')
    lengths: list[int] = []
    stale = []
    pv = epics.PV(ioc["w"], callback=lambda value, **_: lengths.append(len(value)))
    other = room.child(
        "import sys, epicsx\n"
        "with epicsx.Channel(sys.argv[1]) as w:\n"
        "    print('ready')\n"
        "    for line in sys.stdin:\n"
        "        w.put([1.0] * int(line), wait=True)\n"
        "        print('done')\n",
        ioc["w"],
    )
    other.wait_line("ready")
    room.wait(lambda: lengths, 10.0, "the first value")
    for length in (3, 0, 3, 0):
        other.send(str(length))
        other.wait_line("done")
        if not room.saw(ends_with(lengths, length), 2.0):
            stale.append(length)
        room.check(len(pv.get()) == length, f"get gives {len(pv.get())} elements of {length}")
    room.check(not stale, f"no event for a length of {stale}")
    pv.disconnect()
    return Figure(f"{len(stale)} of 5 stale", stale=len(stale))


# ---- D9: arrays above a limit


DB_D9 = 'record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "100000") }'
SMALL = {"EPICS_CA_AUTO_ARRAY_BYTES": "NO", "EPICS_CA_MAX_ARRAY_BYTES": "20000"}
FILL = "import sys, epicsx\nepicsx.Channel(sys.argv[1]).put([1.0] * 100_000, wait=True, timeout=20.0)\n"


@scenario(
    "D9",
    how="an array of 800 kB with EPICS_CA_AUTO_ARRAY_BYTES=NO and a limit of 20 kB, at the server, then at the client",
    expected="an error within the time-out, which names the variable; smaller arrays still come",
    limit=120,
    quick=True,
    ports=2,
)
def d9(room: Room) -> Figure:
    said = []
    server = room.ioc(DB_D9, env=SMALL)
    with epicsx.Channel(server["w"]) as channel:
        channel.connect(10.0)
        for what, call in (
            ("get", lambda: channel.get(timeout=10.0)),
            ("put", lambda: channel.put(np.zeros(100_000), wait=True, timeout=10.0)),
        ):
            said.append(_told(what, call))
    # The client's own limit is libca's, read once per process: a client of its own.
    ioc = room.ioc(DB_D9)
    client = room.child(
        "import sys, epicsx\n"
        "with epicsx.Channel(sys.argv[1]) as w:\n"
        "    w.put([1.0] * 100_000, wait=True)\n"
        "    try:\n"
        "        w.get(timeout=2.0)\n"
        "    except epicsx.CAError as error:\n"
        "        print('said', error)\n"
        "    w.put([1.0, 2.0], wait=True)\n"
        "    assert w.get().value.tolist() == [1.0, 2.0]\n",
        ioc["w"],
        env=SMALL,
    )
    said.append(client.wait_line("said"))
    client.finish()
    assert all("EPICS_CA_MAX_ARRAY_BYTES" in each for each in said), said
    return Figure(
        "3 of 3 errors name EPICS_CA_MAX_ARRAY_BYTES: at once by the server, at the time-out by the client"
    )


def _told(what: str, call: Callable[[], object]) -> str:
    try:
        call()
    except epicsx.CAError as error:
        return f"{what}: {error}"
    raise AssertionError(f"{what}: no error")


@d9.pyepics
def d9_pyepics(room: Room) -> Figure:
    import epics

    server = room.ioc(DB_D9, env=SMALL)
    pv = epics.PV(server["w"], auto_monitor=False)
    pv.wait_for_connection(10.0)
    found = []
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("get", lambda: pv.get(timeout=2.0)),
        ("put", lambda: pv.put(np.zeros(100_000), wait=True, timeout=2.0)),
    )
    for what, call in calls:
        try:
            found.append(f"{what} gives {call()!r:.40}")
        except Exception as error:
            found.append(f"{what} raises {error!r:.120}")
    room.check(all("MAX_ARRAY_BYTES" in each for each in found), "; ".join(found))
    return Figure("")


# ---- D10: types that Channel Access has not


DB_D10 = """
record(int64out, "$(P)i64") {}
record(waveform, "$(P)ulong") { field(FTVL, "ULONG") field(NELM, "4") }
record(waveform, "$(P)wi64") { field(FTVL, "INT64") field(NELM, "4") }
record(lso, "$(P)lso") { field(SIZV, "200") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10") }
record(ao, "$(P)ao") { field(DESC, "a description") }
"""
TEXT = " ".join(["long text"] * 15)


@scenario(
    "D10",
    how="64-bit integers, ULONG, long strings (.VAL$), a slice by channel filter",
    expected="DOUBLE, exact up to 2^53, the nearest above; ULONG as DOUBLE; text whole; the slice",
    limit=30,
)
def d10(room: Room) -> Figure:
    ioc = room.ioc(DB_D10)

    def of(name: str) -> epicsx.Channel:
        return epicsx.Channel(ioc[name]).connect(10.0)

    done = 0
    i64 = of("i64")
    for number in (2**53, -(2**53), 2**31, 0):  # docs/caveats.md: exact up to here
        i64.put(number, wait=True)
        assert i64.get().value == number, number
        assert int(ioc.read("i64")) == number
        done += 1
    i64.put(2**53 + 1, wait=True)  # and the nearest double above
    assert int(ioc.read("i64")) == 2**53
    ulong = of("ulong")
    ulong.put([0, 2**32 - 1], wait=True)
    assert ulong.get().value.tolist() == [0.0, 4294967295.0]
    wi64 = of("wi64")
    wi64.put([2**53, -5], wait=True)
    assert wi64.get().value.tolist() == [2.0**53, -5.0]
    text = of("lso.VAL$")
    text.put(TEXT, wait=True)
    assert bytes(text.get().value).split(b"\0")[0].decode() == TEXT
    assert of("lso").get().value == TEXT[:39]
    assert bytes(of("ao.DESC$").get().value).split(b"\0")[0] == b"a description"
    w = of("w")
    w.put(np.arange(10.0), wait=True)
    assert w[2:5].get().value.tolist() == [2.0, 3.0, 4.0]
    return Figure(f"{done + 7} of {done + 7} as documented")


@d10.pyepics
def d10_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_D10)
    wrong = []

    def expect(what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            wrong.append(f"{what}: {found!r}")

    i64 = epics.PV(ioc["i64"])
    for number in (2**53, -(2**53), 2**31, 0):
        i64.put(number, wait=True)
        expect(str(number), int(ioc.read("i64")), number)
    ulong = epics.PV(ioc["ulong"])
    ulong.put([0, 2**32 - 1], wait=True)
    expect("ULONG", list(ulong.get(use_monitor=False)), [0.0, 4294967295.0])
    text = epics.PV(ioc["lso.VAL$"])
    text.put(TEXT, wait=True)
    expect("VAL$", text.get(as_string=True, use_monitor=False), TEXT)
    w = epics.PV(ioc["w"])
    w.put(np.arange(10.0), wait=True)
    part = epics.PV(ioc["w"] + '.{"arr":{"s":2,"e":4}}')
    expect(
        "slice",
        list(part.get(timeout=5.0) if part.wait_for_connection(5.0) else ()),
        [2.0, 3.0, 4.0],
    )
    for each in wrong:
        room.check(False, each)
    return Figure(f"{8 - len(wrong)} of 8 as documented")
