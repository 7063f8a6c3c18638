"""epicsx.aio: several loops, loops that close or are dropped, and what they still answer and count."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from support import threads_settle, wait_until
from support.coroutines import run, until, write
from support.records import endless

from epicsx import CAError, Channel, _bulk, _request, aio
from epicsx._aioloop import current
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


def test_a_loop_in_each_thread(ioc: SoftIOC) -> None:
    found: list[Any] = []

    async def main(number: int) -> None:
        name = ioc[f"bulk:{number:04d}"]
        flow = aio.updates(name)
        await anext(flow)
        for value in range(20):
            await aio.caput(name, value, wait=True)
        seen = [(await anext(flow)).value for _ in range(19)]
        found.append((number, seen[-1], await aio.caget(name)))
        flow.close()
        await aio.caput(name, number, wait=True)

    write(ioc["bulk:0001"], -1)
    threads = [threading.Thread(target=asyncio.run, args=(main(i),)) for i in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(number, value) for number, _, value in sorted(found)] == [(i, 19) for i in range(1, 6)]
    assert all(last in (18, 19) for _, last, _ in found)


def test_a_loop_that_is_closed_loses_its_own_events_alone(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    write(ioc["longout"], 0)
    before = aio.lost()

    async def subscribed() -> aio.Updates:
        flow = aio.updates(ioc["longout"])
        await anext(flow)
        return flow

    async def main() -> None:
        mine = aio.updates(ioc["longout"])
        await anext(mine)
        await asyncio.to_thread(close_one)
        assert [(await anext(mine)).value for _ in range(5)] == [1, 2, 3, 4, 5]
        assert mine.stats == (6, 6, 0, 0, 0)
        mine.close()

    def close_one() -> None:
        loop = asyncio.new_event_loop()  # which nobody shuts down properly
        theirs = loop.run_until_complete(subscribed())
        write(ioc["longout"], 1, 2)
        loop.close()
        write(ioc["longout"], 3, 4, 5)
        wait_until(lambda: theirs.stats.received == 6)
        assert theirs.stats.pending == 5
        assert aio.lost() == before + 5
        assert theirs.closed
        assert theirs.stats == (6, 1, 0, 5, 0)

    with caplog.at_level(logging.WARNING, "epicsx"):
        run(main())
    assert "5 updates and answers that waited for it are lost" in caplog.text


def test_a_loop_that_ends_counts_what_nobody_took(ioc: SoftIOC) -> None:
    before = aio.lost()

    async def main() -> None:
        write(ioc["longout"], 0)
        flow = aio.updates(ioc["longout"])
        await anext(flow)
        write(ioc["longout"], 1, 2, 3)
        wait_until(lambda: flow.stats.pending == 3)
        kept.append(flow)

    kept: list[aio.Updates] = []
    asyncio.run(main())
    (flow,) = kept
    assert flow.closed
    assert aio.lost() == before + 3


def test_loops_that_end_while_events_arrive(ioc: SoftIOC) -> None:
    """Again and again, with a thread that posts: nothing crashes, and what is counted adds up."""
    stop = threading.Event()
    before = aio.lost()

    def post() -> None:
        with Channel(ioc["chain:go"]) as channel:
            number = 0
            while not stop.wait(0.001):
                # Each when the one before is done: that takes milliseconds, and what had piled up in the server would
                # delay the tests after this one by seconds.
                channel.put(number := number + 1, wait=True, timeout=30.0)

    async def main() -> list[aio.Updates]:
        flows = [aio.updates(ioc[f"chain:{i:04d}"]) for i in range(100)]
        for flow in flows:
            await anext(flow)
        time.sleep(0.01)  # events pile up
        return flows

    poster = threading.Thread(target=post)
    poster.start()
    try:
        dropped = 0
        for _ in range(10):
            flows = asyncio.run(main())
            for flow in flows:
                stats = flow.stats
                assert stats.received == stats.delivered + stats.dropped
                dropped += stats.dropped
            del flows, flow
        assert aio.lost() - before == dropped
    finally:
        stop.set()
        poster.join(30)


@pytest.mark.parametrize("timeout", [5.0, None])
def test_generators_have_their_answers_when_the_loop_ends(
    timeout: float | None, ioc: SoftIOC
) -> None:
    """asyncio closes all generators at once, that of the loop's end of Channel Access among them."""
    before, done, kept = aio.lost(), [], []

    async def generator(number: int) -> AsyncGenerator[int, None]:
        try:
            yield number
        finally:
            if number == 3:
                await asyncio.sleep(0.05)  # the others are over then
            name = ioc[f"bulk:{number:04d}"]
            await aio.caput(name, -number, wait=True, timeout=timeout)
            await aio.caput([name], [number + 0.5], wait=True, timeout=timeout)
            done.append(await aio.caget(name, timeout=timeout))

    async def main() -> None:
        await aio.connect(ioc["bulk:0000"])
        for number in range(4):
            kept.append(generator(number))
            await anext(kept[-1])

    asyncio.run(main())
    assert sorted(done) == [0.5, 1.5, 2.5, 3.5]
    assert aio.lost() == before
    gc.collect()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["loop's thread", "another"])
def test_who_still_waits_is_told_that_the_loop_ends(
    elsewhere: bool, ioc: SoftIOC, spare_ioc: Callable[..., SoftIOC]
) -> None:
    loop = asyncio.new_event_loop()
    server = spare_ioc(endless())

    async def begun() -> list[asyncio.Task[Any]]:
        await aio.connect([ioc["ao"], server["endless0"]], timeout=20.0)
        tasks = [
            asyncio.create_task(aio.connect(ioc["nobody"], timeout=None)),
            asyncio.create_task(aio.caget([ioc["ao"], ioc["nobody"]], timeout=None, throw=False)),
            asyncio.create_task(aio.caput(server["endless0"], 1, wait=True, timeout=None)),
            asyncio.create_task(Channel(ioc["nobody"]).aget(timeout=None)),
        ]
        await until(lambda: aio.counts().requests == 4)
        return tasks

    async def over(tasks: list[asyncio.Task[Any]]) -> list[Any]:
        if elsewhere:
            await asyncio.to_thread(current().close)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    tasks = loop.run_until_complete(begun())
    if not elsewhere:
        loop.run_until_complete(loop.shutdown_asyncgens())
    one, many, put, get = loop.run_until_complete(over(tasks))
    loop.close()
    for error in (one, many[1], put, get):
        assert isinstance(error, CAError)
        assert "the event loop is ending" in str(error)
    assert isinstance(one, aio.CANothing)
    assert not many[1].ok


def test_nothing_begins_for_an_end_that_is_closed(ioc: SoftIOC) -> None:
    """A coroutine may have found it open, and go on when it is closed; nothing of it keeps the loop."""

    async def main() -> None:
        await aio.connect(ioc["ao"])
        end = current()
        core, unconnected = end.channel(ioc["ao"]), end.channel(ioc["nobody"])
        found = [core.get_async(inbox=end.inbox), aio.camonitor(ioc["ao"], print)]
        end.close()
        for begin in (
            lambda: core.get_async(inbox=end.inbox),
            lambda: core.put_async(1.0, inbox=end.inbox),
            lambda: _request.connect_async([unconnected], None, end.inbox),
            lambda: _request.LoopSubscription(core, end.inbox, print, None),
            lambda: _bulk.get_all_async([core], -1, 0, None, end.inbox),
            lambda: _bulk.put_all_async([core], [1.0], [-2], None, end.inbox),
        ):
            with pytest.raises(CAError, match="the event loop is ending"):
                begin()
        assert not end.inbox.requests
        assert not end.inbox.subscriptions
        assert found[0].done()
        assert found[1].state == aio.Subscription.CLOSED

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("use", ["caget", "updates", "camonitor"])
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_is_dropped_is_freed(use: str, ioc: SoftIOC) -> None:
    async def main() -> None:
        told: list[Any] = []
        if use == "caget":
            await aio.caget(ioc["ao"])
        elif use == "updates":
            await anext(aio.updates(ioc["ao"]))
        else:
            aio.camonitor(ioc["ao"], told.append)
            await until(lambda: told)

    def drop() -> weakref.ref[Any]:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        return weakref.ref(loop)

    ref = drop()
    gc.collect()
    assert ref() is None


def test_what_waits_for_camonitor_is_counted_when_its_loop_ends(ioc: SoftIOC) -> None:
    before = aio.lost()

    async def main() -> None:
        write(ioc["longout"], 0)
        told: list[Any] = []
        one = aio.camonitor(ioc["longout"], told.append, all_updates=True)
        await until(lambda: told == [0])
        write(ioc["longout"], 1, 2, 3)  # the loop stands still
        handle = one._handle
        assert handle is not None
        wait_until(lambda: handle.stats.pending == 3)
        kept.append(one)

    kept: list[aio.Subscription] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert aio.lost() == before + 3
    assert kept[0].state == kept[0].CLOSED
    assert kept[0].dropped_callbacks == 0


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that watches no sockets, as some of Windows."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


def test_a_loop_that_watches_no_sockets(ioc: SoftIOC) -> None:
    threads = list(threading.enumerate())
    loop = NoReaders()

    async def main() -> None:
        told: list[Any] = []
        aio.camonitor(ioc["longout"], told.append)
        assert all(await aio.caput([ioc["longout"]] * 2, [4, 5], wait=True))
        await until(lambda: told and told[-1] == 5)
        flow = aio.updates(ioc["longout"])
        assert (await anext(flow)).value == 5
        flow.close()

    try:
        loop.run_until_complete(asyncio.wait_for(main(), 20))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    threads_settle(
        [*threads, *(t for t in threading.enumerate() if t.name.startswith("epicsx-default"))]
    )


def test_a_busy_dispatcher_delays_no_loop(ioc: SoftIOC) -> None:
    """A callback may wait for what a loop does, also for a channel that is not connected yet."""
    found: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        flow = aio.updates(ioc["ai"])

        def callback(_: Any) -> None:
            wanted = asyncio.run_coroutine_threadsafe(aio.caget(ioc["bi"]), loop)
            found.append(wanted.result(10))
            more = asyncio.run_coroutine_threadsafe(first(flow), loop)
            found.append(more.result(10).value)

        async def first(flow: aio.Updates) -> Any:
            return await anext(flow)

        with Channel(ioc["longin"]) as channel:
            subscription = channel.subscribe(callback)
            await until(lambda: len(found) == 2, 20)
            subscription.close()
        flow.close()

    run(main())
    assert found == [1, 2.5]
