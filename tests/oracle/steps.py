"""What a script of the oracle uses: `step`, and the `Lab` that each step is given.

Runs inside the clients. So it imports neither pyepics nor epicsx: `epics` is whichever the client
has made it, and a description says nothing of which one it was.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import sys
import threading
import time
import types
import warnings
import zlib
from collections import UserList
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

# pyepics' own exceptions, by name; any other counts as the builtin that it is or resembles.
EXCEPTIONS = frozenset(
    (
        "ChannelAccessException",
        "CASeverityException",
        "ChannelAccessGetFailure",
        "MotorException",
        "MotorLimitException",
        "ScanException",
    )
)


Told = str | dict[str, str]
"""An observation: a text, or the texts of a dict's items; under "" what was said beside it."""


@dataclass(frozen=True)
class Step:
    """A named piece of a script."""

    name: str
    run: Callable[[Lab], None]
    timeout: float


STEPS: list[Step] = []


def step(
    name: str | None = None, *, timeout: float = 20.0
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Register a function as a step; it may take `timeout` seconds before it counts as hung."""

    def register(function: Callable[[Lab], None]) -> Callable[[Lab], None]:
        title = name or function.__name__
        if any(known.name == title for known in STEPS):
            raise ValueError(f"two steps are called {title!r}")
        STEPS.append(Step(title, function, timeout))
        return function

    return register


# ---------------------------------------------------------------- descriptions

_TEXT = (
    # a circuit's host is its number until the resolver has answered
    (re.compile(r"(127\.0\.0\.1|localhost):\d{4,5}\b"), "HOST:PORT"),
    (re.compile(r"\b0x[0-9a-f]{6,}"), "ADDRESS"),
    (re.compile(r"c_long\(-?\d+\)(/\d+)?"), "c_long(N)"),
    (re.compile(r"\bchid=\d+"), "chid=N"),
    (re.compile(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"), "DATE"),
    (re.compile(r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d 20\d\d"), "DATE"),
    (re.compile(r"\b1[6-9]\d{8}(\.\d+)?\b"), "TIME"),
    (re.compile(r"(nanoseconds +=) [1-9]\d*"), r"\1 N"),
    (re.compile(r"(file ')[^']*/"), r"\1"),
)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and 1.6e9 < value < 2e9


class Describer:
    """Says what a value is, type and all, in words that do not change from run to run."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names  # what stands in a text -> what is shown for it

    def text(self, text: str) -> str:
        """A text without addresses, ports, prefixes and times."""
        for found, shown in self.names.items():
            text = text.replace(found, shown)
        for pattern, by in _TEXT:
            text = pattern.sub(by, text)
        return text

    def __call__(self, value: Any, key: str = "") -> str:
        if key == "chid" and value is not None:
            return "<chid int>" if isinstance(value, int) else f"<chid {type(value).__name__}>"
        if key == "nanoseconds" and value:
            return f"<{type(value).__name__} N>"
        if _is_time(value):
            return f"<{type(value).__name__} TIME>"
        if type(value) is str:
            text = self.text(value)
            mark = f"... {len(text)} characters, crc {zlib.crc32(text.encode()):x}"
            return repr(text) if len(text) < 300 or "\n" in text else repr(text[:40]) + mark
        if value is None or type(value) in (bool, int, float, bytes, complex):
            return repr(value)
        if isinstance(value, numpy.ndarray):
            return f"{value.dtype}{list(value.shape)} {self._elements(value.tolist())}"
        if isinstance(value, numpy.generic):
            return f"{value.dtype} scalar {value.item()!r}"
        if isinstance(value, ctypes.Array):
            return f"ctypes {value._type_.__name__} {self._elements(list(value))}"
        if isinstance(value, (list, tuple)):
            return self._sequence(value)
        if isinstance(value, Mapping):
            inner = (f"{key}={self(value[key], str(key))}" for key in sorted(value, key=str))
            return f"{{{', '.join(inner)}}}"
        if isinstance(value, type):
            return f"class {value.__name__}"
        if isinstance(value, int):  # an IntEnum
            return f"{type(value).__name__} {value!r}"
        if hasattr(value, "pvname") and hasattr(value, "chid"):
            return self.text(f"{value!r}")
        return f"<{type(value).__name__}>"

    def _sequence(self, value: Any) -> str:
        if len(value) > 40:
            return f"{type(value).__name__}[{len(value)}] {self._elements(list(value))}"
        inner = ", ".join(self(item) for item in value)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner}{',' if len(value) == 1 else ''})"

    @staticmethod
    def _elements(items: list[Any]) -> str:
        if len(items) <= 20:
            return repr(items)
        return f"[{', '.join(map(repr, items[:3]))}, ... crc {zlib.crc32(repr(items).encode()):x}]"

    def exception(self, error: BaseException) -> str:
        """Its family, pyepics' own or the builtin that it resembles, and its text."""
        family = next(
            (
                each.__name__
                for each in type(error).__mro__
                if each.__name__ in EXCEPTIONS or each.__module__ == "builtins"
            ),
            "Exception",
        )
        return f"{family}: {self.text(str(error))}"


# ----------------------------------------------------------- what else happens


class _Output(io.TextIOBase):
    """Standard output and error of a step."""

    def __init__(self, said: Callable[[str, str], None], kind: str) -> None:
        self._said = said
        self._kind = kind

    def write(self, text: str) -> int:
        """Note it."""
        self._said(self._kind, text)
        return len(text)


class _Log(logging.Handler):
    def __init__(self, said: Callable[[str, str], None], text: Describer) -> None:
        super().__init__(logging.WARNING)
        self._said = said
        self._describe = text

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({self._describe.exception(record.exc_info[1])})"
        self._said("logs", f"{record.levelname} {text}\n")


class Aside:
    """What is printed, warned, logged or reported beside an answer, from any thread."""

    def __init__(self, describe: Describer) -> None:
        self._describe = describe
        self._lock = threading.Lock()
        self._said: dict[str, str] = {}
        sys.stdout = _Output(self.said, "prints")
        sys.stderr = _Output(self.said, "on stderr")
        sys.excepthook = lambda kind, error, trace: self.report("excepthook", error)
        sys.unraisablehook = lambda args: self.report("unraisable", args.exc_value)
        threading.excepthook = lambda args: self.report("in a thread", args.exc_value)
        warnings.showwarning = self._warned  # type: ignore[assignment]
        warnings.simplefilter("always")
        logging.getLogger().addHandler(_Log(self.said, describe))

    def said(self, kind: str, text: str) -> None:
        """Note a text."""
        with self._lock:
            self._said[kind] = self._said.get(kind, "") + text

    def report(self, kind: str, error: BaseException | None) -> None:
        """Note an exception that went to a hook."""
        self.said(kind, ("" if error is None else self._describe.exception(error)) + "\n")

    def _warned(self, message: Warning | str, category: type[Warning], *rest: Any) -> None:
        self.said("warns", f"{category.__name__}: {message}\n")

    def has(self, kind: str) -> bool:
        """Whether something of that kind was noted since the last time."""
        with self._lock:
            return kind in self._said

    def take(self) -> str:
        """All that was noted since the last time."""
        with self._lock:
            said, self._said = self._said, {}
        order = sorted(said)
        return "".join(f"; {kind} {self._describe.text(said[kind])!r}" for kind in order)


# ------------------------------------------------------------------------- lab


class Lab:
    """What a step works with.

    Attributes
    ----------
    epics : module, what the script would import
    """

    def __init__(
        self, epics: Any, own: str, shared: str, tell: Callable[[str, Told], None]
    ) -> None:
        self.epics = epics
        self._own = own
        self._shared = shared
        self._tell = tell
        self._labels: set[str] = set()
        self.describe = Describer({own: "P:", shared: "S:"})
        self.aside = Aside(self.describe)
        # With its last channel libca closes a circuit, and a search answered meanwhile may have to wait seconds.
        self._anchor = epics.ca.create_channel(f"{shared}anchor", connect=True)

    def p(self, name: str) -> str:
        """The full name of a record that this client alone writes to."""
        return self._own + name

    def s(self, name: str) -> str:
        """The full name of a record that both clients read and none writes."""
        return self._shared + name

    def see(self, label: str, what: Any, *args: Any, _key: str = "", **kwds: Any) -> Any:
        """Note what calling `what` gives or raises, or `what` itself; the value, None after a raise."""
        value = None
        told: Told
        try:
            value = what(*args, **kwds) if callable(what) else what
            items = vars(value) if isinstance(value, types.SimpleNamespace) else value
            if isinstance(items, Mapping):
                told = {str(key): self.describe(items[key], str(key)) for key in items}
            else:
                told = self.describe(value, _key)
        except Exception as error:
            told = f"raises {self.describe.exception(error)}"
        self.note(label, told)
        return value

    def note(self, label: str, told: Told) -> None:
        """Note what is an observation as it is, and what was said beside it."""
        if label in self._labels:
            raise ValueError(f"two observations are called {label!r}")
        self._labels.add(label)
        aside = self.aside.take()
        if isinstance(told, str):
            told += aside
        elif aside:
            told[""] = aside
        self._tell(label, told)

    def drop(self, pv: Any) -> None:
        """Have done with a PV, and with all that is known of its channel."""
        chid = pv.chid
        pv.disconnect()
        self.epics.pv.clear_pvcache()
        self.epics.ca.clear_channel(chid)

    def attributes(self, thing: Any, names: Iterable[str], before: str = "") -> None:
        """Note attributes."""
        for name in names:
            self.see(f"{before}{name}", lambda name=name: getattr(thing, name), _key=name)

    def wait(self, condition: Callable[[], Any], timeout: float = 5.0) -> bool:
        """Whether `condition` came true in time, while Channel Access goes on."""
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > until:
                return False
            self.epics.ca.poll(0.002)
        return True

    def idle(self, record: str) -> None:
        """Wait until the chain behind `slow` or `slow2` has ended: a put to it would complete at once before."""
        seq = self.p(f"{record}:seq.PACT")
        self.wait(lambda: self.epics.caget(seq, use_monitor=False) == 0, 10.0)
        self.aside.take()

    def delivered(self) -> None:
        """Have what callbacks are still to be told come first, before what is told to those made after this."""
        events: list[Any] = []
        ca = self.epics.ca
        made = ca.create_subscription(self._anchor, callback=lambda **k: events.append(k))
        self.wait(lambda: events)
        ca.clear_subscription(made[2])

    def settle(self, seconds: float = 0.05) -> None:
        """Give what should not come the time in which it would."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.epics.ca.poll(0.005)

    def begin(self) -> None:
        """Forget the last step's labels."""
        self._labels.clear()
        self.aside.take()

    def end(self) -> None:
        """Note what was said after the last observation, and have nothing left of the step."""
        late = self.aside.take()
        if late:
            self.note("afterwards", "-" + late)
        for monitored in list(self.epics._PVmonitors_):
            self.epics.camonitor_clear(monitored)
        self.epics.pv.clear_pvcache()
        self.aside.take()


class Calls(UserList[dict[str, Any]]):
    """A callback that keeps the keywords of its calls. (A list would count as several callbacks.)"""

    def __call__(self, **kwds: Any) -> None:
        self.append(kwds)

    def values(self) -> list[Any]:
        """The values of all calls."""
        return [kwds["value"] for kwds in self]
