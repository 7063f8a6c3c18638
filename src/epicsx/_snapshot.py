"""Snapshots: the values of thousands of PVs read at once, kept as columns, compared, written to files, put back.

Threads
    Any thread may take, save and restore snapshots. A `Snapshot` does not change, so threads may share one.

Lifetime
    The channels of a snapshot live as long as any snapshot of the same names that was taken through them. So a loop
    that keeps the latest one searches for nothing after its first turn.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from . import _bulk, _ca, _filters
from ._channel import Channel, _as_connected, _ClientFiltered, _deadline, _left
from ._snapshot_file import Row, plain, read, write
from .enums import Severity, Status
from .errors import AccessError, BadTypeError, BadValueError, CATimeoutError, timed_out, unanswered

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._ca import Core

__all__ = ["Difference", "Restored", "Row", "Snapshot", "restore", "snapshot"]

_NEVER = 631_152_000_000_000_000
"""The stamp of a record that was never processed: EPICS' epoch, 1990."""

_CLOSED = 3  # Core.state


class Difference(NamedTuple):
    """One PV in which two snapshots differ; None where one of them has not got it."""

    name: str
    before: Row | None
    after: Row | None


class Restored:
    """What became of a restore: the names that were written, and for each other one the exception that says why not.

    True if all were written.
    """

    ok: list[str]
    """The names that were written, in the snapshot's order."""
    errors: dict[str, BaseException]
    """What was not written, and why."""

    def __init__(self, ok: list[str], errors: dict[str, BaseException]) -> None:
        self.ok = ok
        self.errors = errors

    def __bool__(self) -> bool:
        return not self.errors

    def __len__(self) -> int:
        return len(self.ok) + len(self.errors)

    def __repr__(self) -> str:
        return f"<Restored: {len(self.ok)} of {len(self)} PVs written{_failures(self.errors)}>"


def _failures(errors: dict[str, BaseException]) -> str:
    if not errors:
        return ""
    kinds = Counter(type(error).__name__ for error in errors.values())
    told = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    return f"; {len(errors)} failed ({told})"


def _seconds(timeout: Any) -> float | None:
    """A time-out, if it is one."""
    if timeout is None:
        return None
    try:
        if isinstance(timeout, (str, bytes)):  # float() takes these
            raise TypeError
        seconds = float(timeout)
    except (TypeError, ValueError, OverflowError):
        kind = type(timeout).__name__
        raise BadTypeError(f"a timeout is a number of seconds or None, not {kind}") from None
    if math.isnan(seconds):
        raise BadValueError("a timeout is a number of seconds or None, not NaN")
    return seconds


def _core(name: str, priority: int = 0) -> Core:
    try:
        return _ca.core(name, priority)
    except (BadValueError, UnicodeEncodeError) as error:
        shown = f"{name[:60]!r}{'...' if len(name) > 60 else ''}"
        raise BadValueError(f"{shown} is no PV name: {error}", name=name) from None


class _Source:
    """The channels behind snapshots of the same names, in their order."""

    __slots__ = (
        *("__weakref__", "channels", "cores", "failed", "items", "names", "nameless", "targets"),
        "valid",
    )

    def __init__(self, items: tuple[Any, ...]) -> None:
        for item in items:
            if not isinstance(item, (str, Channel)):
                kind = type(item).__name__
                raise BadTypeError(
                    f"a list of PV names or Channels is wanted; one is of type {kind}"
                )
        self.items = items
        self.channels: list[Channel] = [item for item in items if isinstance(item, Channel)]
        for channel in self.channels:
            if isinstance(channel, _ClientFiltered) and "arr" in channel._filters:
                # A row would have the name of the whole array: restored, it would overwrite that with the slice.
                raise BadValueError(
                    f"'{channel.name}': a slice that is made on the client cannot be in a snapshot, whose rows are "
                    "what their names stand for; give the whole channel and slice its value",
                    name=channel.name,
                )
        # str(): the core takes no subclass, such as numpy's
        self.names: tuple[str, ...] = tuple(
            i.name if isinstance(i, Channel) else str(i) for i in items
        )
        self._renew()
        # severity and status of what has failed, made once
        self.failed: tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]] = (
            np.full(len(items), Severity.INVALID, np.int16),
            np.full(len(items), Status.COMM, np.int16),
        )

    def _renew(self) -> None:
        found: list[Core | None] = []
        self.nameless: dict[int, BadValueError] = {}
        for row, (item, name) in enumerate(zip(self.items, self.names, strict=True)):
            try:
                found.append(item._open() if isinstance(item, Channel) else _core(name))
            except BadValueError as error:
                found.append(None)
                self.nameless[row] = error
        # Rows without a channel have that of another one in `cores`, so that rows stay rows; they are never read.
        other = next((core for core in found if core is not None), None)
        self.cores: list[Core] = [] if other is None else [core or other for core in found]
        self.targets: _bulk.Targets = _bulk.Targets(self.cores)
        # the rows to read; None is all of them, which is faster
        valid = [row for row, core in enumerate(found) if core]
        self.valid: list[int] | None = valid if self.nameless else None

    def _usable(self) -> list[Core]:
        for channel in self.channels:
            channel._open()  # raises if it has been closed
        if self.cores and not self.cores[0].context.alive:
            self._renew()  # Channel Access was shut down since, or this is a forked child
        return self.cores

    def take(self, timeout: float | None) -> Snapshot:
        """A snapshot, all of it under one deadline."""
        timeout = _seconds(timeout)
        deadline = _deadline(timeout)
        taken = time_ns()
        cores = self._usable()
        n = len(self.names)
        values: list[Any] = [None] * n
        stamps = np.zeros(n, np.int64)
        severity, status = self.failed[0].copy(), self.failed[1].copy()
        ok = np.zeros(n, np.bool_)
        failed: dict[int, BaseException] = dict(self.nameless)

        # What is connected is asked at once, what is not as soon as it is; and the answers are awaited at the end. So
        # nobody waits for a name that does not exist, nor a late one for a server that does not answer.
        readings = [_bulk.Reading(self.targets, self.valid)]
        missing = readings[0].missing
        if any(cores[row].state == _CLOSED for row in missing):  # by epicsx.ca, for everybody
            self._renew()
            cores = self.cores
        patience = 0.1
        while missing:
            left = _left(deadline)
            wait = patience if left is None else min(patience, left)
            _bulk.connect_all([cores[row] for row in missing], wait)
            readings.append(_bulk.Reading(self.targets, missing))
            missing = readings[-1].missing
            patience = min(2 * patience, 1.0)
            if left == 0.0:
                break
        for reading in readings:
            reading.collect(_left(deadline), timeout, values, stamps, severity, status, ok, failed)
        nobody = unanswered()
        for row in missing:
            core = cores[row]
            why = nobody
            if core.connects:
                why = f"{core.host} was lost"
            failed[row] = timed_out(core.name, "get", timeout or 0.0, why)
        for row, error in failed.items():
            if isinstance(error, CATimeoutError):
                status[row] = Status.TIMEOUT
            elif isinstance(error, AccessError):
                status[row] = Status.READ_ACCESS
        errors = {self.names[row]: failed[row] for row in sorted(failed)}
        return Snapshot(
            self.names, values, stamps, severity, status, ok, errors, taken, source=self
        )


_sources: WeakValueDictionary[tuple[str | Channel, ...], _Source] = WeakValueDictionary()
# The same by the length of a list and its first item, for a list of the very same objects: to hash a thousand names
# that were not looked at lately takes a fifth of the time of a snapshot.
_same_objects: WeakValueDictionary[tuple[int, int], _Source] = WeakValueDictionary()


def _source(names: Iterable[str | Channel]) -> _Source:
    if isinstance(names, (str, bytes)):
        raise BadTypeError("a list of names is wanted, not one name")
    key = None
    if isinstance(names, (list, tuple)) and names:
        key = (len(names), id(names[0]))
        near = _same_objects.get(key)
        if near is not None and _bulk.identical(names, near.items):
            return near
    if not isinstance(names, Iterable):
        raise BadTypeError(f"a list of names is wanted, not {type(names).__name__}")
    items = tuple(names)
    try:
        found = _sources.get(items)
    except TypeError:  # not hashable, so neither a name nor a Channel: told below
        found = None
    if found is None:
        found = _Source(items)
        _sources[items] = found
    if key is not None and _bulk.identical(items, found.items):
        _same_objects[key] = found
    return found


def snapshot(names: Iterable[str | Channel], *, timeout: float | None = 5.0) -> Snapshot:
    """A `Snapshot` of all PVs, read with one flush under one deadline, connecting included.

    It never fails because some PVs do: what they met is in its columns `ok` and `errors`. PVs that are connected do not
    wait for those that are not, which are read as soon as they connect. May be called from any thread, also from
    callbacks.

    While a snapshot exists, the channels of its names stay connected, and another one of the same names, in the same
    order, is taken through them. So keep the last one in a loop, or call its ``again()``.

    Parameters
    ----------
    names : iterable of str or Channel
    timeout : float, seconds
        For all of it; None waits for ever.

    Raises
    ------
    BadTypeError
        For what is neither a text nor a Channel. A text that cannot be a PV's name, such as an empty one, is a row that
        could not be read.
    BadValueError
        For a Channel whose slice is made here (``client_side=True``); for a NaN as `timeout`.
    CAError
        A Channel has been closed.
    """
    return _source(names).take(timeout)


class Snapshot:
    """The values of many PVs at one time, as columns of equal length, one row per PV.

    Made by `epicsx.snapshot` or ``Snapshot.load``. Has a length, iterates by `Row`, and ``snap[name]`` is the row of a
    name, the first where it was given twice.
    """

    name: tuple[str, ...]
    """The PVs, in the order given."""
    value: list[Any]
    """int, float, str; an ndarray or a list of str where the record is an array; None where it could not be read."""
    timestamp_ns: npt.NDArray[np.int64]
    """The servers' stamps: nanoseconds since 1970, UTC; 0 where it could not be read."""
    severity: npt.NDArray[np.int16]
    """Alarm severities (`epicsx.Severity`); INVALID where it could not be read."""
    status: npt.NDArray[np.int16]
    """Alarm statuses (`epicsx.Status`); where it could not be read TIMEOUT, READ_ACCESS or, for the rest, COMM."""
    ok: npt.NDArray[np.bool_]
    """Which could be read."""
    errors: dict[str, BaseException]
    """For each name that could not be read the exception that says why."""
    taken_ns: int
    """When it was begun, by this host's clock: nanoseconds since 1970, UTC."""

    def __init__(
        self,
        name: Sequence[str],
        value: list[Any],
        timestamp_ns: npt.NDArray[np.int64],
        severity: npt.NDArray[np.int16],
        status: npt.NDArray[np.int16],
        ok: npt.NDArray[np.bool_],
        errors: dict[str, BaseException],
        taken_ns: int,
        *,
        source: _Source | None = None,
    ) -> None:
        self.name = tuple(name)
        self.value = value
        self.timestamp_ns = timestamp_ns
        self.severity = severity
        self.status = status
        self.ok = ok
        self.errors = errors
        self.taken_ns = taken_ns
        self._source = source
        self._rows: dict[str, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}  # channels cannot be pickled, nor copied

    # ---- rows

    def __len__(self) -> int:
        return len(self.name)

    def __iter__(self) -> Iterator[Row]:
        columns = (self.timestamp_ns, self.severity, self.status, self.ok)
        return map(Row, self.name, self.value, *(column.tolist() for column in columns))

    def _index(self) -> dict[str, int]:
        if self._rows is None:
            names = reversed(self.name)  # so that the first of two stays
            self._rows = dict(zip(names, range(len(self.name) - 1, -1, -1), strict=True))
        return self._rows

    def __contains__(self, name: object) -> bool:
        return name in self._index()

    def __getitem__(self, name: str) -> Row:
        row = self._index()[name]
        return Row(
            self.name[row],
            self.value[row],
            int(self.timestamp_ns[row]),
            int(self.severity[row]),
            int(self.status[row]),
            bool(self.ok[row]),
        )

    # ---- in sum

    def _stamped(self) -> npt.NDArray[np.int64]:
        stamps = self.timestamp_ns[self.ok]
        return stamps[stamps > _NEVER]

    @property
    def skew_ns(self) -> int:
        """The spread of the stamps, newest less oldest: nanoseconds; 0 where fewer than two PVs have one.

        A record is stamped when it is processed, so one that seldom is makes the spread large. Those that never were
        carry no stamp: they are left out, and counted by `unstamped`.
        """
        stamps = self._stamped()
        return int(stamps.max() - stamps.min()) if len(stamps) else 0

    @property
    def unstamped(self) -> int:
        """How many PVs were read but carry no stamp, because their record was never processed."""
        return int(self.ok.sum()) - len(self._stamped())

    def __repr__(self) -> str:
        good = int(self.ok.sum())
        text = f"<Snapshot of {len(self)} PVs: {good} ok{_failures(self.errors)}"
        alarms = int((self.severity[self.ok] > 0).sum())
        if alarms:
            text += f"; {alarms} in alarm"
        if self.unstamped:
            text += f"; {self.unstamped} never processed"
        return f"{text}; stamps spread over {self.skew_ns * 1e-9:.6g} s>"

    # ---- other forms

    def to_dict(self, *, jsonable: bool = False) -> dict[str, list[Any]]:
        """The columns as plain Python lists by name, and a column `error` of texts, None where there was none.

        Parameters
        ----------
        jsonable : bool
            Arrays become lists, and numbers that JSON has not got the texts 'nan', 'inf' and '-inf'.
        """
        return {
            "name": list(self.name),
            "value": [plain(v) for v in self.value] if jsonable else list(self.value),
            "timestamp_ns": self.timestamp_ns.tolist(),
            "severity": self.severity.tolist(),
            "status": self.status.tolist(),
            "ok": self.ok.tolist(),
            "error": self._error_texts(),
        }

    def _error_texts(self) -> list[str | None]:
        return [
            None if good else str(self.errors.get(name, "not read"))
            for name, good in zip(self.name, self.ok.tolist(), strict=True)
        ]

    def to_pandas(self) -> Any:
        """A pandas DataFrame, its index the names, its columns the others and `error`.

        `value` is of float64, NaN where it could not be read, if all values are floats; else of object, as they are.

        Raises
        ------
        ImportError
            pandas is missing: ``pip install 'epicsx[pandas]'``.
        """
        pd = _extra("pandas", "pandas")
        floats = all(v is None or type(v) is float for v in self.value)
        return pd.DataFrame(
            {
                "value": pd.Series(self.value, dtype="float64" if floats else object),
                "timestamp_ns": self.timestamp_ns.copy(),
                "severity": self.severity.copy(),
                "status": self.status.copy(),
                "ok": self.ok.copy(),
                "error": pd.Series(self._error_texts(), dtype=object),
            }
        ).set_index(pd.Index(self.name, name="name", dtype=object))

    def to_arrow(self) -> Any:
        """A pyarrow Table of the columns and `error`.

        `value` has the type of the values where they are of one kind: double, int64, string, or a list of the array's
        elements. Where they are not it is a struct with a field for each kind, of which one is filled: float, int,
        text, texts, and float64s and so on for arrays. It is null where it could not be read. Parquet can hold each of
        these.

        Raises
        ------
        ImportError
            pyarrow is missing: ``pip install 'epicsx[arrow]'``.
        """
        pa = _extra("pyarrow", "arrow")
        return pa.table(
            {
                "name": pa.array(map(_utf8, self.name), pa.string()),
                "value": self._arrow_values(pa),
                "timestamp_ns": self.timestamp_ns,
                "severity": self.severity,
                "status": self.status,
                "ok": self.ok,
                "error": pa.array(map(_utf8, self._error_texts()), pa.string()),
            }
        )

    def _arrow_values(self, pa: Any) -> Any:
        types = {
            "float": pa.float64(),
            "int": pa.int64(),
            "text": pa.string(),
            "texts": pa.list_(pa.string()),
        }
        kinds = [_kind(value) for value in self.value]
        fields = {}
        for kind in dict.fromkeys(k for k in kinds if k) or ("float",):
            if kind not in types:
                types[kind] = pa.list_(pa.from_numpy_dtype(np.dtype(kind.removesuffix("s"))))
            mine = [v if k == kind else None for v, k in zip(self.value, kinds, strict=True)]
            fields[kind] = pa.array(mine, types[kind])
        if len(fields) == 1:
            return next(iter(fields.values()))
        return pa.StructArray.from_arrays(
            list(fields.values()), list(fields), mask=pa.array([not k for k in kinds])
        )

    # ---- what one does with it

    def again(self, *, timeout: float | None = 5.0) -> Snapshot:
        """A new snapshot of the same PVs, through the same channels where this one has any."""
        if self._source is None:
            self._source = _source(self.name)
        return self._source.take(timeout)

    def diff(self, other: Snapshot, *, rtol: float = 0.0, atol: float = 0.0) -> list[Difference]:
        """The PVs in which `other` differs from this one: in value, in whether it could be read, or in having it.

        Stamps and alarms are not compared. NaN equals NaN. A PV that could be read in neither does not differ.

        Parameters
        ----------
        rtol, atol : float
            Numbers are equal where ``abs(after - before) <= atol + rtol * abs(before)``.
        """
        if not isinstance(other, Snapshot):
            raise BadTypeError(f"a Snapshot is wanted, not {type(other).__name__}")
        if not (rtol >= 0 and atol >= 0):
            raise BadValueError(f"tolerances are not negative: rtol {rtol}, atol {atol}")
        mine, theirs = self._index(), other._index()
        found = []
        for name in dict.fromkeys(self.name):
            there = theirs.get(name)
            if there is None:
                found.append(Difference(name, self[name], None))
            elif not _same(self.value[mine[name]], other.value[there], rtol, atol):
                found.append(Difference(name, self[name], other[name]))
        new = [name for name in dict.fromkeys(other.name) if name not in mine]
        return found + [Difference(name, None, other[name]) for name in new]

    def restore(
        self,
        *,
        timeout: float | None = 5.0,
        wait: bool = True,
        only: Iterable[str] | None = None,
    ) -> Restored:
        """What became of putting the values back: see `epicsx.restore`."""
        return restore(self, timeout=timeout, wait=wait, only=only)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which ``Snapshot.load`` reads: JSON lines, a head and then one line per PV.

        A file that is there is replaced when the new one is complete.
        """
        write(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The snapshot that ``save`` has written; no PV is asked.

        Raises
        ------
        BadValueError
            The file is no such snapshot, or not a whole one; it names the line.
        OSError
            It cannot be read.
        """
        return cls(*read(Path(path)))


def _extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is missing: pip install 'epicsx[{extra}]'") from error


def _utf8(text: str | None) -> str | None:
    """A name, or what an error tells of it, as Arrow can hold it: a lone surrogate is escaped."""
    return text and text.encode("utf-8", "backslashreplace").decode()


def _kind(value: Any) -> str:
    """What a value is, as `to_arrow` calls it; empty for None."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}s"
    return {float: "float", int: "int", str: "text"}.get(type(value), "texts")


def _same(before: Any, after: Any, rtol: float, atol: float) -> bool:
    if before is after:
        return True
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        if before.shape != after.shape:
            return False
        if rtol or atol:
            return bool(np.isclose(after, before, rtol, atol, equal_nan=True).all())
        # x != x is true of NaN alone
        return bool(((before == after) | ((before != before) & (after != after))).all())
    numbers = isinstance(before, (int, float)) and isinstance(after, (int, float))
    if not numbers:
        return type(before) is type(after) and bool(before == after)
    if before == after or (before != before and after != after):
        return True
    finite = math.isfinite(before) and math.isfinite(after)
    return finite and abs(after - before) <= atol + rtol * abs(before)


def restore(
    snapshot: Snapshot,
    *,
    timeout: float | None = 5.0,
    wait: bool = True,
    only: Iterable[str] | None = None,
) -> Restored:
    """What became of putting the values of a snapshot back, for each PV: all with one flush under one deadline.

    Enums are written by index, arrays with as many elements as were read. What has no value in the snapshot is not
    written and is among the errors, as is what the server refuses. So are slices of arrays, by a filter
    (``channel[2:5]``) or as ``REC.VAL[2:4]``: an IOC would write them to the start of the array. May be called from any
    thread, also from callbacks.

    Parameters
    ----------
    snapshot : Snapshot
        Taken here, or loaded from a file.
    timeout : float, seconds
        For all of it, connecting included; None waits for ever.
    wait : bool
        Return when all records have finished processing, so that a refusal by a record is known. Without it the result
        tells what this client could see by itself: no connection, no write access, a value that does not fit.
    only : iterable of str
        The names to put back; None is all of them.

    Raises
    ------
    BadTypeError, BadValueError
        It is no snapshot; `timeout` is no number; or `only` is no list of names, or has one that the snapshot has not.
        Nothing has been written.
    """
    if not isinstance(snapshot, Snapshot):
        raise BadTypeError(f"a Snapshot is wanted, not {type(snapshot).__name__}")
    timeout = _seconds(timeout)
    rows = snapshot._index()
    wanted = dict.fromkeys(snapshot.name)  # of a name that was given twice the first row
    if only is not None:
        if isinstance(only, (str, bytes)) or not isinstance(only, Iterable):
            raise BadTypeError(f"only= is a list of names, not {type(only).__name__}")
        given = list(only)
        for each in given:
            if not isinstance(each, str):
                raise BadTypeError(
                    f"only= is a list of names; one is of type {type(each).__name__}"
                )
        chosen = set(given)
        unknown = sorted(chosen - wanted.keys())
        if unknown:
            more = ", ..." if len(unknown) > 10 else ""
            raise BadValueError(f"not in the snapshot: {', '.join(unknown[:10])}{more}")
        wanted = {name: None for name in wanted if name in chosen}

    failed: dict[str, BaseException] = {}
    names, values, cores = [], [], []
    for name in wanted:
        value = snapshot.value[rows[name]]
        if not snapshot.ok[rows[name]]:
            why = f"there is no value to put back to '{name}': {snapshot.errors.get(name, 'not read')}"
            failed[name] = BadValueError(why, name=name)
        elif _lossy(value):
            why = f"the text of '{name}' could not be decoded when it was read, and would come back changed"
            failed[name] = BadValueError(why, name=name)
        elif _filters.takes_slice(
            name
        ):  # as Channel.put does, but by the name: a file has no Channels
            why = f"put to '{name}': a slice is for reading; an IOC would write it to the start of the array"
            failed[name] = BadValueError(why, name=name)
        else:
            try:
                cores.append(_channel(snapshot._source, rows[name], name))
            except BadValueError as error:
                failed[name] = error
                continue
            names.append(name)
            values.append(value)

    def put(ready: list[int], left: float | None) -> list[Any]:
        return _bulk.put_all([cores[i] for i in ready], [values[i] for i in ready], wait, left)

    results = _as_connected(cores, timeout, "put", put)
    failed.update((n, e) for n, e in zip(names, results, strict=True) if e is not None)
    errors = {name: failed[name] for name in wanted if name in failed}
    return Restored([name for name in wanted if name not in failed], errors)


def _channel(source: _Source | None, row: int, name: str) -> Core:
    """The channel of a row, or a new one where there is none, or it has been closed or is of another process."""
    if source is None or row in source.nameless:
        return _core(name)
    core = source.cores[row]
    usable = core.context.alive and core.state != _CLOSED
    return core if usable else _core(core.name, core.priority)


def _lossy(value: Any) -> bool:
    """Whether a text has bytes in it that were none in the encoding in force (`epicsx.set_encoding`)."""
    if isinstance(value, list):
        return any("\ufffd" in text for text in value)
    return isinstance(value, str) and "\ufffd" in value
