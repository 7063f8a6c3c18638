"""The PVs of `FakeServer`: what they hold, and that as the blocks that travel in frames.

A block is what db_access.h declares as a struct of its type (dbr_time_double and so on), in the byte order of the
network, and without the padding at its end. Pure Python, so that a test may hold it beside what epicsx's core makes
of the same bytes.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from epicsx.enums import DBR, ECA, Access, Severity, Status

__all__ = ["FakePV", "Refused", "block", "fitted", "from_block"]

EPOCH = 631152000  # 1990-01-01, where EPICS' time begins, in Unix time
TEXT = 40  # bytes of a DBR_STRING, the NUL included: MAX_STRING_SIZE
STATES, STATE = 16, 26  # of an enum: how many, and the bytes of each
UNITS = 8
NATIVE = (DBR.STRING, DBR.SHORT, DBR.FLOAT, DBR.ENUM, DBR.CHAR, DBR.LONG, DBR.DOUBLE)
LETTERS = ("40s", "h", "f", "H", "B", "i", "d")  # of struct, by native type
RANGES = {
    DBR.SHORT: (-(1 << 15), (1 << 15) - 1),
    DBR.ENUM: (0, 0xFFFF),
    DBR.CHAR: (-128, 255),
    DBR.LONG: (-(1 << 31), (1 << 31) - 1),
}
# Bytes between the head and the value, so that this lies on an address that suits it.
STS_PAD = {DBR.CHAR: 1, DBR.DOUBLE: 4}
TIME_PAD = {DBR.SHORT: 2, DBR.ENUM: 2, DBR.CHAR: 3, DBR.DOUBLE: 4}


class Refused(Exception):
    """A request that a server denies, with the ECA status that it answers."""

    def __init__(self, status: ECA) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass
class FakePV:
    """One PV of a `FakeServer`.

    Attributes
    ----------
    value : int, float, str, bytes, or a sequence of them
        An array if it is a sequence, or `size` is given.
    type : DBR, optional
        Native type, STRING to DOUBLE; by default that of the value: LONG, DOUBLE, STRING, and CHAR for bytes.
    size : int, optional
        The native count: how many elements there may be; by default as many as there are.
    states : sequence of str
        Of an enum, whose type need not be said then.
    units : str
    precision : int, optional
        Digits behind the point, also where a number is read as text; by default as many as it has, and told as 0.
    limits : pair of float
        Lowest and highest value, given for display, alarms and control alike.
    access : Access
    status, severity : Status, Severity
    timestamp : float, seconds, Unix time, optional
        By default the time at which the value was set.
    values : list
        The elements, also where there is but one.
    """

    value: Any
    type: DBR | None = None
    size: int | None = None
    states: Sequence[str] = ()
    units: str = ""
    precision: int | None = None
    limits: tuple[float, float] = (0.0, 0.0)
    access: Access = field(default=Access.READ | Access.WRITE)
    status: Status = Status.NO_ALARM
    severity: Severity = Severity.NO_ALARM
    timestamp: float | None = None
    values: list[Any] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        value = self.value.tolist() if hasattr(self.value, "tolist") else self.value
        if self.type is None:
            self.type = DBR.ENUM if self.states else _type_of(value)
        self.type = DBR(self.type)
        if self.type not in NATIVE:
            raise ValueError(f"a native type is one of STRING to DOUBLE, not {self.type.name}")
        many = isinstance(value, (list, tuple, bytes))
        if self.size is None:
            self.size = max(1, len(value)) if many else 1
        if self.size < 1:
            raise ValueError(f"size is a number of elements, at least 1, not {self.size!r}")
        self.set(value)
        if self.timestamp is None:
            self.timestamp = time.time()

    def set(self, value: Any) -> None:
        """Take a new value.

        Raises
        ------
        ValueError
            It does not fit the type or the size.
        """
        assert self.type is not None and self.size is not None
        value = value.tolist() if hasattr(value, "tolist") else value
        values = list(value) if isinstance(value, (list, tuple, bytes)) else [value]
        if len(values) > self.size:
            raise ValueError(f"{len(values)} elements, where {self.size} have room")
        if self.size == 1 and not values:
            raise ValueError("one element is wanted, not none")
        self.values = [fitted(self, each, self.type) for each in values]
        self.value = self.values if self.size > 1 else self.values[0]


def _type_of(value: Any) -> DBR:
    if isinstance(value, bytes):
        return DBR.CHAR
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    for kind, found in ((str, DBR.STRING), (int, DBR.LONG), (float, DBR.DOUBLE)):
        if isinstance(first, kind):
            return found
    raise ValueError(f"say the type of {value!r}: it is no number, text or bytes")


def fitted(pv: FakePV, value: Any, kind: int) -> Any:
    """One element as another type has it.

    Raises
    ------
    ValueError
        That type has not this value.
    """
    if kind == DBR.STRING:
        if pv.type == DBR.ENUM and isinstance(value, int) and value < len(pv.states):
            value = pv.states[value]
        precise = isinstance(value, float) and pv.precision is not None
        text = f"{value:.{pv.precision}f}" if precise else str(value)
        if len(text.encode()) >= TEXT:
            raise ValueError(f"a text of at most {TEXT - 1} bytes is wanted, not {text!r}")
        return text
    if isinstance(value, str):
        if pv.type == DBR.ENUM and value in pv.states:
            return list(pv.states).index(value)
        value = float(value)
    if kind in (DBR.FLOAT, DBR.DOUBLE):
        return float(value)
    low, high = RANGES[DBR(kind)]
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"a number from {low} to {high} is wanted, not {value!r}")
    return number


def _packed(kind: int, values: Sequence[Any]) -> bytes:
    if kind == DBR.STRING:
        return b"".join(text.encode().ljust(TEXT, b"\0") for text in values)
    if kind == DBR.CHAR:
        return bytes(value & 0xFF for value in values)
    return struct.pack(f">{len(values)}{LETTERS[kind]}", *values)


def block(pv: FakePV, data_type: int, count: int) -> tuple[int, bytes]:
    """The count, and the bytes, of a PV's value as a type of request; count 0 asks for as many as there are.

    Raises
    ------
    Refused
        There is no such type, no such many elements, or no way from the value to the type.
    """
    assert pv.size is not None and pv.timestamp is not None
    if not 0 <= data_type <= DBR.CLASS_NAME or data_type in (DBR.PUT_ACKT, DBR.PUT_ACKS):
        raise Refused(ECA.BADTYPE)
    if count > pv.size:
        raise Refused(ECA.BADCOUNT)
    if data_type == DBR.CLASS_NAME:
        return 1, b"fake".ljust(TEXT, b"\0")
    alarm = struct.pack(">hh", pv.status, pv.severity)
    if data_type == DBR.STSACK_STRING:
        kind, head = int(DBR.STRING), alarm + bytes(4)
    else:
        family, kind = divmod(data_type, 7)
        head = b"" if not family else alarm + _described(pv, family, kind)
    values = pv.values[: count or None]
    try:
        elements = [fitted(pv, value, kind) for value in values]
        packed = _packed(kind, elements)
    except (ValueError, ArithmeticError, struct.error):
        raise Refused(ECA.GETFAIL) from None
    size = len(packed) // len(values) * (count or len(values)) if values else 0
    return count or len(values), head + packed.ljust(size, b"\0")


def _described(pv: FakePV, family: int, kind: int) -> bytes:
    """What stands between alarm and value: STS, TIME, GR, CTRL are 1 to 4."""
    assert pv.timestamp is not None
    which = DBR(kind)
    if family == 1 or (family > 2 and kind == DBR.STRING):
        return bytes(STS_PAD.get(which, 0))
    if family == 2:
        nanoseconds = round((pv.timestamp - EPOCH) * 1e9)
        stamp = struct.pack(">II", *divmod(max(0, nanoseconds), 10**9))
        return stamp + bytes(TIME_PAD.get(which, 0))
    if kind == DBR.ENUM:
        names = [state.encode()[: STATE - 1].ljust(STATE, b"\0") for state in pv.states[:STATES]]
        return struct.pack(">h", len(names)) + b"".join(names).ljust(STATES * STATE, b"\0")
    precision = struct.pack(">hh", pv.precision or 0, 0) if kind in (DBR.FLOAT, DBR.DOUBLE) else b""
    units = pv.units.encode()[: UNITS - 1].ljust(UNITS, b"\0")
    high_low = [pv.limits[1], pv.limits[0]]
    # upper and lower of display; upper alarm and warning, lower warning and alarm; with CTRL those of control
    given = high_low + [high_low[0]] * 2 + [high_low[1]] * 2 + (high_low if family == 4 else [])
    low, high = RANGES.get(which, (float("-inf"), float("inf")))
    limits = [min(max(each, low), high) for each in given]
    if which in RANGES:
        limits = [int(each) for each in limits]
    packed = _packed(kind, limits)
    return precision + units + packed + (b"\0" if kind == DBR.CHAR else b"")


def from_block(pv: FakePV, data_type: int, count: int, payload: bytes) -> Any:
    """The value in what a client writes.

    Raises
    ------
    Refused
        As `block`; and if it does not fit the PV.
    """
    assert pv.size is not None and pv.type is not None
    if data_type not in NATIVE:
        raise Refused(ECA.BADTYPE)
    if count > pv.size:
        raise Refused(ECA.BADCOUNT)
    values: list[Any]
    if data_type == DBR.STRING:
        texts = [payload[at : at + TEXT] for at in range(0, count * TEXT, TEXT)]
        values = [each.split(b"\0", 1)[0].decode("utf-8", "replace") for each in texts]
    else:
        letters = f">{count}{LETTERS[data_type]}"
        if len(payload) < struct.calcsize(letters):
            raise Refused(ECA.BADCOUNT)
        values = list(struct.unpack_from(letters, payload))
    with contextlib.suppress(ValueError, ArithmeticError):
        return [fitted(pv, value, pv.type) for value in values]
    raise Refused(ECA.PUTFAIL)
