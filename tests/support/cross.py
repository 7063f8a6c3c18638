"""Compile the sources for macOS and Windows on Linux: with zig's clang, and what PyPI has for those systems.

The compiler is the PyPI package ziglang, which brings the systems' own headers; libca and libCom are
those of epicscorelibs' wheels for the system. Python's headers are this Python's, with a `pyconfig.h`
that says what differs; numpy's likewise. Nothing that is made can be run here.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "cross"
"""What was downloaded."""


@dataclass(frozen=True)
class Target:
    """A system to compile for."""

    name: str  # as zig has it
    wheels: str  # the platform tag of its wheels
    arch: str  # as Apple has it

    @property
    def windows(self) -> bool:
        return "windows" in self.name


TARGETS = (
    Target("aarch64-macos.11.0", "macosx_11_0_universal2", "arm64"),
    Target("x86_64-macos.11.0", "macosx_11_0_universal2", "x86_64"),
    Target("x86_64-windows-gnu", "win_amd64", "x86_64"),
)


def llvm(name: str) -> str:
    """One of LLVM's programs, which know the files of all systems; skips without it."""
    choices = [f"llvm-{name}", *(f"llvm-{name}-{n}" for n in range(30, 13, -1))]
    found = next((p for p in map(shutil.which, choices) if p), None)
    if found is None:
        pytest.skip(f"llvm-{name} is not installed (Debian's package llvm)")
    return found


def run(*args: str | Path, timeout: float = 500.0) -> str:
    """What a program prints; the test fails with its complaint if it fails."""
    done = subprocess.run(
        [str(a) for a in args], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, args))}\n{done.stderr[-4000:]}"
    return done.stdout


def zig(*args: str | Path) -> str:
    """What zig prints; the test fails with its complaint if it fails."""
    return run("nice", "-n", "19", sys.executable, "-m", "ziglang", *args)


@functools.cache
def epicscorelibs(tag: str) -> Path | None:
    """The package of that system's wheel of epicscorelibs; None if it cannot be downloaded."""
    place = KEPT / tag
    if not list(place.glob("*.whl")):
        subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps",
             "--only-binary=:all:", "--python-version", "3.12", "--platform", tag, "-d", place,
             "epicscorelibs>=7.0.10.99.0.2"],
            capture_output=True, timeout=200, check=False,
        )  # fmt: skip
    wheels = sorted(place.glob("*.whl"))
    if not wheels:
        return None
    if not (place / "epicscorelibs").is_dir():
        with zipfile.ZipFile(wheels[-1]) as archive:
            archive.extractall(
                place, [n for n in archive.namelist() if "/lib/" in n or "/include/" in n]
            )
    return place / "epicscorelibs"


# --------------------------------------------------------------------------------- headers

# Of PC/pyconfig.h what the headers ask for.
_PYCONFIG_WINDOWS = """
#include <io.h>
#include <stdio.h>
#define MS_WIN32
#define MS_WIN64
#define MS_WINDOWS
#define NT_THREADS
#define WITH_THREAD
#define Py_ENABLE_SHARED 1
#define MS_COREDLL
#define HAVE_DECLSPEC_DLL
#define SIZEOF_VOID_P 8
#define SIZEOF_TIME_T 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_DOUBLE 8
#define SIZEOF_FLOAT 4
#define SIZEOF_WCHAR_T 2
#define HAVE_UINTPTR_T 1
#define HAVE_INTPTR_T 1
#define STDC_HEADERS 1
#define HAVE_WCHAR_H 1
#define HAVE_STDDEF_H 1
"""
# Windows does not tell cA.h from ca.h, and the wheel has other letters than what includes it.
_INCLUDES = re.compile(r'#\s*include\s+[<"]([\w.]+)[">]')


def _python_headers(target: Target, dest: Path) -> None:
    shutil.copytree(sysconfig.get_path("include"), dest, dirs_exist_ok=True)
    if target.windows:
        (dest / "pyconfig.h").write_text(_PYCONFIG_WINDOWS)


def _numpy_headers(target: Target, dest: Path) -> None:
    import numpy as np

    shutil.copytree(np.get_include(), dest, dirs_exist_ok=True)
    path = dest / "numpy" / "_numpyconfig.h"
    text = path.read_text()
    changed = text.replace("#define NPY_HAVE_ENDIAN_H 1", "")
    if target.windows:
        changed = changed.replace("#define NPY_SIZEOF_LONG 8", "#define NPY_SIZEOF_LONG 4")
    path.write_text(changed)


def _epics_headers(target: Target, dest: Path, package: Path) -> None:
    source = package / "include"
    dest.mkdir(parents=True)
    files = {p.name.lower(): p for p in source.glob("*.h")}
    names = {p.name for p in files.values()}
    for path in [*source.glob("*.h"), *ROOT.glob("include/*.h"), *ROOT.glob("src/epicsx/*.c")]:
        names.update(_INCLUDES.findall(path.read_text(encoding="utf-8", errors="replace")))
    names |= {"envDefs.h", "epicsTime.h", "epicsVersion.h", "alarm.h", "caerr.h"}  # the .pxd's
    for name in names:
        if name.lower() in files:
            shutil.copyfile(files[name.lower()], dest / name)
    if target.windows:
        # MSVC's own, for clang: as EPICS builds with MinGW
        text = (epicscorelibs(TARGETS[0].wheels) or package) / "include" / "compilerSpecific.h"
        for name in ("compilerSpecific.h", "compilerspecific.h"):
            shutil.copyfile(text, dest / name)


@functools.cache
def modules() -> dict[str, dict[str, list[str]]]:
    """What setup.py compiles: the C sources, made of the .pyx too, by module."""
    # in a process of its own: setup.py changes the working folder and sys.path
    script = (
        "import json, sys; from distutils.core import run_setup\n"
        "found = run_setup('setup.py', ['-q'], stop_after='init')\n"
        "command = found.get_command_obj('build_ext'); command.ensure_finalized()\n"
        "command._cythonize()\n"
        "told = {e.name: {'sources': e.sources, 'flags': [f'-D{n}={v}' for n, v in e.define_macros]}\n"
        "        for e in command.extensions}\n"
        "sys.stdout.write('\\n' + json.dumps(told))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import setuptools\n" + script],
        cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return told


# --------------------------------------------------------------------------------- objects


class Build:
    """The sources, compiled for one system."""

    def __init__(self, target: Target, work: Path) -> None:
        package = epicscorelibs(target.wheels)
        if package is None:
            pytest.skip(f"epicscorelibs for {target.wheels} could not be downloaded")
        self.target, self.work, self.package = target, work, package
        _python_headers(target, work / "python")
        _numpy_headers(target, work / "numpy")
        _epics_headers(target, work / "epics", package)
        self._made: dict[str, Path] = {}

    def compile(self, source: str, flags: Sequence[str] = ()) -> Path:
        """The object file of one source, in which warnings are errors if a person wrote it."""
        if source in self._made:
            return self._made[source]
        strict = not source.startswith("build/")
        out = self.work / f"{source.replace('/', '+')}.o"
        system = []
        if self.target.windows:
            # as EPICS itself builds with MinGW; zig's time.h has struct timespec already
            system = ["-DEPICS_CALL_DLL", "-D_MINGW", "-D__struct_timespec_defined"]
        warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"] if strict else ["-w"]
        folders = [f"-I{ROOT / 'include'}", f"-I{ROOT / 'src/epicsx'}"]
        folders += [f"-isystem{self.work / name}" for name in ("python", "numpy", "epics")]
        zig("cc", "-target", self.target.name, "-c", "-O0", "-g0", "-fvisibility=hidden",
            "-fno-sanitize=undefined", "-fno-stack-protector", *warnings, *folders, *system,
            '-DEPICSX_MODE="bundled"', '-DEPICSX_LINKED="cross"', *flags, ROOT / source, "-o", out)  # fmt: skip
        self._made[source] = out
        return out

    def objects(self, name: str) -> list[Path]:
        """The object files of a module, or of the caRepeater program."""
        if name == "caRepeater":
            return [self.compile("src/epicsx/_carepeater.c")]
        told = modules()[f"epicsx.{name}"]
        return [self.compile(source, told["flags"]) for source in told["sources"]]

    def undefined(self, objects: Iterable[Path]) -> set[str]:
        """What they need of others, as C has the names; Windows' imports with `__imp_`."""
        lacks, has = set(), set()
        for path in objects:
            lacks |= set(run(llvm("nm"), "-u", "-j", path).split())
            has |= set(run(llvm("nm"), "-g", "-j", "--defined-only", path).split())
        names = lacks - has
        return names if self.target.windows else {n.removeprefix("_") for n in names}

    def exported(self, library: str) -> set[str]:
        """What epicscorelibs' libca or libCom for this system exports."""
        folder = self.package / "lib"
        if self.target.windows:
            told = run(llvm("readobj"), "--coff-exports", folder / f"{library}.dll")
            return set(re.findall(r"^\s*Name: (\S+)$", told, re.MULTILINE))
        told = run(llvm("nm"), "-g", "-j", "--defined-only", f"--arch={self.target.arch}",
                   folder / f"lib{library}.dylib")  # fmt: skip
        return {n.removeprefix("_") for n in told.split()}
