"""The parity table, and docs/parity.md."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from oracle.compare import Difference, Pair, Verdict, read_marks

PAGE = Path(__file__).parent.parent.parent / "docs" / "parity.md"


def rows(verdicts: list[Verdict]) -> list[tuple[str, str, int, int, int, int]]:
    """For each step: script, step, compared, same, listed, unexplained."""
    found = []
    for verdict in verdicts:
        wrong = Counter(where.split("/", 1)[1].rpartition("/")[0] for where in verdict.unlisted)
        for step, n in verdict.compared.items():
            listed, bad = verdict.listed.get(step, 0), wrong[step]
            found.append((verdict.script, step, n, n - listed - bad, listed, bad))
    return found


def totals(verdicts: list[Verdict]) -> tuple[int, int, int, int]:
    """Compared, same, listed, unexplained."""
    cells = [row[2:5] for row in rows(verdicts)]
    stale = sum(len(verdict.stale) for verdict in verdicts)
    n, same, listed = (sum(row[i] for row in cells) for i in (0, 1, 2))
    wrong = sum(len(verdict.unlisted) for verdict in verdicts) + stale
    return n, same, listed, wrong


def table(verdicts: list[Verdict]) -> str:
    """The parity table as text."""
    lines = [
        f"{'script':12s} {'step':34s} {'compared':>8s} {'same':>6s} {'listed':>6s} unexplained"
    ]
    lines += [
        f"{script:12s} {step:34s} {n:8d} {same:6d} {listed:6d} {bad:11d}"
        for script, step, n, same, listed, bad in rows(verdicts)
    ]
    n, same, listed, bad = totals(verdicts)
    lines.append(f"{'':12s} {'all':34s} {n:8d} {same:6d} {listed:6d} {bad:11d}")
    return "\n".join(lines)


_INTRO = """# Parity with pyepics

The oracle runs the same scripts under pyepics 3.5.10 and under epicsx, each in its own process, against one IOC.
It compares values, types, dtypes, texts, exceptions, warnings, printed output, callback keywords and callback order.
This page is written by `make parity` and has the whole result: how much was compared, and every difference with its
reason.

Addresses, ports, prefixes and the time of day are shown as words (`P:`, `PORT`, `TIME`). An exception stands by the
builtin, or pyepics' own class, that it is. `S:` are records that both clients read.
"""


def page(verdicts: list[Verdict], known: list[Difference]) -> str:
    """The page."""
    n, same, listed, _ = totals(verdicts)
    marks = read_marks()
    lines = [
        _INTRO,
        f"{n} observations compared; {same} are the same, {listed} differ for the {len(known)} reasons below.\n",
        "## What was compared\n",
        "| script | step | compared | same | listed |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {script} | {step} | {n} | {same} | {listed} |"
        for script, step, n, same, listed, _ in rows(verdicts)
    ]
    lines += ["", "## What differs, and why\n"]
    for number, entry in enumerate(known, 1):
        lines += [
            f"### {number}. {marks[entry.cites]}\n",
            f"{entry.why} ({entry.cites})\n",
            "```text",
        ]
        for (where, (pyepics, epicsx)), times in entry.seen.items():
            often = f" ({times} times)" if times > 1 else ""
            lines += [where + often, f"    pyepics  {pyepics}", f"    epicsx   {epicsx}"]
        lines += ["```\n"]
    return "\n".join(lines).rstrip() + "\n"


def as_toml(verdict: Verdict) -> str:
    """The unlisted differences of a script, as rows of `seen` in differences.toml."""
    alike: dict[tuple[str, Pair], list[str]] = {}
    for where, pair in verdict.unlisted.items():
        alike.setdefault((where.rpartition("/")[2], pair), []).append(where)
    lines = []
    for (label, pair), places in alike.items():
        row: list[object] = [places[0], *pair]
        if len(places) > 1:
            row = [f"{verdict.script}/*/{label}", *pair, len(places)]
        lines.append(f"    {json.dumps(row, ensure_ascii=False)},")
    return "\n".join(lines)
