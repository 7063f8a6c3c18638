"""A DBR block to a Python value and back.

Channel Access carries a value as one of 39 structures, the "DBR types". Everything that differs
between them stands in one table, made by the C compiler from EPICS' own header; the functions
below read that table. Nothing here calls libca or is linked with it.

*Threads*: what is not marked nogil needs the GIL; the only state is the text encoding.

*Lifetime*: an array made over a block has the block's owner as its base. What a put hands to libca
is owned by the keeper that `encode` returns.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE
from cpython.buffer cimport PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsDouble, PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.unicode cimport PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.math cimport isfinite, trunc
from libc.stdint cimport SIZE_MAX, int32_t, uint16_t, uint8_t
from libc.string cimport memchr, memcpy, memset

cimport numpy as cnp

from db_access cimport DBR_GR_STRING, DBR_PUT_ACKS, DBR_PUT_ACKT, DBR_STRING
from db_access cimport dbr_gr_enum, dbr_stsack_string, dbr_time_string

import codecs
import operator
import reprlib
from collections import namedtuple
from collections.abc import Container, Mapping, Set

import numpy as np

from epicsx.errors import BadTypeError, BadValueError

cnp.import_array()

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

MAX_STRING_SIZE = 40
MAX_UNITS_SIZE = 8
MAX_ENUM_STATES = 16
MAX_ENUM_STRING_SIZE = 26
EPICS_EPOCH = 631152000


# ---- The table -----------------------------------------------------------------------------------

cdef extern from "epicsx_dbr.h" nogil:
    ctypedef struct Row "epicsx_dbr_row":
        unsigned char native, kind, has, n_limits
        unsigned short offset, element, size, precision, units, limits
    const Row TABLE "epicsx_dbr_table"[39]
    enum:
        ALARM "EPICSX_ALARM"
        STAMP "EPICSX_STAMP"
        UNITS "EPICSX_UNITS"
        PRECISION "EPICSX_PRECISION"
        STATES "EPICSX_STATES"
        ACK "EPICSX_ACK"

# The kinds of element, numbered as the native types are.
cdef enum:
    STRING, SHORT, FLOAT, ENUM, CHAR, LONG, DOUBLE

cdef int[7] NUMPY_TYPE = [
    cnp.NPY_VOID, cnp.NPY_INT16, cnp.NPY_FLOAT32, cnp.NPY_UINT16,
    cnp.NPY_UINT8, cnp.NPY_INT32, cnp.NPY_FLOAT64,
]
# What an integer may be on put. CHAR is read as unsigned; the records behind it are either.
cdef long long[7] LOWEST = [0, -32768, 0, 0, -128, -2147483648, 0]
cdef long long[7] HIGHEST = [0, 32767, 0, 65535, 255, 2147483647, 0]

cdef tuple KIND_NAMES = ("STRING", "SHORT", "FLOAT", "ENUM", "CHAR", "LONG", "DOUBLE")
cdef tuple KIND_DTYPES = tuple(map(np.dtype, ("S40", "i2", "f4", "u2", "u1", "i4", "f8")))


cdef int native_of(int dbr_type) noexcept nogil:
    return TABLE[dbr_type].native if is_valid(dbr_type) else -1


cdef size_t value_offset(int dbr_type) noexcept nogil:
    return TABLE[dbr_type].offset


cdef size_t element_size(int dbr_type) noexcept nogil:
    return TABLE[dbr_type].element


cdef size_t block_size(int dbr_type, size_t count) noexcept nogil:
    # The counts come from the network: a product that wraps would pass for a small block.
    if not is_valid(dbr_type) or count > (SIZE_MAX - 1024) // 40:
        return SIZE_MAX
    return TABLE[dbr_type].offset + count * TABLE[dbr_type].element


Layout = namedtuple("Layout", "dbr_type native_type value_offset element_size dtype")
Layout.__doc__ = "Where the values of a DBR type lie in its block, and what they are."


def layout(int dbr_type):
    """Where the values of a DBR type lie in its block, and what they are."""
    _check_type(dbr_type)
    cdef const Row *row = &TABLE[dbr_type]
    return Layout(dbr_type, row.native, row.offset, row.element, KIND_DTYPES[row.kind])


def dtype_of(int dbr_type):
    """The NumPy type of one element of a DBR type; ``S40`` for strings."""
    _check_type(dbr_type)
    return KIND_DTYPES[TABLE[dbr_type].kind]


def nbytes(int dbr_type, count):
    """The size in bytes of a whole block of `count` elements."""
    _check_type(dbr_type)
    if count < 0:
        raise ValueError(f"count must not be negative: {count}")
    return TABLE[dbr_type].offset + int(count) * TABLE[dbr_type].element


cdef int _check_type(int dbr_type) except -1:
    if not is_valid(dbr_type):
        raise ValueError(f"no such DBR type: {dbr_type}")
    return 0


# ---- Text ----------------------------------------------------------------------------------------

cdef str _encoding = "utf-8"
cdef int _utf8 = 1      # 1: UTF-8; 2: Latin-1; 0: any other


cpdef set_encoding(str name):
    """Decode and encode the strings of Channel Access with this codec from now on.

    Any text codec that keeps ASCII as it is will do; others raise ValueError, unknown names
    LookupError.
    """
    global _encoding, _utf8
    canonical = codecs.lookup(name).name
    text = bytes(range(32, 127)).decode()
    try:
        suits = text.encode(canonical) == text.encode() and text.encode().decode(canonical) == text
        bytes(range(256)).decode(canonical, "replace")
    except (LookupError, UnicodeError):
        suits = False
    if not suits:
        raise ValueError(f"not an encoding that keeps ASCII as it is: {name}")
    _encoding = canonical
    _utf8 = 1 if canonical == "utf-8" else 2 if canonical == "iso8859-1" else 0


cpdef str get_encoding():
    """The codec of the strings of Channel Access."""
    return _encoding


cdef str decode_string(const char *s, Py_ssize_t maxlen):
    cdef const void *end = memchr(s, 0, maxlen)
    if end != NULL:
        maxlen = <const char *>end - s
    if _utf8 == 1:
        return PyUnicode_DecodeUTF8(<char *>s, maxlen, "replace")
    if _utf8 == 2:
        return PyUnicode_DecodeLatin1(<char *>s, maxlen, "replace")
    return s[:maxlen].decode(_encoding, "replace")


cdef bytes _to_bytes(object text, str name):
    if isinstance(text, str):
        try:
            return str.encode(text, _encoding)
        except UnicodeEncodeError as error:
            raise _bad_value(name, text, f"it has no form in {_encoding}: {error.reason}") from None
    return bytes(text)


# ---- From bytes ----------------------------------------------------------------------------------

cdef void read_header(int dbr_type, const void *header, Header *out) noexcept nogil:
    # Every structure with an alarm begins with it; the stamp of every TIME structure comes next.
    cdef const dbr_time_string *block = <const dbr_time_string *>header
    cdef int has = TABLE[dbr_type].has
    out.has_alarm = (has & ALARM) != 0
    out.has_stamp = (has & STAMP) != 0
    out.status = block.status if has & ALARM else 0
    out.severity = block.severity if has & ALARM else 0
    out.sec = block.stamp.secPastEpoch if has & STAMP else 0
    out.nsec = block.stamp.nsec if has & STAMP else 0


cdef object _number(int kind, const void *at):
    # memcpy, because limits and the values of foreign blocks need not be aligned.
    cdef double d
    cdef float f
    cdef int32_t i
    cdef short s
    cdef uint16_t u
    if kind == DOUBLE:
        memcpy(&d, at, 8)
        return d
    if kind == LONG:
        memcpy(&i, at, 4)
        return i
    if kind == ENUM:
        memcpy(&u, at, 2)
        return u
    if kind == CHAR:
        return (<const uint8_t *>at)[0]
    if kind == SHORT:
        memcpy(&s, at, 2)
        return s
    memcpy(&f, at, 4)
    return <double>f


cdef object decode_value(int dbr_type, size_t count, const void *values, object owner, bint scalar):
    cdef int kind = TABLE[dbr_type].kind
    cdef cnp.npy_intp dims = <cnp.npy_intp>count
    cdef const char *text = <const char *>values
    cdef object array
    cdef list strings
    cdef Py_ssize_t i
    if kind == STRING:
        if scalar and count == 1:
            return decode_string(text, 40)
        strings = [None] * <Py_ssize_t>count
        for i in range(<Py_ssize_t>count):
            strings[i] = decode_string(text + 40 * i, 40)
        return strings
    if scalar and count == 1:
        return _number(kind, values)
    if count == 0 or owner is None:
        array = cnp.PyArray_SimpleNew(1, &dims, NUMPY_TYPE[kind])
        memcpy(cnp.PyArray_DATA(array), values, count * TABLE[dbr_type].element)
        return array
    array = cnp.PyArray_SimpleNewFromData(1, &dims, NUMPY_TYPE[kind], <void *>values)
    cnp.set_array_base(array, owner)
    return array


@cython.final
cdef class Control:
    """What a record says about its value: units, limits, precision, state names.

    A field is None where the record's type has none. Two are equal when all fields are; a limit
    that is not a number equals another.
    """

    def __init__(
        self, *, units=None, precision=None, enum_strings=None,
        lower_disp_limit=None, upper_disp_limit=None,
        lower_alarm_limit=None, upper_alarm_limit=None,
        lower_warning_limit=None, upper_warning_limit=None,
        lower_ctrl_limit=None, upper_ctrl_limit=None,
        int status=0, int severity=0,
    ):
        self.units = units
        self.precision = precision
        self.enum_strings = None if enum_strings is None else tuple(enum_strings)
        self.lower_disp_limit = lower_disp_limit
        self.upper_disp_limit = upper_disp_limit
        self.lower_alarm_limit = lower_alarm_limit
        self.upper_alarm_limit = upper_alarm_limit
        self.lower_warning_limit = lower_warning_limit
        self.upper_warning_limit = upper_warning_limit
        self.lower_ctrl_limit = lower_ctrl_limit
        self.upper_ctrl_limit = upper_ctrl_limit
        self.status = status
        self.severity = severity

    cdef tuple _astuple(self):
        return (
            self.units, self.precision, self.enum_strings,
            self.lower_disp_limit, self.upper_disp_limit,
            self.lower_alarm_limit, self.upper_alarm_limit,
            self.lower_warning_limit, self.upper_warning_limit,
            self.lower_ctrl_limit, self.upper_ctrl_limit,
            self.status, self.severity,
        )

    def __eq__(self, other):
        if not isinstance(other, Control):
            return NotImplemented
        pairs = zip(self._astuple(), (<Control>other)._astuple())
        return all(a == b or (a != a and b != b) for a, b in pairs)

    def __hash__(self):
        return hash(tuple(None if a != a else a for a in self._astuple()))

    def __repr__(self):
        fields = zip(CONTROL_FIELDS, self._astuple())
        return f"Control({', '.join(f'{k}={v!r}' for k, v in fields if v is not None)})"

    def __reduce__(self):
        return _control_from, (self._astuple(),)


cdef tuple CONTROL_FIELDS = (
    "units", "precision", "enum_strings",
    "lower_disp_limit", "upper_disp_limit", "lower_alarm_limit", "upper_alarm_limit",
    "lower_warning_limit", "upper_warning_limit", "lower_ctrl_limit", "upper_ctrl_limit",
    "status", "severity",
)
# The limits in the order of the structures; GR ends before the last two.
cdef tuple LIMITS = (
    "upper_disp_limit", "lower_disp_limit", "upper_alarm_limit", "upper_warning_limit",
    "lower_warning_limit", "lower_alarm_limit", "upper_ctrl_limit", "lower_ctrl_limit",
)


def _control_from(fields):
    return Control(**dict(zip(CONTROL_FIELDS, fields)))


cdef object decode_control(int dbr_type, const void *header):
    cdef Control control = Control.__new__(Control)
    cdef const Row *row = &TABLE[dbr_type]
    cdef const char *block = <const char *>header
    cdef const char *limit = block + row.limits
    cdef const dbr_gr_enum *states = <const dbr_gr_enum *>header
    cdef int step = row.element
    cdef int i, n
    cdef short precision
    cdef Header alarm
    cdef list names
    read_header(dbr_type, header, &alarm)
    control.status = alarm.status
    control.severity = alarm.severity
    if row.has & UNITS:
        control.units = decode_string(block + row.units, 8)
    if row.has & PRECISION:
        memcpy(&precision, block + row.precision, 2)
        control.precision = precision
    if row.has & STATES:
        n = states.no_str
        n = max(0, min(n, 16))
        names = [None] * n
        for i in range(n):
            names[i] = decode_string(states.strs[i], 26)
        control.enum_strings = tuple(names)
    if row.n_limits:
        control.upper_disp_limit = _number(row.kind, limit)
        control.lower_disp_limit = _number(row.kind, limit + step)
        control.upper_alarm_limit = _number(row.kind, limit + 2 * step)
        control.upper_warning_limit = _number(row.kind, limit + 3 * step)
        control.lower_warning_limit = _number(row.kind, limit + 4 * step)
        control.lower_alarm_limit = _number(row.kind, limit + 5 * step)
    if row.n_limits == 8:
        control.upper_ctrl_limit = _number(row.kind, limit + 6 * step)
        control.lower_ctrl_limit = _number(row.kind, limit + 7 * step)
    return control


@cython.final
cdef class Decoded:
    """A decoded DBR block: the value and what its type carries beside it, otherwise None."""

    def __repr__(self):
        fields = ("value", "status", "severity", "timestamp_ns", "control", "ackt", "acks")
        shown = [f"{k}={getattr(self, k)!r}" for k in fields if getattr(self, k) is not None]
        return f"Decoded(dbr_type={self.dbr_type}, count={self.count}, {', '.join(shown)})"


def decode(int dbr_type, Py_ssize_t count, data, *, bint scalar=True, bint copy=True):
    """The value and metadata in a DBR block of `count` elements in this machine's byte order.

    One element gives an int, float or str; with ``scalar=False`` always an array, or a list of
    strings. With ``copy=False`` an array is a view over `data`, keeps it alive, and is writable
    if it is.
    """
    cdef Py_buffer view
    cdef bint writable = True
    cdef char *block
    cdef Header header
    cdef Decoded result = Decoded.__new__(Decoded)
    cdef const dbr_stsack_string *ack
    _check_type(dbr_type)
    if count < 0:
        raise ValueError(f"count must not be negative: {count}")
    try:
        PyObject_GetBuffer(data, &view, PyBUF_WRITABLE)
    except BufferError:
        writable = False
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if <size_t>view.len < block_size(dbr_type, count):
            needed = nbytes(dbr_type, count)
            raise ValueError(f"{count} of DBR type {dbr_type} take {needed} bytes, not {view.len}")
        block = <char *>view.buf
        read_header(dbr_type, block, &header)
        result.dbr_type = dbr_type
        result.native_type = TABLE[dbr_type].native
        result.count = count
        if header.has_alarm:
            result.status = header.status
            result.severity = header.severity
        if header.has_stamp:
            result.timestamp_ns = unix_ns(header.sec, header.nsec)
        if DBR_GR_STRING <= dbr_type < DBR_PUT_ACKT:
            result.control = decode_control(dbr_type, block)
        if TABLE[dbr_type].has & ACK:
            ack = <const dbr_stsack_string *>block
            result.ackt = ack.ackt
            result.acks = ack.acks
        block += TABLE[dbr_type].offset
        owner = None if copy else memoryview(data)
        result.value = decode_value(dbr_type, count, block, owner, scalar)
        if not copy and isinstance(result.value, np.ndarray):
            cnp.PyArray_UpdateFlags(result.value, cnp.NPY_ARRAY_ALIGNED)
            if not writable:
                cnp.PyArray_CLEARFLAGS(result.value, cnp.NPY_ARRAY_WRITEABLE)
    finally:
        PyBuffer_Release(&view)
    return result


# ---- To bytes ------------------------------------------------------------------------------------

cdef str _refusal(str name, object value, str why):
    if isinstance(value, np.ndarray):
        what = f"an array of {value.dtype}, shape {value.shape}"
    else:
        what = reprlib.repr(value)
    return f"cannot put {what} to '{name}': {why}" if name else f"cannot put {what}: {why}"


cdef object _bad_type(str name, object value, str why):
    return BadTypeError(_refusal(name, value, why), status=114, name=name)


cdef object _bad_value(str name, object value, str why):
    return BadValueError(_refusal(name, value, why), name=name)


cdef object _out_of_range(str name, object value, int kind):
    if kind == FLOAT or kind == DOUBLE:
        return _bad_value(name, value, f"too large for {KIND_NAMES[kind]}")
    return _bad_value(name, value, f"{KIND_NAMES[kind]} holds {LOWEST[kind]} to {HIGHEST[kind]}")


cdef object encode(
    object value, int native_type, size_t native_count, bint lenient, str name, Outgoing *out
):
    cdef int kind
    if not (0 <= native_type <= DOUBLE or DBR_PUT_ACKT <= native_type <= DBR_PUT_ACKS):
        raise _bad_type(name, value, f"DBR type {native_type} cannot be put")
    kind = TABLE[native_type].kind
    out.dbr_type = native_type
    out.count = 1
    out.data = out.small
    if kind == STRING:
        return _encode_strings(value, native_count, lenient, name, out)
    if PyFloat_Check(value) or PyLong_Check(value):     # most puts
        _store_number(value, kind, lenient, name, out.small)
        return None
    return _encode_numbers(value, kind, native_count, lenient, name, out)


# One number into one element: a float or int, or something that has a number of its own.
cdef int _store_number(object value, int kind, bint lenient, str name, char *at) except -1:
    if PyFloat_Check(value):
        _store_real(PyFloat_AS_DOUBLE(value), value, kind, lenient, name, at)
    elif PyLong_Check(value):
        _store_long(value, kind, name, at)
    else:
        _store_number(_as_number(value, name), kind, lenient, name, at)
    return 0


cdef int _store_long(object value, int kind, str name, char *at) except -1:
    cdef int overflow = 0
    cdef double real
    cdef long long integer = PyLong_AsLongLongAndOverflow(value, &overflow)
    if kind != DOUBLE and kind != FLOAT:
        if overflow or not LOWEST[kind] <= integer <= HIGHEST[kind]:
            raise _out_of_range(name, value, kind)
        _store_integer(integer, kind, at)
        return 0
    if overflow:
        try:
            real = PyLong_AsDouble(value)
        except OverflowError:
            raise _out_of_range(name, value, kind) from None
        _store_real(real, value, kind, False, name, at)
    elif kind == DOUBLE:
        (<double *>at)[0] = <double>integer
    else:
        (<float *>at)[0] = <float>integer
    return 0


cdef int _store_real(
    double real, object value, int kind, bint lenient, str name, char *at
) except -1:
    if kind == DOUBLE:
        (<double *>at)[0] = real
        return 0
    if kind == FLOAT:
        if isfinite(real) and not isfinite(<float>real) and not lenient:
            raise _out_of_range(name, value, kind)
        (<float *>at)[0] = <float>real
        return 0
    if not isfinite(real) or (trunc(real) != real and not lenient):
        raise _bad_value(name, value, f"{KIND_NAMES[kind]} holds only integers")
    real = trunc(real)
    if not LOWEST[kind] <= real <= HIGHEST[kind]:
        raise _out_of_range(name, value, kind)
    _store_integer(<long long>real, kind, at)
    return 0


cdef inline void _store_integer(long long integer, int kind, char *at) noexcept:
    if kind == LONG:
        (<int32_t *>at)[0] = <int32_t>integer
    elif kind == CHAR:
        (<uint8_t *>at)[0] = <uint8_t>integer
    else:
        (<uint16_t *>at)[0] = <uint16_t>integer


# An int or float from what says it is one: NumPy scalars, 0-d arrays, Fraction, Decimal and so on.
cdef object _as_number(object value, str name):
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.generic):
        kind = value.dtype.kind
        if kind in "biu":
            return int(value)
        if kind == "f":
            return float(value)
    elif PyFloat_Check(value) or PyLong_Check(value):
        return value
    elif not isinstance(value, (str, bytes, np.ndarray)):
        try:
            if hasattr(value, "__index__"):
                return operator.index(value)
            if hasattr(value, "__float__"):
                return float(value)
        except (OverflowError, TypeError, ValueError) as error:
            raise _bad_type(name, value, str(error)) from None
    raise _bad_type(name, value, "not a number")


# How many of the n elements given to send. -1: pyepics' way with none, a record full of zeros.
cdef Py_ssize_t _fit(
    object value, Py_ssize_t n, size_t native_count, bint lenient, str name
) except -2:
    if native_count <= 1:
        if n == 1:
            return 1
        why = f"{n} elements given, the record holds one value"
        raise _bad_type(name, value, why) if lenient else _bad_value(name, value, why)
    if <size_t>n > native_count:
        if lenient:
            return native_count
        raise _bad_value(name, value, f"{n} elements given, the record holds {native_count}")
    if n == 0 and lenient:
        return -1
    return n


# Room for n zeroed elements: in `small` where they fit (returns None), else in memory of its own.
cdef object _room(Py_ssize_t n, int kind, Outgoing *out):
    cdef Py_ssize_t size = n * TABLE[kind].element
    cdef cnp.npy_intp dims = size
    out.count = n
    if size <= <Py_ssize_t>sizeof(out.small):
        memset(out.small, 0, sizeof(out.small))
        out.data = out.small
        return None
    keeper = cnp.PyArray_ZEROS(1, &dims, cnp.NPY_UINT8, 0)
    out.data = cnp.PyArray_DATA(keeper)
    return keeper


# A tuple of the elements of anything that is a finite row of things, or None.
cdef tuple _elements(object value):
    if isinstance(value, (list, tuple, range)):
        return tuple(value)
    if isinstance(value, (str, bytes, bytearray, Mapping, Set, np.generic, type)):
        return None
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return tuple(value)
    return None


# An ndarray over anything that offers its memory or makes itself an array, or None.
cdef object _as_array(object value, str name):
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (list, tuple, range)):
        return None
    try:
        if PyObject_CheckBuffer(value):
            # A memoryview holds the buffer: an array.array cannot move while libca reads it.
            return np.asarray(memoryview(value))
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
    except (BufferError, TypeError, ValueError) as error:
        raise _bad_type(name, value, str(error)) from None
    return None


# One dimension, no mask. CA knows no shape: an image is put as it lies in memory, row by row.
cdef object _flat(object array, bint lenient, str name):
    if type(array) is not np.ndarray:
        if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
            raise _bad_value(name, array, "it has masked elements")
        array = np.asarray(array)
    if array.ndim > 1:
        if not lenient and not array.flags.c_contiguous:
            raise _bad_value(name, array, "several dimensions, not in C order")
        array = array.reshape(-1)
    return array


cdef object _encode_numbers(
    object value, int kind, size_t native_count, bint lenient, str name, Outgoing *out
):
    if isinstance(value, (str, bytes, bytearray)):
        if kind == CHAR and native_count > 1:
            return _encode_text(value, native_count, lenient, name, out)
        if not lenient:
            raise _bad_type(name, value, f"the record holds {KIND_NAMES[kind]}, not text")
        return _encode_parsed(value, kind, native_count, name, out)
    if isinstance(value, np.generic):
        _store_number(value, kind, lenient, name, out.small)
        return None
    array = _as_array(value, name)
    if array is not None:
        array = _flat(array, lenient, name)
        if array.ndim == 1 and not (lenient and array.dtype.kind == "O"):
            return _encode_array(array, kind, native_count, lenient, name, out)
        value = array.tolist() if array.ndim == 1 else array[()]
    items = _elements(value)
    if items is not None:
        return _encode_sequence(value, items, kind, native_count, lenient, name, out)
    _store_number(value, kind, lenient, name, out.small)
    return None


cdef object _encode_sequence(
    object value, tuple items, int kind, size_t native_count, bint lenient, str name,
    Outgoing *out,
):
    cdef Py_ssize_t n = _fit(value, len(items), native_count, lenient, name)
    cdef object keeper = _room(n if n >= 0 else <Py_ssize_t>native_count, kind, out)
    cdef char *at = <char *>out.data
    cdef int step = TABLE[kind].element
    cdef Py_ssize_t i
    for i in range(n):
        _store_number(items[i], kind, lenient, name, at)
        at += step
    return keeper


cdef object _encode_array(
    object array, int kind, size_t native_count, bint lenient, str name, Outgoing *out
):
    cdef object target = KIND_DTYPES[kind]
    cdef str given = array.dtype.kind
    cdef Py_ssize_t n
    if given not in "biuf":
        raise _bad_type(name, array, f"the record holds {KIND_NAMES[kind]}")
    n = _fit(array, array.shape[0], native_count, lenient, name)
    if n < 0:
        return _room(native_count, kind, out)
    if n < array.shape[0]:
        array = array[:n]
    if array.dtype != target and n:
        array = _converted(array, target, given, kind, lenient, name)
    if not cnp.PyArray_ISCARRAY_RO(array):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
    out.count = n
    if n:
        out.data = cnp.PyArray_DATA(array)
    return array


# Elements with the bits of `target`, checked against what it holds; a copy only if sizes differ.
cdef object _converted(
    object array, object target, str given, int kind, bint lenient, str name
):
    if kind == DOUBLE or kind == FLOAT:
        if given == "f" and array.dtype.itemsize > target.itemsize:
            with np.errstate(over="ignore"):
                result = array.astype(target)
            if not lenient and (np.isinf(result) & np.isfinite(array)).any():
                raise _out_of_range(name, array, kind)
            return result
        return array.astype(target)
    if given == "b":
        return array.view(np.uint8) if kind == CHAR else array.astype(target)
    if given == "f":
        whole = np.trunc(array)
        if not np.isfinite(array).all() or (not lenient and (whole != array).any()):
            raise _bad_value(name, array, f"{KIND_NAMES[kind]} holds only integers")
        array = whole
    elif kind == CHAR and array.dtype.itemsize == 1:
        return array
    if not (int(array.min()) >= LOWEST[kind] and int(array.max()) <= HIGHEST[kind]):
        raise _out_of_range(name, array, kind)
    if given == "f":
        return array.astype(np.int64).astype(target)
    if array.dtype.itemsize == target.itemsize:
        return array
    return array.astype(target)


# Text to a CHAR array, EPICS' way of a long string: with a NUL at the end if there is room for it.
cdef object _encode_text(
    object text, size_t native_count, bint lenient, str name, Outgoing *out
):
    cdef bytes raw = _to_bytes(text, name)
    cdef size_t n = PyBytes_GET_SIZE(raw)
    if not lenient:
        if n > native_count:
            raise _bad_value(name, text, f"{n} bytes long, the record holds {native_count}")
        if isinstance(text, str) and b"\0" in raw:
            raise _bad_value(name, text, "it has a NUL inside")
    elif n == 0:
        return _room(native_count, CHAR, out)
    # A bytes object has a NUL of its own behind the last byte.
    out.count = min(n + 1, native_count)
    out.data = PyBytes_AS_STRING(raw)
    return raw


# pyepics parses text that is put to a number: base 10, or for integers any base by prefix.
cdef object _encode_parsed(
    object text, int kind, size_t native_count, str name, Outgoing *out
):
    if not text and native_count > 1:
        return _room(native_count, kind, out)
    raw = bytes(text).decode("latin-1") if not isinstance(text, str) else text
    try:
        number = float(raw) if kind == DOUBLE or kind == FLOAT else int(raw, 0)
    except ValueError as error:
        raise _bad_value(name, text, str(error)) from None
    _store_number(number, kind, True, name, out.small)
    return None


cdef object _encode_strings(
    object value, size_t native_count, bint lenient, str name, Outgoing *out
):
    cdef Py_ssize_t n, i
    cdef char *slot
    cdef tuple items = None
    cdef bint text = isinstance(value, (str, bytes, bytearray))
    if not text and not isinstance(value, np.generic):
        array = _as_array(value, name)
        if array is not None:
            array = _flat(array, lenient, name)
            if array.dtype.kind not in "USO" and not lenient:
                raise _bad_type(name, array, "the record holds STRING")
            if array.ndim == 0:
                return _encode_strings(array.item(), native_count, lenient, name, out)
            value = list(array)
        items = _elements(value)
    if items is None:
        if text and lenient and not value and native_count > 1:
            return _room(native_count, STRING, out)
        keeper = _room(1, STRING, out)
        _store_text(value, lenient, name, out.small)
        return keeper
    n = _fit(value, len(items), native_count, lenient, name)
    keeper = _room(n if n >= 0 else <Py_ssize_t>native_count, STRING, out)
    slot = <char *>out.data
    for i in range(n):
        _store_text(items[i], lenient, name, slot)
        slot += 40
    return keeper


# One text into one zeroed slot of 40 bytes, of which the last stays NUL.
cdef int _store_text(object text, bint lenient, str name, char *slot) except -1:
    cdef const char *raw
    cdef Py_ssize_t n
    cdef bytes encoded
    if isinstance(text, str) and _utf8 == 1:
        try:
            raw = PyUnicode_AsUTF8AndSize(text, &n)
        except UnicodeEncodeError as error:
            raise _bad_value(name, text, f"it has no form in utf-8: {error.reason}") from None
    else:
        if not isinstance(text, (str, bytes, bytearray)):
            # A number has an obvious text; that of None or of a container would be a slip.
            if not lenient or text is None or isinstance(text, (Container, np.ndarray)):
                raise _bad_type(name, text, "not a text")
            text = str(text)
        encoded = _to_bytes(text, name)
        raw = PyBytes_AS_STRING(encoded)
        n = PyBytes_GET_SIZE(encoded)
    if memchr(raw, 0, n) != NULL:
        if not lenient:
            raise _bad_value(name, text, "it has a NUL inside")
        n = <const char *>memchr(raw, 0, n) - raw
    if n > 39:
        raise _bad_value(name, text, f"{n} bytes long, STRING holds 39")
    memcpy(slot, raw, n)
    return 0


cdef object encode_string_block(object text, str name, Outgoing *out):
    if not isinstance(text, (str, bytes, bytearray)):
        raise _bad_type(name, text, "not a text")
    out.dbr_type = DBR_STRING
    _room(1, STRING, out)
    _store_text(text, False, name, out.small)
    return None


cdef object enum_index(str text, tuple strings, str name):
    cdef Py_ssize_t i
    if text:
        for i in range(len(strings)):
            if <object>strings[i] == text:
                return i
    if len(strings) >= 16:
        return text
    known = ", ".join([repr(state) for state in strings]) or "none"
    raise _bad_value(name, text, f"no such state; it has {known}")


def encode_value(
    value, int native_type, Py_ssize_t native_count=1, *, bint lenient=False, str name=""
):
    """What a put of `value` sends to a record: ``(dbr_type, count, bytes)``.

    `native_type` is the record's type as served, 0..6, or ``DBR.PUT_ACKT``, ``DBR.PUT_ACKS``;
    `native_count` the number of elements it holds. `lenient` has pyepics' rules: long arrays are
    cut, floats truncated, text parsed, ``[]`` becomes zeros. What does not fit raises
    `BadTypeError` or `BadValueError`, naming the PV. CA has no 64-bit integers: above 2**53 they
    become the nearest float. An image in C order is sent row by row.
    """
    cdef Outgoing out
    keeper = encode(value, native_type, max(native_count, 1), lenient, name, &out)
    size = out.count * element_size(out.dbr_type)
    data = PyBytes_FromStringAndSize(<const char *>out.data, size)
    del keeper
    return out.dbr_type, out.count, data


def encode_string(text, *, str name=""):
    """A text as one DBR_STRING, which a server converts to whatever the record holds."""
    cdef Outgoing out
    encode_string_block(text, name, &out)
    return PyBytes_FromStringAndSize(<const char *>out.data, 40)


def state_index(str text, strings, *, str name=""):
    """The index of a state name; the name itself if it is none of 16, as the IOC may know more."""
    return enum_index(text, tuple(strings), name)


def encode_block(
    int dbr_type, Py_ssize_t count, value, *, short status=0, short severity=0,
    timestamp_ns=None, Control control=None, uint16_t ackt=0, uint16_t acks=0,
):
    """A whole DBR block of any type, in this machine's byte order: the opposite of `decode`.

    The rest applies where the type has it: the alarm, the stamp in nanoseconds since 1970 (None:
    that of a record never processed), limits and so on from a `Control` (not its alarm).
    """
    cdef Outgoing out
    cdef dbr_time_string *head
    cdef dbr_stsack_string *ack
    cdef dbr_gr_enum *states
    cdef const Row *row
    cdef bytearray block
    cdef char *base
    cdef char *text
    cdef int i
    _check_type(dbr_type)
    row = &TABLE[dbr_type]
    block = bytearray(nbytes(dbr_type, count))
    # At least as long as the structures read below through pointers.
    block.extend(bytes(sizeof(dbr_time_string)))
    base = block
    keeper = encode(value if count else [], row.kind, max(count, 2), False, "", &out)
    if out.count != <size_t>count:
        raise ValueError(f"{out.count} elements given, not {count}")
    memcpy(base + row.offset, out.data, out.count * row.element)
    del keeper
    if row.has & ALARM:
        head = <dbr_time_string *>base
        head.status = status
        head.severity = severity
        if row.has & STAMP and timestamp_ns is not None:
            seconds, nanoseconds = divmod(int(timestamp_ns), 1000000000)
            head.stamp.secPastEpoch = seconds - EPICS_EPOCH
            head.stamp.nsec = nanoseconds
    if row.has & ACK:
        ack = <dbr_stsack_string *>base
        ack.ackt = ackt
        ack.acks = acks
    if control is not None:
        if row.has & UNITS and control.units is not None:
            _store_short_text(control.units, base + row.units, 8)
        if row.has & PRECISION and control.precision is not None:
            _store_number(control.precision, SHORT, False, "", base + row.precision)
        if row.has & STATES and control.enum_strings is not None:
            states = <dbr_gr_enum *>base
            states.no_str = min(len(control.enum_strings), 16)
            for i in range(states.no_str):
                text = states.strs[i]
                _store_short_text(control.enum_strings[i], text, 26)
        for i in range(row.n_limits):
            limit = getattr(control, LIMITS[i])
            if limit is not None:
                _store_number(limit, row.kind, False, "", base + row.limits + i * row.element)
    return bytes(block[: len(block) - sizeof(dbr_time_string)])


cdef int _store_short_text(object text, char *at, Py_ssize_t room) except -1:
    cdef bytes raw = _to_bytes(text, "")
    memcpy(at, PyBytes_AS_STRING(raw), min(PyBytes_GET_SIZE(raw), room))
    return 0
