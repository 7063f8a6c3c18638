"""What regions of interest share: their order, counts of a spectrum, files of them."""

from __future__ import annotations

from configparser import ConfigParser
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

Limits = tuple[str, int, int]
"""Name, first and last channel of a region."""


class Ordered:
    """Comparisons of devices by one field, and equality by several."""

    _ordered_by = ""
    _equal_by: Sequence[str] = ()

    def __eq__(self, other: object) -> bool:
        return all(getattr(self, attr) == getattr(other, attr, None) for attr in self._equal_by)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # what they are equal by may change

    def _both(self, other: object) -> tuple[Any, Any]:
        return getattr(self, self._ordered_by), getattr(other, self._ordered_by, None)

    def __lt__(self, other: object) -> bool:
        mine, theirs = self._both(other)
        return bool(mine < theirs)

    def __le__(self, other: object) -> bool:
        mine, theirs = self._both(other)
        return bool(mine <= theirs)

    def __gt__(self, other: object) -> bool:
        mine, theirs = self._both(other)
        return bool(mine > theirs)

    def __ge__(self, other: object) -> bool:
        mine, theirs = self._both(other)
        return bool(mine >= theirs)


def counts(data: np.ndarray[Any, Any], low: int, high: int, background: int, net: bool) -> Any:
    """The sum of channels `low` to `high` of a spectrum.

    If `net`, less ``high - low`` times the mean of up to `background` channels on either side.
    """
    total = data[low : high + 1].sum()
    if not net:
        return total
    first, last = max(low - background, 0), min(high + background, len(data) - 1)
    beside = np.concatenate((data[first:low], data[high + 1 : last + 1]))
    return total - beside.mean() * (high - low) if len(beside) else total


def file_lines(rois: Iterable[tuple[str, Sequence[int]]]) -> list[str]:
    """The lines of a file's part ``[rois]``: names, and the limits in one detector element after the other."""
    lines = ["[rois]"]
    for i, (name, limits) in enumerate(rois):
        lines.append(f"ROI{i:02} = {name} | {' '.join(str(limit) for limit in limits)}")
    return lines


def calibration_lines(columns: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """The lines of a file's part ``[calibration]``, and the heading of the next."""
    return ["[calibration]", *(f"{name:<6} = {' '.join(texts)} " for name, texts in columns)]


def same_calibration(nmca: int) -> list[str]:
    """The lines of a calibration of 10 eV per channel for all elements, and the heading of an empty part."""
    columns = (("OFFSET", "0.000 "), ("SLOPE", "0.010 "), ("QUAD", "0.000 "))
    return [*calibration_lines((name, [text] * nmca) for name, text in columns), "[dxp]"]


def read_file(name: str | PathLike[str]) -> list[Limits]:
    """The regions in a file, with their limits in the first detector element."""
    parser = ConfigParser(interpolation=None)
    parser.read(name)
    found = []
    for option in parser.options("rois"):
        if option.startswith("roi"):
            label, _, limits = parser.get("rois", option).partition("|")
            low, high = (int(limit) for limit in limits.split()[:2])
            found.append((label.strip(), low, high))
    return found
