"""F: servers that lie. Each lie has a server of its own, on which both libraries do the same, beside a healthy one.

What is expected of every lie: the client goes on. What it had asked for ends with an error or a value within its
timeout, closing what the lie was about ends, the healthy server's PV is read at once, and the liar's too, once it is
honest again. libca itself is not safe against most of this, so those that need its hardened build say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import epicsx
from epicsx import _wire
from epicsx._wire import Command, Frame
from epicsx.enums import DBR, ECA
from epicsx.testing import FakePV, FakeServer
from epicsx.testing._fakeengine import Request
from faults.harness import Figure, Scenario, scenario
from faults.room import Room

Lie = Callable[[FakeServer], object]
VALUES = [1.0, 2.0, 3.0]
# MB by which a client may grow; AddressSanitizer keeps what was freed, and a margin around everything.
BOUND = 400 if "libasan" in os.environ.get("LD_PRELOAD", "") else 100
SETTLED = 15.0  # seconds until the liar, honest again, must be found: libca searches again after 10


def lies(id: str, how: str, expected: str, told: Mapping[str, Lie], *, needs: str = "") -> Scenario:
    """A scenario of several lies, for both libraries."""

    @scenario(
        id,
        how=how,
        expected=expected,
        limit=30 + 15 * len(told),
        quick=True,
        ports=len(told) + 1,
        env={"EPICS_CA_CONN_TMO": "2"},
        needs=needs,
    )
    def run(room: Room) -> Figure:
        return visited(room, told, _epicsx)

    @run.pyepics
    def run_pyepics(room: Room) -> Figure:
        return visited(room, told, _pyepics)

    return run


def visited(room: Room, told: Mapping[str, Lie], visit: Callable[..., tuple[str, float]]) -> Figure:
    """Visit a server for each lie; what was seen of each."""
    healthy = room.fake({"healthy": 42})
    assert healthy.running
    before = room.rss()
    seen: dict[str, list[str]] = {}
    backs = []
    for number, (words, lie) in enumerate(told.items()):
        name = f"liar{number}"
        server = room.fake({name: FakePV(VALUES, size=8)})
        missed = len(room.missed)
        result, back = visit(room, server, name, lie)
        room.missed[missed:] = [f"{words}: {each}" for each in room.missed[missed:]]
        seen.setdefault(result, []).append(words)
        backs.append(back)
    grown = room.rss() - before
    room.check(grown < BOUND, f"memory grew by {grown:.0f} MB")
    texts = [f"{', '.join(words)}: {result}" for result, words in seen.items()]
    texts.append(f"read again within {max(backs):.1f} s, memory {grown:+.0f} MB")
    return Figure("; ".join(texts), seconds=max(backs), grown_mb=grown)


def _epicsx(room: Room, server: FakeServer, name: str, lie: Lie) -> tuple[str, float]:
    results: list[str] = []
    updates: list[Any] = []

    def does(what: str, function: Callable[[], Any]) -> None:
        try:
            function()
        except epicsx.CAError as error:
            results.append(f"{what} {type(error).__name__}")

    lie(server)
    channel = epicsx.Channel(name)
    does("connect", lambda: channel.connect(1.0))
    does("subscribe", lambda: channel.subscribe(updates.append))
    does("get", lambda: channel.get(timeout=1.0).value)
    does("get as text", lambda: channel.get(dtype=str, timeout=1.0).value)
    does("put", lambda: channel.put([4.0, 5.0], wait=True, timeout=1.0))
    server.post(name, VALUES)
    room.saw(lambda: len(updates) > 1, 0.3)
    for sample in updates:
        does("update", lambda sample=sample: sample.value)  # type: ignore[misc]
        assert sample.count <= 8, f"an update of {sample.count} elements where 8 have room"
    channel.close()
    room.wait(lambda: epicsx._ca.lent() <= 0, 10.0, "closing the channel ends")
    with epicsx.Channel("healthy") as healthy:
        assert healthy.get(timeout=5.0).value == 42
    server.reset()
    began = time.monotonic()
    with epicsx.Channel(name) as again:
        again.get(timeout=SETTLED)
        back = time.monotonic() - began
        # the server may still be reading what came over the circuit of before: a put that was given up
        room.wait(
            lambda: list(again.get(timeout=SETTLED).value) == list(server[name]),
            10.0,
            "the liar says what it has",
        )
    return ", ".join(dict.fromkeys(results)) or "no error", back


def _pyepics(room: Room, server: FakeServer, name: str, lie: Lie) -> tuple[str, float]:
    import epics

    updates: list[Any] = []
    lie(server)
    pv = epics.PV(name, callback=lambda value, **_: updates.append(value), connection_timeout=1.0)
    results = [] if pv.wait_for_connection(1.0) else ["no connection"]
    works: dict[str, Callable[[], Any]] = {
        "get": lambda: pv.get(timeout=1.0, use_monitor=False),
        "get as text": lambda: epics.ca.get(pv.chid, ftype=DBR.STRING, timeout=1.0),
        "put": lambda: pv.put([4.0, 5.0], wait=True, timeout=1.0),
    }
    for what, work in works.items():
        try:
            gave = work()
        except Exception as error:
            gave = type(error).__name__
        if gave is None or isinstance(gave, str):
            results.append(f"{what} {gave}")
    server.post(name, VALUES)
    room.saw(lambda: len(updates) > 1, 0.3)
    longest = max((len(each) for each in updates if hasattr(each, "__len__")), default=0)
    room.check(longest <= 8, f"an update of {longest} elements where 8 have room")
    room.check(
        _ends(pv.disconnect, 10.0) and epics.caget("healthy", timeout=5.0) == 42,
        "the healthy PV is not read any more",
    )
    server.reset()
    began = time.monotonic()
    value: Any = None
    try:
        value = epics.PV(name).get(timeout=SETTLED)
    except Exception as error:
        results.append(f"read again {type(error).__name__}")
    room.check(
        value is not None and list(value) == list(server[name]), "the liar is not read again"
    )
    return ", ".join(results) or "no error", time.monotonic() - began


def _ends(work: Callable[[], object], seconds: float) -> bool:
    """Whether it ends in time."""
    import epics

    def attached() -> None:
        epics.ca.use_initial_context()
        work()

    thread = threading.Thread(target=attached, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


# ---- the lies


def changed(**fields: int) -> Callable[[str], Lie]:
    """A header with other numbers, in the answers to a command."""
    return lambda command: lambda server: server.corrupt(fields, command=command)


def with_id_of(command: str, of: str) -> Lie:
    """Answers to a command that carry the identifier of another kind of request, and that kind's command."""

    def lie(server: FakeServer) -> None:
        last = {"id": 0}

        def note(request: Request) -> None:
            last["id"] = request.frame.parameter2

        def wrong(request: Request) -> list[Frame]:
            return [replace(frame, parameter2=last["id"]) for frame in request.answer]

        server.answer(note, command=of)
        server.answer(wrong, command=command)

    return lie


def as_kind(command: str, kind: Command) -> Lie:
    """Answers to a command that say they are those of another kind."""
    return changed(command=int(kind))(command)


def answered(command: str, *frames: Callable[[Request], Frame | bytes]) -> Lie:
    """Answers to a command made from the request, behind the true ones."""
    return lambda server: server.answer(
        lambda request: [*request.answer, *(make(request) for make in frames)], command=command
    )


def error(
    command: int, status: int, text: bytes = b"fake", *, whole: bool = True
) -> Callable[[Request], Frame]:
    """CA_PROTO_ERROR about a request of that command."""

    def make(request: Request) -> Frame:
        asked = replace(request.frame, command=command, payload=b"")
        made = _wire.error(asked, status, text, 0xFFFFFFFF)
        return (
            made if whole else replace(made, payload=made.payload[: len(made.payload) // 8 * 8 - 8])
        )

    return make


def reply(
    data_type: int, count: int, size: int, status: int = ECA.NORMAL
) -> Callable[[FakeServer], object]:
    """Other READ_NOTIFY replies."""

    def make(request: Request) -> list[Frame]:
        frame = request.answer[0]
        return [
            replace(
                frame,
                data_type=data_type,
                count=count,
                parameter1=int(status),
                payload=b"\x41" * size,
            )
        ]

    return lambda server: server.answer(make, command="READ_NOTIFY")


F1 = lies(
    "F1",
    "updates whose count is 70 000 and 500 million, with a payload of 3 elements",
    "the circuit is dropped or the update refused, an error is logged; the client goes on",
    {
        "70 000": changed(count=70_000)("EVENT_ADD"),
        "500 million": changed(count=500_000_000)("EVENT_ADD"),
        "reply of a get": changed(count=70_000)("READ_NOTIFY"),
    },
    needs="hardened",
)

F2 = lies(
    "F2",
    "CA_PROTO_ERROR about commands 60 000, 28 and 65 535",
    "ignored or dropped; the client goes on",
    {
        "60 000": answered("READ_NOTIFY", error(60_000, ECA.INTERNAL)),
        "28": answered("READ_NOTIFY", error(28, ECA.GETFAIL)),
        "65 535": answered("EVENT_ADD", error(65_535, ECA.GETFAIL)),
    },
    needs="hardened",
)

F3 = lies(
    "F3",
    "CA_PROTO_ERROR with a FATAL status (ECA_INTERNAL), with one that there is not, and about a get",
    "logged, or a ServerError; no abort",
    {
        "fatal": answered("EVENT_ADD", error(Command.WRITE, ECA.INTERNAL)),
        "unknown": answered("EVENT_ADD", error(Command.WRITE, 0xFFFF)),
        "of a get": lambda server: server.error(ECA.INTERNAL, "why", command="READ_NOTIFY"),
    },
)

F4 = lies(
    "F4",
    "a put's and a get's reply that carry a subscription's identifier, an update that carries a get's; kinds exchanged",
    "dropped; closing the channel ends, and no other channel suffers",
    {
        "put for update": as_kind("EVENT_ADD", Command.WRITE_NOTIFY),
        "get for update": as_kind("EVENT_ADD", Command.READ_NOTIFY),
        "update for get": as_kind("READ_NOTIFY", Command.EVENT_ADD),
        "put for get": as_kind("READ_NOTIFY", Command.WRITE_NOTIFY),
        "put with subscription's id": with_id_of("WRITE_NOTIFY", "EVENT_ADD"),
        "get with subscription's id": with_id_of("READ_NOTIFY", "EVENT_ADD"),
        "update with get's id": with_id_of("EVENT_ADD", "READ_NOTIFY"),
        "error for update": answered("EVENT_ADD", error(Command.WRITE_NOTIFY, ECA.PUTFAIL)),
    },
    needs="hardened",
)

F5 = lies(
    "F5",
    "replies to a get: longer than asked, of another type than asked, of type 77, with a status, shorter than its type",
    "an error or the right conversion, never memory beyond the reply",
    {
        "longer": reply(DBR.TIME_DOUBLE, 100, 16 + 800),
        "other type": reply(DBR.TIME_LONG, 3, 24),
        "type 77": reply(77, 3, 40),
        "status, no value": reply(DBR.TIME_DOUBLE, 3, 0, ECA.GETFAIL),
        "status and value": reply(DBR.TIME_DOUBLE, 3, 40, ECA.GETFAIL),
        "too short": reply(DBR.CTRL_DOUBLE, 3, 16),
    },
)

F6 = lies(
    "F6",
    "sizes of 4 GB and 0xfffffff8, a size that is no multiple of 8, command 300, native type 60, an error text without "
    "end, 60 kB of it, an oversized name and 65 kB in answers to searches",
    "the circuit is dropped, memory bounded",
    {
        "0xfffffff8": changed(size=0xFFFFFFF8)("READ_NOTIFY"),
        "4 GB": changed(size=0xFFFFFFFF, count=3)("EVENT_ADD"),
        "size 5": changed(size=5)("READ_NOTIFY"),
        "command 300": as_kind("READ_NOTIFY", 300),  # type: ignore[arg-type]
        "native type 60": changed(data_type=60)("CREATE_CHAN"),
        "native count 4 billion": changed(count=0xFFFFFFFF)("CREATE_CHAN"),
        "text without end": answered(
            "EVENT_ADD", error(Command.WRITE, ECA.PUTFAIL, b"A" * 64, whole=False)
        ),
        "60 kB of text": answered("EVENT_ADD", error(Command.WRITE, ECA.PUTFAIL, b"A" * 60_000)),
        "oversized name": answered(
            "SEARCH", lambda request: Frame(Command.SEARCH, payload=b"n" * 1400)
        ),
        "65 kB datagram": answered(
            "SEARCH", lambda request: Frame(Command.NOT_FOUND, payload=b"n" * 65_400)
        ),
    },
    needs="hardened",
)

SEEDS = 100


@scenario(
    "F7",
    how=f"{SEEDS} seeds of the fuzzer (`make fuzz` runs 10 000, under sanitizers)",
    expected="no crash, no hang, nothing left",
    limit=240,
    needs="hardened",
)
def f7(room: Room) -> Figure:
    seeds = SEEDS * (10 if room.long else 1)
    began = time.monotonic()
    package = os.path.dirname(os.path.dirname(os.path.abspath(epicsx.__file__)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", "--seeds", str(seeds), "--batch", str(SEEDS)),
            *("--processes", "1", "--build", package),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1] if done.stdout else done.stderr[-300:]
    assert done.returncode == 0, last
    return Figure(last, seconds=time.monotonic() - began, seeds=seeds)


f7.without_pyepics("the fuzzer's client is written for epicsx")

DB_F8 = """
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10000") field(SCAN, ".1 second") field(TPRO, "0") }
record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") }
record(calc, "$(P)n") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
"""


@scenario(
    "F8",
    how="an IOC's real traffic through a proxy that flips one bit in 10 kB, for 10 s; then without",
    expected="no crash; afterwards every PV is read again",
    limit=60,
    env={"EPICS_CA_CONN_TMO": "2"},
    needs="hardened",
)
def f8(room: Room) -> Figure:
    ioc = room.ioc(DB_F8, seen=False)
    proxy = room.proxy(ioc)
    rule = proxy.corrupt(10_000, seed=8)
    seconds = 60.0 if room.long else 10.0
    end = time.monotonic() + seconds
    reads = failed = 0
    updates: list[Any] = []
    while time.monotonic() < end:
        priority = reads % 90
        try:
            with epicsx.Channel(ioc["w"], priority=priority) as wave:
                wave.subscribe(updates.append)
                for _ in range(20):
                    wave.get(timeout=0.3)
                    wave.put([float(n) for n in range(1000)], timeout=0.3)
                    reads += 1
        except epicsx.CAError:
            failed += 1
    flipped = rule.count
    rule.cancel()
    began = time.monotonic()
    with epicsx.Channel(ioc["x"]) as channel:
        assert channel.get(timeout=20.0).value == 3
    back = time.monotonic() - began
    assert flipped > 10, f"only {flipped} frames were changed"
    return Figure(
        f"{flipped} frames changed; of {reads + failed} reads {failed} failed, {len(updates)} updates; "
        f"{proxy.connections} connections; read again after {back:.1f} s",
        flipped=flipped,
        failed=failed,
        seconds=back,
    )


@f8.pyepics
def f8_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_F8, seen=False)
    proxy = room.proxy(ioc)
    rule = proxy.corrupt(10_000, seed=8)
    end = time.monotonic() + 10.0
    reads = failed = 0
    updates: list[Any] = []
    while time.monotonic() < end:
        pv = epics.PV(
            ioc["w"], callback=lambda value, **_: updates.append(value), auto_monitor=True
        )
        for _ in range(20):
            reads += 1
            failed += pv.get(timeout=0.3, use_monitor=False) is None
            pv.put([float(n) for n in range(1000)])
        pv.disconnect()
    flipped = rule.count
    rule.cancel()
    began = time.monotonic()
    room.check(epics.caget(ioc["x"], timeout=20.0) == 3, "the PV is not read any more")
    return Figure(
        f"{flipped} frames changed; of {reads} reads {failed} failed, {len(updates)} updates; read again after "
        f"{time.monotonic() - began:.1f} s",
        flipped=flipped,
        failed=failed,
    )
