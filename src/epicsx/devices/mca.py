"""synApps' mca record, its regions, and XIA's electronics: `MCA`, `ROI`, `DXP`, `MultiXMAP`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ca import poll
from ..device import Device
from ..functional import caget as caget
from ..functional import caput as caput
from ..pv import PV, get_pv
from ..utils import IOENCODING
from . import _rois
from ._common import fresh
from ._files import FileMethods

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

MAX_ROIS = 32
_CALIBRATION = ("CALO", "CALS", "CALQ")


class DXP(Device):
    """One channel of XIA's DXP or xMAP electronics: ``prefix + 'dxp' + mca``."""

    _attrs = (
        *("PreampGain", "MaxEnergy", "ADCPercentRule", "BaselineCutPercent"),
        *("BaselineThreshold", "BaselineFilterLength", "BaselineCutEnable"),
        *("InputCountRate", "OutputCountRate", "GapTime", "PeakingTime", "EnergyThreshold"),
        *("MaxWidth", "PresetMode", "TriggerPeakingTime", "TriggerGapTime", "TriggerThreshold"),
    )

    def __init__(self, prefix: str, mca: int = 1) -> None:
        super().__init__(f"{prefix}dxp{mca}", delim=":")


class ROI(_rois.Ordered, Device):
    """A region of interest of an mca record.

    Its fields are LO, HI and NM, also called left, right and name: the first channel, the last one, and the text. Two
    are in order by LO, and equal if LO, HI and `bgr_width` are.

    Parameters
    ----------
    prefix : str
        Name of the record.
    roi : int
        Its number, from 0 to 31.
    bgr_width : int
        Number of channels on each side from which the background of `net` is taken.
    data_pv : str or PV
        From where to take the counts: a spectrum, of which the region is summed up, or a number. The record's own
        sum if None.
    """

    _ordered_by = "LO"
    _equal_by = ("LO", "HI", "bgr_width")
    _nonpvs = (*Device._nonpvs, "attrs", "width", "center", "bgr_width", "address", "net", "total")
    _aliases = {"left": "LO", "right": "HI", "name": "NM"}

    def __init__(
        self, prefix: str, roi: int = 0, bgr_width: int = 3, data_pv: str | PV | None = None
    ) -> None:
        self.address = f"{prefix}.R{roi}"
        self.bgr_width = bgr_width
        super().__init__(
            self.address, attrs=("NM", "LO", "HI"), aliases=self._aliases, with_poll=False
        )
        if data_pv is None:
            data_pv = self.address
        self._pvs["_dat_"] = get_pv(data_pv) if isinstance(data_pv, str) else data_pv
        self._pvs["_net_"] = get_pv(self.address + "N")

    def __repr__(self) -> str:
        prefix = (self._prefix or "").removesuffix(".")
        return f"<ROI '{prefix}', name='{self.NM}', range=[{self.LO}:{self.HI}]>"

    @property
    def total(self) -> Any:
        """The counts."""
        return self.get_counts(net=False)

    @property
    def sum(self) -> Any:
        """The counts."""
        return self.get_counts(net=False)

    @property
    def net(self) -> Any:
        """The counts less the background."""
        return self.get_counts(net=True)

    @property
    def center(self) -> int:
        """The channel in the middle."""
        return int(round(self.HI + self.LO) / 2.0)

    @property
    def width(self) -> int:
        """The last channel less the first."""
        return int(self.HI - self.LO)

    def clear(self) -> None:
        """Remove the region."""
        for attr, value in (("NM", ""), ("LO", -1), ("HI", -1)):
            self.put(attr, value)

    def get_counts(self, data: Any = None, net: bool = False) -> Any:
        """The counts, or `net` those above the background, which is taken from both sides.

        Parameters
        ----------
        data : ndarray
            The spectrum; that of `data_pv` if None, or the record's own answer where there is none.
        """
        if data is None and self._pvs["_dat_"] is not None:
            data = self._pvs["_dat_"].get()
            if net and not isinstance(data, np.ndarray):
                data = self._pvs["_net_"].get()
        if not isinstance(data, np.ndarray):
            return data
        return _rois.counts(data, self.LO, self.HI, int(self.bgr_width), net)


class MCA(Device):
    """An mca record: a spectrum, its calibration, its regions of interest.

    Parameters
    ----------
    prefix : str
        Name of the record; what stands before ``mca1`` if `mca` is given.
    mca : int
        Number of the record.
    nrois : int
        How many regions to look for; 32 if None.
    data_pv : str
        PV from which the regions take their counts, see `ROI`.
    """

    _attrs = (
        *("CALO", "CALS", "CALQ", "TTH", "EGU", "PRTM", "PLTM", "ACQG", "NUSE", "DWEL"),
        *("ERTM", "ELTM", "IDTIM"),
    )
    _nonpvs = (*Device._nonpvs, "_npts", "rois", "_nrois")

    def __init__(
        self,
        prefix: str,
        mca: int | None = None,
        nrois: int | None = None,
        data_pv: str | None = None,
    ) -> None:
        self._npts: int | None = None
        self._nrois = MAX_ROIS if nrois is None else nrois
        self.rois: list[ROI] = []
        if isinstance(mca, int):
            prefix = f"{prefix}mca{mca}"
        super().__init__(prefix.removesuffix("."), delim=".", attrs=self._attrs, with_poll=False)
        self.add_pv(f"{self._prefix}VAL", "VAL", auto_monitor=False)
        self._pvs["_dat_"] = None if data_pv is None else get_pv(data_pv)
        poll()

    # ------------------------------------------------------------- regions

    def _roi(self, i: int) -> ROI:
        return ROI((self._prefix or "").removesuffix("."), roi=i, data_pv=self._pvs["_dat_"])

    def get_rois(self, nrois: int | None = None) -> list[ROI]:
        """The regions there are: up to the first without a name or whose last channel is 0 or less."""
        self.rois = []
        for i in range(self._nrois if nrois is None else nrois):
            roi = self._roi(i)
            name, high = fresh(roi, "NM"), fresh(roi, "HI")
            if not (name or "").strip() or high is None or high <= 0:
                break
            self.rois.append(roi)
        return self.rois

    def del_roi(self, roiname: str) -> None:
        """Remove the regions of that name, in capitals or not, and close the gap."""
        unwanted = roiname.strip().lower()
        present = _limits(self.get_rois())
        self._write_rois([roi for roi in present if roi[0].strip().lower() != unwanted])

    def add_roi(
        self, roiname: str, lo: int = -1, hi: int = -1, calib: Sequence[float] | None = None
    ) -> None:
        """Add a region by its name and its first and last channel.

        Parameters
        ----------
        calib : sequence of float
            Offset, slope and quadratic term, as of `get_calib`, of another MCA to which the channels belong: the region
            is added where this one has the same energies.

        Raises
        ------
        ValueError
            There are 32 already.
        """
        if lo < 0 or hi < 0:
            return
        present = _limits(self.get_rois())
        if len(present) >= MAX_ROIS:
            raise ValueError(f"too many ROIs - cannot add more {len(present)}/{MAX_ROIS}")
        self._write_rois(present + self._converted([(roiname, lo, hi)], calib))

    def set_rois(self, rois: Sequence[ROI], calib: Sequence[float] | None = None) -> None:
        """Have these regions, those of another MCA perhaps, and no others, ordered by their first channel.

        Parameters
        ----------
        calib : sequence of float
            The other MCA's `get_calib`: the regions are set where this one has the same energies.
        """
        self._write_rois(self._converted(_limits(rois), calib))

    def clear_rois(self, nrois: int | None = None) -> None:
        """Remove all regions."""
        for roi in self.get_rois(nrois=nrois):
            roi.clear()
        self.rois = []

    def _converted(
        self, rois: list[_rois.Limits], calib: Sequence[float] | None
    ) -> list[_rois.Limits]:
        """The same energies' channels of this MCA, for channels that belong to the calibration `calib`."""
        if calib is None:
            return rois
        mine = self.get_calib()

        def channel(theirs: int) -> int:
            return round(_channel(_energy(theirs, calib), mine))

        return [(name, channel(lo), channel(hi)) for name, lo, hi in rois]

    def _write_rois(self, rois: list[_rois.Limits]) -> None:
        rois = [roi for roi in sorted(rois, key=lambda roi: roi[1]) if roi[0] and min(roi[1:]) >= 0]
        if len(rois) > MAX_ROIS:
            raise ValueError(f"too many ROIs: {len(rois)}/{MAX_ROIS}")
        self.rois = []
        for i, (name, lo, hi) in enumerate(rois):
            roi = self._roi(i)
            for attr, value in (("NM", name.strip()), ("LO", lo), ("HI", hi)):
                roi.put(attr, value)
            self.rois.append(roi)
        for i in range(len(rois), MAX_ROIS):
            roi = self._roi(i)
            low = fresh(roi, "LO")
            if low is None or low < 0:
                break
            roi.clear()

    # --------------------------------------------------------- calibration

    def get_calib(self) -> list[Any]:
        """Offset, slope and quadratic term of the energy by channel."""
        return [fresh(self, attr) for attr in _CALIBRATION]

    def get_energy(self) -> np.ndarray[Any, Any]:
        """The energies of all channels; their number is that of the first spectrum read."""
        if self._npts is None:
            self._npts = np.size(self.get("VAL"))
        return np.asarray(_energy(np.arange(self._npts, dtype="f8"), self.get_calib()))

    # ---------------------------------------------- by the names of 2011

    def Read(self) -> Any:
        """The spectrum."""
        return self.get("VAL")

    def calibratio(self) -> tuple[Any, ...]:
        """Offset, slope, quadratic term, and the angle 2 theta."""
        return (*self.get_calib(), self.get("TTH"))


def _limits(rois: Sequence[ROI]) -> list[_rois.Limits]:
    """What the server has of these regions: a monitor's news may be older than the last put."""
    return [(fresh(roi, "NM"), fresh(roi, "LO"), fresh(roi, "HI")) for roi in rois]


def _energy(channels: Any, calib: Sequence[float]) -> Any:
    offset, slope, quad = (*calib, 0.0)[:3]
    return offset + channels * (slope + channels * quad)


def _channel(energy: float, calib: Sequence[float]) -> float:
    """Where a calibration has this energy."""
    offset, slope, quad = (*calib, 0.0)[:3]
    above = energy - offset
    if quad == 0:
        return above / slope
    # This form of the quadratic equation's solution has no cancellation for a small quadratic term.
    # An energy that the calibration does not reach has no channel; the nearest is where it turns round.
    root = math.sqrt(max(slope**2 + 4 * quad * above, 0.0))
    return 2 * above / (slope + math.copysign(root, slope))


def restore_rois(mcas: Sequence[MCA], roifile: str | PathLike[str]) -> None:
    """Set the regions of a file in the first MCA, and at the same energies in the others."""
    rois = _rois.read_file(roifile)
    first, *others = mcas
    first._write_rois(rois)
    calib = first.get_calib()
    for mca in others:
        mca._write_rois(mca._converted(rois, calib))


def roi_lines(mcas: Sequence[MCA]) -> list[str]:
    """The lines of a file's part ``[rois]``, for regions of the first MCA; what another lacks has limits of -1."""
    found = [_limits(mca.get_rois()) for mca in mcas]
    table = []
    for i, (name, *_) in enumerate(found[0]):
        limits = [each[i][1:] if i < len(each) else (-1, -1) for each in found]
        table.append((name, [limit for pair in limits for limit in pair]))
    return _rois.file_lines(table)


class MultiXMAP(FileMethods, Device):
    """XIA's xMAP with several channels, mapping, and a file plugin.

    Parameters
    ----------
    prefix : str
        What all names begin with.
    filesaver : str
        What the names of the file plugin have after that.
    nmca : int
        Number of channels: ``mcas`` and ``dxps`` has one for each.
    """

    attrs = [
        *("PresetReal", "Dwell", "Acquiring", "EraseStart", "StopAll", "PresetMode"),
        *("PixelsPerBuffer_RBV", "NextPixel", "PixelsPerRun", "Apply", "AutoApply"),
        *("CollectMode", "SyncCount", "BufferSize_RBV"),
    ]
    pathattrs = (
        *("FilePath", "FileTemplate", "FileWriteMode", "FileName", "FileNumber"),
        *("FullFileName_RBV", "Capture", "NumCapture", "WriteFile_RBV", "AutoSave"),
        *("EnableCallbacks", "ArraySize0_RBV", "FileTemplate_RBV", "FileName_RBV"),
        "AutoIncrement",
    )
    _nonpvs = (*Device._nonpvs, "filesaver", "pathattrs", "nmca", "dxps", "mcas")
    _settle: float = 0.5
    """Seconds that the electronics are given after new settings before they are asked."""
    _spectrum = 16384
    """The buffer of single spectra has fewer words than this, that of a mapping run more."""

    def __init__(self, prefix: str, filesaver: str = "netCDF1:", nmca: int = 4) -> None:
        self.filesaver = filesaver
        self.nmca = nmca
        self.dxps = [DXP(prefix, mca=i + 1) for i in range(nmca)]
        self.mcas = [MCA(prefix, mca=i + 1) for i in range(nmca)]
        super().__init__(prefix, attrs=self.attrs)
        for attr in self.pathattrs:
            self.add_pv(f"{prefix}{filesaver}{attr}", attr)

    def get_calib(self) -> list[list[Any]]:
        """The calibrations of all channels."""
        return [mca.get_calib() for mca in self.mcas]

    def get_rois(self) -> list[list[ROI]]:
        """The regions of all channels."""
        return [mca.get_rois() for mca in self.mcas]

    def roi_calib_info(self) -> list[str]:
        """The lines of a file of regions, calibrations and settings, without line ends."""
        calibs = zip(*self.get_calib(), strict=True)
        columns = [
            (name, [f"{value:.7g}" for value in values])
            for name, values in zip(("OFFSET", "SLOPE", "QUAD"), calibs, strict=True)
        ]
        lines = [*roi_lines(self.mcas), *_rois.calibration_lines(columns), "[dxp]"]
        for attr in DXP._attrs:
            texts = [str(dxp.get(attr, as_string=True)).replace(" ", "_") for dxp in self.dxps]
            lines.append(f"{attr} = {' '.join(texts)}")
        return lines

    def restore_rois(self, roifile: str | PathLike[str]) -> None:
        """Set the regions of a file in the first channel, and at the same energies in the others."""
        restore_rois(self.mcas, roifile)

    def Write_CurrentConfig(self, filename: str | PathLike[str] | None = None) -> str:
        """The text of regions, calibrations and settings, also written to a file if one is named."""
        text = "\n".join(
            (
                f"#Multi-Element xMAP Settings saved: {time.ctime()}",
                "[general]",
                f"prefix= {self._prefix}",
                f"nmcas = {self.nmca}",
                f"filesaver= {self.filesaver}",
                *self.roi_calib_info(),
            )
        )
        if filename is not None:
            with open(filename, "w", encoding=IOENCODING) as file:
                file.write(text)
        return text

    # --------------------------------------------------------- acquisition

    def start(self) -> Any:
        """Erase and start; once more if that had no effect. The value of EraseStart."""
        self.put("EraseStart", 1)
        if fresh(self, "Acquiring") == 0:
            self.put("EraseStart", 1)
        return self.get("EraseStart")

    def stop(self) -> Any:
        """Stop. The value of StopAll."""
        self.put("StopAll", 1)
        return self.get("StopAll")

    def next_pixel(self) -> Any:
        """Go on to the next pixel. The value of NextPixel."""
        self.put("NextPixel", 1)
        return self.get("NextPixel")

    def finish_pixels(self, timeout: float = 2) -> tuple[bool, int]:
        """Whether the run had all its pixels within `timeout` seconds, and how many it lacked.

        Those are then advanced to by hand, which ends the run, and the capture is ended.
        """

        def lacking() -> Any:
            return self.get("PixelsPerRun") - fresh(self.dxps[0], "CurrentPixel")

        self._wait(lambda: lacking() <= 0, timeout)
        lacks = lacking()
        if lacks > 0:
            run = self.get("PixelsPerRun")
            print("XMAP needs to finish pixels ", run - lacks, " / ", run)
            for _ in range(lacks):
                self.next_pixel()
                time.sleep(self._settle / 5)
            self.FileCaptureOff()
        return lacks <= 0, lacks

    def readmca(self, n: int = 1) -> Any:
        """The spectrum of a channel, from 1."""
        return self.get(f"mca{n}")

    def SCAMode(self) -> None:
        """Map counts in regions."""
        self.put("CollectMode", 2)

    def SpectraMode(self) -> None:
        """Take single spectra; waits up to 5 seconds for the buffer of one."""
        self.stop()
        self.put("CollectMode", 0)
        self.put("PresetMode", 0)

        def ready() -> bool:
            self.put("CollectMode", 0)
            return bool(fresh(self, "BufferSize_RBV") < self._spectrum)

        self._wait(ready, 5)

    def MCAMode(
        self, filename: str | None = None, filenumber: int | None = None, npulses: int = 11
    ) -> None:
        """Map spectra, streamed to files.

        Takes a first pixel, so that the file plugin knows the size of its arrays, and sets it up for all of them. Waits
        up to 10 seconds for that, 10 for the electronics' buffer and 5 for both to agree.

        Parameters
        ----------
        filename, filenumber : str, int
            Of the files, see `setFileName` and `setFileNumber`.
        npulses : int
            Number of pixels, 2 at least.
        """
        npulses = max(npulses, 2)
        self.put("AutoApply", 1)
        self.stop()
        self.put("PresetMode", 0)
        self.setFileWriteMode(2)
        self.put("CollectMode", 1)
        self.put("PixelsPerRun", npulses)
        self.FileCaptureOff()
        self.start()

        def array_size() -> Any:
            return fresh(self, self._file_attr("ArraySize0_RBV"))

        def first_pixel() -> bool:
            self.put("NextPixel", 1)
            return bool(array_size() > self._spectrum)

        self._wait(first_pixel, 10, self._settle / 5)
        self.put("PixelsPerRun", npulses)
        self.put("SyncCount", 1)
        self.setFileNumber(filenumber)
        if filename is not None:
            self.setFileName(filename)

        self.put("Apply", 1)
        self.put("CollectMode", 1)
        self.put("PixelsPerRun", npulses)
        time.sleep(self._settle)
        self._wait(lambda: fresh(self, "BufferSize_RBV") > self._spectrum, 10)
        per_buffer = fresh(self, "PixelsPerBuffer_RBV")
        self.setFileNumCapture(1 + (npulses - 1) // (124 if per_buffer is None else per_buffer))
        self._wait(lambda: fresh(self, "BufferSize_RBV") == array_size(), 5)

    def _wait(self, done: Callable[[], bool], seconds: float, every: float = 0.05) -> None:
        """Return when `done()` is true, or so many seconds are over."""
        until = time.monotonic() + seconds
        while not done() and time.monotonic() < until:
            time.sleep(every)
