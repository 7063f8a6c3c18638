"""areaDetector's standard array plugin: `AD_ImagePlugin`."""

from __future__ import annotations

from ..device import Device as Device
from .ad_base import AD_Base


class AD_ImagePlugin(AD_Base):
    """An areaDetector plugin that gives images as arrays."""

    attrs = (
        *("ArrayData", "UniqueId", "UniqueId_RBV", "NDimensions", "NDimensions_RBV"),
        *("ArraySize0", "ArraySize0_RBV", "ArraySize1", "ArraySize1_RBV"),
        *("ArraySize2", "ArraySize2_RBV", "ColorMode", "ColorMode_RBV"),
    )
