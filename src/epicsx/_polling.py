"""``PREEMPTIVE_CALLBACK = False``: no delivering thread; callbacks run in the thread that polls or waits.

libca itself stays preemptive: values arrive and requests are answered whether anybody polls or not.
"""

from __future__ import annotations

import os
import threading
import time

from . import _ca
from . import _dispatch as _dispatch  # fills the hook that is replaced here
from ._deliver import delivering, drain, enter_thread, leave_thread

on = False
"""Whether this process polls."""

_turn = threading.Lock()


def begin() -> None:
    """Start no delivering thread, now or later."""
    global on
    on = True
    _ca.hooks["start"] = lambda context: None


def run(timeout: float = 0.0) -> None:
    """Deliver what waits, and what comes within `timeout` seconds, in this thread; nothing unless polling is on."""
    if not on or delivering():
        return
    context = _ca.context()
    until = time.monotonic() + timeout
    while True:
        left = max(0.0, until - time.monotonic())
        context.wait_notes(left)
        if not _turn.acquire(timeout=left):
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
