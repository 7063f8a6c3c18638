"""`epicsx.images` of recorded frames, and with the NDPluginROI that the image plugin's own PVs name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import posting, wait_until

import epicsx
from epicsx.testing import AreaDetectorIOC, SoftIOC, recorded_frames
from epicsx.testing.areadetector import numbered_frame

CCD = Path(__file__).parent.parent / "data" / "ccd_frames.npz"
SHAPE = (12, 20)


@pytest.fixture(scope="module")
def ccd() -> list[np.ndarray[Any, Any]]:
    """Give three frames of real cameras (tests/data/README.md)."""
    return list(recorded_frames(CCD))


# ------------------------------------------------------------------------ recordings


def test_frames_of_real_cameras_are_served_and_read(
    detector: Callable[..., AreaDetectorIOC], ccd: list[np.ndarray[Any, Any]]
) -> None:
    assert [(frame.shape, frame.dtype.name) for frame in ccd] == [((128, 128), "uint16")] * 3
    ioc = detector(ftvl="USHORT", nelements=128 * 128)
    # rows 40 to 79 by the server's filter, as only whole frames can be read out of a growing file
    with (
        epicsx.images(ioc.image_prefix, patience=5.0).connect(20.0) as stream,
        epicsx.images(ioc.image_prefix, roi=(40, 80), patience=5.0).connect(20.0) as band,
    ):
        wait_until(lambda: stream._feed._empty == 1 and band._feed._empty == 1)
        posting(ioc.image_prefix + "ArrayData")
        for number, frame in enumerate(ccd, 1):
            ioc.send(frame)
            for image, wanted in ((stream.read(20), frame), (band.read(20), frame[40:80])):
                assert (image.unique_id, image.data.dtype.name) == (number, "uint16")
                np.testing.assert_array_equal(image.data, wanted)
        assert ioc.replay(CCD, 20.0) == 3
        for frame in ccd:
            np.testing.assert_array_equal(stream.read(20).data, frame)
        assert (stream.unmatched, stream.ledger.inferred_lost) == (0, 0)


@pytest.mark.parametrize("codec", ["zlib", "blosc", "lz4", "lz4hdf5", "bslz4"])
def test_compressed_frames_of_real_cameras(
    detector: Callable[..., AreaDetectorIOC], ccd: list[np.ndarray[Any, Any]], codec: str
) -> None:
    pytest.importorskip("imagecodecs")
    ioc = detector(ftvl="USHORT", nelements=128 * 128)
    with epicsx.images(ioc.image_prefix, patience=5.0).connect(20.0) as stream:
        wait_until(lambda: stream._feed._empty == 1)
        posting(ioc.image_prefix + "ArrayData")
        for frame in ccd:
            ioc.send(frame, codec=codec)
            image = stream.read(20)
            np.testing.assert_array_equal(image.data, frame)
            assert image.codec == codec
        # what Channel Access carries of an unsigned short is a long
        assert stream.ledger.bytes < 3 * 4 * 128 * 128


def test_a_recording_of_ours_is_served_again(
    detector: Callable[..., AreaDetectorIOC], ccd: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("h5py")
    ioc = detector(ftvl="USHORT", nelements=128 * 128)
    name = ioc.image_prefix + "ArrayData"
    ioc.send(ccd[0])  # a full array, so that the file's first row is one
    with epicsx.stream(name, depth=8) as stream:
        first = stream.read(20)
        posting(name)
        ioc.play(ccd[1:], 20.0)
        stream.to_hdf5(tmp_path / "run.h5", frames=2)
    np.testing.assert_array_equal(first.data, ccd[0].reshape(-1))
    with epicsx.images(ioc.image_prefix, patience=5.0).connect(20.0) as images:
        np.testing.assert_array_equal(images.read(20).data, ccd[2])
        posting(name)
        assert ioc.replay(tmp_path / "run.h5", 20.0, shape=(128, 128), dtype="uint16") == 2
        for frame in ccd[1:]:
            np.testing.assert_array_equal(images.read(20).data, frame)


def test_what_can_be_replayed(tmp_path: Path, ccd: list[np.ndarray[Any, Any]]) -> None:
    h5py = pytest.importorskip("h5py")
    stack = np.stack(ccd)
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "one.npy", ccd[0])
    np.save(tmp_path / "row.npy", ccd[0].reshape(-1))
    colour = np.stack([ccd[0]] * 3, axis=-1)
    np.save(tmp_path / "colour.npy", colour[None])
    with h5py.File(tmp_path / "nd.h5", "w") as file:  # as NDFileHDF5 lays out
        file["/entry/data/data"] = stack
        file["/entry/instrument/performance/timestamp"] = np.zeros((3, 5))
        file["other"] = stack[:1]
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"], file["text"] = stack, stack, "none"
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["a"] = stack.reshape(3, -1)

    def frames(name: str, **options: Any) -> list[np.ndarray[Any, Any]]:
        return list(recorded_frames(tmp_path / name, **options))

    for found in (frames("stack.npy"), frames("nd.h5"), frames("two.h5", dataset="b")):
        np.testing.assert_array_equal(np.stack(found), stack)
    np.testing.assert_array_equal(frames("none.h5", shape=(128, 128)), stack)
    np.testing.assert_array_equal(frames("one.npy"), stack[:1])
    np.testing.assert_array_equal(frames("one.npy", dtype="uint8")[0], (ccd[0] % 256).astype("u1"))
    assert [frame.shape for frame in frames("colour.npy")] == [(128, 128, 3)]
    assert len(frames("nd.h5", dataset="other")) == 1
    np.testing.assert_array_equal(list(recorded_frames(CCD, dataset="aia_171")), [ccd[2]])

    with pytest.raises(ValueError, match="several: a, b"):
        frames("two.h5")
    with pytest.raises(ValueError, match="There are none; where frames are rows, give their shape"):
        frames("none.h5")
    with pytest.raises(ValueError, match=r"no frames of \(100, 100\)"):
        frames("none.h5", shape=(100, 100))
    with pytest.raises(ValueError, match="is no frames"):
        frames("row.npy")
    with pytest.raises(ValueError, match="is no dataset"):
        frames("nd.h5", dataset="/entry")
    with pytest.raises(KeyError):
        frames("nd.h5", dataset="nosuch")
    with pytest.raises(ValueError, match=r"frames are read of \.npy"):
        frames("run.tif")
    for missing in ("none.npy", "nosuch.h5"):
        with pytest.raises(FileNotFoundError):
            frames(missing)


# --------------------------------------------------------- the plugin that is there


def test_the_roi_plugin_is_found(detector: Callable[..., AreaDetectorIOC]) -> None:
    ioc = detector(roi="ROI1:")
    ioc.send(numbered_frame(1, SHAPE))
    region: Any = (2, 6, 4, 9)
    with epicsx.images(ioc.image_prefix, roi=region, roi_plugin="auto", patience=5.0) as stream:
        assert stream.connected
        assert stream.roi_by == "plugin"
        corner = [ioc.read(f"ROI1:{n}") for n in ("MinX", "SizeX", "MinY", "SizeY")]
        assert corner == ["4", "5", "2", "4"]
        wait_until(lambda: stream.ledger.received == 1)
        posting(ioc.image_prefix + "ArrayData")
        ioc.send(numbered_frame(2, SHAPE))
        wait_until(lambda: stream.ledger.received == 2)
        image = stream.read(20)
        if image.unique_id == 1:  # what the plugin had, cut here
            np.testing.assert_array_equal(image.data, numbered_frame(1, SHAPE)[2:6, 4:9])
            image = stream.read(20)
        np.testing.assert_array_equal(image.data, numbered_frame(2, SHAPE)[2:6, 4:9])
    # without being asked for, nobody's plugin is touched
    ioc.write("ROI1:MinY", 0)
    with epicsx.images(ioc.image_prefix, roi=(2, 6)).connect(20.0) as stream:
        wait_until(lambda: stream.roi_by == "server")
    assert ioc.read("ROI1:MinY") == "0"


def test_no_roi_plugin_is_there(
    detector: Callable[..., AreaDetectorIOC], spare_ioc: Callable[..., SoftIOC]
) -> None:
    # Without one; then with another plugin of that name, and with a name that is of another port.
    ioc = detector(prefix="AD1:", nelements=240)
    ioc.send(numbered_frame(1, SHAPE))

    def record(name: str, text: str) -> str:
        return f'record(stringin, "AD2:{name}") {{ field(VAL, "{text}") field(PINI, "YES") }}\n'

    other = detector(
        prefix="AD2:",
        nelements=240,
        db=[
            (
                record("SIM:PluginType_RBV", "NDPluginStats") + record("SIM:PortName_RBV", "SIM")
            ).encode()
        ],
    )
    other.send(numbered_frame(1, SHAPE))
    for each in (ioc, other):
        with epicsx.images(
            each.image_prefix, roi=(2, 6), roi_plugin="auto", timeout=20.0
        ) as stream:
            assert stream.roi_by == "server"
            np.testing.assert_array_equal(stream.read(20).data, numbered_frame(1, SHAPE)[2:6])
            assert stream.unmatched == 0


def test_closed_while_the_plugin_is_looked_for(detector: Callable[..., AreaDetectorIOC]) -> None:
    ioc = detector(nelements=240)

    async def made() -> epicsx.ImageStream:  # which does not wait
        return epicsx.images(ioc.image_prefix, roi=(2, 6), roi_plugin="auto")

    stream = asyncio.run(made())
    wait_until(lambda: stream._feed.home.connected)
    stream.close()
    wait_until(lambda: not stream._feed._thread.is_alive())
    assert stream._feed._plugin is None
