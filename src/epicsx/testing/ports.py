"""Private ports on loopback, and the Channel Access environment that keeps a client there."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import MutableMapping

LOOPBACK = "127.0.0.1"

# Below the range from which systems take the ports of outgoing connections (Linux: 32768 and up),
# so that nobody's client lands on a port between our looking and our server's binding.
_FIRST, _LAST = 20_000, 32_000

# Not seeded: test plugins seed the shared generator, and two runs must not walk the same ports.
_random = random.SystemRandom()
_given: set[int] = set()

#: Variables that would lead a client or a server elsewhere than where a test wants it.
FOREIGN_VARIABLES = (
    "EPICS_CA_NAME_SERVERS",
    "EPICS_CA_BEACON_PERIOD",
    "EPICS_CAS_SERVER_PORT",
    "EPICS_CAS_INTF_ADDR_LIST",
    "EPICS_CAS_IGNORE_ADDR_LIST",
    "EPICS_CAS_BEACON_ADDR_LIST",
    "EPICS_CAS_AUTO_BEACON_ADDR_LIST",
    "EPICS_CAS_BEACON_PORT",
    "EPICS_CAS_BEACON_PERIOD",
)


def checked_port(port: int | None, name: str) -> int | None:
    """The port, if a CA server or client would take it; 0 and None ask for a free one.

    Raises
    ------
    ValueError
        It is none, or up to 5000, which libca replaces by its default
        (envGetInetPortConfigParam of libcom/src/env/envSubr.c).
    """
    if port and not 5000 < port <= 65535:
        raise ValueError(f"{name}={port!r}: a port from 5001 to 65535 is wanted")
    return port


def is_free(port: int) -> bool:
    """Tell whether `port` can be bound for both TCP and UDP, on loopback and on all interfaces."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for host in (LOOPBACK, ""):
            with socket.socket(socket.AF_INET, kind) as sock:
                if kind == socket.SOCK_STREAM and os.name == "posix":
                    # As the IOC does: what a closed connection leaves behind is no obstacle.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((host, port))
                except OSError:
                    return False
    return True


def free_port() -> int:
    """Return a port free for TCP and UDP that this process has not been given before."""
    for _ in range(1000):
        port = _random.randrange(_FIRST, _LAST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port found between {_FIRST} and {_LAST}")


def client_environment(
    server_port: int, repeater_port: int, extra_ports: tuple[int, ...] = ()
) -> dict[str, str]:
    """Return the EPICS_CA_* variables of a client that shall see loopback servers only."""
    hosts = [LOOPBACK] if not extra_ports else [f"{LOOPBACK}:{server_port}"]
    hosts += [f"{LOOPBACK}:{port}" for port in extra_ports]
    return {
        "EPICS_CA_ADDR_LIST": " ".join(hosts),
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(server_port),
        "EPICS_CA_REPEATER_PORT": str(repeater_port),
    }


def apply_environment(
    variables: dict[str, str], environ: MutableMapping[str, str] | None = None
) -> None:
    """Put `variables` into `environ` (os.environ if None) and remove what would lead elsewhere.

    libca reads its environment once, when its first context is made: call this before.
    """
    if environ is None:
        environ = os.environ
    for name in FOREIGN_VARIABLES:
        environ.pop(name, None)
    environ.update(variables)


class Loopback:
    """A set of private ports for one process: a server, some spare servers, a repeater.

    A client that lives in an environment with `env` searches the server's port and all spare
    ones, so IOCs started later on a spare port are found although libca read its environment long
    before.
    """

    def __init__(self, spare: int = 0) -> None:
        self.server_port: int = free_port()
        self.spare_ports: tuple[int, ...] = tuple(free_port() for _ in range(spare))
        self.repeater_port: int = free_port()
        self.env: dict[str, str] = client_environment(
            self.server_port, self.repeater_port, self.spare_ports
        )

    def apply(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Put `env` into `environ`, by default os.environ."""
        apply_environment(self.env, environ)
