"""caget, caput, cainfo, camonitor and the functions of many names: arguments, misses, texts."""

from __future__ import annotations

from typing import Any

from oracle.readings import first_value
from oracle.steps import Calls, Lab, step


@step("package")
def package(t: Lab) -> None:
    """What the package itself has."""
    for name in (
        "PV Alarm Motor Device get_pv CAProcess CAPool caput caget cainfo camonitor camonitor_clear caget_many "
        "caput_many poll NO_ALARM MINOR_ALARM MAJOR_ALARM INVALID_ALARM _PVmonitors_"
    ).split():
        t.note(name, type(getattr(t.epics, name, None)).__name__)
    for name in "NO_ALARM MINOR_ALARM MAJOR_ALARM INVALID_ALARM".split():
        t.see(f"{name} is", getattr(t.epics, name))
    for name in "ca dbr pv alarm device motor multiproc utils".split():
        t.note(f"module {name}", getattr(t.epics, name).__name__.rpartition(".")[2])
    t.see("version", lambda: tuple(map(int, t.epics.__version__.split(".")[:2])) >= (3, 5))


@step("caget")
def caget(t: Lab) -> None:
    """Arguments that the record scripts do not try."""
    caget = t.epics.caget
    t.see("count 0", caget, t.s("wf:double:n"), count=0)
    t.see("count 4", caget, t.s("wf:double:n"), count=4)
    t.see("count 4 list", caget, t.s("wf:double:n"), count=4, as_numpy=False)
    t.see("text of count", caget, t.s("wf:uchar:n"), count=4, as_string=True)
    t.see("no monitor", caget, t.s("ai"), use_monitor=False, as_string=True)
    t.see("space", caget, f" {t.s('ai')} ")
    t.see("field", caget, t.s("ai.EGU"))
    t.see("missing", caget, t.p("missing"), connection_timeout=0.1)
    t.see("missing again", caget, t.p("missing"), connection_timeout=0.1)
    t.see("missing text", caget, t.p("missing"), connection_timeout=0.1, as_string=True)
    t.see("a number", caget, 5)
    t.see("unknown keyword", lambda: caget(t.s("ai"), bogus=1))


@step("caput")
def caput(t: Lab) -> None:
    """Results, misses and errors."""
    caput, caget = t.epics.caput, t.epics.caget
    t.see("put", caput, t.p("double"), 4.5)
    t.see("wait", caput, t.p("double"), 5.5, wait=True)
    t.see("then", caget, t.p("double"), use_monitor=False)
    t.see("slow", caput, t.p("slow2"), 1, wait=True, timeout=0.05)
    t.idle("slow2")
    t.see("name", caput, t.p("bo"), "On", wait=True)
    t.see("name then", caget, t.p("bo"), use_monitor=False, as_string=True)
    t.see("missing", caput, t.p("missing"), 1, connection_timeout=0.1)
    t.see("bad", caput, t.p("double"), "abc")
    t.see("array", caput, t.p("w:long"), [1, 2, 3], wait=True)
    t.see("array then", caget, t.p("w:long"), use_monitor=False)


@step("cainfo")
def cainfo(t: Lab) -> None:
    """Misses, callbacks that are named, no monitor."""
    t.see("missing", t.epics.cainfo, t.p("missing"), connection_timeout=0.1)
    t.see("missing text", t.epics.cainfo, t.p("missing"), False, connection_timeout=0.1)
    pv = t.epics.get_pv(t.s("ao"), connect=True)

    def watcher(**kwds: Any) -> None:
        pass

    pv.add_callback(watcher)
    t.see("callback", t.epics.cainfo, t.s("ao"))
    pv.clear_auto_monitor()
    t.see("no monitor", lambda: pv.info)


@step("camonitor")
def camonitor(t: Lab) -> None:
    """Lines, writers and callbacks; one monitor for each name."""
    epics, name = t.epics, t.p("double")
    lines: list[str] = []
    epics.caput(name, 1, wait=True)
    t.wait(
        lambda: epics.get_pv(name)._args["value"] == 1
    )  # or the event of that comes to the monitor
    t.settle(0.1)
    t.see("begins", epics.camonitor, name, writer=lines.append)
    t.see("known", lambda: [key == name for key in epics._PVmonitors_])
    t.settle(0.1)
    t.see("nothing yet", lambda: len(lines))
    for value in (2, 3.25, 1e6):
        before = len(lines)
        epics.caput(name, value, wait=True)
        t.wait(lambda before=before: len(lines) > before)
    t.see("lines", lambda: [t.describe.text(line) for line in lines])
    calls = Calls()
    t.see("another", epics.camonitor, name, callback=calls)
    epics.caput(name, 4, wait=True)
    t.wait(lambda: calls)
    t.see("called", lambda: (len(calls), calls[0]["value"], calls[0]["cb_info"][0]))
    t.see("not the first", lambda: len(lines))
    t.see("clear", epics.camonitor_clear, name)
    epics.caput(name, 5, wait=True)
    t.settle(0.1)
    t.see("silent", lambda: (len(calls), len(lines), dict(epics._PVmonitors_)))
    t.see("clear again", epics.camonitor_clear, name)
    t.see("clear unknown", epics.camonitor_clear, "nobody")
    t.see("missing", epics.camonitor, t.p("missing"), connection_timeout=0.1)
    for other in ("mbbo", "stringout.DESC"):  # their first events are not what is looked at
        first_value(t, epics.get_pv(t.p(other)))
    t.settle(0.05)
    t.see("to stdout", epics.camonitor, t.p("mbbo"))
    t.settle(0.05)
    t.aside.take()
    epics.caput(t.p("mbbo"), 3, wait=True)
    t.wait(lambda: t.aside.has("prints"))
    t.settle(0.1)
    t.see("printed", None)
    epics.camonitor_clear(t.p("mbbo"))
    t.see("long name", epics.camonitor, t.p("stringout.DESC"), writer=lines.append)
    epics.caput(t.p("stringout.DESC"), "a description", wait=True)
    t.wait(lambda: len(lines) > 3)
    t.see("line of long name", lambda: t.describe.text(lines[-1]))


@step("many")
def many(t: Lab) -> None:
    """Many at once."""
    epics = t.epics
    names = [t.s(name) for name in "ai mbbo stringin wf:long:n wf:char:n longin int64in".split()]
    for title, kwds in {
        "get": {},
        "text": {"as_string": True},
        "list": {"as_numpy": False},
        "count": {"count": 2},
        "old timeout": {"conn_timeout": 2.0},
    }.items():
        t.see(f"{title}", epics.caget_many, names, **kwds)
    t.see("get none", epics.caget_many, [])
    t.see("get missing", epics.caget_many, [names[0], t.p("missing")], connection_timeout=0.2)
    t.see("get twice", epics.caget_many, [names[0], names[0]])
    t.see("get tuple", epics.caget_many, tuple(names[:2]))
    to = [t.p("double"), t.p("longout"), t.p("stringout"), t.p("w:double")]
    values = [1.5, 2, "text", [1, 2, 3]]
    for title, wait in {"put": False, "each": "each", "all": "all", "true": True}.items():
        t.see(f"put {title}", epics.caput_many, to, values, wait=wait)
    t.settle(0.05)
    t.see("put then", epics.caget_many, to)
    t.see("put lengths", epics.caput_many, to, [1])
    t.see("put none", epics.caput_many, [], [])
    pair = [t.p("missing"), t.p("double")]
    t.see("put missing", epics.caput_many, pair, [1, 2], connection_timeout=0.1)
    t.see("put missing each", epics.caput_many, pair, [1, 2], "each", connection_timeout=0.1)
    t.see(
        "put missing all",
        epics.caput_many,
        pair,
        [1, 2],
        "all",
        connection_timeout=0.1,
        put_timeout=0.3,
    )
    t.see("put bad", epics.caput_many, [t.p("double")], ["abc"])
    t.see("put read-only", epics.caput_many, [t.p("readonly")], [1])
    # 2 s are too long for the one, whatever else the machine does, and 1 s is enough for the other
    slow = [t.p("slow2"), t.p("double")]
    t.see("put slow each", epics.caput_many, slow, [1, 2], "each", put_timeout=1.0)
    t.idle("slow2")
    t.see("put slow all", epics.caput_many, slow, [1, 2], "all", put_timeout=1.0)
    t.idle("slow2")
    t.see("put slow all in time", epics.caput_many, slow, [1, 2], "all", put_timeout=10)


@step("times")
def times(t: Lab) -> None:
    """fmt_time."""
    for stamp in (0.0, 1.5, 631152000.0, 1234567890.123456, 1234567890.00001):
        t.note(f"{stamp}", t.epics.pv.fmt_time(stamp))
    t.note("rounds up", t.epics.pv.fmt_time(12.9999999))
    t.see("now", t.epics.pv.fmt_time)


@step("enums of dbr")
def dbr(t: Lab) -> None:
    """The module dbr."""
    dbr = t.epics.dbr
    for number in (*range(-1, 41), 100):
        t.see(f"Name {number}", dbr.Name, number)
    for text in "DOUBLE double TIME_DOUBLE ctrl_enum bogus time_short SHORT".split():
        t.see(f"Name {text}", dbr.Name, text, reverse=True)
    for number in range(39):
        t.see(f"native_type {number}", dbr.native_type, number)
    for number in range(25):
        t.see(f"AlarmStatus {number}", lambda n=number: dbr.AlarmStatus(n))
    for given in ("x", "READ", None, 2.0):
        t.see(f"AlarmStatus {given!r}", lambda given=given: repr(dbr.AlarmStatus(given)))
    for number in range(6):
        t.see(f"AlarmSeverity {number}", lambda n=number: dbr.AlarmSeverity(n))
    for name in (
        "ECA_NORMAL ECA_TIMEOUT ECA_IODONE ECA_ISATTACHED ECA_BADCHID CS_CONN OP_CONN_UP OP_CONN_DOWN CS_NEVER_SEARCH "
        "DBE_VALUE DBE_LOG DBE_ALARM DBE_PROPERTY STRING INT SHORT FLOAT ENUM CHAR LONG DOUBLE TIME_STRING TIME_DOUBLE "
        "CTRL_STRING CTRL_DOUBLE CTRL_ENUM MAX_STRING_SIZE MAX_UNITS_SIZE MAX_ENUM_STRING_SIZE "
        "EPICS2UNIX_EPOCH"
    ).split():
        t.see(name, lambda name=name: getattr(dbr, name))
    for name in sorted(dbr.Map):
        t.note(f"Map {name}", dbr.Map[name].__name__)
    t.see("NP_Map", lambda: {key: str(value) for key, value in dbr.NP_Map.items()})
    t.see("ctrl_limits", lambda: dbr.ctrl_limits)


@step("utils")
def utils(t: Lab) -> None:
    """The module utils."""
    utils = t.epics.utils
    for title, value in {"text": "abé", "bytes": b"ab\xc3\xa9", "empty": "", "number": 5}.items():
        t.see(f"str2bytes {title}", utils.str2bytes, value)
        t.see(f"bytes2str {title}", utils.bytes2str, value)
    t.see("strjoin", utils.strjoin, "-", ["a", "b"])
    t.see("strjoin bytes", utils.strjoin, "", [b"a", b"b", b"\0", b"c"])
    t.see("encoding", utils.IOENCODING)
    t.see("search path", utils.clib_search_path, "ca")
