"""Channel Access for Python: the package `epics` of pyepics, answered by epicsx.

Importing it puts epicsx in its place: afterwards `epics.pv` is `epicsx.pv`, and so on.
"""

import os as _os

__epicsx__ = True

if _os.path.exists(_os.path.join(_os.path.dirname(__file__), "ca.py")):
    raise ImportError(
        f"both pyepics and epicsx-dropin are installed in {_os.path.dirname(__file__)}, and one has overwritten "
        "files of the other: `pip uninstall pyepics epicsx-dropin`, then `pip install epicsx-dropin`",
        name="epics",
    )

from epicsx.compat import install_as_epics as _install_as_epics

_install_as_epics()
