"""The interface of ``EpicsCA``, the package of 2005 to 2010 from which pyepics came: `PV`, `caget`, `caput`, `Motor`.

Differences
    Callbacks run on epicsx's dispatcher at any time, not only in ``poll`` and ``pend_event``. The module-wide cache
    `PVcache` holds PVs weakly. ``PV.status`` is the record's alarm status; it was the ECA code of the last event.

Threads
    Any thread may call anything.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from .. import ca, functional, pv
from .._version import __version__ as __version__
from ..ca import pend_event as pend_event
from ..ca import pend_io as pend_io
from ..ca import poll as poll
from ..motor import Motor as Motor
from ..motor import MotorException as MotorException
from ..motor import MotorLimitException as MotorLimitException

__all__ = [
    "PV",
    "EpicsMotor",
    "Motor",
    "MotorException",
    "MotorLimitException",
    "PVcache",
    "caget",
    "caput",
    "connect_all",
    "disconnect_all",
    "pend_event",
    "pend_io",
    "poll",
]

EpicsMotor = Motor

PVcache: weakref.WeakValueDictionary[str, PV] = weakref.WeakValueDictionary()
"""Each PV that is in use, by its name."""


class PV(pv.PV):
    """A process variable: ``get()``, ``put()``, ``value``, and callbacks that get the PV itself.

    Parameters
    ----------
    pvname : str
        Its name.
    callback : callable
        ``callback(pv=)`` at each update.
    connect : bool
        Wait for the connection.
    use_numpy : bool
        Arrays as ndarray, else as list.
    use_control : bool
        Fetch units, limits, precision and state names at the first connection, before the first callback.
    use_monitor : bool
        Be told of changes by the server.
    timeout : float, seconds
        How long calls wait for the connection.
    """

    def __init__(
        self,
        pvname: str,
        callback: Callable[..., Any] | None = None,
        connect: bool = False,
        use_numpy: bool = True,
        use_control: bool = False,
        use_monitor: bool = True,
        timeout: float | None = None,
        **kw: Any,
    ) -> None:
        self.use_numpy = use_numpy
        self._news = False
        super().__init__(
            pvname,
            callback=None if callback is None else self._event(callback, kw),
            form="ctrl" if use_control else "time",
            auto_monitor=bool(use_monitor),
            connection_timeout=timeout,
        )
        PVcache[self.pvname] = self
        if connect:
            self.connect(timeout)

    # ----------------------------------------------------------------- values

    def get(self, count: int | None = None, use_char: bool = False, **kw: Any) -> Any:  # type: ignore[override]
        """The present value; its text with `use_char`; None if it is not connected."""
        kw.setdefault("as_numpy", self.use_numpy)
        kw.setdefault("as_string", use_char)
        return super().get(count, **kw)

    def put(  # type: ignore[override]
        self,
        value: Any,
        wait: bool = False,
        timeout: float = 30.0,
        user_wait: bool = False,
        **kw: Any,
    ) -> int | None:
        """Write a value, as ``PV.put``; with `user_wait`, ``put_complete`` tells when the record has finished."""
        return super().put(value, wait=wait, timeout=timeout, use_complete=user_wait, **kw)

    @property
    def llim(self) -> Any:
        """The lowest value that may be set."""
        return self.lower_ctrl_limit

    @property
    def hlim(self) -> Any:
        """The highest value that may be set."""
        return self.upper_ctrl_limit

    def get_info(self) -> str | None:
        """A paragraph about it; None if it is not connected."""
        return self.info

    # -------------------------------------------------------------- callbacks

    def add_callback(self, callback: Callable[..., Any] | None = None, **kw: Any) -> Any:  # type: ignore[override]
        """The index of the callback, which is called as ``callback(pv=, **kw)`` at every update."""
        if callback is None:
            return None
        return super().add_callback(self._event(callback, kw), with_ctrlvars=False)

    def _event(self, callback: Callable[..., Any], kw: dict[str, Any]) -> Callable[..., None]:
        """A callback of `pv.PV` that calls one of this class."""

        def event(cb_info: Any = None, **_: Any) -> None:
            callback(**{"pv": self, **kw})

        return event

    def set_callback(self, callback: Callable[..., Any] | None = None, **kw: Any) -> Any:
        """As ``add_callback``, in the place of all callbacks there are."""
        self.clear_callbacks()
        return self.add_callback(callback, **kw)

    def set_monitor(
        self, callback: Callable[..., Any] | None = None, kw: dict[str, Any] | None = None
    ) -> None:
        """Have ``check_monitor`` tell of updates from now on, and `callback` called, if there is one."""
        self._news = False
        super().add_callback(self._note, index=-1, with_ctrlvars=False)
        if callback is not None:
            self.add_callback(callback, **(kw or {}))
        self.auto_monitor = True  # last, so that the first update finds them

    def _note(self, **_: Any) -> None:
        self._news = True

    def check_monitor(self) -> bool:
        """Whether an update came since this was asked last."""
        found, self._news = self._news, False
        return found

    def clear_monitor(self) -> None:
        """End the monitor and the callbacks."""
        self.clear_callbacks()
        self.auto_monitor = False


def connect_all(timeout: float | None = None) -> list[str]:
    """Wait for all PVs under one deadline; the names of those that did not connect."""
    until = time.monotonic() + (ca.DEFAULT_CONNECTION_TIMEOUT if timeout is None else timeout)
    known = sorted(PVcache.items())
    return [
        name
        for name, each in known
        if not each.wait_for_connection(max(0.0, until - time.monotonic()))
    ]


def disconnect_all() -> None:
    """Disconnect all PVs, and forget them."""
    for each in list(PVcache.values()):
        each.disconnect()
    PVcache.clear()


def caget(name: str | PV, use_char: bool = False, **kw: Any) -> Any:
    """The value of a PV, given or by its name; its text with `use_char`; None if it is not connected."""
    if isinstance(name, PV):
        return name.get(use_char=use_char, **kw)
    return functional.caget(name, as_string=use_char, **kw)


def caput(
    name: str | PV, value: Any, wait: bool | int = False, timeout: float = 30.0
) -> int | None:
    """Write a value to a PV, given or by its name: 1; -1 if the wait timed out; None if it is not connected."""
    if isinstance(name, PV):
        return name.put(value, wait=bool(wait), timeout=timeout)
    return functional.caput(name, value, wait=bool(wait), timeout=timeout)
