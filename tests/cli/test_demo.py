"""`epicsx demo`, as a user starts it: in a process of its own, on a real soft IOC."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import run_python, start_python, takes

from epicsx.testing import SoftIOC

pytest.importorskip("rich")
Image = pytest.importorskip("PIL.Image")

COMMAND = [sys.executable, "-X", "faulthandler", "-m", "epicsx", "demo"]


class Demo:
    """A running demo, its standard output line by line."""

    def __init__(self, folder: Path, *args: str, env: dict[str, str] | None = None) -> None:
        self.picture = folder / "demo.png"
        self.popen = subprocess.Popen(
            [*COMMAND, "--picture", str(self.picture), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=folder,
        )
        self._watch = threading.Timer(45.0, self.popen.kill)
        self._watch.start()
        self.out = ""

    def wait_line(self, pattern: str) -> re.Match[str]:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.out += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line like {pattern!r} in\n{self.out}\n{self.finish()[1]}")

    def finish(self) -> tuple[str, str]:
        """The rest of its output, and what it wrote to standard error."""
        rest, errors = self.popen.communicate()
        self._watch.cancel()
        self.out += rest
        return self.out, errors

    @property
    def code(self) -> int:
        assert self.popen.returncode is not None
        return self.popen.returncode


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*args: str, env: dict[str, str] | None = None) -> Demo:
        started.append(Demo(tmp_path, *args, env=env))
        return started[-1]

    yield start
    for each in started:
        each.popen.kill()
        each.finish()


def rows(out: str) -> dict[str, list[str]]:
    """The rows of the summary's first table, by PV."""
    part = re.search(r"^Updates in .*\n +PV .*\n((?:  .*\n)+)", out, re.MULTILINE)
    assert part, out
    return {line.split()[0]: line.split()[1:] for line in part[1].splitlines()}


def balanced(row: list[str]) -> bool:
    received, *rest = (int(cell) for cell in row[:5])
    return received == sum(rest)


# ---- on its own IOC


def test_shows_live_data_and_loses_nothing(demo: Callable[..., Demo]) -> None:
    run = demo("--seconds", "6")
    out, errors = run.finish()
    assert (run.code, errors) == (0, ""), out
    table = rows(out)
    pvs = ["image", "wave", "count", "current", "temperature", "state", "message"]
    assert list(table) == pvs
    for name, row in table.items():
        assert balanced(row), name
        assert row[3] == "0", f"{name} dropped"
        assert int(row[0]) >= 2, f"{name} stands still"
    found = re.search(
        r"image: (\d+) distinct frames, (\d+) repeated, (\d+) skipped .*, (\d+) torn", out
    )
    assert found
    distinct, repeated, _, torn = (int(number) for number in found.groups())
    assert distinct + repeated == int(table["image"][1])
    assert distinct > 20
    assert torn == 0
    assert "values, 0 gaps" in out
    assert re.search(r"put with wait +\d+ +\d+\.\d+ +\d+\.\d+\n", out)
    for kind in ("get", "get as text", "get_many of 7", "acquire", "get waveform", "get image"):
        assert f"\n  {kind}" in out
    assert re.search(r"^OK: \d+ updates received, none dropped", out, re.MULTILINE)
    lines = re.findall(r"^ +\d\.\d s  image .*$", out, re.MULTILINE)
    assert 1 <= len(lines) <= 6


def test_leaves_a_picture_of_image_and_waveform(demo: Callable[..., Demo]) -> None:
    run = demo("--seconds", "3")
    out, _ = run.finish()
    told = re.search(r"picture: .*demo\.png, (\d+) x (\d+)", out)
    assert told
    data = run.picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    size = struct.unpack(">II", data[16:24])
    assert size == (int(told[1]), int(told[2]))
    assert size[0] >= 1360
    assert size[1] >= 1024 + 300
    with Image.open(run.picture) as picture:
        picture.load()
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert len(colours) > 200  # an image, not an empty frame
    assert [path.name for path in run.picture.parent.iterdir()] == ["demo.png"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ends_with_the_summary_when_interrupted(
    demo: Callable[..., Demo], number: signal.Signals, code: int
) -> None:
    run = demo("--seconds", "60")
    run.wait_line(r"^ +\d+\.\d s  image")
    run.popen.send_signal(number)
    out, errors = run.finish()
    assert (run.code, errors) == (code, "")
    assert balanced(rows(out)["image"])
    assert run.picture.exists()


def test_interrupted_before_it_began(demo: Callable[..., Demo]) -> None:
    run = demo("--seconds", "60")
    run.wait_line("starting the soft IOC")
    run.popen.send_signal(signal.SIGINT)
    _, errors = run.finish()
    assert (run.code, errors) == (130, "")


def test_a_gap_of_the_counter_fails(demo: Callable[..., Demo]) -> None:
    run = demo("--seconds", "10")
    port = run.wait_line(r"soft IOC DEMO: on 127\.0\.0\.1:(\d+)")[1]
    script = """
        import epicsx
        with epicsx.Channel("DEMO:count") as channel:
            channel.connect(20.0)
            print("ready")
            input()
            channel.put(channel.get().value + 1000, wait=True)
    """
    env = {"EPICS_CA_SERVER_PORT": port, "EPICS_CA_ADDR_LIST": "127.0.0.1"}
    with start_python(script, env=env) as somebody:
        somebody.wait_line("ready")
        run.wait_line(r"^ +\d+\.\d s  image")
        # Somebody sets the counter: its increments from there to here never were.
        somebody.send("now")
        somebody.finish()
    out, _ = run.finish()
    assert run.code == 1
    assert re.search(
        r"^FAILED: count: \d{3,4} increments of the counter never arrived", out, re.MULTILINE
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_live_view_on_a_terminal(tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        env.pop(name, None)
    with subprocess.Popen(
        [*COMMAND, "--seconds", "4", "--picture", str(tmp_path / "demo.png")],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=env,
    ) as popen:
        os.close(theirs)
        watch = threading.Timer(45.0, popen.kill)
        watch.start()
        data = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not chunk:
                break
            data += chunk
        assert popen.stderr is not None
        errors = popen.stderr.read()
        code = popen.wait()
        watch.cancel()
    os.close(ours)
    out = data.decode()
    assert (code, errors) == (0, b""), out[-3000:]
    assert "▀" in out  # the image
    assert re.search("[\u2801-\u28ff]", out)  # the waveform
    assert "distinct" in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") >= 1  # the cursor is back
    assert "none dropped" in out


# ---- on PVs of one's own


def test_own_pvs_of_every_kind(demo: Callable[..., Demo], ioc: SoftIOC) -> None:
    names = ["cnt:100hz", "mbbi", "stringin", "wf:double:n", "wf:string:n", "wf:double:0", "udf"]
    run = demo("--seconds", "4", *(f"--pv={ioc[name]}" for name in names))
    out, errors = run.finish()
    assert (run.code, errors) == (0, ""), out
    table = rows(out)
    assert list(table) == [ioc[name] for name in names]
    assert all(balanced(row) for row in table.values())
    assert int(table[ioc["cnt:100hz"]][0]) > 50
    assert "soft IOC" not in out
    for kind in ("scalar", "enum", "text", "waveform", "strings"):
        assert f"\n  get {kind} " in out
    assert "put" not in out
    with Image.open(run.picture) as picture:
        assert picture.size[0] >= 1360


def test_writes_to_own_pvs_only_when_told(demo: Callable[..., Demo], ioc: SoftIOC) -> None:
    ioc.write("puts:n", 0)
    demo("--seconds", "0.5", "--pv", ioc["puts"]).finish()
    assert ioc.read("puts:n") == "0"
    run = demo("--seconds", "3", "--write", "--pv", ioc["puts"])
    out, _ = run.finish()
    assert run.code == 0
    assert re.search(r"put scalar with wait +\d", out)
    assert int(ioc.read("puts:n")) > 0


def test_a_lost_connection_fails(
    demo: Callable[..., Demo], own_ioc: Callable[..., SoftIOC]
) -> None:
    server = own_ioc('record(calc, "$(P)x") { field(SCAN, ".1 second") field(CALC, "VAL+1") }')
    run = demo("--seconds", "6", "--pv", server["x"], env=server.env)
    run.wait_line(r"^ +\d+\.\d s ")
    server.kill()
    out, _ = run.finish()
    assert run.code == 1
    assert "the connection was lost" in out
    assert balanced(rows(out)[server["x"]])


# ---- what cannot begin


def test_an_unknown_pv_is_one_line(demo: Callable[..., Demo], ioc: SoftIOC) -> None:
    def attempt() -> None:
        run = demo("--pv", ioc["no:such:pv"], "--timeout", "0.5")
        out, errors = run.finish()
        assert run.code == 2
        assert out == ""
        assert errors.count("\n") == 1
        assert ioc["no:such:pv"] in errors
        assert not run.picture.exists()

    takes(0.5, 10.0, attempt)


def test_no_access_is_one_line(demo: Callable[..., Demo], ioc: SoftIOC) -> None:
    for args in (["--pv", ioc["noaccess"]], ["--write", "--pv", ioc["readonly"]]):
        run = demo(*args)
        _, errors = run.finish()
        assert run.code == 2
        assert errors.count("\n") == 1
        assert "access" in errors


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--seconds", "soon"], "a number of seconds above 0 is wanted"),
        (["--seconds", "0"], "above 0"),
        (["--seconds", "nan"], "above 0"),
        (["--image-rate", "3"], "1, 2, 5 or 10 to 100"),
        (["--count-rate", "1001"], "1, 2, 5 or 10 to 1000"),
        (["--write"], "--write goes with --pv"),
        (["--picture", "/no/such/folder/x.png"], "cannot write the picture"),
        (["--picture", "x.word"], "what kind of picture"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_options(demo: Callable[..., Demo], args: list[str], says: str) -> None:
    run = demo(*args)
    out, errors = run.finish()
    assert run.code == 2
    assert out == ""
    assert says in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("missing", ["rich", "PIL", "epicscorelibs"])
def test_a_missing_extra_is_one_line(missing: str) -> None:
    result = run_python(
        """
        import sys
        sys.modules[sys.argv[1]] = None
        from epicsx.cli import main
        sys.exit(main(["demo"]))
        """,
        missing,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "pip install 'epicsx[demo]'" in result.stderr


@pytest.mark.parametrize(
    "argv", [["--help"], ["demo", "--help"], ["record", "--help"], ["--version"]]
)
def test_help_reads_nothing_heavy(argv: list[str]) -> None:
    result = run_python(
        """
        import sys
        from epicsx.cli import main
        try:
            main(sys.argv[1:])
        except SystemExit as end:
            assert not end.code
        heavy = {"numpy", "h5py", "rich", "PIL", "epicsx._ca", "epicsx._dbr", "epicsx.testing", "asyncio"}
        print("read:", *sorted(heavy & set(sys.modules)))
        """,
        *argv,
    )
    assert result.stdout.endswith("\nread:\n")


# ---- what it counts


def fed(meter: Any, *samples: Any) -> Any:
    for sample in samples:
        meter.examine(sample)
    return meter


def test_a_counter_counts_its_gaps(ioc: SoftIOC) -> None:
    from epicsx import Channel
    from epicsx.cli._demo_meters import Counter

    with Channel(ioc["cnt:100hz"]).connect() as channel:
        for values, gaps in (
            ((5, 6, 7), 0),
            ((5, 5, 6), 0),
            ((5, 8, 9), 2),
            ((5, 8, 10), 3),
            ((5, 6, 1), 1),  # it began again
        ):
            meter = fed(Counter(channel), *(SimpleNamespace(value=float(v)) for v in values))
            assert meter.gaps == gaps, values
            assert bool([f for f in meter.failures() if "increments" in f]) == bool(gaps)


def test_frames_are_counted_around_the_ring(ioc: SoftIOC) -> None:
    from epicsx import Channel
    from epicsx.cli._demo_meters import Frames

    def frame(number: int, whole: bool = True, seconds: float | None = None) -> Any:
        stamp = number / 25 if seconds is None else seconds
        return SimpleNamespace(count=1, value=(number % 16, whole), timestamp=stamp)

    with Channel(ioc["big:char"]).connect() as channel:

        def frames(*samples: Any) -> Any:
            return fed(Frames(channel, "image", lambda v: v, 16, 25.0), *samples)

        found = frames(*(frame(n) for n in range(40)))
        assert (found.frame, found.distinct, found.skipped, found.repeated) == (39, 40, 0, 0)
        found = frames(frame(14), frame(15), frame(18))
        assert (found.frame, found.distinct, found.skipped) == (18, 3, 2)
        found = frames(frame(3), frame(3), frame(4))
        assert (found.distinct, found.repeated) == (2, 1)
        # whole laps of silence are told by the clock
        found = frames(frame(3), frame(3 + 16), frame(3 + 16 + 33))
        assert (found.frame, found.distinct, found.skipped) == (52, 3, 15 + 32)
        # a stamp may be that of the frame before: it makes no lap
        found = frames(frame(15), frame(16, seconds=15 / 25), frame(17))
        assert (found.distinct, found.skipped, found.repeated) == (3, 0, 0)
        found = frames(frame(1), frame(2, whole=False))
        assert found.torn == 1
        assert any("one piece" in f for f in found.failures())


def test_the_counter_in_the_pixels() -> None:
    from epicsx.cli import _demo_ioc as ioc_side

    strip = ioc_side.strip()
    assert strip.shape == (ioc_side.ROWS, ioc_side.WIDTH, 3)
    flat = strip.reshape(-1)
    size = ioc_side.HEIGHT * ioc_side.ROW
    for number in (0, 1, 255, 256, ioc_side.RING - 1):
        begin = number * ioc_side.STEP * ioc_side.ROW
        image = flat[begin : begin + size]
        assert len(image) == size
        assert ioc_side.frame_of(image) == (number, True)
    torn = np.concatenate(
        [flat[: size // 2], flat[size // 2 + 4 * ioc_side.ROW : size + 4 * ioc_side.ROW]]
    )
    assert ioc_side.frame_of(torn) == (0, False)
