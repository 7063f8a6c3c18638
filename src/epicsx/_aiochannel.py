"""Channels and their updates for the coroutines of any event loop.

Threads
    A coroutine runs in its loop's thread, and so does all that is done for it here. What libca's threads bring is taken
    out of C by that thread, when the coroutine asks for it; `Updates.close` may come from any thread.

Lifetime
    `Updates` end by ``close()``, by the end of their ``async with``, with their last reference, or with their loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from . import _channel, _dbr, _request
from ._aioloop import TURN, End, current, later
from ._streams import own_channel
from .enums import DBE, DBR
from .errors import BadValueError, timed_out

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._ca import Core
    from ._channel import Channel
    from ._sample import Sample
    from .counts import Counts

__all__ = ["Updates", "aconnect", "aget", "aput", "updates"]


class Updates(_request.Flow):
    """The samples of one PV as they come: ``async for sample in updates(name)``. Made by `updates`."""

    def __init__(
        self,
        name: str | Channel,
        *,
        dtype: Any = None,
        count: int = 0,
        mask: int = DBE.VALUE | DBE.ALARM,
        queue: Literal["all", "latest"] | int = "all",
        lane: Literal["auto", "default", "bulk"] = "auto",
    ) -> None:
        self._end = current()
        if count < 0:
            raise BadValueError(f"a count is not negative ({count})")
        _channel._check_lane(str(name), lane)
        self._channel = own_channel(name, "updates")
        self.name: str = self._channel.name
        self._waiting: set[asyncio.Future[None]] = set()
        self.turn = 2 * TURN
        core = self._channel._core
        self._handle = _request.LoopSubscription(
            core,
            self._end.inbox,
            _weakly(self, Updates._ready),
            _weakly(self, Updates._ended),
            int(mask),
            count,
            queue,
            _channel._dbr_type(dtype, core),
            lane,
        )

    def _ready(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _ended(self) -> None:
        """Thread: any."""
        loop = self._end._loop()
        if loop is not None and asyncio._get_running_loop() is loop:
            self._ready()
        elif loop is not None:
            later(loop, self._ready)

    async def _next(self) -> Sample:
        if self.tired:
            self.tired = False
            await asyncio.sleep(0)  # where there always is one, others have a turn all the same
        while True:
            item = self._handle.take()
            if item is None:
                if self._handle.closed:
                    raise StopAsyncIteration
                await self._wait()
            elif item is not True and item is not False:
                return item

    async def _wait(self) -> None:
        loop = self._end.loop
        if asyncio.get_running_loop() is not loop:
            raise RuntimeError(f"the updates of '{self.name}' belong to another event loop")
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    @property
    def latest(self) -> Sample | None:
        """The newest sample that came, handed out or not; None before the first."""
        return self._handle.latest

    @property
    def stats(self) -> Counts:
        """One consistent copy of the counts: received == delivered + merged + dropped + pending."""
        return self._handle.stats

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._handle.closed

    def close(self) -> None:
        """End it: what waits is dropped and counted, and whoever iterates comes to the end. Idempotent; any thread."""
        self._handle.close()
        self._channel.close()

    async def aclose(self) -> None:
        """As ``close``."""
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
        if self._handle is not None:  # made
            self._handle.close()

    def __repr__(self) -> str:
        return f"<Updates of {self.name!r}{', closed' if self.closed else ''}, {self.stats}>"


def _weakly(updates: Updates, method: Callable[[Updates], None]) -> Callable[[], None]:
    """`method`, without keeping alive what nobody iterates over any more."""
    ref = weakref.ref(updates)

    def call() -> None:
        alive = ref()
        if alive is not None:
            method(alive)

    return call


def updates(name: str | Channel, **options: Any) -> Updates:
    """The samples of a PV from now on, to iterate over: ``async for sample in updates(name)``.

    It goes on over lost connections, and ends by ``close()``, at the end of ``async with``, or with its last reference.

    Parameters
    ----------
    name : str or Channel
        The PV, connected or not.
    dtype, count
        As of ``Channel.get``.
    mask : DBE
        Which changes count.
    queue : 'all', 'latest' or int
        What may wait while the loop is elsewhere: 10 000 updates (of arrays 64 MiB), only the newest, or so many. What
        does not fit is counted, in ``stats``, as dropped or merged.
    lane : 'auto', 'default' or 'bulk'
        As of ``Channel``.

    Raises
    ------
    RuntimeError
        No event loop is running in this thread.
    BadTypeError, BadValueError
        For options that cannot be.
    """
    return Updates(name, **options)


# ------------------------------------------- the coroutines of ``epicsx.Channel``


async def aconnect(channel: Channel, timeout: float | None = 5.0) -> Channel:
    """What ``Channel.aconnect`` does."""
    end = current()
    core = channel._open()
    if not core.connected and not await end.connected([core], end.deadline(timeout)):
        raise channel._unconnected(timeout)
    return channel


async def aget(
    channel: Channel, dtype: Any = None, count: int = 0, timeout: float | None = 5.0
) -> Sample:
    """What ``Channel.aget`` does."""
    end = current()
    deadline = end.deadline(timeout)
    core = channel._open()
    if count < 0:
        raise BadValueError(
            f"get of '{channel.name}': a count is not negative ({count})", name=channel.name
        )
    asked = _channel._dbr_type(dtype, core)
    if not core.connected:
        await aconnect(channel, timeout)
    request = core.get_async(asked, count, None, channel, None, end.inbox)
    if not await end.wait(request, deadline):
        raise timed_out(core.name, "get", timeout or 0.0, "the server has not answered")
    found: Sample = request.result(0.0)
    return found


async def aput(
    channel: Channel, value: Any, wait: bool = False, timeout: float | None = 5.0
) -> None:
    """What ``Channel.aput`` does."""
    end = current()
    deadline = end.deadline(timeout)
    core = channel._open()
    if not core.connected:
        await aconnect(channel, timeout)
    sent = -2
    if core.native_type == DBR.ENUM and isinstance(value, (str, bytes)):
        text = value.decode(_dbr.get_encoding(), "replace") if isinstance(value, bytes) else value
        value = await _state(end, core, text, deadline, timeout)
        if isinstance(value, str):  # the server may know more states than it tells
            sent = int(DBR.STRING)
    if not await end.put(core, value, sent, wait, deadline, channel):
        raise timed_out(core.name, "put", timeout or 0.0, "the server has not answered")


async def _state(
    end: End, core: Core, text: str, deadline: float | None, timeout: float | None
) -> int | str:
    """The index of a state by its name, which is asked for where it is not known yet."""
    control = core.peek_control()
    if control is None:
        request = core.get_async(int(DBR.CTRL_ENUM), 1, None, None, None, end.inbox)
        if not await end.wait(request, deadline):
            raise timed_out(core.name, "put", timeout or 0.0, "its state names have not come")
        control = request.result(0.0).control
    return _dbr.state_index(text, (control and control.enum_strings) or (), name=core.name)
