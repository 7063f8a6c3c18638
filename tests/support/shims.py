"""Libraries that stand before libc in a test's processes, by LD_PRELOAD: compiled once, by `cc` (or CC)."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "build" / "shims"


def library(source: Path) -> Path:
    """Return the library made from a C file, compiled if it is older than that.

    Raises
    ------
    OSError
        There is no compiler, or no glibc.
    subprocess.CalledProcessError
        The compiler failed; it has said why on standard error.
    """
    if platform.libc_ver()[0] != "glibc":
        raise OSError(f"{source.stem} is for Linux with glibc")
    made = _FOLDER / f"{source.stem}.so"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with open(_FOLDER / f"{source.stem}.lock", "w") as lock:  # several run at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
            new = made.with_suffix(".new")
            compiler = os.environ.get("CC", "cc").split()
            flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
            subprocess.run(
                [*compiler, *flags, str(source), "-o", str(new), "-ldl", "-pthread"], check=True
            )
            new.replace(made)
    return made


def preloaded(source: Path) -> dict[str, str]:
    """Return the variable that has a process load it, behind what this one has loaded: a sanitizer must be first."""
    rest = os.environ.get("LD_PRELOAD", "")
    return {"LD_PRELOAD": ":".join(filter(None, (rest, str(library(source)))))}


def late_dns(folder: Path) -> dict[str, str]:
    """Return the variables that give a process a DNS which answers when the file named by DNSSHIM exists.

    Every address is then ``late.example``. The file is in this folder; made by ``open(os.environ["DNSSHIM"], "w")``.
    """
    return {**preloaded(Path(__file__).with_name("dnsshim.c")), "DNSSHIM": str(folder / "dns")}
