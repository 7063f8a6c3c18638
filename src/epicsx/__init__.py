"""EPICS Channel Access for Python, compiled.

The public names of both faces, found when first used: the native one (`Channel`, `connect`, `get_many`, ...)
and that of pyepics (`PV`, `caget`, `caput`, ...). Importing this package reads nothing else and touches no network.
"""

from __future__ import annotations

import _thread
import atexit as _atexit
import sys as _sys
from typing import Any


def _in_main_interpreter() -> bool:
    try:
        return bool(_thread._is_main_interpreter())  # type: ignore[attr-defined]
    except AttributeError:  # before Python 3.12
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found,unused-ignore]

        return bool(interpreters.get_current() == interpreters.get_main())


if not _in_main_interpreter():
    # Here, and not in a compiled module: one that has been looked at in another interpreter can be imported by no one
    # else any more, not even by the main one.
    raise ImportError(
        "epicsx works in the main interpreter of a process only, not in a sub-interpreter"
    )

_NAMES: dict[str, str] = {}
"""Each public name, and the module that has it."""

for _module, _names in {
    "_version": "__version__",
    "_build_info": "build_info",
    "_health": "Health LaneHealth health",
    "_channel": "Channel connect get_many put_many",
    "_settings": "configure",
    "_filters": "filter_name",
    "_snapshot": "Snapshot restore snapshot",
    "_sample": "Sample",
    "_stream": "Block Frame",
    "_streams": "Stream stream",
    "_record": "Recorder",
    "_hdf5": "_to_hdf5",
    "_images": "Image ImageStream images",
    "_ca": "Subscription",
    "_request": "Request",
    "_dbr": "Control get_encoding set_encoding",
    "_texts": "strict",
    "compat": "install_as_epics",
    "counts": "ChannelStats Counts Ledger PVStats",
    "enums": "DBE DBR ECA Access Severity Status",
    "errors": "AccessError BadTypeError BadValueError CAError CASeverityException CATimeoutError "
    "ChannelAccessException ChannelAccessGetFailure DisconnectedError OverrunError PutError ServerError",
    "pv": "PV get_pv",
    "alarm": "Alarm",
    "device": "Device",
    "motor": "Motor",
    "multiproc": "CAPool CAProcess",
    "functional": "NO_ALARM MINOR_ALARM MAJOR_ALARM INVALID_ALARM _PVmonitors_ caget caget_many "
    "cainfo camonitor camonitor_clear caput caput_many poll",
}.items():
    for _name in _names.split():
        _NAMES[_name] = _module

_MODULES = (
    *("aio", "alarm", "autosave", "ca", "compat", "dbr", "device", "devices", "enums", "errors"),
    *("functional", "motor", "multiproc", "pv", "reducers", "testing", "utils"),
)

__all__ = sorted(name for name in _NAMES if not name.startswith("_"))


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _NAMES:
        module = _NAMES[name]
        if module in ("_ca", "_request", "_stream"):
            import_module("._dispatch", __name__)  # nobody would deliver without it
        value = getattr(import_module("." + module, __name__), name)
    elif name in _MODULES:
        value = import_module("." + name, __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


@_atexit.register
def _end() -> None:
    # Registered at import, so that users' own handlers, registered later, run first and may still use channels; and
    # not by threading's hook, which would run before the program's other threads have ended.
    dispatch = _sys.modules.get("epicsx._dispatch")
    if dispatch is not None:
        dispatch.at_exit()


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
