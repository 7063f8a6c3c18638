"""Channel.get: values, types, counts, ``out=``, and what goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import idle, takes, wait_until
from support.records import endless

from epicsx import (
    DBR,
    AccessError,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    Severity,
    Status,
)
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core

YEARS = 10 * 365.25 * 86400

#: How an array of each element type is served: its DBR type and numpy's.
SERVED: dict[str, tuple[DBR, Any]] = {
    "char": (DBR.CHAR, np.uint8),
    "uchar": (DBR.CHAR, np.uint8),
    "short": (DBR.SHORT, np.int16),
    "ushort": (DBR.LONG, np.int32),
    "long": (DBR.LONG, np.int32),
    "ulong": (DBR.DOUBLE, np.float64),
    "int64": (DBR.DOUBLE, np.float64),
    "uint64": (DBR.DOUBLE, np.float64),
    "float": (DBR.FLOAT, np.float32),
    "double": (DBR.DOUBLE, np.float64),
    "enum": (DBR.ENUM, np.uint16),
}


# ---- one value


@pytest.mark.parametrize(
    ("record", "value", "native"),
    [
        ("ai", 2.5, DBR.DOUBLE),
        ("longin", -3, DBR.LONG),
        ("mbbi", 2, DBR.ENUM),
        ("bi", 1, DBR.ENUM),
        ("stringin", "text in", DBR.STRING),
        ("int64in", -9007199254740992.0, DBR.DOUBLE),
        ("wf:float:1", 1.0, DBR.FLOAT),
        ("wf:string:1", "s1", DBR.STRING),
        ("wf:char:1", 1, DBR.CHAR),
        ("wf:short:1", 1, DBR.SHORT),
    ],
)
def test_a_record_of_one_element_gives_a_bare_value(
    ioc: SoftIOC, record: str, value: object, native: DBR
) -> None:
    with Channel(ioc[record]) as channel:
        sample = channel.get()
        assert sample.value == value
        assert type(sample.value) is type(value)
        assert (sample.count, sample.native_type) == (1, native)
        assert (channel.native_type, channel.count) == (native, 1)
        assert sample.value is sample.value


def test_a_sample_has_the_servers_stamp_and_alarm(ioc: SoftIOC) -> None:
    with Channel(ioc["ao"]) as channel:
        before = time.time()
        channel.put(95.0, wait=True)
        sample = channel.get()
        assert (sample.severity, sample.status) == (Severity.MAJOR, Status.HIHI)
        assert before - 0.1 < sample.timestamp < time.time() + 0.1
        assert abs(sample.timestamp_ns / 1e9 - sample.timestamp) < 1e-6
        channel.put(1.5, wait=True)
        later = channel.get()
        assert (later.severity, later.status) == (Severity.NO_ALARM, Status.NO_ALARM)
        assert later.timestamp_ns > sample.timestamp_ns


def test_a_record_never_processed_says_so(ioc: SoftIOC) -> None:
    with Channel(ioc["udf"]) as channel:
        sample = channel.get()
        assert (sample.severity, sample.status) == (Severity.INVALID, Status.UDF)
        assert sample.timestamp_ns == 631152000 * 10**9


# ---- arrays


@pytest.mark.parametrize("kind", SERVED)
def test_arrays_of_each_type(ioc: SoftIOC, kind: str) -> None:
    native, dtype = SERVED[kind]
    with Channel(ioc[f"wf:{kind}:n"]) as many, Channel(ioc[f"wf:{kind}:0"]) as none:
        sample = many.get()
        assert isinstance(sample.value, np.ndarray)
        assert sample.value.dtype == dtype
        assert sample.value.tolist() == list(range(10))
        assert (sample.count, sample.native_type, many.count) == (10, native, 16)
        empty = none.get()
        assert isinstance(empty.value, np.ndarray)
        assert (empty.value.dtype, empty.value.shape, empty.count) == (dtype, (0,), 0)


def test_arrays_of_strings_are_lists(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:string:n"]) as many, Channel(ioc["wf:string:0"]) as none:
        assert many.get().value == [f"s{n}" for n in range(10)]
        assert none.get().value == []
        assert many.get(count=1).value == ["s0"]


def test_an_array_with_one_element_stays_an_array(ioc: SoftIOC) -> None:
    with Channel(ioc["w:double"]) as channel:
        channel.put([4.5], wait=True)
        sample = channel.get()
        assert isinstance(sample.value, np.ndarray)
        assert sample.value.tolist() == [4.5]
        assert sample.raw(True) == 4.5
        assert type(sample.raw(True)) is float


def test_count_limits_the_elements(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:long:n"]) as channel:
        assert channel.get(count=3).value.tolist() == [0, 1, 2]
        one = channel.get(count=1)
        assert isinstance(one.value, np.ndarray)
        assert one.value.tolist() == [0]
        with pytest.raises(BadValueError, match="wf:long:n"):
            channel.get(count=17)
        with pytest.raises(BadValueError, match="wf:long:n"):
            channel.get(count=-1)


def test_an_array_outlives_its_sample_and_channel(ioc: SoftIOC) -> None:
    channel = Channel(ioc["wf:double:n"])
    array = channel.get().value
    other = channel.get().value
    channel.close()
    del channel
    other[:] = -1.0  # arrays are the user's own, and writable
    assert array.tolist() == list(range(10))
    assert array.flags.aligned and array.flags.writeable and array.base is not None


# ---- types


def test_str_asks_the_server_for_text(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as number, Channel(ioc["mbbi"]) as state:
        assert number.get(dtype=str).value == "2.50"
        assert state.get(dtype=str).value == "Two"
        assert state.get(dtype=str).timestamp > 631152000
    with Channel(ioc["wf:long:n"]) as array:
        assert array.get(dtype=str, count=3).value == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.int16, 2),
        (np.int32, 2),
        ("int32", 2),
        (np.uint8, 2),
        (np.float32, 2.5),
        (np.float64, 2.5),
        (float, 2.5),
        (DBR.TIME_LONG, 2),
    ],
)
def test_dtype_converts_in_the_server(ioc: SoftIOC, dtype: Any, value: object) -> None:
    with Channel(ioc["ai"]) as channel:
        sample = channel.get(dtype)
        assert sample.value == value
        assert type(sample.value) is type(value)
        assert sample.timestamp > 631152000


def test_dtype_of_an_array(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:double:n"]) as channel:
        array = channel.get(np.int16).value
        assert array.dtype == np.int16
        assert array.tolist() == list(range(10))


@pytest.mark.parametrize("dtype", [complex, np.dtype("U10"), object, "nonsense", True, 3.5, 99, -3])
def test_a_dtype_that_cannot_be(ioc: SoftIOC, dtype: Any) -> None:
    with Channel(ioc["ai"]) as channel, pytest.raises(BadTypeError, match="ai"):
        channel.get(dtype)


def test_plain_and_sts_types_have_no_stamp(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as channel:
        plain = channel.get(DBR.DOUBLE)
        assert (plain.value, plain.timestamp_ns, plain.dbr_type) == (2.5, 0, DBR.DOUBLE)
        sts = channel.get(DBR.STS_DOUBLE)
        assert (sts.value, sts.timestamp_ns, sts.severity) == (2.5, 0, 0)


@pytest.mark.parametrize("family", ["GR", "CTRL"])
def test_gr_and_ctrl_types_come_with_control(ioc: SoftIOC, family: str) -> None:
    with Channel(ioc["ao"]) as number:
        control = number.get(DBR[f"{family}_DOUBLE"]).control
        assert control is not None
        assert (control.units, control.precision, control.upper_disp_limit) == ("mm", 3, 100.0)
        assert control.upper_ctrl_limit == (100.0 if family == "CTRL" else None)
    with Channel(ioc["mbbo"]) as state:
        control = state.get(DBR[f"{family}_ENUM"]).control
        assert control is not None
        assert control.enum_strings == ("Zero", "One", "Two", "Three")


def test_class_name_and_stsack(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as channel:
        assert channel.get(DBR.CLASS_NAME).value == "ai"
        assert channel.get(DBR.STSACK_STRING).value == "2.50"


def test_text_is_decoded_without_ever_raising(ioc: SoftIOC) -> None:
    with Channel(ioc["desc"] + ".DESC") as utf8, Channel(ioc["latin1"] + ".DESC") as latin:
        assert utf8.get().value == "Température 20 µm"
        text = latin.get().value
        assert text.startswith("Temp") and text.endswith("m")


def test_long_text_as_characters(ioc: SoftIOC) -> None:
    with Channel(ioc["lsi"] + ".VAL$") as channel:
        text = bytes(channel.get().value).rstrip(b"\0").decode()
        assert text == "a long string of more than forty characters, to be read as characters"


# ---- out=


def test_out_is_filled_by_libcas_thread(ioc: SoftIOC) -> None:
    buffer = np.full(16, -1.0)
    with Channel(ioc["wf:double:n"]) as channel:
        sample = channel.get(out=buffer)
        assert sample.value.base is buffer or sample.value.base is buffer.base
        assert np.shares_memory(sample.value, buffer)
        assert sample.value.tolist() == list(range(10))
        assert buffer[10:].tolist() == [-1.0] * 6
        assert (sample.count, sample.severity) == (10, Severity.INVALID)  # never processed


@pytest.mark.parametrize("kind", SERVED)
def test_out_of_each_type(ioc: SoftIOC, kind: str) -> None:
    buffer = np.zeros(10, SERVED[kind][1])
    with Channel(ioc[f"wf:{kind}:n"]) as channel:
        assert channel.get(out=buffer).value.tolist() == list(range(10))


def test_out_takes_any_contiguous_shape_and_buffer(ioc: SoftIOC) -> None:
    square = np.zeros((4, 4))
    with Channel(ioc["wf:double:n"]) as doubles, Channel(ioc["wf:uchar:n"]) as chars:
        assert doubles.get(out=square).value.tolist() == list(range(10))
        assert square[2].tolist() == [8.0, 9.0, 0.0, 0.0]
        raw = bytearray(12)
        chars.get(out=raw)
        assert bytes(raw[:10]) == bytes(range(10))


def _readonly() -> np.ndarray[Any, Any]:
    array = np.full(16, -1.0)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        (np.full(16, -1.0, np.float32), BadTypeError),
        (np.full(16, -1, np.int64), BadTypeError),
        (np.full(32, -1.0)[::2], BadTypeError),
        (np.full(16, -1.0, ">f8"), BadTypeError),
        (_readonly(), BadTypeError),
        (np.full(9, -1.0), BadValueError),
        (np.empty(0), BadValueError),
    ],
    ids=["float32", "int64", "strided", "big-endian", "read-only", "too short", "empty"],
)
def test_an_out_that_does_not_fit_is_refused_and_not_written(
    ioc: SoftIOC, buffer: np.ndarray[Any, Any], error: type[CAError]
) -> None:
    with Channel(ioc["wf:double:n"]) as channel:
        with pytest.raises(error, match="wf:double:n"):
            channel.get(out=buffer)
        assert (buffer == -1).all()
        assert channel.get().count == 10  # and the channel goes on


def test_out_is_bytes_or_nonsense(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:uchar:n"]) as channel:
        for wrong in (b"0123456789abcdef", 17, [0] * 16):
            with pytest.raises(BadTypeError, match="wf:uchar:n"):
                channel.get(out=wrong)


def test_out_is_free_again_after_the_call(ioc: SoftIOC) -> None:
    raw = bytearray(16)
    with Channel(ioc["wf:uchar:n"]) as channel:
        sample = channel.get(out=raw)
        del sample
        raw.extend(b"x")  # BufferError if the buffer were still held
        short = bytearray(4)
        with pytest.raises(BadValueError):
            channel.get(out=short)
        short.extend(b"x")


# ---- what goes wrong


@pytest.mark.parametrize("timeout", [0.4, 1.0])
def test_an_unknown_pv_times_out_in_time_and_is_named(ioc: SoftIOC, timeout: float) -> None:
    with Channel(ioc["nobody"]) as channel:
        attempts: list[Callable[[], object]] = [
            lambda: channel.get(timeout=timeout),
            lambda: channel.put(1, timeout=timeout),
            lambda: channel.control(timeout=timeout),
            lambda: channel.connect(timeout=timeout),
        ]

        def fails(attempt: Callable[[], object]) -> None:
            with pytest.raises(CATimeoutError, match="nobody") as info:
                attempt()
            assert info.value.name == ioc["nobody"]
            assert TimeoutError in type(info.value).mro()
            assert f"{timeout:.2f} s" in str(info.value)

        for attempt in attempts:
            takes(0.95 * timeout, 1.05 * timeout, partial(fails, attempt))


def test_no_read_access(ioc: SoftIOC) -> None:
    with Channel(ioc["noaccess"]) as channel, pytest.raises(AccessError, match="noaccess") as info:
        channel.get()
    assert isinstance(info.value, PermissionError)


def test_a_closed_channel_says_so(ioc: SoftIOC) -> None:
    channel = Channel(ioc["ai"])
    assert channel.get().value == 2.5
    channel.close()
    channel.close()
    assert not channel.connected
    assert "closed" in repr(channel)
    attempts: list[Callable[[], object]] = [
        channel.get,
        channel.connect,
        channel.control,
        lambda: channel.put(1),
        lambda: channel.subscribe(print),
        lambda: channel.on_connection(lambda *news: None),
    ]
    for attempt in attempts:
        with pytest.raises(CAError, match=r"ai.*closed"):
            attempt()


# ---- timeouts


@pytest.mark.parametrize("timeout", [YEARS, None, 1e300, math.inf, 3])
def test_long_timeouts_are_accepted(ioc: SoftIOC, timeout: float | None) -> None:
    with Channel(ioc["longout"]) as channel:
        channel.connect(timeout)
        channel.put(3, wait=True, timeout=timeout)
        assert channel.get(timeout=timeout).value == 3
        assert channel.control(timeout=timeout).units == "counts"
        answer: Any = channel.get_async(timeout=timeout).result(timeout)
        assert answer.value == 3
        channel.put_async(3, timeout=timeout).result(timeout)


def test_nan_is_no_timeout(ioc: SoftIOC) -> None:
    with Channel(ioc["longout"]) as channel:
        channel.connect()
        attempts: list[Callable[[], object]] = [
            lambda: channel.get(timeout=math.nan),
            lambda: channel.put(3, wait=True, timeout=math.nan),
            lambda: channel.put(3, timeout=math.nan),
            lambda: channel.control(timeout=math.nan),
            lambda: channel.get_async(timeout=math.nan),
        ]
        for attempt in attempts:
            with pytest.raises(BadValueError, match="nan"):
                attempt()
        wrong: Any = "soon"
        with pytest.raises(TypeError):
            channel.get(timeout=wrong)


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0])
def test_no_time_at_all_is_a_timeout_at_once(ioc: SoftIOC, timeout: float) -> None:
    with Channel(ioc["nobody"]) as channel:

        def fails() -> None:
            with pytest.raises(CATimeoutError, match="nobody"):
                channel.get(timeout=timeout)

        takes(0.0, 0.2, fails)


# ---- requests


def test_get_async(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as channel:
        channel.connect()
        request = channel.get_async()
        answer: Any = request.result(5.0)
        assert answer.value == 2.5
        assert request.done()
        assert request.exception(5.0) is None
        told: list[object] = []
        request.add_done_callback(told.append)
        wait_until(lambda: told == [request])


def test_a_cancelled_request_ends_once(spare_ioc: Callable[..., SoftIOC]) -> None:
    own = spare_ioc(endless())
    with Channel(own["endless0"]) as channel:
        channel.connect(20.0)
        request = channel.put_async(1)
        assert not request.done()
        assert request.cancel()
        assert not request.cancel()
        assert request.done()
        with pytest.raises(CAError, match="endless0"):
            request.result(1.0)


def test_a_request_has_a_deadline_of_its_own(ioc: SoftIOC) -> None:
    with Channel(ioc["slow2"]) as channel:
        channel.connect()

        def fails() -> None:
            request = channel.put_async(1, timeout=0.3)
            with pytest.raises(CATimeoutError, match="slow2"):
                request.result(10.0)

        takes(0.285, 1.0, fails, before=lambda: idle(ioc, "slow2"))
