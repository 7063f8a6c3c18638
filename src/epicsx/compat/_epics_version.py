"""The version of pyepics whose interface epicsx has, as ``epics.version`` tells it."""

from __future__ import annotations

__all__ = [
    "__commit_id__",
    "__version__",
    "__version_tuple__",
    "commit_id",
    "version",
    "version_tuple",
]

__version__ = version = "3.5.10"
__version_tuple__ = version_tuple = (3, 5, 10)
__commit_id__ = commit_id = None
