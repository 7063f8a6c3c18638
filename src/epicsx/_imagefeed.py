"""What feeds an `ImageStream`: an area detector's array and the PVs beside it, joined, counted and waiting.

Threads
    A feed has one thread, which takes the frames from a `Stream` as they come (`_run`). The PVs beside the array are
    heard in the lane of the frames, on its dispatcher (`_news`). Both hold `lock` while they join, which takes some
    microseconds. Compressed frames are decoded by a pool of threads, outside the GIL. Any thread may take what is
    ready.

Lifetime
    A feed ends by ``close()``, which its `ImageStream` calls at its own end: until then its thread keeps it alive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _ca
from ._channel import Channel
from ._filters import filter_name
from ._imagejoin import FIELDS, UNTOLD, Joined, Joiner
from ._imageparts import Entry, Options, Piece, moved, text_of
from ._imageroi import RoiPlugin, find_plugin
from ._ndarray import Array, Mode, Roi, picture
from ._streams import COHERENT_BYTES, PROBE_SECONDS, Stream, add_ledgers
from .counts import Ledger
from .enums import DBE, DBR
from .errors import CAError, CATimeoutError, DisconnectedError, OverrunError, timed_out

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._sample import Sample
    from ._stream import Frame

__all__ = ["Feed"]

log = logging.getLogger("epicsx")

_BESIDE = {
    "dims": "Dimensions_RBV",
    "color_mode": "ColorMode_RBV",
    "data_type": "DataType_RBV",
    "unique_id": "UniqueId_RBV",
    "counter": "ArrayCounter_RBV",
    "bayer": "BayerPattern_RBV",
    "codec": "Codec_RBV",
    "compressed_size": "CompressedSize_RBV",
}
_NEEDED = ("dims", "color_mode", "data_type")
_DEFAULTS: dict[str, Any] = {"bayer": 0, "codec": "", "compressed_size": 0}
"""For servers that have no such PV: Codec_RBV came with ADCore 3.3."""
_GRACE = 1.0
"""Seconds that the PVs which a server may lack have, once those that all have are known."""
_LONGEST = 0.25
"""Seconds after which the thread looks around though nothing came."""
_QUIET = 0.03
"""Seconds without news after which the frame that a server had at the beginning is known to be that of the PVs."""
_RECUTS, _RECUTS_SECONDS = 5, 10.0
"""So many changes of mode in so many seconds, and rows are cut out on the client."""
_SEEN = 5.0
"""Seconds within which what the ROI plugin was told is heard of."""
_AGAIN = 1.0
"""Seconds after which the ROI plugin is told again, when it refused."""
_LOOK = 0.005
"""Seconds between looks at whether the news of a frame that has waited long enough have been delivered."""
_MOMENT = 0.1
"""Seconds for which `close` waits for the thread, which has usually ended long before."""


class _PatientStream(Stream):
    """A stream whose making does not wait for the server's answer, whatever is asked for: its reader does."""

    def connect(self, timeout: float | None = 5.0) -> Self:
        return self


class _Source:
    """One PV beside the array."""

    def __init__(self, feed: Feed, key: str, name: str, text: bool = False) -> None:
        self.key = key
        self.name = name
        self.known = False
        self._feed = feed
        self._core = _ca.core(name, 0, _ca.context(feed.lane))
        self._core.listen(self)
        self._heard = 0  # updates
        self._subscription: _ca.Subscription | None = None
        kind = int(DBR.TIME_STRING) if text else -1
        self._subscription = self._core.subscribe(
            self._told, DBE.VALUE | DBE.ALARM, 0, "all", kind, feed.lane
        )
        self._subscription.time_arrivals()

    def _told(self, sample: Sample) -> None:
        made = self._subscription
        came = time.time_ns() - (0 if made is None else made.age_ns)
        with self._feed.lock:  # who asks whether all has been told finds it heard, too
            self._heard = self._heard + 1 if made is None else made.stats.delivered
            self._feed._news(self, sample.value, sample.timestamp_ns, came)

    @property
    def caught_up(self) -> bool:
        """Whether all that has come has been told: the dispatcher may be held up by a callback, or by the GIL."""
        if self._subscription is None:
            return False
        stats = self._subscription.stats  # what the dispatcher takes counts as delivered
        return stats.pending == 0 and stats.delivered == self._heard

    def _on_core_connection(self, connected: bool, native_type: int) -> None:
        if not connected:
            self._feed._source_lost(self)

    def _on_core_access(self, read: bool, write: bool) -> None:
        pass

    def close(self) -> None:
        self._core.unlisten(self)
        if self._subscription is not None:
            self._subscription.close()


class Feed:
    """Frames of an area detector, joined with what belongs to them, in order."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.lane = "default" if options.lane == "default" else "bulk"
        self.lock = threading.Condition()
        self.closed = False
        self.error: BaseException | None = None
        self.problem = ""
        self._hindrance = ""  # what the last attempt to set up failed of, while more are made
        self.unmatched = 0
        self.stream: Stream | None = None
        self.band: tuple[int, int] | None = None
        self.given_up = False  # the server cannot cut rows out, or need not try any more
        self._joiner: Joiner[Piece] = Joiner(
            self._fits, int(options.patience * 1e9), self._caught_up
        )
        self._clock = ""  # 'stamp' or 'arrival', once the first frame is there
        self._early: deque[tuple[str, Any, int, int]] = deque(maxlen=10_000)
        self._latest: dict[str, Any] = {}
        self._ready: deque[Entry] = deque()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._overrun = False
        # counts; the rest is what the streams say
        self._past = Ledger(0, 0, 0, 0, 0, 0, 0, 0, None)
        self._empty = self._delivered = self._merged = self._dropped = 0
        self._inferred: int | None = None
        self._final: Ledger | None = None
        # What the next frame has to say of those before it: those without a number, and those that had one.
        self._owed, self._owed_gap = 0, False
        self._behind = 0
        self._number: tuple[str, int] | None = None
        self._unnumbered = 0
        self._first = True
        # The frame that the server had at the beginning of a connection, since when it was, and what came meanwhile.
        self._had: Piece | None = None
        self._had_at = self._since = self._changed_at = self._told_at = 0.0
        self._renewed_at = 0.0
        self._recut = False
        self._recuts: deque[float] = deque(maxlen=_RECUTS)
        self._longer = False
        self._beside: frozenset[str] = (
            frozenset()
        )  # what the server has of the PVs beside the array
        self._probe_until: float | None = None
        self.home = Channel(options.name)
        self.sources = [_Source(self, key, options.prefix + n) for key, n in _BESIDE.items()]
        self.sources += [
            _Source(self, "ftvl", options.name + ".FTVL", text=True),
            _Source(self, "tse", options.name + ".TSE"),
            _Source(self, "tse_beside", options.prefix + "UniqueId_RBV.TSE"),
        ]
        self._plugin: RoiPlugin | None = None
        self._untold = False
        if options.roi_plugin not in (None, "auto"):
            self._use_plugin(options.roi_plugin)
        self._thread = threading.Thread(target=self._run, name="epicsx images", daemon=True)
        self._thread.start()

    # ---- the PVs beside the array: the dispatcher's thread

    def _news(self, source: _Source, value: Any, stamp: int, came: int) -> None:
        """Hear what it says; when the server stamped it, and when it came here, however late it is told."""
        key = source.key
        if isinstance(value, np.ndarray):
            value = text_of(value) if key == "codec" else tuple(int(each) for each in value)
        elif key == "dims":
            value = (int(value),)
        with self.lock:
            if self.closed:
                return  # all is counted
            if source.known:
                self._changed_at = time.monotonic()
            source.known = True
            self._told_at = time.monotonic()
            self._latest[key] = value
            if key not in FIELDS and key not in ("unique_id", "counter"):
                self.lock.notify_all()
            elif self._clock:
                self._joiner.news(key, value, stamp if self._clock == "stamp" else came)
                self._deal(time.time_ns())
            else:
                self._early.append((key, value, stamp, came))
                self.lock.notify_all()

    def _caught_up(self) -> bool:
        """Whether all that has come of the PVs beside the array has been heard. Under the lock."""
        return all(source.caught_up for source in self.sources if source.key in _BESIDE)

    def _source_lost(self, source: _Source) -> None:
        with self.lock:
            if self.closed:
                return
            self._renewed()
            source.known = False
            if self._plugin is not None and source.key in self._plugin.corner:
                self._untold = True  # an IOC that has restarted cuts what it did at first
            self._early = deque((e for e in self._early if e[0] != source.key), 10_000)
            self._joiner.forget(source.key)

    def _renewed(self) -> None:
        """The connection was lost: what waits will not be matched. Under the lock.

        The array and each PV beside it learn of the same loss by themselves, in any order, and the frames that the
        first of them finds waiting are those from before it.
        """
        now = time.monotonic()
        if now - self._renewed_at > 1.0:
            self._since = now
            self._pass_over()
            for joined in self._joiner.abandon():
                self._joined(joined)
        self._renewed_at = now

    # ---- the frames: the feed's own thread

    def _use_plugin(self, prefix: str | None) -> None:
        """Have that NDPluginROI cut the region out."""
        options = self.options
        if prefix is None or options.roi is None:
            return
        plugin = RoiPlugin(prefix, options.prefix, options.roi, lambda: self.closed)
        # What is set, as the PVs that read it back lag behind the frames.
        corner = {"roi_x": "MinX", "roi_y": "MinY"}
        sources = [_Source(self, key, prefix + name) for key, name in corner.items()]
        with self.lock:
            if not self.closed:
                self._plugin, self._untold = plugin, True
                self.sources = [*self.sources, *sources]
                return
        plugin.close()
        for source in sources:
            source.close()

    def _run(self) -> None:
        try:
            self._set_up()
            while not self.closed:
                self._step()
        except BaseException as error:
            with self.lock:
                if not self.closed:
                    self.error = error
                    self._tell()
            if not isinstance(error, CAError):
                log.exception("images of '%s' have ended", self.options.prefix)

    def _set_up(self) -> None:
        since: float | None = None
        with self.lock:
            while not self.closed:
                known = {source.key for source in self.sources if source.known}
                if since is None and self.home.connected and known.issuperset(_NEEDED):
                    since = time.monotonic()
                if since is not None:
                    left = since + _GRACE - time.monotonic()
                    if len(known) == len(self.sources) or left <= 0:
                        break
                    self.lock.wait(min(left, _LONGEST))
                else:
                    self.lock.wait(0.02 if known.issuperset(_NEEDED) else _LONGEST)
            self._beside = frozenset(known)
            # What comes later, if it does, is newer than this.
            self._early.extendleft((k, v, 0, 0) for k, v in _DEFAULTS.items() if k not in known)
        if self.options.roi_plugin == "auto" and not self.closed:
            self._use_plugin(find_plugin(self.options.prefix, lambda: self.closed))

    def _tell_plugin(self, plugin: RoiPlugin) -> None:
        """Have NDPluginROI cut out the region, or say why it does not and try again later."""
        with self.lock:
            self._untold = False  # the connection may be lost meanwhile: then once more
        try:
            told, error = plugin.tell(), None
        except CAError as found:
            told, error = False, found
        with self.lock:
            if self.closed:
                return
            if error is None:
                self.error, self._hindrance = None, ""
                self._tell()
                if told:  # the news of it come by another circuit
                    self._pause(_SEEN, lambda: self._untold or not self._elsewhere())
                return
            self._untold = True
            if isinstance(error, (CATimeoutError, DisconnectedError)):
                self._hindrance = error.message
                self._pause(_LONGEST)
            else:
                self.error = error
                self._tell()
                self._pause(_AGAIN)

    def _pause(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Wait that long, at most until `done` or the end. Under the lock."""
        end = time.monotonic() + seconds
        while not (self.closed or done()):
            left = end - time.monotonic()
            if left <= 0:
                break
            self.lock.wait(min(left, _LONGEST))

    def _open(self) -> None:
        """Open the stream that the present mode asks for."""
        options = self.options
        self._first, self._since = True, time.monotonic()
        self.band = None
        mode = self._known_mode()
        if mode is not None and self._server_may_cut():
            self.band = self._band(mode)
        if self.band is not None and mode is not None:
            nbytes = mode.elements * _BYTES.get(int(self.home.native_type or 0), 8)
            # With the filters of both the Stream has no say: its rules for 'auto' are of whole arrays.
            self._longer = options.coherent is True or (
                options.coherent == "auto"
                and mode.elements == self.home.count
                and nbytes <= COHERENT_BYTES
            )
            name = filter_name(options.name, slice=self.band, coherent=self._longer)
            self._probe_until = time.monotonic() + PROBE_SECONDS
            made = Stream(name, coherent=False, **self._stream_options())
        else:
            self._probe_until = None
            made = _PatientStream(options.name, coherent=options.coherent, **self._stream_options())
        with self.lock:
            if self.closed:
                made.close()
            else:
                self.stream = made
                self._tell()

    def _server_may_cut(self) -> bool:
        return self.options.roi is not None and self._plugin is None and not self.given_up

    def _stream_options(self) -> dict[str, Any]:
        options = self.options
        return {"depth": options.depth, "overflow": options.overflow, "lane": options.lane}

    def _close_stream(self) -> None:
        """Under the lock."""
        if self.stream is not None:
            self.stream.close()
            self._past = add_ledgers(self._past, self.stream.ledger)
            self.stream = None

    def _step(self) -> None:
        """One frame, or a while without one."""
        now = time.time_ns()
        with self.lock:
            if self.closed:
                return
            self._deal(now)
            wait = min(_LONGEST, self._settle_had())
            recut, self._recut = self._recut, False
            if recut:
                self._close_stream()
            stream = self.stream
            if len(self._joiner):
                due = self._joiner.deadline() or now
                wait = min(wait, max((due - now) / 1e9, _LOOK), self._joiner.settle / 1e9)
            if len(self._joiner) >= max(self.options.depth, 4):
                self.lock.wait(wait)  # the stream's own bound counts what it has no room for
                return
        if self._untold and self._plugin is not None:
            self._tell_plugin(self._plugin)
            return
        if stream is None:
            if not self.closed:
                self._open()
            return
        self._probe(stream)
        try:
            frame = stream._poll(wait)
        except OverrunError:
            with self.lock:
                self._overrun = True
                self._tell()
            return
        except CAError as error:
            with self.lock:
                if not self.closed:
                    if isinstance(error, CATimeoutError):
                        self._hindrance = error.message
                    else:
                        self.error = error
                        self._tell()
                    self.lock.wait(_LONGEST)  # it may be a matter of rights, which may be given
            return
        if frame is not None:
            with self.lock:
                self._arrived(frame, stream)

    def _probe(self, stream: Stream) -> None:
        """Give up a filter that the server has not."""
        if self._probe_until is None:
            return
        if stream.connected:
            self._probe_until = None
        elif time.monotonic() > self._probe_until and self.home.connected:
            log.warning(
                "'%s': %s does not answer for the name with filters; EPICS base 3.15 and later does. "
                "All rows come, and are cut here",
                *(self.options.name, self.home.host),
            )
            with self.lock:
                self.given_up = True
                self._close_stream()
            self._open()

    def _arrived(self, frame: Frame, stream: Stream) -> None:
        """A frame has come. Under the lock."""
        if self.closed:
            return
        now = time.time_ns()
        self.error, self._hindrance = None, ""
        data = frame.data
        longer = self._longer if self.band is not None else bool(stream.coherent)
        first = self._first or frame.gap
        self._first = False
        piece = Piece(frame, data, self.band, longer, first, self._past.received + frame.index)
        if not self._clock:
            self._clock = self._which_clock(longer)
            for key, value, stamp, arrival in self._early:
                self._joiner.news(key, value, stamp if self._clock == "stamp" else arrival)
            self._early.clear()
        if frame.gap:
            self._renewed()
        self._pass_over()
        if first:
            self._had, self._had_at = piece, time.monotonic()
            return
        # When it came, not when this thread came to look: on a busy machine that may be frames later.
        at = frame.timestamp_ns if self._clock == "stamp" else time.time_ns() - frame._age_ns
        self._joiner.array(piece, at, now)
        self._deal(now)

    def _settle_had(self) -> float:
        """Match what the server had when it was connected; the seconds until that may be done. Under the lock.

        Its metadata came long before it, or have been told before, and the ts filter gives it the time of the
        subscription: the join would wait for a number and might take that of the next frame. But when nothing more
        comes, it is the frame of all that is known.
        """
        piece = self._had
        if piece is None:
            return _LONGEST
        # After a change, the array that goes with it would have come before it or, if that is large, soon after it.
        quiet = self.options.patience if self._changed_at > self._since else _QUIET
        left = max(self._had_at, self._told_at) + quiet - time.monotonic()
        if left > 0:
            return left
        if not self._caught_up():
            if time.monotonic() < self._had_at + quiet + self._joiner.held_up / 1e9:
                return _LOOK
            self._had = None
            self._unmatched(UNTOLD)
            return _LONGEST
        if not all(s.known for s in self.sources if s.key in (*_NEEDED, *self._beside)):
            return _QUIET
        self._had = None
        mode, by = self._known_mode(), self._joiner.by
        problem = "its PVs are of no mode that ADCore has"
        if mode is not None and mode.dims and not self._fits(piece, mode):
            mode, problem = None, "its size is not that of its dimensions"
        number = self._latest.get(by)
        self._joiner.spend()
        self._joined(Joined(piece, mode, None if number is None else int(number), by, problem))
        return _LONGEST

    def _pass_over(self) -> None:
        """What the server had at the beginning, as more has come before it was matched. Under the lock."""
        if self._had is not None:
            piece, self._had = self._had, None
            self._merged += 1
            self._owed += piece.frame.lost_before
            self._owed_gap |= piece.frame.gap

    def _which_clock(self, copied: bool) -> str:
        """Whether the stamps of the array and of the PVs beside it may be compared.

        With TSE=-2 a record has the frame's stamp, of the detector's clock; the ts filter puts the IOC's in its place
        (ts.c, filter), on the array alone.
        """
        own, beside = (int(self._latest.get(key, 0)) for key in ("tse", "tse_beside"))
        return "arrival" if own != beside or (copied and own) else "stamp"

    # ---- joining. All under the lock.

    def _known_mode(self) -> Mode | None:
        said: dict[str, Any] = {key: self._latest.get(key, _DEFAULTS.get(key)) for key in FIELDS}
        try:
            return Mode.of(**said)
        except (CAError, TypeError):
            return None

    def _band(self, mode: Mode) -> tuple[int, int] | None:
        """The elements of the rows that are wanted, where a server can cut them out; None: the client must."""
        roi = self.options.roi
        if roi is None:
            return None
        try:
            y0, y1, _, _ = roi.within(mode.shape)
            found = mode.rows(y0, y1)
        except CAError:
            return None
        return None if found == (0, mode.elements) else found

    def _fits(self, piece: Piece, mode: Mode) -> bool:
        size, wanted = piece.data.size, mode.elements
        if mode.codec:
            # NDPluginStdArrays.cpp, arrayInterruptCallback: with the bytes of the uncompressed type
            wanted = mode.compressed_size // mode.data_type.dtype.itemsize + 1
        if piece.band is not None:
            if self._band(mode) != piece.band:
                return True  # _joined sees to it
            return size == piece.band[1] - piece.band[0]
        return size == wanted or (piece.longer and size > wanted)

    def _deal(self, now: int) -> None:
        for joined in self._joiner.take(now):
            self._joined(joined)

    def _joined(self, joined: Joined[Piece]) -> None:
        piece, mode, roi = joined.payload, joined.mode, self.options.roi
        lost, gap = self._owed + piece.frame.lost_before, self._owed_gap or piece.frame.gap
        self._owed, self._owed_gap = lost, gap
        if piece.data.size == 0 or (mode is not None and not mode.dims):
            self._empty += 1  # the plugin has had no frame yet
            return
        if mode is None:
            self._unmatched(joined.problem)
            return
        cut = "roi" if self._plugin is None else "plugin"
        if self._server_may_cut() and self._band(mode) != piece.band:
            self._cut_anew(piece)
        if piece.band is not None and self._band(mode) != piece.band:
            self._unmatched("the server cut it for the mode before")
            return
        if cut == "plugin" and piece.first:
            self._merged += 1  # from before the region was set, for all one knows
            return
        if cut == "plugin" and (elsewhere := self._elsewhere()):
            self._unmatched(elsewhere)
            return
        if cut == "plugin" and not self._of_region(mode):
            self._unmatched(f"{mode.dims} is not of the region that the ROI plugin was given")
            return
        if joined.number is None:
            self._unnumbered += 1
        else:
            before = self._number
            self._number = (joined.by, joined.number)
            if self._inferred is None:
                self._inferred = 0
            if before is not None and before[0] == joined.by:
                if piece.first and before[1] == joined.number and not piece.frame.gap:
                    self._merged += 1  # the stream before had it, too
                    return
                if joined.number > before[1]:
                    missing = max(joined.number - before[1] - 1 - self._unnumbered, 0)
                    self._inferred += max(missing - (lost - bool(piece.frame.gap)), 0)
                    lost = missing
            self._unnumbered = 0
        lost += self._behind
        self._owed, self._owed_gap, self._behind = 0, False, 0
        if piece.band is not None and roi is not None:
            y0, y1, _, _ = roi.within(mode.shape)
            mode = moved(mode, y0, 0).with_rows(y1 - y0)
            roi = Roi(0, None, roi.x0, roi.x1)
        self._push(
            Entry(
                piece,
                mode,
                None if cut == "plugin" else roi,
                number=joined.number,
                by=joined.by,
                lost=lost,
                gap=gap,
            )
        )

    def _cut_anew(self, piece: Piece) -> None:
        """Have a stream opened whose rows are those of the present mode.

        It begins with what the server has then, which at low rates is the frame that has told so. A detector that goes
        back and forth between modes is better off with a stream of all rows.
        """
        if piece.band != self.band or self._recut:
            return  # of the stream before
        now = time.monotonic()
        self._recut = True
        self._recuts.append(now)
        self.given_up = len(self._recuts) == _RECUTS and now - self._recuts[0] < _RECUTS_SECONDS

    def _elsewhere(self) -> str:
        """Why the ROI plugin does not cut where it was told to; '' while it does."""
        plugin = self._plugin
        if plugin is None:
            return ""
        if self._untold:
            return "the ROI plugin was lost, and has not been told its region again yet"
        for source in self.sources:
            wanted = plugin.corner.get(source.key)
            if wanted is not None and not (source.known and self._latest[source.key] == wanted):
                found = self._latest[source.key] if source.known else "not known"
                return f"'{source.name}' is {found}, not {wanted}: somebody has moved the region"
        return ""

    def _of_region(self, mode: Mode) -> bool:
        roi = self.options.roi
        assert roi is not None
        try:
            y, x = mode.shape[:2]
        except CAError:
            return True  # that is told when it is read
        return (roi.y1 is None or y <= roi.y1 - roi.y0) and (roi.x1 is None or x <= roi.x1 - roi.x0)

    def _unmatched(self, problem: str) -> None:
        self.unmatched += 1
        self._dropped += 1
        self.problem = problem
        self._owed += 1

    def _push(self, entry: Entry) -> None:
        if len(self._ready) >= self.options.depth:
            self._dropped += 1
            if self.options.overflow != "drop_oldest":
                self._behind, self._owed_gap = entry.lost + 1, entry.gap
                if self.options.overflow == "error":
                    self._overrun = True
                    self._tell()
                return
            old = self._ready.popleft()
            if old.future is not None:
                old.future.cancel()
            following = self._ready[0] if self._ready else entry
            following.lost += old.lost + 1
            following.gap |= old.gap
        self._ready.append(entry)
        if entry.mode.codec:
            if self._pool is None:
                count = self.options.workers or min(os.cpu_count() or 1, 8)
                self._pool = ThreadPoolExecutor(count, "epicsx decoder")
            entry.future = self._pool.submit(self._decode, entry)
            entry.future.add_done_callback(self._decoded)
        self._tell()

    def _decode(self, entry: Entry) -> Array:
        ftvl = str(self._latest.get("ftvl", ""))
        return picture(entry.piece.data, entry.mode, ftvl=ftvl, name=self.options.name)

    def _decoded(self, future: Future[Array]) -> None:
        with self.lock:
            self._tell()

    # ---- what users' threads do

    def _tell(self) -> None:
        """Wake all who wait. Under the lock."""
        self.lock.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # closed meanwhile
                pass

    def take(self) -> Entry | None:
        """The next frame, if one is ready.

        Raises
        ------
        OverrunError
            Once after frames were refused.
        CAError
            What keeps frames from coming; that it is closed.
        """
        with self.lock:
            if self._ready and self._ready[0].ready:
                return self._ready.popleft()
            if self._overrun:
                self._overrun = False
                raise OverrunError(
                    f"images of '{self.options.prefix}': {self.options.depth} were waiting, and more came; "
                    "the ledger counts what was refused",
                    name=self.options.name,
                )
            if self.closed:
                raise CAError(
                    f"the images of '{self.options.prefix}' have been closed",
                    name=self.options.name,
                )
            if self.error is not None:
                raise self._told_anew(self.error)
            if not self._thread.is_alive():
                raise CAError(
                    "made before fork(): this process needs image streams of its own",
                    name=self.options.name,
                )
        return None

    def _told_anew(self, error: BaseException) -> BaseException:
        """An exception for one raise alone. None that says that time is up: there is nothing to wait for."""
        if isinstance(error, CAError) and not isinstance(error, CATimeoutError):
            return type(error)(message=error.message, status=error.status, name=error.name)
        made = CAError(
            f"the images of '{self.options.prefix}' have ended: {type(error).__name__}: {error}",
            name=self.options.name,
        )
        made.__cause__ = error
        return made

    def newest(self) -> Entry | None:
        """The newest frame that is ready; those before it are merged."""
        with self.lock:
            index = max((i for i, e in enumerate(self._ready) if e.ready), default=-1)
            if index < 0:
                return self.take()
            lost, gap = 0, False
            for _ in range(index):
                old = self._ready.popleft()
                if old.future is not None:
                    old.future.cancel()
                lost, gap = lost + old.lost + 1, gap or old.gap
                self._merged += 1
            entry = self._ready.popleft()
            entry.lost += lost
            entry.gap |= gap
            return entry

    def data_of(self, entry: Entry) -> Array:
        """The picture, cut; counted as delivered, or where it cannot be made, as dropped."""
        try:
            data = entry.future.result() if entry.future is not None else self._decode(entry)
            if entry.roi is not None:
                data = entry.roi.cut(data)
        except BaseException:
            with self.lock:
                self._dropped += 1
                if self._ready:
                    self._ready[0].lost += entry.lost + 1
                else:
                    self._behind += entry.lost + 1
            raise
        with self.lock:
            self._delivered += 1
        return data

    def final_mode(self, entry: Entry) -> Mode:
        """The mode of what `data_of` gives: a Bayer pattern begins anew at the cut."""
        roi = entry.roi
        return entry.mode if roi is None else moved(entry.mode, roi.y0, roi.x0)

    def wait(self, seconds: float) -> None:
        """Return when something may be ready to take, or after that time."""
        with self.lock:
            if self._idle():
                self.lock.wait(seconds)

    def _idle(self) -> bool:
        return not (
            (self._ready and self._ready[0].ready)
            or self._overrun
            or self.error is not None
            or self.closed
        )

    def watch(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """A future that is done when something may be ready to take; None when it is now."""
        with self.lock:
            if not self._idle():
                return None
            future: asyncio.Future[None] = loop.create_future()
            self._waiters = [w for w in self._waiters if not w[1].done()]
            self._waiters.append((loop, future))
            return future

    @property
    def connected(self) -> bool:
        """Whether the array is connected, and all that is needed beside it."""
        stream = self.stream
        return (
            stream is not None
            and stream.connected
            and not self._untold
            and all(source.known for source in self.sources if source.key in _NEEDED)
        )

    def why(self) -> str:
        """Why no frame has come."""
        needed = _NEEDED if self._plugin is None else (*_NEEDED, *self._plugin.corner)
        missing = [s.name for s in self.sources if s.key in needed and not s.known]
        if not self.home.connected:
            missing.insert(0, self.options.name)
        if missing:
            return f"no server has answered for {', '.join(missing)}"
        if self._hindrance:
            return self._hindrance
        if self.unmatched:
            return f"{self.unmatched} frames came that could not be read; the last: {self.problem}"
        if self._empty:
            return "the plugin has had no frame yet"
        return "no frame has come"

    def connect(self, timeout: float | None) -> None:
        """Wait until all is connected."""
        end = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            while self.error is None and not self.closed and not self.connected:
                left = 0.05 if end is None else min(end - time.monotonic(), 0.05)
                if left <= 0:
                    raise timed_out(
                        self.options.name, "connecting the images", timeout or 0.0, self.why()
                    )
                self.lock.wait(left)
            if self.error is not None:
                raise self._told_anew(self.error)
            if self.closed:
                self.take()  # which says so

    def ledger(self) -> Ledger:
        """One consistent copy of the counts."""
        with self.lock:
            if self._final is not None:
                return self._final
            total = self._past
            if self.stream is not None:
                total = add_ledgers(total, self.stream.ledger)
            received = total.received - self._empty
            dropped = total.dropped + self._dropped
            done = self._delivered + self._merged + dropped
            return Ledger(
                *(received, self._delivered, self._merged, dropped, received - done),
                *(total.repeated, total.disconnects, total.bytes, self._inferred),
            )

    def close(self) -> None:
        """End: what waits is dropped and counted."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self._close_stream()
            for entry in self._ready:
                if entry.future is not None:
                    entry.future.cancel()
            self._ready.clear()
            # A reader that has taken a frame may not have counted it yet; it is settled as dropped.
            last = self.ledger()
            self._final = last._replace(dropped=last.dropped + last.pending, pending=0)
            pool, self._pool = self._pool, None
            self._tell()
        for source in self.sources:
            source.close()
        self.home.close()
        if self._plugin is not None:
            self._plugin.close()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        if threading.current_thread() is not self._thread:
            self._thread.join(_MOMENT)


_BYTES = {0: 40, 1: 2, 2: 4, 3: 2, 4: 1, 5: 4, 6: 8}
"""Bytes of an element of each native type of Channel Access."""


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
