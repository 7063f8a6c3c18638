"""Motor, on simulated motor records: m1, and m2 with limit switches at -10 and 20."""

from __future__ import annotations

from typing import Any

from oracle.readings import comes
from oracle.steps import Calls, Lab, step


def fresh(t: Lab, name: str = "m1") -> Any:
    """Give a motor that stands at 0, whatever the step before did."""
    motor = t.epics.Motor(t.p(name), timeout=5.0)
    for field, value in (
        ("SPMG", 3),
        ("SET", 0),
        ("STOP", 1),
        ("DIR", 0),
        ("OFF", 0.0),
        ("VELO", 200.0),
        ("TWV", 1.0),
        ("DHLM", 100.0),
        ("DLLM", -100.0),
        ("VAL", 0.0),
    ):
        motor.put(field, value, wait=True)
    comes(t, motor, VAL=0, RBV=0, DMOV=1, MOVN=0, LVIO=0, HLS=0, LLS=0, SET=0, SPMG=3)
    comes(t, motor, HLM=100, LLM=-100, OFF=0, TWV=1, VELO=200)
    return motor


def places(t: Lab, motor: Any, mark: str) -> None:
    """Note where it is and where it was sent, in all units, as the server has it."""
    for field in ("VAL", "RBV", "DVAL", "DRBV", "RVAL", "RRBV", "OFF", "LVIO"):
        t.see(f"{mark}: {field}", motor.PV(field).get, use_monitor=False)


@step("what is no motor")
def no_motor(t: Lab) -> None:
    """Names that are none."""
    t.see("nothing", t.epics.Motor)
    t.see("none", t.epics.Motor, None)
    t.see("another PV", lambda: t.epics.Motor(t.p("other"), timeout=0.3))
    t.see("no such PV", lambda: t.epics.Motor(t.p("nobody"), timeout=0.3))


@step("Motor names")
def names(t: Lab) -> None:
    """The forms of its name, and what it is made of."""
    for text in ("m1", "m1.", "m1.VAL"):
        motor = t.epics.Motor(t.s(text))
        t.see(f"{text} repr", lambda motor=motor: repr(motor))
        t.see(f"{text} str", lambda motor=motor: str(motor))
        t.see(f"{text} prefix", lambda motor=motor: motor._prefix)
    t.see("aliases", lambda: dict(t.epics.Motor._alias))
    t.see("extras", lambda: dict(t.epics.Motor._extras))
    t.see("first", lambda: list(t.epics.Motor._init_list))
    t.see("PV by alias", lambda: motor.PV("slew_speed", connect=False).pvname)
    t.see("PV", lambda: motor.PV("VELO").pvname)
    t.see("get_pv", lambda: motor.get_pv("RBV").pvname)
    t.see("name", lambda: motor.PV("VAL").pvname)
    t.see("disabled", lambda: motor.disabled)
    t.see("_extras PV", lambda: motor._pvs["disabled"].pvname)
    t.see("is a Device", lambda: isinstance(motor, t.epics.Device))
    t.see("dir", lambda: [name for name in ("VAL", "move", "_prefix") if name in dir(motor)])


@step("Motor fields", timeout=60.0)
def fields(t: Lab) -> None:
    """Each field by its longer name and by its own."""
    motor = t.epics.Motor(t.s("m1"))
    for alias, field in sorted(motor._alias.items()):
        t.see(f"{alias}", lambda alias=alias: getattr(motor, alias))
        t.see(f"{field} as text", motor.get, field, as_string=True)
    t.see("get", motor.get, "drive")
    t.see("get count", motor.get, "drive", count=1)
    t.see("get timeout", motor.get, "drive", timeout=2.0)
    t.see("a field without longer name", lambda: motor.MDEL)
    t.see("the states of SPMG", lambda: motor.PV("SPMG").enum_strs)
    t.see("limits of VAL", lambda: motor.PV("VAL").get_ctrlvars())


@step("a field that is none", timeout=40.0)
def no_field(t: Lab) -> None:
    """Misspelt attributes."""
    motor = t.epics.Motor(t.s("m1"))
    t.see("hasattr", lambda: hasattr(motor, "NOSUCH"))
    t.see("private", lambda: motor.__nothing__)


@step("Motor shown", timeout=60.0)
def shown(t: Lab) -> None:
    """get_info, show_info, show_all."""
    motor = t.epics.Motor(t.s("m1"))
    t.see("refresh", motor.refresh)
    t.see("get_info", motor.get_info)
    t.see("show_info", motor.show_info)
    t.see("show_all", motor.show_all)
    for args in ({}, {"minstep": 0.05}, {"maxstep": 3}, {"minstep": 0.1, "decades": 4}):
        t.see(f"steps {args}", motor.make_step_list, **args)


@step("Motor moves", timeout=60.0)
def moves(t: Lab) -> None:
    """A waited move in each unit, and by each option."""
    motor = fresh(t)
    for mark, args, kws in (
        ("user", (2,), {}),
        ("text", ("2.5",), {}),
        ("relative", (1,), {"relative": True}),
        ("dial", (1.5,), {"dial": True}),
        ("dial relative", (0.5,), {"dial": True, "relative": True}),
        ("raw", (2500,), {"raw": True}),
        ("step", (2600,), {"step": True}),
        ("raw relative", (400,), {"raw": True, "relative": True}),
        ("where it is", (3.0,), {}),
        ("by name", (), {"val": 1, "timeout": 20}),
        ("back", (-1.25,), {"ignore_limits": True}),
        ("confirmed", (0.25,), {"confirm_move": True}),
    ):
        t.see(f"{mark}: answer", motor.move, *args, wait=True, **kws)
        places(t, motor, mark)
        comes(t, motor, MOVN=0, DMOV=1)
    motor.put("DIR", 1, wait=True)
    motor.PV("OFF").put(2.0, wait=True)
    comes(t, motor, OFF=2, HLM=102, LLM=-98)
    for mark, kws in (("user", {}), ("dial", {"dial": True}), ("raw", {"raw": True})):
        t.see(f"turned, {mark}: answer", motor.move, 1, wait=True, **kws)
        places(t, motor, f"turned, {mark}")


@step("Motor positions")
def positions(t: Lab) -> None:
    """get_position, set_position, attributes that move."""
    motor = fresh(t)
    motor.move(1.5, wait=True)
    comes(t, motor, VAL=1.5, RBV=1.5, DVAL=1.5, DRBV=1.5, RVAL=1500, RRBV=1500)
    for kws in ({}, {"dial": True}, {"raw": True}, {"step": True}):
        t.see(f"target {kws}", motor.get_position, **kws)
        t.see(f"place {kws}", motor.get_position, readback=True, **kws)
    for mark, position, kws in (
        ("user", 4, {}),
        ("dial", 2, {"dial": True}),
        ("raw", 1000, {"raw": True}),
        ("step", 500, {"step": True}),
    ):
        t.see(f"set {mark}", motor.set_position, position, **kws)
        comes(t, motor, SET=0)
        places(t, motor, f"set {mark}")
    motor.put("OFF", 0, wait=True)
    motor.drive = 3
    comes(t, motor, RBV=3, DMOV=1)
    t.see("drive", lambda: motor.drive)
    motor.VAL = 2
    comes(t, motor, RBV=2, DMOV=1)
    t.see("VAL", lambda: motor.VAL)
    motor.slew_speed = 60
    comes(t, motor, VELO=60)
    t.see("slew_speed", lambda: motor.slew_speed)
    motor.description = "first"
    comes(t, motor, DESC="first")
    t.see("repr then", lambda: repr(motor))
    motor.description = "motor"
    comes(t, motor, DESC="motor")
    t.see("put", motor.put, "VELO", 80.0, wait=True)
    t.see("put by alias", motor.put, "slew_speed", 90.0, wait=True, timeout=3)
    t.see("put, use_complete", motor.put, "VAL", 2.5, use_complete=True)
    t.see("complete", lambda: t.wait(lambda: motor.PV("VAL").put_complete))
    motor.disabled = 1
    t.see("disabled", lambda: t.wait(lambda: motor.disabled == 1))
    motor.disabled = 0
    t.see("enabled", lambda: t.wait(lambda: motor.disabled == 0))


@step("Motor moves not waited for", timeout=40.0)
def unwaited(t: Lab) -> None:
    """What is seen of a move that has begun; stops."""
    motor = fresh(t)
    motor.put("VELO", 10.0, wait=True)
    # it looks for a quarter of a second, which a busy machine may need; so the motor is on its way already
    motor.put("VAL", 49)
    comes(t, motor, MOVN=1)
    t.see("confirmed", motor.move, 50, confirm_move=True)
    t.see("stop", motor.stop)
    comes(t, motor, DMOV=1, MOVN=0)
    t.see("stopped on the way", lambda: 0 <= motor.get("RBV") < 50)
    motor.put("VAL", 59)
    comes(t, motor, MOVN=1)
    t.see("another", motor.move, 60, confirm_move=True)
    t.see("StopNow", motor.StopNow)
    comes(t, motor, DMOV=1, MOVN=0)
    t.see("in a hurry", motor.move, 70, wait=True, timeout=0.2)
    motor.stop()
    comes(t, motor, DMOV=1, MOVN=0)
    t.see("tweak in a hurry", lambda: (motor.put("TWV", 50, wait=True), motor.tweak(timeout=0.2)))
    motor.stop()
    comes(t, motor, DMOV=1, MOVN=0)


@step("Motor moves refused", timeout=40.0)
def refused(t: Lab) -> None:
    """What is not tried."""
    motor = fresh(t)
    for mark, args, kws in (
        ("nothing", (), {}),
        ("a list", ([],), {}),
        ("a word", ("abc",), {}),
        ("too high", (101,), {}),
        ("too low", (-101,), {}),
        ("too high dial", (101,), {"dial": True}),
        ("too far", (150,), {"relative": True}),
        ("too high, not waited for", (101,), {"confirm_move": True}),
    ):
        t.see(mark, motor.move, *args, wait=True, **kws)
    places(t, motor, "still")
    for value, dial in ((100, False), (100.1, False), (-100, False), (-101, True), (5, True)):
        t.see(f"within {value} {dial}", motor.within_limits, value, dial=dial)
    motor.PV("VAL").connection_timeout = 0.2
    motor.PV("VAL").disconnect()
    t.see("disconnected", motor.move, 1)


@step("Motor limits", timeout=40.0)
def limits(t: Lab) -> None:
    """Soft limits and limit switches."""
    motor = fresh(t)
    t.see("at none", motor.check_limits)
    comes(t, motor, LVIO=0)
    motor.put("VAL", 200, wait=True)
    comes(t, motor, LVIO=1)
    t.see("soft", motor.check_limits)
    t.see("waited, soft", motor.move, 200, ignore_limits=True, wait=True)
    t.see("soft, not waited for", motor.move, 200, ignore_limits=True)
    t.see("raw is not compared", motor.move, 200000, raw=True, wait=True)
    motor.put(
        "VELO", 50.0, wait=True
    )  # so long a move that pyepics' monitor has told of LVIO before its end
    t.see("back", motor.move, -90, wait=True)
    switched = fresh(t, "m2")
    switched.put("VELO", 500.0, wait=True)
    switched.put("VAL", 30, wait=True)
    comes(t, switched, HLS=1, DMOV=1, MOVN=0)
    t.see("high", switched.check_limits)
    t.see("waited, high", switched.move, 30, wait=True)
    comes(t, switched, DMOV=1, MOVN=0)
    t.see("tweak at the switch", switched.tweak, wait=True)
    switched.put("VAL", -30, wait=True)
    comes(t, switched, LLS=1, HLS=0, DMOV=1, MOVN=0)
    t.see("low", switched.check_limits)
    t.see("waited, low", switched.move, -30, wait=True)
    comes(t, switched, DMOV=1, MOVN=0)
    switched.put("VAL", 0, wait=True)
    for name in ("MotorException", "MotorLimitException"):
        error = getattr(t.epics.motor, name)
        t.see(f"{name} str", lambda error=error: str(error("text")))
        t.see(f"{name} msg", lambda error=error: error("text").msg)
        t.see(f"{name} kind", lambda error=error: issubclass(error, AttributeError))


@step("Motor tweaks", timeout=40.0)
def tweaks(t: Lab) -> None:
    """Both directions, by all names."""
    motor = fresh(t)
    motor.tweak_val = 2
    comes(t, motor, TWV=2)
    for direction in ("foreward", "forward", "reverse", "rev", "backward", "back", "up"):
        t.see(direction, motor.tweak, direction, wait=True)
        t.see(f"{direction}: VAL", motor.PV("VAL").get, use_monitor=False)
        t.see(f"{direction}: RBV", motor.PV("RBV").get, use_monitor=False)
    t.see("default", motor.tweak, wait=True)
    t.see("default: RBV", motor.PV("RBV").get, use_monitor=False)


@step("Motor callbacks", timeout=40.0)
def callbacks(t: Lab) -> None:
    """set_callback, clear_callback."""
    motor = fresh(t)
    calls, ends = Calls(), Calls()
    t.see("set", motor.set_callback, "RBV", calls, {"wid": 3})
    t.see("set default", motor.set_callback, callback=ends)
    t.see("known", lambda: sorted(motor._callbacks))
    motor.move(2, wait=True)
    t.wait(lambda: calls and calls.values()[-1] == 2 and ends)
    t.see("last", lambda: calls[-1]["value"])
    t.see("keys", lambda: sorted(calls[-1]))
    t.see("own keywords", lambda: (calls[-1]["motor_field"], calls[-1]["wid"]))
    t.see("default", lambda: (ends[-1]["value"], ends[-1]["motor_field"]))
    t.see("rises", lambda: calls.values() == sorted(calls.values()))
    t.see("clear", motor.clear_callback, "RBV")
    t.see("left", lambda: len(motor.PV("RBV").callbacks))
    t.see("clear again", motor.clear_callback, "RBV")
    t.see("clear default", motor.clear_callback)
    t.see("left of VAL", lambda: len(motor.PV("VAL").callbacks))
    t.see("clear one never set", motor.clear_callback, "TWV")
