"""pyepics' wxPython widgets. They are not here yet: importing this package says so.

Nothing else in epicsx imports it.
"""

from __future__ import annotations

from ..compat._missing import missing

raise missing("wx", {"wx": "wxPython"}, "the wxPython widgets")
