"""Finding Pythons: a program is what it says it is, not what it is called."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
import pythons  # noqa: E402

OURS = "{}.{}".format(*sys.version_info[:2])
OURS += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
OTHER = next(v for v in pythons.SUPPORTED if v != OURS and v.endswith("t") == OURS.endswith("t"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="writes shell scripts")


def script(path: Path, command: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "pyenv"), "HOME": "/"}


def test_one_on_path_is_found(environ: dict[str, str], tmp_path: Path) -> None:
    script(tmp_path / "bin" / f"python{OURS}", f'exec "{sys.executable}" "$@"')
    found = pythons.find(environ)
    assert found.pop(OURS) == Path(sys.executable)
    assert set(found.values()) == {None}


def test_one_that_is_another_than_its_name_says_is_not_taken(
    environ: dict[str, str], tmp_path: Path
) -> None:
    liar = script(tmp_path / "bin" / f"python{OTHER}", f'exec "{sys.executable}" "$@"')
    assert pythons.answer(liar) == (OURS, Path(sys.executable))
    assert pythons.find(environ)[OTHER] is None


def test_a_shim_that_fails_does_not_hide_pyenvs_own(
    environ: dict[str, str], tmp_path: Path
) -> None:
    script(tmp_path / "bin" / f"python{OURS}", "echo no version is chosen >&2; exit 127")
    home = tmp_path / "pyenv" / "versions"
    free = "t" * OURS.endswith("t")
    newest, older, built = (f"{OURS.rstrip('t')}{n}{free}" for n in (".12", ".9", ""))
    built += "-dev"
    for version in (newest, older, built):
        script(home / version / "bin" / "python3", f'exec "{sys.executable}" "$@"')
    names = [p.parent.parent.name for p in pythons.candidates(OURS, environ)][1:]
    assert names == [newest, older, built]
    other = "" if free else "t"
    assert not list(pythons.candidates(OURS.rstrip("t") + other, environ))
    assert pythons.program(OURS, environ) == Path(sys.executable)


def test_what_cannot_be_run_is_no_python(tmp_path: Path) -> None:
    assert pythons.answer(tmp_path / "nothing") is None
    assert pythons.answer(script(tmp_path / "broken", "exit 1")) is None
