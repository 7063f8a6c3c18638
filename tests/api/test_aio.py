"""epicsx.aio beyond aioca: updates, a channel's coroutines, puts, cancelled tasks, callbacks."""

from __future__ import annotations

import array
import asyncio
import gc
import logging
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import idle, wait_until
from support.coroutines import run, until, write
from support.records import endless

from epicsx import (
    DBR,
    AccessError,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    aio,
)
from epicsx._aioloop import current, owned
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


# ---- updates


def test_updates_come_in_order_and_are_counted(ioc: SoftIOC) -> None:
    async def main() -> None:
        write(ioc["longout"], 0)
        async with aio.updates(ioc["longout"]) as flow:
            first = await anext(flow)
            assert (first.value, first.name, first.native_type) == (0, ioc["longout"], DBR.LONG)
            await asyncio.to_thread(write, ioc["longout"], *range(1, 6))
            assert [(await anext(flow)).value for _ in range(5)] == [1, 2, 3, 4, 5]
            assert flow.latest is not None
            assert flow.latest.value == 5
            assert flow.stats == (6, 6, 0, 0, 0)
        assert flow.closed
        with pytest.raises(StopAsyncIteration):
            await anext(flow)

    run(main())


def test_what_waits_is_pending_until_it_is_handed_out(ioc: SoftIOC) -> None:
    async def main() -> None:
        write(ioc["longout"], 0)
        flow = aio.updates(ioc["longout"])
        assert (await anext(flow)).value == 0
        write(ioc["longout"], 1, 2, 3)  # the loop stands still
        wait_until(lambda: flow.stats.received == 4)
        assert flow.stats == (4, 1, 0, 0, 3)
        assert (await anext(flow)).value == 1
        assert flow.stats == (4, 2, 0, 0, 2)
        flow.close()
        flow.close()
        assert flow.stats == (4, 2, 0, 2, 0)

    run(main())


def test_the_newest_or_a_few_may_wait(ioc: SoftIOC) -> None:
    async def main() -> None:
        write(ioc["longout"], 0)
        newest, two = (aio.updates(ioc["longout"], queue=queue) for queue in ("latest", 2))
        for flow in (newest, two):
            assert (await anext(flow)).value == 0
        write(ioc["longout"], *range(1, 6))
        wait_until(lambda: newest.stats.received == two.stats.received == 6)
        assert (await anext(newest)).value == 5
        assert [(await anext(two)).value for _ in range(2)] == [4, 5]
        assert newest.stats == (6, 2, 4, 0, 0)
        assert two.stats == (6, 3, 0, 3, 0)
        newest.close()
        two.close()

    run(main())


def test_the_loop_is_woken_once_for_all_that_came(ioc: SoftIOC) -> None:
    async def main() -> None:
        flows = [aio.updates(ioc[f"chain:{i:04d}"]) for i in range(200)]
        for flow in flows:
            await anext(flow)
        seen = [flow.stats.received for flow in flows]
        now = (await Channel(ioc["chain:go"]).aget()).value
        waiting = [asyncio.ensure_future(anext(flow)) for flow in flows]
        await asyncio.sleep(0)
        before = aio.counts().wakes
        write(ioc["chain:go"], now + 1)  # the loop stands still meanwhile
        wait_until(lambda: all(f.stats.received == n + 1 for f, n in zip(flows, seen, strict=True)))
        assert aio.counts().wakes == before + 1
        assert [sample.value for sample in await asyncio.gather(*waiting)] == [now + 1] * 200
        assert aio.counts().wakes == before + 1
        for flow in flows:
            flow.close()

    run(main())


def test_a_list_wakes_the_loop_once(ioc: SoftIOC) -> None:
    async def main() -> None:
        names = [ioc[f"bulk:{i:04d}"] for i in range(300)]
        await aio.connect(names)
        await aio.caget(names)  # what connecting may have left in the inbox is taken
        before = aio.counts().wakes
        assert len(await aio.caget(names)) == 300
        assert aio.counts().wakes == before + 1

    run(main())


def test_updates_leave_others_their_turn(ioc: SoftIOC) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        write(ioc["longout"], 0)
        flow = aio.updates(ioc["longout"])
        await anext(flow)
        write(ioc["longout"], *range(1, 301))
        wait_until(lambda: flow.stats.pending == 300)
        ticking = asyncio.create_task(tick())
        async for sample in flow:  # none of which has to be waited for
            if sample.value == 300:
                break
        assert ticks > 3
        ticking.cancel()
        flow.close()

    run(main())


def test_an_iteration_that_is_left_ends_the_subscription(ioc: SoftIOC) -> None:
    async def main() -> None:
        async for sample in aio.updates(Channel(ioc["ao"])):
            assert sample.name == ioc["ao"]
            break
        assert aio.counts().subscriptions == 0
        waiting = asyncio.ensure_future(anext(aio.updates(ioc["nobody"])))
        await asyncio.sleep(0)
        assert aio.counts().subscriptions == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del waiting
        await asyncio.sleep(0)  # what woke us keeps the cancellation, and its traceback
        gc.collect()
        assert aio.counts().subscriptions == 0

    run(main())


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "none yet"])
def test_a_step_is_a_coroutine(waits: bool, ioc: SoftIOC) -> None:
    """For tasks and for wait_for; one that is cancelled before it begins has taken nothing."""

    async def main() -> None:
        write(ioc["longout"], 0)
        flow = aio.updates(ioc["longout"])
        assert (await asyncio.wait_for(flow.__anext__(), 10)).value == 0
        ways: list[Any] = [asyncio.create_task, asyncio.ensure_future]
        for number, made in enumerate([*ways, asyncio.get_running_loop().create_task], 1):
            if waits:
                write(ioc["longout"], number)  # the loop stands still
                wait_until(lambda: flow.stats.pending == 1)
            step = flow.__anext__()
            assert asyncio.iscoroutine(step)
            task = made(step)
            if not waits:
                await asyncio.sleep(0)
                await asyncio.to_thread(write, ioc["longout"], number)
            assert (await task).value == number
        if waits:
            write(ioc["longout"], 9)
            wait_until(lambda: flow.stats.pending == 1)
        task = asyncio.create_task(anext(flow))
        if not waits:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        flow.__anext__().close()
        del task
        assert flow.stats.pending == waits
        if not waits:
            write(ioc["longout"], 9)
        step = flow.__anext__()
        assert (await step).value == 9
        with pytest.raises(RuntimeError, match="already awaited"):
            await step
        with pytest.raises(ZeroDivisionError):
            flow.__anext__().throw(ZeroDivisionError("on purpose"))
        with pytest.raises(TypeError, match="just-started"):
            flow.__anext__().send(1)
        flow.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.create_task(anext(flow))

    run(main())


def test_close_from_another_thread_ends_the_iteration(ioc: SoftIOC) -> None:
    async def main() -> None:
        flow = aio.updates(ioc["ao"])
        await anext(flow)
        task = asyncio.create_task(anext_or_none(flow))
        await asyncio.sleep(0)
        await asyncio.to_thread(flow.close)
        assert await task is None

    async def anext_or_none(flow: aio.Updates) -> Any:
        return await anext(flow, None)

    run(main())


def test_updates_belong_to_one_loop(ioc: SoftIOC) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.updates(ioc["ao"])

    async def main() -> None:
        flow = aio.updates(ioc["nobody"])

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(step(flow))

        await asyncio.to_thread(elsewhere)
        flow.close()
        for options in ({"queue": 0}, {"mask": 64}, {"count": -1}, {"lane": "fast"}):
            with pytest.raises(BadValueError):
                aio.updates(ioc["ao"], **options)
        with pytest.raises(BadTypeError):
            aio.updates(ioc["ao"], dtype=complex)
        assert aio.counts().subscriptions == 0

    async def step(flow: aio.Updates) -> Any:
        return await anext(flow)

    run(main())


def test_large_arrays_come_by_the_bulk_lane(ioc: SoftIOC) -> None:
    async def main() -> None:
        values = np.arange(200_000, dtype=float)
        channel = Channel(ioc["big:double"])
        await channel.aput(values, wait=True)
        async for sample in aio.updates(ioc["big:double"]):
            np.testing.assert_array_equal(sample.value, values)
            break
        del sample
        channel.close()

    run(main())


def test_updates_go_on_after_a_restart(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc('record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }')

    async def main() -> None:
        told: list[Any] = []
        aio.camonitor(server["x"], told.append, notify_disconnect=True, all_updates=True)
        flow = aio.updates(server["x"])
        assert (await anext(flow)).value == 1
        await until(lambda: told == [1.0])
        other = 'record(stringout, "$(P)x") { field(VAL, "text") field(PINI, "YES") }'
        await asyncio.to_thread(server.restart, other)
        assert (await asyncio.wait_for(anext(flow), 20)).value == "text"
        await until(lambda: told[-1] == "text", 20)
        (lost,) = told[1:-1]
        assert (lost.ok, lost.errorcode) == (False, 192)
        flow.close()

    run(main())


# ---- a channel's coroutines


def test_aget_aput_and_aconnect(ioc: SoftIOC) -> None:
    async def main() -> None:
        with Channel(ioc["ao"]) as channel:
            assert await channel.aconnect() is channel
            await channel.aput(12.5, wait=True)
            sample = await channel.aget()
            assert (sample.value, sample.native_type) == (12.5, DBR.DOUBLE)
            assert channel.get().value == 12.5  # the same channel
            assert (await channel.aget(str)).value == "12.500"
            await channel.aput(3)
            assert (await channel.aget()).value == 3.0
            with pytest.raises(BadValueError, match="not negative"):
                await channel.aget(count=-1)
            with pytest.raises(BadTypeError):
                await channel.aget(complex)
            with pytest.raises(BadTypeError):
                await channel.aput({})
        with pytest.raises(CAError, match="has been closed"):
            await channel.aget()

    run(main())


def test_a_state_by_its_name(ioc: SoftIOC) -> None:
    async def main() -> None:
        with Channel(ioc["mbbo"]) as channel, Channel(ioc["mbbo16"]) as many:
            for text, index in (("Two", 2), (b"One", 1), ("Three", 3)):
                await channel.aput(text, wait=True)
                assert (await channel.aget()).value == index
            with pytest.raises(BadValueError, match="no such state"):
                await channel.aput("Nine")
            await many.aput("S9", wait=True)
            assert (await many.aget()).value == 9

    run(main())


def test_what_goes_wrong_is_told(ioc: SoftIOC) -> None:
    async def main() -> None:
        with Channel(ioc["noaccess"]) as channel:
            with pytest.raises(AccessError):
                await channel.aget()
        with Channel(ioc["readonly"]) as channel:
            with pytest.raises(AccessError):
                await channel.aput(1)
        with Channel(ioc["nobody"]) as channel:
            for wrong in (
                channel.aconnect(0.05),
                channel.aget(timeout=0.05),
                channel.aput(1, timeout=0.05),
            ):
                with pytest.raises(CATimeoutError, match="no server has answered"):
                    await wrong
        await until(lambda: aio.counts().requests == 0)

    run(main())


def test_a_slow_record_times_out(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc(endless())

    async def main() -> None:
        with Channel(server["endless0"]) as channel:
            await channel.aconnect(20.0)
            with pytest.raises(CATimeoutError, match=r"after 0\.05 seconds"):
                await channel.aput(1, wait=True, timeout=0.05)
            await until(lambda: aio.counts().requests == 0)

    run(main())


def test_a_cancelled_task_lets_go(ioc: SoftIOC, spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc(endless())

    async def main() -> None:
        with Channel(server["endless0"]) as channel:
            await channel.aconnect(20.0)
            tasks = [
                asyncio.create_task(channel.aput(1, wait=True)),
                asyncio.create_task(aio.caget([ioc["nobody"], ioc["ao"]])),
                asyncio.create_task(aio.connect(ioc["nobody"], timeout=None)),
            ]
            await until(lambda: aio.counts().requests == 3)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError)
            await until(lambda: aio.counts().requests == 0)
            assert (await aio.caget(ioc["longin"])) == -3  # all goes on

    before = aio.lost()
    run(main())
    assert aio.lost() == before


def test_a_large_put_is_a_copy_handed_over_by_a_thread(ioc: SoftIOC) -> None:
    async def main() -> None:
        values = np.arange(100_000, dtype=float)
        with Channel(ioc["big:double"]) as channel:
            await channel.aconnect()
            task = asyncio.create_task(channel.aput(values, wait=True))
            await asyncio.sleep(0)
            values[:] = -1.0
            await task
            found = await channel.aget()
            np.testing.assert_array_equal(found.value, np.arange(100_000.0))
            await channel.aput([7.0] * 50_000)
            assert (await channel.aget()).value[-1] == 7.0
            with pytest.raises(BadValueError):
                await channel.aput(np.zeros(2_000_000))
            del found
        await aio.caput(ioc["big:double"], np.ones(60_000), wait=True)
        both = [ioc["big:double"], ioc["w:double"]]
        assert all(await aio.caput(both, [np.zeros(70_000), [1.0]], wait=True))
        large, small = await aio.caget(both)
        assert (len(large), list(small)) == (70_000, [1.0])

    run(main())
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "epicsx-put"])


BIG = 'record(waveform, "$(P)big") { field(FTVL, "DOUBLE") field(NELM, "500000") }'


def test_puts_keep_their_order_while_a_circuit_is_full(spare_ioc: Callable[..., SoftIOC]) -> None:
    """What cannot be handed over in time, or is given up before, is not sent."""
    server = spare_ioc(BIG)

    async def main() -> None:
        told: list[float] = []
        aio.camonitor(server["big"], lambda v: told.extend(np.ravel(v)), count=1, all_updates=True)
        with Channel(server["big"]) as channel:
            await channel.aconnect()

            def put(value: float, count: int = 400_000, timeout: float | None = 60.0) -> Any:
                return asyncio.create_task(channel.aput([value] * count, timeout=timeout))

            await put(-1.0, 1)
            await until(lambda: told and told[-1] == -1.0)
            await asyncio.to_thread(server.pause)
            sent = [put(float(i)) for i in range(8)]
            late = [put(100.0 + i, count, 0.05) for i, count in enumerate((400_000, 1))]
            given_up = put(200.0)
            small = put(300.0, 1)
            for each in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(each, CATimeoutError)
            given_up.cancel()
            assert not small.done()
            mixed = asyncio.create_task(aio.caput([server["big"]] * 2, [[301.0], [302.0]]))
            await asyncio.sleep(0)
            await asyncio.to_thread(server.resume)
            await asyncio.gather(*sent, small, mixed)
            await until(lambda: told[-1] == 302.0)
        told = told[told.index(-1.0) :]
        assert told == sorted(told)
        assert not [value for value in told if 100 <= value < 300]

    run(main())


def test_smaller_arrays_do_not_hold_up_the_loop(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc(BIG)
    too_late = threading.Event()

    def rescue() -> None:  # a loop that stands still resumes nothing
        too_late.set()
        server.resume()

    async def main() -> None:
        name = server["big"]
        await aio.connect(name)
        await asyncio.to_thread(server.pause)
        timer = threading.Timer(15, rescue)
        timer.start()
        some = [
            asyncio.create_task(aio.caput(name, [float(i)] * 30_000, timeout=30.0))
            for i in range(80)
        ]
        lists = [
            asyncio.create_task(aio.caput([name], [[float(i)] * 30_000], timeout=30.0))
            for i in range(80, 100)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        timer.cancel()
        await asyncio.to_thread(timer.join)
        assert not too_late.is_set()
        await asyncio.to_thread(server.resume)
        await asyncio.gather(*some, *lists)
        end = current()
        assert end._unconfirmed
        await aio.caput(name, [7.0], wait=True)
        assert not end._unconfirmed  # what comes next is handed over by the loop again
        assert not end.by_thread(end.channel(name), [0.0] * 30_000)

    run(main())


@pytest.mark.parametrize("made", [bytearray, memoryview, array.array], ids=lambda m: m.__name__)
def test_whatever_has_a_buffer_is_copied_and_handed_over(made: Any, ioc: SoftIOC) -> None:
    async def main() -> None:
        kind = "B" if made is bytearray else "d"
        given = array.array(kind, bytes(300_000 * (1 if kind == "B" else 8)))
        value: Any = given if made is array.array else made(given)
        name = ioc["big:double"]
        with Channel(name) as channel:
            await channel.aconnect()
            assert current().by_thread(channel._core, value)
            mine = owned(value)
            value[0] = 5
            assert mine[0] == 0
            if kind == "d":
                await channel.aput(value, wait=True)
                assert (await channel.aget()).value[0] == 5.0

    run(main())


def test_filtered_channels(ioc: SoftIOC) -> None:
    async def main() -> None:
        with Channel(ioc["wf:double:n"]) as whole:
            for client_side in (False, True):
                with whole.filter(slice=slice(2, 5), client_side=client_side) as part:
                    assert (await part.aget()).value.tolist() == [2.0, 3.0, 4.0]
                    with pytest.raises(BadValueError, match="a slice is for reading"):
                        await part.aput([1.0])

    run(main())


# ---- camonitor, beyond what aioca says


def test_an_async_callback_is_not_called_while_it_runs(ioc: SoftIOC) -> None:
    async def main() -> None:
        write(ioc["longout"], 0)
        told: list[Any] = []
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def slow(value: Any) -> None:
            told.append(value)
            inside.set()
            await go_on.wait()

        seen: list[Any] = []
        subscription = aio.camonitor(ioc["longout"], slow)
        other = aio.camonitor(ioc["longout"], seen.append, all_updates=True)
        await inside.wait()
        await asyncio.to_thread(write, ioc["longout"], *range(1, 11))
        # An answer to a put may come before its update, which the two subscriptions hear of one after the other.
        await until(lambda: seen and seen[-1] == 10 and subscription.dropped_callbacks == 9)
        other.close()
        assert told == [0]
        go_on.set()
        await until(lambda: told[-1] == 10)
        assert subscription.dropped_callbacks == 9
        assert len(told) == 2
        assert told[1].update_count == 10
        go_on.clear()
        write(ioc["longout"], 11)
        await until(lambda: told[-1] == 11)
        subscription.close()  # ends the callback that waits, too
        await until(lambda: len(asyncio.all_tasks()) <= 2)
        write(ioc["longout"], 12)
        assert told[-1] == 11
        assert subscription.dropped_callbacks == 9

    run(main())


def test_a_callback_that_raises_is_logged(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        write(ioc["longout"], 0)
        told: list[int] = []

        def bad(value: Any) -> None:
            told.append(int(value))
            raise RuntimeError("on purpose")

        async def worse(value: Any) -> None:
            bad(value)

        for callback in (bad, worse):
            told.clear()
            subscription = aio.camonitor(ioc["longout"], callback)
            await until(lambda: len(told) == 1)
            write(ioc["longout"], told[0] + 1)
            await until(lambda: len(told) == 2)
            subscription.close()

    run(main())
    assert caplog.text.count(f"callback of '{ioc['longout']}' failed") == 4


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 does not say which task was cancelled")
@pytest.mark.parametrize("later", [False, True], ids=["function", "coroutine"])
def test_a_cancellation_inside_a_callback_is_an_error_like_others(
    later: bool, ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        write(ioc["longout"], 0)
        told: list[int] = []

        def cancelled(value: Any) -> asyncio.Future[None]:
            told.append(int(value))
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return future

        async def waits(value: Any) -> None:
            await cancelled(value)

        subscription = aio.camonitor(
            ioc["longout"], waits if later else lambda value: cancelled(value).result()
        )
        for number in range(1, 4):
            await until(lambda: told and told[-1] == number - 1)  # noqa: B023
            write(ioc["longout"], number)
        await until(lambda: told[-1] == 3)
        subscription.close()

    run(main())
    assert caplog.text.count(f"callback of '{ioc['longout']}' failed") == 4
    caplog.clear()


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
def test_a_cancelled_delivery_closes_its_subscription(
    begun: bool, ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def for_ever(_: Any) -> None:
            inside.set()
            await asyncio.Event().wait()

        subscription = aio.camonitor(ioc["longout"], for_ever)
        await until(lambda: subscription._task is not None) if not begun else await inside.wait()
        assert subscription._task is not None
        subscription._task.cancel()
        await until(lambda: subscription.state == subscription.CLOSED)
        assert aio.counts().subscriptions == 0

    with caplog.at_level(logging.INFO, "epicsx"):
        run(main())
    assert f"subscription of '{ioc['longout']}' is closed, as its task was cancelled" in caplog.text


def test_ctrl_c_in_a_callback_leaves_the_subscription_open(ioc: SoftIOC) -> None:
    write(ioc["longout"], 0)
    told: list[int] = []
    loop = asyncio.new_event_loop()

    def interrupted(value: Any) -> None:
        told.append(int(value))
        if value == 0:
            raise KeyboardInterrupt

    async def begin() -> None:
        aio.camonitor(ioc["longout"], interrupted, all_updates=True)
        await asyncio.sleep(30)

    async def go_on() -> None:
        await asyncio.to_thread(write, ioc["longout"], 1, 2)
        await until(lambda: told == [0, 1, 2])

    waiting = loop.create_task(begin())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(waiting)
    loop.run_until_complete(go_on())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_names_may_come_from_a_generator(ioc: SoftIOC) -> None:
    async def main() -> None:
        both = [ioc["double"], ioc["longout"]]

        def names() -> Any:
            return (name for name in both)

        assert all(await aio.connect(names()))
        assert all(await aio.caput(names(), np.array([1.5, 2.0]), wait=True))
        assert await aio.caget(names()) == [1.5, 2]
        assert [info.name for info in await aio.cainfo(names())] == both
        assert all(await aio.caput(both, np.array(3), wait=True))  # of no dimension: one value
        assert await aio.caget(both) == [3.0, 3]

    run(main())


@pytest.mark.parametrize("datatype", [None, aio.DBR_CHAR_STR])
def test_a_short_text_replaces_a_longer_one(datatype: Any, ioc: SoftIOC) -> None:
    async def main() -> None:
        name = ioc["stringout"]
        for given in ("xy", b"z", ""):
            await aio.caput(name, "a longer text", wait=True)
            await aio.caput(f"{name}.VAL$", given, datatype=datatype, wait=True)
            expected = given.decode() if isinstance(given, bytes) else given
            assert await aio.caget([name, f"{name}.VAL$"]) == [expected, expected]

    run(main())


def test_closed_at_once(ioc: SoftIOC) -> None:
    async def main() -> None:
        async def never(_: Any) -> None:
            raise AssertionError

        for name in (ioc["ao"], ioc["nobody"]):
            aio.camonitor(name, never, connect_timeout=0.01).close()
        await aio.connect(ioc["ao"])
        aio.camonitor(ioc["ao"], never).close()
        await asyncio.sleep(0.05)
        assert aio.counts()[1:] == (0, 0)
        with pytest.raises(BadTypeError):
            aio.camonitor(ioc["ao"], None)  # type: ignore[call-overload]
        with pytest.raises(BadValueError):
            aio.camonitor(ioc["ao"], never, format=9)

    run(main())


def test_purging_closes_subscriptions_and_channels(ioc: SoftIOC) -> None:
    async def main() -> None:
        told: list[Any] = []
        await aio.connect(ioc["longin"])
        subscription = aio.camonitor(ioc["longout"], told.append)
        await until(lambda: told)
        infos = {info.name: info for info in aio.get_channel_infos()}
        assert infos[ioc["longout"]] == (ioc["longout"], True, 1)
        assert infos[ioc["longin"]].subscriber_count == 0
        aio.purge_channel_caches()
        assert aio.get_channel_infos() == []
        assert subscription.state == subscription.CLOSED
        assert await aio.caget(ioc["longin"]) == -3

    run(main())


def test_values_can_be_pickled_and_have_only_their_fields(ioc: SoftIOC) -> None:
    async def main() -> Any:
        return await aio.caget([ioc["ai"], ioc["stringin"], ioc["longin"]], format=aio.FORMAT_TIME)

    values = run(main())
    for value in values:
        again = pickle.loads(pickle.dumps(value))
        assert again == value
        assert (again.name, again.timestamp) == (value.name, value.timestamp)
        assert not hasattr(value, "units")
    nothing = pickle.loads(pickle.dumps(aio.CANothing("x", 80)))
    assert (nothing.name, nothing.errorcode, nothing.ok, bool(nothing)) == ("x", 80, False, False)


def test_exit_with_everything_open(ioc: SoftIOC) -> None:
    from support import run_python

    script = """
        import asyncio, sys
        from epicsx import aio
        P = sys.argv[1]
        async def main():
            aio.camonitor(P + "cnt:100hz", lambda value: None)
            flow = aio.updates(P + "cnt:100hz")
            await anext(flow)
            await aio.connect(P + "slow2", timeout=20)
            asyncio.ensure_future(aio.caput(P + "slow2", 1, wait=True))
            await asyncio.sleep(0.05)
            await aio.caget(P + "slow2", timeout=20)  # so the server has had the put
            print("over")
        asyncio.run(main())
    """
    idle(ioc, "slow2")
    result = run_python(script, ioc.prefix, env={**ioc.env, "PYTHONWARNINGS": "error"})
    assert result.stdout == "over\n"
    lines = [line for line in result.stderr.splitlines() if "waited for it are lost" not in line]
    assert lines == []
    idle(ioc, "slow2")
