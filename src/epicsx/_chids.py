"""Channel ids: numbers of epicsx's own that stand for core channels, one per (context, name).

Threads
    Any. Entries are made and dropped under one lock; reading is a look into a dict.

Lifetime
    An entry made by ``ca.create_channel`` holds its core channel until it is cleared. One made because somebody asked a
    PV for its chid only knows the channel weakly, and leaves the registry with it. A number is never used again.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _ca, dbr
from ._request import Request
from ._texts import NOT_A_CHID, UNEXPECTED_CHID
from .errors import ChannelAccessException

if TYPE_CHECKING:
    from ._ca import Core
    from ._sample import Sample

lock = threading.RLock()
_numbers = itertools.count(1)

cache: defaultdict[int, dict[str, _CacheItem]] = defaultdict(dict)
"""``ca._cache``: context -> PV name -> entry."""

elsewhere: weakref.WeakKeyDictionary[Core, set[int]] = weakref.WeakKeyDictionary()
"""Which contexts, other than the first one, use a channel. (That of the first is ``Core.at_home``.)"""

by_number: dict[int, _CacheItem] = {}
"""``ca._chid_cache``: chid as int -> entry."""


class _GetPending:
    """pyepics' place-holder of a value that has not come; here for programs that compare with it."""

    def __repr__(self) -> str:
        return "GET_PENDING"


Empty = _GetPending
GET_PENDING = _GetPending()


class _CacheItem:
    """What ``epicsx.ca`` knows of a channel, beyond the channel itself."""

    # Not all programs use these; a PV's entry then has no lists of its own.
    callbacks: list[Callable[..., Any]]
    access_event_callback: list[Callable[..., Any]]
    handles: weakref.WeakSet[Any] | None = None  # of create_subscription

    def __init__(self, chid: Any, pvname: str, callbacks: Any = None, ts: float = 0) -> None:
        self._chid = chid
        self.pvname = pvname
        self.key: Any = pvname
        self.context: int | None = None
        self.ts: float = ts
        self.failures: int = 0
        self.callbacks = [] if callbacks is None else callbacks
        self.access_event_callback = []
        self.get_results: defaultdict[int, list[tuple[int, Request | Sample]]] = defaultdict(list)
        self._core: Core | None = None
        self._weak: Callable[[], Core | None] = _nothing
        self._told: bool | None = None
        self._listening = False

    @property
    def core(self) -> Core:
        """The channel."""
        core = self._core or self._weak()
        if core is None:
            raise ChannelAccessException(UNEXPECTED_CHID, name=self.pvname)
        return core

    @property
    def lock(self) -> Any:
        """A lock for those who want to change the entry."""
        return lock

    @property
    def conn(self) -> bool:
        """Whether the channel is connected."""
        core = self._core or self._weak()
        return core is not None and core.connected

    @property
    def chid(self) -> Any:
        """The id, a ``dbr.chid_t``."""
        return self._chid

    @chid.setter
    def chid(self, chid: Any) -> None:
        self._chid = dbr.chid_t(chid) if isinstance(chid, int) else chid

    @property
    def chid_int(self) -> int:
        """The id as a number."""
        return to_int(self._chid)

    def __repr__(self) -> str:
        return (
            f"<_CacheItem {self.pvname!r} {'connected' if self.conn else 'disconnected'} "
            f"failures={self.failures} callbacks={len(self.callbacks)} "
            f"access_callbacks={len(self.access_event_callback)} chid={self.chid_int}>"
        )

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def remember(self, ftype: int, count: int, answer: Request | Sample) -> None:
        """Keep the newest answer to a read of that type, and those that are still to come."""
        kept = self.get_results[ftype]
        if kept:
            kept[:] = [(n, a) for n, a in kept if isinstance(a, Request) and not a.done()]
        kept.append((count, answer))

    def waits_for(self, ftype: int, count: int) -> bool:
        """Whether the answer to such a read is still to come."""
        return any(
            n == count and isinstance(a, Request) and not a.done()
            for n, a in self.get_results.get(ftype, ())
        )

    def answer(self, ftype: int, count: int) -> Request | Sample | None:
        """The answer to the last read of that type and count; of any count if there was none such."""
        kept = self.get_results.get(ftype, [])
        return next((a for n, a in reversed(kept) if n == count), kept[-1][1] if kept else None)

    def keep(self, core: Core) -> None:
        """Hold the channel from now on."""
        self._core = core

    def listen(self) -> None:
        """Hear of connection and access news."""
        with lock:
            if not self._listening:
                self._listening = True
                self.core.listen(self)
                if self.core.connected and self._told is None:
                    self._told = True

    def run_connection_callbacks(self, conn: bool, timestamp: float) -> None:
        """Tell all connection callbacks; one that raises is logged and the next one runs."""
        self.ts = timestamp
        self.failures = 0
        for callback in list(self.callbacks):
            self.run(callback, pvname=self.pvname, chid=self.chid_int, conn=conn)

    def run_access_event_callbacks(self, ra: bool, wa: bool) -> None:
        """Tell all access callbacks."""
        for callback in list(self.access_event_callback):
            self.run(callback, ra, wa)

    def run(self, callback: Callable[..., Any], *args: Any, **kwds: Any) -> None:
        """Call a user's function; what it raises is logged with the PV's name."""
        try:
            callback(*args, **kwds)
        except Exception:  # noqa: BLE001 - a user's: counted, logged
            _ca.callback_failed(self._core, self.pvname, "connection or access callback")

    def _on_core_connection(self, connected: bool, native_type: int) -> None:
        import time

        with lock:
            if self._told is connected:
                return
            self._told = connected
        self.run_connection_callbacks(connected, time.time())

    def _on_core_access(self, read: bool, write: bool) -> None:
        self.run_access_event_callbacks(read, write)


def _nothing() -> Core | None:
    return None


def to_int(chid: Any) -> int:
    """The number of a chid, whether it is an object or the number itself."""
    number: int = getattr(chid, "value", chid)
    return number


def key_of(core: Core) -> str:
    """Under what name the registry knows a channel: its own, and its priority if that is not the usual one."""
    return f"{core.name} (priority {core.priority})" if core.priority else core.name


def entry(context: int, name: str, core: Core, *, keep: bool = False) -> _CacheItem:
    """The registry's entry of that channel, made if there is none."""
    key = key_of(core)
    with lock:
        item = cache[context].get(key)
        if item is not None:
            known = item._core or item._weak()
            if known is core:
                if keep:
                    item.keep(core)
                return item
            drop(item)
        item = _CacheItem(dbr.chid_t(next(_numbers)), name)
        item.context = context
        item.key = key
        number = item.chid_int
        if keep:
            item.keep(core)
        gone = _Gone(context, key, number)
        item._weak = weakref.ref(core, gone)
        cache[context][key] = by_number[number] = item
        return item


class _Gone:
    """Takes an entry out of the registry when its channel has been freed."""

    __slots__ = ("cache", "context", "name", "number", "numbers")

    def __init__(self, context: int, name: str, number: int) -> None:
        self.context = context
        self.name = name
        self.number = number
        self.cache = cache  # held here: at the end of the program the module's names are gone
        self.numbers = by_number

    def __call__(self, _: object) -> None:
        # may run at any point of any thread, even inside the lock's holder: dict operations alone
        item = self.numbers.pop(self.number, None)
        names = self.cache.get(self.context)
        if names is not None and item is not None and names.get(self.name) is item:
            names.pop(self.name, None)


def drop(item: _CacheItem) -> None:
    """Take an entry out of the registry."""
    by_number.pop(item.chid_int, None)
    names = cache.get(item.context or 0)
    if names is not None and names.get(item.key) is item:
        del names[item.key]


def find(chid: Any, function: str = "") -> _CacheItem:
    """The entry of a chid; raises pyepics' exceptions for what is none."""
    number: object = to_int(chid)
    if not isinstance(number, int) or isinstance(number, bool):
        raise ChannelAccessException(f"{function}: {NOT_A_CHID}!")
    item = by_number.get(number)
    if item is None:
        raise ChannelAccessException(UNEXPECTED_CHID)
    return item


def forget() -> None:
    """Empty the registry: after a fork, or when Channel Access ends."""
    cache.clear()
    by_number.clear()
