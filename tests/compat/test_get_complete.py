"""Reads that are asked for first and had later: the answer may be had again, and after a time-out too."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from support import wait_until

from epicsx import ca, dbr
from epicsx.testing import SoftIOC


def test_an_answer_may_be_had_again(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    ca.put(chid, 3.0, wait=True)
    assert ca.get(chid) == 3.0
    ca.put(chid, 4.0, wait=True)
    assert ca.get_complete(chid) == ca.get_complete(chid, ftype=dbr.DOUBLE) == 3.0
    with pytest.warns(UserWarning, match="without initial get"):
        assert ca.get_complete(chid, ftype=dbr.LONG) is None


def test_with_another_count(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["wf:long:n"], connect=True)
    assert ca.get(chid, count=3, wait=False) is None
    np.testing.assert_array_equal(ca.get_complete(chid), [0, 1, 2])
    assert ca.get_complete(chid, as_string=True) == "<array count=16, type=5>"
    assert type(ca.get_complete(chid, count=1)) is int
    ca.get(chid, wait=False)
    ca.get(chid, count=2, wait=False)
    assert len(ca.get_complete(chid, count=5)) in (
        2,
        5,
    )  # of the newest, or of the one that has them
    strings = ca.create_channel(ioc["wf:string:n"], connect=True)
    ca.get(strings, wait=False)
    assert ca.get_complete(strings, count=2) == ["s0", "s1"]
    assert ca.get_complete(strings, count=1) == ["s0"]


def test_the_form_of_metadata_is_that_of_pyepics(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    stamp = ["status", "severity", "timestamp", "posixseconds", "nanoseconds", "value"]
    assert list(ca.get_with_metadata(chid, ftype=dbr.TIME_DOUBLE) or ()) == stamp
    control = [*dbr.ctrl_limits, "precision", "units", "status", "severity", "value"]
    assert list(ca.get_with_metadata(chid, ftype=dbr.CTRL_DOUBLE) or ()) == control
    text = ca.create_channel(ioc["stringout"], connect=True)
    # asked for by number it is what C has; what promote_type gives is TIME_STRING
    assert list(ca.get_with_metadata(text, ftype=dbr.CTRL_STRING) or ()) == [
        *("status", "severity", "value")
    ]
    assert list(ca.get_ctrlvars(text) or ()) == stamp[:-1]


def test_after_a_time_out(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc('record(ao, "late:x") { field(VAL, "2.5") field(PINI, "YES") }')
    chid = ca.create_channel("late:x", connect=True)
    ioc.pause()
    try:
        with pytest.warns(UserWarning, match=r"ca.get\('late:x'\) timed out after 0.10 seconds"):
            assert ca.get(chid, timeout=0.1) is None
        item = ca.get_cache("late:x")
        assert item is not None
        with pytest.warns(UserWarning, match="timed out"):
            assert ca.get(chid, timeout=0.1) is None
        assert len(item.get_results[dbr.DOUBLE]) == 1  # one request waits, not one for each try
        assert not ca.test_io()
        with pytest.warns(UserWarning, match="timed out after 0.05"):
            assert ca.get_complete(chid, timeout=0.05) is None
    finally:
        ioc.resume()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ca.get_complete(chid, timeout=10) == 2.5
    wait_until(ca.test_io)


def test_a_lost_circuit(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc('record(ao, "lost:x") { field(VAL, "2.5") }')
    chid = ca.create_channel("lost:x", connect=True)
    ioc.pause()
    ca.get(chid, wait=False)
    ioc.kill()
    with pytest.raises(ca.ChannelAccessGetFailure, match="Get failed; status code: 192") as caught:
        ca.get_complete(chid, timeout=10)
    assert caught.value.chid is chid


def test_no_read_access(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["noaccess"], connect=True)
    for wait in (True, False):
        with pytest.raises(ca.CASeverityException, match="get returned 'Read access denied'"):
            ca.get(chid, wait=wait)
