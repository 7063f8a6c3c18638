"""`epicsx monitor`: byte for byte what camonitor prints, and what goes beyond."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import monotonic

import pytest
from support import long_enough, wait_until
from support.commands import Commands, Done, Forks
from support.tool_cases import (
    BEFORE,
    MONITOR,
    PREFIX,
    WRITES,
    Case,
    Monitor,
    Running,
    command,
    golden,
    prepare,
    reaches,
    running,
    settled,
)

from epicsx.testing import SoftIOC

EPICSX = [sys.executable, "-X", "faulthandler", "-m", "epicsx"]


Start = Callable[[Case, dict[str, str]], Monitor]


def _theirs(case: Case, env: dict[str, str]) -> Monitor:
    words = command(case.words)
    assert words is not None
    return Running(words, env)


@pytest.fixture
def ours(forks: Forks) -> Start:
    """Give what starts `epicsx` on a case."""
    return lambda case, env: forks.start(case.ours(), env)


def _watch(ioc: SoftIOC, env: dict[str, str], start: Start) -> list[tuple[Case, Monitor, int]]:
    """Run all monitors while the records are written; what they printed, and their return codes."""
    recorded = golden("camonitor")
    prepare(ioc, BEFORE)
    with running(MONITOR, start, env) as monitors:
        found = list(zip(MONITOR, monitors, strict=True))
        for name, value in WRITES:
            ioc.write(name, value)
        for case, monitor in found:
            lines = recorded[case.key]["stdout"].count("\n")
            reaches(case, monitor, lines)
        return [(case, monitor, monitor.end()) for case, monitor in found]


def _lines(case: Case, text: str) -> str | list[str]:
    return sorted(settled(text).split("\n")) if case.sorted else settled(text)


@pytest.mark.timeout(150)
def test_the_same_as_camonitor(tools_ioc: SoftIOC, tools_env: dict[str, str], ours: Start) -> None:
    recorded = golden("camonitor")
    for case, monitor, code in _watch(tools_ioc, tools_env, ours):
        expected = _lines(case, recorded[case.key]["stdout"])
        assert _lines(case, monitor.out) == expected, case.key
        assert code == 130, case.key
        refused = PREFIX + "w:none" in case.words
        told = "epicsx monitor: 'tools:w:none': the server gives no read access\n"
        assert monitor.errors.decode() == (told if refused else ""), case.key


@pytest.mark.timeout(150)
@pytest.mark.skipif(command(["camonitor"]) is None, reason="python tools/c_tools.py fetches them")
def test_camonitor_prints_what_was_recorded(tools_ioc: SoftIOC, tools_env: dict[str, str]) -> None:
    recorded = golden("camonitor")
    for case, monitor, _ in _watch(tools_ioc, tools_env, _theirs):
        assert _lines(case, monitor.out) == _lines(case, recorded[case.key]["stdout"]), case.key


def test_a_lost_server_and_one_that_comes_back_with_another_type(
    own_ioc: Callable[..., SoftIOC], ours: Start
) -> None:
    first = 'record(ao, "$(P)x") { field(VAL, "1.5") field(PINI, "YES") }'
    second = 'record(stringin, "$(P)x") { field(VAL, "some text") field(PINI, "YES") }'
    ioc = own_ioc(first)
    cases = [Case(("camonitor", ioc["x"])), Case(("camonitor", "--json", ioc["x"]))]
    with running(cases, ours, ioc.env) as (plain, objects):
        ioc.kill()
        for each in (plain, objects):
            wait_until(each.has(2), 30.0)
        ioc.restart(second)
        for each in (plain, objects):
            wait_until(each.has(3), 40.0)
            assert each.end() == 130
            assert each.errors == b""
    name = f"{ioc['x']:<30} YYYY-MM-DD hh:mm:ss.uuuuuu"
    assert settled(plain.out) == f"{name} 1.5  \n{name} *** disconnected\n{name} some text  \n"
    before, lost, after = (json.loads(line) for line in objects.lines)
    assert (before["value"], before["native_type"]) == (1.5, "DOUBLE")
    assert (lost["name"], lost["connected"]) == (ioc["x"], False)
    assert (after["value"], after["native_type"]) == ("some text", "STRING")


# ---- bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "PV"),
        (["-m", "vx", "x"], "letters out of v, a, l and p are wanted, not 'vx'"),
        (["-m", "", "x"], "letters out of v, a, l and p are wanted, not ''"),
        (["-t", "z", "x"], "letters out of s, c, n, r, i, I are wanted, not 'z'"),
        (["--every", "0", "x"], "a number of seconds, at least 0.001, is wanted, not '0'"),
        (["--duration", "long", "x"], "is wanted, not 'long'"),
        (["--duration", "inf", "x"], "is wanted, not 'inf'"),
        (["--json", "--plot", "x"], "not allowed with argument"),
        (["--rate", "--plot", "x"], "--plot and --rate exclude each other"),
        (["-a", "x"], "unrecognized arguments: -a"),
    ],
)
def test_bad_input_is_one_line_and_2(commands: Commands, words: list[str], told: str) -> None:
    done = commands.run("monitor", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.errors.startswith("epicsx monitor: ") and told in done.errors
    assert done.errors.count("\n") == 1


# ---- beyond camonitor


Printed = tuple[int, list[str], str]


def _monitor(commands: Commands, *words: str) -> Printed:
    done = commands.run("monitor", *words)
    return done.returncode, done.out.splitlines(), done.errors


def _lasting(
    commands: Commands,
    first: float,
    *words: str,
    enough: Callable[[list[str]], object] = lambda lines: True,
) -> Printed:
    """What is printed in a time in which all PVs were found, and `enough` of them was heard."""

    def whole(printed: Printed) -> bool:
        code, lines, errors = printed
        never_found = code == 1 and not errors
        return not never_found and bool(enough(lines))

    return long_enough(
        lambda seconds: _monitor(commands, "--duration", str(seconds), *words), whole, first
    )


def test_duration(commands: Commands) -> None:
    code, lines, errors = _lasting(
        commands, 1.5, PREFIX + "ten", enough=lambda lines: len(lines) > 2
    )
    assert (code, errors) == (0, "")
    values = [int(line.split()[-1]) for line in lines]
    # one that is made while the server adds the monitor comes twice: as its first value, and as a change
    if values[:1] == values[1:2]:
        del values[0]
    assert values == list(range(values[0], values[0] + len(values))) and len(values) > 1
    code, lines, _ = _monitor(commands, "-w", "0.1", "--duration", "0.2", PREFIX + "nobody")
    assert (code, lines) == (1, [f"{PREFIX + 'nobody':<30} *** Not connected (PV not found)"])


def test_waits_of_ages(tools_env: dict[str, str], ours: Start) -> None:
    words = ("camonitor", "-w", "1e10", "--duration", "1e300", PREFIX + "ten")
    with running([Case(words)], ours, tools_env) as [monitor]:
        wait_until(monitor.has(3), 30.0)
        assert monitor.end() == 130
        assert monitor.errors == b""


def test_every_is_at_most_one_line_in_so_long(tools_env: dict[str, str], ours: Start) -> None:
    case = Case(("camonitor", "-tn", "--every", "0.2", PREFIX + "fast"), first=4)
    began = monotonic()
    with running([case], ours, tools_env) as [monitor]:
        assert monitor.end() == 130
    assert len(monitor.lines) <= (monotonic() - began) / 0.2 + 1
    values = [int(line.split()[1]) for line in monitor.lines]
    # the record counts a hundred a second, so those in between were left out
    assert values == sorted(set(values)) and values[-1] - values[0] > len(values)


def test_every_lets_a_last_value_through(
    tools_ioc: SoftIOC, tools_env: dict[str, str], ours: Start
) -> None:
    tools_ioc.write("m:long", 0)
    case = Case(("camonitor", "-tn", "--every", "0.2", PREFIX + "m:long"))
    with running([case], ours, tools_env) as [monitor]:
        for value in (1, 2, 3):
            tools_ioc.write("m:long", value)
        wait_until(lambda: monitor.lines[-1].split()[-1] == "3", 20.0)
        assert monitor.end() == 130


def test_rate(commands: Commands) -> None:
    names = [PREFIX + name for name in ("fast", "ten", "ao", "nobody")]
    missing = f"epicsx monitor: '{names[-1]}' was not found\n"

    def run(seconds: float) -> Printed:
        times = ("--duration", str(seconds), "-w", str(seconds / 3))
        return _monitor(commands, "--rate", "--every", "0.5", *times, *names)

    def rates(lines: list[str]) -> list[list[float]]:
        return [[float(line.split()[1]) for line in lines[place::4]] for place in range(4)]

    code, lines, errors = long_enough(
        run,
        lambda printed: printed[2] == missing and statistics.median(rates(printed[1])[1]) > 0,
        1.6,
    )
    assert (code, errors) == (1, missing)
    assert [line.split()[0] for line in lines] == names * (len(lines) // len(names))
    assert all(line.endswith(" /s") for line in lines)
    # not the largest: one update just before the end of a period that has just begun is a thousand a second
    fast, ten = (statistics.median(found) for found in rates(lines)[:2])
    assert fast > ten > 0
    assert not any(rate for found in rates(lines)[2:] for rate in found)
    short = ("--rate", "--every", "0.3")
    code, lines, _ = _lasting(
        *(commands, 0.9, *short, "--json", PREFIX + "ten"),
        enough=lambda lines: lines and json.loads(lines[-1])["seconds"] > 0.01,
    )
    facts = json.loads(lines[-1])
    assert facts["rate"] == pytest.approx(facts["updates"] / facts["seconds"], rel=1e-3)
    code, lines, _ = _monitor(commands, *short, "--duration", "0.9", "--csv", PREFIX + "ten")
    assert lines[0] == "name,timestamp,updates,seconds,rate" and len(lines) >= 2
    # A period that the end cuts short has its line.
    code, lines, _ = _lasting(
        *(commands, 1.5, "--rate", "--every", "60", "--json", PREFIX + "ten"),
        enough=lambda lines: json.loads(lines[0])["updates"] > 0,
    )
    [facts] = map(json.loads, lines)
    assert 0 < facts["seconds"] < 60 and facts["updates"] > 0


def test_json_and_csv(commands: Commands, tools_ioc: SoftIOC) -> None:
    tools_ioc.write("m:mbbo", 2)
    names = [PREFIX + name for name in ("m:mbbo", "inf", "utf8", "wf:double")]
    code, lines, _ = _lasting(
        commands, 1.0, "--json", *names, enough=lambda lines: len(lines) == len(names)
    )
    facts = {found["name"]: found for found in map(json.loads, lines)}
    assert code == 0 and sorted(facts) == sorted(names)
    mbbo = facts[names[0]]
    assert (mbbo["value"], mbbo["state"], mbbo["severity"]) == (2, "Two words", "MINOR")
    assert [facts[name]["value"] for name in names[1:3]] == ["Infinity", "20 µm"]
    assert facts[names[3]]["value"] == [0.0, 0.5, -1.25, 1e9, 1e-7]
    code, lines, _ = _lasting(
        commands, 1.0, "--csv", *names, enough=lambda lines: len(lines) == 1 + len(names)
    )
    head, *rows = csv.reader(io.StringIO("\n".join(lines)))
    assert code == 0 and head == ["name", "timestamp", "status", "severity", "value"]
    assert {row[0]: row[4] for row in rows}[names[0]] == "Two words"


def test_plot_in_a_pipe_is_drawn_once_at_the_end(commands: Commands) -> None:
    names = [PREFIX + "fast", PREFIX + "wf:short", PREFIX + "string"]

    def run(seconds: float) -> Done:
        words = ("--plot", "--duration", str(seconds), *names)
        return commands.run("monitor", *words, env={"COLUMNS": "50"})

    done = long_enough(
        run, lambda done: done.returncode == 0 and done.out.count("(no numbers yet)") == 1
    )
    lines = done.out.splitlines()
    assert (done.returncode, done.errors) == (0, "") and b"\x1b" not in done.stdout
    assert [line.split()[0] for line in lines if line.startswith(PREFIX)] == names
    assert lines[-1] == "(no numbers yet)"
    assert max(map(len, lines)) <= 50


def test_plot_on_a_terminal_is_drawn_again_and_again(tools_env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    words = [*EPICSX, "monitor", "--plot", "--every", "0.1", PREFIX + "ten"]
    start = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    env = {**os.environ, **tools_env}
    out = b""
    with subprocess.Popen(words, stdout=theirs, env=env, preexec_fn=start) as process:
        os.close(theirs)

        def drawn() -> bool:
            nonlocal out
            out += os.read(ours, 65536)
            # those of before the first value are smaller
            return out.count(b"\x1b[11F\x1b[J") > 2

        wait_until(drawn, 30.0)
        process.send_signal(signal.SIGINT)
        try:
            while part := os.read(ours, 65536):
                out += part
        except OSError:  # the other end is closed
            pass
        assert process.wait(30.0) == 130
    os.close(ours)
    frames = out.split(b"\x1b[11F\x1b[J")
    assert len(frames) > 2 and all(frame.count(b"\n") == 11 for frame in frames[1:])


# ---- how it ends


def test_a_reader_that_has_gone(tools_env: dict[str, str]) -> None:
    words = [*EPICSX, "monitor", PREFIX + "ten"]
    env = {**os.environ, **tools_env}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as monitor:
        assert monitor.stdout is not None and monitor.stderr is not None
        assert monitor.stdout.readline().startswith(PREFIX.encode() + b"ten")
        monitor.stdout.close()
        assert monitor.wait(30.0) == 1
        assert monitor.stderr.read() == b""


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """Give the end to write to of a pipe that is full, and that nobody reads."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"\0" * 4096)
    os.set_blocking(write, True)
    yield write
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("words", "duration"),
    # the first writes nothing but updates, so one has to come
    [(["-w", "0.5"], "3"), (["--csv"], "1"), (["--rate", "--every", "0.2"], "1")],
)
def test_duration_ends_though_the_reader_takes_nothing(
    tools_env: dict[str, str], full_pipe: int, words: list[str], duration: str
) -> None:
    words = [*EPICSX, "monitor", *words, "--duration", duration, PREFIX + "fast"]
    env = {**os.environ, **tools_env}
    with subprocess.Popen(words, stdout=full_pipe, stderr=subprocess.PIPE, env=env) as monitor:
        assert monitor.wait(30.0) == 1
        told = b"epicsx monitor: standard output is not read: ended without its last lines\n"
        assert monitor.stderr is not None and monitor.stderr.read() == told


def test_ctrl_c_while_the_reader_takes_nothing(tools_env: dict[str, str], full_pipe: int) -> None:
    words = [*EPICSX, "monitor", "-#", "8", PREFIX + "fast"]
    start = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    env = {**os.environ, **tools_env}
    with subprocess.Popen(
        words, stdout=full_pipe, stderr=subprocess.PIPE, env=env, preexec_fn=start
    ) as monitor:
        wchan = f"/proc/{monitor.pid}/task"
        wait_until(lambda: _somebody_writes(wchan), 30.0)
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(30.0) == 130
        assert monitor.stderr is not None and b"Fatal" not in monitor.stderr.read()


def _somebody_writes(tasks: str) -> bool:
    """Whether a thread of the process waits for room in a pipe."""
    for task in os.listdir(tasks):
        try:
            with open(f"{tasks}/{task}/syscall") as file:
                number, descriptor = file.read().split()[:2]
        except (OSError, ValueError):
            continue
        if (number, descriptor) == ("1", "0x1"):  # write(1, ...) on x86-64
            return True
    return False
