"""The code in the pages of docs/: taken out as it stands, to be run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"

_FENCE = re.compile(r"^```(\w*)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.-]+\.\w+)$")


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page.

    Attributes
    ----------
    page : str, name of the page's file
    line : int, where the block's text begins, counted from 1
    language : str, as after the fence
    text : str
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        """The name of the file that it is: its first line is ``# NAME`` then. Empty if it is none."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(page: str, language: str = "") -> list[Snippet]:
    """The blocks of a page of docs/, by its name; of one language if that is given."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [
        Snippet(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in _FENCE.finditer(text)
    ]
    return [each for each in found if language in ("", each.language)]
