"""All 39 types of Channel Access by `ca` and `dbr`, also those that pyepics leaves out."""

from __future__ import annotations

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
