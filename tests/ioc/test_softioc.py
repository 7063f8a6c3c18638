"""`epicsx.testing.SoftIOC`: that the IOC is a real one, and does what it is told."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from support import idle, run_python, start_python, threads_settle, wait_until
from support.records import ELEMENT_TYPES, FAMILY

from epicsx.testing import Casr, Loopback, Repeater, SoftIOC, SoftIOCError, free_port

Starter = Callable[..., SoftIOC]

ONE = 'record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") }'
OTHER = 'record(stringout, "$(P)x") { field(VAL, "three") field(PINI, "YES") }'

# A client in the plainest terms: libca from C, of epicscorelibs, with a monitor.
RAW_LIBCA = """
    import ctypes, sys, time
    from epicscorelibs.path import get_lib
    ctypes.CDLL(get_lib("Com"), mode=ctypes.RTLD_GLOBAL)
    ca = ctypes.CDLL(get_lib("ca"))
    ca.ca_pend_event.argtypes = ca.ca_pend_io.argtypes = [ctypes.c_double]
    assert ca.ca_context_create(1) == 1
    chid = ctypes.c_void_p()
    name = sys.argv[1].encode()
    assert ca.ca_create_channel(name, None, None, 0, ctypes.byref(chid)) == 1
    assert ca.ca_pend_io(5.0) == 1, "not connected"
    value = ctypes.c_double()
    assert ca.ca_array_get(6, 1, chid, ctypes.byref(value)) == 1
    assert ca.ca_pend_io(5.0) == 1
    print("value", value.value, flush=True)
    handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda args: None)
    event = ctypes.c_void_p()
    assert ca.ca_create_subscription(6, 1, chid, 1, handler, None, ctypes.byref(event)) == 1
    ca.ca_flush_io()
    print("subscribed", flush=True)
    sys.stdin.readline()
    ca.ca_context_destroy()
"""


@pytest.fixture
def softioc_one(own_ioc: Starter) -> SoftIOC:
    return own_ioc(ONE)


def test_a_raw_client_sees_it_and_it_sees_the_client(softioc_one: SoftIOC) -> None:
    ioc = softioc_one
    # its start looked whether it listens, and may still be counted for a moment
    wait_until(lambda: ioc.casr() == Casr(0, {}, {}))
    with start_python(RAW_LIBCA, ioc["x"], env=ioc.env) as client:
        assert client.wait_line("value") == "value 3.0"
        client.wait_line("subscribed")
        seen = wait_until(lambda: (found := ioc.casr()).monitor_count and found)
        assert seen == Casr(1, {ioc["x"]: 1}, {ioc["x"]: 1})
        client.send("go")
        client.finish()
    wait_until(lambda: ioc.casr() == Casr())


def test_pyepics_in_a_subprocess(ioc: SoftIOC) -> None:
    pytest.importorskip("epics", reason="pyepics is a development dependency")
    result = run_python(
        """
        import sys, epics
        p = sys.argv[1]
        get = epics.caget
        assert epics.caput(p + "ao", 1.25, wait=True) == 1
        print(get(p + "ao", use_monitor=False), end=" ")
        print(get(p + "mbbi", as_string=True), get(p + "stringin"))
        print(get(p + "wf:short:n").tolist(), get(p + "wf:string:n")[9])
        print(get(p + "wf:enum:n").tolist())
        print(get(p + "wf:uchar:n").tolist(), get(p + "wf:char:n").tolist(), get(p + "wf:float:1"))
        print(len(get(p + "aai")), get(p + "subarray").tolist())
        readonly, noaccess = epics.PV(p + "readonly"), epics.PV(p + "noaccess")
        readonly.wait_for_connection(20), noaccess.wait_for_connection(20)
        for pv in (readonly, noaccess):
            print(epics.ca.read_access(pv.chid), epics.ca.write_access(pv.chid))
        print(get(p + "cnt:100hz") > 0)
        """,
        ioc.prefix,
        env=ioc.env,
    )
    assert result.stdout.splitlines() == [
        "1.25 Two text in",
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] s9",
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]",
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] 1.0",
        "10 [2.0, 3.0, 4.0, 5.0]",
        "1 0",
        "0 0",
        "True",
    ]


def test_slow_puts_complete_when_the_chain_ends(ioc: SoftIOC) -> None:
    pytest.importorskip("epics", reason="pyepics is a development dependency")
    idle(ioc)
    result = run_python(
        """
        import sys, time, epics
        pv = epics.PV(sys.argv[1] + "slow")
        pv.wait_for_connection(20)
        began = time.monotonic()
        pv.put(2, wait=True, timeout=10)
        print(time.monotonic() - began)
        """,
        ioc.prefix,
        env=ioc.env,
    )
    assert 0.25 < float(result.stdout) < 5


def test_eight_megabytes_through_ca(ioc: SoftIOC) -> None:
    pytest.importorskip("epics", reason="pyepics is a development dependency")
    result = run_python(
        """
        import sys, numpy, epics
        pv = epics.PV(sys.argv[1] + "big:double", auto_monitor=False)
        pv.wait_for_connection(20)
        sent = numpy.arange(1048576, dtype=float)
        pv.put(sent, wait=True, timeout=20)
        print(bool((pv.get(timeout=20) == sent).all()))
        """,
        ioc.prefix,
        env={**ioc.env, "EPICS_CA_MAX_ARRAY_BYTES": "20000000"},
        timeout=60,
    )
    assert result.stdout.strip() == "True"


def test_the_session_ioc_has_every_record_told(ioc: SoftIOC) -> None:
    names = set(ioc.shell("dbl").split())
    families = [
        f"{letter}:{kind.lower()}{end}"
        for kind in ELEMENT_TYPES
        for letter, end in [("wf", ":0"), ("wf", ":1"), ("wf", ":n"), ("w", "")]
    ]
    families += [
        f"{family}:{number:04d}" for family in ("chain", "bulk") for number in range(FAMILY)
    ]
    assert names >= {ioc[name] for name in [*families, "ao", "double", "readonly", "latin1"]}
    assert ioc.read("wf:int64:n") == "0 1 2 3 4 5 6 7 8 9"
    assert ioc.read("wf:double:0.NORD") == "0"
    assert ioc.read("desc.DESC") == "Température 20 µm"
    raw = ioc.read("latin1.DESC").encode("utf-8", "surrogateescape")
    assert raw.decode("latin-1") == "Température 20 µm"
    assert ioc.read("int64out.EGU") == ""


def test_the_chain_moves_as_one(ioc: SoftIOC) -> None:
    for value in (7, 8):
        ioc.write("chain:go", value)
        assert {ioc.read(f"chain:{number:04d}") for number in (0, 1, 500, 999)} == {str(value)}


def test_access_is_switched_and_puts_are_counted(ioc: SoftIOC) -> None:
    for value, result in ((0, "FALSE"), (1, "TRUE")):
        ioc.write("access", value)
        wait_until(lambda: f"result={result}" in ioc.shell("asprules SWITCHED"))  # noqa: B023
    ioc.write("puts:n", 0)
    for value in range(5):
        ioc.write("puts", value)
    assert ioc.read("puts:n") == "5"


def test_counters_count(ioc: SoftIOC) -> None:
    for name in ("cnt:10hz", "cnt:100hz"):
        begin = float(ioc.read(name))
        wait_until(lambda: float(ioc.read(name)) > begin)  # noqa: B023


def test_write_and_read_texts_and_arrays(softioc_one: SoftIOC) -> None:
    ioc = softioc_one
    for text in ('a "b" \\ c', "it's, $x", "é µ"):
        ioc.write("x.DESC", text)
        assert ioc.read("x.DESC") == text
    with pytest.raises(SoftIOCError, match="not found"):
        ioc.read("nosuch")
    assert "not found" in ioc.shell(f"dbgf {ioc['nosuch']}")
    with pytest.raises(ValueError, match="one command"):
        ioc.shell("dbl\ndbl")


ARRAYS = """
record(waveform, "$(P)w") { field(NELM, "5") field(FTVL, "DOUBLE") }
record(waveform, "$(P)s") { field(NELM, "2") field(FTVL, "STRING") }
record(waveform, "$(P)c") { field(NELM, "5") field(FTVL, "CHAR") }
record(waveform, "$(P)many") { field(NELM, "3000") field(FTVL, "DOUBLE") }
record(ao, "$(P)x") {}
"""


def test_write_takes_arrays(own_ioc: Starter) -> None:
    ioc = own_ioc(ARRAYS)
    for value, held in (
        (numpy.array([1.0, 2.0, 3.5]), "1 2 3.5"),
        (numpy.arange(5), "0 1 2 3 4"),
        (numpy.array([True, False]), "1 0"),
        ([True, numpy.bool_(True), numpy.int8(2)], "1 1 2"),
        ([numpy.int32(4), numpy.float32(0.5)], "4 0.5"),
        (array("d", [2.5, 3.5]), "2.5 3.5"),
        (range(1, 3), "1 2"),
        ((), "(empty)"),
        ([7], "7"),
    ):
        ioc.write("w", value)
        assert ioc.read("w") == held
    ioc.write("s", numpy.array(["a", "b"]))
    assert ioc.read("s").split() == ['"a"', '"b"']
    ioc.write("many", [0] * 3000)
    assert ioc.read("many.NORD") == "3000"
    ioc.write("c", "abcde")
    assert ioc.read("c") == "abcde"
    for scalar in (numpy.float64(2.5), numpy.array(2.5)):
        ioc.write("x", 0)
        ioc.write("x", scalar)
        assert ioc.read("x") == "2.5"


def test_write_says_what_was_not_stored(own_ioc: Starter) -> None:
    ioc = own_ioc(ARRAYS)
    for name, value, told in (
        ("w", [1] * 9, "w has stored 5 of 9 elements"),
        ("many", [0] * 3001, "many has stored 3000 of 3001 elements"),
        ("s", ["a", "b", "c"], "s has stored 2 of 3 elements"),
        ("c", "abcdefgh", "c has stored 5 of 8 characters"),
        ("c", [1, 2], r"c is of CHAR: dbpf has stored the text '\[1, 2\]'"),
        ("x.DESC", "d" * 60, r"x\.DESC has stored 39 of 60 characters"),
        ("w", "[1, two]", "dbConvertJSON"),
        ("w", object(), "failed at 'dbpf"),
        ("x", [1, 2], "failed at 'dbpf"),
    ):
        with pytest.raises(SoftIOCError, match=told):
            ioc.write(name, value)
    with pytest.raises(ValueError, match="one dimension"):
        ioc.write("w", numpy.zeros((2, 2)))
    with pytest.raises(TypeError, match="a number or a text is wanted"):
        ioc.write("w", [object()])


@pytest.mark.parametrize("port", [99999, 80, -1])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(ValueError, match=f"server_port={port}: a port from 5001 to 65535"):
        SoftIOC(ONE, server_port=port)
    with pytest.raises(ValueError, match=f"repeater_port={port}: a port from 5001 to 65535"):
        SoftIOC(ONE, repeater_port=port)


def test_many_threads_use_the_shell(softioc_one: SoftIOC) -> None:
    wrong: list[str] = []

    def ask(number: int) -> None:
        for turn in range(50):
            text = softioc_one.shell(f'echo "{number} {turn}"').strip()
            if text != f"{number} {turn}":
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_macros_and_access_security(own_ioc: Starter) -> None:
    ioc = own_ioc(
        'record(ao, "$(P)x") { field(DESC, "$(TEXT)") field(ASG, "$(GROUP)") }',
        {"TEXT": "a, b='c'", "GROUP": "LOCKED"},
        access_security="ASG(DEFAULT) { RULE(1, WRITE) }\nASG($(GROUP)) { RULE(1, READ) }\n",
    )
    assert ioc.read("x.DESC") == "a, b='c'"
    assert "LOCKED" in ioc.shell("asprules")
    assert ioc.prefix != own_ioc(ONE).prefix


def test_a_given_prefix_and_files(own_ioc: Starter, tmp_path: Path) -> None:
    (tmp_path / "one.db").write_text(ONE)
    (tmp_path / "two.db").write_text('record(longin, "$(P)y") {}')
    ioc = own_ioc(
        [tmp_path / "one.db", str(tmp_path / "two.db"), 'record(bo, "$(P)z") {}'], {"P": "given:"}
    )
    assert ioc.prefix == "given:"
    assert sorted(ioc.shell("dbl").split()) == ["given:x", "given:y", "given:z"]
    assert own_ioc(ONE, prefix="mine:").read("x") == "3"


def test_scan_rates_of_the_database_are_added(own_ioc: Starter) -> None:
    ioc = own_ioc(
        'record(calc, "$(P)c") { field(SCAN, ".002 second") field(CALC, "VAL+1") }',
        scan_rates=[0.05],
    )
    wait_until(lambda: float(ioc.read("c")) > 100)
    ioc.write("c.SCAN", ".05 second")
    assert ioc.read("c.SCAN") == ".05 second"


@pytest.mark.parametrize(
    ("db", "says"),
    [
        ('record(nosuch, "$(P)x") {}', "'nosuch'.*not found"),
        ('record(ao, "$(P)x") { field(NOFIELD, "1") }', "NOFIELD"),
        ('record(ao, "$(P)x") {', "syntax error|EOF|end of"),
        ('record(ao, "$(NOMACRO)x") {}', "NOMACRO"),
        ("/no/such/file.db", "no such file"),
    ],
)
def test_a_wrong_database_is_an_error_that_says_so(db: str, says: str) -> None:
    before = set(threading.enumerate())
    ioc = SoftIOC(db)
    with pytest.raises(SoftIOCError, match=f"(?s){says}"):
        ioc.start()
    assert not ioc.running
    threads_settle(before)


def test_wrong_access_security_is_an_error() -> None:
    with pytest.raises(SoftIOCError, match=r"(?s)iocInit failed.*asInit"):
        SoftIOC(ONE, access_security="ASG(").start()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SoftIOCError, match=r"pip install epicsx\[test\]"):
        SoftIOC(ONE).start()


def _open_files() -> set[str]:
    """What the descriptors of this process stand for: each socket and pipe has a number of its own."""
    found = set()
    for number in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # it has gone, as that of the folder itself
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def test_stop_is_clean_and_takes_everything_back() -> None:
    before = set(threading.enumerate())
    files = _open_files()
    ioc = SoftIOC(ONE).start()
    process = ioc._process
    assert process is not None
    began = time.monotonic()
    ioc.stop()
    assert time.monotonic() - began < 5
    assert process.popen.returncode == 0
    assert not os.path.exists(process.folder)
    assert not ioc.running
    ioc.stop()
    threads_settle(before)
    # not their number: a circuit of a test before may close meanwhile
    assert not _open_files() - files
    with pytest.raises(SoftIOCError, match="does not run"):
        ioc.shell("dbl")


def test_restart_keeps_port_and_prefix_and_takes_another_database(softioc_one: SoftIOC) -> None:
    ioc = softioc_one
    kept = ioc.prefix, ioc.server_port, ioc.env
    pid = ioc.pid
    # With a client's circuit open, the server's port lingers when it goes.
    with socket.create_connection(("127.0.0.1", ioc.server_port)):
        ioc.restart(OTHER)
    assert (ioc.prefix, ioc.server_port, ioc.env) == kept
    assert ioc.pid != pid
    assert ioc.read("x") == "three"
    with socket.create_connection(("127.0.0.1", ioc.server_port)):
        ioc.kill()
    assert not ioc.running
    ioc.restart()
    assert ioc.read("x") == "three"


def test_a_killed_ioc_says_so(softioc_one: SoftIOC) -> None:
    softioc_one.kill()
    with pytest.raises(SoftIOCError, match=r"does not run \(return code -9\)"):
        softioc_one.shell("dbl")


def test_an_ioc_that_dies_during_a_command_says_so(
    softioc_one: SoftIOC, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, killer = softioc_one._process, (softioc_one.pid, signal.SIGKILL)
    assert process is not None
    write = process.write

    def sent(line: bytes) -> None:
        write(line)
        threading.Timer(0.1, os.kill, killer).start()

    monkeypatch.setattr(process, "write", sent)
    with pytest.raises(SoftIOCError, match="ended"):
        softioc_one.shell("epicsThreadSleep 30", timeout=20)


def test_a_late_answer_is_not_taken_for_another(softioc_one: SoftIOC) -> None:
    with pytest.raises(SoftIOCError, match=r"did not finish 'epicsThreadSleep 2' within 0.0 s"):
        softioc_one.shell("epicsThreadSleep 2", timeout=0.0)
    assert softioc_one.shell("echo later").strip() == "later"


def test_pause_and_resume(softioc_one: SoftIOC) -> None:
    ioc = softioc_one
    ioc.pause()
    assert ioc.running
    with pytest.raises(SoftIOCError, match="paused"):
        ioc.shell("dbl")
    # The kernel takes the connection; nobody answers.
    with socket.create_connection(("127.0.0.1", ioc.server_port), timeout=5):
        ioc.resume()
        assert ioc.read("x") == "3"
    ioc.pause()
    ioc.stop()
    assert not ioc.running


def test_a_taken_port_is_no_obstacle(own_ioc: Starter) -> None:
    first = own_ioc(ONE)
    second = SoftIOC(ONE)
    second.server_port = first.server_port
    with second:
        assert second.server_port != first.server_port
        assert second.read("x") == "3"
    with pytest.raises(SoftIOCError, match="still taken"):
        SoftIOC(ONE, server_port=first.server_port, timeout=2.0).start()


def test_spare_iocs_are_within_the_environment_of_this_process(spare_ioc: Starter) -> None:
    iocs = [spare_ioc(ONE), spare_ioc(OTHER)]
    for ioc in iocs:
        assert f"127.0.0.1:{ioc.server_port}" in os.environ["EPICS_CA_ADDR_LIST"].split()
    result = run_python(RAW_LIBCA, iocs[0]["x"])
    assert "value 3.0" in result.stdout


def test_apply_sets_what_a_client_needs() -> None:
    ioc = SoftIOC(ONE)
    environ = {"EPICS_CA_NAME_SERVERS": "elsewhere", "HOME": "/"}
    ioc.apply(environ)
    assert environ == {
        "HOME": "/",
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(ioc.server_port),
        "EPICS_CA_REPEATER_PORT": str(ioc.repeater_port),
    }


def test_a_dropped_ioc_is_ended() -> None:
    before = set(threading.enumerate())
    ioc = SoftIOC(ONE).start()
    process = ioc._process
    assert process is not None
    del ioc
    gc.collect()
    assert process.popen.poll() is not None
    threads_settle(before)


PARENT = """
    import os, sys
    from epicsx.testing import SoftIOC
    ioc = SoftIOC('record(ao, "$(P)x") {}').start()
    print("pids", ioc.pid, ioc._repeater._process.pid, flush=True)
    how = sys.argv[1]
    if how == "paused":
        ioc.pause()
    if how != "normal":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["normal", "killed", "paused"])
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's watch is Linux' own")
def test_the_ioc_dies_with_its_parent(how: str, tmp_path: Path) -> None:
    # Nobody is left to remove the IOC's folder.
    with start_python(PARENT, how, env={"TMPDIR": str(tmp_path)}) as parent:
        pids = [int(word) for word in parent.wait_line("pids").split()[1:]]
        parent.popen.wait(20)
        assert parent.popen.returncode == (0 if how == "normal" else -signal.SIGKILL)
    wait_until(lambda: not any(_lives(pid) for pid in pids), message=f"{pids} ended")


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_forked_child_leaves_its_parents_ioc_alone(softioc_one: SoftIOC) -> None:
    result = run_python(
        """
        import os, sys
        from epicsx.testing import SoftIOC
        with SoftIOC('record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") }') as ioc:
            child = os.fork()
            if child == 0:
                sys.exit(0)  # runs the finalizers
            os.waitpid(child, 0)
            print(ioc.read("x"))
        """
    )
    assert result.stdout.strip() == "3"


def test_the_repeater_serves_until_stop() -> None:
    repeater = Repeater(free_port()).start()
    assert repeater.wait(20.0)
    assert repeater.running
    repeater.stop()
    assert not repeater.running


def test_loopback_ports_differ() -> None:
    loopback = Loopback(spare=2)
    ports = {loopback.server_port, loopback.repeater_port, *loopback.spare_ports}
    assert len(ports) == 4
    assert loopback.env["EPICS_CA_ADDR_LIST"].count("127.0.0.1:") == 3


def test_import_brings_no_core_and_no_numpy() -> None:
    result = run_python(
        """
        import sys
        import epicsx.testing, epicsx.testing.pytest_plugin
        print([name for name in sys.modules
               if name.startswith(("numpy", "epicscorelibs")) or name.startswith("epicsx._")])
        """
    )
    # leaves, which are no part of the core
    assert result.stdout.strip() == "['epicsx._wire', 'epicsx._repeater']"


def test_the_helper_reports_hangs_and_signals() -> None:
    with start_python("import time\nprint('here')\ntime.sleep(60)") as client:
        client.wait_line("here")  # from here on it can say where it hangs
        with pytest.raises(AssertionError, match=r"(?s)hung, after 1.0 s.*most recent call"):
            client.finish(1.0)
    with pytest.raises(AssertionError, match="died of SIGSEGV"):
        run_python("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(AssertionError, match=r"(?s)returned 3.*oops"):
        run_python("import sys\nprint('oops', file=sys.stderr)\nsys.exit(3)")
    assert run_python("import sys\nsys.exit(3)", check=False).returncode == 3


PLUGIN_TESTS = """
import os
import sys

def test_one(softioc):
    assert softioc.read("longout") == "3"
    assert "epicsx._ca" not in sys.modules

def test_another(softioc, softioc_factory):
    other = softioc_factory('record(ao, "$(P)mine") {}')
    assert other.read("mine") == "0"
    assert other.server_port != softioc.server_port
    if LOOPBACK:
        for ioc in (softioc, other):
            assert f"127.0.0.1:{ioc.server_port}" in os.environ["EPICS_CA_ADDR_LIST"].split()
"""


@pytest.mark.parametrize("loopback", [False, True])
def test_the_pytest_plugin(tmp_path: Path, loopback: bool) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nepicsx_loopback = {loopback}\n")
    (tmp_path / "test_it.py").write_text(f"LOOPBACK = {loopback}\n{PLUGIN_TESTS}")
    result = run_python(
        """
        import importlib.metadata, os, sys, pytest
        os.chdir(sys.argv[1])
        names = [entry.name for entry in importlib.metadata.entry_points(group="pytest11")]
        plugin = [] if "epicsx" in names else ["-p", "epicsx.testing.pytest_plugin"]
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *plugin]))
        """,
        str(tmp_path),
        timeout=60,
    )
    assert "2 passed" in result.stdout
