"""Request files: which PVs to save.

One PV name on a line, or several; ``#`` begins a comment. ``file "x.req", P=13IDA:, M=m1`` includes another file, which
is looked for beside the including one and then along the search path, with macros of its own. ``$(P)`` and ``${P}``
stand for a macro's value, ``$(P=text)`` for `text` if there is none. An included file knows the macros of the file that
includes it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from .._texts import failed
from ..errors import BadValueError
from ..utils import IOENCODING

_INCLUDE = re.compile(
    r"""file(?=[\s"'])\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s,"']+))"""
)
_MACRO = re.compile(
    r"""[\s,;]*(\w+)\s*=\s*("[^"]*"|'[^']*'|(?:\$\([^()]*\)|\$\{[^{}]*\}|[^\s,;"'])*)"""
)
_COMMENT = re.compile("#.*")
_CLOSING = {"(": ")", "{": "}"}


class RequestFileError(BadValueError):
    """A request or save file that cannot be understood; it names the file and the line."""


def expand(text: str, macros: Mapping[str, str], where: str) -> str:
    """`text` with its macros replaced by their values. One that has no value stays, or is an error if strict."""
    found: list[str] = []
    at = 0
    while (start := text.find("$", at)) >= 0:
        opened = text[start + 1 : start + 2] in _CLOSING
        if not opened:  # a dollar of its own, as in `x.DESC$`
            found.append(text[at : start + 1])
            at = start + 1
            continue
        end = _end(text, start + 1, where)
        found.append(text[at:start])
        name, has_default, default = _split(text[start + 2 : end], where)
        name = expand(name, macros, where).strip()
        if name in macros:
            found.append(macros[name])
        elif has_default:
            found.append(expand(default, macros, where))
        else:
            error = RequestFileError(f"{where}: the macro {name!r} has no value")
            found.append(failed(error, text[start : end + 1]))
        at = end + 1
    return "".join(found) + text[at:]


def _split(text: str, where: str) -> tuple[str, bool, str]:
    """The name of a macro, whether it has a default, and that; the name may have macros in it."""
    at = 0
    while at < len(text):
        if text[at] == "=":
            return text[:at], True, text[at + 1 :]
        nested = text[at] == "$" and text[at + 1 : at + 2] in _CLOSING
        at = _end(text, at + 1, where) + 1 if nested else at + 1
    return text, False, ""


def _end(text: str, opening: int, where: str) -> int:
    """Where the bracket at `opening` is closed."""
    depth = 0
    for i in range(opening, len(text)):
        if text[i] == text[opening]:
            depth += 1
        elif text[i] == _CLOSING[text[opening]]:
            depth -= 1
            if depth == 0:
                return i
    raise RequestFileError(f"{where}: a macro is not closed: {text[opening - 1 :]}")


def _macros(text: str, known: Mapping[str, str], where: str) -> dict[str, str]:
    """The macros that the rest of an include line gives, beside those known already."""
    found = dict(known)
    whole = text.strip(" \t,;")
    if whole[:1] in ('"', "'") and whole.find(whole[0], 1) == len(whole) - 1:
        text = whole[1:-1]  # synApps' form: all macros in one quoted string
    at = 0
    while text[at:].strip(" \t,;"):
        match = _MACRO.match(text, at)
        if match is None:
            raise RequestFileError(f"{where}: not a macro: {text[at:].strip(' ,;')!r}")
        name, value = match.groups()
        at = match.end()
        if value[:1] in ('"', "'"):
            value = value[1:-1]
        if value not in (f"$({name})", f"${{{name}}}"):  # else handed on as it is, if there is one
            found[name] = expand(value, known, where)
    return found


def _find(name: str, including: str, search_path: Sequence[str], where: str) -> str:
    folders = (os.path.dirname(including), *search_path)
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.isfile(path):
            return path
    tried = ", ".join(folder or os.curdir for folder in folders)
    raise FileNotFoundError(f"{where}: there is no file {name!r} in {tried}")


def read(
    path: str,
    macros: Mapping[str, str],
    search_path: Sequence[str],
    including: tuple[str, ...] = (),
) -> list[str]:
    """The PV names of a request file and those it includes, in their order.

    Raises
    ------
    RequestFileError
        A line that cannot be read, or a file that includes itself.
    OSError
        A file that is not there or cannot be read.
    """
    this = os.path.realpath(path)
    if this in including:
        chain = " includes ".join(os.path.basename(name) for name in (*including, this))
        raise RequestFileError(f"{path}: request files include each other: {chain}")
    with open(path, encoding=IOENCODING) as file:
        lines = file.read().splitlines()
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        text = _COMMENT.sub("", line).strip()
        if not text or text.startswith("<END>"):
            continue
        match = _INCLUDE.match(text)
        if match is None:
            names += expand(text, macros, where).split()
            continue
        name = next(part for part in match.groups() if part is not None)
        found = _find(expand(name, macros, where), path, search_path, where)
        given = _macros(text[match.end() :], macros, where)
        names += read(found, given, search_path, (*including, this))
    return names
