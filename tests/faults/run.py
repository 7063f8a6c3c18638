"""Runs one scenario in this process: `python -m tests.faults.run ID epicsx|pyepics [--long]`.

It first starts itself anew, in the environment that the scenario asks for. The last line of standard output is a JSON
object: text, numbers, missed, package (the folder of the epicsx that was imported). All else that is printed goes to
standard error.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import epicsx
from faults.harness import MODULES, SCENARIOS, Figure, Scenario, catalogue
from faults.room import Room
from faults.runner import ROOT, command, environment


def found(id: str) -> Scenario:
    """The scenario: one of the catalogue, or of those for the test of the runner."""
    if id[0] not in MODULES:
        importlib.import_module("faults.planted")
    return {**SCENARIOS, **catalogue()}[id]


def alone(id: str, face: str, *options: str) -> int:
    """Run it in its environment; the return code of its process."""
    env = environment(found(id))
    return subprocess.run(command(id, face, *options), env=env, cwd=ROOT, check=False).returncode


def main(id: str, face: str, *options: str) -> None:
    """Run it, and tell its figure before the library under test ends with the process."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    chosen = found(id)
    run = chosen.function(face)
    if run is None:
        raise SystemExit(f"{id} has nothing for {face}")
    room = Room(face, chosen.ports, long="--long" in options)
    figure = Figure("")
    try:
        if face == "pyepics":
            warnings.simplefilter("ignore")  # of its dependencies, about themselves
        figure = run(room)
    except BaseException as error:  # who ends the process, by SystemExit, has told no result
        traceback.print_exc()
        room.missed.append(
            str(error) if isinstance(error, AssertionError) and str(error) else repr(error)
        )
    finally:
        told = {"text": figure.text, "numbers": figure.numbers, "missed": room.missed}
        told["package"] = str(Path(epicsx.__file__).resolve().parent)
        out.write(json.dumps(told) + "\n")
        out.close()
        room.close()


if __name__ == "__main__":
    if sys.argv[1] == "--prepared":
        main(*sys.argv[2:])
    else:
        sys.exit(alone(*sys.argv[1:]))
