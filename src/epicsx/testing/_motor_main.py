"""The server of `epicsx.testing.MotorIOC`: motor records that move.

The fields, their types and their menus, and what a put does, follow motorRecord.dbd and motorRecord.cc of
epics-modules/motor. Positions are dial units inside: user = dial x DIR + OFF, raw = dial / MRES.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, NamedTuple

from epicsx.testing._pvset_main import run
from epicsx.testing._records import SEVERITIES, Record, Records

TICK = 0.02  # seconds between two positions of a moving motor
FAR = 1e9
STOP, PAUSE, MOVE, GO = range(4)  # SPMG
RAW_DIRECTION, DONE, PLUS_SWITCH, HOME, MOVING, MINUS_SWITCH, HOMED = (
    *(0x1, 0x2, 0x4, 0x8),
    *(0x400, 0x2000, 0x4000),
)  # MSTA
DRIVES = "VAL DVAL RVAL RLV TWF TWR"
PER_REVOLUTION = {"VELO": "S", "VBAS": "SBAS", "VMAX": "SMAX", "BVEL": "SBAK"}
UNITS = {
    **dict.fromkeys(("VELO", "VMAX", "BVEL", "VBAS", "JVEL", "HVEL"), "{}/sec"),
    **dict.fromkeys(("ACCL", "BACC"), "sec"),
    **dict.fromkeys(("S", "SBAS", "SBAK"), "rev/sec"),
    "JAR": "{}/s/s",
    "SREV": "steps/rev",
    "UREV": "{}/rev",
}


class Leg(NamedTuple):
    """Where to go, at which speed and acceleration; dial units, seconds."""

    goal: float
    speed: float
    acceleration: float


class Motor(Record):
    """One motor record, and the motor behind it."""

    rtyp = "motor"
    table = f"""
        double: VAL OFF VELO=10 VBAS VMAX S SBAS SMAX ACCL=0.1 ACCS BDST BVEL=1 SBAK BACC=0.5 UREV MRES=0.001
        double: ERES=0.001 RRES HLM LLM DHLM=100 DLLM=-100 RHLM RLLM HOPR=100 LOPR=-100 HIHI LOLO HIGH LOW
        double: RDBD=0.001 SPDB TWV=1 LVAL DVAL LDVL RLV LRLV RBV DRBV DIFF DLY PCOF ICOF DCOF JVEL=1 JAR=1
        double: HVEL=1 ADEL MDEL ALST MLST MSTA=2 MMAP NMAP
        float: VERS=7.3 FRAC=1
        long: SREV=200 RVAL LRVL RDIF RRBV RMP REP RVEL MIP NTMF=2
        short: FOF VOF SSET SUSE CARD PREC=3 HLS LLS RHLS RLLS RCNT RTRY=10 MISS STOP HOMF HOMR JOGF JOGR
        short: TWF TWR CDIR DMOV=1 MOVN LVIO TDIR ATHM PP SYNC IGSET
        string: DESC=motor EGU=mm OUT=@sim RDBL DOL RLNK INIT PREM POST STOO DINP RINP
        enum Soft~Channel,Simulation: DTYP=1
        enum Variable,Frozen: FOFF
        enum Pos,Neg: DIR
        enum Use,Set: SET
        enum Use~ACCL,Use~ACCS: ACCU
        enum supervisory,closed_loop: OMSL
        enum No,Yes: UEIP URIP
        enum Stop,Pause,Move,Go: SPMG=3 LSPG=3
        enum Disable,Enable: CNEN
        enum NO,YES: NTM=1 LOCK
        enum OFF,ON,BUSY: STUP
        enum Default,Arithmetic,Geometric,In-Position: RMOD
        enum Never,Always,NearZero,Conditional: RSTM=2
        {SEVERITIES}: HHSV LLSV HSV LSV HLSV
    """
    readonly = (
        "VERS CARD RHLM RLLM HLS LLS RHLS RLLS RCNT MISS LSPG LVAL LDVL LRVL LRLV RBV DRBV DIFF RDIF CDIR RRBV RMP "
        "REP RVEL DMOV MOVN MSTA LVIO TDIR ATHM PP MIP MMAP NMAP ALST MLST"
    )
    processing = (
        "VAL DVAL RVAL RLV TWF TWR HOMF HOMR JOGF JOGR STOP SPMG OFF DIR HLM LLM DHLM DLLM SREV UREV MRES ERES UEIP "
        "URIP HIHI LOLO HIGH LOW HHSV LLSV HSV LSV HLSV CNEN STUP SYNC"
    )

    def __init__(self, server: Records, name: str) -> None:
        super().__init__(server, name)
        self.place = 0.0
        self.speed = 0.0
        self.legs: list[Leg] = []
        self.button = ""  # the jog or home button whose motion this is
        self.agree = False  # at its end the targets are set to where the motor then is
        self.switches = (-FAR, FAR)  # where the limit switches are
        self.pressed = (False, False)
        self.homed = 0
        self.run: asyncio.Task[None] | None = None

    @classmethod
    def fields(cls, own: Any) -> dict[str, dict[str, Any]]:
        return super().fields({k: v for k, v in own.items() if k != "switches"})

    async def begin(self) -> None:
        await super().begin()
        await self.resolution("MRES")
        for speed in PER_REVOLUTION:
            await self.speeds(speed)
        await self.show_limits()
        await self.show_place()
        await self.agree_targets()

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

    # -- what clients see

    async def finish(self) -> None:
        """Processing is over: puts that wait for it complete."""
        await self.show_alarm()
        await self.set(MIP=0, DMOV=1)
        self.done.set()

    async def unfinished(self) -> None:
        self.done.clear()
        await self.set(DMOV=0)

    async def show_target(self, dial: float, *, last: bool = True) -> None:
        """The drive fields; with `last` also what they are put back to when a later put is refused."""
        user, raw = self.user(dial), self.raw(dial)
        await self.set(VAL=user, DVAL=dial, RVAL=raw)
        if last:
            await self.set(LVAL=user, LDVL=dial, LRVL=raw)

    async def agree_targets(self) -> None:
        await self.show_target(self.get("DRBV"))
        await self.show_difference()

    async def show_difference(self) -> None:
        difference = self.get("DVAL") - self.get("DRBV")
        await self.set(DIFF=difference, RDIF=self.raw(difference))

    async def show_place(self) -> None:
        raw = self.raw(self.place)
        dial = raw * self.get("MRES")
        await self.set(RMP=raw, REP=raw, RRBV=raw, DRBV=dial, RBV=self.user(dial))
        await self.show_difference()
        low, high = self.switches
        pressed = (self.place <= low, self.place >= high)
        if pressed != self.pressed:  # what a test writes to HLS or LLS stays till then
            self.pressed = pressed
            minus, plus = pressed if self.get("MRES") > 0 else pressed[::-1]
            down, up = pressed if self.sign > 0 else pressed[::-1]
            await self.set(RHLS=int(plus), RLLS=int(minus), HLS=int(up), LLS=int(down))
        await self.show_state()

    async def show_state(self) -> None:
        forward = self.get("TDIR") if self.speed == 0 else int(self.speed / self.get("MRES") > 0)
        state = RAW_DIRECTION * forward | (MOVING if self.speed else DONE) | self.homed
        state |= PLUS_SWITCH * self.get("RHLS") | MINUS_SWITCH * self.get("RLLS")
        state |= HOME * self.get("ATHM")
        await self.set(TDIR=forward, RVEL=self.raw(self.speed), MSTA=float(state))
        await self.set(MOVN=int(self.speed != 0))

    async def show_limits(self) -> None:
        """The user and raw limits follow the dial limits, the offset and the direction."""
        low, high = self.get("DLLM"), self.get("DHLM")
        ends = (low, high) if self.sign > 0 else (high, low)
        await self.set(LLM=self.user(ends[0]), HLM=self.user(ends[1]))
        await self.set(RLLM=low / self.get("MRES"), RHLM=high / self.get("MRES"))
        await self.describe()

    async def show_alarm(self) -> None:
        severity = self.get("HLSV")
        if self.get("HLS") or self.get("DVAL") > self.get("DHLM"):
            await self.set_alarm("HIGH", severity)
        elif self.get("LLS") or self.get("DVAL") < self.get("DLLM"):
            await self.set_alarm("LOW", severity)
        else:
            await self.set_alarm()

    async def describe(self) -> None:
        """What a client reads as control data."""
        units = self.get("EGU")
        low, high = sorted(int(self.get(end) / self.get("MRES")) for end in ("DLLM", "DHLM"))
        ranges = {
            **dict.fromkeys(("VAL", "RBV"), (self.get("LLM"), self.get("HLM"))),
            **dict.fromkeys(("DVAL", "DRBV"), (self.get("DLLM"), self.get("DHLM"))),
            **dict.fromkeys(("RVAL", "RRBV"), (low, high)),
            "VELO": (self.get("VBAS"), self.get("VMAX")),
        }
        for field in self.fields({}):
            channel = self.server.channels[f"{self.name}.{field}"]
            if not hasattr(channel, "units"):
                continue
            facts: dict[str, Any] = {"units": UNITS.get(field, "{}").format(units)}
            if hasattr(channel, "precision"):
                facts["precision"] = 2 if field == "VERS" else self.get("PREC")
            if field in ranges:
                for kind in ("ctrl", "disp"):
                    facts[f"lower_{kind}_limit"], facts[f"upper_{kind}_limit"] = ranges[field]
            await channel.write_metadata(**facts)

    # -- what a put does

    async def on_put(self, field: str) -> None:
        value = self.get(field)
        if field in DRIVES.split():
            await self.unfinished()
            await self.drive(field, value)
        elif field in ("JOGF", "JOGR", "HOMF", "HOMR"):
            await self.press(field, bool(value))
        elif (field == "STOP" and value) or field == "SPMG":
            await self.switch(field, value)
        elif field in ("OFF", "DIR"):
            await self.show_target(self.get("DVAL"))
            await self.show_place()
            await self.show_limits()
        elif field in ("HLM", "LLM"):
            upper = (field == "HLM") == (self.sign > 0)
            await self.set(**{"DHLM" if upper else "DLLM": self.dial(value)})
            await self.show_limits()
        elif field in ("DHLM", "DLLM"):
            await self.show_limits()
        elif field in ("SSET", "SUSE", "FOF", "VOF"):
            await self.set(**{"SET" if "S" in field else "FOFF": int(field in ("SSET", "FOF"))})
        elif field in ("MRES", "SREV", "UREV"):
            await self.resolution(field)
        elif field in PER_REVOLUTION or field in PER_REVOLUTION.values():
            await self.speeds(field)
        elif field in ("ACCL", "BACC") and value <= 0:
            await self.set(**{field: 0.1})
        elif field in ("EGU", "PREC"):
            await self.describe()
        elif field == "SYNC" and value:
            await self.set(SYNC=0)
            await self.agree_targets()
        if self.done.is_set():
            await self.show_alarm()

    async def resolution(self, field: str) -> None:
        """MRES = UREV / SREV; the motor's counter is set to where the motor is in dial units."""
        if field == "MRES":
            await self.set(UREV=self.get("MRES") * self.get("SREV"))
        else:
            await self.set(MRES=self.get("UREV") / self.get("SREV"))
        await self.show_place()
        await self.show_target(self.get("DVAL"))
        await self.show_limits()

    async def speeds(self, field: str) -> None:
        """Speeds in units and in revolutions agree; VELO and BVEL lie within VBAS and VMAX."""
        turn = abs(self.get("UREV"))
        for speed, turns in PER_REVOLUTION.items():
            if field == turns:
                await self.set(**{speed: self.get(turns) * turn})
            if field in (speed, turns) and speed in ("VELO", "BVEL"):
                fastest = self.get("VMAX") or FAR
                value = min(max(self.get(speed), self.get("VBAS")), fastest)
                await self.set(**{speed: value})
            await self.set(**{turns: self.get(speed) / turn})

    async def drive(self, field: str, value: Any) -> None:
        """A new position from any of the fields that can tell one."""
        if field in ("TWF", "TWR"):
            step = self.get("TWV") * (1 if field == "TWF" else -1) if value else 0.0
            await self.set(**{field: 0, "VAL": self.get("VAL") + step})
        elif field == "RLV":
            await self.set(VAL=self.get("VAL") + value, RLV=0.0)
        elif field == "RVAL":
            await self.set(DVAL=value * self.get("MRES"))
        if field not in ("DVAL", "RVAL"):
            if self.get("SET") and not self.get("FOFF"):
                # The position is called so in user units; the dial stays.
                await self.set(OFF=self.get("VAL") - self.get("DVAL") * self.sign)
                await self.set(LVAL=self.get("VAL"))
                await self.show_place()
                await self.show_limits()
                await self.finish()
                return
            await self.set(DVAL=self.dial(self.get("VAL")))
        if self.get("SPMG") not in (
            STOP,
            PAUSE,
        ):  # else the target is kept, and the put is not over
            await self.go()

    async def load(self, dial: float) -> None:
        """In Set mode: have the motor's counter say that it is at a position."""
        if not self.get("FOFF"):
            await self.set(OFF=self.get("VAL") - dial * self.sign)
        self.place = dial
        await self.show_place()
        await self.agree_targets()
        await self.show_limits()
        await self.finish()

    async def go(self) -> None:
        """Begin to move to DVAL, or have a motor that moves go there; unless it is there, or may not."""
        dial = self.get("DVAL")
        if self.get("SET"):
            await self.load(dial)
            return
        back = self.get("BDST")
        preferred = (dial > self.get("LDVL")) == (back > 0)
        if self.violates(dial if preferred or not back else dial - back, dial):
            await self.show_target(self.get("LDVL"))
            await self.set(LVIO=1)
        elif self.raw(dial) == self.get("RRBV") and not self.legs:
            await self.set(LVIO=0)
            await self.show_target(dial)
        else:
            speed = self.get("VELO")
            legs = [Leg(dial, speed, (speed - self.get("VBAS") or speed) / self.get("ACCL"))]
            if back and not preferred:
                slow = self.get("BVEL")
                first = legs[0]._replace(goal=dial - back)
                legs = [first, Leg(dial, slow, slow / self.get("BACC"))]
            await self.show_target(dial)
            await self.set(LVIO=0, RCNT=0, CDIR=int(self.get("RDIF") >= 0), MIP=0x20)
            self.start(legs)
            return
        if not self.legs:
            await self.finish()

    def violates(self, end: float, dial: float) -> bool:
        """Whether a move may not be made for the soft limits: both 0 are none, and back into the range one may."""
        low, high, last = self.get("DLLM"), self.get("DHLM"), self.get("LDVL")
        if low == high == 0:
            return False
        if low > high:
            return True
        if last > dial > high or last < dial < low:
            return False
        return not low <= end <= high

    async def press(self, field: str, down: bool) -> None:
        """A jog or home button."""
        if not down:
            if self.button == field:
                await self.halt(agree=True)
            return
        forward = field.endswith("F")
        ends = (self.get("HLM") - self.get("JVEL"), self.get("LLM") + self.get("JVEL"))
        blocked = self.get("HLS" if forward else "LLS") or self.get("SPMG") in (STOP, PAUSE)
        if field.startswith("JOG"):
            at_end = self.get("VAL") > ends[0] if forward else self.get("VAL") < ends[1]
            if at_end and (self.get("DLLM"), self.get("DHLM")) != (0, 0):
                blocked = 1
                await self.set(LVIO=1)
        if blocked or self.legs:
            await self.set(**{field: 0})
            return
        self.button, self.agree = field, True
        await self.unfinished()
        if field.startswith("JOG"):
            goal = FAR * self.sign * (1 if forward else -1)
            self.start([Leg(goal, self.get("JVEL"), self.get("JAR"))], agree=True)
        else:
            speed = self.get("HVEL")
            self.start([Leg(0.0, speed, speed / self.get("ACCL"))], agree=True)

    async def switch(self, field: str, value: int) -> None:
        """Stop, Pause, Move, Go."""
        await self.set(STOP=0)
        if field == "SPMG":
            if value == self.get("LSPG"):
                return
            await self.set(LSPG=value)
        if field == "STOP" or value == STOP:
            if self.legs:
                await self.halt(agree=True)
            elif not self.done.is_set():
                await self.agree_targets()
                await self.finish()
        elif value == PAUSE:
            await self.halt(agree=False)
        elif not self.legs and (not self.done.is_set() or self.get("DIFF")):
            await self.unfinished()
            await self.go()

    # -- moving

    def start(self, legs: list[Leg], *, agree: bool = False) -> None:
        self.legs = legs
        self.agree = agree
        if not agree:
            self.button = ""
        if self.run is None or self.run.done():
            self.run = asyncio.ensure_future(self.motion())

    async def halt(self, *, agree: bool) -> None:
        """Slow down and stand; then the targets `agree` with the place, or the rest of the way is still to go."""
        if self.legs:
            leg = self.legs[0]
            way = math.copysign(self.speed**2 / (2 * leg.acceleration), self.speed)
            self.legs = [leg._replace(goal=self.place + way)]
            self.agree = agree

    def step(self, leg: Leg, seconds: float) -> bool:
        """Be where the motor is some time later; whether that is the goal."""
        way = leg.goal - self.place
        most = min(leg.speed, math.sqrt(2 * leg.acceleration * abs(way)) + self.get("VBAS"))
        wanted = math.copysign(most, way)
        change = leg.acceleration * seconds
        slower = wanted * self.speed > 0 and abs(wanted) < abs(self.speed)
        if slower or abs(wanted - self.speed) <= change:
            self.speed = wanted
        else:
            self.speed += math.copysign(change, wanted - self.speed)
        moved = self.speed * seconds
        if abs(way) < abs(self.get("MRES")) / 2 or (moved * way > 0 and abs(moved) >= abs(way)):
            self.place, self.speed = leg.goal, 0.0
            return True
        self.place += moved
        return False

    async def motion(self) -> None:
        """The motor moves until there is nowhere to go; puts come between its steps."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        async with self.turn:
            await self.set(ATHM=0, MIP=self.get("MIP") or 0x1)
        while True:
            while self.legs:
                await asyncio.sleep(TICK)
                now = loop.time()
                async with self.turn:
                    await self.advance(min(now - before, 5 * TICK))
                before = now
            if self.get("DLY") > 0:
                await asyncio.sleep(self.get("DLY"))
            async with self.turn:  # a put may have come first, and sends it on
                if not self.legs:
                    await self.arrive()
                    return

    async def advance(self, seconds: float) -> None:
        """Be, and tell, where the motor is some time later; a leg that it has gone is over."""
        leg = self.legs[0]
        arrived = self.step(leg, seconds)
        low, high = self.switches
        if (self.place >= high and self.speed > 0) or (self.place <= low and self.speed < 0):
            self.place = min(max(self.place, low), high)
            self.speed = 0.0
            self.legs, self.agree = [], True
        elif self.button.startswith("JOG") and self.runs_out():
            await self.set(LVIO=1, **{self.button: 0})
            await self.halt(agree=True)
            self.button = "stopped"
        if arrived:
            self.legs = [each for each in self.legs if each is not leg]
        await self.show_place()

    def runs_out(self) -> bool:
        """Whether a jog would leave the soft limits within a second."""
        low, high = self.get("LLM"), self.get("HLM")
        if self.get("DLLM") == self.get("DHLM") == 0:
            return False
        up = self.speed * self.sign > 0
        margin, place = self.get("JVEL"), self.get("RBV")
        return bool(place > high - margin if up else place < low + margin)

    async def arrive(self) -> None:
        button, self.button = self.button, ""
        if button.startswith("HOM") and self.place == 0:
            self.homed = HOMED
            await self.set(ATHM=1)
            await self.show_state()
        await self.set(JOGF=0, JOGR=0, HOMF=0, HOMR=0)
        if self.agree:
            await self.agree_targets()
        elif self.get("SPMG") == PAUSE and self.raw(self.get("DIFF")):
            return  # there is a rest to go, and DMOV stays 0 till it is gone
        elif self.get("SPMG") == MOVE:
            await self.set(SPMG=PAUSE, LSPG=PAUSE)
        await self.finish()


def make(told: dict[str, Any]) -> Records:
    """Motors, with their switches, and further PVs."""
    server = Records([(Motor, told["records"])], told["pvs"])
    for name, own in told["records"].items():
        motor = server.records[name]
        if isinstance(motor, Motor) and "switches" in own:
            try:
                low, high = own["switches"]
                motor.switches = (float(low), float(high))
            except (TypeError, ValueError):
                raise ValueError(f"{name}: switches are (low, high), two numbers") from None
    return server


if __name__ == "__main__":
    run(make)
