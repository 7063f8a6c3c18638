"""The sources compile for macOS and Windows, and the private copies of libca are what they should be.

On Linux, with the compiler and the libraries of tests/support/cross.py and LLVM's tools, which edit
the same files as Apple's. Signing, loading and running need the systems themselves: CI's wheels are
tried there.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cross import ROOT, TARGETS, Build, Target, epicscorelibs, llvm, run, zig

sys.path.insert(0, str(ROOT / "tools"))
import epics_libs
import private_macos
import repair_windows
import sbom

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="the sources are not here"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere wheels are built"),
    pytest.mark.skipif(
        importlib.util.find_spec("ziglang") is None,
        reason="ziglang, of the extra 'ship', is not here",
    ),
    pytest.mark.timeout(900),
]


def _modules(target: Target) -> list[str]:
    """What is made for a system: the program is for POSIX systems only."""
    found = [*sorted(p.stem for p in SOURCES.glob("_*.pyx")), "_linkage"]
    return found if target.windows else [*found, "caRepeater"]


MACS = [t for t in TARGETS if not t.windows]
(WINDOWS,) = [t for t in TARGETS if t.windows]
SOURCES = ROOT / "src" / "epicsx"
# names that only EPICS has, and some that must be among those that are asked for; other modules link nothing of it
ASKED = {
    "_ca": {"ca_create_channel", "ca_array_get_callback", "ca_array_put", "errlogAddListener"},
    "_linkage": {"ca_create_channel", "errlogFlush"},
    "caRepeater": {"caRepeaterThread"},
}
OF_LIBCA = ("ca_", "caRepeater", "dbr_", "eltc", "errlog", "epics", "envGet", "EPICS_")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], Build]:
    made: dict[str, Build] = {}

    def get(target: Target) -> Build:
        if target.name not in made:
            made[target.name] = Build(target, tmp_path_factory.mktemp(target.name))
        return made[target.name]

    return get


@pytest.fixture
def apple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM's tools under the names that Apple's have."""
    for name in ("otool", "lipo", "install-name-tool"):
        (tmp_path / name.replace("-", "_")).symlink_to(llvm(name))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("ARCHFLAGS", raising=False)


@pytest.fixture
def libraries() -> Path:
    """The folder with libca and libCom for macOS."""
    package = epicscorelibs(MACS[0].wheels)
    if package is None:
        pytest.skip("epicscorelibs for macOS could not be downloaded")
    return package / "lib"


@pytest.mark.parametrize(
    ("target", "name"),
    [(t, n) for t in TARGETS for n in _modules(t)],
    ids=lambda x: getattr(x, "name", x),
)
def test_it_compiles_and_libca_has_what_it_asks_for(
    build: Callable[[Target], Build], target: Target, name: str
) -> None:
    made = build(target)
    undefined = made.undefined(made.objects(name))
    if target.windows:
        # called as a DLL's: not by a stub, whose address would be in our own file
        assert [n for n in undefined if n.startswith(OF_LIBCA)] == []
        undefined = {n.removeprefix("__imp_") for n in undefined}
    asked = {n for n in undefined if n.startswith(OF_LIBCA)}
    assert asked >= ASKED.get(name, set())
    assert bool(asked) == (name in ASKED)
    assert asked - made.exported("ca") - made.exported("Com") == set()


@pytest.mark.usefixtures("apple")
def test_private_copies_for_macos(libraries: Path, tmp_path: Path) -> None:
    ca, com = private_macos.copies(libraries, tmp_path / "lib")
    assert (ca.name, com.name) == ("libca-epicsx.dylib", "libCom-epicsx.dylib")
    assert private_macos.install_name(ca) == "@loader_path/lib/libca-epicsx.dylib"
    assert private_macos.install_name(com) == "@loader_path/lib/libCom-epicsx.dylib"
    needed = private_macos.needed(ca) | private_macos.needed(com)
    assert {n for n in needed if not n.startswith("/usr/lib/")} == {
        "@loader_path/lib/libca-epicsx.dylib",
        "@loader_path/libCom-epicsx.dylib",
        "@loader_path/lib/libCom-epicsx.dylib",
    }
    assert private_macos.architectures_of(ca) == private_macos.architectures_of(
        libraries / "libca.dylib"
    )


@pytest.mark.usefixtures("apple")
@pytest.mark.parametrize("target", MACS, ids=lambda t: t.name)
def test_the_copies_have_the_one_architecture_that_is_asked_for(
    libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    monkeypatch.setenv("ARCHFLAGS", f"-arch {target.arch}")
    for path in private_macos.copies(libraries, tmp_path / "lib"):
        assert private_macos.architectures_of(path) == [target.arch]
        assert path.stat().st_size < 700_000


@pytest.mark.usefixtures("apple")
def test_an_architecture_that_is_not_there(
    libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHFLAGS", "-arch ppc")
    with pytest.raises(epics_libs.EpicsNotFound, match="no code for ppc"):
        private_macos.copies(libraries, tmp_path / "lib")


@pytest.mark.usefixtures("apple")
@pytest.mark.parametrize("target", MACS, ids=lambda t: t.name)
def test_what_is_linked_for_macos_asks_for_the_copies(
    build: Callable[[Target], Build], libraries: Path, tmp_path: Path, target: Target
) -> None:
    made = build(target)
    files = private_macos.copies(libraries, tmp_path / "lib")
    link = ["cc", "-target", target.name, f"-L{tmp_path / 'lib'}", "-lca-epicsx", "-lCom-epicsx"]
    module, program = tmp_path / "_linkage.so", tmp_path / "caRepeater"
    zig(*link, "-shared", "-undefined", "dynamic_lookup",
        made.compile("src/epicsx/_linkage.c"), "-o", module)  # fmt: skip
    zig(*link, private_macos.ROOM, made.compile("src/epicsx/_carepeater.c"),
        "-o", program)  # fmt: skip

    assert not private_macos.bind(module, files, "@loader_path/lib")  # nothing was to be changed
    assert private_macos.bind(program, files, "@loader_path/../lib")
    asked = {n for n in private_macos.needed(program) if "lib/lib" in n and "/usr/" not in n}
    assert asked == {f"@loader_path/../lib/{p.name}" for p in files}
    assert not private_macos.bind(program, files, "@loader_path/../lib")


@pytest.mark.usefixtures("apple")
def test_what_was_linked_with_another_libca_is_refused(libraries: Path, tmp_path: Path) -> None:
    files = private_macos.copies(libraries, tmp_path / "lib")
    with pytest.raises(epics_libs.EpicsNotFound, match=r"libca\.7"):
        private_macos.bind(libraries / "libdbCore.dylib", files, "@loader_path/lib")


def _python_dll(target: Target, work: Path, names: set[str]) -> Path:
    """An import library of python312.dll with these names."""
    listing, library = work / "python.def", work / "python312.lib"
    listing.write_text(
        "LIBRARY python312.dll\nEXPORTS\n" + "".join(f"{n}\n" for n in sorted(names))
    )
    zig("dlltool", "-m", "i386:x86-64", "-d", listing, "-l", library, "-D", "python312.dll")
    return library


def test_delvewheel_gives_the_dlls_names_of_their_own(
    build: Callable[[Target], Build], tmp_path: Path
) -> None:
    pytest.importorskip("delvewheel")
    made = build(WINDOWS)
    linkage = made.compile("src/epicsx/_linkage.c")
    python = {n.removeprefix("__imp_") for n in made.undefined([linkage]) if "Py" in n}
    dlls = made.package / "lib"
    module = tmp_path / "_linkage.cp312-win_amd64.pyd"
    # without a C library, which zig would compile for minutes
    zig("cc", "-target", WINDOWS.name, "-shared", "-nostdlib", linkage,
        dlls / "ca.lib", dlls / "Com.lib", _python_dll(WINDOWS, tmp_path, python),
        "-lkernel32", "-Wl,--no-entry", "-o", module)  # fmt: skip

    info = "epicsx-1.0.dist-info"
    contents = {
        "epicsx/__init__.py": (ROOT / "src/epicsx/__init__.py").read_bytes(),
        f"epicsx/{module.name}": module.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.4\nName: epicsx\nVersion: 1.0\n"
        b"License-Expression: BSD-3-Clause AND EPICS AND ISC\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp312-cp312-win_amd64\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{n},,\n" for n in (*contents, f"{info}/RECORD")).encode()
    wheel = tmp_path / "epicsx-1.0-cp312-cp312-win_amd64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)

    # Microsoft's C++ library, which delvewheel takes from the system, is not on this one
    repair_windows.repair(wheel, tmp_path / "out", dlls, "--exclude", "msvcp140.dll")
    repaired = tmp_path / "out" / wheel.name
    with zipfile.ZipFile(repaired) as archive:
        libraries = {
            Path(n).name
            for n in archive.namelist()
            if n.startswith("epicsx.libs/") and n[-1] != "/"
        }
        archive.extractall(tmp_path / "wheel")
    assert sorted(n.split("-")[0] for n in libraries) == ["Com", "ca"]
    for path in (tmp_path / "wheel").rglob("*.[pd][yl][dl]"):
        imports = run(llvm("readobj"), "--coff-imports", path)
        assert "Name: ca.dll" not in imports and "Name: Com.dll" not in imports, path.name
    ours = run(llvm("readobj"), "--coff-imports", tmp_path / "wheel/epicsx" / module.name)
    assert {n for n in libraries if f"Name: {n}" in ours} == libraries
    start = (tmp_path / "wheel/epicsx/__init__.py").read_text()
    assert "os.add_dll_directory(libs_dir)" in start
    compile(start, "__init__.py", "exec")
    sbom.add(repaired)
    told = sbom.text(sbom.make(repaired))
    assert all(f"epicsx.libs/{n}" in told for n in libraries)
