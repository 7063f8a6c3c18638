"""Many channels at once: one batch in C, one flush, one wait, values made in one pass.

Threads
    Any; the GIL is released while requests are sent and while we wait. A batch stays lent to libca until its last slot
    is answered or its channel cleared, whatever the caller's deadline was.
"""

cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport PyObject
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from caerr cimport ECA_DISCONN, ECA_NORMAL
from epicsx._ca cimport (Context, Core, batch_abandon, batch_free, batch_get, batch_new, batch_put, batch_settle,
                         batch_signal, batch_wait, deadline_of, gather)
from db_access cimport DBR_TIME_DOUBLE, dbr_time_double, dbr_time_string
from epicsx._dbr cimport Outgoing, decode_value, time_of, unix_ns, value_offset
from epicsx._request cimport Inbox, Request, signal
from epicsx._sample cimport pyepics_value, sample_of, value_of
from epicsx_events cimport (EX_DONE, EX_HEADER, EX_UP, ex_batch, ex_block, ex_block_ref, ex_channel,
                            ex_slot)
from libc.stdint cimport int16_t, int64_t, uint8_t

from epicsx.errors import CAError, DisconnectedError, from_status, timed_out, unanswered

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


cdef ex_batch *sent_get(list cores, object types, object counts, Request done) except NULL:
    """A batch of reads on its way. `types` and `counts` are one for all, or lists; `done` ends with the last answer."""
    cdef Py_ssize_t n = len(cores), i
    cdef ex_channel **channels = NULL
    cdef int *asked = NULL
    cdef unsigned long *wanted = NULL
    cdef ex_batch *b = NULL
    cdef Core c
    cdef int status, type = 0
    cdef unsigned long count = 0
    cdef list each_type = types if isinstance(types, list) else None
    cdef list each_count = counts if isinstance(counts, list) else None
    if each_type is None:
        type = types
    if each_count is None:
        count = counts
    ctx = context_of(cores)
    try:
        channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
        asked = <int *> calloc(n, sizeof(int))
        wanted = <unsigned long *> calloc(n, sizeof(unsigned long))
        b = batch_new(n)
        if channels == NULL or asked == NULL or wanted == NULL or b == NULL:
            raise MemoryError
        for i in range(n):
            c = <Core> cores[i]
            if each_type is not None:
                type = each_type[i]
            if each_count is not None:
                count = each_count[i]
            channels[i] = c.ch
            asked[i] = time_of(c.ch.type) if type == -1 else c.ch.type if type == -2 else type
            wanted[i] = count if count < c.ch.count else c.ch.count
        if done is not None:
            batch_signal(b, done.r)
        status = batch_get(b, ctx, channels, asked, wanted)
        if status != ECA_NORMAL:
            raise from_status(status, "", "bulk get")
        batch_settle(b)
        return b
    except BaseException:
        if b != NULL:
            batch_free(b)
        raise
    finally:
        free(channels)
        free(asked)
        free(wanted)


cdef list got(ex_batch *b, list cores, int shape, object timeout):
    """What has come of a batch of reads, or why not, in the place of each."""
    cdef Py_ssize_t n = len(cores), i
    cdef ex_block *block
    cdef Core c
    cdef list found = [None] * n
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


def get_all(list cores, int dbr_type=-1, unsigned long count=0, timeout=5.0, int shape=0) -> list:
    """Read connected channels: in the place of each a Sample or a value by `shape`, or the exception that it met.

    Parameters
    ----------
    dbr_type : int
        A DBR type; -1 for TIME of each one's native type, -2 for the native type itself.
    shape : int
        ``SAMPLES``, ``VALUES``, or ``PYEPICS`` (values by pyepics' rules).
    """
    cdef int64_t deadline = deadline_of(timeout)
    cdef ex_batch *b
    if not cores:
        return []
    b = sent_get(cores, dbr_type, count, None)
    try:
        batch_wait(b, deadline)
        return got(b, cores, shape, timeout)
    finally:
        batch_free(b)


cdef object problem(Core c, int state, int status, str what, object timeout, bint unknown=False):
    if state != EX_DONE:
        return timed_out(c.name, what, 0.0 if timeout is None else timeout, "the server has not answered")
    if status == ECA_DISCONN and c.connects == 0:
        return DisconnectedError(ECA_DISCONN, f"{what} of '{c.name}': not connected; {unanswered()}",
                                 c.name)
    return from_status(status, c.name, what, outcome_unknown=unknown)


cdef ex_batch *sent_put(list cores, object values, list types, bint wait, int64_t deadline, object timeout,
                        bint lenient, list found, list places, Request done) except? NULL:
    """A batch of writes on its way, and where in `found` each belongs; NULL if all were refused, as `found` tells."""
    cdef Py_ssize_t n = len(cores), i, m = 0
    cdef ex_channel **channels = NULL
    cdef int *asked = NULL
    cdef unsigned long *counts = NULL
    cdef const void **data = NULL
    cdef Outgoing *out = NULL
    cdef ex_batch *b = NULL
    cdef Core c
    cdef int status
    cdef list keepers = []
    ctx = context_of(cores)
    try:
        channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
        asked = <int *> calloc(n, sizeof(int))
        counts = <unsigned long *> calloc(n, sizeof(unsigned long))
        data = <const void **> calloc(n, sizeof(void *))
        out = <Outgoing *> calloc(n, sizeof(Outgoing))
        if channels == NULL or asked == NULL or counts == NULL or data == NULL or out == NULL:
            raise MemoryError
        for i in range(n):
            c = <Core> cores[i]
            if c.ch.state != EX_UP:
                found[i] = problem(c, EX_DONE, ECA_DISCONN, "put", timeout)
                continue
            try:
                keepers.append(c.encoded(values[i], -2 if types is None else types[i], lenient, &out[m], deadline))
            except (CAError, TypeError, ValueError) as error:
                found[i] = error
                continue
            channels[m] = c.ch
            asked[m] = out[m].dbr_type
            counts[m] = out[m].count
            data[m] = out[m].data
            places.append(i)
            m += 1
        if m == 0:
            return NULL
        b = batch_new(m)
        if b == NULL:
            raise MemoryError
        if done is not None:
            batch_signal(b, done.r)
        status = batch_put(b, ctx, channels, asked, counts, data, wait)
        if status != ECA_NORMAL:
            raise from_status(status, "", "bulk put")
        batch_settle(b)
        return b
    except BaseException:
        if b != NULL:
            batch_free(b)
        raise
    finally:
        free(channels)
        free(asked)
        free(counts)
        free(data)
        free(out)


cdef list written(ex_batch *b, list cores, list found, list places, bint wait, object timeout):
    cdef Py_ssize_t i
    for i in range(len(places)):
        if b.slots[i].state != EX_DONE or b.slots[i].status != ECA_NORMAL:
            found[places[i]] = problem(<Core> cores[places[i]], b.slots[i].state, b.slots[i].status, "put", timeout,
                                       wait)
    return found


def put_all(list cores, values, bint wait=False, timeout=5.0, bint lenient=False, list types=None) -> list:
    """Write to connected channels, each its value: in the place of each None, or the exception that it met.

    A value that does not fit is refused before anything is sent of it; the others are sent. `types` are the DBR types
    to send them in; None is each record's own.
    """
    cdef int64_t deadline = deadline_of(timeout)
    cdef ex_batch *b
    cdef list found = [None] * len(cores), places = []
    if not cores:
        return []
    b = sent_put(cores, values, types, wait, deadline, timeout, lenient, found, places, None)
    if b == NULL:
        return found
    try:
        batch_wait(b, deadline)
        return written(b, cores, found, places, wait, timeout)
    finally:
        batch_free(b)


# ------------------------------------------------------- for an event loop

@cython.final
cdef class UnderWay:
    """Reads or writes of many connected channels, sent with one flush, whose answers an event loop awaits."""

    cdef ex_batch *b
    cdef list cores, found, places
    cdef bint is_put
    cdef readonly Request request
    """It ends with the last answer."""

    def __init__(self, *args, **kwargs):
        raise TypeError("get_all_async and put_all_async make them")

    def __dealloc__(self):
        if self.b != NULL and self.cores and not (<Core> self.cores[0]).state_of_fork():
            batch_abandon(self.b)
            batch_free(self.b)

    def collect(self, timeout) -> list:
        """What came, or why not, in the place of each; what has not come yet has timed out after `timeout` seconds."""
        if self.b == NULL:
            return self.found
        batch_abandon(self.b)
        self.request.cancel()                   # if that has not ended it
        if self.is_put:
            return written(self.b, self.cores, self.found, self.places, True, timeout)
        return got(self.b, self.cores, SAMPLES, timeout)


cdef UnderWay under_way(list cores, bint is_put, callback, Inbox inbox):
    cdef UnderWay u = UnderWay.__new__(UnderWay)
    u.cores = cores
    u.is_put = is_put
    u.request = signal(cores[0], "bulk put" if is_put else "bulk get", callback, inbox)
    return u


def get_all_async(list cores, types, counts, callback, Inbox inbox) -> UnderWay:
    """Send reads of connected channels, one or more, and wait for none.

    `types` and `counts` are lists, or one for all; of types also -1 and -2 as in ``get_all``.
    """
    cdef UnderWay u = under_way(cores, False, callback, inbox)
    try:
        u.b = sent_get(cores, types, counts, u.request)
    except BaseException:
        u.request.cancel()
        raise
    return u


def put_all_async(list cores, list values, list types, callback, Inbox inbox) -> UnderWay:
    """Send writes with completion to connected channels, one or more, and wait for none.

    What does not fit is refused, as ``collect`` tells; the others are sent.
    """
    cdef UnderWay u = under_way(cores, True, callback, inbox)
    u.found, u.places = [None] * len(cores), []
    try:
        u.b = sent_put(cores, values, types, True, deadline_of(0.0), 0.0, False, u.found, u.places, u.request)
    except BaseException:
        u.request.cancel()
        raise
    if u.b == NULL:
        u.request.cancel()                      # nothing to wait for
    return u


# ---------------------------------------------------------------- columns

cdef int column(object array, Py_ssize_t itemsize, Py_ssize_t rows, Py_buffer *buf) except -1:
    PyObject_GetBuffer(array, buf, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
    if buf.itemsize != itemsize or buf.len != itemsize * rows:
        PyBuffer_Release(buf)
        raise ValueError(f"a column of {rows} rows of {itemsize} bytes is wanted")
    return 0


cdef extern from "Python.h":
    PyObject *list_item "PyList_GET_ITEM"(object items, Py_ssize_t i) nogil
    PyObject *tuple_item "PyTuple_GET_ITEM"(object items, Py_ssize_t i) nogil


def identical(items, tuple others) -> bool:
    """Whether a list or tuple has the very objects of a tuple. None is touched, which would cost a cache miss each."""
    cdef Py_ssize_t n = len(others), i
    if type(items) is list:
        if len(<list> items) != n:
            return False
        for i in range(n):
            if list_item(items, i) != tuple_item(others, i):
                return False
        return True
    if type(items) is not tuple or len(<tuple> items) != n:
        return False
    for i in range(n):
        if tuple_item(items, i) != tuple_item(others, i):
            return False
    return True


@cython.final
cdef class Targets:
    """Channels that are read together again and again, at hand in C; they stay open as long as this lives."""

    cdef list cores
    cdef Context context
    cdef ex_channel **channels

    def __cinit__(self, list cores):
        cdef Py_ssize_t n = len(cores), i
        self.cores = list(cores)
        if n == 0:
            return
        self.context = context_of(self.cores)
        self.channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
        if self.channels == NULL:
            raise MemoryError
        for i in range(n):
            self.channels[i] = (<Core> self.cores[i]).ch

    def __dealloc__(self):
        free(self.channels)


@cython.final
cdef class Reading:
    """Reads of many channels that have been sent with one flush, and the rows of those that are not connected.

    Parameters
    ----------
    targets : Targets
        The channels, one a row.
    rows : list or None
        The rows to read; None is all of them.
    """

    cdef ex_batch *b
    cdef Py_ssize_t *rows       # of each slot
    cdef Py_ssize_t n
    cdef Targets targets
    cdef readonly list missing

    def __cinit__(self, Targets targets not None, list rows=None):
        cdef Py_ssize_t n = len(targets.cores) if rows is None else len(rows), i, row, m = 0
        cdef ex_channel **channels = NULL
        cdef int *types = NULL
        cdef unsigned long *counts = NULL
        cdef ex_channel *ch
        cdef int status
        self.targets = targets
        self.missing = []
        if n == 0:
            return
        targets.context.check()
        try:
            channels = <ex_channel **> calloc(n, sizeof(ex_channel *))
            types = <int *> calloc(n, sizeof(int))
            counts = <unsigned long *> calloc(n, sizeof(unsigned long))     # 0: as many elements as there are
            self.rows = <Py_ssize_t *> calloc(n, sizeof(Py_ssize_t))
            if channels == NULL or types == NULL or counts == NULL or self.rows == NULL:
                raise MemoryError
            for i in range(n):
                row = i if rows is None else <Py_ssize_t> rows[i]
                ch = targets.channels[row]
                if ch.state != EX_UP:
                    self.missing.append(row)
                    continue
                channels[m] = ch
                types[m] = time_of(ch.type)
                self.rows[m] = row
                m += 1
            if m == 0:
                return
            self.b = batch_new(m)
            if self.b == NULL:
                raise MemoryError
            self.b.keep_small = 1
            self.n = m
            status = batch_get(self.b, targets.context, channels, types, counts)
            if status != ECA_NORMAL:
                raise from_status(status, "", "bulk get")
        finally:
            free(channels)
            free(types)
            free(counts)

    def __dealloc__(self):
        if self.b != NULL:
            batch_free(self.b)
        free(self.rows)

    def collect(self, timeout, seconds, list values, stamps, severity, status, ok, dict errors) -> None:
        """Wait for the answers and fill the columns, each at its row; what failed goes into `errors`, by row.

        Parameters
        ----------
        timeout : float or None, seconds
            How long to wait from now on.
        seconds : float or None
            What a time-out says has been waited.
        values : list
        stamps, severity, status, ok : writable, contiguous buffers of int64, int16, int16, bool
            As long as the channels are many. A row that failed is left as it is.
        """
        cdef Py_ssize_t size = len(self.targets.cores), i, row
        cdef ex_slot *slot
        cdef const dbr_time_string *head
        cdef const char *at
        cdef Py_buffer[4] buf
        cdef int held = 0
        cdef int64_t *stamps_at
        cdef int16_t *severity_at
        cdef int16_t *status_at
        cdef uint8_t *ok_at
        if self.b == NULL:
            return
        if len(values) != size:
            raise ValueError(f"a list of {size} values is wanted")
        batch_wait(self.b, deadline_of(timeout))    # afterwards nobody writes to the slots any more
        memset(buf, 0, sizeof(buf))
        try:
            for array, itemsize in ((stamps, 8), (severity, 2), (status, 2), (ok, 1)):
                column(array, itemsize, size, &buf[held])
                held += 1
            stamps_at = <int64_t *> buf[0].buf
            severity_at = <int16_t *> buf[1].buf
            status_at = <int16_t *> buf[2].buf
            ok_at = <uint8_t *> buf[3].buf
            for i in range(self.n):
                row = self.rows[i]
                slot = &self.b.slots[i]
                if slot.state != EX_DONE or slot.status != ECA_NORMAL or (slot.block == NULL and not slot.is_small):
                    errors[row] = problem(<Core> self.targets.cores[row], slot.state, slot.status, "get", seconds)
                    continue
                # What came is of the type asked for, else the slot's status would say so; and every TIME structure
                # begins with alarm and stamp.
                if not slot.is_small:
                    head = <const dbr_time_string *> EX_HEADER(slot.block)
                    values[row] = value_of(slot.block, slot.block.scalar)
                else:
                    head = <const dbr_time_string *> slot.small
                    if slot.type == DBR_TIME_DOUBLE:        # most of them
                        values[row] = (<const dbr_time_double *> slot.small).value
                    else:
                        at = <const char *> slot.small + value_offset(slot.type)
                        values[row] = decode_value(slot.type, 1, at, None, True)
                stamps_at[row] = unix_ns(head.stamp.secPastEpoch, head.stamp.nsec)
                severity_at[row] = head.severity
                status_at[row] = head.status
                ok_at[row] = 1
        finally:
            for i in range(held):
                PyBuffer_Release(&buf[i])
