"""The binary input record: `bi`."""

from __future__ import annotations

from ..device import Device as Device
from ._common import RecordDevice


class bi(RecordDevice):
    """A binary input record, by its fields; EGU, HOPR, LOPR and PREC, which it does not have, are pyepics' too."""

    attrs = (
        *("INP", "ZNAM", "ONAM", "RVAL", "VAL", "EGU", "HOPR", "LOPR", "PREC"),
        *("NAME", "DESC", "DTYP"),
    )
