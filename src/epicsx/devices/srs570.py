"""The current amplifier SR570 of Stanford Research Systems: `SRS570`."""

from __future__ import annotations

from .._texts import failed
from ..device import Device
from ..errors import BadValueError

VALID_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500]
VALID_UNITS = ["pA/V", "nA/V", "uA/V", "mA/V"]

_TENTH = 3  # so many steps are a factor of 10


class SRS570(Device):
    """An SR570; making one sets its bias to 0, low noise, no filter and no inversion."""

    attrs = (
        *("sens_num", "sens_unit", "offset_num", "offset_unit", "offset_sign", "offset_on"),
        *("off_u_put", "bias_put", "gain_mode", "filter_type", "invert_on", "init.PROC"),
    )

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix, delim="", attrs=self.attrs, mutable=False)
        self.initialize()

    def initialize(
        self, bias: float = 0, gain_mode: int = 0, filter_type: int = 0, invert: bool = False
    ) -> None:
        """Set gain mode (0 is low noise), filter (0 is none), inversion and bias."""
        self.put("gain_mode", gain_mode)
        self.put("filter_type", filter_type)
        self.put("invert_on", int(bool(invert)))
        self.put("bias_put", bias)

    def set_sensitivity(
        self, value: int, units: str, offset: float | None = None, scale_offset: bool = True
    ) -> None:
        """Set the sensitivity, and the input offset to a tenth of it, 1 pA at least, if `scale_offset`.

        Parameters
        ----------
        value : int
            One of ``VALID_STEPS``; anything else changes nothing and prints a line.
        units : str
            One of ``VALID_UNITS``.
        offset : float
            The offset's uncalibrated value, if given.
        """
        if value not in VALID_STEPS or units not in VALID_UNITS:
            print("invalid input")
            return failed(BadValueError(f"no sensitivity of an SR570: {value} {units}"), None)
        step, unit = VALID_STEPS.index(value), VALID_UNITS.index(units)
        self.put("sens_num", step)
        self.put("sens_unit", unit)
        if scale_offset:
            tenth = max(unit * len(VALID_STEPS) + step - _TENTH, 0)
            offset_unit, offset_step = divmod(tenth, len(VALID_STEPS))
            self.put("offset_num", offset_step)
            self.put("offset_unit", offset_unit)
        if offset is not None:
            self.set_offset(offset)
        self.put("init.PROC", 1)
        return None

    def set_offset(self, value: float) -> None:
        """Set the input offset's uncalibrated value."""
        self.put("off_u_put", value)

    def increase_sensitivity(self) -> None:
        """Make it one step more sensitive, down to 1 pA/V."""
        self._step(-1)

    def decrease_sensitivity(self) -> None:
        """Make it one step less sensitive, up to 500 mA/V."""
        self._step(1)

    def _step(self, by: int) -> None:
        steps = len(VALID_STEPS)
        present = self.get("sens_unit") * steps + self.get("sens_num")
        unit, step = divmod(min(max(present + by, 0), steps * len(VALID_UNITS) - 1), steps)
        self.set_sensitivity(VALID_STEPS[step], VALID_UNITS[unit])
