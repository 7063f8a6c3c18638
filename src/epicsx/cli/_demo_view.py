"""How the demo shows itself: a live view on a terminal, a line a second elsewhere, and tables at the end.

The texts outside the live view are plain ASCII, so that they survive any pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from ._demo_ioc import HEIGHT, WIDTH
from ._demo_meters import Frames, Meter, Requests, Usage


@dataclass
class Status:
    """What there is to show."""

    title: str
    seconds: float
    meters: Sequence[Meter]
    requests: Requests
    usage: Usage
    elapsed: float = 0.0


@dataclass
class Table:
    """Rows of text under a header; the columns in `left` are words, the others numbers."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    left: Sequence[int] = (0,)


class View(Protocol):
    """A way of showing it."""

    every: float
    """Seconds between two calls of `show`."""

    def open(self, status: Status) -> None:
        """Begin."""

    def show(self, status: Status) -> None:
        """Show how it stands."""

    def close(self) -> None:
        """End the live part."""

    def tell(self, text: str) -> None:
        """Print a line."""

    def table(self, table: Table) -> None:
        """Print a table."""

    def verdict(self, good: bool, text: str) -> None:
        """Print how it ended."""


def choose(plain: bool) -> View:
    """The live view if standard output is a terminal that can do it, lines otherwise."""
    console = Console(highlight=False)
    able = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    if plain or not console.is_terminal or console.is_dumb_terminal or not able:
        return Lines()
    return LiveView(console)


class Lines:
    """One line a second."""

    every = 1.0

    def open(self, status: Status) -> None:
        """Say what it is about."""
        print(status.title, flush=True)

    def close(self) -> None:
        """Nothing to end."""

    def show(self, status: Status) -> None:
        """Print the line."""
        parts = []
        for meter in status.meters:
            rate, volume = meter.rates()
            text = f"{meter.label} {rate:.0f}/s" if rate >= 9.5 else f"{meter.label} {rate:.1f}/s"
            if volume >= 1:
                text += f" {volume:.1f} MB/s"
            if meter.remarks() and len(status.meters) < 12:
                text += f" ({meter.remarks()})"
            parts.append(text)
        counts = [meter.stats for meter in status.meters]
        parts.append(
            f"merged {sum(c.merged for c in counts)}, dropped {sum(c.dropped for c in counts)}"
        )
        for kind, _, median, _ in status.requests.rows()[:2]:
            parts.append(f"{kind} {median:.2f} ms")
        print(f"{status.elapsed:6.1f} s  " + ", ".join(parts), flush=True)

    def tell(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def table(self, table: Table) -> None:
        """Print it in aligned columns."""
        cells = [table.header, *table.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
        print(f"\n{table.title}")
        for row in cells:
            line = "  ".join(
                cell.ljust(width) if i in table.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            print("  " + line.rstrip())

    def verdict(self, good: bool, text: str) -> None:
        """Print it."""
        print(f"\n{text}", flush=True)


class LiveView:
    """Tables, a small image and a curve that change in place."""

    every = 0.2

    def __init__(self, console: Console) -> None:
        self.console = console
        self._switch = sys.getswitchinterval()
        self._live = Live(
            console=console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )

    def open(self, status: Status) -> None:
        """Take a part of the terminal."""
        # Drawing is Python that runs beside the requests being timed: let them in soon.
        sys.setswitchinterval(0.0005)
        self._live.start()

    def close(self) -> None:
        """Give it back, empty."""
        self._live.stop()
        sys.setswitchinterval(self._switch)

    def show(self, status: Status) -> None:
        """Draw it anew."""
        self._live.update(self._whole(status), refresh=True)

    def tell(self, text: str) -> None:
        """Print it."""
        self.console.print(text, highlight=False, markup=False)

    def table(self, table: Table) -> None:
        """Print it; where it is too wide, the last column gives way."""
        cells = [table.header, *table.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
        room = self.console.width - sum(width + 2 for width in widths[:-1]) - 2
        keep = len(widths) - (room < min(widths[-1], 10))
        shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=None)
        for number, (name, width) in enumerate(zip(table.header[:keep], widths, strict=False)):
            last = number == len(widths) - 1
            shown.add_column(
                name,
                justify="left" if number in table.left else "right",
                header_style="dim",
                no_wrap=True,
                overflow="ellipsis",
                width=min(width, room) if last else width,
            )
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row[:keep]))
        self.console.print()
        self.console.print(shown)

    def verdict(self, good: bool, text: str) -> None:
        """Print it in green or red."""
        self.console.print()
        self.console.print(Text(text, style="bold green" if good else "bold red"))

    # ---- the live part

    def _whole(self, status: Status) -> RenderableType:
        width = self.console.width
        bar = RichTable.grid(expand=True, padding=(0, 1))
        bar.add_column(no_wrap=True, overflow="ellipsis")
        bar.add_column(width=min(24, width // 4))
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(
            Text(status.title, style="bold"),
            ProgressBar(total=status.seconds, completed=min(status.elapsed, status.seconds)),
            f"{min(status.elapsed, status.seconds):.1f} / {status.seconds:g} s",
        )
        room = self.console.height - len(status.meters) - 8
        parts: list[RenderableType] = [bar, self._meters(status, width)]
        if room >= 5:
            parts.append(self._below(status, width, min(room, 24)))
        parts.append(Text(status.usage.text(), style="dim"))
        return Group(*parts)

    def _meters(self, status: Status, width: int) -> RenderableType:
        shown = RichTable(box=None, expand=True, padding=(0, 1), header_style="dim")
        shown.add_column("PV", no_wrap=True)
        shown.add_column("value", no_wrap=True, ratio=1, overflow="ellipsis")
        columns = ["/s", "MB/s", "received", "merged", "dropped"]
        if width >= 100:
            columns.insert(3, "delivered")
        for name in columns:
            shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("", no_wrap=True)
        for meter in status.meters:
            rate, volume = meter.rates()
            stats = meter.stats
            row: list[str | Text] = [
                f"{rate:.1f}" if rate < 99.5 else f"{rate:.0f}",
                f"{volume:.1f}" if volume >= 0.05 else "",
                str(stats.received),
                str(stats.merged),
                Text(str(stats.dropped), style="bold red" if stats.dropped else ""),
            ]
            if width >= 100:
                row.insert(3, str(stats.delivered))
            remark = "" if isinstance(meter, Frames) else meter.remarks()
            style = "bold red" if meter.failures() and meter.updates else "green"
            shown.add_row(
                Text(meter.label, style="cyan"), Text(meter.text()), *row, Text(remark, style=style)
            )
        return shown

    def _below(self, status: Status, width: int, height: int) -> RenderableType:
        """The image beside the curve, above the times."""
        grid = RichTable.grid(expand=True, padding=(0, 1))
        cells: list[RenderableType] = []
        image = next((m for m in status.meters if isinstance(m, Frames) and m.distinct), None)
        if image is not None and self.console.color_system is not None:
            rows = height - 2
            # two pixels to a character, one above the other
            columns = min(round(rows * 2 * WIDTH / HEIGHT), width // 2 - 4)
            rows = min(rows, max(1, round(columns * HEIGHT / WIDTH / 2)))
            pixels = image.last.value.reshape(HEIGHT, WIDTH, 3)
            counts = f"{image.distinct} distinct"
            if columns > len(counts) + 16:
                counts += f", {image.skipped} skipped"
            cells.append(
                Panel(
                    Thumbnail(pixels, columns, rows),
                    title=f"frame {image.frame}",
                    subtitle=counts,
                    width=columns + 4,
                    border_style="blue",
                )
            )
            grid.add_column(width=columns + 4)
            height = rows + 2
        right: list[RenderableType] = []
        times = self._times(status.requests, height - 5)
        curve = next((m for m in status.meters if _has_curve(m)), None)
        if curve is not None:
            rows = max(1, height - 2 - (times.row_count + 1 if times.row_count else 0))
            right.append(
                Panel(
                    Curve(_curve(curve), rows),
                    title=curve.label,
                    border_style="blue",
                )
            )
        if times.row_count:
            right.append(times)
        if right:
            grid.add_column(ratio=1)
            cells.append(Group(*right))
        if cells:
            grid.add_row(*cells)
        return grid

    def _times(self, requests: Requests, most: int) -> RichTable:
        shown = RichTable(box=None, expand=True, padding=(0, 1), header_style="dim")
        shown.add_column("request", no_wrap=True, ratio=1)
        for name in ("number", "median ms", "p99 ms"):
            shown.add_column(name, justify="right", no_wrap=True)
        for kind, number, median, p99 in requests.rows()[: max(most, 1)]:
            shown.add_row(kind, str(number), f"{median:.2f}", f"{p99:.2f}")
        return shown


def _has_curve(meter: Meter) -> bool:
    if meter.kind == "waveform":
        return meter.last is not None and meter.last.count > 1
    return meter.kind == "scalar" and len(meter.history) > 1 and not hasattr(meter, "gaps")


def _curve(meter: Meter) -> npt.NDArray[Any]:
    if meter.kind == "waveform":
        return np.asarray(meter.last.value)
    return np.array([value for _, value in list(meter.history)])


@lru_cache(maxsize=8192)
def _half_block(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> Segment:
    return Segment("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))


class Thumbnail:
    """An image in characters, two pixels in each: an upper half block and its background."""

    def __init__(self, pixels: npt.NDArray[np.uint8], columns: int, rows: int) -> None:
        high, wide = pixels.shape[:2]
        y = (np.arange(2 * rows) * high) // (2 * rows)
        x = 1 + (np.arange(columns) * (wide - 1)) // columns  # column 0 is the counter's
        # a little coarser, so that the styles made once serve again
        self.pixels = pixels[y][:, x] & 0xF8

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the characters, as segments: a Text of so many colours is slow."""
        lines = self.pixels.tolist()
        for upper, lower in zip(lines[::2], lines[1::2], strict=True):
            for one, two in zip(upper, lower, strict=True):
                yield _half_block(tuple(one), tuple(two))
            yield Segment.line()


class Curve:
    """A curve in braille characters, as wide as there is room."""

    def __init__(self, y: npt.NDArray[Any], rows: int) -> None:
        self.y = y
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the lines."""
        style = Style.parse("bright_cyan")
        for line in braille(self.y, options.max_width, self.rows):
            yield Segment(line, style)
            yield Segment.line()


_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def braille(y: npt.NDArray[Any], columns: int, rows: int) -> list[str]:
    """The curve in braille characters, two dots wide and four high each."""
    y = np.asarray(y, dtype=np.float64)
    y = y[np.isfinite(y)]
    if not len(y):
        return [""] * rows
    across, up = 2 * columns, 4 * rows
    low, high = float(y.min()), float(y.max())
    scale = (up - 1) / (high - low) if high > low else 0.0
    edges = np.linspace(0, len(y), across + 1).astype(int)
    cells = np.zeros((rows, columns), dtype=int)
    before: int | None = None
    for dot in range(across):
        part = y[edges[dot] : max(edges[dot + 1], edges[dot] + 1)]
        if not len(part):
            continue
        bottom, top = (round((float(v) - low) * scale) for v in (part.min(), part.max()))
        end = round((float(part[-1]) - low) * scale)
        if before is not None:  # no holes between neighbours
            bottom, top = min(bottom, before), max(top, before)
        before = end
        for level in range(bottom, top + 1):
            line = up - 1 - level
            cells[line // 4, dot // 2] |= _DOTS[dot % 2][line % 4]
    return ["".join(chr(0x2800 + int(cell)) for cell in row) for row in cells]
