"""The bill of materials of a wheel: valid CycloneDX, true to the files, in the place of PEP 770.

The wheels here are made of what is installed: its real libraries and its real `_linkage`. Whole
wheels are looked at by tools/check_wheel.py.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from epicsx import __version__, _linkage, build_info

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
import sbom  # noqa: E402

PACKAGE = Path(_linkage.__file__).parent
INFO = f"epicsx-{__version__}.dist-info"
LIBRARIES = sorted((PACKAGE / "lib").glob("*.so"))

bundled = pytest.mark.skipif(not LIBRARIES, reason="this build bundles no libca")


def make_wheel(folder: Path, libraries: list[Path]) -> Path:
    """A wheel of the files that matter here."""
    contents = {
        f"epicsx/{Path(_linkage.__file__).name}": Path(_linkage.__file__).read_bytes(),
        "epicsx/_linkage.pyi": b"MODE: str\n",
        "epicsx/lib/README": b"not a library\n",
        **{f"epicsx/lib/{p.name}": p.read_bytes() for p in libraries},
        f"{INFO}/METADATA": (
            f"Metadata-Version: 2.4\nName: epicsx\nVersion: {__version__}\n"
            "License-Expression: BSD-3-Clause AND EPICS AND ISC\n\n"
        ).encode(),
    }
    rows = [f"{name},,\n" for name in (*contents, f"{INFO}/RECORD")]
    contents[f"{INFO}/RECORD"] = "".join(rows).encode()
    path = folder / f"epicsx-{__version__}-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), data)
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path, LIBRARIES)


def problems(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


@bundled
def test_it_is_valid_cyclonedx(wheel: Path) -> None:
    text = sbom.text(sbom.make(wheel))
    assert problems(text) is None
    # and the validator does look
    broken = json.loads(text)
    broken["components"][0]["type"] = "thing"
    assert problems(json.dumps(broken)) is not None


@bundled
def test_it_names_the_epics_base_that_is_loaded(wheel: Path) -> None:
    bom: Any = sbom.make(wheel)
    epics, *others = bom["components"]
    assert epics["version"] == build_info()["libca_version"]
    # a snapshot has no tag of its own
    tag = "" if "-DEV" in epics["version"] else f"@R{epics['version']}"
    assert epics["purl"] == f"pkg:github/epics-base/epics-base{tag}"
    assert epics["pedigree"]["notes"] == build_info()["linked"]
    (origin,) = epics["pedigree"]["ancestors"]
    assert origin["version"] in build_info()["linked"]
    assert bom["metadata"]["component"]["purl"] == f"pkg:pypi/epicsx@{__version__}"
    assert [d["ref"] for d in bom["dependencies"]] == [
        f"pkg:pypi/epicsx@{__version__}",
        "epics-base",
        *(other["bom-ref"] for other in others),
    ]


@bundled
def test_it_names_what_is_inside_libcom_and_its_licence(wheel: Path) -> None:
    bom: Any = sbom.make(wheel)
    licences = {c["bom-ref"]: c["licenses"][0]["license"]["id"] for c in bom["components"]}
    # epicscorelibs' libCom has it, the hardened build leaves it out
    yajl = {} if build_info()["mode"] == "hardened" else {"yajl": "ISC"}
    assert licences == {"epics-base": "EPICS", **yajl}
    assert ("ISC" in build_info()["licence"]) is bool(yajl)


@bundled
def test_it_has_the_hash_of_each_library_and_of_nothing_else(wheel: Path) -> None:
    bom: Any = sbom.make(wheel)
    epics = bom["components"][0]
    told = {c["name"]: c["hashes"][0]["content"] for c in epics["components"]}
    assert told == {
        f"epicsx/lib/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in LIBRARIES
    }


@bundled
def test_it_is_put_into_the_wheel_once_and_recorded(wheel: Path) -> None:
    assert sbom.add(wheel) == f"{INFO}/sboms/epicsx.cdx.json"
    first = wheel.read_bytes()
    sbom.add(wheel)
    assert wheel.read_bytes() == first, "a second time changes nothing"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert names.count(f"{INFO}/sboms/epicsx.cdx.json") == 1
        assert len(names) == len(set(names))
        data = archive.read(f"{INFO}/sboms/epicsx.cdx.json")
        rows = list(csv.reader(io.StringIO(archive.read(f"{INFO}/RECORD").decode())))
        assert archive.testzip() is None
    assert json.loads(data) == sbom.make(wheel)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    assert [r for r in rows if "sboms" in r[0]] == [
        [f"{INFO}/sboms/epicsx.cdx.json", f"sha256={digest}", str(len(data))]
    ]
    assert rows[-1][0] == f"{INFO}/RECORD"


@bundled
def test_another_library_gives_another_bill(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    changed = tmp_path / "other" / LIBRARIES[0].name
    changed.write_bytes(LIBRARIES[0].read_bytes() + b"\0")
    other = make_wheel(tmp_path / "other", [changed, *LIBRARIES[1:]])
    assert sbom.make(other)["serialNumber"] != sbom.make(wheel)["serialNumber"]


def test_a_wheel_that_bundles_nothing_says_so(tmp_path: Path) -> None:
    bom = sbom.make(make_wheel(tmp_path, []))
    assert bom["components"] == []
    assert problems(sbom.text(bom)) is None


def test_what_is_no_wheel_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other-1.0.dist-info/METADATA", "Name: other\n")
    with pytest.raises(sbom.SbomError, match="no wheel of epicsx"):
        sbom.make(path)


def test_a_library_that_tells_no_release_is_refused(tmp_path: Path) -> None:
    stranger = tmp_path / "libca-epicsx.so"
    shutil.copyfile(_linkage.__file__, stranger)
    with pytest.raises(sbom.SbomError, match="releases of EPICS base"):
        sbom.make(make_wheel(tmp_path, [stranger]))
