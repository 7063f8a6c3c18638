"""The binary output record: `bo`."""

from __future__ import annotations

from ..device import Device as Device
from ._common import RecordDevice


class bo(RecordDevice):
    """A binary output record, by its fields; EGU, HOPR, LOPR and PREC, which it does not have, are pyepics' too."""

    attrs = (
        *("DOL", "OMSL", "RVAL", "HIGH", "ZNAM", "ONAM", "VAL", "EGU", "HOPR", "LOPR", "PREC"),
        *("NAME", "DESC", "DTYP"),
    )
