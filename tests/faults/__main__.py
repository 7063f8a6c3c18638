"""`python -m tests.faults`: runs the catalogue under epicsx and pyepics, and writes docs/reliability.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults import report
from faults.harness import FACES, Outcome, Scenario, catalogue, number_of
from faults.runner import run


def main() -> int:
    """Run what is asked for; 1 if epicsx did not hold a scenario that it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "ids", nargs="*", help="only these, or those of a letter: C1, P; the others' rows stay"
    )
    parser.add_argument("--long", action="store_true", help="the long forms: hours")
    parser.add_argument("--face", choices=FACES, help="under one library only")
    parser.add_argument(
        "--stderr", action="store_true", help="show what the processes complained about"
    )
    parser.add_argument(
        "--build",
        metavar="NAME=FOLDER",
        action="append",
        default=[],
        type=lambda text: tuple(text.split("=", 1)),
        help="run under another build of epicsx, too: 'hardened' for what stock libca cannot hold",
    )
    given = parser.parse_args()
    scenarios = catalogue()
    chosen = [
        each
        for each in scenarios.values()
        if not given.ids or {each.id, each.id[0], number_of(each.id)} & set(given.ids)
    ]
    fresh: report.Results = {}
    wrong = []
    for each in chosen:
        for face in (given.face,) if given.face else FACES:
            if each.function(face) is not None:
                outcome = run(each, face, long=given.long)
                fresh[f"{each.id}/{face}"] = outcome
                told(outcome, face, show=given.stderr)
                if face == "epicsx" and not outcome.held and not each.needs:
                    wrong.append(each.id)
        for name, folder in given.build:
            if wants(each, name):
                outcome = run(each, "epicsx", long=given.long, build=folder)
                fresh[f"{each.id}/{name}"] = outcome
                told(outcome, name, show=given.stderr)
                if not outcome.held:
                    wrong.append(f"{each.id} ({name})")
        report.save(report.load() | fresh)  # another run may have written meanwhile
    results = report.load()
    text = report.page(
        scenarios,
        results,
        builds=sorted({key.partition("/")[2] for key in results} - set(FACES)),
        pyepics=importlib.metadata.version("pyepics"),
        machine=f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
    )
    report.PAGE.write_text(text, encoding="utf-8")
    print(f"written: {report.PAGE.relative_to(report.ROOT)}")
    if missing := report.missing(scenarios):
        print(f"not there: {' '.join(missing)}")
    if wrong:
        print(f"not held by epicsx: {' '.join(wrong)}")
    return 1 if wrong else 0


def wants(scenario: Scenario, build: str) -> bool:
    """Whether a scenario is run under another build, too: those that need one, and all of their letter."""
    return bool(scenario.needs) or scenario.id[0] == "F"


def told(outcome: Outcome, name: str, *, show: bool) -> None:
    """Say what came of one run."""
    held = "held" if outcome.held else "NOT HELD"
    print(f"{outcome.id:5s} {name:8s} {outcome.seconds:6.1f} s  {held}: {outcome.said}", flush=True)
    if show and outcome.stderr:
        print("      " + outcome.stderr.rstrip().replace("\n", "\n      "), flush=True)


if __name__ == "__main__":
    sys.exit(main())
