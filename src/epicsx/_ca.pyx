"""The compiled core: contexts, channels and subscriptions over libca.

Threads
    Everything here may be called from any Python thread, also from callbacks. Each call of libca (all of them in
    _libca.c) and each wait releases the GIL. libca's own threads and the keeper never come here: they run plain C
    (_events.c, _requests.c, _libca.c). Waits are sliced, so that Ctrl-C works.

Lifetime
    One Core per (context, name, priority), in a weak registry; Channel, PV and chid are handles on it. A Core that is
    freed drops its C channel; the keeper clears it. What a user's callback hangs on is pinned by the Context until
    it is closed. ``lent()`` counts what libca may still mention, ``blocks()`` the blocks that somebody holds.
    After fork() everything made before belongs to a dead generation: calls raise, deallocation leaves it alone.
"""

import logging
import math
import os
import threading
import weakref

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.buffer cimport PyBuffer_Release
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

from epicsx._dbr cimport (Control, Outgoing, decode_control, element_size, encode, encode_string_block,
                          enum_index, time_of)
from epicsx._sample cimport Sample, error_of, filled, out_buffer, sample_of
from caerr cimport (ECA_CHANDESTROY, ECA_DISCONN, ECA_NORDACCESS, ECA_NORMAL, ECA_NOWTACCESS, ECA_TIMEOUT)
from epicsx_events cimport *
from epicsx_sinks cimport *

from epicsx._complaints import Failures, tell
from epicsx._linkage import MODE
from epicsx.counts import ChannelStats, Counts
from epicsx.enums import DBE
from epicsx.errors import (AccessError, BadTypeError, BadValueError, CAError, CATimeoutError, DisconnectedError,
                           from_status, not_started, timed_out, unanswered)

log = logging.getLogger("epicsx")

cdef int64_t SLICE = 50_000_000        # nanoseconds between two looks for Ctrl-C
cdef int STRING = 0
cdef int ENUM = 3
cdef int DOUBLE = 6

hooks = {}
"""What the layers above fill in: ``start(context)``, ``stop(contexts, timeout)``, ``get_async``, ``put_async``."""

cdef dict contexts = {}
cdef object contexts_lock = threading.Lock()
cdef int last_id = 0
cdef bint exiting = False


# ---------------------------------------------------------------- deadlines

cdef int64_t deadline_of(object timeout) except -1:
    """The monotonic nanosecond at which `timeout` seconds will have passed; None is for ever."""
    cdef double seconds
    if timeout is None:
        return EX_FOREVER
    seconds = timeout
    if math.isnan(seconds):
        raise BadValueError("a timeout is a number of seconds or None, not nan")
    if seconds > 1e9:
        return EX_FOREVER
    return ex_now() + <int64_t>(max(seconds, 0.0) * 1e9)


cdef int64_t slice_until(int64_t deadline) noexcept nogil:
    cdef int64_t until = ex_now() + SLICE
    return until if until < deadline else deadline


cdef double seconds_in(int64_t nanoseconds) noexcept:
    return <double> nanoseconds * 1e-9


cdef double seconds_of(object timeout):
    return 0.0 if timeout is None else timeout


# ------------------------------------------------------------------ context

@cython.final
@cython.no_gc_clear
cdef class Context:
    """A lane: one private, preemptive libca context with its keeper, its queue and its set of lent objects."""

    def __cinit__(self, str name):
        global last_id
        last_id += 1
        self.id = last_id
        self.name = name
        self.registry = {}
        self.pinned = set()
        self.generation = ex_generation_now()
        self.lane = ex_lane_new(b"bulk" if name == "bulk" else b"default")
        if self.lane == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.lane != NULL and self.generation == ex_generation_now():
            ex_lane_unref(self.lane)

    def __repr__(self):
        return f"<Context {self.name!r} id={self.id}{'' if self.alive_() else ', ended'}>"

    @property
    def alive(self) -> bool:
        """Whether it can be used: started, not stopped, and of this process."""
        return self.alive_()

    cdef bint alive_(self) noexcept:
        return self.running and self.generation == ex_generation_now()

    cdef int check(self) except -1:
        if self.generation != ex_generation_now():
            raise CAError("made before fork(): this process needs channels of its own")
        if not self.running:
            raise CAError("Channel Access has been shut down")
        return 0

    def pin(self, obj) -> None:
        """Keep `obj` alive until it is unpinned: a user's callback hangs on it."""
        self.pinned.add(obj)

    def unpin(self, obj) -> None:
        """Let `obj` go."""
        self.pinned.discard(obj)

    def set_bounds(self, events: int | None = None, nbytes: int | None = None) -> None:
        """Set how many events, and bytes of them, may wait in this lane's queue."""
        self.check()
        if events is not None:
            self.lane.max_events = events
        if nbytes is not None:
            self.lane.max_bytes = nbytes

    @property
    def bounds(self) -> tuple:
        """How many events, and bytes of them, may wait in this lane's queue."""
        return self.lane.max_events, self.lane.max_bytes

    @property
    def waiting(self) -> tuple:
        """How many events, and bytes of them, wait now."""
        return self.lane.events, self.lane.bytes

    @property
    def closing(self) -> tuple:
        """Circuits whose last user is gone and waits for its clear; those being closed; channels that wait for that."""
        return self.lane.emptied, self.lane.leaving, self.lane.deferred

    @property
    def dead_circuits(self) -> int:
        """How often the channels of an unresponsive circuit have left it."""
        return self.lane.dead_circuits

    @property
    def clock(self) -> tuple:
        """How often the system's clock was set while this lane ran, and by how many seconds in all."""
        if self.alive_():
            with nogil:
                ex_lane_look_at_clock(self.lane)
        return self.lane.clock_steps, <double> self.lane.clock_stepped * 1e-9

    @property
    def polled(self) -> bool:
        """Whether every update waits in the queue until somebody drains it, listened to or not."""
        return self.lane.polled != 0

    @polled.setter
    def polled(self, bint polled) -> None:
        self.lane.polled = polled

    def health(self) -> dict:
        """The lane's numbers, as `LaneHealth` has them; one consistent copy of each channel's counts."""
        cdef ex_health h
        cdef int64_t call
        if self.generation != ex_generation_now():
            return {}
        with nogil:
            ex_lane_health(self.lane, &h)
        steps, stepped = self.clock
        call = self.calling_since
        counts = h.tally.counts
        return {
            "received": counts.received, "delivered": counts.delivered, "merged": counts.merged,
            "dropped": counts.dropped, "pending": counts.pending,
            "disconnects": h.tally.disconnects, "unresponsive": h.tally.unresponsive,
            "dead_circuits": self.lane.dead_circuits, "rejected_puts": h.tally.rejected_puts,
            "decode_errors": h.tally.decode_errors, "callback_errors": h.tally.callback_errors,
            "server_errors": self.lane.server_errors, "lost_logs": self.lane.lost_logs,
            "channels": h.channels, "connected": h.connected, "never_connected": h.never_connected,
            "subscriptions": h.subscriptions, "circuits": h.circuits,
            "notes": h.notes, "queue_bytes": self.lane.bytes, "waited": seconds_in(h.age),
            "longest_wait": seconds_in(max(self.longest_wait, h.age)),
            "callback_seconds": seconds_in(ex_now_coarse() - call if call else 0),
            "longest_callback": seconds_in(self.longest_call), "slowest": self.slowest or "",
            "clock_steps": steps, "clock_stepped": stepped, "keeper": self.lane.keeper_state == 2,
        }

    def wait_notes(self, timeout: float | None = None) -> bool:
        """Wait without the GIL until there is something to deliver; also ends requests whose deadline has passed."""
        cdef int64_t deadline = deadline_of(timeout)
        cdef bint got
        with nogil:
            got = ex_lane_wait(self.lane, deadline)
            ex_lane_expire(self.lane, ex_now())
        return got

    def wake(self) -> None:
        """Let a thread in ``wait_notes`` return."""
        if self.generation == ex_generation_now():
            ex_lane_wake(self.lane)

    def flush(self) -> None:
        """Send what has been asked for."""
        self.check()
        with nogil:
            ex_ca_flush(self.lane)

    @property
    def lost_logs(self) -> int:
        """How many of libca's messages found no room in the queue."""
        return self.lane.lost_logs

    def _start(self) -> None:
        cdef ex_start how
        cdef int status
        from epicsx._repeater import start as start_repeater     # sockets, paths: not for every import of epicsx

        environment()
        start_repeater()
        self.lane.dead_after = dead_after()
        self.lane.steady_clock = MODE == "hardened"
        how.errlog = MODE in ("bundled", "hardened")    # a libCom of our own: no one else logs by it
        how.deadline = ex_now() + 5_000_000_000
        with nogil:
            status = ex_keeper_start(self.lane, &how)
        if status == ECA_TIMEOUT and self.generation > 0:
            raise RuntimeError("no Channel Access context could be made in this forked process within 5 s; "
                               "use the 'spawn' start method of multiprocessing")
        if status != ECA_NORMAL:
            raise not_started(status)
        self.running = True

    def _stop(self, timeout: float) -> bool:
        """End it: requests fail, puts are flushed, the context is destroyed if that can be done in `timeout` s."""
        cdef int64_t deadline = deadline_of(timeout)
        cdef bint done
        if not self.alive_():
            return True
        self.running = False
        with nogil:
            ex_keeper_close(self.lane)
            ex_lane_end_requests(self.lane, EX_BY_SHUTDOWN)
            done = ex_keeper_stop(self.lane, deadline)
        self.pinned.clear()
        return done


def environment() -> None:
    """Set what libca reads once, at its first use, where the user has not."""
    # This also sets the threshold of libca's flow control (cac::cac): without it, arrays above 160 kB stop the stream.
    if not os.environ.get("EPICS_CA_MAX_ARRAY_BYTES"):
        os.environ["EPICS_CA_MAX_ARRAY_BYTES"] = "100000000"


cdef int64_t dead_after() except -1:
    """Nanoseconds for which a circuit may be unresponsive before its channels leave it, as the environment says."""
    text = os.environ.get("EPICSX_DEAD_CIRCUIT_TIMEOUT", "")
    cdef double seconds = 5.0
    if text.strip():
        try:
            seconds = float(text)
            if not seconds >= 0:
                raise ValueError
        except ValueError:
            log.warning("EPICSX_DEAD_CIRCUIT_TIMEOUT is a number of seconds, or inf for never, not %r; 5 is used", text)
            seconds = 5.0
    return EX_FOREVER if seconds > 1e9 else <int64_t> (seconds * 1e9)


def context(str lane="default") -> Context:
    """The running context of a lane; the first call starts it, with its keeper and its dispatcher."""
    cdef Context found = contexts.get(lane)
    if found is not None and found.alive_():
        return found
    with contexts_lock:
        found = contexts.get(lane)
        if found is not None and found.alive_():
            return found
        if exiting:
            raise CAError("Channel Access has been shut down: the program is ending")
        if "start" not in hooks:
            raise RuntimeError("import epicsx, not epicsx._ca: nobody would deliver")
        found = Context(lane)
        found._start()
        contexts[lane] = found
        hooks["start"](found)
    return found


def lanes() -> list:
    """The contexts that run in this process; none is started."""
    return [c for c in list(contexts.values()) if (<Context?> c).alive_()]


def started() -> bool:
    """Whether Channel Access has been used in this process."""
    return any((<Context?> c).alive_() for c in contexts.values())


def shutdown(timeout: float = 1.0, final: bool = False) -> None:
    """End all lanes at once, under one deadline; `final` at the end of the program, after which none is started."""
    global exiting
    exiting = exiting or final
    cdef double until = <double> ex_now() / 1e9 + timeout
    running = [c for c in contexts.values() if (<Context?> c).alive_()]
    contexts.clear()
    if not running:
        return
    if "stop" in hooks:
        hooks["stop"](running, min(0.3, timeout / 3))
    for c in running:
        (<Context> c)._stop(min(0.7 * timeout, max(0.0, until - <double> ex_now() / 1e9)))


def lent() -> int:
    """How many channels, subscriptions and requests libca may still mention."""
    return ex_lent()


def blocks() -> int:
    """How many blocks of event data are held by somebody: queue, newest values, samples, arrays."""
    return ex_blocks()


def pool_bytes() -> int:
    """How many bytes the pool of blocks keeps for later."""
    return ex_pool_bytes()


def message(status: int) -> str:
    """libca's own text for a status code."""
    return ex_ca_message(status).decode("ascii", "replace")


def ca_version() -> str:
    """The version of the Channel Access protocol that libca speaks."""
    return ex_ca_version().decode("ascii", "replace")


def _after_fork() -> None:
    # Python's part; the C locks were made anew by pthread_atfork's child handler, before.
    global contexts_lock
    contexts_lock = threading.Lock()
    for c in contexts.values():
        (<Context> c).registry = {}
        (<Context> c).pinned = set()
    contexts.clear()


cdef extern from *:
    """
    #if defined(_WIN32)
    static void epicsx_install_atfork(void) {}
    #else
    #include <pthread.h>
    static void epicsx_install_atfork(void) { pthread_atfork(NULL, NULL, ex_fork_child); }
    #endif
    """
    void epicsx_install_atfork()

epicsx_install_atfork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef void batch_begins(Context context) noexcept:
    """Once per batch and after each slow callback, not per event: how long what is first has waited."""
    cdef int64_t age = ex_lane_age(context.lane)
    if age > context.longest_wait:
        context.longest_wait = age


cdef int take(Context context, ex_taken *t) noexcept:
    if context.lane.first_due != NULL:  # deadlines hold under a backlog too, when nobody comes to wait_notes
        ex_lane_expire(context.lane, ex_now())
    return ex_lane_take(context.lane, t)


cdef str taken_name(ex_taken *t):
    """Which PV the note is about; whoever heard of it may be gone by now."""
    return ex_taken_name(t).decode("utf-8", "surrogateescape")


cdef int value_failed(ex_taken *t, object name) except -1:
    """The callback of a VALUE has raised; it may have closed its handle, and the channel, before."""
    cdef ex_channel *ch = (<ex_handle *> t.subject).sub.channel
    if ch.py != NULL:
        return (<Core> ch.py).failed("callback", name)
    ex_channel_failed(ch)
    tell(log, logging.ERROR, "callback of '%s' failed", name, failure=True)
    return 0


cdef void tally_of(ex_handle *h, ex_tally *out) noexcept:
    ex_tally_of_handle(h, out)


cdef void taken_done(ex_taken *t) noexcept:
    ex_taken_done(t)


# --------------------------------------------------------------------- core

@cython.final
@cython.no_gc_clear
cdef class Core:
    """The channel itself, shared by every handle on the same name: connection truth, requests, control data."""

    def __dealloc__(self):
        cdef Context ctx = self.context
        if self.ch == NULL or ctx is None or ctx.generation != ex_generation_now():
            return
        # Only a dead weak reference is ours: another Core may have the name already.
        key = (self.name, self.priority)
        ref = ctx.registry.get(key)
        if ref is not None and ref() is None:
            del ctx.registry[key]
        ex_channel_drop(self.ch)
        if self.control_sub != NULL:    # only here: until now another thread may have been waiting for it
            ex_sub_leave(self.control_sub)
        ex_channel_unref(self.ch)

    def __repr__(self):
        return f"<Core {self.name!r} {('never connected', 'disconnected', 'connected', 'closed')[self.ch.state]}>"

    cdef int check(self) except -1:
        self.context.check()
        if self.ch.state == EX_CLOSED:
            raise DisconnectedError(ECA_CHANDESTROY, f"the channel '{self.name}' has been closed", self.name)
        return 0

    cdef int failed(self, object what, object name) except -1:
        """A user's callback has raised: count it, and log it with its traceback, if `Failures` lets it."""
        ex_channel_failed(self.ch)
        if self.failures is None:
            self.failures = Failures()
        unsaid = self.failures.due(what)
        if unsaid is not None:
            tell(log, logging.ERROR, "%s of '%s' failed%s", what, name,
                 f"; {unsaid} more since the last that was logged" if unsaid else "", failure=True)
        return 0

    cdef bint state_of_fork(self) noexcept:
        return self.context.generation != ex_generation_now()

    # ---- facts, as libca's threads last heard them

    @property
    def state(self) -> int:
        """0 never connected, 1 was connected, 2 connected, 3 closed."""
        return 3 if self.context.generation != ex_generation_now() else self.ch.state

    @property
    def connected(self) -> bool:
        """Whether the channel is connected now."""
        return self.ch.state == EX_UP and self.context.alive_()

    @property
    def native_type(self) -> int:
        """The record's type as Channel Access serves it; -1 before the first connect."""
        return self.ch.type

    @property
    def count(self) -> int:
        """The record's number of elements; 0 before the first connect."""
        return self.ch.count

    @property
    def host(self) -> str:
        """``host:port`` of the server; empty before the first connect.

        DNS may have named the host since the connect: all channels of one connection give the newest name known.
        """
        cdef const char *host = self.ch.host           # once: libca's threads may change it
        return host.decode("utf-8", "replace")

    @property
    def circuit(self) -> int:
        """A number that the channels of one connection share; 0 while there is none."""
        return <uintptr_t> self.ch.circuit

    @property
    def read_access(self) -> bool:
        """Whether the server lets us read."""
        return self.ch.reading != 0

    @property
    def write_access(self) -> bool:
        """Whether the server lets us write."""
        return self.ch.writing != 0

    @property
    def connects(self) -> int:
        """How often it has connected."""
        return self.ch.connects

    @property
    def stats(self) -> ChannelStats:
        """One consistent copy of the channel's counts, over all its subscriptions; zeros after fork()."""
        cdef ex_tally t
        ex_tally_of_channel(self.ch, &t)
        c = t.counts
        found = ChannelStats(c.received, c.delivered, c.merged, c.dropped, c.pending, t.disconnects,
                             t.rejected_puts, t.decode_errors, t.unresponsive, t.callback_errors, t.bytes,
                             seconds_in(ex_now_coarse() - t.oldest) if t.oldest else 0.0)
        if self.bulk is None:
            return found
        more = self.bulk.stats          # its losses of connection are the same ones: of another circuit to that server
        return ChannelStats(*[a + b for a, b in zip(found[:5], more[:5])], found.disconnects, found.rejected_puts,
                            found.decode_errors + more.decode_errors, found.unresponsive,
                            found.callback_errors + more.callback_errors, found.queue_bytes + more.queue_bytes,
                            max(found.waited, more.waited))

    @property
    def subscriptions(self) -> int:
        """How many subscriptions the server serves now."""
        if self.state_of_fork():
            return 0
        return ex_subs_of(self.ch) + (self.bulk.subscriptions if self.bulk is not None else 0)

    # ---- connection

    cdef int connect_by(self, int64_t deadline, object timeout, str operation) except -1:
        """Wait until it is connected; whoever waits is woken by libca's thread itself."""
        self.check()
        if self.ch.state != EX_UP and not self.wait_on(NULL, deadline):
            raise timed_out(self.name, operation, seconds_of(timeout), self.why_not())
        return self.check()

    cdef bint wait_on(self, ex_sub *sub, int64_t deadline) except -1:
        """Wait for the connection, or for a fresh value of `sub`. False: the deadline has passed."""
        cdef ex_waiter w
        cdef ex_wait_node node
        cdef bint there
        with nogil:
            ex_wait_begin(self.ch.lane, &w)
            there = ex_wait_value(sub, &w, &node) if sub != NULL else ex_wait_connected(self.ch, &w, &node)
        try:
            while not there and self.context.alive_():
                with nogil:
                    there = ex_wait_for(self.ch.lane, &w, slice_until(deadline))
                if not there:
                    PyErr_CheckSignals()
                    if ex_now() >= deadline:
                        return False
        finally:
            with nogil:
                ex_wait_end(self.ch.lane, &w, &node, 1)
        return True

    cdef str why_not(self):
        if self.ch.connects:
            return f"{self.host} was lost and has not come back"
        return unanswered()

    def wait_connected(self, timeout: float | None = 5.0) -> bool:
        """Whether it is connected, now or within `timeout` seconds."""
        try:
            self.connect_by(deadline_of(timeout), timeout, "connecting")
        except CATimeoutError:
            return False
        return True

    def listen(self, obj) -> None:
        """Have ``obj._on_core_connection`` and ``_on_core_access`` called by the dispatcher; `obj` is held weakly."""
        self.context.check()
        if self.listeners is None:
            self.listeners = []
        self.listeners.append(weakref.ref(obj))
        ex_channel_set_news(self.ch, 1)

    def unlisten(self, obj) -> None:
        """Undo ``listen``."""
        if self.listeners is not None:
            self.listeners = [r for r in self.listeners if r() is not None and r() is not obj]
            if not self.listeners and self.context.generation == ex_generation_now():
                ex_channel_set_news(self.ch, 0)

    def tell(self, bint connected) -> None:
        """Have those who listen here told of a connection elsewhere, by this channel's dispatcher."""
        if self.context.alive_():
            ex_channel_tell(self.ch, connected)

    def heard(self) -> list:
        """Those who listen, as strong references."""
        found = []
        for ref in self.listeners or ():
            obj = ref()
            if obj is not None:
                found.append(obj)
        return found

    def clear(self) -> None:
        """End the channel for everybody: requests end, subscriptions fall silent, the keeper clears it."""
        if self.context.generation != ex_generation_now():
            return
        key = (self.name, self.priority)
        ref = self.context.registry.get(key)
        if ref is not None and ref() is self:
            del self.context.registry[key]
        ex_channel_drop(self.ch)
        if self.bulk is not None:
            self.bulk.clear()
        for obj in list(self.context.pinned):
            if isinstance(obj, Subscription) and (<Subscription> obj).core is self:
                (<Subscription> obj).close_()

    # ---- control data

    cdef object control_now(self):
        """The newest control data, decoded once per arrival; None before the first."""
        cdef ex_block *b
        cdef int fresh
        if self.control_sub == NULL:
            return None
        b = ex_sub_newest(self.control_sub, &fresh)
        if b == NULL:
            return None
        if b.arrival != self.control_arrival or self.control_seen is None:
            self.control_seen = decode_control(b.dbr_type, EX_HEADER(b))
            self.control_arrival = b.arrival
        ex_block_unref(b)
        return self.control_seen

    cdef uint64_t control_stamp(self) noexcept:
        return self.control_sub.last_arrival if self.control_sub != NULL else 0

    def peek_control(self):
        """The control data known so far, or None; never asks the server."""
        if self.context.generation != ex_generation_now():
            return None
        return self.control_now()

    def control(self, timeout: float | None = 5.0) -> Control:
        """Units, limits, precision and enum names; asked for once, then kept fresh by a DBE_PROPERTY subscription."""
        cdef int64_t deadline = deadline_of(timeout)
        self.connect_by(deadline, timeout, "control data")
        if self.ch.type == STRING:
            return Control()
        if self.control_sub == NULL:
            self.control_sub = ex_sub_get(self.ch, EX_CTRL_OF_NATIVE, 1, DBE.PROPERTY, 0)
            if self.control_sub == NULL:
                raise MemoryError
        if not self.wait_on(self.control_sub, deadline):
            raise timed_out(self.name, "control data", seconds_of(timeout), "the server has not answered")
        self.check()
        found = self.control_now() if self.control_sub.fresh else None
        if found is None:
            status = self.control_sub.last_status
            raise from_status(ECA_DISCONN if status == ECA_NORMAL else status, self.name, "control data")
        return found

    # ---- get

    cdef int resolve(self, int dbr_type) noexcept:
        """-1: TIME of the native type; -2: the native type itself."""
        if dbr_type == -1:
            return time_of(self.ch.type)
        return self.ch.type if dbr_type == -2 else dbr_type

    cdef int may_read(self) except -1:
        self.check()
        if not self.ch.reading and self.ch.state == EX_UP:
            raise AccessError(ECA_NORDACCESS, f"get of '{self.name}': the server gives no read access", self.name)
        return 0

    cdef ex_request *request(self, int type, bint is_put, object owner) except NULL:
        cdef ex_request *r = ex_request_new(self.ch, type, is_put)
        if r == NULL:
            raise MemoryError
        r.owner = <void *> owner if owner is not None else NULL
        return r

    cdef Sample answer(self, ex_request *r, int status, int64_t deadline, object timeout):
        """Wait for the reply of a get that has been sent with this status."""
        if status != ECA_NORMAL:
            raise from_status(status, self.name, "get")
        wait_request(r, deadline)
        error = error_of(self.name, r, False, seconds_of(timeout))
        if error is not None:
            raise error
        ex_block_ref(r.block)
        return sample_of(r.block, self.name, self.ch.type)

    def get(self, int dbr_type=-1, unsigned long count=0, timeout=5.0, out=None, owner=None) -> Sample:
        """The value as the server has it now; connecting is included. Raises, never returns None."""
        cdef int64_t deadline = deadline_of(timeout)
        cdef ex_request *r
        cdef Py_buffer buf
        cdef Sample sample
        cdef int status, type
        self.connect_by(deadline, timeout, "get")
        self.may_read()
        type = self.resolve(dbr_type)
        if out is not None:
            out_buffer(out, type, self.name, &buf)
        try:
            r = self.request(type, False, owner)
            if out is not None:
                r.out = buf.buf
                r.out_count = <size_t> buf.len // element_size(type)
            try:
                with nogil:
                    status = send_get(r, type, count)
                end_if_closed(r, owner)
                sample = self.answer(r, status, deadline, timeout)
            finally:
                ex_request_unref(r)         # ended, whatever happened: nobody writes to `out` any more
        finally:
            if out is not None:
                PyBuffer_Release(&buf)
        if out is not None:
            sample.array = filled(out, sample.b.count)
        return sample

    def get_async(self, dbr_type=-1, count=0, timeout=None, owner=None, callback=None, inbox=None):
        """Send a get of a connected channel; the Request ends by the reply, loss, `timeout`, or close."""
        return hooks["get_async"](self, dbr_type, count, timeout, owner, callback, inbox)

    # ---- put

    cdef object encoded(self, object value, int dbr_type, bint lenient, Outgoing *o, int64_t deadline):
        """What the server shall get; raises before anything is sent. Returns what owns the memory."""
        cdef int type = self.ch.type if dbr_type == -2 else dbr_type
        if not self.ch.writing:
            raise AccessError(ECA_NOWTACCESS, f"put to '{self.name}': the server gives no write access", self.name)
        if type == ENUM and self.ch.type == ENUM and isinstance(value, (str, bytes)):
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            left = None if deadline == EX_FOREVER else max(0.0, <double> (deadline - ex_now()) * 1e-9)
            names = self.control(left).enum_strings or ()
            try:
                value = enum_index(text, names, self.name)
            except BadValueError:
                if not lenient:
                    raise
                try:
                    value = int(text, 0)
                except ValueError:
                    raise BadValueError(f"'{self.name}' has no state {text!r}; it has {list(names)}",
                                        name=self.name) from None
            if isinstance(value, str):
                return encode_string_block(value, self.name, o)
        # an acknowledgement is of the record, not of an element
        return encode(value, type, self.ch.count if type <= DOUBLE else 1, lenient, self.name, o)

    def put(self, value, bint wait=False, timeout=5.0, bint lenient=False, owner=None, int dbr_type=-2) -> None:
        """Write `value`; with `wait`, return when the record has finished processing. Connecting is included.

        It is sent as `dbr_type`: the record's own (-2), another native type, or an acknowledgement of an alarm.
        """
        cdef int64_t deadline = deadline_of(timeout)
        cdef Outgoing o
        cdef ex_request *r
        cdef int status
        if self.ch.state != EX_UP or not self.context.running:
            self.connect_by(deadline, timeout, "put")
        else:
            self.check()
        _keeper = self.encoded(value, dbr_type, lenient, &o, deadline)
        if not wait:
            with nogil:
                status = send_put(self.ch, o.dbr_type, o.count, o.data)
            if status != ECA_NORMAL:
                raise from_status(status, self.name, "put")
            return
        r = self.request(-1, True, owner)
        try:
            with nogil:
                status = send_put_wait(r, o.dbr_type, o.count, o.data)
            if status != ECA_NORMAL:
                raise from_status(status, self.name, "put")
            end_if_closed(r, owner)
            wait_request(r, deadline)
            error = error_of(self.name, r, True, seconds_of(timeout))
        finally:
            ex_request_unref(r)
        if error is not None:
            raise error

    def put_async(self, value, timeout=None, lenient=False, callback=None, owner=None, inbox=None, dbr_type=-2):
        """Send a put with completion to a connected channel; ``callback(request)`` runs on the dispatcher."""
        return hooks["put_async"](self, value, timeout, lenient, callback, owner, inbox, dbr_type)

    # ---- subscriptions

    def subscribe(self, callback, mask=5, count=0, queue="all", dbr_type=-1, lane="auto") -> Subscription:
        """Have ``callback(sample)`` called on the dispatcher for every update from now on."""
        cdef Subscription s
        self.check()
        if not callable(callback):
            raise BadTypeError(f"'{self.name}': a callback must be callable, not {callback!r}", name=self.name)
        s = Subscription.__new__(Subscription)
        s.callback = callback
        s.open_(self, dbr_type, count, int(mask), bound_of(queue), queue == "latest", True, lane)
        self.context.pinned.add(s)
        s.pinned = True
        return s


def callback_failed(Core core, str name, str what="callback") -> None:
    """Count a user's callback that has raised, and log it with the name of its PV; in its ``except`` clause.

    `core` is None where its handle has been closed meanwhile: then it is only logged.
    """
    if core is not None:
        core.failed(what, name)
    else:
        tell(log, logging.ERROR, "%s of '%s' failed", what, name, failure=True)


cdef int check_mask(str name, long mask) except -1:
    if mask & ~15 or not mask:
        raise BadValueError(f"'{name}': a mask is a combination of DBE flags, not {mask}", name=name)
    return 0


cdef size_t bound_of(object queue) except? 0:
    if queue == "all":
        return 10_000
    if queue == "latest":
        return 1
    if isinstance(queue, bool) or not isinstance(queue, int) or queue < 1:
        raise BadValueError(f"queue is 'all', 'latest' or a number of events of at least 1, not {queue!r}")
    return queue


cdef int send_get(ex_request *r, int type, unsigned long count) noexcept nogil:
    cdef int status = ex_ca_get(r, type, count)
    return ex_ca_flush(request_lane(r)) if status == ECA_NORMAL else status


cdef int send_put_wait(ex_request *r, int type, unsigned long count, const void *data) noexcept nogil:
    cdef int status = ex_ca_put_wait(r, type, count, data)
    return ex_ca_flush(request_lane(r)) if status == ECA_NORMAL else status


cdef int send_put(ex_channel *ch, int type, unsigned long count, const void *data) noexcept nogil:
    cdef int status = ex_ca_put(ch, type, count, data)
    return ex_ca_flush_soon(ch.lane) if status == ECA_NORMAL else status


cdef extern from *:
    """
    static ex_lane *request_lane(ex_request *r) { return r->link.channel->lane; }
    """
    ex_lane *request_lane(ex_request *r) nogil


cdef enum:
    MAX_NAME = 1007    # a search must fit one datagram: nciu::nciu (nciu.cpp), MAX_UDP_SEND


def core(str name, int priority=0, Context ctx=None) -> Core:
    """The shared core channel of that name: found, or made and being searched for."""
    cdef Core c
    cdef bytes raw
    cdef const char *text
    cdef ex_channel *ch
    cdef int status
    if ctx is None:
        ctx = context()
    key = (name, priority)
    ref = ctx.registry.get(key)
    if ref is not None:
        c = ref()
        if c is not None and c.ch.state != EX_CLOSED:
            return c
    ctx.check()
    if not name or "\0" in name:
        raise BadValueError(f"a PV name is a text without NUL, not {name!r}", name=name)
    if not 0 <= priority <= 99:
        raise BadValueError(f"'{name}': a priority is 0 to 99, not {priority}", name=name)
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_NAME:
        raise BadValueError(f"a PV name has at most {MAX_NAME} bytes, not {len(raw)}", name=name)
    text = PyBytes_AS_STRING(raw)
    ch = ex_channel_new(ctx.lane, text, priority)
    if ch == NULL:
        raise MemoryError
    c = Core.__new__(Core)
    c.context = ctx
    c.name = name
    c.priority = priority
    c.ch = ch
    ch.py = <void *> c
    ctx.registry[key] = weakref.ref(c)
    with nogil:
        status = ex_ca_create(ch)
    if status != ECA_NORMAL:
        raise from_status(status, name, "creating the channel")
    return c


include "_ca_subscriptions.pxi"


# ----------------------------------------------------------------- requests

cdef bint wait_some(ex_request *r, int64_t until) except -1:
    cdef int state
    with nogil:
        state = ex_request_wait(r, until)
    if state == EX_PENDING:
        PyErr_CheckSignals()
    return state == EX_PENDING


cdef int wait_request(ex_request *r, int64_t deadline) except -1:
    """Ended on return: by the reply, by us at the deadline, or, after Ctrl-C, because nobody will read the answer."""
    try:
        while wait_some(r, slice_until(deadline)):
            if ex_now() >= deadline:
                ex_request_end(r, EX_BY_DEADLINE, ECA_TIMEOUT)
        return 0
    except BaseException:
        ex_request_end(r, EX_BY_CLOSE, ECA_CHANDESTROY)
        raise


cdef int end_if_closed(ex_request *r, object owner) except -1:
    """Another thread closed the handle between its look and the sending: ``end_requests`` has missed this one."""
    if owner is not None and getattr(owner, "_closed", False):
        ex_request_end(r, EX_BY_CLOSE, ECA_CHANDESTROY)
    return 0


def end_requests(Core c, owner) -> None:
    """End the outstanding requests of one handle."""
    cdef void *who = <void *> owner
    if c.context.alive_():
        with nogil:
            ex_channel_close_pending(c.ch, EX_BY_CLOSE, who)


include "_ca_exports.pxi"
