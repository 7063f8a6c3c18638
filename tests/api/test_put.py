"""Channel.put: what is written, what is refused before it is sent, and what the server refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import idle, takes, wait_until
from support.records import endless

from epicsx import (
    AccessError,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    PutError,
)
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core


# ---- what is written


@pytest.mark.parametrize(
    ("record", "value", "read"),
    [
        ("double", 2.25, 2.25),
        ("double", 3, 3.0),
        ("double", np.float32(0.5), 0.5),
        ("double", np.array([7.5]), 7.5),
        ("longout", -2147483648, -2147483648),
        ("longout", 2147483647, 2147483647),
        ("longout", np.int64(12), 12),
        ("longout", True, 1),
        ("mbbo", 2, 2),
        ("mbbo", "Three", 3),
        ("bo", "On", 1),
        ("stringout", "µ ok", "µ ok"),
        ("stringout", "x" * 39, "x" * 39),
        ("stringout", b"raw", "raw"),
        ("stringout", "", ""),
    ],
)
def test_one_value(ioc: SoftIOC, record: str, value: object, read: object) -> None:
    with Channel(ioc[record]) as channel:
        channel.put(value, wait=True)
        assert channel.get().value == read


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("double", [1.5, 2.5, 3.5]),
        ("float", np.array([1.5, 2.5], np.float32)),
        ("short", [-32768, 32767]),
        ("long", np.arange(32, dtype=np.int32)),
        ("uchar", [0, 255]),
        ("ushort", [0, 65535]),
        ("enum", [0, 5]),
        ("double", np.arange(20, dtype=np.int16)[::2]),
        ("double", range(5)),
        ("double", (True, False)),
        ("double", 4.0),
    ],
)
def test_arrays(ioc: SoftIOC, kind: str, value: Any) -> None:
    with Channel(ioc[f"w:{kind}"]) as channel:
        channel.put(value, wait=True)
        assert channel.get().value.tolist() == list(np.ravel(value))


def test_text_in_characters_ends_with_a_nul(ioc: SoftIOC) -> None:
    with Channel(ioc["w:char"]) as channel:
        for text in (b"abc", "abc"):
            channel.put(text, wait=True)
            assert bytes(channel.get().value) == b"abc\0"


def test_arrays_of_text(ioc: SoftIOC) -> None:
    with Channel(ioc["w:string"]) as channel:
        channel.put(["one", "two", "drei µ"], wait=True)
        assert channel.get().value == ["one", "two", "drei µ"]


@pytest.mark.parametrize("kind", ["double", "long", "char", "string"])
def test_an_empty_list_writes_no_elements(ioc: SoftIOC, kind: str) -> None:
    with Channel(ioc[f"w:{kind}"]) as channel:
        channel.put(["1"] * 3 if kind == "string" else [1, 2, 3], wait=True)
        assert channel.get().count == 3
        channel.put([], wait=True)
        sample = channel.get()
        assert sample.count == 0
        assert list(sample.value) == []


def test_an_empty_list_does_not_fit_a_record_of_one_element(ioc: SoftIOC) -> None:
    with Channel(ioc["double"]) as channel, pytest.raises((BadValueError, BadTypeError)):
        channel.put([])


def test_the_array_is_the_callers_again_at_once(ioc: SoftIOC) -> None:
    with Channel(ioc["w:double"]) as channel:
        array = np.arange(32.0)
        channel.put(array)
        array[:] = -1.0
        assert channel.get().value.tolist() == list(range(32))


def test_a_large_array(ioc: SoftIOC) -> None:
    with Channel(ioc["big:double"]) as channel:
        array = np.random.default_rng(1).random(1048576)
        channel.put(array, wait=True, timeout=30.0)
        assert (channel.get(timeout=30.0).value == array).all()
        channel.put([], wait=True)


def test_a_put_connects_first(ioc: SoftIOC) -> None:
    with Channel(ioc["puts"], priority=11) as channel:
        channel.put(5)
        assert channel.get().value == 5


# ---- refused before anything is sent


def test_bad_values_are_refused_before_anything_is_sent(ioc: SoftIOC) -> None:
    bad: list[tuple[Any, type[CAError]]] = [
        ("text", BadTypeError),
        (b"text", BadTypeError),
        (None, BadTypeError),
        (object(), BadTypeError),
        ({"a": 1}, BadTypeError),
        (1j, BadTypeError),
        ([[1], [2, 3]], CAError),
        (2**31, BadValueError),
        (-(2**31) - 1, BadValueError),
        (2**200, BadValueError),
        (np.int64(2**40), BadValueError),
        (1e300, CAError),
        (float("nan"), CAError),
        ([1, 2], BadValueError),
        ([], CAError),
        (np.arange(1000), BadValueError),
    ]
    ioc.write("puts:n", 0)
    with Channel(ioc["puts"]) as channel:
        channel.put(7, wait=True)
        for value, error in bad:
            for wait in (False, True):
                with pytest.raises(error, match="puts") as info:
                    channel.put(value, wait=wait)
                assert info.value.name in ("", ioc["puts"])
                assert (TypeError in type(info.value).mro()) or isinstance(info.value, ValueError)
            with pytest.raises(error):
                channel.put_async(value)
            with pytest.raises(error):
                channel.put(value, callback=lambda failed: None)
        channel.put(8, wait=True)
    assert ioc.read("puts:n") == "2"
    assert ioc.read("puts") == "8"


@pytest.mark.parametrize(
    ("record", "value", "error"),
    [
        ("stringout", "x" * 40, BadValueError),
        ("stringout", "µ" * 20, BadValueError),
        ("stringout", 5, BadTypeError),
        ("stringout", ["a", "b"], BadValueError),
        ("mbbo", "Four", BadValueError),
        ("mbbo", "", BadValueError),
        ("mbbo", 70000, BadValueError),
        ("mbbo", -1, BadValueError),
        ("mbbo", None, BadTypeError),
        ("double", "text", BadTypeError),
        ("double", [1.0, 2.0], BadValueError),
        ("w:double", range(33), BadValueError),
        ("w:short", [40000], BadValueError),
        ("w:short", np.array([40000]), BadValueError),
        ("w:uchar", [256], BadValueError),
        ("w:uchar", [-129], BadValueError),
        ("w:long", ["1"], BadTypeError),
        ("w:string", ["x" * 40], BadValueError),
        ("w:string", [1], BadTypeError),
    ],
)
def test_a_misfit_is_typed_and_not_written(
    ioc: SoftIOC, record: str, value: Any, error: type[CAError]
) -> None:
    with Channel(ioc[record]) as channel:
        before = channel.get()
        for wait in (False, True):
            with pytest.raises(error, match=record):
                channel.put(value, wait=wait)
        after = channel.get()
        assert np.array_equal(after.value, before.value)
        assert after.timestamp_ns == before.timestamp_ns  # not even processed


def test_no_write_access(ioc: SoftIOC) -> None:
    with Channel(ioc["readonly"]) as channel:
        attempts: list[Callable[[], object]] = [
            lambda: channel.put(1.0),
            lambda: channel.put(1.0, wait=True),
            lambda: channel.put_async(1.0),
        ]
        for attempt in attempts:
            channel.connect()
            with pytest.raises(AccessError, match="readonly") as info:
                attempt()
            assert isinstance(info.value, PermissionError)
        assert channel.get().value == 4.0


# ---- the server refuses


def test_a_rejected_put_is_an_error(ioc: SoftIOC) -> None:
    with Channel(ioc["disp"]) as channel:
        with pytest.raises(PutError, match="disp") as info:
            channel.put(5.0, wait=True)
        assert info.value.status == 160
        request = channel.put_async(5.0)
        assert isinstance(request.exception(5.0), PutError)
        with pytest.raises(PutError):
            request.result(5.0)
        assert channel.get().value == 1.0


def test_a_rejected_put_calls_back_once_with_the_error(ioc: SoftIOC) -> None:
    told: list[BaseException | None] = []
    with Channel(ioc["disp"]) as channel, Channel(ioc["double"]) as good:
        channel.put(5.0, callback=told.append)
        wait_until(lambda: told)
        good.put(1.0, callback=told.append)
        wait_until(lambda: len(told) == 2)
        assert isinstance(told[0], PutError)
        assert told[1] is None


def test_a_rejected_put_without_wait_is_counted_and_logged(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    with Channel(ioc["disp"]) as channel:
        before = channel.stats.rejected_puts
        channel.put(5.0)
        wait_until(lambda: channel.stats.rejected_puts == before + 1)
        wait_until(lambda: ioc["disp"] in caplog.text)
        assert {record.name for record in caplog.records} == {"epicsx"}


# ---- waiting


def test_wait_ends_with_the_processing(ioc: SoftIOC) -> None:
    def before() -> None:
        idle(ioc)
        ioc.write("slow:done", 0)

    with Channel(ioc["slow"]) as channel, Channel(ioc["slow:done"]) as done:
        channel.connect()
        takes(0.25, 2.0, lambda: channel.put(1.0, wait=True), before=before)
        assert done.get().value == 1.0


def test_a_put_that_takes_longer_than_its_timeout(ioc: SoftIOC) -> None:
    with Channel(ioc["slow2"]) as channel:
        channel.connect()

        def fails() -> None:
            with pytest.raises(CATimeoutError, match="slow2"):
                channel.put(1.0, wait=True, timeout=0.5)

        takes(0.475, 0.6, fails, before=lambda: idle(ioc, "slow2"))
        assert channel.get().value == 1.0  # while the put is still in progress


def test_callback_and_wait_together(ioc: SoftIOC) -> None:
    idle(ioc)
    told: list[tuple[BaseException | None, str]] = []
    with Channel(ioc["slow"]) as channel:
        channel.put(
            1.0,
            wait=True,
            callback=lambda failed: told.append((failed, threading.current_thread().name)),
        )
        wait_until(lambda: told)
        assert told == [(None, "epicsx-default")]


def test_a_callback_gets_the_timeout(ioc: SoftIOC) -> None:
    idle(ioc, "slow2")
    told: list[BaseException | None] = []
    with Channel(ioc["slow2"]) as channel:
        channel.connect()
        channel.put(1.0, timeout=0.2, callback=told.append)
        wait_until(lambda: told)
        assert isinstance(told[0], CATimeoutError)  # the answer comes after 2 s
        idle(ioc, "slow2")
        assert len(told) == 1  # the late answer is nobody's


def test_close_takes_back_what_waits(spare_ioc: Callable[..., SoftIOC]) -> None:
    # Two of them each time: the server's thread lets only one put with completion per channel in.
    own = spare_ioc(endless(10))
    records = iter(range(10))
    channels: list[Channel] = []
    requests: list[Any] = []
    told: list[BaseException | None] = []

    def before() -> None:
        told.clear()
        channels[:] = [Channel(own[f"endless{next(records)}"]).connect(20.0) for _ in range(2)]
        requests[:] = [channels[0].put_async(1.0)]
        channels[1].put(2.0, callback=told.append)

    def close() -> None:
        for channel in channels:
            channel.close()
        with pytest.raises(CAError, match=r"endless.*closed"):
            requests[0].result(5.0)
        wait_until(lambda: told)
        assert isinstance(told[0], CAError)

    takes(0.0, 0.25, close, before=before)


def test_close_of_one_handle_leaves_the_requests_of_another(ioc: SoftIOC) -> None:
    idle(ioc)
    with Channel(ioc["slow"]) as kept:
        other = Channel(ioc["slow"])
        kept.connect()
        mine = kept.put_async(1.0)
        other.close()
        assert mine.result(5.0) is None


def test_threads_waiting_for_the_same_record(ioc: SoftIOC) -> None:
    idle(ioc)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Channel(ioc["slow"]) as channel:
                channel.put(1.0, wait=True, timeout=20.0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert errors == []
