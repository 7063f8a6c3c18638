"""The server of `epicsx.testing.PVSet`: a program that is told what to serve, and asked what it sees, by lines of JSON.

The first line is the table of PVs. Each further line is a request, ``[name of a method, arguments...]``, answered by
a line of JSON. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
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
        self.first: dict[str, Any] = {}
        for name, spec in table.items():
            spec = spec if isinstance(spec, dict) else {"value": spec}
            self.first[name] = spec["value"]
            self.channels[name] = self.make(name, **spec)

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
            base, options = ChannelEnum, {"value": states[value], "enum_strings": states}
        elif isinstance(value, str) and size is not None:
            base, options = ChannelChar, {"value": value, "max_length": size}
        elif isinstance(value, list):
            base = ChannelDouble if isinstance(value[0], float) else ChannelInteger
            options["max_length"] = size or len(value)

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
                server.check_put(name)
                done = await super().write_from_dbr(*args, **kwds)
                server.puts.append([name, server.value(name)])
                await server.on_put(name)
                if returns is not None and server.value(name) != server.first[name]:
                    await asyncio.sleep(returns)
                    await server.write(name, server.first[name])
                return done

        return Served(**options)

    def check_put(self, name: str) -> None:
        """Raise what refuses a client's put, before anything is changed."""

    async def on_put(self, name: str) -> None:
        """What a client's put does beside; the put completes when this has returned."""
        readback = self.channels.get(f"{name}_RBV")
        if readback is not None:
            await readback.write(self.channels[name].value)

    def value(self, name: str) -> Any:
        channel = self.channels[name]
        if channel.data_type == ChannelType.ENUM:
            return channel.raw_value
        found = plain(channel.value)
        return found[0] if isinstance(found, list) and channel.max_length == 1 else found

    async def read(self, *names: str) -> list[Any]:
        return [self.value(name) for name in names]

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
        loop = asyncio.get_running_loop()
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                break
            method, *args = json.loads(line)
            print(json.dumps(await getattr(self, method)(*args)), flush=True)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def started(self, _library: Any) -> None:
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(Server(json.loads(sys.stdin.readline())).serve())
