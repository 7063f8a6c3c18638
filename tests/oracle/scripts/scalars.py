"""Every scalar record type: what PV, the functions of a name, those of a chid, and callbacks say of it."""

from __future__ import annotations

from oracle.readings import follow, read_ca, read_functions, read_pv
from oracle.steps import Lab, step

RECORDS = (
    "ai ao bi bo mbbi mbbo longin longout int64in int64out stringin stringout lsi lso lsi.VAL$ calc udf prec0 "
    "mbbo16 mbbonone ao.DESC ao.DESC$ ao.EGU bo.ZNAM ao.STAT ao.PREC ao.LOLO ao.SCAN desc.DESC readonly disp"
).split()


def look(name: str) -> None:
    @step(name, timeout=40)
    def record(t: Lab) -> None:
        read_pv(t, t.s(name))
        read_functions(t, t.s(name))
        read_ca(t, t.s(name))
        follow(t, t.s(name))


for each in RECORDS:
    look(each)


@step("server time")
def server_time(t: Lab) -> None:
    """Time stamps to the last digit, of records that neither client processes."""
    for name in ("ai", "mbbo", "stringin", "longin", "wf:double:n", "udf"):
        pv = t.epics.PV(t.s(name))
        pv.wait_for_connection(5)
        pv.get()
        for field in ("timestamp", "posixseconds", "nanoseconds"):
            t.note(f"{name} {field}", repr(getattr(pv, field)))
        t.note(f"{name} ca", repr(t.epics.ca.get_timestamp(pv.chid)))
        pv.disconnect()


@step("not readable")
def not_readable(t: Lab) -> None:
    """A record that gives no access."""
    name = t.s("noaccess")
    pv = t.epics.PV(name)
    pv.wait_for_connection(2)
    t.see("get", pv.get, timeout=0.3)
    t.attributes(pv, ("connected", "access", "read_access", "write_access", "type", "count"))
    t.see("repr", lambda: repr(pv))
    chid = t.epics.ca.create_channel(name, connect=True)
    t.see("ca.get", t.epics.ca.get, chid, timeout=0.3)
    t.see("ca.put", t.epics.ca.put, chid, 3)
    t.see("put", pv.put, 3)
    t.see("put wait", pv.put, 3, wait=True)
    pv.disconnect()
