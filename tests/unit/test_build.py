"""What the build promises: which libca is used, that it is ours alone, and the repeater program.

Whole installations (a wheel from the sdist, an editable one, a site's EPICS) take minutes and are
tried by tools/check_packaging.py.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epicsx import _build_info, _linkage, _repeater, _version
from epicsx.testing import free_port

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(_version.__file__).parent

sys.path.insert(0, str(ROOT / "tools"))
import epics_libs  # noqa: E402

bundled = pytest.mark.skipif(_linkage.MODE != "bundled", reason="this build bundles no libca")
private = pytest.mark.skipif(
    _linkage.MODE not in ("bundled", "hardened"), reason="this build has no libca of its own"
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.005)


def run_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


# ------------------------------------------------------------------------------ build_info


def test_build_info_names_the_library_that_is_mapped() -> None:
    info = _build_info.build_info()
    assert set(info) >= {
        "mode", "libca_version", "libca_path", "libcom_path", "epicsx_version", "linked", "guards",
    }  # fmt: skip
    assert info["mode"] in ("bundled", "hardened", "base", "system")
    assert info["epicsx_version"] == _version.__version__
    assert re.match(r"\d+\.\d+", info["libca_version"])
    assert re.match(r"4\.\d+", info["ca_protocol"])
    # What is inside the package is listed with its licence, and the licence comes with it.
    bundled = info["mode"] not in ("base", "system")
    assert ("licenses/EPICS-base.txt" in info["licence"]) is bundled
    assert "SOFTWARE LICENSE" in (ROOT / "licenses" / "EPICS-base.txt").read_text().upper()
    assert ("licenses/YAJL.txt" in info["licence"]) is (info["mode"] == "bundled")
    assert "Permission to use" in (ROOT / "licenses" / "YAJL.txt").read_text()
    for key in ("libca_path", "libcom_path"):
        assert Path(info[key]).is_file()
    if sys.platform.startswith("linux"):
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        assert str(Path(info["libca_path"]).resolve()) in mapped


@bundled
def test_the_bundled_library_lies_in_the_package() -> None:
    info = _build_info.build_info()
    assert Path(info["libca_path"]).resolve() == (PACKAGE / "lib" / "libca-epicsx.so").resolve()
    assert Path(info["libcom_path"]).resolve() == (PACKAGE / "lib" / "libCom-epicsx.so").resolve()


@linux
def test_asking_for_the_build_starts_no_channel_access() -> None:
    done = run_python(
        "import os\n"
        "from epicsx._build_info import build_info\n"
        "build_info()\n"
        "print(len(os.listdir('/proc/self/task')), os.environ.get('EPICS_CA_MAX_ARRAY_BYTES'))",
        OPENBLAS_NUM_THREADS="1",
    )
    assert done.stdout.split() == ["1", str(os.environ.get("EPICS_CA_MAX_ARRAY_BYTES"))]


def test_the_version_has_one_place() -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("no source tree")
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "src/epicsx/_version.py").read_text(encoding="utf-8"))
    values = [n.value for n in ast.walk(tree) if isinstance(n, ast.AnnAssign)]
    assert [ast.literal_eval(v) for v in values if v is not None] == [_version.__version__]
    assert importlib.metadata.version("epicsx") == _version.__version__


def test_numpy_is_the_only_requirement() -> None:
    requires = importlib.metadata.requires("epicsx") or []
    assert [r for r in requires if "extra ==" not in r] == ["numpy>=1.23"]


# --------------------------------------------------------------------------- private copies


def test_the_names_that_are_renamed() -> None:
    std = epics_libs._STD
    for name in (
        "_ZNSt6vectorIcSaIcEE9push_backERKc", "_ZNKSs4sizeEv", "_ZTVSt9exception", "_ZSt4moveIRiE",
        "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE4nposE", "_ZTISt9exception",
        "_ZN9__gnu_cxx13new_allocatorIcE8allocateEmPKv", "_ZGVNSt3fooE",
    ):  # fmt: skip
        assert std.match(name), name
    for name in (
        "ca_create_channel", "errlogPrintf", "_ZN3cac6createEv", "_ZTI10SearchDest", "St_thing",
        "_ZN12epicsTimeAddESt4pairIiiE", "_ZTV3cac", "_Z11ca_repeaterv", "_ZNK9epicsTime6asTimeEv",
    ):  # fmt: skip
        assert not std.match(name), name


@bundled
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm, of binutils")
def test_the_private_libraries_export_no_name_of_epics() -> None:
    for path in sorted((PACKAGE / "lib").glob("*.so")):
        names = epics_libs.exported(path)
        assert len(names) > 100
        assert [n for n in names if not n.startswith(epics_libs.PREFIX)] == []


@private
@linux
@pytest.mark.parametrize("first", ["foreign", "ours"])
def test_a_foreign_libca_in_the_process_is_not_touched(first: str, tmp_path: Path) -> None:
    # epicscorelibs, softioc and aioca load theirs with RTLD_GLOBAL: the worst case. LD_DEBUG writes
    # each decision of the dynamic linker; the C++ standard library's names may go anywhere.
    foreign = (
        "import ctypes, epicscorelibs.path\n"
        "lib = ctypes.CDLL(epicscorelibs.path.get_lib('ca'), ctypes.RTLD_GLOBAL)\n"
        "assert lib.ca_context_create(1) == 1\n"
    )
    ours = "from epicsx._build_info import build_info\nprint(build_info()['libca_path'])\n"
    done = run_python(
        foreign + ours if first == "foreign" else ours + foreign,
        LD_DEBUG="bindings",
        LD_DEBUG_OUTPUT=str(tmp_path / "ld"),
        EPICS_CA_AUTO_ADDR_LIST="NO",
        EPICS_CA_ADDR_LIST="127.0.0.1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).parent.resolve() == (PACKAGE / "lib").resolve()
    text = "".join(p.read_text(errors="replace") for p in tmp_path.glob("ld.*"))
    line = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: \w+ symbol `([^']+)'")
    pairs = line.findall(text)
    ours_to = [(a, b, n) for a, b, n in pairs if a.startswith(str(PACKAGE))]
    # the log was really read; a hardened libca has bound itself when it was linked
    assert len(ours_to) > (500 if _linkage.MODE == "bundled" else 100)
    crossing = [(a, b, n) for a, b, n in ours_to if "epicscorelibs" in b]
    crossing += [(a, b, n) for a, b, n in pairs if "epicscorelibs" in a and str(PACKAGE) in b]
    assert [c for c in crossing if not epics_libs._STD.match(c[2])] == []


# -------------------------------------------------------------- which EPICS the build takes


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that looks like an EPICS base, without its contents."""
    for folder in ("include/os/Linux", "include/compiler/gcc", "lib/linux-x86_64", "lib/other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "include" / "cadef.h").touch()
    (tmp_path / "lib/linux-x86_64/libca.so").touch()
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is one of Linux")
def test_epics_base_is_honoured(base: Path) -> None:
    found = epics_libs.find_epics({"EPICS_BASE": str(base), "EPICS_HOST_ARCH": "linux-x86_64"})
    assert found.mode == "base"
    assert found.include_dirs == tuple(
        str(base / d) for d in ("include", "include/os/Linux", "include/compiler/gcc")
    )
    assert found.rpath == found.lib_dir == str(base / "lib/linux-x86_64")
    # the one architecture that has libca
    assert epics_libs.find_epics({"EPICS_BASE": str(base)}).lib_dir == found.lib_dir


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"EPICSX_EPICS": "sistem"}, "use 'bundled', 'hardened', 'base' or 'system'"),
        ({"EPICSX_EPICS": "base"}, "EPICS_BASE"),
        ({"EPICS_BASE": "/no/such/folder"}, "not a folder"),
        ({"EPICS_BASE": "{base}", "EPICS_HOST_ARCH": "vxWorks"}, "EPICS_HOST_ARCH=vxWorks"),
    ],
)
def test_a_wrong_choice_of_epics_is_told(base: Path, environ: dict[str, str], told: str) -> None:
    environ = {k: v.format(base=base) for k, v in environ.items()}
    with pytest.raises(epics_libs.EpicsNotFound, match=told):
        epics_libs.find_epics(environ)


@pytest.mark.skipif(sys.platform != "linux", reason="bundling is done on Linux")
def test_bundled_can_be_asked_for_where_epics_base_is_set(base: Path) -> None:
    pytest.importorskip("epicscorelibs")
    found = epics_libs.find_epics({"EPICS_BASE": str(base), "EPICSX_EPICS": "bundled"})
    assert (found.mode, found.rpath) == ("bundled", "$ORIGIN/lib")


@pytest.mark.skipif(sys.platform != "linux", reason="libca is compiled on Linux")
def test_a_hardened_build_says_that_patchelf_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(epics_libs.EpicsNotFound, match="the program patchelf is needed"):
        epics_libs.find_epics({"EPICSX_EPICS": "hardened"})


# ---------------------------------------------------------------------------- the repeater


def repeaters(port: int) -> list[int]:
    """The processes of our program that were started for this port."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            exe = (folder / "exe").readlink()
            environ = (folder / "environ").read_bytes().split(b"\0")
            if exe.name == "caRepeater" and f"EPICS_CA_REPEATER_PORT={port}".encode() in environ:
                found.append(int(folder.name))
    return found


def zombies() -> list[str]:
    """The programs of this process' dead children that nobody waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, name, rest = re.split(r"\((.*)\)", path.read_text(), maxsplit=1, flags=re.DOTALL)
            state, parent = rest.split()[:2]
            if (state, int(parent)) == ("Z", os.getpid()):
                found.append(name)
    return found


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    number = free_port()  # not of those that the system gives to the sockets of any client here
    monkeypatch.setenv("EPICS_CA_REPEATER_PORT", str(number))
    monkeypatch.delenv("EPICSX_NO_REPEATER", raising=False)
    yield number
    for pid in repeaters(number):
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not repeaters(number), "the repeater ended")


@linux
def test_the_repeater_is_started_once_and_is_nobodys_child(port: int) -> None:
    assert _repeater.start(timeout=20.0)
    assert not _repeater.port_is_free(port)
    assert _repeater.start(10.0)
    (pid,) = repeaters(port)
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert int(state[1]) != os.getpid()  # its parent
    assert int(state[3]) not in (pid, os.getsid(0))  # a session of its own, that it does not lead
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert "caRepeater" not in zombies()


@linux
def test_the_repeater_inherits_neither_files_nor_blocked_signals(port: int) -> None:
    code = (
        "import os, signal\n"
        "from epicsx import _repeater\n"
        "r, w = os.pipe()\n"
        "os.set_inheritable(w, True)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "print(_repeater.start(10.0))\n"
    )
    done = run_python(code, PYTHONWARNINGS="error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    # run_python returned, so nobody keeps its pipes open, and the repeater outlived its starter
    (pid,) = repeaters(port)
    files = {str(p.readlink()) for p in Path(f"/proc/{pid}/fd").iterdir()}
    assert {f for f in files if not f.startswith("socket:")} == {"/dev/null"}
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"SigBlk:\s*0+\n", status)


@linux
def test_whether_the_port_is_taken_is_asked_without_taking_it(port: int) -> None:
    assert not _repeater.is_taken(port)
    stop = threading.Event()
    asking = threading.Thread(
        target=lambda: [_repeater.is_taken(port) for _ in iter(stop.is_set, True)]
    )
    asking.start()  # which would now and then have the port when somebody wants it
    try:
        for _ in range(2000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("", port))
    finally:
        stop.set()
        asking.join()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", port))
        assert _repeater.is_taken(port)
    assert _repeater.start(timeout=20.0)
    assert _repeater.is_taken(port)


@linux
def test_the_repeater_answers_a_client(port: int) -> None:
    assert _repeater.start(10.0)
    register = bytes([0, 24]) + bytes(10) + socket.inet_aton("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.bind(("127.0.0.1", 0))
        # the answer comes from another port: the repeater has one socket for each client
        client.sendto(register, ("127.0.0.1", port))
        assert client.recv(64)[:2] == bytes([0, 17])  # REPEATER_CONFIRM


@linux
def test_no_repeater_when_told_so_or_when_the_port_is_taken(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPICSX_NO_REPEATER", "1")
    assert not _repeater.start()
    assert _repeater.port_is_free(port)
    monkeypatch.delenv("EPICSX_NO_REPEATER")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", port))
        assert _repeater.start(10.0)
    assert repeaters(port) == []


@linux
def test_a_missing_program_is_logged_and_harmless(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(_repeater, "program", lambda: tmp_path / "caRepeater")
    assert not _repeater.start()
    assert "no caRepeater" in caplog.text


@pytest.mark.parametrize("text", ["", "junk", "0", "5000", "70000"])
def test_a_repeater_port_that_libca_would_refuse_is_the_default(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPICS_CA_REPEATER_PORT", text)
    assert _repeater.port() == 5065


@linux
def test_the_repeater_in_the_foreground_for_service_managers(port: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "epicsx.repeater"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            wait_for(lambda: repeaters(port) == [process.pid], "our process became the repeater")
            wait_for(lambda: _repeater.is_taken(port), "the repeater has its port")
            assert process.poll() is None
        finally:
            process.terminate()
        output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (-signal.SIGTERM, b"")


@linux
def test_the_program_refuses_what_it_does_not_know() -> None:
    done = subprocess.run(
        [_repeater.program(), "--daemon"], capture_output=True, text=True, timeout=10, check=False
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
