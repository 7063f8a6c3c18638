"""Runs the steps of one script under pyepics or epicsx, and tells what was seen, a JSON text a line.

    python client.py pyepics|epicsx SCRIPT OWN_PREFIX SHARED_PREFIX STEP...

Steps run in the order given. What is told: ``["begin", step]``, ``["seen", label, text]``, ``["end"]``;
without steps, the list of them all.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from pathlib import Path


def _as_epics() -> None:
    """Have `import epics` answered by epicsx."""
    import epicsx

    epicsx.install_as_epics()


def main(face: str, script: str, own: str, shared: str, *names: str) -> None:
    """Run the steps."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what C code prints is no message

    def tell(*what: object) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    # pyepics guesses at undecodable text by this package where it happens to be installed.
    sys.modules["charset_normalizer"] = None  # type: ignore[assignment]
    if face == "epicsx":
        _as_epics()
    # The folder of this file, first by Python's doing, would make `steps` a second module.
    sys.path[0] = str(Path(__file__).parent.parent)
    from oracle.steps import STEPS, Lab

    epics = importlib.import_module("epics")
    runpy.run_path(script)
    if not names:
        tell("steps", [(step.name, step.timeout) for step in STEPS])
        return
    lab = Lab(epics, own, shared, lambda label, told: tell("seen", label, told))
    known = {step.name: step for step in STEPS}
    for name in names:
        tell("begin", name)
        lab.begin()
        try:
            known[name].run(lab)
        except Exception as error:
            lab.note("the step", f"raises {lab.describe.exception(error)}")
        lab.end()
        tell("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
