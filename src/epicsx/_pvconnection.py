"""The connected half of a PV: its channel, its connection step, its monitor, and the containers of its callbacks.

Threads
    Any thread may use a PV, also inside its own callbacks. Value callbacks run on the dispatcher; connection and access
    callbacks too, or in the constructor's thread where the channel is connected already. The step that a connection
    needs (`_settle`) is short, idempotent, and done by whoever needs it first; no user's code runs under its lock.

Lifetime
    A PV with a callback of any kind is kept by its context until its callbacks are removed or ``disconnect()`` is
    called. One without is freed with its last reference, and its channel closes if nobody else uses it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from . import _ca, _chids, _filters, _polling, _texts, _values, ca, dbr
from ._deliver import Face, delivering
from ._listeners import CallbackDict, CallbackList
from .errors import CAError

if TYPE_CHECKING:
    from ._ca import Core
    from ._sample import Sample

CONNECTION = "connection or access callback"

_PVcache_: dict[tuple[Any, str, int | None], Any] = {}
"""What ``get_pv`` has made: (name, form, context) -> PV."""

_settling = threading.RLock()
_news = threading.Condition()  # connection callbacks have run
_waiting_for_news = 0

_FORMS = {"native": 0, "time": dbr.TIME_STRING, "ctrl": dbr.CTRL_STRING}
_UNMADE = object()


def _after_fork() -> None:
    global _settling, _news, _waiting_for_news
    _settling = threading.RLock()
    _news = threading.Condition()
    _waiting_for_news = 0
    _PVcache_.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Filtered:
    """A second channel of a PV, with a filter; where the server knows none, it never connects and is not used."""

    def __init__(self, pv: PVConnection, core: Core) -> None:
        self.pv = weakref.ref(pv)
        self.core = core
        core.listen(self)

    def _on_core_connection(self, connected: bool, native_type: int) -> None:
        pv = self.pv()
        if connected and pv is not None and pv._filtered is self:
            with _settling:
                pv._mask = None
                pv._check_auto_monitor()

    def _on_core_access(self, read: bool, write: bool) -> None:
        pass


class _Teller:
    """Passes the news of a large PV's channel in the default lane to the thread that delivers its values."""

    def __init__(self, events: Core) -> None:
        self.events = events

    def _on_core_connection(self, connected: bool, native_type: int) -> None:
        self.events.tell(connected)

    def _on_core_access(self, read: bool, write: bool) -> None:
        self.events.tell(self.events.connected)


class PVConnection:
    """A PV's channel: found, connected, monitored, lost and found again."""

    pvname: str
    form: str
    verbose: bool
    connection_timeout: float
    context: int | None
    _auto_monitor: bool | int | None
    _user_max_count: int | None
    _core: Core

    # Thousands of PVs are made at once, and most never need these.
    _face: Face | None = None
    _chid: Any = _UNMADE
    _callbacks: CallbackDict | None = None
    _connection_callbacks: CallbackList | None = None
    _access_callbacks: CallbackList | None = None
    _put_complete: bool | None = None
    _monitor_delta: float | None = None
    _mask: int | None = None
    _printer: Any = None
    _filtered: _Filtered | None = None
    _settled = 0  # the number of the connection that has been settled
    _told: bool | None = None  # the state that connection callbacks were told, or are being told
    _announced = False  # they have run
    _telling = 0  # the thread in which they run
    _rights: tuple[bool, bool] | None = None
    _pinned = False
    _listens = False
    _heard: Core  # whose news are heard
    _teller: _Teller | None = None  # who passes on those of the default lane
    _closed = False
    _forced: bool | None = None

    # ---------------------------------------------------------- the connection

    def _begin(self) -> None:
        """Hear of the connection; if it is there already, it is told here and now."""
        core = self._core
        self._listen()
        if core.connected:
            self._on_core_connection(True, core.native_type, at_once=True)

    def _listen(self) -> None:
        """Hear of connection and rights by the thread that delivers the values: that of the lane they come by."""
        events = self._face.events if self._face is not None and self._face.subscribed else None
        self._listens = True
        self._heard = events or self._core
        self._heard.listen(self)
        if self._heard is not self._core:
            self._teller = _Teller(self._heard)
            self._core.listen(self._teller)

    def _pin(self, wanted: bool) -> None:
        # By a bound method: the context keeps a set, and PVs of one name are equal to one another.
        self._pinned = wanted
        context = self._core.context
        (context.pin if wanted else context.unpin)(self._listeners_changed)

    @staticmethod
    def _settling() -> threading.RLock:
        """The lock under which what is told, and to whom, changes."""
        return _settling

    def _listeners_changed(self, first: CallbackList | None = None) -> None:
        """Somebody has changed a container of callbacks; `first` is a list that was empty."""
        wanted = bool(self._callbacks or self._connection_callbacks or self._access_callbacks)
        with _settling:
            if wanted != self._pinned:
                self._pin(wanted)
            if wanted and not self._listens and not self._closed:
                self._listen()
                if self._core.connected:  # who comes later is told of the next change
                    self._told = self._announced = True
            if first is not None and self._core.connected and self._settled == self._core.connects:
                # The same where the news are still on their way, but the PV has been used already.
                if first is self._access_callbacks:
                    self._rights = (self._core.read_access, self._core.write_access)
                elif self._told is not True:
                    self._told = self._announced = True
        if self._face is not None:
            self._face.set_listening(self._wants_events())

    def _join_connection(self, callback: Callable[..., Any]) -> bool:
        """Add a connection callback; whether it must be told by the caller that the PV is connected."""
        with _settling:
            self.connection_callbacks.append(callback)
            return self._told is True

    def _join_access(self, callback: Callable[..., Any]) -> bool:
        """Add an access callback; whether it must be told by the caller of the access rights."""
        with _settling:
            self.access_callbacks.append(callback)
            return self._rights is not None and self._core.connected

    def _has_told(self) -> tuple[bool, bool, bool]:
        """Whether its callbacks have been told of a connection, of access rights, of a value."""
        valued = self._face is not None and self._face.stats.delivered > 0
        return self._told is True, self._rights is not None, valued

    def _settle(self) -> bool:
        """What a new connection needs: whether to monitor, and the monitor. Then the PV counts as connected."""
        core = self._core
        connects = core.connects
        if self._settled == connects:
            return True
        with _settling:
            if self._settled != connects and not self._closed:
                if self._auto_monitor is None:
                    n = min(core.count, self._user_max_count or core.count)
                    self._auto_monitor = n < ca.AUTOMONITOR_MAXLENGTH
                self._check_auto_monitor()
                self._settled = connects
        return True

    def _call(self, callbacks: list[Any], *args: Any, **kwds: Any) -> None:
        for callback in callbacks:
            if not callable(callback):
                continue
            try:
                callback(*args, pv=self, **kwds)
            except Exception:  # noqa: BLE001 - a user's: counted, logged
                _ca.callback_failed(self._core, self.pvname, CONNECTION)

    def _on_core_connection(self, connected: bool, native_type: int, at_once: bool = False) -> None:
        """Connection news, on the dispatcher or (`at_once`) in the constructor: users are told, then the PV is so."""
        if (
            connected
            and self._teller is not None
            and not (self._core.connected and self._heard.connected)
        ):
            return  # a large PV has two channels: it is connected when both are, and told so by the second
        with _settling:
            if self._told is connected or self._closed:
                return
            self._told = connected
            self._announced = False
            self._forced = None
            callbacks = list(self._connection_callbacks or ())  # who comes later is told by get_pv
        core = self._core
        if (
            connected and not at_once
        ):  # pyepics' order; the other way round at a loss and in the constructor
            self._on_core_access(core.read_access, core.write_access)
        if callbacks:
            self._telling = get_ident()
            self._call(callbacks, pvname=self.pvname, conn=connected)
            self._telling = 0
        elif not connected and self.verbose:
            ca.write(f"PV '{self.pvname}' disconnected.")
        if connected and at_once:
            self._on_core_access(core.read_access, core.write_access)
        self._announced = connected
        if connected and core.connected:
            self._settle()
        if _waiting_for_news:
            with _news:
                _news.notify_all()

    def _on_core_access(self, read: bool, write: bool) -> None:
        with _settling:
            callbacks = list(self._access_callbacks or ())
            if not callbacks or self._rights == (read, write) or self._closed:
                return
            self._rights = (read, write)
        self._call(callbacks, read, write)

    @property
    def connected(self) -> bool:
        """Whether it is connected, and its connection callbacks have been told so."""
        if self._forced is not None:
            return self._forced
        core = self._core
        if self._closed or not core.connected:
            return False
        if self._connection_callbacks and not self._announced:
            return False
        return self._settled == core.connects or self._settle()

    @connected.setter
    def connected(self, value: bool) -> None:
        self._forced = value

    @property
    def chid(self) -> Any:
        """The id of its channel for the functions of `epicsx.ca`."""
        if self._chid is _UNMADE:
            if self.context is None:
                return None
            self._chid = _chids.entry(self.context, self.pvname, self._core).chid
        return self._chid

    @chid.setter
    def chid(self, value: Any) -> None:
        self._chid = value

    def wait_for_connection(self, timeout: float | None = None) -> bool:
        """Whether it is connected, now or within `timeout` seconds (``connection_timeout``)."""
        core = self._core
        if self.context is None or ca.libca is ca._LIBCA_FINALIZED:
            raise RuntimeError(_texts.CONTEXT_UNSET)
        if self._closed:
            return False
        if timeout is None:
            timeout = self.connection_timeout
        until = time.monotonic() + timeout
        if not core.connected and (core.state == 3 or not core.wait_connected(timeout)):
            return False
        _polling.run()
        self._settle()
        if self._connection_callbacks and not self._announced:
            self._wait_for_callbacks(until)
        return True

    def _wait_for_callbacks(self, until: float) -> None:
        """Have the PV's own connection callbacks run first; no longer than `until`, and never by their own thread."""
        global _waiting_for_news
        if delivering() or self._telling == get_ident():
            return
        with _news:
            _waiting_for_news += 1
            try:
                while not self._announced and self._core.connected:
                    left = until - time.monotonic()
                    if left <= 0:
                        return
                    _news.wait(min(left, 0.1))
                    _polling.run()
            finally:
                _waiting_for_news -= 1

    def _ready(self, timeout: float | None = None) -> bool:
        core = self._core
        if (
            self._settled == core.connects
            and core.connected
            and self.context is not None
            and not self._closed
        ):
            return True
        return self.wait_for_connection(timeout)

    def _reopen(self) -> None:
        """After ``disconnect()``, or after its channel was cleared: begin anew."""
        if self.context is None:
            raise RuntimeError(_texts.CONTEXT_UNSET)
        if self._core.state == 3:
            self._release()
            self._face = None
            self._core = ca._core(self.pvname)
        elif not self._closed:
            return
        self._chid = _UNMADE  # it may have been cleared
        self._closed = False
        self._told = None
        self._settled = 0
        if self._pinned or self._auto_monitor is not False:
            self._begin()

    def connect(self, timeout: float | None = None) -> bool:
        """Whether it is connected; waits as ``wait_for_connection``, and takes it up again after ``disconnect()``."""
        self._forced = None
        self._reopen()
        return self.wait_for_connection(timeout)

    def reconnect(self) -> bool:
        """Whether it is connected, after its monitor and its connection have been taken up anew."""
        self._clear_auto_monitor_subscription()
        self._forced = None
        self._settled = 0
        self._reopen()
        self.force_connect()
        return self.wait_for_connection()

    def force_connect(
        self, pvname: str | None = None, chid: Any = None, conn: bool = True, **kws: Any
    ) -> None:
        """Run the connection callbacks and the connection step again, if it is connected."""
        if self.context is None:
            raise RuntimeError(_texts.CONTEXT_UNSET)
        if chid is not None:
            self.chid = getattr(chid, "value", chid)
        if self._core.connected or not conn:
            self._told = None
            self._rights = None
            self._on_core_connection(conn, self._core.native_type)

    def force_read_access_rights(self) -> None:
        """Nothing that needs doing: the access rights are always those last heard."""

    def disconnect(self, deepclean: bool = True) -> None:
        """End the monitor and all callbacks, and leave ``get_pv``'s cache. The channel closes with its last user."""
        key = (self.pvname, self.form, self.context)
        if _PVcache_.get(key) is self:
            del _PVcache_[key]
        with _settling:
            self._closed = True
            self._settled = -1
            self._told = None
            self._announced = False
            self._rights = None
        self._release()
        for container in (self._callbacks, self._connection_callbacks, self._access_callbacks):
            if container:
                container.clear()
        if self._face is not None:
            self._face.reset()

    def _release(self) -> None:
        self._clear_auto_monitor_subscription()
        self._filtered = None
        if self._listens:
            self._listens = False
            self._heard.unlisten(self)
            if self._teller is not None:
                self._core.unlisten(self._teller)
                self._teller = None

    # ------------------------------------------------------------- the monitor

    def _wants_events(self) -> bool:
        """Whether each update is to be delivered, or only the newest one kept."""
        return bool(self._callbacks)

    def _make_face(self) -> Face:
        with _settling:
            face = self._face
            if face is None:
                face = Face(self)
                face.text_limit = ca.AUTOMONITOR_MAXLENGTH
                face.monitor_delta = self._monitor_delta
                form = self.form if self.form in _FORMS else "native"
                face.attach(self._core, form, self.chid)
                face.set_listening(self._wants_events())
                self._face = face
        return face

    def _check_auto_monitor(self) -> None:
        """Have the monitor that ``auto_monitor`` asks for, or none."""
        core = self._core
        auto = self._auto_monitor
        if auto is None or core.connects == 0 or self._closed:
            return  # decided when it connects
        if auto is False or not auto:
            self._clear_auto_monitor_subscription()
            return
        mask = ca.DEFAULT_SUBSCRIPTION_MASK if auto is True else int(auto)
        face = self._face or self._make_face()
        face.text_limit = ca.AUTOMONITOR_MAXLENGTH
        if face.subscribed and self._mask == mask:
            return
        if self.form == "ctrl":
            self._ask_for_control()  # first, so that the first event has them
        self._mask = mask
        filtered = self._filtered or self._filter()
        if filtered is not None and filtered.core.connected:
            # The monitor runs on the channel with the filter, all else on the plain one.
            face.attach(filtered.core, self.form, None)
            face.subscribe(self._user_max_count or 0, mask)
            face.attach(core, self.form if self.form in _FORMS else "native", self.chid)
        else:
            face.subscribe(self._user_max_count or 0, mask)
            if self._listens and face.events is not self._heard:
                self._heard.unlisten(self)
                self._listen()
        if self.verbose:
            self._print_updates(mask)

    def _filter(self) -> _Filtered | None:
        """The channel that tells only of changes by ``monitor_delta``; the IOC's filter, not its MDEL for everybody."""
        core, delta = self._core, self._monitor_delta
        if delta is None or _filters.has_filters(self.pvname):
            return None
        if core.count == 1 and core.native_type in (dbr.FLOAT, dbr.DOUBLE) and 0 < delta < 1e300:
            name = _filters.filter_name(
                self.pvname, deadband=float(delta)
            )  # a Decimal is good, too
            self._filtered = _Filtered(self, _ca.core(name))
        return self._filtered

    def _ask_for_control(self) -> None:
        try:
            self._core.control(0)
        except CAError:
            pass  # on their way

    def _print_updates(self, mask: int) -> None:
        face = self._face

        def printer(sample: Sample) -> None:
            if face is not None:
                text = face.char_value(_values.value_of(sample))
                ca.write(f"{self.pvname}: {text} ({_texts.fmt_time(sample.timestamp or None)})")

        if self._printer is not None:
            self._printer.close()
        self._printer = self._core.subscribe(printer, mask)

    def _clear_auto_monitor_subscription(self) -> None:
        if self._printer is not None:
            self._printer.close()
            self._printer = None
        if self._face is not None and self._mask is not None:
            self._mask = None
            self._face.unsubscribe()

    @property
    def auto_monitor(self) -> bool | int | None:
        """Whether it is monitored: a bool, or the mask that was asked for; None while that is not decided yet."""
        return self._auto_monitor

    @auto_monitor.setter
    def auto_monitor(self, value: bool | int | None) -> None:
        with _settling:
            self._auto_monitor = value
            if value is None and self._core.connects:
                self._settled = 0
                self._settle()
            else:
                self._check_auto_monitor()
        if value is not False and not self._listens and not self._closed:
            self._begin()

    @property
    def auto_monitor_mask(self) -> int | None:
        """The mask of its monitor; None if there is none."""
        return self._mask

    def clear_auto_monitor(self) -> None:
        """End the monitor."""
        self.auto_monitor = False

    def poll(self, evt: float = 1.0e-4, iot: float = 1.0) -> None:
        """Send what has been asked for, and wait `evt` seconds."""
        ca.poll(evt=evt, iot=iot)

    # -------------------------------------------- the containers of callbacks

    @property
    def callbacks(self) -> CallbackDict:
        """Index -> (function, keywords), run in the order of the indices. May be changed."""
        found = self._callbacks
        if found is None:
            found = self._callbacks = CallbackDict(self)
        return found

    @callbacks.setter
    def callbacks(self, given: Any) -> None:
        self._callbacks = CallbackDict(self, given or ())
        self._listeners_changed()

    @property
    def connection_callbacks(self) -> CallbackList:
        """Functions called when the connection comes or goes. May be changed."""
        found = self._connection_callbacks
        if found is None:
            found = self._connection_callbacks = CallbackList(self)
        return found

    @connection_callbacks.setter
    def connection_callbacks(self, given: Any) -> None:
        found = self._connection_callbacks = CallbackList(self)
        found.extend(given or ())

    @property
    def access_callbacks(self) -> CallbackList:
        """Functions called when the access rights change. May be changed."""
        found = self._access_callbacks
        if found is None:
            found = self._access_callbacks = CallbackList(self)
        return found

    @access_callbacks.setter
    def access_callbacks(self, given: Any) -> None:
        found = self._access_callbacks = CallbackList(self)
        found.extend(given or ())
