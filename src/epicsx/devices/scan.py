"""synApps' sscan record: `Scan`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..ca import poll
from ..device import Device
from ._common import fresh

NUM_POSITIONERS = 4
NUM_TRIGGERS = 4
NUM_DETECTORS = 70

_MODES = ("linear", "table", "fly")


def _mode(text: str) -> int:
    """The number of a positioner's mode; linear for whatever is none."""
    return next((i for i, mode in enumerate(_MODES) if text.lower().startswith(mode)), 0)


def _relative(absolute: bool) -> int:
    return int(not absolute)


# A positioner's settings: the field, and what makes its value.
_SETTINGS: dict[str, tuple[str, Callable[[Any], int] | None]] = {
    "drive": ("P%iPV", None),
    "readback": ("R%iPV", None),
    "start": ("P%iSP", None),
    "stop": ("P%iEP", None),
    "step": ("P%iSI", None),
    "center": ("P%iCP", None),
    "width": ("P%iWD", None),
    "array": ("P%iPA", None),
    "absolute": ("P%iAR", _relative),
    "mode": ("P%iSM", _mode),
}


class ScanException(Exception):
    """A name that is no sscan record, or no room for one more positioner, trigger or detector."""

    def __init__(self, msg: Any, *args: Any) -> None:
        super().__init__(*args)
        self.msg = msg

    def __str__(self) -> str:
        return str(self.msg)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, *self.args)


class Scan(Device):
    """An sscan record.

    Parameters
    ----------
    name : str
        Name of the record.

    Raises
    ------
    ScanException
        It is not an sscan record.
    """

    attrs = (
        *("VAL", "SMSG", "CMND", "NPTS", "EXSC", "NAME", "PDLY", "PAUS", "CPT"),
        "DDLY",
    )
    pos_attrs = ("PV", "SP", "EP", "SI", "CP", "WD", "PA", "AR", "SM")
    trig_attrs = ("PV", "NV")
    _alias = {
        "device": "P1PV",
        "start": "P1SP",
        "end": "P1EP",
        "step": "P1SI",
        "table": "P1PA",
        "absrel": "P1AR",
        "mode": "P1SM",
        "npts": "NPTS",
        "execute": "EXSC",
        "trigger": "T1PV",
        "pause": "PAUS",
        "current_point": "CPT",
    }
    _nonpvs = (*Device._nonpvs, "waitSemaphore")

    def __init__(self, name: str, **kwargs: Any) -> None:
        self.waitSemaphore = threading.Semaphore(0)
        name = name.removesuffix(".")
        attrs = (
            *self.attrs,
            *(f"P{i}{attr}" for i in range(1, NUM_POSITIONERS + 1) for attr in self.pos_attrs),
            *(f"T{i}{attr}" for i in range(1, NUM_TRIGGERS + 1) for attr in self.trig_attrs),
            *(f"D{i:02}PV" for i in range(1, NUM_DETECTORS + 1)),
        )
        super().__init__(name, delim=".", attrs=attrs, **kwargs)
        for attr, field in self._alias.items():
            self.add_pv(f"{name}.{field}", attr)
        if self.get("RTYP") != "sscan":
            raise ScanException(f"{name} is not an Epics Scan")
        self.put("SMSG", "")

    def run(self, wait: bool = False, timeout: float = 86400) -> None:
        """Start the scan, and `wait` for its end, at most `timeout` seconds (a day)."""
        self.put("EXSC", 1, wait=wait, timeout=timeout)

    def _onDone(self, **kwargs: Any) -> None:
        """Release ``waitSemaphore``; to be added as callback of EXSC."""
        if kwargs["value"] == 0:
            self.waitSemaphore.release()

    def reset(self) -> None:
        """Clear all positioners, triggers and detectors, and set the number of points to 0."""
        self.put("NPTS", 0)
        for i in range(1, NUM_TRIGGERS + 1):
            self.clear_trigger(i)
        for i in range(1, NUM_POSITIONERS + 1):
            self.clear_positioner(i)
        for i in range(1, NUM_DETECTORS + 1):
            self.clear_detector(i)
        poll()

    def _print(self) -> None:
        """Print the first positioner, its range, the number of points and the first trigger."""
        for label, attr in (("PV", "P1PV"), ("SP", "P1SP"), ("EP", "P1EP"), ("NPTS", "NPTS")):
            print(f"{label} = {self.get(attr)}")
        print(f"T  = {self.get('T1PV')}")

    def _free(self, attr: str, of: int, what: str) -> int:
        """The first number from 1 to `of` whose PV name is not set; two characters make a name."""
        for i in range(1, of + 1):
            if len(fresh(self, attr % i)) < 2:
                return i
        raise ScanException(f"{of} {what} already defined.")

    # -------------------------------------------------------------- detectors

    def clear_detector(self, idet: int = 1) -> None:
        """Remove a detector, 1 to 70."""
        self.put(f"D{idet:02}PV", "")

    def add_detector(self, detector: str) -> int:
        """The number, 1 to 70, as which a detector, the name of a PV, has been added."""
        idet = self._free("D%02iPV", NUM_DETECTORS, "Detectors")
        self.put(f"D{idet:02}PV", detector, wait=True)
        return idet

    # --------------------------------------------------------------- triggers

    def clear_trigger(self, itrig: int = 1) -> None:
        """Remove a trigger, 1 to 4."""
        self.put(f"T{itrig}PV", "")

    def add_trigger(self, trigger: str, value: float = 1.0) -> int:
        """The number, 1 to 4, as which a trigger has been added: the name of a PV, and what is written to it."""
        itrig = self._free("T%iPV", NUM_TRIGGERS, "Triggers")
        self.put(f"T{itrig}PV", trigger, wait=True)
        self.put(f"T{itrig}CD", value, wait=True)
        return itrig

    # ------------------------------------------------------------ positioners

    def clear_positioner(self, ipos: int = 1) -> None:
        """Remove a positioner, 1 to 4, with all its settings."""
        empty: dict[str, Any] = {"PV": "", "PA": [0]}
        for attr in self.pos_attrs:
            self.put(f"P{ipos}{attr}", empty.get(attr, 0))
        self.put(f"R{ipos}PV", "")

    def add_positioner(
        self,
        drive: str,
        readback: str | None = None,
        start: float | None = None,
        stop: float | None = None,
        step: float | None = None,
        center: float | None = None,
        width: float | None = None,
        mode: str = "linear",
        absolute: bool = True,
        array: Any = None,
    ) -> int:
        """The number, 1 to 4, as which a positioner has been added.

        Parameters
        ----------
        drive, readback : str
            Names of the PVs; the readback of one that ends in .VAL is its .RBV unless given.
        start, stop, step, center, width : float
            Its range, what of it is given.
        mode : str
            What begins with ``'linear'``, ``'table'`` or ``'fly'``.
        absolute : bool
            Or relative to where it is at the start.
        array : sequence of float
            The positions, in mode table or fly.

        Raises
        ------
        ScanException
            There are four already.
        """
        ipos = self._free("P%iPV", NUM_POSITIONERS, "Positioners")
        self.put(f"P{ipos}PV", drive, wait=True)
        if readback is None and drive.endswith(".VAL"):
            readback = drive.removesuffix(".VAL") + ".RBV"
        self._set(
            ipos,
            *(("readback", readback), ("absolute", absolute), ("mode", mode)),
            *(("start", start), ("stop", stop), ("step", step), ("center", center)),
            *(("width", width), ("array", array if _mode(mode) else None)),
        )
        return ipos

    def set_positioner(
        self,
        ipos: int | None,
        drive: str | None = None,
        readback: str | None = None,
        start: float | None = None,
        stop: float | None = None,
        step: float | None = None,
        center: float | None = None,
        width: float | None = None,
        mode: str | None = None,
        absolute: bool | None = None,
        array: Any = None,
    ) -> None:
        """Change a positioner, 1 to 4: what is given, as of `add_positioner`, and nothing else."""
        if ipos is None:
            raise ScanException("must give positioner index")
        self._set(
            ipos,
            *(("drive", drive), ("readback", readback), ("start", start), ("stop", stop)),
            *(("step", step), ("center", center), ("width", width), ("array", array)),
            *(("absolute", absolute), ("mode", mode)),
        )

    def _set(self, ipos: int, *settings: tuple[str, Any]) -> None:
        """Write those settings that are not None, in the order given."""
        for name, value in settings:
            if value is not None:
                field, convert = _SETTINGS[name]
                self.put(field % ipos, value if convert is None else convert(value))

    # ------------------------------------------------------- the scan's times

    def after_scan(self, mode: Any) -> None:
        """Set what the positioners do after the scan: PASM, its number or text."""
        self.put("PASM", mode, wait=True)

    def positioner_delay(self, pdelay: float) -> None:
        """Set the seconds waited after each motion."""
        self.put("PDLY", pdelay, wait=True)

    def detector_delay(self, pdelay: float) -> None:
        """Set the seconds waited before the detectors are read."""
        self.put("DDLY", pdelay, wait=True)

    # ------------------------------------------------- by the names of 2011

    posit_attrs = pos_attrs

    def setPositioner(self, positioner: str | None = None, index: int = 1) -> None:
        """Set the PV of a positioner."""
        if positioner:
            self.put(f"P{index}PV", positioner)

    def setStart(self, start: float = 0, index: int = 1) -> None:
        """Set where a positioner starts."""
        self.put(f"P{index}SP", start)

    def setEnd(self, end: float = 0, index: int = 1) -> None:
        """Set where a positioner ends."""
        self.put(f"P{index}EP", end)

    def setNpts(self, npts: int) -> None:
        """Set the number of points."""
        self.put("NPTS", npts)

    def setDelay(self, delay: float) -> None:
        """Set the seconds waited after each motion."""
        self.put("PDLY", delay)

    def setPause(self, value: int) -> None:
        """Pause the scan (1), or let it go on (0)."""
        self.put("PAUS", value)

    def getCpt(self) -> Any:
        """The number of the present point."""
        return self.get("CPT")

    def loop(self, inner_scan: Scan) -> None:
        """Have each point of this scan run another; what was the method `trigger` is the attribute T1PV now."""
        self.put("T1PV", f"{inner_scan.get('NAME')}.EXSC")
