"""The rows of asyncio: one program, run with aioca and with epicsx.aio.

python -m benchmarks.workers.aio MODULE VERB NAME SECONDS [WARM [COUNT]]
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from . import common

module, verb, name = sys.argv[1:4]
seconds = float(sys.argv[4])
warm = float(sys.argv[5]) if len(sys.argv) > 5 else 0.3
count = int(sys.argv[6]) if len(sys.argv) > 6 else 1000
library: Any = importlib.import_module(module)

ages = common.Ages()
delivered = 0


def names() -> list[str]:
    """The numbered records."""
    return [f"{name}{i}" for i in range(count)]


def on_update(value: Any, index: int) -> None:
    """Take a value with fields."""
    global delivered
    delivered += 1
    if delivered % common.SAMPLE_EVERY == 0:
        ages.seconds.append(time.time() - value.timestamp)


async def repeat(work: Callable[[], Awaitable[object]], items: int) -> None:
    """Do `work`, which counts `items`, again and again for `seconds`, and report."""
    warm_until = time.perf_counter() + 0.1 * seconds
    await work()
    while time.perf_counter() < warm_until:
        await work()
    calls = 0
    used, start = common.cpu(), time.perf_counter()
    while True:
        await work()
        calls += 1
        now = time.perf_counter()
        if now - start >= seconds:
            break
    common.finish(calls * items, now - start, common.cpu() - used)


async def measure(more: Callable[[], dict[str, object]]) -> None:
    """Wait for GO, let updates come for `seconds`, and report."""
    deadline = time.monotonic() + 30.0
    while delivered < count:
        if time.monotonic() > deadline:
            raise SystemExit("not ready")
        await asyncio.sleep(0.001)
    common.wait_go()
    await asyncio.sleep(warm)
    ages.seconds.clear()
    used, start, first = common.cpu(), time.perf_counter(), delivered
    await asyncio.sleep(seconds)
    last, stop, spent = delivered, time.perf_counter(), common.cpu() - used
    common.finish(last - first, stop - start, spent, age_ms=ages.halves_ms(), **more())


async def iterate(updates: Any) -> None:
    """Take samples and read their values."""
    global delivered
    async for sample in updates:
        delivered += 1
        sample.value  # noqa: B018 - decoding is part of the row
        if delivered % common.SAMPLE_EVERY == 0:
            ages.seconds.append(time.time() - sample.timestamp)


COUNTS = ("received", "delivered", "merged", "dropped", "pending")


async def main() -> None:
    """Do the one row that the command line names."""
    if verb == "get":
        await repeat(lambda: library.caget(name), 1)
    elif verb == "aget":
        import epicsx

        channel: Any = await epicsx.Channel(name).aconnect(10.0)
        await repeat(channel.aget, 1)
    elif verb == "getmany":
        wanted = names()
        await repeat(lambda: library.caget(wanted), count)
    elif verb == "monitor":
        how = {"format": library.FORMAT_TIME, "all_updates": True}
        subscriptions = library.camonitor(names(), on_update, **how)
        await measure(
            lambda: {"dropped_callbacks": sum(s.dropped_callbacks for s in subscriptions)}
        )
    elif verb == "updates":
        flows = [library.updates(each) for each in names()]
        tasks = [asyncio.create_task(iterate(each)) for each in flows]

        def counts() -> dict[str, object]:
            copies = [each.stats for each in flows]
            return {key: sum(getattr(copy, key) for copy in copies) for key in COUNTS}

        await measure(counts)
        del tasks
    else:
        raise SystemExit(f"no row {verb!r}")


if __name__ == "__main__":
    asyncio.run(main())
