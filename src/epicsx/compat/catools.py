"""The interface of cothread's ``catools``, with plain threads: no coroutine library is needed, nor used.

``from epicsx.compat.catools import *`` stands for ``from cothread.catools import *``: `caget`, `caput`, `camonitor`,
`connect`, `cainfo`, values that are numbers, texts or arrays with fields of their own (``value.ok``, ``value.name``,
``value.timestamp``), and `ca_nothing` for what failed.

Differences
    Calls block their thread and no other. Callbacks run on epicsx's dispatcher, one at a time, in order; one that
    raises is logged, and its subscription goes on. ``cothread.WaitForQuit`` has no counterpart: wait by what the
    program likes, such as ``threading.Event().wait()``.

Threads
    Any thread may call anything, also in callbacks. With `connect_timeout` a timer thread makes one of the calls.

Lifetime
    A subscription goes on until its ``close()``, kept or not. Channels stay open for the next call.
"""

from __future__ import annotations

import datetime as _datetime
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from .. import _ca, _channel, functional
from .. import dbr as _dbr
from ..enums import DBR, ECA
from ..errors import BadTypeError, BadValueError, CAError, CATimeoutError
from ..errors import message as _message
from ..utils import bytes2str
from ._puts import for_put, sent_as

if TYPE_CHECKING:
    from .._ca import Core
    from .._sample import Sample

log = logging.getLogger("epicsx")

DBE_VALUE, DBE_LOG, DBE_ALARM, DBE_PROPERTY = 1, 2, 4, 8

DBR_STRING, DBR_SHORT, DBR_FLOAT, DBR_ENUM, DBR_CHAR, DBR_LONG, DBR_DOUBLE = range(7)
DBR_PUT_ACKT, DBR_PUT_ACKS, DBR_STSACK_STRING, DBR_CLASS_NAME = range(35, 39)
DBR_ENUM_STR, DBR_CHAR_BYTES, DBR_CHAR_UNICODE, DBR_CHAR_STR = range(996, 1000)

FORMAT_RAW, FORMAT_TIME, FORMAT_CTRL = range(3)

ECA_SUCCESS = ECA_NORMAL = int(ECA.NORMAL)
ECA_TIMEOUT = int(ECA.TIMEOUT)
ECA_DISCONN = int(ECA.DISCONN)

ca_extra_fields = (
    *("name", "ok", "datatype", "element_count", "status", "severity", "timestamp", "raw_stamp"),
    *("units", "precision", *_dbr.ctrl_limits, "enums", "ackt", "acks", "update_count"),
)
"""The fields that a value may have beside itself."""

__all__ = [
    *("DBE_ALARM", "DBE_LOG", "DBE_PROPERTY", "DBE_VALUE"),
    *("DBR_CHAR", "DBR_CHAR_BYTES", "DBR_CHAR_STR", "DBR_CHAR_UNICODE", "DBR_CLASS_NAME"),
    *("DBR_DOUBLE", "DBR_ENUM", "DBR_ENUM_STR", "DBR_FLOAT", "DBR_LONG", "DBR_PUT_ACKS"),
    *("DBR_PUT_ACKT", "DBR_SHORT", "DBR_STRING", "DBR_STSACK_STRING"),
    *("ECA_DISCONN", "ECA_NORMAL", "ECA_SUCCESS", "ECA_TIMEOUT"),
    *("FORMAT_CTRL", "FORMAT_RAW", "FORMAT_TIME", "Subscription", "Timedout"),
    *("ca_array", "ca_extra_fields", "ca_float", "ca_info", "ca_int", "ca_nothing", "ca_str"),
    *("caget", "cainfo", "camonitor", "caput", "connect"),
]

_EVENTS = {
    FORMAT_RAW: DBE_VALUE,
    FORMAT_TIME: DBE_VALUE | DBE_ALARM,
    FORMAT_CTRL: DBE_VALUE | DBE_ALARM | DBE_PROPERTY,
}
_TEXTS = (DBR_CHAR_STR, DBR_CHAR_UNICODE, DBR_CHAR_BYTES)
_BY_CHAR = dict(
    zip(
        "?bBhHiIlLqQfd",
        (*(DBR_CHAR,) * 3, DBR_SHORT, DBR_ENUM, *(DBR_LONG,) * 6, DBR_FLOAT, DBR_DOUBLE),
        strict=True,
    )
)
"""The DBR type for each character that numpy has for a dtype."""

Timeout = float | tuple[float] | None


# --------------------------------------------------------------------- values


class _Augmented:
    """The fields of a value. Which there are is decided by the format asked for."""

    name: str
    ok: bool
    datatype: int
    element_count: int
    status: int
    severity: int
    timestamp: float
    raw_stamp: tuple[int, int]
    update_count: int

    @property
    def datetime(self) -> _datetime.datetime:
        """The time stamp as a local time."""
        return _datetime.datetime.fromtimestamp(self.timestamp)


class ca_str(_Augmented, str):
    """A text with fields."""

    def __pos__(self) -> str:
        return str(self)


class ca_int(_Augmented, int):
    """An integer with fields."""

    def __pos__(self) -> int:
        return int(self)


class ca_float(_Augmented, float):
    """A floating point number with fields."""

    def __pos__(self) -> float:
        return float(self)


class ca_bytes(_Augmented, bytes):
    """Characters as they are, with fields."""

    def __pos__(self) -> bytes:
        return bytes(self)


class ca_array(_Augmented, numpy.ndarray[Any, Any]):
    """An array with fields."""

    def __pos__(self) -> Any:
        return self.view(numpy.ndarray)


class ca_nothing(Exception):
    """That something was done, or why it failed: raised, or given back where ``throw=False``. True if it was done."""

    def __init__(self, name: str, errorcode: int = ECA_NORMAL, text: str = "") -> None:
        super().__init__(name, errorcode)
        self.name = name
        self.errorcode = int(errorcode)
        self.ok = self.errorcode == ECA_NORMAL
        self._text = text or _message(self.errorcode)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return f"{self.name}: {self._text}"

    def __repr__(self) -> str:
        return f"ca_nothing({self.name!r}, {self.errorcode})"


class Timedout(ca_nothing, TimeoutError):
    """Not done in the time given."""


def _nothing(error: BaseException, name: str) -> ca_nothing:
    """A failure as catools tells it."""
    if isinstance(error, ca_nothing):
        return error
    text = str(error)
    if isinstance(error, CATimeoutError):
        made: ca_nothing = Timedout(name, ECA_TIMEOUT, text)
    elif isinstance(error, CAError) and error.status is not None:
        made = ca_nothing(name, error.status, text)
    elif isinstance(error, (BadTypeError, TypeError)):
        made = ca_nothing(name, ECA.BADTYPE, text)
    elif isinstance(error, (BadValueError, ValueError)):
        made = ca_nothing(name, ECA.BADCOUNT, text)
    else:
        made = ca_nothing(name, ECA.INTERNAL, text)
    made.__cause__ = error
    return made


_SCALARS: dict[type, Any] = {str: ca_str, int: ca_int, float: ca_float}


def _native_of(datatype: Any, core: Core) -> int:
    """The DBR type, without a format, in which a value of a connected channel is asked for."""
    native = core.native_type
    if datatype is None:
        return native
    if isinstance(datatype, (int, DBR)) and not isinstance(datatype, bool):
        if datatype in _TEXTS:
            return DBR_CHAR
        if datatype == DBR_ENUM_STR:
            return DBR_STRING if native == DBR_ENUM else native
        if 0 <= datatype <= DBR_DOUBLE or datatype in (DBR_STSACK_STRING, DBR_CLASS_NAME):
            return int(datatype)
        raise BadTypeError(f"{datatype!r} is not a type to ask for", name=core.name)
    try:
        dtype = numpy.dtype(datatype)
    except TypeError:
        raise BadTypeError(f"{datatype!r} is not a type to ask for", name=core.name) from None
    found = DBR_STRING if dtype.kind in "SU" else _BY_CHAR.get(dtype.char)
    if found is None:
        raise BadTypeError(f"Channel Access has no type for {datatype!r}", name=core.name)
    return found


def _type_of(datatype: Any, format: int, core: Core) -> int:
    """The DBR type in which a value of a connected channel is asked for."""
    native = _native_of(datatype, core)
    if format == FORMAT_RAW or native > DBR_DOUBLE:
        return native
    offset = DBR.TIME_STRING if format == FORMAT_TIME or native == DBR_STRING else DBR.CTRL_STRING
    return native + offset


def _effective(datatype: Any, name: str) -> Any:
    return DBR_CHAR_STR if datatype is None and name.endswith("$") else datatype


def _count_of(count: int, core: Core) -> int:
    return core.count if count < 0 else min(count, core.count)


def _augmented(sample: Sample, core: Core, datatype: Any) -> Any:
    """A sample as a value with fields."""
    value = sample.value
    found: Any
    if datatype in _TEXTS:
        data = numpy.atleast_1d(numpy.asarray(value, numpy.uint8)).tobytes().partition(b"\0")[0]
        found = ca_bytes(data) if datatype == DBR_CHAR_BYTES else ca_str(bytes2str(data))
    elif sample.dbr_type == DBR_CLASS_NAME:
        found = ca_str(value if isinstance(value, str) else value[0])
    elif type(value) in _SCALARS:
        found = _SCALARS[type(value)](value)
    else:
        found = numpy.asarray(value, None if len(value) else _empty(sample)).view(ca_array)
    found.name, found.ok = core.name, True
    found.element_count = core.count
    found.datatype = native = _dbr.native_type(sample.dbr_type)
    if _dbr.TIME_STRING <= sample.dbr_type <= _dbr.TIME_DOUBLE:
        found.status, found.severity = sample.status, sample.severity
        found.raw_stamp = divmod(sample.timestamp_ns, 1_000_000_000)
        found.timestamp = round(sample.timestamp_ns / 1e9, 6)
    elif sample.control is not None:
        control = sample.control
        found.status, found.severity = sample.status, sample.severity
        if native == DBR_ENUM:
            found.enums = list(control.enum_strings or ())
        else:
            for limit in _dbr.ctrl_limits:
                setattr(found, limit, getattr(control, limit))
            found.units = control.units
            if control.precision is not None:
                found.precision = control.precision
    elif acknowledgement := sample.acknowledgement:
        found.status, found.severity = sample.status, sample.severity
        found.ackt, found.acks = acknowledgement
    return found


def _empty(sample: Sample) -> Any:
    return "U40" if _dbr.native_type(sample.dbr_type) == DBR_STRING else None


# ---------------------------------------------------------------------- calls


def _deadline(timeout: Timeout) -> float | None:
    """Until when to wait, on the monotonic clock."""
    if isinstance(timeout, tuple):
        return time.monotonic() + timeout[0] - time.time()
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _many(
    pvs: Any,
    timeout: Timeout,
    throw: bool,
    ask: Callable[[int, Core, float | None], Any],
    made: Callable[[Any, Core], Any],
) -> Any:
    """Connect to all, ask all, then wait for all answers: what is `made` of them, in the shape of `pvs`.

    ``ask(index, core, deadline)`` gives a request, or None if there is nothing to wait for. The first that failed is
    raised, or all that did are put in their places.
    """
    one = isinstance(pvs, str)
    deadline = _deadline(timeout)
    cores = functional._many([pvs] if one else list(pvs))

    def act(ready: list[int], _: float | None) -> list[Any]:
        sent: list[Any] = []
        for i in ready:
            try:
                sent.append(ask(i, cores[i], deadline))
            except (CAError, TypeError, ValueError) as error:
                sent.append(_nothing(error, cores[i].name))
        return [ended(cores[i], request) for i, request in zip(ready, sent, strict=True)]

    def ended(core: Core, request: Any) -> Any:
        if isinstance(request, ca_nothing):
            return request
        try:
            return made(None if request is None else request.result(_left(deadline)), core)
        except CAError as error:
            return _nothing(error, core.name)

    # A name that nobody has leaves the others their time.
    found = _channel._as_connected(cores, _left(deadline), "catools", act)
    for i, result in enumerate(found):
        if isinstance(result, CAError):
            found[i] = result = _not_connected(cores[i].name)
        if throw and isinstance(result, ca_nothing) and not result.ok:
            raise result
    return found[0] if one else found


def _not_connected(name: str) -> Timedout:
    return Timedout(name, ECA_TIMEOUT, f"{_message(ECA_TIMEOUT)}: it is not connected")


def caget(
    pvs: str | Sequence[str],
    timeout: Timeout = 5,
    datatype: Any = None,
    format: int = FORMAT_RAW,
    count: int = 0,
    throw: bool = True,
) -> Any:
    """The value of a PV, or a list of those of many, read together.

    Parameters
    ----------
    timeout : float, (float,) or None
        Seconds for all of it, connecting included; in a tuple an instant of ``time.time()``; None waits for ever.
    datatype : None, DBR_*, type or numpy dtype
        What to ask the server for; None is the record's own type.
    format : FORMAT_RAW, FORMAT_TIME, FORMAT_CTRL
        Which fields the value has: none but its name and type; alarm and time stamp; alarm and control data.
    count : int
        At most so many elements of an array; 0 is as many as it has now, -1 its full length.
    throw : bool
        Raise `ca_nothing` for the first that failed; False has it in the value's place.
    """

    def ask(i: int, core: Core, deadline: float | None) -> Any:
        wanted = _type_of(_effective(datatype, core.name), format, core)
        return core.get_async(wanted, _count_of(count, core), None)

    def made(sample: Any, core: Core) -> Any:
        return _augmented(sample, core, _effective(datatype, core.name))

    return _many(pvs, timeout, throw, ask, made)


def caput(
    pvs: str | Sequence[str],
    values: Any,
    repeat_value: bool = False,
    datatype: Any = None,
    wait: bool = False,
    timeout: Timeout = 5,
    callback: Callable[[ca_nothing], Any] | None = None,
    throw: bool = True,
) -> Any:
    """Write to a PV, or to each of many its value: a `ca_nothing` that is true, or a list of them.

    Parameters
    ----------
    repeat_value : bool
        Write the one value to all PVs, even if it could be taken for a list of values.
    datatype : None, DBR_*, type or numpy dtype
        What the value is coerced to first. ``DBR_PUT_ACKT`` and ``DBR_PUT_ACKS`` acknowledge alarms.
    wait : bool
        Return when the records have finished processing.
    callback : callable
        ``callback(ca_nothing)`` for each PV, on the dispatcher, when its record has finished or failed to.
    timeout, throw
        As of `caget`.
    """
    if isinstance(pvs, str):
        each = [values]
    elif repeat_value or isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        each = [values] * len(pvs)
    else:
        each = list(values)
        if len(each) != len(pvs):
            raise ValueError(f"{len(pvs)} PVs but {len(each)} values")

    def told(name: str, request: Any) -> None:
        error = request.exception(0)
        assert callback is not None
        callback(ca_nothing(name) if error is None else _nothing(error, name))

    def ask(i: int, core: Core, deadline: float | None) -> Any:
        sent = sent_as(datatype)
        as_is = datatype is None or datatype in (*_TEXTS, DBR_ENUM_STR)
        asked = None if as_is else datatype if sent >= 0 else _native_of(datatype, core)
        value = for_put(each[i], core, asked)
        if not wait and callback is None:
            core.put(value, False, _left(deadline), True, dbr_type=sent)
            return None
        done = None if callback is None else functools.partial(told, core.name)
        request = core.put_async(value, None, True, done, dbr_type=sent)
        return request if wait else None

    return _many(pvs, timeout, throw, ask, lambda _, core: ca_nothing(core.name))


class ca_info:
    """What is known of a PV's connection. Its text is a paragraph for people."""

    state_strings = ("never connected", "previously connected", "connected", "closed")
    datatype_strings = ("string", "short", "float", "enum", "char", "long", "double", "no access")

    def __init__(self, core: Core) -> None:
        self.ok = core.connected
        self.name = core.name
        self.state = int(core.state)
        self.host = core.host
        self.read = bool(core.read_access)
        self.write = bool(core.write_access)
        self.count = core.count
        self.datatype = core.native_type if core.native_type >= 0 else 7

    def __str__(self) -> str:
        access = ("no ", "")
        lines = (
            f"{self.name}:",
            f"    State: {self.state_strings[self.state]}",
            f"    Host: {self.host}",
            f"    Access: {access[self.read]}read, {access[self.write]}write",
            f"    Data type: {self.datatype_strings[self.datatype]}",
            f"    Count: {self.count}",
        )
        return "\n".join(lines)


def connect(
    pvs: str | Sequence[str],
    cainfo: bool = False,
    wait: bool = True,
    timeout: Timeout = 5,
    throw: bool = True,
) -> Any:
    """Connect to a PV, or to many together: a true `ca_nothing` for each, or a `ca_info` with `cainfo`.

    Parameters
    ----------
    wait : bool
        Wait for the connection; False begins it and never fails.
    timeout, throw
        As of `caget`.
    """

    def made(core: Core) -> Any:
        return ca_info(core) if cainfo else ca_nothing(core.name)

    if wait:
        return _many(pvs, timeout, throw, lambda *_: None, lambda _, core: made(core))
    found = [made(core) for core in functional._many([pvs] if isinstance(pvs, str) else list(pvs))]
    return found[0] if isinstance(pvs, str) else found


def cainfo(
    pvs: str | Sequence[str], wait: bool = True, timeout: Timeout = 5, throw: bool = True
) -> Any:
    """A `ca_info` for a PV, or for each of many; arguments as of `connect`."""
    return connect(pvs, True, wait, timeout, throw)


# ------------------------------------------------------------------- monitors


class Subscription:
    """One subscription of `camonitor`; ``close()`` ends it."""

    def __init__(
        self,
        name: str,
        callback: Callable[[Any], Any],
        events: int | None = None,
        datatype: Any = None,
        format: int = FORMAT_RAW,
        count: int = 0,
        all_updates: bool = False,
        notify_disconnect: bool = False,
        connect_timeout: Timeout = None,
    ) -> None:
        self.name = name
        self.callback = callback
        self.dropped_callbacks = 0
        """How many updates have been replaced by newer ones before the callback was called."""
        self._events = _EVENTS[format] if events is None else events
        self._datatype = _effective(datatype, name)
        self._format = format
        self._count = count
        self._queue = "all" if all_updates else "latest"
        self._notify = notify_disconnect
        self._lock = threading.Lock()
        self._calling = threading.RLock()
        self._type = -1
        self._subscription: _ca.Subscription | None = None
        core = _ca.core(name)
        self._core: Core | None = core
        self._timer: threading.Timer | None = None
        core.listen(self)
        core.context.pin(self)
        deadline = _deadline(connect_timeout)
        if deadline is not None and not core.connected:
            self._timer = threading.Timer(_left(deadline) or 0.0, self._too_late, (core,))
            self._timer.daemon = True
            self._timer.start()
        if core.connected:
            self._begin(core)

    def _begin(self, core: Core) -> None:
        """Subscribe, by the type that the channel has now."""
        try:
            wanted = _type_of(self._datatype, self._format, core)
        except CAError as error:
            self._tell(_nothing(error, self.name))
            return
        with self._lock:
            if self._core is None or (self._subscription is not None and wanted == self._type):
                return
            before, self._type = self._subscription, wanted
            count = _count_of(self._count, core)
            self._subscription = core.subscribe(
                self._on_event, self._events, count, self._queue, wanted
            )
        if before is not None:
            before.close()

    def _on_event(self, sample: Sample) -> None:
        core = self._core
        if core is None:
            return
        value = _augmented(sample, core, self._datatype)
        if self._queue == "latest":
            handle = self._subscription
            merged = self.dropped_callbacks if handle is None else handle.merged
            value.update_count = 1 + max(0, merged - self.dropped_callbacks)
            self.dropped_callbacks = merged
        self._tell(value)

    def _on_core_connection(self, connected: bool, native_type: int) -> None:
        core = self._core
        if connected and core is not None:
            self._stop_timer()
            self._begin(core)
        elif self._notify:
            self._tell(ca_nothing(self.name, ECA_DISCONN))

    def _on_core_access(self, read: bool, write: bool) -> None:
        pass

    def _too_late(self, core: Core) -> None:
        if not core.connected:
            self._tell(ca_nothing(self.name, ECA_DISCONN))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tell(self, value: Any) -> None:
        with self._calling:
            if self._core is not None:
                try:
                    self.callback(value)
                except Exception:
                    log.exception("callback of '%s' failed", self.name)

    def close(self) -> None:
        """End it: the callback is not called any more. May be called again."""
        with self._lock:
            # What is closed and kept holds no channel.
            core, self._core = self._core, None
            handle, self._subscription = self._subscription, None
        self._stop_timer()
        if handle is not None:
            handle.close()
        if core is not None:
            core.unlisten(self)
            core.context.unpin(self)


def camonitor(
    pvs: str | Sequence[str],
    callback: Callable[..., Any],
    events: int | None = None,
    datatype: Any = None,
    format: int = FORMAT_RAW,
    count: int = 0,
    all_updates: bool = False,
    notify_disconnect: bool = False,
    connect_timeout: Timeout = None,
) -> Any:
    """Have ``callback(value)`` called for every update of a PV, or ``callback(value, index)`` for those of many.

    Gives back a `Subscription`, or a list of them. The PVs need not be connected yet.

    Parameters
    ----------
    events : int
        Which changes are updates: of DBE_VALUE, DBE_LOG, DBE_ALARM, DBE_PROPERTY; None goes by `format`.
    datatype, format, count
        As of `caget`.
    all_updates : bool
        Every update, also when they come faster than the callback takes them; False gives the newest then, and its
        ``update_count`` says for how many it stands.
    notify_disconnect : bool
        Have the callback told of a lost connection by a `ca_nothing`.
    connect_timeout : float, (float,) or None
        Have it told so also if there is no connection by then.
    """
    rest = (events, datatype, format, count, all_updates, notify_disconnect, connect_timeout)
    if isinstance(pvs, str):
        return Subscription(pvs, callback, *rest)

    def made(name: str, index: int) -> Subscription:
        return Subscription(name, lambda value: callback(value, index), *rest)

    return [made(name, index) for index, name in enumerate(pvs)]
