"""`PVSet`: a CA server in a subprocess for PVs of any names, such as the fields of records that EPICS base lacks.

It is caproto's server, so a second implementation of Channel Access, on loopback only. It computes nothing: a PV holds
what was put, and ``X_RBV``, if there is one, what was put to ``X``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epicsx.testing.ports import (
    FOREIGN_VARIABLES,
    LOOPBACK,
    checked_port,
    client_environment,
    free_port,
)
from epicsx.testing.repeater import Repeater
from epicsx.testing.softioc import SoftIOCError, random_prefix

if TYPE_CHECKING:
    from typing_extensions import Self

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
_TIMEOUT = 20.0  # seconds until the server is ended because it does not answer

_ERRORS: dict[str, type[Exception]] = {
    "KeyError": KeyError,
    "ValueError": ValueError,
    "SoftIOCError": SoftIOCError,
}


def _as_list(value: Any) -> Any:
    """An array, or a scalar of numpy, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a number, a text, a list or an array is wanted, not {value!r}")


class PVSet:
    """PVs in a subprocess.

    Parameters
    ----------
    pvs : mapping of str to int, float, str, list or dict
        Name -> value at first, or ``{"value": ..., "states": [...]}`` for an enum, ``"size"`` for an array or a text of
        up to so many elements, ``"returns"`` for one that takes so many seconds to go back to that value after a put,
        which completes then.
    server_port : int, optional
        TCP and UDP port of the server on 127.0.0.1; by default a free one.
    repeater_port : int, optional
        Port of a CA repeater that exists; by default the server brings one, on a free port.
    filters : bool
        Whether it understands channel filters (``ts``, ``dbnd``, ``arr``, ``sync``). If not, a name with filters is
        unknown to it, as to EPICS base 3.14.

    Raises
    ------
    ValueError
        A PV cannot be served as it is told; the text says which and why. Or a port is none from 5001 to 65535.
    SoftIOCError
        There is no caproto, or the server did not start.
    """

    _main = "_pvset_main"  # the program of the subprocess, a module beside this one

    def __init__(
        self,
        pvs: Mapping[str, Any],
        *,
        server_port: int | None = None,
        repeater_port: int | None = None,
        filters: bool = True,
    ) -> None:
        if importlib.util.find_spec("caproto") is None:
            raise SoftIOCError("this server needs caproto: pip install epicsx[test]")
        checked_port(server_port, "server_port")
        checked_port(repeater_port, "repeater_port")
        self._repeater = None
        if repeater_port is None:
            repeater_port = free_port()
            self._repeater = Repeater(repeater_port).start()
        server_port = server_port or free_port()
        #: TCP and UDP port of the server on 127.0.0.1.
        self.server_port: int = server_port
        self._lock = threading.Lock()
        #: What a client in another process needs to see this server.
        self.env: dict[str, str] = client_environment(server_port, repeater_port)
        environment = {k: v for k, v in os.environ.items() if k not in FOREIGN_VARIABLES}
        environment |= self.env | {
            "EPICS_CAS_INTF_ADDR_LIST": LOOPBACK,
            "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_CAS_BEACON_PORT": str(repeater_port),
            # This very epicsx, wherever Python may have found it.
            "PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH")))),
        }
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-u", "-m", f"epicsx.testing.{self._main}"),
                *(() if filters else ("--no-filters",)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            self._exchange(self._told(pvs), "the start")
        except BaseException:
            self.stop()
            raise

    def _told(self, pvs: Mapping[str, Any]) -> Any:
        """What the program of the subprocess wants to know first."""
        return dict(pvs)

    def _exchange(self, line: Any, what: str) -> Any:
        """Send a line and return the result of its answer, or raise the error that it tells."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        text = json.dumps(line, default=_as_list)
        found = ""
        watch = threading.Timer(_TIMEOUT, self._process.kill)
        watch.start()
        try:
            with self._lock:
                if stdin.closed:
                    raise SoftIOCError("the server of the PVs is stopped")
                with contextlib.suppress(OSError):  # it has ended, and there is no answer
                    stdin.write(text + "\n")
                    stdin.flush()
                    found = stdout.readline()
        finally:
            watch.cancel()
            watch.join()
        if not found:
            raise SoftIOCError(f"the server of the PVs ended, or did not answer to {what}")
        answer = json.loads(found)
        if "error" in answer:
            kind, reason = answer["error"]
            if kind == "SoftIOCError":
                reason = f"the server of the PVs failed at {what}: {reason}"
            raise _ERRORS[kind](reason)
        return answer["result"]

    def _ask(self, method: str, *args: Any) -> Any:
        return self._exchange([method, *args], f"{method}{args}")

    def __getitem__(self, name: str) -> Any:
        """What the server has: a number, also of an enum, a text or a list; KeyError for an unknown PV."""
        return self._ask("read", name)[0]

    def read(self, *names: str) -> list[Any]:
        """What the server has of several PVs; KeyError if one is unknown."""
        found: list[Any] = self._ask("read", *names)
        return found

    def write(self, name: str, value: Any) -> None:
        """Change a PV on the server; its clients are told.

        Parameters
        ----------
        name : str, the full name
        value : int, float, str, list or array
            For an enum the number or the name of a state.

        Raises
        ------
        KeyError
            The server has no such PV.
        ValueError
            The value does not fit: another type, too large or too long, no state. The PV is unchanged.
        """
        self._ask("checked_write", name, value)

    def reset(self) -> None:
        """Have every PV hold what it held at first, and forget the puts."""
        self._ask("reset")

    @property
    def puts(self) -> list[tuple[str, Any]]:
        """The puts of clients, in their order."""
        return [(name, value) for name, value in self._ask("put_log")]

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it; nothing is raised, also if it has ended by itself."""
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # what could not be sent to a dead process
                process.stdin.close()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
        if process.stdout is not None:
            process.stdout.close()
        if self._repeater is not None:
            self._repeater.stop()
            self._repeater = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class RecordIOC(PVSet):
    """Simulated records in a subprocess, such as EPICS base has none of: what `MotorIOC` and `ScalerIOC` share.

    Their fields have the types, menus and access rights of the real records.

    Parameters
    ----------
    records : str, or mapping of str to mapping
        Names of records, by spaces; or the fields' first values for each: ``{"m1": {"VELO": 50.0, "EGU": "deg"}}``.
    pvs : mapping, optional
        Further PVs, as of `PVSet`.
    prefix : str, optional
        What all names begin with; random by default.
    server_port, repeater_port
        As of `PVSet`.

    Raises
    ------
    ValueError, SoftIOCError
        As of `PVSet`; also for a field that the record has not.
    """

    def __init__(
        self,
        records: str | Mapping[str, Mapping[str, Any]],
        pvs: Mapping[str, Any] | None = None,
        *,
        prefix: str | None = None,
        server_port: int | None = None,
        repeater_port: int | None = None,
    ) -> None:
        if isinstance(records, str):
            records = {name: {} for name in records.split()}
        #: What every name begins with.
        self.prefix: str = random_prefix() if prefix is None else prefix
        self._records = {self.name(name): dict(fields) for name, fields in records.items()}
        super().__init__(
            {self.name(name): spec for name, spec in (pvs or {}).items()},
            server_port=server_port,
            repeater_port=repeater_port,
        )

    def name(self, name: str) -> str:
        """The full name of a record or PV."""
        return self.prefix + name

    def _told(self, pvs: Mapping[str, Any]) -> Any:
        return {"records": self._records, "pvs": dict(pvs)}


class MotorIOC(RecordIOC):
    """Motor records that move, in a subprocess: EPICS base has none, so caproto serves them.

    A record moves with VELO and ACCL, takes out its backlash, and the put that began a move completes at its end. Soft
    limits, STOP, SPMG, tweaks, jogs, homing, SET, FOFF, OFF, DIR, DLY and DISP do what they do in the motor record.
    ``"switches": (low, high)`` among a record's fields tells where, in dial units, its limit switches are. An enum PV
    ``NAME_able.VAL``, if it is among `pvs`, sets DISP. There are no retries, as the motor arrives where it is sent.

    Parameters
    ----------
    records, pvs, prefix, server_port, repeater_port
        As of `RecordIOC`.

    Examples
    --------
    >>> with MotorIOC("m1") as ioc:
    ...     ioc.name("m1"), ioc.read(ioc.name("m1.RBV"))
    """

    _main = "_motor_main"


class ScalerIOC(RecordIOC):
    """Scaler records that count, in a subprocess, with the calc records of synApps' scaler.db: ``NAME_calc1`` to 8.

    A record has 16 channels. Channel 1 counts the clock; the others count 1000 a second times their number, or at
    ``"rates": {2: 500.0}`` among a record's fields. A put of 1 to CNT completes when a preset is reached.

    Parameters
    ----------
    records, pvs, prefix, server_port, repeater_port
        As of `RecordIOC`.
    """

    _main = "_scaler_main"
