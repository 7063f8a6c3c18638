"""Compile libCom and libca for `EPICSX_EPICS=hardened`, into one private library.

Three files of the package call libca: the modules _ca and _linkage, and the program caRepeater. So
libCom and libca become one shared library, libca-epicsx.so, and not a part of each. It exports only
the C functions that clients call, under names with a prefix; all else stays inside and is bound when
it is linked. The prefix is put on by a header that the compiler reads before everything else, here
and for our own modules: no binary is changed afterwards.

Objects are kept in build/epics by the hash of what they were made from, so a second build takes
seconds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import epics_sources
from epics_sources import SourceError
from hardened_guards import GUARDS

PREFIX = "epicsx_"
SONAME = "libca-epicsx.so"
ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "epics"
PACKAGE = ROOT / "src" / "epicsx"

# What is not reached from the exported names is dropped.
LINK = (
    "-Wl,-Bsymbolic",
    "-Wl,-z,relro,-z,now",
    "-Wl,--gc-sections",
    "-Wl,-O1",
    "-Wl,--hash-style=gnu",
)

# The files that a get, a put or an update goes through, by what callgrind counts in them; they are
# compiled for speed, the byte swaps most of all, and all others for size.
FASTEST = frozenset({"epicsx_swap", "convert"})
HOT = frozenset({
    "tcpiiu", "cac", "comQueRecv", "comQueSend", "comBuf", "nciu", "oldChannelNotify", "ca_client_context",
    "netReadNotifyIO", "netWriteNotifyIO", "netSubscription", "getCallback", "putCallback",
    "oldSubscription", "tcpRecvWatchdog", "tcpSendWatchdog", "timer", "timerQueue", "epicsTime",
    "epicsMutex", "osdMutex", "epicsEvent", "osdEvent", "osdMonotonic", "osdTime", "epicsGeneralTime",
})  # fmt: skip

_DEFINES = (
    "_GNU_SOURCE", "_DEFAULT_SOURCE", "linux", "UNIX", "USE_TYPED_RSET", "USE_TYPED_DSET",
    "USE_TYPED_DRVET", "BUILDING_libCom_API", "BUILDING_libCa_API",
    "EPICS_COMMANDLINE_LIBRARY=EPICS_COMMANDLINE_LIBRARY_EPICS",
)  # fmt: skip
_PUBLIC = ("cadef.h", "db_access.h", "caerr.h", "errlog.h", "envDefs.h", "epicsExit.h")
_NAME = re.compile(r"\bLIB(?:CA|COM)_API\s[^;{}()\[\]=]*?(\w+)\s*(?=[(\[;])")


def sanitizers(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The sanitizers that EPICSX_SANITIZE asks for, as gcc names them."""
    found = tuple(environ.get("EPICSX_SANITIZE", "").replace(",", " ").split())
    for name in found:
        if not re.fullmatch(r"[a-z-]+", name):
            raise SourceError(f"EPICSX_SANITIZE: {name!r} is no sanitizer")
    return found


def sanitize_flags(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Compiler and linker flags for the sanitizers asked for; none by default."""
    names = sanitizers(environ)
    if not names:
        return []
    flags = [f"-fsanitize={','.join(names)}", "-fno-omit-frame-pointer"]
    if "undefined" in names:
        # it needs type information that hidden classes lack
        flags.append("-fno-sanitize=vptr")
    return flags


def compile_flags(environ: Mapping[str, str] = os.environ) -> list[str]:
    """How libCom and libca are compiled."""
    flags = [
        "-w", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-strict-aliasing",
        "-fno-omit-frame-pointer", "-ffunction-sections", "-fdata-sections",
    ]  # fmt: skip
    if sanitizers(environ):
        # checks of the sanitizers and of the C library hide each other's reports
        return [*flags, "-O1", "-g", "-U_FORTIFY_SOURCE", *sanitize_flags(environ)]
    debug = "-g" if environ.get("EPICSX_DEBUG") else "-g0"
    flags += [debug, "-fno-plt", "-fstack-protector-strong"]
    return [*flags, "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]


def optimization(source: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """How much one file of them is optimized; sanitizers have a level of their own."""
    if sanitizers(environ):
        return []
    if source.stem in FASTEST:
        return ["-O3"]
    return ["-O2"] if source.stem in HOT else ["-Os"]


def _compiler(variable: str, default: str, environ: Mapping[str, str]) -> list[str]:
    """The compiler's command without Python's own flags."""
    words = shlex.split(environ.get(variable) or sysconfig.get_config_var(variable) or default)
    return [words[0]] if words else [default]


def public_names(include: Path) -> list[str]:
    """The C functions and tables of the headers that clients use."""
    names = {"caRepeaterThread"}  # exported, and in no header
    for header in _PUBLIC:
        text = (include / header).read_text()
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
        macros = set(re.findall(r"^\s*#\s*define\s+(\w+)", text, flags=re.MULTILINE))
        names |= set(_NAME.findall(text)) - macros
    return sorted(names)


def called_names(names: Iterable[str], package: Path = PACKAGE) -> list[str]:
    """Those of the names that occur in the package's own sources: all else need not be exported."""
    words: set[str] = set()
    for path in package.iterdir():
        if path.suffix in (".c", ".h", ".pyx", ".pxd", ".pxi"):
            words |= set(re.findall(r"\w+", path.read_text("utf-8")))
    return sorted(words.intersection(names))


class Hardened:
    """The private library: what clients of it need, and how it is made."""

    def __init__(self, cache: Path = CACHE, environ: Mapping[str, str] = os.environ) -> None:
        self.environ = environ
        self.top = epics_sources.prepare(cache, environ)
        self.cc = _compiler("CC", "cc", environ)
        self.cxx = _compiler("CXX", "c++", environ)
        self.flags = compile_flags(environ)
        flavour = "-".join(("sanitized", *sanitizers(environ))) if sanitizers(environ) else "plain"
        self.work = cache / flavour
        self.work.mkdir(parents=True, exist_ok=True)
        self.names = public_names(self.top / "include")
        self.names_header = self.work / "epicsx_names.h"
        lines = [f"#define {n} {PREFIX}{n}" for n in self.names]
        _write(self.names_header, "\n".join(["#pragma once", *lines, ""]))

    @property
    def guards(self) -> tuple[str, ...]:
        """The names of the guards, in the order in which they were applied."""
        return tuple(guard.name for guard in GUARDS)

    @property
    def library(self) -> Path:
        """Where `build` puts it."""
        return self.work / "lib" / SONAME

    @property
    def client_flags(self) -> list[str]:
        """For the compiler of whatever calls the library: the private names."""
        return ["-include", str(self.names_header)]

    @property
    def include_dirs(self) -> tuple[str, ...]:
        """For clients of the library."""
        return (str(self.top / "include"),)

    @property
    def linked(self) -> str:
        """What it is, in words."""
        words = (
            f"EPICS base {epics_sources.release(self.top)} compiled from the sources of "
            f"epicscorelibs {epics_sources.VERSION} with {len(GUARDS)} guards into the private "
            f"{SONAME}, symbols prefixed {PREFIX}"
        )
        checked = sanitizers(self.environ)
        return f"{words}; sanitizers: {', '.join(checked)}" if checked else words

    def build(self) -> Path:
        """Compile what has changed, link, and return the library."""
        base = self._headers_hash()
        jobs = [(source, self._object(source, base)) for source in epics_sources.sources(self.top)]
        missing = [job for job in jobs if not job[1].is_file()]
        if missing:
            sys.stderr.write(f"epicsx: compiling {len(missing)} files of EPICS base\n")
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            jobs_running = [pool.submit(self._compile, *job) for job in missing]
            try:
                for job in jobs_running:
                    job.result()
            except SourceError:
                pool.shutdown(cancel_futures=True)
                raise
        objects = [path for _, path in jobs]
        out = self.library
        made = self.work / "linked.txt"
        exported = called_names(self.names)
        state = "\n".join([*map(str, objects), *exported, *LINK])
        if not (out.is_file() and made.is_file() and made.read_text() == state):
            self._link(objects, exported, out)
            made.write_text(state)
            self._forget(objects)
        return out

    def _headers_hash(self) -> str:
        """All that may be included, the compilers and the flags, as one hash."""
        listed = set(epics_sources.sources(self.top))
        total = hashlib.sha256()
        for path in sorted(self.top.rglob("*")):
            # some C files are included by others
            if path.suffix in (".h", ".c", ".cpp") and path not in listed:
                total.update(path.relative_to(self.top).as_posix().encode())
                total.update(path.read_bytes())
        total.update(self.names_header.read_bytes())
        for command in (self.cc, self.cxx):
            done = subprocess.run([*command, "--version"], capture_output=True, check=False)
            total.update(done.stdout)
        total.update(" ".join([*self.flags, *_DEFINES]).encode())
        return total.hexdigest()

    def _object(self, source: Path, base: str) -> Path:
        digest = hashlib.sha256(
            " ".join([base, *optimization(source, self.environ)]).encode() + source.read_bytes()
        ).hexdigest()[:20]
        folder = source.relative_to(self.top).parent.as_posix().replace("/", "_")
        return self.work / "objects" / f"{folder}_{source.stem}-{digest}.o"

    def command(self, source: Path) -> list[str]:
        """The compiler's command for one file, but for what it shall do with it."""
        is_c = source.suffix == ".c"
        command = [*(self.cc if is_c else self.cxx), "-std=gnu11" if is_c else "-std=gnu++11"]
        command += [*self.flags, *optimization(source, self.environ)]
        command += ["-include", str(self.names_header)]
        # the texts of libca's assertions name its files
        command.append(f"-ffile-prefix-map={self.top}=epics-base")
        command += [f"-D{name}" for name in _DEFINES]
        command += [f"-I{folder}" for folder in epics_sources.include_dirs(self.top)]
        return [*command, str(source)]

    def _compile(self, source: Path, out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = out.with_suffix(f".{os.getpid()}.new")
        _run([*self.command(source), "-c", "-o", str(new)])
        new.replace(out)

    def _link(self, objects: list[Path], exported: Iterable[str], out: Path) -> None:
        lines = "".join(f"    {PREFIX}{n};\n" for n in exported)
        script = self.work / "exports.map"
        script.write_text(f"{{\nglobal:\n{lines}local:\n    *;\n}};\n")
        out.parent.mkdir(parents=True, exist_ok=True)
        strict = [] if sanitizers(self.environ) else ["-Wl,--no-undefined"]
        new = out.with_suffix(".new")
        _run([
            *self.cxx, "-shared", "-o", str(new), *map(str, objects), *sanitize_flags(self.environ),
            f"-Wl,-soname,{SONAME}", f"-Wl,--version-script,{script}", *LINK, *strict,
            "-pthread", "-lm", "-lrt", "-ldl",
        ])  # fmt: skip
        new.replace(out)

    def _forget(self, objects: list[Path]) -> None:
        """Drop objects of earlier states."""
        for path in (self.work / "objects").iterdir():
            if path not in objects:
                path.unlink()


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SourceError(f"{shlex.join(command)}\n{done.stderr.strip()[-3000:]}")


def main() -> None:
    """Build the library alone; prints where it is."""
    try:
        sys.stdout.write(f"{Hardened().build()}\n")
    except SourceError as exc:
        sys.exit(f"epicsx: {exc}")


if __name__ == "__main__":
    if shutil.which("cc") is None and "CC" not in os.environ:
        sys.exit("epicsx: a C compiler is needed")
    main()
