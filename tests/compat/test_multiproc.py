"""CAProcess and CAPool under every start method, with a parent that uses Channel Access before."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest
from support import run_python

import epicsx.multiproc
from epicsx.testing import SoftIOC

METHODS = mp.get_all_start_methods()

#: What libCom says in a forked child that uses it; the hardened build does not.
KNOWN = ("Warning: Undefined Behavior!", "Detected use of epicsThread from child process")

BEGIN = """
import multiprocessing as mp, os, sys, time
from functools import partial
import epicsx
from epicsx import caget, caput, get_pv
from epicsx.multiproc import CAPool, CAProcess, clear_ca_cache
P = sys.argv[1]
METHOD = sys.argv[2]

def read(name):
    return os.getpid(), caget(P + name, use_monitor=False)

def end(code):
    caput(P + "out", code)
    sys.exit(code)

def pause():
    caget(P + "x")
    time.sleep(600)

class Own(CAProcess):
    def __init__(self, queue, **kws):
        super().__init__(**kws)
        self.queue = queue
    def run(self):
        self.queue.put((epicsx.PV(P + "x").get(timeout=20), self.name, self.daemon))

def busy():
    \"\"\"A parent with channels, a monitor and a callback.\"\"\"
    seen = []
    pv = get_pv(P + "count", connect=True, callback=lambda value, **kw: seen.append(value))
    assert caget(P + "x") == 1.5
    until = time.monotonic() + 20
    while len(seen) < 3:
        assert time.monotonic() < until
        time.sleep(0.001)
    return pv, seen
"""

PROCESSES = (
    BEGIN
    + """
def main():
    mp.set_start_method(METHOD)
    pv, seen = busy()
    queue = mp.Queue()
    own = Own(queue, name="mine", daemon=True)
    coded = CAProcess(target=end, args=(7,))
    daemon = CAProcess(target=pause, daemon=True)
    assert not coded.daemon and daemon.daemon and own.daemon
    for process in (own, coded, daemon):
        process.start()
    assert queue.get(timeout=20) == (1.5, "mine", True)
    for process in (own, coded):
        process.join(20)
    assert (own.exitcode, coded.exitcode) == (0, 7), (own.exitcode, coded.exitcode)
    until = time.monotonic() + 10
    while caget(P + "out", use_monitor=False) != 7:  # the put of a child that ended at once
        assert time.monotonic() < until
    assert daemon.is_alive()
    n = len(seen)
    while len(seen) < n + 3:  # the parent noticed nothing
        assert time.monotonic() < until
        time.sleep(0.001)
    print("done")  # and the daemon is ended with us

if __name__ == "__main__":
    main()
"""
)

POOLS = (
    BEGIN
    + """
def prepare(value):
    global prepared
    prepared = value, caget(P + "x")

def what(_):
    return prepared

def main():
    mp.set_start_method(METHOD)
    busy()
    context = mp.get_context(METHOD)
    with CAPool(2, prepare, (5,), 3, context) as pool:
        assert pool.map(what, range(4), chunksize=1) == [(5, 1.5)] * 4
        name = type(pool._pool[0]).__name__
        assert isinstance(pool._pool[0], CAProcess) and METHOD.startswith(name[2:-7].lower()), name
        found = pool.map(read, ["x", "x", "count", "x"])
        assert all(pid != os.getpid() for pid, value in found)
        assert [value for pid, value in found][:2] == [1.5, 1.5]
        assert sorted(v for p, v in pool.imap_unordered(read, ["x"] * 3)) == [1.5] * 3
        assert pool.apply(read, ("x",))[1] == pool.apply_async(read, ("x",)).get(20)[1] == 1.5
    pool = CAPool(processes=1, context=context)
    assert pool.starmap(partial(caget, use_monitor=False), [(P + "x",)]) == [1.5]
    pool.close()
    pool.join()
    pool = CAPool(1)  # in the default context, and left open
    assert pool.map(read, ["x"])[0][1] == 1.5
    assert isinstance(pool._pool[0], CAProcess)
    clear_ca_cache()
    assert caget(P + "x") == 1.5
    print("done")

if __name__ == "__main__":
    main()
"""
)

PLAIN = (
    BEGIN
    + """
def main():
    mp.set_start_method(METHOD)
    busy()
    process = mp.Process(target=end, args=(3,))
    process.start()
    process.join(20)
    assert process.exitcode == 3, process.exitcode
    with mp.Pool(1) as pool:
        assert pool.map(read, ["x"])[0][1] == 1.5
    print("done")

if __name__ == "__main__":
    main()
"""
)

DB = """
record(ao, "$(P)x") { field(VAL, "1.5") field(PINI, "YES") }
record(ao, "$(P)out") { field(VAL, "0") field(PINI, "YES") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
"""


@pytest.fixture(scope="module")
def served() -> Iterator[SoftIOC]:
    with SoftIOC(DB) as started:
        yield started


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("script", [PROCESSES, POOLS, PLAIN], ids=["CAProcess", "CAPool", "plain"])
def test_start_method(served: SoftIOC, script: str, method: str) -> None:
    result = run_python(script, served.prefix, method, env=served.env, timeout=50)
    assert result.stdout == "done\n"
    lines = [line.strip() for line in result.stderr.splitlines()]
    assert not [line for line in lines if line and not line.startswith(KNOWN)], result.stderr


def test_names() -> None:
    assert issubclass(epicsx.multiproc.CAProcess, mp.Process)
    assert issubclass(epicsx.multiproc.CAPool, Pool)
    assert epicsx.multiproc.clear_ca_cache is epicsx.multiproc.clear_cache
