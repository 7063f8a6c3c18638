"""configure(), build_info(), and the package's public names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
from support import run_python

import epicsx
from epicsx.testing import SoftIOC

DB = 'record(ao, "$(P)x") { field(VAL, "1.5") field(PINI, "YES") }'

#: Start from nothing, so that configure() alone says where to search.
CLEAN = """
import os, sys
for name in list(os.environ):
    if name.startswith("EPICS_CA"):
        del os.environ[name]
os.environ["EPICSX_NO_REPEATER"] = "1"
import epicsx
from epicsx import Channel, configure
prefix, port, repeater = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
"""


@pytest.mark.parametrize(
    "settings",
    [
        "addr_list='127.0.0.1', auto_addr_list=False, server_port=port, repeater_port=repeater",
        "addr_list=[f'127.0.0.1:{port}'], auto_addr_list=False, repeater_port=repeater",
        """name_servers=[f'127.0.0.1:{port}'], addr_list='', auto_addr_list=False,
        repeater_port=repeater, conn_timeout=5.0, max_array_bytes=1_000_000""",
    ],
    ids=["port", "address with port", "name server"],
)
def test_configure_before_first_use(own_ioc: Callable[..., SoftIOC], settings: str) -> None:
    ioc = own_ioc(DB)
    run_python(
        CLEAN
        + f"""
configure({settings})
assert Channel(prefix + "x").get(timeout=20.0).value == 1.5
try:
    configure(server_port=port)
except RuntimeError as error:
    assert "first use" in str(error)
else:
    raise AssertionError("configured after first use")
""",
        ioc.prefix,
        str(ioc.server_port),
        str(ioc.repeater_port),
    )


def test_the_environment_is_read_at_first_use(own_ioc: Callable[..., SoftIOC]) -> None:
    ioc = own_ioc(DB)
    run_python(
        CLEAN
        + """
configure(auto_addr_list=False, repeater_port=repeater)
os.environ["EPICS_CA_ADDR_LIST"] = f"127.0.0.1:{port}"
assert Channel(prefix + "x").get(timeout=20.0).value == 1.5
assert os.environ["EPICS_CA_MAX_ARRAY_BYTES"] == "100000000"
""",
        ioc.prefix,
        str(ioc.server_port),
        str(ioc.repeater_port),
    )


@pytest.mark.parametrize(
    "settings",
    [
        "server_port=0",
        "server_port=65536",
        "repeater_port=-1",
        "max_array_bytes=100",
        "conn_timeout=0",
        "conn_timeout=-1.0",
        "conn_timeout=float('nan')",
    ],
)
def test_settings_that_cannot_be(settings: str) -> None:
    run_python(
        f"""
import os
import epicsx
before = dict(os.environ)
try:
    epicsx.configure({settings})
except epicsx.BadValueError as error:
    assert "{settings.partition("=")[0]}" in str(error)
else:
    raise AssertionError("accepted")
assert dict(os.environ) == before
"""
    )


def test_configure_in_a_process_that_uses_channel_access(ioc: SoftIOC) -> None:
    with epicsx.Channel(ioc["ai"]) as channel:
        channel.connect()
        with pytest.raises(RuntimeError, match="first use"):
            epicsx.configure(server_port=5064)


def test_a_failed_search_first_and_configure_after(own_ioc: Callable[..., SoftIOC]) -> None:
    run_python(
        """
import epicsx
try:
    epicsx.Channel("nobody").get(timeout=0.2)
except epicsx.CATimeoutError:
    pass
try:
    epicsx.configure(conn_timeout=5.0)
except RuntimeError:
    pass
else:
    raise AssertionError
"""
    )


def test_build_info_says_which_libca_is_in_use(ioc: SoftIOC) -> None:
    info = epicsx.build_info()
    assert {"libca version", "libca path"} <= {key.replace("_", " ") for key in info} or (
        any("version" in key for key in info) and any("path" in key for key in info)
    )
    texts = [str(value) for value in info.values()]
    assert any(os.path.exists(text) and "ca" in os.path.basename(text) for text in texts)


def test_importing_touches_no_network_and_is_light() -> None:
    run_python(
        """
import sys
before = set(sys.modules)
import epicsx
assert not [name for name in sys.modules if name.startswith("epicsx._ca")]
assert "numpy" not in sys.modules
import threading
assert threading.active_count() == 1
dir(epicsx)
assert threading.active_count() == 1
"""
    )


def test_every_public_name_is_there() -> None:
    for name in epicsx.__all__:
        assert getattr(epicsx, name) is not None
    assert set(epicsx.__all__) <= set(dir(epicsx))
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(epicsx, "nonsense")  # noqa: B009
    assert "epicsx" in sys.modules
