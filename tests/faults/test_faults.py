"""The catalogue: each quick scenario is held by epicsx; EPICSX_FAULTS=all runs them all, as `make faults` does."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import epicsx
from faults import report
from faults.__main__ import asked
from faults.data import gaps
from faults.harness import MODULES, SCENARIOS, Figure, Outcome, Scenario, catalogue
from faults.runner import run

ALL = os.environ.get("EPICSX_FAULTS") == "all"
BUILD = epicsx.build_info()[
    "mode"
]  # what a scenario needs, where stock libca is known not to hold it
CHOSEN = [
    each for each in catalogue().values() if (ALL or each.quick) and each.needs in ("", BUILD)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda each: each.id)
def test_held(chosen: Scenario) -> None:
    outcome = run(chosen, "epicsx")
    print(f"{outcome.id}: {outcome.said} ({outcome.seconds:.1f} s)")
    assert outcome.held, f"{outcome.said}\n--- its stderr ---\n{outcome.stderr[-8000:]}"


# ---- the catalogue and its page


def made(id: str, *, run: bool = True, without: str = "", needs: str = "") -> Scenario:
    scenario = Scenario(
        id,
        f"{id} is done",
        "nothing | happens",
        1.0,
        False,
        1,
        {},
        needs,
        False,
        lambda room: Figure(""),
    )
    if run:
        scenario.pyepics(lambda room: Figure(""))
    if without:
        scenario.without_pyepics(without)
    return scenario


def row(text: str, id: str) -> list[str]:
    """The cells of a scenario's row, without those before the first result."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {id} "))
    return [cell.strip() for cell in line.replace("\\|", "!").strip("| ").split("|")][3:]


def test_the_page_shows_every_way_to_end() -> None:
    scenarios = {id: made(id) for id in ("C1", "C2", "C3", "C4")}
    results = {
        "C1/epicsx": Outcome("C1", "epicsx", True, "3 * 4 | 5 after\n20 ms"),
        "C1/pyepics": Outcome("C1", "pyepics", False, "7 s", missed=["2 of 3", "late"]),
        "C2/epicsx": Outcome("C2", "epicsx", True, "well"),
        "C2/pyepics": Outcome("C2", "pyepics", False, ended="hangs"),
        "C3/pyepics": Outcome("C3", "pyepics", False, "1 s", ended="SIGSEGV at the end"),
    }
    for outcome in results.values():
        outcome.measured, outcome.machine = "2026-07-01", "one core"
    results["C2/epicsx"].long = True
    results["C2/pyepics"].library = "pyepics 1.2.3"
    text = report.page(scenarios, results)
    day = "2026-07-01"
    assert row(text, "C1") == ["3 \\* 4 ! 5 after 20 ms", "**Not held**: 2 of 3; late; 7 s", day]
    both = f"epicsx: {day}, long form; pyepics: {day}"
    assert row(text, "C2") == ["well", "**hangs**", both]
    assert row(text, "C3") == ["-", "**SIGSEGV at the end**: 1 s", day]
    assert row(text, "C4") == ["-", "-", "-"]
    assert "epicsx held 2 of 2; pyepics held 0 of 3" in text
    assert "under pyepics 1.2.3." in text and "(one core)" in text
    assert "## Connection" in text and "## Data path" not in text
    assert all(f"- {id}: " in text for id in report.NOT_RUN)


def test_the_page_shows_another_build_where_it_was_run() -> None:
    scenarios = {
        "C1": made("C1", run=False, without="no | way"),
        "F1": made("F1", needs="hardened"),
    }
    results = {
        "F1/epicsx": Outcome("F1", "epicsx", False, ended="SIGSEGV"),
        "F1/hardened": Outcome("F1", "epicsx", True, "dropped"),
    }
    text = report.page(scenarios, results)
    assert row(text, "C1")[:2] == ["-", "- (no ! way)"]
    assert row(text, "F1")[:3] == ["**SIGSEGV**", "dropped", "-"]
    assert "| epicsx | epicsx, hardened build | pyepics |" in text
    assert "epicsx held 0 of 1; epicsx, hardened build held 1 of 1" in text


def test_outcomes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "build" / "faults.json"
    assert report.load(path) == {}
    where = f"in {sys.prefix}/lib and {report.ROOT}/src"
    outcome = Outcome("C1", "epicsx", True, where, {"seconds": 1.5}, [where], stderr="ä")
    outcome.measured, outcome.long = "2026-07-01", True
    report.save({"C1/epicsx": outcome}, path)
    text = "in (Python)/lib and ./src"
    kept = replace(outcome, text=text, missed=[text], stderr="")
    assert report.load(path) == {"C1/epicsx": kept}


def test_the_page_is_that_of_the_results() -> None:
    """What is committed as docs/reliability.md is written from docs/reliability.json, so that a run loses no row."""
    results = report.load()
    assert results
    assert report.PAGE.read_text(encoding="utf-8") == report.page(catalogue(), results)


def test_an_unknown_id_is_an_error() -> None:
    scenarios = {id: made(id) for id in ("C1", "C8a", "C8b", "P1")}
    assert [each.id for each in asked(scenarios, ["C8", "P"])] == ["C8a", "C8b", "P1"]
    assert [each.id for each in asked(scenarios, [])] == list(scenarios)
    with pytest.raises(ValueError, match="no such scenario: c1 C3"):
        asked(scenarios, ["c1", "P1", "C3"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["c1"], "no such scenario: c1"),
        (["C1", "--build", "hardened"], "'hardened' is not NAME=FOLDER"),
        (["C1", "--build", "epicsx=."], "with a name but"),
        (["C1", "--build", "hardened=nowhere"], "there is no epicsx in 'nowhere'"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is(arguments: list[str], error: str) -> None:
    before = report.PAGE.stat().st_mtime_ns
    command = [sys.executable, "-m", "tests.faults", *arguments]
    done = subprocess.run(command, cwd=report.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert error in done.stderr.splitlines()[-1]
    assert report.PAGE.stat().st_mtime_ns == before


def test_one_alone_has_its_environment() -> None:
    command = [sys.executable, "-m", "tests.faults.run", "X12", "epicsx"]
    done = subprocess.run(command, cwd=report.ROOT, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["text"], told["missed"]) == (0, "yes", [])


def test_another_build_is_what_runs(tmp_path: Path) -> None:
    """A folder without epicsx is passed over by the import, which the runner sees."""
    importlib.import_module("faults.planted")
    outcome = run(SCENARIOS["X7"], "epicsx", build=str(tmp_path))
    assert not outcome.held and outcome.missed[0].startswith("not of this build, but of ")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_faults_makes_the_hardened_build_and_runs_it() -> None:
    command = ["make", "-n", "-B", "faults"]
    done = subprocess.run(command, cwd=report.ROOT, capture_output=True, text=True, check=True)
    assert "EPICSX_EPICS=hardened" in done.stdout
    assert "-m tests.faults --build hardened=" in done.stdout
    assert "pytest" not in done.stdout, "the build alone"


def test_gaps_are_of_the_numbers_not_of_their_order() -> None:
    assert gaps([]) == gaps([5.0]) == gaps([5.0, 4.0, 6.0, 7.0]) == gaps([4.0, 4.0, 5.0]) == 0
    assert gaps([4.0, 7.0]) == gaps([7.0, 4.0]) == 2


def test_nothing_of_the_catalogue_is_left_out() -> None:
    """Each scenario is there, or in the list of what is not run; a letter whose module is not there yet aside."""
    here = Path(__file__).parent
    there = [letter for letter, names in MODULES.items() if (here / f"{names[0]}.py").exists()]
    assert [id for id in report.missing(catalogue()) if id[0] in there] == []
    assert all(each.other is not None or each.without for each in catalogue().values())


@pytest.mark.parametrize(
    ("id", "held", "ended", "missed"),
    [
        ("X1", False, "hangs", []),
        ("X2", False, "SIGTERM", []),
        ("X3", False, "return code 3 at the end", []),
        ("X4", False, "", ["2 of 3"]),
        ("X5", False, "", ["not within 0.01 s: the impossible"]),
        ("X6", False, "", ["a traceback on standard error"]),
        ("X7", True, "", []),
        ("X8", False, "", ["SystemExit(0)"]),
        ("X9", False, "ends without a result", []),
        ("X10", False, "", ["return code 1", "all: gives 'return code 1'"]),
        ("X11", True, "", []),
        ("X12", True, "", []),
    ],
)
def test_what_the_runner_makes_of(id: str, held: bool, ended: str, missed: list[str]) -> None:
    importlib.import_module("faults.planted")
    outcome = run(SCENARIOS[id], "epicsx")
    assert (outcome.held, outcome.ended, outcome.missed) == (held, ended, missed)
    if id in ("X3", "X7"):
        assert (outcome.text, outcome.numbers) == ("done", {"seconds": 1.5})
    if id == "X1":
        assert "most recent call first" in outcome.stderr, "it is told where it hung"
