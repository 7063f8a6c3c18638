"""Frames out of files, for `AreaDetectorIOC.replay`: what a detector once gave, served again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy.typing as npt

    _Array: TypeAlias = npt.NDArray[Any]

_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
_USUAL = ("/entry/data/data", "/entry/instrument/detector/data")
"""Where NDFileHDF5's default layout has the frames."""


def recorded_frames(
    path: str | os.PathLike[str],
    *,
    dataset: str = "",
    shape: tuple[int, ...] | None = None,
    dtype: str = "",
) -> Iterator[_Array]:
    """The frames of a file, one after the other, each read when it is asked for.

    Parameters
    ----------
    path : str or path
        ``.npy`` or ``.npz`` of numpy; ``.h5``, ``.hdf5``, ``.hdf`` or ``.nxs`` of areaDetector's NDFileHDF5, of
        ``Stream.to_hdf5`` and ``epicsx record``, or of whatever writes (frame, y, x); these need h5py.
    dataset : str
        Which array of an ``.npz`` or HDF5 file; by default all of the ``.npz``, and of an HDF5 file the one where
        NDFileHDF5 writes, or the only one that can be frames.
    shape : tuple of int
        That of a frame, where the file has frames as rows, as recordings of ``ArrayData`` do.
    dtype : str
        The detector's, where the file has another: a recording has the types of Channel Access, int32 for an unsigned
        short, int8 or uint8 for either.

    Yields
    ------
    ndarray, (y, x) or (y, x, 3)

    Raises
    ------
    FileNotFoundError
    KeyError
        The file has no such dataset.
    ValueError
        The file is of another kind, has no frames or several sets of them, or `shape` does not fit.
    """
    import numpy as np

    wanted = np.dtype(dtype) if dtype else None
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix in (".npy", ".npz"):
        found = _of_numpy(path, dataset, shape)
    elif suffix in _HDF5:
        found = _of_hdf5(path, dataset, shape)
    else:
        raise ValueError(f"{os.fspath(path)!r}: frames are read of .npy, .npz, {', '.join(_HDF5)}")
    return found if wanted is None else (frame.astype(wanted) for frame in found)


def _of_numpy(
    path: str | os.PathLike[str], dataset: str, shape: tuple[int, ...] | None
) -> Iterator[_Array]:
    import numpy as np

    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        yield from _frames(loaded, shape, os.fspath(path))
        return
    with loaded:
        for name in [dataset] if dataset else loaded.files:
            yield from _frames(loaded[name], shape, f"{os.fspath(path)}:{name}")


def _of_hdf5(
    path: str | os.PathLike[str], dataset: str, shape: tuple[int, ...] | None
) -> Iterator[_Array]:
    import h5py  # type: ignore[import-untyped, unused-ignore]

    with h5py.File(path, "r") as file:
        name = dataset or _the_one(file, 3 if shape is None else 2)
        if not isinstance(file[name], h5py.Dataset):
            raise ValueError(f"{os.fspath(path)!r}: {name!r} is no dataset")
        yield from _frames(file[name], shape, f"{os.fspath(path)}:{name}")


def _the_one(file: Any, dimensions: int) -> str:
    """The dataset that has the frames."""
    import h5py  # type: ignore[import-untyped, unused-ignore]

    for usual in _USUAL:
        if usual in file:
            return usual
    found: list[str] = []

    def look(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset) and each.ndim >= dimensions and each.dtype.kind in "iuf":
            found.append(name)

    file.visititems(look)
    if len(found) != 1:
        which = f"several: {', '.join(found)}" if found else "none"
        hint = "" if found or dimensions == 2 else "; where frames are rows, give their shape"
        raise ValueError(
            f"which dataset of {file.filename!r} has the frames? There are {which}{hint}"
        )
    return found[0]


def _frames(array: Any, shape: tuple[int, ...] | None, where: str) -> Iterator[_Array]:
    import numpy as np

    if shape is not None:
        if array.ndim < 2 or int(np.prod(array.shape[1:])) != int(np.prod(shape)):
            raise ValueError(f"{where}: no frames of {shape} in an array of {array.shape}")
        for row in array:
            yield np.asarray(row).reshape(shape)
    elif array.ndim == 2:
        yield np.asarray(array)
    elif array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3):
        for frame in array:
            yield np.asarray(frame)
    else:
        raise ValueError(
            f"{where}: an array of {array.shape} is no frames (n, y, x) or (n, y, x, 3)"
        )
