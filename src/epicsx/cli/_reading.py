"""A PV that is read once: what is asked for, and the lines that caget prints of what came.

Threads
    The caller's.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import CAError
from ._format import (
    DOUBLE,
    ENUM,
    FLOAT,
    SHORT,
    STRING,
    details,
    named,
    plain_line,
    stamp_text,
    type_name,
    wide_tail,
)
from ._tools import raw_name

if TYPE_CHECKING:
    from .._channel import Channel
    from .._request import Request
    from .._sample import Sample
    from ._format import Format

__all__ = ["Reading", "time_type"]

TIME, CTRL = 14, 28
"""What is added to a native type for DBR_TIME_x and DBR_CTRL_x."""


def time_type(native: int, options: argparse.Namespace, facts: bool) -> int:
    """The DBR_TIME type that caget and camonitor ask for: of enums and, with -s, of floating-point numbers the text.

    With `facts` always the record's own.
    """
    if native == ENUM and not facts:
        return TIME + SHORT if options.enum_numbers else TIME + STRING
    if options.as_string and native in (FLOAT, DOUBLE) and not facts:
        return TIME + STRING
    return TIME + native


class Reading:
    """A PV that is being read, and what came.

    `options` are those of `epicsx get`: form, type, count, callback, enum_numbers, as_string; and `facts`, for all that
    is known in place of what caget prints.
    """

    def __init__(
        self, channel: Channel, options: argparse.Namespace, timeout: float | None
    ) -> None:
        self.core = core = channel._core
        self.name = raw_name(channel.name)
        self.native = core.native_type
        self.type = (
            int(options.type)
            if options.form == "details" and not options.facts
            else time_type(self.native, options, options.facts)
        )
        self.timeout = timeout
        self._control: Request | None = None
        self._sample: Sample | None = None
        self.error: CAError | None = None
        count = min(options.count, core.count)
        if not options.callback:
            count = count or core.count  # caget asks for all elements, filled or not
        self.count = count
        try:
            self._request: Request | None = core.get_async(self.type, count, timeout)
            if options.facts:
                self._control = core.get_async(CTRL + self.native, 1, timeout)
        except CAError as error:
            self._request, self.error = None, error

    def sample(self) -> Sample | None:
        """What came; None if it failed, and then `error` says why."""
        if self._sample is None and self._request is not None and self.error is None:
            try:
                self._sample = self._request.result(None)
            except CAError as error:
                self.error = error
        return self._sample

    def facts(self, long_strings: bool) -> dict[str, Any] | None:
        """All that is known, for JSON and CSV."""
        from ._facts import of_channel, of_control, of_sample

        sample = self.sample()
        if sample is None or self._control is None:
            return None
        try:
            came = self._control.result(None)
        except CAError as error:
            self.error = error
            return None
        control = came.control if came is not None else None
        states = control.enum_strings if control is not None else None
        return {
            **of_sample(self.name, sample, states, long_strings),
            **of_channel(self.core),
            **of_control(control),
        }

    def lines(self, options: argparse.Namespace, how: Format) -> str:
        """What caget prints."""
        form = options.form
        sample = self.sample()
        if form == "details":
            return self._details(sample, options, how)
        count = self.count if sample is None else sample.count
        begin = "" if form == "terse" else named(self.name, count, how)
        if sample is None:
            from time import time_ns

            # A stamp stands there too, of the moment.
            said = f"{stamp_text(time_ns())} {self.failure()}" if form == "wide" else self.failure()
            return f"{begin}{said}\n"
        kind, values = sample.dbr_type % 7, sample.raw(False)
        if form == "wide":
            tail = wide_tail(kind, values, sample.status, sample.severity, options.count, how)
            return f"{begin}{stamp_text(sample.timestamp_ns)}{tail}\n"
        return f"{begin}{plain_line(kind, values, None, options.count, how)}\n"

    def failure(self) -> str:
        """What stands in the place of a value that did not come."""
        from .._ca import message
        from ..enums import ECA

        status = self.error.status if self.error is not None else None
        if status == ECA.DISCONN:
            return "*** not connected"
        if status == ECA.NORDACCESS:
            return "*** no read access"
        if status == ECA.TIMEOUT or status is None:
            return "*** no data available (timeout)"
        return f"*** CA error {message(status)}"

    def _details(self, sample: Sample | None, options: argparse.Namespace, how: Format) -> str:
        lines = [how.shown(self.name)]
        if sample is None:
            return "\n".join([*lines, f"    {self.failure()}", ""])
        dbr = sample.dbr_type
        lines.append(f"    Native data type: DBF_{type_name(self.native)}")
        lines.append(f"    Request type:     DBR_{type_name(dbr)}")
        if type_name(dbr) == "CLASS_NAME":
            value = sample.value
            name = value if isinstance(value, str) else value[0]
            return "\n".join([*lines, f"    Class Name:       {how.shown(name)}", ""])
        special = sample.acknowledgement is not None
        kind, values = 0 if special else dbr % 7, sample.raw(False)
        control = sample.control
        states = control.enum_strings if control is not None else None
        if not how.as_text(kind, len(values), options.count):
            shown = how.separator.join(how.texts(kind, values, states))
        else:
            shown = plain_line(kind, values, states, options.count, how)
        lines += [f"    Element count:    {len(values)}", f"    Value:            {shown}"]
        if dbr > 6:
            lines += details(
                dbr,
                sample.status,
                sample.severity,
                sample.timestamp_ns,
                control,
                sample.acknowledgement,
                how,
            )
        return "\n".join([*lines, ""])
