"""The edits that make libca safe against a bad server, and faster, for `EPICSX_EPICS=hardened`.

An edit is a piece of source text that must occur exactly once, and what takes its place. The build
refuses to go on when the text is not there any more, and names the guard. docs/hardened.md tells
what each is for; a test keeps the two lists equal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """In `file`, the one place that reads `find` becomes `replace`."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Guard:
    """A named group of edits that belong together."""

    name: str
    edits: tuple[Edit, ...]


# Headers of our own that the edits include; they lie in tools/hardened.
ADDED: tuple[str, ...] = ()

GUARDS: tuple[Guard, ...] = ()
