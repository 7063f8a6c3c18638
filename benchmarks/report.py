"""From results to a table: medians over the repeats, ratios, goals, and the notes below it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from . import rows
from .source import RATES

Results = dict[str, list[dict[str, object]]]


@dataclass(frozen=True)
class Line:
    """One line of the table, in numbers; NaN where there is none."""

    title: str
    unit: str
    c: float
    pyepics: float
    aioca: float
    epicsx: float
    to_c: float
    to_pyepics: float
    to_aioca: float
    goal: str
    reached: float  # how far the goal is reached; 1 and more is met
    error: str

    @property
    def met(self) -> str:
        """What the last column says."""
        if self.error:
            return "error"
        if not self.goal or math.isnan(self.reached):
            return ""
        return "met" if self.reached >= 1.0 else f"missed ({self.reached:.2f})"


def _series(results: Results, key: str | None, figure: str) -> list[float]:
    return [rows.figure(r, figure) for r in results.get(key, [])] if key else []


def _median(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return statistics.median(known) if known else math.nan


def _worst(values: Sequence[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=math.nan)


def _ratio(mine: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios within each repeat: only figures of one moment compare."""
    return _median([a / b for a, b in zip(mine, other, strict=False) if b])


def _reached(row: rows.Row, results: Results, mine: Sequence[float]) -> float:
    goal = row.goal
    if not goal:
        return math.nan
    limits = [goal.offset] * len(mine)
    if goal.reference:
        keys = {"c": row.c, "pyepics": row.pyepics, "aioca": row.aioca, "numpy": row.numpy}
        key = keys[goal.reference]
        reference = _series(results, key, row.figure)
        limits = [goal.factor * r + goal.offset for r in reference]
    if goal.least:
        return _ratio(mine, limits)
    # Nothing at all is within every limit, and within a limit of nothing it alone is.
    pairs = zip(limits, mine, strict=False)
    return _median([1.0 if m <= 0 else limit / m for limit, m in pairs])


def lines(results: Results) -> list[Line]:
    """The lines of all rows that were measured."""
    found = []
    for row in rows.ROWS:
        if not any(key in results for key in (row.epicsx, row.c, row.pyepics, row.aioca)):
            continue
        mine = _series(results, row.epicsx, row.figure)
        theirs = _series(results, row.pyepics, row.figure)
        aioca = _series(results, row.aioca, row.figure)
        c = _series(results, row.c, row.figure)
        if row.figure == "lost":  # a loss in one repeat is a loss: no median hides it
            mine, theirs, c = ([_worst(s)] * len(s) for s in (mine, theirs, c))
        failed = [r["error"] for r in results.get(row.epicsx, []) if "error" in r]
        found.append(
            Line(
                row.title,
                rows.UNITS[row.figure],
                _median(c),
                _median(theirs),
                _median(aioca),
                _median(mine),
                _ratio(mine, c),
                _ratio(mine, theirs),
                _ratio(mine, aioca),
                str(row.goal) if row.goal else "",
                _reached(row, results, mine),
                str(failed[0]) if failed else "",
            )
        )
    return found


def as_json(line: Line) -> dict[str, object]:
    """The line for machines; None where there is no number."""
    plain = {
        k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(line).items()
    }
    return {**plain, "met": line.met}


def number(value: float) -> str:
    """A figure with three digits that mean something."""
    if math.isnan(value):
        return ""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.3g}{unit}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cells(line: Line) -> list[str]:
    def times(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.3g}"

    return [
        line.title,
        line.unit,
        number(line.c),
        number(line.pyepics),
        number(line.aioca),
        number(line.epicsx),
        times(line.to_c),
        times(line.to_pyepics),
        times(line.to_aioca),
        line.goal,
        line.met,
    ]


HEAD = [
    *("scenario", "", "C", "pyepics", "aioca", "epicsx"),
    *("/ C", "/ pyepics", "/ aioca", "must reach", ""),
]


def table(all_lines: Sequence[Line]) -> str:
    """The table in Markdown, padded so that it reads well as plain text too."""
    body = [_cells(line) for line in all_lines]
    widths = [max(len(r[i]) for r in [HEAD, *body]) for i in range(len(HEAD))]
    right = range(2, 9)

    def text(cells: Sequence[str]) -> str:
        padded = [
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (w - 1) + ":" if i in right else "-" * w for i, w in enumerate(widths)]
    return "\n".join([text(HEAD), text(rule), *map(text, body)])


def notes(results: Results) -> list[str]:
    """What a reader must know beside the table: the sources, the losses, the ages, the failures."""
    found = []
    for key, repeats in results.items():
        good = [r for r in repeats if "error" not in r]
        for failure in (str(r["error"]) for r in repeats if "error" in r):
            found.append(f"{key}: FAILED: {failure}")
        if good:
            said = [
                *_source(good),
                *_delivery(good),
                *_delays(good),
                *_growth(good),
                *_variant(good),
            ]
            if said:
                found.append(f"{key}: {'; '.join(said)}")
    return found


def _source(good: list[dict[str, object]]) -> list[str]:
    posted = _median([rows.figure(r, "posted") for r in good])
    if math.isnan(posted):
        return []
    rate = _median([rows.figure(r, "rate") for r in good])
    busy = _median([rows.figure(r, "cpu") / rows.figure(r, "seconds") for r in good])
    text = f"IOC posted {number(posted)}/s, client {100 * busy:.0f} % of a core"
    if rate > 0.97 * posted:
        text += ", limited by the event source"
    elif busy < 0.6:
        text += ", limited by the IOC's sending, not by the client"
    return [text]


def _delivery(good: list[dict[str, object]]) -> list[str]:
    last, said = good[-1], []
    if "received" in last:
        keys = ("received", "delivered", "merged", "dropped", "pending")
        said.append(", ".join(f"{key} {last[key]}" for key in keys))
    if "counted_by" in last:
        said.append(f"counted by {last['counted_by']}")
    ages = last.get("age_ms")
    if isinstance(ages, list) and len(ages) == 2:
        first, second = (float(a) for a in ages)
        grows = ", GROWING" if second > 2.0 * first + 20.0 else ""
        said.append(f"age {first:.3g} ms, then {second:.3g} ms{grows}")
    return said


def _delays(good: list[dict[str, object]]) -> list[str]:
    if "p99_ms" not in good[-1]:
        return []
    p50, p99, most = (
        _median([rows.figure(r, key) for r in good]) for key in ("p50_ms", "p99_ms", "max_ms")
    )
    lost = ", ".join(f"{rows.figure(r, 'lost'):.0f}" for r in good)
    said = [f"p50 {p50:.3g} ms, p99 {p99:.3g} ms, max {most:.3g} ms; lost in each repeat: {lost}"]
    if "beside" in good[-1]:
        said.append(f"beside it {good[-1]['beside']}")
    return said


def _growth(good: list[dict[str, object]]) -> list[str]:
    if "growth" not in good[-1]:
        return []
    marks = [(r["first_frames"], r["first_rss"], r["last_frames"], r["last_rss"]) for r in good]
    return [f"{a} frames: {b} bytes resident, {c} frames: {d}" for a, b, c, d in marks]


def _variant(good: list[dict[str, object]]) -> list[str]:
    return [f"faster by {v}" for v in sorted({str(r["variant"]) for r in good if "variant" in r})]


PAGE = """\
# Performance

What epicsx does per second beside pyepics, aioca and C, measured by `make bench`; this page was
written by it. C is a small client doing the same work straight on libca (`benchmarks/c/client.c`):
the limit that libca sets. All talk to one soft IOC over loopback, in turns within one run. Figures
are medians over the repeats; **only the ratios count**, as absolute figures move by tens of percent
from machine to machine and from run to run.

{facts}

{table}

## How to read it

- **get, put**: one after the other. *put, no wait*: each put is flushed; the clock stops when a
  record on the IOC has counted the last. *put, wait*: with completion.
- **many**: channels are connected beforehand. **connect**: `PV(name, auto_monitor=False)` for each
  name, then `wait_for_connection` on each; `epicsx.connect(names)`; C ends when all are connected.
- **asyncio**: `epicsx.aio` and aioca run one and the same program; `camonitor` with
  `all_updates=True` and FORMAT_TIME, `async for` in a task for each PV; the same records as below,
  200 times per second, and for the flood 1000 times, which leaves the loop what libca's threads and
  the IOC's do not need.
- **updates**: 1000 calc records that one scan thread of the IOC processes {rate:g} times per
  second. `callback(**kw)` is the callback of pyepics, which takes everything by keyword; *native*
  takes a sample and reads its value. *CPU* is all that the process used, per update.
- **10 000 updates/s**: the same records, ten every millisecond.
- **image, waveform**: one record, processed by a scan thread of the IOC more often than a client
  can take it (waveform 1k: as often as the scan thread can). C copies each array once, into a ring
  of 64. C's get is the faster of `ca_array_get_callback` and `ca_array_get` with `ca_pend_io`.
- **stream**: read in a loop by the main thread, `depth=64`, `coherent=False`, so that C and epicsx
  ask the IOC for the same work; the C client's ring is as deep. `reduce=mean()` makes one number
  of each image in libca's own buffer, where C copies it.
- **Recorder**: every update as a row of stamp, value, source and alarm; C, which it is compared
  with, keeps the newest value of each PV alone.
- **beside images**: a scalar posted 1000 times per second, and images of 4.18 MB 25 times per
  second whose consumer takes 30 ms for each: with the GIL released, or held by a C function.
  The delay is from the IOC's stamp to the entry of the scalar's callback; what is lost is seen by
  gaps in the value, a counter. C has one context for each PV, and no GIL.
- **memory growth**: resident memory after 100 000 frames of 1000 float64 less that after 10 000.
- **import**: everything a script uses; numpy's own import is what the goal is measured from.
- **age**: from the IOC's time stamp to the delivery, medians of the first and the second half of
  a run, which must not grow. Without a callback: of the value found when looking now and then.
- The IOC's threads take real-time priority when they may. Its setting is left alone and printed,
  since it shifts figures both ways.

## Notes, by measurement

{notes}
"""


def page(facts: dict[str, str], all_lines: Sequence[Line], told: Sequence[str]) -> str:
    """The whole page in Markdown."""
    return PAGE.format(
        facts="\n".join(f"- {name}: {text}" for name, text in facts.items()),
        table=table(all_lines),
        notes="\n".join("- " + note.replace("\n", "\n  ") for note in told),
        rate=RATES["all"],
    )
