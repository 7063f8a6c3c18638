# The compiled core, as the modules above may use it from Cython. What a user sees is in _ca.pyi.
from epicsx_events cimport (ex_batch, ex_block, ex_channel, ex_counts, ex_handle, ex_inbox, ex_lane, ex_request, ex_sub,
                            ex_taken, ex_tally)
from epicsx_sinks cimport ex_ledger, ex_recorder, ex_ring, ex_row, ex_rows, ex_sink, ex_slab, epicsx_reducer
from epicsx._dbr cimport Outgoing
from epicsx._sample cimport Sample
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef class Context:
    cdef ex_lane *lane
    cdef readonly str name
    cdef readonly int id
    cdef int generation
    cdef bint running
    cdef public dict registry           # (name, priority) -> weak reference to the Core
    cdef int64_t calling_since          # the dispatcher is in a callback, by ex_now_coarse(); 0: it waits
    cdef int64_t longest_call, longest_wait
    cdef str slowest
    cdef readonly set pinned            # what must live on without its user: somebody's callback hangs on it
    cdef object __weakref__
    cdef bint alive_(self) noexcept
    cdef int check(self) except -1


cdef class Core:
    cdef ex_channel *ch
    cdef readonly Context context
    cdef readonly str name
    cdef readonly int priority
    cdef list listeners
    cdef object failures                # of callbacks, as the log has them
    cdef ex_sub *control_sub
    cdef object control_seen
    cdef object bulk                    # its channel in the bulk lane, once something large needed one
    cdef uint64_t control_arrival
    cdef public bint at_home            # epicsx.ca's own note: its first context uses this channel
    cdef object __weakref__
    cdef int check(self) except -1
    cdef int connect_by(self, int64_t deadline, object timeout, str operation) except -1
    cdef object control_now(self)
    cdef uint64_t control_stamp(self) noexcept
    cdef bint wait_on(self, ex_sub *sub, int64_t deadline) except -1
    cdef str why_not(self)
    cdef int may_read(self) except -1
    cdef int resolve(self, int dbr_type) noexcept
    cdef ex_request *request(self, int type, bint is_put, object owner) except NULL
    cdef Sample answer(self, ex_request *r, int status, int64_t deadline, object timeout)
    cdef int failed(self, object what, object name) except -1
    cdef bint state_of_fork(self) noexcept      # made by a parent process: leave it alone
    cdef object encoded(self, object value, int dbr_type, bint lenient, Outgoing *o, int64_t deadline)


cdef class Subscription:
    cdef readonly Core core             # the user's channel; None once closed
    cdef readonly Core events           # the one that carries the events: `core`, or its like in the bulk lane
    cdef readonly str name
    cdef Context context
    cdef ex_handle *h
    cdef object callback
    cdef bint pinned
    cdef int64_t since                  # when the update that is being delivered came; to the nanosecond if timed
    cdef object __weakref__
    cdef int open_(self, Core home, int dbr_type, unsigned long count, long mask, size_t bound, bint latest,
                   bint queueing, str lane) except -1
    cdef int take_place(self, Core core, int type, unsigned long count, long mask, size_t bound, bint latest,
                        bint queueing, size_t limit) except -1
    cdef ex_inbox *loop_inbox(self) noexcept    # of the event loop that takes the updates; NULL: the dispatcher does
    cdef int move(self) except -1
    cdef int close_(self) except -1
    cdef int deliver(self, ex_taken *t) except -1
    cdef ex_block *newest(self, int *fresh) noexcept
    cdef int set_queueing(self, bint queueing) except -1
    cdef int release(self) except -1


cdef void batch_begins(Context context) noexcept
cdef int take(Context context, ex_taken *t) noexcept
cdef str taken_name(ex_taken *t)
cdef int value_failed(ex_taken *t, object name) except -1
cdef void tally_of(ex_handle *h, ex_tally *out) noexcept
cdef void taken_done(ex_taken *t) noexcept

# ---- for _request
cdef ex_request *request_new(Core core, int type, bint is_put, object owner) except NULL
cdef void request_free(ex_request *r) noexcept
cdef int request_end(ex_request *r, int reason, int status) noexcept
cdef int request_route(ex_request *r, ex_inbox *inbox) noexcept
cdef void request_due(ex_request *r, int64_t deadline) noexcept
cdef bint wait_some(ex_request *r, int64_t until) except -1     # until it has ended (False), or a while (True)
cdef int end_if_closed(ex_request *r, object owner) except -1   # the handle that asked was closed meanwhile
cdef int send_get(ex_request *r, int type, unsigned long count) noexcept nogil
cdef int send_put_wait(ex_request *r, int type, unsigned long count, const void *data) noexcept nogil
cdef int request_gather(ex_request *r, list cores) except -1     # it ends when all of them are connected
cdef void request_ungather(ex_request *r) noexcept
cdef size_t bound_of(object queue) except? 0
cdef size_t handle_take(ex_handle *h, ex_taken *out, size_t n) noexcept
cdef void handle_unheard(ex_handle *h, size_t n) noexcept
cdef void handle_free(ex_handle *h) noexcept
cdef ex_inbox *inbox_new(int fd) noexcept
cdef void inbox_free(ex_inbox *box) noexcept
cdef ex_request *inbox_take(ex_inbox *box) noexcept
cdef ex_handle *inbox_ready(ex_inbox *box) noexcept
cdef void inbox_kill(ex_inbox *box) noexcept

# ---- for _bulk: what it may ask of libca; the waits and calls are made without the GIL
cdef int64_t deadline_of(object timeout) except -1
cdef int64_t slice_until(int64_t deadline) noexcept nogil
cdef ex_batch *batch_new(size_t n) noexcept nogil
cdef int batch_get(ex_batch *b, Context ctx, ex_channel **channels, const int *types, const unsigned long *counts)
cdef int batch_put(ex_batch *b, Context ctx, ex_channel **channels, const int *types, const unsigned long *counts,
                   const void **data, bint wait)
cdef int batch_wait(ex_batch *b, int64_t deadline) except -1     # until all is answered, Ctrl-C, or the deadline
cdef void batch_signal(ex_batch *b, ex_request *r) noexcept      # before lending: `r` ends with the last slot
cdef void batch_settle(ex_batch *b) noexcept                     # it is lent
cdef void batch_abandon(ex_batch *b) noexcept                    # nobody will read what has not come yet
cdef void batch_free(ex_batch *b) noexcept
cdef int gather(Context ctx, ex_channel **channels, size_t n, int64_t deadline) except -1

# ---- for _stream
cdef Core core_in(Core home, str lane)
cdef int sink_open(ex_sink *sink, Core c, int dbr_type, unsigned long count, long mask) except -1
cdef void sink_close(ex_sink *sink) noexcept
cdef void sink_free(ex_sink *sink) noexcept
cdef ex_ring *ring_new(size_t depth, size_t block, int overflow) noexcept
cdef ex_sink *ring_sink(ex_ring *ring) noexcept
cdef void ring_reduce(ex_ring *ring, epicsx_reducer fn, void *state, size_t room, size_t every) noexcept
cdef int ring_take(ex_ring *ring, bint latest, int64_t deadline, ex_slab **out) except -1   # one slice of a wait
cdef void ring_wake(ex_ring *ring) noexcept
cdef void ring_watch(ex_ring *ring, int fd) noexcept
cdef bint ring_arm(ex_ring *ring) noexcept
cdef void ring_ledger(ex_ring *ring, ex_ledger *out) noexcept
cdef void ring_end(ex_ring *ring, ex_ring *next) noexcept
cdef void ring_close(ex_ring *ring) noexcept
cdef void slab_free(ex_slab *slab) noexcept
cdef ex_recorder *recorder_new(size_t capacity, size_t max_events) noexcept
cdef void recorder_free(ex_recorder *rec) noexcept
cdef ex_sink *recorder_sink(ex_recorder *rec, uint32_t source) noexcept
cdef size_t recorder_size(ex_recorder *rec) noexcept
cdef size_t recorder_copy(ex_recorder *rec, size_t start, ex_row *out, size_t n) noexcept
cdef ex_rows *recorder_take(ex_recorder *rec) noexcept
cdef bint recorder_wait(ex_recorder *rec, size_t n, int64_t deadline) except -1
cdef void recorder_close(ex_recorder *rec) noexcept
cdef void recorder_ledger(ex_recorder *rec, ex_ledger *out) noexcept
cdef epicsx_reducer reducer_named(const char *name) noexcept
cdef int generation_now() noexcept
