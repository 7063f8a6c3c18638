"""Coroutines in tests: loops that do not hang, conditions that are awaited, writing from elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from epicsx import Channel


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run, but a test that hangs says so."""

    async def timed() -> Any:
        return await asyncio.wait_for(main, 30.0)

    return asyncio.run(timed())


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    """As wait_until, while the loop goes on."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, condition
        await asyncio.sleep(0.002)


def write(name: str, *values: Any) -> None:
    """Write values one after the other, from a thread that is not the loop's, or while the loop stands still."""
    with Channel(name) as channel:
        for value in values:
            channel.put(value, wait=True)
