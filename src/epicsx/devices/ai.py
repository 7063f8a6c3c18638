"""The analog input record: `ai`."""

from __future__ import annotations

from ..device import Device as Device
from ._common import RecordDevice


class ai(RecordDevice):
    """An analog input record, by its fields."""

    attrs = (
        *("VAL", "EGU", "HOPR", "LOPR", "PREC", "NAME", "DESC", "DTYP", "INP", "LINR"),
        *("RVAL", "ROFF", "EGUF", "EGUL", "AOFF", "ASLO", "ESLO", "EOFF", "SMOO"),
        *("HIHI", "LOLO", "HIGH", "LOW", "HHSV", "LLSV", "HSV", "LSV", "HYST"),
    )
