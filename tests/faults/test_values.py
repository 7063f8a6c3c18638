"""The tables of D7 and D8 tell a lie from the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import start_python

from epicsx import BadValueError
from epicsx.testing import SoftIOC
from faults.values import DB, READER, Case, Ioc, outcome


@pytest.fixture
def holds(own_ioc: Callable[..., SoftIOC]) -> Iterator[Ioc]:
    """Give an IOC with the tables' records, and its reader."""
    ioc = own_ioc(DB)
    with start_python(READER, ioc.prefix, env=ioc.env) as reader:
        yield Ioc(ioc, reader)
        reader.finish()


def test_what_a_put_may_do(holds: Ioc) -> None:
    fits = Case("ao", "2.5", 2.5, 2.5)
    never = Case("ao", "anything", 2.5)

    def stores(value: float, answer: Any = True) -> Callable[[str, Any], Any]:
        def put(name: str, given: Any) -> Any:
            holds.ioc.write(name.removeprefix(holds.ioc.prefix), value)
            return answer

        return put

    def refuses(name: str, value: Any) -> Any:
        raise BadValueError("no")

    def stores_and_refuses(name: str, value: Any) -> Any:
        stores(3.5)(name, value)
        raise BadValueError("no")

    assert outcome(holds, fits, stores(2.5)) == ("stored", True)
    assert outcome(holds, fits, refuses) == ("BadValueError", True)
    assert outcome(holds, fits, lambda name, value: None) == ("answers None", True)
    assert outcome(holds, fits, stores(3.5)) == ("**says done, stored 3.5**", False)
    assert outcome(holds, never, stores(2.5)) == ("**says done, stored 2.5**", False)
    assert outcome(holds, never, lambda name, value: 1) == (
        "**says done, nothing is stored**",
        False,
    )
    assert outcome(holds, fits, stores_and_refuses) == ("BadValueError, but stored 3.5", False)
    assert outcome(holds, fits, stores(3.5, None)) == ("answers None, stored 3.5", False)
