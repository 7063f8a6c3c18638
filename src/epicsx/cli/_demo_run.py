"""The demo's course: begin, listen and work for a while, tell how it went, draw the picture."""

from __future__ import annotations

import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import numpy as np

from .._build_info import build_info
from .._channel import Channel, connect
from ..enums import Access
from ..errors import AccessError
from ..testing import SoftIOC
from . import _demo_ioc as ioc_side
from ._demo_meters import Counter, Distinct, Frames, Meter, Requests, Usage
from ._demo_picture import Panel, Picture, Plot, Words, save, suffixes
from ._demo_view import Status, Table, View, choose

PREFIX = "DEMO:"
LIVE = ("wave", "count", "current", "temperature", "state", "message")
WORKED = ("setpoint", "readback", "mode", "note", "acquire", "shot", "shots")


class CannotBegin(Exception):
    """Why the demo cannot begin, in one line."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends the demo as Ctrl-C does."""


class Setup:
    """What is watched and what is done meanwhile, for the IOC of the demo or for PVs of the user's own."""

    def __init__(self, title: str, meters: list[Meter], requests: Requests) -> None:
        self.title = title
        self.meters = meters
        self.requests = requests
        self.work: Callable[[], float] = lambda: 1.0
        self.go: Callable[[], None] = lambda: None  # after the subscriptions
        self.other_pid: int | None = None
        self.remarks: Callable[[], list[str]] = list


def show(options: Namespace) -> int:
    """Run the demo; its exit code."""
    picture = _check_picture(options.picture)
    view = choose(options.plain)
    with ExitStack() as stack:
        stack.enter_context(_terminate_as_interrupt())
        setup = _own(options) if options.pv else _demo(options, stack, view)
        usage = Usage(setup.other_pid)
        status = Status(setup.title, options.seconds, setup.meters, setup.requests, usage)
        code = _watch(setup, status, view)
        failures = [f for meter in setup.meters for f in meter.failures()]
        failures += setup.requests.failures()
        _summary(view, setup, status)
        try:
            size = save(picture, setup.title, _captions(setup, status), _panels(setup))
        except OSError as error:
            failures.append(f"the picture could not be written: {error}")
        else:
            view.tell(f"\npicture: {options.picture}, {size[0]} x {size[1]}")
        if failures:
            view.verdict(False, "\n".join(f"FAILED: {failure}" for failure in failures))
        else:
            view.verdict(True, "OK: " + _praise(setup))
        if code:
            view.tell("interrupted")
        return code or int(bool(failures))


def _check_picture(path: str) -> str:
    """The absolute path, if something can be written there."""
    path = os.path.abspath(path)
    folder, end = os.path.dirname(path), os.path.splitext(path)[1].lower()
    if end not in suffixes():
        raise CannotBegin(f"cannot tell from its name what kind of picture {path} is; try .png")
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or os.path.isdir(path):
        raise CannotBegin(f"cannot write the picture {path}; choose another place with --picture")
    return path


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the demo in order, so that its IOC's files go too."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- the IOC of the demo


def _demo(options: Namespace, stack: ExitStack, view: View) -> Setup:
    rate = options.image_rate
    ioc = SoftIOC(
        ioc_side.database(options.wave_rate, options.count_rate),
        prefix=PREFIX,
        scan_rates=[1 / rate],
    )
    view.tell("starting the soft IOC ...")
    stack.enter_context(ioc)
    ioc.apply(os.environ)
    # Images on a circuit of their own: scalars need not wait behind four megabytes.
    names = [*LIVE, *WORKED, "frame", "frame.SCAN", "frame.PROC"]
    channel = dict(zip(names, connect([PREFIX + name for name in names]), strict=True))
    for name in ("strip", "image"):
        channel[name] = Channel(PREFIX + name, priority=10).connect()
    for each in channel.values():  # before the IOC goes
        stack.callback(each.close)
    channel["strip"].put(ioc_side.strip().reshape(-1), wait=True, timeout=30.0)
    channel["frame.PROC"].put(1, wait=True)

    frames = Frames(channel["image"], "image", ioc_side.frame_of, ioc_side.RING, rate)
    counter = Counter(channel["count"], "count")
    others = [Meter(channel[n], n) for n in LIVE[2:]]
    requests = Requests()
    info = build_info()
    setup = Setup(
        f"epicsx demo: soft IOC {PREFIX} on 127.0.0.1:{ioc.server_port}, libca {info['libca_version']}",
        [frames, Meter(channel["wave"], "wave"), counter, *others],
        requests,
    )
    setup.work = ioc_side.Work(channel, requests, frames)
    setup.other_pid = ioc.pid
    setup.go = lambda: channel["frame.SCAN"].put(ioc_side.scan(rate), wait=True)

    def remarks() -> list[str]:
        rate, volume = frames.mean_rates()
        return [
            f"image: {frames.remarks()}, {frames.torn} torn",
            f"image: {ioc_side.WIDTH} x {ioc_side.HEIGHT} x 3, {rate:.1f} frames/s, {volume:.1f} MB/s",
            f"count: {counter.updates} values, {counter.gaps} gaps",
        ]

    setup.remarks = remarks
    return setup


# ---- PVs of the user's own


def _own(options: Namespace) -> Setup:
    channels = connect(options.pv, timeout=options.timeout)
    requests = Requests()
    for channel in channels:
        # What cannot be read, or written, is said at once.
        channel.get(timeout=options.timeout)
        if options.write and not channel.access & Access.WRITE:
            raise AccessError(f"'{channel.name}': no write access", name=channel.name)
    meters = [(Distinct if c.count > 1 else Meter)(c) for c in channels]
    what = ", ".join(options.pv[:3]) + (", ..." if len(options.pv) > 3 else "")
    setup = Setup(f"epicsx demo: {what} on {channels[0].host}", meters, requests)

    def work() -> float:
        for meter in meters:
            channel, kind = meter.channel, meter.kind
            got = requests.timed(f"get {kind}", lambda c=channel: c.get(timeout=2.0))  # type: ignore[misc]
            if got is not None and options.write:
                requests.timed(
                    f"put {kind} with wait",
                    lambda c=channel, v=got.value: c.put(v, wait=True, timeout=5.0),  # type: ignore[misc]
                )
            if kind == "enum":
                requests.timed("get as text", lambda c=channel: c.get(dtype=str, timeout=2.0))  # type: ignore[misc]
        # no more than a few megabytes a second beside the monitors
        return 0.1 if all(m.channel.count < 100_000 for m in meters) else 0.5

    setup.work = work
    return setup


# ---- the course of it


def _watch(setup: Setup, status: Status, view: View) -> int:
    """Listen and work until the time is over; 0, or the exit code of an interruption."""
    stop = threading.Event()

    done = threading.Event()

    def working() -> None:
        while not stop.wait(setup.work()):
            pass
        done.set()

    worker = threading.Thread(target=working, name="epicsx demo, at work", daemon=True)
    code = 0
    began = time.monotonic()
    view.open(status)
    try:
        for meter in setup.meters:
            meter.start()
        # The present values first: of an array that changes before it is sent, the IOC sends the
        # next value twice.
        while time.monotonic() < began + 2.0 and not all(m.updates for m in setup.meters):
            time.sleep(0.005)
        setup.go()
        worker.start()
        began = time.monotonic()
        due = began + view.every
        while (left := began + status.seconds - time.monotonic()) > 0:
            time.sleep(max(0.0, min(left, due - time.monotonic())))
            if time.monotonic() >= due:
                status.elapsed = time.monotonic() - began
                view.show(status)
                due = max(due + view.every, time.monotonic() + view.every / 2)
    except KeyboardInterrupt as interrupt:
        code = 143 if isinstance(interrupt, _Terminated) else 130
    finally:
        view.close()
        setup.requests.over = True
        stop.set()
    status.elapsed = time.monotonic() - began
    for meter in setup.meters:
        meter.stop()
    if worker.ident is not None:
        worker.join(6.0)
        if not done.is_set():
            setup.requests.fail("the thread that gets and puts did not come to its end")
    return code


def _summary(view: View, setup: Setup, status: Status) -> None:
    updates = Table(
        f"Updates in {status.elapsed:.1f} s",
        ("PV", "received", "delivered", "merged", "dropped", "waiting", "/s", "MB/s", "last"),
        left=(0, 8),
    )
    for meter in setup.meters:
        rate, volume = meter.mean_rates()
        last = meter.text()[:50]
        if meter.remarks() and not isinstance(meter, Frames):
            last += f", {meter.remarks()}"
        counts = (str(count) for count in meter.stats)
        updates.rows.append((meter.label, *counts, f"{rate:.1f}", f"{volume:.2f}", last))
    view.table(updates)
    requests = Table("Requests", ("kind", "number", "median ms", "p99 ms"))
    for kind, number, median, p99 in setup.requests.rows():
        requests.rows.append((kind, str(number), f"{median:.3f}", f"{p99:.3f}"))
    if requests.rows:
        view.table(requests)
    view.tell("")
    for remark in setup.remarks():
        view.tell(remark)
    if use := status.usage.text():
        view.tell(f"use: {use}")


def _praise(setup: Setup) -> str:
    counts = [meter.stats for meter in setup.meters]
    merged = sum(c.merged for c in counts)
    text = f"{sum(c.received for c in counts)} updates received, none dropped"
    text += f", {merged} merged" if merged else ", none merged"
    if any(isinstance(meter, Counter) for meter in setup.meters):
        text += ", no gap in the counter"
    return text


# ---- the picture


def _captions(setup: Setup, status: Status) -> list[str]:
    counts = [meter.stats for meter in setup.meters]
    told = (
        f"{time.strftime('%Y-%m-%d %H:%M:%S')}, after {status.elapsed:.1f} s: "
        f"{sum(c.received for c in counts)} updates, {sum(c.merged for c in counts)} merged, "
        f"{sum(c.dropped for c in counts)} dropped"
    )
    return [told, *setup.remarks()]


def _panels(setup: Setup) -> list[Panel]:
    panels: list[Panel] = []
    for meter in setup.meters:
        if meter.last is None:
            panels.append(Words("nothing arrived", meter.label))
        elif isinstance(meter, Frames) and meter.frame >= 0:
            pixels = meter.last.value.reshape(ioc_side.HEIGHT, ioc_side.WIDTH, 3)
            rate, volume = meter.mean_rates()
            caption = f"{meter.label}: frame {meter.frame}, {rate:.1f}/s, {volume:.1f} MB/s"
            panels.append(Picture(pixels, caption))
        elif setup.other_pid is not None and meter.kind != "waveform":
            continue  # of the demo's own PVs, the image and the waveform
        else:
            panels.append(_panel(meter))
    return panels


def _panel(meter: Meter) -> Panel:
    rate, _ = meter.mean_rates()
    caption = f"{meter.label}: {meter.text()}, {rate:.1f}/s"
    value: Any = meter.last.value
    if meter.kind == "text":
        return Words(value, caption)
    if meter.kind == "strings":
        return Words("\n".join(value), caption)
    if meter.is_array:
        return Plot(np.asarray(value), caption, x_label="element")
    when, values = np.array(list(meter.history)).T
    # held until the end, so that one that never changes is a line, not a point
    when = np.append(when, max(meter.seconds, when[-1]))
    values = np.append(values, values[-1])
    return Plot(values, caption, x=when, x_label="seconds", states=meter.states, steps=True)
