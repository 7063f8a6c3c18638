"""What was built, and which libca this process uses."""

from __future__ import annotations

import re

from epicsx import _linkage
from epicsx._version import __version__

# libCom carries the release text of the EPICS base that it was compiled from; under Windows libca alone does.
_RELEASE = re.compile(rb"EPICS R?(\d+\.\d+[0-9A-Za-z.+-]*)(?:\0|, CA Client)")

_OWN = "epicsx: BSD-3-Clause (LICENSE)"
_BUNDLED = "bundled libca and libCom of EPICS base: EPICS Open License (licenses/EPICS-base.txt)"
_YAJL = "YAJL in libCom: ISC (licenses/YAJL.txt)"


def _base_release(*paths: str | None) -> str:
    for path in filter(None, paths):
        try:
            with open(path, "rb") as file:
                found = _RELEASE.search(file.read())
        except OSError:
            continue
        if found:
            return found.group(1).decode("ascii")
    return "unknown"


def _licence() -> str:
    if _linkage.MODE in ("base", "system"):
        return _OWN
    return "; ".join([_OWN, _BUNDLED, *([_YAJL] if _linkage.MODE == "bundled" else [])])


def build_info() -> dict[str, str]:
    """Which libca is in use, its version and file, and how epicsx was linked to it.

    Starts no Channel Access. The libraries are loaded by asking, as they would be at first use.

    Returns
    -------
    dict of str
        ``epicsx_version``; ``mode``: 'bundled' (private copies inside the package), 'hardened'
        (compiled with guards against bad servers, private too), 'base' (the EPICS_BASE of the
        build) or 'system'; ``linked``: the same in words; ``guards``: the names of the guards of
        a hardened build, with commas between, else empty; ``libca_version``: the EPICS base
        release of the library in use; ``ca_protocol``: the CA protocol it speaks; ``libca_path``
        and ``libcom_path``: the files mapped into this process (one and the same where hardened);
        ``licence``: of epicsx, and of the libraries inside the package if there are any, whose
        texts come with it.
    """
    libca, libcom = _linkage.libca_path(), _linkage.libcom_path()
    return {
        "epicsx_version": __version__,
        "mode": _linkage.MODE,
        "linked": _linkage.LINKED,
        "guards": _linkage.GUARDS,
        "libca_version": _base_release(libcom, libca),
        "ca_protocol": _linkage.ca_protocol(),
        "libca_path": libca or "unknown",
        "libcom_path": libcom or "unknown",
        "licence": _licence(),
    }
