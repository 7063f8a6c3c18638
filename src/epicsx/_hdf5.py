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
import fcntl
import os
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep, time_ns
from typing import Any, Literal, NamedTuple

import numpy as np

from ._hdf5_tracks import FrameTrack, RowTrack, h5py_or_error
from ._record import Recorder
from ._streams import Stream
from ._version import __version__
from .counts import Ledger
from .errors import BadTypeError, BadValueError, CAError

__all__ = ["Progress", "Writer", "check_target", "record"]

FORMAT = "epicsx recording"
FORMAT_VERSION = 1
LIBVER = ("v110", "latest")
"""SWMR needs the file format of HDF5 1.10; nothing newer, so that older readers can read."""

FLUSH_SECONDS = 0.5
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = 48


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


# ---------------------------------------------------------- files of killed processes


def _superblock(path: str) -> bytes:
    """The superblock of a file of format 1.10, which has the flags; b"" of any other."""
    with open(path, "rb") as file:
        raw = file.read(_SUPERBLOCK)
    known = len(raw) == _SUPERBLOCK and raw.startswith(_SIGNATURE) and raw[8] == 3 and raw[9] == 8
    return raw if known else b""


def _repair(path: str) -> None:
    """Make a file that a killed process left open writable again, as ``h5clear --status --increment`` does."""
    raw = _superblock(path)
    if not raw or not raw[11]:
        return
    end = max(struct.unpack_from("<Q", raw, 28)[0], os.path.getsize(path))
    fixed = raw[:11] + b"\0" + raw[12:28] + struct.pack("<Q", end) + raw[36:44]
    with open(path, "r+b") as file:
        file.write(fixed + struct.pack("<I", lookup3(fixed)))


def lookup3(data: bytes) -> int:
    """HDF5's checksum of metadata: Bob Jenkins' hashlittle."""
    mask = 0xFFFFFFFF

    def turned(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) & mask

    size = -(-len(data) // 12) * 12
    words = struct.unpack(f"<{size // 4}I", data.ljust(size, b"\0"))
    s = [(0xDEADBEEF + len(data)) & mask] * 3
    for at in range(0, len(words), 3):
        s = [(x + word) & mask for x, word in zip(s, words[at : at + 3], strict=True)]
        if at + 3 == len(words):
            break
        for i, by in enumerate((4, 6, 8, 16, 19, 4)):
            one, two, three = ((0, 2, 1), (1, 0, 2), (2, 1, 0))[i % 3]
            s[one] = ((s[one] - s[two]) & mask) ^ turned(s[two], by)
            s[two] = (s[two] + s[three]) & mask
    for i, by in enumerate((14, 11, 25, 16, 4, 14, 24)):
        one, two = ((2, 1), (0, 2), (1, 0))[i % 3]
        s[one] = ((s[one] ^ s[two]) - turned(s[two], by)) & mask
    return s[2]


class _Lock:
    """A shared lock on a file that is being written, so that no other recording begins in it; readers share it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            pass  # a file system without locks: HDF5's own flag has to do

    def end(self) -> None:
        os.close(self._fd)


def _check_unused(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(
            errno.EAGAIN, "the file is open in another process or recording", path
        ) from None
    except OSError:
        pass
    finally:
        os.close(fd)


def check_target(path: str | os.PathLike[str], mode: str) -> None:
    """Refuse what cannot be recorded into, before anything is written.

    Raises
    ------
    BadValueError
        A mode that is none; to be appended to, and no recording of ours.
    FileExistsError, FileNotFoundError, IsADirectoryError
        With ``'x'`` the file is there; its folder is not; it is a folder.
    BlockingIOError
        The file is open elsewhere.
    """
    h5py = h5py_or_error()
    path = os.fspath(path)
    if mode not in ("x", "w", "a"):
        raise BadValueError(f"mode is 'x', 'w' or 'a', not {mode!r}")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "no such folder", folder)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
    if not os.path.exists(path):
        return
    if mode == "x":
        raise FileExistsError(errno.EEXIST, "the file is there already", path)
    _check_unused(path)
    if mode == "w":
        return
    if not h5py.is_hdf5(path):
        raise BadValueError(f"cannot append to {path!r}: it is no HDF5 file")
    raw = _superblock(path)
    with h5py.File(path, "r", swmr=bool(raw and raw[11])) as file:
        if not raw or file.attrs.get("format") != FORMAT:
            raise BadValueError(f"cannot append to {path!r}: it is no recording of epicsx")
        if file.attrs["format_version"] > FORMAT_VERSION:
            raise BadValueError(f"cannot append to {path!r}: a newer epicsx made it")


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
        check_target(path, mode)
        self.path = os.fspath(path)
        self._pack = compression
        self._file: Any = None
        self._lock: _Lock | None = None
        self.tracks: list[FrameTrack | RowTrack] = []
        self._start_ns = time_ns()
        if mode == "a" and os.path.exists(self.path):
            return
        # A disk that is full shall say so here, and not to HDF5 (see _abandon).
        with open(self.path, "wb" if mode == "w" else "xb") as plain:
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
        """Whether it is being written."""
        return self._file is not None

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
        file, self._file = self._file, None
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

    def begin(self) -> None:
        """Make all objects, and let others read from now on."""
        with self._disk():
            _repair(self.path)
            # Without HDF5's lock: whoever looks at the file before its first frame would shut us out.
            self._file = self._h5py.File(
                self.path, "r+", libver=LIBVER, locking=False, rdcc_nbytes=4 << 20
            )
            self._file.attrs["end_ns"] = np.int64(0)
            for track in self.tracks:
                for _ in track.begin(self._file, self._start_ns, self._pack):
                    for each in self.tracks:  # this takes long enough for a ring to overflow
                        each.relieve()
            self._file.swmr_mode = True
            self._lock = _Lock(self.path)
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
        if not self.begun:
            return
        self.flush(last=True)
        with self._disk():
            self._file.close()
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
    before the file is begun. `tick` is called at each flush.
    """
    report = _Report(progress)
    ending = False

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

    error: BaseException | None = None
    try:
        _loop(writer, drain, report, seconds, first_wait, stop, tick)
    except BaseException as caught:
        error = caught
        raise
    finally:
        ending = True
        try:
            # After an error of the disk what is held cannot be written either.
            if not isinstance(error, OSError) or isinstance(error, CAError):
                if not writer.begun:
                    writer.begin()
                _finish(writer, drain)
                writer.close()
        finally:
            report.tell(writer.tracks, last=True)
            report.end()


def _loop(
    writer: Writer,
    drain: Callable[[FrameTrack | RowTrack, float], bool],
    report: _Report,
    seconds: float | None,
    first_wait: float | None,
    stop: Callable[[], bool],
    tick: Callable[[], object] | None,
) -> None:
    tracks = writer.tracks
    began = flushed = monotonic()
    end = None if seconds is None else began + seconds
    while not stop() and not all(track.finished for track in tracks if track.decides):
        now = monotonic()
        if end is not None and now >= end:
            break
        left = 0.05 if end is None else min(0.05, end - now)
        took = False
        for track in tracks:
            took |= drain(track, left if len(tracks) == 1 else 0.0)
        if not writer.begun:
            known = all(t.shape_known or t.finished for t in tracks)
            if known or (first_wait is not None and now - began >= first_wait):
                writer.begin()
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
        if not took and len(tracks) != 1:
            sleep(0.005)


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
    if isinstance(source, Stream):
        if source.closed:
            raise CAError(f"the stream of '{source.name}' has been closed", name=source.name)
        track = FrameTrack(source, frames)
    else:
        track = RowTrack(source.names, frames)
        track.ask_units(source._channels)
        track.add(source)
    writer = Writer(path, mode, compression)
    writer.tracks.append(track)
    record(writer, seconds=seconds, progress=progress)
    return track.ledger()


def _check(what: str, number: object, *, whole: bool) -> None:
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int if whole else (int, float)):
        raise BadTypeError(f"{what} is a number, not {number!r}")
    if not 0 < number < float("inf"):
        raise BadValueError(f"{what} is a number above 0, not {number!r}")
