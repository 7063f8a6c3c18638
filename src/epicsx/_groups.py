"""Synchronous groups: gets and puts that are waited for together. Built on requests of our own, not on libca's groups.

Threads
    Any. A group is used by one thread at a time, as in C.

Lifetime
    What a group has asked for is known by number until ``delete``, the end of Channel Access, or a fork.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _polling, _values, dbr
from ._texts import failed, get_failure, refusal, refused
from .enums import ECA
from .errors import (
    AccessError,
    CATimeoutError,
    DisconnectedError,
    ServerError,
)

if TYPE_CHECKING:
    from ._ca import Core
    from ._request import Request
    from ._sample import Sample

_groups: dict[int, list[Request]] = {}
_numbers = itertools.count(1)


def sg_create() -> Any:
    """The id of a new group: reads and writes that are waited for together."""
    number = next(_numbers)
    _groups[number] = []
    return dbr.ulong_t(number)


def _find(function: str, gid: Any) -> list[Request]:
    group = _groups.get(getattr(gid, "value", gid))
    if group is None:
        raise refusal(function, ECA.BADSYNCGRP)
    return group


def _forget(group: list[Request]) -> None:
    for request in group:
        request.cancel()
    group.clear()


def sg_delete(gid: Any) -> int:
    """End a group; what it has under way is forgotten."""
    _forget(_find("sg_delete", gid))
    del _groups[getattr(gid, "value", gid)]
    return ECA.NORMAL.value


def sg_reset(gid: Any) -> int:
    """Forget what a group has under way; the group stays. What was sent is carried out all the same."""
    _forget(_find("sg_reset", gid))
    return ECA.NORMAL.value


def sg_test(gid: Any) -> int:
    """``ECA_IODONE`` if all that a group has asked for is answered; else CASeverityException."""
    if any(not request.done() for request in _find("sg_test", gid)):
        raise refusal("sg_test", ECA.IOINPROGRESS)
    return ECA.IODONE.value


def sg_block(gid: Any, timeout: float | None = 10.0) -> int:
    """Wait until all is answered: ``ECA_NORMAL``; after `timeout` seconds (10) CASeverityException, and it is reset."""
    group = _find("sg_block", gid)
    until = time.monotonic() + (10.0 if timeout is None else timeout)
    for request in group:
        try:
            request.exception(max(0.0, until - time.monotonic()))
        except CATimeoutError:
            _forget(group)
            raise refusal("sg_block", ECA.TIMEOUT) from None
    group.clear()
    _polling.run()
    return ECA.NORMAL.value


def _send(function: str, gid: Any, send: Callable[[], Request]) -> Request:
    group = _find(function, gid)
    try:
        request = send()
    except AccessError as error:
        raise refused(function, error) from None
    except DisconnectedError as error:
        raise refusal(function, ECA.DISCONN, error.name) from None
    group.append(request)
    return request


def get(gid: Any, core: Core, ftype: int, chid: Any) -> Sample | None:
    """The value of a channel, asked for within a group; None if it has not come in the time that a read may take.

    pyepics looks after some 10 microseconds, whether the answer has come or not.
    """
    request = _send("sg_get", gid, lambda: core.get_async(ftype))
    try:
        return request.result(_values.default_timeout(core.count))
    except CATimeoutError as error:
        return failed(error, None)
    except (ServerError, DisconnectedError) as error:
        raise get_failure(error, chid) from None


def put(gid: Any, core: Core, value: Any) -> int:
    """Write a value within a group; it is answered when the record has finished."""
    _send("sg_put", gid, lambda: core.put_async(value, None, True))
    return ECA.NORMAL.value


def forget() -> None:
    """Forget all groups: after a fork, or when Channel Access ends."""
    for group in _groups.values():
        _forget(group)
    _groups.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_groups.clear)
