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


cdef ex_inbox *inbox_new(int fd) noexcept:
    return ex_inbox_new(fd)


cdef void inbox_free(ex_inbox *box) noexcept:
    ex_inbox_unref(box)


cdef ex_request *inbox_take(ex_inbox *box) noexcept:
    return ex_inbox_take(box)


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
