"""Device: PVs by attributes, states, and attributes that are not there."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run_python, takes, wait_until

import epicsx
from epicsx import pv as pv_module
from epicsx.device import Device
from epicsx.errors import CATimeoutError
from epicsx.functional import caput_many
from epicsx.testing import SoftIOC

MISSES = Device._grace + 0.25  # seconds in which a name that is none must have been refused

WRITTEN = {
    "ao": -2.25,
    "longout": 7,
    "mbbo": 2,
    "bo": 1,
    "stringout": "two words",
    "w:char": "many words,\nin two lines",
}


def prepared(ioc: SoftIOC) -> Device:
    """Not a fixture: pytest would keep it alive while the leak test runs."""
    values = {**WRITTEN, "w:short": list(range(10))}
    # By channels that nobody monitors yet: so no monitor has the values before still to tell.
    names = [ioc[name] for name in values]
    assert caput_many(names, list(values.values()), wait="all") == [1] * len(names)
    return Device(ioc.prefix, attrs=[*values, "readonly"])


def within(seconds: float, attempt: Callable[[], object]) -> None:
    """Fail if it takes longer, five times."""
    takes(0.0, seconds, attempt)


def same(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and bool(np.all(found == wanted))


def test_by_attribute_and_by_name(ioc: SoftIOC) -> None:
    dev = Device(ioc["ao"], delim=".")
    dev.VAL = 3.5
    wait_until(lambda: dev.VAL == 3.5)
    assert dev.put("VAL", 4.5, wait=True) == 1
    wait_until(lambda: dev.get("VAL") == 4.5)
    assert dev.get("VAL", as_string=True) == "4.500"
    assert dev.EGU == "mm"
    assert dev.PV("PREC").pvname == ioc["ao.PREC"]
    assert list(dev._pvs) == ["VAL", "EGU", "PREC"]
    assert repr(dev) == f"<Device '{ioc['ao']}', 3 attributes>"
    assert dev.put("VAL", 5, use_complete=True) == 1
    wait_until(lambda: dev.PV("VAL").put_complete is True)


def test_attributes_given_at_first_connect_together(ioc: SoftIOC) -> None:
    names = [f"bulk:{i:04d}" for i in range(100, 300)]
    assert caput_many([ioc[name] for name in names], range(100, 300), wait="all") == [1] * 200
    dev = Device(ioc.prefix, attrs=names, timeout=3.0)
    assert all(dev._pvs[name].connection_timeout == 3.0 for name in names)
    assert [dev.get_all()[name] for name in names] == list(range(100, 300))
    assert (dev._prefix, dev._delim, dev._init, dev._mutable) == (ioc.prefix, "", True, True)
    assert dev._aliases == {}
    assert set(Device._nonpvs) <= set(dev._nonpvs)


def test_aliases(ioc: SoftIOC) -> None:
    dev = Device(ioc["ao"], delim=".", aliases={"units": "EGU", "value": "VAL"}, attrs=("VAL",))
    assert sorted(dev._pvs) == ["EGU", "VAL"]
    assert dev.units == dev.EGU == dev.get("units") == "mm"
    dev.value = -1.5
    wait_until(lambda: dev.VAL == -1.5)
    assert dev.PV("value") is dev._pvs["VAL"]
    assert {"units", "value", "EGU", "_pvs", "get_all", "_aliases"} <= set(dir(dev))


def test_a_container_of_any_pvs(ioc: SoftIOC) -> None:
    class Mine(Device):
        def __init__(self) -> None:
            Device.__init__(self)

    dev = Mine()
    assert dev.put(ioc["ao.VAL"], 2, wait=True) == 1
    assert dev.get(ioc["ao.EGU"]) == "mm"
    added = dev.add_pv(ioc["double"], attr="other")
    assert dev.add_pv(ioc["longout"]) is dev._pvs[ioc["longout"]]
    assert added is dev.PV("other")
    dev.other = 17.0
    wait_until(lambda: dev.other == 17.0)


def test_callbacks(ioc: SoftIOC, calls: Any) -> None:
    dev = Device(ioc.prefix)
    dev.put("longout", 1, wait=True)
    index = dev.add_callback("longout", calls, mine=3)
    dev.longout = 2
    wait_until(lambda: calls and calls[-1]["value"] == 2)
    assert calls[-1]["mine"] == 3
    assert calls[-1]["pvname"] == ioc["longout"]
    dev.remove_callbacks("longout", index)
    assert dev.PV("longout").callbacks == {}


# ------------------------------------------------------------------- misses


@pytest.mark.parametrize("delim", [".", ""])
def test_a_name_that_is_none_is_refused_soon_and_leaves_nothing(ioc: SoftIOC, delim: str) -> None:
    dev = Device(ioc["ao"], delim=delim, attrs=("" if delim == "" else "VAL",))

    def misses(call: Callable[[], object]) -> None:
        with pytest.raises(AttributeError, match=r"^Device has no attribute NOPE$"):
            call()

    within(MISSES, lambda: misses(lambda: dev.NOPE))
    within(MISSES, lambda: misses(lambda: setattr(dev, "NOPE", 3)))
    assert not hasattr(dev, "NOPE")
    assert len(dev._pvs) == 1
    assert not any("NOPE" in key[0] for key in pv_module._PVcache_)
    assert len(dev.save_state()) == 1


def test_the_record_tells_that_the_server_is_there(ioc: SoftIOC) -> None:
    def misses() -> None:
        dev = Device(ioc["ao"], delim=".", timeout=30.0)  # no PV of it is connected yet
        with pytest.raises(AttributeError):
            _ = dev.NOPE
        assert dev._pvs == {}

    within(MISSES, misses)


def test_without_any_server_the_timeout_counts() -> None:
    dev = Device("nobody:has:this:", timeout=0.2)

    def misses() -> None:
        assert not hasattr(dev, "x")

    takes(0.2, 0.5, misses)
    assert dev._pvs == {}


def test_what_python_asks_for_by_itself_is_never_searched(ioc: SoftIOC) -> None:
    dev = prepared(ioc)

    def asked() -> None:
        for name in (
            "_repr_html_",
            "_ipython_canary_method_should_not_exist_",
            "__array__",
            "__deepcopy__",
        ):
            assert not hasattr(dev, name)
        with pytest.raises(AttributeError):
            dev.__nothing__ = 3
        twin = copy.copy(dev)
        for spoil in (copy.deepcopy, pickle.dumps):
            with pytest.raises(ValueError, match="holds a channel"):
                spoil(dev)
        assert twin._pvs is dev._pvs

    within(0.2, asked)
    assert copy.copy(dev).ao == dev.ao == WRITTEN["ao"]


def test_not_mutable(ioc: SoftIOC) -> None:
    dev = Device(ioc["ao"], delim=".", attrs=("VAL",), mutable=False)

    def refused() -> None:
        with pytest.raises(AttributeError):
            _ = dev.EGU
        with pytest.raises(AttributeError):
            dev.EGU = "m"

    within(0.2, refused)
    dev.VAL = 8
    wait_until(lambda: dev.VAL == 8)
    assert dev.get("EGU") == "mm"  # by name it is still made
    assert dev.EGU == "mm"


def answers(call: Callable[[], object], answer: object) -> None:
    assert call() == answer


def test_unconnected_attributes_answer_none() -> None:
    dev = Device("nobody:has:", attrs=("a", "b", "c"), timeout=0.2)
    for seconds, call, answer in (
        (0.5, dev.get_all, {"a": None, "b": None, "c": None}),
        (0.4, partial(dev.put, "a", 1), None),
        (0.4, lambda: dev.a, None),
    ):
        within(seconds, partial(answers, call, answer))
    dev.restore_state({"a": 1})
    epicsx.strict()
    try:
        with pytest.raises(CATimeoutError, match="cannot connect to nobody:has:a"):
            dev.get_all()
        with pytest.raises(CATimeoutError):
            _ = dev.a
    finally:
        epicsx.strict(False)


# --------------------------------------------------------- plain attributes


def test_plain_attributes(ioc: SoftIOC) -> None:
    class Mine(Device):
        _nonpvs = ("_prefix", "_pvs", "_delim", "label")
        limit = 3
        units = Device.pv_property("EGU")
        text = Device.pv_property("VAL", as_string=True, wait=True)

        def __init__(self, name: str) -> None:
            self.label = "kept"
            self.other = "dropped, as it is not in _nonpvs"
            Device.__init__(self, name, delim=".", nonpvs=["mark"])

        @property
        def broken(self) -> Any:
            raise AttributeError("inside")

    dev = Mine(ioc["ao"])
    assert dev.label == "kept"
    assert "other" not in dev.__dict__
    dev.mark = 5
    assert dev.__dict__["mark"] == 5
    dev.limit = 4
    assert (dev.limit, Mine.limit) == (4, 3)
    assert dev.units == "mm"
    dev.text = 6.125
    wait_until(lambda: dev.text == "6.125")
    assert sorted(dev._pvs) == ["EGU", "VAL"]

    def fails() -> None:
        with pytest.raises(AttributeError, match="Mine has no attribute broken"):
            _ = dev.broken

    within(0.1, fails)
    dev.__dict__["direct"] = 1
    dev.direct = 2
    assert dev.direct == 2
    assert Mine(ioc["longout"])._nonpvs is not dev._nonpvs


def test_property_of_pyepics_form(ioc: SoftIOC) -> None:
    class Both(Device):
        value = Device.pv_property("VAL", wait=True)

    dev = Both(ioc["longout"], delim=".")
    within(1.0, lambda: setattr(dev, "value", 12))
    wait_until(lambda: dev.value == 12)
    assert ioc.read("longout") == "12"
    assert list(dev._pvs) == ["VAL"]


# ------------------------------------------------------------------- states


def test_save_and_restore(ioc: SoftIOC) -> None:
    dev = prepared(ioc)
    state = dev.save_state()
    assert {name: state[name] for name in WRITTEN} == WRITTEN
    assert state["w:short"].tolist() == list(range(10))
    assert state["readonly"] == 4
    for name, value in {"ao": 0, "mbbo": 0, "stringout": "", "w:char": "x"}.items():
        dev.put(name, value, wait=True)
    dev.restore_state({**state, "not:an:attribute": 1, "bo": None})
    wait_until(lambda: ioc.read("ao") == "-2.25")
    wait_until(lambda: {name: dev.get_all()[name] for name in WRITTEN} == WRITTEN)


def test_to_a_file_and_back(ioc: SoftIOC, tmp_path: Path) -> None:
    dev = prepared(ioc)
    dev.put("stringout", '"so"', wait=True)
    wanted = {**WRITTEN, "stringout": '"so"'}
    wait_until(lambda: dev.stringout == '"so"' and dev.ao == -2.25)
    path = tmp_path / "state.txt"
    dev.write_state(str(path))
    lines = path.read_text().splitlines()
    assert lines[0].startswith(f"#Device Saved State for Device,prefix='{ioc.prefix}',time=")
    assert lines[1:] == [
        "ao -2.25",
        "bo 1",
        "longout 7",
        "mbbo 2",
        r'stringout "\"so\""',
        r'w:char "many words,\nin two lines"',
    ]
    for name in wanted:
        dev.put(name, 0 if name not in ("stringout", "w:char") else "", wait=True)
    state = dev.read_state(path)
    assert state == wanted
    assert all(same(state[name], wanted[name]) for name in wanted)
    assert ioc.read("longout") == "0"
    assert dev.read_state(path, restore=True) == wanted
    wait_until(lambda: {name: dev.get_all()[name] for name in WRITTEN} == wanted)


def test_a_file_by_other_hands(ioc: SoftIOC, tmp_path: Path) -> None:
    dev = prepared(ioc)
    path = tmp_path / "state.txt"
    path.write_text(
        '#Device Saved State\n\nunknown 3\nmbbo One\nstringout plain words\nw:char "half\nao 1e3'
    )
    wanted = {"mbbo": "One", "stringout": "plain words", "w:char": '"half', "ao": 1000.0}
    assert dev.read_state(path, restore=True) == wanted
    wait_until(lambda: dev.PV("mbbo").get(as_string=True, use_monitor=False) == "One")
    dev.write_state(path, {"ao": 1, "unknown": 2, "bo": None, "readonly": 5})
    assert path.read_text().splitlines()[1:] == ["ao 1"]


def test_states_of_all_kinds_of_pvs(ioc: SoftIOC) -> None:
    ioc.write("double", 2)
    dev = Device(ioc.prefix)
    dev.add_pv(ioc["double"], "unmonitored", auto_monitor=False)
    dev.add_pv(ioc["wf:long:n"], "first", count=3, auto_monitor=False)
    dev.add_pv(ioc["wf:char:n"], "control", form="ctrl")
    dev.add_pv(ioc["wf:char:1"], "one", auto_monitor=False)
    dev.add_pv(ioc["noaccess"], "hidden")
    dev._pvs["none"] = None
    state = dev.save_state()
    assert set(state) == {"unmonitored", "first", "control", "one", "hidden"}
    assert state["unmonitored"] == 2
    assert state["first"].tolist() == [0, 1, 2]
    assert (state["one"], state["hidden"]) == (1, None)
    assert isinstance(state["control"], str)


def test_a_states_file_of_pyepics_can_be_read(ioc: SoftIOC, tmp_path: Path) -> None:
    dev = prepared(ioc)
    path = tmp_path / "state.txt"
    script = f"""
        import sys
        from epics import Device
        dev = Device({ioc.prefix!r}, attrs=("ao", "longout", "mbbo", "stringout"), timeout=15)
        for attr in list(dev._pvs):
            assert dev.PV(attr).connected
        dev.write_state({str(path)!r})
    """
    run_python(script, env=ioc.env)
    wanted = {name: WRITTEN[name] for name in ("ao", "longout", "mbbo", "stringout")}
    assert dev.read_state(path) == wanted


def test_in_a_callback(ioc: SoftIOC) -> None:
    dev = Device(ioc.prefix, attrs=("longout",))
    found: list[Any] = []

    def callback(value: Any = None, **kwds: Any) -> None:
        found.append((dev.ao, hasattr(dev, "nope"), dev.get_all()["longout"]))

    dev.put("longout", 1, wait=True)
    dev.put("ao", 2, wait=True)
    index = dev.add_callback("longout", callback)
    values = iter(range(5, 10))

    def told() -> None:
        value = next(values)
        dev.longout = value
        wait_until(lambda: found and found[-1][2] == value)
        assert found[-1] == (2, False, value)

    within(5.0, told)
    dev.remove_callbacks("longout", index)


def test_a_server_that_comes_later(spare_ioc: Callable[..., SoftIOC]) -> None:
    dev = Device("LATE:", attrs=("x",), timeout=0.05)
    assert not hasattr(dev, "y")
    spare_ioc('record(ao, "$(P)x") {} record(ao, "$(P)y") {}', prefix="LATE:")
    wait_until(lambda: dev.PV("x").connected, 30)
    wait_until(lambda: hasattr(dev, "y"))  # each time it is given no more than 0.05 s
    assert dev.y == 0
    assert sorted(dev._pvs) == ["x", "y"]
