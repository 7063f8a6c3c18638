"""Many command lines of `epicsx` in one process beside the tests', so that each costs milliseconds.

What a process of its own is needed for, such as signals, pipes and exits, is tested in one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_LOOP = """
import json, os, sys
from epicsx.cli import main

for line in sys.stdin:
    asked = json.loads(line)
    kept = [os.dup(1), os.dup(2)]
    for descriptor, path in ((1, asked["out"]), (2, asked["errors"])):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    before = dict(os.environ)
    os.environ.update(asked["env"])
    try:
        code = main(asked["words"])
    except SystemExit as end:
        code = end.code
    for name in asked["env"]:
        del os.environ[name]
        if name in before:
            os.environ[name] = before[name]
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor, was in zip((1, 2), kept):
        os.dup2(was, descriptor)
        os.close(was)
    print(int(code or 0), flush=True)
"""

_FORKS = """
import json, os, signal, sys
import csv, logging, socket, weakref
import numpy
# What is compiled comes in the child: libCom warns of threads in a child of a process that had it.
import epicsx.cli, epicsx.cli._facts, epicsx.cli._reading, epicsx.cli._watching, epicsx.errors

for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, path in ((1, asked["out"]), (2, asked["errors"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(asked["env"])
    sys.exit(epicsx.cli.main(asked["words"]))
"""


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """Standard output, as UTF-8."""
        return self.stdout.decode()

    @property
    def errors(self) -> str:
        """Standard error, as UTF-8."""
        return self.stderr.decode()


class _Process:
    """A Python process that answers each line of JSON with one of its own."""

    def __init__(self, program: str, env: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="epicsx-commands-")
        self._popen = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
            text=True,
        )

    def _ask(self, asked: Mapping[str, object]) -> int:
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(asked) + "\n")
        self._popen.stdin.flush()
        answer = self._popen.stdout.readline()
        assert answer, "the process that runs the commands has ended"
        return int(answer)

    def close(self) -> None:
        """End the process."""
        self._popen.communicate(timeout=20.0)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Commands(_Process):
    """Runs command lines one after the other, in one process."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__(_LOOP, env)

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        """Run ``epicsx WORDS`` to its end."""
        out, errors = (Path(self._folder.name) / name for name in ("out", "errors"))
        asked = {"words": words, "out": str(out), "errors": str(errors), "env": dict(env or {})}
        return Done(self._ask(asked), out.read_bytes(), errors.read_bytes())


class Written:
    """What something that runs has written so far."""

    @property
    def raw(self) -> bytes:
        """Its standard output."""
        raise NotImplementedError

    @property
    def out(self) -> str:
        """Its standard output, a character for each byte."""
        return self.raw.decode("latin-1")

    @property
    def lines(self) -> list[str]:
        """The whole lines of it."""
        return self.out.split("\n")[:-1]

    def has(self, count: int) -> Callable[[], bool]:
        """A condition: it has written so many lines."""
        return lambda: len(self.lines) >= count


class Forked(Written):
    """A command line that runs in a process of its own."""

    def __init__(self, forks: Forks, pid: int, out: Path, errors: Path) -> None:
        self._forks = forks
        self.pid = pid
        self._out = out
        self._errors = errors
        self._code: int | None = None

    @property
    def raw(self) -> bytes:
        """Its standard output so far."""
        return self._out.read_bytes()

    @property
    def errors(self) -> bytes:
        """Its standard error so far."""
        return self._errors.read_bytes()

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send it a signal, by default what Ctrl-C sends, and give its return code back once it has ended."""
        if self._code is None:
            os.kill(self.pid, number)
            self._code = self._forks.wait(self.pid)
        return self._code


class Forks(_Process):
    """Starts command lines that run at the same time, each in a process forked from one that has read numpy."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__(_FORKS, env)
        self._number = 0

    def start(self, words: Sequence[str], env: Mapping[str, str]) -> Forked:
        """Start ``epicsx WORDS``."""
        self._number += 1
        out, errors = (
            Path(self._folder.name) / f"{name}{self._number}" for name in ("out", "errors")
        )
        for each in (out, errors):
            each.touch()
        asked = {"words": words, "out": str(out), "errors": str(errors), "env": dict(env)}
        return Forked(self, self._ask(asked), out, errors)

    def wait(self, pid: int) -> int:
        """The return code of a command line, once it has ended."""
        return self._ask({"wait": pid})
