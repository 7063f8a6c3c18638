"""What a hostile server sends, or a hostile name says, drives no terminal and forges no line of a log."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from support import long_enough, run_python, wait_until

import epicsx
from epicsx import CAError, Channel
from epicsx._printable import ESCAPING
from epicsx.testing import SoftIOC

EVIL = "\x1b]0;own\x07\x1b[2J\r\nFAKE"
"""Sets a terminal's title, clears it, goes back to the start of the line, and begins a line of its own."""
_DB = (
    EVIL.replace("\x1b", r"\x1b").replace("\x07", r"\x07").replace("\r", r"\r").replace("\n", r"\n")
)

DB = f"""
record(stringin, "$(P)s") {{ field(VAL, "a{_DB}") field(DESC, "d{_DB}") field(PINI, "YES") }}
record(ai, "$(P)ai") {{ field(VAL, "1") field(EGU, "\\x1b[2J\\n") field(PINI, "YES") }}
record(bi, "$(P)bi") {{ field(VAL, "1") field(ZNAM, "z\\x1b[1m") field(ONAM, "o{_DB}") field(PINI, "YES") }}
record(waveform, "$(P)c") {{ field(FTVL, "CHAR") field(NELM, "60") }}
record(waveform, "$(P)t") {{ field(FTVL, "STRING") field(NELM, "3") }}
"""
NAMES = ("s", "ai", "bi", "c", "t")


@pytest.fixture(scope="module")
def hostile() -> Iterator[SoftIOC]:
    """Give an IOC whose strings, units, states and arrays of characters are hostile."""
    with SoftIOC(DB) as server:
        yield server


@pytest.fixture
def filled(hostile: SoftIOC) -> SoftIOC:
    """Give it with its arrays filled too; they are as hostile as the rest."""
    script = f"""
import sys, epicsx
P = sys.argv[1]
evil = {EVIL!r}
epicsx.Channel(P + "c").put(list(evil.encode()), wait=True)
epicsx.Channel(P + "t").put([evil, "\\x1b[2J"], wait=True)
"""
    run_python(script, hostile.prefix, env=hostile.env)
    return hostile


def obeyed(text: str) -> list[str]:
    """Give the characters in it that a terminal or a reader of logs would obey; lines end in newlines."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


def run(ioc: SoftIOC, *words: str, check: bool = True) -> str:
    """Give what a command prints on a terminal, on both streams, with the terminal's own line ends taken away."""
    found, code = ended(ioc, *words)
    assert not check or code == 0, found
    return found


def ended(ioc: SoftIOC, *words: str) -> tuple[str, int]:
    """Give that, and the exit code."""
    ours, its = pty.openpty()
    text = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed by all
            while some := os.read(ours, 65536):
                text.extend(some)

    reader = threading.Thread(target=read)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "epicsx", *words],
            env={**os.environ, **ioc.env, "TERM": "xterm", "NO_COLOR": "1"},
            stdout=its,
            stderr=its,
            stdin=subprocess.DEVNULL,
        )
        os.close(its)
        reader.start()
        code = process.wait(60)
        reader.join(20)
    finally:
        os.close(ours)
    found = bytes(text).decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    assert "Traceback" not in found
    return found, code


COMMANDS: list[Callable[[list[str]], list[str]]] = [
    lambda names: ["get", *names],
    lambda names: ["get", "-a", *names],
    lambda names: ["get", "-S", names[3]],
    lambda names: ["get", "-d", "CTRL_DOUBLE", names[1]],
    lambda names: ["get", "-d", "CTRL_ENUM", names[2]],
    lambda names: ["get", "-d", "DBR_GR_ENUM", names[2]],
    lambda names: ["get", names[0] + ".DESC", names[1] + ".EGU", names[0] + ".DESC$", "-S"],
    lambda names: ["info", *names],
    lambda names: ["monitor", "-#", "3", *names],
    lambda names: ["monitor", "-S", names[3]],
]


@pytest.mark.parametrize("command", range(len(COMMANDS)))
def test_texts_of_a_server_are_shown_escaped(filled: SoftIOC, command: int) -> None:
    name, *words = COMMANDS[command]([filled[name] for name in NAMES])
    words = [name, "-w", "30", *words]
    if name == "monitor":
        found, code = long_enough(
            lambda seconds: ended(filled, *words, "--duration", str(seconds)),
            lambda done: done[1] == 0 and filled.prefix in done[0],
        )
        assert code == 0, found
    else:
        found = run(filled, *words)
    assert obeyed(found) == []
    assert "\nFAKE" not in found
    assert filled.prefix in found


@pytest.mark.parametrize("command", ["get", "put", "info", "doctor"])
def test_names_are_shown_escaped(hostile: SoftIOC, command: str) -> None:
    words = [command, "no" + EVIL, *(["1"] if command == "put" else [])]
    found = run(hostile, *words, check=False)
    found = found.replace("\r", "")  # of the line that says what it waits for
    assert obeyed(found) == []
    assert "\nFAKE" not in found
    assert r"\x1b[2J\r\nFAKE" in found


def test_json_and_csv_are_exact_in_their_own_quoting(filled: SoftIOC) -> None:
    get = ("get", "-w", "30")
    found = json.loads(run(filled, *get, "--json", filled["s"]))
    assert found["value"] == "a" + EVIL
    assert obeyed(run(filled, *get, "--json", *(filled[name] for name in NAMES))) == []
    process = subprocess.run(
        [sys.executable, "-m", "epicsx", *get, "--csv", filled["s"]],
        env={**os.environ, **filled.env},
        capture_output=True,
        timeout=60,
        check=True,
    )
    rows = list(csv.reader(io.StringIO(process.stdout.decode(), newline="")))
    assert rows[-1][-1] == "a" + EVIL


def test_the_log_has_one_line_for_a_record(hostile: SoftIOC) -> None:
    script = f"""
import logging, sys, threading
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
logged = threading.Event()

class Last(logging.Handler):
    def emit(self, record):
        logged.set()

logging.getLogger().addHandler(Last())
import epicsx
from epicsx import Channel
P = sys.argv[1]
evil = {EVIL!r}

def failing(sample):
    raise ValueError(sample.value)

with Channel(P + "s") as channel:
    seen = channel.subscribe(failing)
    assert logged.wait(20.0) and channel.stats.callback_errors
logging.getLogger("epicsx").warning("callback of '%s' failed", "PV" + evil)
logging.getLogger("epicsx.libca").warning("%s", evil)
"""
    found = run_python(script, hostile.prefix, env=hostile.env).stderr
    assert obeyed(found) == []
    assert r"ValueError: a\x1b]0;own\a\x1b[2J\r" in found
    assert r"WARNING callback of 'PV\x1b]0;own\a\x1b[2J\r\nFAKE' failed" in found
    assert r"WARNING \x1b]0;own\a\x1b[2J\r\nFAKE" in found


def test_a_servers_errors_are_logged_escaped(
    ioc: SoftIOC, caplog: pytest.LogCaptureFixture
) -> None:
    with Channel(ioc["bo"]).connect() as channel, caplog.at_level(logging.WARNING, "epicsx"):
        channel._core.put(
            EVIL, dbr_type=0
        )  # a state that it has not: the server answers with an error
        wait_until(lambda: channel.stats.rejected_puts)
        wait_until(lambda: "rejected" in caplog.text)
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert ESCAPING.filter(record)
    with pytest.raises(CAError) as caught:
        epicsx.connect(["no" + EVIL], timeout=0.05)
    assert "no" in str(caught.value)
