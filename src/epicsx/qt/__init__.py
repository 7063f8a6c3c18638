"""Qt widgets. They are not here yet: importing this package says so.

Nothing else in epicsx imports it.
"""

from __future__ import annotations

from ..compat._missing import missing

raise missing(
    "qt",
    {"PyQt6": "PyQt6", "PySide6": "PySide6", "PyQt5": "PyQt5", "PySide2": "PySide2"},
    "the Qt widgets",
)
