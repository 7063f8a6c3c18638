"""`Scan`, `Transform`: their methods, and what reaches the server."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from support import wait_until

import epicsx
from epicsx.devices import Scan, Transform
from epicsx.devices.scan import NUM_DETECTORS, NUM_POSITIONERS, NUM_TRIGGERS, ScanException
from epicsx.errors import BadValueError
from epicsx.testing import PVSet


def _positioner(i: int) -> dict[str, Any]:
    return {
        f"P{i}PV": "",
        f"R{i}PV": "",
        **{f"P{i}{attr}": 0.0 for attr in ("SP", "EP", "SI", "CP", "WD")},
        f"P{i}PA": {"value": [0.0], "size": 100},
        f"P{i}AR": {"value": 0, "states": ["ABSOLUTE", "RELATIVE"]},
        f"P{i}SM": {"value": 0, "states": ["LINEAR", "TABLE", "FLY"]},
    }


SCAN: dict[str, Any] = {
    "RTYP": "sscan",
    "NAME": "DEV:scan",
    "SMSG": "old news",
    "PASM": {"value": 0, "states": ["STAY", "START POS", "PRIOR POS"]},
    "EXSC": {"value": 0, "returns": 0.05},
    **dict.fromkeys(("VAL", "CMND", "NPTS", "PAUS", "CPT"), 0),
    **dict.fromkeys(("PDLY", "DDLY"), 0.0),
    **{k: v for i in range(1, NUM_POSITIONERS + 1) for k, v in _positioner(i).items()},
    **{f"T{i}PV": "" for i in range(1, NUM_TRIGGERS + 1)},
    **{f"T{i}CD": 0.0 for i in range(1, NUM_TRIGGERS + 1)},
    **{f"T{i}NV": 1 for i in range(1, NUM_TRIGGERS + 1)},
    **{f"D{i:02}PV": "" for i in range(1, NUM_DETECTORS + 1)},
}
TRANSFORM: dict[str, Any] = {
    "COPT": 0,
    "PREC": 3,
    **{f"{row}": float(i) for i, row in enumerate(Transform.rows)},
    **{f"L{row}": i / 2 for i, row in enumerate(Transform.rows)},
    **{fmt % row: "" for fmt in ("INP%s", "CLC%s", "OUT%s", "CMT%s") for row in Transform.rows},
    **{fmt % row: 1 for fmt in ("I%sV", "O%sV", "C%sV") for row in Transform.rows},
}
PVS = {
    **{f"DEV:scan.{field}": value for field, value in SCAN.items()},
    **{f"DEV:tr.{field}": value for field, value in TRANSFORM.items()},
    "DEV:other.RTYP": "ai",
}


def puts(pvs: PVSet, count: int, record: str = "DEV:scan.") -> list[tuple[str, Any]]:
    """The puts that came, so many, without the name of the record."""
    wait_until(lambda: len(pvs.puts) >= count)
    return [(name.removeprefix(record), value) for name, value in pvs.puts]


def made(pvs: PVSet) -> Scan:
    scan = Scan("DEV:scan")
    scan.PV("SMSG").put("", wait=True)
    pvs.reset()
    return scan


# ------------------------------------------------------------------------------------ Scan


def test_makes_sure_that_it_is_a_scan(pvs: PVSet) -> None:
    Scan("DEV:scan.")
    assert puts(pvs, 1) == [("SMSG", "")]
    with pytest.raises(ScanException, match="DEV:other is not an Epics Scan") as raised:
        Scan("DEV:other", timeout=0.01)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.msg) == (str(raised.value), "DEV:other is not an Epics Scan")


def test_english_names(pvs: PVSet, capsys: pytest.CaptureFixture[str]) -> None:
    scan = made(pvs)
    scan.start, scan.npts = -1.5, 31
    assert puts(pvs, 2) == [("P1SP", -1.5), ("NPTS", 31)]
    pvs.write("DEV:scan.T1PV", "DEV:trigger")
    wait_until(lambda: (scan.P1SP, scan.npts, scan.trigger) == (-1.5, 31, "DEV:trigger"))
    scan._print()
    assert capsys.readouterr().out == "PV = \nSP = -1.5\nEP = 0.0\nNPTS = 31\nT  = DEV:trigger\n"


def test_runs_and_waits(pvs: PVSet) -> None:
    scan = made(pvs)
    scan.run(wait=True, timeout=5)
    assert puts(pvs, 1) == [("EXSC", 1)]
    assert pvs["DEV:scan.EXSC"] == 0
    scan.add_callback("EXSC", scan._onDone)
    scan.run()
    assert scan.waitSemaphore.acquire(timeout=5)


def test_adds_detectors_and_triggers_until_there_is_no_room(pvs: PVSet) -> None:
    scan = made(pvs)
    assert [scan.add_detector(f"DEV:d{i}") for i in range(3)] == [1, 2, 3]
    assert pvs.read("DEV:scan.D01PV", "DEV:scan.D03PV") == ["DEV:d0", "DEV:d2"]
    scan.clear_detector(2)
    assert scan.add_detector("DEV:new") == 2
    for i in range(1, NUM_DETECTORS + 1):
        pvs.write(f"DEV:scan.D{i:02}PV", "DEV:taken")
    with pytest.raises(ScanException, match=r"70 Detectors already defined\."):
        scan.add_detector("DEV:new")
    assert [scan.add_trigger("DEV:t", value=i) for i in range(4)] == [1, 2, 3, 4]
    assert pvs.read("DEV:scan.T4PV", "DEV:scan.T4CD") == ["DEV:t", 3.0]
    with pytest.raises(ScanException, match=r"4 Triggers already defined\."):
        scan.add_trigger("DEV:t")
    scan.clear_trigger(3)
    assert scan.add_trigger("DEV:again") == 3
    assert pvs["DEV:scan.T3CD"] == 1.0


def test_adds_changes_and_clears_positioners(pvs: PVSet) -> None:
    scan = made(pvs)
    assert scan.add_positioner("DEV:m1.VAL", start=-1, stop=1, step=0.25, absolute=False) == 1
    assert puts(pvs, 7) == [
        ("P1PV", "DEV:m1.VAL"),
        ("R1PV", "DEV:m1.RBV"),
        ("P1AR", 1),
        ("P1SM", 0),
        ("P1SP", -1.0),
        ("P1EP", 1.0),
        ("P1SI", 0.25),
    ]
    pvs.reset()
    pvs.write("DEV:scan.P1PV", "DEV:m1.VAL")
    array = [1.0, 2.0, 4.0]
    assert (
        scan.add_positioner("DEV:ao", "DEV:ai", center=1, width=2, mode="Table", array=array) == 2
    )
    assert puts(pvs, 7) == [
        *(("P2PV", "DEV:ao"), ("R2PV", "DEV:ai"), ("P2AR", 0), ("P2SM", 1)),
        *(("P2CP", 1.0), ("P2WD", 2.0), ("P2PA", array)),
    ]
    scan.set_positioner(2, drive="DEV:x", stop=7, mode="fly", absolute=False)
    wait_until(lambda: len(pvs.puts) == 11)
    assert puts(pvs, 11)[7:] == [("P2PV", "DEV:x"), ("P2EP", 7.0), ("P2AR", 1), ("P2SM", 2)]
    scan.clear_positioner(2)
    names = [f"DEV:scan.{field}" for field in _positioner(2)]
    wait_until(lambda: len(pvs.puts) == 21)
    assert pvs.read(*names) == ["", "", 0.0, 0.0, 0.0, 0.0, 0.0, [0.0], 0, 0]
    assert [scan.add_positioner("DEV:y") for _ in range(3)] == [2, 3, 4]
    with pytest.raises(ScanException, match=r"4 Positioners already defined\."):
        scan.add_positioner("DEV:y")
    with pytest.raises(ScanException, match="must give positioner index"):
        scan.set_positioner(None)


def test_resets(pvs: PVSet) -> None:
    scan = made(pvs)
    scan.add_positioner("DEV:m1.VAL", start=1)
    scan.add_trigger("DEV:t")
    scan.add_detector("DEV:d")
    scan.put("NPTS", 5, wait=True)
    scan.reset()
    fields = ("P1PV", "R1PV", "P1SP", "T1PV", "D01PV", "NPTS")
    names = [f"DEV:scan.{field}" for field in fields]
    wait_until(lambda: pvs.read(*names) == ["", "", 0.0, "", "", 0])
    wait_until(lambda: pvs.puts[-1] == ("DEV:scan.D70PV", ""))


def test_sets_its_times_and_what_follows(pvs: PVSet) -> None:
    scan = made(pvs)
    scan.after_scan("PRIOR POS")
    scan.positioner_delay(0.5)
    scan.detector_delay(0.25)
    assert pvs.puts == [("DEV:scan.PASM", 2), ("DEV:scan.PDLY", 0.5), ("DEV:scan.DDLY", 0.25)]


def test_methods_of_2011(pvs: PVSet) -> None:
    scan = made(pvs)
    scan.setPositioner()  # without a name nothing is done
    scan.setPositioner(positioner="DEV:psi", index=2)
    scan.setStart(1, index=2)
    scan.setEnd(end=9)
    scan.setNpts(20)
    scan.setDelay(0.5)
    scan.setPause(1)
    scan.loop(scan)
    assert puts(pvs, 7) == [
        *(("P2PV", "DEV:psi"), ("P2SP", 1.0), ("P1EP", 9.0), ("NPTS", 20), ("PDLY", 0.5)),
        *(("PAUS", 1), ("T1PV", "DEV:scan.EXSC")),
    ]
    assert scan.getCpt() == 0
    assert Scan.posit_attrs == Scan.pos_attrs


def test_scan_does_what_pyepics_does(both: Callable[[str], Any]) -> None:
    found = both(
        """
        s = devices.Scan('DEV:scan')
        print(s)
        for attr in sorted(s._pvs): print(attr)
        print(s.get('RTYP'))
        print(s.add_positioner('DEV:m1.VAL', start=-1, stop=1, step=0.5))
        settled(s, 'P1PV', 'DEV:m1.VAL')
        print(s.add_positioner('DEV:m2.VAL', mode='table', array=[1, 2, 3], absolute=False))
        print(s.add_detector('DEV:d1'), settled(s, 'D01PV', 'DEV:d1'), s.add_detector('DEV:d2'))
        print(s.add_trigger('DEV:t', 2))
        print(s.set_positioner(1, start=0, width=3, mode='fly', absolute=False))
        print(s.after_scan(1), s.positioner_delay(0.5), s.detector_delay(1), s.clear_detector(1))
        s.npts = 11
        s.PV('EXSC').put(1, wait=True)
        for attr, value in (('P1SP', 0), ('NPTS', 11), ('T1PV', 'DEV:t')):
            settled(s, attr, value)
        s._print()
        print(s.clear_positioner(2), s.clear_trigger(1))
        s.PV('CMND').put(1, wait=True)
        try:
            devices.Scan('DEV:other', timeout=0.01)
        except devices.scan.ScanException as error:
            print(error)
        """
    )
    found.assert_same()
    assert len(found["epics"][1]) > 30


# ------------------------------------------------------------------------------- Transform


def test_reads_a_row(pvs: PVSet) -> None:
    transform = Transform("DEV:tr.")
    assert len(transform._pvs) == 2 + 16 * 9
    assert transform.get_row("C") == {
        "Value": 2.0,
        "Input": "",
        "Input_Valid": 1,
        "Expression": "",
        "Output": "",
        "Output_Valid": 1,
        "Comment": "",
        "Expression_Valid": 1,
        "Previous_Value": 1.0,
    }
    assert transform.attrs[:3] == ["COPT", "PREC", "A"]
    assert transform.P == 15.0


def test_writes_rows(pvs: PVSet) -> None:
    transform = Transform("DEV:tr")
    transform.set_calc("B", "A*2")
    transform.set_comment(row="B", comment="twice A")
    transform.set_input("B", input="DEV:x CP")
    transform.set_calc(calc="1")
    assert puts(pvs, 4, "DEV:tr.") == [
        *(("CLCB", "A*2"), ("CMTB", "twice A"), ("INPB", "DEV:x CP"), ("CLCA", "1")),
    ]
    written = {"Expression": "A*2", "Comment": "twice A", "Input": "DEV:x CP"}
    wait_until(lambda: written.items() <= (transform.get_row("B") or {}).items())  # by monitors
    row = transform.get_row("B")
    assert row is not None
    row["unknown"] = 1
    row["Output"] = "DEV:y"
    transform.set_row("D", row)
    wait_until(lambda: pvs.read("DEV:tr.CLCD", "DEV:tr.OUTD") == ["A*2", "DEV:y"])
    assert pvs.read("DEV:tr.D", "DEV:tr.CMTD", "DEV:tr.INPD") == [1.0, "twice A", "DEV:x CP"]
    transform.set_row("D")


@pytest.mark.parametrize("row", ["a", "Q", "", "AB", None, 1])
def test_a_row_that_is_none(pvs: PVSet, row: Any) -> None:
    transform = Transform("DEV:tr")
    transform.COPT = 1
    assert transform.get_row(row) is None
    for method in (transform.set_calc, transform.set_comment, transform.set_input):
        method(row, "A")
    transform.set_row(row, {"Comment": "A"})
    epicsx.strict()
    try:
        with pytest.raises(BadValueError, match="no row of a transform record"):
            transform.get_row(row)
    finally:
        epicsx.strict(False)
    assert puts(pvs, 1, "DEV:tr.") == [("COPT", 1)]


def test_pyepics_cannot_make_a_transform(both: Callable[[str], Any]) -> None:
    found = both(
        """
        try:
            t = devices.Transform('DEV:tr')
            print(t.get_row('B')['Value'], t.get('C'))
        except AttributeError as error:
            print(error)
        """
    )
    assert found["epics"][0] == ["Transform has no attribute attrs"]
    assert found["epicsx"][0] == ["1.0 2.0"]
