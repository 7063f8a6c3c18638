"""The tree of exceptions, and what stands for an ECA code."""

from __future__ import annotations

import inspect
import pickle

import pytest

from epicsx import errors
from epicsx.enums import ECA
from epicsx.errors import CAError, unanswered

BUILTINS = {
    errors.CATimeoutError: TimeoutError,
    errors.DisconnectedError: ConnectionError,
    errors.AccessError: PermissionError,
    errors.BadTypeError: TypeError,
    errors.BadValueError: ValueError,
    errors.PutError: CAError,
    errors.ServerError: CAError,
}
PYEPICS = (
    errors.ChannelAccessException,
    errors.CASeverityException,
    errors.ChannelAccessGetFailure,
)


def test_all_is_complete() -> None:
    public = [
        name
        for name, thing in vars(errors).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == errors.__name__
    ]
    assert sorted(public) == sorted(errors.__all__)


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        thing = getattr(errors, name)
        if inspect.isclass(thing):
            assert issubclass(thing, CAError)
            assert f" {name} " in drawn


@pytest.mark.parametrize(("cls", "builtin"), BUILTINS.items())
def test_families(cls: type[CAError], builtin: type[BaseException]) -> None:
    assert issubclass(cls, builtin)
    for error in (
        cls(80, "too late", "X:pv"),
        cls("too late", status=80, name="X:pv"),
        cls(message="too late", status=80, name="X:pv"),
        cls(80, "too late", name="X:pv"),
        pickle.loads(pickle.dumps(cls(80, "too late", "X:pv"))),
    ):
        assert type(error) is cls
        assert str(error) == error.message == "too late"
        assert (error.status, error.name) == (80, "X:pv")
        assert error.args == ("too late",)
        assert repr(error) == f"{cls.__name__}('too late')"
        assert getattr(error, "errno", None) is None


def test_only_a_message_or_nothing() -> None:
    assert (CAError("text").status, CAError("text").name, str(CAError("text"))) == (
        None,
        "",
        "text",
    )
    assert (str(CAError()), str(errors.CATimeoutError()), CAError(80).status) == ("", "", 80)
    assert CAError(None, "text").status is None
    with pytest.raises(TypeError, match="CAError takes"):
        CAError(1, "a", "b", "c")
    with pytest.raises(TypeError, match="PutError takes"):
        errors.PutError("a", "b")


def test_pyepics_classes() -> None:
    refused = errors.CASeverityException("put", "Write access denied")
    assert str(refused) == " put returned 'Write access denied'"
    assert (refused.fcn, refused.msg) == ("put", "Write access denied")
    assert not isinstance(refused, errors.ChannelAccessException)
    failure = errors.ChannelAccessGetFailure("Get failed; status code: 152", 17, 152)
    assert str(failure) == "Get failed; status code: 152"
    assert (failure.chid, failure.status) == (17, 152)
    assert not isinstance(failure, errors.ChannelAccessException)
    assert str(errors.ChannelAccessException("cannot find Epics CA DLL")) == (
        "cannot find Epics CA DLL"
    )
    assert all(issubclass(cls, CAError) for cls in PYEPICS)
    for error in (refused, failure):
        error.name = "X:pv"
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_there_is_one_row_for_each_code() -> None:
    assert len(errors._ROWS) == len(ECA)
    for number, (code, row) in enumerate(zip(ECA, errors._ROWS, strict=True)):
        assert code >> 3 == number
        expected = "16KARRAYCLIENT" if code is ECA.ARRAYCLIENT_16K else code.name
        assert row[0] == f"ECA_{expected}"
        assert errors.message(code) == row[2]


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (ECA.TIMEOUT, errors.CATimeoutError),
        (ECA.DISCONN, errors.DisconnectedError),
        (ECA.UNRESPTMO, errors.DisconnectedError),
        (ECA.CHANDESTROY, errors.DisconnectedError),
        (ECA.NORDACCESS, errors.AccessError),
        (ECA.NOWTACCESS, errors.AccessError),
        (ECA.BADTYPE, errors.BadTypeError),
        (ECA.NOCONVERT, errors.BadTypeError),
        (ECA.BADCOUNT, errors.BadValueError),
        (ECA.BADSTR, errors.BadValueError),
        (ECA.TOLARGE, errors.BadValueError),
        (ECA.PUTFAIL, errors.PutError),
        (ECA.GETFAIL, errors.ServerError),
        (ECA.INTERNAL, errors.ServerError),
        (ECA.ISATTACHED, CAError),
        (0xFFFF, errors.ServerError),
        (-1, errors.ServerError),
    ],
)
def test_from_status(status: int, cls: type[CAError]) -> None:
    error = errors.from_status(status, "X:pv", "put")
    assert type(error) is cls
    assert (error.status, error.name) == (status, "X:pv")
    assert str(error).startswith("put of 'X:pv' failed: ")
    assert errors.message(status) in str(error)


def test_texts() -> None:
    assert str(errors.from_status(ECA.NOWTACCESS, "X:pv", "put")) == (
        "put of 'X:pv' failed: Write access denied (ECA_NOWTACCESS)"
    )
    assert str(errors.from_status(ECA.PUTFAIL)) == (
        "request failed: Channel write request failed (ECA_PUTFAIL)"
    )
    assert errors.message(ECA.NORMAL) == "Normal successful completion"
    assert "ECA code 4000" in str(errors.from_status(4000, "X:pv", "get"))
    timeout = errors.timed_out("X:pv", "connect", 0.5, "no server has it")
    assert str(timeout) == "connect of 'X:pv' timed out after 0.50 seconds: no server has it"
    assert (timeout.status, timeout.name) == (ECA.TIMEOUT, "X:pv")


def test_outcome_unknown() -> None:
    lost = errors.from_status(ECA.DISCONN, "X:pv", "put", outcome_unknown=True)
    assert isinstance(lost, errors.DisconnectedError) and lost.outcome_unknown
    assert str(lost).endswith("; it may have been carried out")
    assert pickle.loads(pickle.dumps(lost)).outcome_unknown
    known = errors.from_status(ECA.DISCONN, "X:pv", "get")
    assert isinstance(known, errors.DisconnectedError) and not known.outcome_unknown


@pytest.mark.parametrize(
    ("addr_list", "auto", "name_servers", "told"),
    [
        ("10.0.0.1 10.0.0.2:5066", "NO", "", "sent to 10.0.0.1 10.0.0.2:5066"),
        ("10.0.0.1", None, "", "sent to 10.0.0.1 this host's networks"),
        ("", "YES", "ns:5064", "sent to this host's networks ns:5064"),
        ("", "no", "", "sent nowhere: EPICS_CA_ADDR_LIST is empty, EPICS_CA_AUTO_ADDR_LIST is NO"),
        (" ".join("abcdefghij"), "NO", "", "sent to a b c d e f g h and 2 more"),
    ],
)
def test_an_unanswered_search_says_where_it_was_sent(
    monkeypatch: pytest.MonkeyPatch, addr_list: str, auto: str | None, name_servers: str, told: str
) -> None:
    monkeypatch.setenv("EPICS_CA_ADDR_LIST", addr_list)
    monkeypatch.setenv("EPICS_CA_NAME_SERVERS", name_servers)
    if auto is None:
        monkeypatch.delenv("EPICS_CA_AUTO_ADDR_LIST", raising=False)
    else:
        monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", auto)
    assert unanswered().endswith(told)
