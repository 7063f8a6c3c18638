"""The workflows: actions pinned by commit, no permission that is not said. `make workflows` has the linters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
_PINNED = re.compile(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+(\.\d+)+")


def test_there_are_three() -> None:
    assert [w.name for w in WORKFLOWS] == ["ci.yml", "docs.yml", "wheels.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: str(p.name))
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = [
        line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line
    ]
    assert used
    assert [u for u in used if not _PINNED.fullmatch(u)] == []


def test_an_action_has_one_version_everywhere() -> None:
    pins = {u for w in WORKFLOWS for u in re.findall(r"uses: (\S+@\S+ # \S+)", w.read_text())}
    names = [p.partition("@")[0] for p in pins]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: str(p.name))
def test_nothing_is_permitted_that_a_job_does_not_name(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)
    granted = set(re.findall(r"^ {6}([a-z-]+): write", text, re.MULTILINE))
    expected = {"ci.yml": set(), "docs.yml": {"pages", "id-token"}}
    assert granted == expected.get(path.name, {"attestations", "id-token"})
