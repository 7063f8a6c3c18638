"""A program's log that fails ends no thread that serves everybody, and hides no other's failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import run_python

from epicsx.testing import SoftIOC

DB = """
record(ao, "$(P)x") {}
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
"""

BEGIN = """
import logging, sys, time
import epicsx
from epicsx import connect
P = sys.argv[1]
def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, condition
        time.sleep(0.005)
x, count, locked = connect([P + "x", P + "count", P + "x.DISP"])
values = []
"""

FAIL = {
    "callback": "x.subscribe(lambda sample: 1 / 0)",
    "connection callback": "x.on_connection(lambda channel, up: 1 / 0)",
    "put callback": "x.put(1.0, wait=True, callback=lambda error: 1 / 0)",
    "refused put": "locked.put(1, wait=True); x.put(1.0)",
}


@pytest.mark.parametrize("where", ["Handler", "Filter"])
@pytest.mark.parametrize("what", FAIL)
def test_the_dispatcher_goes_on(own_ioc: Callable[..., SoftIOC], what: str, where: str) -> None:
    ioc = own_ioc(DB)
    script = f"""{BEGIN}
failed = []
class Bad(logging.{where}):
    def emit(self, record):
        failed.append(record)
        raise RuntimeError("disk full")
    filter = emit if {where == "Filter"} else logging.Handler.filter
log = logging.getLogger("epicsx")
log.add{where}(Bad())
count.subscribe(lambda sample: values.append(sample.value))
{FAIL[what]}
until(lambda: failed)
seen = len(values)
until(lambda: len(values) > seen + 3)
assert epicsx.health().lanes[0].dispatcher
"""
    result = run_python(script, ioc.prefix, env=ioc.env)
    assert "disk full" in result.stderr
    assert "Exception in thread" not in result.stderr


def test_a_callback_that_always_fails_does_not_hide_another(
    own_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = own_ioc(DB)
    script = f"""{BEGIN}
def noisy(sample):
    raise ValueError("noisy")
def rare(sample):
    values.append(sample.value)
    if len(values) == 20:
        raise KeyError("the one that matters")
count.subscribe(noisy)
count.subscribe(rare)
until(lambda: len(values) > 25)
print(count.stats.callback_errors)
"""
    result = run_python(script, ioc.prefix, env=ioc.env)
    assert result.stderr.count("KeyError: 'the one that matters'") == 1
    assert 10 <= result.stderr.count("ValueError: noisy") < int(result.stdout) - 1
