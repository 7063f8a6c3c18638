"""The environment of a process under a build with sanitizers: `python sanitizers.py FOLDER ARGUMENTS OF PYTHON...`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# Our modules are loaded by an interpreter that was not built so: the run-time library must be there first, and Python
# shall not hide single objects in arenas of its own. Leaks are counted by tests/leaks instead: an interpreter that ends
# leaves much, and so does libca, whose context may be abandoned at exit. A server may ask for memory that there is not.
ASAN = "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=4000"
UBSAN = "print_stacktrace=1:halt_on_error=1"


def environment(build: str = "") -> dict[str, str]:
    """The variables of this process without EPICS' own, for a build of epicsx in a folder.

    With sanitizers if that build's libca has them.
    """
    env = {name: text for name, text in os.environ.items() if not name.startswith("EPICS")}
    env.pop("PYTHONWARNINGS", None)
    folder = Path(build) if build else ROOT / "src"
    env["PYTHONPATH"] = os.pathsep.join((str(folder.resolve()), str(ROOT / "tests")))
    if sanitized(folder):
        found = [_library(name) for name in ("libasan.so", "libubsan.so")]
        env["LD_PRELOAD"] = " ".join(filter(None, found))
        env["PYTHONMALLOC"] = "malloc"
        env["ASAN_OPTIONS"] = ASAN
        env["UBSAN_OPTIONS"] = UBSAN
    return env


def sanitized(folder: Path) -> bool:
    """Whether the build in this folder has AddressSanitizer in it."""
    return any(b"__asan_init" in path.read_bytes() for path in folder.glob("epicsx/_ca.*.so"))


def _library(name: str) -> str:
    """The path of gcc's run-time library of that name."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        return ""
    path = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
    return path if os.path.isabs(path) else ""


if __name__ == "__main__":
    os.execve(sys.executable, [sys.executable, *sys.argv[2:]], environment(sys.argv[1]))
