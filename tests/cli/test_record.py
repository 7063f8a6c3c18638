"""`epicsx record`, as a user starts it: in a process of its own, on a real soft IOC."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run_python, wait_until

from epicsx.testing import SoftIOC

h5py = pytest.importorskip("h5py")

COMMAND = [sys.executable, "-X", "faulthandler", "-m", "epicsx", "record"]
DB = """
record(calc, "$(P)fast") { field(CALC, "VAL+1") field(SCAN, ".1 second") field(EGU, "A") }
record(calc, "$(P)slow") { field(CALC, "VAL+1") field(SCAN, ".5 second") }
record(aSub, "$(P)gen") { field(SCAN, ".1 second") field(FTVA, "DOUBLE") field(NOA, "50") }
record(compress, "$(P)wave") {
    field(ALG, "Circular Buffer") field(NSAM, "50") field(INP, "$(P)fast CP") field(EGU, "mV")
}
record(stringin, "$(P)text") { field(VAL, "words") field(PINI, "YES") }
"""
LATE = (
    'record(waveform, "$(P)late") { field(FTVL, "SHORT") field(NELM, "4") field(INP, [1,2,3,4]) }'
)


class Command:
    """A running recording."""

    def __init__(self, *args: str, env: dict[str, str], terminal: bool = False) -> None:
        self.terminal, child = pty.openpty() if terminal else (-1, subprocess.PIPE)
        self.popen = subprocess.Popen(
            [*COMMAND, *args],
            stdout=subprocess.PIPE,
            stderr=child,
            text=True,
            env={**os.environ, **env},
        )
        if terminal:
            os.close(child)

    def finish(self, timeout: float = 30.0) -> tuple[int, str, str]:
        out, errors = self.popen.communicate(timeout=timeout)
        return self.popen.returncode, out, errors or ""

    def shown(self, pattern: str, timeout: float = 20.0) -> str:
        """What it wrote on the terminal, once that has the pattern."""
        text, deadline = "", time.monotonic() + timeout
        while not re.search(pattern, text):
            assert time.monotonic() < deadline, text
            if select.select([self.terminal], [], [], 0.1)[0]:
                text += os.read(self.terminal, 4096).decode()
        return text

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()
        if self.terminal >= 0:
            os.close(self.terminal)


@pytest.fixture
def record(own_ioc: Callable[..., SoftIOC]) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*args: object, env: dict[str, str], terminal: bool = False) -> Command:
        started.append(Command(*map(str, args), env=env, terminal=terminal))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def running(own_ioc: Callable[..., SoftIOC]) -> SoftIOC:
    return own_ioc(DB)


def rows_in(path: Path, name: str) -> int:
    """How many frames or rows the file has, while it is being written; 0 until it can be read."""
    try:
        with h5py.File(path, "r", swmr=True) as file:
            return len(file["scalars/rows"] if name == "scalars" else file[name]["timestamp_ns"])
    except (OSError, KeyError):
        return 0


def stored_in(path: Path, name: str) -> int:
    """How many its ledger tells of, which is written after them; 0 until it can be read."""
    try:
        with h5py.File(path, "r", swmr=True) as file:
            ledger = file[name]["ledger"]
            return int(ledger[-1]["stored"]) if len(ledger) else 0
    except (OSError, KeyError):
        return 0


def is_a_count(values: Any) -> bool:
    """Whether each is one more than the one before it, but for the first, which may come twice.

    What is posted while the server adds a monitor is sent as its first value, and as a change.
    """
    steps = np.diff(values)
    return set(steps[:1]) <= {0, 1} and bool(np.all(steps[1:] == 1))


def test_arrays_and_scalars(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    names = [running[n] for n in ("wave", "fast", "slow")]
    code, out, errors = record(
        # long enough for the scalars to be found, too
        *names,
        names[1],
        "-o",
        path,
        "--frames",
        30,
        env=running.env,
    ).finish()
    assert (code, errors) == (0, "")
    assert re.search(rf"^{names[0]}: 30 frames, [\d.]+ MB, lost 0$", out, re.MULTILINE)
    assert re.search(r"^2 scalars: \d+ rows, [\d.]+ MB, lost 0$", out, re.MULTILINE)
    with h5py.File(path) as file:
        assert file.attrs["end_ns"] > file.attrs["start_ns"]
        wave = file[names[0]]
        assert wave.attrs["units"] == "mV"
        assert wave["ledger"][-1]["stored"] == 30
        assert wave["ledger"][-1]["dropped"] == 0
        assert len(wave["timestamp_ns"]) + len(wave["varying/count"]) == 30
        assert [n.decode() for n in file["scalars/names"]] == names[1:]
        assert [u.decode() for u in file["scalars/units"]] == ["A", ""]
        rows = file["scalars/rows"][:]
        fast = rows["value"][rows["source"] == 0]
        assert is_a_count(fast), fast
        assert len(fast) >= 4


def test_a_reducer_compression_and_one_more_run(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path
) -> None:
    name, path = running["gen.A"], tmp_path / "run.h5"
    args = (
        name,
        "-o",
        path,
        "--frames",
        1,
        "--reduce",
        "minmax",
        "--compression",
        "gzip",
        "--quiet",
    )
    assert record(*args, env=running.env).finish() == (0, "", "")
    code, _, errors = record(*args, env=running.env).finish()
    assert (code, errors) == (
        2,
        f"epicsx record: {path} is there already: --append or --overwrite\n",
    )
    assert record(*args, "--append", env=running.env).finish() == (0, "", "")
    with h5py.File(path) as file:
        assert file[name]["data"].shape == (2, 2)
        assert file[name]["data"].compression == "gzip"
    assert record(*args, "--overwrite", env=running.env).finish() == (0, "", "")
    with h5py.File(path) as file:
        assert file[name]["data"].shape == (1, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_well(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path, number: int
) -> None:
    path = tmp_path / "run.h5"
    command = record(running["fast"], "-o", path, env=running.env)
    seen = wait_until(lambda: (n := rows_in(path, "scalars")) >= 3 and n, 20, every=0.05)
    command.popen.send_signal(number)
    code, out, errors = command.finish()
    assert (code, errors) == (0, "")
    with h5py.File(path) as file:
        rows = file["scalars/rows"][:]
        assert len(rows) >= seen
        assert f"1 scalar: {len(rows)} rows" in out
        assert file["scalars/ledger"][-1]["stored"] == len(rows)
        assert file.attrs["end_ns"] > 0


def test_a_killed_one_leaves_a_file(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path
) -> None:
    path, names = tmp_path / "run.h5", [running["wave"], running["fast"]]
    command = record(*names, "-o", path, env=running.env)
    wait_until(lambda: rows_in(path, names[0]) and stored_in(path, "scalars"), 30, every=0.05)
    command.popen.kill()
    command.finish()
    with h5py.File(path, "r", swmr=True) as file:
        rows = file["scalars/rows"][:]
        assert is_a_count(rows["value"]), rows
        assert 0 < file["scalars/ledger"][-1]["stored"] <= len(rows)
        assert len(file[names[0]]["data"]) >= len(file[names[0]]["timestamp_ns"]) > 0
    code, _, errors = record(
        *names, "-o", path, "--append", "--frames", 30, env=running.env
    ).finish()
    assert (code, errors) == (0, "")
    with h5py.File(path) as file:
        assert len(file["scalars/rows"]) > len(rows)
        np.testing.assert_array_equal(file["scalars/rows"][: len(rows)], rows)


def test_progress_on_a_terminal(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    command = record(running["fast"], "-o", path, env=running.env, terminal=True)
    text = command.shown(r"\d s .*\r.*\d s .* lost 0")
    assert re.search(r"\r +[\d.]+ s  \d+ frames, \d+/s  [\d.]+ MB, [\d.]+ MB/s  lost 0", text)
    command.popen.send_signal(signal.SIGINT)
    command.shown("\n")
    assert command.popen.wait(20) == 0


def test_what_was_lost_is_told(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    command = record(running["fast"], "-o", path, env=running.env)
    wait_until(lambda: rows_in(path, "scalars"), 20, every=0.05)
    running.kill()

    def noted() -> int:
        with h5py.File(path, "r", swmr=True) as file:
            ledger = file["scalars/ledger"]  # it comes after the rows
            return int(ledger[-1]["disconnects"]) if len(ledger) else 0

    wait_until(noted, 20, every=0.05)
    command.popen.send_signal(signal.SIGTERM)
    code, out, _ = command.finish()
    assert code == 1
    assert "lost 1" in out


def test_a_pv_that_comes_late(
    own_ioc: Callable[..., SoftIOC], record: Callable[..., Command], tmp_path: Path,
    free_port: Callable[[], int],
) -> None:  # fmt: skip
    path, port = tmp_path / "run.h5", free_port()
    first = own_ioc(DB)
    env = {**first.env, "EPICS_CA_ADDR_LIST": f"127.0.0.1:{first.server_port} 127.0.0.1:{port}"}
    missing = "LATE:late"
    args = (first["fast"], missing, "LATE:n", "-o", path, "--timeout", 3)
    code, _, errors = record(*args, "--seconds", 1, env=env).finish()
    assert code == 1
    assert re.search(rf"no server has answered within 3 s for .*{missing}, LATE:n\n", errors)
    with h5py.File(path) as file:
        before = len(file["scalars/rows"])
    command = record(*args, "--append", env=env)
    wait_until(lambda: rows_in(path, "scalars") > before, 30, every=0.05)
    own_ioc(
        [
            LATE.replace("$(P)", "LATE:"),
            'record(ao, "LATE:n") { field(VAL, "5") field(PINI, "YES") }',
        ],
        server_port=port,
    )

    def came() -> bool:
        with h5py.File(path, "r", swmr=True) as file:
            there = len(file[missing]["varying/timestamp_ns"])
            return bool(
                there and 5.0 in file["scalars/rows"]["value"][file["scalars/rows"]["source"] == 2]
            )

    wait_until(came, 30, every=0.05)
    command.popen.send_signal(signal.SIGINT)
    code, _, _ = command.finish()
    assert code == 0
    with h5py.File(path) as file:
        assert list(file[missing]["varying/int16"]) == [1, 2, 3, 4]


def test_nothing_is_found(record: Callable[..., Command], tmp_path: Path, running: SoftIOC) -> None:
    path = tmp_path / "run.h5"
    code, out, errors = record("NO:A", "-o", path, "--timeout", 0.2, env=running.env).finish()
    assert (code, out) == (1, "")
    assert errors == "epicsx record: no server has answered within 0.2 s for NO:A\n"
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_searches(
    record: Callable[..., Command], tmp_path: Path, running: SoftIOC, number: int
) -> None:
    path = tmp_path / "run.h5"
    command = record("NO:A", "-o", path, "--timeout", 100, env=running.env)
    wait_until(lambda: _listens(command.popen.pid), 20, every=0.02)
    command.popen.send_signal(number)
    assert command.finish() == (128 + number, "", "")
    assert not path.exists()


def _listens(pid: int) -> bool:
    """Whether it has its handlers: Python itself has none for SIGTERM, which gets the last one."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_scalar_that_may_not_be_read(
    tools_env: dict[str, str], record: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    names = ["tools:w:none", "tools:ten"]
    code, out, errors = record(*names, "-o", path, "--frames", 3, env=tools_env).finish()
    assert (code, errors) == (
        1,
        "epicsx record: 'tools:w:none': the server gives no read access\n",
    )
    assert re.search(r"^2 scalars: \d+ rows, ", out, re.MULTILINE)


def test_many_that_are_not_found(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    names = [f"NO:{i}" for i in range(100)]
    code, out, errors = record(
        running["fast"], *names, "-o", path, "--timeout", 3, "--seconds", 2, env=running.env
    ).finish()
    assert code == 1
    assert "NO:99" in errors
    assert re.search(r"^101 scalars: \d+ rows", out, re.MULTILINE)
    with h5py.File(path) as file:
        assert len(file["scalars/rows"]) > 0
        assert all(len(file[n]["ledger"]) == 1 for n in names if n in file)  # nothing came


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["fast"], "-o/--output"),
        (["-o", "FILE"], "PV"),
        (["fast", "-o", "FILE", "--seconds", "0"], "above 0"),
        (["fast", "-o", "FILE", "--frames", "1.5"], "whole number"),
        (["fast", "-o", "FILE", "--reduce", "median"], "mean, minmax or decimate:N"),
        (
            ["fast", "-o", "FILE", "--reduce", "decimate:99999999999999999999999"],
            "below 1000000000",
        ),
        (["fast", "-o", "FILE", "--append", "--overwrite"], "not allowed with"),
        (["", "-o", "FILE"], "name"),
        (["x" * 1100, "-o", "FILE"], "name"),
        (["fast", "-o", "/dev/null", "--overwrite"], "no regular file"),
        (["fast", "-o", "FILE/none/run.h5"], "no such folder"),
        (["fast", "-o", "."], "it is a folder"),
        (["text", "-o", "FILE"], "only numbers are recorded"),
        (["fast", "-o", __file__, "--append"], "no HDF5 file"),
    ],
)
def test_bad_usage(
    running: SoftIOC, record: Callable[..., Command], tmp_path: Path, args: list[str], told: str
) -> None:
    words = [
        running[a] if a in ("fast", "text") else a.replace("FILE", str(tmp_path / "x"))
        for a in args
    ]
    code, out, errors = record(*words, env=running.env).finish()
    assert (code, out) == (2, "")
    last = errors.splitlines()[-1]
    assert last.startswith("epicsx record: ")
    assert told in last
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_without_h5py(tmp_path: Path) -> None:
    result = run_python(
        """
        import importlib.util, sys
        from epicsx.cli import record
        record.find_spec = lambda name: None
        from epicsx.cli import main
        sys.exit(main(["record", "x", "-o", sys.argv[1]]))
        """,
        str(tmp_path / "run.h5"),
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "epicsx record: h5py is not installed: pip install 'epicsx[hdf5]'\n"


def test_a_disk_that_is_full_already(running: SoftIOC, tmp_path: Path) -> None:
    result: Any = run_python(
        """
        import resource, sys
        from epicsx.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        sys.exit(main(["record", sys.argv[1], "-o", sys.argv[2]]))
        """,
        running["wave"],
        str(tmp_path / "run.h5"),
        env=running.env,
        check=False,
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert re.fullmatch(r"epicsx record: \S+ File too large\n", result.stderr)
