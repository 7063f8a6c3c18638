"""The frames of Channel Access: built and parsed, whatever the pieces in which they come."""

from __future__ import annotations

import json

import pytest

from epicsx import _wire
from epicsx._wire import Command, Frame, Parser, frames_of

FRAMES = [
    Frame(Command.ECHO),
    Frame(Command.VERSION, 1, 13, 0xFFFFFFFF, 7),
    _wire.search(b"a:name", 5),
    Frame(Command.EVENT_ADD, 20, 3, 1, 2, b"\1" * 40),
    Frame(Command.EVENT_ADD, 6, 70_000, 1, 2, b"\2" * 8),  # a count that needs the long header
    Frame(Command.READ_NOTIFY, 4, 65_536, 1, 2, b"\3" * 65_536),
    Frame(Command.READ_NOTIFY, 4, 65_528, 1, 2, b"\4" * 65_528),  # the longest of the short ones
    Frame(60_000, 0xFFFF, 0, 0, 0),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame.command}-{frame.count}")
def test_there_and_back(frame: Frame) -> None:
    data = frame.encode()
    assert len(data) % 8 == 0
    assert frames_of(data) == [frame]
    assert Frame.of_row(json.loads(json.dumps(frame.row()))) == frame


def test_the_bytes() -> None:
    # A search as libca sends it, and the header of a frame of 2**17 bytes: the Channel Access Protocol Specification.
    assert _wire.search(b"abc", 0x1234).encode() == bytes.fromhex(
        "0006 0008 0005 000d 00001234 00001234 6162630000000000"
    )
    assert Frame(15, 6, 16_384, 1, 9, b"\0" * 131_072).encode()[:24] == bytes.fromhex(
        "000f ffff 0006 0000 00000001 00000009 00020000 00004000"
    )
    assert _wire.version(3).encode() == bytes.fromhex("0000 0000 0001 000d 00000003 00000000")


@pytest.mark.parametrize("length", range(17))
def test_names_are_ended_by_a_nul_and_padded(length: int) -> None:
    frame = _wire.create_channel(b"n" * length, 1)
    assert len(frame.payload) % 8 == 0 and len(frame.payload) > length
    assert frame.text == "n" * length


def test_payloads_are_padded() -> None:
    (frame,) = frames_of(Frame(Command.WRITE, payload=b"123").encode())
    assert frame.payload == b"123\0\0\0\0\0"


@pytest.mark.parametrize("step", [1, 7, 16, 17, 1000, 100_000])
def test_a_stream_in_pieces(step: int) -> None:
    data = b"".join(frame.encode() for frame in FRAMES)
    parser = Parser()
    got = []
    for start in range(0, len(data), step):
        got += list(parser.feed(data[start : start + step]))
    assert [frame for frame, _ in got] == FRAMES
    assert b"".join(raw for _, raw in got) == data
    assert parser.rest() == b""


def test_what_is_not_complete() -> None:
    whole = FRAMES[3].encode()
    parser = Parser()
    begun = [parser.begun]
    assert list(parser.feed(whole + whole[:20])) == [(FRAMES[3], whole)]
    begun.append(parser.begun)
    assert parser.rest() == whole[:20]
    begun.append(parser.begun)
    assert begun == [None, Command.EVENT_ADD, None]
    assert frames_of(whole + whole[:20]) == [FRAMES[3]]
    assert frames_of(b"garbage") == []


def test_a_header_may_lie() -> None:
    data = Frame(Command.ECHO, payload=b"12345678", size=4).encode()
    (frame,) = frames_of(data)
    assert (frame.payload, len(data)) == (b"1234", 24)
    data = Frame(Command.ECHO, size=0xFFFFFFF8).encode()
    assert frames_of(data) == [] and len(data) == 24
