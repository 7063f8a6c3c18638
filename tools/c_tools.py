"""The C tools caget, caput, camonitor and cainfo, for the tests that compare `epicsx` with them.

    python tools/c_tools.py [FOLDER]        fetch them into FOLDER, by default build/c-tools
    python tools/c_tools.py --remove

They come from Debian 13 (trixie), package epics-base, with the libraries that they need, their own libc among them; so
they run on any Linux of that processor, and nothing is installed. apt fetches and checks the packages: it is needed,
with a Debian mirror among its sources, and the keys of Debian (package debian-archive-keyring).

The tests use what they find here, or in the folder that EPICSX_C_TOOLS names, such as a site's own
$EPICS_BASE/bin/linux-x86_64; else they compare with what was recorded from these tools.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import debian

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "c-tools"
SUITE = "trixie"
PACKAGE = "epics-base"
TOOLS = ("caget", "caput", "camonitor", "cainfo")
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def command(tool: str, folder: Path = FOLDER) -> list[str] | None:
    """The words that start a tool; None where there is none."""
    if given := os.environ.get("EPICSX_C_TOOLS"):
        path = Path(given) / tool
        return [str(path)] if path.is_file() else None
    usr = folder / "root" / "usr"
    path = usr / "bin" / tool
    loaders = sorted((usr / "lib").glob("*/ld-linux*.so.*"))
    if not path.is_file() or not loaders:
        return None
    # by their own loader, with their own libraries alone
    return [str(loaders[0]), "--library-path", str(loaders[0].parent), str(path)]


def release(folder: Path = FOLDER) -> str:
    """The EPICS release of the tools, as caget -V tells it."""
    words = command("caget", folder)
    if words is None:
        raise SystemExit("there are no C tools: python tools/c_tools.py fetches them")
    told = subprocess.run([*words, "-V"], check=True, capture_output=True, text=True).stdout
    return told.strip().split(",")[0].removeprefix("EPICS Version ")


def mirror() -> str:
    """The Debian mirror that this machine's apt uses."""
    form = "$(ORIGIN)|$(REPO_URI)"
    for line in debian.run("apt-get", "indextargets", "--format", form).splitlines():
        origin, _, uri = line.partition("|")
        if origin == "Debian" and "security" not in uri:
            return uri
    raise SystemExit("apt knows no Debian mirror here: name one with --mirror")


def fetch(folder: Path, source: str) -> None:
    """Fetch the tools, with all the libraries that they need."""
    if not KEYS.is_file():
        raise SystemExit(f"{KEYS} is missing: it is in Debian's package debian-archive-keyring")
    debian.fetch(folder, [PACKAGE], f"deb [signed-by={KEYS}] {source} {SUITE} main")


def main() -> int:
    """Fetch the tools and tell which they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--mirror", help="the Debian mirror (default: that of this machine's apt)")
    parser.add_argument("--remove", action="store_true", help="remove the folder")
    options = parser.parse_args()
    if options.remove:
        shutil.rmtree(options.folder, ignore_errors=True)
        return 0
    fetch(options.folder, options.mirror or mirror())
    sys.stdout.write(f"{release(options.folder)}: {', '.join(TOOLS)} in {options.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
