"""snapshot and restore: the values of thousands of PVs as columns, compared, in files, put back."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import pickle
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ELEMENT_TYPES, connected, run_python, wait_until

from epicsx import (
    AccessError,
    BadTypeError,
    BadValueError,
    CAError,
    CATimeoutError,
    Channel,
    DisconnectedError,
    PutError,
    Severity,
    Snapshot,
    Status,
    connect,
    filter_name,
    get_many,
    put_many,
    restore,
    snapshot,
)
from epicsx._channel import _ClientFiltered
from epicsx.testing import SoftIOC

pytestmark = pytest.mark.core

SCALARS = [
    *("ao", "double", "ai", "bi", "mbbi", "longin", "int64in", "stringin", "longout", "bo", "mbbo"),
    *("stringout", "mbbo16", "calc", "udf", "desc"),
]
#: What the other forms have besides the names.
COLUMNS = ["value", "timestamp_ns", "severity", "status", "ok", "error"]
ARRAYS = [f"wf:{kind.lower()}:{size}" for kind in ELEMENT_TYPES for size in "01n"]

#: Records of the session's IOC that a test here may write, and what they hold afterwards.
WRITTEN = {
    "double": 1.5,
    "longout": 7,
    "mbbo": 1,
    "stringout": "before",
    "w:double": np.arange(5.0),
    "w:char": np.arange(4, dtype=np.uint8),
    "w:string": ["a", "", "c"],
}


@pytest.fixture
def written(ioc: SoftIOC) -> Iterator[list[str]]:
    """Full names of `WRITTEN`, which hold that."""
    names = [ioc[name] for name in WRITTEN]
    put_many(names, list(WRITTEN.values()), wait=True)
    yield names
    put_many(names, list(WRITTEN.values()), wait=True)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return type(a) is type(b) and a == b


def made(*values: Any) -> Snapshot:
    """A snapshot of PVs p0, p1 ... with these values; None could not be read, and an exception says why."""
    ok = [v is not None and not isinstance(v, BaseException) for v in values]
    names = [f"p{i}" for i in range(len(values))]
    return Snapshot(
        names,
        [v if good else None for v, good in zip(values, ok, strict=True)],
        np.array([10**18 * good for good in ok], np.int64),
        np.array([0 if good else 3 for good in ok], np.int16),
        np.array([0 if good else 9 for good in ok], np.int16),
        np.array(ok, np.bool_),
        {n: v for n, v in zip(names, values, strict=True) if isinstance(v, CAError)},
        10**18,
    )


# ---- taking one


def test_thousands_of_pvs(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(1000)]
    names += [ioc[f"chain:{n:04d}"] for n in range(1000)]
    names += [ioc[f"bulk:{n:04d}.PREC"] for n in range(1000)]
    put_many(names[:1000], range(1000), wait=True, timeout=20.0)
    began = time.time_ns()
    taken = snapshot(names, timeout=20.0)
    assert began <= taken.taken_ns <= time.time_ns()
    assert len(taken) == 3000
    assert taken.name == tuple(names)
    assert taken.value[:1000] == list(range(1000))
    assert taken.value[2000:] == [0] * 1000
    assert type(taken.value[5]) is float and type(taken.value[2005]) is int
    assert taken.ok.all() and not taken.errors
    columns = (taken.timestamp_ns, taken.severity, taken.status, taken.ok)
    assert [(c.dtype.name, c.shape) for c in columns] == [
        ("int64", (3000,)),
        ("int16", (3000,)),
        ("int16", (3000,)),
        ("bool", (3000,)),
    ]
    assert repr(taken).startswith("<Snapshot of 3000 PVs: 3000 ok; ")


def test_the_same_as_samples(ioc: SoftIOC) -> None:
    names = [ioc[name] for name in SCALARS + ARRAYS + ["wf:string:n.FTVL", "ao.DESC$"]]
    taken = snapshot(names)
    samples = get_many(names)
    assert not taken.errors
    for row, sample in zip(taken, samples, strict=True):
        assert row.name == sample.name
        assert same(row.value, sample.value), row.name
        stamp = (sample.timestamp_ns, sample.severity, sample.status)
        assert (row.timestamp_ns, row.severity, row.status) == stamp, row.name
        assert {type(field) for field in row[2:5]} == {int} and row.ok is True
        assert same(taken[row.name].value, row.value)
        assert taken[row.name][2:] == row[2:]


def test_arrays_are_the_users_own(ioc: SoftIOC) -> None:
    first = snapshot([ioc["wf:double:n"]])
    first.value[0][:] = -1.0
    assert first.again().value[0].tolist() == list(range(10))
    array = first.value[0]
    del first
    assert array.tolist() == [-1.0] * 10


def test_nothing_is_a_snapshot_too() -> None:
    taken = snapshot([])
    assert (len(taken), list(taken), taken.skew_ns, taken.unstamped) == (0, [], 0, 0)
    assert taken.diff(taken.again()) == []
    assert restore(taken) and len(restore(taken)) == 0
    assert taken.to_dict()["name"] == []
    assert repr(taken) == "<Snapshot of 0 PVs: 0 ok; stamps spread over 0 s>"


def test_rows_by_name(ioc: SoftIOC) -> None:
    taken = snapshot([ioc["ai"], ioc["mbbi"]])
    assert taken[ioc["ai"]] == next(iter(taken))
    assert taken[ioc["mbbi"]].value == 2
    assert ioc["ai"] in taken
    assert ioc["ao"] not in taken
    with pytest.raises(KeyError):
        taken[ioc["ao"]]


def test_names_channels_and_names_given_twice(ioc: SoftIOC) -> None:
    with Channel(ioc["mbbi"]) as state, Channel(ioc["ai"], priority=20) as other:
        taken = snapshot(n for n in (state, np.str_(ioc["ai"]), other, ioc["ai"], state))
        assert taken.name == (ioc["mbbi"], *[ioc["ai"]] * 3, ioc["mbbi"])
        assert taken.value == [2, 2.5, 2.5, 2.5, 2]
        assert all(type(name) is str for name in taken.name)
        assert taken[ioc["ai"]].value == 2.5
        again = taken.again()
        assert again.value == taken.value
    with pytest.raises(CAError, match="closed"):
        taken.again()
    with pytest.raises(CAError, match="closed"):
        snapshot([state])
    assert taken.restore(only=[]).ok == []


@pytest.mark.parametrize("wrong", ["name", b"name", 5, ["a", 1], ["a", ["b"]], [b"a"], [None]])
def test_what_is_no_list_of_names(wrong: Any) -> None:
    with pytest.raises(BadTypeError):
        snapshot(wrong)


@pytest.mark.parametrize("wrong", ["", "a\0b", "x" * 2000, "\ud800b"])
def test_what_is_no_name_is_a_row_that_failed(ioc: SoftIOC, tmp_path: Path, wrong: str) -> None:
    names = [wrong, ioc["ai"], wrong, ioc["mbbi"]]
    taken = snapshot(names, timeout=10.0)
    for each in (taken, taken.again(timeout=10.0)):
        assert each.name == tuple(names)
        assert each.value == [None, 2.5, None, 2]
        assert each.ok.tolist() == [False, True, False, True]
        assert each.status.tolist()[0] == Status.COMM
        assert list(each.errors) == [wrong]
        assert type(each.errors[wrong]) is BadValueError
        assert "is no PV name" in str(each.errors[wrong])
    taken.save(tmp_path / "snap")
    loaded = Snapshot.load(tmp_path / "snap")
    assert taken.diff(loaded) == []
    assert loaded.again(timeout=10.0).value == taken.value
    taken.value[0], taken.ok[0] = 1.0, True  # it is not put to the channel of another row
    for source in (taken, copy.copy(taken)):
        done = source.restore(only=[wrong])
        assert (done.ok, list(done.errors)) == ([], [wrong])
        assert type(done.errors[wrong]) is BadValueError


def test_nothing_but_what_is_no_name() -> None:
    taken = snapshot(["", "x" * 2000])
    assert not taken.ok.any() and len(taken.errors) == 2
    assert not taken.again().ok.any()


@pytest.mark.parametrize(
    ("timeout", "error"),
    [("1", BadTypeError), ([], BadTypeError), (b"1", BadTypeError), (math.nan, BadValueError)],
)
def test_what_is_no_timeout(timeout: Any, error: type[CAError]) -> None:
    for act in (partial(snapshot, []), snapshot([]).again, snapshot([]).restore):
        with pytest.raises(error, match="timeout"):
            act(timeout=timeout)


def test_a_slice_that_the_client_makes_is_refused(ioc: SoftIOC) -> None:
    with Channel(ioc["w:double"]) as plain:
        with (
            _ClientFiltered(plain, {"arr": {"s": 1, "i": 1, "e": 2}}) as part,
            pytest.raises(BadValueError, match="made on the client"),
        ):
            snapshot([ioc["ai"], part])
        with _ClientFiltered(plain, {"dec": {"n": 2}}) as seldom:  # a read is not filtered
            assert len(snapshot([seldom], timeout=10.0).value[0]) == len(plain.get().value)


# ---- what fails


def test_each_failure_has_its_status(ioc: SoftIOC) -> None:
    names = [ioc[name] for name in ("ai", "noaccess", "nobody", "mbbi", "nobody")]
    with connected(names[0], names[1], names[3]):
        taken = snapshot(names, timeout=2.0)
    assert taken.ok.tolist() == [True, False, False, True, False]
    assert taken.value == [2.5, None, None, 2, None]
    assert {name: type(error) for name, error in taken.errors.items()} == {
        ioc["noaccess"]: AccessError,
        ioc["nobody"]: CATimeoutError,
    }
    for name, error in taken.errors.items():
        assert isinstance(error, CAError) and error.name == name and name in str(error)
    assert "2.00 seconds" in str(taken.errors[ioc["nobody"]])
    bad = [row for row in taken if not row.ok]
    assert {row.severity for row in bad} == {Severity.INVALID}
    expected = [Status.READ_ACCESS, Status.TIMEOUT, Status.TIMEOUT]
    assert [row.status for row in bad] == expected
    assert {row.timestamp_ns for row in bad} == {0}
    assert "2 ok; 2 failed (AccessError 1, CATimeoutError 1)" in repr(taken)


def test_a_missing_name_costs_the_deadline_and_no_more(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(500)]
    with connected(*names):
        for timeout in (3.0, 2.0):
            began = time.monotonic()
            taken = snapshot([ioc["nobody"], *names], timeout=timeout)
            assert timeout - 0.05 <= time.monotonic() - began <= timeout + 20.0
            assert list(taken.errors) == [ioc["nobody"]]


def test_a_paused_ioc_delays_nobody(ioc: SoftIOC, spare_ioc: Callable[..., SoftIOC]) -> None:
    stuck = spare_ioc('record(ao, "$(P)x") { field(VAL, "3") }')
    first = snapshot([stuck["x"]], timeout=10.0)
    assert first.value == [3.0]
    stuck.pause()
    try:
        # `ai` has yet to connect: it is read although the answer of `x`, which was asked before, never comes.
        taken = snapshot([stuck["x"], ioc["ai"]], timeout=6.0)
    finally:
        stuck.kill()
    assert taken.ok.tolist() == [False, True]
    assert isinstance(taken.errors[stuck["x"]], (CATimeoutError, DisconnectedError))


def test_a_lost_ioc_is_told(ioc: SoftIOC, spare_ioc: Callable[..., SoftIOC]) -> None:
    lost = spare_ioc('record(ao, "$(P)x") {}')
    names = [ioc["ai"], lost["x"]]
    channels = connect(names, timeout=10.0)
    first = snapshot(names, timeout=10.0)
    assert first.ok.all()
    lost.kill()
    wait_until(lambda: not channels[1].connected)
    taken = first.again(timeout=2.0)
    assert taken.ok.tolist() == [True, False]
    assert "was lost" in str(taken.errors[lost["x"]])
    (changed,) = first.diff(taken)
    assert changed.name == lost["x"]
    assert changed.before is not None and changed.before.ok
    assert changed.after is not None and not changed.after.ok


def test_no_time_at_all(ioc: SoftIOC) -> None:
    taken = snapshot([ioc["nobody"], ioc["nobody2"]], timeout=0)
    assert not taken.ok.any() and len(taken.errors) == 2


# ---- taking it again


def test_channels_live_as_long_as_a_snapshot_of_them(ioc: SoftIOC) -> None:
    from epicsx import _ca

    registry = _ca.context().registry
    names = [ioc[f"bulk:{n:04d}"] for n in range(50)]
    key = (names[7], 0)
    latest = snapshot(names)
    core = id(registry[key]())
    for _ in range(3):
        latest = snapshot(list(names))
        assert id(registry[key]()) == core
    again = latest.again()
    del latest
    assert id(registry[key]()) == core
    del again
    wait_until(lambda: key not in registry or registry[key]() is None)


def test_a_channel_that_was_cleared_is_made_anew(ioc: SoftIOC) -> None:
    from epicsx import _ca

    names = [ioc["bulk:0900"], ioc["ai"]]
    first = snapshot(names)
    _ca.core(names[0]).clear()  # as epicsx.ca.clear_channel does, for everybody
    again = first.again()
    assert again.ok.all()
    assert restore(again, only=[names[0]]).ok == [names[0]]
    _ca.core(names[0]).clear()
    assert again.restore(only=[names[0]]).ok == [names[0]]


def test_after_a_fork(ioc: SoftIOC, own_ioc: Callable[..., SoftIOC]) -> None:
    own = own_ioc('record(ao, "$(P)x") { field(VAL, "3") }')
    result = run_python(
        """
        import os, sys, warnings
        import epicsx
        warnings.simplefilter("ignore")
        name = sys.argv[1]
        first = epicsx.snapshot([name], timeout=10)
        child = os.fork()
        if not child:
            values = [first.again().value, epicsx.snapshot([name]).value]
            values.append(first.restore().ok == [name])
            print(values, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(first.again().value)
        """,
        own["x"],
        env=own.env,
    )
    assert result.stdout.splitlines() == ["[[3.0], [3.0], True]", "[3.0]"]


def test_from_many_threads_and_from_callbacks(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(200)]
    put_many(names, range(200), wait=True)
    found: list[list[Any]] = []

    def take() -> None:
        found.extend(snapshot(names, timeout=20.0).value for _ in range(10))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Channel(ioc["ai"]) as channel:
        channel.subscribe(lambda sample: found.append(snapshot(names).value))
        wait_until(lambda: len(found) == 41)
    assert all(values == list(range(200)) for values in found)


# ---- stamps


def test_the_spread_of_the_stamps(ioc: SoftIOC) -> None:
    names = [ioc["bulk:0001"], ioc["udf"], ioc["bulk:0002"], ioc["nobody"]]
    put_many([names[0]], [1], wait=True)
    put_many([names[2]], [2], wait=True)
    with connected(*names[:3]):
        taken = snapshot(names, timeout=2.0)
    stamps = taken.timestamp_ns.tolist()
    assert taken.skew_ns == stamps[2] - stamps[0] > 0
    assert taken.unstamped == 1
    assert taken[ioc["udf"]][2:5] == (631152000 * 10**9, Severity.INVALID, Status.UDF)
    assert "1 in alarm; 1 never processed" in repr(taken)
    assert snapshot([ioc["udf"]]).skew_ns == 0


# ---- comparing


def test_diff(ioc: SoftIOC, written: list[str]) -> None:
    before = snapshot(written)
    assert before.diff(before.again()) == []
    put_many(written[2:5], [3, "after", np.array([0.0, 1.0, 9.0, 3.0, 4.0])], wait=True)
    after = before.again()
    found = before.diff(after)
    assert [each.name for each in found] == written[2:5]
    assert found[0].before == before[written[2]]
    assert found[0].after == after[written[2]]
    only = snapshot([written[0], ioc["ai"]])
    assert only.diff(before)[0] == (
        ioc["ai"],
        only[ioc["ai"]],
        None,
    )
    assert [d.name for d in only.diff(before)] == [ioc["ai"], *written[1:]]


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.0, 1.0, True),
        (1, 1.0, True),
        (1.0, 1.1, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (math.inf, -math.inf, False),
        (math.inf, 5.0, False),
        (5.0, math.inf, False),
        ("1", 1, False),
        ("a", "a", True),
        (["a"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["1"], np.array([1.0]), False),
        (np.array([1.0, math.nan]), np.array([1.0, math.nan]), True),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), False),
        (np.array([1.0]), np.array([1.0, 1.0]), False),
        (np.array([1], np.uint8), np.array([1.0]), True),
        (np.array([1.0]), 1.0, False),
        (np.array([], np.int32), np.array([], np.int32), True),
        (None, None, True),
        (None, 1.0, False),
        (CATimeoutError("x"), CATimeoutError("y"), True),
    ],
)
def test_what_differs(a: Any, b: Any, equal: bool) -> None:
    for first, second in ((a, b), (b, a)):
        found = made(first).diff(made(second))
        assert (not found) is equal


def test_tolerances() -> None:
    before = made(100.0, 0, np.array([100.0, math.nan]), math.inf, "a", np.array([7], np.uint8))
    after = made(100.5, 1, np.array([100.5, math.nan]), 3.0, "a", np.array([9], np.uint8))
    assert [d.name for d in before.diff(after)] == ["p0", "p1", "p2", "p3", "p5"]
    assert [d.name for d in before.diff(after, rtol=0.01)] == ["p1", "p3", "p5"]
    assert [d.name for d in before.diff(after, atol=2)] == ["p3"]
    for wrong in (-1.0, math.nan):
        with pytest.raises(BadValueError):
            before.diff(after, rtol=wrong)
    with pytest.raises(BadTypeError):
        before.diff([])  # type: ignore[arg-type]


# ---- other forms


def test_to_dict(ioc: SoftIOC) -> None:
    names = [ioc[n] for n in ("ai", "wf:float:n", "wf:string:n", "nobody")]
    with connected(*names[:3]):
        taken = snapshot(names, timeout=2.0)
    taken.value[0] = math.nan
    plain = taken.to_dict()
    assert list(plain) == ["name", *COLUMNS]
    assert {type(column) for column in plain.values()} == {list}
    assert plain["value"][1] is taken.value[1]
    assert plain["error"][:3] == [None] * 3 and "timed out" in plain["error"][3]
    found = json.loads(json.dumps(taken.to_dict(jsonable=True), allow_nan=False))
    numbers = [float(n) for n in range(10)]
    assert found["value"] == ["nan", numbers, [f"s{n}" for n in range(10)], None]
    assert found["ok"] == [True, True, True, False]
    assert found["timestamp_ns"] == taken.timestamp_ns.tolist()


def test_to_pandas(ioc: SoftIOC) -> None:
    pd = pytest.importorskip("pandas")
    names = [ioc[n] for n in ("ai", "calc", "nobody")]
    with connected(*names[:2]):
        taken = snapshot(names, timeout=2.0)
    frame = taken.to_pandas()
    assert frame.index.name == "name" and list(frame.index) == names
    assert list(frame.columns) == COLUMNS
    assert [str(t) for t in frame.dtypes[:5]] == ["float64", "int64", "int16", "int16", "bool"]
    assert frame.loc[ioc["ai"], "value"] == 2.5
    assert np.isnan(frame.loc[ioc["nobody"], "value"])
    assert frame.loc[ioc["ai"], "error"] is None
    assert "timed out" in frame.loc[ioc["nobody"], "error"]
    frame.loc[ioc["ai"], "severity"] = 2
    assert taken.severity[0] == 0
    mixed = snapshot([ioc[n] for n in ("mbbi", "stringin", "wf:double:n", "wf:string:n")])
    frame = mixed.to_pandas()
    assert frame["value"].dtype == object
    assert frame["value"].iloc[0] == 2 and type(frame["value"].iloc[0]) is int
    assert frame["value"].iloc[2] is mixed.value[2]
    assert len(pd.concat([frame, snapshot([]).to_pandas()]).index) == 4


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        (("ai", "nobody", "calc"), "double"),
        (("mbbi", "nobody", "longin"), "int64"),
        (("stringin", "nobody"), "string"),
        (("wf:uchar:n", "nobody", "wf:uchar:0"), "list<item: uint8>"),
        (("wf:string:n",), "list<item: string>"),
        (("nobody",), "double"),
        ((), "double"),
        (
            ("ai", "mbbi", "nobody", "stringin", "wf:float:n", "wf:string:n"),
            (
                "struct<float: double, int: int64, text: string, float32s: list<item: float>, "
                "texts: list<item: string>>"
            ),
        ),
    ],
)
def test_to_arrow(ioc: SoftIOC, tmp_path: Path, records: tuple[str, ...], kind: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with connected(*(ioc[n] for n in records if n != "nobody")):
        taken = snapshot([ioc[n] for n in records], timeout=2.0)
    table = taken.to_arrow()
    types = [str(field.type) for field in table.schema]
    assert types == ["string", kind, "int64", "int16", "int16", "bool", "string"]
    parquet.write_table(table, tmp_path / "snap.parquet")
    back = parquet.read_table(tmp_path / "snap.parquet").to_pydict()
    plain = taken.to_dict()
    for column in ("name", "timestamp_ns", "severity", "status", "ok", "error"):
        assert back[column] == plain[column]
    for value, stored in zip(taken.value, back["value"], strict=True):
        if isinstance(stored, dict):
            (stored,) = (each for each in stored.values() if each is not None)
        assert stored == (value.tolist() if isinstance(value, np.ndarray) else value)


def test_to_arrow_of_a_name_that_is_no_utf8() -> None:
    pytest.importorskip("pyarrow")
    column = snapshot(["\ud800b"]).to_arrow().to_pydict()
    assert column["name"] == [r"\ud800b"] and column["ok"] == [False]


@pytest.mark.parametrize(
    ("module", "method", "extra"),
    [("pandas", "to_pandas", "pandas"), ("pyarrow", "to_arrow", "arrow")],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, method: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'epicsx\[{extra}\]'"):
        getattr(made(1.0), method)()


def test_pickle_and_copy(ioc: SoftIOC) -> None:
    names = [ioc[n] for n in ("ai", "wf:double:n", "nobody")]
    with connected(*names[:2]):
        taken = snapshot(names, timeout=2.0)
        for other in (pickle.loads(pickle.dumps(taken)), copy.copy(taken), copy.deepcopy(taken)):
            assert taken.diff(other) == []
            assert type(other.errors[ioc["nobody"]]) is CATimeoutError
            assert other.again(timeout=2.0).ok.tolist() == [True, True, False]


# ---- files

VALUES: list[Any] = [
    1.5,
    -0.0,
    5e-324,
    0.1 + 0.2,
    math.nan,
    math.inf,
    -math.inf,
    3,
    2**31 - 1,
    "text",
    "",
    "Température \u2028 \0 'quoted'",
    ["a", "", "µ"],
    [],
    np.array([1.5, math.nan, math.inf, -math.inf, -0.0]),
    np.array([0.1, math.nan], np.float32),
    np.array([-32768, 32767], np.int16),
    np.array([0, 65535], np.uint16),
    np.array([0, 255], np.uint8),
    np.array([-(2**31), 2**31 - 1], np.int32),
    np.array([], np.float64),
]


def test_save_and_load(tmp_path: Path) -> None:
    errors = [CATimeoutError("slow", name="x"), AccessError("no"), None]
    taken = made(*VALUES, *errors)
    taken.timestamp_ns[3] = 2**62
    taken.save(tmp_path / "snap")
    found = Snapshot.load(str(tmp_path / "snap"))
    assert found.name == taken.name
    assert found.taken_ns == taken.taken_ns
    for column in ("timestamp_ns", "severity", "status", "ok"):
        assert same(getattr(found, column), getattr(taken, column))
    for value, stored in zip(taken.value, found.value, strict=True):
        assert type(stored) is type(value)
        if isinstance(value, np.ndarray):
            assert stored.dtype == value.dtype and stored.tobytes() == value.tobytes()
        else:
            assert repr(stored) == repr(value)
    n = len(VALUES)
    assert {name: type(error) for name, error in found.errors.items()} == {
        f"p{n}": CATimeoutError,
        f"p{n + 1}": AccessError,
        f"p{n + 2}": CAError,
    }
    assert str(found.errors[f"p{n}"]) == "slow"
    assert taken.diff(found) == []
    for line in (tmp_path / "snap").read_text("utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON
    found.save(tmp_path / "again")
    lines = (tmp_path / "again").read_text().splitlines()
    assert lines[:-1] == (tmp_path / "snap").read_text().splitlines()[:-1]


def test_save_replaces_a_file_when_all_is_well(tmp_path: Path) -> None:
    path, link = tmp_path / "snap", tmp_path / "link"
    made(1.0).save(path)
    link.symlink_to(path)
    made(2.0).save(link)
    assert link.is_symlink() and Snapshot.load(path).value == [2.0]
    wrong = made(3.0)
    wrong.value[0] = object()
    with pytest.raises(TypeError):
        wrong.save(path)
    assert Snapshot.load(path).value == [2.0]
    with pytest.raises(OSError):
        made(1.0).save(tmp_path / "no" / "folder")
    with pytest.raises(OSError):
        made(1.0).save(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError):
        made(1.0).save(tmp_path / "loop")
    (tmp_path / "loop").unlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "snap"]


def test_what_cannot_be_saved_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "no" / "folder"
    with pytest.raises(FileNotFoundError) as info:
        made(1.0).save(path)
    assert info.value.filename == str(path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "snap"
    made(1.0).save(path)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as info:
        made(2.0).save(path)
    assert (info.value.errno, info.value.filename) == (errno.ENOSPC, str(path))
    assert Snapshot.load(path).value == [1.0]
    assert [each.name for each in tmp_path.iterdir()] == ["snap"]


def test_many_threads_save_to_one_path(tmp_path: Path) -> None:
    path = tmp_path / "snap"
    wrong: list[BaseException] = []

    def save(value: float) -> None:
        try:
            for _ in range(20):
                made(*[value] * 100).save(path)
                assert len(set(Snapshot.load(path).value)) == 1
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=save, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [each.name for each in tmp_path.iterdir()] == ["snap"]


def test_a_saved_file_has_the_permissions_of_any_new_one(tmp_path: Path) -> None:
    made(1.0).save(tmp_path / "snap")
    (tmp_path / "other").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("snap", "other")]
    assert modes[0] == modes[1]


def test_save_to_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text()))
    reader.start()
    made(1.0).save(tmp_path / "pipe")
    reader.join()
    assert found[0].count("\n") == 2


HEAD = '{"format": "epicsx snapshot", "version": 1, "taken_ns": 1, "count": 1}\n'


def line(value: str = "1.0", **other: str) -> str:
    fields = {"name": '"x"', "value": value, "timestamp_ns": "1", "severity": "0", "status": "0"}
    fields = {**fields, "ok": "true", **other}
    return "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}\n"


def test_the_line_that_is_broken_below_is_good(tmp_path: Path) -> None:
    (tmp_path / "snap").write_text(HEAD + line())
    assert Snapshot.load(tmp_path / "snap").value == [1.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: not JSON"),
        ("# save/restore V5.0\n", "line 1: not JSON"),
        ("[1]\n", "line 1: not an object"),
        ('{"format": "other"}\n', "not a snapshot"),
        (HEAD.replace('"version": 1', '"version": 2'), "version 2; this epicsx reads 1"),
        (HEAD.replace('"count": 1', '"count": -1'), "no count"),
        (HEAD.replace('"count": 1', '"count": true'), "no count"),
        (HEAD, "line 2: it ends after 0 of 1 PVs"),
        (HEAD + line() * 2, "line 3: more lines than the 1"),
        (HEAD + line()[:30], "line 2: not JSON"),
        (HEAD + "\n", "line 2: not JSON"),
        (HEAD + "[" * 100_000, "line 2: not JSON"),
        (HEAD + line("NaN"), "NaN is not JSON"),
        (HEAD + line("1" * 5000), "line 2"),
        (HEAD + line(name='""'), "no name"),
        (HEAD + line(name="7"), "no name"),
        (HEAD + line(name=r'"\ud800b"'), "a name that is no text"),
        (HEAD + line(ok="1"), "no ok"),
        (HEAD + line(severity="70000"), "no severity"),
        (HEAD + line(status="1.5"), "no status"),
        (HEAD + line(timestamp_ns=str(2**63)), "no timestamp_ns"),
        (HEAD + line("null"), "no value"),
        (HEAD + line("true"), "no value"),
        (HEAD + line("[1]"), "other things than texts"),
        (HEAD + line('{"float": "five"}'), "no number"),
        (HEAD + line('{"float": ["nan"]}'), "no number"),
        (HEAD + line('{"dtype": "object", "data": []}'), "no dtype"),
        (HEAD + line('{"dtype": ["int16"], "data": []}'), "no dtype"),
        (HEAD + line('{"dtype": "int16"}'), "without data"),
        (HEAD + line('{"dtype": "int16", "data": [32768]}'), "not int16"),
        (HEAD + line('{"dtype": "int16", "data": [true]}'), "not int16"),
        (HEAD + line('{"dtype": "float64", "data": ["1"]}'), "no number"),
        (HEAD + line('{"dtype": "float64", "data": [[1]]}'), "no number"),
        (HEAD + line('{"dtype": "float64", "data": [1' + "0" * 400 + "]}"), "too large"),
        (HEAD + line(ok="false", error='"text"'), "no error"),
    ],
)
def test_a_malformed_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "snap"
    path.write_text(text)
    with pytest.raises(BadValueError) as info:
        Snapshot.load(path)
    assert told in str(info.value) and str(path) in str(info.value)
    assert len(str(info.value)) < 400


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "snap").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadValueError, match="UTF-8"):
        Snapshot.load(tmp_path / "snap")
    with pytest.raises(FileNotFoundError):
        Snapshot.load(tmp_path / "none")


# ---- putting back


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("by_file", [False, True])
def test_restore(
    ioc: SoftIOC, written: list[str], tmp_path: Path, wait: bool, by_file: bool
) -> None:
    before = snapshot(written)
    if by_file:
        before.save(tmp_path / "snap")
        before = Snapshot.load(tmp_path / "snap")
    other = [-1.0, -1, 0, "other", np.zeros(9), np.zeros(1, np.uint8), ["x"] * 5]
    put_many(written, other, wait=True)
    assert [d.name for d in before.diff(before.again())] == written
    done = restore(before, wait=wait)
    assert done and len(done) == len(written)
    assert (done.ok, done.errors) == (written, {})
    assert repr(done) == f"<Restored: {len(written)} of {len(written)} PVs written>"
    # the server takes the requests of a circuit in order, so this is answered after the puts
    assert before.diff(before.again()) == []


def test_restore_of_a_thousand(ioc: SoftIOC) -> None:
    names = [ioc[f"bulk:{n:04d}"] for n in range(1000)]
    put_many(names, range(1000), wait=True, timeout=20.0)
    before = snapshot(names)
    put_many(names, [-1] * 1000, wait=True, timeout=20.0)
    assert before.restore(timeout=20.0)
    assert before.again().value == list(range(1000))


def test_restore_tells_of_each_failure_and_writes_the_rest(
    ioc: SoftIOC, written: list[str]
) -> None:
    names = [ioc[n] for n in ("double", "readonly", "disp", "noaccess", "longout", "nobody")]
    with connected(*names[:5], ioc["latin1.DESC"]):
        before = snapshot([*names, ioc["latin1.DESC"]], timeout=2.0)
    put_many([names[0], names[4]], [0, 0], wait=True)
    before.value[4] = "text"
    done = before.restore(timeout=10.0)
    assert not done
    assert done.ok == [ioc["double"]]
    assert list(done.errors) == [*names[1:], ioc["latin1.DESC"]]
    kinds = [AccessError, PutError, BadValueError, BadTypeError, BadValueError, BadValueError]
    assert [type(error) for error in done.errors.values()] == kinds
    for name, error in done.errors.items():
        assert name in str(error)
    assert "no value to put back" in str(done.errors[ioc["nobody"]])
    assert "decoded" in str(done.errors[ioc["latin1.DESC"]])
    assert repr(done).startswith("<Restored: 1 of 7 PVs written; 6 failed (BadValueError 3, ")
    assert snapshot(names[:1]).value == [1.5]


def test_restore_without_a_wait_tells_what_the_client_sees(ioc: SoftIOC) -> None:
    done = snapshot([ioc["readonly"], ioc["disp"]]).restore(wait=False)
    assert done.ok == [ioc["disp"]]
    assert isinstance(done.errors[ioc["readonly"]], AccessError)


def test_restore_of_what_no_longer_fits(ioc: SoftIOC, written: list[str]) -> None:
    before = snapshot([ioc[n] for n in ("w:double", "w:string", "stringout", "mbbo")])
    before.value[:] = [np.zeros(33), ["x" * 40], "x" * 40, -1]
    done = before.restore()
    assert done.ok == []
    assert {type(error) for error in done.errors.values()} == {BadValueError}


def test_a_slice_is_not_put_back(ioc: SoftIOC, written: list[str], tmp_path: Path) -> None:
    whole = ioc["w:double"]
    with Channel(whole) as plain, plain[2:4] as part:
        # the last as an IOC takes it, too, though it is no strict JSON
        names = [filter_name(whole, slice=(1, 3)), f"{whole}.VAL[2:3]", f"{whole}.{{arr:{{s:3}}}}"]
        deadband = filter_name(ioc["double"], deadband=0.5)
        taken = snapshot([part, *names, deadband, whole], timeout=10.0)
        assert taken.value[0].tolist() == [2.0, 3.0]
        taken.save(tmp_path / "snap")
        for before in (taken, Snapshot.load(tmp_path / "snap")):
            before.value[3], before.ok[3] = np.array([3.0]), True  # older IOCs have no such filters
            put_many([whole, ioc["double"]], [np.zeros(5), 0.0], wait=True)
            done = before.restore(only=[part.name, *names, deadband])
            assert done.ok == [deadband]
            assert list(done.errors) == [part.name, *names]
            for name, error in done.errors.items():
                assert type(error) is BadValueError
                assert name in str(error) and "start of the array" in str(error)
            assert plain.get().value.tolist() == [0.0] * 5
            assert before.restore(only=[whole])


def test_restore_of_some(ioc: SoftIOC, written: list[str]) -> None:
    before = snapshot(written)
    put_many(written[:2], [0.0, 0], wait=True)
    assert before.restore(only=[written[1]]).ok == [written[1]]
    assert before.again().value[:2] == [0.0, 7]
    with pytest.raises(BadValueError, match="nobody"):
        before.restore(only=[written[0], "nobody"])
    assert before.again().value[0] == 0.0
    anything: Any
    for anything in (written[0], b"x", 5, [["x"]], [written[1], 5]):
        with pytest.raises(BadTypeError, match="list of names"):
            before.restore(only=anything)
    with pytest.raises(BadTypeError):
        restore(written)  # type: ignore[arg-type]


def test_a_name_given_twice_is_written_once(ioc: SoftIOC, written: list[str]) -> None:
    before = snapshot([written[0], written[0]])
    put_many([ioc["puts:n"]], [0], wait=True)
    assert before.restore().ok == [written[0]]


def test_a_slow_record_times_out_alone(ioc: SoftIOC, spare_ioc: Callable[..., SoftIOC]) -> None:
    own = spare_ioc(
        """
        record(ao, "$(P)quick") {}
        record(ao, "$(P)slow") { field(FLNK, "$(P)seq") }
        record(seq, "$(P)seq") { field(DLY1, "60") field(DOL1, "1") field(LNK1, "$(P)done.PROC PP") }
        record(calc, "$(P)done") {}
        """
    )
    before = snapshot([own["quick"], own["slow"]], timeout=20.0)
    assert before.ok.all()
    done = before.restore(timeout=3.0)
    assert done.ok == [own["quick"]]
    assert isinstance(done.errors[own["slow"]], CATimeoutError)


def test_a_missing_name_does_not_keep_the_others(ioc: SoftIOC, written: list[str]) -> None:
    with connected(written[0]):
        before = snapshot([ioc["nobody"], written[0]], timeout=2.0)
    before.value[0], before.ok[0] = 1.0, True
    put_many([written[0]], [0.0], wait=True)
    done = before.restore(timeout=5.0)
    assert done.ok == [written[0]]
    assert isinstance(done.errors[ioc["nobody"]], CATimeoutError)
    assert snapshot([written[0]]).value == [1.5]
