"""Runs a script and judges it; a second time where pyepics may have had its day."""

from __future__ import annotations

from oracle.compare import Difference, Verdict, judge, without_chance
from oracle.runner import Seen, oracle_ioc, run


def examine(
    script: str, known: list[Difference], repeater_port: int | None = None
) -> tuple[Verdict, Seen, Seen]:
    """The verdict on a script, and what pyepics and epicsx have seen in it.

    pyepics leaves the order of some events to chance, and now and then hangs in its libca. So what a first run cannot
    explain is looked at once more, on another IOC. What epicsx itself then answers differently stays a fault: epicsx
    has no right to chance.
    """
    with oracle_ioc(script, repeater_port) as ioc:
        pyepics, epicsx = run(script, ioc)
    verdict = judge(script, pyepics, epicsx, known)
    if not verdict.faults:
        return verdict, pyepics, epicsx
    with oracle_ioc(script, repeater_port) as ioc:
        pyepics, again = run(script, ioc)
    second = judge(script, pyepics, again, known)
    return without_chance(verdict, second, epicsx, again), pyepics, again
