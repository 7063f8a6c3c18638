"""What no line of epicsx does: run what it was sent, unpickle, or write to a file whose name others can guess."""

from __future__ import annotations

import ast
import re
from pathlib import Path

# the sources, also where what is installed is a copy without them
ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "epicsx"
SOURCES = sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "tools").rglob("*.py"))
COMPILED = sorted(PACKAGE.glob("*.p[yx]x")) + sorted(PACKAGE.glob("*.pxi"))

RUNS = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"pickle", "cPickle", "marshal", "shelve", "dill", "yaml", "joblib"}
SHELLS = {"system", "popen"}
OPEN_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

ALLOWED = {
    ("cli/run.py", "exec"),  # runs the script that it was told to run: that is the command
    ("cli/run.py", "compile"),
    ("tools/check_packaging.py", "/tmp/pip"),  # it looks whether that got into the wheel
}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Give each call with the last part of the name that is called; a method of an object that is no module too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            if isinstance(name, ast.Name):
                found.append((name.id, node))
            elif isinstance(name, ast.Attribute):
                owner = name.value.id if isinstance(name.value, ast.Name) else ""
                found.append((f"{owner}.{name.attr}", node))
    return found


def faults(path: Path, text: str) -> list[str]:
    """Give what a source does that none should, as "file:line: what"."""
    tree = ast.parse(text)
    base = PACKAGE if PACKAGE in path.parents else ROOT
    where = path.relative_to(base).as_posix()
    found = []
    for name, call in calls(tree):
        what = ""
        if name in RUNS or name.startswith("builtins."):
            what = "" if (where, name) in ALLOWED else f"{name}()"
        elif name in {f"os.{shell}" for shell in SHELLS} or name == "tempfile.mktemp":
            what = f"{name}()"
        elif any(k.arg == "shell" and not _false(k.value) for k in call.keywords):
            what = "shell=True"
        elif any(k.arg == "allow_pickle" and not _false(k.value) for k in call.keywords):
            what = "allow_pickle"
        elif name in ("np.load", "numpy.load") and "allow_pickle" not in _keywords(call):
            what = "np.load without allow_pickle=False"
        if what:
            found.append(f"{where}:{call.lineno}: {what}")
    for node in ast.walk(tree):
        names: list[str] = []
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Constant) and str(node.value).startswith(OPEN_FOLDERS):
            if (where, node.value) in ALLOWED:
                continue
            found.append(f"{where}:{line}: a path in a folder that all may write to")
        found += [f"{where}:{line}: imports {n}" for n in names if n.split(".")[0] in UNPICKLES]
    return found


def _keywords(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


def _false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_nothing_runs_or_unpickles_what_it_was_sent() -> None:
    assert SOURCES
    found = [each for path in SOURCES for each in faults(path, path.read_text("utf-8"))]
    assert found == []


def test_nor_do_the_compiled_modules() -> None:
    wrong = re.compile(
        r"(?<![\w.])(eval|exec|compile)\(|\b(import|cimport) (pickle|marshal|shelve)\b"
    )
    assert COMPILED
    found = [
        f"{path.name}:{n}"
        for path in COMPILED
        for n, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if wrong.search(line.split("#")[0])
    ]
    assert found == []


def test_no_text_from_elsewhere_is_a_format_of_c() -> None:
    """printf's format is always written out: a server's text is an argument."""
    call = re.compile(r"\b(?:sn?printf|fprintf|printf|vsnprintf|errlogPrintf)\(([^;]*);", re.DOTALL)
    found = []
    for path in sorted(PACKAGE.glob("_*.c")):
        text = path.read_text("utf-8")
        for match in call.finditer(text):
            if (
                '"' not in match[1]
                and "va_list" not in text[max(0, match.start() - 300) : match.start()]
            ):
                found.append(f"{path.name}: {match[0]}")
    assert found == []


def test_the_check_sees_what_it_looks_for() -> None:
    planted = """
import pickle, os, subprocess, tempfile
import numpy as np
eval("1"); exec("2"); os.system("x"); tempfile.mktemp()
subprocess.run("x", shell=True)
np.load("x"); np.load("x", allow_pickle=True)
open("/tmp/epicsx.log", "w")
"""
    found = " ".join(faults(PACKAGE / "planted.py", planted))
    for what in (
        "imports pickle",
        "eval()",
        "exec()",
        "os.system()",
        "tempfile.mktemp()",
        "shell=True",
    ):
        assert what in found
    assert found.count("allow_pickle") == 2
    assert "a folder that all may write to" in found
