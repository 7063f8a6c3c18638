"""The multichannel scalers SIS 3820 and 3801 of Struck: `Struck`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..device import Device
from ..utils import IOENCODING
from ._common import spelt_before
from .mca import MCA
from .scaler import Scaler

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

HEADER = """\
# Struck MCA data: %s
# Nchannels, Nmca = %i, %i
# Time in microseconds
#----------------------
# %s
# %s
"""


class Struck(Device):
    """A multichannel scaler.

    Parameters
    ----------
    prefix : str
        What all names begin with; a colon is added if there is none.
    scaler : str
        Name of the scaler record by which it counts without its channels, if there is one.
    nchan : int
        Number of inputs: ``mcas`` has an MCA for each.
    clockrate : float, MHz
        Of what the first input counts.
    """

    attrs = (
        *("ChannelAdvance", "Prescale", "EraseStart", "EraseAll", "StartAll", "StopAll"),
        *("PresetReal", "ElapsedReal", "Dwell", "Acquiring", "NuseAll", "CurrentChannel"),
        *("CountOnStart", "SoftwareChannelAdvance", "Channel1Source", "ReadAll", "DoReadAll"),
        *("Model", "Firmware"),
    )
    _nonpvs = (*Device._nonpvs, "_nchan", "clockrate", "scaler", "mcas")

    def __init__(
        self, prefix: str, scaler: str | None = None, nchan: int = 8, clockrate: float = 50.0
    ) -> None:
        prefix = prefix.removesuffix(":") + ":"
        self._nchan = nchan
        self.clockrate = clockrate
        self.scaler = None if scaler is None else Scaler(scaler, nchan=nchan)
        self.mcas = [MCA(prefix, mca=i + 1, nrois=2) for i in range(nchan)]
        super().__init__(prefix, delim="", attrs=self.attrs, mutable=False)

    def ExternalMode(
        self,
        countonstart: int | None = 0,
        initialadvance: int | None = None,
        realtime: float | None = 0,
        prescale: int | None = 1,
    ) -> int | None:
        """Go on to the next channel at each pulse from outside. Gives what the put of ChannelAdvance did.

        Parameters
        ----------
        countonstart, initialadvance, realtime, prescale
            Values of CountOnStart, InitialChannelAdvance, PresetReal and Prescale; None leaves one as it is.
        """
        out = self._advance(1)
        for attr, value in (
            ("PresetReal", realtime),
            ("Prescale", prescale),
            ("CountOnStart", countonstart),
            ("InitialChannelAdvance", initialadvance),
        ):
            if value is not None:
                self.put(attr, value)
        return out

    def InternalMode(self, prescale: int | None = None) -> int | None:
        """Go on to the next channel by its own clock. Gives what the put of ChannelAdvance did."""
        out = self._advance(0)
        if prescale is not None:
            self.put("Prescale", prescale)
        return out

    def _advance(self, mode: int) -> int | None:
        out = self.put("ChannelAdvance", mode)
        if self.scaler is not None:
            self.scaler.OneShotMode()
        return out

    def setPresetReal(self, val: float) -> int | None:
        """Set the seconds after which to stop; 0 for never."""
        return self.put("PresetReal", val)

    def setDwell(self, val: float) -> int | None:
        """Set the seconds of a channel, by the own clock."""
        return self.put("Dwell", val)

    def AutoCountMode(self) -> None:
        """Have the scaler count again and again."""
        if self.scaler is not None:
            self.scaler.AutoCountMode()

    def start(self) -> int | None:
        """Erase and start."""
        if self.scaler is not None:
            self.scaler.OneShotMode()
        return self.put("EraseStart", 1)

    def stop(self) -> int | None:
        """Stop."""
        return self.put("StopAll", 1)

    def erase(self) -> int | None:
        """Erase."""
        return self.put("EraseAll", 1)

    # ---------------------------------------------------------------- data

    def mcaNread(self, nmca: int = 1) -> Any:
        """How many channels an input, from 1, has read."""
        return self.get(f"mca{nmca}.NORD")

    @spelt_before(n="nmca")
    def readmca(self, nmca: int = 1, count: int | None = None) -> Any:
        """The channels of an input, from 1; at most `count`."""
        return self.get(f"mca{nmca}", count=count)

    def read_all_mcas(self) -> list[Any]:
        """The channels of all inputs."""
        return [self.readmca(nmca=i + 1) for i in range(self._nchan)]

    def saveMCAdata(
        self,
        fname: str | PathLike[str] = "Struck.dat",
        mcas: Iterable[int] | None = None,
        ignore_prefix: str | None = None,
        npts: int | None = None,
    ) -> tuple[int, int]:
        """Write the channels of the inputs as columns of a text file; the numbers of columns and of lines.

        An input whose scaler channel has no name is left out if it has counted nothing. The first input's counts are
        written as microseconds.

        Parameters
        ----------
        mcas : sequence of int
            The inputs, from 1; all if None.
        ignore_prefix : str
            Leave out inputs whose names begin with it.
        npts : int
            At most so many lines; as many as the shortest column has if None.
        """
        names, addresses, columns = [], [], []
        shortest = npts
        for i in range(1, self._nchan + 1) if mcas is None else mcas:
            name, address = self._names(i)
            if ignore_prefix is not None and name.startswith(ignore_prefix):
                continue
            data = self.readmca(nmca=i)
            if data is None:
                raise ValueError(f"no data of {self._prefix}mca{i}")
            data = np.atleast_1d(data)
            shortest = len(data) if shortest is None else min(shortest, len(data))
            if name or data.sum() > 0:
                names.append(name)
                addresses.append(address)
                # The counts' type, as they would be without a clock.
                columns.append((data / self.clockrate).astype(data.dtype) if i == 1 else data)
        lines = list(zip(*(column[:shortest] for column in columns), strict=True))
        form = "%9i " * len(columns) + "\n"
        texts = (" | ".join(addresses), " | ".join(names))
        with open(fname, "w", encoding=IOENCODING) as file:
            file.write(HEADER % (self._prefix, len(lines), len(columns), *texts))
            file.writelines(form % line for line in lines)
        return len(columns), len(lines)

    def _names(self, i: int) -> tuple[str, str]:
        """What an input is called in a file, and where its counts come from."""
        name, address = f"MCA{i}", f"{self._prefix}.MCA{i}"
        if self.scaler is not None:
            known = self.scaler.get(f"NM{i}")
            if known is not None:
                name, address = known.replace(" ", "_"), f"{self.scaler._prefix}S{i}"
        return name, address
