"""The numbers, names and C structures of Channel Access data, as pyepics' ``epics.dbr`` has them.

The structures are for programs that read ``dbr.Map``; epicsx itself decodes in its compiled core.
"""

from __future__ import annotations

import ctypes
import enum
import functools as functools  # pyepics has it here too
import os
import platform as platform
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from .enums import Severity, Status

HAS_NUMPY = True
PY64_WINDOWS = os.name == "nt" and sys.maxsize > 2**32

ECA_NORMAL = 1
ECA_TIMEOUT = 80
ECA_IODONE = 339
ECA_ISATTACHED = 424
ECA_BADCHID = 410

CS_CONN = 2
OP_CONN_UP = 6
OP_CONN_DOWN = 7
CS_NEVER_SEARCH = 4

STRING, INT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
SHORT = INT
STS_STRING, STS_INT, STS_FLOAT, STS_ENUM, STS_CHAR, STS_LONG, STS_DOUBLE = range(7, 14)
STS_SHORT = STS_INT
TIME_STRING, TIME_INT, TIME_FLOAT, TIME_ENUM, TIME_CHAR, TIME_LONG, TIME_DOUBLE = range(14, 21)
TIME_SHORT = TIME_INT
GR_STRING, GR_INT, GR_FLOAT, GR_ENUM, GR_CHAR, GR_LONG, GR_DOUBLE = range(21, 28)
GR_SHORT = GR_INT
CTRL_STRING, CTRL_INT, CTRL_FLOAT, CTRL_ENUM, CTRL_CHAR, CTRL_LONG, CTRL_DOUBLE = range(28, 35)
CTRL_SHORT = CTRL_INT
PUT_ACKT = 35
PUT_ACKS = 36
STSACK_STRING = 37
CLASS_NAME = 38

MAX_STRING_SIZE = 40
MAX_UNITS_SIZE = 8
MAX_ENUM_STRING_SIZE = 26
MAX_ENUMS = 16

EPICS2UNIX_EPOCH = 631152000.0

DBE_VALUE = 1
DBE_LOG = 2
DBE_ALARM = 4
DBE_PROPERTY = 8

# The C types by pyepics' names. chid_t holds a number of epicsx's own, never a pointer.
chid_t: Any = ctypes.c_int64 if PY64_WINDOWS else ctypes.c_long
short_t = ctypes.c_short
ushort_t = ctypes.c_ushort
int_t = ctypes.c_int
uint_t = ctypes.c_uint
long_t = ctypes.c_long
ulong_t = ctypes.c_ulong
float_t = ctypes.c_float
double_t = ctypes.c_double
byte_t = ctypes.c_byte
ubyte_t = ctypes.c_ubyte
string_t = ctypes.c_char * MAX_STRING_SIZE
char_t = ctypes.c_char
char_p = ctypes.c_char_p
void_p = ctypes.c_void_p
py_obj = ctypes.py_object

value_offset = [39 * ctypes.c_short]


class TimeStamp(ctypes.Structure):
    """A time stamp as it travels: seconds since 1990 and nanoseconds."""

    _fields_ = [("secs", uint_t), ("nsec", uint_t)]


_STAT_SEV: Any = (("status", short_t), ("severity", short_t))
_STAT_SEV_TS: Any = (*_STAT_SEV, ("stamp", TimeStamp))
_UNITS: Any = ("units", char_t * MAX_UNITS_SIZE)

# db_access.h has them in this order
ctrl_limits = (
    "upper_disp_limit",
    "lower_disp_limit",
    "upper_alarm_limit",
    "upper_warning_limit",
    "lower_warning_limit",
    "lower_alarm_limit",
    "upper_ctrl_limit",
    "lower_ctrl_limit",
)


def make_unixtime(stamp: Any) -> float:
    """Seconds since 1970 of a `TimeStamp`, in whole microseconds."""
    return float(EPICS2UNIX_EPOCH + stamp.secs + 1.0e-6 * (stamp.nsec // 1000))


def _gen_ctrl_lims(t: Any = short_t) -> list[tuple[str, Any]]:
    """The eight limits, each of C type `t`."""
    return [(name, t) for name in ctrl_limits]


def _structure(name: str, *fields: Any) -> Any:
    doc = f"The C structure dbr_{name}, its first element included."
    content = {"_fields_": list(fields), "__module__": __name__, "__doc__": doc}
    return type(name, (ctypes.Structure,), content)


_PRECISION: Any = (("precision", short_t), ("RISC_pad", short_t))

time_string = _structure("time_string", *_STAT_SEV_TS, ("value", string_t))
time_short = _structure("time_short", *_STAT_SEV_TS, ("RISC_pad", short_t), ("value", short_t))
time_float = _structure("time_float", *_STAT_SEV_TS, ("value", float_t))
time_enum = _structure("time_enum", *_STAT_SEV_TS, ("RISC_pad", short_t), ("value", ushort_t))
time_char = _structure(
    "time_char", *_STAT_SEV_TS, ("RISC_pad0", short_t), ("RISC_pad1", byte_t), ("value", byte_t)
)
time_long = _structure("time_long", *_STAT_SEV_TS, ("value", int_t))
time_double = _structure("time_double", *_STAT_SEV_TS, ("RISC_pad", int_t), ("value", double_t))
ctrl_enum = _structure(
    "ctrl_enum",
    *_STAT_SEV,
    ("no_str", short_t),
    ("strs", (char_t * MAX_ENUM_STRING_SIZE) * MAX_ENUMS),
    ("value", ushort_t),
)
ctrl_short = _structure("ctrl_short", *_STAT_SEV, _UNITS, *_gen_ctrl_lims(), ("value", short_t))
ctrl_char = _structure(
    "ctrl_char",
    *_STAT_SEV,
    _UNITS,
    *_gen_ctrl_lims(byte_t),
    ("RISC_pad", byte_t),
    ("value", ubyte_t),
)
ctrl_long = _structure("ctrl_long", *_STAT_SEV, _UNITS, *_gen_ctrl_lims(int_t), ("value", int_t))
ctrl_float = _structure(
    "ctrl_float", *_STAT_SEV, *_PRECISION, _UNITS, *_gen_ctrl_lims(float_t), ("value", float_t)
)
ctrl_double = _structure(
    "ctrl_double", *_STAT_SEV, *_PRECISION, _UNITS, *_gen_ctrl_lims(double_t), ("value", double_t)
)

sts_string = _structure("sts_string", *_STAT_SEV, ("value", string_t))
sts_short = _structure("sts_short", *_STAT_SEV, ("value", short_t))
sts_float = _structure("sts_float", *_STAT_SEV, ("value", float_t))
sts_enum = _structure("sts_enum", *_STAT_SEV, ("value", ushort_t))
sts_char = _structure("sts_char", *_STAT_SEV, ("RISC_pad", ubyte_t), ("value", ubyte_t))
sts_long = _structure("sts_long", *_STAT_SEV, ("value", int_t))
sts_double = _structure("sts_double", *_STAT_SEV, ("RISC_pad", int_t), ("value", double_t))
gr_short = _structure("gr_short", *_STAT_SEV, _UNITS, *_gen_ctrl_lims()[:6], ("value", short_t))
gr_char = _structure(
    "gr_char",
    *_STAT_SEV,
    _UNITS,
    *_gen_ctrl_lims(ubyte_t)[:6],
    ("RISC_pad", ubyte_t),
    ("value", ubyte_t),
)
gr_long = _structure("gr_long", *_STAT_SEV, _UNITS, *_gen_ctrl_lims(int_t)[:6], ("value", int_t))
gr_float = _structure(
    "gr_float", *_STAT_SEV, *_PRECISION, _UNITS, *_gen_ctrl_lims(float_t)[:6], ("value", float_t)
)
gr_double = _structure(
    "gr_double", *_STAT_SEV, *_PRECISION, _UNITS, *_gen_ctrl_lims(double_t)[:6], ("value", double_t)
)
stsack_string = _structure(
    "stsack_string",
    ("status", ushort_t),
    ("severity", ushort_t),
    ("ackt", ushort_t),
    ("acks", ushort_t),
    ("value", string_t),
)

NP_Map: dict[int, Any] = {
    INT: numpy.int16,
    FLOAT: numpy.float32,
    ENUM: numpy.uint16,
    CHAR: numpy.uint8,
    LONG: numpy.int32,
    DOUBLE: numpy.float64,
}

Map: dict[int, Any] = {
    STRING: string_t,
    INT: short_t,
    FLOAT: float_t,
    ENUM: ushort_t,
    CHAR: ubyte_t,
    LONG: int_t,
    DOUBLE: double_t,
    TIME_STRING: time_string,
    TIME_INT: time_short,
    TIME_FLOAT: time_float,
    TIME_ENUM: time_enum,
    TIME_CHAR: time_char,
    TIME_LONG: time_long,
    TIME_DOUBLE: time_double,
    CTRL_STRING: time_string,  # C has no ctrl_string
    CTRL_INT: ctrl_short,
    CTRL_FLOAT: ctrl_float,
    CTRL_ENUM: ctrl_enum,
    CTRL_CHAR: ctrl_char,
    CTRL_LONG: ctrl_long,
    CTRL_DOUBLE: ctrl_double,
}

FullMap: dict[int, Any] = {
    **Map,
    STS_STRING: sts_string,
    STS_INT: sts_short,
    STS_FLOAT: sts_float,
    STS_ENUM: sts_enum,
    STS_CHAR: sts_char,
    STS_LONG: sts_long,
    STS_DOUBLE: sts_double,
    GR_STRING: sts_string,  # C has no gr_string
    GR_INT: gr_short,
    GR_FLOAT: gr_float,
    GR_ENUM: ctrl_enum,  # in C too
    GR_CHAR: gr_char,
    GR_LONG: gr_long,
    GR_DOUBLE: gr_double,
    CTRL_STRING: sts_string,
    PUT_ACKT: ushort_t,
    PUT_ACKS: ushort_t,
    STSACK_STRING: stsack_string,
    CLASS_NAME: string_t,
}
"""All 39 types of Channel Access. `Map` has those that pyepics has: programs ask it what pyepics can read."""

_KINDS = ("STRING", "SHORT", "FLOAT", "ENUM", "CHAR", "LONG", "DOUBLE")
_NAMES = {number: "INT" if number == INT else kind for number, kind in enumerate(_KINDS)}
_NAMES.update({TIME_STRING + number: f"TIME_{kind}" for number, kind in enumerate(_KINDS)})
_NAMES.update({CTRL_STRING + number: f"CTRL_{kind}" for number, kind in enumerate(_KINDS)})
_NUMBERS = {name: number for number, name in _NAMES.items()}


def native_type(ftype: int) -> int:
    """The native type of a TIME or CTRL type; a native one is given back as it is."""
    if ftype >= CTRL_STRING:
        return ftype - CTRL_STRING
    return ftype - TIME_STRING if ftype >= TIME_STRING else ftype


def base_type(ftype: int) -> int:
    """The native type of any of the 39 types; ``native_type`` answers as pyepics, which knows TIME and CTRL only."""
    if ftype < PUT_ACKT:
        return ftype % 7
    return ENUM if ftype <= PUT_ACKS else STRING


def Name(ftype: Any, reverse: bool = False) -> Any:
    """The name of a type, ``'unknown'`` if it has none; with `reverse` the number of a name."""
    if reverse:
        return _NUMBERS.get(ftype.upper(), "unknown")
    return _NAMES.get(ftype, "unknown")


def cast_args(args: Any) -> list[Any]:
    """A C event's header structure and its elements, for `event_handler_args`; None for what the type lacks."""
    if args.type not in Map:
        return [None, None]
    native = native_type(args.type)
    values = args.raw_dbr
    header = None
    if args.type != native:
        header = ctypes.cast(values, ctypes.POINTER(Map[args.type])).contents
        values += Map[args.type].value.offset
    return [header, ctypes.cast(values, ctypes.POINTER(args.count * Map[native])).contents]


def make_callback(func: Callable[..., Any], args: Any) -> Any:
    """A C function that calls `func` with one structure `args`, for a libca of one's own."""
    if not PY64_WINDOWS:
        return ctypes.CFUNCTYPE(None, args)(func)
    # Python on 64-bit Windows passes structures by pointer
    return ctypes.CFUNCTYPE(None, ctypes.POINTER(args))(
        lambda given: func(getattr(given, "contents", given))
    )


event_handler_args = _structure(
    "event_handler_args",
    ("usr", py_obj),
    ("chid", chid_t),
    ("type", long_t),
    ("count", long_t),
    ("raw_dbr", void_p),
    ("status", int_t),
)
connection_args = _structure("connection_args", ("chid", chid_t), ("op", long_t))
access_rights_handler_args = _structure(
    "access_rights_handler_args", ("chid", chid_t), ("access", ubyte_t)
)


class DefaultIntEnum(enum.IntEnum):
    """Numbers with names, shown by the bare name; anything unknown becomes a member named UNKNOWN."""

    @classmethod
    def _missing_(cls, value: Any) -> DefaultIntEnum:
        unknown = int.__new__(cls, value if isinstance(value, int) else 0)
        unknown._name_ = "UNKNOWN"
        unknown._value_ = value
        return unknown

    def __repr__(self) -> str:
        return self.name


# One owner: epicsx.enums. Classes of their own all the same, as pyepics' show themselves by the bare name.
if TYPE_CHECKING:
    AlarmStatus = Status
    AlarmSeverity = Severity
else:
    AlarmStatus, AlarmSeverity = (
        DefaultIntEnum(name, {s.name: int(s) for s in alarm}, module=__name__, qualname=name)
        for name, alarm in (("AlarmStatus", Status), ("AlarmSeverity", Severity))
    )
    AlarmStatus.__doc__ = "What an alarm is about."
    AlarmSeverity.__doc__ = "How bad an alarm is."
