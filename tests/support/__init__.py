"""Helpers of the test suite; `from support import ...` works in every test."""

from __future__ import annotations

from support.records import ELEMENT_TYPES, access_security, core_database
from support.subprocesses import Client, Result, finished, run_python, start_python
from support.waiting import (
    connected,
    idle,
    long_enough,
    posting,
    soon,
    takes,
    threads_settle,
    wait_until,
)

__all__ = [
    "ELEMENT_TYPES",
    "Client",
    "Result",
    "access_security",
    "connected",
    "core_database",
    "finished",
    "idle",
    "long_enough",
    "posting",
    "run_python",
    "soon",
    "start_python",
    "takes",
    "threads_settle",
    "wait_until",
]
