"""The rows of epicsx's native interface.

python -m benchmarks.workers.native VERB NAME SECONDS [WARM [COUNT [ARGUMENT...]]]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import epicsx
from epicsx import reducers

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


COUNTS = ("received", "delivered", "merged", "dropped", "pending")


def counts(subscriptions: list[Any]) -> dict[str, float]:
    """The five counts of all subscriptions together."""
    copies = [s.stats for s in subscriptions]
    return {key: sum(getattr(copy, key) for copy in copies) for key in COUNTS}


def ledger(flow: Any) -> dict[str, float]:
    """The five counts of a stream or a recorder."""
    copy = flow.ledger
    return {key: getattr(copy, key) for key in COUNTS}


def stream(**options: Any) -> None:
    """Frames one by one in the main thread. `coherent=False`: C, too, asks for a plain monitor."""
    with epicsx.stream(name, coherent=False, **options) as frames:
        frames.read(10.0)
        common.wait_go()
        end = time.perf_counter() + warm
        while time.perf_counter() < end:
            frames.read(10.0)
        n, used, start = 0, common.cpu(), time.perf_counter()
        end = now = start
        while now < start + seconds:
            frame = frames.read(10.0)
            if not len(frame.data):
                raise RuntimeError("empty frame")
            ages.seconds.append(time.time() - frame.timestamp)
            n += 1
            now = time.perf_counter()
        spent = common.cpu() - used
        common.finish(n, now - start, spent, age_ms=ages.halves_ms(), **ledger(frames))


def recorder() -> None:
    """Every update of many scalars, as rows."""
    with epicsx.Recorder(names()) as record:
        common.wait_until(lambda: len(record) >= count)
        common.measure(
            lambda: record.ledger.delivered, warm, seconds, ages, more=lambda: ledger(record)
        )


def memory() -> None:
    """Resident memory after a tenth of `count` frames, and after all or at the end of `seconds`."""
    with epicsx.stream(name, coherent=False) as frames:
        frames.read(10.0)
        common.wait_go()
        n, used, start = 0, common.cpu(), time.perf_counter()
        first_frames, first_rss = count // 10, 0
        while n < count and time.perf_counter() < start + seconds:
            if not len(frames.read(10.0).data):
                raise RuntimeError("empty frame")
            n += 1
            if n == first_frames:
                first_rss = common.rss()
        last_rss = common.rss()
        if n <= first_frames:
            raise SystemExit(f"{n} frames in {seconds} s")
        common.finish(
            n,
            time.perf_counter() - start,
            common.cpu() - used,
            growth=(last_rss - first_rss) / (n - first_frames),
            first_frames=first_frames,
            first_rss=first_rss,
            last_frames=n,
            last_rss=last_rss,
            **ledger(frames),
        )


def latency(camera: str, gil: str, how: str, lane: Any) -> None:
    """A counter's callbacks beside images whose consumer takes 30 ms for each."""
    delays, work = common.Delays(), common.occupied(gil)
    images = 0

    def on_tick(sample: Any) -> None:
        delays.note(time.time_ns(), sample.timestamp_ns, sample.value)

    def on_image(sample: Any) -> None:
        nonlocal images
        images += 1
        work()

    scalars = one().subscribe(on_tick)
    if how == "subscribe":
        callbacks = epicsx.Channel(camera).connect(10.0).subscribe(on_image, lane=lane)
        common.wait_until(lambda: images > 0 and bool(delays.ns))

        def told() -> dict[str, object]:
            return {"beside": f"images: {callbacks.stats}", **counts([scalars])}

        common.delayed(delays, warm, seconds, common.sleep_until, told)
    with epicsx.stream(camera, coherent=False, lane=lane) as frames:
        frames.read(10.0)
        common.wait_until(lambda: bool(delays.ns))

        def consume(end: float) -> None:
            while time.perf_counter() < end:
                frames.read(10.0)
                work()

        def more() -> dict[str, object]:
            return {"beside": f"images: {ledger(frames)}", **counts([scalars])}

        common.delayed(delays, warm, seconds, consume, more)


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
    elif verb == "stream":
        stream()
    elif verb == "reduce":
        stream(reduce=reducers.mean())
    elif verb == "recorder":
        recorder()
    elif verb == "memory":
        memory()
    elif verb == "latency":
        latency(*sys.argv[6:10])
    else:
        raise SystemExit(f"no row {verb!r}")


if __name__ == "__main__":
    main()
