"""What an event loop has of Channel Access: its inbox, its channels, and how its coroutines wait.

Threads
    libca's threads put what ended and what came into the loop's inbox, in C, and wake the loop by one byte for all that
    came since it looked last; the loop's own thread does the rest. A loop that watches no sockets is woken by a thread
    of ours, which reads that byte. Puts that may have to wait for a full circuit are handed over by a thread for each
    connection, which ends when none waits. `End.close` may come from any thread.

Lifetime
    An `End` is made at the loop's first use of Channel Access. It ends when the loop shuts down its asynchronous
    generators, as ``asyncio.run`` does, after the answers to what those ask for at their end; else when the loop is
    freed, or, once it is closed, with the next use of this module by any loop. What waits then is lost, for that loop
    alone, logged and counted; a task that still waits is told by an error.
    A forked child has none of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _ca, _request
from .errors import BadValueError, CAError, loop_ending

if TYPE_CHECKING:
    from ._augmented import Timeout

log = logging.getLogger("epicsx")

LARGE = 256 * 1024
"""Puts of more bytes are handed over by a thread: that waits while the circuit is full."""
SMALL = 1024
"""Puts of no more bytes are not added up."""
TURN = 16
"""After so many updates of one PV others have a turn."""
ROUND = 1000
"""After so many callbacks for updates the loop goes on with what else is due."""
CLOSED = 3

_ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, End] = weakref.WeakKeyDictionary()
_lock = (
    threading.RLock()
)  # the end of a loop may be told by the garbage collector, wherever that runs
_past = 0  # lost by loops that are closed


class LoopCounts(NamedTuple):
    """How an event loop is served, by `epicsx.aio.counts`."""

    wakes: int
    """How often it has been woken: once for all that came since it looked last."""
    requests: int
    """Gets, puts and connections that it waits for."""
    subscriptions: int
    """What is subscribed for it."""


class HandOver:
    """Puts that a thread hands over to libca, those over one circuit in the order in which they were asked for.

    Each connection has a line of its own, as a full circuit holds up what is behind. It has a thread while puts wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[int, deque[Callable[[], None]]] = {}

    def busy(self, core: _ca.Core) -> bool:
        """Whether a put over its circuit waits or is just being handed over: what follows must not overtake it."""
        return bool(self._lines) and core.circuit in self._lines

    def add(self, circuit: int, put: Callable[[], None]) -> None:
        """Have it called, after all that were added before."""
        with self._lock:
            line = self._lines.get(circuit)
            if line is not None:
                line.append(put)
                return
            line = self._lines[circuit] = deque([put])
        threading.Thread(
            target=self._work, args=(circuit, line), name="epicsx-put", daemon=True
        ).start()

    def withdraw(self, circuit: int, put: Callable[[], None]) -> None:
        """Take back what has not been handed over yet."""
        with self._lock, suppress(ValueError):
            self._lines.get(circuit, deque()).remove(put)

    def close(self) -> None:
        """Take back all."""
        with self._lock:
            for line in self._lines.values():
                line.clear()

    def _work(self, circuit: int, line: deque[Callable[[], None]]) -> None:
        """Thread: our own, until nothing waits."""
        while True:
            with self._lock:
                if not line:
                    del self._lines[circuit]
                    return
                put = line.popleft()
            put()
            del put  # and with it the values


class End:
    """One loop's end of everything."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self.channels: dict[str, _ca.Core] = {}
        self.monitors: set[Any] = set()
        """Open subscriptions of `epicsx.aio.camonitor`."""
        self._due: deque[Any] = deque()  # monitors with updates
        self._going = False
        self.closed: bool = False
        self._puts = HandOver()
        self._unconfirmed: dict[int, int] = {}
        """Bytes of arrays that the loop has handed over, by connection, that no answer has proved to have left."""
        self._waits: dict[asyncio.Future[Any], tuple[str, bool]] = {}
        """What tasks wait for: of which PV, and whether the loop waits for it before it ends."""
        self._thread = threading.get_ident()
        self._reading, self._writing = socket.socketpair()
        for each in (self._reading, self._writing):
            each.setblocking(False)
        self.inbox: _request.Inbox = _request.Inbox(self._writing.fileno())
        self._watched = True
        try:
            loop.add_reader(self._reading.fileno(), self._rung)
        except NotImplementedError:
            self._watched = False
            self._reading.setblocking(True)
            threading.Thread(target=self._listen, name="epicsx-loop", daemon=True).start()
        self._finalizer = weakref.finalize(loop, self.close)
        self._finalizer.atexit = False
        self._guard: AsyncGenerator[None, None] | None = None
        if not _shuts_down(loop):
            self._guard = self._until_shutdown()
            _begin(self._guard)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop itself."""
        found = self._loop()
        if found is None:
            raise RuntimeError("the event loop is gone")
        return found

    # ---- waking

    def _rung(self) -> None:
        with suppress(BlockingIOError, InterruptedError, OSError):
            while len(self._reading.recv(64)) == 64:
                pass
        self._take()

    def _take(self) -> None:
        if not self.closed and self.inbox.take():
            self.loop.call_soon(self._take)  # the rest after what else is due

    def due(self, monitor: Any) -> None:
        """Have ``monitor.turn()`` called, again and again until it gives 0: how many callbacks it made."""
        self._due.append(monitor)
        if not self._going:
            self._going = True
            self.loop.call_soon(self._go)

    def _go(self) -> None:
        left = ROUND
        waiting = self._due
        try:
            while waiting and left > 0:
                monitor = waiting.popleft()
                try:
                    made = monitor.turn()
                except BaseException:  # Ctrl-C: the rest is told once the loop goes on
                    waiting.append(monitor)
                    raise
                if made:
                    waiting.append(monitor)
                left -= made or 1
        finally:
            self._going = bool(waiting) and not self.closed
            if self._going:
                self.loop.call_soon(self._go)

    def _listen(self) -> None:
        """Thread: our own, for a loop that watches no sockets."""
        with suppress(OSError, RuntimeError):  # closed, while waiting or before the call
            while self._reading.recv(64):
                self.loop.call_soon_threadsafe(self._take)

    # ---- the end

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        # A loop tells its asynchronous generators, and nobody else, that it is about to be closed.
        try:
            yield
        finally:
            self._guard = None
            try:
                if not self.closed:
                    await self._settle()
            finally:
                self.close()

    async def _settle(self) -> None:
        """Wait for what others ask for while the loop ends, as in the ``finally`` of a generator."""
        quiet = 0
        while quiet < 5 and not self.closed:  # turns in which what has its answer may ask again
            last = [future for future, (_, awaited) in self._waits.items() if awaited]
            if last:
                quiet = 0
                await asyncio.wait(last)
            else:
                quiet += 1
                await asyncio.sleep(0)

    def _fail(self) -> None:
        """Thread: the loop's. Nothing that is waited for comes any more."""
        for future, (name, _) in list(self._waits.items()):
            if not future.done():
                future.set_exception(loop_ending(name))

    def close(self) -> None:
        """Let the loop go. What waits is counted as lost. Idempotent."""
        global _past
        with _lock:
            if self.closed:
                return
            self.closed = True
            loop = self._loop()
            if loop is not None and _ends.get(loop) is self:
                del _ends[loop]
        self._finalizer.detach()  # it would keep what is left here, and with it the loop
        self._puts.close()
        lost = sum(monitor.end() for monitor in list(self.monitors))
        lost += self.inbox.kill()
        with _lock:
            _past += lost
        if lost:
            log.warning(
                "an event loop has ended: %d updates and answers that waited for it are lost", lost
            )
        if loop is not None and not loop.is_closed():
            if threading.get_ident() == self._thread:
                self._fail()
            else:
                later(loop, self._fail)
        if self._watched and loop is not None and not loop.is_closed():
            if threading.get_ident() == self._thread:
                loop.remove_reader(self._reading.fileno())
            else:  # its own thread does it, and closes them then
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._close_sockets, loop)
                    self.channels.clear()
                    return
        self._close_sockets(None)
        self.channels.clear()
        guard, self._guard = self._guard, None
        if guard is not None:
            with suppress(StopIteration, RuntimeError):
                guard.aclose().send(None)

    def _close_sockets(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is not None:
            loop.remove_reader(self._reading.fileno())
        if not self._watched:  # wakes the thread, whose recv gives nothing then
            with suppress(OSError):
                self._writing.shutdown(socket.SHUT_RDWR)
        self._writing.close()
        self._reading.close()

    # ---- channels

    def deadline(self, timeout: Timeout) -> float | None:
        """Until when to wait, on the loop's clock."""
        if timeout is None:
            return None
        left = timeout[0] - time() if isinstance(timeout, tuple) else timeout
        if left != left:
            raise BadValueError("a timeout is a number of seconds or None, not nan")
        return self.loop.time() + left

    def channel(self, name: str) -> _ca.Core:
        """The channel of that name, kept open for the loop."""
        found = self.channels.get(name)
        if found is None or found.state == CLOSED:
            found = self.channels[name] = _ca.core(name)
        return found

    # ---- waiting

    async def wait(self, request: Any, deadline: float | None) -> bool:
        """Whether a request to this loop's inbox ends before that time of the loop. Otherwise it is let go.

        So it is when the waiting task is cancelled: nothing of the answer reaches anybody then.
        """
        future: asyncio.Future[bool] = self.loop.create_future()

        def over(_: Any = None) -> None:
            if not future.done():
                future.set_result(request.done())

        request.add_done_callback(over)
        try:
            ended: bool = await self._answer(future, deadline, over, request.core.name)
            return ended
        finally:
            request.cancel()  # of no effect on what has ended

    async def _answer(
        self,
        future: asyncio.Future[Any],
        deadline: float | None,
        too_late: Callable[[], None],
        name: str,
    ) -> Any:
        """What the future is set to; by `too_late` at the deadline, and by an error when the loop ends before."""
        if self.closed:
            raise loop_ending(name)
        loop = self.loop
        timer = None if deadline is None else loop.call_at(deadline, too_late)
        ending = _shuts_down(loop)
        self._waits[future] = name, deadline is not None if ending is None else ending
        try:
            return await future
        finally:
            del self._waits[future]
            if timer is not None:
                timer.cancel()

    async def connected(self, cores: Sequence[_ca.Core], deadline: float | None) -> bool:
        """Whether all of these channels are connected by then."""
        while missing := [core for core in cores if not core.connected]:
            request = _request.connect_async(missing, None, self.inbox)
            if not await self.wait(request, deadline):
                return False
            for core in missing:
                if core.state == CLOSED:
                    core.wait_connected(0.0)  # raises
        return True

    def by_thread(self, core: _ca.Core, value: Any) -> bool:
        """Whether it is handed over by a thread: a large one, and what follows on one that waits.

        So are those of which the circuit may be full; what the loop is to hand over itself is added to that.
        """
        size = nbytes(value)
        if size > LARGE or self._puts.busy(core):
            return True
        if size > SMALL:
            circuit = core.circuit
            if not circuit:  # nothing leaves
                return False
            before = self._unconfirmed.get(circuit, 0)
            # libca makes a put wait while 16 buffers of 16 KiB are filled (comQueSend.h, flushBlockThreshold).
            if before and before + size > LARGE // 2:
                return True
            self._unconfirmed[circuit] = before + size
        return False

    def _confirmed(self, circuit: int, size: int) -> None:
        left = self._unconfirmed.get(circuit, 0) - size
        if left > 0:
            self._unconfirmed[circuit] = left
        else:
            self._unconfirmed.pop(circuit, None)

    async def put(
        self,
        core: _ca.Core,
        value: Any,
        sent: int,
        wait: bool,
        deadline: float | None,
        owner: object = None,
    ) -> bool:
        """Write to a connected channel as that DBR type, -2 for its own; False if completion did not come by then."""
        by_thread = self.by_thread(core, value)
        circuit = core.circuit if self._unconfirmed else 0
        sent_before = self._unconfirmed.get(circuit, 0)
        if by_thread:
            # The caller's array is its own again as soon as its task goes on.
            request = await self._put_by_thread(core, owned(value), sent, wait, deadline, owner)
        elif wait:
            request = core.put_async(value, None, False, None, owner, self.inbox, sent)
        else:
            core.put(value, False, 0.0, False, owner, sent)
            return True
        if request is None or request is False:
            return request is None
        if not await self.wait(request, deadline):
            return False
        request.result(0.0)
        if sent_before:  # all that was on the circuit before has left
            self._confirmed(circuit, sent_before)
        return True

    async def _put_by_thread(
        self,
        core: _ca.Core,
        value: Any,
        sent: int,
        wait: bool,
        deadline: float | None,
        owner: object,
    ) -> Any:
        """The request for its completion; None without `wait`; False if it could not be handed over by then."""
        loop = self.loop
        time_of = loop.time
        circuit = core.circuit
        future: asyncio.Future[Any] = loop.create_future()

        def told(request: Any, error: BaseException | None) -> None:
            if future.done():  # cancelled meanwhile
                if request:
                    request.cancel()
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(request)

        def hand_over() -> None:
            request: Any = None
            failed: Exception | None = None
            try:
                if deadline is not None and time_of() >= deadline:  # the loop may be busy
                    request = False
                elif wait:
                    request = core.put_async(value, None, False, None, owner, self.inbox, sent)
                else:
                    core.put(value, False, 0.0, False, owner, sent)
            except (CAError, TypeError, ValueError, MemoryError) as error:
                failed = error
            try:
                loop.call_soon_threadsafe(told, request, failed)
            except RuntimeError:  # the loop is closed
                if request:
                    request.cancel()

        def too_late() -> None:
            if not future.done():
                future.set_result(False)

        self._puts.add(circuit, hand_over)
        try:
            return await self._answer(future, deadline, too_late, core.name)
        finally:
            self._puts.withdraw(circuit, hand_over)


def _begin(guard: AsyncGenerator[None, None]) -> None:
    """Have the running loop know of it, but not the other way round: its finalizer would keep the loop alive."""
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=None)
    try:
        with suppress(StopIteration):
            guard.asend(None).send(None)
    finally:
        sys.set_asyncgen_hooks(*before)


def _shuts_down(loop: asyncio.AbstractEventLoop) -> bool | None:
    """Whether it closes its asynchronous generators, or has; None for loops that do not tell."""
    return getattr(loop, "_asyncgens_shutdown_called", None)


def nbytes(value: Any) -> int:
    """How large what is put is, where that is known without looking at each element."""
    if isinstance(value, (int, float)):  # most puts
        return 0
    found = getattr(value, "nbytes", None)
    if isinstance(found, int):
        return found
    if isinstance(value, (list, tuple)):
        return 8 * len(value)
    if isinstance(value, str):
        return len(value)
    try:
        return memoryview(value).nbytes  # of bytes, array.array and all others that have a buffer
    except (TypeError, ValueError, BufferError):
        return 0


def owned(value: Any) -> Any:
    """What is put, in memory that nobody else writes to."""
    if isinstance(value, (int, float, str, bytes)):
        return value
    if isinstance(value, (list, tuple, bytearray)):
        return type(value)(value) if type(value) in (list, tuple, bytearray) else list(value)
    try:
        memoryview(value).release()
    except (TypeError, ValueError, BufferError):
        return value
    return np.array(value)


def current() -> End:
    """That of the running loop; RuntimeError where none runs."""
    loop = asyncio.get_running_loop()
    found = _ends.get(loop)
    if found is not None:
        return found
    fresh = End(loop)
    with _lock:
        over = [(each, end) for each, end in _ends.items() if each.is_closed()]
        _ends[loop] = fresh
    for _, end in over:
        end.close()
    return fresh


def all_ends() -> list[End]:
    """Those of all loops."""
    with _lock:
        return list(_ends.values())


def lost() -> int:
    """How many updates and answers waited for event loops that were closed, in this process."""
    for end in all_ends():
        loop = end._loop()
        if loop is None or loop.is_closed():
            end.close()
    return _past


def counts() -> LoopCounts:
    """How the running loop is served."""
    inbox = current().inbox
    return LoopCounts(inbox.wakes, len(inbox.requests), len(inbox.subscriptions))


def _after_fork() -> None:
    # The parent's loops are not the child's: what was made for them belongs to a dead generation and is left alone.
    for end in list(_ends.values()):
        end.closed = True
    _ends.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def later(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have something done in the loop's thread; nothing once it is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)
