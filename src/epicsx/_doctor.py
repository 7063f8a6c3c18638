"""Why a PV does not connect: `examine` asks, step by step, what a client would, and says at which step it ends.

The environment, the repeater, the name itself; a search by UDP and at the name servers; then for each server that has
answered a connection, a channel, and one read. All by frames of our own (`_doctor_net`), so that each step is seen;
libca is only named.

Threads. Names are examined by a few threads of a pool, as a dead server costs a time-out; all have ended when `examine`
returns.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from . import _filters, _wire
from ._build_info import build_info
from ._doctor_env import Settings, address_of, broadcasts, read_environment
from ._doctor_findings import Address, Finding, finding, shown
from ._doctor_net import Answer, Circuit, Ended, Found, Garbled, ask_name_server, repeater, search
from ._wire import Command, Frame
from .enums import DBR, ECA, Access, Severity, Status
from .errors import BadValueError, message

__all__ = ["examine"]

LOOPBACK = "127.0.0.1"
LONGEST_NAME = 1007  # as Channel refuses: a search must fit one datagram
LONGEST_RECORD = 60  # PVNAME_STRINGSZ of dbDefs.h, less the NUL
SERVERS = 4  # so many of those that answer are looked at
THREADS = 16

# A value's size, and where it begins behind the time stamp: dbr_value_offset[] of access.cpp.
_LAYOUT = {
    DBR.STRING: (40, 12),
    DBR.SHORT: (2, 14),
    DBR.FLOAT: (4, 12),
    DBR.ENUM: (2, 14),
    DBR.CHAR: (1, 15),
    DBR.LONG: (4, 12),
    DBR.DOUBLE: (8, 16),
}
_ALARM = struct.Struct(">HH")


@dataclass
class _Name:
    """A PV, and the other names that are asked for its sake."""

    text: str
    findings: list[Finding] = field(default_factory=list)
    whole: bytes = b""
    stripped: bytes | None = None  # without blanks at its ends
    plain: bytes | None = None  # without filters
    record: bytes | None = None  # without its field
    stamped: bytes | None = None  # with a filter, to see whether the server has any
    asked: bool = True  # whether it can be asked for at all

    def say(self, code: str, text: str, **facts: object) -> None:
        self.findings.append(finding(code, text, self.text, **facts))

    @property
    def others(self) -> list[bytes]:
        given = (self.stripped, self.plain, self.record, self.stamped)
        return [each for each in given if each is not None]


def examine(
    names: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    timeout: float = 2.0,
    also: Sequence[str] = (),
    read: bool = True,
) -> list[Finding]:
    """What is found about PVs, and about what all have in common, which comes first.

    Asks the network; writes nothing to a PV and starts no libca.

    Parameters
    ----------
    names : sequence of str
        The PVs, also with fields and filters.
    environ : mapping
        The environment, by default this process'.
    timeout : float, seconds
        For each step: the search for all PVs together, each connection, each read.
    also : sequence of str
        Further addresses, HOST or HOST:PORT, to search for what the environment's do not find.
    read : bool
        Whether to read each PV once.

    Raises
    ------
    BadAddress
        One of `also` is none; nothing has been asked.
    """
    environ = os.environ if environ is None else environ
    found = [_libca()]
    settings, more = read_environment(environ, timeout)
    further = [address_of(text, settings.server_port, timeout) for text in also]
    found += [*more, *_repeater(settings, environ)]
    pvs = [_named(text) for text in dict.fromkeys(names)]
    asked = [pv for pv in pvs if pv.asked]
    answers = _search(asked, settings, timeout, found)
    _look_elsewhere(asked, answers, settings, further, timeout)
    with ThreadPoolExecutor(min(THREADS, max(1, len(asked)))) as pool:
        list(pool.map(lambda pv: _examined(pv, answers, settings, timeout, read), asked))
    return found + [each for pv in pvs for each in pv.findings]


def _at(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _libca() -> Finding:
    info = build_info()
    text = f"epicsx {info['epicsx_version']} on libca of EPICS {info['libca_version']}, {info['linked']}"
    return finding("libca", text, build=info)


def _repeater(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    port = settings.repeater_port
    state = repeater(port)
    facts: dict[str, Any] = {"port": port}
    if state == "confirmed":
        return [finding("repeater", f"a CA repeater serves UDP port {port}", **facts)]
    if state == "silent":
        text = f"what has UDP port {port} does not answer as a CA repeater does"
        return [finding("bad-repeater", text, **facts)]
    if environ.get("EPICSX_NO_REPEATER") == "1":
        text = f"no CA repeater on UDP port {port}, and EPICSX_NO_REPEATER=1 forbids to start one"
        return [finding("repeater-off", text, **facts)]
    return [finding("no-repeater", f"no CA repeater on UDP port {port} yet", **facts)]


# ---- the name


def _named(text: str) -> _Name:
    """A PV with what its name alone tells."""
    pv = _Name(text, whole=_bytes(text))
    if text != text.strip():
        pv.say("name-blank", "the name begins or ends with a blank")
        pv.stripped = _bytes(text.strip())
    plain = _filters.plain_name(text)
    front = plain.strip()
    if any(char.isspace() for char in front):
        pv.say("name-space", "the name has a blank inside")
    odd = sorted({char for char in front if not " " <= char <= "~"} - set("\t\n\r\v\f"))
    if odd:
        pv.say("name-odd", f"the name has {', '.join(map(shown, odd))}")
    if len(pv.whole) > LONGEST_NAME:
        pv.say(
            "name-too-long",
            f"the name has {len(pv.whole)} bytes, at most {LONGEST_NAME} can be searched",
        )
        pv.asked = False
    record, dot, _ = plain.partition(".")
    if len(_bytes(record)) > LONGEST_RECORD:
        length = len(_bytes(record))
        pv.say(
            "record-too-long",
            f"the record's name has {length} bytes, those of EPICS base at most {LONGEST_RECORD}",
        )
    if dot:
        pv.record = _bytes(record)
    if _filters.has_filters(text):
        pv.plain = _bytes(plain)
        try:
            _filters.joined(text, {})
        except BadValueError as error:
            pv.say(
                "bad-filter",
                f"its filters are no strict JSON: {shown(str(error).partition('JSON: ')[2])}",
            )
    else:
        pv.stamped = _bytes(_filters.joined(front, {"ts": {}}))
        if len(pv.stamped) > LONGEST_NAME:
            pv.stamped = None
    return pv


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# ---- the search


def _search(
    pvs: Sequence[_Name], settings: Settings, timeout: float, found: list[Finding]
) -> dict[bytes, dict[Address, Answer]]:
    """Every answer there is, by name; what concerns all PVs goes to `found`."""
    addresses = list(settings.addresses)
    if settings.automatic:
        addresses += [each for each in broadcasts(settings.server_port) if each not in addresses]
    names = [each for pv in pvs for each in (pv.whole, *pv.others)]
    result = Found({name: {} for name in names})
    if addresses and names:
        result = search(names, addresses, timeout, wanted=[pv.whole for pv in pvs])
        text = f"asked {', '.join(map(_at, addresses))} by UDP"
        found.append(finding("searched", text, addresses=[_at(each) for each in addresses]))
    for address in result.refused:
        text = f"{_at(address)}: nobody listens on this UDP port"
        found.append(finding("no-listener", text, address=_at(address)))
    for address, why in result.failed.items():
        text = f"{_at(address)}: sending failed: {why}"
        found.append(finding("send-failed", text, address=_at(address)))
    for server in settings.name_servers:
        _ask(server, names, timeout, result, found)
    return result.answers


def _ask(
    server: Address, names: Sequence[bytes], timeout: float, result: Found, found: list[Finding]
) -> None:
    where = f"name server {_at(server)}"
    facts = {"address": _at(server)}
    try:
        known, unknown = ask_name_server(server, names, timeout)
    except ConnectionRefusedError:
        found.append(finding("name-server-refused", f"{where} refuses TCP connections", **facts))
        return
    except TimeoutError:
        found.append(
            finding("name-server-silent", f"{where} does not accept within {timeout:g} s", **facts)
        )
        return
    except (Ended, Garbled) as error:
        what = (
            "does not speak Channel Access"
            if isinstance(error, Garbled)
            else "closes the connection"
        )
        found.append(finding("name-server-silent", f"{where} {what}", **facts))
        return
    except OSError as error:
        found.append(finding("name-server-refused", f"{where}: {error.strerror or error}", **facts))
        return
    if not known and not unknown and names:
        text = f"{where} accepts, and says nothing within {timeout:g} s"
        found.append(finding("name-server-silent", text, **facts))
        return
    found.append(finding("name-server", f"{where} answers", **facts))
    for name, answer in known.items():
        result.answers[name].setdefault(answer.server, answer)


def _look_elsewhere(
    pvs: Sequence[_Name],
    answers: Mapping[bytes, Mapping[Address, Answer]],
    settings: Settings,
    also: Sequence[Address],
    timeout: float,
) -> None:
    """Search for what was not found where the environment does not point to, and say so."""
    missing = [pv for pv in pvs if not answers[pv.whole]]
    places = dict.fromkeys([*also, (LOOPBACK, settings.server_port)])
    further = [each for each in places if each not in settings.addresses]
    if not missing or not further:
        return
    names = [pv.whole for pv in missing]
    result = search(names, further, min(timeout, 1.0), wanted=names)
    for pv in missing:
        for server in result.answers[pv.whole]:
            text = f"{_at(server)} has it, and is not among the addresses that are searched"
            pv.say("elsewhere", text, server=_at(server))


# ---- one PV


def _examined(
    pv: _Name,
    answers: Mapping[bytes, Mapping[Address, Answer]],
    settings: Settings,
    timeout: float,
    read: bool,
) -> None:
    """Add to the PV's findings what the search and its servers tell."""
    found = answers[pv.whole]
    if not found:
        _not_found(pv, answers)
        return
    servers = list(found)
    for server, answer in found.items():
        by = "" if answer.by is None else f", says the name server {_at(answer.by)}"
        text = f"{_at(server)} has it ({answer.seconds * 1000:.0f} ms){by}"
        pv.say("answered", text, server=_at(server), seconds=answer.seconds)
    if len(servers) > 1:
        text = f"{len(servers)} servers have it: {', '.join(map(_at, servers))}"
        pv.say("duplicate", text, servers=[_at(each) for each in servers])
    for server in servers[:SERVERS]:
        has = {name for name in pv.others if server in answers[name]}
        _Visit(pv, server, has, settings, timeout).make(read)


def _not_found(pv: _Name, answers: Mapping[bytes, Mapping[Address, Answer]]) -> None:
    if any(each.code == "elsewhere" for each in pv.findings):
        return
    for other, code, text in (
        (pv.stripped, "name-blank", "without the blank it is found"),
        (
            pv.plain,
            "filters-unknown",
            "the plain name is found, with these filters nobody knows it",
        ),
        (pv.record, "no-field", "the record is found, nobody knows this field of it"),
    ):
        if other is not None and answers[other]:
            server = next(iter(answers[other]))
            pv.findings = [each for each in pv.findings if each.code != code]
            pv.say(code, f"{shown(other)} is at {_at(server)}: {text}", server=_at(server))
            return
    pv.say("not-found", "nobody answers")


class _Visit:
    """What one server does when a client connects to it for a PV."""

    def __init__(
        self,
        pv: _Name,
        server: Address,
        has: set[bytes],
        settings: Settings,
        timeout: float,
    ) -> None:
        self.pv = pv
        self.has = has  # which of the PV's other names it has, says the search
        self.server = server
        self.settings = settings
        self.timeout = timeout

    def say(self, code: str, text: str, **facts: object) -> None:
        self.pv.say(code, f"{_at(self.server)} {text}", server=_at(self.server), **facts)

    def guarded(self, step: str, silent: str, work: Callable[[], None]) -> bool:
        """Do a step; if it fails, say how. Whether the connection is still of use."""
        try:
            work()
        except TimeoutError:
            self.say(silent, f"does not answer {step} within {self.timeout:g} s")
            return True
        except Ended:
            self.say("tcp-closed", f"ends the connection at {step}")
        except Garbled:
            self.say("garbled", f"answers {step} by what is not Channel Access")
        else:
            return True
        return False

    def make(self, read: bool) -> None:
        """Connect, open a channel, read."""
        try:
            circuit = Circuit(self.server, self.timeout)
        except ConnectionRefusedError:
            self.say("tcp-refused", "answers searches and refuses TCP connections")
            return
        except TimeoutError:
            self.say(
                "tcp-timeout", f"answers searches and does not accept TCP within {self.timeout:g} s"
            )
            return
        except (Ended, OSError) as error:
            why = getattr(error, "strerror", None) or "it ends the connection"
            self.say("tcp-closed", f"cannot be connected to: {why}")
            return
        with circuit:
            self.guarded("the opening of a channel", "tcp-silent", lambda: self.open(circuit, read))

    def open(self, circuit: Circuit, read: bool) -> None:
        circuit.send(_wire.create_channel(self.pv.whole, 1))
        rights, minor = Access.READ | Access.WRITE, 0
        while True:
            frame = circuit.next()
            if frame.command == Command.VERSION:
                minor = frame.count
            elif frame.command == Command.ACCESS_RIGHTS:
                rights = Access(frame.parameter2 & 3)
            elif frame.command in (Command.CREATE_CH_FAIL, Command.SERVER_DISCONN):
                self.unknown()
                return
            elif frame.command == Command.ERROR:
                self.error(frame)
                return
            elif frame.command == Command.CREATE_CHAN:
                break
        if frame.data_type not in _LAYOUT:
            self.say("garbled", f"gives the channel the type {frame.data_type}, which there is not")
            return
        kind = DBR(frame.data_type)
        self.channel(kind, frame.count, rights, minor)
        usable = True
        if self.pv.stamped is not None:
            circuit.extend(self.timeout)
            usable = self.guarded(
                "a name with a filter", "no-filters", lambda: self.filters(circuit)
            )
        if usable and read and Access.READ in rights:
            circuit.extend(self.timeout)
            count = 0 if minor >= 13 else frame.count
            ask = _wire.read_notify(kind + DBR.TIME_STRING, count, frame.parameter2, 1)
            self.guarded("a read", "read-silent", lambda: self.read(circuit, ask))

    def unknown(self) -> None:
        # An IOC answers a search without a look at the filters (dbChannelTest in dbChannel.c).
        if self.pv.plain is not None and self.pv.plain in self.has:
            self.say("filters-unknown", f"knows {shown(self.pv.plain)}, and not with these filters")
        else:
            self.say("unknown-channel", "has answered the search, and does not know the channel")

    def channel(self, kind: DBR, count: int, rights: Access, minor: int) -> None:
        size, offset = _LAYOUT[kind]
        allowed = " and ".join(each.lower() for each in ("READ", "WRITE") if Access[each] in rights)
        elements = f"{count} element{'' if count == 1 else 's'}"
        text = f"opens the channel: {kind.name}, {elements}, {allowed or 'no'} access, protocol 4.{minor}"
        facts = {"type": kind.name, "count": count, "rights": int(rights), "protocol": f"4.{minor}"}
        self.say("channel", text, **facts)
        if Access.READ not in rights:
            self.say("no-read", "lets this user on this host not read it")
        if Access.WRITE not in rights:
            self.say("no-write", "lets this user on this host not write it")
        largest = self.settings.largest_message
        need = (offset + size * count + 7) // 8 * 8
        if largest is not None and need > largest:
            limit = self.settings.max_array_bytes
            text = f"sends up to {need} bytes, and EPICS_CA_MAX_ARRAY_BYTES is {limit} here"
            self.say("array-too-large", text, bytes=need, limit=limit)

    def filters(self, circuit: Circuit) -> None:
        # The search is not enough: a server may have filters, and not this one.
        stamped = self.pv.stamped
        if stamped is not None and stamped in self.has:
            circuit.send(_wire.create_channel(stamped, 2))
            while True:
                frame = circuit.next()
                if frame.parameter1 == 2 and frame.command == Command.CREATE_CHAN:
                    self.say("filters", "has channel filters")
                    return
                if frame.parameter1 == 2 and frame.command == Command.CREATE_CH_FAIL:
                    break
        self.say("no-filters", "has no channel filters, or not 'ts'")

    def read(self, circuit: Circuit, ask: Frame) -> None:
        circuit.send(ask)
        while True:
            frame = circuit.next()
            if frame.command == Command.ERROR:
                self.error(frame)
                return
            if frame.command == Command.READ_NOTIFY and frame.parameter2 == ask.parameter2:
                break
        if frame.parameter1 != ECA.NORMAL:
            self.status(frame.parameter1, "")
            return
        if len(frame.payload) < _ALARM.size:
            self.say("garbled", "answers a read without an alarm and a stamp")
            return
        status, severity = _ALARM.unpack_from(frame.payload)
        alarm = "no alarm" if not severity else f"alarm {_alarm(severity, status)}"
        text = f"sends {frame.count} element{'' if frame.count == 1 else 's'}, {alarm}"
        self.say("read", text, elements=frame.count, alarm_severity=severity, alarm_status=status)

    def error(self, frame: Frame) -> None:
        """What the server complains about: a status, the header of the request, and a text."""
        head = 24 if frame.payload[2:4] == b"\xff\xff" else 16
        self.status(frame.parameter2, shown(frame.payload[head:].split(b"\0", 1)[0]))

    def status(self, status: int, text: str) -> None:
        if status == ECA.TOLARGE:
            self.say(
                "server-array-bytes",
                f"cannot send so large an array {text}".rstrip(),
                status=status,
            )
            return
        code = (
            "read-failed" if any(each.code == "channel" for each in self.mine()) else "server-error"
        )
        self.say(code, f"says: {message(status)} {text}".rstrip(), status=status)

    def mine(self) -> Iterable[Finding]:
        return (each for each in self.pv.findings if each.facts.get("server") == _at(self.server))


def _alarm(severity: int, status: int) -> str:
    try:
        return f"{Severity(severity).name} {Status(status).name}"
    except ValueError:
        return f"{severity} {status}"
