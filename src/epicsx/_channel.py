"""The native face: channels, and many of them at once.

Threads
    Any thread may call anything here, also from callbacks. Callbacks run on the lane's dispatcher, one at a time, in
    order; only what is true already at registration is told at once, in the caller's thread.

Lifetime
    A `Channel` is a handle on a core channel that all handles of the same name share. ``close()`` ends this handle: its
    subscriptions, callbacks and outstanding requests. A Channel with callbacks is kept alive by its context until then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, overload

import numpy as np

from . import _bulk, _ca, _filters
from . import _dispatch as _dispatch  # the delivering threads: whoever uses a channel needs them
from .enums import DBE, DBR, Access
from .errors import BadTypeError, BadValueError, CAError, CATimeoutError, timed_out, unanswered

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._ca import Core, Subscription
    from ._dbr import Control
    from ._filters import Deadband, Filters, Slice
    from ._request import Request
    from ._sample import Sample
    from ._streams import Stream, StreamOptions
    from .counts import ChannelStats

__all__ = ["Channel", "connect", "get_many", "put_many"]

_DTYPES = {
    np.dtype(np.int16): DBR.SHORT,
    np.dtype(np.float32): DBR.FLOAT,
    np.dtype(np.uint16): DBR.ENUM,
    np.dtype(np.uint8): DBR.CHAR,
    np.dtype(np.int32): DBR.LONG,
    np.dtype(np.float64): DBR.DOUBLE,
}


def _dbr_type(dtype: Any, core: Core) -> int:
    """-1 for the record's own type, else the DBR type to ask for."""
    if dtype is None:
        return -1
    if dtype is str:
        return DBR.TIME_STRING
    if isinstance(dtype, (DBR, int)) and not isinstance(dtype, bool):
        return int(dtype)
    try:
        native = _DTYPES[np.dtype(dtype)]
    except (KeyError, TypeError):
        raise BadTypeError(
            f"'{core.name}': Channel Access has no type for {dtype!r}; "
            "it has str, int16, int32, float32, float64, uint8, uint16 (an enum), and the members of DBR",
            name=core.name,
        ) from None
    return DBR.TIME_STRING + int(native)


class _Facts:
    """What a closed handle still knows of its channel."""

    connected = read_access = write_access = False
    connects = 0

    def __init__(self, core: Core) -> None:
        self.name = core.name
        self.host = core.host
        self.native_type = core.native_type
        self.count = core.count
        self.stats = core.stats


class Channel:
    """A PV by name: connect, get, put, subscribe. Searching starts at once, in the background.

    Parameters
    ----------
    name : str
        The PV.
    priority : int, 0 to 99
        Channels of another priority have a circuit of their own.
    lane : 'auto', 'default' or 'bulk'
        Where subscriptions go: 'auto' sends those of more than 256 KiB an event over a channel of their own in the bulk
        lane, which has its own circuit and its own dispatcher; the others force one or the other. Connection, get, put
        and control data are always those of the default lane.
    on_connection, on_access : callable
        As the methods of these names.
    """

    def __init__(
        self,
        name: str,
        *,
        priority: int = 0,
        lane: Literal["auto", "default", "bulk"] = "auto",
        on_connection: Callable[[Channel, bool], object] | None = None,
        on_access: Callable[[Channel, bool, bool], object] | None = None,
    ) -> None:
        _check_lane(name, lane)
        if not isinstance(name, str):
            raise BadTypeError(f"a PV name is a str, not {type(name).__name__}")
        self._core = _ca.core(name, priority)
        self._lane: Literal["auto", "default", "bulk"] = lane
        self._closed = False
        self._subscriptions: set[Subscription] = set()
        self._many = 16  # from so many on, look which have been closed
        self._connection: list[list[Any]] = []  # [callback, what it was told last]
        self._access: list[list[Any]] = []
        if on_connection is not None:
            self.on_connection(on_connection)
        if on_access is not None:
            self.on_access(on_access)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "not connected"
        return f"<Channel {self.name!r}, {state}>"

    def _open(self) -> Core:
        if self._closed:
            raise CAError(f"this handle of '{self.name}' has been closed", name=self.name)
        return self._core

    # ---- facts

    @property
    def name(self) -> str:
        """The PV's name."""
        return self._core.name

    @property
    def connected(self) -> bool:
        """Whether the channel is connected now."""
        return not self._closed and self._core.connected

    @property
    def host(self) -> str:
        """``host:port`` of the server that has the PV; empty before the first connect.

        The host is its address until DNS has named it. Then it is the name as soon as another channel connects there.
        """
        return self._core.host

    @property
    def native_type(self) -> DBR | None:
        """The record's type as Channel Access serves it; None before the first connect."""
        native = self._core.native_type
        return DBR(native) if native >= 0 else None

    @property
    def count(self) -> int:
        """The record's number of elements; 0 before the first connect."""
        return self._core.count

    @property
    def access(self) -> Access:
        """What the server lets us do now."""
        return Access(self._core.read_access + 2 * self._core.write_access)

    @property
    def stats(self) -> ChannelStats:
        """One consistent copy of the channel's counts, over all its subscriptions, of every handle.

        ``received == delivered + merged + dropped + pending``, always; and disconnects, rejected puts, decode errors.
        """
        return self._core.stats

    # ---- connection

    def connect(self, timeout: float | None = 5.0) -> Channel:
        """The channel itself, connected.

        Raises
        ------
        CATimeoutError
            No connection within `timeout` seconds.
        """
        core = self._open()
        if not core.connected and not self._wait_connected(timeout):
            raise self._unconnected(timeout)
        return self

    def _wait_connected(self, timeout: float | None) -> bool:
        return self._core.wait_connected(timeout)

    def _unconnected(self, timeout: float | None) -> CAError:
        core = self._core
        why = f"{core.host} was lost" if core.connects else unanswered()
        return timed_out(core.name, "connecting", timeout or 0.0, why)

    def on_connection(self, callback: Callable[[Channel, bool], object]) -> None:
        """Have ``callback(channel, connected)`` called: now if it is connected already, then at each change."""
        entry = self._listen(self._connection, callback)
        if self._core.connected:
            self._tell_present(entry, lambda: (self._core.connected,))

    def on_access(self, callback: Callable[[Channel, bool, bool], object]) -> None:
        """Have ``callback(channel, read, write)`` called: now if it is connected already, then at each change."""
        entry = self._listen(self._access, callback)
        if self._core.connected:
            self._tell_present(entry, lambda: (self._core.read_access, self._core.write_access))

    def _listen(self, entries: list[list[Any]], callback: Callable[..., object]) -> list[Any]:
        core = self._open()
        if not callable(callback):
            raise BadTypeError(f"'{self.name}': a callback must be callable", name=self.name)
        first = not self._connection and not self._access
        if first:
            core.listen(self)
            core.context.pin(self)
        entry = [callback, None]
        entries.append(entry)
        if self._closed:  # by another thread, which may have missed this one
            core.unlisten(self)
            core.context.unpin(self)
        return entry

    def _tell_present(self, entry: list[Any], present: Callable[[], tuple[bool, ...]]) -> None:
        # Only the new one: the others hear from the dispatcher. News that came since the look may have found it not
        # told yet, so look again.
        news: tuple[bool, ...] = ()
        while news != (now := present()):
            news = now
            self._tell([entry], news)

    def _tell(self, entries: list[list[Any]], news: tuple[bool, ...]) -> None:
        for entry in list(entries):
            if entry[1] == news or (entry[1] is None and news == (False,)):
                continue  # told already, by whoever saw it first
            entry[1] = news
            try:
                entry[0](self, *news)
            except Exception:  # noqa: BLE001 - a user's: counted, logged
                _ca.callback_failed(self._core, self.name)

    def _on_core_connection(self, connected: bool, native_type: int) -> None:
        self._tell(self._connection, (connected,))

    def _on_core_access(self, read: bool, write: bool) -> None:
        self._tell(self._access, (read, write))

    # ---- values

    def get(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0, out: Any = None
    ) -> Sample:
        """The value as the server has it now, with stamp and alarm. Connects first; raises, never returns None.

        Parameters
        ----------
        dtype : None, str, a numpy dtype or a DBR
            What to ask for; None is the record's own type, ``str`` its text as the server makes it.
        count : int
            At most so many elements; 0 is as many as it has now.
        timeout : float, seconds
            For all of it, connecting included; None waits for ever.
        out : buffer
            A writable, contiguous buffer of the served type: libca's thread copies straight into it, and
            ``Sample.value`` is the filled part. Nothing is written to it after the call returned, whatever happened.

        Raises
        ------
        CATimeoutError, DisconnectedError, AccessError, ServerError
            By what went wrong.
        BadTypeError, BadValueError
            For a `dtype`, `count` or `out` that does not fit; nothing has been sent, or nothing written.
        """
        core = self._open()
        if count < 0:
            raise BadValueError(
                f"get of '{self.name}': a count is not negative ({count})", name=self.name
            )
        return core.get(_dbr_type(dtype, core), count, timeout, out, self)

    def get_async(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0
    ) -> Request:
        """A `Request` for the value of a connected channel, sent."""
        core = self._open()
        request: Request = core.get_async(_dbr_type(dtype, core), count, timeout, self)
        return request

    def put(
        self,
        value: Any,
        *,
        wait: bool = False,
        timeout: float | None = 5.0,
        callback: Callable[[BaseException | None], object] | None = None,
    ) -> None:
        """Write `value`. Connects first; bad input is refused before anything is sent.

        Without `wait` the first put leaves at once; those that follow within 250 us leave together when they are over.

        Parameters
        ----------
        wait : bool
            Return when the record has finished processing.
        callback : callable
            Called on the dispatcher with None, or with the error, when the record has finished.

        Raises
        ------
        BadTypeError, BadValueError, AccessError
            Nothing has been sent.
        PutError
            The server refused it.
        CATimeoutError, DisconnectedError
            With `wait`: no answer; ``outcome_unknown`` says that it may have been carried out.
        """
        core = self._open()
        if callback is None:
            core.put(value, wait, timeout, False, self)
            return
        if not core.connected:
            self.connect(timeout)
        request = core.put_async(value, timeout, False, lambda r: callback(r.exception(0)), self)
        if wait:
            request.result(None)

    def put_async(self, value: Any, *, timeout: float | None = 5.0) -> Request:
        """A `Request` for a put to a connected channel, sent; done when the record has finished processing."""
        request: Request = self._open().put_async(value, timeout, False, None, self)
        return request

    def control(self, timeout: float | None = 5.0) -> Control:
        """Units, limits, precision, enum names: asked for once, then kept up to date by the server."""
        return self._open().control(timeout)

    def subscribe(
        self,
        callback: Callable[[Sample], object],
        *,
        mask: int = DBE.VALUE | DBE.ALARM,
        count: int = 0,
        queue: Literal["all", "latest"] | int = "all",
        lane: Literal["auto", "default", "bulk"] | None = None,
    ) -> Subscription:
        """Have ``callback(sample)`` called on the dispatcher for every update, from now on.

        Parameters
        ----------
        mask : DBE
            Which changes count.
        count : int
            At most so many elements; 0 is as many as there are.
        queue : 'all', 'latest' or int
            What may wait for a slow callback: 10 000 updates (of arrays 64 MiB), only the newest, or so many. What does
            not fit is counted in the subscription's ``dropped`` or ``merged``.
        lane : 'auto', 'default', 'bulk' or None
            As of the channel; None: the channel's own. Callbacks of the bulk lane run on a dispatcher of their own.
        """
        if count < 0:
            raise BadValueError(f"'{self.name}': a count is not negative ({count})", name=self.name)
        lane = lane or self._lane
        _check_lane(self.name, lane)
        made = self._open().subscribe(callback, mask, count, queue, lane=lane)
        if len(self._subscriptions) >= self._many:
            for each in list(self._subscriptions):
                if each.closed:
                    self._subscriptions.discard(each)
            self._many = 16 + 2 * len(self._subscriptions)
        self._subscriptions.add(made)
        if self._closed:  # by another thread, meanwhile
            made.close()
        return made

    def stream(self, **options: Unpack[StreamOptions]) -> Stream:
        """A `Stream` of the PV's frames; `epicsx.stream` tells the options."""
        self._open()
        # Streams stand above channels: the package's table of names has them.
        made: Stream = sys.modules[__package__].stream(self, **options)
        return made

    # ---- the same from coroutines

    async def aconnect(self, timeout: float | None = 5.0) -> Channel:
        """As ``connect``, from a coroutine: the event loop goes on meanwhile."""
        # Event loops stand above channels: the package's table of modules has them.
        connected: Channel = await sys.modules[__package__].aio.aconnect(self, timeout)
        return connected

    async def aget(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0
    ) -> Sample:
        """As ``get``, from a coroutine: the event loop goes on meanwhile, and its own timer keeps the time."""
        found: Sample = await sys.modules[__package__].aio.aget(self, dtype, count, timeout)
        return found

    async def aput(self, value: Any, *, wait: bool = False, timeout: float | None = 5.0) -> None:
        """As ``put``, from a coroutine. More than 256 KiB are copied and handed over by a thread of their own."""
        await sys.modules[__package__].aio.aput(self, value, wait, timeout)

    # ---- filters

    __iter__: ClassVar[None] = (
        None  # `__getitem__` alone would make it an endless sequence of channels
    )
    __contains__: ClassVar[None] = None

    @property
    def filtered(self) -> Literal["server", "client"] | None:
        """Where its updates are filtered; None: nowhere."""
        return "server" if _filters.has_filters(self.name) else None

    def filter(
        self,
        deadband: Deadband | None = None,
        every: int | None = None,
        slice: Slice | None = None,
        *,
        client_side: bool = False,
        timeout: float | None = 5.0,
    ) -> Channel:
        """A channel to the same PV whose server sends only these updates, or elements.

        The server filters for this client alone. ``get`` answers whatever the value, but sliced. Filters may be put on
        a filtered channel, but each only once; they work in the order in which they were put on, the slice last.

        If the server has the PV but no such filters, what needs a connection raises a `ServerError` that says so, once
        its time-out is over.

        Parameters
        ----------
        deadband : float or str
            Only changes by more than this, and changes of the alarm; a text such as ``"5%"`` is relative to the last
            value told. The first value always comes. Of no effect for arrays and texts.
        every : int
            Only every n-th update, beginning with the first.
        slice : slice, int or (start, stop[, step])
            Only these elements of an array. ``channel[2:5]`` is short for it. A put is refused: an IOC writes what is
            put through a slice to the start of the array.
        client_side : bool
            Wait until the server is known to have the filters, at most `timeout` seconds. If it has not, do their work
            here: the server sends everything, and an update that is held back counts as delivered, to the filter.
            ``Subscription.latest`` is the newest of all then, and there is no ``get_async`` of a slice.
        timeout : float, seconds
            For `client_side` alone.

        Raises
        ------
        BadTypeError, BadValueError
            For what filters cannot express, as in `filter_name`.
        CATimeoutError
            With `client_side`: no server has the PV.
        """
        self._open()
        return self._filter(
            _filters.filters_of(self.name, deadband, every, slice), client_side, timeout
        )

    def _filter(self, filters: Filters, client_side: bool, timeout: float | None) -> Channel:
        if not filters:
            return Channel(self.name, priority=self._core.priority, lane=self._lane)
        made = _ServerFiltered(self, filters)
        if not client_side or made._has_filters(timeout):
            return made
        made.close()
        return _ClientFiltered(self, filters)

    def __getitem__(self, chosen: Slice) -> Channel:
        """A channel to these elements of an array: ``filter(slice=chosen)``."""
        return self.filter(slice=chosen)

    # ---- end

    def close(self) -> None:
        """End this handle: its subscriptions, callbacks and outstanding requests. Other handles go on. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()
        if self._connection or self._access:
            self._core.unlisten(self)
            self._core.context.unpin(self)
        self._connection, self._access, self._subscriptions = [], [], set()
        _ca.end_requests(self._core, self)
        # A closed handle that is kept does not keep the channel open: it goes on with a copy of the facts.
        self._core = cast("Core", _Facts(self._core))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check_lane(name: str, lane: str) -> None:
    if lane not in ("auto", "default", "bulk"):
        raise BadValueError(
            f"'{name}': lane is 'auto', 'default' or 'bulk', not {lane!r}", name=name
        )


class _Filtered(Channel):
    """What the channels with filters share: the filters put on, and what is not possible through them."""

    _filters: Filters

    def _check_put(self) -> None:
        if "arr" in self._filters:
            raise BadValueError(
                f"put to '{self.name}': a slice is for reading; an IOC would write it to the start of the array",
                name=self.name,
            )

    def put(self, value: Any, **how: Any) -> None:
        self._check_put()
        super().put(value, **how)

    def put_async(self, value: Any, *, timeout: float | None = 5.0) -> Request:
        self._check_put()
        return super().put_async(value, timeout=timeout)

    async def aput(self, value: Any, *, wait: bool = False, timeout: float | None = 5.0) -> None:
        self._check_put()
        await super().aput(value, wait=wait, timeout=timeout)

    def _answer(self, found: Any) -> Any:
        """What this channel makes of a sample, or of an error, of its core."""
        return found


class _ServerFiltered(_Filtered):
    """A channel to a filtered name. The plain channel stands by, to tell whether the server lacks the filters."""

    # seconds within which a server that has the plain name has answered for the other, too
    _PATIENCE = 1.0

    def __init__(self, plain: Channel, filters: Filters) -> None:
        name = _filters.joined(plain.name, filters)
        priority = plain._core.priority
        super().__init__(name, priority=priority, lane=plain._lane)
        self._plain = Channel(plain.name, priority=priority, lane=plain._lane)
        self._filters = filters
        self._seen: float | None = None  # since when the plain name is known to be connected
        self._lacks()

    def _filter(self, filters: Filters, client_side: bool, timeout: float | None) -> Channel:
        return self._plain._filter(_both(self, filters), client_side, timeout)

    def _lacks(self, patience: float = _PATIENCE) -> bool:
        """Whether the plain name has been connected for that long, while this one has never been."""
        now = monotonic()
        if self._closed or self._core.connects or not self._plain.connected:
            self._seen = None
        elif self._seen is None:
            self._seen = now
        return self._seen is not None and now - self._seen >= patience

    def _has_filters(self, timeout: float | None) -> bool:
        """Whether the server has the filters, as soon as that is known."""
        core, deadline = self._core, _deadline(timeout)
        while not core.wait_connected(0.05):
            if self._lacks(self._PATIENCE if timeout is None else min(timeout, self._PATIENCE)):
                return False
            if _left(deadline) == 0.0:
                if self._plain.connected:
                    return False  # not known for sure, but it does no harm
                raise self._plain._unconnected(timeout)
        return True

    def _wait_connected(self, timeout: float | None) -> bool:
        core, deadline = self._open(), _deadline(timeout)  # another thread may close this handle
        while True:
            left = _left(deadline)
            if core.wait_connected(0.25 if left is None else min(left, 0.25)):
                return True
            lacks = self._lacks(5.0 if left is None else self._PATIENCE)
            if left == 0.0 or (left is None and lacks):  # no filters come to who waits for ever
                return False

    def _answer(self, found: Any) -> Any:
        lacking = isinstance(found, CATimeoutError) and self._lacks()
        return self._unconnected(0.0) if lacking else found

    def _unconnected(self, timeout: float | None) -> CAError:
        if self._lacks():
            return _filters.no_filters(self._plain.name, self._plain.host, self.name)
        return super()._unconnected(timeout)

    def get(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0, out: Any = None
    ) -> Sample:
        return super().get(dtype, count, timeout=self._reached(timeout), out=out)

    def put(self, value: Any, *, timeout: float | None = 5.0, **how: Any) -> None:
        self._check_put()
        super().put(value, timeout=self._reached(timeout), **how)

    def control(self, timeout: float | None = 5.0) -> Control:
        return super().control(self._reached(timeout))

    def _reached(self, timeout: float | None) -> float | None:
        """What is left of a time-out when it is connected."""
        if self.connected:
            return timeout
        deadline = _deadline(timeout)
        self.connect(timeout)
        return _left(deadline)

    def close(self) -> None:
        super().close()
        self._plain.close()


class _ClientFiltered(_Filtered):
    """A channel to the plain name that does itself what the server's filters would."""

    def __init__(self, plain: Channel, filters: Filters) -> None:
        super().__init__(plain.name, priority=plain._core.priority, lane=plain._lane)
        self._filters = filters

    @property
    def filtered(self) -> Literal["client"]:
        return "client"

    @property
    def count(self) -> int:
        whole = self._core.count
        return whole if whole <= 1 else self._kept(whole)

    def _kept(self, count: int) -> int:
        arr = self._filters.get("arr")
        return count if arr is None else len(range(*_filters.chosen(arr, count).indices(count)))

    def _filter(self, filters: Filters, client_side: bool, timeout: float | None) -> Channel:
        return _ClientFiltered(self, _both(self, filters))

    def get(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0, out: Any = None
    ) -> Sample:
        if "arr" not in self._filters:
            return super().get(dtype, count, timeout=timeout, out=out)
        if out is not None:
            raise BadValueError(
                f"get of '{self.name}': out= needs a slice that the server makes", name=self.name
            )
        if count < 0:
            return super().get(dtype, count)  # which refuses it
        return self._part(super().get(dtype, timeout=timeout), count)

    def get_async(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0
    ) -> Request:
        if "arr" in self._filters:
            raise BadValueError(
                f"get of '{self.name}': get_async needs a slice that the server makes",
                name=self.name,
            )
        return super().get_async(dtype, count, timeout=timeout)

    async def aget(
        self, dtype: Any = None, count: int = 0, *, timeout: float | None = 5.0
    ) -> Sample:
        sliced = "arr" in self._filters and count >= 0
        found = await super().aget(dtype, 0 if sliced else count, timeout=timeout)
        return self._part(found, count)

    def _part(self, sample: Sample, count: int = 0) -> Sample:
        arr = self._filters.get("arr")
        if arr is None or self._core.count <= 1:
            return sample
        chosen = _filters.chosen(arr, sample.count)
        if count:
            chosen = slice(
                chosen.start, min(chosen.stop, chosen.start + count * arr["i"]), arr["i"]
            )
        return sample.part(chosen, self.count == 1)

    def _answer(self, found: Any) -> Any:
        return found if isinstance(found, BaseException) else self._part(found)

    def subscribe(
        self,
        callback: Callable[[Sample], object],
        *,
        mask: int = DBE.VALUE | DBE.ALARM,
        count: int = 0,
        queue: Literal["all", "latest"] | int = "all",
        lane: Literal["auto", "default", "bulk"] | None = None,
    ) -> Subscription:
        # Of a slice, so many elements are to be left; the server counts from the start of the array.
        left = count if "arr" in self._filters and count > 0 else 0
        core, gate = self._open(), _filters.Gate(self._filters)

        def filtering(sample: Sample) -> None:
            if gate.passes(sample, core.connects):
                callback(self._part(sample, left))

        if not callable(callback):
            raise BadTypeError(f"'{self.name}': a callback must be callable", name=self.name)
        return super().subscribe(filtering, mask=mask, count=count - left, queue=queue, lane=lane)


def _both(channel: _Filtered, more: Mapping[str, Any]) -> Filters:
    for key in more:
        if key in channel._filters:
            raise BadValueError(f"'{channel.name}' has a filter {key!r} already", name=channel.name)
    return {**channel._filters, **more}


def _cores(items: Sequence[str | Channel]) -> list[Core]:
    if isinstance(items, (str, bytes)):
        raise BadTypeError("a list of names is wanted, not one name")
    return [i._open() if isinstance(i, Channel) else _ca.core(i) for i in items]


def _missing(missing: Sequence[Core], of: int, timeout: float | None) -> CAError:
    names = ", ".join(c.name for c in missing[:10]) + (", ..." if len(missing) > 10 else "")
    return timed_out(names, f"connecting {len(missing)} of {of} channels", timeout or 0.0)


def connect(names: Sequence[str], timeout: float | None = 5.0) -> list[Channel]:
    """Channels of all names, connected under one deadline.

    Raises
    ------
    CATimeoutError
        Some did not connect; it says which.
    """
    if isinstance(names, (str, bytes)):
        raise BadTypeError("a list of names is wanted, not one name")
    channels = [Channel(n) for n in names]
    missing = _bulk.connect_all([c._core for c in channels], timeout)
    if missing:
        raise _missing(missing, len(channels), timeout)
    return channels


def _finish(found: list[Any], what: str, on_error: str) -> list[Any]:
    bad = [f for f in found if isinstance(f, BaseException)]
    if not bad or on_error == "return":
        return found
    first = bad[0]
    if len(bad) == 1:
        raise first
    texts = "; ".join(str(e) for e in bad[:5]) + (
        f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    )
    kind = (
        type(first)
        if isinstance(first, CAError) and all(type(e) is type(first) for e in bad)
        else CAError
    )
    raise kind(f"{what} failed for {len(bad)} of {len(found)} channels: {texts}")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def _as_connected(
    cores: list[Core],
    timeout: float | None,
    what: str,
    act: Callable[[list[int], float | None], list[Any]],
) -> list[Any]:
    """What `act` makes of each channel, all under one deadline.

    Those that are connected do not wait for those that are not: a name that nobody has leaves the others their time.
    """
    deadline = _deadline(timeout)
    found: list[Any] = [None] * len(cores)
    todo = list(range(len(cores)))
    patience = 0.1
    while todo:
        left = _left(deadline)
        wait = patience if left is None else min(patience, left)
        missing = {id(c) for c in _bulk.connect_all([cores[i] for i in todo], wait)}
        ready = [i for i in todo if id(cores[i]) not in missing]
        for i, result in zip(ready, act(ready, _left(deadline)), strict=True):
            found[i] = result
        todo = [i for i in todo if id(cores[i]) in missing]
        patience = min(2 * patience, 1.0)
        if left == 0.0:
            break
    nobody = unanswered() if todo else ""
    for i in todo:
        why = f"{cores[i].host} was lost" if cores[i].connects else nobody
        found[i] = timed_out(cores[i].name, what, timeout or 0.0, why)
    return found


def _check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "return"):
        raise BadValueError(f"on_error is 'raise' or 'return', not {on_error!r}")


@overload
def get_many(
    channels: Sequence[str | Channel],
    *,
    timeout: float | None = 5.0,
    on_error: Literal["raise"] = "raise",
) -> list[Sample]: ...
@overload
def get_many(
    channels: Sequence[str | Channel],
    *,
    timeout: float | None = 5.0,
    on_error: Literal["return"],
) -> list[Sample | BaseException]: ...
def get_many(
    channels: Sequence[str | Channel],
    *,
    timeout: float | None = 5.0,
    on_error: Literal["raise", "return"] = "raise",
) -> list[Any]:
    """Samples of all channels, read with one flush under one deadline, connecting included.

    Raises
    ------
    CAError
        One error that names the failures; ``on_error='return'`` puts each exception in its sample's place instead.
    """
    _check_on_error(on_error)
    cores = _cores(channels)

    def read(ready: list[int], left: float | None) -> list[Any]:
        return _bulk.get_all([cores[i] for i in ready], -1, 0, left, _bulk.SAMPLES)

    found = _as_connected(cores, timeout, "get", read)
    for i, channel in enumerate(channels):
        if isinstance(channel, _Filtered):
            found[i] = channel._answer(found[i])
    return _finish(found, "get", on_error)


@overload
def put_many(
    channels: Sequence[str | Channel],
    values: Sequence[Any],
    *,
    wait: bool = False,
    timeout: float | None = 5.0,
    on_error: Literal["raise"] = "raise",
) -> list[None]: ...
@overload
def put_many(
    channels: Sequence[str | Channel],
    values: Sequence[Any],
    *,
    wait: bool = False,
    timeout: float | None = 5.0,
    on_error: Literal["return"],
) -> list[BaseException | None]: ...
def put_many(
    channels: Sequence[str | Channel],
    values: Sequence[Any],
    *,
    wait: bool = False,
    timeout: float | None = 5.0,
    on_error: Literal["raise", "return"] = "raise",
) -> list[Any]:
    """Write to all channels with one flush; a list of None.

    Raises
    ------
    BadValueError
        For a channel to a slice; nothing is written.
    CAError
        One error that names the failures; ``on_error='return'`` puts each exception in its place instead. What fits is
        written even where something else does not.
    """
    _check_on_error(on_error)
    if len(channels) != len(values):
        raise BadValueError(f"{len(channels)} channels but {len(values)} values")
    cores = _cores(channels)
    for channel in channels:
        if isinstance(channel, _Filtered):
            channel._check_put()

    def write(ready: list[int], left: float | None) -> list[Any]:
        return _bulk.put_all(
            [cores[i] for i in ready], [values[i] for i in ready], wait, left, False
        )

    found = _as_connected(cores, timeout, "put", write)
    for i, channel in enumerate(channels):
        if isinstance(channel, _ServerFiltered):
            found[i] = channel._answer(found[i])
    return _finish(found, "put", on_error)
