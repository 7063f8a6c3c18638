"""What a module of the catalogue uses: `scenario`, `Figure`, and the `Room` that each scenario is given.

A scenario is a function of a `Room`. It does its fault, asserts what is expected and gives the figure. It runs in a
process of its own (`faults.run`), under epicsx or pyepics, and its parent (`faults.runner`) ends it at its limit.

    @scenario("C1", how="IOC killed", expected="all are told", limit=40, quick=True)
    def c1(room: Room) -> Figure:
        ...
        return Figure("100 told after 21 ms", seconds=0.021)

    @c1.pyepics
    def c1_pyepics(room: Room) -> Figure: ...

One that talks to PVs by `Room.pv` alone, or asks `Room.face`, is written once for both libraries: `c1.both()`.

Modules of the catalogue import neither `epics`, nor at their top more of epicsx than `import epicsx`, which loads no
libca: whatever is chosen in the environment must come first, and pyepics shall be alone in its process.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faults.room import Room

MODULES = {
    "C": ("connection", "unreached"),
    "D": ("data", "values"),
    "P": ("puts",),
    "L": ("life",),
    "F": ("hostile",),
    "E": ("environment",),
}
"""The modules of the catalogue by the letter of their scenarios, in its order."""
FACES = ("epicsx", "pyepics")

Run = Callable[["Room"], "Figure"]


class NotHeld(AssertionError):
    """What was expected did not come."""


class Figure:
    """What a scenario gives: a text for the table, and numbers by name (seconds, counts, MB)."""

    def __init__(self, text: str, **numbers: float) -> None:
        self.text = text
        self.numbers = numbers


@dataclass
class Scenario:
    """One row of the catalogue; `scenario` makes it.

    Attributes
    ----------
    limit : float, seconds, after which its process is killed, which is a failure
    quick : bool, it is part of `make test`
    ports : int, how many servers its clients search: `Room.port` gives the ports
    env : the environment of its process; a function is called when it starts
    loud : bool, tracebacks on standard error are part of it; else they are a failure of epicsx
    needs : str, a build of epicsx without which it is known not to hold, as "hardened"
    without : str, why it makes no sense for pyepics
    """

    id: str
    how: str
    expected: str
    limit: float
    quick: bool
    ports: int
    env: Mapping[str, str] | Callable[[], Mapping[str, str]]
    needs: str
    loud: bool
    run: Run
    other: Run | None = None
    without: str = ""

    def both(self) -> Scenario:
        """The same function for pyepics: one that talks to PVs by `Room.pv`, or asks `Room.face`."""
        self.other = self.run
        return self

    def pyepics(self, function: Run) -> Run:
        """Decorate what does the same with pyepics; it says `room.check` instead of asserting."""
        self.other = function
        return function

    def without_pyepics(self, why: str) -> None:
        """Say why there is nothing to run under pyepics."""
        self.without = why

    def environment(self) -> dict[str, str]:
        """What its process finds in its environment, beside the private ports."""
        return dict(self.env() if callable(self.env) else self.env)

    def function(self, face: str) -> Run | None:
        """What runs under 'epicsx' or 'pyepics'."""
        return self.run if face == "epicsx" else self.other


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    id: str,
    *,
    how: str,
    expected: str,
    limit: float,
    quick: bool = False,
    ports: int = 1,
    env: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
    needs: str = "",
    loud: bool = False,
) -> Callable[[Run], Scenario]:
    """Make a function a scenario of the catalogue: see `Scenario`."""

    def register(run: Run) -> Scenario:
        if id in SCENARIOS:
            raise ValueError(f"{id} is there twice")
        made = Scenario(id, how, expected, limit, quick, ports, env or {}, needs, loud, run)
        SCENARIOS[id] = made
        return made

    return register


def catalogue() -> dict[str, Scenario]:
    """All scenarios by id, in the order of the catalogue: by letter, then number."""
    for name in itertools.chain.from_iterable(MODULES.values()):
        if importlib.util.find_spec(f"faults.{name}") is not None:
            importlib.import_module(f"faults.{name}")
    letters = list(MODULES)

    def place(id: str) -> tuple[int, int, str]:
        return letters.index(id[0]), int(number_of(id)[1:]), id

    there = (id for id in SCENARIOS if id[0] in MODULES)  # the runner's own test has others
    return {id: SCENARIOS[id] for id in sorted(there, key=place)}


def number_of(id: str) -> str:
    """The catalogue's number of a scenario: C8 of C8a and C8b."""
    return id.rstrip("abcdef")


@dataclass
class Outcome:
    """What came of one run of a scenario.

    Attributes
    ----------
    held : bool, what was expected came, and the process ended well
    text : str, the figure
    missed : list of str, what was not as expected
    ended : str, how its process ended: "" if it returned 0 and told a result, else "hangs", "SIGSEGV", "return code 1",
        "ends without a result"
    measured : str, the day, as 2026-11-26
    long : bool, it was the long form
    library, machine : str, what was run, as "pyepics 3.5.10", and on what
    """

    id: str
    face: str
    held: bool = False
    text: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    ended: str = ""
    seconds: float = 0.0
    stderr: str = ""
    measured: str = ""
    long: bool = False
    library: str = ""
    machine: str = ""

    @property
    def said(self) -> str:
        """One line: what did not hold, then the figure."""
        parts = [*self.missed, self.text]
        if self.ended:
            parts.insert(0, self.ended)
        return "; ".join(filter(None, parts))
