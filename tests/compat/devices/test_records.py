"""`ai`, `ao`, `bi`, `bo` on real records, and every name and signature of pyepics' devices."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from typing import Any

import pytest
from support import run_python, wait_until

from epicsx.devices import ai, ao, bi, bo
from epicsx.testing import SoftIOC

MODULES = (
    *("ad_base", "ad_fileplugin", "ad_image", "ad_mca", "ad_overlay", "ad_perkinelmer"),
    *("ai", "ao", "bi", "bo", "mca", "scaler", "scan", "srs570", "struck", "transform"),
    "xspress3",
)
LACKING = {"EGU", "HOPR", "LOPR", "PREC"}  # of bi and bo, which pyepics lists all the same


@pytest.mark.parametrize(("cls", "name"), [(ai, "ai"), (ao, "ao"), (bi, "bi"), (bo, "bo")])
def test_all_fields_of_a_record(ioc: SoftIOC, cls: Any, name: str) -> None:
    record = cls(ioc[name] + ".", timeout=0.05)
    assert set(record._pvs) == set(cls.attrs)
    assert record._prefix == ioc[name] + "."
    missing = LACKING if name.startswith("b") else set()
    there = [pv for attr, pv in record._pvs.items() if attr not in missing]
    wait_until(lambda: all(pv.connected for pv in there))
    state = record.get_all()
    assert {attr for attr, value in state.items() if value is None} == missing
    assert state["NAME"] == ioc[name]
    wait_until(lambda: hasattr(record, "SCAN"))  # each time it is given no more than 0.05 s
    assert record.SCAN == 0  # a field not in the list


def test_writes_fields(ioc: SoftIOC) -> None:
    analog, binary = ao(ioc["ao"]), bo(ioc["bo"])
    analog.HYST = 0.5
    analog.put("DESC", "set by ao", wait=True)
    assert (ioc.read("ao.HYST"), ioc.read("ao.DESC")) == ("0.5", "set by ao")
    binary.put("VAL", "On", wait=True)
    assert ioc.read("bo") == "On"
    binary.VAL = 0
    wait_until(lambda: ioc.read("bo") == "Off")
    assert binary.ZNAM == "Off"


# -------------------------------------------------------------------- the names of pyepics

INVENTORY = """
import inspect, json
from importlib import import_module
import sys
package, *modules = sys.argv[1:]
private = ('__init__', '_attrs', '_alias', '_onDone', '_print', '_calib')
found = {}
for name in modules:
    module = import_module(package + '.devices.' + name)
    for cls_name, cls in vars(module).items():
        if not inspect.isclass(cls) or cls.__module__ != module.__name__:
            continue
        members = found[name + '.' + cls_name] = {}
        for attr in dir(cls):
            member = inspect.getattr_static(cls, attr)
            if attr == 'pv_property' or attr.startswith('_') and attr not in private:
                continue
            if inspect.isfunction(member):
                members[attr] = [[p.name, repr(p.default) if p.default is not p.empty else '', p.kind.name]
                                 for p in inspect.signature(member).parameters.values()]
            elif isinstance(member, property):
                members[attr] = 'property'
            elif isinstance(member, (list, tuple, dict, str)):
                members[attr] = list(member) if isinstance(member, (list, tuple)) else member
print(json.dumps(found))
"""


def inventory(package: str) -> dict[str, dict[str, Any]]:
    """All public classes of the devices of `package`, with the arguments of their methods, and their tables."""
    found: dict[str, dict[str, Any]] = json.loads(run_python(INVENTORY, package, *MODULES).stdout)
    return found


def test_has_every_class_and_member_of_pyepics() -> None:
    theirs, ours = inventory("epics"), inventory("epicsx")
    assert len(theirs) == 25
    different = {}
    for cls, members in theirs.items():
        for name, what in members.items():
            mine = ours.get(cls, {}).get(name)
            if isinstance(what, list) and what and isinstance(what[0], list):  # a method
                what = [each for each in what if each[2] != "VAR_KEYWORD"]
                mine = [each for each in mine or () if each[2] != "VAR_KEYWORD"]
            if mine != what:
                different[f"{cls}.{name}"] = (what, mine)
    assert different == {}


@pytest.mark.parametrize("module", MODULES)
def test_has_every_constant_of_pyepics(module: str) -> None:
    constants = {
        "srs570": {"VALID_STEPS", "VALID_UNITS"},
        "scan": {"NUM_POSITIONERS", "NUM_TRIGGERS", "NUM_DETECTORS"},
        "mca": {"MAX_ROIS"},
        "xspress3": {"MAX_ROIS"},
        "ad_mca": {"MAX_ROIS", "MAX_CHAN", "TOOMANY_ROIS"},
        "struck": {"HEADER"},
    }.get(module, set())
    names = ", ".join(f"'{name}': module.{name}" for name in constants)
    script = f"import epics.devices.{module} as module\nprint({{{names}}})"
    ours = import_module(f"epicsx.devices.{module}")
    theirs = run_python(script).stdout.strip()
    assert theirs == str({name: getattr(ours, name) for name in constants})


def test_the_package_has_the_names_of_pyepics() -> None:
    script = "import epics.devices as d\nprint(*(n for n in vars(d) if not n.startswith('_')))"
    package = import_module("epicsx.devices")
    names = run_python(script).stdout.split()
    assert [name for name in names if not hasattr(package, name)] == []
    assert package.Mca is package.MCA
    assert all(inspect.isclass(getattr(package, name)) for name in package.__all__)
