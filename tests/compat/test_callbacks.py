"""Value callbacks: what they get, in which order, what they may do, and what becomes of their mistakes."""

from __future__ import annotations

import gc
import threading
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from support import takes, wait_until
from support.monitors import heard

from epicsx.functional import _PVmonitors_, caget, camonitor, camonitor_clear, caput
from epicsx.pv import PV, fmt_time, get_pv
from epicsx.testing import SoftIOC

KEYS = {
    *("pvname", "value", "char_value", "status", "ftype", "chid", "host", "count", "access"),
    *("write_access", "read_access", "severity", "timestamp", "posixseconds", "nanoseconds"),
    *("precision", "units", "enum_strs", "monitor_delta", "upper_disp_limit", "lower_disp_limit"),
    *("upper_alarm_limit", "lower_alarm_limit", "lower_warning_limit", "upper_warning_limit"),
    *("upper_ctrl_limit", "lower_ctrl_limit", "nelm", "type", "typefull", "cb_info"),
}


def monitored(name: str, **options: Any) -> PV:
    pv = PV(name, **options)
    assert pv.wait_for_connection(5)
    heard(pv)
    return pv


def test_keywords(ioc: SoftIOC, calls: Any) -> None:
    pv = PV(ioc["longout"], callback=calls)
    wait_until(lambda: calls)
    first = calls[0]
    assert set(first) == KEYS
    assert first["cb_info"] == (0, pv)
    assert first["cb_info"][1] is pv
    assert (first["type"], first["ftype"], first["count"], first["nelm"]) == ("time_long", 19, 1, 1)
    assert type(first["chid"]) is int
    assert first["units"] is None  # nobody has asked for it
    assert first["char_value"] == str(first["value"])


def test_own_keywords_and_indices(ioc: SoftIOC, calls: Any) -> None:
    pv = monitored(ioc["double"])
    assert pv.add_callback(calls, wid=7, units="mine") == 1
    assert pv.add_callback(lambda **kwds: None) == 2
    assert pv.add_callback(lambda **kwds: None, index=10) == 10
    assert pv.add_callback(lambda **kwds: None) == 11
    assert pv.add_callback("not callable") is None  # type: ignore[arg-type]
    assert list(pv.callbacks) == [1, 2, 10, 11]
    assert not calls
    value = 1.0 if pv.get() != 1.0 else 2.0
    pv.put(value)
    wait_until(lambda: calls)
    assert (calls[0]["wid"], calls[0]["units"], calls[0]["value"]) == (7, "mine", value)
    pv.remove_callback(1)
    pv.remove_callback()
    pv.remove_callback(99)
    assert 1 not in pv.callbacks


def test_they_run_in_the_order_of_their_indices(ioc: SoftIOC) -> None:
    pv = monitored(ioc["double"])
    order: list[int] = []
    for index in (3, 1, 2):
        pv.add_callback(lambda cb_info, **kwds: order.append(cb_info[0]), index=index)
    pv.put(1.0 if pv.get() != 1.0 else 2.0)  # not + 1: another test may have left an infinity
    wait_until(lambda: len(order) == 3)
    assert order == [1, 2, 3]


def test_control_fields_come_once_asked_for(ioc: SoftIOC, calls: Any) -> None:
    pv = monitored(ioc["ao"])
    pv.add_callback(calls)  # with_ctrlvars
    pv.put(2.5 if pv.get() != 2.5 else 1.5)
    wait_until(lambda: calls)
    assert (calls[0]["units"], calls[0]["precision"]) == ("mm", 3)
    assert calls[0]["char_value"] == f"{calls[0]['value']:.3f}"


def test_ctrl_form_has_them_in_the_first_event(ioc: SoftIOC, calls: Any) -> None:
    pv = PV(ioc["ao"], form="ctrl", auto_monitor=13, callback=calls)
    wait_until(lambda: calls)
    assert calls[0]["units"] == "mm"
    assert (calls[0]["type"], calls[0]["ftype"]) == ("ctrl_double", 34)
    assert pv.auto_monitor_mask == 13


def test_run_now(ioc: SoftIOC, calls: Any) -> None:
    pv = monitored(ioc["ao"])
    me = threading.get_ident()
    where: list[int] = []
    pv.add_callback(lambda **kwds: where.append(threading.get_ident()), run_now=True)
    assert where == [me]
    pv.add_callback(calls, index=5)
    assert not calls
    pv.run_callback(5)
    pv.run_callbacks()
    pv.run_callback(77)
    assert len(calls) == 2
    assert calls[0]["value"] == pv.value
    assert calls[0]["char_value"] == pv.char_value


def test_monitor_delta(ioc: SoftIOC, calls: Any) -> None:
    name = ioc["double"]
    ioc.write("double", 10)
    pv = PV(name, monitor_delta=0.5, callback=calls)
    filtered = f'{name}.{{"dbnd":{{"abs":0.5}}}}'
    wait_until(lambda: ioc.casr().monitors.get(filtered) == 1 and calls)
    wait_until(lambda: ioc.casr().monitors.get(name, 0) == 0)
    assert pv.monitor_delta == calls[0]["monitor_delta"] == 0.5
    for value in (10.1, 10.2, 11.0, 11.3, 12.0):
        assert pv.put(value, wait=True) == 1
    wait_until(lambda: 12.0 in calls.values)
    assert {v for v in calls.values if v != 10.0} == {11.0, 12.0}
    assert pv.char_value.startswith("12")
    assert ioc.read("double.MDEL") == "0"
    assert pv.host.endswith(str(ioc.server_port))
    whole = PV(ioc["longout"], monitor_delta=5)
    wait_until(lambda: whole.connected and whole.value is not None)
    assert whole._filtered is None


@pytest.mark.parametrize("number", [Decimal, Fraction])
def test_a_monitor_delta_of_any_kind_of_number(ioc: SoftIOC, calls: Any, number: Any) -> None:
    name = ioc["double"]
    pv = PV(name, monitor_delta=number("0.5"), callback=calls)
    filtered = f'{name}.{{"dbnd":{{"abs":0.5}}}}'
    wait_until(lambda: ioc.casr().monitors.get(filtered) == 1 and calls)
    pv.disconnect()


def test_run_callbacks_before_a_first_value() -> None:
    seen: list[Any] = []
    pv = PV(
        "nobody:has:this", callback=lambda **kwds: seen.append((kwds["value"], kwds["char_value"]))
    )
    pv.run_callbacks()
    assert seen == [(None, "None")]


def test_a_failing_callback(ioc: SoftIOC, caplog: pytest.LogCaptureFixture, calls: Any) -> None:
    ioc.write("double", 1.0)  # another test may have left an infinity, or no number
    pv = PV(ioc["double"], callback=[lambda **kwds: 1 / 0, calls])
    wait_until(lambda: calls)
    assert ioc["double"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    value = calls.values[-1] + 1
    pv.put(value)
    wait_until(lambda: value in calls.values)


def test_everything_works_inside_a_callback(ioc: SoftIOC) -> None:
    found: list[Any] = []

    def work(value: Any = None, cb_info: Any = None, **kwds: Any) -> None:
        pv = cb_info[1]
        if found:
            return
        found.append(caget(ioc["longout"], use_monitor=False, timeout=5) is not None)
        found.append(caput(ioc["puts"], 3, wait=True, timeout=5))
        found.append(pv.get(use_monitor=False, timeout=5) is not None)
        found.append(PV(ioc["mbbi"]).wait_for_connection(5))
        found.append(pv.put(value, wait=True, timeout=5))
        found.append(pv.get_ctrlvars() is not None)
        found.append(pv.add_callback(lambda **kwds: None, with_ctrlvars=True))
        found.append(pv.value == pv._args["value"] == value)
        found.append("done")

    def attempt() -> None:
        del found[:]
        pv = PV(ioc["ai"], callback=work)
        wait_until(lambda: found and found[-1] == "done", 20)
        assert found == [True, 1, True, True, 1, True, 1, True, "done"]
        pv.disconnect()

    takes(0.0, 5.0, attempt)


def test_value_inside_a_callback_is_the_events(ioc: SoftIOC) -> None:
    seen: list[tuple[Any, Any, Any]] = []
    outside: list[Any] = []
    entered, go = threading.Event(), threading.Event()

    def slow(value: Any = None, cb_info: Any = None, **kwds: Any) -> None:
        if len(seen) == 1:
            entered.set()
            go.wait(20)
        pv = cb_info[1]
        seen.append((value, pv.value, pv._args["value"]))

    ioc.write("double", 0.5)  # another test may have left a number that + 1 does not change
    pv = PV(ioc["double"], callback=slow)
    wait_until(lambda: len(seen) == 1)
    start = seen[0][0]
    for i in (1, 2, 3):
        pv.put(start + i, wait=True)
    assert entered.wait(10)
    wait_until(lambda: pv.value == start + 3)  # here, the newest
    outside.append(pv.get())
    go.set()
    wait_until(lambda: len(seen) == 4)
    assert [s[0] for s in seen] == [start, start + 1, start + 2, start + 3]
    assert all(a == b == c for a, b, c in seen)
    assert outside == [start + 3]


def test_a_sleeping_callback_delays_nobody(ioc: SoftIOC) -> None:
    asleep, wake = threading.Event(), threading.Event()

    def sleep(**kwds: Any) -> None:
        asleep.set()
        wake.wait(30)

    PV(ioc["cnt:10hz"], callback=sleep)
    assert asleep.wait(10)

    def attempt() -> None:
        pv = PV(ioc["ao"])
        assert pv.wait_for_connection(5)
        assert pv.get(use_monitor=False, timeout=5) is not None
        assert pv.put(pv.get(timeout=5), wait=True) == 1
        assert pv.units == "mm"
        wait_until(lambda: pv.value is not None)
        assert caget(ioc["longout"]) is not None

    try:
        takes(0.0, 3.0, attempt)
    finally:
        wake.set()


def test_callbacks_of_a_pv_that_got_its_first_one_late(ioc: SoftIOC, calls: Any) -> None:
    pv = monitored(ioc["double"])
    value = 0.5 if pv.get() != 0.5 else 0.25
    pv.put(value, wait=True)  # so that nothing older is still on its way
    wait_until(lambda: pv.get() == value)
    pv.add_callback(calls)
    gc.collect()
    for i in range(1, 6):
        pv.put(value + i, wait=True)
    wait_until(lambda: len(calls) == 5)
    assert calls.values == [value + i for i in range(1, 6)]
    pv.clear_callbacks()
    pv.put(value, wait=True)
    wait_until(lambda: pv.value == value)
    assert len(calls) == 5


def test_get_pv(ioc: SoftIOC, calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pv = get_pv(ioc["ao"], connect=True, timeout=3.0)
    heard(pv)
    assert pv.connection_timeout == 3.0
    assert get_pv(ioc["ao"]) is get_pv(ioc["ao"], form="bogus") is pv
    assert get_pv(ioc["ao"], form="ctrl") is not pv
    assert get_pv(f"{ioc['ao']}.VAL") is not pv
    assert PV(ioc["ao"]) is not pv
    told: list[Any] = []
    get_pv(
        ioc["ao"],
        connection_callback=lambda **kwds: told.append(kwds["conn"]),
        access_callback=lambda read, write, pv: told.append((read, write)),
        callback=calls,
    )
    assert told == [True, (True, True)]
    assert len(calls) == 1
    assert get_pv("nobody:has:this", connect=True, timeout=0.1) is not None
    assert capsys.readouterr().out == "cannot connect to nobody:has:this\n"
    with pytest.warns(UserWarning, match="context"):
        assert get_pv(ioc["ao"], context=pv.context) is pv


def test_camonitor(ioc: SoftIOC, calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = ioc["double"]
    ioc.write("double.PREC", 2)
    lines: list[str] = []
    camonitor(name, writer=lines.append)
    pv = _PVmonitors_[name]
    value = 1.0 if pv.get() != 1.0 else 2.0
    pv.put(value)
    wait_until(
        lambda: any(f" {value:.2f}" in line for line in lines)
    )  # the first may tell of the value before
    assert lines[0].startswith(f"{name[:32]} 20")
    assert not lines[0].endswith("\n")
    camonitor(name, callback=calls)
    assert list(pv.callbacks) == [-999]
    pv.put(value + 1)
    wait_until(lambda: calls)
    assert calls[0]["value"] == value + 1
    camonitor_clear(name)
    camonitor_clear(name)
    assert pv.callbacks == {}
    assert name not in _PVmonitors_
    camonitor("nobody:has:this", connection_timeout=0.1)
    assert capsys.readouterr().out == "cannot connect to nobody:has:this\n"
    camonitor(name)
    pv.put(value + 2, wait=True)
    seen = ""

    def printed() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return "\n" in seen

    wait_until(printed)
    assert seen.startswith(name[:32])


def test_fmt_time() -> None:
    text = fmt_time(1_700_000_000.999999)
    assert text.endswith(".00000")  # pyepics: six digits, .100000
    assert fmt_time(1_700_000_000.25).endswith(".25000")
    assert len(fmt_time()) == 25


def test_verbose(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    pv = PV(ioc["double"], verbose=True)
    assert pv.wait_for_connection(5)
    pv.put(17.0, wait=True)
    seen = ""

    def printed() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return f"{ioc['double']}: 17" in seen

    wait_until(printed)
    pv.disconnect()
