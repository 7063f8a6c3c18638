"""Mistakes that a type checker must find, each marked with what mypy and pyright call it."""

# a member that does not exist has no type either; once is enough
# pyright: reportUnknownMemberType=false
# fmt: off

import epicsx
from epicsx import aio


def calls() -> None:
    channel = epicsx.Channel(5)  # error: arg-type reportArgumentType
    channel.get(tiemout=1.0)  # error: call-arg reportCallIssue
    channel.get(timeout="soon")  # error: arg-type reportArgumentType
    channel.put()  # error: call-arg reportCallIssue
    channel.subscribe()  # error: call-arg reportCallIssue
    channel.subscribe(print, queue="newest")  # error: arg-type reportArgumentType
    channel.subscribe(lambda: None)  # error: misc,arg-type reportArgumentType
    epicsx.connect("a", timeout=[])  # error: arg-type reportArgumentType
    epicsx.get_many(["a"], on_error="ignore")  # error: call-overload reportArgumentType,reportCallIssue
    epicsx.get_many(["a"], on_error="return")[0].value  # error: union-attr reportAttributeAccessIssue


def attributes() -> None:
    sample = epicsx.Channel("a").get()
    sample.valeu  # error: attr-defined reportAttributeAccessIssue
    sample.value = 3  # error: misc reportAttributeAccessIssue
    epicsx.caget_all(["a"])  # error: attr-defined reportAttributeAccessIssue
    epicsx.Channel("a").get_async().result().value  # error: union-attr reportOptionalMemberAccess


def streams() -> None:
    epicsx.stream("w", depht=8)  # error: call-arg reportCallIssue
    epicsx.stream("w", overflow="drop")  # error: arg-type reportArgumentType
    epicsx.Channel("w").stream(block="ten")  # error: arg-type reportArgumentType
    epicsx.images("13SIM1:image1:").read().unique  # error: attr-defined reportAttributeAccessIssue


def old() -> None:
    epicsx.PV(7)  # error: arg-type reportArgumentType
    epicsx.caput("a")  # error: call-arg reportCallIssue
    epicsx.camonitor("a", callbak=print)  # error: call-arg reportCallIssue


async def coroutines() -> None:
    epicsx.Channel("a").aget().value  # error: attr-defined reportAttributeAccessIssue
    await aio.caput("a")  # error: call-overload reportCallIssue


class Mine(epicsx.Sample):  # error: misc reportGeneralTypeIssues
    pass
