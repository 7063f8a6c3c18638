"""What programs ask of the C library itself: where it is, what stands for it, what it says, how it is doing.

Threads
    libca's messages and exceptions are told by the delivering thread (or, with ``PREEMPTIVE_CALLBACK = False``, by the
    one that polls), never by libca's own. Whoever listens may call anything.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import _ca, _deliver
from ._build_info import build_info
from .enums import DBR, ECA
from .errors import ChannelAccessException, message
from .utils import str2bytes

if TYPE_CHECKING:
    from ._ca import Core

log = logging.getLogger("epicsx")

Writer = Callable[..., object]
ExceptionEvent = Callable[[int, int, str, str], object]

_RULE = "." * 66
_SEVERITIES = {0: "Warning", 1: "Success", 2: "Error", 3: "Info", 4: "Severe", 6: "Fatal"}
_STATES = ("never connected", "disconnected", "connected", "closed")
_RIGHTS = ("no access", "read-only", "write-only", "read/write")


# ----------------------------------------------------------------- the library


class LibCA:
    """Stands where pyepics has the loaded C library: C's names answer with epicsx's functions."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<libca of epicsx, {find_lib('ca')}>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        short = name.removeprefix("ca_")
        if name in ("ca_pend_io", "ca_pend_event", "ca_poll", "ca_flush_io"):
            function = self._functions[short]
            return lambda *args: function(*map(_plain, args))
        if name == "ca_test_io":
            done = self._functions[short]
            return lambda: int(ECA.IODONE if done() else ECA.IOINPROGRESS)
        if name in ("ca_version", "ca_message"):
            text = self._functions[short]
            return lambda *args: str2bytes(text(*map(_plain, args)))
        if not name.startswith("ca_"):
            raise AttributeError(f"libca has no {name!r}")

        def refused(*args: Any) -> Any:
            raise TypeError(
                f"{name}: epicsx's channels and contexts are not libca's; use epicsx.ca.{short}"
            )

        return refused


def _plain(value: Any) -> Any:
    """A number that may have been made for C: ``ctypes.c_double(0.1)``."""
    return getattr(value, "value", value)


_told_of_path = False


def find_lib(inp_lib_name: str = "ca") -> str:
    """The path of epicsx's own copy of a library of EPICS, ``'ca'`` or ``'Com'``."""
    global _told_of_path
    if "PYEPICS_LIBCA" in os.environ and not _told_of_path:
        _told_of_path = True
        log.info("PYEPICS_LIBCA is not used: epicsx is linked with its own libca")
    path = str(build_info().get("libca_path" if inp_lib_name == "ca" else "libcom_path") or "")
    if not path and inp_lib_name != "ca":
        folder, base = os.path.split(find_lib("ca"))
        path = os.path.join(folder, base.replace("libca", "libCom", 1))
    if not path:
        raise ChannelAccessException("cannot find Epics CA DLL")
    return path


def find_libca() -> str:
    """The path of the libca that epicsx uses."""
    return find_lib("ca")


def find_libCom() -> str:
    """The path of the libCom that epicsx uses."""
    return find_lib("Com")


# ------------------------------------------------------------------- its words

_writer: Writer | None = None
_events: list[ExceptionEvent] = []


def replace_writer(writer: Writer | None) -> None:
    """Have ``writer(text)`` called for what libca says; None for nobody."""
    global _writer
    if writer is not None and not callable(writer):
        raise ChannelAccessException("argument to replace_printf_handler() must be callable")
    _writer = writer
    _listen()


def named_writer(writer: Any) -> Any:
    """The writer that a name stands for: ``'stderr'``, ``'stdout'``; others are given back."""
    return (
        {"stderr": sys.stderr, "stdout": sys.stdout}[writer].write if writer in _NAMED else writer
    )


_NAMED = ("stderr", "stdout")


def add_exception_event(callback: ExceptionEvent) -> int:
    """Have ``callback(status, op, name, text)`` called, on the delivering thread, for what libca calls an exception.

    These are the failures that no call could report: a plain put that the server rejected, a lost circuit, a name that
    two servers have. `op` is one of caerr.h's ``CA_OP_...`` numbers, `name` may be empty. A second time has no effect.
    """
    if not callable(callback):
        raise ChannelAccessException("argument to add_exception_event() must be callable")
    if callback not in _events:
        _events.append(callback)
    _listen()
    return ECA.NORMAL.value


def remove_exception_event(callback: ExceptionEvent) -> int:
    """Undo ``add_exception_event``; one that was never added is ignored."""
    if callback in _events:
        _events.remove(callback)
    _listen()
    return ECA.NORMAL.value


def _listen() -> None:
    # Only what somebody listens to is handed up.
    for kind, wanted, hook in (
        ("message", _writer is not None, _on_message),
        ("exception", _writer is not None or bool(_events), _on_exception),
    ):
        if wanted:
            _deliver.hooks[kind] = hook
        else:
            _deliver.hooks.pop(kind, None)


def _on_message(text: str) -> None:
    _call(_writer, text)


def _on_exception(status: int, op: int, name: str, text: str) -> None:
    for callback in list(_events):
        _call(callback, status, op, name, text)
    if _writer is not None:
        _on_message(exception_text(status, name, text))


def _call(callback: Callable[..., object] | None, *args: object) -> None:
    if callback is None:
        return
    try:
        callback(*args)
    except Exception:
        log.exception("a listener to libca's messages failed")


def exception_text(status: int, name: str, text: str) -> str:
    """The paragraph that libca prints about an exception when nobody else takes care of it."""
    context = ", ".join(filter(None, (name and f"channel={name}", text)))
    return (
        f"CA.Client.Exception...............................................\n"
        f'    {_SEVERITIES.get(status & 7, "Error")}: "{message(status)}"\n'
        f'    Context: "{context}"\n'
        f"    Current Time: {time.strftime('%a %b %d %Y %H:%M:%S')}\n"
        f"{_RULE}\n"
    )


# ------------------------------------------------------------------ its status


def status_text(context: int | None, level: int) -> str:
    """How Channel Access is doing: channels, circuits; from `level` 1 each channel, from 2 its counts."""
    cores = _cores()
    states = [core.state for core in cores]
    circuits: dict[tuple[str, int], int] = {}
    for core in cores:
        if core.connected:
            where = core.host, core.priority
            circuits[where] = circuits.get(where, 0) + 1
    lines = [
        f"Channel Access Client Context {context}, protocol {_ca.ca_version()}",
        (
            f"\t{_number(len(cores), 'channel')}: {states.count(2)} connected, "
            f"{states.count(1)} disconnected, {states.count(0)} never connected"
        ),
        f"\t{_number(sum(core.subscriptions for core in cores), 'subscription')}",
        f"\t{_number(len(circuits), 'circuit')}",
    ]
    for (host, priority), channels in sorted(circuits.items()):
        lines.append(f"\t\t{host}, priority {priority}: {_number(channels, 'channel')}")
    if level > 0:
        for core in cores:
            lines.extend(_channel_lines(core, level))
    return "\n".join(lines)


def _cores() -> list[Core]:
    found = []
    if _ca.started():
        for reference in list(_ca.context().registry.values()):
            core = reference()
            if core is not None:
                found.append(core)
    return sorted(found, key=lambda core: (core.name, core.priority))


def _channel_lines(core: Core, level: int) -> list[str]:
    line = f'Channel "{core.name}" is {_STATES[core.state]}'
    if core.connected:
        rights = _RIGHTS[core.read_access + 2 * core.write_access]
        line += f' to "{core.host}", {DBR(core.native_type).name}[{core.count}], {rights}'
    lines = [line]
    if level > 1:
        counts = core.stats
        lines.append(
            f"\tpriority {core.priority}, connected {_number(core.connects, 'time')}, "
            f"{_number(core.subscriptions, 'subscription')}"
        )
        lines.append("\t" + ", ".join(f"{key} {getattr(counts, key)}" for key in counts._fields))
    return lines


def _number(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
