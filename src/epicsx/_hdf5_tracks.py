"""What becomes of a stream's frames and a recorder's rows in an HDF5 file: datasets that grow (docs/recording.md).

Threads
    All of it belongs to the one thread that writes the file (_hdf5.py).

Lifetime
    A track is made for one run of one file, and has nothing to be closed: stream, recorder and file are others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._stream import RECORD_DTYPE, Block
from ._streams import add_ledgers
from .counts import Ledger
from .errors import CAError

if TYPE_CHECKING:
    from ._channel import Channel
    from ._record import Recorder
    from ._stream import Frame
    from ._streams import Stream

__all__ = ["FrameTrack", "RowTrack"]

VISIT_SECONDS = 0.05
BATCH_BYTES = 8 << 20
"""So much is taken out of a ring before it is written."""
CHUNK_BYTES = 1 << 20
PACKED_CHUNK_BYTES = 1 << 18
"""Of a compressed dataset: a chunk that is not full yet is compressed again, and in SWMR mode its old place is lost."""
SMALL_BYTES = 1 << 18
"""Rows smaller than this are gathered before they are written."""
CHUNK_ROWS = 1024
FLAT_CHUNK = 1 << 15

PER_FRAME = {
    "timestamp_ns": "i8",
    "severity": "i2",
    "status": "i2",
    "index": "i8",
    "lost_before": "i8",
    "gap": "?",
}
PLACE = {"offset": "i8", "count": "i8", "type": "S8"}
"""Where the values of a frame in `varying` are."""
TYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")
"""What Channel Access has of numbers."""
RUN_DTYPE = np.dtype(
    [("start_ns", "i8"), ("end_ns", "i8"), ("first_row", "i8"), ("first_varying", "i8")]
)
LEDGER_DTYPE = np.dtype(
    [("run", "u4"), ("time_ns", "i8"), ("stored", "i8"), *((name, "i8") for name in Ledger._fields)]
)


def h5py_or_error() -> Any:
    try:
        import h5py  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise ImportError("recording to HDF5 needs h5py: pip install 'epicsx[hdf5]'") from None
    return h5py


def link_name(name: str) -> str:
    """The group of that PV: its name, where HDF5 can have that as one name."""
    name = name.replace("%", "%25").replace("/", "%2F")
    return "%" + name if name in (".", "scalars") else name


def ask_units(channels: Iterable[Channel], seconds: float = 2.0) -> dict[str, str]:
    """The units of those that are connected, asked for all at once; "" of one that has none or does not say in time."""
    asked = [channel for channel in channels if channel.connected]
    for channel in asked:
        _units(channel, 0.0)  # this sends the question
    deadline = monotonic() + seconds
    return {channel.name: _units(channel, max(0.0, deadline - monotonic())) for channel in asked}


def _units(channel: Channel, timeout: float) -> str:
    try:
        return channel.control(timeout).units or ""
    except CAError:
        return ""


def attributes_of(stream: Stream, units: str | None) -> dict[str, Any]:
    """What is known of a stream's PV."""
    home = stream._home
    native = home.native_type
    return {
        "units": units or None,
        "native_type": None if native is None else native.name,
        "host": home.host or None,
    }


class _Grown:
    """A dataset that grows by rows."""

    def __init__(self, dataset: Any, rows: int | None = None) -> None:
        self.dataset = dataset
        self.rows = len(dataset) if rows is None else rows
        self.chunk = int(dataset.chunks[0])
        self.packed = dataset.compression is not None
        self._start = (0,) * (dataset.ndim - 1)

    def append(self, parts: Sequence[np.ndarray[Any, Any]]) -> None:
        """Add the rows of these arrays, in order; none of them counts until all are written."""
        self.rows = self.write(self.rows, parts)

    def write(self, row: int, parts: Sequence[np.ndarray[Any, Any]]) -> int:
        """Write the rows of these arrays, in order, from `row` on; where they end.

        What stands there already is of a write that was broken off: it is written over.
        """
        dataset = self.dataset
        end = row + sum(map(len, parts))
        if len(dataset) < end:  # never shrunk: it may be read meanwhile
            dataset.resize(end, axis=0)
        for part in parts:
            at = 0
            while at < len(part):
                n = min(self.chunk - row % self.chunk, len(part) - at)
                piece = part[at : at + n]
                if n == self.chunk and not self.packed and piece.size:
                    # around HDF5's chunk cache: a third to a quarter of the time
                    dataset.id.write_direct_chunk((row, *self._start), np.ascontiguousarray(piece))
                else:
                    dataset[row : row + n] = piece
                row += n
                at += n
        return row


def _new(
    group: Any,
    name: str,
    dtype: Any,
    tail: tuple[int, ...] = (),
    chunk: int = CHUNK_ROWS,
    pack: Any = None,
) -> Any:
    """An empty dataset of rows of that shape. A tail of no elements cannot be chunked: it may grow, and does not."""
    return group.create_dataset(
        name,
        shape=(0, *tail),
        maxshape=(None, *(n or None for n in tail)),
        chunks=(chunk, *(n or 1 for n in tail)),
        dtype=dtype,
        compression=pack,
    )


class _Table:
    """Datasets of one length: one row of each for each frame, at the same place in all of them."""

    def __init__(self, group: Any, names: Iterable[str]) -> None:
        self.columns = {name: _Grown(group[name]) for name in names}
        rows = min(column.rows for column in self.columns.values())
        # A killed process may leave columns of different lengths, or rows that were not written: no frame is there.
        stamps = self.columns["timestamp_ns"].dataset
        while rows and stamps[rows - 1] == 0:
            rows -= 1
        for column in self.columns.values():
            if column.rows != rows:
                column.dataset.resize(rows, axis=0)
        self.rows = rows

    def write(self, columns: dict[str, Sequence[np.ndarray[Any, Any]]]) -> int:
        """Write rows after the last one that counts. Where they end: `rows` once they are to count.

        The stamps come last: what is broken off by an exception has left no row of theirs without its values.
        """
        stamps = columns.pop("timestamp_ns")
        for name, parts in columns.items():
            self.columns[name].write(self.rows, parts)
        return self.columns["timestamp_ns"].write(self.rows, stamps)


class _Track:
    """What streams and recorders have in common on their way into a file: a group, its runs, its ledger."""

    def __init__(self) -> None:
        self.taken = 0
        self.bytes = 0
        self.finished = False
        self.decides = True  # the recording goes on until it is finished
        self.noted: Ledger | None = None
        self._told: tuple[int, Ledger] | None = None
        self._owed: CAError | None = None
        self._over = False  # whether that error ends it
        self.stored = 0
        self.group: Any = None
        self._run = 0

    def ledger(self) -> Ledger:
        raise NotImplementedError

    def _begin(self, group: Any, now: int, first: tuple[int, int]) -> None:
        self.group = group
        for name, dtype in (("runs", RUN_DTYPE), ("ledger", LEDGER_DTYPE)):
            if name not in group:
                _new(group, name, dtype, chunk=64)
        self._runs, self._ledger = _Grown(group["runs"]), _Grown(group["ledger"])
        self._run = self._runs.rows
        self._runs.append([np.array([(now, 0, *first)], RUN_DTYPE)])

    def note(self) -> None:
        """Add the ledger of now, where it is another one than that of the last time."""
        ledger = self.ledger()
        if (self.stored, ledger) == self._told:
            return
        known = [-1 if n is None else n for n in ledger]
        row = (self._run, time_ns(), self.stored, *known)
        self._ledger.append([np.array([row], LEDGER_DTYPE)])
        self.noted, self._told = ledger, (self.stored, ledger)

    def end(self) -> None:
        """Write when the run ended."""
        run = self._runs.dataset[self._run]
        run["end_ns"] = time_ns()
        self._runs.dataset[self._run] = run

    def drain(self, wait: float = 0.0) -> bool:
        raise NotImplementedError

    def relieve(self) -> None:
        """Take what is there, while the file is not ready; an error is raised by the next ``drain``."""
        if self._owed is None:
            try:
                self.drain()
            except CAError as error:
                # It has not ended before somebody has been told why.
                self._owed, self._over, self.finished = error, self.finished, False

    def commit(self, last: bool) -> None:
        raise NotImplementedError


class FrameTrack(_Track):
    """One stream on its way into a file.

    Parameters
    ----------
    stream : Stream or None
        None: its PV has not been found yet; ``stream`` is set when it is.
    frames : int or None
        As many are stored, then no more; of blocks whole ones.
    """

    def __init__(self, stream: Stream | None, frames: int | None = None, name: str = "") -> None:
        super().__init__()
        self.stream = stream
        self.name = stream.name if stream is not None else name
        self.frames = frames
        self.attributes: dict[str, Any] = {}
        self.units: str | None = None
        self.until: int | None = None  # no frame of a higher index is wanted
        self._waiting: list[Frame | Block] = []
        self._waiting_bytes = 0
        self._main: _Table | None = None
        self._varying: _Table | None = None
        self._flat: dict[str, _Grown] = {}
        self._ends: dict[str, int] = {}  # of what counts in these

    @property
    def shape_known(self) -> bool:
        """Whether a frame has come, from which ``data`` gets its type and shape; or nobody knows when one will."""
        return bool(self._waiting) or self.stream is None

    def ledger(self) -> Ledger:
        return Ledger(*(0,) * 8, None) if self.stream is None else self.stream.ledger

    def drain(self, wait: float = 0.0) -> bool:
        """Take what is there, waiting for it a while; whether there was anything."""
        stream, took = self.stream, False
        if stream is None:
            return False
        if self._owed is not None:
            owed, self._owed, self.finished = self._owed, None, self._over
            raise owed
        # For a moment only: frames may come as fast as they are taken, and a flush is due.
        enough = monotonic() + VISIT_SECONDS
        while not self.finished and not self.full and (not took or monotonic() < enough):
            try:
                found = stream._poll(wait)
            except CAError:
                if stream._error is None and not stream.closed:
                    raise
                self.finished = True  # nothing comes any more
                if stream._error is not None:
                    raise
                break
            if found is None:
                break
            wait, took = 0.0, True
            last = int(found.index[-1]) if isinstance(found, Block) else found.index
            n = len(found.index) if isinstance(found, Block) else 1
            self._waiting.append(found)
            self._waiting_bytes += found.data.nbytes
            self.bytes += found.data.nbytes
            self.taken += n
            if self.frames is not None and self.taken >= self.frames:
                self.finished = True
            if self.until is not None and last + 1 >= self.until:
                self.finished = True
        return took

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may before it is written."""
        return self._waiting_bytes >= BATCH_BYTES

    def begin(self, file: Any, now: int, pack: str | None) -> Iterator[None]:
        """Make its group and datasets, or find those of an earlier run, step by step: rings are drained in between."""
        group = file.require_group(link_name(self.name))
        if self.stream is not None:
            self.attributes = attributes_of(self.stream, self.units)
        for name, value in {"name": self.name, "kind": "frames", **self.attributes}.items():
            if value is not None:
                group.attrs[name] = value
        # Each by itself: who was killed while this was made has left a part of it.
        others = group.require_group("varying")
        for name, dtype in (*PER_FRAME.items(), *PLACE.items()):
            if name not in others:
                _new(others, name, dtype)
                yield
        for name in TYPES:
            if name not in others:
                _new(others, name, name, chunk=FLAT_CHUNK, pack=pack)
                yield
        if "data" not in group and self._waiting:
            self._make_main(group, pack)
        if "data" in group:
            for name, dtype in PER_FRAME.items():
                if name not in group:
                    _new(group, name, dtype)
                    yield
            self._main = _Table(group, ("data", *PER_FRAME))
            yield
        self._varying = _Table(others, (*PER_FRAME, *PLACE))
        yield
        ends = others["offset"][:] + others["count"][:]
        kinds = others["type"][:]
        for name in TYPES:
            mine = ends[kinds == name.encode()]
            self._flat[name] = _Grown(others[name])
            self._ends[name] = int(mine[-1]) if len(mine) else 0
        first = (self._main.rows if self._main else 0, self._varying.rows)
        self._new_run = any(first) or ("runs" in group and len(group["runs"]) > 0)
        self._begin(group, now, first)

    def _make_main(self, group: Any, pack: str | None) -> None:
        found = self._waiting[0]
        values = found.data
        tail = values.shape[1:] if isinstance(found, Block) else values.shape
        stream = cast("Stream", self.stream)
        if tail == (0,) and stream._options[3] is None:
            # A record that was never written: it will be as long as it can be, or else `varying` has it.
            tail = (stream._count or stream._home.count,)
        row = max(1, values.dtype.itemsize * int(np.prod(tail)))
        most = CHUNK_BYTES if pack is None else PACKED_CHUNK_BYTES
        _new(group, "data", values.dtype, tail, max(1, min(4096, most // row)), pack)

    def commit(self, last: bool) -> None:
        """Write what is held. An exception leaves the file and what is held such that the next one goes on."""
        if not self._waiting or self._hold(last):
            return
        if self._main is not None:
            data = self._main.columns["data"].dataset
            like, dtype = data.shape[1:], data.dtype
        else:
            like, dtype = None, None
        while self._waiting:  # runs of frames that belong to the same table
            items, end = self._waiting, 1
            fits = _fits(items[0], like, dtype)
            while end < len(items) and _fits(items[end], like, dtype) == fits:
                end += 1
            (self._store_main if fits else self._store_varying)(items[:end], items[end:])

    def _hold(self, last: bool) -> bool:
        """Whether to wait for more: a compressed chunk is written again only when what is new doubles it."""
        if last or self._main is None or self.full:
            return False
        data = self._main.columns["data"]
        inside = self._main.rows % data.chunk
        ready = self.taken - self.stored
        return data.packed and ready < inside and inside + ready < data.chunk

    def _columns(self, items: Sequence[Frame | Block]) -> dict[str, Sequence[Any]]:
        if isinstance(items[0], Block):
            made = {n: np.concatenate([getattr(b, n) for b in items]) for n in PER_FRAME}
        else:
            made = {n: np.array([getattr(f, n) for f in items], t) for n, t in PER_FRAME.items()}
        if self._new_run:  # what came between two runs nobody knows
            made["gap"][0] = True
        return {name: [column] for name, column in made.items()}

    # All columns are written at one place, and what follows the last of them has no call in it: no exception, be it
    # of a signal, comes between. So rows count with all of their columns or not at all, and are held until they count.

    def _store_main(self, items: list[Frame | Block], rest: list[Frame | Block]) -> None:
        table = self._main
        assert table is not None
        parts = [i.data if isinstance(i, Block) else i.data[None] for i in items]
        if len(parts) > 1 and parts[0][0].nbytes < SMALL_BYTES:
            parts = [np.concatenate(parts)]
        made = self._columns(items)
        held = self._waiting_bytes - sum(item.data.nbytes for item in items)
        stored = self.stored + len(made["index"][0])
        end = table.write({"data": parts, **made})
        table.rows = end
        self._waiting, self._waiting_bytes, self.stored = rest, held, stored
        self._new_run = False

    def _store_varying(self, items: list[Frame | Block], rest: list[Frame | Block]) -> None:
        table = self._varying
        assert table is not None
        flat: dict[str, list[np.ndarray[Any, Any]]] = {}
        ends = dict(self._ends)
        where: list[tuple[int, int, str]] = []
        for item in items:
            for values in item.data if isinstance(item, Block) else (item.data,):
                kind = values.dtype.name
                flat.setdefault(kind, []).append(values.ravel())
                where.append((ends[kind], values.size, kind))
                ends[kind] += values.size
        for kind, parts in flat.items():
            self._flat[kind].write(self._ends[kind], [np.concatenate(parts)])
        made = self._columns(items)
        for (name, dtype), values in zip(PLACE.items(), zip(*where, strict=True), strict=True):
            made[name] = [np.array(values, dtype)]
        held = self._waiting_bytes - sum(item.data.nbytes for item in items)
        stored = self.stored + len(where)
        end = table.write(made)
        table.rows = end
        self._ends, self._waiting, self._waiting_bytes, self.stored = ends, rest, held, stored
        self._new_run = False


def _fits(item: Frame | Block, like: tuple[int, ...] | None, dtype: Any) -> bool:
    values = item.data
    tail = values.shape[1:] if isinstance(item, Block) else values.shape
    return bool(tail == like and values.dtype == dtype)


class RowTrack(_Track):
    """Recorders on their way into a file, as rows of one dataset; those of PVs found later may be added.

    Parameters
    ----------
    names : sequence of str
        Every PV that may have rows; no more can be added once the file is being written.
    rows : int or None
        As many are stored at least, then no more.
    """

    def __init__(self, names: Sequence[str], rows: int | None = None) -> None:
        super().__init__()
        self.names = tuple(names)
        self.units: dict[str, str] = {}
        self.wanted = rows
        self._recorders: list[tuple[Recorder, np.ndarray[Any, Any]]] = []
        self._place: dict[str, int] = {name: i for i, name in enumerate(self.names)}
        self._rows: _Grown | None = None
        self._waiting: list[np.ndarray[Any, Any]] = []

    def add(self, recorder: Recorder) -> None:
        """Store its rows, too; they are taken out of it."""
        self._recorders.append((recorder, np.zeros(0, "u4")))
        if self._rows is not None:
            self._map()

    def ask_units(self, channels: Iterable[Channel]) -> None:
        """Ask for the units of those that are connected, for 2 s at most."""
        self.units.update(ask_units(channels))

    def _map(self) -> None:
        self._recorders = [
            (recorder, np.array([self._place[name] for name in recorder.names], "u4"))
            for recorder, _ in self._recorders
        ]

    @property
    def shape_known(self) -> bool:
        """Rows are all alike."""
        return True

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may before it is written."""
        return sum(map(len, self._waiting)) * RECORD_DTYPE.itemsize >= BATCH_BYTES

    def ledger(self) -> Ledger:
        total = Ledger(*(0,) * 8, None)
        for recorder, _ in self._recorders:
            total = add_ledgers(total, recorder.ledger)
        return total

    def drain(self, wait: float = 0.0) -> bool:
        """Take the rows that are there."""
        if self._rows is None or self.finished:
            return False
        took = False
        over = all(recorder._closed for recorder, _ in self._recorders)  # looked at before the rows
        for recorder, places in self._recorders:
            if wait:
                recorder.wait(1, wait)
            rows = recorder.take()
            if len(rows):
                rows["source"] = places[rows["source"]]
                self._waiting.append(rows)
                self.taken += len(rows)
                self.bytes += rows.nbytes
                took = True
        if (over and self._recorders) or (self.wanted is not None and self.taken >= self.wanted):
            self.finished = True
        return took

    def begin(self, file: Any, now: int, pack: str | None) -> Iterator[None]:
        """Make the group `scalars`, or find that of an earlier run and add the names it has not; as of a FrameTrack."""
        group = file.require_group("scalars")
        group.attrs["kind"] = "rows"
        text = h5py_or_error().string_dtype()
        if "rows" not in group:
            _new(group, "rows", RECORD_DTYPE, chunk=8 * CHUNK_ROWS, pack=pack)
        for name in ("names", "units"):
            if name not in group:
                _new(group, name, text, chunk=64)
        yield
        known = [n.decode() for n in group["names"][:]]
        fresh = [name for name in self.names if name not in known]
        for name, values in (("names", fresh), ("units", [self.units.get(n, "") for n in fresh])):
            if values:
                group[name].resize(len(known) + len(values), axis=0)
                group[name][len(known) :] = values
        self._place = {name: i for i, name in enumerate(known + fresh)}
        self._map()
        rows = len(group["rows"])
        while rows and group["rows"][rows - 1]["timestamp_ns"] == 0:  # a killed process' last
            rows -= 1
        group["rows"].resize(rows, axis=0)
        self._rows = _Grown(group["rows"])
        self._begin(group, now, (rows, 0))

    def commit(self, last: bool) -> None:
        """Write what is held."""
        assert self._rows is not None
        if not self._waiting:
            return
        inside, ready = self._rows.rows % self._rows.chunk, self.taken - self.stored
        if self._rows.packed and not last and ready < inside and inside + ready < self._rows.chunk:
            return
        parts = [np.concatenate(self._waiting)]
        rest: list[np.ndarray[Any, Any]] = []
        stored = self.stored + len(parts[0])
        end = self._rows.write(self._rows.rows, parts)
        # As of frames: no call from here on, so that rows count and are held no more at once.
        self._rows.rows = end
        self._waiting, self.stored = rest, stored
