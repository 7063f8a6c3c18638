"""The C client: compiled on the fly against the libca of the package epicscorelibs."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from pathlib import Path


def build(folder: Path) -> Path:
    """Path of the compiled client, made in `folder`."""
    from epicscorelibs import path

    include = Path(path.include_path)
    library = Path(path.lib_path)
    system = {"Linux": "Linux", "Darwin": "Darwin"}[platform.system()]
    compiler = "clang" if system == "Darwin" else "gcc"
    program = folder / "client"
    shared = [Path(path.get_lib(name)) for name in ("ca", "Com")]
    command = [
        *shlex.split(os.environ.get("CC", "cc")),
        "-O2",
        "-std=gnu11",
        f"-I{include}",
        f"-I{include / 'os' / system}",
        f"-I{include / 'compiler' / compiler}",
        str(Path(__file__).with_name("c") / "client.c"),
        "-o",
        str(program),
        *map(str, shared),
        f"-Wl,-rpath,{library}",
        "-lpthread",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
    return program
