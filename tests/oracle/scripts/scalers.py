"""Scaler, on a simulated scaler record with the calc records of synApps."""

from __future__ import annotations

from typing import Any

from epics import devices
from oracle.readings import comes
from oracle.steps import Calls, Lab, step


def scaler(t: Lab, **kws: Any) -> Any:
    """Give a scaler that waits to be started."""
    made = devices.Scaler(t.p("sc"), **kws)
    for field in ("CONT", "CNT"):
        made.put(field, 0, wait=True)
    comes(t, made, CONT=0, CNT=0)
    return made


@step("Scaler")
def attributes(t: Lab) -> None:
    """Its attributes, of a record that nobody writes."""
    for nchan in (8, 4, 16):
        made = devices.Scaler(t.s("sc"), nchan=nchan)
        t.see(f"{nchan}: repr", lambda made=made: repr(made))
        if nchan > 8:
            continue  # there are eight calculations, and pyepics waits for each that is not there
        t.see(f"{nchan}: attributes", lambda made=made: sorted(made._pvs))
        t.see(f"{nchan}: PVs", lambda made=made: sorted(pv.pvname for pv in made._pvs.values()))
        t.see(f"{nchan}: getNames", made.getNames)
        t.see(f"{nchan}: Read", made.Read)
        t.see(f"{nchan}: Read of calculations", made.Read, use_calc=True)
        t.see(f"{nchan}: channels", lambda made=made: (made._nchan, list(made._chans)))
        for attr in ("CNT", "CONT", "TP", "T", "VAL", "NM1", "S2", "calc3", "expr4", "calc_enable"):
            t.see(f"{nchan}: {attr}", lambda made=made, attr=attr: getattr(made, attr))
            t.see(f"{nchan}: {attr} as text", made.get, attr, as_string=True)
        t.see(f"{nchan}: none", lambda made=made: made.NOSUCH)
        t.see(f"{nchan}: set none", lambda made=made: setattr(made, "NOSUCH", 1))
    t.see("class", lambda: devices.Scaler.attrs)
    t.see("class, channels", lambda: devices.Scaler.chan_attrs)
    t.see("class, calculations", lambda: dict(devices.Scaler.calc_attrs))
    t.see("class, keywords", lambda: dict(devices.Scaler.attr_kws))
    t.see("the state", lambda: dict(made.save_state()) if made._nchan < 9 else None)


@step("Scaler counts", timeout=40.0)
def counts(t: Lab) -> None:
    """Counting once, with and without waiting."""
    made = scaler(t)
    calls = Calls()
    made.add_callback("CNT", calls)
    t.see("OneShotMode", made.OneShotMode)
    t.see("CountTime", made.CountTime, 0.25)
    comes(t, made, TP=0.25)
    t.see("TP", lambda: made.TP)
    t.see("Count", made.Count, wait=True)
    comes(t, made, CNT=0, T=0.25)
    t.see("T", lambda: made.T)
    t.see("clock", lambda: t.wait(lambda: made.get("S1") == 2500000))
    t.see("Read", lambda: made.Read())
    t.see("Count of 0.1 s", made.Count, 0.1, wait=True)
    t.wait(lambda: made.get("CNT") == 0 and made.get("S1") == 1000000)
    t.see("Read then", lambda: made.Read())
    t.wait(lambda: calls.values()[-1:] == [0])
    before = len(calls)
    t.see("Count of 0.2 s by name", made.Count, ctime=0.2)
    t.see("begun", lambda: t.wait(lambda: 1 in calls.values()[before:]))
    t.see("ended", lambda: t.wait(lambda: made.get("CNT") == 0 and made.get("T") == 0.2))
    t.see("Read at the end", lambda: made.Read())
    t.wait(lambda: calls.values()[-2:] == [1, 0])
    t.see("told", lambda: calls.values()[-2:])


@step("Scaler counts again and again", timeout=40.0)
def again(t: Lab) -> None:
    """AutoCountMode, and back."""
    made = scaler(t)
    made.CountTime(0.1)
    ends = Calls()
    made.add_callback("VAL", ends)
    t.see("AutoCountMode", made.AutoCountMode)
    t.see("mode", lambda: t.wait(lambda: made.CONT == 1))
    t.see("mode as text", made.get, "CONT", as_string=True)
    t.see("OneShotMode", made.OneShotMode)
    t.see("mode then", lambda: t.wait(lambda: made.CONT == 0))


@step("Scaler calculations", timeout=40.0)
def calculations(t: Lab) -> None:
    """setCalc, EnableCalcs."""
    made = scaler(t)
    t.see("EnableCalcs", made.EnableCalcs)
    t.see("enabled", lambda: t.wait(lambda: made.calc_enable == 1))
    made.put("calc_enable", 0, wait=True)  # in scaler.db 0 is ENABLE
    for i, calc in ((1, "A/10"), (2, "B*2"), (3, "I")):
        t.see(f"setCalc {i}", made.setCalc, i, calc)
    comes(t, made, expr1="A/10", expr2="B*2", expr3="I", calc_enable=0)
    t.see("expression", lambda: made.expr2)
    made.Count(0.1, wait=True)
    t.wait(lambda: made.get("calc1") == 100000 and made.get("calc3") == 0.1)
    t.see("results", lambda: made.Read(use_calc=True))
    t.see("one", lambda: made.calc2)
