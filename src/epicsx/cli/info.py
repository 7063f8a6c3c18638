"""Print where PVs are, of which type, and what may be done with them, as cainfo does.

epicsx info motor:VAL
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ._tools import arranged, ca_options, complain, guarded, number_of, tool_epilog

if TYPE_CHECKING:
    from .._ca import Core
    from ._tools import Output

__all__ = ["arguments", "run", "split"]

COLUMNS = ("name", "state", "host", "read", "write", "native_type", "count")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of cainfo, and those beyond."""
    parser.epilog = tool_epilog("cainfo")
    parser.add_argument("pvs", nargs="*", metavar="PV")
    ca_options(parser)
    parser.add_argument(
        "-s",
        dest="level",
        type=number_of("a level", 2**31 - 1),
        default=0,
        metavar="LEVEL",
        help="how the client itself is doing, in place of the PVs; more from level to level",
    )
    one = parser.add_argument_group("beyond cainfo").add_mutually_exclusive_group()
    one.add_argument("--json", action="store_true", help="a JSON object a line")
    one.add_argument("--csv", action="store_true", help="a line of cells each")


def split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """The words with all options first, as getopt finds them."""
    options, names = arranged(parser, words)
    return ([*options, "--", *names] if names else options), []


def run(options: argparse.Namespace) -> int:
    """Look, print, and return the exit code."""
    return guarded("info", lambda: _info(options))


def _info(options: argparse.Namespace) -> int:
    from .. import _ca, _messages
    from ._tools import Failure, Output, find, not_found, opened, timeout_of

    if not options.pvs and not options.level:
        raise Failure("no PV name was given", 2)
    output = Output()
    channels = opened(options.pvs, options.priority)
    missing = find(channels, timeout_of(options)) if channels else []
    beyond = options.json or options.csv
    if missing and (not beyond or len(missing) == len(channels)):
        raise Failure(not_found(missing))  # cainfo prints none of the others either
    found = [channel._core for channel in channels if channel not in missing]
    if options.level:
        output.write(_messages.status_text(_ca.context().id, options.level) + "\n", "utf-8")
    elif beyond:
        _print_beyond(found, options, output)
    else:
        for core in found:
            output.write(_lines(core, output.terminal))
    if missing:
        complain("info", not_found(missing))
    return 1 if missing else 0


def named_host(host: str, patience: float = 1.0) -> str:
    """``host:port`` with the host's name where it has one.

    libca asks for the name in the background, and what it gave at the connect may still be the number. An answer that
    is late is not waited for.
    """
    import re
    import socket
    import threading

    address, _, port = host.rpartition(":")
    if not re.fullmatch(r"[\d.]+", address):
        return host
    found: list[str] = []

    def ask() -> None:
        try:
            found.append(socket.gethostbyaddr(address)[0])
        except OSError:
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    return f"{found[0]}:{port}" if found else host


def _lines(core: Core, terminal: bool) -> str:
    from ._format import Format, type_name
    from ._tools import raw_name

    host = named_host(core.host).encode("utf-8", "replace").decode("latin-1")
    how = Format(terminal=terminal)
    kind = type_name(core.native_type)
    rights = ["" if each else "no " for each in (core.read_access, core.write_access)]
    return (
        f"{how.shown(raw_name(core.name))}\n"
        f"    State:            {'connected' if core.connected else 'previously connected'}\n"
        f"    Host:             {how.shown(host)}\n"
        f"    Access:           {rights[0]}read, {rights[1]}write\n"
        f"    Native data type: DBF_{kind}\n"
        f"    Request type:     DBR_{kind}\n"
        f"    Element count:    {core.count}\n"
    )


def _print_beyond(cores: list[Core], options: argparse.Namespace, output: Output) -> None:
    from ..enums import DBR
    from ._facts import csv_line, json_line, of_channel, text_of
    from ._tools import raw_name

    if options.csv:
        output.write(csv_line(COLUMNS))
    for core in cores:
        facts: dict[str, Any] = {
            "name": text_of(raw_name(core.name)),
            "state": "connected" if core.connected else "previously connected",
            **of_channel(core),
            "host": named_host(core.host),
            "native_type": DBR(core.native_type).name,
            "count": core.count,
        }
        if options.json:
            output.write(json_line(facts))
        else:
            cells = [str(facts[column]) for column in COLUMNS]
            output.write(csv_line(cells, output.terminal), "utf-8")
