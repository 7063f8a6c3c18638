"""A CA repeater that belongs to a test and ends with it.

Without one, the first client on a private repeater port would leave a repeater behind, detached,
for each test run. Clients that find the port taken start none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

from epicsx._repeater import is_taken

_MAIN = Path(__file__).with_name("_repeater_main.py")
_PROGRAM = Path(__file__).parent.parent / "bin" / "caRepeater"


class Repeater:
    """A CA repeater in a subprocess, on a port of its own.

    Parameters
    ----------
    port : int, UDP
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Repeater] | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Repeater:
        """Start it, unless it runs; itself. Does not wait until it has its port."""
        if self.running:
            return self
        self.stop()
        env = {name: text for name, text in os.environ.items() if not name.startswith("EPICS_")}
        env.pop("PYTHONWARNINGS", None)
        env["EPICS_CA_REPEATER_PORT"] = str(self.port)
        # The kernel watches the thread that starts a process: only the main one lives long enough.
        main = threading.current_thread() is threading.main_thread()
        program = str(_PROGRAM) if _PROGRAM.is_file() else ""
        self._process = subprocess.Popen(
            [sys.executable, str(_MAIN), str(os.getpid() if main else 0), program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        self._finalizer = weakref.finalize(self, _reap, self._process, os.getpid())
        return self

    def wait(self, timeout: float = 5.0) -> bool:
        """Whether the port is taken, waiting for that."""
        deadline = time.monotonic() + timeout
        while not is_taken(self.port):
            if time.monotonic() > deadline or not self.running:
                return False
            time.sleep(0.005)
        return True

    def stop(self) -> None:
        """End it, if it runs."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None


def _reap(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill and await the process; a forked child owns it not."""
    if os.getpid() == owner:
        process.kill()
        process.wait(10.0)
