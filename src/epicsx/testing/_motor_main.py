"""The server of `epicsx.testing.MotorIOC`: motor records that move, on the table of `_pvset_main`.

Positions are kept in dial units; user = dial x direction + OFF, raw = dial / MRES, as in the motor record.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from epicsx.testing._pvset_main import Server

TICK = 0.02  # seconds between two positions of a moving motor

_DOUBLES = """
    ACCL=0.1 BACC=0.1 BDST=0 BVEL=1 DLY=0 ERES=0.001 FRAC=1 HIGH=0 HIHI=0 HLM=100 HVEL=1 ICOF=0 JAR=1 JVEL=1
    LLM=-100 LOLO=0 LOW=0 MRES=0.001 OFF=0 PCOF=0 DCOF=0 RDBD=0.001 RRES=0 S=1 SBAK=1 SBAS=0 SMAX=1 SREV=200
    TWV=1 UREV=0.2 VBAS=0 VELO=10 VMAX=20 VAL=0 RBV=0 DVAL=0 DRBV=0 DHLM=100 DLLM=-100 HOPR=100 LOPR=-100 RLV=0
    LVAL=0 LDVL=0 LRLV=0 DIFF=0 RVEL=0 ALRM=0
"""
_INTEGERS = """
    CARD=0 DMOV=1 HLS=0 LLS=0 LVIO=0 MIP=0 MISS=0 MOVN=0 MSTA=2 PREC=3 RCNT=0 RDIF=0 REP=0 RHLS=0 RLLS=0 RLNK=0
    RMP=0 RRBV=0 RTRY=10 RVAL=0 LRVL=0 STOP=0 TDIR=0 TWF=0 TWR=0 JOGF=0 JOGR=0 HOMF=0 HOMR=0 ATHM=0 NVAL=0 SYNC=0
"""
_TEXTS = "DESC=motor EGU=mm RTYP=motor OUT=@sim VERS=1.0 DTYP=Simulation NAME= RDBL= STOO= PREM= POST= INIT="
_ENUMS = {
    "DIR": ("Pos", "Neg"),
    "FOFF": ("Variable", "Frozen"),
    "SET": ("Use", "Set"),
    "SPMG": ("Stop", "Pause", "Move", "Go"),
    "LSPG": ("Stop", "Pause", "Move", "Go"),
    "UEIP": ("No", "Yes"),
    "URIP": ("No", "Yes"),
    "CNEN": ("Disable", "Enable"),
    "OMSL": ("supervisory", "closed_loop"),
    "DISP": ("No", "Yes"),
    "STAT": ("NO_ALARM", "READ", "WRITE", "HIHI", "HIGH", "LOLO", "LOW"),
    **dict.fromkeys(
        ("SEVR", "HHSV", "HSV", "LSV", "LLSV", "HLSV"), ("NO_ALARM", "MINOR", "MAJOR", "INVALID")
    ),
}


def fields() -> dict[str, Any]:
    """Field -> what `_pvset_main` wants to know of it."""
    found: dict[str, Any] = {}
    for texts, kind in ((_DOUBLES, float), (_INTEGERS, int), (_TEXTS, str)):
        for pair in texts.split():
            field, _, value = pair.partition("=")
            found[field] = kind(value)
    for field, states in _ENUMS.items():
        go = 3 if field in ("SPMG", "LSPG") else 0
        found[field] = {"value": go, "states": list(states)}
    return found


class Motor:
    """One record: where it is, where it goes, and the task that brings it there."""

    def __init__(self, server: Motors, name: str) -> None:
        self.server = server
        self.name = name
        self.moving: asyncio.Task[None] | None = None

    def get(self, field: str) -> Any:
        found: Any = self.server.value(f"{self.name}.{field}")
        return found

    async def set(self, **values: Any) -> None:
        for field, value in values.items():
            if self.get(field) != value:
                await self.server.write(f"{self.name}.{field}", value)
        if "VAL" in values:
            await self.server.write(self.name, self.get("VAL"))

    # -- units

    @property
    def sign(self) -> int:
        backward = bool(self.get("DIR"))
        return -1 if backward else 1

    def user(self, dial: float) -> float:
        return float(dial * self.sign + self.get("OFF"))

    def dial(self, user: float) -> float:
        return float((user - self.get("OFF")) * self.sign)

    def raw(self, dial: float) -> int:
        steps: float = dial / self.get("MRES")
        return round(steps)

    async def show_target(self, dial: float) -> None:
        await self.set(VAL=self.user(dial), DVAL=dial, RVAL=self.raw(dial))

    async def show_place(self, dial: float) -> None:
        raw = self.raw(dial)
        await self.set(DRBV=dial, RBV=self.user(dial), RRBV=raw, RMP=raw, REP=raw)
        await self.set(DIFF=self.get("DVAL") - dial, RDIF=self.get("RVAL") - raw)

    async def show_limits(self) -> None:
        """The user limits follow the dial limits, the offset and the direction."""
        ends = sorted((self.user(self.get("DLLM")), self.user(self.get("DHLM"))))
        await self.set(LLM=ends[0], HLM=ends[1])
        await self.describe()

    async def describe(self) -> None:
        """What a client reads as control data: units and precision of all, limits of VAL and RBV."""
        for field in (pair.partition("=")[0] for pair in _DOUBLES.split()):
            await self.server.channels[f"{self.name}.{field}"].write_metadata(
                units=self.get("EGU"), precision=self.get("PREC")
            )
        low, high = self.get("LLM"), self.get("HLM")
        for name in (self.name, f"{self.name}.VAL", f"{self.name}.RBV"):
            await self.server.channels[name].write_metadata(
                units=self.get("EGU"),
                precision=self.get("PREC"),
                lower_ctrl_limit=low,
                upper_ctrl_limit=high,
                lower_disp_limit=low,
                upper_disp_limit=high,
            )

    # -- what a put to a field does

    async def on_put(self, field: str) -> None:
        """Do what the record does; returns when it has finished processing, so when the motor has arrived."""
        value = self.get(field)
        if field in ("VAL", "DVAL", "RVAL"):
            dial = {"VAL": self.dial(value), "DVAL": value, "RVAL": value * self.get("MRES")}[field]
            await (self.call_it if self.get("SET") else self.go)(dial, field)
        elif field == "RLV":
            await self.set(LRLV=value, RLV=0.0)
            await self.go(self.dial(self.get("VAL") + value), field)
        elif field in ("TWF", "TWR") and value:
            await self.set(TWF=0, TWR=0)
            step = self.get("TWV") * (1 if field == "TWF" else -1)
            await self.go(self.dial(self.get("VAL") + step), field)
        elif field in ("JOGF", "JOGR"):
            end = self.get("HLM" if field == "JOGF" else "LLM")
            await (self.go(self.dial(end), field) if value else self.halt())
        elif field in ("HOMF", "HOMR") and value:
            await self.set(HOMF=0, HOMR=0)
            await self.go(0.0, field)
            await self.set(ATHM=1)
        elif (field == "STOP" and value) or (field == "SPMG" and value in (0, 1)):
            await self.halt()
            await self.set(STOP=0)
        elif field in ("OFF", "DIR"):
            await self.show_target(self.get("DRBV"))
            await self.show_place(self.get("DRBV"))
            await self.show_limits()
        elif field in ("HLM", "LLM"):
            ends = sorted((self.dial(self.get("LLM")), self.dial(self.get("HLM"))))
            await self.set(DLLM=ends[0], DHLM=ends[1])
            await self.describe()
        elif field in ("DHLM", "DLLM"):
            await self.show_limits()
        elif field in ("EGU", "PREC"):
            await self.describe()

    async def call_it(self, dial: float, field: str) -> None:
        """In Set mode a position is not gone to: the present one is called so."""
        if field == "VAL" and not self.get("FOFF"):
            await self.set(OFF=self.get("VAL") - self.get("DRBV") * self.sign)
            dial = self.get("DRBV")
        await self.show_place(dial)
        await self.show_target(dial)
        await self.show_limits()

    async def go(self, dial: float, field: str) -> None:
        before = self.get("DRBV") if self.moving is None else self.get("LDVL")
        if field != "RVAL" and not self.get("LLM") <= self.user(dial) <= self.get("HLM"):
            await self.show_target(before)
            await self.set(LVIO=1)
            return
        if self.get("SPMG") in (0, 1):  # Stop, Pause: the target is taken, the motor stays
            await self.show_target(dial)
            return
        await self.halt(keep=True)
        await self.set(LVIO=0, LVAL=self.user(dial), LDVL=dial, LRVL=self.raw(dial))
        await self.show_target(dial)
        self.moving = task = asyncio.ensure_future(self.move(dial))
        await asyncio.wait([task])

    async def move(self, dial: float) -> None:
        place = self.get("DRBV")
        forward = int(dial >= place)
        await self.set(DMOV=0, MOVN=1, MIP=32, TDIR=forward, ATHM=0, MSTA=0x200 | forward)
        try:
            while abs(dial - place) > self.get("VELO") * TICK:
                await asyncio.sleep(TICK)
                place += self.get("VELO") * TICK * (1 if dial > place else -1)
                await self.show_place(place)
            await asyncio.sleep(TICK)
            place = dial
        except asyncio.CancelledError:
            await self.show_target(place)
        await self.show_place(place)
        await self.set(MOVN=0, MIP=0, MSTA=0x2 | forward, DMOV=1)

    async def halt(self, keep: bool = False) -> None:
        """Stop where it is. The put that began the move completes; with `keep` another move follows."""
        task, self.moving = self.moving, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])


class Motors(Server):
    """All motors, and the PVs that were asked for beside them."""

    def __init__(self, given: dict[str, Any]) -> None:
        table: dict[str, Any] = {}
        for name, own in given["motors"].items():
            for field, spec in fields().items():
                told = own.get(field)
                if told is not None:
                    spec = {**spec, "value": told} if isinstance(spec, dict) else type(spec)(told)
                table[f"{name}.{field}"] = spec
            table[name] = table[f"{name}.VAL"]
        super().__init__({**table, **given["pvs"]})
        self.motors = {name: Motor(self, name) for name in given["motors"]}

    async def on_put(self, name: str) -> None:
        record, _, field = name.partition(".")
        motor = self.motors.get(record)
        if motor is None:
            await super().on_put(name)
            return
        if not field:
            await self.write(f"{name}.VAL", self.value(name))
        await motor.on_put(field or "VAL")

    async def started(self, library: Any) -> None:
        for motor in self.motors.values():
            await motor.show_limits()
        await super().started(library)


if __name__ == "__main__":
    asyncio.run(Motors(json.loads(sys.stdin.readline())).serve())
