"""The hardened libca's build: its edits, where its sources may come from, and the library made.

Compiling takes a minute or more, so the tests of the library itself run on what an earlier build has
left (`make hardened`, or EPICSX_EPICS=hardened), and are skipped where there is none. The edits are
tried on the real sources where those are on this machine: in build/epics, or where
EPICSX_EPICS_SDIST says; nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from epicsx import _linkage, _version

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(_version.__file__).parent
CACHE = ROOT / "build" / "epics"

sys.path.insert(0, str(ROOT / "tools"))
import epics_libs  # noqa: E402
import epics_sources  # noqa: E402
import hardened_build  # noqa: E402
from epics_sources import SourceError  # noqa: E402
from hardened_guards import ADDED, GUARDS, Edit, Guard, after, before, instead  # noqa: E402

hardened = pytest.mark.skipif(
    _linkage.MODE != "hardened", reason="this build is not hardened (EPICSX_EPICS=hardened)"
)


# ------------------------------------------------------------------------------- the edits


def test_an_edit_finds_its_place_once() -> None:
    guard = Guard("two", (before("a.c", "b\n", "x\n"), after("a.c", "c\n", "y\n")))
    assert epics_sources.edited(guard, "a.c", "a\nb\nc\n") == "a\nx\nb\nc\ny\n"
    assert epics_sources.edited(guard, "other.c", "a\n") == "a\n"
    assert instead("a.c", "f(a, b)", "b", "c") == Edit("a.c", "f(a, b)", "f(a, c)")


@pytest.mark.parametrize(("text", "times"), [("a changed line\n", 0), ("the line\nthe line\n", 2)])
def test_a_changed_source_ends_the_build_and_names_the_guard(
    text: str, times: int, tmp_path: Path
) -> None:
    guard = Guard("own-name", (Edit("lib/a.c", "the line\n", "another line\n"),))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.c").write_text(text)
    with pytest.raises(SourceError, match=f"guard 'own-name'.* {times} times in lib/a.c"):
        epics_sources.apply(tmp_path, [guard])
    assert (tmp_path / "lib" / "a.c").read_text() == text
    with pytest.raises(SourceError, match=r"guard 'own-name': lib/a\.c is not among"):
        epics_sources.apply(tmp_path / "lib", [guard])


@pytest.fixture(scope="module")
def archive() -> Path:
    """The sdist with the sources of EPICS base."""
    told = os.environ.get("EPICSX_EPICS_SDIST", "")
    if not told and not (CACHE / epics_sources.SDIST).is_file():
        pytest.skip("the sources of EPICS base are not on this machine: `make hardened` gets them")
    return epics_sources.sdist(CACHE)


@pytest.fixture(scope="module")
def sources(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that are edited, by their names, as they are in the sdist."""
    top = tmp_path_factory.mktemp("sources")
    epics_sources._unpack(archive, top)
    files = sorted({edit.file for guard in GUARDS for edit in guard.edits})
    return {file: (top / file).read_text("utf-8") for file in files}


def applied(guards: Iterable[Guard], texts: dict[str, str]) -> dict[str, str]:
    for guard in guards:
        texts = {file: epics_sources.edited(guard, file, text) for file, text in texts.items()}
    return texts


def test_every_edit_of_the_table_applies_to_the_sources(sources: dict[str, str]) -> None:
    found = applied(GUARDS, sources)
    assert [file for file in found if found[file] == sources[file]] == []
    with pytest.raises(SourceError, match=f"guard '{GUARDS[0].name}'"):
        applied(GUARDS, found)  # a second time there is nothing to find


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_each_guard_is_missed_when_its_text_changes(guard: Guard, sources: dict[str, str]) -> None:
    texts = dict(applied(GUARDS[: GUARDS.index(guard)], sources))
    edit = guard.edits[-1]
    texts[edit.file] = texts[edit.file].replace(edit.find, "/* rewritten */\n")
    with pytest.raises(SourceError, match=f"guard '{guard.name}'"):
        applied([guard], texts)


def test_the_names_of_guards_are_unique_and_each_is_told_in_the_docs() -> None:
    names = [guard.name for guard in GUARDS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) and guard.edits
               for name, guard in zip(names, GUARDS, strict=True))  # fmt: skip
    text = (ROOT / "docs" / "hardened.md").read_text("utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.MULTILINE) == names


def test_the_files_of_our_own_are_there() -> None:
    found = {path.name for path in (ROOT / "tools" / "hardened").iterdir()}
    assert found == set(ADDED)


# ------------------------------------------------------------------- where sources come from


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file that is taken for the sdist."""
    path = tmp_path / epics_sources.SDIST
    path.write_bytes(b"not much")
    monkeypatch.setattr(epics_sources, "SHA256", hashlib.sha256(b"not much").hexdigest())
    return path


def test_the_sdist_may_be_named_as_a_file_or_its_folder(small: Path, tmp_path: Path) -> None:
    empty = tmp_path / "cache"
    for told in (small, small.parent):
        assert epics_sources.sdist(empty, {"EPICSX_EPICS_SDIST": str(told)}) == small
    assert not empty.exists()
    assert epics_sources.sdist(small.parent, {}) == small  # from an earlier build


def test_another_file_of_that_name_is_refused(small: Path) -> None:
    small.write_bytes(b"something else")
    for environ in ({"EPICSX_EPICS_SDIST": str(small)}, {}):
        with pytest.raises(SourceError, match="SHA-256"):
            epics_sources.sdist(small.parent, environ)


def test_a_missing_sdist_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no epicscorelibs"):
        epics_sources.sdist(tmp_path, {"EPICSX_EPICS_SDIST": str(tmp_path)})


def test_without_a_network_the_text_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SourceError, match="EPICSX_EPICS_SDIST"):
        epics_sources.sdist(tmp_path / "cache", {})


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_no_header_of_the_sources_is_another_s(archive: Path, tmp_path: Path) -> None:
    # one that this machine has by chance is missing on the next: Debian's valgrind has such
    told = {**os.environ, "EPICSX_EPICS_SDIST": str(archive)}
    made = hardened_build.Hardened(tmp_path, told)

    def read(source: Path) -> set[str]:
        command = [*made.command(source), "-M"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
        return set(done.stdout.partition(":")[2].replace("\\\n", " ").split())

    with ThreadPoolExecutor(2) as pool:
        found = set().union(*pool.map(read, epics_sources.sources(made.top)))
    own = {path for path in found if Path(path).is_relative_to(made.top)}
    names = {path.name for path in made.top.rglob("*.h")}
    assert len(own) > 200
    assert [path for path in found - own if Path(path).name in names] == []


# ------------------------------------------------------------------------------- sanitizers


def test_sanitizers_are_asked_for_by_name() -> None:
    assert hardened_build.sanitize_flags({}) == []
    flags = hardened_build.compile_flags({"EPICSX_SANITIZE": "address, undefined"})
    assert "-fsanitize=address,undefined" in flags
    assert not any("_FORTIFY_SOURCE=" in flag for flag in flags)
    with pytest.raises(SourceError, match="no sanitizer"):
        hardened_build.sanitize_flags({"EPICSX_SANITIZE": "address;rm"})
    plain = hardened_build.compile_flags({})
    assert {"-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"} <= set(plain)
    assert "-fno-omit-frame-pointer" in plain


# ------------------------------------------------------------------------------- how small


def test_only_what_values_go_through_is_compiled_for_speed(sources: dict[str, str]) -> None:
    levels = {Path(file).name: hardened_build.optimization(Path(file), {}) for file in sources}
    assert levels["convert.cpp"] == ["-O3"]
    assert levels["tcpiiu.cpp"] == levels["cac.cpp"] == ["-O2"]
    assert levels["udpiiu.cpp"] == levels["searchTimer.cpp"] == ["-Os"]
    checked = {"EPICSX_SANITIZE": "address"}  # these have a level of their own
    assert {tuple(hardened_build.optimization(Path(f), checked)) for f in sources} == {()}


def test_what_is_named_for_speed_is_among_the_sources() -> None:
    if not (CACHE / f"epicscorelibs-{epics_sources.VERSION}" / "prepared.txt").is_file():
        pytest.skip("no unpacked sources of EPICS base: `make hardened` makes them")
    top = CACHE / f"epicscorelibs-{epics_sources.VERSION}"
    stems = {path.stem for path in epics_sources.sources(top)}
    assert stems >= hardened_build.FASTEST | hardened_build.HOT
    assert "iocsh" not in stems


def test_what_our_sources_call_is_exported_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "_a.pyx").write_text("x = ca_flush_io()\n")
    (tmp_path / "_a.h").write_text("int ca_message_text_of(void);\n")
    (tmp_path / "notes.py").write_text("ca_pend_io\n")
    names = ["ca_pend_io", "ca_message_text", "ca_flush_io"]
    assert hardened_build.called_names(names, tmp_path) == ["ca_flush_io"]


# ------------------------------------------------------------------------------ byte swaps

SWAPS = """
#include <stdio.h>
#include <stdlib.h>
#include "epicsx_swap.h"
static unsigned char in[4096], out[4096];
int main()
{
    void ( * swap[] ) ( void *, const void *, size_t ) = { epicsxSwap16, epicsxSwap32, epicsxSwap64 };
    long checks = 0;
    for ( unsigned i = 0; i < sizeof ( in ); i++ ) in[i] = static_cast < unsigned char > ( rand () );
    for ( unsigned which = 0; which < 3; which++ ) {
        const size_t size = 2u << which;
        for ( size_t count = 0; count < 100; count++ ) for ( size_t shift = 0; shift < 9; shift++ )
        for ( int place = 0; place < 2; place++ ) {
            for ( unsigned i = 0; i < sizeof ( out ); i++ ) out[i] = place ? in[i] : 0xA5;
            swap[which] ( out + shift, ( place ? out : in ) + shift, count );
            for ( size_t i = 0; i < count * size; i++, checks++ ) {
                const size_t mirror = i / size * size + size - 1 - i % size;
                if ( out[shift + i] != in[shift + mirror] ) return 1;
            }
            if ( out[shift + count * size] != ( place ? in[shift + count * size] : 0xA5 ) ) return 2;
        }
    }
    printf ( "%ld\\n", checks );
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(sys.byteorder != "little", reason="the network's order is this machine's")
def test_byte_swaps_of_every_length_and_alignment(tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(SWAPS)
    folder = ROOT / "tools" / "hardened"
    program = tmp_path / "swaps"
    command = ["c++", "-O2", f"-I{folder}", str(tmp_path / "main.cpp"),
               str(folder / "epicsx_swap.cpp"), "-o", str(program)]  # fmt: skip
    subprocess.run(command, check=True, timeout=50)
    done = subprocess.run([program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, int(done.stdout or 0) > 100_000) == (0, True)


# ------------------------------------------------------------------------------ the library


@hardened
def test_build_info_of_a_hardened_build() -> None:
    from epicsx import _build_info

    info = _build_info.build_info()
    assert info["guards"].split(", ") == [guard.name for guard in GUARDS]
    assert epics_sources.VERSION in info["linked"]
    assert hardened_build.SONAME in info["linked"]
    assert Path(info["libca_path"]).resolve() == (PACKAGE / "lib" / hardened_build.SONAME).resolve()
    assert info["libcom_path"] == info["libca_path"]


@hardened
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm, of binutils")
def test_the_hardened_library_exports_the_c_functions_under_names_of_our_own() -> None:
    (library,) = (PACKAGE / "lib").glob("*.so")
    names = epics_libs.exported(library)
    assert [n for n in names if not n.startswith(epics_libs.PREFIX)] == []
    bare = {n.removeprefix(epics_libs.PREFIX) for n in names}
    assert {"ca_create_channel", "ca_context_create", "eltc"} <= bare
    assert hardened_build.called_names(bare) == sorted(bare)
