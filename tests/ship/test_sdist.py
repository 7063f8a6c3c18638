"""The sdist has the same bytes whenever and by whomever it is built; `make sdist` tries it whole."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
import check_wheel  # noqa: E402
import make_sdist  # noqa: E402


def packed(names: list[str], mtime: int, mode: int, owner: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"epicsx-1/{name}")
            member.size, member.mtime, member.mode, member.uname = len(name), mtime, mode, owner
            archive.addfile(member, io.BytesIO(name.encode()))
    return out.getvalue()


def test_what_depends_on_the_builder_is_left_out() -> None:
    one = packed(["a.py", "b.py"], 1_000, 0o664, "anna")
    other = packed(["b.py", "a.py"], 2_000, 0o600, "otto")
    assert one != other
    when = 1_700_000_000
    assert make_sdist.normalised(one, when) == make_sdist.normalised(other, when)
    assert make_sdist.normalised(one, when) != make_sdist.normalised(one, when + 1)


def test_the_files_stay_what_they_are() -> None:
    data = make_sdist.normalised(packed(["a.py", "run"], 1_000, 0o755, "anna"), 1_700_000_000)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == ["epicsx-1/a.py", "epicsx-1/run"]
        assert {(m.mtime, m.mode, m.uname) for m in members} == {(1_700_000_000, 0o755, "")}
        file = archive.extractfile("epicsx-1/run")
        assert file is not None
        assert file.read() == b"run"


def test_the_time_is_what_source_date_epoch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert make_sdist.epoch() == 1_700_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(check_wheel.Failed, match="no number of seconds"):
        make_sdist.epoch()


def test_another_file_gives_another_sdist() -> None:
    when = 1_700_000_000
    one, other = (packed([name], when, 0o644, "anna") for name in ("a.py", "c.py"))
    assert make_sdist.normalised(one, when) != make_sdist.normalised(other, when)
