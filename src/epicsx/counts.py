"""The counts that epicsx keeps, one vocabulary everywhere: received == delivered + merged + dropped + pending.

A leaf: imports nothing of ours.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ChannelStats", "Counts", "Ledger", "PVStats"]


class Counts(NamedTuple):
    """One consistent copy of a subscription's counts: ``received == delivered + merged + dropped + pending``."""

    received: int
    """Updates that libca handed over."""
    delivered: int
    """Updates for which the callback was called, or that became the newest value where nobody listens."""
    merged: int
    """Updates replaced by a newer one while they waited."""
    dropped: int
    """Updates discarded because a bound was reached, or because the handle was closed first."""
    pending: int
    """Updates that wait."""


class ChannelStats(NamedTuple):
    """One consistent copy of a channel's counts, over all its subscriptions, of every handle."""

    received: int
    delivered: int
    merged: int
    dropped: int
    pending: int
    disconnects: int
    """How often the connection was lost."""
    rejected_puts: int
    """Puts without wait that the server refused."""
    decode_errors: int
    """Updates refused because type or count could not be true; they are not among the received ones."""
    unresponsive: int
    """Those of the disconnects where the connection stood, and the server answered nothing."""
    callback_errors: int
    """Callbacks that raised: of values, connections, access rights and requests."""
    queue_bytes: int
    """Bytes of the updates that wait for a callback."""
    waited: float
    """Seconds for which the oldest of them has waited, within some milliseconds; 0.0 where none waits."""


class Ledger(NamedTuple):
    """One consistent copy of a stream's counts of frames: ``received == delivered + merged + dropped + pending``."""

    received: int
    """Frames that libca handed over."""
    delivered: int
    """Frames that were handed out, singly or in blocks; of a recorder: rows written."""
    merged: int
    """Frames passed over by ``latest()``, and those of which a reducer wanted nothing."""
    dropped: int
    """Frames discarded because ``depth`` were waiting, or because the stream was closed first."""
    pending: int
    """Frames that wait."""
    repeated: int
    """Frames with the very stamp of the one before, as a server sends one again after a reconnect."""
    disconnects: int
    """How often the connection was lost."""
    bytes: int
    """Bytes of all frames received."""
    inferred_lost: int | None
    """Frames missing by a counter in the data; None where Channel Access cannot know."""


class PVStats(NamedTuple):
    """One consistent copy of a PV's counts, over all monitors it has had."""

    received: int
    delivered: int
    merged: int
    dropped: int
    pending: int
    callback_errors: int
    """Callbacks of this PV that raised."""
    disconnects: int
    """How often the connection of its channel was lost."""
    rejected_puts: int
    """Puts without wait to its channel that the server refused."""
    decode_errors: int
    """Updates of its channel refused because type or count could not be true."""
    unresponsive: int
    """Those of the disconnects where the connection stood, and the server answered nothing."""
    queue_bytes: int
    """Bytes of its updates that wait for the callbacks."""
    waited: float
    """Seconds for which the oldest of them has waited, within some milliseconds; 0.0 where none waits."""
