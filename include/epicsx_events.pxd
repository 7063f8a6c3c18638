# epicsx_events.h, epicsx_libca.h and epicsx_sync.h, as far as the Cython core looks at them.
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t

cdef extern from "epicsx_sync.h" nogil:
    int64_t EX_FOREVER
    int64_t ex_now()
    int64_t ex_now_coarse()
    ctypedef struct ex_mutex:
        pass
    ctypedef struct ex_cond:
        pass
    void ex_lock(ex_mutex *m)
    void ex_unlock(ex_mutex *m)

cdef extern from "epicsx_events.h" nogil:
    ctypedef struct ex_block:
        int16_t dbr_type
        int32_t scalar
        uint32_t count
        size_t nbytes
        size_t capacity
        uint64_t arrival
        void *values
    void *EX_HEADER(ex_block *b)
    void ex_block_ref(ex_block *b)
    void ex_block_unref(ex_block *b)
    size_t ex_blocks()
    size_t ex_pool_bytes()

    int EX_NOTE_NONE, EX_NOTE_VALUE, EX_NOTE_CONNECTION, EX_NOTE_ACCESS, EX_NOTE_COMPLETION, EX_NOTE_LOG, EX_NOTE_LARGE
    int EX_NOTE_LINK
    int EX_NEVER, EX_DOWN, EX_UP, EX_CLOSED
    int EX_PENDING, EX_DONE, EX_ABANDONED
    int EX_BY_REPLY, EX_BY_DEADLINE, EX_BY_CLOSE, EX_BY_SHUTDOWN, EX_BY_SIZE
    int EX_TIME_OF_NATIVE, EX_CTRL_OF_NATIVE

    ctypedef struct ex_taken:
        int kind
        int a
        int b
        int64_t since
        ex_block *block
        void *subject
        void *py

    ctypedef struct ex_counts:
        uint64_t received
        uint64_t delivered
        uint64_t merged
        uint64_t dropped
        uint64_t pending

    ctypedef struct ex_tally:
        ex_counts counts
        uint64_t disconnects
        uint64_t unresponsive
        uint64_t rejected_puts
        uint64_t decode_errors
        uint64_t callback_errors
        size_t bytes
        int64_t oldest

    ctypedef struct ex_health:
        ex_tally tally
        size_t channels
        size_t connected
        size_t never_connected
        size_t subscriptions
        size_t circuits
        size_t notes
        int64_t age

    ctypedef struct ex_waiter:
        pass
    ctypedef struct ex_wait_node:
        pass

    ctypedef struct ex_request
    ctypedef struct ex_lane:
        ex_mutex lock
        int keeper_state
        size_t events
        size_t max_events
        size_t bytes
        size_t max_bytes
        size_t queued
        size_t lost_logs
        uint64_t server_errors
        unsigned emptied
        unsigned leaving
        unsigned deferred
        int64_t dead_after
        int steady_clock
        uint64_t dead_circuits
        int64_t clock_stepped
        uint64_t clock_steps
        ex_request *first_due
        int polled
        int generation

    struct ex_circuit:
        pass

    ctypedef struct ex_channel:
        ex_lane *lane
        char *name
        int state
        int type
        int reading
        int writing
        unsigned long count
        const char *host
        ex_circuit *circuit
        uint64_t connects
        uint64_t callback_errors
        void *py

    ctypedef struct ex_sub:
        ex_channel *channel
        int type
        unsigned long count
        long mask
        int fresh
        int last_status
        uint64_t last_arrival

    ctypedef struct ex_handle:
        ex_sub *sub
        int queueing
        int latest
        int closed
        size_t max_events
        size_t max_bytes
        uint64_t merged
        uint64_t dropped
        void *py

    ctypedef struct ex_inbox:
        uint64_t lost
        uint64_t rings

    ctypedef struct ex_request:
        int state
        int reason
        int status
        void *out
        size_t out_count
        ex_block *block
        void *owner
        ex_inbox *inbox
        ex_request *inbox_next
        void *py

    ctypedef struct ex_slot:
        int state
        int status
        int type
        int is_small
        ex_block *block
        double *small

    ctypedef struct ex_batch:
        int keep_small
        ex_request *done
        size_t n
        size_t left
        ex_slot *slots

    int ex_generation_now()
    int ex_lane_look_at_clock(ex_lane *lane) nogil
    void ex_fork_child()
    long ex_lent()

    ex_lane *ex_lane_new(const char *name)
    void ex_lane_ref(ex_lane *lane)
    void ex_lane_unref(ex_lane *lane)
    int ex_lane_wait(ex_lane *lane, int64_t deadline)
    void ex_lane_wake(ex_lane *lane)
    int ex_lane_take(ex_lane *lane, ex_taken *out)
    void ex_taken_done(ex_taken *t)
    void ex_lane_expire(ex_lane *lane, int64_t now)
    void ex_lane_end_requests(ex_lane *lane, int reason)

    ex_channel *ex_channel_new(ex_lane *lane, const char *name, unsigned priority)
    void ex_channel_ref(ex_channel *ch)
    void ex_channel_unref(ex_channel *ch)
    void ex_channel_drop(ex_channel *ch)
    void ex_channel_set_news(ex_channel *ch, int wanted)
    void ex_channel_close_pending(ex_channel *ch, int reason, void *owner)
    void ex_tally_of_channel(ex_channel *ch, ex_tally *out)
    void ex_tally_of_handle(ex_handle *h, ex_tally *out)
    void ex_channel_failed(ex_channel *ch)
    void ex_lane_health(ex_lane *lane, ex_health *out)
    const char *ex_taken_name(const ex_taken *t)
    int64_t ex_lane_age(ex_lane *lane)

    void ex_wait_begin(ex_lane *lane, ex_waiter *w)
    int ex_wait_connected(ex_channel *ch, ex_waiter *w, ex_wait_node *node)
    int ex_wait_value(ex_sub *sub, ex_waiter *w, ex_wait_node *node)
    int ex_wait_for(ex_lane *lane, ex_waiter *w, int64_t deadline)
    void ex_wait_end(ex_lane *lane, ex_waiter *w, ex_wait_node *nodes, size_t n)

    ex_sub *ex_sub_get(ex_channel *ch, int type, unsigned long count, long mask, size_t limit)
    void ex_channel_tell(ex_channel *ch, int connected)
    size_t ex_subs_of(ex_channel *ch)
    void ex_sub_leave(ex_sub *sub)
    ex_block *ex_sub_newest(ex_sub *sub, int *fresh)
    ex_handle *ex_handle_new(ex_sub *sub, int queueing, size_t max_events, int latest, int replay, void *py,
                             ex_inbox *inbox)
    size_t ex_handle_take(ex_handle *h, ex_taken *out, size_t n)
    void ex_handle_unheard(ex_handle *h, size_t n)
    void ex_handle_set_queueing(ex_handle *h, int queueing)
    void ex_handle_set_timed(ex_handle *h)
    void ex_handle_close(ex_handle *h)
    void ex_handle_unref(ex_handle *h)
    void ex_handle_counts(ex_handle *h, ex_counts *out)

    ex_request *ex_request_new(ex_channel *ch, int type, int is_put)
    void ex_request_ref(ex_request *r)
    void ex_request_unref(ex_request *r)
    int ex_request_wait(ex_request *r, int64_t deadline)
    int ex_request_end(ex_request *r, int reason, int status)
    void ex_request_due(ex_request *r, int64_t deadline)
    void ex_request_note(ex_request *r)
    int ex_request_gather(ex_request *r, ex_channel **channels, size_t n)
    void ex_request_ungather(ex_request *r)

    ex_batch *ex_batch_new(size_t n)
    void ex_batch_unref(ex_batch *b)
    int ex_batch_wait(ex_batch *b, int64_t deadline)
    void ex_batch_abandon(ex_batch *b)
    void ex_batch_settle(ex_batch *b)

    ex_inbox *ex_inbox_new(int fd)
    void ex_inbox_ref(ex_inbox *b)
    void ex_inbox_unref(ex_inbox *b)
    void ex_inbox_kill(ex_inbox *b)
    ex_request *ex_inbox_take(ex_inbox *b)
    ex_handle *ex_inbox_ready(ex_inbox *b)

cdef extern from "epicsx_libca.h" nogil:
    ctypedef struct ex_start:
        int errlog
        int64_t deadline
    int ex_keeper_start(ex_lane *lane, const ex_start *how)
    int ex_keeper_stop(ex_lane *lane, int64_t deadline)
    void ex_keeper_close(ex_lane *lane)
    int ex_ca_create(ex_channel *ch)
    int ex_ca_get(ex_request *r, int type, unsigned long count)
    int ex_ca_put_wait(ex_request *r, int type, unsigned long count, const void *data)
    int ex_ca_put(ex_channel *ch, int type, unsigned long count, const void *data)
    int ex_ca_get_batch(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types,
                        const unsigned long *counts)
    int ex_ca_put_batch(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types,
                        const unsigned long *counts, const void **data)
    int ex_ca_put_all(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types,
                      const unsigned long *counts, const void **data)
    int ex_ca_flush(ex_lane *lane)
    int ex_ca_flush_soon(ex_lane *lane)
    const char *ex_ca_message(long status)
    const char *ex_ca_version()
