"""One run: every measurement of the chosen rows, libraries interleaved, as often as asked."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from . import rows
from .source import Ioc

ROOT = Path(__file__).resolve().parent.parent
# where `make bench-hardened` puts the other build
HARDENED = ROOT / "build" / "hardened" / "lib"
DEADLINE = 90.0  # seconds without a word from a worker, after which it is given up

IMPORT = """
import time
start = time.perf_counter()
import {module}
{touch}
print('{{"ms": %.3f}}' % (1e3 * (time.perf_counter() - start)))
"""
# epicsx loads its parts at first use: fetching the names that a script uses is part of importing.
TOUCH = {"epicsx": "epicsx.PV, epicsx.caget, epicsx.caput, epicsx.camonitor, epicsx.Channel"}


class WorkerError(Exception):
    """A worker that failed, with what it said."""


class Worker:
    """A measuring process, its lines read as they come."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._errors.append(line)

    def wait_for(self, start: str) -> str:
        """The next line that begins with `start`."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WorkerError(f"no answer in {DEADLINE:g} s; {self._said()}") from None
            if line is None:
                raise WorkerError(f"ended with {self.process.wait()}; {self._said()}")
            if line.startswith(start):
                return line

    def _said(self) -> str:
        if self.process.poll() is not None:
            self._readers[1].join(5.0)
        return "".join(self._errors[-12:]).strip() or "it said nothing"

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"gone; {self._said()}") from None

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(5.0)


class Run:
    """The results so far: per measurement one dict per repeat, or the text of its failure."""

    def __init__(
        self,
        ioc: Ioc,
        client: Path,
        seconds: float,
        warm: float,
        report: Callable[[str], None],
    ) -> None:
        self.ioc = ioc
        self.client = client
        self.seconds = seconds
        self.warm = warm
        self.report = report
        self.results: dict[str, list[dict[str, object]]] = {}

    def fill(self, records: Iterable[str]) -> None:
        """Give the array records all their elements."""
        for name in records:
            command = [str(self.client), "fill", f"{self.ioc.prefix}{name}"]
            self._one_shot(command, self.ioc.environment)

    def _one_shot(self, command: list[str], environment: dict[str, str]) -> dict[str, object]:
        worker = Worker(command, environment)
        try:
            found: dict[str, object] = json.loads(worker.wait_for("{"))
            return found
        finally:
            worker.end()

    def command(self, measurement: rows.Measurement) -> list[str]:
        """The command line of a measurement."""
        words = measurement.arguments.format(
            p=self.ioc.prefix, s=f"{self.seconds:g}", w=f"{self.warm:g}"
        ).split()
        python = [sys.executable, "-m"]
        if measurement.program == "c":
            return [str(self.client), *words]
        if measurement.program in ("native", "hardened"):
            return [*python, "benchmarks.workers.native", *words]
        if measurement.program == "import":
            (module,) = words
            code = IMPORT.format(module=module, touch=TOUCH.get(module, ""))
            return [sys.executable, "-c", code]
        if measurement.program in ("aioca", "aio"):
            module = {"aioca": "aioca", "aio": "epicsx.aio"}[measurement.program]
            return [*python, "benchmarks.workers.aio", module, *words]
        module = {"pyepics": "epics", "epicsx": "epicsx"}[measurement.program]
        return [*python, "benchmarks.workers.pv", module, *words]

    def measure(self, key: str) -> dict[str, object]:
        """Run one measurement once and keep what it found."""
        measurement = rows.MEASUREMENTS[key]
        load = os.getloadavg()[0]
        try:
            result = self._measure(measurement)
        except WorkerError as error:
            result = {"error": str(error)}
        result["load"] = load
        self.results.setdefault(key, []).append(result)
        self.report(f"{key}: {_brief(result)}")
        return result

    def _measure(self, measurement: rows.Measurement) -> dict[str, object]:
        command = self.command(measurement)
        environment = self.ioc.environment
        if measurement.program == "hardened":
            environment = {**environment, "PYTHONPATH": str(HARDENED)}
        if measurement.program == "import":
            # The first import of a run reads files that the next finds in memory: the best of 3.
            found = [self._one_shot(command, environment) for _ in range(3)]
            return min(found, key=lambda r: rows.figure(r, "ms"))
        if measurement.source is None:
            return self._one_shot(command, environment)
        source = measurement.source
        worker = Worker(command, environment)
        try:
            worker.wait_for("READY")
            before, start = self.ioc.processed(source.record), time.perf_counter()
            with self.ioc.scanned(source.record, *source.beside):
                worker.tell("GO")
                result: dict[str, object] = json.loads(worker.wait_for("{"))
            times = self.ioc.processed(source.record) - before
            result["posted"] = times * source.posts / (time.perf_counter() - start)
            return result
        finally:
            worker.end()


def _brief(result: dict[str, object]) -> str:
    if "error" in result:
        return f"FAILED: {str(result['error']).splitlines()[-1]}"
    if "ms" in result:
        return f"{rows.figure(result, 'ms'):.1f} ms"
    if "p99_ms" in result:
        p50, p99, lost = (rows.figure(result, key) for key in ("p50_ms", "p99_ms", "lost"))
        return f"p50 {p50:.3f} ms, p99 {p99:.3f} ms, {lost:.0f} lost"
    text = f"{rows.figure(result, 'rate'):,.1f}/s, {rows.figure(result, 'cpu_us'):.2f} us CPU each"
    if "posted" in result:
        text += f", posted {rows.figure(result, 'posted'):,.0f}/s"
    return text
