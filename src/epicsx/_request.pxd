# Requests, for the modules that deliver their ends, and the inboxes of event loops.
from epicsx._ca cimport Core, Subscription
from epicsx_events cimport ex_inbox, ex_request, ex_taken
from libc.stdint cimport int64_t


cdef class Request:
    cdef ex_request *r
    cdef readonly Core core
    cdef bint is_put, known
    cdef str task                       # what it is if neither a get nor a put: it has no value then
    cdef Inbox inbox
    cdef object callbacks
    cdef int64_t asked, deadline
    cdef str what(self)
    cdef object error(self)
    cdef object outcome(self)
    cdef int wait(self, timeout) except -1
    cdef int let_go(self) except -1
    cdef int finish(self) except -1


cdef class Inbox:
    cdef ex_inbox *box
    cdef readonly set requests          # those under way: what must live on without its user
    cdef readonly set subscriptions
    cdef readonly bint dead             # its loop is closed: nothing may be asked for any more
    cdef object __weakref__


cdef class LoopSubscription(Subscription):
    cdef Inbox inbox
    cdef object ended
    cdef ex_taken[16] held              # taken out of the queue with one lock, and not handed out yet
    cdef int at, n                      # those from `at` to `n`
    cdef int let_held_go(self) except -1


cdef class Flow:
    cdef public LoopSubscription _handle
    cdef public int turn                # after so many in a row others have a turn
    cdef public bint tired
    cdef unsigned long taken
    cdef object __weakref__


# A request that the caller ends, or has something else end.
cdef Request signal(Core core, str task, object callback, Inbox inbox)
