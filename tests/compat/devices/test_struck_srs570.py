"""`Struck`, `SRS570`: their methods, and what reaches the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

import epicsx
from epicsx.devices import MCA, SRS570, Struck
from epicsx.devices.srs570 import VALID_STEPS, VALID_UNITS
from epicsx.errors import BadValueError
from epicsx.testing import PVSet

NCHAN = 3
SPECTRA = {1: [50_000, 100_000, 150_025, 7], 2: [1, 2, 3], 3: [0, 0, 0, 0]}
PVS: dict[str, Any] = {
    **{f"DEV:str:{attr}": 0 for attr in Struck.attrs},
    "DEV:str:PresetReal": 5.5,
    "DEV:str:Dwell": 1.0,
    "DEV:str:Model": "SIS3820",
    "DEV:str:InitialChannelAdvance": 0,
    "DEV:sc.CONT": 1,
    **{f"DEV:sc.{attr}": 0 for attr in ("CNT", "TP", "T", "VAL")},
    "DEV:sc_calcEnable.VAL": 0,
    **{f"DEV:sc.NM{i}": name for i, name in enumerate(("clock", "ion chamber", ""), 1)},
    **{f"DEV:sc.S{i}": i for i in range(1, NCHAN + 1)},
    **{
        f"DEV:sc_calc{i}.{f}": v
        for i in range(1, NCHAN + 1)
        for f, v in (("VAL", 0.0), ("CALC", ""))
    },
    **{f"DEV:str:mca{i}{end}": spectrum for i, spectrum in SPECTRA.items() for end in ("", ".VAL")},
    **{f"DEV:str:mca{i}.NORD": len(spectrum) for i, spectrum in SPECTRA.items()},
    **{
        f"DEV:str:mca{i}.{attr}": "keV" if attr == "EGU" else 0.0
        for i in SPECTRA
        for attr in MCA._attrs
    },
    **{f"DEV:srs:{attr}": 0 for attr in SRS570.attrs},
}


def struck(pvs: PVSet, scaler: str | None = "DEV:sc", **options: Any) -> Struck:
    return Struck("DEV:str", scaler=scaler, nchan=NCHAN, **options)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda s: s.ExternalMode(),
            {"str:ChannelAdvance": 1, "str:PresetReal": 0, "str:Prescale": 1, "sc.CONT": 0},
        ),
        (
            lambda s: s.ExternalMode(1, initialadvance=1, realtime=None, prescale=8),
            {
                "str:ChannelAdvance": 1,
                "sc.CONT": 0,
                "str:CountOnStart": 1,
                "str:InitialChannelAdvance": 1,
                "str:Prescale": 8,
                "str:PresetReal": 5.5,
            },
        ),
        (lambda s: s.InternalMode(prescale=3), {"str:Prescale": 3, "sc.CONT": 0}),
        (lambda s: s.InternalMode(), {"str:ChannelAdvance": 0, "sc.CONT": 0}),
        (lambda s: s.setPresetReal(2.5), {"str:PresetReal": 2.5}),
        (lambda s: s.setDwell(0.5), {"str:Dwell": 0.5}),
        (lambda s: s.start(), {"str:EraseStart": 1, "sc.CONT": 0}),
        (lambda s: s.stop(), {"str:StopAll": 1}),
        (lambda s: s.erase(), {"str:EraseAll": 1}),
    ],
)
def test_writes(pvs: PVSet, call: Callable[[Struck], Any], expected: dict[str, Any]) -> None:
    assert call(struck(pvs)) == 1
    names = [f"DEV:{name}" for name in expected]
    wait_until(lambda: pvs.read(*names) == list(expected.values()))


def test_the_scaler_is_not_needed(pvs: PVSet) -> None:
    alone = struck(pvs, None)
    assert alone.scaler is None
    alone.AutoCountMode()
    for method in (alone.ExternalMode, alone.InternalMode, alone.start):
        assert method() == 1
    wait_until(lambda: pvs["DEV:str:EraseStart"] == 1)
    assert pvs["DEV:sc.CONT"] == 1
    with_one = struck(pvs)
    with_one.start()
    wait_until(lambda: pvs["DEV:sc.CONT"] == 0)
    with_one.AutoCountMode()
    wait_until(lambda: pvs["DEV:sc.CONT"] == 1)


def test_reads(pvs: PVSet) -> None:
    device = struck(pvs)
    assert device.Model == "SIS3820"
    assert device.mcaNread(2) == 3
    assert device.readmca(2).tolist() == [1, 2, 3]
    assert device.readmca(n=1, count=2).tolist() == [50_000, 100_000]  # type: ignore[call-arg]
    assert [each.tolist() for each in device.read_all_mcas()] == list(SPECTRA.values())
    assert [each._prefix for each in device.mcas] == [f"DEV:str:mca{i}." for i in SPECTRA]
    with pytest.raises(AttributeError, match="Struck has no attribute NOSUCH"):
        device.NOSUCH  # noqa: B018


def test_saves(pvs: PVSet, tmp_path: Path) -> None:
    path = tmp_path / "struck.dat"
    assert struck(pvs).saveMCAdata(path) == (2, 3)
    assert path.read_text() == (
        "# Struck MCA data: DEV:str:\n# Nchannels, Nmca = 3, 2\n# Time in microseconds\n"
        "#----------------------\n# DEV:sc.S1 | DEV:sc.S2\n# clock | ion_chamber\n"
        "     1000         1 \n     2000         2 \n     3000         3 \n"
    )
    assert struck(pvs).saveMCAdata(path, mcas=[2], npts=2) == (1, 2)
    assert path.read_text().splitlines()[-2:] == ["        1 ", "        2 "]
    assert struck(pvs, clockrate=10).saveMCAdata(path, ignore_prefix="ion") == (1, 4)
    assert path.read_text().splitlines()[-1] == "        0 "
    assert struck(pvs, None).saveMCAdata(path) == (3, 3)
    assert path.read_text().splitlines()[5] == "# MCA1 | MCA2 | MCA3"


def test_struck_does_what_pyepics_does(both: Callable[[str], Any], tmp_path: Path) -> None:
    found = both(
        f"""
        path = {str(tmp_path / "data")!r}
        s = devices.Struck('DEV:str', scaler='DEV:sc', nchan=3)
        print(s, sorted(s._pvs), s.Model, s.mcaNread(2), s.readmca(1))
        print(s.ExternalMode(countonstart=1), s.InternalMode(prescale=2), s.setDwell(0.5))
        print(s.setPresetReal(3), s.start(), s.stop(), s.erase(), s.AutoCountMode())
        print(s.saveMCAdata(path), open(path).read(), len(s.read_all_mcas()))
        s.PV('Dwell').put(2, wait=True)
        """
    )
    found.assert_same()


# ---------------------------------------------------------------------------------- SRS570


def test_initialises(pvs: PVSet) -> None:
    amplifier = SRS570("DEV:srs:")
    expected = [("gain_mode", 0), ("filter_type", 0), ("invert_on", 0), ("bias_put", 0)]
    wait_until(lambda: pvs.puts == [(f"DEV:srs:{attr}", value) for attr, value in expected])
    amplifier.initialize(bias=5, gain_mode=2, filter_type=3, invert=True)
    expected += [("gain_mode", 2), ("filter_type", 3), ("invert_on", 1), ("bias_put", 5)]
    wait_until(lambda: pvs.puts == [(f"DEV:srs:{attr}", value) for attr, value in expected])


@pytest.mark.parametrize(
    ("value", "units", "offset"),
    [
        (200, "nA/V", (20, "nA/V")),
        (2, "uA/V", (200, "nA/V")),
        (10, "pA/V", (1, "pA/V")),
        (5, "pA/V", (1, "pA/V")),  # there is no smaller offset
    ],
)
def test_sensitivity_and_offset(
    pvs: PVSet, value: int, units: str, offset: tuple[int, str]
) -> None:
    SRS570("DEV:srs:").set_sensitivity(value, units, offset=12)
    wait_until(lambda: pvs["DEV:srs:init.PROC"] == 1)
    sens_num, sens_unit, offset_num, offset_unit, put = pvs.read(
        *(f"DEV:srs:{attr}" for attr in ("sens_num", "sens_unit", "offset_num", "offset_unit")),
        "DEV:srs:off_u_put",
    )
    assert (VALID_STEPS[sens_num], VALID_UNITS[sens_unit]) == (value, units)
    assert (VALID_STEPS[offset_num], VALID_UNITS[offset_unit]) == offset
    assert put == 12


def test_a_sensitivity_that_is_none(pvs: PVSet, capsys: pytest.CaptureFixture[str]) -> None:
    amplifier = SRS570("DEV:srs:")
    amplifier.set_sensitivity(3, "nA/V")
    amplifier.set_sensitivity(1, "A/V")
    assert capsys.readouterr().out == "invalid input\ninvalid input\n"
    epicsx.strict()
    try:
        with pytest.raises(BadValueError, match="no sensitivity of an SR570: 3 nA/V"):
            amplifier.set_sensitivity(3, "nA/V")
    finally:
        epicsx.strict(False)
    amplifier.set_offset(7)
    wait_until(lambda: pvs["DEV:srs:off_u_put"] == 7)
    assert len(pvs.puts) == 5


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        ("increase_sensitivity", (3, 1), (2, 1)),
        ("increase_sensitivity", (0, 1), (8, 0)),
        ("increase_sensitivity", (0, 0), (0, 0)),
        ("decrease_sensitivity", (3, 1), (4, 1)),
        ("decrease_sensitivity", (8, 1), (0, 2)),
        ("decrease_sensitivity", (8, 3), (8, 3)),
    ],
)
def test_steps(pvs: PVSet, method: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    for attr, value in zip(("sens_num", "sens_unit"), before, strict=True):
        pvs.write(f"DEV:srs:{attr}", value)
    getattr(SRS570("DEV:srs:"), method)()
    wait_until(lambda: pvs["DEV:srs:init.PROC"] == 1)
    assert tuple(pvs.read("DEV:srs:sens_num", "DEV:srs:sens_unit")) == after


def test_srs570_does_what_pyepics_does(both: Callable[[str], Any]) -> None:
    found = both(
        """
        s = devices.SRS570('DEV:srs:')
        print(s, sorted(s._pvs), s.get('sens_num'), s.get('sens_unit'))
        print(s.set_sensitivity(50, 'uA/V', offset=3), s.set_sensitivity(4, 'x'))
        settled(s, 'sens_num', 5)
        settled(s, 'sens_unit', 2)
        print(s.increase_sensitivity(), s.initialize(invert=True))
        s.PV('bias_put').put(4, wait=True)
        """
    )
    found.assert_same()
