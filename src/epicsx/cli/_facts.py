"""What is known of a PV or an update, for other programs: the rows of ``--json`` and ``--csv``.

Texts come as Latin-1, a character for each byte (see _format), and go out as what those bytes are in UTF-8, or, where
they are not, as Latin-1.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._printable import printable
from ._format import CHAR, ENUM, severity_text, status_text, text_of

if TYPE_CHECKING:
    from .._ca import Core
    from .._dbr import Control
    from .._sample import Sample

__all__ = [
    "COLUMNS",
    "csv_line",
    "json_line",
    "of_channel",
    "of_control",
    "of_sample",
    "row",
    "text_of",
]

COLUMNS = ("name", "timestamp", "status", "severity", "value")
"""The columns of ``--csv``."""


def _json_value(value: Any) -> Any:
    """A value that JSON has: numbers that are none are the texts NaN, Infinity and -Infinity."""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "tolist") or isinstance(value, (list, tuple)):
        return [
            _json_value(each) for each in (value.tolist() if hasattr(value, "tolist") else value)
        ]
    return value


def _value(sample: Sample, long_strings: bool) -> Any:
    if long_strings and sample.native_type == CHAR and hasattr(sample.value, "tobytes"):
        return text_of(sample.value.tobytes().split(b"\0")[0].decode("latin-1"))
    return _json_value(sample.value)


def of_sample(
    name: str, sample: Sample, states: tuple[str, ...] | None, long_strings: bool = False
) -> dict[str, Any]:
    """The facts of an update; an enum has its number as value, and its state's name where that is known."""
    from ..enums import DBR

    facts = {
        "name": text_of(name),
        "value": _value(sample, long_strings),
        "timestamp": sample.timestamp,
        "timestamp_ns": sample.timestamp_ns,
        "status": status_text(sample.status),
        "severity": severity_text(sample.severity),
        "count": sample.count,
        "native_type": DBR(sample.native_type).name,
    }
    if sample.native_type == ENUM:
        facts["state"] = _state(sample.value, states)
    return facts


def _state(value: Any, states: tuple[str, ...] | None) -> str | None:
    if states is not None and isinstance(value, int) and 0 <= value < len(states):
        return text_of(states[value])
    return None


def of_control(control: Control | None) -> dict[str, Any]:
    """Units, precision, limits and state names, as far as the type has them."""
    if control is None:
        return {}
    names = ["units", "precision", "enum_strings"]
    for kind in ("disp", "alarm", "warning", "ctrl"):
        names += [f"lower_{kind}_limit", f"upper_{kind}_limit"]
    found = {name: getattr(control, name) for name in names}
    return {name: _json_value(value) for name, value in found.items() if value is not None}


def of_channel(core: Core) -> dict[str, Any]:
    """Where a PV is, and what may be done with it."""
    return {"host": core.host, "read": core.read_access, "write": core.write_access}


def row(facts: dict[str, Any], numbers: bool = False) -> list[str]:
    """The cells of an update; an enum by its state's name unless `numbers`, an array as JSON in one cell."""
    value = facts["value"]
    if not numbers and facts.get("state") is not None:
        value = facts["state"]
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
    stamp = iso_time(facts["timestamp_ns"])
    return [facts["name"], stamp, facts["status"], facts["severity"], shown]


def iso_time(unix_ns: int) -> str:
    """A stamp by ISO 8601, UTC to the nanosecond; empty where there is none."""
    import time

    from ._format import EPICS_EPOCH_NS

    if unix_ns in (0, EPICS_EPOCH_NS):
        return ""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ns:09d}Z"


def json_line(facts: dict[str, Any]) -> str:
    """One object of JSON on one line, in ASCII, so that no terminal can be driven by it."""
    return json.dumps(facts) + "\n"


def csv_line(cells: Sequence[str], terminal: bool = False) -> str:
    """One record by RFC 4180, but for its line end, which is that of the system's texts.

    For a `terminal` what does not print is escaped.
    """
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(map(printable, cells) if terminal else cells)
    return file.getvalue()
