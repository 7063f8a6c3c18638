"""CaChannel, its module `ca`, and epicsPV."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import idle, wait_until
from support.monitors import dispatcher_held, heard

import epicsx
from epicsx.compat import CaChannel as module
from epicsx.compat.CaChannel import CaChannel, CaChannelException, ca
from epicsx.compat.epicsPV import epicsPV
from epicsx.testing import SoftIOC

number: Any = ca  # its constants are made from tables


@pytest.fixture
def channel(ioc: SoftIOC) -> Iterator[Callable[[str], CaChannel]]:
    made: list[CaChannel] = []

    def connect(name: str) -> CaChannel:
        made.append(CaChannel())
        made[-1].searchw(ioc[name])
        return made[-1]

    yield connect
    for each in made:
        each.clear_channel()


Connect = Callable[[str], CaChannel]


def test_the_calls_that_wait(ioc: SoftIOC, channel: Connect) -> None:
    ioc.write("double.PREC", 6)
    double = channel("double")
    double.putw(12.5)
    assert double.getw() == 12.5
    double.putw("3.5")
    assert double.getw(number.DBR_STRING) == "3.500000"
    assert double.getw(number.DBR_LONG) == 3
    enum = channel("mbbo")
    enum.putw("Two")
    assert (enum.getw(), enum.getw(number.DBR_STRING)) == (2, "Two")
    text = channel("stringout")
    text.putw("a text")
    assert text.getw() == "a text"
    wave = channel("w:long")
    wave.putw((1, 2, 3))
    assert wave.getw() == [1, 2, 3]
    assert wave.getw(count=2) == [1, 2]
    assert isinstance(wave.getw(use_numpy=True), np.ndarray)
    wave.array_put([4, 5, 6], None, 2)
    assert wave.getw() == [4, 5]
    chars = channel("w:char")
    chars.putw("123")
    assert chars.getw(count=3) == [49, 50, 51]
    assert chars.getw(number.DBR_STRING) == "123"
    assert chars.getw(number.DBR_TIME_STRING)["pv_value"] == "123"
    strings = channel("w:string")
    strings.putw(["string 1", "string 2"])
    assert strings.getw() == ["string 1", "string 2"]


def test_request_types(ioc: SoftIOC, channel: Connect) -> None:
    ao = channel("ao")
    ao.putw(85.0)
    assert ao.getw(number.DBR_STS_DOUBLE) == {"pv_value": 85.0, "pv_status": 4, "pv_severity": 1}
    stamped = ao.getw(ca.dbf_type_to_DBR_TIME(ao.field_type()))  # type: ignore[operator]
    since_1990 = epicsx.Channel(ioc["ao"]).get().timestamp - ca.POSIX_TIME_AT_EPICS_EPOCH
    assert stamped["pv_seconds"] == int(since_1990)
    assert set(stamped) == {"pv_value", "pv_status", "pv_severity", "pv_seconds", "pv_nseconds"}
    control = ao.getw(number.DBR_CTRL_DOUBLE)
    assert control["pv_units"] == "mm"
    assert control["pv_precision"] == 3
    assert (control["pv_updislim"], control["pv_lodislim"]) == (100.0, -100.0)
    assert (control["pv_upalarmlim"], control["pv_loalarmlim"]) == (90.0, -90.0)
    assert (control["pv_upwarnlim"], control["pv_lowarnlim"]) == (80.0, -80.0)
    assert (control["pv_upctrllim"], control["pv_loctrllim"]) == (100.0, -100.0)
    graphic = ao.getw(number.DBR_GR_DOUBLE)
    assert set(control) - set(graphic) == {"pv_upctrllim", "pv_loctrllim"}
    enum = channel("mbbo").getw(number.DBR_CTRL_ENUM)
    assert (enum["pv_nostrings"], enum["pv_statestrings"][1]) == (4, "One")
    assert ao.getw(number.DBR_CLASS_NAME) == {"pv_value": "ao"}
    assert channel("stringin").getw(number.DBR_CTRL_STRING)["pv_value"] == "text in"


def test_many_at_once_by_pend_io(ioc: SoftIOC, channel: Connect) -> None:
    many = [CaChannel(ioc[f"bulk:{i:04d}"]) for i in range(20)]
    for each in many:
        each.search()
    many[0].pend_io()
    assert [each.state() for each in many] == [number.cs_conn] * 20
    for i, each in enumerate(many):
        each.array_put(i)
        each.array_get()
    many[7].pend_io(5.0)
    assert [each.getValue() for each in many] == list(range(20))
    for each in many:
        each.clear_channel()
    assert many[0].state() == number.cs_never_search


def test_facts(ioc: SoftIOC, channel: Connect) -> None:
    readonly = channel("readonly")
    assert (readonly.name(), readonly.field_type()) == (ioc["readonly"], number.DBF_DOUBLE)
    assert (readonly.read_access(), readonly.write_access()) == (True, False)
    assert (readonly.element_count(), channel("wf:long:n").element_count()) == (1, 16)
    assert ":" in readonly.host_name()
    assert readonly.pend_event(0.001) == readonly.poll() == number.ECA_TIMEOUT
    nobody = CaChannel(ioc["nobody"])
    assert (nobody.state(), nobody.field_type()) == (number.cs_never_search, ca.TYPENOTCONN)
    nobody.setTimeout(0.1)
    assert nobody.getTimeout() == 0.1
    with pytest.raises(CaChannelException, match="User specified timeout") as caught:
        nobody.searchw()
    assert int(caught.value) == caught.value.status == number.ECA_TIMEOUT
    assert nobody.state() == number.cs_never_conn
    for call in (nobody.getw, nobody.array_get, lambda: nobody.putw(1)):
        with pytest.raises(CaChannelException, match="disconnected"):
            call()
    nobody.clear_channel()
    with pytest.raises(CaChannelException):
        nobody.getw()
    nobody.setTimeout(None)
    assert nobody.getTimeout() == CaChannel.ca_timeout == 3.0
    with pytest.raises(ValueError):
        nobody.setTimeout(-1)


def test_errors_have_statuses(ioc: SoftIOC, channel: Connect) -> None:
    for name, value, status in (
        *(("readonly", 1, "ECA_NOWTACCESS"), ("longout", "many", "ECA_BADTYPE")),
        ("mbbo", "Nine", "ECA_BADSTR"),
    ):
        with pytest.raises(CaChannelException) as caught:
            channel(name).putw(value)
        assert caught.value.status in (getattr(number, status), number.ECA_BADCOUNT)
    with pytest.raises(CaChannelException) as caught:
        channel("noaccess").getw()
    assert caught.value.status == number.ECA_NORDACCESS


def test_callbacks(ioc: SoftIOC) -> None:
    told: list[Any] = []
    here = threading.current_thread()

    def callback(epics_args: Any, user_args: Any) -> None:
        told.append((epics_args, user_args))
        assert threading.current_thread() is not here

    chan = CaChannel()
    connected: list[Any] = []
    chan.search_and_connect(
        ioc["slow"], lambda args, user: connected.append((args, user)), 1, "two"
    )
    wait_until(lambda: connected)
    ((chid, op), user) = connected[0]
    assert (ca.name(chid), op, user) == (ioc["slow"], number.CA_OP_CONN_UP, (1, "two"))
    assert ca.state(chid) == number.cs_conn
    chan.array_put_callback(5.0, None, None, callback, "put")
    wait_until(lambda: told)
    args, user = told.pop()
    assert (args["status"], args["type"], args["count"], user) == (1, 6, 1, ("put",))
    chan.array_get_callback(number.DBR_CTRL_DOUBLE, None, callback, "get")
    wait_until(lambda: told)
    args, user = told.pop()
    assert (args["pv_value"], args["type"], args["status"]) == (5.0, number.DBR_CTRL_DOUBLE, 1)
    assert args["pv_precision"] == 0
    chan.add_masked_array_event(number.DBR_TIME_DOUBLE, None, None, callback, "event")
    wait_until(lambda: told)
    chan.putw(6.0)
    wait_until(lambda: len(told) == 2)
    assert [args["pv_value"] for args, _ in told] == [5.0, 6.0]
    assert told[1][0]["pv_nseconds"] >= 0
    chan.clear_event()
    access: list[Any] = []
    chan.replace_access_rights_event(lambda args, user: access.append((args, user)), "mine")
    wait_until(lambda: access)
    assert access[0][0]["write_access"] is True
    assert access[0][1] == "mine"
    chan.replace_access_rights_event(lambda args, user: access.append((args, user)), "another")
    assert [user for _, user in access] == ["mine", "another"]
    chan.replace_access_rights_event(None)
    chan.replace_access_rights_event()
    assert len(access) == 2
    chan.clear_channel()


def test_threads_that_read_by_one_channel(ioc: SoftIOC, channel: Connect) -> None:
    """Each gets what it has asked for."""
    ioc.write("double.PREC", 3)
    chan = channel("double")
    chan.putw(1.5)
    wrong: list[Any] = []

    def work(req_type: int | None, expected: Any) -> None:
        for _ in range(150):
            found = chan.getw(req_type)
            if found != expected:
                wrong.append(found)

    kinds = [(None, 1.5), (number.DBR_STRING, "1.500"), (number.DBR_LONG, 1), (None, 1.5)]
    threads = [threading.Thread(target=work, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert not wrong


def test_pend_io_of_another_thread(ioc: SoftIOC) -> None:
    """Each waits for what was begun before it, whoever waits for that too; and never for a put."""
    idle(ioc)
    one, two = CaChannel(ioc["nobody"]), CaChannel(ioc["nobody2"])
    one.search()
    two.search()
    begun = threading.Event()

    def other() -> None:
        begun.set()
        ca.pend_io(3.0)

    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(5.0)
    slow = epicsx.PV(ioc["slow"])
    assert slow.wait_for_connection(5)
    slow.put(1, use_complete=True)
    began = time.monotonic()
    with pytest.raises(CaChannelException, match="timeout"):
        two.pend_io(0.2)
    assert 0.15 < time.monotonic() - began < 2.5
    thread.join(20.0)
    began = time.monotonic()
    two.pend_io(5.0)  # as in C, what was waited for in vain is no longer outstanding
    assert time.monotonic() - began < 4.0
    for each in (one, two):
        each.clear_channel()


def test_an_object_that_is_dropped_ends_its_channel(ioc: SoftIOC) -> None:
    seen: list[Any] = []
    chan = CaChannel()
    chan.searchw(ioc["double"])
    chan.change_connection_event(lambda args, user: None)
    chan.add_masked_array_event(None, None, None, lambda args, user: seen.append(args["pv_value"]))
    wait_until(lambda: seen)
    gone = weakref.ref(chan)
    before = ioc.casr().monitors.get(ioc["double"], 0)
    with dispatcher_held(ioc["longout"]):  # it may not yet have come back from the callback
        del chan
        assert gone() is None
    wait_until(lambda: ioc.casr().monitors.get(ioc["double"], 0) < before)


def test_the_connection_is_told(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc('record(ao, "$(P)x") {}')
    ups: list[int] = []
    chan = CaChannel()
    chan.search_and_connect(server["x"], lambda args, user: ups.append(args[1]))
    wait_until(lambda: ups == [6])
    others: list[int] = []
    server.kill()
    wait_until(lambda: ups == [6, 7])
    chan.change_connection_event(lambda args, user: others.append(args[1]))
    assert chan.state() == number.cs_prev_conn
    assert others == []
    chan.clear_channel()


def test_module_ca() -> None:
    dynamic: Any = ca
    assert dynamic.dbf_type_to_DBR(6) == dynamic.DBR_DOUBLE
    assert dynamic.dbf_type_to_DBR_CTRL(3) == dynamic.DBR_CTRL_ENUM == 31
    assert dynamic.dbf_type_to_DBR_GR(0) == 21
    assert dynamic.dbr_type_is_plain(6)
    assert not dynamic.dbr_type_is_plain(7)
    assert dynamic.dbr_type_is_TIME(20)
    assert dynamic.dbr_type_is_DOUBLE(34)
    assert (ca.dbr_text(20), ca.dbf_text(6)) == ("DBR_TIME_DOUBLE", "DBF_DOUBLE")
    assert (ca.dbf_text_to_type("DBF_ENUM"), ca.dbr_text_to_type("DBR_nothing")) == (3, -1)
    assert (ca.alarmStatusString(3), ca.alarmSeverityString(2)) == ("HIHI", "MAJOR")
    assert ca.message(80) == "User specified timeout on IO operation expired"
    assert dynamic.DBE_VALUE | dynamic.DBE_LOG | dynamic.DBE_ALARM == 7
    assert {"DBR_STRING", "ECA_DISCONN", "message", "pend_io"} <= set(ca.__all__)
    with pytest.raises(AttributeError, match="no 'create_context'"):
        dynamic.create_context  # noqa: B018
    assert module.CaChannel is CaChannel


def test_use_numpy(ioc: SoftIOC, channel: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USE_NUMPY", True)
    assert isinstance(channel("wf:double:n").getw(), np.ndarray)


def test_alarms_are_acknowledged(ioc: SoftIOC, channel: Connect) -> None:
    ao = channel("ao")
    before = ao.getw()
    chid = epicsx.ca.create_channel(ioc["ao"], connect=True)

    def acks() -> Any:
        found = epicsx.ca.get_with_metadata(chid, ftype=number.DBR_STSACK_STRING)
        assert found is not None
        return found["ackt"], found["acks"]

    done = threading.Event()
    try:
        epicsx.caput(ioc["ao"], 95.0, wait=True)
        epicsx.caput(ioc["ao"], 1.0, wait=True)
        assert acks() == (1, 2)
        ao.array_put_callback(2, number.DBR_PUT_ACKS, 1, lambda args, user: done.set())
        assert done.wait(5.0)
        ao.putw(0, number.DBR_PUT_ACKT)
        wait_until(lambda: acks() == (0, 0))
    finally:
        ao.putw(1, number.DBR_PUT_ACKT)
        ao.putw(before)
        wait_until(lambda: acks()[0] == 1)


def test_epicspv(ioc: SoftIOC) -> None:
    pv = epicsPV(ioc["ao"])
    assert isinstance(pv, epicsx.PV)
    heard(pv)
    pv.putWait(1.25)
    assert pv.callBack.putComplete == 1
    wait_until(lambda: pv.getw() == 1.25)  # the monitor's news may come after the put's completion
    assert pv.getw() == pv.getValue() == pv.array_get() == pv.pvValue == 1.25
    assert (pv.getControl() or {})["units"] == "mm"
    assert (pv.callBack.pv_units, pv.callBack.pv_upctrllim) == ("mm", 100.0)
    pv.setMonitor()
    pv.setMonitor()
    pv.putw(2.5, wait=True)
    wait_until(lambda: pv.callBack.pv_value == 2.5)
    assert pv.callBack.monitorState == 2
    wait_until(lambda: pv.callBack.newMonitor == 1)
    assert pv.checkMonitor() is True
    assert pv.checkMonitor() is False
    pv.clearMonitor()
    pv.putWait(3.5)
    assert pv.checkMonitor() is False
    pv.disconnect()
    later = epicsPV()
    later.searchw(ioc["ao"])
    wait_until(lambda: later.getw() == 3.5)  # by the monitor, which may still have the value before
    later.disconnect()


def test_without_a_name(ioc: SoftIOC) -> None:
    pv = epicsPV()
    assert repr(pv) == "<epicsPV without a name>"
    for call in (pv.getw, pv.setMonitor, lambda: pv.connected, lambda: hash(pv)):
        with pytest.raises(AttributeError, match="no name yet"):
            call()
    with pytest.raises(AttributeError, match="nothing"):
        pv.nothing  # noqa: B018
    pv.searchw(ioc["ai"])
    assert pv.getw() is not None
