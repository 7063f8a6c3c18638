"""What came from a server, as Python sees it: a block of C memory behind an array, and a sample of it.

Threads
    Any. A sample does not change but for its cached value; two threads that decode it at once make equal values.

Lifetime
    A block is reference counted in C and goes back to its pool with its last reference. An array's base is a `Block`,
    which holds one; so the memory lives as long as the array, whatever becomes of the sample or the channel.
"""

import sys

cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

from epicsx._dbr cimport Header, decode_control, decode_value, element_size, native_of, read_header, unix_ns
from caerr cimport ECA_CHANDESTROY, ECA_NORMAL
from db_access cimport DBR_STSACK_STRING, dbr_stsack_string
from epicsx_events cimport (EX_BY_CLOSE, EX_BY_DEADLINE, EX_BY_SHUTDOWN, EX_BY_SIZE, EX_HEADER, ex_block, ex_block_ref,
                            ex_block_unref, ex_request)

from epicsx.errors import BadTypeError, BadValueError, DisconnectedError, from_status, timed_out


@cython.final
@cython.freelist(32)
cdef class Block:
    """Owns the memory behind an array: the array's base."""

    def __dealloc__(self):
        ex_block_unref(self.b)


cdef object value_of(ex_block *b, bint scalar):
    cdef Block owner
    if (scalar and b.count == 1) or native_of(b.dbr_type) == 0:
        return decode_value(b.dbr_type, b.count, b.values, None, scalar)
    owner = Block.__new__(Block)
    ex_block_ref(b)
    owner.b = b
    return decode_value(b.dbr_type, b.count, b.values, owner, False)


cdef object pyepics_value(ex_block *b):
    """By pyepics' rule: bare where one element came, but CHAR and STRING arrays stay sequences; texts end stripped."""
    cdef int native = native_of(b.dbr_type)
    if native == 0:
        # what a record says of itself (STSACK, CLASS_NAME) is one text, however many elements it has
        found = value_of(b, b.scalar or b.dbr_type >= DBR_STSACK_STRING)
        return found.rstrip() if isinstance(found, str) else [text.rstrip() for text in found]
    return value_of(b, b.scalar or native != 4)


@cython.final
@cython.freelist(64)
cdef class Sample:
    """One value as the server sent it, with its stamp and alarm. Decoded when read."""

    def __dealloc__(self):
        ex_block_unref(self.b)

    cdef object raw_(self, bint scalar):
        if self.array is not None:
            return self.array
        return value_of(self.b, scalar)

    def raw(self, scalar: bool):
        """The value by another rule: a bare int, float or str when `scalar` and one element came, else a sequence."""
        return self.raw_(scalar)

    def plain(self):
        """The value by pyepics' rule: bare where one element came, but CHAR and STRING arrays stay sequences."""
        return self.array if self.array is not None else pyepics_value(self.b)

    def part(self, chosen: slice, scalar: bool):
        """The sample of these elements alone, an array as a view; bare if `scalar` and one is left."""
        cdef Sample s
        values = self.raw_(False)[chosen]
        ex_block_ref(self.b)
        s = sample_of(self.b, self.name, self.native)
        s.parted = True
        s.left = len(values)
        if scalar and s.left == 1:
            values = values[0].item() if hasattr(values[0], "item") else values[0]
        s.array = values
        return s

    @property
    def value(self):
        """An int, float or str where the record has one element, else an ndarray (for strings a list)."""
        if self.cached is None:
            self.cached = self.raw_(self.b.scalar)
        return self.cached

    @property
    def timestamp_ns(self) -> int:
        """The server's stamp: nanoseconds since 1970, UTC; 0 where the type has none."""
        cdef Header h
        read_header(self.b.dbr_type, EX_HEADER(self.b), &h)
        return unix_ns(h.sec, h.nsec) if h.has_stamp else 0

    @property
    def timestamp(self) -> float:
        """The server's stamp: seconds since 1970, UTC."""
        cdef Header h
        read_header(self.b.dbr_type, EX_HEADER(self.b), &h)
        return <double> (h.sec + <long long> 631152000) + h.nsec * 1e-9 if h.has_stamp else 0.0

    @property
    def status(self) -> int:
        """The alarm status (`epicsx.Status`)."""
        cdef Header h
        read_header(self.b.dbr_type, EX_HEADER(self.b), &h)
        return h.status

    @property
    def severity(self) -> int:
        """The alarm severity (`epicsx.Severity`)."""
        cdef Header h
        read_header(self.b.dbr_type, EX_HEADER(self.b), &h)
        return h.severity

    @property
    def acknowledgement(self) -> tuple[int, int] | None:
        """Whether a passing alarm must be acknowledged, and the severity to acknowledge; for STSACK_STRING alone."""
        cdef const dbr_stsack_string *ack = <const dbr_stsack_string *> EX_HEADER(self.b)
        return (ack.ackt, ack.acks) if self.b.dbr_type == DBR_STSACK_STRING else None

    @property
    def count(self) -> int:
        """How many elements came."""
        return self.left if self.parted else self.b.count

    @property
    def dbr_type(self) -> int:
        """The DBR type in which it came."""
        return self.b.dbr_type

    @property
    def native_type(self) -> int:
        """The record's own type as Channel Access serves it, as last heard (`epicsx.DBR`)."""
        return self.native

    @property
    def control(self):
        """The control data that came with it, for a GR or CTRL type; else None."""
        if 21 <= self.b.dbr_type <= 34:
            return decode_control(self.b.dbr_type, EX_HEADER(self.b))
        return None

    def __repr__(self):
        return f"<Sample {self.name!r} {self.value!r} at {self.timestamp:.6f}, severity {self.severity}>"


cdef Sample sample_of(ex_block *b, str name, int native):
    cdef Sample s = Sample.__new__(Sample)
    s.b = b
    s.name = name
    s.native = native
    return s


# ------------------------------------------------------ how a request ended

cdef object error_of(str name, ex_request *r, bint is_put, double seconds):
    """None, or the exception that says how an ended request ended."""
    cdef str what = "put" if is_put else "get"
    if r.reason == EX_BY_DEADLINE:
        return timed_out(name, what, seconds, "the server has not answered")
    if r.reason == EX_BY_CLOSE or r.reason == EX_BY_SHUTDOWN:
        why = "the channel was closed" if r.reason == EX_BY_CLOSE else "Channel Access was shut down"
        error = DisconnectedError(ECA_CHANDESTROY, f"{what} of '{name}' has no answer: {why}", name)
        error.outcome_unknown = is_put
        return error
    if r.reason == EX_BY_SIZE:
        return BadValueError(r.status, f"get of '{name}': the reply has more elements than out= holds "
                             f"({r.out_count}); nothing was written", name)
    if r.status != ECA_NORMAL:
        return from_status(r.status, name, what, outcome_unknown=is_put)
    return None


# ------------------------------------------------------ a caller's own buffer

cdef tuple KIND_NAMES = ("STRING", "SHORT", "FLOAT", "ENUM", "CHAR", "LONG", "DOUBLE")
# The struct formats under which a buffer may offer elements of each native type, if their size fits too.
cdef tuple FORMATS = (b"", b"h", b"f", b"H", b"Bbc", b"il", b"d")


cdef int out_buffer(object out, int dbr_type, str name, Py_buffer *buf) except -1:
    cdef int kind = native_of(dbr_type)
    if kind <= 0:
        raise BadTypeError(f"get of '{name}': strings cannot be read into a buffer", name=name)
    try:
        PyObject_GetBuffer(out, buf, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    except (BufferError, TypeError, ValueError) as error:
        why = f"out= must be writable and contiguous ({error})"
        raise BadTypeError(f"get of '{name}': {why}", name=name) from None
    code = buf.format if buf.format != NULL else b"B"
    if code[:1] in (b"@", b"=", b"<" if sys.byteorder == "little" else b">"):
        code = code[1:]
    if len(code) != 1 or code not in FORMATS[kind] or <size_t> buf.itemsize != element_size(dbr_type):
        PyBuffer_Release(buf)
        why = f"out= has elements of format {code.decode()!r}, served are {KIND_NAMES[kind]}"
        raise BadTypeError(f"get of '{name}': {why}", name=name)
    return 0


cdef object filled(object out, size_t count):
    if getattr(out, "ndim", 1) != 1:
        out = out.reshape(-1)
    return out[:count]
