"""Imports point down only, in the compiled modules too.

import-linter checks the .py files and cannot see the others. This test reads the ``import`` and
``cimport`` lines of every .pyx, .pxd and .py against the very list that import-linter reads.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "epicsx"

_STRINGS = re.compile(r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'', re.DOTALL)
_TYPE_CHECKING = re.compile(r"^if (?:typing\.)?TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)+", re.MULTILINE)
_FROM = re.compile(r"^\s*from\s+([\w.]+)\s+c?import\s+(.+)$")
_IMPORT = re.compile(r"^\s*c?import\s+(.+)$")


@dataclass(frozen=True)
class Layers:
    """Each module's row, the topmost being 0, and the two faces that stay apart."""

    rows: dict[str, int]
    native: frozenset[str]
    pyepics: frozenset[str]


def read_layers(pyproject: Path = ROOT / "pyproject.toml") -> Layers:
    tool = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]
    (contract,) = (c for c in tool["importlinter"]["contracts"] if c["type"] == "layers")
    rows = {
        name.strip(" ()"): number
        for number, row in enumerate(contract["layers"])
        for name in re.split(r"[:|]", row)
    }
    faces = tool["epicsx"]["faces"]
    return Layers(rows, frozenset(faces["native"]), frozenset(faces["pyepics"]))


def statements(text: str) -> Iterator[str]:
    """The logical lines, without comments, docstrings and imports for the type checker only."""
    text = _STRINGS.sub("''", text)
    text = re.sub(r"#.*", "", text)
    text = _TYPE_CHECKING.sub("", text)
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"\(([^()]*)\)", lambda m: " " + m.group(1).replace("\n", " ") + " ", text)
    for line in text.splitlines():
        yield from line.split(";")


def imports(text: str, package: tuple[str, ...]) -> Iterator[str]:
    """Our own top-level modules that this text imports; '' stands for the package itself."""

    def ours(dotted: str) -> str | None:
        parts = dotted.split(".")
        if parts[0] != "epicsx":
            return None
        return parts[1] if len(parts) > 1 else ""

    for line in statements(text):
        if found := _FROM.match(line):
            origin, names = found.groups()
            if origin.startswith("."):
                dots = len(origin) - len(origin.lstrip("."))
                base = package[: len(package) - dots + 1]
                origin = ".".join(filter(None, (*base, origin.lstrip("."))))
            for name in filter(None, map(str.split, names.split(","))):
                module = ours(f"{origin}.{name[0]}" if origin == "epicsx" else origin)
                if module is not None:
                    yield module
        elif found := _IMPORT.match(line):
            for name in filter(None, map(str.split, found.group(1).split(","))):
                module = ours(name[0])
                if module is not None:
                    yield module


def violations(source: Path, layers: Layers) -> list[str]:
    """Every import under ``source`` that does not point down, in words."""
    found = []
    for path in sorted(p for p in source.rglob("*") if p.suffix in (".py", ".pyx", ".pxd")):
        inside = path.relative_to(source)
        module = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        if module in ("__init__", "__main__"):
            continue
        where = inside.as_posix()
        if module not in layers.rows:
            found.append(f"{where}: {module} is in no layer of pyproject.toml")
            continue
        row = layers.rows[module]
        package = ("epicsx", *inside.parts[:-1])
        for name in dict.fromkeys(imports(path.read_text(encoding="utf-8"), package)):
            if name == module:
                continue
            if name not in layers.rows:
                # a public name, from the lazy table: it may stand for anything above
                if row > 0:
                    what = ".".join(filter(None, ("epicsx", name)))
                    found.append(f"{where}: imports {what} through the package")
            elif layers.rows[name] < row:
                found.append(f"{where}: {module} imports {name}, which is above it")
            elif (module in layers.native and name in layers.pyepics) or (
                module in layers.pyepics and name in layers.native
            ):
                found.append(f"{where}: {module} imports {name} of the other face")
    return found


def test_the_tree_imports_downwards_only() -> None:
    assert violations(SOURCE, read_layers()) == []


def test_the_layers_have_the_order_of_the_design() -> None:
    rows = read_layers().rows
    order = ["cli", "device", "functional", "pv", "ca", "dbr", "aio", "_dispatch", "_deliver"]
    order += ["_stream", "_ca", "_dbr", "errors"]
    assert sorted(order, key=rows.__getitem__) == order
    assert rows["errors"] == rows["enums"] == max(rows.values())


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("_ca.pyx", "from epicsx._deliver import drain\n", "_ca imports _deliver"),
        ("_ca.pyx", "from epicsx._deliver cimport drain\n", "_ca imports _deliver"),
        ("_ca.pxd", "from ._stream cimport Sink\n", "_ca imports _stream"),
        ("_ca.pyx", "from . cimport _deliver\n", "_ca imports _deliver"),
        ("_ca.pyx", "from . import (\n    errors,  # fine\n    pv,\n)\n", "_ca imports pv"),
        ("_ca.pyx", "cimport epicsx._stream as s\n", "_ca imports _stream"),
        ("_dbr.pyx", "def f():\n    import epicsx._ca\n", "_dbr imports _ca"),
        ("_dbr.pyx", "def f():\n    from epicsx import PV\n", "imports epicsx.PV through"),
        ("_dbr.pyx", "import os, epicsx\n", "imports epicsx through"),
        ("_dbr.pxd", "from epicsx._ca cimport (Channel,\n    Context)\n", "_dbr imports _ca"),
        ("errors.py", "from epicsx.pv import PV\n", "errors imports pv"),
        ("ca.py", "from epicsx.aio import caget\n", "of the other face"),
        ("_streams.py", "from .dbr import x\n", "_streams imports dbr, which is above"),
        ("stray.py", "x = 1\n", "stray is in no layer"),
        ("devices/scaler.py", "from ..cli import main\n", "devices imports cli"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'"""A docstring:\n\nfrom epicsx.cli import main\n"""\nimport os\n{text}')
    (one,) = violations(tmp_path, read_layers())
    assert told in one


def test_downward_imports_comments_and_the_type_checkers_own_pass(tmp_path: Path) -> None:
    (tmp_path / "_ca.pyx").write_text(
        "from cadef cimport chid\nfrom epicsx._dbr cimport decode\nfrom .errors import CAError\n"
        "# from epicsx.pv import PV\nimport epicsx.enums as enums\n"
    )
    (tmp_path / "_dispatch.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from epicsx.pv import PV\n\n"
        "from epicsx._ca import Context\n"
    )
    (tmp_path / "testing").mkdir()
    (tmp_path / "testing" / "softioc.py").write_text("from .ports import free\nimport epicsx\n")
    assert violations(tmp_path, read_layers()) == []
