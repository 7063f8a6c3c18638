"""The counts of channels, PVs and the process: they add up whatever happens, and tell what went wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import posting, run_python, wait_until

import epicsx
from epicsx import PV, Channel, Health, LaneHealth, Sample, _ca
from epicsx.testing import SoftIOC

DB = """
record(calc, "$(P)fast") { field(CALC, "VAL+1") field(SCAN, ".01 second") }
record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }
record(bo, "$(P)bo") { field(ZNAM, "Off") field(ONAM, "On") field(PINI, "YES") }
record(waveform, "$(P)big") { field(FTVL, "DOUBLE") field(NELM, "40000") }
"""


def lane(name: str = "default") -> LaneHealth:
    """Give the numbers of a lane that runs."""
    return next(each for each in epicsx.health().lanes if each.name == name)


def _more_than(before: int, source: epicsx.Stream) -> bool:
    return bool(source.ledger.received > before)


def test_it_starts_nothing() -> None:
    script = """
import threading, epicsx
health = epicsx.health()
assert health.lanes == () and health.received == 0 and health.clock_steps == 0
assert threading.active_count() == 1
print(health)
print(health.to_prometheus())
"""
    found = run_python(script).stdout
    assert "not in use" in found.splitlines()[0]
    assert 'epicsx_info{mode="' in found


def test_everything_is_counted_while_updates_flow(ioc: SoftIOC) -> None:
    before = lane() if _ca.lanes() else None
    blocked, go_on = threading.Event(), threading.Event()

    def slow(sample: Sample) -> None:
        blocked.set()
        go_on.wait(20.0)

    try:
        with (
            Channel(ioc["cnt:100hz"]).connect() as channel,
            Channel(ioc["wf:double:n"]).connect() as other,
        ):
            latest = channel.subscribe(slow, queue="latest")
            bounded = channel.subscribe(lambda sample: None, queue=3)
            every = other.subscribe(lambda sample: None)
            assert blocked.wait(10.0)
            wait_until(lambda: latest.merged > 2 and bounded.dropped > 2)
            stats = channel.stats
            assert stats.received == sum(stats[1:5])
            assert stats.pending >= 4
            assert stats.queue_bytes > 0
            wait_until(lambda: channel.stats.waited > 0.0)
            wait_until(lambda: lane().subscriptions >= 2)
            now = lane()
            assert now.received == now.delivered + now.merged + now.dropped + now.pending
            assert now.queue_bytes >= channel.stats.queue_bytes
            assert now.notes >= 3 and now.waited > 0.0
            wait_until(lambda: lane().callback_seconds > 0.05, message="a callback is running")
            assert (now.keeper, now.dispatcher) == (True, True)
            assert now.connected >= 2 and now.subscriptions >= 2 and now.circuits >= 1
            go_on.set()
            wait_until(lambda: every.delivered and bounded.delivered > 3)
            wait_until(lambda: lane().longest_callback > 0.05)
    finally:
        go_on.set()
    wait_until(lambda: lane().pending == 0)
    after = lane()
    assert after.longest_wait > 0.0
    assert after.queue_bytes == 0 and after.waited == 0.0
    # What closed channels had counted is still there, and once.
    assert after.received >= (before.received if before else 0) + stats.received
    assert after.received == after.delivered + after.merged + after.dropped


def test_sums_never_fall_while_channels_come_and_go(ioc: SoftIOC) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            with Channel(ioc["cnt:100hz"]) as channel:
                channel.subscribe(lambda sample: None)
                wait_until(lambda: channel.stats.received)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        last = epicsx.health()
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends or last.received < 20:
            now = epicsx.health()
            assert now.received == now.delivered + now.merged + now.dropped + now.pending
            for name in ("received", "delivered", "merged", "dropped"):
                assert getattr(now, name) >= getattr(last, name), name
            last = now
    finally:
        stop.set()
        for thread in threads:
            thread.join(20.0)


def test_callbacks_that_raise_are_counted_and_logged_within_reason(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    before = lane().callback_errors if _ca.lanes() else 0
    with caplog.at_level(logging.ERROR, "epicsx"), Channel(ioc["cnt:100hz"]) as channel:

        def failing(sample: Sample) -> None:
            raise ValueError("not this one")

        seen = channel.subscribe(failing)
        wait_until(lambda: seen.delivered > 40)
        wait_until(lambda: channel.stats.callback_errors >= 40)
        assert lane().callback_errors - before >= 40
        told = [r for r in caplog.records if ioc["cnt:100hz"] in r.getMessage()]
        assert 10 <= len(told) < 25
        wait_until(lambda: "more since" in caplog.text)
        channel.on_connection(lambda channel, up: 1 / 0)  # told at once, here
        assert channel.stats.callback_errors > 40
        # One that closes its own subscription, and then fails.
        own: list[Any] = []

        def closing(sample: Sample) -> None:
            own[0].close()
            raise ValueError("closed")

        ready = threading.Event()

        def wrapped(sample: Sample) -> None:
            ready.wait(10.0)
            closing(sample)

        count = channel.stats.callback_errors
        own.append(channel.subscribe(wrapped))
        ready.set()
        wait_until(lambda: own[0].closed)
        wait_until(lambda: channel.stats.callback_errors > count)
        own.clear()


def test_a_pv_has_them_too(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    def failing(**kw: Any) -> None:
        raise ValueError("no")

    pv = PV(ioc["cnt:100hz"])
    assert pv.stats.received == sum(pv.stats[1:5])
    pv.add_callback(failing)
    wait_until(lambda: pv.stats.callback_errors > 2)
    stats = pv.stats
    assert stats.received == stats.delivered + stats.merged + stats.dropped + stats.pending
    assert (stats.disconnects, stats.rejected_puts, stats.decode_errors) == (0, 0, 0)
    pv.disconnect()
    assert pv.stats.received == sum(pv.stats[1:5]) >= stats.received


def test_losses_and_refused_puts(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc(DB)
    with Channel(server["x"]).connect(20.0) as x, Channel(server["bo"]).connect(20.0) as bo:
        before = lane()
        bo.subscribe(lambda sample: None)
        bo._core.put("nonsense", dbr_type=0)  # as a text: for the server to judge
        wait_until(lambda: bo.stats.rejected_puts == 1)
        wait_until(lambda: lane().rejected_puts == before.rejected_puts + 1)
        assert lane().server_errors > before.server_errors
        server.kill()
        wait_until(lambda: x.stats.disconnects == bo.stats.disconnects == 1)
        now = lane()
        assert now.disconnects == before.disconnects + 2
        assert (now.unresponsive, x.stats.unresponsive) == (before.unresponsive, 0)
        assert bo.stats.received == sum(bo.stats[1:5])


def test_streams_and_the_bulk_lane_are_in_the_sums(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc(DB)
    with Channel(server["big"]).connect(20.0) as big:
        frames: list[int] = []
        big.subscribe(lambda sample: frames.append(sample.count))
        wait_until(lambda: frames)
        with epicsx.stream(server["big"], depth=4, overflow="drop_oldest") as stream:
            wait_until(lambda: stream.ledger.received)
            posting(server["big"])
            for n in range(12):
                # each awaited: of an array that waits in the server, a further post is none
                before = stream.ledger.received
                big.put(np.full(40_000, float(n)), wait=True)
                wait_until(partial(_more_than, before, stream))
            wait_until(lambda: stream.ledger.dropped)
            assert stream.read(10.0).data[0] >= 0.0
            bulk = lane("bulk")
            assert bulk.received == bulk.delivered + bulk.merged + bulk.dropped + bulk.pending
            assert bulk.dropped >= stream.ledger.dropped > 0
        stats = big.stats
        assert stats.received == sum(stats[1:5]) >= len(frames)


def test_prometheus_reads_it(ioc: SoftIOC) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with Channel(ioc["cnt:100hz"]) as channel:
        seen = channel.subscribe(lambda sample: None)
        wait_until(lambda: seen.delivered > 3)
        health = epicsx.health()
        families = {
            f.name: f for f in parser.text_string_to_metric_families(health.to_prometheus())
        }
    samples = {
        (s.name, s.labels.get("lane")): s.value for f in families.values() for s in f.samples
    }
    for each in health.lanes:
        assert samples["epicsx_updates_received_total", each.name] == each.received
        assert samples["epicsx_channels_connected", each.name] == each.connected
        assert samples["epicsx_waited_seconds", each.name] == pytest.approx(each.waited)
        assert samples["epicsx_keeper_alive", each.name] == 1
    assert families["epicsx_updates_received"].type == "counter"
    assert families["epicsx_channels"].type == "gauge"
    assert all(f.documentation for f in families.values())
    assert samples["epicsx_lent", None] == health.lent


def test_labels_are_escaped() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    mode = 'of "our"\nown\\'
    text = Health(mode=mode, lent=0, blocks=0, pool_bytes=0).to_prometheus()
    info = next(f for f in parser.text_string_to_metric_families(text) if f.name == "epicsx_info")
    assert info.samples[0].labels == {"mode": mode}


def test_as_a_dict_and_as_a_text(ioc: SoftIOC) -> None:
    with Channel(ioc["ao"]).connect():
        health = epicsx.health()
    assert json.loads(json.dumps(health.to_dict())) == health.to_dict()
    assert health.to_dict()["lanes"][0]["name"] == health.lanes[0].name
    text = str(health)
    assert f"{health.lanes[0].received} received = " in text
    assert "lane default" in text
    with pytest.raises(AttributeError):
        health.nonsense  # noqa: B018
    with pytest.raises(AttributeError):
        health.lent = 3  # type: ignore[misc]
    assert "received" in dir(health)


def test_a_forked_child_has_none_of_it(ioc: SoftIOC) -> None:
    script = """
import os, sys
import epicsx
with epicsx.Channel(sys.argv[1]) as channel:
    channel.get()
    child = os.fork()
    if child == 0:
        os._exit(0 if epicsx.health().lanes == () else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(epicsx.health().lanes) == 1
"""
    run_python(script, ioc["ao"], env=ioc.env)
