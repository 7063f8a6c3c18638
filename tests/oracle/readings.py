"""What the scripts of record types look at, whatever the record."""

from __future__ import annotations

from typing import Any

from oracle.steps import Lab

PROPERTIES = (
    "pvname form connected ftype type typefull value char_value count nelm status char_status severity char_severity "
    "timestamp posixseconds nanoseconds host access read_access write_access precision units enum_strs "
    "upper_disp_limit lower_disp_limit upper_alarm_limit lower_alarm_limit upper_warning_limit lower_warning_limit "
    "upper_ctrl_limit lower_ctrl_limit monitor_delta put_complete auto_monitor auto_monitor_mask connection_timeout"
).split()


def comes(t: Lab, device: Any, **fields: Any) -> None:
    """Wait for what monitors tell, and note it if they do not."""
    if not t.wait(lambda: all(device.get(field) == value for field, value in fields.items())):
        t.note(f"never {fields}", str({field: device.get(field) for field in fields}))


def first_value(t: Lab, pv: Any, patience: float = 5.0) -> Any:
    """Connect a PV and have its monitor's first value, if it has a monitor."""
    pv.wait_for_connection(5)
    t.wait(lambda: pv.auto_monitor is not None)  # pyepics decides just after it says connected
    if pv.auto_monitor:
        t.wait(lambda: pv._args["value"] is not None, patience)
    return pv


def read_pv(t: Lab, name: str, patience: float = 5.0) -> None:
    """Everything a PV says of a record that nobody writes, in each form.

    The first event of an array without elements does not come to a subscription of its native type: its message
    would be empty. `patience` is how many seconds it is waited for.
    """
    for form in ("time", "native", "ctrl"):
        pv = first_value(t, t.epics.PV(name, form=form), patience)
        mark = f"{form}:"
        t.see(f"{mark}repr", lambda pv=pv: repr(pv))
        t.see(f"{mark}_args", lambda pv=pv: dict(pv._args))
        t.see(f"{mark}get", pv.get)
        t.see(f"{mark}get as_string", pv.get, as_string=True)
        t.see(f"{mark}get fresh", pv.get, use_monitor=False)
        t.see(f"{mark}get fresh list", pv.get, use_monitor=False, as_numpy=False)
        t.see(f"{mark}metadata", pv.get_with_metadata)
        t.see(f"{mark}metadata fresh", pv.get_with_metadata, use_monitor=False)
        t.see(f"{mark}ctrlvars", pv.get_ctrlvars)
        t.see(f"{mark}timevars", pv.get_timevars)
        t.attributes(pv, PROPERTIES, mark)
        t.see(f"{mark}info", lambda pv=pv: pv.info)
        t.see(f"{mark}_args at the end", lambda pv=pv: dict(pv._args))
        t.drop(pv)
    pv = first_value(t, t.epics.PV(name))
    t.see("list", pv.get, as_numpy=False)
    t.see("count 1", pv.get, count=1)
    t.see("count 3", pv.get, count=3)
    t.see("count 3 fresh", pv.get, count=3, use_monitor=False)
    t.see("count 99", pv.get, count=99)
    for form in ("time", "native", "ctrl"):
        t.see(f"metadata {form}", pv.get_with_metadata, form=form)
        t.see(f"metadata {form} text", pv.get_with_metadata, form=form, as_string=True)
    t.see("metadata all", pv.get_with_metadata, with_ctrlvars=True)
    t.see("metadata namespace", pv.get_with_metadata, as_namespace=True)
    t.drop(pv)
    pv = t.epics.PV(name, auto_monitor=False)
    pv.wait_for_connection(5)
    t.see("unmonitored get", pv.get)
    t.see("unmonitored text", pv.get, as_string=True)
    t.see("unmonitored list", pv.get, as_numpy=False)
    t.attributes(pv, ("value", "char_value", "count", "units", "enum_strs"), "unmonitored ")
    t.see("unmonitored info", lambda: pv.info)
    t.drop(pv)


def read_functions(t: Lab, name: str) -> None:
    """The same by pyepics' functions of a name."""
    epics = t.epics
    t.see("caget", epics.caget, name)
    t.see("caget as_string", epics.caget, name, as_string=True)
    t.see("caget fresh", epics.caget, name, use_monitor=False)
    t.see("caget list", epics.caget, name, as_numpy=False)
    t.see("caget count 2", epics.caget, name, count=2)
    t.see("caget_many", epics.caget_many, [name])
    t.see("caget_many text", epics.caget_many, [name], as_string=True)
    t.see("caget_many list", epics.caget_many, [name], as_numpy=False)
    t.see("caget_many count 2", epics.caget_many, [name], count=2)
    t.see("cainfo", epics.cainfo, name)
    t.see("cainfo text", epics.cainfo, name, print_out=False)


def read_ca(t: Lab, name: str, patience: float = 5.0) -> None:
    """The same by the functions of a chid."""
    ca, dbr = t.epics.ca, t.epics.dbr
    chid = ca.create_channel(name, connect=True)
    for function in (
        "name host_name element_count read_access write_access field_type state isConnected access get get_ctrlvars "
        "get_timevars get_severity get_timestamp get_precision get_enum_strings get_with_metadata"
    ).split():
        t.see(f"ca.{function}", getattr(ca, function), chid)
    native = ca.field_type(chid)
    for title, kwds in {
        "text": {"as_string": True},
        "list": {"as_numpy": False},
        "count 1": {"count": 1},
        "count 2": {"count": 2},
        "TIME": {"ftype": ca.promote_type(chid, use_time=True)},
        "CTRL": {"ftype": ca.promote_type(chid, use_ctrl=True)},
        "STRING": {"ftype": dbr.STRING},
        "DOUBLE": {"ftype": dbr.DOUBLE},
        "TIME_LONG": {"ftype": dbr.TIME_LONG},
        "TIME_STRING": {"ftype": dbr.TIME_STRING},
        "CTRL_ENUM": {"ftype": dbr.CTRL_ENUM},
        "CHAR": {"ftype": dbr.CHAR},
    }.items():
        t.see(f"ca.get {title}", ca.get_with_metadata, chid, **kwds)
    ca.get(chid, wait=False)
    t.see("ca.get_complete", ca.get_complete, chid)
    ca.get(chid, wait=False)
    t.see("ca.get_complete text", ca.get_complete, chid, as_string=True)
    for ftype in (native, native + dbr.TIME_STRING, native + dbr.CTRL_STRING):
        events: list[Any] = []
        held = ca.create_subscription(chid, ftype=ftype, callback=lambda e=events, **k: e.append(k))
        t.wait(lambda e=events: e, patience)
        ca.clear_subscription(held[2])
        t.see(f"ca event {ftype}", lambda e=events: e[0] if len(e) == 1 else e)
    ca.clear_channel(chid)


def follow(t: Lab, name: str) -> None:
    """Callbacks: how many, with what, before and after control data are known."""
    events: list[Any] = []
    pv = t.epics.PV(name, callback=lambda **k: events.append(k))
    t.wait(lambda: events)
    t.see("callback", lambda: {k: v for k, v in events[0].items() if k != "cb_info"})
    t.see("callback cb_info", lambda: events[0]["cb_info"][0])
    pv.add_callback(lambda **k: events.append(k), run_now=True, mine=7)
    t.wait(lambda: len(events) > 1)
    t.see("callback run_now", lambda: {k: v for k, v in events[1].items() if k != "cb_info"})
    t.drop(pv)
