"""Text and bytes, as pyepics' ``epics.utils`` has them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from ._dbr import set_encoding

__all__ = ["IOENCODING", "bytes2str", "clib_search_path", "str2bytes", "strjoin"]

IOENCODING = (
    os.environ.get("PYEPICS_ENCODING") or os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
) or "utf-8"
try:
    set_encoding(IOENCODING)
except (LookupError, ValueError):  # no such encoding
    IOENCODING = "utf-8"
"""The encoding of texts and files, read from the environment when this module is imported.

Texts of PVs go by `epicsx.get_encoding`, which is the same until `epicsx.set_encoding` sets another.
"""

from_bytes: Any = None
"""pyepics keeps charset_normalizer's function here, if installed; undecodable bytes need no guess in epicsx."""


def str2bytes(st1: str | bytes) -> bytes:
    """The bytes of a text; bytes are given back as they are."""
    return st1 if isinstance(st1, bytes) else bytes(st1, IOENCODING)


def bytes2str(st1: object) -> str:
    """The text of bytes; what is not valid in the encoding stays readable as escapes, nothing raises."""
    return st1.decode(IOENCODING, "backslashreplace") if isinstance(st1, bytes) else str(st1)


def strjoin(sep: str | bytes, seq: Sequence[Any]) -> str:
    r"""The texts of `seq` with `sep` between them; a sequence of bytes ends at the first ``b"\0"``."""
    parts = list(seq)
    if parts and isinstance(parts[0], bytes):
        parts = parts[: parts.index(b"\0")] if b"\0" in parts else parts
    return bytes2str(sep).join(map(bytes2str, parts))


def clib_search_path(lib: str) -> str | None:
    """Where pyepics would look for a C library below its ``clibs``: ``'linux64/libca.so'``."""
    platform_name: str = (
        sys.platform
    )  # as a plain str: a type checker knows only the one it runs on
    bits = "arm" if platform.machine().startswith("arm") else "64" if sys.maxsize > 2**32 else "32"
    if platform_name == "win32":
        return os.path.join(f"win{bits}", f"{lib}.dll")
    if platform_name == "darwin":
        folder = "darwinarm64" if platform.machine() == "arm64" else f"darwin{bits}"
        return os.path.join(folder, f"lib{lib}.dylib")
    if platform_name.startswith("linux"):
        return os.path.join(f"linux{bits}", f"lib{lib}.so")
    return None
