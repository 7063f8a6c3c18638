"""Measure C's libca, pyepics and epicsx beside each other, on a soft IOC of this machine.

The benchmarks belong to the source tree; what follows the command is handed to them:
epicsx bench --quick, and epicsx bench -- --help for all of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._tools import complain

__all__ = ["arguments", "run", "split"]


def split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """Everything is for the benchmarks, but a first -h or --help."""
    if words[:1] in (["-h"], ["--help"]):
        return words, []
    return [], words[1:] if words[:1] == ["--"] else words


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: see `split`."""
    parser.usage = "epicsx bench [-h] [--] [OPTIONS OF python -m benchmarks ...]"


def source_tree() -> Path | None:
    """The source tree that this package is part of, if it is."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "benchmarks" / "__main__.py").is_file() else None


def run(options: argparse.Namespace) -> int:
    """Run the benchmarks in this process; their exit code."""
    import runpy

    root = source_tree()
    if root is None:
        return complain(
            "bench", "the benchmarks are in the source tree only: clone it, and make bench", 2
        )
    sys.path.insert(0, str(root))
    sys.argv = ["python -m benchmarks", *options.rest]
    try:
        runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        return complain("bench", f"{error}: pip install 'epicsx[bench]'", 2)
    return 0
