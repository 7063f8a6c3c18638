"""Process variables as pyepics has them: `PV`, `get_pv`. How a PV connects is in ``_pvconnection``."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy

from . import _texts, _values, ca, dbr
from ._deliver import runs_callbacks
from ._listeners import CallbackDict, CallbackList
from ._pvconnection import _FORMS, PVConnection
from ._pvconnection import _PVcache_ as _PVcache_
from ._texts import failed
from ._texts import fmt_time as fmt_time
from .errors import BadTypeError, CAError, CATimeoutError
from .utils import bytes2str

if TYPE_CHECKING:
    from ._sample import Sample
    from .counts import PVStats

_FACTS = frozenset(
    "pvname type typefull ftype chid host count nelm access read_access write_access".split()  # noqa: SIM905
)
_LEFT_BEHIND = frozenset(("host", "count", "access", "read_access", "write_access"))
"""What a PV no longer tells after ``disconnect()``."""
_OF_VALUE = frozenset(
    ("value", "char_value", "status", "severity", "timestamp", "posixseconds", "nanoseconds")
)


def get_pv(
    pvname: Any,
    form: str = "time",
    connect: bool = False,
    context: int | None = None,
    timeout: float = 5.0,
    connection_callback: Callable[..., Any] | None = None,
    access_callback: Callable[..., Any] | None = None,
    callback: Callable[..., Any] | None = None,
    verbose: bool = False,
    count: int | None = None,
    auto_monitor: bool | int | None = None,
    monitor_delta: float | None = None,
) -> PV:
    """The PV of that name and form, made if it is not in the cache yet.

    Parameters
    ----------
    connect : bool
        Wait for its connection up to `timeout` seconds, and print a line if it does not come.
    timeout : float, seconds
        Also the new PV's ``connection_timeout``.
    callback, connection_callback, access_callback : callable
        As of `PV`; on a PV from the cache they are added, and told the present state at once.
    count, auto_monitor, monitor_delta, verbose
        As of `PV`; used where it is made. A true `auto_monitor` also switches monitoring on.
    """
    if form not in _FORMS:
        form = "time"
    if context is not None:
        _texts.warn_user(_texts.CONTEXT_DEPRECATED)
    else:
        context = ca._context()
    cls = default_pv_class
    if isinstance(pvname, bytes):
        pvname = bytes2str(pvname)
    key = (pvname.pvname if isinstance(pvname, cls) else pvname, form, context)
    known: PV | None = _PVcache_.get(key)
    made: PV | None = None
    if known is None:
        if context != ca.current_context():
            raise RuntimeError("PV is not in cache for user-requested context")
        made = cls(
            key[0],
            form=form,
            callback=callback,
            connection_callback=connection_callback,
            access_callback=access_callback,
            connection_timeout=timeout,
            count=count,
            verbose=verbose,
            auto_monitor=auto_monitor,
            monitor_delta=monitor_delta,
        )
        known = _PVcache_.setdefault(key, made)
    found: PV = known
    if found is not made:
        told, rights, valued = False, False, False
        if made is not None:  # another thread has made one meanwhile: this one goes
            told, rights, valued = made._has_told()
            made.disconnect()
        if connection_callback is not None:
            untold = found._join_connection(connection_callback)
            if untold and not told:
                connection_callback(pvname=found.pvname, conn=True, pv=found)
        if access_callback is not None:
            untold = found._join_access(access_callback)
            if untold and not rights:
                access_callback(found.read_access, found.write_access, pv=found)
        if callback is not None:
            index = found.add_callback(callback)
            if not valued:
                found.run_callback(index)
        if auto_monitor and not found.auto_monitor:
            found.auto_monitor = auto_monitor
    if connect and not found.wait_for_connection(timeout=timeout):
        _texts.not_connected(pvname, timeout)
        ca.write(_texts.cannot_connect(pvname))
    return found


def clear_pvcache() -> None:
    """Disconnect all PVs that `get_pv` has made, and forget them."""
    known = list(_PVcache_.values())
    _PVcache_.clear()
    for pv in known:
        pv.disconnect()


ca.register_clear_cache(clear_pvcache)


def _alarm_name(kind: Any, code: int | None) -> str:
    name: str = kind(-1 if code is None else code).name  # what is not known yet is UNKNOWN
    return name


def _field(name: str, doc: str) -> Any:
    def fget(self: PV) -> Any:
        return self._getarg(name)

    return property(fget, doc=doc)


class PV(PVConnection):
    """An EPICS process variable: its value, everything known about it, and callbacks on its changes.

    Parameters
    ----------
    pvname : str
        Its name.
    callback : callable, or a list of them
        ``callback(pvname=, value=, char_value=, ..., cb_info=)`` at each update.
    form : str
        ``'time'``, ``'native'`` or ``'ctrl'``.
    verbose : bool
        Print each update.
    auto_monitor : bool, int or None
        Whether to be told of changes by the server; an int is the mask of `epicsx.DBE` flags; None monitors all but
        large arrays (``ca.AUTOMONITOR_MAXLENGTH``).
    count : int
        At most so many elements of an array.
    connection_callback : callable
        ``connection_callback(pvname=, conn=, pv=)`` when the connection comes or goes.
    connection_timeout : float, seconds
        How long calls wait for the connection; None is ``ca.DEFAULT_CONNECTION_TIMEOUT``.
    access_callback : callable
        ``access_callback(read_access, write_access, pv=)`` when the access rights change.
    monitor_delta : float
        The smallest change of interest.
    """

    _fmtsca = "<PV '%(pvname)s', count=%(count)i, type=%(typefull)s, access=%(access)s>"
    _fmtarr = "<PV '%(pvname)s', count=%(count)i/%(nelm)i, type=%(typefull)s, access=%(access)s>"
    _fields = (
        *("pvname", "value", "char_value", "status", "ftype", "chid", "host", "count", "access"),
        *("write_access", "read_access", "severity", "timestamp", "posixseconds", "nanoseconds"),
        *("precision", "units", "enum_strs", "monitor_delta", "upper_disp_limit"),
        *("lower_disp_limit", "upper_alarm_limit", "lower_alarm_limit", "lower_warning_limit"),
        *("upper_warning_limit", "upper_ctrl_limit", "lower_ctrl_limit"),
    )

    def __init__(
        self,
        pvname: str | bytes,
        callback: Any = None,
        form: str = "time",
        verbose: bool = False,
        auto_monitor: bool | int | None = None,
        count: int | None = None,
        connection_callback: Callable[..., Any] | None = None,
        connection_timeout: float | None = None,
        access_callback: Callable[..., Any] | None = None,
        monitor_delta: float | None = None,
    ) -> None:
        self.pvname: str = (bytes2str(pvname) if isinstance(pvname, bytes) else pvname).strip()
        pvname = self.pvname
        self.form: str = form.lower()
        self.verbose = verbose
        self._auto_monitor = auto_monitor
        self.connection_timeout: float = (
            ca.DEFAULT_CONNECTION_TIMEOUT if connection_timeout is None else connection_timeout
        )
        self._user_max_count = count
        if monitor_delta is not None:
            self._monitor_delta = monitor_delta
        self.context: int | None = ca._context()
        self._core = ca._core(pvname)
        if callback is not None:
            given = callback if isinstance(callback, (list, tuple)) else (callback,)
            self._callbacks = CallbackDict(
                self, {i: (f, {}) for i, f in enumerate(given) if callable(f)}
            )
        if connection_callback is not None:
            self._connection_callbacks = CallbackList(self, (connection_callback,))
        if access_callback is not None:
            self._access_callbacks = CallbackList(self, (access_callback,))
        if callback is not None or connection_callback is not None or access_callback is not None:
            self._pin(True)
            self._begin()
        elif auto_monitor is not False:
            self._begin()

    # ------------------------------------------------------------------ values

    @property
    def ftype(self) -> int:
        """The DBR type that it reports, by its record's type and its form; 13 (no type) before the first connection."""
        native = int(self._core.native_type)
        if native < 0:
            return 13
        offset = _FORMS.get(self.form, 0)
        return dbr.TIME_STRING if native == 0 and offset else native + offset

    @property
    def _args(self) -> dict[str, Any]:
        found: dict[str, Any] = (self._face or self._make_face()).args()
        return found

    def get(
        self,
        count: int | None = None,
        as_string: bool = False,
        as_numpy: bool = True,
        timeout: float | None = None,
        with_ctrlvars: bool = False,
        use_monitor: bool = True,
    ) -> Any:
        """The present value; None if it is not connected or the server does not answer in time.

        Parameters
        ----------
        count : int
            At most so many elements of an array.
        as_string : bool
            Its text: a number by its precision, an enum by its state, characters as a str.
        as_numpy : bool
            Arrays as ndarray, else as list.
        timeout : float, seconds
            For the connection (None is ``connection_timeout``) and for a read from the server (1, more for an array).
        with_ctrlvars : bool
            Fetch units, limits, precision and state names too.
        use_monitor : bool
            Take the newest value that a monitor brought, where there is one, instead of asking the server.
        """
        if self._replaced("get_with_metadata"):
            found = self.get_with_metadata(
                count=count,
                as_string=as_string,
                as_numpy=as_numpy,
                timeout=timeout,
                with_ctrlvars=with_ctrlvars,
                use_monitor=use_monitor,
            )
            return None if found is None else found["value"]
        if not self._ready(timeout):
            self._not_connected(timeout)
            return None
        if with_ctrlvars:
            self._know_control()
        value, _ = self._value(count, self.ftype, timeout, use_monitor)
        return self._shaped(value, count, as_string, as_numpy)

    def get_with_metadata(
        self,
        count: int | None = None,
        as_string: bool = False,
        as_numpy: bool = True,
        timeout: float | None = None,
        with_ctrlvars: bool = False,
        form: str | None = None,
        use_monitor: bool = True,
        as_namespace: bool = False,
    ) -> Any:
        """The present value and what is known with it, as a dict or, `as_namespace`, by attributes; None as of ``get``.

        Parameters
        ----------
        form : str
            ``'time'``, ``'ctrl'``, ``'native'``: what to ask the server for, if not the PV's own form.
        """
        if not self._ready(timeout):
            self._not_connected(timeout)
            return None
        native = int(self._core.native_type)
        ftype = self.ftype
        if form is not None:
            ftype = ca.promote_fieldtype(native, use_time=form == "time", use_ctrl=form == "ctrl")
        if with_ctrlvars:
            self._know_control()
        value, sample = self._value(count, ftype, timeout, use_monitor)
        if sample is False:
            return None
        found = {} if sample is None else _values.metadata(sample)
        if sample is None or (with_ctrlvars and (form or self.form) != "ctrl"):
            found = {**self._args, **found}
            if sample is not None:  # an update may have come behind it
                found["char_value"] = self._set_charval(value, call_ca=False)
        found["value"] = self._shaped(value, count, as_string, as_numpy)
        return SimpleNamespace(**found) if as_namespace else found

    def _not_connected(self, timeout: float | None) -> None:
        seconds = self.connection_timeout if timeout is None else timeout
        _texts.not_connected(self.pvname, seconds)

    def _value(
        self, count: int | None, ftype: int, timeout: float | None, use_monitor: bool
    ) -> tuple[Any, Any]:
        """A value and the sample in which it came: None if it was there already, False if there is none."""
        face = self._face or self._make_face()
        if use_monitor and self._auto_monitor and ftype == self.ftype:
            value = face.value()
            if value is not None and (
                count is None or count <= (len(value) if hasattr(value, "__len__") else 1)
            ):
                return value, None
        core = self._core
        n = self._user_max_count or 0 if count is None else count
        # A record that has fewer elements than asked for would answer with zeros behind them. Only where reading all
        # is dear, as many as were asked for are asked for.
        whole = n == 0 or n >= core.count or (count is not None and core.count < 65536)
        sample = _values.read(core, ftype, 0 if whole else n, timeout, lambda: self.chid)
        if sample is None:
            return None, False
        if count is None or (whole and not self._user_max_count):
            face.merge(sample)
        value = _values.value_of(sample)
        if whole and self._user_max_count and count is None and hasattr(value, "__len__"):
            value = value[: self._user_max_count]
        return value, sample

    def _shaped(self, value: Any, count: int | None, as_string: bool, as_numpy: bool) -> Any:
        if as_string:
            return None if value is None else self._set_charval(value, force_long_string=True)
        if value is None or self._core.count <= 1:
            return value
        if not hasattr(value, "__len__"):
            value = [value]  # an array record with one element
        if as_numpy and ca.HAS_NUMPY:
            if not isinstance(value, numpy.ndarray):
                value = numpy.asarray(value, None if len(value) else str)
        elif isinstance(value, numpy.ndarray):
            value = value.tolist()
        return value if count is None or count >= len(value) else value[:count]

    def _set_charval(self, val: Any, call_ca: bool = True, force_long_string: bool = False) -> Any:
        """The text of any value, as ``char_value`` has it."""
        if val is None:
            return "None"
        core = self._core
        face = self._face or self._make_face()
        face.text_limit = ca.AUTOMONITOR_MAXLENGTH
        scalar = (face.field("count") or 1) <= 1
        if call_ca and scalar and core.native_type in (dbr.FLOAT, dbr.DOUBLE, dbr.ENUM):
            if self.form in ("time", "ctrl") or face.field("status") is not None:
                self._know_control()
            else:  # control data come with an alarm, and events of this form bring none
                self.get_ctrlvars()
        return face.char_value(val, as_string=force_long_string)

    def _control(self, timeout: float, warn: bool = False) -> Any:
        """The channel's control data, asked for once; None if they cannot be had."""
        core = self._core
        control = core.peek_control()
        if control is not None or not core.connected or core.native_type == dbr.STRING:
            return control
        try:
            return core.control(timeout)
        except CATimeoutError as error:
            failed(error, None)
            if warn:
                _texts.warn_user(_texts.get_timed_out(self.pvname, timeout))
            return None
        except CAError as error:
            return failed(error, None)

    def _know_control(self) -> None:
        """Have units, limits, precision and state names known, as far as they can be."""
        if self._core.peek_control() is None:
            self._ask_control(5.0)

    def _ask_control(self, seconds: float, **given: Any) -> None:
        """Ask for them, or have an overridden ``get_ctrlvars(**given)`` do so."""
        if self._replaced("get_ctrlvars"):
            self.get_ctrlvars(**given)
        else:
            self._control(seconds)

    def _replaced(self, name: str) -> bool:
        """Whether a subclass or a program has put another method in the place of one that others here stand on."""
        return name in self.__dict__ or getattr(type(self), name) is not _METHODS[name]

    def _wants_events(self) -> bool:
        return bool(self._callbacks) or self._replaced("run_callbacks")

    def get_ctrlvars(self, timeout: float = 5, warn: bool = True) -> dict[str, Any] | None:
        """Units, limits, precision, state names, with the alarm; None if there is no answer in time."""
        if not self._ready():
            self._not_connected(None)
            return None
        core = self._core
        if core.native_type == dbr.STRING:
            return self.get_timevars(timeout, warn)
        control = self._control(timeout, warn)
        if control is None:
            return None
        face = self._face or self._make_face()
        if face.subscribed and face.field("status") is not None:
            alarm = {"status": face.field("status"), "severity": face.field("severity")}
        else:
            sample = self._sample(dbr.CTRL_STRING, timeout, warn)
            alarm = {} if sample is None else _values.metadata(sample)
        return _values.control_fields(control, alarm)

    def get_timevars(self, timeout: float = 5, warn: bool = True) -> dict[str, Any] | None:
        """The time stamp, with the alarm, read from the server; None if there is no answer in time."""
        if not self._ready():
            self._not_connected(None)
            return None
        sample = self._sample(dbr.TIME_STRING, timeout, warn)
        return None if sample is None else _values.metadata(sample)

    def _sample(self, of: int, timeout: float, warn: bool) -> Sample | None:
        """A fresh sample of TIME or CTRL type; small records' values are taken along."""
        core = self._core
        small = core.count <= 1000 and not self._user_max_count
        ftype = int(core.native_type) + of
        sample = _values.read(core, ftype, 0 if small else 1, timeout, lambda: self.chid, warn)
        if sample is not None and small:
            # as pyepics' reads of this kind, these bring no value; but the first one is welcome
            (self._face or self._make_face()).merge(sample, False)
        return sample

    # -------------------------------------------------------------------- puts

    def put(
        self,
        value: Any,
        wait: bool = False,
        timeout: float = 30.0,
        use_complete: bool = False,
        callback: Callable[..., Any] | None = None,
        callback_data: Any = None,
    ) -> int | None:
        """Write a value: 1; -1 if waiting for its completion timed out; None if not connected, or if it failed.

        Parameters
        ----------
        wait : bool
            Return when the record has finished processing, or after `timeout` seconds.
        use_complete : bool
            Have ``put_complete`` say when the record has finished.
        callback : callable
            ``callback(pvname=, data=callback_data)`` when the record has finished; the items of `callback_data` are its
            keywords if it is a dict.

        Raises
        ------
        TypeError, ValueError
            The value does not fit. Nothing has been sent.
        CASeverityException
            No write access.
        """
        if not self._ready():
            self._not_connected(None)
            return None
        if not (use_complete or callback is not None):
            self._put_complete = None
            return _values.send_put(self._core, value, wait, timeout)
        self._put_complete = False if use_complete else None
        told = ca.put_callback(self.pvname, callback, callback_data)

        def done() -> None:
            self._put_complete = True
            if told is not None:
                told()

        return _values.send_put(self._core, value, wait, timeout, done)

    @property
    def put_complete(self) -> bool | None:
        """Whether the last put with `use_complete` or a callback has finished; None after any other."""
        return self._put_complete

    # --------------------------------------------------------------- callbacks

    def add_callback(
        self,
        callback: Callable[..., Any] | None = None,
        index: Any = None,
        run_now: bool = False,
        with_ctrlvars: bool = True,
        **kw: Any,
    ) -> Any:
        """The index of the callback, which is called with ``**kw`` too at every update from now on.

        Parameters
        ----------
        run_now : bool
            Call it at once, with the present value.
        with_ctrlvars : bool
            Fetch units, limits, precision and state names first, if connected; waits up to 5 seconds, the first time.
        """
        if callable(callback):
            callbacks = self.callbacks
            if index is None:
                index = 1 + max(callbacks, default=0)
            callbacks[index] = (callback, kw)
        else:
            failed(lambda: BadTypeError(f"{callback!r} cannot be called", name=self.pvname), None)
        if with_ctrlvars and self.connected:
            self._ask_control(5.0)
        if run_now:
            self.get(as_string=True)
            if self.connected:
                self.run_callback(index)
        return index

    def remove_callback(self, index: Any = None) -> None:
        """Remove the callback of that index, if there is one."""
        if index in self.callbacks:
            self.callbacks.pop(index)

    def clear_callbacks(
        self, with_access_callback: bool = False, with_connect_callback: bool = False
    ) -> None:
        """Remove all value callbacks, and those of the other kinds if asked to."""
        if self._callbacks:
            self._callbacks.clear()
        if with_access_callback:
            self.access_callbacks = []
        if with_connect_callback:
            self.connection_callbacks = []

    def run_callbacks(self) -> None:
        """Run all value callbacks here, with the present data; within an event, with that of the event."""
        if not self._callbacks:
            return
        if self._replaced("run_callback"):
            for index in sorted(self._callbacks):
                self.run_callback(index)
        else:
            (self._face or self._make_face()).deliver_now()

    def run_callback(self, index: Any) -> None:
        """Run the value callback of that index here, with the present data; within an event, with that of the event."""
        if self._callbacks and index in self._callbacks:
            (self._face or self._make_face()).deliver_now(index)

    # -------------------------------------------------------------- properties

    def _getarg(self, arg: str) -> Any:
        """One field; what is not known yet is fetched."""
        face = self._face or self._make_face()
        if arg in _FACTS:
            if self._closed and arg in _LEFT_BEHIND:
                return None
            if not self._core.connects and not self.wait_for_connection():
                self._not_connected(None)
            return face.field(arg)
        found = face.field(arg)
        if found is not None or arg == "monitor_delta":
            return found
        if arg in _OF_VALUE:
            if not face.has_value:
                self.get()
            if arg not in ("value", "char_value") and face.field(arg) is None and self.connected:
                self.get_timevars(timeout=1, warn=False)
        elif self._ready():
            self._ask_control(1.0, timeout=1, warn=False)
        else:
            self._not_connected(None)
        return face.field(arg)

    def __getval__(self) -> Any:
        return self._getarg("value")

    def __setval__(self, val: Any) -> Any:
        return self.put(val)

    @property
    def value(self) -> Any:
        """The value last seen, which is read if none has been; assigning writes."""
        return self._getarg("value")

    @value.setter
    def value(self, val: Any) -> None:
        self.put(val)

    @property
    def char_value(self) -> Any:
        """The value as text: a number by its precision, an enum by its state, characters as a str."""
        return self._set_charval(self._getarg("value"))

    @property
    def char_status(self) -> str:
        """The alarm status by name."""
        return _alarm_name(dbr.AlarmStatus, self.status)

    @property
    def char_severity(self) -> str:
        """The alarm severity by name."""
        return _alarm_name(dbr.AlarmSeverity, self.severity)

    @property
    def type(self) -> str:
        """The type as text: ``'time_double'``; ``'unknown'`` before the first connection."""
        return str(dbr.Name(self.ftype)).lower()

    @property
    def typefull(self) -> str:
        """The same as ``type``."""
        return self.type

    @property
    def count(self) -> int | None:
        """The number of elements of the value last seen, or else of the record."""
        found: int | None = None if self._closed else self._args["count"]
        return self._getarg("count") if found is None else found

    @property
    def nelm(self) -> int:
        """The record's number of elements; 0 if not connected."""
        if self.context is None:
            raise RuntimeError(_texts.CONTEXT_UNSET)
        return int(self._core.count) if self._core.connected else 0

    status: Any = _field("status", "The alarm status.")
    severity: Any = _field("severity", "The alarm severity.")
    timestamp: Any = _field("timestamp", "Seconds since 1970 of the last update.")
    posixseconds: Any = _field("posixseconds", "Whole seconds since 1970 of the last update.")
    nanoseconds: Any = _field("nanoseconds", "The nanoseconds that ``posixseconds`` leaves out.")
    host: Any = _field("host", "``host:port`` of the server.")
    read_access: Any = _field("read_access", "Whether the server lets us read.")
    write_access: Any = _field("write_access", "Whether the server lets us write.")
    access: Any = _field("access", "The access rights as text.")
    monitor_delta: Any = _field(
        "monitor_delta", "The smallest change of interest; None if not given."
    )
    precision: Any = _field("precision", "The number of digits to show.")
    units: Any = _field("units", "The engineering units.")
    enum_strs: Any = _field("enum_strs", "The names of an enum's states; None for other records.")
    upper_disp_limit: Any = _field("upper_disp_limit", "The highest value to display.")
    lower_disp_limit: Any = _field("lower_disp_limit", "The lowest value to display.")
    upper_alarm_limit: Any = _field("upper_alarm_limit", "Above it the alarm is major.")
    lower_alarm_limit: Any = _field("lower_alarm_limit", "Below it the alarm is major.")
    upper_warning_limit: Any = _field("upper_warning_limit", "Above it the alarm is minor.")
    lower_warning_limit: Any = _field("lower_warning_limit", "Below it the alarm is minor.")
    upper_ctrl_limit: Any = _field("upper_ctrl_limit", "The highest value that may be set.")
    lower_ctrl_limit: Any = _field("lower_ctrl_limit", "The lowest value that may be set.")

    def _getinfo(self) -> str | None:
        if not self._ready():
            self._not_connected(None)
            return None
        self.get_ctrlvars()
        if not (self._face or self._make_face()).has_value:
            self.get()
        return _texts.info(self)

    @property
    def info(self) -> str | None:
        """A paragraph about it; None if it is not connected."""
        return self._getinfo()

    @property
    def stats(self) -> PVStats:
        """One consistent copy of its counts, over all monitors it has had: ``received == delivered + merged + dropped +
        pending``; and callbacks that raised, losses of the connection, rejected puts, what waits.
        """
        return (self._face or self._make_face()).stats

    def __repr__(self) -> str:
        if not self.connected:
            return f"<PV '{self.pvname}': not connected>"
        args = self._args
        return (self._fmtsca if args["count"] == 1 else self._fmtarr) % args

    # PVs of one name are one and the same to a program; pyepics compared channel ids.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PV):
            return False
        return self is other or (self.pvname == other.pvname and self.context == other.context)

    def __hash__(self) -> int:
        return hash(self.pvname)

    def __copy__(self) -> PV:
        made = object.__new__(self.__class__)
        made.__dict__.update(self.__dict__)
        made._pinned = made._listens = False
        return made

    def __reduce__(self) -> Any:
        raise ValueError(f"PV '{self.pvname}' holds a channel: it cannot be pickled or deep-copied")

    def __del__(self) -> None:
        """Nothing: what a PV holds frees itself. Subclasses call it."""


_METHODS = {
    name: PV.__dict__[name]
    for name in ("get_with_metadata", "get_ctrlvars", "run_callbacks", "run_callback")
}
"""What pyepics' other methods call by name, so that programs override them."""

runs_callbacks(PV)

default_pv_class: type[PV] = PV
"""The class that `get_pv` makes."""
