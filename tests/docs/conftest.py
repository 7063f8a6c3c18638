"""What the documentation's snippets talk to: the servers whose PVs its pages name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epicsx.testing import AreaDetectorIOC, Loopback, MotorIOC, Repeater, SoftIOC
from epicsx.testing.areadetector import numbered_frame

DB = Path(__file__).parent.parent / "db" / "docs.db"
SHAPE = (240, 660)


@pytest.fixture(scope="module")
def lab() -> Iterator[dict[str, str]]:
    """Give the environment of a client that finds an IOC, a motor ``my:motor`` and the camera ``13SIM1:``."""
    pytest.importorskip("caproto")
    loopback = Loopback(spare=2)
    # The snippets' processes would leave one behind.
    own = Repeater(loopback.repeater_port).start()
    assert own.wait(20.0)
    repeater: dict[str, Any] = {"repeater_port": loopback.repeater_port}
    camera = AreaDetectorIOC(
        prefix="13SIM1:",
        ftvl="USHORT",
        nelements=SHAPE[0] * SHAPE[1],
        roi="ROI1:",
        server_port=loopback.spare_ports[1],
        **repeater,
    )
    frames = [numbered_frame(number, SHAPE, "uint16") for number in range(10)]
    enough = threading.Event()

    def feed() -> None:
        while not enough.is_set():
            camera.play(frames, 20.0)

    with (
        SoftIOC(DB, server_port=loopback.server_port, **repeater),
        MotorIOC(
            {"motor": {"VELO": 100.0}},
            prefix="my:",
            server_port=loopback.spare_ports[0],
            **repeater,
        ),
        camera,
    ):
        feeder = threading.Thread(target=feed, name="camera")
        feeder.start()
        yield loopback.env
        enough.set()
        feeder.join()
    own.stop()
