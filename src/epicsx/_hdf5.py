"""Recordings: streams and recorders written to an HDF5 file as they come (docs/recording.md has the layout).

Every object of a file is made before SWMR is switched on, and none after: HDF5 allows no other way, and to leave
SWMR mode for a new object would shut out whoever reads, and lay the file open to a kill. So each PV has a place for
frames of any type and length (``varying``) from the beginning, besides ``data`` for those like its first.

Threads
    One thread writes a file: the one that called ``to_hdf5``. It takes frames out of the streams' rings and holds them
    until they are worth a write; libca's threads never wait for the disk. What a ring drops meanwhile is in the ledger.

Lifetime
    A file is closed when the recording ends, however it ends. Between two flushes, half a second apart, what a killed
    process leaves is readable up to the last of them.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep, time_ns
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ._hdf5_files import (
    FORMAT,
    FORMAT_VERSION,
    Lock,
    check_content,
    check_place,
    check_target,
    repair,
)
from ._hdf5_tracks import FrameTrack, RowTrack, ask_units, h5py_or_error
from ._record import Recorder
from ._streams import Stream
from ._version import __version__
from .counts import Ledger
from .errors import BadTypeError, BadValueError, CAError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Progress", "Writer", "check_target", "record"]

LIBVER = ("v110", "latest")
"""SWMR needs the file format of HDF5 1.10; nothing newer, so that older readers can read."""

FLUSH_SECONDS = 0.5
RELIEF_SECONDS = 0.01
"""How often rings are looked at while the objects of a file are made."""


class Progress(NamedTuple):
    """How far a recording is."""

    seconds: float
    """Since its beginning."""
    frames: int
    """Frames and rows that were taken for the file."""
    bytes: int
    """Their values."""
    frames_per_second: float
    """Since the last report."""
    bytes_per_second: float
    """Since the last report."""
    lost: int
    """Frames dropped or merged, and connections lost."""

    def line(self) -> str:
        """The same in one line."""
        return (
            f"{self.seconds:7.1f} s  {self.frames} frames, {self.frames_per_second:.0f}/s  "
            f"{self.bytes / 1e6:.1f} MB, {self.bytes_per_second / 1e6:.1f} MB/s  lost {self.lost}"
        )


def lost_of(ledger: Ledger) -> int:
    """What a ledger knows to be lost; a lost connection counts as one."""
    return ledger.dropped + ledger.merged + ledger.disconnects


# ---------------------------------------------------------------------------------- file


class Writer:
    """A file that a recording is written to.

    Parameters
    ----------
    path : str or path
    mode : 'x', 'w' or 'a'
        A new file; a new one in place of what is there; what is there goes on, if it is a recording.
    compression : None, 'gzip' or 'lzf'
        Of the values, in what is made now.
    """

    def __init__(
        self, path: str | os.PathLike[str], mode: str, compression: str | None = None
    ) -> None:
        self._h5py = h5py_or_error()
        if compression not in (None, "gzip", "lzf"):
            raise BadValueError(f"compression is None, 'gzip' or 'lzf', not {compression!r}")
        self.path = check_place(path, mode)
        self._pack = compression
        self._file: Any = None
        self._begun = False
        self.failed = False
        """Whether an error of the disk has ended it."""
        self.tracks: list[FrameTrack | RowTrack] = []
        self._start_ns = time_ns()
        # Had from here until the file is closed, so that no other recording gets between.
        self._lock: Lock | None = Lock(self.path, mode == "x")
        try:
            if mode == "a" and not self._lock.made:
                check_content(self.path)
            else:
                self._make()
        except BaseException:
            self._lock.end(remove=True)
            raise

    def _make(self) -> None:
        # A disk that is full shall say so here, and not to HDF5 (see _abandon).
        with open(self.path, "wb") as plain:
            plain.write(bytes(1 << 18))
        # Made and closed: whatever happens until the first frame, it is a whole file.
        with self._h5py.File(self.path, "w", libver=LIBVER, locking=False) as file:
            file.attrs["format"] = FORMAT
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["epicsx_version"] = __version__
            file.attrs["start_ns"] = np.int64(self._start_ns)
            file.attrs["end_ns"] = np.int64(0)

    @property
    def begun(self) -> bool:
        """Whether frames and rows can be written."""
        return self._begun

    @property
    def untouched(self) -> bool:
        """Whether nothing has begun yet, and nothing failed."""
        return self._file is None and not self.failed

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """An error of the disk within is an OSError, and the end of the file."""
        try:
            yield
        except CAError:
            raise
        except (OSError, RuntimeError) as error:
            self._abandon()
            raise _disk_error(error, self.path) from None

    def _abandon(self) -> None:
        """Close the file as it is on the disk, as if this process had been killed.

        HDF5 would try again, at the close and at the end of the process, to write what it could not write, and crash.
        So it writes into memory that is forgotten.
        """
        file, self._file, self._begun, self.failed = self._file, None, False, True
        if file is not None:
            void = os.memfd_create("epicsx")
            os.dup2(void, file.id.get_vfd_handle(), inheritable=False)
            os.close(void)
            try:
                file.close()
            except (OSError, RuntimeError):
                pass
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.end()
            self._lock = None

    def begin(self, over: Callable[[], bool] = lambda: False) -> None:
        """Make all objects, and let others read from now on.

        Once it is `over`, PVs that have not been found are left out: of many of them this takes long.
        """
        found = [t for t in self.tracks if isinstance(t, FrameTrack)]
        homes = {t.name: t.stream._home for t in found if t.stream is not None}
        units = ask_units(homes.values())
        found = [t for t in found if t.name in homes]
        for each in found:
            each.units = units.get(each.name)
        relieved = monotonic()
        with self._disk():
            repair(self.path)
            # Without HDF5's lock: it would be taken beside ours.
            self._file = self._h5py.File(
                self.path, "r+", libver=LIBVER, locking=False, rdcc_nbytes=4 << 20
            )
            self._file.attrs["end_ns"] = np.int64(0)
            # A copy: PVs are found meanwhile, and then belong to the recording all the same.
            for track in list(self.tracks):
                if over() and isinstance(track, FrameTrack) and track.stream is None:
                    self.tracks.remove(track)
                    continue
                for _ in track.begin(self._file, self._start_ns, self._pack):
                    if (
                        monotonic() - relieved >= RELIEF_SECONDS
                    ):  # long enough for a ring to overflow
                        for each in found:
                            each.relieve()
                        relieved = monotonic()
            self._file.swmr_mode = True
            if self._lock is not None:
                self._lock.share()
        self._begun = True
        self.flush()

    def commit(self, track: FrameTrack | RowTrack) -> None:
        """Write what that one holds, if it holds much."""
        if track.full:
            with self._disk():
                track.commit(False)

    def flush(self, last: bool = False) -> None:
        """Write what is held, then the ledgers that tell of it."""
        with self._disk():
            for track in self.tracks:
                track.commit(last)
            self._file.flush()
            for track in self.tracks:
                track.note()
                if last:
                    track.end()
            if last:
                # not by attrs[...] =, which would make a new attribute
                self._file.attrs.modify("end_ns", np.int64(time_ns()))
            self._file.flush()

    def close(self) -> None:
        """Write the rest and close. Nothing, if it has been closed by an error of the disk."""
        if self._begun:
            self.flush(last=True)
        self.release()

    def release(self) -> None:
        """Close the file as it is, if it is open, and let others record into it."""
        file, self._begun = self._file, False
        if file is not None:
            with self._disk():
                file.close()
                self._file = None
        self._unlock()


def _disk_error(error: Exception, path: str) -> OSError:
    """What HDF5 raises where the disk fails, as the OSError that it is; it says so only in its text."""
    found = re.search(r"errno = (\d+)", str(error))
    number = (error.errno if isinstance(error, OSError) else 0) or int(
        found[1] if found else errno.EIO
    )
    return OSError(number, os.strerror(number), path)


class _Report:
    """Progress, told about once a second."""

    def __init__(self, tell: Callable[[Progress], object] | bool | None) -> None:
        self._line = 0
        if tell is True:
            tell = self._show if sys.stderr.isatty() else None
        self._tell = tell or None
        self._begin = self._last = monotonic()
        self._frames = self._bytes = 0

    def _show(self, progress: Progress) -> None:
        line = progress.line()
        sys.stderr.write("\r" + line.ljust(self._line))
        sys.stderr.flush()
        self._line = len(line)

    def tell(self, tracks: Iterable[FrameTrack | RowTrack], last: bool = False) -> None:
        now = monotonic()
        if self._tell is None or (now - self._last < 1.0 and not last):
            return
        tracks = list(tracks)
        frames, nbytes = sum(t.taken for t in tracks), sum(t.bytes for t in tracks)
        passed = max(now - self._last, 1e-9)
        if last:  # over all of it
            passed, self._frames, self._bytes = max(now - self._begin, 1e-9), 0, 0
        self._tell(
            Progress(
                now - self._begin,
                frames,
                nbytes,
                (frames - self._frames) / passed,
                (nbytes - self._bytes) / passed,
                sum(lost_of(t.ledger()) for t in tracks),
            )
        )
        self._last, self._frames, self._bytes = now, frames, nbytes

    def end(self) -> None:
        if self._line:
            sys.stderr.write("\n")
            sys.stderr.flush()


class _CtrlC:
    """Ctrl-C as a wish to end: it does what it does, such as raise KeyboardInterrupt, at the end of the block.

    So it comes neither between the taking of a frame and the writing, nor into the middle of the latter. The second
    one, of somebody who does not want to wait, does it at once. In other threads than the main one it never comes.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def __enter__(self) -> Self:
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            try:
                signal.signal(signal.SIGINT, self._note)
                self._before = before
            except ValueError:
                pass  # a subinterpreter
        return self

    def _note(self, number: int, frame: object) -> None:
        self.came = True
        self._restore()

    def _restore(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            self._restore()
            if self.came:
                self._before(signal.SIGINT, None)

    def stop(self) -> bool:
        return self.came


def record(
    writer: Writer,
    *,
    seconds: float | None = None,
    first_wait: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[], object] | None = None,
    on_error: Callable[[FrameTrack | RowTrack, CAError], object] | None = None,
    progress: Callable[[Progress], object] | bool | None = None,
) -> None:
    """Write the tracks of `writer` until each is finished, `seconds` are over, or `stop` says so; then close it.

    What was received until then is written, too. `first_wait`: so long at most it waits for a first frame of each
    before the file is begun. `tick` is called at each flush. Ctrl-C is the caller's (see _CtrlC).
    """
    report = _Report(progress)
    ending = False
    end = None if seconds is None else monotonic() + seconds

    def drain(track: FrameTrack | RowTrack, wait: float) -> bool:
        try:
            return track.drain(wait)
        except CAError as error:
            if ending:
                return False  # an error is on its way already, or it is over: the ledger tells
            if on_error is None:
                raise
            on_error(track, error)
            return False

    def over() -> bool:
        return stop() or (end is not None and monotonic() >= end)

    try:
        _loop(writer, drain, report, end, first_wait, over, tick)
    finally:
        ending = True
        try:
            # After an error of the disk what is held cannot be written either.
            if not writer.failed:
                if writer.untouched:
                    writer.begin(lambda: True)
                if writer.begun:  # else it failed half-way
                    _finish(writer, drain)
                writer.close()
        finally:
            try:
                writer.release()  # there is something to do only after yet another exception
            finally:
                report.tell(writer.tracks, last=True)
                report.end()


def _loop(
    writer: Writer,
    drain: Callable[[FrameTrack | RowTrack, float], bool],
    report: _Report,
    end: float | None,
    first_wait: float | None,
    over: Callable[[], bool],
    tick: Callable[[], object] | None,
) -> None:
    tracks = writer.tracks
    began = flushed = monotonic()
    while not over() and not all(track.finished for track in tracks if track.decides):
        now = monotonic()
        left = 0.05 if end is None else max(0.0, min(0.05, end - now))
        took = False
        for track in tracks:
            took |= drain(track, left if len(tracks) == 1 else 0.0)
        if not took:  # one that fails does not wait itself
            sleep(max(0.0, min(left, 0.005) - (monotonic() - now)))
        if not writer.begun:
            known = all(t.shape_known or t.finished for t in tracks)
            if known or (first_wait is not None and now - began >= first_wait):
                writer.begin(over)
                flushed = now
        elif now - flushed >= FLUSH_SECONDS:
            writer.flush()
            flushed = now
            report.tell(tracks)
            if tick is not None:
                tick()
        else:
            for track in tracks:
                writer.commit(track)


def _finish(writer: Writer, drain: Callable[[FrameTrack | RowTrack, float], bool]) -> None:
    """Take what was received until now; what comes meanwhile is not for us."""
    for track in writer.tracks:
        if isinstance(track, FrameTrack):
            track.until = track.ledger().received
    for track in writer.tracks:
        while not track.finished and drain(track, 0.0):
            writer.commit(track)
            if isinstance(track, RowTrack):
                break


# -------------------------------------------------------------------- Stream, Recorder


def _to_hdf5(
    source: Stream | Recorder,
    path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    seconds: float | None = None,
    compression: str | None = None,
    mode: Literal["x", "w", "a"] = "x",
    progress: Callable[[Progress], object] | bool | None = None,
) -> Ledger:
    """The ledger of a recording that has ended; ``Stream.to_hdf5`` and ``Recorder.to_hdf5`` tell the rest."""
    _check("frames", frames, whole=True)
    _check("seconds", seconds, whole=False)
    track: FrameTrack | RowTrack
    if isinstance(source, Stream) and source.closed:
        raise CAError(f"the stream of '{source.name}' has been closed", name=source.name)
    with _CtrlC() as ctrl_c:
        if isinstance(source, Stream):
            track = FrameTrack(source, frames)
        else:
            track = RowTrack(source.names, frames)
            track.ask_units(source._channels)
            track.add(source)
        writer = Writer(path, mode, compression)
        writer.tracks.append(track)
        record(writer, seconds=seconds, stop=ctrl_c.stop, progress=progress)
    return track.ledger()


def _check(what: str, number: object, *, whole: bool) -> None:
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int if whole else (int, float)):
        raise BadTypeError(f"{what} is a number, not {number!r}")
    if not 0 < number < float("inf"):
        raise BadValueError(f"{what} is a number above 0, not {number!r}")
