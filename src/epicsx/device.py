"""Groups of PVs whose names begin alike, used by the attributes of one object: `Device`.

Threads
    Any thread may use a Device, also inside callbacks; waiting releases the GIL. Callbacks run as those of PVs do.

Lifetime
    A Device holds its PVs, which are those of ``get_pv``, shared with whoever else asks for the name. A name that was
    only tried, by reading or setting an attribute that turns out not to exist, leaves nothing behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _bulk, _ca, _values, ca, dbr
from ._texts import failed
from .ca import poll
from .errors import CAError
from .pv import get_pv
from .utils import IOENCODING

if TYPE_CHECKING:
    from os import PathLike

    from . import pv

_SLICE = 0.02  # seconds between looks at the record, while one of its fields is awaited


class Device:
    """PVs named ``prefix + delim + attribute``, reached as attributes and by `get` and `put`.

    >>> motor = Device('XX:m1', delim='.', attrs=('VAL', 'RBV'), aliases={'readback': 'RBV'})
    >>> motor.VAL = 1.5                    # writes XX:m1.VAL
    >>> motor.readback                     # reads XX:m1.RBV
    >>> motor.get('VAL', as_string=True)   # the methods have more options

    PVs are made as they are needed and kept in ``_pvs``. Those of `attrs` and `aliases` are made at once: all are
    searched for together, and whatever waits for several of them waits once.

    An attribute of a name not met before is tried as a PV. If it connects, it stays. If not, the answer is an
    AttributeError, and nothing of it stays: after ``_grace`` seconds (0.5) if its record or another PV of the Device
    is connected, so that its server would have answered by then; after the Device's `timeout` (2 seconds if None) if
    nothing is. Names that begin with ``__``, or begin and end with ``_`` as those that IPython and copy ask for, are
    never tried, and none is if `mutable` is False. ``get``, ``put`` and ``PV`` by name wait as a PV does.

    Parameters
    ----------
    prefix : str
        What all names begin with; ``''`` makes a container for any PVs.
    attrs : sequence of str
        Attributes whose PVs are made at once.
    nonpvs : sequence of str
        Names that are plain Python attributes. Subclasses list theirs in ``_nonpvs``; others that are set before
        ``Device.__init__`` has run are dropped.
    delim : str
        Stands between prefix and attribute.
    timeout : float, seconds
        The ``connection_timeout`` of the PVs of `attrs`.
    mutable : bool
        Whether attributes may be added by using them.
    aliases : dict
        Other name -> attribute.
    with_poll : bool
        Send the searches at once.
    """

    _prefix: str | None = None
    _delim: str = ""
    _pvs: dict[str, Any] = {}
    _init: bool = False
    _aliases: Mapping[str, str] = {}
    _mutable: bool = True
    _nonpvs: Sequence[str] = (
        *("_prefix", "_pvs", "_delim", "_init", "_aliases"),
        *("_mutable", "_nonpvs"),
    )
    _own = frozenset((*_nonpvs, "_timeout"))  # whatever a subclass' _nonpvs leaves out
    _timeout: float | None = None
    _grace: float = 0.5
    """Seconds that an attribute's PV is given to connect where its server is known to be there."""

    def __init__(
        self,
        prefix: str = "",
        attrs: Iterable[str] | None = None,
        nonpvs: Iterable[str] | None = None,
        delim: str = "",
        timeout: float | None = None,
        mutable: bool = True,
        aliases: Mapping[str, str] | None = None,
        with_poll: bool = True,
    ) -> None:
        self._nonpvs = list(dict.fromkeys((*self._nonpvs, *(nonpvs or ()))))
        self._delim = delim
        self._prefix = prefix + delim
        self._pvs = {}
        self._mutable = mutable
        self._timeout = timeout
        self._aliases = {} if aliases is None else aliases
        for attr in dict.fromkeys((*(attrs or ()), *self._aliases.values())):
            self.PV(attr, connect=False, timeout=timeout)
        if with_poll:
            poll()
        self._init = True

    # ---------------------------------------------------------------- its PVs

    def PV(self, attr: str, connect: bool = True, **kw: Any) -> pv.PV:
        """The PV of an attribute, made if need be with ``get_pv(**kw)``.

        Parameters
        ----------
        connect : bool
            Wait for its connection, up to its ``connection_timeout``.
        """
        attr = self._aliases.get(attr, attr)
        found = self._pvs.get(attr)
        if found is None:
            found = self._pvs[attr] = get_pv(self._pvname(attr), **kw)
        if connect and not found.connected:
            found.wait_for_connection()
        made: pv.PV = found
        return made

    def add_pv(self, pvname: str, attr: str | None = None, **kw: Any) -> pv.PV:
        """The PV of any name, added as attribute `attr` (its own name); ``get_pv(**kw)`` makes it."""
        found = self._pvs[pvname if attr is None else attr] = get_pv(pvname, **kw)
        return found

    def _pvname(self, attr: str) -> str:
        return f"{self._prefix or ''}{attr}"

    def _live(self) -> dict[str, pv.PV]:
        """The PVs there are; subclasses keep None for some."""
        return {attr: pv for attr, pv in list(self._pvs.items()) if pv is not None}

    def _connect(self) -> dict[str, pv.PV]:
        """All PVs, after one shared wait for those that are not connected."""
        pvs = self._live()
        missing = [pv for pv in pvs.values() if not pv.connected and pv.context is not None]
        if missing:
            seconds = max(pv.connection_timeout for pv in missing)
            _bulk.connect_all([pv._core for pv in missing], seconds)
        return pvs

    def _exists(self, attr: str) -> bool:
        """Whether an attribute's PV can be connected, without making one."""
        name = self._pvname(attr)
        ca._context()
        core = _ca.core(name)
        witnesses = [pv._core for pv in self._live().values()]
        record = (self._prefix or "").rpartition(".")[0]
        if record and not any(witness.connected for witness in witnesses):
            witnesses.append(_ca.core(record))
        seconds = ca.DEFAULT_CONNECTION_TIMEOUT if self._timeout is None else self._timeout
        until = time.monotonic() + seconds
        known = False
        while not core.wait_connected(_SLICE):
            now = time.monotonic()
            if not known and any(witness.connected for witness in witnesses):
                known = True
                until = min(until, now + self._grace)
            if now >= until:
                return False
        return True

    def _add_existing(self, attrs: Iterable[str]) -> None:
        """Make the PVs of those attributes that can be connected, after one shared wait."""
        ca._context()
        cores = {a: _ca.core(self._pvname(a)) for a in attrs if self._pvs.get(a) is None}
        seconds = ca.DEFAULT_CONNECTION_TIMEOUT if self._timeout is None else self._timeout
        _bulk.connect_all(list(cores.values()), seconds)
        for attr, core in cores.items():
            if core.connected:
                self.PV(attr)

    def _no_attribute(self, attr: str) -> Exception:
        return AttributeError(f"{type(self).__name__} has no attribute {attr}")

    def _addable(self, attr: str) -> bool:
        """Whether a name not met before may be tried as a PV."""
        private = attr.startswith("__") or (attr.startswith("_") and attr.endswith("_"))
        return self._init and self._mutable and not private

    # ----------------------------------------------------------------- values

    def put(
        self,
        attr: str,
        value: Any,
        wait: bool = False,
        use_complete: bool = False,
        timeout: float = 10,
    ) -> int | None:
        """Write to an attribute: 1; -1 if waiting for its completion timed out; None if not connected, or if it failed.

        Parameters
        ----------
        wait, use_complete, timeout
            As of ``PV.put``.
        """
        return self.PV(attr, connect=False).put(
            value, wait=wait, use_complete=use_complete, timeout=timeout
        )

    def get(
        self,
        attr: str,
        as_string: bool = False,
        count: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """The value of an attribute; None if it is not connected or the server does not answer in time.

        Parameters
        ----------
        as_string, count, timeout
            As of ``PV.get``.
        """
        found = self.PV(attr, connect=timeout is not None)  # else the read waits, once
        return found.get(as_string=as_string, count=count, timeout=timeout)

    def add_callback(self, attr: str, callback: Callable[..., Any], **kws: Any) -> Any:
        """The index of the callback, which is called when the attribute changes, as of ``PV.add_callback``."""
        found = self.PV(attr, connect=False)
        found.get()
        return found.add_callback(callback, **kws)

    def remove_callbacks(self, attr: str, index: Any = None) -> None:
        """Remove the callback of that index from an attribute."""
        self.PV(attr).remove_callback(index=index)

    # ----------------------------------------------------------------- states

    def save_state(self) -> dict[str, Any]:
        """All attributes' values, read at once: arrays of characters as text; None for those that failed."""
        pvs = self._connect()
        return dict(zip(pvs, _read(list(pvs.values())), strict=True))

    def get_all(self) -> dict[str, Any]:
        """What `save_state` gives."""
        return self.save_state()

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Write the values of a state to those attributes that can be written. Does not wait for their completion."""
        pvs = self._connect()
        for attr, value in state.items():
            found = pvs.get(attr)
            if found is not None and value is not None and _writable(found):
                found.put(value)

    def write_state(
        self, fname: str | PathLike[str], state: Mapping[str, Any] | None = None
    ) -> None:
        """Write a state, the present one if None, to a text file: one line ``attribute value`` each.

        Only what can be written back is: no arrays but those of characters, and only PVs with write access. A text with
        a line break, or in double quotes, stands there as a JSON string, so that it can be read back.
        """
        if state is None:
            state = self.save_state()
        pvs = self._connect()
        about = f"{type(self).__name__},prefix='{self._prefix}',time={time.ctime()}"
        lines = [f"#Device Saved State for {about}"]
        for attr in sorted(state):
            found, value = pvs.get(attr), state[attr]
            if found is None or value is None or not _writable(found):
                continue
            if found.nelm == 1 or _native(found) == "char":
                lines.append(f"{attr} {_quoted(str(value))}")
        with open(fname, "w", encoding=IOENCODING, errors="surrogateescape") as file:
            file.write("\n".join((*lines, "")))

    def read_state(self, fname: str | PathLike[str], restore: bool = False) -> dict[str, Any]:
        """The state in a file that `write_state` wrote, with numbers as numbers; written to the PVs if `restore`."""
        with open(fname, encoding=IOENCODING, errors="surrogateescape") as file:
            lines = file.read().split("\n")
        pvs = self._connect()
        state = {}
        for line in lines:
            attr, _, text = line.partition(" ")
            if not line.startswith("#") and attr in pvs:
                state[attr] = _parsed(pvs[attr], text)
        if restore:
            self.restore_state(state)
        return state

    # ------------------------------------------------------------- attributes

    def __getattr__(self, attr: str) -> Any:
        attr = self._aliases.get(attr, attr)
        if attr in self._pvs:
            return self.get(attr)
        if attr in self.__dict__:  # by an alias
            return self.__dict__[attr]
        # A property of the class that failed with an AttributeError comes here too.
        if self._addable(attr) and _of_class(self, attr) is None and self._exists(attr):
            return self.get(attr)
        raise self._no_attribute(attr)

    def __setattr__(self, attr: str, val: Any) -> None:
        attr = self._aliases.get(attr, attr)
        of_class = _of_class(self, attr)
        if attr in self._own or attr in self._nonpvs:
            self.__dict__[attr] = val
        elif hasattr(of_class, "__set__"):
            object.__setattr__(self, attr, val)
        elif attr in self._pvs:
            self.put(attr, val)
        elif attr in self.__dict__ or (self._init and of_class is not None):
            self.__dict__[attr] = val
        elif self._addable(attr) and self._exists(attr):
            self.put(attr, val)
        elif self._init:
            raise self._no_attribute(attr)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._aliases, *self._pvs, *self._nonpvs})

    def __repr__(self) -> str:
        prefix = (self._prefix or "").removesuffix(".")
        return f"<Device '{prefix}', {len(self._pvs)} attributes>"

    @staticmethod
    def pv_property(
        attr: str, as_string: bool = False, wait: bool = False, timeout: float = 10.0
    ) -> Any:
        """A property for subclasses, which reads and writes an attribute with these options."""

        def fget(self: Device) -> Any:
            return self.get(attr, as_string=as_string)

        def fset(self: Device, val: Any) -> None:
            self.put(attr, val, wait=wait, timeout=timeout)

        return property(fget, fset)


def _of_class(device: Device, attr: str) -> Any:
    """What the class itself has by that name; None if nothing."""
    for cls in type(device).__mro__:
        if attr in cls.__dict__:
            return cls.__dict__[attr]
    return None


def _read(pvs: list[pv.PV]) -> list[Any]:
    """The values of many PVs, those that have to be read from their servers read all at once."""
    found: dict[int, Any] = {}
    asked = []
    for i, pv in enumerate(pvs):
        if not pv._ready(0.0):
            pv._not_connected(None)  # raises if strict
            found[i] = None
        elif pv.form != "time" or pv._user_max_count or (pv.auto_monitor and _has_value(pv)):
            found[i] = pv.get(as_string=_is_text(pv))
        else:
            asked.append(i)
    cores = [pvs[i]._core for i in asked]
    seconds = _values.default_timeout(sum(core.count for core in cores))
    for i, sample in zip(asked, _bulk.get_all(cores, -1, 0, seconds), strict=True):
        pv = pvs[i]
        if isinstance(sample, CAError):
            found[i] = failed(sample, None)
        else:
            (pv._face or pv._make_face()).merge(sample)
            found[i] = pv._shaped(_values.value_of(sample), None, _is_text(pv), True)
    return [found[i] for i in range(len(pvs))]


def _has_value(pv: pv.PV) -> bool:
    return pv._face is not None and bool(pv._face.has_value)


def _native(pv: pv.PV) -> str:
    """The type of its elements by pyepics' name, such as ``'double'``; ``''`` before its first connection."""
    native = int(pv._core.native_type)
    return "" if native < 0 else dbr.Name(native).lower()


def _is_text(pv: pv.PV) -> bool:
    return pv._core.count > 1 and _native(pv) == "char"


def _writable(pv: pv.PV) -> bool:
    return pv._ready(0.0) and bool(pv.write_access)


def _quoted(text: str) -> str:
    awkward = "\n" in text or "\r" in text or (text.startswith('"') and text.endswith('"'))
    return json.dumps(text, ensure_ascii=False) if awkward else text


def _parsed(pv: pv.PV, text: str) -> Any:
    """A value of the PV's type; the text as it is where it is none, such as the name of an enum's state."""
    native = _native(pv)
    try:
        if native in ("double", "float"):
            return float(text)
        if native in ("int", "long", "short", "enum") or (native == "char" and not _is_text(pv)):
            return int(text)
        if text.startswith('"') and text.endswith('"'):
            whole = json.loads(text)
            return whole if isinstance(whole, str) else text
    except ValueError:
        pass
    return text
