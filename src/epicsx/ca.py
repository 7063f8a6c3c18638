"""Channel Access by functions of a channel id, as pyepics' ``epics.ca`` has it, over epicsx's own core.

The module's capitals are live settings: they are read when needed, and programs assign to them.

Threads
    Any thread may call anything, also inside callbacks. pyepics' contexts are names here: one preemptive context serves
    the process, and a thread that has none is attached to the first one when it needs it.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as numpy

from . import _ca, _chids, _facts, _groups, _messages, _polling, _texts, _values, dbr
from . import _dispatch as _dispatch  # the delivering threads
from ._chids import GET_PENDING as GET_PENDING
from ._chids import Empty as Empty
from ._chids import _CacheItem as _CacheItem
from ._chids import _GetPending as _GetPending
from ._deliver import delivering
from ._facts import promote_fieldtype as promote_fieldtype
from ._messages import find_lib as find_lib
from ._messages import find_libca as find_libca
from ._messages import find_libCom as find_libCom
from ._texts import NOT_A_CHID, UNEXPECTED_CHID, failed, refusal
from ._texts import PySEVCHK as PySEVCHK
from ._texts import withSEVCHK as withSEVCHK
from ._values import put_callback as put_callback
from .enums import ECA
from .errors import (
    AccessError,
    DisconnectedError,
)
from .errors import CASeverityException as CASeverityException
from .errors import ChannelAccessException as ChannelAccessException
from .errors import ChannelAccessGetFailure as ChannelAccessGetFailure
from .errors import (
    message as _message,
)
from .utils import IOENCODING as IOENCODING
from .utils import bytes2str as bytes2str
from .utils import clib_search_path as clib_search_path
from .utils import str2bytes as str2bytes
from .utils import strjoin as strjoin

if TYPE_CHECKING:
    from ._ca import Core
    from ._sample import Sample

log = logging.getLogger("epicsx")

F = TypeVar("F", bound=Callable[..., Any])

HAS_NUMPY = True
"""False has arrays answered as ctypes arrays."""

libca: Any = None
"""None before first use, then a truthy object on which C's names resolve."""

initial_context: int | None = None
"""The context that ``use_initial_context`` attaches: that of the first use."""

ca_printf: Any = ""

PREEMPTIVE_CALLBACK = True
"""Whether callbacks run by themselves; False, before first use, has ``poll`` and waiting calls run them."""

AUTO_CLEANUP = True
"""Kept for programs that set it: Channel Access ends with the program, after the program's own exit handlers."""

WITH_CA_MESSAGES = False
"""Kept for programs that set it: libca's messages go to the logger ``epicsx``."""

AUTOMONITOR_MAXLENGTH = 65536
"""PVs with fewer elements than this are monitored unless told otherwise."""

DEFAULT_CONNECTION_TIMEOUT = 2.0
"""Seconds that a connection is waited for unless told otherwise."""

DEFAULT_SUBSCRIPTION_MASK = dbr.DBE_VALUE | dbr.DBE_ALARM
"""Which changes are events unless told otherwise."""

_LIBCA_FINALIZED = object()

_FOR_EVER = 1e8  # seconds

_cache = _chids.cache
_chid_cache = _chids.by_number
_clear_cache_callbacks: dict[int, Callable[[], Any]] = {}

_local = threading.local()
_last_context = 0
_many: dict[str, Core] = {}  # the channels of bulk reads and writes, least recently used first


def write(msg: str, newline: bool = True, flush: bool = True) -> None:
    """Print a message on standard output."""
    sys.stdout.write(f"{msg}\n" if newline else msg)
    if flush:
        sys.stdout.flush()


# ------------------------------------------------------------------ start, end


def initialize_libca() -> Any:
    """Start Channel Access, and give back what stands for the library. May be called again."""
    global libca, initial_context
    with _chids.lock:
        if libca is None or libca is _LIBCA_FINALIZED:
            if not PREEMPTIVE_CALLBACK and not _ca.started():
                _polling.begin()
            _ca.context()
            libca = _messages.LibCA(globals())
            initial_context = _new_context()
            _local.context = initial_context
    return libca


def _new_context() -> int:
    global _last_context
    with _chids.lock:
        _last_context += 1
        return _last_context


def finalize_libca(maxtime: float = 10.0) -> None:
    """End Channel Access: all channels are cleared, and functions of this module answer None from now on."""
    global libca, initial_context
    if libca is None or libca is _LIBCA_FINALIZED:
        return
    _clear_everything()
    _ca.shutdown(min(maxtime, 1.0))
    libca = _LIBCA_FINALIZED
    initial_context = None
    _local.context = None


def _ready() -> bool:
    if libca is None:
        initialize_libca()
    return libca is not _LIBCA_FINALIZED


def _after_fork() -> None:
    # What was made before the fork belongs to the parent; the child's first use starts anew.
    global libca, initial_context, _local
    _chids.lock = threading.RLock()
    _chids.forget()
    _many.clear()
    _local = threading.local()
    if libca is not _LIBCA_FINALIZED:
        libca = None
    initial_context = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ----------------------------------------------------------------- decorators


def _finalized() -> None:
    failed(lambda: ChannelAccessException(_texts.FINALIZED), None)


def withCA(fcn: F) -> F:
    """Have Channel Access started before `fcn` runs; after ``finalize_libca`` it answers None."""

    @functools.wraps(fcn)
    def wrapper(*args: Any, **kwds: Any) -> Any:
        if not _ready():
            _finalized()
            return None
        return fcn(*args, **kwds)

    return wrapper  # type: ignore[return-value]


def _with_chid(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (dbr.chid_t(args[0]), *args[1:]) if args and isinstance(args[0], int) else args


def withCHID(fcn: F) -> F:
    """Check that the first argument is a chid before `fcn` runs, which gets a number as a ``dbr.chid_t``."""

    @functools.wraps(fcn)
    def wrapper(*args: Any, **kwds: Any) -> Any:
        if not _ready():
            _finalized()
            return None
        if not args and "chid" not in kwds:
            return fcn(*args, **kwds)  # a TypeError that names what is missing
        chid = args[0] if args else kwds["chid"]
        if not isinstance(chid, (dbr.chid_t, int)):
            raise ChannelAccessException(
                f"{fcn.__name__}: {NOT_A_CHID} {chid} {type(chid)} args {list(args)} kwargs {kwds}!"
            )
        _chids.find(chid)
        return fcn(*_with_chid(args), **kwds)

    return wrapper  # type: ignore[return-value]


def _connecting(fcn: F, must: bool) -> F:
    @functools.wraps(fcn)
    def wrapper(*args: Any, **kwds: Any) -> Any:
        if not _ready():
            _finalized()
            return None
        chid = args[0] if args else kwds.get("chid")
        item = _chids.find(chid, fcn.__name__)
        if not item.conn:
            timeout = kwds.get("timeout")
            if timeout is None:
                timeout = DEFAULT_CONNECTION_TIMEOUT
            if not connect_channel(chid, timeout=timeout) and must:
                text = _texts.connect_timed_out(fcn.__name__, item.pvname, timeout)
                raise ChannelAccessException(text, name=item.pvname)
        return fcn(*_with_chid(args), **kwds)

    return wrapper  # type: ignore[return-value]


def withConnectedCHID(fcn: F) -> F:
    """Have the channel connected before `fcn` runs, or raise."""
    return _connecting(fcn, True)


def withMaybeConnectedCHID(fcn: F) -> F:
    """Have the channel connected before `fcn` runs, if it can be in time."""
    return _connecting(fcn, False)


def withInitialContext(fcn: F) -> F:
    """Attach the first context for as long as `fcn` runs."""

    @functools.wraps(fcn)
    def wrapper(*args: Any, **kwds: Any) -> Any:
        before = current_context()
        _local.context = initial_context
        try:
            return fcn(*args, **kwds)
        finally:
            _local.context = before

    return wrapper  # type: ignore[return-value]


# ------------------------------------------------------------------- contexts


def current_context() -> int | None:
    """The number of this thread's context; None if it is attached to none."""
    if libca is None:
        initialize_libca()
    if libca is _LIBCA_FINALIZED:
        return None
    found: int | None = getattr(_local, "context", None)
    if found is None and delivering():
        return initial_context  # not kept: clear_cache() may make another one
    return found


def _context() -> int:
    """The context of this thread: the first one if it had none."""
    found = current_context()
    if found is None:
        found = _local.context = initial_context
    if found is None:
        raise RuntimeError(_texts.CONTEXT_UNSET)
    return found


@withCA
def context_create(ctx: int | None = None) -> int:
    """Make a context and attach this thread to it, if it has none."""
    if current_context() is None:
        _local.context = _new_context()
    return dbr.ECA_NORMAL


def create_context(ctx: int | None = None) -> None:
    """Make a context and attach this thread to it, the first one by starting Channel Access."""
    context_create(ctx)
    global initial_context
    if initial_context is None:
        initial_context = current_context()


@withCA
def context_destroy() -> int:
    """End this thread's context: its channels are cleared."""
    context = current_context() or 0
    for item in list(_cache.get(context, {}).values()):
        _clear(item)
    _cache.pop(context, None)
    with _chids.lock:  # PVs whose chid nobody has asked for
        left = [core for core, users in _chids.elsewhere.items() if context in users]
    for core in left:
        _leave(core, context)
    _local.context = None
    return 0


def destroy_context() -> int:
    """End this thread's context: its channels are cleared."""
    return context_destroy()


@withCA
def attach_context(context: int | None) -> int:
    """Attach this thread to a context; an ECA code, 424 if it has one already."""
    if current_context() is not None:
        return dbr.ECA_ISATTACHED
    _local.context = context
    return dbr.ECA_NORMAL


@withCA
@withSEVCHK
def use_initial_context() -> int:
    """Attach this thread to the first context; CASeverityException if it has another one."""
    if current_context() == initial_context:
        return dbr.ECA_NORMAL
    return attach_context(initial_context)


@withCA
def detach_context() -> int:
    """Detach this thread from its context."""
    _local.context = None
    return 0


class CAThread(threading.Thread):
    """A thread that begins by attaching itself to the first context."""

    def run(self) -> None:
        """Attach, then do what was asked for."""
        use_initial_context()
        threading.Thread.run(self)


# ---------------------------------------------------------------------- cache


def get_cache(pvname: str) -> _CacheItem | None:
    """What is known of a channel of this thread's context, by name; None if there is none."""
    return _cache[_context()].get(pvname)


def _get_cache_by_chid(chid: Any) -> _CacheItem:
    """What is known of a channel."""
    return _chids.find(chid)


def show_cache(print_out: bool = True) -> str | None:
    """Print a table of all channels; with `print_out` False give it back."""
    rows = [
        (item.pvname, item.chid, context, item.conn)
        for context, names in list(_cache.items())
        for item in list(names.values())
    ]
    text = _texts.cache_table(rows)
    if not print_out:
        return text
    write(text)
    return None


def _call_clear_cache_callbacks() -> None:
    for callback in list(_clear_cache_callbacks.values()):
        callback()


def _clear_everything() -> None:
    _call_clear_cache_callbacks()
    for item in list(_chid_cache.values()):
        _clear(item, everywhere=True)
    _chids.forget()
    _groups.forget()
    _many.clear()


def clear_cache() -> None:
    """Clear all channels, and go on in a new context."""
    global initial_context
    if libca is None or libca is _LIBCA_FINALIZED:
        _call_clear_cache_callbacks()
        _chids.forget()
        return
    _clear_everything()
    initial_context = _local.context = _new_context()


def register_clear_cache(callback: Callable[[], Any] | None) -> None:
    """Have ``callback()`` run by ``clear_cache``; None is ignored, what else cannot be called is a RuntimeError."""
    if callable(callback):
        _clear_cache_callbacks[id(callback)] = callback
    elif callback is not None:
        raise RuntimeError(f"Cannot register type {type(callback)}. Callable required.")


def _clear(item: _CacheItem, everywhere: bool = False) -> None:
    core = item._core or item._weak()
    _chids.drop(item)
    if core is None:
        return
    if everywhere:
        _many.pop(item.pvname, None)
        _end(core)
        return
    for handle in list(item.handles or ()):
        handle.close()
    core.unlisten(item)
    _leave(core, item.context or 0)


def _end(core: Core) -> None:
    """End a channel for everybody. PVs hear nothing more of it, not even what is already on its way to them."""
    for listener in core.heard():
        if hasattr(listener, "_clear_auto_monitor_subscription"):
            listener._clear_auto_monitor_subscription()
    core.clear()


def _leave(core: Core, context: int) -> None:
    """A context has done with a channel, which ends unless another one uses it too: all contexts stand on one core."""
    with _chids.lock:
        users = _chids.elsewhere.get(core, set())
        users.discard(context)
        if context == initial_context:
            core.at_home = False
        shared = bool(users) or core.at_home
    if not shared:
        _many.pop(core.name, None)
        _end(core)
        return
    for listener in core.heard():
        if getattr(listener, "context", None) == context and hasattr(listener, "disconnect"):
            listener.disconnect()


# ------------------------------------------------------------------- channels


def _used(core: Core) -> Core:
    """Note that this thread's context uses a channel."""
    context = _context()
    if context == initial_context:
        core.at_home = True
    else:
        with _chids.lock:
            _chids.elsewhere.setdefault(core, set()).add(context)
    return core


def _core(name: str, priority: int = 0) -> Core:
    """The channel of that name, for this thread's context."""
    if not name or "\0" in name:
        raise refusal("create_channel", ECA.BADSTR, name)
    return _used(_ca.core(name, priority))


@withCA
def create_channel(
    pvname: str,
    connect: bool = False,
    auto_cb: bool = True,
    callback: Callable[..., Any] | None = None,
    priority: int = 0,
) -> Any:
    """The id of the channel of that name in this thread's context; searching starts at once.

    Parameters
    ----------
    connect : bool
        Wait for the connection, up to ``DEFAULT_CONNECTION_TIMEOUT``.
    auto_cb : bool
        Not used.
    callback : callable
        ``callback(pvname=, chid=, conn=)`` at each change of the connection; at once if it is connected already.
    priority : int, 0 to 99
        A channel of another priority than 0 is one of its own, on a circuit that the server may serve first.
    """
    if not isinstance(pvname, (str, bytes)):
        raise TypeError(f"a PV name is a text, not {pvname!r}")
    name = bytes2str(pvname)
    core = _core(name, priority)
    item = _chids.entry(_context(), name, core, keep=True)
    if callable(callback) and callback not in item.callbacks:
        item.listen()
        item.callbacks.append(callback)
        if item.conn:
            item.run(callback, pvname=name, chid=item.chid_int, conn=True)
    if connect:
        connect_channel(item.chid)
    return item.chid


@withCHID
def connect_channel(chid: Any, timeout: float | None = None, verbose: bool = False) -> bool:
    """Whether the channel is connected, now or within `timeout` seconds (``DEFAULT_CONNECTION_TIMEOUT``)."""
    item = _chids.find(chid)
    if timeout is None:
        timeout = DEFAULT_CONNECTION_TIMEOUT
    if verbose:
        write(f" connect channel -> {item.chid!r} {state(chid)} {dbr.CS_CONN} ")
    try:
        connected = bool(item.core.wait_connected(timeout))
    except DisconnectedError:  # cleared meanwhile
        raise ChannelAccessException(UNEXPECTED_CHID, name=item.pvname) from None
    _polling.run()
    if not connected:
        item.failures += 1
        item.ts = time.time()
    return connected


@withCHID
def clear_channel(chid: Any) -> int:
    """End the channel, for everybody who uses it; in another context than the first, for this context."""
    _clear(_chids.find(chid))
    return dbr.ECA_NORMAL


@withCHID
def replace_access_rights_event(chid: Any, callback: Callable[..., Any] | None = None) -> None:
    """Have ``callback(read, write)`` called at once, if connected, and when the access rights change."""
    item = _chids.find(chid)
    if callback is not None:
        item.listen()
        item.access_event_callback.append(callback)
        if item.conn:
            item.run(callback, item.core.read_access, item.core.write_access)


def _chid_to_int(chid: Any) -> int:
    """The number of a chid, whether it is an object or the number itself."""
    return _chids.to_int(chid)


name = withCHID(_facts.name)
host_name = withCHID(_facts.host_name)
element_count = withCHID(_facts.element_count)
read_access = withCHID(_facts.read_access)
write_access = withCHID(_facts.write_access)
field_type = withCHID(_facts.field_type)
state = withCHID(_facts.state)


def isConnected(chid: Any) -> bool:
    """Whether the channel is connected."""
    return state(chid) == dbr.CS_CONN


@withCA
def access(chid: Any) -> str:
    """The access rights as text: ``'no access'``, ``'read-only'``, ``'write-only'``, ``'read/write'``."""
    rights = read_access(chid) + 2 * write_access(chid)
    return ("no access", "read-only", "write-only", "read/write")[rights]


promote_type = withCHID(_facts.promote_type)


# ------------------------------------------------------------------- messages


@withCA
def flush_io() -> int:
    """Send what has been asked for."""
    _ca.context().flush()
    return dbr.ECA_NORMAL


def message(status: int) -> str:
    """The text of an ECA code."""
    return _message(status)


@withCA
def version() -> str:
    """The version of the Channel Access protocol."""
    return _ca.ca_version()


@withCA
def pend_io(timeout: float = 1.0) -> int:
    """Send what has been asked for, and wait for it: ``ECA_NORMAL``; ``ECA_TIMEOUT`` if it takes longer.

    Waited for are the reads without ``wait`` and the writes with a callback, with a `timeout` of 0 for as long as it
    takes. Other calls wait by themselves.
    """
    _ca.context().flush()
    return dbr.ECA_NORMAL if _polling.finish(timeout or _FOR_EVER) else dbr.ECA_TIMEOUT


@withCA
def pend_event(timeout: float = 1.0e-5) -> int:
    """Send what has been asked for and wait `timeout` seconds, with 0 for ever, while updates arrive."""
    return _pend(timeout or _FOR_EVER)


def _pend(timeout: float) -> int:
    _ca.context().flush()
    if _polling.on:
        _polling.run(timeout)
    else:
        time.sleep(max(0.0, timeout))
    return dbr.ECA_TIMEOUT


@withCA
def poll(evt: float = 1.0e-5, iot: float = 1.0) -> int:
    """Send what has been asked for and wait `evt` seconds, while updates arrive: ``ECA_NORMAL``.

    What ``pend_io`` would wait for is not waited for, so there is nothing that `iot` could limit.
    """
    _pend(evt)
    return dbr.ECA_NORMAL


@withCA
def test_io() -> bool:
    """Whether all that ``pend_io`` would wait for has been answered."""
    _polling.run()
    return not _polling.under_way()


@withCA
def replace_printf_handler(writer: Callable[..., Any] | None = None) -> int:
    """Have ``writer(text)`` called for each message of libca, on the delivering thread; None is for silence.

    The logger ``epicsx.libca`` gets them all the same.
    """
    global ca_printf
    _messages.replace_writer(writer)
    ca_printf = "" if writer is None else writer
    return dbr.ECA_NORMAL


@withCA
def enable_ca_messages(writer: Any = "stderr") -> None:
    """Have libca's messages written to ``'stderr'``, to ``'stdout'``, or by a function; None is for silence."""
    replace_printf_handler(_messages.named_writer(writer))


@withCA
def disable_ca_messages() -> None:
    """Have libca's messages written no more."""
    replace_printf_handler(None)


add_exception_event = withCA(_messages.add_exception_event)
remove_exception_event = withCA(_messages.remove_exception_event)


@withCA
def client_status(context: Any, level: int, print_out: bool = True) -> Any:
    """Print how Channel Access is doing; with `print_out` False give the text back. See ``_messages.status_text``."""
    text = _messages.status_text(context, level)
    if not print_out:
        return text
    write(text)
    return dbr.ECA_NORMAL


# --------------------------------------------------------------------- reading


def _answer(
    item: _CacheItem, sample: Sample, as_string: bool, as_numpy: bool, count: int | None = None
) -> dict[str, Any]:
    value = _values.first(sample, count or 0)
    if as_string:
        n = min(count or item.core.count, item.core.count)
        value = _as_string(value, item.chid, n, sample.dbr_type)
    elif not (as_numpy and HAS_NUMPY):
        value = _values.as_ctypes(value, sample.dbr_type)
    return {**_values.metadata(sample), "value": value}


def _no_connection(item: _CacheItem, timeout: float | None) -> None:
    seconds = DEFAULT_CONNECTION_TIMEOUT if timeout is None else timeout
    _texts.not_connected(item.pvname, seconds)


def _connected(item: _CacheItem, timeout: float | None) -> bool:
    return item.conn or bool(connect_channel(item.chid, timeout))


@withCA
def get_with_metadata(
    chid: Any,
    ftype: int | None = None,
    count: int | None = None,
    wait: bool = True,
    timeout: float | None = None,
    as_string: bool = False,
    as_numpy: bool = True,
) -> dict[str, Any] | None:
    """The value and what its DBR type brings with it, read from the server; None if there is no answer in time."""
    item = _chids.find(chid, "get")
    if not _connected(item, timeout):
        _no_connection(item, timeout)
        return None
    core = item.core
    asked = _facts.type_asked("get", core, ftype)
    if count is not None and count < 0:
        raise refusal("get", ECA.BADCOUNT, item.pvname)
    n = min(count or 0, core.count)
    try:
        request = core.get_async(asked, n)
    except AccessError as error:
        raise _texts.refused("get", error) from None
    except DisconnectedError as error:
        if wait:
            raise _texts.get_failure(error, item.chid) from None
        return None
    sample = _values.complete(request, core, timeout, item.chid) if wait else None
    if sample is not None or not item.waits_for(asked, n):
        # what did not come in time may be had of get_complete() all the same, later
        item.remember(asked, n, request if sample is None else sample)
    return None if sample is None else _answer(item, sample, as_string, as_numpy, count)


def get(
    chid: Any,
    ftype: int | None = None,
    count: int | None = None,
    wait: bool = True,
    timeout: float | None = None,
    as_string: bool = False,
    as_numpy: bool = True,
) -> Any:
    """The value, read from the server; None if there is no answer in time."""
    found = get_with_metadata(chid, ftype, count, wait, timeout, as_string, as_numpy)
    return None if found is None else found["value"]


@withCA
def get_complete_with_metadata(
    chid: Any,
    ftype: int | None = None,
    count: int | None = None,
    timeout: float | None = None,
    as_string: bool = False,
    as_numpy: bool = True,
) -> dict[str, Any] | None:
    """The answer to the last ``get`` of that type, waited for or not; None if there is none in time."""
    item = _chids.find(chid, "get_complete")
    asked = _facts.type_asked("get_complete", item.core, ftype)
    pending = item.answer(asked, min(count or 0, item.core.count))
    if pending is None:
        text = "get_complete without initial get() call"
        failed(lambda: ChannelAccessException(text, name=item.pvname), None)
        _texts.warn_user(text)
        return None
    sample = _values.complete(pending, item.core, timeout, item.chid)
    return None if sample is None else _answer(item, sample, as_string, as_numpy, count)


def get_complete(
    chid: Any,
    ftype: int | None = None,
    count: int | None = None,
    timeout: float | None = None,
    as_string: bool = False,
    as_numpy: bool = True,
) -> Any:
    """The value of a ``get(wait=False)`` with the same arguments; None if there is none in time."""
    found = get_complete_with_metadata(chid, ftype, count, timeout, as_string, as_numpy)
    return None if found is None else found["value"]


def _as_string(val: Any, chid: Any, count: int, ftype: int) -> str:
    """A value as text: a CHAR array as characters, an enum by its state, other arrays by their size."""
    return _values.as_string(
        val, ftype, count, AUTOMONITOR_MAXLENGTH, lambda: get_enum_strings(chid)
    )


def _unpack(
    chid: Any, data: Any, count: int | None = None, ftype: int | None = None, as_numpy: bool = True
) -> Any:
    """A value from what ``sg_get`` gave, or from a C array of ``dbr.Map``; other values stay as they are.

    Parameters
    ----------
    chid : chid or None
        Its channel, from which `count` and `ftype` come where they are not given.
    """
    known = None if chid is None else _chids.find(chid).core
    n = known.count if known is not None else 1
    if ftype is None:
        ftype = int(known.native_type) if known is not None else dbr.INT
    return _values.unpack(data, ftype, count or 0, n, as_numpy and HAS_NUMPY)


def _fields(chid: Any, use_ctrl: bool, timeout: float, warn: bool) -> dict[str, Any] | None:
    item = _chids.find(chid, "get_ctrlvars" if use_ctrl else "get_timevars")
    if not _connected(item, timeout):
        _no_connection(item, timeout)
        return None
    native = int(item.core.native_type)
    ftype = promote_fieldtype(native, use_time=not use_ctrl, use_ctrl=use_ctrl)
    sample = _values.read(item.core, ftype, 1, timeout, lambda: item.chid, warn)
    return None if sample is None else _values.metadata(sample)


@withCA
def get_ctrlvars(chid: Any, timeout: float = 5.0, warn: bool = True) -> dict[str, Any] | None:
    """Units, limits, precision, state names, with the alarm; None if there is no answer in time."""
    return _fields(chid, True, timeout, warn)


@withCA
def get_timevars(chid: Any, timeout: float = 5.0, warn: bool = True) -> dict[str, Any] | None:
    """The time stamp, with the alarm; None if there is no answer in time."""
    return _fields(chid, False, timeout, warn)


def get_timestamp(chid: Any) -> float:
    """The time stamp in seconds since 1970; 0 if it could not be read."""
    found: float = (get_timevars(chid) or {}).get("timestamp", 0)
    return found


def get_severity(chid: Any) -> int:
    """The alarm severity; 0 if it could not be read."""
    found: int = (get_timevars(chid) or {}).get("severity", 0)
    return found


def get_precision(chid: Any) -> int | None:
    """The display precision; None where the record has none."""
    if field_type(chid) not in (dbr.FLOAT, dbr.DOUBLE):
        return None
    return (get_ctrlvars(chid) or {}).get("precision")


def get_enum_strings(chid: Any) -> tuple[str, ...] | None:
    """The names of an enum's states; None for other records."""
    if field_type(chid) != dbr.ENUM:
        return None
    return (get_ctrlvars(chid) or {}).get("enum_strs")


# --------------------------------------------------------------------- writing


@withCA
def put(
    chid: Any,
    value: Any,
    wait: bool = False,
    timeout: float = 30,
    callback: Callable[..., Any] | None = None,
    callback_data: Any = None,
    ftype: int | None = None,
) -> int | None:
    """Write a value: 1; -1 if waiting for its completion timed out; None, and an error logged, if it failed.

    ``callback(pvname=, data=callback_data)`` is called when the record has finished; the items of `callback_data` are
    its keywords if it is a dict. `ftype` is the type to send it in: a native one, by default the channel's own, or
    ``dbr.PUT_ACKT`` and ``dbr.PUT_ACKS``, which acknowledge alarms.
    """
    item = _chids.find(chid, "put")
    if not item.conn and not connect_channel(chid, timeout):
        text = _texts.connect_timed_out("put", item.pvname, timeout)
        raise ChannelAccessException(text, name=item.pvname)
    told = put_callback(item.pvname, callback, callback_data)
    asked = -2 if ftype is None else ftype
    if asked not in (-2, *range(dbr.DOUBLE + 1), dbr.PUT_ACKT, dbr.PUT_ACKS):
        raise refusal("put", ECA.BADTYPE, item.pvname)
    return _values.send_put(item.core, value, wait, timeout, told, asked)


# --------------------------------------------------------------- subscriptions


@withCA
def create_subscription(
    chid: Any,
    use_time: bool = False,
    use_ctrl: bool = False,
    ftype: int | None = None,
    mask: int | None = None,
    callback: Callable[..., Any] | None = None,
    count: int = 0,
    timeout: float | None = None,
) -> tuple[Any, Any, Any]:
    """Have ``callback(value=, pvname=, chid=, ftype=, count=, ...)`` called for every update.

    It goes on until ``clear_subscription`` of the third of the three things returned, kept or not.
    """
    item = _chids.find(chid, "create_subscription")
    if timeout is None:
        timeout = DEFAULT_CONNECTION_TIMEOUT
    if ftype is None and not _connected(item, timeout):
        text = _texts.connect_timed_out("create_subscription", item.pvname, timeout)
        raise ChannelAccessException(text, name=item.pvname)
    native = int(item.core.native_type) if ftype is None else ftype
    promoted = promote_fieldtype(native, use_time=use_time, use_ctrl=use_ctrl)
    asked = _facts.type_asked("create_subscription", item.core, promoted)

    def event(sample: Sample) -> None:
        if callback is not None:
            callback(
                value=_values.value_of(sample),
                ftype=sample.dbr_type,
                count=sample.count,
                chid=item.chid_int,
                pvname=item.pvname,
                **_values.metadata(sample),
            )

    handle = item.core.subscribe(event, mask or DEFAULT_SUBSCRIPTION_MASK, count or 0, "all", asked)
    with _chids.lock:
        if item.handles is None:
            item.handles = weakref.WeakSet()
        item.handles.add(handle)
    return event, item.chid, handle


@withCA
def clear_subscription(event_id: Any) -> int:
    """End one subscription."""
    if not isinstance(event_id, _ca.Subscription):
        raise ChannelAccessException(f"clear_subscription: {event_id!r} is not a subscription")
    event_id.close()
    return dbr.ECA_NORMAL


# --------------------------------------------------------- synchronous groups


sg_create = withCA(_groups.sg_create)
sg_delete = withCA(_groups.sg_delete)
sg_block = withCA(_groups.sg_block)
sg_test = withCA(_groups.sg_test)
sg_reset = withCA(_groups.sg_reset)


def _in_group(function: str, chid: Any) -> _CacheItem:
    if not isinstance(chid, dbr.chid_t):
        raise ChannelAccessException(f"{NOT_A_CHID}!")
    return _chids.find(chid, function)


@withCA
def sg_get(
    gid: Any, chid: Any, ftype: int | None = None, as_numpy: bool = True, as_string: bool = True
) -> Any:
    """The value, read within a group, as text unless `as_string` is False; None if there is no answer in time."""
    item = _in_group("sg_get", chid)
    sample = _groups.get(gid, item.core, _facts.type_asked("sg_get", item.core, ftype), chid)
    return None if sample is None else _answer(item, sample, as_string, as_numpy)["value"]


@withCA
def sg_put(gid: Any, chid: Any, value: Any) -> int:
    """Write a value within a group; ``sg_block`` waits until the record has finished."""
    return _groups.put(gid, _in_group("sg_put", chid).core, value)
