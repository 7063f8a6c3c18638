"""connect, get_many, put_many: many channels under one deadline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import connected, idle, takes, wait_until

from epicsx import (
    AccessError,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    DisconnectedError,
    PutError,
    Sample,
    connect,
    get_many,
    put_many,
)
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


def test_connect_gives_channels_in_order(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(200)]
    channels = connect(names)
    assert [channel.name for channel in channels] == names
    assert all(channel.connected for channel in channels)


def test_connect_says_which_are_missing(ioc: SoftIOC) -> None:
    names = [ioc["ao"], ioc["nobody1"], ioc["ai"], ioc["nobody2"]]

    def fails() -> None:
        with pytest.raises(CATimeoutError) as info:
            connect(names, timeout=1.0)
        text = str(info.value)
        assert ioc["nobody1"] in text and ioc["nobody2"] in text
        assert ioc["ao"] not in text

    with connected(names[0], names[2]):
        takes(0.95, 1.05, fails)


def test_nothing_is_a_list_too() -> None:
    assert connect([]) == []
    assert get_many([]) == []
    assert put_many([], []) == []


def test_one_name_is_not_a_list(ioc: SoftIOC) -> None:
    with pytest.raises(BadTypeError):
        get_many(ioc["ao"])
    with pytest.raises(BadTypeError):
        put_many(ioc["ao"], [1] * len(ioc["ao"]))
    with pytest.raises(BadTypeError):
        connect(ioc["ao"])


def test_get_many(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(500)]
    put_many(names, range(500), wait=True, timeout=20.0)
    samples = get_many(names, timeout=20.0)
    assert [sample.value for sample in samples] == list(range(500))
    assert all(isinstance(sample, Sample) for sample in samples)
    assert [sample.name for sample in samples] == names


def test_names_and_channels_and_types_may_be_mixed(ioc: SoftIOC) -> None:
    with Channel(ioc["mbbi"]) as state:
        found = get_many(
            [state, ioc["ai"], ioc["stringin"], ioc["wf:double:n"], ioc["wf:string:n"], state]
        )
        assert [found[n].value for n in (0, 1, 2, 5)] == [2, 2.5, "text in", 2]
        assert found[3].value.tolist() == list(range(10))
        assert found[4].value[:2] == ["s0", "s1"]


def test_get_many_raises_one_error_that_names_the_failures(ioc: SoftIOC) -> None:
    names = [ioc["ai"], ioc["noaccess"], ioc["nobody"], ioc["mbbi"]]
    with connected(names[0], names[1], names[3]), pytest.raises(CAError) as info:
        get_many(names, timeout=2.0)
    assert ioc["noaccess"] in str(info.value)
    assert ioc["nobody"] in str(info.value)
    assert ioc["mbbi"] not in str(info.value)
    with pytest.raises(AccessError, match="noaccess"):
        get_many([ioc["ai"], ioc["noaccess"]])


def test_an_unknown_pv_in_get_many_is_a_timeout_in_time(ioc: SoftIOC) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: get_many([ioc["ai"], ioc["nobody"]], timeout=1.0),
        lambda: put_many([ioc["double"], ioc["nobody"]], [1, 2], timeout=1.0),
        lambda: put_many([ioc["double"], ioc["nobody"]], [1, 2], wait=True, timeout=1.0),
    ]

    def fails(attempt: Callable[[], object]) -> None:
        with pytest.raises(CATimeoutError, match="nobody"):
            attempt()

    for attempt in attempts:
        takes(0.95, 1.05, partial(fails, attempt))


def test_get_many_can_return_the_errors(ioc: SoftIOC) -> None:
    names = [ioc["ai"], ioc["noaccess"], ioc["nobody"], ioc["mbbi"]]
    with connected(names[0], names[1], names[3]):
        found = get_many(names, timeout=2.0, on_error="return")
    assert isinstance(found[0], Sample)
    assert found[0].value == 2.5
    assert isinstance(found[1], AccessError)
    assert isinstance(found[2], CATimeoutError)
    assert found[2].name == ioc["nobody"]
    assert isinstance(found[3], Sample)
    assert found[3].value == 2


def test_put_many(ioc: SoftIOC) -> None:
    names = [ioc["double"], ioc["mbbo"], ioc["stringout"], ioc["w:double"]]
    values = [1.25, "Two", "many", np.arange(5.0)]
    assert put_many(names, values, wait=True) == [None] * 4
    found = get_many(names)
    assert [sample.value for sample in found[:3]] == [1.25, 2, "many"]
    assert found[3].value.tolist() == list(range(5))


def test_put_many_without_wait_arrives(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(100)]
    put_many(names, range(1000, 1100))
    assert [sample.value for sample in get_many(names)] == list(range(1000, 1100))
    put_many(names, range(100), wait=True)


def test_put_many_says_what_failed_and_writes_the_rest(ioc: SoftIOC) -> None:
    names = [ioc[n] for n in ("double", "longout", "readonly", "disp", "nobody", "mbbo")]
    values = [4.5, "text", 1.0, 1.0, 1.0, "Nine"]
    put_many(names[:1], [0.0], wait=True)
    with connected(*names[:4], names[5]):
        found = put_many(names, values, wait=True, timeout=2.0, on_error="return")
    assert found[0] is None
    kinds = [BadTypeError, AccessError, PutError, CATimeoutError, BadValueError]
    assert [type(error) for error in found[1:]] == kinds
    assert get_many(names[:1])[0].value == 4.5
    with pytest.raises(CAError) as info:
        put_many(names, values, wait=True, timeout=1.0)
    for name in names[1:]:
        assert name in str(info.value)


def test_as_many_values_as_channels(ioc: SoftIOC) -> None:
    with pytest.raises(BadValueError):
        put_many([ioc["double"]], [1, 2])


def test_on_error_is_one_of_two(ioc: SoftIOC) -> None:
    wrong: Any = "ignore"
    with pytest.raises(BadValueError):
        get_many([ioc["ai"]], on_error=wrong)
    with pytest.raises(BadValueError):
        put_many([ioc["double"]], [1], on_error=wrong)


def test_a_closed_channel_in_a_list(ioc: SoftIOC) -> None:
    channel = Channel(ioc["ai"])
    channel.close()
    with pytest.raises(CAError, match="closed"):
        get_many([ioc["mbbi"], channel])


def test_a_slow_record_among_many_times_out_alone(ioc: SoftIOC) -> None:
    names = [ioc["double"], ioc["slow2"], ioc["longout"]]

    def slow() -> None:
        found = put_many(names, [1, 2, 3], wait=True, timeout=1.0, on_error="return")
        assert found[0] is None and found[2] is None
        assert isinstance(found[1], CATimeoutError)
        assert ioc["slow2"] in str(found[1])

    with connected(*names):
        takes(0.95, 1.1, slow, before=lambda: idle(ioc, "slow2"))
    # Its slot stays lent until the record answers, after 2 s; the fixture sees that it comes back.


def test_channels_of_a_lost_ioc_are_named(spare_ioc: Callable[..., SoftIOC], ioc: SoftIOC) -> None:
    lost = spare_ioc('record(ao, "$(P)x") {}')
    channels = connect([ioc["ai"], lost["x"]], timeout=10.0)
    lost.kill()
    wait_until(lambda: not channels[1].connected)
    found = get_many(channels, timeout=2.0, on_error="return")
    assert isinstance(found[0], Sample)
    assert found[0].value == 2.5
    assert isinstance(found[1], (DisconnectedError, CATimeoutError))
    assert found[1].name == lost["x"]
