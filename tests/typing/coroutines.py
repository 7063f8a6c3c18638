"""The same from coroutines."""

from typing import Any

from typing_extensions import assert_type

import epicsx
from epicsx import aio


async def channels() -> None:
    channel = await epicsx.Channel("a").aconnect()
    assert_type(channel, epicsx.Channel)
    assert_type(await channel.aget(timeout=1.0), epicsx.Sample)
    await channel.aput(3, wait=True)


async def catools() -> None:
    assert_type(await aio.caget("a"), Any)
    await aio.caput("a", 3)
    async with aio.updates("a") as updates:
        async for value in updates:
            print(value)
