"""The delivering threads: started at first use, stopped at exit, forgotten in a forked child.

Threads
    One Python daemon thread per lane, which waits without the GIL and calls ``_deliver.drain``. It is a normal Python
    thread with a normal signal mask, not one of libca's: a callback may block, connect, get, put with wait, or start
    programs. Nothing here is done per event.

Lifetime
    At exit a dispatcher has a share of the time to finish the callback it is in; then it is left behind: it is a
    daemon, and what libca's threads still run is inert C. In a multiprocessing child, which ends by ``os._exit``
    without running atexit, a Finalize made at first use does the same. After fork() the child has no dispatcher:
    its first use of Channel Access starts one of its own.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import _ca, _printable
from ._deliver import drain, enter_thread, forget_threads, leave_thread
from .errors import CAError

log = logging.getLogger("epicsx")

for _name in ("epicsx", "epicsx.libca"):  # a filter is not passed on to the loggers below
    logging.getLogger(_name).addFilter(_printable.ESCAPING)

EXIT_SECONDS = 1.0
"""How long the end of the program may take: dispatchers, flush and the end of the contexts together."""

_threads: dict[int, Dispatcher] = {}
_finalize_in: int | None = None


class Dispatcher(threading.Thread):
    """Calls users back, for one lane, in order."""

    def __init__(self, context: _ca.Context) -> None:
        super().__init__(name=f"epicsx-{context.name}", daemon=True)
        self.context = context
        self.ending = False

    def run(self) -> None:
        """Wait, deliver, again. One failing delivery never ends the thread."""
        enter_thread()
        try:
            while not self._over():
                self.context.wait_notes(None)
                while drain(self.context) and not self._over():
                    pass
        finally:
            leave_thread()

    def _over(self) -> bool:
        return self.ending

    def stop(self, deadline: float) -> None:
        """Ask it to end, and wait for the callback it is in until `deadline` (monotonic seconds)."""
        self.ending = True
        self.context.wake()
        if threading.current_thread() is not self:
            self.join(max(0.0, deadline - time.monotonic()))


def _start(context: _ca.Context) -> None:
    thread = Dispatcher(context)
    _threads[context.id] = thread
    thread.start()
    _finalize_in_multiprocessing_child()


def _stop(contexts: list[_ca.Context], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    stopping = [t for t in (_threads.pop(c.id, None) for c in contexts) if t is not None]
    for thread in stopping:
        thread.ending = True
        thread.context.wake()
    for thread in stopping:
        thread.stop(deadline)


def alive(context: _ca.Context) -> bool:
    """Whether somebody delivers in that lane: its thread, or, where it is polled, whoever polls."""
    thread = _threads.get(context.id)
    return context.polled or (thread is not None and thread.is_alive())


class _Ended(logging.Filter):
    """A callback whose get or put was ended by the shutdown has not failed: nothing to say at the end."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], CAError))


class _Repeated(logging.Filter):
    """Of one text, so many are logged in so many seconds; the first one after that says how many were not.

    libca complains once for each 16 kB of an array that it discards (tcpiiu::processIncoming of tcpiiu.cpp). What
    users' callbacks raise is counted by the core (`Failures` of _complaints.py).

    Threads: the dispatchers of all lanes log. Two at the same time may count one text once; a lock that one of them
    holds would be held for ever in a forked child.
    """

    MOST = 5
    SECONDS = 10.0
    TEXTS = 100
    clock = staticmethod(time.monotonic)

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments do not fit: for the handler to say
            return True
        now = self.clock()
        began, count = self._seen.pop(text, (now, 0))
        if now - began > self.SECONDS:
            if count > self.MOST:
                record.msg = "%s"
                record.args = (f"{text} (and {count - self.MOST} times more)",)
            began, count = now, 0
        self._seen[text] = began, count + 1
        if len(self._seen) > self.TEXTS:
            self._seen.pop(next(iter(self._seen), ""), None)  # what was said longest ago
        return count < self.MOST


def at_exit() -> None:
    """End everything, once and for all: the package's own atexit handler calls this."""
    log.addFilter(_Ended())
    threading.excepthook = functools.partial(_thread_failed, threading.excepthook)
    _ca.shutdown(EXIT_SECONDS, final=True)


def _thread_failed(otherwise: Callable[[Any], object], args: Any) -> None:
    # A daemon thread whose get or put was ended by the shutdown ends with the program: nothing to say either.
    if args.exc_type is None or not issubclass(args.exc_type, CAError):
        otherwise(args)


def _finalize_in_multiprocessing_child() -> None:
    """Such a child runs multiprocessing's finalizers and then os._exit(): no atexit."""
    global _finalize_in
    if "multiprocessing" not in sys.modules or _finalize_in == os.getpid():
        return
    from multiprocessing import process, util

    if process.parent_process() is not None:
        _finalize_in = os.getpid()
        util.Finalize(None, at_exit, exitpriority=0)


def _after_fork() -> None:
    # A child forked inside a callback goes on in it: when that returns, its thread shall end, not wait in a dead lane.
    for thread in _threads.values():
        thread.ending = True
    _threads.clear()
    forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
logging.getLogger("epicsx.libca").addFilter(_Repeated())
_ca.hooks["start"] = _start
_ca.hooks["stop"] = _stop
