"""Runs a script under both, each in a process of its own, at the same time, against one IOC: `SERVERS` says which.

Each has records of its own to write to, and both read a third, shared set, whose values and time stamps are the
same for both. A step that ends the process, or hangs, is an observation, and the next step gets a new process.

Threads. Two per script while it runs, one for each client; `run` joins them.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from support.records import ELEMENT_TYPES, access_security, latin1, waveform, waveforms

from epicsx.testing import MotorIOC, ScalerIOC, SoftIOC
from oracle.steps import Told

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
FACES = ("pyepics", "epicsx")
SETS = ("a:", "b:", "s:")  # pyepics' records, epicsx's, those that both read

Seen = dict[str, Told]
"""Observations by "step/label"."""


def scripts() -> list[str]:
    """The names of all scripts."""
    return sorted(path.stem for path in SCRIPTS.glob("*.py"))


def _database() -> list[str | bytes]:
    core = (HERE.parent / "db" / "core.db").read_text(encoding="utf-8")
    core += (HERE / "oracle.db").read_text(encoding="utf-8")
    core += waveforms() + "".join(
        waveform(f"one:{kind.lower()}", kind, 1) + waveform(f"few:{kind.lower()}", kind, 16, [1])
        for kind in ELEMENT_TYPES
    )
    found: list[str | bytes] = []
    for each in SETS:
        found.append(core.replace("$(P)", f"$(P){each}"))
        found.append(latin1().replace(b"$(P)", f"$(P){each}".encode()))
    return found


IOC = SoftIOC | MotorIOC | ScalerIOC


def _softioc(prefix: str, repeater_port: int | None) -> IOC:
    security = access_security().read_text().replace("$(P)", f"{prefix}{SETS[0]}")
    return SoftIOC(
        _database(), prefix=prefix, access_security=security, repeater_port=repeater_port
    )


def _motors(prefix: str, repeater_port: int | None) -> IOC:
    records: dict[str, dict[str, Any]] = {}
    pvs: dict[str, Any] = {}
    for each in SETS:
        # quick ones: what is compared is what becomes of a move, not how long it takes
        records[f"{each}m1"] = {"VELO": 200.0, "ACCL": 0.05}
        records[f"{each}m2"] = {"VELO": 500.0, "ACCL": 0.05, "switches": (-10, 20)}
        for name in ("m1", "m2"):
            pvs[f"{each}{name}_able.VAL"] = {"value": 0, "states": ["Enable", "Disable"]}
        pvs |= {f"{each}anchor": 0, f"{each}other": 1.0}
    return MotorIOC(records, pvs, prefix=prefix, repeater_port=repeater_port)


def _scalers(prefix: str, repeater_port: int | None) -> IOC:
    names = {f"NM{i}": f"chan {i}" for i in range(1, 5)}
    records = {f"{each}sc": names for each in SETS}
    pvs = {f"{each}anchor": 0 for each in SETS}
    return ScalerIOC(records, pvs, prefix=prefix, repeater_port=repeater_port)


SERVERS: dict[str, Callable[[str, int | None], IOC]] = {"motors": _motors, "scalers": _scalers}
"""Script -> what makes the IOC that it needs, where that is not the soft IOC."""


@contextlib.contextmanager
def oracle_ioc(script: str, repeater_port: int | None = None) -> Iterator[IOC]:
    """The IOC that both clients of a script talk to."""
    prefix = f"ORA{random.SystemRandom().randrange(16**4):04X}:"
    with SERVERS.get(script, _softioc)(prefix, repeater_port) as ioc:
        yield ioc


class _Client:
    """One client process, and what it tells."""

    def __init__(self, face: str, script: str, ioc: IOC, names: list[str]) -> None:
        own = ioc.prefix + SETS[FACES.index(face)]
        command = [sys.executable, "-X", "faulthandler", str(HERE / "client.py"), face]
        command += [str(SCRIPTS / f"{script}.py"), own, ioc.prefix + SETS[2], *names]
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._complaint = ""
        environment = {**os.environ, **ioc.env, "PYTHONDONTWRITEBYTECODE": "1"}
        self.popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.errors, env=environment
        )
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def hear(self, timeout: float) -> list[str] | None:
        """What it tells next; None at its end; queue.Empty if it says nothing."""
        line = self._lines.get(timeout=timeout)
        return None if line is None else json.loads(line)

    def end(self, *, kill: bool = False) -> str:
        """Wait for its end and say how it ended; nothing if it returned 0."""
        if kill:
            self.popen.kill()
        try:
            code = self.popen.wait(15.0)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(5.0)
            code, kill = 0, False
            return "does not end"
        finally:
            self._reader.join(5.0)
            assert self.popen.stdout is not None
            self.popen.stdout.close()
            self.errors.seek(0)
            self._complaint = self.errors.read().decode(errors="replace")[-4000:]
            self.errors.close()
        if kill or code == 0:
            return ""
        return signal.Signals(-code).name if code < 0 else f"return code {code}"

    def complaint(self) -> str:
        """The last of what it wrote on its standard error, once it has ended."""
        return self._complaint


def steps_of(script: str, face: str, ioc: IOC) -> dict[str, float]:
    """The steps of a script, with the seconds that each may take."""
    client = _Client(face, script, ioc, [])
    try:
        told = client.hear(30.0)
    finally:
        client.end(kill=True)
    if told is None:
        raise RuntimeError(f"{script} cannot be read by {face}:\n{client.complaint()}")
    return dict(told[1])  # type: ignore[arg-type]


def _run_face(face: str, script: str, ioc: IOC, steps: dict[str, float]) -> Seen:
    """All that one client sees."""
    seen: Seen = {}
    left = list(steps)
    while left:
        client = _Client(face, script, ioc, left)
        current, deadline = "", time.monotonic() + 30.0
        try:
            while True:
                told = client.hear(max(0.0, deadline - time.monotonic()))
                if told is None:
                    how = client.end()
                    break
                if told[0] == "begin":
                    current = told[1]
                    deadline = time.monotonic() + steps[current]
                elif told[0] == "seen":
                    seen[f"{current}/{told[1]}"] = told[2]
                else:
                    left.remove(current)
                    current = ""
        except queue.Empty:
            how = "hangs"
            client.end(kill=True)
        if current:
            seen[f"{current}/the process"] = how or "ends"
            left.remove(current)
        elif how:
            if left:
                raise RuntimeError(f"{face} {how} before {left[0]}:\n{client.complaint()}")
            seen["the end/the process"] = how
    return seen


def run(script: str, ioc: IOC) -> tuple[Seen, Seen]:
    """What pyepics and epicsx see in one script."""
    steps = steps_of(script, "pyepics", ioc)
    found: dict[str, Seen | BaseException] = {}

    def one(face: str) -> None:
        try:
            found[face] = _run_face(face, script, ioc, steps)
        except BaseException as error:
            found[face] = error

    threads = [threading.Thread(target=one, args=(face,)) for face in FACES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results: list[Seen] = []
    for face in FACES:
        result = found[face]
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results[0], results[1]
