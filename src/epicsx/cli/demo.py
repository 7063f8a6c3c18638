"""Show live Channel Access data going through the compiled core.

Starts the EPICS soft IOC on private ports of the loopback interface, with live scalars, an enum, a text, a waveform
and a 1360 x 1024 x 3 camera image that changes every frame; monitors all of it, gets, puts with wait and acquires
meanwhile; accounts for every update; and leaves a picture of the last image and waveform.

With --pv it does the same against PVs of your own, through your EPICS_CA_* environment, and starts no IOC.
It only reads them, unless you say --write.
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib.util import find_spec

__all__ = ["arguments", "run"]

EXTRA = {"rich": "rich", "PIL": "pillow"}
EXTRA_IOC = {"epicscorelibs": "epicscorelibs"}

EPILOG = """\
What is counted:
  received    updates that libca handed to epicsx; each is delivered, merged, dropped or waits
  merged      replaced by a newer update while it waited for a slow callback, in epicsx
  dropped     discarded by epicsx because a bound was reached
  gaps        increments of the counter that never arrived
  skipped     frames that the IOC made but did not send: it queues one array per client and PV

Exit codes:
  0    all that was received was delivered, no counter has a gap, no request failed
  1    epicsx dropped an update, a counter has a gap, a frame was torn, a request failed,
       a connection was lost, or nothing arrived
  2    it could not begin: bad option, missing extra, unknown PV, no place for the picture
  130  interrupted by Ctrl-C, after the summary (143: terminated)
"""


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is wanted, not {text}")
    return value


class _Rate:
    """Checks a rate: the scan periods that an IOC has, or can be given."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.__name__ = "rate"  # argparse names it in its message

    def __call__(self, text: str) -> float:
        value = float(text)
        if value not in (1, 2, 5, 10) and not 10 < value <= self.most:
            raise argparse.ArgumentTypeError(
                f"1, 2, 5, 10 or more, up to {self.most} per second, not {text}"
            )
        return value


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the demo."""
    parser.epilog = EPILOG
    parser.add_argument("--seconds", type=_seconds, default=10.0, help="how long it runs")
    parser.add_argument(
        "--pv", action="append", metavar="NAME", help="a PV of your own; may be given again"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="with --pv: also put, with wait, the value that was just read",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=5.0, help="with --pv: seconds to find the PVs in"
    )
    parser.add_argument(
        "--picture", metavar="FILE", default="epicsx-demo.png", help="the picture to leave"
    )
    parser.add_argument(
        "--plain", action="store_true", help="one line a second, as when not on a terminal"
    )
    parser.add_argument(
        "--image-rate", type=_Rate(100), default=25.0, metavar="HZ", help="frames made per second"
    )
    parser.add_argument(
        "--wave-rate", type=_Rate(1000), default=1000.0, metavar="HZ", help="waveforms per second"
    )
    parser.add_argument(
        "--count-rate", type=_Rate(1000), default=100.0, metavar="HZ", help="counts per second"
    )


def _complain(text: object) -> int:
    print(f"epicsx demo: {text}", file=sys.stderr)
    return 2


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
