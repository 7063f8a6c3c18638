"""The server of `epicsx.testing.ScalerIOC`: scaler records that count, with the calc records of scaler.db beside them.

The fields, their types and what a put does follow scalerRecord.dbd and scalerRecord.c of epics-modules/scaler. Channel
1 counts the clock, FREQ a second; the others count at rates that are told.
"""

from __future__ import annotations

import ast
import asyncio
import operator
from typing import Any

from epicsx.testing._pvset_main import run
from epicsx.testing._records import Record, Records

FOREVER = 1e9
CHANNELS = 16
CALCS = 8
NUMBERS = range(1, CHANNELS + 1)

_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def calculate(text: str, inputs: dict[str, float]) -> float:
    """The value of an arithmetic expression of inputs named A to L, as a calc record has it.

    Raises
    ------
    ValueError
        It is none, or has more than numbers, inputs, ``+ - * / ^`` and parentheses.
    """

    def value(node: ast.AST) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        if isinstance(node, ast.Name) and node.id in inputs:
            return float(inputs[node.id])
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return float(_OPERATORS[type(node.op)](value(node.left), value(node.right)))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return float(_OPERATORS[type(node.op)](value(node.operand)))
        raise ValueError(f"cannot calculate {text!r}")

    try:
        return value(ast.parse(text.upper().replace("^", "**"), mode="eval").body)
    except (SyntaxError, ArithmeticError, OverflowError) as error:
        raise ValueError(f"cannot calculate {text!r}: {error}") from error


class Calc(Record):
    """One calc record; its inputs are the scaler's, A to H from channels 1 to 8, I from its time."""

    rtyp = "calc"
    table = "double: VAL A B C D E F G H I J K L HOPR LOPR\nstring: DESC EGU CALC\nshort: PREC=3"
    readonly = "VAL"
    processing = " ".join(("CALC", *"ABCDEFGHIJKL"))

    async def begin(self) -> None:
        await super().begin()
        for field in ("VAL", *"ABCDEFGHIJKL"):
            channel = self.server.channels[f"{self.name}.{field}"]
            await channel.write_metadata(precision=self.get("PREC"))

    async def on_put(self, field: str) -> None:
        if field in self.processing.split():
            await self.calculate()

    async def calculate(self) -> None:
        try:
            value = calculate(self.get("CALC"), {name: self.get(name) for name in "ABCDEFGHIJKL"})
        except ValueError:
            await self.set_alarm("CALC", 3)
        else:
            await self.set_alarm()
            await self.set(VAL=value)


def _each(field: str, value: str = "") -> str:
    return " ".join(f"{field}{i}{value}" for i in NUMBERS)


class Scaler(Record):
    """One scaler record, and the counters behind it."""

    rtyp = "scaler"
    table = f"""
        double: VAL FREQ=1e7 TP=1 TP1=1 T {_each("PR")} {_each("S")}
        float: VERS=3.19 RATE=10 RAT1 DLY DLY1
        short: SS US NCH={CHANNELS} PREC=3
        string: DESC EGU OUT=@sim COUT COUTP {_each("NM")}
        enum Soft~Channel,Simulation: DTYP=1
        enum Done,Count: CNT PCNT
        enum OneShot,AutoCount: CONT
        enum Up,Dn: D1=1 {_each("D").removeprefix("D1 ")}
        enum N,Y: G1=1 {_each("G").removeprefix("G1 ")}
    """
    readonly = f"VERS PCNT SS US OUT NCH T {_each('S')}"
    processing = "CNT CONT"

    def __init__(self, server: Records, name: str) -> None:
        super().__init__(server, name)
        self.rates: dict[int, float] = {i: 1000.0 * i for i in NUMBERS}
        self.run: asyncio.Task[None] | None = None

    @classmethod
    def fields(cls, own: Any) -> dict[str, dict[str, Any]]:
        return super().fields({k: v for k, v in own.items() if k != "rates"})

    async def begin(self) -> None:
        await super().begin()
        await self.set(PR1=float(round(self.get("TP") * self.get("FREQ"))))
        for field, spec in self.fields({}).items():
            if spec.get("type") in ("double", "float"):
                channel = self.server.channels[f"{self.name}.{field}"]
                precision = 2 if field == "VERS" else self.get("PREC")
                await channel.write_metadata(precision=precision, units=self.get("EGU"))
        if self.get("CONT"):
            self.begin_count(user=False)

    async def on_put(self, field: str) -> None:
        value = self.get(field)
        number = int(field[2:]) if field[:2] == "PR" and field[2:].isdigit() else 0
        if field == "TP":
            await self.set(PR1=float(int(value * self.get("FREQ"))), D1=1, G1=1)
        elif field == "PR1":
            await self.set(TP=value / self.get("FREQ"), D1=1, G1=1)
        elif number and value > 0:
            await self.set(**{f"D{number}": 1, f"G{number}": 1})
        elif field[0] == "G" and field[1:].isdigit() and value and not self.get(f"PR{field[1:]}"):
            await self.set(**{f"PR{field[1:]}": 1000.0})
        elif field == "RATE":
            await self.set(RATE=min(60.0, max(0.0, value)))
        elif field == "CNT" and value != self.get("PCNT"):
            await self.end_count()
            if value:
                self.done.clear()
                await self.set(PCNT=1)
                self.begin_count(user=True)
            else:
                await self.finish()
        elif field == "CONT" and value and self.run is None:
            self.begin_count(user=False)

    def begin_count(self, *, user: bool) -> None:
        self.run = asyncio.ensure_future(self.count(user))

    async def end_count(self) -> None:
        task, self.run = self.run, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def presets(self, user: bool) -> dict[int, float]:
        """Channel -> the count at which counting ends."""
        if not user and self.get("TP1") >= 1e-3:
            return {1: self.get("TP1") * self.get("FREQ")}
        return {i: self.get(f"PR{i}") for i in NUMBERS if self.get(f"G{i}")}

    async def count(self, user: bool) -> None:
        """Count until a preset is reached: once for the user, again and again by itself; puts come between readings."""
        loop = asyncio.get_running_loop()
        delay = self.get("DLY" if user else "DLY1")
        if delay > 0:
            await asyncio.sleep(delay)
        ends = {
            i: preset / (self.get("FREQ") if i == 1 else self.rates[i])
            for i, preset in self.presets(user).items()
            if i == 1 or self.rates[i] > 0
        }
        last = max(0.0, min(ends.values(), default=FOREVER))
        begun = loop.time()
        async with self.turn:
            await self.set(SS=2, US=3 if user else 0)
        rate = self.get("RATE" if user else "RAT1")  # readings a second on the way
        while (gone := loop.time() - begun) < last:
            await asyncio.sleep(last - gone if rate <= 0.1 else min(1 / rate, last - gone))
            if rate > 0.1:
                async with self.turn:
                    await self.show(min(loop.time() - begun, last))
        async with self.turn:
            await self.show(last)
            self.run = None
            await self.finish()

    async def show(self, seconds: float) -> None:
        counts = {1: round(seconds * self.get("FREQ"))}
        counts |= {i: int(seconds * self.rates[i]) for i in NUMBERS[1:]}
        await self.set(T=seconds, **{f"S{i}": float(count) for i, count in counts.items()})
        if self.server.value(f"{self.name}_calcEnable.VAL") == 0:  # ENABLE
            for number in range(1, CALCS + 1):
                calc = self.server.records[f"{self.name}_calc{number}"]
                inputs = {name: self.get(f"S{i}") for i, name in enumerate("ABCDEFGH", 1)}
                async with calc.turn:
                    await calc.set(**inputs, I=seconds)
                    await calc.on_put("A")

    async def finish(self) -> None:
        await self.set(CNT=0, PCNT=0, SS=0, US=0, VAL=self.get("T"))
        self.done.set()
        if self.get("CONT"):
            self.begin_count(user=False)


def make(told: dict[str, Any]) -> Records:
    """Scalers, with their rates and calc records, and further PVs."""
    scalers = told["records"]
    calcs = {
        f"{name}_calc{i}": {"CALC": "ABCDEFGH"[i - 1]}
        for name in scalers
        for i in range(1, CALCS + 1)
    }
    enable = {"value": 0, "states": ["ENABLE", "DISABLE"]}
    control = {"value": 0, "states": ["Counts", "Cts/sec"]}
    pvs = {f"{name}_calcEnable{end}": enable for name in scalers for end in ("", ".VAL")}
    pvs |= {f"{name}_calc_ctrl{end}": control for name in scalers for end in ("", ".VAL")}
    server = Records([(Scaler, scalers), (Calc, calcs)], {**pvs, **told["pvs"]})
    for name, own in scalers.items():
        scaler = server.records[name]
        server.channels[f"{name}_calcEnable"] = server.channels[f"{name}_calcEnable.VAL"]
        server.channels[f"{name}_calc_ctrl"] = server.channels[f"{name}_calc_ctrl.VAL"]
        if isinstance(scaler, Scaler):
            try:
                scaler.rates |= {int(i): float(rate) for i, rate in own.get("rates", {}).items()}
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"{name}: rates are {{channel: counts a second}}") from None
    return server


if __name__ == "__main__":
    run(make)
