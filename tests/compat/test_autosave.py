"""autosave: what is saved is restored exactly; both dialects of save files; request files and their macros."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run_python, wait_until

import epicsx
from epicsx import caget, caput
from epicsx.autosave import AutoSaver, RequestFileError, restore_pvs, save_pvs
from epicsx.autosave.save_restore import _parse_request_file
from epicsx.testing import SoftIOC


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def saved(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[0].startswith("# ")
    assert lines[-2:] == ["<END>", ""]
    return dict(line.partition(" ")[::2] for line in lines[2:-2])


VALUES = [
    ("double", 0.1 + 0.2),
    ("double", -1.7976931348623157e308),
    ("double", 5e-324),
    ("double", math.nan),
    ("double", math.inf),
    ("longout", -2147483648),
    ("mbbo", 3),
    ("stringout", ""),
    ("stringout", 'say "hello" \\ to # everybody'),
    ("stringout", "two\nlines\tand a tab"),
    ("stringout", "  blanks  around"),
    ("stringout", "Température 20 µm"),
    ("stringout", "@array@ [1]"),
    ("stringout", '@json@ "x"'),
    ("stringout", "\x01\x7f"),
    ("w:double", [0.1, -2.5e-300, math.inf]),
    ("w:double", [7.0]),
    ("w:double", []),
    ("w:float", [np.float32(0.1), np.float32(3e38)]),
    ("w:long", [2147483647, -1]),
    ("w:string", ["a b", "", 'q"uo\\te', "new\nline", "é"]),
    ("w:char", "a text of characters"),
    ("w:char", "two\nlines, é"),
    ("w:uchar", [1, 0, 2, 255]),
]


@pytest.mark.parametrize(("record", "value"), VALUES, ids=lambda v: ascii(v)[:20])
def test_what_was_saved_is_restored(
    ioc: SoftIOC, tmp_path: Path, record: str, value: object
) -> None:
    channel = epicsx.Channel(ioc[record])
    channel.put(value, wait=True)
    before = channel.get().value
    request = write(tmp_path / "x.req", ioc[record] + "\n")
    save_pvs(request, tmp_path / "x.sav")
    assert len((tmp_path / "x.sav").read_text(encoding="utf-8").splitlines()) == 4
    other: object = "other" if isinstance(value, str) else [9, 9] if record[:2] == "w:" else 1
    channel.put(["other"] if record == "w:string" else other, wait=True)
    assert restore_pvs(tmp_path / "x.sav") is True
    after = channel.get().value  # behind it on the same circuit
    if record == "w:char":
        before, after = (bytes(x).partition(b"\0")[0] for x in (before, after))
    np.testing.assert_array_equal(after, before)
    if record == "double":
        channel.put(1.0, wait=True)  # no infinity, and what is no number, for the tests after this
    channel.close()


def test_the_format_is_that_of_pyepics(ioc: SoftIOC, tmp_path: Path) -> None:
    for record, value in (("double", 2.5), ("mbbo", 1), ("w:char", "text"), ("stringout", "a b")):
        caput(ioc[record], value, wait=True)
    caput(ioc["w:long"], [1, 2, 3], wait=True)
    names = ["double", "mbbo", "w:char", "stringout", "w:long", "wf:string:n"]
    request = write(tmp_path / "x.req", "".join(f"$(P){name}\n" for name in names))
    save_pvs(request, tmp_path / "x.sav", macros={"P": ioc.prefix})
    assert list(saved(tmp_path / "x.sav").items()) == [
        (ioc["double"], "2.5"),
        (ioc["mbbo"], "1"),
        (ioc["w:char"], "text"),
        (ioc["stringout"], "a b"),
        (ioc["w:long"], "@array@ [1, 2, 3]"),
        (
            ioc["wf:string:n"],
            '@array@ ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"]',
        ),
    ]


def test_pyepics_reads_what_we_write_and_the_reverse(ioc: SoftIOC, tmp_path: Path) -> None:
    pytest.importorskip("pyparsing")
    caput(ioc["double"], 0.1, wait=True)
    caput(ioc["w:long"], [4, 5], wait=True)
    request = write(tmp_path / "x.req", f"{ioc['double']}\n{ioc['w:long']}\n{ioc['w:char']}\n")
    caput(ioc["w:char"], "characters", wait=True)
    save_pvs(request, tmp_path / "ours.sav")
    script = """
        import sys, warnings
        warnings.simplefilter("ignore")
        from epics import caget, caput
        from epics.autosave import save_pvs, restore_pvs
        request, ours, theirs, a, b, c = sys.argv[1:]
        for name, value in ((a, 9.0), (b, [9]), (c, "other")):
            caput(name, value, wait=True)
        assert restore_pvs(ours)
        caget(a, use_monitor=False)  # behind them on the same circuit
        save_pvs(request, theirs)
    """
    ours, theirs = str(tmp_path / "ours.sav"), str(tmp_path / "theirs.sav")
    names = [ioc[name] for name in ("double", "w:long", "w:char")]
    run_python(script, request, ours, theirs, *names, env=ioc.env)
    assert saved(tmp_path / "theirs.sav") == saved(tmp_path / "ours.sav")
    caput(ioc["double"], 1, wait=True)
    caput(ioc["w:long"], [1], wait=True)
    assert restore_pvs(theirs) is True
    assert caget(ioc["double"], use_monitor=False) == 0.1
    assert list(caget(ioc["w:long"], use_monitor=False)) == [4, 5]


def test_files_of_synapps_are_read(ioc: SoftIOC, tmp_path: Path) -> None:
    text = "\n".join(
        (
            "# autosave R5.3\tAutomatically generated - DO NOT MODIFY - 231123-074458",
            "! 1 channel(s) not connected - or not all gets were successful",
            f"{ioc['double']} 1.25000000000000e+01",
            f"{ioc['mbbo']} 2",
            f"#{ioc['nobody']} Search Issue",
            f"{ioc['stringout']} ",
            f'{ioc["w:long"]} @array@ {{ "10" "-20" "30" }}',
            f'{ioc["w:double"]} @array@ {{ "0.5" "nan" }}',
            f'{ioc["w:string"]} @array@ {{ "a b" "q\\"x\\\\" "" }}',
            f"{ioc['longout']} 12",
            "<END>",
            "",
        )
    )
    caput(ioc["stringout"], "something", wait=True)
    assert restore_pvs(write(tmp_path / "x.sav", text)) is True

    def get(name: str) -> Any:
        return caget(ioc[name], use_monitor=False)

    assert [get(name) for name in ("double", "mbbo", "stringout", "longout")] == [12.5, 2, "", 12]
    assert list(get("w:long")) == [10, -20, 30]
    np.testing.assert_array_equal(get("w:double"), [0.5, math.nan])
    assert list(get("w:string")) == ["a b", 'q"x\\', ""]


def test_what_cannot_be_restored_is_told(
    ioc: SoftIOC,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("epicsx.autosave.save_restore.CONNECTION_TIMEOUT", 0.5)
    caput(ioc["double"], 1.0, wait=True)
    for name in ("readonly", "longout", "mbbo"):  # a first search may take longer
        assert caget(ioc[name]) is not None
    text = (
        f"{ioc['nobody']} 1\n{ioc['readonly']} 2\n{ioc['longout']} many\n"
        f"{ioc['double']} 3.5\n{ioc['mbbo']} Nine\n<END>\n"
    )
    path = write(tmp_path / "x.sav", text)
    assert restore_pvs(path, debug=True) is False
    lines = capsys.readouterr().out.splitlines()
    assert f"Cannot connect to {ioc['nobody']}" in lines
    assert f"No write access to {ioc['readonly']}" in lines
    assert f"Setting {ioc['double']} to 3.5" in lines
    assert [line for line in lines if line.startswith(f"Error restoring {ioc['longout']} to many")]
    assert [line for line in lines if line.startswith(f"Error restoring {ioc['mbbo']} to Nine")]
    wait_until(lambda: caget(ioc["double"], use_monitor=False) == 3.5)
    epicsx.strict()
    try:
        with pytest.raises(epicsx.CAError):
            restore_pvs(path)
    finally:
        epicsx.strict(False)


def test_a_file_that_is_not_complete(ioc: SoftIOC, tmp_path: Path) -> None:
    caput(ioc["double"], 1.0, wait=True)
    cut = write(tmp_path / "cut.sav", f"{ioc['double']} 2.0\n{ioc['w:double']} @array@ [1.0, 2\n")
    with pytest.raises(RequestFileError, match=r"cut\.sav:2: the value of .*w:double"):
        restore_pvs(cut)
    assert caget(ioc["double"], use_monitor=False) == 1.0
    without_end = write(tmp_path / "end.sav", f"{ioc['double']} 2.0\n")
    epicsx.strict()
    try:
        with pytest.raises(RequestFileError, match="has no <END>"):
            restore_pvs(without_end)
    finally:
        epicsx.strict(False)
    assert restore_pvs(without_end) is True  # as pyepics does
    wait_until(lambda: caget(ioc["double"], use_monitor=False) == 2.0)


def test_save_leaves_out_who_is_not_there(
    ioc: SoftIOC,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("epicsx.autosave.save_restore.CONNECTION_TIMEOUT", 0.5)
    request = write(tmp_path / "x.req", f"{ioc['nobody']}\n{ioc['noaccess']}\n{ioc['stringin']}\n")
    for name in ("noaccess", "stringin"):  # a first search may take longer
        assert epicsx.get_pv(ioc[name], connect=True).connected
    saver = AutoSaver(request)
    assert [pv.pvname for pv in saver.pvs] == [ioc[n] for n in ("nobody", "noaccess", "stringin")]
    saver.save(verbose=True)
    out = capsys.readouterr().out.splitlines()
    assert f"PV {ioc['nobody']} not connected" in out
    assert f"PV {ioc['stringin']} = text in" in out
    assert any(line.startswith(f"PV {ioc['noaccess']} not read: ") for line in out)
    (made,) = tmp_path.glob("x_*.sav")
    assert out[-1] == f"wrote {made}"
    assert saved(made) == {ioc["stringin"]: "text in"}


def test_a_save_file_is_replaced_as_a_whole(ioc: SoftIOC, tmp_path: Path) -> None:
    request = write(tmp_path / "x.req", ioc["stringin"])
    folder = tmp_path / "real"
    folder.mkdir()
    target = folder / "x.sav"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "link.sav"
    link.symlink_to(target)
    with open(target) as old:
        save_pvs(request, link)
        assert old.read() == "old"  # whoever reads it goes on with what was there
    assert link.is_symlink()
    assert saved(target) == {ioc["stringin"]: "text in"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(folder) == ["x.sav"]
    umask = os.umask(0o027)
    try:
        save_pvs(request, folder / "new.sav")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((folder / "new.sav").stat().st_mode) == 0o640


def test_request_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "site").mkdir()
    top = write(
        tmp_path / "top.req",
        """
        # a comment
        plain.VAL   # and another
        $(P)two ${P}three.DESC$
        file "sub/one.req", P=$(P), M=m1
        file sub/one.req P=Q: ; M="m 2",N=$(P)n
        file 'site.req'
        file sub/two.req "P=Z:,N=q"
        A:b#c
        <END>
        """,
    )
    write(tmp_path / "sub" / "one.req", "$(P)$(M=none)\nfile two.req N=$(N=default)\n")
    write(tmp_path / "sub" / "two.req", "$(P)$(N)$(O=$(P)o)\n")
    write(tmp_path / "site" / "site.req", "$(P)site $(P$(X=))\n")
    assert _parse_request_file(top, {"P": "T:"}, [str(tmp_path / "site")]) == [
        *("plain.VAL", "T:two", "T:three.DESC$"),
        *("T:m1", "T:defaultT:o"),
        *("Q:m", "2", "Q:T:nQ:o"),
        *("T:site", "T:"),
        *("Z:qZ:o", "A:b"),
    ]


def test_a_macro_without_a_value_stays_or_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.req", "a\n$(P)b\n")
    assert _parse_request_file(path) == ["a", "$(P)b"]
    epicsx.strict()
    try:
        with pytest.raises(RequestFileError, match=r"x\.req:2: the macro 'P' has no value"):
            _parse_request_file(path)
    finally:
        epicsx.strict(False)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("file x.req\n", RequestFileError, "x.req includes x.req"),
        ("file y.req\n", RequestFileError, "x.req includes y.req includes x.req"),
        ("ok\nfile nobody.req\n", FileNotFoundError, r"x\.req:2: there is no file 'nobody\.req'"),
        ("file z.req P=1, what\n", RequestFileError, "x.req:1: not a macro: 'what'"),
        ("$(P\n", RequestFileError, "x.req:1: a macro is not closed"),
    ],
)
def test_errors_of_request_files(
    tmp_path: Path, text: str, error: type[Exception], says: str
) -> None:
    write(tmp_path / "y.req", "file x.req\n")
    write(tmp_path / "z.req", "z\n")
    with pytest.raises(error, match=says):
        _parse_request_file(write(tmp_path / "x.req", text))


def test_a_request_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.req"
    saver = AutoSaver()
    with pytest.raises(ValueError, match="no request file"):
        saver.read_request_file()
    saver.read_request_file(write(path, "A:1\n"))
    write(path, "A:1\nA:2\n")
    saver.read_request_file()
    assert [pv.pvname for pv in saver.pvs] == ["A:1", "A:2"]
