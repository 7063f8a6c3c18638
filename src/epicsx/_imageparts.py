"""What an image feed works with: its options, the frames on their way, and what is made of them. No CA."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ._ndarray import Array, Mode, Roi

if TYPE_CHECKING:
    from ._stream import Frame

__all__ = ["Entry", "Options", "Piece", "moved", "text_of"]


@dataclass(frozen=True)
class Options:
    """What `epicsx.images` was given, checked."""

    prefix: str
    array: str = "ArrayData"
    roi: Roi | None = None
    roi_plugin: str | None = None
    depth: int = 16
    overflow: str = "drop_oldest"
    coherent: Any = "auto"
    lane: Any = "auto"
    patience: float = 0.5
    timeout: float | None = 5.0
    workers: int | None = None

    @property
    def name(self) -> str:
        """The array's PV."""
        return self.prefix + self.array


@dataclass
class Piece:
    """A frame as the stream gave it, and how it was asked for."""

    frame: Frame
    data: Array
    band: tuple[int, int] | None  # the elements that the server was asked for; None: all
    longer: bool  # by the ts filter: zeros may follow the picture
    first: bool  # what the server had when it was connected
    index: int


@dataclass
class Entry:
    """A frame whose mode is known, waiting to be handed out."""

    piece: Piece
    mode: Mode  # of what the piece has
    roi: Roi | None  # what is left to cut on the client
    number: int | None
    by: str
    lost: int
    gap: bool
    future: Future[Array] | None = None

    @property
    def ready(self) -> bool:
        """Whether it is decoded, or needs no decoding."""
        return self.future is None or self.future.done()


def moved(mode: Mode, y: int, x: int) -> Mode:
    """The mode of what begins `y` rows and `x` columns further: two rows make a Bayer pattern, and two columns."""
    bayer = type(mode.bayer)(int(mode.bayer) ^ (y & 1) ^ ((x & 1) << 1))
    return replace(mode, bayer=bayer)


def text_of(value: Array) -> str:
    """The text in an array of characters."""
    return value.astype(np.uint8).tobytes().partition(b"\0")[0].decode("utf-8", "replace")
