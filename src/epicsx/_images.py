"""Images: the frames of an area detector from plain Channel Access, as pictures of the detector's own dtype.

Threads
    Frames are received, joined with what belongs to them and decoded in threads of `_imagefeed`. Any thread may read,
    each image goes to one reader; a coroutine reads the same object by ``async for``. A picture is put in order in the
    thread that reads it, which usually makes a view.

Lifetime
    An image stream ends by ``close()``, by the end of its ``with`` block or with its last reference. Images that a user
    holds outlive it.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from ._imagefeed import Feed
from ._imageparts import Options
from ._ndarray import Array, BayerPattern, ColorMode, DataType, Roi
from ._stream import OVERFLOWS
from .errors import BadTypeError, BadValueError, CAError, CATimeoutError, timed_out

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._imageparts import Entry
    from .counts import Ledger

__all__ = ["Image", "ImageStream", "images"]


@final
class Image:
    """One frame of an area detector: ``data``, and what its PVs said of it."""

    __slots__ = (
        "bayer",
        "changed",
        "codec",
        "color_mode",
        "counter",
        "data",
        "data_type",
        "gap",
        "index",
        "lost_before",
        "severity",
        "status",
        "timestamp_ns",
        "unique_id",
    )

    data: Array
    """(y, x), or (y, x, 3) for the RGB modes, of the detector's dtype; a view of what was received where that has the
    same bits. It may be kept: nothing overwrites it."""
    timestamp_ns: int
    """The server's stamp of the array: nanoseconds since 1970, UTC."""
    status: int
    """The alarm status of the array (`epicsx.Status`)."""
    severity: int
    """The alarm severity of the array (`epicsx.Severity`)."""
    index: int
    """The frame's number among all that the stream received, from 0."""
    lost_before: int
    """How many frames are missing between the image before and this one, by their ids; where those do not tell, as many
    as are known to have been dropped, with one for a lost connection."""
    gap: bool
    """Whether the connection was lost before this image."""
    unique_id: int | None
    """UniqueId_RBV of this frame; None where the driver has no unique ids, or it did not come."""
    counter: int | None
    """ArrayCounter_RBV of this frame, where the driver has no unique ids."""
    color_mode: ColorMode
    """ColorMode_RBV: how the frame was laid out."""
    data_type: DataType
    """DataType_RBV: the detector's type."""
    bayer: BayerPattern | None
    """The pattern of the first pixels of `data`, for a Bayer picture; else None."""
    codec: str
    """By what the frame was compressed on its way, as Codec_RBV says it; '' where it was not."""
    changed: bool
    """Whether shape, dtype, colour mode, pattern or codec differ from the image's that was handed out before."""

    def __init__(self, **facts: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, facts[name])

    @property
    def timestamp(self) -> float:
        """The server's stamp of the array: seconds since 1970, UTC."""
        return self.timestamp_ns * 1e-9

    @property
    def shape(self) -> tuple[int, ...]:
        """The picture's shape."""
        return self.data.shape

    @property
    def dtype(self) -> Any:
        """The picture's dtype."""
        return self.data.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        found = self.data
        if dtype is not None and found.dtype != dtype:
            if copy is False:
                raise ValueError(f"an image of {found.dtype} is no {dtype} without a copy")
            return found.astype(dtype)
        return found.copy() if copy else found

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: bool | None = None,
    ) -> Any:
        """The picture by DLPack, for whoever takes arrays of any library; CPU memory, shared unless `copy`."""
        data = self.data.copy() if copy else self.data
        return data.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self.data.__dlpack_device__()
        return int(kind), int(number)

    def __repr__(self) -> str:
        number = self.index if self.unique_id is None else self.unique_id
        shape = " x ".join(str(each) for each in self.data.shape)
        lost = f", {self.lost_before} lost before" if self.lost_before else ""
        return f"<Image {number}: {shape} {self.color_mode.name} {self.data.dtype}{lost}>"

    def _kind(self) -> tuple[Any, ...]:
        return self.data.shape, self.data.dtype, self.color_mode, self.bayer, self.codec


class ImageStream:
    """Images of an area detector, in order, each loss counted: iterate over it, ``read``, or take the ``latest``.

    Made by `epicsx.images`, which tells the parameters.
    """

    def __init__(self, options: Options) -> None:
        self._feed = Feed(options)
        self._newest: Image | None = None
        waits = options.roi_plugin is not None or options.coherent is True
        if waits and asyncio._get_running_loop() is None:
            try:
                self.connect(options.timeout)
            except BaseException:
                self.close()
                raise

    # ---- facts

    @property
    def prefix(self) -> str:
        """What the names of the plugin's PVs begin with."""
        return self._feed.options.prefix

    @property
    def name(self) -> str:
        """The array's PV."""
        return self._feed.options.name

    @property
    def connected(self) -> bool:
        """Whether the array and the PVs that tell how to read it are connected now."""
        return self._feed.connected

    @property
    def coherent(self) -> bool | None:
        """Whether an array and its stamp are kept together by the server's ``ts`` filter; None until that is known."""
        stream = self._feed.stream
        if stream is None:
            return None
        return self._feed._longer if self._feed.band is not None else stream.coherent

    @property
    def roi_by(self) -> Literal["server", "plugin", "client"] | None:
        """Who cuts the region out now: the server's channel filter, NDPluginROI, this client; None without a region."""
        options = self._feed.options
        if options.roi is None:
            return None
        if self._feed._plugin is not None:
            return "plugin"
        return "client" if self._feed.band is None else "server"

    @property
    def ledger(self) -> Ledger:
        """One consistent copy of the counts: received == delivered + merged + dropped + pending.

        ``dropped`` has those that were not matched or could not be read. ``inferred_lost`` counts the frames that never
        came here, by gaps in UniqueId_RBV (or in ArrayCounter_RBV); None before the first id.
        """
        return self._feed.ledger()

    @property
    def unmatched(self) -> int:
        """Frames that were dropped because what is known of them did not fit together: no wrong picture was made."""
        return self._feed.unmatched

    @property
    def problem(self) -> str:
        """Why the last frame was not matched; '' while all were."""
        return self._feed.problem

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._feed.closed

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "not connected"
        return f"<ImageStream {self.prefix!r}, {state}, {self.ledger.received} received>"

    def connect(self, timeout: float | None = 5.0) -> Self:
        """The stream itself, all its PVs connected. Not needed before reading.

        Raises
        ------
        CATimeoutError
            Not within `timeout` seconds, and which PVs are missing; None waits for ever.
        BadValueError
            The image plugin does not get its frames from the plugin that `roi_plugin` names.
        """
        self._feed.connect(_limit(timeout))
        return self

    # ---- reading

    def _image(self, entry: Entry) -> Image:
        feed = self._feed
        data = feed.data_of(entry)
        mode, frame = feed.final_mode(entry), entry.piece.frame
        found = Image(
            data=data,
            timestamp_ns=frame.timestamp_ns,
            status=frame.status,
            severity=frame.severity,
            index=entry.piece.index,
            lost_before=entry.lost,
            gap=entry.gap,
            unique_id=entry.number if entry.by == "unique_id" else None,
            counter=entry.number if entry.by == "counter" else None,
            color_mode=mode.color_mode,
            data_type=mode.data_type,
            bayer=mode.bayer if mode.color_mode is ColorMode.Bayer else None,
            codec=mode.codec,
            changed=False,
        )
        with feed.lock:
            before, self._newest = self._newest, found
        found.changed = before is not None and before._kind() != found._kind()
        return found

    def read(self, timeout: float | None = None) -> Image:
        """The next image, waiting for it at most `timeout` seconds; None waits for ever.

        Raises
        ------
        CATimeoutError
            Nothing came in time; the message says why, if that is known.
        BadTypeError, BadValueError
            A frame came that is no picture, that cannot be decoded, or of which the waveform's type cut something off.
            Raised in its place; the stream goes on.
        OverrunError
            With ``overflow='error'``: frames had to be refused. Raised once; the stream then goes on.
        CAError
            The stream has been closed.
        """
        timeout = _limit(timeout)
        end = math.inf if timeout is None else monotonic() + timeout
        while True:
            entry = self._feed.take()
            if entry is not None:
                return self._image(entry)
            left = end - monotonic()
            if left <= 0:
                raise self._timed_out(timeout)
            self._feed.wait(min(left, 1.0))

    def _timed_out(self, timeout: float | None) -> CATimeoutError:
        return timed_out(self.name, "images", timeout or 0.0, self._feed.why())

    def latest(self) -> Image | None:
        """The newest image at once: one that waits, the older ones merged, else the last that was handed out.

        None before the first.
        """
        entry = self._feed.newest()
        return self._newest if entry is None else self._image(entry)

    def __iter__(self) -> Iterator[Image]:
        return self

    def __next__(self) -> Image:
        try:
            return self.read()
        except CAError:
            if self.closed:
                raise StopIteration from None
            raise

    # ---- the same from a coroutine

    async def aread(self, timeout: float | None = None) -> Image:
        """As ``read``, from a coroutine: the event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        timeout = _limit(timeout)
        end = math.inf if timeout is None else monotonic() + timeout
        while True:
            entry = self._feed.take()
            if entry is not None:
                return self._image(entry)
            left = end - monotonic()
            if left <= 0:
                raise self._timed_out(timeout)
            future = self._feed.watch(loop)
            if future is not None:
                try:
                    await asyncio.wait_for(future, min(left, 1.0))
                except (asyncio.TimeoutError, TimeoutError):
                    pass

    def __aiter__(self) -> AsyncIterator[Image]:
        return self

    async def __anext__(self) -> Image:
        try:
            return await self.aread()
        except CAError:
            if self.closed:
                raise StopAsyncIteration from None
            raise

    # ---- end

    def close(self) -> None:
        """End the stream: what waits is dropped and counted, iteration ends, held images stay. Idempotent."""
        self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing() and hasattr(self, "_feed"):
            self.close()


def _seconds(what: str, given: Any) -> float:
    """A time as it was given, which is no number or NaN in vain."""
    if isinstance(given, bool) or not isinstance(given, (int, float, np.integer, np.floating)):
        raise BadTypeError(f"{what} is a number of seconds, not {given!r}")
    try:
        found = float(given)
    except OverflowError:
        found = math.inf if given > 0 else -math.inf
    if math.isnan(found):
        raise BadValueError(f"{what} is a number of seconds, not {given!r}")
    return found


def _limit(timeout: Any) -> float | None:
    """A time-out as it was given, checked; None is without end."""
    return None if timeout is None else _seconds("timeout", timeout)


def images(
    prefix: str,
    *,
    roi: Iterable[int | None] | None = None,
    roi_plugin: str | None = None,
    depth: int = 16,
    overflow: Literal["drop_oldest", "drop_newest", "error"] = "drop_oldest",
    coherent: bool | Literal["auto"] = "auto",
    lane: Literal["auto", "default", "bulk"] = "auto",
    array: str = "ArrayData",
    patience: float = 0.5,
    timeout: float | None = 5.0,
    workers: int | None = None,
) -> ImageStream:
    """An `ImageStream` of an area detector's frames, from the PVs of its NDPluginStdArrays.

    Each image is the array joined with Dimensions_RBV, ColorMode_RBV, DataType_RBV and UniqueId_RBV of the same frame.
    A frame for which that is not sure is dropped and counted (`ImageStream.unmatched`).

    Parameters
    ----------
    prefix : str
        What the plugin's PVs begin with, such as ``'13SIM1:image1:'``.
    roi : (y0, y1) or (y0, y1, x0, x1)
        The region wanted, in pixels, ends excluded, None for the far edge. The server's channel filter cuts the rows
        out where they lie together, so that only they travel; else, and for the columns, this client does.
    roi_plugin : str
        The prefix of an NDPluginROI from which the image plugin has its frames, such as ``'13SIM1:ROI1:'``: it is told
        to cut out `roi`, again whenever its IOC comes back, and left so at the end, for all clients. While another
        client has moved the region, frames are unmatched. ``'auto'`` takes the one that the image plugin's NDArrayPort
        names, if it is called as areaDetector's own databases call it (the detector's prefix, the port, a colon) and
        answers within 2 seconds; else it is as without `roi_plugin`. ``ImageStream.roi_by`` tells.
    depth : int
        How many images may wait for the reader. As many more may be on their way to it.
    overflow : 'drop_oldest', 'drop_newest' or 'error'
        What happens when `depth` images wait and one more comes, as for `epicsx.stream`.
    coherent : bool or 'auto'
        As for `epicsx.stream`: whether the server keeps array and stamp together. Where it does not, a client that lags
        may get the data of a later frame under the id of an earlier one.
    lane : 'auto', 'default' or 'bulk'
        As for `epicsx.stream`; the PVs beside the array come over the same circuit.
    array : str
        The array's name behind `prefix`.
    patience : float, seconds
        How long a frame waits for the PVs that belong to it; up to 2 s longer where a callback keeps these back.
    timeout : float, seconds
        With `roi_plugin` or ``coherent=True``, and not within a running event loop: how long to wait here until all is
        connected and set. None waits for ever.
    workers : int
        Threads that decode compressed frames; by default one for each processor, at most 8.

    Raises
    ------
    BadTypeError, BadValueError
        For options that cannot be.
    CATimeoutError, ServerError
        With `roi_plugin` or ``coherent=True``: what is asked for is not there.
    """
    for what, text in (("a prefix", prefix), ("the array's name", array)):
        if not isinstance(text, str):
            raise BadTypeError(f"{what} is a str, not {type(text).__name__}")
        if not text or "\0" in text:
            raise BadValueError(f"{what} is a text without NUL, not {text!r}")
    if roi_plugin is not None:
        if not isinstance(roi_plugin, str):
            raise BadTypeError(
                f"roi_plugin is the prefix of an NDPluginROI, not {type(roi_plugin).__name__}"
            )
        if roi is None:
            raise BadValueError("roi_plugin= needs the region that it shall cut out: roi=")
    for what, number in (("depth", depth), ("workers", workers)):
        if number is None and what == "workers":
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise BadValueError(f"{what} is a whole number of at least 1, not {number!r}")
    # Texts and True by what they are: 1 == True, and comparing an array gives an array.
    given: dict[str, Any] = {"overflow": overflow, "coherent": coherent, "lane": lane}
    word = {key: each if isinstance(each, str) else "" for key, each in given.items()}
    if word["overflow"] not in OVERFLOWS:
        raise BadValueError(f"overflow is one of {OVERFLOWS}, not {overflow!r}")
    if word["coherent"] != "auto" and not isinstance(coherent, bool):
        raise BadValueError(f"coherent is True, False or 'auto', not {coherent!r}")
    if word["lane"] not in ("auto", "default", "bulk"):
        raise BadValueError(f"lane is 'auto', 'default' or 'bulk', not {lane!r}")
    if not 0 < _seconds("patience", patience) < math.inf:
        raise BadValueError(f"patience is a finite number of seconds above 0, not {patience!r}")
    limit = _limit(timeout)
    return ImageStream(
        Options(
            *(prefix, array, None if roi is None else Roi.of(roi), roi_plugin, depth, overflow),
            *(coherent, lane, float(patience), limit, workers),
        )
    )
