"""Recorders: every update of many scalars, in order, counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import wait_until

from epicsx import BadTypeError, BadValueError, CAError, Channel, Recorder
from epicsx.testing import SoftIOC

DB = """
record(ao, "$(P)x") { field(PINI, "YES") }
record(longout, "$(P)i") { field(PINI, "YES") }
record(mbbo, "$(P)m") { field(ZRST, "Zero") field(ONST, "One") field(TWST, "Two") field(PINI, "YES") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "10") field(PINI, "YES") }
record(stringout, "$(P)s") { field(VAL, "12.5") field(PINI, "YES") }
record(ao, "$(P)h") { field(HIHI, "5") field(HHSV, "MAJOR") field(PINI, "YES") }
"""


@pytest.fixture
def w(spare_ioc: Callable[..., SoftIOC]) -> Any:
    return spare_ioc(DB)


def test_every_update_in_order(w: SoftIOC) -> None:
    with Recorder([w["x"], w["i"]], capacity=3) as recorder, Channel(w["x"]) as x:
        assert recorder.names == (w["x"], w["i"])
        assert recorder.wait(2)
        sent = 0
        for _ in range(50):  # few enough at a time for the IOC to keep all
            for _ in range(20):
                sent += 1
                x.put(float(sent))
            assert recorder.wait(2 + sent)
        rows = recorder.of(w["x"])
        assert rows["value"].tolist() == list(range(sent + 1))
        assert (np.diff(rows["timestamp_ns"]) >= 0).all()
        assert recorder.of(w["i"])["value"].tolist() == [0.0]
        assert len(recorder) == sent + 2 == len(recorder.data)
        assert recorder.since(sent + 1)["value"].tolist() == [float(sent)]
        assert len(recorder.since(10**6)) == 0
        ledger = recorder.ledger
        assert ledger.received == ledger.delivered == sent + 2
        assert recorder.connected == 2
    assert len(recorder) == sent + 2  # still there
    assert recorder.of(w["x"])["value"][-1] == sent


def test_what_is_no_double(w: SoftIOC) -> None:
    names = [w[n] for n in ("m", "w", "s")]
    with Recorder(names) as recorder, Channel(w["m"]) as m, Channel(w["w"]) as array:
        assert recorder.wait(3)
        m.put(2, wait=True)
        array.put([7.5, 8.5], wait=True)
        assert recorder.wait(5)
        assert recorder.of(w["m"])["value"][-1] == 2.0
        assert recorder.of(w["w"])["value"][-1] == 7.5
        assert recorder.of(w["s"])["value"].tolist() == [12.5]


def test_a_text_that_is_no_number_is_said(
    spare_ioc: Callable[..., SoftIOC], caplog: pytest.LogCaptureFixture
) -> None:
    ioc = spare_ioc('record(stringout, "$(P)t") { field(VAL, "hello") }')
    with Recorder([ioc["t"]]) as recorder:
        wait_until(lambda: "the recorder gets no value" in caplog.text)
        assert len(recorder) == 0


def test_alarms_are_recorded(w: SoftIOC) -> None:
    with Recorder([w["h"]]) as recorder, Channel(w["h"]) as h:
        assert recorder.wait(1)
        h.put(9.0, wait=True)
        assert recorder.wait(2)
        assert recorder.data["severity"].tolist() == [0, 2]
        assert recorder.data["status"].tolist() == [0, 3]


def test_a_bound_drops_and_counts_and_take_makes_room(w: SoftIOC) -> None:
    with Recorder([w["x"]], max_events=5) as recorder, Channel(w["x"]) as x:
        assert recorder.wait(1)
        for number in range(1, 21):
            x.put(float(number), wait=True)
        wait_until(lambda: recorder.ledger.received == 21)
        ledger = recorder.ledger
        assert ledger.received == ledger.delivered + ledger.dropped
        assert len(recorder) == 5
        assert len(recorder.take()) == 5
        assert len(recorder) == 0
        x.put(99.0, wait=True)
        assert recorder.wait(1)
        assert recorder.take()["value"].tolist() == [99.0]
        assert len(recorder.take()) == 0


def test_reading_while_it_grows(w: SoftIOC) -> None:
    stop = threading.Event()

    def feed() -> None:
        with Channel(w["x"]) as x:
            number = 0
            while not stop.is_set():
                number += 1
                x.put(float(number))

    with Recorder([w["x"]], capacity=1) as recorder:
        thread = threading.Thread(target=feed)
        thread.start()
        try:
            seen = 0
            while seen < 20_000:
                assert recorder.wait(seen + 1, 10.0)
                rows = recorder.since(seen)
                seen += len(rows)
                whole = recorder.data
                assert len(whole) >= seen
                assert (np.diff(whole["value"][1:]) > 0).all()
        finally:
            stop.set()
            thread.join(10.0)


def test_a_restart_goes_on(spare_ioc: Callable[..., SoftIOC]) -> None:
    ioc = spare_ioc(DB)
    with Recorder([ioc["x"]]) as recorder:
        assert recorder.wait(1)
        ioc.restart()
        assert recorder.wait(2, 30.0)
        assert recorder.ledger.disconnects == 1


def test_waiting_ends_at_the_close(w: SoftIOC) -> None:
    recorder = Recorder([w["x"]])
    assert recorder.wait(1)
    assert not recorder.wait(100, 0.05)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(recorder.wait(100, 30.0)))
    thread.start()
    recorder.close()
    thread.join(10.0)
    assert found == [False]
    recorder.close()


def test_bad_input(w: SoftIOC) -> None:
    with pytest.raises(BadTypeError):
        Recorder(w["x"])
    for options in (
        {"capacity": 0},
        {"capacity": 2**62},
        {"max_events": 0},
        {"lane": "fast"},
        {"mask": 0},
    ):
        with pytest.raises(BadValueError):
            Recorder([w["x"]], **options)
    with Channel(w["x"]) as channel:
        pass
    with pytest.raises(CAError, match="closed"):
        Recorder([channel])
    with Recorder([w["x"]]) as recorder:
        with pytest.raises(BadValueError):
            recorder.since(-1)
        with pytest.raises(ValueError, match="not in tuple"):
            recorder.of("other")
