"""The IOC that the benchmarks read and write: its database, its start, its event source."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import final

from epicsx.testing import SoftIOC

SCALARS = 1000
SEGMENT = 10  # calc records per chain: all 100 chains stand behind `all`, one in turn behind `step`
STATIC = 10_000
ARRAYS = {
    "image": ("UCHAR", 1360 * 1024 * 3),
    "wave1m": ("DOUBLE", 1_000_000),
    "wave10k": ("DOUBLE", 10_000),
    "wave1k": ("DOUBLE", 1_000),
    "camera": ("UCHAR", 1360 * 1024 * 3),
}
# Records that the IOC's own scan threads process, and how often per second: large arrays well
# above what a client can take, small ones as fast as the scan thread goes; `all` so that its 1000
# posts each time make about as many as the IOC can send, `flow` so that they leave a client time.
# `tick` and `camera` are what a beamline has side by side: a scalar at 1 kHz, and images that a
# consumer of 30 ms each can just follow.
RATES = {
    "all": 1000.0,
    "flow": 200.0,
    "step": 1000.0,
    "image": 1000.0,
    "wave1m": 500.0,
    "wave10k": 10_000.0,
    "wave1k": 10_000.0,
    "tick": 1000.0,
    "camera": 25.0,
}
MAX_ARRAY_BYTES = 100_000_000


def _record(kind: str, name: str, **fields: object) -> str:
    body = "".join(f' field({key},"{value}")' for key, value in fields.items())
    return f'record({kind},"$(P){name}"){{{body}}}\n'


def _counted(kind: str, name: str, **fields: object) -> str:
    """A record followed by one that counts how often it was processed."""
    return _record(kind, name, **fields, FLNK=f"$(P){name}_posts") + _record(
        "calc", f"{name}_posts", INPA=f"$(P){name}_posts.VAL", CALC="A+1"
    )


def _links(records: list[str]) -> dict[str, str]:
    return {f"LNK{k:X}": name for k, name in enumerate(records, 1)}


def database() -> str:
    """Text of the database: counters in chains, static records, arrays, and a counted put."""
    lines: list[str] = []
    for i in range(SCALARS):
        fields = {"INPA": f"$(P)c{i}.VAL", "CALC": "A+1"}
        if i % SEGMENT != SEGMENT - 1:
            fields["FLNK"] = f"$(P)c{i + 1}"
        lines.append(_record("calc", f"c{i}", **fields))
    # `all` and `flow` process every chain through ten groups of ten.
    heads = [f"$(P)c{i}" for i in range(0, SCALARS, SEGMENT)]
    groups = [heads[i : i + 10] for i in range(0, len(heads), 10)]
    for g, group in enumerate(groups):
        lines.append(_record("fanout", f"all{g}", **_links(group)))
    every = _links([f"$(P)all{g}" for g in range(len(groups))])
    lines.extend(_counted("fanout", name, **every) for name in ("all", "flow"))
    # `step` processes one chain after the other: first its number, the digits of that, the chain.
    for g, group in enumerate(groups):
        chosen = {"SELM": "Specified", "SELL": "$(P)ones", **_links(group)}
        lines.append(_record("fanout", f"step{g}", **chosen))
    number = {"INPA": "$(P)step_posts.VAL"}
    order = ["$(P)step_posts", "$(P)ones", "$(P)tens", "$(P)choose"]
    steps = _links([f"$(P)step{g}" for g in range(len(groups))])
    lines.append(_record("fanout", "step", **_links(order)))
    lines.append(_record("calc", "step_posts", **number, CALC="A+1"))
    lines.append(_record("calc", "ones", **number, CALC="A%10+1"))
    lines.append(_record("calc", "tens", **number, CALC="FLOOR(A/10)%10+1"))
    lines.append(_record("fanout", "choose", SELM="Specified", SELL="$(P)tens", **steps))
    lines.extend(_record("ao", f"n{i}", VAL=i, PINI="YES") for i in range(STATIC))
    lines.append(_counted("ao", "put"))
    lines.append(_counted("calc", "tick", INPA="$(P)tick.VAL", CALC="A+1"))
    for name, (kind, count) in ARRAYS.items():
        lines.append(_counted("waveform", name, FTVL=kind, NELM=count))
    return "".join(lines)


@final
class Ioc:
    """A soft IOC of its own with the benchmark database, on private loopback ports.

    A UDP socket holds the repeater port, so that every libca finds a repeater "installed" and no
    client spends time on starting one.
    """

    def __init__(self) -> None:
        self._repeater = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._repeater.bind(("", 0))
        size = {"EPICS_CA_MAX_ARRAY_BYTES": str(MAX_ARRAY_BYTES)}
        self._soft = SoftIOC(
            database(),
            repeater_port=int(self._repeater.getsockname()[1]),
            env=size,
            scan_rates=sorted({1.0 / rate for rate in RATES.values()}),
            timeout=60.0,
        )
        self.prefix: str = self._soft["n0"].removesuffix("n0")
        self.environment: dict[str, str] = {**os.environ, **size, "EPICSX_NO_REPEATER": "1"}
        self._soft.apply(self.environment)

    @property
    def pid(self) -> int:
        """The IOC's process."""
        return self._soft.pid

    @contextlib.contextmanager
    def scanned(self, *records: str) -> Iterator[None]:
        """Let the IOC process records by itself, each at its rate in `RATES`, meanwhile."""
        for record in records:
            period = f"{1.0 / RATES[record]:g} second".lstrip("0")
            self._soft.write(f"{record}.SCAN", period)
        try:
            yield
        finally:
            for record in records:
                self._soft.write(f"{record}.SCAN", "Passive")

    def processed(self, record: str) -> float:
        """How often a record has been processed."""
        return float(self._soft.read(f"{record}_posts"))

    def __enter__(self) -> Ioc:
        self._soft.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._soft.kill()
        self._repeater.close()
