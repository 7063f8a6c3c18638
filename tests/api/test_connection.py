"""Channels: names, connecting, and the news of connection and access."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import takes, wait_until

from epicsx import DBR, Access, BadTypeError, BadValueError, CAError, CATimeoutError, Channel
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


# ---- names, priorities, lanes


@pytest.mark.parametrize("name", ["", "a\0b", "\0", "x" * 1_000_000, "x" * 1008, "ä" * 504])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadValueError):
        Channel(name)


@pytest.mark.parametrize("name", [None, 5, b"ao", ["ao"]])
def test_names_that_are_no_text(name: Any) -> None:
    with pytest.raises(TypeError):
        Channel(name)


@pytest.mark.parametrize(
    "name", ["x" * 61, "x" * 500, "x" * 1007, "äöü µ", " ", "a b", "\udcff", "%s%n"]
)
def test_odd_names_are_only_unknown(ioc: SoftIOC, name: str) -> None:
    with Channel(name) as channel:
        assert channel.name == name
        with pytest.raises(CATimeoutError):
            channel.connect(0.1)


@pytest.mark.parametrize("priority", [-1, 100, 2**31, 2**70])
def test_priorities_that_cannot_be(ioc: SoftIOC, priority: int) -> None:
    with pytest.raises((BadValueError, OverflowError)):
        Channel(ioc["ao"], priority=priority)


def test_a_lane_that_cannot_be(ioc: SoftIOC) -> None:
    lane: Any = "fast"
    with pytest.raises(BadValueError):
        Channel(ioc["ao"], lane=lane)


def test_each_priority_has_a_circuit_of_its_own(ioc: SoftIOC) -> None:
    with Channel(ioc["ai"]) as one, Channel(ioc["ai"], priority=99) as other:
        assert one.get().value == other.get().value == 2.5
        # waited for, as the server may not have noticed yet that the clients of other tests are gone
        wait_until(lambda: ioc.casr().channels[ioc["ai"]] == ioc.casr().clients == 2)


# ---- facts


def test_facts_before_and_after_the_first_connect(ioc: SoftIOC) -> None:
    with Channel(ioc["nobody"]) as nobody:
        assert not nobody.connected
        assert (nobody.native_type, nobody.count, nobody.host) == (None, 0, "")
        assert nobody.access == Access.NONE
        assert "not connected" in repr(nobody)
    with Channel(ioc["wf:long:n"]) as channel:
        assert channel.connect() is channel
        assert channel.connected
        assert (channel.native_type, channel.count) == (DBR.LONG, 16)
        assert channel.host.endswith(f":{ioc.server_port}")
        assert channel.access == Access.READ | Access.WRITE
        assert "connected" in repr(channel)


def test_handles_of_one_name_share_one_channel(ioc: SoftIOC) -> None:
    first = Channel(ioc["ai"])
    second = Channel(ioc["ai"])
    first.connect()
    second.connect()
    assert ioc.casr().channels[ioc["ai"]] == 1
    first.close()
    assert second.get().value == 2.5
    assert ioc.casr().channels[ioc["ai"]] == 1
    second.close()
    del first, second
    wait_until(lambda: ioc["ai"] not in ioc.casr().channels)


def test_threads_that_open_the_same_name_at_once_share_one_channel(ioc: SoftIOC) -> None:
    for number in range(20):
        name = ioc[f"bulk:{number:04d}"]
        ready = threading.Barrier(2)
        made: list[Channel] = []

        def make(
            name: str = name, ready: threading.Barrier = ready, made: list[Channel] = made
        ) -> None:
            ready.wait(5.0)
            made.append(Channel(name))

        threads = [threading.Thread(target=make) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5.0)
        assert made[0]._core is made[1]._core
        assert made[0].get().value == made[1].get().value
        for channel in made:
            channel.close()


# ---- connection news


def test_on_connection_tells_the_present_state_once_then_each_change(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = spare_ioc('record(ao, "$(P)x") {}')
    early: list[tuple[str, bool]] = []
    late: list[tuple[str, bool]] = []
    with Channel(
        ioc["x"], on_connection=lambda channel, up: early.append((channel.name, up))
    ) as channel:
        channel.connect()
        wait_until(lambda: early)
        channel.on_connection(lambda channel, up: late.append((channel.name, up)))
        assert late == [(ioc["x"], True)]
        ioc.kill()
        wait_until(lambda: len(early) == 2 and len(late) == 2)
        assert not channel.connected
        ioc.restart()
        wait_until(lambda: len(early) == 3 and len(late) == 3, 30.0)
        assert channel.access == Access.READ | Access.WRITE
        channel.get()
        assert [up for _, up in early] == [up for _, up in late] == [True, False, True]
        assert channel.stats.disconnects == 1


def test_only_a_new_callback_is_told_in_the_callers_thread(ioc: SoftIOC) -> None:
    inside, go_on = threading.Event(), threading.Event()
    told: list[tuple[str, str]] = []

    def tell(who: str) -> Callable[..., None]:
        return lambda *news: told.append((who, threading.current_thread().name))

    def stand(sample: object) -> None:
        inside.set()
        go_on.wait(30.0)

    with Channel(ioc["bulk:0040"]) as blocker:
        blocker.subscribe(stand)
        assert inside.wait(10.0)
        try:
            with Channel(
                ioc["ai"], on_connection=tell("first"), on_access=tell("first")
            ) as channel:
                channel.connect()
                channel.on_connection(tell("second"))
                channel.on_access(tell("second"))
                assert told == [("second", "MainThread")] * 2
                go_on.set()
                wait_until(lambda: len(told) == 4)
                assert told[2:] == [("first", "epicsx-default")] * 2
        finally:
            go_on.set()


def test_on_connection_says_nothing_before_there_is_something_to_say(ioc: SoftIOC) -> None:
    told: list[bool] = []
    with Channel(ioc["nobody"], on_connection=lambda channel, up: told.append(up)):
        with pytest.raises(CATimeoutError), Channel(ioc["nobody"]) as other:
            other.connect(0.2)
        assert told == []


def test_on_access_tells_the_present_state_once_then_each_change(ioc: SoftIOC) -> None:
    told: list[tuple[bool, bool]] = []
    late: list[tuple[bool, bool]] = []
    with Channel(ioc["access"]) as switch:
        switch.put(1, wait=True)
    # The server hears of it by a link, and so perhaps late, also where another test has switched it on again.
    wait_until(lambda: "result=TRUE" in ioc.shell("asprules SWITCHED"))
    with (
        Channel(ioc["access"]) as switch,
        Channel(
            ioc["switched"], on_access=lambda channel, read, write: told.append((read, write))
        ) as channel,
    ):
        channel.connect()
        wait_until(lambda: told == [(True, True)])
        try:
            switch.put(0, wait=True)
            wait_until(lambda: told == [(True, True), (True, False)])
            assert channel.access == Access.READ
            with pytest.raises(PermissionError, match="switched"):
                channel.put(1.0)
            channel.on_access(lambda channel, read, write: late.append((read, write)))
            assert late == [(True, False)]
        finally:
            switch.put(1, wait=True)
        wait_until(lambda: told == [(True, True), (True, False), (True, True)])
        wait_until(lambda: late == [(True, False), (True, True)])
        channel.put(6.0, wait=True)


def test_access_of_a_record_nobody_may_read(ioc: SoftIOC) -> None:
    told: list[tuple[bool, bool]] = []
    with Channel(
        ioc["noaccess"], on_access=lambda channel, read, write: told.append((read, write))
    ) as channel:
        channel.connect()
        wait_until(lambda: told)
        assert told == [(False, False)]
        assert channel.access == Access.NONE


def test_news_come_from_the_dispatcher_and_first_the_connection(ioc: SoftIOC) -> None:
    told: list[tuple[str, str]] = []

    def tell(what: str) -> Callable[..., None]:
        return lambda *news: told.append((what, threading.current_thread().name))

    with Channel(ioc["ai"], on_connection=tell("connection"), on_access=tell("access")) as channel:
        channel.subscribe(tell("value"))
        wait_until(lambda: len(told) >= 3)
        assert {thread for _, thread in told} == {"epicsx-default"}
        names = [what for what, _ in told]
        assert sorted(names) == ["access", "connection", "value"]
        assert names.index("connection") < names.index("value")


def test_a_callback_that_fails_is_logged_and_the_next_one_runs(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def fail(*news: object) -> None:
        raise RuntimeError("not today")

    with Channel(ioc["ai"], on_connection=fail, on_access=fail) as channel:
        channel.on_connection(lambda *news: told.append("connection"))
        channel.on_access(lambda *news: told.append("access"))
        wait_until(lambda: len(told) >= 2)
        channel.on_connection(fail)  # told at once, in this thread: logged, too
        wait_until(lambda: len(caplog.records) >= 3)
        for record in caplog.records:
            assert (record.name, record.levelno) == ("epicsx", logging.ERROR)
            assert ioc["ai"] in record.getMessage()
            assert "not today" in str(record.exc_info)


@pytest.mark.parametrize("wrong", [None, 5, "print"])
def test_a_callback_is_callable(ioc: SoftIOC, wrong: Any) -> None:
    with Channel(ioc["ai"]) as channel:
        for register in (channel.on_connection, channel.on_access, channel.subscribe):
            with pytest.raises(BadTypeError, match="ai"):
                register(wrong)


# ---- what a connection callback may do


def test_get_put_and_connect_inside_a_connection_callback(ioc: SoftIOC) -> None:
    found: list[Any] = []
    inner: list[Channel] = []

    def on_connection(channel: Channel, up: bool) -> None:
        try:
            found.append(channel.get(timeout=5.0).value)
            other = Channel(ioc["longout"])
            inner.append(other)
            other.connect(5.0)
            other.put(41, wait=True)
            found.append(other.get().value)
            found.append(other.control().units)
            channel.subscribe(lambda sample: found.append(("monitor", sample.value)))
        except BaseException as error:
            found.append(error)

    with Channel(ioc["ai"], on_connection=on_connection):
        wait_until(lambda: len(found) == 4)
        assert found == [2.5, 41, "counts", ("monitor", 2.5)]
    inner[0].close()


def test_get_put_and_connect_inside_an_access_callback(ioc: SoftIOC) -> None:
    found: list[Any] = []

    def on_access(channel: Channel, read: bool, write: bool) -> None:
        try:
            channel.put(2.75, wait=True)
            with Channel(ioc["mbbi"]) as other:
                found.append((channel.get().value, other.get().value))
        except BaseException as error:
            found.append(error)

    with Channel(ioc["double"], on_access=on_access):
        wait_until(lambda: found)
        assert found == [(2.75, 2)]


def test_close_inside_its_own_connection_callback(ioc: SoftIOC) -> None:
    told: list[bool] = []

    def on_connection(channel: Channel, up: bool) -> None:
        channel.close()
        told.append(up)

    channel = Channel(ioc["ai"], on_connection=on_connection)
    wait_until(lambda: told)
    assert told == [True]
    with pytest.raises(CAError, match="closed"):
        channel.get()


# ---- lifetime


def test_close_of_the_last_handle_closes_the_channel(ioc: SoftIOC) -> None:
    name = ioc["bulk:0022"]
    first, second = Channel(name), Channel(name)
    subscription = first.subscribe(lambda sample: None)
    sample = second.get()
    first.close()
    assert ioc.casr().channels[name] == 1
    second.close()
    wait_until(lambda: name not in ioc.casr().channels)
    # What is still held says what it was.
    assert first.name == second.name == subscription.name == sample.name == name
    assert subscription.closed
    assert not second.connected
    with Channel(name) as again:
        assert again.get().value == sample.value


def test_a_channel_with_a_callback_stays_alive(ioc: SoftIOC) -> None:
    told: list[Channel] = []
    Channel(ioc["bulk:0020"], on_connection=lambda channel, up: told.append(channel))
    gc.collect()
    wait_until(lambda: told)
    gc.collect()
    assert ioc.casr().channels[ioc["bulk:0020"]] == 1
    channel = told.pop()
    assert channel.connected
    channel.close()
    alive = weakref.ref(channel)
    del channel
    wait_until(lambda: alive() is None)
    wait_until(lambda: ioc["bulk:0020"] not in ioc.casr().channels)


def test_a_channel_without_a_callback_is_collected_and_closed(ioc: SoftIOC) -> None:
    channel = Channel(ioc["bulk:0021"])
    channel.get()
    assert ioc.casr().channels[ioc["bulk:0021"]] == 1
    alive = weakref.ref(channel)
    del channel
    gc.collect()
    assert alive() is None
    wait_until(lambda: ioc["bulk:0021"] not in ioc.casr().channels)


def test_a_channel_that_never_connected_is_collected(ioc: SoftIOC) -> None:
    channels = [Channel(ioc[f"nobody:{n}"]) for n in range(100)]
    alive = [weakref.ref(channel) for channel in channels]
    channels.clear()
    gc.collect()
    assert [ref() for ref in alive if ref() is not None] == []


def test_the_shared_deadline_of_connect_includes_all(ioc: SoftIOC) -> None:
    def fails() -> None:
        with Channel(ioc["nobody"]) as channel, pytest.raises(CATimeoutError):
            channel.get(timeout=0.5)

    takes(0.475, 0.525, fails)
