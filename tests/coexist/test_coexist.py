"""epicsx beside other libraries of EPICS in one process: each works, and the process ends well.

    make coexist                everything: each order with libc's malloc, jemalloc and tcmalloc, on both builds
    pytest tests/coexist        with libc's malloc, the orders whose libraries are here

With EPICSX_COEXIST=all nothing is left out: what is missing is a failure.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import coexist

import epicsx
from epicsx.testing import SoftIOC

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import allocators  # noqa: E402

ALL = os.environ.get("EPICSX_COEXIST") == "all"
MODE = epicsx.build_info()["mode"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def server() -> Iterator[SoftIOC]:
    """Give an IOC with the records of coexist.DATABASE, `w` full."""
    with SoftIOC(coexist.DATABASE, repeater_port=int(os.environ["EPICS_CA_REPEATER_PORT"])) as ioc:
        coexist.fill(ioc)
        yield ioc


def lacking(reason: str) -> None:
    """Skip the test, or fail where nothing may be left out."""
    if ALL:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("malloc", ["libc", *(allocators.ALLOCATORS if ALL else ())])
@pytest.mark.parametrize("order", coexist.ORDERS, ids="-".join)
def test_each_works_and_the_process_ends_well(
    order: tuple[str, ...], malloc: str, server: SoftIOC
) -> None:
    if lacks := coexist.missing(order):
        lacking(f"not installed: {', '.join(lacks)}; the extra coexist has it")
    if MODE not in ("bundled", "hardened") and not ALL:
        pytest.skip(f"this build has no libca of its own: {MODE}")
    preload = allocators.library(malloc) if malloc != "libc" else None
    if malloc != "libc" and preload is None:
        pytest.fail(allocators.lacking(malloc))
    found = coexist.run(order, server, preload=str(preload or ""), timeout=100.0)
    assert found.clean, f"{found}; did {found.did}\n--- its stderr ---\n{found.stderr[-8000:]}"
    assert found.shared == []
    assert found.unused == []
    assert found.report is not None
    assert found.report.mode == MODE, "another build of epicsx than this process has"


def test_another_library_that_cannot_be_preloaded_is_told(server: SoftIOC, tmp_path: Path) -> None:
    """Else a run with an allocator that the dynamic linker refuses would pass as one of libc's."""
    library = tmp_path / "liballocator.so"
    library.write_bytes(b"not a library")
    found = coexist.run(("epicsx",), server, preload=str(library))
    assert (found.returncode, found.clean) == (0, False)
    assert [line for line in found.complaints if "cannot be preloaded" in line]
    assert found.unused == [
        f"{library} is not mapped",
        f"{library} counts 0 bytes for an array of {coexist.ARRAY}",
    ]


@pytest.mark.skipif(not ALL, reason="waits for a time-out of 20 s: make coexist")
def test_what_others_do_to_each_other_is_told(server: SoftIOC) -> None:
    """That these two do not get on, with nothing of epicsx in the process, shows that a run can fail."""
    found = coexist.run(("aioca", "pyepics"), server, timeout=50.0)
    assert not found.clean
    assert "aioca" in found.did and found.did != ["aioca", "pyepics"] * 2


def outcome(**changes: Any) -> coexist.Outcome:
    order = ("epicsx", "aioca")
    report = coexist.Report(
        "bundled",
        {"epicsx": "/e/lib/libca-epicsx.so", "aioca": "/a/lib/libca.so.7"},
        ["/a/lib/libca.so.7", "/e/lib/libca-epicsx.so"],
        0,
    )
    whole = coexist.Outcome(order, 0, [*order, *order], 0.1, "", report)
    return replace(whole, **changes)


def test_a_whole_run_is_clean() -> None:
    found = outcome(stderr="Starting iocInit\nx.py:1: SyntaxWarning: invalid escape sequence\n")
    assert found.clean and found.shared == found.unused == []
    assert str(found) == "epicsx, aioca: clean"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"returncode": -11}, "SIGSEGV"),
        ({"returncode": 1}, "return code 1"),
        ({"returncode": None}, "hang"),
        ({"did": ["epicsx", "aioca", "epicsx"]}, "incomplete"),
        ({"report": None}, "incomplete"),
        ({"stderr": "double free or corruption (!prev)\n"}, "double free or corruption (!prev)"),
        ({"stderr": "<jemalloc>: size mismatch\n"}, "<jemalloc>: size mismatch"),
        ({"stderr": "munmap_chunk(): invalid pointer\n"}, "munmap_chunk(): invalid pointer"),
    ],
)
def test_what_a_run_may_end_with(changes: dict[str, Any], told: str) -> None:
    found = outcome(**changes)
    assert not found.clean
    assert str(found) == f"epicsx, aioca: {told}"


def test_a_libca_that_two_share_is_told() -> None:
    one = "/a/lib/libca.so.7"
    report = coexist.Report("base", {"epicsx": one, "aioca": one}, [one], 0)
    assert outcome(report=report).shared == [
        f"epicsx has no libca of its own, but uses {one}",
        f"epicsx uses the files of aioca: {one}",
    ]
    report = coexist.Report("bundled", {"epicsx": one, "aioca": ""}, [], 0)
    assert outcome(report=report).shared == [
        "aioca has loaded no libca",
        f"{one} of epicsx is not mapped",
    ]


def test_the_page_has_every_order() -> None:
    page = (ROOT / "docs" / "coexistence.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z0-9, -]+?) \|", page, re.MULTILINE)
    assert [row for row in rows if row != "order" and set(row) != {"-"}] == [
        ", ".join(order) for order in (*coexist.ORDERS, *coexist.CONTROLS)
    ]
