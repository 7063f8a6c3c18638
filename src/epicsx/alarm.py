"""A function called when a PV's value goes out of range: `Alarm`.

Threads
    The value is tested, and the function called, on the dispatcher, as callbacks of PVs are.

Lifetime
    The PV keeps its Alarm, referred to or not, until ``close()``.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from typing import Any

from . import ca, pv

_OPERATORS = {"eq": "==", "ne": "!=", "le": "<=", "lt": "<", "ge": ">=", "gt": ">"}


class Alarm:
    """Calls a function when a PV's value begins to be out of range.

    The test is made at each update after the creation. The function is called where the test becomes true, if the last
    call is more than `alert_delay` seconds ago; an excursion that begins sooner is never reported.

    Parameters
    ----------
    pvname : str or PV
        The PV; a name is given up to its connection timeout to connect.
    comparison : str or callable
        ``'eq' 'ne' 'le' 'lt' 'ge' 'gt'``, the symbols ``'==' '!=' '<=' '<' '>=' '>'``, or ``comparison(value,
        trip_point)``. With any other text it never fires, and ``comp_name`` is 'Not Defined'.
    trip_point : any
        What the value is compared with.
    callback : callable
        Gets pvname, value, char_value, trip_point and comparison (its text) as keywords, and all others that callbacks
        of PVs get. Without one a line is printed.
    alert_delay : float, seconds
        The shortest time between two calls.

    Raises
    ------
    UserWarning
        The PV, the comparison or the trip point is missing.
    """

    ops: dict[str, Callable[[Any, Any], Any]] = {
        text: getattr(operator, name)
        for name, symbol in _OPERATORS.items()
        for text in (name, symbol)
    }

    def __init__(
        self,
        pvname: str | pv.PV | None,
        comparison: str | Callable[[Any, Any], Any] | None = None,
        trip_point: Any = None,
        callback: Callable[..., Any] | None = None,
        alert_delay: float = 10,
    ) -> None:
        if not pvname or comparison is None or trip_point is None:
            raise UserWarning("alarm requires valid PV, comparison, and trip_point")
        self.pv: pv.PV
        if isinstance(pvname, pv.PV):
            self.pv = pvname
        else:
            self.pv = pv.get_pv(pvname)
            self.pv.connect()
        self.trip_point = trip_point
        self.last_alert: float = 0
        self.alert_delay = alert_delay
        self.user_callback = callback
        self.cmp: Callable[[Any, Any], Any] | None = None
        self.comp_name: Any = "Not Defined"
        if callable(comparison):
            self.cmp = comparison
            self.comp_name = getattr(comparison, "__name__", repr(comparison))
        else:
            self.cmp = self.ops.get(str(comparison).replace("_", ""))
            if self.cmp is not None:
                self.comp_name = comparison
        self.alarm_state: Any = False
        self._index = self.pv.add_callback(self.check_alarm)

    def __repr__(self) -> str:
        about = f"pvname='{self.pv.pvname}',comp='{self.comp_name}',trip_point={self.trip_point}"
        return f"<Alarm {about}>"

    def reset(self) -> None:
        """Forget the alarm and when it was last told, so that the next true test is reported."""
        self.last_alert = 0
        self.alarm_state = False

    def close(self) -> None:
        """Stop: no further test. Closing twice is harmless."""
        index, self._index = self._index, None
        if index is not None:
            self.pv.remove_callback(index)

    clear = close

    def check_alarm(
        self, pvname: str | None = None, value: Any = None, char_value: Any = None, **kw: Any
    ) -> None:
        """Test a value, and report it if it has just gone out of range: what each update does."""
        if pvname is None or value is None or self.cmp is None or self.trip_point is None:
            return
        before = self.alarm_state
        self.alarm_state = self.cmp(value, self.trip_point)
        now = time.time()
        if before or not self.alarm_state or now - self.last_alert <= self.alert_delay:
            return
        self.last_alert = now
        if char_value is None:
            char_value = value
        if callable(self.user_callback):
            self.user_callback(
                pvname=pvname,
                value=value,
                char_value=char_value,
                trip_point=self.trip_point,
                comparison=self.comp_name,
                **kw,
            )
        else:
            ca.write(f"Alarm: {pvname}={char_value} ({time.ctime()})")
