"""Many threads on the same PVs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from support import wait_until

from epicsx import Channel, connect, get_many, put_many
from epicsx._ca import Core, core, lent
from epicsx.testing import SoftIOC


def _hammer(
    count: int, seconds: float, work: Callable[[int, random.Random], object], least: int = 1
) -> None:
    """Call `work` in `count` threads again and again: for that time, and `least` times in each."""
    errors: list[BaseException] = []
    calls = [0] * count
    until = time.monotonic() + seconds

    def run(number: int) -> None:
        chance = random.Random(number)
        try:
            while (time.monotonic() < until or calls[number] < least) and not errors:
                work(number, chance)
                calls[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60.0)
    alive = [thread for thread in threads if thread.is_alive()]
    if errors:
        raise errors[0]
    assert not alive
    assert min(calls) >= least


def test_fifty_threads_get_put_and_subscribe_on_the_same_pvs(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(10)] + [ioc["cnt:100hz"], ioc["wf:double:n"]]
    shared = connect(names)

    def work(number: int, chance: random.Random) -> None:
        channel = chance.choice(shared)
        action = chance.randrange(8)
        if action == 0:
            assert channel.get(timeout=20.0).count
        elif action == 1:
            shared[chance.randrange(10)].put(number, wait=True, timeout=20.0)
        elif action == 2:
            shared[chance.randrange(10)].put(float(number), timeout=20.0)
        elif action == 3:
            seen = threading.Event()
            with channel.subscribe(lambda sample: seen.set()):
                assert seen.wait(20.0)
        elif action == 4:
            with Channel(chance.choice(names)) as own:
                own.get(timeout=20.0)
        elif action == 5:
            assert len(get_many(names, timeout=20.0)) == len(names)
        elif action == 6:
            channel.control(timeout=20.0)
            channel.get_async(timeout=20.0).result(20.0)
        else:
            put_many(names[:10], [number] * 10, wait=True, timeout=20.0)

    _hammer(50, 4.0, work, least=5)
    for channel in shared:
        channel.close()


def test_two_threads_that_ask_for_the_same_name_share_one_core(ioc: SoftIOC) -> None:
    for number in range(50):
        name = ioc[f"bulk:{number:04d}"]
        ready = threading.Barrier(4)
        found: list[Core] = []

        def ask(
            name: str = name, ready: threading.Barrier = ready, found: list[Core] = found
        ) -> None:
            ready.wait(20.0)
            found.append(core(name))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        assert len(found) == 4
        assert len({id(each) for each in found}) == 1


def test_close_while_others_use_the_channel(ioc: SoftIOC) -> None:
    name = ioc["cnt:100hz"]

    def work(number: int, chance: random.Random) -> None:
        with Channel(name) as channel:
            handle = channel.subscribe(lambda sample: None)
            if chance.random() < 0.5:
                channel.get(timeout=20.0)
            if chance.random() < 0.5:
                handle.close()

    _hammer(10, 2.0, work)
    wait_until(lambda: lent() == 0)


def test_a_channel_closed_by_another_thread_ends_the_wait(ioc: SoftIOC) -> None:
    from epicsx import CAError

    for _ in range(20):
        channel = Channel(ioc["nobody"])
        ended: list[object] = []

        def wait(channel: Channel = channel, ended: list[object] = ended) -> None:
            try:
                channel._core.clear()
                channel.get(timeout=30.0)
            except CAError as error:
                ended.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(20.0)  # of 30
        assert len(ended) == 1
        channel.close()


def test_short_threads_leave_nothing_behind(ioc: SoftIOC) -> None:
    import os

    with Channel(ioc["ai"]) as channel:
        channel.get()
        before = len(os.listdir("/proc/self/fd"))

        def work() -> None:
            channel.get(timeout=20.0)

        for _ in range(200):
            threads = [threading.Thread(target=work) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20.0)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
