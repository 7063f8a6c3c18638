"""`python -m epicsx` is the command `epicsx`; and, given a script instead of a command, `epicsx run`."""

from __future__ import annotations

import sys

from .cli import COMMANDS, main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    first = arguments[0] if arguments else "-h"
    if first not in COMMANDS and (first in ("-", "-m") or not first.startswith("-")):
        arguments.insert(0, "run")
    sys.exit(main(arguments))
