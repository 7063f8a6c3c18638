"""A server that is dead though its connection stands: libca would wait for TCP to give up, epicsx leaves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import shims, start_python, wait_until

from epicsx.testing import SoftIOC

DB = """
record(ao, "$(P)x") { field(VAL, "$(X=1)") field(PINI, "YES") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
""" + "".join(f'record(ao, "$(P)bulk{n}") {{}}\n' for n in range(50))

BEGIN = """
import os, sys, time
import epicsx
epicsx.configure(conn_timeout=1.0, dead_circuit_timeout={seconds})
from epicsx import Channel, _ca, connect
P = sys.argv[1]
def until(condition, seconds=25.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, condition
        time.sleep(0.005)
context = _ca.context()
x, count = connect([P + "x", P + "count"])
"""


def both(first: SoftIOC, second: SoftIOC) -> dict[str, str]:
    """Give the environment of a client that sees both."""
    return {
        **first.env,
        "EPICS_CA_ADDR_LIST": f"127.0.0.1:{first.server_port} 127.0.0.1:{second.server_port}",
    }


def late_dns(folder: Path) -> dict[str, str]:
    """Give the environment of a client whose DNS answers late, or skip where that cannot be."""
    try:
        return shims.late_dns(folder)
    except OSError as error:
        pytest.skip(str(error))


def test_a_stand_by_server_takes_over_from_one_that_is_dead(
    own_ioc: Callable[..., SoftIOC],
) -> None:
    first = own_ioc(DB)
    second = own_ioc(DB, {"X": "2"}, prefix=first.prefix)
    second.kill()
    script = (
        BEGIN.format(seconds=0.5)
        + """
bulk = connect([P + f"bulk{n}" for n in range(50)])
late = Channel(P + "late")          # nobody has it
values, news = [], []
x.on_connection(lambda channel, up: news.append((up, channel.host if up else "")))
x.subscribe(lambda sample: values.append(sample.value))
count.subscribe(lambda sample: None)
until(lambda: values == [1.0])
first = x.host
print("ready", flush=True)
sys.stdin.readline()
until(lambda: len(news) >= 2)
until(lambda: x.connected)
assert x.host != first, first
until(lambda: values == [1.0, 2.0])
until(lambda: all(channel.connected for channel in bulk))
assert {channel.host for channel in bulk} == {x.host}
until(lambda: news == [(True, first), (False, ""), (True, x.host)])
assert x.get().value == 2.0
x.put(3.0, wait=True)
assert context.dead_circuits == 1
assert (x.stats.disconnects, late.connected) == (1, False)
late.close()
print("taken over", flush=True)
sys.stdin.readline()
"""
    )
    with start_python(script, first.prefix, env=both(first, second)) as client:
        client.wait_line("ready")
        first.pause()
        second.restart()
        client.send("paused")
        client.wait_line("taken over", 40.0)

        def taken_over() -> bool:
            casr = second.casr()
            return (casr.channel_count, casr.monitors.get(second["x"])) == (52, 1)

        wait_until(taken_over)
        first.resume()
        # It finds the connection closed: nothing of ours is left there.
        wait_until(lambda: first.casr().channel_count == 0)
        client.send("end")
        result = client.finish(20.0)
    assert "Traceback" not in result.stderr


def test_a_dead_server_that_wakes_up_is_found_again_where_it_was(
    own_ioc: Callable[..., SoftIOC],
) -> None:
    ioc = own_ioc(DB)
    script = (
        BEGIN.format(seconds=0)
        + """
values = []
count.subscribe(lambda sample: values.append(sample.value))
until(lambda: len(values) > 3)
print("ready", flush=True)
sys.stdin.readline()
until(lambda: context.dead_circuits == 1)
until(lambda: context.closing == (0, 0, 0))
print("left", flush=True)
sys.stdin.readline()
seen = len(values)
until(lambda: x.connected and len(values) > seen + 3)
x.put(4.0, wait=True)
print("back", flush=True)
sys.stdin.readline()
"""
    )
    with start_python(script, ioc.prefix, env=ioc.env) as client:
        client.wait_line("ready")
        ioc.pause()
        client.send("paused")
        client.wait_line("left", 40.0)
        ioc.resume()
        client.send("resumed")
        client.wait_line("back", 40.0)

        def moved() -> bool:  # of the circuit that was left it may hear only now
            casr = ioc.casr()
            return (casr.channel_count, casr.monitors) == (2, {ioc["count"]: 1})

        wait_until(moved)
        client.send("end")
        client.finish(20.0)


def test_a_subscription_closed_while_its_server_is_silent_ends_there_too(
    own_ioc: Callable[..., SoftIOC],
) -> None:
    """libca tells such a server nothing of it, and would let it stream for ever."""
    ioc = own_ioc(DB)
    script = (
        BEGIN.format(seconds="float('inf')")
        + """
values = []
one = count.subscribe(lambda sample: values.append(sample.value))
two = count.subscribe(lambda sample: None, mask=1)
until(lambda: values and two.stats.delivered)
print("ready", flush=True)
sys.stdin.readline()
until(lambda: not count.connected)
two.close()
print("closed", flush=True)
sys.stdin.readline()
seen = len(values)
until(lambda: count.connected and len(values) > seen + 3)
print("one left", flush=True)
sys.stdin.readline()
assert context.dead_circuits == 0
"""
    )
    with start_python(script, ioc.prefix, env=ioc.env) as client:
        client.wait_line("ready")
        assert ioc.casr().monitors[ioc["count"]] == 2
        ioc.pause()
        client.send("paused")
        client.wait_line("closed", 40.0)
        ioc.resume()
        client.send("resumed")
        client.wait_line("one left", 40.0)
        wait_until(lambda: ioc.casr().monitors.get(ioc["count"]) == 1)
        client.send("end")
        client.finish(20.0)


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_time_that_cannot_be_is_refused(seconds: float) -> None:
    script = f"""
import epicsx
try:
    epicsx.configure(dead_circuit_timeout=float("{seconds}"))
except epicsx.BadValueError as error:
    print(error)
"""
    with start_python(script) as client:
        assert "dead_circuit_timeout" in client.finish().stdout


def test_a_malformed_variable_is_told_and_the_default_used(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(DB)
    script = """
import logging, sys
logging.basicConfig(format="%(message)s")
from epicsx import Channel
with Channel(sys.argv[1]) as channel:
    print(channel.get().value)
"""
    env = {**ioc.env, "EPICSX_DEAD_CIRCUIT_TIMEOUT": "soon\x1b[2J"}
    with start_python(script, ioc["x"], env=env) as client:
        result = client.finish()
    assert result.stdout == "1.0\n"
    assert result.stderr.count("EPICSX_DEAD_CIRCUIT_TIMEOUT") == 1
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("dns", ["as it is", "late"])
def test_a_silent_server_whose_connection_ends_is_no_dead_circuit(
    own_ioc: Callable[..., SoftIOC], tmp_path: Path, dns: str
) -> None:
    """And who closes a subscription after it came back does not lose the others of the channel.

    libca tells of the connection's end by the name of its host, which DNS may have given it since the connect.
    """
    ioc = own_ioc(DB)
    script = (
        BEGIN.format(seconds=6.0)
        + """
values = []
one = count.subscribe(lambda sample: values.append(sample.value))
two = count.subscribe(lambda sample: None, mask=1)
until(lambda: values and two.stats.delivered)
if "DNSSHIM" in os.environ:
    assert {x.host, count.host} == {x.host} and x.host.startswith("127.0.0.1:")
    open(os.environ["DNSSHIM"], "w").close()
print("ready", flush=True)
sys.stdin.readline()
until(lambda: not count.connected)
print("silent", flush=True)
sys.stdin.readline()
time.sleep(7.0)                     # longer than a silent circuit has
assert epicsx.health().dead_circuits == 0
print("no dead circuit", flush=True)
sys.stdin.readline()
until(lambda: count.connected)
seen = len(values)
until(lambda: len(values) > seen + 3)
two.close()
print("one left", flush=True)
sys.stdin.readline()
seen = len(values)
until(lambda: len(values) > seen + 5)
assert count.stats.disconnects == 1
"""
    )
    env = ioc.env | (late_dns(tmp_path) if dns == "late" else {})
    with start_python(script, ioc.prefix, env=env) as client:
        client.wait_line("ready")
        ioc.pause()
        client.send("paused")
        client.wait_line("silent", 40.0)
        ioc.kill()
        client.send("killed")
        client.wait_line("no dead circuit", 20.0)
        ioc.restart()
        client.send("restarted")
        client.wait_line("one left", 40.0)
        wait_until(lambda: ioc.casr().monitors.get(ioc["count"]) == 1)
        client.send("end")
        client.finish(30.0)


def test_a_server_is_one_circuit_by_whatever_name(
    own_ioc: Callable[..., SoftIOC], tmp_path: Path
) -> None:
    ioc = own_ioc(DB)
    script = (
        BEGIN.format(seconds=5.0)
        + """
assert epicsx.health().circuits == 1
assert {x.host, count.host} == {x.host} and x.host.startswith("127.0.0.1:")
open(os.environ["DNSSHIM"], "w").close()
def named():
    with Channel(P + "bulk0").connect() as late:
        assert late._core.circuit == x._core.circuit != 0
        return late.host.startswith("late.example:")
until(named)
assert x.host == count.host == "late.example:" + x.host.partition(":")[2]
assert epicsx.health().circuits == 1
with Channel(P + "x", priority=7).connect() as urgent:
    assert urgent._core.circuit != x._core.circuit
    assert epicsx.health().circuits == 2
"""
    )
    env = ioc.env | late_dns(tmp_path)
    with start_python(script, ioc.prefix, env=env) as client:
        client.finish(40.0)
