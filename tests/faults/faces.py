"""One face for both libraries, so that a scenario which both can be asked is written once.

`face(name)` gives `EpicsxPV` or `PyepicsPV`. Neither library is imported before the first is made.

Threads. `news`, `values` and `Answer.times` are appended to by whatever thread the library calls back in: the
dispatcher of epicsx, a thread of libca with pyepics. Lists are only appended to, so a scenario may read them any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import epicsx


class Failed(Exception):
    """What pyepics tells by a return value."""


class Answer:
    """Of a put with completion: when its callback was called, and what each call said."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.said: list[str] = []

    def tell(self, what: str) -> None:
        """One call."""
        self.times.append(time.monotonic())  # first: who has seen what was said may ask when
        self.said.append(what)


class Face:
    """A PV with a monitor, as both libraries have it.

    Attributes
    ----------
    news : list of (time, connected)
    values : list of (time, value, stamp), of the monitor
    """

    def __init__(
        self, name: str, *, monitor: bool = True, also: Callable[[Any], None] | None = None
    ) -> None:
        self.name = name
        self.news: list[tuple[float, bool]] = []
        self.values: list[tuple[float, Any, float]] = []
        self.also = also
        self.start(monitor)

    def start(self, monitor: bool) -> None:
        """Make the channel, and the monitor."""
        raise NotImplementedError

    def on_connection(self, up: bool) -> None:
        """Note news."""
        self.news.append((time.monotonic(), up))

    def on_value(self, value: Any, stamp: float) -> None:
        """Note a value; one that `also` is given instead is not kept."""
        if self.also is None:
            self.values.append((time.monotonic(), value, stamp))
        else:
            self.also(value)

    def last(self, up: bool, since: float = 0.0) -> float:
        """When it last went up or down, 0 if it did not since then."""
        return max((when for when, what in self.news if what is up and when >= since), default=0.0)

    def after(self, when: float) -> list[Any]:
        """Values that came since."""
        return [value for came, value, _ in self.values if came >= when]


class EpicsxPV(Face):
    """A `Channel`."""

    library = "epicsx"

    def start(self, monitor: bool) -> None:
        self.channel = epicsx.Channel(
            self.name, on_connection=lambda channel, up: self.on_connection(up)
        )
        self.subscription: Any = None
        if monitor:
            self.subscription = self.channel.subscribe(
                lambda sample: self.on_value(sample.value, sample.timestamp)
            )

    @property
    def connected(self) -> bool:
        return self.channel.connected

    @property
    def host(self) -> str:
        return self.channel.host

    @property
    def write_access(self) -> bool:
        return bool(self.channel.access & epicsx.Access.WRITE)

    def connect(self, timeout: float = 10.0) -> None:
        self.channel.connect(timeout)

    def get(self, timeout: float = 5.0) -> Any:
        return self.channel.get(timeout=timeout).value

    def put(self, value: Any, *, wait: bool = False, timeout: float = 5.0) -> None:
        self.channel.put(value, wait=wait, timeout=timeout)

    def put_answer(self, value: Any) -> Answer:
        answer = Answer()
        request = self.channel.put_async(value, timeout=None)

        def done(request: epicsx.Request) -> None:
            error = request.exception(0)
            answer.tell("done" if error is None else type(error).__name__)

        request.add_done_callback(done)
        return answer

    def facts(self) -> tuple[str, int, tuple[str, ...], str]:
        """Type, count, states, units."""
        control = self.channel.control()
        native = self.channel.native_type
        assert native is not None
        states = tuple(control.enum_strings or ())
        return native.name.lower(), self.channel.count, states, control.units or ""

    def stop(self) -> None:
        """End the monitor."""
        self.subscription.close()

    def close(self) -> None:
        self.channel.close()


class PyepicsPV(Face):
    """A `PV`."""

    library = "pyepics"

    def start(self, monitor: bool) -> None:
        import epics

        self.pv = epics.PV(
            self.name,
            connection_callback=lambda conn, **_: self.on_connection(conn),
            callback=(lambda value, timestamp, **_: self.on_value(value, timestamp))
            if monitor
            else None,
            auto_monitor=monitor,
        )

    @property
    def connected(self) -> bool:
        return bool(self.pv.connected)

    @property
    def host(self) -> str:
        return str(self.pv.host)

    @property
    def write_access(self) -> bool:
        return bool(self.pv.write_access)

    def connect(self, timeout: float = 10.0) -> None:
        if not self.pv.wait_for_connection(timeout):
            raise Failed(f"{self.name} does not connect")

    def get(self, timeout: float = 5.0) -> Any:
        value = self.pv.get(use_monitor=False, timeout=timeout)
        if value is None:
            raise Failed("get gave None")
        return value

    def put(self, value: Any, *, wait: bool = False, timeout: float = 5.0) -> None:
        result = self.pv.put(value, wait=wait, timeout=timeout)
        if result is None or result < 0:
            raise Failed(f"put gave {result}")

    def put_answer(self, value: Any) -> Answer:
        answer = Answer()
        self.pv.put(value, callback=lambda **_: answer.tell("done"))
        return answer

    def facts(self) -> tuple[str, int, tuple[str, ...], str]:
        """Type, count, states, units."""
        control = self.pv.get_ctrlvars() or {}
        kind = str(self.pv.type).removeprefix("time_")
        states = tuple(control.get("enum_strs") or ())
        return kind, self.pv.count, states, control.get("units", "")

    def stop(self) -> None:
        """End the monitor."""
        self.pv.clear_auto_monitor()

    def close(self) -> None:
        self.pv.disconnect()


PV = EpicsxPV | PyepicsPV


def attach(name: str) -> None:
    """Let this thread use the library: pyepics asks for it."""
    if name == "pyepics":
        import epics

        epics.ca.use_initial_context()


FACES: dict[str, type[EpicsxPV | PyepicsPV]] = {"epicsx": EpicsxPV, "pyepics": PyepicsPV}
