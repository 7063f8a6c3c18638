"""Streams: frames of an array PV as libca's threads receive them, every loss counted.

Threads
    Frames are put into the ring by libca's thread, without the GIL. Any thread may read, each frame goes to one
    reader; a coroutine reads the same object by ``async for``. Which channel feeds the stream is settled, under
    `_lock`, by the dispatcher of the default lane when that connects, and by the timer of the probe.

Lifetime
    A stream ends by ``close()``, by the end of its ``with`` block or with its last reference. Frames and blocks that a
    user holds outlive it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import _stream
from ._channel import Channel
from ._filters import filter_name, has_stamp_filter
from .counts import Ledger
from .enums import DBE, ECA
from .errors import (
    AccessError,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    DisconnectedError,
    OverrunError,
    ServerError,
    from_status,
    timed_out,
    unanswered,
)
from .reducers import as_reducer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._stream import Block, Frame, Ring

__all__ = ["Stream", "stream"]

log = logging.getLogger("epicsx")

COHERENT_BYTES = 256 * 1024
"""Up to so many bytes a frame ``coherent='auto'`` asks for the ``ts`` filter: the IOC keeps a copy of each frame that
waits in its queue, which may hold some 100 events for each client."""
MOST_FRAMES = 2**24
PROBE_SECONDS = 2.0
"""How long a server may take to answer for a name with a filter, once it has answered for the plain one."""
STRING = 0


class StreamOptions(TypedDict, total=False):
    """What `stream` takes beside a name, for type checkers; `Stream.__init__` has the defaults."""

    depth: int
    block: int
    overflow: Literal["drop_oldest", "drop_newest", "error"]
    coherent: bool | Literal["auto"]
    count: int
    lane: Literal["auto", "default", "bulk"]
    mask: int
    reduce: Any
    timeout: float | None


class _Watch:
    """One event loop that waits for a ring: a socket that libca's thread writes to, and the futures it wakes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.reading, self.writing = socket.socketpair()
        self.reading.setblocking(False)
        self.writing.setblocking(False)
        self.waiting: set[asyncio.Future[None]] = set()
        loop.add_reader(self.reading.fileno(), self.rung)

    def rung(self) -> None:
        try:
            while len(self.reading.recv(4096)) == 4096:
                pass
        except (BlockingIOError, InterruptedError):
            pass
        waiting, self.waiting = self.waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def end(self) -> None:
        """Let go of the loop; from its own thread, or when it is closed."""
        if not self.loop.is_closed():
            self.loop.remove_reader(self.reading.fileno())
        self.rung()
        self.reading.close()
        self.writing.close()


class Stream:
    """Frames of one array PV, in order, each copied once: iterate over it, or ``read``, or take the ``latest``.

    Made by `epicsx.stream`, which tells the parameters.
    """

    def __init__(
        self,
        name: str | Channel,
        *,
        depth: int = 64,
        block: int = 1,
        overflow: Literal["drop_oldest", "drop_newest", "error"] = "drop_oldest",
        coherent: bool | Literal["auto"] = "auto",
        count: int = 0,
        lane: Literal["auto", "default", "bulk"] = "auto",
        mask: int = DBE.VALUE | DBE.ALARM,
        reduce: Any = None,
        timeout: float | None = 5.0,
    ) -> None:
        _check_number("depth", depth)
        _check_number("block", block)
        if depth < block:
            raise BadValueError(f"a block of {block} frames does not fit a depth of {depth}")
        if overflow not in _stream.OVERFLOWS:
            raise BadValueError(f"overflow is one of {_stream.OVERFLOWS}, not {overflow!r}")
        if not (coherent is True or coherent is False or coherent == "auto"):
            raise BadValueError(f"coherent is True, False or 'auto', not {coherent!r}")
        if lane not in ("auto", "default", "bulk"):
            raise BadValueError(f"lane is 'auto', 'default' or 'bulk', not {lane!r}")
        if lane == "auto" and isinstance(name, Channel):
            lane = name._lane
        if int(mask) & ~15 or not int(mask):
            raise BadValueError(f"a mask is a combination of DBE flags, not {mask!r}")
        if not _is_number(count, 0):
            raise BadValueError(f"a count is a number of elements, not {count!r}")
        reducer = None if reduce is None else as_reducer(reduce)
        if reducer is not None and block > 1:
            raise BadValueError("what a reducer makes comes one by one: block=1")
        self._home = own_channel(name, "a stream")
        self._name = self._home.name
        self._given = has_stamp_filter(self._name)  # the name itself asks for it: nothing to probe
        self._options = (depth, block, overflow, reducer)
        self._lane = "default" if lane == "default" else "bulk"
        self._wanted = coherent
        self._coherent: bool | None = None if coherent else False
        self._count, self._mask = count, int(mask)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # a channel was chosen, or an error found
        self._error: BaseException | None = None
        self._ring: Ring = _stream.Ring(*self._options)
        self._ended: list[Ring] = []  # of channels that were given up: read first
        self._past = Ledger(0, 0, 0, 0, 0, 0, 0, 0, None)
        self._newest: Frame | Block | None = None
        self._closed = False
        self._timer: threading.Timer | None = None
        self._asked = False
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
        if self._given or not coherent:
            with self._lock:
                self._open(self._name, self._given)
        self._home.on_connection(_weakly(self, Stream._on_connection))
        if coherent is True and not _in_loop():
            try:
                self.connect(timeout)
            except BaseException:
                self.close()
                raise

    # ---- which channel feeds it

    def _open(self, name: str, coherent: bool) -> None:
        """Subscribe `name`, in the stream's lane. Under the lock."""
        home = self._home._core
        core = home if name == home.name else Channel(name, priority=home.priority)._core
        self._ring.open(_stream.lane_core(core, self._lane), -1, self._count, self._mask)
        self._coherent = coherent
        self._changed.notify_all()

    def _on_connection(self, channel: Channel, connected: bool) -> None:
        """Thread: the dispatcher's of the default lane, or whoever makes the stream."""
        if not connected:
            return
        try:
            self._check_type()
            self._choose(channel)
        except Exception as error:  # noqa: BLE001 - whoever reads shall hear of it, not the dispatcher
            self._fail(error)

    def _choose(self, channel: Channel) -> None:
        with self._lock:
            if self._closed or self._error is not None or self._given:
                return
            if self._coherent:
                # Once it has answered for the filter it is not doubted any more: after a restart the two lanes may
                # find it seconds apart.
                if self._ring.core is not None and not self._ring.core.connects:
                    self._probe()
            elif self._coherent is None and self._wanted is True:
                self._open_coherent()
            elif self._coherent is None and not self._asked:
                if (self._count or channel.count) * _element_bytes(
                    channel
                ) > COHERENT_BYTES or channel.count <= 1:
                    self._open(self._name, False)
                else:
                    self._asked = True
                    try:
                        request = channel.get_async(timeout=PROBE_SECONDS)
                    except CAError:  # it may not be read, or is gone again
                        self._asked = False
                        if channel.connected:
                            self._open(self._name, False)
                    else:
                        request.add_done_callback(_weakly(self, Stream._on_length))

    def _check_type(self) -> None:
        if self._home.native_type == STRING:
            raise BadTypeError(f"'{self._name}' has texts: a stream has numbers", name=self._name)

    def _on_length(self, request: Any) -> None:
        """Thread: the dispatcher's. How many elements the record has now, out of as many as it may have.

        The filter makes every frame as long as the record may be and fills up with zeros (ts.c: generate). So `auto`
        does not ask for it where the record is partly filled.
        """
        full = False
        error = request.exception(0)
        if error is None:
            full = request.result(0).count == self._home.count
        elif isinstance(error, DisconnectedError):
            with self._lock:
                self._asked = False  # the next connection asks again
            return
        with self._lock:
            self._asked = False
            if self._closed or self._error is not None or self._coherent is not None:
                return
            if full:
                self._open_coherent()
            else:
                self._open(self._name, False)

    def _open_coherent(self) -> None:
        # Subscribed before it is known to answer, so that its first frame is not missed.
        self._open(filter_name(self._name, coherent=True), True)
        self._probe()

    def _probe(self) -> None:
        """Look again when a server that knows filters would have answered. Under the lock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(PROBE_SECONDS, _weakly(self, Stream._probe_over))
        self._timer.daemon = True
        self._timer.start()

    def _probe_over(self) -> None:
        """Thread: the timer's."""
        with self._lock:
            self._timer = None
            ring = self._ring
            if self._closed or not self._coherent or ring.core is None or ring.core.connects:
                return
            if not self._home.connected:
                return  # the server went away meanwhile: its next connection asks again
            why = (
                f"'{self._name}': {self._home.host} does not answer for the name with the ts filter; "
                "EPICS base 3.15 and later does"
            )
            if self._wanted is True:
                self._fail(ServerError(why, name=self._name))
                return
            log.warning("%s. The stream is not coherent: data may be newer than its stamp", why)
            self._replace(self._name)

    def _replace(self, name: str) -> None:
        """Go on with another channel. What waits in the old ring is read first. Under the lock."""
        old, fresh = self._ring, _stream.Ring(*self._options)
        old.end(fresh)
        self._ended.append(old)
        self._ring = fresh
        self._open(name, False)
        for watch in self._watches.values():
            fresh.watch(watch.writing.fileno())
        old.wake()
        self._ring_watches()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
            self._changed.notify_all()
        self._ring.wake()
        self._ring_watches()

    def _ring_watches(self) -> None:
        for watch in self._watches.values():
            try:
                watch.writing.send(b"x")
            except (BlockingIOError, OSError):
                pass

    @property
    def _settled(self) -> bool:
        core = self._ring.core
        return self._error is not None or (
            self._coherent is not None and core is not None and core.connected
        )

    def connect(self, timeout: float | None = 5.0) -> Self:
        """The stream itself, its channel chosen and connected. Not needed before reading.

        Raises
        ------
        CATimeoutError
            Not within `timeout` seconds; None waits for ever.
        BadTypeError, ServerError
            The record has texts; the server has no ts filter, and ``coherent=True`` asked for it.
        """
        deadline = _deadline(timeout)
        self._home.connect(timeout)
        self._check_type()
        self._choose(self._home)  # here and now: the dispatcher may be our caller, or busy
        while not self._settled:
            left = 0.05 if deadline is None else min(0.05, deadline - monotonic())
            if left <= 0:
                raise timed_out(self._name, "connecting the stream", timeout or 0.0, self._why())
            with self._changed:  # sliced, so that Ctrl-C works and a lost server is noticed
                core = self._ring.core
                if core is None and self._error is None:
                    self._changed.wait(left)
                    continue
            if core is not None:
                core.wait_connected(left)
        if self._error is not None:
            raise self._error
        return self

    # ---- facts

    @property
    def name(self) -> str:
        """The PV's name."""
        return self._name

    @property
    def connected(self) -> bool:
        """Whether the channel that feeds the stream is connected now."""
        core = self._ring.core
        return core is not None and core.connected

    @property
    def coherent(self) -> bool | None:
        """Whether data and stamp are kept together by the server's ``ts`` filter; None until that is known."""
        if self._coherent and not self.connected:
            return None
        return self._coherent

    @property
    def lane(self) -> str:
        """The lane whose circuit carries the frames: 'bulk' or 'default'."""
        return self._lane

    @property
    def ledger(self) -> Ledger:
        """One consistent copy of the counts: received == delivered + merged + dropped + pending."""
        with self._lock:
            rings = [*self._ended, self._ring]
            total = self._past
            for ring in rings:
                total = add_ledgers(total, ring.ledger())
        return total

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "not connected"
        return f"<Stream {self._name!r}, {state}, {self.ledger.received} received>"

    # ---- reading

    def _poll(self, timeout: float | None, latest: bool = False) -> Any:
        """Take what is there, or wait a while. None: nothing yet."""
        if self._error is not None and not self._closed:
            raise self._error
        if self._ended:
            with self._lock:
                while self._ended:
                    how, found = self._ended[0].take(0.0, latest)
                    if how == _stream.TAKEN:
                        self._newest = found
                        return found
                    self._past = add_ledgers(self._past, self._ended.pop(0).ledger())
        ring = self._ring
        how, found = ring.take(timeout, latest)
        if how == _stream.TAKEN:
            self._newest = found
            return found
        if how == _stream.OVERRUN:
            raise OverrunError(
                f"stream of '{self._name}': {self._options[0]} frames were waiting, and more came; "
                "the ledger counts what was refused",
                name=self._name,
            )
        if how == _stream.CLOSED and self._closed:
            raise CAError(f"the stream of '{self._name}' has been closed", name=self._name)
        core = ring.core
        if core is not None and core.state == 3:
            raise DisconnectedError(
                ECA.CHANDESTROY,
                f"the channel of the stream of '{self._name}' has been cleared",
                self._name,
            )
        if self._error is not None:
            raise self._error
        status = ring.last_status
        if status == ECA.NORDACCESS:
            raise AccessError(
                status, f"stream of '{self._name}': the server gives no read access", self._name
            )
        if status not in (ECA.NORMAL, ECA.DISCONN):
            raise from_status(status, self._name, "stream")
        return None

    def read(self, timeout: float | None = None) -> Any:
        """The next frame (or block), waiting for it at most `timeout` seconds; None waits for ever.

        Raises
        ------
        CATimeoutError
            Nothing came in time; the message says why, if that is known.
        OverrunError
            With ``overflow='error'``: frames had to be refused. Raised once; the stream then goes on.
        CAError
            The stream has been closed, or Channel Access shut down.
        """
        deadline = _deadline(timeout)
        while True:
            left = 0.05 if deadline is None else min(0.05, deadline - monotonic())
            found = self._poll(max(left, 0.0))
            if found is not None:
                return found
            if deadline is not None and monotonic() >= deadline:
                raise self._timed_out(timeout)

    def _timed_out(self, timeout: float | None) -> CATimeoutError:
        return timed_out(self._name, "stream", timeout or 0.0, self._why())

    def _why(self) -> str:
        if self.connected:
            return "no frame has come"
        if self._home.connected:
            return f"{self._home.host} has not answered for the stream's own channel"
        core = self._home._core
        return f"{core.host} was lost" if core.connects else unanswered()

    def latest(self) -> Any:
        """The newest frame (or block) at once; None before the first.

        It is one that waits (the older ones then count as merged), else the last that was handed out.
        """
        return self._poll(0.0, True) or self._newest

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                found = self._poll(0.05)
            except CAError:
                if self._closed and self._error is None:
                    raise StopIteration from None
                raise
            if found is not None:
                return found

    # ---- the same from a coroutine

    async def aread(self, timeout: float | None = None) -> Any:
        """As ``read``, from a coroutine: the event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = _deadline(timeout)
        while True:
            found = self._poll(0.0)
            if found is not None:
                return found
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise self._timed_out(timeout)
            await self._readable(loop, left)

    async def _readable(self, loop: asyncio.AbstractEventLoop, left: float | None) -> None:
        """Return when something may be there to take. A wake too many does no harm."""
        watch = self._watches.get(loop)
        if watch is None:
            try:
                fresh = _Watch(loop)
            except NotImplementedError:  # a loop that watches no sockets: a thread waits for it
                await asyncio.sleep(0.005 if left is None else min(0.005, left))
                return
            with self._lock:
                if self._closed:
                    fresh.end()
                    return
                for old in [each for each in self._watches if each.is_closed()]:
                    self._watches.pop(old).end()
                watch = self._watches[loop] = fresh
                self._ring.watch(watch.writing.fileno())
        future: asyncio.Future[None] = loop.create_future()
        watch.waiting.add(future)
        if self._ended or self._error is not None or self._closed or self._arm(watch):
            watch.waiting.discard(future)
            return
        try:
            # The slice: a second loop may have taken over the ring's one descriptor.
            await asyncio.wait_for(future, 0.25 if left is None else min(0.25, left))
        except (asyncio.TimeoutError, TimeoutError):
            pass
        finally:
            watch.waiting.discard(future)

    def _arm(self, watch: _Watch) -> bool:
        with self._lock:
            if self._closed:
                return True
            self._ring.watch(watch.writing.fileno())
            return self._ring.arm()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.aread()
        except CAError:
            if self._closed and self._error is None:
                raise StopAsyncIteration from None
            raise

    # ---- to a file

    def to_hdf5(
        self,
        path: str | os.PathLike[str],
        *,
        frames: int | None = None,
        seconds: float | None = None,
        compression: Literal["gzip", "lzf"] | None = None,
        mode: Literal["x", "w", "a"] = "x",
        progress: Any = None,
    ) -> Ledger:
        """The ledger, after frames were written to an HDF5 file as they came; it can be read meanwhile (SWMR).

        It ends after `frames` or `seconds`, whichever is first, when the stream is closed, or by an exception, such as
        that of Ctrl-C, which is raised once the file is closed; each time all that was received until then is in the
        file, and the file closed. (A second Ctrl-C does not wait for that; a closed stream drops what waits.) What the
        stream dropped because the disk was slow (its `depth` is what may wait) is in the file's ledger.
        ``docs/recording.md`` tells the layout of the file.
        One thread writes, that of the caller; meanwhile nobody else should read the stream.

        Parameters
        ----------
        path : str or path
            The file.
        frames : int or None
            So many; of a stream of blocks whole blocks, until there are as many.
        seconds : float or None
            From the call on, connecting included.
        compression : 'gzip', 'lzf' or None
            Of the values. A process that is killed then loses up to half a chunk (128 KiB) more.
        mode : 'x', 'w' or 'a'
            A file that must not be there; one that is replaced; a recording that goes on.
        progress : callable, True or None
            Called about once a second with (seconds, frames, bytes, frames_per_second, bytes_per_second, lost); True: a
            line on standard error, where that is a terminal.

        Raises
        ------
        BadValueError
            No regular file; to be appended to, and no recording of epicsx: nothing has been written.
        FileExistsError, BlockingIOError, OSError
            The file is there already; it is open elsewhere; it cannot be written.
        ImportError
            h5py is missing: ``pip install 'epicsx[hdf5]'``.
        CAError
            As from ``read``; what came before is in the file.
        """
        # Files stand above streams: the package's table of names has them.
        options = {"frames": frames, "seconds": seconds, "compression": compression, "mode": mode}
        found: Ledger = sys.modules[__package__]._to_hdf5(self, path, progress=progress, **options)
        return found

    # ---- end

    def close(self) -> None:
        """End the stream: what waits is dropped and counted, iteration ends, held frames stay. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._ring.watch(-1)
            for ring in (*self._ended, self._ring):
                ring.close()
            watches, self._watches = self._watches, {}
            self._newest = None  # a stream that is kept does not keep its last frame
        self._home.close()
        for watch in watches.values():
            if watch.loop is _running_loop() or watch.loop.is_closed():
                watch.end()
            else:
                try:
                    watch.loop.call_soon_threadsafe(watch.end)
                except RuntimeError:  # closed meanwhile
                    watch.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if sys.is_finalizing() or not hasattr(self, "_watches"):
            return
        if not self._closed:
            self.close()


def stream(name: str | Channel, **options: Unpack[StreamOptions]) -> Stream:
    """A `Stream` of the frames of an array PV, every loss counted; it receives from the first connection on.

    Parameters
    ----------
    name : str or Channel
        The PV, of any numeric type or CHAR.
    depth : int
        How many frames may wait for the reader. Those that a user holds are outside of it.
    block : int
        1: iterate over `Frame`. n > 1: over `Block` of n frames as one (n, count) array; a change of type or size and a
        lost connection cut a block short.
    overflow : 'drop_oldest', 'drop_newest' or 'error'
        What happens when `depth` frames wait and one more comes: the oldest (of blocks: the oldest block) or the new
        one is dropped and counted; or it is refused and counted, and reading raises `OverrunError` once.
    coherent : bool or 'auto'
        True: by the server's filter ``{"ts":{}}`` (EPICS base 3.15), which keeps data and stamp together; raises
        `ServerError` where the server has none. False: a plain monitor. ``'auto'``: the filter for arrays up to 256 KiB
        that are full when the stream begins, where the server has it; else a plain monitor, with a warning in the log
        if the server is why. ``Stream.coherent`` says which it got. With the filter every frame is as long as the
        record may be, filled up with zeros, and has the IOC's time of posting as its stamp.
    count : int
        At most so many elements; 0 is as many as the record has now, frame by frame.
    lane : 'auto', 'default' or 'bulk'
        Streams have a channel of their own in the bulk lane, beside which scalars stay quick; 'default' keeps them on
        the circuit of everything else.
    mask : DBE
        Which changes count.
    reduce : Reducer or a C function
        What `epicsx.reducers` makes, or takes (see ``reducers.custom``): a C function that sees each frame in libca's
        own buffer; the stream has its results (float64) instead.
    timeout : float, seconds
        With ``coherent=True`` alone, and not within a running event loop: how long to wait here for the server's
        answer.

    Raises
    ------
    BadTypeError, BadValueError
        For options that cannot be; a record of texts is told at the first read.
    """
    return Stream(name, **options)


def own_channel(given: str | Channel, what: str) -> Channel:
    """A handle of one's own on that PV."""
    if not isinstance(given, Channel):
        return Channel(given)
    if given.filtered == "client":
        raise BadValueError(
            f"{what} of '{given.name}' would not pass the filters that this client applies for it",
            name=given.name,
        )
    return Channel(given.name, priority=given._open().priority)


def add_ledgers(a: Ledger, b: Ledger) -> Ledger:
    """The sum of two ledgers."""
    lost = [x.inferred_lost for x in (a, b) if x.inferred_lost is not None]
    sums = [x + y for x, y in zip(a[:-1], b[:-1], strict=True)]
    return Ledger._make([*sums, sum(lost) if lost else None])


def _element_bytes(channel: Channel) -> int:
    native = channel.native_type
    return (40, 2, 4, 2, 1, 4, 8)[native] if native is not None else 8


def _is_number(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _check_number(what: str, number: object) -> None:
    if not _is_number(number, 1) or number > MOST_FRAMES:  # type: ignore[operator]
        raise BadValueError(f"{what} is a number of frames from 1 to {MOST_FRAMES}, not {number!r}")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()


def _in_loop() -> bool:
    return _running_loop() is not None


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if timeout != timeout:
        raise BadValueError("a timeout is a number of seconds or None, not nan")
    return monotonic() + timeout


def _weakly(obj: Any, method: Any) -> Any:
    """`method` of `obj`, which it does not keep alive."""
    ref = weakref.ref(obj)

    def call(*args: Any) -> None:
        alive = ref()
        if alive is not None:
            method(alive, *args)

    return call
