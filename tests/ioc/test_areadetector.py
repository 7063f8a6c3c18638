"""`AreaDetectorIOC` as clients see it: records, order, stamps, what a waveform and NDPluginROI cut off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from support import wait_until

from epicsx import Channel, Sample, connect
from epicsx.testing import AreaDetectorIOC, SoftIOCError
from epicsx.testing.areadetector import numbered_frame

METADATA = [
    "ArrayCounter_RBV",
    "NDimensions_RBV",
    "DataType_RBV",
    "ColorMode_RBV",
    "BayerPattern_RBV",
    "Codec_RBV",
    "CompressedSize_RBV",
    "UniqueId_RBV",
    "TimeStamp_RBV",
]
# As beginProcessCallbacks of NDPluginDriver.cpp and NDPluginStdArrays.cpp post them; the records behind Dimensions_RBV
# that do not change are not posted.
SIZES = ["Dimensions_RBV", "ArraySize0_RBV", "ArraySize1_RBV"]


class Watch:
    """What a client is told of some of the plugin's PVs, in the order in which it comes."""

    def __init__(self, ioc: AreaDetectorIOC, names: list[str]) -> None:
        self.news: list[tuple[str, Sample]] = []
        self.channels = connect([ioc.image_prefix + name for name in names])
        for name, channel in zip(names, self.channels, strict=True):
            channel.subscribe(partial(self._hear, name))
        wait_until(lambda: len(self.news) == len(names))
        self.news.clear()

    def _hear(self, name: str, sample: Sample) -> None:
        self.news.append((name, sample))

    def take(self, last: str, value: float) -> list[tuple[str, Sample]]:
        """The news until that one's value has come."""
        wait_until(lambda: any(n == last and s.value == value for n, s in list(self.news)))
        taken, self.news = self.news, []
        return taken

    def close(self) -> None:
        for each in self.channels:
            each.close()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def start(ioc: AreaDetectorIOC, names: list[str]) -> Watch:
        made.append(Watch(ioc, names))
        return made[-1]

    yield start
    for each in made:
        each.close()


def names_of(news: list[tuple[str, Sample]]) -> list[str]:
    return [name for name, _ in news]


def test_what_is_posted_and_in_which_order(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., Watch]
) -> None:
    ioc = detector(ftvl="SHORT", nelements=2000)
    # Small arrays, so that all comes over one circuit, in order.
    seen = watch(ioc, ["ArrayData", *SIZES, *METADATA])
    ioc.send(numbered_frame(1, (30, 40), "uint16"))
    first = seen.take("TimeStamp_RBV", first_stamp(ioc))
    assert names_of(first) == [
        *SIZES,
        "ArrayData",
        *[
            "ArrayCounter_RBV",
            "NDimensions_RBV",
            "DataType_RBV",
            "CompressedSize_RBV",
            "UniqueId_RBV",
            "TimeStamp_RBV",
        ],
    ]
    values = dict(first)
    np.testing.assert_array_equal(values["Dimensions_RBV"].value, [40, 30] + [0] * 8)
    assert [values[n].value for n in SIZES[1:]] == [40, 30]
    assert [values[n].value for n in ("NDimensions_RBV", "DataType_RBV", "CompressedSize_RBV")] == [
        2,
        3,
        2400,
    ]
    np.testing.assert_array_equal(
        values["ArrayData"].value.view(np.uint16), numbered_frame(1, (30, 40), "uint16").reshape(-1)
    )
    stamps = [sample.timestamp_ns for _, sample in first]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) > 1

    # What stays is not posted again; a change of the mode comes behind the data in which it happened.
    ioc.send(numbered_frame(2, (30, 40), "uint16"))
    again = seen.take("UniqueId_RBV", 2)
    assert names_of(again)[:3] == ["ArrayData", "ArrayCounter_RBV", "UniqueId_RBV"]
    ioc.send(numbered_frame(3, (20, 10, 3), "int16"), color_mode="RGB2", unique_id=70)
    changed = names_of(seen.take("UniqueId_RBV", 70))
    assert (
        changed.index("Dimensions_RBV")
        < changed.index("ArrayData")
        < changed.index("ColorMode_RBV")
    )
    assert changed.index("DataType_RBV") < changed.index("UniqueId_RBV")

    ioc.order = "metadata first"
    assert ioc.send(numbered_frame(4, (6, 8)), color_mode="Bayer", bayer="BGGR") == 71
    early = seen.take("ArrayCounter_RBV", 4)
    wait_until(lambda: "ArrayData" in names_of(early + seen.news))
    together = names_of(early + seen.news)
    assert (
        together.index("BayerPattern_RBV")
        < together.index("UniqueId_RBV")
        < together.index("ArrayData")
    )


def first_stamp(ioc: AreaDetectorIOC) -> float:
    with Channel(ioc.image_prefix + "TimeStamp_RBV") as channel:
        return float(channel.get().value)


def test_one_stamp_for_a_frame(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., Watch]
) -> None:
    ioc = detector(stamps="frame", nelements=2000)
    seen = watch(ioc, ["ArrayData", *SIZES, *METADATA])
    ioc.send(numbered_frame(1, (30, 40)), timestamp=1234567890.25)
    news = seen.take("UniqueId_RBV", 1)
    assert {sample.timestamp_ns for _, sample in news} == {1234567890250000000}
    assert len(news) > 6


def test_menus_are_adcores(detector: Callable[..., AreaDetectorIOC]) -> None:
    ioc = detector()
    ioc.send(numbered_frame(1, (4, 4, 3), "float32"), color_mode="RGB3")
    with Channel(ioc.image_prefix + "DataType_RBV") as channel:
        assert channel.control().enum_strings == (
            *("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64"),
            *("Float32", "Float64"),
        )
    assert ioc.read("image1:DataType_RBV") == "Float32"
    assert ioc.read("image1:ColorMode_RBV") == "RGB3"
    assert ioc.read("image1:Dimensions_RBV").split()[:4] == ["4", "4", "3", "0"]
    for kind in (
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float64",
    ):
        ioc.send(np.ones((2, 3), kind))
        assert ioc.read("image1:DataType_RBV").lower() == kind
    with pytest.raises(ValueError, match="no arrays of complex64"):
        ioc.send(np.ones((2, 3), "complex64"))
    with pytest.raises(ValueError, match="no colour mode 'RGBA'"):
        ioc.send(np.ones((2, 3)), color_mode="RGBA")


def test_conversion_to_the_waveforms_type_and_to_its_length(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector(ftvl="UCHAR", nelements=10)
    ioc.send(np.array([[1, 256, 513]], "int32"))
    assert ioc.read("image1:ArrayData") == "1 0 1"  # C's casts, as NDArrayPool::convert
    ioc.send(np.arange(20, dtype="uint8").reshape(4, 5))
    assert ioc.read("image1:ArrayData").split() == [str(i) for i in range(10)]


def test_compressed_bytes_lie_in_the_waveform_as_elements(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    pytest.importorskip("imagecodecs")
    from epicsx._ndarray import DataType, Mode, picture

    ioc = detector(ftvl="USHORT", nelements=4000)
    for number, codec in enumerate(["lz4", "bslz4", "blosc", "zlib", "lz4hdf5"]):
        frame = numbered_frame(number, (50, 60), "uint16")
        ioc.send(frame, codec=codec)
        size = int(ioc.read("image1:CompressedSize_RBV"))
        assert ioc.read("image1:Codec_RBV") == codec
        with Channel(ioc.image_prefix + "ArrayData") as channel:
            served = channel.get().value
        assert (served.dtype, served.size) == (np.dtype("int32"), size // 2 + 1)
        mode = Mode.of((60, 50), 0, DataType.UInt16, codec=codec, compressed_size=size)
        np.testing.assert_array_equal(picture(served, mode, ftvl="USHORT"), frame)


def test_an_roi_plugin_cuts_the_frames_that_follow(
    detector: Callable[..., AreaDetectorIOC],
) -> None:
    ioc = detector(roi="ROI1:")
    assert ioc.read("image1:NDArrayPort_RBV") == "ROI1"
    frame = numbered_frame(1, (30, 40, 3))
    ioc.send(frame)
    assert ioc.read("image1:ArraySize1_RBV") == "40"
    assert [ioc.read("ROI1:" + n) for n in ("MaxSizeX_RBV", "MaxSizeY_RBV", "SizeY_RBV")] == [
        "40",
        "30",
        "30",
    ]
    for name, value in {"MinY": 5, "SizeY": 10, "MinX": 35, "SizeX": 10}.items():
        with Channel(ioc["ROI1:" + name]) as channel:
            channel.put(value, wait=True)
    ioc.send(frame)
    assert [ioc.read("ROI1:" + n) for n in ("MinX_RBV", "SizeX_RBV", "MinY_RBV", "SizeY_RBV")] == [
        *("35", "5", "5", "10"),
    ]
    with Channel(ioc.image_prefix + "ArrayData") as channel:
        served = channel.get().value
    np.testing.assert_array_equal(served, frame[5:15, 35:].reshape(-1))
    ioc.write("ROI1:EnableX", 0)
    ioc.send(frame)
    assert [ioc.read(f"image1:ArraySize{i}_RBV") for i in range(3)] == ["3", "40", "10"]


def test_playing_keeps_the_rate_and_leaves_out_ids(
    detector: Callable[..., AreaDetectorIOC], watch: Callable[..., Watch]
) -> None:
    ioc = detector(nelements=1 << 18)
    seen = watch(ioc, ["UniqueId_RBV"])
    frames = [numbered_frame(number, (512, 512)) for number in range(10)]
    began = time.time_ns()
    assert ioc.play(frames, 50.0, wait=False) == 0
    assert ioc.wait() == 10
    ids = seen.take("UniqueId_RBV", 10)
    assert [sample.value for _, sample in ids] == list(range(1, 11))
    # from the beginning: if the first is late, those after it make up for that
    assert (ids[-1][1].timestamp_ns - began) / 1e9 > 0.17
    ioc.play(frames[:3], unique_ids=[11, 14, 2])
    assert [sample.value for _, sample in seen.take("UniqueId_RBV", 2)] == [11, 14, 2]
    assert ioc.send(frames[0]) == 3


def test_a_plugin_that_takes_no_frames(detector: Callable[..., AreaDetectorIOC]) -> None:
    ioc = detector(nelements=100)
    ioc.send(np.zeros((4, 6), "uint8"))
    ioc.write("image1:EnableCallbacks", 0)
    with pytest.raises(SoftIOCError, match="EnableCallbacks is 0"):
        ioc.send(np.zeros((5, 6), "uint8"))
    assert ioc.play([np.zeros((5, 6), "uint8")] * 3) == 0
    assert ioc.read("image1:ArraySize1_RBV") == "4"
    ioc.write("image1:EnableCallbacks", 1)
    ioc.send(np.zeros((5, 6), "uint8"))
    assert ioc.read("image1:ArraySize1_RBV") == "5"


def test_after_a_restart_all_is_posted_again(detector: Callable[..., AreaDetectorIOC]) -> None:
    ioc = detector(nelements=100)
    ioc.send(np.zeros((4, 6), "int8"))
    ioc.restart()
    assert ioc.read("image1:ArraySize1_RBV") == "0"
    assert ioc.send(np.zeros((4, 6), "int8")) == 2
    assert ioc.read("image1:ArraySize1_RBV") == "4"
    assert ioc.read("image1:ArrayCounter_RBV") == "1"


def test_what_it_is_made_of() -> None:
    with pytest.raises(ValueError, match="ftvl is one of CHAR"):
        AreaDetectorIOC(ftvl="STRING")
    with pytest.raises(ValueError, match="stamps"):
        AreaDetectorIOC(stamps="none")  # type: ignore[arg-type]
    ioc = AreaDetectorIOC(prefix="13SIM1:", plugin="image2:")
    assert ioc.image_prefix == "13SIM1:image2:"
    with pytest.raises(SoftIOCError, match="does not run"):
        ioc.send(np.zeros((4, 6), "uint8"))
