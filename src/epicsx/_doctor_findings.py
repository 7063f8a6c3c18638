"""The verdicts of `epicsx doctor`: one table of what each means and what to do, and findings, which are its lines.

A leaf: imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from ._printable import code_of

__all__ = ["VERDICTS", "Address", "Finding", "Verdict", "finding", "shown"]

Address: TypeAlias = tuple[str, int]
"""IPv4 address and port."""

Severity: TypeAlias = Literal["ok", "note", "warning", "problem"]


class Verdict(NamedTuple):
    """What a code stands for: how bad it is, and what to do about it."""

    severity: Severity
    hint: str = ""


VERDICTS: dict[str, Verdict] = {
    # -- this process and its environment
    "libca": Verdict("ok"),
    "environment": Verdict("ok"),
    "bad-address": Verdict(
        "warning", "libca skips this entry. Write HOST or HOST:PORT, separated by blanks."
    ),
    "ipv6-address": Verdict(
        "warning", "libca skips this entry: Channel Access is IPv4 only. Write an IPv4 address."
    ),
    "unresolved-host": Verdict(
        "warning", "libca skips this entry. Correct the name, or write the address."
    ),
    "duplicate-address": Verdict(
        "note", "libca leaves it out, with a line on standard error. Remove one."
    ),
    "no-address": Verdict(
        "problem", "Set EPICS_CA_ADDR_LIST, or leave EPICS_CA_AUTO_ADDR_LIST unset."
    ),
    "bad-port": Verdict(
        "warning", "A port is a whole number from 5001 to 65535; libca takes the default instead."
    ),
    "bad-conn-tmo": Verdict(
        "warning", "Give seconds, such as 30.0, without a unit; libca takes 30 for all else."
    ),
    "fatal-conn-tmo": Verdict(
        "problem",
        "It may be why connections are lost and gets fail. Give seconds above 0, such as 30.0, or unset it.",
    ),
    "bad-array-bytes": Verdict(
        "warning", "Give a number of bytes, 16384 or more, or leave it unset."
    ),
    "bad-switch": Verdict("warning", "Write YES or NO, in capitals."),
    "unknown-variable": Verdict("note", "Nothing reads it. Is it misspelt?"),
    "repeater": Verdict("ok"),
    "no-repeater": Verdict("note", "epicsx starts one at its first channel; nothing to do."),
    "repeater-off": Verdict(
        "warning",
        "Without one, PVs that were lost reconnect slowly. Unset EPICSX_NO_REPEATER, or start caRepeater.",
    ),
    "bad-repeater": Verdict(
        "warning", "Find out what has the port (ss -ulpn), or set EPICS_CA_REPEATER_PORT."
    ),
    # -- the name
    "name-blank": Verdict("problem", "A blank or a line end has come with the name. Remove it."),
    "name-space": Verdict("warning", "No record's name has blanks. Are these two names?"),
    "name-odd": Verdict(
        "warning",
        "Records' names are plain printable text. Was it copied from a formatted document?",
    ),
    "name-too-long": Verdict(
        "problem", "A search must fit one datagram. Nothing was asked; shorten the filters."
    ),
    "record-too-long": Verdict(
        "note", "EPICS base has no record with such a name, other servers may. Check it."
    ),
    "bad-filter": Verdict(
        "warning",
        "Some servers of EPICS 7 take them. Use epicsx.filter_name, or double quotes around keys and texts.",
    ),
    # -- the search
    "searched": Verdict("ok"),
    "answered": Verdict("ok"),
    "not-found": Verdict(
        "problem",
        "Is the name right, does its IOC run, do the addresses reach it (same subnet, or EPICS_CA_ADDR_LIST), is the "
        "port that of the IOC, does a firewall let UDP pass both ways?",
    ),
    "no-listener": Verdict(
        "note", "No server has that port there. Does the IOC run, and on this port?"
    ),
    "send-failed": Verdict(
        "warning", "Nothing could be asked there. Check the address, the route and the firewall."
    ),
    "duplicate": Verdict(
        "warning",
        "Which one a client gets is chance, unless it is one host with two addresses. Stop one, or narrow the list.",
    ),
    "elsewhere": Verdict(
        "problem", "Add that address to EPICS_CA_ADDR_LIST, or set EPICS_CA_SERVER_PORT."
    ),
    "no-field": Verdict(
        "problem", "The record is there. Correct the field's name, or the text behind the dot."
    ),
    # -- name servers
    "name-server": Verdict("ok"),
    "name-server-refused": Verdict("warning", "Does the name server run, and on this port?"),
    "name-server-silent": Verdict(
        "warning", "It may be hung, or speak another protocol. Restart or remove it."
    ),
    # -- the circuit
    "tcp-refused": Verdict(
        "problem", "Its UDP answers, its TCP port does not: look at the server, or the firewall."
    ),
    "tcp-timeout": Verdict(
        "problem", "A firewall that drops packets, or a server that no longer accepts."
    ),
    "tcp-closed": Verdict(
        "problem", "The server closed, or a firewall reset, the connection. Look at its log."
    ),
    "tcp-silent": Verdict(
        "problem", "The server accepts and does not answer: it hangs, or is overloaded. Restart it."
    ),
    "garbled": Verdict(
        "problem", "Another program has this port, or something on the way changes what is sent."
    ),
    "unknown-channel": Verdict(
        "problem",
        "It answered the search, then did not know the name: it was restarted, or is a gateway without it.",
    ),
    "server-error": Verdict("problem", "The server's own text says why. Look at its log."),
    "channel": Verdict("ok"),
    "no-read": Verdict(
        "problem", "Access security: ask who runs the IOC. It decides by user and host name."
    ),
    "no-write": Verdict(
        "note", "Puts will be refused. If they shall not be: access security, as for reading."
    ),
    "filters": Verdict("ok"),
    "no-filters": Verdict(
        "note", "Deadbands, slices and coherent streams need an IOC of EPICS 3.15 or later."
    ),
    "filters-unknown": Verdict(
        "problem",
        "The plain name is there. The server has no such filter, or no filters; see docs/filters.md.",
    ),
    # -- the data
    "array-too-large": Verdict(
        "problem",
        "Unset EPICS_CA_AUTO_ARRAY_BYTES, or raise EPICS_CA_MAX_ARRAY_BYTES: updates are dropped silently.",
    ),
    "server-array-bytes": Verdict(
        "problem", "Raise EPICS_CA_MAX_ARRAY_BYTES of the *server*, and restart it."
    ),
    "read-failed": Verdict(
        "problem", "The channel connects, its data cannot be had. Look at the record on the IOC."
    ),
    "read-silent": Verdict(
        "problem", "The channel connects, its data do not come: a device that hangs, or a network."
    ),
    "read": Verdict("ok"),
}
"""Each code, in the order of the page docs/doctor.md."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code : str, a key of `VERDICTS`
    text : str, what was found, names and texts of the network escaped
    pv : str or None, the PV concerned; None for what concerns all
    facts : dict, the same for programs, fit for JSON
    """

    code: str
    text: str
    pv: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        """'ok', 'note', 'warning' (will harm) or 'problem' (does)."""
        return VERDICTS[self.code].severity

    @property
    def hint(self) -> str:
        """What to do; empty if nothing."""
        return VERDICTS[self.code].hint

    @property
    def bad(self) -> bool:
        """Whether it is a warning or a problem."""
        return self.severity in ("warning", "problem")

    def to_dict(self) -> dict[str, Any]:
        """The finding for JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "pv": self.pv,
            "text": self.text,
            "hint": self.hint,
            **self.facts,
        }


def finding(code: str, text: str, pv: str | None = None, **facts: Any) -> Finding:
    """Make one."""
    return Finding(code, text, pv, facts)


def shown(text: str | bytes) -> str:
    """A text of the network, or of a user, in quotes and safe to print: control characters escaped."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    safe = (char if char.isprintable() and char != "\\" else code_of(char) for char in text)
    return "'" + "".join(safe) + "'"
