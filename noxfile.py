"""The suite on every Python that is here: `make pythons`, or `nox` where nox is installed.

`PYTHONS="3.12 3.14t" nox -- tests/unit` takes two of them and a part of the suite; what follows `--` is
pytest's. tools/pythons.py finds the programs; nox alone would not look into pyenv's folders. A version
that was asked for and is not here is a failure; without PYTHONS, it is left out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
import pythons

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

FOUND = {version: str(path) for version, path in pythons.find().items() if path}
WANTED = os.environ.get("PYTHONS", "").replace(",", " ").split()


def tests(session: nox.Session, version: str) -> None:
    """Build epicsx for one Python, into an environment of its own, and run the suite there."""
    if version not in pythons.SUPPORTED:
        session.error(f"Python {version} is none of {', '.join(pythons.SUPPORTED)}")
    if version not in FOUND:
        session.error(f"Python {version} was asked for, and is not here")
    # not editable: what is tested is what is installed, and the builds do not disturb each other
    session.install(".[test,demo]")
    session.run("python", "-m", "pytest", *session.posargs)


def _add(version: str) -> None:
    # a missing one shall fail by our words, so it gets no environment
    @nox.session(name=f"tests-{version}", python=FOUND.get(version, False))
    def one(session: nox.Session) -> None:
        tests(session, version)


for _version in WANTED or FOUND:
    _add(_version)
