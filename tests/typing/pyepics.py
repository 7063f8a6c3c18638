"""pyepics' interface."""

from typing import Any

from typing_extensions import assert_type

import epicsx
from epicsx import PV, caget, caget_many, camonitor, caput, get_pv


def functions() -> None:
    assert_type(caget("a"), Any)
    assert_type(caget("a", as_string=True, timeout=2.0), Any)
    assert_type(caget_many(["a", "b"]), list[Any])
    caput("a", 3, wait=True, timeout=10)
    camonitor("a", callback=print)


def pvs() -> None:
    def changed(pvname: str = "", value: object = None, **facts: object) -> None:
        print(pvname, value, facts)

    pv = PV("a", callback=changed, auto_monitor=True)
    assert_type(pv, PV)
    assert_type(pv.wait_for_connection(timeout=1.0), bool)
    assert_type(pv.get(), Any)
    assert_type(pv.get_ctrlvars(), dict[str, Any] | None)
    pv.put(3, wait=True)
    index = pv.add_callback(changed)
    pv.remove_callback(index)
    assert_type(get_pv("a"), PV)


def motors() -> None:
    motor = epicsx.Motor("m")
    motor.move(1.0, wait=True)
