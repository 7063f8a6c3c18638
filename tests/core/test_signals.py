"""Ctrl-C ends every wait at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from support import Client, soon, start_python

from epicsx.testing import SoftIOC

WAITS = {
    "get of nobody": "nobody.get(timeout=None)",
    "connect": "nobody.connect(timeout=1e9)",
    "connect many": "connect([P + 'nobody', P + 'nobody2'], timeout=1000.0)",
    "put": "nobody.put(1.0, timeout=None)",
    "control": "nobody.control(timeout=None)",
    "get_many": "get_many([P + 'nobody', P + 'ai'], timeout=None)",
    "put_many": "put_many([slow.pop()], [1.0], wait=True, timeout=None)",
    "put wait": "slow.pop().put(1.0, wait=True, timeout=None)",
    "result": "slow.pop().put_async(1.0, timeout=None).result()",
    "exception": "slow.pop().put_async(1.0, timeout=None).exception()",
}

#: How often a wait is interrupted, at most: a machine that puts the client aside does so once.
TRIES = 5

DB = """
record(ai, "$(P)ai") { field(VAL, "2.5") field(PINI, "YES") }
record(calc, "$(P)n") { field(CALC, "VAL+1") }
"""
# One put with completion at a time and channel: the server's thread of this client would wait for it.
for _n in range(TRIES):
    DB += f"""
record(ao, "$(P)slow{_n}") {{ field(FLNK, "$(P)slow{_n}:seq") }}
record(seq, "$(P)slow{_n}:seq") {{ field(DLY1, "60") field(DOL1, "1") field(LNK1, "$(P)n.PROC PP") }}
"""


SCRIPT = """
import sys, time
from epicsx import Channel, connect, get_many, put_many
P = sys.argv[1]
ai, *slow = connect([P + "ai", *[P + f"slow{n}" for n in range(5)]], timeout=20.0)
nobody = Channel(P + "nobody")
for call in CALLS:
    again = True
    while again:
        again = False
        try:
            print("waiting", flush=True)
            call()
        except KeyboardInterrupt:
            print("interrupted", time.monotonic(), flush=True)
            assert ai.get().value == 2.5
            again = "again" in sys.stdin.readline()
        else:
            print("ended", flush=True)
"""


def interrupted(client: Client) -> float:
    """Press Ctrl-C while the client waits; how many seconds it went on."""
    client.wait_line("waiting", 20.0)
    state = ""
    while "S" not in state:  # it sleeps: it is in the wait
        with open(f"/proc/{client.pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    time.sleep(0.1)
    sent = time.monotonic()
    client.popen.send_signal(signal.SIGINT)
    return float(client.wait_line("interrupted", 10.0).split()[1]) - sent


@pytest.mark.parametrize("name", ["idle waits", *list(WAITS)[5:]])
def test_ctrl_c(own_ioc: Callable[..., SoftIOC], name: str) -> None:
    ioc = own_ioc(DB)
    waits = dict(list(WAITS.items())[:5]) if name == "idle waits" else {name: WAITS[name]}
    calls = "CALLS = [" + ", ".join(f"lambda: {call}" for call in waits.values()) + "]\n"
    with start_python(calls + SCRIPT, ioc.prefix, env=ioc.env) as client:
        for _ in waits:
            seconds = [interrupted(client)]
            while seconds[-1] >= 0.5:
                assert len(seconds) < TRIES, seconds
                client.send("again")
                seconds.append(interrupted(client))
            client.send("go on")
        result = client.finish(10.0)
    assert result.stderr == ""


def test_ctrl_c_that_ends_the_program(ioc: SoftIOC) -> None:
    script = """
import sys
from epicsx import Channel
Channel(sys.argv[1] + "cnt:100hz").subscribe(lambda sample: None)
nobody = Channel(sys.argv[1] + "nobody")
try:
    print("waiting", flush=True)
    nobody.get(timeout=None)
except KeyboardInterrupt:
    sys.exit(3)
"""

    def attempt() -> float:
        with start_python(script, ioc.prefix) as client:
            client.wait_line("waiting", 20.0)
            time.sleep(0.1)
            sent = time.monotonic()
            client.popen.send_signal(signal.SIGINT)
            result = client.finish(10.0, check=False)
            seconds = time.monotonic() - sent
        assert (result.returncode, result.stderr) == (3, "")
        return seconds

    soon(1.5, attempt, TRIES)


def test_a_signal_handler_runs_while_a_get_waits(ioc: SoftIOC) -> None:
    script = """
import signal, sys, time
from epicsx import Channel, CATimeoutError
hits = []
signal.signal(signal.SIGALRM, lambda *a: hits.append(time.monotonic()))
nobody = Channel(sys.argv[1] + "nobody")    # starts Channel Access, which is not what is measured
def measured():
    hits.clear()
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    began = time.monotonic()
    try:
        nobody.get(timeout=1.1)
    except CATimeoutError:
        pass
    took = time.monotonic() - began
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert took > 1.09, took
    return took, [hit - began for hit in hits]
def in_time(took, hits):
    return took < 1.2 and len(hits) == 5 and all(abs(hit - 0.2 * (n + 1)) < 0.12 for n, hit in enumerate(hits))
seen = []
while not seen or not in_time(*seen[-1]):    # a machine that puts this process aside does so once
    assert len(seen) < 5, seen
    seen.append(measured())
"""
    with start_python(script, ioc.prefix) as client:
        client.finish(20.0)
