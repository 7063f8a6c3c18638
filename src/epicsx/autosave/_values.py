r"""Values as the text of a save file, and back.

============================  =======================================================================
a number                      as Python writes it, with all the digits that tell it from its neighbours
an enum                       its index
a text                        as it is; ``@json@ "a\nb"`` where a line of text could not hold it
an array of characters        as a text, if it is one; else as an array
any other array               ``@array@ [1.0, 2.0]``; ``@array@ { "1" "2" }``, as synApps writes it, is read too
============================  =======================================================================
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy

from .. import dbr
from ..utils import IOENCODING

ARRAY = "@array@"
TEXT = "@json@"

_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def as_text(value: Any, native_type: int, count: int) -> str:
    """What a save file has for a value of a record of that type and number of elements."""
    if count > 1:
        if native_type == dbr.CHAR:
            text = _as_characters(numpy.asarray(value, numpy.uint8).tobytes())
            if text is not None:
                return _quoted(text)
        items = value.tolist() if isinstance(value, numpy.ndarray) else list(value)
        return f"{ARRAY} {_json(items)}"
    return _quoted(value) if isinstance(value, str) else str(value)


def _as_characters(data: bytes) -> str | None:
    """The text of characters up to the first zero; None if they are no text, or more than that."""
    data, _, rest = data.partition(b"\0")
    try:
        return None if rest.strip(b"\0") else data.decode(IOENCODING)
    except UnicodeDecodeError:
        return None


def _writable(text: str) -> bool:
    try:
        text.encode(IOENCODING)
    except UnicodeEncodeError:
        return False
    return True


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if _writable(text) else json.dumps(value)


def _quoted(text: str) -> str:
    plain = (
        text == text.strip()
        and not text.startswith((ARRAY, TEXT))
        and text.replace("\t", " ").isprintable()
        and _writable(text)
    )
    return text if plain else f"{TEXT} {_json(text)}"


def from_text(text: str) -> Any:
    """What stands behind a PV's name in a save file: a str, or a list of str or numbers.

    Raises
    ------
    ValueError
        An array or a quoted text that is not complete.
    """
    if text.startswith(TEXT):
        value = json.loads(text[len(TEXT) :])
        if not isinstance(value, str):
            raise ValueError(f"{TEXT} has a quoted text behind it")
        return value
    if not text.startswith(ARRAY):
        return text
    content = text[len(ARRAY) :].strip()
    if not (content.startswith("{") and content.endswith("}")):
        value = json.loads(content)
        return value if isinstance(value, list) else [value]
    content = content[1:-1].strip()
    if content.startswith("["):  # pyepics reads it in braces too
        return json.loads(content)
    items: list[str] = []
    at = 0
    while content[at:].strip():
        match = _QUOTED.match(content, at)
        if match is None:
            raise ValueError(f"not a quoted element: {content[at:].strip()!r}")
        items.append(_ESCAPED.sub(r"\1", match[1]))
        at = match.end()
    return items


def for_record(value: Any, native_type: int, count: int) -> Any:
    """A value from a save file as a record of that type and number of elements takes it.

    Raises
    ------
    ValueError
        A text where the record has numbers.
    """
    if isinstance(value, str) and native_type == dbr.CHAR and count > 1:
        return value
    if not isinstance(value, list):
        return _one(value, native_type)
    items = [_one(item, native_type) for item in value[: max(1, count)]]
    return items if count > 1 or not items else items[0]


def _one(value: Any, native_type: int) -> Any:
    if native_type == dbr.STRING:
        return str(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if native_type in (dbr.FLOAT, dbr.DOUBLE):
        return float(text)
    try:
        return int(text, 0)
    except ValueError:
        pass
    if native_type == dbr.ENUM:
        return value  # the name of a state
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text!r} is not an integer")
    return int(number)
