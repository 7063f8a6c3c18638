"""areaDetector's devices: their methods, and what reaches the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import wait_until

from epicsx.devices import (
    AD_Camera,
    AD_FilePlugin,
    AD_ImagePlugin,
    AD_OverlayPlugin,
    AD_PerkinElmer,
)
from epicsx.devices.ad_base import AD_Base
from epicsx.testing import PVSet

TEXTS = ("FilePath", "FileName", "FileTemplate", "FullFileName", "WriteMessage", "NDArrayPort")
ON_OFF = {"value": 0, "states": ["Done", "Acquire"]}


def _value(attr: str) -> Any:
    if attr.startswith(TEXTS):
        return {"value": f"{attr[:6]}", "size": 256}
    if attr.startswith(("AcquireTime", "AcquirePeriod")):
        return 0.25
    return {"ArrayData": {"value": list(range(12)), "size": 20}, "Acquire": ON_OFF}.get(attr, 1)


PVS: dict[str, Any] = {
    **{f"DEV:cam:{attr}": _value(attr) for attr in AD_Camera.attrs},
    **{f"DEV:file:{attr}": _value(attr) for attr in AD_FilePlugin.attrs},
    **{f"DEV:image:{attr}": _value(attr) for attr in AD_ImagePlugin.attrs},
    **{f"DEV:over:{attr}": _value(attr) for attr in AD_OverlayPlugin.attrs},
    **{f"DEV:cam1:{attr}": _value(attr) for attr in AD_PerkinElmer.camattrs},
    **{f"DEV:netCDF1:{attr}": _value(attr) for attr in AD_PerkinElmer.pathattrs},
    "DEV:netCDF1:FilePath_RBV": {"value": "FilePa", "size": 256},
    "DEV:netCDF1:FileNumber_RBV": 3,
    "DEV:cam1:PEAcquireOffset": {"value": 0, "returns": 0.1},
    "DEV:cam1:PENumOffsetFrames": 2,
    "DEV:cam1:AcquireTime": 0.01,
}


@pytest.mark.parametrize(
    ("cls", "prefix"),
    [
        (AD_Camera, "DEV:cam:"),
        (AD_FilePlugin, "DEV:file:"),
        (AD_ImagePlugin, "DEV:image:"),
        (AD_OverlayPlugin, "DEV:over:"),
    ],
)
def test_attributes(pvs: PVSet, cls: type[AD_Base], prefix: str) -> None:
    device = cls(prefix)
    values = device.get_all()
    assert list(values) == list(cls.attrs)
    for attr, value in values.items():
        assert (value.tolist() if hasattr(value, "tolist") else value) == pvs[prefix + attr], attr
    with pytest.raises(AttributeError, match=f"{cls.__name__} has no attribute NOSUCH"):
        device.NOSUCH  # noqa: B018
    with pytest.raises(KeyError):
        device.ensure_value("NOSUCH", 1)


def test_writes_what_differs(pvs: PVSet) -> None:
    camera = AD_Camera("DEV:cam:")
    assert camera.ensure_value("NumImages", "1") is None  # it is
    assert camera.ensure_value("NumImages", 5, wait=True) is None
    assert camera.ensure_value("TriggerSoftware", 3, wait=True) == 1  # has no readback
    assert pvs.puts == [("DEV:cam:NumImages", 5), ("DEV:cam:TriggerSoftware", 3)]
    wait_until(lambda: camera.NumImages_RBV == 5)
    camera.Acquire = "Acquire"
    wait_until(lambda: pvs["DEV:cam:Acquire"] == 1)
    overlay, image = AD_OverlayPlugin("DEV:over:"), AD_ImagePlugin("DEV:image:")
    overlay.ensure_value("Red", 200, wait=True)
    image.ensure_value("ColorMode", 2, wait=True)
    assert pvs.read("DEV:over:Red_RBV", "DEV:image:ColorMode_RBV") == [200, 2]


def test_camera_does_what_pyepics_does(both: Callable[[str], Any]) -> None:
    found = both(
        """
        c = devices.AD_Camera('DEV:cam:')
        print(c, sorted(c._pvs), c.AcquireTime, c.get('AcquireTime', as_string=True), c.Acquire)
        print(c.ensure_value('NumImages', '1'), c.ensure_value('BinX', 2, wait=True))
        print(c.ensure_value('TriggerSoftware', 1, wait=True))
        f = devices.AD_FilePlugin('DEV:file:')
        print(f.getName(), f.getPath(), f.getTemplate(), f.getNumber(), f.getLastFileName())
        print(f.CaptureOn(), f.CaptureOff(), f.setFileNumber(), f.setFileNumber(4), f.setNumCapture(2))
        print(f.setPath('/x/'), f.setFileName('y'), f.setTemplate('%s%s_%d'), f.setWriteMode(2))
        print(f.WriteComplete(), settled(f, 'FileNumber', 4), f.nextFileNumber())
        f.PV('ReadFile').put(0, wait=True)
        """
    )
    found.assert_same()
    assert len(found["epics"][1]) > 10


@pytest.mark.parametrize("cls", [AD_FilePlugin, AD_PerkinElmer])
def test_files_by_either_name(pvs: PVSet, cls: Any) -> None:
    """Most methods have the word File in their names, and AD_FilePlugin those without it too."""
    plugin = cls("DEV:file:") if cls is AD_FilePlugin else cls("DEV:")
    prefix = "DEV:file:" if cls is AD_FilePlugin else "DEV:netCDF1:"
    plugin.setFilePath("/data/")
    plugin.setFileName("run")
    plugin.setFileTemplate("%s%s_%3.3d.tif")
    plugin.setFileWriteMode(2)
    plugin.setFileNumCapture(9)
    plugin.FileCaptureOn()
    plugin.FileCaptureOff()
    plugin.setFileNumber()
    plugin.setFileNumber(11)
    expected = [
        *(("FilePath", "/data/"), ("FileName", "run"), ("FileTemplate", "%s%s_%3.3d.tif")),
        *(("FileWriteMode", 2), ("NumCapture", 9), ("Capture", 1), ("Capture", 0)),
        *(("AutoIncrement", 1), ("AutoIncrement", 0), ("FileNumber", 11)),
    ]
    wait_until(lambda: pvs.puts == [(prefix + attr, value) for attr, value in expected])
    wait_until(lambda: plugin.fileGet("FileNumber") == 11)
    plugin.nextFileNumber()
    wait_until(lambda: plugin.getFileNumber() == 12)
    wait_until(lambda: plugin.getFileName() == "run" and plugin.getFilePath() == "/data/")
    wait_until(lambda: plugin.getFileTemplate() == "%s%s_%3.3d.tif")
    assert plugin.getFileNameByIndex(5) == "/data/run_005.tif"
    assert plugin.getLastFileName() == "FullFi"
    assert plugin.FileWriteComplete() is False
    pvs.write(f"{prefix}WriteFile_RBV", 0)
    wait_until(plugin.FileWriteComplete)


def test_short_names_of_the_file_plugin(pvs: PVSet) -> None:
    plugin = AD_FilePlugin("DEV:file:")
    assert plugin.setPath("/data/") == plugin.setTemplate("%s%s") == plugin.setWriteMode(1) == 1
    assert plugin.CaptureOn() == plugin.CaptureOff() == plugin.setNumCapture(3) == 1
    names = ("FilePath", "FileTemplate", "FileWriteMode", "Capture", "NumCapture")
    wait_until(
        lambda: pvs.read(*(f"DEV:file:{name}" for name in names)) == ["/data/", "%s%s", 1, 0, 3]
    )
    wait_until(lambda: (plugin.getPath(), plugin.getTemplate()) == ("/data/", "%s%s"))
    assert (plugin.getName(), plugin.getNumber(), plugin.WriteComplete()) == ("FileNa", 1, False)


# --------------------------------------------------------------------------- PerkinElmer


class PerkinElmer(AD_PerkinElmer):
    """For a server that needs no time."""

    _settle = 0.02


def cam(expected: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Puts by their full names: those of the file plugin are marked so."""
    return [
        (f"DEV:netCDF1:{attr[5:]}" if attr.startswith("File_") else f"DEV:cam1:{attr}", value)
        for attr, value in expected
    ]


def test_takes_a_dark_image(pvs: PVSet) -> None:
    pvs.write("DEV:cam1:TriggerMode", 3)
    detector = PerkinElmer("DEV:")
    detector.SetExposureTime(0.02)
    dark = [
        *(("ShutterMode", 1), ("ShutterControl", 0), ("ImageMode", 0), ("TriggerMode", 0)),
        *(("PEAcquireOffset", 1), ("ImageMode", 1), ("TriggerMode", 3)),
    ]
    opened = [("ShutterControl", 1), ("ShutterMode", 0)]
    expected = cam([("AcquireTime", 0.02), *dark, *opened])
    wait_until(lambda: len(pvs.puts) >= len(expected))
    assert pvs.puts == expected
    detector.AcquireOffset(timeout=5, open_shutter=False)
    expected += cam([*dark, ("ShutterMode", 0)])
    wait_until(lambda: len(pvs.puts) >= len(expected))
    assert pvs.puts == expected


@pytest.mark.parametrize(
    ("trigger", "mode"),
    [("External", 1), ("free run", 2), ("soft", 3), ("internal", 0), ("what", 0)],
)
def test_takes_many_images(pvs: PVSet, trigger: str, mode: int) -> None:
    PerkinElmer("DEV:").SetMultiFrames(7, trigger=trigger)
    expected = cam(
        [
            *(("ImageMode", 1), ("TriggerMode", mode), ("NumImages", 7), ("File_NumCapture", 7)),
            *(("File_EnableCallbacks", 1), ("File_FileNumber", 1), ("File_AutoIncrement", 1)),
        ]
    )
    wait_until(lambda: pvs.puts == expected)


def test_streams(pvs: PVSet, capsys: pytest.CaptureFixture[str]) -> None:
    detector = PerkinElmer("DEV:")
    detector.StartStreaming()
    expected = [
        *(("ShutterMode", 0), ("File_AutoSave", 1), ("File_FileWriteMode", 2)),
        *(("File_Capture", 1), ("Acquire", 1)),
    ]
    wait_until(lambda: pvs.puts == cam(expected))
    detector.FinishStreaming(timeout=0.05)
    assert capsys.readouterr().out == "Forcing XRD Streaming to stop\n"
    wait_until(lambda: pvs.puts == cam([*expected, ("File_Capture", 0)]))
    detector.FinishStreaming()
    assert capsys.readouterr().out == ""
    assert detector.File_Capture == 0
