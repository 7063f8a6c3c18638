"""`epicsx get`: byte for byte what caget prints, and what goes beyond."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
from support import long_enough, wait_until
from support.commands import Commands
from support.tool_cases import GET, PREFIX, Case, compare, golden

from epicsx.testing import SoftIOC

READ_FAILED = "*** CA error Channel read request failed"


@pytest.mark.parametrize("case", GET, ids=lambda case: case.key)
def test_the_same_as_caget(commands: Commands, tools_env: dict[str, str], case: Case) -> None:
    ours = commands.run(*case.ours())
    theirs = compare(case, ours, tools_env)
    assert ours.returncode == golden("caget")[case.key]["returncode"]
    if theirs is not None:  # the very bytes, stamps included
        assert ours.stdout == theirs.stdout
    mixed = "-a" in case.words and "-t" in case.words
    assert len(ours.errors.splitlines()) == (ours.returncode != 0 or mixed)


# ---- where caget prints what it has not read, or ends with 0


@pytest.mark.parametrize(
    ("words", "out", "told"),
    [
        (["wf:enum"], f"{PREFIX}wf:enum {READ_FAILED}\n", "failed: Channel read request failed"),
        (
            ["-d", "TIME_DOUBLE", "string"],
            f"{PREFIX}string\n    {READ_FAILED}\n",
            "failed: Channel read request failed",
        ),
        (["w:none"], f"{PREFIX + 'w:none':<30} *** no read access\n", "no read access"),
        (["-t", "w:none"], "*** no read access\n", "no read access"),
        (["-d", "0", "w:none"], f"{PREFIX}w:none\n    *** no read access\n", "no read access"),
    ],
)
def test_what_was_not_read_ends_with_1(
    commands: Commands, words: list[str], out: str, told: str
) -> None:
    done = commands.run("get", *words[:-1], PREFIX + words[-1])
    assert (done.returncode, done.out) == (1, out)
    assert done.errors.startswith("epicsx get: ") and told in done.errors
    assert done.errors.count("\n") == 1


def test_those_that_were_read_are_printed_beside_one_that_was_not(commands: Commands) -> None:
    done = commands.run("get", "-t", PREFIX + "ao", PREFIX + "w:none", PREFIX + "long")
    assert (done.returncode, done.out) == (1, "1.5\n*** no read access\n-3\n")


# ---- bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "PV"),
        (["-q", "x"], "unrecognized arguments: -q"),
        (["--nothing", "x"], "unrecognized arguments: --nothing"),
        (["-w", "soon", "x"], "a number of seconds is wanted, not 'soon'"),
        (["-w", "-1", "x"], "a number of seconds is wanted, not '-1'"),
        (["-w", "nan", "x"], "a number of seconds is wanted, not 'nan'"),
        (["-w"], "expected one argument"),
        (["-p", "100", "x"], "a priority is 0 to 99, not '100'"),
        (["-#", "few", "x"], "a number of elements is 0 to 2147483647, not 'few'"),
        (["-#", "-1", "x"], "a number of elements is 0 to 2147483647, not '-1'"),
        (["-f", "19", "x"], "a number of digits is 0 to 18, not '19'"),
        (["-e", "many", "x"], "a number of digits is 0 to 18, not 'many'"),
        (["-0", "y", "x"], "x, o or b is wanted, not 'y'"),
        (["-lq", "x"], "x, o or b is wanted, not 'q'"),
        (["-d", "LARGE", "x"], "no DBR type that can be read: 'LARGE'"),
        (["-d", "35", "x"], "no DBR type that can be read: '35'"),
        (["-d", "39", "x"], "no DBR type that can be read: '39'"),
        (["--json", "--csv", "x"], "not allowed with argument"),
        (["x" * 1008], "a PV name has at most 1007 bytes"),
        ([""], "a PV name is a text without NUL"),
    ],
)
def test_bad_input_is_one_line_and_2(commands: Commands, words: list[str], told: str) -> None:
    done = commands.run("get", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.errors.startswith("epicsx get: ") and told in done.errors
    assert done.errors.count("\n") == 1


def test_a_bad_timeout_in_the_environment(commands: Commands) -> None:
    done = commands.run("get", PREFIX + "ao", env={"EPICS_CLI_TIMEOUT": "soon"})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.errors == (
        "epicsx get: EPICS_CLI_TIMEOUT: a number of seconds is wanted, not 'soon'\n"
    )


def test_the_timeout_of_the_environment(commands: Commands) -> None:
    done = commands.run("get", PREFIX + "nobody", env={"EPICS_CLI_TIMEOUT": "0.05"})
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.errors == ("epicsx get: Channel connect timed out: 'tools:nobody' not found.\n")


def test_int_is_a_name_of_short(commands: Commands) -> None:
    as_int = commands.run("get", "-d", "ctrl_int", PREFIX + "long")
    assert as_int == commands.run("get", "-d", "CTRL_SHORT", PREFIX + "long")
    assert as_int.returncode == 0


# ---- beyond caget


def test_json_has_all_facts(commands: Commands, tools_ioc: SoftIOC) -> None:
    names = [PREFIX + name for name in ("ao", "mbbo", "wf:double", "inf", "nobody")]
    done = long_enough(
        lambda seconds: commands.run("get", "--json", "-w", str(seconds), *names),
        lambda done: len(done.out.splitlines()) == 4,
        0.3,
    )
    assert done.returncode == 1
    assert done.errors == "epicsx get: Channel connect timed out: 'tools:nobody' not found.\n"
    ao, mbbo, wave, inf = (json.loads(line) for line in done.out.splitlines())
    stamp = ao.pop("timestamp_ns")
    assert stamp > 1_600_000_000_000_000_000
    assert ao.pop("timestamp") == pytest.approx(stamp / 1e9, abs=1e-5)
    assert ao.pop("host").endswith(f":{tools_ioc.server_port}")
    assert ao == {
        "name": PREFIX + "ao",
        "value": 1.5,
        "status": "NO_ALARM",
        "severity": "NO_ALARM",
        "count": 1,
        "native_type": "DOUBLE",
        "read": True,
        "write": True,
        "units": "mm",
        "precision": 3,
        "lower_disp_limit": -100.0,
        "upper_disp_limit": 100.0,
        "lower_alarm_limit": -90.0,
        "upper_alarm_limit": 90.0,
        "lower_warning_limit": -80.25,
        "upper_warning_limit": 80.0,
        "lower_ctrl_limit": -50.0,
        "upper_ctrl_limit": 50.0,
    }
    assert (mbbo["value"], mbbo["state"]) == (2, "Two words")
    assert (mbbo["status"], mbbo["severity"]) == ("STATE", "MINOR")
    assert mbbo["enum_strings"] == ["Zero", "One", "Two words", 'Three\'s "q"\t!']
    assert wave["value"] == [0.0, 0.5, -1.25, 1e9, 1e-7, 0.0, 0.0, 0.0]
    assert (inf["value"], inf["upper_alarm_limit"]) == ("Infinity", "NaN")


def test_json_of_texts(commands: Commands) -> None:
    names = [PREFIX + name for name in ("utf8", "escape", "wf:string", "wf:text")]
    done = commands.run("get", "--json", "-S", *names)
    assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in done.stdout)
    values = [json.loads(line)["value"] for line in done.out.splitlines()]
    assert values == [
        "20 µm",
        "\x1b[31mred\x1b[0m\x07\x01\x7f",
        ["one", "two words", "it's\t"],
        "Hi '\"\tÃ\x1b",  # no UTF-8: each byte is a character
    ]


def test_csv(commands: Commands) -> None:
    names = [PREFIX + name for name in ("ao", "mbbo", "wf:string", "udf", "utf8")]
    done = commands.run("get", "--csv", *names)
    assert done.returncode == 0
    head, ao, mbbo, texts, udf, utf8 = csv.reader(io.StringIO(done.out))
    assert head == ["name", "timestamp", "status", "severity", "value"]
    assert ao[0] == PREFIX + "ao" and ao[2:] == ["NO_ALARM", "NO_ALARM", "1.5"]
    assert len(ao[1]) == len("2026-01-02T03:04:05.123456789Z") and ao[1].endswith("Z")
    assert mbbo[2:] == ["STATE", "MINOR", "Two words"]
    assert json.loads(texts[4]) == ["one", "two words", "it's\t"]
    assert udf[1:] == ["", "UDF", "INVALID", "0.0"]
    assert utf8[4] == "20 µm"
    numbers = commands.run("get", "--csv", "-n", PREFIX + "mbbo").out
    assert numbers.splitlines()[1].endswith(",2")


def test_plot(commands: Commands) -> None:
    done = commands.run("get", "--plot", PREFIX + "wf:short", env={"COLUMNS": "40"})
    assert done.returncode == 0
    name, *lines = done.out.splitlines()
    assert name == PREFIX + "wf:short"
    assert lines[0].split()[0] == "255" and lines[-1].split()[0] == "-32768"
    assert max(map(len, lines)) <= 40
    done = commands.run("get", "--plot", PREFIX + "ao")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "is no array of numbers" in done.errors


# ---- processes of its own


def _start(*words: str, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "epicsx", *words],
        env={**os.environ, **env},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **given,
    )


def _read_all(terminal: int) -> bytes:
    found = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            return found
        if not part:
            return found
        found += part


def test_a_terminal_is_not_driven(tools_env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    name = PREFIX + "nobody\x1b[31m"
    words = ["get", "-d", "CTRL_DOUBLE", PREFIX + "units"]
    with _start(*words, env=tools_env, stdout=theirs) as process:
        os.close(theirs)
        out = _read_all(ours)
        assert process.wait(30.0) == 0
    os.close(ours)
    units = [line for line in out.split(b"\r\n") if b"Units:" in line]
    assert units == ["    Units:            µm/\\x1bs".encode()]
    ours, theirs = pty.openpty()
    with _start("get", "--csv", PREFIX + "escape", env=tools_env, stdout=theirs) as process:
        os.close(theirs)
        out = _read_all(ours)
        assert process.wait(30.0) == 0
    os.close(ours)
    assert out.endswith(b"," + rb"\x1b[31mred\x1b[0m\a\x01\x7f" + b"\r\n")
    with _start("get", "-w", "0.1", name, env=tools_env) as process:
        _, errors = process.communicate(timeout=30.0)
    assert b"\x1b" not in errors and b"not found" in errors


def test_many_pvs_show_how_many_were_found_on_a_terminal_alone(tools_env: dict[str, str]) -> None:
    def words(seconds: float) -> list[str]:
        return ["get", "-w", str(seconds), PREFIX + "ao", PREFIX + "nobody"]

    def on_a_terminal(seconds: float) -> bytes:
        ours, theirs = pty.openpty()
        with _start(*words(seconds), env=tools_env, stderr=theirs) as process:
            os.close(theirs)
            out = _read_all(ours)
            assert process.wait(30.0) == 1
        os.close(ours)
        return out

    def in_a_pipe(seconds: float) -> bytes:
        with _start(*words(seconds), env=tools_env) as process:
            return process.communicate(timeout=50.0)[1]

    out = long_enough(on_a_terminal, lambda out: b"1 of 2" in out, 1.2)
    assert b"\r1 of 2 PVs found" in out
    assert out.rstrip().endswith(b"'tools:nobody' not found.")
    errors = long_enough(in_a_pipe, lambda errors: b"'tools:ao'" not in errors, 1.2)
    assert errors == b"epicsx get: Channel connect timed out: 'tools:nobody' not found.\n"


def test_ctrl_c_while_it_waits(tools_env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with _start("get", "-w", "0", PREFIX + "nobody", env=tools_env, stderr=theirs) as process:
        os.close(theirs)
        found = b""

        def waits() -> bool:
            nonlocal found
            found += os.read(ours, 65536)
            return b"0 of 1 PVs found" in found

        wait_until(waits, 30.0)
        process.send_signal(signal.SIGINT)
        rest = _read_all(ours)
        assert process.wait(30.0) == 130
    os.close(ours)
    assert b"Traceback" not in rest


def test_a_reader_that_has_gone(tools_env: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with _start("get", PREFIX + "ao", env=tools_env, stdout=write) as process:
        os.close(write)
        _, errors = process.communicate(timeout=30.0)
    assert (process.returncode, errors) == (1, b"")
