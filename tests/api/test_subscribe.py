"""Channel.subscribe: updates, their order, their counts, and their end."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import wait_until

from epicsx import DBE, BadValueError, CAError, Channel, Sample, Severity, Status, Subscription
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


def _collect(seen: list[Any], sample: Sample) -> None:
    seen.append(sample.value)


def _at_least(seen: list[Any], count: int) -> bool:
    return len(seen) >= count


def test_every_update_arrives_once_and_in_order(ioc: SoftIOC) -> None:
    seen: list[Sample] = []
    with Channel(ioc["cnt:100hz"]) as channel, channel.subscribe(seen.append) as subscription:
        wait_until(lambda: len(seen) >= 101)
        # without the first: an IOC posts that before it enables the others, and one may fall in between
        values = [sample.value for sample in seen[1:101]]
        assert np.diff(values).tolist() == [1.0] * 99
        stamps = [sample.timestamp_ns for sample in seen[1:101]]
        assert stamps == sorted(set(stamps))
        stats = subscription.stats
        assert stats.received == stats.delivered + stats.merged + stats.dropped + stats.pending
        assert (stats.merged, stats.dropped) == (0, 0)


def test_a_burst_arrives_whole(ioc: SoftIOC) -> None:
    seen: list[int] = []
    with Channel(ioc["longout"]) as channel:
        channel.put(-1, wait=True)
        with channel.subscribe(lambda sample: seen.append(sample.value)):
            wait_until(lambda: seen == [-1])
            for number in range(200):
                channel.put(number, wait=True)
            wait_until(lambda: seen and seen[-1] == 199)
            assert seen == [-1, *range(200)]


def test_subscribing_before_the_connect(ioc: SoftIOC) -> None:
    seen: list[object] = []
    with Channel(ioc["ai"]) as channel:
        channel.subscribe(lambda sample: seen.append(sample.value))
        wait_until(lambda: seen == [2.5])


def test_callbacks_run_on_the_dispatcher(ioc: SoftIOC) -> None:
    seen: list[tuple[str, bool]] = []
    with Channel(ioc["ai"]) as channel:
        channel.subscribe(
            lambda sample: seen.append(
                (threading.current_thread().name, threading.current_thread().daemon)
            )
        )
        wait_until(lambda: seen)
        assert seen == [("epicsx-default", True)]


@pytest.mark.parametrize(
    ("record", "value"),
    [("mbbi", 2), ("stringin", "text in"), ("longin", -3), ("wf:float:1", 1.0)],
)
def test_one_value_of_each_kind(ioc: SoftIOC, record: str, value: object) -> None:
    seen: list[Sample] = []
    with Channel(ioc[record]) as channel, channel.subscribe(seen.append):
        wait_until(lambda: seen)
        assert seen[0].value == value
        assert type(seen[0].value) is type(value)


@pytest.mark.parametrize("size", ["0", "n"])
@pytest.mark.parametrize("kind", ["double", "char", "enum", "string"])
def test_arrays(ioc: SoftIOC, kind: str, size: str) -> None:
    seen: list[Sample] = []
    with Channel(ioc[f"wf:{kind}:{size}"]) as channel, channel.subscribe(seen.append):
        wait_until(lambda: seen)
        length = 10 if size == "n" else 0
        expected = [f"s{n}" for n in range(length)] if kind == "string" else list(range(length))
        assert list(seen[0].value) == expected
        assert seen[0].count == length


def test_count_limits_the_elements(ioc: SoftIOC) -> None:
    seen: list[Sample] = []
    with Channel(ioc["wf:double:n"]) as channel:
        with channel.subscribe(seen.append, count=3):
            wait_until(lambda: seen)
            assert seen[0].value.tolist() == [0, 1, 2]
        with pytest.raises(BadValueError):
            channel.subscribe(seen.append, count=-1)


def test_a_mask_chooses(ioc: SoftIOC) -> None:
    values: list[float] = []
    alarms: list[tuple[float, int, int]] = []
    with Channel(ioc["ao"]) as channel:
        channel.put(0.0, wait=True)
        with (
            channel.subscribe(lambda s: values.append(s.value), mask=DBE.VALUE),
            channel.subscribe(
                lambda s: alarms.append((s.value, s.status, s.severity)), mask=DBE.ALARM
            ),
        ):
            wait_until(lambda: values and alarms)
            for value in (1.0, 85.0, 86.0, 0.0):
                channel.put(value, wait=True)
            wait_until(lambda: values == [0.0, 1.0, 85.0, 86.0, 0.0])
            wait_until(lambda: len(alarms) == 3)
            assert alarms[1:] == [
                (85.0, Status.HIGH, Severity.MINOR),
                (0.0, Status.NO_ALARM, Severity.NO_ALARM),
            ]
        channel.put(1.5, wait=True)


def test_a_property_mask_tells_of_properties(ioc: SoftIOC) -> None:
    seen: list[Sample] = []
    with Channel(ioc["longout"]) as channel, Channel(ioc["longout"] + ".HOPR") as limit:
        with channel.subscribe(seen.append, mask=DBE.PROPERTY):
            wait_until(lambda: len(seen) == 1)
            limit.put(500, wait=True)
            wait_until(lambda: len(seen) == 2)
            limit.put(1000, wait=True)
            wait_until(lambda: len(seen) == 3)


@pytest.mark.parametrize("mask", [0, 16, -1, 255])
def test_masks_that_cannot_be(ioc: SoftIOC, mask: int) -> None:
    with Channel(ioc["ai"]) as channel, pytest.raises(BadValueError, match="ai"):
        channel.subscribe(print, mask=mask)


@pytest.mark.parametrize("queue", [0, -1, "some", 1.5, None, True])
def test_queues_that_cannot_be(ioc: SoftIOC, queue: Any) -> None:
    with Channel(ioc["ai"]) as channel, pytest.raises(BadValueError):
        channel.subscribe(print, queue=queue)


# ---- callbacks that misbehave


def test_a_callback_that_fails_is_logged_and_the_next_one_runs(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[object] = []

    def fail(sample: Sample) -> None:
        seen.append("failed")
        raise RuntimeError("not today")

    with Channel(ioc["longout"]) as channel:
        channel.put(1, wait=True)
        failing = channel.subscribe(fail)
        channel.subscribe(lambda sample: seen.append(sample.value))
        wait_until(lambda: len(seen) == 2)
        channel.put(2, wait=True)
        wait_until(lambda: len(seen) == 4)
        assert sorted(map(str, seen)) == ["1", "2", "failed", "failed"]
        wait_until(lambda: len(caplog.records) >= 2)  # it is logged when it has been seen
        assert len(caplog.records) == 2
        for record in caplog.records:
            assert (record.name, record.levelno) == ("epicsx", logging.ERROR)
            assert ioc["longout"] in record.getMessage()
        assert failing.stats.delivered == 2


def test_a_callback_may_raise_what_ends_threads(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[object] = []

    def leave(sample: Sample) -> None:
        raise SystemExit(3)

    def interrupt(sample: Sample) -> None:
        raise KeyboardInterrupt

    with Channel(ioc["longout"]) as channel:
        channel.put(1, wait=True)
        channel.subscribe(leave)
        channel.subscribe(interrupt)
        channel.subscribe(lambda sample: seen.append(sample.value))
        wait_until(lambda: seen == [1])
        channel.put(2, wait=True)
        wait_until(lambda: seen == [1, 2])
        channel.put(3, callback=lambda failed: sys.exit(3))
        channel.put(4, callback=lambda failed: seen.append(failed))
        wait_until(lambda: None in seen)
    caplog.clear()


def test_get_put_and_connect_inside_a_value_callback(ioc: SoftIOC) -> None:
    found: list[Any] = []

    def on_value(sample: Sample) -> None:
        try:
            with Channel(ioc["longout"]) as other, Channel(ioc["ai"]) as same:
                other.connect(5.0)
                other.put(51, wait=True)
                found.append((other.get().value, same.get().value, same.control().units))
                other.put_async(52).result(5.0)
                answer: Any = other.get_async().result(5.0)
                found.append(answer.value)
        except BaseException as error:
            found.append(error)

    with Channel(ioc["ai"]) as channel, channel.subscribe(on_value):
        wait_until(lambda: len(found) == 2)
        assert found == [(51, 2.5, "V"), 52]


def test_get_and_put_inside_a_completion_callback(ioc: SoftIOC) -> None:
    found: list[Any] = []

    def on_done(failed: BaseException | None) -> None:
        try:
            with Channel(ioc["double"]) as other:
                other.put(9.5, wait=True)
                found.append((failed, other.get().value))
        except BaseException as error:
            found.append(error)

    with Channel(ioc["longout"]) as channel:
        channel.put(3, callback=on_done)
        wait_until(lambda: found)
        assert found == [(None, 9.5)]


def test_a_completion_callback_that_fails_is_logged(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    def fail(failed: BaseException | None) -> None:
        raise RuntimeError("not today")

    with Channel(ioc["longout"]) as channel:
        channel.put(3, callback=fail)
        channel.put(4, callback=told.append)
        wait_until(lambda: told == [None])
        assert len(caplog.records) == 1
        assert ioc["longout"] in caplog.records[0].getMessage()
    caplog.clear()


# ---- handles


def test_two_handles_share_one_subscription(ioc: SoftIOC) -> None:
    name = ioc["bulk:0030"]
    first: list[float] = []
    second: list[float] = []
    with Channel(name) as channel, Channel(name) as other:
        channel.put(1.0, wait=True)
        one = channel.subscribe(lambda sample: first.append(sample.value))
        wait_until(lambda: first == [1.0])
        two = other.subscribe(lambda sample: second.append(sample.value))
        wait_until(lambda: second == [1.0])  # the newest block, once
        assert ioc.casr().monitors[name] == 1
        channel.put(2.0, wait=True)
        wait_until(lambda: first == second == [1.0, 2.0])
        one.close()
        one.close()
        assert one.closed and not two.closed
        assert ioc.casr().monitors[name] == 1
        channel.put(3.0, wait=True)
        wait_until(lambda: second == [1.0, 2.0, 3.0])
        assert first == [1.0, 2.0]
        channel.close()
        other.put(4.0, wait=True)
        wait_until(lambda: second == [1.0, 2.0, 3.0, 4.0])
        two.close()
        wait_until(lambda: name not in ioc.casr().monitors)


def test_a_joining_handle_misses_nothing_and_doubles_nothing(ioc: SoftIOC) -> None:
    with Channel(ioc["cnt:100hz"]) as channel:
        first: list[float] = []
        earlier = channel.subscribe(lambda sample: first.append(sample.value))
        wait_until(lambda: first)
        lists: list[list[float]] = []
        for _ in range(50):
            seen: list[float] = []
            lists.append(seen)
            before = earlier.latest
            handle = channel.subscribe(partial(_collect, seen))
            newest = handle.latest
            assert before is not None and newest is not None
            wait_until(partial(_at_least, seen, 2))
            assert before.value <= seen[0] <= newest.value  # what was the newest when it joined
        wait_until(lambda: all(len(seen) >= 5 for seen in lists))
        for growing in lists:
            seen = growing[:]
            assert np.diff(seen).tolist() == [1.0] * (len(seen) - 1)


def test_other_masks_and_counts_are_other_subscriptions(ioc: SoftIOC) -> None:
    name = ioc["wf:double:n"]
    with Channel(name) as channel:
        channel.connect()
        for mask, count in ((1, 0), (4, 0), (1, 3), (1, 0)):
            channel.subscribe(lambda sample: None, mask=mask, count=count)
        wait_until(lambda: ioc.casr().monitors.get(name) == 3)


def test_the_newest_sample_stays_readable(ioc: SoftIOC) -> None:
    with Channel(ioc["longout"]) as channel:
        channel.put(5, wait=True)
        with channel.subscribe(lambda sample: None) as subscription:
            wait_until(lambda: subscription.latest)
            channel.put(6, wait=True)
            wait_until(lambda: subscription.latest and subscription.latest.value == 6)
        assert subscription.closed
        assert subscription.latest is not None
        assert subscription.latest.value == 6
        assert subscription.name == ioc["longout"]


def test_nothing_is_called_after_close(ioc: SoftIOC) -> None:
    with Channel(ioc["cnt:100hz"]) as channel:
        for _ in range(20):
            seen: list[int] = []
            closed = threading.Event()
            late: list[int] = []
            later: list[Any] = []

            def on_value(
                sample: Sample,
                seen: list[int] = seen,
                closed: threading.Event = closed,
                late: list[int] = late,
            ) -> None:
                if closed.is_set():
                    late.append(1)
                seen.append(1)

            subscription = channel.subscribe(on_value)
            wait_until(partial(_at_least, seen, 1), every=0.0005)
            subscription.close()
            closed.set()
            with channel.subscribe(later.append):
                wait_until(partial(_at_least, later, 2))
            # The one that ran while we closed may end after it; none may begin.
            assert len(late) <= 1


def test_close_inside_its_own_callback(ioc: SoftIOC) -> None:
    seen: list[float] = []
    handles: list[Subscription] = []
    made = threading.Event()

    def on_value(sample: Sample) -> None:
        seen.append(sample.value)
        if len(seen) == 3:
            made.wait(10.0)  # three may have come before `subscribe` has returned
            handles[0].close()

    with Channel(ioc["cnt:100hz"]) as channel:
        handles.append(channel.subscribe(on_value))
        made.set()
        wait_until(lambda: handles[0].closed)
        with channel.subscribe(lambda sample: None) as later:
            wait_until(lambda: later.stats.delivered >= 3)
        assert len(seen) == 3


def test_a_channel_closed_inside_a_value_callback(ioc: SoftIOC) -> None:
    seen: list[float] = []
    channel = Channel(ioc["cnt:100hz"])

    def on_value(sample: Sample) -> None:
        seen.append(sample.value)
        channel.close()

    subscription = channel.subscribe(on_value)
    wait_until(lambda: subscription.closed)
    with pytest.raises(CAError):
        channel.get()
    assert len(seen) == 1


def test_a_subscription_nobody_keeps_goes_on(ioc: SoftIOC) -> None:
    seen: list[float] = []
    Channel(ioc["cnt:100hz"]).subscribe(lambda sample: seen.append(sample.value))
    gc.collect()
    wait_until(lambda: len(seen) >= 10)
    gc.collect()
    count = len(seen)
    wait_until(lambda: len(seen) >= count + 10)
    assert ioc.casr().monitors[ioc["cnt:100hz"]] == 1
    from epicsx._ca import context

    # By type(), as isinstance() asks dead weak proxies, which raise.
    for kept in [obj for obj in gc.get_objects() if issubclass(type(obj), Subscription)]:
        if not kept.closed and kept.name == ioc["cnt:100hz"]:
            kept.close()
    del kept
    gc.collect()
    wait_until(lambda: ioc["cnt:100hz"] not in ioc.casr().channels)
    assert context().alive


def test_a_closed_subscription_lets_its_callback_go(ioc: SoftIOC) -> None:
    class Listener:
        def on_value(self, sample: Sample) -> None:
            pass

        def on_connection(self, channel: Channel, connected: bool) -> None:
            pass

    listener = Listener()
    alive = weakref.ref(listener)
    with Channel(ioc["ai"]) as channel:
        channel.subscribe(listener.on_value).close()
        channel.on_connection(listener.on_connection)
    del listener
    gc.collect()
    wait_until(lambda: alive() is None)


# ---- counts


def test_the_counts_of_a_channel_are_those_of_its_handles(ioc: SoftIOC) -> None:
    with Channel(ioc["cnt:100hz"]) as channel:
        with channel.subscribe(lambda sample: None) as one:
            with channel.subscribe(lambda sample: None, mask=DBE.VALUE) as two:
                wait_until(lambda: one.stats.delivered > 5 and two.stats.delivered > 5)
            for _ in range(200):
                both = channel.stats
                assert both.received == both.delivered + both.merged + both.dropped + both.pending
        total = channel.stats
        assert total.received == one.stats.received + two.stats.received
        assert total.delivered == one.stats.delivered + two.stats.delivered
        assert total.dropped == one.stats.dropped + two.stats.dropped
        assert (one.received, one.delivered) == one.stats[:2]
        assert one.pending == two.pending == 0


def test_what_waits_at_close_is_dropped(ioc: SoftIOC) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def on_value(sample: Sample) -> None:
        blocked.set()
        go_on.wait(10.0)

    with Channel(ioc["longout"]) as channel:
        subscription = channel.subscribe(on_value)
        assert blocked.wait(10.0)
        for number in range(10):
            channel.put(number, wait=True)
        wait_until(lambda: subscription.stats.pending >= 9)
        subscription.close()
        stats = subscription.stats
        go_on.set()
        assert stats.pending == 0
        assert stats.delivered == 1
        assert stats.received == stats.delivered + stats.dropped


def test_latest_keeps_only_the_newest(ioc: SoftIOC) -> None:
    seen: list[int] = []
    blocked, go_on = threading.Event(), threading.Event()

    def on_value(sample: Sample) -> None:
        seen.append(sample.value)
        blocked.set()
        go_on.wait(10.0)

    with Channel(ioc["longout"]) as channel:
        channel.put(-1, wait=True)
        subscription = channel.subscribe(on_value, queue="latest")
        assert blocked.wait(10.0)
        for number in range(10):
            channel.put(number, wait=True)
        wait_until(lambda: subscription.stats.received == 11)
        assert subscription.stats.pending == 1
        go_on.set()
        wait_until(lambda: len(seen) == 2)
        assert seen == [-1, 9]
        stats = subscription.stats
        assert (stats.delivered, stats.merged, stats.dropped) == (2, 9, 0)
