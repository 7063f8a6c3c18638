"""What libca makes of the environment: read as it reads it, told where it falls silently back to something else.

Facts: libcom/src/env/envSubr.c, libcom/src/misc/epicsStdlib.c (epicsParseDouble), libcom/src/misc/aToIPAddr.c,
ca/src/client/iocinf.cpp (configureChannelAccessAddressList), ca/src/client/cac.cpp (the constructor).
"""

from __future__ import annotations

import math
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ._doctor_findings import Address, Finding, finding, shown

__all__ = ["BadAddress", "Settings", "address_of", "broadcasts", "read_environment"]

SERVER_PORT, REPEATER_PORT = 5064, 5065
CONN_TMO = 30.0
SMALLEST_ARRAY = 16384  # MAX_TCP of caProto.h
EPICSX_ARRAY = 100_000_000  # what epicsx sets, for libca's flow control, if it is unset
RESERVED_PORTS = 5000  # IPPORT_USERRESERVED: envGetInetPortConfigParam refuses up to it

EPICS_EPOCH = 631152000  # 1990-01-01 in seconds of POSIX
# What strtod takes, and blanks around it; epicsParseDouble refuses all else, such as units.
NUMBER = re.compile(
    r"""\s* (?P<sign>[+-]?) (?:
        (?P<decimal> (?P<digits> [0-9]+\.?[0-9]* | \.[0-9]+ ) (?:e[+-]?[0-9]+)? )
        | (?P<hexadecimal> 0x (?P<hexdigits> [0-9a-f]+\.?[0-9a-f]* | \.[0-9a-f]+ ) (?:p[+-]?[0-9]+)? )
        | (?P<infinite> inf(?:inity)? )
        | nan (?:\([0-9a-z_]*\))?
    ) \s*""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

KNOWN = frozenset(
    "EPICS_CA_" + name
    for name in (
        *(
            "ADDR_LIST",
            "AUTO_ADDR_LIST",
            "NAME_SERVERS",
            "SERVER_PORT",
            "REPEATER_PORT",
            "CONN_TMO",
        ),
        *("MAX_ARRAY_BYTES", "AUTO_ARRAY_BYTES", "MAX_SEARCH_PERIOD", "MCAST_TTL", "BEACON_PERIOD"),
    )
)


class BadAddress(ValueError):
    """An address that libca would skip; `code` is the verdict."""

    def __init__(self, code: str, text: str, reason: str) -> None:
        super().__init__(f"{shown(text)}: {reason}")
        self.code = code


@dataclass
class Settings:
    """Where libca searches, and with which limits."""

    addresses: list[Address] = field(default_factory=list)
    name_servers: list[Address] = field(default_factory=list)
    automatic: bool = True
    server_port: int = SERVER_PORT
    repeater_port: int = REPEATER_PORT
    conn_tmo: float = CONN_TMO
    max_array_bytes: int = EPICSX_ARRAY
    auto_array_bytes: bool = True

    @property
    def largest_message(self) -> int | None:
        """The payload that libca still takes, in bytes; None for any."""
        if self.auto_array_bytes:
            return None
        # cac::cac adds room for the header.
        return max(self.max_array_bytes + 24, SMALLEST_ARRAY)


def read_environment(
    environ: Mapping[str, str], timeout: float = 2.0
) -> tuple[Settings, list[Finding]]:
    """The settings, and what is wrong with the variables; host names are looked up, for `timeout` seconds each."""
    settings = Settings()
    found: list[Finding] = []
    seen = {name: environ[name] for name in sorted(environ) if name.startswith("EPICS_CA_")}
    text = "  ".join(f"{name[9:]}={shown(value)}" for name, value in seen.items())
    text = f"EPICS_CA_: {text}" if seen else "no EPICS_CA_ variable is set"
    found.append(finding("environment", text, variables=seen))
    for name in seen:
        if name not in KNOWN:
            found.append(finding("unknown-variable", f"{shown(name)} is set", variable=name))

    settings.server_port = _port(seen, "EPICS_CA_SERVER_PORT", SERVER_PORT, found)
    settings.repeater_port = _port(seen, "EPICS_CA_REPEATER_PORT", REPEATER_PORT, found)
    _conn_tmo(seen, settings, found)
    _array_bytes(seen, settings, found)

    value = seen.get("EPICS_CA_AUTO_ADDR_LIST", "YES")
    settings.automatic = not ("no" in value or "NO" in value)  # strstr
    if value.upper() not in ("YES", "NO") or (value.upper() == "NO") == settings.automatic:
        _switch("EPICS_CA_AUTO_ADDR_LIST", value, settings.automatic, found)
    for variable, kept in (
        ("EPICS_CA_ADDR_LIST", settings.addresses),
        ("EPICS_CA_NAME_SERVERS", settings.name_servers),
    ):
        for entry in re.split("[ \t\n\r]+", seen.get(variable, "")):
            if entry:
                _address(variable, entry, settings.server_port, kept, found, timeout)
    if not (settings.addresses or settings.automatic or settings.name_servers):
        text = "there is no address to search: EPICS_CA_ADDR_LIST has none, EPICS_CA_AUTO_ADDR_LIST is off"
        found.append(finding("no-address", text))
    return settings, found


def _port(seen: Mapping[str, str], name: str, default: int, found: list[Finding]) -> int:
    text = seen.get(name)
    if text is None:
        return default
    number = _whole(text)
    if RESERVED_PORTS < number <= 65535:
        return number
    found.append(
        finding(
            "bad-port", f"{name}={shown(text)}: libca uses {default}", variable=name, used=default
        )
    )
    return default


def _whole(text: str) -> int:
    """What sscanf("%ld") takes; -1 if that is nothing."""
    match = re.match(r"\s*([+-]?)([0-9]+)", text, re.ASCII)
    if match is None:
        return -1
    # Python refuses to convert thousands of digits; 20 are more than a long holds already.
    number = min(int(match[2].lstrip("0")[:20] or "0"), 2**63 - 1)
    return -number if match[1] == "-" else number


def _real(text: str) -> float | None:
    """What epicsParseDouble takes; None if that is nothing."""
    match = NUMBER.fullmatch(text)
    if match is None:
        return None
    if not (match["decimal"] or match["hexadecimal"]):
        number = math.inf if match["infinite"] else math.nan
    else:
        try:
            given = match["hexadecimal"]
            number = float.fromhex(given) if given else float(match["decimal"])
        except OverflowError:
            return None
        # strtod's ERANGE
        zero = not (match["digits"] or match["hexdigits"]).strip("0.")
        if math.isinf(number) or (number < sys.float_info.min and not zero):
            return None
    return -number if match["sign"] == "-" else number


def _conn_tmo(seen: Mapping[str, str], settings: Settings, found: list[Finding]) -> None:
    name = "EPICS_CA_CONN_TMO"
    text = seen.get(name)
    if not text:  # empty is as unset: envGetConfigParamPtr
        return
    number = _real(text)
    if number is None:
        told = f"{name}={shown(text)}: libca uses {CONN_TMO:g} s"
        found.append(finding("bad-conn-tmo", told, variable=name, used=CONN_TMO))
        return
    settings.conn_tmo = number
    # libca's timers count seconds since 1990 in 32 bits.
    if not 0 < number < 2**32 - (time.time() - EPICS_EPOCH):
        told = (
            f"{name}={shown(text)}: libca takes {number:g} s, and drops connections that are well"
        )
        used = number if math.isfinite(number) else f"{number:g}"  # JSON has no inf, no nan
        found.append(finding("fatal-conn-tmo", told, variable=name, used=used))


def _array_bytes(seen: Mapping[str, str], settings: Settings, found: list[Finding]) -> None:
    name = "EPICS_CA_AUTO_ARRAY_BYTES"
    text = seen.get(name) or "YES"
    settings.auto_array_bytes = text.lower() == "yes"
    if text.lower() not in ("yes", "no"):
        _switch(name, text, settings.auto_array_bytes, found)
    name = "EPICS_CA_MAX_ARRAY_BYTES"
    text = seen.get(name, "")
    if not text:
        return
    number = _whole(text)
    settings.max_array_bytes = max(number, SMALLEST_ARRAY)
    if number < SMALLEST_ARRAY:
        told = f"{name}={shown(text)}: libca uses {SMALLEST_ARRAY}"
        found.append(finding("bad-array-bytes", told, variable=name, used=SMALLEST_ARRAY))


def _switch(name: str, value: str, taken: bool, found: list[Finding]) -> None:
    told = f"{name}={shown(value)}: libca takes it for {'YES' if taken else 'NO'}"
    found.append(finding("bad-switch", told, variable=name, used=taken))


def _address(
    variable: str,
    entry: str,
    port: int,
    kept: list[Address],
    found: list[Finding],
    timeout: float,
) -> None:
    try:
        address = address_of(entry, port, timeout)
    except BadAddress as error:
        text = f"{variable}: {error}"
        found.append(finding(error.code, text, variable=variable, entry=entry))
        return
    if address in kept:
        text = f"{variable}: {shown(entry)} is the same as an entry before it"
        found.append(finding("duplicate-address", text, variable=variable, entry=entry))
        return
    kept.append(address)


def address_of(text: str, port: int, timeout: float = 2.0) -> Address:
    """The IPv4 address and port that libca makes of ``HOST`` or ``HOST:PORT``.

    Raises
    ------
    BadAddress
        It can make nothing of it.
    """
    if text.startswith("[") or text.count(":") > 1:
        raise BadAddress("ipv6-address", text, "an IPv6 address")
    host, colon, rest = text.partition(":")
    if colon:
        if not re.fullmatch("[0-9]+", rest) or _whole(rest) > 65535:
            raise BadAddress("bad-address", text, f"{shown(rest)} is no port")
        port = _whole(rest)
    if not host:
        raise BadAddress("bad-address", text, "no host")
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", host):
        if any(_whole(each) > 255 for each in host.split(".")):
            raise BadAddress("bad-address", text, "a part of an address is at most 255")
        return ".".join(str(_whole(each)) for each in host.split(".")), port
    if re.fullmatch("[0-9]+", host):  # the address as one number
        if _whole(host) > 0xFFFFFFFF:
            raise BadAddress("bad-address", text, "no address")
        return socket.inet_ntoa(struct.pack(">I", _whole(host))), port
    return _resolved(host, timeout), port


def _resolved(host: str, timeout: float) -> str:
    answer: list[str | None] = []

    def look() -> None:
        try:
            answer.append(socket.gethostbyname(host))
        except (OSError, UnicodeError):
            answer.append(None)

    # A resolver may take minutes, and cannot be interrupted: it is left behind.
    thread = threading.Thread(target=look, name="epicsx doctor, a host's name", daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise BadAddress("unresolved-host", host, f"no answer about this host within {timeout:g} s")
    if answer[0] is None:
        raise BadAddress("unresolved-host", host, "no IPv4 address of this host is known")
    return answer[0]


def broadcasts(port: int) -> Iterator[Address]:
    """The addresses that EPICS_CA_AUTO_ADDR_LIST stands for: each interface's broadcast address, or loopback.

    As osiSockDiscoverBroadcastAddresses (libcom/src/osi/os/default/osdNetIfConf.c): interfaces that are up and no
    loopback; of a point-to-point one the other end.
    """
    if sys.platform != "linux":
        yield "255.255.255.255", port
        return
    import fcntl

    up, broadcast, loopback, point = 0x1, 0x2, 0x8, 0x10  # IFF_...
    get_flags, get_other, get_broadcast = 0x8913, 0x8917, 0x8919  # SIOCGIF...
    none = True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(sock, get_flags, request)
                (flags,) = struct.unpack_from("h", answer, 16)
                if not flags & up or flags & loopback or not flags & (broadcast | point):
                    continue
                which = get_broadcast if flags & broadcast else get_other
                answer = fcntl.ioctl(sock, which, request)
            except OSError:  # it has no IPv4 address
                continue
            none = False
            yield socket.inet_ntoa(answer[20:24]), port
    if none:
        yield "127.0.0.1", port
