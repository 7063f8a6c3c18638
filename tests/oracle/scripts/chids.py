"""The module ca: channels, contexts, the cache, subscriptions, access, reads without waiting, errors."""

from __future__ import annotations

import threading
from typing import Any

from oracle.steps import Lab, step


@step("settings")
def settings(t: Lab) -> None:
    """The module's globals, and functions that need no channel."""
    ca = t.epics.ca
    for name in (
        "PREEMPTIVE_CALLBACK AUTO_CLEANUP WITH_CA_MESSAGES AUTOMONITOR_MAXLENGTH DEFAULT_CONNECTION_TIMEOUT "
        "DEFAULT_SUBSCRIPTION_MASK HAS_NUMPY ca_printf"
    ).split():
        t.see(name, lambda name=name: getattr(ca, name))
    t.see("libca", lambda: bool(ca.libca))
    t.see("initial_context", lambda: type(ca.initial_context))
    t.see("same context", lambda: ca.initial_context == ca.current_context())
    t.see("version", ca.version)
    for code in (1, 80, 160, 192, 339, 424, 410):
        t.see(f"message {code}", ca.message, code)
    for name in ("flush_io", "pend_event", "pend_io", "poll", "test_io", "use_initial_context"):
        t.see(name, getattr(ca, name))
    t.see("pend_io time", ca.pend_io, 0.1)
    t.see("pend_event time", ca.pend_event, 0.001)
    for ftype in (0, 1, 6):
        for kwds in ({}, {"use_time": True}, {"use_ctrl": True}):
            t.see(f"promote {ftype} {kwds}", ca.promote_fieldtype, ftype, **kwds)
    t.see("write", ca.write, "text")
    t.see("write no newline", ca.write, "text", newline=False)
    t.see("PySEVCHK", ca.PySEVCHK, "mine", 1)
    t.see("PySEVCHK expected", ca.PySEVCHK, "mine", 80, 80)
    t.see("PySEVCHK bad", ca.PySEVCHK, "mine", 192)
    t.see("find_libca", lambda: type(ca.find_libca()))
    t.see("initialize_libca again", lambda: bool(ca.initialize_libca()))
    for name in ("ChannelAccessException", "CASeverityException", "ChannelAccessGetFailure"):
        t.see(name, lambda name=name: issubclass(getattr(ca, name), Exception))
    t.see("unrelated", lambda: issubclass(ca.CASeverityException, ca.ChannelAccessException))
    t.see("severity text", lambda: str(ca.CASeverityException("fcn", "msg")))


@step("a chid")
def a_chid(t: Lab) -> None:
    """What it is, and what is not one."""
    ca, dbr, name = t.epics.ca, t.epics.dbr, t.s("ao")
    chid = ca.create_channel(name, connect=True)
    t.see("type", lambda: (type(chid).__name__, type(chid) is dbr.chid_t, type(chid.value)))
    t.see("same", lambda: ca.create_channel(name) is chid)
    t.see("_chid_to_int", lambda: ca._chid_to_int(chid) == chid.value)
    t.see("int", lambda: ca.name(chid.value) == name)
    t.see("get by int", ca.get, chid.value)
    for title, wrong in {"text": "x", "None": None, "float": 1.5}.items():
        for function in ("name", "get", "put", "isConnected", "get_ctrlvars", "field_type"):
            args = (1,) if function == "put" else ()
            t.see(f"{function} {title}", getattr(ca, function), wrong, *args)


@step("missing")
def missing(t: Lab) -> None:
    """A channel that never connects."""
    ca = t.epics.ca
    chid = ca.create_channel(t.p("missing"))
    t.see("connect", ca.connect_channel, chid, timeout=0.05)
    t.see("connect verbose", ca.connect_channel, chid, timeout=0.05, verbose=True)
    for function in (
        "host_name element_count read_access write_access field_type state isConnected access promote_type"
    ).split():
        t.see(function, getattr(ca, function), chid)
    t.see("get", ca.get, chid, timeout=0.05)
    t.see("get_with_metadata", ca.get_with_metadata, chid, timeout=0.05)
    t.see("get_ctrlvars", ca.get_ctrlvars, chid, timeout=0.05)
    t.see("get_timevars", ca.get_timevars, chid, timeout=0.05)
    t.see("put", ca.put, chid, 1, timeout=0.2)
    t.see("put longer", ca.put, chid, 1, timeout=1.1)
    t.see("subscribe", ca.create_subscription, chid, timeout=0.05)
    t.see("item", lambda: repr(ca.get_cache(t.p("missing"))))
    t.see("clear", ca.clear_channel, chid)


@step("connection callbacks")
def connection_callbacks(t: Lab) -> None:
    """What they are called with, and how often."""
    ca, name = t.epics.ca, t.s("longin")
    told: list[Any] = []

    def first(**kwds: Any) -> None:
        told.append(("first", kwds))

    def second(**kwds: Any) -> None:
        told.append(("second", kwds))

    chid = ca.create_channel(name, callback=first)
    ca.connect_channel(chid, timeout=5)
    t.wait(lambda: told)
    t.see("first", lambda: list(told))
    told.clear()
    ca.create_channel(name, callback=first)
    t.see("again", lambda: list(told))
    ca.create_channel(name, callback=second)
    t.see("another", lambda: list(told))
    t.see("item", lambda: repr(ca.get_cache(name)))
    ca.clear_channel(chid)


@step("access callbacks")
def access_callbacks(t: Lab) -> None:
    """At once, and when the rights change."""
    ca = t.epics.ca
    told: list[Any] = []
    for name in ("readonly", "noaccess", "ao"):
        chid = ca.create_channel(t.s(name), connect=True)
        t.delivered()  # the news of the connection, of which this is not to hear
        ca.replace_access_rights_event(chid, callback=lambda *args: told.append(args))
        t.wait(lambda: told)
        t.see(name, lambda: list(told))
        told.clear()
    t.see("no callback", ca.replace_access_rights_event, chid)
    t.settle(0.02)
    told.clear()
    second: list[Any] = []
    ca.replace_access_rights_event(chid, callback=lambda *args: second.append(args))
    t.settle(0.02)
    t.see("a second", lambda: (list(told), list(second)))


@step("reads without waiting")
def no_wait(t: Lab) -> None:
    """get(wait=False), get_complete."""
    ca, dbr = t.epics.ca, t.epics.dbr
    chid = ca.create_channel(t.s("wf:double:n"), connect=True)
    t.see("complete without get", ca.get_complete, chid)
    t.see("begin", ca.get, chid, wait=False)
    t.see("end", ca.get_complete, chid)
    t.see("end again", ca.get_complete, chid)
    t.see("begin time", ca.get, chid, ftype=dbr.TIME_DOUBLE, wait=False)
    t.see("end time", ca.get_complete_with_metadata, chid, ftype=dbr.TIME_DOUBLE)
    t.see("begin count", ca.get, chid, count=3, wait=False)
    t.see("end count", ca.get_complete, chid, count=3)
    t.see("begin whole", ca.get, chid, wait=False)
    t.see("get meanwhile", ca.get, chid, count=2)
    t.see("count 0", ca.get, chid, count=0)
    t.see("count large", ca.get, chid, count=99)
    t.see("unknown type", ca.get, chid, ftype=99)
    t.see("group type", ca.get, chid, ftype=dbr.DOUBLE + 21)
    empty = ca.create_channel(t.s("lsi"), connect=True)
    t.see("long string", ca.get, empty)


@step("subscriptions")
def subscriptions(t: Lab) -> None:
    """Kinds, masks, counts, and their end."""
    ca, dbr = t.epics.ca, t.epics.dbr
    name = t.p("double")
    chid = ca.create_channel(name, connect=True)
    ca.put(chid, 1, wait=True)
    for title, kwds in {
        "native": {},
        "time": {"use_time": True},
        "ctrl": {"use_ctrl": True},
        "string": {"ftype": dbr.STRING},
        "ctrl string": {"ftype": dbr.CTRL_STRING},
    }.items():
        events: list[Any] = []
        made = ca.create_subscription(chid, callback=lambda e=events, **k: e.append(k), **kwds)
        t.see(f"{title} made", lambda made=made: (type(made).__name__, len(made)))
        t.wait(lambda e=events: e)
        t.see(f"{title} event", lambda e=events: e[0])
        ca.put(chid, 2, wait=True)
        t.wait(lambda e=events: len(e) > 1)
        t.see(f"{title} next", lambda e=events: e[1]["value"])
        ca.put(chid, 1, wait=True)
        t.wait(lambda e=events: len(e) > 2)
        t.see(f"{title} clear", ca.clear_subscription, made[2])
        ca.put(chid, 3, wait=True)
        t.settle(0.02)
        t.see(f"{title} after", lambda e=events: len(e))
        ca.put(chid, 1, wait=True)
    array = ca.create_channel(t.s("wf:double:n"), connect=True)
    events = []
    made = ca.create_subscription(array, callback=lambda **k: events.append(k), count=3)
    t.wait(lambda: events)
    t.see("count", lambda: (events[0]["count"], events[0]["value"]))
    ca.clear_subscription(made[2])
    t.see("no callback", lambda: len(ca.create_subscription(chid)))


@step("the cache")
def cache(t: Lab) -> None:
    """_cache, show_cache, clear_channel."""
    ca, name = t.epics.ca, t.s("mbbi")
    chid = ca.create_channel(name, connect=True)
    item = ca.get_cache(name)
    t.wait(lambda: item.conn)
    t.see("item", lambda: repr(item))
    for field in "conn pvname failures".split():
        t.see(f"item {field}", lambda field=field: getattr(item, field))
        t.see(f"item[{field}]", lambda field=field: item[field])
    t.see("item chid", lambda: (item.chid is chid, item.chid_int == chid.value))
    t.see("same item", lambda: ca._cache[ca.current_context()][name] is item)
    t.see("by number", lambda: ca._chid_cache[chid.value] is item)
    t.see("unknown", ca.get_cache, "nobody")
    table = ca.show_cache(print_out=False)
    lines = [line for line in table.splitlines() if name in line]
    t.see("head", lambda: table.splitlines()[:2])
    t.see("line", lambda: [t.describe.text(line) for line in lines])
    t.see("clear", ca.clear_channel, chid)
    t.see("cleared", ca.get_cache, name)
    t.see("cleared twice", ca.clear_channel, chid.value)
    t.see("name of cleared", ca.name, chid.value + 1)


@step("contexts")
def contexts(t: Lab) -> None:
    """Of threads."""
    ca = t.epics.ca
    found: dict[str, Any] = {}

    def run(kind: Any, work: Any) -> None:
        thread = kind(target=work)
        thread.start()
        t.wait(lambda: not thread.is_alive())
        thread.join(1)

    def plain() -> None:
        found["plain"] = ca.current_context() is None
        found["attach"] = ca.attach_context(ca.initial_context)
        found["attach again"] = ca.attach_context(ca.initial_context)
        found["attached"] = ca.current_context() == ca.initial_context
        found["detach"] = ca.detach_context()
        found["detached"] = ca.current_context() is None
        ca.use_initial_context()
        found["initial"] = ca.current_context() == ca.initial_context

    def of_ours() -> None:
        found["CAThread"] = ca.current_context() == ca.initial_context
        chid = ca.create_channel(t.s("ai"), connect=True)
        found["CAThread get"] = ca.get(chid)

    run(threading.Thread, plain)
    run(ca.CAThread, of_ours)
    for name, value in sorted(found.items()):
        t.see(name, value)


@step("groups")
def groups(t: Lab) -> None:
    """Synchronous groups. What sg_get answers is not compared: pyepics looks after 10 microseconds, come or not."""
    ca = t.epics.ca
    gid = ca.sg_create()
    t.see("id", lambda: type(gid).__name__)
    for name, value in (("double", 4.5), ("longout", 7), ("w:double", [1.0, 2.0, 3.0])):
        chid = ca.create_channel(t.p(name), connect=True)
        t.see(f"put {name}", ca.sg_put, gid, chid, value)
    t.see("block", ca.sg_block, gid)
    t.see("test", ca.sg_test, gid)
    for name in ("double", "longout"):
        chid = ca.create_channel(t.p(name))
        t.see(f"now {name}", ca.get, chid)
    ca.sg_get(gid, chid)
    t.see("block after get", ca.sg_block, gid, timeout=2.0)
    t.see("not a chid", ca.sg_get, gid, 5)
    t.see("put not a chid", ca.sg_put, gid, "x", 5)
    t.see("reset", ca.sg_reset, gid)
    t.see("delete", ca.sg_delete, gid)
    t.see("test deleted", ca.sg_test, gid)
    t.see("delete again", ca.sg_delete, gid)


@step("refusals")
def refusals(t: Lab) -> None:
    """What libca itself would refuse, and calls that lack something."""
    ca = t.epics.ca
    chid = ca.create_channel(t.s("ao"), connect=True)
    t.see("empty name", ca.create_channel, "")
    t.see("type of a subscription", ca.create_subscription, chid, ftype=99)
    t.see("type of a get", ca.get, chid, ftype=-5)
    t.see("hook", ca.register_clear_cache, 5)
    t.see("no hook", ca.register_clear_cache, None)
    t.see("promote_type", ca.promote_type, "x")
    t.see("isConnected", ca.isConnected, "x")
    t.see("PySEVCHK", ca.PySEVCHK, "f", 80)
    t.see("PySEVCHK expected", ca.PySEVCHK, "f", 80, 80)
    found: dict[str, Any] = {}

    def own() -> None:
        found["create"] = ca.create_context()
        try:
            ca.use_initial_context()
        except Exception as error:
            found["use_initial_context"] = str(error)
        found["destroy"] = ca.destroy_context()
        found["none"] = ca.current_context()

    thread = threading.Thread(target=own)
    thread.start()
    t.wait(lambda: not thread.is_alive())
    for name, value in sorted(found.items()):
        t.see(name, value)


@step("answers again")
def answers_again(t: Lab) -> None:
    """An answer to a get may be had more than once."""
    ca = t.epics.ca
    chid = ca.create_channel(t.s("ao"), connect=True)
    t.see("get", ca.get, chid)
    t.see("again", ca.get_complete, chid)
    t.see("by its type", ca.get_complete, chid, ftype=6)
    t.see("of another type", ca.get_complete, chid, ftype=5)
    wave = ca.create_channel(t.s("wf:long:n"), connect=True)
    t.see("three", ca.get, wave, count=3, wait=False)
    t.see("those three", ca.get_complete, wave)
    t.see("as text", ca.get_complete, wave, as_string=True)
    t.see("two of them", ca.get_complete, wave, count=2)
    t.see("one of them", ca.get_complete, wave, count=1)


@step("under way")
def under_way(t: Lab) -> None:
    """pend_io, test_io, and who hears libca's messages."""
    ca = t.epics.ca
    t.see("pend_io", ca.pend_io, 1.0)
    t.see("pend_event", ca.pend_event, 0.001)
    t.see("poll", ca.poll)
    t.see("flush_io", ca.flush_io)
    t.see("test_io", ca.test_io)
    t.see("no writer", ca.replace_printf_handler)
    t.see("not a writer", ca.replace_printf_handler, 5)
    t.see("disable", ca.disable_ca_messages)
    t.see("enable", ca.enable_ca_messages, None)


@step("other types")
def other_types(t: Lab) -> None:
    """The types that pyepics knows by number only."""
    ca = t.epics.ca
    chid = ca.create_channel(t.s("ao"), connect=True)
    for number in (7, 13, 21, 27, 35, 36, 37, 38, 39):
        t.see(f"type {number}", ca.get_with_metadata, chid, ftype=number)


@step("unpack")
def unpack(t: Lab) -> None:
    """C arrays to values."""
    ca, dbr = t.epics.ca, t.epics.dbr
    wave = ca.create_channel(t.s("wf:double:n"), connect=True)
    number = ca.create_channel(t.s("ao"), connect=True)
    data = (dbr.double_t * 4)(1, 2, 3, 4)
    t.see("array", ca._unpack, wave, data, count=4)
    t.see("less", ca._unpack, wave, data, count=2)
    t.see("one", ca._unpack, number, (dbr.double_t * 1)(5))


@step("the end")
def the_end(t: Lab) -> None:
    """clear_cache, finalize_libca, and functions after it."""
    ca, epics = t.epics.ca, t.epics
    pv = epics.get_pv(t.s("ai"), connect=True)
    t.see("clear_cache", ca.clear_cache)
    t.see("then", lambda: (pv.connected, len(epics.pv._PVcache_)))
    t.see("caget", epics.caget, t.s("ai"))
    t.see("finalize", ca.finalize_libca)
    t.see("finalize again", ca.finalize_libca)
    t.see("libca", lambda: ca.libca is None)
    t.see("version", ca.version)
    t.see("create", ca.create_channel, t.s("ai"))
    t.see("caget after", epics.caget, t.s("ai"))
