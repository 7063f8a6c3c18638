"""What the figures depend on: the machine, the versions, the settings."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from .source import MAX_ARRAY_BYTES, Ioc


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _ask(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "unknown"


def _real_time(pid: int) -> str:
    """Whether the IOC's threads run with real-time priority (field 41 of stat is the policy)."""
    try:
        stats = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return "unknown"
    policies = [int(s.rsplit(")", 1)[1].split()[38]) for s in stats]
    return f"{sum(p in (1, 2) for p in policies)} of {len(policies)} threads"


def describe(ioc: Ioc) -> dict[str, str]:
    """Facts to print above the table, by name."""
    allow = "EPICS_ALLOW_POSIX_THREAD_PRIORITY_SCHEDULING"
    setting = f"{allow}={os.environ[allow]}" if allow in os.environ else f"{allow} unset"
    library = "import epics; print(epics.ca.find_libca())"
    ours = (
        "import epicsx; i = epicsx.build_info(); print(i['linked'] + ', EPICS', i['libca_version'])"
    )
    packages = ("epicsx", "pyepics", "aioca", "epicscorelibs", "numpy")
    pyepics_libca = "/".join(Path(_ask(library)).parts[-4:])
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "libca of C and of the IOC": f"epicscorelibs {_version('epicscorelibs')}",
        "libca of pyepics": pyepics_libca,
        "libca of epicsx": _ask(ours),
        "EPICS_CA_MAX_ARRAY_BYTES": f"{MAX_ARRAY_BYTES}, the same for all",
        "real-time priority in the IOC": f"{_real_time(ioc.pid)} ({setting})",
    }
