"""epicsx beside other libraries of EPICS in one process: the orders, and what a run of one gives.

Each of them brings a libca or libCom, of which two under the same names spoil each other, unless one is private, as
epicsx' is. The program that imports them is coexist_client.py.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from epicsx.testing import SoftIOC, free_port
from support.subprocesses import finished

DATABASE = """
record(ao, "$(P)x") { field(PREC, "3") }
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "1048576") }
"""
#: What each name of an order needs on the module path.
NEEDS = {
    "epicsx": "epicsx",
    "pyepics": "epics",
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
    # pyepics before aioca: after it, aioca loses its own answers, with and without epicsx
    ("softioc", "pyepics", "p4p", "aioca", "epicscorelibs", "epicsx"),
    ("epicsx", "epicscorelibs", "pyepics", "p4p", "aioca", "softioc"),
    ("cothread", "epicsx"),
    ("epicsx", "cothread"),
)
_CLIENT = Path(__file__).with_name("coexist_client.py")


def missing(order: Sequence[str]) -> list[str]:
    """Return the libraries of an order that are not installed."""
    return [name for name in order if importlib.util.find_spec(NEEDS[name]) is None]


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
    """

    order: tuple[str, ...]
    returncode: int | None
    did: list[str]
    seconds: float
    stderr: str

    @property
    def clean(self) -> bool:
        """Whether each library did what it was asked, twice, and the process ended with 0."""
        return self.returncode == 0 and self.did == [*self.order, *self.order]

    def __str__(self) -> str:
        how = {0: "clean" if self.clean else "incomplete", None: "hang"}
        return f"{', '.join(self.order)}: {how.get(self.returncode, self.returncode)}"


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
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Outcome:
    """Run a process that imports `order` and uses each, against an IOC that serves `DATABASE`, its `w` full.

    Parameters
    ----------
    order : sequence of str, of the names in `NEEDS`
    ioc : SoftIOC
    env : mapping of str to str, further environment, such as LD_PRELOAD
    timeout : float, seconds, after which the process is killed
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(_CLIENT), ioc.prefix, *order],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment(ioc), **(env or {})},
        text=True,
        errors="replace",
    )
    code, out, err, ended = finished(process, timeout)
    lines = [line.split() for line in out.splitlines()]
    did = [line[1] for line in lines if line[:1] == ["ok"] and len(line) == 2]
    began = [float(line[1]) for line in lines if line[:1] == ["end"]]
    return Outcome(tuple(order), code, did, ended - began[0] if began else float("nan"), err)
