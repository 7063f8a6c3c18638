"""pyepics' idea of a value: what a sample becomes in its interface, and how a put answers."""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from math import log10
from typing import TYPE_CHECKING, Any

import numpy

from . import _polling, dbr
from ._deliver import delivering, text_of
from ._request import Request
from ._texts import failed, get_failure, get_timed_out, refused, warn_user
from .errors import (
    AccessError,
    BadTypeError,
    BadValueError,
    CATimeoutError,
    DisconnectedError,
    PutError,
    ServerError,
)
from .utils import bytes2str

if TYPE_CHECKING:
    from ._ca import Core
    from ._dbr import Control
    from ._sample import Sample

log = logging.getLogger("epicsx")

_LIMITS = dbr.ctrl_limits


def value_of(sample: Sample) -> Any:
    """The value by pyepics' rules: bare where one element came, but CHAR and STRING arrays stay sequences."""
    if sample.dbr_type < dbr.STSACK_STRING:
        return sample.plain()
    found = sample.value  # what a record says of itself: one text, however many elements it has
    return found[0] if isinstance(found, list) else found


def first(sample: Sample, n: int) -> Any:
    """The value, of which at most `n` elements are wanted; 0: all."""
    value = value_of(sample)
    if not 0 < n < sample.count or not hasattr(value, "__len__"):
        return value
    single = n == 1 and dbr.base_type(sample.dbr_type) not in (dbr.STRING, dbr.CHAR)
    return value[0].item() if single else value[:n]


def as_ctypes(value: Any, ftype: int) -> Any:
    """An array as pyepics has it without numpy: a ctypes array with memory of its own."""
    native = dbr.base_type(ftype)
    if native == dbr.STRING or not hasattr(value, "__len__"):
        return value
    return (dbr.Map[native] * len(value)).from_buffer_copy(
        numpy.ascontiguousarray(value, dbr.NP_Map[native])
    )


def time_fields(sample: Sample) -> dict[str, Any]:
    """Alarm and time stamp of a sample, by pyepics' names."""
    seconds, nanoseconds = divmod(sample.timestamp_ns, 1_000_000_000)
    return {
        "status": sample.status,
        "severity": sample.severity,
        "timestamp": seconds + 1e-6 * (nanoseconds // 1000),
        "posixseconds": float(seconds),
        "nanoseconds": nanoseconds,
    }


def control_fields(control: Control, alarm: dict[str, Any] | None = None) -> dict[str, Any]:
    """Control data, and an alarm among them, by pyepics' names and in its order: only what the type has."""
    found = {
        n: v for n in (*_LIMITS, "precision", "units") if (v := getattr(control, n)) is not None
    }
    found.update(alarm or {})
    if control.enum_strings:
        found["enum_strs"] = control.enum_strings
    return found


def metadata(sample: Sample) -> dict[str, Any]:
    """What a DBR type brings beside its value, by pyepics' names."""
    ftype = sample.dbr_type
    if dbr.TIME_STRING <= ftype <= dbr.TIME_DOUBLE:
        return time_fields(sample)
    if ftype < dbr.STS_STRING or ftype == dbr.CLASS_NAME:
        return {}
    found = {"status": sample.status, "severity": sample.severity}
    if control := sample.control:
        return control_fields(control, found)
    if acknowledgement := sample.acknowledgement:
        found["ackt"], found["acks"] = acknowledgement
    return found


def as_string(
    value: Any, ftype: int, count: int, limit: int, names: Callable[[], tuple[str, ...] | None]
) -> str:
    """A value's text as pyepics makes it: characters of a CHAR array, an enum's state, the size of other arrays.

    Parameters
    ----------
    count : int
        The record's number of elements.
    limit : int
        A CHAR array of so many elements is no text any more.
    names : callable
        Gives the state names of an enum.
    """
    native = dbr.base_type(ftype)
    if native == dbr.CHAR and hasattr(value, "__len__") and count < limit:
        return str(text_of(value, native)).strip()
    if native == dbr.ENUM and count == 1:
        known = names() or ()
        return str(known[value]) if 0 <= value < len(known) else str(value)
    return f"<array count={count}, type={ftype}>" if count > 1 else str(value)


def unpack(value: Any, ftype: int, n: int, count: int, as_numpy: bool) -> Any:
    """A value, from the C array of native elements that ``dbr.cast_args`` gives; other values stay as they are.

    Parameters
    ----------
    n : int
        How many elements are wanted; 0: all there are.
    count : int
        The record's number of elements: where it is 1 the value is bare.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = value[1]  # the header comes first
    if not isinstance(value, ctypes.Array):
        return value
    n = min(n, len(value)) or len(value)
    native = dbr.base_type(ftype)
    if native == dbr.STRING:
        texts = [bytes2str(element.value).rstrip() for element in value[:n]]
        return texts[0] if n == count == 1 else texts
    if n == 1 and not (native == dbr.CHAR and count > 1):
        return value[0]
    kind: Any = dbr.Map[native] * n
    copy = kind.from_buffer_copy(value)
    return numpy.ctypeslib.as_array(copy) if as_numpy else copy


def unpack_metadata(ftype: int, header: Any) -> dict[str, Any]:
    """What a C structure of ``dbr`` has beside its value, by pyepics' names."""
    if dbr.TIME_STRING <= ftype <= dbr.TIME_DOUBLE:
        return {
            "status": header.status,
            "severity": header.severity,
            "timestamp": dbr.make_unixtime(header.stamp),
            "posixseconds": header.stamp.secs + dbr.EPICS2UNIX_EPOCH,
            "nanoseconds": header.stamp.nsec,
        }
    if ftype < dbr.STS_STRING:
        return {}
    names = (*_LIMITS, "precision", "units", "status", "severity", "ackt", "acks")
    found = {name: getattr(header, name) for name in names if hasattr(header, name)}
    if "units" in found:
        found["units"] = bytes2str(found["units"])
    states = getattr(header, "no_str", 0)
    if states > 0:
        found["enum_strs"] = tuple(bytes2str(text.value) for text in header.strs[:states])
    return found


def default_timeout(count: int) -> float:
    """Seconds that a read may take: one, and more for a large array."""
    return 1.0 + log10(max(1, count))


def read(
    core: Core,
    dbr_type: int,
    count: int,
    timeout: float | None,
    chid: Callable[[], Any],
    warn: bool = True,
) -> Sample | None:
    """A fresh sample of a connected channel; None, and pyepics' warning, if there is no answer in time.

    Raises
    ------
    CASeverityException
        No read access.
    ChannelAccessGetFailure
        The server, or the loss of its circuit, answered with a failure.
    """
    if timeout is None:
        timeout = default_timeout(core.count)
    try:
        sample = core.get(dbr_type, count, timeout)
        _polling.run()
        return sample
    except CATimeoutError as error:
        failed(error, None)
        if warn:
            warn_user(get_timed_out(core.name, timeout))
        return None
    except AccessError as error:
        raise refused("get", error) from None
    except (ServerError, DisconnectedError) as error:
        raise get_failure(error, chid()) from None


def _text(value: Any) -> Any:
    """What a record of one text takes of a sequence: its first element, as text; nothing of an empty one."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, numpy.ndarray)):
        return value
    if isinstance(value, numpy.ndarray) and value.ndim == 0:
        return value
    first = value[0] if len(value) else ""
    return first if isinstance(first, bytes) else str(first)


def complete(
    pending: Request | Sample, core: Core, timeout: float | None, chid: Any
) -> Sample | None:
    """The sample of a read that nobody has waited for; None, and pyepics' warning, if it does not come in time."""
    if not isinstance(pending, Request):
        return pending
    if timeout is None:
        timeout = default_timeout(core.count)
    try:
        sample = pending.result(timeout)
        _polling.run()
        return sample
    except CATimeoutError as error:
        failed(error, None)
        warn_user(get_timed_out(core.name, timeout))
        return None
    except (ServerError, DisconnectedError) as error:
        raise get_failure(error, chid) from None


def send_put(
    core: Core,
    value: Any,
    wait: bool,
    timeout: float | None,
    done: Callable[[], Any] | None = None,
    dbr_type: int = -2,
) -> int | None:
    """Write as pyepics does: 1; -1 if the wait timed out; None, and an error logged, if it failed.

    ``done()`` is called on the dispatcher when the record has finished, or failed to. The value is sent as the record's
    own type, unless `dbr_type` is another native one or an acknowledgement of alarms.
    """
    if core.native_type == dbr.STRING:
        if core.count == 1:
            value = _text(value)
        elif isinstance(value, str):
            value = [value]  # one element, though the text may be empty
        elif isinstance(value, (list, tuple)):
            value = ["None" if item is None else item for item in value]  # as its text
    try:
        if done is None:
            core.put(value, wait, timeout, True, dbr_type=dbr_type)
            _polling.run()
            return 1
        told = threading.Event()

        def finished(request: Request) -> None:
            error = request.exception(0)
            try:
                if error is not None:
                    log.error("%s", error)
                done()
            finally:
                told.set()

        request = core.put_async(value, None, True, finished, dbr_type=dbr_type)
        if wait:
            request.result(timeout)
            if not delivering():  # it runs before put() returns, unless others hold it up
                _polling.wait(told, 1.0)
        return 1
    except CATimeoutError as error:
        return failed(error, -1)
    except AccessError as error:
        raise refused("put", error) from None
    except (BadTypeError, BadValueError):
        raise
    except (DisconnectedError, PutError, ServerError) as error:
        if done is None:
            log.error("%s", error)
        return failed(error, None)


def put_callback(
    pvname: str, callback: Callable[..., Any] | None, data: Any
) -> Callable[[], Any] | None:
    """A put's callback with its arguments bound, as pyepics passes them."""
    if callback is None:
        return None
    kwds = data if isinstance(data, dict) else {"data": data}
    return functools.partial(callback, pvname=pvname, **kwds)
