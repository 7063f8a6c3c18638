"""Many channels at once: one batch in C, one flush, one wait, values made in one pass.

Threads
    Any; the GIL is released while requests are sent and while we wait. A batch stays lent to libca until its last slot
    is answered or its channel cleared, whatever the caller's deadline was.
"""

from libc.stdlib cimport calloc, free

from caerr cimport ECA_DISCONN, ECA_NORMAL
from epicsx._ca cimport Context, Core, batch_free, batch_get, batch_new, batch_put, batch_wait, deadline_of, gather
from epicsx._dbr cimport Outgoing, time_of
from epicsx._sample cimport pyepics_value, sample_of, value_of
from epicsx_events cimport EX_DONE, EX_UP, ex_batch, ex_block, ex_block_ref, ex_channel
from libc.stdint cimport int64_t

from epicsx.errors import CAError, DisconnectedError, from_status, timed_out

SAMPLES = 0
VALUES = 1
PYEPICS = 2


cdef Context context_of(list cores):
    cdef Core first = cores[0]
    cdef Core c
    for c in cores:
        if c.context is not first.context:
            raise ValueError("the channels of one bulk call must belong to one context")
    first.context.check()
    return first.context


def connect_all(list cores, timeout=5.0) -> list:
    """Wait until all are connected, under one deadline; those that are not."""
    cdef Py_ssize_t n = len(cores), i = 0
    cdef ex_channel **channels
    cdef Core c
    cdef int64_t deadline = deadline_of(timeout)
    if n == 0:
        return []
    ctx = context_of(cores)
    channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
    if channels == NULL:
        raise MemoryError
    try:
        for c in cores:
            if c.ch.state != EX_UP:
                channels[i] = c.ch
                i += 1
        if i:
            gather(ctx, channels, i, deadline)
    finally:
        free(channels)
    return [c for c in cores if not c.connected] if i else []


def get_all(list cores, int dbr_type=-1, unsigned long count=0, timeout=5.0, int shape=0) -> list:
    """Read connected channels: in the place of each a Sample or a value by `shape`, or the exception that it met.

    Parameters
    ----------
    dbr_type : int
        A DBR type; -1 for TIME of each one's native type, -2 for the native type itself.
    shape : int
        ``SAMPLES``, ``VALUES``, or ``PYEPICS`` (values by pyepics' rules).
    """
    cdef Py_ssize_t n = len(cores), i
    cdef ex_channel **channels = NULL
    cdef int *types = NULL
    cdef unsigned long *counts = NULL
    cdef ex_batch *b = NULL
    cdef ex_block *block
    cdef Core c
    cdef int status
    cdef int64_t deadline = deadline_of(timeout)
    cdef list found
    if n == 0:
        return []
    ctx = context_of(cores)
    try:
        channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
        types = <int *> calloc(n, sizeof(int))
        counts = <unsigned long *> calloc(n, sizeof(unsigned long))
        b = batch_new(n)
        if channels == NULL or types == NULL or counts == NULL or b == NULL:
            raise MemoryError
        for i in range(n):
            c = <Core> cores[i]
            channels[i] = c.ch
            types[i] = time_of(c.ch.type) if dbr_type == -1 else c.ch.type if dbr_type == -2 else dbr_type
            counts[i] = count if count < c.ch.count else c.ch.count
        status = batch_get(b, ctx, channels, types, counts)
        if status != ECA_NORMAL:
            raise from_status(status, "", "bulk get")
        batch_wait(b, deadline)
        found = [None] * n
        for i in range(n):
            block = b.slots[i].block
            if b.slots[i].state != EX_DONE or b.slots[i].status != ECA_NORMAL or block == NULL:
                found[i] = problem(<Core> cores[i], b.slots[i].state, b.slots[i].status, "get", timeout)
            elif shape == 2:
                found[i] = pyepics_value(block)
            elif shape == 1:
                found[i] = value_of(block, block.scalar)
            else:
                ex_block_ref(block)
                c = <Core> cores[i]
                found[i] = sample_of(block, c.name, c.ch.type)
        return found
    finally:
        if b != NULL:
            batch_free(b)
        free(channels)
        free(types)
        free(counts)


cdef object problem(Core c, int state, int status, str what, object timeout, bint unknown=False):
    if state != EX_DONE:
        return timed_out(c.name, what, 0.0 if timeout is None else timeout, "the server has not answered")
    if status == ECA_DISCONN and c.connects == 0:
        return DisconnectedError(ECA_DISCONN, f"{what} of '{c.name}': not connected; no server has answered its search",
                                 c.name)
    return from_status(status, c.name, what, outcome_unknown=unknown)


def put_all(list cores, values, bint wait=False, timeout=5.0, bint lenient=False) -> list:
    """Write to connected channels, each its value: in the place of each None, or the exception that it met.

    A value that does not fit is refused before anything is sent of it; the others are sent.
    """
    cdef Py_ssize_t n = len(cores), i, m = 0
    cdef ex_channel **channels = NULL
    cdef int *types = NULL
    cdef unsigned long *counts = NULL
    cdef const void **data = NULL
    cdef Outgoing *out = NULL
    cdef ex_batch *b = NULL
    cdef Core c
    cdef int status
    cdef int64_t deadline = deadline_of(timeout)
    cdef list found = [None] * n, keepers = [], places = []
    if n == 0:
        return []
    ctx = context_of(cores)
    try:
        channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
        types = <int *> calloc(n, sizeof(int))
        counts = <unsigned long *> calloc(n, sizeof(unsigned long))
        data = <const void **> calloc(n, sizeof(void *))
        out = <Outgoing *> calloc(n, sizeof(Outgoing))
        if channels == NULL or types == NULL or counts == NULL or data == NULL or out == NULL:
            raise MemoryError
        for i in range(n):
            c = <Core> cores[i]
            if c.ch.state != EX_UP:
                found[i] = problem(c, EX_DONE, ECA_DISCONN, "put", timeout)
                continue
            try:
                keepers.append(c.encoded(values[i], -2, lenient, &out[m], deadline))
            except (CAError, TypeError, ValueError) as error:
                found[i] = error
                continue
            channels[m] = c.ch
            types[m] = out[m].dbr_type
            counts[m] = out[m].count
            data[m] = out[m].data
            places.append(i)
            m += 1
        if m == 0:
            return found
        b = batch_new(m)
        if b == NULL:
            raise MemoryError
        status = batch_put(b, ctx, channels, types, counts, data, wait)
        if status != ECA_NORMAL:
            raise from_status(status, "", "bulk put")
        batch_wait(b, deadline)
        for i in range(m):
            if b.slots[i].state != EX_DONE or b.slots[i].status != ECA_NORMAL:
                found[places[i]] = problem(<Core> cores[places[i]], b.slots[i].state, b.slots[i].status, "put", timeout,
                                           wait)
        return found
    finally:
        if b != NULL:
            batch_free(b)
        free(channels)
        free(types)
        free(counts)
        free(data)
        free(out)
