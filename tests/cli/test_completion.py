"""`epicsx completion`: the scripts, run by the shells that are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from epicsx.cli import COMMANDS, command_parser, completion, main

TREE = completion.tree(command_parser())


def _script(shell: str) -> str:
    return completion.script(shell, TREE)


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "epicsx.bash"
    path.write_text(_script("bash"))
    return path


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words behind `epicsx`."""
    program = """
    source "$1"; shift
    COMP_WORDS=(epicsx "$@")
    COMP_CWORD=$#
    _epicsx
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", program, "bash", str(script), *words],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=script.parent,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_tree_has_everything() -> None:
    assert [each.words[-1] for each in TREE.commands] == list(COMMANDS)
    snapshot = next(each for each in TREE.commands if each.words[-1] == "snapshot")
    assert [each.words[-1] for each in snapshot.commands] == ["save", "diff", "restore"]
    get = TREE.commands[0]
    names = {name for option in get.options for name in option.names}
    assert {"-h", "-t", "-a", "-d", "-0", "-#", "-l", "--json", "--plot"} <= names
    takes = {name for option in get.options if option.takes for name in option.names}
    assert {"-w", "-p", "-d", "-#", "-e", "-f", "-g", "-l", "-0", "-F"} == takes


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
class TestBash:
    def test_commands(self, bash_script: Path) -> None:
        assert complete(bash_script, "") == list(COMMANDS)
        assert complete(bash_script, "re") == ["record", "repeater"]
        assert complete(bash_script, "snapshot", "") == ["save", "diff", "restore"]

    def test_options(self, bash_script: Path) -> None:
        assert complete(bash_script, "get", "--") == ["--help", "--json", "--csv", "--plot"]
        assert "--every" in complete(bash_script, "monitor", "-n", "some:pv", "--")
        assert "-#" in complete(bash_script, "put", "-")
        assert "--timeout" in complete(bash_script, "snapshot", "save", "--t")
        assert complete(bash_script, "--v") == ["--version"]

    def test_values(self, bash_script: Path) -> None:
        assert complete(bash_script, "completion", "") == ["bash", "zsh", "fish"]
        assert complete(bash_script, "record", "--compression", "") == ["gzip", "lzf"]
        assert complete(bash_script, "get", "-w", "") == []  # a number: nothing can be offered
        assert complete(bash_script, "get", "") == []  # a PV

    def test_files(self, bash_script: Path) -> None:
        (bash_script.parent / "run.h5").touch()
        assert "run.h5" in complete(bash_script, "record", "-o", "")
        assert complete(bash_script, "record", "x", "--output", "run") == ["run.h5"]
        assert "run.h5" in complete(bash_script, "snapshot", "diff", "")

    def test_a_name_with_a_colon_does_no_harm(self, bash_script: Path) -> None:
        # bash breaks words at colons
        assert complete(bash_script, "get", "some", ":", "pv", "--j") == ["--json"]

    def test_it_is_registered(self, bash_script: Path) -> None:
        words = ["bash", "-c", f'source "{bash_script}"; complete -p epicsx']
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.strip() == "complete -F _epicsx epicsx"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_can_read_it() -> None:
    program = 'autoload -Uz compinit && compinit -u -D; eval "$(cat)"; print ${_comps[epicsx]}'
    done = subprocess.run(
        ["zsh", "-f", "-c", program],
        input=_script("zsh"),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "_epicsx", "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [("epicsx re", ["record", "repeater"]), ("epicsx get --j", ["--json"])],
)
def test_fish_completes(tmp_path: Path, line: str, offered: list[str]) -> None:
    path = tmp_path / "epicsx.fish"
    path.write_text(_script("fish"))
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {path}; complete -C '{line}'"],
        capture_output=True,
        text=True,
        timeout=30,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    found = [each.split("\t")[0] for each in done.stdout.splitlines()]
    assert (found, done.stderr) == (offered, "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_prints_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert out == _script(shell)
    assert all(command in out for command in COMMANDS)
