"""Rings of frames and recorders, as Python reads them: what libca's threads fill without the GIL.

Threads
    A ring and a recorder are filled by libca's thread (_sinks.c, _recorders.c). Any thread may read them; each frame is
    handed to one reader. Waits release the GIL and are sliced, so that Ctrl-C works.

Lifetime
    A frame owns its slab's block through its array: the memory goes back to the pool when the last view dies, whatever
    becomes of the stream. A ring is closed by ``close`` or with its last reference; after fork() the child's is dead.
"""

import threading

import numpy as np

cimport cython
from cpython.buffer cimport PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int16_t, int64_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from epicsx_events cimport ex_block, ex_block_ref, ex_block_unref, ex_now
from epicsx_sinks cimport (EX_RING_CLOSED, EX_RING_OVERRUN, EX_RING_TAKEN, epicsx_reducer, ex_frame, ex_ledger,
                           ex_recorder, ex_reduce_args, ex_ring, ex_row, ex_rows, ex_sink, ex_slab)
from epicsx._ca cimport (Core, core_in, deadline_of, generation_now, recorder_close, recorder_copy, recorder_free,
                         recorder_ledger, recorder_new, recorder_sink, recorder_size, recorder_take, recorder_wait,
                         reducer_named, ring_arm, ring_close, ring_end, ring_ledger, ring_new, ring_reduce, ring_sink,
                         ring_take, ring_wake, ring_watch, sink_close, sink_free, sink_open, slab_free)
from epicsx._sample cimport value_of

from epicsx.counts import Ledger
from epicsx.errors import BadValueError, CAError

EMPTY, TAKEN, CLOSED, OVERRUN = range(4)
OVERFLOWS = ("drop_oldest", "drop_newest", "error")

RECORD_DTYPE = np.dtype([("timestamp_ns", "i8"), ("value", "f8"), ("source", "u4"), ("status", "i2"),
                         ("severity", "i2")])
"""A row of a recorder: 24 bytes, ex_row of epicsx_sinks.h."""

REDUCER_SIGNATURE = b"int (struct epicsx_frame const *, void *, double *, size_t)"
"""The name of a capsule that holds a reducer (include/epicsx_reducer.h)."""


@cython.final
@cython.freelist(64)
cdef class Frame:
    """One array as the server sent it, with its stamp, its alarm, and what is known to be missing before it."""
    cdef ex_block *b
    cdef ex_frame f
    cdef object array

    def __init__(self, *args, **kwargs):
        raise TypeError("frames come out of a stream")

    def __dealloc__(self):
        ex_block_unref(self.b)

    @property
    def data(self):
        """The values: a 1-D array over the memory that libca's thread filled, 64-byte aligned, and not copied again."""
        if self.array is None:
            self.array = value_of(self.b, False)
        return self.array

    @property
    def timestamp_ns(self) -> int:
        """The server's stamp: nanoseconds since 1970, UTC."""
        return self.f.ns

    @property
    def timestamp(self) -> float:
        """The server's stamp: seconds since 1970, UTC."""
        return self.f.ns * 1e-9

    @property
    def status(self) -> int:
        """The alarm status (`epicsx.Status`)."""
        return self.f.status

    @property
    def severity(self) -> int:
        """The alarm severity (`epicsx.Severity`)."""
        return self.f.severity

    @property
    def index(self) -> int:
        """The frame's number among all that the stream received, from 0."""
        return self.f.index

    @property
    def lost_before(self) -> int:
        """How many frames are known to be missing right before this one: dropped, merged; a lost connection is one."""
        return self.f.lost_before

    @property
    def _age_ns(self) -> int:
        """How long ago libca handed it over, in nanoseconds: for `epicsx.images`, which may look at it late."""
        return ex_now() - self.f.received

    @property
    def gap(self) -> bool:
        """Whether the connection was lost before this frame: nobody knows how many frames the server sent meanwhile."""
        return self.f.gap != 0

    @property
    def count(self) -> int:
        """How many elements it has."""
        return self.b.count

    def __len__(self):
        return self.b.count

    def __array__(self, dtype=None, copy=None):
        found = self.data
        if dtype is not None and found.dtype != dtype:
            if copy is False:
                raise ValueError(f"a frame of {found.dtype} is no {np.dtype(dtype)} without a copy")
            return found.astype(dtype)
        return found.copy() if copy else found

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """The values by DLPack, for whoever takes arrays of any library; CPU memory, shared unless `copy`."""
        data = self.data.copy() if copy else self.data
        return data.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyObject_GetBuffer(self.data, buffer, flags)

    def __repr__(self):
        lost = f", {self.f.lost_before} lost before" if self.f.lost_before else ""
        return f"<Frame {self.f.index}: {self.b.count} elements at {self.f.ns * 1e-9:.6f}{lost}>"


@cython.final
cdef class Block:
    """Frames of one type and size, in one piece of memory: ``data`` is an (n, count) array."""
    cdef readonly object data
    """(n, count) array, frame by frame; 64-byte aligned, not copied again."""
    cdef readonly object timestamp_ns
    """(n,) int64: the server's stamps."""
    cdef readonly object severity
    """(n,) int16."""
    cdef readonly object status
    """(n,) int16."""
    cdef readonly object index
    """(n,) int64: numbers of the frames among all that were received."""
    cdef readonly object lost_before
    """(n,) int64: frames known to be missing right before each."""
    cdef readonly object gap
    """(n,) bool: whether the connection was lost before each."""

    def __init__(self, *args, **kwargs):
        raise TypeError("blocks come out of a stream")

    def __len__(self):
        return len(self.timestamp_ns)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data, dtype=dtype, copy=copy)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """The values by DLPack; CPU memory, shared unless `copy`."""
        data = self.data.copy() if copy else self.data
        return data.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyObject_GetBuffer(self.data, buffer, flags)

    def __repr__(self):
        return f"<Block of {len(self)} frames of {self.data.shape[1]} elements>"


cdef Frame frame_of(ex_slab *slab):
    cdef Frame found = Frame.__new__(Frame)
    found.b = slab.block
    ex_block_ref(found.b)
    found.f = slab.frames[0]
    return found


cdef Block block_of(ex_slab *slab):
    cdef Block found = Block.__new__(Block)
    cdef size_t n = slab.n, i
    cdef int64_t[::1] ns, index, lost
    cdef int16_t[::1] severity, status
    cdef unsigned char[::1] gap
    found.data = value_of(slab.block, False).reshape(n, slab.count)
    found.timestamp_ns, found.index, found.lost_before = (np.empty(n, np.int64) for _ in range(3))
    found.severity, found.status = np.empty(n, np.int16), np.empty(n, np.int16)
    found.gap = np.empty(n, np.bool_)
    ns, index, lost = found.timestamp_ns, found.index, found.lost_before
    severity, status, gap = found.severity, found.status, found.gap.view(np.uint8)
    for i in range(n):
        ns[i] = slab.frames[i].ns
        index[i] = slab.frames[i].index
        lost[i] = slab.frames[i].lost_before
        severity[i] = slab.frames[i].severity
        status[i] = slab.frames[i].status
        gap[i] = slab.frames[i].gap != 0
    return found


@cython.final
@cython.no_gc_clear
cdef class Ring:
    """Frames that wait for a reader, filled by libca's thread once it is open."""
    cdef ex_ring *r
    cdef int generation
    cdef size_t block
    cdef bint opened, over
    cdef readonly Core core             # where its subscription is; None before, and after the end
    cdef object reducer                 # what keeps the reducer's code and state alive
    cdef object __weakref__

    def __cinit__(self, size_t depth, size_t block, str overflow, Reducer reducer=None):
        self.generation = generation_now()
        self.block = block
        self.r = ring_new(depth, block, OVERFLOWS.index(overflow))
        if self.r == NULL:
            raise MemoryError
        if reducer is not None:
            self.reducer = reducer
            ring_reduce(self.r, reducer.fn, reducer.state, reducer.room, reducer.every)

    def __dealloc__(self):
        if self.r == NULL or self.generation != generation_now():
            return
        self.close()
        sink_free(ring_sink(self.r))

    cdef int check(self) except -1:
        if self.generation != generation_now():
            raise CAError("made before fork(): this process needs streams of its own")
        return 0

    def open(self, Core core, int dbr_type, unsigned long count, long mask) -> None:
        """Subscribe on that channel: frames arrive from its next connection on, or at once."""
        self.check()
        sink_open(ring_sink(self.r), core, dbr_type, count, mask)
        self.core = core
        self.opened = True

    def take(self, timeout: float | None, bint latest=False):
        """What was found, and with ``TAKEN`` the frame or block; ``EMPTY`` when woken, or at the end of `timeout`."""
        cdef int64_t deadline = deadline_of(timeout)
        cdef ex_slab *slab = NULL
        cdef Core core
        cdef int found
        while True:
            self.check()
            found = ring_take(self.r, latest, deadline, &slab)
            if found == EX_RING_TAKEN:
                try:
                    return TAKEN, frame_of(slab) if self.block == 1 else block_of(slab)
                finally:
                    slab_free(slab)
            if found == EX_RING_CLOSED or found == EX_RING_OVERRUN:
                return found, None
            core = self.core            # another thread may end the ring meanwhile
            if core is not None and not core.context.alive:
                raise CAError("Channel Access has been shut down")
            return EMPTY, None

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self.generation == generation_now():
            ring_wake(self.r)

    def watch(self, int fd) -> None:
        """Have a byte written to `fd` when something can be taken, each time after ``arm``; -1: no more."""
        if self.generation == generation_now():
            ring_watch(self.r, fd)

    def arm(self) -> bool:
        """Whether something can be taken now; otherwise a byte will be written when it can."""
        self.check()
        return ring_arm(self.r)

    @property
    def last_status(self) -> int:
        """The ECA code of an event without data, such as a refusal of read access; ECA_NORMAL after a frame."""
        cdef ex_ledger l
        self.check()
        ring_ledger(self.r, &l)
        return l.last_status

    def ledger(self) -> Ledger:
        """One consistent copy of the counts."""
        cdef ex_ledger l
        self.check()
        ring_ledger(self.r, &l)
        return ledger_of(&l)

    def end(self, Ring next) -> None:
        """Feed it no more; what waits stays. `next` goes on, its first frame behind a gap."""
        self.check()
        if self.opened and not self.over:
            self.over = True
            ring_end(self.r, next.r)
            self.core = None

    def close(self) -> None:
        """End it: what waits is dropped, and counted. Idempotent."""
        if self.generation != generation_now():
            return
        ring_close(self.r)
        self.over = True
        self.core = None


cdef object ledger_of(ex_ledger *l):
    return Ledger(l.received, l.delivered, l.merged, l.dropped, l.pending, l.repeated, l.disconnects, l.bytes, None)


def lane_core(Core home, str lane) -> Core:
    """The channel of the same name in that lane."""
    return core_in(home, lane)


# ----------------------------------------------------------------- reducers

@cython.final
cdef class Reducer:
    """A C function that libca's thread calls on each frame, on libca's own buffer."""
    cdef epicsx_reducer fn
    cdef void *state
    cdef size_t room, every
    cdef ex_reduce_args args
    cdef object keep
    cdef readonly str name

    def __init__(self, *args, **kwargs):
        raise TypeError("epicsx.reducers makes them")

    def __repr__(self):
        return f"<Reducer {self.name}>"


def known_reducer(str name, size_t room, **args) -> Reducer:
    """One of those that are written in C (_reducers.c), with its arguments."""
    cdef Reducer r = Reducer.__new__(Reducer)
    raw = name.encode()
    r.fn = reducer_named(raw)
    if r.fn == NULL:
        raise BadValueError(f"there is no reducer {name!r}")
    r.name = name
    r.room = room
    r.args.width = args.get("width", 1)
    r.args.x0 = args.get("x0", 0)
    r.args.x1 = args.get("x1", 0)
    r.args.y0 = args.get("y0", 0)
    r.args.y1 = args.get("y1", 0)
    r.args.low = args.get("low", 0.0)
    r.args.high = args.get("high", 0.0)
    r.args.every = r.every = args.get("every", 1)
    r.state = &r.args
    return r


def address_reducer(size_t address, size_t room, size_t state, keep, str name) -> Reducer:
    """The function at that address; `keep` is what keeps its code and state in memory."""
    cdef Reducer r = Reducer.__new__(Reducer)
    r.fn = <epicsx_reducer> <void *> address
    r.state = <void *> state
    r.room = room
    r.every = 1
    r.keep = keep
    r.name = name
    return r


def capsule_address(capsule) -> int:
    """The function in a PyCapsule of the documented signature."""
    cdef const char *name = PyCapsule_GetName(capsule)
    if name == NULL or (<bytes> name).replace(b" ", b"") != REDUCER_SIGNATURE.replace(b" ", b""):
        shown = "no name" if name == NULL else f"the name {(<bytes> name).decode('utf-8', 'replace')!r}"
        raise BadValueError(f"the capsule has {shown}; that of a reducer is {REDUCER_SIGNATURE.decode()!r}")
    return <size_t> PyCapsule_GetPointer(capsule, name)


# ---------------------------------------------------------------- recorders

@cython.final
@cython.no_gc_clear
cdef class Recording:
    """Rows of (stamp, value, source, status, severity), appended by libca's thread."""
    cdef ex_recorder *rec
    cdef int generation
    cdef list cores
    cdef object sinks                   # of _Sink
    cdef object reading                 # a lock: rows that are being copied are not taken
    cdef object __weakref__

    def __cinit__(self, size_t capacity, size_t max_events):
        self.generation = generation_now()
        self.cores = []
        self.sinks = []
        self.reading = threading.Lock()
        self.rec = recorder_new(capacity, max_events)
        if self.rec == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.rec != NULL and self.generation == generation_now():
            recorder_free(self.rec)

    cdef int check(self) except -1:
        if self.generation != generation_now():
            raise CAError("made before fork(): this process needs recorders of its own")
        return 0

    def add(self, Core core, int dbr_type, long mask) -> None:
        """Record that channel as the next source."""
        cdef _Sink s = _Sink.__new__(_Sink)
        self.check()
        s.generation = self.generation
        s.sink = recorder_sink(self.rec, <uint32_t> len(self.cores))
        if s.sink == NULL:
            raise MemoryError
        sink_open(s.sink, core, dbr_type, 1, mask)
        s.opened = True
        self.cores.append(core)
        self.sinks.append(s)

    def __len__(self):
        self.check()
        return recorder_size(self.rec)

    def copy(self, size_t start=0):
        """A structured array of the rows from `start` on."""
        cdef size_t n
        cdef unsigned char[::1] raw
        self.check()
        with self.reading:
            n = recorder_size(self.rec)
            found = np.empty(n - start if n > start else 0, RECORD_DTYPE)
            if len(found):
                raw = found.view(np.uint8)
                n = recorder_copy(self.rec, start, <ex_row *> &raw[0], <size_t> len(found))
                found = found[:n]
        return found

    def take(self):
        """A structured array of all rows, which are the caller's now: the recorder goes on empty."""
        cdef ex_rows *all
        cdef ex_rows *c
        cdef size_t n = 0, at = 0
        self.check()
        with self.reading:
            all = recorder_take(self.rec)
        c = all
        while c != NULL:
            n += c.n
            c = c.next
        found = np.empty(n, RECORD_DTYPE)
        cdef unsigned char[::1] raw = found.view(np.uint8)
        while all != NULL:
            c = all
            all = c.next
            if c.n:
                memcpy(&raw[at * sizeof(ex_row)], c.rows, c.n * sizeof(ex_row))
            at += c.n
            free(c)
        return found

    def wait(self, size_t n, timeout: float | None) -> bool:
        """Whether `n` rows are there, now or within `timeout` seconds."""
        self.check()
        recorder_wait(self.rec, n, deadline_of(timeout))
        return recorder_size(self.rec) >= n

    def ledger(self) -> Ledger:
        """One consistent copy of the counts."""
        cdef ex_ledger l
        self.check()
        recorder_ledger(self.rec, &l)
        return ledger_of(&l)

    def close(self) -> None:
        """Record no more; the rows stay. Idempotent."""
        if self.generation != generation_now():
            return
        recorder_close(self.rec)
        self.sinks = []
        self.cores = []


@cython.final
cdef class _Sink:
    cdef ex_sink *sink
    cdef bint opened
    cdef int generation

    def __dealloc__(self):
        if self.sink == NULL or self.generation != generation_now():
            return
        if self.opened:
            sink_close(self.sink)
        sink_free(self.sink)
