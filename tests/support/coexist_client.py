"""One process with several libraries of EPICS: imports them in the order given, does I/O with each, twice, and ends.

Run as a file: ``coexist_client.py PREFIX ORDER...``, in the environment that `support.coexist` makes. PREFIX is that of
an IOC with the records `x`, an ao, and `w`, a waveform of 1 048 576 DOUBLE, full. For each library and round a line
`ok NAME` goes to standard output, at the end `end` and the seconds of time.monotonic.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

# Run as a file, Python puts this folder first on the module path.
if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

PREFIX = sys.argv[1]
ORDER = sys.argv[2:]
#: What this process' own IOC, softioc's, has; set when it runs.
OWN = ""


def same(found: Any, wanted: Any) -> None:
    """Fail if a library read another value than was written."""
    if found != wanted:
        raise AssertionError(f"{found!r} was read, {wanted!r} is there")


def use_epicsx() -> Callable[[float], None]:
    """Get and put a scalar, get 8 MB, hear of a change."""
    import threading

    import epicsx

    def use(value: float) -> None:
        with epicsx.Channel(PREFIX + "x") as x, epicsx.Channel(PREFIX + "w") as w:
            heard = threading.Event()
            x.connect(20.0)
            x.subscribe(lambda sample: heard.set() if sample.value == value else None)
            x.put(value, wait=True, timeout=20.0)
            same(x.get(timeout=20.0).value, value)
            same(heard.wait(20.0), True)
            array = w.get(timeout=20.0).value
            same((len(array), float(array[-1])), (1_048_576, 1_048_575.0))
        if OWN:
            with epicsx.Channel(OWN) as own:
                own.put(value, wait=True, timeout=20.0)
                same(own.get(timeout=20.0).value, value)

    return use


def use_pyepics() -> Callable[[float], None]:
    """Get and put with pyepics and its own libca."""
    import epics

    def use(value: float) -> None:
        pv = epics.PV(PREFIX + "x")
        same(pv.wait_for_connection(20.0), True)
        pv.put(value, wait=True, timeout=20.0)
        same(pv.get(timeout=20.0, use_monitor=False), value)
        same(len(epics.caget(PREFIX + "w", timeout=20.0)), 1_048_576)
        pv.disconnect()

    return use


def use_epicscorelibs() -> Callable[[float], None]:
    """Get with epicscorelibs' own libca, loaded for all to see: RTLD_GLOBAL."""
    import ctypes
    from concurrent.futures import ThreadPoolExecutor

    from epicscorelibs.path import get_lib  # type: ignore[import-not-found,unused-ignore]

    ctypes.CDLL(get_lib("Com"), ctypes.RTLD_GLOBAL)
    libca = ctypes.CDLL(get_lib("ca"), ctypes.RTLD_GLOBAL)
    libca.ca_pend_io.argtypes = [ctypes.c_double]

    def get() -> None:
        chid, got = ctypes.c_void_p(), ctypes.c_double()
        name = (PREFIX + "w").encode()
        same(libca.ca_create_channel(name, None, None, 0, ctypes.byref(chid)), 1)
        same(libca.ca_pend_io(20.0), 1)
        same(libca.ca_array_get(6, 1, chid, ctypes.byref(got)), 1)
        same(libca.ca_pend_io(20.0), 1)
        same(got.value, 0.0)
        same(libca.ca_clear_channel(chid), 1)
        libca.ca_context_destroy()

    def use(value: float) -> None:
        del value
        # a thread and so a context of its own: aioca has one in the main thread, and its libca is the same
        with ThreadPoolExecutor(1) as thread:
            thread.submit(get).result()

    return use


def use_aioca() -> Callable[[float], None]:
    """Get and put with aioca, which uses epicscorelibs' libca."""
    import asyncio

    import aioca

    async def both(value: float) -> None:
        await aioca.caput(PREFIX + "x", value, wait=True, timeout=20.0)
        same(float(await aioca.caget(PREFIX + "x", timeout=20.0)), value)
        same(len(await aioca.caget(PREFIX + "w", timeout=20.0)), 1_048_576)

    loop = asyncio.new_event_loop()  # one for both rounds: aioca's channels belong to a loop

    def use(value: float) -> None:
        loop.run_until_complete(both(value))
        if value == ROUNDS[-1]:
            loop.close()

    return use


def use_cothread() -> Callable[[float], None]:
    """Get and put with cothread, which uses epicscorelibs' libca."""
    from cothread import catools

    def use(value: float) -> None:
        catools.caput(PREFIX + "x", value, wait=True, timeout=20.0)
        same(float(catools.caget(PREFIX + "x", timeout=20.0)), value)
        same(len(catools.caget(PREFIX + "w", timeout=20.0)), 1_048_576)

    return use


def use_p4p() -> Callable[[float], None]:
    """Serve a PV by PVAccess, get and put it."""
    from p4p.client.thread import Context
    from p4p.nt import NTScalar
    from p4p.server import Server, StaticProvider
    from p4p.server.thread import SharedPV

    pv = SharedPV(nt=NTScalar("d"), initial=0.0)

    @pv.put  # type: ignore[untyped-decorator,unused-ignore]
    def on_put(pv: Any, operation: Any) -> None:
        pv.post(operation.value())
        operation.done()

    provider = StaticProvider("coexist")
    provider.add("coexist:x", pv)

    def use(value: float) -> None:
        # isolate: random ports of loopback
        with (
            Server(providers=[provider], isolate=True) as server,
            Context("pva", conf=server.conf(), useenv=False) as client,
        ):
            client.put("coexist:x", value, timeout=20.0)
            same(float(client.get("coexist:x", timeout=20.0)), value)

    return use


def use_softioc() -> Callable[[float], None]:
    """Serve a record by an IOC in this very process."""
    global OWN
    from softioc import asyncio_dispatcher, builder, softioc

    name = "OWN" + PREFIX.strip(":")
    builder.SetDeviceName(name)
    record = builder.aOut("x", initial_value=0.0)
    builder.LoadDatabase()
    softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher())
    OWN = name + ":x"

    def use(value: float) -> None:
        record.set(value)
        same(record.get(), value)

    return use


LIBRARIES: dict[str, Callable[[], Callable[[float], None]]] = {
    "epicsx": use_epicsx,
    "pyepics": use_pyepics,
    "epicscorelibs": use_epicscorelibs,
    "aioca": use_aioca,
    "cothread": use_cothread,
    "p4p": use_p4p,
    "softioc": use_softioc,
}
ROUNDS = (2.5, -7.25)

if __name__ == "__main__":
    uses = [(name, LIBRARIES[name]()) for name in ORDER]
    for value in ROUNDS:
        for name, use in uses:
            use(value)
            print("ok", name, flush=True)
    print("end", time.monotonic(), flush=True)
