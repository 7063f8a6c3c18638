"""The soft IOC's own process: a Python program that runs EPICS base's IOC and obeys `SoftIOC`.

It is started as a file, never imported, and imports nothing of epicsx. The first line of standard
input is a JSON object: which databases, macros, access-security file and extra scan rates. Each
further line is a number, a blank and one command of the IOC shell. Whatever a command prints goes
to standard output between two marks that carry its number; the second also carries its result.

The process ends at the word `exit`, at the end of standard input (its parent is gone), or, on
Linux, by a signal of the kernel when its parent dies, which works even while it is stopped.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from typing import Any, NoReturn

# Run as a file, Python puts this folder first on the module path, where `ports` and others of
# ours would hide modules of the same name.
if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

PR_SET_PDEATHSIG = 1


def mark(kind: str, number: int, result: int = 0) -> None:
    """Write one mark to standard output, after all that C and Python have printed."""
    sys.stdout.flush()
    flush_c()
    os.write(1, b"\x1e%s %d %d\x1e\n" % (kind.encode(), number, result))


def flush_c() -> None:
    """Bring out what C's stdio holds back; standard output is a pipe, hence fully buffered."""
    library = "ucrtbase" if os.name == "nt" else None
    ctypes.CDLL(library).fflush(None)


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere end of input must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def fail(message: str) -> NoReturn:
    """Say why the IOC cannot start, in the answer to the start itself, and end."""
    sys.stdout.write(message + "\n")
    mark("end", 0, 1)
    os._exit(1)


def scan_menu(path: str, folder: str, rates: list[str]) -> None:
    """Write a scan menu with faster rates behind the standard ones, whose numbers stay."""
    with open(os.path.join(path, "menuScan.dbd"), encoding="utf-8") as file:
        text = file.read()
    known = set(re.findall(r'"([\d.]+) second"', text))
    extra = "".join(
        f'    choice(menuScan{rate.replace(".", "_")}_second, "{rate} second")\n'
        for rate in rates
        if rate not in known
    )
    end = text.rindex("}")
    with open(os.path.join(folder, "menuScan.dbd"), "w", encoding="utf-8") as file:
        file.write(text[:end] + extra + text[end:])


def start(config: dict[str, Any]) -> Any:
    """Load the databases and start the IOC; the module that runs shell commands."""
    try:
        from epicscorelibs import ioc  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        fail(f"cannot import epicscorelibs ({error}): pip install epicsx[test]")
    folder = config["folder"]
    standard = ioc.DEFAULT_DBD_PATH
    path = standard
    if config["scan_rates"]:
        scan_menu(standard, folder, config["scan_rates"])
        path = folder + os.pathsep + standard
    ioc.iocshRegisterCommon()
    if ioc.dbLoadDatabase(b"base.dbd", os.fsencode(path), None):
        fail(f"cannot load base.dbd from {standard}")
    if ioc.registerRecordDeviceDriver(ioc.pdbbase):
        fail("cannot register the record types of EPICS base")
    macros = config["macros"].encode("utf-8")
    if config["access_security"]:
        ioc.dbCore.asSetFilename(os.fsencode(config["access_security"]))
        ioc.dbCore.asSetSubstitutions(macros)
    for database in config["databases"]:
        if ioc.dbLoadRecords(os.fsencode(database), macros):
            ioc.Com.errlogFlush()
            fail(f"cannot load the database {database}")
    if ioc.iocInit():
        ioc.Com.errlogFlush()
        fail("iocInit failed")
    return ioc


def main() -> None:
    """Start, then run one command per line until told to exit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test, not for its IOC
    config = json.loads(sys.stdin.buffer.readline())
    if config["die_with"]:
        die_with_parent(config["die_with"])
    mark("begin", 0)
    ioc = start(config)
    ioc.Com.errlogFlush()
    mark("end", 0)
    for line in sys.stdin.buffer:
        number, _, command = line.rstrip(b"\r\n").partition(b" ")
        if command == b"exit":
            break
        mark("begin", int(number))
        result = ioc.iocshCmd(command)
        ioc.Com.errlogFlush()
        mark("end", int(number), result)
    # `epicscorelibs.ioc` has registered EPICS' own exit functions with atexit.


if __name__ == "__main__":
    main()
