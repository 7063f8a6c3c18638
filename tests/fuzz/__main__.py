"""`python -m tests.fuzz [--seeds N] [--first SEED] [--build FOLDER]`: runs seeds in processes of many.

A process that crashes, hangs or reports takes with it the seeds that were under way. Those are run again, each alone
and several times, since threads do not repeat themselves; what fails alone is the finding, else all of them together.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.sanitizers import environment

ROOT = Path(__file__).parent.parent.parent
ENOUGH = 10  # findings, after which it ends
AGAIN = 3  # times that a seed is run alone
RERUN = 8  # seeds of a batch that are run alone
REPORTS = ("AddressSanitizer", "runtime error:", "UndefinedBehaviorSanitizer", "Fatal Python error")


@dataclass
class Batch:
    """What one process made of its seeds."""

    first: int
    count: int
    done: int = 0
    lies: int = 0
    open: list[int] = field(default_factory=list)  # seeds that had begun and not ended
    wrong: list[str] = field(default_factory=list)
    output: str = ""
    seconds: float = 0.0


def run(first: int, count: int, build: str, *, at_once: int, limit: float) -> Batch:
    """Run a process of seeds, with a hard limit."""
    batch = Batch(first, count)
    command = [sys.executable, "-u", "-m", "tests.fuzz.client", str(first), str(count)]
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [*command, "--at-once", str(at_once)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(build),
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
            if code:
                batch.wrong.append(signal.Signals(-code).name if code < 0 else f"returns {code}")
        except subprocess.TimeoutExpired:
            batch.wrong.append(f"hangs, {limit:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        batch.output = out.read().decode(errors="replace")
    batch.seconds = time.monotonic() - began
    begun: dict[int, bool] = {}
    for line in batch.output.splitlines():
        mark, _, rest = line.partition(" ")
        if mark in ("+", "-") and rest.isdigit():
            begun[int(rest)] = mark == "-"
        elif mark == "!":
            batch.wrong.append(rest)
        elif mark == "=" and "lies" in rest:
            batch.lies = int(rest.split()[2])
        elif any(report in line for report in REPORTS):
            batch.wrong.append(line.strip())
    batch.done = sum(begun.values())
    batch.open = [seed for seed, ended in begun.items() if not ended]
    return batch


def main() -> int:
    """Run what is asked for; 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument(
        "--build", default="", help="folder of a build; by default epicsx as Python finds it"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=250, help="seeds of a process")
    parser.add_argument("--at-once", type=int, default=64, help="of them, under way")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no batch after so long")
    given = parser.parse_args()
    began = time.monotonic()
    last = given.first + given.seeds
    jobs = [(at, min(given.batch, last - at)) for at in range(given.first, last, given.batch)]
    done = lies = 0
    findings: list[str] = []

    def work(job: tuple[int, int]) -> Batch | None:
        if time.monotonic() - began > given.minutes * 60 or len(findings) >= ENOUGH:
            return None
        return run(*job, given.build, at_once=given.at_once, limit=120.0 + job[1])

    with ThreadPoolExecutor(given.processes) as pool:
        for batch in pool.map(work, jobs):
            if batch is None:
                continue
            done += batch.done
            lies += batch.lies
            state = "; ".join(batch.wrong[:3]) or "well"
            rate = batch.done / batch.seconds
            print(
                f"seeds {batch.first} to {batch.first + batch.count - 1}: {state} ({rate:.0f}/s)",
                flush=True,
            )
            if batch.wrong:
                findings += told(batch, given.build)
    seconds = time.monotonic() - began
    print(
        f"{done} seeds with {lies} lies in {seconds:.0f} s, {done / seconds:.1f}/s: {len(findings)} findings"
    )
    return 1 if findings or not done else 0


def told(batch: Batch, build: str) -> list[str]:
    """Find the seeds of a batch that fail alone, and say how to repeat them."""
    print(tail(batch.output), flush=True)
    alone = []
    option = f" --build {build}" if build else ""
    for seed in batch.open[:RERUN]:
        for _ in range(AGAIN):
            again = run(seed, 1, build, at_once=1, limit=90.0)
            if again.wrong:
                alone.append(f"seed {seed}: {'; '.join(again.wrong[:3])}")
                print(
                    f"{alone[-1]}\n  again: python -m tests.fuzz --first {seed} --seeds 1{option}",
                    flush=True,
                )
                break
    if alone:
        return alone
    seeds = f"--first {batch.first} --seeds {batch.count} --batch {batch.count}"
    print(f"  together only: python -m tests.fuzz {seeds}{option}", flush=True)
    return [f"seeds {batch.first} and following: {'; '.join(batch.wrong[:3])}"]


def tail(output: str) -> str:
    """What was said beside the seeds' marks."""
    lines = [line for line in output.splitlines() if line[:2] not in ("+ ", "- ")]
    at = next(
        (n for n, line in enumerate(lines) if any(r in line for r in REPORTS)),
        max(0, len(lines) - 60),
    )
    return "\n".join("  " + line for line in lines[max(0, at - 5) : at + 80])


if __name__ == "__main__":
    sys.exit(main())
