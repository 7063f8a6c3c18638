"""`epicsx.images` against an IOC that posts frames as areaDetector does."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
from support import posting, threads_settle, wait_until
from support.monitors import dispatcher_held

import epicsx
from epicsx import BadTypeError, BadValueError, CAError, CATimeoutError, Frame, Image, ImageStream
from epicsx._imagefeed import Feed, _PatientStream
from epicsx._ndarray import Roi
from epicsx.testing import AreaDetectorIOC
from epicsx.testing.areadetector import _database, numbered_frame

# The waveform in which NDStdArrays.template is usually loaded for a type.
FTVL = {
    "int8": "CHAR",
    "uint8": "UCHAR",
    "int16": "SHORT",
    "uint16": "USHORT",
    "int32": "LONG",
    "uint32": "ULONG",
    "int64": "INT64",
    "uint64": "UINT64",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}
SHAPE = (12, 20)
ROOM = 12 * 20 * 3
PATIENCE = 5.0
"""Seconds: each frame must find its numbers, also where a busy machine puts one of the processes aside."""


@pytest.fixture
def detector(detector: Callable[..., AreaDetectorIOC]) -> Callable[..., AreaDetectorIOC]:
    """Give a function that starts an AreaDetectorIOC with room for one frame; three at a time."""
    return partial(detector, nelements=ROOM)


@pytest.fixture
def watch() -> Iterator[Callable[..., ImageStream]]:
    """Give a function that makes an image stream of an IOC, connected and subscribed; closed at the end."""
    made: list[ImageStream] = []

    def start(ioc: AreaDetectorIOC, **options: Any) -> ImageStream:
        options.setdefault("patience", PATIENCE)
        made.append(epicsx.images(ioc.image_prefix, **options))
        made[-1].connect(20.0)
        begun(ioc, made[-1])
        return made[-1]

    yield start
    for each in made:
        each.close()


def adds_up(stream: ImageStream) -> bool:
    ledger = stream.ledger
    assert min(ledger[:8]) >= 0, ledger
    return ledger.received == ledger.delivered + ledger.merged + ledger.dropped + ledger.pending


def shown(image: Image, frame: np.ndarray[Any, Any]) -> None:
    """That this is that picture, of its dtype."""
    assert image.data.dtype == frame.dtype
    np.testing.assert_array_equal(image.data, frame)


def received(stream: ImageStream, number: int) -> bool:
    return stream.ledger.received == number


def begun(ioc: AreaDetectorIOC, stream: ImageStream) -> None:
    """The IOC tells the stream that there is now of all that it posts: also of the array, which is put in the IOC."""

    def first() -> bool:
        present = stream._feed.stream
        return present is not None and present.ledger.received > 0

    wait_until(first)
    posting(ioc.image_prefix + "ArrayData")


def settled(ioc: AreaDetectorIOC, stream: ImageStream) -> None:
    """All that the IOC had at the beginning is there: an empty array."""
    wait_until(lambda: stream._feed._empty == 1)
    begun(ioc, stream)


def heard(stream: ImageStream, number: int) -> None:
    """The frame of that unique id has been joined."""
    wait_until(lambda: stream._feed._number == ("unique_id", number))


def cut_by_server(ioc: AreaDetectorIOC, stream: ImageStream) -> None:
    """The channel that cuts rows is connected and subscribed."""
    wait_until(lambda: stream.roi_by == "server" and stream.connected)
    begun(ioc, stream)


def turn_to(ioc: AreaDetectorIOC, ftvl: str) -> None:
    """Have the IOC feed that of its plugins which is called by its waveform's type."""
    ioc.plugin, ioc.ftvl = f"{ftvl}:", ftvl
    ioc._posted, ioc._counter = {}, 0


# ------------------------------------------------------------------- types and modes


def test_data_types(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(db=[_database(each, ROOM, f"{each}:", "", "record") for each in FTVL.values()])
    for dtype, ftvl in FTVL.items():
        turn_to(ioc, ftvl)
        stream = watch(ioc)
        settled(ioc, stream)  # else the first frame may come under the stamp of what was before
        check_type(ioc, stream, dtype)


def check_type(ioc: AreaDetectorIOC, stream: ImageStream, dtype: str) -> None:
    for number in (1, 2):
        frame = numbered_frame(number, SHAPE, dtype)
        if dtype in ("int16", "int32", "int64", "float32", "float64"):
            frame = frame - np.asarray(100, dtype)
        if dtype.startswith("uint"):
            frame[0, 0] = min(np.iinfo(dtype).max, 2**53 - 1)
        if dtype.startswith("float"):
            frame[0, 0] = 0.1
        ioc.send(frame, unique_id=number)
        image = stream.read(20)
        shown(image, frame)
        assert (image.unique_id, image.data_type.name.lower(), image.changed) == (
            number,
            dtype,
            False,
        )
        assert (image.color_mode.name, image.bayer, image.codec) == ("Mono", None, "")
        assert (image.lost_before, image.gap) == (0, False)
        assert image.timestamp_ns > 1.7e18
    assert stream.unmatched == 0
    assert stream.ledger.inferred_lost == 0
    assert adds_up(stream)


def test_colour_modes_and_a_change_of_mode(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(ftvl="SHORT")
    stream = watch(ioc)
    settled(ioc, stream)
    seen = []
    for number, (mode, dtype) in enumerate(
        [
            *(("Mono", "uint16"), ("RGB1", "uint16"), ("RGB2", "uint16"), ("RGB3", "uint16")),
            *(("RGB3", "uint8"), ("Bayer", "uint8"), ("Mono", "int16"), ("Mono", "int16")),
        ]
    ):
        frame = numbered_frame(number, (*SHAPE, 3) if mode.startswith("RGB") else SHAPE, dtype)
        ioc.send(frame, color_mode=mode, bayer="GBRG")
        image = stream.read(20)
        shown(image, frame)
        assert image.color_mode.name == mode
        assert image.bayer == (1 if mode == "Bayer" else None)
        seen.append(image.changed)
    assert seen == [False, True, True, True, True, True, True, False]
    assert (stream.unmatched, stream.ledger.inferred_lost) == (0, 0)


def test_a_change_of_mode_under_way(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    # Both orders of posting; of each frame either the right picture comes or none. Coherent, as a server that is held
    # up would send the data of a later frame.
    ioc = detector(ftvl="UCHAR")
    stream = watch(ioc, depth=200, coherent=True)
    settled(ioc, stream)
    number, right = 0, {}
    orders: tuple[Any, Any] = ("data first", "metadata first")
    for order in orders:
        ioc.order = order
        for mode, shape in (("Mono", SHAPE), ("RGB1", (6, 10, 3)), ("Mono", (8, 4))):
            frames = [numbered_frame(number + i, shape) for i in range(10)]
            right.update({number + i + 1: frame for i, frame in enumerate(frames)})
            ioc.play(frames, 50.0, color_mode=mode)
            number += 10
    feed = stream._feed
    wait_until(lambda: feed._latest["unique_id"] == number and not len(feed._joiner))
    wait_until(lambda: stream.ledger.pending == len(feed._ready))
    got = []
    while stream.ledger.pending:
        image = stream.read(20)
        assert image.unique_id is not None
        shown(image, right[image.unique_id])
        got.append(image)
    shapes = [image.shape for image in got]
    assert [image.changed for image in got[1:]] == [
        before != now for before, now in pairwise(shapes)
    ]
    assert adds_up(stream)


def test_what_is_no_picture(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(ftvl="UCHAR")
    stream = watch(ioc)
    settled(ioc, stream)
    ioc.send(np.zeros((4, 6, 3), "uint8"), color_mode="YUV444")
    with pytest.raises(BadTypeError, match="ArrayData': YUV444 pictures are not decoded"):
        stream.read(20)
    ioc.send(np.zeros((4, 6), "uint16"))
    with pytest.raises(BadTypeError, match="cannot hold UInt16"):
        stream.read(20)
    ioc.send(numbered_frame(3, SHAPE))
    image = stream.read(20)
    shown(image, numbered_frame(3, SHAPE))
    assert (image.unique_id, image.lost_before) == (3, 2)
    assert stream.ledger.dropped == 2
    assert stream.ledger.inferred_lost == 0
    assert adds_up(stream)


def test_a_waveform_that_is_too_short(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(nelements=100)
    stream = watch(ioc)
    settled(ioc, stream)
    ioc.send(numbered_frame(1, SHAPE))
    wait_until(lambda: stream.unmatched == 1)
    with pytest.raises(CATimeoutError, match="array's size is not that of"):
        stream.read(0.01)
    assert "size" in stream.problem
    assert adds_up(stream)


# ---------------------------------------------------------------------------- counting


def test_missing_ids_and_a_restart_of_them(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    stream = watch(ioc)
    settled(ioc, stream)
    assert stream.ledger.inferred_lost is None
    lost = []
    for number in (10, 11, 15, 2, 3, 6):
        ioc.send(numbered_frame(number, SHAPE), unique_id=number)
        image = stream.read(20)
        assert image.unique_id == number
        lost.append(image.lost_before)
    assert lost == [0, 0, 3, 0, 0, 2]
    assert stream.ledger.inferred_lost == 5


def test_array_counter_where_ids_do_not_change(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    stream = watch(ioc, patience=2.0)
    settled(ioc, stream)
    for number in range(1, 5):
        ioc.send(numbered_frame(number, SHAPE), unique_id=0)
        image = stream.read(20)
        shown(image, numbered_frame(number, SHAPE))
        if number > 2:
            assert (image.unique_id, image.counter, image.lost_before) == (None, number, 0)
    assert stream.ledger.inferred_lost == 0
    assert stream.unmatched == 0


def test_a_slow_reader(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    stream = watch(ioc, depth=4)
    settled(ioc, stream)
    for number in range(1, 31):
        ioc.send(numbered_frame(number, SHAPE))
        heard(stream, number)
    kept = [stream.read(20) for _ in range(4)]
    assert [image.unique_id for image in kept] == [27, 28, 29, 30]
    for image in kept:
        assert image.unique_id is not None
        shown(image, numbered_frame(image.unique_id, SHAPE))
    assert [image.lost_before for image in kept] == [26, 0, 0, 0]
    ledger = stream.ledger
    assert ledger.dropped + (ledger.inferred_lost or 0) == 26
    assert adds_up(stream)

    # The newest one merges the others.
    merged = ledger.merged
    for number in range(31, 34):
        ioc.send(numbered_frame(number, SHAPE))
        heard(stream, number)
    wait_until(lambda: stream.ledger.pending == 3)
    newest = stream.latest()
    assert newest is not None
    assert (newest.unique_id, newest.lost_before) == (33, 2)
    assert stream.latest() is newest
    assert stream.ledger.merged == merged + 2
    assert adds_up(stream)


def test_the_other_overflows(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    streams = {each: watch(ioc, depth=2, overflow=each) for each in ("drop_newest", "error")}
    for stream in streams.values():
        settled(ioc, stream)
    for number in range(1, 6):
        ioc.send(numbered_frame(number, SHAPE))
        for stream in streams.values():
            heard(stream, number)
    for overflow, stream in streams.items():
        assert [stream.read(20).unique_id for _ in range(2)] == [1, 2]
        if overflow == "error":
            with pytest.raises(epicsx.OverrunError, match="2 were waiting"):
                stream.read(20)
    ioc.send(numbered_frame(6, SHAPE))
    for stream in streams.values():
        image = stream.read(20)
        assert (image.unique_id, image.lost_before) == (6, 3)
        assert stream.ledger.dropped == 3
        assert adds_up(stream)


def test_a_held_image_stays(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(ftvl="SHORT")
    stream = watch(ioc, depth=2)
    settled(ioc, stream)
    held = []
    for number in range(1, 20):
        ioc.send(numbered_frame(number, SHAPE, "uint16"))
        held.append(stream.read(20))
    stream.close()
    for number, image in enumerate(held, 1):
        shown(image, numbered_frame(number, SHAPE, "uint16"))
    image = held[0]
    np.testing.assert_array_equal(np.asarray(image), image.data)
    assert np.asarray(image).base is not None
    assert np.asarray(image, "float32").dtype == "float32"
    np.testing.assert_array_equal(np.from_dlpack(image), image.data)
    view: Any = image.data
    assert memoryview(view).shape == SHAPE
    assert "Image 1: 12 x 20 Mono uint16" in repr(image)


# ------------------------------------------------------------------------------ stamps


@pytest.mark.parametrize("stamps", ["record", "frame"])
def test_stamps_and_coherence(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream], stamps: Any
) -> None:
    # The frames fill the waveform, so 'auto' may take the ts filter.
    ioc = detector(stamps=stamps, nelements=12 * 20)
    ioc.send(numbered_frame(1, SHAPE))
    streams = {each: watch(ioc, coherent=each) for each in (False, True, "auto")}
    for coherent, stream in streams.items():
        assert stream.read(20).unique_id == 1
        assert stream.coherent is (coherent is not False)
        assert stream._feed._clock == (
            "arrival" if stamps == "frame" and stream.coherent else "stamp"
        )
    for number in range(2, 8):
        frame = numbered_frame(number, SHAPE if number < 5 else (5, 8))
        ioc.send(frame)
        for stream in streams.values():
            image = stream.read(20)
            assert image.unique_id == number
            shown(image, frame)
    assert [stream.unmatched for stream in streams.values()] == [0, 0, 0]


def test_a_frame_that_the_reader_came_late_for(
    detector: Callable[..., AreaDetectorIOC],
    watch: Callable[..., ImageStream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By times of arrival: when it came counts, not when the feed's thread, put aside for long, came to look."""
    took: Callable[[_PatientStream, float], Frame | None] = _PatientStream._poll
    never = threading.Event()

    def late(stream: _PatientStream, timeout: float) -> Frame | None:
        frame = took(stream, timeout)
        if frame is not None and frame.index == 6:
            never.wait(0.5)  # the shortest time between the frames before is far below that
        return frame

    monkeypatch.setattr(_PatientStream, "_poll", late)
    ioc = detector(stamps="frame", nelements=12 * 20)
    ioc.send(numbered_frame(1, SHAPE))
    stream = watch(ioc, coherent=True, patience=2.0)
    assert stream.read(20).unique_id == 1
    for number in range(2, 8):
        ioc.send(numbered_frame(number, SHAPE))
        assert stream.read(20).unique_id == number
    assert stream._feed._clock == "arrival"


def beside(stream: ImageStream, key: str) -> int:
    """How many updates of that PV beside the array have come, told or not."""
    (source,) = (source for source in stream._feed.sources if source.key == key)
    subscription: Any = source._subscription
    return int(subscription.stats.received)


@pytest.mark.parametrize("clock", ["stamp", "arrival"])
def test_a_callback_that_holds_up_the_lane(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream], clock: Any
) -> None:
    """The news of the PVs beside the array wait for their delivery, for far longer than `patience`."""
    ioc = detector(nelements=12 * 20, stamps="frame" if clock == "arrival" else "record")
    stream = watch(ioc, depth=40, patience=0.05, coherent=clock == "arrival")
    settled(ioc, stream)
    assert stream._feed._clock == clock
    modes = [("Mono", "Bayer")[number // 3 % 2] for number in range(21)]
    stream._feed._joiner.held_up = 60 * 10**9  # a busy machine takes seconds for the sending
    with dispatcher_held(ioc.prefix + "image1:ArrayCounter_RBV", "bulk"):
        for number in range(1, 21):  # of one size, so that only ColorMode_RBV tells
            ioc.send(numbered_frame(number, SHAPE), color_mode=modes[number])
            wait_until(partial(received, stream, number))
        # the first event of a PV, and one of each frame: nothing that belongs to them is still on its way
        wait_until(lambda: beside(stream, "unique_id") == 21)
        wait_until(
            lambda: (stream._feed._joiner.deadline() or math.inf) < time.time_ns() - 100_000_000
        )
        assert stream.ledger.delivered == stream.unmatched == 0
    for number in range(1, 21):
        image = stream.read(20)
        assert (image.unique_id, image.color_mode.name) == (number, modes[number])
        shown(image, numbered_frame(number, SHAPE))
    assert (stream.unmatched, stream.ledger.inferred_lost) == (0, 0)
    assert adds_up(stream)


def test_a_callback_that_holds_up_the_lane_for_too_long(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(nelements=12 * 20)
    stream = watch(ioc, patience=0.05)
    settled(ioc, stream)
    stream._feed._joiner.held_up = 100_000_000
    with dispatcher_held(ioc.prefix + "image1:ArrayCounter_RBV", "bulk"):
        ioc.send(numbered_frame(1, SHAPE))
        wait_until(lambda: stream.unmatched == 1)
        assert stream.problem == "the updates of its PVs wait to be delivered"
    wait_until(lambda: stream._feed._latest.get("unique_id") == 1)
    stream._feed._joiner.patience = int(PATIENCE * 1e9)
    ioc.send(numbered_frame(2, SHAPE))
    image = stream.read(20)
    assert (image.unique_id, image.lost_before) == (2, 1)
    shown(image, numbered_frame(2, SHAPE))
    assert adds_up(stream)


# -------------------------------------------------------------------- regions of interest


def test_a_region_by_the_server(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(ftvl="SHORT", nelements=4000)
    ioc.send(numbered_frame(1, SHAPE, "uint16"))
    stream = watch(ioc, roi=(3, 7))
    shown(stream.read(20), numbered_frame(1, SHAPE, "uint16")[3:7])
    assert stream.roi_by == "server"
    ioc.send(numbered_frame(2, SHAPE, "uint16"))
    shown(stream.read(20), numbered_frame(2, SHAPE, "uint16")[3:7])
    assert stream.ledger.bytes == 2 * 4 * 20 * 2  # only these rows have travelled

    # Another mode: the server's rows are counted anew, and the frame in which it changed comes again, cut by the new
    # count.
    colour = numbered_frame(3, (*SHAPE, 3), "uint16")
    ioc.send(colour)
    image = stream.read(20)
    shown(image, colour[3:7])
    assert (image.unique_id, image.changed, image.lost_before) == (3, True, 0)
    assert stream.roi_by == "server"
    # Planes do not lie together: the client cuts.
    ioc.send(numbered_frame(4, (*SHAPE, 3), "uint16"), color_mode="RGB3")
    shown(stream.read(20), numbered_frame(4, (*SHAPE, 3), "uint16")[3:7])
    wait_until(lambda: stream.roi_by == "client")
    # And back.
    ioc.send(numbered_frame(5, SHAPE, "uint16"))
    shown(stream.read(20), numbered_frame(5, SHAPE, "uint16")[3:7])
    cut_by_server(ioc, stream)
    ioc.send(numbered_frame(6, SHAPE, "uint16"))
    shown(stream.read(20), numbered_frame(6, SHAPE, "uint16")[3:7])
    assert stream.ledger.inferred_lost == 0
    assert adds_up(stream)


def test_a_region_of_rows_and_columns(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(nelements=1000)
    streams = {each: watch(ioc, roi=(3, None, 5, 9), coherent=each) for each in (False, True)}
    for stream in streams.values():
        settled(ioc, stream)
    for number in range(1, 5):
        frame = numbered_frame(number, SHAPE)
        ioc.send(frame, color_mode="Bayer", bayer="RGGB")
        for stream in streams.values():
            image = stream.read(20)
            shown(image, frame[3:, 5:9])
            assert image.bayer is not None
            assert image.bayer.name == "BGGR"  # an odd row, an odd column
            if number == 1:  # it told how many elements a row has
                cut_by_server(ioc, stream)
    assert [stream.coherent for stream in streams.values()] == [False, True]


def test_a_region_of_columns_and_one_outside(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    ioc.send(numbered_frame(1, SHAPE))
    stream = watch(ioc, roi=(0, None, 15, 18))
    shown(stream.read(20), numbered_frame(1, SHAPE)[:, 15:18])
    assert stream.roi_by == "client"
    outside = watch(ioc, roi=(12, 14))
    with pytest.raises(BadValueError, match="outside of a picture of 12 rows"):
        outside.read(20)
    assert outside.ledger.dropped == 1


def test_modes_that_change_all_the_time_leave_the_region_to_the_client(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    stream = watch(ioc, roi=(1, 3))
    settled(ioc, stream)
    for number in range(1, 12):
        frame = numbered_frame(number, SHAPE if number % 2 else (8, 10))
        ioc.send(frame)
        shown(stream.read(20), frame[1:3])
    wait_until(lambda: stream.roi_by == "client")
    assert stream._feed.given_up


def test_a_region_by_the_plugin(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(roi="ROI1:")
    ioc.send(numbered_frame(1, SHAPE))
    stream = watch(ioc, roi=(2, 6, 4, 9), roi_plugin=ioc.prefix + "ROI1:")
    assert stream.roi_by == "plugin"
    assert [ioc.read(f"ROI1:{n}") for n in ("MinX", "SizeX", "MinY", "SizeY")] == [
        *("4", "5", "2", "4")
    ]
    for number in (2, 3):
        ioc.send(numbered_frame(number, SHAPE))
        image = stream.read(20)
        shown(image, numbered_frame(number, SHAPE)[2:6, 4:9])
        assert image.unique_id == number
    assert stream.ledger.bytes == 12 * 20 + 2 * 4 * 5
    assert adds_up(stream)


def test_the_plugin_is_told_again_after_a_restart(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(roi="ROI1:")
    stream = watch(ioc, roi=(2, 6, 4, 9), roi_plugin=ioc.prefix + "ROI1:")
    settled(ioc, stream)
    ioc.send(numbered_frame(1, SHAPE))
    shown(stream.read(20), numbered_frame(1, SHAPE)[2:6, 4:9])
    ioc.kill()
    wait_until(lambda: not stream.connected)
    ioc.restart()
    wait_until(lambda: stream.connected and stream._feed._empty == 2, 30)
    begun(ioc, stream)
    assert [ioc.read(f"ROI1:{n}") for n in ("MinX", "SizeX", "MinY", "SizeY")] == [
        *("4", "5", "2", "4")
    ]
    for number in (2, 3):
        ioc.send(numbered_frame(number, SHAPE), unique_id=number)
        image = stream.read(20)
        shown(image, numbered_frame(number, SHAPE)[2:6, 4:9])
        assert image.gap is (number == 2)
    assert stream.unmatched == 0
    assert adds_up(stream)


def test_somebody_else_moves_the_region(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    # Of the same size, so that only the plugin's PVs tell.
    ioc = detector(roi="ROI1:")
    stream = watch(ioc, roi=(2, 6), roi_plugin=ioc.prefix + "ROI1:")
    settled(ioc, stream)
    ioc.write("ROI1:MinY", 5)
    wait_until(lambda: "somebody has moved the region" in stream._feed._elsewhere())
    ioc.send(numbered_frame(1, SHAPE))
    wait_until(lambda: stream.unmatched == 1)
    with pytest.raises(CATimeoutError, match="ROI1:MinY' is 5, not 2"):
        stream.read(0.01)
    ioc.write("ROI1:MinY", 2)
    wait_until(lambda: not stream._feed._elsewhere())
    ioc.send(numbered_frame(2, SHAPE))
    shown(stream.read(20), numbered_frame(2, SHAPE)[2:6])
    assert adds_up(stream)


def test_a_plugin_that_nobody_has_is_waited_for(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector()
    before = threading.enumerate()

    async def main() -> list[CATimeoutError]:
        found = []
        options: dict[str, Any] = {"roi": (0, 1), "roi_plugin": "nosuch:", "timeout": None}
        async with epicsx.images(ioc.image_prefix, **options) as stream:
            wait_until(lambda: "nosuch:" in stream._feed.why() and stream._feed.home.connected)
            for _ in range(3):
                with pytest.raises(CATimeoutError, match="nosuch:MinX") as info:
                    await stream.aread(0.05)
                found.append(info.value)
        return found

    assert len({id(error) for error in asyncio.run(main())}) == 3
    known = [t for t in threading.enumerate() if t.name.startswith("epicsx-")]
    threads_settle([*before, *known])


def test_frames_of_another_plugin_until_that_is_put_right(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector(roi="ROI1:")
    ioc.write("image1:NDArrayPort", "SIM")

    async def made() -> ImageStream:  # which does not wait
        plugin = ioc.prefix + "ROI1:"
        return epicsx.images(ioc.image_prefix, roi=(2, 6), roi_plugin=plugin, patience=PATIENCE)

    with asyncio.run(made()) as stream:
        wait_until(lambda: stream._feed.error is not None)
        found = []
        for _ in range(2):
            with pytest.raises(BadValueError, match="has its frames from 'SIM'") as info:
                stream.read(20)
            found.append(info.value)
        assert found[0] is not found[1]
        ioc.write("image1:NDArrayPort", "ROI1")
        wait_until(lambda: stream._feed.error is None and stream.connected, 20)
        settled(ioc, stream)
        ioc.send(numbered_frame(1, SHAPE))
        shown(stream.read(20), numbered_frame(1, SHAPE)[2:6])


def test_a_plugin_that_the_frames_do_not_come_from(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector(roi="ROI1:")
    ioc.write("image1:NDArrayPort", "SIM")
    with pytest.raises(BadValueError, match="has its frames from 'SIM', not from"):
        epicsx.images(ioc.image_prefix, roi=(2, 6), roi_plugin=ioc.prefix + "ROI1:")
    with pytest.raises(CATimeoutError):
        epicsx.images(ioc.image_prefix, roi=(0, 1), roi_plugin="nosuch:", timeout=0.1)


# ------------------------------------------------------------------------------ codecs


def test_codecs(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    pytest.importorskip("imagecodecs")
    room = 64 * 100
    ioc = detector(
        nelements=room,
        db=[_database(each, room, f"{each}:", "", "record") for each in ("UCHAR", "USHORT")],
    )
    for ftvl in ("UCHAR", "USHORT"):
        turn_to(ioc, ftvl)
        dtype = "uint8" if ftvl == "UCHAR" else "uint16"
        ramp = np.add.outer(np.arange(64), np.arange(100)).astype(dtype)
        stream = watch(ioc, workers=2, roi=(10, 40))
        settled(ioc, stream)
        for codec in ("jpeg", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4"):
            if codec == "jpeg" and ftvl == "USHORT":
                continue
            first = ioc._next_id
            for number in range(6):  # all wait, to be decoded by several threads
                ioc.send(ramp + np.asarray(number, dtype), codec=codec)
                heard(stream, first + number)
            for number in range(6):
                image = stream.read(20)
                frame = (ramp + np.asarray(number, dtype))[10:40]
                assert (image.codec, image.unique_id, image.dtype) == (codec, first + number, dtype)
                if codec == "jpeg":
                    assert np.abs(image.data.astype(int) - frame).max() <= 3
                else:
                    shown(image, frame)
        assert stream.roi_by == "client"
        # Uncompressed again.
        ioc.send(ramp)
        image = stream.read(20)
        shown(image, ramp[10:40])
        assert (image.codec, image.changed) == ("", True)
        assert stream.unmatched == 0
        assert adds_up(stream)


def test_a_damaged_frame(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    pytest.importorskip("imagecodecs")
    ioc = detector(ftvl="UCHAR", nelements=8000)
    stream = watch(ioc)
    settled(ioc, stream)
    frame = numbered_frame(1, (64, 100))
    ioc.send(frame, codec="zlib")
    shown(stream.read(20), frame)
    # What the PVs say of the size is kept: a size of another codec's data is no reason to hand out anything.
    size = ioc.read("image1:CompressedSize_RBV")
    ioc.write("image1:Codec_RBV", "lz4")
    with epicsx.Channel(ioc.image_prefix + "ArrayData") as channel:
        channel.put(channel.get().value, wait=True)
    ioc.write("image1:UniqueId_RBV", 2)
    assert ioc.read("image1:CompressedSize_RBV") == size
    with pytest.raises(BadValueError, match="no lz4 data"):
        stream.read(20)
    ioc.send(frame)
    image = stream.read(20)
    shown(image, frame)
    assert adds_up(stream)


# -------------------------------------------------------------------- the connection


def test_a_lost_connection(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector(ftvl="SHORT")
    stream = watch(ioc)
    settled(ioc, stream)
    ioc.send(numbered_frame(1, (*SHAPE, 3), "uint16"), color_mode="RGB2")
    assert stream.read(20).color_mode.name == "RGB2"
    ioc.kill()
    wait_until(lambda: not stream.connected)
    # Again with another mode, whose records have never been processed: their first value is of 1990.
    ioc.restart()
    wait_until(lambda: stream.connected, 30)
    wait_until(lambda: stream._feed._empty == 2)
    begun(ioc, stream)
    ioc.send(numbered_frame(5, SHAPE, "int16"), unique_id=5)
    image = stream.read(20)
    shown(image, numbered_frame(5, SHAPE, "int16"))
    assert (image.gap, image.changed, image.color_mode.name) == (True, True, "Mono")
    ioc.send(numbered_frame(6, SHAPE, "int16"), unique_id=6)
    image = stream.read(20)
    shown(image, numbered_frame(6, SHAPE, "int16"))
    assert (image.gap, image.lost_before) == (False, 0)
    assert stream.ledger.disconnects == 1
    assert stream.unmatched == 0
    assert adds_up(stream)


def test_it_may_be_made_before_the_ioc(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector()
    ioc.send(numbered_frame(1, SHAPE))
    ioc.stop()
    with epicsx.images(ioc.image_prefix, roi=(2, 5), patience=PATIENCE) as stream:
        assert not stream.connected
        with pytest.raises(CATimeoutError, match=r"no server has answered for .*ArrayData"):
            stream.read(0.05)
        with pytest.raises(CATimeoutError, match="connecting the images"):
            stream.connect(0.05)
        ioc.start()
        stream.connect(20)
        begun(ioc, stream)
        frame = numbered_frame(2, SHAPE)
        ioc.send(frame)
        shown(stream.read(20), frame[2:5])


def test_closing_ends_iteration_and_threads(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector()
    before = threading.enumerate()
    ioc.send(numbered_frame(1, SHAPE))
    stream = epicsx.images(ioc.image_prefix)
    got: list[Image] = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    wait_until(lambda: len(got) == 1)
    stream.close()
    stream.close()
    reader.join(5)
    assert not reader.is_alive()
    assert (stream.closed, stream.connected) == (True, False)
    with pytest.raises(CAError, match="have been closed"):
        stream.read(20)
    assert adds_up(stream)
    assert stream.ledger.pending == 0
    shown(got[0], numbered_frame(1, SHAPE))
    # One that is dropped ends, too.
    left = epicsx.images(ioc.image_prefix)
    left.read(20)
    del left
    gc.collect()
    known = [t for t in threading.enumerate() if t.name.startswith("epicsx-")]
    threads_settle([*before, *known])


def test_a_feed_that_has_ended_does_not_say_that_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(feed: Feed) -> None:
        raise CATimeoutError("of whatever")

    monkeypatch.setattr(Feed, "_set_up", broken)
    with epicsx.images("nobody:image1:") as stream:
        wait_until(lambda: stream._feed.error is not None)
        found = []
        for read in (stream.read, stream.read, stream.connect):
            with pytest.raises(CAError, match="have ended: CATimeoutError: of whatever") as info:
                read(20)
            found.append(info.value)
        assert not any(isinstance(error, CATimeoutError) for error in found)
        assert len({id(error) for error in found}) == 3


def test_nothing_is_heard_after_closing(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., ImageStream]
) -> None:
    ioc = detector()
    stream = watch(ioc)
    ioc.send(numbered_frame(1, SHAPE))
    shown(stream.read(20), numbered_frame(1, SHAPE))
    feed = stream._feed
    stream.close()
    nothing: Any = None
    ledger = stream.ledger
    # What was on its way when it was closed. Without a joiner and without a frame: nobody looks at them.
    feed._joiner = nothing
    feed._news(feed.sources[0], np.zeros(3, "int32"), 0, 0)
    feed._source_lost(feed.sources[0])
    feed._step()
    with feed.lock:
        feed._arrived(nothing, nothing)
    assert (list(feed._ready), feed._pool, stream.ledger) == ([], None, ledger)
    with pytest.raises(CAError, match="have been closed"):
        stream.connect(20)


# ------------------------------------------------------------------------- coroutines


def test_from_coroutines(detector: Callable[..., AreaDetectorIOC]) -> None:
    pytest.importorskip("imagecodecs")
    ioc = detector(nelements=4000)

    async def main() -> list[Image]:
        got: list[Image] = []
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        async with epicsx.images(ioc.image_prefix, patience=PATIENCE) as stream:
            with pytest.raises(CATimeoutError):
                await stream.aread(0.05)
            await asyncio.to_thread(stream.connect)
            await asyncio.to_thread(settled, ioc, stream)
            frames = [numbered_frame(n, SHAPE) for n in range(1, 4)]
            await asyncio.to_thread(ioc.send, frames.pop(0), codec="zlib")
            async for image in stream:
                got.append(image)
                if frames:
                    await asyncio.to_thread(ioc.send, frames.pop(0), codec="zlib")
                else:
                    stream.close()
        ticking.cancel()
        assert ticks > 0
        return got

    for number, image in enumerate(asyncio.run(main()), 1):
        shown(image, numbered_frame(number, SHAPE))
        assert image.unique_id == number


# ------------------------------------------------------------------------------ input


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"prefix": 5}, BadTypeError, "a prefix is a str"),
        ({"prefix": ""}, BadValueError, "a prefix is a text"),
        ({"array": "a\0b"}, BadValueError, "without NUL"),
        ({"depth": 0}, BadValueError, "depth"),
        ({"depth": True}, BadValueError, "depth"),
        ({"workers": 0}, BadValueError, "workers"),
        ({"overflow": "drop"}, BadValueError, "overflow"),
        ({"coherent": "yes"}, BadValueError, "coherent"),
        ({"lane": "fast"}, BadValueError, "lane"),
        ({"overflow": np.zeros(3)}, BadValueError, "overflow"),
        ({"coherent": 1}, BadValueError, "coherent"),
        ({"coherent": np.zeros(3)}, BadValueError, "coherent"),
        ({"lane": np.zeros(3)}, BadValueError, "lane"),
        ({"patience": 0}, BadValueError, "patience"),
        ({"patience": True}, BadTypeError, "patience"),
        ({"patience": "1"}, BadTypeError, "patience"),
        ({"patience": math.inf}, BadValueError, "patience"),
        ({"patience": 10**400}, BadValueError, "patience"),
        ({"patience": math.nan}, BadValueError, "patience"),
        ({"timeout": "x"}, BadTypeError, "timeout"),
        ({"timeout": math.nan}, BadValueError, "timeout"),
        ({"roi": 5}, BadTypeError, "a region is"),
        ({"roi": "12"}, BadTypeError, "a region is"),
        ({"roi": ("a", "b")}, BadTypeError, "whole numbers"),
        ({"roi": (0.5, 1.7)}, BadTypeError, "whole numbers"),
        ({"roi": (True, 3)}, BadTypeError, "whole numbers"),
        ({"roi": (0, 2**31)}, BadValueError, "before pixel"),
        ({"roi": count()}, BadValueError, "5 numbers or more"),
        ({"roi": (1, 2, 3)}, BadValueError, "a region is"),
        ({"roi": (5, 5)}, BadValueError, "behind its beginning"),
        ({"roi": (-1, 5)}, BadValueError, "negative"),
        ({"roi_plugin": "ROI1:"}, BadValueError, "needs the region"),
        ({"roi_plugin": 1, "roi": (1, 2)}, BadTypeError, "NDPluginROI"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], says: str) -> None:
    before = threading.enumerate()
    with pytest.raises(error, match=says):
        epicsx.images(**{"prefix": "nobody:image1:", **options})
    threads_settle(before)


@pytest.mark.parametrize(("timeout", "error"), [("x", BadTypeError), (math.nan, BadValueError)])
def test_bad_timeouts(timeout: Any, error: type[Exception]) -> None:
    with epicsx.images("nobody:image1:") as stream:
        for wait in (stream.read, stream.connect, lambda t: asyncio.run(stream.aread(t))):
            with pytest.raises(error, match="timeout is a number of seconds"):
                wait(timeout)


def test_a_region_of_numpy_numbers() -> None:
    edges: Any = (np.int64(3), np.uint8(9))
    assert Roi.of(edges) == Roi(3, 9)


def test_the_feed_makes_a_coherent_stream_without_waiting() -> None:
    # Plain streams wait for `timeout` seconds in their constructor; in the feed's thread that would outlast `close`.
    with _PatientStream("nobody:array", coherent=True, timeout=0.001) as made:
        assert not made.connected
