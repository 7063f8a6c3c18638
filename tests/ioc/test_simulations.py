"""The simulated motor and scaler records of `epicsx.testing`, as a client sees them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import long_enough, wait_until

from epicsx import PV, Motor, PutError, strict
from epicsx.testing import MotorIOC, ScalerIOC

pytest.importorskip("caproto")

SWITCHES = {"VELO": 200.0, "ACCL": 0.05, "DHLM": 0.0, "DLLM": 0.0, "switches": (-10, 12)}

# What EPICS base serves for the types in motorRecord.dbd and scalerRecord.dbd.
MOTOR_TYPES = {
    "double": "VAL DVAL RBV DRBV OFF VELO HLM LLM MRES TWV RDBD BDST MSTA",
    "long": "RVAL RRBV REP RMP RDIF SREV MIP",
    "short": "DMOV MOVN HLS LLS LVIO PREC STOP TWF TWR HOMF JOGF RCNT RTRY MISS TDIR CARD",
    "enum": "SET DIR FOFF SPMG STAT SEVR UEIP OMSL HLSV CNEN RMOD DTYP",
    "string": "DESC EGU RTYP NAME OUT",
    "float": "FRAC VERS",
}
SCALER_TYPES = {
    "double": "VAL FREQ TP TP1 T S1 S16 PR1 PR16",
    "float": "RATE RAT1 DLY DLY1 VERS",
    "short": "SS US NCH PREC",
    "enum": "CNT PCNT CONT G1 G16 D1",
    "string": "NM1 NM16 EGU RTYP",
}


@pytest.fixture(scope="module")
def ports() -> tuple[int, int, int]:
    """Give two ports that clients of this process search, and the repeater's."""
    servers = [int(each.rpartition(":")[2]) for each in os.environ["EPICS_CA_ADDR_LIST"].split()]
    return servers[1], servers[2], int(os.environ["EPICS_CA_REPEATER_PORT"])


@pytest.fixture(scope="module")
def stage(ports: tuple[int, int, int]) -> Iterator[MotorIOC]:
    """Give a motor with limit switches and without soft limits, and one as it comes."""
    able = {"value": 0, "states": ["Enable", "Disable"]}
    records: dict[str, dict[str, Any]] = {
        "s": SWITCHES,
        "m": {"VELO": 200.0, "ACCL": 0.05, "BVEL": 50.0},
    }
    pvs = {"m_able.VAL": able}
    with MotorIOC(records, pvs, server_port=ports[0], repeater_port=ports[2]) as ioc:
        yield ioc


@pytest.fixture(scope="module")
def counter(ports: tuple[int, int, int]) -> Iterator[ScalerIOC]:
    """Give a scaler whose channel 2 counts 100 a second."""
    records = {"sc": {"FREQ": 1e6, "TP": 0.2, "NM1": "clock", "rates": {2: 100.0}}}
    with ScalerIOC(records, server_port=ports[1], repeater_port=ports[2]) as ioc:
        yield ioc


class Patient(PV):
    """A PV that waits for a server that is put aside."""

    def get(self, *args: Any, **options: Any) -> Any:
        return super().get(*args, **{"timeout": 10.0, **options})


Fields = Callable[[str], PV]


def fields_of(ioc: MotorIOC | ScalerIOC, record: str) -> Fields:
    """A function that gives the PV of a field; they are not monitored, so that reads are fresh."""
    made: dict[str, PV] = {}

    def field(name: str) -> PV:
        pv = made.get(name)
        if pv is None:
            pv = made[name] = Patient(ioc.name(f"{record}.{name}"), auto_monitor=False)
            assert pv.wait_for_connection(20.0)
        return pv

    return field


def put(field: Fields, **values: Any) -> None:
    for name, value in values.items():
        assert field(name).put(value, wait=True, timeout=10.0) == 1


def got(field: Fields, *names: str) -> list[Any]:
    return [field(name).get() for name in names]


@pytest.fixture
def m(stage: MotorIOC) -> Iterator[Fields]:
    """Give the fields of the plain motor, at 0 and with everything as it was."""
    field = fields_of(stage, "m")
    put(field, DISP=0, SPMG="Go", STOP=1, SET="Use", FOFF="Variable", DIR="Pos", OFF=0)
    put(
        field,
        DHLM=100,
        DLLM=-100,
        TWV=1,
        BDST=0,
        DLY=0,
        VELO=200,
        JVEL=100,
        JAR=1000,
        HVEL=200,
        VAL=0,
    )
    yield field
    put(field, SPMG="Go", STOP=1)


@pytest.mark.parametrize("kind", MOTOR_TYPES)
def test_motor_fields_have_the_types_of_the_record(stage: MotorIOC, kind: str) -> None:
    field = fields_of(stage, "m")
    for name in MOTOR_TYPES[kind].split():
        assert (name, field(name).type) == (name, f"time_{kind}")


@pytest.mark.parametrize("kind", SCALER_TYPES)
def test_scaler_fields_have_the_types_of_the_record(counter: ScalerIOC, kind: str) -> None:
    field = fields_of(counter, "sc")
    for name in SCALER_TYPES[kind].split():
        assert (name, field(name).type) == (name, f"time_{kind}")


def test_every_field_that_motor_names_is_there(stage: MotorIOC) -> None:
    served = stage.read(*(stage.name(f"m.{field}") for field in Motor._alias.values()))
    assert len(served) == len(Motor._alias)
    assert len(served) > 90


def test_menus_and_access(m: Fields) -> None:
    assert m("SPMG").enum_strs == ("Stop", "Pause", "Move", "Go")
    assert m("DIR").enum_strs == ("Pos", "Neg")
    assert m("SET").enum_strs == ("Use", "Set")
    assert m("STAT").enum_strs[:4] == ("NO_ALARM", "READ", "WRITE", "HIHI")
    assert [m(name).write_access for name in ("RBV", "DMOV", "VAL")] == [False, False, True]


def test_control_data(m: Fields) -> None:
    val = m("VAL")
    assert (val.units, val.precision, val.upper_ctrl_limit, val.lower_disp_limit) == (
        *("mm", 3),
        *(100, -100),
    )
    assert (m("VELO").units, m("ACCL").units, m("RVAL").upper_ctrl_limit) == (
        *("mm/sec", "sec"),
        100_000,
    )


def test_a_move_takes_time_and_completes_at_its_end(m: Fields) -> None:
    seen: list[tuple[str, Any]] = []
    watched = [Patient(m(name).pvname) for name in ("RBV", "DMOV", "MOVN")]
    for pv in watched:
        pv.get()
        pv.add_callback(lambda pvname, value, **kw: seen.append((pvname.rpartition(".")[2], value)))

    def move(seconds: float) -> list[float]:
        """Where it was heard to be on the way."""
        put(m, VELO=200, VAL=0)
        wait_until(lambda: [pv.get() for pv in watched] == [0, 1, 0])
        begun = len(seen)

        def heard(field: str) -> list[Any]:
            return [value for name, value in seen[begun:] if name == field]

        put(m, VELO=30 / seconds, VAL=30)
        # the updates come by themselves: before the end of the put, or behind it
        wait_until(lambda: heard("DMOV")[-2:] == [0, 1] and heard("MOVN")[-2:] == [1, 0])
        wait_until(lambda: heard("RBV")[-1:] == [30])
        return heard("RBV")

    # of a server that is put aside there are less
    places = long_enough(move, lambda places: len(places) > 4, 0.15)
    assert places == sorted(places)
    assert len(places) > 4
    assert got(m, "RBV", "DRBV", "RRBV", "RVAL", "DVAL", "LVAL") == [30, 30, 30000, 30000, 30, 30]
    assert got(m, "DIFF", "RDIF", "MOVN", "RVEL", "TDIR") == [0, 0, 0, 0, 1]
    assert int(m("MSTA").get()) & 0x402 == 2  # done, not moving
    for pv in watched:
        pv.disconnect()


def test_targets_in_all_units(m: Fields) -> None:
    put(m, OFF=5, DIR="Neg", DVAL=2)
    assert got(m, "VAL", "RBV", "RVAL", "HLM", "LLM") == [3, 3, 2000, 105, -95]
    put(m, RVAL=-4000)
    assert got(m, "VAL", "DVAL", "DRBV") == [9, -4, -4]
    put(m, RLV=1)
    assert got(m, "VAL", "DVAL", "RLV") == [10, -5, 0]
    put(m, HLM=50)
    assert got(m, "DLLM", "DHLM", "HLM", "LLM") == [-45, 100, 50, -95]


def test_tweaks(m: Fields) -> None:
    put(m, TWV=2.5, TWF=1)
    assert got(m, "VAL", "RBV", "TWF") == [2.5, 2.5, 0]
    put(m, TWR=1, DLY=0.05)
    put(m, TWR=1)
    assert got(m, "VAL", "RBV", "TWR") == [-2.5, -2.5, 0]


def test_soft_limits(m: Fields) -> None:
    put(m, VAL=5)
    put(m, VAL=101)
    assert got(m, "VAL", "DVAL", "RVAL", "RBV", "LVIO", "DMOV") == [5, 5, 5000, 5, 1, 1]
    put(m, VAL=6)
    assert got(m, "RBV", "LVIO") == [6, 0]
    put(m, DHLM=0, DLLM=0)  # none
    put(m, VAL=120)
    assert got(m, "RBV", "LVIO") == [120, 0]
    put(m, DHLM=100, DLLM=-100)
    put(m, VAL=110)  # back towards the range one may
    assert got(m, "RBV", "LVIO") == [110, 0]
    put(m, DHLM=-100, DLLM=100, VAL=0)
    assert got(m, "RBV", "LVIO") == [110, 1]


def test_limit_switches(stage: MotorIOC) -> None:
    s = fields_of(stage, "s")
    put(s, HLSV="MAJOR", VAL=100)
    assert got(s, "RBV", "VAL", "HLS", "LLS", "RHLS", "DMOV", "LVIO") == [12, 12, 1, 0, 1, 1, 0]
    assert s("SEVR").get(as_string=True) == "MAJOR"
    assert int(s("MSTA").get()) & 0x2004 == 4
    assert s("RBV").severity == 2
    put(s, VAL=-100)
    assert got(s, "RBV", "HLS", "LLS", "RLLS") == [-10, 0, 1, 1]
    put(s, DIR="Neg")
    put(s, VAL=0)
    assert got(s, "RBV", "HLS", "LLS", "SEVR") == [0, 0, 0, 0]
    put(s, VAL=-100)
    assert got(s, "RBV", "DRBV", "LLS", "RHLS") == [-12, 12, 1, 1]
    put(s, DIR="Pos", VAL=0)


def test_stop(m: Fields) -> None:
    put(m, VELO=10)
    drive = m("VAL")
    assert drive.put(80, use_complete=True) == 1
    wait_until(lambda: m("MOVN").get() == 1)
    assert drive.put_complete is False
    put(m, STOP=1)
    wait_until(lambda: drive.put_complete is True)
    place = m("RBV").get()
    assert 0 < place < 80
    assert got(m, "VAL", "DMOV", "MOVN", "STOP") == [place, 1, 0, 0]


def test_puts_to_one_record_follow_each_other(m: Fields) -> None:
    # none waits for the one before it, as those of a client with other things to do
    put(m, VELO=1)
    watched = [Patient(m(name).pvname) for name in ("RBV", "DRBV", "DIFF", "RVEL", "MSTA", "VAL")]
    for pv in watched:
        pv.get()
    for target in (20, 30) * 20:
        for _ in range(3):
            m("VAL").put(target)
        m("STOP").put(1)
        wait_until(lambda: got(m, "DMOV", "MOVN") == [1, 0])
        assert got(m, "VAL") == pytest.approx(got(m, "RBV"))
        m("VAL").put(-target)
        m("STOP").put(1)
        put(m, VAL=got(m, "RBV")[0] + 0.01)  # it comes while the motor stops, and is gone to
        assert got(m, "DMOV", "MOVN") == [1, 0]
        assert got(m, "VAL") == pytest.approx(got(m, "RBV"))


def test_stop_pause_move_go(m: Fields) -> None:
    put(m, VELO=5)
    assert m("VAL").put(60) == 1
    wait_until(lambda: m("MOVN").get() == 1)
    m("SPMG").put("Pause")
    wait_until(lambda: m("MOVN").get() == 0)
    assert got(m, "VAL", "DMOV") == [60, 0]  # there is a rest to go
    assert 0 < m("RBV").get() < 60
    put(m, VELO=50, SPMG="Go")
    assert got(m, "RBV", "DMOV", "LSPG") == [60, 1, 3]
    put(m, SPMG="Pause")
    m("VAL").put(40)
    wait_until(lambda: got(m, "RBV", "VAL", "DMOV") == [60, 40, 0])
    put(m, SPMG="Move")
    assert got(m, "RBV", "SPMG") == [40, 1]
    put(m, SPMG="Stop")
    m("VAL").put(20)
    wait_until(partial(lambda: m("DMOV").get() == 0))
    put(m, STOP=1)
    assert got(m, "RBV", "VAL", "DMOV") == [40, 40, 1]


def test_a_new_target_while_it_moves(m: Fields) -> None:
    put(m, VELO=50)
    first = m("VAL")
    first.put(90, use_complete=True)
    wait_until(lambda: m("RBV").get() > 2)
    put(m, VAL=-1)
    wait_until(lambda: first.put_complete is True)
    assert got(m, "RBV", "VAL", "DMOV") == [-1, -1, 1]


def test_backlash_is_taken_out(m: Fields) -> None:
    seen: list[float] = []
    readback = PV(m("RBV").pvname)
    put(m, BDST=2, VAL=10)
    wait_until(lambda: readback.get() == 10)
    readback.add_callback(lambda value, **kw: seen.append(value))
    put(m, VAL=4)  # against the preferred direction: past it, and back
    assert got(m, "RBV", "VAL") == [4, 4]
    wait_until(lambda: seen and seen[-1] == 4)
    assert min(seen) == pytest.approx(2, abs=0.5)
    readback.disconnect()


def test_jogs(m: Fields) -> None:
    jog = m("JOGF")
    jog.put(1)
    wait_until(lambda: m("RBV").get() > 1)
    jog.put(0)
    wait_until(lambda: m("DMOV").get() == 1)
    place = m("RBV").get()
    assert got(m, "VAL", "MOVN") == [place, 0]
    put(m, JVEL=20, DLLM=-50)
    put(m, JOGR=1)  # till a second before the soft limit
    assert got(m, "LVIO", "JOGR", "DMOV") == [1, 0, 1]
    assert -50 <= m("RBV").get() <= -29
    put(m, JOGR=1)
    assert got(m, "LVIO", "JOGR") == [1, 0]


def test_home(m: Fields) -> None:
    put(m, VAL=7, HOMR=1)
    assert got(m, "RBV", "VAL", "HOMR", "ATHM", "DMOV") == [0, 0, 0, 1, 1]
    assert int(m("MSTA").get()) & 0x4008 == 0x4008
    put(m, VAL=1)
    assert m("ATHM").get() == 0


def test_set_mode(m: Fields) -> None:
    put(m, VAL=5, SET="Set")
    put(m, VAL=20)
    assert got(m, "RBV", "VAL", "OFF", "DRBV", "HLM", "DMOV") == [20, 20, 15, 5, 115, 1]
    put(m, DVAL=1)
    assert got(m, "RBV", "OFF", "DRBV", "RRBV") == [20, 19, 1, 1000]
    put(m, RVAL=3000)
    assert got(m, "RBV", "OFF", "DRBV") == [20, 17, 3]
    put(m, FOFF="Frozen", VAL=30)
    assert got(m, "RBV", "OFF", "DRBV", "RRBV") == [30, 17, 13, 13000]
    put(m, SUSE=1, VOF=1)
    assert got(m, "SET", "FOFF") == [0, 0]
    put(m, SSET=1, FOF=1)
    assert got(m, "SET", "FOFF") == [1, 1]
    put(m, SYNC=1, SET="Use")


def test_resolution_and_speeds(m: Fields) -> None:
    put(m, SREV=100)
    assert got(m, "MRES", "UREV", "RRBV") == [0.002, 0.2, 0]
    put(m, MRES=0.001, SREV=200)
    put(m, MRES=0.001)
    assert got(m, "UREV") == [0.2]
    put(m, S=50)
    assert got(m, "VELO") == [10]
    put(m, VMAX=30, VELO=40)
    assert got(m, "VELO", "SMAX", "S") == [30, 150, 150]
    put(m, VMAX=0, ACCL=-1)
    assert got(m, "ACCL") == [0.1]
    put(m, ACCL=0.05, EGU="deg", PREC=2)
    assert (m("VAL").units, m("JAR").units, m("RBV").precision) == ("deg", "deg/s/s", 2)
    put(m, EGU="mm", PREC=3)


def test_a_disabled_record_refuses_puts(stage: MotorIOC, m: Fields) -> None:
    able = PV(stage.name("m_able.VAL"))
    assert able.put("Disable", wait=True) == 1
    assert m("DISP").get() == 1
    assert m("VAL").put(5, wait=True) is None
    strict()
    try:
        with pytest.raises(PutError):
            m("VAL").put(5, wait=True)
    finally:
        strict(False)
    assert m("RBV").get() == 0
    assert able.put("Enable", wait=True) == 1
    put(m, VAL=5)
    assert m("RBV").get() == 5


def test_a_scaler_counts_for_the_time_that_was_set(counter: ScalerIOC) -> None:
    sc = fields_of(counter, "sc")
    put(sc, TP=0.3)
    assert got(sc, "PR1", "G1", "D1") == [300_000, 1, 1]
    put(sc, CNT=1)
    assert got(sc, "CNT", "S1", "S2", "S3") == [0, 300_000, 30, 900]
    assert got(sc, "T", "VAL") == pytest.approx([0.3, 0.3])
    assert sc("NM1").get() == "clock"
    put(sc, PR1=100_000)
    assert sc("TP").get() == 0.1


def test_presets_of_other_channels(counter: ScalerIOC) -> None:
    sc = fields_of(counter, "sc")
    put(sc, TP=60, PR3=300)
    assert sc("G3").get() == 1
    put(sc, CNT=1)
    assert got(sc, "S3", "S2") == [300, 10]
    put(sc, G3="N", PR3=0, G4="Y")
    assert sc("PR4").get() == 1000
    put(sc, G4="N", TP=0.2)


def test_a_count_can_be_ended(counter: ScalerIOC) -> None:
    sc = fields_of(counter, "sc")
    put(sc, TP=60)
    count = sc("CNT")
    count.put(1, use_complete=True)
    wait_until(lambda: sc("S2").get() > 0)
    assert sc("CNT").get(as_string=True) == "Count"
    put(sc, CNT=0)
    wait_until(lambda: count.put_complete is True)
    assert 0 < sc("T").get() < 60
    put(sc, TP=0.2, RATE=100)
    assert sc("RATE").get() == 60


def test_autocount_goes_on_by_itself(counter: ScalerIOC) -> None:
    sc = fields_of(counter, "sc")
    put(sc, TP1=0.05, CONT="AutoCount")
    for _ in range(2):
        put(sc, TP=0.1, CNT=1)  # a count of the user's comes between
        assert sc("CNT").get() == 0
        wait_until(lambda: sc("T").get() == pytest.approx(0.05))
    put(sc, CONT="OneShot")
    wait_until(lambda: sc("SS").get() == 0)


def test_calc_records_beside_a_scaler(counter: ScalerIOC) -> None:
    sc, enable = fields_of(counter, "sc"), PV(counter.name("sc_calcEnable"))
    calcs = [fields_of(counter, f"sc_calc{i}") for i in range(1, 4)]
    assert (calcs[0]("RTYP").get(), calcs[1]("CALC").get()) == ("calc", "B")
    put(calcs[1], CALC="(C-B)/I^2 + -2*1")
    put(calcs[2], CALC="what?")
    assert calcs[2]("SEVR").get(as_string=True) == "INVALID"
    assert enable.put("ENABLE", wait=True) == 1
    put(sc, TP=0.2, CNT=1)
    assert calcs[0]("VAL").get() == 200_000
    assert calcs[1]("VAL").get() == pytest.approx((600 - 20) / 0.04 - 2)
    put(calcs[2], CALC="D/0")
    put(calcs[2], CALC="c")
    assert (calcs[2]("VAL").get(), calcs[2]("SEVR").get()) == (600, 0)
    assert enable.put("DISABLE", wait=True) == 1
    put(sc, TP=0.1, CNT=1)
    assert calcs[0]("VAL").get() == 200_000
    enable.put("ENABLE", wait=True)


def test_servers_listen_on_loopback_only(stage: MotorIOC, counter: ScalerIOC) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("no /proc/net/tcp")
    for server in (stage, counter):
        sockets = set()
        for link in Path(f"/proc/{server._process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # that of a client of a test before, gone meanwhile
                sockets.add(os.readlink(link))
        addresses = []
        for table in ("tcp", "udp"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if f"socket:[{words[9]}]" in sockets and words[3] in ("0A", "07"):
                    addresses.append(words[1].partition(":")[0])
        assert set(addresses) == {"0100007F"}


def test_without_caproto_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['caproto'] = None; import epicsx.testing as t; t.MotorIOC('m')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "pip install epicsx[test]" in done.stderr.splitlines()[-1]
