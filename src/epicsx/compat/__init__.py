"""The doors: `install_as_epics` has ``import epics`` answered by epicsx; and interfaces older than pyepics.

Importing this package reads nothing of the core.
"""

from __future__ import annotations

from ._door import CHILDREN as CHILDREN
from ._door import install_as_epics as install_as_epics

__all__ = ["install_as_epics"]
