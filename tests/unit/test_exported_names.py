"""The public names: the lazy table, its stub and the modules agree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import epicsx

PACKAGE = Path(epicsx.__file__).parent
TABLE: dict[str, str] = vars(epicsx)["_NAMES"]
MODULES: tuple[str, ...] = vars(epicsx)["_MODULES"]


def stubbed() -> set[str]:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_stub_has_every_name_of_the_table_and_no_other() -> None:
    assert stubbed() == set(TABLE) | set(MODULES)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(epicsx, name)
    assert value is not None
    if callable(value):
        assert (value.__doc__ or "").strip(), name


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(epicsx, "no_such_" + "name")


def test_import_is_lazy() -> None:
    """Importing the package loads neither numpy nor the core, and touches no network."""
    script = "import sys, epicsx; print('numpy' in sys.modules, 'epicsx._ca' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", "False"]
