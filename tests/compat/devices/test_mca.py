"""`MCA`, `ROI`, `DXP`, `MultiXMAP`: their methods, and what reaches the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import wait_until

from epicsx.devices import DXP, MCA, ROI, Mca, MultiXMAP
from epicsx.devices.mca import MAX_ROIS
from epicsx.testing import PVSet

SPECTRUM = [2] * 20 + [12] * 5 + [2] * 15
# Offset, slope and quadratic term of the two MCAs.
CALIB = {1: (0.0, 0.01, 0.0), 2: (0.1, 0.02, 0.0)}


def _mca(i: int) -> dict[str, Any]:
    name = f"DEV:mca{i}."
    calib = dict(zip(("CALO", "CALS", "CALQ"), CALIB[i], strict=True))
    return {
        **{name + attr: 0.0 for attr in MCA._attrs},
        **{name + attr: value for attr, value in calib.items()},
        name + "EGU": "keV",
        name + "TTH": 10.0,
        name + "VAL": {"value": SPECTRUM, "size": 64},
        name.rstrip("."): {"value": SPECTRUM, "size": 64},
        **{f"{name}R{r}NM": "" for r in range(MAX_ROIS)},
        **{f"{name}R{r}{end}": -1 for r in range(MAX_ROIS) for end in ("LO", "HI")},
        **{f"{name}R{r}{end}": r + 0.5 for r in range(MAX_ROIS) for end in ("", "N")},
    }


FILE = "DEV:netCDF1:"
PVS: dict[str, Any] = {
    **_mca(1),
    **_mca(2),
    **{f"DEV:dxp{i}:{attr}": i * 1.5 for i in (1, 2) for attr in DXP._attrs},
    **{f"DEV:dxp{i}:CurrentPixel": 5 for i in (1, 2)},
    "DEV:dxp1:PresetMode": {"value": 1, "states": ["No preset", "Real time"]},
    "DEV:dxp2:PresetMode": {"value": 0, "states": ["No preset", "Real time"]},
    **{f"DEV:{attr}": 0 for attr in MultiXMAP.attrs},
    "DEV:PixelsPerBuffer_RBV": 4,
    "DEV:PixelsPerRun": 5,
    "DEV:BufferSize_RBV": 20_000,
    **{FILE + attr: 0 for attr in MultiXMAP.pathattrs},
    FILE + "ArraySize0_RBV": 20_000,
    FILE + "FileNumber": 7,
    FILE + "FileNumber_RBV": 7,
    FILE + "FilePath": {"value": "/data/", "size": 256},
    FILE + "FilePath_RBV": {"value": "/data/", "size": 256},
    FILE + "FileName": {"value": "run", "size": 256},
    FILE + "FileName_RBV": {"value": "run", "size": 256},
    FILE + "FileTemplate": {"value": "%s%s_%3.3d.nc", "size": 256},
    FILE + "FileTemplate_RBV": {"value": "%s%s_%3.3d.nc", "size": 256},
    FILE + "FullFileName_RBV": {"value": "/data/run_006.nc", "size": 256},
}


def set_rois(pvs: PVSet, *rois: tuple[str, int, int], mca: int = 1) -> None:
    for i, roi in enumerate(rois):
        for end, value in zip(("NM", "LO", "HI"), roi, strict=True):
            pvs.write(f"DEV:mca{mca}.R{i}{end}", value)


def rois(pvs: PVSet, mca: int = 1) -> list[tuple[str, int, int]]:
    """The regions that the server has, up to the first that is none."""
    found = []
    for i in range(MAX_ROIS):
        name, low, high = pvs.read(*(f"DEV:mca{mca}.R{i}{end}" for end in ("NM", "LO", "HI")))
        if (name, low, high) == ("", -1, -1):
            break
        found.append((name, low, high))
    return found


IRON, COPPER, ZINC = ("Fe Ka", 10, 14), ("Cu Ka", 20, 24), ("Zn Ka", 30, 34)


# ------------------------------------------------------------------------------------- ROI


def test_roi(pvs: PVSet) -> None:
    set_rois(pvs, COPPER, IRON)
    roi, other = ROI("DEV:mca1"), ROI("DEV:mca1", roi=1)
    assert (roi.name, roi.left, roi.right, roi.NM, roi.LO, roi.HI) == (*COPPER, *COPPER)
    assert (roi.center, roi.width, roi.address) == (22, 4, "DEV:mca1.R0")
    assert repr(roi) == "<ROI 'DEV:mca1.R0', name='Cu Ka', range=[20:24]>"
    assert (roi.total, roi.sum, roi.net, other.total) == (0.5, 0.5, 0.5, 1.5)
    assert other < roi
    assert other <= roi
    assert roi > other
    assert roi >= other
    assert roi != other
    assert roi == ROI("DEV:mca1")
    assert roi != ROI("DEV:mca1", bgr_width=4)
    roi.left = 21
    roi.name = "copper"
    wait_until(lambda: rois(pvs)[0] == ("copper", 21, 24))
    roi.clear()
    wait_until(lambda: rois(pvs) == [])


def test_counts_of_a_spectrum(pvs: PVSet) -> None:
    set_rois(pvs, COPPER, ("edge", 0, 39))
    for data_pv in ("DEV:mca1.VAL", MCA("DEV:mca1")._pvs["VAL"]):
        roi = ROI("DEV:mca1", data_pv=data_pv)
        assert roi.total == 60
        assert roi.net == 60 - 2 * 4
    assert roi.get_counts(np.ones(40)) == 5
    assert roi.get_counts(np.ones(40), net=True) == 1
    assert ROI("DEV:mca1", roi=1).get_counts(np.array(SPECTRUM), net=True) == sum(SPECTRUM)


# ------------------------------------------------------------------------------------- MCA


@pytest.mark.parametrize(("prefix", "mca"), [("DEV:mca1", None), ("DEV:mca1.", None), ("DEV:", 1)])
def test_mca(pvs: PVSet, prefix: str, mca: int | None) -> None:
    device = MCA(prefix, mca=mca)
    assert device._prefix == "DEV:mca1."
    assert device.get_calib() == [0.0, 0.01, 0.0]
    assert device.get_energy().tolist() == pytest.approx([0.01 * i for i in range(40)])
    assert device.VAL.tolist() == SPECTRUM
    assert device.NUSE == 0.0
    assert set(device.get_all()) == {*MCA._attrs, "VAL"}
    device.PRTM = 1.5
    wait_until(lambda: pvs.puts == [("DEV:mca1.PRTM", 1.5)])


def test_mca_of_2011(pvs: PVSet) -> None:
    device = Mca("DEV:mca2.")
    assert device.Read().tolist() == SPECTRUM
    assert device.calibratio() == (0.1, 0.02, 0.0, 10.0)


def test_finds_its_rois(pvs: PVSet) -> None:
    device = MCA("DEV:mca1", data_pv="DEV:mca1.VAL")
    assert device.get_rois() == []
    set_rois(pvs, COPPER, IRON)
    found = device.get_rois()
    assert [roi.NM for roi in found] == ["Cu Ka", "Fe Ka"]
    assert found is device.rois
    assert found[0].total == 60
    assert len(device.get_rois(nrois=1)) == 1
    device.clear_rois()
    assert device.rois == []
    wait_until(lambda: rois(pvs) == [])


def test_adds_and_removes_rois_in_order(pvs: PVSet) -> None:
    device = MCA("DEV:mca1")
    for name, low, high in (COPPER, ZINC, IRON):
        device.add_roi(f" {name} ", low, high)
    device.add_roi("nowhere", -1, 5)
    wait_until(lambda: rois(pvs) == [IRON, COPPER, ZINC])
    assert len(device.rois) == 3
    device.del_roi(" cu KA")
    wait_until(lambda: rois(pvs) == [IRON, ZINC])
    set_rois(pvs, *(("full", i, i + 1) for i in range(MAX_ROIS)))
    with pytest.raises(ValueError, match="too many ROIs - cannot add more 32/32"):
        device.add_roi("one more", 1, 2)


def test_rois_follow_the_energy(pvs: PVSet) -> None:
    set_rois(pvs, IRON, COPPER, ZINC)
    first, second = MCA("DEV:mca1"), MCA("DEV:mca2")
    second.set_rois(first.get_rois(), calib=first.get_calib())
    # Channel 20 of the first is at 0.2 keV, which is (0.2 - 0.1) / 0.02 = 5 of the second.
    wait_until(lambda: rois(pvs, 2) == [("Fe Ka", 0, 2), ("Cu Ka", 5, 7), ("Zn Ka", 10, 12)])
    second.add_roi("Ga", 38, 40, calib=first.get_calib())
    wait_until(lambda: rois(pvs, 2)[3:] == [("Ga", 14, 15)])
    second.set_rois(first.get_rois())
    wait_until(lambda: rois(pvs, 2) == [IRON, COPPER, ZINC])


def test_a_quadratic_calibration(pvs: PVSet) -> None:
    for quad in (1e-4, -1e-5):
        pvs.write("DEV:mca2.CALQ", quad)
        pvs.write("DEV:mca2.CALO", 0.0)
        device = MCA("DEV:mca2")
        energies = device.get_energy()
        device.set_rois([])
        device.add_roi("there", 3, 30, calib=(0.0, energies[30] / 30))
        low = int(np.abs(energies - 3 * energies[30] / 30).argmin())
        wait_until(lambda low=low: rois(pvs, 2) == [("there", low, 30)])  # type: ignore[misc]


def test_mca_does_what_pyepics_does(both: Callable[[str], Any]) -> None:
    found = both(
        """
        m = devices.MCA('DEV:', mca=1)
        print(m, sorted(m._pvs), m.get_calib(), list(m.get_energy()), m.get_rois())
        for roi, limits in enumerate((('Cu', 20, 24), ('Fe', 10, 14))):
            for end, value in zip(('NM', 'LO', 'HI'), limits):
                epics.caput(f'DEV:mca1.R{roi}{end}', value, wait=True)
                settled(m, f'R{roi}{end}', value)
        print([(r.NM, r.LO, r.HI, r.total, r.net, r.center, r.width) for r in m.get_rois()])
        m2 = devices.MCA('DEV:mca2', data_pv='DEV:mca2.VAL')
        m2.PV('CALO').put(0, wait=True)
        settled(m2, 'CALO', 0)
        print(m2.get_calib(), m2.set_rois(m.get_rois(), calib=m.get_calib()))
        for end, value in (('NM', 'Fe'), ('LO', 5), ('HI', 7)):
            settled(m2, f'R0{end}', value)
        r = m2.get_rois()[0]
        print(r, [float(r.get_counts(net=net)) for net in (False, True)])
        m2.PV('TTH').put(2, wait=True)
        """
    )
    found.assert_same(puts=False)  # pyepics writes some twice
    assert found["epicsx"][2]["DEV:mca2.R1LO"] == 10


# ------------------------------------------------------------------------------- MultiXMAP


class XMAP(MultiXMAP):
    """For a server that needs no time."""

    _settle = 0.02


def xmap(pvs: PVSet) -> XMAP:
    return XMAP("DEV:", nmca=2)


def test_electronics(pvs: PVSet) -> None:
    dxp = DXP("DEV:", mca=2)
    assert dxp._prefix == "DEV:dxp2:"
    assert dxp.get_all() == {}
    assert (dxp.MaxEnergy, dxp.get("PresetMode", as_string=True)) == (3.0, "No preset")


CONFIG = [
    "[rois]",
    "ROI00 = Fe Ka | 10 14 0 2",
    "ROI01 = Cu Ka | 20 24 -1 -1",
    "[calibration]",
    "OFFSET = 0 0.1 ",
    "SLOPE  = 0.01 0.02 ",
    "QUAD   = 0 0 ",
    "[dxp]",
    "PreampGain = 1.5 3",
]


def test_saves_and_restores_its_settings(pvs: PVSet, tmp_path: Path) -> None:
    set_rois(pvs, IRON, COPPER)
    set_rois(pvs, ("Fe Ka", 0, 2), mca=2)
    device = xmap(pvs)
    assert device.get_calib() == [list(CALIB[1]), list(CALIB[2])]
    assert [len(each) for each in device.get_rois()] == [2, 1]
    lines = device.roi_calib_info()
    assert [line.replace("1.5 3.0", "1.5 3") for line in lines[: len(CONFIG)]][:-1] == CONFIG[:-1]
    assert "PresetMode = Real_time No_preset" in lines
    assert len(lines) == len(CONFIG) - 1 + len(DXP._attrs)
    path = tmp_path / "config"
    text = device.Write_CurrentConfig(path)
    assert path.read_text() == text
    again = device.Write_CurrentConfig()
    assert again.splitlines()[1:] == text.splitlines()[1:]  # the first one tells the time
    assert text.splitlines()[1:5] == [
        "[general]",
        "prefix= DEV:",
        "nmcas = 2",
        "filesaver= netCDF1:",
    ]
    device.mcas[0].clear_rois()
    set_rois(pvs, ZINC, ZINC, mca=2)
    device.restore_rois(path)
    wait_until(lambda: rois(pvs) == [IRON, COPPER])
    wait_until(lambda: rois(pvs, 2) == [("Fe Ka", 0, 2), ("Cu Ka", 5, 7)])


def test_acquires(pvs: PVSet) -> None:
    device = xmap(pvs)
    device.start()
    device.stop()
    device.next_pixel()
    device.SCAMode()
    wait_until(lambda: len(pvs.puts) == 5)
    assert pvs.puts == [
        *(("DEV:EraseStart", 1), ("DEV:EraseStart", 1)),  # it did not start
        *(("DEV:StopAll", 1), ("DEV:NextPixel", 1), ("DEV:CollectMode", 2)),
    ]
    pvs.write("DEV:Acquiring", 1)
    pvs.write("DEV:EraseStart", 0)
    wait_until(lambda: device.EraseStart == 0)
    device.start()
    wait_until(lambda: len(pvs.puts) >= 6)
    assert len(pvs.puts) == 6
    assert device.readmca(1).tolist() == SPECTRUM


def test_finishes_pixels(pvs: PVSet, capsys: pytest.CaptureFixture[str]) -> None:
    device = xmap(pvs)
    assert device.finish_pixels() == (True, 0)
    assert pvs.puts == []
    pvs.write("DEV:dxp1:CurrentPixel", 3)
    assert device.finish_pixels(timeout=0.05) == (False, 2)
    assert capsys.readouterr().out == "XMAP needs to finish pixels  3  /  5\n"
    wait_until(lambda: pvs.puts == [("DEV:NextPixel", 1)] * 2 + [(FILE + "Capture", 0)])


def test_modes(pvs: PVSet) -> None:
    device = xmap(pvs)
    device.MCAMode(filename="map", filenumber=3, npulses=10)
    names = (
        "AutoApply",
        "StopAll",
        "CollectMode",
        "PixelsPerRun",
        "NextPixel",
        "SyncCount",
        "Apply",
    )
    wait_until(lambda: pvs.read(*(f"DEV:{name}" for name in names)) == [1, 1, 1, 10, 1, 1, 1])
    files = ("FileWriteMode", "AutoIncrement", "FileNumber", "FileName", "NumCapture")
    wait_until(lambda: pvs.read(*(FILE + name for name in files)) == [2, 0, 3, "map", 3])
    device.MCAMode(npulses=1)
    wait_until(lambda: pvs.read("DEV:PixelsPerRun", FILE + "AutoIncrement") == [2, 1])
    pvs.write("DEV:BufferSize_RBV", 100)
    device.SpectraMode()
    wait_until(lambda: pvs["DEV:CollectMode"] == 0)


def test_files(pvs: PVSet) -> None:
    device = xmap(pvs)
    device.nextFileNumber()
    device.setFilePath("/new/")
    device.setFileTemplate("%s%s_%d")
    device.setFileName("next")
    device.setFileNumCapture(5)
    device.FileCaptureOn()
    expected = [
        *(("AutoIncrement", 0), ("FileNumber", 8), ("FilePath", "/new/")),
        *(("FileTemplate", "%s%s_%d"), ("FileName", "next"), ("NumCapture", 5), ("Capture", 1)),
    ]
    wait_until(lambda: pvs.puts == [(FILE + attr, value) for attr, value in expected])
    wait_until(lambda: device.getFileTemplate() == "%s%s_%d")
    wait_until(lambda: (device.getFileName(), device.getFilePath()) == ("next", "/new/"))
    assert device.getFileNameByIndex(12) == "/new/next_12"
    wait_until(lambda: device.getFileNumber() == 8)
    assert device.getLastFileName() == "/data/run_006.nc"
    assert device.FileWriteComplete() is True
    pvs.write(FILE + "WriteFile_RBV", 1)
    wait_until(lambda: not device.FileWriteComplete())
    assert device.FileNumber == 8
    assert device._pvs["Capture"].pvname == FILE + "Capture"
