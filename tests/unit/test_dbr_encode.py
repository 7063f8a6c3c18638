"""Python values to what a put sends, and what is refused before anything is sent."""

from __future__ import annotations

import array
import datetime
import decimal
import enum
import fractions
import math
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from epicsx import _dbr
from epicsx.enums import DBR
from epicsx.errors import BadTypeError, BadValueError

INTEGERS = {
    DBR.SHORT: ("h", -32768, 32767),
    DBR.ENUM: ("H", 0, 65535),
    DBR.CHAR: ("B", -128, 255),
    DBR.LONG: ("i", -(2**31), 2**31 - 1),
}
REALS = {DBR.FLOAT: "f", DBR.DOUBLE: "d"}
CODES = {**{k: v[0] for k, v in INTEGERS.items()}, **REALS}
NUMERIC = list(CODES)
BOTH = pytest.mark.parametrize("lenient", [False, True], ids=["strict", "lenient"])


def ids(value: object) -> str | None:
    return value.name if isinstance(value, DBR) else None


def sent(value: object, native: int, count: int = 1, *, lenient: bool = False) -> list[Any]:
    """The elements that a put sends, unpacked again."""
    dbr_type, n, raw = _dbr.encode_value(value, native, count, lenient=lenient, name="X:pv")
    assert dbr_type == native
    if native == DBR.STRING:
        assert len(raw) == 40 * n
        assert all(raw[i * 40 + 39] == 0 for i in range(n))
        return [raw[i * 40 : i * 40 + 40].rstrip(b"\0") for i in range(n)]
    return list(struct.unpack(f"={n}{CODES[DBR(native)]}", raw))


def refused(
    value: object, native: int, count: int = 1, *, lenient: bool = False
) -> BadTypeError | BadValueError:
    with pytest.raises((BadTypeError, BadValueError)) as caught:
        _dbr.encode_value(value, native, count, lenient=lenient, name="X:pv")
    assert caught.value.name == "X:pv"
    assert "'X:pv'" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, (BadTypeError, BadValueError))
    return caught.value


# ---- one number ----


@BOTH
@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize(
    "make",
    [
        int,
        float,
        np.int8,
        np.uint64,
        np.float16,
        np.float32,
        np.float64,
        np.longdouble,
        np.array,
        fractions.Fraction,
        decimal.Decimal,
        lambda x: DBR(x),
        lambda x: np.array(x, dtype=object),
    ],
)
def test_one_number(native: DBR, count: int, make: Callable[[int], object], lenient: bool) -> None:
    assert sent(make(7), native, count, lenient=lenient) == [7]


@BOTH
@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize("value", [True, np.True_])
def test_a_bool_is_a_number(native: DBR, value: object, lenient: bool) -> None:
    assert sent(value, native, lenient=lenient) == [1]
    assert sent([value, not value], native, 2, lenient=lenient) == [1, 0]
    assert sent(np.array([value, not value]), native, 2, lenient=lenient) == [1, 0]


@BOTH
@pytest.mark.parametrize("native", list(INTEGERS), ids=ids)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        float,
        lambda x: [x],
        lambda x: (float(x),),
        lambda x: np.array([x]),
        lambda x: np.array([x], dtype="f8"),
        lambda x: np.array([x], dtype=">i8"),
        lambda x: np.array(x),
        np.int64,
    ],
)
def test_range_of_integers(native: DBR, wrap: Callable[[int], object], lenient: bool) -> None:
    code, low, high = INTEGERS[native]
    for good in (low, 0, high):
        expected = good % 256 if code == "B" else good
        assert sent(wrap(good), native, lenient=lenient) == [expected]
        assert sent(wrap(good), native, 4, lenient=lenient) == [expected]
    for bad in (low - 1, high + 1, 2**40, -(2**40)):
        error = refused(wrap(bad), native, 4, lenient=lenient)
        assert isinstance(error, BadValueError)
        assert f"{native.name} holds {low} to {high}" in str(error)


@BOTH
@pytest.mark.parametrize("native", list(INTEGERS), ids=ids)
@pytest.mark.parametrize("value", [2**63, 2**64, -(2**64), 10**400])
def test_huge_integers(native: DBR, value: int, lenient: bool) -> None:
    assert isinstance(refused(value, native, lenient=lenient), BadValueError)
    assert isinstance(refused([value], native, 3, lenient=lenient), BadValueError)
    if value == 2**63:
        assert isinstance(refused(np.uint64(value), native, lenient=lenient), BadValueError)
        assert isinstance(refused(np.array([value]), native, lenient=lenient), BadValueError)


@BOTH
def test_integers_into_reals(lenient: bool) -> None:
    assert sent(2**53 + 1, DBR.DOUBLE, lenient=lenient) == [float(2**53)]
    assert sent(np.uint64(2**64 - 1), DBR.DOUBLE, lenient=lenient) == [float(2**64)]
    assert sent([2**70, -(2**70)], DBR.DOUBLE, 2, lenient=lenient) == [2.0**70, -(2.0**70)]
    assert sent(np.array([2**63], dtype="u8"), DBR.DOUBLE, 2, lenient=lenient) == [2.0**63]
    assert sent(2**24 + 1, DBR.FLOAT, lenient=lenient) == [float(2**24)]
    for native in REALS:
        assert isinstance(refused(10**400, native, lenient=lenient), BadValueError)


@pytest.mark.parametrize("native", list(INTEGERS), ids=ids)
@pytest.mark.parametrize("value", [1.5, -0.5, 1e-9])
def test_fractions(native: DBR, value: float) -> None:
    for given in (value, [value], (1, value), np.array([value]), np.float32(value)):
        error = refused(given, native, 5)
        assert isinstance(error, BadValueError)
        assert "only integers" in str(error)
        assert sent(given, native, 5, lenient=True)[-1] == math.trunc(value)
    assert sent(-0.9, native, lenient=True) == [0]
    assert sent(np.array([255.9]), DBR.CHAR, lenient=True) == [255]


@BOTH
@pytest.mark.parametrize("native", list(INTEGERS), ids=ids)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_inf_into_integers(native: DBR, value: float, lenient: bool) -> None:
    for given in (value, [1, value], np.array([1, value]), np.float32(value)):
        assert isinstance(refused(given, native, 5, lenient=lenient), BadValueError)


@BOTH
@pytest.mark.parametrize("native", list(REALS), ids=ids)
def test_nan_and_inf_into_reals(native: DBR, lenient: bool) -> None:
    for given in ([math.nan, math.inf, -math.inf], np.array([math.nan, math.inf, -math.inf])):
        a, b, c = sent(given, native, 3, lenient=lenient)
        assert math.isnan(a) and (b, c) == (math.inf, -math.inf)


def test_a_real_too_large_for_float() -> None:
    for given in (1e300, [1e300], np.array([1, 1e300]), 2**200):
        assert isinstance(refused(given, DBR.FLOAT, 3), BadValueError)
    assert sent(1e300, DBR.FLOAT, lenient=True) == [math.inf]
    assert sent(np.array([1e300]), DBR.FLOAT, lenient=True) == [math.inf]


NOT_NUMBERS: list[Any] = [
    None,
    1j,
    np.complex128(1),
    np.datetime64("2026-01-01"),
    np.timedelta64(1, "s"),
    datetime.datetime(2026, 1, 1),
    datetime.timedelta(1),
    object(),
    {},
    {1: 2},
    {1},
    iter([1]),
    int,
    list,
    np.array([1j]),
    np.array(["2026-01-01"], dtype="M8[s]"),
    np.array([1], dtype="m8[s]"),
    np.array(["1"]),
    np.array([b"1"]),
    np.zeros(1, dtype=[("a", "i4")]),
    np.array([None]),
    [None],
    [[1]],
    [(1,)],
    ["1"],
    [b"1"],
    [np.array([1])],
    [1j],
]


@BOTH
@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda v: repr(v)[:30])
def test_what_is_not_a_number(native: DBR, value: object, lenient: bool) -> None:
    for count in (1, 5):
        assert isinstance(refused(value, native, count, lenient=lenient), BadTypeError)


@pytest.mark.parametrize("native", NUMERIC, ids=ids)
def test_object_arrays(native: DBR) -> None:
    given = np.array([1, 2], dtype=object)
    assert isinstance(refused(given, native, 5), BadTypeError)
    assert sent(given, native, 5, lenient=True) == [1, 2]


# ---- rows of numbers ----


@BOTH
@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        [1, 2.0, np.int16(3)],
        deque([1, 2, 3]),
        array.array("d", [1, 2, 3]),
        array.array("b", [1, 2, 3]),
        memoryview(array.array("i", [1, 2, 3])),
        memoryview(b"\1\2\3"),
        np.array([1, 2, 3]),
        np.array([1.0, 2.0, 3.0], dtype=">f8"),
        np.array([1, 2, 3], dtype=">i2"),
        np.array([1, 9, 2, 9, 3])[::2],
        np.array([3, 2, 1], dtype="u1")[::-1],
        np.ma.masked_array([1, 2, 3], mask=[False, False, False]),
        np.array([1, 2, 3], dtype=np.longdouble),
    ],
    ids=lambda v: type(v).__name__,
)
def test_rows(native: DBR, value: object, lenient: bool) -> None:
    assert sent(value, native, 3, lenient=lenient) == [1, 2, 3]
    assert sent(value, native, 1000, lenient=lenient) == [1, 2, 3]


@BOTH
@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "f2"]
)
@pytest.mark.parametrize("size", [1, 50, 1000])
def test_arrays_of_every_dtype(native: DBR, dtype: str, size: int, lenient: bool) -> None:
    given = (np.arange(size) % 100).astype(dtype)
    assert sent(given, native, 1000, lenient=lenient) == given.tolist()
    assert sent(given.tolist(), native, 1000, lenient=lenient) == given.tolist()
    if dtype[0] == "i" and native not in (DBR.ENUM, DBR.CHAR):
        assert sent(-given, native, 1000, lenient=lenient) == (-given).tolist()


@pytest.mark.parametrize("native", NUMERIC, ids=ids)
def test_length(native: DBR) -> None:
    for given in ([1, 2, 3, 4], np.arange(1, 5), np.arange(1.0, 5.0), range(1, 5)):
        error = refused(given, native, 3)
        assert isinstance(error, BadValueError)
        assert "4 elements given, the record holds 3" in str(error)
        assert sent(given, native, 3, lenient=True) == [1, 2, 3]
        assert isinstance(refused(given, native, 1), BadValueError)
        assert isinstance(refused(given, native, 1, lenient=True), BadTypeError)


@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize("empty", [[], (), np.array([]), np.array([], "i4"), range(0)], ids=repr)
def test_nothing(native: DBR, empty: object) -> None:
    assert sent(empty, native, 100) == []
    assert sent(empty, native, 100, lenient=True) == [0] * 100
    assert isinstance(refused(empty, native, 1), BadValueError)
    assert isinstance(refused(empty, native, 1, lenient=True), BadTypeError)


@BOTH
@pytest.mark.parametrize("native", NUMERIC, ids=ids)
def test_one_element_into_a_scalar_record(native: DBR, lenient: bool) -> None:
    for given in ([4], (4.0,), np.array([4]), np.array([[4]]), array.array("i", [4])):
        assert sent(given, native, 1, lenient=lenient) == [4]


@BOTH
def test_images_are_put_row_by_row(lenient: bool) -> None:
    image = np.arange(6, dtype="u1").reshape(2, 3)
    assert sent(image, DBR.CHAR, 6, lenient=lenient) == [0, 1, 2, 3, 4, 5]
    assert sent(image.astype("f8"), DBR.LONG, 100, lenient=lenient) == [0, 1, 2, 3, 4, 5]
    assert isinstance(refused([[1, 2], [3, 4]], DBR.LONG, 4, lenient=lenient), BadTypeError)


def test_images_not_in_c_order() -> None:
    image = np.arange(6).reshape(2, 3).T
    assert isinstance(refused(image, DBR.LONG, 6), BadValueError)
    assert sent(image, DBR.LONG, 6, lenient=True) == [0, 3, 1, 4, 2, 5]


@BOTH
def test_masked_elements(lenient: bool) -> None:
    given = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    assert isinstance(refused(given, DBR.LONG, 3, lenient=lenient), BadValueError)


@BOTH
@pytest.mark.parametrize(
    ("native", "dtypes"),
    [
        (DBR.DOUBLE, ["f8"]),
        (DBR.FLOAT, ["f4"]),
        (DBR.LONG, ["i4", "u4"]),
        (DBR.SHORT, ["i2", "u2"]),
        (DBR.ENUM, ["u2", "i2"]),
        (DBR.CHAR, ["u1", "i1", "?"]),
    ],
    ids=ids,
)
def test_the_same_bits_are_sent_as_they_are(native: DBR, dtypes: list[str], lenient: bool) -> None:
    for dtype in dtypes:
        given = np.arange(100).astype(dtype)
        raw = _dbr.encode_value(given, native, 100, lenient=lenient)[2]
        assert raw == given.tobytes()
        given.flags.writeable = False
        assert _dbr.encode_value(given, native, 100, lenient=lenient)[2] == raw


@BOTH
def test_unsigned_of_the_same_size_is_checked(lenient: bool) -> None:
    assert isinstance(
        refused(np.array([40000], "u2"), DBR.SHORT, 3, lenient=lenient), BadValueError
    )
    assert isinstance(refused(np.array([-1], "i2"), DBR.ENUM, 3, lenient=lenient), BadValueError)
    assert isinstance(refused(np.array([2**31], "u4"), DBR.LONG, 3, lenient=lenient), BadValueError)


def test_something_that_makes_itself_an_array() -> None:
    class Series:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([1.5, 2.5])

    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise ValueError("out of order")

    class Index:
        def __index__(self) -> int:
            return 12

    assert sent(Series(), DBR.DOUBLE, 5) == [1.5, 2.5]
    assert sent(Index(), DBR.LONG) == [12]
    assert "out of order" in str(refused(Broken(), DBR.DOUBLE, 5))


# ---- text into numbers ----


@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize("text", ["5", b"5", bytearray(b"5"), np.str_("5"), "", "abc"])
def test_text_is_no_number(native: DBR, text: object) -> None:
    error = refused(text, native, 1)
    assert isinstance(error, BadTypeError)
    assert f"holds {native.name}, not text" in str(error)
    if native != DBR.CHAR:
        assert isinstance(refused(text, native, 5), BadTypeError)


@pytest.mark.parametrize("native", NUMERIC, ids=ids)
@pytest.mark.parametrize("count", [1, 5])
def test_pyepics_parses_text(native: DBR, count: int) -> None:
    if native == DBR.CHAR and count > 1:
        return
    for text in ("5", b"5", bytearray(b"5"), np.str_("5"), " 5 "):
        assert sent(text, native, count, lenient=True) == [5]
    for text in ("abc", "1 2", b"\xff", "5,"):
        assert isinstance(refused(text, native, count, lenient=True), BadValueError)
    if native in REALS:
        assert sent("3.25", native, count, lenient=True) == [3.25]
        assert isinstance(refused("0x10", native, count, lenient=True), BadValueError)
    else:
        assert sent("0x10", native, count, lenient=True) == [16]
        assert isinstance(refused("3.2", native, count, lenient=True), BadValueError)
        assert isinstance(refused("0x1000000000", native, count, lenient=True), BadValueError)
    if count > 1:
        assert sent("", native, count, lenient=True) == [0] * count
    else:
        assert isinstance(refused("", native, count, lenient=True), BadValueError)


# ---- text into CHAR arrays ----


@BOTH
@pytest.mark.parametrize("kind", [str, str.encode, lambda s: bytearray(s.encode()), np.str_])
def test_long_strings(kind: Callable[[str], Any], lenient: bool) -> None:
    assert bytes(sent(kind("abc"), DBR.CHAR, 10, lenient=lenient)) == b"abc\0"
    assert bytes(sent(kind("abc"), DBR.CHAR, 4, lenient=lenient)) == b"abc\0"
    assert bytes(sent(kind("abc"), DBR.CHAR, 3, lenient=lenient)) == b"abc"
    assert bytes(sent(kind("°C"), DBR.CHAR, 100, lenient=lenient)) == "°C\0".encode()
    long = "x" * 5000
    assert bytes(sent(kind(long), DBR.CHAR, 6000, lenient=lenient)) == long.encode() + b"\0"


def test_long_strings_that_do_not_fit() -> None:
    for text in ("abcd", b"abcd", "°°"):
        error = refused(text, DBR.CHAR, 3)
        assert isinstance(error, BadValueError)
        assert "4 bytes long, the record holds 3" in str(error)
    assert bytes(sent("abcd", DBR.CHAR, 3, lenient=True)) == b"abc"
    assert isinstance(refused("a\0b", DBR.CHAR, 10), BadValueError)
    assert bytes(sent(b"a\0b", DBR.CHAR, 10)) == b"a\0b\0"
    assert isinstance(refused("\ud800", DBR.CHAR, 10), BadValueError)


def test_empty_long_strings() -> None:
    for text in ("", b""):
        assert sent(text, DBR.CHAR, 5) == [0]
        assert sent(text, DBR.CHAR, 5, lenient=True) == [0] * 5


def test_any_bytes_survive() -> None:
    raw = bytes(range(256))
    assert bytes(sent(raw, DBR.CHAR, 256)) == raw
    assert bytes(sent(raw, DBR.CHAR, 256, lenient=True)) == raw
    assert bytes(sent(memoryview(raw), DBR.CHAR, 1000)) == raw


# ---- text into STRING ----


@BOTH
@pytest.mark.parametrize("count", [1, 5])
def test_strings(count: int, lenient: bool) -> None:
    texts: list[Any] = ["abc", b"abc", bytearray(b"abc"), np.str_("abc"), np.bytes_(b"abc")]
    rows: list[Any] = [["abc"], ("abc",), [b"abc"], np.array(["abc"])]
    for given in [*texts, *rows, np.array("abc"), np.array(b"abc")]:
        assert sent(given, DBR.STRING, count, lenient=lenient) == [b"abc"]
    assert sent("x" * 39, DBR.STRING, count, lenient=lenient) == [b"x" * 39]
    assert sent("°C", DBR.STRING, count, lenient=lenient) == ["°C".encode()]
    too_long: list[Any] = ["x" * 40, b"x" * 40, "°" * 20, "x" * 100, ["x" * 40]]
    for given in too_long:
        error = refused(given, DBR.STRING, count, lenient=lenient)
        assert isinstance(error, BadValueError)
        assert "STRING holds 39" in str(error)
    assert isinstance(refused("\ud800", DBR.STRING, count, lenient=lenient), BadValueError)


def test_a_string_with_a_member_of_a_text_enum() -> None:
    class Mode(str, enum.Enum):
        RUN = "run"

    assert sent(Mode.RUN, DBR.STRING) == [b"run"]
    assert bytes(sent(Mode.RUN, DBR.CHAR, 10)) == b"run\0"


def test_nul_inside_a_string() -> None:
    for text in ("a\0b", b"a\0b", "\0", ["a\0b"]):
        assert isinstance(refused(text, DBR.STRING), BadValueError)
    assert sent("a\0b", DBR.STRING, lenient=True) == [b"a"]
    assert sent("a\0" + "b" * 50, DBR.STRING, lenient=True) == [b"a"]


@BOTH
@pytest.mark.parametrize(
    "value",
    [
        ["a", "", "°"],
        ("a", "", "°"),
        ["a", b"", "°".encode()],
        np.array(["a", "", "°"]),
        np.array(["a", "", "°"], dtype=object),
        deque(["a", "", "°"]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_rows_of_strings(value: object, lenient: bool) -> None:
    assert sent(value, DBR.STRING, 3, lenient=lenient) == [b"a", b"", "°".encode()]
    assert sent(value, DBR.STRING, 300, lenient=lenient) == [b"a", b"", "°".encode()]


def test_rows_of_strings_that_do_not_fit() -> None:
    assert isinstance(refused(["a", "b", "c"], DBR.STRING, 2), BadValueError)
    assert sent(["a", "b", "c"], DBR.STRING, 2, lenient=True) == [b"a", b"b"]
    assert isinstance(refused(["a", "b"], DBR.STRING, 1), BadValueError)
    assert isinstance(refused(["a", "b"], DBR.STRING, 1, lenient=True), BadTypeError)


def test_no_strings() -> None:
    assert sent([], DBR.STRING, 5) == []
    assert sent([], DBR.STRING, 5, lenient=True) == [b""] * 5
    assert sent("", DBR.STRING, 5) == [b""]
    assert sent("", DBR.STRING, 5, lenient=True) == [b""] * 5
    assert sent("", DBR.STRING, 1, lenient=True) == [b""]
    assert isinstance(refused([], DBR.STRING, 1), BadValueError)


NOT_TEXTS: list[Any] = [None, [None], ["a", None], [["a"]], {}, {"a": 1}, {"a"}, [{}], [("a",)]]


@BOTH
@pytest.mark.parametrize("value", NOT_TEXTS, ids=repr)
def test_what_is_not_a_text(value: object, lenient: bool) -> None:
    assert isinstance(refused(value, DBR.STRING, 5, lenient=lenient), BadTypeError)


def test_numbers_into_strings() -> None:
    numbers: list[Any] = [5, 1.5, True, np.float64(1.5), np.int8(5)]
    for value in [*numbers, [1], np.array([1.5])]:
        assert isinstance(refused(value, DBR.STRING, 5), BadTypeError)
    for value in numbers:
        assert sent(value, DBR.STRING, 5, lenient=True) == [str(value).encode()]
        assert sent(value, DBR.STRING, 1, lenient=True) == [str(value).encode()]
    assert sent(numbers, DBR.STRING, 5, lenient=True) == [str(v).encode() for v in numbers]
    assert sent(np.array([1.5, 2.0]), DBR.STRING, 5, lenient=True) == [b"1.5", b"2.0"]


# ---- the rest ----


@BOTH
@pytest.mark.parametrize("dbr_type", [DBR.PUT_ACKT, DBR.PUT_ACKS])
def test_alarm_acknowledgement(dbr_type: DBR, lenient: bool) -> None:
    expected = (dbr_type, 1, struct.pack("=H", 40000))
    assert _dbr.encode_value(40000, dbr_type, lenient=lenient) == expected
    for bad in (-1, 65536, "1" * 10):
        refused(bad, dbr_type, lenient=lenient)


@pytest.mark.parametrize(
    "dbr_type", [-1, DBR.STS_LONG, DBR.TIME_DOUBLE, DBR.CTRL_ENUM, DBR.STSACK_STRING, 38, 39]
)
def test_types_that_cannot_be_put(dbr_type: int) -> None:
    assert isinstance(refused(1, dbr_type), BadTypeError)


def test_a_message_without_a_name() -> None:
    with pytest.raises(BadValueError, match=r"^cannot put 70000: SHORT holds -32768 to 32767$"):
        _dbr.encode_value(70000, DBR.SHORT)
    with pytest.raises(BadValueError, match=r"an array of int64, shape \(5,\) to 'a'"):
        _dbr.encode_value(np.arange(5), DBR.LONG, 3, name="a")


def test_encode_string() -> None:
    assert _dbr.encode_string("Off") == b"Off".ljust(40, b"\0")
    assert _dbr.encode_string(b"Off") == b"Off".ljust(40, b"\0")
    with pytest.raises(BadTypeError, match="'p'"):
        _dbr.encode_string(5, name="p")  # type: ignore[arg-type]
    with pytest.raises(BadValueError, match="'p'"):
        _dbr.encode_string("x" * 40, name="p")


def test_state_index() -> None:
    states = ("Off", "", "On", "On")
    assert _dbr.state_index("Off", states) == 0
    assert _dbr.state_index("On", states) == 2
    for unknown in ("", "on", "On ", "2", "bogus"):
        with pytest.raises(BadValueError, match="'p': no such state; it has 'Off', '', 'On', 'On'"):
            _dbr.state_index(unknown, states, name="p")
    with pytest.raises(BadValueError, match="it has none"):
        _dbr.state_index("On", ())
    full = tuple(f"s{i}" for i in range(16))
    assert _dbr.state_index("s15", full) == 15
    assert _dbr.state_index("s16", full) == "s16"
    with pytest.raises(BadValueError):
        _dbr.state_index("s16", full[:15])
