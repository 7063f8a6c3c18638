# epicsx_sinks.h and epicsx_reducer.h, as far as the Cython modules look at them.
from epicsx_events cimport ex_block, ex_channel
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t

cdef extern from "epicsx_reducer.h" nogil:
    ctypedef struct epicsx_frame:
        pass
    ctypedef int (*epicsx_reducer)(const epicsx_frame *frame, void *state, double *results, size_t room)

cdef extern from "epicsx_sinks.h" nogil:
    ctypedef struct ex_sink:
        pass
    void ex_sink_unref(ex_sink *sink)
    int ex_sink_open(ex_sink *sink, ex_channel *ch, int type, unsigned long count, long mask)
    void ex_sink_close(ex_sink *sink)

    ctypedef struct ex_frame:
        int64_t ns
        int64_t received
        uint64_t index
        uint64_t lost_before
        int16_t status
        int16_t severity
        int32_t gap

    ctypedef struct ex_slab:
        ex_block *block
        size_t n
        size_t count
        int dbr_type
        ex_frame *frames
    void ex_slab_free(ex_slab *slab)

    ctypedef struct ex_ledger:
        uint64_t received
        uint64_t delivered
        uint64_t merged
        uint64_t dropped
        uint64_t pending
        uint64_t repeated
        uint64_t disconnects
        uint64_t bytes
        int last_status

    int EX_DROP_OLDEST, EX_DROP_NEWEST, EX_OVERRUN_IS_ERROR
    int EX_RING_EMPTY, EX_RING_TAKEN, EX_RING_CLOSED, EX_RING_OVERRUN

    ctypedef struct ex_ring:
        pass
    ex_ring *ex_ring_new(size_t depth, size_t block, int overflow)
    ex_sink *ex_ring_sink(ex_ring *ring)
    void ex_ring_reduce(ex_ring *ring, epicsx_reducer fn, void *state, size_t room, size_t every)
    int ex_ring_take(ex_ring *ring, int latest, int64_t deadline, ex_slab **out)
    void ex_ring_wake(ex_ring *ring)
    void ex_ring_watch(ex_ring *ring, int fd)
    int ex_ring_arm(ex_ring *ring)
    void ex_ring_ledger(ex_ring *ring, ex_ledger *out)
    void ex_ring_end(ex_ring *ring, ex_ring *next)
    void ex_ring_close(ex_ring *ring)

    ctypedef struct ex_row:
        pass
    ctypedef struct ex_rows:
        ex_rows *next
        size_t n
        ex_row *rows
    ctypedef struct ex_recorder:
        pass
    ex_recorder *ex_recorder_new(size_t capacity, size_t max_events)
    void ex_recorder_unref(ex_recorder *rec)
    ex_sink *ex_recorder_sink(ex_recorder *rec, uint32_t source)
    size_t ex_recorder_size(ex_recorder *rec)
    size_t ex_recorder_copy(ex_recorder *rec, size_t start, ex_row *out, size_t n)
    ex_rows *ex_recorder_take(ex_recorder *rec)
    int ex_recorder_wait(ex_recorder *rec, size_t n, int64_t deadline)
    void ex_recorder_close(ex_recorder *rec)
    void ex_recorder_ledger(ex_recorder *rec, ex_ledger *out)

    ctypedef struct ex_reduce_args:
        size_t width
        size_t x0
        size_t x1
        size_t y0
        size_t y1
        double low
        double high
        size_t every
    epicsx_reducer ex_reducer_named(const char *name)
