"""pytest fixtures that give a test a real soft IOC.

Installed with epicsx. Loading it imports neither epicsx's core nor numpy nor any libca.

`softioc`
    The session's IOC. It loads what the fixture `softioc_db` returns: override that one in your
    conftest.py (scope "session").
`softioc_factory`
    Starts further IOCs: `softioc_factory(db, macros, ...)`, arguments as for `SoftIOC`. They are
    ended with the session.

Channel Access clients read their environment once per process, before the first IOC may run.
So with the option `epicsx_loopback = true` in pytest's settings, or `--epicsx-loopback`, this
plugin chooses private ports and sets the environment when pytest starts; every IOC of these
fixtures (four at a time) is then seen by clients in the test process, and nothing else is.
Without it IOCs get ports of their own and a client needs `softioc.env`, as in a subprocess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from epicsx.testing.ports import Loopback
    from epicsx.testing.repeater import Repeater
    from epicsx.testing.softioc import Database, SoftIOC

SPARE_PORTS = 3

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


class SoftIOCFactory:
    """Starts soft IOCs on the session's ports and ends them all in the end."""

    def __init__(self) -> None:
        self._started: list[SoftIOC] = []

    def __call__(
        self,
        db: Database | Sequence[Database],
        macros: dict[str, str] | None = None,
        **options: Any,
    ) -> SoftIOC:
        """Return a running IOC; arguments as for `SoftIOC`."""
        from epicsx.testing.softioc import SoftIOC, SoftIOCError

        if _loopback is not None and "server_port" not in options:
            ports = (_loopback.server_port, *_loopback.spare_ports)
            taken = {ioc.server_port for ioc in self._started if ioc.running}
            free = [port for port in ports if port not in taken]
            if not free:
                raise SoftIOCError(f"no more than {len(ports)} soft IOCs at a time")
            options = {
                "server_port": free[0],
                "repeater_port": _loopback.repeater_port,
                **options,
            }
        ioc = SoftIOC(db, macros, **options).start()
        self._started.append(ioc)
        return ioc

    def stop(self) -> None:
        """End all that still run."""
        while self._started:
            self._started.pop().stop()


@pytest.fixture(scope="session")
def softioc_factory() -> Iterator[SoftIOCFactory]:
    """Give a function that starts a soft IOC, arguments as for `SoftIOC`."""
    factory = SoftIOCFactory()
    try:
        yield factory
    finally:
        factory.stop()


@pytest.fixture(scope="session")
def softioc_db() -> Database | Sequence[Database]:
    """Give the database of `softioc`; override it in your conftest.py."""
    return DEFAULT_DATABASE


@pytest.fixture(scope="session")
def softioc(softioc_factory: SoftIOCFactory, softioc_db: Database | Sequence[Database]) -> SoftIOC:
    """Give the session's soft IOC."""
    return softioc_factory(softioc_db)
