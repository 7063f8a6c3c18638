"""Reducers: C functions on libca's own buffer; what may be one, and what they make."""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import posting, wait_until

import epicsx
from epicsx import BadTypeError, BadValueError, Channel, reducers, stream
from epicsx.testing import SoftIOC

ROOT = Path(__file__).resolve().parents[2]
DB = """
record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "1000") }
record(waveform, "$(P)c") { field(FTVL, "UCHAR") field(NELM, "10000") }
"""
SOURCE = """
#include "epicsx_reducer.h"
int last_of(const epicsx_frame *frame, void *state, double *results, size_t room)
{
    const double *v = (const double *)frame->values;
    if (!frame->count)
        return -1;
    results[0] = v[frame->count - 1];
    if (room > 1)
        results[1] = state ? *(double *)state : -1;
    return room > 1 ? 2 : 1;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("reducer")
    source, made = folder / "r.c", folder / "r.so"
    source.write_text(SOURCE)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-I{ROOT / 'include'}", "-o", str(made), str(source)],
        check=True,
    )
    return ctypes.CDLL(str(made))


@pytest.fixture
def w(spare_ioc: Callable[..., SoftIOC]) -> Any:
    return spare_ioc(DB)


def results(w: SoftIOC, name: str, reduce: Any, values: np.ndarray[Any, Any]) -> Any:
    with Channel(w[name]) as channel:
        channel.put(values, wait=True)
        with stream(w[name], reduce=reduce) as source:
            return source.read(20.0).data.copy()


def test_those_that_ship_with_epicsx(w: SoftIOC) -> None:
    values = np.arange(1000.0)
    assert results(w, "w", reducers.mean(), values) == [499.5]
    assert results(w, "w", reducers.minmax(), values).tolist() == [0.0, 999.0]
    assert results(w, "w", reducers.threshold(10, 19.5), values) == [10]
    assert results(w, "w", reducers.threshold(low=990), values) == [10]
    assert results(w, "w", reducers.decimate(100), values).tolist() == list(range(0, 1000, 100))
    picture = np.arange(10_000).astype(np.uint8)
    region = picture.reshape(100, 100)[3:7, 10:20]
    found = results(w, "c", reducers.roi_sum(100, rows=(3, 7), columns=(10, 20)), picture)
    assert found == [region.sum(dtype=float)]
    assert results(w, "c", reducers.mean(), picture) == [picture.mean()]


def test_every_frame_has_its_result_and_stamp(w: SoftIOC) -> None:
    with Channel(w["w"]) as channel, stream(w["w"], reduce=reducers.mean()) as source:
        source.read(20.0)
        posting(w["w"])
        for number in range(10):
            channel.put(np.full(1000, float(number)), wait=True)
            frame = source.read(20.0)
            assert frame.data.tolist() == [number]
            assert frame.timestamp_ns == channel.get().timestamp_ns
            assert frame.index == number + 1
        ledger = source.ledger
        assert (ledger.received, ledger.delivered) == (11, 11)
        assert ledger.bytes == 10 * 8000
        del frame


def test_a_function_of_a_loaded_library(w: SoftIOC, library: ctypes.CDLL) -> None:
    assert results(w, "w", library.last_of, np.arange(7.0)) == [6.0]
    state = ctypes.c_double(5.5)
    reducer = reducers.custom(library.last_of, results=2, state=state)
    del state  # the reducer keeps it
    assert results(w, "w", reducer, np.arange(7.0)).tolist() == [6.0, 5.5]
    address = ctypes.c_double(4.0)
    reducer = reducers.custom(library.last_of, 2, state=ctypes.addressof(address))
    assert results(w, "w", reducer, np.arange(3.0)).tolist() == [2.0, 4.0]


def test_a_frame_of_which_nothing_is_wanted_counts_as_merged(
    w: SoftIOC, library: ctypes.CDLL
) -> None:
    with Channel(w["w"]) as channel, stream(w["w"], reduce=library.last_of) as source:
        wait_until(lambda: source.ledger.received == 1)
        posting(w["w"])
        channel.put(np.arange(3.0), wait=True)
        assert source.read(20.0).data.tolist() == [2.0]
        ledger = source.ledger
        assert (ledger.received, ledger.merged, ledger.delivered) == (2, 1, 1)


def test_a_capsule(w: SoftIOC, library: ctypes.CDLL) -> None:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    address = ctypes.cast(library.last_of, ctypes.c_void_p).value
    name = b"int (struct epicsx_frame const *, void *, double *, size_t)"
    assert results(w, "w", new(address, name, None), np.arange(4.0)) == [3.0]
    with pytest.raises(BadValueError, match="the capsule has the name 'void"):
        reducers.custom(new(address, b"void (void)", None))
    with pytest.raises(BadValueError, match="no name"):
        reducers.custom(new(address, None, None))


def test_a_numba_cfunc(w: SoftIOC) -> None:
    numba = pytest.importorskip("numba")
    types = numba.types
    signature = types.int32(
        types.CPointer(types.int64), types.voidptr, types.CPointer(types.float64), types.size_t
    )

    def count(frame: Any, state: Any, out: Any, room: Any) -> int:
        out[0] = frame[1]  # the number of elements
        return 1

    compiled = numba.cfunc(signature)(count)
    assert results(w, "w", compiled, np.arange(9.0)) == [9.0]


def test_what_is_no_reducer(library: ctypes.CDLL) -> None:
    kind = ctypes.CFUNCTYPE(ctypes.c_int)
    for bad in (
        kind(lambda: 1),
        12345,
        len,
        "mean",
        None,
        kind(("last_of", library)),
        ctypes.pythonapi.PyList_New,
    ):
        with pytest.raises(BadTypeError):
            reducers.custom(bad)
    with pytest.raises(BadTypeError, match="CFUNCTYPE"):
        stream("any", reduce=kind(lambda: 1))
    calls: list[Callable[[], Any]] = [
        lambda: reducers.custom(library.last_of, results=0),
        lambda: reducers.custom(library.last_of, results=2**61),
        lambda: reducers.decimate(0),
        lambda: reducers.threshold(2, 1),
        lambda: reducers.threshold(float("nan"), 1),
        lambda: reducers.roi_sum(0, (0, 1), (0, 1)),
        lambda: reducers.roi_sum(10, (3, 1), (0, 1)),
        lambda: reducers.roi_sum(10, (-1, 1), (0, 1)),
    ]
    for call in calls:
        with pytest.raises(BadValueError):
            call()
    with pytest.raises(BadTypeError, match="state"):
        reducers.custom(library.last_of, state="text")
    assert isinstance(reducers.mean(), epicsx.reducers.Reducer)
