"""Which metadata belong to which frame: the join, told what a server would tell, event by event. No Channel Access."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from epicsx._imagejoin import FIELDS, Joined, Joiner
from epicsx._ndarray import Mode

MS = 1_000_000
MONO = {
    "dims": (6, 4),
    "color_mode": 0,
    "data_type": 1,
    "bayer": 0,
    "codec": "",
    "compressed_size": 24,
}


class Frame(NamedTuple):
    """A payload: which frame it is and how many elements it has."""

    number: int
    size: int


def fits(frame: Frame, mode: Mode) -> bool:
    return frame.size == mode.elements


class Told:
    """A joiner, and what it gave; every event comes at its own time."""

    def __init__(self, **mode: Any) -> None:
        self.behind = False  # whether metadata that have come wait to be told
        self.joiner: Joiner[Frame] = Joiner(fits, caught_up=lambda: not self.behind)
        self.given: list[Joined[Frame]] = []
        for name, value in {**MONO, **mode}.items():
            self.joiner.news(name, value, 0)

    def data(self, time: float, number: int, size: int = 24) -> Told:
        self.joiner.array(Frame(number, size), int(time * MS), int(time * MS))
        return self.until(time)

    def news(self, time: float, name: str, value: Any) -> Told:
        self.joiner.news(name, value, int(time * MS))
        return self.until(time)

    def until(self, time: float) -> Told:
        self.given += self.joiner.take(int(time * MS))
        return self

    @property
    def numbers(self) -> list[tuple[int, int | None]]:
        return [(each.payload.number, each.number) for each in self.given]

    @property
    def modes(self) -> list[str]:
        return [each.mode.color_mode.name if each.mode else each.problem for each in self.given]


def test_a_frame_is_given_out_with_its_number() -> None:
    told = Told()
    told.data(100, 1)
    assert told.given == []
    told.news(100.1, "unique_id", 71)
    assert told.numbers == [(1, 71)]
    assert told.given[0].by == "unique_id"
    assert told.given[0].mode is not None
    assert told.given[0].mode.shape == (4, 6)
    assert told.joiner.deadline() is None


def test_numbers_that_precede_their_data() -> None:
    told = Told()
    for number in range(1, 6):
        told.news(100 * number - 0.2, "unique_id", number)
        told.data(100 * number, number)
    assert told.numbers == [(n, n) for n in range(1, 6)]


def test_equal_stamps() -> None:
    told = Told()
    told.data(100, 1).data(133, 2).news(100, "unique_id", 1)
    assert told.numbers == [(1, 1)]
    told.news(133, "unique_id", 2)
    assert told.numbers == [(1, 1), (2, 2)]


def test_a_mode_that_changes_behind_the_data() -> None:
    told = Told(dims=(3, 4, 2), color_mode=2)
    told.data(100, 1).news(100.1, "unique_id", 1)
    told.data(200, 2).news(200.1, "color_mode", 0).news(200.1, "unique_id", 2)
    assert told.modes == ["RGB1", "Mono"]
    # Mono of (3, 4, 2) is no picture; the size is right, so that is for `picture` to say.
    # RGB1 of 4 by 2 and RGB3 of 4 by 2 are as large.
    told.news(299.9, "dims", (4, 2, 3)).data(300, 3).news(300.1, "color_mode", 4)
    told.news(300.1, "unique_id", 3)
    assert told.modes[2] == "RGB3"


def test_the_mode_of_a_frame_whose_successor_is_there_already() -> None:
    told = Told()
    told.data(100, 1).news(100.1, "unique_id", 1)
    # 2 waits for its number while 3, of another mode, has come whole, over another circuit.
    told.data(200, 2).data(300, 3)
    told.news(200.1, "unique_id", 2).news(300.1, "color_mode", 1).news(300.2, "unique_id", 3)
    assert told.numbers == [(1, 1), (2, 2), (3, 3)]
    assert told.modes == ["Mono", "Mono", "Bayer"]


def test_metadata_that_all_come_late() -> None:
    told = Told()
    for number in range(1, 5):
        told.data(100 + 10 * number, number)
    for number in range(1, 5):
        if number == 3:
            told.joiner.news("color_mode", 1, int((100.05 + 10 * number) * MS))
        told.joiner.news("unique_id", number, int((100.1 + 10 * number) * MS))
    told.until(150)
    assert told.numbers == [(n, n) for n in range(1, 5)]
    assert told.modes == ["Mono", "Mono", "Bayer", "Bayer"]


def test_frames_whose_data_never_came() -> None:
    told = Told()
    for number in (1, 2, 3, 4, 5, 6):
        if number not in (3, 4):
            told.data(10 * number, number)
        told.news(10 * number + 0.1, "unique_id", number)
    assert told.numbers == [(1, 1), (2, 2), (5, 5), (6, 6)]


def test_a_burst_just_before_the_next_data() -> None:
    told = Told()
    told.data(100, 1).news(100.1, "unique_id", 1)
    told.data(110, 2).news(110.1, "unique_id", 2)
    # Under load: the bursts of 3 and 4 together, as the driver's thread has posted the second.
    told.data(120, 3).news(120.1, "unique_id", 3).news(129.6, "unique_id", 4).data(130, 4)
    told.data(140, 5).news(140.1, "unique_id", 5)
    assert told.numbers == [(n, n) for n in range(1, 6)]


def test_a_number_that_never_came() -> None:
    told = Told()
    told.data(100, 1).news(100.1, "unique_id", 1)
    told.data(200, 2)
    told.until(349)
    assert len(told.given) == 1
    assert told.joiner.deadline() == 350 * MS
    told.until(350)
    # Nothing has changed: the picture is sure, its number is not known.
    assert told.numbers[1] == (2, None)
    assert told.modes[1] == "Mono"
    told.data(400, 3).news(400.1, "unique_id", 3)
    assert told.numbers[2] == (3, 3)


def test_no_number_and_a_change_is_unmatched() -> None:
    told = Told()
    told.data(100, 1).news(100.1, "unique_id", 1)
    told.data(200, 2).news(200.1, "color_mode", 1).until(400)
    assert told.given[1].mode is None
    assert "color_mode changed while no number came" in told.given[1].problem


def test_a_size_that_does_not_fit_is_unmatched() -> None:
    told = Told()
    told.data(100, 1, size=48).news(100.1, "unique_id", 1)
    assert told.given[0].mode is None
    assert told.given[0].number == 1
    assert "size is not that of (6, 4) UInt8" in told.given[0].problem


@pytest.mark.parametrize("missing", FIELDS)
def test_what_is_not_known_yet(missing: str) -> None:
    joiner: Joiner[Frame] = Joiner(fits)
    for name, value in MONO.items():
        if name != missing:
            joiner.news(name, value, 0)
    joiner.array(Frame(1, 24), 100 * MS, 100 * MS)
    joiner.news("unique_id", 1, 101 * MS)
    (given,) = joiner.take(101 * MS)
    assert given.problem == f"nothing is known of its {missing}"


def test_a_mode_that_cannot_be() -> None:
    told = Told(color_mode=9)
    told.data(100, 1).news(100.1, "unique_id", 1)
    assert told.given[0].mode is None
    assert "no such mode" in told.given[0].problem


def test_unique_ids_that_do_not_change() -> None:
    told = Told()
    told.news(0, "unique_id", 0)
    for number in range(1, 4):
        told.data(1000 * number, number)
        told.news(1000 * number + 0.1, "counter", number)
        told.until(1000 * number + 160)
    assert told.numbers == [(n, n) for n in range(1, 4)]
    assert [each.by for each in told.given] == ["counter"] * 3
    # Only the first has waited for an id; the others for what comes behind the counter.
    told.data(4000, 4).news(4000.1, "counter", 4).news(4000.2, "color_mode", 1).until(4019)
    assert len(told.given) == 3
    told.until(4021)
    assert told.modes[3] == "Bayer"
    # And ids are believed again when they come.
    told.data(5000, 5).news(5000.1, "counter", 5).news(5000.2, "unique_id", 77)
    assert told.numbers[4] == (5, 77)


def test_ids_may_go_back() -> None:
    told = Told()
    for time, number in ((100, 41), (200, 42), (300, 1), (400, 2)):
        told.data(time, number).news(time + 0.1, "unique_id", number)
    assert told.numbers == [(n, n) for n in (41, 42, 1, 2)]


def test_reset_gives_back_what_waited() -> None:
    told = Told()
    told.data(100, 1)
    (given,) = told.joiner.reset()
    assert (given.payload.number, given.mode, given.problem) == (1, None, "the connection was lost")
    assert told.joiner.deadline() is None
    told.data(200, 2).news(200.1, "unique_id", 9)
    assert told.given[0].problem == "nothing is known of its dims"
    with pytest.raises(ValueError, match="no field"):
        told.joiner.news("size", 3, 0)


# ------------------------------------------------------------- many, by a model of the server


@dataclass
class World:
    """Frames as ADCore posts them, and what can happen on the way; all of one size, so only order tells their modes."""

    seed: int
    period: float = 10.0
    delay: float = 0.3  # of the burst behind the data
    early: float = 0.0  # how many bursts precede their data
    lost_data: float = 0.0
    lost_bursts: float = 0.0
    another_circuit: bool = False

    def events(self, count: int) -> tuple[list[tuple[float, str, Any]], dict[int, int]]:
        """(time, name, value) in the order of their arrival, and each frame's mode."""
        rng = random.Random(self.seed)
        events: list[tuple[float, float, str, Any]] = []
        modes: dict[int, int] = {}
        mode = posted = 0
        for number in range(1, count):
            at = 1000 + self.period * (number + rng.uniform(-0.02, 0.02))
            if rng.random() < 0.1:
                mode = 1 - mode
            modes[number] = mode
            burst = at + self.delay * rng.uniform(0.5, 1)
            if rng.random() < self.early:
                burst = at - self.delay * rng.uniform(0.5, 1)
            lag = rng.uniform(0, 3 * self.period) if self.another_circuit else 0.0
            if rng.random() >= self.lost_data:
                events.append((at + lag, at, "data", number))
            if mode != posted:
                events.append((burst - 0.02, burst - 0.02, "color_mode", mode))
                posted = mode
            if rng.random() >= self.lost_bursts:
                events.append((burst, burst, "unique_id", number))
        events.sort()
        if self.another_circuit:  # each circuit keeps its own order
            data = sorted(e[1:] for e in events if e[2] == "data")
            arrivals = sorted(e[0] for e in events if e[2] == "data")
            news = [e for e in events if e[2] != "data"]
            events = sorted(news + [(a, *d) for a, d in zip(arrivals, data, strict=True)])
        return [(at, f"{name}@{stamp}", value) for at, stamp, name, value in events], modes


WORLDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "early": {"early": 1.0},
    "mixed": {"early": 0.2},
    "busy": {"delay": 8.0},
    "lost data": {"lost_data": 0.2},
    "lost data, early": {"lost_data": 0.2, "early": 1.0},
    "lost bursts": {"lost_bursts": 0.05},
    "another circuit": {"another_circuit": True},
    "fast": {"period": 1.0, "delay": 0.2, "lost_data": 0.1},
    "slow": {"period": 1000.0, "early": 0.1},
}


def _stalls(seed: int, period: float, count: int) -> list[tuple[float, float]]:
    """When the metadata are not told on, from and to: mostly for far longer than a frame waits."""
    rng = random.Random(seed + 1000)
    found, at = [], 1000.0
    while at < 1000 + period * count:
        at += rng.uniform(6, 30) * period
        found.append((at, at := at + rng.uniform(50, 600)))
    return found


class Event(NamedTuple):
    """When it is told and when it has come."""

    told: float
    came: float
    what: str
    value: Any

    @property
    def of_data(self) -> bool:
        return self.what.startswith("data")


# "held up": a callback, or the GIL, keeps the metadata back for a while; the frames come all the same.
@pytest.mark.parametrize(
    ("world", "held_up"),
    [(world, False) for world in WORLDS]
    + [(world, True) for world in WORLDS if world != "another circuit"],
)
def test_no_frame_gets_another_ones_mode(world: str, held_up: bool) -> None:
    frames = right = numbered = 0
    for seed in range(15):
        events, modes = World(seed, **WORLDS[world]).events(100)
        stalls = _stalls(seed, WORLDS[world].get("period", 10.0), 100 if held_up else 0)
        order = []
        for at, what, value in events:
            held = [end for begin, end in stalls if begin <= at < end]
            late = held and not what.startswith("data")
            order.append(Event(held[0] if late else at, at, what, value))
        order.sort(key=lambda event: event.told)
        told = Told()
        for i, event in enumerate(order):
            to_come = [each for each in order[i:] if not each.of_data]
            told.behind = any(each.came <= event.told for each in to_come if held_up)
            told.until(event.told)
            told.behind = any(
                each.came <= event.told for each in to_come if held_up and each is not event
            )
            name, stamp = event.what.split("@")
            time = int(float(stamp) * MS)
            if event.of_data:
                told.joiner.array(Frame(event.value, 24), time, int(event.told * MS))
                frames += 1
            else:
                told.joiner.news(name, event.value, time)
            told.until(event.told)
        told.until(1e9)
        assert [each.payload.number for each in told.given] == sorted(
            each.payload.number for each in told.given
        )
        for each in told.given:
            if each.mode is not None:
                assert each.mode.color_mode == modes[each.payload.number], (seed, each)
                right += 1
            numbered += each.number == each.payload.number
            assert each.number in (each.payload.number, None), (seed, each)
    assert right >= 0.93 * frames
    assert numbered >= 0.93 * frames


def test_metadata_that_are_never_told() -> None:
    told = Told()
    told.data(100, 1).news(100.1, "unique_id", 1)
    told.behind = True
    told.data(200, 2).data(300, 3)
    told.until(2349)
    assert len(told.given) == 1
    told.until(2350)
    assert told.numbers[1:] == [(2, None)]
    assert told.modes[1] == "the updates of its PVs wait to be delivered"
    # They come in the end: that of the second is not taken for the third's, which may have lost its own.
    told.news(200.1, "unique_id", 2)
    told.behind = False
    told.until(2360)
    assert told.numbers[1:] == [(2, None), (3, None)]


def test_a_lane_that_is_always_behind() -> None:
    """What is told later proves that nothing of before is missing, though the queue is never empty."""
    told = Told()
    told.behind = True
    for number in range(1, 30):  # told 12 ms late, so when the next two frames are there
        told.joiner.array(Frame(number, 24), 5 * number * MS, 5 * number * MS)
        if number > 2:
            stamp = int((5 * (number - 2) - 0.02) * MS)
            told.joiner.news("unique_id", number - 2, stamp)
        told.until(5 * number)
    assert told.numbers == [(n, n) for n in range(1, len(told.given) + 1)]
    assert len(told.given) >= 25


def test_numbers_before_their_data_are_found_again_after_one_is_lost() -> None:
    """Frames further apart than one waits; that bursts precede their data is not known yet."""
    for name in ("unique_id", "counter"):
        told = Told()
        for number in range(1, 12):
            if number != 1:
                told.news(1000 * number - 0.02, name, number)
            told.data(1000 * number, number)
            told.until(1000 * number + 400)
        assert told.numbers[3:] == [(n, n) for n in range(4, 12)], name


def test_a_mode_behind_the_counter_that_waits_to_be_told() -> None:
    told = Told()
    for number in range(1, 4):
        told.data(100 * number, number).news(100 * number + 0.1, "counter", number)
    told.until(399)
    told.data(400, 4)
    told.behind = True
    told.news(400.1, "counter", 4)
    told.until(450)
    assert len(told.given) == 3
    told.news(400.2, "color_mode", 1)
    told.behind = False
    told.until(451)
    assert told.numbers[3:] == [(4, 4)]
    assert told.modes[3] == "Bayer"
    # Not for ever: then its mode is not known.
    told.behind = True
    told.data(500, 5).news(500.1, "counter", 5)
    told.until(2649)
    assert len(told.given) == 4
    told.until(2650)
    assert told.modes[4] == "the updates of its PVs wait to be delivered"


def test_a_burst_far_before_its_data_does_not_shift_those_that_follow() -> None:
    told = Told()
    for number in range(1, 5):
        told.news(5 * number - 0.02, "unique_id", number).data(5 * number, number)
    # The server was held up between the burst of 5 and its data, by more than a quarter of the time between frames.
    told.news(23, "unique_id", 5).data(25, 5)
    for number in range(6, 12):
        told.news(5 * number - 0.02, "unique_id", number).data(5 * number, number)
    told.until(1000)
    assert told.numbers == [(n, n) for n in range(1, 12)]


def test_a_burst_far_before_its_data_and_the_next_one_soon_behind_them() -> None:
    told = Told()
    for number in range(1, 5):
        told.news(5 * number - 0.02, "unique_id", number).data(5 * number, number)
    told.news(21.5, "unique_id", 5).data(25, 5).news(26.5, "unique_id", 6).data(27.9, 6)
    for number in range(7, 12):
        told.news(5 * number - 0.02, "unique_id", number).data(5 * number, number)
    told.until(1000)
    assert told.numbers == [(n, n) for n in range(1, 12)]
