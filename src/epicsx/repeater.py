"""The CA repeater in the foreground: ``python -m epicsx.repeater``.

For service managers. Programs need not call it: epicsx starts a repeater in the background when
none runs. It ends at once if another repeater has the port (EPICS_CA_REPEATER_PORT, 5065).
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from epicsx import _repeater

__all__ = ["main"]


def main() -> NoReturn:
    """Become the repeater: this process is replaced by the program, its output kept."""
    path = _repeater.program()
    if len(sys.argv) > 1:
        sys.exit("usage: python -m epicsx.repeater   (no arguments)")
    if not path.is_file():
        sys.exit(f"epicsx: no caRepeater program at {path}")
    os.execv(path, [str(path)])


if __name__ == "__main__":
    main()
