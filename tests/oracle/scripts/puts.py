"""What may be put to what: every kind of value to every kind of record, and what then stands in the record."""

from __future__ import annotations

from typing import Any

import numpy
from oracle.steps import Lab, step

SCALARS = (
    "double longout int64out bo mbbo stringout ao.PREC lso one:char one:double one:string".split()
)
ARRAYS = "w:char w:uchar w:short w:long w:float w:double w:string w:enum w:int64 aao".split()

VALUES: dict[str, Any] = {
    "1": 1,
    "0": 0,
    "2.75": 2.75,
    "-1": -1,
    "True": True,
    "300": 300,
    "40000": 40000,
    "2**40": 2**40,
    "None": None,
    "text 1": "1",
    "text 0x10": "0x10",
    "text 2.5": "2.5",
    "text On": "On",
    "text Two": "Two",
    "text bogus": "bogus",
    "text empty": "",
    "text long": "x" * 50,
    "text é": "é20µm",
    "bytes 1": b"1",
    "bytes": b"abc",
    "numpy float": numpy.float64(3.5),
    "numpy int": numpy.int32(3),
    "0-d": numpy.array(2.0),
    "list": [1, 2, 3],
    "tuple": (1, 2),
    "floats": [1.5, 2.5],
    "one": [1],
    "one array": numpy.array([1.0]),
    "empty": [],
    "range": range(4),
    "array": numpy.arange(5),
    "array float32": numpy.linspace(0, 1, 3, dtype="f4"),
    "2-d": numpy.arange(4).reshape(2, 2),
    "too long": list(range(40)),
    "texts": ["a", "bb"],
    "list of bytes": [b"zz", b"y"],
    "big ints": [300, -1, 70000],
    "dict": {"a": 1},
}


def put_all(name: str) -> None:
    """Each value by a PV; the record is set to something known first."""

    @step(name, timeout=40)
    def record(t: Lab) -> None:
        pv = t.epics.PV(t.p(name))
        pv.wait_for_connection(5)
        base: Any = "base" if "string" in name or name == "lso" else 1
        base = [base, base] if name.startswith(("w:", "aa")) else base
        t.see("type", lambda: (pv.type, pv.nelm))
        for title, value in VALUES.items():
            pv.put(base, wait=True)
            t.aside.take()
            t.see(f"put {title}", pv.put, value, wait=True, timeout=5)
            t.see(f"then {title}", t.epics.ca.get, pv.chid)
        t.drop(pv)


for each in (*SCALARS, *ARRAYS):
    put_all(each)


@step("by chid")
def by_chid(t: Lab) -> None:
    """The same by ca.put, which knows no state names, with a type of one's own."""
    ca, dbr = t.epics.ca, t.epics.dbr
    for name, values in {
        "double": (2.5, "3.25", "abc"),
        "longout": (7, "0x1f", "3.2"),
        "mbbo": (1, "2", "Two"),
        "stringout": ("text", b"bytes"),
        "w:double": ([1, 2, 3], numpy.arange(3.0)),
        "w:string": (["a", "b"], "alone"),
        "w:char": ("hello", b"bytes", [72, 105]),
    }.items():
        chid = ca.create_channel(t.p(name), connect=True)
        for number, value in enumerate(values):
            t.see(f"{name} {number}", ca.put, chid, value, wait=True)
            t.see(f"{name} {number} then", ca.get, chid)
            t.see(f"{name} {number} no wait", ca.put, chid, value)
    chid = ca.create_channel(t.p("double"), connect=True)
    t.see("as int", ca.put, chid, 7, ftype=dbr.LONG, wait=True)
    t.see("as int then", ca.get, chid)
    t.see("as string", ca.put, chid, "8.5", ftype=dbr.STRING, wait=True)
    t.see("as string then", ca.get, chid)


@step("completion")
def completion(t: Lab) -> None:
    """Waiting for the record, in every way there is."""
    pv, slower = t.epics.PV(t.p("slow")), t.epics.PV(t.p("slow2"))
    pv.wait_for_connection(5)
    slower.wait_for_connection(5)
    t.see("before", lambda: pv.put_complete)
    t.see("no wait", pv.put, 1)
    t.idle("slow")
    t.see("wait", pv.put, 2, wait=True)
    t.see("after wait", lambda: pv.put_complete)
    # what is looked at while it is under way takes 2 s: a busy machine may put this process aside
    t.see("too short", slower.put, 3, wait=True, timeout=0.05)
    t.idle("slow2")
    t.see("use_complete", slower.put, 4, use_complete=True)
    t.see("complete at once", lambda: slower.put_complete)
    t.see("comes", t.wait, lambda: slower.put_complete)
    t.see("complete then", lambda: slower.put_complete)
    calls: list[Any] = []
    t.idle("slow")
    t.see("callback", pv.put, 5, callback=lambda **k: calls.append(k), callback_data="mine")
    t.see("callback comes", t.wait, lambda: calls)
    t.see("callback with", lambda: calls[0])
    t.see("callback complete", lambda: pv.put_complete)
    t.see("dict", pv.put, 6, callback=lambda **k: calls.append(k), callback_data={"a": 1})
    t.see("dict comes", t.wait, lambda: len(calls) > 1)
    t.see("dict with", lambda: calls[1])
    both = pv.put(7, wait=True, callback=lambda **k: calls.append(k))
    t.see("both", lambda: (both, len(calls)))
    chid = pv.chid
    t.see("ca callback", t.epics.ca.put, chid, 8, callback=lambda **k: calls.append(k))
    t.see("ca callback comes", t.wait, lambda: len(calls) > 3)
    t.see("ca callback with", lambda: calls[3])
    pv.disconnect()
    slower.disconnect()


@step("refused")
def refused(t: Lab) -> None:
    """Records that say no."""
    for name in ("readonly", "noaccess", "disp", "switched"):
        pv = t.epics.PV(t.p(name), auto_monitor=False)
        pv.wait_for_connection(5)
        t.see(f"{name} access", lambda pv=pv: pv.access)
        t.aside.take()

        def put(function: Any, *args: Any, **kwds: Any) -> Any:
            answer = function(*args, **kwds)
            t.settle(0.1)  # what the server says comes later,
            t.delivered()  # and on a busy machine later than that
            return answer

        t.see(f"{name} put", put, pv.put, 9)
        t.see(f"{name} wait", put, pv.put, 9, wait=True)
        t.see(f"{name} callback", put, pv.put, 9, callback=lambda **k: None)
        t.see(f"{name} caput", put, t.epics.caput, t.p(name), 9)
        t.see(f"{name} ca", put, t.epics.ca.put, pv.chid, 9)
        pv.disconnect()
