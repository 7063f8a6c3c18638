"""What PV.get, .value and .char_value answer, by record type and number of elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import wait_until

from epicsx import _polling, caput
from epicsx.pv import PV
from epicsx.testing import SoftIOC


def connected(name: str, **options: Any) -> PV:
    pv = PV(name, **options)
    assert pv.wait_for_connection(5)
    return pv


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return (
            isinstance(found, np.ndarray)
            and found.dtype == expected.dtype
            and found.tolist() == expected.tolist()
        )
    return type(found) is type(expected) and found == expected


SCALARS = [
    ("ao", 1.5, "time_double"),
    ("double", None, "time_double"),
    ("longout", None, "time_long"),
    ("bo", None, "time_enum"),
    ("mbbo", None, "time_enum"),
    ("stringout", None, "time_string"),
    ("wf:float:1", 1.0, "time_float"),
    ("wf:short:1", 1, "time_short"),
    ("wf:ushort:1", 1, "time_long"),
    ("wf:uchar:1", 1, "time_char"),
    ("wf:int64:1", 1.0, "time_double"),
    ("wf:string:1", "s1", "time_string"),
]


@pytest.mark.parametrize(("record", "value", "kind"), SCALARS)
@pytest.mark.parametrize("monitored", [True, False])
def test_scalar(ioc: SoftIOC, record: str, value: Any, kind: str, monitored: bool) -> None:
    pv = connected(ioc[record], auto_monitor=monitored)
    found = pv.get()
    assert pv.type == pv.typefull == kind
    assert isinstance(found, (int, float, str))
    assert not isinstance(found, np.generic)
    assert pv.count == pv.nelm == 1
    assert pv.get(as_numpy=False) == found == pv.value
    if value is not None and record.startswith("wf"):
        assert same(found, value if record != "wf:string:1" else found)


ARRAYS = [
    ("char", np.uint8),
    ("uchar", np.uint8),
    ("short", np.int16),
    ("ushort", np.int32),
    ("long", np.int32),
    ("ulong", np.float64),
    ("float", np.float32),
    ("double", np.float64),
    ("enum", np.uint16),
]


@pytest.mark.parametrize(("kind", "dtype"), ARRAYS)
@pytest.mark.parametrize("monitored", [True, False])
def test_array(ioc: SoftIOC, kind: str, dtype: Any, monitored: bool) -> None:
    pv = connected(ioc[f"wf:{kind}:n"], auto_monitor=monitored)
    expected = np.arange(10, dtype=dtype)
    assert same(pv.get(), expected)
    assert same(pv.value, expected)
    assert pv.get(as_numpy=False) == expected.tolist()
    assert (pv.count, pv.nelm) == (10, 16)
    empty = connected(ioc[f"wf:{kind}:0"], auto_monitor=monitored)
    assert same(empty.get(), np.zeros(0, dtype))
    assert empty.get(as_numpy=False) == []
    assert empty.count == 0


def test_string_arrays(ioc: SoftIOC) -> None:
    pv = connected(ioc["wf:string:n"])
    texts = [f"s{i}" for i in range(10)]
    assert same(pv.get(), np.array(texts))
    assert pv.value == pv.char_value == pv.get(as_string=True) == pv.get(as_numpy=False) == texts
    empty = connected(ioc["wf:string:0"]).get()
    assert empty.dtype.kind == "U"  # pyepics: an empty array of float64
    assert empty.size == 0


def test_array_record_with_one_element(ioc: SoftIOC) -> None:
    pv = connected(ioc["w:double"])
    pv.put([2.5], wait=True)
    wait_until(lambda: pv.count == 1)
    assert same(pv.value, 2.5)  # kept from pyepics: bare where one element came
    assert same(pv.get(), np.array([2.5]))
    assert pv.get(as_numpy=False) == [2.5]
    text = connected(ioc["w:uchar"])
    text.put([72], wait=True)
    wait_until(lambda: text.count == 1)
    assert same(text.value, np.array([72], np.uint8))  # pyepics: a ctypes array
    assert text.get(as_numpy=False) == [72]
    assert text.char_value == "H"


def test_count_cuts_and_never_pads(ioc: SoftIOC) -> None:
    for monitored in (True, False):
        pv = connected(ioc["wf:double:n"], auto_monitor=monitored)
        assert pv.get(count=3).tolist() == [0, 1, 2]
        assert pv.get(count=100).tolist() == list(range(10))  # pyepics: zeros behind, for ever
        assert pv.get().tolist() == list(range(10))
    limited = connected(ioc["wf:double:n"], count=4)
    assert limited.get().tolist() == [0, 1, 2, 3]
    wait_until(lambda: limited.count == 4)
    assert limited.nelm == 16
    assert connected(ioc["wf:double:n"], count=4, auto_monitor=False).get().size == 4


def test_longer_data_after_a_short_monitored_value(ioc: SoftIOC) -> None:
    pv = connected(ioc["w:double"])
    pv.put([1.0, 2.0], wait=True)
    wait_until(lambda: pv.count == 2)
    pv.auto_monitor = False
    pv.put(np.arange(20.0), wait=True)
    assert pv.get().size == 20  # pyepics: two elements, for ever


@pytest.mark.parametrize(
    ("value", "precision", "text"),
    [
        (1.5, 3, "1.500"),
        (0.0, 3, "0"),
        (123456.789, 3, "1.23e+05"),
        (1e12, 0, "1e+12"),
        (-2.0, 0, "-2"),
        (1e-7, 3, "1e-07"),
    ],
)
def test_float_text(ioc: SoftIOC, value: float, precision: int, text: str) -> None:
    ioc.write("double.PREC", precision)
    ioc.write("double", value)
    pv = connected(ioc["double"], auto_monitor=False)
    assert pv.char_value == pv.get(as_string=True) == text


def test_texts(ioc: SoftIOC) -> None:
    enum = connected(ioc["mbbo"])
    enum.put("Two", wait=True)
    wait_until(lambda: enum.value == 2)
    assert enum.char_value == enum.get(as_string=True) == "Two"
    assert enum.enum_strs == ("Zero", "One", "Two", "Three")
    enum.put(9, wait=True)
    wait_until(lambda: enum.value == 9)
    assert enum.char_value == "9"
    enum.put(0, wait=True)
    assert connected(ioc["wf:double:n"]).char_value == "<array size=10, type=time_double>"
    assert connected(ioc["longout"], auto_monitor=False).char_value.lstrip("-").isdigit()
    chars = connected(ioc["w:char"])
    chars.put("Grüße  ", wait=True)
    wait_until(lambda: chars.char_value == "GrÃ¼Ã\x9fe")  # kept: bytes as latin-1
    assert PV("nobody:has:this", connection_timeout=0.05).char_value == "None"


def test_text_of_any_value(ioc: SoftIOC) -> None:
    pv = connected(ioc["ao"])
    assert pv._set_charval(2.25) == "2.250"


def test_undecodable_text(ioc: SoftIOC) -> None:
    pv = connected(ioc["latin1.DESC"])
    assert isinstance(pv.get(), str)
    assert "Temp" in pv.get()


def test_time_stamps(ioc: SoftIOC) -> None:
    pv = connected(ioc["udf"])
    assert (pv.get_timevars() or {})["timestamp"] == 631152000.0
    assert isinstance(pv.posixseconds, float)
    assert isinstance(pv.nanoseconds, int)
    assert (pv.severity, pv.char_severity, pv.char_status) == (3, "INVALID", "UDF")


def test_metadata(ioc: SoftIOC) -> None:
    pv = connected(ioc["ao"])
    pv.get()
    cached = pv.get_with_metadata()
    assert set(PV._fields) <= set(cached)
    assert len(cached) == 30
    time_keys = {"value", "status", "severity", "timestamp", "posixseconds", "nanoseconds"}
    assert set(pv.get_with_metadata(use_monitor=False)) == time_keys
    control = pv.get_with_metadata(form="ctrl")
    assert (control["units"], control["precision"], control["upper_disp_limit"]) == ("mm", 3, 100.0)
    assert "timestamp" not in control
    assert set(pv.get_with_metadata(form="native")) == {"value"}
    assert pv.get_with_metadata(as_namespace=True).value == cached["value"]
    assert pv.get_with_metadata(use_monitor=False, with_ctrlvars=True)["units"] == "mm"
    assert set(pv.get_ctrlvars() or ()) >= {"units", "precision", "severity", "upper_alarm_limit"}
    text = connected(ioc["stringout"])
    assert set(text.get_ctrlvars() or ()) == time_keys - {"value"}


def test_forms(ioc: SoftIOC) -> None:
    control = connected(ioc["mbbo"], form="ctrl")
    assert (control.type, control.ftype) == ("ctrl_enum", 31)
    assert control.enum_strs
    native = connected(ioc["ao"], form="native")
    assert (native.type, native.ftype) == ("double", 6)
    # read from the server it has no stamp at all; the monitor's first event brings that of the client, and this 0
    wait_until(lambda: native.value is not None and native._args["posixseconds"] == 0)
    assert connected(ioc["ao"], form="bogus").type == "double"
    assert connected(ioc["stringout"], form="ctrl").type == "time_string"


def test_fields_are_fetched_once(ioc: SoftIOC) -> None:
    pv = connected(ioc["ao"], auto_monitor=False)
    assert pv.enum_strs is None
    before = ioc.casr().channel_count
    for _ in range(3):
        assert pv.enum_strs is None
        assert pv.monitor_delta is None
        assert (pv.units, pv.precision, pv.upper_alarm_limit) == ("mm", 3, 90.0)
    assert ioc.casr().channel_count == before
    assert pv._core.peek_control() is not None


def test_value_of_an_unmonitored_pv_is_the_first_read(ioc: SoftIOC) -> None:
    pv = connected(ioc["double"], auto_monitor=False)
    pv.put(1.0, wait=True)
    first = pv.value
    pv.put(2.0, wait=True)
    assert pv.value == first == 1.0
    assert pv.get() == 2.0


def test_info(ioc: SoftIOC) -> None:
    pv = connected(ioc["ao"])
    pv.put(1.5, wait=True)
    wait_until(lambda: pv.value == 1.5)
    lines = str(pv.info).splitlines()
    assert lines[0] == f"== {ioc['ao']}  (time_double) =="
    assert lines[1:3] == ["   value           = 1.5", "   char_value      = '1.500'"]
    assert "   upper_ctrl_limit     = 100.0" in lines
    assert lines[-2:] == [
        "   PV is internally monitored, with 0 user-defined callbacks",
        "=" * 29,
    ]
    pv.add_callback(test_info)
    assert f"      test_info in file '{__file__}'" in str(pv.info)


@pytest.mark.parametrize(
    "record",
    ["wf:uchar:0", "wf:char:n", "wf:string:n", "wf:double:0", "wf:enum:n", "mbbo", "stringout"],
)
@pytest.mark.parametrize("monitored", [True, False])
def test_info_never_fails(ioc: SoftIOC, record: str, monitored: bool) -> None:
    text = str(connected(ioc[record], auto_monitor=monitored).info)
    assert "np." not in text
    assert ("NOT internally" in text) is not monitored


Behind = Callable[[Callable[[], Any]], None]


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Behind:
    """Have something done while the next thread that has the reply to its read stands still."""
    run = _polling.run

    def arm(step: Callable[[], Any]) -> None:
        def late() -> None:
            monkeypatch.setattr(_polling, "run", run)
            step()

        monkeypatch.setattr(_polling, "run", late)

    return arm


@pytest.fixture
def at_one(ioc: SoftIOC) -> str:
    """A record that holds 1."""
    caput(ioc["double"], 1.0, wait=True, timeout=5)
    return ioc["double"]


def becomes_two(pv: PV) -> None:
    caput(pv.pvname, 2.0, wait=True, timeout=5)
    wait_until(lambda: pv.get(timeout=5) == 2.0)


@pytest.mark.parametrize("monitored", [True, False], ids=["an update", "another read"])
@pytest.mark.parametrize("form", ["time", "ctrl"])
def test_what_came_behind_a_reply_is_not_undone_by_it(
    at_one: str, behind: Behind, monitored: bool, form: str
) -> None:
    pv = connected(at_one, auto_monitor=monitored, form=form)
    wait_until(lambda: pv.get() == 1.0)
    behind(lambda: becomes_two(pv))
    assert pv.get(timeout=5, use_monitor=False) == 1.0
    assert (pv._args["value"], float(pv._args["char_value"])) == (2.0, 2.0)
    if form == "time":
        fresh = pv.get_with_metadata(use_monitor=False, timeout=5)
        assert {k: pv._args[k] for k in fresh} == fresh
    assert pv.get() == pv.value == 2.0


def test_the_first_value_is_not_undone_either(at_one: str, behind: Behind) -> None:
    pv = connected(at_one, auto_monitor=False)

    def first_value() -> None:
        caput(at_one, 2.0, wait=True, timeout=5)
        assert pv.get_timevars(timeout=5) is not None

    behind(first_value)
    assert pv.get(timeout=5) == 1.0
    assert pv._args["value"] == 2.0


def test_a_read_is_one_answer_whatever_came_behind_it(at_one: str, behind: Behind) -> None:
    pv = connected(at_one)
    wait_until(lambda: pv.get() == 1.0)
    before = pv.get_with_metadata(use_monitor=False, timeout=5)
    behind(lambda: becomes_two(pv))
    found = pv.get_with_metadata(use_monitor=False, with_ctrlvars=True, timeout=5)
    assert {k: found[k] for k in before} == before
    assert (float(found["char_value"]), found["units"]) == (1.0, pv.units)
    assert pv.value == 2.0


def test_the_alarm_of_a_form_whose_events_bring_none(at_one: str, behind: Behind) -> None:
    pv = connected(at_one, form="native")
    wait_until(lambda: pv.get() == 1.0)
    behind(lambda: becomes_two(pv))
    assert pv.get_timevars(timeout=5) is not None
    assert (pv._args["status"], pv._args["severity"], pv.get()) == (0, 0, 2.0)


def test_what_was_read_is_not_undone_by_the_older_update_of_a_monitor_that_others_had(
    at_one: str,
) -> None:
    others, pv = connected(at_one), connected(at_one, auto_monitor=False)
    wait_until(lambda: others.get() == 1.0)
    caput(f"{at_one}.MDEL", 5.0, wait=True, timeout=5)
    try:
        caput(at_one, 2.0, wait=True, timeout=5)
        assert pv.get(timeout=5) == 2.0
        pv.auto_monitor = True
        assert (pv.get(), others.get()) == (2.0, 1.0)
        caput(at_one, 9.0, wait=True, timeout=5)
        wait_until(lambda: pv.get() == others.get() == 9.0)
    finally:
        caput(f"{at_one}.MDEL", 0.0, wait=True, timeout=5)
