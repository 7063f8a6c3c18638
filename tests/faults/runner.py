"""Runs scenarios, each in a process group of its own that is killed at the scenario's limit."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import epicsx
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
    outcome = Outcome(
        scenario.id,
        face,
        measured=datetime.date.today().isoformat(),
        long=long,
        library=f"{face} {epicsx.__version__ if face == 'epicsx' else importlib.metadata.version(face)}",
        machine=f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
    )
    try:
        env = environment(scenario, build)
    except (OSError, subprocess.CalledProcessError) as error:  # no compiler for the clock shim
        outcome.missed.append(f"not run: {error}")
        return outcome
    began = time.monotonic()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command(scenario.id, face, *(["--long"] if long else [])),
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
                process.wait(10.0)
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
        if build is not None and Path(found["package"]).parent != Path(build).resolve():
            outcome.missed.append(f"not of this build, but of {found['package']}")
        if outcome.ended:
            outcome.ended += " at the end"
    elif not outcome.ended:
        outcome.ended = "ends without a result"
    quiet = face == "epicsx" and not (scenario.loud or outcome.missed)
    if quiet and "Traceback" in outcome.stderr:
        outcome.missed.append("a traceback on standard error")
    outcome.held = not (outcome.missed or outcome.ended)
    return outcome


def command(id: str, face: str, *options: str) -> list[str]:
    """What runs a scenario in the `environment` of that scenario."""
    run = [sys.executable, "-X", "faulthandler", "-m", "tests.faults.run"]
    return [*run, "--prepared", id, face, *options]


def environment(scenario: Scenario, build: str | None = None) -> dict[str, str]:
    """The environment of a scenario's process: nothing of EPICS but its own."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("EPICS")}
    env.pop("PYEPICS_LIBCA", None)
    env.pop("PYTHONWARNINGS", None)
    env |= scenario.environment()
    if build is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (build, env.get("PYTHONPATH"))))
    return env


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"return code {code}"
