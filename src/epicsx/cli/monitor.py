"""Print each update of PVs as it comes, as camonitor does, until Ctrl-C.

epicsx monitor motor:RBV
epicsx monitor --every 1 --duration 60 --csv motor:RBV ring:current > run.csv
epicsx monitor --plot ring:current
"""

from __future__ import annotations

import argparse

from ._tools import (
    arranged,
    ca_options,
    chosen_format,
    format_options,
    guarded,
    interval,
    tool_epilog,
)

__all__ = ["arguments", "run", "split"]

_MASKS = {"v": 1, "l": 2, "a": 4, "p": 8}
NOTE = """\
With --duration, 1 is also the exit code when a PV was never found, updates were lost,
or nobody read the output at the end.
"""


def _mask(text: str) -> int:
    if not text or set(text) - set(_MASKS):
        raise argparse.ArgumentTypeError(f"letters out of v, a, l and p are wanted, not {text!r}")
    return sum(_MASKS[letter] for letter in set(text))


def _stamps(text: str) -> str:
    if set(text) - set("scnriI"):
        raise argparse.ArgumentTypeError(
            f"letters out of s, c, n, r, i, I are wanted, not {text!r}"
        )
    return text


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of camonitor, and those beyond."""
    parser.epilog = tool_epilog("camonitor", NOTE)
    parser.add_argument("pvs", nargs="+", metavar="PV")
    ca_options(parser)
    parser.add_argument(
        "-m",
        dest="mask",
        type=_mask,
        default=5,
        metavar="MASK",
        help="which changes: v(alue), a(larm), l(og), p(roperty); default: va",
    )
    parser.add_argument(
        "-t",
        dest="stamps",
        type=_stamps,
        default="s",
        metavar="KEY",
        help="stamps of the s(erver), of this c(lient), n(one); r(elative to the start), "
        "i(ncremental), I(ncremental for each PV); default: s",
    )
    format_options(parser)
    group = parser.add_argument_group("beyond camonitor")
    group.add_argument(
        "--every",
        type=interval,
        metavar="SECONDS",
        help="at most one line for each PV in so many seconds, the newest",
    )
    group.add_argument(
        "--duration", type=interval, metavar="SECONDS", help="end after so many seconds"
    )
    group.add_argument(
        "--rate",
        action="store_true",
        help="how many updates a second each PV sends, in place of them; each second, or as --every says",
    )
    one = group.add_mutually_exclusive_group()
    one.add_argument("--json", action="store_true", help="a JSON object for each update")
    one.add_argument("--csv", action="store_true", help="name, stamp, status, severity, value")
    one.add_argument(
        "--plot", action="store_true", help="a small plot of each PV; in a pipe once, at the end"
    )


def split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """The words with all options first, as getopt finds them."""
    options, names = arranged(parser, words)
    return ([*options, "--", *names] if names else options), []


def run(options: argparse.Namespace) -> int:
    """Print until the end and return the exit code."""
    return guarded("monitor", lambda: _monitor(options))


def _monitor(options: argparse.Namespace) -> int:
    from ._tools import Failure, Output, timeout_of
    from ._watching import Watch, ending, view_of

    if options.plot and options.rate:
        raise Failure("--plot and --rate exclude each other", 2)
    output = Output()
    view = view_of(options, chosen_format(options, output), output)
    with ending(output, options.duration):
        watch = Watch(options, view, output, timeout_of(options))
        try:
            watch.run()
        finally:
            watch.close()
    return watch.code()
