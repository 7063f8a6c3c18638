"""Spectra of areaDetector, with regions by its ROIStat plugin: `ADMCA`, `ADMCAROI`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ca import poll
from ..device import Device
from ..functional import caput as caput
from ..pv import PV, get_pv
from . import _rois
from ._common import fresh

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CHAN = 4096
MAX_ROIS = 48
TOOMANY_ROIS = f"Too many ROIS, only {MAX_ROIS} ROIS allowed."

_LIMITS = ("Name", "MinX", "SizeX")


class ADMCAROI(_rois.Ordered, Device):
    """A region of the ROIStat plugin: ``prefix:roi:``. Two are in order by MinX.

    Also ``left, width, name, sum, net`` for MinX, SizeX, Name, Total_RBV and Net_RBV.

    Parameters
    ----------
    prefix : str
        What its names begin with, without the colon.
    roi : int
        Its number, from 1.
    bgr_width : int
        Number of channels on each side from which `get_counts` takes the background.
    data_pv : PV
        The spectrum from which `get_counts` takes the counts.
    """

    _attrs = (
        *("Use", "Name", "MinX", "SizeX", "BgdWidth", "SizeX_RBV", "MinX_RBV"),
        *("Total_RBV", "Net_RBV"),
    )
    _aliases = {
        "left": "MinX",
        "width": "SizeX",
        "name": "Name",
        "sum": "Total_RBV",
        "net": "Net_RBV",
    }
    _nonpvs = (*Device._nonpvs, "data_pv", "bgr_width")
    _ordered_by = "MinX"
    _equal_by = ("MinX", "SizeX", "BgdWidth")
    _reprfmt = "<ADMCAROI '%s', name='%s', range=[%s:%s]>"

    def __init__(
        self,
        prefix: str,
        roi: int = 1,
        bgr_width: int = 3,
        data_pv: PV | None = None,
        with_poll: bool = False,
    ) -> None:
        super().__init__(
            f"{prefix}:{roi}",
            delim=":",
            attrs=_LIMITS,
            aliases=self._aliases,
            with_poll=with_poll,
        )
        self.bgr_width = bgr_width
        self.data_pv = data_pv

    def __repr__(self) -> str:
        prefix = (self._prefix or "").removesuffix(".")
        return self._reprfmt % (prefix, self.Name, self.MinX, self.get_right())

    def get_right(self) -> Any:
        """The first channel and the size."""
        return self.MinX + self.SizeX

    def set_right(self, val: int) -> None:
        """Set the size so that the region ends there, and starts where it did."""
        self.put("SizeX", val - fresh(self, "MinX"))

    right = property(get_right, set_right)

    def get_center(self) -> int:
        """The channel in the middle."""
        center: int = round(self.MinX + self.SizeX / 2.0)
        return center

    def set_center(self, val: float) -> None:
        """Move the region, leaving its size."""
        self.put("MinX", round(val - fresh(self, "SizeX") / 2.0))

    center = property(get_center, set_center)

    def clear(self) -> None:
        """Remove the region."""
        for attr, value in zip(_LIMITS, ("", 0, 0), strict=True):
            self.put(attr, value)

    def get_counts(self, data: Any = None, net: bool = False) -> Any:
        """The counts, or `net` those above the background, which is taken from both sides.

        Parameters
        ----------
        data : ndarray
            The spectrum; that of `data_pv` if None, or the plugin's own answer where there is none.
        """
        if data is None and self.data_pv is not None:
            data = self.data_pv.get()
        if not isinstance(data, np.ndarray):
            return self.Net_RBV if net else self.Total_RBV
        return _rois.counts(data, self.MinX, self.get_right(), int(self.bgr_width), net)

    def _limits(self) -> tuple[Any, ...]:
        """What the server has: name, first channel, size."""
        return tuple(fresh(self, attr) for attr in _LIMITS)


class ADMCA(Device):
    """A spectrum of areaDetector and its regions.

    Parameters
    ----------
    prefix : str
        Of the detector, which it starts and stops.
    data_pv : str
        PV of the spectrum, the attribute VAL.
    nrois : int
        How many regions to look for; 48 if None.
    roi_prefix : str
        What the regions' names begin with: ``roi_prefix:1:Name`` and so on. There are none if None.
    """

    _attrs = ("AcquireTime", "Acquire", "NumImages")
    _nonpvs = (*Device._nonpvs, "_roi_prefix", "_npts", "rois", "_nrois", "_calib")
    _calib = (0.00, 0.01, 0.00)

    def __init__(
        self,
        prefix: str,
        data_pv: str | None = None,
        nrois: int | None = None,
        roi_prefix: str | None = None,
    ) -> None:
        super().__init__(prefix, attrs=self._attrs, with_poll=False)
        self._pvs["VAL"] = None if data_pv is None else PV(data_pv)
        self._npts: int | None = None
        self._nrois = MAX_ROIS if nrois is None else nrois
        self._roi_prefix = roi_prefix
        if roi_prefix is not None:  # so that they connect together, before they are asked for
            for i in range(self._nrois):
                for attr in _LIMITS:
                    get_pv(f"{roi_prefix}:{i + 1}:{attr}")
        poll()
        self.rois: list[ADMCAROI] = []
        self.get_rois()

    def start(self) -> Any:
        """Start. The value of Acquire."""
        self.put("Acquire", 1)
        return self.get("Acquire")

    def stop(self) -> Any:
        """Stop. The value of Acquire."""
        self.put("Acquire", 0)
        return self.get("Acquire")

    # --------------------------------------------------------- calibration

    def get_calib(self) -> tuple[float, float, float]:
        """Offset, slope and quadratic term of the energy by channel, in keV."""
        return self._calib

    def get_energy(self) -> np.ndarray[Any, Any]:
        """The energies of all channels; their number is that of the first spectrum read."""
        channels = np.arange(self._channels(), dtype="f8")
        offset, slope, quad = self._calib
        return offset + channels * (slope + channels * quad)

    def _channels(self) -> int:
        if self._npts is None and self._pvs["VAL"] is not None:
            self._npts = np.size(self._pvs["VAL"].get())
        return MAX_CHAN if self._npts is None else self._npts

    # ------------------------------------------------------------- regions

    def _roi(self, i: int) -> ADMCAROI:
        return ADMCAROI(self._roi_prefix or "", roi=i, data_pv=self._pvs["VAL"])

    def get_rois(self, nrois: int | None = None) -> list[ADMCAROI]:
        """The regions there are: up to the first without a name, or whose start or size is 0."""
        self.rois = []
        if self._roi_prefix is not None:
            for i in range(1, 1 + (self._nrois if nrois is None else nrois)):
                roi = self._roi(i)
                name, low, size = roi._limits()
                if name is None:  # it does not answer
                    continue
                if not name.strip() or low <= 0 or size <= 0:
                    break
                self.rois.append(roi)
        return self.rois

    def clear_rois(self, nrois: int | None = None) -> None:
        """Remove all regions."""
        for roi in self.rois:
            roi.clear()
        self.rois = []

    def del_roi(self, roiname: str) -> None:
        """Remove the regions of that name, in capitals or not, and close the gap."""
        unwanted = roiname.strip().lower()
        for roi in self.rois:
            if fresh(roi, "Name").strip().lower() == unwanted:
                roi.clear()
        self.sort_rois()

    def add_roi(
        self,
        roiname: str,
        lo: int | None,
        wid: int | None = None,
        hi: int | None = None,
        sort: bool = True,
    ) -> None:
        """Add a region by its name, its first channel, and its last one or its width.

        Parameters
        ----------
        sort : bool
            Bring all regions in order.

        Raises
        ------
        ValueError
            There are 48 already.
        """
        if lo is None or (hi is None and wid is None):
            return
        if len(self.rois) >= MAX_ROIS:
            raise ValueError(TOOMANY_ROIS)
        channels = self._channels()
        low = min(channels - 1, lo)
        if hi is None:
            hi = low + (wid or 0)
        roi = self._roi(len(self.rois) + 1)
        values = (roiname.strip(), low, min(channels, hi) - low)
        for attr, value in zip(_LIMITS, values, strict=True):
            roi.put(attr, value)
        self.rois.append(roi)
        if sort:
            self.sort_rois()

    def sort_rois(self) -> None:
        """Write the regions anew, ordered by their first channel, without those that have no name."""
        limits = [roi._limits() for roi in self.rois]
        wanted = [each for each in limits if each[0] and each[1] + each[2] > 0]
        table = sorted(wanted, key=lambda each: each[1])
        for i, values in enumerate((*table, ("", 0, 0))[:MAX_ROIS]):
            roi = self._roi(i + 1)
            for attr, value in zip(_LIMITS, values, strict=True):
                roi.put(attr, value)
        self.get_rois()

    def set_rois(self, roidata: Iterable[tuple[str, int, int]]) -> None:
        """Have these regions, given as name, first and last channel, and no others.

        Raises
        ------
        ValueError
            They are more than 47.
        """
        wanted = [roi for roi in roidata if roi[0] and roi[2] > roi[1] and roi[2] > 0]
        if len(wanted) >= MAX_ROIS:
            raise ValueError(TOOMANY_ROIS)
        self.clear_rois()
        for name, lo, hi in wanted:
            self.add_roi(name, lo, hi=hi, sort=False)
        self.sort_rois()
