"""PerkinElmer's flat panels under areaDetector: `AD_PerkinElmer`."""

from __future__ import annotations

import time
from typing import Any

from ..device import Device
from ._common import fresh
from ._files import FileMethods

_TRIGGERS = ("int", "ext", "free", "soft")


class AD_PerkinElmer(FileMethods, Device):
    """A PerkinElmer detector, ``cam1:`` after the prefix, and the plugin that writes its files.

    Parameters
    ----------
    prefix : str
        What all names begin with.
    filesaver : str
        What the names of the file plugin have after that. Its attributes begin with ``File_``.
    """

    camattrs = (
        *("PEAcquireOffset", "PENumOffsetFrames", "ImageMode", "TriggerMode", "Acquire"),
        *("AcquireTime", "Model_RBV", "NumImages", "ShutterControl", "ShutterMode"),
    )
    pathattrs = (
        *("FilePath", "FileTemplate", "FileWriteMode", "FileName", "FileNumber"),
        *("FullFileName_RBV", "Capture", "Capture_RBV", "NumCapture", "WriteFile_RBV"),
        *("AutoSave", "EnableCallbacks", "ArraySize0_RBV", "FileTemplate_RBV"),
        *("FileName_RBV", "AutoIncrement"),
    )
    _nonpvs = (*Device._nonpvs, "filesaver", "camattrs", "pathattrs")
    _settle: float = 1.0
    """Seconds that shutter and detector are given after new settings; some settings get a part of it."""

    def __init__(self, prefix: str, filesaver: str = "netCDF1:") -> None:
        super().__init__(f"{prefix}cam1:", delim="", mutable=False, attrs=self.camattrs)
        self.filesaver = f"{prefix}{filesaver}"
        for attr in self.pathattrs:
            self.add_pv(self.filesaver + attr, self._file_attr(attr))

    def _file_attr(self, attr: str) -> str:
        return f"File_{attr}"

    def fileGet(self, attr: str, **kw: Any) -> Any:
        """The value of an attribute of the plugin, as of ``Device.get``."""
        self._make(attr)
        return super().fileGet(attr, **kw)

    def filePut(self, attr: str, value: Any, **kw: Any) -> int | None:
        """Write to an attribute of the plugin, as of ``Device.put``."""
        self._make(attr)
        return super().filePut(attr, value, **kw)

    def _make(self, attr: str) -> None:
        """Make the PV of an attribute that is not in the list, by the plugin's prefix, not the camera's."""
        if self._file_attr(attr) not in self._pvs:
            self.add_pv(self.filesaver + attr, self._file_attr(attr))

    def _put_all(self, **values: Any) -> None:
        for attr, value in values.items():
            self.put(attr, value)

    def AcquireOffset(self, timeout: float = 10, open_shutter: bool = True) -> None:
        """Take a dark image: with the shutter closed, single images and the internal trigger, which are then put back.

        Parameters
        ----------
        timeout : float, seconds
            How long to wait for it, beyond the time its frames take.
        open_shutter : bool
            Open the shutter at the end.
        """
        self._put_all(ShutterMode=1, ShutterControl=0)
        before = {attr: fresh(self, attr) for attr in ("ImageMode", "TriggerMode")}
        self._put_all(ImageMode=0, TriggerMode=0)
        frames = fresh(self, "PENumOffsetFrames") * fresh(self, "AcquireTime")
        time.sleep(self._settle / 2)
        until = time.monotonic() + timeout + frames
        self.put("PEAcquireOffset", 1)
        time.sleep(frames / 3)
        while fresh(self, "PEAcquireOffset") > 0 and time.monotonic() < until:
            time.sleep(self._settle / 10)
        time.sleep(self._settle)
        self._put_all(**before)
        time.sleep(self._settle)
        if open_shutter:
            self.put("ShutterControl", 1)
        self.put("ShutterMode", 0)
        time.sleep(self._settle)

    def SetExposureTime(self, t: float, open_shutter: bool = True) -> None:
        """Set the seconds of an exposure, and take a dark image of that time."""
        self.put("AcquireTime", t)
        self.AcquireOffset(open_shutter=open_shutter)

    def SetMultiFrames(self, n: int, trigger: str = "external") -> None:
        """Have `n` images taken, and written.

        Parameters
        ----------
        trigger : str
            What begins with ``'int'``, ``'ext'``, ``'free'`` or ``'soft'``; internal for whatever is none.
        """
        text = trigger.lower()
        mode = next((i for i, start in enumerate(_TRIGGERS) if text.startswith(start)), 0)
        self.put("ImageMode", 1)
        time.sleep(self._settle / 10)
        self._put_all(TriggerMode=mode, NumImages=n)
        for attr, value in (
            ("NumCapture", n),
            *(("EnableCallbacks", 1), ("FileNumber", 1), ("AutoIncrement", 1)),
        ):
            self.filePut(attr, value)
        time.sleep(self._settle * 2)

    def StartStreaming(self) -> None:
        """Start to take images and to write them to a file as they come."""
        self.put("ShutterMode", 0)
        self.filePut("AutoSave", 1)
        self.filePut("FileWriteMode", 2)
        time.sleep(self._settle / 20)
        self.filePut("Capture", 1)
        self.put("Acquire", 1)
        time.sleep(self._settle / 4)

    def FinishStreaming(self, timeout: float = 5.0) -> None:
        """Wait for all images to be written; after `timeout` seconds end it, and wait so long again."""
        if not self._captured(timeout):
            print("Forcing XRD Streaming to stop")
            self.filePut("Capture", 0)
            self._captured(timeout)
        time.sleep(self._settle / 2)

    def _captured(self, timeout: float) -> bool:
        """Whether the capture ended in time."""
        until = time.monotonic() + timeout
        while fresh(self, self._file_attr("Capture_RBV")) == 1:
            if time.monotonic() >= until:
                return False
            time.sleep(self._settle / 20)
        return True
