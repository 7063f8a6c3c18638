"""Each script of examples/, unchanged, under `epicsx run`; and under pyepics, where it is for that."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import long_enough, start_python

from epicsx.testing import AreaDetectorIOC, MotorIOC, PVSet, SoftIOC
from epicsx.testing.areadetector import numbered_frame

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

ON = {"epicsx": [sys.executable, "-m", "epicsx", "run"], "pyepics": [sys.executable]}
both = pytest.mark.parametrize("on", list(ON))

#: What libCom says in a forked child that uses it.
LIBCOM = ("Warning: Undefined Behavior!", "Detected use of epicsThread from child process")


def run(on: str, name: str, *args: object, env: Mapping[str, str]) -> str:
    """What the example prints; a failure unless it ends well and complains of nothing."""
    done = subprocess.run(
        [*ON[on], str(EXAMPLES / name), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **env},
    )
    complaints = [
        line for line in done.stderr.splitlines() if not any(known in line for known in LIBCOM)
    ]
    assert (done.returncode, complaints) == (0, []), done.stdout + done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


@both
def test_get_loop(on: str, ioc: SoftIOC) -> None:
    def read(times: float) -> float:
        out = run(on, "get_loop.py", ioc["cnt:100hz"], int(times), env=ioc.env)
        assert f"{times:.0f} reads, 0 without an answer" in out
        return number(r"; (\d+) different values", out)

    # they may all come before the next count
    assert long_enough(read, lambda different: different >= 2, 300) >= 2


@both
def test_many_callbacks(on: str, own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(
        [
            f'record(calc, "$(P)n:{i:03d}") {{ field(CALC, "VAL+1") field(SCAN, ".1 second") }}'
            for i in range(500)
        ]
    )

    def rate(seconds: float) -> float:
        out = run(on, "many_callbacks.py", ioc["n:{:03d}"], 500, seconds, env=ioc.env)
        assert "500 of 500 PVs connected" in out
        assert "500 of them have sent a value" in out
        assert out.count(" updates, the last ") == 5
        return number(r"(\d+) updates per second", out)

    # of 5000, where the IOC is not put aside for most of the time
    assert long_enough(rate, lambda found: found > 2500) > 2500


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pool(ioc: SoftIOC, method: str) -> None:
    # pyepics' CAPool cannot be made under any Python that epicsx supports
    names = [ioc[f"bulk:{i:04d}"] for i in range(6)]
    for i in range(6):  # another test may have written there
        ioc.write(f"bulk:{i:04d}", i)
    out = run("epicsx", "pool.py", method, *names, env=ioc.env)
    for i, name in enumerate(names):
        assert re.search(rf"^  \d+: {name} = {i}\b", out, re.MULTILINE), out
    assert "6 PVs by " in out


# ------------------------------------------- with epicsx's own interface

WAVE = """
record(calc, "$(P)n") { field(CALC, "VAL+1") field(SCAN, ".1 second") }
record(compress, "$(P)wave") { field(ALG, "Circular Buffer") field(NSAM, "8") field(INP, "$(P)n CP") }
"""


def assert_in_order(data: Any) -> None:
    """Each frame is of one piece and not older than that before it; all but a few follow directly.

    Of an array the server sends what it holds by then, and has one update at most under way: one that is posted
    meanwhile is not sent, or comes as the one before it, too.
    """
    np.testing.assert_array_equal(np.diff(data, axis=1), 1)
    steps = np.diff(data[:, 0])
    assert (steps >= 0).all(), steps
    assert len(steps) < 5 or np.median(steps) == 1, steps


def test_waveform_acquisition(own_ioc: Callable[..., SoftIOC], tmp_path: Path) -> None:
    ioc, path = own_ioc(WAVE), tmp_path / "frames.npy"
    with start_python(READY, ioc["wave"], env=ioc.env) as full:
        full.wait_line("full")
    out = run("epicsx", "waveform_acquisition.py", ioc["wave"], 20, path, env=ioc.env)
    assert number(r"20 frames in 2 blocks, .* ([\d.]+) frames/s", out) > 0
    assert "lost among them: 0;" in out
    data = np.load(path)
    assert data.shape == (20, 8)
    assert_in_order(data)
    assert number(r"8 samples of float64, mean ([\d.]+)", out) == pytest.approx(data.mean(), 1e-4)


def test_recording(own_ioc: Callable[..., SoftIOC], tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    ioc, path = own_ioc(WAVE), tmp_path / "run.h5"
    with start_python(READY, ioc["wave"], env=ioc.env) as full:
        full.wait_line("full")
    first = run("epicsx", "recording.py", ioc["wave"], path, 1, env=ioc.env)
    stored = number(r"stored (\d+) in \d", first)
    assert stored >= 1
    assert "dropped 0" in first
    assert f"{stored:.0f} frames in the file, 0 known to be missing" in first
    run("epicsx", "recording.py", ioc["wave"], path, 3, env=ioc.env)
    with h5py.File(path) as file:
        data = file[ioc["wave"]]["data"]
        assert len(data) > stored
        assert_in_order(data[: int(stored)])
        group = file[ioc["wave"]]
        stamps = [*group["timestamp_ns"], *group["varying/timestamp_ns"]]
        found = runpy.run_path(str(EXAMPLES / "recording.py"))["frames"](group)
    assert [frame[0] for frame in found] == sorted(frame[0] for frame in found)
    assert {int(frame[0]) for frame in found} == {0, 1}
    assert [frame[2] for frame in found] == sorted(stamps)


def test_image_statistics_of_no_image() -> None:
    script = [sys.executable, str(EXAMPLES / "image_statistics.py"), "NO:", "0"]
    result = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "a number of images of at least 1 is wanted, not 0\n"


READY = """
import sys, epicsx
with epicsx.Channel(sys.argv[1]) as channel:
    while len(channel.get().value) < 8 or channel.get().value[0] == 0:
        pass
print("full")
"""


def test_image_statistics() -> None:
    repeater = int(os.environ["EPICS_CA_REPEATER_PORT"])
    with AreaDetectorIOC(nelements=400, repeater_port=repeater) as ioc:
        ioc.send(numbered_frame(1, (12, 20)))
        env = {**os.environ, **ioc.env}
        script = [sys.executable, "-u", str(EXAMPLES / "image_statistics.py"), ioc.image_prefix]
        running = subprocess.Popen([*script, "5"], env=env, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        try:
            lines = [running.stdout.readline()]  # it has the first: now it hears the others
            for n in (2, 3, 6, 7):  # one after the other: the IOC skips what comes while it sends
                ioc.send(numbered_frame(n, (12, 20)), unique_id=n)
                lines.append(running.stdout.readline())
            lines += running.stdout.readlines()
            running.wait(50)
        finally:
            running.kill()
            running.wait()
            running.stdout.close()
    assert running.returncode == 0
    out = "".join(lines)
    first = numbered_frame(1, (12, 20))
    assert f"<Image 1: 12 x 20 Mono uint8>: mean {first.mean():.2f}, min {first.min()}" in out
    assert "<Image 6: 12 x 20 Mono uint8, 2 lost before>" in out
    assert number(r"5 images, ([\d.]+) per second", out) > 1
    assert "2 did not come, 0 were dropped, 0 of these not matched" in out


# ------------------------------------------- records that EPICS base does not have

CHANNELS = 4
SCALER = {
    "EX:sc.RTYP": "scaler",
    "EX:sc.CNT": {"value": 0, "states": ["Done", "Count"], "returns": 0.3},
    "EX:sc.CONT": {"value": 1, "states": ["OneShot", "AutoCount"]},
    "EX:sc.TP": 1.0,
    "EX:sc.T": 0.5,
    "EX:sc.VAL": 0.5,
    "EX:sc_calcEnable.VAL": {"value": 0, "states": ["Disable", "Enable"]},
    **{f"EX:sc.NM{i}": f"chan {i}" for i in range(1, CHANNELS + 1)},
    **{f"EX:sc.S{i}": 1000 * i for i in range(1, CHANNELS + 1)},
    **{f"EX:sc_calc{i}.VAL": 0.0 for i in range(1, CHANNELS + 1)},
    **{f"EX:sc_calc{i}.CALC": "A" for i in range(1, CHANNELS + 1)},
}


@both
def test_scaler_count(on: str, free_port: Callable[[], int]) -> None:
    pytest.importorskip("caproto")
    repeater = int(os.environ["EPICS_CA_REPEATER_PORT"])
    with PVSet(SCALER, server_port=free_port(), repeater_port=repeater) as server:
        out = run(on, "scaler_count.py", "EX:sc", 0.5, CHANNELS, env=server.env)
        assert [name for name, _ in server.puts] == ["EX:sc.CONT", "EX:sc.TP", "EX:sc.CNT"]
    assert number(r"done after ([\d.]+) s", out) >= 0.3
    assert re.findall(r"chan (\d) +(\d+) +([\d.]+) per second", out) == [
        (str(i), str(1000 * i), f"{2000 * i:.1f}") for i in range(1, CHANNELS + 1)
    ]


@both
def test_motor_scan(on: str, ioc: SoftIOC) -> None:
    pytest.importorskip("caproto")
    repeater = int(os.environ["EPICS_CA_REPEATER_PORT"])

    def scan(step: float) -> int:
        """How many readings there are, where a step takes so many seconds."""
        limits = {"VELO": 1 / step, "DLLM": 0.0, "DHLM": 30.0}
        with MotorIOC({"m3": limits}, repeater_port=repeater) as motors:
            ports = (motors.server_port, ioc.server_port)
            env = {**ioc.env, "EPICS_CA_ADDR_LIST": " ".join(f"127.0.0.1:{port}" for port in ports)}
            out = run(on, "motor_scan.py", motors.name("m3"), ioc["cnt:100hz"], 2, 4, 3, env=env)
            assert motors[motors.name("m3.RBV")] == 0
        assert "limits 0 to 30" in out
        rows = re.findall(r"^ +([\d.]+) +([\d.]+)$", out, re.MULTILINE)
        assert [float(position) for position, _ in rows] == [2.0, 3.0, 4.0]
        assert "3 points; back at 0" in out
        return len({reading for _, reading in rows})

    assert long_enough(scan, lambda different: different == 3, 0.02) == 3
