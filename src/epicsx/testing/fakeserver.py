"""`FakeServer`: a Channel Access server in plain Python that behaves, until a script says what it sends instead.

For what a real IOC never does: wrong counts, sizes, types and identifiers, commands that there are not, errors of any
status, half a message, garbage. `CAProxy` is for networks that fail; this is for servers that lie.

Threads. One daemon thread for each server runs an event loop (see `_fakeengine`). All methods may be called from any
thread, also from scripts, which run in that thread. It shares the interpreter with the test: a test that holds the GIL
holds up the server.

Lifetime. `stop`, the end of the ``with``, or a finalizer ends the thread, resets connections and closes the ports. In a
forked child nothing runs and nothing is done.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from epicsx import _wire
from epicsx._wire import Frame
from epicsx.enums import DBE, Access
from epicsx.testing import _fakeengine
from epicsx.testing._choices import (
    Commands,
    byte_count,
    check_channel,
    check_field,
    check_times,
    checked_nth,
    command_numbers,
    positive,
)
from epicsx.testing._fakeengine import Engine, Part, Request, encoded, parts_of
from epicsx.testing._fakevalues import FakePV
from epicsx.testing.ports import checked_port, client_environment, free_port
from epicsx.testing.repeater import Repeater

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FakePV", "FakeServer", "Request", "Script"]

Answer: TypeAlias = "Part | Iterable[Part] | None"


class Script:
    """What a verb of `FakeServer` gave: in force until `cancel`, or the end of its ``with``."""

    def __init__(self, engine: Engine, rule: _fakeengine.Rule) -> None:
        self._engine = engine
        self._rule = rule
        #: What it does, as the method was called.
        self.verb: str = rule.verb

    @property
    def matched(self) -> int:
        """How many requests fitted its command, channel and function, `nth` and `count` aside."""
        return self._rule.matched

    @property
    def count(self) -> int:
        """How often it acted."""
        return self._rule.count

    def cancel(self) -> None:
        """Take it back: from now on nothing happens by it. Its counts stay. Nothing to do once the server has ended."""
        rules, rule = self._engine.rules, self._rule
        with contextlib.suppress(_fakeengine.Ended):
            self._engine.do(lambda: rules.remove(rule) if rule in rules else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Script: {self.verb}, acted {self.count} times>"


class FakeServer:
    """A Channel Access server on 127.0.0.1 whose every answer a test may replace.

    Parameters
    ----------
    pvs : mapping of str to FakePV, int, float, str, bytes or a sequence
        What it serves, by name; a plain value is ``FakePV(value)``.
    port : int, optional
        TCP and UDP port on 127.0.0.1; by default a free one.
    repeater_port : int, optional
        Port of a CA repeater that exists; by default the server brings one, on a free port.

    Without scripts it does what a client expects: it answers searches, opens channels, tells access rights, reads and
    writes as any type with alarm, time stamp, limits and states, posts updates, echoes. `answer`, `corrupt`, `error`,
    `drop`, `delay`, `halve` and `cut` change what is sent. Each gives a `Script`, which counts and can be taken back;
    they act in the order in which they were made. Keywords choose the requests, and all must fit:

    command : name or number of a command, or several
        Of the request, as in caProto.h: ``"READ_NOTIFY"``. Updates are answers to ``"EVENT_ADD"``; ``"SEARCH"`` is
        answered by a datagram.
    channel : str
        The PV's name; ``*`` and ``?`` stand for any characters.
    nth : int or several
        Only the n-th of the requests that fit, counted from 1.
    count : int
        Only so many times.
    where : callable
        ``where(request)`` decides.

    Examples
    --------
    >>> with FakeServer({"x": 1.5, "w": [1.0, 2.0, 3.0]}) as server:
    ...     server.corrupt({"count": 70_000}, command="EVENT_ADD", channel="w")
    ...     server.error(ECA.PUTFAIL, "no", command="WRITE_NOTIFY")
    """

    def __init__(
        self,
        pvs: Mapping[str, Any],
        *,
        port: int | None = None,
        repeater_port: int | None = None,
    ) -> None:
        checked_port(port, "port")
        checked_port(repeater_port, "repeater_port")
        self._pvs = {name: _pv(name, given) for name, given in pvs.items()}
        #: TCP and UDP port on 127.0.0.1.
        self.port: int = port or free_port()
        self.repeater_port: int = repeater_port or free_port()
        self._repeater = Repeater(self.repeater_port) if repeater_port is None else None
        self._engine: Engine | None = None
        self._finalizer: weakref.finalize[..., Self] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The EPICS_CA_* variables a client needs to see this server, and nothing else."""
        return client_environment(self.port, self.repeater_port)

    # -- its life

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._engine is not None and self._engine.thread.is_alive()

    def start(self) -> Self:
        """Start it and return when it serves; itself, so that it may be chained.

        Raises
        ------
        OSError
            Somebody has the port.
        RuntimeError
            It runs already.
        """
        if self.running:
            raise RuntimeError("the fake server runs already")
        if self._repeater is not None:
            self._repeater.start().wait()
        engine = Engine(self._pvs, self.port)
        try:
            engine.start()
        except BaseException:
            self.stop()
            raise
        self._engine = engine
        self._finalizer = weakref.finalize(self, engine.stop)
        return self

    def stop(self) -> None:
        """End it: connections are reset, ports closed, scripts and the log are gone."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()
        if self._finalizer is not None:
            self._finalizer.detach()  # it would keep the engine
        if self._repeater is not None:
            self._repeater.stop()

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # -- its PVs

    def __getitem__(self, name: str) -> Any:
        """The value of a PV: an element, or a list of them."""
        return self._pvs[name].value

    def post(self, name: str, value: Any = None, **attributes: Any) -> int:
        """Set a PV, and send an update to each who subscribed; how many these were.

        Parameters
        ----------
        name : str
        value : optional
            The new value; without it the old one is sent once more.
        attributes
            Others of `FakePV`: severity, status, units, timestamp and so on. Without `timestamp` it is now.

        Raises
        ------
        KeyError
            There is no such PV.
        ValueError
            The value does not fit it.
        """
        pv = self._pvs[name]
        unknown = sorted(key for key in attributes if key not in _SETTABLE)
        if unknown:
            raise ValueError(f"a PV has {', '.join(_SETTABLE)}, not {', '.join(unknown)}")

        def post() -> int:
            if value is not None:
                pv.set(value)
            pv.timestamp = time.time()
            for key, given in attributes.items():
                setattr(pv, key, given)
            told = DBE.VALUE | DBE.LOG | DBE.ALARM
            if _DESCRIBES & set(attributes):
                told |= DBE.PROPERTY
            return engine.post(name, int(told))

        engine = self._running()
        return engine.do(post)

    def set_access(self, name: str, access: Access) -> None:
        """Change what clients may do with a PV, and tell them; a KeyError if there is none."""
        engine = self._running()
        if name not in self._pvs:
            raise KeyError(name)
        engine.do(lambda: engine.rights(name, access))

    @property
    def puts(self) -> list[tuple[str, Any]]:
        """What clients wrote, in order: (name, value)."""
        return list(self._running().puts)

    # -- verbs

    def answer(self, script: Callable[[Request], Answer] | Answer, **requests: Any) -> Script:
        """Send something else.

        Parameters
        ----------
        script : callable, Frame, bytes, or several
            What is sent: frames, bytes as they are, and numbers, which are pauses in seconds. A callable,
            ``script(request)``, gives that; None leaves the answer as it is, an empty list is silence.
        """
        if callable(script):
            function: Callable[[Request], Answer] = script

            def act(request: Request, parts: list[Part]) -> list[Part]:
                given = function(request)
                return parts if given is None else parts_of(given)
        elif script is None:
            raise TypeError("what is to be sent? Silence is `drop`")
        else:
            fixed = parts_of(script)

            def act(request: Request, parts: list[Part]) -> list[Part]:
                return fixed

        return self._script("answer", act, requests)

    def corrupt(self, change: Mapping[str, int], **requests: Any) -> Script:
        """Change the header of the answer, or of its last frame if there are several.

        Parameters
        ----------
        change : mapping
            New values of ``command``, ``data_type``, ``count``, ``parameter1``, ``parameter2``, and ``size``, which
            makes the header lie about the payload.
        """
        for name, value in change.items():
            check_field(name, value)
        fields: dict[str, Any] = dict(change)

        def act(request: Request, parts: list[Part]) -> list[Part]:
            for at in reversed(range(len(parts))):
                part = parts[at]
                if isinstance(part, Frame):
                    return [*parts[:at], replace(part, **fields), *parts[at + 1 :]]
            return parts

        return self._script("corrupt", act, requests)

    def error(self, status: int, text: str | bytes = "", **requests: Any) -> Script:
        """Answer by CA_PROTO_ERROR, which libca hands to the exception handler.

        Parameters
        ----------
        status : int
            Any number; those of `epicsx.enums.ECA` have names.
        text : str or bytes
            What the server has to say about it.
        """
        check_field("parameter2", int(status))
        said = text.encode() if isinstance(text, str) else bytes(text)
        engine = self._running()

        def act(request: Request, parts: list[Part]) -> list[Part]:
            return [_wire.error(request.frame, int(status), said, engine.cid(request))]

        return self._script("error", act, requests)

    def drop(self, **requests: Any) -> Script:
        """Answer nothing."""
        return self._script("drop", lambda request, parts: [], requests)

    def delay(self, seconds: float, **requests: Any) -> Script:
        """Answer so many seconds later; what comes behind on that circuit waits as well."""
        pause = positive("seconds", seconds)
        return self._script("delay", lambda request, parts: [pause, *parts], requests)

    def halve(self, after: int | None = None, **requests: Any) -> Script:
        """Send the first bytes of the answer only, by default half of them; the circuit goes on."""
        return self._script("halve", _first(after), requests)

    def cut(self, after: int = 0, **requests: Any) -> Script:
        """Reset the circuit when so many bytes of the answer have been sent. Without keywords: all of them, now.

        Bytes that wait for a client to read them have not been sent; the reset waits for them, but not that of all now.
        """
        if requests or after:
            return self._script("cut", _first(byte_count(after)), requests, cuts=True)
        engine = self._running()
        rule = _fakeengine.Rule("cut", lambda request, parts: parts, [], None, None, None, None)

        def now() -> None:
            for circuit in list(engine.circuits.values()):
                circuit.reset()
                rule.matched += 1
                rule.count += 1

        engine.do(now)
        return Script(engine, rule)

    def send(self, *parts: Part, circuit: int | None = None) -> int:
        """Send what nobody asked for, to one circuit or to all; to how many."""
        data = encoded(parts)
        engine = self._running()

        def now() -> int:
            chosen = [each for number, each in engine.circuits.items() if circuit in (None, number)]
            for each in chosen:
                each.send(data)
            return len(chosen)

        return engine.do(now)

    def reset(self) -> None:
        """Take back every script: it behaves again."""
        engine = self._running()
        engine.do(engine.rules.clear)

    # -- what it saw

    @property
    def circuits(self) -> int:
        """How many connections there are."""
        return len(self._running().circuits)

    @property
    def connections(self) -> int:
        """How many there have been."""
        return self._running().began

    @property
    def subscriptions(self) -> int:
        """How many subscriptions clients have, on all circuits."""
        engine = self._running()
        return engine.do(lambda: sum(len(each.subscriptions) for each in engine.circuits.values()))

    @property
    def requests(self) -> list[Request]:
        """The last 10 000 requests, and the updates among them, in their order; their payloads cut to 64 bytes."""
        engine = self._running()
        return engine.do(lambda: list(engine.requests))

    def seen(self, *, command: Commands | None = None, channel: str | None = None) -> int:
        """How many requests and updates there have been since the start, of these commands and this channel."""
        probe = _probe(command, channel)
        engine = self._running()
        totals = engine.do(lambda: list(engine.totals.items()))
        return sum(count for key, count in totals if probe.chooses(*key))

    def wait_for(
        self,
        count: int = 1,
        timeout: float = 10.0,
        *,
        command: Commands | None = None,
        channel: str | None = None,
    ) -> None:
        """Wait until so many fit, as `seen` counts them; not for scripts, in whose thread they come.

        Raises
        ------
        TimeoutError
            They did not come within `timeout` seconds.
        """
        engine = self._running()
        deadline = time.monotonic() + timeout
        while (found := self.seen(command=command, channel=channel)) < count:
            with engine.changed:
                left = deadline - time.monotonic()
                if left <= 0:
                    what = f"{command or 'request'} of {channel or 'any channel'}"
                    raise TimeoutError(f"{found}, not {count} of {what} within {timeout:g} s")
                engine.changed.wait(min(left, 0.1))

    # -- inside

    def _running(self) -> Engine:
        if self._engine is None or not self._engine.thread.is_alive():
            raise _fakeengine.Ended
        return self._engine

    def _script(
        self,
        verb: str,
        act: Callable[[Request, list[Part]], list[Part]],
        requests: Mapping[str, Any],
        *,
        cuts: bool = False,
    ) -> Script:
        known = {"command", "channel", "nth", "count", "where"}
        if unknown := sorted(set(requests) - known):
            raise TypeError(f"{verb}: no such keyword: {', '.join(unknown)}")
        rule = _probe(requests.get("command"), requests.get("channel"), verb)
        nth, count, where = (requests.get(name) for name in ("nth", "count", "where"))
        check_times(count, where)
        rule.nth = None if nth is None else checked_nth(nth)
        rule.limit, rule.where, rule.act, rule.cuts = count, where, act, cuts
        engine = self._running()
        engine.do(lambda: engine.rules.append(rule))
        return Script(engine, rule)


_DESCRIBES = {"limits", "precision", "states", "units"}
_SETTABLE = ("access", "limits", "precision", "severity", "states", "status", "timestamp", "units")


def _pv(name: str, given: Any) -> FakePV:
    if not name:
        raise ValueError(f"a PV's name is a text, not {name!r}")
    try:
        return given if isinstance(given, FakePV) else FakePV(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def _probe(command: Any, channel: Any, verb: str = "") -> _fakeengine.Rule:
    """What selects requests."""
    check_channel(channel)
    numbers = command_numbers(command)
    return _fakeengine.Rule(verb, lambda request, parts: parts, numbers, channel, None, None, None)


def _first(after: int | None) -> Callable[[Request, list[Part]], list[Part]]:
    """What sends the first bytes only; None is half of them."""
    if after is not None:
        byte_count(after)

    def act(request: Request, parts: list[Part]) -> list[Part]:
        left = after
        if left is None:
            left = sum(len(each) for each in encoded(parts) if isinstance(each, bytes)) // 2
        kept: list[Part] = []
        for each in encoded(parts):
            if isinstance(each, bytes):
                kept.append(each[:left])
                left -= len(kept[-1])  # type: ignore[arg-type]
            else:
                kept.append(each)
        return kept

    return act
