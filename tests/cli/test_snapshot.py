"""`epicsx snapshot`: its files, what it prints and its exit codes, in processes of its own on the session's IOC."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from epicsx import Snapshot, put_many, snapshot
from epicsx.cli import main
from epicsx.testing import SoftIOC

COMMAND = [sys.executable, "-m", "epicsx", "snapshot"]

RECORDS = {"double": 1.5, "mbbo": 2, "stringout": "text", "w:double": [0.0, 1.0, 2.0]}


@pytest.fixture
def names(ioc: SoftIOC) -> Iterator[list[str]]:
    """Full names of `RECORDS`, which hold that."""
    found = [ioc[name] for name in RECORDS]
    put_many(found, list(RECORDS.values()), wait=True)
    yield found
    put_many(found, list(RECORDS.values()), wait=True)


@pytest.fixture
def saved(names: list[str], tmp_path: Path) -> str:
    """A file with a snapshot of `names`."""
    path = tmp_path / "saved"
    snapshot(names).save(path)
    return str(path)


def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], input=stdin, capture_output=True, text=True, timeout=40.0
    )


# ---- in processes of their own: what ends with one


def test_save_diff_restore(names: list[str], tmp_path: Path) -> None:
    listed, path = tmp_path / "names", tmp_path / "snap"
    listed.write_text(f"# two of them\n\n{names[1]}  # an enum\n{names[2]} {names[0]}\n")
    done = run("save", names[0], "-f", str(listed), "-f", "-", "-o", str(path), stdin=names[3])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"4 of 4 PVs saved in {path}\n"
    assert Snapshot.load(path).name == (names[0], names[1], names[2], names[3])

    done = run("diff", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    put_many(names, [2.5, 0, "other", [0.0, 7.0, 8.0]], wait=True)
    done = run("diff", str(path), "live")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        f"{names[0]}: 1.5 -> 2.5",
        f"{names[1]}: 2 -> 0",
        f"{names[2]}: 'text' -> 'other'",
        f"{names[3]}: 2 of 3 elements, the first [1]: 1.0 -> 7.0",
    ]

    done = run("restore", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"4 of 4 PVs restored from {path}\n"
    assert snapshot(names).diff(Snapshot.load(path)) == []


@pytest.mark.parametrize("what", ["save", "diff", "restore"])
def test_ctrl_c(ioc: SoftIOC, tmp_path: Path, what: str) -> None:
    path = tmp_path / "snap"
    lost = snapshot([ioc["nobody"]], timeout=0)
    lost.value[0], lost.ok[0] = 1.0, True
    lost.save(path)
    words = {
        # the names come from standard input, so that the test knows when it has begun
        "save": ["save", "-f", "-", "-o", str(tmp_path / "new")],
        "diff": ["diff", str(path)],
        "restore": ["restore", str(path)],
    }[what]
    script = """
import sys, threading, _thread, os, signal
from epicsx import _bulk
from epicsx.cli import main
wait = _bulk.connect_all
def waiting(*args):
    print("waiting", flush=True)
    _bulk.connect_all = wait
    return wait(*args)
_bulk.connect_all = waiting
sys.exit(main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, "snapshot", *words, "--timeout", "60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(ioc["nobody"])
        process.stdin.close()
        process.stdin = None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20.0)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, errors) == (130, "", "")
    assert [each.name for each in tmp_path.iterdir()] == ["snap"]


def test_who_reads_its_output_has_gone(names: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, "save", *names, "-o", "-"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=40.0,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("path", "told", "code"), [("-", "", 1), ("/dev/full", "/dev/full: ", 2)])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_full_disk_is_one_line(names: list[str], path: str, told: str, code: int) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "save", *names, "-o", path],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=40.0,
        )
    text = f"epicsx snapshot: {told}No space left on device\n"
    assert (done.returncode, done.stderr) == (code, text)


@pytest.mark.parametrize("words", [[], ["save"], ["diff"], ["restore"]])
def test_help_reads_nothing_heavy(words: list[str]) -> None:
    script = """
import sys
from epicsx.cli import main
try:
    main(["snapshot", *sys.argv[1:], "--help"])
except SystemExit as end:
    assert not end.code
heavy = {"numpy", "epicsx._ca", "epicsx._dbr", "epicsx._snapshot", "epicsx._snapshot_file"}
print("read:", *sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\nread:\n")


# ---- in this one


def test_failures_are_lines_and_code_1(
    ioc: SoftIOC, names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "snap")
    wanted = [names[0], ioc["nobody"], ioc["readonly"]]
    # Those that exist are connected before, and stay so: nothing but "nobody" meets the short timeouts.
    kept = snapshot([*names, ioc["readonly"]], timeout=20.0)
    assert kept.ok.all()
    words = ["snapshot", "save", *wanted, "", "-o", path, "--timeout", "2"]
    assert main(words) == 1
    out, errors = capsys.readouterr()
    assert out == f"2 of 4 PVs saved in {path}\n"
    nobody, empty = errors.splitlines()
    assert ioc["nobody"] in nobody and "'' is no PV name" in empty

    snapshot(wanted, timeout=2.0).save(path)
    assert main(["snapshot", "diff", path, "--timeout", "2"]) == 1
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1 and ioc["nobody"] in errors

    assert main(["snapshot", "restore", path, "--timeout", "5"]) == 1
    out, errors = capsys.readouterr()
    assert out == f"1 of 3 PVs restored from {path}\n"
    assert errors.count("\n") == 2 and ioc["nobody"] in errors and ioc["readonly"] in errors
    assert all(line.startswith("epicsx snapshot: ") for line in errors.splitlines())


def test_diff_of_two_files(
    ioc: SoftIOC, saved: str, names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Snapshot.load(saved)
    other.value[0] = 1.51
    other.value[3] = other.value[3][:2]
    path = str(tmp_path / "other")
    other.save(path)
    assert main(["snapshot", "diff", saved, path]) == 1
    out, errors = capsys.readouterr()
    assert out.splitlines() == [
        f"{names[0]}: 1.5 -> 1.51",
        f"{names[3]}: [0.0, 1.0, 2.0] (3 elements) -> [0.0, 1.0] (2 elements)",
    ]
    assert errors == ""
    assert main(["snapshot", "diff", saved, path, "--rtol", "0.01"]) == 1
    assert names[0] not in capsys.readouterr().out
    snapshot([names[1], ioc["ai"]]).save(path)
    assert main(["snapshot", "diff", saved, path]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{names[0]}: only in the first snapshot",
        f"{names[2]}: only in the first snapshot",
        f"{names[3]}: only in the first snapshot",
        f"{ioc['ai']}: only in the second snapshot",
    ]


def test_a_pv_that_was_read_and_is_lost(
    ioc: SoftIOC, saved: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(saved).read_text().replace(f'"{names[0]}"', f'"{ioc["nobody"]}"')
    Path(saved).write_text(text)
    kept = snapshot(names, timeout=20.0)
    assert kept.ok.all()
    assert main(["snapshot", "diff", saved, "--timeout", "2"]) == 1
    out, errors = capsys.readouterr()
    assert out.startswith(f"{ioc['nobody']}: 1.5 -> not read (get of ")
    assert (out.count("\n"), errors) == (1, "")


def test_to_standard_output(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "save", *names, *names, "-o", "-"]) == 0
    out, errors = capsys.readouterr()
    assert (out.count("\n"), errors) == (1 + len(names), "")


def test_restore_of_some(saved: str, names: list[str]) -> None:
    put_many(names[:2], [0.0, 0], wait=True)
    assert main(["snapshot", "restore", saved, "--only", names[0], "--no-wait"]) == 0
    assert snapshot(names[:2]).value == [1.5, 0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["save", "-o", "{new}"], "no PV name"),
        (["save", "-f", "{empty}", "-o", "{new}"], "no PV name"),
        (["save", "-f", "{none}", "-o", "{new}"], "{none}: No such file"),
        (["save", "-f", "{binary}", "-o", "{new}"], "UTF-8"),
        (["save", "{pv}", "-o", "{folder}"], "{folder}"),
        (["save", "{pv}", "-o", "{none}/deep"], "{none}/deep: No such file"),
        (["restore", "{surrogate}"], "{surrogate}, line 2: a name that is no text"),
        (["diff", "{surrogate}"], "{surrogate}, line 2: a name that is no text"),
        (["diff", "{none}"], "{none}: No such file"),
        (["diff", "{empty}"], "{empty}, line 1: not JSON"),
        (["diff", "{saved}", "{binary}"], "{binary}: not a text"),
        (["restore", "{empty}"], "{empty}, line 1: not JSON"),
        (["restore", "{folder}"], "{folder}: Is a directory"),
        (["restore", "{saved}", "--only", "nobody"], "not in the snapshot: nobody"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(
    ioc: SoftIOC,
    saved: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    files = ("new", "none", "empty", "binary", "folder", "surrogate")
    paths = {name: str(tmp_path / name) for name in files}
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    text = Path(saved).read_text()
    (tmp_path / "surrogate").write_text(text.replace(f'"{ioc["double"]}"', r'"\ud800b"'))
    fill = {**paths, "saved": saved, "pv": ioc["ai"]}
    assert main(["snapshot", *(word.format(**fill) for word in words)]) == 2
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert errors.startswith("epicsx snapshot: ") and told.format(**fill) in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["shoot"],
        ["save", "x"],
        ["diff"],
        ["restore"],
        ["restore", "x", "--timeout", "soon"],
        ["diff", "x", "--rtol", "nan"],
        ["diff", "x", "--atol", "-1"],
        ["diff", "x", "y", "z"],
    ],
)
def test_bad_options_are_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(["snapshot", *words])
    assert info.value.code == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.startswith("epicsx snapshot") and errors.count("\n") == 1
