"""Users' programs under mypy strict and pyright strict: what is right passes, what is wrong is found.

The programs are in tests/typing. A line that must be refused ends with ``# error:``, mypy's codes and
pyright's rules (with commas between several); every other line must pass. They are checked, never run.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import epicsx
from epicsx._streams import Stream, StreamOptions

PROGRAMS = Path(__file__).resolve().parents[1] / "typing"
SOURCE = Path(str(epicsx.__file__)).parents[1]
NAMES = sorted(p.name for p in PROGRAMS.glob("*.py"))

_MARK = re.compile(r"# error: (\S+) (\S+)$")
_MYPY = re.compile(r"^(?:.*[/\\])?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$")

Found = dict[str, set[tuple[int, str]]]

pytestmark = pytest.mark.timeout(300)  # a cold cache on a busy machine


def expected(name: str, column: int) -> set[tuple[int, str]]:
    """Lines and codes that are marked; 1 is mypy's column, 2 is pyright's."""
    lines = (PROGRAMS / name).read_text(encoding="utf-8").splitlines()
    marks = [(number, _MARK.search(line)) for number, line in enumerate(lines, 1)]
    return {(n, code) for n, mark in marks if mark for code in mark[column].split(",")}


def run(*args: str, cwd: Path | None = None) -> str:
    environ = {
        **os.environ,
        "MYPYPATH": str(SOURCE),
        "PYTHONPATH": str(SOURCE),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    faulthandler.cancel_dump_traceback_later()  # it would tell after 50 s where this waits
    done = subprocess.run(
        [sys.executable, "-m", *args], cwd=cwd, env=environ, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    # 1: there were errors, and wrong.py has many; anything else is a failure of the checker
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Found:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: pip install epicsx[dev]")
    work = tmp_path_factory.mktemp("mypy")
    # silent: what is inside epicsx is none of a user's business, and `make types` checks it
    output = run(
        "mypy", "--strict", "--follow-imports=silent", "--show-error-codes", "--no-pretty",
        "--no-error-summary", "--hide-error-context", "--cache-dir", str(work / "cache"),
        *(str(PROGRAMS / name) for name in NAMES), cwd=work,
    )  # fmt: skip
    found: Found = {name: set() for name in NAMES}
    for line in output.splitlines():
        match = _MYPY.match(line)
        assert match or " note: " in line, line
        if match:
            found[match[1]].add((int(match[2]), match[3]))
    return found


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> Found:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed: pip install epicsx[dev]")
    # it takes no folder but its own
    work = tmp_path_factory.mktemp("pyright")
    shutil.copytree(PROGRAMS, work / "programs")
    # reportUnusedExpression and its like are not about our types
    settings = {
        "include": ["programs"],
        "extraPaths": [str(SOURCE)],
        "typeCheckingMode": "strict",
        "reportUnusedExpression": False,
        "reportUnusedCoroutine": False,
        "reportUnusedClass": False,
    }
    (work / "pyrightconfig.json").write_text(json.dumps(settings))
    output = run(
        "pyright", "--project", str(work), "--outputjson", "--pythonpath", sys.executable, cwd=work
    )
    found: Found = {name: set() for name in NAMES}
    for problem in json.loads(output)["generalDiagnostics"]:
        name = Path(problem["file"]).name
        line = problem["range"]["start"]["line"] + 1
        found[name].add((line, problem.get("rule", problem["message"])))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_mypy_finds_what_is_marked_and_nothing_else(name: str, mypy: Found) -> None:
    assert mypy[name] == expected(name, 1)


@pytest.mark.parametrize("name", NAMES)
def test_pyright_finds_what_is_marked_and_nothing_else(name: str, pyright: Found) -> None:
    assert pyright[name] == expected(name, 2)


def test_what_a_checker_sees_is_typed() -> None:
    # pyepics' tables and devices make names at run time; all else says its types, so that no checker has to guess
    guessed = re.compile(r"epicsx\.(ca|compat|dbr|devices)\b")
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed: pip install epicsx[dev]")
    report = json.loads(
        run("pyright", "--verifytypes", "epicsx", "--ignoreexternal", "--outputjson")
    )
    told = report["typeCompleteness"]
    assert Path(told["packageRootDirectory"]) == SOURCE / "epicsx"
    assert told["exportedSymbolCounts"]["withUnknownType"] == 0
    symbols = [s for s in told["symbols"] if s["isExported"]]
    assert len(symbols) > 1000
    assert [
        s["name"] for s in symbols if not s["isTypeKnown"] and not guessed.match(s["name"])
    ] == []


def test_the_options_of_streams_are_those_of_the_class() -> None:
    names = list(inspect.signature(Stream).parameters)
    assert list(StreamOptions.__annotations__) == names[1:]


def test_there_are_programs_of_both_kinds() -> None:
    marked = {name: len(expected(name, 1)) for name in NAMES}
    assert marked.pop("wrong.py") >= 20
    assert len(marked) >= 4
    assert set(marked.values()) == {0}
