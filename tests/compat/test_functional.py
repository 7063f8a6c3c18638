"""caget, caput, cainfo, and many at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from support import idle, takes, wait_until

from epicsx import ca, functional
from epicsx.functional import caget, caget_many, cainfo, caput, caput_many
from epicsx.pv import _PVcache_
from epicsx.testing import SoftIOC


def test_caget_and_caput(ioc: SoftIOC) -> None:
    assert caput(ioc["ao"], 2.5, wait=True) == 1
    assert caget(ioc["ao"], use_monitor=False) == 2.5
    # by the monitor, whose first event may be older than what the server answered
    wait_until(lambda: (caget(ioc["ao"]), caget(ioc["ao"], as_string=True)) == (2.5, "2.500"))
    assert caput(ioc["mbbo"], "Two", wait=True) == 1
    wait_until(lambda: caget(ioc["mbbo"], as_string=True) == "Two")
    assert caput(ioc["mbbo"], 0) == 1
    wait_until(lambda: ioc.read("mbbo") == "Zero")  # not while the next test runs
    assert caget(ioc["wf:double:n"], count=3).tolist() == [0, 1, 2]
    assert caget(ioc["wf:double:n"], as_numpy=False) == list(range(10))
    assert (ioc["ao"], "time", ca.current_context()) in _PVcache_


def test_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(call: Callable[[], object]) -> None:
        assert call() is None
        assert capsys.readouterr().out == "cannot connect to nobody:has:this\n"

    for call in (
        lambda: caget("nobody:has:this", connection_timeout=0.2),
        lambda: caput("nobody:has:this", 1, connection_timeout=0.2),
        lambda: cainfo("nobody:has:this", connection_timeout=0.2),
    ):
        takes(0.2, 0.2 * 1.05 + 0.02, partial(fails, call))


def test_cainfo(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    assert cainfo(ioc["ao"]) is None
    printed = capsys.readouterr().out
    text = str(cainfo(ioc["ao"], print_out=False))
    assert printed.splitlines()[0] == text.splitlines()[0] == f"== {ioc['ao']}  (time_double) =="
    assert capsys.readouterr().out == ""


def test_caget_many(ioc: SoftIOC) -> None:
    ioc.write("longout", 3)
    ioc.write("mbbo", 1)
    names = [
        ioc["longout"],
        ioc["mbbo"],
        ioc["wf:double:n"],
        ioc["wf:string:n"],
        ioc["wf:string:1"],
    ]
    for _ in range(2):
        found = caget_many(names)
        assert found[:2] == [3, 1]
        assert found[2].tolist() == list(range(10))
        assert found[3][:2] == ["s0", "s1"]
        assert isinstance(found[4], str)
    texts = caget_many(names, as_string=True)
    assert texts[:3] == ["3", "One", "<array count=16, type=6>"]
    assert caget_many(names[:1] * 3) == [3, 3, 3]
    assert caget_many([]) == []
    assert names[0] in ca._cache[ca.current_context()]  # type: ignore[index]
    assert not _PVcache_


def test_caget_many_with_unknown_names(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    ioc.write("longout", 3)
    assert caget_many([ioc["longout"]], timeout=5) == [3]  # a first search may take longer

    def some() -> None:
        names = ["nobody:a", ioc["longout"], "nobody:b"]
        found = caget_many(names, conn_timeout=0.3, timeout=5)
        assert found == [None, 3, None]

    takes(0.3, 0.4, some)
    assert capsys.readouterr().out == ""


def test_caget_many_as_ctypes(ioc: SoftIOC) -> None:
    found = caget_many([ioc["wf:double:n"]], as_numpy=False)[0]
    assert not isinstance(found, np.ndarray)
    assert list(found) == list(range(10))


@pytest.mark.parametrize("wait", [False, "each", "all", True])
def test_caput_many(ioc: SoftIOC, wait: bool | str) -> None:
    names = [ioc[f"bulk:{i:04d}"] for i in range(20)]
    values = list(range(100, 120))
    assert caput_many(names, values, wait=wait) == [1] * 20
    wait_until(lambda: caget_many(names) == values)


def test_caput_many_with_an_unknown_name(ioc: SoftIOC) -> None:
    names = [ioc["longout"], "nobody:has:this"]
    assert caput_many(names[:1], [3], wait="all") == [1]  # a first search may take longer
    begun = time.monotonic()
    for wait in (False, "each", "all"):
        assert caput_many(names, [4, 4], wait=wait, connection_timeout=0.2) == [1, -1]
    assert time.monotonic() - begun < 5  # pyepics: put_timeout, 60 s


def test_caput_many_mistakes(ioc: SoftIOC) -> None:
    with pytest.raises(ValueError, match="must be equal to list of values"):
        caput_many([ioc["ao"]], [1, 2])
    with pytest.raises(ValueError, match=ioc["longout"]):
        caput_many([ioc["double"], ioc["longout"]], [1, "many"])
    with pytest.raises(ca.CASeverityException, match="Write access denied"):
        caput_many([ioc["readonly"]], [1.0])
    idle(ioc, "slow2")
    assert caput_many([ioc["slow2"]], [1.0], wait="all", put_timeout=0.1) == [-1]


def test_a_cleared_cache_does_no_harm(ioc: SoftIOC) -> None:
    assert caget(ioc["ao"]) is not None
    assert caget_many([ioc["ao"]])[0] is not None
    ca.clear_cache()
    assert not _PVcache_
    assert caget(ioc["ao"]) is not None
    assert caget_many([ioc["ao"]])[0] is not None
    ca.clear_channel(ca.create_channel(ioc["ao"]))
    assert caget_many([ioc["ao"]])[0] is not None


def test_bulk_channels_are_not_kept_without_end(
    ioc: SoftIOC, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, "_KEPT", 10)
    names = [ioc[f"bulk:{i:04d}"] for i in range(30)]
    for i in range(0, 30, 5):
        assert None not in caget_many(names[:2] + names[i : i + 5])
    assert len(ca._many) == 10
    assert set(names[:2] + names[25:]) <= set(ca._many)
    wait_until(lambda: sum(n in ioc.casr().channels for n in names) == 10)


def test_strict(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    from epicsx._texts import strict

    idle(ioc, "slow2")
    strict()
    try:
        with pytest.raises(TimeoutError, match="nobody:has:this"):
            caget("nobody:has:this", connection_timeout=0.1)
        with pytest.raises(TimeoutError, match="slow2"):
            caput(ioc["slow2"], 1, wait=True, timeout=0.1)
        with pytest.raises(TimeoutError, match="nobody:has:this"):
            caget_many(["nobody:has:this"], connection_timeout=0.1)
    finally:
        strict(False)
    capsys.readouterr()
