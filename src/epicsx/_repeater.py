"""Start the CA repeater before libca would.

When no repeater runs on this host, libca forks in the middle of its first channel, closes every
descriptor up to the limit one by one, and looks for ``caRepeater`` on PATH; not finding it, a
*thread of this process* serves the whole host and dies with it (``caStartRepeaterIfNotInstalled``
in udpiiu.cpp). So epicsx starts its own small program first. libca's test, which is to bind the
same port, then finds the repeater installed and does nothing. PATH is not touched.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

_log = logging.getLogger("epicsx")

DEFAULT_PORT: Final = 5065
# libCom's envGetInetPortConfigParam refuses ports up to this one, and takes the default instead
_USER_RESERVED: Final = 5000


def program() -> Path:
    """The caRepeater program inside this package."""
    return Path(__file__).with_name("bin") / "caRepeater"


def port() -> int:
    """The repeater's UDP port, as libca will read it."""
    text = os.environ.get("EPICS_CA_REPEATER_PORT", "")
    try:
        number = int(text)
    except ValueError:
        return DEFAULT_PORT
    return number if _USER_RESERVED < number <= 65535 else DEFAULT_PORT


def port_is_free(number: int) -> bool:
    """Whether nobody has the repeater's port: the test that libca itself makes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", number))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def is_taken(number: int) -> bool:
    """Whether somebody has the repeater's port, asked without taking it: a repeater that starts may want it just then.

    An empty datagram is what a repeater registers a client by (repeater.cpp, ca_repeater); it forgets those that
    are gone.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # The refusal is there when `send` returns; a repeater answers from another port, which is not heard here.
        probe.settimeout(0.005)
        try:
            probe.connect(("127.0.0.1", number))
            probe.send(b"")
            probe.recv(1)
        except ConnectionError:
            return False
        except TimeoutError:
            pass
    return True


def _spawn(path: Path) -> None:
    # The program closes what it inherits, leaves our session and our terminal, and forks twice:
    # the process we start ends at once and is waited for, the repeater is nobody's child.
    # A thread of libca may be our caller's caller, with every signal blocked: start with none.
    pid = os.posix_spawn(path, [str(path), "--detach"], os.environ, setsigmask=())
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return  # the program ignores SIGCHLD, so the system has already waited
    if code := os.waitstatus_to_exitcode(status):
        _log.warning("caRepeater (%s) ended with %d", path, code)


def start(timeout: float = 1.0) -> bool:
    """Whether a repeater serves this host now; starts one if none did.

    Call it before the first channel. ``EPICSX_NO_REPEATER=1`` switches it off, for containers.

    Parameters
    ----------
    timeout : float, seconds
        How long to wait until a repeater just started has its port.
    """
    if os.environ.get("EPICSX_NO_REPEATER") == "1" or sys.platform == "win32":
        return False
    number = port()
    try:
        if not port_is_free(number):
            return True
        path = program()
        if not path.is_file():
            _log.warning("no caRepeater at %s; libca will look for one on PATH", path)
            return False
        _spawn(path)
        deadline = time.monotonic() + timeout
        while not is_taken(number):
            if time.monotonic() >= deadline:
                _log.warning("caRepeater has not taken UDP port %d within %g s", number, timeout)
                return False
            time.sleep(0.002)
    except OSError as exc:
        # without a repeater everything works but the news that an IOC came back
        _log.warning("the CA repeater could not be started: %s", exc)
        return False
    return True
