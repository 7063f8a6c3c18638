"""The containers in which users put a PV's callbacks, directly too: each change is made known to the PV.

Lifetime
    A container knows its PV weakly, so that a PV without callbacks is freed with its last reference.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
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
    """Functions: ``PV.connection_callbacks``, ``PV.access_callbacks``.

    A change and its notice to the PV are one step: the dispatcher's news come before both or after both, and no
    function hears twice of one connection.
    """

    __slots__ = ("_empty", "_owner")

    def __init__(self, owner: Any, given: Iterable[Any] = ()) -> None:
        super().__init__(given)
        self._owner = weakref.ref(owner)
        self._empty = not self

    def _change(self, method: Callable[..., Any], *args: Any) -> Any:
        owner = self._owner()
        if owner is None:
            return method(*args)
        with owner._settling():
            found = method(*args)
            first = self if self._empty and self else None
            self._empty = not self
            owner._listeners_changed(first)
        return found

    def __setitem__(self, index: Any, value: Any) -> None:
        self._change(super().__setitem__, index, value)

    def __delitem__(self, index: Any) -> None:
        self._change(super().__delitem__, index)

    def __iadd__(self, other: Iterable[Any]) -> CallbackList:  # type: ignore[misc]  # noqa: PYI034
        self._change(super().extend, list(other))
        return self

    def append(self, item: Any) -> None:
        """As of list."""
        self._change(super().append, item)

    def clear(self) -> None:
        """As of list."""
        self._change(super().clear)

    def extend(self, items: Iterable[Any]) -> None:
        """As of list."""
        self._change(super().extend, list(items))

    def insert(self, index: Any, item: Any) -> None:
        """As of list."""
        self._change(super().insert, index, item)

    def pop(self, index: Any = -1) -> Any:
        """As of list."""
        return self._change(super().pop, index)

    def remove(self, item: Any) -> None:
        """As of list."""
        self._change(super().remove, item)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
