"""Gets and puts that nobody waits for: requests with callbacks, as in concurrent.futures, and inboxes of event loops.

Threads
    Any. A request is ended in C, once, by whoever is first (see _requests.c). Its callbacks run on the dispatcher, or
    in the thread of the event loop whose inbox it went to.

Lifetime
    A Request that is under way is pinned by its context, or by the inbox, until its end has been made known, so it may
    be dropped. An inbox whose loop is closed lets everything go, and counts what ends afterwards.
"""

import logging
from collections.abc import Coroutine

cimport cython
from caerr cimport ECA_CHANDESTROY, ECA_DISCONN, ECA_NORMAL, ECA_TIMEOUT
from epicsx._ca cimport (Core, Subscription, bound_of, deadline_of, end_if_closed, generation_now, handle_free,
                         handle_take, handle_unheard, inbox_free,
                         inbox_kill, inbox_new, inbox_ready, inbox_take, request_due, request_end, request_free,
                         request_gather, request_new, request_route, request_ungather, send_get, send_put_wait,
                         slice_until, taken_done, wait_some)
from epicsx._dbr cimport Outgoing
from epicsx._sample cimport error_of, sample_of
from epicsx_events cimport (EX_BY_CLOSE, EX_BY_DEADLINE, EX_FOREVER, EX_NOTE_LINK, EX_NOTE_VALUE, EX_PENDING, EX_UP,
                            ex_block, ex_block_ref, ex_handle, ex_inbox, ex_now, ex_request, ex_taken)
from libc.stdint cimport int64_t

from epicsx import _ca
from epicsx._complaints import tell
from epicsx.counts import Counts
from epicsx.errors import from_status, loop_ending, timed_out

log = logging.getLogger("epicsx")


@cython.final
@cython.no_gc_clear
cdef class Request:
    """A get or a put under way, as in concurrent.futures; ended exactly once."""

    def __dealloc__(self):
        if self.r == NULL or self.core.state_of_fork():
            return
        self.r.py = NULL
        request_ungather(self.r)
        request_free(self.r)

    def __repr__(self):
        return f"<Request {self.what()} {self.core.name!r} {'done' if self.done() else 'pending'}>"

    cdef str what(self):
        return self.task or ("put" if self.is_put else "get")

    cdef object error(self):
        return error_of(self.core.name, self.r, self.is_put, <double> (self.deadline - self.asked) * 1e-9)

    cdef object outcome(self):
        error = self.error()
        if error is not None:
            raise error
        if self.is_put or self.task is not None:
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
                    self.core.failed(f"callback of a {self.what()}", self.core.name)
        finally:
            self.let_go()
        return 0

    cdef int let_go(self) except -1:
        (self.core.context.pinned if self.inbox is None else self.inbox.requests).discard(self)
        request_ungather(self.r)
        return 0

    def done(self) -> bool:
        """Whether it has ended."""
        return self.r.state != EX_PENDING

    cdef int wait(self, timeout) except -1:
        """Return when it has ended; CATimeoutError if that is not in time."""
        cdef int64_t deadline = deadline_of(timeout)
        self.core.check()
        while wait_some(self.r, slice_until(min(deadline, self.deadline))):
            if ex_now() >= self.deadline:   # not left to the dispatcher: it may be the one that waits here
                request_end(self.r, EX_BY_DEADLINE, ECA_TIMEOUT)
            elif ex_now() >= deadline:
                raise timed_out(self.core.name, self.what(), timeout, "not done yet")
        return 0

    def result(self, timeout: float | None = None):
        """The Sample of a get, None for a put; raises what went wrong, CATimeoutError if it is not done in time."""
        self.wait(timeout)
        return self.outcome()

    def exception(self, timeout: float | None = None):
        """What went wrong, or None; waits like ``result``."""
        self.wait(timeout)
        # not raised: its frames would keep the request, as in Python 3.10 they go back to the caller's, which has both
        return self.error()

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
    q.inbox = inbox
    (core.context.pinned if inbox is None else inbox.requests).add(q)
    if inbox is not None and inbox.dead:    # looked at last: what `kill` has not found there finds it dead here
        q.let_go()
        raise loop_ending(core.name)
    return q


cdef Request launched(Request q, int status, object owner):
    if status != ECA_NORMAL:
        q.let_go()
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


cdef Request signal(Core core, str task, object callback, Inbox inbox):
    cdef Request q = launch(core, -1, False, None, callback, inbox, EX_FOREVER)
    q.task = task
    return q


def connect_async(list cores, callback, Inbox inbox) -> Request:
    """A Request that ends when all these channels, of one context, are connected."""
    cdef Core first = cores[0]
    cdef Core c
    cdef Request q
    first.check()
    for c in cores:
        if c.context is not first.context:
            raise ValueError("the channels that are waited for together must belong to one context")
    q = signal(first, "connection", callback, inbox)
    try:
        request_gather(q.r, cores)
    except BaseException:
        q.let_go()
        raise
    return q


_ca.hooks["get_async"] = get_async
_ca.hooks["put_async"] = put_async


# ------------------------------------------------------------- event loops

@cython.final
@cython.no_gc_clear
cdef class Inbox:
    """Where an event loop finds its finished requests and its updates: one byte on `fd` per batch of them.

    It is used by its loop's thread alone, but for ``kill`` and what is counted.
    """

    def __cinit__(self, int fd):
        self.requests = set()
        self.subscriptions = set()
        self.box = inbox_new(fd)
        if self.box == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.box != NULL:
            inbox_free(self.box)

    def take(self, int limit=1000) -> bool:
        """Run the callbacks of what ended and of what has updates; True if there is more than `limit`."""
        cdef ex_request *r = inbox_take(self.box)
        cdef ex_request *following
        cdef ex_handle *h
        cdef Request q
        cdef LoopSubscription s
        cdef object failed = None
        while r != NULL:
            following = r.inbox_next
            try:
                if r.py != NULL:
                    q = <Request> r.py
                    q.finish()
            except BaseException as error:      # Ctrl-C: what else has ended is made known all the same
                failed = error
            request_free(r)
            r = following
        while limit > 0:
            h = inbox_ready(self.box)
            if h == NULL:
                break
            limit -= 1
            try:
                if h.py != NULL:
                    s = <LoopSubscription> h.py
                    s.callback()
            except Exception:
                tell(log, logging.ERROR, "updates of '%s' failed", s.name, failure=True)
            except BaseException as error:
                failed = error
            handle_free(h)
        if failed is not None:
            raise failed
        return limit <= 0

    @property
    def wakes(self) -> int:
        """How often the loop has been woken."""
        return self.box.rings

    @property
    def lost(self) -> int:
        """How many completions came when the loop was gone."""
        return self.box.lost

    def kill(self) -> int:
        """The loop is closed: nothing is written to `fd` any more. How many completions and updates were lost here."""
        cdef Request q
        cdef LoopSubscription s
        cdef int64_t updates = 0
        self.dead = True                        # before the copies: what comes later sees it, and is refused
        inbox_kill(self.box)
        for q in list(self.requests):           # those that end from now on are counted as lost, too
            request_end(q.r, EX_BY_CLOSE, ECA_CHANDESTROY)
            q.let_go()
        for s in list(self.subscriptions):
            updates -= s.stats.dropped
            s.close()                           # events may arrive until here
            updates += s.stats.dropped
        return self.box.lost + updates


@cython.final
@cython.no_gc_clear
cdef class LoopSubscription(Subscription):
    """A subscription whose updates wait until an event loop takes them.

    Parameters
    ----------
    callback : callable
        ``callback()``, in the loop's thread, once there is something to ``take``; again after a take found nothing.
    ended : callable
        ``ended()``, in any thread, when it is closed.
    mask, count, queue, dbr_type, lane
        As of ``Core.subscribe``.
    """

    def __init__(self, Core core, Inbox inbox, callback, ended, mask=5, count=0, queue="all", dbr_type=-1, lane="auto"):
        core.check()
        self.inbox = inbox
        self.callback = callback
        self.open_(core, dbr_type, count, int(mask), bound_of(queue), queue == "latest", True, lane)
        self.ended = ended
        core.context.pinned.add(self)
        self.pinned = True
        inbox.subscriptions.add(self)
        if inbox.dead:
            self.close()
            raise loop_ending(core.name)

    cdef ex_inbox *loop_inbox(self) noexcept:
        return self.inbox.box

    def __dealloc__(self):
        # The base gives up the handle itself, afterwards.
        if self.context is not None and self.context.generation == generation_now():
            while self.at < self.n:
                taken_done(&self.held[self.at])
                self.at += 1

    cdef int let_held_go(self) except -1:
        cdef int i, dropped = 0
        for i in range(self.at, self.n):
            dropped += self.held[i].kind == EX_NOTE_VALUE
            taken_done(&self.held[i])
        self.at = self.n = 0
        if dropped:
            handle_unheard(self.h, dropped)
        return 0

    cdef int close_(self) except -1:
        if self.h != NULL and self.context.generation == generation_now():
            self.let_held_go()
        Subscription.close_(self)
        self.inbox.subscriptions.discard(self)
        ended, self.ended = self.ended, None
        if ended is not None:
            ended()
        return 0

    @property
    def lost_so_far(self) -> int:
        """How many updates have been replaced by newer ones, or found no room: a fresh look, by the loop that takes."""
        return self.h.merged + self.h.dropped if self.h != NULL else 0

    @property
    def stats(self) -> Counts:
        """One consistent copy of the counts: received == delivered + merged + dropped + pending."""
        cdef int i, held = 0
        for i in range(self.at, self.n):
            held += self.held[i].kind == EX_NOTE_VALUE
        found = Subscription.stats.__get__(self)
        return found._replace(delivered=found.delivered - held, pending=found.pending + held) if held else found

    def take(self):
        """The oldest of what waits: a Sample; True or False for a connection made or lost; None: there is nothing."""
        cdef ex_taken *t
        cdef ex_block *b
        cdef bint connected
        while True:
            if self.at == self.n:
                self.at = 0
                self.n = 0 if self.h == NULL else <int> handle_take(self.h, self.held, 16)
                if self.n == 0:
                    return None
            t = &self.held[self.at]
            self.at += 1
            if t.kind == EX_NOTE_VALUE:
                b = t.block
                t.block = NULL
                taken_done(t)
                return sample_of(b, self.name, self.h.sub.channel.type)
            connected = t.a != 0
            if t.kind == EX_NOTE_LINK:
                taken_done(t)
                return connected
            taken_done(t)
            self.move()                         # too large for this lane: on with its handle in the other


cdef class Flow:
    """An asynchronous iterator over what one loop takes of a subscription: as ``_next()`` says, where nothing waits."""

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Ready found = Ready.__new__(Ready)
        found.flow = self
        return found


@cython.final
@cython.freelist(8)
cdef class Ready:
    """The coroutine of one step of a `Flow`: it takes what waits when it begins, and needs no frame then."""
    cdef Flow flow                      # until it begins
    cdef object rest                    # the coroutine that goes on where nothing waits

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef Flow flow = self.flow
        if flow is None:
            return self.under_way().send(None)
        self.flow = None
        flow.taken += 1
        if flow.taken % flow.turn:
            item = flow._handle.take()
            while item is True or item is False:
                item = flow._handle.take()
            if item is not None:
                raise StopIteration(item)
        else:
            flow.tired = True
        self.rest = flow._next()
        return self.rest.send(None)

    cdef object under_way(self):
        if self.rest is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        return self.rest

    def send(self, value):
        """As of a coroutine."""
        if self.flow is None:
            return self.under_way().send(value)
        if value is not None:
            raise TypeError("can't send non-None value to a just-started coroutine")
        return self.__next__()

    def throw(self, kind, value=None, trace=None):
        """As of a coroutine; before it began, nothing has been taken."""
        if self.flow is None:
            return self.under_way().throw(kind if value is None else value)
        self.flow = None
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value if trace is None else value.with_traceback(trace)

    def close(self):
        """As of a coroutine."""
        self.flow = None
        if self.rest is not None:
            self.rest.close()


Coroutine.register(Ready)               # so asyncio makes tasks of it
