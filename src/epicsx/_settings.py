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
) -> None:
    """Set where and how Channel Access searches, before its first use in this process.

    What is not given is left to the ``EPICS_CA_*`` environment variables, which libca reads at first use.

    Raises
    ------
    RuntimeError
        After first use: libca has read its settings.
    BadValueError
        For a port or size that cannot be.
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
    given: dict[str, Any] = {
        "addr_list": addr_list,
        "auto_addr_list": auto_addr_list,
        "name_servers": name_servers,
        "server_port": server_port,
        "repeater_port": repeater_port,
        "max_array_bytes": max_array_bytes,
        "conn_timeout": conn_timeout,
    }
    for key, value in given.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "YES" if value else "NO"
        elif not isinstance(value, (str, int, float)):
            value = " ".join(value)
        os.environ[_VARIABLES[key]] = str(value)
