"""Python programs in subprocesses, with a hard limit: a hang is a failure, and so is a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Result:
    """How a subprocess ended."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


class Client:
    """A running Python program with which a test can talk line by line.

    Two daemon threads read its output until its end; `finish` and `kill` join them.
    """

    def __init__(self, script: str, *args: str, env: Mapping[str, str] | None = None) -> None:
        handle, self._path = tempfile.mkstemp(prefix="client-", suffix=".py", text=True)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(script))
        self._began = time.monotonic()
        environment = {**os.environ, **(env or {})}
        self.popen = subprocess.Popen(
            [sys.executable, "-u", "-X", "faulthandler", self._path, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",
        )
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._seen = 0
        self._open = 2
        self._threads = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._lines
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def _read(self, name: str) -> None:
        pipe = self.popen.stdout if name == "stdout" else self.popen.stderr
        assert pipe is not None
        for line in pipe:
            with self._changed:
                self._lines[name].append(line)
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _text(self, name: str) -> str:
        with self._changed:
            return "".join(self._lines[name])

    def wait_line(self, text: str, timeout: float = 20.0) -> str:
        """Return the next line of its standard output that contains `text`, without line end."""

        def find() -> str | None:
            lines = self._lines["stdout"]
            while self._seen < len(lines):
                self._seen += 1
                if text in lines[self._seen - 1]:
                    return lines[self._seen - 1].rstrip("\n")
            return None

        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                line = find()
                if line is not None:
                    return line
                left = deadline - time.monotonic()
                if left <= 0 or self._open == 0:
                    break
                self._changed.wait(left)
        self._dump()
        raise AssertionError(f"the client did not print {text!r} in {timeout} s{self._shown()}")

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def finish(self, timeout: float = 30.0, *, check: bool = True) -> Result:
        """Close its input and wait for its end; a hang or a signal is a failure.

        With `check` any return code but 0 is one as well.
        """
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        hung = False
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            hung = True
            self._dump()
        seconds = time.monotonic() - self._began
        self._reap()
        code = self.popen.returncode
        if hung:
            raise AssertionError(f"the client hung, after {timeout} s{self._shown()}")
        if code < 0:
            name = signal.Signals(-code).name
            raise AssertionError(f"the client died of {name}{self._shown()}")
        if check and code:
            raise AssertionError(f"the client returned {code}{self._shown()}")
        return Result(code, self._text("stdout"), self._text("stderr"), seconds)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.popen.kill()
        self._reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def _dump(self) -> None:
        """Make a program that hangs say where: faulthandler answers to SIGABRT."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(5.0)

    def _reap(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10.0)
        for thread in self._threads:
            thread.join(5.0)  # what it wrote last is wanted, however late it is read
        # A grandchild may hold the pipes open; a reader that waits on them keeps its own.
        pipes = (self.popen.stdout, self.popen.stderr)
        for pipe, thread in zip(pipes, self._threads, strict=True):
            if pipe is not None and not thread.is_alive():
                pipe.close()
        if self.popen.stdin is not None:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _shown(self) -> str:
        return (
            f"\n--- its stdout ---\n{self._text('stdout')[-4000:]}"
            f"\n--- its stderr ---\n{self._text('stderr')[-8000:]}"
        )


def start_python(script: str, *args: str, env: Mapping[str, str] | None = None) -> Client:
    """Start a Python program, given as text, and return it for talking with it.

    Parameters
    ----------
    script : str, dedented before use
    args : str, its sys.argv[1:]
    env : mapping of str to str, added to this process' environment
    """
    return Client(script, *args, env=env)


def run_python(
    script: str,
    *args: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    check: bool = True,
) -> Result:
    """Run a Python program, given as text, to its end and return how it ended.

    A hang or a signal is an AssertionError that shows its output, with a dump of all its threads;
    with `check` a return code other than 0 is one too.
    """
    client = Client(script, *args, env=env)
    try:
        return client.finish(timeout, check=check)
    finally:
        client.kill()


def finished(process: subprocess.Popen[str], timeout: float) -> tuple[int | None, str, str, float]:
    """Wait for a process, of which any end is a result.

    Returns
    -------
    code : int or None, negative if a signal ended it, None if it hung and was killed
    stdout, stderr : str
    ended : float, when it was over, by time.monotonic
    """
    try:
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err, time.monotonic()
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return None, out, err, time.monotonic()
