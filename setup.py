"""Build the compiled modules, the private libca and the caRepeater program.

Everything that is not compiled is described in pyproject.toml. How EPICS base is found, and what
becomes of it, is told in tools/epics_libs.py and, for macOS, in tools/private_macos.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

import epics_libs  # noqa: E402
import epics_sources  # noqa: E402
import hardened_build  # noqa: E402
import private_macos  # noqa: E402

PACKAGE = Path("src/epicsx")
# A build that counts which lines run, for `make coverage`. It goes to a folder of its own.
COVERAGE = bool(os.environ.get("EPICSX_COVERAGE"))
# Compile the modules, and libca if it is compiled too, with gcc's or clang's sanitizers.
SANITIZE = hardened_build.sanitize_flags()
CYTHONIZED = Path("build/coverage/cython" if COVERAGE else "build/cython")
REPEATER = PACKAGE / "_carepeater.c"

# What Cython makes is long, and most of it runs seldom: it is compiled for size, but for the files
# that each get and put goes through. Our own C, which runs in libca's threads, keeps -O3. What that
# costs in instructions is told in docs/building.md. Without the builtin, as -Os would copy arrays
# with string instructions.
_SMALL = ("-Os", "-fno-builtin-memcpy")
LEVELS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("_ca", "_dbr", "_sample"), ("-O2",)),
    **dict.fromkeys(("_stream", "_request", "_bulk", "_deliver"), _SMALL),
}

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "embedsignature.format": "python",
    "binding": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "auto_pickle": False,
    "autotestdict": False,
    "freethreading_compatible": False,
}


@dataclass(frozen=True)
class Module:
    """One compiled module: its name, and what it needs besides Python."""

    name: str
    numpy: bool = False
    epics: str = ""  # "headers", or "linked"
    sources: tuple[str, ...] = ()  # C sources; a .pyx of the same name is found by itself


def _core_sources() -> tuple[str, ...]:
    """The C files that belong to _ca: every private one but the two that stand alone."""
    alone = {REPEATER.name, "_linkage.c"}
    return tuple(str(p) for p in sorted(PACKAGE.glob("_*.c")) if p.name not in alone)


# In the order of the layers, lowest first. A module whose .pyx is missing is left out.
MODULES = (
    Module("_linkage", epics="linked", sources=(str(PACKAGE / "_linkage.c"),)),
    Module("_dbr", numpy=True, epics="headers"),
    Module("_sample", epics="headers"),
    Module("_ca", epics="linked", sources=_core_sources()),
    Module("_stream", numpy=True, epics="headers"),
    Module("_request", epics="headers"),
    Module("_bulk", epics="headers"),
    Module("_deliver", epics="headers"),
)


def _compile_args() -> list[str]:
    if sys.platform == "win32":
        return ["/O2", "/std:c11"]  # which has _Static_assert
    if SANITIZE:
        return ["-O1", "-g", "-fvisibility=hidden", "-U_FORTIFY_SOURCE", *SANITIZE]
    if COVERAGE:
        return ["-O0", "-g0", "--coverage", "-fprofile-update=atomic", "-fvisibility=hidden"]
    # -g0: Python's own flags ask for -g, which would triple the size of the modules
    return ["-O3", "-g" if os.environ.get("EPICSX_DEBUG") else "-g0", "-fvisibility=hidden"]


def _level(source: str) -> tuple[str, ...]:
    """What one file is compiled with, besides: by its name, as that of Cython's has no C of ours."""
    return () if SANITIZE or COVERAGE else LEVELS.get(Path(source).stem, ())


def _link_args() -> list[str]:
    # bind everything at import, so that a missing symbol is an ImportError and not a later crash
    counting = ["--coverage"] if COVERAGE else SANITIZE
    return [*counting, "-Wl,-z,relro,-z,now"] if sys.platform.startswith("linux") else counting


def _extensions() -> list[Extension]:
    wanted = {n for n in os.environ.get("EPICSX_MODULES", "").replace(",", " ").split() if n}
    headers = [str(p) for p in sorted(Path("include").glob("*.*"))]
    found = []
    for module in MODULES:
        pyx = PACKAGE / f"{module.name}.pyx"
        sources = ([str(pyx)] if pyx.exists() else []) + list(module.sources)
        is_c = str(PACKAGE / f"{module.name}.c") in sources
        if not (pyx.exists() or is_c) or (wanted and module.name not in wanted):
            continue
        extension = Extension(
            f"epicsx.{module.name}",
            sources,
            include_dirs=["include", str(PACKAGE)],
            depends=[*headers, *(str(p) for p in sorted(PACKAGE.glob("_*.h")))],
            extra_compile_args=_compile_args(),
            extra_link_args=_link_args(),
        )
        if module.numpy:
            extension.define_macros.append(("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"))
        found.append(extension)
    return found


class build_ext(_build_ext):
    """Cythonize late, compile, and put the private libraries and the program beside the modules.

    Not at the top of setup.py: an sdist would then hold the generated C and not the sources.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None and sys.platform != "win32":
            self.parallel = os.cpu_count() or 1

    def run(self) -> None:
        try:
            self.epics = epics_libs.find_epics()
        except epics_libs.EpicsNotFound as exc:
            raise SystemExit(f"epicsx: {exc}") from None
        self.announce(f"EPICS base: {self.epics.linked}", level=2)
        if self.epics.hardened is not None:
            try:
                self.epics.hardened.build()
            except epics_sources.SourceError as exc:
                raise SystemExit(f"epicsx: {exc}") from None
        self._forget_other_builds()
        self.private = self._private_libraries()
        self._configure()
        self._cythonize()
        super().run()
        self._install_payload()

    def _private_libraries(
        self,
    ) -> epics_libs.PrivateLibraries | private_macos.PrivateLibraries | None:
        if self.epics.mode != "bundled" or not self.epics.private:
            return None
        assert self.epics.lib_dir is not None
        make = (
            private_macos.PrivateLibraries
            if sys.platform == "darwin"
            else epics_libs.PrivateLibraries
        )
        try:
            return make(Path(self.epics.lib_dir), Path(self.build_temp, "private").resolve())
        except epics_libs.EpicsNotFound as exc:
            raise SystemExit(f"epicsx: {exc}") from None

    @property
    def _linked(self) -> tuple[list[str], list[str]]:
        """What is linked, and where the linker finds it."""
        if self.private is not None:
            return list(self.private.libraries), [str(self.private.lib_dir)]
        return list(self.epics.libraries), [self.epics.lib_dir] if self.epics.lib_dir else []

    def _forget_other_builds(self) -> None:
        """Link again when the folder holds the results of another choice of EPICS base."""
        # a hardened libca is private: another edition of it asks for no more than its file
        linked = "" if self.epics.hardened else self.epics.linked
        if self._changed("epics.txt", f"{self.epics.mode}: {linked} {' '.join(SANITIZE)}"):
            self.force = True

    def _changed(self, name: str, text: str) -> bool:
        """Whether the last build of this folder wrote another text; writes this one."""
        mark = Path(self.build_temp, name)
        if mark.is_file() and mark.read_text() == text:
            return False
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(text)
        return True

    def _configure(self) -> None:
        """Add what only this machine knows: where numpy's and EPICS' files are."""
        modules = {f"epicsx.{m.name}": m for m in MODULES}
        for ext in self.extensions:
            module = modules[ext.name]
            if module.numpy:
                import numpy as np

                ext.include_dirs.append(np.get_include())
            if module.epics:
                ext.include_dirs.extend(self.epics.include_dirs)
                if sys.platform == "win32":
                    ext.define_macros.append(("EPICS_CALL_DLL", None))
            if module.epics == "linked":
                libraries, folders = self._linked
                ext.libraries.extend(libraries)
                ext.library_dirs.extend(folders)
                if sys.platform == "win32":
                    ext.libraries.append("ws2_32")  # ex_poke's send()
                if self.epics.hardened is not None:
                    ext.extra_compile_args.extend(self.epics.hardened.client_flags)
                    # the library itself may change without them: it is found at run time
                    ext.depends.append(str(self.epics.hardened.names_header))
                if self.epics.mode == "base" and sys.platform != "win32":
                    ext.runtime_library_dirs.append(self.epics.lib_dir)
            if module.name == "_linkage":
                ext.define_macros.append(("EPICSX_MODE", f'"{self.epics.mode}"'))
                ext.define_macros.append(("EPICSX_LINKED", f'"{self.epics.linked}"'))
                guards = ", ".join(self.epics.hardened.guards if self.epics.hardened else ())
                ext.define_macros.append(("EPICSX_GUARDS", f'"{guards}"'))
                self._changed("linkage.txt", f"{self.epics.linked} {guards}")
                ext.depends.append(str(Path(self.build_temp, "linkage.txt")))

    def _cythonize(self) -> None:
        from Cython.Build import cythonize

        out = CYTHONIZED
        settings = max(p.stat().st_mtime for p in (ROOT / "setup.py", ROOT / "pyproject.toml"))
        for ext in self.extensions:
            if not any(s.endswith(".pyx") for s in ext.sources):
                continue
            made = [out / Path(s).with_suffix(".c") for s in ext.sources if s.endswith(".pyx")]
            stale = any(p.exists() and p.stat().st_mtime < settings for p in made)
            (done,) = cythonize(
                [ext],
                include_path=["include", "src"],
                build_dir=str(out),
                compiler_directives=DIRECTIVES,
                force=bool(self.force) or stale,
                quiet=not self.verbose,
            )
            ext.sources = done.sources

    def build_extensions(self) -> None:
        compile_one = getattr(self.compiler, "_compile", None)
        if compile_one is not None:  # MSVC's has none, and no level of these
            # setuptools has flags for a module, and not for one of its files
            def leveled(
                obj: str, src: str, ext: str, cc: list[str], post: list[str], pp: list[str]
            ) -> None:
                compile_one(obj, src, ext, cc, [*post, *_level(src)], pp)

            self.compiler._compile = leveled
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        path = Path(self.get_ext_fullpath(ext.name))
        before = path.stat().st_mtime_ns if path.exists() else 0
        super().build_extension(ext)
        if path.stat().st_mtime_ns == before:
            return  # it was up to date, and is bound already
        if ext.libraries:
            self._bind(path, self.epics.rpath)
        elif epics_libs.have_patchelf():
            # some Pythons put their own library folder into every module they build
            epics_libs.patchelf(path, "--remove-rpath")

    def _bind(self, path: Path, rpath: str | None) -> None:
        if self.private is not None:
            assert rpath is not None
            self.private.bind(path, rpath)
        elif epics_libs.have_patchelf():
            if rpath:
                epics_libs.patchelf(path, "--set-rpath", rpath)
            else:
                epics_libs.patchelf(path, "--remove-rpath")

    def _build_repeater(self) -> Path:
        out = Path(self.build_temp, "bin")
        base = self.epics.mode == "base"
        names = self.epics.hardened.client_flags if self.epics.hardened else []
        rpath = f"{epics_libs.ORIGIN}/../lib" if self.epics.private else self.epics.rpath
        libraries, folders = self._linked
        # distutils has a module's compiler heed ARCHFLAGS, but not a program's linker
        archs = shlex.split(os.environ.get("ARCHFLAGS", "")) if sys.platform == "darwin" else []
        room = [private_macos.ROOM] if sys.platform == "darwin" else []
        objects = self.compiler.compile(
            [str(REPEATER)],
            output_dir=self.build_temp,
            include_dirs=["include", *self.epics.include_dirs],
            extra_preargs=[*_compile_args(), *names],
        )
        self.compiler.link_executable(
            objects,
            "caRepeater",
            output_dir=str(out),
            libraries=libraries,
            library_dirs=folders,
            runtime_library_dirs=[self.epics.lib_dir] if base else [],
            extra_postargs=[*_link_args(), *archs, *room],
        )
        program = out / "caRepeater"
        self._bind(program, rpath)
        return program

    def _payload(self) -> dict[str, list[Path]]:
        """What lies beside the modules, by folder."""
        libs = list(self.private.files) if self.private else []
        if self.epics.hardened is not None:
            libs = [self.epics.hardened.library]
        bins = [self._build_repeater()] if sys.platform != "win32" else []
        return {"lib": libs, "bin": bins}

    def _install_payload(self) -> None:
        top = PACKAGE if self.inplace else Path(self.build_lib, "epicsx")
        self._outputs: list[str] = []
        for folder, files in self._payload().items():
            # a site's EPICS bundles nothing: also not what an earlier build left here
            names = {p.name for p in files}
            for stale in (top / folder).glob("*"):
                if stale.name not in names:
                    stale.unlink()
            if not files:
                shutil.rmtree(top / folder, ignore_errors=True)
                continue
            (top / folder).mkdir(parents=True, exist_ok=True)
            for path in files:
                target = top / folder / path.name
                self._outputs.append(str(target))
                if target.exists() and target.read_bytes() == path.read_bytes():
                    continue
                # replaced in one step: a running program may have the old file mapped
                new = target.with_name(f".{target.name}.new")
                shutil.copyfile(path, new)
                new.chmod(0o755)
                new.replace(target)

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), *getattr(self, "_outputs", [])]


os.chdir(ROOT)
setup(ext_modules=_extensions(), cmdclass={"build_ext": build_ext})
