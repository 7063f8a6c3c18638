"""The file of a recording as one: who may write it, and what it is to begin with.

Threads
    Any. `_WRITTEN`, of all recordings of the process, has a lock of its own.

Lifetime
    A `Lock` is held from before the file is looked at until it is closed, and ends with its process at the latest.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from time import monotonic, sleep

from ._hdf5_tracks import h5py_or_error
from .errors import BadValueError

try:
    import fcntl
except ImportError:  # no Unix: check_place tells
    pass

__all__ = ["FORMAT", "FORMAT_VERSION", "Lock", "check_content", "check_target", "repair"]

FORMAT = "epicsx recording"
FORMAT_VERSION = 1

LOCK_SECONDS = 0.5
"""How long a lock is tried for: who only looks whether a file is in use has it for a moment."""
MAKER_SECONDS = 10.0
"""The same for who has just made the file."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = 48
_WRITTEN: set[tuple[int, int]] = set()
_WRITTEN_LOCK = threading.Lock()
"""Device and inode of each file that this process writes: HDF5 would take two recordings of it for one."""


def superblock(path: str) -> bytes:
    """The superblock of a file of format 1.10, which has the flags; b"" of any other."""
    with open(path, "rb") as file:
        raw = file.read(_SUPERBLOCK)
    known = len(raw) == _SUPERBLOCK and raw.startswith(_SIGNATURE) and raw[8] == 3 and raw[9] == 8
    return raw if known else b""


def repair(path: str) -> None:
    """Make a file that a killed process left open writable again, as ``h5clear --status --increment`` does."""
    raw = superblock(path)
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


class Lock:
    """The right to record into a file, which is made if it is not there; no other recording, of any process, has it.

    Until ``share`` nobody else may have the file open in HDF5, which locks in the same way.

    Parameters
    ----------
    path : str
    new : bool
        The file must not be there.

    Raises
    ------
    BlockingIOError
        It is open elsewhere.
    FileExistsError, OSError
        As `new` says; it cannot be made or opened for writing.
    """

    def __init__(self, path: str, new: bool = False) -> None:
        self._fd = -1
        self._key: tuple[int, int] | None = None
        self._path = path
        self.made = False
        """Whether the file was not there."""
        began = monotonic()
        try:
            while True:
                self._open(path, new)
                # Of several that begin at once, one makes the file, and others may have its lock first: they look at
                # it and refuse it, one after the other. So who has made it waits for them.
                deadline = began + (MAKER_SECONDS if self.made else LOCK_SECONDS)
                if self._take(fcntl.LOCK_EX, deadline) and self._is_at(path):
                    break
                if monotonic() >= deadline:
                    raise _in_use(path)
                os.close(self._fd)  # it has been removed or replaced meanwhile
                self._fd = -1
            found = os.fstat(self._fd)
            if not stat.S_ISREG(found.st_mode):
                raise _no_file(path)
            key = (found.st_dev, found.st_ino)
            with (
                _WRITTEN_LOCK
            ):  # on a file system without locks this is all there is, besides HDF5's flag
                if key in _WRITTEN:
                    raise _in_use(path)
                _WRITTEN.add(key)
                self._key = key
        except BaseException:
            self.end()
            raise

    def _open(self, path: str, new: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._fd = os.open(path, flags | os.O_EXCL, 0o666)
            self.made = True
        except FileExistsError:
            if new:
                raise _exists(path) from None
            self._fd = os.open(path, flags, 0o666)
            self.made = False

    def _take(self, how: int, deadline: float) -> bool:
        while True:
            try:
                fcntl.flock(self._fd, how | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if monotonic() >= deadline:
                    return False
            except OSError:
                return True  # a file system without locks
            sleep(0.01)

    def _is_at(self, path: str) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(path))
        except FileNotFoundError:
            return False

    def share(self) -> None:
        """Let others read, and nobody write."""
        # The change is not made in one step, so that somebody may look in between.
        if not self._take(fcntl.LOCK_SH, monotonic() + LOCK_SECONDS):
            raise _in_use(self._path)

    def end(self, remove: bool = False) -> None:
        """Give it up, and first `remove` the file, if it was made for this. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if remove and self.made:
                os.unlink(self._path)
        except OSError:
            pass  # another one is at its place, or nothing
        try:
            fcntl.flock(fd, fcntl.LOCK_UN)  # also where a forked process has the descriptor still
        except OSError:
            pass
        os.close(fd)
        with _WRITTEN_LOCK:
            if self._key is not None:
                _WRITTEN.discard(self._key)
                self._key = None

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.end()


def _in_use(path: str) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "the file is open in another process or recording", path)


def _exists(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "the file is there already", path)


def _no_file(path: str) -> BadValueError:
    return BadValueError(f"cannot record into {path!r}: it is no regular file")


def check_place(path: str | os.PathLike[str], mode: str) -> str:
    """The path of a file that could be recorded into, as far as its place goes."""
    path = os.fspath(path)
    if mode not in ("x", "w", "a"):
        raise BadValueError(f"mode is 'x', 'w' or 'a', not {mode!r}")
    if "fcntl" not in globals() or not hasattr(os, "memfd_create"):
        raise OSError(
            errno.ENOSYS, "recording to HDF5 needs Linux: flock and memfd_create are missing"
        )
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "no such folder", folder)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
    if os.path.exists(path):
        if mode == "x":
            raise _exists(path)
        if not os.path.isfile(path):
            raise _no_file(path)
    # What a link to nothing points to is made, but not by 'x'.
    return path if mode == "x" else os.path.realpath(path)


def check_content(path: str) -> None:
    """Refuse a file that is no recording of ours."""
    h5py = h5py_or_error()
    if not h5py.is_hdf5(path):
        raise BadValueError(f"cannot append to {path!r}: it is no HDF5 file")
    raw = superblock(path)
    with h5py.File(path, "r", swmr=bool(raw and raw[11]), locking=False) as file:
        if not raw or file.attrs.get("format") != FORMAT:
            raise BadValueError(f"cannot append to {path!r}: it is no recording of epicsx")
        if file.attrs["format_version"] > FORMAT_VERSION:
            raise BadValueError(f"cannot append to {path!r}: a newer epicsx made it")


def check_target(path: str | os.PathLike[str], mode: str) -> None:
    """Refuse what cannot be recorded into, before anything is written.

    Raises
    ------
    BadValueError
        A mode that is none; no regular file; to be appended to, and no recording of ours.
    FileExistsError, FileNotFoundError, IsADirectoryError
        With ``'x'`` the file is there; its folder is not; it is a folder.
    BlockingIOError
        The file is open elsewhere.
    OSError
        It cannot be written; this is no Linux.
    """
    h5py_or_error()
    path = check_place(path, mode)
    if os.path.exists(path):
        lock = Lock(path)
        try:
            if mode == "a":
                check_content(path)
        finally:
            lock.end()
