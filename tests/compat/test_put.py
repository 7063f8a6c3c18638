"""What PV.put accepts, refuses and answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import idle, wait_until

from epicsx.ca import CASeverityException
from epicsx.pv import PV
from epicsx.testing import SoftIOC


def connected(name: str) -> PV:
    pv = PV(name, auto_monitor=False)
    assert pv.wait_for_connection(5)
    return pv


@pytest.mark.parametrize(
    ("record", "value", "reads"),
    [
        ("double", "3.25", 3.25),
        ("double", b"1", 1.0),
        ("double", np.float32(2.5), 2.5),
        ("double", np.array(7.0), 7.0),
        ("double", [4.0], 4.0),
        ("double", True, 1.0),
        ("longout", "0x10", 16),
        ("longout", 3.9, 3),
        ("longout", -1.9, -1),
        ("mbbo", "Two", 2),
        ("mbbo", "2", 2),
        ("mbbo", 1, 1),
        ("stringout", "text out", "text out"),
        ("stringout", 5, "5"),
        ("stringout", " two  ", " two"),
        ("w:uchar", "hello", b"hello\0"),
        ("w:uchar", b"hello", b"hello\0"),
        ("w:uchar", "é", "é\0".encode()),
        ("w:uchar", [1, 2, 255], bytes([1, 2, 255])),
        ("w:uchar", "x" * 40, b"x" * 32),
        ("w:double", (1, 2, 3), [1.0, 2.0, 3.0]),
        ("w:double", range(40), [float(i) for i in range(32)]),
        ("w:double", "1.5", [1.5]),
        ("w:double", 7, [7.0]),
        ("w:double", np.array([[1, 2], [3, 4]]), [1.0, 2.0, 3.0, 4.0]),
        ("w:double", [], [0.0] * 32),
        ("w:string", ["a", b"zz", 3], ["a", "zz", "3"]),
        ("w:string", "one", ["one"]),
        ("w:short", [1, 2], [1, 2]),
    ],
)
@pytest.mark.parametrize("wait", [False, True])
def test_accepted(ioc: SoftIOC, record: str, value: Any, reads: Any, wait: bool) -> None:
    pv = connected(ioc[record])
    assert pv.put(value, wait=wait, timeout=5) == 1
    found = pv.get()
    if isinstance(reads, bytes):
        assert bytes(found) == reads
    elif isinstance(reads, list):
        assert list(found) == reads
    else:
        assert found == reads


@pytest.mark.parametrize(
    ("record", "value", "error"),
    [
        ("double", "abc", ValueError),
        ("double", None, TypeError),
        ("longout", "3.2", ValueError),
        ("longout", 2**40, ValueError),
        ("longout", -(2**31) - 1, ValueError),
        ("mbbo", "bogus", ValueError),
        ("mbbo", 65536, ValueError),
        ("stringout", "x" * 41, ValueError),
        ("w:uchar", [1, 256], ValueError),
        ("w:short", [1, 2**15], ValueError),
    ],
)
@pytest.mark.parametrize("wait", [False, True])
def test_refused(ioc: SoftIOC, record: str, value: Any, error: type[Exception], wait: bool) -> None:
    pv = connected(ioc[record])
    before = pv.get()
    with pytest.raises(error, match=ioc[record]):
        pv.put(value, wait=wait)
    assert np.array_equal(pv.get(), before)


@pytest.mark.parametrize("wait", [False, True])
def test_no_write_access(ioc: SoftIOC, wait: bool) -> None:
    with pytest.raises(CASeverityException) as caught:
        connected(ioc["readonly"]).put(1.0, wait=wait)
    assert str(caught.value) == " put returned 'Write access denied'"


def test_no_read_access(ioc: SoftIOC) -> None:
    pv = connected(ioc["noaccess"])
    assert pv.access == "no access"
    with pytest.raises(CASeverityException, match="get returned 'Read access denied'"):
        pv.get()


def test_rejected_by_the_server(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    pv = connected(ioc["disp"])
    assert pv.put(5.0, wait=True) is None  # pyepics: 1
    assert ioc["disp"] in caplog.text
    caplog.clear()
    assert pv.put(5.0) == 1
    wait_until(lambda: "rejected a put" in caplog.text)


def test_completion(ioc: SoftIOC) -> None:
    idle(ioc)
    idle(ioc, "slow2")
    # a put to `slower` takes so long that it is still under way when it is looked at
    pv, slower = connected(ioc["slow"]), connected(ioc["slow2"])
    states = [slower.put_complete]
    assert slower.put(1.0, use_complete=True) == 1
    states.append(slower.put_complete)
    wait_until(lambda: slower.put_complete)
    done: list[Any] = []
    assert slower.put(2.0, callback=lambda **kwds: done.append(kwds), callback_data={"a": 1}) == 1
    states.append(slower.put_complete)
    wait_until(lambda: done)
    assert done == [{"pvname": ioc["slow2"], "a": 1}]
    states.append(slower.put_complete)
    assert pv.put(3.0, wait=True, callback=lambda **kwds: done.append(kwds), callback_data=5) == 1
    wait_until(
        lambda: len(done) == 2
    )  # it runs before, unless the dispatcher is held up for a second
    assert done[1] == {"pvname": ioc["slow"], "data": 5}
    assert pv.put(4.0, wait=True, use_complete=True, timeout=315_569_520) == 1
    wait_until(lambda: pv.put_complete)
    states.append(pv.put_complete)
    assert slower.put(5.0, wait=True, timeout=0.05) == -1
    states.append(slower.put_complete)
    assert states == [None, False, None, True, True, None]
    wait_until(lambda: float(ioc.read("slow2")) == 5.0)


def test_value_is_assignable(ioc: SoftIOC) -> None:
    pv = connected(ioc["double"])
    pv.value = 12.5
    assert pv.get() == 12.5


def test_a_failing_put_callback(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    pv = connected(ioc["double"])
    assert pv.put(1.0, wait=True, callback=lambda **kwds: 1 / 0) == 1
    wait_until(lambda: "ZeroDivisionError" in caplog.text)
    assert ioc["double"] in caplog.text
