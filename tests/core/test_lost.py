"""An IOC that dies, stalls, or comes back as something else, with everything in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import takes, wait_until

from epicsx import (
    DBR,
    CAError,
    CATimeoutError,
    Channel,
    DisconnectedError,
    Request,
    Sample,
    _ca,
    connect,
    get_many,
)
from epicsx._ca import lent
from epicsx.testing import SoftIOC

DB = """
record(calc, "$(P)done") { field(CALC, "VAL+1") }
record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }
record(ao, "$(P)y") { field(VAL, "1") field(PINI, "YES") }
record(waveform, "$(P)array") { field(FTVL, "DOUBLE") field(NELM, "1000") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".01 second") }
""" + "".join(f'record(ao, "$(P)bulk{n}") {{}}\n' for n in range(200))

# One put with completion at a time and channel: the server's thread of this client would wait for it.
for _n in range(3):
    DB += f"""
record(ao, "$(P)slow{_n}") {{ field(FLNK, "$(P)seq{_n}") }}
record(seq, "$(P)seq{_n}") {{ field(DLY1, "30") field(DOL1, "1") field(LNK1, "$(P)done.PROC PP") }}
"""


class Pending:
    """Calls in threads of their own, and how each ended."""

    def __init__(self) -> None:
        self.results: dict[str, list[Any]] = {}
        self.seconds: dict[str, float] = {}
        self.threads: list[threading.Thread] = []

    def start(self, name: str, call: Callable[[], object]) -> None:
        """Run `call` in a thread."""

        def run() -> None:
            try:
                result = call()
            except BaseException as error:
                result = error
            self.seconds[name] = time.monotonic()
            self.results.setdefault(name, []).append(result)

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()

    def join(self, timeout: float) -> None:
        """Wait until all have ended."""
        for thread in self.threads:
            thread.join(timeout)
        assert not [thread for thread in self.threads if thread.is_alive()]

    def clear(self) -> None:
        """Forget results: their tracebacks keep channels alive."""
        self.results.clear()
        self.threads.clear()


@pytest.fixture
def pending() -> Iterator[Pending]:
    """Give calls in threads; their tracebacks are forgotten at the end."""
    found = Pending()
    yield found
    found.clear()


def test_an_ioc_killed_with_everything_in_flight(
    spare_ioc: Callable[..., SoftIOC], pending: Pending
) -> None:
    ioc = spare_ioc(DB)
    slow, x, array = connect([ioc["slow0"], ioc["x"], ioc["array"]])
    slow1, slow2 = connect([ioc["slow1"], ioc["slow2"]])
    array.put(np.arange(1000.0), wait=True)
    many = connect([ioc[f"bulk{n}"] for n in range(200)])
    out = np.full(1000, -1.0)
    told: list[BaseException | None] = []
    done: list[Request] = []

    waiting = slow.put_async(1.0, timeout=None)
    waiting.add_done_callback(done.append)
    slow1.put(2.0, callback=told.append, timeout=None)
    pending.start("put", lambda: slow2.put(3.0, wait=True, timeout=20.0))
    x.get()  # the IOC has read the puts
    ioc.pause()
    asked = x.get_async(timeout=None)
    asked.add_done_callback(done.append)
    pending.start("get", lambda: x.get(timeout=20.0))
    pending.start("get for ever", lambda: x.get(timeout=None))
    pending.start("bulk", lambda: get_many(many, timeout=20.0))
    pending.start("out", lambda: array.get(out=out, timeout=20.0))
    channels = len(many) + 5
    wait_until(lambda: lent() == channels + 3 + 4 + len(many), message="all are in flight")

    ioc.kill()
    killed = time.monotonic()
    pending.join(10.0)
    for name, when in pending.seconds.items():
        assert when - killed < 5.0, name  # of 20 and more
    wait_until(lambda: len(done) == 2 and told)
    assert len(pending.results) == 5
    for name, found in pending.results.items():
        assert len(found) == 1, name
        assert isinstance(found[0], DisconnectedError), (name, found[0])
        assert found[0].outcome_unknown is (name == "put"), name
    assert isinstance(waiting.exception(0), DisconnectedError)
    assert isinstance(asked.exception(0), DisconnectedError)
    error = asked.exception(0)
    assert (
        error is not None and error.__traceback__ is None
    )  # in 3.10 its frames lead to the caller's
    assert isinstance(told[0], DisconnectedError)
    assert told[0].outcome_unknown
    assert ioc["slow1"] in str(told[0]) and ioc["x"] in str(asked.exception(0))
    assert (out == -1.0).all()
    assert not waiting.cancel()
    assert (len(done), len(told)) == (2, 1)
    told.clear()
    done.clear()


def test_a_stalled_server_writes_nothing_after_the_timeout(
    spare_ioc: Callable[..., SoftIOC], pending: Pending
) -> None:
    ioc = spare_ioc(DB)
    x, array = connect([ioc["x"], ioc["array"]])
    many = connect([ioc[f"bulk{n}"] for n in range(200)])
    array.put(np.arange(1000.0), wait=True)
    out = np.full(1000, -1.0)
    other = np.full(1000, -1.0)
    ioc.pause()
    try:

        def fails() -> None:
            with pytest.raises(CATimeoutError, match="array"):
                array.get(out=out, timeout=0.4)

        takes(0.38, 0.5, fails)
        with pytest.raises(CATimeoutError, match="x"):
            x.put(7.0, wait=True, timeout=0.2)
        request = x.get_async(timeout=0.2)
        with pytest.raises(CATimeoutError):
            request.result(5.0)
        with pytest.raises(CATimeoutError):
            get_many(many, timeout=0.2)
        # An answer that finds its handle closed.
        handle = Channel(ioc["array"])
        pending.start("closed", lambda: handle.get(out=other, timeout=20.0))
        handle.close()  # before it was sent, or after
        pending.join(5.0)
        assert isinstance(pending.results["closed"][0], CAError)
        out[:] = -2.0
        other[:] = -2.0
    finally:
        ioc.resume()
    # The late answers come before this one, on the same circuit.
    assert array.get(timeout=10.0).value.tolist() == list(range(1000))
    assert x.get().value == 7.0
    assert (out == -2.0).all()
    assert (other == -2.0).all()
    with pytest.raises(CATimeoutError):
        request.result(0)


def test_a_record_comes_back_as_another_type_while_a_callback_blocks(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = spare_ioc(DB)
    seen: list[Any] = []
    news: list[bool] = []
    blocked, go_on = threading.Event(), threading.Event()

    def on_value(sample: Sample) -> None:
        seen.append((sample.value, sample.native_type))

    def on_blocker(sample: Sample) -> None:
        blocked.set()
        go_on.wait(60.0)

    try:
        with (
            Channel(ioc["x"], on_connection=lambda channel, up: news.append(up)) as channel,
            Channel(ioc["y"]) as convertible,
            Channel(ioc["bulk0"]) as blocker,
        ):
            types: list[tuple[type, int]] = []
            convertible.subscribe(lambda s: types.append((type(s.value), s.dbr_type)))
            wait_until(lambda: types == [(float, DBR.TIME_DOUBLE)])
            subscription = channel.subscribe(on_value)
            wait_until(lambda: seen == [(1.0, DBR.DOUBLE)])
            blocker.subscribe(on_blocker)
            assert blocked.wait(10.0)
            ioc.kill()
            wait_until(lambda: not channel.connected)
            ioc.restart(
                'record(stringout, "$(P)x") { field(VAL, "text") field(PINI, "YES") }'
                'record(longout, "$(P)y") { field(VAL, "7") field(PINI, "YES") }'
            )
            wait_until(lambda: channel.connected, 30.0)
            assert channel.native_type == DBR.STRING
            # While the dispatcher is blocked: the keeper re-types, get and put work.
            wait_until(lambda: subscription.latest and subscription.latest.value == "text")
            channel.put("more", wait=True)
            assert channel.get().value == "more"
            wait_until(lambda: subscription.latest and subscription.latest.value == "more")
            go_on.set()
            wait_until(lambda: seen and seen[-1][0] == "more")
            wait_until(lambda: len(types) > 1)
            # Nothing of the new record came in the old one's type.
            assert types == [(float, DBR.TIME_DOUBLE), (int, DBR.TIME_LONG)]
            assert [value for value, _ in seen] == [1.0, "text", "more"]
            assert news == [True, False, True]
            stats = subscription.stats
            assert stats.received == stats.delivered == 3
            assert channel.stats.disconnects == 1
    finally:
        go_on.set()


def test_subscriptions_go_on_after_a_restart(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(DB)
    order: list[Any] = []
    with Channel(ioc["count"]) as channel:
        channel.on_connection(lambda channel, up: order.append(up))
        subscription = channel.subscribe(lambda sample: order.append(sample.value))
        wait_until(lambda: len(order) > 10)
        ioc.kill()
        wait_until(lambda: not channel.connected)
        last = subscription.latest
        assert last is not None and last.value > 1  # stays readable
        with Channel(ioc["count"]) as joining:
            late: list[Any] = []
            joining.subscribe(lambda sample: late.append(sample.value))
            ioc.restart()
            wait_until(lambda: channel.connected, 30.0)
            wait_until(lambda: len(late) > 3)
            assert late[0] < late[1] < late[2]
        wait_until(lambda: order[-1] is not True)
        # by identity: the counter may have been 0.0
        lost = next(n for n, item in enumerate(order) if item is False)
        again = [n for n, item in enumerate(order) if item is True][-1]
        assert order[0] is True
        assert lost < again
        assert order[lost + 1] is True  # nothing between the loss and the return
        after = order[again + 1 :]
        # the server may leave some out: where it begins to post, and where its threads are late
        assert after and (np.diff(after) >= 1.0).all()
        stats = subscription.stats
        assert stats.received == stats.delivered + stats.pending


def test_a_put_to_a_lost_channel_says_so(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(DB)
    with Channel(ioc["x"]) as channel:
        channel.connect()
        ioc.kill()
        wait_until(lambda: not channel.connected)
        attempts: list[Callable[[], object]] = [
            lambda: channel.put(1.0, timeout=0.2),
            lambda: channel.put(1.0, wait=True, timeout=0.2),
            lambda: channel.get(timeout=0.2),
        ]
        for attempt in attempts:
            with pytest.raises(CATimeoutError, match=r"x.*was lost"):
                attempt()
        with pytest.raises(DisconnectedError, match="x"):
            channel.put_async(1.0)
        with pytest.raises(DisconnectedError, match="x"):
            channel.get_async()


def test_kill_and_restart_again_and_again_under_load(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = spare_ioc(DB)
    stop = threading.Event()
    wrong: list[BaseException] = []
    answers = [0]

    def work(name: str) -> None:
        with Channel(ioc[name]) as channel:
            while not stop.is_set():
                try:
                    channel.put(1.0, wait=True, timeout=1.0)
                    channel.get(timeout=1.0)
                    answers[0] += 1
                except (CATimeoutError, DisconnectedError):
                    pass
                except BaseException as error:
                    wrong.append(error)
                    return

    threads = [threading.Thread(target=work, args=(f"bulk{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            answers[0] = 0
            wait_until(lambda: answers[0] > 100, 30.0)
            ioc.kill()
            ioc.restart()
    finally:
        stop.set()
        for thread in threads:
            thread.join(10.0)
    assert wrong == []
    assert not [thread for thread in threads if thread.is_alive()]


def test_a_name_asked_for_again_while_its_circuit_closes_connects_at_once(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    # libca puts such a channel on the dying circuit, and lets it search again after up to ten seconds
    ioc = spare_ioc(DB)
    with Channel(ioc["x"]) as channel:
        channel.connect()
    for drop_before_asking in (True, False):
        channel = Channel(ioc["x"]).connect()
        ioc.pause()
        resumes = threading.Timer(0.1, ioc.resume)
        resumes.start()
        began = time.monotonic()
        channel.close()
        del channel
        if not drop_before_asking:
            wait_until(lambda: lent() == 0, message="libca has cleared the channel")
        with Channel(ioc["x"]) as again:
            again.connect(5.0)
        assert time.monotonic() - began < 4.0
        resumes.join()


def test_channels_dropped_while_they_connect_leave_no_circuit_closing(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    """Else every new channel would wait, as long as it waits for a server that is slow to close."""
    ioc = spare_ioc(DB)
    with Channel(ioc["x"]).connect(20.0):
        context = _ca.context()
    for number in range(150):
        channel = Channel(ioc["x"])
        if number % 3:  # about when the answer to its search comes
            channel._core.wait_connected(0.025 + 0.0002 * (number % 50))
        channel.close()
        del channel
    wait_until(lambda: context.closing[0] == 0, message="each emptied circuit was cleared")
    wait_until(lambda: lent() == 0)
