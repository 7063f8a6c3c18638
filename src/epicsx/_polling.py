"""Waiting as C programs do: for all that is under way, or for a time; and ``PREEMPTIVE_CALLBACK = False``.

Threads
    With ``PREEMPTIVE_CALLBACK = False`` there is no delivering thread: callbacks run, and the values of PVs change, in
    the thread that polls or waits. libca itself stays preemptive: connections are made and requests are answered
    whether anybody polls or not.
"""

from __future__ import annotations

import os
import threading
import time

from . import _ca
from . import _dispatch as _dispatch  # fills the hook that is replaced here
from ._deliver import delivering, drain, enter_thread, leave_thread
from ._request import Request
from .errors import CATimeoutError

on = False
"""Whether this process polls."""

_turn = threading.Lock()


def begin() -> None:
    """Start no delivering thread, now or later."""
    global on
    on = True
    _ca.hooks["start"] = _start


def _start(context: _ca.Context) -> None:
    context.polled = True


def under_way() -> list[Request]:
    """The gets and the puts with completion that nobody waits for and that have not ended yet."""
    if not _ca.started():
        return []
    return [r for r in list(_ca.context().pinned) if isinstance(r, Request) and not r.done()]


def finish(timeout: float) -> bool:
    """Wait up to `timeout` seconds for all requests that are under way; whether they have ended."""
    until = time.monotonic() + timeout
    for request in under_way():
        try:
            while on and not request.done() and time.monotonic() < until:
                run(min(0.05, max(0.0, until - time.monotonic())))
            request.exception(max(0.0, until - time.monotonic()))
        except CATimeoutError:
            return False
    run()
    return True


def wait(told: threading.Event, timeout: float) -> bool:
    """Wait for what a callback sets; with polling on it is delivered here, though its note may still be on its way."""
    if not on:
        return told.wait(timeout)
    until = time.monotonic() + timeout
    run()
    while not told.is_set() and time.monotonic() < until:
        run(0.005)
    return told.is_set()


def run(timeout: float = 0.0) -> None:
    """Deliver what waits, and what comes within `timeout` seconds, in this thread; nothing unless polling is on."""
    if not on or delivering():
        return
    context = _ca.context()
    until = time.monotonic() + timeout
    while True:
        left = max(0.0, until - time.monotonic())
        context.wait_notes(left)
        if not _turn.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
            return
        enter_thread()
        try:
            while drain(context):
                pass
        finally:
            leave_thread()
            _turn.release()
        if time.monotonic() >= until:
            return


def _after_fork() -> None:
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
