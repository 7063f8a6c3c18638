"""One process of `make fuzz`: `python -m tests.fuzz.client FIRST COUNT [--at-once N]`.

Some seeds at a time, each a thread with a circuit of its own (a CA priority of its own), against one `FakeServer` in
this process. A seed connects, reads, writes, subscribes, streams, closes and opens again, as its generator says, and
takes whatever the server made of that: every error of epicsx is right. Wrong are: a crash, a report of a sanitizer, an
exception that is no `CAError`, a seed that takes longer than its limit, a healthy channel that does not work any more,
and what is still lent when all is closed.

It prints ``+ seed`` when one begins and ``- seed`` when it ends; ``! text`` is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import queue
import random
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import epicsx
from epicsx.testing import FakePV, FakeServer, Loopback, Repeater
from epicsx.testing._fakeengine import Part, Request
from fuzz.mutate import Mutator

LIMIT = 60.0  # seconds for a seed
KINDS: dict[str, FakePV] = {
    "d": FakePV(1.5, units="mm", precision=2, limits=(-5, 5)),
    "l": FakePV(7),
    "s": FakePV("text"),
    "e": FakePV(1, states=["Off", "On", "Auto"]),
    "c": FakePV(b"bytes of text", size=256),
    "w": FakePV([float(n) for n in range(100)], size=128),
    "b": FakePV([0] * 1000, size=1000),
    "t": FakePV(["one", "two", "three"]),
}
DTYPES: tuple[Any, ...] = (None, None, None, str, int, float)


class Lies(dict[str, Mutator]):
    """The server's script: each request is answered as the seed of its channel says."""

    def __init__(self) -> None:
        super().__init__()
        self.of_circuit: dict[int, Mutator] = {}
        self.told = 0

    def __call__(self, request: Request) -> list[Part] | None:
        mutator = None
        if request.channel:
            mutator = self.get(request.channel.partition(":")[0])
        if mutator is not None:
            self.of_circuit[request.circuit] = mutator
        else:
            mutator = self.of_circuit.get(request.circuit)
        parts = None if mutator is None else mutator(request)
        self.told += parts is not None
        return parts


class Seed:
    """What the client does, by the seed."""

    def __init__(self, seed: int, server: FakeServer, priority: int) -> None:
        self.random = random.Random(f"client {seed}")
        self.server = server
        self.prefix = f"f{seed}:"
        self.priority = priority
        self.channels: list[epicsx.Channel] = []
        self.open: list[Any] = []  # subscriptions, streams, requests
        self.out = np.zeros(64)

    def run(self) -> None:
        """All of it; everything is closed in the end."""
        choice = self.random.choice
        works = (
            self.get, self.get, self.put, self.put, self.subscribe, self.subscribe, self.control,
            self.request, self.stream, self.post, self.post, self.close_one, self.close_channel,
            self.old_face, self.filtered, self.cut,
        )  # fmt: skip
        try:
            for _ in range(self.random.randint(1, 3)):
                self.create()
            for _ in range(self.random.randint(8, 30)):
                with contextlib.suppress(epicsx.CAError):
                    choice(works)()
                    if not self.channels:
                        self.create()
        finally:
            for each in self.open:
                if hasattr(each, "close"):
                    each.close()
            for channel in self.channels:
                channel.close()

    def name(self) -> str:
        return self.prefix + self.random.choice(tuple(KINDS))

    def timeout(self) -> float:
        return self.random.choice((0.01, 0.05, 0.2))

    def channel(self) -> epicsx.Channel:
        return self.random.choice(self.channels)

    def create(self) -> None:
        channel = epicsx.Channel(self.name(), priority=self.priority)
        self.channels.append(channel)
        with contextlib.suppress(epicsx.CAError):
            channel.connect(0.2)

    def get(self) -> None:
        dtype, count = self.random.choice(DTYPES), self.random.choice((0, 0, 1, 5, 64))
        out = self.out if self.random.random() < 0.2 else None
        sample = self.channel().get(
            None if out is not None else dtype, count, timeout=self.timeout(), out=out
        )
        read(sample)

    def put(self) -> None:
        value = self.random.choice((1.5, 3, "On", [1.0, 2.0], np.arange(20.0), "12"))
        wait = self.random.random() < 0.5
        with contextlib.suppress(ValueError, TypeError):  # it does not fit this PV
            self.channel().put(value, wait=wait, timeout=self.timeout())

    def subscribe(self) -> None:
        mask = self.random.choice((epicsx.DBE.VALUE, epicsx.DBE.ALARM, epicsx.DBE.PROPERTY))
        count = self.random.choice((0, 0, 0, 1, 3))
        self.open.append(self.channel().subscribe(read, mask=mask | epicsx.DBE.VALUE, count=count))

    def control(self) -> None:
        repr(self.channel().control(self.timeout()))

    def request(self) -> None:
        requests: list[Any] = [self.channel().get_async(timeout=0.1)]
        with contextlib.suppress(ValueError, TypeError):
            requests.append(self.channel().put_async(1, timeout=0.1))
        for each in requests if self.random.random() < 0.7 else []:
            with contextlib.suppress(epicsx.CAError):
                read(each.result(0.2))

    def stream(self) -> None:
        made = self.channel().stream(depth=4, coherent=False)
        self.open.append(made)
        for _ in range(2):
            with contextlib.suppress(epicsx.CAError):
                frame = made.read(0.05)
                frame.data.sum() if frame.data.dtype.kind in "fiu" else None
        self.server.post(self.channel().name)

    def post(self) -> None:
        for _ in range(self.random.choice((1, 1, 5))):
            self.server.post(self.channel().name)

    def cut(self) -> None:
        if self.random.random() < 0.2:
            numbers = [
                n for n, m in list(LIES.of_circuit.items()) if LIES.get(self.prefix[:-1]) is m
            ]
            for number in numbers[-1:]:
                self.server.send(self.random.randbytes(8), circuit=number)

    def close_one(self) -> None:
        if self.open:
            each = self.open.pop(self.random.randrange(len(self.open)))
            if hasattr(each, "close"):
                each.close()

    def close_channel(self) -> None:
        self.channels.pop(self.random.randrange(len(self.channels))).close()
        self.create()

    def old_face(self) -> None:
        chid = epicsx.ca.create_channel(self.name(), connect=False)
        try:
            if epicsx.ca.connect_channel(chid, timeout=0.1):
                kind = self.random.choice((0, 6, 14, 20, 24, 31, 34, 37, 38))
                epicsx.ca.get(chid, ftype=kind, timeout=0.1)
        finally:
            epicsx.ca.clear_channel(chid)

    def filtered(self) -> None:
        with self.channel().filter(every=2) as channel:
            read(channel.get(timeout=self.timeout()))


def read(sample: Any) -> None:
    """Look at all of a sample, as a user's callback would; what a server sends wrong may raise a CAError only."""
    if sample is None:
        return
    str(sample)
    value = sample.value
    if isinstance(value, np.ndarray):
        value.sum()
    else:
        str(value)
    repr((sample.timestamp_ns, sample.status, sample.severity, sample.count, sample.native_type))


LIES = Lies()


def main() -> None:
    """Run the seeds that are asked for; 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.client", description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--at-once", type=int, default=64)
    given = parser.parse_args()
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        faulthandler.enable()
    loopback = Loopback(spare=1)
    loopback.apply()
    findings: list[str] = []
    running: dict[int, float] = {}
    say_lock = threading.Lock()

    def say(text: str) -> None:
        with say_lock:
            sys.stdout.write(text + "\n")  # in one piece: libca writes to the same file
            sys.stdout.flush()

    def found(text: str) -> None:
        findings.append(text)
        say("! " + text.replace("\n", "\n! "))

    def watch() -> None:
        while True:
            time.sleep(1.0)
            late = [
                seed for seed, began in list(running.items()) if time.monotonic() - began > LIMIT
            ]
            if late:
                found(f"over {LIMIT:g} s: seeds {late}")
                faulthandler.dump_traceback(all_threads=True)
                os._exit(3)

    threading.Thread(target=watch, daemon=True).start()
    names = {
        f"f{seed}:{kind}"
        for seed in range(given.first, given.first + given.count)
        for kind in KINDS
    }
    pvs = {name: pv_like(KINDS[name.rpartition(":")[2]]) for name in names}
    work: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in range(given.first, given.first + given.count):
        work.put(seed)

    def worker(priority: int, server: FakeServer) -> None:
        while True:
            try:
                seed = work.get_nowait()
            except queue.Empty:
                return
            running[seed] = time.monotonic()
            say(f"+ {seed}")
            LIES[f"f{seed}"] = Mutator(seed, server.port)
            try:
                Seed(seed, server, priority).run()
            except Exception as error:
                found(f"seed {seed}: {error!r}\n{traceback.format_exc()}")
            finally:
                LIES.pop(f"f{seed}").rate = 0.0
                for number in [n for n, m in list(LIES.of_circuit.items()) if m.rate == 0.0]:
                    LIES.of_circuit.pop(number, None)
            del running[seed]
            say(f"- {seed}")

    with contextlib.ExitStack() as stack:
        repeater = Repeater(loopback.repeater_port).start()
        stack.callback(repeater.stop)
        repeater.wait()
        server = stack.enter_context(
            FakeServer(pvs, port=loopback.server_port, repeater_port=loopback.repeater_port)
        )
        server.answer(LIES)
        # On a port of its own: channels of the pyepics face have priority 0, so that circuit is lied to, as well.
        stack.enter_context(
            FakeServer(
                {"healthy": 42}, port=loopback.spare_ports[0], repeater_port=loopback.repeater_port
            )
        )
        workers = [
            threading.Thread(target=worker, args=(number + 1, server))
            for number in range(min(given.at_once, given.count, 98))
        ]
        with epicsx.Channel("healthy") as healthy:
            healthy.connect(20.0)
            for each in workers:
                each.start()
            for each in workers:
                each.join()
            say("= all have ended")
            for priority in (0, 99):
                with epicsx.Channel("healthy", priority=priority) as channel:
                    try:
                        if channel.get(timeout=20.0).value != 42:
                            found("a healthy channel has another value")
                    except epicsx.CAError as error:
                        found(f"a healthy channel: {error!r}")
        say("= healthy")
        gc.collect()
        deadline = time.monotonic() + 10.0
        while (epicsx._ca.lent() or epicsx._ca.blocks()) and time.monotonic() < deadline:
            time.sleep(0.05)
            gc.collect()
        requests = server.seen()
        say(f"= {requests} requests, {LIES.told} lies, {server.connections} circuits")
        if epicsx._ca.lent() or epicsx._ca.blocks():
            found(f"left: lent {epicsx._ca.lent()}, blocks {epicsx._ca.blocks()}")
    say("= done")
    sys.exit(1 if findings else 0)


def pv_like(pv: FakePV) -> FakePV:
    """One of its own for each name."""
    return FakePV(
        pv.values if pv.size and pv.size > 1 else pv.value,
        pv.type,
        pv.size,
        pv.states,
        pv.units,
        pv.precision,
        pv.limits,
    )


if __name__ == "__main__":
    main()
