"""Build the sdist so that the same sources always give the same bytes.

    python tools/make_sdist.py [dist]        build it into that folder
    python tools/make_sdist.py --check       build it twice, under different conditions, and compare

setuptools writes into an sdist when each file was last touched, who owns it and what the umask was.
Here the archive is written once more: sorted, owned by nobody, each file as old as SOURCE_DATE_EPOCH
says, or the last commit where that is not set. In a git checkout it has the files that git knows, all
of them, as they are in the folder; what git does not know is left out. The Python that runs this must
have setuptools.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from check_wheel import Failed, check, run, say

ROOT = Path(__file__).resolve().parents[1]

_BUILD = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"


def tracked() -> list[str] | None:
    """The files of the checkout that git knows; None where this is no checkout."""
    if not (ROOT / ".git").exists():
        return None
    names = run("git", "-C", ROOT, "ls-files", "-z").split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def source_tree(work: Path, name: str = "tree") -> Path:
    """A copy of the sources without anything that an earlier build, or somebody, has left there."""
    if (names := tracked()) is not None:
        for each in names:
            (work / name / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / each, work / name / each)
        return work / name
    # also no .egg-info: setuptools takes the list of files in it for part of the new one
    leave = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.so", "lib", "bin", "__pycache__", "*.egg-info",
        ".*_cache", ".nox",
    )  # fmt: skip
    shutil.copytree(ROOT, work / name, ignore=leave)
    return work / name


def epoch() -> int:
    """The time that files in the archive have, in seconds since 1970."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if not told:
        try:
            told = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
        except (Failed, OSError):
            raise Failed("this is no git checkout: set SOURCE_DATE_EPOCH") from None
    check(told.isdigit(), f"SOURCE_DATE_EPOCH={told!r} is no number of seconds")
    return int(told)


def normalised(data: bytes, when: int) -> bytes:
    """A .tar.gz with the same files, and nothing in it of when, where and by whom it was made."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=when) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda m: m.name):
            made = tarfile.TarInfo(member.name)
            made.type, made.size, made.mtime = member.type, member.size, when
            made.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(made, old.extractfile(member) if member.isreg() else None)
    return out.getvalue()


def build(tree: Path, dest: Path, when: int, python: str | Path = sys.executable) -> Path:
    """The sdist of a tree, in the folder dest, made by a Python that has setuptools."""
    dest.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="epicsx-") as folder:
        run(python, "-c", _BUILD, folder, cwd=tree)
        (made,) = Path(folder).glob("*.tar.gz")
        target = dest / made.name
        target.write_bytes(normalised(made.read_bytes(), when))
    return target


def compare(work: Path, when: int) -> str:
    """Build twice, with other times and another umask; the common SHA-256, or Failed."""
    made = []
    for number, umask in ((1, 0o022), (2, 0o077)):
        before = os.umask(umask)
        try:
            tree = source_tree(work, f"tree{number}")
            for path in tree.rglob("*"):
                os.utime(path, (number * 86400.0, number * 86400.0))
                if path.is_file():
                    path.chmod((0o777 if os.access(path, os.X_OK) else 0o666) & ~umask)
            made.append(build(tree, work / f"dist{number}", when).read_bytes())
        finally:
            os.umask(before)
    check(made[0] == made[1], "two builds of the sdist differ")
    check_whole(made[0])
    return hashlib.sha256(made[0]).hexdigest()


def check_whole(data: bytes) -> None:
    """Fail if the sdist lacks a file that git knows: what MANIFEST.in has no pattern for."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    lacks = sorted(set(tracked() or ()) - inside)
    check(not lacks, f"not in the sdist, see MANIFEST.in: {', '.join(lacks)}")


def main() -> None:
    """Build the sdist, or check that two builds are equal."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("dest", nargs="?", type=Path, default=ROOT / "dist")
    parser.add_argument("--check", action="store_true", help="build twice and compare")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="epicsx-") as folder:
            work, when = Path(folder), epoch()
            if args.check:
                say(f"two builds of the sdist are equal: SHA-256 {compare(work, when)}")
            else:
                say(str(build(source_tree(work), args.dest, when)))
    except (Failed, subprocess.SubprocessError) as exc:
        sys.exit(f"make_sdist: FAILED: {exc}")


if __name__ == "__main__":
    main()
