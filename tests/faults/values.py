"""D7, D8: what becomes of each kind of value that is put: an error, or at the IOC what was meant.

A change that nobody is told of is a fault.

`python -m tests.faults.values` writes docs/put-outcomes.md from the last runs of both under both libraries.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from support import Client

import epicsx
from epicsx.testing import SoftIOC
from faults.harness import Figure, scenario
from faults.report import PAGE
from faults.room import Room

DB = """
record(ao, "$(P)ao") { field(PREC, "3") }
record(longout, "$(P)longout") {}
record(stringout, "$(P)stringout") {}
record(mbbo, "$(P)mbbo") { field(ZRST, "Zero") field(ONST, "One") field(TWST, "Two") field(THST, "Three") }
record(ao, "$(P)disp") { field(DISP, "1") }
record(waveform, "$(P)doubles") { field(FTVL, "DOUBLE") field(NELM, "12") }
record(waveform, "$(P)longs") { field(FTVL, "LONG") field(NELM, "12") }
record(waveform, "$(P)chars") { field(FTVL, "UCHAR") field(NELM, "12") }
record(waveform, "$(P)strings") { field(FTVL, "STRING") field(NELM, "3") }
record(waveform, "$(P)large") { field(FTVL, "DOUBLE") field(NELM, "1000000") }
"""

ERROR = object()
"""Nothing that could be stored would be what was meant."""


@dataclass(frozen=True)
class Case:
    """One value for one record, and what the IOC must hold if the put is accepted."""

    record: str
    shown: str
    value: Any
    wanted: Any = ERROR


def _cases() -> list[Case]:
    nan, inf = math.nan, math.inf
    return [
        Case("doubles", "[]", [], []),
        Case("ao", "[]", []),
        Case("doubles", "13 elements for 12", list(range(13))),
        Case("ao", "[1.0, 2.0]", [1.0, 2.0]),
        Case("stringout", "39 characters", "x" * 39, "x" * 39),
        Case("stringout", "40 characters", "x" * 40),
        Case("stringout", "41 characters", "x" * 41),
        Case("stringout", "38 characters and µ", "x" * 38 + "µ"),
        Case("stringout", "20 of µ", "µ" * 20),
        Case("stringout", "NUL within", "a\0b"),
        Case("stringout", "''", "", ""),
        Case("stringout", "5", 5, "5"),
        Case("stringout", "None", None),
        Case("strings", "a text of 40", ["a", "x" * 40]),
        Case("chars", "'twelve chars'", "twelve chars", list(b"twelve chars")),
        Case("ao", "nan", nan, nan),
        Case("ao", "inf", inf, inf),
        Case("longout", "nan", nan),
        Case("longout", "inf", inf),
        Case("ao", "True", True, 1.0),
        Case("ao", "None", None),
        Case("ao", "object()", object()),
        Case("ao", "1j", 1j),
        Case("ao", "'text'", "text"),
        Case("ao", "'1.5'", "1.5", 1.5),
        Case("longout", "1.5", 1.5),
        Case("longout", "2**31", 2**31),
        Case("longout", "-2**31", -(2**31), -(2**31)),
        Case("longout", "2**200", 2**200),
        Case("ao", "2**53 + 1, the nearest double", 2**53 + 1, 2.0**53),  # docs/caveats.md
        Case("ao", "10**400", 10**400),
        Case("mbbo", "3", 3, 3),
        Case("mbbo", "'Three'", "Three", 3),
        Case("mbbo", "16", 16, 16),
        Case("mbbo", "77", 77, 77),
        Case("mbbo", "-1", -1),
        Case("mbbo", "70000", 70000),
        Case("mbbo", "'Four'", "Four"),
        Case("mbbo", "''", ""),
        Case("disp", "7.0 (the record refuses)", 7.0),
    ]


def _array_cases() -> list[Case]:
    twelve = np.arange(12.0)
    two = twelve.reshape(3, 4)
    constant = twelve.copy()
    constant.setflags(write=False)
    masked = np.ma.masked_greater(twelve, 5.0)  # type: ignore[no-untyped-call,unused-ignore]
    return [
        Case("doubles", "every second of 24", np.arange(24.0)[::2], list(range(0, 24, 2))),
        Case("doubles", "reversed", twelve[::-1], list(range(11, -1, -1))),
        Case("doubles", "Fortran order, 3 by 4", np.asfortranarray(two), list(range(12))),
        Case("doubles", "C order, 3 by 4", two, list(range(12))),
        Case("doubles", "big-endian", twelve.astype(">f8"), list(range(12))),
        Case("doubles", "read-only", constant, list(range(12))),
        Case("doubles", "0-dimensional", np.array(7.5), [7.5]),
        Case("ao", "0-dimensional", np.array(7.5), 7.5),
        Case("doubles", "float16", np.array([0.5, -2.0], np.float16), [0.5, -2.0]),
        Case("doubles", "longdouble", np.array([0.5], np.longdouble), [0.5]),
        Case("doubles", "uint64 2**53", np.array([2**53], np.uint64), [2.0**53]),
        Case(
            "doubles", "uint64 2**53 + 1, the nearest", np.array([2**53 + 1], np.uint64), [2.0**53]
        ),
        Case("doubles", "bool", np.array([True, False]), [1.0, 0.0]),
        Case("doubles", "complex", np.array([1j])),
        Case("doubles", "datetime64", np.array(["2020-01-01"], "M8[s]")),
        Case("doubles", "object", np.array([1.0, None], object)),
        Case("doubles", "structured", np.zeros(2, [("a", "f8")])),
        Case("doubles", "text", np.array(["1.5", "2.5"]), [1.5, 2.5]),
        Case("doubles", "masked, 6 of 12", masked),
        Case("doubles", "memoryview", twelve.data, list(range(12))),
        Case("doubles", "array.array of float", array.array("f", [1.5, 2.5]), [1.5, 2.5]),
        Case("longs", "int64 that fits", np.array([2**31 - 1], np.int64), [2**31 - 1]),
        Case("longs", "int64 that does not", np.array([2**31], np.int64)),
        Case("longs", "uint32 that does not", np.array([2**32 - 1], np.uint32)),
        Case("longs", "float with fractions", np.array([1.5])),
        Case("longs", "float nan", np.array([math.nan])),
        Case("longs", "big-endian int16", np.array([-2, 3], ">i2"), [-2, 3]),
        Case("chars", "array.array of uint8", array.array("B", b"\0\xff"), [0, 255]),
        Case("chars", "uint8, every second", np.arange(10, dtype=np.uint8)[::2], [0, 2, 4, 6, 8]),
        Case("chars", "int16 300", np.array([300], np.int16)),
    ]


# ---- the IOC's side


READER = """
import json, sys
import numpy as np
import epicsx
channels = {}
def of(name):
    if name not in channels:
        channels[name] = epicsx.Channel(sys.argv[1] + name).connect(20.0)
    return channels[name]
START = {"ao": 0.25, "disp": 0.25, "longout": 4, "stringout": "before", "mbbo": 1, "doubles": [0.25], "longs": [4],
         "chars": [4], "strings": ["before"]}
for line in sys.stdin:
    word, name = line.split()
    if word == "start":
        if name != "disp":
            of(name).put(START[name], wait=True)
    sample = of(name).get()
    value = sample.value.tolist() if isinstance(sample.value, np.ndarray) else sample.value
    print("is", json.dumps([value, sample.timestamp_ns]))
"""


class Ioc:
    """An IOC and a client of its own that says what it holds."""

    def __init__(self, ioc: SoftIOC, reader: Client) -> None:
        self.ioc = ioc
        self._reader = reader

    def ask(self, word: str, record: str) -> Any:
        """What a record holds; 'start' gives it a value first."""
        self._reader.send(f"{word} {record}")
        return json.loads(self._reader.wait_line("is ").partition(" ")[2])


def same(found: Any, wanted: Any) -> bool:
    """Whether the IOC holds what was meant."""
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float) and math.isnan(found)
    return bool(found == wanted)


def outcome(ioc: Ioc, case: Case, put: Callable[[str, Any], Any]) -> tuple[str, bool]:
    """What came of one case, and whether it is in order: told as a failure, or stored as it was meant."""
    before = ioc.ask("start", case.record)
    failed = ""
    answer: Any = None
    try:
        answer = put(ioc.ioc[case.record], case.value)
    except Exception as error:
        failed = type(error).__name__
    after = ioc.ask("read", case.record)
    stored = case.wanted is not ERROR and same(after[0], case.wanted)
    if failed:
        return (
            (failed, True)
            if after == before
            else (f"{failed}, but stored {short(after[0])}", False)
        )
    if answer is not True and answer != 1:
        told = f"answers {answer!r}"
        return (
            (told, True) if after[0] == before[0] else (f"{told}, stored {short(after[0])}", False)
        )
    if stored:
        return "stored", True
    if after == before:
        return "**says done, nothing is stored**", False
    return f"**says done, stored {short(after[0])}**", False


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:30] + "..."


def run(
    room: Room, name: str, cases: list[Case], puts: Mapping[str, Callable[[str, Any], Any]]
) -> Figure:
    """Do all cases in each way, keep the table, and check that nothing was changed silently."""
    server = room.ioc(DB)
    ioc = Ioc(server, room.child(READER, server.prefix))
    table: dict[str, dict[str, str]] = {}
    parts = []
    silent_in_all = 0
    for way, put in puts.items():
        wrong = []
        refused = 0
        for case in cases:
            said, fine = outcome(ioc, case, put)
            table.setdefault(way, {})[f"{case.record}: {case.shown}"] = said
            refused += fine and said != "stored"
            if not fine:
                wrong.append(f"{case.record} {case.shown}: {said.strip('*')}")
        parts.append(
            f"{way}: {len(cases)} values, {len(cases) - refused - len(wrong)} stored as meant, {refused} refused, "
            f"{len(wrong)} changed or lost silently"
        )
        silent_in_all += len(wrong)
        for each in wrong if way != "PV.put" else ():
            print(f"{way}: {each}")
        if way != "PV.put":  # its habits are pyepics': docs/parity.md
            shown = "; ".join(wrong[:4]) + (
                f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            )
            room.check(not wrong, f"silently: {shown}")
    path = _kept(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | table, indent=1), encoding="utf-8")
    return Figure("; ".join(parts), silent=silent_in_all)


def _kept(name: str) -> Path:
    return PAGE.parents[1] / "build" / f"faults-{name}.json"


@contextlib.contextmanager
def _epicsx_puts() -> Iterator[dict[str, Callable[[str, Any], Any]]]:
    channels: dict[str, epicsx.Channel] = {}
    pvs: dict[str, Any] = {}

    def native(name: str, value: Any) -> Any:
        channel = channels.setdefault(name, epicsx.Channel(name))
        channel.put(value, wait=True, timeout=5.0)
        return True

    def pv(name: str, value: Any) -> Any:
        if name not in pvs:
            pvs[name] = epicsx.PV(name, auto_monitor=False)
            pvs[name].wait_for_connection(10.0)
        return pvs[name].put(value, wait=True, timeout=5.0)

    yield {"Channel.put": native, "PV.put": pv}
    for channel in channels.values():
        channel.close()


def _pyepics_puts() -> dict[str, Callable[[str, Any], Any]]:
    import epics

    pvs: dict[str, Any] = {}

    def pv(name: str, value: Any) -> Any:
        if name not in pvs:
            pvs[name] = epics.PV(name, auto_monitor=False)
            pvs[name].wait_for_connection(10.0)
        return pvs[name].put(value, wait=True, timeout=5.0)

    return {"pyepics": pv}


@scenario(
    "D7",
    how=f"{len(_cases())} values that do not, or hardly, fit their record are put, with wait",
    expected="an exact error type before anything is sent, or the server's own error, or stored as meant",
    limit=120,
    quick=True,
)
def d7(room: Room) -> Figure:
    with _epicsx_puts() as puts:
        return run(room, "d7", _cases(), puts)


@d7.pyepics
def d7_pyepics(room: Room) -> Figure:
    return run(room, "d7", _cases(), _pyepics_puts())


@scenario(
    "D8",
    how=f"{len(_array_cases())} arrays of other layout, byte order and type, and one freed right after its put",
    expected="the right values at the IOC, or a clear error",
    limit=60,
    ports=2,
)
def d8(room: Room) -> Figure:
    with _epicsx_puts() as puts:
        figure = run(room, "d8", _array_cases(), puts)
    ioc = room.ioc(DB)
    with epicsx.Channel(ioc["large"]) as channel:
        channel.connect(10.0)
        for number in range(20):
            values = np.full(1_000_000, float(number))
            channel.put(values)
            values[:] = -1.0
            del values
            found = channel.get(timeout=20.0).value
            assert found.min() == found.max() == number, (number, found.min(), found.max())
    return Figure(
        figure.text + "; 20 of 20 arrays freed after their put arrived whole", **figure.numbers
    )


@d8.pyepics
def d8_pyepics(room: Room) -> Figure:
    return run(room, "d8", _array_cases(), _pyepics_puts())


_PAGE = """# What becomes of a value that is put

Each row puts one value to one record, with wait. *stored* is: accepted, and the record has what was meant. An
exception's name is: refused with it, and the record is untouched. Bold is what nobody was told: the put was said to be
done, and the record has something else. This page is written by `make faults`; rows D7 and D8 of
[](reliability.md) sum it up.

`Channel.put` is epicsx' native interface. `PV.put` is its `PV`, which keeps habits of pyepics where programs rely on
them, such as integers cut from floats.

"""


def page() -> str:
    """docs/put-outcomes.md, from what the last runs kept."""
    lines = [_PAGE.rstrip("\n"), ""]
    for name, heading in (("d7", "Values"), ("d8", "Arrays")):
        table = json.loads(_kept(name).read_text(encoding="utf-8"))
        ways = list(table)
        lines += [
            f"## {heading}",
            "",
            f"| value | {' | '.join(ways)} |",
            "| --- " * (len(ways) + 1) + "|",
        ]
        for row in table[ways[0]]:
            cells = [table[way].get(row, "-") for way in ways]
            lines.append(
                "| " + " | ".join(each.replace("|", "\\|") for each in (row, *cells)) + " |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    if not all(_kept(name).exists() for name in ("d7", "d8")):
        sys.exit("docs/put-outcomes.md stays as it is: D7 and D8 have not been run")
    PAGE.with_name("put-outcomes.md").write_text(page(), encoding="utf-8")
    print("written: docs/put-outcomes.md")
