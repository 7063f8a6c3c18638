"""How a PV connects: the order of events, waiting, losing, closing; threads."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support import takes, wait_until
from support.monitors import dispatcher_held

from epicsx import _ca, ca
from epicsx.pv import PV, _PVcache_, get_pv
from epicsx.testing import SoftIOC


def test_before_the_first_connection() -> None:
    pv = PV("nobody:has:this", connection_timeout=0.05)
    assert repr(pv) == "<PV 'nobody:has:this': not connected>"
    assert (pv.connected, pv.type, pv.ftype, pv.nelm) == (False, "unknown", 13, 0)
    assert (pv.access, pv.value, pv.units, pv.count) == ("unknown", None, None, None)
    assert pv.put(1) is None
    assert pv.info is None


@pytest.mark.parametrize("timeout", [0.2, 0.6])
def test_unknown_pv_costs_its_timeout(timeout: float) -> None:
    pv = PV("nobody:has:this", connection_timeout=timeout)

    def fails(call: Callable[[], object]) -> None:
        assert not call()

    for call in (pv.wait_for_connection, pv.get, pv.get_ctrlvars, lambda: pv.get(timeout=timeout)):
        takes(timeout, timeout * 1.05 + 0.02, partial(fails, call))


def test_name_is_stripped(ioc: SoftIOC) -> None:
    pv = PV(f"  {ioc['ao']} ")
    assert pv.pvname == ioc["ao"]
    assert pv.wait_for_connection(5)
    assert repr(pv) == f"<PV '{ioc['ao']}', count=1, type=time_double, access=read/write>"
    assert pv.host.endswith(str(ioc.server_port))
    array = PV(ioc["wf:double:n"])
    assert array.wait_for_connection(5)
    array.get()
    assert "count=10/16" in repr(array)


def test_order_of_events(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc('record(calc, "$(P)calc") { field(PINI, "YES") }')
    seen: list[Any] = []

    def on_connection(pvname: str = "", conn: bool = False, pv: Any = None) -> None:
        seen.append(("connection", pvname, conn, pv.connected, ca.isConnected(pv.chid)))

    def on_access(read: bool, write: bool, pv: Any = None) -> None:
        seen.append(("access", read, write))

    def on_value(**kwds: Any) -> None:
        seen.append(("value", kwds["value"]))

    ioc.pause()  # what is connected before its constructor ends is told there, in another order
    pv = PV(
        ioc["calc"],
        connection_callback=on_connection,
        access_callback=on_access,
        callback=on_value,
    )
    assert not pv.connected
    ioc.resume()
    wait_until(lambda: len(seen) >= 3)
    assert seen[0] == ("access", True, True)
    assert seen[1] == ("connection", ioc["calc"], True, False, True)
    assert seen[2][0] == "value"
    wait_until(lambda: pv.connected)
    assert len(seen) == 3


def test_already_connected_is_told_in_the_constructor(ioc: SoftIOC) -> None:
    told: list[Any] = []
    first = PV(ioc["ao"], callback=lambda **kwds: told.append(kwds["value"]))
    wait_until(lambda: told)
    assert first.connected
    seen: list[Any] = []
    me = threading.get_ident()

    def on_connection(pvname: str = "", conn: bool = False, pv: Any = None) -> None:
        seen.append((conn, pv.connected, pv.get() is not None, threading.get_ident() == me))

    pv = PV(
        ioc["ao"],
        connection_callback=on_connection,
        access_callback=lambda read, write, pv: seen.append((read, write)),
    )
    assert pv.connected
    assert seen == [(True, False, True, True), (True, True)]
    time_of_news = len(seen)
    assert pv.wait_for_connection(1)
    assert len(seen) == time_of_news


def test_waiting_includes_the_own_connection_callbacks(ioc: SoftIOC) -> None:
    done = threading.Event()

    def slow(**kwds: Any) -> None:
        time.sleep(0.2)
        done.set()

    pv = PV(ioc["ai"], connection_callback=slow)
    assert pv.wait_for_connection(5)
    assert done.is_set()


def test_everything_works_inside_a_connection_callback(ioc: SoftIOC) -> None:
    found: list[Any] = []

    def on_connection(pv: Any = None, conn: bool = False, **kwds: Any) -> None:
        from epicsx.functional import caget, caput

        found.append(pv.get())
        found.append(pv.put(pv.get(), wait=True, timeout=5))
        found.append(caget(ioc["longout"], timeout=5) is not None)
        found.append(caput(ioc["puts"], 1, wait=True, timeout=5))
        found.append(PV(ioc["ai"]).wait_for_connection(5))
        found.append(pv.units)

    pv = PV(ioc["ao"], connection_callback=on_connection)
    assert pv.wait_for_connection(10)
    wait_until(lambda: len(found) == 6)
    assert found[0] is not None
    assert found[1:] == [1, True, 1, True, "mm"]


def test_a_failing_connection_callback_is_logged(
    spare_ioc: Callable[..., SoftIOC], caplog: pytest.LogCaptureFixture
) -> None:
    ioc = spare_ioc('record(ao, "$(P)ao") {}')
    name = ioc["ao"]
    ioc.pause()  # or it might be connected, and told, before its constructor ends
    pv = PV(name, connection_callback=lambda **kwds: 1 / 0)
    told: list[bool] = []
    pv.connection_callbacks.append(lambda **kwds: told.append(kwds["conn"]))
    ioc.resume()
    assert pv.wait_for_connection(20)
    assert told == [True]
    assert name in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_no_news_between_a_new_listener_and_its_notice(
    ioc: SoftIOC, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes when it is connected hears of the next change only, whatever the dispatcher does meanwhile."""
    pv = PV(ioc["ao"])
    assert pv.wait_for_connection(5)
    told: list[Any] = []
    noticed = pv._listeners_changed
    news = [
        threading.Thread(target=pv._on_core_access, args=(True, True)),
        threading.Thread(target=pv._on_core_connection, args=(True, 6)),
    ]

    def late(first: Any = None) -> None:
        if news:
            thread = news.pop(0)
            thread.start()
            thread.join(0.2)  # it waits for the notice; were it not so, it would be through now
            started.append(thread)
        noticed(first)

    started: list[threading.Thread] = []
    monkeypatch.setattr(pv, "_listeners_changed", late)
    pv.access_callbacks.append(lambda read, write, pv: told.append((read, write)))
    pv.connection_callbacks.append(lambda **kwds: told.append(kwds["conn"]))
    for thread in started:
        thread.join(5.0)
    assert (len(started), told) == (2, [])
    pv.disconnect()  # while it is still the same function by which the context keeps the PV


def test_access_callbacks(ioc: SoftIOC) -> None:
    ioc.write("access", 1)
    wait_until(lambda: "result=TRUE" in ioc.shell("asprules SWITCHED"))
    seen: list[tuple[bool, bool]] = []
    pv = PV(ioc["switched"], access_callback=lambda read, write, pv: seen.append((read, write)))
    wait_until(lambda: seen == [(True, True)])
    wait_until(lambda: pv.connected)
    assert pv.access == "read/write"
    ioc.write("access", 0)
    try:
        wait_until(lambda: seen == [(True, True), (True, False)])
        assert (pv.access, pv.write_access, pv.read_access) == ("read-only", False, True)
        pv.access_callbacks = []
    finally:
        ioc.write("access", 1)
    wait_until(lambda: pv.write_access)
    assert len(seen) == 2


def test_from_any_thread(ioc: SoftIOC) -> None:
    pv = PV(ioc["ao"])
    found: list[Any] = []

    def work() -> None:
        found.append((pv.wait_for_connection(5), pv.get(), pv.put(pv.get()), PV(ioc["ai"]).get()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4
    assert all(f[0] and f[1] is not None and f[2] == 1 for f in found)


def test_disconnect_and_reconnect(ioc: SoftIOC) -> None:
    values: list[Any] = []
    pv = get_pv(ioc["ao"], connect=True, callback=lambda **kwds: values.append(kwds["value"]))
    wait_until(lambda: values)
    key = (ioc["ao"], "time", pv.context)
    assert _PVcache_[key] is pv
    pv.disconnect()
    assert key not in _PVcache_
    assert not pv.connected
    assert pv.get(timeout=0.1) is None
    assert pv.callbacks == {}
    assert pv.type == "time_double"  # pyepics: KeyError
    assert pv.auto_monitor_mask is None
    assert pv.reconnect()
    assert pv.get() is not None
    pv.disconnect()
    assert pv.connect()
    assert pv.auto_monitor_mask == 5


def test_a_cleared_channel_under_a_living_pv(ioc: SoftIOC) -> None:
    pv = PV(ioc["ao"])
    assert pv.wait_for_connection(5)
    number = pv.chid.value
    assert ca.name(number) == ca.name(pv.chid) == ioc["ao"]
    assert ca.clear_channel(pv.chid) == 1
    assert not pv.connected
    assert pv.get(timeout=0.1) is None
    with pytest.raises(ca.ChannelAccessException, match="Unexpected channel ID"):
        ca.name(number)
    assert pv.reconnect()
    assert pv.chid.value != number
    assert pv.get() is not None
    pv.chid = None
    pv.context = None
    with pytest.raises(RuntimeError, match="Expected CA context is unset"):
        pv.wait_for_connection()
    with pytest.raises(RuntimeError, match="Expected CA context is unset"):
        pv.get()


def test_equal_and_hashable(ioc: SoftIOC) -> None:
    a, b, c = PV(ioc["ao"]), PV(ioc["ao"]), PV(ioc["ai"])
    assert a == b
    assert a != c
    assert a != ioc["ao"]
    assert len({a, b, c}) == 2
    assert a in {b: 1}


def test_copies(ioc: SoftIOC) -> None:
    pv = PV(ioc["ao"])
    assert pv.wait_for_connection(5)
    assert copy.copy(pv).get() == pv.get()
    with pytest.raises(ValueError, match=ioc["ao"]):
        copy.deepcopy(pv)
    with pytest.raises(ValueError, match=ioc["ao"]):
        pickle.dumps(pv)


def test_a_dropped_pv_is_collected_and_its_channel_closed(ioc: SoftIOC) -> None:
    name = ioc["bulk:0777"]
    pv = PV(name)
    assert pv.wait_for_connection(5)
    assert pv.get() is not None
    assert pv.chid.value in ca._chid_cache
    assert pv.callbacks == {}
    assert ca._cache[ca.current_context()][name].chid_int == pv.chid.value  # type: ignore[index]
    wait_until(lambda: name in ioc.casr().channels)
    number, gone = pv.chid.value, weakref.ref(pv)
    with dispatcher_held(
        ioc["longout"]
    ):  # it may still have been telling the PV that it is connected
        del pv
        assert gone() is None  # at once, without the garbage collector
    wait_until(lambda: name not in ioc.casr().channels)
    assert number not in ca._chid_cache
    assert name not in ca._cache[ca.current_context()]  # type: ignore[index]


def test_a_pv_with_a_callback_is_kept(ioc: SoftIOC) -> None:
    one: list[Any] = []
    two: list[Any] = []
    PV(ioc["cnt:10hz"], callback=lambda **kwds: one.append(kwds["value"]))
    PV(ioc["cnt:10hz"], callback=lambda **kwds: two.append(kwds["value"]))
    told: list[Any] = []
    PV(ioc["ao"], connection_callback=lambda **kwds: told.append(kwds["conn"]), auto_monitor=False)
    gc.collect()
    wait_until(lambda: len({*one} & {*two}) >= 4)  # both of them, the one as long as the other
    wait_until(lambda: told == [True])


def test_callbacks_pin_and_their_removal_unpins(ioc: SoftIOC) -> None:
    def f(**kwds: Any) -> None:
        pass

    def pinned(pv: PV) -> bool:
        return any(getattr(stay, "__self__", None) is pv for stay in _ca.context().pinned)

    pv = PV(ioc["ao"])
    changes: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (lambda: pv.add_callback(f, index=1), lambda: pv.remove_callback(1)),
        (lambda: pv.callbacks.update({3: (f, {})}), lambda: pv.callbacks.pop(3)),
        (lambda: pv.callbacks.__setitem__(3, (f, {})), lambda: pv.callbacks.__delitem__(3)),
        (lambda: pv.callbacks.setdefault(3, (f, {})), pv.clear_callbacks),
        (lambda: setattr(pv, "callbacks", {1: (f, {})}), lambda: setattr(pv, "callbacks", {})),
        (lambda: pv.connection_callbacks.append(f), lambda: pv.connection_callbacks.remove(f)),
        (lambda: pv.access_callbacks.extend([f]), lambda: pv.access_callbacks.clear()),
        (lambda: setattr(pv, "access_callbacks", [f]), lambda: setattr(pv, "access_callbacks", [])),
        (lambda: pv.connection_callbacks.insert(0, f), lambda: pv.clear_callbacks(True, True)),
    ]
    for add, remove in changes:
        add()
        assert pinned(pv)
        remove()
        assert not pinned(pv)
    pv.add_callback(f)
    pv.disconnect()
    assert not pinned(pv)


def test_appended_connection_callback_hears_of_the_next_change(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = spare_ioc('record(ao, "$(P)x") { field(VAL, "3") }')
    pv = PV(ioc["x"], auto_monitor=False)
    assert pv.wait_for_connection(10)
    told: list[bool] = []
    pv.connection_callbacks.append(lambda **kwds: told.append(kwds["conn"]))
    wait_until(lambda: pv.connected)
    ioc.kill()
    wait_until(lambda: told == [False])
    assert not pv.connected
    ioc.start()
    wait_until(lambda: told == [False, True], 30)
    wait_until(lambda: pv.connected)


def test_while_the_ioc_is_down(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(
        'record(ao, "$(P)x") { field(VAL, "3") field(EGU, "mm") field(PREC, "2") }'
        'record(mbbo, "$(P)e") { field(ZRST, "a") field(ONST, "b") }'
    )
    seen: list[Any] = []
    pv = PV(
        ioc["x"],
        connection_timeout=0.2,
        connection_callback=lambda **kwds: seen.append(("connection", kwds["conn"])),
        access_callback=lambda read, write, pv: seen.append(("access", read, write)),
    )
    enum = PV(ioc["e"])
    wait_until(lambda: pv.connected and pv.value == 3.0 and enum.enum_strs == ("a", "b"), 20)
    assert pv.units == "mm"
    chid, host = pv.chid, pv.host
    ioc.kill()
    wait_until(lambda: len(seen) == 4)
    assert seen[2:] == [("connection", False), ("access", False, False)]
    assert pv.get() is None
    assert pv.put(4) is None
    assert pv.info is None
    assert (pv.value, pv.severity is not None, pv.host, pv.nelm) == (3.0, True, host, 0)
    assert (pv.access, pv.read_access) == ("no access", False)
    ioc.restart(
        'record(ao, "$(P)x") { field(VAL, "5") field(EGU, "um") field(PREC, "2") }'
        'record(mbbo, "$(P)e") { field(ZRST, "c") field(ONST, "d") }'
    )
    wait_until(lambda: pv.connected and pv.value == 5.0, 40)
    assert pv.chid is chid
    wait_until(lambda: pv.units == "um")  # pyepics: mm for ever
    wait_until(lambda: enum.enum_strs == ("c", "d"))


def test_another_record_type_while_a_callback_blocks(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc('record(ao, "$(P)x") { field(VAL, "3") }record(ao, "$(P)y") {}')
    blocked, release = threading.Event(), threading.Event()

    def block(**kwds: Any) -> None:
        blocked.set()
        release.wait(60)

    pv = PV(ioc["x"])
    wait_until(lambda: pv.connected and pv.value == 3.0, 20)
    assert pv.type == "time_double"
    blocker = PV(ioc["y"], callback=block)
    try:
        assert blocked.wait(20)
        ioc.kill()
        wait_until(lambda: not pv.connected)
        ioc.restart(
            'record(mbbo, "$(P)x") { field(VAL, "1") field(ZRST, "a") field(ONST, "b") }'
            'record(ao, "$(P)y") {}'
        )
        assert pv.wait_for_connection(40)
        assert (pv.type, pv.ftype, pv.count) == ("time_enum", 17, 1)
        assert pv.get(use_monitor=False) == 1
        wait_until(lambda: pv.value == 1)
        assert pv.enum_strs == ("a", "b")
        assert pv.get(as_string=True) == "b"
        assert pv.put("a", wait=True) == 1
        wait_until(lambda: pv.get() == 0)
        assert PV(ioc["x"]).wait_for_connection(5)
    finally:
        release.set()
    wait_until(lambda: blocker.connected)


def test_auto_monitor(ioc: SoftIOC) -> None:
    pv = PV(ioc["ao"])
    assert pv.wait_for_connection(5)
    assert (pv.auto_monitor, pv.auto_monitor_mask) == (True, 5)
    large = PV(ioc["big:double"])
    assert large.wait_for_connection(5)
    assert (large.auto_monitor, large.auto_monitor_mask) == (False, None)
    assert PV(ioc["big:double"], count=100).connect()
    log_only = PV(ioc["ao"], auto_monitor=2)
    assert log_only.wait_for_connection(5)
    assert (log_only.auto_monitor, log_only.auto_monitor_mask) == (2, 2)
    pv.clear_auto_monitor()
    assert (pv.auto_monitor, pv.auto_monitor_mask) == (False, None)
    pv.auto_monitor = 4
    assert pv.auto_monitor_mask == 4
    never = PV(ioc["ao"], auto_monitor=False)
    assert never.wait_for_connection(5)
    assert never.auto_monitor_mask is None
    never.auto_monitor = True
    wait_until(lambda: never.value is not None)


def test_settings_are_live(ioc: SoftIOC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "AUTOMONITOR_MAXLENGTH", 5)
    monkeypatch.setattr(ca, "DEFAULT_CONNECTION_TIMEOUT", 0.125)
    monkeypatch.setattr(ca, "DEFAULT_SUBSCRIPTION_MASK", 4)
    assert PV("nobody:has:this").connection_timeout == 0.125
    array, scalar = PV(ioc["wf:double:n"]), PV(ioc["ao"])
    assert array.wait_for_connection(5)
    assert scalar.wait_for_connection(5)
    assert array.auto_monitor is False
    assert scalar.auto_monitor_mask == 4
    chars = PV(ioc["wf:char:n"], auto_monitor=True)
    assert chars.wait_for_connection(5)
    assert chars.char_value == "<array size=10, type=time_char>"


def test_subclass(ioc: SoftIOC, monkeypatch: pytest.MonkeyPatch) -> None:
    from epicsx import pv as module

    class Mine(PV):
        def __init__(self, pvname: str, **options: Any) -> None:
            self.own = 1
            super().__init__(pvname, **options)

        def _getarg(self, arg: str) -> Any:
            if self._args[arg] is None:
                return f"no {arg}"
            return super()._getarg(arg)

        def clear_callbacks(self) -> None:  # type: ignore[override]
            super().clear_callbacks()

    monkeypatch.setattr(module, "default_pv_class", Mine)
    pv = get_pv(ioc["ao"], connect=True, auto_monitor=False)
    assert isinstance(pv, Mine)
    assert pv.own == 1
    assert pv.enum_strs == "no enum_strs"
    assert isinstance(pv._args, dict)
    pv.disconnect()
