"""EpicsCA and epicsPV, pyepics' forerunners, on a real IOC."""

from __future__ import annotations

from typing import Any

import pytest
from support import idle, wait_until
from support.monitors import heard

from epicsx.compat import EpicsCA
from epicsx.compat.epicsPV import epicsPV
from epicsx.testing import SoftIOC


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    yield
    EpicsCA.disconnect_all()


def test_get_put_and_texts(ioc: SoftIOC) -> None:
    pv = EpicsCA.PV(ioc["mbbo"], connect=True)
    assert pv.connected
    heard(pv)
    pv.put(2, wait=True)
    wait_until(lambda: pv.value == 2)
    assert pv.get(use_char=True) == "Two"
    assert EpicsCA.caget(pv, use_char=True) == EpicsCA.caget(ioc["mbbo"], use_char=True) == "Two"
    assert EpicsCA.caput(pv, 1, wait=1) == 1
    assert EpicsCA.caput(ioc["mbbo"], "Three", wait=True) == 1
    assert ioc.read("mbbo") == "Three"
    assert "enum strings" in (pv.get_info() or "")


def test_limits_come_with_the_control_form(ioc: SoftIOC) -> None:
    pv = EpicsCA.PV(ioc["ao"], use_control=True, connect=True)
    assert (pv.llim, pv.hlim) == (-100.0, 100.0)
    assert pv.units == "mm"
    assert pv.type == "ctrl_double"


def test_the_first_value_comes_too(ioc: SoftIOC) -> None:
    keeper = EpicsCA.PV(ioc["ai"], connect=True)  # its channel is there already
    assert keeper.connected
    for _ in range(20):
        seen: list[Any] = []
        pv = EpicsCA.PV(ioc["ai"], callback=lambda pv=None, seen=seen: seen.append(pv))
        wait_until(lambda seen=seen: seen)  # type: ignore[misc]
        assert seen[0] is pv
        pv.disconnect()


def test_set_monitor_leaves_the_other_callbacks(ioc: SoftIOC) -> None:
    seen: list[Any] = []
    pv = EpicsCA.PV(ioc["double"], callback=lambda pv=None: seen.append(pv.value), connect=True)
    pv.set_monitor()
    value = 1.0 if pv.get() != 1.0 else 2.0
    pv.put(value, wait=True)
    wait_until(lambda: value in seen)
    wait_until(pv.check_monitor)
    pv.disconnect()


def test_callbacks_get_the_pv_itself(ioc: SoftIOC) -> None:
    seen: list[tuple[Any, Any]] = []
    pv = EpicsCA.PV(ioc["double"], callback=lambda pv=None, **kw: seen.append((pv, kw)), wid=7)
    EpicsCA.connect_all(5.0)
    more: list[Any] = []
    pv.add_callback(lambda pv=None: more.append(pv.value))
    pv.put(1 if pv.get() != 1 else 2, wait=True)
    wait_until(lambda: more)
    wait_until(lambda: seen)
    assert seen[-1][0] is pv
    assert seen[-1][1] == {"wid": 7}
    one: list[Any] = []
    pv.set_callback(lambda pv=None: one.append(pv))
    assert len(pv.callbacks) == 1
    assert pv.add_callback(None) is None


def test_a_put_that_is_asked_after(ioc: SoftIOC) -> None:
    idle(ioc, "slow2")
    pv = EpicsCA.PV(ioc["slow2"], connect=True)
    assert pv.put(1, user_wait=True) == 1
    assert pv.put_complete is False
    wait_until(lambda: pv.put_complete)


def test_monitors_that_are_asked(ioc: SoftIOC) -> None:
    pv = EpicsCA.PV(ioc["longout"], use_monitor=False, connect=True)
    assert pv.auto_monitor is False
    called: list[Any] = []
    pv.set_monitor(callback=lambda pv=None, key=None: called.append(key), kw={"key": "k"})
    wait_until(pv.check_monitor)
    assert not pv.check_monitor()
    pv.put(1 if pv.get() != 1 else 2, wait=True)
    wait_until(pv.check_monitor)
    wait_until(lambda: "k" in called)
    pv.clear_monitor()
    assert pv.auto_monitor is False
    assert not pv.callbacks


def test_all_are_connected_under_one_deadline(ioc: SoftIOC) -> None:
    pvs = [EpicsCA.PV(ioc[name]) for name in ("ai", "bi", "wf:long:n")]
    missing = EpicsCA.PV(ioc["no:such"])
    # a first search may take longer
    wait_until(lambda: EpicsCA.connect_all(0.5) == [missing.pvname])
    assert all(pv.connected for pv in pvs)
    assert set(EpicsCA.PVcache) == {pv.pvname for pv in (*pvs, missing)}
    pvs[2].use_numpy = False
    assert pvs[2].get() == list(range(10))
    EpicsCA.disconnect_all()
    assert not EpicsCA.PVcache


def test_what_is_not_there(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    pv = EpicsCA.PV(ioc["no:such"], timeout=0.05)
    assert EpicsCA.caget(pv) is None
    assert EpicsCA.caput(pv, 1) is None
    assert pv.get_info() is None


def test_epicspv(ioc: SoftIOC) -> None:
    pv = epicsPV(ioc["mbbo"])
    heard(pv)
    pv.putw(1, wait=True)
    wait_until(lambda: pv.getw() == 1)  # the monitor's news may come after the put's completion
    assert pv.getw() == pv.getValue() == pv.pvValue == pv.array_get() == 1
    assert (pv.getControl() or {})["enum_strs"][:2] == ("Zero", "One")
    assert pv.callBack.pv_statestrings[1] == "One"
    pv.setMonitor()
    pv.setMonitor()
    pv.putWait(2)
    assert pv.callBack.putComplete == 1
    wait_until(pv.checkMonitor)
    wait_until(lambda: pv.callBack.pv_value == 2)
    pv.clearMonitor()
    pv.clearMonitor()
    assert not pv.checkMonitor()
    assert not pv.callbacks


def test_epicspv_without_a_name(ioc: SoftIOC) -> None:
    pv = epicsPV()
    pv.searchw(ioc["wf:double:n"])
    assert list(pv.getw(count=3)) == [0, 1, 2]
    other = epicsPV(None)
    other.search(ioc["w:double"])
    other.array_put([1.0, 2.0])
    wait_until(lambda: list(other.array_get()) == [1.0, 2.0])
    limits = epicsPV(ioc["ao"])
    limits.getControl()
    assert (limits.callBack.pv_upctrllim, limits.callBack.pv_lodislim) == (100.0, -100.0)
    assert limits.callBack.pv_units == "mm"
