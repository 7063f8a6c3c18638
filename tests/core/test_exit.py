"""The end of the process: quiet, return code 0, soon, and nothing that was accepted is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support import Result, run_python, soon, start_python, wait_until

from epicsx.testing import SoftIOC

#: How long a process may take from the last line of its program to its end.
LIMIT = 1.5

DB = """
record(ao, "$(P)slow") { field(FLNK, "$(P)slow:seq") }
record(seq, "$(P)slow:seq") { field(DLY1, "60") field(DOL1, "1") field(LNK1, "$(P)n.PROC PP") }
record(calc, "$(P)n") { field(CALC, "VAL+1") }
record(ao, "$(P)x") { field(VAL, "1") field(PINI, "YES") field(EGU, "mm") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "100000") }
""" + "".join(
    f'record(calc, "$(P)count{n}") {{ field(CALC, "VAL+1") field(SCAN, ".01 second") }}\n'
    for n in range(20)
)

OPEN = """
import sys, threading, time
import numpy as np
import epicsx
from epicsx import Channel, connect
P = sys.argv[1]
seen = threading.Event()
def on_value(sample):
    seen.set()
counts = connect([f"{P}count{n}" for n in range(20)], timeout=20.0)
subscriptions = [channel.subscribe(on_value) for channel in counts]
x, slow, w = connect([P + "x", P + "slow", P + "w"])
x.control()
w.put(np.arange(100000.0), wait=True)
samples = [w.get(), x.get()]
nobody = Channel(P + "nobody", on_connection=print, on_access=print)
named = Channel(P + "x", on_connection=lambda *news: None, on_access=lambda *news: None)
assert seen.wait(10.0)
pending = slow.put_async(1.0, timeout=None)
def stand(call):
    def run():
        try:
            call()
        except Exception:
            pass
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
"""

END = """
print("end", time.monotonic(), flush=True)
"""


def _once(
    script: str, ioc: SoftIOC, ready: Callable[[], None] | None = None
) -> tuple[Result, float]:
    """Run a program to its end, and do something when it says that it is ready; how long the end took."""
    if not ioc.running:
        ioc.restart()
    with start_python(script, ioc.prefix, env=ioc.env) as client:
        if ready is not None:
            client.wait_line("ready", 40.0)
            ready()
            client.send("go")
        began = float(client.wait_line("end ", 40.0).split()[1])
        result = client.finish(20.0, check=False)
        seconds = time.monotonic() - began
    if ioc.running:
        ioc.resume()
    return result, seconds


def _run(
    script: str,
    ioc: SoftIOC,
    ready: Callable[[], None] | None = None,
    *,
    returncode: int = 0,
    limit: float = LIMIT,
) -> Result:
    """Run a program to its end and check how long that end took; again if it took too long."""
    results = []

    def attempt() -> float:
        result, seconds = _once(script, ioc, ready)
        assert result.stderr == ""
        assert result.returncode == returncode
        results.append(result)
        return seconds

    soon(limit, attempt)
    return results[-1]


@pytest.fixture
def server(own_ioc: Callable[..., SoftIOC]) -> SoftIOC:
    """Give an IOC that may be stopped."""
    return own_ioc(DB)


def test_with_everything_open(server: SoftIOC) -> None:
    _run(OPEN + END, server)


def test_by_sys_exit_with_a_code(server: SoftIOC) -> None:
    _run(OPEN + END + "\nsys.exit(7)\n", server, returncode=7)


def test_with_the_ioc_stopped(server: SoftIOC) -> None:
    _run(
        OPEN
        + """
stand(lambda: x.get(timeout=None))
stand(lambda: x.put(3.0, wait=True, timeout=None))
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    x.put(number)
    requests = x.get_async(timeout=None)
w.put(np.zeros(100000))
"""
        + END,
        server,
        server.pause,
    )


def test_with_the_ioc_killed(server: SoftIOC) -> None:
    _run(
        OPEN + '\nprint("ready", flush=True)\nsys.stdin.readline()\n' + END,
        server,
        server.kill,
    )


@pytest.mark.parametrize(
    "how", ["time.sleep(1e6)", "threading.Event().wait()", "x.get(timeout=None)"]
)
def test_while_a_callback_never_returns(server: SoftIOC, how: str) -> None:
    _run(
        OPEN
        + f"""
inside = threading.Event()
def for_ever(sample):
    inside.set()
    while True:
        {how}
stuck = x.subscribe(for_ever)
assert inside.wait(10.0)
"""
        + END,
        server,
    )


def test_with_puts_stuck_in_a_full_send_queue(server: SoftIOC) -> None:
    _run(
        OPEN
        + """
print("ready", flush=True)
sys.stdin.readline()
ticks = [0]
def fill():
    while True:
        w.put(np.zeros(100000))
        ticks[0] += 1
stand(fill)
stand(fill)
last, quiet = -1, time.monotonic()
while time.monotonic() - quiet < 0.5:       # libca lets nobody in any more
    if ticks[0] != last:
        last, quiet = ticks[0], time.monotonic()
    time.sleep(0.01)
stuck = w.subscribe(on_value, count=5)      # stops the keeper, too
"""
        + END,
        server,
        server.pause,
    )


def test_while_a_callback_computes(server: SoftIOC) -> None:
    _run(
        OPEN
        + """
inside = threading.Event()
def burn(sample):
    inside.set()
    while True:
        sum(range(1000))
stuck = x.subscribe(burn)
assert inside.wait(10.0)
"""
        + END,
        server,
    )


def test_with_threads_waiting(server: SoftIOC) -> None:
    _run(
        OPEN
        + """
from epicsx import get_many
for _ in range(5):
    stand(lambda: Channel(P + "nobody2").get(timeout=None))
    stand(lambda: nobody.connect(timeout=None))
    stand(lambda: get_many([P + "nobody3", P + "x"], timeout=1000.0))
    stand(lambda: pending.result())
    stand(lambda: [x.get() for _ in iter(int, 1)])
    stand(lambda: [x.put(1.0) for _ in iter(int, 1)])
    stand(lambda: [Channel(P + "x", priority=n % 3).get() for n in iter(int, 1)])
"""
        + END,
        server,
    )


def test_with_an_unhandled_exception(server: SoftIOC) -> None:
    def attempt() -> float:
        result, seconds = _once(OPEN + END + "raise RuntimeError('the program')\n", server)
        assert result.returncode == 1
        lines = result.stderr.splitlines()
        assert lines[0].startswith("Traceback") and lines[-1] == "RuntimeError: the program"
        assert len(lines) < 6
        return seconds

    soon(LIMIT, attempt)


def test_users_exit_handlers_run_first_and_may_use_channels(server: SoftIOC) -> None:
    result = _run(
        """
import atexit, sys, time
from epicsx import Channel
P = sys.argv[1]
channel = Channel(P + "x")
@atexit.register
def last():
    channel.put(42.0, wait=True)
    with Channel(P + "n") as other:
        print("at exit", channel.get().value, other.get().value)
"""
        + END,
        server,
    )
    assert "at exit 42.0 0.0" in result.stdout


def test_an_exit_handler_that_comes_too_late_is_told(server: SoftIOC) -> None:
    result = _run(
        """
import atexit, sys, time
@atexit.register
def last():
    try:
        print("got", channel.get(timeout=5.0))
    except Exception as error:
        print(type(error).__name__, error)
    try:
        print("new", Channel(P + "n"))
    except Exception as error:
        print(type(error).__name__, error)
from epicsx import Channel
P = sys.argv[1]
channel = Channel(P + "x")
channel.get()
"""
        + END,
        server,
    )
    assert result.stdout.count("CAError") == 2
    assert "shut down" in result.stdout


def test_many_short_programs(server: SoftIOC) -> None:
    for _ in range(5):
        _run(
            """
import sys, time
from epicsx import Channel
channel = Channel(sys.argv[1] + "count1")
subscription = channel.subscribe(lambda sample: None)
channel.get()
"""
            + END,
            server,
        )


def test_a_program_that_only_imports(server: SoftIOC) -> None:
    _run("import time, epicsx\nepicsx.Channel\n" + END, server, limit=0.5)


# ---- what was accepted arrives

PUTS = """
record(longout, "$(P)puts") { field(FLNK, "$(P)puts:n") }
record(calc, "$(P)puts:n") { field(CALC, "VAL+1") }
record(longout, "$(P)last") {}
"""

PUT = """
from epicsx import Channel
def put(prefix):
    channel = Channel(prefix + "puts")
    channel.connect(20.0)
    for number in range(2000):
        channel.put(number)
"""


def _count(ioc: SoftIOC, expected: int) -> None:
    wait_until(lambda: float(ioc.read("puts:n")) >= expected, 10.0, every=0.05)
    assert (float(ioc.read("puts:n")), ioc.read("puts")) == (expected, "1999")


def _arrive(script: str, own_ioc: Callable[..., SoftIOC]) -> None:
    """Run a program that puts 2000 times, and count them."""

    def attempt() -> float:
        ioc = own_ioc(PUTS)  # which has counted none yet
        result, seconds = _once(script, ioc)
        assert (result.returncode, result.stderr) == (0, "")
        _count(ioc, 2000)
        return seconds

    soon(LIMIT, attempt)


def test_a_put_of_a_forked_child_whose_channel_has_gone_arrives(
    own_ioc: Callable[..., SoftIOC],
) -> None:
    """The server takes it only when the child is ending, and the child has no channel left on that circuit."""
    ioc = own_ioc('record(waveform, "$(P)wave") { field(FTVL, "DOUBLE") field(NELM, "1000000") }')
    result = run_python(
        """
import gc, multiprocessing, os, signal, subprocess, sys, time
import numpy as np
from epicsx import Channel, _ca

def put(prefix, pid):
    channel = Channel(prefix + "wave").connect(20.0)
    os.kill(pid, signal.SIGSTOP)
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -CONT {pid}"], stdout=subprocess.DEVNULL)
    channel.put(np.arange(1_000_000.0))
    channel.close()
    del channel
    gc.collect()
    until = time.monotonic() + 5.0
    while _ca.lent() and time.monotonic() < until:
        time.sleep(0.001)

if __name__ == "__main__":
    Channel(sys.argv[1] + "wave").get(timeout=20.0)
    child = multiprocessing.get_context("fork").Process(target=put, args=(sys.argv[1], int(sys.argv[2])))
    child.start()
    child.join(30.0)
    print("child", child.exitcode)
""",
        ioc.prefix,
        str(ioc.pid),
        env=ioc.env,
    )
    assert "child 0" in result.stdout
    wait_until(lambda: float(ioc.read("wave.NORD")) == 1_000_000)


def test_two_thousand_puts_then_the_end_all_arrive(own_ioc: Callable[..., SoftIOC]) -> None:
    _arrive("import sys, time\n" + PUT + "put(sys.argv[1])\n" + END, own_ioc)


def test_puts_of_threads_and_bulk_puts_arrive(own_ioc: Callable[..., SoftIOC]) -> None:
    _arrive(
        """
import sys, threading, time
from epicsx import connect, put_many
channels = connect([sys.argv[1] + "puts"], timeout=20.0)
def work():
    for number in range(250):
        channels[0].put(number)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
put_many(channels * 1000, range(1000, 2000))
"""
        + END,
        own_ioc,
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("parent", ["idle", "uses CA"])
def test_puts_of_a_multiprocessing_child_arrive(
    own_ioc: Callable[..., SoftIOC], method: str, parent: str
) -> None:
    ioc = own_ioc(PUTS)
    use = "Channel(sys.argv[1] + 'puts').get(timeout=20.0)" if parent == "uses CA" else "None"
    result = run_python(
        PUT
        + f"""
import multiprocessing, sys, time
if __name__ == "__main__":
    {use}
    child = multiprocessing.get_context("{method}").Process(target=put, args=(sys.argv[1],))
    child.start()
    child.join(30.0)
    print("child", child.exitcode)
    sys.exit(child.exitcode is None)
""",
        ioc.prefix,
        env=ioc.env,
        timeout=60.0,
    )
    assert "child 0" in result.stdout
    # libCom's own warning, of a child that uses it after fork().
    known = ("Warning: Undefined Behavior!", "Detected use of epicsThread from child process")
    said = [line for line in result.stderr.splitlines() if not line.strip().startswith(known)]
    assert said == []
    _count(ioc, 2000)


def test_puts_of_a_pool_arrive(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(PUTS)
    run_python(
        """
import multiprocessing, sys
from epicsx import Channel
def put(number):
    with Channel(sys.argv[1] + "puts") as channel:
        channel.put(number, timeout=20.0)
        return channel.get().count
if __name__ == "__main__":
    Channel(sys.argv[1] + "puts").get(timeout=20.0)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(put, range(200)) == [1] * 200
""",
        ioc.prefix,
        env=ioc.env,
        timeout=60.0,
    )
    wait_until(lambda: float(ioc.read("puts:n")) >= 200, 10.0, every=0.05)
    assert float(ioc.read("puts:n")) == 200


def test_daemon_threads_in_calls_end_without_a_word(ioc: SoftIOC) -> None:
    """They are ended by the shutdown; what they then raise is nobody's affair."""
    _run(
        """
import sys, threading, time
import epicsx
P = sys.argv[1]
begun = threading.Barrier(9)
def loop(call):
    call()
    begun.wait(20)
    while True:
        call()
for i in range(4):
    threading.Thread(target=loop, args=(lambda: epicsx.caget(P + "ao", use_monitor=False),), daemon=True).start()
    threading.Thread(target=loop, args=(lambda: epicsx.caget_many([P + "ao", P + "ai"]),), daemon=True).start()
waiting = epicsx.PV(P + "nobody")
threading.Thread(target=waiting.wait_for_connection, args=(60,), daemon=True).start()
epicsx.camonitor(P + "cnt:100hz", writer=lambda line: None)
group = epicsx.ca.sg_create()
begun.wait(20)
print("end", time.monotonic(), flush=True)
""",
        ioc,
    )


@pytest.mark.parametrize("channels", [0, 1])
def test_with_name_servers_that_answer_nothing(free_port: Callable[[], int], channels: int) -> None:
    """libca's own end waits for ever where it has name servers and has made no channel (epics-base #936)."""
    script = """
import atexit, os, socket, sys, time
atexit.register(lambda: print("over", time.monotonic(), flush=True))  # after epicsx's own: registered before
# One takes the connection and answers nothing, one refuses it, one is no host at all.
silent = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.environ["EPICS_CA_NAME_SERVERS"] = f"127.0.0.1:{sys.argv[1]} 127.0.0.1:{sys.argv[2]} 0.0.0.1:5064"
import epicsx
from epicsx import _ca
if int(sys.argv[3]):
    channel = epicsx.Channel("nobody:has:it")
    channel._core.wait_connected(0.5)
else:
    import epicsx._dispatch
    _ca.context()
    time.sleep(0.5)
print("end", time.monotonic(), flush=True)
"""
    env = {"EPICS_CA_ADDR_LIST": "", "EPICS_CA_AUTO_ADDR_LIST": "NO"}

    def attempt() -> float:
        ports = str(free_port()), str(free_port())
        result = run_python(script, *ports, str(channels), env=env)
        assert result.stderr == ""
        began, over = (float(line.split()[1]) for line in result.stdout.splitlines())
        return over - began

    soon(LIMIT, attempt)


def test_while_a_dead_circuit_is_left(server: SoftIOC) -> None:
    script = (
        """
import epicsx
epicsx.configure(conn_timeout=1.0, dead_circuit_timeout=0.0)
"""
        + OPEN
        + """
from epicsx import _ca
print("ready", flush=True)
sys.stdin.readline()
context = _ca.context()
while not context.dead_circuits:
    time.sleep(0.002)
"""
        + END
    )
    _run(script, server, server.pause)
