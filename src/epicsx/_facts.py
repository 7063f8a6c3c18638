"""What `epicsx.ca` tells of a channel by its id, as libca's threads last heard it. Nothing here asks the server.

Threads
    Any. ``ca`` has each of these with its check of the id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _chids, dbr
from ._texts import refusal
from .enums import ECA

if TYPE_CHECKING:
    from ._ca import Core


def name(chid: Any) -> str:
    """The PV's name."""
    return _chids.find(chid).pvname


def host_name(chid: Any) -> str:
    """``host:port`` of the server, ``'<disconnected>'`` if there is none."""
    core = _chids.find(chid).core
    return str(core.host) if core.connected else "<disconnected>"


def element_count(chid: Any) -> int:
    """The record's number of elements; 0 if disconnected."""
    core = _chids.find(chid).core
    return int(core.count) if core.connected else 0


def read_access(chid: Any) -> int:
    """1 if the server lets us read."""
    return int(_chids.find(chid).core.read_access)


def write_access(chid: Any) -> int:
    """1 if the server lets us write."""
    return int(_chids.find(chid).core.write_access)


def field_type(chid: Any) -> int:
    """The native type; -1 if disconnected."""
    core = _chids.find(chid).core
    return int(core.native_type) if core.connected else -1


def state(chid: Any) -> int:
    """0 never connected, 1 connected before, 2 connected, 3 closed."""
    return int(_chids.find(chid).core.state)


def type_asked(function: str, core: Core, ftype: Any) -> int:
    """The DBR type of a request: the channel's own for None, refused if there is no such type."""
    if ftype is None:
        return int(core.native_type)
    if not isinstance(ftype, int) or not 0 <= ftype <= 38:
        raise refusal(function, ECA.BADTYPE, core.name)
    return ftype


def promote_fieldtype(ftype: int, use_time: bool = False, use_ctrl: bool = False) -> int:
    """A native type's TIME or CTRL variant. STRING has no CTRL: it is TIME_STRING."""
    if use_ctrl:
        ftype += dbr.CTRL_STRING
    elif use_time:
        ftype += dbr.TIME_STRING
    return dbr.TIME_STRING if ftype == dbr.CTRL_STRING else ftype


def promote_type(chid: Any, use_time: bool = False, use_ctrl: bool = False) -> int:
    """The channel's native type, or its TIME or CTRL variant."""
    return promote_fieldtype(field_type(chid), use_time=use_time, use_ctrl=use_ctrl)
