"""`epicsx put`: byte for byte what caput prints, and what the records hold afterwards."""

from __future__ import annotations

import json

import pytest
from support import long_enough, wait_until
from support.commands import Commands, Done
from support.tool_cases import PREFIX, PUT, Case, compare, golden, prepare

from epicsx.testing import SoftIOC

CODES = {"caput tools:w:ao": 2}
"""Where the exit code is not caput's: no value is a bad command line."""


@pytest.mark.parametrize("case", PUT, ids=lambda case: case.key)
def test_the_same_as_caput(
    commands: Commands, tools_ioc: SoftIOC, tools_env: dict[str, str], case: Case
) -> None:
    prepare(tools_ioc, case.before)
    ours = commands.run(*case.ours())
    written = {name: tools_ioc.read(name) for name in case.before}
    prepare(tools_ioc, case.before)
    theirs = compare(case, ours, tools_env)
    if theirs is not None:
        assert written == {name: tools_ioc.read(name) for name in case.before}
    code = CODES.get(case.key, golden("caput")[case.key]["returncode"])
    assert ours.returncode == code
    warned = "Warning" in golden("caput")[case.key]["stderr"]
    assert len(ours.errors.splitlines()) == (code != 0 or warned)
    assert ("may be too large" in ours.errors) == warned


# ---- where caput ends with 0 though nothing was written, or writes something else


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("w:ao", "words", "1.5"), ("w:disp", "3", "1"), ("w:long", "x", "2")],
)
def test_a_value_that_the_server_refuses(
    commands: Commands, tools_ioc: SoftIOC, name: str, value: str, shown: str
) -> None:
    if name != "w:disp":
        tools_ioc.write(name, shown)
    done = commands.run("put", PREFIX + name, value)
    line = f"{PREFIX + name:<30} {shown}\n"
    assert (done.returncode, done.out) == (1, f"Old : {line}New : {line}")
    assert done.errors == (
        f"epicsx put: '{PREFIX}{name}': the server refused '{value}': Channel write request failed\n"
    )


def test_a_record_that_takes_long(commands: Commands, tools_ioc: SoftIOC) -> None:
    def idle() -> None:
        wait_until(lambda: tools_ioc.read("w:slow:seq.PACT") == "0", 30.0)

    def too_short(seconds: float) -> Done:
        """The record takes five times as long as is waited for it; the PV has to be found in that time, too."""
        idle()
        tools_ioc.write("w:slow:seq.DLY1", 5 * seconds)
        return commands.run("put", "-c", "-w", str(seconds), PREFIX + "w:slow", "4")

    tools_ioc.write("w:slow", 0)
    usual = tools_ioc.read("w:slow:seq.DLY1")
    try:
        done = long_enough(
            too_short,
            lambda done: "callback operation" in done.errors and "(timeout)" not in done.out,
            0.2,
        )
    finally:
        tools_ioc.write("w:slow:seq.DLY1", usual)
    assert done.returncode == 1
    assert done.out.splitlines()[1] == f"New : {PREFIX + 'w:slow':<30} 4"
    assert "Write callback operation timed out" in done.errors
    idle()
    count = int(float(tools_ioc.read("w:slow:done")))
    done = commands.run("put", "-tc", "-w", "20", PREFIX + "w:slow", "5")
    assert (done.returncode, done.out, done.errors) == (0, "5\n", "")
    assert int(float(tools_ioc.read("w:slow:done"))) == count + 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["w:string", "x" * 40], 1, "a text of 40 bytes, and Channel Access sends 39"),
        (["-a", "w:double", "three", "1", "2"], 2, "the number of values comes first, not 'three'"),
        (["-a", "w:double", "2"], 2, "no value was given"),
        (["w:mbbo", "-1"], 1, "an enum's number is 0 to 65535, not -1"),
        (["w:mbbo", "1abc"], 1, "'1abc' invalid: 'tools:w:mbbo' has the states 'Zero', 'One'"),
        (["-z", "w:ao", "1"], 2, "unrecognized arguments: -z"),
        (["-w", "x", "w:ao", "1"], 2, "a number of seconds is wanted, not 'x'"),
        ([], 2, "PV"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    commands: Commands, tools_ioc: SoftIOC, words: list[str], code: int, told: str
) -> None:
    names = ("w:string", "w:double", "w:mbbo", "w:ao")
    before = {name: tools_ioc.read(name) for name in names}
    done = commands.run("put", *[PREFIX + w if w.startswith("w:") else w for w in words])
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.errors.startswith("epicsx put: ") and told in done.errors
    assert done.errors.count("\n") == 1
    assert {name: tools_ioc.read(name) for name in names} == before


def test_json(commands: Commands, tools_ioc: SoftIOC) -> None:
    tools_ioc.write("w:ao", 1.5)
    done = commands.run("put", "--json", PREFIX + "w:ao", "-2.5")
    facts = json.loads(done.out)
    assert (done.returncode, facts["old"], facts["value"]) == (0, 1.5, -2.5)
    assert facts["name"] == PREFIX + "w:ao" and facts["upper_ctrl_limit"] == 10.0


def test_words_behind_the_pv_are_values(commands: Commands, tools_ioc: SoftIOC) -> None:
    tools_ioc.write("w:string", "old")
    done = commands.run("put", "-t", PREFIX + "w:string", "-t", "--json", "--", "-F,")
    assert (done.returncode, done.out) == (0, "-t --json -- -F,\n")
