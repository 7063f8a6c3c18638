"""What the PVs of areaDetector's NDPluginStdArrays mean: the picture in a one-dimensional array, a codec undone.

Pure functions of their arguments: no Channel Access, no threads but those of `pictures`. `_images` joins the PVs of one
frame into a `Mode` and an array, and asks `picture`.

Names and numbers are ADCore's: ``NDDataType_t`` (NDAttribute.h), ``NDColorMode_t`` and ``NDBayerPattern_t``
(NDArray.h), ``NDCodecName`` (NDCodec.cpp). A member's name is the text that the PV shows, its value the PV's number.
"""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import BadTypeError, BadValueError, CAError

__all__ = [
    "CODECS",
    "BayerPattern",
    "ColorMode",
    "DataType",
    "Mode",
    "Roi",
    "decode",
    "ftvl_of",
    "picture",
    "pictures",
]

Array: TypeAlias = npt.NDArray[Any]


class DataType(IntEnum):
    """The type of an NDArray's elements, as DataType_RBV says it (NDAttribute.h, ``NDDataType_t``)."""

    Int8 = 0
    UInt8 = 1
    Int16 = 2
    UInt16 = 3
    Int32 = 4
    UInt32 = 5
    Int64 = 6
    UInt64 = 7
    Float32 = 8
    Float64 = 9

    @property
    def dtype(self) -> np.dtype[Any]:
        """The same as a numpy dtype."""
        return np.dtype(self.name.lower())


class ColorMode(IntEnum):
    """How an NDArray holds a picture, as ColorMode_RBV says it (NDArray.h, ``NDColorMode_t``)."""

    Mono = 0
    Bayer = 1
    RGB1 = 2
    RGB2 = 3
    RGB3 = 4
    YUV444 = 5
    YUV422 = 6
    YUV411 = 7


class BayerPattern(IntEnum):
    """Which colours the first two pixels of the first two rows have (NDArray.h, ``NDBayerPattern_t``)."""

    RGGB = 0
    GBRG = 1
    GRBG = 2
    BGGR = 3


CODECS = ("jpeg", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4")
"""The codecs of NDPluginCodec by the names that Codec_RBV shows; uncompressed is '' (NDCodec.cpp, ``NDCodecName``)."""

# Of an NDArray's dimensions, fastest first, those that are x, y and colour (NDArray.cpp, NDArray::getInfo).
_AXES = {ColorMode.RGB1: (1, 2, 0), ColorMode.RGB2: (0, 2, 1), ColorMode.RGB3: (0, 1, 2)}

# Each field type that a waveform's FTVL may name: the CA type it is served as, and the bytes of an element in the IOC.
# CA has no unsigned integers but CHAR and ENUM, and none of 64 bits, so dbDBRnewToDBRold (db_convert.h) promotes them.
_FTVL: dict[str, tuple[str, int]] = {
    "CHAR": ("uint8", 1),
    "UCHAR": ("uint8", 1),
    "SHORT": ("int16", 2),
    "USHORT": ("int32", 2),
    "LONG": ("int32", 4),
    "ULONG": ("float64", 4),
    "INT64": ("float64", 8),
    "UINT64": ("float64", 8),
    "FLOAT": ("float32", 4),
    "DOUBLE": ("float64", 8),
}
_LIKELY = {
    "uint8": "UCHAR",
    "int16": "SHORT",
    "int32": "LONG",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}

_LARGEST = 2**31 - 1
"""The largest edge of a region: what a record of NDPluginROI can hold."""
_EXACT = 2.0**53
"""From here on neighbouring integers are the same float64."""


@dataclass(frozen=True)
class Mode:
    """All that tells how to read a frame's array: what its metadata PVs said.

    Attributes
    ----------
    dims : tuple of int
        The dimensions, the fastest first: those of Dimensions_RBV or ArraySize0_RBV, ... that are not 0.
    color_mode, data_type, bayer : ColorMode, DataType, BayerPattern
        The pattern counts for a Bayer picture only.
    codec : str
        One of `CODECS`, or '' for an array that is not compressed.
    compressed_size : int, bytes
        Of a compressed array, how many bytes of it count.
    """

    dims: tuple[int, ...]
    color_mode: ColorMode = ColorMode.Mono
    data_type: DataType = DataType.UInt8
    bayer: BayerPattern = BayerPattern.RGGB
    codec: str = ""
    compressed_size: int = 0

    @classmethod
    def of(
        cls,
        dims: Iterable[int],
        color_mode: int = 0,
        data_type: int = 1,
        bayer: int = 0,
        codec: str = "",
        compressed_size: int = 0,
    ) -> Mode:
        """The mode that the PVs' plain values say; trailing zeros of `dims` are dropped.

        Raises
        ------
        BadTypeError
            For a colour mode or data type that ADCore does not know.
        BadValueError
            For dimensions that are negative, or 0 before one that is not.
        """
        sizes = [int(each) for each in dims]
        while sizes and sizes[-1] == 0:
            sizes.pop()
        if any(each <= 0 for each in sizes):
            raise BadValueError(f"an array has no dimensions {sizes}")
        try:
            return cls(
                tuple(sizes),
                ColorMode(color_mode),
                DataType(data_type),
                BayerPattern(bayer),
                codec.strip().lower(),
                int(compressed_size),
            )
        except ValueError as error:
            raise BadTypeError(f"areaDetector has no such mode: {error}") from None

    @property
    def elements(self) -> int:
        """How many pixels' values the picture has: the product of its dimensions; 0 before the first frame."""
        return int(np.prod(self.dims, dtype=np.int64)) if self.dims else 0

    @property
    def nbytes(self) -> int:
        """How many bytes the picture has, uncompressed."""
        return self.elements * self.data_type.dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """The picture's shape: (y, x), or (y, x, 3) for the RGB modes. A single line is (1, x).

        Raises
        ------
        BadTypeError
            For the YUV modes, which are not decoded, and for arrays that are no picture, such as a stack.
        BadValueError
            For an RGB mode whose dimensions have no 3 where the mode puts the colour; and without any dimension.
        """
        dims, mode = self.dims, self.color_mode
        if not dims:
            raise BadValueError("the array has no dimensions: the plugin has had no frame yet")
        if mode in (ColorMode.YUV444, ColorMode.YUV422, ColorMode.YUV411):
            raise BadTypeError(
                f"{mode.name} pictures are not decoded; let NDPluginColorConvert make RGB1 of them"
            )
        if mode in _AXES:
            x, y, colour = _AXES[mode]
            if len(dims) != 3 or dims[colour] != 3:
                raise BadValueError(f"an {mode.name} picture cannot have the dimensions {dims}")
            return dims[y], dims[x], 3
        # NDPluginROI leaves dimensions of 1 unless CollapseDims asks for less.
        plain = dims[:2] if all(each == 1 for each in dims[2:]) else dims
        if len(plain) > 2:
            raise BadTypeError(f"{len(plain)} dimensions {dims} are not one {mode.name} picture")
        return (plain[1] if len(plain) == 2 else 1), plain[0]

    def rows(self, first: int, last: int) -> tuple[int, int] | None:
        """The elements that rows `first` to `last` - 1 are made of, as (start, end), where they lie together.

        None where they do not: planes (RGB3), and compressed arrays.
        """
        if self.codec or (self.color_mode is ColorMode.RGB3 and self.shape[0] != last - first):
            return None
        row = self.elements // self.shape[0]
        return first * row, last * row

    def with_rows(self, count: int) -> Mode:
        """The mode of a picture that is the same but has `count` rows."""
        y = _AXES[self.color_mode][1] if self.color_mode in _AXES else 1
        dims = list(self.dims) if len(self.dims) > y else [*self.dims, 1]
        dims[y] = count
        return replace(self, dims=tuple(dims))


@dataclass(frozen=True)
class Roi:
    """A part of a picture: rows `y0` to `y1` - 1, columns `x0` to `x1` - 1; None is the far edge."""

    y0: int
    y1: int | None
    x0: int = 0
    x1: int | None = None

    @classmethod
    def of(cls, given: Iterable[int | None]) -> Roi:
        """The region meant by (y0, y1) or (y0, y1, x0, x1), counted from the upper left corner.

        Raises
        ------
        BadTypeError
            For anything but whole numbers and None.
        BadValueError
            For more or less than two or four; for negative ones and those from 2**31 on; for an end that is not behind
            its beginning.
        """
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise BadTypeError(f"a region is (y0, y1) or (y0, y1, x0, x1), not {given!r}")
        numbers = [_edge(each) for each in islice(given, 5)]  # it may have no end
        if len(numbers) not in (2, 4):
            raise BadValueError(
                f"a region is (y0, y1) or (y0, y1, x0, x1), not {len(numbers)} numbers or more"
                if len(numbers) > 4
                else f"a region is (y0, y1) or (y0, y1, x0, x1), not {tuple(numbers)}"
            )
        edges: list[tuple[int, int | None]] = []
        for low, high in zip(numbers[::2], numbers[1::2], strict=True):
            first, last = low or 0, high
            if first < 0 or (last is not None and last <= first):
                raise BadValueError(
                    f"a region's end is behind its beginning, and neither is negative: "
                    f"{tuple(numbers)}"
                )
            edges.append((first, last))
        (y0, y1), (x0, x1) = edges[0], edges[1] if len(edges) == 2 else (0, None)
        return cls(y0, y1, x0, x1)

    def within(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Rows and columns (y0, y1, x0, x1) of this region in a picture of that shape.

        Raises
        ------
        BadValueError
            When nothing of it is inside the picture.
        """
        y, x = shape[:2]
        y1 = y if self.y1 is None else min(self.y1, y)
        x1 = x if self.x1 is None else min(self.x1, x)
        if self.y0 >= y1 or self.x0 >= x1:
            raise BadValueError(
                f"rows {self.y0} to {self.y1}, columns {self.x0} to {self.x1} "
                f"are outside of a picture of {y} rows and {x} columns"
            )
        return self.y0, y1, self.x0, x1

    def cut(self, data: Array) -> Array:
        """The region of a picture, as a view; BadValueError when there is none."""
        y0, y1, x0, x1 = self.within(data.shape)
        return data[y0:y1, x0:x1]


def _edge(given: Any) -> int | None:
    """One number of a region."""
    if given is None:
        return None
    try:
        if isinstance(given, bool):
            raise TypeError
        number = operator.index(given)
    except TypeError:
        raise BadTypeError(f"a region has whole numbers of pixels, not {given!r}") from None
    if number > _LARGEST:
        raise BadValueError(f"a region ends before pixel 2**31, not at {number}")
    return number


def ftvl_of(served: Array, ftvl: str = "") -> str:
    """The waveform's FTVL: the one given where it can be, else the likeliest for the type that CA served.

    Raises
    ------
    BadTypeError
        For text and enums, and for an FTVL that CA does not serve as such an array.
    """
    kind = served.dtype.name
    if not ftvl:
        if kind not in _LIKELY:
            raise BadTypeError(f"an array of {kind} holds no picture")
        return _LIKELY[kind]
    if ftvl not in _FTVL:
        raise BadTypeError(f"a waveform of {ftvl} holds no picture")
    if _FTVL[ftvl][0] != kind:
        raise BadTypeError(f"CA serves {ftvl} as {_FTVL[ftvl][0]}, not as {kind}")
    return ftvl


def picture(served: Array, mode: Mode, *, ftvl: str = "", name: str = "") -> Array:
    """The picture in an array as CA served it: (y, x) or (y, x, 3), of the detector's dtype.

    A view of `served` where the CA type has the same bits (UInt16 in a waveform of SHORT), the RGB2 and RGB3 layouts as
    transposed views; else a new array. Elements behind the picture's last are left off: a waveform may be longer than
    the frame. Compressed arrays are decoded in the calling thread, outside the GIL.

    Parameters
    ----------
    served : ndarray, 1-D, of the CA type
    mode : Mode
    ftvl : str
        The waveform's FTVL where it is known. Without it an array of int32 is taken for LONG (it may be USHORT), and
        one of float64 for DOUBLE.
    name : str
        The PV, for the errors.

    Raises
    ------
    BadTypeError
        For modes that are not decoded (YUV) or are no picture; for a waveform whose type cannot hold the detector's:
        NDPluginStdArrays then cuts off bits or decimals (NDArrayPool::convert), and no client can tell what was there.
    BadValueError
        For an array that is shorter than the picture, and for compressed data that cannot be decoded.
    """
    try:
        kind = ftvl_of(served, ftvl)
        if mode.codec:
            return decode(_bytes(served, kind, mode), mode)
        mode.shape  # noqa: B018  what is no picture shall say so before it is converted
        if served.size < mode.elements:
            raise BadValueError(
                f"{served.size} elements are too few for a picture of {mode.dims}, which has "
                f"{mode.elements}; is the waveform's NELM too small?"
            )
        return _arranged(_typed(served[: mode.elements], mode.data_type, kind), mode)
    except CAError as error:
        if name and not error.name:
            raise type(error)(f"'{name}': {error.message}", name=name) from error
        raise


def pictures(
    frames: Iterable[tuple[Array, Mode]],
    *,
    ftvl: str = "",
    workers: int | None = None,
    name: str = "",
) -> Iterator[Array]:
    """The pictures of many frames in their order, several of which are decoded at once.

    imagecodecs lets the GIL go, so `workers` threads decode as many frames; at most twice as many are read ahead of the
    one that is handed out. An error is raised in its frame's place and ends the iteration.

    Parameters
    ----------
    frames : iterable of (array, Mode), as for `picture`
    workers : int
        Threads; by default one for each processor, at most 8.
    """
    count = workers or min(os.cpu_count() or 1, 8)
    waiting: deque[Future[Array]] = deque()
    with ThreadPoolExecutor(count, "epicsx decoder") as pool:
        try:
            for served, mode in frames:
                waiting.append(pool.submit(picture, served, mode, ftvl=ftvl, name=name))
                if len(waiting) >= 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


# ------------------------------------------------------------------------ what CA served


def _typed(served: Array, data_type: DataType, ftvl: str) -> Array:
    """The elements in the detector's dtype, undoing what NDArrayPool::convert and CA did to them.

    convert() makes the waveform's type of the array's by C casts, without a word when they lose something.
    """
    dtype = data_type.dtype
    width = _FTVL[ftvl][1]
    decimals = ftvl in ("FLOAT", "DOUBLE")
    if dtype.kind == "f":
        if not decimals:
            raise BadTypeError(
                f"a waveform of {ftvl} cannot hold {data_type.name}: decimals are cut off in the IOC; "
                "load NDStdArrays.template with TYPE=Float64, FTVL=DOUBLE"
            )
        # Float64 that the server has rounded to FLOAT stays float32, which says how exact it is.
        return served.astype(dtype) if served.dtype.itemsize > dtype.itemsize else served
    # An integer in FLOAT is exact in its 24 bits, in DOUBLE in its 53.
    holds = {"FLOAT": 2, "DOUBLE": 8}.get(ftvl, width)
    if holds < dtype.itemsize:
        raise BadTypeError(
            f"a waveform of {ftvl} cannot hold {data_type.name}: bits are cut off in the IOC; "
            f"load NDStdArrays.template with an FTVL of {dtype.itemsize} bytes or more"
        )
    if served.dtype.kind == "f":
        if width == 8 and dtype.itemsize == 8 and np.any(np.abs(served) >= _EXACT):
            raise BadValueError(
                f"CA serves {ftvl} as DOUBLE, which cannot tell {data_type.name} values from 2**53 on apart"
            )
        # By way of int64, as ULONG may hold the bits of a negative Int32: then the high ones fall off.
        return served.astype(np.int64).astype(dtype, copy=False)
    if served.dtype.itemsize == dtype.itemsize:
        return served.view(dtype)
    return served.astype(dtype)  # USHORT came as int32: the high bits, all 0 or all 1, fall off


def _arranged(flat: Array, mode: Mode) -> Array:
    """The elements as (y, x) or (y, x, 3): views."""
    y, x = mode.shape[:2]
    if mode.color_mode is ColorMode.RGB1:
        return flat.reshape(y, x, 3)
    if mode.color_mode is ColorMode.RGB2:
        return flat.reshape(y, 3, x).transpose(0, 2, 1)
    if mode.color_mode is ColorMode.RGB3:
        return flat.reshape(3, y, x).transpose(1, 2, 0)
    return flat.reshape(y, x)


def _bytes(served: Array, ftvl: str, mode: Mode) -> Array:
    """The compressed bytes in an array, as the IOC had them in memory.

    NDPluginStdArrays lays them into the waveform unconverted, as if they were its elements, and counts
    ``compressedSize / bytesPerElement + 1`` of them, with the bytes of the *uncompressed* type
    (NDPluginStdArrays.cpp, arrayInterruptCallback): a waveform of narrower elements gets too few bytes.
    """
    if ftvl in ("INT64", "UINT64"):
        raise BadTypeError(f"CA serves {ftvl} as DOUBLE, so compressed data do not arrive whole")
    if ftvl == "LONG" and not np.any(served >> 16):
        ftvl = "USHORT"  # it was unknown: no compressed data have every second pair of bytes 0
    if ftvl == "USHORT":
        served = served.astype(np.uint16)
    elif ftvl == "ULONG":
        served = served.astype(np.uint32)
    found = np.ascontiguousarray(served).view(np.uint8)
    if found.size < mode.compressed_size:
        raise BadValueError(
            f"{found.size} bytes came of {mode.compressed_size} that are compressed by {mode.codec}; the waveform's "
            f"NELM is too small, or its elements are narrower than {mode.data_type.name}"
        )
    return found[: mode.compressed_size] if mode.compressed_size else found


# ---------------------------------------------------------------------------- the codecs


def decode(data: Array, mode: Mode) -> Array:
    """The picture in compressed bytes: (y, x) or (y, x, 3), of the detector's dtype, decoded in the calling thread.

    Parameters
    ----------
    data : ndarray of uint8, 1-D
        As NDPluginCodec made them, no byte too many.
    mode : Mode
        Its codec says what undoes them.

    Raises
    ------
    BadTypeError
        For a codec that NDPluginCodec has not, and without the package imagecodecs.
    BadValueError
        For bytes that are no such data, or another picture's.
    """
    shape = mode.shape
    if mode.codec not in CODECS:
        raise BadTypeError(f"no codec '{mode.codec}'; known are {', '.join(CODECS)}")
    try:
        import imagecodecs
    except ImportError:
        raise BadTypeError(
            f"frames compressed by {mode.codec} need imagecodecs: pip install epicsx[ad]"
        ) from None
    try:
        found = _undo(imagecodecs, data, mode)
    except CAError:
        raise
    except (RuntimeError, ValueError) as error:  # imagecodecs' errors are RuntimeErrors
        raise BadValueError(f"{data.size} bytes are no {mode.codec} data: {error}") from error
    if mode.codec == "jpeg":
        if found.shape != shape:
            raise BadValueError(f"the JPEG picture is {found.shape}, its PVs say {shape}")
        return found.view(mode.data_type.dtype)
    if found.nbytes != mode.nbytes:
        raise BadValueError(
            f"{mode.codec} gave {found.nbytes} bytes for a picture of {mode.nbytes}"
        )
    return _arranged(found.view(mode.data_type.dtype), mode)


def _undo(imagecodecs: Any, data: Array, mode: Mode) -> Array:
    """The uncompressed bytes; for JPEG the picture, of uint8."""
    codec = mode.codec
    if codec == "jpeg":
        # compressJPEG writes colour pixel by pixel, whatever the layout was, and only 8-bit data.
        if mode.data_type.dtype.itemsize != 1:
            raise BadTypeError(f"JPEG has no {mode.data_type.name}")
        decoded: Array = imagecodecs.jpeg8_decode(data)
        return decoded
    if codec == "bslz4":
        return _undo_bslz4(imagecodecs, data, mode)
    if codec == "blosc":
        # Blosc believes its header (blosc.h, BLOSC_MIN_HEADER_LENGTH) and would read behind the end of the data.
        said = int.from_bytes(data[12:16].tobytes(), "little")
        if data.size < 16 or said > data.size:
            raise BadValueError(f"{data.size} bytes of blosc data, whose header says {said}")
    # One byte more than there should be, so that data of a larger picture are seen to be too long.
    out = np.empty(mode.nbytes + (codec in ("zlib", "lz4")), np.uint8)
    undo = {
        "zlib": imagecodecs.zlib_decode,
        "lz4": imagecodecs.lz4_decode,  # one bare block: compressLZ4
        "lz4hdf5": imagecodecs.lz4h5_decode,  # HDF5's framing: compress_lz4hdf5 of ADSupport
        "blosc": imagecodecs.blosc_decode,
    }[codec]
    return np.frombuffer(undo(data, out=out), np.uint8)


_BLOCK = 8192  # bytes; BSHUF_TARGET_BLOCK_SIZE_B of bitshuffle_internals.h
_MULTIPLE = 8  # elements; BSHUF_BLOCKED_MULT
_SMALLEST = 128  # elements; BSHUF_MIN_RECOMMEND_BLOCK


def bslz4_block(itemsize: int) -> int:
    """How many elements a block of bitshuffle has (bitshuffle_core.c, bshuf_default_block_size)."""
    return max(_BLOCK // itemsize // _MULTIPLE * _MULTIPLE, _SMALLEST)


def _undo_bslz4(imagecodecs: Any, data: Array, mode: Mode) -> Array:
    """What bshuf_decompress_lz4 gives: blocks of shuffled bits, each LZ4 behind its size of 4 bytes, big-endian.

    imagecodecs has bitshuffle without LZ4. But HDF5's LZ4 frames its blocks in the same way, so one call undoes the LZ4
    of all blocks and another all the shuffling, both outside the GIL. What does not fill a multiple of 8 elements
    stands behind the blocks as it is (bitshuffle_core.c, bshuf_blocked_wrap_fun). NDPluginCodec writes no header.
    """
    itemsize = mode.data_type.dtype.itemsize
    block = bslz4_block(itemsize)
    whole = mode.elements // _MULTIPLE * _MULTIPLE * itemsize
    left = mode.nbytes - whole
    packed = data[: data.size - left]
    shuffled = np.empty(mode.nbytes, np.uint8)
    at = done = 0
    while done < whole:  # Look at every size: the two formats differ in one thing.
        size = min(block * itemsize, whole - done)
        if at + 4 > packed.size:
            raise BadValueError(f"the bslz4 data end after {done} of {mode.nbytes} bytes")
        length = int.from_bytes(packed[at : at + 4].tobytes(), "big")
        # HDF5 takes a block that LZ4 left as long as it was for one that is not compressed.
        if length == size:
            return _undo_bslz4_blocks(imagecodecs, data, mode)
        at, done = at + 4 + length, done + size
    if at != packed.size:
        raise BadValueError(f"{packed.size} bytes of bslz4 data, whose blocks say {at}")
    if whole:
        head = whole.to_bytes(8, "big") + (block * itemsize).to_bytes(4, "big")
        found = imagecodecs.lz4h5_decode(head + packed.tobytes(), out=shuffled[:whole])
        if len(found) != whole:
            raise BadValueError(
                f"a block of the bslz4 data is too short by {whole - len(found)} bytes"
            )
    shuffled[whole:] = data[data.size - left :]
    return _unshuffled(imagecodecs, shuffled, mode)


def _undo_bslz4_blocks(imagecodecs: Any, data: Array, mode: Mode) -> Array:
    """The same block by block."""
    itemsize = mode.data_type.dtype.itemsize
    block = bslz4_block(itemsize) * itemsize
    whole = mode.elements // _MULTIPLE * _MULTIPLE * itemsize
    shuffled = np.empty(mode.nbytes, np.uint8)
    at = 0
    for first in range(0, whole, block):
        last = min(first + block, whole)
        length = int.from_bytes(data[at : at + 4].tobytes(), "big")
        imagecodecs.lz4_decode(data[at + 4 : at + 4 + length], out=shuffled[first:last])
        at += 4 + length
    shuffled[whole:] = data[at : at + mode.nbytes - whole]
    return _unshuffled(imagecodecs, shuffled, mode)


def _unshuffled(imagecodecs: Any, shuffled: Array, mode: Mode) -> Array:
    itemsize = mode.data_type.dtype.itemsize
    # An ndarray says its element's size by itself; the block size must be the writer's.
    typed = shuffled.view(mode.data_type.dtype)
    plain: Array = imagecodecs.bitshuffle_decode(typed, blocksize=bslz4_block(itemsize))
    return plain.view(np.uint8)
