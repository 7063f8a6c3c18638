"""The rows of epicsx's native interface.

python -m benchmarks.workers.native VERB NAME SECONDS [WARM [COUNT]]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import epicsx

from . import common

verb, name = sys.argv[1:3]
seconds = float(sys.argv[3])
warm = float(sys.argv[4]) if len(sys.argv) > 4 else 0.3
count = int(sys.argv[5]) if len(sys.argv) > 5 else 1000

ages = common.Ages()
delivered = 0


def on_sample(sample: Any) -> None:
    """Take a sample and read its value."""
    global delivered
    delivered += 1
    sample.value  # noqa: B018 - decoding is part of the row
    if delivered % common.SAMPLE_EVERY == 0:
        ages.seconds.append(time.time() - sample.timestamp)


def on_frame(sample: Any) -> None:
    """Take an array and look at it."""
    global delivered
    delivered += 1
    if len(sample.value) < 2:
        raise RuntimeError("short array")
    ages.seconds.append(time.time() - sample.timestamp)


def names() -> list[str]:
    """The numbered records."""
    return [f"{name}{i}" for i in range(count)]


def one() -> Any:
    """A connected channel."""
    return epicsx.Channel(name).connect(10.0)


def counts(subscriptions: list[Any]) -> dict[str, float]:
    """The five counts of all subscriptions together."""
    copies = [s.stats for s in subscriptions]
    keys = ("received", "delivered", "merged", "dropped", "pending")
    return {key: sum(getattr(copy, key) for copy in copies) for key in keys}


def put_unwaited() -> None:
    """Puts without a wait, timed until the record that counts them has counted the last."""
    channel = one()
    counter = epicsx.Channel(name + "_posts").connect(10.0)
    before = counter.get().value
    used, start, n = common.cpu(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(64):
            channel.put(n)
            n += 1
    # The server takes the requests of a circuit in order, so this is answered after the puts.
    after = counter.get(timeout=30.0).value
    stop = time.perf_counter()
    if after - before != n:
        raise SystemExit(f"{n} puts, {after - before} counted")
    common.finish(n, stop - start, common.cpu() - used, counted=after - before)


def main() -> None:
    """Do the one row that the command line names."""
    if verb == "get":
        channel = one()
        common.repeat(lambda: channel.get().value, 1, seconds)
    elif verb == "get_out":
        channel = one()
        out = np.array(channel.get().value)
        common.repeat(lambda: channel.get(out=out).value, 1, seconds)
    elif verb == "getmany":
        channels = epicsx.connect(names(), timeout=30.0)
        common.repeat(
            lambda: [sample.value for sample in epicsx.get_many(channels)],
            len(channels),
            seconds,
        )
    elif verb == "snapshot":
        wanted = names()
        first = epicsx.snapshot(wanted, timeout=30.0)  # keeps the channels for the next ones

        def take() -> None:
            if not epicsx.snapshot(wanted).ok.all():
                raise SystemExit("not all could be read")

        common.repeat(take, len(first), seconds)
    elif verb == "put":
        put_unwaited()
    elif verb == "put_wait":
        channel = one()
        value: Any = 1.0
        if channel.count > 1:
            value = np.array(channel.get().value)
        common.repeat(lambda: channel.put(value, wait=True, timeout=30.0), 1, seconds)
    elif verb == "connect":
        wanted = names()
        before = common.rss()
        used, start = common.cpu(), time.perf_counter()
        channels = epicsx.connect(wanted, timeout=60.0)
        stop, spent = time.perf_counter(), common.cpu() - used
        each = (common.rss() - before) / len(channels)
        common.finish(len(channels), stop - start, spent, bytes_each=each)
    elif verb in ("updates", "monitor"):
        channels = [one()] if verb == "monitor" else epicsx.connect(names(), timeout=30.0)
        handler = on_frame if verb == "monitor" else on_sample
        subscriptions = [channel.subscribe(handler) for channel in channels]
        common.wait_until(lambda: delivered >= len(channels))
        common.measure(lambda: delivered, warm, seconds, ages, more=lambda: counts(subscriptions))
    else:
        raise SystemExit(f"no row {verb!r}")


if __name__ == "__main__":
    main()
