"""Servers that accept nothing more, or answer nothing for longer than libca waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from support import start_python, takes, wait_until

from epicsx import Channel, connect
from epicsx.testing import SoftIOC

DB = """
record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".02 second") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "100000") }
"""


def test_a_server_that_takes_nothing_more_stalls_no_other(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    bad, good = spare_ioc(DB), spare_ioc(DB)
    stuck, stuck_x, x, count = connect([bad["w"], bad["x"], good["x"], good["count"]])
    puts = [0, 0]
    stop = threading.Event()

    def fill(number: int) -> None:
        while not stop.is_set():
            stuck.put(np.full(100_000, 1.0), timeout=1.0)
            puts[number] += 1

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(2)]
    bad.pause()
    try:
        for thread in threads:
            thread.start()
        seen = [sum(puts), time.monotonic()]

        def full() -> bool:
            if sum(puts) != seen[0]:
                seen[:] = [sum(puts), time.monotonic()]
            return time.monotonic() - seen[1] > 0.5

        wait_until(full, 20.0, message="libca's send queue is full")
        # The keeper goes into libca for this one, and does not come back.
        stuck_x.subscribe(lambda sample: None)

        def others() -> None:
            values: list[float] = []
            with count.subscribe(lambda sample: values.append(sample.value)):
                wait_until(lambda: len(values) > 5)
            x.put(2.0, wait=True)
            assert x.get().value == 2.0
            with Channel(good["w"]) as other:
                other.get()
                other.control()
            with count.subscribe(lambda sample: None, mask=1) as more:
                wait_until(lambda: more.stats.delivered > 2)

        takes(0.0, 4.0, others)
        assert all(thread.is_alive() for thread in threads)
    finally:
        stop.set()
        bad.resume()
        for thread in threads:
            thread.join(20.0)
    assert stuck_x.get(timeout=10.0).value == 1.0
    for channel in (stuck, stuck_x, x, count):
        channel.close()


def test_an_unresponsive_server_comes_back(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(DB)
    script = """
import sys, time
import epicsx
epicsx.configure(conn_timeout=1.0)
from epicsx import Channel, DisconnectedError, connect
P = sys.argv[1]
def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, condition
        time.sleep(0.005)
x, count = connect([P + "x", P + "count"])
news, access, values, done = [], [], [], []
x.on_connection(lambda channel, up: news.append(up))
x.on_access(lambda channel, read, write: access.append((read, write)))
one = count.subscribe(lambda sample: values.append(sample.value))
two = count.subscribe(lambda sample: None, mask=1)
until(lambda: len(values) > 5 and two.stats.delivered)
print("ready", flush=True)
sys.stdin.readline()
request = x.put_async(5.0, timeout=None)
request.add_done_callback(done.append)
until(lambda: news == [True, False])
assert isinstance(request.exception(5.0), DisconnectedError)
assert request.exception(0).outcome_unknown
assert not x.connected and not x.access
print("lost", flush=True)
sys.stdin.readline()
until(lambda: news == [True, False, True])
x.put(6.0, wait=True)
assert x.get().value == 6.0
assert x.access == 3
until(lambda: access == [(True, True), (False, False), (True, True)])
seen = len(values)
until(lambda: len(values) > seen + 10)
assert len(done) == 1
# A clear after such a time sends the server no word of it: it must stop all the same.
two.close()
print("one left", flush=True)
sys.stdin.readline()
seen = len(values)
until(lambda: len(values) > seen + 10)
one.close()
print("closed", flush=True)
sys.stdin.readline()
assert count.get().value >= values[-1]
"""
    with start_python(script, ioc.prefix, env=ioc.env) as client:
        client.wait_line("ready")
        assert ioc.casr().monitors[ioc["count"]] == 2
        ioc.pause()
        client.send("paused")
        client.wait_line("lost", 30.0)
        ioc.resume()
        client.send("resumed")
        client.wait_line("one left", 30.0)
        wait_until(lambda: ioc.casr().monitors.get(ioc["count"]) == 1)
        client.send("")
        client.wait_line("closed", 30.0)
        wait_until(lambda: ioc["count"] not in ioc.casr().monitors)
        client.send("")
        result = client.finish(20.0)
    assert "Traceback" not in result.stderr
