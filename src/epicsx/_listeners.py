"""The containers in which users put a PV's callbacks, directly too: each change is made known to the PV.

Lifetime
    A container knows its PV weakly, so that a PV without callbacks is freed with its last reference.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

__all__ = ["CallbackDict", "CallbackList"]


class CallbackDict(dict[Any, Any]):
    """Index -> (function, keywords): ``PV.callbacks``."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Any, given: Any = ()) -> None:
        super().__init__(given)
        self._owner = weakref.ref(owner)

    def _changed(self) -> None:
        owner = self._owner()
        if owner is not None:
            owner._listeners_changed()

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._changed()

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self._changed()

    def __ior__(self, other: Any) -> CallbackDict:  # type: ignore[misc]  # noqa: PYI034
        super().update(other)
        self._changed()
        return self

    def clear(self) -> None:
        """As of dict."""
        super().clear()
        self._changed()

    def pop(self, *args: Any) -> Any:
        """As of dict."""
        found = super().pop(*args)
        self._changed()
        return found

    def popitem(self) -> tuple[Any, Any]:
        """As of dict."""
        found = super().popitem()
        self._changed()
        return found

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As of dict."""
        found = super().setdefault(key, default)
        self._changed()
        return found

    def update(self, *args: Any, **kwds: Any) -> None:
        """As of dict."""
        super().update(*args, **kwds)
        self._changed()

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class CallbackList(list[Any]):
    """Functions: ``PV.connection_callbacks``, ``PV.access_callbacks``."""

    __slots__ = ("_empty", "_owner")

    def __init__(self, owner: Any, given: Iterable[Any] = ()) -> None:
        super().__init__(given)
        self._owner = weakref.ref(owner)
        self._empty = not self

    def _changed(self) -> None:
        first = self if self._empty and self else None
        self._empty = not self
        owner = self._owner()
        if owner is not None:
            owner._listeners_changed(first)

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        self._changed()

    def __delitem__(self, index: Any) -> None:
        super().__delitem__(index)
        self._changed()

    def __iadd__(self, other: Iterable[Any]) -> CallbackList:  # type: ignore[misc]  # noqa: PYI034
        super().extend(other)
        self._changed()
        return self

    def append(self, item: Any) -> None:
        """As of list."""
        super().append(item)
        self._changed()

    def clear(self) -> None:
        """As of list."""
        super().clear()
        self._changed()

    def extend(self, items: Iterable[Any]) -> None:
        """As of list."""
        super().extend(items)
        self._changed()

    def insert(self, index: Any, item: Any) -> None:
        """As of list."""
        super().insert(index, item)
        self._changed()

    def pop(self, index: Any = -1) -> Any:
        """As of list."""
        found = super().pop(index)
        self._changed()
        return found

    def remove(self, item: Any) -> None:
        """As of list."""
        super().remove(item)
        self._changed()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
