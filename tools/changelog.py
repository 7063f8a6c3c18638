"""Read CHANGELOG.md, which keeps to https://keepachangelog.com/en/1.1.0.

    python tools/changelog.py                    check its form
    python tools/changelog.py --release v0.2.0   what the release says; fails unless all is ready for it

A release is ready when the tag, `epicsx._version` and the newest section of the changelog name the same
version, and that section has a date and entries.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")

_HEADING = re.compile(
    r"\[(?P<version>Unreleased|\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)\]"
    r"(?: - (?P<date>\d{4}-\d\d-\d\d))?(?P<yanked> \[YANKED\])?"
)
_LINK = re.compile(r"\[[^\]]+\]: \S+$")


class ChangelogError(Exception):
    """The changelog is not in the form that its first lines promise; the text has the line."""


@dataclass
class Section:
    """One version of the changelog: when it was released, and its entries by kind."""

    version: str
    date: str | None
    yanked: bool = False
    text: list[str] = field(default_factory=list)
    entries: dict[str, list[str]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int, int, int, str, int]:
        """What versions are ordered by; what is not released yet is the newest."""
        found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?", self.version)
        if found is None:
            return (sys.maxsize, 0, 0, 0, "", 0)
        major, minor, micro, stage, number = found.groups()
        final = int(stage is None)
        return (int(major), int(minor), int(micro), final, stage or "", int(number or 0))


def _heading(title: str, line: int) -> Section:
    found = _HEADING.fullmatch(title)
    if found is None:
        raise ChangelogError(f"line {line}: not '[Unreleased]' or '[1.2.3] - 2001-02-03': {title}")
    version, date = found["version"], found["date"]
    if (version == "Unreleased") != (date is None):
        raise ChangelogError(f"line {line}: a version has a date, what is not released none")
    if date is not None:
        try:
            datetime.date.fromisoformat(date)
        except ValueError:
            raise ChangelogError(f"line {line}: {date} is no date") from None
    return Section(version, date, bool(found["yanked"]))


def parse(text: str) -> list[Section]:
    """The sections, newest first; ChangelogError if the form is not kept."""
    lines = text.splitlines()
    if not lines or lines[0] != "# Changelog":
        raise ChangelogError("line 1: not '# Changelog'")
    sections: list[Section] = []
    kind = ""
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("## "):
            sections.append(_heading(line[3:], number))
            kind = ""
        elif sections:
            _read(line, number, sections[-1], kind)
            kind = line[4:] if line.startswith("### ") else kind
    if not sections or sections[0].version != "Unreleased":
        raise ChangelogError("the first section is not [Unreleased]")
    keys = [s.key for s in sections]
    if keys != sorted(set(keys), reverse=True):
        raise ChangelogError("versions are not each once and newest first")
    dates = [s.date for s in sections if s.date]
    if dates != sorted(dates, reverse=True):
        raise ChangelogError("dates are not newest first")
    return sections


def _read(line: str, number: int, section: Section, kind: str) -> None:
    section.text.append(line)
    if line.startswith("### "):
        if line[4:] not in KINDS:
            raise ChangelogError(f"line {number}: {line[4:]} is none of {', '.join(KINDS)}")
        if line[4:] in section.entries:
            raise ChangelogError(f"line {number}: {section.version} has {line[4:]} twice")
        section.entries[line[4:]] = []
    elif line.startswith("- "):
        if not kind:
            raise ChangelogError(f"line {number}: an entry before the first of {', '.join(KINDS)}")
        section.entries[kind].append(line[2:])
    elif _LINK.match(line):  # the form ends with them: [0.2.0]: https://...
        section.text.pop()
    elif line.startswith("  ") and kind and section.entries[kind]:
        section.entries[kind][-1] += " " + line.strip()
    elif line.strip() and kind:
        raise ChangelogError(f"line {number}: neither an entry nor part of one: {line}")


def version() -> str:
    """The version in its one place."""
    path = ROOT / "src" / "epicsx" / "_version.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return str(ast.literal_eval(node.value))
    raise ChangelogError(f"{path} has no version")


def release(tag: str, sections: list[Section], current: str) -> str:
    """What the release `tag` says in the changelog; ChangelogError unless all is ready for it."""
    if tag != f"v{current}":
        raise ChangelogError(f"the tag is {tag}, but epicsx._version has {current}")
    newest = sections[1] if len(sections) > 1 else None
    if newest is None or newest.version != current:
        found = newest.version if newest else "none"
        raise ChangelogError(f"the newest version in the changelog is {found}, not {current}")
    if not any(newest.entries.values()):
        raise ChangelogError(f"the changelog says nothing of {current}")
    if "".join(sections[0].text).strip():
        raise ChangelogError("there is something under [Unreleased]; move it to the release")
    return "\n".join(newest.text).strip()


def main() -> None:
    """Check the changelog, or print what it says of a release."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--release", metavar="TAG", help="the tag, such as v0.2.0")
    args = parser.parse_args()
    try:
        sections = parse((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
        if args.release:
            sys.stdout.write(release(args.release, sections, version()) + "\n")
    except ChangelogError as exc:
        sys.exit(f"CHANGELOG.md: {exc}")


if __name__ == "__main__":
    main()
