"""What libca itself complains about: in the log, and not a thousand times."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support import run_python

from epicsx import _dispatch
from epicsx.testing import SoftIOC

#: A client whose libca discards what is above 20 kB, and says so for each piece.
SMALL = """
import logging, sys, time
import numpy as np
import epicsx
lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger("epicsx.libca").addHandler(Lines())
with epicsx.Channel(sys.argv[1] + "w") as w:
    w.put(np.arange(100_000.0), wait=True, timeout=20.0)
    try:
        w.get(timeout=1.0)
    except epicsx.CATimeoutError as error:
        assert "has not answered" in str(error), error
        assert "EPICS_CA_MAX_ARRAY_BYTES=20000" in str(error), error
    else:
        raise AssertionError("an answer that libca discards")
    w.put([1.0, 2.0], wait=True, timeout=20.0)
    assert w.get(timeout=20.0).value.tolist() == [1.0, 2.0]
ends = time.monotonic() + 20.0
while not any("EPICS_CA_MAX_ARRAY_BYTES" in line for line in lines):    # the dispatcher logs them
    assert time.monotonic() < ends, lines
    time.sleep(0.005)
assert max(map(lines.count, lines)) <= 5, lines
"""


def test_an_answer_that_libca_discards_is_explained(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc('record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "100000") }')
    limits = {"EPICS_CA_AUTO_ARRAY_BYTES": "NO", "EPICS_CA_MAX_ARRAY_BYTES": "20000"}
    run_python(SMALL, ioc.prefix, env={**ioc.env, **limits})


@contextmanager
def _repeated() -> Iterator[tuple[logging.Logger, list[float]]]:
    now = [100.0]
    log = logging.getLogger("test.repeated")
    log.setLevel(logging.INFO)
    kind = _dispatch._Repeated()
    kind.clock = lambda: now[0]
    log.addFilter(kind)
    try:
        yield log, now
    finally:
        log.removeFilter(kind)


def test_of_one_text_a_few_are_logged_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _repeated() as (log, now):
        for number in range(1000):
            log.info("%s", "the same")
            if number % 100 == 0:
                log.info("another %d", number)
        said = [record.getMessage() for record in caplog.records]
        assert said.count("the same") == 5
        assert sum("another" in each for each in said) == 10
        now[0] += 11.0
        caplog.clear()
        log.info("the same")
        log.info("the same")
        assert [record.getMessage() for record in caplog.records] == [
            "the same (and 995 times more)",
            "the same",
        ]


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with _repeated() as (log, _):
        for number in range(1000):
            log.info("text %d", number)
        (kind,) = log.filters
        assert isinstance(kind, _dispatch._Repeated)
        assert len(kind._seen) <= kind.TEXTS
        assert len(caplog.records) == 1000


#: A client of a server that sends a message of no known kind.
UNKNOWN = """
import logging, os, struct, threading
from epicsx.testing import FakeServer, Loopback
Loopback().apply()
os.environ["EPICSX_NO_REPEATER"] = "1"
import epicsx
told = threading.Event()
class Lines(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        told.set()
logging.getLogger("epicsx.libca").addHandler(Lines())
ports = {"port": int(os.environ["EPICS_CA_SERVER_PORT"]), "repeater_port": int(os.environ["EPICS_CA_REPEATER_PORT"])}
with FakeServer({"x": 1.0}, **ports) as server, epicsx.Channel("x") as x:
    x.get(timeout=20.0)
    server.send(struct.pack(">HHHHII", 999, 0, 0, 0, 0, 0))
    assert told.wait(20.0)
"""


def test_what_libcom_logs_comes_to_the_log_and_not_to_stderr() -> None:
    """Also in the hardened build: that libCom is epicsx's own as well."""
    result = run_python(UNKNOWN)
    assert "bad response type 999" in result.stdout
    assert result.stderr == ""
