"""C: connections that end, stall, move or never come to be."""

from __future__ import annotations

import json
import logging
import struct
import tempfile
import threading
import time
from typing import Any

import numpy as np

import epicsx
from epicsx.testing import SoftIOC
from faults.faces import PV, attach
from faults.harness import Figure, scenario
from faults.room import Room, doubtful

SILENT = {"EPICS_CA_CONN_TMO": "2"}
DETECTION = 7.0
"""Seconds after which libca calls a peer unresponsive: EPICS_CA_CONN_TMO + CA_ECHO_TIMEOUT (tcpRecvWatchdog.cpp)."""
AT_ONCE = 1.0
"""Seconds that "at once" may take, at best; libca's own time-outs are longer."""
BACK = 30.0
"""Seconds within which a channel must be back when its server is."""

X = 'record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }\n'
COUNT = 'record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".1 second") }\n'
SLOW = """
record(calc, "$(P)done") { field(CALC, "VAL+1") }
record(ao, "$(P)slow") { field(FLNK, "$(P)seq") }
record(seq, "$(P)seq") { field(DLY1, "30") field(DOL1, "1") field(LNK1, "$(P)done.PROC PP") }
"""


def ready(room: Room, pvs: list[PV], seconds: float = 20.0) -> None:
    """Wait until each has its first value."""
    room.wait(lambda: all(pv.values for pv in pvs), seconds, "first values")


N = 100
CIRCUIT = ("CAC-TCP-recv", "CAC-TCP-send")
"""libca's threads of a circuit, by their names (tcpRecvThread, tcpSendThread of tcpiiu.cpp)."""
ENDED = len(CIRCUIT) + 1  # one of ours reads what the IOC says


def others(room: Room) -> list[str]:
    """The names of this process' threads, but for that of libCom's log, which starts when something is logged."""
    return [name for name in room.thread_names() if name != "errlog"]


@scenario(
    "C1",
    how="IOC killed (SIGKILL) with 100 monitors, a put with completion and 5 gets under way",
    expected="all are told of the loss; put and gets fail at once; no thread is left",
    limit=120,
    quick=True,
)
def c1(room: Room) -> Figure:
    ioc = room.ioc(
        SLOW + "".join(f'record(ao, "$(P)m{n}") {{ field(VAL, "{n}") }}\n' for n in range(N))
    )
    pvs = [room.pv(ioc[f"m{n}"]) for n in range(N)]
    slow = room.pv(ioc["slow"], monitor=False)
    slow.connect()
    ready(room, pvs)
    threads = others(room)
    assert set(CIRCUIT) <= set(threads), f"the circuit's threads are none of {threads}"

    def kill() -> tuple[int, float, float]:
        """Kill it: how many are told of it, and seconds until the last is, and until the last get ends."""
        if not ioc.running:  # once more
            ioc.restart()
            room.wait(lambda: all(pv.connected for pv in (*pvs, slow)), BACK, "all are back")
        put = slow.put_answer(1.0)
        pvs[0].get()  # the IOC has read the put
        ioc.pause()
        ended: list[tuple[float, Any]] = []

        def ask(pv: PV) -> None:
            attach(room.face)
            error, _ = room.raised(lambda: pv.get(timeout=20.0))
            ended.append((time.monotonic(), error))

        before = room.lent()
        askers = [threading.Thread(target=ask, args=(pv,)) for pv in pvs[:5]]
        for asker in askers:
            asker.start()
        # a get that began after the end would wait for the IOC's return
        room.lends(5, before)
        time.sleep(0.3)  # nothing tells that they are on their way to an IOC that has stopped
        began = time.monotonic()
        ioc.kill()
        room.saw(lambda: all(pv.last(False, began) for pv in pvs), 10.0)
        told = [when - began for pv in pvs if (when := pv.last(False, began))]
        room.check(len(told) == N, f"{len(told)} of {N} told")
        for asker in askers:
            asker.join(20.0)
        room.check(len(ended) == 5, f"{len(ended)} of 5 gets ended")
        room.check(all(error is not None for _, error in ended), "a get gave a value")
        room.check(room.saw(lambda: put.said, 10.0), "the put's callback was not called")
        room.check(
            "done" not in put.said, "the put's callback was called as for a put that is done"
        )
        late = max((when for when, _ in ended), default=began) - began
        return len(told), max(told, default=0.0), late

    told, last, late = room.best(
        kill, lambda found: not (doubtful(found[1], AT_ONCE) or doubtful(found[2], 2.0))
    )
    room.check(last < AT_ONCE, f"the last is told after {last:.1f} s")
    room.check(late < 2.0, f"gets ended after {late:.1f} s")
    left = len(threads) - ENDED
    room.check(
        room.saw(lambda: len(others(room)) <= left, 10.0),
        f"{len(others(room))} threads instead of {left}: {' '.join(others(room))}",
    )
    circuits = [name for name in others(room) if name in CIRCUIT]
    room.check(not circuits, f"threads of the circuit are left: {' '.join(circuits)}")
    return Figure(
        f"{told} told after {last * 1e3:.0f} ms, gets ended after {late * 1e3:.0f} ms",
        seconds=last,
        gets=late,
    )


c1.both()


@scenario(
    "C2",
    how="IOC killed, back after 0.2 s and 3 s (long: and 15 s and 60 s, ten times each)",
    expected="a fresh value by itself; one subscription on the IOC, not two",
    limit=180,
)
def c2(room: Room) -> Figure:
    ioc = room.ioc(COUNT)
    pv = room.pv(ioc["count"])
    ready(room, [pv])

    def cycle(pause: float) -> float:
        ioc.kill()
        killed = time.monotonic()
        room.wait(lambda: not pv.connected, 5.0, "the loss is told")
        time.sleep(max(0.0, killed + pause - time.monotonic()))
        ioc.restart()
        listens = time.monotonic()
        room.wait(lambda: pv.after(listens), BACK, f"a value after {pause} s down")
        subscriptions = ioc.casr().monitors.get(ioc["count"], 0)
        room.check(subscriptions == 1, f"{subscriptions} subscriptions on the IOC")
        return next(when for when, *_ in pv.values if when >= listens) - listens

    after = [cycle(pause) for pause in ([0.2, 3.0, 15.0, 60.0] * 10 if room.long else [0.2, 3.0])]
    p50, p95 = np.percentile(after, [50, 95])
    return Figure(
        f"first value {p50:.1f} s (p50), {p95:.1f} s (p95) after the IOC listens again, {len(after)} restarts",
        p50=float(p50),
        p95=float(p95),
    )


c2.both()

SECURITY = """
ASG(DEFAULT) { RULE(1, WRITE) }
ASG(READONLY) { RULE(1, READ) }
"""


@scenario(
    "C3",
    how="IOC stopped (SIGSTOP) for longer than CONN_TMO + 5 s, then goes on",
    expected="told down; then up with the true rights, one refresh, and updates that go on",
    limit=60,
    env=SILENT,
)
def c3(room: Room) -> Figure:
    ioc = room.ioc(
        X + COUNT + 'record(ao, "$(P)locked") { field(ASG, "READONLY") }', access_security=SECURITY
    )
    x, count, _ = pvs = [room.pv(ioc[name]) for name in ("x", "count", "locked")]
    ready(room, pvs)
    ioc.pause()
    began = time.monotonic()
    room.wait(lambda: x.last(False), 20.0, "told down")
    down = x.last(False) - began
    room.check(not x.connected, "still said to be connected")
    on = time.monotonic()  # before it goes on: news may come at once
    ioc.resume()
    room.wait(lambda: all(pv.last(True, on) for pv in pvs), BACK, "told up")
    up = max(pv.last(True, on) for pv in pvs) - on
    room.wait(lambda: len(count.after(on)) > 10, 10.0, "updates go on")
    rights = [pv.write_access for pv in pvs]
    room.check(rights == [True, True, False], f"write access of x, count, locked: {rights}")
    x.put(2.0, wait=True)
    room.wait(lambda: x.values[-1][1] == 2.0, 5.0, "the put's update")
    refreshed = len(x.after(on)) - 1
    room.check(refreshed == 1, f"{refreshed} refreshes")
    monitors = ioc.casr().monitors
    room.check(monitors[ioc["x"]] == 1, f"{monitors[ioc['x']]} subscriptions on the IOC")
    if room.face == "epicsx":
        stats = x.channel.stats  # type: ignore[union-attr]
        room.check(stats.disconnects == 1, f"{stats.disconnects} disconnects counted")
    return Figure(
        f"down after {down:.1f} s, up {up:.2f} s after it goes on, rights true, {refreshed} refresh",
        detection=down,
        recovery=up,
    )


c3.both()


@scenario(
    "C4",
    how="as C3; then one of two subscriptions to a 10 Hz record is closed, then the other",
    expected="the IOC stops sending within 1 s",
    limit=60,
    env=SILENT,
)
def c4(room: Room) -> Figure:
    ioc = room.ioc(COUNT, seen=False)
    proxy = room.proxy(ioc)
    name = ioc["count"]
    first, second = pvs = [room.pv(name), room.pv(name)]
    ready(room, pvs)
    ioc.pause()
    room.wait(lambda: first.last(False) and second.last(False), 20.0, "told down")
    on = time.monotonic()
    ioc.resume()
    room.wait(lambda: len(first.after(on)) > 5 and len(second.after(on)) > 5, BACK, "updates go on")
    before = ioc.casr().monitors[name]
    first.stop()
    room.saw(lambda: ioc.casr().monitors.get(name, 0) < before, 1.0, every=0.05)
    seen = len(second.values)
    room.wait(lambda: len(second.values) > seen + 5, 5.0, "the other one's updates go on")
    second.stop()
    room.saw(lambda: name not in ioc.casr().monitors, 1.0, every=0.05)
    left = ioc.casr().monitors.get(name, 0)
    proxy.clear_log()
    time.sleep(2.5)  # what still comes in a time is the figure
    leaked = proxy.seen(direction="to_client", command="EVENT_ADD")
    room.check(not left and not leaked, f"{left} subscriptions left on the IOC")
    return Figure(f"{leaked} updates sent in 2.5 s after both were closed", leaked=leaked)


c4.both()

BIG = 1_000_000  # elements of float64
ARRAY = f"""
record(waveform, "$(P)array") {{ field(FTVL, "DOUBLE") field(NELM, "{BIG}") }}
"""


@scenario(
    "C5",
    how="connection reset in the middle of 8 MB updates, twice",
    expected="no torn array is delivered; updates go on over a new connection",
    limit=120,
)
def c5(room: Room) -> Figure:
    ioc = room.ioc(ARRAY, seen=False)
    proxy = room.proxy(ioc)
    whole: list[tuple[float, float]] = []  # value, time
    torn: list[int] = []

    def look(value: Any) -> None:
        value = np.atleast_1d(value)
        if value.size == BIG and (value == value[0]).all():
            whole.append((float(value[0]), time.monotonic()))
        elif value.size:
            torn.append(value.size)

    pv = room.pv(ioc["array"], also=look)
    pv.connect()
    writer = room.pv(ioc["array"], monitor=False)
    writer.connect()

    def came(value: float) -> float:
        return next((when for what, when in whole if what == value), 0.0)

    def update(value: float) -> None:
        writer.connect(BACK)
        writer.put(np.full(BIG, value), wait=True, timeout=10.0)
        room.wait(lambda: came(value), 10.0, "a whole array")

    def cut(value: float, after: int) -> float:
        rule = proxy.cut(direction="to_client", command="EVENT_ADD", after=after, count=1)
        writer.put(np.full(BIG, value), timeout=10.0)
        room.wait(lambda: rule.count, 10.0, "the cut")
        began = time.monotonic()
        room.wait(lambda: came(value), BACK, "the array whose update was cut")
        return came(value) - began

    update(1.0)
    back = [cut(2.0, 3_000_001)]
    update(3.0)
    back.append(cut(4.0, 7_999_000))
    update(5.0)
    room.check(not torn, f"{len(torn)} torn arrays, of {torn[:3]} elements")
    return Figure(
        f"{len(torn)} torn of {len(whole) + len(torn)} arrays, updates back after {max(back):.1f} s",
        torn=len(torn),
        back=max(back),
    )


c5.both()


@scenario(
    "C6a",
    how="server's half of the connection closed",
    expected="told down at once, connected anew",
    limit=60,
)
def c6a(room: Room) -> Figure:
    ioc = room.ioc(X, seen=False)
    proxy = room.proxy(ioc)
    pv = room.pv(ioc["x"])
    ready(room, [pv])

    def half_close() -> tuple[float, float]:
        """After how many seconds it is told down, and up."""
        began = time.monotonic()
        proxy.half_close("to_client")
        room.wait(lambda: pv.last(False, began), 10.0, "told down")
        first = pv.last(False, began) - began
        room.wait(lambda: pv.last(True, began), BACK, "told up")
        room.wait(lambda: pv.after(began), 5.0, "a value")
        return first, pv.last(True, began) - began

    down, up = room.best(half_close, lambda found: not doubtful(found[0], AT_ONCE))
    room.check(down < AT_ONCE, f"told down after {down:.1f} s")
    return Figure(f"down after {down * 1e3:.0f} ms, up after {up:.1f} s", down=down, up=up)


c6a.both()


@scenario(
    "C6b",
    how="nothing comes any more after the header of an 8 MB update",
    expected="told down after CONN_TMO + 5 s, memory bounded",
    limit=60,
    env=SILENT,
)
def c6b(room: Room) -> Figure:
    ioc = room.ioc(ARRAY, seen=False)
    proxy = room.proxy(ioc)
    sizes: list[int] = []
    pv = room.pv(ioc["array"], also=lambda value: sizes.append(np.size(value)))
    pv.connect()
    pv.put(np.ones(BIG), wait=True, timeout=10.0)
    room.wait(lambda: BIG in sizes, 10.0, "the first array")
    seen, before = len(sizes), room.rss()
    rule = proxy.stall("to_client", command="EVENT_ADD", after=32)
    pv.put(np.full(BIG, 2.0))
    room.wait(lambda: rule.count, 10.0, "the stall")
    proxy.stall()  # what goes over other connections, too
    began = time.monotonic()
    room.wait(lambda: pv.last(False), 20.0, "told down")
    down = pv.last(False) - began
    grown = room.rss() - before
    room.check(len(sizes) == seen, f"an array of {sizes[-1]} elements was delivered")
    room.check(grown < 32.0, f"{grown:.0f} MB more")
    return Figure(f"down after {down:.1f} s, memory grew by {grown:.1f} MB", down=down, grown=grown)


c6b.both()


def records(step: int) -> str:
    """Four records of as many types; each step gives each the type of the next. Two more change their size."""
    kinds = [
        'record(ao, "$(P)NAME") { field(VAL, "1.5") field(EGU, "mm") field(PINI, "YES") }',
        'record(stringout, "$(P)NAME") { field(VAL, "text") field(PINI, "YES") }',
        'record(waveform, "$(P)NAME") { field(FTVL, "LONG") field(NELM, "5") field(INP, [1,2,3,4,5]) }',
        'record(mbbo, "$(P)NAME") { field(ZRST, "no") field(ONST, "yes") field(VAL, "1") field(PINI, "YES") }',
    ]
    made = [kinds[(n + step) % 4].replace("NAME", f"t{n}") for n in range(4)]
    for n in range(2):
        size = (10, 100)[(n + step) % 2]
        fields = f'field(FTVL, "DOUBLE") field(NELM, "{size}") field(INP, {list(range(size))})'
        made.append(f'record(waveform, "$(P)n{n}") {{ {fields} }}')
    return "\n".join(made)


FACTS = [
    ("double", 1, (), "mm"),
    ("string", 1, (), ""),
    ("long", 5, (), ""),
    ("enum", 1, ("no", "yes"), ""),
]
VALUES: list[Any] = [1.5, "text", [1, 2, 3, 4, 5], 1]


@scenario(
    "C7",
    how="restart with other types: double, string, long[5], enum in turn; waveforms of 10 and 100 change places",
    expected="values, type, count, states and units are those of the new records; nothing of the old type comes",
    limit=90,
)
def c7(room: Room) -> Figure:
    ioc = room.ioc(records(0))
    pvs = [room.pv(ioc[f"t{n}"]) for n in range(4)] + [room.pv(ioc[f"n{n}"]) for n in range(2)]
    ready(room, pvs)
    for pv in pvs:
        pv.facts()
    stale = wrong = 0

    def restart(step: int) -> float:
        nonlocal stale, wrong
        ioc.kill()
        room.wait(lambda: not any(pv.connected for pv in pvs), 10.0, "told down")
        down = time.monotonic()  # before the restart returns values may have come, and no more will
        ioc.restart(records(step))
        listens = time.monotonic()
        room.saw(lambda: all(pv.after(down) for pv in pvs), BACK)
        if silent := [pv.name[-2:] for pv in pvs if not pv.after(down)]:
            room.check(False, f"no update of {', '.join(silent)} within {BACK:g} s")
        for n, pv in enumerate(pvs):
            if n < 4:
                facts, value = FACTS[(n + step) % 4], VALUES[(n + step) % 4]
            else:
                size = (10, 100)[(n - 4 + step) % 2]
                facts, value = ("double", size, (), ""), list(range(size))
            stale += sum(np.asarray(each).tolist() != value for each in pv.after(down))
            if (told := pv.facts()) != facts:
                wrong += 1
                room.check(False, f"{pv.name[-2:]} is said to be {told}, not {facts}")
            pv.get()
        return max(listens, *(pv.values[-1][0] for pv in pvs)) - listens

    times = [restart(step) for step in (1, 2) if not room.missed]
    room.check(not stale, f"{stale} updates of a stale type")
    return Figure(
        f"{stale} stale updates, {wrong} wrong facts, back after {max(times):.1f} s", stale=stale
    )


c7.both()


# ---- servers that move, or are there twice


@scenario(
    "C8a",
    how="IOC killed, another with the same PV comes up on another port",
    expected="connects to the new one",
    limit=60,
    ports=2,
)
def c8a(room: Room) -> Figure:
    old = room.ioc(X)
    pv = room.pv(old["x"])
    ready(room, [pv])
    old.kill()
    room.wait(lambda: pv.last(False), 10.0, "told down")
    down = time.monotonic()  # the only value may come before the start returns
    new = room.ioc(X, prefix=old.prefix)
    listens = time.monotonic()
    room.wait(lambda: pv.after(down), BACK, "a value of the new one")
    after = max(0.0, pv.values[-1][0] - listens)
    room.check(pv.host.endswith(f":{new.server_port}"), f"host is {pv.host}")
    return Figure(f"first value {after:.1f} s after the new IOC listens", seconds=after)


c8a.both()


@scenario(
    "C8b",
    how="two IOCs have the same PV",
    expected="connects to one; one warning in the log, which names the PV and both servers",
    limit=40,
    ports=2,
)
def c8b(room: Room) -> Figure:
    logging.basicConfig()  # as a program does that wants to hear; pyepics has no log
    one = room.ioc(X)
    two = room.ioc(X, prefix=one.prefix)
    pv = room.pv(one["x"])
    ready(room, [pv])
    ports = [str(ioc.server_port) for ioc in (one, two)]
    room.saw(lambda: all(port in room.said() for port in ports), 5.0)
    pv.get()
    said = room.said()
    times = said.count("Identical process variable names")
    names = one["x"] in said and all(port in said for port in ports)
    room.check(times == 1, f"{times} warnings")
    room.check(names, "not all of PV and servers named")
    return Figure("1 warning, with PV and both servers" if names else "", warnings=times)


c8b.both()


# ---- stamps, and very many


@scenario(
    "C11",
    how="stamps of the IOC's clock jump by an hour, both ways, and to the year 1990 with 0 ns",
    expected="all values, in the order in which they were posted, with their stamps unmodified",
    limit=120,
    quick=True,
)
def c11(room: Room) -> Figure:
    ioc = room.ioc('record(longout, "$(P)x") { field(TSE, "-2") }')
    pv = room.pv(ioc["x"])
    ready(room, [pv])
    now = int(time.time()) - EPOCH
    stamps = [now, now + 1, now + 3601, now + 3602, now - 3600, now - 3599, 0, now + 2]
    for number, seconds in enumerate(stamps, 1):
        post(ioc, number, seconds)
    room.saw(lambda: len(pv.values) > len(stamps), 20.0)
    seen = [(value, stamp - EPOCH) for _, value, stamp in pv.values[1:]]
    expected = [(number, float(seconds)) for number, seconds in enumerate(stamps, 1)]
    wrong = [pair for pair in seen if pair not in expected]
    room.check(seen == expected, f"{len(wrong)} of {len(seen)} updates with another stamp: {wrong}")
    return Figure(
        f"{len(seen)} of {len(stamps)} updates, every stamp as it was sent", updates=len(seen)
    )


c11.both()

EPOCH = 631152000
"""EPICS' epoch, 1990, in seconds of POSIX'."""


def post(ioc: SoftIOC, value: int, seconds: int) -> None:
    """Have the record x post a value with a stamp of that many seconds of EPICS' epoch (`Puts` of _ioc_main.py)."""
    frame = [[ioc["x"] + ".TIME", -1, 1, 0], [ioc["x"], 5, 1, 8]]
    with tempfile.NamedTemporaryFile() as file:
        file.write(
            json.dumps({"rate": 0, "guard": "", "wait": True, "frames": [frame]}).encode() + b"\n"
        )
        file.write(struct.pack("=IIi", seconds, 0, value))
        file.flush()
        ioc.shell(f"@play {file.name}", check=True)


IOCS, EACH = 10, 1000


@scenario(
    "C13",
    how="10 000 PVs with monitors on 10 IOCs; one of these is killed",
    expected="its 1000 PVs are told down, no other is",
    limit=240,
    ports=IOCS,
)
def c13(room: Room) -> Figure:
    db = COUNT + "".join(f'record(ao, "$(P)b{n}") {{ field(VAL, "{n}") }}\n' for n in range(EACH))
    iocs = [room.ioc(db) for _ in range(IOCS)]
    names = [ioc[f"b{n}"] for ioc in iocs for n in range(EACH)]
    counts = [room.pv(ioc["count"]) for ioc in iocs]
    ready(room, counts)
    ups: dict[str, float] = {}
    firsts: dict[str, float] = {}
    downs: dict[str, float] = {}

    def connection(name: str, up: bool) -> None:
        (ups if up else downs).setdefault(name, time.monotonic())

    def value(name: str) -> None:
        firsts.setdefault(name, time.monotonic())

    before = room.rss()
    began = time.monotonic()
    pvs: list[Any] = []
    for name in names:
        pvs.append(many(room.face, name, connection, value))
    room.saw(lambda: len(firsts) == len(names), 120.0, every=0.02)
    room.check(len(firsts) == len(names), f"{len(firsts)} of {len(names)} first values")
    connected = max(ups.values()) - began
    first = max(firsts.values()) - began
    each = (room.rss() - before) * 1024 / len(names)
    began = time.monotonic()
    iocs[3].kill()
    room.saw(lambda: len(downs) == EACH, 10.0)
    room.check(len(downs) == EACH, f"{len(downs)} told down")
    down = max(downs.values()) - began
    rest = [pv for n, pv in enumerate(counts) if n != 3]
    gone = time.monotonic()
    room.wait(lambda: all(len(pv.after(gone)) > 10 for pv in rest), 10.0, "the others go on")
    room.check(len(downs) == EACH, f"{len(downs)} told down")
    lost = sum(int(np.diff([value for _, value, _ in pv.values]).max() > 1) for pv in rest)
    room.check(not lost, f"{lost} of the others' counters missed updates")
    return Figure(
        f"connected in {connected:.2f} s, first values {first:.2f} s, {each:.1f} KiB a PV; 1000 told down after "
        f"{down * 1e3:.0f} ms, no other",
        connected=connected,
        first=first,
        down=down,
    )


c13.both()


def many(face: str, name: str, connection: Any, value: Any) -> Any:
    """A PV with a monitor, without what `Room.pv` keeps of each."""
    if face == "epicsx":
        channel = epicsx.Channel(
            name, on_connection=lambda channel, up: connection(channel.name, up)
        )
        channel.subscribe(lambda sample: value(sample.name))
        return channel
    import epics

    return epics.PV(
        name,
        connection_callback=lambda pvname, conn, **_: connection(pvname, conn),
        callback=lambda pvname, **_: value(pvname),
        auto_monitor=True,
    )
