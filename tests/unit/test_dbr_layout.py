"""The table of the 39 DBR types, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from epicsx import _dbr
from epicsx.enums import DBR

# Offset of the first value. Two shorts of alarm come first, then 8 bytes of time stamp (TIME), or
# units of 8 bytes (after precision and padding for reals), or 2 + 16 * 26 bytes of state names,
# then the limits; padding puts the value where its alignment or an old convention wants it.
OFFSETS = {
    DBR.STRING: 0,
    DBR.SHORT: 0,
    DBR.FLOAT: 0,
    DBR.ENUM: 0,
    DBR.CHAR: 0,
    DBR.LONG: 0,
    DBR.DOUBLE: 0,
    DBR.STS_STRING: 4,
    DBR.STS_SHORT: 4,
    DBR.STS_FLOAT: 4,
    DBR.STS_ENUM: 4,
    DBR.STS_CHAR: 5,
    DBR.STS_LONG: 4,
    DBR.STS_DOUBLE: 8,
    DBR.TIME_STRING: 12,
    DBR.TIME_SHORT: 14,
    DBR.TIME_FLOAT: 12,
    DBR.TIME_ENUM: 14,
    DBR.TIME_CHAR: 15,
    DBR.TIME_LONG: 12,
    DBR.TIME_DOUBLE: 16,
    DBR.GR_STRING: 4,
    DBR.GR_SHORT: 4 + 8 + 6 * 2,
    DBR.GR_FLOAT: 4 + 4 + 8 + 6 * 4,
    DBR.GR_ENUM: 4 + 2 + 16 * 26,
    DBR.GR_CHAR: 4 + 8 + 6 + 1,
    DBR.GR_LONG: 4 + 8 + 6 * 4,
    DBR.GR_DOUBLE: 4 + 4 + 8 + 6 * 8,
    DBR.CTRL_STRING: 4,
    DBR.CTRL_SHORT: 28,
    DBR.CTRL_FLOAT: 48,
    DBR.CTRL_ENUM: 422,
    DBR.CTRL_CHAR: 21,
    DBR.CTRL_LONG: 44,
    DBR.CTRL_DOUBLE: 80,
    DBR.PUT_ACKT: 0,
    DBR.PUT_ACKS: 0,
    DBR.STSACK_STRING: 8,
    DBR.CLASS_NAME: 0,
}
ELEMENT = {
    DBR.STRING: (40, "S40"),
    DBR.SHORT: (2, "i2"),
    DBR.FLOAT: (4, "f4"),
    DBR.ENUM: (2, "u2"),
    DBR.CHAR: (1, "u1"),
    DBR.LONG: (4, "i4"),
    DBR.DOUBLE: (8, "f8"),
}


def native_by_name(dbr_type: DBR) -> DBR:
    if dbr_type in (DBR.STSACK_STRING, DBR.CLASS_NAME):
        return DBR.STRING
    if dbr_type in (DBR.PUT_ACKT, DBR.PUT_ACKS):
        return DBR.SHORT
    return DBR[dbr_type.name.rpartition("_")[2]]


def test_all_39_types_are_listed() -> None:
    assert sorted(OFFSETS) == list(range(39))


@pytest.mark.parametrize("dbr_type", list(DBR), ids=lambda t: t.name)
def test_layout(dbr_type: DBR) -> None:
    layout = _dbr.layout(dbr_type)
    native = native_by_name(dbr_type)
    size, dtype = ELEMENT[native]
    if dbr_type in (DBR.PUT_ACKT, DBR.PUT_ACKS):
        dtype = "u2"
    assert layout == (dbr_type, native, OFFSETS[dbr_type], size, np.dtype(dtype))
    assert _dbr.dtype_of(dbr_type) == np.dtype(dtype)


@pytest.mark.parametrize("dbr_type", list(DBR), ids=lambda t: t.name)
@pytest.mark.parametrize("count", [0, 1, 7, 2**31, 2**40])
def test_block_size_needs_no_more_than_64_bits(dbr_type: DBR, count: int) -> None:
    size = ELEMENT[native_by_name(dbr_type)][0]
    assert _dbr.nbytes(dbr_type, count) == OFFSETS[dbr_type] + count * size


@pytest.mark.parametrize("dbr_type", [-1, 39, 4294967295 - 2**32, 2**30])
def test_no_such_type(dbr_type: int) -> None:
    for function in (_dbr.layout, _dbr.dtype_of):
        with pytest.raises(ValueError, match="no such DBR type"):
            function(dbr_type)
    with pytest.raises(ValueError, match="no such DBR type"):
        _dbr.nbytes(dbr_type, 1)
    with pytest.raises(ValueError, match="no such DBR type"):
        _dbr.decode(dbr_type, 1, bytes(100))
    with pytest.raises(ValueError, match="no such DBR type"):
        _dbr.encode_block(dbr_type, 1, 1)


def test_negative_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        _dbr.nbytes(DBR.DOUBLE, -1)
    with pytest.raises(ValueError, match="negative"):
        _dbr.decode(DBR.DOUBLE, -1, b"")
