"""The rows of pyepics' own interface, run alike on pyepics and on epicsx.

python -m benchmarks.workers.pv (epics|epicsx) VERB NAME SECONDS [WARM [COUNT]]
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from . import common

epics: Any = importlib.import_module(sys.argv[1])
verb, name = sys.argv[2:4]
seconds = float(sys.argv[4])
warm = float(sys.argv[5]) if len(sys.argv) > 5 else 0.3
count = int(sys.argv[6]) if len(sys.argv) > 6 else 1000

ages = common.Ages()
delivered = 0


def on_event(
    pvname: str | None = None,
    value: Any = None,
    char_value: str | None = None,
    timestamp: float = 0.0,
    **kw: Any,
) -> None:
    """The callback that scripts write."""
    global delivered
    delivered += 1
    if delivered % common.SAMPLE_EVERY == 0:
        ages.seconds.append(time.time() - timestamp)


def on_frame(
    pvname: str | None = None,
    value: Any = None,
    char_value: str | None = None,
    timestamp: float = 0.0,
    **kw: Any,
) -> None:
    """The callback for arrays, of which each is looked at."""
    global delivered
    delivered += 1
    if len(value) < 2:
        raise RuntimeError("short array")
    ages.seconds.append(time.time() - timestamp)


def names() -> list[str]:
    """The numbered records."""
    return [f"{name}{i}" for i in range(count)]


def one(**options: Any) -> Any:
    """A connected PV."""
    pv = epics.PV(name, **options)
    if not pv.wait_for_connection(timeout=10.0):
        raise SystemExit(f"cannot connect to {name}")
    return pv


def checked(value: Any) -> Any:
    """The value, if there is one: a row must not be fast at failing."""
    if value is None:
        raise SystemExit("no value")
    return value


def connect(monitored: bool) -> None:
    """PVs in a row, then a wait for each; monitored ones until each has its first value."""
    wanted = names()
    before = common.rss()
    used, start = common.cpu(), time.perf_counter()
    pvs = [epics.PV(n) if monitored else epics.PV(n, auto_monitor=False) for n in wanted]
    for pv in pvs:
        if not pv.wait_for_connection(timeout=60.0):
            raise SystemExit(f"cannot connect to {pv.pvname}")
    if monitored:
        for pv in pvs:
            checked(pv.get(timeout=60.0))
    stop, spent = time.perf_counter(), common.cpu() - used
    each = (common.rss() - before) / len(pvs)
    common.finish(len(pvs), stop - start, spent, bytes_each=each)


def channels(pvs: list[Any]) -> list[Any]:
    """The channels under the PVs, which count what they received; pyepics has none."""
    return [epics.Channel(pv.pvname) for pv in pvs] if hasattr(epics, "Channel") else []


def counts(handles: list[Any]) -> dict[str, float]:
    """The five counts of all channels together."""
    copies = [handle.stats for handle in handles]
    keys = ("received", "delivered", "merged", "dropped", "pending")
    return {key: sum(getattr(copy, key) for copy in copies) for key in keys} if copies else {}


def updates(with_callback: bool) -> None:
    """Monitored PVs with one callback each, or without any."""
    options = {"callback": on_event} if with_callback else {}
    pvs = [epics.PV(n, auto_monitor=True, **options) for n in names()]
    for pv in pvs:
        if not pv.wait_for_connection(timeout=30.0):
            raise SystemExit(f"cannot connect to {pv.pvname}")
    for pv in pvs:
        checked(pv.get(timeout=30.0))
    handles = channels(pvs)
    if with_callback:
        common.measure(lambda: delivered, warm, seconds, ages, more=lambda: counts(handles))
    turn = 0

    def look() -> None:
        nonlocal turn
        turn = (turn + 7) % len(pvs)
        value, stamp = pvs[turn].value, pvs[turn].timestamp
        checked(value)
        ages.seconds.append(time.time() - stamp)

    # Values are counters, so their sum grows by one per post: what pyepics can be counted by, and
    # an upper bound, as the IOC merges posts.  epicsx itself knows how many updates it received.
    def received() -> float:
        if handles:
            return counts(handles)["received"]
        return float(sum(pv.value for pv in pvs))

    def more() -> dict[str, object]:
        way = "updates received" if handles else "value jumps, an upper bound"
        return {"counted_by": way, **counts(handles)}

    common.measure(received, warm, seconds, ages, meanwhile=look, more=more)


def latency(camera: str, gil: str) -> None:
    """A counter's callbacks beside those for images, each of which takes 30 ms."""
    delays, work, frames = common.Delays(), common.occupied(gil), 0

    def on_tick(value: Any = None, timestamp: float = 0.0, **kw: Any) -> None:
        delays.note(time.time_ns(), round(1e9 * timestamp), value)

    def on_image(value: Any = None, **kw: Any) -> None:
        nonlocal frames
        frames += 1
        work()

    pvs = [
        epics.PV(name, auto_monitor=True, callback=on_tick),
        epics.PV(camera, auto_monitor=True, callback=on_image),
    ]
    for pv in pvs:
        if not pv.wait_for_connection(timeout=10.0):
            raise SystemExit(f"cannot connect to {pv.pvname}")
    for pv in pvs:  # not by a callback: pyepics sometimes makes none for the first value
        checked(pv.get(timeout=10.0))
    handles = channels(pvs)

    def more() -> dict[str, object]:
        return {"beside": f"{frames} images", **counts(handles[:1])}

    common.delayed(delays, warm, seconds, common.sleep_until, more)


def put_unwaited() -> None:
    """Puts without a wait, timed until the record that counts them has counted the last."""
    pv = one(auto_monitor=False)
    counter = epics.PV(name + "_posts", auto_monitor=False)
    counter.wait_for_connection(timeout=10.0)
    before = checked(counter.get(use_monitor=False))
    used, start, n = common.cpu(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(64):
            pv.put(n)
            n += 1
    # The server takes the requests of a circuit in order, so this is answered after the puts.
    after = checked(counter.get(use_monitor=False, timeout=30.0))
    stop = time.perf_counter()
    if after - before != n:
        raise SystemExit(f"{n} puts, {after - before} counted")
    common.finish(n, stop - start, common.cpu() - used, counted=after - before)


def main() -> None:
    """Do the one row that the command line names."""
    if verb == "get":
        pv = one(auto_monitor=False)
        common.repeat(lambda: checked(pv.get(use_monitor=False)), 1, seconds)
    elif verb == "cached_get":
        pv = one(auto_monitor=True)
        checked(pv.get(timeout=10.0))
        many = range(100)

        def hundred() -> None:
            get = pv.get
            for _ in many:
                get()

        common.repeat(hundred, len(many), seconds)
    elif verb == "getmany":
        wanted = names()
        for value in epics.caget_many(wanted):
            checked(value)
        common.repeat(lambda: checked(epics.caget_many(wanted)[-1]), len(wanted), seconds)
    elif verb == "put":
        put_unwaited()
    elif verb == "put_wait":
        pv = one(auto_monitor=False)
        value = common.array_like(pv.type.split("_")[-1], pv.nelm) if pv.nelm > 1 else 1.0

        def put() -> None:
            if pv.put(value, wait=True, timeout=30.0) != 1:
                raise SystemExit("put failed")

        common.repeat(put, 1, seconds)
    elif verb in ("connect", "connect_values"):
        connect(monitored=verb == "connect_values")
    elif verb in ("updates_callback", "updates_value"):
        updates(with_callback=verb == "updates_callback")
    elif verb == "monitor":
        pv = one(auto_monitor=True, callback=on_frame)
        common.wait_until(lambda: delivered > 0)
        handles = channels([pv])
        common.measure(lambda: delivered, warm, seconds, ages, more=lambda: counts(handles))
    elif verb == "latency":
        latency(*sys.argv[7:9])
    else:
        raise SystemExit(f"no row {verb!r}")


if __name__ == "__main__":
    main()
