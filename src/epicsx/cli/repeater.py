"""Run the CA repeater in the foreground, for a service manager, until it is ended.

Programs need not call it: epicsx starts a repeater in the background when none runs.
"""

from __future__ import annotations

import argparse
import os
import sys

from ._tools import complain

__all__ = ["arguments", "run"]

EPILOG = """\
Exit codes:
  1    another repeater serves this host (UDP port EPICS_CA_REPEATER_PORT, 5065)
  2    this build has no repeater program
       else that of the program, which ends by a signal only
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare that there are no options."""
    parser.epilog = EPILOG


def run(options: argparse.Namespace) -> int:
    """Become the repeater: this process is replaced by the program."""
    from .. import _repeater

    path, port = _repeater.program(), _repeater.port()
    if not path.is_file():
        return complain("repeater", f"there is no program {path}", 2)
    if not _repeater.port_is_free(port):
        return complain("repeater", f"UDP port {port} is taken: a repeater runs already")
    sys.stdout.flush()
    sys.stderr.flush()
    return os.execv(path, [str(path)])
