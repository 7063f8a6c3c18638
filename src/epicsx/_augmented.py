"""Values with fields, as Diamond's Channel Access libraries have them: what `aio` and ``compat.catools`` share.

A value is a number, a text or an array, and has beside itself what came with it: ``value.ok``, ``value.name``,
``value.timestamp``, ``value.units``. Which fields there are is decided by the format that was asked for; reading
another is an AttributeError.
"""

from __future__ import annotations

import datetime as _datetime
import time
from typing import TYPE_CHECKING, Any

import numpy

from . import _dbr
from .enums import DBE, DBR, ECA
from .errors import BadTypeError, BadValueError, CAError
from .errors import message as _message

if TYPE_CHECKING:
    from ._ca import Core
    from ._sample import Sample

DBE_VALUE, DBE_LOG, DBE_ALARM, DBE_PROPERTY = (
    *(int(DBE.VALUE), int(DBE.LOG)),
    *(int(DBE.ALARM), int(DBE.PROPERTY)),
)

DBR_STRING, DBR_SHORT, DBR_FLOAT, DBR_ENUM, DBR_CHAR, DBR_LONG, DBR_DOUBLE = range(7)
DBR_TIME_STRING, DBR_TIME_DOUBLE = int(DBR.TIME_STRING), int(DBR.TIME_DOUBLE)
DBR_CTRL_STRING, DBR_CTRL_DOUBLE = int(DBR.CTRL_STRING), int(DBR.CTRL_DOUBLE)
DBR_PUT_ACKT, DBR_PUT_ACKS, DBR_STSACK_STRING, DBR_CLASS_NAME = range(35, 39)
DBR_ENUM_STR, DBR_CHAR_BYTES, DBR_CHAR_UNICODE, DBR_CHAR_STR = range(996, 1000)

FORMAT_RAW, FORMAT_TIME, FORMAT_CTRL = range(3)

NORMAL = int(ECA.NORMAL)

LIMITS = tuple(
    f"{end}_{what}_limit"
    for what in ("disp", "alarm", "warning", "ctrl")
    for end in ("upper", "lower")
)

EVENTS = {
    FORMAT_RAW: DBE_VALUE,
    FORMAT_TIME: DBE_VALUE | DBE_ALARM,
    FORMAT_CTRL: DBE_VALUE | DBE_ALARM | DBE_PROPERTY,
}
"""What makes an update, where the program does not say."""

TEXTS = (DBR_CHAR_STR, DBR_CHAR_UNICODE, DBR_CHAR_BYTES)
"""Arrays of characters that are wanted as one text."""

_BY_CHAR = dict(
    zip(
        "?bBhHiIlLqQfd",
        (*(DBR_CHAR,) * 3, DBR_SHORT, DBR_ENUM, *(DBR_LONG,) * 6, DBR_FLOAT, DBR_DOUBLE),
        strict=True,
    )
)
"""The DBR type for each character that numpy has for a dtype."""

Timeout = float | tuple[float] | None


# --------------------------------------------------------------------- values


class Augmented:
    """The fields of a value. Which there are is decided by the format asked for.

    They are made when the first of them is read: most programs read few, and many none.
    """

    ok = True
    name: str
    datatype: int
    element_count: int
    status: int
    severity: int
    timestamp: float
    raw_stamp: tuple[int, int]
    update_count: int

    def __getattr__(self, name: str) -> Any:
        came = self.__dict__.pop("_came", None)
        if came is None:
            raise AttributeError(f"this value has no {name!r}")
        _fill(self, *came)
        return getattr(self, name)

    def __getstate__(self) -> Any:
        came = self.__dict__.pop("_came", None)
        if came is not None:
            _fill(self, *came)
        return self.__dict__

    @property
    def datetime(self) -> _datetime.datetime:
        """The time stamp as a local time."""
        return _datetime.datetime.fromtimestamp(self.timestamp)


class ca_str(Augmented, str):
    """A text with fields."""

    def __pos__(self) -> str:
        return str(self)


class ca_int(Augmented, int):
    """An integer with fields."""

    def __pos__(self) -> int:
        return int(self)


class ca_float(Augmented, float):
    """A floating point number with fields."""

    def __pos__(self) -> float:
        return float(self)


class ca_bytes(Augmented, bytes):
    """Characters as they are, with fields."""

    def __pos__(self) -> bytes:
        return bytes(self)


class ca_array(Augmented, numpy.ndarray[Any, Any]):
    """An array with fields."""

    def __pos__(self) -> Any:
        return self.view(numpy.ndarray)


class Nothing(CAError):
    """That something was done, or why it failed: raised, or given back where ``throw=False``. True if it was done."""

    def __init__(self, name: str, errorcode: int = NORMAL, text: str = "") -> None:
        self.errorcode: int = int(errorcode)
        super().__init__(self.errorcode, text or _message(self.errorcode), name)
        self.ok: bool = self.errorcode == NORMAL

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.errorcode})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.errorcode, self.message)


_SCALARS: dict[type, Any] = {str: ca_str, int: ca_int, float: ca_float}


def _of_numpy(datatype: Any, name: str) -> int:
    try:
        dtype = numpy.dtype(datatype)
    except TypeError:
        raise BadTypeError(f"'{name}': {datatype!r} is not a type to ask for", name=name) from None
    found = DBR_STRING if dtype.kind in "SU" else _BY_CHAR.get(dtype.char)
    if found is None:
        raise BadTypeError(f"'{name}': Channel Access has no type for {datatype!r}", name=name)
    return found


def is_code(datatype: Any) -> bool:
    """Whether it is one of the numbers that name a type."""
    return isinstance(datatype, int) and not isinstance(datatype, bool)


def native_of(datatype: Any, core: Core) -> int:
    """The DBR type, without a format, in which a value of a connected channel is asked for."""
    native = core.native_type
    if datatype is None:
        return native
    if is_code(datatype):
        if datatype in TEXTS:
            return DBR_CHAR
        if datatype == DBR_ENUM_STR:
            return DBR_STRING if native == DBR_ENUM else native
        if 0 <= datatype <= DBR_DOUBLE or datatype in (DBR_STSACK_STRING, DBR_CLASS_NAME):
            return int(datatype)
        raise BadTypeError(f"'{core.name}': {datatype!r} is not a type to ask for", name=core.name)
    return _of_numpy(datatype, core.name)


def type_of(datatype: Any, format: int, core: Core) -> int:
    """The DBR type in which a value of a connected channel is asked for."""
    native = native_of(datatype, core)
    if format == FORMAT_RAW or native > DBR_DOUBLE:
        return native
    if format not in EVENTS:
        raise BadValueError(f"'{core.name}': there is no format {format!r}", name=core.name)
    # texts have no control data: what comes nearest is their stamp
    timed = format == FORMAT_TIME or native == DBR_STRING
    return native + (DBR_TIME_STRING if timed else DBR_CTRL_STRING)


def effective(datatype: Any, name: str) -> Any:
    """What is asked for by default: a name that ends in ``$`` stands for the long text of a field."""
    return DBR_CHAR_STR if datatype is None and name.endswith("$") else datatype


def count_of(count: int, core: Core) -> int:
    """How many elements to ask for: all there are (0), or no more than the record can have."""
    return core.count if count < 0 else min(count, core.count)


def augmented(sample: Sample, core: Core, datatype: Any) -> Any:
    """A sample as a value with fields."""
    value = sample.value
    code = sample.dbr_type
    found: Any
    scalar = _SCALARS.get(type(value))
    if datatype is None and scalar is not None and code != DBR_CLASS_NAME:  # nearly all
        found = scalar(value)
    elif is_code(datatype) and datatype in TEXTS:
        data = numpy.atleast_1d(numpy.asarray(value, numpy.uint8)).tobytes().partition(b"\0")[0]
        found = ca_bytes(data) if datatype == DBR_CHAR_BYTES else ca_str(_decoded(data))
    elif code == DBR_CLASS_NAME:
        found = ca_str(value if isinstance(value, str) else value[0])
    elif isinstance(datatype, type) and issubclass(datatype, bytes):
        raw = [_encoded(text) for text in ([value] if scalar else value)]
        found = ca_bytes(raw[0]) if scalar else numpy.array(raw, "S40").view(ca_array)
    elif scalar is not None:
        found = scalar(value)
    else:
        text = code % 7 == DBR_STRING and not len(value)  # no text tells its dtype
        found = numpy.asarray(value, "U40" if text else None).view(ca_array)
    # Not the sample: a number that somebody keeps does not keep the memory of an event.
    if DBR_TIME_STRING <= code <= DBR_TIME_DOUBLE:
        stamped = (sample.timestamp_ns, sample.status, sample.severity)
        found._came = (sample.name, code, core.count, stamped)
    else:
        found._came = (sample.name, code, core.count, None)
        if code > DBR_TIME_DOUBLE:
            _add_control(found, sample, code % 7)
    return found


def _fill(
    found: Any, name: str, code: int, element_count: int, stamped: tuple[int, int, int] | None
) -> None:
    found.name = name
    found.element_count = element_count
    found.datatype = code if code > DBR_CTRL_DOUBLE else code % 7
    if stamped is not None:
        ns, found.status, found.severity = stamped
        found.raw_stamp = seconds, part = divmod(ns, 1_000_000_000)
        # aioca's sum: ns / 1e9 is nearer, and of one stamp in sixteen another number of microseconds
        found.timestamp = round(seconds + part * 1e-9, 6)


def _add_control(found: Any, sample: Sample, native: int) -> None:
    control = sample.control
    if control is not None:
        found.status, found.severity = sample.status, sample.severity
        if native == DBR_ENUM:
            found.enums = list(control.enum_strings or ())
            return
        for limit in LIMITS:
            setattr(found, limit, getattr(control, limit))
        found.units = control.units
        if control.precision is not None:
            found.precision = control.precision
    elif acknowledgement := sample.acknowledgement:
        found.status, found.severity = sample.status, sample.severity
        found.ackt, found.acks = acknowledgement


def _decoded(data: bytes) -> str:
    return data.decode(_dbr.get_encoding(), "backslashreplace")


def _encoded(text: str) -> bytes:
    return text.encode(_dbr.get_encoding(), "backslashreplace")


class Info:
    """What is known of a PV's connection. Its text is a paragraph for people."""

    state_strings: tuple[str, ...] = (
        "never connected",
        "previously connected",
        "connected",
        "closed",
    )
    datatype_strings: tuple[str, ...] = (
        *("string", "short", "float", "enum", "char", "long", "double", "no access"),
    )

    def __init__(self, core: Core) -> None:
        self.ok: bool = core.connected
        self.name: str = core.name
        self.state: int = int(core.state)
        self.host: str = core.host
        self.read: bool = bool(core.read_access)
        self.write: bool = bool(core.write_access)
        self.count: int = core.count
        self.datatype: int = core.native_type if core.native_type >= 0 else 7

    def __str__(self) -> str:
        access = ("no ", "")
        lines = (
            f"{self.name}:",
            f"    State: {self.state_strings[self.state]}",
            f"    Host: {self.host}",
            f"    Access: {access[self.read]}read, {access[self.write]}write",
            f"    Data type: {self.datatype_strings[self.datatype]}",
            f"    Count: {self.count}",
        )
        return "\n".join(lines)


# -------------------------------------------------------------------- puts


def put_type(datatype: Any, value: Any, core: Core) -> int:
    """The DBR type in which a value is sent to a connected channel: that of the record, but texts as texts."""
    native = core.native_type
    if datatype is None:
        if isinstance(value, (str, bytes)) and not (native == DBR_CHAR and core.name.endswith("$")):
            return DBR_STRING  # the server makes a number, or a state, of it
        return native
    if is_code(datatype):
        if datatype in TEXTS:
            return DBR_CHAR
        if datatype == DBR_ENUM_STR:
            return DBR_STRING if native == DBR_ENUM else native
        if 0 <= datatype <= DBR_DOUBLE or datatype in (DBR_PUT_ACKT, DBR_PUT_ACKS):
            return int(datatype)
        raise BadTypeError(f"'{core.name}': {datatype!r} is not a type to put", name=core.name)
    return _of_numpy(datatype, core.name)


_DTYPES = {
    DBR_SHORT: numpy.int16,
    DBR_FLOAT: numpy.float32,
    DBR_ENUM: numpy.uint16,
    DBR_CHAR: numpy.uint8,
    DBR_LONG: numpy.int32,
    DBR_DOUBLE: numpy.float64,
}


def put_value(value: Any, sent: int, core: Core) -> Any:
    """A value as numpy makes it of that type, for the core to send.

    Raises
    ------
    BadTypeError, BadValueError
        It cannot be made into that type, or has more than one dimension.
    """
    if sent in (DBR_PUT_ACKT, DBR_PUT_ACKS):
        return _number(value, core)
    if sent == DBR_CHAR and isinstance(value, (str, bytes)):
        data = _encoded(value) if isinstance(value, str) else value
        if len(data) < core.count:  # else a longer text of before goes on behind it
            data += b"\0"
        return numpy.frombuffer(data, numpy.uint8)
    if sent == DBR_STRING:
        if isinstance(value, (str, bytes)):
            return value
        found = numpy.asarray(value)
        _one_dimension(found, core)
        return _text(value) if found.ndim == 0 else [_text(item) for item in found.tolist()]
    try:
        with numpy.errstate(invalid="raise", over="raise"):
            found = numpy.require(value, _DTYPES[sent], "C")
    except (TypeError, ValueError, OverflowError, FloatingPointError) as error:
        kind = BadTypeError if isinstance(error, TypeError) else BadValueError
        raise kind(f"put to '{core.name}': {error}", name=core.name) from None
    _one_dimension(found, core)
    return found.item() if found.ndim == 0 else found


def _one_dimension(found: Any, core: Core) -> None:
    if found.ndim > 1:
        raise BadValueError(
            f"put to '{core.name}': an array of {found.ndim} dimensions; one is possible",
            name=core.name,
        )


def _text(value: Any) -> str | bytes:
    return value if isinstance(value, (str, bytes)) else str(value)


def _number(value: Any, core: Core) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise BadValueError(
            f"put to '{core.name}': an acknowledgement is a number, not {value!r}", name=core.name
        ) from None


# -------------------------------------------------------------------- time-outs


def monotonic_deadline(timeout: Timeout) -> float | None:
    """Until when to wait, on the monotonic clock."""
    if isinstance(timeout, tuple):
        return time.monotonic() + timeout[0] - time.time()
    return None if timeout is None else time.monotonic() + timeout
