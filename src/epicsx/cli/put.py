"""Write a value to a PV and print it before and after, as caput does.

    epicsx put motor:VAL 2.5
    epicsx put -a wave 3 0.1 0.2 0.3

Values may begin with a minus: options come before the PV.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._tools import arranged, ca_options, complain, guarded, separator_option, tool_epilog

if TYPE_CHECKING:
    from .._ca import Core

__all__ = ["arguments", "run", "split"]

MAX_TEXT = 39
"""Bytes of a DBR_STRING, but for its NUL."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of caput, and those beyond."""
    parser.usage = (
        "epicsx put [options] PV VALUE ...\n"
        "       epicsx put -a [options] PV NUMBER-OF-VALUES VALUE ..."
    )
    parser.epilog = tool_epilog("caput")
    parser.add_argument(
        "pvs", nargs=1, metavar="PV", help="what follows are the values, for all but -a one text"
    )
    ca_options(parser)
    add = parser.add_argument
    add("-c", dest="callback", action="store_true", help="wait until the record has finished")
    shown = parser.add_argument_group("what is shown (default: name and value, before and after)")
    add = shown.add_argument
    add("-t", dest="form", action="store_const", const="terse", help="the value after, alone")
    add(
        "-l",
        dest="form",
        action="store_const",
        const="wide",
        help="stamp, status, severity as well",
    )
    separator_option(add)
    parser.set_defaults(form="plain")
    add = parser.add_argument_group("what is written").add_argument
    add("-n", dest="enum", action="store_const", const="n", help="to an enum: its number")
    add("-s", dest="enum", action="store_const", const="s", help="to an enum: its state's name")
    add("-S", dest="shape", action="store_const", const="S", help="a text as an array of CHAR")
    add("-a", dest="shape", action="store_const", const="a", help="an array")
    add("-#", dest="ignored", metavar="COUNT", help="taken and ignored, as by caput")
    add = parser.add_argument_group("beyond caput").add_argument
    add(
        "--json",
        action="store_true",
        help="one JSON object with all facts, and the value before as old",
    )


def split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """Options and PV; and the values, which are no options, whatever they look like."""
    options, others = arranged(parser, words, first_ends=True)
    return ([*options, "--", others[0]] if others else options), others[1:]


def run(options: argparse.Namespace) -> int:
    """Write, print, and return the exit code."""
    return guarded("put", lambda: _put(options))


def _put(options: argparse.Namespace) -> int:
    from ..errors import CATimeoutError
    from ._facts import json_line
    from ._format import Format
    from ._reading import Reading
    from ._tools import Failure, Output, find, not_found, opened, timeout_of

    words = _words(options)
    output = Output()
    how = Format(
        enum_numbers=options.enum == "n",
        long_strings=options.shape == "S",
        separator=options.separator,
        terminal=output.terminal,
    )
    timeout = timeout_of(options)
    [channel] = opened(options.pvs, options.priority)
    if find([channel], timeout):
        raise Failure(not_found([channel]))
    core = channel._core
    value, dbr_type = _value(core, words, options, timeout)
    reads = argparse.Namespace(
        form=options.form,
        type=-1,
        count=0,
        callback=False,
        as_string=False,
        enum_numbers=how.enum_numbers,
        facts=options.json,
    )
    errors = []

    def read(what: str) -> dict[str, Any] | None:
        """Print the value as it is now; for JSON give its facts back."""
        found = None
        reading = Reading(channel, reads, timeout)
        if options.json:
            found = reading.facts(how.long_strings)
        else:
            output.write(what + reading.lines(reads, how))
        if reading.error is not None:
            errors.append(reading.error)
        return found

    old = None if options.form == "terse" and not options.json else read("Old : ")
    before = core.stats.rejected_puts
    failed: object = None
    try:
        core.put(value, options.callback, timeout, dbr_type=dbr_type)
    except CATimeoutError:
        failed = f"Write callback operation timed out: '{core.name}' has not finished"
    # The answer to this comes behind a refusal of the put, in the same circuit.
    new = read("" if options.form == "terse" else "New : ")
    if new is not None and options.json:
        output.write(json_line({**new, "old": old["value"] if old is not None else None}))
    if core.stats.rejected_puts > before:
        shown = " ".join(options.rest)
        failed = f"'{core.name}': the server refused {shown!r}: Channel write request failed"
    told = [failed] if failed is not None else []
    for error in [*told, *errors[:1]]:
        complain("put", error)
    return 1 if told or errors else 0


def _words(options: argparse.Namespace) -> list[str]:
    """The values as texts, a character for each byte."""
    from ._tools import Failure

    words = [os.fsencode(word).decode("latin-1") for word in options.rest]
    if not words:
        raise Failure("no value was given", 2)
    if options.shape != "a":
        return [" ".join(words)]
    # What the number says is not looked at, by caput neither: the values are counted.
    if not words[0].isdigit():
        raise Failure(f"with -a the number of values comes first, not {words[0]!r}", 2)
    if len(words) == 1:
        raise Failure("no value was given", 2)
    return words[1:]


def _value(
    core: Core, words: list[str], options: argparse.Namespace, timeout: float | None
) -> tuple[Any, int]:
    """What is sent, and as which DBR type."""
    import numpy as np

    from ._format import CHAR, ENUM, STRING, unescaped

    if core.native_type == ENUM:
        return _of_enum(core, words, options, timeout)
    if options.shape == "S":
        raw = unescaped(words[0]).encode("latin-1") + b"\0"
        return np.frombuffer(raw, np.uint8), CHAR
    texts = [_text(word) for word in words]
    return (texts if options.shape == "a" else texts[0]), STRING


def _text(word: str) -> bytes:
    from ._format import unescaped
    from ._tools import Failure

    text = unescaped(word).split("\0")[0].encode("latin-1")
    if len(text) > MAX_TEXT:
        raise Failure(
            f"a text of {len(text)} bytes, and Channel Access sends {MAX_TEXT}: -S for longer ones"
        )
    return text


def _of_enum(
    core: Core, words: list[str], options: argparse.Namespace, timeout: float | None
) -> tuple[Any, int]:
    """The states' names as texts, or numbers where one of them is none, as doubles."""
    from ._format import DOUBLE, STRING, unescaped
    from ._tools import Failure

    control = core.get(24, 1, timeout).control
    states = (control.enum_strings if control is not None else None) or ()
    texts = words if options.enum == "n" else [unescaped(word).split("\0")[0] for word in words]
    if options.enum != "n" and all(text in states for text in texts):
        names = [text.encode("latin-1") for text in texts]
        return (names if options.shape == "a" else names[0]), STRING
    numbers = []
    for text in texts:
        if options.enum != "n" and text in states:
            numbers.append(float(states.index(text)))
            continue
        number = None if options.enum == "s" else _number(text)
        if number is None:
            what = (
                "Enum index value {!r} is not a number"
                if options.enum == "n"
                else "Enum string value {!r} invalid"
            )
            known = ", ".join(repr(state) for state in states) or "none"
            raise Failure(f"{what.format(text)}: '{core.name}' has the states {known}")
        if not 0 <= number < 65536:
            raise Failure(f"an enum's number is 0 to 65535, not {text}")
        if number >= len(states):
            complain("put", f"Warning: enum index value '{text}' may be too large.")
        numbers.append(number)
    return (numbers if options.shape == "a" else numbers[0]), DOUBLE


def _number(text: str) -> float | None:
    reads: tuple[Callable[[str], float], ...] = (float, lambda t: float(int(t, 0)))
    for read in reads:
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    return None
