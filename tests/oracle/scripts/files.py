"""autosave: what is saved, what is read, and what is written back."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oracle.steps import Lab, step

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pyparsing, by pyepics
    from epics import autosave
    from epics.autosave import save_restore

SCALARS = ("double", "longout", "mbbo", "bo", "stringout", "w:char", "w:double", "w:long")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Give an empty folder, in which the program is; what pyparsing says to pyepics is left out."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as path, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'parseFile' deprecated")
        os.chdir(path)
        try:
            yield Path()
        finally:
            os.chdir(before)


def fill(t: Lab) -> None:
    """Write what is then saved."""
    values: list[Any] = [12.5, 7, "Two", 1, "some text", "a long text", [1.5, 2.5], [3, 4]]
    for name, value in zip(SCALARS, values, strict=True):
        t.epics.caput(t.p(name), value, wait=True)


def now(t: Lab, mark: str) -> None:
    """Note what the server has."""
    for name in SCALARS:
        pv = t.epics.PV(t.p(name), auto_monitor=False)
        t.see(f"{mark} {name}", pv.get, as_string=name == "w:char")


def lines(path: Path) -> list[str]:
    """Give the lines of a save file without the first, in which is the time."""
    return path.read_text(encoding="utf-8").splitlines()[1:]


@step("save and restore", timeout=40.0)
def save(t: Lab) -> None:
    """Of every kind of record."""
    fill(t)
    with folder():
        Path("all.req").write_text("\n".join(["# a comment", *map(t.p, SCALARS), ""]))
        t.see("save", autosave.save_pvs, "all.req", "all.sav")
        t.see("lines", lambda: lines(Path("all.sav")))
        t.see("save, shown", autosave.save_pvs, "all.req", "again.sav", debug=True)
        for name in ("double", "longout"):
            t.epics.caput(t.p(name), 0, wait=True)
        t.epics.caput(t.p("stringout"), "other", wait=True)
        t.epics.caput(t.p("w:double"), [9.0], wait=True)
        t.epics.caput(t.p("w:char"), "other", wait=True)
        t.see("restore", autosave.restore_pvs, "all.sav")
        now(t, "restored")
        t.see("restore, shown", autosave.restore_pvs, "all.sav", debug=True)
        t.see("no such file", autosave.restore_pvs, "none.sav")
        t.see("no such request file", autosave.save_pvs, "none.req", "none.sav")


@step("AutoSaver", timeout=40.0)
def saver(t: Lab) -> None:
    """The class, its PVs and its own file name."""
    fill(t)
    with folder():
        Path("two.req").write_text(f"{t.p('double')}\n{t.p('longout')}\n")
        made = autosave.AutoSaver("two.req")
        t.see("PVs", lambda: [pv.pvname for pv in made.pvs])
        t.see("file", lambda: made.request_file)
        t.see("save", made.save, "two.sav", verbose=True)
        t.see("lines", lambda: lines(Path("two.sav")))
        t.see("read again", made.read_request_file, "two.req")
        t.see("still", lambda: len(made.pvs))
        bare = autosave.AutoSaver()
        t.see("without a file", lambda: bare.pvs)
        made.save()
        t.aside.take()
        t.see("own name", lambda: [len(path.name) for path in Path().glob("two_*.sav")])


@step("request files", timeout=40.0)
def requests(t: Lab) -> None:
    """Comments, macros, nested files."""
    with folder():
        Path("sub").mkdir()
        Path("top.req").write_text(
            '# first\n$(P)double\n\nfile sub/one.req P=A:,Q=b\nfile "sub/two.req", P=B:, Q=c\n'
            "  $(P)indented\nplain.VAL\nrec[1]<2>;x\n"
        )
        Path("sub/one.req").write_text("$(P)one.$(Q)\nfile two.req P=$(P),Q=d\n")
        Path("sub/two.req").write_text("$(P)two_$(Q)\n$(P)$(R)\n")
        Path("empty.req").write_text("")
        Path("lost.req").write_text("file none.req\n")
        parse = save_restore._parse_request_file
        t.see("top", parse, "top.req")
        t.see("top with macros", parse, "top.req", {"P": "X:"})
        t.see("one", parse, "sub/one.req", {"P": "X:", "Q": "VAL"})
        t.see("two", parse, "sub/two.req", {"P": "X:", "R": "r"})
        t.see("lost", parse, "lost.req")


@step("what cannot be saved or restored", timeout=40.0)
def failures(t: Lab) -> None:
    """PVs that are missing, or may not be written."""
    fill(t)
    with folder():
        t.epics.pv.get_pv(t.p("nobody"), connection_callback=None, timeout=0.1)
        Path("some.req").write_text(f"{t.p('double')}\n{t.p('nobody')}\n")
        t.see("save", autosave.save_pvs, "some.req", "some.sav", debug=True)
        t.see("lines", lambda: lines(Path("some.sav")))
        Path("bad.sav").write_text(
            f"# a comment\n{t.p('nobody')} 1\n{t.p('readonly')} 2\n{t.p('double')} 3.5\n"
            f"{t.p('longout')}\n\n<END>\n"
        )
        t.see("restore", autosave.restore_pvs, "bad.sav", debug=True)
        t.wait(lambda: t.epics.caget(t.p("double"), use_monitor=False) == 3.5)
        now(t, "restored")
        Path("text.sav").write_text(
            f"{t.p('longout')} 8\n{t.p('stringout')} some text with blanks\n"
        )
        t.see("without an end", autosave.restore_pvs, "text.sav")
        t.wait(lambda: t.epics.caget(t.p("longout"), use_monitor=False) == 8)
        now(t, "then")
