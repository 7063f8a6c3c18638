"""Every snippet of the documentation runs, Python and commands, against the servers of `conftest.lab`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from support import run_python
from support.snippets import PAGES, ROOT, RUNNER, Snippet, scripts_of, snippets_of

pytestmark = pytest.mark.timeout(120)

# The command `epicsx` of the package under test, whatever is installed.
COMMAND = f"epicsx() {{ '{sys.executable}' -c 'from epicsx.cli import main; raise SystemExit(main())' \"$@\"; }}\n"

GIVEN = {
    "README.md": 'open("script.py", "w").write("import epics; print(epics.caget(\'my:a\'))")',
    "docs/images.md": """
        import h5py, numpy as np
        with h5py.File("run_0042.h5", "w") as file: file["/entry/data/data"] = np.ones((3, 16, 16), "uint16")
        with h5py.File("run.h5", "w") as file: file["13SIM1:image1:ArrayData/data"] = np.ones((3, 256), "int32")
    """,
    "docs/recording.md": """
        import h5py, epicsx, numpy as np
        names = ["XF:current", "ring:current"]
    """,
    "docs/snapshot.md": """
        names = ["my:a", "my:b", "my:mode", "my:motor.RBV", "my:motor.VAL"]
        open("names.txt", "w").write("my:mode")
    """,
}
"""What a page takes as given, beside what its snippets import."""

ELSEWHERE = {
    "testing.md": "its snippets are the files of an example: test_testing_page.py runs them"
}

SCRIPTS = [
    pytest.param(script, id=str(script[0]))
    for page in PAGES
    if page.name not in ELSEWHERE
    for script in scripts_of(page)
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_snippets(
    script: list[Snippet], lab: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "\n".join(line.strip() for line in GIVEN.get(script[0].page, "").splitlines())
    told = [{**vars(snippet), "source": snippet.source} for snippet in script]
    listed = tmp_path / "snippets.json"
    listed.write_text(json.dumps(told), encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # files that they write
    result = run_python(RUNNER, str(listed), given, COMMAND, env=lab, timeout=110.0)
    assert str(script[-1]) in result.stderr


def test_the_pages_have_snippets() -> None:
    # that none is passed over: each block is found
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(snippets_of(page)) == text.count("\n```python\n") + text.count("\n```sh\n")
        assert not re.search(r"^```(py|pycon|bash|shell|console)$", text, re.M), page
    assert sum(len(snippets_of(page)) for page in PAGES) >= 15
    assert ROOT / "README.md" in PAGES
