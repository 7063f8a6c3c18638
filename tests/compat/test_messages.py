"""What libca says, what it calls exceptions, and how it is doing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support import idle, run_python, wait_until

from epicsx import ca, dbr
from epicsx.testing import SoftIOC


def rejections(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """Wait until the dispatcher has told of so many: none of them comes while the next test listens."""
    wait_until(lambda: caplog.text.count("the server rejected a put") == count)


def test_exception_events(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, int, str, str]] = []

    def listener(*args: Any) -> None:
        told.append(args)

    def failing(*args: Any) -> None:
        raise RuntimeError("on purpose")

    chid = ca.create_channel(ioc["disp"], connect=True)
    assert ca.add_exception_event(failing) == dbr.ECA_NORMAL
    assert ca.add_exception_event(listener) == dbr.ECA_NORMAL
    ca.add_exception_event(listener)
    try:
        ca.put(chid, 3.0)  # the server rejects it, and only an exception tells so
        wait_until(lambda: told)
        status, op, name, text = told[0]
        assert (ca.message(status), name) == ("Channel write request failed", ioc["disp"])
        assert isinstance(op, int)
        assert isinstance(text, str)
        assert len(told) == 1
    finally:
        ca.remove_exception_event(listener)
        ca.remove_exception_event(failing)
    ca.remove_exception_event(listener)
    ca.put(chid, 4.0)
    rejections(caplog, 2)
    assert len(told) == 1
    with pytest.raises(ca.ChannelAccessException, match="must be callable"):
        ca.add_exception_event(5)  # type: ignore[arg-type]


def test_a_writer_gets_what_libca_would_print(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    chid = ca.create_channel(ioc["disp"], connect=True)
    ca.replace_printf_handler(lines.append)
    try:
        ca.put(chid, 3.0)
        wait_until(lambda: lines)
        assert 'Warning: "Channel write request failed"' in lines[0]
        assert ioc["disp"] in lines[0]
    finally:
        ca.disable_ca_messages()
    ca.put(chid, 4.0)
    rejections(caplog, 2)
    assert len(lines) == 1
    with pytest.raises(ca.ChannelAccessException, match="must be callable"):
        ca.replace_printf_handler("stdout")  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["stderr", "stdout"])
def test_messages_to_a_stream_by_its_name(
    ioc: SoftIOC,
    where: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    chid = ca.create_channel(ioc["disp"], connect=True)
    ca.enable_ca_messages(where)
    text = ""
    try:
        ca.put(chid, 3.0)

        def written() -> bool:
            nonlocal text
            text += getattr(capsys.readouterr(), where.removeprefix("std"))
            return "Channel write request failed" in text

        wait_until(written)
        rejections(caplog, 1)
    finally:
        ca.enable_ca_messages(None)


def test_messages_always_reach_the_log(ioc: SoftIOC, caplog: pytest.LogCaptureFixture) -> None:
    chid = ca.create_channel(ioc["disp"], connect=True)
    with caplog.at_level(logging.DEBUG, "epicsx"):
        ca.put(chid, 3.0)
        wait_until(lambda: "the server rejected a put" in caplog.text)


def test_client_status(ioc: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    up = ca.create_channel(ioc["ao"], connect=True)
    ca.create_channel(ioc["nobody"])
    _, _, subscription = ca.create_subscription(up, callback=lambda **k: None)
    # what tests before have let go may still be on its way out
    counts = "2 channels: 1 connected, 0 disconnected, 1 never connected"
    wait_until(lambda: counts in ca.client_status(ca.current_context(), 0, print_out=False))
    wait_until(lambda: "1 circuit\n" in ca.client_status(1, 0, print_out=False))
    short = ca.client_status(ca.current_context(), 0, print_out=False)
    assert f"{ca.host_name(up)}, priority 0: 1 channel" in short
    assert ioc["ao"] not in short
    wait_until(lambda: "1 subscription\n" in ca.client_status(1, 0, print_out=False))
    long = ca.client_status(1, 2, print_out=False)
    assert f'Channel "{ioc["ao"]}" is connected to "{ca.host_name(up)}", ' in long
    assert "DOUBLE[1], read/write" in long
    assert f'Channel "{ioc["nobody"]}" is never connected' in long
    assert "received " in long
    assert ca.client_status(1, 1) == dbr.ECA_NORMAL
    assert ioc["nobody"] in capsys.readouterr().out
    ca.clear_subscription(subscription)


def test_priorities_have_circuits_of_their_own(ioc: SoftIOC) -> None:
    plain = ca.create_channel(ioc["ao"], connect=True)
    fast = ca.create_channel(ioc["ao"], connect=True, priority=20)
    assert plain.value != fast.value
    assert ca.create_channel(ioc["ao"], priority=20) is fast
    assert ca.name(plain) == ca.name(fast) == ioc["ao"]
    assert ca.get(plain) == ca.get(fast)
    assert "priority 20" in ca.client_status(1, 0, print_out=False)
    item = ca.get_cache(ioc["ao"])
    assert item is not None
    assert item.chid is plain
    ca.clear_channel(fast)
    assert ca.isConnected(plain)
    with pytest.raises(ValueError, match="priority"):
        ca.create_channel(ioc["ao"], priority=100)


def test_pend_io_waits_for_what_nobody_waits_for(ioc: SoftIOC) -> None:
    idle(ioc, "slow2")
    chid = ca.create_channel(ioc["slow2"], connect=True)
    assert ca.test_io() is True
    ended: list[Any] = []
    ca.put(chid, 1.0, callback=lambda **k: ended.append(k))
    assert ca.test_io() is False
    assert ca.pend_io(0.01) == dbr.ECA_TIMEOUT
    assert ca.pend_io(10.0) == dbr.ECA_NORMAL
    assert ca.test_io() is True
    wait_until(lambda: ended)


def test_polled(ioc: SoftIOC) -> None:
    """With PREEMPTIVE_CALLBACK False nothing changes and nobody is called but in a polling or waiting call."""
    # another test may have left a number that + 1 does not change, or the largest there is
    ioc.write("double", 1.5)
    ioc.write("longout", 5)
    run_python(
        f"""
import threading, time
import epicsx as epics
from epicsx import ca
ca.PREEMPTIVE_CALLBACK = False
names = [{ioc["double"]!r}, {ioc["longout"]!r}]
seen, threads = [], set()
def changed(value=None, **kw):
    seen.append(value)
    threads.add(threading.current_thread())
pv = epics.PV(names[0], callback=changed)
quiet = epics.PV(names[1])
assert pv.wait_for_connection(5) and quiet.wait_for_connection(5)
until = time.monotonic() + 10
while (not seen or quiet._args["value"] is None) and time.monotonic() < until:
    epics.poll(0.01)
assert seen, "the first value came while polling"
other = ca.create_channel(names[0], connect=True)
number = ca.create_channel(names[1], connect=True)
start, count = seen[-1], len(seen)
before = quiet.value
ca.put(other, start + 1, wait=True)
ca.put(number, before + 1, wait=True)
while (seen[-1] != start + 1 or quiet.value != before + 1) and time.monotonic() < until:
    ca.pend_event(0.01)
assert seen[-1] == start + 1 and quiet.value == before + 1
done = []
ca.put(other, start + 2, callback=lambda **k: done.append(threading.current_thread()))
assert ca.pend_io(5.0) == 1
while not done and time.monotonic() < until:
    ca.poll()
assert done == [threading.main_thread()]
assert threads == {{threading.main_thread()}}, threads
assert ca.get(other) == start + 2
assert not [t for t in threading.enumerate() if t.name.startswith("epicsx")]
""",
        env=ioc.env,
    )
