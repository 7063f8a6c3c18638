"""Try what a user or a packager would: each way of installing, in an empty virtual environment.

    python tools/check_packaging.py [wheel] [editable] [base] [system]

Nothing but this folder and PyPI is used. Each way must give a package that imports, says how it
was linked, has numpy as its only requirement, and brings a caRepeater that runs. Without arguments
all but ``system`` are tried, as that one needs libca installed in the system.
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
import venv
from collections.abc import Mapping
from pathlib import Path

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


class Failed(Exception):
    """One way of installing did not give what it promises."""


def say(text: str) -> None:
    """Tell the reader what is going on."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(
    *args: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Run a program; its output, or Failed with it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS", "PYTHON"))}
    done = subprocess.run(
        [str(a) for a in args],
        env={**env, **(environ or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, args))}\n{done.stdout[-4000:]}")
    return done.stdout


def check(condition: bool, what: str) -> None:
    """Raise Failed unless the condition holds."""
    if not condition:
        raise Failed(what)


def fresh(work: Path, name: str) -> Path:
    """The python of a new, empty virtual environment."""
    folder = work / f"venv-{name}"
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def pip(python: Path, *args: str | Path, **environ: str) -> None:
    """Install something into that environment."""
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *args, environ=environ)


def source_tree(work: Path) -> Path:
    """A copy of the sources without anything that an earlier build has left."""
    tree = work / "tree"
    leave = shutil.ignore_patterns(
        ".git",
        ".venv",
        "build",
        "dist",
        "*.so",
        "lib",
        "bin",
        "__pycache__",
        "*.egg-info",
        ".*_cache",
    )
    shutil.copytree(ROOT, tree, ignore=leave)
    return tree


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
    tree = source_tree(work)
    builder = fresh(work, "builder")
    pip(builder, "build")
    run(builder, "-m", "build", "--outdir", work / "dist", tree)
    (sdist,) = (work / "dist").glob("*.tar.gz")
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


def try_base(work: Path) -> dict[str, object]:
    """A site's EPICS base: one is laid out from the files of epicscorelibs."""
    tree = source_tree(work)
    python = fresh(work, "base")
    pip(python, "epicscorelibs")
    where = run(python, "-c", "import epicscorelibs as e; print(e.__path__[0])").strip()
    base = work / "epics"
    lib = base / "lib" / "linux-x86_64"
    shutil.copytree(Path(where) / "include", base / "include")
    for folder, headers in (("os/Linux", "osd*.h"), ("compiler/gcc", "compilerSpecific.h")):
        (base / "include" / folder).mkdir(parents=True)
        for header in list((base / "include").glob(headers)):
            header.rename(base / "include" / folder / header.name)
    shutil.copytree(Path(where) / "lib", lib, symlinks=True)
    pip(python, tree, EPICS_BASE=str(base), EPICS_HOST_ARCH="linux-x86_64")
    run(python, "-m", "pip", "uninstall", "-q", "-y", "epicscorelibs")
    found = probe(python, work)
    check(found["mode"] == "base", str(found))
    check(str(found["libca_path"]).startswith(str(lib)), str(found["libca_path"]))
    check(found["lib"] == [], f"bundled all the same: {found['lib']}")
    return found


def try_system(work: Path) -> dict[str, object]:
    """The system's own libca."""
    python = fresh(work, "system")
    pip(python, source_tree(work), EPICSX_EPICS="system")
    found = probe(python, work)
    check(found["mode"] == "system", str(found))
    check(found["lib"] == [], f"bundled all the same: {found['lib']}")
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
        keys = ("mode", "libca_version", "linked", "lib", "requires", "size")
        say(f"{name}: ok: " + ", ".join(f"{k}={found[k]}" for k in keys if k in found))


if __name__ == "__main__":
    main()
