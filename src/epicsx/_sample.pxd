# Blocks and samples, for the modules above.
from epicsx_events cimport ex_block, ex_request


cdef class Block:
    cdef ex_block *b


cdef class Sample:
    cdef ex_block *b
    cdef object cached, array
    cdef readonly str name              # of the PV. Not the channel: a sample that is kept does not keep it open
    cdef int native
    cdef bint parted                    # only some of the elements: `array` has them, `left` of them
    cdef size_t left
    cdef object raw_(self, bint scalar)


cdef Sample sample_of(ex_block *b, str name, int native)    # takes over the reference
cdef object value_of(ex_block *b, bint scalar)          # an array keeps the block alive
cdef object pyepics_value(ex_block *b)                  # by pyepics' rules
# None, or the exception that says how an ended request of that PV ended
cdef object error_of(str name, ex_request *r, bint is_put, double seconds)

# A caller's own buffer: take hold of `out` for values of that type, or raise; release it with PyBuffer_Release.
cdef int out_buffer(object out, int dbr_type, str name, Py_buffer *buf) except -1
cdef object filled(object out, size_t count)            # the part of it that has been written
