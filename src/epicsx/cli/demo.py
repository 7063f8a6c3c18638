"""Show live Channel Access data going through the compiled core.

Starts the EPICS soft IOC on private ports of the loopback interface, with live
scalars, an enum, a text, a waveform and a 1360 x 1024 x 3 camera image that
changes every frame; monitors all of it, gets, puts with wait and acquires
meanwhile; accounts for every update; and leaves a picture of the last image and
waveform.

With --pv it does the same against PVs of your own, found through your EPICS_CA_*
environment, and starts no IOC. It only reads them, unless you say --write.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec

from ._tools import complain, some_seconds

__all__ = ["arguments", "run"]

EXTRA = {"rich": "rich", "PIL": "pillow"}
EXTRA_IOC = {"epicscorelibs": "epicscorelibs"}

EPILOG = """\
What is counted:
  received   updates that libca handed to epicsx; each of them is
  delivered  to a callback, or
  merged     replaced by a newer one while it waited in epicsx, or
  dropped    by epicsx because a bound was reached, or
  waiting    still
  gaps       increments of the counter that never arrived
  skipped    frames that the IOC made but did not send: it queues one array
             for each monitor

Exit codes:
  0    nothing was dropped, no counter has a gap, no request failed
  1    epicsx dropped an update, a counter has a gap, a frame was torn, a request failed,
       a connection was lost, or nothing arrived
  2    it could not begin: bad option, missing extra, unknown PV, no place for the picture
  130  interrupted by Ctrl-C, after the summary (143: terminated)
"""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is wanted, not {text!r}") from None


def _rate(most: int) -> Callable[[str], float]:
    """A check of a rate: an IOC scans at its standard periods, and at shorter ones that it is given."""

    def rate(text: str) -> float:
        value = _number(text)
        if value not in (1, 2, 5, 10) and not 10 < value <= most:
            raise argparse.ArgumentTypeError(f"1, 2, 5 or 10 to {most} is wanted, not {text}")
        return value

    return rate


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the demo."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add(
        "--seconds",
        type=some_seconds,
        default=10.0,
        metavar="S",
        help="how long it runs (default: %(default)g)",
    )
    add(
        "--picture",
        metavar="FILE",
        default="epicsx-demo.png",
        help="the picture to leave (default: %(default)s)",
    )
    add("--plain", action="store_true", help="a line a second, as when output is no terminal")

    add = parser.add_argument_group("PVs of your own").add_argument
    add("--pv", action="append", metavar="NAME", help="a PV; may be given again")
    add("--write", action="store_true", help="put, with wait, the value that was just read")
    add(
        "--timeout",
        type=some_seconds,
        default=5.0,
        metavar="S",
        help="how long to look for them (default: %(default)g)",
    )

    add = parser.add_argument_group("the soft IOC: how often a second it makes").add_argument
    for option, most, rate, what in (
        ("--image-rate", 100, 25.0, "an image of 4.2 MB"),
        ("--wave-rate", 1000, 1000.0, "a waveform of 1000 samples"),
        ("--count-rate", 1000, 100.0, "an increment of the counter"),
    ):
        add(
            option,
            type=_rate(most),
            default=rate,
            metavar="HZ",
            help=f"{what} (default: %(default)g)",
        )


def _complain(text: object) -> int:
    return complain("demo", text, 2)


def run(options: argparse.Namespace) -> int:
    """Run the demo and return its exit code."""
    if options.write and not options.pv:
        return _complain("--write goes with --pv")
    wanted = dict(EXTRA) if options.pv else {**EXTRA, **EXTRA_IOC}
    missing = [package for module, package in wanted.items() if find_spec(module) is None]
    if missing:
        return _complain(f"{' and '.join(missing)} not installed: pip install 'epicsx[demo]'")

    from ..errors import CAError
    from ..testing import SoftIOCError
    from ._demo_run import CannotBegin, show

    try:
        return show(options)
    except (CAError, CannotBegin, SoftIOCError) as error:
        return _complain(error)
