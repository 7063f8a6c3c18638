"""A callback that sleeps delays nothing but callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support import idle, takes, wait_until

from epicsx import CATimeoutError, Channel, Sample, connect, get_many, put_many
from epicsx._ca import context
from epicsx.testing import SoftIOC


@pytest.fixture
def blocked(ioc: SoftIOC) -> Iterator[threading.Event]:
    """Stand in a callback for as long as the test runs; the event lets it go."""
    inside, go_on = threading.Event(), threading.Event()

    def on_value(sample: Sample) -> None:
        inside.set()
        go_on.wait(60.0)

    channel = Channel(ioc["bulk:0999"])
    channel.subscribe(on_value)
    assert inside.wait(10.0)
    yield go_on
    go_on.set()
    channel.close()


def control_of(name: str) -> None:
    """Ask the server for it: a channel that has it does not."""
    with Channel(name) as channel:
        channel.control()


def test_get_and_put_go_on(ioc: SoftIOC, blocked: threading.Event) -> None:
    with Channel(ioc["double"]) as channel:
        channel.connect()
        for number in range(100):
            channel.put(float(number), wait=True)
            assert channel.get().value == number
        takes(0.0, 0.5, lambda: channel.put(1.0))
        takes(0.0, 0.5, channel.get)
        takes(0.0, 0.5, lambda: channel.get_async().result(5.0))
        takes(0.0, 0.5, lambda: channel.put_async(2.0).result(5.0))
    takes(0.0, 0.5, lambda: control_of(ioc["double"]))


def test_new_channels_connect_and_subscribe(ioc: SoftIOC, blocked: threading.Event) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(100)]
    channels: list[Channel] = []

    def close() -> None:
        for channel in channels:
            channel.close()
        channels.clear()

    takes(0.0, 2.0, lambda: channels.extend(connect(names)), before=close)
    subscriptions = [channel.subscribe(lambda sample: None) for channel in channels]
    wait_until(lambda: all(each.stats.received for each in subscriptions))
    assert all(each.stats.delivered == 0 for each in subscriptions)
    assert all(each.latest is not None for each in subscriptions)
    takes(0.0, 2.0, lambda: get_many(channels))
    takes(0.0, 2.0, lambda: put_many(channels, range(100), wait=True))
    closing = iter(channels)
    for _ in range(95):  # five of them may be slow
        takes(0.0, 0.5, lambda: next(closing).close())
    for channel in closing:
        channel.close()
    wait_until(lambda: ioc.casr().channel_count == 1)


def test_access_is_known(ioc: SoftIOC, blocked: threading.Event) -> None:
    with Channel(ioc["switched"]) as channel, Channel(ioc["access"]) as switch:
        channel.connect()
        try:
            switch.put(0, wait=True)
            wait_until(lambda: channel.access == 1)
        finally:
            switch.put(1, wait=True)
        wait_until(lambda: channel.access == 3)


def test_a_deadline_is_kept_when_the_callback_is_over(ioc: SoftIOC) -> None:
    with Channel(ioc["slow2"]) as channel:
        channel.connect()
        told: list[BaseException | None] = []

        def put() -> None:
            told.clear()
            channel.put(1.0, timeout=0.1, callback=told.append)
            wait_until(lambda: told)

        takes(0.0, 1.0, put, before=lambda: idle(ioc, "slow2"))
        assert isinstance(told[0], CATimeoutError)
        told.clear()


def test_everything_arrives_afterwards_in_order(ioc: SoftIOC, blocked: threading.Event) -> None:
    order: list[object] = []
    with Channel(ioc["longout"]) as channel:
        channel.put(0, wait=True)
        channel.on_connection(lambda channel, up: order.append(up))
        with channel.subscribe(lambda sample: order.append(sample.value)):
            wait_until(lambda: context().waiting[0] >= 1)
            for number in range(1, 50):
                channel.put(number, wait=True)
            channel.put(50, wait=True, callback=order.append)
            blocked.set()
            wait_until(lambda: None in order)
            wait_until(lambda: 50 in order)
        values = [item for item in order if type(item) is int]
        assert values == list(range(51))
        assert order[0] is True


def test_a_dispatcher_that_computes_does_not_stall_the_circuit(ioc: SoftIOC) -> None:
    stop = threading.Event()

    def burn(sample: Sample) -> None:
        while not stop.is_set():
            sum(range(1000))

    with Channel(ioc["bulk:0998"]) as busy, Channel(ioc["cnt:100hz"]) as counter:
        watch = counter.subscribe(lambda sample: None, queue=10_000)
        wait_until(lambda: watch.stats.received > 5)
        busy.subscribe(burn)

        def newest() -> tuple[float, int]:
            """The newest value, and how many have come with it."""
            while True:
                received, sample = watch.stats.received, watch.latest
                assert sample is not None
                if watch.stats.received == received:
                    return sample.value, received

        def a_hundred_more() -> bool:
            value, before = newest()
            takes(0.0, 3.0, lambda: wait_until(more_than(watch.stats.received + 100)))
            later, received = newest()
            return bool(np.isclose(later - value, received - before, atol=25))

        def more_than(count: int) -> Callable[[], bool]:
            return lambda: bool(watch.stats.received >= count)

        # The server merges what its own threads are late for, by more than a second: not each time.
        assert any(a_hundred_more() for _ in range(5))
        stop.set()
        wait_until(lambda: watch.stats.pending == 0)
        stats = watch.stats
        assert stats.dropped == stats.merged == 0


def test_the_dispatcher_is_a_normal_python_thread(ioc: SoftIOC) -> None:
    import signal

    found: list[object] = []

    def on_value(sample: Sample) -> None:
        found.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        found.append(threading.current_thread() in threading.enumerate())

    with Channel(ioc["ai"]) as channel, channel.subscribe(on_value):
        wait_until(lambda: len(found) == 2)
        assert found == [signal.pthread_sigmask(signal.SIG_BLOCK, []), True]
