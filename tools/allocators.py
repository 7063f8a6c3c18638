"""Other allocators than libc's, to be preloaded by `make coexist`: jemalloc and tcmalloc.

    python tools/allocators.py [FOLDER]     fetch them into FOLDER, by default build/allocators, unless they are there
    python tools/allocators.py --remove

They come from where this machine's apt takes its packages, so that they suit its libc; nothing is installed. Where
there is no apt, EPICSX_ALLOCATORS names the folder of the two libraries, such as /usr/lib64.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import debian

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "allocators"
#: The package of each, and the file that is preloaded.
ALLOCATORS = {
    "jemalloc": ("libjemalloc2", "libjemalloc.so.2"),
    "tcmalloc": ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"),
}


def library(name: str, folder: Path = FOLDER) -> Path | None:
    """The file to preload; None where there is none."""
    file = ALLOCATORS[name][1]
    if given := os.environ.get("EPICSX_ALLOCATORS"):
        path = Path(given) / file
        return path if path.is_file() else None
    return next(iter(sorted((folder / "root").rglob(file))), None)


def lacking(name: str) -> str:
    """Why there is no such library, and what to do."""
    file = ALLOCATORS[name][1]
    if given := os.environ.get("EPICSX_ALLOCATORS"):
        return f"there is no {file} in EPICSX_ALLOCATORS={given}"
    if told := debian.lacking():
        return f"{told}; EPICSX_ALLOCATORS shall name a folder with {file}"
    return f"there is no {name} yet: python tools/allocators.py fetches it"


def main() -> int:
    """Fetch them and tell where they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--remove", action="store_true", help="remove the folder")
    options = parser.parse_args()
    if options.remove:
        shutil.rmtree(options.folder, ignore_errors=True)
        return 0
    if not all(library(name, options.folder) for name in ALLOCATORS):
        if os.environ.get("EPICSX_ALLOCATORS") or debian.lacking():
            raise SystemExit(next(lacking(n) for n in ALLOCATORS if not library(n, options.folder)))
        debian.fetch(options.folder, [package for package, _ in ALLOCATORS.values()])
    for name in ALLOCATORS:
        sys.stdout.write(f"{name}: {library(name, options.folder)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
