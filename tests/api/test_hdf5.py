"""Recordings: what is in the file is what came, and what did not come is told."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from support import Client, posting, run_python, start_python, wait_until

import epicsx
from epicsx import (
    BadTypeError,
    BadValueError,
    CAError,
    Channel,
    Recorder,
    _hdf5,
    _hdf5_files,
    _hdf5_tracks,
)
from epicsx.testing import SoftIOC

h5py = pytest.importorskip("h5py")

DB = """
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "100") field(EGU, "mV") }
record(ao, "$(P)a") { field(EGU, "mm") field(HIGH, "10") field(HSV, "MINOR") }
record(ao, "$(P)b") { }
"""


TYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")


def frames_of(group: Any) -> list[tuple[int, int, int, bool, Any]]:
    """Every frame of the only run as (index, timestamp_ns, lost_before, gap, values)."""
    found: list[tuple[int, int, int, bool, Any]] = []

    def add(table: Any, values: list[Any]) -> None:
        columns = [
            table[name][:].tolist() for name in ("index", "timestamp_ns", "lost_before", "gap")
        ]
        found.extend(zip(*columns, values[: len(columns[0])], strict=True))

    if "data" in group:
        add(group, list(group["data"][:]))
    others = group["varying"]
    flat = {name: others[name][:] for name in TYPES}
    where = zip(others["type"][:], others["offset"][:], others["count"][:], strict=True)
    add(others, [flat[kind.decode()][start : start + n] for kind, start, n in where])
    return sorted(found, key=lambda frame: frame[0])


class Feeder:
    """Puts arrays one by one, each when the one before has come to `stream`; what the record then had."""

    def __init__(self, name: str, stream: epicsx.Stream) -> None:
        self.channel = Channel(name).connect(30.0)
        self.stream = stream
        self.sent: list[tuple[int, Any]] = []

    def put(self, *arrays: Any) -> None:
        for values in arrays:
            before = self.stream.ledger.received
            self.channel.put(values, wait=True)
            sample = self.channel.get()
            self.sent.append((sample.timestamp_ns, sample.value))
            wait_until(partial(self.came, before + 1))

    def came(self, received: int) -> bool:
        return self.stream.ledger.received >= received


@contextmanager
def recording(source: Any, path: Path, **options: Any) -> Iterator[threading.Thread]:
    """``source.to_hdf5`` in a thread, and its end."""
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(source.to_hdf5(path, **options))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
        if "frames" in options:
            thread.join(20)
    finally:
        source.close()  # what waits then is dropped
        thread.join(20)
    assert not thread.is_alive()
    if isinstance(result[0], BaseException):
        raise result[0]


def opened(name: str, **options: Any) -> epicsx.Stream:
    """A stream that has had its first frame."""
    options.setdefault("coherent", False)
    options.setdefault("depth", 1000)  # a busy machine may be slow to write
    stream = epicsx.stream(name, **options).connect(20.0)
    wait_until(lambda: stream.ledger.received)
    posting(name)
    return stream


@pytest.fixture
def waves(spare_ioc: Callable[..., SoftIOC]) -> SoftIOC:
    return spare_ioc(DB)


def same(frames: list[Any], sent: list[tuple[int, Any]]) -> None:
    assert [f[1] for f in frames] == [stamp for stamp, _ in sent]
    for frame, (_, values) in zip(frames, sent, strict=True):
        np.testing.assert_array_equal(frame[4], values)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
def test_values_stamps_and_alarms(waves: SoftIOC, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "run.h5"
    with Channel(waves["w"]) as channel:
        channel.put(np.zeros(100), wait=True)
    stream = opened(waves["w"])
    feeder = Feeder(waves["w"], stream)
    first = stream.latest()
    reports: list[Any] = []
    with recording(stream, path, frames=300, progress=reports.append, **options) as thread:
        feeder.put(*(np.arange(100.0) + i for i in range(300)))
        thread.join(20)
        ledger = stream.ledger
    with h5py.File(path) as file:
        assert file.attrs["format"] == "epicsx recording"
        assert file.attrs["epicsx_version"] == epicsx.__version__
        assert 0 < file.attrs["start_ns"] < file.attrs["end_ns"]
        group = file[waves["w"]]
        assert group.attrs["name"] == waves["w"]
        assert group.attrs["units"] == "mV"
        assert group.attrs["native_type"] == "DOUBLE"
        assert group["data"].shape == (300, 100)
        assert group["data"].compression == options.get("compression")
        same(frames_of(group), feeder.sent)
        assert list(group["index"]) == list(range(first.index + 1, first.index + 301))
        assert not any(group["gap"])
        assert not any(group["severity"])
        assert all(group[n].dtype == "i2" for n in ("severity", "status"))
        noted = group["ledger"][-1]
        assert (noted["stored"], noted["received"], noted["dropped"]) == (300, ledger.received, 0)
        (run,) = group["runs"]
        assert 0 < run["start_ns"] < run["end_ns"]
    assert reports[-1].frames == 300
    assert reports[-1].bytes == 300 * 800
    assert reports[-1].lost == 0


def test_blocks_and_a_type_of_few_bytes(ioc: SoftIOC, tmp_path: Path) -> None:
    name, path = ioc["w:short"], tmp_path / "run.h5"
    with Channel(name) as channel:
        channel.put([0, 1, 2], wait=True)
    stream = opened(name, block=4)
    feeder = Feeder(name, stream)
    with recording(stream, path, frames=6):  # whole blocks: 8
        feeder.put(*([i, i + 1, i + 2] for i in range(7)))
    with h5py.File(path) as file:
        data = file[name]["data"]
        assert data.dtype == np.int16
        np.testing.assert_array_equal(data, [[0, 1, 2], *([i, i + 1, i + 2] for i in range(7))])
        assert list(file[name]["index"]) == list(range(8))


def test_large_frames(ioc: SoftIOC, tmp_path: Path) -> None:
    name, path = ioc["big:char"], tmp_path / "run.h5"
    size = 4_177_920
    with Channel(name) as channel:
        channel.put(np.zeros(size, np.uint8), wait=True, timeout=20)
    stream = opened(name)
    feeder = Feeder(name, stream)
    with recording(stream, path, frames=5):
        feeder.put(*(np.full(size, i, np.uint8) for i in range(1, 5)))
    with h5py.File(path) as file:
        assert file[name]["data"].chunks == (1, size)
        assert [int(row.min()) for row in file[name]["data"]] == [0, 1, 2, 3, 4]
        assert [int(row.max()) for row in file[name]["data"]] == [0, 1, 2, 3, 4]
    with Channel(name) as channel:
        channel.put(np.zeros(0, np.uint8), wait=True)


def test_frames_of_any_length(ioc: SoftIOC, tmp_path: Path) -> None:
    name, path = ioc["w:double"], tmp_path / "run.h5"
    with Channel(name) as channel:
        channel.put(np.arange(20.0), wait=True)
    stream = opened(name)
    feeder = Feeder(name, stream)
    feeder.sent.append((stream._home.get().timestamp_ns, np.arange(20.0)))
    lengths = [20, 3, 0, 20, 32, 1, 20]
    with recording(stream, path, frames=8) as thread:
        feeder.put(*(np.arange(n) + 0.5 for n in lengths))
        thread.join(20)
    with h5py.File(path) as file:
        group = file[name]
        assert group["data"].shape == (4, 20)
        assert list(group["varying/count"]) == [3, 0, 32, 1]
        assert len(group["varying/float64"]) == 36  # nothing is filled up
        same(frames_of(group), feeder.sent)


def test_a_record_that_was_empty_at_first(waves: SoftIOC, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    stream = opened(waves["w"])
    feeder = Feeder(waves["w"], stream)
    with recording(stream, path, frames=4):
        feeder.put(*(np.arange(100.0) + i for i in range(3)))
    with h5py.File(path) as file:
        group = file[waves["w"]]
        assert group["data"].shape == (3, 100)
        assert list(group["varying/count"]) == [0]
        assert [f[0] for f in frames_of(group)] == [0, 1, 2, 3]


def test_another_type_after_a_reconnect(waves: SoftIOC, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Channel(waves["w"]) as channel:
        channel.put(np.arange(100.0), wait=True)
    stream = opened(waves["w"])
    with recording(stream, path, frames=3) as thread:
        waves.kill()
        wait_until(lambda: stream.ledger.disconnects)
        waves.restart(DB.replace('"DOUBLE"', '"LONG"'))
        wait_until(lambda: stream.ledger.received == 2, 20)
        Feeder(waves["w"], stream).put([7, -8, 9])
        thread.join(20)
    with h5py.File(path) as file:
        frames = frames_of(file[waves["w"]])
        assert [f[3] for f in frames] == [False, True, False]
        assert [f[2] for f in frames] == [0, 1, 0]
        assert [f[4].dtype.name for f in frames] == ["float64", "int32", "int32"]
        assert list(frames[2][4]) == [7, -8, 9]
        assert file[waves["w"]]["ledger"][-1]["disconnects"] == 1


def test_what_the_ring_drops_is_in_the_file(ioc: SoftIOC, tmp_path: Path) -> None:
    name, path = ioc["w:double"], tmp_path / "run.h5"
    with Channel(name) as channel:
        channel.put([0.0, 0.0], wait=True)
    stream = opened(name, depth=3)
    Feeder(name, stream).put(*([i, i + 1.0] for i in range(9)))
    with stream:
        ledger = stream.to_hdf5(path, frames=3)
    assert (ledger.received, ledger.dropped) == (10, 7)
    with h5py.File(path) as file:
        group = file[name]
        noted = group["ledger"][-1]
        assert (noted["received"], noted["dropped"], noted["stored"]) == (10, 7, 3)
        assert list(group["lost_before"]) == [7, 0, 0]
        assert [list(row) for row in group["data"]] == [[6, 7], [7, 8], [8, 9]]


def test_what_a_reducer_makes(ioc: SoftIOC, tmp_path: Path) -> None:
    name, path = ioc["w:double"], tmp_path / "run.h5"
    with Channel(name) as channel:
        channel.put([1.0, 2.0, 6.0], wait=True)
    with epicsx.stream(name, reduce=epicsx.reducers.minmax()) as stream:
        stream.to_hdf5(path, frames=1)
    with h5py.File(path) as file:
        assert [list(row) for row in file[name]["data"]] == [[1, 6]]


def test_seconds_end_it_without_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with epicsx.stream("no/such") as stream:
        ledger = stream.to_hdf5(path, seconds=0.2)
        assert ledger.received == 0
    with h5py.File(path) as file:
        group = file["no%2Fsuch"]
        assert group.attrs["name"] == "no/such"
        assert "data" not in group
        assert frames_of(group) == []
        assert file.attrs["end_ns"] > 0


def test_an_error_of_the_stream_leaves_a_whole_file(ioc: SoftIOC, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with epicsx.stream(ioc["wf:string:n"]) as stream, pytest.raises(BadTypeError, match="texts"):
        stream.to_hdf5(path)
    with h5py.File(path) as file:
        assert file.attrs["end_ns"] > 0
    with pytest.raises(CAError, match="closed"):
        stream.to_hdf5(tmp_path / "other.h5")
    assert not (tmp_path / "other.h5").exists()


# ---- reading meanwhile, and after a kill

READER = """
import sys, h5py
with h5py.File(sys.argv[1], "r", swmr=True) as file:
    group = file[sys.argv[2]]
    for line in sys.stdin:
        for name in ("ledger", "timestamp_ns", "data"):  # the data of a stamp are there before it
            group[name].refresh()
        n = len(group["timestamp_ns"])
        right = [int(x) for x in group["data"][:n, 0]] == list(range(n))
        print("rows", n, right, group["ledger"][-1]["stored"] <= n)
"""


def test_it_is_read_while_it_grows(waves: SoftIOC, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Channel(waves["w"]) as channel:
        channel.put(np.zeros(100), wait=True)
    stream = opened(waves["w"])
    feeder = Feeder(waves["w"], stream)
    next(stream)
    with recording(stream, path):
        feeder.put(np.zeros(100))
        wait_until(lambda: path.exists() and path.stat().st_size > 800 and _flagged(path))
        with start_python(READER, str(path), waves["w"]) as reader:

            def rows() -> int:
                reader.send("look")
                _, n, right, noted = reader.wait_line("rows").split()
                assert (right, noted) == ("True", "True")
                return int(n)

            def reached(upto: int) -> bool:
                return rows() == upto

            wait_until(partial(reached, 1), 30.0)
            for upto in (20, 200):
                feeder.put(*(np.full(100, i) for i in range(len(feeder.sent), upto)))
                wait_until(partial(reached, upto))  # without reopening it
            # nobody else may record into it
            with pytest.raises(BlockingIOError, match="open in another"):
                opened(waves["w"]).to_hdf5(path, mode="a")
            with pytest.raises(BlockingIOError):
                opened(waves["w"]).to_hdf5(path, mode="w")
            reader.finish()
    with h5py.File(path) as file:
        same(frames_of(file[waves["w"]]), feeder.sent)


def _flagged(path: Path) -> bool:
    """Whether a writer has it open for readers: HDF5's flag."""
    return path.read_bytes()[11:12] == b"\5"


WRITER = """
import sys, epicsx
stream = epicsx.stream(sys.argv[1], coherent=False, depth=10000)
print("recording")
stream.to_hdf5(sys.argv[2], compression=sys.argv[3] or None, progress=lambda p: print(p.frames))
"""


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_a_killed_process_leaves_a_file_that_reads_and_goes_on(
    waves: SoftIOC, tmp_path: Path, compression: str
) -> None:
    name, path = waves["w"], tmp_path / "run.h5"
    with Channel(name) as channel:
        channel.put(np.zeros(100), wait=True)
        client = start_python(WRITER, name, str(path), compression, env=waves.env)
        try:
            client.wait_line("recording")
            _fed(channel, client)
        finally:
            client.kill()
    with h5py.File(path, "r", swmr=True) as file:
        group = file[name]
        n = len(group["timestamp_ns"])
        assert n >= group["ledger"][-1]["stored"] > 0
        # Nothing is made up or missing among them. (Frames that the IOC itself passes over have no index.)
        frames = frames_of(group)
        assert [f[0] for f in frames] == list(range(n))
        assert all(np.diff([f[1] for f in frames]) > 0)
        values = [int(f[4][0]) for f in frames]
        assert values == sorted(values)
        assert all(f[4].min() == f[4].max() for f in frames)
        assert file.attrs["end_ns"] == 0
        noted = group["ledger"][-1]
        assert 0 < noted["stored"] <= n
        assert noted["received"] >= noted["stored"]
    with epicsx.stream(name) as stream:
        stream.to_hdf5(path, frames=1, mode="a")
    with h5py.File(path) as file:  # and is an ordinary file again
        group = file[name]
        assert len(group["timestamp_ns"]) == len(group["data"]) == n + 1
        assert [bool(x) for x in group["gap"]] == [False] * n + [True]
        assert [run["end_ns"] > 0 for run in group["runs"]] == [False, True]
        assert int(group["data"][n - 1][0]) == values[-1]


def _fed(channel: Channel, client: Client) -> None:
    """Put numbers until the client has told twice that it has taken some."""
    told = threading.Event()

    def listen() -> None:
        client.wait_line("")
        client.wait_line("")
        told.set()

    thread = threading.Thread(target=listen)
    thread.start()
    number = 0
    while (
        not told.wait(0.001) and number < 100_000
    ):  # in all its ring holds, the client may stand still for 10 s
        number += 1
        channel.put(np.full(100, number), wait=True)
    thread.join(20)


# ---- what comes in the middle of it


def aligned(group: Any) -> int:
    """How many rows the columns of `data` have, each as many; what they say of each fits its values."""
    n = len(group["timestamp_ns"])
    assert [len(group[name]) for name in COLUMNS] == [n] * len(COLUMNS)
    assert list(group["index"]) == list(range(n))
    np.testing.assert_array_equal(group["data"][:, 0], group["data"][:, -1])
    return n


COLUMNS = ("data", "timestamp_ns", "severity", "status", "index", "lost_before", "gap")


@pytest.mark.parametrize("length", [50, 100])
def test_what_is_broken_off_is_written_again(
    waves: SoftIOC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """A column fails, once each: no row is shifted, none is lost. 50: they go to `varying`."""
    path = tmp_path / "run.h5"
    with Channel(waves["w"]) as channel:
        channel.put(np.zeros(100), wait=True)
    stream = opened(waves["w"])
    feeder = Feeder(waves["w"], stream)
    feeder.sent.append((stream._home.get().timestamp_ns, np.zeros(100)))
    feeder.put(*(np.full(length, i + 1.0) for i in range(40)))
    failing = [*COLUMNS, "offset", "type", "float64"]
    write = _hdf5_tracks._Grown.write

    def flaky(self: Any, row: int, parts: Any) -> int:
        name = self.dataset.name.rpartition("/")[2]
        if name in failing:
            write(self, row, [part[: len(part) // 2] for part in parts])
            failing.remove(name)
            raise MemoryError(name)
        return write(self, row, parts)

    monkeypatch.setattr(_hdf5_tracks._Grown, "write", flaky)
    commit = _hdf5_tracks.FrameTrack.commit

    def patient(self: Any, last: bool) -> None:
        for _ in range(20):
            try:
                return commit(self, last)
            except MemoryError:
                pass
        pytest.fail("it never ends")

    monkeypatch.setattr(_hdf5_tracks.FrameTrack, "commit", patient)
    with stream:
        stream.to_hdf5(path, frames=41)
    assert failing == (["offset", "type", "float64"] if length == 100 else [])
    with h5py.File(path) as file:
        group = file[waves["w"]]
        assert aligned(group) == (41 if length == 100 else 1)
        same(frames_of(group), feeder.sent)
        assert group["ledger"][-1]["stored"] == 41


def test_memory_error_at_the_end_closes_the_file(
    waves: SoftIOC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"

    def commit(self: Any, last: bool) -> None:
        raise MemoryError

    stream = opened(waves["w"])
    with monkeypatch.context() as patch, stream:
        patch.setattr(_hdf5_tracks.FrameTrack, "commit", commit)
        with pytest.raises(MemoryError):
            stream.to_hdf5(path, frames=1)
    with opened(waves["w"]) as again:
        again.to_hdf5(path, frames=1, mode="a")
    with h5py.File(path) as file:
        assert len(file[waves["w"]]["varying/index"]) + len(file[waves["w"]]["index"]) == 1


INTERRUPTED = """
import sys, epicsx
stream = epicsx.stream(sys.argv[1], coherent=False, depth=10000)
print("recording", flush=True)
times = 0
while times < 10:
    try:
        stream.to_hdf5(sys.argv[2], mode="a", progress=True)
    except KeyboardInterrupt:
        times += 1
        print("interrupted", times, flush=True)
ledger = stream.ledger
print("taken", ledger.delivered, ledger.dropped, flush=True)
"""


def test_ctrl_c_loses_nothing(waves: SoftIOC, tmp_path: Path) -> None:
    """Ten times: what was taken is in the file, and each row has its own stamp."""
    name, path = waves["w"], tmp_path / "run.h5"
    stop = threading.Event()
    with Channel(name) as channel, start_python(INTERRUPTED, name, str(path)) as client:
        channel.put(np.zeros(100), wait=True)

        def feed() -> None:
            with Channel(name) as mine:
                number = 0
                while not stop.wait(
                    0.001
                ):  # in all its ring holds, the client may stand still for 10 s
                    number += 1
                    mine.put(np.full(100, number), wait=True)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            client.wait_line("recording")
            for i in range(10):
                wait_until(lambda: path.exists() and _flagged(path), 20)
                os.kill(client.pid, signal.SIGINT)
                client.wait_line(f"interrupted {i + 1}")
            _, delivered, dropped = client.wait_line("taken").split()
        finally:
            stop.set()
            thread.join(20)
        client.finish()
    with h5py.File(path) as file:
        group = file[name]
        n = aligned(group)
        assert (n, int(dropped)) == (int(delivered), 0)
        assert all(np.diff(group["timestamp_ns"]) > 0)
        assert len(group["runs"]) == 10


def test_a_pv_that_becomes_text_ends_it(waves: SoftIOC, tmp_path: Path) -> None:
    stream, refused = opened(waves["w"]), []
    track = _hdf5_tracks.FrameTrack(stream)
    writer = _hdf5.Writer(tmp_path / "run.h5", "x")
    writer.tracks += [track, _hdf5_tracks.RowTrack(["none"])]
    writer.tracks[1].decides = False

    def retype() -> None:
        waves.kill()
        wait_until(lambda: stream.ledger.disconnects)
        waves.restart(DB.replace('"DOUBLE"', '"STRING"'))

    thread = threading.Thread(target=retype)
    thread.start()
    with stream:
        _hdf5.record(writer, seconds=60, on_error=lambda _, error: refused.append(str(error)))
    thread.join(20)
    assert track.finished
    assert len(refused) == 1
    assert "texts" in refused[0]


# ---- more than one recording at once


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_a_file_has_one_recording_at_a_time(
    waves: SoftIOC, tmp_path: Path, mode: Literal["x", "w", "a"]
) -> None:
    """It is had from the call on, and not from the first frame, which never comes here."""
    path = tmp_path / "run.h5"
    if mode != "x":
        with opened(waves["w"]) as stream:
            stream.to_hdf5(path, frames=1)
    before = path.exists()
    silent = epicsx.stream("no:such")
    with recording(silent, path, mode=mode):
        wait_until(lambda: path.exists() and path.stat().st_size and len(_hdf5_files._WRITTEN))
        with opened(waves["w"]) as other:
            for another in ("w", "a"):
                with pytest.raises(BlockingIOError, match="another process or recording"):
                    other.to_hdf5(path, mode=another, frames=1)
            with pytest.raises(FileExistsError):
                other.to_hdf5(path, frames=1)
            result = run_python(TRIES, str(path))
            assert result.stdout == "BlockingIOError BlockingIOError FileExistsError\n"
    with h5py.File(path) as file:
        assert "no:such" in file
        assert (waves["w"] in file) == (before and mode == "a")
    assert not _hdf5_files._WRITTEN
    with opened(waves["w"]) as other:
        other.to_hdf5(path, mode="a", frames=1)


TRIES = """
import sys, epicsx
errors = []
for mode in ("w", "a", "x"):
    try:
        epicsx.stream("no:such").to_hdf5(sys.argv[1], mode=mode, seconds=0.1)
    except OSError as error:
        errors.append(type(error).__name__)
print(*errors)
"""


def test_an_error_while_the_file_is_laid_out_is_told(waves: SoftIOC, tmp_path: Path) -> None:
    """Rings are drained meanwhile; what one of them says has to be raised later, whatever else has ended."""
    stream = opened(waves["w"])
    track = _hdf5_tracks.FrameTrack(stream)
    writer = _hdf5.Writer(tmp_path / "run.h5", "x")
    writer.tracks.append(track)
    track.drain(20.0)  # the type and shape of `data`
    waves.kill()
    wait_until(lambda: stream.ledger.disconnects)
    waves.restart(DB.replace('"DOUBLE"', '"STRING"'))
    wait_until(lambda: stream._error is not None, 30)
    track.relieve()
    ends = [track.finished]
    with stream, pytest.raises(epicsx.CAError, match="texts"):
        _hdf5.record(writer, seconds=60)
    assert [*ends, track.finished] == [False, True]
    with h5py.File(tmp_path / "run.h5") as file:
        group = file[waves["w"]]
        assert len(group["data"]) + len(group["varying/index"]) == track.taken == 1


def test_of_many_that_begin_at_once_one_records(waves: SoftIOC, tmp_path: Path) -> None:
    path, ends = tmp_path / "run.h5", list[str]()
    barrier = threading.Barrier(4)
    streams = [opened(waves["w"]) for _ in range(4)]
    over = threading.Event()

    def work(stream: epicsx.Stream) -> None:
        barrier.wait(20)
        try:
            stream.to_hdf5(path, mode="a", seconds=60)
            ends.append("recorded")
        except (BlockingIOError, BadValueError) as error:
            ends.append(type(error).__name__)
        if len(ends) == 3:
            over.set()

    threads = [threading.Thread(target=work, args=(s,)) for s in streams]
    for thread in threads:
        thread.start()
    assert over.wait(30)
    for stream in streams:
        stream.close()
    for thread in threads:
        thread.join(20)
    assert ends[3] == "recorded"
    assert "recorded" not in ends[:3]
    with h5py.File(path) as file:
        assert len(file[waves["w"]]["runs"]) == 1


def test_no_regular_file(ioc: SoftIOC, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with epicsx.stream(ioc["wf:double:n"]) as stream:
        for mode in ("w", "a"):
            with pytest.raises(BadValueError, match="no regular file"):
                stream.to_hdf5(fifo, mode=mode, frames=1)


def test_a_system_without_what_it_needs(
    ioc: SoftIOC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with (
        epicsx.stream(ioc["wf:double:n"]) as stream,
        pytest.raises(OSError, match="needs Linux"),
    ):
        stream.to_hdf5(tmp_path / "run.h5", frames=1)
    assert list(tmp_path.iterdir()) == []


# ---- more than one run in a file


def test_append(waves: SoftIOC, tmp_path: Path) -> None:
    name, path = waves["w"], tmp_path / "run.h5"
    with Channel(name) as channel:
        for i in range(3):
            channel.put(np.full(100, i), wait=True)
            with epicsx.stream(name, coherent=False) as stream:
                stream.to_hdf5(path, frames=1, mode="a")  # also where there is no file yet
        channel.put([5.0], wait=True)
    with epicsx.stream(name, coherent=False) as stream:
        stream.to_hdf5(path, frames=1, mode="a")
    with Recorder([waves["a"]]) as recorder:
        recorder.to_hdf5(path, frames=1, mode="a")
    with h5py.File(path) as file:
        group = file[name]
        np.testing.assert_array_equal(group["data"][:, 99], [0, 1, 2])
        assert list(group["index"]) == [0, 0, 0]
        assert list(group["gap"]) == [False, True, True]
        assert list(group["varying/gap"]) == [True]
        assert list(group["varying/float64"]) == [5.0]
        assert [tuple(run)[2:] for run in group["runs"]] == [(0, 0), (1, 0), (2, 0), (3, 0)]
        assert sorted(set(group["ledger"]["run"])) == [0, 1, 2, 3]
        assert len(file["scalars/rows"]) == 1


def test_overwrite(ioc: SoftIOC, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_text("anything")
    with epicsx.stream(ioc["wf:double:n"]) as stream:
        stream.to_hdf5(path, frames=1, mode="w")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file[ioc["wf:double:n"]]["data"], [np.arange(10.0)])


@pytest.mark.parametrize("kind", ["text", "empty", "foreign", "foreign_new", "newer"])
def test_a_file_that_is_not_ours_is_refused_untouched(
    ioc: SoftIOC, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "run.h5"
    if kind in ("text", "empty"):
        path.write_text("something else" if kind == "text" else "")
    else:
        with h5py.File(path, "w", libver="latest" if kind != "foreign" else "earliest") as file:
            file["data"] = [1, 2, 3]
            if kind == "newer":
                file.attrs["format"], file.attrs["format_version"] = "epicsx recording", 99
    before = path.read_bytes()
    with epicsx.stream(ioc["wf:double:n"]) as stream:
        with pytest.raises(BadValueError, match="cannot append"):
            stream.to_hdf5(path, frames=1, mode="a")
        with pytest.raises(FileExistsError):
            stream.to_hdf5(path, frames=1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "r"}, BadValueError),
        ({"compression": "zip"}, BadValueError),
        ({"frames": 0}, BadValueError),
        ({"frames": 1.5}, BadTypeError),
        ({"seconds": -1}, BadValueError),
        ({"seconds": "3"}, BadTypeError),
    ],
)
def test_bad_options(ioc: SoftIOC, tmp_path: Path, options: dict[str, Any], error: type) -> None:
    with epicsx.stream(ioc["wf:double:n"]) as stream:
        with pytest.raises(error):
            stream.to_hdf5(tmp_path / "run.h5", **options)
        with pytest.raises(FileNotFoundError):
            stream.to_hdf5(tmp_path / "none" / "run.h5")
        with pytest.raises(IsADirectoryError):
            stream.to_hdf5(tmp_path, mode="w")
    assert list(tmp_path.iterdir()) == []


# ---- recorders


def test_rows_of_a_recorder(waves: SoftIOC, tmp_path: Path) -> None:
    path, names = tmp_path / "run.h5", [waves["a"], waves["b"]]
    with Channel(names[0]) as a, Channel(names[1]) as b:
        a.put(0, wait=True)
        b.put(0, wait=True)
        recorder = Recorder(names)
        wait_until(lambda: len(recorder) == 2)
        with recording(recorder, path):
            for i in range(1, 21):
                a.put(i, wait=True)
                b.put(-i, wait=True)
            wait_until(lambda: recorder.ledger.received == 42)
    assert len(recorder.data) == 0
    with Recorder([names[1], waves["w"]]) as other:
        wait_until(lambda: other.connected == 2)
        other.to_hdf5(path, frames=2, mode="a")
    with h5py.File(path) as file:
        group = file["scalars"]
        assert [n.decode() for n in group["names"]] == [*names, waves["w"]]
        assert [u.decode() for u in group["units"]] == ["mm", "", "mV"]
        rows = group["rows"][:42]
        assert list(rows["value"][rows["source"] == 0]) == list(range(21))
        assert list(rows["value"][rows["source"] == 1]) == [-i for i in range(21)]
        assert list(rows["severity"][rows["source"] == 0]) == [0] * 10 + [1] * 11
        assert all(np.diff(rows["timestamp_ns"][rows["source"] == 0]) > 0)
        assert sorted(group["rows"][42:]["source"]) == [1, 2]
        noted = [row for row in group["ledger"] if row["run"] == 0][-1]
        assert (noted["stored"], noted["received"], noted["dropped"]) == (42, 42, 0)


# ---- what may be missing or full


def test_without_h5py(tmp_path: Path) -> None:
    result = run_python(
        """
        import sys
        sys.modules["h5py"] = None
        import epicsx
        with epicsx.stream("none") as stream:
            try:
                stream.to_hdf5(sys.argv[1])
            except ImportError as error:
                print(error)
        """,
        str(tmp_path / "run.h5"),
    )
    assert "pip install 'epicsx[hdf5]'" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE")
def test_a_full_disk_is_an_error_and_an_end(ioc: SoftIOC, tmp_path: Path) -> None:
    result = run_python(
        """
        import errno, resource, sys, epicsx
        from epicsx import _ca, _hdf5
        stream = epicsx.stream(sys.argv[1])
        stream.read(20)
        _ca.core(sys.argv[1], 0, _ca.context(stream.lane)).get(timeout=20.0)  # it is told of puts now
        channel = epicsx.Channel(sys.argv[1]).connect(20.0)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        def abandon(writer, abandon=_hdf5.Writer._abandon):
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)  # it is not of the disk alone
            abandon(writer)
        _hdf5.Writer._abandon = abandon
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limit[1]))
        channel.put([1.0] * 32)  # a chunk is a megabyte
        try:
            stream.to_hdf5(sys.argv[2])
        except OSError as error:
            print("error", isinstance(error, epicsx.CAError), error.errno == errno.EFBIG)
        """,
        ioc["w:double"],
        str(tmp_path / "run.h5"),
        env=ioc.env,
    )
    assert result.stdout == "error False True\n"
