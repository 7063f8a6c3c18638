"""Streams: frames in order, each copied once, every loss counted and told."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import posting, run_python, wait_until

import epicsx
from epicsx import (
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    Ledger,
    OverrunError,
    ServerError,
    stream,
)
from epicsx.testing import PVSet, SoftIOC

if TYPE_CHECKING:
    from typing_extensions import Self

TYPES = {
    "CHAR": np.uint8,
    "UCHAR": np.uint8,
    "SHORT": np.int16,
    "USHORT": np.int32,
    "LONG": np.int32,
    "ULONG": np.float64,
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "ENUM": np.uint16,
}
DB = (
    "\n".join(
        f'record(waveform, "$(P)t{ftvl}") {{ field(FTVL, "{ftvl}") field(NELM, "500") }}'
        for ftvl in TYPES
    )
    + """
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "1000") }
record(waveform, "$(P)big") { field(FTVL, "DOUBLE") field(NELM, "50000") }
record(stringin, "$(P)s") { field(VAL, "text") }
record(calc, "$(P)k") { field(CALC, "VAL+1") field(SCAN, ".02 second") }
"""
)


def balanced(ledger: Ledger) -> bool:
    return ledger.received == ledger.delivered + ledger.merged + ledger.dropped + ledger.pending


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that knows filters and is put aside for two seconds shall not count as one that does not."""
    if "no_filters" not in request.fixturenames:
        monkeypatch.setattr("epicsx._streams.PROBE_SECONDS", 20.0)


@pytest.fixture
def w(spare_ioc: Callable[..., SoftIOC]) -> Any:
    return spare_ioc(DB)


class Feeder:
    """Puts frames of which each element says the number, and waits until the stream has them."""

    def __init__(self, name: str, source: Any, count: int = 10) -> None:
        self.channel = Channel(name).connect(20.0)
        self.source, self.count, self.number = source, count, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.channel.close()

    def put(self, n: int = 1, count: int | None = None) -> None:
        for _ in range(n):
            before = self.source.ledger.received
            frame = np.full(self.count if count is None else count, float(self.number))
            self.channel.put(frame, wait=True)
            self.number += 1
            wait_until(functools.partial(self.more_than, before), message="the frame has come")

    def more_than(self, before: int) -> bool:
        return bool(self.source.ledger.received > before)


def started(ioc: SoftIOC, name: str, **options: Any) -> tuple[epicsx.Stream, Feeder]:
    """A plain stream that has seen and handed out the frame of the beginning, and what feeds it."""
    options.setdefault("coherent", False)
    source = stream(ioc[name], **options)
    feeder = Feeder(ioc[name], source)
    wait_until(lambda: source.ledger.received == 1)
    posting(ioc[name])
    return source, feeder


def test_frames_in_order(w: SoftIOC) -> None:
    source, feeder = started(w, "w")
    with source, feeder:
        source.read(20.0)
        feeder.put(20)
        for number in range(20):
            frame = source.read(20.0)
            assert frame.data.tolist() == [number] * 10
            assert frame.index == number + 1
            assert (frame.lost_before, frame.gap, frame.severity, frame.status) == (0, False, 0, 0)
            assert frame.timestamp_ns > 1.7e18
            assert frame.timestamp == pytest.approx(frame.timestamp_ns * 1e-9)
            assert frame.data.ctypes.data % 64 == 0
            assert len(frame) == frame.count == 10
        with pytest.raises(CATimeoutError, match="no frame has come"):
            source.read(0.05)
        ledger = source.ledger
        assert (ledger.received, ledger.delivered, ledger.pending) == (21, 21, 0)
        assert ledger.bytes == 20 * 80  # the first had none
        assert balanced(ledger)
        assert source.lane == "bulk"
        assert source.coherent is False
        del frame


def test_each_type_has_its_dtype(w: SoftIOC) -> None:
    for ftvl, dtype in TYPES.items():
        with Channel(w["t" + ftvl]) as channel, stream(w["t" + ftvl], coherent=False) as source:
            source.read(20.0)
            posting(w["t" + ftvl])
            values = np.arange(17).astype(dtype)
            channel.put(values, wait=True)
            frame = source.read(20.0)
            assert frame.data.dtype == dtype, ftvl
            assert frame.data.tolist() == values.tolist()
            view = memoryview(frame)
            assert view.nbytes == values.nbytes
            assert view.format == values.dtype.char
            shared = np.from_dlpack(frame)
            assert shared.ctypes.data == frame.data.ctypes.data
            assert np.asarray(frame).ctypes.data == frame.data.ctypes.data
            copied = np.array(frame, copy=True)
            assert copied.ctypes.data != frame.data.ctypes.data
            del frame, view, shared


def test_a_frame_that_is_held_is_never_overwritten(w: SoftIOC) -> None:
    source, feeder = started(w, "w", depth=2)
    with source, feeder:
        source.read(20.0)
        held = []
        for _ in range(30):
            feeder.put()
            held.append(source.read(20.0).data[3:5])
        feeder.put(30)
    for number, view in enumerate(held):
        assert view.tolist() == [number] * 2


def test_frames_outlive_stream_and_slab_goes_back(w: SoftIOC) -> None:
    from epicsx._ca import blocks

    source, feeder = started(w, "w")
    with source, feeder:
        feeder.put(3)
        frames = [source.read(20.0) for _ in range(4)]
    assert blocks() >= 4
    data = frames[3].data
    del frames, source
    gc.collect()
    wait_until(lambda: blocks() == 1)
    assert data.tolist() == [2.0] * 10
    del data
    assert blocks() == 0


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_what_does_not_fit_is_dropped_and_told(w: SoftIOC, overflow: Any) -> None:
    source, feeder = started(w, "w", depth=5, overflow=overflow)
    with source, feeder:
        feeder.put(12)  # with the first one: 13
        ledger = source.ledger
        assert (ledger.received, ledger.dropped, ledger.pending) == (13, 8, 5)
        frames = [source.read(20.0) for _ in range(5)]
        if overflow == "drop_oldest":
            assert [f.index for f in frames] == [8, 9, 10, 11, 12]
            assert [f.lost_before for f in frames] == [8, 0, 0, 0, 0]
        else:
            assert [f.index for f in frames] == [0, 1, 2, 3, 4]
            assert [f.lost_before for f in frames] == [0] * 5
            feeder.put()
            frame = source.read(20.0)
            assert (frame.index, frame.lost_before) == (13, 8)
            assert frame.data[0] == 12.0
            del frame
        assert balanced(source.ledger)
        del frames


def test_an_overrun_raises_once(w: SoftIOC) -> None:
    source, feeder = started(w, "w", depth=3, overflow="error")
    with source, feeder:
        feeder.put(5)
        for index in range(3):
            assert source.read(20.0).index == index
        with pytest.raises(OverrunError, match="3 frames were waiting"):
            source.read(20.0)
        feeder.put()
        frame = source.read(20.0)
        assert (frame.index, frame.lost_before) == (6, 3)
        del frame
        assert source.ledger.dropped == 3


def test_the_latest(w: SoftIOC) -> None:
    with stream(w["nobody"], coherent=False) as source:
        assert source.latest() is None
    source, feeder = started(w, "w")
    with source, feeder:
        feeder.put(6)
        frame = source.latest()
        assert (frame.index, frame.lost_before) == (6, 6)
        assert source.latest() is frame
        ledger = source.ledger
        assert (ledger.merged, ledger.delivered, ledger.pending) == (6, 1, 0)
        feeder.put()
        assert source.latest().index == 7
        del frame


def test_blocks(w: SoftIOC) -> None:
    source, feeder = started(w, "w", block=4)
    with source, feeder:
        feeder.put(9)
        first = source.read(20.0)  # the record was empty at first
        assert first.data.shape == (1, 0)
        block = source.read(20.0)
        assert block.data.shape == (4, 10)
        assert block.data[:, 5].tolist() == [0, 1, 2, 3]
        assert block.index.tolist() == [1, 2, 3, 4]
        assert block.timestamp_ns.dtype == np.int64
        assert (np.diff(block.timestamp_ns) > 0).all()
        assert block.severity.tolist() == block.lost_before.tolist() == [0] * 4
        assert not block.gap.any()
        assert block.data.ctypes.data % 64 == 0
        assert np.from_dlpack(block).shape == memoryview(block).shape == (4, 10)
        assert len(block) == 4
        assert source.read(20.0).index.tolist() == [5, 6, 7, 8]
        with pytest.raises(CATimeoutError):
            source.read(0.05)
        assert source.ledger.pending == 1
        feeder.put(2, count=7)  # another length ends the block of one
        assert source.read(20.0).data.shape == (1, 10)
        feeder.put(2, count=7)
        assert source.read(20.0).data.tolist() == [[n] * 7 for n in (9, 10, 11, 12)]
        assert balanced(source.ledger)
        del block, first


def test_length_varies_from_frame_to_frame(w: SoftIOC) -> None:
    source, feeder = started(w, "w")
    with source, feeder:
        assert source.read(20.0).count == 0
        for count in (1, 999, 0, 5, 1000):
            feeder.put(count=count)
            frame = source.read(20.0)
            assert frame.data.shape == (count,)
            assert frame.data.tolist() == [feeder.number - 1] * count
            del frame


def test_at_most_so_many_elements(w: SoftIOC) -> None:
    source, feeder = started(w, "w", count=4)
    with source, feeder:
        source.read(20.0)
        feeder.put()
        assert source.read(20.0).count == 4


def test_a_scalar_is_a_frame_of_one(w: SoftIOC) -> None:
    with stream(w["k"]) as source:
        source.read(
            20.0
        )  # the server may leave some out between this one and the first that it posts
        first, second = source.read(20.0), source.read(20.0)
        assert second.data.shape == (1,)
        assert second.data[0] == first.data[0] + 1
        del first, second


def test_iteration_ends_with_the_stream(w: SoftIOC) -> None:
    source = stream(w["k"])
    seen = []
    closed = threading.Event()

    def read() -> None:
        for frame in source:
            seen.append(frame.index)
        closed.set()

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: len(seen) > 5)
    source.close()
    assert closed.wait(5.0)
    thread.join()
    assert seen == list(range(len(seen)))
    with pytest.raises(CAError, match="has been closed"):
        source.read(0.1)
    source.close()
    ledger = source.ledger
    assert balanced(ledger)
    assert ledger.delivered == len(seen)


def test_what_waits_at_the_close_is_dropped(w: SoftIOC) -> None:
    source, feeder = started(w, "w")
    with feeder:
        feeder.put(4)
        source.close()
        ledger = source.ledger
        assert (ledger.received, ledger.dropped, ledger.pending) == (5, 5, 0)


def test_readers_in_threads_share_the_frames(w: SoftIOC) -> None:
    source, feeder = started(w, "w", depth=1000)
    seen: list[list[int]] = [[], [], []]

    def read(number: int) -> None:
        for frame in source:
            seen[number].append(frame.index)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(3)]
    with source, feeder:
        for thread in threads:
            thread.start()
        feeder.put(100)
        wait_until(lambda: sum(map(len, seen)) == 101)
    for thread in threads:
        thread.join(5.0)
    assert sorted(n for each in seen for n in each) == list(range(101))
    for each in seen:
        assert each == sorted(each)


# ---- coroutines


def test_async_for(w: SoftIOC) -> None:
    async def main() -> list[int]:
        found = []
        async with stream(w["k"]) as source:
            async for frame in source:
                found.append(int(frame.data[0]))
                if len(found) == 6:
                    break
            with pytest.raises(CATimeoutError):
                with stream(w["nobody"]) as other:
                    await other.aread(0.1)
            assert balanced(source.ledger)
        return found

    found = asyncio.run(main())
    # the server may leave some out between the first and the next
    assert np.diff(found[1:]).tolist() == [1, 1, 1, 1]


def test_tasks_of_one_loop_share_and_the_end_ends_them(w: SoftIOC) -> None:
    async def main() -> None:
        source = stream(w["k"])
        counts = [0, 0]

        async def read(number: int) -> None:
            async for _ in source:
                counts[number] += 1

        tasks = [asyncio.create_task(read(n)) for n in range(2)]
        while sum(counts) < 20:
            await asyncio.sleep(0.01)
        source.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 5.0)
        assert sum(counts) == source.ledger.delivered

    asyncio.run(main())


def test_one_stream_read_by_loops_one_after_the_other(w: SoftIOC) -> None:
    with stream(w["k"]) as source:

        async def one() -> int:
            frame = await source.aread(5.0)
            return int(frame.index)

        first = asyncio.run(one())
        second = asyncio.run(one())
        third = source.read(20.0).index
        assert first < second < third


# ---- losses of the connection


def test_a_lost_connection_is_a_gap(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(DB)
    source, feeder = started(ioc, "w")
    with source, feeder:
        source.read(20.0)
        feeder.put(2)
        ioc.restart()
        wait_until(lambda: source.ledger.disconnects == 1)
        wait_until(lambda: source.ledger.received == 4, 30.0)
        frames = [source.read(20.0) for _ in range(3)]
        assert [f.gap for f in frames] == [False, False, True]
        assert [f.lost_before for f in frames] == [0, 0, 1]
        assert [f.index for f in frames] == [1, 2, 3]
        del frames


def test_a_record_that_comes_back_as_another_type(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc('record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10") }')
    source = stream(ioc["w"], coherent=False)
    with source, Channel(ioc["w"]) as channel:
        source.read(20.0)
        posting(ioc["w"])
        channel.put(np.arange(10.0), wait=True)
        assert source.read(20.0).data.dtype == np.float64
        other = 'record(waveform, "$(P)w") { field(FTVL, "SHORT") field(NELM, "20") }'
        ioc.stop()
        with SoftIOC(
            other,
            {"P": ioc.prefix},
            server_port=ioc.server_port,
            repeater_port=ioc.repeater_port,
        ):
            frame = source.read(30.0)
            assert (frame.data.dtype, frame.count, frame.gap) == (np.int16, 0, True)
            posting(ioc["w"])
            channel.connect(20.0).put(np.arange(20), wait=True)
            frame = source.read(20.0)
            assert frame.data.tolist() == list(range(20))
            assert (frame.gap, frame.lost_before) == (False, 0)
            del frame


def test_a_pv_that_appears_later(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(DB)
    name = ioc["k"]
    ioc.stop()
    with stream(name) as source:
        with pytest.raises(CATimeoutError, match="no server has answered"):
            source.read(0.1)
        ioc.start()
        assert source.read(30.0).count == 1


# ---- coherence


def test_auto_is_coherent_where_the_array_is_full(w: SoftIOC) -> None:
    with Channel(w["w"]) as channel:
        channel.put(np.arange(1000.0), wait=True)
    with stream(w["w"]) as source:
        source.connect(20.0)
        assert source.coherent is True
        assert source.read(20.0).data.tolist() == list(range(1000))
    with Channel(w["w"]) as channel:
        channel.put(np.arange(10.0), wait=True)
    with stream(w["w"]) as source:  # the filter would fill it up with zeros
        source.connect(20.0)
        assert source.coherent is False
        assert source.read(20.0).count == 10


def test_auto_is_plain_for_large_arrays(w: SoftIOC) -> None:
    with stream(w["big"]) as source:
        source.connect(20.0)
        assert source.coherent is False


def test_a_name_that_asks_for_the_filter_itself(w: SoftIOC) -> None:
    with Channel(w["w"]) as channel:
        channel.put(np.arange(1000.0), wait=True)
    name = epicsx.filter_name(w["w"], slice=(0, 5), coherent=True)
    for coherent in ("auto", True, False):
        with stream(name, coherent=coherent) as source:
            source.connect(20.0)
            assert source.coherent is True
            assert source.read(20.0).data.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(BadValueError, match="JSON"):
        stream(w["w"] + '.{"ts":')


def test_a_filtered_channel_streams_filtered(w: SoftIOC) -> None:
    with Channel(w["w"]) as channel:
        channel.put(np.arange(1000.0), wait=True)
        with channel[2:5] as part, part.stream() as source:
            assert source.read(20.0).data.tolist() == [2, 3, 4]


def test_what_this_client_filters_has_no_stream(no_filters: PVSet) -> None:
    with Channel("nofilter:w").connect(20.0) as channel:
        with channel.filter(slice=(0, 2), client_side=True, timeout=10.0) as part:
            assert part.filtered == "client"
            with pytest.raises(BadValueError, match="this client applies"):
                part.stream()
            with pytest.raises(BadValueError, match="this client applies"):
                epicsx.Recorder([part])


def test_strictly_coherent(w: SoftIOC) -> None:
    with Channel(w["w"]) as channel:
        channel.put(np.arange(1000.0), wait=True)
        with stream(w["w"], coherent=True) as source:
            assert source.coherent is True
            assert source.read(20.0).data.tolist() == list(range(1000))
            posting(w["w"])
            channel.put(np.arange(1000.0) + 1, wait=True)
            assert source.read(20.0).data[0] == 1.0


BURSTS = """
record(calc, "$(P)n") { field(CALC, "VAL+1") field(FLNK, "$(P)a") }
record(compress, "$(P)a") {
    field(ALG, "Circular Buffer") field(INP, "$(P)n NPP") field(NSAM, "20000")
}
"""
BURST = 40


def test_in_bursts_a_plain_stream_repeats_frames_and_a_coherent_one_keeps_them_in_step(
    spare_ioc: Callable[..., SoftIOC],
) -> None:
    """The IOC stamps when it posts and reads the array when it sends; with the filter it copies when it posts."""
    ioc = spare_ioc(BURSTS)
    with Channel(ioc["n"] + ".PROC") as process, Channel(ioc["n"]) as n:
        process.connect(20.0)
        for _ in range(20_000):  # full, as the filter fills up with zeros
            process.put(1)
        wait_until(lambda: n.get(timeout=30.0).value == 20_000, 30.0)

        def burst(source: epicsx.Stream) -> list[tuple[int, float]]:
            """Stamp and newest element of what came of one burst."""
            end = n.get().value + BURST
            for _ in range(BURST):
                process.put(1)
            found: list[tuple[int, float]] = []
            while not found or found[-1][1] != end:
                frame = source.read(10.0)
                found.append((frame.timestamp_ns, float(frame.data[-1])))
            return found

        with stream(ioc["a"], coherent=True, depth=1000) as source:
            source.read(20.0)
            posting(ioc["a"])
            for _ in range(5):
                found = burst(source)
                stamps, values = zip(*found, strict=True)
                assert values == tuple(np.arange(values[-1] - BURST + 1, values[-1] + 1))
                assert sorted(set(stamps)) == list(stamps)
        with stream(ioc["a"], coherent=False, depth=1000) as source:
            source.read(20.0)
            posting(ioc["a"])

            def torn() -> bool:
                # Two posts, two stamps, and one and the same content: that of the later.
                stamps, values = zip(*burst(source), strict=True)
                return len(set(values)) < len(set(stamps))

            wait_until(torn, 30.0)


def test_auto_falls_back_where_the_server_has_no_filter(
    no_filters: PVSet, caplog: pytest.LogCaptureFixture
) -> None:
    with stream("nofilter:w") as source:
        source.connect(10.0)
        wait_until(lambda: source.coherent is not None)
        assert source.coherent is False
        assert "does not answer for the name with the ts filter" in caplog.text
        assert source.read(20.0).data.tolist() == [1.0, 2.0, 3.0]
        with Channel("nofilter:w") as channel:
            channel.put([4.0, 5.0, 6.0], wait=True)
        frame = source.read(20.0)
        assert frame.data.tolist() == [4.0, 5.0, 6.0]
        assert not frame.gap
        del frame


def test_strict_needs_a_server_that_can(no_filters: PVSet) -> None:
    with pytest.raises(ServerError, match="ts filter"):
        stream("nofilter:w", coherent=True, timeout=10.0)


# ---- bad input


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 0},
        {"depth": 2.5},
        {"depth": True},
        {"block": 0},
        {"depth": 3, "block": 4},
        {"overflow": "wait"},
        {"coherent": "yes"},
        {"lane": "fast"},
        {"count": -1},
        {"mask": 0},
        {"mask": 99},
        {"coherent": 1},
        {"block": 2**61, "depth": 2**61},
        {"reduce": epicsx.reducers.mean(), "block": 2},
    ],
)
def test_options_that_cannot_be(w: SoftIOC, options: dict[str, Any]) -> None:
    with pytest.raises(BadValueError):
        stream(w["w"], **options)


def test_frames_are_not_made_by_hand() -> None:
    for kind in (epicsx.Frame, epicsx.Block, epicsx.reducers.Reducer):
        with pytest.raises(TypeError):
            kind()


def test_a_timeout_that_is_no_number(w: SoftIOC) -> None:
    with stream(w["w"], coherent=False) as source:
        with pytest.raises(BadValueError, match="nan"):
            source.read(float("nan"))


def test_a_cleared_channel_is_said(w: SoftIOC) -> None:
    import epicsx.ca as ca

    with stream(w["w"], coherent=False) as source:
        source.read(20.0)
        chid = ca.create_channel(w["w"], connect=True)
        ca.clear_channel(chid)
        with pytest.raises(CAError, match="cleared"):
            for _ in source:
                pass


def test_a_coherent_stream_outlives_a_restart(spare_ioc: Callable[..., SoftIOC]) -> None:
    full = 'record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10") }'
    ioc = spare_ioc(full)
    with stream(ioc["w"], coherent=True, timeout=20.0) as source:
        source.read(20.0)
        ioc.restart()
        wait_until(lambda: source.ledger.disconnects == 1, 20.0)
        frame = source.read(40.0)
        assert frame.gap
        assert source.coherent is True
        del frame


def test_a_coherent_stream_may_be_made_in_a_callback(w: SoftIOC) -> None:
    found: list[object] = []

    def make(sample: object) -> None:
        if found:
            return
        with stream(w["w"], coherent=True, timeout=20.0) as source:
            found.append(source.coherent)

    with Channel(w["k"]) as channel, channel.subscribe(make):
        wait_until(lambda: found, 30.0)
    assert found == [True]


def test_texts_are_no_frames(w: SoftIOC) -> None:
    with stream(w["s"], coherent=False) as source:
        with pytest.raises(BadTypeError, match="texts"):
            source.connect(20.0)
        with pytest.raises(BadTypeError, match="texts"):
            list(source)
    with pytest.raises(BadTypeError, match="texts"):
        stream(w["s"], coherent=True)


def test_no_read_access_is_said(ioc: SoftIOC) -> None:
    with stream(ioc["noaccess"], coherent=False) as source:
        with pytest.raises(epicsx.AccessError, match="read access"):
            source.read(20.0)


def test_a_channel_streams(w: SoftIOC) -> None:
    with Channel(w["k"]) as channel:
        source = channel.stream(depth=3)
        assert source.read(20.0).count == 1
    assert source.read(20.0).count == 1  # a stream is its own handle
    source.close()
    with pytest.raises(CAError, match="closed"):
        channel.stream()


def test_a_forked_child_cannot_read_and_ends_quietly(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(DB)
    script = """
import os, sys
import epicsx
source = epicsx.stream(sys.argv[1] + "k")
source.read(10.0)
pid = os.fork()
if pid == 0:
    try:
        source.read(1.0)
    except epicsx.CAError as error:
        assert "fork" in str(error), error
        with epicsx.stream(sys.argv[1] + "k") as mine:
            mine.read(10.0)
        os._exit(0)
    os._exit(1)
_, status = os.waitpid(pid, 0)
assert status == 0, status
source.read(10.0)
print("ok")
"""
    done = run_python(script, ioc.prefix, env=ioc.env)
    assert done.stdout == "ok\n"


def test_the_end_of_the_program_with_an_open_stream(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(DB)
    script = """
import sys, threading
import epicsx
source = epicsx.stream(sys.argv[1] + "k")
def read():
    for frame in source:
        pass
threading.Thread(target=read, daemon=True).start()
source.connect(20.0)
print("ok")
"""
    done = run_python(script, ioc.prefix, env=ioc.env)
    assert (done.stdout, done.stderr) == ("ok\n", "")
