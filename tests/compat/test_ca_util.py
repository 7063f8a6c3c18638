"""ca_util: functions of a name with retries and a check of what was written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import idle, wait_until

from epicsx.compat import ca_util
from epicsx.compat.ca_util import caget, camonitor, caput, caputw, castate, caunmonitor
from epicsx.compat.CaChannel import CaChannelException
from epicsx.testing import SoftIOC


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    old = ca_util.get_ca_util_defaults()
    yield
    ca_util.set_ca_util_default_timeout(old[0])
    ca_util.set_ca_util_default_retries(old[1])
    ca_util.set_ca_util_default_read_check_tolerance(old[2])
    ca_util.cadict.clear()


def test_get_and_put(ioc: SoftIOC) -> None:
    ioc.write("double.PREC", 6)
    caput(ioc["double"], 2.5)
    assert caget(ioc["double"]) == 2.5
    assert caget(ioc["double"], req_type=0) == "2.500000"
    caput(ioc["mbbo"], "Three")
    assert caget(ioc["mbbo"]) == 3
    caput(ioc["w:long"], [1, 2, 3])
    assert caget(ioc["w:long"], req_count=2) == [1, 2]
    assert list(ca_util.cadict) == [ioc["double"], ioc["mbbo"], ioc["w:long"]]


def test_read_check(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    caput(ioc["double"], 2.5, read_check_tolerance=1e-6)
    caput(ioc["mbbo"], "One", read_check_tolerance=0)
    caput(ioc["mbbo"], 2, read_check_tolerance=0)
    caput(ioc["stringout"], "text", read_check_tolerance=0)
    caput(ioc["w:long"], [4, 5], read_check_tolerance=0)
    ca_util.set_ca_util_default_read_check_tolerance(0.1)
    with pytest.raises(ca_util.ca_utilException, match="Readback disagrees") as caught:
        caput(ioc["ao"], 1000.0)  # beyond the record's drive limit
    assert int(caught.value) == ca_util.EXCEPTION_READBACK_DISAGREES
    assert "caput: readback '100.0' disagrees with the value '1000.0'" in capsys.readouterr().out
    caput(ioc["ao"], 1000.0, read_check_tolerance="NONE")
    caput(ioc["ao"], 1.0)


def test_a_put_that_fails(ioc: SoftIOC) -> None:
    with pytest.raises(CaChannelException, match="write request failed"):
        caputw(ioc["disp"], 1)


def test_a_text_is_checked_as_one(ioc: SoftIOC) -> None:
    caput(ioc["w:char"], "a longer text", read_check_tolerance=0.1)
    with pytest.raises(ca_util.ca_utilException, match="disagrees"):
        ca_util._check("caput", ioc["w:char"], "another", None, None, None, 0.1)
    caput(ioc["double"] + ".TPRO", "1", read_check_tolerance=0.1)  # a number of one byte, no text
    caput(ioc["double"] + ".TPRO", 0)


def test_caputw(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    idle(ioc)
    began = time.monotonic()
    caputw(ioc["slow"], 1)
    assert time.monotonic() - began > 0.25
    assert ca_util.cadict[ioc["slow"]].callbackReceived == 1
    idle(ioc, "slow2")
    caputw(ioc["slow2"], 2, wait_timeout=0.05)
    assert "Execution not completed by wait_timeout (0.05 seconds)" in capsys.readouterr().out


def test_failures(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    ca_util.set_ca_util_defaults(timeout=0.05, retries=1)
    for call in (caget, lambda name: caput(name, 1)):
        with pytest.raises(CaChannelException):
            call(ioc["nobody"])
        with pytest.raises(ca_util.ca_utilException, match="No name was provided"):
            call("")
    assert f"Can't connect to '{ioc['nobody']}'" in capsys.readouterr().out
    assert ioc["nobody"] not in ca_util.cadict
    with pytest.raises(CaChannelException):
        caput(ioc["readonly"], 1)
    assert castate(ioc["nobody"]) == "not connected"
    ca_util.set_ca_util_defaults(timeout="NONE")
    assert castate(ioc["readonly"]) == "connected, nowrite"
    assert castate(ioc["noaccess"]) == "connected, noread, nowrite"
    assert castate(ioc["ao"]) == "connected"
    assert castate("") == "Null name has no state"


def test_camonitor(ioc: SoftIOC) -> None:
    seen: list[tuple[Any, Any]] = []
    caput(ioc["double"], 1.0)
    camonitor(ioc["double"], lambda *args: seen.append(args))
    wait_until(lambda: seen)
    caput(ioc["double"], 2.0)
    wait_until(lambda: len(seen) == 2)
    assert [args["pv_value"] for args, _ in seen] == [1.0, 2.0]
    assert seen[0][1] == (ioc["double"],)
    caunmonitor(ioc["double"])
    caput(ioc["double"], 3.0)
    assert caget(ioc["double"]) == 3.0
    assert len(seen) == 2
    with pytest.raises(ca_util.ca_utilException, match="not connected"):
        caunmonitor(ioc["ao"])


def test_a_lost_connection_is_waited_for(spare_ioc: Callable[..., SoftIOC]) -> None:
    server = spare_ioc('record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }')
    assert caget(server["x"]) == 1.0
    server.kill()
    channel = ca_util.cadict[server["x"]].channel
    wait_until(lambda: channel.state() == 1)
    assert castate(server["x"], timeout=0.05, retries="NONE") == "not connected"
    server.restart()
    assert caget(server["x"], timeout=20) == 1.0


def test_defaults_and_helpers() -> None:
    old = ca_util.set_ca_util_defaults(5.0, 7, 0.5)
    assert old == [None, 3, None]
    assert ca_util.set_ca_util_defaults([1.0, None, None]) == [5.0, 7, 0.5]
    assert ca_util.get_ca_util_default_timeout() == 1.0
    assert ca_util.get_ca_util_default_retries() == 7
    assert ca_util.get_ca_util_default_read_check_tolerance() == 0.5
    assert ca_util.convertToType(1, "x") == 0
    assert ca_util.convertToType(6, "2.5") == 2.5
    assert ca_util.convertToType(3, "x") == "x"
    assert ca_util.isNumber("3")
    assert not ca_util.isNumber("x")
    assert ca_util.endianUs() in ("Little Endian", "Big Endian")
    try:
        raise KeyError("it")
    except KeyError:
        assert ca_util.formatExceptionInfo()[:2] == ("KeyError", ("it",))
