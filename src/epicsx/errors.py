"""What can go wrong, as exceptions.

::

    CAError                             .status (ECA code or None)  .message  .name (of the PV)
     +- CATimeoutError                  also TimeoutError
     +- DisconnectedError               also ConnectionError        .outcome_unknown
     +- AccessError                     also PermissionError
     +- BadTypeError                    also TypeError
     +- BadValueError                   also ValueError
     +- PutError                        the server refused a put
     +- OverrunError                    more frames came than a stream may hold
     +- ServerError                     the server refused anything else
     |   +- ChannelAccessGetFailure     pyepics' name               .chid
     +- ChannelAccessException          pyepics' name
     +- CASeverityException             pyepics' name               .fcn  .msg

A leaf: imports nothing of ours, so anything may import it.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = [
    "AccessError",
    "BadTypeError",
    "BadValueError",
    "CAError",
    "CASeverityException",
    "CATimeoutError",
    "ChannelAccessException",
    "ChannelAccessGetFailure",
    "DisconnectedError",
    "OverrunError",
    "PutError",
    "ServerError",
    "from_status",
    "loop_ending",
    "message",
    "not_started",
    "timed_out",
    "unanswered",
]


class CAError(Exception):
    """Anything that went wrong with Channel Access.

    Made from ``(status, message, name)`` or from ``(message, status=..., name=...)``.
    """

    status: int | None
    """The ECA code behind the error; None where there is none."""
    message: str
    """The text, also that of ``str(error)``."""
    name: str
    """The PV concerned; empty where there is none."""

    def __init__(
        self,
        *args: int | str | None,
        status: int | None = None,
        message: str | None = None,
        name: str | None = None,
    ) -> None:
        order = ("message",) if args and isinstance(args[0], str) else ("status", "message", "name")
        if len(args) > len(order):
            raise TypeError(f"{type(self).__name__} takes (status, message, name)")
        given: dict[str, Any] = {"status": status, "message": message, "name": name}
        given.update(zip(order, args, strict=False))
        message = given["message"] or ""
        # Exactly one argument goes up: with two, OSError would take them for errno and strerror.
        super().__init__(message)
        self.status = given["status"]
        self.message = message
        self.name = given["name"] or ""

    def __str__(self) -> str:
        return self.message


class CATimeoutError(CAError, TimeoutError):
    """No answer, or no connection, within the time given."""


class DisconnectedError(CAError, ConnectionError):
    """The channel is not connected, or its circuit was lost while waiting."""

    outcome_unknown: bool = False
    """True for a put that was sent and whose answer was lost: it may have been carried out."""


class AccessError(CAError, PermissionError):
    """The server does not let this client read, or write."""


class BadTypeError(CAError, TypeError):
    """A value of a kind that the record cannot hold."""


class BadValueError(CAError, ValueError):
    """A value of the right kind that does not fit: too large, too long, an unknown state name."""


class PutError(CAError):
    """The server refused a put."""


class OverrunError(CAError):
    """More frames came than a stream may hold: with ``overflow='error'`` it says so, once."""


class ServerError(CAError):
    """The server refused a request, or reported a failure of its own."""


class ChannelAccessException(CAError):
    """pyepics' general error. A plain exception of Python's: it keeps any arguments, and its text is theirs."""

    def __init__(self, *args: Any, status: int | None = None, name: str | None = None) -> None:
        text = str(args[0]) if len(args) == 1 else str(args) if args else ""
        super().__init__(text, status=status, name=name)
        self.args = args


class CASeverityException(CAError):
    """pyepics' error for a refused libca call: ``CASeverityException(function, message)``."""

    def __init__(
        self, fcn: str, msg: str, *, status: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(f" {fcn} returned '{msg}'", status=status, name=name)
        self.fcn = fcn
        self.msg = msg

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fcn, self.msg), self.__dict__


class ChannelAccessGetFailure(ServerError):
    """pyepics' error for a get that the server answered with a failure."""

    def __init__(self, message: str, chid: Any, status: int, *, name: str | None = None) -> None:
        super().__init__(message, status=status, name=name)
        self.chid = chid

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.chid, self.status), self.__dict__


# One row for each code of caerr.h, in its order: name, class of error, text. A code is
# ``row << 3 | severity``; the row alone says what happened.
_ROWS: tuple[tuple[str, type[CAError], str], ...] = (
    ("ECA_NORMAL", CAError, "Normal successful completion"),
    ("ECA_MAXIOC", CAError, "Maximum simultaneous IOC connections exceeded"),
    ("ECA_UKNHOST", CAError, "Unknown internet host"),
    ("ECA_UKNSERV", CAError, "Unknown internet service"),
    ("ECA_SOCK", CAError, "Unable to allocate a new socket"),
    ("ECA_CONN", DisconnectedError, "Unable to connect to internet host or service"),
    ("ECA_ALLOCMEM", ServerError, "Unable to allocate additional dynamic memory"),
    ("ECA_UKNCHAN", CAError, "Unknown IO channel"),
    ("ECA_UKNFIELD", BadValueError, "Record field specified inappropriate for channel specified"),
    (
        "ECA_TOLARGE",
        BadValueError,
        "The requested data transfer is greater than available memory or EPICS_CA_MAX_ARRAY_BYTES",
    ),
    ("ECA_TIMEOUT", CATimeoutError, "User specified timeout on IO operation expired"),
    ("ECA_NOSUPPORT", CAError, "Sorry, that feature is planned but not supported at this time"),
    ("ECA_STRTOBIG", BadValueError, "The supplied string is unusually large"),
    (
        "ECA_DISCONNCHID",
        DisconnectedError,
        "The request was ignored because the specified channel is disconnected",
    ),
    ("ECA_BADTYPE", BadTypeError, "The data type specifed is invalid"),
    ("ECA_CHIDNOTFND", CAError, "Remote Channel not found"),
    ("ECA_CHIDRETRY", CAError, "Unable to locate all user specified channels"),
    ("ECA_INTERNAL", ServerError, "Channel Access Internal Failure"),
    ("ECA_DBLCLFAIL", ServerError, "The requested local DB operation failed"),
    ("ECA_GETFAIL", ServerError, "Channel read request failed"),
    ("ECA_PUTFAIL", PutError, "Channel write request failed"),
    ("ECA_ADDFAIL", ServerError, "Channel subscription request failed"),
    ("ECA_BADCOUNT", BadValueError, "Invalid element count requested"),
    ("ECA_BADSTR", BadValueError, "Invalid string"),
    ("ECA_DISCONN", DisconnectedError, "Virtual circuit disconnect"),
    ("ECA_DBLCHNL", CAError, "Identical process variable names on multiple servers"),
    (
        "ECA_EVDISALLOW",
        CAError,
        "Request inappropriate within subscription (monitor) update callback",
    ),
    (
        "ECA_BUILDGET",
        ServerError,
        "Database value get for that channel failed during channel search",
    ),
    ("ECA_NEEDSFP", CAError, "Unable to initialize without the vxWorks VX_FP_TASK task option set"),
    (
        "ECA_OVEVFAIL",
        ServerError,
        "Event queue overflow has prevented first pass event after event add",
    ),
    ("ECA_BADMONID", CAError, "Bad event subscription (monitor) identifier"),
    ("ECA_NEWADDR", CAError, "Remote channel has new network address"),
    ("ECA_NEWCONN", CAError, "New or resumed network connection"),
    ("ECA_NOCACTX", CAError, "Specified task isn't a member of a CA context"),
    ("ECA_DEFUNCT", CAError, "Attempt to use defunct CA feature failed"),
    ("ECA_EMPTYSTR", BadValueError, "The supplied string is empty"),
    ("ECA_NOREPEATER", CAError, "Unable to spawn the CA repeater thread- auto reconnect will fail"),
    ("ECA_NOCHANMSG", CAError, "No channel id match for search reply- search reply ignored"),
    ("ECA_DLCKREST", CAError, "Reseting dead connection- will try to reconnect"),
    (
        "ECA_SERVBEHIND",
        ServerError,
        "Server (IOC) has fallen behind or is not responding- still waiting",
    ),
    ("ECA_NOCAST", CAError, "No internet interface with broadcast available"),
    ("ECA_BADMASK", BadValueError, "Invalid event selection mask"),
    ("ECA_IODONE", CAError, "IO operations have completed"),
    ("ECA_IOINPROGRESS", CAError, "IO operations are in progress"),
    ("ECA_BADSYNCGRP", CAError, "Invalid synchronous group identifier"),
    ("ECA_PUTCBINPROG", PutError, "Put callback timed out"),
    ("ECA_NORDACCESS", AccessError, "Read access denied"),
    ("ECA_NOWTACCESS", AccessError, "Write access denied"),
    ("ECA_ANACHRONISM", CAError, "Requested feature is no longer supported"),
    ("ECA_NOSEARCHADDR", CAError, "Empty PV search address list"),
    (
        "ECA_NOCONVERT",
        BadTypeError,
        "No reasonable data conversion between client and server types",
    ),
    ("ECA_BADCHID", CAError, "Invalid channel identifier"),
    ("ECA_BADFUNCPTR", CAError, "Invalid function pointer"),
    ("ECA_ISATTACHED", CAError, "Thread is already attached to a client context"),
    ("ECA_UNAVAILINSERV", ServerError, "Not supported by attached service"),
    ("ECA_CHANDESTROY", DisconnectedError, "User destroyed channel"),
    ("ECA_BADPRIORITY", BadValueError, "Invalid channel priority"),
    (
        "ECA_NOTTHREADED",
        CAError,
        "Preemptive callback not enabled - additional threads may not join context",
    ),
    (
        "ECA_16KARRAYCLIENT",
        BadValueError,
        "Client's protocol revision does not support transfers exceeding 16k bytes",
    ),
    ("ECA_CONNSEQTMO", DisconnectedError, "Virtual circuit connection sequence aborted"),
    ("ECA_UNRESPTMO", DisconnectedError, "Virtual circuit unresponsive"),
)

_UNKNOWN = ("", ServerError, "new CA message number known only by server - see caerr.h")


def _row(status: int) -> tuple[str, type[CAError], str]:
    number = (status & 0xFFFF) >> 3
    return _ROWS[number] if number < len(_ROWS) else _UNKNOWN


def message(status: int) -> str:
    """The text that libca's ``ca_message`` has for an ECA code."""
    return _row(status)[2]


def from_status(
    status: int, name: str = "", operation: str = "", *, outcome_unknown: bool = False
) -> CAError:
    """The exception that an ECA code stands for, naming the PV and what was tried.

    Parameters
    ----------
    status : int
        An ECA code other than ``ECA.NORMAL``.
    name : str
        The PV.
    operation : str
        What was tried: ``"get"``, ``"put"``, ``"subscribe"``.
    outcome_unknown : bool
        Set on a `DisconnectedError` of a put that may have been carried out.
    """
    code, cls, text = _row(status)
    what = f"{operation or 'request'} of '{name}'" if name else operation or "request"
    error = cls(f"{what} failed: {text} ({code or f'ECA code {status}'})", status=status, name=name)
    if isinstance(error, DisconnectedError) and outcome_unknown:
        error.outcome_unknown = True
        error.message += "; it may have been carried out"
        error.args = (error.message,)
    return error


def not_started(status: int) -> CAError:
    """The exception for a context that libca does not make; it says ECA_ALLOCMEM whatever the reason was."""
    # ca_client_context::ca_client_context throws noSocket where it gets no UDP socket; ca_context_create of access.cpp
    # makes one status of all that is thrown.
    code, _, text = _row(status)
    why = "libca got no memory, or no UDP socket: is there a network, may files still be opened?"
    reason = why if code == "ECA_ALLOCMEM" else f"{text} ({code})"
    return CAError(f"Channel Access cannot be started: {reason}", status=status)


def timed_out(name: str, operation: str, seconds: float, reason: str = "") -> CATimeoutError:
    """The exception for a time-out, naming the PV, what was tried and the seconds waited."""
    what = f"{operation} of '{name}'" if name else operation
    text = f"{what} timed out after {seconds:.2f} seconds"
    in_vain = operation == "get" and reason == "the server has not answered"
    if in_vain and os.environ.get("EPICS_CA_AUTO_ARRAY_BYTES", "").upper() == "NO":
        # It discards them without telling whoever asked: tcpiiu::processIncoming of tcpiiu.cpp.
        limit = os.environ.get("EPICS_CA_MAX_ARRAY_BYTES")
        reason += f", or libca has discarded an answer above EPICS_CA_MAX_ARRAY_BYTES={limit}"
    return CATimeoutError(f"{text}: {reason}" if reason else text, status=80, name=name)


def loop_ending(name: str) -> CAError:
    """The exception for what waits for an event loop that ends, or is asked for then."""
    return CAError(440, "the event loop is ending", name)


def unanswered() -> str:
    """Why a channel has never connected: no server has answered, and where its search was sent.

    As libca reads the environment, at first use (configureChannelAccessAddressList of iocinf.cpp).
    """
    where = os.environ.get("EPICS_CA_ADDR_LIST", "").split()
    auto = os.environ.get("EPICS_CA_AUTO_ADDR_LIST", "YES")
    if "no" not in auto and "NO" not in auto:
        where.append("this host's networks")
    where += os.environ.get("EPICS_CA_NAME_SERVERS", "").split()
    if not where:
        return (
            "its search is sent nowhere: EPICS_CA_ADDR_LIST is empty, EPICS_CA_AUTO_ADDR_LIST is NO"
        )
    more = f" and {len(where) - 8} more" if len(where) > 8 else ""
    return f"no server has answered its search, sent to {' '.join(where[:8])}{more}"
