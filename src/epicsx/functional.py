"""pyepics' functions of a PV's name: `caget`, `caput`, `cainfo`, `camonitor`, and many at once."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import _bulk, _ca, _chids, _texts, _values, ca, pv
from .ca import poll as poll
from .errors import AccessError, BadTypeError, BadValueError, CAError, CATimeoutError

if TYPE_CHECKING:
    from ._ca import Core

__all__ = [
    "INVALID_ALARM",
    "MAJOR_ALARM",
    "MINOR_ALARM",
    "NO_ALARM",
    "caget",
    "caget_many",
    "cainfo",
    "camonitor",
    "camonitor_clear",
    "caput",
    "caput_many",
    "poll",
]

NO_ALARM = 0
MINOR_ALARM = 1
MAJOR_ALARM = 2
INVALID_ALARM = 3

_PVmonitors_: dict[str, pv.PV] = {}
_MONITOR = -999  # the index of camonitor's callback


def _after_fork() -> None:
    _PVmonitors_.clear()


def caput(
    pvname: str,
    value: Any,
    wait: bool = False,
    timeout: float = 60.0,
    connection_timeout: float = 5.0,
) -> int | None:
    """Write a value: 1; -1 if waiting for its completion timed out; None if not connected, or if it failed.

    Raises
    ------
    TypeError, ValueError
        The value does not fit. Nothing has been sent.
    CASeverityException
        No write access.
    """
    begun = time.monotonic()
    found = pv.get_pv(pvname, timeout=connection_timeout, connect=True)
    if not found._ready(0.0):
        _texts.not_connected(pvname, connection_timeout)
        return None
    return found.put(value, wait=wait, timeout=timeout - (time.monotonic() - begun))


def caget(
    pvname: str,
    as_string: bool = False,
    count: int | None = None,
    as_numpy: bool = True,
    use_monitor: bool = True,
    timeout: float = 5.0,
    connection_timeout: float = 5.0,
) -> Any:
    """The value of a PV; None, and a line printed, if it cannot be connected; None if no answer came in time.

    Parameters
    ----------
    as_string : bool
        Its text: a number by its precision, an enum by its state, characters as a str.
    count : int
        At most so many elements of an array.
    as_numpy : bool
        Arrays as ndarray, else as list.
    use_monitor : bool
        Take the newest value that the PV's monitor brought, instead of asking the server.
    """
    begun = time.monotonic()
    found = pv.get_pv(pvname, timeout=connection_timeout, connect=True)
    if not found._ready(0.0):
        _texts.not_connected(pvname, connection_timeout)
        return None
    if as_string:
        found._control(5.0)
    return found.get(
        count=count,
        timeout=timeout - (time.monotonic() - begun),
        use_monitor=use_monitor,
        as_string=as_string,
        as_numpy=as_numpy,
    )


def cainfo(
    pvname: str, print_out: bool = True, timeout: float = 5.0, connection_timeout: float = 5.0
) -> str | None:
    """Print a paragraph about a PV; with `print_out` False give it back."""
    begun = time.monotonic()
    found = pv.get_pv(pvname, timeout=connection_timeout, connect=True)
    if not found._ready(0.0):
        _texts.not_connected(pvname, connection_timeout)
        return None
    found.get(timeout=timeout - (time.monotonic() - begun))
    found.get_ctrlvars(timeout=max(0.0, timeout - (time.monotonic() - begun)))
    text = found.info
    if not print_out:
        return text
    ca.write(str(text))
    return None


def camonitor(
    pvname: str,
    writer: Callable[[str], Any] | None = None,
    callback: Callable[..., Any] | None = None,
    connection_timeout: float = 5.0,
    monitor_delta: float | None = None,
) -> None:
    """Print a line for every update of a PV, or have `callback` called.

    Parameters
    ----------
    writer : callable
        Gets the line instead, without a newline.
    callback : callable
        Called as the callbacks of a PV are, instead of printing.
    """
    found = pv.get_pv(pvname, timeout=connection_timeout, connect=True, monitor_delta=monitor_delta)
    if not found._ready(0.0):
        _texts.not_connected(pvname, connection_timeout)
        return
    if callback is None:
        callback = functools.partial(_line, writer or ca.write)
    found.get()
    found.add_callback(callback, index=_MONITOR, with_ctrlvars=True)
    _PVmonitors_[pvname] = found


def _line(
    writer: Callable[[str], Any],
    pvname: str = "",
    value: Any = None,
    char_value: Any = None,
    **kwds: Any,
) -> None:
    text = repr(value) if char_value is None else char_value
    writer(f"{pvname:.32s} {pv.fmt_time()} {text}")


def camonitor_clear(pvname: str) -> None:
    """End the printing that ``camonitor`` began."""
    found = _PVmonitors_.pop(pvname, None)
    if found is not None:
        found.remove_callback(index=_MONITOR)


_KEPT = 20_000  # so many channels of bulk reads and writes stay, whether used or not


def _many(names: Sequence[str]) -> list[Core]:
    """The channels of all names, made if need be. Those used last stay."""
    known = ca._many
    try:
        cores = [known[name] for name in names]
    except KeyError:
        cores = [known.get(name) or _one_more(name) for name in names]
    if len(known) > _KEPT // 2:
        for core in cores:
            known.pop(core.name, None)
            known[core.name] = core
        for name in list(known)[: max(0, len(known) - max(_KEPT, len(cores)))]:
            _let_go(name)
    return cores


def _one_more(name: str) -> Core:
    context = ca._context()
    core = ca._many[name] = ca._used(_ca.core(name))
    _chids.entry(context, name, core, keep=True)
    return core


def _let_go(name: str) -> None:
    ca._many.pop(name, None)
    for names in list(ca._cache.values()):
        item = names.get(name)
        if item is not None and not item.callbacks and not item.access_event_callback:
            item._core = None


def _get_many(
    cores: list[Core], count: int | None, timeout: float, as_string: bool, as_numpy: bool
) -> list[Any]:
    """Values of connected channels; exceptions in the place of those that failed."""
    if not as_string and as_numpy and ca.HAS_NUMPY:
        return _bulk.get_all(cores, -2, count or 0, timeout, _bulk.PYEPICS)
    found: list[Any] = _bulk.get_all(cores, -2, count or 0, timeout, _bulk.SAMPLES)
    for i, sample in enumerate(found):
        if not isinstance(sample, CAError):
            item = _chids.entry(ca._context(), cores[i].name, cores[i])
            found[i] = ca._answer(item, sample, as_string, as_numpy, count)["value"]
    return found


def caget_many(
    pvlist: Sequence[str],
    as_string: bool = False,
    as_numpy: bool = True,
    count: int | None = None,
    timeout: float = 1.0,
    connection_timeout: float = 5.0,
    conn_timeout: float | None = None,
) -> list[Any]:
    """The values of many PVs, read all at once; None for those not connected or without an answer in time.

    Parameters
    ----------
    timeout : float, seconds
        For all reads together.
    connection_timeout : float, seconds
        For all connections together; `conn_timeout` is its old name.
    """
    cores = _many(pvlist)
    if conn_timeout is not None:
        connection_timeout = conn_timeout
    missing = set(_bulk.connect_all(cores, connection_timeout))
    asked = cores if not missing else [core for core in cores if core not in missing]
    found = _get_many(asked, count, timeout, as_string, as_numpy)
    if missing:
        got = iter(found)
        found = [None if core in missing else next(got) for core in cores]
        _texts.not_connected(", ".join(core.name for core in missing), connection_timeout)
    for i, value in enumerate(found):
        if isinstance(value, CAError):
            found[i] = _texts.failed(value, None)
            if isinstance(value, CATimeoutError):
                text = _texts.get_timed_out(cores[i].name, timeout)
                _texts.warn_user(text)
    return found


def caput_many(
    pvlist: Sequence[str],
    values: Sequence[Any],
    wait: bool | str = False,
    connection_timeout: float = 5.0,
    put_timeout: float = 60,
) -> list[int]:
    """Write to many PVs, each its value: 1 for each that was done, -1 for each that was not.

    Parameters
    ----------
    wait : False, 'each' or 'all'
        ``'each'`` waits for one record to finish before the next is written, ``'all'`` for all together.

    Raises
    ------
    TypeError, ValueError
        A value does not fit its PV; the others have been written.
    CASeverityException
        A PV gives no write access; the others have been written.
    """
    if len(pvlist) != len(values):
        raise ValueError("List of PV names must be equal to list of values.")
    cores = _many(pvlist)
    missing = set(_bulk.connect_all(cores, connection_timeout))
    if missing:
        _texts.not_connected(", ".join(core.name for core in missing), connection_timeout)
    if wait == "each":
        return [
            -1 if core in missing else (_values.send_put(core, value, True, put_timeout) or -1)
            for core, value in zip(cores, values, strict=True)
        ]
    found = _bulk.put_all(cores, list(values), wait == "all", put_timeout, True)
    for error in found:
        if isinstance(error, (BadTypeError, BadValueError, TypeError, ValueError)):
            raise error
        if isinstance(error, AccessError):
            raise _texts.refused("put", error)
    return [1 if error is None else _texts.failed(error, -1) for error in found]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
