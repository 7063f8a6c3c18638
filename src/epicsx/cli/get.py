"""Read PVs once and print their values, as caget does.

epicsx get -a motor:RBV motor:STAT
epicsx get --json camera:Gain
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ._tools import (
    arranged,
    ca_options,
    chosen_format,
    complain,
    dbr_type,
    find,
    format_options,
    guarded,
    opened,
    tool_epilog,
)

if TYPE_CHECKING:
    from ._reading import Reading
    from ._tools import Output

__all__ = ["arguments", "run", "split"]


class _Form(argparse.Action):
    """-t, -a or -d: the last one holds, and more than one is complained about, as by caget."""

    def __call__(self, parser: Any, options: Any, value: Any, option: str | None = None) -> None:
        if options.form != "plain":
            print("Options t,d,a are mutually exclusive.", file=sys.stderr)
        options.form = {"t": "terse", "a": "wide", "d": "details"}[self.option_strings[0][1]]
        if options.form == "details":
            options.type = value


class _Integers(argparse.Action):
    """-0: how integers are shown and, for caget, also that DBR_LONG is asked for where -d came before."""

    def __call__(self, parser: Any, options: Any, value: Any, option: str | None = None) -> None:
        options.whole = value
        options.type = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of caget, and those beyond."""
    parser.epilog = tool_epilog("caget")
    parser.add_argument("pvs", nargs="+", metavar="PV")
    ca_options(parser)
    parser.add_argument(
        "-c", dest="callback", action="store_true", help="as many elements as an array has now"
    )
    add = parser.add_argument_group("what is shown (default: name and value)").add_argument
    add("-t", action=_Form, nargs=0, help="the value alone")
    add("-a", action=_Form, nargs=0, help="name, stamp, value, status and severity")
    add(
        "-d",
        action=_Form,
        type=dbr_type,
        metavar="TYPE",
        help="all that comes with a DBR type, by its name or number: CTRL_DOUBLE or 34",
    )
    parser.set_defaults(form="plain", type=-1)
    format_options(parser, integers=_Integers)
    group = parser.add_argument_group("beyond caget")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--json", action="store_true", help="a JSON object a line, with all facts")
    one.add_argument("--csv", action="store_true", help="name, stamp, status, severity, value")
    one.add_argument("--plot", action="store_true", help="arrays of numbers as small plots")


def split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """The words with all options first, as getopt finds them."""
    options, names = arranged(parser, words)
    return ([*options, "--", *names] if names else options), []


def run(options: argparse.Namespace) -> int:
    """Read, print, and return the exit code."""
    return guarded("get", lambda: _get(options))


def _get(options: argparse.Namespace) -> int:
    from ._reading import Reading
    from ._tools import Failure, Output, not_found, timeout_of

    output = Output()
    how = chosen_format(options, output)
    timeout = timeout_of(options)
    channels = opened(options.pvs, options.priority)
    missing = find(channels, timeout)
    beyond = options.facts = options.json or options.csv or options.plot
    if missing and (not beyond or len(missing) == len(channels)):
        raise Failure(not_found(missing))  # caget prints none of the others either
    asked = [Reading(channel, options, timeout) for channel in channels if channel not in missing]
    if beyond:
        _print_beyond(asked, options, output)
    else:
        for each in asked:
            output.write(each.lines(options, how))
    failed = [each.error for each in asked if each.error is not None]
    for error in failed:
        complain("get", error)
    if missing:
        complain("get", not_found(missing))
    return 1 if failed or missing else 0


def _print_beyond(asked: list[Reading], options: argparse.Namespace, output: Output) -> None:
    from . import _facts

    if options.plot:
        for each in asked:
            _plot(each, output)
        return
    if options.csv:
        output.write(_facts.csv_line(_facts.COLUMNS), "utf-8")
    for each in asked:
        facts = each.facts(options.long_strings)
        if facts is None:
            continue
        if options.json:
            output.write(_facts.json_line(facts))
        else:
            cells = _facts.row(facts, options.enum_numbers)
            output.write(_facts.csv_line(cells, output.terminal), "utf-8")


def _plot(asked: Reading, output: Output) -> None:
    from ._plot import plotted
    from ._tools import Failure

    sample = asked.sample()
    if sample is None:
        return
    values = sample.raw(False)
    if not hasattr(values, "tolist") or len(values) < 2:
        raise Failure(
            f"'{asked.core.name}' is no array of numbers: epicsx monitor --plot shows its course", 2
        )
    output.write(f"{asked.name}\n")
    lines = plotted(values.tolist())
    output.write("".join(line + "\n" for line in lines), "utf-8")
