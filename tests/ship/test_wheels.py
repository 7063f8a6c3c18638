"""Which wheels cibuildwheel would build, and that its table in pyproject.toml holds together."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import epicsx

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
import check_wheel  # noqa: E402

PYTHONS = ["cp310", "cp311", "cp312", "cp313", "cp314", "cp314t"]
PLATFORMS = [
    ("linux", "x86_64", "manylinux_x86_64"),
    ("linux", "aarch64", "manylinux_aarch64"),
    ("macos", "arm64", "macosx_arm64"),
    ("macos", "x86_64", "macosx_x86_64"),
    ("windows", "AMD64", "win_amd64"),
]


@pytest.fixture
def table() -> Any:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["cibuildwheel"]


@pytest.mark.parametrize(("platform", "arch", "tag"), PLATFORMS)
def test_the_wheels_of_each_platform(platform: str, arch: str, tag: str) -> None:
    pytest.importorskip("cibuildwheel")
    done = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers",
         "--platform", platform, "--archs", arch, str(ROOT)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [f"{python}-{tag}" for python in PYTHONS]


@pytest.mark.parametrize("platform", ["linux", "macos", "windows"])
def test_a_wheel_is_repaired_then_gets_its_sbom(table: Any, platform: str) -> None:
    repair, bom = table[platform]["repair-wheel-command"]
    words = shlex.split(repair)
    if platform == "windows":
        assert words[:2] == ["python", "{project}/tools/repair_windows.py"]
        assert (ROOT / "tools" / "repair_windows.py").is_file()
    else:
        assert words[0] == {"linux": "auditwheel", "macos": "delocate-wheel"}[platform]
    assert {"{wheel}", "{dest_dir}"} <= set(words)
    assert shlex.split(bom)[1:] == ["{project}/tools/sbom.py", "{dest_dir}"]


def test_each_wheel_is_checked_away_from_the_sources(table: Any) -> None:
    commands = [table["test-command"], table["linux"]["test-command"]]
    commands += [o["test-command"] for o in table["overrides"]]
    (script,) = table["test-sources"]
    assert (ROOT / script).is_file()
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["python", "-I", script]
        assert words[words.index("--hide") + 1] == "{project}"
        # the script knows every option
        options = [w for w in words if w.startswith("--")]
        usage = subprocess.run(
            [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert [o for o in options if o not in usage] == []


def test_the_sources_are_away_for_a_while_only(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()

    def fails_meanwhile() -> None:
        with check_wheel.hidden(tmp_path):
            assert not (tmp_path / "src").exists()
            check_wheel.check(False, "something")

    with pytest.raises(check_wheel.Failed, match="something"):
        fails_meanwhile()
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_sources_that_are_not_there_are_not_taken_away(tmp_path: Path) -> None:
    with pytest.raises(check_wheel.Failed, match="there is no"), check_wheel.hidden(tmp_path):
        pass


def test_a_source_tree_is_not_taken_for_a_wheel(tmp_path: Path) -> None:
    if ROOT not in Path(str(epicsx.__file__)).resolve().parents:
        pytest.skip("a wheel is installed here")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_wheel.py", "--installed"],
        capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "check_wheel: FAILED" in done.stderr
