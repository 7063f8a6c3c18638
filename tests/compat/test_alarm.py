"""Alarm: a function called when a value goes out of range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import wait_until

from epicsx import PV, Alarm, caput
from epicsx.testing import SoftIOC

Seen = list[dict[str, Any]]


@pytest.fixture
def name(ioc: SoftIOC) -> Iterator[str]:
    """Give a PV that is 0, with 6 digits."""
    caput(ioc["double.PREC"], 6, wait=True)
    caput(ioc["double"], 0, wait=True)
    yield ioc["double"]
    caput(ioc["double"], 0, wait=True)


def settled(alarm: Alarm, name: str, value: float) -> None:
    """Write a value, and wait until the alarm's PV has told its callbacks of it."""
    told: Seen = []
    index = alarm.pv.add_callback(lambda **kw: told.append(kw), with_ctrlvars=False)
    caput(name, value, wait=True)
    wait_until(lambda: told and told[-1]["value"] == value)
    alarm.pv.remove_callback(index)


def test_it_tells_when_a_value_goes_out_of_range(name: str) -> None:
    seen: Seen = []
    alarm = Alarm(name, ">", 5, callback=lambda **kw: seen.append(kw), alert_delay=0)
    assert repr(alarm) == f"<Alarm pvname='{name}',comp='>',trip_point=5>"
    settled(alarm, name, 4)
    assert not seen
    settled(alarm, name, 6)
    settled(alarm, name, 7)  # still out of range: told once
    assert len(seen) == 1
    assert (seen[0]["pvname"], seen[0]["value"], seen[0]["trip_point"]) == (name, 6, 5)
    assert (seen[0]["comparison"], seen[0]["char_value"]) == (">", "6.000000")
    assert "severity" in seen[0]
    assert alarm.alarm_state
    settled(alarm, name, 1)
    assert not alarm.alarm_state
    settled(alarm, name, 8)
    assert [each["value"] for each in seen] == [6, 8]
    alarm.close()


def test_an_excursion_within_the_delay_is_not_told(name: str) -> None:
    seen: Seen = []
    alarm = Alarm(name, "gt", 5, callback=lambda **kw: seen.append(kw), alert_delay=1000)
    for value in (6, 1, 7, 2):
        settled(alarm, name, value)
    assert [each["value"] for each in seen] == [6]
    alarm.reset()
    assert (alarm.last_alert, alarm.alarm_state) == (0, False)
    settled(alarm, name, 8)
    assert [each["value"] for each in seen] == [6, 8]
    alarm.close()


@pytest.mark.parametrize(
    ("comparison", "low", "high"),
    [("ge", False, True), ("<", True, False), ("__lt__", True, False), ("ne", True, False)],
)
def test_comparisons(name: str, comparison: str, low: bool, high: bool) -> None:
    alarm = Alarm(name, comparison, 5, callback=lambda **kw: None, alert_delay=0)
    settled(alarm, name, 4)
    assert alarm.alarm_state is low
    settled(alarm, name, 5)
    assert alarm.alarm_state is high
    assert alarm.comp_name == comparison
    alarm.close()


def test_a_comparison_of_the_users_own(name: str) -> None:
    def far(value: float, trip: float) -> bool:
        return abs(value) > trip

    seen: Seen = []
    pv = PV(name)
    assert pv.wait_for_connection(5)
    alarm = Alarm(pv, far, 3, callback=lambda **kw: seen.append(kw))
    assert (alarm.pv is pv, alarm.comp_name) == (True, "far")
    settled(alarm, name, -4)
    assert seen[0]["comparison"] == "far"
    alarm.close()


def test_a_comparison_that_is_none(name: str) -> None:
    seen: Seen = []
    alarm = Alarm(name, "between", 3, callback=lambda **kw: seen.append(kw), alert_delay=0)
    assert alarm.comp_name == "Not Defined"
    settled(alarm, name, 9)
    assert not seen
    alarm.close()


def test_without_a_callback_it_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    alarm = Alarm(name, ">", 5)
    settled(alarm, name, 6)
    assert capsys.readouterr().out.startswith(f"Alarm: {name}=6.000000 (")
    alarm.check_alarm(pvname=name, value=1)
    alarm.reset()
    alarm.check_alarm(pvname=name, value=9)
    assert f"Alarm: {name}=9 (" in capsys.readouterr().out
    alarm.close()


def test_it_can_be_stopped(name: str) -> None:
    seen: Seen = []
    alarm = Alarm(name, ">", 5, callback=lambda **kw: seen.append(kw), alert_delay=0)
    alarm.close()
    alarm.clear()
    settled(alarm, name, 6)
    assert not seen
    assert not alarm.pv.callbacks


@pytest.mark.parametrize("args", [(None, ">", 1), ("x", None, 1), ("x", ">", None), ("", ">", 1)])
def test_what_is_missing(args: tuple[Any, ...]) -> None:
    with pytest.raises(UserWarning, match="requires valid PV, comparison, and trip_point"):
        Alarm(*args)
