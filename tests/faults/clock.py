"""`Clock`: the wall clock of a subprocess, stepped while it runs, by the library made from clockshim.c.

    clock = Clock()
    with start_python(script, env=clock.env) as client:
        clock.step(-20.0)          # what the client has from time.time() is 20 s less from now on

The monotonic clock stays. The process that holds the Clock keeps its own time; so does an IOC that it starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import subprocess
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("clockshim.c")
_FOLDER = Path(__file__).parents[2] / "build" / "faults"


def library() -> Path:
    """Return the shim's library, compiled by `cc` (or CC) if it is older than its source.

    Raises
    ------
    OSError
        There is no compiler, or no glibc.
    subprocess.CalledProcessError
        The compiler failed; it has said why on standard error.
    """
    if platform.libc_ver()[0] != "glibc":
        raise OSError("the clock shim is for Linux with glibc")
    made = _FOLDER / "clockshim.so"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with open(_FOLDER / "clockshim.lock", "w") as lock:  # scenarios run at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime < _SOURCE.stat().st_mtime:
            new = made.with_suffix(".new")
            compiler = os.environ.get("CC", "cc").split()
            flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
            subprocess.run(
                [*compiler, *flags, str(_SOURCE), "-o", str(new), "-ldl", "-pthread"], check=True
            )
            new.replace(made)
    return made


class Clock:
    """A wall clock for the subprocesses that get `env`, some seconds from the real one."""

    def __init__(self) -> None:
        self._library = library()
        self._file = tempfile.NamedTemporaryFile(prefix="clock-")  # noqa: SIM115  lives as long as this
        self._file.truncate(8)
        self._map = mmap.mmap(self._file.fileno(), 8)
        self._ns = ctypes.c_int64.from_buffer(self._map)

    @property
    def env(self) -> dict[str, str]:
        """The variables that put a subprocess under this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCKSHIM": self._file.name}

    @property
    def offset(self) -> float:
        """Seconds that the subprocesses are ahead of the real time of day."""
        return self._ns.value / 1e9

    def step(self, seconds: float) -> None:
        """Step their clock by so many seconds, at once; negative goes back."""
        self._ns.value += round(seconds * 1e9)

    def close(self) -> None:
        """Forget the file; who still runs under this clock keeps what it has mapped."""
        del self._ns
        self._map.close()
        self._file.close()
