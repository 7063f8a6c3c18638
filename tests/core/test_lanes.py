"""Lanes: large arrays come over a channel of their own, and do not hold up scalars."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import posting, wait_until

import epicsx
from epicsx import BadValueError, Channel, Sample, _ca
from epicsx.testing import SoftIOC

DB = """
record(waveform, "$(P)big") { field(FTVL, "DOUBLE") field(NELM, "40000") }
record(waveform, "$(P)small") { field(FTVL, "DOUBLE") field(NELM, "1000") }
record(ao, "$(P)x") { }
record(calc, "$(P)k") { field(CALC, "VAL+1") field(SCAN, ".02 second") }
"""


@pytest.fixture
def w(spare_ioc: Callable[..., SoftIOC]) -> Any:
    return spare_ioc(DB)


def lane_of(subscription: epicsx.Subscription) -> str:
    assert subscription.events is not None
    return subscription.events.context.name


@pytest.mark.parametrize("first", ["connect", "subscribe"])
def test_what_is_large_goes_to_the_bulk_lane(w: SoftIOC, first: str) -> None:
    """Also where nobody knew how large it is when it was subscribed."""
    seen: list[tuple[str, int]] = []

    def note(sample: Sample) -> None:
        seen.append((threading.current_thread().name, sample.count))

    with Channel(w["big"]) as big, Channel(w["small"]) as small:
        if first == "connect":
            big.connect(20.0)
            small.connect(20.0)
        subscriptions = [big.subscribe(note), small.subscribe(note)]
        wait_until(lambda: len(seen) == 2)
        assert [lane_of(s) for s in subscriptions] == ["bulk", "default"]
        assert sorted(name for name, _ in seen) == ["epicsx-bulk", "epicsx-default"]
        posting(w["big"])  # the put takes another circuit
        big.put(np.arange(40_000.0), wait=True)
        wait_until(lambda: seen[-1] == ("epicsx-bulk", 40_000))
        stats = subscriptions[0].stats
        assert stats.received == stats.delivered == 2
        assert subscriptions[0].latest is not None
        assert big.stats.received == 2  # a channel sums up both lanes
        assert [s.closed for s in subscriptions] == [False, False]
        subscriptions[0].close()
        assert [s.closed for s in subscriptions] == [True, False]
        big.put(np.zeros(3), wait=True)
        assert big.get().count == 3
    seen.clear()


def test_a_lane_may_be_chosen(w: SoftIOC) -> None:
    seen: list[str] = []

    def note(sample: Sample) -> None:
        seen.append(threading.current_thread().name)

    with Channel(w["x"], lane="bulk") as x, Channel(w["big"], lane="default") as big:
        x.connect(20.0)
        big.connect(20.0)
        one, two = x.subscribe(note), big.subscribe(note)
        three = big.subscribe(note, lane="bulk")
        wait_until(lambda: len(seen) == 3)
        assert [lane_of(s) for s in (one, two, three)] == ["bulk", "default", "bulk"]
        with pytest.raises(BadValueError, match="lane"):
            x.subscribe(note, lane="slow")  # type: ignore[arg-type]
    with pytest.raises(BadValueError, match="lane"):
        Channel(w["x"], lane="slow")  # type: ignore[arg-type]


def test_part_of_a_large_array_is_small(w: SoftIOC) -> None:
    with Channel(w["big"]) as big:
        big.connect(20.0)
        with big.subscribe(lambda sample: None, count=10) as part:
            assert lane_of(part) == "default"


def test_a_subscription_that_waits_for_its_lane_may_be_closed(spare_ioc: Any) -> None:
    ioc = spare_ioc(DB)
    name = ioc["big"]
    ioc.stop()
    with Channel(name) as big:
        waiting = big.subscribe(lambda sample: None)
        assert waiting.stats == (0, 0, 0, 0, 0)
        assert waiting.latest is None
        states = [waiting.closed]
        waiting.close()
        assert [*states, waiting.closed] == [False, True]
        seen: list[Any] = []
        kept = big.subscribe(seen.append)
        ioc.start()
        wait_until(lambda: seen, 20.0)
        assert lane_of(kept) == "bulk"
        seen.clear()


def test_a_busy_dispatcher_does_not_hold_up_a_new_subscription(w: SoftIOC) -> None:
    """The keeper subscribes what is small, whoever is busy."""
    release, entered = threading.Event(), threading.Event()

    def slow(sample: Sample) -> None:
        entered.set()
        assert release.wait(30.0)

    with Channel(w["x"]) as x:
        x.subscribe(slow)
        assert entered.wait(10.0)
        with Channel(w["k"]) as k:
            counting = k.subscribe(lambda sample: None)
            wait_until(lambda: counting.stats.received > 3)
            assert counting.latest is not None
        release.set()


def test_closed_while_it_moves(w: SoftIOC) -> None:
    seen: list[float] = []
    for number in range(1, 21):
        with Channel(w["big"]) as big:
            subscription = big.subscribe(lambda sample: seen.extend(sample.value[:1]))
            big.connect(20.0)
            subscription.close()
            assert subscription.closed
            big.put(np.full(5, float(number)), wait=True)
            big.get()
            # one that had begun before the close may end only now; it has what was there before
            assert number not in seen


def test_clearing_the_channel_ends_both(w: SoftIOC) -> None:
    import epicsx.ca as ca

    seen: list[Any] = []
    chid = ca.create_channel(w["big"], connect=True)
    ca.put(chid, [1.0, 2.0], wait=True)  # of an empty array the plain type brings no event at all
    ca.create_subscription(chid, callback=lambda **kw: seen.append(kw["count"]))
    wait_until(lambda: seen)
    ca.clear_channel(chid)
    with Channel(w["big"]) as big:
        big.put(np.ones(7), wait=True)
        assert big.get().count == 7
    assert len(seen) == 1


def test_a_large_pv_is_called_back_by_one_thread(spare_ioc: Any) -> None:
    """Values, connection and access: so its callbacks never overlap."""
    ioc = spare_ioc(DB)
    threads: list[tuple[str, str]] = []

    def note(what: str) -> Callable[..., None]:
        return lambda *args, **kw: threads.append((what, threading.current_thread().name))

    pv = epicsx.PV(ioc["big"], auto_monitor=True, callback=note("value"))
    assert pv.wait_for_connection(10.0)
    wait_until(lambda: threads)
    pv.connection_callbacks.append(note("connection"))
    values = len(threads)
    ioc.restart()
    wait_until(lambda: len([t for t in threads if t[0] == "connection"]) == 2, 20.0)
    assert pv.connected
    wait_until(lambda: len(threads) > values + 2)  # the value of the beginning
    posting(ioc["big"])
    before = len(threads)
    pv.put(np.ones(100), wait=True)
    wait_until(lambda: len(threads) > before)
    assert {name for _, name in threads} == {"epicsx-bulk"}
    assert pv.get().tolist() == [1.0] * 100
    pv.disconnect()


def test_scalars_do_not_wait_for_a_slow_image_callback(w: SoftIOC) -> None:
    """No speed here: the image callback does not return at all until the scalars have come."""
    release, entered = threading.Event(), threading.Event()
    scalars: list[Any] = []

    def slow(sample: Sample) -> None:
        entered.set()
        assert release.wait(30.0)

    with Channel(w["big"]) as big, Channel(w["k"]) as k:
        with big.subscribe(slow), k.subscribe(lambda sample: scalars.append(sample.value)) as fast:
            assert entered.wait(10.0)
            wait_until(lambda: len(scalars) > 20)
            release.set()
            # The server may leave some out, where it begins to post and where its threads are late; we do not.
            assert np.diff(scalars).min() >= 1.0
            stats = fast.stats
            assert stats.received == stats.delivered + stats.pending


def test_the_bulk_lane_starts_when_it_is_needed(own_ioc: Callable[..., SoftIOC]) -> None:
    from support import run_python

    ioc = own_ioc(DB)
    script = """
import sys, threading
import epicsx
from epicsx import Channel
def lanes():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("epicsx-"))
x = Channel(sys.argv[1] + "x").connect(20.0)
x.subscribe(lambda s: None)
assert lanes() == ["epicsx-default"], lanes()
big = Channel(sys.argv[1] + "big").connect(20.0)
big.subscribe(lambda s: None)
assert lanes() == ["epicsx-bulk", "epicsx-default"], lanes()
print("ok")
"""
    done = run_python(script, ioc.prefix, env=ioc.env)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_all_limits_in_one_place() -> None:
    assert _ca.BULK_BYTES == 256 * 1024
