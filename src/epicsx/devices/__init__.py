"""Devices: groups of PVs with methods, for records and detectors that are common at synchrotrons.

`epicsx.devices.ad_mca` and `epicsx.devices.xspress3` have more.
"""

from __future__ import annotations

from .ad_base import AD_Base, AD_Camera
from .ad_fileplugin import AD_FilePlugin
from .ad_image import AD_ImagePlugin
from .ad_overlay import AD_OverlayPlugin
from .ad_perkinelmer import AD_PerkinElmer
from .ai import ai
from .ao import ao
from .bi import bi
from .bo import bo
from .mca import DXP, MCA, ROI, MultiXMAP
from .scaler import Scaler
from .scan import Scan
from .srs570 import SRS570
from .struck import Struck
from .transform import Transform

Mca = MCA

__all__ = [
    "DXP",
    "MCA",
    "ROI",
    "SRS570",
    "AD_Base",
    "AD_Camera",
    "AD_FilePlugin",
    "AD_ImagePlugin",
    "AD_OverlayPlugin",
    "AD_PerkinElmer",
    "Mca",
    "MultiXMAP",
    "Scaler",
    "Scan",
    "Struck",
    "Transform",
    "ai",
    "ao",
    "bi",
    "bo",
]
