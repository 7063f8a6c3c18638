"""`Scaler`: its methods, by all their names, and what reaches the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from support import wait_until

from epicsx.devices import Scaler
from epicsx.testing import PVSet

PVS = {
    "DEV:sc.RTYP": "scaler",
    "DEV:sc.CNT": {"value": 0, "states": ["Done", "Count"], "returns": 0.1},
    "DEV:sc.CONT": {"value": 1, "states": ["OneShot", "AutoCount"]},
    "DEV:sc.TP": 1.0,
    "DEV:sc.T": 0.5,
    "DEV:sc.VAL": 0.5,
    "DEV:sc_calcEnable.VAL": {"value": 0, "states": ["Disable", "Enable"]},
    **{f"DEV:sc.NM{i}": f"chan {i}" for i in range(1, 5)},
    **{f"DEV:sc.S{i}": 100 * i for i in range(1, 5)},
    **{f"DEV:sc_calc{i}.VAL": i / 4 for i in range(1, 5)},
    **{f"DEV:sc_calc{i}.CALC": "A" for i in range(1, 5)},
}


def made() -> Scaler:
    return Scaler("DEV:sc", nchan=4)


def test_reads_names_counts_and_calculations(pvs: PVSet) -> None:
    scaler = made()
    assert scaler.getNames() == ["chan 1", "chan 2", "chan 3", "chan 4"]
    assert scaler.Read() == [100, 200, 300, 400]
    assert scaler.Read(use_calc=True) == [0.25, 0.5, 0.75, 1.0]
    assert scaler.TP == 1.0
    assert scaler.get("CONT", as_string=True) == "AutoCount"


def test_has_the_attributes_of_pyepics(pvs: PVSet) -> None:
    scaler = made()
    channels = [f"{name}{i}" for i in range(1, 5) for name in ("NM", "S", "calc", "expr")]
    assert set(scaler._pvs) == {"CNT", "CONT", "TP", "T", "VAL", "calc_enable", *channels}
    assert scaler._pvs["expr3"].pvname == "DEV:sc_calc3.CALC"
    with pytest.raises(AttributeError, match="Scaler has no attribute NOSUCH"):
        scaler.NOSUCH  # noqa: B018
    with pytest.raises(AttributeError, match="Scaler has no attribute NOSUCH"):
        scaler.NOSUCH = 1


@pytest.mark.parametrize(
    ("call", "put"),
    [
        (lambda s: s.OneShotMode(), ("DEV:sc.CONT", 0)),
        (lambda s: s.AutoCountMode(), ("DEV:sc.CONT", 1)),
        (lambda s: s.CountTime(2.5), ("DEV:sc.TP", 2.5)),
        (lambda s: s.CountTime(t=3.5), ("DEV:sc.TP", 3.5)),
        (lambda s: s.EnableCalcs(), ("DEV:sc_calcEnable.VAL", 1)),
        (lambda s: s.enableCalcs(), ("DEV:sc_calcEnable.VAL", 1)),
        (lambda s: s.setCalc(2, "B-A/10"), ("DEV:sc_calc2.CALC", "B-A/10")),
        (lambda s: s.setCalc(i=3, s="C"), ("DEV:sc_calc3.CALC", "C")),
        (lambda s: setattr(s, "TP", 4.5), ("DEV:sc.TP", 4.5)),
    ],
)
def test_writes(pvs: PVSet, call: Callable[[Scaler], Any], put: tuple[str, Any]) -> None:
    assert call(made()) is None
    assert wait_until(lambda: pvs.puts) == [put]


def test_counts_and_waits(pvs: PVSet) -> None:
    scaler = made()
    scaler.Count(0.1, wait=True)
    assert pvs.puts == [("DEV:sc.TP", 0.1), ("DEV:sc.CNT", 1)]
    assert pvs["DEV:sc.CNT"] == 0  # it has counted
    scaler.Count(t=0.2, wait=True)  # type: ignore[call-arg]
    assert pvs["DEV:sc.TP"] == 0.2
    scaler.Count()
    assert wait_until(lambda: len(pvs.puts) == 5)
    assert pvs.puts[-1] == ("DEV:sc.CNT", 1)
    wait_until(lambda: pvs["DEV:sc.CNT"] == 0)


def test_reads_with_the_old_keyword(pvs: PVSet) -> None:
    scaler = made()
    assert scaler.Read(use_calcs=True) == [0.25, 0.5, 0.75, 1.0]  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="both 'use_calcs' and 'use_calc'"):
        scaler.Read(use_calc=True, use_calcs=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiple values"):
        scaler.CountTime(1.0, t=2.0)  # type: ignore[call-arg]


def test_old_names_do_not_show_in_the_signatures() -> None:
    assert str(inspect.signature(Scaler.Read)).startswith("(self, use_calc: 'bool' = False)")


def test_does_what_pyepics_does(both: Callable[[str], Any]) -> None:
    found = both(
        """
        s = devices.Scaler('DEV:sc', nchan=4)
        print(s)
        for attr in sorted(s._pvs): print(attr)
        print(s.getNames(), s.Read(), s.Read(use_calc=True))
        print(s.OneShotMode(), s.setCalc(2, 'B/2'), s.EnableCalcs(), s.CountTime(0.25))
        print(settled(s, 'CONT', 0), s.Count(0.125, wait=True), settled(s, 'TP', 0.125))
        print(s.get('TP'), s.PV('CONT').get(as_string=True))
        print(s.AutoCountMode(), hasattr(s, 'NOSUCH'))
        s.PV('TP').put(2, wait=True)
        """
    )
    found.assert_same()
    assert len(found["epics"][1]) == 8
