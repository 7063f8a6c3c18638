"""`epicsx.testing.FakeServer`: its frames beside a real IOC's, its verbs by what clients see of them."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support import run_python, threads_settle, wait_until

import epicsx
from epicsx import _dbr, _wire
from epicsx.enums import DBR, ECA, Access, Severity, Status
from epicsx.testing import Command, FakePV, FakeServer, Frame, SoftIOC, free_port
from epicsx.testing.ports import LOOPBACK

if TYPE_CHECKING:
    from typing_extensions import Self

REPEATER = int(os.environ["EPICS_CA_REPEATER_PORT"])
PORT = int(os.environ["EPICS_CA_ADDR_LIST"].split()[2].rpartition(":")[2])
FRAME = Frame(Command.ECHO, parameter1=7)
# of an answer to READ_NOTIFY: its identifiers, its payload
ASKED, SEVEN, NONE = "00000001 00000063", "00000007 00000000", "0000"


class Raw:
    """A client in the plainest terms: a socket and frames."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), 10.0)
        self.parser = _wire.Parser()
        self.waiting: list[Frame] = []

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(frame.encode() for frame in frames))

    def frame(self, command: Command) -> Frame:
        """The next frame of that command, or an error."""
        while True:
            for at, frame in enumerate(self.waiting):
                if frame.command in (command, Command.ERROR):
                    del self.waiting[: at + 1]
                    return frame
            self.waiting.clear()
            data = self.socket.recv(1 << 16)
            assert data, "the connection ended"
            self.waiting += [frame for frame, _ in self.parser.feed(data)]

    def opened(self, name: str, cid: int = 1) -> Frame:
        self.send(_wire.create_channel(name.encode(), cid))
        return self.frame(Command.CREATE_CHAN)

    def read(self, sid: int, data_type: int, count: int = 0) -> Frame:
        self.send(_wire.read_notify(data_type, count, sid, 99))
        return self.frame(Command.READ_NOTIFY)

    def bytes(self) -> bytes:
        """What comes until the end of the connection."""
        got = b""
        while True:
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                return got
            got += more

    def ending(self) -> tuple[int, str]:
        """How many bytes come until the end of the connection, and what that is."""
        self.socket.settimeout(20.0)
        got = 0
        try:
            while more := self.socket.recv(1 << 16):
                got += len(more)
        except ConnectionResetError:
            return got, "reset"
        return got, "end"

    def __enter__(self) -> Self:
        self.send(_wire.version())
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, Any]], FakeServer]]:
    """Give a function that serves PVs to the clients of this process."""
    started: list[FakeServer] = []

    def start(pvs: dict[str, Any]) -> FakeServer:
        started.append(FakeServer(pvs, port=PORT, repeater_port=REPEATER).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def server(serve: Serve) -> FakeServer:
    return serve({"fake:x": 1.5, "fake:w": [1.0, 2.0, 3.0], "fake:l": 7})


@pytest.fixture
def x(server: FakeServer) -> Iterator[epicsx.Channel]:
    with epicsx.Channel("fake:x") as channel:
        yield channel.connect(10.0)


Serve = Callable[[dict[str, Any]], FakeServer]


# ---- without scripts: what a real IOC sends, byte for byte

DB = """
record(ao, "$(P)double") { field(VAL, "1.5") field(PINI, "YES") field(PREC, "1") field(EGU, "mm")
  field(HOPR, "9") field(LOPR, "-4") field(HIHI, "9") field(HIGH, "9") field(LOW, "-4") field(LOLO, "-4")
  field(HHSV, "MAJOR") field(HSV, "MINOR") field(LSV, "MINOR") field(LLSV, "MAJOR")
  field(DRVH, "9") field(DRVL, "-4") }
record(longout, "$(P)long") { field(VAL, "7") field(PINI, "YES") field(EGU, "counts")
  field(HOPR, "9") field(LOPR, "-4") field(HIHI, "9") field(HIGH, "9") field(LOW, "-4") field(LOLO, "-4")
  field(HHSV, "MAJOR") field(HSV, "MINOR") field(LSV, "MINOR") field(LLSV, "MAJOR")
  field(DRVH, "9") field(DRVL, "-4") }
record(mbbo, "$(P)enum") { field(VAL, "1") field(PINI, "YES") field(ZRST, "Off") field(ONST, "On") field(TWST, "Auto") }
record(stringout, "$(P)string") { field(VAL, "12") field(PINI, "YES") }
record(waveform, "$(P)char") { field(FTVL, "CHAR") field(NELM, "5") field(INP, [1, 2, 25]) }
record(waveform, "$(P)float") { field(FTVL, "FLOAT") field(NELM, "4") field(INP, [1, 2]) field(PREC, "0") }
record(waveform, "$(P)short") { field(FTVL, "SHORT") field(NELM, "4") field(INP, [1, 2]) }
"""
LIMITS = (-4.0, 9.0)
SAME: dict[str, FakePV] = {
    "double": FakePV(1.5, units="mm", precision=1, limits=LIMITS),
    "long": FakePV(7, units="counts", limits=LIMITS),
    "enum": FakePV(1, states=["Off", "On", "Auto"]),
    "string": FakePV("12"),
    "char": FakePV(bytes([1, 2, 25]), size=5),
    "float": FakePV([1.0, 2.0], type=DBR.FLOAT, size=4, precision=0),
    "short": FakePV([1, 2], type=DBR.SHORT, size=4),
}
# The IOC has no limits for graphics of these, and says NaN or the type's; and other words for a number of a CHAR.
NO_LIMITS = {"char", "float", "short", "string", "enum"}


@pytest.fixture(scope="module")
def real() -> Iterator[SoftIOC]:
    with SoftIOC(DB, repeater_port=REPEATER) as ioc:
        yield ioc


@pytest.fixture(scope="module")
def same(real: SoftIOC) -> Iterator[FakeServer]:
    """Give a fake server with the PVs of the real one."""
    pvs = {real[name]: pv for name, pv in SAME.items()}
    with FakeServer(pvs, repeater_port=REPEATER) as server:
        yield server


# Bytes of a head that an IOC leaves as they were, by type (dbr_sts_char and so on in db_access.h): first, and behind.
UNUSED = {
    DBR.STS_CHAR: (4, 5),
    DBR.STS_DOUBLE: (4, 8),
    DBR.TIME_SHORT: (12, 14),
    DBR.TIME_ENUM: (12, 14),
    DBR.TIME_CHAR: (12, 15),
    DBR.TIME_DOUBLE: (12, 16),
    DBR.GR_FLOAT: (6, 8),
    DBR.GR_DOUBLE: (6, 8),
    DBR.GR_CHAR: (18, 19),
    DBR.CTRL_FLOAT: (6, 8),
    DBR.CTRL_DOUBLE: (6, 8),
    DBR.CTRL_CHAR: (20, 21),
}


def without_rests(data_type: int, payload: bytes | bytearray) -> bytes:
    """A payload without what an IOC leaves where nothing is to be read: between fields, behind the NUL of a text."""
    if data_type % 7 != DBR.STRING:
        first, behind = UNUSED.get(DBR(data_type), (0, 0))
        return bytes(payload[:first] + payload[behind:])
    head = {0: 0, 2: 12}.get(data_type // 7, 4)
    texts = [payload[at : at + 40] for at in range(head, len(payload) - 39, 40)]
    return bytes(payload[:head]) + b"|".join(text.split(b"\0")[0] for text in texts)


@pytest.mark.parametrize("name", SAME)
def test_its_frames_are_those_of_an_ioc(real: SoftIOC, same: FakeServer, name: str) -> None:
    compared = 0
    with Raw(real.server_port) as theirs, Raw(same.port) as ours:
        rows = [client.opened(real[name]) for client in (theirs, ours)]
        assert (rows[0].data_type, rows[0].count) == (rows[1].data_type, rows[1].count)
        sids = [row.parameter2 for row in rows]
        stamp = theirs.read(sids[0], DBR.TIME_LONG if name != "string" else DBR.TIME_STRING)
        seconds, nanoseconds = (int.from_bytes(stamp.payload[at : at + 4], "big") for at in (4, 8))
        alarm = stamp.payload[1], stamp.payload[3]
        same.post(real[name], status=Status(alarm[0]), severity=Severity(alarm[1]))
        for data_type in range(35):
            if name in NO_LIMITS and data_type >= DBR.GR_STRING and data_type % 7 != DBR.ENUM:
                continue
            for count in (0, 1):  # beyond what there is, an IOC leaves anything
                want = theirs.read(sids[0], data_type, count)
                got = ours.read(sids[1], data_type, count)
                if want.parameter1 != ECA.NORMAL:  # text as a state, which a record judges
                    continue
                payload = bytearray(got.payload)
                if data_type // 7 == 2:
                    payload[4:12] = seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
                assert (got.count, got.parameter1) == (want.count, want.parameter1)
                size = _dbr.nbytes(data_type, want.count)
                sent = [without_rests(data_type, each[:size]) for each in (payload, want.payload)]
                assert sent[0] == sent[1], (DBR(data_type).name, count)
                compared += 1
    assert compared > 30


def test_a_stamp_is_unix_time(serve: Serve) -> None:
    serve({"fake:t": FakePV(1, timestamp=1_700_000_000.25, severity=Severity.MINOR)})
    with epicsx.Channel("fake:t") as channel:
        sample = channel.get()
        assert sample.timestamp_ns == 1_700_000_000_250_000_000 and sample.severity == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"x": None}, "x: say the type"),
        ({"x": FakePV}, "x: say the type"),
        ({"": 1.0}, "a PV's name"),
        ({"x": "a" * 40}, "x: a text of at most 39 bytes"),
        ({"x": 1 << 40}, "x: a number from"),
    ],
)
def test_a_pv_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FakeServer(given)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ([1, 2], {"size": 1}),
        (1, {"size": 0}),
        (1, {"type": DBR.TIME_LONG}),
        ([], {"type": DBR.LONG}),
    ],
)
def test_a_fake_pv_that_cannot_be(value: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"element|native type"):
        FakePV(value, **options)


def test_values_and_updates(server: FakeServer, x: epicsx.Channel) -> None:
    got: list[tuple[float, int]] = []
    with x.subscribe(lambda sample: got.append((sample.value, sample.severity))):
        wait_until(lambda: got == [(1.5, 0)])
        x.put(2.5, wait=True)
        assert server.post("fake:x", 3.5, severity=Severity.MAJOR) == 1
        assert server.post("fake:x", severity=Severity.NO_ALARM) == 1
        wait_until(lambda: len(got) == 4)
    assert got == [(1.5, 0), (2.5, 0), (3.5, 2), (3.5, 0)]
    assert (server["fake:x"], server.puts) == (3.5, [("fake:x", 2.5)])
    with pytest.raises(KeyError):
        server.post("fake:none", 1)
    with pytest.raises(ValueError, match="4 elements, where 3"):
        server.post("fake:w", [1, 2, 3, 4])
    with pytest.raises(ValueError, match="severity"):
        server.post("fake:x", severety=1)
    wait_until(lambda: server.subscriptions == 0)


def test_control_is_told_of_changes_of_it_alone(serve: Serve) -> None:
    server = serve({"fake:c": FakePV(1.5, units="mm")})
    with epicsx.Channel("fake:c") as channel:
        assert channel.control().units == "mm"
        assert server.post("fake:c", 2.5) == 0
        assert server.post("fake:c", units="m") == 1
        wait_until(lambda: channel.control().units == "m")


def test_access(server: FakeServer, x: epicsx.Channel) -> None:
    rights: list[tuple[bool, bool]] = []
    x.on_access(lambda channel, read, write: rights.append((read, write)))
    server.set_access("fake:x", Access.READ)
    wait_until(lambda: rights == [(True, True), (True, False)])
    with pytest.raises(epicsx.AccessError):
        x.put(1.0)
    with pytest.raises(KeyError):
        server.set_access("fake:none", Access.READ)


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (Frame(Command.READ_NOTIFY, DBR.LONG, 1, 1000, 5), ECA.BADCHID),
        (Frame(Command.READ_NOTIFY, 77, 1, 1, 5), ECA.BADTYPE),
        (Frame(Command.READ_NOTIFY, DBR.LONG, 4, 1, 5), ECA.BADCOUNT),
        (Frame(Command.WRITE_NOTIFY, DBR.STRING, 1, 1, 5, b"word"), ECA.PUTFAIL),
        (Frame(Command.WRITE_NOTIFY, DBR.DOUBLE, 2, 1, 5, b"12345678"), ECA.BADCOUNT),
        (Frame(Command.WRITE_NOTIFY, DBR.TIME_DOUBLE, 1, 1, 5, bytes(24)), ECA.BADTYPE),
        (Frame(Command.EVENT_ADD, 77, 1, 1, 5, bytes(16)), ECA.BADTYPE),
    ],
    ids=lambda value: f"{value.command}" if isinstance(value, Frame) else value.name,
)
def test_what_it_refuses(frame: Frame, status: ECA) -> None:
    with (
        FakeServer({"w": [1.0, 2.0, 3.0]}, repeater_port=REPEATER) as server,
        Raw(server.port) as raw,
    ):
        assert raw.opened("w").parameter2 == 1
        raw.send(frame)
        answer = raw.frame(Command(frame.command))
        assert (answer.command, answer.parameter1, answer.parameter2) == (frame.command, status, 5)
        raw.send(Frame(Command.WRITE, DBR.STRING, 1, 1, 6, b"word"))
        error = raw.frame(Command.ERROR)
        assert (error.parameter1, error.parameter2) == (1, ECA.PUTFAIL)
        assert error.payload[:2] == bytes([0, Command.WRITE]) and b"PUTFAIL\0" in error.payload
        raw.send(_wire.create_channel(b"none", 3))
        assert raw.frame(Command.CREATE_CH_FAIL).parameter1 == 3


def test_other_clients() -> None:
    pvs = {"x": 1.5, "t": "text", "e": FakePV(1, states=["Off", "On"])}
    with FakeServer(pvs, repeater_port=REPEATER) as server:
        pytest.importorskip("epics", reason="pyepics is a development dependency")
        result = run_python(
            """
            import epics
            print(epics.caget("x"), epics.caget("t"), epics.caget("e", as_string=True))
            print(epics.caput("x", 2.5, wait=True))
            print(epics.PV("e").get_ctrlvars(timeout=5)["enum_strs"])
            """,
            env=server.env,
        )
        assert result.stdout.splitlines() == ["1.5 text On", "1", "('Off', 'On')"]
        script = (
            "import sys\nfrom epicsx.cli import main\nsys.exit(main(['get', '-w', '30', 'x', 'e']))"
        )
        assert run_python(script, env=server.env).stdout.split() == ["x", "2.5", "e", "On"]
        assert server.puts == [("x", 2.5)]


# ---- verbs


def test_a_script_sees_the_request_and_the_answer(server: FakeServer, x: epicsx.Channel) -> None:
    seen: list[Any] = []

    def script(request: Any) -> Any:
        seen.append(request)
        (frame,) = request.answer
        return [Frame(15, DBR.TIME_DOUBLE, 1, 1, frame.parameter2, frame.payload[:16] + bytes(8))]

    with server.answer(script, command="READ_NOTIFY", channel="fake:*", count=1) as rule:
        assert x.get().value == 0.0
        assert x.get().value == 1.5
        assert (rule.matched, rule.count) == (2, 1)
    assert x.get().value == 1.5 and (rule.matched, rule.count) == (2, 1)
    (request,) = seen
    assert (request.command, request.channel, request.frame.data_type) == (
        "READ_NOTIFY",
        "fake:x",
        DBR.TIME_DOUBLE,
    )
    assert request.circuit > 0 and request.time <= time.monotonic()


def test_a_script_that_fails_is_logged(
    server: FakeServer, x: epicsx.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "epicsx"):
        scripts: list[Any] = [lambda request: 1 / 0, lambda request: "text", lambda request: [None]]
        for script in scripts:
            with server.answer(script, command="READ_NOTIFY"):
                assert x.get().value == 1.5
    assert len([r for r in caplog.records if "script of the fake server" in r.message]) == 3


def test_verbs_act_in_their_order_and_reset_ends_them(
    server: FakeServer, x: epicsx.Channel
) -> None:
    server.error(ECA.GETFAIL, "no", command="READ_NOTIFY", nth=2)
    server.drop(command="READ_NOTIFY", where=lambda request: request.frame.data_type % 7 == 0)
    assert x.get().value == 1.5
    with pytest.raises(epicsx.ServerError):
        x.get(timeout=5.0)
    with pytest.raises(epicsx.CATimeoutError):
        x.get(dtype=str, timeout=0.1)
    server.reset()
    assert x.get(dtype=str).value == "1.5"


def test_an_error_of_a_put(server: FakeServer, x: epicsx.Channel) -> None:
    server.error(ECA.PUTFAIL, b"why", command="WRITE_NOTIFY")
    with pytest.raises(epicsx.PutError) as info:
        x.put(2.5, wait=True)
    assert info.value.status == ECA.PUTFAIL


def test_delay(server: FakeServer, x: epicsx.Channel) -> None:
    with server.delay(0.2, command="READ_NOTIFY"):
        began = time.monotonic()
        assert x.get().value == 1.5
        assert time.monotonic() - began >= 0.2


def test_cut(server: FakeServer, x: epicsx.Channel) -> None:
    assert server.circuits >= 1
    with server.cut(10, command="READ_NOTIFY"), pytest.raises(epicsx.DisconnectedError):
        x.get(timeout=10.0)
    x.close()  # or it comes back, at any moment
    wait_until(lambda: server.circuits == 0)
    with Raw(server.port) as raw:
        raw.opened("fake:x")
        assert server.cut().count == 1
        assert raw.bytes() == b""
    wait_until(lambda: server.circuits == 0)
    assert server.connections >= 2


@pytest.mark.parametrize(
    ("verb", "arguments", "sent"),
    [
        (
            "corrupt",
            [{"count": 70_000}],
            "000fffff0005" + NONE + ASKED + "00000008 00011170 00000007 00000000",
        ),
        ("corrupt", [{"size": 4, "command": 300}], "012c0004 00050001" + ASKED + SEVEN),
        (
            "corrupt",
            [{"data_type": 77, "parameter1": 5, "parameter2": 6}],
            "000f0008 004d0001 00000005 00000006" + SEVEN,
        ),
        ("halve", [], "000f0008 00050001 00000001"),
        ("halve", [3], "000f00"),
        ("drop", [], ""),
        ("answer", [b"garbage"], b"garbage".hex()),
        ("answer", [[b"a", 0.05, FRAME]], (b"a" + FRAME.encode()).hex()),
        (
            "error",
            [61_000, "what"],
            "000b0018 00000000 00000001 0000ee48 000f0000 00050001" + ASKED + "77686174 00000000",
        ),
        ("cut", [4], "000f0008"),
    ],
    ids=["count", "size", "type", "half", "three", "nothing", "garbage", "pause", "error", "cut"],
)
def test_the_bytes_of_a_verb(verb: str, arguments: list[Any], sent: str) -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server, Raw(server.port) as raw:
        raw.opened("l")
        getattr(server, verb)(*arguments, command="READ_NOTIFY")
        raw.send(_wire.read_notify(DBR.LONG, 1, 1, 0x63), Frame(Command.ECHO))
        if verb == "cut":
            assert raw.bytes() == bytes.fromhex(sent)
            return
        server.wait_for(command="ECHO")
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.bytes() == bytes.fromhex(sent) + Frame(Command.ECHO).encode()


def test_the_last_frame_of_an_answer_is_corrupted() -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server, Raw(server.port) as raw:
        server.corrupt({"data_type": 60}, command="CREATE_CHAN")
        assert raw.opened("l").data_type == 60


def test_what_nobody_asked_for(server: FakeServer) -> None:
    with Raw(server.port) as one, Raw(server.port) as two:
        one.opened("fake:l")
        two.opened("fake:l")
        assert server.send(FRAME) >= 2
        assert one.frame(Command.ECHO) == two.frame(Command.ECHO) == FRAME
        assert server.send(b"x", circuit=10_000) == 0


def test_searches_are_answered_by_what_the_script_says(serve: Serve) -> None:
    server = serve({"fake:x": 1.5})
    with FakeServer({"fake:y": 2.5}, repeater_port=REPEATER) as other:

        def elsewhere(request: Any) -> Any:
            return [_wire.search_reply(request.frame.parameter2, other.port)]

        server.answer(elsewhere, command="SEARCH", channel="fake:y")
        with epicsx.Channel("fake:y") as channel:
            assert channel.get(timeout=10.0).value == 2.5
            assert channel.host.endswith(f":{other.port}")


def test_as_a_name_server() -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server, Raw(server.port) as raw:
        raw.send(_wire.search(b"l", 5, reply=True), _wire.search(b"none", 6, reply=True))
        found = raw.frame(Command.SEARCH)
        assert (found.data_type, found.parameter2) == (server.port, 5)
        assert raw.frame(Command.NOT_FOUND).parameter2 == 6


def test_events_off_holds_updates_back_and_merges_them() -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server, Raw(server.port) as raw:
        raw.opened("l")
        mask = bytes(12) + b"\0\1\0\0"
        raw.send(Frame(Command.EVENT_ADD, DBR.LONG, 1, 1, 5, mask), Frame(Command.EVENTS_OFF))
        assert raw.frame(Command.EVENT_ADD).payload[:4] == b"\0\0\0\7"
        server.wait_for(command="EVENTS_OFF")
        server.post("l", 8)
        server.post("l", 9)
        raw.send(Frame(Command.EVENTS_ON))
        assert raw.frame(Command.EVENT_ADD).payload[:4] == b"\0\0\0\x09"
        raw.send(Frame(Command.EVENT_CANCEL, DBR.LONG, 1, 1, 5))
        assert raw.frame(Command.EVENT_ADD).payload == b""
        assert server.subscriptions == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.corrupt({"payload": 1}),
        lambda server: server.corrupt({"count": -1}),
        lambda server: server.corrupt({"command": 65_536}),
        lambda server: server.error(-1),
        lambda server: server.delay(0),
        lambda server: server.halve(-1),
        lambda server: server.cut(-1),
        lambda server: server.drop(command="NONE"),
        lambda server: server.drop(nth=0),
        lambda server: server.drop(count=0),
        lambda server: server.answer([-1.0]),
    ],
)
def test_a_verb_that_makes_no_sense(server: FakeServer, call: Callable[[FakeServer], Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        call(server)


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.drop(direction="to_client"),
        lambda server: server.drop(channel=1),
        lambda server: server.drop(where=1),
        lambda server: server.answer(None),
        lambda server: server.answer("text"),
    ],
)
def test_a_verb_of_the_wrong_kind(server: FakeServer, call: Callable[[FakeServer], Any]) -> None:
    with pytest.raises(TypeError):
        call(server)


# ---- clients that do not read

MUCH = 32 << 20  # bytes, more than the kernel holds for a client that does not read


@pytest.fixture
def stuck() -> Iterator[tuple[FakeServer, Raw]]:
    """Give a server and a client, which will ask for much and read nothing of it, or late."""
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server, Raw(server.port) as raw:
        raw.opened("l")
        server.answer(bytes(MUCH), command="READ_NOTIFY")
        yield server, raw


def ask(server: FakeServer, raw: Raw) -> None:
    raw.send(_wire.read_notify(DBR.LONG, 1, 1, 99))
    server.wait_for(command="READ_NOTIFY")


def test_stop_resets_a_client_that_does_not_read(stuck: tuple[FakeServer, Raw]) -> None:
    server, raw = stuck
    ask(server, raw)
    before = set(threading.enumerate())
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5.0
    # others of before may end meanwhile, too
    ended = before - set(threading.enumerate())
    assert [t.name for t in ended if t.name.startswith("FakeServer")] == [
        f"FakeServer {server.port}"
    ]
    got, how = raw.ending()
    assert got < MUCH and how == "reset"


def test_cut_now_resets_a_client_that_does_not_read(stuck: tuple[FakeServer, Raw]) -> None:
    server, raw = stuck
    ask(server, raw)
    assert server.cut().count == 1
    wait_until(lambda: server.circuits == 0)
    got, how = raw.ending()
    assert got < MUCH and how == "reset"


def test_cut_waits_until_its_bytes_are_sent_and_resets(stuck: tuple[FakeServer, Raw]) -> None:
    server, raw = stuck
    rule = server.cut(MUCH - 5, command="READ_NOTIFY")
    ask(server, raw)
    assert (server.circuits, rule.count) == (1, 1)
    assert raw.ending() == (MUCH - 5, "reset")
    wait_until(lambda: server.circuits == 0)


def test_stop_does_not_wait_for_a_cut(stuck: tuple[FakeServer, Raw]) -> None:
    server, raw = stuck
    server.cut(MUCH - 5, command="READ_NOTIFY")
    ask(server, raw)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5.0
    assert raw.ending()[1] == "reset"


# ---- its log, its life


def test_the_log_keeps_the_beginnings_of_payloads(serve: Serve) -> None:
    server = serve({"fake:big": [1.5] * 10_000})
    whole: list[int] = []
    server.answer(lambda request: whole.append(len(request.answer[0].payload)), command="EVENT_ADD")
    came: list[float] = []
    with (
        epicsx.Channel("fake:big") as channel,
        channel.subscribe(lambda sample: came.append(sample.value[0])),
    ):
        # the first, the three posted, and that of the put; each is awaited, as libca has the server hold back what
        # comes faster than it reads
        wait_until(lambda: len(came) == 1)
        for number in range(2, 5):
            server.post("fake:big")
            wait_until(lambda: len(came) == number)  # noqa: B023
        channel.put([2.5] * 10_000, wait=True)
        wait_until(lambda: came == [1.5] * 4 + [2.5])
        assert server.seen(command="EVENT_ADD") == 5
    assert whole == [80_016] * 5
    frames = [frame for each in server.requests for frame in (each.frame, *each.answer)]
    assert max(len(frame.payload) for frame in frames) == 64
    assert [frame.size for frame in frames].count(80_016) == 5
    (put,) = [each.frame for each in server.requests if each.command == "WRITE_NOTIFY"]
    assert put.size == 80_000 and put.payload == 8 * (b"\x40\x04" + bytes(6))


def test_the_log_is_bounded_and_what_was_seen_is_not() -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server, Raw(server.port) as raw:
        raw.send(*(Frame(Command.ECHO, parameter1=n) for n in range(10_500)))
        server.wait_for(10_500, command="ECHO")
        kept = server.requests
        assert (len(kept), kept[-1].frame.parameter1) == (10_000, 10_499)
        assert server.seen(command="ECHO") == 10_500


def test_stop_frees_the_log() -> None:
    server = FakeServer({"l": 7}, repeater_port=REPEATER)
    with server, Raw(server.port) as raw:
        raw.opened("l")
        kept = [weakref.ref(each) for each in server.requests]
    wait_until(lambda: gc.collect() >= 0 and not any(each() for each in kept))
    assert kept and not server.running


def test_nothing_is_taken_back_of_a_server_that_has_ended() -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server:
        script = server.drop(command="READ_NOTIFY")
        with server.drop(command="ECHO") as other:
            server.stop()
    script.cancel()
    other.cancel()
    assert (script.count, other.count) == (0, 0)


def test_who_calls_while_it_ends_is_told() -> None:
    with FakeServer({"l": 7}, repeater_port=REPEATER) as server:
        told: list[str] = []
        posted = threading.Event()

        def post() -> None:
            try:
                while True:
                    server.post("l", 1)
                    posted.set()
            except RuntimeError as error:
                told.append(str(error))

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert posted.wait(10.0)
        server.stop()
        for thread in threads:
            thread.join(10.0)
    assert told == ["the fake server does not run"] * 4


def test_the_log(server: FakeServer, x: epicsx.Channel) -> None:
    x.get()
    server.wait_for(command="READ_NOTIFY", channel="fake:x")
    assert server.seen(command=["READ_NOTIFY"], channel="fake:*") == 1
    assert [each.command for each in server.requests].count("CREATE_CHAN") == 1
    with pytest.raises(TimeoutError, match="0, not 1 of ECHO of fake:x within"):
        server.wait_for(timeout=0.05, command="ECHO", channel="fake:x")


def test_a_script_may_use_the_server(server: FakeServer, x: epicsx.Channel) -> None:
    def script(request: Any) -> None:
        server.post("fake:x", 9.5)

    server.answer(script, command="READ_NOTIFY")
    x.get()
    wait_until(lambda: x.get().value == 9.5)


def test_it_ends_and_begins_again() -> None:
    before = set(threading.enumerate())
    server = FakeServer({"l": 7}, repeater_port=REPEATER)
    for method in (server.reset, server.cut, lambda: server.post("l", 1), lambda: server.requests):
        with pytest.raises(RuntimeError, match="does not run"):
            method()
    for _ in range(2):
        with server, Raw(server.port) as raw:
            assert server.running
            with pytest.raises(RuntimeError, match="runs already"):
                server.start()
            raw.opened("l")
            server.drop()
            server.stop()
            assert raw.bytes() == b""
        assert not server.running
    threads_settle(before)


def test_a_server_that_is_forgotten_ends() -> None:
    before = set(threading.enumerate())
    server = FakeServer({"l": 7}, repeater_port=REPEATER).start()
    server.error(ECA.GETFAIL, command="READ_NOTIFY")
    del server
    gc.collect()
    threads_settle(before)


def test_a_port_that_is_taken() -> None:
    with FakeServer({}, repeater_port=REPEATER) as server:
        other = FakeServer({}, port=server.port, repeater_port=REPEATER)
        with pytest.raises(OSError, match=r"address already in use|error while attempting to bind"):
            other.start()
        assert not other.running
    for port in (80, 70_000):
        with pytest.raises(ValueError, match="port"):
            FakeServer({}, port=port)


def test_it_brings_a_repeater() -> None:
    with FakeServer({"l": 7}, port=free_port()) as server:
        assert server.env["EPICS_CA_REPEATER_PORT"] == str(server.repeater_port)
        script = "import epicsx\nprint(epicsx.Channel('l').get().value)"
        assert run_python(script, env=server.env).stdout == "7\n"
