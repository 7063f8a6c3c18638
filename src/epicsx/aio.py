"""Channel Access for asyncio: what aioca has, and `updates`, on the channels that the rest of epicsx uses.

``from epicsx.aio import caget, caput, camonitor, connect, cainfo`` stands for the same line with ``aioca``: signatures,
datatypes, formats, values with fields of their own, `CANothing` for what failed. docs/asyncio.md has the differences.

Threads
    Everything is for the running event loop, and any number of loops may run, each in its thread; a value, an answer
    and a callback come in the thread of the loop that asked. libca's threads wake a loop once for all that came since
    it looked last. No dispatcher has a part in it: a callback elsewhere that blocks delays no loop.

Lifetime
    A subscription of `camonitor` goes on until its ``close()``, kept or not; `Updates` end with their last reference.
    Channels stay open for the loop, until it ends or `purge_channel_caches`. What waits for a loop that is closed is
    lost, logged and counted: `lost`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from . import _aioloop, _bulk, _ca, _request
from ._aiochannel import Updates as Updates
from ._aiochannel import aconnect as aconnect
from ._aiochannel import aget as aget
from ._aiochannel import aput as aput
from ._aiochannel import updates as updates
from ._aioloop import TURN, End, current
from ._aioloop import LoopCounts as LoopCounts
from ._aioloop import counts as counts
from ._aioloop import lost as lost
from ._augmented import DBE_ALARM as DBE_ALARM
from ._augmented import DBE_LOG as DBE_LOG
from ._augmented import DBE_PROPERTY as DBE_PROPERTY
from ._augmented import DBE_VALUE as DBE_VALUE
from ._augmented import DBR_CHAR as DBR_CHAR
from ._augmented import DBR_CHAR_BYTES as DBR_CHAR_BYTES
from ._augmented import DBR_CHAR_STR as DBR_CHAR_STR
from ._augmented import DBR_CHAR_UNICODE as DBR_CHAR_UNICODE
from ._augmented import DBR_CLASS_NAME as DBR_CLASS_NAME
from ._augmented import DBR_DOUBLE as DBR_DOUBLE
from ._augmented import DBR_ENUM as DBR_ENUM
from ._augmented import DBR_ENUM_STR as DBR_ENUM_STR
from ._augmented import DBR_FLOAT as DBR_FLOAT
from ._augmented import DBR_LONG as DBR_LONG
from ._augmented import DBR_PUT_ACKS as DBR_PUT_ACKS
from ._augmented import DBR_PUT_ACKT as DBR_PUT_ACKT
from ._augmented import DBR_SHORT as DBR_SHORT
from ._augmented import DBR_STRING as DBR_STRING
from ._augmented import DBR_STSACK_STRING as DBR_STSACK_STRING
from ._augmented import (
    EVENTS,
    FORMAT_RAW,
    LIMITS,
    Nothing,
    Timeout,
    augmented,
    count_of,
    effective,
    put_type,
    put_value,
    type_of,
)
from ._augmented import FORMAT_CTRL as FORMAT_CTRL
from ._augmented import FORMAT_TIME as FORMAT_TIME
from ._augmented import Info as CAInfo
from ._augmented import ca_array as ca_array
from ._augmented import ca_bytes as ca_bytes
from ._augmented import ca_float as ca_float
from ._augmented import ca_int as ca_int
from ._augmented import ca_str as ca_str
from .enums import ECA
from .errors import BadTypeError, BadValueError, CAError, loop_ending, message

if TYPE_CHECKING:
    from ._ca import Core

__all__ = [
    *("DBE_ALARM", "DBE_LOG", "DBE_PROPERTY", "DBE_VALUE"),
    *("DBR_CHAR", "DBR_CHAR_BYTES", "DBR_CHAR_STR", "DBR_CHAR_UNICODE", "DBR_CLASS_NAME"),
    *("DBR_DOUBLE", "DBR_ENUM", "DBR_ENUM_STR", "DBR_FLOAT", "DBR_LONG", "DBR_PUT_ACKS"),
    *("DBR_PUT_ACKT", "DBR_SHORT", "DBR_STRING", "DBR_STSACK_STRING"),
    *("FORMAT_CTRL", "FORMAT_RAW", "FORMAT_TIME"),
    *("AugmentedValue", "CAInfo", "CANothing", "ChannelInfo", "LoopCounts", "Subscription"),
    *("Updates", "ca_array", "ca_bytes", "ca_extra_fields", "ca_float", "ca_int", "ca_str"),
    *("caget", "cainfo", "camonitor", "caput", "connect", "counts", "get_channel_infos"),
    *("lost", "purge_channel_caches", "updates"),
]

log: logging.Logger = logging.getLogger("epicsx")

PVs = list[str] | tuple[str, ...]

DEFAULT_TIMEOUT = 5.0
EVERY_UPDATE = 250_000

ca_extra_fields: list[str] = [
    *("name", "ok", "datatype", "element_count", "severity", "status", "raw_stamp", "timestamp"),
    *("datetime", "units", *LIMITS, "precision", "enums"),
]
"""The fields that a value may have beside itself."""


class CANothing(Nothing):
    """That something was done, or why it failed: raised, or given back where ``throw=False``. True if it was done.

    ``errorcode`` is the ECA code, ``name`` the PV's; ``ok`` as its truth. As a `CAError` it has ``status``, too.
    """


class ChannelInfo(NamedTuple):
    """What `get_channel_infos` knows of a channel."""

    name: str
    connected: bool
    subscriber_count: int


def _nothing(error: CAError, name: str) -> CANothing:
    """A failure as aioca tells it; what the caller did wrong is raised as it is."""
    if error.status is None:
        raise error
    made = CANothing(name, error.status, str(error))
    made.__cause__ = error
    return made


def _too_late(core: Core, what: str, more: str = "") -> CANothing:
    code = int(ECA.TIMEOUT)
    why = "" if core.connected else f"; it is not connected{more}"
    return CANothing(core.name, code, f"{message(code)}: {what}{why}")


# ------------------------------------------------------------------------ one


async def _one(
    name: str,
    timeout: Timeout,
    throw: bool,
    what: str,
    act: Callable[[End, Core, float | None], Awaitable[Any]],
) -> Any:
    """What `act` gives for a connected channel, or why not."""
    end = current()
    deadline = end.deadline(timeout)
    core = end.channel(name)
    try:
        if not core.connected and not await end.connected([core], deadline):
            raise _too_late(core, what)
        found = await act(end, core, deadline)
        if found is None:
            raise _too_late(core, what)
        return found
    except CAError as error:
        failed = error if isinstance(error, CANothing) else _nothing(error, name)
        if throw:
            raise failed from failed.__cause__
        return failed


async def _many(
    names: Sequence[str],
    timeout: Timeout,
    throw: bool,
    what: str,
    act: Callable[[End, list[Core], list[int], float | None], Awaitable[list[Any]]],
) -> list[Any]:
    """What `act` gives for connected channels, or why not, in the place of each, all under one deadline."""
    end = current()
    deadline = end.deadline(timeout)
    cores = [end.channel(name) for name in names]
    found: list[Any] = [None] * len(cores)
    todo = list(range(len(cores)))
    patience = 0.1
    while todo:
        # Those that are connected do not wait for those that are not.
        ready = [i for i in todo if cores[i].connected]
        if ready:
            try:
                made = await act(end, [cores[i] for i in ready], ready, deadline)
            except CAError as error:
                if not end.closed:
                    raise
                made = [error] * len(ready)
            for i, result in zip(ready, made, strict=True):
                if isinstance(result, BaseException) and not isinstance(result, CANothing):
                    if not isinstance(result, CAError):
                        raise result
                    result = _nothing(result, cores[i].name)
                if throw and isinstance(result, CANothing) and not result.ok:
                    raise result from result.__cause__
                found[i] = result
            todo = [i for i in todo if found[i] is None]
        if not todo:
            break
        now = end.loop.time()
        if deadline is not None and now >= deadline:
            break
        soon = now + patience
        patience = min(2 * patience, 1.0)
        try:
            await end.connected(
                [cores[i] for i in todo], soon if deadline is None else min(soon, deadline)
            )
        except CAError as error:
            if not end.closed:
                raise
            for i in todo:
                found[i] = _nothing(error, cores[i].name)
                if throw:
                    raise found[i] from error
            return found
    missing = f" ({len(todo)} of {len(cores)} PVs)" if throw else ""
    for i in todo:
        found[i] = _too_late(cores[i], what, missing)
        if throw:
            raise found[i]
    return found


# ---------------------------------------------------------------------- caget


@overload
async def caget(
    pvs: str,
    datatype: Any = ...,
    format: int = ...,
    count: int = ...,
    *,
    timeout: Timeout = ...,
    throw: bool = ...,
) -> Any: ...
@overload
async def caget(
    pvs: PVs,
    datatype: Any = ...,
    format: int = ...,
    count: int = ...,
    *,
    timeout: Timeout = ...,
    throw: bool = ...,
) -> list[Any]: ...
async def caget(
    pvs: str | Sequence[str],
    datatype: Any = None,
    format: int = FORMAT_RAW,
    count: int = 0,
    *,
    timeout: Timeout = DEFAULT_TIMEOUT,
    throw: bool = True,
) -> Any:
    """The value of a PV, or a list of those of many, read with one flush.

    Parameters
    ----------
    datatype : None, DBR_*, type or numpy dtype
        What to ask the server for; None is the record's own type.
    format : FORMAT_RAW, FORMAT_TIME, FORMAT_CTRL
        Which fields the value has: none but its name and type; alarm and time stamp; alarm and control data.
    count : int
        At most so many elements of an array; 0 is as many as it has now, -1 its full length.
    timeout : float, (float,) or None
        Seconds for all of it, connecting included; in a tuple an instant of ``time.time()``; None waits for ever.
    throw : bool
        Raise `CANothing` for what failed, in a list the first; False has it in the value's place.

    Raises
    ------
    CANothing
        It could not be connected or read in time, or the server refused.
    BadTypeError, BadValueError
        For a `datatype`, `format` or `count` that cannot be, also without `throw`; nothing has been sent.
    """

    def asked(core: Core) -> int:
        return type_of(effective(datatype, core.name), format, core)

    async def get(end: End, core: Core, deadline: float | None) -> Any:
        request = core.get_async(asked(core), count_of(count, core), None, None, None, end.inbox)
        if not await end.wait(request, deadline):
            return None
        return augmented(request.result(0.0), core, effective(datatype, core.name))

    async def get_all(
        end: End, cores: list[Core], _: list[int], deadline: float | None
    ) -> list[Any]:
        if datatype is None and format in (FORMAT_RAW, FORMAT_TIME) and not long_texts:
            types: Any = -2 if format == FORMAT_RAW else -1
        else:
            types = [asked(core) for core in cores]
        lengths = [core.count for core in cores] if count < 0 else count
        sent = _bulk.get_all_async(cores, types, lengths, None, end.inbox)
        await end.wait(sent.request, deadline)
        return [
            found
            if isinstance(found, CAError)
            else augmented(found, core, effective(datatype, core.name) if long_texts else datatype)
            for core, found in zip(cores, sent.collect(_seconds(timeout)), strict=True)
        ]

    if isinstance(pvs, str):
        return await _one(pvs, timeout, throw, "get", get)
    pvs = list(pvs)  # an iterator, too
    long_texts = any(name.endswith("$") for name in pvs)
    return await _many(pvs, timeout, throw, "get", get_all)


def _seconds(timeout: Timeout) -> float | None:
    return 0.0 if isinstance(timeout, tuple) else timeout


# ---------------------------------------------------------------------- caput


@overload
async def caput(
    pvs: str,
    values: Any,
    datatype: Any = ...,
    wait: bool = ...,
    *,
    timeout: Timeout = ...,
    throw: bool = ...,
) -> CANothing: ...
@overload
async def caput(
    pvs: PVs,
    values: Any,
    repeat_value: Any = ...,
    datatype: Any = ...,
    wait: bool = ...,
    *,
    timeout: Timeout = ...,
    throw: bool = ...,
) -> list[CANothing]: ...
async def caput(  # the third argument is another one for a list, as in aioca
    pvs: str | Sequence[str],
    values: Any,
    *args: Any,
    timeout: Timeout = DEFAULT_TIMEOUT,
    throw: bool = True,
    **kwds: Any,
) -> Any:
    """Write to a PV, or to each of many its value: a `CANothing` that is true, or a list of them.

    Parameters
    ----------
    repeat_value : bool
        With a list of PVs alone, and there the third argument: write the one value to all PVs, even if it could be
        taken for a list of values.
    datatype : None, DBR_*, type or numpy dtype
        What the value is made into before it is sent; None is the record's own type, and for a text a text, of which
        the server makes a number or a state. ``DBR_PUT_ACKT`` and ``DBR_PUT_ACKS`` acknowledge alarms.
    wait : bool
        Wait until the records have finished processing.
    timeout, throw
        As of `caget`. Arrays of more than 256 KiB are copied and handed over by a thread, so that the loop goes on
        where the network is slow, and what follows to the same server after them. What is not handed over in time is
        not sent.

    Raises
    ------
    CANothing
        Not in time, no write access, or the server refused.
    BadTypeError, BadValueError
        A value that cannot be made into what is sent, also without `throw`; it has not been sent.
    """
    if isinstance(pvs, str):
        return await _put_one(pvs, values, *args, timeout=timeout, throw=throw, **kwds)
    return await _put_many(list(pvs), values, *args, timeout=timeout, throw=throw, **kwds)


async def _put_one(
    name: str,
    value: Any,
    datatype: Any = None,
    wait: bool = False,
    *,
    timeout: Timeout,
    throw: bool,
) -> Any:
    async def put(end: End, core: Core, deadline: float | None) -> Any:
        sent = put_type(datatype, value, core)
        done = await end.put(core, put_value(value, sent, core), sent, wait, deadline)
        return CANothing(name) if done else None

    return await _one(name, timeout, throw, "put", put)


async def _put_many(
    names: Sequence[str],
    values: Any,
    repeat_value: bool = False,
    datatype: Any = None,
    wait: bool = False,
    *,
    timeout: Timeout,
    throw: bool,
) -> Any:
    one = isinstance(values, (str, bytes)) or not hasattr(values, "__iter__")
    if repeat_value or one or getattr(values, "ndim", 1) == 0:
        each = [values] * len(names)
    else:
        each = list(values)
        if len(each) != len(names):
            raise BadValueError(f"{len(names)} PVs but {len(each)} values")

    async def large(end: End, core: Core, value: Any, sent: int, deadline: float | None) -> Any:
        try:
            done = await end.put(core, value, sent, wait, deadline)
        except CAError as error:
            return error
        return CANothing(core.name) if done else _too_late(core, "put")

    async def put_all(
        end: End, cores: list[Core], places: list[int], deadline: float | None
    ) -> list[Any]:
        types = [put_type(datatype, each[i], core) for i, core in zip(places, cores, strict=True)]
        made = [
            put_value(each[i], sent, core)
            for i, sent, core in zip(places, types, cores, strict=True)
        ]
        big: list[int] = []
        held_up: set[Core] = set()
        for k, (core, value) in enumerate(zip(cores, made, strict=True)):
            if core in held_up or end.by_thread(core, value):
                big.append(k)
                held_up.add(core)
        apart = set(big)
        small = [k for k in range(len(made)) if k not in apart] if big else range(len(made))
        found: list[Any] = [None] * len(made)
        few = ([cores[k] for k in small], [made[k] for k in small], [types[k] for k in small])
        under_way = None
        if wait and small:
            under_way = _bulk.put_all_async(*few, None, end.inbox)
        elif small:
            done = _bulk.put_all(few[0], few[1], False, 0.0, False, few[2])
            for k, result in zip(small, done, strict=True):
                found[k] = result
        if big:
            tasks = [large(end, cores[k], made[k], types[k], deadline) for k in big]
            for k, result in zip(big, await asyncio.gather(*tasks), strict=True):
                found[k] = result
        if under_way is not None:
            await end.wait(under_way.request, deadline)
            for k, result in zip(small, under_way.collect(_seconds(timeout)), strict=True):
                found[k] = result
        return [
            CANothing(core.name) if result is None else result
            for core, result in zip(cores, found, strict=True)
        ]

    return await _many(names, timeout, throw, "put", put_all)


# -------------------------------------------------------------------- connect


@overload
async def connect(
    pvs: str, wait: bool = ..., *, timeout: Timeout = ..., throw: bool = ...
) -> CANothing: ...
@overload
async def connect(
    pvs: PVs, wait: bool = ..., *, timeout: Timeout = ..., throw: bool = ...
) -> list[CANothing]: ...
async def connect(
    pvs: str | Sequence[str],
    wait: bool = True,
    *,
    timeout: Timeout = DEFAULT_TIMEOUT,
    throw: bool = True,
) -> Any:
    """Connect to a PV, or to many together: a true `CANothing` for each.

    Parameters
    ----------
    wait : bool
        Wait for the connection; False begins it and never fails.
    timeout, throw
        As of `caget`.
    """
    return await _connect(pvs, wait, timeout, throw, lambda core: CANothing(core.name))


@overload
async def cainfo(
    pvs: str, wait: bool = ..., *, timeout: Timeout = ..., throw: bool = ...
) -> CAInfo: ...
@overload
async def cainfo(
    pvs: PVs, wait: bool = ..., *, timeout: Timeout = ..., throw: bool = ...
) -> list[CAInfo]: ...
async def cainfo(
    pvs: str | Sequence[str],
    wait: bool = True,
    *,
    timeout: Timeout = DEFAULT_TIMEOUT,
    throw: bool = True,
) -> Any:
    """A `CAInfo` for a PV, or for each of many; arguments as of `connect`."""
    return await _connect(pvs, wait, timeout, throw, CAInfo)


async def _connect(
    pvs: str | Sequence[str],
    wait: bool,
    timeout: Timeout,
    throw: bool,
    made: Callable[[Core], Any],
) -> Any:
    async def one(_: End, core: Core, __: float | None) -> Any:
        return made(core)

    async def all_of(_: End, cores: list[Core], __: list[int], ___: float | None) -> list[Any]:
        return [made(core) for core in cores]

    if not wait:
        end = current()
        found = [made(end.channel(name)) for name in ([pvs] if isinstance(pvs, str) else pvs)]
        return found[0] if isinstance(pvs, str) else found
    if isinstance(pvs, str):
        return await _one(pvs, timeout, throw, "connect", one)
    return await _many(list(pvs), timeout, throw, "connect", all_of)


def get_channel_infos() -> list[ChannelInfo]:
    """What is known of each channel that the running loop keeps open."""
    end = current()
    subscribed = [monitor.name for monitor in end.monitors]
    return [
        ChannelInfo(name, core.connected, subscribed.count(name))
        for name, core in end.channels.items()
    ]


def purge_channel_caches() -> None:
    """Close all subscriptions of `camonitor`, of all loops, and let the channels go that are kept open for them."""
    for end in _aioloop.all_ends():
        for monitor in list(end.monitors):
            monitor.close()
        end.channels.clear()


# ------------------------------------------------------------------ camonitor


class Subscription:
    """One subscription of `camonitor`; ``close()`` ends it."""

    OPENING, OPEN, CLOSED = range(3)

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
        if not callable(callback):
            raise BadTypeError(f"'{name}': a callback must be callable", name=name)
        if format not in EVENTS:
            raise BadValueError(f"'{name}': there is no format {format!r}", name=name)
        self._end = end = current()
        self.name = name
        self.callback = callback
        self.all_updates = all_updates
        self.notify_disconnect = notify_disconnect
        self.state: int = self.OPENING
        self._events = EVENTS[format] if events is None else int(events)
        self._datatype = effective(datatype, name)
        self._format = format
        self._count = count
        self._type = -1
        self._before = 0  # dropped by handles that have been replaced
        self._merged = 0
        self._handle: _request.LoopSubscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._request: _request.Request | None = None
        self._core: Core | None = end.channel(name)
        self._lock = threading.Lock()
        deadline = end.deadline(connect_timeout)
        if not self._core.connected:
            self._request = _request.connect_async([self._core], self._connected, end.inbox)
        end.monitors.add(self)
        if end.closed:  # by another thread, which may not have found it there
            self.close()
            raise loop_ending(name)
        if self._request is None:
            end.loop.call_soon(self._begin)  # a mistake in the arguments is told where all is told
        elif deadline is not None:
            self._timer = end.loop.call_at(deadline, self._too_late)

    @property
    def dropped_callbacks(self) -> int:
        """How many updates have been replaced by newer ones before the callback was called, or found no room."""
        return self._before + self._lost_now()

    def _lost_now(self) -> int:
        return 0 if self._handle is None else self._handle.lost_so_far

    # ---- beginning, in the loop's thread

    def _connected(self, _: Any) -> None:
        self._request = None
        if self._core is not None and self._core.connected:
            self._begin()
        elif self._core is not None and self._core.state != _aioloop.CLOSED:  # lost again at once
            self._request = _request.connect_async([self._core], self._connected, self._end.inbox)

    def _too_late(self) -> None:
        self._timer = None
        core = self._core
        if core is not None and not core.connected:
            self._tell(_too_late(core, "camonitor"))

    def _begin(self) -> None:
        """Subscribe, by the type that the channel has now."""
        core = self._core
        self._stop_timer()
        if core is None:
            return
        try:
            wanted = type_of(self._datatype, self._format, core)
            if self._handle is not None and wanted == self._type:
                return
            queue: Any = EVERY_UPDATE if self.all_updates else "latest"
            made = _request.LoopSubscription(
                core,
                self._end.inbox,
                self._ready,
                None,
                self._events,
                count_of(self._count, core),
                queue,
                wanted,
            )
        except CAError:
            log.exception("subscription of '%s' failed, and is closed", self.name)
            self.close()
            return
        with self._lock:
            closed = self._core is None
            if not closed:
                self._before += self._lost_now()
                before, self._handle, self._type = self._handle, made, wanted
                self._merged = 0
                self.state = self.OPEN
        if closed:  # by another thread, meanwhile
            made.close()
        elif before is not None:
            before.close()

    # ---- updates, in the loop's thread

    def _ready(self) -> None:
        if self._task is None:
            self._end.due(self)
        # else it takes on when the callback that it awaits has ended

    def turn(self) -> int:
        """Call back for some of what waits: how many times. The loop's `End` asks for it."""
        if self._task is not None:
            return 0
        tell = self._tell
        for _ in range(TURN):
            value = self._next()
            if value is None or tell(value):
                return 0
        return TURN

    def _next(self) -> Any:
        """What the callback is to be told next; None when nothing waits."""
        while (handle := self._handle) is not None:
            item = handle.take()
            if item is None:
                return None
            if item is True:
                self._begin()  # it may have come back as another type
            elif item is False:
                if self.notify_disconnect:
                    return CANothing(self.name, int(ECA.DISCONN))
            elif (core := self._core) is not None:
                try:
                    value = augmented(item, core, self._datatype)
                except Exception:
                    log.exception("an update of '%s' cannot be told", self.name)
                    continue
                if not self.all_updates:
                    merged = handle.lost_so_far
                    value.update_count = 1 + merged - self._merged
                    self._merged = merged
                return value
        return None

    def _tell(self, value: Any) -> bool:
        """Call back; True if that goes on by itself."""
        try:
            result = self.callback(value)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a user's: counted, logged
            _ca.callback_failed(self._core, self.name)
            return False
        if result is not None and inspect.isawaitable(result):
            self._task = task = self._end.loop.create_task(self._go_on(result))

            def over(_: Any) -> None:
                if inspect.iscoroutine(result):  # of a task that is cancelled before it began
                    result.close()
                if task.cancelled():
                    self._cancelled()
                elif task.exception() is not None:  # Ctrl-C: the rest is told once the loop goes on
                    self._end.due(self)

            task.add_done_callback(over)
            return True
        return False

    def _cancelled(self) -> None:
        """The program has cancelled the task that awaits the callback: it wants no more."""
        self._task = None
        if self._core is not None:
            waited = self.end()
            text = "subscription of '%s' is closed, as its task was cancelled; %d updates waited"
            log.info(text, self.name, waited)

    async def _go_on(self, result: Awaitable[Any]) -> None:
        """Await the callback, and those for what came meanwhile, one after the other."""
        told = 0
        try:
            while True:
                try:
                    await result
                except Exception:  # noqa: BLE001 - a user's: counted, logged
                    _ca.callback_failed(self._core, self.name)
                except asyncio.CancelledError:
                    if _told_to_end():
                        raise
                    _ca.callback_failed(self._core, self.name)
                told += 1
                if told % TURN == 0:
                    await asyncio.sleep(0)
                value = self._next()
                if value is None:
                    return
                try:
                    again = self.callback(value)
                except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a user's: counted, logged
                    _ca.callback_failed(self._core, self.name)
                    again = None
                result = again if inspect.isawaitable(again) else asyncio.sleep(0)
        finally:
            self._task = None

    # ---- end

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """End it: no callback begins any more, not of what waits either. Idempotent; any thread."""
        self.end()

    def end(self) -> int:
        """As ``close``; how many updates waited."""
        with self._lock:
            core, self._core = self._core, None
            if core is None:
                return 0
            self._before += self._lost_now()
            self.state = self.CLOSED
            handle, self._handle = self._handle, None
        self._end.monitors.discard(self)
        waited = 0
        if handle is not None:
            before = handle.stats.dropped
            handle.close()
            waited = handle.stats.dropped - before
        request, self._request = self._request, None
        if request is not None:
            request.cancel()
        if asyncio._get_running_loop() is self._end._loop():
            self._end_tasks()
        elif (loop := self._end._loop()) is not None:
            _aioloop.later(loop, self._end_tasks)
        return waited

    def _end_tasks(self) -> None:
        self._stop_timer()
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def __repr__(self) -> str:
        state = ("opening", "open", "closed")[self.state]
        return f"<Subscription {self.name!r}, {state}>"


def _told_to_end() -> bool:
    """Whether the running task itself is cancelled, not something that it awaits; unknown, and true, in Python 3.10."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0


@overload
def camonitor(
    pvs: str,
    callback: Callable[[Any], Any],
    events: int | None = ...,
    datatype: Any = ...,
    format: int = ...,
    count: int = ...,
    all_updates: bool = ...,
    notify_disconnect: bool = ...,
    connect_timeout: Timeout = ...,
) -> Subscription: ...
@overload
def camonitor(
    pvs: PVs,
    callback: Callable[[Any, int], Any],
    events: int | None = ...,
    datatype: Any = ...,
    format: int = ...,
    count: int = ...,
    all_updates: bool = ...,
    notify_disconnect: bool = ...,
    connect_timeout: Timeout = ...,
) -> list[Subscription]: ...
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
    callback : callable
        A function, or a coroutine function, which is awaited before it is called again. It runs in the loop's thread.
        One that raises is logged, and its subscription goes on; where the task of a coroutine is cancelled, it is
        closed.
    events : int
        Which changes are updates: of DBE_VALUE, DBE_LOG, DBE_ALARM, DBE_PROPERTY; None goes by `format`.
    datatype, format, count
        As of `caget`.
    all_updates : bool
        Every update, also when they come faster than the callback takes them; False gives the newest then, and counts
        the others in ``dropped_callbacks``; its ``update_count`` says for how many it stands. Of all, 250 000 may wait,
        of arrays 64 MiB; what finds no room is counted there, too.
    notify_disconnect : bool
        Have the callback told of a lost connection by a `CANothing`, after the updates of before.
    connect_timeout : float, (float,) or None
        Have it told so, once, also if there is no connection by then.
    """
    rest = (events, datatype, format, count, all_updates, notify_disconnect, connect_timeout)
    if isinstance(pvs, str):
        return Subscription(pvs, callback, *rest)
    if not callable(callback):
        raise BadTypeError("a callback must be callable")

    def made(name: str, index: int) -> Subscription:
        return Subscription(name, lambda value: callback(value, index), *rest)

    return [made(name, index) for index, name in enumerate(pvs)]
