"""All 39 types of Channel Access by `ca` and `dbr`, also those that pyepics leaves out."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from support import wait_until

from epicsx import ca, dbr
from epicsx.enums import DBR
from epicsx.testing import SoftIOC


def look(chid: Any, ftype: int) -> Any:
    return ca.get_with_metadata(chid, ftype=ftype)


def read(ioc: SoftIOC, name: str, ftype: int) -> Any:
    return look(ca.create_channel(ioc[name], connect=True), ftype)


def test_sts_has_the_alarm(ioc: SoftIOC) -> None:
    for ftype in (dbr.STS_STRING, dbr.STS_SHORT, dbr.STS_FLOAT, dbr.STS_LONG, dbr.STS_DOUBLE):
        found = read(ioc, "longin", ftype)
        assert set(found) == {"value", "status", "severity"}, ftype
        assert float(found["value"]) == -3
        assert (found["status"], found["severity"]) == (0, 0)
    assert read(ioc, "udf", dbr.STS_DOUBLE)["status"] == dbr.AlarmStatus.UDF
    assert read(ioc, "mbbi", dbr.STS_ENUM)["value"] == 2


def test_gr_has_limits_and_units(ioc: SoftIOC) -> None:
    found = read(ioc, "ao", dbr.GR_DOUBLE)
    assert found["units"] == "mm"
    assert found["precision"] == 3
    assert (found["upper_disp_limit"], found["lower_alarm_limit"]) == (100.0, -90.0)
    assert "upper_ctrl_limit" not in found
    assert read(ioc, "mbbi", dbr.GR_ENUM)["enum_strs"] == ("Zero", "One", "Two", "Three")
    assert set(read(ioc, "stringin", dbr.GR_STRING)) == {"value", "status", "severity"}
    assert read(ioc, "longout", dbr.GR_LONG)["units"] == "counts"


def test_the_record_type_and_the_acknowledgement(ioc: SoftIOC) -> None:
    assert read(ioc, "ao", dbr.CLASS_NAME) == {"value": "ao"}
    assert read(ioc, "wf:double:n", dbr.CLASS_NAME) == {"value": "waveform"}
    found = read(ioc, "longin", dbr.STSACK_STRING)
    assert found == {"value": "-3", "status": 0, "severity": 0, "ackt": 1, "acks": 0}


def test_an_alarm_is_acknowledged(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    before = ca.get(chid)
    try:
        ca.put(chid, 95.0, wait=True)
        ca.put(chid, 1.0, wait=True)
        assert look(chid, dbr.STSACK_STRING)["acks"] == 2
        assert ca.put(chid, 2, ftype=dbr.PUT_ACKS) == 1
        wait_until(lambda: look(chid, dbr.STSACK_STRING)["acks"] == 0)
        assert ca.put(chid, 0, ftype=dbr.PUT_ACKT, wait=True) == 1
        assert look(chid, dbr.STSACK_STRING)["ackt"] == 0
    finally:
        ca.put(chid, 1, ftype=dbr.PUT_ACKT, wait=True)
        ca.put(chid, before, wait=True)


def test_a_put_in_another_type(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["mbbo"], connect=True)
    assert ca.put(chid, "Two", wait=True, ftype=dbr.STRING) == 1
    assert ca.get(chid) == 2
    assert ca.put(chid, 1.0, wait=True, ftype=dbr.DOUBLE) == 1
    assert ca.get(chid) == 1
    for wrong in (dbr.TIME_DOUBLE, dbr.CLASS_NAME, 99, -7):
        with pytest.raises(ca.CASeverityException, match="data type specif"):
            ca.put(chid, 1, ftype=wrong)
    with pytest.raises(ca.ChannelAccessGetFailure, match="status code: 152"):
        ca.get(chid, ftype=dbr.PUT_ACKT)


@pytest.mark.parametrize(
    "ftype", [dbr.STS_DOUBLE, dbr.GR_DOUBLE, dbr.STSACK_STRING, dbr.CLASS_NAME]
)
def test_subscriptions(ioc: SoftIOC, ftype: int) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    events: list[dict[str, Any]] = []
    _, _, handle = ca.create_subscription(chid, ftype=ftype, callback=lambda **k: events.append(k))
    wait_until(lambda: events)
    ca.clear_subscription(handle)
    assert events[0]["ftype"] == ftype
    known = look(chid, ftype)
    assert {key: events[0][key] for key in known if key != "value"} == {
        key: known[key] for key in known if key != "value"
    }
    if ftype == dbr.CLASS_NAME:
        assert events[0]["value"] == "ao"


def test_numbers_of_the_types_are_those_of_enums() -> None:
    for kind in DBR.__members__:
        assert getattr(dbr, kind) == DBR[kind], kind


def test_base_type() -> None:
    assert [dbr.base_type(t) for t in range(35)] == 5 * list(range(7))
    assert [dbr.base_type(t) for t in (35, 36, 37, 38)] == [dbr.ENUM, dbr.ENUM, 0, 0]


def test_names_of_types() -> None:
    assert [dbr.Name(t) for t in (1, 6, 15, 20, 29, 34, 99)] == [
        *("INT", "DOUBLE", "TIME_SHORT", "TIME_DOUBLE", "CTRL_SHORT", "CTRL_DOUBLE", "unknown")
    ]
    assert dbr.Name("time_Double", reverse=True) == dbr.TIME_DOUBLE
    assert dbr.Name("bogus", reverse=True) == "unknown"
    assert [dbr.native_type(t) for t in (3, 17, 31)] == [3, 3, 3]


def test_alarms_have_names_and_others_are_unknown() -> None:
    assert repr(dbr.AlarmStatus(17)) == "UDF"
    assert repr(dbr.AlarmSeverity(2)) == "MAJOR"
    assert (dbr.AlarmStatus(99).name, int(dbr.AlarmStatus(99))) == ("UNKNOWN", 99)
    other: Any = dbr.AlarmSeverity("x")  # type: ignore[arg-type]
    assert (other.name, other.value, int(other)) == ("UNKNOWN", "x", 0)


def test_c_events_are_taken_apart() -> None:
    event = dbr.Map[dbr.TIME_DOUBLE]()
    event.severity, event.stamp.secs, event.stamp.nsec, event.value = 2, 10, 5_999, 1.25
    args = dbr.event_handler_args(type=dbr.TIME_DOUBLE, count=1)
    args.raw_dbr = ctypes.addressof(event)
    header, values = dbr.cast_args(args)
    assert (header.severity, list(values)) == (2, [1.25])
    assert dbr.make_unixtime(header.stamp) == dbr.EPICS2UNIX_EPOCH + 10 + 5e-6
    plain = (dbr.int_t * 3)(1, 2, 3)
    args = dbr.event_handler_args(type=dbr.LONG, count=3, raw_dbr=ctypes.addressof(plain))
    header, values = dbr.cast_args(args)
    assert (header, list(values)) == (None, [1, 2, 3])
    assert dbr.cast_args(dbr.event_handler_args(type=99)) == [None, None]


def test_a_c_callback_gets_its_structure() -> None:
    seen: list[int] = []
    call = dbr.make_callback(lambda args: seen.append(args.op), dbr.connection_args)
    call(dbr.connection_args(chid=1, op=dbr.OP_CONN_UP))
    assert seen == [dbr.OP_CONN_UP]


def test_decorators(ioc: SoftIOC) -> None:
    @ca.withConnectedCHID
    def must(chid: Any, timeout: float | None = None) -> str:
        return ca.name(chid)

    @ca.withMaybeConnectedCHID
    def may(chid: Any, timeout: float | None = None) -> str:
        return ca.name(chid)

    @ca.withInitialContext
    def where() -> Any:
        return ca.current_context()

    @ca.withSEVCHK
    def status(code: int) -> int:
        return code

    chid, missing = ca.create_channel(ioc["ao"]), ca.create_channel(ioc["nobody"])
    assert must(chid) == may(chid) == ioc["ao"]
    assert may(missing, timeout=0.05) == ioc["nobody"]
    with pytest.raises(ca.ChannelAccessException, match=r"must\(\) timed out waiting"):
        must(missing, timeout=0.05)
    before: Any = ca.current_context()
    ca.detach_context()
    assert where() == ca.initial_context
    assert ca.current_context() is None
    ca.attach_context(before)
    assert ca.attach_context(before) == dbr.ECA_ISATTACHED
    assert status(dbr.ECA_NORMAL) == 1
    with pytest.raises(ca.CASeverityException, match="status returned"):
        status(dbr.ECA_TIMEOUT)
