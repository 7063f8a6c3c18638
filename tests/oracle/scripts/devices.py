"""Device and Alarm."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from oracle.steps import Calls, Lab, step


@step("Device")
def device(t: Lab) -> None:
    """Attributes, get and put, callbacks, states."""
    epics = t.epics
    prefix = t.p("ao")
    epics.caput_many([t.p("double"), t.p("ao")], [1, 1.5], wait="each")
    device = epics.Device(prefix, delim=".", attrs=("VAL", "PREC", "EGU", "DESC"))
    t.see("repr", lambda: repr(device))
    t.see("VAL", lambda: device.VAL)
    t.see("EGU", lambda: device.EGU)
    t.see("late", lambda: device.HOPR)
    t.see("repr then", lambda: repr(device))
    t.see("get", device.get, "VAL")
    t.see("get text", device.get, "VAL", as_string=True)
    t.see("put", device.put, "VAL", 3.5, wait=True)
    t.wait(lambda: device.get("VAL") == 3.5)
    t.see("then", device.get, "VAL")
    device.VAL = 4.5
    t.wait(lambda: device.get("VAL") == 4.5)
    t.see("set", lambda: device.VAL)
    t.see("PV", lambda: t.describe.text(device.PV("VAL").pvname))
    t.see("add_pv", lambda: t.describe.text(device.add_pv(t.p("double"), attr="other").pvname))
    t.see("other", lambda: device.other)
    calls = Calls()
    t.see("add_callback", device.add_callback, "VAL", calls)
    device.put("VAL", 5.5, wait=True)
    t.wait(lambda: calls)
    t.see("called", lambda: calls.values()[-1])
    t.see("remove_callbacks", device.remove_callbacks, "VAL", 1)
    t.see("state", lambda: dict(device.save_state()))
    t.see("get_all", lambda: sorted(device.get_all()))
    t.see("restore", device.restore_state, {"VAL": 6.5})
    t.wait(lambda: device.get("VAL") == 6.5)
    t.see("restored", lambda: device.VAL)
    t.see("private", lambda: (device._delim, sorted(device._pvs), device._mutable, device._init))
    t.see("dir", lambda: [name for name in ("VAL", "put", "EGU") if name in dir(device)])
    t.see("doc", lambda: hasattr(device, "__nothing"))


@step("Device options")
def options(t: Lab) -> None:
    """mutable, aliases, nonpvs."""
    epics, prefix = t.epics, t.p("ao")
    fixed = epics.Device(prefix, delim=".", attrs=("VAL",), mutable=False)
    t.see("fixed", lambda: fixed.VAL)
    t.see("fixed unknown", lambda: fixed.EGU)
    named = epics.Device(
        prefix, delim=".", attrs=("VAL",), aliases={"value": "VAL", "units": "EGU"}
    )
    t.see("alias", lambda: named.value)
    t.see("alias late", lambda: named.units)
    named.value = 2.5
    t.wait(lambda: named.get("VAL") == 2.5)
    t.see("alias set", lambda: named.VAL)
    plain = epics.Device(prefix, delim=".", attrs=("VAL",), nonpvs=("mine",))
    plain.mine = 7
    t.see("nonpv", lambda: (plain.mine, "mine" in plain._pvs))
    bare = epics.Device(t.p(""))
    t.see("bare", lambda: bare.double is not None)
    t.see("bare repr", lambda: repr(bare))


@step("Device files")
def files(t: Lab) -> None:
    """write_state, read_state."""
    device = t.epics.Device(t.p("ao"), delim=".", attrs=("VAL", "PREC", "EGU"))
    device.put("VAL", 3.5, wait=True)
    t.wait(lambda: device.get("VAL") == 3.5)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state")
        t.see("write", device.write_state, path)
        lines = Path(path).read_text().splitlines()
        t.see("lines", lambda: lines[1:])
        t.see("head", lambda: lines[0].split(",time")[0].split("'")[0])
        t.see("read", lambda: dict(device.read_state(path) or {}))
        device.put("VAL", 1, wait=True)
        t.see("restore", device.read_state, path, restore=True)
        t.wait(lambda: device.get("VAL") == 3.5, 1)
        t.see("restored", lambda: device.VAL)


@step("Device subclass")
def subclass(t: Lab) -> None:
    """As the classes of epics.devices are written."""

    class Mine(t.epics.Device):  # type: ignore[misc,name-defined]
        attrs = ("VAL", "EGU", "DESC")
        _nonpvs = ("_prefix", "_pvs", "_delim", "note")

        def __init__(self, prefix: str) -> None:
            self.note = "before"
            t.epics.Device.__init__(self, prefix, delim=".", attrs=self.attrs)

        def double(self) -> Any:
            return 2 * self.VAL

    t.epics.caput(t.p("ao"), 2, wait=True)
    mine = Mine(t.p("ao"))
    t.see("note", lambda: mine.note)
    t.see("double", mine.double)
    t.see("repr", lambda: repr(mine))


@step("Alarm")
def alarm(t: Lab) -> None:
    """Edges, delays, comparisons."""
    epics, name = t.epics, t.p("double")
    epics.caput(name, 0, wait=True)
    alerts: list[dict[str, Any]] = []
    watch = epics.Alarm(
        name, comparison=">", trip_point=5, callback=lambda **k: alerts.append(k), alert_delay=0.0
    )

    def told(alarm: Any, value: Any) -> None:
        """Wait until the alarm has looked at that value."""
        t.wait(lambda: alarm.pv._args["value"] == value)
        t.delivered()

    told(watch, 0)
    for value in (1, 6, 7, 2, 8):
        epics.caput(name, value, wait=True)
        told(watch, value)
    t.see("alerts", lambda: [k["value"] for k in alerts])
    t.see("keys", lambda: sorted(alerts[0]))
    t.see("comparison", lambda: (alerts[0]["comparison"], alerts[0]["trip_point"]))
    t.see("state", lambda: (watch.alarm_state, watch.comp_name))
    t.see("reset", watch.reset)
    t.see("repr", lambda: repr(watch))
    for given in ("eq", "ne", "le", "lt", "ge", "gt", "==", "<", "__gt__", "bogus", max):
        made = epics.Alarm(name, comparison=given, trip_point=1, callback=lambda **k: None)
        t.see(f"comparison {getattr(given, '__name__', given)}", lambda a=made: a.comp_name)
    t.see("nothing", lambda: epics.Alarm(name))
    t.see("no PV", lambda: epics.Alarm(None, comparison=">", trip_point=1))
    epics.caput(t.p("longout"), 0, wait=True)
    printing = epics.Alarm(t.p("longout"), comparison=">", trip_point=5, alert_delay=0.0)
    epics.caput(t.p("longout"), 1, wait=True)
    told(printing, 1)
    t.aside.take()
    epics.caput(t.p("longout"), 9, wait=True)
    told(printing, 9)
    t.see("printed", lambda: printing.alarm_state)
