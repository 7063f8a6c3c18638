"""Where and how Channel Access searches: set before its first use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from . import _ca
from .errors import BadValueError

__all__ = ["configure"]

_VARIABLES = {
    "addr_list": "EPICS_CA_ADDR_LIST",
    "auto_addr_list": "EPICS_CA_AUTO_ADDR_LIST",
    "name_servers": "EPICS_CA_NAME_SERVERS",
    "server_port": "EPICS_CA_SERVER_PORT",
    "repeater_port": "EPICS_CA_REPEATER_PORT",
    "max_array_bytes": "EPICS_CA_MAX_ARRAY_BYTES",
    "conn_timeout": "EPICS_CA_CONN_TMO",
    "dead_circuit_timeout": "EPICSX_DEAD_CIRCUIT_TIMEOUT",
}


def configure(
    *,
    addr_list: str | Iterable[str] | None = None,
    auto_addr_list: bool | None = None,
    name_servers: str | Iterable[str] | None = None,
    server_port: int | None = None,
    repeater_port: int | None = None,
    max_array_bytes: int | None = None,
    conn_timeout: float | None = None,
    dead_circuit_timeout: float | None = None,
) -> None:
    """Set where and how Channel Access searches, before its first use in this process.

    What is not given is left to the ``EPICS_CA_*`` environment variables, which libca reads at first use.

    Parameters
    ----------
    conn_timeout : float, seconds
        After so long without a word a server is asked for a sign of life; five seconds later its channels are
        disconnected (``EPICS_CA_CONN_TMO``, 30).
    dead_circuit_timeout : float, seconds
        How long a server may then go on answering nothing, on a connection that stands, before epicsx closes that and
        searches for its channels anew: another server may have them by now, and libca alone would wait until TCP gives
        up, a quarter of an hour. 0 is at once, ``inf`` never (``EPICSX_DEAD_CIRCUIT_TIMEOUT``, 5). One server's
        connection is left no more often than every 30 s.

    Raises
    ------
    RuntimeError
        After first use: libca has read its settings.
    BadValueError
        For a port, a size or a time that cannot be.
    """
    if _ca.started():
        raise RuntimeError("configure() comes before the first use of Channel Access in a process")
    for what, port in (("server_port", server_port), ("repeater_port", repeater_port)):
        if port is not None and not 0 < port < 65536:
            raise BadValueError(f"{what} is a port number, 1 to 65535, not {port}")
    if max_array_bytes is not None and max_array_bytes < 16384:
        raise BadValueError(f"max_array_bytes is at least 16384, not {max_array_bytes}")
    if conn_timeout is not None and not conn_timeout > 0:
        raise BadValueError(f"conn_timeout is a number of seconds above 0, not {conn_timeout}")
    if dead_circuit_timeout is not None and not dead_circuit_timeout >= 0:
        raise BadValueError(
            f"dead_circuit_timeout is a number of seconds of at least 0, not {dead_circuit_timeout}"
        )
    given: dict[str, Any] = {
        "addr_list": addr_list,
        "auto_addr_list": auto_addr_list,
        "name_servers": name_servers,
        "server_port": server_port,
        "repeater_port": repeater_port,
        "max_array_bytes": max_array_bytes,
        "conn_timeout": conn_timeout,
        "dead_circuit_timeout": dead_circuit_timeout,
    }
    for key, value in given.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "YES" if value else "NO"
        elif not isinstance(value, (str, int, float)):
            value = " ".join(value)
        os.environ[_VARIABLES[key]] = str(value)
