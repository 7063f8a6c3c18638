"""One process with several libraries of EPICS: imports them in the order given, does I/O with each, twice, and ends.

Run as a file: ``coexist_client.py PREFIX ORDER...``, in the environment that `support.coexist` makes. PREFIX is that of
an IOC with the records `x`, an ao, and `w`, a waveform of 1 048 576 DOUBLE, full. For each library and round a line
`ok NAME` goes to standard output; then `report` and JSON of what the process has loaded, `Report` in coexist.py; at the
end `end` and the seconds of time.monotonic.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
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
#: Bytes that the heap grew while epicsx got 8 MB, at each round.
GREW: list[int] = []


def same(found: Any, wanted: Any) -> None:
    """Fail if a library read another value than was written."""
    if found != wanted:
        raise AssertionError(f"{found!r} was read, {wanted!r} is there")


def mapped() -> set[str]:
    """Return the files of which this process has code or data mapped."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        fields = [line.rstrip("\n").split(maxsplit=5) for line in lines]
    return {each[5] for each in fields if len(each) == 6 and each[5].startswith("/")}


def heap() -> int:
    """Return the bytes that a preloaded jemalloc or tcmalloc counts as given out; 0 if malloc is libc's."""
    process = ctypes.CDLL(None)
    size = ctypes.c_size_t()
    if hasattr(process, "mallctl"):
        epoch, length = ctypes.c_uint64(1), ctypes.c_size_t(8)
        # its figures stand still until this is written
        same(process.mallctl(b"epoch", None, None, ctypes.byref(epoch), length), 0)
        wanted = ctypes.byref(size), ctypes.byref(length)
        same(process.mallctl(b"stats.allocated", *wanted, None, ctypes.c_size_t(0)), 0)
    elif hasattr(process, "MallocExtension_GetNumericProperty"):
        name = b"generic.current_allocated_bytes"
        same(process.MallocExtension_GetNumericProperty(name, ctypes.byref(size)), 1)
    return size.value


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
            gc.collect()  # so that nothing of the others goes meanwhile
            before = heap()
            array = w.get(timeout=20.0).value
            GREW.append(heap() - before)
            same((len(array), float(array[-1])), (1_048_576, 1_048_575.0))
        if OWN:
            with epicsx.Channel(OWN) as own:
                own.put(value, wait=True, timeout=20.0)
                same(own.get(timeout=20.0).value, value)

    return use


def use_pyepics() -> Callable[[float], None]:
    """Get and put with pyepics: with its own libca, or with epicscorelibs' where another library has imported that."""
    import epics

    def use(value: float) -> None:
        pv = epics.PV(PREFIX + "x")
        same(pv.wait_for_connection(20.0), True)
        pv.put(value, wait=True, timeout=20.0)
        same(pv.get(timeout=20.0, use_monitor=False), value)
        same(len(epics.caget(PREFIX + "w", timeout=20.0)), 1_048_576)
        pv.disconnect()

    return use


def use_pyepics_own() -> Callable[[float], None]:
    """Get and put with pyepics and its own libca, also where pyepics would take epicscorelibs'."""
    from importlib.resources import files

    from epics.ca import clib_search_path

    # pyepics 3.5.10 reads it at its first use: epics/ca.py, find_lib
    os.environ["PYEPICS_LIBCA"] = str(files("epics.clibs").joinpath(clib_search_path("ca")))
    return use_pyepics()


def use_epicscorelibs() -> Callable[[float], None]:
    """Get with epicscorelibs' own libca, loaded for all to see: RTLD_GLOBAL."""
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
    "pyepics-own": use_pyepics_own,
    "epicscorelibs": use_epicscorelibs,
    "aioca": use_aioca,
    "cothread": use_cothread,
    "p4p": use_p4p,
    "softioc": use_softioc,
}
ROUNDS = (2.5, -7.25)


def bound(name: str, files: set[str]) -> str:
    """Return the libca, or libCom where it needs no more, that a library has loaded; empty if there is none."""
    if name == "epicsx":
        import epicsx

        return epicsx.build_info()["libca_path"]
    if name.startswith("pyepics"):
        import epics

        return str(epics.ca.libca._name)
    if name == "aioca":
        from epicscorelibs.ca import cadef

        return str(cadef.libca._name)
    if name == "cothread":
        import cothread.cadef

        return str(cothread.cadef.libca._name)
    from epicscorelibs.path import get_lib

    if name == "epicscorelibs":
        return str(get_lib("ca"))
    # the dynamic linker found it for p4p's and softioc's own compiled files
    found = os.path.realpath(get_lib("Com"))
    return found if found in {os.path.realpath(each) for each in files} else ""


def report() -> dict[str, object]:
    """Return what this process has loaded: `Report` in coexist.py."""
    files = mapped()
    names = {name: bound(name, files) for name in ORDER}
    mode = ""
    if "epicsx" in ORDER:
        import epicsx

        mode = epicsx.build_info()["mode"]
    return {
        "mode": mode,
        "bound": {name: path and os.path.realpath(path) for name, path in names.items()},
        "mapped": sorted({os.path.realpath(each) for each in files if LIBRARY.search(each)}),
        "grew": max(GREW, default=0),
    }


#: What a libca, a libCom and a preloaded allocator are called.
LIBRARY = re.compile(r"/lib(ca|Com(PYEPICS)?|jemalloc|tcmalloc)[-._][^/]*$")


if __name__ == "__main__":
    uses = [(name, LIBRARIES[name]()) for name in ORDER]
    for value in ROUNDS:
        for name, use in uses:
            use(value)
            print("ok", name, flush=True)
    print("report", json.dumps(report()), flush=True)
    print("end", time.monotonic(), flush=True)
