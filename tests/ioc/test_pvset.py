"""What `PVSet` and the simulated records answer to wrong names and values: an error, and the server lives on."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from epicsx.testing import MotorIOC, PVSet, ScalerIOC, SoftIOCError

pytest.importorskip("caproto")

TABLE = {
    "whole": 1,
    "real": 1.5,
    "text": "a",
    "list": [1, 2, 3],
    "room": {"value": [1.0, 2.0], "size": 5},
    "long": {"value": "abc", "size": 8},
    "enum": {"value": 0, "states": ["off", "on"]},
}


@pytest.fixture(scope="module")
def pvs() -> Iterator[PVSet]:
    """Give one PV of each kind."""
    with PVSet(TABLE) as served:
        yield served


@pytest.fixture(scope="module")
def motor() -> Iterator[MotorIOC]:
    """Give a motor m1."""
    with MotorIOC({"m1": {}}) as served:
        yield served


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("whole", "3", "whole: a number is wanted, not '3'"),
        ("whole", 2**31, "whole: a whole number from -2147483648 to 2147483647"),
        ("whole", 1.5, "whole number"),
        ("whole", math.nan, "whole number"),
        ("whole", math.inf, "whole number"),
        ("whole", [1, 2], "2 elements, where 1 have room"),
        ("whole", [], "0 elements"),
        ("real", "abc", "real: a number is wanted, not 'abc'"),
        ("real", None, "a number is wanted, not None"),
        ("real", {"a": 1}, "a number is wanted"),
        ("real", 10**400, "too large"),
        ("text", 5, "text: a text is wanted, not 5"),
        ("text", "x" * 40, "at most 39 bytes"),
        ("list", [1, 2, 3, 4], "4 elements, where 3 have room"),
        ("list", [1, "b"], "a number is wanted, not 'b'"),
        ("room", [[1.0], [2.0]], "a number is wanted"),
        ("long", "x" * 9, "9 characters, where 8 have room"),
        ("enum", 2, "enum: 2 is no state: off, on"),
        ("enum", -1, "-1 is no state"),
        ("enum", "up", "'up' is no state"),
        ("enum", None, "None is no state"),
    ],
)
def test_a_value_that_does_not_fit(pvs: PVSet, name: str, value: Any, reason: str) -> None:
    pvs.reset()
    before = pvs[name]
    with pytest.raises(ValueError, match=reason):
        pvs.write(name, value)
    assert pvs.running
    assert pvs[name] == before


def test_values_that_fit(pvs: PVSet) -> None:
    for name, value, held in (
        ("whole", 2.0, 2),
        ("whole", numpy.int16(7), 7),
        ("real", 3, 3.0),
        ("real", [4.5], 4.5),
        ("text", "x" * 39, "x" * 39),
        ("list", [9], [9]),
        ("room", numpy.array([1.0, 2.0, 3.5]), [1.0, 2.0, 3.5]),
        ("long", "x" * 8, "x" * 8),
        ("enum", 1, 1),
        ("enum", "off", 0),
    ):
        pvs.write(name, value)
        assert pvs[name] == held
    pvs.reset()
    assert pvs.read("whole", "room", "enum") == [1, [1.0, 2.0], 0]


def test_a_value_that_is_none_at_all(pvs: PVSet) -> None:
    with pytest.raises(TypeError, match="an array is wanted, not <object"):
        pvs.write("real", object())
    assert pvs["list"] == [1, 2, 3]


def test_names_nobody_has(pvs: PVSet, motor: MotorIOC) -> None:
    with pytest.raises(KeyError, match="this server has no PV 'nowhere'"):
        pvs["nowhere"]
    with pytest.raises(KeyError, match="'nowhere'"):
        pvs.read("whole", "nowhere")
    with pytest.raises(KeyError, match="'nowhere'"):
        pvs.write("nowhere", 1)
    with pytest.raises(KeyError, match=r"m1\.RVB"):
        motor[motor.name("m1.RVB")]
    assert pvs["whole"] == 1
    assert motor[motor.name("m1.RBV")] == 0.0


@pytest.mark.parametrize(
    ("field", "value"), [("VELO", [1, 2]), ("VELO", "abc"), ("VELO", None), ("SEVR", 9)]
)
def test_a_field_of_a_record(motor: MotorIOC, field: str, value: Any) -> None:
    name = motor.name(f"m1.{field}")
    before = motor[name]
    with pytest.raises(ValueError, match=name):
        motor.write(name, value)
    assert motor[name] == before


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: PVSet({"a": 1, "e": True}), "e: an int, .* is wanted, not True"),
        (lambda: PVSet({"a": None}), "a: .* not None"),
        (lambda: PVSet({"a": []}), "a: an empty list"),
        (lambda: PVSet({"a": {"valve": 1}}), "a: .*valve"),
        (lambda: PVSet({"a": {"value": 2, "states": ["x", "y"]}}), "a: 2 .* no state: x, y"),
        (lambda: PVSet({"a": 2**40}), "a: a whole number"),
        (lambda: MotorIOC({"m": {"NOSUCH": 1}}), "m: a motor record has no field NOSUCH"),
        (lambda: MotorIOC({"m": {"VELO": "fast"}}), "m: VELO: .*'fast'"),
        (lambda: MotorIOC({"m": {"SPMG": 4}}), r"m\.SPMG: 4 .* no state: Stop, Pause"),
        (lambda: MotorIOC({"m": {"switches": 5}}), r"m: switches are \(low, high\)"),
        (lambda: MotorIOC({"m": {"MRES": 0}}), "division by zero"),
        (lambda: ScalerIOC({"s": {"rates": 5}}), "s: rates are"),
    ],
)
def test_a_start_that_fails_says_why(make: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make().stop()


def test_a_server_that_died_can_be_stopped() -> None:
    served = PVSet({"a": 1})
    try:
        os.kill(served._process.pid, signal.SIGKILL)
        served._process.wait(10.0)
        with pytest.raises(SoftIOCError, match="the server of the PVs ended"):
            served["a"]
    finally:
        served.stop()
    assert not served.running
    served.stop()
    with pytest.raises(SoftIOCError, match="is stopped"):
        served.write("a", 2)


def test_a_port_that_is_none() -> None:
    with pytest.raises(ValueError, match="server_port=99999: a port from 5001 to 65535"):
        PVSet({"a": 1}, server_port=99999)
