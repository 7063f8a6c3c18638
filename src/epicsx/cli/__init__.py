"""The command `epicsx`: one subcommand per module of this package.

A subcommand is a line in `COMMANDS` and a module of its name with two functions: ``arguments(parser)`` declares its
options, ``run(options)`` does the work and returns the exit code. A module that has ``split(parser, words)`` says which
words are options, in an order that argparse understands, and which argparse does not see: ``options.rest``. Modules are
read to make the help, so at their top they import only what is cheap; numpy and the core come in with ``run``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from ._tools import complain, one_line

__all__ = ["COMMANDS", "command_parser", "main"]

COMMANDS: dict[str, str] = {
    "get": "read PVs once, as caget does",
    "put": "write a PV, as caput does",
    "monitor": "print each update of PVs, as camonitor does",
    "info": "where PVs are and of which type, as cainfo does",
    "run": "run a script written for pyepics, unchanged, on epicsx",
    "record": "write what PVs send to an HDF5 file, every loss counted",
    "snapshot": "the values of many PVs: save them in a file, compare, put back",
    "doctor": "why a PV does not connect: each step of a connection, and where it ends",
    "demo": "live data from a real soft IOC, or from your own PV, with every update accounted for",
    "bench": "measure C, pyepics and epicsx beside each other; in a source tree",
    "repeater": "run the CA repeater in the foreground",
    "completion": "print a script that completes this command in bash, zsh or fish",
}
"""Each subcommand and what it does, in one line."""


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} ({self.prog} --help tells more)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:  # argparse would say nothing of a disk that is full
            file.write(message)
        else:
            super()._print_message(message, file)


class _Version(argparse.Action):
    """--version: epicsx's own, then the libca in use, then the licences of what is installed."""

    def __call__(self, parser: Any, options: Any, value: Any, option: str | None = None) -> None:
        from .._build_info import build_info

        info = build_info()
        print(f"epicsx {info['epicsx_version']}")
        print(f"libca of EPICS {info['libca_version']}, {info['linked']}")
        print(info["licence"])
        parser.exit()


def command_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    return _parsers()[0]


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(prog="epicsx", description="EPICS Channel Access for Python, compiled.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="what this is, its libca, their licences"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    found: dict[str, argparse.ArgumentParser] = {}
    for name, what in COMMANDS.items():
        module = import_module("." + name, __name__)
        command = commands.add_parser(
            name,
            help=what,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(command)
        command.set_defaults(run=module.run)
        found[name] = command
    return parser, found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, by default that of the process, and return its exit code.

    Errors of standard output are told here, once for all commands. One that is closed is no place for what was asked
    for, so that nothing is done then; but `run` leaves it to the script.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else ""
    if not _open_streams() and first != "run":
        return complain("", "standard output is closed")
    try:
        try:
            return _run(first, words)
        except SystemExit:  # argparse's, after help or -V
            if first != "run":
                _flush()
            raise
    except OSError as error:
        return _unwritten(first if first in COMMANDS else "", error)
    except KeyboardInterrupt:
        if first == "run":
            raise
        return 130


def _run(first: str, words: list[str]) -> int:
    rest: list[str] = []
    parser, commands = _parsers()
    if first in commands:
        module = sys.modules[f"{__name__}.{first}"]
        if hasattr(module, "split"):
            words[1:], rest = module.split(commands[first], words[1:])
    options, unknown = parser.parse_known_args(words, argparse.Namespace(rest=rest))
    if unknown:
        commands.get(first, parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    code: int = options.run(options)
    _flush()
    return code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def _open_streams() -> bool:
    """Whether there is a standard output. What is closed is the null device from now on.

    Descriptors too, lowest first: else a file or a circuit would get the number, and what C or Python writes there.
    """
    there = sys.stdout is not None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            file = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            os.set_inheritable(file.fileno(), file.fileno() < 3)
            setattr(sys, name, file)
    return there


def _unwritten(command: str, error: OSError) -> int:
    """Tell that output cannot be written; nothing where its reader has gone. The exit code."""
    # What is left would be written again at the interpreter's end, which would complain again.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 1
    told = error.strerror or str(error)
    with suppress(OSError):  # as standard error may be the same full disk
        complain(command, f"{error.filename}: {told}" if error.filename else told)
    return 1
