"""The class `epicsPV` that Mark Rivers' programs use, as pyepics derives it from its `PV`.

Differences
    An object without a name connects by ``search`` or ``searchw``. ``getw`` and its like read what the monitor brought
    where there is one, as PVs do. ``callBack`` has the fields of the last ``getControl`` and of the last update under
    their old names, ``callBack.pv_value``.
"""

from __future__ import annotations

import types
from typing import Any

from .. import ca
from ..pv import PV

_OLD_NAMES = {
    "value": "pv_value",
    "status": "pv_status",
    "severity": "pv_severity",
    "units": "pv_units",
    "precision": "pv_precision",
    "enum_strs": "pv_statestrings",
    **{
        f"{side}_{kind}_limit": f"pv_{side[:2]}{short}lim"
        for side in ("upper", "lower")
        for kind, short in (
            ("disp", "dis"),
            ("alarm", "alarm"),
            ("warning", "warn"),
            ("ctrl", "ctrl"),
        )
    },
}


class epicsPV(PV):
    """A PV with the methods of the old class of that name.

    Parameters
    ----------
    pvname : str
        Its name; None if it is given later.
    wait : bool
        Wait for its connection.
    """

    def __init__(self, pvname: str | None = None, wait: bool = True) -> None:
        self.monitorState = False
        self.callBack = types.SimpleNamespace(
            newMonitor=0, putComplete=0, monitorState=0, pv_value=None
        )
        self._monitor: Any = None
        if pvname is not None:
            self._open(pvname, wait)

    def _open(self, pvname: str, wait: bool) -> None:
        super().__init__(pvname)
        if wait:
            self.connect()

    def __getattr__(self, name: str) -> Any:
        if "pvname" not in self.__dict__:
            text = "this epicsPV has no name yet: search() or searchw() gives it one"
            raise AttributeError(f"{name!r}: {text}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return super().__repr__() if "pvname" in self.__dict__ else "<epicsPV without a name>"

    def search(self, pvName: str) -> None:
        """Begin to connect to a PV, for an object that was made without a name."""
        self._open(pvName, False)

    def searchw(self, pvName: str) -> None:
        """Connect to a PV, for an object that was made without a name."""
        self._open(pvName, True)

    def _getCallback(self, pvname: str | None = None, value: Any = None, **kw: Any) -> None:
        self.monitorState = True
        self._keep({"value": value, **kw})
        self.callBack.newMonitor = 1
        self.callBack.monitorState = 2

    def _keep(self, fields: dict[str, Any]) -> None:
        for name, old in _OLD_NAMES.items():
            if fields.get(name) is not None:
                setattr(self.callBack, old, fields[name])

    def setMonitor(self) -> None:
        """Have ``checkMonitor`` tell of updates from now on."""
        self.monitorState = False
        if self._monitor is None:
            self.callBack.monitorState = 1
            self._monitor = self.add_callback(callback=self._getCallback)

    def clearMonitor(self) -> None:
        """Have ``checkMonitor`` tell of no more updates."""
        self.monitorState = False
        self.callBack.newMonitor = self.callBack.monitorState = 0
        index, self._monitor = self._monitor, None
        if index is not None:
            self.remove_callback(index)

    def checkMonitor(self) -> bool:
        """Whether an update came since this was asked last."""
        ca.poll()
        found, self.monitorState = self.monitorState, False
        self.callBack.newMonitor = 0
        return found

    def getControl(self) -> dict[str, Any] | None:
        """Units, limits, precision, state names and alarm, also put into ``callBack``; None if there is no answer."""
        ca.poll()
        found = self.get_ctrlvars()
        if found is not None:
            self._keep({"value": self.get(), **found})
        return found

    def array_get(self, count: int | None = None) -> Any:
        """The value."""
        return self.getw(count=count)

    def getw(self, count: int | None = None) -> Any:
        """The value."""
        self.monitorState = False
        return self.get(count=count)

    def getValue(self) -> Any:
        """The value."""
        return self.getw()

    @property
    def pvValue(self) -> Any:
        """The value."""
        return self.getw()

    def putw(self, value: Any, wait: bool = False) -> None:
        """Write a value."""
        self.put(value, wait=wait)

    def array_put(self, value: Any) -> None:
        """Write a value."""
        self.put(value)

    def putWait(self, value: Any) -> None:
        """Write a value and wait until the record has finished."""
        self.callBack.putComplete = 0
        self.callBack.putComplete = int(self.put(value, wait=True) == 1)
