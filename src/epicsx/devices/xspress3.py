"""Quantum Detectors' Xspress3 under areaDetector: `Xspress3`, and `Xspress310` of its older software."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..ca import poll as poll
from ..device import Device
from ..functional import caget, caput
from . import _rois, mca
from ._files import FileMethods
from .ad_mca import ADMCA
from .mca import MCA
from .mca import ROI as ROI

MAX_ROIS = 32

_SCAS = 8  # counters of each channel
_ALL = (50, 4050)  # the channels that are saved where no region was found


class ADFileMixin(FileMethods):
    """The file plugin's methods, with all folders below ``fileroot``."""

    fileroot: str

    def setFilePath(self, pathname: str) -> int | None:
        """Set the folder of the files, below ``fileroot``."""
        return self.filePut("FilePath", os.path.join(self.fileroot, pathname))


if TYPE_CHECKING:  # it needs the other mixin, wherever that stands among the bases
    _Base = ADFileMixin
else:
    _Base = object


class Xspress3BaseMixin(_Base):
    """Triggers, start and stop, and the regions of all channels."""

    mcas: Any

    def useExternalTrigger(self) -> None:
        """Count while a gate is open."""
        self.setTriggerMode(3)

    def useInternalTrigger(self) -> None:
        """Count by its own clock."""
        self.setTriggerMode(1)

    def setTriggerMode(self, mode: int) -> None:
        """Set the trigger, by its number."""
        self.put("TriggerMode", mode)

    def start(self, capture: bool = True) -> None:
        """Start, and start to `capture` files."""
        if capture:
            self.FileCaptureOn()
        self.put("Acquire", 1)

    def stop(self) -> None:
        """Stop, the files too."""
        self.put("Acquire", 0)
        self.FileCaptureOff()

    def get_rois(self) -> list[list[Any]]:
        """The regions of all channels."""
        return [each.get_rois() for each in self.mcas]


_DETECTOR = (
    *("NumImages", "NumImages_RBV", "Acquire", "Acquire_RBV", "ArrayCounter_RBV"),
    *("ERASE", "UPDATE", "AcquireTime", "TriggerMode"),
    *("StatusMessage_RBV", "DetectorState_RBV"),
)
_PATHS = ("FilePath", "FileTemplate", "FileName", "FileNumber", "Capture", "NumCapture")
_TIME_SERIES = ("TSNumPoints", "TSControl")


class Xspress3(Xspress3BaseMixin, ADFileMixin, Device):
    """An Xspress3, under areaDetector 2 or later.

    Parameters
    ----------
    prefix : str
        What all names begin with; a colon is added if there is none.
    nmca : int
        Number of channels: ``mcas`` has an ADMCA for each.
    filesaver : str
        What the names of the file plugin have after the prefix.
    fileroot : str
        Folder, on the detector's computer, below which the files are.
    """

    det_attrs = _DETECTOR
    pathattrs = _PATHS
    _nonpvs = (*Device._nonpvs, "filesaver", "fileroot", "pathattrs", "nmca", "mcas")

    def __init__(
        self,
        prefix: str,
        nmca: int = 4,
        filesaver: str = "HDF1:",
        fileroot: str = "/home/xspress3/cars5/Data",
    ) -> None:
        prefix = prefix.removesuffix(":") + ":"
        self.nmca = nmca
        self.filesaver = filesaver
        self.fileroot = fileroot
        channels = range(1, nmca + 1)
        self.mcas = [
            ADMCA(
                f"{prefix}det1:",
                data_pv=f"{prefix}MCA{i}:ArrayData",
                roi_prefix=f"{prefix}MCA{i}ROI",
            )
            for i in channels
        ]
        super().__init__(prefix, attrs=[filesaver + attr for attr in self.pathattrs])
        for attr in self.det_attrs:
            self.add_pv(f"{prefix}det1:{attr}", attr)
        for i in channels:
            for j in range(1, _SCAS + 1):
                self.add_pv(f"{prefix}C{i}SCA{j}:Value_RBV", f"C{i}SCA{j}")
            for attr in _TIME_SERIES:
                self.add_pv(f"{prefix}MCA{i}ROI:{attr}", f"MCA{i}{attr}")
                self.add_pv(f"{prefix}C{i}SCA:{attr}", f"SCA{i}{attr}")

    def _put_series(self, attr: str, value: int) -> None:
        for i in range(1, self.nmca + 1):
            self.put(f"MCA{i}{attr}", value)
            self.put(f"SCA{i}{attr}", value)

    def TimeSeriesCaptureOn(self, npts: int | None = None) -> None:
        """Erase the time series of all regions and counters, and start them, with `npts` points if given."""
        if npts is not None:
            self._put_series("TSNumPoints", npts)
        self._put_series("TSControl", 0)

    def TimeSeriesCaptureOff(self) -> None:
        """Stop the time series."""
        self._put_series("TSControl", 2)

    def roi_calib_info(self) -> list[str]:
        """The lines of a file of regions, those of the first channel for all, and of the fixed calibration."""
        table = []
        for roi in self.mcas[0].get_rois():
            name, low, size = roi._limits()
            table.append((name, [low, low + size] * self.nmca))
        return [*_rois.file_lines(table), *_rois.same_calibration(self.nmca)]

    def restore_rois(self, roifile: str | os.PathLike[str]) -> None:
        """Set the regions of a file in all channels."""
        rois = _rois.read_file(roifile)
        for each in self.mcas:
            each.set_rois(rois)


class Xspress310(Xspress3BaseMixin, ADFileMixin, Device):
    """An Xspress3 with the older software, whose spectra are mca records.

    Parameters
    ----------
    prefix : str
        What all names begin with.
    nmca : int
        Number of channels: ``mcas`` has an MCA for each.
    filesaver, fileroot : str
        As of `Xspress3`.
    """

    attrs = _DETECTOR
    pathattrs = _PATHS
    _nonpvs = (
        *Device._nonpvs,
        *("filesaver", "fileroot", "pathattrs", "_save_rois", "nmca", "dxps", "mcas"),
    )

    def __init__(
        self,
        prefix: str,
        nmca: int = 4,
        filesaver: str = "HDF5:",
        fileroot: str = "/home/xspress3/cars5/Data",
    ) -> None:
        self.nmca = nmca
        self.filesaver = filesaver
        self.fileroot = fileroot
        self._save_rois: list[str] = []
        self.mcas = [MCA(prefix, mca=i + 1) for i in range(nmca)]
        paths = [filesaver + attr for attr in self.pathattrs]
        super().__init__(prefix, attrs=(*self.attrs, *paths))

    def select_rois_to_save(self, roilist: Iterable[str | tuple[int, int]]) -> None:
        """Have the counts of these regions saved with the data.

        Parameters
        ----------
        roilist : sequence of str or (int, int)
            Names of the first channel's regions, in capitals or not, or first and last channel. For a name that is none
            the channels 50 to 4050 are taken; they also are one more region if there are fewer than four.
        """
        wanted = list(roilist)
        if len(wanted) < 4:
            wanted.append(_ALL)
        self._save_rois = []
        for i, roi in enumerate(wanted, 1):
            if isinstance(roi, tuple):
                low, high = roi
                self._save_rois.append(f"[{low}:{high}]")
            else:
                low, high = self._region(roi)
                self._save_rois.append(roi)
            for channel in range(1, self.nmca + 1):
                caput(f"{self._prefix}C{channel}_MCA_ROI{i}_HLM", high)
                caput(f"{self._prefix}C{channel}_MCA_ROI{i}_LLM", low)

    def _region(self, name: str) -> tuple[int, int]:
        """The limits of the first channel's region of that name, or all."""
        record = f"{self._prefix}mca1"
        for i in range(MAX_ROIS):
            if caget(f"{record}.R{i}NM").lower().strip() == name.lower().strip():
                return caget(f"{record}.R{i}LO"), caget(f"{record}.R{i}HI")
        return _ALL

    def roi_calib_info(self) -> list[str]:
        """The lines of a file of regions, and of the fixed calibration."""
        return [*mca.roi_lines(self.mcas), *_rois.same_calibration(self.nmca)]

    def restore_rois(self, roifile: str | os.PathLike[str]) -> None:
        """Set the regions of a file in the first channel, and at the same energies in the others."""
        mca.restore_rois(self.mcas, roifile)
