"""The catalogue: each quick scenario is held by epicsx; EPICSX_FAULTS=all runs them all, as `make faults` does."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

import epicsx
from faults import report
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
    text = report.page(scenarios, results, pyepics="1.2.3", machine="one core")
    assert row(text, "C1") == ["3 \\* 4 ! 5 after 20 ms", "**Not held**: 2 of 3; late; 7 s"]
    assert row(text, "C2") == ["well", "**hangs**"]
    assert row(text, "C3") == ["-", "**SIGSEGV at the end**: 1 s"]
    assert row(text, "C4") == ["-", "-"]
    assert "epicsx held 2 of 2; pyepics held 0 of 3" in text
    assert "pyepics 1.2.3" in text and "one core" in text
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
    text = report.page(scenarios, results, builds=["hardened"])
    assert row(text, "C1") == ["-", "- (no ! way)"]
    assert row(text, "F1") == ["**SIGSEGV**", "dropped", "-"]
    assert "| epicsx | epicsx, hardened build | pyepics |" in text


def test_outcomes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "build" / "faults.json"
    assert report.load(path) == {}
    results = {"C1/epicsx": Outcome("C1", "epicsx", True, "text", {"seconds": 1.5}, stderr="ä")}
    report.save(results, path)
    assert report.load(path) == results


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
