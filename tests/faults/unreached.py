"""C, the rest: servers that are not reached, or no more; programs that end meanwhile; the client's own clock."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable

from epicsx._wire import SAME_ADDRESS, Command, Frame, frames_of
from faults import clock
from faults.connection import COUNT, SILENT, SLOW, X, ready
from faults.faces import attach
from faults.harness import Figure, scenario
from faults.room import Room, doubtful

ASK = {
    "epicsx": """
        import sys, time, epicsx
        channel = epicsx.Channel(sys.argv[1])
        began = time.monotonic()
        try:
            print("value", channel.get(timeout=float(sys.argv[2])).value)
        except epicsx.CATimeoutError as error:
            print("said", time.monotonic() - began, error)
        print("end", flush=True)
    """,
    "pyepics": """
        import sys, time, epics
        pv = epics.PV(sys.argv[1], connection_timeout=float(sys.argv[2]))
        began = time.monotonic()
        if (value := pv.get(timeout=float(sys.argv[2]))) is not None:
            print("value", value)
        else:
            print("said", time.monotonic() - began, "get gave None")
        print("end", flush=True)
    """,
}
"""Asks for a PV that cannot be had; arguments: its name, the time-out."""

LOAD = """
        import hashlib, threading
        def work():
            end = time.monotonic() + float(sys.argv[2])
            while time.monotonic() < end:
                hashlib.sha256(bytes(1000)).digest()
        threading.Thread(target=work, daemon=True).start()
"""
"""A thread that wants the interpreter all the time, for the same program."""


Answer = tuple[list[str], float, str, str]
EXIT_LIMIT = 1.5
"""Seconds from the end of a program to that of its process."""


def asked(room: Room, script: str, *args: str, **env: str) -> Answer:
    """Run a client: its "said" or "value" lines, seconds from its end to that of its process, how that was, stderr."""
    with room.child(script, *args, env=env) as client:
        client.wait_line("end", 60.0)
        began = time.monotonic()
        how = ""
        try:
            result = client.finish(20.0, check=False)
        except AssertionError:  # a hang, or a signal
            return [], time.monotonic() - began, "the process hangs at its end", ""
        if result.returncode:
            how = f"returned {result.returncode}"
        lines = [line for line in result.stdout.splitlines() if line != "end"]
        return lines, time.monotonic() - began, how, result.stderr


def told_after(found: Answer) -> float:
    """After how many seconds a client said that it has no value; 0 if it did not."""
    lines = found[0]
    return float(lines[0].split(" ", 2)[1]) if lines and lines[0].startswith("said") else 0.0


def in_time(found: Answer, most: float) -> bool:
    """Whether a client's time-out and the end of its process were in time, or so late that asking again is no use."""
    return not (doubtful(told_after(found), most) or doubtful(found[1], EXIT_LIMIT))


@scenario(
    "C9",
    how="a PV that is nowhere; a host in the address list that is none; no server at the port; no address list; "
    "each while another thread keeps the interpreter busy",
    expected="a time-out error after 1 s (5 %), which names PV and search list; nothing on standard error "
    "but libca's word about the host that is none",
    limit=120,
    quick=True,
)
def c9(room: Room) -> Figure:
    name = "no:such:pv"
    room.ioc(X)
    script = ASK[room.face].replace("        began", LOAD + "        began", 1)
    took: list[float] = []
    for what, env in {
        "unknown PV": {},
        "unknown host": {"EPICS_CA_ADDR_LIST": "no.such.host.invalid"},
        "no server": {"EPICS_CA_ADDR_LIST": f"127.0.0.1:{room.loopback.repeater_port + 1}"},
        "no address list": {"EPICS_CA_ADDR_LIST": ""},
    }.items():
        found = room.best(
            lambda env=env: asked(room, script, name, "1.0", **env),  # type: ignore[misc]
            lambda found: not doubtful(told_after(found), 1.05),
        )
        lines, _, how, stderr = found
        room.check(not how, f"{what}: {how}")
        if not lines or not lines[0].startswith("said"):
            room.check(False, f"{what}: {lines or 'nothing said'}")
            continue
        took.append(told_after(found))
        text = lines[0].split(" ", 2)[2]
        room.check(0.95 <= took[-1] <= 1.05, f"{what}: after {took[-1]:.2f} s")
        hosts = env.get("EPICS_CA_ADDR_LIST", os.environ["EPICS_CA_ADDR_LIST"])
        named = name in text and (hosts or "EPICS_CA_ADDR_LIST is empty") in text
        room.check(named, f"{what}: {text!r} does not name both")
        room.check(
            not stderr or (what == "unknown host" and "Bad internet address" in stderr),
            f"{what}: {len(stderr.splitlines())} lines on stderr ({stderr.strip()[:100]})",
        )
    return Figure(
        f"told after {min(took):.3f} to {max(took):.3f} s", least=min(took), most=max(took)
    )


c9.both()


class Blackhole:
    """A server that answers searches with a TCP port where no connection can be made: its backlog is full."""

    def __init__(self, port: int) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        where = self.listener.getsockname()
        # As many as the kernel takes without anybody accepting; the next one's SYN is not answered.
        self.fillers = [socket.socket() for _ in range(4)]
        for filler in self.fillers:
            filler.setblocking(False)
            filler.connect_ex(where)
        self.searches = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.searches.bind(("127.0.0.1", port))
        self.asked = 0
        self.thread = threading.Thread(target=self.answer, args=(where[1],), daemon=True)
        self.thread.start()

    def answer(self, tcp: int) -> None:
        """Answer every search, until closed."""
        while True:
            data, client = self.searches.recvfrom(65536)
            if data == b"end":
                return
            for frame in frames_of(data):
                if frame.command == Command.SEARCH:
                    self.asked += 1
                    reply = Frame(
                        Command.SEARCH, tcp, 0, SAME_ADDRESS, frame.parameter2, b"\0\x0d" + bytes(6)
                    )
                    version = Frame(Command.VERSION, 0, 13)
                    self.searches.sendto(version.encode() + reply.encode(), client)

    def close(self) -> None:
        """End the thread, give back the sockets."""
        self.searches.sendto(b"end", self.searches.getsockname())
        self.thread.join(5.0)
        for each in (self.listener, self.searches, *self.fillers):
            each.close()


def unanswered(room: Room, reached: Callable[[], object], what: str) -> Figure:
    """Ask for a PV whose server does not let us in, and end. Within the time-out it must have `reached` the server."""
    found = room.best(
        lambda: asked(room, ASK[room.face], "some:pv", "1.0"),
        lambda found: found[2] or (in_time(found, 1.1) and reached()),
    )
    lines, exit, how, _ = found
    room.check(not how, how)
    room.check(lines and lines[0].startswith("said"), f"{lines or 'nothing said'}")
    took = told_after(found)
    room.check(0.95 <= took <= 1.1, f"time-out of 1 s after {took:.2f} s")
    room.check(exit <= EXIT_LIMIT, f"the process ended {exit:.1f} s after its program")
    room.check(reached(), what)
    return Figure(f"told after {took:.2f} s, exit {exit:.2f} s", timeout=took, exit=exit)


@scenario(
    "C10a",
    how="a server accepts the connection and never answers CREATE_CHAN",
    expected="a time-out error; the process ends within 1.5 s",
    limit=90,
    quick=True,
)
def c10a(room: Room) -> Figure:
    proxy = room.proxy(room.ioc('record(ao, "some:pv") {}', seen=False))
    proxy.drop(command="CREATE_CHAN", direction="to_server")
    return unanswered(
        room, lambda: proxy.seen(command="CREATE_CHAN"), "nobody asked for the channel"
    )


c10a.both()


@scenario(
    "C10b",
    how="connect() gets no answer, as by a firewall: searches are answered, the port's backlog is full",
    expected="a time-out error; the process ends within 1.5 s",
    limit=90,
    quick=True,
)
def c10b(room: Room) -> Figure:
    hole = room.enter(contextlib.closing(Blackhole(room.port())))
    return unanswered(room, lambda: hole.asked, "nobody searched")


c10b.both()


@scenario(
    "C14",
    how="name server (EPICS_CA_NAME_SERVERS) that is dead, or with which no channel was made; then exit",
    expected="the process ends within 1.5 s",
    limit=90,
    quick=True,
)
def c14(room: Room) -> Figure:
    ioc = room.ioc(X, seen=False)
    dead = f"127.0.0.1:{room.loopback.repeater_port + 1}"
    alive = f"127.0.0.1:{ioc.server_port}"
    silent = "import sys, epicsx\nepicsx.ca.initialize_libca()\nprint('end', flush=True)"
    if room.face == "pyepics":
        silent = "import sys, epics\nepics.ca.initialize_libca()\nprint('end', flush=True)"
    exits: list[float] = []
    for what, script, servers in (
        ("dead", ASK[room.face], dead),
        ("no channel", silent, alive),
        ("no channel, dead", silent, dead),
    ):
        env = {"EPICS_CA_NAME_SERVERS": servers, "EPICS_CA_ADDR_LIST": ""}
        _, exit, how, _ = room.best(
            lambda script=script, env=env: asked(room, script, "some:pv", "0.5", **env),  # type: ignore[misc]
            lambda found: found[2] or not doubtful(found[1], EXIT_LIMIT),
        )
        exits.append(exit)
        room.check(not how, f"{what}: {how}")
        room.check(how or exit <= EXIT_LIMIT, f"{what}: ended after {exit:.1f} s")
    if room.missed:
        return Figure("given up after 20 s", exit=max(exits))
    return Figure(f"ended after {min(exits):.2f} to {max(exits):.2f} s", exit=max(exits))


c14.both()


# ---- the client's clock, and a server that is dead though its connection stands


@scenario(
    "C12",
    how="the client's clock steps by -20 s, -1 h and +1 h during a get that has no answer and a put that takes 1 s; "
    "after the first step a new channel connects",
    expected="time-outs of 2 s and the put take as long as ever; no connection is lost; the new channel connects, "
    "late by the step at most: libca searches by the wall clock",
    limit=240,
    env=clock.env,
)
def c12(room: Room) -> Figure:
    ioc = room.ioc(X + SLOW.replace('"30"', '"1"'))
    slow, x = room.pv(ioc["slow"]), room.pv(ioc["x"])
    ready(room, [slow, x])
    nowhere = room.pv("no:such:pv", monitor=False)

    def stepped(by: float) -> tuple[float, float]:
        """Seconds that the get and the put take."""
        took: dict[str, float] = {}

        def time_of(what: str, call: Callable[[], object]) -> None:
            attach(room.face)
            began = time.monotonic()
            room.raised(call)
            took[what] = time.monotonic() - began

        waiting = [
            threading.Thread(
                target=time_of, args=("get", lambda: nowhere.get(timeout=2.0)), daemon=True
            ),
            threading.Thread(
                target=time_of, args=("put", lambda: slow.put(1.0, wait=True)), daemon=True
            ),
        ]
        for each in waiting:
            each.start()
        time.sleep(0.3)
        room.clock.step(by)
        began = time.monotonic()
        for each in waiting:
            each.join(max(0.0, began + 8.0 - time.monotonic()))
        x.get()
        return took.get("get", 9.0), took.get("put", 9.0)

    def in_time(by: float) -> tuple[float, float]:
        """The same; where it was late, the step is undone and made again."""
        steps = itertools.count()

        def attempt() -> tuple[float, float]:
            if next(steps):
                room.clock.step(-by)
            return stepped(by)

        return room.best(
            attempt, lambda took: not (doubtful(took[0], 2.2) or doubtful(took[1], 1.5))
        )

    times = {-20.0: in_time(-20.0)}
    late = room.pv(ioc["slow.VAL"])
    began = time.monotonic()
    error, _ = room.raised(lambda: late.connect(60.0))
    connect = time.monotonic() - began
    room.check(error is None and connect < 30.0, f"a new channel after -20 s: {connect:.0f} s")
    times |= {by: in_time(by) for by in (-3600.0, 3600.0)}
    for by, (get, put) in times.items():
        room.check(1.9 <= get <= 2.2, f"{by:+.0f} s: the get timed out after {said(get)}")
        room.check(0.8 <= put <= 1.5, f"{by:+.0f} s: the put took {said(put)}")
    downs = [pv.name for pv in (slow, x) if pv.last(False)]
    room.check(not downs, f"{len(downs)} connections lost")
    gets = [get for get, _ in times.values()]
    return Figure(
        f"time-outs of 2 s after {said(min(gets))} to {said(max(gets))}; new channel after -20 s: {connect:.1f} s",
        most=max(gets),
        connect=connect,
    )


def said(seconds: float) -> str:
    """A time that was waited for 8 s at most."""
    return f"{seconds:.2f} s" if seconds < 9.0 else "more than 8 s"


c12.both()


@scenario(
    "C15",
    how="the IOC is stopped (SIGSTOP) as a dead host is, another with the same PV comes up on another port",
    expected="connects to the other one",
    limit=90,
    ports=2,
    env=SILENT,
)
def c15(room: Room) -> Figure:
    dead = room.ioc(COUNT)
    pv = room.pv(dead["count"])
    ready(room, [pv])
    dead.pause()
    began = time.monotonic()
    other = room.ioc(COUNT, prefix=dead.prefix)
    room.wait(lambda: pv.last(False), 20.0, "told down")
    down = pv.last(False) - began
    listens = time.monotonic()
    if not room.saw(lambda: pv.after(listens), 45.0):
        room.check(False, "not connected within 45 s")
        return Figure(f"down after {down:.1f} s", down=down)
    up = next(when for when, *_ in pv.values if when >= listens) - began
    host = pv.host
    room.check(host.endswith(f":{other.server_port}"), f"connected to {host}")
    dead.resume()
    room.wait(
        lambda: len(pv.after(time.monotonic() - 0.5)) > 2,
        10.0,
        "updates go on when the first is back",
    )
    room.check(pv.host == host, f"goes to {pv.host} when the first is back")
    return Figure(
        f"down after {down:.1f} s, first value of the other {up:.1f} s after the stop",
        down=down,
        up=up,
    )


c15.both()
