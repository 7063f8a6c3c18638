"""C: connections that end, stall, move or never come to be."""

from __future__ import annotations

import threading
import time
from typing import Any

import epicsx
from faults.harness import Figure, scenario
from faults.room import Room

N = 100

DB_C1 = """
record(calc, "$(P)done") { field(CALC, "VAL+1") }
record(ao, "$(P)slow") { field(FLNK, "$(P)seq") }
record(seq, "$(P)seq") { field(DLY1, "30") field(DOL1, "1") field(LNK1, "$(P)done.PROC PP") }
""" + "".join(f'record(ao, "$(P)m{n}") {{ field(VAL, "{n}") }}\n' for n in range(N))


@scenario(
    "C1",
    how="IOC killed (SIGKILL) with 100 monitors, a put with completion and 10 gets under way",
    expected="every channel is told, every request ends with DisconnectedError, no thread is left",
    limit=40,
    quick=True,
)
def c1(room: Room) -> Figure:
    ioc = room.ioc(DB_C1)
    names = [ioc[f"m{n}"] for n in range(N)]
    channels = epicsx.connect(names, timeout=10.0)
    slow, *_ = epicsx.connect([ioc["slow"]])
    downs: dict[str, float] = {}
    seen: set[str] = set()

    def connection(channel: Any, up: bool) -> None:
        if not up:
            downs[channel.name] = time.monotonic()

    for channel in channels:
        channel.on_connection(connection)
        channel.subscribe(lambda sample: seen.add(sample.name))
    room.wait(lambda: len(seen) == N, 10.0, "first values")
    threads = room.threads()
    put = slow.put_async(1.0, timeout=None)
    channels[0].get()  # the IOC has read the put
    ioc.pause()
    gets = [channel.get_async(timeout=None) for channel in channels[:10]]
    began = time.monotonic()
    ioc.kill()
    room.wait(lambda: len(downs) == N, 10.0, "every channel is told")
    room.wait(lambda: all(each.done() for each in (put, *gets)), 2.0, "requests end")
    for each in (put, *gets):
        error = each.exception(0)
        assert isinstance(error, epicsx.DisconnectedError), repr(error)
    last = max(downs.values()) - began
    room.wait(lambda: room.threads() <= threads, 10.0, "the circuit's threads end")
    return Figure(
        f"{N} of {N} told after {last * 1e3:.0f} ms, none of {len(gets) + 1} requests pending",
        seconds=last,
        pending=0,
    )


@c1.pyepics
def c1_pyepics(room: Room) -> Figure:
    import epics

    ioc = room.ioc(DB_C1)
    downs: dict[str, float] = {}
    seen: set[str] = set()

    def connection(pvname: str, conn: bool, **_: Any) -> None:
        if not conn:
            downs[pvname] = time.monotonic()

    def value(pvname: str, **_: Any) -> None:
        seen.add(pvname)

    pvs = [epics.PV(ioc[f"m{n}"], connection_callback=connection, callback=value) for n in range(N)]
    slow = epics.PV(ioc["slow"])
    assert slow.wait_for_connection(10.0)
    room.wait(lambda: len(seen) == N, 10.0, "first values")
    threads = room.threads()
    answers: list[Any] = []
    slow.put(1.0, callback=lambda **_: answers.append("put"))
    pvs[0].get(use_monitor=False)
    ioc.pause()

    def ask() -> None:
        epics.ca.use_initial_context()
        try:
            answers.append(pvs[1].get(use_monitor=False, timeout=5.0))
        except epics.ca.ChannelAccessGetFailure as error:
            answers.append(error)

    asked = threading.Thread(target=ask)
    asked.start()
    time.sleep(0.2)
    began = time.monotonic()
    ioc.kill()
    room.check(room.saw(lambda: len(downs) == N, 10.0), f"{len(downs)} of {N} told")
    last = max(downs.values(), default=began) - began
    asked.join(10.0)
    waited = time.monotonic() - began
    room.check(waited < 2.0, f"a get gave {answers[-1]!r} after {waited:.1f} s")
    room.check("put" not in answers, "the put's callback was called as for a put that is done")
    room.check(room.saw(lambda: room.threads() <= threads, 5.0), "threads are left")
    return Figure(f"{len(downs)} of {N} told after {last * 1e3:.0f} ms", seconds=last)
