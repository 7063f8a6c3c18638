"""Numbers that travel on the wire."""

from __future__ import annotations

import pickle

import pytest

from epicsx import enums
from epicsx.enums import DBE, DBR, ECA, Access, Severity, Status


def test_all_is_complete() -> None:
    public = [
        name
        for name, thing in vars(enums).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == enums.__name__
    ]
    assert sorted(public) == sorted(enums.__all__)


def test_masks() -> None:
    assert (DBE.VALUE, DBE.LOG, DBE.ALARM, DBE.PROPERTY) == (1, 2, 4, 8)
    assert DBE.VALUE | DBE.ALARM == 5
    assert (Access.NONE, Access.READ, Access.WRITE) == (0, 1, 2)


def test_request_types() -> None:
    assert [int(t) for t in DBR] == list(range(39))
    assert DBR["INT"] is DBR.SHORT and DBR["TIME_INT"] is DBR.TIME_SHORT
    natives = ["STRING", "SHORT", "FLOAT", "ENUM", "CHAR", "LONG", "DOUBLE"]
    for i, family in enumerate(["", "STS_", "TIME_", "GR_", "CTRL_"]):
        assert [DBR(7 * i + k).name for k in range(7)] == [family + name for name in natives]
    assert [t.name for t in DBR][35:] == ["PUT_ACKT", "PUT_ACKS", "STSACK_STRING", "CLASS_NAME"]


def test_alarms() -> None:
    assert [s.name for s in Severity] == ["NO_ALARM", "MINOR", "MAJOR", "INVALID"]
    assert [int(s) for s in Status] == list(range(22))
    assert (Status.HIHI, Status.COMM, Status.UDF, Status.WRITE_ACCESS) == (3, 9, 17, 21)


@pytest.mark.parametrize("cls", [Severity, Status])
def test_an_alarm_without_a_name(cls: type[Severity | Status]) -> None:
    odd = cls(99)
    assert (odd, odd.value, odd.name) == (99, 99, "UNKNOWN")
    assert isinstance(odd, cls)
    assert pickle.loads(pickle.dumps(odd)) == 99
    assert 99 not in [int(member) for member in cls]
    with pytest.raises(ValueError, match="is not a valid"):
        cls("major")  # type: ignore[arg-type]


def test_status_codes() -> None:
    assert (ECA.NORMAL, ECA.TIMEOUT, ECA.DISCONN, ECA.IODONE, ECA.UNRESPTMO) == (
        1,
        80,
        192,
        339,
        480,
    )
    assert (ECA.BADTYPE, ECA.GETFAIL, ECA.PUTFAIL, ECA.NOWTACCESS) == (114, 152, 160, 376)
    assert [code >> 3 for code in ECA] == list(range(61))
