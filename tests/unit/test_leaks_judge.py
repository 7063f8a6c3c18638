"""What `python -m tests.leaks` takes for a leak: its measure of memory, and its slope."""

from __future__ import annotations

import mmap

import pytest
from leaks.__main__ import MEMORY, growth, rss
from support import wait_until


def rows(leak: float) -> list[tuple[float, float]]:
    """The rows of the long run, 100 000 channels, with that many bytes left by each."""
    return [(n, 60.0 + n * leak / 1e6) for n in range(500, 100_001, 500)]


def test_100_bytes_a_channel_are_a_leak() -> None:
    each, grown = growth(rows(100.0))
    assert each * 1e6 == pytest.approx(100.0)
    assert grown > MEMORY
    assert growth(rows(90.0))[1] < MEMORY


def test_memory_is_in_millions_of_bytes() -> None:
    """So that what is printed as bytes each is that."""
    size = 200_000_000

    def grows() -> bool:
        before = rss()
        with mmap.mmap(-1, size) as block:
            block[:] = bytes(size)
            return abs(rss() - before - size / 1e6) < 5.0

    assert wait_until(grows)
