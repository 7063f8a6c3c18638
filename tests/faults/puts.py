"""P: puts that are not answered, not allowed, or too many; access rights."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Any

import numpy as np

import epicsx
from faults.connection import AT_ONCE, BACK, SILENT, SLOW, X, ready
from faults.faces import attach
from faults.harness import Figure, scenario
from faults.room import Room, doubtful


@scenario(
    "P1",
    how="put with completion, IOC killed before it is complete",
    expected="DisconnectedError, outcome unknown, told once and at once",
    limit=120,
    quick=True,
)
def p1(room: Room) -> Figure:
    ioc = room.ioc(SLOW + X)
    slow, x = room.pv(ioc["slow"]), room.pv(ioc["x"])
    ready(room, [slow, x])

    def kill() -> float:
        """Kill it: seconds until the waiting put ends."""
        if not ioc.running:  # once more
            ioc.restart()
            room.wait(lambda: slow.connected and x.connected, BACK, "both are back")
        told = slow.put_answer(1.0)
        ended: list[tuple[float, BaseException | None]] = []

        def wait() -> None:
            attach(room.face)
            error, _ = room.raised(lambda: x.put(2.0, wait=True, timeout=20.0))
            ended.append((time.monotonic(), error))

        slow.get()  # the IOC has read the put
        ioc.pause()
        before = room.lent()
        waiter = threading.Thread(target=wait)
        waiter.start()
        room.lends(1, before)  # a put that began after the end would wait for the IOC's return
        time.sleep(0.3)  # nothing tells that it is on its way to an IOC that has stopped
        began = time.monotonic()
        ioc.kill()
        waiter.join(25.0)
        room.saw(lambda: told.said, 10.0)
        time.sleep(0.5)  # a second answer would be a fault
        room.check(ended[0][1] is not None, "the waiting put ended as if done")
        room.check(len(told.said) == 1, f"{len(told.said)} answers to the put with callback")
        room.check("done" not in told.said, "the callback was called as for a put that is done")
        if room.face == "epicsx":
            error = ended[0][1]
            assert isinstance(error, epicsx.DisconnectedError), repr(error)
            assert error.outcome_unknown, repr(error)
        return ended[0][0] - began

    took = room.best(kill, lambda took: not doubtful(took, 2.0))
    room.check(took < 2.0, f"the waiting put ended after {took:.1f} s")
    return Figure(f"told once, after {took * 1e3:.0f} ms", seconds=took)


p1.both()

SLOWER = SLOW.replace('"30"', '"1"')


@scenario(
    "P2",
    how="put with completion to an IOC that is stopped (SIGSTOP) for longer than CONN_TMO + 5 s, and completes it then",
    expected="DisconnectedError, outcome unknown, once; the late completion is no second answer",
    limit=60,
    env=SILENT,
)
def p2(room: Room) -> Figure:
    ioc = room.ioc(SLOWER)
    slow = room.pv(ioc["slow"])
    ready(room, [slow])
    told = slow.put_answer(1.0)
    slow.get()  # the IOC has read the put
    ioc.pause()
    began = time.monotonic()
    room.wait(lambda: slow.last(False), 20.0, "told down")
    room.saw(lambda: told.said, 5.0)
    took = told.times[0] - began if told.times else 0.0
    on = time.monotonic()  # before it goes on: news may come at once
    ioc.resume()
    room.wait(lambda: slow.last(True, on), BACK, "told up")
    room.wait(lambda: ioc.read("done") == "1", 10.0, "the IOC completes the put")
    slow.get()
    time.sleep(0.5)  # a second answer would be a fault
    room.check(len(told.said) == 1, f"{len(told.said)} answers")
    room.check("done" not in told.said, "the callback was called as for a put that is done")
    again = slow.put_answer(2.0)
    room.check(room.saw(lambda: again.said == ["done"], 10.0), f"the next put: {again.said}")
    return Figure(f"told after {took:.1f} s, {len(told.said)} answer", seconds=took)


p2.both()


@scenario(
    "P3",
    how="channel closed while a put with completion and a get are under way",
    expected="both end at once with an error; none is left pending",
    limit=90,
    quick=True,
)
def p3(room: Room) -> Figure:
    # A record is slow once: the put of another attempt has a record of its own.
    ioc = room.ioc(X + "".join(SLOW.replace("$(P)", f"$(P){n}") for n in range(5)))
    numbers = itertools.count()

    def put() -> tuple[float, list[str]]:
        """Close under a put: after how many seconds it ended, and what its callback was told."""
        slow = room.pv(ioc[f"{next(numbers)}slow"])
        ready(room, [slow])
        told = slow.put_answer(1.0)
        slow.get()
        began = time.monotonic()
        slow.close()
        room.saw(lambda: told.times, 5.0)
        return (told.times[0] if told.times else time.monotonic()) - began, told.said

    took, said = room.best(put, lambda found: not found[1] or not doubtful(found[0], AT_ONCE))
    room.check(said, "the put's callback was never called")
    room.check(took < AT_ONCE, f"the put ended after {took:.1f} s")
    room.check("done" not in said, "the callback was called as for a put that is done")
    pending = 0
    if room.face == "epicsx":

        def get() -> float:
            """Close under a get: after how many seconds it ended."""
            x = epicsx.Channel(ioc["x"])
            x.connect()
            ioc.pause()
            asked = x.get_async(timeout=None)
            closed = time.monotonic()
            x.close()
            room.check(asked.exception(10.0) is not None, "the get gave a value")
            late = time.monotonic() - closed
            ioc.resume()
            return late

        late = room.best(get, lambda late: not doubtful(late, AT_ONCE))
        room.check(late < AT_ONCE, f"the get ended after {late:.1f} s")
        took = max(took, late)
        room.saw(lambda: not epicsx._ca.lent(), 10.0)
        pending = epicsx._ca.lent()
        room.check(not pending, f"{pending} objects are left in the core")
    return Figure(
        f"told after {took * 1e3:.0f} ms, {pending} pending", seconds=took, pending=pending
    )


p3.both()

SECURITY = """
ASG(DEFAULT) { RULE(1, WRITE) }
ASG(SWITCHED) { INPA("$(P)switch") RULE(1, READ) RULE(1, WRITE) { CALC("A=1") } }
"""


@scenario(
    "P4",
    how="write access is taken and given 20 times while the channel is connected, once while the IOC is stopped "
    "(SIGSTOP) for longer than CONN_TMO + 5 s",
    expected="write access is the true one at each change; a put without it is an AccessError and is not sent",
    limit=90,
    env=SILENT,
)
def p4(room: Room) -> Figure:
    ioc = room.ioc(
        'record(longout, "$(P)switch") { field(VAL, "1") field(PINI, "YES") }'
        'record(ao, "$(P)x") { field(ASG, "SWITCHED") field(VAL, "1") field(PINI, "YES") }',
        access_security=SECURITY,
    )
    x = room.pv(ioc["x"])
    ready(room, [x])
    room.wait(lambda: x.write_access, 10.0, "write access at first")

    def refused(error: BaseException | None) -> bool:
        if room.face == "epicsx":
            return isinstance(error, epicsx.AccessError)
        return error is not None  # pyepics has several ways to say so

    def change(n: int) -> tuple[float, bool]:
        given = bool(n % 2)

        def switch() -> float:
            if x.write_access is given:  # once more
                ioc.write("switch", int(not given))
                room.wait(lambda: x.write_access is not given, 5.0, f"write access {not given}")
            began = time.monotonic()
            ioc.write("switch", int(given))
            room.wait(lambda: x.write_access is given, 5.0, f"write access {given}")
            return time.monotonic() - began

        seconds = room.best(switch, lambda seconds: not doubtful(seconds, AT_ONCE))
        error, _ = room.raised(lambda: x.put(5.0 + n, wait=True, timeout=2.0))
        stored = float(ioc.read("x")) == 5.0 + n
        return seconds, not (stored and error is None if given else not stored and refused(error))

    changes = [change(n) for n in range(20)]
    slowest = max(seconds for seconds, _ in changes)
    room.check(slowest < AT_ONCE, f"a change was seen after {slowest:.1f} s")
    silent = sum(wrong for _, wrong in changes)
    room.check(not silent, f"{silent} puts did not end as the rights say")
    ioc.write("switch", 0)
    room.wait(lambda: not x.write_access, 5.0, "no write access")
    ioc.pause()
    room.wait(lambda: x.last(False), 20.0, "told down")
    on = time.monotonic()
    ioc.resume()
    room.wait(lambda: x.last(True, on), BACK, "told up")
    room.check(not x.write_access, "write access after an unresponsive time, which is not there")
    error, _ = room.raised(lambda: x.put(99.0, wait=True, timeout=2.0))
    room.check(refused(error), f"a put without the right: {error!r}")
    ioc.write("switch", 1)
    room.check(room.saw(lambda: x.write_access, 5.0), "no write access when it is given again")
    room.check(ioc.read("x") != "99", "a put without the right was carried out")
    return Figure(
        f"20 of 20 changes seen, the slowest after {slowest * 1e3:.0f} ms; true after an unresponsive time, too",
        slowest=slowest,
    )


p4.both()


@scenario(
    "P5",
    how="100 plain puts (nobody waits) that the server rejects",
    expected="each is counted, and told in the log; with wait=True it is a PutError",
    limit=40,
)
def p5(room: Room) -> Figure:
    logging.basicConfig()  # as a program does that wants to hear; pyepics has no log
    ioc = room.ioc('record(ao, "$(P)x") { field(DISP, "1") }')
    x = room.pv(ioc["x"])
    ready(room, [x])
    for n in range(100):
        x.put(float(n))
    error, _ = room.raised(lambda: x.put(1.0, wait=True, timeout=5.0))
    room.check(error is not None, "a put with wait gave no error")
    counted = 0
    if room.face == "epicsx":
        room.saw(lambda: x.channel.stats.rejected_puts == 100, 5.0)  # type: ignore[union-attr]
        counted = x.channel.stats.rejected_puts  # type: ignore[union-attr]
        room.check(isinstance(error, epicsx.PutError), f"a put with wait: {error!r}")
    room.check(counted == 100, f"{counted} of 100 counted")
    told = room.saw(lambda: ioc["x"] in room.said(), 2.0)
    room.check(told, "nothing is told")
    return Figure(f"{counted} of 100 counted", counted=counted)


p5.both()

BIG = 1_000_000


@scenario(
    "P6",
    how="8 MB puts in a loop to an IOC that is stopped (SIGSTOP)",
    expected="only the putting thread waits, the others run on; it ends with an error within CONN_TMO + 5 s",
    limit=60,
    ports=2,
    env=SILENT,
)
def p6(room: Room) -> Figure:
    bad = room.ioc(f'record(waveform, "$(P)w") {{ field(FTVL, "DOUBLE") field(NELM, "{BIG}") }}')
    good = room.ioc(
        X + 'record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".02 second") }'
    )
    w = room.pv(bad["w"], monitor=False)
    w.connect()
    count, x = room.pv(good["count"]), room.pv(good["x"])
    ready(room, [count, x])
    ended: list[tuple[float, BaseException]] = []
    puts = [0]
    data = np.ones(BIG)

    def fill() -> None:
        attach(room.face)
        while not ended:
            error, _ = room.raised(lambda: w.put(data, timeout=30.0))
            if error is not None:
                ended.append((time.monotonic(), error))
            puts[0] += 1

    bad.pause()
    began = time.monotonic()
    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    stall = worst = 0.0
    last = time.monotonic()
    while not ended and time.monotonic() < began + 20.0:
        time.sleep(0.002)
        now = time.monotonic()
        stall, last = max(stall, now - last), now
        _, seconds = room.raised(lambda: x.get(timeout=5.0))
        worst = max(worst, seconds)
        last = time.monotonic()
    took = (ended[0][0] if ended else time.monotonic()) - began
    room.check(ended, f"the put did not end within {took:.0f} s")
    room.check(took < 9.0, f"the put ended after {took:.1f} s")
    room.check(stall < 0.5, f"this thread stood still for {stall:.2f} s")
    room.check(worst < 0.5, f"a get from another IOC took {worst:.2f} s")
    gaps = np.diff([when for when, *_ in count.values])
    room.check(gaps.max() < 1.0, f"updates of another IOC paused for {gaps.max():.1f} s")
    bad.resume()
    filler.join(20.0)
    name = type(ended[0][1]).__name__ if ended else "nothing"
    return Figure(
        f"{name} after {took:.1f} s and {puts[0]} puts; another thread stood still for {stall * 1e3:.0f} ms at most, "
        f"its gets from another IOC took {worst * 1e3:.0f} ms at most",
        seconds=took,
        stall=stall,
    )


p6.both()

THREADS = 100


@scenario(
    "P7",
    how="100 threads get, put and watch the same 100 PVs for 10 s (long: 60 s)",
    expected="no error, no deadlock, each answer of its own PV",
    limit=90,
)
def p7(room: Room) -> Figure:
    db = "".join(f'record(ao, "$(P)b{n}") {{ field(VAL, "{n}") }}\n' for n in range(THREADS))
    ioc = room.ioc(db)
    wrong: list[Any] = []

    def look(n: int) -> Any:
        def value_of(value: float) -> None:
            if int(value) != n:  # each PV is given its number and a fraction
                wrong.append((n, value))

        return value_of

    pvs = [room.pv(ioc[f"b{n}"], also=look(n)) for n in range(THREADS)]
    for pv in pvs:
        pv.connect()
    stop = time.monotonic() + (60.0 if room.long else 10.0)
    done = [0] * THREADS

    def work(number: int) -> None:
        attach(room.face)
        step = 0
        while time.monotonic() < stop:
            step += 1
            n = (number * 7 + step * 13) % THREADS
            try:
                pvs[n].put(n + 0.5, wait=step % 4 == 0, timeout=10.0)
                if int(value := pvs[n].get(timeout=10.0)) != n:
                    wrong.append((n, value))
            except Exception as error:
                wrong.append(error)
            done[number] += 2

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(THREADS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, stop + 25.0 - time.monotonic()))
    hung = sum(thread.is_alive() for thread in threads)
    room.check(not hung, f"{hung} threads hang")
    room.check(not wrong, f"{len(wrong)} errors, the first: {wrong[:1]}")
    rate = sum(done) / (time.monotonic() - began)
    return Figure(
        f"{rate:.0f} operations a second, {len(wrong)} errors", rate=rate, errors=len(wrong)
    )


p7.both()
