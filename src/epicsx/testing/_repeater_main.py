"""The process of a test's CA repeater: asks to die with its parent, then becomes the repeater.

Started as a file with the parent's process id (0: do not watch it) and the path of a caRepeater
program (may be absent). Without the program the repeater of epicscorelibs' libca runs in here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # as in _ioc_main

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the repeater; returns only if another one has the port."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent and sys.platform == "linux":
        # Kept across exec.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return
    if program:
        os.execv(program, [program])
    from epicscorelibs.path import get_lib  # type: ignore[import-untyped, unused-ignore]

    ctypes.CDLL(get_lib("Com"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(get_lib("ca")).caRepeaterThread(None)


if __name__ == "__main__":
    main()
