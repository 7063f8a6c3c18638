"""Texts that came from elsewhere, made safe to show: the one place that escapes them.

A PV's name, a string, a unit, a state's name, a server's error: whoever runs a server chooses them, and a terminal
obeys what they contain; a newline makes one line of a log two, of which one is forged. A leaf: imports nothing of ours.
"""

from __future__ import annotations

import logging

__all__ = ["ESCAPING", "NAMED", "code_of", "printable"]

NAMED = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\0": r"\0",
}
"""C's short escapes."""


def code_of(character: str) -> str:
    """The escape that stands for a character; of a byte that was no UTF-8 (a lone surrogate) that of the byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return NAMED.get(character) or character.encode("unicode_escape").decode("ascii")


def printable(text: str, keep: str = "") -> str:
    """`text` with what does not print escaped, but for the characters in `keep`: for a terminal, for a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else code_of(c) for c in text)


class _Escaping(logging.Filter):
    """Has each record's message in one line, and its traceback without what a terminal obeys."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments do not fit: the handler says so, and where
            return True
        if not message.isprintable():
            record.msg, record.args = printable(message), ()
        if record.exc_info and not record.exc_text:
            text = _FORMATTER.formatException(record.exc_info)
            safe = printable(text, keep="\n\t")
            if safe != text:  # a formatter takes this where it is set
                record.exc_text = safe
        return True


_FORMATTER = logging.Formatter()

ESCAPING = _Escaping()
"""The filter of epicsx's own loggers, whatever handlers a program gives them."""
