"""`Room`: what a scenario starts, and who ends it.

Threads. All is for the scenario's own thread, but for `check`, which any thread may call.

Lifetime. `close` ends what was started in the room, the last first. Should the process be killed, soft IOCs, proxies
and repeaters see that their parent is gone, and end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from support import Client, start_python

import epicsx
from epicsx import testing
from epicsx.testing import CAProxy, Loopback, Repeater, SoftIOC
from faults.faces import FACES, PV
from faults.harness import NotHeld

T = TypeVar("T")


def doubtful(seconds: float, most: float) -> bool:
    """Whether it took longer than it may, but not by so much that the machine cannot be the reason."""
    return most < seconds < most + 8.0


class Room:
    """The private network of one scenario.

    Attributes
    ----------
    face : str, 'epicsx' or 'pyepics'
    long : bool, the long form is asked for
    missed : list of str, what `check` found wrong
    loopback : Loopback, whose environment is set
    """

    def __init__(self, face: str, ports: int = 1, *, long: bool = False) -> None:
        self.face = face
        self.long = long
        self.missed: list[str] = []
        self.loopback = Loopback(spare=ports - 1)
        self.loopback.apply()
        self._ports = [self.loopback.server_port, *self.loopback.spare_ports]
        self._stack = contextlib.ExitStack()
        repeater = Repeater(self.loopback.repeater_port).start()
        self._stack.callback(repeater.stop)
        if not repeater.wait():
            os.environ["EPICSX_NO_REPEATER"] = "1"

    # -- what stands in it

    def enter(self, thing: contextlib.AbstractContextManager[T]) -> T:
        """Enter anything that has an end; the room leaves it."""
        return self._stack.enter_context(thing)

    def port(self) -> int:
        """The next of the ports that this process' clients search, where nothing stands yet."""
        return self._ports.pop(0)

    def ioc(self, db: Any, *, seen: bool = True, **options: Any) -> SoftIOC:
        """A running SoftIOC; with `seen=False` clients find it through a proxy only."""
        if seen:
            options.setdefault("server_port", self.port())
        options.setdefault("repeater_port", self.loopback.repeater_port)
        return self.enter(SoftIOC(db, **options))

    def proxy(self, ioc: SoftIOC, *, port: int | None = None) -> CAProxy:
        """A CAProxy before an IOC that was made with `seen=False`."""
        repeater = self.loopback.repeater_port
        return self.enter(
            CAProxy(ioc.server_port, port=port or self.port(), repeater_port=repeater)
        )

    def fake(self, *args: Any, **options: Any) -> Any:
        """A FakeServer on the next port."""
        server: Any = testing
        options.setdefault("port", self.port())
        return self.enter(server.FakeServer(*args, **options))

    def pv(self, name: str, **options: Any) -> PV:
        """A PV of the library under test, not connected yet."""
        return FACES[self.face](name, **options)

    def child(self, script: str, *args: str, env: Mapping[str, str] | None = None) -> Client:
        """A Python program in a process of its own, in this room's environment."""
        return self.enter(start_python(script, *args, env=env))

    @property
    def clock(self) -> Any:
        """What moves this process' clocks: `faults.clock`."""
        return importlib.import_module("faults.clock")

    def env(self, **variables: str) -> None:
        """Set environment variables; before the library under test starts."""
        os.environ.update(variables)

    # -- waiting and judging

    def saw(self, condition: Callable[[], T], seconds: float, every: float = 0.002) -> T:
        """The first true value of `condition()`, or its last one when the time is over."""
        deadline = time.monotonic() + seconds
        while not (value := condition()) and time.monotonic() < deadline:
            time.sleep(every)
        return value

    def wait(self, condition: Callable[[], T], seconds: float, what: str = "") -> T:
        """The first true value of `condition()`; NotHeld if the time is over."""
        value = self.saw(condition, seconds)
        if not value:
            raise NotHeld(f"not within {seconds:g} s: {what or condition.__qualname__}")
        return value

    def check(self, condition: object, text: str) -> None:
        """Unless the condition is true, the scenario is not held, and goes on; `text` says what was seen instead."""
        if not condition:
            self.missed.append(text)

    def best(self, attempt: Callable[[], T], good: Callable[[T], object], tries: int = 5) -> T:
        """What the first attempt gave that is good, of so many; else the last one's.

        A machine that puts a process aside makes one attempt wrong; a fault makes each.
        """
        for _ in range(tries - 1):
            if good(found := attempt()):
                return found
        return attempt()

    def lent(self) -> int:
        """What libca may still mention: one more with each request that is under way. Of pyepics nothing tells: 0."""
        return int(epicsx._ca.lent()) if self.face == "epicsx" else 0

    def lends(self, more: int, than: int) -> None:
        """Wait until so much more is `lent` than there was, where something tells."""
        if self.face == "epicsx":
            self.wait(lambda: self.lent() >= than + more, 20.0, f"{more} requests under way")

    def raised(self, call: Callable[[], object]) -> tuple[BaseException | None, float]:
        """What a call raised, and how many seconds it took."""
        began = time.monotonic()
        try:
            call()
        except Exception as error:
            return error, time.monotonic() - began
        return None, time.monotonic() - began

    def said(self) -> str:
        """What this process has written on standard error, if that is a file, as the runner makes it."""
        if not stat.S_ISREG(os.fstat(2).st_mode):
            return ""
        with open("/proc/self/fd/2", "rb") as file:
            return file.read().decode(errors="replace")

    # -- measures of this process, or of another

    def rss(self, pid: int | None = None) -> float:
        """Resident memory, MB."""
        with open(f"/proc/{pid or os.getpid()}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))

    def threads(self, pid: int | None = None) -> int:
        """How many threads there are, those of C among them."""
        return len(os.listdir(f"/proc/{pid or os.getpid()}/task"))

    def thread_names(self) -> list[str]:
        """What the threads of this process are called, those of C among them."""
        names = []
        for task in os.listdir("/proc/self/task"):
            with (
                contextlib.suppress(FileNotFoundError),
                open(f"/proc/self/task/{task}/comm") as file,
            ):
                names.append(file.read().strip())
        return names

    def fds(self, pid: int | None = None) -> int:
        """How many files and sockets are open."""
        return len(os.listdir(f"/proc/{pid or os.getpid()}/fd"))

    # -- its end

    def close(self) -> None:
        """End all that was started."""
        self._stack.close()
