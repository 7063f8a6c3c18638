"""What `FakeServer` runs: sockets, circuits, the answers of a server that behaves, and the rules that replace them.

Threads. One, with an event loop: `Engine.run`. All state is its own; `Engine.do` has it run a function and waits for
what that gives, from any thread. Rules' functions run in it, and may use the server: `do` then calls at once.

Lifetime. `stop`, or the finalizer of the `FakeServer`, ends the loop, which resets the connections, closes the ports
and forgets rules and log. The thread refers to this, never to the `FakeServer`. What `do` gets at the end is done, or
`Ended` is raised.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fnmatch
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar, cast

from epicsx import _wire
from epicsx._wire import Command, Frame, Parser, frames_of
from epicsx.enums import DBE, ECA, Access
from epicsx.testing._fakevalues import FakePV, Refused, block, from_block
from epicsx.testing.ports import LOOPBACK

T = TypeVar("T")
Part: TypeAlias = "Frame | bytes | float | int"
"""What is sent: a frame, bytes as they are, or a pause in seconds."""

log = logging.getLogger("epicsx")

KEPT = 10_000  # requests in the log, of about 1 kB each, 64 bytes of each payload among it
NO_CID = 0xFFFFFFFF
LINGER_ZERO = struct.pack("ii", 1, 0)  # closing then resets the connection
SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes of a socket that are not sent yet
TICK = 0.01  # seconds between looks whether they are


class Ended(RuntimeError):
    """The server does not run, or no more."""

    def __init__(self) -> None:
        super().__init__("the fake server does not run")


@dataclass(frozen=True)
class Request:
    """What a client asked, and what a server that behaves answers.

    Attributes
    ----------
    time : float, seconds, as of `time.monotonic`
    circuit : int, which connection, counted from 1; 0 is a datagram
    frame : Frame, as it came; of an update, the EVENT_ADD that asked for it
    channel : str or None, the PV that it is about, where that is known
    answer : tuple of Frame

    A script gets its frames whole. In the log payloads are cut to 64 bytes; ``size`` is then that of the whole.
    """

    time: float
    circuit: int
    frame: Frame
    channel: str | None
    answer: tuple[Frame, ...]

    @property
    def command(self) -> str:
        """The command's name, as in caProto.h; its number if it has none."""
        with contextlib.suppress(ValueError):
            return Command(self.frame.command).name
        return str(self.frame.command)

    def shortened(self) -> Request:
        """As the log keeps it."""
        answer = tuple(frame.shortened() for frame in self.answer)
        return replace(self, frame=self.frame.shortened(), answer=answer)


@dataclass(eq=False)
class Rule:
    """What is done about which requests."""

    verb: str
    act: Callable[[Request, list[Part]], list[Part]]
    commands: list[int] | None
    channel: str | None
    nth: list[int] | None
    limit: int | None
    where: Callable[[Request], Any] | None
    matched: int = 0
    count: int = 0
    cuts: bool = False  # the circuit is reset behind it

    def chooses(self, command: int, channel: str | None) -> bool:
        """Whether command and channel are those that it is about."""
        if self.commands is not None and command not in self.commands:
            return False
        return self.channel is None or fnmatch.fnmatchcase(channel or "", self.channel)

    def fits(self, request: Request) -> bool:
        """Whether it acts on this one; counts."""
        if not self.chooses(request.frame.command, request.channel):
            return False
        if self.where is not None and not self.where(request):
            return False
        self.matched += 1
        if self.nth is not None and self.matched not in self.nth:
            return False
        if self.limit is not None and self.count >= self.limit:
            return False
        self.count += 1
        return True


@dataclass
class Opened:
    """A channel of a circuit."""

    cid: int
    name: str
    pv: FakePV


@dataclass
class Subscription:
    """An EVENT_ADD that is in force."""

    opened: Opened
    asked: Frame
    owed: bool = False  # an update that EVENTS_OFF held back

    @property
    def mask(self) -> int:
        """The kinds of change that are told: behind three floats in the payload (caProto.h, mon_info)."""
        return int.from_bytes(self.asked.payload[12:14], "big")


def encoded(parts: Iterable[Part]) -> list[bytes | float]:
    """Bytes and pauses, of what a script gave."""
    made: list[bytes | float] = []
    for part in parts:
        if isinstance(part, Frame):
            made.append(part.encode())
        elif isinstance(part, (bytes, bytearray, memoryview)):
            made.append(bytes(part))
        elif type(part) in (int, float) and 0 <= part < 1e6:
            made.append(float(part))
        else:
            raise TypeError(f"a Frame, bytes or a pause in seconds is wanted, not {part!r}")
    return made


def parts_of(given: Any) -> list[Part]:
    """A script's answer as a list."""
    single = isinstance(given, (Frame, bytes, bytearray, memoryview, int, float))
    parts = [given] if single else list(given)
    encoded(parts)  # what cannot be sent is an error of the script, here and now
    return parts


class Circuit(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.number = 0
        self.parser: Parser = Parser()
        self.channels: dict[int, Opened] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.events = True
        self.sids = 0
        self.transport: asyncio.Transport | None = None
        self.queue: deque[bytes | float | None] = deque()  # None: reset
        self.pausing: bool = False
        self.ended: bool = False  # the client sends no more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.engine.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.queue.clear()
        self.engine.left(self)

    def eof_received(self) -> bool:
        self.ended = True
        return self.pausing  # what waits is still sent

    def data_received(self, data: bytes) -> None:
        for frame, _ in self.parser.feed(data):
            if self.transport is None:
                return
            self.engine.asked(self, frame)

    def send(self, data: Sequence[bytes | float], *, cut: bool = False) -> None:
        self.queue.extend(data)
        if cut:
            self.queue.append(None)
        if not self.pausing:
            self.go_on()

    def go_on(self) -> None:
        """Write what is queued, until a pause."""
        self.pausing = False
        while self.queue and self.transport is not None:
            part = self.queue.popleft()
            if part is None and self.unsent():
                self.queue.appendleft(None)
                part = TICK
            if part is None:
                self.reset()
            elif isinstance(part, bytes):
                self.transport.write(part)
            elif part:
                self.pausing = True
                asyncio.get_running_loop().call_later(part, self.go_on)
                return
        if self.ended and self.transport is not None:
            self.transport.close()

    def unsent(self) -> int:
        """Bytes that were written and have not left: the client does not read fast enough.

        A reset discards what the kernel holds; how much that is only Linux tells, elsewhere it goes unseen.
        """
        if self.transport is None:
            return 0
        waiting = self.transport.get_write_buffer_size()
        if sys.platform == "linux" and not waiting:
            import fcntl

            held = bytearray(4)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), SIOCOUTQNSD, held)
            waiting = int.from_bytes(held, sys.byteorder)
        return waiting

    def reset(self) -> None:
        """End the connection as a crash does, at once: what was not sent is lost."""
        transport, self.transport = self.transport, None
        self.queue.clear()
        if transport is None:
            return
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO
            )
        transport.abort()


class Datagrams(asyncio.DatagramProtocol):
    """The socket of searches."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.engine.searched(data, address)


class Engine:
    """The server's state, and its thread."""

    def __init__(self, pvs: dict[str, FakePV], port: int) -> None:
        self.pvs = pvs
        self.port = port
        self.rules: list[Rule] = []
        self.circuits: dict[int, Circuit] = {}
        self.began: int = 0
        self.requests: deque[Request] = deque(maxlen=KEPT)
        self.totals: Counter[tuple[int, str | None]] = Counter()  # by command and channel
        self.puts: list[tuple[str, Any]] = []
        self.changed: threading.Condition = threading.Condition()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.over: asyncio.Event | None = None
        self.udp: asyncio.DatagramTransport | None = None
        self.pending: set[concurrent.futures.Future[Any]] = set()  # given to `do`, not done
        self.owner: int = os.getpid()
        self.thread: threading.Thread = threading.Thread(
            target=self.run, name=f"FakeServer {port}", daemon=True
        )

    # -- its thread

    def start(self) -> None:
        """Start, and return when both ports are open."""
        self.thread.start()
        self.ready.result(20.0)

    def run(self) -> None:
        """Serve until `stop`: the body of the thread."""
        try:
            asyncio.run(self.serve())
        finally:
            # The loop is closed and takes nothing more, so these are the last.
            while self.pending:
                self.pending.pop().set_exception(Ended())
            self.rules.clear()
            self.requests.clear()
            self.totals.clear()
            self.puts.clear()

    async def serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        try:
            server = await self.loop.create_server(
                lambda: Circuit(self), LOOPBACK, self.port, reuse_address=True
            )
            try:
                self.udp, _ = await self.loop.create_datagram_endpoint(
                    lambda: Datagrams(self), local_addr=(LOOPBACK, self.port)
                )
            except OSError:
                server.close()
                raise
        except OSError as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        await self.over.wait()
        server.close()
        self.udp.abort()
        for circuit in list(self.circuits.values()):
            circuit.reset()
        # The loop's next turn closes them; `joined` resets who comes late.
        while self.circuits:
            await asyncio.sleep(0.001)

    def stop(self) -> None:
        """End it; in a forked child it does not run, and nothing is done."""
        if os.getpid() != self.owner or not self.thread.is_alive():
            return
        assert self.loop is not None and self.over is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self.over.set)
        if threading.current_thread() is not self.thread:
            self.thread.join(10.0)

    def do(self, work: Callable[[], T]) -> T:
        """Run it in the thread, and give what it gives."""
        if threading.current_thread() is self.thread:
            return work()
        if not self.thread.is_alive() or os.getpid() != self.owner:
            raise Ended
        assert self.loop is not None
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            self.pending.discard(future)
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                future.set_exception(error)

        self.pending.add(future)
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:  # it is closed
            self.pending.discard(future)
            raise Ended from None
        return future.result(20.0)

    # -- connections

    def joined(self, circuit: Circuit) -> None:
        self.began += 1
        circuit.number = self.began
        self.circuits[circuit.number] = circuit
        if self.over is not None and self.over.is_set():
            circuit.reset()
        self.tell()

    def left(self, circuit: Circuit) -> None:
        del self.circuits[circuit.number]
        self.tell()

    def tell(self) -> None:
        """Wake who waits for something to have come."""
        with self.changed:
            self.changed.notify_all()

    # -- answers

    def asked(self, circuit: Circuit, frame: Frame) -> None:
        """Answer what came on a circuit."""
        try:
            handler = HANDLERS.get(frame.command)
            name, answer = (None, []) if handler is None else handler(self, circuit, frame)
        except Refused as error:
            name, answer = self.refusal(circuit, frame, error.status)
        self.reply(circuit, frame, name, answer)

    def refusal(
        self, circuit: Circuit, frame: Frame, status: ECA
    ) -> tuple[str | None, list[Frame]]:
        opened = circuit.channels.get(frame.parameter1)
        name = opened.name if opened else None
        if frame.command in (Command.READ_NOTIFY, Command.WRITE_NOTIFY, Command.EVENT_ADD):
            return name, [replace(frame, parameter1=int(status), payload=b"")]
        cid = opened.cid if opened else NO_CID
        return name, [_wire.error(frame, int(status), status.name.encode(), cid)]

    def cid(self, request: Request) -> int:
        """The client's number of the channel that a request is about; -1 as it travels, where there is none."""
        if request.frame.command == Command.CREATE_CHAN:
            return request.frame.parameter1
        circuit = self.circuits.get(request.circuit)
        opened = circuit.channels.get(request.frame.parameter1) if circuit else None
        return opened.cid if opened else NO_CID

    def reply(self, circuit: Circuit, frame: Frame, name: str | None, answer: list[Frame]) -> None:
        parts, cut = self.judged(circuit.number, frame, name, answer)
        circuit.send(encoded(parts), cut=cut)

    def judged(
        self, number: int, frame: Frame, name: str | None, answer: list[Frame]
    ) -> tuple[list[Part], bool]:
        """What is sent in the end, and whether the circuit is reset behind it."""
        request = Request(time.monotonic(), number, frame, name, tuple(answer))
        parts: list[Part] = list(answer)
        cut = False
        for rule in tuple(self.rules):
            try:
                if rule.fits(request):
                    parts = parts_of(rule.act(request, parts))
                    cut = cut or rule.cuts
            except Exception:
                log.exception("a script of the fake server failed; its answer stays as it is")
        self.requests.append(request.shortened())
        self.totals[frame.command, name] += 1
        self.tell()
        return parts, cut

    def searched(self, data: bytes, address: Any) -> None:
        """Answer a datagram: what we have of it, in one."""
        sequence = 0
        found: list[bytes] = []
        for frame in frames_of(data):
            if frame.command == Command.VERSION:
                sequence = frame.parameter1
            if frame.command != Command.SEARCH:
                continue
            answer = self.search(frame)
            parts, _ = self.judged(0, frame, frame.text, answer)
            found += [part for part in encoded(parts) if isinstance(part, bytes)]
            pauses = sum(part for part in encoded(parts) if isinstance(part, float))
            if pauses:
                assert self.loop is not None
                self.loop.call_later(pauses, self.send_datagram, sequence, found, address)
                found = []
        if found:
            self.send_datagram(sequence, found, address)

    def send_datagram(self, sequence: int, found: list[bytes], address: Any) -> None:
        assert self.udp is not None
        data = b"".join((_wire.version(sequence).encode(), *found))
        if not self.udp.is_closing():
            self.udp.sendto(data[:65507], address)  # the most that a datagram may have

    def search(self, frame: Frame) -> list[Frame]:
        known = frame.text in self.pvs
        return [_wire.search_reply(frame.parameter2, self.port)] if known else []

    # -- by command: the PV's name, and the frames

    def on_version(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        return None, [Frame(Command.VERSION, 0, _wire.MINOR_VERSION)]

    def on_search(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        answer = self.search(frame)
        if not answer and frame.data_type == _wire.DO_REPLY:
            answer = [replace(frame, command=int(Command.NOT_FOUND), payload=b"")]
        return frame.text, answer

    def on_create(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        name, cid = frame.text, frame.parameter1
        pv = self.pvs.get(name)
        if pv is None:
            return name, [Frame(Command.CREATE_CH_FAIL, parameter1=cid)]
        circuit.sids += 1
        circuit.channels[circuit.sids] = Opened(cid, name, pv)
        assert pv.type is not None and pv.size is not None
        return name, [
            _wire.access_rights(cid, int(pv.access)),
            _wire.channel_created(int(pv.type), pv.size, cid, circuit.sids),
        ]

    def opened(self, circuit: Circuit, frame: Frame, right: Access) -> Opened:
        found = circuit.channels.get(frame.parameter1)
        if found is None:
            raise Refused(ECA.BADCHID)
        if not found.pv.access & right:
            raise Refused(ECA.NORDACCESS if right == Access.READ else ECA.NOWTACCESS)
        return found

    def on_event_add(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        opened = self.opened(circuit, frame, Access.READ)
        block(opened.pv, frame.data_type, frame.count)  # refused, if it cannot be
        made = circuit.subscriptions[frame.parameter2] = Subscription(opened, frame)
        return opened.name, [event(made)]

    def on_event_cancel(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        opened = circuit.channels.get(frame.parameter1)
        circuit.subscriptions.pop(frame.parameter2, None)
        last = replace(frame, command=int(Command.EVENT_ADD), payload=b"")
        return opened.name if opened else None, [last]

    def on_read(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        opened = self.opened(circuit, frame, Access.READ)
        count, data = block(opened.pv, frame.data_type, frame.count)
        return opened.name, [
            Frame(frame.command, frame.data_type, count, int(ECA.NORMAL), frame.parameter2, data)
        ]

    def on_write(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        opened = self.opened(circuit, frame, Access.WRITE)
        value = from_block(opened.pv, frame.data_type, frame.count, frame.payload)
        try:
            opened.pv.set(value)
        except ValueError:
            raise Refused(ECA.PUTFAIL) from None
        opened.pv.timestamp = time.time()
        self.puts.append((opened.name, opened.pv.value))
        self.post(opened.name)
        if frame.command == Command.WRITE:
            return opened.name, []
        return opened.name, [replace(frame, parameter1=int(ECA.NORMAL), payload=b"")]

    def on_clear(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        gone = circuit.channels.pop(frame.parameter1, None)
        for number, each in list(circuit.subscriptions.items()):
            if each.opened is gone:
                del circuit.subscriptions[number]
        return gone.name if gone else None, [frame]

    def on_events(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        circuit.events = frame.command == Command.EVENTS_ON
        for each in [s for s in circuit.subscriptions.values() if s.owed and circuit.events]:
            self.update(circuit, each)
        return None, []

    def on_echo(self, circuit: Circuit, frame: Frame) -> tuple[str | None, list[Frame]]:
        return None, [frame]

    # -- updates

    def post(self, name: str, mask: int = int(DBE.VALUE | DBE.LOG | DBE.ALARM)) -> int:
        """Tell all who subscribed to one of these kinds of change; how many that are."""
        told = 0
        for circuit in list(self.circuits.values()):
            for each in list(circuit.subscriptions.values()):
                if each.opened.name == name and each.mask & mask:
                    self.update(circuit, each)
                    told += 1
        return told

    def update(self, circuit: Circuit, subscription: Subscription) -> None:
        subscription.owed = not circuit.events
        if circuit.events:
            name = subscription.opened.name
            self.reply(circuit, subscription.asked, name, [event(subscription)])

    def rights(self, name: str, access: Access) -> None:
        """Change what clients may do, and tell them."""
        self.pvs[name].access = access
        for circuit in self.circuits.values():
            for each in circuit.channels.values():
                if each.name == name:
                    circuit.send([_wire.access_rights(each.cid, int(access)).encode()])


def event(subscription: Subscription) -> Frame:
    """The update that a subscription gets now."""
    asked = subscription.asked
    try:
        count, data = block(subscription.opened.pv, asked.data_type, asked.count)
        status = ECA.NORMAL
    except Refused as error:
        count, data, status = asked.count, b"", error.status
    return Frame(Command.EVENT_ADD, asked.data_type, count, int(status), asked.parameter2, data)


HANDLERS: dict[int, Callable[[Engine, Circuit, Frame], tuple[str | None, list[Frame]]]] = {
    Command.VERSION: Engine.on_version,
    Command.SEARCH: Engine.on_search,
    Command.CREATE_CHAN: Engine.on_create,
    Command.EVENT_ADD: Engine.on_event_add,
    Command.EVENT_CANCEL: Engine.on_event_cancel,
    Command.READ: Engine.on_read,
    Command.READ_NOTIFY: Engine.on_read,
    Command.WRITE: Engine.on_write,
    Command.WRITE_NOTIFY: Engine.on_write,
    Command.CLEAR_CHANNEL: Engine.on_clear,
    Command.EVENTS_OFF: Engine.on_events,
    Command.EVENTS_ON: Engine.on_events,
    Command.READ_SYNC: Engine.on_echo,
    Command.ECHO: Engine.on_echo,
}
