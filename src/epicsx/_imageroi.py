"""NDPluginROI as `epicsx.images` uses it: told what to cut out, in waits that notice the end of whoever waits.

Threads
    That of the image feed alone; `close` may be called from any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any

from ._channel import Channel
from ._ndarray import Roi
from .errors import BadValueError, CAError, CATimeoutError

__all__ = ["RoiPlugin", "find_plugin"]

_SLICE = 0.25
"""Seconds after which a wait looks whether it is still wanted."""
_FAR_EDGE = 1_000_000
"""A size that NDPluginROI cuts to the picture's."""


_FIND = 2.0
"""Seconds for which an NDPluginROI is looked for that may not be there."""


def find_plugin(image: str, ended: Callable[[], bool]) -> str | None:
    """The prefix of the NDPluginROI that an image plugin has its frames from, None where there is none.

    By the name that areaDetector's own databases give it: the detector's prefix, then the port's name. What is found
    has to say that it is an NDPluginROI of that port (NDPluginBase.template, PluginType_RBV and PortName_RBV).
    """
    end = monotonic() + _FIND
    port = _read([image + "NDArrayPort_RBV"], end, ended)
    if port is None:
        return None
    head, colon, _ = image.removesuffix(":").rpartition(":")
    prefix = f"{head}{colon}{port[0]}:"
    told = _read([prefix + "PluginType_RBV", prefix + "PortName_RBV"], end, ended)
    return prefix if told == ["NDPluginROI", *port] else None


def _read(names: list[str], end: float, ended: Callable[[], bool]) -> list[str] | None:
    """The texts of some PVs; None when they do not all come in time."""
    channels = [Channel(name) for name in names]
    try:
        if not all(_connected(channel, ended, end) for channel in channels):
            return None
        asked: list[Any] = [c.get_async(dtype=str, timeout=_FIND) for c in channels]
        return [str(request.result().value) for request in asked]
    except CAError:
        return None
    finally:
        for channel in channels:
            channel.close()


def _connected(channel: Channel, ended: Callable[[], bool], end: float = math.inf) -> bool:
    """Whether it is connected by then, waited for in slices; False when it has `ended` before."""
    while not channel.connected:
        left = end - monotonic()
        if left <= 0 or ended():
            return False
        try:
            channel.connect(min(left, _SLICE))
        except CATimeoutError:
            pass
    return True


class RoiPlugin:
    """One NDPluginROI, and the region that it is to cut out for an image plugin.

    Parameters
    ----------
    plugin, image : str
        The prefixes of NDPluginROI and of the image plugin.
    roi : Roi
    ended : callable() -> bool
        Whether nobody wants it any more.
    """

    def __init__(self, plugin: str, image: str, roi: Roi, ended: Callable[[], bool]) -> None:
        self.prefix, self._image, self._ended = plugin, image, ended
        self.corner = {"roi_x": roi.x0, "roi_y": roi.y0}
        self._values = {
            "MinX": roi.x0,
            "SizeX": _FAR_EDGE if roi.x1 is None else roi.x1 - roi.x0,
            "MinY": roi.y0,
            "SizeY": _FAR_EDGE if roi.y1 is None else roi.y1 - roi.y0,
            "EnableX": 1,
            "EnableY": 1,
        }
        # Kept, so that a wait that is taken up again does not begin its search anew.
        self._ports = [Channel(plugin + "PortName_RBV"), Channel(image + "NDArrayPort_RBV")]
        self._puts = [Channel(plugin + key) for key in self._values]

    def tell(self) -> bool:
        """Have it cut, and see that its frames are those that the array is of; False when it has `ended`.

        Raises
        ------
        BadValueError
            The image plugin has its frames from another plugin.
        DisconnectedError, AccessError, PutError, ServerError
            What the server answered, or that it went away.
        """
        if not all(_connected(channel, self._ended) for channel in (*self._ports, *self._puts)):
            return False
        asked = [channel.get_async(dtype=str, timeout=None) for channel in self._ports]
        if not self._done(asked):
            return False
        port, source = (self._text(request) for request in asked)
        if port != source:
            raise BadValueError(
                f"'{self._image}' has its frames from {source!r}, not from '{self.prefix}', which is {port!r}: "
                f"put {port!r} to '{self._image}NDArrayPort'",
                name=self._ports[1].name,
            )
        values = self._values.values()
        put = [c.put_async(v, timeout=None) for c, v in zip(self._puts, values, strict=True)]
        if not self._done(put):
            return False
        for request in put:
            request.result(0)
        return True

    def _done(self, requests: list[Any]) -> bool:
        """Wait until all have their answers."""
        for request in requests:
            while not request.done():
                if self._ended():
                    return False
                try:
                    request.exception(_SLICE)
                except CATimeoutError:
                    pass
        return True

    @staticmethod
    def _text(request: Any) -> str:
        return str(request.result(0).value)

    def close(self) -> None:
        """Let go of its channels. What it was told stays."""
        for channel in (*self._ports, *self._puts):
            channel.close()
