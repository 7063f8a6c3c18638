"""What is lent to libca comes back, and the IOC counts the same."""

from __future__ import annotations

import contextlib
import gc
import weakref
from functools import partial
from typing import Any

import numpy as np
from support import wait_until

from epicsx import CAError, Channel, Sample, Subscription, connect, get_many
from epicsx._ca import blocks, lent, pool_bytes
from epicsx.testing import SoftIOC


def _delivered(subscription: Subscription) -> int:
    return int(subscription.stats.delivered)


def _settled() -> bool:
    gc.collect()
    return lent() == 0 and blocks() == 0


def test_lent_is_what_the_ioc_counts(ioc: SoftIOC) -> None:
    wait_until(_settled)
    channels = connect([ioc[f"bulk:{n:04d}"] for n in range(100)])
    assert lent() == 100
    subscriptions = [channel.subscribe(lambda sample: None) for channel in channels[:40]]
    subscriptions += [channel.subscribe(lambda sample: None, mask=1) for channel in channels[:5]]
    channels[0].control()
    wait_until(lambda: all(each.stats.delivered for each in subscriptions))

    def counted() -> bool:
        # waited for: of the clients of tests before, the IOC may be about to hear that they are gone
        found = ioc.casr()
        return (found.channel_count, found.monitor_count) == (100, 46)

    wait_until(counted)
    assert lent() == 100 + 46
    for subscription in subscriptions[:20]:
        subscription.close()
    wait_until(lambda: lent() == 126)
    wait_until(lambda: ioc.casr().monitor_count == 26)
    for channel in channels:
        channel.close()
    wait_until(lambda: lent() == 0)
    wait_until(lambda: ioc.casr().channel_count == ioc.casr().monitor_count == 0)


def test_requests_are_lent_until_they_are_answered(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as channel:
        channel.get()
        wait_until(lambda: lent() == 1)
        requests = [channel.get_async() for _ in range(100)]
        answers: list[Any] = [request.result(5.0) for request in requests]
        assert [answer.value for answer in answers] == [2.5] * 100
        wait_until(lambda: lent() == 1)
        get_many([channel] * 50)
        wait_until(lambda: lent() == 1)


def test_twenty_thousand_subscribe_and_close_cycles_while_updates_flow(ioc: SoftIOC) -> None:
    channels = [Channel(ioc[name]) for name in ("cnt:100hz", "cnt:10hz", "wf:double:n", "ai")]
    watched: list[float] = []
    watch = Channel(ioc["cnt:100hz"]).subscribe(lambda sample: watched.append(sample.value), mask=1)
    for channel in channels:
        channel.connect()
    for cycle in range(20_000):
        channel = channels[cycle % 4]
        subscription = channel.subscribe(lambda sample: None, queue=("all", "latest", 3)[cycle % 3])
        if cycle % 20 == 0:  # else most would close before the keeper has seen them
            wait_until(partial(_delivered, subscription), every=0.0005)
        subscription.close()
        if cycle % 7 == 0:
            del subscription
    wait_until(lambda: lent() == 5)
    wait_until(lambda: ioc.casr().monitor_count == 1)
    count = len(watched)
    wait_until(lambda: len(watched) > count + 5)
    # The server merges what its own threads are late for; here nothing is lost, doubled or out of order.
    assert np.diff(watched).min() >= 1.0
    stats = watch.stats
    assert stats.received == stats.delivered + stats.pending
    watch.close()
    for channel in channels:
        assert channel.get().count
        channel.close()


def test_a_channel_forgets_its_closed_subscriptions(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as channel:
        kept = [channel.subscribe(lambda sample: None) for _ in range(20)]
        callbacks = []
        for _ in range(1000):

            def on_value(sample: Sample) -> None:
                pass

            callbacks.append(weakref.ref(on_value))
            channel.subscribe(on_value).close()
        del on_value
        gc.collect()
        assert sum(callback() is not None for callback in callbacks) < 100
        assert not any(each.closed for each in kept)
    assert all(each.closed for each in kept)


def test_no_operation_leaks_objects(ioc: SoftIOC) -> None:
    with Channel(ioc["double"]) as scalar, Channel(ioc["wf:double:n"]) as array:
        out = np.zeros(16)

        def everything() -> None:
            scalar.get()
            array.get(count=3)
            array.get(dtype=str)
            array.get(out=out)
            scalar.put(1.0)
            scalar.put(2.0, wait=True)
            scalar.get_async().result(5.0)
            scalar.put_async(3.0).result(5.0)
            scalar.control()
            get_many([scalar, array])
            with array.subscribe(lambda sample: None) as subscription:
                repr(subscription.stats)
            for wrong in ("text", None, 2**2000):
                with contextlib.suppress(CAError):
                    scalar.put(wrong)
            with contextlib.suppress(CAError):
                array.get(out=out[:2])

        def objects() -> int:
            scalar.get()
            gc.collect()
            return len(gc.get_objects())

        for _ in range(40):
            everything()
        before = objects()
        for _ in range(200):
            everything()
        wait_until(lambda: objects() < before + 100)


def test_cycles_of_channels_while_updates_flow(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(50)]
    for cycle in range(10):
        channels = connect(names)
        for channel in channels:
            channel.subscribe(lambda sample: None)
            if cycle % 2:
                channel.get_async()
                channel.put_async(1.0)
        for channel in channels:
            channel.close()
        del channel, channels
    wait_until(_settled)
    wait_until(lambda: ioc.casr().channel_count == 0)


def test_thousands_that_never_connect(ioc: SoftIOC) -> None:
    channels = [Channel(ioc[f"nobody:{n}"]) for n in range(3000)]
    assert lent() >= 3000
    for channel in channels:
        channel.close()
    del channel, channels
    wait_until(_settled)


def test_an_array_holds_its_block_and_nothing_else_does(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:double:n"]) as channel:
        sample: Sample | None = channel.get()
        assert sample is not None
        array = sample.value
        view = array[2:5]
        assert blocks() == 1
        alive = weakref.ref(array)
        del sample, array
        gc.collect()
        assert alive() is not None or view.base is not None
        assert blocks() == 1
        assert view.tolist() == [2.0, 3.0, 4.0]
        del view
        gc.collect()
        wait_until(lambda: blocks() == 0)  # libca's thread may be about to leave the request


def test_arrays_are_aligned_and_go_back_to_the_pool(ioc: SoftIOC) -> None:
    with Channel(ioc["big:double"]) as channel:
        channel.put(np.arange(131072.0), wait=True)
        addresses = set()
        kept = pool_bytes()
        for _ in range(20):
            array = channel.get().value
            addresses.add(array.ctypes.data)
        assert blocks() == 1
        nbytes = array.nbytes
        del array
        assert {address % 64 for address in addresses} == {0}
        assert len(addresses) <= 3
        assert pool_bytes() <= kept + 3 * nbytes
        channel.put([], wait=True)


def test_everything_dropped_at_once_without_close(ioc: SoftIOC) -> None:
    channels = connect([ioc[f"bulk:{n:04d}"] for n in range(50)])
    requests = [channel.get_async() for channel in channels]
    samples = [channel.get() for channel in channels]
    controls = [channel.control() for channel in channels]
    del channels, requests, samples, controls
    wait_until(_settled)


def test_a_cycle_of_references_is_collected(ioc: SoftIOC) -> None:
    class Device:
        def __init__(self, name: str) -> None:
            self.channel = Channel(name)
            self.me = self

    device = Device(ioc["ai"])
    device.channel.get()
    alive = weakref.ref(device)
    del device
    gc.collect()
    assert alive() is None
    wait_until(_settled)
