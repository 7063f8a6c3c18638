"""The process of `epicsx.testing.CAProxy`: forwards one CA server's traffic, and does to it what the rules say.

It talks with `proxy.py` by lines of JSON on its standard input and output: ``[id, method, arguments]`` is answered by
``[id, result, error]``. A rule's Python function lives in the other process: ``[null, call, rule, frame]`` asks for it,
and ``answer`` brings what it gave.

Threads. One, with an event loop. Each circuit has four tasks: for either direction one that reads, cuts frames and
looks at the rules, and one that writes when a frame is due. They end with the circuit; all end with standard input.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fnmatch
import json
import random
import socket
import struct
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from epicsx._wire import MINOR_VERSION, SAME_ADDRESS, Command, Frame, Parser, frames_of

HOST = "127.0.0.1"
TO_SERVER, TO_CLIENT = "to_server", "to_client"
CHUNK = 1 << 18
FULL = 1 << 26  # bytes, delayed or throttled, that wait in a direction before it stops reading
LOG_SIZE = 100_000
SLICE = 0.02  # seconds' worth of bytes that a throttled direction writes at once
LINGER_ZERO = struct.pack("ii", 1, 0)  # closing then resets the connection

Kind: TypeAlias = tuple[str, int, "str | None", str]  # direction, command, channel, fate


class Gate:
    """Open unless somebody holds it."""

    def __init__(self) -> None:
        self._holders: set[int] = set()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self, who: int) -> None:
        self._holders.add(who)
        self._open.clear()

    def release(self, who: int) -> None:
        self._holders.discard(who)
        if not self._holders:
            self._open.set()

    async def wait(self) -> None:
        await self._open.wait()


@dataclass
class Rule:
    """What is done to which frames."""

    number: int
    verb: str
    direction: str | None = None
    commands: list[int] | None = None
    channel: str | None = None
    nth: list[int] | None = None
    limit: int | None = None
    where: bool = False  # the other process has a function that decides
    after: int = 0
    amount: float = 0.0  # of delay and throttle
    change: dict[str, int] | int | None = None  # of corrupt; None: the other process has a function
    seed: int = 0
    matched: int = 0
    count: int = 0
    active: bool = True
    random: random.Random = field(default_factory=random.Random)
    until: float = 0.0  # bytes to the next bit to be flipped

    def selects(self, direction: str, command: int, channel: str | None) -> bool:
        """Whether all but `nth`, `where` and `limit` fit."""
        return (
            self.active
            and self.direction in (None, direction)
            and (self.commands is None or command in self.commands)
            and (self.channel is None or fnmatch.fnmatchcase(channel or "", self.channel))
        )


@dataclass
class Item:
    """Bytes that wait to be written, and what happens when they are."""

    due: float
    data: bytes
    throttles: list[Rule]
    end: Rule | None = None  # a cut, half_close or stall
    close: bool = False  # the other side has ended


class Direction:
    """One direction of a circuit: from a reader, by the rules, to a writer."""

    def __init__(
        self,
        circuit: Circuit,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.circuit = circuit
        self.proxy = circuit.proxy
        self.name = name
        self.reader = reader
        self.writer = writer
        self.gate = Gate()
        self.queue: deque[Item] = deque()
        self.waiting = 0  # bytes in it
        self.changed = asyncio.Event()
        self.due = 0.0
        self.ended = False  # nothing more will be read
        writer.transport.set_write_buffer_limits(high=0)

    async def read(self) -> None:
        """Cut what comes into frames, until its end."""
        parser = Parser()
        while True:
            await self.proxy.gates[self.name].wait()
            await self.gate.wait()
            data = await self.reader.read(CHUNK)
            if not data:
                break
            for frame, raw in parser.feed(data):
                await self.take(frame, raw)
            while self.waiting > FULL:
                self.changed.clear()
                await self.changed.wait()
        self.ended = True
        rest = parser.rest()
        self.put(Item(max(self.due, time.monotonic()), rest, [], close=True))

    def put(self, item: Item) -> None:
        self.queue.append(item)
        self.waiting += len(item.data)
        self.changed.set()

    async def take(self, frame: Frame, raw: bytes) -> None:
        """Do by the rules what is to be done to a frame, and queue what is left of it."""
        channel = self.circuit.channel_of(self.name, frame)
        if self.name == TO_CLIENT and frame.command == Command.SEARCH:
            # We are the name server here: clients shall come to us with what they then do.
            frame = replace(frame, data_type=self.proxy.port, parameter1=SAME_ADDRESS)
            raw = frame.encode()
        done = await self.proxy.judge(self.name, frame, raw, channel, self.circuit.number)
        if done.dropped:
            return
        self.due = max(self.due, time.monotonic() + done.delay)
        self.put(Item(self.due, done.data, done.throttles, done.end))

    async def write(self) -> None:
        """Write what is queued, each when it is due, until the end."""
        while True:
            while not self.queue:
                self.changed.clear()
                await self.changed.wait()
            item = self.queue.popleft()
            wait = item.due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.join_more(item)
            end = item.end
            data = item.data if end is None else item.data[: end.after]
            await self.send(data, item.throttles)
            self.waiting -= len(item.data)
            self.changed.set()
            if end is not None:
                if end.verb == "cut":
                    await self.emptied()
                    self.circuit.cut()
                    return
                if end.verb == "half_close":
                    self.writer.write_eof()
                    await self.drop_the_rest()
                    return
                if end.active:
                    self.gate.hold(end.number)
                    await self.gate.wait()
                await self.send(item.data[end.after :], item.throttles)
            if item.close:
                with contextlib.suppress(OSError):
                    self.writer.write_eof()
                return

    def join_more(self, item: Item) -> None:
        """Take with it what is due, too, so that many small frames are one write."""
        now = time.monotonic()
        parts, size = [item.data], len(item.data)
        while self.queue and not (item.end or item.close or item.throttles):
            more = self.queue[0]
            if more.end or more.close or more.throttles or more.due > now or size > CHUNK:
                break
            parts.append(self.queue.popleft().data)
            size += len(parts[-1])
        if len(parts) > 1:
            item.data = b"".join(parts)

    async def send(self, data: bytes, throttles: list[Rule]) -> None:
        start = 0
        while start < len(data):
            await self.proxy.gates[self.name].wait()
            await self.gate.wait()
            rates = [rule.amount for rule in throttles if rule.active]
            size = max(1, int(min(rates) * SLICE)) if rates else CHUNK
            piece = data[start : start + size]
            self.writer.write(piece)
            await self.writer.drain()
            start += len(piece)
            if rates:
                await asyncio.sleep(len(piece) / min(rates))

    async def emptied(self) -> None:
        """Wait until the peer's kernel has what was written: a reset discards what it has not."""
        try:
            import fcntl
            import termios
        except ImportError:
            return
        sock = self.writer.get_extra_info("socket")
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            left = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            if not struct.unpack("i", left)[0]:
                return
            await asyncio.sleep(0.001)

    async def drop_the_rest(self) -> None:
        """Nothing more can be written: go on reading, so that the sender does not notice."""
        while not self.ended:
            self.queue.clear()
            self.waiting = 0
            self.changed.set()
            await asyncio.sleep(0.01)


class Circuit:
    """A client's connection, and ours to the server for it."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        self.proxy = proxy
        self.number = number
        self.directions: list[Direction] = []
        self.sockets: list[asyncio.StreamWriter] = []
        self.over = asyncio.Event()
        # Names by the identifiers that frames carry: the client's of a channel, the server's, and
        # those of requests and subscriptions.
        self.by_cid: dict[int, str] = {}
        self.by_sid: dict[int, str] = {}
        self.by_request: dict[tuple[int, int], str] = {}

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sockets.append(writer)
        try:
            server = await asyncio.open_connection(self.proxy.host, self.proxy.upstream)
        except OSError:
            self.cut()
            return
        self.sockets.append(server[1])
        for sock in (writer, server[1]):
            sock.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.directions = [
            Direction(self, TO_SERVER, reader, server[1]),
            Direction(self, TO_CLIENT, server[0], writer),
        ]
        works = [work for each in self.directions for work in (each.read(), each.write())]
        tasks = [asyncio.ensure_future(work) for work in works]
        over = asyncio.ensure_future(self.over.wait())
        both = asyncio.gather(*tasks)
        try:
            # A reset of one side is passed on by `cut`; a plain end by the writers, each in its turn.
            ends: list[asyncio.Future[Any]] = [both, over]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not both.done() or both.exception() is not None:
                self.cut()
        finally:
            for task in (*tasks, over):
                task.cancel()
            await asyncio.gather(*tasks, both, over, return_exceptions=True)
            for each in self.sockets:
                each.close()

    def cut(self) -> None:
        """Reset both connections."""
        self.over.set()
        for writer in self.sockets:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            writer.transport.abort()

    def half_close(self, direction: str) -> None:
        """End one direction; the other goes on."""
        for each in self.directions:
            if each.name == direction:
                each.put(Item(0.0, b"", [], Rule(0, "half_close")))

    def channel_of(self, direction: str, frame: Frame) -> str | None:
        """The PV that a frame is about, from what went before on this circuit; keeps the books for that."""
        command, first, second = frame.command, frame.parameter1, frame.parameter2
        if command == Command.SEARCH and direction == TO_SERVER:
            return frame.text
        if command == Command.CREATE_CHAN:
            if direction == TO_SERVER:
                self.by_cid[first] = frame.text
            else:
                self.by_sid[second] = self.by_cid.get(first, "")
            return self.by_cid.get(first)
        if command in (Command.ACCESS_RIGHTS, Command.CREATE_CH_FAIL, Command.SERVER_DISCONN):
            return self.by_cid.get(first)
        if command == Command.CLEAR_CHANNEL:
            return self.by_sid.get(first) or self.by_cid.get(second)
        kind = Command.EVENT_ADD if command == Command.EVENT_CANCEL else command
        if kind in (Command.EVENT_ADD, Command.READ_NOTIFY, Command.WRITE_NOTIFY):
            if direction == TO_SERVER:
                name = self.by_sid.get(first)
                if name is not None:
                    self.by_request[kind, second] = name
                return name
            if kind == Command.EVENT_ADD:
                return self.by_request.get((kind, second))
            return self.by_request.pop((kind, second), None)
        if command in (Command.READ, Command.WRITE):
            return self.by_sid.get(first)
        if command == Command.ERROR:
            return self.by_cid.get(first)
        return None


@dataclass
class Judged:
    """What the rules make of a frame."""

    data: bytes
    dropped: bool = False
    delay: float = 0.0
    throttles: list[Rule] = field(default_factory=list)
    end: Rule | None = None


class Proxy(asyncio.DatagramProtocol):
    """The server's place: one TCP and UDP port."""

    def __init__(self, host: str, upstream: int, port: int, talk: Talk) -> None:
        self.host = host
        self.upstream = upstream
        self.port = port
        self.talk = talk
        self.gates = {TO_SERVER: Gate(), TO_CLIENT: Gate()}
        self.rules: dict[int, Rule] = {}
        self.ended: dict[int, Rule] = {}  # for their counts
        self.circuits: dict[int, Circuit] = {}
        self.log: deque[tuple[float, int, str, Frame, str | None, str]] = deque(maxlen=LOG_SIZE)
        self.totals: Counter[Kind] = Counter()
        self.waiters: list[tuple[dict[str, Any], list[int], asyncio.Future[bool]]] = []
        self.began = 0  # circuits so far
        self.refusing: set[int] = set()
        self.server: asyncio.Server | None = None
        self.searches: dict[int, tuple[Any, int, int, str]] = {}
        self.last_search = 0
        self.below: asyncio.DatagramTransport | None = None
        self.above: asyncio.DatagramTransport | None = None
        self.tasks: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        await self.listen()
        loop = asyncio.get_running_loop()
        self.above, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(HOST, self.port)
        )
        self.below, _ = await loop.create_datagram_endpoint(
            lambda: Below(self), remote_addr=(self.host, self.upstream)
        )

    async def listen(self) -> None:
        if self.server is None:
            self.server = await asyncio.start_server(
                self.accept, HOST, self.port, reuse_address=True, limit=CHUNK, start_serving=True
            )

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.began += 1
        circuit = self.circuits[self.began] = Circuit(self, self.began)
        try:
            await circuit.run(reader, writer)
        finally:
            del self.circuits[circuit.number]

    # -- datagrams: searches, and their answers

    def datagram_received(self, data: bytes, address: Any) -> None:
        """Of a client: hand its searches on, each with a number of our own."""
        self.later(self.searched(data, address))

    async def searched(self, data: bytes, address: Any) -> None:
        sequence = 0
        asked: dict[float, bytes] = {}  # by delay; as few datagrams as came
        for frame in frames_of(data):
            if frame.command == Command.VERSION:
                sequence = frame.parameter1
            if frame.command != Command.SEARCH:
                continue
            name = frame.text
            done = await self.judge(TO_SERVER, frame, frame.encode(), name, 0)
            if done.dropped:
                continue
            self.last_search = (self.last_search + 1) & 0xFFFFFFFF
            number = self.last_search
            self.searches[number] = (address, frame.parameter2, sequence, name)
            if len(self.searches) > LOG_SIZE:
                del self.searches[next(iter(self.searches))]
            for now in frames_of(done.data)[:1]:
                more = replace(now, parameter1=number, parameter2=number).encode()
                first = Frame(Command.VERSION, 1, frame.count, sequence).encode()
                asked[done.delay] = asked.get(done.delay, first) + more
        for delay, text in asked.items():
            self.send_later(delay, self.below, text)

    def answered(self, data: bytes) -> None:
        """Of the server: tell the clients who asked, with our own port."""
        self.later(self._answered(data))

    async def _answered(self, data: bytes) -> None:
        told: dict[tuple[float, Any, int], bytes] = {}
        for frame in frames_of(data):
            if frame.command != Command.SEARCH or frame.parameter2 not in self.searches:
                continue
            address, cid, sequence, name = self.searches.pop(frame.parameter2)
            answer = replace(frame, data_type=self.port, parameter1=SAME_ADDRESS, parameter2=cid)
            done = await self.judge(TO_CLIENT, answer, answer.encode(), name, 0)
            if not done.dropped:
                key = (done.delay, address, sequence)
                first = Frame(Command.VERSION, 1, MINOR_VERSION, sequence).encode()
                told[key] = told.get(key, first) + done.data
        for (delay, address, _), text in told.items():
            self.send_later(delay, self.above, text, address)

    def send_later(self, delay: float, socket: Any, data: bytes, *address: Any) -> None:
        if delay:
            asyncio.get_running_loop().call_later(delay, socket.sendto, data, *address)
        else:
            socket.sendto(data, *address)

    def later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- rules

    async def judge(
        self, direction: str, frame: Frame, raw: bytes, channel: str | None, circuit: int
    ) -> Judged:
        done = Judged(raw)
        fate = ""
        for rule in list(self.rules.values()):
            if not rule.selects(direction, frame.command, channel):
                continue
            if rule.where and not await self.talk.ask("where", rule.number, frame):
                continue
            rule.matched += 1
            if rule.nth is not None and rule.matched not in rule.nth:
                continue
            if rule.limit is not None and rule.count >= rule.limit:
                continue
            if rule.verb == "corrupt":
                changed = await self.corrupted(rule, frame, done.data)
                if changed == done.data:
                    continue
                done.data = changed
            elif rule.verb == "drop":
                done.dropped = True
            elif rule.verb == "delay":
                done.delay = max(done.delay, rule.amount)
            elif rule.verb == "throttle":
                done.throttles.append(rule)
            elif circuit:
                done.end = done.end or rule
            else:
                continue  # a datagram cannot be cut or stalled
            rule.count += 1
            fate = rule.verb
            if done.dropped:
                break
        self.note(direction, frame, channel, circuit, fate)
        return done

    async def corrupted(self, rule: Rule, frame: Frame, raw: bytes) -> bytes:
        if rule.change is None:
            given = await self.talk.ask("change", rule.number, frame)
            if given is None:
                return raw
            return (
                base64.b64decode(given) if isinstance(given, str) else Frame.of_row(given).encode()
            )
        if isinstance(rule.change, dict):
            (now,) = frames_of(raw)[:1] or (frame,)
            return replace(now, **rule.change).encode()  # type: ignore[arg-type]
        changed = bytearray(raw)
        at = rule.until
        while at < len(raw):
            changed[int(at)] ^= 1 << rule.random.randrange(8)
            at += rule.random.uniform(0.5, 1.5) * rule.change
        rule.until = at - len(raw)
        return bytes(changed)

    def note(
        self, direction: str, frame: Frame, channel: str | None, circuit: int, fate: str
    ) -> None:
        self.log.append((time.monotonic(), circuit, direction, frame.shortened(), channel, fate))
        key = (direction, frame.command, channel, fate)
        self.totals[key] += 1
        for want, left, future in self.waiters:
            if not future.done() and _wanted(key, want):
                left[0] -= 1
                if left[0] <= 0:
                    future.set_result(True)

    # -- what the other process asks for

    async def rule(self, number: int, verb: str, **options: Any) -> int:
        rule = Rule(number, verb, **options)
        rule.random.seed(rule.seed)
        if isinstance(rule.change, int):
            rule.until = rule.random.uniform(0.5, 1.5) * rule.change
        self.rules[number] = rule
        return number

    async def counts(self, number: int) -> list[int]:
        rule = self.rules.get(number) or self.ended[number]
        return [rule.matched, rule.count]

    async def cancel(self, number: int) -> list[int]:
        rule = self.rules.pop(number, None)
        if rule is not None:
            rule.active = False
            self.ended[number] = rule
        self.release(number)
        self.refusing.discard(number)
        if not self.refusing:
            await self.listen()
        return await self.counts(number)

    async def reset(self) -> None:
        for number in list(self.rules):
            await self.cancel(number)

    def release(self, number: int) -> None:
        gates = [*self.gates.values()]
        gates += [each.gate for c in self.circuits.values() for each in c.directions]
        for gate in gates:
            gate.release(number)

    async def cut(self) -> int:
        for circuit in list(self.circuits.values()):
            circuit.cut()
        return len(self.circuits)

    async def half_close(self, direction: str) -> int:
        for circuit in self.circuits.values():
            circuit.half_close(direction)
        return len(self.circuits)

    async def stall(self, number: int, directions: list[str]) -> int:
        for each in directions:
            self.gates[each].hold(number)
        return len(self.circuits)

    async def resume(self) -> None:
        for number, rule in list(self.rules.items()):
            if rule.verb == "stall":
                await self.cancel(number)

    async def refuse(self, number: int) -> None:
        self.refusing.add(number)
        if self.server is not None:
            self.server.close()
            self.server = None

    async def state(self) -> list[int]:
        return [len(self.circuits), self.began]

    async def entries(self, clear: bool = False) -> list[Any]:
        found = []
        for when, circuit, direction, frame, channel, fate in self.log:
            size = len(frame.payload) if frame.size is None else frame.size
            row = replace(frame, size=size).row()
            found.append([when, circuit, direction, row, channel, fate])
        if clear:
            self.log.clear()
            self.totals.clear()
        return found

    async def total(self, want: dict[str, Any]) -> int:
        return sum(count for key, count in self.totals.items() if _wanted(key, want))

    async def wait_for(self, want: dict[str, Any], count: int, timeout: float) -> bool:
        left = count - await self.total(want)
        if left <= 0:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (want, [left], future)
        self.waiters.append(entry)
        try:
            return await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError:
            return False
        finally:
            self.waiters.remove(entry)


def _wanted(key: Kind, want: dict[str, Any]) -> bool:
    direction, command, channel, fate = key
    return (
        want.get("direction") in (None, direction)
        and (want.get("commands") is None or command in want["commands"])
        and (want.get("channel") is None or fnmatch.fnmatchcase(channel or "", want["channel"]))
        and want.get("fate") in (None, fate)
    )


class Below(asyncio.DatagramProtocol):
    """The socket that asks the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.proxy.answered(data)

    def error_received(self, error: Exception) -> None:
        """The server is not there: so its PVs are not found."""


class Talk:
    """The lines between the two processes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.asked: dict[int, asyncio.Future[Any]] = {}
        self.last = 0
        self.tasks: set[asyncio.Future[Any]] = set()

    async def ask(self, what: str, number: int, frame: Frame) -> Any:
        """What a rule's function makes of a frame."""
        self.last += 1
        future = self.asked[self.last] = asyncio.get_running_loop().create_future()
        self.say([None, self.last, what, number, frame.row()])
        return await future

    def say(self, row: list[Any]) -> None:
        self.writer.write(json.dumps(row).encode() + b"\n")

    async def serve(self, proxy: Proxy) -> None:
        """Answer until the end of standard input."""
        while line := await self.reader.readline():
            number, method, options = json.loads(line)
            if method == "answer":
                self.asked.pop(number).set_result(options)
                continue
            task = asyncio.ensure_future(self.answer(proxy, number, method, options))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def answer(self, proxy: Proxy, number: int, method: str, options: Any) -> None:
        try:
            result, error = await getattr(proxy, method)(**options), None
        except Exception as failed:  # noqa: BLE001 - the other process raises it
            result, error = None, f"{type(failed).__name__}: {failed}"
        self.say([number, result, error])


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 30)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    talk = Talk(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
    config = json.loads(await reader.readline())
    proxy = Proxy(config["host"], config["upstream"], config["port"], talk)
    try:
        await proxy.start()
    except OSError as error:
        talk.say([0, None, f"port {config['port']}: {error.strerror or error}"])
        return
    talk.say([0, proxy.port, None])
    with contextlib.suppress(ConnectionError):
        await talk.serve(proxy)
    await proxy.cut()
    while proxy.circuits:
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(main())
