"""What a PV's monitor has told, and a dispatcher that is kept busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from support.waiting import wait_until

if TYPE_CHECKING:
    from epicsx import PV, Sample


def heard(pv: PV) -> None:
    """Wait for the monitor's first event: only from then on a new value of the PV is that of a later event.

    A value alone is no sign of it: before it, `.value` asks the server, and the first event may be older than the
    answer.
    """
    wait_until(lambda: pv._face is not None and pv._face.stats.received)


@contextmanager
def dispatcher_held(name: str, lane: Literal["auto", "bulk"] = "auto") -> Iterator[None]:
    """Keep a lane's dispatcher in a callback of that PV: in the block it tells nobody anything and has no other PV."""
    from epicsx import Channel

    busy, go_on = threading.Event(), threading.Event()

    def hold(sample: Sample) -> None:
        busy.set()
        assert go_on.wait(40.0)

    with Channel(name, lane=lane) as channel, channel.subscribe(hold):
        assert busy.wait(20.0)
        try:
            yield
        finally:
            go_on.set()
