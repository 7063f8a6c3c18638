"""E: what the process finds around it: no repeater, taken ports, no network, few files, nonsense in the environment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import finished

from epicsx.testing import free_port
from faults.harness import Figure, scenario
from faults.room import Room

DB = 'record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") }'

#: What a preparation ends with that needs a right which is not ours.
REFUSED = "the system refuses the preparation"
#: One client: `python -c CLIENT FACE PV PREPARE PATIENCE REFUSED`; what it says is a line of JSON. Modules are loaded
#: before the clock starts and before PREPARE is done, which may take files or sockets away.
CLIENT = """
import json, sys, time
face, name, prepare, patience, REFUSED = sys.argv[1:6]
if face == "epicsx":
    import logging
    import epicsx
    epicsx.Channel
    lines = []
    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
    logging.getLogger("epicsx").addHandler(Lines())
    def get(timeout):
        return epicsx.Channel(name).get(timeout=timeout).value
else:
    import epics
    lines = []
    def get(timeout):
        return epics.caget(name, timeout=timeout, connection_timeout=timeout)
exec(prepare, {**globals(), "REFUSED": REFUSED})
began = time.monotonic()
try:
    gave = get(float(patience))
except Exception as error:
    gave = f"{type(error).__name__}: {error}"
seconds = time.monotonic() - began
if face == "epicsx":
    import gc
    gc.collect()
    time.sleep(0.2)  # the log has its own thread
print("said", json.dumps([gave, seconds, lines]), flush=True)
"""


def ask(
    room: Room,
    face: str,
    name: str,
    prepare: str = "",
    env: Mapping[str, str] | None = None,
    *,
    limit: float = 40.0,
    patience: float = 10.0,
) -> tuple[Any, float, list[str], str]:
    """What a get in a process of its own gives: the answer, seconds, lines of the log, standard error.

    An end by a signal, none, or one with another return code than 0 is checked and told as the answer; REFUSED is the
    answer where the preparation says so: the system does not let us.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            CLIENT,
            face,
            name,
            prepare,
            f"{patience}",
            REFUSED,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        text=True,
        errors="replace",
    )
    code, out, err, _ = finished(process, limit)
    found = [line.partition(" ")[2] for line in out.splitlines() if line.startswith("said ")]
    at_the_end = " at the end" if found else ""
    if not found and REFUSED in err.splitlines():
        return REFUSED, 0.0, [], err
    if code is None:
        room.check(False, f"hangs{at_the_end}")
    elif code < 0:
        room.check(False, f"dies of {signal.Signals(-code).name}{at_the_end}")
    elif code:
        room.check(False, f"return code {code}{at_the_end}")
    if not found:
        return f"return code {code}", 0.0, [], err
    gave, seconds, lines = json.loads(found[-1])
    return gave, seconds, lines, err


# ---- E1: the repeater


def holder(port: int) -> int | None:
    """The process that has a UDP port."""
    with open("/proc/net/udp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if int(row[1].split(":")[1], 16) == port}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(file) in inodes:
                        return int(process.name)
    return None


MANY_FILES = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1048576, 1048576))
except (ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
"""


def _repeaters(room: Room, face: str) -> Figure:
    import resource

    ioc = room.ioc(DB)
    os.environ.pop("EPICSX_NO_REPEATER", None)
    times = []
    survives = 0
    with tempfile.TemporaryDirectory() as nothing:
        for _ in range(3):
            port = free_port()
            gave, seconds, _, _ = ask(
                room,
                face,
                ioc["x"],
                MANY_FILES,
                {"PATH": nothing, "EPICS_CA_REPEATER_PORT": str(port)},
            )
            room.check(gave == 3.0, f"a get gives {gave!r:.80}")
            times.append(seconds)
            pid = holder(port)
            if pid is not None:
                survives += 1
                os.kill(pid, signal.SIGTERM)  # nobody's child, started by the client above
    room.check(survives == 3, f"the repeater survives {survives} of 3 exits")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign:
        foreign.bind(("", 0))
        port = foreign.getsockname()[1]
        gave, taken, _, _ = ask(room, face, ioc["x"], "", {"EPICS_CA_REPEATER_PORT": str(port)})
    room.check(gave == 3.0, f"with the port taken a get gives {gave!r:.80}")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    best = min(times)
    room.check(best < 0.5, f"first connect {best:.2f} s")
    return Figure(
        f"first value after {best:.2f} s with {min(files, 1048576)} files allowed; the repeater survives {survives} of "
        f"3 exits; with its port taken {taken:.2f} s",
        seconds=best,
        survives=survives,
    )


@scenario(
    "E1",
    how="no caRepeater runs or is on PATH, as many open files allowed as the system lets (1048576); then its port is "
    "taken by a foreign socket",
    expected="the first value within 0.5 s (best of 3); the repeater survives the client",
    limit=90,
)
def e1(room: Room) -> Figure:
    return _repeaters(room, room.face)


e1.both()


# ---- E2: no UDP, no network, no names, few files


#: Linux: from now on socket(AF_INET, SOCK_DGRAM) fails with EAFNOSUPPORT in this process, by a seccomp filter.
NO_UDP = """
import ctypes, struct
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
rules = [(LOAD, 0, 0, 0), (EQUAL, 0, 4, NUMBER), (LOAD, 0, 0, 24), (AND, 0, 0, 0xF), (EQUAL, 0, 1, 2),
         (RETURN, 0, 0, 0x00050000 | 97), (RETURN, 0, 0, 0x7FFF0000)]
raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(rules), ctypes.addressof(raw))
# PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program)):
    sys.exit(REFUSED)
"""
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
#: A network of its own, without an interface that is up: needs root.
NO_NETWORK = """
import ctypes, os
os.environ["EPICSX_NO_REPEATER"] = "1"  # one would stay behind in there, where nobody finds it
if ctypes.CDLL(None).unshare(0x40000000):
    sys.exit(REFUSED)
"""


def few_files(more: int) -> str:
    """Let the process open only so many files more."""
    return (
        "import os, resource\n"
        f"limit = max(map(int, os.listdir('/proc/self/fd'))) + {more}\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
    )


CLEAR = {
    "epicsx": (
        "CATimeoutError",
        "DisconnectedError",
        "cannot be started",
        "failed",
        "Too many open files",
    ),
    "pyepics": ("ChannelAccess", "CASeverity"),
}


def tried(
    room: Room, face: str, name: str, what: str, prepare: str, works: bool, hosts: str = ""
) -> str:
    """What a get gives, checked: the value, or, unless it must work, a clear error."""
    gave, seconds, _, _ = ask(
        room,
        face,
        name,
        prepare,
        {"EPICS_CA_ADDR_LIST": hosts or os.environ["EPICS_CA_ADDR_LIST"]},
        patience=10.0 if works else 3.0,  # it is waited for in vain elsewhere
    )
    if gave == 3.0:
        return f"{what}: works after {seconds:.1f} s"
    if gave == REFUSED:
        return f"{what}: not to be had here"
    # None is how pyepics says that the time is over.
    clear = (face == "pyepics" and gave is None) or any(each in str(gave) for each in CLEAR[face])
    room.check(clear and not works, f"{what}: gives {gave!r:.80}")
    return f"{what}: {str(gave).partition(':')[0]} after {seconds:.1f} s"


def _scarce(room: Room, face: str) -> Figure:
    name = room.ioc(DB)["x"]
    parts = []
    machine = os.uname().machine
    if machine in SOCKET_CALL:
        rules = NO_UDP.replace("NUMBER", str(SOCKET_CALL[machine]))
        parts.append(tried(room, face, name, "no UDP", rules, False))
    if os.geteuid() == 0:
        parts.append(tried(room, face, name, "no network", NO_NETWORK, False))
    hosts = f"no.such.host.invalid {os.environ['EPICS_CA_ADDR_LIST']} other.invalid"
    parts.append(tried(room, face, name, "unknown hosts", "", True, hosts))
    parts.append(tried(room, face, name, "20 files", few_files(20), True))
    return Figure("; ".join(parts))


@scenario(
    "E2a",
    how="UDP sockets refused (seccomp), a network namespace without interface, host names nobody knows, 20 more files "
    "allowed",
    expected="it works, or a clear error in time; no abort, no hang",
    limit=120,
)
def e2a(room: Room) -> Figure:
    return _scarce(room, room.face)


e2a.both()


def _few(room: Room, face: str) -> Figure:
    name = room.ioc(DB)["x"]
    return Figure(
        "; ".join(
            tried(room, face, name, f"{more} files", few_files(more), False) for more in range(4)
        )
    )


# cac::transferChanToVirtCircuit (cac.cpp) takes a channel out of the search also where no circuit could be made for it;
# it is in no list then, is never searched again, and clearing it throws: channelNode::getSearchTimerIndex, "channel was
# expected to be in a search timer". A guard before that, `if ( ! piiu ) return;`, would leave it in the search.
@scenario(
    "E2b",
    how="0, 1, 2, 3 more files allowed, of which libca needs three",
    expected="it works, or a clear error in time; no abort, no hang",
    limit=120,
    needs="hardened",
)
def e2b(room: Room) -> Figure:
    return _few(room, room.face)


e2b.both()


# ---- E3: nonsense in the environment


NONSENSE = {
    "EPICS_CA_CONN_TMO": "x",
    "EPICS_CA_MAX_ARRAY_BYTES": "lots",
    "EPICS_CA_MAX_SEARCH_PERIOD": "never",
    "EPICS_CA_BEACON_PERIOD": "-",
    "EPICS_CA_AUTO_ARRAY_BYTES": "perhaps",
}
#: What libca takes without a word: clients do not read the first, what is not YES is NO, and empty is not set.
QUIET = ("BEACON_PERIOD=-", "AUTO_ARRAY_BYTES=perhaps", "MAX_ARRAY_BYTES=")
JUNK = "300.1.2.3 :::: 127.0.0.1:99999999 no.such.host.invalid ä"


def _nonsense(room: Room, face: str) -> Figure:
    ioc = room.ioc(DB)
    hosts = os.environ["EPICS_CA_ADDR_LIST"]
    cases: dict[str, dict[str, str]] = {
        f"{name[9:]}={text}": {name: text} for name, text in NONSENSE.items()
    }
    cases["MAX_ARRAY_BYTES="] = {"EPICS_CA_MAX_ARRAY_BYTES": ""}
    cases["CONN_TMO="] = {"EPICS_CA_CONN_TMO": ""}
    cases["junk in ADDR_LIST"] = {"EPICS_CA_ADDR_LIST": f"{JUNK} {hosts}"}
    works = warned = 0
    most = 0
    for what, env in cases.items():
        gave, _, lines, err = ask(room, face, ioc["x"], "", env)
        works += gave == 3.0
        room.check(gave == 3.0, f"{what}: gives {gave!r:.60}")
        told = [line for line in (*lines, *err.splitlines()) if line.strip()]
        warned += bool(told)
        names = JUNK.split() if "ADDR_LIST" in what else [next(iter(env))]
        if what not in QUIET:
            unnamed = [each for each in names if not any(each in line for line in told)]
            room.check(not unnamed, f"{what}: no warning names {' '.join(unnamed)}")
        most = max(most, max(map(told.count, told), default=0))
        room.check("Traceback" not in err, f"{what}: a traceback")
    room.check(most <= len(JUNK.split()), f"a line is said {most} times")
    return Figure(
        f"{works} of {len(cases)} work, {warned} are warned of; a line is said at most {most} times",
        works=works,
        warned=warned,
    )


@scenario(
    "E3",
    how="variables with nonsense, empty ones, five kinds of junk before the right entry of EPICS_CA_ADDR_LIST",
    expected="everything works; a warning names each number and each address that is none, with no flood of them; "
    "nothing is said of BEACON_PERIOD, which clients do not read, AUTO_ARRAY_BYTES=perhaps, which is NO, and an empty "
    "MAX_ARRAY_BYTES, which is not set",
    limit=180,
    quick=True,
)
def e3(room: Room) -> Figure:
    return _nonsense(room, room.face)


e3.both()
