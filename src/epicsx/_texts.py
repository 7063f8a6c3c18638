"""What pyepics says to people: its messages, its info paragraph, and the one place where a failure becomes None."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .enums import ECA
from .errors import (
    CAError,
    CASeverityException,
    CATimeoutError,
    ChannelAccessGetFailure,
    message,
)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("epicsx")

_strict = os.environ.get("EPICSX_STRICT", "").lower() not in ("", "0", "no", "off", "false")


def strict(on: bool = True) -> None:
    """Have the pyepics face raise typed errors where pyepics answers None. ``EPICSX_STRICT=1`` does the same."""
    global _strict
    _strict = on


def is_strict() -> bool:
    """Whether failures raise."""
    return _strict


def failed(error: Callable[[], CAError] | CAError, answer: T) -> T:
    """What a failed call gives back: pyepics' `answer`, or the error itself if strict."""
    if _strict:
        raise error if isinstance(error, CAError) else error()
    return answer


def not_connected(name: object, seconds: float) -> None:
    """What a call of a PV that cannot be connected gives back: None, or the error if strict."""
    text = f"{cannot_connect(name)} within {seconds} seconds"
    failed(lambda: CATimeoutError(text, name=str(name)), None)


def warn_user(text: str) -> None:
    """A UserWarning that names the first line outside of epicsx among its callers."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("epicsx."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


# ------------------------------------------------------------------ messages

FINALIZED = "Channel Access has been ended by finalize_libca"
CONTEXT_UNSET = "Expected CA context is unset"
CONTEXT_DEPRECATED = (
    "The `context` kwarg for epics.get_pv() is deprecated. New PVs will _not_ be created in the "
    "requested context."
)
NOT_A_CHID = "not a valid chid"
UNEXPECTED_CHID = "Unexpected channel ID"


def cannot_connect(name: object) -> str:
    """What ``get_pv(connect=True)`` and everything built on it prints."""
    return f"cannot connect to {name}"


def get_timed_out(name: str, seconds: float) -> str:
    """The warning of a read without an answer."""
    return f"ca.get('{name}') timed out after {seconds:.2f} seconds."


def connect_timed_out(function: str, name: str, seconds: float) -> str:
    """The text of the exception of the low-level functions."""
    return f"{function}() timed out waiting '{name}' to connect ({seconds:.0f} seconds)"


def refused(function: str, error: CAError) -> CASeverityException:
    """The pyepics exception for what libca itself would have refused, such as a put without write access."""
    if error.status is not None:
        return refusal(function, error.status, error.name)
    return CASeverityException(function, error.message, name=error.name)


def refusal(function: str, status: int, name: str = "") -> CASeverityException:
    """The pyepics exception for an ECA code that a function of libca would have given."""
    return CASeverityException(function, message(status), status=int(status), name=name)


def PySEVCHK(func_name: str, status: int, expected: int = ECA.NORMAL.value) -> int:
    """The status, if it is the expected one; else CASeverityException."""
    if status == expected:
        return status
    raise refusal(func_name, status)


def withSEVCHK(fcn: F) -> F:
    """Check the status that `fcn` gives back."""

    @functools.wraps(fcn)
    def wrapper(*args: Any, **kwds: Any) -> Any:
        return PySEVCHK(fcn.__name__, fcn(*args, **kwds))

    return wrapper  # type: ignore[return-value]


def get_failure(error: CAError, chid: Any) -> ChannelAccessGetFailure:
    """The pyepics exception for a read that the server, or the loss of its circuit, answered with a failure."""
    status = error.status if error.status is not None else -1
    return ChannelAccessGetFailure(
        f"Get failed; status code: {status}", chid, status, name=error.name
    )


# ---------------------------------------------------------------------- time


def fmt_time(tstamp: float | None = None) -> str:
    """Local time as text, to 10 microseconds: ``2026-11-23 07:44:58.30074``."""
    whole = round((time.time() if tstamp is None else tstamp) * 1e5)
    seconds, fraction = divmod(whole, 100_000)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) + f".{fraction:05d}"


# ---------------------------------------------------------------------- info

_INFO_FIELDS = (
    "char_value",
    "count",
    "nelm",
    "type",
    "units",
    "precision",
    "host",
    "access",
    "monitor_delta",
    "status",
    "char_status",
    "severity",
    "char_severity",
    "timestamp",
    "posixseconds",
    "nanoseconds",
    "upper_ctrl_limit",
    "lower_ctrl_limit",
    "upper_disp_limit",
    "lower_disp_limit",
    "upper_alarm_limit",
    "lower_alarm_limit",
    "upper_warning_limit",
    "lower_warning_limit",
)


def _element(value: Any, kind: str) -> str:
    value = value.item() if hasattr(value, "item") else value
    if kind in ("float", "double") and isinstance(value, (int, float)):
        return f"{value:g}"
    return str(value)


def _value(pv: Any, kind: str) -> str:
    value, count = pv._args["value"], pv.count
    if value is None:
        return "unknown"
    if count == 1 and pv.nelm == 1:
        return _element(value, kind)
    elements = list(value[:5]) if hasattr(value, "__len__") and kind != "str" else [value]
    if isinstance(value, str):
        elements = [value]
    more = ",...." if (count or 0) > 10 else ""
    if count == 1:  # one element of an array record: pyepics shows the bare value
        return _element(elements[0], kind) if elements else ""
    return f" array  [{','.join(_element(e, kind) for e in elements)}{more}]"


def _source(callback: Any) -> str:
    name = getattr(callback, "__name__", repr(callback))
    code = getattr(callback, "__code__", None)
    return f"      {name} in file '{getattr(code, 'co_filename', '?')}'"


def info(pv: Any) -> str:
    """The paragraph of ``PV.info``, of a connected PV whose control data are known."""
    form, _, kind = pv._args["typefull"].rpartition("_")
    fields = {"value": _value(pv, kind)}
    for name in _INFO_FIELDS:
        found = getattr(pv, name)
        if found is None:
            continue
        if name == "timestamp":
            found = f"{found:.3f} ({fmt_time(found)})"
        elif name == "char_value":
            found = f"'{found}'"
        fields[name] = str(found)
    lines = [f"== {pv.pvname}  ({form or 'native'}_{kind}) =="]
    lines += [
        f"   {name:{20 if len(name) > 14 else 15}s} = {text}" for name, text in fields.items()
    ]
    if kind == "enum":
        lines.append("   enum strings: ")
        lines += [f"       {i} = {name}" for i, name in enumerate(pv.enum_strs or ())]
    if pv.auto_monitor_mask is None:
        lines.append("   PV is NOT internally monitored")
    else:
        n = len(pv.callbacks)
        lines.append(f"   PV is internally monitored, with {n} user-defined callbacks")
        lines += [_source(pv.callbacks[index][0]) for index in ordered(pv.callbacks)]
    lines.append("=============================")
    return "\n".join(lines)


def ordered(indices: Iterable[Any]) -> list[Any]:
    """Callback indices in the order in which they run: sorted, or as they were added where they cannot be."""
    given = list(indices)
    try:
        return sorted(given)
    except TypeError:
        return given


# --------------------------------------------------------------------- cache

_TABLE = (
    "#  PVName        ChannelID/Context Connected?\n#--------------------------------------------"
)


def cache_table(rows: Iterable[tuple[str, Any, int, bool]]) -> str:
    """The table of ``ca.show_cache``."""
    return "\n".join(
        [_TABLE, *(f" {name:15s} {chid}/{context}  {up}" for name, chid, context, up in rows)]
    )
