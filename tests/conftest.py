"""Fixtures of the test suite. tests/README.md tells how to use them.

This module chooses the Channel Access environment of the whole session before anything else can:
libca reads it once per process.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
if str(_HERE) not in sys.path:  # for `from support import ...`
    sys.path.insert(0, str(_HERE))

from support import access_security, core_database, wait_until  # noqa: E402
from support.leaks import alive, counts_add_up, lent_now  # noqa: E402

from epicsx.testing import AreaDetectorIOC, Loopback, MotorIOC, PVSet, Repeater, SoftIOC  # noqa: E402
from epicsx.testing import free_port as _free_port  # noqa: E402
from epicsx.testing.softioc import Database  # noqa: E402

SPARE_PORTS = 3
# Two more: for the motors, and (the last) for the devices of tests/compat/devices.
LOOPBACK = Loopback(spare=SPARE_PORTS + 2)
LOOPBACK.apply()
# What a test may set for itself must not come in from outside.
for _name in (
    "EPICS_CA_AUTO_ARRAY_BYTES",
    "EPICS_CA_CONN_TMO",
    "EPICS_CA_MAX_ARRAY_BYTES",
    "EPICS_CA_MAX_SEARCH_PERIOD",
    "EPICSX_NO_REPEATER",
    "EPICSX_STRICT",
    "PYEPICS_LIBCA",
):
    os.environ.pop(_name, None)

REPEATER = Repeater(LOOPBACK.repeater_port).start()
if not REPEATER.wait():
    os.environ["EPICSX_NO_REPEATER"] = "1"

# A shell's background job ignores SIGINT, and so would whatever it starts: no test of Ctrl-C could end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

faulthandler.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "core: check after the test that epicsx's core lent nothing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything under tests/core."""
    for item in items:
        if (_HERE / "core") in item.path.parents:
            item.add_marker("core")


def pytest_unconfigure() -> None:
    """End the repeater."""
    REPEATER.stop()


@pytest.fixture(scope="session")
def ioc() -> Iterator[SoftIOC]:
    """Give the session's IOC with the records of tests/db and support/records.py."""
    with SoftIOC(
        core_database(),
        access_security=access_security(),
        server_port=LOOPBACK.server_port,
        repeater_port=LOOPBACK.repeater_port,
    ) as started:
        # The server asks for the record that switches access by CA, some time after its start.
        wait_until(
            lambda: "result=TRUE" in started.shell("asprules SWITCHED"),
            message="access security of the session's IOC is in force",
        )
        yield started


@pytest.fixture(scope="session")
def motors() -> Iterator[MotorIOC]:
    """Give simulated motor records `m1`, `m2` (-10 to 20), `m3`; `m1` has a record m1_able. They may stand anywhere."""
    pytest.importorskip("caproto")
    fast = {"VELO": 100.0}
    able = {"value": 0, "states": ["Enable", "Disable"]}
    with MotorIOC(
        {"m1": fast, "m2": {**fast, "DLLM": -10.0, "DHLM": 20.0}, "m3": fast},
        {"m1_able.VAL": able, "ao": 1.0, "ao.RTYP": "ao"},
        server_port=LOOPBACK.spare_ports[SPARE_PORTS],
        repeater_port=LOOPBACK.repeater_port,
    ) as started:
        yield started


@pytest.fixture
def spare_ioc() -> Iterator[Callable[..., SoftIOC]]:
    """Give a function that starts an IOC this process can see and may kill; three at a time."""
    ports = list(LOOPBACK.spare_ports[:SPARE_PORTS])
    started: list[SoftIOC] = []

    def start(
        db: Database | Sequence[Database], macros: dict[str, str] | None = None, **options: Any
    ) -> SoftIOC:
        options.setdefault("server_port", ports.pop(0))
        options.setdefault("repeater_port", LOOPBACK.repeater_port)
        started.append(SoftIOC(db, macros, **options))
        return started[-1].start()

    yield start
    for each in started:
        each.kill()
        each.stop()


@pytest.fixture
def detector() -> Iterator[Callable[..., AreaDetectorIOC]]:
    """Give a function that starts an AreaDetectorIOC this process can see and may kill; three at a time."""
    ports = list(LOOPBACK.spare_ports[:SPARE_PORTS])
    started: list[AreaDetectorIOC] = []

    def start(**options: Any) -> AreaDetectorIOC:
        made = AreaDetectorIOC(
            server_port=ports.pop(0), repeater_port=LOOPBACK.repeater_port, **options
        )
        started.append(made)
        return made.start()

    yield start
    for each in started:
        each.kill()
        each.stop()


@pytest.fixture
def no_filters() -> Iterator[PVSet]:
    """Give a server (caproto's) without channel filters, on a spare port; it has the array nofilter:w."""
    pytest.importorskip("caproto")
    with PVSet(
        {"nofilter:w": [1.0, 2.0, 3.0]},
        server_port=LOOPBACK.spare_ports[0],
        repeater_port=LOOPBACK.repeater_port,
        filters=False,
    ) as started:
        yield started


@pytest.fixture
def own_ioc() -> Iterator[Callable[..., SoftIOC]]:
    """Give a function that starts an IOC on a port of its own, for clients in subprocesses."""
    started: list[SoftIOC] = []

    def start(
        db: Database | Sequence[Database], macros: dict[str, str] | None = None, **options: Any
    ) -> SoftIOC:
        # With the session's repeater: a client would leave one behind on each port of its own.
        options.setdefault("repeater_port", LOOPBACK.repeater_port)
        started.append(SoftIOC(db, macros, **options))
        return started[-1].start()

    yield start
    for each in started:
        each.kill()
        each.stop()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Give a function that returns a port free for TCP and UDP."""
    return _free_port


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember failures: their traceback keeps the test's objects alive."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def pytest_collection_finish() -> None:
    """Keep what pytest has made until here out of the collections after each test: so they take a fifth of the time."""
    gc.collect()
    gc.freeze()


class _Left:
    """What the tests until now have left behind: it is told once, and not held against the tests after it."""

    def __init__(self) -> None:
        self.known = (0, 0)
        self.last = "nothing"

    def check(self, when: str, log: pytest.LogCaptureFixture | None = None) -> None:
        """Fail if more is lent than was known, but for what `log` has: tracebacks keep what they tell of."""

        before, now = self.known, self.known

        def quiet() -> bool:
            nonlocal now
            # each time: a callback's failure is counted before it is logged, so the last one may come late
            if log is not None:
                _without_tracebacks(log)
            now = lent_now()
            return all(each <= known for each, known in zip(now, before, strict=True))

        try:
            wait_until(quiet, 5.0, every=0.02)
        except AssertionError:
            pytest.fail(
                f"{when} lent() is {now[0]} and blocks() is {now[1]}, before it {before}: {alive()}"
            )
        finally:
            self.known = now


_left = _Left()


def _without_tracebacks(log: pytest.LogCaptureFixture) -> None:
    """Let go what a test's log records refer to; their texts, which a report shows, are made already."""
    for phase in ("setup", "call", "teardown"):
        for record in log.get_records(phase):
            record.msg, record.args, record.exc_info = record.getMessage(), (), None


@pytest.fixture(autouse=True)
def nothing_lent(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail if libca may still mention anything, or a block is alive: after a core test, or before the next test.

    And, after every test, where an update has been counted twice or not at all.

    What a fixture gave a test is alive until the test is over. So only tests marked "core" are looked at right after
    their end; the others are looked at when the next begins.
    """
    node = request.node
    _left.check(f"after {_left.last}")
    _left.last = node.nodeid
    yield
    counts_add_up()
    if node.stash.get(_failed, False):  # its traceback keeps what it had
        _left.known = lent_now()
    elif node.get_closest_marker("core") is not None:
        _left.check("after the test", caplog)
