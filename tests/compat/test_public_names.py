"""Every public name of pyepics 3.5.10 is here, with a compatible signature, in the module where pyepics has it.

The names are in pyepics_api.json. A null there means that only the presence is asked for. What the modules of pyepics
import from elsewhere (`time`, `ctypes`, ...) is not its interface; only of the package itself it is asked for, since
`from epics import *` gives it. wx and qt are left out.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support import run_python

API: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "pyepics_api.json").read_text(encoding="utf-8")
)["modules"]

MODULES = [name for name in API if name != "epics"]
CLASSES = [(module, name) for module in MODULES for name in API[module].get("classes", {})]


class _Missing:
    """What is not there, and all its attributes."""

    def __getattr__(self, name: str) -> _Missing:
        return self


MISSING = _Missing()


#: pyepics takes any arguments here and hands them to the base class, whose names are just as good.
HANDED_ON = ("CAProcess.__init__", "CAPool.__init__")


def ours(dotted: str) -> Any:
    """The module, or the thing in a module, that epicsx has under a name of pyepics."""
    if dotted == "epics.version":
        dotted = "epics.compat._epics_version"
    if dotted in API or dotted.endswith("_epics_version"):
        return import_module(dotted.replace("epics", "epicsx", 1) if "." in dotted else "epicsx")
    module, _, name = dotted.rpartition(".")
    return getattr(ours(module) if module.startswith("epics") else import_module(module), name)


def parameters(text: str) -> list[inspect.Parameter]:
    """Those of a signature given as text; a default that is no literal is `MISSING`."""
    names: dict[str, Any] = {}
    while True:
        try:
            made = eval(f"lambda {text[1:-1]}: None", names)  # the repository's own text
        except NameError as error:
            names[str(error.name)] = MISSING
        else:
            return list(inspect.signature(made).parameters.values())


def differences(what: str, theirs: str, function: Any) -> list[str]:
    """In what a function does not take the arguments that pyepics' takes."""
    if what in HANDED_ON:
        return []
    given = list(inspect.signature(function).parameters.values())
    wanted = parameters(theirs)
    found = []
    star = [p for p in wanted if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    plain = [p for p in wanted if p not in star]
    for position, parameter in enumerate(plain):
        mine = given[position] if position < len(given) else None
        if mine is None or mine.name != parameter.name or mine.kind != parameter.kind:
            found.append(f"{what}: argument {position} is {mine}, in pyepics {parameter}")
        elif parameter.default is not MISSING and not same(mine.default, parameter.default):
            found.append(f"{what}: {mine}, in pyepics {parameter}")
    kinds = {p.kind for p in given}
    found += [f"{what}: takes no {p}" for p in star if p.kind not in kinds]
    found += [
        f"{what}: {p} has no default, and pyepics has no such argument"
        for p in given[len(plain) :]
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return found


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, float) and isinstance(mine, (int, float)):
        return math.isclose(mine, theirs)
    if isinstance(theirs, list):
        return isinstance(mine, (list, tuple)) and set(theirs) <= set(mine)
    if isinstance(theirs, dict):
        return isinstance(mine, dict) and {*theirs.items()} <= {*mine.items()}
    return type(mine) is type(theirs) and bool(mine == theirs)


def check_names(name: str, module: Any) -> list[str]:
    """What is amiss with the functions, constants and borrowed names of a module."""
    api = API[name]
    found = []
    for function, signature in api.get("functions", {}).items():
        mine = getattr(module, function, None)
        if not callable(mine):
            found.append(f"{name}.{function} is missing")
        else:
            found += differences(f"{name}.{function}", signature, mine)
    for constant, value in api.get("constants", {}).items():
        mine = getattr(module, constant, MISSING)
        if mine is MISSING:
            found.append(f"{name}.{constant} is missing")
        elif value is not None and not same(getattr(mine, "value", mine), value):
            found.append(f"{name}.{constant} is {mine!r}, in pyepics {value!r}")
    for alias, origin in api.get("aliases", {}).items():
        mine = getattr(module, alias, MISSING)
        if mine is MISSING:
            found.append(f"{name}.{alias} is missing")
        elif mine is not ours(origin):
            found.append(f"{name}.{alias} is not {origin}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    assert check_names(name, ours(name)) == []
    module = ours(name)
    assert [c for c in API[name].get("classes", {}) if not hasattr(module, c)] == []


def test_package() -> None:
    # epicsx itself has no `version` and no `time`: those are of the thin module that answers `import epics`
    package = ours("epics")
    ignored = ("epics.version ", "epics.time ")
    assert [text for text in check_names("epics", package) if not text.startswith(ignored)] == []


def test_import_epics_has_them_all() -> None:
    names = [name for part in ("functions", "constants", "aliases") for name in API["epics"][part]]
    run_python(f"""
import importlib, sys
import epicsx
epicsx.install_as_epics()
import epics
missing = [name for name in {names} if not hasattr(epics, name)]
assert not missing, missing
for name in {MODULES}:
    assert importlib.import_module(name) is sys.modules[name]
    if name != "epics.version":
        assert sys.modules[name] is sys.modules[name.replace("epics", "epicsx", 1)], name
""")


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_class(module: str, name: str) -> None:
    api = API[module]["classes"][name]
    cls = getattr(ours(module), name)
    found = []
    for method, signature in api.get("methods", {}).items():
        mine = getattr(cls, method, None)
        if not callable(mine):
            found.append(f"{method} is missing")
        else:
            found += differences(f"{name}.{method}", signature, mine)
    for attribute, settable in api.get("properties", {}).items():
        mine = inspect.getattr_static(cls, attribute, MISSING)
        if mine is MISSING:
            found.append(f"{attribute} is missing")
        elif settable and getattr(mine, "fset", None) is None:
            found.append(f"{attribute} cannot be assigned")
    for attribute, value in api.get("attributes", {}).items():
        mine = getattr(cls, attribute, MISSING)
        if mine is MISSING:
            found.append(f"{attribute} is missing")
        elif value is not None and not same(mine, value):
            found.append(f"{attribute} is {mine!r}, in pyepics {value!r}")
    for base in api["bases"]:
        if not base.startswith(("_ctypes", "enum.ReprEnum")) and not issubclass(cls, ours(base)):
            found.append(f"is no subclass of {base}")
    for field, offset, size in api.get("fields", ()):
        mine = getattr(cls, field, None)
        if (getattr(mine, "offset", None), getattr(mine, "size", None)) != (offset, size):
            found.append(f"field {field} is {mine}, in pyepics at {offset} of {size}")
    if "size" in api and ctypes.sizeof(cls) != api["size"]:
        found.append(f"takes {ctypes.sizeof(cls)} bytes, in pyepics {api['size']}")
    assert found == []
