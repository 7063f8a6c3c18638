"""The command `epicsx`: one subcommand per module of this package.

A subcommand is a line in `COMMANDS` and a module of its name with two functions: ``arguments(parser)`` declares its
options, ``run(options)`` does the work and returns the exit code. Modules are read to make the help, so at their top
they import only what is cheap; numpy and the core come in with ``run``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, str] = {
    "run": "run a script written for pyepics, unchanged, on epicsx",
    "record": "write what PVs send to an HDF5 file, every loss counted",
    "snapshot": "the values of many PVs: save them in a file, compare, put back",
    "doctor": "why a PV does not connect: each step of a connection, and where it ends",
    "demo": "live data from a real soft IOC, or from your own PV, with every update accounted for",
}
"""Each subcommand and what it does, in one line."""


def _parser() -> argparse.ArgumentParser:
    from .._version import __version__

    parser = argparse.ArgumentParser(
        prog="epicsx", description="EPICS Channel Access for Python, compiled."
    )
    parser.add_argument("--version", action="version", version=f"epicsx {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, by default that of the process, and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    rest: list[str] = []
    script = words[:1] == ["run"]
    if script:
        from .run import split

        own, rest = split(words[1:])
        words[1:] = own
    try:
        options = _parser().parse_args(words, argparse.Namespace(rest=rest))
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
