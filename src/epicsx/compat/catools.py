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

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _ca, _channel, functional
from .._augmented import DBE_ALARM as DBE_ALARM
from .._augmented import DBE_LOG as DBE_LOG
from .._augmented import DBE_PROPERTY as DBE_PROPERTY
from .._augmented import DBE_VALUE as DBE_VALUE
from .._augmented import DBR_CHAR as DBR_CHAR
from .._augmented import DBR_CHAR_BYTES as DBR_CHAR_BYTES
from .._augmented import DBR_CHAR_STR as DBR_CHAR_STR
from .._augmented import DBR_CHAR_UNICODE as DBR_CHAR_UNICODE
from .._augmented import DBR_CLASS_NAME as DBR_CLASS_NAME
from .._augmented import DBR_DOUBLE as DBR_DOUBLE
from .._augmented import DBR_ENUM as DBR_ENUM
from .._augmented import DBR_ENUM_STR as DBR_ENUM_STR
from .._augmented import DBR_FLOAT as DBR_FLOAT
from .._augmented import DBR_LONG as DBR_LONG
from .._augmented import DBR_PUT_ACKS as DBR_PUT_ACKS
from .._augmented import DBR_PUT_ACKT as DBR_PUT_ACKT
from .._augmented import DBR_SHORT as DBR_SHORT
from .._augmented import DBR_STRING as DBR_STRING
from .._augmented import DBR_STSACK_STRING as DBR_STSACK_STRING
from .._augmented import (
    EVENTS,
    LIMITS,
    TEXTS,
    Nothing,
    Timeout,
    augmented,
    count_of,
    effective,
    monotonic_deadline,
    native_of,
    type_of,
)
from .._augmented import FORMAT_CTRL as FORMAT_CTRL
from .._augmented import FORMAT_RAW as FORMAT_RAW
from .._augmented import FORMAT_TIME as FORMAT_TIME
from .._augmented import Info as ca_info
from .._augmented import ca_array as ca_array
from .._augmented import ca_float as ca_float
from .._augmented import ca_int as ca_int
from .._augmented import ca_str as ca_str
from ..enums import ECA
from ..errors import BadTypeError, BadValueError, CAError, CATimeoutError
from ..errors import message as _message
from ._puts import for_put, sent_as

if TYPE_CHECKING:
    from .._ca import Core
    from .._sample import Sample

log = logging.getLogger("epicsx")

ECA_SUCCESS = ECA_NORMAL = int(ECA.NORMAL)
ECA_TIMEOUT = int(ECA.TIMEOUT)
ECA_DISCONN = int(ECA.DISCONN)

ca_extra_fields = (
    *("name", "ok", "datatype", "element_count", "status", "severity", "timestamp", "raw_stamp"),
    *("units", "precision", *LIMITS, "enums", "ackt", "acks", "update_count"),
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


class ca_nothing(Nothing):
    """That something was done, or why it failed: raised, or given back where ``throw=False``. True if it was done."""


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


# ---------------------------------------------------------------------- calls


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
    deadline = monotonic_deadline(timeout)
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
        if isinstance(result, CAError) and not isinstance(result, ca_nothing):
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
        wanted = type_of(effective(datatype, core.name), format, core)
        return core.get_async(wanted, count_of(count, core), None)

    def made(sample: Any, core: Core) -> Any:
        return augmented(sample, core, effective(datatype, core.name))

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
        as_is = datatype is None or datatype in (*TEXTS, DBR_ENUM_STR)
        asked = None if as_is else datatype if sent >= 0 else native_of(datatype, core)
        value = for_put(each[i], core, asked)
        if not wait and callback is None:
            core.put(value, False, _left(deadline), True, dbr_type=sent)
            return None
        done = None if callback is None else functools.partial(told, core.name)
        request = core.put_async(value, None, True, done, dbr_type=sent)
        return request if wait else None

    return _many(pvs, timeout, throw, ask, lambda _, core: ca_nothing(core.name))


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
        self._events = EVENTS[format] if events is None else events
        self._datatype = effective(datatype, name)
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
        deadline = monotonic_deadline(connect_timeout)
        if deadline is not None and not core.connected:
            self._timer = threading.Timer(_left(deadline) or 0.0, self._too_late, (core,))
            self._timer.daemon = True
            self._timer.start()
        if core.connected:
            self._begin(core)

    def _begin(self, core: Core) -> None:
        """Subscribe, by the type that the channel has now."""
        try:
            wanted = type_of(self._datatype, self._format, core)
        except CAError as error:
            self._tell(_nothing(error, self.name))
            return
        with self._lock:
            if self._core is None or (self._subscription is not None and wanted == self._type):
                return
            before, self._type = self._subscription, wanted
            count = count_of(self._count, core)
            self._subscription = core.subscribe(
                self._on_event, self._events, count, self._queue, wanted
            )
        if before is not None:
            before.close()

    def _on_event(self, sample: Sample) -> None:
        core = self._core
        if core is None:
            return
        value = augmented(sample, core, self._datatype)
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
                except Exception:  # noqa: BLE001 - a user's: counted, logged
                    _ca.callback_failed(self._core, self.name)

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
