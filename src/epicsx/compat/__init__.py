"""What programs for pyepics, and for other Channel Access modules of Python, need to run on epicsx.

`install_as_epics` has ``import epics`` answered by epicsx. Importing this package reads nothing of the core.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from ._door import CHILDREN as CHILDREN
from ._door import install_as_epics as install_as_epics

__all__ = ["install_as_epics"]


class _Compat(ModuleType):
    """The type of this package: here ``epicsPV`` is a class, though a module of it has the same name, as in pyepics."""

    @property
    def epicsPV(self) -> Any:
        from importlib import import_module

        return import_module(".epicsPV", __name__).epicsPV

    @epicsPV.setter
    def epicsPV(self, module: ModuleType) -> None:
        pass  # the import system puts the module there


sys.modules[__name__].__class__ = _Compat
