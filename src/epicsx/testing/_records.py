"""Simulated records on the table of `_pvset_main`: their fields, with the types and access rights of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from caproto import (  # type: ignore[import-untyped, unused-ignore]
    AlarmSeverity,
    AlarmStatus,
    ChannelAlarm,
)

from epicsx.testing._pvset_main import Server

_SEVERITIES = "NO_ALARM MINOR MAJOR INVALID"
# Channel Access has room for 16 states; the menu goes on.
_STATUSES = (
    "NO_ALARM READ WRITE HIHI HIGH LOLO LOW STATE COS COMM TIMEOUT HWLIMIT CALC SCAN LINK SOFT"
)
_SCANS = "Passive,Event,I/O Intr,10 second,5 second,2 second,1 second,.5 second,.2 second,.1 second"

# A line of a table is a type, a colon, and FIELD or FIELD=value. Of enums the type is "enum" and the names of the
# states, with "," between them. A blank in a name or value is written "~".
COMMON = f"""
    string: NAME DESC ASG FLNK SDIS TSEL
    short: PHAS DISA DISV=1 DISP PROC LCNT PACT UDF TPRO
    enum {_STATUSES.replace(" ", ",")}: STAT
    enum {_SEVERITIES.replace(" ", ",")}: SEVR ACKS DISS
    enum LOW,MEDIUM,HIGH: PRIO
    enum NO,YES: PINI ACKT=1
    enum {_SCANS.replace(" ", "~")}: SCAN
"""
COMMON_READONLY = "NAME STAT SEVR ACKS LCNT PACT"
SEVERITIES = "enum " + _SEVERITIES.replace(" ", ",")


def parse(table: str) -> dict[str, dict[str, Any]]:
    """Field -> what `_pvset_main` wants to know of it, from the text of a table."""
    found: dict[str, dict[str, Any]] = {}
    for line in table.strip().splitlines():
        kind, _, names = line.strip().partition(": ")
        kind, _, states = kind.partition(" ")
        for pair in names.split():
            field, _, text = pair.partition("=")
            spec: dict[str, Any] = {"type": kind}
            if kind == "enum":
                spec = {"states": states.replace("~", " ").split(",")}
            to = {"string": str, "float": float, "double": float}.get(kind, int)
            found[field] = {"value": to(text.replace("~", " ")) if text else to(), **spec}
    return found


class Record:
    """One record: its fields, what a put to each does, and whether it has finished processing."""

    rtyp = ""
    table = ""
    readonly = ""
    processing = ""  # fields a put to which completes when the record has finished

    def __init__(self, server: Records, name: str) -> None:
        self.server = server
        self.name = name
        self.alarm = ChannelAlarm()
        self.turn = asyncio.Lock()  # of who changes it: a put, or what runs beside
        self.done = asyncio.Event()
        self.done.set()

    @classmethod
    def fields(cls, own: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The table of the fields, with the values that were asked for."""
        found = parse(COMMON + cls.table)
        found["RTYP"] = {"value": cls.rtyp, "type": "string", "readonly": True}
        for field in (*COMMON_READONLY.split(), *cls.readonly.split()):
            found[field]["readonly"] = True
        for field, value in own.items():
            if field not in found:
                raise ValueError(f"a {cls.rtyp} record has no field {field}")
            try:
                found[field]["value"] = type(found[field]["value"])(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{field}: {error}") from error
        return found

    def get(self, field: str) -> Any:
        found: Any = self.server.value(f"{self.name}.{field}")
        return found

    async def set(self, **values: Any) -> None:
        """Change fields; clients are told of those that are other than before."""
        for field, value in values.items():
            if self.get(field) != value:
                await self.server.write(f"{self.name}.{field}", value)

    async def set_alarm(self, status: str = "NO_ALARM", severity: int = 0) -> None:
        number = _STATUSES.split().index(status) if severity else 0
        if (number, severity) != (self.get("STAT"), self.get("SEVR")):
            await self.alarm.write(status=AlarmStatus(number), severity=AlarmSeverity(severity))
            await self.set(STAT=number, SEVR=severity)

    async def begin(self) -> None:
        """What it does when the server starts."""
        await self.set(NAME=self.name)

    async def on_put(self, field: str) -> None:
        """Do what the record does when a field was put; `turn` is held."""

    async def completed(self, field: str) -> None:
        """Return when a put to the field completes."""
        if field in self.processing.split():
            await self.done.wait()


class Records(Server):
    """Records, and the PVs that were asked for beside them."""

    judges = False

    def __init__(
        self,
        kinds: Iterable[tuple[type[Record], Mapping[str, Mapping[str, Any]]]],
        pvs: Mapping[str, Any],
    ) -> None:
        table: dict[str, Any] = {}
        self.records: dict[str, Record] = {}
        for kind, records in kinds:
            for name, own in records.items():
                self.records[name] = kind(self, name)
                try:
                    fields = kind.fields(own)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
                table |= {f"{name}.{field}": spec for field, spec in fields.items()}
        super().__init__({**table, **pvs})
        for name, record in self.records.items():
            for full, channel in self.channels.items():
                if full.startswith(f"{name}."):
                    channel.alarm = record.alarm
            self.channels[name] = self.channels[f"{name}.VAL"]
            self.first[name] = self.first[f"{name}.VAL"]

    def check_put(self, name: str) -> None:
        record, _, field = name.partition(".")
        if record in self.records and field != "DISP" and self.records[record].get("DISP"):
            raise PermissionError(f"{name}: puts to this record are disabled by DISP")

    def turn(self, name: str) -> asyncio.Lock:
        record = self.records.get(name.partition(".")[0])
        return super().turn(name) if record is None else record.turn

    async def completed(self, name: str) -> None:
        record, _, field = name.partition(".")
        if record in self.records:
            await self.records[record].completed(field)

    async def on_put(self, name: str) -> None:
        record, _, field = name.partition(".")
        if record in self.records:
            await self.records[record].on_put(field)
            return
        owner = self.records.get(record.removesuffix("_able"))
        if record.endswith("_able") and owner is not None:  # Enable, Disable, beside a motor
            await owner.set(DISP=int(self.value(name)))
        await super().on_put(name)

    async def started(self, library: Any) -> None:
        for record in self.records.values():
            await record.begin()
        await super().started(library)
