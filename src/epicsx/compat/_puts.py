"""Values as old programs write them, turned into what a record takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from .. import dbr
from ..autosave._values import for_record
from ..utils import bytes2str

if TYPE_CHECKING:
    from .._ca import Core

_COERCE = {
    dbr.STRING: str,
    dbr.FLOAT: float,
    dbr.DOUBLE: float,
    dbr.INT: int,
    dbr.LONG: int,
}

_ACKNOWLEDGEMENTS = (dbr.PUT_ACKT, dbr.PUT_ACKS)


def sent_as(asked: int | None) -> int:
    """The DBR type for the core to send: the record's own (-2), or an acknowledgement of alarms."""
    return asked if asked in _ACKNOWLEDGEMENTS else -2


def for_put(value: Any, core: Core, asked: int | None = None, count: int | None = None) -> Any:
    """`value` as the record of a connected channel takes it.

    Parameters
    ----------
    asked : int
        The DBR type that the program wants it sent in: it is coerced to that first.
    count : int
        At most so many elements.

    Raises
    ------
    ValueError, TypeError
        It cannot be made into what the record holds.
    """
    if asked in _ACKNOWLEDGEMENTS:
        return int(value)
    native = core.native_type
    if isinstance(value, bytes) and (native != dbr.CHAR or core.count == 1):
        value = bytes2str(value)
    if isinstance(value, (str, bytes)):
        texts = native == dbr.CHAR and core.count > 1
        return value[:count] if texts else _one(value, asked, native, core.count)
    if isinstance(value, numpy.ndarray) and value.ndim and value.dtype.kind in "biuf":
        value = value[:count]
        if native != dbr.STRING and asked in (None, native):
            return value
        value = value.tolist()
    elif hasattr(value, "__iter__"):
        value = list(value)[:count]
    if not isinstance(value, list):
        return _one(value, asked, native, core.count)
    return for_record([_coerced(item, asked) for item in value], native, core.count)


def _coerced(value: Any, asked: int | None) -> Any:
    if isinstance(value, bytes):
        value = bytes2str(value)
    if isinstance(value, numpy.generic):
        value = value.item()
    coerce = _COERCE.get(asked) if asked is not None else None
    return value if coerce is None else coerce(value)


def _one(value: Any, asked: int | None, native: int, count: int) -> Any:
    found = for_record(_coerced(value, asked), native, count)
    if isinstance(found, str) and native == dbr.CHAR and count > 1:
        return for_record([found], native, count)  # the text of a number, not characters
    return found
