"""Values of PVs saved to a file, in pyepics' format, and restored from it or from a save file of synApps' autosave.

``save_pvs("x.req", "x.sav")`` writes the values of the PVs that a request file names, ``restore_pvs("x.sav")`` puts
them back. `save_restore` has the formats.
"""

from . import save_restore as save_restore
from .save_restore import AutoSaver, RequestFileError, restore_pvs, save_pvs

__all__ = ["AutoSaver", "RequestFileError", "restore_pvs", "save_pvs"]
