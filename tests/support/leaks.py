"""What epicsx's core still has after a test, and who is to blame."""

from __future__ import annotations

import gc
import sys
from types import FrameType, ModuleType
from typing import Any

MOST = 6  # are named


def core_module() -> ModuleType | None:
    """Return epicsx._ca where something has imported it."""
    return sys.modules.get("epicsx._ca")


def lent_now() -> tuple[int, int]:
    """Return how much libca may still mention, and how many blocks of data are alive; after a collection."""
    gc.collect()
    core = core_module()
    return (core.lent(), core.blocks()) if core is not None else (0, 0)


def counts_add_up() -> None:
    """Fail where received is not delivered + merged + dropped + pending, over all channels there have been.

    Updates may go on meanwhile: health() takes each channel's counts at one moment.
    """
    if core_module() is None:
        return
    import epicsx

    for lane in epicsx.health().lanes:
        told = lane.delivered + lane.merged + lane.dropped + lane.pending
        assert lane.received == told, f"{lane.received} received, {told} accounted for: {lane}"
        assert lane.keeper and lane.dispatcher, lane


def alive() -> str:
    """Name the channels, subscriptions and requests that are alive, each with what refers to it."""
    core = core_module()
    if core is None:
        return "the core is not imported"
    requests = sys.modules.get("epicsx._request")
    kinds = (core.Core, core.Subscription, *([requests.Request] if requests else ()))
    found = [each for each in gc.get_objects() if type(each) in kinds or _is_kind(each, kinds)]
    lines = []
    for each in found[:MOST]:
        referrers = [
            _brief(other)
            for other in gc.get_referrers(each)
            if other is not found and not isinstance(other, FrameType)
        ]
        frames = [_brief(other) for other in gc.get_referrers(each) if isinstance(other, FrameType)]
        lines.append(
            f"{each!r} from {', '.join(referrers + frames[1:]) or 'nothing that gc knows'}"
        )
    if len(found) > MOST:
        lines.append(f"and {len(found) - MOST} more")
    return "; ".join(lines) or "no channel and no subscription"


def _is_kind(each: object, kinds: tuple[type, ...]) -> bool:
    # The type and not isinstance(): a dead weak proxy raises when it is asked for its class.
    return issubclass(type(each), kinds)


def _brief(each: Any) -> str:
    if isinstance(each, FrameType):
        return f"frame {each.f_code.co_qualname if hasattr(each.f_code, 'co_qualname') else each.f_code.co_name}"
    if isinstance(each, dict):
        return f"dict of {sorted(map(str, each))[:6]}"
    return f"{type(each).__name__} {repr(each)[:80]}"
