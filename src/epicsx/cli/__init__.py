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
from importlib import import_module
from typing import NoReturn

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
        message = " ".join(message.split())
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def command_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    return _parsers()[0]


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    from .._version import __version__

    parser = _Parser(prog="epicsx", description="EPICS Channel Access for Python, compiled.")
    parser.add_argument("--version", action="version", version=f"epicsx {__version__}")
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
    """Run the command line `argv`, by default that of the process, and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    rest: list[str] = []
    first = words[0] if words else ""
    script = first == "run"
    try:
        parser, commands = _parsers()
        if first in commands:
            module = sys.modules[f"{__name__}.{first}"]
            if hasattr(module, "split"):
                words[1:], rest = module.split(commands[first], words[1:])
        options, unknown = parser.parse_known_args(words, argparse.Namespace(rest=rest))
        if unknown:
            commands.get(first, parser).error(f"unrecognized arguments: {' '.join(unknown)}")
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone; without this the interpreter complains again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        if script:
            raise
        return 130
    return code
