"""`python -m tests.faults`: runs the catalogue under epicsx and pyepics, and writes docs/reliability.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults import report
from faults.harness import FACES, Outcome, Scenario, catalogue, number_of
from faults.runner import run


def build(text: str) -> tuple[str, str]:
    """Read NAME=FOLDER, where a built epicsx is."""
    name, _, folder = text.partition("=")
    if not name or not folder or name in FACES:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER, with a name but {FACES}")
    if not (Path(folder) / "epicsx" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"there is no epicsx in {folder!r}")
    return name, str(Path(folder).resolve())


def asked(scenarios: Mapping[str, Scenario], ids: Sequence[str]) -> list[Scenario]:
    """The scenarios of these ids, numbers or letters; all, without.

    Raises
    ------
    ValueError
        One of them is none.
    """
    names = {id: {id, id[0], number_of(id)} for id in scenarios}
    unknown = [id for id in ids if not any(id in each for each in names.values())]
    if unknown:
        raise ValueError(f"no such scenario: {' '.join(unknown)}")
    return [scenarios[id] for id, each in names.items() if not ids or each & set(ids)]


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
        type=build,
        help="run under another build of epicsx, too: 'hardened' for what stock libca cannot hold",
    )
    parser.add_argument(
        "--page", action="store_true", help="run nothing; write the page from the results"
    )
    given = parser.parse_args()
    scenarios = catalogue()
    try:
        chosen = [] if given.page else asked(scenarios, given.ids)
    except ValueError as error:
        parser.error(str(error))
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
        report.write(scenarios)  # now, should this run be ended before its time
    report.write(scenarios)
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
