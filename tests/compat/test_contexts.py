"""Contexts, and what libca itself would have refused: measured on pyepics 3.5.10."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from epicsx import ca, dbr
from epicsx.testing import SoftIOC


def in_a_thread(function: Callable[[], Any]) -> Any:
    """What a function answers in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(10)
    assert found, "the thread has not ended well"
    return found[0]


def test_a_thread_with_a_context_of_its_own_keeps_it(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)

    def own() -> list[Any]:
        seen: list[Any] = [ca.current_context(), ca.context_create()]
        mine = ca.current_context()
        with pytest.raises(ca.CASeverityException) as caught:
            ca.use_initial_context()
        seen += [str(caught.value), ca.current_context() == mine, ca.context_destroy()]
        seen += [ca.current_context(), ca.use_initial_context(), ca.use_initial_context()]
        return [*seen, ca.detach_context(), ca.current_context()]

    text = " use_initial_context returned 'Thread is already attached to a client context'"
    assert in_a_thread(own) == [None, 1, text, True, 0, None, 1, 1, 0, None]
    assert ca.get(chid) is not None  # the end of the other context has not touched the first one's


def test_create_context_gives_nothing_back() -> None:
    ca.flush_io()  # Channel Access has begun

    def create() -> tuple[Any, bool]:
        answer: Any = ca.create_context()  # type: ignore[func-returns-value]
        own = ca.current_context()
        ca.destroy_context()
        return answer, own is not None and own != ca.initial_context

    assert in_a_thread(create) == (None, True)


def test_the_initial_context_for_as_long_as_a_function_runs() -> None:
    ca.flush_io()  # Channel Access has begun, in another thread

    @ca.withInitialContext
    def inside() -> int | None:
        return ca.current_context()

    def own() -> bool:
        ca.context_create()
        mine = ca.current_context()
        first = inside()
        same = ca.current_context() == mine
        ca.context_destroy()
        return first == ca.initial_context and first != mine and same

    assert in_a_thread(own)


def test_hooks_of_clear_cache() -> None:
    cleared: list[int] = []

    def hook() -> None:
        cleared.append(1)

    ca.register_clear_cache(hook)
    try:
        ca.register_clear_cache(None)
        with pytest.raises(RuntimeError) as caught:
            ca.register_clear_cache(5)  # type: ignore[arg-type]
        assert str(caught.value) == "Cannot register type <class 'int'>. Callable required."
        ca.clear_cache()
        assert cleared == [1]
    finally:
        del ca._clear_cache_callbacks[id(hook)]


def test_hooks_run_also_where_there_is_no_channel_access_yet() -> None:
    program = """
from epicsx import ca
cleared = []
ca.register_clear_cache(lambda: cleared.append(1))
assert ca.libca is None
ca.clear_cache()
assert cleared == [1] and ca.libca is None
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_channels_that_cannot_be(name: str) -> None:
    with pytest.raises(ca.CASeverityException) as caught:
        ca.create_channel(name)
    assert str(caught.value) == " create_channel returned 'Invalid string'"


def test_calls_without_what_they_need() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'chid'"):
        ca.name()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ca.create_channel(5)  # type: ignore[arg-type]
    for function, named in ((ca.promote_type, "promote_type"), (ca.isConnected, "state")):
        with pytest.raises(ca.ChannelAccessException, match=f"^{named}: not a valid chid x"):
            function("x")


def test_types_that_are_none(ioc: SoftIOC) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    for function in ("get", "create_subscription"):
        with pytest.raises(ca.CASeverityException) as caught:
            getattr(ca, function)(chid, ftype=99)
        assert str(caught.value) == f" {function} returned 'The data type specifed is invalid'"
    with pytest.raises(ca.CASeverityException, match="put returned 'The data type"):
        ca.put(chid, 1, ftype=-1)


def test_a_subscription_of_a_given_type_needs_no_connection(
    spare_ioc: Callable[..., SoftIOC], calls: Any
) -> None:
    from support import wait_until

    with_none_yet = ca.create_channel("later:x")
    _, _, handle = ca.create_subscription(with_none_yet, ftype=dbr.STS_DOUBLE, callback=calls)
    spare_ioc('record(ao, "later:x") { field(VAL, "4.5") field(PINI, "YES") }')
    wait_until(lambda: calls and calls.values[-1] == 4.5, 30)
    assert list(calls[-1]) == [
        *("value", "ftype", "count", "chid", "pvname"),  # in pyepics' order
        *("status", "severity"),
    ]
    assert ca.clear_subscription(handle) == 1


def test_what_connect_channel_says(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    chid = ca.create_channel(ioc["ao"], connect=True)
    assert ca.connect_channel(chid.value, verbose=True)
    assert capsys.readouterr().out == f" connect channel -> {chid!r} 2 2 \n"


def test_the_printf_handler_is_kept() -> None:
    heard: list[str] = []
    assert ca.replace_printf_handler(heard.append) == 1
    assert ca.ca_printf == heard.append
    ca.disable_ca_messages()
