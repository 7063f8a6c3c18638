"""The soft IOC of the demo: its records, the strip behind its image, and what its client does.

The image is made in the IOC. A strip of 5116 rows is put there once, at the start; for each frame the IOC counts
`frame` up, steps a subArray four rows down the strip and copies 1024 rows into `image`. The first pixel of every row of
the strip is the row's number, high byte first. So the first pixel of an image, divided by four, is a frame counter that
repeats after 1024 frames, and its last row tells whether the image is of one piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ._demo_meters import Frames, Requests

WIDTH, HEIGHT = 1360, 1024
ROW = WIDTH * 3
STEP = 4  # rows per frame
RING = 1024  # frames in the strip; then it begins again
PERIOD = STEP * RING  # rows after which the pattern repeats, so that the eye sees no seam
ROWS = HEIGHT + STEP * (RING - 1)
SAMPLES = 1000  # of the waveform

STATES = ("Standby", "Injecting", "Ramping", "Beam on", "Top-up")
MODES = ("Slow", "Medium", "Fast")

_COLOURS = (
    (4, 6, 24),
    (28, 20, 84),
    (96, 26, 128),
    (176, 44, 112),
    (236, 96, 68),
    (252, 178, 72),
    (255, 246, 206),
)


def scan(rate: float) -> str:
    """The SCAN field of so many per second."""
    return f"{1 / rate:g}".removeprefix("0") + " second"


def database(wave_rate: float, count_rate: float) -> str:
    """The records; `frame` stands still until its SCAN is set."""
    states = " ".join(
        f'field({code}ST, "{name}")'
        for code, name in zip(("ZR", "ON", "TW", "TH", "FR"), STATES, strict=True)
    )
    modes = " ".join(
        f'field({code}ST, "{name}")' for code, name in zip(("ZR", "ON", "TW"), MODES, strict=True)
    )
    return f"""
# the image: strip -> window -> image
record(waveform, "$(P)strip") {{ field(FTVL, "UCHAR") field(NELM, "{ROWS * ROW}") }}
record(calc, "$(P)frame") {{ field(CALC, "VAL+1") field(FLNK, "$(P)step") }}
record(calcout, "$(P)step") {{
    field(INPA, "$(P)frame") field(CALC, "(A%{RING})*{STEP * ROW}") field(OUT, "$(P)window.INDX PP")
}}
record(subArray, "$(P)window") {{
    field(FTVL, "UCHAR") field(MALM, "{ROWS * ROW}") field(NELM, "{HEIGHT * ROW}")
    field(INP, "$(P)strip NPP") field(FLNK, "$(P)image")
}}
record(waveform, "$(P)image") {{
    field(FTVL, "UCHAR") field(NELM, "{HEIGHT * ROW}") field(INP, "$(P)window NPP")
    field(DESC, "{WIDTH} x {HEIGHT} x 3, a new frame each time")
}}

# the waveform: the last {SAMPLES} samples of a bell that is struck again and again
record(calc, "$(P)tick") {{
    field(SCAN, "{scan(wave_rate)}") field(CALC, "VAL+1") field(FLNK, "$(P)signal")
}}
record(calc, "$(P)signal") {{
    field(INPA, "$(P)tick")
    field(CALC, "B:=A%400;EXP(-B/90)*SIN(B/6.5)+0.03*(RNDM-0.5)")
    field(FLNK, "$(P)wave")
}}
record(compress, "$(P)wave") {{
    field(INP, "$(P)signal") field(ALG, "Circular Buffer") field(N, "1") field(NSAM, "{SAMPLES}")
    field(EGU, "V") field(PREC, "3")
}}

# a counter of which every value is posted, and scalars that live
record(calc, "$(P)count") {{ field(SCAN, "{scan(count_rate)}") field(CALC, "VAL+1") }}
record(calc, "$(P)current") {{
    field(SCAN, ".1 second") field(CALC, "VAL<197.5?202:VAL-0.04+0.02*(RNDM-0.5)")
    field(EGU, "mA") field(PREC, "2") field(VAL, "200") field(HIGH, "201.5") field(HSV, "MINOR")
}}
record(calc, "$(P)temperature") {{
    field(SCAN, ".1 second") field(CALC, "21+0.95*(VAL-21)+0.1*(RNDM-0.5)")
    field(EGU, "C") field(PREC, "3") field(VAL, "21")
}}
record(calcout, "$(P)phase") {{
    field(SCAN, "1 second") field(CALC, "(VAL+1)%{len(STATES)}") field(OUT, "$(P)state PP")
}}
record(mbbo, "$(P)state") {{ {states} }}
record(printf, "$(P)message") {{
    field(SCAN, ".5 second") field(FMT, "%s, %.1f mA at count %.0f") field(SIZV, "40")
    field(INP0, "$(P)state") field(INP1, "$(P)current") field(INP2, "$(P)count")
}}

# what is written to
record(ao, "$(P)setpoint") {{ field(EGU, "mm") field(PREC, "3") field(FLNK, "$(P)readback") }}
record(calc, "$(P)readback") {{ field(INPA, "$(P)setpoint") field(CALC, "A") field(EGU, "mm") }}
record(mbbo, "$(P)mode") {{ {modes} }}
record(stringout, "$(P)note") {{ }}

# one acquisition: the put to `acquire` is done when the waveform has been taken, 50 ms later
record(bo, "$(P)acquire") {{
    field(ZNAM, "Done") field(ONAM, "Acquire") field(FLNK, "$(P)exposure")
}}
record(seq, "$(P)exposure") {{
    field(DLY1, "0.05") field(DO1, "1") field(LNK1, "$(P)shot.PROC PP")
    field(DO2, "0") field(LNK2, "$(P)acquire NPP")
}}
record(waveform, "$(P)shot") {{
    field(FTVL, "DOUBLE") field(NELM, "{SAMPLES}") field(INP, "$(P)wave NPP")
    field(FLNK, "$(P)shots")
}}
record(calc, "$(P)shots") {{ field(CALC, "VAL+1") }}
"""


def strip() -> npt.NDArray[np.uint8]:
    """The strip, shape (ROWS, WIDTH, 3): a beam that winds its way down, in bunches, with numbered frames."""
    from PIL import Image, ImageDraw

    from ._demo_picture import font

    rows = np.arange(ROWS, dtype=np.float32)[:, None]
    turn = rows * np.float32(2 * np.pi / PERIOD)
    x = np.arange(WIDTH, dtype=np.float32)[None, :]
    centre = 700 + 230 * np.sin(2 * turn) + 110 * np.sin(5 * turn + 1)
    away = x - centre
    # All periods divide PERIOD. A bunch every 256 rows, wide and narrow in turn.
    along = (rows + 128) % 256 - 128
    width = 46 + 14 * np.sin(8 * turn)
    light = 0.10 + 0.06 * np.cos((x - WIDTH / 2) / 500) + 0.03 * np.sin(2 * turn + x / 300)
    light += 0.30 * np.exp(-((away / 130) ** 2))
    spot = np.exp(-((away / width) ** 2) - (along / 52) ** 2)
    light += 0.62 * spot
    # faint rings around the bunches, as from the edge of a lens
    away *= away
    away += along * along
    np.sqrt(away, out=away)
    light += 0.05 * np.sin(away / 9) * np.exp(-away / 140)
    random = np.random.default_rng(7)
    grain = random.integers(0, 10, size=(HEIGHT, WIDTH), dtype=np.uint8)
    levels = np.clip(light * 240, 0, 245).astype(np.uint8)
    for first in range(0, ROWS, HEIGHT):
        part = levels[first : first + HEIGHT]
        part += grain[: len(part)]
    stops = np.linspace(0, 255, len(_COLOURS))
    table = np.stack(
        [np.interp(np.arange(256), stops, [c[i] for c in _COLOURS]) for i in range(3)], axis=1
    ).astype(np.uint8)
    picture = Image.fromarray(table[levels])
    draw = ImageDraw.Draw(picture)
    text = font(22)
    for frame in range(0, ROWS // STEP, 32):
        y = frame * STEP
        draw.line((6, y, 40, y), fill=(190, 200, 230), width=2)
        draw.text((48, y), f"{frame % RING}", font=text, fill=(190, 200, 230), anchor="lm")
    pixels = np.array(picture)
    number = np.arange(ROWS)
    for byte in range(3):
        pixels[:, 0, byte] = (number >> (16 - 8 * byte)) & 255
    return pixels


def frame_of(pixels: npt.NDArray[np.uint8]) -> tuple[int, bool]:
    """The frame's number in the ring, from its first pixel, and whether its last row belongs to it."""
    first, last = _row(pixels, 0), _row(pixels, (HEIGHT - 1) * ROW)
    return first // STEP, last == first + HEIGHT - 1


def _row(pixels: npt.NDArray[np.uint8], at: int) -> int:
    return int.from_bytes(pixels[at : at + 3].tobytes(), "big")


class Work:
    """What the demo's client does besides listening: called again and again by its working thread."""

    def __init__(self, channels: dict[str, Any], requests: Requests, frames: Frames) -> None:
        self.channel = channels
        self.requests = requests
        self.frames = frames
        self.turn = 0
        self.pixels = np.empty(HEIGHT * ROW, np.uint8)
        self.shot: npt.NDArray[np.float64] | None = None

    def __call__(self) -> float:
        """One turn; the seconds to wait before the next."""
        from .._channel import get_many

        c, requests, turn = self.channel, self.requests, self.turn
        self.turn += 1
        position = round(5 * float(np.sin(turn / 10)), 3)
        requests.timed("put with wait", lambda: c["setpoint"].put(position, wait=True, timeout=2))
        back = requests.timed("get", lambda: c["readback"].get(timeout=2))
        if back is not None and back.value != position:
            requests.fail(f"setpoint {position} was put, but readback is {back.value}")
        if turn % 5 == 1:
            mode = MODES[turn // 5 % len(MODES)]
            requests.timed("put with wait", lambda: c["mode"].put(mode, wait=True, timeout=2))
            text = requests.timed("get as text", lambda: c["mode"].get(dtype=str, timeout=2))
            if text is not None and text.value != mode:
                requests.fail(f"mode {mode} was put, but it is {text.value}")
            note = f"turn {turn}"
            requests.timed("put with wait", lambda: c["note"].put(note, wait=True, timeout=2))
        if turn % 5 == 2:
            names = ("count", "current", "temperature", "state", "message", "setpoint", "frame")
            requests.timed(
                f"get_many of {len(names)}", lambda: get_many([c[n] for n in names], timeout=2)
            )
        if turn % 10 == 3:
            self._acquire()
        if turn % 20 == 4:
            image = requests.timed("get image", lambda: c["image"].get(timeout=5, out=self.pixels))
            if image is not None and not frame_of(image.value)[1]:
                self.frames.torn += 1
        return 0.05

    def _acquire(self) -> None:
        c, requests = self.channel, self.requests
        before = requests.timed("get", lambda: c["shots"].get(timeout=2))
        requests.timed("acquire (50 ms)", lambda: c["acquire"].put(1, wait=True, timeout=5))
        shot = requests.timed("get waveform", lambda: c["shot"].get(timeout=2))
        after = requests.timed("get", lambda: c["shots"].get(timeout=2))
        if before is None or shot is None or after is None:
            return
        self.shot = shot.value
        if after.value != before.value + 1:
            requests.fail(f"one acquisition counted as {after.value - before.value:g}")
