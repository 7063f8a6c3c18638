"""What the C tools of EPICS base print, from values: the formats of caget, caput, camonitor and cainfo.

Needs no Channel Access: what comes in are numbers, texts and stamps. All text here is Latin-1, one character for each
byte that a server sent or a user typed, so that what goes out is those bytes again. The functions of EPICS base that
say what is printed are named where they are followed; they are in ``modules/ca/src/tools/tool_lib.c``, ``caget.c`` and
``modules/libcom/src/misc/epicsString.c``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._printable import NAMED, printable

__all__ = [
    "DISCONNECTED",
    "NOT_FOUND",
    "Format",
    "Stamps",
    "details",
    "escaped",
    "named",
    "plain_line",
    "severity_text",
    "stamp_text",
    "status_text",
    "text_of",
    "type_name",
    "unescaped",
    "wide_tail",
]

Elements: TypeAlias = Any
"""What a reply holds: an array of numpy's, or a list of str."""

EPICS_EPOCH_NS = 631152000 * 1_000_000_000

STATUS = (
    *("NO_ALARM", "READ", "WRITE", "HIHI", "HIGH", "LOLO", "LOW", "STATE", "COS", "COMM"),
    *("TIMEOUT", "HWLIMIT", "CALC", "SCAN", "LINK", "SOFT", "BAD_SUB", "UDF", "DISABLE"),
    *("SIMM", "READ_ACCESS", "WRITE_ACCESS"),
)
SEVERITY = ("NO_ALARM", "MINOR", "MAJOR", "INVALID")
"""The words of ``alarmString.c``, which spells HWLIMIT without the underscore of ``alarm.h``."""

NOT_FOUND = "*** Not connected (PV not found)"
DISCONNECTED = "*** disconnected"

STRING, SHORT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
KINDS = ("STRING", "SHORT", "FLOAT", "ENUM", "CHAR", "LONG", "DOUBLE")
FAMILIES = ("", "STS_", "TIME_", "GR_", "CTRL_")
MAX_STATES = 16

_ESCAPES = {**NAMED, "\\": r"\\", "'": r"\'", '"': r"\""}
_SPECIAL = re.compile(r"[^ -~]|[\\'\"]")


def escaped(text: str) -> str:
    """`text` as epicsStrnEscapedFromRaw prints it: only what is printable ASCII stands for itself."""
    return _SPECIAL.sub(lambda m: _ESCAPES.get(m[0]) or f"\\x{ord(m[0]):02x}", text)


def text_of(raw: str) -> str:
    """The text of bytes that came as a character each: UTF-8 or, where they are not that, Latin-1."""
    try:
        return raw.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return raw


_MEANT = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_WRITTEN = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|x|(.)|$)", re.DOTALL)


def unescaped(text: str) -> str:
    r"""What is meant by `text` with C's escapes, by epicsStrnRawFromEscaped: ``\t``, ``\x1b``, ``\\`` ..."""

    def meant(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return _MEANT.get(match[2], match[2]) if match[2] else ""

    return _WRITTEN.sub(meant, text)


# ---------------------------------------------------------------------- numbers


def _whole(number: int, style: str) -> str:
    """A 32-bit integer as sprint_long prints it; `style` is d, x, o or b."""
    if style == "d":
        return str(number)
    bits = number & 0xFFFFFFFF
    if style == "x":
        return f"0x{bits:X}"
    if style == "o":
        return f"0o{bits:o}"
    return f"{bits:b}"


def _rounded(number: float) -> int:
    """`number` as C's conversion to a 32-bit integer leaves it on x86-64, after adding a half away from 0."""
    number += 0.5 if number > 0.0 else -0.5
    return int(number) if -2147483649.0 < number < 2147483648.0 else -2147483648


@dataclass(frozen=True)
class Format:
    """How values are shown: what the options -0 -l -e -f -g -n -S -F of the C tools choose."""

    whole: str = "d"
    """Integers: d, x, o or b (-0x, -0o, -0b)."""
    rounded: str = ""
    """Floating-point numbers as integers: x, o or b (-lx, -lo, -lb); else as `real` says."""
    real: str = "%g"
    """The printf format of floating-point numbers (-e, -f, -g)."""
    enum_numbers: bool = False
    """Enums as numbers (-n)."""
    long_strings: bool = False
    """Arrays of CHAR as a text (-S)."""
    separator: str = " "
    """What stands between two fields, one character (-F)."""
    terminal: bool = False
    """Whether a terminal reads it, which would obey control characters in names, units and state names."""

    def float_text(self, number: float) -> str:
        """A floating-point number."""
        if self.rounded:
            return _whole(_rounded(number), self.rounded)
        if number != number:  # C prints the sign of a NaN, and 0/0 has one
            return "-nan" if math.copysign(1.0, number) < 0 else "nan"
        return self.real % number

    def shown(self, text: str) -> str:
        """A text that the C tools print as it is; for a terminal, which would obey them, with controls escaped."""
        if not self.terminal or (text.isascii() and text.isprintable()):
            return text
        return printable(text_of(text)).encode("utf-8", "replace").decode("latin-1")

    def texts(self, kind: int, values: Elements, states: Sequence[str] | None) -> list[str]:
        """Each element as val2str prints it; `kind` is the native part of its DBR type.

        `states` are the state names of a GR or CTRL enum.
        """
        if kind == STRING:
            return [escaped(value) for value in values]
        if kind in (FLOAT, DOUBLE):
            return [self.float_text(value) for value in _plain(values)]
        if kind == CHAR:
            return [str(value - 256 if value > 127 else value) for value in _plain(values)]
        if kind == ENUM:
            if states is None or self.enum_numbers:
                return [str(value) for value in _plain(values)]
            return [self._state(value, states) for value in _plain(values)]
        return [_whole(value, self.whole) for value in _plain(values)]

    def _state(self, index: int, states: Sequence[str]) -> str:
        if index >= MAX_STATES:
            return f"Illegal Value ({index})"
        if index >= len(states):
            return f"Enum Index Overflow ({index})"
        return self.shown(states[index])

    def long_string(self, values: Elements) -> str:
        """An array of CHAR as a text, up to its first NUL."""
        return escaped(
            bytes(value & 0xFF for value in _plain(values)).split(b"\0")[0].decode("latin-1")
        )

    def as_text(self, kind: int, count: int, asked: int) -> bool:
        """Whether so many elements are shown as one text; `asked` is the option -#."""
        return self.long_strings and kind == CHAR and (asked > 0 or count > 1)


def _plain(values: Any) -> list[Any]:
    """Python's own numbers: numpy's print as they please."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


# ---------------------------------------------------------------------- lines


def named(name: str, count: int, how: Format) -> str:
    """The name that begins a line, padded where one value follows, and the separator."""
    name = how.shown(name)
    if count <= 1 and how.separator == " ":
        name = f"{name:<30}"
    return name + how.separator


def plain_line(
    kind: int, values: Elements, states: Sequence[str] | None, asked: int, how: Format
) -> str:
    """The values of a line of caget, with how many there are if there may be more than one."""
    count = len(values)
    if how.as_text(kind, count, asked):
        return how.long_string(values)
    texts = how.texts(kind, values, states)
    if asked or count > 1:
        # The count is followed by a separator even where nothing comes after it.
        return f"{count}{how.separator}" + how.separator.join(texts)
    return how.separator.join(texts)


def wide_tail(
    kind: int, values: Elements, status: int, severity: int, asked: int, how: Format
) -> str:
    """What follows the stamp in a line of camonitor (print_time_val_sts): values, status and severity."""
    between, count = how.separator, len(values)
    if how.as_text(kind, count, asked):
        parts = [how.long_string(values)]
    else:
        parts = how.texts(kind, values, None)
        if asked or count > 1:
            parts.insert(0, str(count))
    alarm = (status_text(status), severity_text(severity)) if status or severity else ("", "")
    return "".join(between + part for part in (*parts, *alarm))


def status_text(status: int) -> str:
    """The word for an alarm status."""
    return STATUS[status] if 0 <= status < len(STATUS) else "??"


def severity_text(severity: int) -> str:
    """The word for an alarm severity."""
    return SEVERITY[severity] if 0 <= severity < len(SEVERITY) else "??"


def type_name(dbr_type: int) -> str:
    """A DBR type as db_access.h names it, without what comes before: ``TIME_DOUBLE``."""
    if 0 <= dbr_type < 5 * len(KINDS):
        family, kind = divmod(dbr_type, len(KINDS))
        return FAMILIES[family] + KINDS[kind]
    return {37: "STSACK_STRING", 38: "CLASS_NAME"}[dbr_type]


# ---------------------------------------------------------------------- stamps


def stamp_text(unix_ns: int) -> str:
    """A server's stamp in local time to the microsecond, as epicsTimeToStrftime prints it."""
    if unix_ns in (0, EPICS_EPOCH_NS):
        return "<undefined>"
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    # It rounds, but never up into the next second.
    micro = min(ns + 500, 999_999_999) // 1000
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) + f".{micro:06d}"


class Stamps:
    """The stamps of camonitor's lines: of the server or of this client, absolute or as differences (option -t)."""

    def __init__(self, key: str = "s", start_ns: int = 0) -> None:
        self.server = "s" in key
        self.client = "c" in key
        self.relative = next((c for c in reversed(key) if c in "riI"), "")
        self._start = start_ns
        self._first: int | None = None
        self._before = (0, 0)
        self._of: dict[object, tuple[int, int]] = {}
        self._told: set[object] = set()

    def text(self, pv: object, server_ns: int, client_ns: int) -> str:
        """The stamps of an update of `pv`."""
        now = (server_ns, client_ns)
        if self._first is None:
            self._first = server_ns
        since = {
            "r": (self._first, self._start),
            "i": self._before,
            "I": self._of.get(pv, (0, 0)),
        }.get(self.relative)
        self._before = self._of[pv] = now
        if since is None or pv not in self._told:
            self._told.add(pv)
            return (stamp_text(server_ns) if self.server else "") + (
                f"({stamp_text(client_ns)})" if self.client else ""
            )
        server, client = ((a - b) / 1e9 for a, b in zip(now, since, strict=True))
        return (f"{'':14}{server:+12.6f}" if self.server else "") + (
            f"{'':14}({client:+12.6f})" if self.client else ""
        )


# ---------------------------------------------------------------------- caget -d

_LIMITS = (
    ("Lo disp limit:  ", "lower_disp_limit"),
    ("Hi disp limit:  ", "upper_disp_limit"),
    ("Lo alarm limit: ", "lower_alarm_limit"),
    ("Lo warn limit:  ", "lower_warning_limit"),
    ("Hi warn limit:  ", "upper_warning_limit"),
    ("Hi alarm limit: ", "upper_alarm_limit"),
    ("Lo ctrl limit:  ", "lower_ctrl_limit"),
    ("Hi ctrl limit:  ", "upper_ctrl_limit"),
)


def details(
    dbr_type: int,
    status: int,
    severity: int,
    stamp_ns: int,
    control: Any,
    acknowledgement: tuple[int, int] | None,
    how: Format,
) -> list[str]:
    """What dbr2str prints below a value: all that came with it, one fact a line."""
    family, kind = divmod(dbr_type, len(KINDS))
    found: list[tuple[str, str]] = []
    if FAMILIES[family % 5] == "TIME_" and acknowledgement is None:
        found.append(("Timestamp:", stamp_text(stamp_ns)))
    found += [("Status:", status_text(status)), ("Severity:", severity_text(severity))]
    if acknowledgement is not None:
        transient, unacknowledged = acknowledgement
        found.append(("Ack transient?:", "YES" if transient else "NO"))
        found.append(("Ack severity:", severity_text(unacknowledged)))
    lines = [f"    {what:<18}{text}" for what, text in found]
    if control is None or kind == STRING:
        return lines
    if kind == ENUM:
        states = control.enum_strings or ()
        lines.append(f"    Enums:            ({len(states):2d})")
        return lines + [f"{'':22}[{i:2d}] {how.shown(state)}" for i, state in enumerate(states)]
    lines.append(f"    Units:            {how.shown(control.units or '')}")
    if kind in (FLOAT, DOUBLE):
        lines.append(f"    Precision:        {control.precision}")
    for what, attribute in _LIMITS:
        limit = getattr(control, attribute)
        if limit is not None:
            lines.append(f"    {what:<18}{_limit_text(limit, kind)}")
    return lines


def _limit_text(limit: float, kind: int) -> str:
    if kind in (FLOAT, DOUBLE):  # always by %g, whatever -e, -f and -g say
        return Format().float_text(limit)
    number = int(limit)
    if kind == CHAR and number > 127:
        number -= 256
    return f"{number:8d}"
