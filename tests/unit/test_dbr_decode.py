"""DBR blocks to Python values: every type, from bytes packed here by hand."""

from __future__ import annotations

import gc
import pickle
import struct
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from epicsx import _dbr
from epicsx.enums import DBR

# Per native type: struct code, three values, and six display and alarm and two control limits.
NATIVE: dict[DBR, tuple[str, list[Any], list[Any]]] = {
    DBR.SHORT: ("h", [-32768, 0, 32767], [10, -10, 8, 6, -6, -8, 9, -9]),
    DBR.FLOAT: ("f", [-1.5, 0.0, 3e38], [10.5, -10.5, 8.5, 6.5, -6.5, -8.5, 9.5, -9.5]),
    DBR.ENUM: ("H", [0, 1, 65535], []),
    DBR.CHAR: ("B", [0, 65, 255], [250, 5, 240, 230, 20, 10, 245, 6]),
    DBR.LONG: ("i", [-(2**31), 0, 2**31 - 1], [2**31 - 1, -(2**31), 8, 6, -6, -8, 9, -9]),
    DBR.DOUBLE: ("d", [-1.5e300, 0.0, 2.5], [1e10, -1e10, 8.25, 6.25, -6.25, -8.25, 9.5, -9.5]),
}
STRINGS = ["first", "", "x" * 39]
STATES = ("Off", "", "A name of 26 bytes, no NUL")
SEC, NSEC = 1_000_000_000, 987_654_321
STAMP = (SEC + 631152000) * 10**9 + NSEC
LIMITS = (
    "upper_disp_limit",
    "lower_disp_limit",
    "upper_alarm_limit",
    "upper_warning_limit",
    "lower_warning_limit",
    "lower_alarm_limit",
    "upper_ctrl_limit",
    "lower_ctrl_limit",
)


def native_of(dbr_type: int) -> DBR:
    return DBR(_dbr.layout(dbr_type).native_type)


def header(dbr_type: DBR) -> bytes:
    """The header of every type, packed without the help of the code under test."""
    native = native_of(dbr_type)
    code, _, limits = NATIVE.get(native, ("40s", [], []))
    packed = struct.pack("=hh", 3, 2)
    family = dbr_type.name.partition("_")[0]
    if dbr_type <= DBR.DOUBLE or dbr_type in (DBR.PUT_ACKT, DBR.PUT_ACKS, DBR.CLASS_NAME):
        return b""
    if dbr_type == DBR.STSACK_STRING:
        return packed + struct.pack("=HH", 1, 2)
    if family == "TIME":
        packed += struct.pack("=II", SEC, NSEC)
        return packed + {"h": bytes(2), "H": bytes(2), "B": bytes(3), "d": bytes(4)}.get(code, b"")
    if family == "STS" or native == DBR.STRING:
        return packed + {"B": bytes(1), "d": bytes(4)}.get(code, b"")
    if native == DBR.ENUM:
        names = b"".join(name.encode().ljust(26, b"\0") for name in STATES)
        return packed + struct.pack("=h", 3) + names.ljust(16 * 26, b"\0")
    if code in "fd":
        packed += struct.pack("=hh", 4, 0)
    packed += b"mm/s^2\0\0"
    packed += struct.pack(
        f"={8 if family == 'CTRL' else 6}{code}", *limits[: 8 if family == "CTRL" else 6]
    )
    return packed + (b"\0" if code == "B" else b"")


def values(dbr_type: DBR, count: int) -> tuple[bytes, list[Any]]:
    native = native_of(dbr_type)
    if native == DBR.STRING:
        some = [STRINGS[i % 3] for i in range(count)]
        return b"".join(s.encode().ljust(40, b"\0") for s in some), some
    code, base, _ = NATIVE[DBR.ENUM if DBR.PUT_ACKT <= dbr_type <= DBR.PUT_ACKS else native]
    some = [base[i % 3] for i in range(count)]
    return struct.pack(f"={count}{code}", *some), some


def check_metadata(decoded: _dbr.Decoded, dbr_type: DBR) -> None:
    family = dbr_type.name.partition("_")[0]
    alarm = header(dbr_type) != b""
    assert (decoded.status, decoded.severity) == ((3, 2) if alarm else (None, None))
    assert decoded.timestamp_ns == (STAMP if family == "TIME" else None)
    assert (decoded.ackt, decoded.acks) == ((1, 2) if family == "STSACK" else (None, None))
    if family not in ("GR", "CTRL"):
        assert decoded.control is None
        return
    control = decoded.control
    assert control is not None
    assert (control.status, control.severity) == (3, 2)
    native = native_of(dbr_type)
    limits = NATIVE[native][2] if native in NATIVE else []
    expected: dict[str, Any] = dict.fromkeys(LIMITS)
    expected.update(zip(LIMITS, limits[: 8 if family == "CTRL" else 6], strict=False))
    if native == DBR.FLOAT:
        expected = {k: v if v is None else float(np.float32(v)) for k, v in expected.items()}
    assert {name: getattr(control, name) for name in LIMITS} == expected
    assert control.units == ("mm/s^2" if limits else None)
    assert control.precision == (4 if native in (DBR.FLOAT, DBR.DOUBLE) else None)
    assert control.enum_strings == (STATES if native == DBR.ENUM else None)


@pytest.mark.parametrize("dbr_type", list(DBR), ids=lambda t: t.name)
@pytest.mark.parametrize("count", [0, 1, 3, 1000])
@pytest.mark.parametrize("scalar", [True, False])
def test_every_type(dbr_type: DBR, count: int, scalar: bool) -> None:
    raw, expected = values(dbr_type, count)
    block = header(dbr_type) + raw
    assert len(block) == _dbr.nbytes(dbr_type, count)
    decoded = _dbr.decode(dbr_type, count, block, scalar=scalar)
    assert (decoded.dbr_type, decoded.native_type) == (dbr_type, native_of(dbr_type))
    assert decoded.count == count
    check_metadata(decoded, dbr_type)
    value = decoded.value
    if native_of(dbr_type) == DBR.FLOAT:
        expected = [float(np.float32(v)) for v in expected]
    if scalar and count == 1:
        assert value == expected[0]
        assert type(value) is type(expected[0])
    elif native_of(dbr_type) == DBR.STRING:
        assert value == expected
    else:
        assert isinstance(value, np.ndarray)
        assert value.dtype == _dbr.dtype_of(dbr_type)
        assert value.shape == (count,)
        assert value.tolist() == expected
        assert value.flags.writeable and value.flags.c_contiguous and value.flags.aligned


@pytest.mark.parametrize("dbr_type", list(DBR), ids=lambda t: t.name)
@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_encode_block_makes_the_same_bytes(dbr_type: DBR, count: int) -> None:
    raw, expected = values(dbr_type, count)
    control = _dbr.decode(dbr_type, count, header(dbr_type) + raw).control
    block = _dbr.encode_block(
        dbr_type,
        count,
        expected,
        status=3,
        severity=2,
        timestamp_ns=STAMP,
        control=control,
        ackt=1,
        acks=2,
    )
    assert block == header(dbr_type) + raw


def test_encode_block_defaults() -> None:
    decoded = _dbr.decode(DBR.TIME_DOUBLE, 1, _dbr.encode_block(DBR.TIME_DOUBLE, 1, 2.5))
    assert (decoded.value, decoded.status, decoded.severity) == (2.5, 0, 0)
    assert decoded.timestamp_ns == 631152000 * 10**9
    decoded = _dbr.decode(DBR.CTRL_DOUBLE, 1, _dbr.encode_block(DBR.CTRL_DOUBLE, 1, 2.5))
    assert decoded.control is not None
    assert (decoded.control.units, decoded.control.precision) == ("", 0)
    with pytest.raises(ValueError, match="2 elements given, not 3"):
        _dbr.encode_block(DBR.LONG, 3, [1, 2])


@pytest.mark.parametrize("dbr_type", list(DBR), ids=lambda t: t.name)
@pytest.mark.parametrize("count", [1, 3])
def test_short_blocks_are_refused(dbr_type: DBR, count: int) -> None:
    raw, _ = values(dbr_type, count)
    block = header(dbr_type) + raw
    for length in (0, len(block) // 2, len(block) - 1):
        with pytest.raises(ValueError, match="bytes"):
            _dbr.decode(dbr_type, count, block[:length])
    with pytest.raises(ValueError, match="bytes"):
        _dbr.decode(dbr_type, sys.maxsize, block)


def test_long_blocks_are_accepted() -> None:
    assert _dbr.decode(DBR.LONG, 1, struct.pack("=ii", 5, 6)).value == 5


def test_a_view_shares_memory_and_keeps_its_owner() -> None:
    class Buffer(bytearray):
        pass

    data = Buffer(_dbr.encode_block(DBR.TIME_DOUBLE, 100, np.arange(100.0)))
    gone = weakref.ref(data)
    view = _dbr.decode(DBR.TIME_DOUBLE, 100, data, copy=False).value
    assert isinstance(view, np.ndarray)
    assert view.flags.writeable and not view.flags.owndata
    struct.pack_into("=d", data, 16, 77.5)
    assert view[0] == 77.5
    view[1] = 78.5
    assert struct.unpack_from("=d", data, 24) == (78.5,)
    tail = view[90:]
    del data, view
    gc.collect()
    assert gone() is not None
    assert tail.tolist() == list(range(90, 100))
    del tail
    gc.collect()
    assert gone() is None


def test_a_view_over_read_only_bytes_is_read_only() -> None:
    block = _dbr.encode_block(DBR.TIME_CHAR, 100, np.arange(100))
    view = _dbr.decode(DBR.TIME_CHAR, 100, block, copy=False).value
    assert isinstance(view, np.ndarray)
    assert not view.flags.writeable
    assert view.tolist() == list(range(100))


def test_a_view_that_is_not_aligned_says_so() -> None:
    data = bytearray(80)
    offset = 8 - np.frombuffer(data, np.uint8).ctypes.data % 8 + 1 & 7
    data[offset : offset + 72] = _dbr.encode_block(DBR.DOUBLE, 9, np.arange(9.0))
    view = _dbr.decode(DBR.DOUBLE, 9, memoryview(data)[offset:], copy=False).value
    assert isinstance(view, np.ndarray)
    assert not view.flags.aligned
    assert view.tolist() == list(range(9))


def test_a_copy_is_independent() -> None:
    data = bytearray(_dbr.encode_block(DBR.LONG, 3, [1, 2, 3]))
    copied = _dbr.decode(DBR.LONG, 3, data).value
    data[:] = bytes(12)
    assert isinstance(copied, np.ndarray)
    assert copied.tolist() == [1, 2, 3]
    data.append(0)  # not held


@pytest.fixture
def encoding() -> Iterator[None]:
    before = _dbr.get_encoding()
    yield
    _dbr.set_encoding(before)


def one_string(raw: bytes) -> Any:
    return _dbr.decode(DBR.STRING, 1, raw.ljust(40, b"\0")).value


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"plain", "plain"),
        (b"  kept \t ", "  kept \t "),
        (b"cut\0here", "cut"),
        (b"y" * 40, "y" * 40),
        ("Grad °C µ".encode(), "Grad °C µ"),
        (b"\xb0C", "�C"),
        (b"\xff" * 40, "�" * 40),
        (("a" * 39).encode() + b"\xc2", "a" * 39 + "�"),
        (b"\xed\xa0\x80", "���"),
    ],
)
def test_strings_never_raise(raw: bytes, text: str) -> None:
    assert one_string(raw) == text
    block = raw.ljust(40, b"\0") * 3
    assert _dbr.decode(DBR.STRING, 3, block).value == [text] * 3


@pytest.mark.usefixtures("encoding")
def test_encoding_can_be_set() -> None:
    assert _dbr.get_encoding() == "utf-8"
    _dbr.set_encoding("latin-1")
    assert _dbr.get_encoding() == "iso8859-1"
    assert one_string(b"25 \xb0C") == "25 °C"
    assert _dbr.encode_value("°", DBR.STRING)[2][:2] == b"\xb0\0"
    _dbr.set_encoding("cp1252")
    assert one_string(b"\x80\x81") == "€�"
    _dbr.set_encoding("shift_jis")
    assert one_string("温度".encode("shift_jis")) == "温度"
    assert one_string(b"\x81") == "�"
    _dbr.set_encoding("UTF8")
    assert _dbr.get_encoding() == "utf-8"


@pytest.mark.usefixtures("encoding")
def test_encodings_that_are_refused() -> None:
    with pytest.raises(LookupError):
        _dbr.set_encoding("no-such-codec")
    for name in ("utf-16", "utf-7", "cp037", "rot13", "hex", "idna", "punycode"):
        with pytest.raises(ValueError, match="ASCII"):
            _dbr.set_encoding(name)
    assert _dbr.get_encoding() == "utf-8"


def test_units_and_states_never_raise() -> None:
    block = bytearray(_dbr.encode_block(DBR.CTRL_DOUBLE, 1, 1.0))
    block[8:16] = b"\xb0C789012"  # all 8 bytes, the first not UTF-8
    control = _dbr.decode(DBR.CTRL_DOUBLE, 1, block).control
    assert control is not None and control.units == "�C789012"
    block = bytearray(_dbr.encode_block(DBR.CTRL_ENUM, 1, 1))
    for claimed, given in ((-1, 0), (0, 0), (16, 16), (17, 16), (32767, 16)):
        struct.pack_into("=h", block, 4, claimed)
        control = _dbr.decode(DBR.CTRL_ENUM, 1, block).control
        assert control is not None and control.enum_strings == ("",) * given


def test_a_time_stamp_of_any_bits() -> None:
    block = struct.pack("=hhII", -1, 32767, 2**32 - 1, 2**32 - 1) + bytes(4) + bytes(8)
    decoded = _dbr.decode(DBR.TIME_DOUBLE, 1, block)
    assert decoded.timestamp_ns == (2**32 - 1 + 631152000) * 10**9 + 2**32 - 1
    assert (decoded.status, decoded.severity) == (-1, 32767)


def test_control_of_a_string_has_nothing() -> None:
    control = _dbr.Control()
    fields = ("units", "precision", "enum_strings", *LIMITS)
    assert [getattr(control, name) for name in fields] == [None] * 11
    decoded = _dbr.decode(DBR.CTRL_STRING, 1, _dbr.encode_block(DBR.CTRL_STRING, 1, "a"))
    assert decoded.control == control


def test_control_is_a_frozen_value() -> None:
    nan = float("nan")
    a = _dbr.Control(units="mm", precision=3, lower_disp_limit=nan, upper_disp_limit=2.5)
    b = _dbr.Control(units="mm", precision=3, lower_disp_limit=float("nan"), upper_disp_limit=2.5)
    assert a == b and hash(a) == hash(b)
    assert a != _dbr.Control(units="mm", precision=3) and a != "mm"
    assert repr(a) == (
        "Control(units='mm', precision=3, lower_disp_limit=nan, upper_disp_limit=2.5,"
        " status=0, severity=0)"
    )
    assert pickle.loads(pickle.dumps(a)) == a
    for name in ("units", "status", "lower_disp_limit", "anything"):
        with pytest.raises(AttributeError):
            setattr(a, name, 1)
    assert _dbr.Control(enum_strings=["a", "b"]).enum_strings == ("a", "b")


def test_repr_of_decoded() -> None:
    decoded = _dbr.decode(DBR.STS_LONG, 1, _dbr.encode_block(DBR.STS_LONG, 1, 5, severity=1))
    assert repr(decoded) == "Decoded(dbr_type=12, count=1, value=5, status=0, severity=1)"
