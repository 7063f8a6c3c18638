"""What is done per event with the GIL: the drain loop, the keyword dict of a callback, its text.

Threads
    ``drain`` runs on a lane's dispatcher (_dispatch.py). A Face is read by any thread: under the GIL each of its short
    methods is atomic as long as it calls no foreign code, and it calls users' callbacks only from ``deliver``, on the
    dispatcher, and from ``deliver_now``, in the caller's thread. The two work on lists of their own (`event`, `now`).

Lifetime
    A Face belongs to its PV and knows it weakly. While the PV has callbacks the Context keeps the PV, and so the Face,
    alive; without callbacks nothing is queued for it.
"""

import logging
import time
import weakref

cimport cython
from cpython.mem cimport PyMem_Free
from cpython.object cimport PyObject
from libc.math cimport fabs, log10
from libc.stdint cimport int64_t, uint64_t

from epicsx._ca cimport Context, Core, Subscription, batch_begins, take, taken_done, taken_name, tally_of, value_failed
from epicsx._dbr cimport Control, Header, ctrl_of, decode_control, native_of, read_header, time_of
from epicsx._request cimport Request
from epicsx._sample cimport Sample, pyepics_value
from epicsx_events cimport (EX_HEADER, EX_NOTE_COMPLETION, EX_NOTE_CONNECTION, EX_NOTE_LARGE, EX_NOTE_LOG,
                            EX_NOTE_VALUE, ex_block, ex_block_unref, ex_now_coarse, ex_taken, ex_tally)

from epicsx._complaints import tell
from epicsx._printable import printable
from epicsx.counts import PVStats
from epicsx.errors import message

log = logging.getLogger("epicsx")
# libca's own complaints: whoever handles "epicsx" gets them; where nobody handles anything they do not go to stderr.
libca_log = logging.getLogger("epicsx.libca")
libca_log.addHandler(logging.NullHandler())

cdef extern from "Python.h":
    object PyObject_Vectorcall(object func, PyObject *const *args, size_t nargs, PyObject *names)
    char *PyOS_double_to_string(double value, char code, int precision, int flags, int *kind) except NULL
    unsigned long PyThread_get_thread_ident()
    bint PyDict_Next(object d, Py_ssize_t *at, PyObject **key, PyObject **value)

FIELDS = ("pvname", "value", "char_value", "status", "ftype", "chid", "host", "count", "access", "write_access",
          "read_access", "severity", "timestamp", "posixseconds", "nanoseconds", "precision", "units", "enum_strs",
          "upper_disp_limit", "lower_disp_limit", "upper_alarm_limit", "lower_alarm_limit", "lower_warning_limit",
          "upper_warning_limit", "upper_ctrl_limit", "lower_ctrl_limit", "nelm", "type", "typefull", "monitor_delta")
"""The keywords of a pyepics callback, and the keys of ``PV._args``."""

cdef enum:
    PVNAME, VALUE, CHAR_VALUE, STATUS, FTYPE, CHID, HOST, COUNT, ACCESS, WRITE, READ, SEVERITY, TIMESTAMP, POSIX, NANO
    PRECISION, UNITS, ENUMS, UDISP, LDISP, UALARM, LALARM, LWARN, UWARN, UCTRL, LCTRL, NELM, TYPE, TYPEFULL, DELTA
    N_FIELDS

cdef tuple KEYS = FIELDS
cdef tuple CALL_NAMES = FIELDS + ("cb_info",)
cdef dict PLACE = {name: i for i, name in enumerate(FIELDS)}
cdef tuple NATIVE_NAMES = ("string", "int", "float", "enum", "char", "long", "double")
cdef tuple CLASS_NAMES = ("string", "short", "float", "enum", "char", "long", "double")
cdef tuple ACCESS_NAMES = ("no access", "read-only", "write-only", "read/write")
cdef set threads = set()                # idents of those who drain


def delivering() -> bool:
    """Whether the calling thread is delivering events: a dispatcher's."""
    return PyThread_get_thread_ident() in threads


def enter_thread() -> None:
    """The calling thread delivers events from now on."""
    threads.add(PyThread_get_thread_ident())


def leave_thread() -> None:
    """It does not any more."""
    threads.discard(PyThread_get_thread_ident())


def forget_threads() -> None:
    """In a forked child: no thread delivers yet."""
    threads.clear()


# --------------------------------------------------------------- drain loop

hooks = {}
"""Filled from above: ``message(text)`` hears libca's prints, ``exception(status, op, name, text)`` its exceptions."""

def drain(Context context, int limit=1000) -> int:
    """Deliver what waits in the lane, oldest first, at most `limit` notes; how many there were."""
    cdef ex_taken t
    cdef int n = 0
    cdef int64_t now, since = ex_now_coarse()
    batch_begins(context)
    while n < limit and take(context, &t):
        n += 1
        context.calling_since = since
        try:
            deliver_note(&t)
            now = ex_now_coarse()        # the end of this one is the beginning of the next
            if now - since > context.longest_call:
                context.longest_call = now - since
                context.slowest = taken_name(&t)
            if now > since:
                batch_begins(context)    # it took a while, for which what is next has waited
            since = now
        except BaseException:            # the last resort: this thread serves everybody
            tell(log, logging.ERROR, "a delivery failed", failure=True)
        finally:
            context.calling_since = 0
            taken_done(&t)
    return n


cdef int deliver_note(ex_taken *t) except -1:
    """One note, to whom it concerns. What users' callbacks raise, also sys.exit(), is told and ends here."""
    cdef Subscription s
    cdef Request q
    if t.kind == EX_NOTE_LOG:
        return log_note(t.a, <const char *> t.subject)
    if t.py == NULL:
        return 0
    if t.kind == EX_NOTE_VALUE:
        s = <Subscription> t.py
        try:
            s.deliver(t)
        except BaseException:
            value_failed(t, s.name)
    elif t.kind == EX_NOTE_COMPLETION:
        q = <Request> t.py               # a reference: finish() lets go of what may be the last one
        try:
            q.finish()
        except BaseException:
            q.core.failed("callback of a request", q.core.name)
    elif t.kind == EX_NOTE_LARGE:
        s = <Subscription> t.py
        try:
            s.move()
        except Exception:
            tell(log, logging.ERROR, "the updates of '%s' have not come", s.name, failure=True)
    else:
        news(<Core> t.py, t.kind, t.a, t.b)
    return 0


cdef int news(Core core, int kind, int a, int b) except -1:
    """Connection or access news, to all who listen; one that fails does not stop the next."""
    for obj in core.heard():
        try:
            if kind == EX_NOTE_CONNECTION:
                obj._on_core_connection(a != 0, b)
            else:
                obj._on_core_access(a != 0, b != 0)
        except BaseException:
            core.failed("connection or access callback", core.name)
    return 0


cdef int log_note(int level, const char *text) except -1:
    """One message for the log: "name NUL text"; that of an exception event begins "status TAB operation TAB"."""
    cdef bytes raw = text
    cdef str name = raw.decode("utf-8", "backslashreplace")
    raw = text + len(raw) + 1
    cdef str whole = raw.decode("utf-8", "backslashreplace")
    parts = whole.split("\t", 2)
    where, what = libca_log, parts[len(parts) - 1]
    if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
        if "exception" in hooks:
            hooks["exception"](int(parts[0]), int(parts[1]), printable(name), printable(what))
        what = f"{message(int(parts[0]))}: {what}" if what.strip() else message(int(parts[0]))
        if parts[1] == "1":
            where, what = log, f"the server rejected a put: {what}"
    elif name:
        where = log                     # our own word about a PV: the first loss of a slow consumer
    elif "message" in hooks:
        hooks["message"](printable(whole, "\n\t"))
    what = printable(what.strip())
    if what:
        tell(where, level, "%s", f"'{printable(name)}': {what}" if name else what)
    return 0


# --------------------------------------------------------------------- text

cdef str float_text(double value, object precision):
    """pyepics' text of a number (pv.py: _set_charval): fixed, or general where it is very large or small."""
    cdef char *raw
    cdef char code = b'f'
    cdef double size
    if precision is None:
        return str(value)
    size = fabs(value + 1e-9)
    if value != value or size == float("inf"):
        return str(value)
    if size == 0 or abs(<int> log10(size)) > 4:
        code = b'g'
    raw = PyOS_double_to_string(value, code, max(<int> precision, 1) if code == b'g' and <int> precision == 0
                                else <int> precision, 0, NULL)
    try:
        return raw.decode("ascii")
    finally:
        PyMem_Free(raw)


def text_of(value, int native, precision=None, enum_strs=None, typefull="", bint whole=False, limit=65536):
    """pyepics' ``char_value`` of a value; a str, but a list for an array of strings.

    Parameters
    ----------
    native : int
        Its native DBR type.
    whole : bool
        Turn a CHAR array into text whatever its length, not only below `limit` elements.
    """
    return text_c(value, native, precision, enum_strs, typefull, whole, limit)


cdef object text_c(object value, int native, object precision, object enum_strs, object typefull, bint whole,
                   long limit):
    cdef Py_ssize_t size = -1
    cdef Py_ssize_t index
    if isinstance(value, float):        # by far the most frequent, and the one without a length
        return float_text(value, precision) if native == 2 or native == 6 else repr(value)
    if native == 0 or value is None:
        return value if value is not None else "None"
    if not isinstance(value, int):
        try:
            size = len(value)
        except TypeError:
            size = -1
    if native == 4 and (whole or size < limit):
        raw = bytes([value & 255]) if size < 0 else bytes(bytearray(value))
        return raw.partition(b"\0")[0].decode("latin-1").rstrip()
    if size > 1:
        return f"<array size={size}, type={typefull}>"
    if size == 1:
        value = value[0]
    elif size == 0:
        return "[]"
    if native == 2 or native == 6:
        return float_text(value, precision)
    if native == 3:
        index = int(value)
        if enum_strs and 0 <= index < len(enum_strs):
            return enum_strs[index]
        return str(index)
    return repr(value.item() if hasattr(value, "item") else value)


# --------------------------------------------------------------------- face

cdef object plain_all = None
cdef object plain_one = None


def runs_callbacks(cls) -> None:
    """Say by which class's ``run_callbacks`` and ``run_callback`` to know that nobody has replaced them."""
    global plain_all, plain_one
    plain_all, plain_one = cls.run_callbacks, cls.run_callback


cdef bint runs_its_own(object pv) except -1:
    """Whether a subclass or a program has replaced one of them, as pyepics lets it. Asked per event, so in C."""
    cdef object cls = type(pv)
    cdef dict own = pv.__dict__
    return (cls.run_callbacks is not plain_all or cls.run_callback is not plain_one
            or "run_callbacks" in own or "run_callback" in own)


@cython.no_gc_clear
cdef class Face(Subscription):
    """What a PV stands on: its monitor, its ``_args``, the calls of its callbacks."""
    cdef object pv_ref, chid, chid_number
    cdef str pvname
    cdef int form                       # 0 native, 1 time, 2 ctrl
    cdef list now, event                # the fields as read by anyone; as of the event being delivered
    cdef dict args_now, args_event
    cdef uint64_t arrival               # of the newest event that `now` has been shown
    cdef uint64_t value_at, header_at, control_at       # when what `now` has of each came: by an event, or by a read
    cdef uint64_t event_control         # of the channel's control data that `event` has
    cdef int native, facts, event_facts
    cdef bint text_due, listening
    cdef unsigned long in_thread
    cdef public object monitor_delta
    cdef public long text_limit
    cdef uint64_t errors_
    cdef tuple past

    def __init__(self, pv):
        self.pv_ref = weakref.ref(pv)
        self.pvname = pv.pvname
        self.native = -1
        self.form = 1
        self.facts = -1
        self.text_limit = 65536

    def attach(self, Core core, str form, chid) -> None:
        """Say which channel it is, which form of data the PV reports, and its chid."""
        self.core = core
        self.form = 2 if form == "ctrl" else 0 if form == "native" else 1
        self.chid = chid
        self.chid_number = int(getattr(chid, "value", chid) or 0)     # what events report
        self.facts = self.event_facts = -1

    # ---- the monitor

    def subscribe(self, unsigned long count, long mask) -> None:
        """Monitor the PV: the newest value is kept; it is queued for callbacks only while somebody listens."""
        self.unsubscribe()
        self.arrival = 0
        self.open_(self.core, -1, count, mask, 10_000, False, self.listening, "auto")

    def unsubscribe(self) -> None:
        """End the monitor. The last values stay readable."""
        if self.h != NULL:
            self.refresh()
            self.past = self.totals()
            self.release()

    @property
    def subscribed(self) -> bool:
        """Whether the PV is monitored."""
        return self.h != NULL and not self.closed

    def set_listening(self, bint listening) -> None:
        """Queue events for the dispatcher, or only keep the newest."""
        self.listening = listening
        if self.h != NULL:
            self.set_queueing(listening)

    cdef object totals(self):
        now = tuple(Subscription.stats.__get__(self)) if self.h != NULL else (0, 0, 0, 0, 0)
        return now if self.past is None else tuple([a + b for a, b in zip(now, self.past)])

    @property
    def stats(self) -> PVStats:
        """One consistent copy of the counts, over all monitors this PV has had; and the callbacks that failed."""
        cdef ex_tally t
        if self.core is None:
            return PVStats(*self.totals(), self.errors_, 0, 0, 0, 0, 0, 0.0)
        c = self.core.stats
        t.bytes = 0
        t.oldest = 0
        if self.h != NULL and not self.core.state_of_fork():
            tally_of(self.h, &t)
        return PVStats(*self.totals(), self.errors_, c.disconnects, c.rejected_puts, c.decode_errors, c.unresponsive,
                       t.bytes, (ex_now_coarse() - t.oldest) * 1e-9 if t.oldest else 0.0)

    # ---- fields

    cdef list blank(self):
        cdef list v = [None] * N_FIELDS
        v[PVNAME] = self.pvname
        v[CHID] = self.chid
        v[TYPE] = v[TYPEFULL] = v[ACCESS] = "unknown"
        v[NELM] = -1
        v[DELTA] = self.monitor_delta
        return v

    cdef int fill_facts(self, list v) except -1:
        """What the channel itself knows: type, host, rights. Only when it has changed."""
        cdef Core core = self.core
        cdef int native = core.ch.type
        cdef str name
        if native < 0:
            return 0
        if self.form == 0:
            v[FTYPE] = native
            name = NATIVE_NAMES[native]
        elif self.form == 1 or native == 0:
            v[FTYPE] = time_of(native)
            name = "time_" + <str> CLASS_NAMES[native]
        else:
            v[FTYPE] = ctrl_of(native)
            name = "ctrl_" + <str> CLASS_NAMES[native]
        v[TYPE] = v[TYPEFULL] = name
        v[HOST] = core.host
        v[NELM] = core.ch.count
        if v[COUNT] is None:
            v[COUNT] = core.ch.count
        v[READ] = core.ch.reading != 0
        v[WRITE] = core.ch.writing != 0
        v[ACCESS] = ACCESS_NAMES[(core.ch.reading != 0) + 2 * (core.ch.writing != 0)]
        v[CHID] = self.chid
        v[DELTA] = self.monitor_delta
        return 0

    cdef int stamp_of_facts(self) noexcept:
        return (<int> self.core.ch.connects << 3) + (self.core.ch.reading << 1) + self.core.ch.writing + \
            (4 if self.core.ch.state == 2 else 0)

    cdef int fill_value(self, list v, ex_block *b) except -1:
        """One block's value, alarm and stamp."""
        v[VALUE] = pyepics_value(b)
        v[COUNT] = b.count
        self.native = native_of(b.dbr_type)
        if self.form == 0:              # events of this form bring no alarm
            v[TIMESTAMP] = time.time()
            v[POSIX] = v[NANO] = 0
            return 0
        return self.fill_header(v, b)

    cdef int fill_header(self, list v, ex_block *b) except -1:
        """One block's alarm and stamp."""
        cdef Header h
        cdef long long seconds
        read_header(b.dbr_type, EX_HEADER(b), &h)
        v[STATUS] = h.status
        v[SEVERITY] = h.severity
        if h.has_stamp:
            seconds = <long long> h.sec + 631152000
            v[TIMESTAMP] = <double> seconds + 1e-6 * <double> (h.nsec // 1000)
            v[POSIX] = <double> seconds
            v[NANO] = h.nsec
        return 0

    cdef int fill_control(self, list v, Control c) except -1:
        v[PRECISION] = c.precision
        v[UNITS] = c.units
        v[ENUMS] = c.enum_strings if c.enum_strings else None
        v[UDISP] = c.upper_disp_limit
        v[LDISP] = c.lower_disp_limit
        v[UALARM] = c.upper_alarm_limit
        v[LALARM] = c.lower_alarm_limit
        v[LWARN] = c.lower_warning_limit
        v[UWARN] = c.upper_warning_limit
        v[UCTRL] = c.upper_ctrl_limit
        v[LCTRL] = c.lower_ctrl_limit
        return 0

    cdef object text(self, list v, bint whole=False):
        return text_c(v[VALUE], self.native, v[PRECISION], v[ENUMS], v[TYPEFULL], whole, self.text_limit)

    cdef list refresh(self):
        """Bring `now` up to date: newest block, control data, facts. Decodes only what is new."""
        cdef ex_block *b = NULL
        cdef int facts
        if self.now is None:
            self.now = self.blank()
        if self.core is None:
            return self.now
        facts = self.stamp_of_facts()
        if facts != self.facts:
            self.facts = facts
            self.fill_facts(self.now)
            self.text_due = True
        if self.h != NULL and self.h.sub.last_arrival != self.arrival and not self.context.lane.polled:
            b = self.newest(NULL)
            if b != NULL:
                try:
                    self.arrived(b)
                finally:
                    ex_block_unref(b)
        if self.core.control_stamp() > self.control_at:
            control = self.core.control_now()
            if control is not None:
                self.control_at = self.core.control_arrival
                self.fill_control(self.now, control)
                self.text_due = True
        return self.now

    cdef int arrived(self, ex_block *b) except -1:
        """An update that `now` may not have seen yet. It may be older than a read: that of a monitor others had."""
        if b.arrival == self.arrival:
            return 0
        self.arrival = b.arrival
        self.now[CHID] = self.chid_number
        self.text_due = True
        if b.arrival > self.value_at:
            self.value_at = b.arrival
            if self.form != 0:
                self.header_at = b.arrival
            self.fill_value(self.now, b)
        return 0

    cdef bint in_event(self):
        """Whether the caller is a callback of the PV; unless that has disconnected it."""
        return self.in_thread and self.in_thread == PyThread_get_thread_ident() and self.event is not None

    def args(self) -> dict:
        """The PV's ``_args``: one real dict, brought up to date; inside a callback of the PV, that of the event."""
        cdef list v
        cdef int i
        if self.in_event():
            if self.args_event is None:
                self.args_event = dict(zip(KEYS, self.event))
            return self.args_event
        v = self.refresh()
        if self.args_now is None or self.text_due:
            v[CHAR_VALUE] = self.text(v) if v[VALUE] is not None else None
            self.text_due = False
            if self.args_now is None:
                self.args_now = dict(zip(KEYS, v))
            else:
                for i in range(N_FIELDS):
                    self.args_now[KEYS[i]] = v[i]
        return self.args_now

    def value(self):
        """The newest value, by pyepics' rules; inside a callback of the PV, the event's."""
        if self.in_event():
            return self.event[VALUE]
        return self.refresh()[VALUE]

    def field(self, str name):
        """One field of ``args()``, without making the dict."""
        if name == "char_value" or self.args_now is not None or self.in_thread:
            return self.args()[name]
        return self.refresh()[PLACE[name]]

    @property
    def has_value(self) -> bool:
        """Whether a value has been seen."""
        return self.refresh()[VALUE] is not None

    def merge(self, Sample sample, bint value=True) -> None:
        """A network read brings alarm, stamp, control data up to date; the value too, if wanted or unknown.

        But nothing of what came behind it, by an update or another read, is undone: the thread that has read, and
        brings it here, may have stood still meanwhile.
        """
        cdef list v = self.refresh()
        cdef ex_block *b = sample.b
        if (value or v[VALUE] is None) and b.arrival > self.value_at:
            self.value_at = b.arrival
            v[VALUE] = pyepics_value(b)
            v[COUNT] = b.count
            if self.native < 0 or native_of(b.dbr_type) == self.core.ch.type:
                self.native = native_of(b.dbr_type)
        if b.dbr_type > 6 and b.arrival > self.header_at:   # a read of the native type leaves alarm and stamp alone
            self.header_at = b.arrival
            self.fill_header(v, b)
        if 21 <= b.dbr_type <= 34 and b.arrival > self.control_at:
            self.control_at = b.arrival
            self.fill_control(v, decode_control(b.dbr_type, EX_HEADER(b)))
        self.text_due = True

    def reset(self) -> None:
        """Forget all fields."""
        self.unsubscribe()
        self.now = self.event = None
        self.args_now = self.args_event = None
        self.facts = -1
        self.value_at = self.header_at = self.control_at = 0

    def char_value(self, *value, bint as_string=False):
        """pyepics' text of a value (the newest one unless given)."""
        cdef list v = self.refresh()
        if not value:
            return self.text(v, as_string)
        native = self.native if self.native >= 0 else self.core.ch.type if self.core is not None else 6
        return text_c(value[0], native, v[PRECISION], v[ENUMS], v[TYPEFULL], as_string, self.text_limit)

    # ---- callbacks

    cdef int deliver(self, ex_taken *t) except -1:
        """One event, on the dispatcher."""
        cdef ex_block *b = t.block
        cdef list v = self.event
        cdef int facts
        cdef bint own
        pv = self.pv_ref()
        if pv is None:
            return 0
        if self.context.lane.polled:        # nothing else brings a new value there
            self.refresh()
            self.arrived(b)
        callbacks = pv._callbacks           # without the property's call: this is done per event
        own = runs_its_own(pv)
        if not callbacks and not own:
            return 0
        if v is None:
            v = self.event = self.blank()
            self.event_control = 0
            self.event_facts = -1
        facts = self.stamp_of_facts()
        if facts != self.event_facts:
            self.event_facts = facts
            self.fill_facts(v)
            v[CHID] = self.chid_number
        self.fill_value(v, b)
        if self.core.control_stamp() != self.event_control:
            control = self.core.control_now()
            if control is not None:
                self.event_control = self.core.control_arrival
                self.fill_control(v, control)
        v[CHAR_VALUE] = self.text(v)
        self.args_event = None
        self.in_thread = PyThread_get_thread_ident()
        try:
            if own:
                pv.run_callbacks()
            else:
                self.call_all(pv, callbacks, v)
        except BaseException:           # of an overridden method; those of callbacks end in call()
            self.failed_("run_callbacks")
        finally:
            self.in_thread = 0
        return 0

    def deliver_now(self, *index) -> None:
        """Run the PV's callbacks (or only that of `index`) here, with the present data."""
        cdef list v = list(self.event if self.in_event() else self.refresh())
        pv = self.pv_ref()
        if pv is None:
            return
        v[CHAR_VALUE] = self.text(v) if v[VALUE] is not None else "None"
        if index:
            entry = pv.callbacks.get(index[0])
            if entry is not None:
                self.call(pv, index[0], entry, v)
        else:
            self.call_all(pv, pv.callbacks, v)

    cdef int call_all(self, object pv, object callbacks, list v) except -1:
        cdef Py_ssize_t at = 0
        cdef PyObject *index_
        cdef PyObject *entry_
        if len(callbacks) == 1 and PyDict_Next(callbacks, &at, &index_, &entry_):
            return self.call(pv, <object> index_, <object> entry_, v)
        try:
            order = sorted(callbacks)
        except TypeError:               # indices of several kinds: as they were added
            order = list(callbacks)
        for index in order:
            entry = callbacks.get(index)
            if entry is not None:       # an earlier callback may have removed it
                self.call(pv, index, entry, v)
        return 0

    cdef int call(self, object pv, object index, object entry, list v) except -1:
        cdef PyObject *args[N_FIELDS + 1]
        cdef tuple info = (index, pv)
        cdef int i
        cdef object func, extra
        func, extra = entry
        try:
            if extra:
                keywords = dict(zip(KEYS, v))
                keywords.update(extra)
                keywords["cb_info"] = info
                func(**keywords)
            else:
                for i in range(N_FIELDS):
                    args[i] = <PyObject *> v[i]
                args[N_FIELDS] = <PyObject *> info
                PyObject_Vectorcall(func, args, 0, <PyObject *> CALL_NAMES)
        except BaseException as error:
            if not isinstance(error, Exception) and not delivering():
                raise                   # Ctrl-C in the caller's own thread
            self.failed_("callback")
        return 0

    cdef int failed_(self, str what) except -1:
        self.errors_ += 1
        return self.core.failed(what, self.pvname)
