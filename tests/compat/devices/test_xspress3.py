"""`Xspress3`, `Xspress310`, `ADMCA`, `ADMCAROI`: their methods, and what reaches the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import wait_until

from epicsx.devices.ad_mca import ADMCA, ADMCAROI, MAX_CHAN, MAX_ROIS
from epicsx.devices.xspress3 import Xspress3, Xspress310
from epicsx.testing import PVSet

NMCA = 2
SPECTRUM = [2] * 20 + [12] * 5 + [2] * 15
FILES = {
    **dict.fromkeys(("FileNumber", "Capture", "NumCapture", "AutoIncrement"), 0),
    "WriteFile_RBV": 0,
    **{
        f"{attr}{end}": {"value": "", "size": 256}
        for attr in ("FilePath", "FileName")
        for end in ("", "_RBV")
    },
    **{f"FileTemplate{end}": {"value": "%s%s_%d.h5", "size": 256} for end in ("", "_RBV")},
    "FileNumber_RBV": 0,
    "FullFileName_RBV": {"value": "/data/run_0.h5", "size": 256},
    "FileWriteMode": 0,
}


def _detector(prefix: str) -> dict[str, Any]:
    return {
        **{prefix + attr: 0 for attr in Xspress3.det_attrs},
        prefix + "AcquireTime": 0.5,
        prefix + "StatusMessage_RBV": "idle",
    }


def _roi(prefix: str) -> dict[str, Any]:
    values = {"Use": 1, "Name": "", "MinX": 0, "SizeX": 0, "BgdWidth": 2, "Total_RBV": 11.0}
    return {f"{prefix}:{attr}": value for attr, value in {**values, "Net_RBV": 7.0}.items()}


def _mca(i: int) -> dict[str, Any]:
    names = ("CALO", "CALS", "CALQ")
    return {
        **{
            f"DEV:mca{i}.{attr}": value for attr, value in zip(names, (0.0, 0.01, 0.0), strict=True)
        },
        f"DEV:mca{i}.VAL": SPECTRUM,
        **{f"DEV:mca{i}.R{r}NM": "" for r in range(32)},
        **{f"DEV:mca{i}.R{r}{end}": -1 for r in range(32) for end in ("LO", "HI")},
        **{f"DEV:mca{i}.R{r}{end}": 0.0 for r in range(32) for end in ("", "N")},
    }


CHANNELS = range(1, NMCA + 1)
PVS: dict[str, Any] = {
    **_detector("DEV:det1:"),
    **{f"DEV:HDF1:{attr}": value for attr, value in FILES.items()},
    **{f"DEV:MCA{i}:ArrayData": SPECTRUM for i in CHANNELS},
    **{
        k: v
        for i in CHANNELS
        for r in range(1, MAX_ROIS + 1)
        for k, v in _roi(f"DEV:MCA{i}ROI:{r}").items()
    },
    **{
        f"DEV:{name}:{attr}": 1
        for i in CHANNELS
        for name in (f"MCA{i}ROI", f"C{i}SCA")
        for attr in ("TSNumPoints", "TSControl")
    },
    **{f"DEV:C{i}SCA{j}:Value_RBV": 10 * i + j for i in CHANNELS for j in range(1, 9)},
    # the older software
    **_detector("DEV:"),
    **{f"DEV:HDF5:{attr}": value for attr, value in FILES.items()},
    **_mca(1),
    **_mca(2),
    **{
        f"DEV:C{i}_MCA_ROI{r}_{end}": 0
        for i in CHANNELS
        for r in range(1, 6)
        for end in ("LLM", "HLM")
    },
}


def rois(pvs: PVSet, channel: int = 1) -> list[tuple[str, int, int]]:
    """The regions that the server has, up to the first that is none."""
    found = []
    for i in range(1, MAX_ROIS + 1):
        names = (f"DEV:MCA{channel}ROI:{i}:{attr}" for attr in ("Name", "MinX", "SizeX"))
        name, low, size = pvs.read(*names)
        if (name, low, size) == ("", 0, 0):
            break
        found.append((name, low, size))
    return found


def records(pvs: PVSet, i: int) -> list[tuple[str, int, int]]:
    names = [f"DEV:mca{i}.R{r}{end}" for r in range(3) for end in ("NM", "LO", "HI")]
    values = pvs.read(*names)
    return [each for each in zip(*[iter(values)] * 3, strict=True) if each != ("", -1, -1)]


def admca(pvs: PVSet, **options: Any) -> ADMCA:
    return ADMCA("DEV:det1:", data_pv="DEV:MCA1:ArrayData", roi_prefix="DEV:MCA1ROI", **options)


# ---------------------------------------------------------------------------------- ADMCA


def test_region(pvs: PVSet) -> None:
    mca = admca(pvs)
    mca.set_rois([("Cu", 20, 24), ("Fe", 10, 12)])
    roi, other = ADMCAROI("DEV:MCA1ROI", roi=2), ADMCAROI("DEV:MCA1ROI", roi=1)
    assert (roi.name, roi.left, roi.width, roi.sum, roi.net) == ("Cu", 20, 4, 11.0, 7.0)
    assert (roi.right, roi.center, roi.get_right(), roi.get_center()) == (24, 22, 24, 22)
    assert repr(roi) == "<ADMCAROI 'DEV:MCA1ROI:2:', name='Cu', range=[20:24]>"
    assert other < roi
    assert roi >= other
    assert roi != other
    assert roi == ADMCAROI("DEV:MCA1ROI", roi=2)
    assert (roi.get_counts(), roi.get_counts(net=True)) == (11.0, 7.0)
    assert roi.get_counts(np.array(SPECTRUM)) == 60
    assert roi.get_counts(np.array(SPECTRUM), net=True) == 52
    assert mca.get_rois()[1].get_counts() == 60
    roi.right = 30
    wait_until(lambda: pvs["DEV:MCA1ROI:2:SizeX"] == 10)
    roi.center = 20
    wait_until(lambda: pvs["DEV:MCA1ROI:2:MinX"] == 15)
    assert pvs["DEV:MCA1ROI:2:SizeX"] == 10
    roi.set_center(21)
    roi.set_right(26)
    wait_until(lambda: rois(pvs) == [("Fe", 10, 2), ("Cu", 16, 10)])
    roi.clear()
    wait_until(lambda: rois(pvs) == [("Fe", 10, 2)])


def test_regions(pvs: PVSet) -> None:
    mca = admca(pvs)
    mca.add_roi(" Zn ", 30, hi=34)
    mca.add_roi("Fe", 10, wid=2)
    mca.add_roi("edge", 38, hi=500)
    mca.add_roi("nothing", 5)
    wait_until(lambda: rois(pvs) == [("Fe", 10, 2), ("Zn", 30, 4), ("edge", 38, 2)])
    assert [roi.Name for roi in mca.rois] == ["Fe", "Zn", "edge"]
    mca.del_roi("zn")
    wait_until(lambda: rois(pvs) == [("Fe", 10, 2), ("edge", 38, 2)])
    with pytest.raises(ValueError, match="Too many ROIS, only 48 ROIS allowed"):
        mca.set_rois([("x", i, i + 1) for i in range(1, 49)])
    assert len(rois(pvs)) == 2
    mca.set_rois([("b", 8, 9), ("", 1, 2), ("a", 2, 4), ("none", 4, 4)])
    wait_until(lambda: rois(pvs) == [("a", 2, 2), ("b", 8, 1)])
    assert len(mca.get_rois(nrois=1)) == 1
    mca.get_rois()
    mca.clear_rois()
    wait_until(lambda: rois(pvs) == [])


def test_spectrum(pvs: PVSet) -> None:
    mca = admca(pvs, nrois=4)
    assert mca.get_calib() == (0.0, 0.01, 0.0)
    assert mca.get_energy().tolist() == pytest.approx([0.01 * i for i in range(40)])
    assert mca.VAL.tolist() == SPECTRUM
    mca.start()
    wait_until(lambda: pvs["DEV:det1:Acquire"] == 1)
    mca.stop()
    wait_until(lambda: pvs["DEV:det1:Acquire"] == 0)
    without = ADMCA("DEV:det1:")
    assert without.rois == []
    assert len(without.get_energy()) == MAX_CHAN
    assert without.AcquireTime == 0.5


# -------------------------------------------------------------------------------- Xspress3


def xspress3(pvs: PVSet) -> Xspress3:
    return Xspress3("DEV:", nmca=NMCA, fileroot="/data")


def test_attributes(pvs: PVSet) -> None:
    detector = xspress3(pvs)
    assert (detector.StatusMessage_RBV, detector.C2SCA8, detector.AcquireTime) == ("idle", 28, 0.5)
    assert [mca._prefix for mca in detector.mcas] == ["DEV:det1:"] * 2
    assert detector._pvs["SCA2TSControl"].pvname == "DEV:C2SCA:TSControl"
    assert detector._prefix == "DEV:"


@pytest.mark.parametrize(
    ("cls", "camera", "files"), [(Xspress3, "det1:", "HDF1:"), (Xspress310, "", "HDF5:")]
)
def test_starts_stops_and_saves(pvs: PVSet, cls: Any, camera: str, files: str) -> None:
    detector = cls("DEV:", nmca=NMCA, fileroot="/data")
    detector.useExternalTrigger()
    detector.useInternalTrigger()
    detector.setTriggerMode(5)
    detector.start()
    detector.stop()
    detector.start(capture=False)
    expected = [
        *(("TriggerMode", 3), ("TriggerMode", 1), ("TriggerMode", 5)),
        *(("Capture", 1), ("Acquire", 1), ("Acquire", 0), ("Capture", 0), ("Acquire", 1)),
        *(("FilePath", "/data/user"), ("FileName", "run"), ("FileNumber", 3)),
    ]
    detector.setFilePath("user")
    detector.setFileName("run")
    detector.filePut("FileNumber", 3)
    names = [
        (f"DEV:{files if attr.startswith(('Capture', 'File')) else camera}{attr}", value)
        for attr, value in expected
    ]
    wait_until(lambda: pvs.puts == names)
    wait_until(lambda: detector.getFilePath() == "/data/user" and detector.getFileNumber() == 3)
    detector.setFileNumber(4)
    wait_until(lambda: detector.fileGet("FileNumber") == 4)
    detector.nextFileNumber()
    wait_until(lambda: pvs[f"DEV:{files}FileNumber"] == 5)
    wait_until(lambda: detector.getFileName() == "run")
    assert detector.getFileNameByIndex(4) == "/data/userrun_4.h5"
    assert detector.getLastFileName() == "/data/run_0.h5"
    assert detector.FileWriteComplete()


def test_time_series(pvs: PVSet) -> None:
    detector = xspress3(pvs)
    names = [f"DEV:{name}:" for i in CHANNELS for name in (f"MCA{i}ROI", f"C{i}SCA")]
    detector.TimeSeriesCaptureOn(npts=100)
    wait_until(lambda: pvs.read(*(f"{name}TSNumPoints" for name in names)) == [100] * 4)
    wait_until(lambda: pvs.read(*(f"{name}TSControl" for name in names)) == [0] * 4)
    detector.TimeSeriesCaptureOff()
    wait_until(lambda: pvs.read(*(f"{name}TSControl" for name in names)) == [2] * 4)
    detector.TimeSeriesCaptureOn()
    wait_until(lambda: pvs.read(*(f"{name}TSControl" for name in names)) == [0] * 4)


LINES = [
    "[rois]",
    "ROI00 = Fe | 10 12 10 12",
    "ROI01 = Cu | 20 24 20 24",
    "[calibration]",
    "OFFSET = 0.000  0.000  ",
    "SLOPE  = 0.010  0.010  ",
    "QUAD   = 0.000  0.000  ",
    "[dxp]",
]


def test_saves_and_restores_regions(pvs: PVSet, tmp_path: Path) -> None:
    path = tmp_path / "rois.dat"
    path.write_text("\n".join(LINES))
    detector = xspress3(pvs)
    detector.restore_rois(path)
    expected = [("Fe", 10, 2), ("Cu", 20, 4)]
    wait_until(lambda: [rois(pvs, i) for i in CHANNELS] == [expected] * NMCA)
    assert [len(each) for each in detector.get_rois()] == [2, 2]
    assert detector.roi_calib_info() == LINES


def test_saves_and_restores_regions_of_records(pvs: PVSet, tmp_path: Path) -> None:
    path = tmp_path / "rois.dat"
    path.write_text("\n".join(LINES))
    detector = Xspress310("DEV:", nmca=NMCA)
    detector.restore_rois(path)
    expected = [("Fe", 10, 12), ("Cu", 20, 24)]
    wait_until(lambda: [records(pvs, i) for i in CHANNELS] == [expected] * NMCA)
    assert [len(each) for each in detector.get_rois()] == [2, 2]
    assert detector.roi_calib_info() == LINES
    detector.select_rois_to_save([" cu", (5, 9), "unknown"])
    assert detector._save_rois == [" cu", "[5:9]", "unknown", "[50:4050]"]
    ends = [f"{i}_{end}" for i in (1, 2, 3, 4) for end in ("LLM", "HLM")]
    names = [f"DEV:C{channel}_MCA_ROI{end}" for channel in CHANNELS for end in ends]
    limits = [20, 24, 5, 9, 50, 4050, 50, 4050]
    wait_until(lambda: pvs.read(*names) == limits * NMCA)


def test_xspress3_does_what_pyepics_does(both: Callable[[str], Any]) -> None:
    found = both(
        """
        module = importlib.import_module(sys.argv[1] + '.devices.xspress3')
        x = module.Xspress3('DEV', nmca=2, fileroot='/data')
        print(x, sorted(x._pvs), x.get_rois(), x.StatusMessage_RBV, x.getLastFileName())
        print(x.setTriggerMode(2), x.start(), x.stop(), x.TimeSeriesCaptureOn(5))
        print(x.setFilePath('a'), x.setFileName('b'), x.setFileNumber(3), x.FileWriteComplete())
        print(x.roi_calib_info(), [m.get_calib() for m in x.mcas], len(x.mcas[0].get_energy()))
        x.PV('NumImages').put(2, wait=True)
        """
    )
    found.assert_same()
