"""What `epicsx get`, `put`, `monitor` and `info` have in common: options, finding the PVs, what is written where.

Threads
    The caller's, for all but `Output.write`, which any thread may call.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._printable import printable
from ._format import Format, type_name

if TYPE_CHECKING:
    from .._channel import Channel

__all__ = [
    "EXIT_CODES",
    "Failure",
    "Output",
    "arranged",
    "ca_options",
    "chosen_format",
    "dbr_type",
    "find",
    "format_options",
    "guarded",
    "interval",
    "number_of",
    "one_line",
    "opened",
    "some_seconds",
    "tool_epilog",
]

MOST_DIGITS = 18

AT_ONCE = 65536
"""Bytes of one system call: whether a slow reader takes any is seen from one to the next."""

LONGEST = 1e9
"""Seconds, some 31 years: a longer wait is as long as this, as locks and the core take none of 292 years."""

EXIT_CODES = """\
Exit codes:
  0    all was done
  1    something was not: a PV was not found, not read, not written, lost
  2    it could not begin: an unknown option, a bad value
  130  ended by Ctrl-C
"""


class Failure(Exception):
    """One line for stderr, and the exit code."""

    def __init__(self, text: object, code: int = 1) -> None:
        super().__init__(str(text))
        self.code = code


# ---------------------------------------------------------------------- options


def _number(text: str, least: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{what} is wanted, not {text!r}")
    return min(value, LONGEST)


def some_seconds(text: str) -> float:
    """Seconds, more than 0."""
    return _number(text, 5e-324, "a number of seconds above 0")


def wait_time(text: str) -> float:
    """Seconds, 0 or more."""
    return _number(text, 0.0, "a number of seconds")


def interval(text: str) -> float:
    """Seconds, more than 0."""
    return _number(text, 1e-3, "a number of seconds, at least 0.001,")


def number_of(what: str, most: int) -> Callable[[str], int]:
    """A whole number from 0 to `most`."""

    def number(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text) or int(text) > most:
            raise argparse.ArgumentTypeError(f"{what} is 0 to {most}, not {text!r}")
        return int(text)

    return number


def _style(text: str) -> str:
    if text not in ("x", "o", "b"):
        raise argparse.ArgumentTypeError(f"x, o or b is wanted, not {text!r}")
    return text


def _separator(text: str) -> str:
    # The C tools take the first byte, and a NUL where there is none.
    return os.fsencode(text)[:1].decode("latin-1") or "\0"


def dbr_type(text: str) -> int:
    """A DBR type by its number or its name, with or without ``DBR_``; INT is SHORT."""
    numbers = {type_name(number): number for number in (*range(35), 37, 38)}
    if re.fullmatch(r"\d{1,2}", text):
        found = int(text) if int(text) in numbers.values() else None
    else:
        name = re.sub(r"INT$", "SHORT", text.upper().removeprefix("DBR_"))
        found = numbers.get(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"no DBR type that can be read: {text!r}")
    return found


class _Real(argparse.Action):
    """-e, -f or -g with a number of digits: the printf format."""

    def __call__(self, parser: Any, options: Any, value: Any, option: str | None = None) -> None:
        options.real = f"%-.{value}{(option or self.option_strings[0])[-1]}"


class _Version(argparse.Action):
    """-V: the EPICS whose libca this is, in the C tools' words."""

    def __call__(self, parser: Any, options: Any, value: Any, option: str | None = None) -> None:
        from .. import build_info

        info = build_info()
        release, protocol = info["libca_version"], info["ca_protocol"]
        print(f"\nEPICS Version EPICS {release}, CA Protocol version {protocol}")
        parser.exit()


def ca_options(parser: argparse.ArgumentParser) -> None:
    """Declare -w, -p and -V."""
    add = parser.add_argument_group("Channel Access").add_argument
    add(
        "-w",
        dest="timeout",
        type=wait_time,
        metavar="SECONDS",
        help="how long to wait; 0 is for ever (default: EPICS_CLI_TIMEOUT, or 1)",
    )
    add(
        "-p",
        dest="priority",
        type=number_of("a priority", 99),
        default=0,
        metavar="PRIORITY",
        help="0 (default) to 99: channels of another priority have a circuit of their own",
    )
    add("-V", action=_Version, nargs=0, help="the EPICS of the libca in use; then end")


def format_options(parser: argparse.ArgumentParser, integers: Any = None) -> None:
    """Declare how values are shown; `integers` is an action for -0, if it does more than choose the style."""
    add = parser.add_argument_group("how values are shown").add_argument
    add("-n", dest="enum_numbers", action="store_true", help="enums as numbers")
    add(
        "-#",
        dest="count",
        type=number_of("a number of elements", 2**31 - 1),
        default=0,
        metavar="COUNT",
        help="the first COUNT elements of an array (default: all)",
    )
    add("-S", dest="long_strings", action="store_true", help="an array of CHAR as a text")
    for letter in "efg":
        add(
            f"-{letter}",
            action=_Real,
            type=number_of("a number of digits", MOST_DIGITS),
            metavar="DIGITS",
            help=f"floating-point numbers by %%{letter} with so many digits",
        )
    add(
        "-s",
        dest="as_string",
        action="store_true",
        help="floating-point numbers as the server's text",
    )
    add(
        "-l",
        dest="rounded",
        type=_style,
        metavar="x|o|b",
        help="floating-point numbers rounded, as -0 shows integers",
    )
    add(
        "-0",
        dest="whole",
        type=_style,
        metavar="x|o|b",
        help="integers as hexadecimal, octal or binary numbers",
        **({"action": integers} if integers else {}),
    )
    separator_option(add)
    parser.set_defaults(real="%g")


def separator_option(add: Callable[..., Any]) -> None:
    """Declare -F."""
    add(
        "-F",
        dest="separator",
        type=_separator,
        default=" ",
        metavar="CHARACTER",
        help="what stands between two fields (default: a blank)",
    )


def chosen_format(options: argparse.Namespace, output: Output) -> Format:
    """The format that the options choose."""
    return Format(
        whole=options.whole or "d",
        rounded=options.rounded or "",
        real=options.real,
        enum_numbers=options.enum_numbers,
        long_strings=options.long_strings,
        separator=options.separator,
        terminal=output.terminal,
    )


def tool_epilog(tool: str, *notes: str) -> str:
    """What stands below the options: which C tool this is, what differs, the exit codes."""
    told = f"All options of EPICS base's {tool}, with the same output; see docs/commands.md.\n"
    return "\n".join([told, *notes, EXIT_CODES])


def arranged(
    parser: argparse.ArgumentParser, words: Sequence[str], *, first_ends: bool = False
) -> tuple[list[str], list[str]]:
    """The options of a command line, and what is not an option, as getopt tells them apart.

    argparse wants all PVs in one place, and takes ``-5`` for an option. With `first_ends` nothing behind the first word
    that is no option is one, as for caput, whose values may begin with a minus.
    """
    takes: dict[str, bool] = {}
    for action in parser._actions:
        for option in action.option_strings:
            takes[option] = action.nargs is None
    options: list[str] = []
    others: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            others += left
            break
        if word == "-" or not word.startswith("-"):
            others.append(word)
            if first_ends:
                others += left
                break
        elif word.startswith("--"):
            name, equals, _ = word.partition("=")
            known = [o for o in takes if o.startswith(name)]
            wants = takes[name] if name in takes else len(known) == 1 and takes[known[0]]
            options.append(word)
            if wants and not equals and left:
                options[-1] += "=" + left.pop(0)
        else:
            options += _cluster(word, takes, left)
    return options, others


def _cluster(word: str, takes: dict[str, bool], left: list[str]) -> list[str]:
    """The options of one word of letters, each with its value."""
    found = []
    for place in range(1, len(word)):
        option = "-" + word[place]
        value = word[place + 1 :]
        if not takes.get(option, False):
            found.append(option)
            continue
        if value:
            return [*found, option + value]
        if left:
            value = left.pop(0)
            # An empty value cannot be attached, and any other must be, for it may begin with a minus.
            return [*found, option + value] if value else [*found, option, value]
        return [*found, option]
    return found


# ---------------------------------------------------------------------- output


class Output:
    """Standard output, in bytes: what a server sent goes out as it came. Nothing is held back."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._fd = sys.stdout.fileno()
        self.terminal = os.isatty(self._fd)
        self.waiting_since: float | None = None
        """When a write began, by the monotonic clock, that is not done; None if there is none."""

    def write(self, text: str, encoding: str = "latin-1") -> None:
        """Write all of `text`; by the system call, as a lock of Python's could keep the interpreter from ending."""
        raw = memoryview(text.encode(encoding, "surrogateescape"))
        try:
            while raw:
                self.waiting_since = monotonic()
                raw = raw[os.write(self._fd, raw[:AT_ONCE]) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from None
        finally:
            self.waiting_since = None


def guarded(command: str, do: Callable[[], int]) -> int:
    """What `do` returns; what goes wrong is one line on stderr. Errors of standard output are left to `main`."""
    import logging

    from .._dbr import set_encoding
    from ..errors import CAError

    # The bytes of texts as they are (see _format); and what the core would log is said here, in one line.
    set_encoding("latin-1")
    logger = logging.getLogger("epicsx")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    try:
        return do()
    except Failure as failure:
        return complain(command, failure, failure.code)
    except CAError as error:
        return complain(command, error)


def complain(command: str, text: object, code: int = 1) -> int:
    """Say what is wrong in one line on stderr, and give `code` back. Of no command where `command` is empty."""
    print(f"{' '.join(['epicsx', *command.split()])}: {one_line(text)}", file=sys.stderr)
    return code


def one_line(text: object) -> str:
    """`text` in one line, with what does not print escaped: names and files may hold what a terminal obeys."""
    return printable(" ".join(str(text).split("\n")))


# ---------------------------------------------------------------------- finding


def opened(names: Iterable[str], priority: int) -> list[Channel]:
    """A channel for each name; searching begins."""
    from .._channel import Channel
    from ..errors import BadValueError

    try:
        return [Channel(name, priority=priority) for name in names]
    except BadValueError as error:
        raise Failure(error, 2) from None


def timeout_of(options: argparse.Namespace) -> float | None:
    """What -w says, or EPICS_CLI_TIMEOUT, or 1 second; None, which is for ever, where that is 0."""
    if options.timeout is not None:
        return float(options.timeout) or None
    text = os.environ.get("EPICS_CLI_TIMEOUT")
    try:
        return 1.0 if text is None else wait_time(text) or None
    except argparse.ArgumentTypeError as error:
        raise Failure(f"EPICS_CLI_TIMEOUT: {error}", 2) from None


def find(channels: Sequence[Channel], timeout: float | None) -> list[Channel]:
    """Those that no server has answered for within `timeout` seconds.

    If that takes long, a line on the terminal tells how many were found; in a pipe none does.
    """
    from .. import _bulk

    cores = [channel._core for channel in channels]
    began = monotonic()
    shown = 0
    slow = sys.stderr.isatty()
    while True:
        left = None if timeout is None else began + timeout - monotonic()
        wait = 0.5 if left is None else max(0.0, min(0.5, left))
        missing = _bulk.connect_all(cores, wait)
        if not missing or (left is not None and left <= wait):
            break
        if slow:
            line = f"{len(cores) - len(missing)} of {len(cores)} PVs found"
            print(f"\r{line:<{shown}}", end="", file=sys.stderr, flush=True)
            shown = len(line)
    if shown:
        print(f"\r{'':<{shown}}\r", end="", file=sys.stderr, flush=True)
    lost = {id(core) for core in missing}
    return [channel for channel in channels if id(channel._core) in lost]


def not_found(missing: Sequence[Channel]) -> str:
    """The C tools' words for it, with each name."""
    return f"Channel connect timed out: {', '.join(repr(c.name) for c in missing)} not found."


def raw_name(name: str) -> str:
    """A name as it was typed, a character for each byte."""
    return os.fsencode(name).decode("latin-1")
