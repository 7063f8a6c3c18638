"""areaDetector's plugins that write files: `AD_FilePlugin`."""

from __future__ import annotations

from ..device import Device as Device
from ._files import FileMethods
from .ad_base import AD_Base


class AD_FilePlugin(FileMethods, AD_Base):
    """An areaDetector plugin that writes files. Most methods have a second name, without "File"."""

    attrs = (
        *("AutoIncrement", "AutoIncrement_RBV", "AutoSave", "AutoSave_RBV"),
        *("Capture", "Capture_RBV", "EnableCallbacks", "EnableCallbacks_RBV"),
        *("FileName", "FileName_RBV", "FileNumber", "FileNumber_RBV"),
        *("FilePath", "FilePath_RBV", "FilePathExists_RBV"),
        *("FileTemplate", "FileTemplate_RBV", "FileWriteMode", "FileWriteMode_RBV"),
        *("FullFileName_RBV", "NDArrayPort", "NDArrayPort_RBV"),
        *("NumCapture", "NumCapture_RBV", "NumCaptured_RBV"),
        *("ReadFile", "ReadFile_RBV", "WriteFile", "WriteFile_RBV"),
        *("WriteMessage", "WriteStatus"),
    )

    setPath = FileMethods.setFilePath
    setTemplate = FileMethods.setFileTemplate
    setWriteMode = FileMethods.setFileWriteMode
    setNumCapture = FileMethods.setFileNumCapture
    CaptureOn = FileMethods.FileCaptureOn
    CaptureOff = FileMethods.FileCaptureOff
    WriteComplete = FileMethods.FileWriteComplete
    getTemplate = FileMethods.getFileTemplate
    getName = FileMethods.getFileName
    getNumber = FileMethods.getFileNumber
    getPath = FileMethods.getFilePath

    def _file_attr(self, attr: str) -> str:
        return attr
