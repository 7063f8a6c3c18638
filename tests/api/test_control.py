"""Channel.control: fetched once, when asked for, and kept up to date by the server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
from support import wait_until

from epicsx import Channel, Control
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


def _has(channel: Channel, attribute: str, value: object) -> bool:
    return bool(getattr(channel.control(), attribute) == value)


LIMITS = [
    f"{side}_{kind}_limit"
    for kind in ("disp", "alarm", "warning", "ctrl")
    for side in ("lower", "upper")
]


def test_a_float_has_units_precision_and_limits(ioc: SoftIOC) -> None:
    with Channel(ioc["ao"]) as channel:
        control = channel.control()
        assert (control.units, control.precision, control.enum_strings) == ("mm", 3, None)
        found = [getattr(control, name) for name in LIMITS]
        assert found == [-100.0, 100.0, -90.0, 90.0, -80.0, 80.0, -100.0, 100.0]


def test_an_integer_has_no_precision(ioc: SoftIOC) -> None:
    with Channel(ioc["longout"]) as channel:
        control = channel.control()
        assert (control.units, control.precision) == ("counts", None)
        assert (control.lower_disp_limit, control.upper_disp_limit) == (-1000, 1000)
        assert isinstance(control.upper_disp_limit, int)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ("mbbo", ("Zero", "One", "Two", "Three")),
        ("bo", ("Off", "On")),
        ("mbbo16", tuple(f"S{n}" for n in range(16))),
    ],
)
def test_an_enum_has_names(ioc: SoftIOC, record: str, names: tuple[str, ...]) -> None:
    with Channel(ioc[record]) as channel:
        control = channel.control()
        assert control.enum_strings == names
        assert (control.units, control.precision, control.upper_ctrl_limit) == (None, None, None)


@pytest.mark.parametrize("kind", ["char", "short", "long", "float", "double", "enum", "string"])
@pytest.mark.parametrize("size", ["0", "1", "n"])
def test_every_type_answers(ioc: SoftIOC, kind: str, size: str) -> None:
    with Channel(ioc[f"wf:{kind}:{size}"]) as channel:
        control = channel.control()
        if kind == "string":
            assert control == Control()
        elif kind == "enum":
            assert control.enum_strings is not None
        else:
            assert isinstance(control.units, str)
            assert (control.precision is not None) is (kind in ("float", "double"))
            assert control.upper_ctrl_limit is not None


def test_a_control_is_frozen_and_the_same_until_it_changes(ioc: SoftIOC) -> None:
    with Channel(ioc["ao"]) as channel:
        control = channel.control()
        assert channel.control() is control
        with pytest.raises(AttributeError):
            setattr(control, "units", "km")  # noqa: B010


def test_nothing_is_asked_before_it_is_needed(ioc: SoftIOC) -> None:
    name = ioc["bulk:0011"]
    with Channel(name) as channel:
        channel.get()
        assert ioc.casr().monitors.get(name, 0) == 0
        channel.control()
        assert ioc.casr().monitors[name] == 1
        with Channel(name) as other:
            other.control()
            assert ioc.casr().monitors[name] == 1


def test_threads_that_ask_at_once_share_one_question(ioc: SoftIOC) -> None:
    name = ioc["bulk:0012"]
    found: list[Control] = []
    with Channel(name) as channel:
        channel.connect()
        ready = threading.Barrier(8)

        def ask() -> None:
            ready.wait(5.0)
            found.append(channel.control())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
        assert len(found) == 8
        assert ioc.casr().monitors[name] == 1


@pytest.mark.parametrize(
    ("field", "attribute", "values"),
    [
        (".EGU", "units", ("km", "mm")),
        (".HOPR", "upper_disp_limit", (50.0, 100.0)),
        (".HIHI", "upper_alarm_limit", (95.0, 90.0)),
        (".PREC", "precision", (5, 3)),
    ],
)
def test_a_change_of_a_property_arrives(
    ioc: SoftIOC, field: str, attribute: str, values: tuple[object, object]
) -> None:
    with Channel(ioc["ao"]) as channel, Channel(ioc["ao"] + field) as writer:
        assert getattr(channel.control(), attribute) == values[1]
        for value in values:
            writer.put(value, wait=True)
            wait_until(partial(_has, channel, attribute, value))


def test_a_change_of_a_state_name_counts_for_the_next_put(ioc: SoftIOC) -> None:
    with Channel(ioc["mbbo"]) as channel, Channel(ioc["mbbo"] + ".TWST") as writer:
        channel.put("Two", wait=True)
        assert channel.get().value == 2
        writer.put("Zwei", wait=True)
        try:
            wait_until(lambda: "Zwei" in (channel.control().enum_strings or ()))
            channel.put("One", wait=True)
            channel.put("Zwei", wait=True)
            assert channel.get().value == 2
        finally:
            writer.put("Two", wait=True)


def test_control_is_fresh_after_a_reconnect_also_with_another_type(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    before = 'record(ao, "$(P)x") { field(EGU, "mm") } record(ao, "$(P)y") { field(EGU, "mm") }'
    after = """
    record(ao, "$(P)x") { field(EGU, "km") field(PREC, "4") }
    record(mbbo, "$(P)y") { field(ZRST, "A") field(ONST, "B") }
    """
    ioc = spare_ioc(before)
    with Channel(ioc["x"]) as same, Channel(ioc["y"]) as other:
        assert same.control().units == other.control().units == "mm"
        ioc.kill()
        wait_until(lambda: not same.connected and not other.connected)
        ioc.restart(after)
        same.connect(30.0)
        other.connect(30.0)
        control = same.control()
        assert (control.units, control.precision) == ("km", 4)
        assert other.control().enum_strings == ("A", "B")
        other.put("B", wait=True)
        assert other.get().value == 1
