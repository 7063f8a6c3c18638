"""What else programs use of ca and dbr: decorators, structures, libraries, and methods seldom called."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

from oracle.steps import Calls, Lab, step


@step("decorators")
def decorators(t: Lab) -> None:
    """Those of ca and pv, around functions of a program's own."""
    ca = t.epics.ca

    def echo(chid: Any, *args: Any, **kws: Any) -> Any:
        """Say what it was given."""
        return (type(chid).__name__, args, kws)

    chid = ca.create_channel(t.s("ao"), connect=True)
    for name in ("withCA", "withCHID", "withConnectedCHID", "withMaybeConnectedCHID"):
        wrapped = getattr(ca, name)(echo)
        t.see(f"{name} name", lambda wrapped=wrapped: (wrapped.__name__, wrapped.__doc__))
        t.see(f"{name} chid", wrapped, chid, 1, two=2)
        t.see(f"{name} number", wrapped, chid.value)
        t.see(f"{name} text", wrapped, "text")
        t.see(f"{name} none", wrapped, None)
    missing = ca.create_channel(t.s("nobody"))
    t.see("withCHID missing", ca.withCHID(echo), missing)
    t.see("withConnectedCHID missing", ca.withConnectedCHID(echo), missing, timeout=0.05)
    t.see("withMaybeConnectedCHID missing", ca.withMaybeConnectedCHID(echo), missing, timeout=0.05)
    t.see("withInitialContext", ca.withInitialContext(echo), chid)
    for status in (1, 80, 72, 192):
        t.see(f"withSEVCHK {status}", ca.withSEVCHK(lambda status=status: status))
        t.see(f"PySEVCHK {status}", ca.PySEVCHK, "my_function", status)
        t.see(f"PySEVCHK {status} expected", ca.PySEVCHK, "my_function", status, status)


@step("libraries")
def libraries(t: Lab) -> None:
    """Where they are is another matter; that they are there is not."""
    ca = t.epics.ca
    for name in ("find_libca", "find_libCom"):
        t.see(f"{name} is a text", lambda name=name: type(getattr(ca, name)()).__name__)
    t.see("find_lib", lambda: os.path.isfile(ca.find_lib("ca")))
    t.see("version", ca.version)
    for status in range(60):
        t.see(f"message {status}", ca.message, status * 8 + 1)


@step("contexts by all names")
def contexts(t: Lab) -> None:
    """context_create and context_destroy, in a thread of its own."""
    ca = t.epics.ca
    told: list[Any] = []

    def work() -> None:
        told.append(type(ca.context_create()).__name__)
        told.append(type(ca.current_context()).__name__)
        told.append(ca.current_context() == ca.initial_context)
        told.append(type(ca.context_destroy()).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10.0)
    t.see("thread", list(told))


@step("the cache by chid")
def cache(t: Lab) -> None:
    """_get_cache_by_chid, and what an item knows."""
    ca = t.epics.ca
    chid = ca.create_channel(t.s("ao"), connect=True)
    item = ca._get_cache_by_chid(chid.value)
    t.see("item", lambda: (item.pvname, item.conn, type(item.chid).__name__))
    t.see("same", lambda: item is ca._cache[ca.current_context()][t.s("ao")])
    t.see("unknown", ca._get_cache_by_chid, 987654321)


@step("structures")
def structures(t: Lab) -> None:
    """Of dbr: their sizes, offsets and what is made of them."""
    dbr = t.epics.dbr
    for number, kind in sorted(dbr.Map.items()):
        if number > 34:
            continue
        t.see(f"{number} name", lambda kind=kind: kind.__name__)
        t.see(f"{number} size", lambda kind=kind: ctypes.sizeof(kind))
        t.see(f"{number} fields", lambda kind=kind: [f[0] for f in getattr(kind, "_fields_", ())])
        t.see(
            f"{number} offsets",
            lambda kind=kind: [getattr(kind, f[0]).offset for f in getattr(kind, "_fields_", ())],
        )
    t.see("value_offset", lambda: dict(dbr.value_offset))
    stamp = dbr.TimeStamp(secs=1000, nsec=123456789)
    t.see("make_unixtime", dbr.make_unixtime, stamp)
    t.see("limits", lambda: dbr.ctrl_limits)
    t.see("_gen_ctrl_lims", lambda: [name for name, _ in dbr._gen_ctrl_lims()])
    value = (ctypes.c_double * 2)(1.5, 2.5)
    args = dbr.event_handler_args(type=dbr.DOUBLE, count=2, raw_dbr=ctypes.addressof(value))
    t.see(
        "cast_args native",
        lambda: [part if part is None else list(part) for part in dbr.cast_args(args)],
    )
    timed = dbr.time_double(status=3, severity=2, value=4.5)
    args = dbr.event_handler_args(type=dbr.TIME_DOUBLE, count=1, raw_dbr=ctypes.addressof(timed))
    t.see("cast_args time", lambda: dbr.cast_args(args)[0].severity)
    t.see("cast_args time value", lambda: list(dbr.cast_args(args)[1]))
    args.type = 99
    t.see("cast_args unknown", dbr.cast_args, args)
    seen: list[Any] = []
    function = dbr.make_callback(lambda args: seen.append(args.op), dbr.connection_args)
    t.see("make_callback", lambda: callable(function))


@step("Alarm by hand")
def check_alarm(t: Lab) -> None:
    """check_alarm, called as the PV calls it."""
    calls = Calls()
    watch = t.epics.Alarm(
        t.p("double"), comparison="ge", trip_point=5, callback=calls, alert_delay=0.0
    )
    t.see("connected", lambda: watch.pv.wait_for_connection(5))
    t.settle()
    for value in (1, 5, 6, None, 4.5, 5):
        t.see(f"check {value} {len(calls)}", watch.check_alarm, pvname="x", value=value)
        t.see(f"state {value} {len(calls)}", lambda: watch.alarm_state)
    t.see("calls", calls.values)


@step("Device properties")
def properties(t: Lab) -> None:
    """pv_property."""
    device_module = t.epics.device

    class Mine(t.epics.Device):  # type: ignore[misc,name-defined]
        value = device_module.Device.pv_property("VAL")
        text = device_module.Device.pv_property("VAL", as_string=True)

    t.epics.caput(t.p("ao"), 2.5, wait=True)
    mine = Mine(t.p("ao"), delim=".", attrs=("VAL", "PREC"))
    t.wait(lambda: mine.get("VAL") == 2.5)
    t.see("value", lambda: mine.value)
    t.see("text", lambda: mine.text)
