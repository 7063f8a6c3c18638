"""The analog output record: `ao`."""

from __future__ import annotations

from ..device import Device as Device
from ._common import RecordDevice


class ao(RecordDevice):
    """An analog output record, by its fields."""

    attrs = (
        *("OUT", "LINR", "RVAL", "ROFF", "EGUF", "EGUL", "AOFF", "ASLO", "ESLO", "EOFF"),
        *("VAL", "EGU", "HOPR", "LOPR", "PREC", "NAME", "DESC", "DTYP"),
        *("HIHI", "LOLO", "HIGH", "LOW", "HHSV", "LLSV", "HSV", "LSV", "HYST"),
        *("OMSL", "DOL", "OIF", "DRVH", "DRVL", "OROC", "OVAL"),
    )
