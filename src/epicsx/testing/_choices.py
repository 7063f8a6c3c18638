"""What the verbs of `CAProxy` and `FakeServer` are told: which frames, and what to do to them; checked before use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from epicsx._wire import Command

Commands: TypeAlias = "int | str | Iterable[int | str]"

FIELDS = ("command", "data_type", "count", "parameter1", "parameter2", "size")


def command_numbers(given: Any) -> list[int] | None:
    """The numbers of a command, or of several; None are all."""
    if given is None:
        return None
    several = [given] if isinstance(given, (int, str)) else list(given)
    return [command_number(each) for each in several]


def command_number(given: Any) -> int:
    """The number of a command that is given so, or by its name in caProto.h."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 0xFFFF:
        return int(given)
    try:
        return int(Command[str(given).removeprefix("CA_PROTO_")])
    except KeyError:
        raise ValueError(f"{given!r} is no command of Channel Access") from None


def positive(what: str, number: float) -> float:
    """The number, which is above 0 and finite."""
    if not 0 < number < float("inf"):
        raise ValueError(f"{what} is a number above 0, not {number!r}")
    return float(number)


def byte_count(after: int) -> int:
    """The number of bytes."""
    if after < 0:
        raise ValueError(f"after is a number of bytes, not {after!r}")
    return after


def check_field(name: str, value: Any) -> None:
    """Refuse what is no field of a header, or no value for it."""
    if name not in FIELDS:
        raise ValueError(f"a frame's header has {', '.join(FIELDS)}, not {name!r}")
    most = 0xFFFF if name in ("command", "data_type") else 0xFFFFFFFF
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} is a number from 0 to {most}, not {value!r}")


def check_channel(name: Any) -> None:
    """Refuse what is no name, or pattern of names."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"channel is a PV's name, not {type(name).__name__}")


def checked_nth(nth: Any) -> list[int]:
    """The numbers, counted from 1, in their order."""
    several = [nth] if isinstance(nth, int) else sorted(nth)
    if not all(isinstance(each, int) and each > 0 for each in several):
        raise ValueError(f"nth is counted from 1, not {nth!r}")
    return several


def check_times(count: Any, where: Any) -> None:
    """Refuse what is no number of times, and what cannot decide."""
    if count is not None and (not isinstance(count, int) or count < 1):
        raise ValueError(f"count is how many times, at least once, not {count!r}")
    if where is not None and not callable(where):
        raise TypeError(f"where is a function of a frame, not {type(where).__name__}")
