"""areaDetector's cameras: `AD_Camera`; and what its plugins share: `AD_Base`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..device import Device


class AD_Base(Device):
    """A camera or plugin: the PVs of `attrs`, and no others."""

    attrs: Sequence[str] = ()

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix, delim="", mutable=False, attrs=self.attrs)

    def ensure_value(self, attr: str, value: Any, wait: bool = False) -> int | None:
        """Write to an attribute, unless the text of its ``_RBV`` is `value` already.

        Gives what ``PV.put`` does for an attribute without readback, else None.
        """
        readback = self._pvs.get(f"{attr}_RBV")
        if readback is None:
            return self._pvs[attr].put(value, wait=wait)  # type: ignore[no-any-return]
        if readback.get(as_string=True) != value:
            self._pvs[attr].put(value, wait=wait)
        return None


class AD_Camera(AD_Base):
    """An areaDetector camera."""

    attrs = (
        *("Acquire", "AcquirePeriod", "AcquirePeriod_RBV", "AcquireTime", "AcquireTime_RBV"),
        *("ArrayCallbacks", "ArrayCallbacks_RBV", "ArrayCounter", "ArrayCounter_RBV"),
        *("ArrayRate_RBV", "ArraySizeX_RBV", "ArraySizeY_RBV", "ArraySize_RBV"),
        *("BinX", "BinX_RBV", "BinY", "BinY_RBV", "ColorMode", "ColorMode_RBV"),
        *("DataType", "DataType_RBV", "DetectorState_RBV", "Gain", "Gain_RBV"),
        *("ImageMode", "ImageMode_RBV", "MaxSizeX_RBV", "MaxSizeY_RBV"),
        *("MinX", "MinX_RBV", "MinY", "MinY_RBV", "NumImages", "NumImagesCounter_RBV"),
        *("NumImages_RBV", "SizeX", "SizeX_RBV", "SizeY", "SizeY_RBV", "TimeRemaining_RBV"),
        *("TriggerMode", "TriggerMode_RBV", "TriggerSoftware"),
    )
