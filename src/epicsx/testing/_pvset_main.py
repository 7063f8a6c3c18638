"""The server of `epicsx.testing.PVSet`: a program that is told what to serve, and asked what it sees, by lines of JSON.

The first line is the table of PVs. Each further line is a request, ``[name of a method, arguments...]``. Each line is
answered by one of JSON, ``{"result": ...}`` or ``{"error": [kind, reason]}``, the first one when the server serves. It
ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from caproto import (  # type: ignore[import-untyped, unused-ignore]
    AccessRights,
    ChannelChar,
    ChannelDouble,
    ChannelEnum,
    ChannelFloat,
    ChannelInteger,
    ChannelShort,
    ChannelString,
    ChannelType,
)
from caproto._data import (  # type: ignore[import-untyped, unused-ignore]
    CannotExceedLimits,
)
from caproto.asyncio.server import (  # type: ignore[import-untyped, unused-ignore]
    Context,
)

LOOPBACK = "127.0.0.1"
TYPES = {
    "short": ChannelShort,
    "long": ChannelInteger,
    "float": ChannelFloat,
    "double": ChannelDouble,
    "string": ChannelString,
}
RANGES = {  # of what holds whole numbers
    ChannelType.INT: (-(2**15), 2**15 - 1),
    ChannelType.LONG: (-(2**31), 2**31 - 1),
    ChannelType.CHAR: (0, 255),
}
LONGEST_TEXT = 39  # bytes: MAX_STRING_SIZE of epicsTypes.h, less the zero at the end
WRONG = (LookupError, TypeError, ValueError, ArithmeticError)  # what a bad table or value may raise


class UnknownPV(LookupError):
    """There is no PV of that name."""


def failure(error: BaseException) -> dict[str, Any]:
    """What answers a line that led to an exception; the kind is what `PVSet` raises."""
    if isinstance(error, UnknownPV):
        return {"error": ["KeyError", str(error)]}
    if isinstance(error, WRONG):
        return {"error": ["ValueError", str(error)]}
    return {"error": ["SoftIOCError", f"{type(error).__name__}: {error}"]}


def answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def fitting(channel: Any, value: Any) -> Any:
    """The value as the channel holds it: of an enum the number of the state.

    Raises
    ------
    ValueError
        It does not fit: another type, too large or too long, no state.
    """
    kind = channel.data_type
    if kind == ChannelType.ENUM:
        states = list(channel.enum_strings)
        if isinstance(value, str) and value in states:
            return states.index(value)
        if isinstance(value, (int, float)) and value in range(len(states)):
            return int(value)
        raise ValueError(f"{value!r} is no state: {', '.join(states)}, by name or number from 0")
    most = channel.max_length
    if isinstance(value, str) and kind == ChannelType.CHAR:
        if len(value.encode(channel.string_encoding)) > most:
            raise ValueError(f"{len(value)} characters, where {most} have room")
        return value
    many = isinstance(value, list)
    each = value if many else [value]
    if len(each) > most or (most == 1 and not each):
        raise ValueError(f"{len(each)} elements, where {most} have room")
    each = [_element(kind, one, channel) for one in each]
    return each if many and most != 1 else each[0]


def _element(kind: ChannelType, value: Any, channel: Any) -> Any:
    if kind == ChannelType.STRING:
        if not isinstance(value, str):
            raise ValueError(f"a text is wanted, not {value!r}")
        if len(value.encode(channel.string_encoding)) > LONGEST_TEXT:
            raise ValueError(f"a text of at most {LONGEST_TEXT} bytes is wanted, not {value!r}")
        return value
    if not isinstance(value, (int, float)):
        raise ValueError(f"a number is wanted, not {value!r}")
    if kind not in RANGES:
        try:
            return float(value)
        except OverflowError:
            raise ValueError("this number is too large") from None
    low, high = RANGES[kind]
    if not low <= value <= high or value != int(value):
        raise ValueError(f"a whole number from {low} to {high} is wanted, not {value!r}")
    return int(value)


def plain(value: Any) -> Any:
    """A value as JSON can have it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


class ExactNames(Context):  # type: ignore[misc, unused-ignore]
    """Knows its PVs by their plain names alone: no filters, no ``$``, no added dot."""

    def __getitem__(self, name: str) -> Any:
        return self.pvdb[name]


class Server:
    """The PVs of a table, what they held at first, and the puts of clients in their order."""

    judges = True  # whether a PV's alarm follows from its value and its limits

    def __init__(self, table: dict[str, Any]) -> None:
        self.puts: list[list[Any]] = []
        self.channels: dict[str, Any] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self.first: dict[str, Any] = {}
        for name, spec in table.items():
            spec = spec if isinstance(spec, dict) else {"value": spec}
            try:
                self.channels[name] = self.make(name, **spec)
                fitting(self.channels[name], spec["value"])
            except WRONG as error:
                raise ValueError(f"{name}: {error}") from error
            self.first[name] = spec["value"]

    def make(
        self,
        name: str,
        value: Any,
        states: list[str] | None = None,
        size: int | None = None,
        returns: float | None = None,
        type: str | None = None,
        readonly: bool = False,
    ) -> Any:
        """A channel: `states` make an enum, `size` an array or a long text; a put `returns` to the first value.

        `type` is one of TYPES, if not the one that follows from the value; `readonly` gives clients no write access.
        """
        server = self
        options: dict[str, Any] = {"value": value}
        kind = {int: "long", float: "double", str: "string"}.get(value.__class__, "")
        base: Any = TYPES.get(type or kind)
        if states is not None:
            if value not in range(len(states)):
                raise ValueError(f"{value!r} is the number of no state: {', '.join(states)}")
            base, options = ChannelEnum, {"value": states[value], "enum_strings": states}
        elif isinstance(value, str) and size is not None:
            base, options = ChannelChar, {"value": value, "max_length": size}
        elif isinstance(value, list):
            if not value:
                raise ValueError("an empty list does not tell a type")
            base = ChannelDouble if isinstance(value[0], float) else ChannelInteger
            options["max_length"] = size or len(value)
        elif base is None:
            raise ValueError(f"an int, a float, a text or a list is wanted, not {value!r}")

        class Served(base):  # type: ignore[misc, valid-type, unused-ignore]
            def check_access(self, hostname: str, username: str) -> Any:
                if readonly:
                    return AccessRights.READ
                return super().check_access(hostname, username)

            async def verify_value(self, data: Any) -> Any:
                if not server.judges and base is not ChannelEnum:
                    return data
                try:
                    return await super().verify_value(data)
                except CannotExceedLimits:
                    return data  # shown, as records show theirs; who serves decides what they do

            async def write_from_dbr(self, *args: Any, **kwds: Any) -> Any:
                async with server.turn(name):
                    server.check_put(name)
                    done = await super().write_from_dbr(*args, **kwds)
                    server.puts.append([name, server.value(name)])
                    await server.on_put(name)
                await server.completed(name)
                if returns is not None and server.value(name) != server.first[name]:
                    await asyncio.sleep(returns)
                    await server.write(name, server.first[name])
                return done

        return Served(**options)

    def check_put(self, name: str) -> None:
        """Raise what refuses a client's put, before anything is changed."""

    def turn(self, name: str) -> asyncio.Lock:
        """Held while a put is done, as an IOC locks the record: caproto makes a task of each, and they would mix."""
        return self._turns.setdefault(name, asyncio.Lock())

    async def completed(self, name: str) -> None:
        """Return when what a client's put has begun is over, and the put completes."""

    async def on_put(self, name: str) -> None:
        """What a client's put does beside."""
        readback = self.channels.get(f"{name}_RBV")
        if readback is not None:
            await readback.write(self.channels[name].value)

    def known(self, name: str) -> Any:
        """The channel of that name; UnknownPV if there is none."""
        try:
            return self.channels[name]
        except (KeyError, TypeError):
            raise UnknownPV(f"this server has no PV {name!r}") from None

    def value(self, name: str) -> Any:
        channel = self.known(name)
        if channel.data_type == ChannelType.ENUM:
            return channel.raw_value
        found = plain(channel.value)
        return found[0] if isinstance(found, list) and channel.max_length == 1 else found

    async def read(self, *names: str) -> list[Any]:
        return [self.value(name) for name in names]

    async def checked_write(self, name: str, value: Any) -> None:
        """`write` for who may be wrong: UnknownPV or ValueError, and nothing is changed."""
        channel = self.known(name)
        try:
            value = fitting(channel, value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        await self.write(name, value)

    async def write(self, name: str, value: Any) -> None:
        channel = self.channels[name]
        if channel.data_type == ChannelType.ENUM:
            value = channel.enum_strings[value]
        await channel.write(value)

    async def reset(self) -> None:
        """Have every PV hold what it held at first, and forget the puts."""
        for name, value in self.first.items():
            if self.value(name) != value:
                await self.write(name, value)
        self.puts.clear()

    async def put_log(self) -> list[list[Any]]:
        return list(self.puts)

    async def serve(self) -> None:
        served = ExactNames if "--no-filters" in sys.argv else Context
        context = served(self.channels, [LOOPBACK])
        running = asyncio.ensure_future(context.run(startup_hook=self.started))
        running.add_done_callback(self.ended)
        loop = asyncio.get_running_loop()
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                break
            method, *args = json.loads(line)
            try:
                answer({"result": await getattr(self, method)(*args)})
            except Exception as error:  # noqa: BLE001 - the caller gets it, and the server lives on
                answer(failure(error))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def started(self, _library: Any) -> None:
        answer({"result": "ready"})

    def ended(self, running: asyncio.Future[Any]) -> None:
        """Tell, if it did not come to serving, why."""
        if not running.cancelled() and (error := running.exception()) is not None:
            answer(failure(error))


def run(make: Callable[[Any], Server]) -> None:
    """Serve what the first line of standard input asks for, as `make` makes it."""
    try:
        server = make(json.loads(sys.stdin.readline()))
    except WRONG as error:
        answer(failure(error))
    else:
        asyncio.run(server.serve())


if __name__ == "__main__":
    run(Server)
