"""Synchronous groups: gets and puts waited for together."""

from __future__ import annotations

import ctypes

import pytest
from support import idle, wait_until

from epicsx import ca, dbr, strict
from epicsx.errors import BadValueError, CATimeoutError
from epicsx.testing import SoftIOC


def connected(ioc: SoftIOC, name: str) -> object:
    return ca.create_channel(ioc[name], connect=True)


def test_a_group_reads_and_writes(ioc: SoftIOC) -> None:
    gid = ca.sg_create()
    assert isinstance(gid, ctypes.c_ulong)
    number, text, wave = (connected(ioc, name) for name in ("longout", "stringout", "w:long"))
    assert ca.sg_put(gid, number, 17) == dbr.ECA_NORMAL
    assert ca.sg_put(gid, text, "in a group") == dbr.ECA_NORMAL
    assert ca.sg_put(gid, wave, [1, 2, 3]) == dbr.ECA_NORMAL
    assert ca.sg_block(gid, timeout=5.0) == dbr.ECA_NORMAL
    assert ca.sg_test(gid) == dbr.ECA_IODONE
    assert ca.sg_get(gid, number) == "17"
    assert ca.sg_get(gid, number, as_string=False) == 17
    assert ca.sg_get(gid, text) == "in a group"
    assert list(ca.sg_get(gid, wave, as_string=False)) == [1, 2, 3]
    assert ca._unpack(number, ca.sg_get(gid, number, as_string=False)) == 17
    assert ca.sg_delete(gid) == dbr.ECA_NORMAL


def test_a_group_that_takes_longer(ioc: SoftIOC) -> None:
    idle(ioc, "slow2")
    gid = ca.sg_create()
    ca.sg_put(gid, connected(ioc, "slow2"), 1.0)
    with pytest.raises(ca.CASeverityException, match="sg_test returned 'IO operations are in prog"):
        ca.sg_test(gid)
    with pytest.raises(ca.CASeverityException, match="timeout on IO operation expired"):
        ca.sg_block(gid, timeout=0.01)
    assert ca.sg_test(gid) == dbr.ECA_IODONE  # it has been reset
    slow = connected(ioc, "slow")
    ca.put(slow, 1.0, wait=True)
    idle(ioc)
    ca.sg_put(gid, slow, 2.0)
    assert ca.sg_reset(gid) == dbr.ECA_NORMAL
    assert ca.sg_block(gid, timeout=0.0) == dbr.ECA_NORMAL
    ca.sg_delete(gid)
    # what was sent is carried out all the same
    wait_until(lambda: float(ioc.read("slow")) == 2.0)


def test_no_such_group_and_no_such_channel(ioc: SoftIOC) -> None:
    gid = ca.sg_create()
    ca.sg_delete(gid)
    for call in (ca.sg_delete, ca.sg_reset, ca.sg_block, ca.sg_test):
        with pytest.raises(ca.CASeverityException, match="Invalid synchronous group"):
            call(gid)
    gid = ca.sg_create()
    for call in (lambda c: ca.sg_get(gid, c), lambda c: ca.sg_put(gid, c, 1)):
        with pytest.raises(ca.ChannelAccessException, match="not a valid chid!"):
            call(5)
        with pytest.raises(ca.ChannelAccessException, match="Unexpected channel ID"):
            call(dbr.chid_t(10**9))
        with pytest.raises(ca.CASeverityException, match="disconnect"):
            call(ca.create_channel(ioc["nobody"]))
    with pytest.raises(ca.CASeverityException, match="Write access denied"):
        ca.sg_put(gid, connected(ioc, "readonly"), 1.0)
    with pytest.raises(BadValueError):
        ca.sg_put(gid, connected(ioc, "longout"), 2**40)
    assert ca.sg_test(gid) == dbr.ECA_IODONE  # nothing of that was sent
    ca.sg_delete(gid)


def test_a_stalled_server(spare_ioc: object) -> None:
    server = spare_ioc('record(ao, "$(P)x") {}')  # type: ignore[operator]
    gid = ca.sg_create()
    chid = ca.create_channel(server["x"], connect=True)
    server.pause()
    try:
        assert ca.sg_get(gid, chid) is None
        strict()
        with pytest.raises(CATimeoutError):
            ca.sg_get(gid, chid)
    finally:
        strict(False)
        server.resume()
    ca.sg_delete(gid)


def test_unpack_of_c_arrays(ioc: SoftIOC) -> None:
    wave, number, text = (connected(ioc, name) for name in ("w:double", "double", "stringout"))
    assert list(ca._unpack(wave, (dbr.double_t * 3)(1, 2, 3))) == [1, 2, 3]
    assert list(ca._unpack(wave, (dbr.double_t * 3)(1, 2, 3), count=2)) == [1, 2]
    bare = ca._unpack(wave, (dbr.double_t * 3)(1, 2, 3), as_numpy=False)
    assert isinstance(bare, ctypes.Array)
    assert ca._unpack(number, (dbr.double_t * 1)(4)) == 4
    assert ca._unpack(number, [None, (dbr.double_t * 1)(5)]) == 5
    letters = (dbr.string_t * 1)()
    letters[0].value = b"text  "
    assert ca._unpack(text, letters) == "text"
    assert ca._unpack(None, (dbr.short_t * 1)(7)) == 7
    assert ca._unpack(None, "as it is") == "as it is"
