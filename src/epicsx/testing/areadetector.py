"""`AreaDetectorIOC`: a soft IOC that serves frames as areaDetector's NDPluginStdArrays does.

The records are those of NDStdArrays.template and of what it includes, as far as clients of images read them, with soft
device support instead of asyn's. A frame is put inside the IOC's process, so no client of Channel Access is needed for
it, and in the order in which ADCore puts it. What ADCore does, and this does too:

- ``Dimensions_RBV`` and the records behind it are posted before the data, and only when they have changed
  (NDPluginDriver.cpp, beginProcessCallbacks, which calls doCallbacksInt32Array).
- Then ``ArrayData``. All else comes behind it, by the callParamCallbacks at the end of NDPluginStdArrays.cpp,
  processCallbacks, in the order in which beginProcessCallbacks set the parameters; what has not changed is not posted
  (asynPortDriver.cpp, paramList::setInteger and callCallbacks). So a frame's ColorMode_RBV and UniqueId_RBV are *later*
  than its data.
- But while the data are posted the plugin is not locked, and the driver's next frame calls callParamCallbacks, too
  (NDPluginDriver.cpp, driverCallback): under load they may be *earlier*. `order` chooses.
- Each record takes the time at which it processes, as no template sets TSE; sites that set it to -2 have the frame's
  own stamp on all of them (devAsyn*.c set TIME). `stamps` chooses.
- The data are converted to the waveform's type by C casts (NDArrayPool::convert); compressed data are laid into it as
  they are (NDPluginStdArrays.cpp, arrayInterruptCallback). What does not fit into NELM is cut off.

Not served: the records that no reader of images needs, binning and scaling of NDPluginROI.

Threads. `send` and `play` may be called from any thread and take turns. With ``wait=False`` a thread of the IOC's
process puts the frames; `wait`, and the next `send` or `play`, waits for it.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from epicsx.testing.recorded import recorded_frames
from epicsx.testing.softioc import SoftIOC, SoftIOCError

if TYPE_CHECKING:
    import numpy.typing as npt

    _Array: TypeAlias = npt.NDArray[Any]

_DATA_TYPES = [
    "Int8",
    "UInt8",
    "Int16",
    "UInt16",
    "Int32",
    "UInt32",
    "Int64",
    "UInt64",
    "Float32",
    "Float64",
]
# The last one's text differs from its name in NDArray.h.
_COLOR_MODES = ["Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421"]
_BAYER = ["RGGB", "GBRG", "GRBG", "BGGR"]
_STATES = ["ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV", "EI", "NI"]

# What a waveform's elements are: the type that asyn's interface hands over, then that of the put (dbFldTypes.h).
_WAVEFORMS = {
    "CHAR": ("int8", 1),
    "UCHAR": ("int8", 2),
    "SHORT": ("int16", 3),
    "USHORT": ("int16", 4),
    "LONG": ("int32", 5),
    "ULONG": ("int32", 6),
    "INT64": ("int64", 7),
    "UINT64": ("int64", 8),
    "FLOAT": ("float32", 9),
    "DOUBLE": ("float64", 10),
}
_STRING, _LONG, _DOUBLE, _ENUM, _TIME = 0, 5, 10, 11, -1
_EPICS_EPOCH = 631152000  # seconds from 1970 to 1990
_MAX_DIMS = 10  # ND_ARRAY_MAX_DIMS

# name, type of record, type of the put: in the order of beginProcessCallbacks
_PARAMETERS = (
    ("ArrayCounter_RBV", "longin", _LONG),
    ("NDimensions_RBV", "longin", _LONG),
    ("DataType_RBV", "mbbi", _ENUM),
    ("ColorMode_RBV", "mbbi", _ENUM),
    ("BayerPattern_RBV", "mbbi", _ENUM),
    ("Codec_RBV", "stringin", _STRING),
    ("CompressedSize_RBV", "longin", _LONG),
    ("UniqueId_RBV", "longin", _LONG),
    ("TimeStamp_RBV", "ai", _DOUBLE),
    ("EpicsTSSec_RBV", "longin", _LONG),
    ("EpicsTSNsec_RBV", "longin", _LONG),
)
_MENUS = {
    "DataType_RBV": _DATA_TYPES,
    "ColorMode_RBV": _COLOR_MODES,
    "BayerPattern_RBV": _BAYER,
}
_PACK = {_LONG: "=i", _DOUBLE: "=d", _ENUM: "=H", _STRING: "40s"}


class AreaDetectorIOC(SoftIOC):
    """A soft IOC with the PVs of areaDetector's NDPluginStdArrays, whose frames the test sends.

    Parameters
    ----------
    ftvl : str
        The type of ArrayData's elements: CHAR, UCHAR, SHORT, USHORT, LONG, ULONG, INT64, UINT64, FLOAT or DOUBLE.
    nelements : int
        NELM of ArrayData.
    plugin : str
        The macro R of the plugin: its PVs are called prefix + `plugin` + ``ArrayData`` and so on.
    roi : str, optional
        The macro R of an NDPluginROI that stands before the plugin, such as ``'ROI1:'``; what clients write to MinX,
        SizeX, MinY, SizeY and EnableX, EnableY cuts the frames that follow.
    stamps : 'record' or 'frame'
        Each record's own time of processing, as ADCore ships; or the frame's time on all that is posted of it.
    db : str, bytes, path or a list of these
        Further databases.
    **options
        As for `SoftIOC`.

    Attributes
    ----------
    order : 'data first' or 'metadata first'
        Where the parameters stand that ADCore usually posts behind the data. May be set at any time.

    Examples
    --------
    >>> with AreaDetectorIOC(ftvl="USHORT", nelements=640 * 480) as ioc:
    ...     ioc.send(numbered_frame(1, (480, 640), "uint16"))
    ...     ioc.read("image1:UniqueId_RBV")
    1
    '1'
    """

    def __init__(
        self,
        *,
        ftvl: str = "UCHAR",
        nelements: int = 1 << 20,
        plugin: str = "image1:",
        roi: str = "",
        stamps: Literal["record", "frame"] = "record",
        db: Any = (),
        **options: Any,
    ) -> None:
        if ftvl not in _WAVEFORMS:
            raise ValueError(f"ftvl is one of {', '.join(_WAVEFORMS)}, not {ftvl!r}")
        if stamps not in ("record", "frame"):
            raise ValueError(f"stamps are those of the 'record' or of the 'frame', not {stamps!r}")
        further = [db] if isinstance(db, (str, bytes, os.PathLike)) else list(db)
        super().__init__([_database(ftvl, nelements, plugin, roi, stamps), *further], **options)
        self.ftvl = ftvl
        self.nelements = nelements
        self.plugin = plugin
        self.roi = roi
        self.stamps = stamps
        self.order: Literal["data first", "metadata first"] = "data first"
        self._lock = threading.Lock()
        self._posted: dict[str, Any] = {}
        self._next_id = 1
        self._counter = 0

    @property
    def image_prefix(self) -> str:
        """What the names of the plugin's PVs begin with: what a client of images is given."""
        return self.prefix + self.plugin

    def start(self) -> AreaDetectorIOC:
        """Start the IOC, which has had no frame yet; itself, so that it may be chained. Unique ids go on."""
        self._posted, self._counter = {}, 0
        super().start()
        return self

    # -- frames

    def send(
        self,
        frame: npt.ArrayLike,
        *,
        color_mode: str = "",
        unique_id: int | None = None,
        bayer: str = "RGGB",
        codec: str = "",
        timestamp: float | None = None,
    ) -> int:
        """Post one frame with all that belongs to it, and return its unique id when it is posted.

        Parameters
        ----------
        frame : array-like of one of areaDetector's ten types, (y, x) or (y, x, 3)
            For the RGB modes the picture, (y, x, 3), which is laid out as the mode says; for the YUV modes and for
            arrays that are no picture, the array as it is, with its last axis as the first dimension.
        color_mode : str
            As ColorMode_RBV shows it; by default Mono, or RGB1 for (y, x, 3).
        unique_id : int
            By default one more than the last frame's. Leave numbers out for frames that were lost before the plugin,
            begin again at a low one for a restart of the driver.
        bayer : str
            As BayerPattern_RBV shows it.
        codec : str
            '' or one of NDPluginCodec's: jpeg, zlib, blosc, lz4, lz4hdf5, bslz4; needs imagecodecs.
        timestamp : float, Unix seconds
            The frame's, by default now.

        Raises
        ------
        SoftIOCError
            When the IOC does not run, or EnableCallbacks is 0.
        """
        with self._lock:
            posted, number = self._post(
                [(frame, unique_id)], 0.0, True, color_mode, bayer, codec, timestamp
            )
        if not posted:
            raise SoftIOCError("the plugin takes no frames: EnableCallbacks is 0")
        return number

    def play(
        self,
        frames: Iterable[npt.ArrayLike],
        rate: float = 0.0,
        *,
        color_mode: str = "",
        bayer: str = "RGGB",
        codec: str = "",
        unique_ids: Sequence[int] | None = None,
        wait: bool = True,
    ) -> int:
        """Post many frames at a rate that the IOC's process keeps; how many were posted.

        They are handed over before the first is posted, so their making takes nothing from the rate.

        Parameters
        ----------
        frames : iterable, each as for `send`
        rate : float, frames per second
            0 is as fast as the IOC can.
        unique_ids : sequence of int
            One for each frame; by default they go on from the last one's.
        wait : bool
            False returns at once, with 0; `wait` then gives the number.
        """
        listed = list(frames)
        ids: Sequence[int | None] = unique_ids if unique_ids is not None else [None] * len(listed)
        with self._lock:
            plan = list(zip(listed, ids, strict=True))
            return self._post(plan, rate, wait, color_mode, bayer, codec, None)[0]

    def replay(
        self,
        path: str | os.PathLike[str],
        rate: float = 0.0,
        *,
        dataset: str = "",
        shape: tuple[int, ...] | None = None,
        dtype: str = "",
        **options: Any,
    ) -> int:
        """Post the frames of a recording, as `play` does; how many were posted.

        Parameters
        ----------
        path, dataset, shape, dtype
            As for `recorded_frames`: files of numpy, of areaDetector's NDFileHDF5, of ``epicsx record``.
        rate, **options
            As for `play`.
        """
        return self.play(
            recorded_frames(path, dataset=dataset, shape=shape, dtype=dtype), rate, **options
        )

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until the frames of a `play` with ``wait=False`` are posted; how many were."""
        return int(self.shell("@wait", timeout, check=True))

    def _post(
        self,
        frames: list[tuple[npt.ArrayLike, int | None]],
        rate: float,
        wait: bool,
        color_mode: str,
        bayer: str,
        codec: str,
        timestamp: float | None,
    ) -> tuple[int, int]:
        import numpy as np

        self._live()
        region = self._region() if self.roi else None
        writer = _Writer()
        plan: list[list[list[Any]]] = []
        begin = time.time() if timestamp is None else timestamp
        number = self._next_id
        for index, (frame, unique_id) in enumerate(frames):
            picture = np.asarray(frame)
            sizes: dict[str, int] = {}
            if region is not None:
                picture, sizes = _cut(picture, region, self.roi)
            number = self._next_id if unique_id is None else unique_id
            stamp = begin + (index / rate if rate else 0.0)
            plan.append(self._puts(writer, picture, color_mode, number, bayer, codec, stamp, sizes))
            self._next_id = number + 1
        assert self._process is not None
        path = os.path.join(self._process.folder, "frames.bin")
        head = {
            "rate": rate,
            "guard": self.image_prefix + "EnableCallbacks",
            "wait": wait,
            "frames": plan,
        }
        with open(path, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for part in writer.parts:
                file.write(part)
        lasts = len(frames) / rate if rate else 0.0
        posted = int(self.shell(f"@play {path}", 30.0 + lasts, check=True))
        if wait and posted < len(frames):
            self._posted = {}  # nobody knows which of them changed what
        return posted if wait else 0, number

    def _puts(
        self,
        writer: _Writer,
        picture: _Array,
        color_mode: str,
        unique_id: int,
        bayer: str,
        codec: str,
        stamp: float,
        sizes: dict[str, int],
    ) -> list[list[Any]]:
        """The puts of one frame, in their order."""
        import numpy as np

        color_mode = color_mode or ("RGB1" if picture.ndim == 3 else "Mono")
        array = _laid_out(picture, color_mode)
        kind = (
            array.dtype.name.replace("uint", "UInt").replace("int", "Int").replace("float", "Float")
        )
        if kind not in _DATA_TYPES:
            raise ValueError(f"areaDetector has no arrays of {array.dtype}")
        flat = np.ascontiguousarray(array).reshape(-1)
        element, dbr = _WAVEFORMS[self.ftvl]
        if codec:
            packed = compress(codec, picture if codec == "jpeg" else flat)
            size = len(packed)
            count = size // flat.itemsize + 1
            wanted = count * np.dtype(element).itemsize
            data = np.frombuffer(packed.ljust(wanted, b"\0")[:wanted], element)
        else:
            size = flat.nbytes
            data = flat.astype(element, copy=False)
        seconds, part = divmod(int(stamp) * 10**9 + round(stamp % 1 * 1e9), 10**9)
        self._counter += 1
        values = {
            "ArrayCounter_RBV": self._counter,
            "NDimensions_RBV": array.ndim,
            "DataType_RBV": _DATA_TYPES.index(kind),
            "ColorMode_RBV": _COLOR_MODES.index(color_mode.replace("YUV411", "YUV421")),
            "BayerPattern_RBV": _BAYER.index(bayer),
            "Codec_RBV": codec,
            "CompressedSize_RBV": size,
            "UniqueId_RBV": unique_id,
            "TimeStamp_RBV": seconds - _EPICS_EPOCH + part / 1e9,
            "EpicsTSSec_RBV": seconds - _EPICS_EPOCH,
            "EpicsTSNsec_RBV": part,
        }
        puts: list[list[Any]] = []
        if self.stamps == "frame":
            told = struct.pack("=II", seconds - _EPICS_EPOCH, part)
            puts.append(writer.put(self.image_prefix + "FrameStamp.TIME", _TIME, 1, told))
        dims = list(array.shape[::-1])
        if self._posted.get("Dimensions_RBV") != dims:
            self._posted["Dimensions_RBV"] = dims
            ten = struct.pack(f"={_MAX_DIMS}i", *dims, *[0] * (_MAX_DIMS - len(dims)))
            puts.append(writer.put(self.image_prefix + "Dimensions_RBV", _LONG, _MAX_DIMS, ten))
        arrays = [
            writer.put(
                self.image_prefix + "ArrayData",
                dbr,
                min(data.size, self.nelements),
                data[: self.nelements].tobytes(),
            )
        ]
        parameters = []
        for name, _, code in _PARAMETERS:
            if self._posted.get(name, 0 if code != _STRING else "") == values[name]:
                continue
            self._posted[name] = value = values[name]
            raw = value.encode() if isinstance(value, str) else value
            packed_value = struct.pack(_PACK[code], raw)
            parameters.append(writer.put(self.image_prefix + name, code, 1, packed_value))
        puts += arrays + parameters if self.order == "data first" else parameters + arrays
        for name, number in sizes.items():
            puts.append(writer.put(self.prefix + name, _LONG, 1, struct.pack("=i", number)))
        return puts

    def _region(self) -> dict[str, int]:
        """What NDPluginROI is told to cut, by the names of its records."""
        names = [f"{what}{axis}" for axis in "XY" for what in ("Min", "Size", "Enable")]
        texts = {name: self.read(self.roi + name) for name in names}
        return {name: int({"Enable": 1, "Disable": 0}.get(t, t)) for name, t in texts.items()}


class _Writer:
    """The bytes of all puts, one behind the other."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._end = 0

    def put(self, name: str, kind: int, count: int, data: bytes) -> list[Any]:
        """Append what is put, aligned for any type; the put as `_ioc_main` wants it."""
        at = self._end
        padded = data.ljust(-(-len(data) // 8) * 8, b"\0")
        self.parts.append(padded)
        self._end += len(padded)
        return [name, kind, count, at]


# -------------------------------------------------------------------------- frames


def numbered_frame(number: int, shape: tuple[int, ...], dtype: str = "uint8") -> _Array:
    """A synthetic frame that no other number has (modulo 241), so that a mixture of two frames is seen.

    Parameters
    ----------
    number : int
    shape : (y, x) or (y, x, 3)
    dtype : str
        Values run from 0 to 240, or to 120 for int8; so signed and unsigned agree but there.
    """
    import numpy as np

    axes = np.indices(shape[:2], np.int64)
    plain = axes[0] * 3 + axes[1] * 5 + number * 7
    if len(shape) == 3:
        plain = plain[..., None] + np.arange(shape[2]) * 31
    frame: _Array = (plain % (121 if dtype == "int8" else 241)).astype(dtype)
    return frame


def compress(codec: str, data: _Array) -> bytes:
    """What NDPluginCodec makes of an array (NDPluginCodec.cpp, compressJPEG and its like), by imagecodecs.

    Parameters
    ----------
    codec : str
        jpeg, zlib, blosc, lz4, lz4hdf5 or bslz4.
    data : ndarray
        The elements, one-dimensional; for jpeg the picture, (y, x) or (y, x, 3), of 8 bits.
    """
    import imagecodecs
    import numpy as np

    if codec == "jpeg":
        if data.dtype.itemsize != 1:
            raise ValueError("JPEG only supports 8-bit data")
        return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(data).view("u1"), level=95))
    raw = data.tobytes()
    if codec == "zlib":
        return bytes(imagecodecs.zlib_encode(raw))
    if codec == "lz4":
        return bytes(imagecodecs.lz4_encode(raw))
    if codec == "lz4hdf5":
        return bytes(imagecodecs.lz4h5_encode(raw))
    if codec == "blosc":
        return bytes(imagecodecs.blosc_encode(raw, typesize=data.itemsize))
    if codec != "bslz4":
        raise ValueError(f"NDPluginCodec has no codec {codec!r}")
    # bshuf_compress_lz4: blocks of shuffled bits, each behind its compressed size; the rest as it is.
    block = max(8192 // data.itemsize // 8 * 8, 128)
    shuffled = imagecodecs.bitshuffle_encode(data, blocksize=block).tobytes()
    whole = data.size // 8 * 8 * data.itemsize
    done = []
    for first in range(0, whole, block * data.itemsize):
        piece = bytes(
            imagecodecs.lz4_encode(shuffled[first : min(first + block * data.itemsize, whole)])
        )
        done += [struct.pack(">I", len(piece)), piece]
    return b"".join([*done, shuffled[whole:]])


def _laid_out(picture: _Array, color_mode: str) -> _Array:
    """The array as NDArray has it: its last axis is the first dimension."""
    import numpy as np

    if color_mode not in (*_COLOR_MODES, "YUV411"):
        raise ValueError(f"areaDetector has no colour mode {color_mode!r}")
    if color_mode == "RGB2":
        return np.moveaxis(picture, 2, 1)
    if color_mode == "RGB3":
        return np.moveaxis(picture, 2, 0)
    return picture


def _cut(picture: _Array, region: dict[str, int], roi: str) -> tuple[_Array, dict[str, int]]:
    """The part that NDPluginROI passes on, and what it then says of itself (NDPluginROI.cpp, processCallbacks)."""
    said: dict[str, int] = {}
    parts = []
    for axis, size in zip("YX", picture.shape[:2], strict=True):
        first, length = 0, size
        if region["Enable" + axis]:
            first = min(max(region["Min" + axis], 0), size - 1)
            length = min(max(region["Size" + axis], 1), size - first)
            said[f"{roi}Min{axis}_RBV"], said[f"{roi}Size{axis}_RBV"] = first, length
        said[f"{roi}MaxSize{axis}_RBV"], said[f"{roi}ArraySize{axis}_RBV"] = size, length
        parts.append(slice(first, first + length))
    return picture[tuple(parts)], said


# ------------------------------------------------------------------------- records


def _record(kind: str, name: str, **fields: object) -> str:
    if fields.get("TSEL"):
        fields["TSE"] = -2  # as such sites set it; the stamp comes by TSEL, which goes before it
    lines = "".join(
        f'    field({field}, "{value}")\n' for field, value in fields.items() if value != ""
    )
    return f'record({kind}, "$(P){name}") {{\n{lines}}}\n'


def _menu(states: Sequence[str]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for index, (state, text) in enumerate(zip(_STATES, states, strict=False)):
        fields |= {state + "ST": text, state + "VL": index}
    return fields


def _database(ftvl: str, nelements: int, plugin: str, roi: str, stamps: str) -> str:
    """The records of NDStdArrays.template, NDPluginBase.template, NDArrayBase.template and NDROI.template."""
    tsel = f"$(P){plugin}FrameStamp.TIME" if stamps == "frame" else ""
    made = [
        _record("waveform", plugin + "ArrayData", FTVL=ftvl, NELM=nelements, TSEL=tsel),
        *_base(plugin, "NDPluginStdArrays", roi[:-1] if roi else "SIM"),
        _record("longout", plugin + "ArrayCounter", OUT=f"$(P){plugin}ArrayCounter_RBV PP"),
        _record(
            "waveform",
            plugin + "Dimensions_RBV",
            FTVL="LONG",
            NELM=_MAX_DIMS,
            FLNK=f"$(P){plugin}Dim0SA_RBV",
            TSEL=tsel,
        ),
    ]
    for index in range(_MAX_DIMS):
        following = f"$(P){plugin}Dim{index + 1}SA_RBV" if index + 1 < _MAX_DIMS else ""
        made.append(
            _record(
                "subArray",
                f"{plugin}Dim{index}SA_RBV",
                INP=f"$(P){plugin}Dimensions_RBV NPP NMS",
                FTVL="LONG",
                MALM=_MAX_DIMS,
                NELM=1,
                INDX=index,
                FLNK=f"$(P){plugin}ArraySize{index}_RBV",
                TSEL=tsel,
            )
        )
        size = {"INP": f"$(P){plugin}Dim{index}SA_RBV", "FLNK": following, "TSEL": tsel}
        made.append(_record("longin", f"{plugin}ArraySize{index}_RBV", **size))
    for name, kind, _ in _PARAMETERS:
        start = {} if kind == "stringin" else {"INP": 0}
        menu = _menu(_MENUS[name]) if name in _MENUS else {}
        made.append(_record(kind, plugin + name, **start, **menu, TSEL=tsel, PINI="YES"))
    if stamps == "frame":
        made.append(_record("longin", plugin + "FrameStamp", TSE=-2))
    if roi:
        made += _base(roi, "NDPluginROI", "SIM")
        for axis in "XY":
            for what, value in (("Min", 0), ("Size", 1000000)):
                made += _pair("longout", "longin", f"{roi}{what}{axis}", value)
            switch = {"ZNAM": "Disable", "ONAM": "Enable"}
            made += _pair("bo", "bi", f"{roi}Enable{axis}", 1, **switch)
            made.append(_record("longin", f"{roi}MaxSize{axis}_RBV", INP=0))
            made.append(_record("longin", f"{roi}ArraySize{axis}_RBV", INP=0))
    return "".join(made)


def _base(plugin: str, kind: str, source: str) -> list[str]:
    """What every plugin has."""
    return [
        _record("stringin", plugin + "PortName_RBV", VAL=plugin[:-1], PINI="YES"),
        _record("stringin", plugin + "PluginType_RBV", VAL=kind, PINI="YES"),
        _record("stringin", plugin + "ADCoreVersion_RBV", VAL="3.14.0", PINI="YES"),
        _record(
            "stringout",
            plugin + "NDArrayPort",
            VAL=source,
            PINI="YES",
            OUT=f"$(P){plugin}NDArrayPort_RBV PP",
        ),
        _record("stringin", plugin + "NDArrayPort_RBV"),
        *_pair("bo", "bi", plugin + "EnableCallbacks", 1, ZNAM="Disable", ONAM="Enable"),
    ]


def _pair(output: str, readback: str, name: str, value: int, **fields: object) -> list[str]:
    """A record that clients write, and its readback."""
    return [
        _record(output, name, VAL=value, PINI="YES", OUT=f"$(P){name}_RBV PP", **fields),
        _record(readback, name + "_RBV", INP=value, **fields),
    ]
