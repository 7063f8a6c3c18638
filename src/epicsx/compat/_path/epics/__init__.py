"""What `import epics` finds in the child processes of `epicsx run`: it hands over to epicsx.

They begin by importing the script anew, with the `sys.path` of their parent, which has the folder of this one.
"""

from __future__ import annotations

__epicsx__ = True

if __name__ == "epics":
    from epicsx.compat import install_as_epics

    install_as_epics()
