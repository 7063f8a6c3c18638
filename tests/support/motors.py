"""`motors`: simulated motor records in a subprocess, which EPICS base does not have; caproto's own simulation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from epicsx.testing.ports import client_environment
from support.subprocesses import start_python

_SCRIPT = """
import sys
from caproto.ioc_examples.fake_motor_record import FakeMotorIOC
from caproto.server import run

ioc = FakeMotorIOC(prefix=sys.argv[1])
for motor in (ioc.motor1, ioc.motor2, ioc.motor3):
    # as if it were beyond its limits, for ever, unless it begins otherwise
    motor.motor.field_inst.limit_violation._data["value"] = 0
    motor.defaults["velocity"] = 50.0

async def ready(library):
    for motor in (ioc.motor1, ioc.motor2, ioc.motor3):
        low, high = motor.defaults["user_limits"]
        await motor.motor.write_metadata(lower_ctrl_limit=low, upper_ctrl_limit=high)
    print("ready", flush=True)

run(ioc.pvdb, interfaces=["127.0.0.1"], startup_hook=ready)
"""


@contextlib.contextmanager
def motors(prefix: str, *, server_port: int, repeater_port: int) -> Iterator[dict[str, str]]:
    """Serve the motors `mtr1` (0 to 10), `mtr2` (-10 to 20), `mtr3` (0 to 30); gives what a client's environment needs.

    They go 50 units a second, and are done 0.1 s after a put at the earliest.
    """
    client = client_environment(server_port, repeater_port)
    environment = client | {
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CAS_BEACON_PORT": str(repeater_port),
    }
    with start_python(_SCRIPT, prefix, env=environment) as server:
        server.wait_line("ready")
        yield client
