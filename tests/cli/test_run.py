"""`epicsx run` and `python -m epicsx SCRIPT`: an unchanged script sees what it sees under plain Python."""

from __future__ import annotations

import os
import py_compile
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from epicsx.testing import SoftIOC

#: What libCom says in a forked child that uses it.
LIBCOM = ("Warning: Undefined Behavior!", "Detected use of epicsThread from child process")

PLAIN = [sys.executable]
RUN = [sys.executable, "-m", "epicsx", "run"]
SHORT = [sys.executable, "-m", "epicsx"]


def start(
    command: list[str],
    *args: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    timeout: float = 40.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*command, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def same(
    *args: str, cwd: Path, stdin: str = "", commands: tuple[list[str], ...] = (RUN, SHORT)
) -> subprocess.CompletedProcess[str]:
    """What plain Python makes of these arguments, after a check that each way of running does the same."""
    expected = start(PLAIN, *args, cwd=cwd, stdin=stdin)
    for command in commands:
        found = start(command, *args, cwd=cwd, stdin=stdin)
        assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
        assert found.stderr == expected.stderr
    return expected


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A file for a script, in a folder that is not the current one."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    return folder / "script.py"


LOOK = '''\
"""The script's own doc."""
import os, sys
print(__name__, __file__, __doc__, __package__, __spec__ and __spec__.name, sys.argv)
print(type(__loader__).__name__, __builtins__.__name__, sys.modules["__main__"].__dict__ is globals())
print([path for path in sys.path if not path.endswith("_path")][0] == os.path.dirname(__file__))
from helper import HELP
print(HELP)
def f(x: int) -> int: ...
print(f.__annotations__)
'''


def look(folder: Path, name: str = "script.py") -> None:
    (folder / name).write_text(LOOK, encoding="utf-8")
    (folder / "helper.py").write_text("HELP = 'a module beside it'\n", encoding="utf-8")


def test_sees_what_it_sees_under_python(script: Path) -> None:
    look(script.parent)
    args = ["a b", "--help", "--", "-m", "--version", "run"]
    for name in ("script.py", "./script.py", str(script)):
        out = same(name, *args, cwd=script.parent).stdout
        assert "__main__" in out
        assert "a module beside it" in out
    same("scripts/script.py", cwd=script.parents[1])


def test_module(script: Path) -> None:
    look(script.parent, "some.py")
    package = script.parent / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    shutil.copy(script.parent / "some.py", package / "inner.py")
    (package / "__main__.py").write_text("import sys; print(sys.argv, __package__, __name__)")
    assert "some.py" in same("-m", "some", "-x", "y", cwd=script.parent).stdout
    assert "pack" in same("-m", "pack", "--help", cwd=script.parent).stdout
    assert "pack.inner" in same("-m", "pack.inner", "-m", "1", cwd=script.parent).stdout


def test_standard_input(tmp_path: Path) -> None:
    text = "import sys; print(__name__, sys.argv, sys.path[0] == '', __file__); 1 / 0"
    out = same("-", "x", cwd=tmp_path, stdin=text)
    assert out.returncode == 1
    assert out.stdout == "__main__ ['-', 'x'] True <stdin>\n"


def test_folder_and_zip_file(tmp_path: Path) -> None:
    text = "import sys; print(__name__, sys.argv, sys.path[0])"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(text, encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "packed.pyz", "w") as file:
        file.writestr("__main__.py", text)
    assert "folder" in same("folder", "1", cwd=tmp_path).stdout
    assert "packed.pyz" in same("packed.pyz", "1", cwd=tmp_path).stdout
    packed = (tmp_path / "packed.pyz").read_bytes()
    (tmp_path / "program").write_bytes(
        b"#!/usr/bin/env python3\n" + packed
    )  # as zipapp -p makes it
    assert "program" in same("program", "1", cwd=tmp_path).stdout


def test_a_compiled_file(script: Path) -> None:
    look(script.parent)
    py_compile.compile(str(script), str(script.parent / "script.pyc"))
    assert "beside" in same("script.pyc", "1", cwd=script.parent).stdout


@pytest.mark.parametrize(
    "args", [["--", "x"], ["a", "--", "b"], ["-m", "--"], ["-h"], ["--version"]]
)
def test_the_arguments_are_the_scripts_own(script: Path, args: list[str]) -> None:
    script.write_text(
        "import sys; print(sys.argv, globals().get('__annotations__'))", encoding="utf-8"
    )
    same("script.py", *args, cwd=script.parent)
    same("-m", "script", *args, cwd=script.parent)
    same("-mscript", *args, cwd=script.parent)


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a text')",
        "raise SystemExit",
        "def f():\n    return {}['missing']\nf()",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise RuntimeError('then')",
        "x = (",
        "# -*- coding: latin-1 -*-\nprint(ascii('\u00e9'))",
        "import atexit; atexit.register(lambda: print('at the end')); print('first'); 1 / 0",
        "import sys; sys.excepthook = lambda *a: print(a[0], a[2].tb_frame.f_code.co_name); 1 / 0",
        """
import threading
def late():
    threading.main_thread().join(); print(later)
later = 'still there'; threading.Thread(target=late).start()
""",
        "import os; os._exit(3)",
    ],
)
def test_ends_as_under_python(script: Path, text: str) -> None:
    script.write_text(text, encoding="utf-8")
    same("script.py", cwd=script.parent, commands=(SHORT,))


def test_interrupted(script: Path) -> None:
    script.write_text("import signal\nsignal.raise_signal(signal.SIGINT)", encoding="utf-8")
    for command in (
        RUN,
        SHORT,
        [shutil.which("epicsx", path=Path(sys.executable).parent) or "", "run"],
    ):
        found = start(command, str(script))
        assert (
            found.returncode == -signal.SIGINT
        )  # so that a shell ends the loop around it, as under Python
        assert found.stderr.endswith("KeyboardInterrupt\n")
    assert start(PLAIN, str(script)).returncode == -signal.SIGINT


def test_what_cannot_be_run(tmp_path: Path) -> None:
    for args, text in (
        (["nothing.py"], "cannot open 'nothing.py'"),
        (["-m", "no_such_module_here"], "no module named no_such_module_here"),
        (["-mno_such_module_here"], "no module named no_such_module_here"),
        (["-m", "no_such_module_here.below"], "no_such_module_here"),
        ([str(tmp_path)], "has no __main__ module"),
        ([], "a script is wanted"),
        (["-m"], "expected one argument"),
    ):
        found = start(RUN, *args, cwd=tmp_path)
        nothing_in_it = "no_such_module" in text or "__main__" in text
        assert found.returncode == (1 if nothing_in_it else 2), args
        assert text in found.stderr
        assert "Traceback" not in found.stderr


def test_commands_and_scripts_after_python_m_epicsx(tmp_path: Path) -> None:
    # The name of a command is the command; a path, even of a file of that name, is a script.
    (tmp_path / "demo").write_text("print('the script')", encoding="utf-8")
    assert "epicsx demo" in start(SHORT, "demo", "--help", cwd=tmp_path).stdout
    assert start(SHORT, "./demo", cwd=tmp_path).stdout == "the script\n"
    assert start(SHORT, "--version").stdout.startswith("epicsx ")
    assert "run a script" in start(SHORT, "--help").stdout
    assert start(SHORT).returncode == 2


def test_epics_is_epicsx_even_with_pyepics_and_in_children(script: Path, ioc: SoftIOC) -> None:
    script.write_text(
        """
import sys
import multiprocessing
import epics

class Mine(epics.PV):  # made anew in each child, which imports this script
    pass

def read(name):
    import epics.pv
    assert Mine.__mro__[1] is epics.pv.PV
    return epics.PV.__module__, Mine(name).get(timeout=20.0)

if __name__ == "__main__":
    assert epics.__file__.endswith("_epics.py")  # ours
    print(read(sys.argv[1]))
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(*pool.map(read, sys.argv[1:]))
""",
        encoding="utf-8",
    )
    for args in ([str(script)], ["-m", "script"]):
        found = start(RUN, *args, ioc["stringin"], env=ioc.env, cwd=script.parent)
        assert found.stdout.splitlines() == ["('epicsx.pv', 'text in')"] * 4, found.stderr
        lines = found.stderr.splitlines()
        assert [line for line in lines if not any(known in line for known in LIBCOM)] == []
