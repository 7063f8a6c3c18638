"""areaDetector's overlays: `AD_OverlayPlugin`."""

from __future__ import annotations

from ..device import Device as Device
from .ad_base import AD_Base


class AD_OverlayPlugin(AD_Base):
    """An areaDetector overlay, drawn into images."""

    attrs = (
        *("Name", "Name_RBV", "Use", "Use_RBV"),
        *("PositionX", "PositionX_RBV", "PositionY", "PositionY_RBV"),
        *("PositionXLink", "PositionYLink", "SizeXLink", "SizeYLink"),
        *("SizeX", "SizeX_RBV", "SizeY", "SizeY_RBV", "Shape", "Shape_RBV"),
        *("DrawMode", "DrawMode_RBV"),
        *("Red", "Red_RBV", "Green", "Green_RBV", "Blue", "Blue_RBV"),
    )
