# What the compiled modules above may ask of a DBR block.
#
# A block is a header (alarm, time stamp or control metadata, by type) and then the values. Our own
# blocks keep the two apart, so that the values start on a 64-byte boundary: that is why functions
# take either the header or the values. Nothing here calls libca or is linked with it; functions
# marked nogil read constants only and may be called from any thread.

from db_access cimport DBR_CLASS_NAME, DBR_CTRL_STRING, DBR_GR_STRING
from db_access cimport DBR_STS_STRING, DBR_TIME_STRING


cdef struct Header:
    short status
    short severity
    unsigned int sec        # since the EPICS epoch, 1990
    unsigned int nsec
    bint has_alarm
    bint has_stamp


# What a put hands to libca. `data` points at `small`, or into memory that the keeper returned with
# it owns: so an Outgoing must neither move in memory nor outlive its keeper.
cdef struct Outgoing:
    int dbr_type
    size_t count
    const void *data
    char small[64]


# ---- layout of the 39 types (0..38) ----
cdef inline bint is_valid(int dbr_type) noexcept nogil:
    return 0 <= dbr_type <= DBR_CLASS_NAME

cdef int native_of(int dbr_type) noexcept nogil     # 0..6; -1 for an invalid type

cdef inline int sts_of(int native) noexcept nogil:
    return DBR_STS_STRING + native

cdef inline int time_of(int native) noexcept nogil:
    return DBR_TIME_STRING + native

cdef inline int gr_of(int native) noexcept nogil:
    return DBR_GR_STRING + native

cdef inline int ctrl_of(int native) noexcept nogil:
    return DBR_CTRL_STRING + native

cdef size_t value_offset(int dbr_type) noexcept nogil
cdef size_t element_size(int dbr_type) noexcept nogil
# Header and values; SIZE_MAX for an invalid type or a count that overflows.
cdef size_t block_size(int dbr_type, size_t count) noexcept nogil


# ---- from bytes ----
cdef void read_header(int dbr_type, const void *header, Header *out) noexcept nogil

cdef inline long long unix_ns(unsigned int sec, unsigned int nsec) noexcept nogil:
    return (<long long>sec + 631152000) * 1000000000 + nsec

# An int, float or str when `scalar` and count is 1. Otherwise an ndarray over `values` whose base
# is `owner` (a copy when owner is None), for strings a list. `values`: the first element's address.
cdef object decode_value(
    int dbr_type, size_t count, const void *values, object owner, bint scalar)
cdef object decode_control(int dbr_type, const void *header)    # a Control, of a GR or CTRL type
cdef str decode_string(const char *s, Py_ssize_t maxlen)        # never raises for what bytes hold

cpdef set_encoding(str name)
cpdef str get_encoding()


# ---- to bytes ----
# Fill `out` with what is to be put to a record served as native_type[native_count], and return what
# owns out.data (None: out.small). native_type may also be PUT_ACKT or PUT_ACKS. Raises BadTypeError
# or BadValueError, naming the PV, for what does not fit; `lenient` has pyepics' idea of fitting.
cdef object encode(
    object value, int native_type, size_t native_count, bint lenient, str name, Outgoing *out)
# One text as DBR_STRING, which the server converts to the record's own type.
cdef object encode_string_block(object text, str name, Outgoing *out)
# The index of a state name; the text itself, to be sent as DBR_STRING, when all 16 names are taken
# and the IOC may know more.
cdef object enum_index(str text, tuple strings, str name)


cdef class Control:
    cdef readonly object units, precision, enum_strings
    cdef readonly object lower_disp_limit, upper_disp_limit
    cdef readonly object lower_alarm_limit, upper_alarm_limit
    cdef readonly object lower_warning_limit, upper_warning_limit
    cdef readonly object lower_ctrl_limit, upper_ctrl_limit
    cdef readonly int status, severity
    cdef tuple _astuple(self)


cdef class Decoded:
    cdef readonly int dbr_type, native_type
    cdef readonly Py_ssize_t count
    cdef readonly object value, status, severity, timestamp_ns, control, ackt, acks
