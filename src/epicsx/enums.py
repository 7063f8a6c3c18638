"""The numbers of Channel Access, by name.

A leaf: imports nothing of ours, so anything may import it. The values are those of EPICS base
(``db_access.h``, ``caeventmask.h``, ``alarm.h``, ``caerr.h``) and travel on the wire.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TypeVar

__all__ = ["DBE", "DBR", "ECA", "Access", "Severity", "Status"]

_Alarm = TypeVar("_Alarm", bound=IntEnum)


class DBE(IntFlag):
    """The kinds of change a subscription asks for."""

    VALUE = 1
    """The value moved by more than the record's monitor dead band (MDEL)."""
    LOG = 2
    """The value moved by more than the record's archive dead band (ADEL)."""
    ALARM = 4
    """Status or severity changed."""
    PROPERTY = 8
    """Units, limits, precision or state names changed."""


class DBR(IntEnum):
    """The types of a Channel Access request: a value alone, or with what the server adds to it."""

    STRING = 0
    SHORT = 1
    INT = 1
    FLOAT = 2
    ENUM = 3
    CHAR = 4
    LONG = 5
    DOUBLE = 6

    # with alarm status and severity
    STS_STRING = 7
    STS_SHORT = 8
    STS_INT = 8
    STS_FLOAT = 9
    STS_ENUM = 10
    STS_CHAR = 11
    STS_LONG = 12
    STS_DOUBLE = 13

    # with alarm and time stamp
    TIME_STRING = 14
    TIME_SHORT = 15
    TIME_INT = 15
    TIME_FLOAT = 16
    TIME_ENUM = 17
    TIME_CHAR = 18
    TIME_LONG = 19
    TIME_DOUBLE = 20

    # with alarm, units and display limits
    GR_STRING = 21
    GR_SHORT = 22
    GR_INT = 22
    GR_FLOAT = 23
    GR_ENUM = 24
    GR_CHAR = 25
    GR_LONG = 26
    GR_DOUBLE = 27

    # the same with control limits
    CTRL_STRING = 28
    CTRL_SHORT = 29
    CTRL_INT = 29
    CTRL_FLOAT = 30
    CTRL_ENUM = 31
    CTRL_CHAR = 32
    CTRL_LONG = 33
    CTRL_DOUBLE = 34

    # alarm acknowledgement, written and read; the record's type by name
    PUT_ACKT = 35
    PUT_ACKS = 36
    STSACK_STRING = 37
    CLASS_NAME = 38


class Severity(IntEnum):
    """How bad an alarm is."""

    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3
    """The value is not to be trusted."""

    @classmethod
    def _missing_(cls, value: object) -> Severity | None:
        return _unknown(cls, value)


class Status(IntEnum):
    """What an alarm is about."""

    NO_ALARM = 0
    READ = 1
    WRITE = 2
    HIHI = 3
    HIGH = 4
    LOLO = 5
    LOW = 6
    STATE = 7
    COS = 8
    COMM = 9
    TIMEOUT = 10
    HW_LIMIT = 11
    CALC = 12
    SCAN = 13
    LINK = 14
    SOFT = 15
    BAD_SUB = 16
    UDF = 17
    """The record was never processed."""
    DISABLE = 18
    SIMM = 19
    READ_ACCESS = 20
    WRITE_ACCESS = 21

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        return _unknown(cls, value)


class Access(IntFlag):
    """What the server lets this client do with a channel."""

    NONE = 0
    READ = 1
    WRITE = 2


class ECA(IntEnum):
    """The status codes of Channel Access: ``ECA_TIMEOUT`` of ``caerr.h`` is ``ECA.TIMEOUT``.

    `epicsx.errors.message` gives the text of a code.
    """

    NORMAL = 1
    MAXIOC = 10
    UKNHOST = 18
    UKNSERV = 26
    SOCK = 34
    CONN = 40
    ALLOCMEM = 48
    UKNCHAN = 56
    UKNFIELD = 64
    TOLARGE = 72
    TIMEOUT = 80
    NOSUPPORT = 88
    STRTOBIG = 96
    DISCONNCHID = 106
    BADTYPE = 114
    CHIDNOTFND = 123
    CHIDRETRY = 131
    INTERNAL = 142
    DBLCLFAIL = 144
    GETFAIL = 152
    PUTFAIL = 160
    ADDFAIL = 168
    BADCOUNT = 176
    BADSTR = 186
    DISCONN = 192
    DBLCHNL = 200
    EVDISALLOW = 210
    BUILDGET = 216
    NEEDSFP = 224
    OVEVFAIL = 232
    BADMONID = 242
    NEWADDR = 248
    NEWCONN = 259
    NOCACTX = 264
    DEFUNCT = 278
    EMPTYSTR = 280
    NOREPEATER = 288
    NOCHANMSG = 296
    DLCKREST = 304
    SERVBEHIND = 312
    NOCAST = 320
    BADMASK = 330
    IODONE = 339
    IOINPROGRESS = 347
    BADSYNCGRP = 354
    PUTCBINPROG = 362
    NORDACCESS = 368
    NOWTACCESS = 376
    ANACHRONISM = 386
    NOSEARCHADDR = 392
    NOCONVERT = 400
    BADCHID = 410
    BADFUNCPTR = 418
    ISATTACHED = 424
    UNAVAILINSERV = 432
    CHANDESTROY = 440
    BADPRIORITY = 450
    NOTTHREADED = 458
    ARRAYCLIENT_16K = 464
    CONNSEQTMO = 472
    UNRESPTMO = 480


def _unknown(cls: type[_Alarm], value: object) -> _Alarm | None:
    # A server may send any number; a reader of alarms must not fail on one it has no name for.
    if not isinstance(value, int):
        return None
    member = int.__new__(cls, value)
    member._name_ = "UNKNOWN"
    member._value_ = int(value)
    return member
