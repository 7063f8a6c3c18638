"""Reducers: C functions that see each frame in libca's own buffer, before any copy, and make a few numbers of it.

Pass one as ``epicsx.stream(name, reduce=...)``; the stream has the results (float64) in the frames' place. Those here
are written in C and ship with epicsx; your own may be a Cython function's capsule, a ``numba.cfunc`` or a function of a
loaded ``ctypes.CDLL``, of the signature in ``include/epicsx_reducer.h``::

    int f(const epicsx_frame *frame, void *state, double *results, size_t room);

It runs in libca's receive thread, without the GIL and under libca's callback lock: it must neither call Python or libca
nor block. It returns how many results it made, or a negative number for none of this frame (counted as ``merged``).

Threads
    Everything here may be called from any thread; what it makes is read only.
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import _stream
from ._stream import Reducer
from .errors import BadTypeError, BadValueError

__all__ = ["Reducer", "custom", "decimate", "mean", "minmax", "roi_sum", "threshold"]

MOST_RESULTS = 2**24
_WITH_PYTHON = ctypes.pythonapi._FuncPtr._flags_ & ~ctypes.CDLL(None)._FuncPtr._flags_
_FUNCTION: type[Any] = ctypes.CFUNCTYPE(None).__mro__[1]  # the class of all of ctypes' functions


def mean() -> Reducer:
    """The mean of all elements: 1 result, NaN for an empty frame."""
    return _stream.known_reducer("mean", 1)


def minmax() -> Reducer:
    """The least and the greatest element: 2 results, NaN for an empty frame. NaNs are passed over."""
    return _stream.known_reducer("minmax", 2)


def roi_sum(width: int, rows: tuple[int, int], columns: tuple[int, int]) -> Reducer:
    """The sum over a region of a picture: 1 result.

    Parameters
    ----------
    width : int
        Elements of a row.
    rows, columns : (int, int)
        First and one past the last, as in a slice. What lies outside of a frame adds nothing.
    """
    if not _is_number(width):
        raise BadValueError(f"a width is a number of elements of at least 1, not {width!r}")
    for what, (first, end) in (("rows", rows), ("columns", columns)):
        if not 0 <= first <= end:
            raise BadValueError(
                f"{what} are (first, end) with 0 <= first <= end, not {(first, end)}"
            )
    return _stream.known_reducer(
        "roi_sum", 1, width=width, y0=rows[0], y1=rows[1], x0=columns[0], x1=columns[1]
    )


def threshold(low: float = float("-inf"), high: float = float("inf")) -> Reducer:
    """How many elements are within ``low <= x <= high``: 1 result."""
    if not low <= high:
        raise BadValueError(f"low must not be above high: {low} > {high}")
    return _stream.known_reducer("threshold", 1, low=low, high=high)


def decimate(every: int) -> Reducer:
    """Each `every`-th element, the first included, as float64: a preview of the frame."""
    if not _is_number(every):
        raise BadValueError(f"every is a number of elements of at least 1, not {every!r}")
    return _stream.known_reducer("decimate", 0, every=every)


def custom(function: Any, results: int = 1, state: Any = None) -> Reducer:
    """A C function of your own.

    Parameters
    ----------
    function
        A PyCapsule named ``'int (struct epicsx_frame const *, void *, double *, size_t)'``, a ``numba.cfunc`` of four
        arguments, or a function of a loaded ``ctypes.CDLL``.
    results : int
        How many results it makes at most.
    state : None, an int address, or a ctypes object
        What it gets as its second argument; a ctypes object is kept alive, and its address passed.

    Raises
    ------
    BadTypeError
        For a bare number, and for a CFUNCTYPE object, which would run Python in libca's thread.
    BadValueError
        For a capsule or a cfunc of another signature.
    """
    if not _is_number(results) or results > MOST_RESULTS:
        raise BadValueError(f"results is a number from 1 to {MOST_RESULTS}, not {results!r}")
    address, name = _address_of(function)
    where = 0
    if isinstance(state, int) and not isinstance(state, bool):
        where = state
    elif state is not None:
        try:
            where = ctypes.addressof(state)
        except TypeError:
            raise BadTypeError("a reducer's state is an address or a ctypes object") from None
    return _stream.address_reducer(address, results, where, (function, state), name)


def as_reducer(given: Any) -> Reducer:
    """`given` itself, or the reducer of one result that it is the C function of."""
    return given if isinstance(given, Reducer) else custom(given)


def _is_number(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _address_of(function: Any) -> tuple[int, str]:
    kind = type(function)
    if kind.__name__ == "PyCapsule":
        return _stream.capsule_address(function), "of a capsule"
    if kind.__module__.split(".", 1)[0] == "numba" and hasattr(function, "address"):
        arguments = getattr(getattr(function, "_sig", None), "args", (None,) * 4)
        if len(arguments) != 4:
            raise BadValueError(f"a reducer has four arguments, this cfunc {len(arguments)}")
        return int(function.address), str(getattr(function, "native_name", "of numba"))
    if isinstance(function, _FUNCTION):
        # A function of a CDLL is of a class made by that library, and knows its name; one from CFUNCTYPE does not.
        if (
            kind.__qualname__.startswith("CDLL.__init__")
            and hasattr(function, "__name__")
            and not kind._flags_ & _WITH_PYTHON
        ):
            address = ctypes.cast(function, ctypes.c_void_p).value
            if address:
                return address, function.__name__
        raise BadTypeError(
            "a CFUNCTYPE object would run Python in libca's thread: "
            "a reducer is a capsule, a numba.cfunc or a function of a loaded CDLL"
        )
    raise BadTypeError(
        f"a reducer is a capsule, a numba.cfunc or a function of a loaded CDLL, not {function!r}"
    )
