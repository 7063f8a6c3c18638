"""Runs scenarios, each in a process group of its own that is killed at the scenario's limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults.harness import Outcome, Scenario

ROOT = Path(__file__).parent.parent.parent
_LONG = 8.0  # a long form may take so many times the limit


def run(scenario: Scenario, face: str, *, long: bool = False, build: str | None = None) -> Outcome:
    """Run a scenario under 'epicsx' or 'pyepics' and say what came of it.

    Parameters
    ----------
    build : str, optional
        A folder with another build of epicsx, put before all else on the module path.
    """
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.faults.run", scenario.id, face]
    command += ["--long"] if long else []
    env = {name: text for name, text in os.environ.items() if not name.startswith("EPICS")}
    env.pop("PYEPICS_LIBCA", None)
    env.pop("PYTHONWARNINGS", None)
    try:
        env |= scenario.environment()
    except (OSError, subprocess.CalledProcessError) as error:  # no compiler for the clock shim
        return Outcome(scenario.id, face, missed=[f"not run: {error}"])
    if build is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (build, env.get("PYTHONPATH"))))
    outcome = Outcome(scenario.id, face)
    began = time.monotonic()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            code = process.wait(scenario.limit * (_LONG if long else 1.0))
            if code:
                outcome.ended = _named(code)
        except subprocess.TimeoutExpired:
            outcome.ended = "hangs"
            process.send_signal(signal.SIGABRT)  # faulthandler tells where
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        outcome.seconds = time.monotonic() - began
        stdout.seek(0)
        stderr.seek(0)
        told, outcome.stderr = (file.read().decode(errors="replace") for file in (stdout, stderr))
    if told:
        found = json.loads(told.splitlines()[-1])
        outcome.text, outcome.numbers = found["text"], found["numbers"]
        outcome.missed = found["missed"]
        if outcome.ended:
            outcome.ended += " at the end"
    elif not outcome.ended:
        outcome.ended = "ends without a result"
    quiet = face == "epicsx" and not (scenario.loud or outcome.missed)
    if quiet and "Traceback" in outcome.stderr:
        outcome.missed.append("a traceback on standard error")
    outcome.held = not (outcome.missed or outcome.ended)
    return outcome


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"return code {code}"
