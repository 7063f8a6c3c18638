"""Habits of scripts written for pyepics: loops that poll, methods replaced, names of C, odd arguments."""

from __future__ import annotations

import ctypes
import gc
import pickle
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import idle, run_python, takes, wait_until

from epicsx import ca, caget, caput, dbr
from epicsx import pv as pv_module
from epicsx.device import Device
from epicsx.functional import cainfo, camonitor
from epicsx.pv import PV, get_pv
from epicsx.testing import SoftIOC


def connected(name: str, **options: Any) -> PV:
    pv = PV(name, **options)
    assert pv.wait_for_connection(5)
    return pv


# --------------------------------------------------------------------- polling


def test_polling_until_a_put_is_complete(ioc: SoftIOC) -> None:
    """Each poll is short, whoever waits for what: in C and in pyepics no put is waited for."""
    pv = connected(ioc["slow2"])

    def longest() -> float:
        idle(ioc, "slow2")
        pv.put(1, use_complete=True)
        rounds = []
        while not pv.put_complete:
            begun = time.monotonic()
            pv.poll(0.01)
            Device(ioc["ao"], delim=".", attrs=("VAL",))  # polls too
            rounds.append(time.monotonic() - begun)
        assert len(rounds) > 3
        return max(rounds)

    # a machine that puts this process aside makes some round longer
    assert any(longest() < 0.25 for _ in range(5))


def test_pend_event_without_end(ioc: SoftIOC) -> None:
    run_python(
        """
        import signal, time
        from epicsx import ca
        class Enough(Exception):
            pass
        def enough(*args):
            raise Enough
        signal.signal(signal.SIGALRM, enough)
        ca.initialize_libca()
        begun = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            ca.pend_event(0)
        except Enough:
            pass
        assert time.monotonic() - begun > 0.25
        assert ca.poll(0) == 1
        """
    )


def test_the_names_of_c(ioc: SoftIOC) -> None:
    connected(ioc["ao"])
    assert ca.libca.ca_pend_event(ctypes.c_double(1e-3)) == dbr.ECA_TIMEOUT
    assert ca.libca.ca_pend_io(ctypes.c_double(0.1)) == dbr.ECA_NORMAL
    assert ca.libca.ca_test_io() == dbr.ECA_IODONE
    assert ca.libca.ca_message(ctypes.c_long(80)).startswith(b"User specified timeout")


# ----------------------------------------------------------- methods replaced


def test_methods_of_a_subclass_are_called(ioc: SoftIOC) -> None:
    said: list[str] = []

    class Mine(PV):
        def run_callbacks(self) -> None:
            said.append("all")
            super().run_callbacks()

        def run_callback(self, index: Any) -> None:
            said.append(f"one {index}")
            super().run_callback(index)

        def get_with_metadata(self, *args: Any, **kwds: Any) -> Any:
            said.append("metadata")
            return super().get_with_metadata(*args, **kwds)

        def get_ctrlvars(self, timeout: float = 5, warn: bool = True) -> Any:
            said.append("control")
            return super().get_ctrlvars(timeout, warn)

    seen: list[Any] = []
    ioc.write("longout", 1)  # another test may have left the largest there is
    pv = Mine(ioc["longout"])
    assert pv.wait_for_connection(5)
    assert pv.get(with_ctrlvars=True) == pv.value
    # The monitor's first event may call run_callbacks meanwhile, on the dispatcher.
    assert [each for each in said if each != "all"][:2] == ["metadata", "control"]
    pv.add_callback(lambda value=None, **kwds: seen.append((value, pv.value)), index=7)
    del said[:]
    new = pv.get() + 1
    pv.put(new, wait=True)
    wait_until(lambda: (new, new) in seen)
    wait_until(lambda: said[-2:] == ["all", "one 7"])
    pv.disconnect()


def test_methods_of_one_pv_are_called(ioc: SoftIOC) -> None:
    pv = connected(ioc["longout"], callback=lambda **kwds: None)
    called = threading.Event()
    pv.run_callbacks = called.set  # type: ignore[method-assign]
    pv.put(1 if pv.get() != 1 else 2, wait=True)
    assert called.wait(5.0)
    pv.get_with_metadata = lambda *args, **kwds: {"value": "mine"}  # type: ignore[method-assign]
    assert pv.get() == "mine"


def test_methods_that_know_keywords_only(ioc: SoftIOC) -> None:
    class Mine(PV):
        def get_with_metadata(self, **kwds: Any) -> Any:  # type: ignore[override]
            return super().get_with_metadata(**kwds)

    pv = Mine(ioc["ao"])
    assert pv.wait_for_connection(5)
    assert pv.get(with_ctrlvars=True, as_string=True) == pv.char_value


def test_a_get_ctrlvars_that_reads(ioc: SoftIOC) -> None:
    """It is called while these data are unknown, and not by its own read again."""
    called: list[Any] = []

    class Mine(PV):
        def get_ctrlvars(self, timeout: float = 5, warn: bool = True) -> Any:
            found = super().get_ctrlvars(timeout, warn)
            called.append(self.get(as_string=True))
            return found

    ca.clear_channel(ca.create_channel(ioc["ao"]))
    pv = Mine(ioc["ao"])
    assert pv.wait_for_connection(5)
    assert {pv.get(as_string=True) for _ in range(5)} == set(called)
    assert len(called) == 1


def test_run_callbacks_is_called_without_callbacks_too(ioc: SoftIOC) -> None:
    called = threading.Event()

    class Mine(PV):
        def run_callbacks(self) -> None:
            called.set()
            raise RuntimeError("on purpose")

    pv = Mine(ioc["longout"])
    assert called.wait(5.0)
    face = pv._face
    assert face is not None
    wait_until(lambda: face.stats.callback_errors >= 1)
    pv.disconnect()


# ------------------------------------------------------------ within callbacks


def test_functions_in_a_connection_callback(ioc: SoftIOC) -> None:
    """Also of a PV whose own connection callbacks have still to run."""
    found: dict[str, Any] = {}
    ready = threading.Event()
    caput(ioc["longout"], 4, wait=True)
    ca.clear_cache()

    def first(pvname: str = "", conn: bool = False, **kwds: Any) -> None:
        if not conn or found:
            return
        other = ioc["longout"]
        found["wait"] = get_pv(other).wait_for_connection(5)
        found["caget"] = caget(other)
        found["own"] = caget(pvname)
        found["put"] = caput(other, 8, wait=True)
        found["then"] = caget(other, use_monitor=False)
        found["info"] = cainfo(other, print_out=False)
        found["all"] = Device(ioc.prefix, attrs=("longout",)).get_all()
        camonitor(other, callback=lambda **kwds: None)
        ready.set()

    get_pv(ioc["ao"], connection_callback=first)
    get_pv(ioc["longout"], connection_callback=lambda **kwds: None)
    assert ready.wait(10.0)
    assert (found["wait"], found["caget"], found["put"], found["then"]) == (True, 4, 1, 8)
    assert found["own"] is not None
    assert "longout" in found["info"]
    assert found["all"]["longout"] is not None


def test_a_callback_that_disconnects_its_pv(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    named = threading.Event()  # the first event may come before `connected` has returned

    def last(**kwds: Any) -> None:
        assert named.wait(5.0)
        pv.disconnect()
        seen.append((pv._args["value"], pv.units, pv.severity, pv.connected))

    pv = connected(ioc["longout"], callback=last)
    named.set()
    wait_until(lambda: seen)
    assert seen == [(None, None, None, False)]
    assert not caplog.records


def test_a_pv_that_is_disconnected_while_its_callback_runs(ioc: SoftIOC) -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[Any] = []

    def slow(**kwds: Any) -> None:
        begun.set()
        assert go_on.wait(5.0)
        seen.append(pv._args["value"])

    pv = connected(ioc["longout"], callback=slow)
    assert begun.wait(5.0)
    pv.disconnect()
    go_on.set()
    wait_until(lambda: seen)
    assert seen == [None]


def test_the_text_of_a_pv_that_is_disconnected(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc('record(ao, "$(P)x") { field(VAL, "1.5") field(PREC, "2") field(PINI, "YES") }')
    pv, plain = connected(ioc["x"]), connected(ioc["x"], auto_monitor=False)
    assert pv.char_value == plain.char_value == "1.50"
    never = PV(ioc["x"] + ".DRVH")
    assert never.wait_for_connection(5)
    ioc.stop()
    wait_until(lambda: not pv.connected)

    def texts() -> None:
        assert pv.char_value == plain.char_value == "1.50"

    takes(0.0, 0.5, texts)


def test_a_verbose_pv_tells_each_value(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    chid = ca.create_channel(ioc["longout"], connect=True)
    ca.put(
        chid, 0, wait=True
    )  # before there is a monitor, which might still tell of the value before
    pv = connected(ioc["longout"])
    wait_until(lambda: pv.value == 0)
    talker = connected(ioc["longout"], verbose=True)
    wait_until(lambda: talker.value == 0)
    text = ""

    def told() -> bool:
        nonlocal text
        text += capsys.readouterr().out
        return ": 40 (" in text

    for i in range(1, 41):
        ca.put(chid, i)
    wait_until(told)
    values = [int(line.split()[1]) for line in text.splitlines() if line.startswith(talker.pvname)]
    assert values == sorted(set(values))  # the server may leave some out, but none comes twice
    talker.disconnect()


# ------------------------------------------------------------------- contexts


def test_another_context_does_not_end_the_channels_of_the_first(ioc: SoftIOC) -> None:
    """Nor does its end: those of a PV, of a PV without a chid, and of create_channel."""
    one = connected(ioc["ao"], auto_monitor=False)
    two = connected(ioc["longout"])
    chid = ca.create_channel(ioc["stringout"], connect=True)
    assert isinstance(two.chid, dbr.chid_t)
    told: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            ca.create_context()
            for name in ("ao", "longout", "stringout"):
                mine = ca.create_channel(ioc[name], connect=True)
                ca.create_subscription(mine, callback=lambda **kwds: told.append(kwds))
                wait_until(lambda: told)
                ca.clear_channel(mine)
                with pytest.raises(ca.ChannelAccessException, match="Unexpected channel ID"):
                    ca.get(mine)
                del told[:]
            PV(ioc["ao"]).get()
            ca.create_channel(ioc["longout"], connect=True)
            ca.destroy_context()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20.0)
    assert not failed
    assert one.connected
    assert two.connected
    assert one.get() is not None
    assert two.get(use_monitor=False) is not None
    assert ca.get(chid) is not None
    del told[:]
    two.put(1 if two.get() != 1 else 2, wait=True)
    assert not told  # the subscriptions of the other context have ended with their channels


def test_the_end_of_a_context_ends_what_it_alone_uses(ioc: SoftIOC) -> None:
    heard: list[Any] = []
    kept: list[PV] = []
    connected(ioc["longout"])  # the first context has used it, and let it go

    def work() -> None:
        ca.create_context()
        for name, clear in (("longout", False), ("mbbo", True)):
            pv = PV(ioc[name], callback=lambda value=None, **kwds: heard.append(value))
            assert pv.wait_for_connection(5)
            wait_until(lambda: heard)
            kept.append(pv)
            if clear:
                ca.clear_channel(pv.chid)
        ca.destroy_context()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20.0)
    assert len(kept) == 2
    wait_until(lambda: not any(pv.connected for pv in kept))
    del heard[:]
    for name in ("longout", "mbbo"):
        writer = connected(ioc[name])
        writer.put(1 if writer.get() != 1 else 2, wait=True)
    assert not heard
    # and the first context has its channels for itself again
    pv = connected(ioc["longout"], callback=lambda **kwds: heard.append(kwds))
    wait_until(lambda: heard)
    ca.clear_channel(pv.chid)
    assert not pv.connected


def test_a_subscription_that_is_cleared_lets_go_of_its_callback(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["longout"], connect=True)
    seen = threading.Event()

    def callback(**kwds: Any) -> None:
        seen.set()

    event = ca.create_subscription(chid, callback=callback)[2]
    assert seen.wait(5.0)
    ca.clear_subscription(event)
    gone = weakref.ref(callback)
    del callback, event
    gc.collect()
    wait_until(lambda: gone() is None)


def test_get_pv_while_another_connection_callback_runs(ioc: SoftIOC) -> None:
    begun, go_on, told = threading.Event(), threading.Event(), threading.Event()

    def slow(conn: bool = False, **kwds: Any) -> None:
        begun.set()
        assert go_on.wait(5.0)

    get_pv(ioc["longin"], connection_callback=slow)
    assert begun.wait(5.0)
    get_pv(ioc["longin"], connection_callback=lambda **kwds: told.set())
    assert told.wait(5.0)
    go_on.set()


def test_get_pv_of_two_threads_tells_once(ioc: SoftIOC, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    class Slow(PV):
        def __init__(self, *args: Any, **kwds: Any) -> None:
            super().__init__(*args, **kwds)
            both.wait(5.0)

    monkeypatch.setattr(pv_module, "default_pv_class", Slow)
    keeper = connected(ioc["longin"])
    told: list[Any] = []
    found: list[PV] = []

    def work(number: int) -> None:
        made = get_pv(ioc["longin"], connection_callback=lambda **kwds: told.append(number))
        found.append(made)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert keeper.connected
    assert found[0] is found[1]
    wait_until(lambda: sorted(told) == [0, 1])


# -------------------------------------------------------------- single values


def test_count_is_for_one_read(ioc: SoftIOC) -> None:
    pv = connected(ioc["wf:double:n"], count=5, auto_monitor=False)
    assert [len(pv.get()), len(pv.get(count=8)), len(pv.get())] == [5, 8, 5]
    assert pv.count == 5


def test_reads_of_time_and_control_leave_the_value(ioc: SoftIOC) -> None:
    pv = connected(ioc["longout"], auto_monitor=False)
    other = connected(ioc["longout"])
    other.put(7, wait=True)
    assert pv.get() == 7
    other.put(70, wait=True)
    pv.get_timevars()
    pv.get_ctrlvars()
    assert pv.value == 7
    fresh = connected(ioc["longout"], auto_monitor=False)
    fresh.get_timevars()
    assert fresh.value == 70


def test_metadata_of_the_form_ctrl(ioc: SoftIOC) -> None:
    pv = connected(ioc["ao"], form="ctrl")
    found = pv.get_with_metadata(with_ctrlvars=True, use_monitor=False)
    assert {"value", "units", "severity", "upper_ctrl_limit"} <= set(found)
    assert not {"pvname", "chid", "type"} & set(found)


def test_the_length_of_texts_is_a_live_setting(
    ioc: SoftIOC, monkeypatch: pytest.MonkeyPatch
) -> None:
    pv = connected(ioc["w:char"])
    pv.put("abc", wait=True)
    plain = connected(ioc["w:char"], auto_monitor=False)
    assert plain.char_value == "abc"
    monkeypatch.setattr(ca, "AUTOMONITOR_MAXLENGTH", 2)
    assert plain.char_value.startswith("<array size=")


def test_odd_arguments(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    with pytest.raises(ca.CASeverityException, match="Invalid element count"):
        ca.get(chid, count=-1)
    with pytest.raises(ca.CASeverityException, match="data type"):
        ca.get(chid, ftype="x")  # type: ignore[arg-type]
    for name in ("", " ", "a\0b"):
        with pytest.raises(ca.CASeverityException, match="Invalid string"):
            PV(name)
        with pytest.raises(ca.CASeverityException, match="Invalid string"):
            get_pv(name)
    assert PV(ioc["ao"].encode()).pvname == ioc["ao"]
    for args in ((), ("a",), ("a", "b"), (3,), (3, "x"), (None,), (1, 2, 3, 4)):
        error, plain = ca.ChannelAccessException(*args), Exception(*args)
        assert (error.args, str(error)) == (plain.args, str(plain))
        again = pickle.loads(pickle.dumps(error))
        assert (again.args, str(again)) == (plain.args, str(plain))
    assert get_pv(ioc["ao"].encode()) is get_pv(ioc["ao"])
    assert ca.create_channel(ioc["ao"], callback=3) == chid  # type: ignore[arg-type]
    assert caput(ioc["w:string"], ["a", 2.5, None], wait=True) == 1
    assert list(caget(ioc["w:string"], use_monitor=False)) == ["a", "2.5", "None"]
    with pytest.raises(ValueError, match="mask"):
        caput(ioc["w:double"], np.ma.masked_array([1.0, 2.0], [False, True]))


def test_warnings_name_the_line_of_the_program(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    calls: list[Callable[[], Any]] = [
        lambda: ca.get_complete(chid),
        lambda: ca.get_complete_with_metadata(chid),
        lambda: get_pv(ioc["ao"], context=ca.current_context()),
    ]
    for call in calls:
        ca.clear_channel(chid)
        chid = ca.create_channel(ioc["ao"], connect=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(("given", "used"), [("latin-1", "latin-1"), ("nosuch", "utf-8")])
def test_the_encoding_of_the_environment(given: str, used: str) -> None:
    script = "import epicsx.utils as u; assert (u.IOENCODING, u.bytes2str(b'a')) == ({!r}, 'a')"
    run_python(script.format(used), env={"PYEPICS_ENCODING": given})
