"""The package ``epics`` of pyepics 3.5.10, answered by epicsx: Channel Access for Python.

Its names are found when first used. Its modules are those of epicsx themselves.
"""

from __future__ import annotations

import importlib as _importlib
import time as time
from typing import Any

from epicsx.compat._epics_version import __version__ as __version__

_MODULES = ["ca", "dbr", "pv", "alarm", "device", "motor", "multiproc", "utils", "version"]

_NAMES = {
    name: module
    for module, names in {
        "pv": "PV get_pv",
        "alarm": "Alarm",
        "motor": "Motor",
        "device": "Device",
        "multiproc": "CAProcess CAPool",
        "ca": "poll",
        "functional": "NO_ALARM MINOR_ALARM MAJOR_ALARM INVALID_ALARM _PVmonitors_ caget caget_many cainfo "
        "camonitor camonitor_clear caput caput_many",
    }.items()
    for name in names.split()
}

# pyepics has none, and gives all its names to `from epics import *`, the modules too
__all__ = [name for name in (*_NAMES, *_MODULES, "time") if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(_importlib.import_module("epicsx." + _NAMES[name]), name)
    elif name in _MODULES:
        value = _importlib.import_module("epics." + name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES} - {"_MODULES", "_NAMES", "_importlib", "Any"})
