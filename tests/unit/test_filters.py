"""Names of PVs with channel filters, and what the filters do where a client does their work."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from epicsx import BadTypeError, BadValueError, filter_name
from epicsx._filters import Gate, chosen, has_filters, plain_name, takes_slice

# ---- names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "rec"),
        ({"deadband": 0.5}, 'rec.{"dbnd":{"abs":0.5}}'),
        ({"deadband": 5}, 'rec.{"dbnd":{"abs":5.0}}'),
        ({"deadband": 0}, 'rec.{"dbnd":{"abs":0.0}}'),
        ({"deadband": -0.0}, 'rec.{"dbnd":{"abs":0.0}}'),
        ({"deadband": np.float32(0.5)}, 'rec.{"dbnd":{"abs":0.5}}'),
        ({"deadband": "5%"}, 'rec.{"dbnd":{"rel":5.0}}'),
        ({"deadband": " 2.5 % "}, 'rec.{"dbnd":{"rel":2.5}}'),
        ({"every": 1}, 'rec.{"dec":{"n":1}}'),
        ({"every": np.int64(10)}, 'rec.{"dec":{"n":10}}'),
        ({"every": 10**12}, 'rec.{"dec":{"n":2147483647}}'),
        ({"coherent": True}, 'rec.{"ts":{}}'),
        ({"slice": 3}, 'rec.{"arr":{"s":3,"i":1,"e":3}}'),
        ({"slice": -1}, 'rec.{"arr":{"s":-1,"i":1,"e":-1}}'),
        (
            {"slice": (0, 9), "coherent": True, "every": 2, "deadband": 1},
            'rec.{"dbnd":{"abs":1.0},"dec":{"n":2},"ts":{},"arr":{"s":0,"i":1,"e":8}}',
        ),
    ],
)
def test_filters_become_strict_json(given: Any, name: str) -> None:
    assert filter_name("rec", **given) == name


@pytest.mark.parametrize(
    ("given", "arr"),
    [
        (slice(2, 5), (2, 1, 4)),
        ((2, 5), (2, 1, 4)),
        ((2, 5, 2), (2, 2, 4)),
        (slice(None), (0, 1, -1)),
        (slice(None, None, 3), (0, 3, -1)),
        (slice(2, None), (2, 1, -1)),
        (slice(-3, None), (-3, 1, -1)),
        (slice(None, -1), (0, 1, -2)),
        (slice(-4, -1), (-4, 1, -2)),
        (slice(4, -8), (4, 1, -9)),
        (slice(np.int32(1), np.int32(3)), (1, 1, 2)),
        (slice(0, 10**20), (0, 1, 2**31 - 1)),
        (slice(-(10**20), -5), (-(2**31) + 1, 1, -6)),
    ],
)
def test_a_slice_has_an_inclusive_end(given: Any, arr: tuple[int, int, int]) -> None:
    name = filter_name("rec", slice=given)
    assert json.loads(name.removeprefix("rec.")) == {"arr": dict(zip("sie", arr, strict=True))}


@pytest.mark.parametrize("length", range(7))
def test_a_slice_takes_what_python_takes(length: int) -> None:
    whole = list(range(length))
    ends = [None, *range(-9, 10)]
    for start in ends:
        for stop in ends:
            for step in (None, 1, 2, 3):
                given = slice(start, stop, step)
                if start is not None and stop is not None and start < 0 < stop:
                    with pytest.raises(BadValueError, match="no safe filter"):
                        filter_name("r", slice=given)
                    continue
                try:
                    name = filter_name("r", slice=given)
                except BadValueError:
                    assert whole[given] == []
                    continue
                taken = whole[chosen(json.loads(name[2:])["arr"], length)]
                if stop is not None and stop - 1 < -length and stop < 0:
                    # ends before the first element: the IOC's arithmetic stops at that
                    assert taken == whole[start:1:step]
                else:
                    assert taken == whole[given], given


@pytest.mark.parametrize(
    ("name", "filtered"),
    [
        ("rec", "rec."),
        ("rec.", "rec."),
        ("rec.VAL", "rec.VAL"),
        ("rec.DESC$", "rec.DESC$"),
        ("rec.VAL[2:5]", "rec.VAL[2:5]"),
        ("XF:10-ES{Mtr:1}Pos", "XF:10-ES{Mtr:1}Pos."),
        ("XF:10-ES{Mtr:1}.RBV", "XF:10-ES{Mtr:1}.RBV"),
        ("a[1]b", "a[1]b."),
    ],
)
def test_where_the_filters_stand(name: str, filtered: str) -> None:
    assert filter_name(name, every=2) == filtered + '{"dec":{"n":2}}'
    assert has_filters(name) == name.endswith("[2:5]")
    assert filter_name(name) == name


@pytest.mark.parametrize(
    "name", ['rec.{"ts":{}}', 'rec{"ts":{}}', 'rec.{ "ts" : {} }', 'rec.VAL{"ts":{}}']
)
def test_filters_join_those_that_are_there(name: str) -> None:
    front = "rec.VAL" if "VAL" in name else "rec."
    assert filter_name(name, every=2) == front + '{"ts":{},"dec":{"n":2}}'
    assert filter_name(filter_name(name, every=2), slice=0) == (
        front + '{"ts":{},"dec":{"n":2},"arr":{"s":0,"i":1,"e":0}}'
    )
    assert has_filters(name)
    assert filter_name("rec.{}", every=2) == 'rec.{"dec":{"n":2}}'


@pytest.mark.parametrize(
    "name",
    [
        'rec.{"ts":{}',
        'rec.{"ts":{}}x',
        "rec.{ts:{}}",
        "rec.{'ts':{}}",
        "rec.{",
        "rec.{} {}",
        'rec.{"dbnd":{"abs":NaN}}',
        'rec.{"ts":{},"ts":{}}',
        'rec.{"x":' + "[" * 100_000 + "}",
    ],
)
def test_filters_that_are_no_strict_json(name: str) -> None:
    with pytest.raises(BadValueError, match="rec"):
        filter_name(name)
    with pytest.raises(BadValueError, match="rec"):
        filter_name(name, every=2)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ('rec.{"dbnd":{"abs":1}}', {"deadband": 1}),
        ('rec.{"dec":{"n":1}}', {"every": 1}),
        ('rec.{"ts":{}}', {"coherent": True}),
        ('rec.{"arr":{}}', {"slice": 1}),
        ("rec.[2:5]", {"slice": 1}),
    ],
)
def test_a_filter_stands_once(name: str, given: Any) -> None:
    with pytest.raises(BadValueError, match="already"):
        filter_name(name, **given)


@pytest.mark.parametrize(
    "given",
    [
        *(
            {"deadband": each}
            for each in (-1, -1e-9, math.nan, math.inf, "5", "x%", "%", "", "-1%")
        ),
        *({"deadband": each} for each in ("nan%", "inf%", 10**400)),
        *({"every": each} for each in (0, -1)),
        *(
            {"slice": slice(*each)}
            for each in ((0,), (3, 3), (5, 3), (-1, -1), (-1, -3), (-2, 0), (-4, 8))
        ),
        *({"slice": slice(None, None, each)} for each in (0, -1)),
        *({"slice": each} for each in ((), (1,), (1, 2, 3, 4), (3, 3))),
    ],
)
def test_values_that_cannot_be(given: Any) -> None:
    with pytest.raises(BadValueError, match="'rec'"):
        filter_name("rec", **given)


@pytest.mark.parametrize(
    "given",
    [
        *({"deadband": each} for each in (True, b"5%", [1], 1j)),
        *({"every": each} for each in (True, 1.0, "2", [2])),
        *({"slice": each} for each in (True, 1.0, "1:2", [1, 2], ("a", "b"))),
        {"slice": slice(1.0, 2)},
        {"slice": slice(None, None, True)},
    ],
)
def test_types_that_cannot_be(given: Any) -> None:
    with pytest.raises(BadTypeError, match="'rec'"):
        filter_name("rec", **given)
    name: Any = b"rec"
    with pytest.raises(BadTypeError):
        filter_name(name)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("rec", False),
        ("rec.VAL", False),
        ("arr", False),
        ("rec[1]", False),  # without the dot it belongs to the record's name
        ("rec.VAL[2:5]", True),
        ("rec.VAL$[2:5]", True),
        ("rec.[2:5]", True),
        ('rec.VAL[2:5]{"ts":{}}', True),
        (filter_name("rec", slice=(2, 5)), True),
        (filter_name("XF{Mtr:1}", slice=-1, coherent=True), True),
        (filter_name("arr{Mtr:1}", deadband=1, every=2, coherent=True), False),
        (r'rec.{"\u0061rr":{}}', True),
        # not strict, but an IOC knows them
        ("rec.{arr:{s:2}}", True),
        (r"rec.{'\x61rr':{s:2}}", True),
        ("rec.VAL[2:5]{dbnd:{abs:1}}", True),
        ("rec.{dbnd:{abs:1}}", False),
    ],
)
def test_names_that_stand_for_a_slice(name: str, taken: bool) -> None:
    assert takes_slice(name) is taken


# ---- the client's own filters


def _passed(filters: Any, values: Any, alarms: Any = None, connects: Any = None) -> list[Any]:
    gate = Gate(filters)
    count = len(values)
    found = []
    for value, alarm, number in zip(
        values, alarms or [0] * count, connects or [1] * count, strict=True
    ):
        sample: Any = SimpleNamespace(value=value, status=alarm, severity=alarm)
        if gate.passes(sample, number):
            found.append(value)
    return found


def test_a_deadband() -> None:
    nan, inf = math.nan, math.inf
    dbnd = {"dbnd": {"abs": 1.0}}
    assert _passed(dbnd, [0, 0.5, 1.0, 1.5, 2, 3.0]) == [0, 1.5, 3.0]
    assert _passed(dbnd, [-5, -5.5, -6.5]) == [-5, -6.5]
    assert _passed(dbnd, [1, inf, inf, -inf, 0]) == [1, inf, -inf, 0]
    assert [str(v) for v in _passed(dbnd, [1, nan, nan, 1.5])] == ["1", "nan", "1.5"]
    assert _passed(dbnd, ["a", "a", [1], [1]]) == ["a", "a", [1], [1]]
    assert _passed({"dbnd": {"abs": 0.0}}, [1, 1, 2, 2]) == [1, 2]


def test_a_relative_deadband() -> None:
    rel = {"dbnd": {"rel": 10.0}}
    assert _passed(rel, [10, 10.5, 11, 11.01, 12, 12.2, 13]) == [10, 11.01, 12.2]
    assert _passed(rel, [-10, -10.5, -11]) == [-10, -10.5, -11]  # as the IOC has it


def test_alarms_pass_a_deadband_and_do_not_move_it() -> None:
    assert _passed({"dbnd": {"abs": 1}}, [0, 0.8, 1.5, 1.6], [0, 1, 1, 1]) == [0, 0.8, 1.5]


def test_decimation_and_order() -> None:
    assert _passed({"dec": {"n": 3}}, range(8)) == [0, 3, 6]
    assert _passed({"dec": {"n": 1}}, range(3)) == [0, 1, 2]
    values = [0, 0.5, 2, 2.5, 4, 4.1, 6, 8]
    assert _passed({"dbnd": {"abs": 1.0}, "dec": {"n": 2}}, values) == [0, 4, 8]
    assert _passed({"dec": {"n": 2}, "dbnd": {"abs": 1.0}}, values) == [0, 2, 4, 6]


def test_each_connection_begins_anew() -> None:
    assert _passed({"dec": {"n": 3}}, range(5), connects=[1, 1, 2, 2, 2]) == [0, 2]
    assert _passed({"dbnd": {"abs": 9}}, range(4), connects=[1, 1, 2, 2]) == [0, 2]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("rec", "rec"),
        ("rec.VAL", "rec.VAL"),
        ('rec.{"ts":{}}', "rec"),
        ('rec.VAL{"ts":{}}', "rec.VAL"),
        ('rec.DESC${"arr":{"s":1}}', "rec.DESC$"),
        ("rec.VAL[2:5]", "rec.VAL"),
        ('rec.VAL[2:5]{"ts":{}}', "rec.VAL"),
        ('XF{Mtr:1}.VAL{"ts":{}}', "XF{Mtr:1}.VAL"),
        ("XF{Mtr:1}", "XF{Mtr:1}"),
        ("rec.{ts:", "rec"),
    ],
)
def test_the_name_without_filters(name: str, plain: str) -> None:
    assert plain_name(name) == plain
