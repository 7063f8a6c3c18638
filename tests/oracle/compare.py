"""The list of differences, its marks, and the judgement of what two runs have shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oracle.steps import Told

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ABSENT = "(nothing)"

Pair = tuple[str, str]
"""What pyepics and what epicsx said."""


class BadEntry(ValueError):
    """An entry of the list that says too little, or something that is not so."""


@dataclass(frozen=True)
class Difference:
    """One entry of the list: a reason, where it is written, and every observation that differs for it.

    Attributes
    ----------
    seen : dict of (where, outputs) to int
        How many observations show these two outputs. `where` is "script/step/label"; "script/*/label" are those of
        all steps of a script that have this label.
    """

    cites: str
    why: str
    seen: dict[tuple[str, Pair], int]


def read_marks(path: Path = HERE / "marks.toml") -> dict[str, str]:
    """Everything that may be cited, with a line that says what it is: "behaviour 2.4 name", "design 7"."""
    with path.open("rb") as file:
        found = tomllib.load(file)
    return {f"{page} {mark}": text for page, marks in found.items() for mark, text in marks.items()}


def parse(given: Mapping[str, Any], marks: Mapping[str, str]) -> list[Difference]:
    """The entries of a list; BadEntry for one without a citation, a reason or both outputs."""
    found: list[Difference] = []
    known: set[tuple[str, Pair]] = set()
    for number, entry in enumerate(given.get("difference", ()), 1):
        cites, why, rows = entry.get("cites", ""), entry.get("why", ""), entry.get("seen", ())
        place = f"entry {number} ({rows[0][0] if rows else 'that shows nothing'})"
        if cites not in marks:
            raise BadEntry(f"{place} cites {cites!r}, which marks.toml has not")
        if not why.strip():
            raise BadEntry(f"{place} gives no reason")
        if not rows:
            raise BadEntry(f"{place} shows no output")
        seen: dict[tuple[str, Pair], int] = {}
        for where, *outputs in rows:
            texts, times = outputs[:2], outputs[2:] or [1]
            if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
                raise BadEntry(f"{where} does not show both outputs")
            if texts[0] == texts[1]:
                raise BadEntry(f"{where} shows the same output twice")
            key = (where, (texts[0], texts[1]))
            if key in known:
                raise BadEntry(f"{where} stands in the list twice")
            known.add(key)
            seen[key] = times[0]
        found.append(Difference(cites, why.strip(), seen))
    return found


def read_list(path: Path = HERE / "differences.toml") -> list[Difference]:
    """The list of the repository."""
    with path.open("rb") as file:
        return parse(tomllib.load(file), read_marks())


@dataclass
class Verdict:
    """What came of comparing one script's two runs with the list.

    Attributes
    ----------
    compared, listed : dict of str to int, observations per step; of these, differences that the list explains
    unlisted : dict of str to pair, differences that it does not
    stale : dict of (where, pair) to str, entries that are not as the list says
    """

    script: str
    compared: dict[str, int] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)
    unlisted: dict[str, Pair] = field(default_factory=dict)
    stale: dict[tuple[str, Pair], str] = field(default_factory=dict)

    @property
    def faults(self) -> str:
        """All that must not be, for people; nothing if all is well."""
        lines = [
            f"{where} differs, and is not in differences.toml:\n"
            f"    pyepics  {pyepics}\n    epicsx   {epicsx}"
            for where, (pyepics, epicsx) in self.unlisted.items()
        ]
        return "\n".join([*lines, *self.stale.values()])


def _lines(text: str) -> dict[str, str]:
    """The lines of a printed paragraph, by their number; as few as one if it is none."""
    return {str(n): line for n, line in enumerate(text.split("\\n"))}


def _reduced(one: dict[str, str], other: dict[str, str], form: str) -> Pair:
    """Of two that have items, only those items that differ."""
    differ = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]

    def show(items: dict[str, str]) -> str:
        return ", ".join(form.format(key, items.get(key, "(absent)")) for key in differ)

    return show(one), show(other)


def pair_of(pyepics: Told, epicsx: Told) -> Pair:
    """Two observations as they are shown and compared: equal if they are."""
    if isinstance(pyepics, dict) and isinstance(epicsx, dict):
        return _reduced(pyepics, epicsx, "{}={}")
    one, other = (
        told if isinstance(told, str) else ", ".join(f"{key}={text}" for key, text in told.items())
        for told in (pyepics, epicsx)
    )
    lines, others = _lines(one), _lines(other)
    if one != other and len(lines) == len(others) > 1:
        return _reduced(lines, others, "line {}: {}")
    return one, other


# numpy before 2.4 gives another text, or takes an array of one element as a number, with a warning.
_NUMPY = "raises TypeError: only 0-dimensional arrays can be converted to Python scalars"
_OLDER_NUMPY = re.compile(
    r"raises TypeError: only length-1 arrays can be converted to Python scalars"
    r"|\S+; warns 'DeprecationWarning: Conversion of an array with ndim > 0 to a scalar is deprecated.*'"
)


# Python 3.14 says more of some mistakes than the one that the list was made with.
_PYTHON_3_14 = (
    (
        re.compile(r"(TypeError: argument of type '\w+' is not) a container or iterable"),
        r"\1 iterable",
    ),
    (
        re.compile(
            r"(TypeError: )cannot use '[\w.]+' as a set element \((unhashable type: '\w+')\)"
        ),
        r"\1\2",
    ),
)


def _as_listed(told: Told) -> Told:
    """What pyepics said where numpy or Python refused, as those say it with which the list was made."""
    if not isinstance(told, str):
        return told
    if _OLDER_NUMPY.fullmatch(told):
        return _NUMPY
    for later, listed in _PYTHON_3_14:
        told = later.sub(listed, told)
    return told


def judge(
    script: str, pyepics: Mapping[str, Told], epicsx: Mapping[str, Told], known: list[Difference]
) -> Verdict:
    """Compare what two runs of a script have seen, and that with the list."""
    verdict = Verdict(script)
    left = {
        key: times
        for entry in known
        for key, times in entry.seen.items()
        if key[0].startswith(f"{script}/")
    }
    for name in dict.fromkeys((*pyepics, *epicsx)):
        step, _, label = name.rpartition("/")
        verdict.compared[step] = verdict.compared.get(step, 0) + 1
        pair = pair_of(_as_listed(pyepics.get(name, ABSENT)), epicsx.get(name, ABSENT))
        if pair[0] == pair[1]:
            continue
        for where in (f"{script}/{name}", f"{script}/*/{label}"):
            if (where, pair) in left:
                left[where, pair] -= 1
                verdict.listed[step] = verdict.listed.get(step, 0) + 1
                break
        else:
            verdict.unlisted[f"{script}/{name}"] = pair
    for (where, (one, other)), n in left.items():
        if n:
            verdict.stale[where, (one, other)] = (
                f"{where} is in differences.toml, but "
                f"{f'{n} of these were' if n > 0 else f'{-n} more were'}"
                f"{' not' if n > 0 else ''} seen:\n    pyepics  {one}\n    epicsx   {other}"
            )
    return verdict


def without_chance(
    first: Verdict, second: Verdict, epicsx: Mapping[str, Told], again: Mapping[str, Told]
) -> Verdict:
    """The verdict of a second run, without the faults that only one of them has, if that was pyepics' doing.

    `epicsx`, `again` are what epicsx saw in the two runs. Where its own answer was another, the fault stays.
    """

    def ours(where: str) -> bool:
        name = where.partition("/")[2]
        return epicsx.get(name, ABSENT) != again.get(name, ABSENT)

    steady = first.unlisted.keys() & second.unlisted.keys()
    second.unlisted = {
        where: pair
        for where, pair in {**first.unlisted, **second.unlisted}.items()
        if where in steady or ours(where)
    }
    if epicsx == again:
        second.stale = {key: told for key, told in second.stale.items() if key in first.stale}
    return second
