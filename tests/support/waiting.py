"""Waiting on conditions, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from epicsx.testing import SoftIOC

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


def soon(most: float, attempt: Callable[[], float], tries: int = 5, *, least: float = 0.0) -> None:
    """Fail if `attempt` once took less than `least` seconds, or never less than `most`; it says how many.

    A machine that puts the process aside makes one attempt longer; a deadline that does not hold makes each longer.
    """
    seconds: list[float] = []
    while not seconds or seconds[-1] >= most:
        assert len(seconds) < tries, f"never within {most} s: {seconds}"
        seconds.append(attempt())
        assert seconds[-1] >= least, seconds


def takes(
    least: float,
    most: float,
    attempt: Callable[[], object],
    tries: int = 5,
    *,
    before: Callable[[], object] = lambda: None,
) -> None:
    """As `soon`, for an attempt that is timed from its beginning to its end.

    `before` prepares each attempt, and its time does not count.
    """

    def timed() -> float:
        before()
        began = time.monotonic()
        attempt()
        return time.monotonic() - began

    soon(most, timed, tries, least=least)


def long_enough(
    attempt: Callable[[float], T], enough: Callable[[T], bool], first: float = 1.0
) -> T:
    """Give what comes of `attempt` in the first of growing times, in seconds, that was `enough`; or in the last one.

    For what takes the whole time that it is given, as it also waits for what never comes: so it is short where the
    machine is not busy, and what it makes of a time that was too short for this machine is not judged.
    """
    result = attempt(first)
    for seconds in (4.0 * first, 16.0 * first):
        if enough(result):
            break
        result = attempt(seconds)
    return result


def idle(ioc: SoftIOC, record: str = "slow") -> None:
    """Wait until no test before has `slow` or `slow2` still working: a put would complete at once.

    A record that processes is not processed again, so the put's chain would end before it.
    """
    from epicsx import Channel

    with Channel(ioc[record]) as channel:
        # A put that nobody has waited for may not have reached the record: of a circuit the server takes all in order.
        channel.get(timeout=20.0)
    wait_until(lambda: ioc.read(f"{record}:seq.PACT") == "0", every=0.05)


def posting(name: str, lane: Literal["default", "bulk"] = "bulk") -> None:
    """Wait until the server posts to a subscription of this PV, in that lane, whose first update has come.

    It sends that one before it begins to post (event_add_action of rsrv/camessage.c): what another circuit puts
    in between is lost. An answer on the subscription's own circuit comes after both.
    """
    from epicsx import _ca

    found = _ca.core(name, 0, _ca.context(lane))
    found.get(timeout=20.0)


@contextmanager
def connected(*names: str) -> Iterator[None]:
    """Keep these connected: so that in a short time only others fail, however slow the machine is."""
    from epicsx import connect

    channels = connect(names, timeout=20.0)
    try:
        yield
    finally:
        for channel in channels:
            channel.close()


def threads_settle(before: Collection[threading.Thread], timeout: float = 5.0) -> None:
    """Fail unless every Python thread that was not there `before` ends within the timeout."""
    wait_until(
        lambda: not [thread for thread in threading.enumerate() if thread not in before],
        timeout,
        message=f"threads beyond {sorted(thread.name for thread in before)} end",
    )
