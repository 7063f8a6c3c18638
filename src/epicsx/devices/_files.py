"""What areaDetector's file plugins are told and asked: `FileMethods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..device import Device as _Base

else:  # to be mixed into a Device on either side of it
    _Base = object


class FileMethods(_Base):
    """The methods of a Device that saves files by an areaDetector plugin, whose PVs begin with ``filesaver``."""

    filesaver: str

    def _file_attr(self, attr: str) -> str:
        """The Device's attribute for one of the plugin."""
        return f"{self.filesaver}{attr}"

    def filePut(self, attr: str, value: Any, **kw: Any) -> int | None:
        """Write to an attribute of the plugin, as of ``Device.put``."""
        return self.put(self._file_attr(attr), value, **kw)

    def fileGet(self, attr: str, **kw: Any) -> Any:
        """The value of an attribute of the plugin, as of ``Device.get``."""
        return self.get(self._file_attr(attr), **kw)

    def setFilePath(self, pathname: str) -> int | None:
        """Set the folder of the files."""
        return self.filePut("FilePath", pathname)

    def setFileTemplate(self, fmt: str) -> int | None:
        """Set how path, name and number make a full name, such as ``'%s%s_%3.3d.nc'``."""
        return self.filePut("FileTemplate", fmt)

    def setFileWriteMode(self, mode: int | str) -> int | None:
        """Set whether single arrays (0), captured ones (1) or streams (2) are written."""
        return self.filePut("FileWriteMode", mode)

    def setFileName(self, fname: str) -> int | None:
        """Set the files' name, to which numbers are added."""
        return self.filePut("FileName", fname)

    def nextFileNumber(self) -> None:
        """Set the next number."""
        self.setFileNumber(1 + self.fileGet("FileNumber"))

    def setFileNumber(self, fnum: int | None = None) -> int | None:
        """Set the number of the next file; without one let the plugin count."""
        if fnum is None:
            self.filePut("AutoIncrement", 1)
            return None
        self.filePut("AutoIncrement", 0)
        return self.filePut("FileNumber", fnum)

    def getLastFileName(self) -> Any:
        """The full name of the file written last."""
        return self.fileGet("FullFileName_RBV", as_string=True)

    def FileCaptureOn(self) -> int | None:
        """Start capturing, or streaming."""
        return self.filePut("Capture", 1)

    def FileCaptureOff(self) -> int | None:
        """Stop capturing, or streaming."""
        return self.filePut("Capture", 0)

    def setFileNumCapture(self, n: int) -> int | None:
        """Set the number of arrays to capture."""
        return self.filePut("NumCapture", n)

    def FileWriteComplete(self) -> bool:
        """Whether nothing is being written."""
        return bool(self.fileGet("WriteFile_RBV") == 0)

    def getFileTemplate(self) -> Any:
        """What `setFileTemplate` set."""
        return self.fileGet("FileTemplate_RBV", as_string=True)

    def getFileName(self) -> Any:
        """What `setFileName` set."""
        return self.fileGet("FileName_RBV", as_string=True)

    def getFileNumber(self) -> Any:
        """The number of the next file."""
        return self.fileGet("FileNumber_RBV")

    def getFilePath(self) -> Any:
        """What `setFilePath` set, as the plugin completed it."""
        return self.fileGet("FilePath_RBV", as_string=True)

    def getFileNameByIndex(self, index: int) -> str:
        """The full name of the file of that number."""
        name: str = self.getFileTemplate() % (self.getFilePath(), self.getFileName(), index)
        return name
