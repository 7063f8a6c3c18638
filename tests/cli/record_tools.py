"""Record what the C tools of EPICS base print: `python -m tests.cli.record_tools`.

Writes tests/cli/golden, with which `epicsx get put monitor info` are compared where the tools are not installed. They
must be here for this: `python tools/c_tools.py`, or EPICSX_C_TOOLS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from support import tool_cases as cases

QUIET = 1.0
"""Seconds without a further line after which a monitor is taken to have printed all."""


def _command(case: cases.Case) -> list[str]:
    words = cases.command(case.words)
    if words is None:
        raise SystemExit("there are no C tools: python tools/c_tools.py fetches them")
    return words


def _start(case: cases.Case, env: dict[str, str]) -> cases.Running:
    return cases.Running(_command(case), env)


def _entry(code: int, out: str, errors: str) -> dict[str, Any]:
    return {"returncode": code, "stdout": cases.settled(out), "stderr": cases.settled(errors)}


def _record(found: list[cases.Case], ioc: Any, env: dict[str, str]) -> dict[str, Any]:
    entries = {}
    for case in found:
        cases.prepare(ioc, case.before)
        done = subprocess.run(
            _command(case), capture_output=True, env={**os.environ, **env}, timeout=30.0
        )
        out, errors = done.stdout.decode("latin-1"), done.stderr.decode("latin-1")
        entries[case.key] = _entry(done.returncode, out, errors)
    return entries


def _record_monitors(ioc: Any, env: dict[str, str]) -> dict[str, Any]:
    entries = {}
    cases.prepare(ioc, cases.BEFORE)
    with cases.running(cases.MONITOR, _start, env) as monitors:
        for name, value in cases.WRITES:
            ioc.write(name, value)
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET:
            now = sum(len(monitor.lines) for monitor in monitors)
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.02)
        for case, monitor in zip(cases.MONITOR, monitors, strict=True):
            code = monitor.end()
            entries[case.key] = _entry(code, monitor.out, monitor.errors.decode("latin-1"))
    return entries


def main() -> int:
    """Record all, and tell from which release."""
    cases.GOLDEN.mkdir(exist_ok=True)
    release = cases.release()
    ioc = cases.start_ioc()
    try:
        env = {**ioc.env, **cases.ZONE}
        found = {
            "caget": _record(cases.GET, ioc, env),
            "caput": _record(cases.PUT, ioc, env),
            "cainfo": _record(cases.INFO, ioc, env),
            "camonitor": _record_monitors(ioc, env),
        }
    finally:
        ioc.stop()
    for tool, entries in found.items():
        text = json.dumps({"release": release, "entries": entries}, indent=1, ensure_ascii=True)
        (cases.GOLDEN / f"{tool}.json").write_text(text + "\n", encoding="utf-8")
        print(f"{tool} of {release}: {len(entries)} recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
