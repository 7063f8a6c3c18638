"""synApps' scaler record with its calculations: `Scaler`."""

from __future__ import annotations

from typing import Any

from ..ca import poll as poll
from ..device import Device
from ._common import spelt_before


class Scaler(Device):
    """A scaler record, its channels' names and counts, and the calculations made of them.

    Parameters
    ----------
    prefix : str
        Name of the record.
    nchan : int
        Number of channels in use; they are numbered from 1.
    """

    attrs = ("CNT", "CONT", "TP", "T", "VAL")
    attr_kws = {"calc_enable": "%s_calcEnable.VAL"}
    chan_attrs = ("NM%i", "S%i")
    calc_attrs = {"calc%i": "%s_calc%i.VAL", "expr%i": "%s_calc%i.CALC"}
    _nonpvs = (*Device._nonpvs, "_nchan", "_chans")

    def __init__(self, prefix: str, nchan: int = 8) -> None:
        self._nchan = nchan
        self._chans = range(1, nchan + 1)
        prefix = prefix.removesuffix(".")
        channels = [attr % i for i in self._chans for attr in self.chan_attrs]
        super().__init__(prefix, delim=".", attrs=(*self.attrs, *channels), mutable=False)
        for attr, name in self.attr_kws.items():
            self.add_pv(name % prefix, attr=attr)
        for i in self._chans:
            for attr, name in self.calc_attrs.items():
                self.add_pv(name % (prefix, i), attr=attr % i)

    def AutoCountMode(self) -> None:
        """Count again and again."""
        self.put("CONT", 1)

    def OneShotMode(self) -> None:
        """Count once for each `Count`."""
        self.put("CONT", 0)

    @spelt_before(t="ctime")
    def CountTime(self, ctime: float) -> None:
        """Set for how many seconds to count."""
        self.put("TP", ctime)

    @spelt_before(t="ctime")
    def Count(self, ctime: float | None = None, wait: bool = False) -> None:
        """Start counting, for `ctime` seconds if given, and `wait` for its end (10 seconds at most)."""
        if ctime is not None:
            self.CountTime(ctime)
        self.put("CNT", 1, wait=wait)

    def EnableCalcs(self) -> None:
        """Have the calculations made."""
        self.put("calc_enable", 1)

    enableCalcs = EnableCalcs

    @spelt_before(s="calc")
    def setCalc(self, i: int, calc: str) -> None:
        """Set the expression of calculation `i`, in which A is channel 1's count."""
        self.put(f"expr{i}", calc)

    def getNames(self) -> list[Any]:
        """The names of all channels."""
        return self._read("NM%i")

    @spelt_before(use_calcs="use_calc")
    def Read(self, use_calc: bool = False) -> list[Any]:
        """The counts of all channels, or the results of their calculations."""
        return self._read("calc%i" if use_calc else "S%i")

    def _read(self, attr: str) -> list[Any]:
        return [self.get(attr % i) for i in self._chans]
