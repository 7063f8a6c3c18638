"""The wall clock of a process, stepped while it runs, by the library made from clockshim.c.

A scenario steps the clock of its own process, a test that of a subprocess:

    @scenario("C12", ..., env=clock.env)
    def c12(room): room.clock.step(-20.0)          # time.time() is 20 s less from now on

    clock = Clock()
    with start_python(script, env=clock.env) as client: clock.step(-20.0)

The monotonic clock stays. What the process starts, such as an IOC, keeps the real time.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from pathlib import Path

from support import shims

_SOURCE = Path(__file__).with_name("clockshim.c")


class Clock:
    """A wall clock for one process and its threads, some seconds from the real one.

    Parameters
    ----------
    path : str, optional
        The file of a clock that is there already; by default a new one.
    """

    def __init__(self, path: str | None = None) -> None:
        self._preloaded = shims.preloaded(_SOURCE)
        self._temporary = None
        if path is None:
            self._temporary = tempfile.NamedTemporaryFile(prefix="clock-")  # noqa: SIM115
            self._temporary.truncate(8)
            path = self._temporary.name
        self._path = path
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self._ns = ctypes.c_int64.from_buffer(self._map)

    @property
    def env(self) -> dict[str, str]:
        """The variables that put a process under this clock; set before it starts."""
        rest = os.environ.get("LD_PRELOAD", "")
        made = {**self._preloaded, "CLOCKSHIM": self._path}
        return made | ({"CLOCKSHIM_REST": rest} if rest else {})

    @property
    def offset(self) -> float:
        """Seconds that the process is ahead of the real time of day."""
        return self._ns.value / 1e9

    def step(self, seconds: float) -> None:
        """Step its clock by so many seconds, at once; negative goes back."""
        self._ns.value += round(seconds * 1e9)

    def close(self) -> None:
        """Forget the file; who still runs under this clock keeps what it has mapped."""
        del self._ns
        self._map.close()
        if self._temporary is not None:
            self._temporary.close()


_kept: list[Clock] = []  # their files must last as long as this process


def env() -> dict[str, str]:
    """The variables that put a scenario's own process under a clock of its own: ``scenario(..., env=clock.env)``."""
    _kept.append(Clock())
    return _kept[-1].env


def step(seconds: float) -> None:
    """Step the wall clock of this process, which was started with `env`.

    Raises
    ------
    RuntimeError
        It was not.
    """
    path = os.environ.get("CLOCKSHIM")
    if path is None:
        raise RuntimeError("this process keeps the real time: its scenario needs env=clock.env")
    if not _kept:
        _kept.append(Clock(path))
    _kept[-1].step(seconds)
