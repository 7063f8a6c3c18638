"""Strict: what pyepics answers with None, -1, 0 or a printed line is a typed error instead, and nothing is printed.

Each row of the tables is a call and a real failure: first with pyepics' answer, then strict with its error. A state
that is asked for is no failure: `state`, `isConnected`, `field_type`, `host_name`, `wait_for_connection` answer as
ever.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support import run_python, wait_until

import epicsx
from epicsx import (
    PV,
    BadTypeError,
    BadValueError,
    CASeverityException,
    CATimeoutError,
    ChannelAccessException,
    DisconnectedError,
    PutError,
    ca,
    caget,
    caget_many,
    cainfo,
    camonitor,
    caput,
    caput_many,
    get_pv,
)
from epicsx.testing import SoftIOC

Call = Callable[[Any], Any]
Row = tuple[str, Call, Any, type[Exception]]

RAISES = object()  # pyepics raises here too
ANY = object()  # pyepics gives something back

S = 0.15  # seconds that a call is given

#: Of a PV that does not exist. `t` has its name, a PV of it and a chid.
UNCONNECTED: list[Row] = [
    ("caget", lambda t: caget(t.name, connection_timeout=S), None, CATimeoutError),
    ("caput", lambda t: caput(t.name, 1, connection_timeout=S), None, CATimeoutError),
    ("cainfo", lambda t: cainfo(t.name, connection_timeout=S), None, CATimeoutError),
    ("camonitor", lambda t: camonitor(t.name, connection_timeout=S), None, CATimeoutError),
    ("caget_many", lambda t: caget_many([t.name], connection_timeout=S), [None], CATimeoutError),
    ("caput_many", lambda t: caput_many([t.name], [1], False, S), [-1], CATimeoutError),
    ("caput_many each", lambda t: caput_many([t.name], [1], "each", S), [-1], CATimeoutError),
    ("caput_many all", lambda t: caput_many([t.name], [1], "all", S), [-1], CATimeoutError),
    ("get_pv", lambda t: get_pv(t.name, connect=True, timeout=S), ANY, CATimeoutError),
    ("PV.get", lambda t: t.pv.get(timeout=S), None, CATimeoutError),
    ("PV.get_with_metadata", lambda t: t.pv.get_with_metadata(), None, CATimeoutError),
    ("PV.put", lambda t: t.pv.put(1), None, CATimeoutError),
    ("PV.put callback", lambda t: t.pv.put(1, callback=print), None, CATimeoutError),
    ("PV.get_ctrlvars", lambda t: t.pv.get_ctrlvars(), None, CATimeoutError),
    ("PV.get_timevars", lambda t: t.pv.get_timevars(), None, CATimeoutError),
    ("PV.info", lambda t: t.pv.info, None, CATimeoutError),
    ("PV.value", lambda t: t.pv.value, None, CATimeoutError),
    ("PV.char_value", lambda t: t.pv.char_value, "None", CATimeoutError),
    ("PV.status", lambda t: t.pv.status, None, CATimeoutError),
    ("PV.timestamp", lambda t: t.pv.timestamp, None, CATimeoutError),
    ("PV.units", lambda t: t.pv.units, None, CATimeoutError),
    ("PV.count", lambda t: t.pv.count, None, CATimeoutError),
    ("PV.host", lambda t: t.pv.host, ANY, CATimeoutError),
    ("ca.get", lambda t: ca.get(t.chid, timeout=S), None, CATimeoutError),
    ("ca.get wait=False", lambda t: ca.get(t.chid, wait=False), None, CATimeoutError),
    ("ca.get_with_metadata", lambda t: ca.get_with_metadata(t.chid), None, CATimeoutError),
    ("ca.get_ctrlvars", lambda t: ca.get_ctrlvars(t.chid, timeout=S), None, CATimeoutError),
    ("ca.get_timevars", lambda t: ca.get_timevars(t.chid, timeout=S), None, CATimeoutError),
    ("ca.put", lambda t: ca.put(t.chid, 1, timeout=S), RAISES, ChannelAccessException),
    ("ca.create_subscription", lambda t: ca.create_subscription(t.chid, timeout=S), RAISES,
     ChannelAccessException),
]  # fmt: skip

#: Of a connected PV whose IOC has stopped answering.
STALLED: list[Row] = [
    ("caget", lambda t: caget(t.name, use_monitor=False, timeout=S), None, CATimeoutError),
    ("caput", lambda t: caput(t.name, 1, wait=True, timeout=S), -1, CATimeoutError),
    ("caget_many", lambda t: caget_many([t.name], timeout=S), [None], CATimeoutError),
    ("caput_many each", lambda t: caput_many([t.name], [1], "each", 5, S), [-1], CATimeoutError),
    ("caput_many all", lambda t: caput_many([t.name], [1], "all", 5, S), [-1], CATimeoutError),
    ("PV.get", lambda t: t.pv.get(use_monitor=False, timeout=S), None, CATimeoutError),
    ("PV.get_with_metadata", lambda t: t.pv.get_with_metadata(form="native", timeout=S), None,
     CATimeoutError),
    ("PV.put", lambda t: t.pv.put(1, wait=True, timeout=S), -1, CATimeoutError),
    ("PV.put callback", lambda t: t.pv.put(1, True, S, callback=t.ignore), -1, CATimeoutError),
    ("PV.get_ctrlvars", lambda t: t.pv.get_ctrlvars(timeout=S), None, CATimeoutError),
    ("PV.get_timevars", lambda t: t.pv.get_timevars(timeout=S), None, CATimeoutError),
    ("PV.units", lambda t: t.pv.units, None, CATimeoutError),
    ("ca.get", lambda t: ca.get(t.chid, timeout=S), None, CATimeoutError),
    ("ca.get_complete", lambda t: (ca.get(t.chid, wait=False), ca.get_complete(t.chid, timeout=S)),
     (None, None), CATimeoutError),
    ("ca.get_ctrlvars", lambda t: ca.get_ctrlvars(t.chid, timeout=S), None, CATimeoutError),
    ("ca.get_timevars", lambda t: ca.get_timevars(t.chid, timeout=S), None, CATimeoutError),
    ("ca.put", lambda t: ca.put(t.chid, 1, wait=True, timeout=S), -1, CATimeoutError),
]  # fmt: skip

#: By a server that says no; `t` gives full names of the session's records.
REFUSED: list[Row] = [
    ("caput", lambda t: caput(t["disp"], 1, wait=True), None, PutError),
    ("caput_many", lambda t: caput_many([t["disp"]], [1], "each"), [-1], PutError),
    ("caput_many all", lambda t: caput_many([t["disp"]], [1], "all"), [-1], PutError),
    ("PV.put", lambda t: get_pv(t["disp"], connect=True).put(1, wait=True), None, PutError),
    ("PV.put callback", lambda t: get_pv(t["disp"], connect=True).put(1, True, callback=ignore),
     None, PutError),
    ("ca.put", lambda t: ca.put(ca.create_channel(t["disp"], True), 1, wait=True), None, PutError),
    ("caput readonly", lambda t: caput(t["readonly"], 1), RAISES, CASeverityException),
    ("caput_many readonly", lambda t: caput_many([t["readonly"]], [1]), RAISES, CASeverityException),
    ("ca.get noaccess", lambda t: ca.get(ca.create_channel(t["noaccess"], True)), RAISES,
     CASeverityException),
    ("caget_many noaccess", lambda t: caget_many([t["noaccess"]]), [None], epicsx.AccessError),
]  # fmt: skip

#: Of what the caller gave.
WRONG: list[Row] = [
    ("ca.get_complete", lambda t: ca.get_complete(ca.create_channel(t["ao"], True)), None,
     ChannelAccessException),
    ("PV.add_callback", lambda t: get_pv(t["ao"], connect=True).add_callback(t.prefix),
     None,
     BadTypeError),
    ("caput type", lambda t: caput(t["ao"], object()), RAISES, BadTypeError),
    ("caput value", lambda t: caput(t["mbbo"], "no such state"), RAISES, BadValueError),
    ("ca.put value", lambda t: ca.put(ca.create_channel(t["w:short"], True), 99999), RAISES,
     BadValueError),
    ("ca.get chid", lambda t: ca.get("no chid"), RAISES, ChannelAccessException),
    ("ca.name chid", lambda t: ca.name(123456789), RAISES, ChannelAccessException),
]  # fmt: skip


def ignore(**kwds: Any) -> None:
    """A put's callback."""


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ca, "DEFAULT_CONNECTION_TIMEOUT", S)
    yield
    epicsx.strict(False)


def check(row: Row, target: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, call, answer, error = row
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if answer is RAISES:
            with pytest.raises(error):
                call(target)
        elif answer is ANY:
            call(target)
        else:
            found = call(target)
            assert (type(found), found) == (type(answer), answer)
    capsys.readouterr()
    epicsx.strict()
    with pytest.raises(error) as caught:  # a warning would be an error of another kind
        call(target)
    assert isinstance(caught.value, epicsx.CAError)
    assert str(caught.value)
    assert capsys.readouterr().out == ""
    epicsx.strict(False)


def rows(table: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", table, ids=[row[0] for row in table])


@rows(UNCONNECTED)
def test_unconnected(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    name = "nobody:has:this"
    target = SimpleNamespace(name=name, pv=PV(name), chid=ca.create_channel(name))
    check(row, target, capsys)


@rows(STALLED)
def test_stalled(
    row: Row, spare_ioc: Callable[..., SoftIOC], capsys: pytest.CaptureFixture[str]
) -> None:
    ioc = spare_ioc('record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }')
    name = ioc["x"]
    pv, chid = get_pv(name, connect=True), ca.create_channel(name, connect=False)
    assert pv.get() == 1.0
    assert ca.connect_channel(chid, 5.0)
    ioc.pause()
    try:
        check(row, SimpleNamespace(name=name, pv=pv, chid=chid, ignore=ignore), capsys)
    finally:
        ioc.resume()


@rows(REFUSED)
def test_refused(row: Row, ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    ca.DEFAULT_CONNECTION_TIMEOUT = 5.0
    check(row, ioc, capsys)


@rows(WRONG)
def test_wrong_input(row: Row, ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    ca.DEFAULT_CONNECTION_TIMEOUT = 5.0
    check(row, ioc, capsys)


@pytest.mark.parametrize("strict", [False, True])
def test_circuit_lost_while_waiting(spare_ioc: Callable[..., SoftIOC], strict: bool) -> None:
    ioc = spare_ioc("""
record(ao, "$(P)slow") { field(FLNK, "$(P)seq") }
record(seq, "$(P)seq") { field(DLY1, "30") field(LNK1, "$(P)end.PROC PP") field(DO1, "1") }
record(calc, "$(P)end") { }
""")
    pv = get_pv(ioc["slow"], connect=True)
    answers: list[Any] = []
    epicsx.strict(strict)

    def put() -> None:
        try:
            answers.append(pv.put(3, wait=True, timeout=20))
        except DisconnectedError as error:
            answers.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    wait_until(lambda: ioc.read("slow") == "3", message="the put has reached the IOC")
    ioc.kill()
    thread.join(20)
    (answer,) = answers
    if strict:
        assert isinstance(answer, DisconnectedError)
        assert answer.outcome_unknown
    else:
        assert answer is None


def test_after_the_end_and_by_the_environment() -> None:
    script = """
import sys
import epicsx
from epicsx import ca
chid = ca.create_channel("some:name")
ca.finalize_libca()
for call in (ca.poll, ca.flush_io, ca.version, lambda: ca.name(chid), lambda: ca.get(chid)):
    try:
        print(call())
    except epicsx.CAError as error:
        print(type(error).__name__)
"""
    assert run_python(script).stdout.split() == ["None"] * 5
    strictly = run_python(script, env={"EPICSX_STRICT": "1"})
    for off in ("0", "no", "Off", "false", ""):
        run_python(
            "import epicsx._texts as t; assert not t.is_strict()", env={"EPICSX_STRICT": off}
        )
    assert strictly.stdout.split() == ["ChannelAccessException"] * 5
