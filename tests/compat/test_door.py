"""`import epics` answered by epicsx: by install_as_epics, and by the distribution in dropin/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import run_python

from epicsx.testing import SoftIOC

ROOT = Path(__file__).resolve().parents[2]

INSTALL = """
import sys
import epicsx
epicsx.install_as_epics()
import epics
"""


def run(script: str, env: dict[str, str] | None = None) -> str:
    result = run_python(INSTALL + script, env=env)
    assert result.stderr == ""
    return result.stdout


def test_modules_and_names_are_those_of_epicsx() -> None:
    run("""
import epicsx.pv
assert "epicsx.ca" in sys.modules and "epicsx.functional" not in sys.modules, "names are found when used"
import epics.ca
import epics.testing.softioc
from epics import PV, caget, poll, utils
from epics.pv import get_pv
assert epics.ca is epicsx.ca is sys.modules["epics.ca"] and epics.ca.__name__ == "epicsx.ca"
assert epics.pv.PV is epicsx.pv.PV is PV is epics.PV
assert get_pv is epicsx.get_pv and caget is epicsx.caget and poll is epicsx.ca.poll
assert utils is epics.utils is epicsx.utils
assert epics.testing.softioc.SoftIOC is epicsx.testing.SoftIOC
assert epics._PVmonitors_ is epicsx.functional._PVmonitors_
assert (epics.NO_ALARM, epics.INVALID_ALARM) == (0, 3)
""")


def test_package_is_a_thin_module_with_its_own_version() -> None:
    run("""
assert epics is not epicsx and epics.__name__ == "epics"
assert epics.__version__ == epics.version.version == "3.5.10" != epicsx.__version__
assert epics.version.version_tuple == (3, 5, 10)
import epics.version as version
from epics.version import __version__
assert version is epics.version and __version__ == "3.5.10"
""")


def test_installing_again_changes_nothing() -> None:
    run("""
import epics.pv
before, finders = dict(sys.modules), list(sys.meta_path)
epicsx.install_as_epics()
import epics as again
assert again is epics and sys.modules == before and sys.meta_path == finders
""")


def test_what_is_not_there() -> None:
    run("""
import importlib.util
for name in ("epics.utils3", "epics.ca.nothing", "epics.testing.nothing"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        assert error.name == name, error
    else:
        raise AssertionError(name)
assert importlib.util.find_spec("epics.utils3") is None
assert importlib.util.find_spec("epics.pv") is not None
assert not hasattr(epics, "nothing") and not hasattr(epics, "devices")  # pyepics does not import it
""")


def test_what_lies_beside_the_door_is_not_in_the_package() -> None:
    run("""
import importlib
assert list(epics.__path__) == []
for name in ("_door", "_epics", "catools", "EpicsCA", "CaChannel"):
    try:
        importlib.import_module("epics." + name)
    except ModuleNotFoundError as error:
        assert error.name == "epics." + name, error
    else:
        raise AssertionError(name)
""")


def test_reload_and_pickle() -> None:
    run("""
import importlib, pickle
import epics.pv, epics.utils
PV, spec = epics.PV, epics.utils.__spec__
assert importlib.reload(epics.utils) is epicsx.utils and epics.utils.__spec__.name == spec.name == "epicsx.utils"
assert importlib.reload(epics) is epics and epics.pv is epicsx.pv and epics.PV is PV
assert pickle.loads(pickle.dumps(epics.pv.PV)) is PV
assert pickle.loads(b"cepics.pv\\nPV\\n.") is PV  # as pyepics would have pickled it
""")


def test_star_gives_what_pyepics_gives() -> None:
    star = "from epics import *\nprint(*sorted(name for name in globals() if name[0] != '_'))"
    theirs = set(run_python("import sys\n" + star).stdout.split())
    assert {"PV", "ca", "caget", "time"} < theirs
    ours = run_python(f"{INSTALL}del sys, epicsx, epics\nimport sys\n{star}").stdout
    assert set(ours.split()) == theirs


def test_settings_reach_epicsx(ioc: SoftIOC) -> None:
    run(
        f"""
class Mine(epics.PV):
    pass

epics.pv.default_pv_class = Mine
assert type(epics.get_pv("{ioc["ao"]}")) is Mine
assert epics.caget("{ioc["ao"]}") is not None and type(epicsx.get_pv("{ioc["ao"]}")) is Mine
epics.ca.AUTOMONITOR_MAXLENGTH = 10
array = epics.PV("{ioc["wf:double:n"]}")
assert array.wait_for_connection(5) and array.auto_monitor is False
epics.ca.DEFAULT_SUBSCRIPTION_MASK = epics.dbr.DBE_LOG
scalar = epics.PV("{ioc["ao"]}")
assert scalar.wait_for_connection(5) and scalar.auto_monitor_mask == epics.dbr.DBE_LOG
epics.ca.HAS_NUMPY = False
assert epics.caget("{ioc["wf:double:n"]}") == list(range(10))
""",
        env=ioc.env,
    )


def test_after_pyepics_it_is_refused() -> None:
    result = run_python("""
import epics
import epicsx
try:
    epicsx.install_as_epics()
except RuntimeError as error:
    print(error)
assert epics.ca.__name__ == "epics.ca"
""")
    assert "imported already" in result.stdout
    assert "epics/__init__.py" in result.stdout


def test_remains_of_a_failed_import_of_pyepics_are_not_taken_for_ours() -> None:
    run_python("""
import sys
import epics.utils
del sys.modules["epics"]
import epicsx
epicsx.install_as_epics()
import epics.utils
assert epics.utils is epicsx.utils
""")


@pytest.mark.parametrize("name", ["wx", "qt"])
@pytest.mark.parametrize(
    "how", ["import epics.{}", "from epics import {}", "from epics.{} import x"]
)
def test_extras_that_are_missing_say_so(name: str, how: str) -> None:
    out = run(f"""
try:
    {how.format(name)}
except ImportError as error:
    print(error)
assert "epicsx.{name}" not in sys.modules
""")
    assert f"epicsx.{name}" in out
    assert "part of epicsx yet" in out


@pytest.mark.parametrize("installed", [False, True])
def test_missing_extra_tells_the_two_reasons_apart(tmp_path: Path, installed: bool) -> None:
    (tmp_path / "wx.py").write_text("", encoding="utf-8")
    out = run(
        f"""
if not {installed}:
    sys.modules["wx"] = None  # for the import system: there is no such module
try:
    import epicsx.wx
except ImportError as error:
    print(type(error).__name__, error.name, error)
""",
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    if installed:
        assert out.startswith("ImportError epicsx.wx ")
        assert "installed" not in out
    else:
        assert out.startswith("ModuleNotFoundError wx ")
        assert "wxPython, which is not installed" in out


# ------------------------------------------------------------------ the distribution


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the distribution is installed, built from dropin/ without a network."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("dropin")
    source = shutil.copytree(ROOT / "dropin", folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated"]
    offline = ["--no-index", "--no-deps", "--quiet"]
    for command in (
        ["wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source)],
        ["install", "--find-links", str(folder), "--target", str(folder / "site"), "epicsx-dropin"],
    ):
        done = subprocess.run(
            [*pip, command[0], *offline, *command[1:]], capture_output=True, text=True, timeout=55
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def installed(site: Path) -> dict[str, str]:
    import epicsx

    return {"PYTHONPATH": os.pathsep.join([str(site), str(Path(epicsx.__file__).parents[1])])}


def test_dropin_holds_nothing_but_the_package(site: Path) -> None:
    files = {
        str(path.relative_to(site))
        for path in site.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".dist-info" not in str(path)
    }
    assert files == {os.path.join("epics", "__init__.py")}
    (metadata,) = site.glob("epicsx_dropin-*.dist-info/METADATA")
    assert "Requires-Dist: epicsx\n" in metadata.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "first", ["import epics", "import epics.pv", "from epics import *", "from epics.ca import get"]
)
def test_dropin_is_epicsx(site: Path, ioc: SoftIOC, first: str) -> None:
    run_python(
        f"""
{first}
import epicsx, epics, epics.ca, epics.pv
assert epics.__version__ == "3.5.10" and epics.pv is epicsx.pv and epics.ca is epicsx.ca
assert epics.PV is epicsx.pv.PV
epicsx.install_as_epics()
import epics as again, importlib
assert again is epics and importlib.reload(epics) is epics
assert epics.caget("{ioc["stringin"]}") == "text in"
class Mine(epics.PV):
    pass
epics.pv.default_pv_class = Mine
assert type(epicsx.get_pv("{ioc["ao"]}")) is Mine
""",
        env={**ioc.env, **installed(site)},
    )


def test_dropin_in_child_processes(site: Path) -> None:
    result = run_python(
        """
import multiprocessing
import epics

def who(_):
    return epics.PV.__module__

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(*pool.map(who, [0]))
""",
        env=installed(site),
    )
    assert result.stdout.split() == ["epicsx.pv"] * 3


def test_dropin_over_pyepics_is_refused(site: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(site, tmp_path / "site")
    (mixed / "epics" / "ca.py").write_text("", encoding="utf-8")  # a file of pyepics
    result = run_python("import epics", env=installed(mixed), check=False)
    assert result.returncode == 1
    assert "both pyepics and epicsx-dropin are installed" in result.stderr
