"""The frames of the Channel Access protocol: parsed and built, nothing sent.

For what looks at the wire itself, which libca does not show: the fault proxy of `epicsx.testing` and `epicsx doctor`.
A frame is a header of 16 bytes, big-endian, and a payload padded to 8 bytes; where size or count do not fit 16 bits,
the header says 0xffff and 0, and eight bytes with both follow (caProto.h; the Channel Access Protocol Specification,
"Message Structure"; extended headers from protocol 4.9 on).

A leaf: imports nothing of ours, so anything may import it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

__all__ = ["MINOR_VERSION", "Command", "Frame", "Parser", "frames_of"]

MINOR_VERSION = 13
"""The protocol's minor version that we speak, as EPICS base does since 3.14.12: 4.13."""

SHOWN = 64  # bytes of a payload that a log keeps
SERVER_PORT = 5064
HEADER_SIZE = 16
_HEADER = struct.Struct(">HHHHII")
_ANNEX = struct.Struct(">II")
_MARK = 0xFFFF  # in place of the size: the annex has it

SAME_ADDRESS = 0xFFFFFFFF
"""In a search's answer, in place of the server's address: it is the sender's."""

DO_REPLY, DO_NOT_REPLY = 10, 5  # in a search: whether "not found" is to be told


class Command(IntEnum):
    """What a frame is about; the names are those of caProto.h."""

    VERSION = 0
    EVENT_ADD = 1
    EVENT_CANCEL = 2
    READ = 3
    WRITE = 4
    SNAPSHOT = 5
    SEARCH = 6
    BUILD = 7
    EVENTS_OFF = 8
    EVENTS_ON = 9
    READ_SYNC = 10
    ERROR = 11
    CLEAR_CHANNEL = 12
    RSRV_IS_UP = 13
    NOT_FOUND = 14
    READ_NOTIFY = 15
    READ_BUILD = 16
    REPEATER_CONFIRM = 17
    CREATE_CHAN = 18
    WRITE_NOTIFY = 19
    CLIENT_NAME = 20
    HOST_NAME = 21
    ACCESS_RIGHTS = 22
    ECHO = 23
    REPEATER_REGISTER = 24
    SIGNAL = 25
    CREATE_CH_FAIL = 26
    SERVER_DISCONN = 27


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes
    ----------
    command : int
        A `Command`, or a number that none has.
    data_type, count, parameter1, parameter2 : int
        Fields of the header, whose meaning depends on the command; in caProto.h they are m_dataType, m_count, m_cid
        and m_available.
    payload : bytes
        With its padding, as it came.
    size : int, optional
        The payload's size as the header says it, where that is another than the payload's.
    """

    command: int
    data_type: int = 0
    count: int = 0
    parameter1: int = 0
    parameter2: int = 0
    payload: bytes = b""
    size: int | None = None

    def encode(self) -> bytes:
        """The bytes on the wire, the payload padded with zeros to a multiple of 8."""
        payload = self.payload + b"\0" * (-len(self.payload) % 8)
        size = len(payload) if self.size is None else self.size
        plain = size < _MARK and self.count < _MARK
        head = _HEADER.pack(
            self.command,
            size if plain else _MARK,
            self.data_type,
            self.count if plain else 0,
            self.parameter1,
            self.parameter2,
        )
        return head + (b"" if plain else _ANNEX.pack(size, self.count)) + payload

    def row(self) -> list[int | str | None]:
        """The frame as JSON can have it."""
        payload = base64.b64encode(self.payload).decode()
        numbers = [self.command, self.data_type, self.count, self.parameter1, self.parameter2]
        return [*numbers, payload, self.size]

    @classmethod
    def of_row(cls, row: list[Any]) -> Frame:
        """And back."""
        command, kind, count, first, second, payload, size = row
        return cls(command, kind, count, first, second, base64.b64decode(payload), size)

    def shortened(self) -> Frame:
        """As a log keeps it: at most 64 bytes of the payload, `size` being that of the whole."""
        if len(self.payload) <= SHOWN:
            return self
        size = len(self.payload) if self.size is None else self.size
        return replace(self, payload=self.payload[:SHOWN], size=size)

    @property
    def text(self) -> str:
        """The payload as text, up to the first NUL: the name in a search or a CREATE_CHAN."""
        return self.payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


class Parser:
    """Cuts a stream of bytes into frames, wherever its pieces begin and end."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Frame, bytes]]:
        """Each frame that is now complete, and its bytes as they came."""
        buffer = self._buffer
        buffer += data
        start = 0
        while True:
            length = _length(buffer, start)
            if len(buffer) - start < length:
                break
            with memoryview(buffer) as view:
                raw = bytes(view[start : start + length])
            start += length
            yield _decode(raw), raw
        del buffer[:start]

    @property
    def begun(self) -> int | None:
        """The command of a frame of which more is to come; None if there is none."""
        return None if len(self._buffer) < 2 else int.from_bytes(self._buffer[:2], "big")

    def rest(self) -> bytes:
        """Take out those bytes."""
        found = bytes(self._buffer)
        self._buffer.clear()
        return found


def frames_of(datagram: bytes) -> list[Frame]:
    """The frames of a datagram, up to the first that is not complete."""
    return [frame for frame, _ in Parser().feed(datagram)]


def _length(buffer: bytearray, start: int) -> int:
    """The length of the frame that begins there; as much of it as can be known yet."""
    have = len(buffer) - start
    if have < HEADER_SIZE:
        return HEADER_SIZE
    size: int = _HEADER.unpack_from(buffer, start)[1]
    if size != _MARK:
        return HEADER_SIZE + size
    if have < HEADER_SIZE + _ANNEX.size:
        return HEADER_SIZE + _ANNEX.size
    size = _ANNEX.unpack_from(buffer, start + HEADER_SIZE)[0]
    return HEADER_SIZE + _ANNEX.size + size


def _decode(raw: bytes) -> Frame:
    command, size, kind, count, first, second = _HEADER.unpack_from(raw)
    start = HEADER_SIZE
    if size == _MARK:
        size, count = _ANNEX.unpack_from(raw, start)
        start += _ANNEX.size
    return Frame(command, kind, count, first, second, raw[start:])


# ---- what a client sends


def _named(command: Command, name: bytes, **fields: int) -> Frame:
    return Frame(command, payload=name + b"\0" * (8 - len(name) % 8), **fields)


def version(sequence: int | None = None, *, priority: int = 0) -> Frame:
    """What begins a datagram (with a sequence number, which an answer repeats) or a circuit (with its priority)."""
    if sequence is None:
        return Frame(Command.VERSION, priority, MINOR_VERSION)
    return Frame(Command.VERSION, 1, MINOR_VERSION, sequence)


def search(name: bytes, identifier: int, *, reply: bool = False) -> Frame:
    """Who has this PV? With `reply` a server that has it not says so, over TCP."""
    return _named(
        Command.SEARCH,
        name,
        data_type=DO_REPLY if reply else DO_NOT_REPLY,
        count=MINOR_VERSION,
        parameter1=identifier,
        parameter2=identifier,
    )


def create_channel(name: bytes, cid: int) -> Frame:
    """Open a channel; the answer is ACCESS_RIGHTS and CREATE_CHAN, or CREATE_CH_FAIL."""
    return _named(Command.CREATE_CHAN, name, parameter1=cid, parameter2=MINOR_VERSION)


def client_name(user: bytes) -> Frame:
    """Who asks, for access security."""
    return _named(Command.CLIENT_NAME, user)


def host_name(host: bytes) -> Frame:
    """Where from, for access security."""
    return _named(Command.HOST_NAME, host)


def read_notify(data_type: int, count: int, sid: int, ioid: int) -> Frame:
    """Read once; count 0 is as many elements as there are."""
    return Frame(Command.READ_NOTIFY, data_type, count, sid, ioid)


def repeater_register(address: int) -> Frame:
    """Ask the repeater for beacons; it confirms."""
    return Frame(Command.REPEATER_REGISTER, parameter2=address)


# ---- what a server sends


def search_reply(identifier: int, port: int, *, address: int = SAME_ADDRESS) -> Frame:
    """Here is the PV of that search; the payload is the minor version, which libca has not read since 3.13."""
    payload = MINOR_VERSION.to_bytes(2, "big")
    return Frame(Command.SEARCH, port, 0, address, identifier, payload)


def access_rights(cid: int, rights: int) -> Frame:
    """What the client may do: bit 0 reading, bit 1 writing."""
    return Frame(Command.ACCESS_RIGHTS, parameter1=cid, parameter2=rights)


def channel_created(data_type: int, count: int, cid: int, sid: int) -> Frame:
    """The channel is open; native type and count, and the number by which the server knows it."""
    return Frame(Command.CREATE_CHAN, data_type, count, cid, sid)


def error(request: Frame, status: int, text: bytes, cid: int) -> Frame:
    """Something failed: an ECA status, the header of what was asked, a text ended by a NUL."""
    head = Frame(
        request.command,
        request.data_type,
        request.count,
        request.parameter1,
        request.parameter2,
        size=len(request.payload),
    ).encode()
    return Frame(Command.ERROR, 0, 0, cid, status, head + text + b"\0")
