"""Channel filters: their names in strict JSON, and what they do, for servers that have none.

An IOC applies the filters of ``RECORD.FIELD{"dbnd":{"abs":0.5}}`` to this channel alone, at the source. What it takes,
tried with EPICS base 7: ``REC.{...}``, ``REC.VAL{...}``, ``REC.DESC${...}`` and ``REC.VAL[2:5]{...}``; not ``REC{...}``
without the dot, and no dot between a field and the brace.

The order in the name is the order of work, but for ``arr``, which an IOC always applies last (after its event queue).
What is added here follows what the name has already, as ``dbnd``, ``dec``, ``ts``, ``arr``: so ``every=10`` takes each
tenth of the significant changes, and ``ts``, which copies the array, copies none that the others discard. ``ts`` still
copies before ``arr`` cuts, so that the slice is of the array that belongs to the stamp.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeAlias

import numpy as np

from .enums import ECA
from .errors import BadTypeError, BadValueError, ServerError

if TYPE_CHECKING:
    from ._sample import Sample

__all__ = ["filter_name"]

Deadband: TypeAlias = float | str
Slice: TypeAlias = slice | SupportsIndex | tuple[int | None, ...]
Filters: TypeAlias = dict[str, Any]
"""The filters by name, in their order, each with its parameters."""

# Record names may have braces ("XF:10{Mtr:1}"), never quotes: a brace before a quote begins the filters, wherever
# it stands; any other brace only behind the dot.
_JSON = re.compile(r'\{\s*"')
_INT32 = 2**31 - 1
_ANY = -(10**30)  # less than any index


def filter_name(
    name: str,
    *,
    deadband: Deadband | None = None,
    every: int | None = None,
    slice: Slice | None = None,
    coherent: bool = False,
) -> str:
    """The name of a PV behind channel filters, for whatever takes PV names: `Channel`, `PV`, `caget`.

    Nothing is asked of a server. Filters that `name` has already stay in front of the new ones.

    Parameters
    ----------
    name : str
        The PV, also with a field, a ``$`` or filters in strict JSON.
    deadband : float or str
        Updates only of changes by more than this; a text such as ``"5%"`` is relative to the last value told.
    every : int
        Only every n-th update, beginning with the first.
    slice : slice, int or (start, stop[, step])
        Only these elements of an array, counted as Python counts them: `stop` excluded, negative ones from the end. A
        negative `start` with a positive `stop` is refused: it can crash the IOC.
    coherent : bool
        Have the IOC copy an array when it posts it, so that data and stamp belong together; the stamp is that time.

    Raises
    ------
    BadTypeError, BadValueError
        For what filters cannot express, such as an empty slice or a negative step; for filters in `name` that are no
        strict JSON; for a filter that `name` has already.

    Examples
    --------
    >>> filter_name("image", slice=(0, 100), coherent=True)
    'image.{"ts":{},"arr":{"s":0,"i":1,"e":99}}'
    """
    if not isinstance(name, str):
        raise BadTypeError(f"a PV name is a str, not {type(name).__name__}")
    return joined(name, filters_of(name, deadband, every, slice, coherent))


def filters_of(
    name: str,
    deadband: Deadband | None = None,
    every: int | None = None,
    slice: Slice | None = None,
    coherent: bool = False,
) -> Filters:
    """The filters that stand for these wishes, in the order in which they are to work."""
    found: Filters = {}
    if deadband is not None:
        found["dbnd"] = _dbnd(name, deadband)
    if every is not None:
        found["dec"] = {"n": _clamp(_whole(name, "every", every, 1))}
    if coherent:
        found["ts"] = {}
    if slice is not None:
        found["arr"] = _arr(name, slice)
    return found


def joined(name: str, more: Mapping[str, Any]) -> str:
    """`name` with `more` filters behind those that it has."""
    front, filters = _split(name)
    for key in more:
        if key in filters or (key == "arr" and _has_subarray(front)):
            raise BadValueError(f"'{name}' has a filter {key!r} already", name=name)
    filters.update(more)
    if not filters:
        return name
    dot = "" if "." in front else "."
    return front + dot + json.dumps(filters, separators=(",", ":"), allow_nan=False)


def has_filters(name: str) -> bool:
    """Whether `name` ends in filters, well-formed or not."""
    return _start(name) >= 0 or _has_subarray(name)


def plain_name(name: str) -> str:
    """`name` without the filters and the subarray that it has, well-formed or not."""
    start = _start(name)
    front = name if start < 0 else name[:start]
    if _has_subarray(front):
        front = front[: front.index("[", front.index("."))]
    return front.removesuffix(".")


def has_stamp_filter(name: str) -> bool:
    """Whether `name` has the filter ``ts`` already; malformed filters raise BadValueError."""
    return "ts" in _split(name)[1]


def takes_slice(name: str) -> bool:
    """Whether `name` stands for elements of an array: for whoever writes, as an IOC writes them to the array's start.

    In doubt it does: an IOC also takes filters that are no strict JSON.
    """
    try:
        front, filters = _split(name)
    except BadValueError:
        text = name[_start(name) :]
        return "arr" in text or "\\" in text or _has_subarray(name[: _start(name)])
    return "arr" in filters or _has_subarray(front)


def _has_subarray(front: str) -> bool:
    return front.endswith("]") and "[" in front.partition(".")[2]


def _start(name: str) -> int:
    found = _JSON.search(name)
    if found:
        return found.start()
    dot = name.find(".")
    return name.find("{", dot) if dot >= 0 else -1


def _split(name: str) -> tuple[str, Filters]:
    start = _start(name)
    if start < 0:
        return name, {}

    def refuse(why: object) -> NoReturn:
        raise BadValueError(f"the filters of '{name}' are no strict JSON: {why}", name=name)

    def once(pairs: list[tuple[str, Any]]) -> Filters:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = sorted({key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1})
            raise BadValueError(f"'{name}' has {', '.join(map(repr, twice))} twice", name=name)
        return found

    try:
        found = json.loads(name[start:], object_pairs_hook=once, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        refuse(error)
    return name[:start], found


def _whole(name: str, what: str, given: SupportsIndex, least: int) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        number = None
    if number is None or isinstance(given, bool):
        kind = type(given).__name__
        raise BadTypeError(f"'{name}': {what} is a whole number, not {kind}", name=name)
    if number < least:
        raise BadValueError(f"'{name}': {what} is at least {least}, not {number}", name=name)
    return number


def _dbnd(name: str, given: Deadband) -> dict[str, float]:
    what = f"'{name}': a deadband is a number, or a text such as '5%'"
    kind, number_of = "abs", given
    if isinstance(given, str):
        kind, number_of = "rel", given.rstrip().removesuffix("%")
        if number_of == given.rstrip():
            raise BadValueError(f"{what}, not {given!r}", name=name)
    elif isinstance(given, bool) or not isinstance(given, (int, float, np.number)):
        raise BadTypeError(f"{what}, not {type(given).__name__}", name=name)
    try:
        number = float(number_of)
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise BadValueError(
            f"'{name}': a deadband is finite and not negative, not {given!r}", name=name
        )
    return {kind: abs(number)}  # abs: -0.0


def _arr(name: str, given: Slice) -> dict[str, int]:
    if isinstance(given, slice):
        start, stop, step = given.start, given.stop, given.step
    elif isinstance(given, tuple):
        if len(given) not in (2, 3):
            raise BadValueError(
                f"'{name}': a slice is (start, stop) or (start, stop, step), not {given!r}",
                name=name,
            )
        start, stop, step = (*given, None)[:3]
    else:
        index = _clamp(_whole(name, "an index", given, _ANY))
        return {"s": index, "i": 1, "e": index}
    first = 0 if start is None else _whole(name, "a slice's start", start, _ANY)
    by = 1 if step is None else _clamp(_whole(name, "a slice's step", step, 1))
    if stop is None:
        return {"s": _clamp(first), "i": by, "e": -1}
    end = _whole(name, "a slice's stop", stop, _ANY)
    # Each of these is empty whatever the array holds, and has no inclusive end: -1 would be all of it.
    if end == 0 or ((first < 0) == (end < 0) and end <= first):
        raise BadValueError(f"'{name}': the slice {given!r} is empty", name=name)
    if first < 0 < end:
        # The only kind that is longer the less the array holds. EPICS base (arr.c, as of 7.0.10) has memory for what it
        # takes of a full array: with fewer elements the IOC writes beyond that, or ends by a null pointer.
        raise BadValueError(
            f"'{name}': the slice {given!r} begins from the end of the array and ends from its start; "
            "EPICS base has no safe filter for that",
            name=name,
        )
    return {"s": _clamp(first), "i": by, "e": _clamp(end - 1)}


def _clamp(number: int) -> int:
    """What the IOC's 32 bits hold: more is beyond every array, and an index there means the same."""
    return max(-_INT32, min(number, _INT32))


def no_filters(plain: str, host: str, filtered: str) -> ServerError:
    """The error of a filtered name that a server does not have, though it has the plain one."""
    return ServerError(
        f"'{plain}' is connected to {host}, but '{filtered}' does not connect: this server has no such "
        "channel filters (EPICS base has dbnd, arr and ts since 3.15, dec since 7.0.1.1); "
        "filter(..., client_side=True) filters here instead",
        status=int(ECA.UNAVAILINSERV),
        name=filtered,
    )


# ------------------------------------------------- what the filters do, on the client


def chosen(arr: Mapping[str, int], count: int) -> slice:
    """What ``arr`` takes of `count` elements, by the IOC's own arithmetic."""
    start, end = arr["s"], arr["e"]
    start = min(max(start + count, 0) if start < 0 else start, count)
    end = min(max(end + count, 0) if end < 0 else end, count - 1)
    return slice(start, max(end + 1, start), arr["i"])


class Gate:
    """Which updates of one subscription pass ``dbnd`` and ``dec``, in the order of `filters`. For one thread."""

    def __init__(self, filters: Mapping[str, Any]) -> None:
        self._filters = [(key, filters[key]) for key in filters if key in ("dbnd", "dec")]
        self._connects = -1

    def passes(self, sample: Sample, connects: int) -> bool:
        """Whether it goes on to the callback; each connection, counted by `connects`, begins anew."""
        if connects != self._connects:
            self._connects = connects
            self._seen = 0
            self._last = math.nan
            self._alarm: tuple[int, int] | None = None
            self._hysteresis = 0.0
        return all(
            self._significant(sample, **how) if key == "dbnd" else self._due(how["n"])
            for key, how in self._filters
        )

    def _due(self, n: int) -> bool:
        due = self._seen == 0
        self._seen = (self._seen + 1) % n
        return due

    def _significant(self, sample: Sample, abs: float = 0.0, rel: float | None = None) -> bool:
        value = sample.value
        if not isinstance(value, (int, float)):
            return True  # texts and arrays pass, as on the IOC
        # On the IOC, changes of the alarm pass because their event says so; a client sees the alarm itself.
        alarm = (sample.status, sample.severity)
        passes = alarm != self._alarm
        self._alarm = alarm
        if _distance(value, self._last) > (abs if rel is None else self._hysteresis):
            passes = True
            self._last = value
        if passes and rel is not None:
            self._hysteresis = value * rel / 100.0
        return passes


def _distance(value: float, last: float) -> float:
    """How far two values lie apart for the IOC's ``recGblCheckDeadband``."""
    if math.isfinite(value) and math.isfinite(last):
        return abs(value - last)
    return 0.0 if value == last or (math.isnan(value) and math.isnan(last)) else math.inf
