"""`python -m tests.coexist`: how each order of libraries ends, as the tables of docs/coexistence.md.

Every order is run with libc's malloc, jemalloc and tcmalloc, with each build of epicsx and without epicsx. The page is
written where nothing was left out and nothing that has a private libca failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "tools")]

import allocators  # noqa: E402
from support import coexist  # noqa: E402

from epicsx.testing import SoftIOC  # noqa: E402

PAGE = TESTS.parent / "docs" / "coexistence.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
MALLOCS = ("libc", *allocators.ALLOCATORS)
LIBRARIES = ("pyepics", "aioca", "cothread", "p4p", "softioc", "epicscorelibs")


def cell(order: Sequence[str], ioc: SoftIOC, env: dict[str, str]) -> tuple[str, bool]:
    """How an order ends with each allocator, in words; and whether all is well, the libca private."""
    ended: dict[str, list[str]] = {}
    well = True
    for malloc in MALLOCS:
        preload = "" if malloc == "libc" else str(allocators.library(malloc))
        found = coexist.run(order, ioc, preload=preload, env=env)
        well = well and found.clean and not found.shared and not found.unused
        told = [str(found).partition(": ")[2], *found.unused]
        if "epicsx" in order and found.shared:
            told.append("libca not private")
        if "return code 1" in told[0]:  # what a library raised: the last line
            last = found.stderr.rstrip().rpartition("\n")[2].replace(ioc.prefix, "")
            told[0] = re.sub(r", sent to [0-9.: ]+$", "", last)
        ended.setdefault("; ".join(told), []).append(malloc)
        print(f"  {malloc}: {found} ({'; '.join(found.shared + found.unused)})", file=sys.stderr)
    if len(ended) == 1:
        return next(iter(ended)), well
    return "; ".join(f"{', '.join(names)}: {how}" for how, names in ended.items()), well


def main() -> int:
    """Run all; 1 if a build with a private libca failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.coexist", description=__doc__)
    parser.add_argument(
        "--build", action="append", default=[], metavar="NAME=FOLDER", help="a further build"
    )
    parser.add_argument("--shared", action="append", default=[], help="the builds that may fail")
    given = parser.parse_args()
    lacks = coexist.missing(tuple(coexist.NEEDS))
    lacks += [name for name in allocators.ALLOCATORS if allocators.library(name) is None]
    if lacks:
        parser.error(f"not here: {', '.join(lacks)}; make coexist brings them")
    builds = {"default build": ""}
    builds |= {name: str(Path(folder).resolve()) for name, _, folder in
               (each.partition("=") for each in given.build)}  # fmt: skip
    begun = time.monotonic()
    wrong = False
    with SoftIOC(coexist.DATABASE) as ioc:
        coexist.fill(ioc)
        lines = [
            f"| order | {' | '.join(builds)} | without epicsx |",
            f"| --- {'| --- ' * len(builds)}| --- |",
        ]
        for order in coexist.ORDERS:
            cells = []
            for name, folder in builds.items():
                print(f"{name}:", file=sys.stderr)
                text, well = cell(order, ioc, {"PYTHONPATH": folder} if folder else {})
                wrong = wrong or not (well or name in given.shared)
                cells.append(text)
            others = tuple(name for name in order if name != "epicsx")
            cells.append(cell(others, ioc, {})[0] if others else "-")
            lines.append(f"| {', '.join(order)} | {' | '.join(cells)} |")
        lines += ["", "| order | without epicsx |", "| --- | --- |"]
        lines += [f"| {', '.join(each)} | {cell(each, ioc, {})[0]} |" for each in coexist.CONTROLS]
    runs = len(MALLOCS) * ((len(builds) + 1) * len(coexist.ORDERS) - 1 + len(coexist.CONTROLS))
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    where = f"Python {platform.python_version()}, {platform.machine()}, {libraries}"
    lines += [
        "",
        f"{runs} processes in {time.monotonic() - begun:.0f} s on {os.cpu_count()} cores, {where}.",
    ]
    table = "\n".join(lines)
    print(table)
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    if not wrong:
        tail = rest.partition(END)[2]
        PAGE.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
