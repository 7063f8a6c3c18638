"""What `epicsx doctor` asks the network, frame by frame, without libca: searches, circuits, the repeater.

It asks as a client does and changes nothing: it opens channels, reads once, and closes them.

Threads. None; each function may run in any, and returns at its deadline.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from . import _repeater, _wire
from ._doctor_findings import Address
from ._wire import Command, Frame, Parser

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Answer",
    "Circuit",
    "Ended",
    "Found",
    "Garbled",
    "ask_name_server",
    "repeater",
    "search",
]

DATAGRAM = 1024  # MAX_UDP_SEND of caProto.h
ROUNDS = (0.0, 0.05, 0.15, 0.4, 1.0, 2.0, 4.0)  # seconds after which is asked again
FOR_ALL = (
    2  # of these rounds, so many ask again for what has an answer: there may be a second server
)


@dataclass(frozen=True)
class Answer:
    """That a server has a PV."""

    server: Address
    seconds: float  # since it was asked first
    by: Address | None = None  # the name server that said so


@dataclass
class Found:
    """What a search brought."""

    answers: dict[bytes, dict[Address, Answer]] = field(default_factory=dict)
    refused: list[Address] = field(default_factory=list)  # nobody has that UDP port
    failed: dict[Address, str] = field(default_factory=dict)  # what could not be sent, and why


def datagrams(names: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
    """The searches for some numbered names, as few datagrams as hold them."""
    head = _wire.version(1).encode()
    data = head
    for number, name in names:
        more = _wire.search(name, number).encode()
        if len(data) + len(more) > DATAGRAM and data != head:
            yield data
            data = head
        data += more
    if data != head:
        yield data


def search(
    names: Iterable[bytes],
    addresses: Sequence[Address],
    timeout: float,
    *,
    wanted: Iterable[bytes] = (),
    grace: float = 0.3,
) -> Found:
    """Ask all addresses for all names by UDP, again and again until the deadline, and collect every answer.

    When `wanted` have answered, it waits `grace` seconds more, for further servers, and returns.
    """
    numbers = dict(enumerate(dict.fromkeys(names), 1))
    found = Found({name: {} for name in numbers.values()})
    missing = set(wanted)
    began = time.monotonic()
    end = began + timeout
    rounds = [began + each for each in ROUNDS]
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("", 0))
        listeners = _listeners(addresses, stack)
        asked = 0
        while (now := time.monotonic()) < end:
            if asked < len(rounds) and now >= rounds[asked]:
                asked += 1
                rows = [
                    (number, name)
                    for number, name in numbers.items()
                    if asked <= FOR_ALL or not found.answers[name]
                ]
                _send(sock, rows, addresses, found)
            until = min([end, *rounds[asked : asked + 1]])
            wait = until - time.monotonic()
            if wait > 0:
                sock.settimeout(wait)
                with contextlib.suppress(OSError):  # also the time-out
                    data, sender = sock.recvfrom(0x10000)
                    _note(data, sender, numbers, found, time.monotonic() - began)
                if missing and all(found.answers[name] for name in missing):
                    missing = set()
                    end = min(end, max(time.monotonic(), rounds[FOR_ALL - 1]) + grace)
        found.refused = [address for address, probe in listeners.items() if _is_refused(probe)]
    return found


def _send(
    sock: socket.socket,
    rows: Sequence[tuple[int, bytes]],
    addresses: Sequence[Address],
    found: Found,
) -> None:
    for data in datagrams(rows):
        for address in addresses:
            try:
                sock.sendto(data, address)
            except OSError as error:
                found.failed[address] = error.strerror or str(error)


def _note(
    data: bytes, sender: Address, numbers: dict[int, bytes], found: Found, seconds: float
) -> None:
    for frame in _wire.frames_of(data):
        name = numbers.get(frame.parameter2)
        if frame.command == Command.SEARCH and name is not None:
            server = _server(frame, sender)
            found.answers[name].setdefault(server, Answer(server, seconds))


def _server(frame: Frame, sender: Address) -> Address:
    """The server that an answer names: udpiiu::searchRespAction, tcpiiu::searchRespNotify."""
    if frame.parameter1 == _wire.SAME_ADDRESS:
        return sender[0], frame.data_type
    return socket.inet_ntoa(struct.pack(">I", frame.parameter1)), frame.data_type


def _listeners(
    addresses: Sequence[Address], stack: contextlib.ExitStack
) -> dict[Address, socket.socket]:
    """A connected socket for each address, which hears if the port is nobody's; one that is not connected does not."""
    probes = {}
    for address in addresses:
        probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        probe.setblocking(False)
        with contextlib.suppress(OSError):  # a broadcast address may not be connected to
            probe.connect(address)
            probe.send(_wire.version(1).encode())
            probes[address] = probe
    return probes


def _is_refused(probe: socket.socket) -> bool:
    try:
        probe.recv(1)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


# ---- circuits


class Ended(Exception):
    """The server closed or reset the connection."""


class Garbled(Exception):
    """What came is not Channel Access."""


class Circuit:
    """A connection to a server, with one deadline for all that is done on it."""

    def __init__(self, server: Address, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._parser = Parser()
        self._frames: list[Frame] = []
        self._socket = socket.create_connection(server, timeout)
        try:
            self.send(_wire.version(), _wire.client_name(_user()), _wire.host_name(_host()))
        except BaseException:
            self._socket.close()
            raise

    def send(self, *frames: Frame) -> None:
        """Send frames."""
        self._socket.settimeout(self._left())
        try:
            self._socket.sendall(b"".join(frame.encode() for frame in frames))
        except ConnectionError as error:
            raise Ended from error

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def next(self) -> Frame:
        """The next frame; TimeoutError, Ended or Garbled if none comes."""
        while not self._frames:
            self._socket.settimeout(self._left())
            try:
                data = self._socket.recv(1 << 18)
            except ConnectionError as error:
                raise Ended from error
            if not data:
                raise Ended
            self._frames += [frame for frame, _ in self._parser.feed(data)]
            begun = self._parser.begun
            commands = [frame.command for frame in self._frames]
            commands += [] if begun is None else [begun]
            if any(command > max(Command) for command in commands):
                raise Garbled
        return self._frames.pop(0)

    def extend(self, timeout: float) -> None:
        """Begin a new time-out."""
        self._deadline = time.monotonic() + timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()


def _user() -> bytes:
    try:
        return os.fsencode(getpass.getuser())
    except (KeyError, OSError, ImportError):  # nobody has this user's number
        return b"nobody"


def _host() -> bytes:
    return os.fsencode(socket.gethostname())


def ask_name_server(
    server: Address, names: Iterable[bytes], timeout: float
) -> tuple[dict[bytes, Answer], set[bytes]]:
    """What a name server says, over TCP: the PVs it knows, and those that it says it does not know.

    Raises
    ------
    OSError
        It cannot be connected to; TimeoutError, if that takes too long.
    Ended, Garbled
        It has ended the connection, or does not speak Channel Access.
    """
    numbers = dict(enumerate(dict.fromkeys(names), 1))
    known: dict[bytes, Answer] = {}
    unknown: set[bytes] = set()
    began = time.monotonic()
    with Circuit(server, timeout) as circuit:
        circuit.send(*(_wire.search(name, number, reply=True) for number, name in numbers.items()))
        circuit.send(Frame(Command.ECHO))
        with contextlib.suppress(TimeoutError):
            while len(known) + len(unknown) < len(numbers):
                frame = circuit.next()
                name = numbers.get(frame.parameter2)
                if name is not None and frame.command == Command.SEARCH:
                    seconds = time.monotonic() - began
                    known[name] = Answer(_server(frame, server), seconds, server)
                elif name is not None and frame.command == Command.NOT_FOUND:
                    unknown.add(name)
    return known, unknown


# ---- the repeater


def repeater(port: int, timeout: float = 1.0) -> Literal["confirmed", "absent", "silent"]:
    """Whether a CA repeater has that UDP port of this host: it confirms who registers."""
    if _repeater.port_is_free(port):
        return "absent"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # Not connected to its port: it confirms from another one (repeaterClient::sendConfirm in repeater.cpp).
        sock.bind(("127.0.0.1", 0))
        end = time.monotonic() + timeout
        loopback = struct.unpack(">I", socket.inet_aton("127.0.0.1"))[0]
        sock.sendto(_wire.repeater_register(loopback).encode(), ("127.0.0.1", port))
        with contextlib.suppress(TimeoutError):
            while (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                frames = _wire.frames_of(sock.recv(2048))
                if any(frame.command == Command.REPEATER_CONFIRM for frame in frames):
                    return "confirmed"
    return "silent"
