"""Put libca and libCom into a wheel for Windows, under names of their own: delvewheel does it.

    python tools/repair_windows.py WHEEL FOLDER

Windows finds a DLL that is loaded already by its base name, whoever loaded it. delvewheel copies ca.dll and
Com.dll of epicscorelibs, with which the wheel was built, to `epicsx.libs`, adds a hash to each name, writes the
new names into the files that ask for them, and has `epicsx/__init__.py` tell Windows of the folder.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def repair(wheel: Path, dest: Path, lib_dir: Path, *options: str) -> None:
    """Write the repaired wheel into `dest`; subprocess.CalledProcessError if it cannot be done."""
    command = [sys.executable, "-m", "delvewheel", "repair", "-v", "--add-path", str(lib_dir)]
    subprocess.run([*command, *options, "-w", str(dest), str(wheel)], check=True)


def main() -> None:
    """Repair the wheel that was named, with the DLLs of the epicscorelibs that is installed here."""
    if len(sys.argv) != 3:
        sys.exit("usage: repair_windows.py WHEEL FOLDER")
    spec = importlib.util.find_spec("epicscorelibs")
    if spec is None or spec.origin is None:
        sys.exit("repair_windows: epicscorelibs, with which the wheel was built, is not installed")
    try:
        repair(Path(sys.argv[1]), Path(sys.argv[2]), Path(spec.origin).with_name("lib"))
    except subprocess.CalledProcessError as exc:
        sys.exit(f"repair_windows: {exc}")


if __name__ == "__main__":
    main()
