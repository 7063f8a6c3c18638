"""Fixtures for the devices: what a module calls PVS is served while its tests run."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import run_python

from epicsx import ca, caget
from epicsx.testing import PVSet

Outcome = tuple[list[str], list[tuple[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PVSet]:
    """Give the server of the module's PVS, on the last of the ports that clients of this process search."""
    port = int(os.environ["EPICS_CA_ADDR_LIST"].rpartition(":")[2])
    repeater = int(os.environ["EPICS_CA_REPEATER_PORT"])
    with PVSet(request.module.PVS, server_port=port, repeater_port=repeater) as started:
        yield started


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a device's hundreds of PVs all the time they need: the server is a Python program on a busy machine."""
    monkeypatch.setattr(ca, "DEFAULT_CONNECTION_TIMEOUT", 10.0)


@pytest.fixture
def pvs(server: PVSet, request: pytest.FixtureRequest) -> Iterator[PVSet]:
    """Give the server as it was at first."""
    server.reset()
    yield server
    # Behind what the test has put without waiting, on the same circuit: none of it comes after the next reset.
    caget(next(iter(request.module.PVS)), use_monitor=False)


class Outcomes(dict[str, Outcome]):
    """What a script did, by library."""

    def assert_same(self, *, puts: bool = True) -> None:
        """Fail unless both did the same: printed, put (in the same order, unless not `puts`) and left on the server."""
        (lines, sent, left), (our_lines, our_sent, our_left) = self["epics"], self["epicsx"]
        assert lines
        assert our_lines == lines
        assert not puts or our_sent == sent
        assert {k: (our_left[k], left[k]) for k in left if our_left[k] != left[k]} == {}


@pytest.fixture
def both(pvs: PVSet, request: pytest.FixtureRequest) -> Callable[[str], Outcomes]:
    """Give a function that runs a script under pyepics and under epicsx; what it printed, its puts, what was left.

    In the script ``epics`` and ``devices`` are the library and its devices, and ``settled(device, attr, value)`` waits
    for what a monitor brings: pyepics goes by that, also just after a put.
    """
    begin = "import sys, importlib\nepics = importlib.import_module(sys.argv[1])\n"
    begin += "devices = importlib.import_module(sys.argv[1] + '.devices')\n"
    begin += "epics.ca.DEFAULT_CONNECTION_TIMEOUT = 5.0\n"  # the server and the machine may be busy
    begin += textwrap.dedent("""
        def settled(device, attr, value):
            same = 0
            while same < 3:  # the first news of a new monitor may be older than what was read
                epics.ca.poll(0.01)
                same = same + 1 if device.get(attr) == value else 0
        """)

    def run(script: str) -> Outcomes:
        found = Outcomes()
        for library in ("epics", "epicsx"):
            pvs.reset()
            lines = run_python(
                begin + textwrap.dedent(script), library, env=pvs.env
            ).stdout.splitlines()
            names = list(request.module.PVS)
            left = dict(zip(names, pvs.read(*names), strict=True))
            found[library] = lines, pvs.puts, left
        return found

    return run
