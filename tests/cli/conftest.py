"""Fixtures of the tests that compare `epicsx get put monitor info` with the C tools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import tool_cases
from support.commands import Commands, Forks

from epicsx.testing import SoftIOC


@pytest.fixture(scope="session")
def tools_ioc() -> Iterator[SoftIOC]:
    """Give the IOC of the comparisons. Write what you need before you read it; never stop it."""
    started = tool_cases.start_ioc()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def tools_env(tools_ioc: SoftIOC) -> dict[str, str]:
    """Give the environment of clients of `tools_ioc`."""
    return {**tools_ioc.env, **tool_cases.ZONE, **tool_cases.PATIENT}


@pytest.fixture(scope="session")
def commands(tools_env: dict[str, str]) -> Iterator[Commands]:
    """Give what runs command lines of `epicsx` on `tools_ioc`."""
    with Commands(tools_env) as found:
        yield found


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Give what starts command lines of `epicsx` that run at the same time."""
    with Forks({}) as found:
        yield found
