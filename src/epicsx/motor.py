"""The EPICS motor record: `Motor`.

Threads
    Any thread may use a Motor, also inside callbacks. Callbacks run as those of PVs do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import ca, device

if TYPE_CHECKING:
    from .pv import PV

_ALIASES = """
    acceleration=ACCL back_accel=BACC backlash=BDST back_speed=BVEL card=CARD dial_high_limit=DHLM
    direction=DIR dial_low_limit=DLLM settle_time=DLY done_moving=DMOV dial_readback=DRBV
    description=DESC dial_drive=DVAL units=EGU encoder_step=ERES freeze_offset=FOFF
    move_fraction=FRAC hi_severity=HHSV hi_alarm=HIGH hihi_alarm=HIHI high_limit=HLM
    high_limit_set=HLS hw_limit=HLSV home_forward=HOMF home_reverse=HOMR high_op_range=HOPR
    high_severity=HSV integral_gain=ICOF jog_accel=JAR jog_forward=JOGF jog_reverse=JOGR
    jog_speed=JVEL last_dial_val=LDVL low_limit=LLM low_limit_set=LLS lo_severity=LLSV
    lolo_alarm=LOLO low_op_range=LOPR low_alarm=LOW last_rel_val=LRLV last_dial_drive=LRVL
    last_SPMG=LSPG low_severity=LSV last_drive=LVAL soft_limit=LVIO in_progress=MIP missed=MISS
    moving=MOVN resolution=MRES motor_status=MSTA offset=OFF output_mode=OMSL output=OUT
    prop_gain=PCOF precision=PREC readback=RBV retry_max=RTRY retry_count=RCNT retry_deadband=RDBD
    dial_difference=RDIF raw_encoder_pos=REP raw_high_limit=RHLS raw_low_limit=RLLS
    relative_value=RLV raw_motor_pos=RMP raw_readback=RRBV readback_res=RRES raw_drive=RVAL
    dial_speed=RVEL s_speed=S s_back_speed=SBAK s_base_speed=SBAS s_max_speed=SMAX set=SET
    stop_go=SPMG s_revolutions=SREV stop_command=STOP t_direction=TDIR tweak_forward=TWF
    tweak_reverse=TWR tweak_val=TWV use_encoder=UEIP u_revolutions=UREV use_rdbl=URIP drive=VAL
    base_speed=VBAS slew_speed=VELO version=VERS max_speed=VMAX use_home=ATHM deriv_gain=DCOF
    use_torque=CNEN device_type=DTYP record_type=RTYP status=STAT
"""

# What move() answers.
_NOT_A_NUMBER = -13
_OUTSIDE_LIMITS = -12
_UNCONNECTED = -11
_TIMEOUT = -8
_TIMEOUT_BUT_DONE = -7
_UNKNOWN = -5
_SOFT_LIMIT_AFTER_WAIT = -4
_HARD_LIMIT_AFTER_WAIT = -3
_DONE = _BEGUN = 0
_BEGUN_CONFIRMED = 1
_HARD_LIMIT = 3
_SOFT_LIMIT = 4

_RULE = "--------------------------------------"
_TABLE = """#  field               value                 PV name
#------------------------------------------------------------"""


class _WithMessage(Exception):
    """An exception that has its text as ``msg``."""

    def __init__(self, msg: Any, *args: Any) -> None:
        super().__init__(msg, *args)
        self.msg = msg

    def __str__(self) -> str:
        return str(self.msg)


class MotorException(_WithMessage):
    """Something is wrong with a motor."""


class MotorLimitException(_WithMessage):
    """A motor is at a limit."""


class MotorAttributeError(MotorException, AttributeError):
    """A motor has no field of that name."""


class Motor(device.Device):
    """A motor record: its fields as attributes, by their names or by longer ones, and moves.

    >>> motor = Motor('XX:m1')
    >>> motor.move(10, wait=True)               # user units; 0 if all is well
    >>> motor.move(1, relative=True, dial=True)
    >>> motor.get_position(readback=True)
    >>> motor.slew_speed = 2.5                  # the same as motor.VELO = 2.5

    ``_alias`` has the longer names of some 100 fields: drive VAL, readback RBV, dial_drive DVAL, slew_speed VELO,
    acceleration ACCL, high_limit HLM, low_limit LLM, offset OFF, done_moving DMOV, tweak_val TWV, description DESC ...
    ``disabled`` is the record ``XX:m1_able``. Other fields of the record are attributes as well, as of `Device`; an
    attribute that is none answers an error that is both a `MotorException` and an AttributeError.

    Parameters
    ----------
    name : str
        The record, with or without ``.VAL``.
    timeout : float, seconds
        For its connection.

    Raises
    ------
    MotorException
        There is no name, no such record, or it is of another type.
    """

    _extras: Mapping[str, str] = {"disabled": "_able.VAL"}
    _alias: Mapping[str, str] = dict(pair.split("=") for pair in _ALIASES.split())
    _init_list = (
        *("VAL", "DESC", "RTYP", "RBV", "PREC", "TWV", "FOFF", "VELO", "STAT", "SET", "LLM"),
        *("HLM", "SPMG", "LVIO", "HLS", "LLS", "disabled"),
    )
    _nonpvs = ("_prefix", "_pvs", "_delim", "_init", "_init_list", "_alias", "_extras")
    _own = device.Device._own | {"name", "_extra", "_callbacks"}

    def __init__(self, name: str | None = None, timeout: float = 3.0) -> None:
        if name is None:
            raise MotorException("must supply motor name")
        name = name.removesuffix(".VAL").removesuffix(".")
        attrs = [attr for attr in self._init_list if attr not in self._extras]
        super().__init__(name, attrs=attrs, delim=".", timeout=timeout)
        self._aliases = self._alias
        self._callbacks: dict[str, Any] = {}
        if self.get("RTYP") != "motor":
            raise MotorException(f"{name} is not an Epics Motor")
        for attr, suffix in self._extras.items():
            # Not every motor has it: no longer to be waited for than any other attribute.
            self.add_pv(f"{name}{suffix}", attr=attr, timeout=self._grace)

    def __repr__(self) -> str:
        return f"<epics.Motor: {self._prefix}: '{self.DESC}'>"

    def __str__(self) -> str:
        return repr(self)

    def _no_attribute(self, attr: str) -> Exception:
        return MotorAttributeError(f"EpicsMotor has no attribute {attr}")

    # ----------------------------------------------------------------- limits

    def check_limits(self) -> None:
        """Nothing, if the motor is at no limit.

        Raises
        ------
        MotorLimitException
            The last move would have violated a soft limit, or a limit switch is active.
        """
        for field, text in (
            ("LVIO", "Soft limit violation"),
            ("HLS", "High hard limit violation"),
            ("LLS", "Low  hard limit violation"),
        ):
            if self._now(field) != 0:
                raise MotorLimitException(text)

    def within_limits(self, val: float, dial: bool = False) -> bool:
        """Whether a position lies within the soft limits, in user or, if `dial`, dial units."""
        low, high = ("DLLM", "DHLM") if dial else ("LLM", "HLM")
        return bool(self.get(low) <= val <= self.get(high))

    def _now(self, field: str) -> Any:
        """A field as the server has it now: the monitors may be behind a put that has just completed."""
        return self.PV(field).get(use_monitor=False)

    def _at_limit(self) -> str:
        """``'soft'`` or ``'hard'``, or ``''`` if it is at no limit."""
        if self._now("LVIO") == 1:
            return "soft"
        return "hard" if 1 in (self._now("HLS"), self._now("LLS")) else ""

    # ------------------------------------------------------------------ moves

    def move(
        self,
        val: Any = None,
        relative: bool = False,
        wait: bool = False,
        timeout: float = 300.0,
        dial: bool = False,
        step: bool = False,
        raw: bool = False,
        ignore_limits: bool = False,
        confirm_move: bool = False,
    ) -> int:
        """Move to a position; what became of it as a number.

        Parameters
        ----------
        val : float
            The position.
        relative : bool
            Add it to the present target.
        wait : bool
            Return when the move has ended, or after `timeout` seconds.
        dial, raw : bool
            Take it in dial units, or in steps, instead of user units. `step` is an older name of `raw`.
        ignore_limits : bool
            Do not compare it with the soft limits first; positions in steps never are.
        confirm_move : bool
            Without `wait`: look for up to 0.25 seconds whether it has begun to move.

        Returns
        -------
        int
            ===  ==========================================================
            -13  `val` is not a number; not tried
            -12  outside the soft limits; not tried
            -11  not connected; not tried
            -8   not ended within `timeout`
            -7   no answer within `timeout`, but the motor has stopped
            -5   the write failed
            -4   ended, with a soft limit violation (`wait`)
            -3   ended at a limit switch (`wait`)
            0    ended (`wait`), or begun as far as known
            1    begun, and seen to move
            3    not moving, and at a limit switch
            4    not moving, with a soft limit violation
            ===  ==========================================================
        """
        try:
            val = float(val)
        except (TypeError, ValueError):
            return _NOT_A_NUMBER
        step = step or raw
        drive = "DVAL" if dial else "RVAL" if step else "VAL"
        if not self.PV(drive)._ready(0.0):
            return _UNCONNECTED
        if relative:
            val += self._now(drive)
        if not ignore_limits and not step and not self.within_limits(val, dial=dial):
            return _OUTSIDE_LIMITS
        status = self.put(drive, val, wait=wait, timeout=timeout)
        if wait and status == -1:
            return _TIMEOUT if self._now("DMOV") == 0 else _TIMEOUT_BUT_DONE
        if status != 1:
            return _UNKNOWN if self.PV(drive, connect=False)._ready(0.0) else _UNCONNECTED
        if wait:
            ends = {"soft": _SOFT_LIMIT_AFTER_WAIT, "hard": _HARD_LIMIT_AFTER_WAIT}
            return ends.get(self._at_limit(), _DONE)
        if confirm_move or self.get("LVIO") == 1:
            ca.poll(evt=1.0e-2)
        until = time.monotonic() + 0.25
        while confirm_move and self.get("MOVN") == 0 and time.monotonic() < until:
            ca.poll(evt=1.0e-3)
        if self.get("MOVN") == 1:
            return _BEGUN_CONFIRMED
        return {"soft": _SOFT_LIMIT, "hard": _HARD_LIMIT}.get(self._at_limit(), _BEGUN)

    def get_position(
        self, dial: bool = False, readback: bool = False, step: bool = False, raw: bool = False
    ) -> Any:
        """The target, or if `readback` the present position; in user units, dial units or steps (`raw`, `step`)."""
        target, present = ("DVAL", "DRBV") if dial else ("VAL", "RBV")
        if not dial and (step or raw):
            target, present = "RVAL", "RRBV"
        return self.get(present if readback else target)

    def tweak(
        self, direction: str = "foreward", wait: bool = False, timeout: float = 300.0
    ) -> int | None:
        """Move by ``tweak_val``: 0, or -1 if that timed out or ended at a limit.

        Parameters
        ----------
        direction : str
            Backward if it begins with 'rev' or 'back'.
        """
        back = direction.startswith(("rev", "back"))
        status = self.put("TWR" if back else "TWF", 1, wait=wait, timeout=timeout)
        try:
            self.check_limits()
        except MotorLimitException:
            return -1
        return 0 if status == 1 else status

    def set_position(
        self, position: float, dial: bool = False, step: bool = False, raw: bool = False
    ) -> None:
        """Have the present position called `position`, in user units, dial units or steps (`raw`, `step`)."""
        self.put("SET", 1, wait=True)
        try:
            self.put("DVAL" if dial else "RVAL" if step or raw else "VAL", position, wait=True)
        finally:
            self.put("SET", 0)

    def stop(self) -> None:
        """Stop the motor."""
        self.put("STOP", 1)

    def StopNow(self) -> None:
        """Stop the motor."""
        self.stop()

    def make_step_list(
        self, minstep: float = 0.0, maxstep: float | None = None, decades: int = 10
    ) -> list[float]:
        """Steps 1, 2, 5, 10 ... in user units, from `minstep` up to `maxstep` (0.6 of the range), by the precision."""
        if maxstep is None:
            maxstep = 0.6 * abs(self.HLM - self.LLM)
        precision = self.PREC
        steps = [j * 10 ** (i - precision) for i in range(decades) for j in (1, 2, 5)]
        return [step for step in steps if 0.98 * minstep < step <= maxstep]

    # -------------------------------------------------------------- callbacks

    def get_pv(self, attr: str) -> PV:
        """The PV of a field."""
        return self.PV(attr)

    def set_callback(
        self,
        attr: str = "VAL",
        callback: Callable[..., Any] | None = None,
        kws: Mapping[str, Any] | None = None,
    ) -> None:
        """Have `callback` called when a field changes, with ``motor_field`` (`attr`) and `kws` as further keywords."""
        found = self.PV(attr)
        found.get()
        keywords = {"motor_field": attr, **(kws or {})}
        index = found.add_callback(callback=callback, **keywords)
        self._callbacks[self._alias.get(attr, attr)] = index

    def clear_callback(self, attr: str = "drive") -> None:
        """Remove the callback that `set_callback` set last for a field."""
        index = self._callbacks.pop(self._alias.get(attr, attr), None)
        if index is not None:
            self.PV(attr).remove_callback(index=index)

    # ------------------------------------------------------------------- news

    def refresh(self) -> None:
        """Let updates that are waiting come in."""
        ca.poll()

    def get_info(self) -> dict[str, Any]:
        """The main fields' values as text."""
        fields = ("DESC", "VAL", "RBV", "PREC", "VELO", "STAT", "SET", "TWV", "LLM", "HLM", "SPMG")
        return {field: self.get(field, as_string=True) for field in fields}

    def show_info(self) -> None:
        """Print the main fields."""
        ca.poll()
        lines = [f"{field:16s} = {value}" for field, value in self.get_info().items()]
        ca.write("\n".join((repr(self), _RULE, *lines, _RULE)))

    def show_all(self) -> None:
        """Print all fields that have a longer name."""
        fields = {alias: self._alias[alias] for alias in sorted(self._alias)}
        self._add_existing(fields.values())
        lines = [f"# Motor {self._prefix}", _TABLE]
        for alias, field in fields.items():
            found = self._pvs.get(field)
            text = None if found is None or not found._ready(0.0) else found.get(as_string=True)
            text = "Not Connected??" if text is None else text
            lines.append(f" {alias:18s}  {text:18s}  {self._pvname(field)}")
        ca.write("\n".join(lines))
