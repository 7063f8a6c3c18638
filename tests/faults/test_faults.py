"""The catalogue: each quick scenario is held by epicsx; EPICSX_FAULTS=all runs them all, as `make faults` does."""

from __future__ import annotations

import os

import pytest

from faults.harness import Scenario, catalogue
from faults.runner import run

ALL = os.environ.get("EPICSX_FAULTS") == "all"
CHOSEN = [each for each in catalogue().values() if (ALL or each.quick) and not each.needs]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda each: each.id)
def test_held(chosen: Scenario) -> None:
    outcome = run(chosen, "epicsx")
    print(f"{outcome.id}: {outcome.said} ({outcome.seconds:.1f} s)")
    assert outcome.held, f"{outcome.said}\n--- its stderr ---\n{outcome.stderr[-8000:]}"
