"""What is printed of numbers, texts and stamps, without an IOC: by EPICS base's rules and C's printf."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
from support.tool_cases import GET

from epicsx import Control
from epicsx._printable import printable
from epicsx.cli import _format, _tools
from epicsx.cli._format import Format, Stamps, escaped, stamp_text, unescaped
from epicsx.cli._plot import plotted

NAN = float("nan")
SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    import time

    time.tzset()


# ---- texts


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ~", "plain ~"),
        ("\a\b\f\n\r\t\v", r"\a\b\f\n\r\t\v"),
        ("\\ ' \"", r"\\ \' \""),
        ("\0\x01\x1b\x7f\x80\xff", r"\0\x01\x1b\x7f\x80\xff"),
    ],
)
def test_escaped_and_back(raw: str, shown: str) -> None:
    assert escaped(raw) == shown
    assert unescaped(shown) == raw


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\x4g", "\x04g"),
        (r"\xgh", "gh"),
        (r"\x41B", "AB"),
        (r"\q\e", "qe"),
        ("end\\", "end"),
        (r"\x\n", "\n"),
        (r"\\x41", r"\x41"),
        ("\\x", ""),
    ],
)
def test_unescaped_where_c_has_no_such_escape(written: str, meant: str) -> None:
    assert unescaped(written) == meant


def test_printable_keeps_letters_of_any_language() -> None:
    assert printable("Ä 20 µm 日本") == "Ä 20 µm 日本"
    assert printable("\x1b[2J\r\x9b\u202e\udcff") == r"\x1b[2J\r\x9b\u202e\xff"
    how = Format(terminal=True)
    assert how.shown("Ä".encode().decode("latin-1")) == "Ä".encode().decode("latin-1")
    assert Format().shown("\x1b") == "\x1b"  # for a pipe, the C tools' bytes
    assert how.shown("\x1b[2J\n\x7f") == r"\x1b[2J\n\x7f"


# ---- numbers


@pytest.mark.parametrize(
    ("number", "real", "shown"),
    [
        (1.5, "%g", "1.5"),
        (1e30, "%g", "1e+30"),
        (-0.0, "%g", "-0"),
        (1 / 3, "%-.18g", "0.333333333333333315"),
        (2.5, "%-.0f", "2"),
        (-12345.678901234, "%-.3e", "-1.235e+04"),
        (math.inf, "%g", "inf"),
        (-math.inf, "%-.8f", "-inf"),
        (NAN, "%g", "nan"),
        (-NAN, "%-.2f", "-nan"),
    ],
)
def test_floating_point(number: float, real: str, shown: str) -> None:
    assert Format(real=real).float_text(number) == shown


@pytest.mark.parametrize(
    ("number", "style", "shown"),
    [
        (0, "d", "0"),
        (-2147483648, "d", "-2147483648"),
        (255, "x", "0xFF"),
        (-1, "x", "0xFFFFFFFF"),
        (0, "x", "0x0"),
        (8, "o", "0o10"),
        (-1, "o", "0o37777777777"),
        (5, "b", "101"),
        (0, "b", "0"),
        (-2147483648, "b", "1" + 31 * "0"),
    ],
)
def test_integers(number: int, style: str, shown: str) -> None:
    values = np.array([number], np.int32)
    assert Format(whole=style).texts(_format.LONG, values, None) == [shown]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (2.5, "0x3"),
        (-2.5, "0xFFFFFFFD"),
        (0.0, "0x0"),
        (0.49, "0x0"),
        (2147483647.4, "0x7FFFFFFF"),
        (1e30, "0x80000000"),
        (NAN, "0x80000000"),
        (-math.inf, "0x80000000"),
    ],
)
def test_rounded(number: float, shown: str) -> None:
    assert Format(rounded="x").float_text(number) == shown


def test_every_type_of_element() -> None:
    how, states = Format(), ("Zero", "One")
    assert how.texts(_format.STRING, ["a\tb"], None) == [r"a\tb"]
    assert how.texts(_format.FLOAT, np.array([0.1], np.float32), None) == ["0.1"]
    assert how.texts(_format.CHAR, np.array([0, 127, 128, 255], np.uint8), None) == [
        *("0", "127", "-128", "-1"),
    ]
    assert how.texts(_format.SHORT, np.array([-1], np.int16), None) == ["-1"]
    enums = np.array([1, 2, 16, 65535], np.uint16)
    assert how.texts(_format.ENUM, enums, None) == ["1", "2", "16", "65535"]
    assert how.texts(_format.ENUM, enums, states) == [
        *("One", "Enum Index Overflow (2)", "Illegal Value (16)", "Illegal Value (65535)"),
    ]
    assert Format(enum_numbers=True).texts(_format.ENUM, enums[:1], states) == ["1"]


def test_counts_and_separators() -> None:
    one, none = np.array([4.25]), np.array([])
    both = np.array([1.0, 2.0])
    line = _format.plain_line
    assert line(_format.DOUBLE, one, None, 0, Format()) == "4.25"
    assert line(_format.DOUBLE, one, None, 5, Format()) == "1 4.25"
    assert line(_format.DOUBLE, both, None, 0, Format(separator=",")) == "2,1,2"
    assert line(_format.DOUBLE, none, None, 0, Format()) == ""
    assert line(_format.DOUBLE, none, None, 3, Format()) == "0 "
    tail = _format.wide_tail
    assert tail(_format.DOUBLE, one, 0, 0, 0, Format()) == " 4.25  "
    assert tail(_format.DOUBLE, both, 3, 2, 0, Format(separator=";")) == ";2;1;2;HIHI;MAJOR"
    assert tail(_format.DOUBLE, one, 22, 4, 0, Format()) == " 4.25 ?? ??"
    text = np.frombuffer(b"Hi\t\xc3\0x", np.uint8)
    assert tail(_format.CHAR, text, 0, 0, 0, Format(long_strings=True)) == r" Hi\t\xc3  "
    assert line(_format.CHAR, text[:1], None, 0, Format(long_strings=True)) == "72"
    assert line(_format.CHAR, text[:1], None, 1, Format(long_strings=True)) == "H"
    assert _format.named("x", 1, Format()) == f"{'x':<30} "
    assert _format.named("x", 2, Format()) == "x "
    assert _format.named("x", 1, Format(separator="\0")) == "x\0"


def test_words_of_every_alarm_and_type() -> None:
    assert _format.status_text(11) == "HWLIMIT"
    assert (_format.status_text(-1), _format.severity_text(3)) == ("??", "INVALID")
    assert [_format.type_name(n) for n in (0, 8, 20, 31, 37, 38)] == [
        *("STRING", "STS_SHORT", "TIME_DOUBLE", "CTRL_ENUM", "STSACK_STRING", "CLASS_NAME"),
    ]


def test_limits_of_a_char_are_signed_and_those_of_a_number_always_by_g() -> None:
    control = Control(units="", lower_disp_limit=1.0, upper_disp_limit=200.0)
    lines = _format.details(32, 0, 0, 0, control, None, Format())
    assert lines[3:] == ["    Lo disp limit:           1", "    Hi disp limit:         -56"]
    control = Control(units="mm", precision=3, upper_ctrl_limit=1e9 / 3)
    lines = _format.details(34, 0, 0, 0, control, None, Format(real="%-.12f", rounded="x"))
    assert lines[2:] == [
        "    Units:            mm",
        "    Precision:        3",
        "    Hi ctrl limit:    3.33333e+08",
    ]


# ---- stamps


@pytest.mark.parametrize(
    ("unix_ns", "shown"),
    [
        (0, "<undefined>"),
        (_format.EPICS_EPOCH_NS, "<undefined>"),
        (_format.EPICS_EPOCH_NS + 1, "1990-01-01 00:00:00.000000"),
        (1_600_000_000 * SECOND + 123_456_499, "2020-09-13 12:26:40.123456"),
        (1_600_000_000 * SECOND + 123_456_500, "2020-09-13 12:26:40.123457"),
        (1_600_000_000 * SECOND + 999_999_999, "2020-09-13 12:26:40.999999"),
    ],
)
def test_stamp(unix_ns: int, shown: str) -> None:
    assert stamp_text(unix_ns) == shown


def _told(key: str) -> list[str]:
    stamps = Stamps(key, 1000 * SECOND)
    return [
        stamps.text(pv, server * SECOND, client * SECOND)
        for pv, server, client in (
            ("a", 990, 1001),
            ("b", 993, 1003),
            ("a", 991, 1006),
            ("b", 998, 1010),
        )
    ]


def test_stamps_of_either_side() -> None:
    assert _told("n") == ["", "", "", ""]
    assert _told("s")[0] == stamp_text(990 * SECOND)
    assert _told("c")[2] == f"({stamp_text(1006 * SECOND)})"
    assert _told("sc")[3] == f"{stamp_text(998 * SECOND)}({stamp_text(1010 * SECOND)})"


@pytest.mark.parametrize(
    ("key", "third", "fourth"),
    [
        ("r", (1, 6), (8, 10)),
        ("i", (-2, 3), (7, 4)),
        ("I", (1, 5), (5, 7)),
        ("riI", (1, 5), (5, 7)),
    ],
)
def test_differences(key: str, third: tuple[int, int], fourth: tuple[int, int]) -> None:
    assert _told("sc" + key)[:2] == _told("sc")[:2]  # the first of each PV is absolute
    for place, (server, client) in ((2, third), (3, fourth)):
        assert _told("s" + key)[place] == f"{'':14}{server:+12.6f}"
        assert _told("c" + key)[place] == f"{'':14}({client:+12.6f})"


# ---- the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    for letter in "tn":
        parser.add_argument(f"-{letter}", action="store_true")
    for name in ("-f", "-#", "-F", "--every"):
        parser.add_argument(name)
    parser.add_argument("--json", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("words", "options", "others"),
    [
        (["a", "-t", "b"], ["-t"], ["a", "b"]),
        (["-tnf8", "a"], ["-t", "-n", "-f8"], ["a"]),
        (["-f", "8", "a"], ["-f8"], ["a"]),
        (["-#", "-1", "a"], ["-#-1"], ["a"]),
        (["-F", "", "a"], ["-F", ""], ["a"]),
        (["-F", "-", "a", "-"], ["-F-"], ["a", "-"]),
        (["--every", "-1", "a"], ["--every=-1"], ["a"]),
        (["--ev", "2", "a"], ["--ev=2"], ["a"]),
        (["--every=2", "--json", "a"], ["--every=2", "--json"], ["a"]),
        (["-t", "--", "-n", "a"], ["-t"], ["-n", "a"]),
        (["-q", "a"], ["-q"], ["a"]),
        (["a", "-f"], ["-f"], ["a"]),
    ],
)
def test_options_and_others(words: list[str], options: list[str], others: list[str]) -> None:
    assert _tools.arranged(_parser(), words) == (options, others)


def test_behind_the_first_word_nothing_is_an_option() -> None:
    words = ["-t", "a", "-5", "-n", "--"]
    assert _tools.arranged(_parser(), words, first_ends=True) == (["-t"], ["a", "-5", "-n", "--"])


def test_every_type_of_caget_is_known_by_number_and_name() -> None:
    for number in (*range(35), 37, 38):
        name = _format.type_name(number)
        for text in (str(number), name, f"DBR_{name}", name.lower()):
            assert _tools.dbr_type(text) == number
    assert any("CTRL_CHAR" in case.words for case in GET)


# ---- plots


@pytest.mark.parametrize("braille", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0],
        list(range(1000)),
        [0.0] * 50,
        [NAN, 1.0, math.inf, 2.0],
        [-1.7e308, 1.7e308],
        [5.0],
        [1e-320, 0.0],
    ],
    ids=str,
)
def test_a_plot_keeps_its_place(values: list[float], braille: bool) -> None:
    lines = plotted(values, width=40, height=6, braille=braille)
    assert len(lines) == 6 and max(map(len, lines)) <= 40
    drawn = "".join(line.split("│" if braille else "|")[1] for line in lines)
    assert drawn.strip(" \u2800")
    assert drawn.isascii() != braille


def test_no_peak_is_missed_and_a_gap_is_left() -> None:
    values = [0.0] * 5000
    values[2500] = 7.0
    top, *_ = plotted(values, width=30, height=5, braille=False)
    assert top.startswith("7 |") and top.count("*") == 1
    gap = plotted([1.0, NAN, NAN, 1.0], width=22, height=3, braille=False)[1]
    assert gap.split("|")[1] == "*" * 5 + " " * 10 + "*" * 4
    assert plotted([NAN], width=30) == ["(no numbers)"]


def test_the_folder_of_recordings_is_complete() -> None:
    folder = Path(__file__).parent / "golden"
    assert {path.stem for path in folder.glob("*.json")} == {
        "caget",
        "caput",
        "camonitor",
        "cainfo",
    }
