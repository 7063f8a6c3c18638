"""Measures C, pyepics, aioca and epicsx beside each other: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from . import client, environment, report, rows, run
from .source import ARRAYS, Ioc

PROGRAMS = ["c", "pyepics", "aioca", "epicsx", "native", "hardened", "aio", "import"]


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} ({self.prog} --help tells more)\n")


def _arguments() -> argparse.Namespace:
    parser = _Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", help=f"comma-separated, of: {', '.join(rows.GROUPS)}")
    parser.add_argument("--programs", help=f"comma-separated, of: {', '.join(PROGRAMS)} (all)")
    parser.add_argument("--repeat", type=int, help="how often each is measured (3)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (2)")
    parser.add_argument("--quick", action="store_true", help="one short repeat, some 2 minutes")
    parser.add_argument("--json", metavar="FILE", help="write everything measured")
    parser.add_argument("--markdown", metavar="FILE", help="write the table and its notes")
    return parser.parse_args()


def _chosen(wanted: str | None, known: list[str], what: str) -> list[str]:
    if not wanted:
        return known
    chosen = [w.strip() for w in wanted.split(",") if w.strip()]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise SystemExit(f"no such {what}: {', '.join(unknown)}; there are: {', '.join(known)}")
    return chosen


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run what the command line asks for; 1 if a worker failed."""
    options = _arguments()
    repeats = options.repeat or (1 if options.quick else 3)
    seconds = options.seconds or (0.6 if options.quick else 2.0)
    warm = 0.2 if options.quick else 0.3
    groups = _chosen(options.rows, rows.GROUPS, "row")
    programs = _chosen(options.programs, PROGRAMS, "program")
    keys = [
        key for key, m in rows.MEASUREMENTS.items() if m.group in groups and m.program in programs
    ]
    if not run.HARDENED.is_dir():
        # the rows that compare the two builds make no sense with one of them
        keys = [key for key in keys if not key.startswith("hardened/")]
        if groups == ["hardened"]:
            raise SystemExit("there is no build/hardened yet: `make bench-hardened` makes it")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="epicsx-bench-") as folder:
        program = client.build(Path(folder))
        with Ioc() as ioc:
            this = run.Run(ioc, program, seconds, warm, _say)
            this.fill(ARRAYS)
            facts = environment.describe(ioc)
            for turn in range(repeats):
                _say(f"--- repeat {turn + 1} of {repeats}")
                for key in keys:
                    this.measure(key)
    words = ["python -m benchmarks", *sys.argv[1:]]
    facts["made by"] = f"`{' '.join(words)}`"
    facts["repeats"] = f"{repeats} of {seconds:g} s each, {time.monotonic() - began:.0f} s in all"
    all_lines = report.lines(this.results)
    told = report.notes(this.results)
    print("\n".join([*(f"{k}: {v}" for k, v in facts.items()), "", report.table(all_lines), ""]))
    print("\n".join(told))
    if options.markdown:
        Path(options.markdown).write_text(report.page(facts, all_lines, told))
    if options.json:
        document = {
            "environment": facts,
            "rows": [report.as_json(line) for line in all_lines],
            "measurements": this.results,
        }
        Path(options.json).write_text(json.dumps(document, indent=1))
    failed = any("error" in r for found in this.results.values() for r in found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
