# Requests, for the module that delivers their ends.
from epicsx._ca cimport Core
from epicsx_events cimport ex_inbox, ex_request
from libc.stdint cimport int64_t


cdef class Request:
    cdef ex_request *r
    cdef readonly Core core
    cdef bint is_put, known
    cdef object callbacks
    cdef int64_t asked, deadline
    cdef str what(self)
    cdef object error(self)
    cdef object outcome(self)
    cdef int finish(self) except -1


cdef class Inbox:
    cdef ex_inbox *box
