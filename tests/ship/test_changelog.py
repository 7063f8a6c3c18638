"""The changelog keeps the form that it promises, and a release is made only when all is ready for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from epicsx import __version__

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
import changelog  # noqa: E402

GOOD = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-03-01

Words of introduction.

### Added

- One thing,
  told on two lines.

### Fixed

- Another.

## [0.2.0rc1] - 2026-02-01

### Added

- A first try.

[Unreleased]: https://example.org/compare/v0.2.0...HEAD
[0.2.0]: https://example.org/compare/v0.2.0rc1...v0.2.0
"""


def test_our_own_is_in_that_form() -> None:
    sections = changelog.parse((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert sections[0].version == "Unreleased"
    assert sum(len(e) for s in sections for e in s.entries.values()) > 10
    # the version in _version is the newest released, or the one that is being made
    released = [s for s in sections if s.date]
    current = changelog.Section(__version__, None)
    assert all(s.key <= current.key for s in released)


def test_a_good_one_is_read() -> None:
    unreleased, second, candidate = changelog.parse(GOOD)
    assert unreleased.entries == {}
    assert (second.version, second.date) == ("0.2.0", "2026-03-01")
    assert second.entries == {"Added": ["One thing, told on two lines."], "Fixed": ["Another."]}
    assert candidate.version == "0.2.0rc1"


def test_a_yanked_release_is_marked() -> None:
    text = GOOD.replace("2026-03-01", "2026-03-01 [YANKED]")
    assert [s.yanked for s in changelog.parse(text)] == [False, True, False]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# Changelog", "# History", "line 1"),
        ("## [Unreleased]\n", "", "first section is not"),
        ("[0.2.0] - 2026-03-01", "0.2.0 (2026-03-01)", "line 5"),
        ("[0.2.0] - 2026-03-01", "[0.2.0]", "has a date"),
        ("2026-03-01", "2026-13-01", "no date"),
        ("### Fixed", "### Mended", "Mended is none of"),
        ("### Fixed", "### Added", "Added twice"),
        ("### Added\n\n- One", "- One", "before the first of"),
        ("[0.2.0] ", "[0.1.0] ", "newest first"),
        ("2026-03-01", "2026-01-01", "dates are not newest first"),
        ("- Another.", "Another.", "neither an entry"),
    ],
)
def test_what_breaks_the_form_is_told(old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(changelog.ChangelogError, match=told):
        changelog.parse(GOOD.replace(old, new, 1))


def test_a_release_that_is_ready_has_its_text() -> None:
    text = changelog.release("v0.2.0", changelog.parse(GOOD), "0.2.0")
    assert text.startswith("Words of introduction.")
    assert text.endswith("- Another.")
    assert "first try" not in text


@pytest.mark.parametrize(
    ("tag", "current", "old", "new", "told"),
    [
        ("v0.3.0", "0.2.0", "", "", "the tag is v0.3.0"),
        ("0.2.0", "0.2.0", "", "", "the tag is 0.2.0"),
        ("v0.3.0", "0.3.0", "", "", "newest version in the changelog is 0.2.0"),
        (
            "v0.2.0",
            "0.2.0",
            "## [Unreleased]\n",
            "## [Unreleased]\n\n### Added\n\n- More.\n",
            "move",
        ),
        ("v0.2.0", "0.2.0", "## [Unreleased]\n", "## [Unreleased]\n\nMore to come.\n", "move"),
    ],
)
def test_a_release_that_is_not_ready_is_refused(
    tag: str, current: str, old: str, new: str, told: str
) -> None:
    with pytest.raises(changelog.ChangelogError, match=told):
        changelog.release(tag, changelog.parse(GOOD.replace(old, new, 1)), current)
