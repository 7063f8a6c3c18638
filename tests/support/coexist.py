"""epicsx beside other libraries of EPICS in one process: the orders, and what a run of one gives.

Each of them brings a libca or libCom, of which two under the same names spoil each other, unless one is private, as
epicsx' is. The program that imports them is coexist_client.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from epicsx.testing import SoftIOC, free_port
from support.subprocesses import finished, run_python

DATABASE = """
record(ao, "$(P)x") { field(PREC, "3") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "1048576") }
"""
#: What each name of an order needs on the module path.
NEEDS = {
    "epicsx": "epicsx",
    "pyepics": "epics",
    "pyepics-own": "epics",
    "epicscorelibs": "epicscorelibs",
    "aioca": "aioca",
    "cothread": "cothread",
    "p4p": "p4p",
    "softioc": "softioc",
}
_OTHERS = ("epicscorelibs", "aioca", "p4p", "softioc", "pyepics")
#: epicsx alone; before and after each of the others; all of them in two orders; and the same with cothread.
ORDERS: tuple[tuple[str, ...], ...] = (
    ("epicsx",),
    *((each, "epicsx") for each in _OTHERS),
    *(("epicsx", each) for each in _OTHERS),
    # pyepics before aioca, whose libca it takes: else aioca loses its answers, with and without epicsx
    ("softioc", "pyepics", "p4p", "aioca", "epicscorelibs", "epicsx"),
    ("epicsx", "epicscorelibs", "pyepics", "p4p", "aioca", "softioc"),
    ("cothread", "epicsx"),
    ("epicsx", "cothread"),
)
#: Orders without epicsx, most of which do not work: docs/coexistence.md.
CONTROLS: tuple[tuple[str, ...], ...] = (
    ("aioca", "pyepics"),
    ("pyepics", "aioca"),
    ("softioc", "pyepics", "aioca"),
    ("aioca", "pyepics-own"),
    ("pyepics-own", "aioca"),
    ("softioc", "pyepics-own"),
    ("epicscorelibs", "pyepics-own"),
)
_CLIENT = Path(__file__).with_name("coexist_client.py")


def missing(order: Sequence[str]) -> list[str]:
    """Return the libraries of an order that are not installed."""
    return [name for name in order if importlib.util.find_spec(NEEDS[name]) is None]


#: What a library says on standard error while it dies. Warnings of Python and of CA are not among it.
_COMPLAINT = re.compile(
    r"corrupt|abort|double free|free\(\)|munmap_chunk|malloc|invalid (?:pointer|next|size|old size)"
    r"|segmentation|fatal|assert|traceback|terminate called|pure virtual|ld\.so:",
    re.IGNORECASE,
)
#: Bytes of the waveform that epicsx gets.
ARRAY = 8 * 1048576


@dataclass(frozen=True)
class Report:
    """What a process with several libraries had loaded at its end.

    Attributes
    ----------
    mode : str, that of epicsx.build_info(); empty where epicsx is not in the order
    bound : dict of str to str, the libca of each library; of p4p and softioc, which need no libca, their libCom
    mapped : list of str, every libca, libCom and preloaded allocator that is mapped
    grew : int, bytes by which the preloaded allocator's count rose while epicsx got 8 MB; 0 with libc's malloc

    All files are given as where their links lead.
    """

    mode: str
    bound: dict[str, str]
    mapped: list[str]
    grew: int


@dataclass(frozen=True)
class Outcome:
    """How a process with several libraries ended.

    Attributes
    ----------
    order : tuple of str
    returncode : int or None, negative if a signal ended it, None if it hung and was killed
    did : list of str, which library did its input and output, in order
    seconds : float, from the end of its program to the end of the process; nan if it did not get there
    stderr : str
    report : Report or None, if it did not get there
    preload : str, the allocator that it was to use; empty for libc's
    """

    order: tuple[str, ...]
    returncode: int | None
    did: list[str]
    seconds: float
    stderr: str
    report: Report | None
    preload: str = ""

    @property
    def clean(self) -> bool:
        """Whether each library did what it was asked, twice, and the process ended with 0 and without a complaint."""
        whole = self.did == [*self.order, *self.order] and self.report is not None
        return self.returncode == 0 and whole and not self.complaints

    @property
    def complaints(self) -> list[str]:
        """The lines of standard error that tell of a heap or a process that broke."""
        return [line for line in self.stderr.splitlines() if _COMPLAINT.search(line)]

    @property
    def shared(self) -> list[str]:
        """What is wrong with the libca of each, in words: epicsx shall have its own, and the others theirs."""
        if (found := self.report) is None:
            return []
        wrong = [f"{name} has loaded no libca" for name in self.order if not found.bound[name]]
        own = found.bound.get("epicsx", "")
        if own and found.mode not in ("bundled", "hardened"):
            wrong.append(f"epicsx has no libca of its own, but uses {own}")
        for name, path in found.bound.items():
            if path and path not in found.mapped:
                wrong.append(f"{path} of {name} is not mapped")
            if name != "epicsx" and own and os.path.dirname(path) == os.path.dirname(own):
                wrong.append(f"epicsx uses the files of {name}: {path}")
        if set(self.order) <= {"epicsx", "pyepics", "pyepics-own"}:
            pyepics = next((found.bound[name] for name in self.order if name != "epicsx"), "")
            if pyepics and "/epics/clibs/" not in pyepics:
                wrong.append(f"pyepics does not use its own libca, but {pyepics}")
        return wrong

    @property
    def unused(self) -> list[str]:
        """What tells that the allocator to be preloaded was not in use, in words."""
        if (found := self.report) is None or not self.preload:
            return []
        wrong = []
        if os.path.realpath(self.preload) not in found.mapped:
            wrong.append(f"{self.preload} is not mapped")
        if "epicsx" in self.order and found.grew < ARRAY:
            wrong.append(f"{self.preload} counts {found.grew} bytes for an array of {ARRAY}")
        return wrong

    def __str__(self) -> str:
        signal_ = -(self.returncode or 0)
        how = "hang" if self.returncode is None else f"return code {self.returncode}"
        if signal_ > 0:
            how = signal.Signals(signal_).name
        elif self.returncode == 0:
            how = "clean" if self.clean else (self.complaints or ["incomplete"])[0]
        return f"{', '.join(self.order)}: {how}"


def environment(ioc: SoftIOC) -> dict[str, str]:
    """Return the environment of one process that also serves, on ports of its own on loopback."""
    port = free_port()
    return {
        **ioc.env,
        "EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.server_port} 127.0.0.1:{port}",
        "EPICS_CAS_SERVER_PORT": str(port),
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_SERVER_PORT": str(free_port()),
        "EPICS_PVAS_BROADCAST_PORT": str(free_port()),
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }


def run(
    order: Sequence[str],
    ioc: SoftIOC,
    *,
    preload: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Outcome:
    """Run a process that imports `order` and uses each, against an IOC that serves `DATABASE`, its `w` full.

    Parameters
    ----------
    order : sequence of str, of the names in `NEEDS`
    ioc : SoftIOC
    preload : str, the file of an allocator, for LD_PRELOAD
    env : mapping of str to str, further environment, such as PYTHONPATH
    timeout : float, seconds, after which the process is killed
    """
    loader = {"LD_PRELOAD": preload} if preload else {}
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(_CLIENT), ioc.prefix, *order],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment(ioc), **loader, **(env or {})},
        text=True,
        errors="replace",
    )
    code, out, err, ended = finished(process, timeout)
    lines = [line.partition(" ") for line in out.splitlines()]
    did = [rest for word, _, rest in lines if word == "ok"]
    told = [Report(**json.loads(rest)) for word, _, rest in lines if word == "report"]
    began = [float(rest) for word, _, rest in lines if word == "end"]
    seconds = ended - began[0] if began else float("nan")
    return Outcome(tuple(order), code, did, seconds, err, told[0] if told else None, preload)


def fill(ioc: SoftIOC) -> None:
    """Write `w` of an IOC that serves `DATABASE`, from a process of its own: element n is n."""
    script = """
        import sys
        import epicsx, numpy as np
        with epicsx.Channel(sys.argv[1]) as w:
            w.put(np.arange(float(sys.argv[2])), wait=True, timeout=20.0)
    """
    run_python(script, ioc["w"], str(ARRAY // 8), env=ioc.env)
