# What _request and _bulk may call of the C parts, which only _ca is linked with. Part of _ca.pyx; declared in _ca.pxd.

# ---- for _request: the same objects, without a caller who waits

cdef ex_request *request_new(Core core, int type, bint is_put, object owner) except NULL:
    return core.request(type, is_put, owner)


cdef void request_free(ex_request *r) noexcept:
    ex_request_unref(r)


cdef int request_end(ex_request *r, int reason, int status) noexcept:
    return ex_request_end(r, reason, status)


cdef int request_route(ex_request *r, ex_inbox *inbox) noexcept:
    """Where its end is made known: an event loop's inbox, or (NULL) the dispatcher."""
    if inbox != NULL:
        ex_inbox_ref(inbox)
        r.inbox = inbox
    else:
        ex_request_note(r)
    return 0


cdef void request_due(ex_request *r, int64_t deadline) noexcept:
    ex_request_due(r, deadline)


cdef int request_gather(ex_request *r, list cores) except -1:
    cdef Py_ssize_t n = len(cores), i
    cdef ex_channel **channels = <ex_channel **> calloc(n or 1, sizeof(ex_channel *))
    cdef bint done
    if channels == NULL:
        raise MemoryError
    for i in range(n):
        channels[i] = (<Core> cores[i]).ch
    with nogil:
        done = ex_request_gather(r, channels, n)
    free(channels)
    if not done:
        raise MemoryError
    return 0


cdef void request_ungather(ex_request *r) noexcept:
    ex_request_ungather(r)


cdef size_t handle_take(ex_handle *h, ex_taken *out, size_t n) noexcept:
    return ex_handle_take(h, out, n)


cdef void handle_unheard(ex_handle *h, size_t n) noexcept:
    ex_handle_unheard(h, n)


cdef void handle_free(ex_handle *h) noexcept:
    ex_handle_unref(h)


cdef ex_inbox *inbox_new(int fd) noexcept:
    return ex_inbox_new(fd)


cdef void inbox_free(ex_inbox *box) noexcept:
    ex_inbox_unref(box)


cdef ex_request *inbox_take(ex_inbox *box) noexcept:
    return ex_inbox_take(box)


cdef ex_handle *inbox_ready(ex_inbox *box) noexcept:
    return ex_inbox_ready(box)


cdef void inbox_kill(ex_inbox *box) noexcept:
    ex_inbox_kill(box)


# --------------------------------------------------- many at once, for _bulk

cdef ex_batch *batch_new(size_t n) noexcept nogil:
    return ex_batch_new(n)


cdef int batch_get(ex_batch *b, Context ctx, ex_channel **channels, const int *types, const unsigned long *counts):
    cdef ex_lane *lane = ctx.lane
    with nogil:
        return ex_ca_get_batch(b, lane, channels, types, counts)


cdef int batch_put(ex_batch *b, Context ctx, ex_channel **channels, const int *types, const unsigned long *counts,
                   const void **data, bint wait):
    cdef ex_lane *lane = ctx.lane
    with nogil:
        if wait:
            return ex_ca_put_batch(b, lane, channels, types, counts, data)
        return ex_ca_put_all(b, lane, channels, types, counts, data)


cdef int batch_wait(ex_batch *b, int64_t deadline) except -1:
    cdef bint done
    try:
        while True:
            with nogil:
                done = ex_batch_wait(b, slice_until(deadline))
            if done:
                return 0
            PyErr_CheckSignals()
            if ex_now() >= deadline:
                return 0
    finally:
        ex_batch_abandon(b)             # what is still open stays lent until libca answers; nobody reads it


cdef void batch_signal(ex_batch *b, ex_request *r) noexcept:
    ex_request_ref(r)
    b.done = r


cdef void batch_settle(ex_batch *b) noexcept:
    ex_batch_settle(b)


cdef void batch_abandon(ex_batch *b) noexcept:
    ex_batch_abandon(b)


cdef void batch_free(ex_batch *b) noexcept:
    ex_batch_unref(b)


cdef int gather(Context ctx, ex_channel **channels, size_t n, int64_t deadline) except -1:
    """Wait until all are connected, or the deadline: one waiter, woken once."""
    cdef ex_waiter w
    cdef ex_lane *lane = ctx.lane
    cdef ex_wait_node *nodes = <ex_wait_node *> calloc(n or 1, sizeof(ex_wait_node))
    cdef size_t i
    cdef bint done = False
    if nodes == NULL:
        raise MemoryError
    with nogil:
        ex_wait_begin(lane, &w)
        for i in range(n):
            ex_wait_connected(channels[i], &w, &nodes[i])
    try:
        while not done and ctx.alive_():
            with nogil:
                done = ex_wait_for(lane, &w, slice_until(deadline))
            if not done:
                PyErr_CheckSignals()
                if ex_now() >= deadline:
                    break
    finally:
        with nogil:
            ex_wait_end(lane, &w, nodes, n)
        free(nodes)
    return 0


# ------------------------------------------------- rings and recorders, for _stream

cdef int sink_open(ex_sink *sink, Core c, int dbr_type, unsigned long count, long mask) except -1:
    cdef int done
    check_mask(c.name, mask)
    c.check()
    with nogil:
        done = ex_sink_open(sink, c.ch, EX_TIME_OF_NATIVE if dbr_type == -1 else dbr_type, count, mask)
    if not done:
        raise MemoryError
    return 0


cdef void sink_close(ex_sink *sink) noexcept:
    ex_sink_close(sink)


cdef void sink_free(ex_sink *sink) noexcept:
    ex_sink_unref(sink)


cdef ex_ring *ring_new(size_t depth, size_t block, int overflow) noexcept:
    return ex_ring_new(depth, block, overflow)


cdef ex_sink *ring_sink(ex_ring *ring) noexcept:
    return ex_ring_sink(ring)


cdef void ring_reduce(ex_ring *ring, epicsx_reducer fn, void *state, size_t room, size_t every) noexcept:
    ex_ring_reduce(ring, fn, state, room, every)


cdef int ring_take(ex_ring *ring, bint latest, int64_t deadline, ex_slab **out) except -1:
    """One look, or one slice of a wait; what was found."""
    cdef int found
    cdef int64_t until = slice_until(deadline)
    with nogil:
        found = ex_ring_take(ring, latest, until, out)
    if found == EX_RING_EMPTY:
        PyErr_CheckSignals()
    return found


cdef void ring_wake(ex_ring *ring) noexcept:
    ex_ring_wake(ring)


cdef void ring_watch(ex_ring *ring, int fd) noexcept:
    ex_ring_watch(ring, fd)


cdef bint ring_arm(ex_ring *ring) noexcept:
    return ex_ring_arm(ring)


cdef void ring_ledger(ex_ring *ring, ex_ledger *out) noexcept:
    ex_ring_ledger(ring, out)


cdef void ring_end(ex_ring *ring, ex_ring *next) noexcept:
    with nogil:
        ex_ring_end(ring, next)


cdef void ring_close(ex_ring *ring) noexcept:
    with nogil:
        ex_ring_close(ring)


cdef void slab_free(ex_slab *slab) noexcept:
    ex_slab_free(slab)


cdef ex_recorder *recorder_new(size_t capacity, size_t max_events) noexcept:
    return ex_recorder_new(capacity, max_events)


cdef void recorder_free(ex_recorder *rec) noexcept:
    ex_recorder_unref(rec)


cdef ex_sink *recorder_sink(ex_recorder *rec, uint32_t source) noexcept:
    return ex_recorder_sink(rec, source)


cdef size_t recorder_size(ex_recorder *rec) noexcept:
    return ex_recorder_size(rec)


cdef size_t recorder_copy(ex_recorder *rec, size_t start, ex_row *out, size_t n) noexcept:
    with nogil:
        return ex_recorder_copy(rec, start, out, n)


cdef ex_rows *recorder_take(ex_recorder *rec) noexcept:
    return ex_recorder_take(rec)


cdef bint recorder_wait(ex_recorder *rec, size_t n, int64_t deadline) except -1:
    cdef bint there = False
    while not there:
        with nogil:
            there = ex_recorder_wait(rec, n, slice_until(deadline))
        if not there:
            PyErr_CheckSignals()
            if ex_now() >= deadline:
                return False
    return True


cdef void recorder_close(ex_recorder *rec) noexcept:
    ex_recorder_close(rec)


cdef void recorder_ledger(ex_recorder *rec, ex_ledger *out) noexcept:
    ex_recorder_ledger(rec, out)


cdef epicsx_reducer reducer_named(const char *name) noexcept:
    return ex_reducer_named(name)


cdef int generation_now() noexcept:
    return ex_generation_now()
