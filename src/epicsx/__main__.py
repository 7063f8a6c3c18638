"""`python -m epicsx` is the command `epicsx`; and, given a script instead of a command, `epicsx run`."""

from __future__ import annotations

import sys

from .cli import COMMANDS, main


def _command(arguments: list[str]) -> list[str]:
    first = arguments[0] if arguments else "-h"
    script = first not in COMMANDS and (first == "-" or first.startswith("-m") or first[:1] != "-")
    return ["run", *arguments] if script else arguments


if __name__ == "__main__":
    sys.exit(main(_command(sys.argv[1:])))
