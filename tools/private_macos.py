"""Private copies of libca and libCom for macOS.

A Mach-O file asks for each symbol in the library where the linker found it (two-level namespaces), so
another libca in the process cannot take the place of ours, and names of their own for the files are
enough. dyld tells libraries apart by their install names and files. So:

- the copies are made before the modules are linked, and these are linked to the copies: the linker
  writes the private names into them, and not a byte of a module is changed afterwards. The names say
  where the copies lie as seen from a module, which is also what delocate would write, so it has
  nothing to change and no rpath is needed;
- what is edited by Apple's install_name_tool, the copies and the program in bin/, is signed anew: an
  arm64 Mac ends a program that maps a file whose pages and signature do not agree.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from epics_libs import LIBRARIES, SUFFIX, EpicsNotFound, run, tool

# where the copies lie, seen from a module; as Epics.rpath has it on macOS
FROM_MODULES = "@loader_path/lib"
# room for longer names, which is asked for when a program is linked that bind() shall edit
ROOM = "-Wl,-headerpad_max_install_names"


def architectures(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Those that ARCHFLAGS, which cibuildwheel sets, asks the compiler for; [] if it does not tell."""
    return re.findall(r"-arch\s+(\S+)", environ.get("ARCHFLAGS", ""))


def architectures_of(path: Path) -> list[str]:
    """Those that a file has code for."""
    return run(tool("lipo"), "-archs", str(path)).split()


def install_name(path: Path) -> str:
    """The name by which others ask for this library, the same for each architecture it has."""
    lines = run(tool("otool"), "-D", str(path)).splitlines()
    names = {line.strip() for line in lines if line.strip() and not line.endswith(":")}
    if len(names) != 1:
        raise EpicsNotFound(f"install names of {path}: {sorted(names) or 'none'}")
    return names.pop()


def needed(path: Path) -> set[str]:
    """The install names of the libraries that a file asks for, and a library's own."""
    lines = run(tool("otool"), "-L", str(path)).splitlines()
    return {line.split(" (", 1)[0].strip() for line in lines if line.startswith("\t")}


def _copy(old: Path, new: Path) -> None:
    """A copy, with the one architecture that is asked for where the original has more."""
    new.unlink(missing_ok=True)
    wanted, there = architectures(), architectures_of(old)
    if missing := sorted(set(wanted) - set(there)):
        raise EpicsNotFound(f"{old} has no code for {', '.join(missing)}: it has {there}")
    if len(wanted) == 1 and len(there) > 1:
        run(tool("lipo"), str(old), "-thin", wanted[0], "-output", str(new))
    else:
        shutil.copyfile(old, new)
    new.chmod(0o755)


def copies(lib_dir: Path, dest: Path) -> tuple[Path, ...]:
    """Copies of the libraries in `lib_dir`, under private names; not yet signed.

    Raises
    ------
    EpicsNotFound
        A library or a tool is missing, or a library lacks an architecture that ARCHFLAGS names.
    """
    originals = [(lib_dir / f"lib{name}.dylib").resolve() for name in LIBRARIES]
    for old in originals:
        if not old.is_file():
            raise EpicsNotFound(f"{old} is missing")
    files = tuple(dest / f"lib{name}{SUFFIX}.dylib" for name in LIBRARIES)
    names = {
        install_name(old): f"@loader_path/{new.name}"
        for old, new in zip(originals, files, strict=True)
    }
    dest.mkdir(parents=True, exist_ok=True)
    for old, new in zip(originals, files, strict=True):
        _copy(old, new)
        changes = ["-id", f"{FROM_MODULES}/{new.name}"]
        for before, after in names.items():
            if before in needed(new) and before != install_name(new):
                changes += ["-change", before, after]
        run(tool("install_name_tool"), *changes, str(new))
    return files


def bind(path: Path, files: Iterable[Path], folder: str) -> bool:
    """Point a file that was linked with the copies at those in `folder`; whether it was edited.

    Raises
    ------
    EpicsNotFound
        It was linked with none of them, or with another libca or libCom.
    """
    asked = {n for n in needed(path) if re.match(r"lib(ca|Com)\b", n.rpartition("/")[2])}
    ours = {file.name for file in files}
    if not asked or not {n.rpartition("/")[2] for n in asked} <= ours:
        raise EpicsNotFound(f"{path} was linked with {sorted(asked)} and not with {sorted(ours)}")
    changes = []
    for before in sorted(asked):
        after = f"{folder}/{before.rpartition('/')[2]}"
        if after != before:
            changes += ["-change", before, after]
    if changes:
        run(tool("install_name_tool"), *changes, str(path))
    return bool(changes)


def sign(path: Path) -> None:
    """Sign a file ad hoc, which proves nothing of who made it, but that it is whole."""
    run(tool("codesign"), "--force", "--sign", "-", str(path))


class PrivateLibraries:
    """Private copies of libca and libCom, and what the modules are linked with to use them."""

    def __init__(self, lib_dir: Path, dest: Path) -> None:
        self.lib_dir = dest
        self.libraries = tuple(f"{name}{SUFFIX}" for name in LIBRARIES)
        self.files = copies(lib_dir, dest)
        for path in self.files:
            sign(path)

    def bind(self, path: Path, rpath: str) -> None:
        """Point one file at the copies: where to look, seen from its own folder."""
        if bind(path, self.files, rpath):
            sign(path)
