"""The module ``ca`` of the package CaChannel: its numbers, and functions of a type, a status or a channel id.

``ca.DBR_*``, ``ca.DBF_*``, ``ca.ECA_*``, ``ca.DBE_*``, ``ca.cs_*``, ``ca.CA_OP_*`` are plain ints. The functions that
make channels and requests are not here: `CaChannel` has them as methods.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .. import ca as _ca_face
from ..enums import DBR as _DBR
from ..enums import ECA as _ECA
from ..enums import Severity as _Severity
from ..enums import Status as _Status
from ..errors import message as message

POSIX_TIME_AT_EPICS_EPOCH = 631152000
TYPENOTCONN = -1
LAST_BUFFER_TYPE = 38

_NATIVE = ("STRING", "SHORT", "FLOAT", "ENUM", "CHAR", "LONG", "DOUBLE")
_CLASSES = ("", "STS_", "TIME_", "GR_", "CTRL_")
_SIZE = len(_NATIVE)

_NUMBERS: dict[str, int] = {
    **{f"DBR_{name}": int(code) for name, code in _DBR.__members__.items()},
    **{f"DBF_{name}": code for code, name in enumerate((*_NATIVE, "NO_ACCESS"))},
    **{f"ECA_{name}": int(code) for name, code in _ECA.__members__.items()},
    **{
        f"CA_OP_{name}": code
        for code, name in enumerate(
            "GET PUT CREATE_CHANNEL ADD_EVENT CLEAR_EVENT OTHER CONN_UP CONN_DOWN".split()  # noqa: SIM905
        )
    },
    "DBF_INT": 1,
    "ECA_16KARRAYCLIENT": int(_ECA.ARRAYCLIENT_16K),
    "cs_never_conn": 0,
    "cs_prev_conn": 1,
    "cs_conn": 2,
    "cs_closed": 3,
    "cs_never_search": 4,
    "DBE_VALUE": 1,
    "DBE_LOG": 2,
    "DBE_ARCHIVE": 2,
    "DBE_ALARM": 4,
    "DBE_PROPERTY": 8,
}
globals().update(_NUMBERS)


def __getattr__(name: str) -> int:
    raise AttributeError(f"module 'ca' of CaChannel has no {name!r}")


# ---------------------------------------------------------------------- types


def _number(prefix: str, text: str) -> int:
    return _NUMBERS.get(text, -1) if text.startswith(prefix) else -1


def _name(prefix: str, code: int) -> str:
    for name, known in _NUMBERS.items():
        if known == code and name.startswith(prefix):
            return name
    return f"{prefix}invalid"


def dbf_text(code: int) -> str:
    """The name of a field type: ``'DBF_DOUBLE'``."""
    return _name("DBF_", code)


def dbr_text(code: int) -> str:
    """The name of a request type: ``'DBR_TIME_DOUBLE'``."""
    return _name("DBR_", code)


def dbf_text_to_type(text: str) -> int:
    """The field type of that name; -1 if there is none."""
    return _number("DBF_", text)


def dbr_text_to_type(text: str) -> int:
    """The request type of that name; -1 if there is none."""
    return _number("DBR_", text)


dbf_type_to_text = dbf_text
dbr_type_to_text = dbr_text


def dbf_type_is_valid(code: int) -> bool:
    """Whether there is such a field type."""
    return 0 <= code < _SIZE


def dbr_type_is_valid(code: int) -> bool:
    """Whether there is such a request type."""
    return 0 <= code <= LAST_BUFFER_TYPE


def _converter(number: int, name: str) -> Callable[[int], int]:
    def convert(code: int) -> int:
        return number * _SIZE + code if dbf_type_is_valid(code) else -1

    convert.__doc__ = f"The request type ``DBR_{name}*`` for a field type; -1 for what is none."
    return convert


def _is_class(number: int, name: str) -> Callable[[int], bool]:
    def test(code: int) -> bool:
        return number * _SIZE <= code < (number + 1) * _SIZE

    test.__doc__ = f"Whether a request type is one of ``DBR_{name}*``."
    return test


def _is_native(number: int, name: str) -> Callable[[int], bool]:
    def test(code: int) -> bool:
        return 0 <= code < len(_CLASSES) * _SIZE and code % _SIZE == number

    test.__doc__ = f"Whether a request type is a variant of ``DBR_{name}``."
    return test


for _i, _class in enumerate(_CLASSES):
    _suffix = _class.rstrip("_")
    globals()[f"dbf_type_to_DBR_{_suffix}".rstrip("_")] = _converter(_i, _class)
    globals()[f"dbr_type_is_{_suffix or 'plain'}"] = _is_class(_i, _class)
for _i, _native in enumerate(_NATIVE):
    globals()[f"dbr_type_is_{_native}"] = _is_native(_i, _native)


def alarmStatusString(status: int) -> str:
    """The name of an alarm status: ``'HIHI'``."""
    return _Status(status).name


def alarmSeverityString(severity: int) -> str:
    """The name of an alarm severity: ``'MAJOR'``."""
    return _Severity(severity).name


# ------------------------------------------------------------------- channels

# By channel id, as callbacks get it in their first argument.
name = _ca_face.name
state = _ca_face.state
host_name = _ca_face.host_name
field_type = _ca_face.field_type
element_count = _ca_face.element_count
version = _ca_face.version


def read_access(chid: int) -> bool:
    """Whether the server lets us read."""
    return bool(_ca_face.read_access(chid))


def write_access(chid: int) -> bool:
    """Whether the server lets us write."""
    return bool(_ca_face.write_access(chid))


# -------------------------------------------------------------------- waiting

_lock = threading.Lock()
_outstanding: list[Callable[[float], bool]] = []


def outstanding(wait: Callable[[float], bool]) -> None:
    """Have the next `pend_io` of any thread wait for something: ``wait(seconds)`` says whether it is done."""
    with _lock:
        _outstanding[:] = [other for other in _outstanding if not other(0.0)]
        _outstanding.append(wait)


def pend_io(timeout: float = 1.0) -> int:
    """Wait for the searches and reads begun so far, `timeout` seconds at most (0: no limit): ECA_NORMAL or ECA_TIMEOUT.

    Afterwards they are no longer outstanding, answered or not; another thread that waits for them goes on waiting.
    """
    deadline = time.monotonic() + (timeout or _ca_face._FOR_EVER)
    with _lock:
        waiting = list(_outstanding)
    _ca_face.poll(0.0)
    done = [wait(max(0.0, deadline - time.monotonic())) for wait in waiting]
    with _lock:
        _outstanding[:] = [other for other in _outstanding if other not in waiting]
    return int(_ECA.NORMAL if all(done) else _ECA.TIMEOUT)


def test_io() -> int:
    """ECA_IODONE if no search or read is outstanding, else ECA_IOINPROGRESS."""
    with _lock:
        done = all(wait(0.0) for wait in _outstanding)
    return int(_ECA.IODONE if done else _ECA.IOINPROGRESS)


test_io.__test__ = False  # type: ignore[attr-defined]  # not a test


def pend_event(timeout: float = 0.1) -> int:
    """Send what has been asked for and wait `timeout` seconds, while callbacks run: ECA_TIMEOUT."""
    _ca_face.pend_event(timeout)
    return int(_ECA.TIMEOUT)


def poll() -> int:
    """Send what has been asked for: ECA_TIMEOUT."""
    return pend_event(1e-12)


def flush_io() -> int:
    """Send what has been asked for: ECA_NORMAL."""
    return int(_ca_face.flush_io())


def _clear_up(_: Any = None) -> None:
    with _lock:
        _outstanding.clear()


_ca_face.register_clear_cache(_clear_up)

__all__ = [
    *(key for key in list(globals()) if not key.startswith("_") and key not in ("annotations",)),
]
