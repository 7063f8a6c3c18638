"""Waiting on conditions, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], timeout: float = 10.0, *, every: float = 0.005, message: str = ""
) -> T:
    """Return the first truthy value of `condition()`, or fail at the deadline.

    Parameters
    ----------
    condition : callable without arguments
    timeout, every : float, seconds
    message : str, what was awaited, for the failure
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = message or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"not within {timeout} s: {what}; last value {value!r}")
        time.sleep(every)


def threads_settle(before: Collection[threading.Thread], timeout: float = 5.0) -> None:
    """Fail unless every Python thread that was not there `before` ends within the timeout."""
    wait_until(
        lambda: not [thread for thread in threading.enumerate() if thread not in before],
        timeout,
        message=f"threads beyond {sorted(thread.name for thread in before)} end",
    )
