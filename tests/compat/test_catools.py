"""catools: cothread's functions and values, on threads."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import idle, run_python, takes, wait_until

from epicsx import Channel
from epicsx.compat import catools
from epicsx.compat.catools import (
    DBR_CHAR_BYTES,
    DBR_CHAR_STR,
    DBR_CLASS_NAME,
    DBR_ENUM_STR,
    DBR_STRING,
    DBR_STSACK_STRING,
    ECA_DISCONN,
    ECA_TIMEOUT,
    FORMAT_CTRL,
    FORMAT_TIME,
    ca_array,
    ca_float,
    ca_int,
    ca_nothing,
    ca_str,
    caget,
    cainfo,
    camonitor,
    caput,
    connect,
)
from epicsx.enums import Severity
from epicsx.testing import SoftIOC


class Values(list[Any]):
    """A callback that keeps the values, and the subscriptions to close."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: list[catools.Subscription] = []

    def __call__(self, *args: Any) -> None:
        self.append(args[0] if len(args) == 1 else args)

    def monitor(self, pvs: Any, **kwds: Any) -> Any:
        made = camonitor(pvs, self, **kwds)
        self.subscriptions += made if isinstance(made, list) else [made]
        return made


@pytest.fixture
def values() -> Iterator[Values]:
    made = Values()
    yield made
    for subscription in made.subscriptions:
        subscription.close()
    made.clear()


def test_caget_scalars(ioc: SoftIOC) -> None:
    caput(ioc["double"], 2.5, wait=True)
    caput(ioc["mbbo"], 1, wait=True)
    expected = (("double", ca_float, 2.5), ("longin", ca_int, -3), ("mbbo", ca_int, 1))
    for record, kind, value in (*expected, ("stringin", ca_str, "text in")):
        found = caget(ioc[record])
        assert type(found) is kind
        assert found == value
        assert (found.ok, found.name, found.element_count) == (True, ioc[record], 1)
        assert type(+found) is kind.__mro__[2]
        assert not hasattr(found, "severity")
        assert not hasattr(found, "timestamp")
    assert caget(ioc["double"]).datatype == catools.DBR_DOUBLE


def test_caget_formats(ioc: SoftIOC) -> None:
    caput(ioc["ao"], 85.0, wait=True)
    found = caget(ioc["ao"], format=FORMAT_TIME)
    assert (found.status, found.severity) == (4, 1)
    assert abs(found.timestamp - time.time()) < 60
    assert found.raw_stamp[0] == int(found.timestamp)
    assert found.datetime == datetime.datetime.fromtimestamp(found.timestamp)
    assert not hasattr(found, "units")
    found = caget(ioc["ao"], format=FORMAT_CTRL)
    assert (found.units, found.precision, found.severity) == ("mm", 3, 1)
    assert (found.upper_ctrl_limit, found.lower_alarm_limit) == (100.0, -90.0)
    assert not hasattr(found, "timestamp")
    found = caget(ioc["mbbo"], format=FORMAT_CTRL)
    assert found.enums == ["Zero", "One", "Two", "Three"]
    assert not hasattr(found, "units")
    assert not hasattr(caget(ioc["longin"], format=FORMAT_CTRL), "precision")
    assert caget(ioc["stringin"], format=FORMAT_CTRL).timestamp  # as FORMAT_TIME


def test_caget_datatypes(ioc: SoftIOC) -> None:
    caput(ioc["ao"], 2.75, wait=True)
    caput(ioc["mbbo"], "Two", wait=True)
    get: Callable[[str, Any], Any] = lambda record, kind: caget(ioc[record], datatype=kind)  # noqa: E731
    assert get("ao", str) == get("ao", DBR_STRING) == get("ao", "U10") == "2.750"
    assert get("ao", int) == get("ao", np.int32) == 2
    assert type(get("ao", np.float32)) is ca_float
    assert get("mbbo", DBR_ENUM_STR) == "Two"
    assert get("ao", DBR_ENUM_STR) == 2.75
    assert get("mbbo", float) == 2.0
    assert get("lso.VAL$", None).startswith("another long string of more")
    assert get("lsi.VAL$", DBR_CHAR_BYTES).startswith(b"a long string of more")
    caput(ioc["w:char"], "a text", datatype=DBR_CHAR_STR, wait=True)
    assert get("w:char", DBR_CHAR_STR) == "a text"
    assert get("ao", DBR_CLASS_NAME) == "ao"
    assert get("wf:double:n", DBR_CLASS_NAME) == "waveform"
    assert get("mbbo", DBR_STSACK_STRING).severity == 0
    with pytest.raises(ca_nothing, match="not a type"):
        get("ao", object())


def test_caget_arrays(ioc: SoftIOC) -> None:
    found = caget(ioc["wf:double:n"], format=FORMAT_TIME)
    assert type(found) is ca_array
    assert type(+found) is np.ndarray
    np.testing.assert_array_equal(found, np.arange(10.0))
    severity = Severity[ioc.read("wf:double:n.SEVR")]
    assert (found.element_count, found.ok, found.severity) == (16, True, severity)
    assert len(caget(ioc["wf:double:n"], count=3)) == 3
    assert len(caget(ioc["wf:double:n"], count=-1)) == 16
    assert caget(ioc["wf:double:n"], count=1).shape == (1,)
    assert caget(ioc["wf:double:0"]).shape == (0,)
    assert caget(ioc["wf:long:n"]).dtype == np.int32
    texts = caget(ioc["wf:string:n"])
    assert type(texts) is ca_array
    assert texts.tolist() == [f"s{i}" for i in range(10)]
    assert caget(ioc["wf:string:0"]).shape == (0,)
    assert caget(ioc["wf:double:n"], datatype=str).tolist() == [str(i) for i in range(10)]


def test_lists(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{i:04d}"] for i in range(50)]
    results = caput(names, range(50), wait=True)
    assert all(results)
    assert [r.name for r in results] == names
    assert caget(names) == list(range(50))
    caput(names[:3], 7, wait=True)
    assert caget(names[:4]) == [7, 7, 7, 3]
    waves = [ioc["w:long"], ioc["w:double"]]
    caput(waves, [1, 2], repeat_value=True, wait=True)
    assert [list(v) for v in caget(waves)] == [[1, 2], [1, 2]]
    caput(waves, [[3], [4, 5]], wait=True)
    assert [list(v) for v in caget(waves)] == [[3], [4, 5]]
    caput([names[0], names[0]], [1, 2], wait=True)
    assert caget(names[0]) == 2
    with pytest.raises(ValueError, match="3 PVs but 2 values"):
        caput(names[:3], [1, 2])
    caput(names, range(50), wait=True)


def test_failures_are_raised_or_given_back(ioc: SoftIOC) -> None:
    names = [ioc["longin"], ioc["nobody"], ioc["noaccess"]]
    catools.connect([names[0], names[2]])  # a first search may take longer than is waited below
    found = caget(names, timeout=2.0, throw=False)
    assert [bool(getattr(v, "ok", False)) for v in found] == [True, False, False]
    assert (found[1].name, found[1].errorcode) == (ioc["nobody"], ECA_TIMEOUT)
    assert str(found[1]).startswith(f"{ioc['nobody']}: User specified timeout")
    assert "no read access" in str(found[2])
    with pytest.raises(catools.Timedout):
        caget(names, timeout=(time.time() + 0.2,))
    with pytest.raises(ca_nothing, match="no read access"):
        caget(ioc["noaccess"])
    assert not caput(ioc["readonly"], 1, throw=False)
    with pytest.raises(ca_nothing, match=r"has no state .Nine."):
        caput(ioc["mbbo"], "Nine")
    with pytest.raises(ca_nothing):
        caput(ioc["longout"], "many")
    idle(ioc, "slow2")
    assert caput(ioc["slow2"], 1, wait=True, timeout=0.05, throw=False).errorcode == ECA_TIMEOUT


def test_alarms_are_acknowledged(ioc: SoftIOC) -> None:
    name = ioc["ao"]
    before = float(caget(name))
    try:
        caput(name, 95.0, wait=True)
        caput(name, 1.0, wait=True)
        found = caget(name, datatype=catools.DBR_STSACK_STRING)
        assert (found.ackt, found.acks) == (1, 2)
        assert caput(name, 2, datatype=catools.DBR_PUT_ACKS, wait=True)
        assert caput(name, 0, datatype=catools.DBR_PUT_ACKT)
        found = caget(name, datatype=catools.DBR_STSACK_STRING)
        assert (found.ackt, found.acks) == (0, 0)
        assert not caput(name, "many", datatype=catools.DBR_PUT_ACKS, throw=False)
    finally:
        caput(name, 1, datatype=catools.DBR_PUT_ACKT, wait=True)
        caput(name, before, wait=True)


def test_caput_converts_as_a_server_would(ioc: SoftIOC) -> None:
    for record, value, expected in (
        *(("double", "2.5", 2.5), ("longout", "7", 7), ("longout", 7.9, 7), ("mbbo", "2", 2)),
        *(
            ("stringout", 5, "5"),
            ("stringout", b"bytes", "bytes"),
            ("double", np.float32(0.5), 0.5),
        ),
    ):
        caput(ioc[record], value, wait=True)
        assert caget(ioc[record]) == expected
    caput(ioc["longout"], "3.7", datatype=float, wait=True)
    assert caget(ioc["longout"]) == 3
    caput(ioc["w:string"], np.array(["a", "b c"]), wait=True)
    assert list(caget(ioc["w:string"])) == ["a", "b c"]
    caput(ioc["w:char"], np.array([1, 2], np.uint8), wait=True)
    assert list(caget(ioc["w:char"])) == [1, 2]


def test_caput_callback(ioc: SoftIOC) -> None:
    told: list[Any] = []
    begun: list[bool] = []

    def tell(result: Any) -> None:
        told.append((result, threading.current_thread()))

    def begin() -> None:
        assert caput(ioc["slow"], 1, callback=tell)
        begun.append(True)

    connect(ioc["slow"])
    takes(0.0, 0.25, begin, before=lambda: idle(ioc))
    wait_until(lambda: len(told) == len(begun))
    for result, thread in told:
        assert result.ok
        assert result.name == ioc["slow"]
        assert thread is not threading.current_thread()


def test_connect_and_cainfo(ioc: SoftIOC) -> None:
    assert connect(ioc["ao"]).ok
    assert [r.ok for r in connect([ioc["ao"], ioc["nobody"]], timeout=0.2, throw=False)] == [
        True,
        False,
    ]
    info = cainfo(ioc["readonly"])
    assert (info.ok, info.name, info.state, info.count) == (True, ioc["readonly"], 2, 1)
    assert (info.read, info.write) == (True, False)
    assert info.host.startswith("127.0.0.1:") or info.host.startswith("localhost:")
    assert info.datatype_strings[info.datatype] == "double"
    assert info.state_strings[info.state] == "connected"
    assert "State: connected" in str(info)
    waiting = connect(ioc["nobody"], wait=False, cainfo=True)
    assert (waiting.ok, waiting.state) == (False, 0)
    assert "no access" in str(waiting)


def test_camonitor(ioc: SoftIOC, values: Values) -> None:
    caput(ioc["ao"], 1.0, wait=True)
    values.monitor(ioc["ao"], format=FORMAT_TIME, all_updates=True)
    wait_until(lambda: values)
    for value in (2.0, 3.0):
        caput(ioc["ao"], value, wait=True)
    wait_until(lambda: len(values) == 3)
    assert values == [1.0, 2.0, 3.0]
    assert all(v.ok and v.name == ioc["ao"] and v.severity == 0 for v in values)
    values.subscriptions[0].close()
    values.subscriptions[0].close()
    caput(ioc["ao"], 4.0, wait=True)
    values.clear()
    values.monitor([ioc["longin"], ioc["mbbo"], ioc["lsi.VAL$"]], datatype=None)
    wait_until(lambda: len(values) == 3)
    assert sorted(index for _, index in values) == [0, 1, 2]
    assert next(v for v, i in values if i == 2).startswith("a long string")


def test_camonitor_merges_what_comes_too_fast(ioc: SoftIOC) -> None:
    seen: list[Any] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(value: Any) -> None:
        seen.append(value)
        inside.set()
        go_on.wait(10)

    caput(ioc["double"], 0.0, wait=True)
    subscription = camonitor(ioc["double"], slow)
    assert inside.wait(5)
    other = Channel(ioc["double"])
    for i in range(1, 21):
        other.put(float(i), wait=True)
    wait_until(lambda: subscription._subscription.stats.received == 21)
    go_on.set()
    wait_until(lambda: seen[-1] == 20.0)
    subscription.close()
    other.close()
    assert len(seen) == 2
    assert (seen[0].update_count, seen[1].update_count) == (1, 20)
    assert subscription.dropped_callbacks == 19


def test_events_go_by_the_format(ioc: SoftIOC, values: Values) -> None:
    caput(ioc["ao.HIGH"], 80, wait=True)
    caput(ioc["ao"], 50, wait=True)
    raw = Values()
    values.subscriptions.append(camonitor(ioc["ao"], raw))
    values.monitor(ioc["ao"], format=FORMAT_CTRL)
    wait_until(lambda: raw and values)
    caput(ioc["ao.EGU"], "cm", wait=True)
    try:
        wait_until(lambda: values[-1].units == "cm")
        assert len(raw) == 1
    finally:
        caput(ioc["ao.EGU"], "mm", wait=True)


def test_a_callback_that_raises_is_logged(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[float] = []

    def bad(value: float) -> None:
        seen.append(+value)
        raise RuntimeError("on purpose")

    caput(ioc["double"], 1.0, wait=True)
    subscription = camonitor(ioc["double"], bad)
    wait_until(lambda: seen == [1.0])
    caput(ioc["double"], 2.0, wait=True)
    wait_until(lambda: seen == [1.0, 2.0])
    wait_until(lambda: caplog.text.count(f"callback of '{ioc['double']}' failed") == 2)
    subscription.close()


def test_disconnection_is_told(spare_ioc: Callable[..., SoftIOC], values: Values) -> None:
    db = 'record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }'
    other = 'record(stringout, "$(P)x") { field(VAL, "text") field(PINI, "YES") }'
    server = spare_ioc(db)
    values.monitor(server["x"], notify_disconnect=True)
    quiet = Values()
    values.subscriptions.append(camonitor(server["x"], quiet))
    wait_until(lambda: len(values) == len(quiet) == 1)
    server.restart(other)  # the record comes back with another type
    wait_until(lambda: values[-1] == "text" and quiet[-1] == "text", timeout=30)
    assert next(v for v in values if not v.ok).errorcode == ECA_DISCONN
    assert all(v.ok for v in quiet)


def test_connect_timeout(ioc: SoftIOC, values: Values) -> None:
    values.monitor(ioc["nobody"], connect_timeout=0.1)
    wait_until(lambda: values)
    assert [(v.ok, v.errorcode) for v in values] == [(False, ECA_DISCONN)]
    threads = threading.active_count()
    values.monitor(ioc["also nobody"], connect_timeout=60).close()
    wait_until(lambda: threading.active_count() <= threads)


def test_calls_inside_callbacks(ioc: SoftIOC) -> None:
    caput(ioc["double"], 4.0, wait=True)
    found: list[Any] = []
    subscription = camonitor(ioc["mbbo"], lambda _: found.append(caget(ioc["double"])))
    wait_until(lambda: found == [4.0])
    subscription.close()


def test_a_program_of_cothread(ioc: SoftIOC) -> None:
    script = """
        import sys, threading
        from epicsx.compat.catools import *
        assert "cothread" not in sys.modules and "greenlet" not in sys.modules
        P = sys.argv[1]
        caput(P + "double", 1234)
        done = threading.Event()
        def callback(value):
            print("callback", value)
            done.set()
        camonitor(P + "double", callback)
        assert done.wait(10)
    """
    assert run_python(script, ioc.prefix, env=ioc.env).stdout == "callback 1234.0\n"
