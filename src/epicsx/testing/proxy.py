"""`CAProxy`: a network that fails when a test says so, between Channel Access clients and one server.

It answers searches with its own TCP port, forwards what comes to the server and back, and knows the frames: it logs
them, and cuts, half-closes, stalls, delays, throttles, drops or corrupts them by rules. It works in a process of its
own: a thread would share the interpreter's lock with the test, which may hold it for seconds, and the network would
then be as slow as the test. Only a rule's Python functions run here, and hold up the frames that they are asked about.

Not forwarded: beacons. Clients do not hear from the proxy that the server came back; they find it by searching.

Threads. One daemon thread, `_Link.run`, reads the process' answers, wakes who waits for them and calls rules'
functions. All methods may be called from any thread, but not from a rule's function: they would wait for that very
thread.

Lifetime. `stop`, the end of the ``with``, or a finalizer ends the process; should this process die without, the other
sees the end of its standard input, and ends. In a forked child nothing is done.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from epicsx._wire import Command, Frame
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
from epicsx.testing.ports import LOOPBACK, client_environment, free_port
from epicsx.testing.repeater import Repeater

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CAProxy", "Entry", "ProxyError", "Rule"]

log: logging.Logger = logging.getLogger("epicsx")

Way: TypeAlias = Literal["to_server", "to_client"]
Change: TypeAlias = "Callable[[Frame], Frame | bytes | None] | Mapping[str, int] | int"

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
_WAYS = ("to_server", "to_client")
_TIMEOUT = 20.0  # seconds for an answer of the process


class ProxyError(RuntimeError):
    """The proxy could not be started, or does not answer."""


@dataclass(frozen=True)
class Entry:
    """One frame in the proxy's log.

    Attributes
    ----------
    time : float, seconds, as of `time.monotonic`
    circuit : int, which connection, counted from 1; 0 is a datagram
    direction : 'to_server' or 'to_client'
    frame : Frame, its payload cut to 64 bytes; ``frame.size`` is that of the whole payload
    channel : str or None, the PV that it is about, where that is known
    fate : str, empty if it was forwarded as it came, else the verb of the last rule that acted
    """

    time: float
    circuit: int
    direction: str
    frame: Frame
    channel: str | None
    fate: str

    @property
    def command(self) -> str:
        """The command's name, as in caProto.h; its number if it has none."""
        with contextlib.suppress(ValueError):
            return Command(self.frame.command).name
        return str(self.frame.command)

    def __str__(self) -> str:
        head = f"{self.time:.4f} #{self.circuit} {self.direction} {self.command}"
        tail = " ".join(filter(None, (ascii(self.channel or ""), self.fate)))
        return f"{head} type={self.frame.data_type} count={self.frame.count} size={self.frame.size} {tail}"


class Rule:
    """What a verb of `CAProxy` gave: in force until `cancel`, or the end of its ``with``."""

    def __init__(self, proxy: CAProxy, verb: str, number: int) -> None:
        self._proxy = proxy
        self._number = number
        self._last: tuple[int, int] | None = None
        #: What it does, as the method was called.
        self.verb: str = verb

    def _counts(self) -> tuple[int, int]:
        if self._last is None:
            matched, count = self._proxy._ask("counts", number=self._number)
            return matched, count
        return self._last

    @property
    def matched(self) -> int:
        """How many frames fitted its direction, command, channel and function, `nth` and `count` aside."""
        return self._counts()[0]

    @property
    def count(self) -> int:
        """How often it acted."""
        return self._counts()[1]

    def cancel(self) -> None:
        """Take it back: from now on nothing happens by it. Its counts stay."""
        if self._last is None:
            matched, count = self._proxy._ask("cancel", number=self._number)
            self._last = (matched, count)
            self._proxy._forget(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Rule {self._number}: {self.verb}>"


class CAProxy:
    """A Channel Access server's place on the network, which fails as the test wants.

    Parameters
    ----------
    upstream_port : int
        TCP and UDP port of the server on 127.0.0.1, as ``SoftIOC.server_port``.
    port : int, optional
        The proxy's own port, TCP and UDP, on 127.0.0.1; by default a free one.
    repeater_port : int, optional
        Port of a CA repeater that exists; by default the proxy brings one, on a free port.

    Each verb but `resume` and `reset` takes effect on what passes from then on. It gives a `Rule`, which counts and can
    be taken back; rules act in the order in which they were made. Those on frames take these keywords, all of which
    must fit:

    direction : 'to_server' or 'to_client'
    command : name or number of a command, or several
        As in caProto.h: ``"EVENT_ADD"``, ``epicsx.testing.Command.EVENT_ADD``.
    channel : str
        The PV's name; ``*`` and ``?`` stand for any characters.
    nth : int or several
        Only the n-th of the frames that fit, counted from 1.
    count : int
        Only so many times.
    where : callable
        ``where(frame)`` decides; it runs in this process, in the proxy's thread.

    Examples
    --------
    >>> with CAProxy(ioc.server_port) as proxy:
    ...     proxy.drop(command="WRITE_NOTIFY", direction="to_client", count=1)  # one answer gets lost
    ...     proxy.stall()  # and then nothing passes
    """

    def __init__(
        self,
        upstream_port: int,
        *,
        port: int | None = None,
        repeater_port: int | None = None,
    ) -> None:
        for what, number in (("upstream_port", upstream_port), ("port", port)):
            if number is not None and not 0 < number < 65536:
                raise ValueError(f"{what} is a port number, 1 to 65535, not {number!r}")
        self.upstream_port = upstream_port
        #: TCP and UDP port on 127.0.0.1 where clients find it.
        self.port: int = port or free_port()
        self.repeater_port: int = repeater_port or free_port()
        self._repeater = Repeater(self.repeater_port) if repeater_port is None else None
        self._link: _Link | None = None
        self._last = 0

    @property
    def env(self) -> dict[str, str]:
        """The EPICS_CA_* variables a client needs to see the server through this proxy, and nothing else."""
        return client_environment(self.port, self.repeater_port)

    # -- its life

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._link is not None and self._link.process.poll() is None

    def start(self) -> Self:
        """Start it and return when it forwards; itself, so that it may be chained."""
        if self.running:
            raise ProxyError("the proxy runs already")
        self.stop()
        if self._repeater is not None:
            self._repeater.start().wait()
        self._link = _Link(self)
        try:
            config = {"host": LOOPBACK, "upstream": self.upstream_port, "port": self.port}
            self._link.send(config)
            self._link.wait(0)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it: its connections are reset, its port is closed, its rules and its log are gone."""
        link, self._link = self._link, None
        if link is not None:
            link.end()
        if self._repeater is not None:
            self._repeater.stop()

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # -- verbs

    def cut(self, *, after: int = 0, **frames: Any) -> Rule:
        """Reset connections, as a crash or a firewall does: those of the clients and those to the server.

        Without keywords all that there are, once and now; the rule's `count` is how many. With keywords the circuit of
        each frame that fits, when `after` bytes of that frame have been sent on.
        """
        if not frames and not after:
            return self._done("cut")
        return self._rule("cut", frames, after=byte_count(after))

    def half_close(self, direction: Way = "to_client", *, after: int = 0, **frames: Any) -> Rule:
        """End one direction of connections as a plain close does; the other goes on.

        Without further keywords on all circuits, once and now, behind what was sent before; the rule's `count` is how
        many. With keywords on the circuit of each frame that fits, when `after` bytes of that frame have been sent on.
        """
        _way(direction)
        if not frames and not after:
            return self._done("half_close", direction=direction)
        return self._rule("half_close", {"direction": direction, **frames}, after=byte_count(after))

    def stall(self, direction: Way | None = None, *, after: int = 0, **frames: Any) -> Rule:
        """Let nothing pass, connections staying open, until `resume` or the rule's `cancel`: as a host without network.

        Nothing is read meanwhile, so a sender meets full buffers. Connections are still accepted; searches are still
        answered (drop ``"SEARCH"`` if they shall not be). Without further keywords everything stalls; with keywords the
        circuit of each frame that fits, in that frame's direction, when `after` bytes of it have been sent on.
        """
        if direction is not None:
            _way(direction)
        if frames or after:
            return self._rule("stall", {"direction": direction, **frames}, after=byte_count(after))
        # A rule that fits no frame stands for it: so that it has a number, and `resume` finds it.
        rule = self._rule("stall", {"command": ()})
        ways = list(_WAYS) if direction is None else [direction]
        self._ask("stall", number=rule._number, directions=ways)
        return rule

    def resume(self) -> None:
        """End every `stall`: what waited passes, and nothing was lost."""
        self._ask("resume")

    def reset(self) -> None:
        """Take back every rule, as if each had been cancelled."""
        self._ask("reset")

    def delay(self, seconds: float, **frames: Any) -> Rule:
        """Send frames, and answers to searches, so many seconds later; they keep their order."""
        return self._rule("delay", frames, amount=positive("seconds", seconds))

    def throttle(self, bytes_per_second: float, **frames: Any) -> Rule:
        """Let no more bytes a second pass, each direction of each circuit for itself."""
        return self._rule("throttle", frames, amount=positive("bytes_per_second", bytes_per_second))

    def drop(self, **frames: Any) -> Rule:
        """Leave frames out. Searches and their answers are frames, too."""
        return self._rule("drop", frames)

    def corrupt(self, change: Change, *, seed: int = 0, **frames: Any) -> Rule:
        """Change frames.

        Parameters
        ----------
        change : callable, mapping or int
            ``change(frame)`` gives the `Frame`, or the bytes, to be sent in its place; None or the same leaves it as it
            is. It runs in this process. A mapping has new values for fields of the header: ``command``, ``data_type``,
            ``count``, ``parameter1``, ``parameter2``, and ``size``, which makes the header lie about the payload.
            A number flips one bit in about so many bytes.
        seed : int
            Of the random bits.
        """
        if isinstance(change, Mapping):
            for name, value in change.items():
                check_field(name, value)
            return self._rule("corrupt", frames, change=dict(change))
        if callable(change):
            return self._rule("corrupt", frames, function=change)
        given: Any = change
        if not isinstance(given, int) or given < 1:
            raise ValueError(
                f"a change is a function, a mapping or a number of bytes, not {change!r}"
            )
        return self._rule("corrupt", frames, change=given, seed=seed)

    def refuse(self) -> Rule:
        """Refuse new connections, as a server that has ended; searches are still answered."""
        rule = self._rule("refuse", {"command": ()})
        self._ask("refuse", number=rule._number)
        return rule

    # -- what it saw

    @property
    def circuits(self) -> int:
        """How many clients' connections there are."""
        return int(self._ask("state")[0])

    @property
    def connections(self) -> int:
        """How many there have been."""
        return int(self._ask("state")[1])

    @property
    def log(self) -> list[Entry]:
        """The last 100 000 frames, datagrams' included, in the order in which they came."""
        return [_entry(row) for row in self._ask("entries")]

    def clear_log(self) -> list[Entry]:
        """The log so far, which then begins anew."""
        return [_entry(row) for row in self._ask("entries", clear=True)]

    def seen(
        self,
        *,
        direction: Way | None = None,
        command: Commands | None = None,
        channel: str | None = None,
        fate: str | None = None,
    ) -> int:
        """How many frames have fitted since the start or `clear_log`, also beyond those that the log still has.

        `fate` is ``""`` for those that were forwarded as they came.
        """
        return int(self._ask("total", want=_want(direction, command, channel, fate)))

    def wait_for(
        self,
        count: int = 1,
        timeout: float = 10.0,
        *,
        direction: Way | None = None,
        command: Commands | None = None,
        channel: str | None = None,
        fate: str | None = None,
    ) -> None:
        """Wait until so many frames have fitted, as `seen` counts them.

        Raises
        ------
        TimeoutError
            They did not come within `timeout` seconds.
        """
        want = _want(direction, command, channel, fate)
        link = self._alive()
        number = link.request("wait_for", want=want, count=count, timeout=timeout)
        if not link.wait(number, timeout + _TIMEOUT):
            what = {key: value for key, value in want.items() if value is not None}
            raise TimeoutError(f"not {count} frames like {what} within {timeout:g} s")

    # -- inside

    def _alive(self) -> _Link:
        link = self._link
        if link is None or link.process.poll() is not None:
            raise ProxyError("the proxy does not run")
        return link

    def _ask(self, method: str, **options: Any) -> Any:
        link = self._alive()
        return link.wait(link.request(method, **options))

    def _rule(
        self,
        verb: str,
        frames: Mapping[str, Any],
        function: Callable[[Frame], Any] | None = None,
        **options: Any,
    ) -> Rule:
        known = {"direction", "command", "channel", "nth", "count", "where"}
        if unknown := sorted(set(frames) - known):
            raise TypeError(f"{verb}: no such keyword: {', '.join(unknown)}")
        given = _want(frames.get("direction"), frames.get("command"), frames.get("channel"))
        nth, count, where = (frames.get(name) for name in ("nth", "count", "where"))
        if nth is not None:
            given["nth"] = checked_nth(nth)
        check_times(count, where)
        link = self._alive()
        self._last += 1
        number = self._last
        if where is not None:
            link.functions["where", number] = where
        if function is not None:
            link.functions["change", number] = function
        given.pop("fate")
        self._ask(
            "rule",
            number=number,
            verb=verb,
            limit=count,
            where=where is not None,
            **given,
            **options,
        )
        return Rule(self, verb, number)

    def _done(self, verb: str, **options: Any) -> Rule:
        """What was done once: a rule that has ended."""
        rule = Rule(self, verb, 0)
        circuits = int(self._ask(verb, **options))
        rule._last = (circuits, circuits)
        return rule

    def _forget(self, number: int) -> None:
        if self._link is not None:
            for kind in ("where", "change"):
                self._link.functions.pop((kind, number), None)


class _Link:
    """The proxy's process, and what is said to it and by it."""

    def __init__(self, owner: CAProxy) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EPICS_")}
        environment.pop("PYTHONWARNINGS", None)
        # This very epicsx, wherever Python may have found it.
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (_ROOT, os.environ.get("PYTHONPATH")))
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "epicsx.testing._proxy_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.functions: dict[tuple[str, int], Callable[[Frame], Any]] = {}
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._answers: dict[int, tuple[Any, str | None]] = {}
        self._last = 0
        self._over = False
        assert self.process.stdout is not None
        self._thread = threading.Thread(
            target=self.run, args=(self.process.stdout,), name=f"CAProxy {owner.port}", daemon=True
        )
        self._thread.start()
        # The thread refers to this link, never to the proxy, which so may be forgotten.
        self._finalizer = weakref.finalize(owner, _reap, self.process, os.getpid())

    def run(self, pipe: IO[bytes]) -> None:
        """Read the process' lines until their end; the body of the thread."""
        with pipe:
            for line in pipe:
                number, *rest = json.loads(line)
                if number is None:
                    self.send([rest[0], "answer", self._call(*rest)])
                    continue
                with self._changed:
                    self._answers[number] = (rest[0], rest[1])
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _call(self, call: int, kind: str, number: int, row: list[Any]) -> Any:
        """What a rule's function says of a frame; as if it were not there, if it fails."""
        function = self.functions.get((kind, number))
        frame = Frame.of_row(row)
        try:
            result = None if function is None else function(frame)
            if kind == "where":
                return bool(result)
            if result is None or isinstance(result, (bytes, bytearray, memoryview)):
                return None if result is None else base64.b64encode(bytes(result)).decode()
            if isinstance(result, Frame):
                result.encode()  # it may not fit a header
                return result.row()
            raise TypeError(f"a Frame, bytes or None is wanted, not {type(result).__name__}")
        except Exception:
            log.exception("a function of the CA proxy failed; its frame passes unchanged")
            return False if kind == "where" else None

    def send(self, row: Any) -> None:
        """Write a line."""
        assert self.process.stdin is not None
        with self._sending, contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(row).encode() + b"\n")
            self.process.stdin.flush()

    def request(self, method: str, **options: Any) -> int:
        """Ask for something, without waiting; the number of the answer."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a rule's function may not use the proxy")
        with self._changed:
            self._last += 1
            number = self._last
        self.send([number, method, options])
        return number

    def wait(self, number: int, timeout: float = _TIMEOUT) -> Any:
        """The answer of that number."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._over, timeout)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise ProxyError("the proxy ended" if self._over else "the proxy does not answer")
        if answer[1] is not None:
            raise ProxyError(answer[1])
        return answer[0]

    def end(self) -> None:
        """End the process and the thread."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)
        self._finalizer()
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)


def _reap(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill and await the process; a forked child owns it not."""
    if os.getpid() != owner:
        return
    if process.poll() is None:
        process.kill()
        process.wait(10.0)
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # what could not be sent to a dead process
        process.stdin.close()


def _entry(row: list[Any]) -> Entry:
    time, circuit, direction, frame, channel, fate = row
    return Entry(time, circuit, direction, Frame.of_row(frame), channel, fate)


def _want(
    direction: str | None, command: Any, channel: Any, fate: str | None = None
) -> dict[str, Any]:
    if direction is not None:
        _way(direction)
    check_channel(channel)
    commands = command_numbers(command)
    return {"direction": direction, "commands": commands, "channel": channel, "fate": fate}


def _way(direction: str) -> None:
    if direction not in _WAYS:
        raise ValueError(f"a direction is one of {', '.join(_WAYS)}, not {direction!r}")
