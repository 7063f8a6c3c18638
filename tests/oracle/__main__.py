"""`python -m tests.oracle`: the parity table, and docs/parity.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from oracle import report
from oracle.compare import read_list
from oracle.examine import examine
from oracle.runner import scripts


def main() -> int:
    """Run the scripts; 1 if anything differs that the list does not explain."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("scripts", nargs="*", help="only these, and no page is written")
    parser.add_argument("--toml", action="store_true", help="print what is not listed as TOML")
    parser.add_argument("--all", action="store_true", help="print every observation")
    given = parser.parse_args()
    known = read_list()
    verdicts = []
    for script in given.scripts or scripts():
        begun = time.monotonic()
        verdict, pyepics, epicsx = examine(script, known)
        if given.all:
            for name, text in pyepics.items():
                print(f"{script}/{name}\n    {text}\n    {epicsx.get(name)}")
        verdicts.append(verdict)
        print(f"{script}: {time.monotonic() - begun:.1f} s", file=sys.stderr)
    for verdict in verdicts:
        if given.toml:
            print(report.as_toml(verdict))
        elif verdict.faults:
            print(verdict.faults + "\n")
    print(report.table(verdicts))
    wrong = report.totals(verdicts)[3]
    if not given.scripts and not wrong:
        report.PAGE.write_text(report.page(verdicts, known), encoding="utf-8")
        print(f"written: {report.PAGE.relative_to(Path.cwd())}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
