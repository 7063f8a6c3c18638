"""`SoftIOC`: EPICS base's own soft IOC in a subprocess, on private loopback ports.

The IOC comes from the PyPI package epicscorelibs (extra `epicsx[test]`). It is a server like any
other: real records, a real CA server, a shell that can be asked what it sees.

Threads. Each running IOC has one daemon thread, `_Output.run`, which reads its standard output,
cuts it at the marks of `_ioc_main` and wakes who waits for an answer. It knows the `_Output` only,
never the SoftIOC. Standard error goes to a file, so no second thread is needed. `shell` is
serialised by a lock; `start`, `stop`, `restart` are for one thread at a time.

Lifetime. The reading thread ends with the end of the IOC's output, that is with the IOC; `stop`
and `kill` join it. A SoftIOC that is dropped or left running at exit is killed by a finalizer; in
a forked child the finalizer does nothing. Should this process die without any of that, the IOC
sees the end of its standard input, or the kernel's signal, and ends.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING

from epicsx.testing.ports import (
    LOOPBACK,
    apply_environment,
    checked_port,
    client_environment,
    free_port,
    is_free,
)
from epicsx.testing.repeater import Repeater

if TYPE_CHECKING:
    from typing_extensions import Self

Database = str | bytes | os.PathLike[str]

_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_ioc_main.py")
_MARK = re.compile(rb"\x1e(begin|end) (\d+) (-?\d+)\x1e\n")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_SCAN = re.compile(rb'field\s*\(\s*"?SCAN"?\s*,\s*"([\d.]+) second"')
_TAIL = 4000  # characters of the IOC's output that an error shows
_KEEP = 64_000  # bytes of unasked-for output that are kept
_HOW_TO_INSTALL = "the soft IOC needs epicscorelibs: pip install epicsx[test]"
_random = random.SystemRandom()


class SoftIOCError(RuntimeError):
    """The soft IOC could not be started, or did not do what it was asked."""


def random_prefix() -> str:
    """A prefix of record names, such that two test runs never meet."""
    return f"T{_random.randrange(36**6):X}:"


@dataclass(frozen=True)
class Casr:
    """What the IOC's CA server counts, from its shell command `casr 3`.

    Attributes
    ----------
    clients : int, circuits open to the server
    channels : dict of str to int, CA channels per PV name, full name with prefix
    monitors : dict of str to int, subscriptions per PV name
    """

    clients: int = 0
    channels: dict[str, int] = field(default_factory=dict)
    monitors: dict[str, int] = field(default_factory=dict)

    @property
    def channel_count(self) -> int:
        """Number of all CA channels."""
        return sum(self.channels.values())

    @property
    def monitor_count(self) -> int:
        """Number of all subscriptions."""
        return sum(self.monitors.values())

    @classmethod
    def parse(cls, text: str) -> Casr:
        """Return the counts found in the output of `casr 3`."""
        found = re.search(r"^(\d+) clients? connected", text, re.MULTILINE)
        channels: dict[str, int] = {}
        monitors: dict[str, int] = {}
        name = ""
        for line in text.splitlines():
            if match := re.match(r"\s*Channel: '(.*)'", line):
                name = match[1]
                channels[name] = channels.get(name, 0) + 1
            elif (match := re.search(r"# on eventq=(\d+)", line)) and int(match[1]):
                monitors[name] = monitors.get(name, 0) + int(match[1])
        return cls(int(found[1]) if found else 0, channels, monitors)


class SoftIOC:
    """An EPICS soft IOC in a subprocess, on private loopback ports.

    Parameters
    ----------
    db : str, bytes, path or a list of these
        Databases: text (it has `record(` in it) or the path of a file. Records are named
        `$(P)something`.
    macros : mapping of str to str, optional
        Macros for the databases and the access-security file. `P` is the prefix unless given.
    prefix : str, optional
        The value of `P`; random by default, so that two test runs never meet.
    access_security : str, bytes or path, optional
        Text or path of an access-security file (`ASG`, `UAG`, `HAG`), loaded before iocInit.
    server_port : int, optional
        TCP and UDP port of the CA server on 127.0.0.1; by default a free one.
    repeater_port : int, optional
        Port of a CA repeater that exists; by default the IOC brings one, on a free port.
    env : mapping of str to str, optional
        Further environment of the IOC, for example EPICS_CA_MAX_ARRAY_BYTES.
    scan_rates : iterable of float, seconds
        Scan periods faster than 0.1 s that records may be set to at run time; those that the
        databases name themselves need not be listed.
    timeout : float, seconds
        How long a start may take.

    Raises
    ------
    ValueError
        A port is none from 5001 to 65535.

    Examples
    --------
    >>> with SoftIOC('record(ao, "$(P)x") { field(VAL, "3") }') as ioc:
    ...     ioc.read("x")
    '3'
    """

    def __init__(
        self,
        db: Database | Sequence[Database],
        macros: Mapping[str, str] | None = None,
        *,
        prefix: str | None = None,
        access_security: Database | None = None,
        server_port: int | None = None,
        repeater_port: int | None = None,
        env: Mapping[str, str] | None = None,
        scan_rates: Iterable[float] = (),
        timeout: float = 20.0,
    ) -> None:
        self.macros: dict[str, str] = dict(macros or {})
        if prefix is None:
            prefix = self.macros.get("P") or random_prefix()
        #: What every record name of this IOC begins with.
        self.prefix: str = prefix
        self.macros["P"] = prefix
        self.timeout = timeout
        self.server_port: int = checked_port(server_port, "server_port") or free_port()
        self.repeater_port: int = checked_port(repeater_port, "repeater_port") or free_port()
        self._repeater = Repeater(self.repeater_port) if repeater_port is None else None
        self._chosen = server_port is None  # we chose the port, so we may choose another
        self._db = _as_list(db)
        self._access_security = access_security
        self._extra_env = dict(env or {})
        self._scan_rates = [f"{rate:g}".lstrip("0") for rate in scan_rates]
        self._process: _Process | None = None
        self._shell_lock = threading.Lock()
        self._finalizer: weakref.finalize[..., SoftIOC] | None = None

    # -- what a client needs to know

    @property
    def env(self) -> dict[str, str]:
        """The EPICS_CA_* variables a client needs to see this IOC and nothing else."""
        return client_environment(self.server_port, self.repeater_port)

    def apply(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Put `env` into `environ` (os.environ by default); do it before libca's first use."""
        apply_environment(self.env, environ)

    def __getitem__(self, name: str) -> str:
        """Return the full name of a record: the prefix and `name`."""
        return self.prefix + name

    @property
    def running(self) -> bool:
        """Whether the IOC's process lives; a paused one does."""
        return self._process is not None and self._process.popen.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running IOC."""
        return self._live().popen.pid

    @property
    def output(self) -> str:
        """The last of what the IOC printed unasked, standard output and error."""
        return "" if self._process is None else self._process.tail()

    # -- its life

    def start(self) -> SoftIOC:
        """Start the IOC and return when it serves; itself, so that it may be chained."""
        if self.running:
            raise SoftIOCError("the soft IOC runs already")
        self._forget()
        if importlib.util.find_spec("epicscorelibs") is None:
            raise SoftIOCError(_HOW_TO_INSTALL)
        deadline = time.monotonic() + self.timeout
        if self._repeater is not None:
            self._repeater.start()
        try:
            while True:
                self._find_port(deadline)
                try:
                    self._start_once(deadline)
                    break
                except _PortTaken:  # by somebody who was faster
                    self.kill()
            if self._repeater is not None:
                self._repeater.wait()
        except BaseException:
            self.kill()
            self.stop()
            raise
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """End the IOC as its own shell would; terminate, then kill it, if that takes too long."""
        self._stop_ioc(timeout)
        if self._repeater is not None:
            self._repeater.stop()

    def _stop_ioc(self, timeout: float = 5.0) -> None:
        process = self._process
        if process is None or process.popen.poll() is not None:
            self._forget()
            return
        self.resume()
        with contextlib.suppress(OSError, ValueError):
            process.write(b"0 exit\n")
        for end in (None, process.popen.terminate, process.popen.kill):
            if end is not None:
                end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(timeout)
                break
        self._forget()

    def kill(self) -> None:
        """End the IOC at once by SIGKILL, as a crash or a power cut would; also a paused one.

        Its repeater goes on until `stop`, so that clients hear of the IOC's return.
        """
        if self._process is not None:
            self._process.popen.kill()
            self._process.popen.wait(10.0)
            self._forget()

    def pause(self) -> None:
        """Stop the IOC by SIGSTOP: its circuits stay open and nothing answers. POSIX only."""
        process = self._live()
        os.kill(process.popen.pid, signal.SIGSTOP)
        process.paused = True
        # The signal is sent, not yet obeyed. Looking without reaping leaves the exit code to Popen.
        if hasattr(os, "waitid"):
            deadline = time.monotonic() + 10.0
            look = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
            while os.waitid(os.P_PID, process.popen.pid, look) is None:
                if time.monotonic() > deadline:
                    raise SoftIOCError("the soft IOC did not stop on SIGSTOP")
                time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused IOC go on."""
        process = self._live()
        if process.paused:
            os.kill(process.popen.pid, signal.SIGCONT)
            process.paused = False

    def restart(self, db: Database | Sequence[Database] | None = None) -> None:
        """Stop the IOC, if it runs, and start it again with the same ports and prefix.

        Parameters
        ----------
        db : as for SoftIOC, optional
            Other databases, for example with other record types under the same names.
        """
        self._stop_ioc()
        if db is not None:
            self._db = _as_list(db)
        # Clients know the port: it must not change, so a start waits until it is free.
        chosen, self._chosen = self._chosen, False
        try:
            self.start()
        finally:
            self._chosen = chosen

    def __enter__(self) -> Self:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- its shell

    def shell(self, command: str, timeout: float = 5.0, *, check: bool = False) -> str:
        """Return what a command of the IOC shell prints on standard output.

        Parameters
        ----------
        command : str, one line such as `dbl` or `casr 2`
        timeout : float, seconds
        check : bool
            Raise SoftIOCError if the shell reports failure.
        """
        if "\n" in command or "\r" in command:
            raise ValueError("one command at a time")
        process = self._live()
        if process.paused:
            raise SoftIOCError(f"the soft IOC is paused and cannot run {command!r}")
        with self._shell_lock:
            before = process.error_size()
            result, text = process.ask(command, timeout)
            told = process.errors(before).strip() if check and result else ""
        if check and result:
            told = "\n".join(filter(None, (text.strip(), told)))
            raise SoftIOCError(f"the soft IOC failed at {command!r}: {told}")
        return text

    def casr(self) -> Casr:
        """Return what the IOC's CA server counts: circuits, channels, subscriptions."""
        return Casr.parse(self.shell("casr 3"))

    def read(self, name: str) -> str:
        """Return the value of a record or field as text, by `dbgf`, without Channel Access.

        The elements of an array are separated by blanks.

        Parameters
        ----------
        name : str, without the prefix; `x` or `x.EGU`
        """
        text = self.shell(f"dbgf {_word(self.prefix + name)}", check=True)
        kind, _, value = text.partition(":")
        value = value.strip()
        if re.fullmatch(r'"([^"\\]|\\.)*"', value, re.DOTALL):
            # One text, its bytes escaped as in C.
            raw = value[1:-1].encode("ascii", "backslashreplace").decode("unicode_escape")
            return raw.encode("latin-1").decode("utf-8", "surrogateescape")
        if "STRING" in kind:
            return value
        # Integers come as `10 = 0xa`, arrays in columns and lines.
        return " ".join(re.sub(r" = -?0x[0-9a-fA-F]+", "", value).split())

    def write(self, name: str, value: object) -> None:
        """Write to a record or field by `dbpf`, without Channel Access.

        Parameters
        ----------
        name : str, without the prefix
        value : object, sent as its text
            A list, tuple, range or one-dimensional array is sent as JSON, for an array; to an array
            of CHAR or UCHAR `dbpf` writes texts alone.

        Raises
        ------
        SoftIOCError
            The IOC refuses it, or has stored a part of it: the array or text is longer than the
            field. What fits is stored then.
        ValueError
            An array has more than one dimension.
        """
        if getattr(value, "ndim", 0) > 1:
            raise ValueError(f"{name}: an array of one dimension is wanted, not {value!r}")
        if hasattr(value, "tolist") and getattr(value, "ndim", 1) == 1:
            value = value.tolist()
        many: list[object] | None = None
        if isinstance(value, (list, tuple, range)):
            many = [_number(each) for each in value]
        text = str(value) if many is None else json.dumps(many)
        command = f"dbpf {_word(self.prefix + name)} {_word(text)}"
        answer = re.match(r"DBF_(\w+)(?:\[(\d+)\])?:", self.shell(command, check=True))
        if answer is None:
            return
        # The answer is what the field holds now, with [n] unless that is one element.
        kind, stored = answer[1], int(answer[2] or 1)
        size = len(text.encode("utf-8", "surrogateescape")) if many is None else len(many)
        if kind in ("CHAR", "UCHAR") and many:
            raise SoftIOCError(f"{name} is of {kind}: dbpf has stored the text {text!r}")
        if many is None:
            if kind == "STRING" and answer[2] is None:
                stored = 39  # MAX_STRING_SIZE of epicsTypes.h, less the zero at the end
            elif kind not in ("CHAR", "UCHAR") or answer[2] is None:
                return
        if size > stored and many is not None:  # dbpf shows a part of a long array
            told = self.shell(f"dbgf {_word(self.prefix + name + '.NORD')}")
            found = re.match(r"DBF_\w+: +(\d+)", told)
            stored = int(found[1]) if found else (stored if stored < 100 else size)
        if size > stored:
            unit = "characters" if many is None else "elements"
            raise SoftIOCError(f"{name} has stored {stored} of {size} {unit}: it has no room")

    # -- inside

    def _live(self) -> _Process:
        process = self._process
        if process is None or process.popen.poll() is not None:
            code = "" if process is None else f" (return code {process.popen.returncode})"
            raise SoftIOCError(f"the soft IOC does not run{code}{_shown(self.output)}")
        return process

    def _find_port(self, deadline: float) -> None:
        """Wait until our port is free or, if it was our own choice, choose another one."""
        while not is_free(self.server_port):
            if self._chosen:
                self.server_port = free_port()
            elif time.monotonic() > deadline:
                raise SoftIOCError(f"port {self.server_port} is still taken")
            else:
                time.sleep(0.02)

    def _start_once(self, deadline: float) -> None:
        folder = tempfile.mkdtemp(prefix="epicsx-ioc-")
        try:
            config = self._config(folder)
            process = _Process(folder, self._environment())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._process = process
        self._finalizer = weakref.finalize(self, process.reap, os.getpid())
        with contextlib.suppress(BrokenPipeError):  # it died at once: its output says why
            process.write(json.dumps(config).encode() + b"\n")
        result, text = process.answer(0, "start", deadline - time.monotonic())
        if result:
            reason = "\n".join(line for line in text.splitlines() if not line.startswith("##"))
            raise SoftIOCError(
                f"the soft IOC did not start: {reason.strip()}{_shown(process.errors())}"
            )
        self._check_port(deadline)

    def _config(self, folder: str) -> dict[str, object]:
        """Write texts to files in `folder` and return what `_ioc_main` wants to know."""
        databases = [
            _as_file(db, os.path.join(folder, f"{number}.db")) for number, db in enumerate(self._db)
        ]
        rates = list(self._scan_rates)
        for path in databases:
            with open(path, "rb") as file:
                rates += [rate.decode() for rate in _SCAN.findall(file.read())]
        security = self._access_security
        return {
            "folder": folder,
            "databases": databases,
            "macros": ",".join(_macro(name, text) for name, text in self.macros.items()),
            "access_security": security and _as_file(security, os.path.join(folder, "ioc.acf")),
            "scan_rates": [rate for rate in dict.fromkeys(rates) if float(rate) < 0.1],
            # The kernel watches the *thread* that started a process; only the main thread is
            # sure to live as long as we do.
            "die_with": os.getpid() if threading.current_thread() is threading.main_thread() else 0,
        }

    def _environment(self) -> dict[str, str]:
        env = {name: text for name, text in os.environ.items() if not name.startswith("EPICS_")}
        # Warnings as errors are the tests' affair, not that of the libraries the IOC imports.
        env.pop("PYTHONWARNINGS", None)
        env.update(self.env)
        env["EPICS_CAS_INTF_ADDR_LIST"] = LOOPBACK
        env["EPICS_CAS_BEACON_ADDR_LIST"] = LOOPBACK
        env["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] = "NO"
        env.update(self._extra_env)
        return env

    def _check_port(self, deadline: float) -> None:
        """Raise _PortTaken unless the CA server has the TCP port we asked for and accepts."""
        text = self.shell("casr 1")
        ports = re.findall(r"TCP server on [\d.]+:(\d+)", text)
        if ports and str(self.server_port) not in ports:
            raise _PortTaken
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                if probe.connect_ex((LOOPBACK, self.server_port)) == 0:
                    break
            if time.monotonic() > deadline or not self.running:
                raise SoftIOCError(
                    f"the soft IOC does not listen on port {self.server_port}{_shown(self.output)}"
                )
            time.sleep(0.01)
        # The probe was a client too. Let the server see it go, so that the first `casr` does not
        # count it; clients of an earlier life may come back at the same moment, hence the bound.
        forgotten = time.monotonic() + 0.5
        while self.casr().clients and time.monotonic() < forgotten:
            time.sleep(0.01)

    def _forget(self) -> None:
        """Take back what belongs to a process that has ended: pipes, thread, files."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None


class _PortTaken(Exception):
    """The CA server had to take another port than ours."""


class _Process:
    """One run of the IOC: the process, its pipes, its files and the thread that reads it."""

    def __init__(self, folder: str, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.paused = False
        self._error_path = os.path.join(folder, "stderr.txt")
        self._last_errors = ""
        self._number = 0
        with open(self._error_path, "wb") as errors:
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, _MAIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(env),
                cwd=folder,
            )
        assert self.popen.stdout is not None
        self._output = _Output(self.popen.stdout)
        self._thread = threading.Thread(
            target=self._output.run, name=f"SoftIOC output {self.popen.pid}", daemon=True
        )
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Send a line to the IOC's standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line)
        self.popen.stdin.flush()

    def ask(self, command: str, timeout: float) -> tuple[int, str]:
        """Run a shell command; its result and its output. One thread at a time."""
        self._number += 1
        try:
            self.write(b"%d %s\n" % (self._number, command.encode("utf-8", "surrogateescape")))
        except OSError as error:
            raise SoftIOCError(f"the soft IOC is gone{_shown(self.tail())}") from error
        return self.answer(self._number, command, timeout)

    def answer(self, number: int, what: str, timeout: float) -> tuple[int, str]:
        """Wait for the answer of that number: result and output."""
        answer = self._output.wait(number, timeout)
        if answer is not None:
            return answer
        if self._output.closed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(1.0)
            raise SoftIOCError(
                f"the soft IOC ended (return code {self.popen.returncode}) "
                f"during {what!r}{_shown(self.tail())}"
            )
        raise SoftIOCError(
            f"the soft IOC did not finish {what!r} within {timeout:.1f} s{_shown(self.tail())}"
        )

    def error_size(self) -> int:
        """How many bytes its standard error has so far."""
        with contextlib.suppress(OSError):
            return os.path.getsize(self._error_path)
        return 0

    def errors(self, since: int = 0) -> str:
        """The last of its standard error, from a size that it had on."""
        with contextlib.suppress(OSError), open(self._error_path, "rb") as file:
            file.seek(max(since, self.error_size() - _TAIL))
            self._last_errors = _COLOUR.sub("", file.read().decode("utf-8", "replace"))
        return self._last_errors

    def tail(self) -> str:
        """The last of its unasked output, then of its standard error."""
        text = _COLOUR.sub("", self._output.log().decode("utf-8", "replace"))
        return text[-_TAIL:] + self.errors()

    def reap(self, owner: int) -> None:
        """Kill what still lives and give everything back; nothing in a forked child."""
        if os.getpid() != owner:
            return
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(10.0)
        self._thread.join(5.0)
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        with contextlib.suppress(OSError):  # what could not be sent to a dead process
            self.popen.stdin.close()
        if not self._thread.is_alive():
            self.popen.stdout.close()
        self.errors()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Output:
    """The IOC's standard output, cut into answers. `run` is the thread; all else any thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._fd = pipe.fileno()
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._log = bytearray()
        self._answers: dict[int, tuple[int, str]] = {}
        self.closed = False

    def run(self) -> None:
        """Read until the end; the body of the thread."""
        while True:
            try:
                chunk = os.read(self._fd, 65536)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                chunk = b""
            with self._changed:
                self._buffer += chunk
                self._cut()
                if not chunk:
                    self._log += self._buffer
                    self._buffer.clear()
                    self.closed = True
                self._changed.notify_all()
            if not chunk:
                return

    def _cut(self) -> None:
        """Move finished answers out of the buffer."""
        while mark := _MARK.search(self._buffer):
            kind, number, result = mark[1], int(mark[2]), int(mark[3])
            before = bytes(self._buffer[: mark.start()])
            del self._buffer[: mark.end()]
            if kind == b"end":
                # A shell lives long: answers nobody fetched (their asker gave up) go.
                if len(self._answers) > 100:
                    self._answers.clear()
                self._answers[number] = (result, before.decode("utf-8", "surrogateescape"))
                if number:
                    continue
            self._log += before
            del self._log[:-_KEEP]

    def wait(self, number: int, timeout: float) -> tuple[int, str] | None:
        """The answer of that number, or None if it does not come."""
        arrived: Callable[[], bool] = lambda: number in self._answers or self.closed  # noqa: E731
        with self._changed:
            self._changed.wait_for(arrived, max(timeout, 0.0))
            return self._answers.pop(number, None)

    def log(self) -> bytes:
        """What came outside of answers, and an answer still going on."""
        with self._changed:
            return bytes(self._log + self._buffer)


def configure_environment(ioc: SoftIOC, environ: MutableMapping[str, str] | None = None) -> None:
    """Make this process' Channel Access see `ioc` only; call it before libca's first use."""
    ioc.apply(environ)


def _as_list(db: Database | Sequence[Database]) -> list[Database]:
    if isinstance(db, (str, bytes, os.PathLike)):
        return [db]
    return list(db)


def _as_file(db: Database, path: str) -> str:
    """Return the absolute path of a database, after writing a text to `path`."""
    if isinstance(db, str) and ("(" in db or "\n" in db or not db.strip()):
        db = db.encode("utf-8", "surrogateescape")
    if isinstance(db, bytes):
        with open(path, "wb") as file:
            file.write(db)
        return path
    given = os.path.abspath(db)
    if not os.path.isfile(given):
        raise SoftIOCError(f"no such file: {given}")
    return given


def _number(value: object) -> object:
    """An element for JSON as `dbpf` takes it, which knows no `true`; of numpy's too."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"a number or a text is wanted, not {value!r}")
    return int(value) if isinstance(value, bool) else value


def _word(text: str) -> str:
    """Quote one word for the IOC shell, where quotes know no escapes: a quote ends them."""
    return '"' + text.replace('"', '"\'"\'"') + '"'


def _macro(name: str, text: str) -> str:
    """Return one definition for a list of macros, where a backslash escapes."""
    return f'{name}="' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shown(output: str) -> str:
    output = output.strip()
    return f"\n--- the IOC's output ---\n{output}" if output else ""
