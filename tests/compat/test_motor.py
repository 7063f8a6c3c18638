"""Motor, on simulated motor records; the last tests run the same script under pyepics."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from support import wait_until

from epicsx import Motor
from epicsx.motor import MotorException, MotorLimitException
from epicsx.testing import MotorIOC


@pytest.fixture
def motor(motors: MotorIOC) -> Iterator[Motor]:
    """Give m1, at 0 and in order, whatever the test before did."""
    name = motors.name("m1")
    for field, value in (("SPMG", 3), ("SET", 0), ("LVIO", 0), ("HLS", 0), ("LLS", 0)):
        motors.write(f"{name}.{field}", value)
    made = Motor(name, timeout=10.0)
    made.put("STOP", 1, wait=True)
    for field, at_first in (("DIR", 0), ("OFF", 0.0), ("VELO", 100.0), ("TWV", 1.0)):
        made.put(field, at_first, wait=True)
    made.put("DHLM", 100.0, wait=True)
    made.put("DLLM", -100.0, wait=True)
    assert made.move(0, wait=True) == 0
    wait_until(lambda: [made.HLM, made.LLM, made.VELO, made.TWV] == [100, -100, 100, 1])
    yield made
    made.put("SPMG", 3, wait=True)
    made.put("STOP", 1, wait=True)
    made._pvs.clear()  # pytest keeps the motor until after the check that nothing is lent


def holds(motor: Motor, field: str, value: Any) -> bool:
    return bool(motor.get(field) == value)


def test_what_is_no_motor(motors: MotorIOC) -> None:
    with pytest.raises(MotorException, match="must supply motor name"):
        Motor()
    with pytest.raises(MotorException, match=f"{motors.name('ao')} is not an Epics Motor"):
        Motor(motors.name("ao"))
    with pytest.raises(MotorException, match="is not an Epics Motor"):
        Motor(motors.name("nobody"), timeout=0.1)


def test_names(motors: MotorIOC, motor: Motor) -> None:
    assert Motor(f"{motors.name('m1')}.VAL")._prefix == motor._prefix == f"{motors.name('m1')}."
    assert repr(motor) == str(motor) == f"<epics.Motor: {motors.name('m1')}.: 'motor'>"
    assert motor.slew_speed == motor.VELO == motor.get("slew_speed") == 100.0
    motor.slew_speed = 50
    wait_until(lambda: motor.VELO == 50)
    assert motor.PV("slew_speed").pvname == motor.get_pv("VELO").pvname == f"{motor._prefix}VELO"
    assert {"slew_speed", "VELO", "move", "disabled"} <= set(dir(motor))
    assert len(motor._alias) > 90


def test_a_field_that_is_none(motor: Motor) -> None:
    with pytest.raises(MotorException, match="EpicsMotor has no attribute NONE"):
        _ = motor.NONE
    assert not hasattr(motor, "no_such_field")
    assert hasattr(motor, "ACCL")


def test_disabled(motors: MotorIOC, motor: Motor) -> None:
    assert motor.disabled == 0
    motor.disabled = 1
    wait_until(lambda: motors[f"{motors.name('m1')}_able.VAL"] == 1)
    motor.disabled = 0
    wait_until(lambda: motors[f"{motors.name('m1')}_able.VAL"] == 0)
    other = Motor(motors.name("m2"))
    assert other.disabled is None  # m2 has no such record


def test_moves_in_each_unit(motor: Motor) -> None:
    assert motor.move(1.5, wait=True) == 0
    wait_until(lambda: motor.RBV == motor.get_position() == 1.5)
    assert motor.get_position(readback=True) == 1.5
    assert motor.move(1, relative=True, wait=True) == 0
    wait_until(lambda: motor.get_position(dial=True, readback=True) == 2.5)
    motor.put("DIR", 1, wait=True)
    assert motor.move(3, dial=True, wait=True) == 0
    wait_until(lambda: motor.get("RBV") == -3 and motor.get_position(dial=True) == 3)
    assert motor.move(4000, raw=True, wait=True) == 0
    assert motor.move(-1000, step=True, relative=True, wait=True) == 0
    wait_until(lambda: motor.get_position(raw=True, readback=True) == 3000)
    wait_until(lambda: motor.get_position(step=True) == 3000)


def test_moves_that_are_not_tried(motors: MotorIOC, motor: Motor) -> None:
    assert motor.move() == motor.move("abc") == motor.move([]) == -13
    assert motor.move(101) == motor.move(-101) == motor.move(101, dial=True) == -12
    assert motor.move("2.5", wait=True) == 0
    wait_until(partial(holds, motor, "RBV", 2.5))
    motor.PV("VAL").disconnect()
    assert motor.move(1) == -11


def test_a_move_that_is_not_waited_for(motor: Motor) -> None:
    # far from its target when it is stopped, however late that is
    motor.put("VELO", 2.0, wait=True)
    # it looks for a quarter of a second only; a motor that moves already is seen to move the next time
    wait_until(lambda: motor.move(50, confirm_move=True) == 1)
    wait_until(lambda: motor.get("RBV") > 0)
    motor.stop()
    wait_until(lambda: motor.get("DMOV") == 1 and 0 < motor.get("RBV") < 50)
    assert motor.move(40) in (0, 1)
    motor.StopNow()
    wait_until(lambda: motor.get("DMOV") == 1 and motor.get("MOVN") == 0)


def test_a_move_that_takes_too_long(motors: MotorIOC, motor: Motor) -> None:
    motor.put("VELO", 1.0, wait=True)  # before 10 when it is stopped, however late that is
    assert motor.move(90, wait=True, timeout=0.1) == -8
    motor.stop()
    wait_until(lambda: motor.get("DMOV") == 1)
    motor.put("SPMG", "Pause", wait=True)
    assert motor.move(10, wait=True, timeout=0.1) == -8  # the target is taken, the motor stays
    assert motor.get("RBV") < 10


def test_a_timeout_of_a_motor_that_stands(motors: MotorIOC, motor: Motor) -> None:
    motor.put("VELO", 5.0, wait=True)
    pv = motor.PV("VAL")
    old = motor.put

    def put(attr: str, value: Any, **kw: Any) -> Any:
        found = old(attr, value, **kw)
        if attr == "VAL":
            pv.poll()
            old("STOP", 1, wait=True)
            wait_until(lambda: motor.get("DMOV") == 1)
        return found

    object.__setattr__(motor, "put", put)
    assert motor.move(90, wait=True, timeout=0.1) == -7


def test_limits(motors: MotorIOC, motor: Motor) -> None:
    name = motors.name("m1")
    assert motor.within_limits(100)
    assert not motor.within_limits(100.1)
    assert not motor.within_limits(-101, dial=True)
    motor.check_limits()
    assert motor.move(200, ignore_limits=True, wait=True) == -4
    with pytest.raises(MotorLimitException, match="Soft limit violation"):
        motor.check_limits()
    assert motor.move(200, ignore_limits=True) == 4
    motors.write(f"{name}.LVIO", 0)
    for field, text in (("HLS", "High hard limit violation"), ("LLS", "Low  hard limit violation")):
        motors.write(f"{name}.{field}", 1)
        wait_until(partial(holds, motor, field, 1))
        wait_until(lambda: motor.get("LVIO") == 0)
        with pytest.raises(MotorLimitException) as caught:
            motor.check_limits()
        assert str(caught.value) == caught.value.msg == text
        assert motor.move(motor.get("RBV"), wait=True) == -3
        motors.write(f"{name}.{field}", 0)
        wait_until(partial(holds, motor, field, 0))
    motors.write(f"{name}.HLS", 1)
    wait_until(lambda: motor.get("HLS") == 1)
    motor.put("SPMG", 1, wait=True)
    assert motor.move(1) == 3


def test_tweaks(motors: MotorIOC, motor: Motor) -> None:
    motor.tweak_val = 2
    wait_until(lambda: motor.get("TWV") == 2)
    assert motor.tweak(wait=True) == 0
    wait_until(partial(holds, motor, "RBV", 2))
    assert motor.tweak("reverse", wait=True) == motor.tweak("back", wait=True) == 0
    wait_until(partial(holds, motor, "RBV", -2))
    motors.write(f"{motors.name('m1')}.LLS", 1)
    wait_until(lambda: motor.get("LLS") == 1)
    assert motor.tweak() == -1


def test_set_position(motor: Motor) -> None:
    motor.move(5, wait=True)
    motor.set_position(10)
    wait_until(lambda: (motor.get("RBV"), motor.get("OFF"), motor.get("HLM")) == (10, 5, 105))
    assert motor.get_position(dial=True, readback=True) == 5
    motor.set_position(1, dial=True)
    wait_until(lambda: motor.get("DRBV") == 1)
    motor.set_position(2000, raw=True)
    wait_until(lambda: motor.get("DRBV") == 2 and motor.get("RRBV") == 2000)
    wait_until(lambda: motor.get("SET") == 0)


def test_callbacks(motor: Motor) -> None:
    seen: list[dict[str, Any]] = []
    motor.set_callback("readback", lambda **kw: seen.append(kw), {"wid": 3})
    motor.move(2, wait=True)
    wait_until(lambda: seen and seen[-1]["value"] == 2)
    assert (seen[-1]["motor_field"], seen[-1]["wid"]) == ("readback", 3)
    motor.clear_callback("readback")
    motor.clear_callback("readback")
    assert not motor.PV("readback").callbacks
    motor.set_callback(callback=lambda **kw: None)
    assert list(motor._callbacks) == ["VAL"]
    motor.clear_callback()


def test_step_list(motor: Motor) -> None:
    steps = motor.make_step_list(minstep=0.01, maxstep=1.0)
    assert steps == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert motor.make_step_list()[-1] <= 0.6 * 200


def test_texts(motor: Motor, capsys: pytest.CaptureFixture[str]) -> None:
    motor.refresh()
    info = motor.get_info()
    assert (info["DESC"], info["SPMG"], info["VELO"]) == ("motor", "Go", "100.000")
    motor.show_info()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == repr(motor)
    assert shown[1] == shown[-1] == "-" * 38
    assert "VELO             = 100.000" in shown
    motor.show_all()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"# Motor {motor._prefix}"
    assert f" slew_speed          100.000             {motor._prefix}VELO" in shown
    assert len(shown) == 3 + len(motor._alias)
    assert "Not Connected??" not in "\n".join(shown)


SCRIPT = """
import sys
if sys.argv[2] == "epicsx":
    import epicsx
    epicsx.install_as_epics()
import epics
m = epics.Motor(sys.argv[1], timeout=5.0)
print(repr(m))

def now(field):
    # as the server has it: what monitors say may be behind
    return m.PV(field).get(use_monitor=False)

for args, kws in (
    ((2,), {}), ((1,), {"relative": True}), ((500,), {}), ((1.5,), {"dial": True}), ((2500,), {"raw": True})
):
    print(args, kws, m.move(*args, wait=True, **kws), *map(now, ("RBV", "DRBV", "RRBV")))
print(m.tweak(wait=True), m.tweak("rev", wait=True), now("VAL"), now("RBV"))
print(m.within_limits(50), m.within_limits(500), m.check_limits())
m.move(900, ignore_limits=True, wait=True)
now("LVIO")
try:
    m.check_limits()
except Exception as error:
    print(type(error).__name__, error)
print(m.move(0, wait=True), now("RBV"))
print(m.make_step_list(minstep=0.05))
m.set_position(4)
print(*map(now, ("VAL", "OFF", "LLM", "HLM")))
m.put("OFF", 0, wait=True)
for field in ("VAL", "RBV", "LLM", "HLM"):
    now(field)
print(m.get("drive"), m.slew_speed, m.units, m.description)
m.refresh()
m.show_info()
print(sorted(m.get_info().items()))
"""


def test_the_same_under_pyepics(motors: MotorIOC) -> None:
    shown = {}
    for face in ("pyepics", "epicsx"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, motors.name("m3"), face],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shown[face] = done.stdout
    assert shown["epicsx"] == shown["pyepics"]
    assert "MotorLimitException Soft limit violation" in shown["epicsx"]
