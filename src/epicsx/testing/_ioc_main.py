"""The soft IOC's own process: a Python program that runs EPICS base's IOC and obeys `SoftIOC`.

It is started as a file, never imported, and imports nothing of epicsx. The first line of standard
input is a JSON object: which databases, macros, access-security file and extra scan rates. Each
further line is a number, a blank and one command of the IOC shell. Whatever a command prints goes
to standard output between two marks that carry its number; the second also carries its result.
A command that begins with @ is none of the shell's but one of `Puts`, for arrays that are too large for a line.

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
import threading
import time
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


class Puts:
    """The commands @play and @wait: puts in this process, without Channel Access, taken from a file.

    @play FILE
        FILE begins with a line of JSON: `rate`, frames a second, 0 for at once; `guard`, a record that must not be 0,
        or ''; `wait`, whether the command ends with the last frame; `frames`, each a list of puts (channel, type,
        count, offset). What a put writes stands behind the line, at the offset: `count` elements of the DBR_ type, a
        number of dbFldTypes.h.
        A put of type -1 sets a TIME field, which no put may: two uint32, seconds of EPICS' epoch and nanoseconds.
    @wait
        Ends with the last frame of the @play that did not wait.

    Both print how many frames were put. The thread of an unwaited @play ends with the process.
    """

    def __init__(self, ioc: Any) -> None:
        self.core = core = ioc.dbCore
        core.dbChannelCreate.restype = ctypes.c_void_p
        core.dbChannelCreate.argtypes = [ctypes.c_char_p]
        core.dbChannelOpen.argtypes = [ctypes.c_void_p]
        value = [ctypes.c_void_p, ctypes.c_short, ctypes.c_void_p]
        core.dbChannelPutField.argtypes = [*value, ctypes.c_long]
        core.dbChannelGetField.argtypes = [*value, *[ctypes.c_void_p] * 3]
        for function in (core.dbChannelOpen, core.dbChannelPutField, core.dbChannelGetField):
            function.restype = ctypes.c_long
        for function in (core.dbScanLock, core.dbScanUnlock):
            function.restype = None
            function.argtypes = [ctypes.c_void_p]
        self.channels: dict[str, int] = {}
        self.thread: threading.Thread | None = None
        self.done = 0
        self.failure = ""

    def run(self, command: str) -> int:
        """Carry out one command; 0, or 1 after printing what failed."""
        verb, _, path = command.partition(" ")
        if self.thread is not None and verb in ("@play", "@wait"):
            self.thread.join()
            self.thread = None
        if verb == "@play":
            with open(path, "rb") as file:
                plan = json.loads(file.readline())
                data = bytearray(file.read())
            self.done, self.failure = 0, ""
            if plan["wait"]:
                self.play(plan, data)
            else:
                self.thread = threading.Thread(target=self.play, args=(plan, data), daemon=True)
                self.thread.start()
        elif verb != "@wait":
            self.failure = f"no command {verb}"
        failed = self.failure
        sys.stdout.write(failed or f"{self.done}")
        return 1 if failed else 0

    def play(self, plan: dict[str, Any], data: bytearray) -> None:
        """Put all frames, each at its time."""
        buffer = (ctypes.c_char * len(data)).from_buffer(data)
        start = time.monotonic()
        try:
            for number, frame in enumerate(plan["frames"]):
                if plan["rate"]:
                    time.sleep(max(0.0, start + number / plan["rate"] - time.monotonic()))
                if plan["guard"] and not self.get(plan["guard"]):
                    continue
                for name, kind, count, offset in frame:
                    self.put(name, kind, count, ctypes.addressof(buffer) + offset)
                self.done += 1
        except (
            LookupError,
            OSError,
            ValueError,
        ) as error:  # the answer tells it: nobody else would
            self.failure = f"{type(error).__name__}: {error}"

    def channel(self, name: str) -> int:
        """The dbChannel of that name, made once."""
        found = self.channels.get(name)
        if found is None:
            found = self.core.dbChannelCreate(name.encode())
            if not found or self.core.dbChannelOpen(found):
                raise LookupError(f"no record has {name}")
            self.channels[name] = found
        return found

    def put(self, name: str, kind: int, count: int, at: int) -> None:
        """Put `count` elements at an address, as dbpf would: locked, and the record processes if it is Passive."""
        channel = self.channel(name)
        if kind >= 0:
            if status := self.core.dbChannelPutField(channel, kind, at, count):
                raise ValueError(f"put of {name} failed with status {status}")
            return
        # struct dbChannel begins with the name, then the dbAddr: first the record, then the field (dbChannel.h)
        _, record, field = ctypes.cast(channel, ctypes.POINTER(ctypes.c_void_p))[:3]
        self.core.dbScanLock(record)
        ctypes.memmove(field, at, 8)
        self.core.dbScanUnlock(record)

    def get(self, name: str) -> int:
        """The value of a record as an integer."""
        value, count = ctypes.c_int32(), ctypes.c_long(1)
        self.core.dbChannelGetField(
            self.channel(name), 5, ctypes.byref(value), None, ctypes.byref(count), None
        )
        return value.value


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
    puts = Puts(ioc)
    for line in sys.stdin.buffer:
        number, _, command = line.rstrip(b"\r\n").partition(b" ")
        if command == b"exit":
            break
        mark("begin", int(number))
        own = command.startswith(b"@")
        result = puts.run(command.decode()) if own else ioc.iocshCmd(command)
        ioc.Com.errlogFlush()
        mark("end", int(number), result)
    # `epicscorelibs.ioc` has registered EPICS' own exit functions with atexit.


if __name__ == "__main__":
    main()
