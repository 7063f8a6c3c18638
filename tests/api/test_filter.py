"""Filters as Python: at the source, on a real IOC; and on the client, for a server that has none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import wait_until

from epicsx import (
    DBE,
    ECA,
    PV,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    Sample,
    ServerError,
    filter_name,
    get_many,
    put_many,
)
from epicsx._channel import _ServerFiltered
from epicsx.testing import PVSet, SoftIOC

pytestmark = pytest.mark.core

WAVE = [float(n) for n in range(10)]
# All that clients of this process search: the session's server, three spare ports, two of servers of other tests.
PORTS = [int(each.rpartition(":")[2]) for each in os.environ["EPICS_CA_ADDR_LIST"].split()]
REPEATER_PORT = int(os.environ["EPICS_CA_REPEATER_PORT"])
OLD = {
    "old:number": 0.0,
    "old:text": "text",
    "old:wave": {"value": WAVE, "size": 16},
}


@pytest.fixture(scope="module")
def server() -> Iterator[PVSet]:
    """A server without channel filters, on the port that the devices' tests use, which are not these."""
    pytest.importorskip("caproto")
    with PVSet(
        OLD,
        server_port=PORTS[-1],
        repeater_port=REPEATER_PORT,
        filters=False,
    ) as started:
        yield started


@pytest.fixture
def old(server: PVSet) -> PVSet:
    server.reset()
    return server


@contextlib.contextmanager
def updates(channel: Channel, **how: Any) -> Iterator[list[Any]]:
    """The values that a subscription has delivered."""
    seen: list[Any] = []
    with channel, channel.subscribe(lambda sample: seen.append(sample.value), **how):
        wait_until(lambda: seen)
        yield seen


def on_the_client(name: str, **how: Any) -> Channel:
    """A channel with filters to a server that has none."""
    with Channel(name).connect(20.0) as plain:
        # the server is at hand, so there is no need to wait longer for it to tell that it has no such name
        return plain.filter(**how, client_side=True, timeout=0.2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known at once that a server which has the plain name has no filters."""
    monkeypatch.setattr(_ServerFiltered, "_PATIENCE", 0.1)
    (patience,) = _ServerFiltered._lacks.__defaults__ or ()
    assert patience == 1.0
    monkeypatch.setattr(_ServerFiltered._lacks, "__defaults__", (0.1,))


def put_all(name: str, values: list[float]) -> None:
    with Channel(name) as channel:
        for value in values:
            channel.put(value, wait=True)


# ---- at the source


@pytest.mark.parametrize(
    ("deadband", "values", "passed"),
    [
        (1.0, [0, 0.5, 1.0, 1.5, 2, 3.0], [0, 1.5, 3.0]),
        (0, [1, 1, 2, 2, 3], [1, 2, 3]),
        ("10%", [10, 10.5, 11, 11.01, 12, 12.2], [10, 11.01, 12.2]),
        ("10%", [-10, -10.5, -11, -12.2], [-10, -10.5, -11, -12.2]),  # so the IOC has it
    ],
)
def test_a_deadband_is_kept_by_the_ioc(
    ioc: SoftIOC, deadband: Any, values: list[float], passed: list[float]
) -> None:
    name = ioc["bulk:0800"]
    put_all(name, values[:1])
    with Channel(name) as plain:
        channel = plain.filter(deadband)
    assert channel.filtered == "server"
    assert plain.filtered is None
    with updates(channel) as seen:
        put_all(name, values[1:])
        put_all(name, [1e6])
        wait_until(lambda: seen[-1] == 1e6)
        assert seen[:-1] == passed
        assert channel.stats.received == channel.stats.delivered == len(seen)


def test_a_change_of_the_alarm_passes_a_deadband(ioc: SoftIOC) -> None:
    put_all(ioc["ao"], [79.0])
    with updates(Channel(ioc["ao"]).filter(deadband=50)) as seen:
        put_all(ioc["ao"], [79.5, 80.5, 81.0, 1.5])
        wait_until(lambda: seen[-1] == 1.5)
        assert seen == [79.0, 80.5, 1.5]


def test_every_nth_update(ioc: SoftIOC) -> None:
    with updates(Channel(ioc["cnt:100hz"]).filter(every=7)) as seen:
        wait_until(lambda: len(seen) >= 6)
        # Without the first: an IOC posts that before it enables the others, and one may fall in between.
        passed = seen[1:6]
        assert np.diff(passed).tolist() == [7.0] * 4


def test_filters_in_the_order_in_which_they_were_put_on(ioc: SoftIOC) -> None:
    name = ioc["bulk:0801"]
    values = [0, 0.5, 2, 2.5, 4, 4.1, 6, 8]
    one_after_the_other: list[tuple[Callable[[Channel], Channel], list[float]]] = [
        (lambda c: c.filter(deadband=1, every=2), [0, 4, 8]),
        (lambda c: c.filter(deadband=1).filter(every=2), [0, 4, 8]),
        (lambda c: c.filter(every=2).filter(deadband=1), [0, 2, 4, 6]),
    ]
    for build, passed in one_after_the_other:
        put_all(name, values[:1])
        channel = build(Channel(name))
        with updates(channel) as seen:
            put_all(name, [*values[1:], 1e6, 2e6])
            wait_until(lambda seen=seen: seen[-1] >= 1e6)  # type: ignore[misc]
            assert [v for v in seen if v < 1e6] == passed


@pytest.mark.parametrize(
    "chosen",
    [
        slice(2, 5),
        slice(None),
        slice(None, 3),
        slice(7, None),
        slice(-3, None),
        slice(None, -7),
        slice(-4, -1),
        slice(None, None, 4),
        slice(1, 8, 3),
        slice(1, -2, 2),
        slice(5, 100),
        slice(12, 14),
    ],
)
def test_slices_of_a_waveform(ioc: SoftIOC, chosen: slice) -> None:
    with Channel(ioc["wf:double:n"]) as whole, whole[chosen] as part:
        sample = part.get()
        assert list(sample.value) == WAVE[chosen]
        assert sample.count == len(WAVE[chosen])
        assert part.count == len(range(16)[chosen])  # of the 16 that it may hold
    with updates(filtered := Channel(ioc["wf:double:n"])[chosen]) as seen:
        assert list(seen[0]) == WAVE[chosen]
    assert filtered.filtered == "server"


@pytest.mark.parametrize("kind", ["char", "long", "enum", "string"])
def test_slices_of_other_types(ioc: SoftIOC, kind: str) -> None:
    with Channel(ioc[f"wf:{kind}:n"]) as whole, whole[3:6] as part, whole[-2] as one:
        assert list(part.get().value) == list(whole.get().value)[3:6]
        assert one.get().value == list(whole.get().value)[-2]
        assert one.count == 1
        assert np.ndim(one.get().value) == 0


def test_where_the_ioc_counts_otherwise_than_python(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:double:n"]) as whole:
        with whole[-20] as far, whole[:-15] as short:
            assert far.get().value == 0.0
            assert short.get().value == 0.0
        with whole[12] as empty:
            assert list(empty.get().value) == []
        with whole[20] as beyond:
            assert list(beyond.get().value) == []
            assert beyond.count == 0
    with Channel(ioc["double"]) as scalar, scalar[5] as unchanged:
        scalar.put(3.5, wait=True)
        assert unchanged.get().value == 3.5


def test_a_slice_of_a_long_text(ioc: SoftIOC) -> None:
    with Channel(ioc["lsi"] + ".VAL$") as whole, whole[2:5] as part:
        assert bytes(part.get().value) == bytes(whole.get().value)[2:5]


def test_a_slice_into_a_buffer_with_other_filters(ioc: SoftIOC) -> None:
    out = np.zeros(5)
    with Channel(filter_name(ioc["wf:double:n"], coherent=True)) as copied:
        assert copied.filtered == "server"
        with copied.filter(slice=(2, 7), deadband=1, every=2) as part:
            assert part.get(out=out).value.tolist() == out.tolist() == WAVE[2:7]
            assert part.get(count=2).value.tolist() == WAVE[2:4]
            sample = part.get_async().result(5.0)
            assert sample is not None
            assert sample.value.tolist() == WAVE[2:7]
            assert part.control().units == copied.control().units


def test_a_put_to_a_slice_is_refused(ioc: SoftIOC) -> None:
    name = ioc["w:double"]
    with Channel(name) as whole:
        whole.put(WAVE, wait=True)
        with whole[2:5] as part:
            for put in (part.put, part.put_async):
                with pytest.raises(BadValueError, match="start of the array"):
                    put([1.0, 2.0, 3.0])
            with pytest.raises(BadValueError, match="start of the array"):
                put_many([whole, part], [WAVE, [1.0]])
        assert whole.get().value.tolist() == WAVE
        # This is why: the name itself may be written, and the IOC does not look at the slice.
        with Channel(filter_name(name, slice=(2, 5))) as named:
            named.put([7.0, 8.0, 9.0], wait=True)
        assert whole.get().value.tolist() == [7.0, 8.0, 9.0]


def test_a_put_through_other_filters(ioc: SoftIOC) -> None:
    with Channel(ioc["bulk:0802"]) as whole, whole.filter(deadband=5, every=3) as channel:
        told: list[object] = []
        channel.put(7.5, wait=True)
        assert whole.get().value == channel.get().value == 7.5
        channel.put(8.5, callback=told.append)
        wait_until(lambda: told == [None])
        channel.connect().put_async(9.5).result(5.0)
        put_many([channel], [10.5], wait=True)
        assert [s.value for s in get_many([channel, whole, whole[0]])] == [10.5] * 3


def test_handles_of_a_filter(ioc: SoftIOC) -> None:
    name = ioc["cnt:100hz"]
    with Channel(name, priority=7) as plain:
        again = plain.filter()
        filtered = plain.filter(every=2).connect()
        assert again is not plain
        assert again._core is plain._core
        assert filtered._core.priority == 7
        assert filtered.name == filter_name(name, every=2)
    with again, filtered:  # neither hangs on the handle that it came from
        assert again.connect().connected
        assert filtered.get().value >= 0
    for closed in (plain, filtered):
        with pytest.raises(CAError, match="closed"):
            closed.filter(every=3)
        with pytest.raises(CAError, match="closed"):
            closed[1]
        with pytest.raises(CAError, match="closed"):
            closed.connect()
    wait_until(lambda: filtered.name not in ioc.casr().channels)


def test_one_channel_has_one_counter_for_all_subscriptions(ioc: SoftIOC) -> None:
    # Two of them share every=2, each update coming twice: so one hears all, the other nothing.
    with Channel(ioc["cnt:100hz"]).filter(every=2) as channel:
        first: list[float] = []
        second: list[float] = []
        channel.subscribe(lambda sample: first.append(sample.value))
        wait_until(lambda: len(first) >= 3)
        channel.subscribe(lambda sample: second.append(sample.value), mask=DBE.VALUE)
        wait_until(
            lambda: ioc.casr().monitors.get(channel.name) == 2
        )  # until then the first is alone
        count = len(first) + len(second)
        wait_until(lambda: len(first) + len(second) >= count + 10)
        assert set(np.diff(max(first, second, key=lambda seen: seen[-1:])[-3:])) == {1.0}


def test_a_channel_is_no_sequence(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:double:n"]) as channel:
        anything: Any = channel
        with pytest.raises(TypeError):
            list(anything)
        with pytest.raises(TypeError):
            assert 3 in anything


@pytest.mark.parametrize("client_side", [False, True])
def test_what_cannot_be_is_refused_before_anything_is_sent(ioc: SoftIOC, client_side: bool) -> None:
    anything: Any = "2:5"
    wait_until(lambda: not [name for name in ioc.casr().channels if "{" in name])  # of other tests
    with Channel(ioc["wf:double:n"]) as channel:
        for value in ({"slice": (3, 3)}, {"slice": slice(-6, 9)}, {"every": 0}, {"deadband": -1}):
            with pytest.raises(BadValueError, match="wf:double:n"):
                channel.filter(**value, client_side=client_side)
        with pytest.raises(BadValueError):
            channel[::-1]
        with pytest.raises(BadTypeError):
            channel[anything]
        channel.get()  # the server takes in order what is sent: it would have had it by now
        assert not [name for name in ioc.casr().channels if "{" in name]
        with channel[2:5] as part:
            with pytest.raises(BadValueError, match="already"):
                part[0]
            channel.get()
            assert {name for name in ioc.casr().channels if "{" in name} <= {part.name}


def test_filters_of_a_pv_by_its_name(ioc: SoftIOC) -> None:
    pv = PV(filter_name(ioc["wf:double:n"], slice=slice(0, 4)))
    assert pv.wait_for_connection(5.0)
    assert pv.get().tolist() == WAVE[:4]
    pv.disconnect()


def test_a_monitor_delta_of_a_record_with_braces_in_its_name(
    ioc: SoftIOC, spare_ioc: Callable[..., SoftIOC]
) -> None:
    braces = spare_ioc('record(ao, "$(P)XF{Mtr:1}Pos") { field(VAL, "1") }')
    name = braces["XF{Mtr:1}Pos"]
    put_all(name, [1.0])  # so that it has left its first alarm
    seen: list[float] = []
    pv = PV(name, monitor_delta=0.5, callback=lambda value, **kwds: seen.append(value))
    wait_until(lambda: braces.casr().monitors.get(filter_name(name, deadband=0.5)) == 1 and seen)
    wait_until(lambda: braces.casr().monitors.get(name, 0) == 0)
    put_all(name, [1.2, 1.4, 2.0])
    wait_until(lambda: seen[-1] == 2.0)
    assert set(seen) == {1.0, 2.0}
    pv.disconnect()


def test_a_server_with_filters_is_asked_to_filter(ioc: SoftIOC) -> None:
    with Channel(ioc["wf:double:n"]).filter(slice=(1, 3), client_side=True) as channel:
        assert channel.connected
        assert channel.filtered == "server"
        assert channel.get().value.tolist() == WAVE[1:3]


# ---- a server without filters


def _lacks(error: CAError, name: str, host: str) -> None:
    assert error.status == ECA.UNAVAILINSERV
    assert error.name.startswith(name + ".{")
    for part in (f"'{name}' is connected to {host}", "no such channel filters", "3.15"):
        assert part in str(error)


@pytest.mark.usefixtures("impatient")
def test_a_server_without_filters_is_told_by_a_typed_error(old: PVSet) -> None:
    name = "old:wave"
    with Channel(name).connect(20.0) as plain, plain[2:5] as part, plain.filter(every=2) as other:
        host = plain.host
        assert host.endswith(f":{old.server_port}")
        actions: list[Callable[[], object]] = [
            # the first of each channel is the longest: the plain one that stands by may have to connect within
            lambda: part.connect(2.0),
            lambda: part.get(timeout=0.2),
            lambda: part.control(timeout=0.2),
            lambda: other.put([1.0], timeout=2.0),
            lambda: other.put([1.0], timeout=0.2, wait=True),
            lambda: other.put([1.0], timeout=0.2, callback=print),
            lambda: get_many([plain, part], timeout=2.0),
            lambda: put_many([other], [[1.0]], timeout=0.2),
        ]
        for act in actions:
            with pytest.raises(ServerError) as caught:
                act()
            _lacks(caught.value, name, host)
        whole, failed = get_many([plain, part], timeout=2.0, on_error="return")
        assert isinstance(whole, Sample)
        assert whole.value.tolist() == WAVE
        assert isinstance(failed, ServerError)
        _lacks(failed, name, host)
    assert old.puts == []


def test_who_waits_for_ever_is_told_as_well(old: PVSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with Channel("old:number").filter(every=2) as channel:
        anything: Any = channel
        monkeypatch.setattr(anything, "_lacks", lambda patience=0.0: anything._plain.connected)
        for act in (channel.connect, channel.get, channel.control):
            with pytest.raises(ServerError, match="no such channel filters"):
                act(timeout=None)


def test_a_name_that_nobody_has_only_times_out(ioc: SoftIOC) -> None:
    with Channel(ioc["nobody"]) as plain, plain.filter(every=2) as channel:
        for act in (channel.connect, channel.get, channel.control):
            with pytest.raises(CATimeoutError, match="no server has answered"):
                act(timeout=0.05)
        with pytest.raises(CATimeoutError, match="no server has answered"):
            plain.filter(every=2, client_side=True, timeout=0.2)


def test_too_little_time_to_know(old: PVSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ServerFiltered._lacks, "__defaults__", (1000.0,))
    monkeypatch.setattr(_ServerFiltered, "_PATIENCE", 1000.0)
    with Channel("old:number").connect(20.0) as plain, plain.filter(every=2) as channel:
        with pytest.raises(CATimeoutError):
            channel.connect(0.05)


# ---- the client's own filters


@pytest.mark.parametrize(
    "chosen", [slice(2, 5), slice(-3, None), slice(None, None, 4), slice(1, -2, 2), slice(12, 14)]
)
def test_the_client_slices(old: PVSet, chosen: slice) -> None:
    with on_the_client("old:wave", slice=chosen) as part:
        assert part.filtered == "client"
        assert part.name == "old:wave"
        assert part.count == len(range(16)[chosen])
        sample = part.get()
        assert isinstance(sample, Sample)
        assert list(sample.value) == WAVE[chosen]
        assert sample.count == len(WAVE[chosen])
        assert sample.timestamp > 0
        assert list(part.get(count=2).value) == WAVE[chosen][:2]
        assert list(part.get(dtype=str).value) == [str(v) for v in WAVE[chosen]]
        assert list(get_many([part])[0].value) == WAVE[chosen]
        with updates(part, count=1) as seen:
            expected = WAVE[chosen][:1]
            assert list(seen[0]) == expected


def test_one_element_is_bare_on_the_client(old: PVSet) -> None:
    with on_the_client("old:wave", slice=-1) as one:
        assert one.get().value == 9.0
        assert type(one.get().value) is float
        assert one.count == 1
    with on_the_client("old:text", slice=3) as scalar:
        assert scalar.get().value == "text"
        assert scalar.count == 1


def test_what_a_slice_on_the_client_refuses(old: PVSet) -> None:
    with on_the_client("old:wave", slice=(1, 3)) as part:
        actions: list[Callable[[], object]] = [
            lambda: part.put([1.0]),
            lambda: part.put_async([1.0]),
            lambda: put_many([part], [[1.0]]),
            lambda: part.get(out=np.zeros(2)),
            lambda: part.get(count=-1),
            lambda: part.get_async(),
            lambda: part.subscribe(print, count=-1),
            lambda: part[0],
        ]
        for act in actions:
            with pytest.raises(BadValueError, match="old:wave"):
                act()
        nothing: Any = None
        with pytest.raises(BadTypeError):
            part.subscribe(nothing)
    assert old.puts == []


def test_the_client_keeps_a_deadband_and_counts(old: PVSet) -> None:
    channel = on_the_client("old:number", deadband=1.0)
    assert channel.filtered == "client"
    seen: list[float] = []
    with channel, channel.subscribe(lambda sample: seen.append(sample.value)) as subscription:
        wait_until(lambda: seen == [0.0])
        for value in (0.5, 1.0, 1.5, 2.0, 3.0):
            channel.put(value, wait=True)
        wait_until(lambda: seen == [0.0, 1.5, 3.0])
        # What the filter held back was delivered, to the filter.
        stats = subscription.stats
        assert (stats.received, stats.delivered) == (6, 6)
        assert stats.merged == stats.dropped == stats.pending == 0
        assert channel.get_async().result(5.0).value == 3.0  # type: ignore[union-attr]
        assert channel.get(out=np.zeros(1)).count == 1


def test_filters_of_filters_on_the_client(old: PVSet) -> None:
    with on_the_client("old:number", every=2) as first:
        channel = first.filter(deadband=1.0)
        assert channel.filtered == "client"
        with pytest.raises(BadValueError, match="already"):
            first.filter(every=3)
    with updates(channel) as seen:
        for value in (0.5, 2, 2.5, 4, 4.1, 6, 8, 10):
            channel.put(value, wait=True)
        wait_until(lambda: seen[-1] == 10.0)
        assert seen == [0.0, 2.0, 4.0, 6.0, 10.0]


@pytest.mark.usefixtures("impatient")
def test_a_server_that_answers_the_search_and_refuses_the_channel(ioc: SoftIOC) -> None:
    # caproto's own server: it finds a name whatever its filters are, and has no `dec`.
    pytest.importorskip("caproto")
    with (
        PVSet(
            {"mid:number": 1.0},
            server_port=PORTS[1],
            repeater_port=REPEATER_PORT,
        ),
        Channel("mid:number").connect(20.0) as plain,
    ):
        with plain.filter(deadband=1) as known:
            assert known.get().value == 1.0
        with plain.filter(every=2) as channel, pytest.raises(ServerError) as caught:
            channel.get(timeout=2.0)
        _lacks(caught.value, "mid:number", plain.host)
        with plain.filter(every=2, client_side=True) as here:
            assert here.filtered == "client"
            assert here.get().value == 1.0


def test_the_counters_of_the_client_begin_anew_when_the_server_comes_back(ioc: SoftIOC) -> None:
    pytest.importorskip("caproto")
    port = PORTS[2]
    how: dict[str, Any] = {"server_port": port, "repeater_port": REPEATER_PORT}
    with PVSet({"back:number": 1.0}, **how, filters=False):
        channel = on_the_client("back:number", every=100)
        seen: list[float] = []
        channel.subscribe(lambda sample: seen.append(sample.value))
        wait_until(lambda: seen == [1.0])
    wait_until(lambda: not channel.connected)
    with PVSet({"back:number": 5.0}, **how, filters=False):
        wait_until(lambda: seen == [1.0, 5.0], timeout=30.0)
        channel.close()
