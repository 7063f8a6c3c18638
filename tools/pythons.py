"""Find the Pythons that epicsx supports on this machine, and say which are missing.

    python tools/pythons.py

Looked for are the programs on PATH and those of pyenv. A program is asked what it is, as its name need
not be true: pyenv has a `python3.12` on PATH also where no 3.12 is chosen, which then fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t")

_ASK = (
    "import sys, sysconfig as s; "
    "print('%d.%d' % sys.version_info[:2] + 't' * bool(s.get_config_var('Py_GIL_DISABLED'))); "
    "print(sys.executable)"
)


def answer(program: Path) -> tuple[str, Path] | None:
    """What a program says it is, with a t where it is free-threaded, and where; None if it fails."""
    try:
        done = subprocess.run(
            [str(program), "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version, _, where = done.stdout.strip().partition("\n")
    return (version, Path(where)) if done.returncode == 0 and where else None


def candidates(version: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Programs that may be this version, the likeliest first."""
    found = shutil.which(f"python{version}", path=environ.get("PATH", ""))
    if found:
        yield Path(found)
    root = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/"), ".pyenv"))
    # 3.14.0t and 3.14t-dev are free-threaded 3.14, 3.14.0 and 3.14-dev are not; the newest first
    free = "t" if version.endswith("t") else ""
    pattern = re.compile(rf"{re.escape(version.rstrip('t'))}(\.\d+((a|b|rc)\d+)?)?{free}(-.*)?")
    folders = [p for p in root.glob("versions/*") if pattern.fullmatch(p.name)]
    for folder in sorted(folders, key=_patch, reverse=True):
        yield folder / "bin" / "python3"


def _patch(folder: Path) -> int:
    found = re.match(r"\d+\.\d+\.(\d+)", folder.name)
    return int(found[1]) if found else -1


def program(version: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """A Python of this version on this machine."""
    for candidate in candidates(version, environ):
        said = answer(candidate)
        if said and said[0] == version:
            return said[1]
    return None


def find(environ: Mapping[str, str] = os.environ) -> dict[str, Path | None]:
    """Each supported version, and a program that is it, or None."""
    return {version: program(version, environ) for version in SUPPORTED}


def main() -> None:
    """Print one line for each version; exit status 1 if there is none at all."""
    found = find()
    for version, path in found.items():
        sys.stdout.write(f"Python {version:6} {path or 'not found'}\n")
    sys.exit(0 if any(found.values()) else 1)


if __name__ == "__main__":
    main()
