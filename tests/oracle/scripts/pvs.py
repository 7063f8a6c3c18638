"""The class PV and get_pv: making, connecting, callbacks, monitors, copies, threads, what never connects."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

from oracle.readings import PROPERTIES, first_value
from oracle.steps import Calls, Lab, step


def without_pv(kwds: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwds.items() if key not in ("pv", "cb_info")}


@step("order of events")
def order(t: Lab) -> None:
    """What is called, in which order, with what, and what the PV says meanwhile."""
    events: list[str] = []
    values: list[Any] = []
    made: dict[str, Any] = {}

    def connection(pvname: str, conn: bool, pv: Any) -> None:
        events.append(f"connection {conn} {pv.connected} {type(pv).__name__}")
        made["chid in connection callback"] = pv.chid

    def access(read: bool, write: bool, pv: Any) -> None:
        events.append(f"access {read!r} {write!r}")

    def value(**kwds: Any) -> None:
        events.append(f"value {kwds['value']}")
        values.append(kwds)

    for title in ("new channel", "channel there"):
        events.clear()
        values.clear()
        pv = t.epics.PV(
            t.s("ao"), callback=value, connection_callback=connection, access_callback=access
        )
        t.wait(lambda: values)
        t.settle()
        first = list(dict.fromkeys(events))
        # Where the channel is there, pyepics' monitor begins in the constructor, in another thread than the access
        # callback's: which of the two is called first is left to chance.
        t.see(f"{title} order", [e for e in first if not e.startswith("value")])
        t.see(f"{title} connection, value", [e for e in first if not e.startswith("access")])
        t.see(f"{title} value", lambda: without_pv(values[0]))
        t.see(f"{title} keys", lambda: sorted(values[0]))
        pv.disconnect()
        t.see(f"{title} then", lambda pv=pv: (pv.connected, pv.callbacks, pv.connection_callbacks))


@step("callbacks")
def callbacks(t: Lab) -> None:
    """Adding, removing, running, in order of their indices."""
    name = t.p("double")
    t.epics.caput(name, 1, wait=True)
    pv = t.epics.PV(name)
    pv.wait_for_connection(5)
    t.wait(lambda: pv._args["value"] == 1)  # the put's own event has come, too
    ran: list[Any] = []

    def make(mark: str) -> Any:
        return lambda **kwds: ran.append((mark, kwds["value"], kwds["cb_info"][0]))

    t.see("first", pv.add_callback, make("a"))
    t.see("second", pv.add_callback, make("b"))
    t.see("own index", pv.add_callback, make("c"), index=-5)
    t.see("next", pv.add_callback, make("d"))
    t.see("not callable", pv.add_callback, 5)
    t.see("nothing", pv.add_callback)
    t.see("indices", lambda: sorted(pv.callbacks))
    pv.put(2, wait=True)
    t.wait(lambda: len(ran) >= 4)
    t.see("ran", lambda: list(ran))
    t.see("remove", pv.remove_callback, 2)
    t.see("remove unknown", pv.remove_callback, 77)
    t.see("remove nothing", pv.remove_callback)
    ran.clear()
    t.see("run", pv.run_callbacks)
    t.see("run ran", lambda: list(ran))
    ran.clear()
    t.see("run one", pv.run_callback, 1)
    t.see("run unknown", pv.run_callback, 99)
    t.see("run one ran", lambda: list(ran))
    ran.clear()
    t.see("now", pv.add_callback, make("e"), run_now=True, with_ctrlvars=False)
    t.see("now ran", lambda: list(ran))
    kept = Calls()
    pv.add_callback(kept, mine=5, value="overridden")
    pv.put(3, wait=True)
    t.wait(lambda: kept)
    t.see("own keywords", lambda: (kept[0]["mine"], kept[0]["value"]))
    t.see("clear", pv.clear_callbacks)
    t.see("cleared", lambda: pv.callbacks)
    t.drop(pv)
    given = [Calls(), Calls()]
    pv = t.epics.PV(name, callback=given)
    t.wait(lambda: given[0] and given[1])
    t.see("list", lambda: (sorted(pv.callbacks), [calls[0]["cb_info"][0] for calls in given]))
    pv.connection_callbacks.append(print)
    pv.access_callbacks.append(print)
    pv.clear_callbacks(with_access_callback=True, with_connect_callback=True)
    t.see("all cleared", lambda: (dict(pv.callbacks), pv.connection_callbacks, pv.access_callbacks))
    t.drop(pv)


@step("failing callbacks")
def failing(t: Lab) -> None:
    """One that raises, before one that does not."""
    name = t.p("longout")
    pv = t.epics.PV(name)
    pv.wait_for_connection(5)
    t.wait(lambda: pv._args["value"] is not None)
    after = Calls()

    def bad(**kwds: Any) -> None:
        raise ZeroDivisionError("mine")

    pv.add_callback(bad)
    pv.add_callback(after)
    t.aside.take()
    pv.put(17, wait=True)
    t.wait(lambda: after, 3.0)
    t.settle()
    t.see("after", lambda: after.values())
    t.see("run_callback", pv.run_callback, 1)
    t.drop(pv)


@step("network in callbacks")
def network(t: Lab) -> None:
    """What waits for the network, inside a callback."""
    found: list[Any] = []
    other = t.epics.PV(t.p("longout"))
    other.wait_for_connection(5)

    def busy(**kwds: Any) -> None:
        if not found:
            found.append(other.get(use_monitor=False, timeout=1.5))
            found.append(other.put(5, wait=True, timeout=1.5))

    pv = t.epics.PV(t.p("double"), callback=busy)
    t.wait(lambda: len(found) == 2, 10.0)
    t.see("get and put", lambda: [type(found[0]).__name__, found[1]])
    t.drop(pv)
    t.drop(other)


@step("events")
def events(t: Lab) -> None:
    """One event for each change; alarms; masks."""
    name = t.p("alarmed")
    t.epics.caput(name, 0, wait=True)
    calls = Calls()
    pv = t.epics.PV(name, callback=calls)
    t.wait(lambda: calls)
    for value in (1, 6, 10, 6, 0):
        before = len(calls)
        pv.put(value, wait=True)
        t.wait(lambda before=before: len(calls) > before)
    t.see(
        "values", lambda: [(k["value"], k["severity"], k["status"], k["char_value"]) for k in calls]
    )
    t.attributes(pv, ("char_status", "char_severity"))
    t.drop(pv)
    calls.clear()
    pv = t.epics.PV(name, callback=calls, auto_monitor=t.epics.dbr.DBE_ALARM)
    t.wait(lambda: calls)
    for value in (1, 2, 6, 7, 10, 0):
        pv.put(value, wait=True)
    t.wait(lambda: len(calls) > 3)
    t.settle(0.1)
    t.see("alarms only", lambda: [(k["value"], k["severity"]) for k in calls])
    t.attributes(pv, ("auto_monitor", "auto_monitor_mask"))
    t.drop(pv)


@step("auto_monitor")
def auto_monitor(t: Lab) -> None:
    """Every setting, before and after connecting."""
    name = t.s("ao")
    for given in (None, True, False, 1, 5, 7, 0):
        pv = t.epics.PV(name, auto_monitor=given)
        pv.wait_for_connection(5)
        t.wait(lambda pv=pv: pv.auto_monitor is not None)
        t.wait(lambda pv=pv: not pv.auto_monitor or pv.auto_monitor_mask is not None)
        t.attributes(pv, ("auto_monitor", "auto_monitor_mask"), f"{given}: ")
        t.drop(pv)
    pv = t.epics.PV(name)
    pv.wait_for_connection(5)
    first_value(t, pv)
    for given in (False, True, 4, None, False):
        pv.auto_monitor = given
        t.see(f"set {len(t._labels)}", lambda: (pv.auto_monitor, pv.auto_monitor_mask))
    pv.clear_auto_monitor()
    t.see("cleared", lambda: (pv.auto_monitor, pv.auto_monitor_mask))
    t.drop(pv)
    large = t.epics.PV(t.s("longchar"))
    large.wait_for_connection(5)
    t.wait(lambda: large.auto_monitor is not None)
    t.attributes(large, ("auto_monitor", "auto_monitor_mask", "count", "nelm"), "large ")
    t.drop(large)


@step("unmonitored values")
def unmonitored(t: Lab) -> None:
    """What stays, what is read anew."""
    name = t.p("double")
    t.epics.caput(name, 1, wait=True)
    pv = t.epics.PV(name, auto_monitor=False)
    pv.wait_for_connection(5)
    t.see("value", lambda: pv.value)
    t.epics.caput(name, 2, wait=True)
    t.see("value stays", lambda: pv.value)
    t.see("get", pv.get)
    t.see("value after get", lambda: pv.value)
    t.drop(pv)


@step("lengths")
def lengths(t: Lab) -> None:
    """Arrays that grow and shrink; count= of the PV and of get."""
    name = t.p("w:double")
    t.epics.caput(name, [1, 2, 3], wait=True)
    pv = t.epics.PV(name)
    pv.wait_for_connection(5)
    t.wait(lambda: pv.count == 3)  # what caput's own PV monitors may still be what was before
    t.see("three", lambda: (pv.count, pv.nelm, pv.get()))
    pv.put([1, 2, 3, 4, 5], wait=True)
    t.wait(lambda: pv.count == 5)
    t.see("five", lambda: (pv.count, pv.nelm, pv.get()))
    pv.put([7], wait=True)
    t.wait(lambda: pv.count == 1)
    t.see("one", lambda: (pv.count, pv.nelm, pv.get(), pv.value))
    t.see("one text", pv.get, as_string=True)
    t.see("repr", lambda: repr(pv))
    t.drop(pv)
    t.epics.caput(name, [1, 2, 3, 4, 5], wait=True)
    for count in (1, 3, 99):
        pv = t.epics.PV(name, count=count)
        pv.wait_for_connection(5)
        t.wait(lambda pv=pv: pv._args["value"] is not None)
        t.see(f"count={count}", pv.get)
        t.see(f"count={count} facts", lambda pv=pv: (pv.count, pv.nelm, repr(pv)))
        t.see(f"count={count} fresh", pv.get, use_monitor=False)
        t.see(f"count={count} get 2", pv.get, count=2)
        t.drop(pv)


@step("get_pv")
def get_pv(t: Lab) -> None:
    """The cache."""
    epics, name = t.epics, t.p("ao")
    one = epics.get_pv(name, connect=True)
    t.see("same", lambda: epics.get_pv(name) is one)
    t.see("form", lambda: epics.get_pv(name, form="ctrl") is one)
    t.see("bogus form", lambda: epics.get_pv(name, form="bogus") is one)
    t.see("VAL", lambda: epics.get_pv(name + ".VAL") is one)
    t.see("timeout", lambda: one.connection_timeout)
    t.see("PV is not cached", lambda: epics.PV(name) is one)
    told: list[Any] = []
    epics.get_pv(name, connection_callback=lambda **k: told.append(sorted(k)))
    epics.get_pv(name, access_callback=lambda *a, **k: told.append((a, sorted(k))))
    t.see("told", lambda: list(told))
    first_value(t, one)
    t.settle(0.02)
    calls = Calls()
    epics.get_pv(name, callback=calls)
    t.see("callback at once", lambda: [without_pv(k)["value"] for k in calls])
    t.see("missing", lambda: epics.get_pv(t.p("missing"), connect=True, timeout=0.1).connected)
    t.see("missing callback", lambda: epics.get_pv(t.p("missing"), callback=calls).connected)
    missing = t.p("missing")
    t.see("told of missing", lambda: [k["value"] for k in calls if k["pvname"] == missing])
    t.see("context", lambda: epics.get_pv(name, context=one.context) is one)
    t.see("bad context", lambda: epics.get_pv(t.p("bo"), context=-1))
    t.see("cached", lambda: len(epics.pv._PVcache_) > 0)
    one.disconnect()
    t.see("after disconnect", lambda: epics.get_pv(name) is one)
    t.see("clear", epics.pv.clear_pvcache)
    t.see("cleared", lambda: len(epics.pv._PVcache_))

    class Mine(epics.PV):  # type: ignore[misc]
        """As users make them."""

    before, epics.pv.default_pv_class = epics.pv.default_pv_class, Mine
    try:
        t.see("class", lambda: type(epics.get_pv(name)).__name__)
    finally:
        epics.pv.default_pv_class = before


@step("missing")
def missing(t: Lab) -> None:
    """A PV that never connects: answers, and what is printed."""
    pv = t.epics.PV(t.p("missing"), connection_timeout=0.05)
    t.see("repr", lambda: repr(pv))
    t.see("wait", pv.wait_for_connection, 0.05)
    t.see("connect", pv.connect, 0.05)
    t.see("get", pv.get)
    t.see("get text", pv.get, as_string=True)
    t.see("get timeout", pv.get, timeout=0.05)
    t.see("metadata", pv.get_with_metadata)
    t.see("put", pv.put, 1)
    t.see("put wait", pv.put, 1, wait=True)
    t.see("ctrlvars", pv.get_ctrlvars)
    t.see("timevars", pv.get_timevars)
    t.see("info", lambda: pv.info)
    t.see("add_callback", pv.add_callback, lambda **k: None)
    t.see("_args", lambda: dict(pv._args))
    t.attributes(pv, [name for name in PROPERTIES if not name.startswith("char_s")])
    t.attributes(pv, ("char_status", "char_severity"))
    t.see("poll", pv.poll)
    t.see("reconnect", pv.reconnect)
    t.see("disconnect", pv.disconnect)


@step("polling")
def polling(t: Lab) -> None:
    """A loop until a put has completed: each poll is short."""
    t.idle("slow2")
    pv = first_value(t, t.epics.PV(t.p("slow2")))
    pv.put(1, use_complete=True)
    rounds = 0
    while not pv.put_complete and rounds < 1000:
        t.epics.poll(0.01)
        rounds += 1
    t.see("put_complete", lambda: pv.put_complete)
    t.see("many rounds", lambda: 5 < rounds < 1000)
    t.see("poll", t.epics.poll)
    t.see("ca.poll", t.epics.ca.poll, 1e-3, 0.1)
    t.drop(pv)


@step("methods of a subclass")
def subclass(t: Lab) -> None:
    """Those that pyepics' PV calls by name."""
    said: list[str] = []
    told: list[Any] = []  # of which value; that of an event may be known before it is told

    class Mine(t.epics.PV):  # type: ignore[misc,name-defined]
        def run_callbacks(self) -> None:
            said.append("all")
            told.append(self._args["value"])
            super().run_callbacks()

        def run_callback(self, index: Any) -> None:
            said.append(f"one {index}")
            super().run_callback(index)

        def get_with_metadata(self, *args: Any, **kwds: Any) -> Any:
            said.append("metadata")
            return super().get_with_metadata(*args, **kwds)

    pv = first_value(t, Mine(t.p("longout")))
    for value in (0, 1):
        pv.put(value, wait=True)
        t.wait(lambda value=value: told[-1:] == [value], 5.0)
    del said[:]
    t.see("get", pv.get)
    t.see("said by get", lambda: list(said))
    del said[:]
    seen: list[Any] = []
    pv.add_callback(lambda value=None, **kwds: seen.append(value), index=3)
    pv.put(2, wait=True)
    t.wait(lambda: seen)
    t.see("said by an event", lambda: list(said))
    t.see("seen", lambda: list(seen))
    t.drop(pv)


@step("disconnected")
def disconnected(t: Lab) -> None:
    """After disconnect(), and back."""
    pv = t.epics.PV(t.s("ao"), connection_timeout=0.2)
    pv.wait_for_connection(5)
    t.wait(lambda: pv._args["value"] is not None)
    t.see("disconnect", pv.disconnect)
    t.see("repr", lambda: repr(pv))
    t.see("get", pv.get)
    t.see("put", pv.put, 1)
    t.attributes(pv, ("value", "type", "typefull", "count", "host", "auto_monitor", "connected"))
    t.see("connect", pv.connect)
    t.see("reconnect", pv.reconnect)
    t.see("connected", lambda: pv.connected)
    t.see("get again", pv.get, use_monitor=False)
    t.see("type again", lambda: pv.type)
    t.drop(pv)


@step("of one name")
def of_one_name(t: Lab) -> None:
    """Equality, copies, and what a second PV knows."""
    one = t.epics.PV(t.s("ao"))
    one.wait_for_connection(5)
    one.get_ctrlvars()
    two = t.epics.PV(t.s("ao"))
    two.wait_for_connection(5)
    t.wait(lambda: two._args["value"] is not None)
    # but its chid: pyepics' event makes it a number, and the thread that connects may put the object back behind that
    t.see("what the second knows", lambda: {k: v for k, v in two._args.items() if k != "chid"})
    t.see("equal", lambda: one == two)
    t.see("not equal", lambda: one == 5)
    t.see("hash", lambda: isinstance(hash(one), int))
    t.see("in a set", lambda: len({one, two}))
    t.see("copy", lambda: copy.copy(one).pvname == one.pvname)
    t.see("deepcopy", lambda: type(copy.deepcopy(one)))
    t.see("pickle", lambda: type(pickle.dumps(one)))
    t.see("str", lambda: str(one))
    two.disconnect()
    t.drop(one)


@step("forms and names")
def forms(t: Lab) -> None:
    """How a PV may be named and formed."""
    for form in ("TIME", "bogus", "Native"):
        pv = t.epics.PV(t.s("ao"), form=form)
        pv.wait_for_connection(5)
        t.see(f"{form}", lambda pv=pv: (pv.form, pv.type, pv.ftype))
        t.drop(pv)
    pv = t.epics.PV(f"  {t.s('ao')} ")
    t.see("stripped", lambda: t.describe.text(pv.pvname))
    t.see("waits", pv.wait_for_connection, 5)
    t.see("no name", lambda: t.epics.PV(None))
    t.see("a number", lambda: t.epics.PV(5))
    t.see("unknown keyword", lambda: t.epics.PV(t.s("ao"), bogus=1))
    t.drop(pv)


@step("forced")
def forced(t: Lab) -> None:
    """What ophyd and others reach into."""
    pv = t.epics.PV(t.s("ao"))
    pv.wait_for_connection(5)
    t.see("force_connect", pv.force_connect)
    t.see("force_read_access_rights", pv.force_read_access_rights)
    t.see("connected", lambda: pv.connected)
    t.see("_getarg", pv._getarg, "precision")
    t.see("_set_charval", pv._set_charval, 2.25)
    t.see("_set_charval None", pv._set_charval, None)
    t.see("_getinfo", lambda: pv._getinfo() == pv.info)
    t.see("__getval__", pv.__getval__)
    t.see("own attribute", lambda: (setattr(pv, "mine", 5), pv.mine)[1])
    t.see("_fields", lambda: pv._fields)
    context, pv.context = pv.context, None
    t.see("no context", pv.get)
    t.see("no context wait", pv.wait_for_connection)
    pv.context = context
    t.drop(pv)


@step("threads")
def threads(t: Lab) -> None:
    """PVs in plain threads and CAThreads."""
    pv = t.epics.PV(t.s("ao"))
    pv.wait_for_connection(5)
    found: dict[str, Any] = {}

    def run(title: str, kind: Any, what: Any) -> None:
        thread = kind(target=lambda: found.update({title: what()}))
        thread.start()
        t.wait(lambda: not thread.is_alive())
        thread.join(1)

    for title, kind in {"thread": threading.Thread, "CAThread": t.epics.ca.CAThread}.items():
        run(f"{title} get", kind, lambda: pv.get(use_monitor=False))
        run(f"{title} caget", kind, lambda: t.epics.caget(t.s("longin")))
        run(f"{title} new PV", kind, lambda: t.epics.PV(t.s("ai")).get())
        run(f"{title} put", kind, lambda: t.epics.caput(t.p("double"), 3, wait=True))
    t.see("found", lambda: found)
    t.drop(pv)


@step("monitor_delta")
def monitor_delta(t: Lab) -> None:
    """Small changes."""
    name = t.p("mdel")
    t.epics.caput(name, 0, wait=True)
    calls = Calls()
    pv = t.epics.PV(name, monitor_delta=1.0, callback=calls)
    t.wait(lambda: calls)
    t.see("property", lambda: pv.monitor_delta)
    if hasattr(pv, "_filtered"):
        t.wait(lambda: len(calls) > 1)  # the channel with the filter has taken over
    t.settle(0.1)
    for value in (0.4, 0.8, 2.5):
        pv.put(value, wait=True)
    t.wait(lambda: calls and calls[-1]["value"] == 2.5)
    t.see("events", lambda: sorted({k["value"] for k in calls}))
    t.see("MDEL", t.epics.caget, f"{name}.MDEL")
    t.drop(pv)


@step("text")
def text(t: Lab) -> None:
    """Text beyond ASCII, long texts, odd bytes."""
    pv = t.epics.PV(t.s("desc.DESC"))
    pv.wait_for_connection(5)
    t.see("utf-8", pv.get)
    t.drop(pv)
    pv = t.epics.PV(t.p("stringout"))
    pv.wait_for_connection(5)
    for value in ("  both  ", "é µm", "tab\tend", ""):
        pv.put(value, wait=True)
        t.see(f"put {value!r}", pv.get, use_monitor=False)
    t.drop(pv)
    long = t.epics.PV(t.p("longchar"))
    long.wait_for_connection(5)
    long.put("a long text " * 100, wait=True)
    t.see("long text", long.get, as_string=True)
    t.see("long value", long.get)
    t.see("long char_value", lambda: long.char_value)
    t.drop(long)
    # without a monitor: in pyepics its event would fail too, at a moment of its own
    pv = t.epics.PV(t.s("latin1.DESC"), connection_timeout=0.5, auto_monitor=False)
    pv.wait_for_connection(5)
    t.see("latin-1", pv.get, timeout=0.5)
    t.drop(pv)
