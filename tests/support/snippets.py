"""The Python and the commands of the documentation's pages, so that tests can run them.

A page's snippets run in its order, in one process and one namespace, as a reader would type them; commands by a
shell. What a snippet needs beyond that is said in a comment of the page, which readers do not see:

    <!-- snippet: endless -->             it would run for ever: Ctrl-C after a second or two, which it has to heed
    <!-- snippet: raises CATimeoutError -->
    <!-- snippet: alone -->               in a process of its own, first in its namespace
    <!-- snippet: for 60 read 1 -->       so that it does not last as long as it would in use; may stand several times
    <!-- snippet: elsewhere why -->       not run here; why it need not be
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
"""Every page that may have snippets."""

_BLOCK = re.compile(
    r"(?P<said>(?:^<!-- snippet: [^\n]* -->\n)*)\n?^```(?P<kind>python|sh)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
_SAID = re.compile(r"^<!-- snippet: (\w+)(?: (.*))? -->$", re.M)


@dataclass(frozen=True)
class Snippet:
    """One block of a page."""

    page: str
    line: int
    code: str
    kind: str = "python"
    endless: bool = False
    raises: str = ""
    alone: bool = False
    elsewhere: str = ""
    replaced: list[tuple[str, str]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """What is run: the code at its own lines, so that a traceback names those of the page."""
        code = self.code
        for old, new in self.replaced:
            if old not in code:
                raise ValueError(f"{self.page}:{self.line}: there is no {old!r} to read as {new!r}")
            code = code.replace(old, new, 1)
        return "\n" * (self.line - 1) + code


def snippets_of(page: Path) -> list[Snippet]:
    """The snippets of one page, in order."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        options: dict[str, object] = {}
        replaced: list[tuple[str, str]] = []
        for word, rest in _SAID.findall(match["said"]):
            if word == "for":
                old, _, new = rest.partition(" read ")
                replaced.append((old, new))
            elif word in ("endless", "alone"):
                options[word] = True
            elif word in ("raises", "elsewhere") and rest:
                options[word] = rest
            else:
                raise ValueError(f"{name}:{line}: 'snippet: {word} {rest}' is not known")
        code, kind = match["code"], match["kind"]
        found.append(Snippet(name, line, code, kind, replaced=replaced, **options))  # type: ignore[arg-type]
    said = len(_SAID.findall(text))
    if said != sum(
        len(s.replaced) + s.endless + s.alone + bool(s.raises) + bool(s.elsewhere) for s in found
    ):
        raise ValueError(f"{name}: a 'snippet:' comment stands before no snippet")
    return found


def scripts_of(page: Path) -> list[list[Snippet]]:
    """The snippets of one page by the process they run in."""
    scripts: list[list[Snippet]] = [[]]
    for snippet in snippets_of(page):
        if snippet.elsewhere:
            continue
        if snippet.alone:
            scripts.append([snippet])
        else:
            scripts[0].append(snippet)
    return [script for script in scripts if script]


RUNNER = '''
"""Runs the snippets of the JSON file that is its first argument, after what its second says that they take as given."""
import _thread, json, subprocess, sys, threading

space = {"__name__": "__main__"}
exec(sys.argv[2], space)

for snippet in json.load(open(sys.argv[1], "rb")):
    print(f"{snippet['page']}:{snippet['line']}", file=sys.stderr, flush=True)
    if snippet["kind"] == "sh":
        subprocess.run(["sh", "-eux", "-c", sys.argv[3] + snippet["source"]], check=True)
        continue
    code = compile(snippet["source"], snippet["page"], "exec")
    timer = threading.Timer(1.5, _thread.interrupt_main)
    if snippet["endless"]:
        timer.start()
    try:
        exec(code, space)
    except KeyboardInterrupt:
        if not snippet["endless"]:
            raise
    except Exception as error:
        if type(error).__name__ != snippet["raises"]:
            raise
    else:
        if snippet["endless"]:
            raise SystemExit("it ended, and is said to be endless")
        if snippet["raises"]:
            raise SystemExit(f"it did not raise {snippet['raises']}")
    timer.cancel()
'''
"""The program in which a page's snippets run."""
