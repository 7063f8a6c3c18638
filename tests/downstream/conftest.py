"""Programs written for pyepics, run on epicsx: ``import epics`` gives epicsx in this process.

    make downstream                            ophyd, bluesky and PyDM on epicsx
    pytest tests/downstream --with=pyepics     the same tests on pyepics itself: are the tests right?

These tests are collected only where they are asked for by name, and each file is skipped where its package is not
installed: `import epics` has to be answered before anything else in the process asks for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of what answers `import epics`."""
    parser.addoption("--with", default="epicsx", choices=("epicsx", "pyepics"), dest="epics")


def asked_for(config: pytest.Config) -> bool:
    """Whether the command line names this folder, or something in it."""
    here = config.invocation_params.dir
    places = [(here / arg.partition("::")[0]).resolve() for arg in config.args]
    return any(place == HERE or HERE in place.parents for place in places)


def pytest_configure(config: pytest.Config) -> None:
    """Choose who answers `import epics`, and let other people's packages warn."""
    config.addinivalue_line(
        "markers", "unsteady_on_pyepics: on pyepics itself this passes at times only"
    )
    if not asked_for(config):
        return
    config.addinivalue_line("filterwarnings", "default")
    os.environ["OPHYD_CONTROL_LAYER"] = "pyepics"
    os.environ["PYDM_EPICS_LIB"] = "pyepics"
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    if config.getoption("epics", "epicsx") == "epicsx":
        import epicsx

        assert "epics" not in sys.modules
        epicsx.install_as_epics()
    else:
        import epicscorelibs.path.pyepics  # noqa: F401  tells pyepics where libca is


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave everything here out of a run that does not ask for it."""
    return None if asked_for(config) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let a test fail on pyepics where pyepics is at fault; on epicsx all have to pass."""
    if config.getoption("epics", "epicsx") == "pyepics":
        for item in items:
            if item.get_closest_marker("unsteady_on_pyepics"):
                item.add_marker(pytest.mark.xfail(strict=False, reason="pyepics has a race"))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say who answers `import epics`."""
    return f"import epics: {config.getoption('epics')}" if asked_for(config) else None


@pytest.fixture
def on_epicsx(request: pytest.FixtureRequest) -> bool:
    """Whether `import epics` gives epicsx."""
    return bool(request.config.getoption("epics", "epicsx") == "epicsx")


@pytest.fixture(autouse=True)
def who_answers(on_epicsx: bool) -> None:
    """Fail if a package under test has got hold of the other one."""
    import epics

    pv: Any = epics.PV
    expected = "epicsx.pv" if on_epicsx else "epics.pv"
    assert pv.__module__ == expected
