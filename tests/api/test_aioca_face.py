"""aioca's documented behaviour, under aioca and under epicsx.aio: each check of aioca_face.py by itself.

In processes of their own, because aioca brings another libca, which would go on living in the test process.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epicsx.testing import SoftIOC

PROGRAM = Path(__file__).with_name("aioca_face.py")
CHECKS = [
    node.name
    for node in ast.parse(PROGRAM.read_text(encoding="utf-8")).body
    if isinstance(node, ast.AsyncFunctionDef) and node.decorator_list
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("library", ["epicsx.aio", "aioca"])
def test_as_documented(
    library: str, check: str, ioc: SoftIOC, free_port: Callable[[], int]
) -> None:
    if library == "aioca" and importlib.util.find_spec("aioca") is None:
        pytest.skip("aioca is not installed: pip install 'epicsx[test]'")
    spare = free_port()  # for an IOC of the check's own
    seen = f"{os.environ['EPICS_CA_ADDR_LIST']} 127.0.0.1:{spare}"
    ports = (str(spare), os.environ["EPICS_CA_REPEATER_PORT"])
    warnings = ["-W", "error"] if library == "epicsx.aio" else []
    command = [sys.executable, *warnings, "-X", "faulthandler", str(PROGRAM), library, check]
    done = subprocess.run(
        [*command, ioc.prefix, *ports],
        env={**os.environ, "EPICS_CA_ADDR_LIST": seen},
        capture_output=True,
        text=True,
        timeout=45,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "as documented\n"
    if library == "epicsx.aio":
        assert done.stderr == ""
