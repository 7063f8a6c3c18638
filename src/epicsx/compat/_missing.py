"""The ImportError of an extra: whether a package is not installed, or the extra is not built yet."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["missing"]


def missing(extra: str, packages: dict[str, str], what: str) -> ImportError:
    """The error to raise for `extra`, which needs one of `packages`: module names, and what to install for them."""
    if not any(find_spec(module) for module in packages):
        needed = " or ".join(dict.fromkeys(packages.values()))
        return ModuleNotFoundError(
            f"epicsx.{extra} needs {needed}, which is not installed (and {what} are not part of epicsx yet)",
            name=next(iter(packages)),
        )
    return ImportError(
        f"epicsx.{extra}: {what} are not part of epicsx yet; all of pyepics but epics.{extra} works",
        name=f"epicsx.{extra}",
    )
