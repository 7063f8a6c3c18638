"""How Channel Access is doing in this process, as one copy of all its numbers.

Threads
    ``health`` may be called from any thread, as often as one likes: it looks at each channel once, 64 at a time, and
    holds up nobody. It starts nothing: before the first use of Channel Access there are no lanes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from . import _ca, _dispatch
from ._linkage import MODE

__all__ = ["Health", "LaneHealth", "health"]


def _told(help: str, kind: str = "gauge") -> Any:
    """A number with what it means: its line of ``# HELP``, and whether it only grows ("counter")."""
    return field(metadata={"help": help, "kind": kind})


@dataclass(frozen=True, kw_only=True)
class LaneHealth:
    """One lane's numbers: ``received == delivered + merged + dropped + pending``. Counters never fall.

    The counts are those of all subscriptions there have been, also of channels that are closed.
    """

    name: str
    """'default', or 'bulk' for streams and large arrays."""
    received: int = _told("Updates that libca handed over", "counter")
    delivered: int = _told(
        "Updates for which a callback was called, or that became the newest value", "counter"
    )
    merged: int = _told("Updates replaced by a newer one while they waited", "counter")
    dropped: int = _told(
        "Updates discarded because a bound was reached or their handle was closed", "counter"
    )
    pending: int = _told("Updates that wait")
    queue_bytes: int = _told("Bytes of the updates that wait for callbacks")
    notes: int = _told("Notes of all kinds that wait for the dispatcher")
    waited: float = _told("Seconds that the oldest of what waits has waited")
    longest_wait: float = _told("Seconds that an update has waited at most, seen once per batch")
    callback_seconds: float = _told("Seconds for which the callback that runs now has run")
    longest_callback: float = _told("Seconds that a callback has taken at most")
    slowest: str = ""
    """The PV whose callback that was."""
    channels: int = _told("Channels")
    connected: int = _told("Channels that are connected")
    never_connected: int = _told("Channels for which no server has ever answered")
    subscriptions: int = _told("Subscriptions that the servers serve")
    circuits: int = _told("Connections to servers")
    disconnects: int = _told("How often a channel has lost its connection", "counter")
    unresponsive: int = _told("How often a channel was lost on a connection that stands", "counter")
    dead_circuits: int = _told(
        "How often an unresponsive server's connection was given up", "counter"
    )
    rejected_puts: int = _told("Puts without wait that servers refused", "counter")
    server_errors: int = _told("Errors that servers reported about a channel", "counter")
    decode_errors: int = _told("Updates refused because type or count could not be true", "counter")
    callback_errors: int = _told("Callbacks that raised", "counter")
    lost_logs: int = _told("Messages of libca that found no room on the way to the log", "counter")
    clock_steps: int = _told("How often the system's clock was seen to be set", "counter")
    clock_stepped: float = _told("Seconds by which it was set in all")
    keeper: bool = _told("Whether the native thread that serves the lane is alive")
    dispatcher: bool = _told("Whether the thread that calls callbacks is alive")

    def __str__(self) -> str:
        lines = [
            (
                f"lane {self.name}: {self.channels} channels, {self.connected} connected, "
                f"{self.never_connected} never; {self.subscriptions} subscriptions, "
                f"{self.circuits} circuits"
            ),
            (
                f"  updates: {self.received} received = {self.delivered} delivered + "
                f"{self.merged} merged + {self.dropped} dropped + {self.pending} pending"
            ),
            (
                f"  queue: {self.queue_bytes} bytes, the oldest waits {self.waited:.3f} s "
                f"(at most {self.longest_wait:.3f} s)"
            ),
            f"  callbacks: the longest took {self.longest_callback:.3f} s"
            + (f" ({self.slowest!r})" if self.slowest else "")
            + (f", one runs since {self.callback_seconds:.3f} s" if self.callback_seconds else ""),
        ]
        troubles = [
            f"{value} {what}"
            for value, what in (
                (self.disconnects, "disconnects"),
                (self.unresponsive, "of them unresponsive"),
                (self.dead_circuits, "connections given up"),
                (self.rejected_puts, "rejected puts"),
                (self.server_errors, "errors from servers"),
                (self.decode_errors, "decode errors"),
                (self.callback_errors, "callback errors"),
                (self.lost_logs, "lost messages"),
            )
            if value
        ]
        if self.clock_steps:
            troubles.append(
                f"the clock was set {self.clock_steps} times, {self.clock_stepped:+.1f} s"
            )
        if not self.keeper:
            troubles.append("the keeper has ended")
        if not self.dispatcher:
            troubles.append("no dispatcher")
        return "\n".join([*lines, "  " + (", ".join(troubles) or "no trouble")])


@dataclass(frozen=True, kw_only=True)
class Health:
    """How Channel Access is doing in this process: what ``epicsx.health()`` gives. `str` of it is for people.

    Its counts are the sums over the lanes; see `LaneHealth` for what each means.
    """

    mode: str
    """Which libca is in use, as ``epicsx.build_info()`` says."""
    lent: int = _told("Channels, subscriptions and requests that libca may still mention")
    blocks: int = _told("Blocks of data held by queues, newest values, samples and arrays")
    pool_bytes: int = _told("Bytes kept for the blocks to come")
    lanes: tuple[LaneHealth, ...] = ()
    """Each lane that runs; none before the first use of Channel Access."""

    def __getattr__(self, name: str) -> int:
        if name in _SUMMED:
            return sum(getattr(lane, name) for lane in self.lanes)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_SUMMED})

    @property
    def clock_steps(self) -> int:
        """How often the system's clock was set, which a stock libca's timers follow: 0 is as it should be."""
        return max((lane.clock_steps for lane in self.lanes), default=0)

    @property
    def clock_stepped(self) -> float:
        """Seconds by which it was set in all; after a step back libca searches and connects later by as much."""
        return max((lane.clock_stepped for lane in self.lanes), key=abs, default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists, numbers and texts, as JSON can have them."""
        return {**asdict(self), "lanes": [asdict(lane) for lane in self.lanes]}

    def to_prometheus(self) -> str:
        """The numbers in Prometheus' text format, for a scrape or for node_exporter's textfile collector.

        Lanes are a label; the counters' names end in ``_total``. Times are seconds.
        """
        texts = [
            *_family("info", "Which libca epicsx uses", "gauge", [({"mode": self.mode}, 1)]),
        ]
        for name, told in _told_fields(Health):
            texts += _family(name, told["help"], told["kind"], [({}, getattr(self, name))])
        for name, told in _told_fields(LaneHealth):
            found = [({"lane": lane.name}, getattr(lane, name)) for lane in self.lanes]
            if found:
                texts += _family(_METRICS.get(name, name), told["help"], told["kind"], found)
        return "\n".join(texts) + "\n"

    def __str__(self) -> str:
        own = (
            f"Channel Access ({self.mode} libca): {self.lent} lent, {self.blocks} blocks, "
            f"{self.pool_bytes} bytes in the pool"
        )
        return "\n".join(
            [own, *(str(lane) for lane in self.lanes)] if self.lanes else [own + "; not in use"]
        )


def _told_fields(kind: type[Health | LaneHealth]) -> list[tuple[str, Any]]:
    return [(f.name, f.metadata) for f in fields(kind) if f.metadata]


_SUMMED = frozenset(
    f.name for f in fields(LaneHealth) if f.type == "int" and f.metadata and f.name != "clock_steps"
)

_METRICS = {
    "received": "updates_received",
    "delivered": "updates_delivered",
    "merged": "updates_merged",
    "dropped": "updates_dropped",
    "pending": "updates_pending",
    "waited": "waited_seconds",
    "longest_wait": "longest_wait_seconds",
    "longest_callback": "longest_callback_seconds",
    "clock_stepped": "clock_stepped_seconds",
    "connected": "channels_connected",
    "never_connected": "channels_never_connected",
    "keeper": "keeper_alive",
    "dispatcher": "dispatcher_alive",
}
"""Names of metrics that say more than those of the attributes."""


def _family(
    name: str, help: str, kind: str, found: list[tuple[dict[str, str], float]]
) -> list[str]:
    """One metric: the lines of the text exposition format, version 0.0.4."""
    full = f"epicsx_{name}" + ("_total" if kind == "counter" else "")
    lines = [f"# HELP {full} {_escaped(help)}", f"# TYPE {full} {kind}"]
    for labels, value in found:
        shown = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
        lines.append(f"{full}{{{shown}}} {_number(value)}" if shown else f"{full} {_number(value)}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _number(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))


def health() -> Health:
    """How Channel Access is doing in this process: counts, queues, threads, connections, the clock; a `Health`.

    One consistent copy: each channel's counts add up, and so do their sums, while updates go on. It costs about a
    microsecond for each channel.
    """
    lanes = []
    for context in _ca.lanes():
        numbers = context.health()
        if numbers:  # else of a parent process
            lanes.append(
                LaneHealth(name=context.name, dispatcher=_dispatch.alive(context), **numbers)
            )
    return Health(
        mode=MODE,
        lent=_ca.lent(),
        blocks=_ca.blocks(),
        pool_bytes=_ca.pool_bytes(),
        lanes=tuple(lanes),
    )
