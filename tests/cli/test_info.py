"""`epicsx info`: byte for byte what cainfo prints, and what goes beyond."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support import long_enough
from support.commands import Commands
from support.tool_cases import INFO, PREFIX, Case, compare, golden

from epicsx.testing import SoftIOC


@pytest.mark.parametrize("case", INFO, ids=lambda case: case.key)
def test_the_same_as_cainfo(commands: Commands, tools_env: dict[str, str], case: Case) -> None:
    # a name server that is put aside for a second is not waited for: then a number stands there
    ours = long_enough(
        lambda _: commands.run(*case.ours()), lambda done: "127.0.0.1:" not in done.out
    )
    theirs = compare(case, ours, tools_env)
    assert ours.returncode == golden("cainfo")[case.key]["returncode"]
    if theirs is not None:
        assert ours.stdout == theirs.stdout
    assert len(ours.errors.splitlines()) == (ours.returncode != 0)


def test_the_state_of_the_client(commands: Commands) -> None:
    done = commands.run("info", "-s", "1", PREFIX + "ao")
    assert done.returncode == 0
    assert done.out.startswith("Channel Access Client Context ")
    assert f'Channel "{PREFIX}ao" is connected to' in done.out
    assert commands.run("info", "-s", "1").returncode == 0


def test_json_and_csv(commands: Commands, tools_ioc: SoftIOC) -> None:
    names = [PREFIX + "w:read", PREFIX + "nobody"]
    done = long_enough(
        lambda seconds: commands.run("info", "--json", "-w", str(seconds), *names),
        lambda done: done.out != "",
        0.3,
    )
    assert (done.returncode, done.errors.count("\n")) == (1, 1)
    facts = json.loads(done.out)
    assert facts.pop("host").endswith(f":{tools_ioc.server_port}")
    assert facts == {
        "name": PREFIX + "w:read",
        "state": "connected",
        "read": True,
        "write": False,
        "native_type": "DOUBLE",
        "count": 1,
    }
    done = commands.run("info", "--csv", PREFIX + "wf:char")
    head, row = csv.reader(io.StringIO(done.out))
    assert head == ["name", "state", "host", "read", "write", "native_type", "count"]
    assert row[:2] + row[3:] == [PREFIX + "wf:char", "connected", "True", "True", "CHAR", "5"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no PV name was given"),
        (["-s", "much", "x"], "a level is 0 to 2147483647, not 'much'"),
        (["-a", "x"], "unrecognized arguments: -a"),
    ],
)
def test_bad_input_is_one_line_and_2(commands: Commands, words: list[str], told: str) -> None:
    done = commands.run("info", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.errors.startswith("epicsx info: ") and told in done.errors
    assert done.errors.count("\n") == 1
