"""`python -m tests.leaks [channels images] [--long] [--build FOLDER]`: what is left by channels and by frames.

channels: connects, reads, subscribes, closes, 5000 times, or 100 000 with ``--long``. images: an area detector's frames
at 50 Hz for 15 s, or 10 minutes. Afterwards nothing may be lent or alive, no thread or file be left, and from the end
of the first fifth on memory may grow by no more than MEMORY; a leak of 100 bytes a channel is found in the long run.
Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.sanitizers import environment

from epicsx.testing import AreaDetectorIOC, FakePV, FakeServer, Loopback, Repeater
from epicsx.testing._fakeengine import KEPT

MEMORY = 7.5  # MB of 1e6 bytes: less than 100 bytes for each of the 80 000 channels after the first fifth
KINDS = ("channels", "images")
# Freed memory waits in AddressSanitizer's quarantine, to be told from new; it is small here, or it would be the slope.
QUARANTINE = ":quarantine_size_mb=8:thread_local_quarantine_size_kb=64"


def rss() -> float:
    """Resident memory, MB of 1e6 bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024e-6 for line in file if line.startswith("VmRSS"))


def left() -> tuple[int, int, int, int]:
    """What is lent, blocks alive, threads, files."""
    import epicsx

    return (
        int(epicsx._ca.lent()),
        int(epicsx._ca.blocks()),
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
    )


def slope(rows: list[tuple[float, float]]) -> float:
    """Of (step, MB), by least squares: MB a step."""
    count = len(rows)
    mean_x, mean_y = (sum(row[n] for row in rows) / count for n in (0, 1))
    over = sum((x - mean_x) * (y - mean_y) for x, y in rows)
    return over / (sum((x - mean_x) ** 2 for x, _ in rows) or 1.0)


def growth(rows: list[tuple[float, float]]) -> tuple[float, float]:
    """MB a step, and MB in all, from the first fifth on."""
    later = [row for row in rows if row[0] >= rows[-1][0] / 5]
    each = slope(later)
    return each, each * (later[-1][0] - later[0][0])


def judge(what: str, rows: list[tuple[float, float]], before: tuple[int, ...]) -> int:
    """Say what is left; 1 if that is too much."""
    gc.collect()
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        now = left()
        if not any(now[:2]) and now[2] <= before[2] and now[3] <= before[3]:
            break
        time.sleep(0.1)
        gc.collect()
    each, grown = growth(rows)
    wrong = any(now[:2]) or now[2] > before[2] or now[3] > before[3] or grown > MEMORY
    print(
        f"{what}: {rows[-1][0]:.0f}, memory {each * 1e6:+.1f} bytes each, {grown:+.2f} MB from a fifth on, now "
        f"{rows[-1][1]:.0f} MB; lent {now[0]}, blocks {now[1]}, threads {before[2]} to {now[2]}, files {before[3]} to "
        f"{now[3]}: {'LEAKS' if wrong else 'well'}"
    )
    return int(wrong)


def channels(count: int, loopback: Loopback, repeater: int) -> int:
    """Channels that come and go, on a server in this process."""
    import epicsx

    pvs = {f"x{n}": FakePV([1.0] * 100, units="mm") for n in range(50)}
    with FakeServer(pvs, port=loopback.server_port, repeater_port=repeater) as server:
        rows: list[tuple[float, float]] = []

        def some() -> None:
            made = [epicsx.Channel(name) for name in pvs]
            for channel in made:
                channel.connect(20.0)
            for channel in made[:10]:
                channel.get()
                channel.control()
            for channel in made[::2]:
                channel.subscribe(lambda sample: sample.value)
                channel.close()
            # the others, which have no callback, are dropped as they are

        with epicsx.Channel("x0") as kept:  # so that the circuit stays
            kept.connect(20.0)
            while server.seen() < KEPT:  # until the server's log grows no more
                some()
            gc.collect()
            before = left()
            done = 0
            while done < count:
                some()
                done += len(pvs)
                if done % max(500, count // 200) < len(pvs):
                    gc.collect()
                    rows.append((done, rss()))
        return judge("channels", rows, (0, 0, before[2], before[3]))


def images(seconds: float, loopback: Loopback, repeater: int) -> int:
    """Frames of an area detector."""
    import numpy as np

    import epicsx

    frame = np.zeros((512, 512), "uint16")
    with AreaDetectorIOC(
        ftvl="USHORT",
        nelements=frame.size,
        server_port=loopback.server_port,
        repeater_port=repeater,
    ) as ioc:
        rows: list[tuple[float, float]] = []
        read = 0
        before: tuple[int, ...] = ()
        with epicsx.images(ioc.prefix + "image1:") as stream:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                ioc.send(frame)
                image = stream.read(10.0)
                read += image.data.shape == frame.shape
                if read % 25 == 0:
                    rows.append((read, rss()))
                if read == 25:
                    before = left()
                time.sleep(0.01)
            ledger = stream.ledger
        assert ledger.received == ledger.delivered + ledger.merged + ledger.dropped + ledger.pending
        del image, stream
        return judge("images", rows, before)


def main() -> int:
    """Run what is asked for, each in its own process; 1 if there is a leak."""
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="by default both")
    parser.add_argument(
        "--long", action="store_true", help="100 000 channels, 10 minutes of images"
    )
    parser.add_argument("--build", default="", help="folder of a build of epicsx")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    kinds = given.kinds or KINDS
    if not given.here:
        env = environment(given.build)
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + QUARANTINE
        options = ["--long"] if given.long else []
        command = [sys.executable, "-m", "tests.leaks", "--here", *options]
        codes = [
            subprocess.run([*command, kind], env=env, check=False, timeout=7200).returncode
            for kind in kinds
        ]
        return int(any(codes))
    loopback = Loopback()
    os.environ.update(loopback.env)
    repeater = Repeater(loopback.repeater_port).start()
    repeater.wait()
    works: dict[str, Callable[[], int]] = {
        "channels": lambda: channels(100_000 if given.long else 5_000, loopback, repeater.port),
        "images": lambda: images(600.0 if given.long else 15.0, loopback, repeater.port),
    }
    try:
        return max(works[kind]() for kind in kinds)
    finally:
        repeater.stop()


if __name__ == "__main__":
    sys.exit(main())
