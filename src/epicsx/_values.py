"""pyepics' idea of a value: what a sample becomes in its interface, and how a put answers."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from math import log10
from typing import TYPE_CHECKING, Any

import numpy

from . import _polling, dbr
from ._deliver import delivering
from ._texts import failed, get_failure, get_timed_out, refused
from .errors import (
    AccessError,
    BadTypeError,
    BadValueError,
    CATimeoutError,
    DisconnectedError,
    PutError,
    ServerError,
)

if TYPE_CHECKING:
    from ._ca import Core
    from ._dbr import Control
    from ._request import Request
    from ._sample import Sample

log = logging.getLogger("epicsx")

_LIMITS = dbr.ctrl_limits


def value_of(sample: Sample) -> Any:
    """The value by pyepics' rules: bare where one element came, but CHAR and STRING arrays stay sequences."""
    native = dbr.native_type(sample.dbr_type)
    if native == dbr.STRING:
        found = sample.value
        return found.rstrip() if isinstance(found, str) else [text.rstrip() for text in found]
    return sample.value if native == dbr.CHAR else sample.raw(True)


def as_ctypes(value: Any, ftype: int) -> Any:
    """An array as pyepics has it without numpy: a ctypes array with memory of its own."""
    native = dbr.native_type(ftype)
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


def control_fields(control: Control) -> dict[str, Any]:
    """Control data by pyepics' names: only what the record's type has."""
    found: dict[str, Any] = {}
    if control.units is not None:
        found.update({name: getattr(control, name) for name in _LIMITS})
        found["units"] = control.units
    if control.precision is not None:
        found["precision"] = control.precision
    if control.enum_strings:
        found["enum_strs"] = control.enum_strings
    return found


def metadata(sample: Sample) -> dict[str, Any]:
    """What a DBR type brings beside its value, by pyepics' names."""
    ftype = sample.dbr_type
    if dbr.TIME_STRING <= ftype <= dbr.TIME_DOUBLE:
        return time_fields(sample)
    control = sample.control
    if control is None:
        return {}
    return {"status": sample.status, "severity": sample.severity, **control_fields(control)}


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
        return core.get(dbr_type, count, timeout)
    except CATimeoutError as error:
        failed(error, None)
        if warn:
            warnings.warn(get_timed_out(core.name, timeout), stacklevel=4)
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


def send_put(
    core: Core,
    value: Any,
    wait: bool,
    timeout: float | None,
    done: Callable[[], Any] | None = None,
) -> int | None:
    """Write as pyepics does: 1; -1 if the wait timed out; None, and an error logged, if it failed.

    ``done()`` is called on the dispatcher when the record has finished, or failed to.
    """
    if core.native_type == dbr.STRING:
        if core.count == 1:
            value = _text(value)
        elif isinstance(value, str):
            value = [value]  # one element, though the text may be empty
    try:
        if done is None:
            core.put(value, wait, timeout, True)
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

        request = core.put_async(value, None, True, finished)
        if wait:
            request.result(timeout)
            _polling.run()
            if not delivering():
                told.wait(
                    1.0
                )  # the callback runs elsewhere, and before put() returns unless others hold it up
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
