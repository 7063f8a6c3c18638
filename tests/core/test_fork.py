"""After fork() the child owns nothing of libca's, may start anew, and the parent notices nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import Result, run_python

from epicsx.testing import SoftIOC, free_port

DB = """
record(ao, "$(P)x") { field(VAL, "1.5") field(PINI, "YES") field(EGU, "mm") }
record(calc, "$(P)count") { field(CALC, "VAL+1") field(SCAN, ".005 second") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10000") }
"""

#: What libCom says in a child that uses it; everything else on stderr is ours, and an error.
KNOWN = ("Warning: Undefined Behavior!", "Detected use of epicsThread from child process")

OPEN = """
import os, signal, sys, threading, time, traceback, warnings
# since 3.12 Python warns of each fork beside threads; that it is well here is what these tests are about
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
import numpy as np
import epicsx
from epicsx import CAError, Channel, connect, get_many, put_many
from epicsx._ca import blocks, lent
P = sys.argv[1]
values = []
x, count, w = connect([P + "x", P + "count", P + "w"], timeout=20.0)
subscription = count.subscribe(lambda sample: values.append(sample.value))
x.control()
w.put(np.arange(10000.0), wait=True)
sample = w.get()
while len(values) < 10:
    time.sleep(0.001)

def child(work):
    \"\"\"Run `work` in a forked child that ends by itself, at the latest after 20 s; its process id.\"\"\"
    pid = os.fork()
    if pid:
        return pid
    code = 9
    signal.alarm(20)
    try:
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def exits(code, use, prepare=lambda: None):
    \"\"\"The exit code of a forked child that ends by the interpreter's own end, exit handlers and all.\"\"\"
    pid = os.fork()
    if pid:
        return wait(pid)
    signal.alarm(10)
    prepare()
    if use:
        assert Channel(P + "x").get(timeout=8.0).value == 1.5
    sys.exit(code)

def undisturbed():
    seen = len(values)
    until = time.monotonic() + 10
    while len(values) < seen + 20:
        assert time.monotonic() < until
        time.sleep(0.001)
    # The server itself merges what a starved client is late for; we lose and double nothing.
    assert np.diff(values).min() >= 1.0, values
    stats = subscription.stats
    assert stats.received == stats.delivered + stats.pending, stats
    assert x.get().value == 1.5
"""


def _run(
    script: str, ioc: SoftIOC, timeout: float = 60.0, env: dict[str, str] | None = None
) -> Result:
    result = run_python(OPEN + script, ioc.prefix, env={**ioc.env, **(env or {})}, timeout=timeout)
    said = [line for line in result.stderr.splitlines() if not line.strip().startswith(KNOWN)]
    assert said == []
    return result


@pytest.fixture
def server(own_ioc: Callable[..., SoftIOC]) -> SoftIOC:
    """Give an IOC for one program and its children."""
    return own_ioc(DB)


def test_two_hundred_forks_while_updates_flow(server: SoftIOC) -> None:
    result = _run(
        """
def work():
    try:
        value = Channel(P + "x").get(timeout=10.0).value
        assert value == 1.5, value
        return 3
    except RuntimeError as error:
        assert "spawn" in str(error)
        return 4
ended = []
running = []
for number in range(200):
    running.append(child(work))
    if len(running) == 4:
        ended.append(wait(running.pop(0)))
ended += map(wait, running)
print({code: ended.count(code) for code in set(ended)})
assert set(ended) <= {3, 4}, ended
assert len(ended) == 200
undisturbed()
""",
        server,
        timeout=100.0,
    )
    assert "3:" in result.stdout


def test_handles_of_the_parent_say_so_in_the_child(server: SoftIOC) -> None:
    _run(
        """
request = x.get_async()
def work():
    assert lent() == 0
    assert blocks() == 0
    assert not x.connected
    calls = {
        "get": x.get,
        "put": lambda: x.put(1.0),
        "put wait": lambda: x.put(1.0, wait=True),
        "connect": x.connect,
        "control": x.control,
        "subscribe": lambda: x.subscribe(print),
        "get_async": x.get_async,
        "put_async": lambda: x.put_async(1.0),
        "on_connection": lambda: x.on_connection(print),
        "on_access": lambda: x.on_access(print),
        "get_many": lambda: get_many([x, count]),
        "put_many": lambda: put_many([x], [1.0]),
        "result": lambda: request.result(1.0),
    }
    for name, call in calls.items():
        seconds = []
        while not seconds or seconds[-1] >= 1.0:     # a machine that puts the child aside does so once
            assert len(seconds) < 5, (name, seconds)
            began = time.monotonic()
            try:
                call()
            except CAError as error:
                assert "fork" in str(error), (name, error)
            else:
                raise AssertionError(name)
            seconds.append(time.monotonic() - began)
    # Facts and data that are there stay readable; ends are harmless.
    assert x.name == P + "x" and "not connected" in repr(x)
    assert sample.value[9999] == 9999.0
    subscription.stats, subscription.closed, repr(subscription), x.stats, x.access, x.host
    subscription.close()
    x.close()
    assert lent() == 0
for _ in range(5):
    assert wait(child(work)) == 0
undisturbed()
""",
        server,
    )


def test_counts_of_the_parent_take_no_lock_that_its_threads_held(server: SoftIOC) -> None:
    _run(
        """
pv = epicsx.PV(P + "count", auto_monitor=True)
assert pv.wait_for_connection(10.0)
stop = []
def ask():
    while not stop:
        epicsx.health(), x.stats
threads = [threading.Thread(target=ask) for _ in range(2)]
for thread in threads: thread.start()
def work():
    assert count.stats[:5] == subscription.stats == (0, 0, 0, 0, 0), (count.stats, subscription.stats)
    subscription.latest, pv.stats, pv.value, repr(subscription)
codes = [wait(child(work)) for _ in range(100)]
stop.append(True)
for thread in threads: thread.join(10.0)
assert codes == [0] * 100, codes
undisturbed()
""",
        server,
        timeout=100.0,
    )


def test_a_child_may_do_everything_anew(server: SoftIOC) -> None:
    _run(
        """
def work():
    seen = threading.Event()
    with Channel(P + "x", on_connection=lambda *news: seen.set()) as channel:
        assert channel.get(timeout=10.0).value == 1.5
        assert seen.wait(5.0)
        assert channel.control().units == "mm"
        channel.put(1.5, wait=True)
        mine = []
        with Channel(P + "count") as counter, counter.subscribe(lambda s: mine.append(s.value)):
            until = time.monotonic() + 5
            while len(mine) < 10 and time.monotonic() < until:
                time.sleep(0.001)
        assert len(mine) >= 10
        assert lent() >= 1
for _ in range(5):
    assert wait(child(work)) == 0
undisturbed()
""",
        server,
    )


def test_a_child_that_drops_everything_and_exits_normally(server: SoftIOC) -> None:
    _run(
        """
import gc
def work():
    global x, count, w, subscription, sample
    del x, count, w, subscription, sample
    gc.collect()
    assert lent() == 0
for _ in range(5):
    assert wait(child(work)) == 0

for use in (False, True):
    began = time.monotonic()
    assert exits(0, use) == 0
    assert time.monotonic() - began < 5.0
undisturbed()
""",
        server,
    )


def test_a_child_exits_though_its_threads_have_the_places_of_the_parents(server: SoftIOC) -> None:
    """libCom's exit handler would join a thread of the parent: by a pthread_t that is by now one of the child's."""
    _run(
        """
import ctypes
libc = ctypes.CDLL(None)
def fill_places():
    # joinable threads with a stack as libCom's smallest (STACK_SIZE(1) of osdThread.c) get its threads' places
    attr = ctypes.create_string_buffer(128)
    assert libc.pthread_attr_init(attr) == 0
    assert libc.pthread_attr_setstacksize(attr, ctypes.c_size_t(0x10000 * ctypes.sizeof(ctypes.c_void_p))) == 0
    for _ in range(30):
        pause = ctypes.cast(libc.pause, ctypes.c_void_p)
        assert libc.pthread_create(ctypes.byref(ctypes.c_void_p()), attr, pause, None) == 0
for use in (False, True):
    assert exits(3, use, fill_places) == 3
undisturbed()
""",
        server,
    )


def test_a_child_exits_though_its_parent_has_a_repeater_inside(server: SoftIOC) -> None:
    """libCom's task watchdog, whose exit handler waits for an answer of the thread that a child does not have."""
    _run(
        """
def names():
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as name:
                yield name.read().strip()
        except OSError:
            pass  # it has just ended
until = time.monotonic() + 10
while "taskwd" not in names():
    assert time.monotonic() < until
    time.sleep(0.01)
for use in (False, True):
    assert exits(3, use) == 3
undisturbed()
""",
        server,
        # libca would start a caRepeater that it finds
        env={"EPICSX_NO_REPEATER": "1", "EPICS_CA_REPEATER_PORT": str(free_port()), "PATH": ""},
    )


def test_a_child_of_a_child(server: SoftIOC) -> None:
    _run(
        """
def grandchild():
    assert lent() == 0
    try:
        mine.get()
    except CAError as error:
        assert "fork" in str(error)
    else:
        raise AssertionError
    return 0 if Channel(P + "x").get(timeout=10.0).value == 1.5 else 1
def work():
    global mine
    mine = Channel(P + "x")
    assert mine.get(timeout=10.0).value == 1.5
    code = wait(child(grandchild))
    assert mine.get().value == 1.5
    return code
for _ in range(3):
    assert wait(child(work)) == 0
undisturbed()
""",
        server,
    )


def test_forks_from_callbacks_and_threads(server: SoftIOC) -> None:
    _run(
        """
codes = []
def work():
    assert Channel(P + "x").get(timeout=10.0).value == 1.5
done = threading.Event()
def in_callback(sample):
    codes.append(wait(child(work)))
    done.set()
forking = x.subscribe(in_callback)
assert done.wait(30.0)
forking.close()
def in_thread():
    for _ in range(3):
        codes.append(wait(child(work)))
threads = [threading.Thread(target=in_thread) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join(40.0)
assert codes == [0] * 10, codes
undisturbed()
""",
        server,
    )


def test_a_fork_before_first_use(server: SoftIOC) -> None:
    result = run_python(
        """
import os, sys
import epicsx
from epicsx import Channel
from epicsx._ca import lent
P = sys.argv[1]
for _ in range(3):
    pid = os.fork()
    if not pid:
        Channel(P + "x").get(timeout=10.0)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert lent() == 0
assert Channel(P + "x").get(timeout=10.0).value == 1.5
""",
        server.prefix,
        env=server.env,
    )
    said = [line for line in result.stderr.splitlines() if not line.strip().startswith(KNOWN)]
    assert said == []


def test_configure_in_a_child(server: SoftIOC) -> None:
    _run(
        """
def work():
    epicsx.configure(conn_timeout=7.0)   # the child has not used Channel Access yet
    assert os.environ["EPICS_CA_CONN_TMO"] == "7.0"
assert wait(child(work)) == 0
""",
        server,
    )


def test_programs_started_by_subprocess(server: SoftIOC) -> None:
    _run(
        """
import subprocess
for _ in range(5):
    subprocess.run([sys.executable, "-c", "print(1)"], check=True, stdout=subprocess.DEVNULL)
undisturbed()
""",
        server,
    )
