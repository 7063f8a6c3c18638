"""What all commands of `epicsx` have in common, and those that are only a door: bench, repeater."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support import run_python, wait_until

from epicsx._repeater import is_taken
from epicsx.cli import COMMANDS, bench, command_parser, main

HEAVY = "numpy epicsx._ca epicsx._dbr epicsx._channel socket ssl asyncio h5py rich"


def test_help_reads_nothing_heavy() -> None:
    found = run_python(
        f"""
        import contextlib, io, sys
        from epicsx.cli import COMMANDS, main
        for words in ([], *[[name] for name in COMMANDS]):
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
                main([*words, "--help"])
            assert shown.getvalue().startswith("usage: epicsx"), words
        print(*[name for name in {HEAVY!r}.split() if name in sys.modules])
        """
    )
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"bench", "run"}))  # they hand options on
def test_an_unknown_option_is_one_line_and_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = {"put": ["x", "1"], "record": ["x", "-o", "y"], "snapshot": ["save", "x"]}
    needed["completion"] = ["bash"]
    with pytest.raises(SystemExit) as end:
        main([name, "--no-such-option", *needed.get(name, ["x"] if name != "demo" else [])])
    out, errors = capsys.readouterr()
    assert (end.value.code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"epicsx {name}") and "Traceback" not in errors


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["caget", "x"], [], ["--nothing"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        out, errors = capsys.readouterr()
        assert (end.value.code, out, errors.count("\n")) == (2, "", 1)
        assert errors.startswith("epicsx: ")


def test_every_command_tells_its_exit_codes_or_hands_on() -> None:
    parser = command_parser()
    for name in COMMANDS:
        command = next(
            action.choices[name] for action in parser._actions if isinstance(action.choices, dict)
        )
        assert command.description
        if name not in ("run", "completion", "bench"):
            assert "Exit codes" in command.format_help(), name


def test_the_names_of_the_c_tools_are_not_taken() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    scripts = text.split("[project.scripts]")[1].split("[")[0].strip()
    assert scripts == 'epicsx = "epicsx.cli:main"'


# ---- standard output and standard error that are closed, or full


def _shell(words: str, *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    line = f"{shlex.quote(sys.executable)} -m epicsx {words}"
    return subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60.0,
    )


def test_a_closed_standard_error_goes_nowhere(tools_env: dict[str, str], tmp_path: Path) -> None:
    found = _shell("get --csv -w 3 tools:ao tools:nobody 2>&-", env=tools_env)
    assert (found.returncode, found.stderr) == (1, "")
    head, row = found.stdout.splitlines()
    assert head.startswith("name,") and row.startswith("tools:ao,")
    path = tmp_path / "run.h5"
    found = _shell(f"record tools:ten -o {path} --frames 2 0<&- 2>&-", env=tools_env)
    assert found.returncode == 0 and found.stdout.startswith("1 scalar: ")


@pytest.mark.parametrize("words", ["get x", "completion bash", "doctor x", "bench --quick"])
def test_a_closed_standard_output_is_one_line_and_1(words: str) -> None:
    found = _shell(f"{words} >&-")
    assert (found.returncode, found.stderr) == (1, "epicsx: standard output is closed\n")


def test_run_leaves_a_closed_standard_output_to_its_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('x')\nprint('told', file=sys.stderr)\nsys.exit(3)\n")
    found = _shell(f"run {script} >&-")
    assert (found.returncode, found.stderr) == (3, "told\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
@pytest.mark.parametrize(
    "words",
    [
        "get tools:ao",
        "get -V",
        "get --help",
        "completion bash",
        "doctor tools:ao",
        "RECORD",
        "DEMO",
    ],
)
def test_a_full_disk_is_one_line_and_1(
    words: str, tools_env: dict[str, str], tmp_path: Path
) -> None:
    words = words.replace("RECORD", f"record tools:ten -o {tmp_path}/run.h5 --frames 2")
    words = words.replace("DEMO", f"demo --pv tools:ten --seconds 1 --picture {tmp_path}/x.png")
    found = _shell(f"{words} > /dev/full", env=tools_env)
    command = words.split()[0]
    told = rf"epicsx {command}: (standard output: )?No space left on device\n"
    assert found.returncode == 1 and re.fullmatch(told, found.stderr), found.stderr


# ---- control characters


def test_messages_have_no_control_characters(tmp_path: Path) -> None:
    odd = "a\x1b]0;b\x07"
    for words in (
        ["get", f"--{odd}", "x"],
        ["get", odd, "-w", "0.05"],
        ["record", "x", "-o", f"{tmp_path}/none{odd}/y"],
        ["record", odd, "-o", f"{tmp_path}/x.h5", "--timeout", "0.05"],
        ["snapshot", "diff", f"{tmp_path}/{odd}"],
        ["doctor", "x", "--also", odd],
        ["run", f"{tmp_path}/{odd}.py"],
        [odd],
    ):
        done = run_python(
            "import sys; from epicsx.cli import main; sys.exit(main(sys.argv[1:]))",
            *words,
            check=False,
        )
        assert done.returncode in (1, 2), words
        assert "\\x1b" in done.stderr and "b\\x07" in done.stderr.replace("\\a", "\\x07"), words
        assert done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable(), words


# ---- bench


def test_bench_without_a_source_tree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages" / "epicsx" / "cli" / "bench.py"
    monkeypatch.setattr(bench, "__file__", str(installed))
    assert main(["bench", "--quick"]) == 2
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert errors.startswith("epicsx bench: the benchmarks are in the source tree only")


@pytest.mark.skipif(
    bench.source_tree() is None, reason="the epicsx that is installed has no source tree"
)
def test_bench_hands_its_words_on() -> None:
    words = [sys.executable, "-m", "epicsx", "bench"]
    helped = subprocess.run([*words, "--", "--help"], capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0 and "usage: python -m benchmarks" in helped.stdout
    refused = subprocess.run(
        [*words, "--rows", "nothing"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1 and "no such row: nothing" in refused.stderr
    unknown = subprocess.run([*words, "--nosuch"], capture_output=True, text=True, timeout=60)
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1)
    assert "unrecognized arguments: --nosuch" in unknown.stderr


# ---- repeater


def test_repeater(free_port: Callable[[], int]) -> None:
    port = free_port()
    env = {**os.environ, "EPICS_CA_REPEATER_PORT": str(port)}
    words = [sys.executable, "-m", "epicsx", "repeater"]
    start = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, preexec_fn=start) as repeater:
        try:
            wait_until(lambda: is_taken(port), 30.0, message="the repeater has its port")
            other = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
            assert (other.returncode, other.stdout) == (1, "")
            assert other.stderr == (
                f"epicsx repeater: UDP port {port} is taken: a repeater runs already\n"
            )
        finally:
            repeater.send_signal(signal.SIGINT)
        assert repeater.wait(20.0) in (-signal.SIGINT, 130)
        assert repeater.stderr is not None and b"Traceback" not in repeater.stderr.read()
