"""`epicsx.testing.CAProxy`: each verb, by what a client of a real IOC behind it sees."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import run_python, start_python, threads_settle, wait_until

import epicsx
from epicsx import _wire
from epicsx.enums import DBR, ECA
from epicsx.testing import CAProxy, Command, Frame, ProxyError, SoftIOC, free_port
from epicsx.testing.ports import LOOPBACK

if TYPE_CHECKING:
    from typing_extensions import Self

DB = """
record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") }
record(ao, "$(P)y") { field(VAL, "4") field(PINI, "YES") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "1000000") }
"""
COUNT = 1_000_000
NUMBERS = np.arange(COUNT, dtype=np.float64)

ANSWER: Any = {"command": "READ_NOTIFY", "direction": "to_client"}


@pytest.fixture(scope="module")
def hidden() -> Iterator[SoftIOC]:
    """Give an IOC on a port that no client of this process searches."""
    with SoftIOC(DB, repeater_port=int(os.environ["EPICS_CA_REPEATER_PORT"])) as ioc:
        yield ioc


@pytest.fixture(scope="module")
def one(hidden: SoftIOC) -> Iterator[CAProxy]:
    """Give a proxy of it on a port that they do search."""
    port = int(os.environ["EPICS_CA_ADDR_LIST"].split()[1].rpartition(":")[2])
    with CAProxy(
        hidden.server_port, port=port, repeater_port=int(os.environ["EPICS_CA_REPEATER_PORT"])
    ) as proxy:
        yield proxy


@pytest.fixture
def proxy(one: CAProxy) -> Iterator[CAProxy]:
    """Give the proxy without rules and log; afterwards nobody is connected to it any more."""
    one.clear_log()
    yield one
    one.reset()
    gc.collect()
    wait_until(lambda: one.circuits == 0, message="the proxy's circuits end with their clients")


@pytest.fixture
def connect(proxy: CAProxy, hidden: SoftIOC) -> Iterator[Callable[[str], epicsx.Channel]]:
    """Give a function that connects a channel to a record of the IOC, through the proxy."""
    made: list[epicsx.Channel] = []

    def channel(name: str) -> epicsx.Channel:
        made.append(epicsx.Channel(hidden[name]))
        return made[-1].connect(20.0)

    yield channel
    for each in made:
        each.close()


Connect = Callable[[str], epicsx.Channel]


class Raw:
    """A client in the plainest terms: a socket and frames."""

    def __init__(self, port: int, window: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(10.0)
        if window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        try:
            self.socket.connect((LOOPBACK, port))
        except OSError:
            self.socket.close()
            raise
        self.parser = _wire.Parser()
        self.send(_wire.version())

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(frame.encode() for frame in frames))

    def bytes(self, size: int) -> bytes:
        got = b""
        while len(got) < size and (more := self.socket.recv(size - len(got))):
            got += more
        return got

    def frame(self, command: Command) -> Frame:
        """The next frame of that command."""
        while True:
            data = self.socket.recv(1 << 16)
            assert data, "the connection ended"
            for frame, _ in self.parser.feed(data):
                if frame.command == command:
                    return frame

    def ended(self) -> bool:
        """Whether the server's end comes, by a plain close."""
        while data := self.socket.recv(1 << 16):
            del data
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


# ---- nothing asked for


def test_it_forwards_everything_and_tells_what(
    proxy: CAProxy, hidden: SoftIOC, connect: Connect
) -> None:
    x, w = connect("x"), connect("w")
    assert x.host.endswith(f":{proxy.port}")
    x.put(2.5, wait=True)
    assert hidden.read("x") == "2.5"
    w.put(NUMBERS, wait=True)
    np.testing.assert_array_equal(w.get().value, NUMBERS)
    got: list[float] = []
    with x.subscribe(lambda sample: got.append(sample.value)):
        wait_until(lambda: got == [2.5])
        hidden.write("x", 3)
        wait_until(lambda: got == [2.5, 3.0])
    assert (proxy.circuits, proxy.port != hidden.server_port) == (1, True)

    name = hidden["x"]
    found = [
        (each.direction, each.command)
        for each in proxy.log
        if each.channel == name and each.command != "SEARCH"
    ]
    proxy.wait_for(command="EVENT_CANCEL", direction="to_server", channel=name)
    assert found[:7] == [
        ("to_server", "CREATE_CHAN"),
        ("to_client", "ACCESS_RIGHTS"),
        ("to_client", "CREATE_CHAN"),
        ("to_server", "WRITE_NOTIFY"),
        ("to_client", "WRITE_NOTIFY"),
        ("to_server", "EVENT_ADD"),
        ("to_client", "EVENT_ADD"),
    ]
    answers = [
        each.frame.data_type
        for each in proxy.log
        if (each.command, each.circuit, each.direction) == ("SEARCH", 0, "to_client")
    ]
    assert answers and set(answers) == {proxy.port}
    (big,) = (
        each
        for each in proxy.log
        if each.command == "WRITE_NOTIFY" and each.channel == hidden["w"] and each.frame.size
    )
    assert (big.frame.count, big.frame.size, len(big.frame.payload)) == (COUNT, 8 * COUNT, 64)
    assert hidden["w"] in str(big) and "WRITE_NOTIFY" in str(big)
    # the server's answer to the last of them may still be on its way
    wait_until(lambda: proxy.seen(fate="") == len(proxy.log))
    assert proxy.clear_log() and proxy.seen() < 10


def test_a_name_that_nobody_has(proxy: CAProxy, hidden: SoftIOC) -> None:
    with epicsx.Channel(hidden["nobody"]) as channel:
        with pytest.raises(epicsx.CATimeoutError):
            channel.connect(0.5)
        proxy.wait_for(command="SEARCH", direction="to_server", channel=hidden["nobody"])
    assert not proxy.seen(direction="to_client", channel=hidden["nobody"])


def test_as_a_name_server(proxy: CAProxy, hidden: SoftIOC) -> None:
    env = {
        "EPICS_CA_ADDR_LIST": "",
        "EPICS_CA_NAME_SERVERS": f"{LOOPBACK}:{proxy.port}",
        "EPICS_CA_SERVER_PORT": str(free_port()),
    }
    script = """
        import sys, epicsx
        channel = epicsx.Channel(sys.argv[1]).connect(20.0)
        print(channel.get().value, channel.host)
    """
    hidden.write("y", 4)
    result = run_python(script, hidden["y"], env=env)
    assert result.stdout.split()[0] == "4.0"
    assert result.stdout.strip().endswith(f":{proxy.port}")
    assert proxy.seen(command="SEARCH", channel=hidden["y"])
    with Raw(proxy.port) as raw:
        raw.send(_wire.search(hidden["y"].encode(), 5, reply=True))
        answer = raw.frame(Command.SEARCH)
        assert (answer.data_type, answer.parameter1) == (proxy.port, _wire.SAME_ADDRESS)
        assert answer.parameter2 == 5


# ---- connections


def test_cut_ends_what_waits(proxy: CAProxy, connect: Connect) -> None:
    x = connect("x")
    lost: list[bool] = []
    x.on_connection(lambda channel, connected: lost.append(connected))
    proxy.stall("to_client")
    request = x.get_async(timeout=30.0)
    proxy.wait_for(direction="to_server", command="READ_NOTIFY")
    done = proxy.cut()
    assert (done.count, done.matched) == (1, 1)
    with pytest.raises(epicsx.DisconnectedError):
        request.result(20.0)
    wait_until(lambda: False in lost)
    x.close()  # or it comes back
    wait_until(lambda: proxy.circuits == 0)
    assert proxy.cut().count == 0


def test_cut_in_the_middle_of_a_frame(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    w = connect("w")
    w.put(NUMBERS, wait=True)
    rule = proxy.cut(**ANSWER, channel=hidden["w"], after=1_000_000, count=1)
    with pytest.raises(epicsx.DisconnectedError):
        w.get(timeout=30.0)
    assert (rule.matched, rule.count) == (1, 1)
    assert proxy.seen(fate="cut") == 1


def test_a_cut_resets_and_what_was_sent_before_comes(proxy: CAProxy, hidden: SoftIOC) -> None:
    with Raw(proxy.port) as raw:
        proxy.cut(command="CREATE_CHAN", direction="to_client", after=10)
        raw.send(_wire.create_channel(hidden["x"].encode(), 7))
        got = raw.bytes(16 + 16)  # VERSION, ACCESS_RIGHTS
        assert [each.command for each in _wire.frames_of(got)] == [
            Command.VERSION,
            Command.ACCESS_RIGHTS,
        ]
        assert raw.bytes(10)[:2] == bytes([0, Command.CREATE_CHAN])
        with pytest.raises(ConnectionResetError):
            raw.bytes(1)


def test_a_cut_waits_for_a_slow_client(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    connect("w").put(np.zeros(COUNT), wait=True)
    with Raw(proxy.port, window=4096) as raw:
        raw.send(_wire.create_channel(hidden["w"].encode(), 7))
        sid = raw.frame(Command.CREATE_CHAN).parameter2
        proxy.cut(**ANSWER, after=500_000)
        raw.send(_wire.read_notify(DBR.DOUBLE, COUNT, sid, 3))
        proxy.wait_for(fate="cut")
        got = 0
        while got < 500_000:
            got += len(raw.bytes(1000))
        with pytest.raises(ConnectionResetError):
            raw.bytes(1)


def test_half_close_to_the_client(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    x = connect("x")
    lost: list[bool] = []
    x.on_connection(lambda channel, connected: lost.append(connected))
    with Raw(proxy.port) as raw:
        proxy.wait_for(direction="to_client", command="VERSION", count=2)
        assert proxy.half_close().count == 2
        assert raw.ended()
        wait_until(lambda: False in lost)  # it may be back by now
        raw.send(_wire.create_channel(hidden["y"].encode(), 7))  # the other half goes on
        proxy.wait_for(direction="to_server", command="CREATE_CHAN", channel=hidden["y"])
        proxy.wait_for(direction="to_client", command="CREATE_CHAN", channel=hidden["y"])


def test_half_close_to_the_server(proxy: CAProxy) -> None:
    with Raw(proxy.port) as raw:
        proxy.wait_for(direction="to_client", command="VERSION")
        assert proxy.half_close("to_server").count == 1
        assert raw.ended()  # an IOC then closes


def test_half_close_behind_a_frame(proxy: CAProxy, hidden: SoftIOC) -> None:
    with Raw(proxy.port) as raw:
        rule = proxy.half_close(command="ACCESS_RIGHTS", after=16)
        raw.send(_wire.create_channel(hidden["x"].encode(), 7))
        assert [each.command for each in _wire.frames_of(raw.bytes(1000))] == [
            Command.VERSION,
            Command.ACCESS_RIGHTS,
        ]
        assert rule.count == 1


def test_refuse(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    x = connect("x")
    with proxy.refuse():
        with pytest.raises(ConnectionRefusedError):
            Raw(proxy.port)
        x.get()  # who is there may stay
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(10.0)
            ask = _wire.version(5), _wire.search(hidden["y"].encode(), 9)
            asker.sendto(b"".join(each.encode() for each in ask), (LOOPBACK, proxy.port))
            first, found = _wire.frames_of(asker.recv(2000))
            assert (first.command, first.parameter1) == (Command.VERSION, 5)
            assert (found.parameter2, found.data_type) == (9, proxy.port)
    Raw(proxy.port).socket.close()


# ---- time


def test_stall_and_resume(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    x = connect("x")
    hidden.write("x", 0)
    got: list[float] = []
    with x.subscribe(lambda sample: got.append(sample.value)):
        wait_until(lambda: got == [0.0])
        rule = proxy.stall("to_client")
        for value in range(1, 6):
            hidden.write("x", value)
        with pytest.raises(epicsx.CATimeoutError):
            x.get(timeout=0.3)
        assert got == [0.0]
        proxy.resume()
        wait_until(lambda: got == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        rule.cancel()

        with proxy.stall("to_server"):
            x.put(77.0)
            hidden.write("x", 6)
            wait_until(lambda: got[-1] == 6.0)  # the other direction goes on
            assert hidden.read("x") == "6"
        wait_until(lambda: hidden.read("x") == "77")


def test_stall_within_one_frame(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    w, x = connect("w"), connect("x")
    w.put(NUMBERS, wait=True)
    with proxy.stall(**ANSWER, channel=hidden["w"], after=24, count=1) as rule:
        request = w.get_async(timeout=60.0)
        proxy.wait_for(fate="stall")
        with pytest.raises(epicsx.CATimeoutError):
            x.get(timeout=0.3)  # behind it on the same circuit
        assert not request.done()
    sample = request.result(20.0)
    assert sample is not None
    np.testing.assert_array_equal(sample.value, NUMBERS)
    assert rule.count == 1


def test_a_stall_can_be_cut(proxy: CAProxy, connect: Connect) -> None:
    x = connect("x")
    proxy.stall()
    assert proxy.cut().count == 1
    # what is stalled does not connect again
    wait_until(lambda: not x.connected)
    x.close()
    wait_until(lambda: proxy.circuits == 0)


def test_delay(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    x, y = connect("x"), connect("y")
    with proxy.delay(0.3, **ANSWER, channel=hidden["x"]) as rule:
        assert timed(x.get) >= 0.3
        first, second = x.get_async(timeout=20.0), y.get_async(timeout=20.0)
        second.result(20.0)
        assert first.done()  # frames of a circuit keep their order
    assert rule.count == 2
    with proxy.delay(0.2):  # all, both ways, searches too
        assert timed(lambda: connect("w")) >= 0.8
    assert proxy.seen(command="SEARCH", channel=hidden["w"], fate="delay") >= 2


def test_throttle(proxy: CAProxy, connect: Connect) -> None:
    w = connect("w")
    w.put(NUMBERS[:100_000], wait=True)
    with proxy.throttle(1_600_000, direction="to_client") as rule:
        assert timed(lambda: w.get(timeout=30.0)) >= 0.4  # 0.8 MB
        assert rule.count
    with proxy.throttle(10, **ANSWER) as slow:
        request = w.get_async(timeout=60.0)
        proxy.wait_for(fate="throttle", command="READ_NOTIFY")
        slow.cancel()  # also what is on its way goes on at once
        sample = request.result(20.0)
        assert sample is not None
        np.testing.assert_array_equal(sample.value, NUMBERS[:100_000])


# ---- frames


def test_drop(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    x, y = connect("x"), connect("y")
    hidden.write("x", 3)
    with proxy.drop(**ANSWER, channel=hidden["x"], nth=(2, 3)) as rule:
        assert x.get().value == 3.0
        for _ in range(2):
            with pytest.raises(epicsx.CATimeoutError):
                x.get(timeout=0.2)
        assert x.get().value == 3.0
        assert y.get().value == 4.0
        assert (rule.matched, rule.count) == (4, 2)
    with proxy.drop(command="WRITE_NOTIFY", direction="to_client", count=1) as rule:
        with pytest.raises(epicsx.CATimeoutError):
            x.put(8.0, wait=True, timeout=0.5)
        wait_until(lambda: hidden.read("x") == "8")  # the put was done, its answer lost
        x.put(9.0, wait=True)
    assert (rule.matched, rule.count) == (2, 1)


def test_drop_searches_of_some(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    connect("x")
    with proxy.drop(command=["SEARCH", Command.NOT_FOUND], channel="*:w") as rule:
        with epicsx.Channel(hidden["w"]) as channel:
            with pytest.raises(epicsx.CATimeoutError):
                channel.connect(0.5)
            wait_until(lambda: rule.count)
        connect("y")
    connect("w")


def test_where(proxy: CAProxy, connect: Connect) -> None:
    x = connect("x")
    asked: list[Frame] = []

    def doubles(frame: Frame) -> bool:
        asked.append(frame)
        return frame.data_type == DBR.TIME_DOUBLE

    rule = proxy.drop(command="READ_NOTIFY", direction="to_server", where=doubles)
    with pytest.raises(epicsx.CATimeoutError):
        x.get(timeout=0.3)
    assert x.get(dtype=str).value == x.get(dtype=str).value
    assert [frame.data_type for frame in asked] == [
        DBR.TIME_DOUBLE,
        DBR.TIME_STRING,
        DBR.TIME_STRING,
    ]
    assert (rule.matched, rule.count) == (1, 1)


def test_corrupt_the_header(proxy: CAProxy, connect: Connect) -> None:
    x = connect("x")
    with proxy.corrupt({"parameter1": int(ECA.GETFAIL)}, **ANSWER, count=1):
        with pytest.raises(epicsx.CAError) as info:
            x.get()
    assert info.value.status == ECA.GETFAIL
    with proxy.corrupt({"size": 4}, **ANSWER):  # not a multiple of 8: libca gives up on the circuit
        with pytest.raises(epicsx.DisconnectedError):
            x.get(timeout=30.0)


def test_corrupt_by_a_function(proxy: CAProxy, connect: Connect) -> None:
    x, y = connect("x"), connect("y")

    def seven(frame: Frame) -> Frame:
        payload = frame.payload[:-8] + np.array(7.0, ">f8").tobytes()
        return Frame(
            frame.command, frame.data_type, frame.count, frame.parameter1, frame.parameter2, payload
        )

    with proxy.corrupt(seven, **ANSWER, nth=1) as rule:
        assert x.get().value == 7.0
        assert x.get().value != 7.0
        assert rule.count == 1
    with proxy.corrupt(lambda frame: seven(frame).encode(), **ANSWER):
        assert y.get().value == 7.0
    with proxy.corrupt(lambda frame: None, **ANSWER) as rule:
        assert y.get().value == 4.0
        assert (rule.matched, rule.count) == (1, 0)


def test_a_function_that_fails_changes_nothing(
    proxy: CAProxy, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    y = connect("y")
    with caplog.at_level(logging.ERROR, logger="epicsx"):
        with proxy.corrupt(lambda frame: proxy.circuits, **ANSWER):  # type: ignore[arg-type, return-value]
            assert y.get().value == 4.0
        with proxy.corrupt(lambda frame: "text", **ANSWER):  # type: ignore[arg-type, return-value]
            assert y.get().value == 4.0
    texts = [str(record.exc_info and record.exc_info[1]) for record in caplog.records]
    assert texts == [
        "a rule's function may not use the proxy",
        "a Frame, bytes or None is wanted, not str",
    ]


def test_corrupt_single_bits(proxy: CAProxy, hidden: SoftIOC, connect: Connect) -> None:
    size = 16 + 8 + 16 + 800_000
    connect("w").put(np.zeros(100_000), wait=True)
    found = []
    for seed in (1, 1, 2):
        with Raw(proxy.port) as raw:
            raw.send(_wire.create_channel(hidden["w"].encode(), 7))
            sid = raw.frame(Command.CREATE_CHAN).parameter2
            with proxy.corrupt(10_000, **ANSWER, seed=seed) as rule:
                raw.send(_wire.read_notify(DBR.DOUBLE, 100_000, sid, 3))
                got = np.frombuffer(raw.bytes(size - 16), np.uint8)[24:]
                assert rule.count == 1
        bits = np.flatnonzero(np.unpackbits(got))
        assert 50 < len(bits) < 120  # 80, give and take
        found.append(bits)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


# ---- rules, and what they refuse


def test_rules_are_taken_back(proxy: CAProxy, connect: Connect) -> None:
    y = connect("y")
    rules = [proxy.drop(**ANSWER), proxy.stall("to_server"), proxy.refuse()]
    with pytest.raises(epicsx.CATimeoutError):
        y.get(timeout=0.2)
    proxy.reset()
    assert y.get(timeout=20.0).value == 4.0
    Raw(proxy.port).socket.close()
    assert rules[0].count == 0  # the answers came when it was no more
    assert [repr(rule).split(": ")[1] for rule in rules] == ["drop>", "stall>", "refuse>"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda p: p.drop(direction="up"), "a direction is one of to_server, to_client, not 'up'"),
        (lambda p: p.drop(command="GET"), "'GET' is no command of Channel Access"),
        (lambda p: p.drop(command=-1), "-1 is no command"),
        (lambda p: p.drop(nth=0), "nth is counted from 1"),
        (lambda p: p.drop(count=0), "at least once"),
        (lambda p: p.drop(pv="x"), "drop: no such keyword: pv"),
        (lambda p: p.drop(where=1), "where is a function"),
        (lambda p: p.drop(channel=5), "channel is a PV's name"),
        (lambda p: p.cut(after=-1), "after is a number of bytes"),
        (lambda p: p.half_close("both"), "a direction is one of"),
        (lambda p: p.stall("both"), "a direction is one of"),
        (lambda p: p.delay(-1), "seconds is a number above 0"),
        (lambda p: p.delay(float("nan")), "seconds is a number above 0"),
        (lambda p: p.throttle(0), "bytes_per_second is a number above 0"),
        (lambda p: p.corrupt(0), "a change is a function, a mapping or a number"),
        (lambda p: p.corrupt({"cid": 1}), "a frame's header has command"),
        (lambda p: p.corrupt({"command": 70_000}), "from 0 to 65535"),
        (lambda p: CAProxy(0), "upstream_port is a port number"),
        (lambda p: CAProxy(5064, port=70_000), "port is a port number"),
    ],
)
def test_nonsense_is_refused(proxy: CAProxy, wrong: Callable[[CAProxy], object], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        wrong(proxy)


def test_waiting_for_what_does_not_come(proxy: CAProxy) -> None:
    with pytest.raises(TimeoutError, match=r"not 3 frames like .*'channel': 'nobody'"):
        proxy.wait_for(3, timeout=0.1, channel="nobody")


# ---- its process


def test_a_busy_test_does_not_slow_it(proxy: CAProxy, hidden: SoftIOC) -> None:
    if sys.implementation.name != "cpython":
        pytest.skip("holds CPython's lock")
    script = """
        import sys, time, epicsx
        channel = epicsx.Channel(sys.argv[1]).connect(20.0)
        print("ready")
        while sys.stdin.readline():
            for _ in range(100):
                channel.get(timeout=20.0)
            print("done", time.monotonic())
    """
    with start_python(script, hidden["x"], env=proxy.env) as client:
        client.wait_line("ready")
        for _ in range(5):  # a machine that is busy itself may slow it
            client.send("go")
            ctypes.PyDLL(None).usleep(900_000)  # holds the interpreter's lock
            ctypes.PyDLL(None).usleep(900_000)
            released = time.monotonic()
            done = float(client.wait_line("done").split()[1])
            if done < released:
                break
        assert done < released
        client.finish()


def test_it_ends(hidden: SoftIOC) -> None:
    proxy = CAProxy(hidden.server_port, repeater_port=hidden.repeater_port).start()
    with pytest.raises(ProxyError, match="runs already"):
        proxy.start()
    other = CAProxy(hidden.server_port, port=proxy.port, repeater_port=hidden.repeater_port)
    with pytest.raises(ProxyError, match=f"port {proxy.port}: "):
        other.start()
    assert not other.running
    with Raw(proxy.port) as raw:
        proxy.wait_for(direction="to_client", command="VERSION")
        proxy.stop()
        with pytest.raises(ConnectionResetError):
            raw.bytes(1000)
    assert not proxy.running
    with pytest.raises(ProxyError, match="does not run"):
        proxy.cut()
    proxy.stop()
    with proxy:  # again, on the same port
        Raw(proxy.port).socket.close()
        assert proxy.log is not None


def test_a_forgotten_one_ends_and_brings_a_repeater(hidden: SoftIOC) -> None:
    before = threading.enumerate()
    proxy = CAProxy(hidden.server_port).start()
    assert proxy._link is not None and proxy._repeater is not None
    process = proxy._link.process
    assert proxy._repeater.wait(20.0)  # its start does not wait for as long
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with pytest.raises(OSError, match="in use"):
            probe.bind(("", proxy.repeater_port))
    del proxy
    gc.collect()
    wait_until(lambda: process.poll() is not None)
    threads_settle(before)
    assert process.stdin is not None and process.stdin.closed
    assert process.stdout is not None and process.stdout.closed


def test_it_ends_with_its_parent() -> None:
    script = """
        import os
        from epicsx.testing import CAProxy
        proxy = CAProxy(5064, repeater_port=5065).start()
        print(proxy._link.process.pid, flush=True)
        os._exit(0)
    """
    pid = int(run_python(script).stdout)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
