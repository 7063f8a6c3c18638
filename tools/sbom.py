"""The bill of materials of a wheel: which EPICS base is inside, in which files, with their hashes.

    python tools/sbom.py dist/epicsx-*.whl            put it into each wheel
    python tools/sbom.py --print dist/epicsx-*.whl    show it

It is CycloneDX JSON, in the wheel's `.dist-info/sboms`, where PEP 770 has tools look for it. All of
it is read from the wheel itself: the libraries after auditwheel and its like have changed them, the
release that they say they are of, and the words that the build has compiled into `_linkage`. So it
is made last, and the same wheel always gives the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import csv
import email.parser
import hashlib
import io
import json
import re
import sys
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from check_wheel import LIBRARY_FOLDERS

NAME = "epicsx.cdx.json"
SPEC = "1.6"

# a string of its own in libCom, but not in a Com.dll; in libca the line that names the library
_RELEASE = re.compile(rb"EPICS R?(\d+\.\d+[0-9A-Za-z.+-]*)(?:\0|, CA Client)")
_YAJL = re.compile(rb"yajl_parse")
_SOURCE = re.compile(rb"[ -~]*\bepicscorelibs (\d[\d.]*\d)[ -~]*")
_EPICS = re.compile(r"(lib)?(ca|Com)[-.]")
_LIBRARY = re.compile(r"\.(so|dylib|dll)(\.[\d.]+)?$")


class SbomError(Exception):
    """The wheel is not one that a bill of materials can be made of."""


@dataclass(frozen=True)
class Wheel:
    """What of a wheel a bill of materials tells."""

    name: str
    version: str
    licence: str
    libraries: dict[str, bytes]
    linkage: bytes
    dist_info: str


def read(path: Path) -> Wheel:
    """The parts of a wheel that matter here; SbomError if there are none."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata = [n for n in names if n.endswith(".dist-info/METADATA")]
        linkage = [n for n in names if n.startswith("epicsx/_linkage.") and not n.endswith("i")]
        if len(metadata) != 1 or len(linkage) != 1:
            raise SbomError(f"{path.name} is no wheel of epicsx")
        headers = email.parser.BytesParser().parsebytes(archive.read(metadata[0]))
        return Wheel(
            headers["Name"],
            headers["Version"],
            headers["License-Expression"],
            {n: archive.read(n) for n in sorted(names) if _is_bundled(PurePosixPath(n))},
            archive.read(linkage[0]),
            metadata[0].rpartition("/")[0],
        )


def _is_bundled(path: PurePosixPath) -> bool:
    return path.parent.as_posix() in LIBRARY_FOLDERS and bool(_LIBRARY.search(path.name))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file(name: str, data: bytes) -> dict[str, object]:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": _digest(data)}],
    }


def _epics(wheel: Wheel) -> dict[str, object]:
    """EPICS base, the files it is in, and what was done to it."""
    found = {m[1].decode() for data in wheel.libraries.values() if (m := _RELEASE.search(data))}
    if len(found) != 1:
        raise SbomError(f"releases of EPICS base in the libraries: {sorted(found) or 'none'}")
    (release,) = found
    # a snapshot between two releases has no tag
    tag = "" if "-" in release else f"@R{release}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": "epics-base",
        "name": "EPICS base: libca and libCom",
        "version": release,
        "licenses": [{"license": {"id": "EPICS"}}],
        "purl": f"pkg:github/epics-base/epics-base{tag}",
        "components": [_file(n, d) for n, d in wheel.libraries.items() if _EPICS.match(_base(n))],
    }
    source = _SOURCE.search(wheel.linkage)
    if source:
        version = source[1].decode()
        component["pedigree"] = {
            "ancestors": [
                {
                    "type": "library",
                    "name": "epicscorelibs",
                    "version": version,
                    "purl": f"pkg:pypi/epicscorelibs@{version}",
                }
            ],
            "notes": source[0].decode().strip(),
        }
    return component


def _yajl(wheel: Wheel) -> list[dict[str, object]]:
    """The parser of JSON that libCom has inside, where it has not been left out."""
    if not any(_YAJL.search(data) for data in wheel.libraries.values()):
        return []
    return [
        {
            "type": "library",
            "bom-ref": "yajl",
            "name": "YAJL, inside libCom",
            "licenses": [{"license": {"id": "ISC"}}],
            "purl": "pkg:github/lloyd/yajl",
        }
    ]


def _others(wheel: Wheel) -> list[dict[str, object]]:
    """What the repair has brought besides: Microsoft's C++ library, in wheels for Windows."""
    return [
        {
            "type": "library",
            "bom-ref": f"library:{name}",
            "name": re.split(r"[-.]", _base(name))[0],
            "components": [_file(name, data)],
        }
        for name, data in wheel.libraries.items()
        if not _EPICS.match(_base(name))
    ]


def _base(name: str) -> str:
    return PurePosixPath(name).name


def make(path: Path) -> dict[str, object]:
    """The bill of materials of one wheel, as CycloneDX has it.

    Raises
    ------
    SbomError
        It is no wheel of epicsx, or its libraries do not tell which EPICS base they are of.
    """
    wheel = read(path)
    purl = f"pkg:pypi/{wheel.name}@{wheel.version}"
    parts = [_epics(wheel), *_yajl(wheel), *_others(wheel)] if wheel.libraries else []
    mark = purl + "".join(f"\n{n} {_digest(d)}" for n, d in wheel.libraries.items())
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, mark).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": purl,
                "name": wheel.name,
                "version": wheel.version,
                "purl": purl,
                # SPDX has the identifier EPICS, so this is an expression that tools understand
                "licenses": [{"expression": wheel.licence}],
            }
        },
        "components": parts,
        "dependencies": [
            {"ref": purl, "dependsOn": [str(p["bom-ref"]) for p in parts]},
            *({"ref": str(p["bom-ref"])} for p in parts),
        ],
    }


def text(bom: dict[str, object]) -> str:
    """A bill of materials as it is written."""
    return json.dumps(bom, indent=1) + "\n"


def add(path: Path) -> str:
    """Put its bill of materials into a wheel, in place of one that is there; its name inside."""
    data = text(make(path)).encode()
    folder = read(path).dist_info
    name, record = f"{folder}/sboms/{NAME}", f"{folder}/RECORD"
    with zipfile.ZipFile(path) as old:
        rows = [r for r in csv.reader(io.StringIO(old.read(record).decode())) if r[0] != name]
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.insert(len(rows) - 1, [name, f"sha256={digest}", str(len(data))])
        listing = io.StringIO()
        csv.writer(listing, lineterminator="\n").writerows(rows)
        new = path.with_name(f".{path.name}.new")
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
            for info in old.infolist():
                if info.filename not in (name, record):
                    out.writestr(info, old.read(info), zipfile.ZIP_DEFLATED, 9)
            last = old.getinfo(record)
            out.writestr(_like(last, name), data)
            out.writestr(_like(last, record), listing.getvalue())
    new.replace(path)
    return name


def _like(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name, info.date_time)
    made.external_attr, made.compress_type = info.external_attr, zipfile.ZIP_DEFLATED
    return made


def main() -> None:
    """Put the bill of materials into the wheels that were named, or print it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path, help="wheels, or folders of wheels")
    parser.add_argument("--print", action="store_true", dest="show", help="show it only")
    args = parser.parse_args()
    wheels = [w for p in args.wheels for w in (sorted(p.glob("*.whl")) if p.is_dir() else [p])]
    if not wheels:
        sys.exit("sbom: there is no wheel")
    try:
        for wheel in wheels:
            done = text(make(wheel)) if args.show else f"{wheel.name}: {add(wheel)}\n"
            sys.stdout.write(done)
    except (SbomError, zipfile.BadZipFile, OSError) as exc:
        sys.exit(f"sbom: {exc}")


if __name__ == "__main__":
    main()
