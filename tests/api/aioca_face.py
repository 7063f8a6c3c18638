"""What aioca's documentation says, as checks that run with it and with epicsx.aio. A program of its own: see `main`."""

from __future__ import annotations

import asyncio
import datetime
import importlib
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

ca: Any = None
P = ""
SPARE_PORT = REPEATER_PORT = 0

CHECKS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}


def check(function: Callable[[], Coroutine[Any, Any, None]]) -> Any:
    """Each is run by itself, in an event loop of its own."""
    CHECKS[function.__name__] = function
    return function


async def until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.005)


async def raised(coroutine: Any, kind: Any = None) -> Any:
    wanted = kind or ca.CANothing
    try:
        found = await coroutine
    except wanted as error:
        return error
    raise AssertionError(f"nothing was raised, but {found!r} given")


# ---- caget


@check
async def scalars() -> None:
    await ca.caput(P + "double", 2.5, wait=True)
    expected = (("double", float, 2.5), ("longin", int, -3), ("stringin", str, "text in"))
    for record, kind, value in (*expected, ("mbbi", int, 2)):
        found: Any = await ca.caget(P + record)
        same: bool = isinstance(found, kind)
        assert same, type(found)
        assert found == value
        assert (found.ok, found.name, found.element_count) == (True, P + record, 1)
        assert type(+found) is kind
        for field in ("severity", "timestamp", "units", "enums"):
            assert not hasattr(found, field), field
    assert (await ca.caget(P + "double")).datatype == ca.DBR_DOUBLE


@check
async def the_format_time() -> None:
    await ca.caput(P + "ao", 85.0, wait=True)
    found = await ca.caget(P + "ao", format=ca.FORMAT_TIME)
    assert (found.status, found.severity) == (4, 1)
    assert abs(found.timestamp - time.time()) < 60
    assert found.raw_stamp[0] == int(found.timestamp)
    assert found.timestamp == round(found.raw_stamp[0] + found.raw_stamp[1] * 1e-9, 6)
    assert found.datetime == datetime.datetime.fromtimestamp(found.timestamp)
    assert not hasattr(found, "units")


@check
async def the_format_ctrl() -> None:
    await ca.caput(P + "ao", 85.0, wait=True)
    found = await ca.caget(P + "ao", format=ca.FORMAT_CTRL)
    assert (found.units, found.precision, found.severity, found.status) == ("mm", 3, 1, 4)
    assert (found.upper_disp_limit, found.lower_disp_limit) == (100.0, -100.0)
    assert (found.upper_alarm_limit, found.upper_warning_limit) == (90.0, 80.0)
    assert (found.lower_alarm_limit, found.lower_warning_limit) == (-90.0, -80.0)
    assert (found.upper_ctrl_limit, found.lower_ctrl_limit) == (100.0, -100.0)
    assert not hasattr(found, "timestamp")
    found = await ca.caget(P + "mbbo", format=ca.FORMAT_CTRL)
    assert found.enums == ["Zero", "One", "Two", "Three"]
    assert not hasattr(found, "units")
    found = await ca.caget(P + "longout", format=ca.FORMAT_CTRL)
    assert (found.units, found.upper_disp_limit) == ("counts", 1000)
    assert not hasattr(found, "precision")
    assert (await ca.caget(P + "stringin", format=ca.FORMAT_CTRL)).timestamp  # as FORMAT_TIME


@check
async def datatypes() -> None:
    await ca.caput(P + "ao", 2.75, wait=True)
    await ca.caput(P + "mbbo", 2, wait=True)

    async def get(record: str, datatype: Any) -> Any:
        return await ca.caget(P + record, datatype=datatype)

    assert await get("ao", str) == await get("ao", ca.DBR_STRING) == "2.750"
    assert await get("ao", bytes) == b"2.750"
    assert await get("ao", int) == await get("ao", np.int32) == 2
    assert await get("ao", np.float32) == 2.75
    assert (await get("ao", ca.DBR_LONG)).datatype == ca.DBR_LONG
    assert await get("mbbo", ca.DBR_ENUM_STR) == "Two"
    assert await get("ao", ca.DBR_ENUM_STR) == 2.75
    assert await get("mbbo", float) == 2.0
    assert (await get("lso.VAL$", None)).startswith("another long string of more than forty")
    for datatype in (ca.DBR_CHAR_STR, ca.DBR_CHAR_UNICODE):
        assert (await get("lsi.VAL$", datatype)).startswith("a long string of more than forty")
    assert (await get("lsi.VAL$", ca.DBR_CHAR_BYTES)).startswith(b"a long string of more")
    assert await get("desc.DESC", None) == "Température 20 µm"
    assert await get("ao", ca.DBR_CLASS_NAME) == "ao"
    acknowledgement = await get("ao", ca.DBR_STSACK_STRING)
    assert (acknowledgement.ackt, acknowledgement.severity) == (1, 0)
    await raised(get("ao", object()), Exception)


@check
async def arrays() -> None:
    found = await ca.caget(P + "wf:double:n", format=ca.FORMAT_TIME)
    assert issubclass(type(found), np.ndarray)
    assert type(+found) is np.ndarray
    assert found.tolist() == list(range(10))
    assert (found.ok, found.name, found.element_count) == (True, P + "wf:double:n", 16)
    assert found.dtype == np.float64
    assert len(await ca.caget(P + "wf:double:n", count=3)) == 3
    assert len(await ca.caget(P + "wf:double:n", count=-1)) == 16
    assert len(await ca.caget(P + "wf:double:n", count=99)) == 16
    assert (await ca.caget(P + "wf:double:n", count=1)).shape == (1,)
    assert (await ca.caget(P + "wf:double:0")).shape == (0,)
    assert (await ca.caget(P + "wf:long:n")).dtype == np.int32
    assert await ca.caget(P + "wf:double:1") == 1.0
    texts = await ca.caget(P + "wf:string:n")
    assert isinstance(texts, np.ndarray)
    assert texts.tolist() == [f"s{i}" for i in range(10)]
    as_texts = await ca.caget(P + "wf:double:n", datatype=str)
    assert as_texts.tolist() == [str(i) for i in range(10)]


@check
async def lists() -> None:
    names = [f"{P}bulk:{i:04d}" for i in range(50)]
    results = await ca.caput(names, range(50), wait=True)
    assert all(results)
    assert [result.name for result in results] == names
    assert await ca.caget(names) == list(range(50))
    assert await ca.caget(tuple(names[:3]), format=ca.FORMAT_TIME) == [0, 1, 2]
    assert all(v.severity == 0 for v in await ca.caget(names[:3], format=ca.FORMAT_TIME))
    await ca.caput(names[:3], 7, wait=True)
    assert await ca.caget(names[:4]) == [7, 7, 7, 3]
    waves = [P + "w:long", P + "w:double"]
    await ca.caput(waves, [1, 2], True, wait=True)
    assert [list(v) for v in await ca.caget(waves)] == [[1, 2], [1, 2]]
    await ca.caput(waves, [[3], [4, 5]], wait=True)
    assert [list(v) for v in await ca.caget(waves)] == [[3], [4, 5]]
    await ca.caput([P + "stringout", P + "mbbo"], "Two", wait=True)
    assert await ca.caget([P + "stringout", P + "mbbo"]) == ["Two", 2]
    await raised(ca.caput(names[:3], [1, 2]), (AssertionError, ValueError))
    assert await ca.caget([]) == []
    await ca.caput(names, range(50), wait=True)


@check
async def failures_are_raised_or_given_back() -> None:
    error = await raised(ca.caget(P + "nobody", timeout=0.1))
    assert (error.name, error.errorcode, error.ok, bool(error)) == (P + "nobody", 80, False, False)
    assert "User specified timeout" in str(error)
    given = await ca.caget(P + "nobody", timeout=0.1, throw=False)
    assert isinstance(given, ca.CANothing)
    assert (given.name, given.errorcode, given.ok) == (P + "nobody", 80, False)
    names = [P + "longin", P + "nobody", P + "ai"]
    await ca.connect([names[0], names[2]])
    found = await ca.caget(names, timeout=2.0, throw=False)
    assert [v.ok for v in found] == [True, False, True]
    assert (found[0], found[1].name, found[2]) == (-3, P + "nobody", 2.5)
    assert (await raised(ca.caget(names, timeout=0.2))).errorcode == 80
    began = time.monotonic()
    await raised(ca.caget(P + "nobody", timeout=(time.time() + 0.2,)))
    assert 0.1 < time.monotonic() - began < 5
    given = await ca.caget(P + "noaccess", throw=False)
    assert (given.ok, given.errorcode) == (False, 368)
    await raised(ca.caget(P + "noaccess"), Exception)


# ---- caput


@check
async def what_caput_answers() -> None:
    for wait in (False, True):
        result = await ca.caput(P + "double", 1.5, wait=wait)
        assert isinstance(result, ca.CANothing)
        assert (result.ok, bool(result), result.name, result.errorcode) == (
            True,
            True,
            P + "double",
            1,
        )
    given = await ca.caput(P + "readonly", 1, throw=False)
    assert (given.ok, given.errorcode) == (False, 376)
    assert not await ca.caput(P + "nobody", 1, timeout=0.1, throw=False)
    assert (await raised(ca.caput(P + "nobody", 1, timeout=0.1))).errorcode == 80


@check
async def caput_converts() -> None:
    for record, value, expected in (
        *(("double", "2.5", 2.5), ("longout", "7", 7), ("longout", 7.9, 7), ("mbbo", "Three", 3)),
        *(("mbbo", "2", 2), ("stringout", b"bytes", "bytes"), ("double", np.float32(0.5), 0.5)),
        ("double", True, 1.0),
    ):
        await ca.caput(P + record, value, wait=True)
        assert await ca.caget(P + record) == expected, (record, value)
    await ca.caput(P + "longout", 3.7, datatype=float, wait=True)
    assert await ca.caget(P + "longout") == 3
    await ca.caput(P + "double", 3.7, ca.DBR_LONG, True)
    assert await ca.caget(P + "double") == 3.0
    await ca.caput(P + "w:string", ["a", "b c"], wait=True)
    assert list(await ca.caget(P + "w:string")) == ["a", "b c"]
    await ca.caput(P + "w:double", np.arange(5), wait=True)
    assert list(await ca.caget(P + "w:double")) == [0, 1, 2, 3, 4]
    await ca.caput(P + "w:char", "a text", datatype=ca.DBR_CHAR_STR, wait=True)
    assert await ca.caget(P + "w:char", datatype=ca.DBR_CHAR_STR) == "a text"
    long = "a text of many more characters than the forty of a plain string"
    await ca.caput(P + "lso.VAL$", long, ca.DBR_CHAR_STR, wait=True)
    assert await ca.caget(P + "lso.VAL$") == long
    long = "another long string of more than forty characters, again"
    await ca.caput(P + "lso.VAL$", long, ca.DBR_CHAR_STR)
    assert await ca.caget(P + "lso.VAL$") == long  # so it has arrived when this process ends
    await raised(ca.caput(P + "longout", "x", datatype=int, throw=False), ValueError)


@check
async def caput_waits_for_the_record() -> None:
    await until_idle("slow")
    done = await ca.caget(P + "slow:done")
    await ca.caput(P + "slow", 1, wait=True)
    assert await ca.caget(P + "slow:done") == done + 1
    await until_idle("slow2")
    result = await ca.caput(P + "slow2", 1, wait=True, timeout=0.05, throw=False)
    assert (result.ok, result.errorcode) == (False, 80)
    await until_idle("slow2")


async def until_idle(record: str) -> None:
    while await ca.caget(f"{P}{record}:seq.PACT"):
        await asyncio.sleep(0.05)


@check
async def alarms_are_acknowledged() -> None:
    name = P + "ao"
    try:
        await ca.caput(name, 95.0, wait=True)
        await ca.caput(name, 1.0, wait=True)
        found = await ca.caget(name, datatype=ca.DBR_STSACK_STRING)
        assert (found.ackt, found.acks) == (1, 2)
        assert await ca.caput(name, 2, datatype=ca.DBR_PUT_ACKS, wait=True)
        assert (await ca.caget(name, datatype=ca.DBR_STSACK_STRING)).acks == 0
    finally:
        await ca.caput(name, 1.5, wait=True)


# ---- connect, cainfo


@check
async def connecting() -> None:
    assert (await ca.connect(P + "ao")).ok
    results = await ca.connect([P + "ao", P + "nobody"], timeout=0.3, throw=False)
    assert [r.ok for r in results] == [True, False]
    assert (await ca.connect(P + "nobody", wait=False)).ok
    assert (await raised(ca.connect(P + "nobody", timeout=0.05))).errorcode == 80
    info = await ca.cainfo(P + "readonly")
    assert (info.ok, info.name, info.state, info.count) == (True, P + "readonly", 2, 1)
    assert (bool(info.read), bool(info.write)) == (True, False)
    assert info.datatype_strings[info.datatype] == "double"
    assert info.state_strings[info.state] == "connected"
    assert "State: connected" in str(info)
    assert ":" in info.host
    both = await ca.cainfo([P + "ao", P + "wf:long:n"])
    assert [i.count for i in both] == [1, 16]
    waiting = await ca.cainfo(P + "nobody", wait=False)
    assert (waiting.state, waiting.count, waiting.datatype) == (0, 0, 7)
    infos = {i.name: i for i in ca.get_channel_infos()}
    assert infos[P + "ao"].connected
    assert not infos[P + "nobody"].connected
    assert infos[P + "ao"].subscriber_count == 0


# ---- camonitor


@check
async def monitoring() -> None:
    await ca.caput(P + "ao", 1.0, wait=True)
    told: list[Any] = []
    subscription = ca.camonitor(P + "ao", told.append, format=ca.FORMAT_TIME, all_updates=True)
    assert isinstance(subscription, ca.Subscription)
    await until(lambda: told)
    for value in (2.0, 3.0):
        await ca.caput(P + "ao", value, wait=True)
    await until(lambda: len(told) == 3)
    assert told == [1.0, 2.0, 3.0]
    assert all(v.ok and v.name == P + "ao" and v.severity == 0 for v in told)
    assert {i.name: i.subscriber_count for i in ca.get_channel_infos()}[P + "ao"] == 1
    subscription.close()
    subscription.close()
    await ca.caput(P + "ao", 4.0, wait=True)
    await asyncio.sleep(0.05)
    assert len(told) == 3


@check
async def monitoring_many() -> None:
    told: list[Any] = []
    names = [P + "longin", P + "mbbi", P + "lsi.VAL$"]
    made = ca.camonitor(names, lambda value, index: told.append((index, value)))
    assert [s.name for s in made] == names
    await until(lambda: len(told) == 3)
    assert sorted(index for index, _ in told) == [0, 1, 2]
    assert dict(told)[2].startswith("a long string")
    for subscription in made:
        subscription.close()


@check
async def an_async_callback_merges_what_comes_meanwhile() -> None:
    await ca.caput(P + "double", 0.0, wait=True)
    told: list[Any] = []
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(value: Any) -> None:
        told.append(value)
        inside.set()
        await go_on.wait()

    seen: list[Any] = []
    subscription = ca.camonitor(P + "double", slow)
    every = ca.camonitor(P + "double", seen.append, all_updates=True)
    await inside.wait()
    for i in range(1, 11):
        await ca.caput(P + "double", float(i), wait=True)
    await until(lambda: seen and seen[-1] == 10.0)
    await asyncio.sleep(0.05)
    assert told == [0.0]
    go_on.set()
    await until(lambda: told[-1] == 10.0)
    assert told == [0.0, 10.0]
    assert subscription.dropped_callbacks == 9
    assert every.dropped_callbacks == 0
    assert seen == [float(i) for i in range(11)]
    subscription.close()
    every.close()


@check
async def events_go_by_the_format() -> None:
    raw: list[Any] = []
    full: list[Any] = []
    alarms: list[Any] = []
    subscriptions = [
        ca.camonitor(P + "ao", raw.append),
        ca.camonitor(P + "ao", full.append, format=ca.FORMAT_CTRL),
        ca.camonitor(P + "ao", alarms.append, events=ca.DBE_ALARM, format=ca.FORMAT_TIME),
    ]
    await until(lambda: raw and full and alarms)
    await ca.caput(P + "ao.EGU", "cm", wait=True)
    try:
        await until(lambda: full[-1].units == "cm")
        assert len(raw) == len(alarms) == 1
    finally:
        await ca.caput(P + "ao.EGU", "mm", wait=True)
        for subscription in subscriptions:
            subscription.close()


@check
async def disconnection_and_its_time_out() -> None:
    from epicsx.testing import SoftIOC

    db = 'record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }'
    server = SoftIOC(db, server_port=SPARE_PORT, repeater_port=REPEATER_PORT)
    late: list[Any] = []
    told: list[Any] = []
    quiet: list[Any] = []
    name = server["x"]
    subscriptions = [
        ca.camonitor(name, late.append, connect_timeout=0.1),
        ca.camonitor(name, told.append, notify_disconnect=True),
        ca.camonitor(name, quiet.append),
    ]
    await until(lambda: late)
    assert [(v.ok, v.name) for v in late] == [(False, name)]
    assert isinstance(late[0], ca.CANothing)
    await asyncio.to_thread(server.start)
    try:
        await until(lambda: told and quiet and len(late) == 2)
        assert (told, quiet, late[1]) == ([1.0], [1.0], 1.0)
        await asyncio.to_thread(server.kill)
        await until(lambda: len(told) == 2)
        assert (told[1].ok, told[1].name, told[1].errorcode) == (False, name, 192)
        assert len(quiet) == 1
    finally:
        for subscription in subscriptions:
            subscription.close()
        await asyncio.to_thread(server.stop)


@check
async def purging() -> None:
    told: list[Any] = []
    await ca.caput(P + "double", 1.0, wait=True)
    ca.camonitor(P + "double", told.append)
    await until(lambda: told)
    ca.purge_channel_caches()
    await ca.caput(P + "double", 2.0, wait=True)
    await asyncio.sleep(0.05)
    assert told == [1.0]
    assert await ca.caget(P + "double") == 2.0


@check
async def names_and_signatures() -> None:
    import inspect

    for function in (ca.caget, ca.caput, ca.connect, ca.cainfo):
        assert inspect.iscoroutinefunction(function), function
        parameters = inspect.signature(function).parameters
        for keyword in ("timeout", "throw"):
            assert parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(ca.camonitor).parameters)[2:] == [
        *("events", "datatype", "format", "count", "all_updates"),
        *("notify_disconnect", "connect_timeout"),
    ]
    codes = {
        name: getattr(ca, name) for name in dir(ca) if name.startswith(("DBR_", "DBE_", "FORMAT_"))
    }
    assert (codes["DBR_ENUM_STR"], codes["DBR_CHAR_STR"], codes["DBE_PROPERTY"]) == (996, 999, 8)
    assert [codes[f"FORMAT_{f}"] for f in ("RAW", "TIME", "CTRL")] == [0, 1, 2]
    assert {"name", "ok", "units", "raw_stamp", "enums"} <= set(ca.ca_extra_fields)


def main() -> None:
    """Run one check with the library that is named."""
    global ca, P, SPARE_PORT, REPEATER_PORT
    library, name, P, spare, repeater = sys.argv[1:]
    SPARE_PORT, REPEATER_PORT = int(spare), int(repeater)
    ca = importlib.import_module(library)
    asyncio.run(asyncio.wait_for(CHECKS[name](), 40))
    print("as documented")


if __name__ == "__main__":
    main()
