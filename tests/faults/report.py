"""docs/reliability.md: every scenario with what was expected, and what epicsx and pyepics did.

The page is written from docs/reliability.json, which is committed with it: a run replaces the outcomes of what it has
run, and no other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from faults.harness import FACES, Outcome, Scenario, number_of

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = PAGE.with_suffix(".json")

LETTERS = {
    "C": ("Connection", 15),
    "D": ("Data path", 11),
    "P": ("Puts and access", 7),
    "L": ("Python's life cycle", 12),
    "F": ("Hostile servers", 8),
    "E": ("Environment", 4),
}
"""Headings, and how many scenarios the catalogue has of each."""

NOT_RUN = {
    "L10": "free-threaded Python under ThreadSanitizer: it needs an interpreter that is built so, and wheels of numpy "
    "and Cython for it",
    "E4": "24 hours with 2000 monitors: the slopes of memory, files and threads are measured over minutes, by L6 "
    "and by the leak tests",
}
"""What no run on one machine within an hour can show, and why."""

Results = dict[str, Outcome]
"""Outcomes by "ID/epicsx", "ID/pyepics", or "ID/" and the name of another build of epicsx."""

_INTRO = """# Reliability

Servers die, hang, come back as something else, or send nonsense; programs fork, exit and block. Each row below does one
such thing to a client and says what came of it, under epicsx and under {pyepics}. This page is written by
`make faults`.

How to read it. A figure alone means that all that was expected came. **Not held** stands before what did not; **hangs**
means that the process had not ended at the scenario's limit, a signal's name that it died of it. A dash means that the
scenario makes no sense there, with the reason.

How it was made. Each scenario ran in a process of its own, for each library anew, with a hard limit after which the
process is killed. Servers are EPICS base's soft IOCs, a proxy that cuts, stalls and drops by rules, and a scripted
server for nonsense; all on 127.0.0.1, with ports of their own. Where a peer goes silent `EPICS_CA_CONN_TMO` is 2 s, so
that Channel Access finds out after 7 s instead of 35. Each result is that of its last run, on the day that the last
column tells, under load ({machine}); times tell orders of magnitude. What has so many seconds and is late is
mostly done again, up to five times in all: a machine under load puts processes aside.
The column of the hardened build has what a stock libca is known not to hold, and all hostile servers
([what it guards](hardened.md)). The code is in `tests/faults`, one function a row.

{totals}
"""


def cell(scenario: Scenario, outcome: Outcome | None, face: str) -> str:
    """What one run gave, for a table."""
    if outcome is None:
        return f"- ({_plain(scenario.without)})" if face == "pyepics" and scenario.without else "-"
    said = _plain("; ".join(filter(None, (*outcome.missed, outcome.text))))
    if outcome.held:
        return said
    return f"**{outcome.ended or 'Not held'}**" + (f": {said}" if said else "")


def _plain(text: str) -> str:
    """One line without what a table or Markdown would take for its own."""
    text = " ".join(text.split())
    for mark in "\\|`*_<>[]$":
        text = text.replace(mark, "\\" + mark)
    return text


def page(scenarios: Mapping[str, Scenario], results: Results) -> str:
    """The page, from what has been run."""
    builds = sorted({key.partition("/")[2] for key in results} - set(FACES))
    totals = "; ".join(
        f"{_named(face)} held {good} of {run}"
        for face in ("epicsx", *builds, "pyepics")
        for good, run in (_count(scenarios, results, face),)
    )
    machines = sorted({each.machine for each in results.values()} - {""})
    versions = sorted({each.library for each in results.values() if each.face == "pyepics"} - {""})
    lines = [
        _INTRO.format(
            pyepics=" and ".join(versions) or "pyepics",
            machine="; ".join(machines),
            totals=f"Of the scenarios that were run, {totals}.",
        )
    ]
    for letter, (heading, _) in LETTERS.items():
        rows = [each for each in scenarios.values() if each.id[0] == letter]
        if not rows:
            continue
        faces = ["epicsx", *_builds_of(rows, results, builds), "pyepics"]
        heads = ["", "what is done", "expected", *(_named(face) for face in faces), "measured"]
        lines += [f"## {heading}\n", "| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        for row in rows:
            there = [results.get(f"{row.id}/{face}") for face in faces]
            cells = [cell(row, *each) for each in zip(there, faces, strict=True)]
            cells.append(_measured(there, faces))
            lines.append(
                "| " + " | ".join([row.id, _plain(row.how), _plain(row.expected), *cells]) + " |"
            )
        lines.append("")
    lines += ["## What is not run here\n"]
    lines += [f"- {id}: {why}." for id, why in NOT_RUN.items()]
    return "\n".join(lines) + "\n"


def write(scenarios: Mapping[str, Scenario]) -> None:
    """Write the page from the results that are kept."""
    PAGE.write_text(page(scenarios, load()), encoding="utf-8")


def missing(scenarios: Mapping[str, Scenario]) -> list[str]:
    """Which of the catalogue's scenarios are neither there nor explained."""
    there = {number_of(id) for id in scenarios} | set(NOT_RUN)
    whole = [f"{letter}{n + 1}" for letter, (_, count) in LETTERS.items() for n in range(count)]
    return [id for id in whole if id not in there]


def _builds_of(rows: list[Scenario], results: Results, builds: Iterable[str]) -> list[str]:
    return [name for name in builds if any(f"{row.id}/{name}" in results for row in rows)]


def _measured(outcomes: list[Outcome | None], faces: list[str]) -> str:
    """The day of a row's results, and which are of the long form; of each by itself where they differ."""
    days = {
        _named(face): outcome.measured + (", long form" if outcome.long else "")
        for outcome, face in zip(outcomes, faces, strict=True)
        if outcome is not None
    }
    if len(set(days.values())) == 1:
        return next(iter(days.values()))
    return "; ".join(f"{face}: {day}" for face, day in days.items()) or "-"


def _named(face: str) -> str:
    return face if face in ("epicsx", "pyepics") else f"epicsx, {face} build"


def _count(scenarios: Mapping[str, Scenario], results: Results, face: str) -> tuple[int, int]:
    found = [results[key] for id in scenarios if (key := f"{id}/{face}") in results]
    return sum(each.held for each in found), len(found)


def load(path: Path = RESULTS) -> Results:
    """The outcomes of former runs, which this one's replace one by one."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: Outcome(**outcome) for key, outcome in found.items()}


def _kept(outcome: Outcome) -> dict[str, object]:
    """What is kept of an outcome: no standard error, and no path of the machine."""
    told = {
        field.name: getattr(outcome, field.name)
        for field in fields(outcome)
        if field.name != "stderr"
    }
    told["text"], *told["missed"] = map(_without_paths, (outcome.text, *outcome.missed))
    return told


def _without_paths(text: str) -> str:
    return text.replace(sys.prefix, "(Python)").replace(str(ROOT), ".")


def save(results: Results, path: Path = RESULTS) -> None:
    """Keep outcomes for `load`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {key: _kept(results[key]) for key in sorted(results)}
    text = json.dumps(told, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
