"""Save the values of many PVs in a file, compare them, put them back.

PVs are read all at once, with one flush and one deadline; those that do not
answer are reported, and do not delay the others. The file is text, one JSON
object a line.
"""

from __future__ import annotations

import argparse
import math
import reprlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ._tools import complain, one_line, wait_time

if TYPE_CHECKING:
    from .._snapshot import Difference, Row, Snapshot

__all__ = ["arguments", "run"]

EPILOG = """\
Exit codes:
  0    all was read, nothing differs, all was written
  1    some PVs could not be read or written, or differ
  2    bad usage: an option, a file that cannot be read or is no snapshot, no PV name;
       or the file could not be written, as on a full disk
  130  interrupted by Ctrl-C
"""


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"a number of at least 0 is wanted, not {text!r}")
    return value


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what there is to do, and the options of each."""
    parser.epilog = EPILOG
    jobs = parser.add_subparsers(metavar="WHAT", required=True)

    def job(name: str, what: str, do: Any) -> argparse.ArgumentParser:
        made = jobs.add_parser(name, help=what, description=what)
        made.set_defaults(do=do)
        made.add_argument(
            "--timeout",
            type=wait_time,
            default=5.0,
            metavar="S",
            help="seconds for all PVs together, connecting included (default: %(default)g)",
        )
        return made

    save = job("save", "read PVs and write them to a file", _save)
    save.add_argument("names", nargs="*", metavar="NAME", help="a PV")
    save.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of names, one a line, # begins a comment; - is standard input",
    )
    save.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to; - is standard output"
    )

    diff = job("diff", "show what differs between a file and another, or the PVs now", _diff)
    diff.add_argument("before", metavar="FILE", help="a snapshot")
    diff.add_argument(
        "after",
        nargs="?",
        default="live",
        metavar="FILE|live",
        help="another snapshot, or the PVs as they are now (default: %(default)s)",
    )
    for option, what in (("--rtol", "relative to the first"), ("--atol", "absolute")):
        diff.add_argument(
            option,
            type=_number,
            default=0.0,
            metavar="X",
            help=f"numbers that differ by no more are equal; {what}",
        )

    restore = job("restore", "put the values of a file back", _restore)
    restore.add_argument("snapshot", metavar="FILE", help="a snapshot")
    restore.add_argument(
        "--only", action="append", metavar="NAME", help="only this PV; may be given again"
    )
    restore.add_argument(
        "--no-wait", action="store_true", help="do not wait for the records to finish processing"
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked for and return the exit code."""
    from ..errors import CAError

    for stream in (sys.stdout, sys.stderr):  # a name may hold what the terminal cannot show
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code: int = options.do(options)
    except UnicodeDecodeError:
        return _complain("the names are not a text in UTF-8")
    except CAError as error:
        return _complain(error)
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}")
    return code


def _complain(text: object) -> int:
    return complain("snapshot", text, 2)


def _tell(errors: Mapping[str, BaseException]) -> None:
    """One line for each PV that failed: the error names it."""
    for error in errors.values():
        complain("snapshot", error)


# ---------------------------------------------------------------------- save


def _names(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        # A # that begins a word begins a comment; inside of one it may belong to a name.
        for word in line.split():
            if word.startswith("#"):
                break
            yield word


def _save(options: argparse.Namespace) -> int:
    names = list(options.names)
    for path in options.file:
        if path == "-":
            names += _names(sys.stdin)
        else:
            with open(path, encoding="utf-8") as file:
                names += _names(file)
    if not names:
        return _complain("no PV name was given")

    from .._snapshot import snapshot
    from .._snapshot_file import lines

    taken = snapshot(dict.fromkeys(names), timeout=options.timeout)
    if options.output == "-":
        sys.stdout.writelines(lines(taken))
    else:
        taken.save(options.output)
        print(
            f"{len(taken) - len(taken.errors)} of {len(taken)} PVs saved in {one_line(options.output)}"
        )
    _tell(taken.errors)
    return 1 if taken.errors else 0


# ---------------------------------------------------------------------- diff


def _diff(options: argparse.Namespace) -> int:
    from .._snapshot import Snapshot

    before = Snapshot.load(options.before)
    live = options.after == "live"
    after = before.again(timeout=options.timeout) if live else Snapshot.load(options.after)
    found = before.diff(after, rtol=options.rtol, atol=options.atol)
    for each in found:
        print(f"{one_line(each.name)}: {_change(each, before, after)}")
    neither = before.errors.keys() & after.errors.keys()
    _tell({name: error for name, error in after.errors.items() if name in neither})
    return 1 if found or neither else 0


def _change(found: Difference, before: Snapshot, after: Snapshot) -> str:
    if found.before is None or found.after is None:
        only = "second" if found.before is None else "first"
        return f"only in the {only} snapshot"
    old, new = found.before.value, found.after.value
    if found.before.ok and found.after.ok and _are_arrays(old, new) and len(old) == len(new):
        places = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if not _equal(a, b)]
        if places:
            first = places[0]
            return (
                f"{len(places)} of {len(old)} elements, "
                f"the first [{first}]: {_text(old[first])} -> {_text(new[first])}"
            )
    return f"{_shown(found.before, before)} -> {_shown(found.after, after)}"


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _are_arrays(*values: Any) -> bool:
    return all(hasattr(value, "__len__") and not isinstance(value, str) for value in values)


def _shown(row: Row, of: Snapshot) -> str:
    return (
        _text(row.value) if row.ok else f"not read ({of.errors.get(row.name, 'no reason known')})"
    )


def _text(value: Any) -> str:
    if _are_arrays(value):
        shown = value.tolist() if hasattr(value, "tolist") else value
        return f"{reprlib.repr(shown)} ({len(value)} elements)"
    return repr(value.item() if hasattr(value, "item") else value)


# ------------------------------------------------------------------- restore


def _restore(options: argparse.Namespace) -> int:
    from .._snapshot import Snapshot, restore

    wanted = Snapshot.load(options.snapshot)
    done = restore(wanted, timeout=options.timeout, wait=not options.no_wait, only=options.only)
    print(f"{len(done.ok)} of {len(done)} PVs restored from {one_line(options.snapshot)}")
    _tell(done.errors)
    return 0 if done else 1
