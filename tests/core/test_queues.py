"""Consumers slower than their updates: bounded queues, exact counts, the newest value always."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from support import wait_until

from epicsx import Channel, Sample, Subscription
from epicsx._ca import blocks, context, pool_bytes
from epicsx.counts import ChannelStats, Counts
from epicsx.testing import SoftIOC

FAST = "".join(
    f'record(calc, "$(P)fast{n}") {{ field(CALC, "VAL+1") field(SCAN, ".002 second") }}\n'
    for n in range(3)
)
ARRAY = """
record(waveform, "$(P)a") { field(FTVL, "DOUBLE") field(NELM, "10000") }
record(waveform, "$(P)big") { field(FTVL, "DOUBLE") field(NELM, "1000000") }
record(ao, "$(P)x") {}
"""
POSTED = "".join(f'record(ao, "$(P)x{n}") {{ field(PINI, "YES") }}\n' for n in range(3))


def whole(stats: Counts | ChannelStats) -> bool:
    """Whether the counts add up."""
    return stats.received == stats.delivered + stats.merged + stats.dropped + stats.pending


@contextlib.contextmanager
def bounds(events: int | None = None, nbytes: int | None = None) -> Iterator[None]:
    """Make the lane's queue small for a while."""
    lane = context()
    before = lane.bounds
    lane.set_bounds(events, nbytes)
    try:
        yield
    finally:
        lane.set_bounds(*before)


class Work:
    """A consumer's work on a handle: it lasts some milliseconds, and until `more` updates have come meanwhile.

    So it is slower than its updates by that ratio, however fast this machine is now.
    """

    def __init__(self, seconds: float, more: int) -> None:
        self.seconds, self.more = seconds, more
        self.over = threading.Event()  # nothing comes any more
        self.began: list[float] = []
        self.ages: list[float] = []

    def __call__(self, sample: Sample, subscription: Subscription) -> None:
        self.began.append(time.monotonic())
        # The value of the beginning has the stamp of the IOC's start.
        self.ages.append(time.time() - sample.timestamp if sample.value else 0.0)
        until = subscription.stats.received + self.more
        time.sleep(self.seconds)
        while subscription.stats.received < until and not self.over.is_set():
            time.sleep(0.001)

    def older_than(self, waiting: int) -> float:
        """By how much an update was older, at most, than what the consumer took for so many."""
        firsts = [self.began[max(0, n - waiting)] for n in range(len(self.began))]
        return max(
            age - (began - first)
            for age, began, first in zip(self.ages, self.began, firsts, strict=True)
        )


def _received(subscription: Subscription, count: int) -> bool:
    return int(subscription.stats.received) == count


def _ends_with(values: list[float], last: float) -> bool:
    return values[-1] == last


def _post(handles: dict[Channel, Subscription], number: int) -> None:
    """Post the number on each PV, once libca has handed over all before: the server would merge what waits there."""
    for subscription in handles.values():
        wait_until(partial(_received, subscription, number), every=0.0005)
    for channel in handles:
        channel.put(float(number))
    time.sleep(0.002)


def test_a_consumer_slower_than_its_updates_for_ten_seconds(
    spare_ioc: Callable[..., SoftIOC], caplog: pytest.LogCaptureFixture
) -> None:
    ioc = spare_ioc(POSTED)
    work = Work(0.01, 3)  # 100 a second at most, and one of four
    values: list[float] = []
    most_blocks = last = 0
    begun = threading.Event()

    def on_value(sample: Sample) -> None:
        values.append(sample.value)
        begun.wait(20.0)
        work(sample, subscription)

    with Channel(ioc["x0"]) as channel:
        channel.connect()
        subscription = channel.subscribe(on_value, queue=100)
        begun.set()
        began = time.monotonic()
        while time.monotonic() - began < 10.0 or subscription.stats.dropped <= 1000:
            last += 1
            _post({channel: subscription}, last)
            stats = subscription.stats
            assert whole(stats)
            assert stats.pending <= 100
            assert whole(channel.stats)
            most_blocks = max(most_blocks, blocks())
        wait_until(partial(_received, subscription, last + 1))
        work.over.set()
        wait_until(lambda: subscription.stats.pending == 0)
        wait_until(lambda: values[-1] == last)
        stats = subscription.stats
        assert whole(stats)
        assert stats.received == stats.delivered + stats.dropped
        assert stats.merged == 0
        assert stats.dropped > 1000
        assert stats.delivered == len(values)
        assert values[0] == 0.0
    assert np.all(np.diff(values) >= 1)
    assert most_blocks <= 100 + 5
    # At the bound an update is as old as the consumer takes for that many and the one at work, and no older.
    assert (
        work.older_than(100 + 2) < 2.0
    )  # for what the machine puts aside between the IOC's stamp and the queue
    losses = [r for r in caplog.records if ioc["x0"] in r.getMessage()]
    assert len(losses) == 1 and "dropped" in losses[0].getMessage()


def test_a_lane_at_its_bound_merges(
    spare_ioc: Callable[..., SoftIOC], caplog: pytest.LogCaptureFixture
) -> None:
    ioc = spare_ioc(POSTED)
    names = ["x0", "x1", "x2"]
    values: dict[str, list[float]] = {name: [] for name in names}
    work = Work(0.004, 3)
    begun = threading.Event()
    most = last = 0
    channels = {name: Channel(ioc[name]).connect() for name in names}
    with bounds(events=50):
        subscriptions: dict[str, Subscription] = {}
        for name, channel in channels.items():

            def on_value(sample: Sample, name: str = name) -> None:
                values[name].append(sample.value)
                begun.wait(20.0)
                work(sample, subscriptions[name])

            subscriptions[name] = channel.subscribe(on_value)
        begun.set()
        handles = {channels[name]: subscriptions[name] for name in names}
        began = time.monotonic()
        while time.monotonic() - began < 6.0 or any(
            subscription.stats.merged <= 100 for subscription in subscriptions.values()
        ):
            last += 1
            _post(handles, last)
            most = max(most, context().waiting[0])
            for subscription in subscriptions.values():
                assert whole(subscription.stats)
        wait_until(lambda: all(_received(s, last + 1) for s in subscriptions.values()))
        work.over.set()
        wait_until(lambda: all(s.stats.pending == 0 for s in subscriptions.values()))
        for name, subscription in subscriptions.items():
            wait_until(partial(_ends_with, values[name], last))
            stats = subscription.stats
            assert whole(stats)
            assert stats.dropped == 0
            assert stats.merged > 100
            assert stats.delivered == len(values[name])
            assert values[name][0] == 0.0
            assert np.all(np.diff(values[name]) >= 1)
        assert context().waiting == (0, 0)
    # One more for each handle of which nothing waited.
    assert most <= 50 + 3
    assert work.older_than(50 + 3 + 2) < 2.0
    for channel in channels.values():
        channel.close()
    for name in names:
        losses = [r for r in caplog.records if ioc[name] in r.getMessage()]
        assert len(losses) == 1 and "merged" in losses[0].getMessage()


class Blocked:
    """A consumer that has taken its first update and stands still until told to go on."""

    def __init__(self) -> None:
        self.taken = threading.Event()
        self.go_on = threading.Event()
        self.values: list[float] = []

    def __call__(self, sample: Sample) -> None:
        self.values.append(float(np.ravel(sample.value)[0]) if sample.count else -1.0)
        self.taken.set()
        self.go_on.wait(60.0)


def test_a_lane_at_its_bound_in_bytes(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(ARRAY)
    consumer = Blocked()
    with Channel(ioc["a"]) as channel, bounds(nbytes=1_000_000):
        channel.put(np.full(10_000, 0.0), wait=True)
        subscription = channel.subscribe(consumer)
        try:
            assert consumer.taken.wait(10.0)
            for number in range(1, 101):
                channel.put(np.full(10_000, float(number)), wait=True)
                wait_until(partial(_received, subscription, number + 1), every=0.001)
            stats = subscription.stats
            assert whole(stats)
            assert stats.dropped == 0
            assert stats.merged >= 85
            assert context().waiting[1] <= 1_000_000 + 100_000
            assert blocks() <= 16
        finally:
            consumer.go_on.set()
        wait_until(lambda: consumer.values[-1] == 100.0)
        assert subscription.stats.pending == 0


def test_a_handle_of_arrays_is_bounded_in_bytes(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(ARRAY)
    consumer = Blocked()
    with Channel(ioc["big"]) as channel:
        channel.put(np.full(1_000_000, 0.0), wait=True, timeout=20.0)
        subscription = channel.subscribe(consumer)
        try:
            assert consumer.taken.wait(20.0)
            for number in range(1, 21):
                channel.put(np.full(1_000_000, float(number)), wait=True, timeout=20.0)
                wait_until(partial(_received, subscription, number + 1), 20.0)
            stats = subscription.stats
            assert whole(stats)
            assert stats.merged == 0
            assert 4 <= stats.pending <= 8  # 64 MiB
            assert blocks() <= 10
        finally:
            consumer.go_on.set()
        wait_until(lambda: consumer.values[-1] == 20.0, 20.0)
        assert consumer.values == [0.0, *range(21 - stats.pending, 21)]
    assert pool_bytes() <= 256 << 20


def test_a_handle_of_many_events_is_bounded(ioc: SoftIOC) -> None:
    consumer = Blocked()
    with Channel(ioc["longout"]) as channel:
        channel.put(-1, wait=True)
        subscription = channel.subscribe(consumer, queue=5)
        try:
            assert consumer.taken.wait(10.0)
            for number in range(50):
                channel.put(number, wait=True)
            wait_until(lambda: subscription.stats.received == 51)
            assert subscription.stats == (51, 1, 0, 45, 5)
        finally:
            consumer.go_on.set()
        wait_until(lambda: len(consumer.values) == 6)
        assert consumer.values == [-1, 45, 46, 47, 48, 49]


def test_connection_and_completion_news_are_never_lost_at_the_bound(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = spare_ioc(ARRAY + FAST)
    consumer = Blocked()
    news: list[bool] = []
    done: list[BaseException | None] = []
    with (
        bounds(events=1),
        Channel(ioc["x"], on_connection=lambda channel, up: news.append(up)) as channel,
        Channel(ioc["fast0"]) as fast,
    ):
        channel.connect()
        wait_until(lambda: news == [True])
        fast.subscribe(consumer)
        try:
            assert consumer.taken.wait(10.0)
            for number in range(300):
                channel.put(number, callback=done.append)
            channel.get()
            ioc.kill()
            wait_until(lambda: not channel.connected)
        finally:
            consumer.go_on.set()
        wait_until(lambda: news == [True, False] and len(done) == 300)
        assert done[0] is None or isinstance(done[0], ConnectionError)


def test_a_slow_handle_does_not_hurt_another_of_the_same_subscription(ioc: SoftIOC) -> None:
    # They share a dispatcher, so the fast one comes late; but it loses nothing.
    values: list[float] = []
    with Channel(ioc["cnt:100hz"]) as channel:
        channel.subscribe(lambda sample: time.sleep(0.02), queue=10)
        fast = channel.subscribe(lambda sample: values.append(sample.value))
        wait_until(lambda: len(values) >= 100, 20.0)
        assert fast.stats.dropped == fast.stats.merged == 0
        # It goes on meanwhile. The server merges what its own threads are late for; nothing else is left out.
        assert np.diff(values).min() >= 1.0
        stats = fast.stats
        assert stats.received == stats.delivered + stats.pending
