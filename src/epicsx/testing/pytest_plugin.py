"""pytest fixtures for tests of control code: real soft IOCs, simulated devices, a network that fails.

Installed with epicsx. Loading it imports neither epicsx's core nor numpy nor any libca. docs/testing.md shows a whole
example.

`softioc`
    The session's IOC. It loads what the fixture `softioc_db` returns: override that one in your
    conftest.py (scope "session").
`softioc_factory`, `motorioc_factory`, `areadetector_factory`
    Start further IOCs: `softioc_factory(db, macros, ...)`, arguments as for `SoftIOC`, `MotorIOC`, `AreaDetectorIOC`.
    They are ended with the session. With ``hidden=True`` clients of the test process do not see the IOC itself: for
    `ca_proxy`.
`ca_proxy`
    Puts a `CAProxy` before such an IOC: `ca_proxy(ioc)`. It ends with the test.
`fake_server`
    Starts a `FakeServer` that a test may have lie: `fake_server({"x": 1.5})`. It ends with the test.
`ca_environment`
    The EPICS_CA_* variables by which a client sees the IOCs of these fixtures: for subprocesses.

Channel Access clients read their environment once per process, before the first IOC may run.
So with the option `epicsx_loopback = true` in pytest's settings, or `--epicsx-loopback`, this
plugin chooses private ports and sets the environment when pytest starts; every IOC, proxy and fake server of these
fixtures (eight at a time) is then seen by clients in the test process, and nothing else is.
Without it they get ports of their own and a client needs `softioc.env`, as in a subprocess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from epicsx.testing.areadetector import AreaDetectorIOC
    from epicsx.testing.fakeserver import FakeServer
    from epicsx.testing.ports import Loopback
    from epicsx.testing.proxy import CAProxy
    from epicsx.testing.pvset import MotorIOC
    from epicsx.testing.repeater import Repeater
    from epicsx.testing.softioc import Database, SoftIOC

SPARE_PORTS = 7

#: What `softioc` loads unless a project says otherwise.
DEFAULT_DATABASE = """
record(ao, "$(P)ao") { field(VAL, "1.5") field(PINI, "YES") field(PREC, "3") field(EGU, "mm") }
record(longout, "$(P)longout") { field(VAL, "3") field(PINI, "YES") }
record(bo, "$(P)bo") { field(ZNAM, "Off") field(ONAM, "On") field(PINI, "YES") }
record(stringout, "$(P)stringout") { field(VAL, "text") field(PINI, "YES") }
record(waveform, "$(P)waveform") { field(FTVL, "DOUBLE") field(NELM, "10") field(INP, [1, 2, 3]) }
record(calc, "$(P)counter") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
"""

_loopback: Loopback | None = None
_repeater: Repeater | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    text = "let Channel Access in the test process see the IOCs of epicsx's fixtures, only those"
    parser.addini("epicsx_loopback", text, type="bool", default=False)
    parser.getgroup("epicsx").addoption("--epicsx-loopback", action="store_true", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the environment before a conftest.py could start a client."""
    global _loopback, _repeater
    option = early_config.known_args_namespace.epicsx_loopback
    asked = option or early_config.getini("epicsx_loopback")
    if asked and _loopback is None:
        from epicsx.testing.ports import Loopback
        from epicsx.testing.repeater import Repeater

        _loopback = Loopback(spare=SPARE_PORTS)
        _loopback.apply()
        _repeater = Repeater(_loopback.repeater_port).start()
        _repeater.wait()


def pytest_unconfigure() -> None:
    """End the repeater."""
    global _loopback, _repeater
    if _repeater is not None:
        _repeater.stop()
    _loopback = _repeater = None
    _taken.clear()


_taken: list[tuple[int, Callable[[], bool]]] = []  # each port given, and whether it is still in use


def _with_ports(
    options: dict[str, Any], name: str = "server_port", *, hidden: bool
) -> dict[str, Any]:
    """Complete the options of an IOC or proxy by a port of the session, or by one that nobody searches."""
    from epicsx.testing.ports import free_port
    from epicsx.testing.softioc import SoftIOCError

    if name in options:
        return options
    if _loopback is None:
        return {name: free_port(), **options}
    repeater = {"repeater_port": _loopback.repeater_port}
    if hidden:
        return {name: free_port(), **repeater, **options}
    ports = (_loopback.server_port, *_loopback.spare_ports)
    taken = {port for port, used in _taken if used()}
    free = [port for port in ports if port not in taken]
    if not free:
        raise SoftIOCError(f"no more than {len(ports)} IOCs and proxies at a time")
    return {name: free[0], **repeater, **options}


class SoftIOCFactory:
    """Starts IOCs of a kind on the session's ports and ends them all in the end.

    Parameters
    ----------
    kind : callable
        Makes one that runs, of the arguments and of `server_port` and `repeater_port`.
    """

    def __init__(self, kind: Callable[..., Any]) -> None:
        self._kind = kind
        self._started: list[Any] = []

    def __call__(self, *args: Any, hidden: bool = False, **options: Any) -> Any:
        """Return a running IOC; arguments as for its class. A hidden one is on a port that no client searches."""
        ioc = self._kind(*args, **_with_ports(options, hidden=hidden))
        self._started.append(ioc)
        _taken.append((ioc.server_port, lambda: ioc.running))
        return ioc

    def stop(self) -> None:
        """End all that still run."""
        while self._started:
            self._started.pop().stop()


def _factory(kind: Callable[..., Any]) -> Iterator[SoftIOCFactory]:
    factory = SoftIOCFactory(kind)
    try:
        yield factory
    finally:
        factory.stop()


@pytest.fixture(scope="session")
def softioc_factory() -> Iterator[Callable[..., SoftIOC]]:
    """Give a function that starts a soft IOC, arguments as for `SoftIOC`."""
    from epicsx.testing.softioc import SoftIOC

    yield from _factory(lambda *args, **options: SoftIOC(*args, **options).start())


@pytest.fixture(scope="session")
def motorioc_factory() -> Iterator[Callable[..., MotorIOC]]:
    """Give a function that starts simulated motors, arguments as for `MotorIOC`."""
    from epicsx.testing.pvset import MotorIOC

    yield from _factory(MotorIOC)


@pytest.fixture(scope="session")
def areadetector_factory() -> Iterator[Callable[..., AreaDetectorIOC]]:
    """Give a function that starts an IOC with an image plugin, arguments as for `AreaDetectorIOC`."""
    from epicsx.testing.areadetector import AreaDetectorIOC

    yield from _factory(lambda **options: AreaDetectorIOC(**options).start())


@pytest.fixture
def ca_proxy() -> Iterator[Callable[..., CAProxy]]:
    """Give a function that puts a `CAProxy` before an IOC, or a port: `ca_proxy(ioc)`."""
    from epicsx.testing.proxy import CAProxy

    started: list[CAProxy] = []

    def start(upstream: Any, **options: Any) -> CAProxy:
        port = upstream if isinstance(upstream, int) else upstream.server_port
        if _loopback is not None and port in (_loopback.server_port, *_loopback.spare_ports):
            raise ValueError("clients see this IOC without the proxy; start it with hidden=True")
        proxy = CAProxy(port, **_with_ports(options, "port", hidden=False)).start()
        started.append(proxy)
        _taken.append((proxy.port, lambda: proxy.running))
        return proxy

    try:
        yield start
    finally:
        for each in started:
            each.stop()


@pytest.fixture
def fake_server() -> Iterator[Callable[..., FakeServer]]:
    """Give a function that starts a `FakeServer`, arguments as for the class: `fake_server({"x": 1.5})`."""
    from epicsx.testing.fakeserver import FakeServer

    started: list[FakeServer] = []

    def start(pvs: Mapping[str, Any], **options: Any) -> FakeServer:
        server = FakeServer(pvs, **_with_ports(options, "port", hidden=False)).start()
        started.append(server)
        _taken.append((server.port, lambda: server.running))
        return server

    try:
        yield start
    finally:
        for each in started:
            each.stop()


@pytest.fixture(scope="session")
def ca_environment() -> Mapping[str, str]:
    """Give the EPICS_CA_* variables by which a client sees what these fixtures start, but for what is hidden."""
    if _loopback is None:
        pytest.fail("ca_environment needs pytest's setting `epicsx_loopback = true`", pytrace=False)
    return dict(_loopback.env)


@pytest.fixture(scope="session")
def softioc_db() -> Database | Sequence[Database]:
    """Give the database of `softioc`; override it in your conftest.py."""
    return DEFAULT_DATABASE


@pytest.fixture(scope="session")
def softioc(
    softioc_factory: Callable[..., SoftIOC], softioc_db: Database | Sequence[Database]
) -> SoftIOC:
    """Give the session's soft IOC."""
    return softioc_factory(softioc_db)
