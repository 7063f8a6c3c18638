"""docs/testing.md: what it shows works as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run_python
from support.snippets import ROOT, Snippet, snippets_of

PAGE = ROOT / "docs" / "testing.md"
SNIPPETS = snippets_of(PAGE, ("python", "ini"))
FILES = [each for each in SNIPPETS if each.file]
ALONE = [each for each in SNIPPETS if not each.file]

RUN = """
import importlib.metadata, os, sys, pytest
os.chdir(sys.argv[1])
names = [entry.name for entry in importlib.metadata.entry_points(group="pytest11")]
plugin = [] if "epicsx" in names else ["-p", "epicsx.testing.pytest_plugin"]
sys.exit(pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider", *plugin, *sys.argv[2:]]))
"""


def test_the_page_has_what_is_tested() -> None:
    assert [each.file for each in FILES] == ["scan.py", "pytest.ini", "test_scan.py"]
    assert [each.kind for each in FILES] == ["python", "ini", "python"]
    assert len(ALONE) == 4
    lines = PAGE.read_text().splitlines()
    for each in SNIPPETS:
        assert lines[each.line - 1] == each.code.partition("\n")[0], str(each)


@pytest.mark.timeout(180)  # a pytest of its own, with three servers
def test_the_example(tmp_path: Path) -> None:
    pytest.importorskip("caproto")
    for each in FILES:
        (tmp_path / each.file).write_text(each.code)
    result = run_python(RUN, str(tmp_path), env={"PYTHONPATH": _path(tmp_path)}, timeout=170.0)
    assert "5 passed" in result.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("snippet", ALONE, ids=str)
def test_the_snippets(snippet: Snippet) -> None:
    if "MotorIOC" in snippet.code:
        pytest.importorskip("caproto")
    result = run_python(snippet.code, timeout=100.0)
    assert (result.stdout, result.stderr) == ("", "")


OWN = {
    "conftest.py": """
import pytest

@pytest.fixture(scope="session")
def motors(motorioc_factory):
    return motorioc_factory("m1")
""",
    "test_it.py": """
import os, subprocess, sys
import pytest
from epicsx.testing import SoftIOCError

DB = 'record(ao, "$(P)x") {}'
LIST = os.environ["EPICS_CA_ADDR_LIST"].split()

def test_ports(softioc_factory, motors, ca_proxy, ca_environment):
    assert ca_environment["EPICS_CA_ADDR_LIST"].split() == LIST and len(LIST) == 8
    hidden = softioc_factory(DB, hidden=True)
    proxy = ca_proxy(hidden)
    assert f"127.0.0.1:{hidden.server_port}" not in LIST
    assert f"127.0.0.1:{proxy.port}" in LIST
    with pytest.raises(ValueError, match="hidden=True"):
        ca_proxy(motors)
    assert f"127.0.0.1:{motors.server_port}" in LIST

def test_a_proxy_ends_with_its_test(ca_proxy, softioc_factory):
    ioc = softioc_factory(DB, hidden=True)
    proxies = [ca_proxy(ioc) for _ in range(7)]  # the motors have the eighth port
    with pytest.raises(SoftIOCError, match="no more than 8"):
        ca_proxy(ioc)
    proxies[3].stop()
    assert ca_proxy(ioc).port == proxies[3].port

def test_a_subprocess_sees_it(softioc_factory, ca_environment):
    ioc = softioc_factory(DB)
    script = "import sys, epicsx; print(epicsx.Channel(sys.argv[1]).connect(20).get().value)"
    done = subprocess.run(
        [sys.executable, "-c", script, ioc["x"]],
        env={**os.environ, **ca_environment}, capture_output=True, text=True, timeout=40,
    )
    assert done.stdout == "0.0\\n", done.stderr
    ioc.stop()

def test_a_fake_server(fake_server):
    import epicsx
    server = fake_server({"fake:x": 1.5})
    server.drop(command="READ_NOTIFY", count=1)
    with epicsx.Channel("fake:x") as channel:
        channel.connect(20)
        with pytest.raises(epicsx.CATimeoutError):
            channel.get(timeout=0.1)
        assert channel.get(timeout=20).value == 1.5
""",
}


@pytest.mark.timeout(180)  # as above
def test_the_fixtures(tmp_path: Path) -> None:
    pytest.importorskip("caproto")
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    result = run_python(RUN, str(tmp_path), "--epicsx-loopback", "-p", "no:randomly", timeout=170.0)
    assert "4 passed" in result.stdout


def test_the_environment_needs_the_setting(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(ca_environment): pass\n")
    result = run_python(RUN, str(tmp_path), check=False)
    assert result.returncode == 1
    assert "ca_environment needs pytest's setting `epicsx_loopback = true`" in result.stdout


def _path(first: Path) -> str:
    import os

    return os.pathsep.join(filter(None, (str(first), os.environ.get("PYTHONPATH"))))
