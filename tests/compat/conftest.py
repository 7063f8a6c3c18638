"""Fixtures for the tests of pyepics' interface: after each test nothing of it is left."""

from __future__ import annotations

import gc
from collections import UserList
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the core's leak test run after each test of this folder."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker("core")


@pytest.fixture(autouse=True)
def fresh(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Forget the PVs that caget and its like keep, and disconnect those that callbacks keep alive."""
    yield
    for phase in ("setup", "call"):  # a logged traceback keeps its frames, and what they hold
        caplog.get_records(phase).clear()
    from epicsx import _ca, ca, functional

    functional._PVmonitors_.clear()
    if _ca.started():
        for stay in list(_ca.context().pinned):
            owner: Any = getattr(stay, "__self__", None)
            if hasattr(owner, "disconnect"):
                owner.disconnect()
            elif hasattr(stay, "close"):
                stay.close()
    ca.clear_cache()
    gc.collect()


class Calls(UserList[dict[str, Any]]):
    """A callback that remembers with what it was called."""

    def __call__(self, **kwds: Any) -> None:
        self.append(kwds)

    @property
    def values(self) -> list[Any]:
        return [kwds["value"] for kwds in self]


@pytest.fixture
def calls() -> Iterator[Calls]:
    """Give a callback that remembers its calls."""
    made = Calls()
    yield made
    made.clear()
