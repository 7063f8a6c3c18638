"""Area-detector frames: the picture in what CA served, every layout, type and codec. No Channel Access."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from epicsx._ndarray import (
    CODECS,
    BayerPattern,
    ColorMode,
    DataType,
    Mode,
    Roi,
    decode,
    ftvl_of,
    picture,
    pictures,
)
from epicsx.errors import BadTypeError, BadValueError
from epicsx.testing.areadetector import compress, numbered_frame

# What CA serves of a waveform, by its FTVL, and the type that asyn's interface has of it.
SERVED = {
    "CHAR": ("int8", "uint8"),
    "UCHAR": ("int8", "uint8"),
    "SHORT": ("int16", "int16"),
    "USHORT": ("int16", "int32"),
    "LONG": ("int32", "int32"),
    "ULONG": ("int32", "float64"),
    "INT64": ("int64", "float64"),
    "UINT64": ("int64", "float64"),
    "FLOAT": ("float32", "float32"),
    "DOUBLE": ("float64", "float64"),
}


def serve(array: np.ndarray[Any, Any], ftvl: str) -> np.ndarray[Any, Any]:
    """What reaches a client of an NDArray: ADCore's cast to the interface's type, then CA's to one of its own."""
    element, client = SERVED[ftvl]
    stored = array.reshape(-1).astype(element)
    if ftvl[0] == "U":
        stored = stored.view("u" + element)
    if client == "uint8":
        return stored.view("uint8")
    return stored.astype(client)


def values(dtype: str) -> np.ndarray[Any, Any]:
    """Six by four pixels, the smallest and the largest value among them, as far as CA can tell them apart."""
    kind = np.dtype(dtype)
    frame = np.arange(24).astype(dtype)
    if kind.kind == "f":
        frame[:3] = -1.5, 0.25, 1e30
    else:
        info = np.iinfo(kind)
        frame[:2] = max(info.min, -(2**53) + 1), min(info.max, 2**53 - 1)
    return frame.reshape(6, 4)


LOSSLESS = {
    "Int8": "CHAR UCHAR SHORT USHORT LONG ULONG INT64 UINT64 FLOAT DOUBLE",
    "UInt8": "CHAR UCHAR SHORT USHORT LONG ULONG INT64 UINT64 FLOAT DOUBLE",
    "Int16": "SHORT USHORT LONG ULONG INT64 FLOAT DOUBLE",
    "UInt16": "SHORT USHORT LONG ULONG INT64 UINT64 FLOAT DOUBLE",
    "Int32": "LONG ULONG INT64 DOUBLE",
    "UInt32": "LONG ULONG INT64 UINT64 DOUBLE",
    "Int64": "INT64 DOUBLE",
    "UInt64": "INT64 UINT64 DOUBLE",
    "Float32": "FLOAT DOUBLE",
    "Float64": "DOUBLE",
}


@pytest.mark.parametrize(
    ("data_type", "ftvl"),
    [(name, ftvl) for name, ftvls in LOSSLESS.items() for ftvl in ftvls.split()],
)
def test_every_type_through_every_waveform_that_can_hold_it(data_type: str, ftvl: str) -> None:
    dtype = DataType[data_type].dtype
    frame = values(dtype.name)
    # -1 in 64 bits is 2**64 - 1 as an unsigned, which no float64 tells from its neighbours.
    if ftvl == "UINT64" and dtype.kind == "i":
        frame = np.abs(frame) % 100
    found = picture(serve(frame, ftvl), Mode.of((4, 6), data_type=DataType[data_type]), ftvl=ftvl)
    assert found.dtype == dtype
    assert found.shape == (6, 4)
    np.testing.assert_array_equal(found, frame)


@pytest.mark.parametrize("data_type", [each.name for each in DataType])
def test_a_waveform_that_loses_something_is_refused(data_type: str) -> None:
    for ftvl in SERVED:
        if ftvl in LOSSLESS[data_type].split() or ftvl in ("UINT64", "INT64"):
            continue
        mode = Mode.of((4, 6), data_type=DataType[data_type])
        served = serve(np.ones((6, 4), DataType[data_type].dtype), ftvl)
        if (data_type, ftvl) == ("Float64", "FLOAT"):
            assert picture(served, mode, ftvl=ftvl).dtype == np.float32
            continue
        with pytest.raises(BadTypeError, match=f"{ftvl} cannot hold {data_type}"):
            picture(served, mode, ftvl=ftvl)


def test_64_bit_values_that_ca_has_rounded_are_refused() -> None:
    served = np.array([1.0, 2.0**53, 3.0, 4.0])
    with pytest.raises(BadValueError, match=r"2\*\*53"):
        picture(served, Mode.of((2, 2), data_type=DataType.Int64), ftvl="INT64")


@pytest.mark.parametrize(
    ("data_type", "ftvl"),
    [("Int8", "CHAR"), ("UInt8", "UCHAR"), ("Int16", "SHORT"), ("UInt16", "SHORT"), ("Int32", "LONG"),
     ("UInt32", "LONG"), ("Float32", "FLOAT"), ("Float64", "DOUBLE")],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["Mono", "RGB1", "RGB2", "RGB3"])
def test_no_copy_where_the_bits_are_the_same(data_type: str, ftvl: str, mode: str) -> None:
    served = serve(np.ones(24, DataType[data_type].dtype), ftvl)
    dims = {"Mono": (4, 6), "RGB1": (3, 4, 2), "RGB2": (4, 3, 2), "RGB3": (4, 2, 3)}[mode]
    found = picture(served, Mode.of(dims, ColorMode[mode], DataType[data_type]))
    assert np.shares_memory(found, served)


def laid_out(
    frame: np.ndarray[Any, Any], mode: str
) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    """The elements of a picture as an NDArray of that mode has them, and its dimensions, the fastest first."""
    order = {"RGB1": (0, 1, 2), "RGB2": (0, 2, 1), "RGB3": (2, 0, 1)}[mode]
    array = frame.transpose(order)
    return np.ascontiguousarray(array).reshape(-1), array.shape[::-1]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("mode", ["RGB1", "RGB2", "RGB3"])
def test_colour_layouts(mode: str, dtype: str) -> None:
    frame = numbered_frame(5, (7, 4, 3), dtype)
    flat, dims = laid_out(frame, mode)
    ftvl = {"uint8": "UCHAR", "uint16": "SHORT", "float32": "FLOAT"}[dtype]
    data_type = next(each for each in DataType if each.dtype == dtype)
    found = picture(serve(flat, ftvl), Mode.of(dims, ColorMode[mode], data_type))
    np.testing.assert_array_equal(found, frame)


def test_a_bayer_picture_is_as_the_detector_has_it() -> None:
    frame = numbered_frame(1, (6, 8))
    mode = Mode.of((8, 6), ColorMode.Bayer, DataType.UInt8, BayerPattern.GRBG)
    np.testing.assert_array_equal(picture(frame.reshape(-1), mode), frame)
    assert mode.bayer is BayerPattern.GRBG


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ((5,), (1, 5)),
        ((5, 1), (1, 5)),
        ((5, 4), (4, 5)),
        ((5, 4, 1), (4, 5)),
        ((5, 4, 0, 0), (4, 5)),
    ],
)
def test_shapes_of_mono_pictures(dims: tuple[int, ...], shape: tuple[int, int]) -> None:
    mode = Mode.of(dims)
    assert mode.shape == shape
    assert picture(np.zeros(64, np.uint8), mode).shape == shape


def test_a_longer_waveform_is_cut_and_a_shorter_one_refused() -> None:
    mode = Mode.of((4, 6))
    served = np.arange(100, dtype=np.uint8)
    np.testing.assert_array_equal(picture(served, mode).reshape(-1), np.arange(24))
    with pytest.raises(
        BadValueError, match=r"'X:ArrayData': 23 elements are too few.*24.*NELM"
    ) as caught:
        picture(served[:23], mode, name="X:ArrayData")
    assert caught.value.name == "X:ArrayData"


@pytest.mark.parametrize("color_mode", [5, 6, 7])
def test_yuv_is_refused_by_its_name(color_mode: int) -> None:
    with pytest.raises(
        BadTypeError, match=r"YUV4\d\d pictures are not decoded.*NDPluginColorConvert"
    ):
        picture(np.zeros(24, np.uint8), Mode.of((4, 6), color_mode))


@pytest.mark.parametrize(
    ("dims", "color_mode", "error", "text"),
    [
        ((), 0, BadValueError, "no frame yet"),
        ((4, 5, 6), 0, BadTypeError, "not one Mono picture"),
        ((4, 5), 2, BadValueError, "RGB1 picture cannot have"),
        ((4, 3, 5), 2, BadValueError, "RGB1 picture cannot have"),
        ((3, 4, 5), 4, BadValueError, "RGB3 picture cannot have"),
    ],
)
def test_what_is_no_picture(
    dims: tuple[int, ...], color_mode: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        picture(np.zeros(500, np.uint8), Mode.of(dims, color_mode))


def test_modes_that_cannot_be() -> None:
    with pytest.raises(BadTypeError, match="no such mode: 8 is not a valid ColorMode"):
        Mode.of((4, 6), 8)
    with pytest.raises(BadTypeError, match="10 is not a valid DataType"):
        Mode.of((4, 6), 0, 10)
    with pytest.raises(BadValueError, match="no dimensions"):
        Mode.of((4, 0, 6))
    with pytest.raises(BadTypeError, match="holds no picture"):
        ftvl_of(np.array(["a"]))
    with pytest.raises(BadTypeError, match="STRING holds no picture"):
        ftvl_of(np.zeros(3, np.uint8), "STRING")
    with pytest.raises(BadTypeError, match="serves USHORT as int32, not as int16"):
        ftvl_of(np.zeros(3, np.int16), "USHORT")


# ---------------------------------------------------------------------------- codecs


@pytest.fixture
def codecs() -> None:
    pytest.importorskip("imagecodecs")


WIDE = {1: "UCHAR", 2: "USHORT", 4: "ULONG"}


def serve_packed(packed: bytes, ftvl: str, itemsize: int) -> np.ndarray[Any, Any]:
    """What reaches a client of compressed bytes, which NDPluginStdArrays lays into the waveform as its elements."""
    element, client = SERVED[ftvl]
    count = len(packed) // itemsize + 1
    wanted = count * np.dtype(element).itemsize
    stored = np.frombuffer(packed.ljust(wanted, b"\xee")[:wanted], element)
    if ftvl[0] == "U":
        stored = stored.view("u" + element)
    return stored.view("uint8") if client == "uint8" else stored.astype(client)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("shape", [(64, 48), (37, 29), (1, 3), (150, 97)])
@pytest.mark.parametrize("data_type", [each.name for each in DataType])
@pytest.mark.parametrize("codec", [each for each in CODECS if each != "jpeg"])
def test_codecs_give_back_every_type(codec: str, data_type: str, shape: tuple[int, int]) -> None:
    dtype = DataType[data_type].dtype
    frame = numbered_frame(3, shape, dtype.name)
    packed = compress(codec, frame.reshape(-1))
    mode = Mode.of(shape[::-1], 0, DataType[data_type], codec=codec, compressed_size=len(packed))
    found = decode(np.frombuffer(packed, np.uint8), mode)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, frame)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("mode", ["RGB1", "RGB2", "RGB3"])
@pytest.mark.parametrize("codec", [each for each in CODECS if each != "jpeg"])
def test_codecs_and_colour(codec: str, mode: str) -> None:
    frame = numbered_frame(2, (40, 30, 3), "uint16")
    flat, dims = laid_out(frame, mode)
    packed = compress(codec, flat)
    wanted = Mode.of(
        dims, ColorMode[mode], DataType.UInt16, codec=codec, compressed_size=len(packed)
    )
    np.testing.assert_array_equal(decode(np.frombuffer(packed, np.uint8), wanted), frame)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("ftvl", "dtype"),
    [("UCHAR", "uint8"), ("CHAR", "uint8"), ("SHORT", "uint16"), ("USHORT", "uint16"), ("USHORT", "uint8"),
     ("LONG", "uint32"), ("LONG", "uint8"), ("FLOAT", "float32"), ("DOUBLE", "float64")],
)  # fmt: skip
def test_compressed_bytes_through_a_waveform_of_each_type(
    ftvl: str, dtype: str, told: bool
) -> None:
    frame = numbered_frame(9, (50, 41), dtype)
    packed = compress("blosc", frame.reshape(-1))
    data_type = next(each for each in DataType if each.dtype == dtype)
    mode = Mode.of((41, 50), 0, data_type, codec="blosc", compressed_size=len(packed))
    served = serve_packed(packed, ftvl, frame.itemsize)
    np.testing.assert_array_equal(picture(served, mode, ftvl=ftvl if told else ""), frame)


@pytest.mark.usefixtures("codecs")
def test_compressed_bytes_through_ulong_need_the_ftvl_told() -> None:
    frame = numbered_frame(9, (50, 41), "uint32")
    packed = compress("lz4", frame.reshape(-1))
    mode = Mode.of((41, 50), 0, DataType.UInt32, codec="lz4", compressed_size=len(packed))
    served = serve_packed(packed, "ULONG", 4)
    np.testing.assert_array_equal(picture(served, mode, ftvl="ULONG"), frame)
    with pytest.raises(BadValueError):
        picture(served, mode)


@pytest.mark.usefixtures("codecs")
def test_compressed_bytes_that_did_not_all_fit() -> None:
    frame = np.random.default_rng(1).integers(0, 60000, (50, 41)).astype(np.uint16)
    packed = compress("lz4", frame.reshape(-1))
    mode = Mode.of((41, 50), 0, DataType.UInt16, codec="lz4", compressed_size=len(packed))
    with pytest.raises(BadValueError, match=r"bytes came of \d+.*narrower than UInt16"):
        picture(serve_packed(packed, "UCHAR", 2), mode)
    with pytest.raises(BadTypeError, match="INT64 as DOUBLE"):
        picture(np.zeros(9000), mode, ftvl="INT64")


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("mode", ["Mono", "RGB1", "RGB2", "RGB3"])
def test_jpeg_is_a_picture_whatever_the_layout_was(mode: str) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    frame = ramp if mode == "Mono" else np.stack([ramp, ramp // 2, 144 - ramp], axis=2)
    dims = (80, 64) if mode == "Mono" else laid_out(frame, mode)[1]
    packed = compress("jpeg", frame)
    wanted = Mode.of(
        dims, ColorMode[mode], DataType.UInt8, codec="jpeg", compressed_size=len(packed)
    )
    found = picture(serve_packed(packed, "UCHAR", 1), wanted)
    assert found.shape == frame.shape
    assert np.abs(found.astype(int) - frame).max() < 12
    other = Mode.of((64, 80), 0, DataType.UInt8, codec="jpeg", compressed_size=len(packed))
    with pytest.raises(BadValueError, match="the JPEG picture is"):
        picture(serve_packed(packed, "UCHAR", 1), other)


# The HDF5 chunk of numpy.arange(17 * 12).astype("u2").reshape(12, 17), written by h5py and hdf5plugin's Bitshuffle
# (nelems=0, cname="lz4") without its header of 12 bytes; and by its LZ4, with the header, which is ADSupport's too.
RECORDED = {
    "bslz4": (
        "0000004f1faa0100051fcc0100051ff00100052f00ff0200044f0000ffff04000310001700001d000e080001"
        "0200001d00000200010d00002d00010600070200001d000102000714000f0200a5500000000000c800c900ca"
        "00cb00"
    ),
    "lz4hdf5": (
        "0000000000000198000001980000019800000100020003000400050006000700080009000a000b000c000d00"
        "0e000f0010001100120013001400150016001700180019001a001b001c001d001e001f002000210022002300"
        "2400250026002700280029002a002b002c002d002e002f003000310032003300340035003600370038003900"
        "3a003b003c003d003e003f0040004100420043004400450046004700480049004a004b004c004d004e004f00"
        "50005100520053005400550056005700580059005a005b005c005d005e005f00600061006200630064006500"
        "66006700680069006a006b006c006d006e006f0070007100720073007400750076007700780079007a007b00"
        "7c007d007e007f0080008100820083008400850086008700880089008a008b008c008d008e008f0090009100"
        "920093009400950096009700980099009a009b009c009d009e009f00a000a100a200a300a400a500a600a700"
        "a800a900aa00ab00ac00ad00ae00af00b000b100b200b300b400b500b600b700b800b900ba00bb00bc00bd00"
        "be00bf00c000c100c200c300c400c500c600c700c800c900ca00cb00"
    ),
}


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("codec", list(RECORDED))
def test_data_that_other_libraries_have_written(codec: str) -> None:
    packed = bytes.fromhex(RECORDED[codec])
    mode = Mode.of((17, 12), 0, DataType.UInt16, codec=codec, compressed_size=len(packed))
    found = decode(np.frombuffer(packed, np.uint8), mode)
    np.testing.assert_array_equal(found, np.arange(17 * 12, dtype=np.uint16).reshape(12, 17))


@pytest.mark.usefixtures("codecs")
def test_bslz4_blocks_as_long_as_they_were() -> None:
    import imagecodecs

    # LZ4 turns this many random bytes and zeros, shuffled into 8192, into just 8192: HDF5's LZ4 would not undo that.
    rng = np.random.default_rng(2)
    block = None
    for zeros in range(20, 80):
        shuffled = np.concatenate(
            [rng.integers(0, 256, 8192 - zeros, dtype=np.uint8), np.zeros(zeros, np.uint8)]
        )
        if len(imagecodecs.lz4_encode(shuffled.tobytes())) == 8192:
            block = shuffled
            break
    assert block is not None
    plain = imagecodecs.bitshuffle_decode(block, blocksize=8192)
    packed = compress("bslz4", np.concatenate([plain, plain[:100]]))
    assert packed[:4] == (8192).to_bytes(4, "big")
    mode = Mode.of((8292,), 0, DataType.UInt8, codec="bslz4", compressed_size=len(packed))
    found = decode(np.frombuffer(packed, np.uint8), mode)
    np.testing.assert_array_equal(found[0], np.concatenate([plain, plain[:100]]))


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("codec", CODECS)
def test_damaged_data_are_refused(codec: str) -> None:
    frame = numbered_frame(1, (120, 100), "uint8")
    packed = compress(codec, frame if codec == "jpeg" else frame.reshape(-1))
    mode = Mode.of((100, 120), 0, DataType.UInt8, codec=codec, compressed_size=len(packed))
    data = np.frombuffer(packed, np.uint8)
    with pytest.raises(BadValueError):
        decode(np.zeros(50, np.uint8), mode)
    with pytest.raises(BadValueError):  # a picture of half the size, or of twice
        decode(data, Mode.of((100, 60), 0, DataType.UInt8, codec=codec))
    with pytest.raises(BadValueError):
        decode(data, Mode.of((100, 240), 0, DataType.UInt8, codec=codec))
    if codec != "jpeg":  # libjpeg fills what is missing with grey
        with pytest.raises(BadValueError):
            decode(data[: len(packed) // 2], mode)


def test_an_unknown_codec() -> None:
    with pytest.raises(BadTypeError, match=r"no codec 'zfp'; known are jpeg, zlib"):
        picture(np.zeros(50, np.uint8), Mode.of((4, 6), codec="zfp"))


def test_without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(BadTypeError, match=r"lz4 need imagecodecs: pip install epicsx\[ad\]"):
        picture(np.zeros(50, np.uint8), Mode.of((4, 6), codec="lz4"))


# ------------------------------------------------------------------ many at once, regions


@pytest.mark.usefixtures("codecs")
def test_pictures_come_in_order_and_are_decoded_in_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import epicsx._ndarray as module

    seen = set()
    plain = module.decode

    def noted(data: Any, mode: Mode) -> Any:
        seen.add(threading.current_thread().name)
        return plain(data, mode)

    monkeypatch.setattr(module, "decode", noted)
    taken = 0

    def frames() -> Iterator[tuple[Any, Mode]]:
        nonlocal taken
        for number in range(40):
            packed = compress("lz4", numbered_frame(number, (30, 20)).reshape(-1))
            taken += 1
            yield (
                np.frombuffer(packed, np.uint8),
                Mode.of((20, 30), codec="lz4", compressed_size=len(packed)),
            )

    found = pictures(frames(), workers=3)
    for number, each in enumerate(found):
        np.testing.assert_array_equal(each, numbered_frame(number, (30, 20)))
        assert taken <= number + 6
    assert number == 39
    assert seen
    assert all(name.startswith("epicsx decoder") for name in seen)


def test_an_error_comes_in_its_frames_place() -> None:
    good = (np.zeros(24, np.uint8), Mode.of((4, 6)))
    bad = (np.zeros(23, np.uint8), Mode.of((4, 6)))
    found = pictures([good, good, bad, good], workers=2)
    assert next(found).shape == next(found).shape == (6, 4)
    with pytest.raises(BadValueError, match="23 elements"):
        next(found)


@pytest.mark.parametrize("mode", ["Mono", "Bayer", "RGB1", "RGB2"])
def test_rows_that_lie_together(mode: str) -> None:
    frame = numbered_frame(4, (10, 6) if mode in ("Mono", "Bayer") else (10, 6, 3))
    flat, dims = laid_out(frame, mode) if frame.ndim == 3 else (frame.reshape(-1), (6, 10))
    whole = Mode.of(dims, ColorMode[mode])
    rows = whole.rows(2, 7)
    assert rows is not None
    band = picture(flat[slice(*rows)], whole.with_rows(5))
    np.testing.assert_array_equal(band, frame[2:7])


def test_rows_that_do_not_lie_together() -> None:
    planes = Mode.of((6, 10, 3), ColorMode.RGB3)
    assert planes.rows(2, 7) is None
    assert planes.rows(0, 10) == (0, 180)
    assert Mode.of((6, 10), codec="lz4").rows(0, 10) is None
    assert planes.with_rows(5).shape == (5, 6, 3)


def test_regions() -> None:
    frame = numbered_frame(4, (10, 6))
    np.testing.assert_array_equal(Roi.of((2, 5)).cut(frame), frame[2:5])
    np.testing.assert_array_equal(Roi.of((2, 5, 1, 3)).cut(frame), frame[2:5, 1:3])
    np.testing.assert_array_equal(Roi.of((8, 50, 4, None)).cut(frame), frame[8:, 4:])
    assert np.shares_memory(Roi.of((2, 5)).cut(frame), frame)
    assert Roi.of((2, 50)).within((10, 6, 3)) == (2, 10, 0, 6)
    with pytest.raises(BadValueError, match="outside of a picture of 10 rows and 6 columns"):
        Roi.of((10, 12)).cut(frame)
    for wrong in ((1,), (1, 2, 3), (3, 3), (-1, 4), (0, 4, 5, 2)):
        with pytest.raises(BadValueError, match="region"):
            Roi.of(wrong)
