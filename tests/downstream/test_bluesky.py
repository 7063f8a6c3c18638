"""EpicsMotor, and bluesky's RunEngine scanning a simulated motor and a detector record."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import wait_until

from epicsx.testing import MotorIOC, SoftIOC

pytest.importorskip("ophyd", reason="pip install epicsx[downstream]", exc_type=ImportError)
pytest.importorskip("bluesky", reason="pip install epicsx[downstream]", exc_type=ImportError)
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from ophyd import Component, Device, EpicsMotor, EpicsSignal, EpicsSignalRO, Kind
from ophyd.utils import LimitError


@pytest.fixture
def motor(motors: MotorIOC) -> Iterator[Any]:
    """Give an EpicsMotor of limits -10 and 20."""
    m = EpicsMotor(motors.name("m2"), name="m")
    m.wait_for_connection(timeout=20)
    # else the first value of its DMOV, which comes by itself, may seem to end the first move
    told: list[Any] = []
    m.motor_done_move.subscribe(lambda *, value, **_: told.append(value))
    wait_until(lambda: told and told[-1] == 1)
    yield m
    m.destroy()


class Detector(Device):  # type: ignore[misc]  # ophyd has no types
    """A calc record: once triggered, VAL is A+B."""

    counts = Component(EpicsSignalRO, "calc", kind=Kind.hinted)
    a = Component(EpicsSignal, "calc.A", kind=Kind.normal)
    b = Component(EpicsSignal, "calc.B", kind=Kind.config)
    process = Component(EpicsSignal, "calc.PROC", kind=Kind.omitted, put_complete=True)

    def trigger(self) -> Any:
        return self.process.set(1)


@pytest.fixture
def detector(ioc: SoftIOC) -> Iterator[Any]:
    """Give a detector of the session's IOC."""
    d = Detector(ioc.prefix, name="det")
    d.wait_for_connection(all_signals=True, timeout=20)
    yield d
    d.destroy()


class Documents:
    """What a run emits."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        self.all.append((name, document))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The documents of one kind."""
        return [document for name, document in self.all if name == kind]


@pytest.fixture
def engine() -> Iterator[Any]:
    """Give a RunEngine; its event loop ends with the test."""
    run = RunEngine({})
    yield run
    run.loop.call_soon_threadsafe(run.loop.stop)
    wait_until(lambda: not run.loop.is_running())
    run.loop.close()


def test_a_move_waits_and_says_where_it_is(motor: Any) -> None:
    motor.move(1.0, wait=True, timeout=30)
    assert motor.position == pytest.approx(1.0, abs=1e-3)
    status = motor.move(5.0, wait=False)
    wait_until(lambda: status.done, 30)
    assert status.success and not motor.moving
    assert motor.position == pytest.approx(5.0, abs=1e-3)
    assert motor.user_setpoint.get() == pytest.approx(5.0)


def test_positions_are_told_while_it_moves(motor: Any) -> None:
    motor.move(-8.0, wait=True, timeout=30)
    seen: list[float] = []
    motor.subscribe(
        lambda *, value, **_: seen.append(value), event_type=motor.SUB_READBACK, run=False
    )
    motor.set(18.0).wait(timeout=30)
    wait_until(lambda: seen and seen[-1] == pytest.approx(18.0))
    assert len(seen) > 2 and seen == sorted(seen)


def test_what_it_reads_and_describes(motor: Any) -> None:
    motor.move(2.0, wait=True, timeout=30)
    read, described = motor.read(), motor.describe()
    assert set(read) == set(described) == {"m", "m_user_setpoint"}
    assert read["m"]["value"] == pytest.approx(2.0, abs=1e-3)
    assert described["m"]["dtype"] == "number" and described["m"]["precision"] == 3
    assert "m_velocity" in motor.read_configuration()
    assert motor.limits == (-10, 20)


def test_limits(motor: Any) -> None:
    before = motor.position
    with pytest.raises(LimitError):
        motor.move(1000.0)
    assert motor.position == before


def test_stop(motor: Any) -> None:
    motor.move(-9.0, wait=True, timeout=30)
    motor.velocity.put(2.0, wait=True)
    try:
        status = motor.set(19.0)
        wait_until(lambda: motor.moving and motor.position > -9.0, 30)
        motor.stop()
        wait_until(lambda: status.done and not motor.moving, 30)
    finally:
        motor.velocity.put(50.0, wait=True)
    assert motor.position < 18.0


def test_scan(motor: Any, detector: Any, engine: Any) -> None:
    detector.b.set(10.0).wait(timeout=10)
    seen = Documents()
    (uid,) = engine(bp.scan([detector], motor, -2.0, 2.0, 5), seen)
    assert [name for name, _ in seen.all] == ["start", "descriptor", *["event"] * 5, "stop"]
    assert seen.of("start")[0]["uid"] == uid
    assert seen.of("stop")[0]["exit_status"] == "success"
    (descriptor,) = seen.of("descriptor")
    keys = descriptor["data_keys"]
    assert set(keys) == {"m", "m_user_setpoint", "det_counts", "det_a"}
    assert keys["det_counts"]["dtype"] == "number" and keys["det_counts"]["shape"] == []
    assert descriptor["configuration"]["det"]["data"] == {"det_b": 10.0}
    begun = seen.of("start")[0]["time"]
    for event, at in zip(seen.of("event"), (-2.0, -1.0, 0.0, 1.0, 2.0), strict=True):
        assert event["data"]["m"] == pytest.approx(at, abs=1e-2)
        assert event["data"]["m_user_setpoint"] == pytest.approx(at)
        assert event["data"]["det_counts"] == event["data"]["det_a"] + 10.0
        assert begun - 60 < event["timestamps"]["m"] <= time.time() + 5


def test_a_detector_that_follows_the_motor(motor: Any, detector: Any, engine: Any) -> None:
    """A plan that writes too: the detector's input is set to the motor's position at each point."""
    detector.b.set(0.5).wait(timeout=10)

    def point(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.move_per_step(step, pos_cache)
        at = yield from bps.rd(motor)
        yield from bps.mv(detector.a, at)
        yield from bps.trigger_and_read([*detectors, motor])

    seen = Documents()
    engine(bp.list_scan([detector], motor, [0.0, 3.0, 6.0, 1.0], per_step=point), seen)
    events = [event["data"] for event in seen.of("event")]
    assert [round(e["m"], 2) for e in events] == [0.0, 3.0, 6.0, 1.0]
    for event in events:
        assert event["det_counts"] == pytest.approx(event["m"] + 0.5)


def test_count_many_points_of_a_counter_and_an_array(ioc: SoftIOC, engine: Any) -> None:
    counter = EpicsSignalRO(ioc["cnt:100hz"], name="counter")
    array = EpicsSignalRO(ioc["wf:double:n"], name="array")
    for each in (counter, array):
        each.wait_for_connection(timeout=10)
    seen = Documents()
    engine(bp.count([counter, array], num=50, delay=0.02), seen)
    values = [event["data"]["counter"] for event in seen.of("event")]
    assert len(values) == 50 and values == sorted(values) and values[-1] > values[0]
    assert list(seen.of("descriptor")[0]["data_keys"]["array"]["shape"]) == [10]
    assert list(seen.of("event")[0]["data"]["array"]) == list(range(10))
    counter.destroy()
    array.destroy()


def test_a_monitored_signal_makes_events_of_its_own(ioc: SoftIOC, engine: Any) -> None:
    counter = EpicsSignalRO(ioc["cnt:100hz"], name="counter")
    counter.wait_for_connection(timeout=10)
    enough = threading.Event()
    values: list[float] = []

    def watch(name: str, document: dict[str, Any]) -> None:
        if name == "event":
            values.append(document["data"]["counter"])
            if len(values) >= 20:
                enough.set()

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.monitor(counter, name="monitored")
        while not enough.is_set():
            yield from bps.sleep(0.05)
        yield from bps.unmonitor(counter)
        yield from bps.close_run()

    engine(plan(), watch)
    assert len(values) >= 20 and values == sorted(values)
    counter.destroy()


def test_a_move_that_fails_ends_the_run_and_the_engine_goes_on(
    motor: Any, detector: Any, engine: Any
) -> None:
    seen = Documents()
    with pytest.raises(LimitError):
        engine(bp.scan([detector], motor, 0.0, 500.0, 3), seen)
    engine(bps.mv(motor, 4.0))
    assert motor.position == pytest.approx(4.0, abs=1e-2)
