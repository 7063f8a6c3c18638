"""Nothing differs from pyepics but what differences.toml lists and explains; and the list keeps its own rules."""

from __future__ import annotations

import os
from typing import Any

import pytest

from oracle.compare import (
    BadEntry,
    Difference,
    Verdict,
    judge,
    parse,
    read_list,
    read_marks,
    without_chance,
)
from oracle.examine import examine
from oracle.runner import scripts


@pytest.fixture(scope="module")
def known() -> list[Difference]:
    """Give the list of differences."""
    return read_list()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("script", scripts())
def test_no_unexplained_difference(script: str, known: list[Difference]) -> None:
    verdict, _, _ = examine(script, known, int(os.environ["EPICS_CA_REPEATER_PORT"]))
    n = sum(verdict.compared.values())
    print(f"{script}: {n} compared, {sum(verdict.listed.values())} listed differences")
    assert n > 0
    assert not verdict.faults, f"\n{verdict.faults}"


def test_the_list_names_no_script_that_is_not_there(known: list[Difference]) -> None:
    """As each script looks at its own entries only, these would never be looked at."""
    named = {where.partition("/")[0] for entry in known for where, _ in entry.seen}
    assert named <= set(scripts())


def test_the_count(known: list[Difference]) -> None:
    n = sum(times for entry in known for times in entry.seen.values())
    print(f"{len(known)} entries with {n} differences")
    assert n > 0


MARKS = {"design 7": "Errors"}
PLANTED: dict[str, Any] = {
    "cites": "design 7",
    "why": "Because.",
    "seen": [["script/step/label", "1", "2"]],
}


def planted(**changes: Any) -> list[Difference]:
    return parse({"difference": [{**PLANTED, **changes}]}, MARKS)


@pytest.mark.parametrize(
    "changes",
    [
        {"cites": ""},
        {"cites": "design 77"},
        {"why": " "},
        {"seen": []},
        {"seen": [["script/step/label", "1"]]},
        {"seen": [["script/step/label", "1", "1"]]},
        {"seen": [["script/step/label", "1", "2"], ["script/step/label", "1", "2"]]},
    ],
    ids=[
        "no citation",
        "unknown citation",
        "no reason",
        "no output",
        "one output",
        "same",
        "twice",
    ],
)
def test_an_entry_that_says_too_little_fails(changes: dict[str, Any]) -> None:
    assert planted()
    with pytest.raises(BadEntry):
        planted(**changes)


def test_a_difference_that_is_not_listed_fails() -> None:
    listed = judge("script", {"step/label": "1"}, {"step/label": "2"}, planted())
    assert not listed.faults
    assert listed.listed == {"step": 1}
    for pyepics, epicsx in (("1", "3"), ("3", "2")):
        verdict = judge("script", {"step/label": pyepics}, {"step/label": epicsx}, planted())
        assert "script/step/label differs" in verdict.faults
    assert judge("script", {"step/label": "1"}, {}, []).unlisted


def test_an_entry_that_no_longer_differs_fails() -> None:
    verdict = judge("script", {"step/label": "1"}, {"step/label": "1"}, planted())
    assert "1 of these were not seen" in verdict.faults
    other = judge("other", {"step/label": "1"}, {"step/label": "1"}, planted())
    assert not other.faults


def test_an_entry_for_several_steps_counts_them() -> None:
    seen = {"a/label": "1", "b/label": "1", "c/label": "9"}
    ours = {"a/label": "2", "b/label": "2", "c/label": "9"}
    for times, well in ((1, False), (2, True), (3, False)):
        entry = planted(seen=[["script/*/label", "1", "2", times]])
        assert (not judge("script", seen, ours, entry).faults) is well


def test_only_the_items_that_differ_are_shown() -> None:
    verdict = judge("s", {"x/y": {"a": "1", "b": "2"}}, {"x/y": {"a": "1", "c": "3"}}, [])
    assert verdict.unlisted == {"s/x/y": ("b=2, c=(absent)", "b=(absent), c=3")}


def test_what_a_second_run_does_not_show_is_chance_only_if_it_was_pyepics() -> None:
    """A difference that stays is a fault; so is one that went because epicsx answered something else."""
    ours = {"step/a": "1", "step/b": "1"}
    good = judge("script", ours, ours, [])
    hung = judge("script", {"step/the process": "hangs"}, ours, [])
    assert hung.faults
    assert not without_chance(hung, good, ours, ours).faults
    stays = judge("script", {"step/a": "2", "step/b": "1"}, ours, [])
    again = judge("script", {"step/a": "2", "step/b": "1"}, ours, [])
    assert "script/step/a" in without_chance(stays, again, ours, ours).unlisted
    before = {"step/a": "3", "step/b": "1"}
    good = judge("script", ours, ours, [])
    wrong = without_chance(judge("script", ours, before, []), good, before, ours)
    assert list(wrong.unlisted) == ["script/step/a"]
    # a chance of pyepics' in each of the two runs, and one of epicsx's in the second
    late = judge("script", {"step/a": "1", "step/b": "2"}, ours, [])
    assert late.faults
    assert not without_chance(hung_elsewhere(ours), late, ours, ours).faults
    late = judge("script", ours, before, [])
    assert list(without_chance(hung_elsewhere(ours), late, ours, before).unlisted) == [
        "script/step/a"
    ]


def test_an_entry_that_is_stale_in_both_runs_is_a_fault_whatever_the_count() -> None:
    """pyepics' chance at one step does not hide that epicsx has changed at another, nor the other way round."""
    entry = planted(seen=[["script/*/label", "1", "2", 3]])
    pyepics = {"a/label": "1", "b/label": "1", "c/label": "1"}
    ours = {"a/label": "2", "b/label": "2", "c/label": "1"}  # steadily another than listed
    chance = {**pyepics, "b/label": "2"}
    for one, two in ((pyepics, chance), (chance, pyepics)):
        first, second = judge("script", one, ours, entry), judge("script", two, ours, entry)
        assert "not seen" in without_chance(first, second, ours, ours).faults


def hung_elsewhere(ours: dict[str, str]) -> Verdict:
    """Give the verdict on a run in which pyepics hung at another step, and not before."""
    return judge("script", {**ours, "step/the process": "hangs"}, ours, [])


def test_every_mark_says_what_it_is() -> None:
    marks = read_marks()
    assert len(marks) > 50
    for key, text in marks.items():
        assert key.startswith("design ") or text.startswith(("B: ", "B?: ")), key
