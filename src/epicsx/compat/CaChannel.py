"""The interface of the package CaChannel (caPython): the class `CaChannel`, `CaChannelException`, the module `ca`.

``from epicsx.compat.CaChannel import CaChannel, CaChannelException, ca`` stands for ``from CaChannel import ...``; as a
module it stands for ``import CaChannel`` with ``CaChannel.CaChannel(name)``.

Differences
    Callbacks run on epicsx's dispatcher at any time, not only in ``pend_event``. Requests are sent at once. Times of
    DBR_TIME types count from 1990, as there (``pv_seconds``). There is no ``add_exception_event``: what fails, raises.

Threads
    Any thread may call anything. ``pend_io`` waits for the searches and reads of all threads.

Lifetime
    ``clear_channel()``, or the end of the object, ends its callbacks, its monitor and its outstanding requests.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _channel, _chids
from .. import ca as _ca_face
from .._version import __version__ as __version__
from ..enums import DBR, ECA
from ..errors import BadTypeError, BadValueError, CAError
from ..utils import bytes2str
from . import _cachannel_ca as ca
from ._puts import for_put, sent_as

if TYPE_CHECKING:
    from .._ca import Core, Subscription
    from .._request import Request
    from .._sample import Sample

__all__ = ["USE_NUMPY", "CaChannel", "CaChannelException", "ca"]

USE_NUMPY = False
"""Whether arrays are given as ndarray unless told otherwise; else they are lists."""

Callback = Callable[[Any, tuple[Any, ...]], Any]

_CONTROL = {
    "units": "units",
    "precision": "precision",
    **{
        f"{side}_{kind}_limit": f"{side[:2]}{short}lim"
        for side in ("upper", "lower")
        for kind, short in (("disp", "dis"), ("alarm", "alarm"), ("warning", "warn"))
    },
}
_LIMITS = {"upper_ctrl_limit": "upctrllim", "lower_ctrl_limit": "loctrllim"}


class CaChannelException(Exception):
    """What went wrong, as an ECA code: ``int(error)``, and its text."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status)
        self.status = int(status)
        self._text = text

    def __int__(self) -> int:
        return self.status

    def __str__(self) -> str:
        return self._text or ca.message(self.status)


def _failure(error: BaseException) -> CaChannelException:
    """An error as this module raises it."""
    status = getattr(error, "status", None)
    if status is None:
        kinds = (
            ((BadTypeError, TypeError), ECA.BADTYPE),
            ((BadValueError, ValueError), ECA.BADCOUNT),
        )
        status = next((code for kind, code in kinds if isinstance(error, kind)), ECA.INTERNAL)
        return CaChannelException(status, str(error))
    return CaChannelException(status)


def _chid(core: Core) -> int:
    """The number by which the functions of `ca` know a channel."""
    return int(_chids.entry(_ca_face._context(), core.name, core).chid_int)


def _told(core: Core, dbr_type: int, count: int, error: BaseException | None) -> dict[str, Any]:
    status = ECA.NORMAL if error is None else _failure(error).status
    return {"chid": _chid(core), "type": dbr_type, "count": count, "status": int(status)}


def _rights(core: Core, read: bool, write: bool) -> dict[str, Any]:
    return {"chid": _chid(core), "read_access": read, "write_access": write}


def _bare(sample: Sample, use_numpy: bool) -> Any:
    """The value alone: a scalar where one element came."""
    value = sample.value
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return value
    if sample.count == 1 or sample.dbr_type == DBR.CLASS_NAME:
        value = value[0]
        return value.item() if hasattr(value, "item") else value
    return value.tolist() if hasattr(value, "tolist") and not use_numpy else value


def _fields(sample: Sample, use_numpy: bool) -> dict[str, Any]:
    """The value and what its type brings with it, by the names of this module."""
    found = {"pv_value": _bare(sample, use_numpy)}
    kind = sample.dbr_type // 7
    if 0 < kind < 5 or sample.dbr_type == DBR.STSACK_STRING:
        found["pv_status"], found["pv_severity"] = sample.status, sample.severity
    if kind == 2:
        seconds, found["pv_nseconds"] = divmod(sample.timestamp_ns, 1_000_000_000)
        found["pv_seconds"] = seconds - ca.POSIX_TIME_AT_EPICS_EPOCH
    control = sample.control
    if kind in (3, 4) and control is not None:
        if control.enum_strings is not None:
            found["pv_nostrings"] = len(control.enum_strings)
            found["pv_statestrings"] = control.enum_strings
        for name, short in {**_CONTROL, **(_LIMITS if kind == 4 else {})}.items():
            value = getattr(control, name)
            if value is not None:
                found[f"pv_{short}"] = value
    return found


def _value(sample: Sample, use_numpy: bool) -> Any:
    return _bare(sample, use_numpy) if sample.dbr_type < 7 else _fields(sample, use_numpy)


class _Hook:
    """A user's callback that can be replaced, with his arguments."""

    def __init__(self, callback: Callback | None = None, user_args: Any = ()) -> None:
        self.callback = callback
        self.user_args = user_args

    def __call__(self, args: Any) -> None:
        if self.callback is not None:
            self.callback(args, self.user_args)


class CaChannel:
    """A channel by name: ``searchw``, ``getw``, ``putw`` wait; the others are C's functions, with callbacks.

    A callback is called as ``callback(epics_args, user_args)``; `user_args` is the tuple of all arguments given behind
    it. What fails raises `CaChannelException`.
    """

    ca_timeout = 3.0
    """Seconds that objects without a timeout of their own wait."""

    def __init__(self, pvName: str | None = None) -> None:
        self.pvname = pvName
        self._channel: _channel.Channel | None = None
        self._subscription: Subscription | None = None
        self._request: Request | None = None
        self._use_numpy = False
        self._timeout: float | None = None
        self._connection: _Hook | None = None
        self._access: _Hook | None = None

    def __del__(self) -> None:
        self.clear_channel()

    @staticmethod
    def version() -> str:
        """The version of epicsx."""
        return __version__

    def setTimeout(self, timeout: float | None) -> None:
        """Set how many seconds this object waits; None goes back to ``ca_timeout``."""
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"a timeout is not negative ({timeout})")
        self._timeout = timeout

    def getTimeout(self) -> float:
        """How many seconds this object waits."""
        return self.ca_timeout if self._timeout is None else self._timeout

    # ------------------------------------------------------------- connection

    def search(self, pvName: str | bytes | None = None) -> None:
        """Begin to connect to a PV. ``pend_io`` waits for it."""
        self._search(pvName)
        me = weakref.ref(self)

        def wait(seconds: float) -> bool:
            this = me()
            channel = None if this is None else this._channel
            return channel is None or bool(channel._core.wait_connected(seconds))

        ca.outstanding(wait)

    def search_and_connect(
        self, pvName: str | bytes | None, callback: Callback, *user_args: Any
    ) -> None:
        """Begin to connect; ``callback((chid, op), user_args)`` at each change, `op` CA_OP_CONN_UP or _DOWN."""
        self._search(pvName)
        self.change_connection_event(callback, *user_args)

    def searchw(self, pvName: str | bytes | None = None) -> None:
        """Connect to a PV, or raise."""
        self.search(pvName)
        self.pend_io()

    def _search(self, pvName: str | bytes | None) -> None:
        self.clear_channel()
        if pvName is not None:
            self.pvname = bytes2str(pvName)
        if self.pvname is None:
            raise CaChannelException(ECA.EMPTYSTR)
        self._channel = _channel.Channel(self.pvname)

    def change_connection_event(self, callback: Callback | None, *user_args: Any) -> None:
        """Have another callback, or with None none, told of the connection."""
        channel = self._handle()
        known = self._connection
        if known is not None:
            known.callback, known.user_args = callback, user_args
            return
        # The hook alone, not this object: whose end ends the channel.
        hook = self._connection = _Hook(callback, user_args)
        channel.on_connection(lambda ch, up: hook((_chid(ch._core), 6 if up else 7)))

    def replace_access_rights_event(
        self, callback: Callback | None = None, user_args: Any = None
    ) -> None:
        """Have ``callback(dict, user_args)`` told of the access rights: now, if connected, and when they change."""
        channel = self._handle()
        known = self._access
        if known is not None:
            known.callback, known.user_args = callback, user_args
            core = channel._core
            if core.connected:
                known(_rights(core, core.read_access, core.write_access))
            return
        hook = self._access = _Hook(callback, user_args)
        channel.on_access(lambda ch, read, write: hook(_rights(ch._core, read, write)))

    def clear_channel(self) -> None:
        """End the channel, its callbacks, its monitor and its requests."""
        channel, self._channel = self.__dict__.get("_channel"), None
        if channel is not None:
            self.clear_event()
            self._request = self._connection = self._access = None
            channel.close()

    def _handle(self) -> _channel.Channel:
        if self._channel is None:
            raise CaChannelException(ECA.BADCHID)
        return self._channel

    def _connected(self) -> Core:
        core = self._handle()._core
        if not core.connected:
            raise CaChannelException(ECA.DISCONNCHID)
        return core

    # ----------------------------------------------------------------- writing

    def _put(self, value: Any, req_type: int | None, count: int | None) -> tuple[Core, Any]:
        core = self._connected()
        asked = None if req_type is None or req_type < 0 else req_type
        if asked is not None and sent_as(asked) < 0:
            asked %= 7
        try:
            return core, for_put(value, core, asked, count)
        except (TypeError, ValueError) as error:
            raise _failure(error) from error

    def array_put(self, value: Any, req_type: int | None = None, count: int | None = None) -> None:
        """Write a value, or a list of them, and wait for nothing.

        Parameters
        ----------
        req_type : int
            ``ca.DBR_*``: the value is coerced to it first; None is the record's own type. ``DBR_PUT_ACKT`` and
            ``DBR_PUT_ACKS`` acknowledge alarms.
        count : int
            At most so many elements.
        """
        core, value = self._put(value, req_type, count)
        try:
            core.put(value, False, self.getTimeout(), True, self._channel, sent_as(req_type))
        except CAError as error:
            raise _failure(error) from error

    def array_put_callback(
        self,
        value: Any,
        req_type: int | None,
        count: int | None,
        callback: Callback,
        *user_args: Any,
    ) -> None:
        """Write; ``callback(dict, user_args)`` when the record has finished: chid, type, count, status."""
        core, value = self._put(value, req_type, count)
        dbr_type = core.native_type if req_type is None or req_type < 0 else req_type

        def done(request: Any) -> None:
            callback(_told(core, dbr_type, count or core.count, request.exception(0)), user_args)

        try:
            core.put_async(value, None, True, done, self._channel, dbr_type=sent_as(req_type))
        except CAError as error:
            raise _failure(error) from error

    def putw(self, value: Any, req_type: int | None = None) -> None:
        """Write a value, or a list of them, and send it."""
        self.array_put(value, req_type)

    # ----------------------------------------------------------------- reading

    def _get(
        self, req_type: int | None, count: int | None, done: Callable[[Any], None] | None
    ) -> Request:
        core = self._connected()
        dbr_type = core.native_type if req_type is None or req_type < 0 else int(req_type)
        if dbr_type == DBR.CTRL_STRING or dbr_type == DBR.GR_STRING:
            dbr_type = DBR.STS_STRING
        n = 0 if count is None else max(0, min(count, core.count))
        try:
            request: Request = core.get_async(dbr_type, n, None, self._channel, done)
        except CAError as error:
            raise _failure(error) from error
        return request

    def array_get(
        self, req_type: int | None = None, count: int | None = None, **keywords: Any
    ) -> Any:
        """Ask for the value. After ``pend_io`` it is there by ``getValue``.

        Parameters
        ----------
        req_type : int
            ``ca.DBR_*``; None is the record's own type.
        count : int
            At most so many elements.
        use_numpy : bool
            Arrays as ndarray; by default as the module's ``USE_NUMPY`` says.
        """
        self._use_numpy = bool(keywords.get("use_numpy", USE_NUMPY))
        request = self._request = self._get(req_type, count, None)

        def wait(seconds: float) -> bool:
            if not request.done() and seconds > 0:
                try:
                    request.exception(seconds)
                except CAError:
                    return False
            return request.done()

        ca.outstanding(wait)

    def getValue(self) -> Any:
        """The value that was asked for, None if it has not come; a dict if it was not asked for by a plain type."""
        request = self._request
        if request is None or not request.done():
            return None
        try:
            sample = request.result(0)
        except CAError as error:
            raise _failure(error) from error
        assert sample is not None
        return _value(sample, self._use_numpy)

    def array_get_callback(
        self,
        req_type: int | None,
        count: int | None,
        callback: Callback,
        *user_args: Any,
        **keywords: Any,
    ) -> None:
        """Ask for the value; ``callback(dict, user_args)`` when it comes: chid, type, count, status, pv_value ..."""
        use_numpy = bool(keywords.get("use_numpy", USE_NUMPY))
        core = self._connected()

        def done(request: Any) -> None:
            error = request.exception(0)
            if error is not None:
                args = {**_told(core, req_type or 0, 0, error), "pv_value": None}
            else:
                sample = request.result(0)
                args = _told(core, sample.dbr_type, sample.count, None)
                args.update(_fields(sample, use_numpy))
            callback(args, user_args)

        self._get(req_type, count, done)

    def getw(self, req_type: int | None = None, count: int | None = None, **keywords: Any) -> Any:
        """The value, read now: alone for a plain type, in a dict with the other fields for others.

        Parameters
        ----------
        req_type, count, use_numpy
            As of ``array_get``. A string type has an array of characters as a text.
        """
        as_text = self.field_type() == DBR.CHAR and req_type is not None and req_type % 7 == 0
        if as_text and req_type is not None and 0 <= req_type <= DBR.CTRL_STRING:
            req_type += DBR.CHAR
        use_numpy = bool(keywords.get("use_numpy", USE_NUMPY))
        # its own, as other threads may read by this channel too
        request = self._get(req_type, count, None)
        try:
            sample = request.result(self.getTimeout())
        except CAError as error:
            raise _failure(error) from error
        assert sample is not None
        self._request, self._use_numpy = request, use_numpy
        found = _value(sample, use_numpy)
        if as_text:
            if isinstance(found, dict):
                found["pv_value"] = _characters(found["pv_value"])
            else:
                found = _characters(found)
        return found

    # ---------------------------------------------------------------- monitors

    def add_masked_array_event(
        self,
        req_type: int | None,
        count: int | None,
        mask: int | None,
        callback: Callback,
        *user_args: Any,
        **keywords: Any,
    ) -> None:
        """Have ``callback(dict, user_args)`` called for every update, in place of a callback given before.

        Parameters
        ----------
        req_type : int
            ``ca.DBR_*``; None is the record's own type.
        count : int
            At most so many elements; None is as many as there are.
        mask : int
            Which changes are updates: ``ca.DBE_*``; None is those of value and alarm.
        """
        self.clear_event()
        core = self._connected() if req_type is None else self._handle()._core
        dbr_type = core.native_type if req_type is None else int(req_type)
        use_numpy = bool(keywords.get("use_numpy", USE_NUMPY))

        def event(sample: Sample) -> None:
            args = _told(core, sample.dbr_type, sample.count, None)
            callback({**args, **_fields(sample, use_numpy)}, user_args)

        self._subscription = core.subscribe(
            event, 5 if mask is None else mask, count or 0, "all", dbr_type
        )

    def clear_event(self) -> None:
        """End the monitor, if there is one."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    # ----------------------------------------------------------------- waiting

    def pend_io(self, timeout: float | None = None) -> None:
        """Wait for the searches and reads begun so far, or raise after `timeout` seconds."""
        status = ca.pend_io(self.getTimeout() if timeout is None else float(timeout))
        if status != ECA.NORMAL:
            raise CaChannelException(status)

    def pend_event(self, timeout: float | None = None) -> int:
        """Wait `timeout` seconds (0.1), while callbacks run: ECA_TIMEOUT."""
        return ca.pend_event(0.1 if timeout is None else timeout)

    def poll(self) -> int:
        """Send what has been asked for: ECA_TIMEOUT."""
        return ca.poll()

    def flush_io(self) -> None:
        """Send what has been asked for."""
        ca.flush_io()

    # ------------------------------------------------------------------- facts

    def field_type(self) -> int:
        """The record's type, ``ca.DBF_*``; ``ca.TYPENOTCONN`` if it is not connected."""
        channel = self._channel
        return ca.TYPENOTCONN if channel is None else int(channel._core.native_type)

    def element_count(self) -> int:
        """The record's number of elements; 0 if it is not connected."""
        return 0 if self._channel is None else self._channel.count

    def name(self) -> str | None:
        """The PV's name."""
        return self.pvname

    def state(self) -> int:
        """0 never connected, 1 connected before, 2 connected, 4 not searched for: ``ca.cs_*``."""
        return 4 if self._channel is None else int(self._channel._core.state)

    def host_name(self) -> str:
        """``host:port`` of the server; ``'<disconnected>'`` if there is none."""
        channel = self._channel
        return channel.host if channel is not None and channel.connected else "<disconnected>"

    def read_access(self) -> bool:
        """Whether the server lets us read."""
        return self._channel is not None and bool(self._channel._core.read_access)

    def write_access(self) -> bool:
        """Whether the server lets us write."""
        return self._channel is not None and bool(self._channel._core.write_access)


def _characters(value: Any) -> str:
    data = value if hasattr(value, "__len__") else [value]
    return bytes2str(bytes(int(x) & 255 for x in data).partition(b"\0")[0])
