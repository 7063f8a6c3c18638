"""Tim Mooney's ``ca_util``: functions of a PV's name over `CaChannel`, with retries and a check of what was written.

Differences
    A wait uses no polling, and messages are printed as there. ``caput`` checks by reading back once, after the put has
    been sent, on the same circuit.

Threads
    Any. Callbacks of ``camonitor`` run on epicsx's dispatcher.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from .. import ca as _ca_face
from ..utils import bytes2str
from . import CaChannel as _module
from . import _cachannel_ca as ca
from .CaChannel import CaChannel, CaChannelException

__all__ = [
    *("EXCEPTION_NOT_CONNECTED", "EXCEPTION_NULL_NAME", "EXCEPTION_READBACK_DISAGREES", "ca"),
    *("ca_states", "ca_utilException", "ca_utilExceptionStrings", "cadict", "cadictEntry"),
    *("caget", "camonitor", "caput", "caputw", "castate", "caunmonitor", "checkName"),
    *("convertToType", "defaultRetries", "defaultTimeout", "endianUs", "formatExceptionInfo"),
    *("get_ca_util_default_read_check_tolerance", "get_ca_util_default_retries"),
    *("get_ca_util_default_timeout", "get_ca_util_defaults", "isNumber", "printExceptionInfo"),
    *("readCheckTolerance", "same", "set_ca_util_default_read_check_tolerance"),
    *("set_ca_util_default_retries", "set_ca_util_default_timeout", "set_ca_util_defaults"),
    *("test_monitor_function", "version"),
]

version = "3.0"

ca_states = {
    0: "never connected",
    1: "previously connected",
    2: "connected",
    3: "closed",
    4: "never searched",
}

EXCEPTION_NULL_NAME = 0
EXCEPTION_READBACK_DISAGREES = 1
EXCEPTION_NOT_CONNECTED = 2

ca_utilExceptionStrings = [
    "No name was provided.",
    "Readback disagrees with put value.",
    "PV is not connected.",
]


class ca_utilException(Exception):
    """What went wrong: ``errorNumber`` is one of the constants ``EXCEPTION_*``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.errorNumber = int(args[0])

    def __int__(self) -> int:
        return self.errorNumber

    def __str__(self) -> str:
        return ca_utilExceptionStrings[self.errorNumber]


# ------------------------------------------------------------------- defaults

defaultTimeout: Any = None
"""Seconds that each operation waits; None is CaChannel's own."""

defaultRetries: Any = 3
"""How often what failed is tried again."""

readCheckTolerance: Any = None
"""How far a number read back may be from what was written; None does not check."""

_DEFAULTS = ("defaultTimeout", "defaultRetries", "readCheckTolerance")


def _exchange(name: str, value: Any) -> Any:
    old = globals()[name]
    globals()[name] = value
    return old


def get_ca_util_defaults() -> list[Any]:
    """The defaults: timeout, retries, read-check tolerance."""
    return [globals()[name] for name in _DEFAULTS]


def set_ca_util_defaults(
    timeout: Any = None, retries: Any = None, read_check_tolerance: Any = None
) -> list[Any]:
    """Set defaults, those that are not None, and give back the old ones. Takes what that gave, as one list, too.

    The text ``"NONE"`` disables one.
    """
    old = get_ca_util_defaults()
    given = timeout if isinstance(timeout, list) else [timeout, retries, read_check_tolerance]
    for name, value in zip(_DEFAULTS, given, strict=True):
        if value is not None:
            _exchange(name, value)
    return old


def set_ca_util_default_timeout(timeout: Any = None) -> Any:
    """Set the default timeout, and give back the old one."""
    return _exchange("defaultTimeout", timeout)


def get_ca_util_default_timeout() -> Any:
    """The default timeout."""
    return defaultTimeout


def set_ca_util_default_retries(retries: Any = None) -> Any:
    """Set the default number of retries, and give back the old one."""
    return _exchange("defaultRetries", retries)


def get_ca_util_default_retries() -> Any:
    """The default number of retries."""
    return defaultRetries


def set_ca_util_default_read_check_tolerance(read_check_tolerance: Any = None) -> Any:
    """Set the default tolerance, and give back the old one."""
    return _exchange("readCheckTolerance", read_check_tolerance)


def get_ca_util_default_read_check_tolerance() -> Any:
    """The default tolerance."""
    return readCheckTolerance


def _given(value: Any, default: Any) -> Any:
    """An argument, or its default; None for the text ``"NONE"``."""
    found = default if value is None else value
    return None if found == "NONE" else found


def _attempts(retries: Any) -> int:
    return 1 + max(0, int(_given(retries, defaultRetries) or 0))


# ------------------------------------------------------------------- channels


class cadictEntry:
    """A connected channel, and what is known of it."""

    def __init__(self, channel: CaChannel) -> None:
        self.channel = channel
        self.callbackReceived = 0
        self.field_type = channel.field_type()
        self.element_count = channel.element_count()


cadict: dict[str, cadictEntry] = {}
"""The channels of the names used so far."""

_ca_face.register_clear_cache(cadict.clear)


def _need_name(function: str, name: Any) -> None:
    if not name:
        print(f"{function}: no PV name supplied")
        raise ca_utilException(EXCEPTION_NULL_NAME)


def checkName(name: str, timeout: Any = None, retries: Any = None) -> None:
    """Connect to a PV, if need be with retries, or raise CaChannelException."""
    if not name:
        raise ca_utilException(EXCEPTION_NULL_NAME)
    _entry(name, timeout, _attempts(retries))


def _entry(name: str, timeout: Any, attempts: int) -> cadictEntry:
    """The channel of that name, connected."""
    known = cadict.get(name)
    if known is not None and known.channel.state() == 2:
        return known
    timeout = _given(timeout, defaultTimeout)
    channel = CaChannel() if known is None else known.channel
    for attempt in range(attempts):
        channel.setTimeout(timeout)
        try:
            if known is None:
                channel.searchw(name)
            else:  # it comes back by itself
                channel._handle().connect(channel.getTimeout())
            break
        except (CaChannelException, TimeoutError) as error:
            if attempt == attempts - 1:
                print(f"ca_util.checkName: Can't connect to '{name}'")
                raise _module._failure(error) from error
    made = cadict[name] = cadictEntry(channel)
    return made


def castate(name: str | None = None, timeout: Any = None, retries: Any = None) -> str:
    """The state of a PV's connection as words, with ``, noread`` and ``, nowrite``. Raises nothing."""
    if not name:
        return "Null name has no state"
    try:
        channel = _entry(name, timeout, _attempts(retries)).channel
    except CaChannelException:
        return "not connected"
    found = ca_states.get(channel.state(), "unknown state")
    if not channel.read_access():
        found += ", noread"
    if not channel.write_access():
        found += ", nowrite"
    return found


def _tries(name: str, timeout: Any, retries: Any, act: Callable[[cadictEntry], Any]) -> Any:
    """What `act` gives for a connected channel, tried again where it fails."""
    attempts = _attempts(retries)
    for attempt in range(attempts):
        entry = _entry(name, timeout, attempts)
        wanted = _given(timeout, defaultTimeout)
        if wanted is not None:
            entry.channel.setTimeout(wanted)
        try:
            return act(entry)
        except CaChannelException:
            if attempt == attempts - 1:
                raise
    raise AssertionError("there is one attempt at least")


# ------------------------------------------------------------------ functions


def caget(
    name: str,
    timeout: Any = None,
    retries: Any = None,
    req_type: int | None = None,
    req_count: int | None = None,
) -> Any:
    """The value of a PV, read now.

    Parameters
    ----------
    timeout, retries : float, int
        None is the module's default, ``"NONE"`` none.
    req_type, req_count : int
        What to ask for: ``ca.DBR_*``, and at most so many elements.

    Raises
    ------
    CaChannelException
        All attempts failed.
    ca_utilException
        The name is empty.
    """
    _need_name("caget", name)
    return _tries(name, timeout, retries, lambda entry: entry.channel.getw(req_type, req_count))


def caput(
    name: str,
    value: Any,
    timeout: Any = None,
    req_type: int | None = None,
    retries: Any = None,
    read_check_tolerance: Any = None,
) -> None:
    """Write to a PV, and check that it arrived if a tolerance is given or set.

    Raises
    ------
    CaChannelException
        All attempts failed.
    ca_utilException
        The name is empty, or what was read back is not what was written.
    """
    _caput("caput", name, value, None, timeout, req_type, retries, read_check_tolerance)


def caputw(
    name: str,
    value: Any,
    wait_timeout: float | None = None,
    timeout: Any = None,
    req_type: int | None = None,
    retries: Any = None,
    read_check_tolerance: Any = None,
) -> None:
    """Write to a PV as ``caput`` does, and wait, `wait_timeout` seconds at most, until the record has finished.

    Raises
    ------
    CaChannelException
        The server refused the write, or its circuit was lost meanwhile.
    """
    _caput("caputw", name, value, wait_timeout, timeout, req_type, retries, read_check_tolerance)


def _caput(
    function: str,
    name: str,
    value: Any,
    wait_timeout: float | None,
    timeout: Any,
    req_type: int | None,
    retries: Any,
    read_check_tolerance: Any,
) -> None:
    _need_name(function, name)
    tolerance = _given(read_check_tolerance, readCheckTolerance)
    finished = threading.Event()
    outcome: list[int] = []

    def write(entry: cadictEntry) -> None:
        entry.callbackReceived = 0
        if function == "caput":
            entry.channel.putw(value, req_type)
            return

        def done(args: Any, user_args: Any) -> None:
            entry.callbackReceived = 1
            outcome.append(args["status"])
            finished.set()

        entry.channel.array_put_callback(value, req_type, None, done)

    _tries(name, timeout, retries, write)
    if tolerance is not None:
        _check(function, name, value, timeout, req_type, retries, tolerance)
    if function == "caputw" and not finished.wait(wait_timeout or None):
        print(f"Execution not completed by wait_timeout ({wait_timeout} seconds)")
    if outcome and outcome[-1] != ca.ECA_NORMAL:
        raise _module.CaChannelException(outcome[-1])


def _check(
    function: str,
    name: str,
    value: Any,
    timeout: Any,
    req_type: int | None,
    retries: Any,
    tolerance: Any,
) -> None:
    native = caget(name, timeout, retries)
    kind = cadict[name].field_type
    readback = native
    characters = (
        kind == ca.dbf_text_to_type("DBF_CHAR") and cadict[name].channel.element_count() > 1
    )
    if req_type is None and characters and isinstance(value, (str, bytes)):
        readback = caget(name, timeout, retries, ca.dbr_text_to_type("DBR_STRING"))
        if bytes2str(value) == readback:
            return
    elif req_type is not None or kind == ca.dbf_text_to_type("DBF_ENUM"):
        readback = caget(name, timeout, retries, 0 if req_type is None else req_type)
    if not same(value, readback, native, kind, tolerance):
        print(f"{function}: readback '{readback}' disagrees with the value '{value}' we wrote.")
        raise ca_utilException(EXCEPTION_READBACK_DISAGREES)


def camonitor(
    name: str,
    function: Callable[[Any, Any], Any] | None,
    user_args: Any = None,
    timeout: Any = None,
    retries: Any = None,
) -> None:
    """Have ``function(epics_args, (user_args,))`` called for every change of a PV's value; by default with its name."""
    _need_name("camonitor", name)
    if not function:
        print("camonitor: no callback function supplied")
        raise ca_utilException(EXCEPTION_NULL_NAME)
    user_args = user_args or name

    def act(entry: cadictEntry) -> None:
        entry.channel.add_masked_array_event(None, None, 1, function, user_args)

    _tries(name, timeout, retries, act)


def caunmonitor(name: str, timeout: Any = None) -> None:
    """End what ``camonitor`` began."""
    _need_name("caunmonitor", name)
    if name not in cadict:
        print(f"ca_util has no connection to '{name}'")
        raise ca_utilException(EXCEPTION_NOT_CONNECTED)
    cadict[name].channel.clear_event()


def test_monitor_function(epics_args: Any, user_args: Any) -> None:
    """Print what a callback of ``camonitor`` is called with."""
    print("test_monitor_function:")
    print("...epics_args: ", repr(epics_args))
    print("...user_args: ", repr(user_args))


test_monitor_function.__test__ = False  # type: ignore[attr-defined]  # not a test


# -------------------------------------------------------------------- helpers


def isNumber(s: Any) -> bool:
    """Whether it can be made an integer."""
    try:
        int(s)
    except (TypeError, ValueError):
        return False
    return True


def convertToType(type: int, value: Any) -> Any:
    """A value as a DBR type has it: text, integer or number; 0 for what is no number."""
    kinds: dict[int, Any] = {0: str, 1: int, 5: int, 2: float, 6: float}
    kind = kinds.get(type)
    if kind is None:
        return value
    try:
        return kind(value)
    except (TypeError, ValueError):
        return kind(0)


def same(
    value: Any, readback: Any, native_readback: Any, field_type: int, read_check_tolerance: Any
) -> bool:
    """Whether what was read back is what was written."""
    if hasattr(value, "__len__") and not isinstance(value, (str, bytes)):
        items = readback if hasattr(readback, "__len__") else [readback]
        return len(items) >= len(value) and all(
            same(a, b, b, field_type, read_check_tolerance)
            for a, b in zip(value, items, strict=False)
        )
    if field_type in (2, 6):
        return bool(abs(float(readback) - float(value)) < read_check_tolerance)
    if field_type in (1, 5):
        return int(readback) == int(value)
    if field_type == 3 and str(value) == str(native_readback):
        return True
    return str(value) == str(readback)


def endianUs() -> str:
    """``'Little Endian'`` or ``'Big Endian'``."""
    return f"{sys.byteorder.capitalize()} Endian"


def formatExceptionInfo(maxTBlevel: int = 5) -> tuple[str, Any, list[str]]:
    """The name, the arguments and the traceback of the exception that is being handled."""
    _, error, trace = sys.exc_info()
    args = getattr(error, "args", "<no args>")
    return type(error).__name__, args, traceback.format_tb(trace, maxTBlevel)


def printExceptionInfo(maxTBlevel: int = 15) -> None:
    """Print the exception that is being handled."""
    name, args, trace = formatExceptionInfo(maxTBlevel)
    print(f"Unanticipated exception: {name} {args}\n")
    if trace:
        print("Traceback:")
        print("".join(trace), end="")
