"""`PVSet`: a CA server in a subprocess for PVs of any names, such as the fields of records that EPICS base lacks.

It is caproto's server, so a second implementation of Channel Access, on loopback only. It computes nothing: a PV holds
what was put, and ``X_RBV``, if there is one, what was put to ``X``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epicsx.testing.ports import FOREIGN_VARIABLES, LOOPBACK, client_environment

if TYPE_CHECKING:
    from typing_extensions import Self

_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_pvset_main.py")
_TIMEOUT = 20.0  # seconds until the server is ended because it does not answer


class PVSet:
    """PVs in a subprocess.

    Parameters
    ----------
    pvs : mapping of str to int, float, str, list or dict
        Name -> value at first, or ``{"value": ..., "states": [...]}`` for an enum, ``"size"`` for an array or a text of
        up to so many elements, ``"returns"`` for one that takes so many seconds to go back to that value after a put,
        which completes then.
    server_port, repeater_port : int
        Ports on 127.0.0.1.
    """

    def __init__(self, pvs: Mapping[str, Any], *, server_port: int, repeater_port: int) -> None:
        self._lock = threading.Lock()
        #: What a client in another process needs to see this server.
        self.env = client_environment(server_port, repeater_port)
        environment = {k: v for k, v in os.environ.items() if k not in FOREIGN_VARIABLES}
        environment |= self.env | {
            "EPICS_CAS_INTF_ADDR_LIST": LOOPBACK,
            "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_CAS_BEACON_PORT": str(repeater_port),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-u", _MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        if self._exchange(dict(pvs)) != "ready":
            self.stop()
            raise RuntimeError("the server of the PVs did not start")

    def _exchange(self, line: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(_TIMEOUT, self._process.kill)
        watch.start()
        try:
            with self._lock:
                self._process.stdin.write(json.dumps(line) + "\n")
                self._process.stdin.flush()
                return self._process.stdout.readline().rstrip("\n")
        finally:
            watch.cancel()
            watch.join()

    def _ask(self, method: str, *args: Any) -> Any:
        answer = self._exchange([method, *args])
        if not answer:
            raise RuntimeError(f"the server of the PVs ended, or did not answer to {method}{args}")
        return json.loads(answer)

    def __getitem__(self, name: str) -> Any:
        """What the server has: a number, also of an enum, a text or a list."""
        return self._ask("read", name)[0]

    def read(self, *names: str) -> list[Any]:
        """What the server has of several PVs."""
        found: list[Any] = self._ask("read", *names)
        return found

    def write(self, name: str, value: Any) -> None:
        """Change a PV on the server; its clients are told."""
        self._ask("write", name, value)

    def reset(self) -> None:
        """Have every PV hold what it held at first, and forget the puts."""
        self._ask("reset")

    @property
    def puts(self) -> list[tuple[str, Any]]:
        """The puts of clients, in their order."""
        return [(name, value) for name, value in self._ask("put_log")]

    def stop(self) -> None:
        """End it."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10.0)
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
