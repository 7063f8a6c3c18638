"""The functions of a channel id, contexts, and what happens before first use and after the end."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
import pytest
from support import idle, run_python, wait_until
from support.monitors import dispatcher_held

from epicsx import ca, dbr
from epicsx.testing import SoftIOC


def test_chid(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    assert isinstance(chid, dbr.chid_t)
    assert ca.create_channel(ioc["ao"]) is chid
    for known in (chid, chid.value):
        assert ca.name(known) == ioc["ao"]
        assert ca.isConnected(known)
        assert (ca.state(known), ca.element_count(known), ca.field_type(known)) == (2, 1, 6)
        assert (ca.read_access(known), ca.write_access(known)) == (1, 1)
        assert ca.access(known) == "read/write"
        assert ca.host_name(known).endswith(str(ioc.server_port))
        assert ca.promote_type(known, use_time=True) == 20
        assert ca.promote_type(known, use_ctrl=True) == 34
    number = chid.value
    assert ca.clear_channel(chid) == 1
    again = ca.create_channel(ioc["ao"])
    assert again.value != number
    with pytest.raises(ca.ChannelAccessException, match="Unexpected channel ID"):
        ca.name(number)


def test_not_a_chid() -> None:
    with pytest.raises(ca.ChannelAccessException) as caught:
        ca.name("x")
    assert str(caught.value) == "name: not a valid chid x <class 'str'> args ['x'] kwargs {}!"
    with pytest.raises(ca.ChannelAccessException, match="get: not a valid chid!"):
        ca.get("x")
    with pytest.raises(ca.ChannelAccessException, match="put: not a valid chid!"):
        ca.put("x", 1)


def test_unconnected() -> None:
    chid = ca.create_channel("nobody:has:this")
    assert not ca.isConnected(chid)
    assert (ca.state(chid), ca.element_count(chid), ca.field_type(chid)) == (0, 0, -1)
    assert (ca.host_name(chid), ca.access(chid)) == ("<disconnected>", "no access")
    assert ca.promote_type(chid, use_time=True) == 13
    assert not ca.connect_channel(chid, timeout=0.1)
    item = ca.get_cache("nobody:has:this")
    assert item is not None
    assert item.failures == 1
    assert repr(item) == (
        f"<_CacheItem 'nobody:has:this' disconnected failures=1 callbacks=0 access_callbacks=0 "
        f"chid={chid.value}>"
    )
    assert item["chid"] is chid
    assert ca.get(chid, timeout=0.1) is None
    assert ca.get_ctrlvars(chid, timeout=0.1) is None
    with pytest.raises(ca.ChannelAccessException) as caught:
        ca.put(chid, 1, timeout=0.2)
    assert str(caught.value) == "put() timed out waiting 'nobody:has:this' to connect (0 seconds)"
    with pytest.raises(ca.ChannelAccessException, match=r"create_subscription.*nobody:has:this"):
        ca.create_subscription(chid, timeout=0.1)
    table = str(ca.show_cache(print_out=False))
    assert table.splitlines()[0] == "#  PVName        ChannelID/Context Connected?"
    assert "nobody:has:this" in table


def test_get(ioc: SoftIOC) -> None:
    ioc.write("ao", 1.5)
    chid = ca.create_channel(ioc["ao"], connect=True)
    assert ca.get(chid) == 1.5
    assert ca.get(chid, ftype=dbr.LONG) == 2 or ca.get(chid, ftype=dbr.LONG) == 1
    assert ca.get(chid, ftype=dbr.STRING) == "1.500"
    assert set(ca.get_with_metadata(chid, ftype=dbr.TIME_DOUBLE) or ()) == {
        *("value", "status", "severity", "timestamp", "posixseconds", "nanoseconds")
    }
    assert (ca.get_ctrlvars(chid) or {})["units"] == "mm"
    assert (ca.get_precision(chid), ca.get_enum_strings(chid)) == (3, None)
    assert ca.get_timestamp(chid) > 1e9
    assert ca.get_severity(chid) == 0
    assert ca.get(chid, wait=False) is None
    assert ca.get_complete(chid) == 1.5
    with pytest.warns(UserWarning, match="without initial get"):
        assert ca.get_complete(chid, ftype=dbr.FLOAT) is None
    with pytest.raises(ca.ChannelAccessGetFailure, match="status code: 152"):
        ca.get(chid, ftype=36)
    array = ca.create_channel(ioc["wf:long:n"], connect=True)
    found = ca.get(array)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int32
    assert isinstance(ca.get(array, as_numpy=False), ctypes.Array)
    assert len(ca.get(array, count=3)) == 3
    chars = ca.create_channel(ioc["wf:char:n"], connect=True)
    assert ca.get(chars, as_string=True) == ""
    enum = ca.create_channel(ioc["mbbo"], connect=True)
    ioc.write("mbbo", 1)
    assert ca.get(enum, as_string=True) == "One"


def test_put(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["double"], connect=True)
    assert ca.put(chid, 5) == 1
    assert ca.put(chid, 6, wait=True) == 1
    assert ca.get(chid) == 6.0
    done: list[Any] = []
    assert ca.put(chid, 7, callback=lambda **kwds: done.append(kwds), callback_data=3) == 1
    wait_until(lambda: done == [{"pvname": ioc["double"], "data": 3}])
    idle(ioc, "slow2")
    slow = ca.create_channel(ioc["slow2"], connect=True)
    assert ca.put(slow, 1, wait=True, timeout=0.05) == -1
    with pytest.raises(ca.CASeverityException, match="Write access denied"):
        ca.put(ca.create_channel(ioc["readonly"], connect=True), 1)


def test_connection_and_access_callbacks(ioc: SoftIOC) -> None:
    told: list[Any] = []

    def on_connection(pvname: str, chid: int, conn: bool) -> None:
        told.append((pvname, type(chid), conn))

    chid = ca.create_channel(ioc["ai"], callback=on_connection)
    wait_until(lambda: told == [(ioc["ai"], int, True)])
    ca.create_channel(ioc["ai"], callback=on_connection)
    assert len(told) == 1
    with dispatcher_held(ioc["longout"]):
        pass  # the news of the rights, which come behind that of the connection, have been told, too
    rights: list[Any] = []
    ca.replace_access_rights_event(chid, callback=lambda *given: rights.append(given))
    ca.replace_access_rights_event(chid, callback=lambda *given: rights.append(given))
    assert rights == [(True, True)] * 2  # pyepics: three


def test_subscription(ioc: SoftIOC) -> None:
    ioc.write("double", 1.0)  # another test may have left a number that + 1 does not change
    chid = ca.create_channel(ioc["double"], connect=True)
    seen: list[Any] = []
    _callback, _user, event = ca.create_subscription(
        chid, use_time=True, callback=lambda **kwds: seen.append(kwds)
    )
    wait_until(lambda: seen)
    assert set(seen[0]) == {
        *("value", "pvname", "chid", "ftype", "count"),
        *("status", "severity", "timestamp", "posixseconds", "nanoseconds"),
    }
    assert (seen[0]["ftype"], seen[0]["chid"]) == (20, chid.value)
    value = seen[-1]["value"] + 1
    ca.put(chid, value)
    wait_until(lambda: seen[-1]["value"] == value)
    assert ca.clear_subscription(event) == 1
    count = len(seen)
    ca.put(chid, value + 1, wait=True)
    assert len(seen) == count


def test_contexts(ioc: SoftIOC) -> None:
    first = ca.current_context()
    assert isinstance(first, int)
    assert ca.attach_context(first) == 424
    assert ca.detach_context() == 0
    assert ca.current_context() is None
    assert ca.attach_context(first) == 1
    found: list[Any] = []

    def plain() -> None:
        found.append(ca.current_context())
        chid = ca.create_channel(ioc["ao"], connect=True)
        found.append(ca.get(chid) is not None)  # pyepics: None, for want of a preemptive context
        found.append(ca.current_context())

    def attached() -> None:
        found.append(ca.current_context())

    for thread in (threading.Thread(target=plain), ca.CAThread(target=attached)):
        thread.start()
        thread.join(10)
    assert found == [None, True, ca.initial_context, ca.initial_context]

    def own() -> None:
        ca.context_create()
        found.append(ca.current_context())
        found.append(ca.get(ca.create_channel(ioc["ai"], connect=True)) is not None)
        ca.context_destroy()
        found.append(ca.current_context())

    thread = threading.Thread(target=own)
    thread.start()
    thread.join(10)
    assert found[4] != first
    assert found[5:] == [True, None]


def test_small_ones() -> None:
    assert ca.flush_io() == ca.poll() == ca.pend_io() == 1
    assert ca.pend_event() == 80
    assert ca.test_io()
    assert ca.version() == "4.13"
    assert ca.message(192) == "Virtual circuit disconnect"
    assert ca.find_libca().endswith(("so", "dylib", "dll"))
    assert ca.libca
    assert ca.initialize_libca() is ca.libca
    assert ca.libca.ca_version() == b"4.13"
    with pytest.raises(TypeError, match="clear_channel"):
        ca.libca.ca_clear_channel(1)
    assert not issubclass(ca.CASeverityException, ca.ChannelAccessException)


def test_before_first_use_and_after_the_end(ioc: SoftIOC) -> None:
    run_python(
        """
        import sys
        import epicsx
        from epicsx import ca, PV, caget
        assert ca.libca is None and ca.initial_context is None
        pv = PV(sys.argv[1])
        assert ca.libca and ca.initial_context == ca.current_context()
        assert pv.get() is not None
        ca.finalize_libca()
        assert ca.flush_io() is None and ca.create_channel("x") is None
        assert ca.current_context() is None
        for call in (lambda: caget(sys.argv[1]), pv.get, pv.wait_for_connection):
            try:
                call()
            except RuntimeError as error:
                assert str(error) == "Expected CA context is unset"
            else:
                raise AssertionError(call)
        """,
        ioc["ao"],
    )


def test_without_preemptive_callbacks(ioc: SoftIOC) -> None:
    run_python(
        """
        import sys, threading, time
        from epicsx import ca, PV
        ca.PREEMPTIVE_CALLBACK = False
        seen, told = [], []

        def f(**kwds):
            seen.append(kwds["value"])
            assert threading.current_thread() is threading.main_thread()

        pv = PV(sys.argv[1], callback=f, connection_callback=lambda **kwds: told.append(kwds["conn"]))
        assert pv.wait_for_connection(5) and pv.connected
        assert told == [True]
        assert not [t for t in threading.enumerate() if t.name.startswith("epicsx")]
        deadline = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < deadline:
            before = len(seen)
            time.sleep(0.15)
            assert len(seen) == before
            ca.poll()
        assert len(seen) >= 3
        assert pv.value >= seen[-1]
        tries = []
        for _ in range(5):  # a busy machine may put us aside, or the IOC that counts
            begun, before = time.monotonic(), len(seen)
            ca.pend_event(0.5)
            tries.append((time.monotonic() - begun, len(seen) - before))
            assert tries[-1][0] > 0.45, tries
            if tries[-1][0] < 1.0 and tries[-1][1] >= 2:
                break
        else:
            raise AssertionError(tries)
        done = []
        assert pv.put(1, wait=True, callback=lambda **kwds: done.append(1)) == 1
        assert done == [1]
        """,
        ioc["cnt:10hz"],
    )


def test_after_fork(ioc: SoftIOC) -> None:
    result = run_python(
        """
        import os, sys
        from epicsx import ca, caget, camonitor, PV
        from epicsx.pv import _PVcache_
        from epicsx.functional import _PVmonitors_
        name = sys.argv[1]
        pv = PV(name, callback=lambda **kwds: None)
        camonitor(name, callback=lambda **kwds: None)
        assert caget(name) is not None and _PVmonitors_
        ca.create_channel(name)
        child = os.fork()
        if child == 0:
            try:
                assert not _PVcache_ and not _PVmonitors_ and not ca._cache and ca.libca is None
                assert not pv.connected
                assert caget(name) is not None
                print("child is well", flush=True)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert caget(name) is not None
        print("parent is well", flush=True)
        """,
        ioc["ao"],
        timeout=40,
    )
    assert "child is well" in result.stdout
    assert "parent is well" in result.stdout
