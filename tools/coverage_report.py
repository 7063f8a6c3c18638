"""Line coverage of everything in the package: the Python modules, the Cython modules, the C files.

    python tools/coverage_report.py FOLDER [--missing FILE ...] [--json PATH] [--least PERCENT]

FOLDER holds what `make coverage` made: a build with gcc's counters (``EPICSX_COVERAGE=1``), and coverage.py's data.

The compiled modules are counted by gcov, which neither asks for the GIL nor slows libca's threads, as Cython's own line
tracing would do. gcov counts lines of the C that Cython generated. That C says in comments from which line of the .pyx
each part comes. A line of a .pyx is covered if the first C statement of one of its parts ran.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/epicsx")

FACE = ("ca", "dbr", "pv", "functional", "device", "alarm", "motor")
"""The modules of pyepics' face whose coverage is promised."""

MARK = re.compile(r'^\s*/\* "(?P<path>[^"]+\.(?:pyx|pxd|pxi))":(?P<line>\d+)$')


@dataclass
class Lines:
    """The executable lines of one file, and those that ran."""

    known: set[int] = field(default_factory=set)
    ran: set[int] = field(default_factory=set)

    def count(self, line: int, times: int) -> None:
        """Add a line, which ran so many times."""
        self.known.add(line)
        if times:
            self.ran.add(line)

    @property
    def missing(self) -> list[int]:
        """The lines that did not run."""
        return sorted(self.known - self.ran)


Report = dict[str, Lines]
"""Lines of each source file, by its path from the top of the repository."""


def python_files(folder: Path) -> Report:
    """What coverage.py has counted."""
    made = folder / "python.json"
    environ = {**os.environ, "COVERAGE_FILE": str(folder / "data")}

    def coverage(*args: str, check: bool) -> None:
        subprocess.run(
            [sys.executable, "-m", "coverage", *args], env=environ, cwd=ROOT, check=check
        )

    coverage("combine", "-q", "--append", check=False)  # fails where it has been done already
    coverage("json", "-q", "-o", str(made), check=True)
    report: Report = {}
    for path, each in json.loads(made.read_text(encoding="utf-8"))["files"].items():
        inside = path.split("epicsx/", 1)[-1] if "/lib/epicsx/" in path else None
        if inside is None:
            continue
        ran = set(each["executed_lines"])
        report[str(PACKAGE / inside)] = Lines(ran | set(each["missing_lines"]), ran)
    return report


def gcov(folder: Path) -> dict[str, dict[int, int]]:
    """How often each line of each C file ran, generated ones too, by gcov's names of the files."""
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    # .gcno, not .gcda: what never ran has written no counts
    for notes in sorted(folder.rglob("*.gcno")):
        done = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(notes)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a .gcda that is missing
            text=True,
        )
        for text in done.stdout.splitlines():
            for each in json.loads(text)["files"]:
                for line in each["lines"]:
                    counts[each["file"]][line["line_number"]] += line["count"]
    return counts


def parts(generated: Path) -> Iterator[tuple[str, int, range]]:
    """The parts of a C file that Cython made: the .pyx or .pxd, its line, and the lines of C."""
    lines = generated.read_text(encoding="utf-8").splitlines()
    marks = [(number, m) for number, text in enumerate(lines, 1) if (m := MARK.match(text))]
    ends = [number for number, _ in marks[1:]] + [len(lines) + 1]
    for (number, mark), end in zip(marks, ends, strict=True):
        yield mark["path"], int(mark["line"]), range(number, end)


def home(path: str) -> str | None:
    """Where the source of that name is in the repository, or None for what is not ours."""
    name = Path(path).name
    for folder in (PACKAGE, Path("include")):
        if (ROOT / folder / name).is_file():
            return str(folder / name)
    return None


def compiled_files(folder: Path) -> Report:
    """What gcov has counted, by the files that people wrote."""
    report: Report = defaultdict(Lines)
    for path, counts in gcov(folder).items():
        generated = ROOT / path
        pyx = (ROOT / PACKAGE / generated.name).with_suffix(".pyx")
        if pyx.is_file():
            for source, line, where in parts(generated):
                first = next((n for n in where if n in counts), None)
                place = home(source)
                if first is not None and place is not None:
                    report[place].count(line, counts[first])
        else:
            place = home(path)
            if place is None or os.path.isabs(path):
                continue  # a header of the system's
            for line, times in counts.items():
                report[place].count(line, times)
    return report


def percent(files: Collection[Lines]) -> float:
    """How much of these files ran."""
    known = sum(len(f.known) for f in files)
    return 100.0 * sum(len(f.ran) for f in files) / max(known, 1)


def row(name: str, files: Collection[Lines]) -> str:
    """One line of the table."""
    known = sum(len(f.known) for f in files)
    ran = sum(len(f.ran) for f in files)
    return f"{name:<66}{known:>8}{ran:>9}{percent(files):>8.1f} %"


def ranges(lines: list[int]) -> str:
    """``1-3, 7``."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--missing", nargs="*", default=[], metavar="FILE", help="also list what did not run there"
    )
    parser.add_argument("--json", type=Path, help="write the uncovered lines of all files there")
    parser.add_argument(
        "--least",
        type=float,
        help="fail if pyepics' face or the compiled files have less, in percent",
    )
    options = parser.parse_args()
    folder = options.folder.resolve()
    python, compiled = python_files(folder), compiled_files(folder)
    face = {path: python[path] for m in FACE if (path := str(PACKAGE / f"{m}.py")) in python}
    out = [f"{'file':<66}{'lines':>8}{'covered':>9}{'':>8}"]
    out += [row(path, [lines]) for path, lines in sorted({**python, **compiled}.items())]
    promised = [list(face.values()), list(compiled.values())]
    sums = {
        "pyepics' face: " + " ".join(Path(p).stem for p in face): face.values(),
        "all Python files": python.values(),
        "all compiled files": compiled.values(),
        "pyepics' face and the compiled files": [*face.values(), *compiled.values()],
        "everything": [*python.values(), *compiled.values()],
    }
    out += ["", *(row(name, files) for name, files in sums.items())]
    for name in options.missing:
        for path, lines in sorted({**python, **compiled}.items()):
            if Path(path).name == Path(name).name:
                out += ["", f"{path}: {ranges(lines.missing)}"]
    sys.stdout.write("\n".join(out) + "\n")
    if options.json:
        missing = {p: lines.missing for p, lines in {**python, **compiled}.items()}
        options.json.write_text(json.dumps(missing, indent=1), encoding="utf-8")
    if options.least and any(percent(files) < options.least for files in promised):
        sys.stdout.write(f"less than the promised {options.least:g} %\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
