"""Explain why PVs do not connect: what was asked, who answered, where it ends.

Each step of a connection is taken by itself: the environment, the repeater, the
search, the connection, the channel, one read. Nothing is written to a PV.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ._tools import complain, some_seconds

if TYPE_CHECKING:
    from .._doctor_findings import Finding

__all__ = ["arguments", "run"]

EPILOG = """\
Exit codes:
  0    all well; notes do not count
  1    a warning or a problem was found
  2    bad usage: an option or an address that is none, no name, an empty one
  130  interrupted by Ctrl-C

What each finding means, and what to do: docs/doctor.md.
"""


LONGEST = 86400.0  # seconds; poll(2), beneath Python's sockets, counts milliseconds in an int


def _seconds(text: str) -> float:
    value = some_seconds(text)
    if value > LONGEST:
        raise argparse.ArgumentTypeError(
            f"a number of seconds above 0 and at most {LONGEST:.0f} is wanted, not {text!r}"
        )
    return value


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EPILOG
    parser.add_argument("names", nargs="+", metavar="NAME", help="a PV")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="seconds for each step, such as the search for all PVs; up to a day (default: %(default)g)",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="ask there, too, for what is not found; may be given again",
    )
    parser.add_argument("--no-read", action="store_true", help="do not read the PVs' values")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print warnings and problems alone"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(options: argparse.Namespace) -> int:
    """Examine the PVs, print what was found and return the exit code."""
    from .._doctor import examine
    from .._doctor_env import BadAddress
    from .._doctor_findings import shown

    for stream in (sys.stdout, sys.stderr):  # what comes from the network may not be printable
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for name in options.names:
        if not name.strip() or "\0" in name:
            return _complain(f"{shown(name)} is no PV name")
    try:
        found = examine(
            options.names, timeout=options.timeout, also=options.also, read=not options.no_read
        )
    except BadAddress as error:
        return _complain(f"--also {error}")
    bad = [each for each in found if each.bad]
    if options.json:
        rows = [each.to_dict() for each in (bad if options.quiet else found)]
        print(json.dumps({"ok": not bad, "findings": rows}, indent=2))
    else:
        _print(bad if options.quiet else found, options.names)
    return 1 if bad else 0


def _complain(text: object) -> int:
    return complain("doctor", text, 2)


def _print(found: list[Finding], names: list[str]) -> None:
    from .._doctor_findings import shown

    for name in (None, *dict.fromkeys(names)):
        rows = [each for each in found if each.pv == name]
        if rows and name is not None:
            print(shown(name))
        for each in rows:
            indent = "" if name is None else "  "
            print(f"{indent}{each.severity:8}{each.code}: {each.text}")
            if each.hint and each.severity != "ok":
                print(f"{indent}        -> {each.hint}")
