"""Each script of examples/, unchanged, under `epicsx run`; and under pyepics, where that can run it."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support.motors import motors
from support.pvset import PVSet

from epicsx.testing import SoftIOC

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
    out = run(on, "get_loop.py", ioc["cnt:100hz"], 300, env=ioc.env)
    assert "300 reads, 0 without an answer" in out
    assert number(r"; (\d+) different values", out) >= 2


@both
def test_many_callbacks(on: str, own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(
        [
            f'record(calc, "$(P)n:{i:03d}") {{ field(CALC, "VAL+1") field(SCAN, ".1 second") }}'
            for i in range(500)
        ]
    )
    out = run(on, "many_callbacks.py", ioc["n:{:03d}"], 500, 1, env=ioc.env)
    assert "500 of 500 PVs connected" in out
    assert "500 of them have sent a value" in out
    assert number(r"(\d+) updates per second", out) > 2500  # of 5000
    assert out.count(" updates, the last ") == 5


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


@pytest.fixture
def motor(free_port: Callable[[], int]) -> Iterator[tuple[str, int]]:
    """Give the name of a simulated motor record, and the port of its server on 127.0.0.1."""
    pytest.importorskip("caproto")
    port, repeater = free_port(), int(os.environ["EPICS_CA_REPEATER_PORT"])
    with motors("EX:", server_port=port, repeater_port=repeater):
        yield "EX:mtr3", port


@both
def test_motor_scan(on: str, motor: tuple[str, int], ioc: SoftIOC) -> None:
    name, port = motor
    addresses = f"127.0.0.1:{port} 127.0.0.1:{ioc.env['EPICS_CA_SERVER_PORT']}"
    out = run(
        on, "motor_scan.py", name, ioc["cnt:100hz"], 2, 4, 3,
        env={**ioc.env, "EPICS_CA_ADDR_LIST": addresses},
    )  # fmt: skip
    assert "limits 0 to 30" in out
    rows = re.findall(r"^ +([\d.]+) +([\d.]+)$", out, re.MULTILINE)
    assert [float(position) for position, _ in rows] == [2.0, 3.0, 4.0]
    assert len({reading for _, reading in rows}) == 3
    assert "3 points; back at 0" in out
