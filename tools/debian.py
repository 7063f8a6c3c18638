"""Files out of Debian packages, for tests: fetched and checked by apt, unpacked into a folder, nothing installed.

It needs apt-get and dpkg-deb, of Debian or a system made from it, and not root: lists and packages are kept in the
folder, and removed in the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

NEEDED = ("apt-get", "apt-cache", "dpkg-deb")


def lacking() -> str:
    """What keeps this machine from fetching packages, in words; empty if nothing does."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"there is no {', no '.join(absent)} here: this is no Debian" if absent else ""


def run(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program prints; the end of this one, with all it said, if it fails."""
    if shutil.which(words[0]) is None:
        raise SystemExit(lacking() or f"there is no {words[0]} here")
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def fetch(folder: Path, packages: Sequence[str], source: str = "") -> None:
    """Make `folder` anew, with what is in the packages under `folder`/root.

    With `source`, a line of sources.list, packages come from there with all that they need, as a system of that
    release would have them: they need nothing of this machine. Without, they come from where this machine's apt
    takes its packages, and come alone.
    """
    folder = folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    apt = folder / "apt"
    archives = apt / "archives"
    for each in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (apt / each).mkdir(parents=True)
    options = {
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt,
        "Dir::Cache::Archives": archives,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",
    }
    env = dict(os.environ)
    if source:
        (apt / "status").touch()
        (apt / "sources.list").write_text(source + "\n")
        options |= {
            "Dir::Etc": apt / "etc",
            "Dir::Etc::SourceList": apt / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Status": apt / "status",
        }
        # The configuration of this machine may add to that; an empty file in its place does not.
        (apt / "apt.conf").touch()
        env["APT_CONFIG"] = str(apt / "apt.conf")
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    run("apt-get", "-q", *words, "update", env=env)
    names = [_name(each, words, env) for each in packages]
    whole = ("install", "-y", "--no-install-recommends", "--download-only")
    how = whole if source else ("download",)
    run("apt-get", "-q", *words, *how, *names, env=env, cwd=archives)
    for package in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "-x", str(package), str(folder / "root"))
    shutil.rmtree(apt)


def _name(package: str, words: Sequence[str], env: Mapping[str, str]) -> str:
    """The name that a package has in this release: some got t64 behind it when time_t became 64 bits wide."""
    known = run("apt-cache", *words, "pkgnames", package, env=env).split()
    return f"{package}t64" if f"{package}t64" in known else package
