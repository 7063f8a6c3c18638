"""Recorders: every update of many scalars, in structured columns.

Threads
    Rows are appended by libca's thread (_recorders.c), without the GIL. Any thread may read.

Lifetime
    Recording ends by ``close()``, by the end of the ``with`` block or with the last reference; the rows stay readable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from . import _stream
from ._channel import Channel
from .counts import Ledger
from .enums import DBE, DBR
from .errors import BadTypeError, BadValueError

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from typing_extensions import Self

__all__ = ["Recorder"]

NO_BOUND = 2**62
MOST_AT_ONCE = 2**31


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= NO_BOUND


class Recorder:
    """Every update of many scalar PVs as rows of a structured array, from the first connection of each on.

    A row is (timestamp_ns int64, value float64, source uint32, status int16, severity int16): 24 bytes. ``source`` is
    the place of the PV in `names`. Integers are exact to 2^53, an enum is its index; of an array the first element is
    recorded.

    Parameters
    ----------
    names : str and Channel, any number
        The PVs.
    capacity : int
        Rows for which memory is taken at once; it grows as needed.
    max_events : int or None
        A bound: what comes when so many rows are held is dropped and counted.
    mask : DBE
        Which changes count.
    lane : 'default' or 'bulk'
        Whose circuits carry the updates.

    Raises
    ------
    BadTypeError, BadValueError
        For names or numbers that cannot be. A PV of text is no number: the server sends what it can convert, or an
        error that is logged.
    """

    def __init__(
        self,
        names: Iterable[str | Channel],
        *,
        capacity: int = 65536,
        max_events: int | None = None,
        mask: int = DBE.VALUE | DBE.ALARM,
        lane: str = "default",
    ) -> None:
        if isinstance(names, (str, bytes)):
            raise BadTypeError("a list of names is wanted, not one name")
        for what, number in (("capacity", capacity), ("max_events", max_events)):
            if number is not None and not _is_count(number):
                raise BadValueError(f"{what} is a number of rows of at least 1, not {number!r}")
        if capacity > MOST_AT_ONCE:
            raise BadValueError(
                f"a capacity is at most {MOST_AT_ONCE} rows at the start, not {capacity}"
            )
        if lane not in ("default", "bulk"):
            raise BadValueError(f"lane is 'default' or 'bulk', not {lane!r}")
        names = list(names)
        for each in names:
            if isinstance(each, Channel) and each.filtered == "client":
                raise BadValueError(
                    f"a recorder of '{each.name}' would not pass the filters that this client applies for it",
                    name=each.name,
                )
        self._channels = [n if isinstance(n, Channel) else Channel(n) for n in names]
        #: The PVs' names; a row's ``source`` is an index into it.
        self.names: tuple[str, ...] = tuple(c.name for c in self._channels)
        self._own = [c for c, n in zip(self._channels, names, strict=True) if c is not n]
        self._recording = _stream.Recording(capacity, max_events or NO_BOUND)
        for channel in self._channels:
            core = _stream.lane_core(channel._open(), lane)
            self._recording.add(core, DBR.TIME_DOUBLE, int(mask))
        self._closed = False

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """A copy of all rows, (n,) structured."""
        return self._recording.copy(0)

    def since(self, row: int) -> np.ndarray[Any, Any]:
        """A copy of the rows from number `row` on: what is new since you looked."""
        if row < 0:
            raise BadValueError(f"a row's number is not negative ({row})")
        return self._recording.copy(row)

    def take(self) -> np.ndarray[Any, Any]:
        """All rows, handed over: the recorder goes on empty, ``len`` is 0 again, and ``max_events`` has room."""
        return self._recording.take()

    def of(self, name: str) -> np.ndarray[Any, Any]:
        """A copy of the rows of one PV."""
        rows = self.data
        found: np.ndarray[Any, Any] = rows[rows["source"] == self.names.index(name)]
        return found

    def wait(self, rows: int, timeout: float | None = 5.0) -> bool:
        """Whether so many rows are held, now or within `timeout` seconds; None waits for ever."""
        return self._recording.wait(rows, timeout)

    def __len__(self) -> int:
        return len(self._recording)

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
        """The ledger, after rows were written to an HDF5 file as they came; as ``Stream.to_hdf5``, which tells more.

        The rows are taken out of the recorder, those that it holds already first: ``data`` is empty afterwards.

        Parameters
        ----------
        frames : int or None
            It ends when as many rows are written, all PVs together; some more may be.
        path, seconds, compression, mode, progress
            As of ``Stream.to_hdf5``.
        """
        # Files stand above recorders: the package's table of names has them.
        options = {"frames": frames, "seconds": seconds, "compression": compression, "mode": mode}
        found: Ledger = sys.modules[__package__]._to_hdf5(self, path, progress=progress, **options)
        return found

    @property
    def connected(self) -> int:
        """How many of the PVs are connected now."""
        return sum(c.connected for c in self._channels)

    @property
    def ledger(self) -> Ledger:
        """One consistent copy of the counts: received == delivered (rows written) + merged + dropped + pending."""
        return self._recording.ledger()

    def close(self) -> None:
        """Record no more; the rows stay. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._recording.close()
        for channel in self._own:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing() and hasattr(self, "_closed"):
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.connected} connected"
        return f"<Recorder of {len(self.names)} PVs, {state}, {len(self)} rows>"
