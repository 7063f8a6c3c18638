"""Processes and pools of processes that use Channel Access: `CAProcess`, `CAPool`.

Threads
    Any thread may start a process, also while updates arrive.

Lifetime
    A child that was forked owns nothing of its parent's channels: their registries are emptied at the fork itself, by
    ``os.register_at_fork``, and its first use of Channel Access starts anew. So plain ``multiprocessing.Process`` is as
    safe as `CAProcess`, and a subclass may have a ``run`` of its own. Under ``spawn`` and ``forkserver`` there is
    nothing to inherit. Handles made before a fork (PVs, chids) stay dead in the child: make them there.
"""

from __future__ import annotations

import multiprocessing as mp
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from typing import Any

from . import ca as ca
from .ca import clear_cache as clear_cache

__all__ = ["CAPool", "CAProcess", "clear_ca_cache"]

clear_ca_cache = clear_cache
"""Clear all channels of this process, and go on in a new context."""


class CAProcess(mp.Process):
    """A ``multiprocessing.Process`` whose target may use Channel Access, under every start method."""


_MADE_BY: dict[type[BaseProcess], type[BaseProcess]] = {mp.Process: CAProcess}
"""The CA process for each of multiprocessing's own process classes."""


def _of_start_method(method: str) -> type[BaseProcess]:
    base: type[BaseProcess] = getattr(mp.get_context(method), "Process")  # noqa: B009
    doc = f"A `CAProcess` that is started by the method {method!r}."
    made = type(f"CA{base.__name__}", (base, CAProcess), {"__module__": __name__, "__doc__": doc})
    globals()[made.__name__] = made  # `spawn` pickles a process with its class, by name
    return made


for _method in mp.get_all_start_methods():
    _made = _of_start_method(_method)
    _MADE_BY[_made.__bases__[0]] = _made


class CAPool(Pool):
    """A ``multiprocessing.Pool`` of `CAProcess`, with all of its arguments, ``context`` included."""

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """A worker for a context; one with a process class of its own keeps it."""
        return _MADE_BY.get(ctx.Process, ctx.Process)(*args, **kwds)
