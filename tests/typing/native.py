"""The native interface, as users write it: each type is what a type checker must find."""

from collections.abc import Callable
from typing import Any

from typing_extensions import assert_type

import epicsx


def scalars() -> None:
    with epicsx.Channel("a", lane="bulk") as channel:
        assert_type(channel, epicsx.Channel)
        sample = channel.get(timeout=1.0)
        assert_type(sample, epicsx.Sample)
        assert_type(sample.timestamp, float)
        assert_type(sample.timestamp_ns, int)
        assert_type(sample.severity, int)
        assert_type(sample.value, Any)
        assert_type(channel.control().units, str | None)
        assert_type(channel.connected, bool)
        assert_type(channel.native_type, epicsx.DBR | None)
        assert_type(channel.stats, epicsx.ChannelStats)
        assert_type(channel[2:5], epicsx.Channel)
        assert_type(channel.filter(every=2), epicsx.Channel)
        channel.put(1.5, wait=True, timeout=None)
        channel.put("text")
        channel.put([1, 2, 3])


def requests() -> None:
    channel = epicsx.Channel("a")
    request = channel.get_async()
    assert_type(request, epicsx.Request)
    assert_type(request.result(1.0), epicsx.Sample | None)
    assert_type(request.exception(), BaseException | None)
    assert_type(channel.put_async(3), epicsx.Request)
    request.add_done_callback(lambda done: print(done.done()))


def subscriptions() -> None:
    def changed(sample: epicsx.Sample) -> None:
        print(sample.name, sample.value)

    with epicsx.Channel("a") as channel:
        subscription = channel.subscribe(changed, mask=epicsx.DBE.LOG, queue="latest")
        assert_type(subscription, epicsx.Subscription)
        assert_type(subscription.latest, epicsx.Sample | None)
        assert_type(subscription.stats, epicsx.Counts)
        assert_type(subscription.stats.dropped, int)
        channel.on_connection(lambda ch, up: print(ch.name, up))


def many() -> None:
    channels = epicsx.connect(["a", "b"])
    assert_type(channels, list[epicsx.Channel])
    assert_type(epicsx.get_many(channels), list[epicsx.Sample])
    assert_type(epicsx.get_many(channels, on_error="return"), list[epicsx.Sample | BaseException])
    assert_type(epicsx.put_many(["a"], [1]), list[None])
    snap = epicsx.snapshot(["a", "b"])
    assert_type(snap, epicsx.Snapshot)


def errors() -> str:
    try:
        epicsx.Channel("a").get()
    except epicsx.CATimeoutError as error:
        assert_type(error.name, str)
        # it is also the builtin error that it resembles
        builtin: TimeoutError = error
        return str(builtin)
    except epicsx.CAError as error:
        assert_type(error.status, int | None)
    return ""


def facts() -> None:
    assert_type(epicsx.build_info(), dict[str, str])
    version: str = epicsx.__version__
    print(version)
    assert_type(epicsx.filter_name("a", every=2), str)


handler: Callable[[epicsx.Sample], object] = print
