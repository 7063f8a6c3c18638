"""``import epics`` answered by epicsx: a finder that knows the modules of pyepics' package by epicsx's own.

The package ``epics`` is a thin module of its own (``_epics.py``). Whatever stands below it is no copy: ``epics.pv``
is the very object ``epicsx.pv``, so that a class has one identity and an assignment to a setting reaches the code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["install_as_epics"]

NAME = "epics"
_OURS = __name__.partition(".")[0]
_HERE = Path(__file__).parent

CHILDREN = str(_HERE / "_path")
"""A folder with a package ``epics`` that calls `install_as_epics`, for the `sys.path` of child processes."""

_OWN = {NAME: "_epics.py", f"{NAME}.version": "_epics_version.py"}
"""The modules that are not epicsx's under another name, and the files that make them."""


class _Alias:
    """Loads ``epics.X`` by importing ``epicsx.X`` and putting that module itself into `sys.modules`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        # None: the import system makes an empty module, which nobody gets to see. Were it given the real one, it
        # would write the alias' spec into it, and `importlib.reload` would no longer find it.
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self.name)

    def get_code(self, fullname: str) -> object:
        """The code of the module, for `runpy`."""
        spec = importlib.util.find_spec(self.name)
        get_code = getattr(spec and spec.loader, "get_code", None)
        return get_code(self.name) if get_code else None


class _Finder:
    """Answers for ``epics`` and all that is below it, before anything on `sys.path` can."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _OWN:
            return _own(fullname)
        if not fullname.startswith(NAME + "."):
            return None
        name = _OURS + fullname.removeprefix(NAME)
        found = importlib.util.find_spec(name)
        if found is None:
            return None
        inside = found.submodule_search_locations is not None
        spec = ModuleSpec(fullname, _Alias(name), origin=found.origin, is_package=inside)  # type: ignore[arg-type]
        if inside:
            spec.submodule_search_locations = []
        return spec


def _own(name: str) -> ModuleSpec | None:
    spec = importlib.util.spec_from_file_location(name, _HERE / _OWN[name])
    if name == NAME and spec is not None:
        # A package without places to search: what our finder does not know is not there. (Given to the call above, no
        # places would mean the folder of the file.)
        spec.submodule_search_locations = []
    return spec


def _is_ours(module: ModuleType) -> bool:
    return getattr(module, "__file__", None) == str(_HERE / _OWN[NAME])


def install_as_epics() -> None:
    """Have ``import epics``, and of every module of pyepics' package, answered by epicsx from now on.

    Call it before anything imports pyepics; pyepics may be installed or not. Calling it again does nothing.
    ``epics.__version__`` is the version of pyepics whose interface this is, for those who check it.

    Raises
    ------
    RuntimeError
        pyepics has been imported already.
    """
    present = sys.modules.get(NAME)
    if present is not None and not _is_ours(present) and not hasattr(present, "__epicsx__"):
        raise RuntimeError(
            f"`epics` has been imported already, from {getattr(present, '__file__', None)}: "
            "epicsx.install_as_epics() has to come before the first `import epics`"
        )
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if present is not None and _is_ours(present):
        return
    # What an import of pyepics that failed has left behind would be taken for ours.
    for name in [name for name in sys.modules if name.startswith(NAME + ".")]:
        del sys.modules[name]
    spec = _own(NAME)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
