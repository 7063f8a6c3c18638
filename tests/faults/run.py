"""Runs one scenario in this process: `python -m tests.faults.run ID epicsx|pyepics [--long]`.

Its last line of standard output is a JSON object: text, numbers, missed. All else that is printed goes to standard
error.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.harness import MODULES, SCENARIOS, Figure, catalogue
from faults.room import Room


def main(id: str, face: str, *options: str) -> None:
    """Run it, and tell its figure before the library under test ends with the process."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    if id[0] not in MODULES:
        importlib.import_module("faults.planted")
    chosen = {**SCENARIOS, **catalogue()}[id]
    run = chosen.function(face)
    if run is None:
        raise SystemExit(f"{id} has nothing for {face}")
    room = Room(face, chosen.ports, long="--long" in options)
    figure = Figure("")
    try:
        if face == "pyepics":
            warnings.simplefilter("ignore")  # of its dependencies, about themselves
        figure = run(room)
    except BaseException as error:  # SystemExit, too: a scenario that ends its process has told nothing
        traceback.print_exc()
        room.missed.append(
            str(error) if isinstance(error, AssertionError) and str(error) else repr(error)
        )
    finally:
        told = {"text": figure.text, "numbers": figure.numbers, "missed": room.missed}
        out.write(json.dumps(told) + "\n")
        out.close()
        room.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
