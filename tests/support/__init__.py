"""Helpers of the test suite; `from support import ...` works in every test."""

from __future__ import annotations

from support.records import ELEMENT_TYPES, access_security, core_database
from support.subprocesses import Client, Result, finished, run_python, start_python
from support.waiting import idle, posting, takes, threads_settle, wait_until

__all__ = [
    "ELEMENT_TYPES",
    "Client",
    "Result",
    "access_security",
    "core_database",
    "finished",
    "idle",
    "posting",
    "run_python",
    "start_python",
    "takes",
    "threads_settle",
    "wait_until",
]
