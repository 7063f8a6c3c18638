"""The command lines on which `epicsx get put monitor info` and the C tools of EPICS base are compared.

They run on an IOC with the records of tests/db/tools.db, whose names all begin with `tools:`. tests/cli/golden holds
what the C tools printed, recorded by `python -m tests.cli.record_tools`; nothing in there is written by hand.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from epicsx.testing import SoftIOC
from support.commands import Done, Forked, Written
from support.waiting import wait_until

TESTS = Path(__file__).parent.parent
GOLDEN = TESTS / "cli" / "golden"
sys.path.insert(0, str(TESTS.parent / "tools"))
import c_tools  # noqa: E402

PREFIX = "tools:"
OURS = {"caget": "get", "caput": "put", "camonitor": "monitor", "cainfo": "info"}
ZONE = {"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}
"""Stamps are printed in local time: in one that is not UTC, without need of a data base of zones."""

ACCESS = """
ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) }
ASG(READONLY) { RULE(1, READ) }
ASG(NOACCESS) { RULE(1, NONE) }
"""


@dataclass(frozen=True)
class Case:
    """A command line, and what the records hold before it."""

    words: tuple[str, ...]
    before: dict[str, object] = field(default_factory=dict)
    first: int = 1
    """Of a monitor: the lines that come before anything is written."""
    sorted: bool = False
    """Whether the order of the lines is left to chance."""

    @property
    def key(self) -> str:
        """The command line as one would type it."""
        return shlex.join(self.words)

    @property
    def absent(self) -> int:
        """How many of its PVs nobody has."""
        return self.words.count(PREFIX + "nobody")

    def ours(self) -> list[str]:
        """The words behind `epicsx`; it waits longer where nobody has to wait: the machine may be loaded."""
        words = self.words if self.absent else self.waiting(30.0).words
        return [OURS[words[0]], *words[1:]]

    def waiting(self, seconds: float) -> Case:
        """The same with another time behind -w, where it has one."""
        words = [
            str(seconds) if before == "-w" else word
            for before, word in zip(("", *self.words), self.words, strict=False)
        ]
        return replace(self, words=tuple(words))


def _cases(text: str, **more: Any) -> list[Case]:
    """One case for each line; of a word such as `:ao` the record's full name is made."""
    found = []
    for line in text.strip().splitlines():
        words = [
            PREFIX + w[1:] if w.startswith(":") and len(w) > 1 else w for w in shlex.split(line)
        ]
        found.append(Case(tuple(words), **more))
    return found


GET = _cases(
    r"""
    caget :ao
    caget :third :half :huge :minus :tiny :nan :inf :ninf :udf :alarmed
    caget :long :zero :big :int64 :bo :mbbo :mbbo3 :over :wild
    caget :string :empty :quoted :escape :utf8 :full :lso :units.EGU
    caget :wf:double :wf:float :wf:long :wf:short :wf:ushort :wf:ulong :wf:char :wf:uchar
    caget :wf:text :wf:string :wf:one :wf:char1 :wf:none :wf:nochar
    caget -n :wf:enum :bo :mbbo :over :wild
    caget -t :ao :mbbo :quoted :wf:double :wf:one
    caget -a :ao :udf :alarmed :mbbo :quoted :wf:double :wf:none :wf:string :wf:text :bo
    caget -an :mbbo :bo
    caget -c :ao :wf:double :wf:none :wf:string :wf:nochar :wf:one
    caget -c -a :wf:double :wf:none
    caget -c -# 2 :wf:double :wf:none :ao
    caget -# 3 :wf:double :wf:long :ao :wf:one :wf:string :mbbo
    caget -#0 :ao :wf:one
    caget -# 100 :wf:double :ao
    caget -a -# 2 :wf:double :ao
    caget -S :wf:text :wf:uchar :wf:nochar :wf:char1 :lso.VAL$ :ao :wf:double :string.VAL$
    caget -S -# 3 :wf:text :wf:char1 :wf:double
    caget -a -S :wf:text :wf:nochar :wf:char1 :lso.VAL$
    caget -a -S -#2 :wf:text
    caget -d CTRL_CHAR -S :wf:text
    caget -e 4 :third :tiny :wf:float :nan :long
    caget -f8 :third :tiny :wf:double :ninf
    caget -g 12 :third :huge :wf:float
    caget -g18 :third :half
    caget -f0 :half :third
    caget -e 2 -f 3 :third
    caget -s :ao :third :tiny :nan :wf:double :wf:float :long :mbbo
    caget -a -s :ao :wf:float
    caget -lx :third :half :huge :nan :minus :wf:double :wf:float :long
    caget -lo :third :half :inf
    caget -lb :third :half :zero :minus
    caget -0x :long :zero :big :wf:long :wf:short :wf:char :ao
    caget -0o :long :zero :wf:long :wf:short
    caget -0b :long :zero :big :wf:long :wf:short
    caget -0x -lo -n :long :half :mbbo
    caget -F , :ao :mbbo :wf:double :wf:none :quoted
    caget -F: -a :ao :alarmed :wf:double
    caget -F '' :ao :wf:double
    caget -Fab -t :wf:double
    caget -a -t :ao
    caget :ao -t :long
    caget -w 5 -p 20 :ao
    caget -t -- :ao
    caget -d STRING :ao :mbbo :wf:double :string :nan
    caget -d 1 :ao :mbbo :wf:short
    caget -d DBR_SHORT :long
    caget -d FLOAT :third :long
    caget -d ENUM :mbbo :ao
    caget -d CHAR :long :wf:uchar
    caget -d LONG :third :wf:ulong
    caget -d DOUBLE :mbbo :wf:float
    caget -d STS_STRING :alarmed :mbbo
    caget -d STS_SHORT :alarmed
    caget -d STS_FLOAT :alarmed
    caget -d STS_ENUM :mbbo
    caget -d STS_CHAR :wf:char
    caget -d STS_LONG :long
    caget -d STS_DOUBLE :alarmed :wf:double
    caget -d TIME_STRING :ao :udf :mbbo
    caget -d TIME_SHORT :long
    caget -d TIME_FLOAT :ao
    caget -d TIME_ENUM :mbbo
    caget -d TIME_CHAR :wf:char
    caget -d TIME_LONG :long
    caget -d DBR_TIME_DOUBLE :ao :udf :wf:double
    caget -d GR_STRING :ao :mbbo
    caget -d GR_SHORT :long :wf:short
    caget -d GR_FLOAT :ao :wf:float
    caget -d GR_ENUM :mbbo :over :wild :ao
    caget -d GR_CHAR :wf:uchar :long
    caget -d GR_LONG :long
    caget -d GR_DOUBLE :ao :units :third
    caget -d CTRL_STRING :ao :string
    caget -d CTRL_SHORT :long :wf:short
    caget -d CTRL_FLOAT :ao :wf:float
    caget -d CTRL_ENUM :mbbo :bo :wf:enum
    caget -n -d CTRL_ENUM :mbbo
    caget -d CTRL_CHAR :wf:uchar :wf:char
    caget -d CTRL_LONG :long :zero
    caget -d 34 :ao :third :alarmed
    caget -d STSACK_STRING :ack :alarmed :mbbo
    caget -d CLASS_NAME :ao :mbbo :string
    caget -d CTRL_DOUBLE -f3 -# 2 :wf:double :third
    caget -d TIME_LONG -0x :long
    caget -0x -d TIME_LONG :long
    caget -d TIME_DOUBLE -F, :wf:double
    caget -d CTRL_DOUBLE -lx :third
    caget -w 0.2 :nobody
    caget -w 0.2 :ao :nobody
    """
)

DOUBLES = [1.5, -2.0]

PUT = [
    *_cases("caput :w:ao 3\ncaput -t :w:ao 3.25\ncaput -c :w:ao 1e1", before={"w:ao": 1.5}),
    *_cases(
        "caput :w:ao -5\ncaput -F, :w:ao 4\ncaput -l :w:ao 2\ncaput -cl :w:ao 2",
        before={"w:ao": 1.5},
    ),
    *_cases(
        "caput :w:ao 100\ncaput -w 3 -p 7 -#5 :w:ao 0x10\ncaput -- :w:ao 2", before={"w:ao": 1.5}
    ),
    *_cases("caput -c :w:ao words\ncaput :w:ao", before={"w:ao": 1.5}),
    *_cases("caput :w:long -7\ncaput -t :w:long 7\ncaput :w:long 3.9", before={"w:long": 12}),
    *_cases(
        "caput :w:bo On\ncaput :w:bo 1\ncaput -n :w:bo 1\ncaput -s :w:bo On", before={"w:bo": 0}
    ),
    *_cases(
        r"""
        caput :w:mbbo One
        caput :w:mbbo Two words
        caput :w:mbbo 'Two words'
        caput :w:mbbo 1
        caput :w:mbbo 2
        caput -n :w:mbbo 1
        caput -ns :w:mbbo 1
        caput -sn :w:mbbo 1
        caput -s :w:mbbo 2
        caput -l :w:mbbo One
        caput -nl :w:mbbo 2
        caput :w:mbbo nothing
        caput -n :w:mbbo One
        caput :w:mbbo 9
        caput :w:mbbo 20
        caput -a :w:mbbo 1 One
        """,
        before={"w:mbbo": 0},
    ),
    *_cases(
        r"""
        caput :w:string some more words
        caput :w:string 'a  b'
        caput :w:string ''
        caput :w:string 'tab\tnul\x41\"\\'
        caput :w:string '\e\q\x4g\xgh end\'
        caput :w:string '20 µm'
        caput :w:string 123456789012345678901234567890123456789
        caput -S :w:string abc
        caput -l :w:string x
        """,
        before={"w:string": "old"},
    ),
    *_cases(
        r"""
        caput -a :w:double 3 1 2 3
        caput -a :w:double 0 7
        caput -al :w:double 5 1e3 -2 .5 0 9
        caput -ta :w:double 2 1 2
        caput -ac :w:double 2 1 2
        caput :w:double 9
        caput -F, -a :w:double 2 1 2
        caput -a :w:double 7 1 2 3 4 5 6 7
        """,
        before={"w:double": DOUBLES},
    ),
    *_cases(
        r"""
        caput -S :w:char hello there
        caput -S :w:char 'tab\tend'
        caput -Sl :w:char hello
        caput -aS :w:char hello
        caput -Sa :w:char 3 72 105 0
        caput :w:char 65
        caput -S :w:char a text that is longer than the record
        """,
        before={"w:char": "[111, 108, 100]"},
    ),
    *_cases(
        "caput -a :w:strings 2 'a b' c\ncaput :w:strings a b", before={"w:strings": '["x", "y"]'}
    ),
    *_cases(
        "caput -S :w:lso.VAL$ 'a text of more than forty characters, all of them'",
        before={"w:lso": "old"},
    ),
    *_cases("caput -c :w:disp 3\ncaput :w:read 3\ncaput -c :w:none 3\ncaput -w 0.2 :nobody 3"),
]

INFO = _cases(
    """
    cainfo :ao
    cainfo :long :mbbo :string :wf:char :wf:float :wf:short :w:read :w:none
    cainfo -w 2 -p3 :int64
    cainfo -w 0.2 :nobody
    cainfo -w 0.2 :ao :nobody
    """
)

MONITOR = [
    *_cases(
        """
        camonitor :m:ao
        camonitor -tn :m:ao
        camonitor -tc :m:ao
        camonitor -t sc :m:ao
        camonitor -tsr :m:ao
        camonitor -ts -tscI :m:ao
        camonitor -tci :m:ao
        camonitor -t snr :m:ao
        camonitor -f3 :m:ao
        camonitor -s :m:ao
        camonitor -lx :m:ao
        camonitor -F, :m:ao
        camonitor -# 1 :m:ao
        camonitor -m a :m:ao
        camonitor -m p :m:ao
        camonitor -mval -p9 :m:ao
        camonitor :m:mbbo
        camonitor -n :m:mbbo
        camonitor -n0x :m:mbbo
        camonitor :m:string
        camonitor :m:double
        camonitor -# 2 :m:double
        camonitor -S :m:char
        camonitor :m:char
        camonitor -0b :m:long
        """
    ),
    *_cases("camonitor -w 3 :m:ao :nobody :m:double", first=3, sorted=True),
    *_cases("camonitor -w 3 :w:none :m:ao", first=1),
    *_cases("camonitor -w 3 -F, :nobody", first=1),
]

BEFORE: dict[str, object] = {
    "m:ao": 0,
    "m:ao.EGU": "mm",
    "m:mbbo": 0,
    "m:string": "old",
    "m:long": 0,
    "m:double": [1.0, 2.0, 3.0],
    "m:char": "[111, 10",  # as many as fit
}
WRITES: list[tuple[str, object]] = [
    *[("m:ao", 2.5), ("m:ao", -12345.678), ("m:ao", 95), ("m:ao.EGU", "cm"), ("m:ao", 3)],
    *[("m:mbbo", 1), ("m:mbbo", 2), ("m:string", "it's"), ("m:long", -3), ("m:long", 5)],
    *[("m:double", [0.5, -1e9]), ("m:char", "[72, 105")],
]
"""What is written while the monitors run. An array once: what is sent is what it holds by then."""


def command(words: Sequence[str]) -> list[str] | None:
    """The words that start a C tool with its arguments; None where it is not installed."""
    found = c_tools.command(words[0])
    return None if found is None else [*found, *words[1:]]


def release() -> str:
    """The EPICS release of the C tools."""
    return c_tools.release()


def start_ioc(**options: Any) -> SoftIOC:
    """Return the IOC of these cases, started, with the prefix that the recordings have."""
    database = (TESTS / "db" / "tools.db").read_bytes()
    ioc = SoftIOC(database, prefix=PREFIX, access_security=ACCESS, **options)
    return ioc.start()


def prepare(ioc: SoftIOC, before: Mapping[str, object]) -> None:
    """Write what a case wants the records to hold."""
    for name, value in before.items():
        ioc.write(name, value)


# ------------------------------------------------------------------ comparing

_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
_SECONDS = re.compile(r"(?<= {14})[ (]{0,12}[+-]\d+\.\d{6}")
_PORT = re.compile(r"(?<=    Host:             )(\S+):\d+")


def settled(text: str) -> str:
    """`text` with what no two runs have in common made equal, each by one of its own width.

    That is the digits of a stamp, of a difference of two, and of the server's port; nothing else.
    """
    text = _STAMP.sub("YYYY-MM-DD hh:mm:ss.uuuuuu", text)
    text = _SECONDS.sub(lambda match: f"{'<seconds>':>{len(match[0])}}", text)
    return _PORT.sub(r"\1:<port>", text)


def compare(case: Case, ours: Done, env: Mapping[str, str]) -> Done | None:
    """Hold what `epicsx` printed against what the C tool printed when it was recorded, byte for byte.

    Where the tool is installed it runs, too, and must print what was recorded. What it printed now is given back.
    """
    recorded = golden(case.words[0])[case.key]
    assert settled(ours.stdout.decode("latin-1")) == recorded["stdout"]
    words = command(case.words)
    if words is None:
        return None
    done = subprocess.run(words, capture_output=True, env={**os.environ, **env}, timeout=30.0)
    assert settled(done.stdout.decode("latin-1")) == recorded["stdout"]
    assert done.returncode == recorded["returncode"]
    return Done(done.returncode, done.stdout, done.stderr)


def golden(tool: str) -> dict[str, Any]:
    """What was recorded from a C tool, by command line."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{tool}.json").read_text(encoding="utf-8"))[
        "entries"
    ]
    return found


# ------------------------------------------------------------------ monitors


class Running(Written):
    """A C tool that runs, and what it has written so far."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        self.popen = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            # a background job of a shell ignores SIGINT, and its children inherit that
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self.errors = b""
        self._out = b""
        self._threads = [
            threading.Thread(target=each, daemon=True) for each in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while part := os.read(self.popen.stdout.fileno(), 65536):
            self._out += part

    def _read_errors(self) -> None:
        assert self.popen.stderr is not None
        self.errors = self.popen.stderr.read()

    @property
    def raw(self) -> bytes:
        """What it wrote on standard output."""
        return self._out

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send it a signal, by default what Ctrl-C sends, and give its return code back once it has ended."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        code = self.popen.wait(20.0)
        for thread in self._threads:
            thread.join(20.0)
        for pipe in (self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()
        return code


Monitor = Running | Forked

PATIENT = {"EPICS_CLI_TIMEOUT": "30"}
"""For those that do not say themselves how long they wait for a connection: the machine may be loaded."""


def reaches(case: Case, monitor: Monitor, lines: int, timeout: float = 30.0) -> None:
    """Wait until a monitor has written so many lines; a failure shows those that it has."""
    try:
        wait_until(monitor.has(lines), timeout)
    except AssertionError:
        what = f"{case.key}: {lines} lines are awaited"
        raise AssertionError(f"{what}, there are\n{monitor.out}{monitor.errors!r}") from None


@contextmanager
def running(
    cases: Sequence[Case],
    start: Callable[[Case, dict[str, str]], Monitor],
    env: Mapping[str, str],
) -> Iterator[list[Monitor]]:
    """Give the monitors of `cases`, each with its first lines printed; they are ended."""
    found: list[Monitor] = []
    try:
        for case in cases:
            found.append(start(case, {**PATIENT, **env}))
        for place, case in enumerate(cases):
            reaches(case, found[place], case.first, 60.0)
            # that so many begin at once may have taken longer than this one waits
            for seconds in (12.0, 48.0):
                if found[place].out.count("*** Not connected") <= case.absent:
                    break
                found[place].end(signal.SIGKILL)
                found[place] = start(case.waiting(seconds), {**PATIENT, **env})
                reaches(case, found[place], case.first, 60.0)
        yield found
    finally:
        for each in found:
            each.end(signal.SIGKILL)
