"""A small plot in characters: Braille dots where the output is UTF-8, else stars.

Needs no terminal: numbers come in, lines go out.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence

__all__ = ["plotted", "size"]

LEAST_WIDTH = 20
HEIGHT = 10

# The dots of a Braille character, by column and row from the top: Unicode's U+2800 block.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def size() -> tuple[int, bool]:
    """How many columns there are, and whether the output can show Braille."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return max(LEAST_WIDTH, shutil.get_terminal_size((80, 24)).columns), encoding == "utf8"


def _label(number: float) -> str:
    return f"{number:.6g}"


def _bins(values: Sequence[float], columns: int) -> list[tuple[float, float] | None]:
    """The least and the greatest number in each column; None where there is none.

    Few numbers are steps, all of the same width but for one column.
    """
    found: list[tuple[float, float] | None] = []
    n = len(values)
    for column in range(columns):
        first = column * n // columns
        part = values[first : max(first + 1, (column + 1) * n // columns)]
        known = [v for v in part if math.isfinite(v)]
        found.append((min(known), max(known)) if known else None)
    return found


def plotted(
    values: Sequence[float],
    *,
    width: int | None = None,
    height: int = HEIGHT,
    braille: bool | None = None,
) -> list[str]:
    """`values` over their index, in `height` lines of at most `width` characters, the range at the left.

    Numbers that share a column are a stroke from the least to the greatest, so that no peak is missed. NaN and
    infinities leave a gap.
    """
    columns, can = size()
    width = columns if width is None else width
    braille = can if braille is None else braille
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return ["(no numbers)"]
    low, high = min(known), max(known)
    labels = (_label(high), _label(low))
    margin = max(len(label) for label in labels)
    across, down = (2, 4) if braille else (1, 1)
    room = max(4, width - margin - 2)
    bins = _bins(values, room * across)
    rows = height * down

    def place(value: float) -> int:
        """The row of a number, from the top; one that does not move is in the middle."""
        if high == low:
            return rows // 2
        # halves, as the difference of two great numbers may be infinite
        share = (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.0
        return round((rows - 1) * (1 - share))

    marks = [[0] * (-(-len(bins) // across)) for _ in range(height)]
    for column, bounds in enumerate(bins):
        if bounds is None:
            continue
        for row in range(place(bounds[1]), place(bounds[0]) + 1):
            marks[row // down][column // across] |= (
                _DOTS[column % across][row % down] if braille else 1
            )
    lines = []
    for i, marked in enumerate(marks):
        label = labels[0] if i == 0 else labels[1] if i == height - 1 else ""
        drawn = "".join(chr(0x2800 + m) if braille else "*" if m else " " for m in marked)
        edge = "│" if braille else "|"
        lines.append(f"{label:>{margin}} {edge}{drawn.rstrip(' ' + chr(0x2800))}")
    return lines
