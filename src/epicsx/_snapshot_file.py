"""The file of a snapshot: JSON lines, a head and then one line per PV.

The head says what it is, in which version, when it was taken and how many lines follow, so that a file that was cut is
found out. It is strict JSON: numbers that JSON has not got are texts.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from . import errors as _errors
from .errors import BadValueError, CAError

if TYPE_CHECKING:
    from ._snapshot import Snapshot

__all__ = ["VERSION", "Row", "lines", "plain", "read", "write"]

FORMAT = "epicsx snapshot"
VERSION = 1

_DTYPES = ("int16", "float32", "uint16", "uint8", "int32", "float64")
_KINDS = {
    name: getattr(_errors, name)
    for name in (
        *("CATimeoutError", "DisconnectedError", "AccessError", "BadTypeError", "BadValueError"),
        *("PutError", "ServerError", "CAError"),
    )
}


class Row(NamedTuple):
    """One PV of a snapshot."""

    name: str
    value: Any
    """As `Sample.value` has it: int, float, str, ndarray or a list of str; None where it could not be read."""
    timestamp_ns: int
    """The server's stamp: nanoseconds since 1970, UTC; 0 where it could not be read."""
    severity: int
    """The alarm severity (`epicsx.Severity`); INVALID where it could not be read."""
    status: int
    """The alarm status (`epicsx.Status`); where it could not be read TIMEOUT, READ_ACCESS or COMM."""
    ok: bool
    """Whether it could be read."""


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, numbers that it has not got as 'nan', 'inf' and '-inf'."""
    if isinstance(value, np.ndarray):
        found: list[Any] = value.tolist()
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return [_number(each) for each in found]
        return found
    return _number(value) if isinstance(value, float) else value


def _packed(value: Any) -> Any:
    """A value so that it can be told again what it was."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "data": plain(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def lines(snap: Snapshot) -> Iterator[str]:
    """The lines of the file, each with its end."""
    head = {"format": FORMAT, "version": VERSION, "taken_ns": snap.taken_ns, "count": len(snap)}
    yield json.dumps(head) + "\n"
    for row in snap:
        line = row._asdict()
        line["value"] = _packed(row.value)
        error = None if row.ok else snap.errors.get(row.name)
        if error is not None:
            line["error"] = {"type": type(error).__name__, "text": str(error)}
        yield json.dumps(line, allow_nan=False) + "\n"


def write(path: Path, snap: Snapshot) -> None:
    """Write the file; what is there is replaced when the new one is complete."""
    try:
        _write(Path(os.path.realpath(path)), snap)
    except OSError as error:
        if error.errno is None:
            raise
        # Which file is meant is not told by a full disk, and the draft's name is nobody's business.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write(path: Path, snap: Snapshot) -> None:
    try:
        plain_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        plain_file = True
    if not plain_file:  # a pipe or a terminal cannot be replaced
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines(snap))
        return
    # Not by tempfile, whose files are for their owner alone: this one gets the permissions of any new file.
    draft = path.with_name(f".epicsx-snapshot.{secrets.token_hex(8)}")
    with open(draft, "x", encoding="utf-8") as file:
        try:
            file.writelines(lines(snap))
            file.flush()
            os.fsync(
                file.fileno()
            )  # else a crash of the host may leave an empty file in place of the old one
            file.close()
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


# ------------------------------------------------------------------- reading


class _Wrong(Exception):
    """What is wrong with a line."""


def _check(good: bool, what: str) -> None:
    if not good:
        raise _Wrong(what)


def _no_constant(text: str) -> NoReturn:
    raise _Wrong(f"{text} is not JSON")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _Wrong("not JSON") from None
    _check(isinstance(found, dict), "not an object")
    fields: dict[str, Any] = found
    return fields


def _integer(line: dict[str, Any], key: str, bits: int) -> int:
    value = line.get(key)
    _check(type(value) is int and -(1 << (bits - 1)) <= value < 1 << (bits - 1), f"no {key}")
    return int(line[key])


def _special(text: Any) -> float:
    _check(text in ("nan", "inf", "-inf"), f"no number: {text!r:.40}")
    return float(text)


def _array(packed: dict[str, Any]) -> npt.NDArray[Any]:
    data = packed.get("data")
    _check(packed.get("dtype") in _DTYPES, f"no dtype of an array: {packed.get('dtype')!r:.40}")
    dtype = np.dtype(packed["dtype"])
    if not isinstance(data, list):
        raise _Wrong("an array without data")
    if dtype.kind == "f":
        numbers = [x if type(x) in (float, int) else _special(x) for x in data]
        try:
            return np.array(numbers, dtype)
        except OverflowError:
            raise _Wrong("a number too large") from None
    limits = np.iinfo(dtype)
    _check(
        all(type(x) is int and limits.min <= x <= limits.max for x in data),
        f"elements that are not {dtype.name}",
    )
    return np.array(data, dtype)


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return _special(value["float"]) if value.keys() == {"float"} else _array(value)
    if isinstance(value, list):
        _check(all(isinstance(text, str) for text in value), "a list of other things than texts")
        return value
    _check(type(value) in (int, float, str), f"no value: {value!r:.40}")
    return value


def _error(line: dict[str, Any], name: str) -> CAError:
    told = line.get("error", {})
    _check(isinstance(told, dict), "no error")
    text = str(told.get("text", f"'{name}' was not read"))
    error: CAError = _KINDS.get(str(told.get("type")), CAError)(text, name=name)
    return error


def _bounds(text: str) -> tuple[int, int]:
    """When it was taken, and how many rows it has: from the first line."""
    head = _object(text)
    _check(head.get("format") == FORMAT, "not a snapshot of epicsx")
    version = head.get("version")
    _check(version == VERSION, f"format version {version!r:.40}; this epicsx reads {VERSION}")
    count = _integer(head, "count", 64)
    _check(count >= 0, "no count")
    return _integer(head, "taken_ns", 64), count


def read(
    path: Path,
) -> tuple[
    list[str],
    list[Any],
    npt.NDArray[np.int64],
    npt.NDArray[np.int16],
    npt.NDArray[np.int16],
    npt.NDArray[np.bool_],
    dict[str, BaseException],
    int,
]:
    """The columns of the file: name, value, timestamp_ns, severity, status, ok; the errors, and when it was taken.

    Raises
    ------
    BadValueError
        It is no such file; names the line.
    OSError
        It cannot be read.
    """
    rows: list[Row] = []
    errors: dict[str, BaseException] = {}
    number = 1
    try:
        with open(path, encoding="utf-8") as file:
            taken, count = _bounds(file.readline())
            for text in file:
                number += 1
                _check(len(rows) < count, f"more lines than the {count} that the first one tells")
                line = _object(text)
                row = _row(line)
                if not row.ok:
                    errors.setdefault(row.name, _error(line, row.name))
                rows.append(row)
        number += 1
        _check(len(rows) == count, f"it ends after {len(rows)} of {count} PVs")
    except _Wrong as error:
        raise BadValueError(f"{path}, line {number}: {error}") from None
    except UnicodeDecodeError:
        raise BadValueError(f"{path}: not a text in UTF-8") from None
    return (
        [row.name for row in rows],
        [row.value for row in rows],
        np.array([row.timestamp_ns for row in rows], np.int64),
        np.array([row.severity for row in rows], np.int16),
        np.array([row.status for row in rows], np.int16),
        np.array([row.ok for row in rows], np.bool_),
        errors,
        taken,
    )


def _is_text(name: str) -> bool:
    """Whether it can be sent: a lone surrogate cannot, but for those that stand for bytes that were no UTF-8."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _row(line: dict[str, Any]) -> Row:
    name, ok = line.get("name"), line.get("ok")
    if not isinstance(ok, bool):
        raise _Wrong("no ok")
    # What was no PV's name when the snapshot was taken is in it as a row that failed.
    if not isinstance(name, str) or (ok and not name):
        raise _Wrong("no name")
    _check(not ok or _is_text(name), f"a name that is no text: {name!r:.40}")
    return Row(
        name,
        _unpacked(line.get("value")) if ok else None,
        _integer(line, "timestamp_ns", 64),
        _integer(line, "severity", 16),
        _integer(line, "status", 16),
        ok,
    )
