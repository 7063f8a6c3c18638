"""`epicsx doctor`: each verdict is provoked, by a real IOC wherever one can be brought to it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support import long_enough, wait_until

from epicsx import _wire
from epicsx._doctor import examine
from epicsx._doctor_env import BadAddress, address_of, broadcasts, read_environment
from epicsx._doctor_findings import VERDICTS, Finding, shown
from epicsx._doctor_net import datagrams
from epicsx.cli import main
from epicsx.enums import ECA
from epicsx.testing import CAProxy, Command, Frame, PVSet, SoftIOC
from epicsx.testing.ports import LOOPBACK

ROOT = Path(__file__).parents[2]
COMMON = ["libca", "environment", "repeater", "searched"]
HEALTHY = [*COMMON, "answered", "channel", "filters", "read"]

DB = """
record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") }
record(ai, "$(P)high") { field(VAL, "9") field(PINI, "YES") field(HIGH, "5") field(HSV, "MINOR") }
"""


@pytest.fixture(scope="module")
def hidden() -> Iterator[SoftIOC]:
    """Give an IOC for the proxy to stand before."""
    with SoftIOC(DB, repeater_port=int(os.environ["EPICS_CA_REPEATER_PORT"])) as ioc:
        yield ioc


@pytest.fixture(scope="module")
def one(hidden: SoftIOC) -> Iterator[CAProxy]:
    with CAProxy(hidden.server_port, repeater_port=hidden.repeater_port) as proxy:
        yield proxy


@pytest.fixture
def proxy(one: CAProxy) -> Iterator[CAProxy]:
    """Give a proxy without rules."""
    yield one
    one.reset()


def ask(
    env: Mapping[str, str], *names: str, timeout: float = 10.0, also: Sequence[str] = ()
) -> list[Finding]:
    """What is found where the repeater, for which a second is given, is not put aside."""
    return long_enough(
        lambda _: examine(names, env, timeout=timeout, also=also),
        lambda found: "bad-repeater" not in codes(found),
    )


def ask_until(
    told: Sequence[str],
    env: Mapping[str, str],
    *names: str,
    timeout: float,
    also: Sequence[str] = (),
) -> list[Finding]:
    """What is found in a time in which all this is told; something never comes, so it takes the whole time."""
    return long_enough(
        lambda seconds: ask(env, *names, timeout=seconds, also=also),
        lambda found: all(any(each in one.text for one in found) for each in told),
        timeout,
    )


def codes(found: Sequence[Finding]) -> list[str]:
    return [each.code for each in found]


def expect(found: Sequence[Finding], code: str, told: str, pv: str | None = None) -> Finding:
    """The one finding of that code, which says so."""
    these = [each for each in found if each.code == code]
    assert len(these) == 1, codes(found)
    assert told in these[0].text and these[0].pv == pv
    return these[0]


# ---- all well


def test_all_well(hidden: SoftIOC) -> None:
    found = ask(hidden.env, hidden["x"])
    assert codes(found) == HEALTHY
    assert not any(each.bad or each.hint for each in found)
    at, name = f"127.0.0.1:{hidden.server_port}", hidden["x"]
    expect(found, "libca", "libca of EPICS 7")
    expect(found, "environment", f"SERVER_PORT='{hidden.server_port}'")
    expect(found, "repeater", f"UDP port {hidden.repeater_port}")
    expect(found, "searched", f"asked {at} by UDP")
    assert expect(found, "answered", f"{at} has it", name).facts["server"] == at
    expect(found, "filters", f"{at} has channel filters", name)
    told = "DOUBLE, 1 element, read and write access, protocol 4.13"
    assert expect(found, "channel", told, name).facts["count"] == 1
    expect(found, "read", "sends 1 element, no alarm", name)


def test_an_alarm_is_told(hidden: SoftIOC) -> None:
    found = ask(hidden.env, hidden["high"])
    expect(found, "read", "sends 1 element, alarm MINOR HIGH", hidden["high"])


def test_nothing_is_written_and_nothing_stays(hidden: SoftIOC, proxy: CAProxy) -> None:
    proxy.clear_log()
    assert codes(ask(proxy.env, hidden["x"], hidden["high"]))[4:] == HEALTHY[4:] * 2
    sent = {each.command for each in proxy.log if each.direction == "to_server"}
    circuit = {"VERSION", "CLIENT_NAME", "HOST_NAME", "CREATE_CHAN", "READ_NOTIFY"}
    assert sent == circuit | {"SEARCH"}
    found = examine([hidden["x"]], proxy.env, timeout=10.0, read=False)
    assert codes(found) == HEALTHY[:-1]


# ---- the environment


@pytest.mark.parametrize(
    ("code", "variables", "told"),
    [
        ("bad-address", {"ADDR_LIST": "127.0.0.1 1.2.3.400"}, "'1.2.3.400': a part"),
        ("bad-address", {"ADDR_LIST": "127.0.0.1:port"}, "'127.0.0.1:port': 'port' is no port"),
        ("bad-address", {"NAME_SERVERS": "127.0.0.1:70000"}, "NAME_SERVERS: '127.0.0.1:70000'"),
        ("bad-address", {"ADDR_LIST": ":5064"}, "no host"),
        ("bad-address", {"ADDR_LIST": "99999999999"}, "no address"),
        ("ipv6-address", {"ADDR_LIST": "::1"}, "'::1': an IPv6 address"),
        ("ipv6-address", {"ADDR_LIST": "[::1]:5064"}, "an IPv6 address"),
        ("unresolved-host", {"ADDR_LIST": "a..b 127.0.0.1"}, "'a..b': no IPv4 address"),
        ("duplicate-address", {"ADDR_LIST": "127.0.0.1 127.0.0.1:5064"}, "same as an entry"),
        ("no-address", {"AUTO_ADDR_LIST": "NO"}, "no address to search"),
        ("no-address", {"AUTO_ADDR_LIST": "NO", "ADDR_LIST": "::1"}, "no address to search"),
        ("bad-port", {"SERVER_PORT": "80"}, "SERVER_PORT='80': libca uses 5064"),
        ("bad-port", {"SERVER_PORT": "high"}, "SERVER_PORT='high': libca uses 5064"),
        ("bad-port", {"REPEATER_PORT": ""}, "REPEATER_PORT='': libca uses 5065"),
        ("bad-conn-tmo", {"CONN_TMO": "long"}, "CONN_TMO='long': libca uses 30 s"),
        ("bad-port", {"SERVER_PORT": "9" * 5000}, "libca uses 5064"),
        ("bad-port", {"REPEATER_PORT": "-" + "9" * 5000}, "libca uses 5065"),
        ("bad-address", {"ADDR_LIST": "127.0.0.1:" + "9" * 5000}, "is no port"),
        ("bad-address", {"ADDR_LIST": "127.0.0." + "9" * 5000}, "at most 255"),
        ("bad-address", {"ADDR_LIST": "9" * 5000}, "no address"),
        ("bad-array-bytes", {"MAX_ARRAY_BYTES": "-" + "9" * 5000}, "libca uses 16384"),
        ("bad-conn-tmo", {"CONN_TMO": "2.5 s"}, "CONN_TMO='2.5 s': libca uses 30 s"),
        ("bad-conn-tmo", {"CONN_TMO": " "}, "CONN_TMO=' ': libca uses 30 s"),
        ("bad-conn-tmo", {"CONN_TMO": "1e400"}, "CONN_TMO='1e400': libca uses 30 s"),
        ("bad-conn-tmo", {"CONN_TMO": "-1e400"}, "CONN_TMO='-1e400': libca uses 30 s"),
        ("bad-conn-tmo", {"CONN_TMO": "1e-400"}, "CONN_TMO='1e-400': libca uses 30 s"),
        ("bad-conn-tmo", {"CONN_TMO": "0x1p5000"}, "CONN_TMO='0x1p5000': libca uses 30 s"),
        ("bad-conn-tmo", {"CONN_TMO": "inf5"}, "CONN_TMO='inf5': libca uses 30 s"),
        ("fatal-conn-tmo", {"CONN_TMO": "-1"}, "CONN_TMO='-1': libca takes -1 s, and drops"),
        ("fatal-conn-tmo", {"CONN_TMO": "0"}, "CONN_TMO='0': libca takes 0 s"),
        ("fatal-conn-tmo", {"CONN_TMO": "inf"}, "CONN_TMO='inf': libca takes inf s"),
        ("fatal-conn-tmo", {"CONN_TMO": "-Infinity"}, "libca takes -inf s"),
        ("fatal-conn-tmo", {"CONN_TMO": "nan"}, "CONN_TMO='nan': libca takes nan s"),
        ("fatal-conn-tmo", {"CONN_TMO": "4e9"}, "CONN_TMO='4e9': libca takes 4e+09 s"),
        ("bad-array-bytes", {"MAX_ARRAY_BYTES": "10MB"}, "'10MB': libca uses 16384"),
        ("bad-array-bytes", {"MAX_ARRAY_BYTES": "many"}, "'many': libca uses 16384"),
        ("bad-switch", {"AUTO_ADDR_LIST": "No"}, "'No': libca takes it for YES"),
        ("bad-switch", {"AUTO_ADDR_LIST": "false"}, "'false': libca takes it for YES"),
        ("bad-switch", {"AUTO_ARRAY_BYTES": "1"}, "'1': libca takes it for NO"),
        ("unknown-variable", {"ADDRLIST": "x"}, "'EPICS_CA_ADDRLIST' is set"),
    ],
)
def test_what_is_wrong_with_the_environment(
    code: str, variables: dict[str, str], told: str
) -> None:
    environ = {f"EPICS_CA_{name}": text for name, text in variables.items()}
    _, found = read_environment(environ, 20.0)
    expect(found, code, told)


def test_what_is_right_with_the_environment() -> None:
    environ = {
        "EPICS_CA_ADDR_LIST": "127.0.0.1  2130706434:6000 localhost:7000\t10.0.0.255:05064",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_NAME_SERVERS": "127.0.0.1",
        "EPICS_CA_SERVER_PORT": " 5070 ",
        "EPICS_CA_CONN_TMO": " 2.5 ",
        "EPICS_CA_MAX_ARRAY_BYTES": "20000",
        "EPICS_CA_AUTO_ARRAY_BYTES": "no",
    }
    settings, found = read_environment(environ, 20.0)
    assert codes(found) == ["environment"]
    addresses = [("127.0.0.1", 5070), ("127.0.0.2", 6000), ("127.0.0.1", 7000)]
    assert settings.addresses == [*addresses, ("10.0.0.255", 5064)]
    assert settings.name_servers == [("127.0.0.1", 5070)]
    assert (settings.automatic, settings.server_port, settings.conn_tmo) == (False, 5070, 2.5)
    assert settings.largest_message == 20024
    settings, found = read_environment({})
    assert codes(found) == ["environment"]
    assert (settings.automatic, settings.addresses, settings.largest_message) == (True, [], None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 30.0), ("0x10", 16.0), ("0x.8P1", 1.0), ("+.5", 0.5), ("2e9", 2e9)]
)
def test_conn_tmo_that_libca_takes(text: str, seconds: float) -> None:
    settings, found = read_environment({"EPICS_CA_CONN_TMO": text})
    assert codes(found) == ["environment"]
    assert settings.conn_tmo == seconds


@pytest.mark.parametrize(
    ("text", "told"),
    [("", False), ("0x10", False), ("2e9", False), ("inf", False), ("nan", False), ("4e9", False)]
    + [(text, True) for text in ("1e400", "1e-400", "-1e400", "2.5 s", " ", "inf5", "0x1p5000")],
)
def test_libca_finds_a_number_where_we_do(hidden: SoftIOC, text: str, told: bool) -> None:
    _, found = read_environment({"EPICS_CA_CONN_TMO": text})
    assert ("bad-conn-tmo" in codes(found)) == told
    name = hidden["x"]
    code = (
        f"import epicsx\ntry: epicsx.connect([{name!r}], timeout=20)\nexcept epicsx.CAError: pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **hidden.env, "EPICS_CA_CONN_TMO": text},
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert done.returncode == 0, done.stderr
    assert ("Unable to find a real number in EPICS_CA_CONN_TMO" in done.stderr) == told


def test_an_address_of_our_own_has_reasons() -> None:
    assert address_of("127.0.0.1:6064", 5064) == ("127.0.0.1", 6064)
    with pytest.raises(BadAddress, match=r"'a\.\.b': no IPv4 address"):
        address_of("a..b", 5064, 20.0)


def test_broadcasts_are_addresses() -> None:
    found = list(broadcasts(5064))
    assert found
    for address, port in found:
        assert socket.inet_aton(address) and port == 5064


def test_no_repeater(hidden: SoftIOC, free_port: Callable[[], int]) -> None:
    port = free_port()
    env = {**hidden.env, "EPICS_CA_REPEATER_PORT": str(port)}
    found = ask(env, hidden["x"])
    note = expect(found, "no-repeater", f"no CA repeater on UDP port {port} yet")
    assert not note.bad and note.hint
    found = ask({**env, "EPICSX_NO_REPEATER": "1"}, hidden["x"])
    assert expect(found, "repeater-off", f"UDP port {port}, and EPICSX_NO_REPEATER=1").bad


def test_something_else_has_the_repeaters_port(hidden: SoftIOC) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LOOPBACK, 0))
        port = other.getsockname()[1]
        env = {**hidden.env, "EPICS_CA_REPEATER_PORT": str(port)}
        found = examine([hidden["x"]], env)
    expect(found, "bad-repeater", f"UDP port {port} does not answer")


# ---- the name


def test_names(hidden: SoftIOC) -> None:
    x = hidden["x"]
    blank, space, odd = f" {x}\n", f"{x} {x}", f"{x}\u2013\x1b[31m"
    long, record = x + "." + "F" * 1100, "R" * 61
    loose = x + ".{ts:{}}"
    names = (blank, space, odd, long, record, loose)
    found = ask_until([": without"], hidden.env, *names, timeout=1.5)
    expect(found, "name-blank", f"'{x}' is at 127.0.0.1:{hidden.server_port}: without", blank)
    expect(found, "name-space", "a blank inside", space)
    expect(found, "name-odd", r"'\x1b', '" + "\u2013'", odd)
    expect(found, "name-too-long", f"{len(long)} bytes, at most 1007", long)
    expect(found, "record-too-long", "61 bytes, those of EPICS base at most 60", record)
    expect(found, "bad-filter", "no strict JSON: 'Expecting property name", loose)
    assert codes([each for each in found if each.pv == long]) == ["name-too-long"]
    assert codes([each for each in found if each.pv == blank]) == ["name-blank"]
    found = ask(hidden.env, "\tnobody", timeout=0.3)
    expect(found, "name-blank", "begins or ends with a blank", "\tnobody")


def test_a_name_that_is_no_text_is_asked_for_as_it_is(proxy: CAProxy) -> None:
    proxy.clear_log()
    name = os.fsdecode(b"caf\xe9")
    found = ask(proxy.env, name, timeout=0.3)
    expect(found, "name-odd", r"the name has '\xe9'", name)
    expect(found, "not-found", "nobody answers", name)

    def searched() -> set[bytes]:
        return {each.frame.payload for each in proxy.log if each.command == "SEARCH"}

    wait_until(lambda: b"caf\xe9\0\0\0\0" in searched())


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain:name.VAL", "'plain:name.VAL'"),
        ("\x1b[2J\r\n", r"'\x1b[2J\r\n'"),
        (b"\xff\0", r"'\xff\0'"),
        ("back\\slash", r"'back\\slash'"),
        ("\u202egnp", r"'\u202egnp'"),
    ],
)
def test_texts_are_shown_safely(text: str | bytes, safe: str) -> None:
    assert shown(text) == safe


# ---- the search


def test_nobody_has_it(hidden: SoftIOC) -> None:
    found = ask_until(["opens the channel"], hidden.env, hidden["nobody"], hidden["x"], timeout=1.5)
    expect(found, "not-found", "nobody answers", hidden["nobody"])
    expect(
        found, "channel", "opens the channel", hidden["x"]
    )  # the others are examined all the same


def test_a_search_that_is_lost_is_repeated(hidden: SoftIOC, proxy: CAProxy) -> None:
    # The first datagram has two names; then also the answers to the second are lost.
    with proxy.drop(command="SEARCH", count=4) as rule:
        found = ask(proxy.env, hidden["x"])
        assert rule.count == 4
    assert codes(found) == HEALTHY


def test_an_ioc_that_has_ended(free_port: Callable[[], int]) -> None:
    port = free_port()
    env = {"EPICS_CA_ADDR_LIST": f"127.0.0.1:{port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
    env["EPICS_CA_SERVER_PORT"] = str(free_port())
    found = ask(env, "x", timeout=0.3)
    expect(found, "no-listener", f"127.0.0.1:{port}: nobody listens")
    expect(found, "not-found", "nobody answers", "x")


def test_an_address_that_cannot_be_sent_to(hidden: SoftIOC) -> None:
    env = {**hidden.env, "EPICS_CA_ADDR_LIST": "127.0.0.1:0 127.0.0.1"}
    found = ask(env, hidden["x"])
    expect(found, "send-failed", "127.0.0.1:0: sending failed: Invalid argument")
    expect(found, "channel", "opens the channel", hidden["x"])


def test_two_servers_have_it(hidden: SoftIOC, proxy: CAProxy) -> None:
    ports = (hidden.server_port, proxy.port)
    both = " ".join(f"127.0.0.1:{port}" for port in ports)
    # a second server is waited for for less than a second
    env = {**hidden.env, "EPICS_CA_ADDR_LIST": both}
    found = ask_until(["2 servers have it"], env, hidden["x"], timeout=10.0)
    twice = expect(found, "duplicate", "2 servers have it: 127.0.0.1:", hidden["x"])
    assert sorted(twice.facts["servers"]) == sorted(f"127.0.0.1:{port}" for port in ports)
    assert codes(found).count("channel") == 2


def test_it_is_where_nobody_looks(hidden: SoftIOC, free_port: Callable[[], int]) -> None:
    x, port = hidden["x"], free_port()
    away = {**hidden.env, "EPICS_CA_ADDR_LIST": f"127.0.0.1:{port}"}
    told = f"127.0.0.1:{hidden.server_port} has it, and is not among"
    found = ask_until([told], away, x, timeout=1.0)  # loopback is always tried
    expect(found, "elsewhere", told, x)
    assert "not-found" not in codes(found)
    away["EPICS_CA_SERVER_PORT"] = str(port)
    expect(ask(away, x, timeout=0.3), "not-found", "nobody answers", x)
    found = ask_until([told], away, x, timeout=1.0, also=[f"127.0.0.1:{hidden.server_port}"])
    expect(found, "elsewhere", told, x)


def test_a_field_that_there_is_not(hidden: SoftIOC) -> None:
    name = hidden["x"] + ".NOPE"
    told = f"'{hidden['x']}' is at 127.0.0.1:{hidden.server_port}: the record is found"
    found = ask_until([told], hidden.env, name, timeout=1.5)
    expect(found, "no-field", told, name)


def test_filters_that_there_are_not(hidden: SoftIOC) -> None:
    name = hidden["x"] + '.{"nofilter":{}}'
    found = ask(hidden.env, name)
    expect(found, "filters-unknown", f"knows '{hidden['x']}', and not with these", name)
    good = hidden["x"] + '.{"dbnd":{"abs":1.0}}'
    assert codes(ask(hidden.env, good)) == [code for code in HEALTHY if code != "filters"]


def test_a_server_without_filters(hidden: SoftIOC) -> None:
    pytest.importorskip("caproto")
    port = hidden.repeater_port
    with PVSet({"old:x": 1.0}, repeater_port=port, filters=False) as server:
        told = ["has no channel filters", "the plain name is found"]
        found = ask_until(told, server.env, "old:x", 'old:x.{"ts":{}}', timeout=1.5)
    at = f"127.0.0.1:{server.server_port}"
    expect(found, "no-filters", f"{at} has no channel filters", "old:x")
    where = f"'old:x' is at 127.0.0.1:{server.server_port}: the plain name is found"
    expect(found, "filters-unknown", where, 'old:x.{"ts":{}}')


def test_a_server_that_answers_searches_for_filters_alone(hidden: SoftIOC, proxy: CAProxy) -> None:
    def unknown(frame: Frame) -> Frame:
        return Frame(Command.CREATE_CH_FAIL, parameter1=frame.parameter1)

    with proxy.corrupt(unknown, command="CREATE_CHAN", direction="to_client", channel="*ts*"):
        found = ask(proxy.env, hidden["x"])
    expect(found, "no-filters", "no channel filters, or not 'ts'", hidden["x"])
    assert "read" in codes(found)
    told = "does not answer a name with a filter"
    with proxy.drop(command="CREATE_CHAN", direction="to_client", channel="*ts*"):
        found = ask_until([told, "sends 1 element"], proxy.env, hidden["x"], timeout=1.0)
    expect(found, "no-filters", told, hidden["x"])
    assert "read" in codes(found)


# ---- name servers


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give a TCP port that accepts and says nothing."""
    with socket.create_server((LOOPBACK, 0)) as sock:
        yield sock


def by_names(ioc: SoftIOC | CAProxy, port: int) -> dict[str, str]:
    return {
        **ioc.env,
        "EPICS_CA_ADDR_LIST": "",
        "EPICS_CA_NAME_SERVERS": f"127.0.0.1:{port}",
        "EPICS_CA_SERVER_PORT": "5064",
    }


def test_a_name_server(hidden: SoftIOC, proxy: CAProxy) -> None:
    # The port is in the list, too, so that nothing but it is searched: by UDP it answers nobody.
    with proxy.drop(
        command="SEARCH",
        direction="to_server",
        where=lambda frame: frame.data_type != _wire.DO_REPLY,
    ):
        env = {**by_names(proxy, proxy.port), "EPICS_CA_ADDR_LIST": f"127.0.0.1:{proxy.port}"}
        env["EPICS_CA_SERVER_PORT"] = str(proxy.port)
        told = ["answers", "says the name server", "opens the channel"]
        found = ask_until(told, env, hidden["x"], hidden["nobody"], timeout=1.5)
    at = f"127.0.0.1:{proxy.port}"
    expect(found, "name-server", f"name server {at} answers")
    expect(found, "not-found", "nobody answers", hidden["nobody"])
    expect(found, "answered", f"says the name server {at}", hidden["x"])
    expect(found, "channel", "opens the channel", hidden["x"])


def test_name_servers_that_do_not_answer(
    hidden: SoftIOC, proxy: CAProxy, listener: socket.socket, free_port: Callable[[], int]
) -> None:
    def asked(port: int, told: str = "") -> list[Finding]:
        env = {**hidden.env, "EPICS_CA_NAME_SERVERS": f"127.0.0.1:{port}"}
        return ask_until([told], env, hidden["x"], timeout=1.0)

    port = free_port()
    expect(asked(port), "name-server-refused", f"127.0.0.1:{port} refuses TCP")
    expect(asked(listener.getsockname()[1]), "name-server-silent", "says nothing within 1 s")
    with proxy.cut(command="SEARCH", direction="to_server"):
        told = "closes the connection"
        expect(asked(proxy.port, told), "name-server-silent", told)
    with proxy.corrupt({"command": 60_000}, command="VERSION", direction="to_client"):
        told = "does not speak Channel Access"
        expect(asked(proxy.port, told), "name-server-silent", told)
    with Full(listener) as port:
        expect(asked(port), "name-server-silent", "does not accept within 1 s")


# ---- the circuit


class Full:
    """A port that accepts no more: its queue is full, so the kernel drops who knocks."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.clients: list[socket.socket] = []

    def __enter__(self) -> int:
        self.listener.listen(0)
        address = self.listener.getsockname()
        for _ in range(8):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.clients.append(client)
            client.settimeout(0.2)
            try:
                client.connect(address)
            except TimeoutError:
                return int(address[1])
        pytest.skip("this kernel's queue is not full")

    def __exit__(self, *exception: object) -> None:
        for client in self.clients:
            client.close()


def test_a_server_that_refuses(hidden: SoftIOC, proxy: CAProxy) -> None:
    with proxy.refuse():
        found = ask(proxy.env, hidden["x"])
    told = f"127.0.0.1:{proxy.port} answers searches and refuses TCP"
    expect(found, "tcp-refused", told, hidden["x"])


def test_a_server_that_does_not_accept(
    hidden: SoftIOC, proxy: CAProxy, listener: socket.socket
) -> None:
    with Full(listener) as port:
        proxy.corrupt({"data_type": port}, command="SEARCH", direction="to_client")
        told = f"127.0.0.1:{port} answers searches and does not"
        found = ask_until([told], proxy.env, hidden["x"], timeout=1.0)
    expect(found, "tcp-timeout", told, hidden["x"])


def test_a_server_that_ends_the_connection(hidden: SoftIOC, proxy: CAProxy) -> None:
    with proxy.cut(command="CREATE_CHAN", direction="to_server"):
        found = ask(proxy.env, hidden["x"])
    expect(found, "tcp-closed", "ends the connection at the opening of a channel", hidden["x"])
    with proxy.cut(command="CREATE_CHAN", direction="to_server", channel="*ts*"):
        found = ask(proxy.env, hidden["x"])
    expect(found, "tcp-closed", "ends the connection at a name with a filter", hidden["x"])
    with proxy.half_close(command="READ_NOTIFY"):
        found = ask(proxy.env, hidden["x"])
    expect(found, "tcp-closed", "ends the connection at a read", hidden["x"])


def test_a_server_that_hangs(hidden: SoftIOC, proxy: CAProxy) -> None:
    told = "does not answer the opening of a channel within "
    with proxy.stall("to_client"):
        found = ask_until([told], proxy.env, hidden["x"], timeout=1.0)
    assert re.search(r"within (1|4|16) s$", expect(found, "tcp-silent", told, hidden["x"]).text)


def test_another_program_has_the_port(
    hidden: SoftIOC, proxy: CAProxy, listener: socket.socket
) -> None:
    with proxy.corrupt({"data_type": 99}, command="CREATE_CHAN", direction="to_client"):
        found = ask(proxy.env, hidden["x"])
    expect(found, "garbled", "the type 99, which there is not", hidden["x"])

    def greet() -> None:
        client, _ = listener.accept()
        client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        client.recv(1 << 16)
        client.close()

    thread = threading.Thread(target=greet)
    thread.start()
    port = listener.getsockname()[1]
    with proxy.corrupt({"data_type": port}, command="SEARCH", direction="to_client"):
        found = ask(proxy.env, hidden["x"])
    thread.join(10.0)
    expect(found, "garbled", "by what is not Channel Access", hidden["x"])


def test_a_server_that_does_not_know_it_any_more(hidden: SoftIOC, proxy: CAProxy) -> None:
    def another(frame: Frame) -> Frame:
        return _wire.create_channel(b"another", frame.parameter1)

    with proxy.corrupt(another, command="CREATE_CHAN", direction="to_server"):
        found = ask(proxy.env, hidden["x"])
    expect(found, "unknown-channel", "has answered the search, and does not know", hidden["x"])


def test_a_server_that_complains(hidden: SoftIOC, proxy: CAProxy) -> None:
    def complaint(frame: Frame) -> Frame:
        text = _wire.create_channel(b"x", 1).encode()[:16] + b"out of \x1b[31mmemory\0"
        return Frame(Command.ERROR, 0, 0, frame.parameter1, ECA.ALLOCMEM, text)

    with proxy.corrupt(complaint, command="CREATE_CHAN", direction="to_client"):
        found = ask(proxy.env, hidden["x"])
    told = r"says: Unable to allocate additional dynamic memory 'out of \x1b[31mmemory'"
    expect(found, "server-error", told, hidden["x"])


def test_access_rights(ioc: SoftIOC) -> None:
    found = ask(ioc.env, ioc["readonly"])
    note = expect(found, "no-write", "not write it", ioc["readonly"])
    assert not note.bad and "read" in codes(found)
    expect(found, "channel", "read access", ioc["readonly"])
    found = ask(ioc.env, ioc["noaccess"])
    assert expect(found, "no-read", "not read it", ioc["noaccess"]).bad
    expect(found, "channel", "no access", ioc["noaccess"])
    assert "read" not in codes(found)


# ---- the data


def test_an_array_that_is_too_large_for_us(ioc: SoftIOC) -> None:
    env = {**ioc.env, "EPICS_CA_AUTO_ARRAY_BYTES": "NO"}
    name, small = ioc["big:double"], ioc["w:double"]

    def examined(names: list[str], environ: Mapping[str, str]) -> list[Finding]:
        return examine(names, environ, timeout=20.0, read=False)

    found = examined([name, small], {**env, "EPICS_CA_MAX_ARRAY_BYTES": "1000000"})
    expect(found, "array-too-large", "up to 8388624 bytes, and EPICS_CA_MAX_ARRAY_BYTES", name)
    found = examined([name], {**env, "EPICS_CA_MAX_ARRAY_BYTES": "8388624"})
    assert "array-too-large" not in codes(found)
    found = examined([name], ioc.env)
    assert "array-too-large" not in codes(found)


def test_an_array_that_is_too_large_for_the_server(hidden: SoftIOC) -> None:
    limits = {"EPICS_CA_MAX_ARRAY_BYTES": "16384", "EPICS_CA_AUTO_ARRAY_BYTES": "NO"}
    db = 'record(waveform, "$(P)w") { field(FTVL, "DOUBLE") field(NELM, "3000") }'
    with SoftIOC(db, env=limits, repeater_port=hidden.repeater_port) as ioc:
        ioc.write("w", [0] * 3000)
        found = ask(ioc.env, ioc["w"])
    expect(found, "server-array-bytes", "cannot send so large an array", ioc["w"])


def test_a_read_that_fails(hidden: SoftIOC, proxy: CAProxy) -> None:
    answer = {"command": "READ_NOTIFY", "direction": "to_client"}
    with proxy.corrupt({"parameter1": int(ECA.GETFAIL)}, **answer):  # type: ignore[arg-type]
        found = ask(proxy.env, hidden["x"])
    expect(found, "read-failed", "says: Channel read request failed", hidden["x"])
    told = "does not answer a read within "
    with proxy.drop(**answer):
        found = ask_until([told], proxy.env, hidden["x"], timeout=1.0)
    assert re.search(r"within (1|4|16) s$", expect(found, "read-silent", told, hidden["x"]).text)
    with proxy.corrupt(lambda frame: Frame(15, 20, 0, 1, frame.parameter2), **answer):  # type: ignore[arg-type]
        found = ask(proxy.env, hidden["x"])
    expect(found, "garbled", "without an alarm and a stamp", hidden["x"])


# ---- every verdict


def test_every_verdict_is_provoked_and_explained() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    provoked = set(re.findall(r'expect\(\s*[^"]*?"([a-z0-9-]+)"', here))
    provoked |= set(re.findall(r'^        \("([a-z0-9-]+)", \{', here, re.MULTILINE))
    assert set(VERDICTS) - provoked == set()
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \|", page, re.MULTILINE)
    assert dict(explained) == {code: verdict.severity for code, verdict in VERDICTS.items()}
    for code, verdict in VERDICTS.items():
        assert bool(verdict.hint) == (verdict.severity != "ok"), code
        (row,) = re.findall(rf"^\| `{code}` \|.*$", page, re.MULTILINE)
        assert row.endswith(f"| {verdict.hint} |"), code


def test_searches_fit_datagrams() -> None:
    names = [(number, b"n" * length) for number, length in enumerate([1, 7, 8, 900, 1000, 5] * 9)]
    sent = list(datagrams(names))
    assert all(len(each) <= 1040 for each in sent)
    frames = [frame for each in sent for frame in _wire.frames_of(each)]
    assert [frame.command for frame in frames].count(Command.VERSION) == len(sent)
    asked = [frame for frame in frames if frame.command == Command.SEARCH]
    assert [frame.text.encode() for frame in asked] == [name for _, name in names]


# ---- the command


@pytest.fixture
def at_home(hidden: SoftIOC, monkeypatch: pytest.MonkeyPatch) -> SoftIOC:
    """The IOC, which alone is in the environment."""
    for name, value in hidden.env.items():
        monkeypatch.setenv(name, value)
    return hidden


def test_what_it_prints(at_home: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    x, bad = at_home["x"], at_home["\x1b[31m"]
    assert main(["doctor", "--timeout", "20", x]) == 0
    out, errors = capsys.readouterr()
    lines = out.splitlines()
    assert (errors, lines[4]) == ("", f"'{x}'")
    assert [line.split()[1].rstrip(":") for line in lines[:4] + lines[5:]] == HEALTHY
    assert main(["doctor", x, "--quiet", "--timeout", "20"]) == 0
    assert capsys.readouterr() == ("", "")

    def quiet(seconds: float) -> tuple[str, str]:
        assert main(["doctor", "-q", "--timeout", str(seconds), bad, x]) == 1
        out, errors = capsys.readouterr()
        return out, errors

    out, errors = long_enough(quiet, lambda told: x not in told[0], 1.5)
    assert out.splitlines()[0] == rf"'{at_home.prefix}\x1b[31m'"
    assert "  problem not-found: nobody answers\n          -> Is the name right" in out
    assert "\x1b" not in out and errors == "" and x not in out


def test_json(at_home: SoftIOC, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--timeout", "20", at_home["x"]]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert [row["code"] for row in told["findings"]] == HEALTHY
    (channel,) = (row for row in told["findings"] if row["code"] == "channel")
    assert (channel["type"], channel["count"], channel["rights"]) == ("DOUBLE", 1, 3)
    assert (channel["pv"], channel["severity"]) == (at_home["x"], "ok")
    assert main(["doctor", "--json", "-q", "--timeout", "0.3", at_home["nobody"]]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], [row["code"] for row in told["findings"]]) == (False, ["not-found"])


def test_also(at_home: SoftIOC, proxy: CAProxy, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "--timeout", "0.3", "--also", f"127.0.0.1:{proxy.port}", at_home["nobody"]]
    assert main(words) == 1
    proxy.wait_for(command="SEARCH", channel=at_home["nobody"])


def test_in_a_process_of_its_own(hidden: SoftIOC) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "epicsx", "doctor", "--timeout", "20", hidden["x"]],
        env={**os.environ, **hidden.env},
        capture_output=True,
        text=True,
        timeout=40.0,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "read: 127.0.0.1:" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([""], "'' is no PV name"),
        (["  "], "'  ' is no PV name"),
        (["x", "a\0b"], r"'a\0b' is no PV name"),
        (["x", "--also", "1.2.3.400"], "--also '1.2.3.400': a part of an address"),
        (["x", "--also", "::1"], "--also '::1': an IPv6 address"),
        (["x", "--also", "a..b"], "--also 'a..b': no IPv4 address"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert errors.startswith(f"epicsx doctor: {told}")


@pytest.mark.parametrize(
    "words",
    [
        [],
        *(["x", "--timeout", text] for text in ("0", "soon", "1e10", "inf", "nan")),
        ["x", "--colour"],
    ],
)
def test_bad_options_are_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(["doctor", *words])
    assert info.value.code == 2
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert errors.startswith("epicsx doctor: ")


def test_help_reads_nothing_heavy() -> None:
    script = """
import sys
from epicsx.cli import main
try:
    main(["doctor", "--help"])
except SystemExit as end:
    assert not end.code
print("read:", *sorted({"numpy", "epicsx._ca", "epicsx._doctor"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\nread:\n")
