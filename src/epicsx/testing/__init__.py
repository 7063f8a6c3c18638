"""A real EPICS soft IOC for tests, and what else a test of Channel Access needs.

Importing this package loads no part of epicsx's core and no libca, so that a test may choose the
Channel Access environment first.
"""

from __future__ import annotations

from epicsx._wire import Command, Frame
from epicsx.testing.areadetector import AreaDetectorIOC
from epicsx.testing.fakeserver import FakePV, FakeServer
from epicsx.testing.ports import Loopback, free_port
from epicsx.testing.proxy import CAProxy, ProxyError
from epicsx.testing.pvset import MotorIOC, PVSet, ScalerIOC
from epicsx.testing.recorded import recorded_frames
from epicsx.testing.repeater import Repeater
from epicsx.testing.softioc import Casr, SoftIOC, SoftIOCError, configure_environment

__all__ = [
    "AreaDetectorIOC",
    "CAProxy",
    "Casr",
    "Command",
    "FakePV",
    "FakeServer",
    "Frame",
    "Loopback",
    "MotorIOC",
    "PVSet",
    "ProxyError",
    "Repeater",
    "ScalerIOC",
    "SoftIOC",
    "SoftIOCError",
    "configure_environment",
    "free_port",
    "recorded_frames",
]
