"""What is logged of failures that repeat themselves, and a log that fails itself."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from epicsx._complaints import Failures, tell
from epicsx._dispatch import _Repeated
from epicsx._printable import ESCAPING


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock by which failures are told apart in time."""
    clock = Clock()
    monkeypatch.setattr(Failures, "clock", clock)
    return clock


def divide() -> None:
    """Fail in one way."""
    raise ZeroDivisionError


def look_up() -> None:
    """Fail in another way."""
    raise KeyError


def due(failures: Failures, call: Callable[[], None], what: str = "callback") -> int | None:
    """Ask in the exception's handler, as the core does."""
    try:
        call()
    except Exception:
        return failures.due(what)
    raise AssertionError


def test_of_one_kind_ten_are_logged_and_then_one_a_second(clock: Clock) -> None:
    failures = Failures()
    assert [due(failures, divide) for _ in range(13)] == [0] * 10 + [None] * 3
    clock.now += 0.9
    assert due(failures, divide) is None
    clock.now += 0.2
    assert due(failures, divide) == 4
    assert due(failures, divide) is None
    clock.now += 1000.0
    assert [due(failures, divide) for _ in range(11)] == [1] + [0] * 9 + [None]


def test_one_kind_does_not_hide_another(clock: Clock) -> None:
    failures = Failures()
    for _ in range(1000):
        due(failures, divide)
    assert due(failures, divide) is None
    assert due(failures, look_up) == 0
    assert due(failures, divide, "callback of a get") == 0


def test_no_more_kinds_are_remembered_than_the_bound(clock: Clock) -> None:
    failures = Failures()
    for number in range(10 * Failures.KINDS):
        assert due(failures, divide, f"callback {number}") == 0
    assert len(failures._seen) == Failures.KINDS


class Broken(logging.Handler):
    """As one whose disk is full."""

    def emit(self, record: logging.LogRecord) -> None:
        """Fail."""
        raise OSError("disk full")


def test_a_handler_that_fails_is_told_on_stderr_and_no_further(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("private.broken")
    broken = Broken()
    log.addHandler(broken)
    try:
        divide()
    except ZeroDivisionError:
        tell(log, logging.ERROR, "%s failed", "x", failure=True)
    finally:
        log.removeHandler(broken)
    said = capsys.readouterr().err
    assert "OSError: disk full" in said
    assert "ZeroDivisionError" in said


def test_what_is_told_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("private.traceback")
    try:
        divide()
    except ZeroDivisionError:
        tell(log, logging.ERROR, "%s failed", "x", failure=True)
    (record,) = caplog.records
    assert record.getMessage() == "x failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("each", [ESCAPING, _Repeated()], ids=["escaping", "repeated"])
def test_a_message_whose_arguments_do_not_fit_is_left_to_the_handler(each: logging.Filter) -> None:
    record = logging.LogRecord("epicsx", 30, __file__, 1, "bad %d", ("x",), None)
    assert each.filter(record)
