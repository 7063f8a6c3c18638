"""The sources of libCom and libca for `EPICSX_EPICS=hardened`: fetched, checked, unpacked, edited.

They come from the sdist of the PyPI package epicscorelibs and land in build/epics; neither this
repository nor its sdist holds any of them. Where the sdist comes from, first one that has it:

1. ``EPICSX_EPICS_SDIST``: the file, or a folder that holds it;
2. build/epics, where an earlier build has put it;
3. pip, from the index that pip is configured for.

Whatever the way, the SHA-256 must be the one below. The edits are in hardened_guards.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from hardened_guards import ADDED, GUARDS, Guard

# The one place that says which EPICS base is compiled.
VERSION = "7.0.10.99.0.2"
SHA256 = "a5de1b5144fe3e64593f396f94c5b4389338118963d29d50349d7d28059acd2e"
SDIST = f"epicscorelibs-{VERSION}.tar.gz"

MODULES = {"Com": "modules/libcom/src", "ca": "modules/ca/src"}
_WANTED = ("configure/", "setup.py.d/", "LICENSE", *(f"{m}/" for m in MODULES.values()))
# Parts of an IOC that no client calls; the first needs headers of the database.
_LEFT_OUT = (
    "as/asTrapWrite.c", "generated/asLib.c", "iocsh/libComRegister.c", "iocsh/iocsh.cpp",
)  # fmt: skip
# Folders by which headers are asked for; of all others they lie in one.
_HEADER_FOLDERS = ("valgrind",)
_TOOLS = Path(__file__).resolve().parent


class SourceError(Exception):
    """The sources are missing, not those expected, or no longer what an edit was written for."""


# ----------------------------------------------------------------------------------- getting


def sha256(path: Path) -> str:
    """The hash of a file, as PyPI shows it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(path: Path) -> Path:
    """The path, if it is the file expected."""
    found = sha256(path)
    if found != SHA256:
        raise SourceError(
            f"{path} is not the {SDIST} this build was written for: its SHA-256 is {found}, "
            f"expected is {SHA256}. Delete it, or fetch it anew"
        )
    return path


def sdist(cache: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The sdist on this machine, its hash checked; fetched with pip if it is not there yet."""
    told = environ.get("EPICSX_EPICS_SDIST", "").strip()
    if told:
        path = Path(told) / SDIST if Path(told).is_dir() else Path(told)
        if not path.is_file():
            raise SourceError(f"EPICSX_EPICS_SDIST={told}: there is no {SDIST}")
        return check(path)
    path = cache / SDIST
    if path.is_file():
        return check(path)
    cache.mkdir(parents=True, exist_ok=True)
    return _fetch(cache)


def _fetch(cache: Path) -> Path:
    """Let pip download it. pip checks the hash before it opens the file."""
    wanted = cache / "fetch.txt"
    wanted.write_text(f"epicscorelibs=={VERSION} --hash=sha256:{SHA256}\n")
    done = subprocess.run(
        # -I: inside a build that pip has isolated, pip itself lies outside
        [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "download", "--no-deps",
         "--no-binary", "epicscorelibs", "--require-hashes", "-r", str(wanted), "-d", str(cache)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    path = cache / SDIST
    if not path.is_file():
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise SourceError(
            f"pip could not fetch {SDIST} ({said[-1] if said else 'it said nothing'}). Without a "
            f"network: put that file into a folder and set EPICSX_EPICS_SDIST to it"
        )
    return check(path)


# ----------------------------------------------------------------------------------- editing


def edited(guard: Guard, file: str, text: str) -> str:
    """The text of `file` after the edits of one guard; each must find its place exactly once."""
    for edit in guard.edits:
        if edit.file != file:
            continue
        times = text.count(edit.find)
        if times != 1:
            line = edit.find.strip().splitlines()[0].strip()
            raise SourceError(
                f"guard '{guard.name}': its text is found {times} times in {file}, not once. The "
                f"source has changed; look at the edit again. It begins: {line}"
            )
        text = text.replace(edit.find, edit.replace)
    return text


def apply(top: Path, guards: Iterable[Guard] = GUARDS) -> None:
    """Apply the edits of the guards to the tree, in order."""
    for guard in guards:
        for file in dict.fromkeys(e.file for e in guard.edits):
            path = top / file
            if not path.is_file():
                raise SourceError(f"guard '{guard.name}': {file} is not among the sources")
            path.write_text(edited(guard, file, path.read_text("utf-8")), "utf-8")


# -------------------------------------------------------------------------------------- tree


def _unpack(archive: Path, top: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if not (member.isfile() and name.startswith(_WANTED)) or ".." in name.split("/"):
                continue
            source = tar.extractfile(member)
            assert source is not None
            target = top / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read())


def definitions(text: str) -> dict[str, str]:
    """The NAME = value lines of one of EPICS' CONFIG files."""
    found = {}
    for line in text.splitlines():
        name, is_one, value = line.partition("=")
        if is_one and not line.startswith(("#", " ", "if")):
            found[name.strip()] = value.strip()
    return found


def _lists(top: Path, module: str, kind: str) -> list[Path]:
    """One of the lists of files by which epicscorelibs builds a module on Linux."""
    found = []
    for group in ("all", "Linux"):
        path = top / "setup.py.d" / f"{module}.{group}.{kind}"
        if path.is_file():
            lines = (line.strip() for line in path.read_text().splitlines())
            names = (n for n in lines if n and not n.startswith("#") and n not in _LEFT_OUT)
            found += [top / MODULES[module] / n for n in names]
    return found


_API = """#ifndef INC_{0}API_H
#define INC_{0}API_H
#define {1}_API __attribute__((visibility("default")))
#define epicsStdCall
#endif
"""


def _version_header(top: Path) -> str:
    numbers = definitions((top / "configure/CONFIG_BASE_VERSION").read_text())
    part = {k: numbers[f"EPICS_{k}"] for k in ("VERSION", "REVISION", "MODIFICATION")}
    part["PATCH_LEVEL"] = numbers["EPICS_PATCH_LEVEL"]
    short = ".".join(part.values())
    full = short + numbers["EPICS_DEV_SNAPSHOT"]
    lines = [f"#define EPICS_{name} {value}" for name, value in part.items()]
    lines += [
        f'#define EPICS_DEV_SNAPSHOT "{numbers["EPICS_DEV_SNAPSHOT"]}"',
        '#define EPICS_SITE_VERSION "epicsx"',
        f'#define EPICS_VERSION_SHORT "{short}"',
        f'#define EPICS_VERSION_FULL "{full}"',
        f'#define EPICS_VERSION_STRING "EPICS {full}"',
        f'#define epicsReleaseVersion "EPICS {full}"',
        "#define VERSION_INT(V,R,M,P) (((V)<<24) | ((R)<<16) | ((M)<<8) | (P))",
        f"#define EPICS_VERSION_INT VERSION_INT({','.join(part.values())})",
    ]
    return "#pragma once\n" + "\n".join(lines) + "\n"


def release(top: Path) -> str:
    """The release text of the EPICS base in a prepared tree."""
    found = re.search(r'VERSION_FULL "([^"]+)"', (top / "include/epicsVersion.h").read_text())
    assert found is not None
    return found.group(1)


def _environment_table(top: Path) -> str:
    """The C file with libCom's environment parameters and their defaults."""
    values = definitions((top / "configure/CONFIG_ENV").read_text())
    values |= definitions((top / "configure/CONFIG_SITE_ENV").read_text())
    lines = ['#include <stddef.h>\n#include "errlog.h"\n#include "envDefs.h"']
    for name, value in values.items():
        if name != "IOCSH_PS1":  # that one is made of macros of errlog.h
            value = '"' + value.strip('"') + '"'
        lines.append(f'const ENV_PARAM {name} = {{"{name}", {value}}};')
    names = ", ".join(f"&{n}" for n in values)
    lines.append(f"const ENV_PARAM *env_param_list[] = {{{names}, NULL}};")
    return "\n".join(lines) + "\n"


_ERROR = re.compile(r"#define\s+(S_\w+)\s+\(.*?\)\s*/\*\s*(.*?)\s*\*/")


def _error_table(top: Path) -> str:
    """The C text of libCom's table of error texts; those of IOCs are not needed in a client."""
    lines = ['#include "dbDefs.h"\n#include "errMdef.h"\n#include "errSymTbl.h"']
    rows = []
    for header in ("epicsTime.h", "epicsStdlib.h", "epicsThreadPool.h"):
        lines.append(f'#include "{header}"')
        for name, text in _ERROR.findall((top / "include" / header).read_text()):
            rows.append(f'    {{(long){name}, "{text}"}},')
    rows = ["static ERRSYMBOL rows[] = {", *rows, "};"]
    rows.append(
        "static ERRSYMTAB table = {NELEMENTS(rows), rows};\nERRSYMTAB_ID errSymTbl = &table;"
    )
    return "\n".join(lines + rows) + "\n"


# What libCom's clock and environment tell the shell of an IOC: a client has none.
_NO_SHELL = """#include "iocsh.h"
void iocshRegister(const iocshFuncDef *definition, iocshCallFunc function) {
    (void)definition, (void)function;
}
void iocshEnvClear(const char *name) { (void)name; }
"""


def _generate(top: Path) -> None:
    include = top / "include"
    include.mkdir(exist_ok=True)
    for name in MODULES:
        for header in _lists(top, name, "header"):
            if header.is_file():
                under = header.parent.name if header.parent.name in _HEADER_FOLDERS else ""
                (include / under).mkdir(exist_ok=True)
                shutil.copyfile(header, include / under / header.name)
    (include / "libComAPI.h").write_text(_API.format("libCom", "LIBCOM"))
    (include / "libCaAPI.h").write_text(_API.format("libCa", "LIBCA"))
    (include / "epicsVersion.h").write_text(_version_header(top))
    (include / "epicsVCS.h").write_text(f'#pragma once\n#define EPICS_VCS_VERSION "{VERSION}"\n')
    numbers = definitions((top / "configure/CONFIG_LIBCOM_VERSION").read_text())
    template = (top / "modules/libcom/src/libComVersion.h@").read_text()
    text = re.sub(r"@([A-Z_]+)@", lambda m: numbers[m.group(1)], template)
    (include / "libComVersion.h").write_text(text)
    text = _environment_table(top) + _error_table(top) + _NO_SHELL
    (top / "generated.c").write_text(text)
    (top / "added").mkdir(exist_ok=True)
    for name in ADDED:
        shutil.copyfile(_TOOLS / "hardened" / name, top / "added" / name)


def state() -> str:
    """A hash of all that a prepared tree is made from: archive, edits, and this file."""
    tools = [Path(__file__), _TOOLS / "hardened_guards.py"]
    tools += [_TOOLS / "hardened" / name for name in ADDED]
    return hashlib.sha256(b"".join([SHA256.encode(), *(p.read_bytes() for p in tools)])).hexdigest()


def prepare(cache: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The tree, unpacked and edited, its headers gathered in include/."""
    top = cache / f"epicscorelibs-{VERSION}"
    mark = top / "prepared.txt"
    if mark.is_file() and mark.read_text() == state():
        return top
    archive = sdist(cache, environ)
    shutil.rmtree(top, ignore_errors=True)
    _unpack(archive, top)
    apply(top)
    _generate(top)
    mark.write_text(state())
    return top


def sources(top: Path) -> list[Path]:
    """What is compiled."""
    own = [top / "added" / name for name in ADDED if name.endswith(".cpp")]
    return [top / "generated.c", *own, *(p for m in MODULES for p in _lists(top, m, "source"))]


def include_dirs(top: Path) -> list[Path]:
    """Where libCom's and libca's own files find their headers."""
    return [
        top / "include",
        top / "added",
        *(p for m in MODULES for p in _lists(top, m, "include")),
    ]


if __name__ == "__main__":  # for builds without a pip of their own, as those of `python -m build`
    sys.stdout.write(f"{sdist(Path('build/epics'))}\n")
