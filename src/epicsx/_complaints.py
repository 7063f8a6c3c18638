"""What goes to the log from threads that must not end by it, and how much of what repeats itself.

Threads
    Any. A program's handlers and filters run in the thread that logs: the dispatcher, which serves everybody, or a
    user's. What they raise is shown as logging shows it, on stderr, and goes no further. Without locks: one that
    another thread holds would be held for ever in a forked child; two threads at once may count one failure once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from types import TracebackType

__all__ = ["Failures", "tell"]


def tell(log: logging.Logger, level: int, text: str, *args: object, failure: bool = False) -> None:
    """Log it, with the traceback that is being handled if it is a `failure`; never raises an Exception."""
    try:
        log.log(level, text, *args, exc_info=failure)
    except Exception:  # noqa: BLE001 - of the program's handlers and filters
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):
                sys.stderr.write("--- epicsx: a handler or filter of the log failed ---\n")
                traceback.print_exc()


class Failures:
    """Which failures of one channel's callbacks are logged: of each kind ten at once, and one more each second.

    A kind is what was called, the type of what it raised, and the line that raised it. Of the `KINDS` that failed last
    it is known how many were not logged.
    """

    BURST = 10
    SECONDS = 1.0
    KINDS = 50
    clock = staticmethod(time.monotonic)

    def __init__(self) -> None:
        # of each kind: when it failed last, how many may be logged, how many were not
        self._seen: dict[object, tuple[float, float, int]] = {}

    def due(self, what: str) -> int | None:
        """How many of the present exception's kind were left out before it; None if it is left out, too."""
        kind, _, trace = sys.exc_info()
        key = (what, kind, *_line_of(trace))
        now = self.clock()
        then, tokens, unsaid = self._seen.pop(key, (now, float(self.BURST), 0))
        tokens = min(float(self.BURST), tokens + (now - then) / self.SECONDS)
        due = tokens >= 1.0
        self._seen[key] = (now, tokens - 1.0, 0) if due else (now, tokens, unsaid + 1)
        if len(self._seen) > self.KINDS:
            self._seen.pop(next(iter(self._seen), None), None)  # the kind that failed longest ago
        return unsaid if due else None


def _line_of(trace: TracebackType | None) -> tuple[object, ...]:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return () if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
