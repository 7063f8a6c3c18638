"""What the pages of the documentation must have, beside snippets that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import epicsx

DOCS = Path(__file__).parents[2] / "docs"
# told of in other places of the reference: the modules have them
BY_MODULE = ("counts", "enums", "errors")
ELSEWHERE = {"__version__", "NO_ALARM", "MINOR_ALARM", "MAJOR_ALARM", "INVALID_ALARM"}


def test_the_reference_has_every_public_name() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    told = set(re.findall(r"auto(?:class|function):: epicsx\.(\w+)$", text, re.M))
    by_module = {name for name, module in vars(epicsx)["_NAMES"].items() if module in BY_MODULE}
    assert told | by_module | ELSEWHERE >= set(epicsx.__all__)
    assert told <= set(epicsx.__all__), "names that are no longer there"


def test_what_the_reference_tells_of_has_a_docstring() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name in re.findall(r"auto\w+:: (epicsx[\w.]+)$", text, re.M):
        found: Any = epicsx
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        assert (found.__doc__ or "").strip(), name


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
