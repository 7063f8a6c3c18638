"""Families of records of the session's IOC that are too many to write out."""

from __future__ import annotations

import json
from pathlib import Path

#: Element types of a waveform record, as named by its field FTVL.
ELEMENT_TYPES = (
    "CHAR",
    "UCHAR",
    "SHORT",
    "USHORT",
    "LONG",
    "ULONG",
    "INT64",
    "UINT64",
    "FLOAT",
    "DOUBLE",
    "STRING",
    "ENUM",
)

#: How many records the families `chain:` and `bulk:` have.
FAMILY = 1000

_DB = Path(__file__).parent.parent / "db"


def core_database() -> list[bytes | str | Path]:
    """Return the databases of the session's IOC, for SoftIOC."""
    return [_DB / "core.db", waveforms(), chain(FAMILY), bulk(FAMILY), latin1()]


def access_security() -> Path:
    """Return the access-security file of the session's IOC."""
    return _DB / "core.acf"


def waveform(name: str, kind: str, length: int, values: list[int] | None = None) -> str:
    """Return one waveform record, filled with `values` (strings: "s0", "s1" ...)."""
    lines = [f'field(FTVL, "{kind}")', f'field(NELM, "{length}")']
    if values is not None:
        content: list[int] | list[str] = values
        if kind == "STRING":
            content = [f"s{value}" for value in values]
        lines.append(f"field(INP, {json.dumps(content)})")
    return f'record(waveform, "$(P){name}") {{ {" ".join(lines)} }}\n'


def waveforms() -> str:
    """Return a waveform of each element type with no, one and ten elements, and one to write."""
    text = ""
    for kind in ELEMENT_TYPES:
        name = kind.lower()
        text += waveform(f"wf:{name}:0", kind, 16)
        text += waveform(f"wf:{name}:1", kind, 1, [1])
        text += waveform(f"wf:{name}:n", kind, 16, list(range(10)))
        text += waveform(f"w:{name}", kind, 32)
    return text


def chain(length: int) -> str:
    """Return `chain:go` and the calc records that take its value, in order, in one processing."""
    text = 'record(longout, "$(P)chain:go") { field(FLNK, "$(P)chain:fan0") }\n'
    # Fan-outs in a tree, sixteen links each: a forward link from record to record would recurse
    # a thousand deep in the IOC.
    names = [f"chain:{number:04d}" for number in range(length)]
    for name in names:
        text += (
            f'record(calc, "$(P){name}") '
            '{ field(CALC, "A") field(INPA, "$(P)chain:go NPP NMS") }\n'
        )
    level: list[str] = names
    number = 0
    while True:
        groups = [level[first : first + 16] for first in range(0, len(level), 16)]
        level = []
        for group in groups:
            number += 1
            name = "chain:fan0" if len(groups) == 1 else f"chain:fan{number}"
            links = " ".join(
                f'field(LNK{index:X}, "$(P){member}")' for index, member in enumerate(group)
            )
            text += f'record(fanout, "$(P){name}") {{ {links} }}\n'
            level.append(name)
        if len(groups) == 1:
            return text


def bulk(length: int) -> str:
    """Return ao records for reading and writing many at once; each holds its number."""
    return "".join(
        f'record(ao, "$(P)bulk:{number:04d}") {{ field(VAL, "{number}") field(PINI, "YES") }}\n'
        for number in range(length)
    )


def endless(length: int = 1) -> str:
    """Return ao records `endless0` and so on: the first put to each, with completion, ends after a minute."""
    return "".join(
        f"""
        record(ao, "$(P)endless{n}") {{ field(FLNK, "$(P)endless{n}:seq") }}
        record(seq, "$(P)endless{n}:seq") {{
            field(DLY1, "60") field(DOL1, "1") field(LNK1, "$(P)endless{n}:done.PROC PP")
        }}
        record(calc, "$(P)endless{n}:done") {{}}
        """
        for n in range(length)
    )


def latin1() -> bytes:
    """Return a record whose description is no UTF-8, as many an old database has it."""
    text = 'record(ao, "$(P)latin1") { field(DESC, "Température 20 µm") }\n'
    return text.encode("latin-1")
