"""Gets and puts that nobody waits for: requests with callbacks, as in concurrent.futures, and inboxes of event loops.

Threads
    Any. A request is ended in C, once, by whoever is first (see _requests.c). Its callbacks run on the dispatcher, or
    in the thread of the event loop whose inbox it went to.

Lifetime
    A Request that is under way is pinned by its context until its end has been made known, so it may be dropped.
"""

import logging

cimport cython
from caerr cimport ECA_CHANDESTROY, ECA_DISCONN, ECA_NORMAL, ECA_TIMEOUT
from epicsx._ca cimport (Core, deadline_of, end_if_closed, inbox_free, inbox_kill, inbox_new, inbox_take, request_due,
                         request_end, request_free, request_new, request_route, send_get, send_put_wait,
                         slice_until, wait_some)
from epicsx._dbr cimport Outgoing
from epicsx._sample cimport error_of, sample_of
from epicsx_events cimport EX_BY_CLOSE, EX_BY_DEADLINE, EX_PENDING, EX_UP, ex_block_ref, ex_now, ex_request
from libc.stdint cimport int64_t

from epicsx import _ca
from epicsx.errors import CAError, from_status, timed_out

log = logging.getLogger("epicsx")


@cython.final
@cython.no_gc_clear
cdef class Request:
    """A get or a put under way, as in concurrent.futures; ended exactly once."""

    def __dealloc__(self):
        if self.r == NULL or self.core.state_of_fork():
            return
        self.r.py = NULL
        request_free(self.r)

    def __repr__(self):
        return f"<Request {self.what()} {self.core.name!r} {'done' if self.done() else 'pending'}>"

    cdef str what(self):
        return "put" if self.is_put else "get"

    cdef object error(self):
        return error_of(self.core.name, self.r, self.is_put, <double> (self.deadline - self.asked) * 1e-9)

    cdef object outcome(self):
        error = self.error()
        if error is not None:
            raise error
        if self.is_put:
            return None
        ex_block_ref(self.r.block)
        return sample_of(self.r.block, self.core.name, self.core.ch.type)

    cdef int finish(self) except -1:
        """On the dispatcher or the loop: run the callbacks, and let go."""
        self.known = True
        callbacks, self.callbacks = self.callbacks, None
        try:
            for f in callbacks or ():
                try:
                    f(self)
                except Exception:
                    log.exception("callback of a %s of '%s' failed", self.what(), self.core.name)
        finally:
            self.core.context.pinned.discard(self)
        return 0

    def done(self) -> bool:
        """Whether it has ended."""
        return self.r.state != EX_PENDING

    def result(self, timeout: float | None = None):
        """The Sample of a get, None for a put; raises what went wrong, CATimeoutError if it is not done in time."""
        cdef int64_t deadline = deadline_of(timeout)
        self.core.check()
        while wait_some(self.r, slice_until(min(deadline, self.deadline))):
            if ex_now() >= self.deadline:   # not left to the dispatcher: it may be the one that waits here
                request_end(self.r, EX_BY_DEADLINE, ECA_TIMEOUT)
            elif ex_now() >= deadline:
                raise timed_out(self.core.name, self.what(), timeout, "not done yet")
        return self.outcome()

    def exception(self, timeout: float | None = None):
        """What went wrong, or None; waits like ``result``."""
        try:
            self.result(timeout)
        except CAError as error:
            if not self.done():
                raise
            return error
        return None

    def add_done_callback(self, callback) -> None:
        """Have ``callback(request)`` run on the dispatcher when it ends; here and now if its end is known already."""
        if self.known:
            callback(self)
        else:
            self.callbacks = (self.callbacks or []) + [callback]

    def cancel(self) -> bool:
        """Forget the answer; True if this call ended it. What was sent is not called back."""
        return request_end(self.r, EX_BY_CLOSE, ECA_CHANDESTROY) != 0


cdef Request launch(Core core, int type, bint is_put, object owner, object callback, Inbox inbox, int64_t deadline):
    """A Request that is not sent yet, pinned, its end routed."""
    cdef Request q = Request.__new__(Request)
    q.core = core
    q.is_put = is_put
    q.asked = ex_now()
    q.deadline = deadline
    q.r = request_new(core, type, is_put, owner)
    q.r.py = <void *> q
    if callback is not None:
        q.callbacks = [callback]
    request_route(q.r, inbox.box if inbox is not None else NULL)
    core.context.pinned.add(q)
    return q


cdef Request launched(Request q, int status, object owner):
    if status != ECA_NORMAL:
        q.core.context.pinned.discard(q)
        raise from_status(status, q.core.name, q.what())
    request_due(q.r, q.deadline)
    end_if_closed(q.r, owner)
    return q


def get_async(Core core, int dbr_type, unsigned long count, timeout, owner, callback, Inbox inbox) -> Request:
    """Send a get of a connected channel; see ``Core.get_async``."""
    cdef Request q
    cdef int type, status
    core.may_read()
    type = core.resolve(dbr_type)
    q = launch(core, type, False, owner, callback, inbox, deadline_of(timeout))
    with nogil:
        status = send_get(q.r, type, count)
    return launched(q, status, owner)


def put_async(Core core, value, timeout, bint lenient, callback, owner, Inbox inbox, int dbr_type=-2) -> Request:
    """Send a put with completion to a connected channel; see ``Core.put_async``."""
    cdef Outgoing o
    cdef Request q
    cdef int status
    cdef int64_t deadline = deadline_of(timeout)
    core.check()
    if core.ch.state != EX_UP:
        raise from_status(ECA_DISCONN, core.name, "put")
    _keeper = core.encoded(value, dbr_type, lenient, &o, deadline)
    q = launch(core, -1, True, owner, callback, inbox, deadline)
    with nogil:
        status = send_put_wait(q.r, o.dbr_type, o.count, o.data)
    return launched(q, status, owner)


_ca.hooks["get_async"] = get_async
_ca.hooks["put_async"] = put_async


@cython.final
cdef class Inbox:
    """Where an event loop finds its finished requests: one byte on `fd` per batch of them."""

    def __cinit__(self, int fd):
        self.box = inbox_new(fd)
        if self.box == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.box != NULL:
            inbox_free(self.box)

    def take(self) -> list:
        """The requests that ended since the last call, in order, their callbacks run."""
        cdef ex_request *r = inbox_take(self.box)
        cdef ex_request *following
        cdef Request q
        found = []
        while r != NULL:
            following = r.inbox_next
            if r.py != NULL:
                q = <Request> r.py
                q.finish()
                found.append(q)
            request_free(r)
            r = following
        return found

    def kill(self) -> int:
        """The loop is closed: nothing is written to `fd` any more. How many completions were lost."""
        inbox_kill(self.box)
        return self.box.lost
