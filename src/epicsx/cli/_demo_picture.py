"""The picture that the demo leaves: images above, plots below, each with its caption; drawn with pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

MARGIN = 24
WIDTH = 1360  # of what is drawn, without the margins
PLOT = 300  # height of a plot
BACKGROUND = (16, 18, 28)
PANEL = (24, 27, 42)
GRID = (48, 53, 78)
TEXT = (226, 230, 242)
DIM = (146, 153, 180)
CURVES = ((92, 200, 255), (255, 178, 92), (140, 230, 150), (240, 130, 190))


@dataclass
class Picture:
    """An image, rows x columns x 3 of uint8, and its caption."""

    pixels: npt.NDArray[np.uint8]
    caption: str


@dataclass
class Plot:
    """A curve and its caption; `x` counts from 0 if it is not given."""

    y: npt.NDArray[Any]
    caption: str
    x: npt.NDArray[Any] | None = None
    x_label: str = ""
    states: tuple[str, ...] = ()  # names of the values 0, 1, ...
    steps: bool = False  # the value holds until the next one


@dataclass
class Words:
    """A text and its caption."""

    text: str
    caption: str


Panel = Picture | Plot | Words


def font(size: int) -> Any:
    """The font that pillow brings, in that size if pillow was built with FreeType."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError, TypeError):
        return ImageFont.load_default()


def suffixes() -> set[str]:
    """The file name endings that pillow can write."""
    Image.init()
    return {end for end, kind in Image.registered_extensions().items() if kind in Image.SAVE}


def save(path: str, title: str, lines: Sequence[str], panels: Sequence[Panel]) -> tuple[int, int]:
    """Draw the panels under a title and a few lines of text, write the file, and return its size in pixels."""
    heights = [_height(panel) for panel in panels]
    top = MARGIN + 40 + 24 * len(lines) + 8
    size = (WIDTH + 2 * MARGIN, top + sum(heights))
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 4), title, font=font(28), fill=TEXT)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 38 + 24 * number), line, font=font(17), fill=DIM)
    y = top
    for number, (panel, height) in enumerate(zip(panels, heights, strict=True)):
        draw.text((MARGIN, y), panel.caption, font=font(19), fill=TEXT)
        if isinstance(panel, Picture):
            canvas.paste(Image.fromarray(panel.pixels), (MARGIN, y + 30))
        elif isinstance(panel, Plot):
            _plot(draw, panel, (MARGIN, y + 30), CURVES[number % len(CURVES)])
        else:
            for row, line in enumerate(_wrapped(panel.text)):
                draw.text((MARGIN + 12, y + 36 + 34 * row), line, font=font(26), fill=CURVES[2])
        y += height
    # A picture that cannot be written leaves the one that was there.
    part = os.path.join(os.path.dirname(path), f".{os.getpid()}-{os.path.basename(path)}")
    try:
        canvas.save(part)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)
    return size


def _height(panel: Panel) -> int:
    if isinstance(panel, Picture):
        return 30 + int(panel.pixels.shape[0]) + MARGIN
    if isinstance(panel, Plot):
        return 30 + PLOT + 26 + MARGIN
    return 36 + 34 * len(_wrapped(panel.text)) + MARGIN


def _wrapped(text: str, width: int = 90, most: int = 8) -> list[str]:
    lines = [
        line[at : at + width]
        for line in text.splitlines() or [""]
        for at in range(0, max(len(line), 1), width)
    ]
    return lines[:most]


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between `low` and `high`."""
    raw = (high - low) / about
    if not raw > 0 or not np.isfinite(raw):
        return [low]
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    return [
        float((first + k) * step) for k in range(200) if (first + k) * step <= high + step / 1e6
    ]


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = 0.06 * (high - low) or max(abs(high) * 0.05, 0.5)
    return low - room, high + room


def _label(value: float) -> str:
    return f"{value:.10g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def _plot(
    draw: ImageDraw.ImageDraw, panel: Plot, at: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    y = np.asarray(panel.y, dtype=np.float64)
    x = np.arange(len(y), dtype=np.float64) if panel.x is None else np.asarray(panel.x, np.float64)
    gutter = 96
    left, top = at[0] + gutter, at[1]
    right, bottom = at[0] + WIDTH - 1, top + PLOT
    draw.rectangle((left, top, right, bottom), fill=PANEL)
    small = font(15)
    y_low, y_high = _range(y)
    x_low, x_high = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    if not x_high > x_low:
        x_high = x_low + 1.0

    def across(value: Any) -> Any:
        return left + (value - x_low) / (x_high - x_low) * (right - left)

    def up(value: Any) -> Any:
        return bottom - (value - y_low) / (y_high - y_low) * (bottom - top)

    for tick in _ticks(y_low, y_high, 5):
        label = _label(tick)
        if panel.states:
            if tick != int(tick) or not 0 <= tick < len(panel.states):
                continue
            label = panel.states[int(tick)]
        draw.line((left, up(tick), right, up(tick)), fill=GRID)
        draw.text((left - 8, up(tick)), label[:12], font=small, fill=DIM, anchor="rm")
    for tick in _ticks(x_low, x_high, 10):
        draw.line((across(tick), top, across(tick), bottom), fill=GRID)
        draw.text((across(tick), bottom + 5), _label(tick), font=small, fill=DIM, anchor="ma")
    if panel.x_label:
        draw.text((right, bottom + 22), panel.x_label, font=small, fill=DIM, anchor="ra")
    fine = np.isfinite(x) & np.isfinite(y)
    x, y = across(x[fine]), up(y[fine])
    if len(y) > 2 * (right - left):
        _envelope(draw, x, y, left, right, colour)
    elif len(y) > 1:
        if panel.steps:
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        draw.line(
            list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=2, joint="curve"
        )
    elif len(y):
        draw.ellipse((x[0] - 4, y[0] - 4, x[0] + 4, y[0] + 4), fill=colour)


def _envelope(
    draw: ImageDraw.ImageDraw,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    left: int,
    right: int,
    colour: tuple[int, int, int],
) -> None:
    """More points than columns: from the lowest to the highest of each column."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    edges = np.searchsorted(x, np.arange(left, right + 1))
    for column in range(left, right):
        part = y[edges[column - left] : edges[column - left + 1]]
        if len(part):
            draw.line((column, part.min(), column, part.max() + 1), fill=colour)
