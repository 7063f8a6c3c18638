"""`save_pvs`, `restore_pvs` and `AutoSaver`, as pyepics has them.

All PVs are connected together, and then read or written together, each with one flush.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _bulk
from .._texts import cannot_connect, failed
from ..errors import CAError, DisconnectedError
from ..pv import PV, get_pv
from ..utils import IOENCODING as IOENCODING
from . import _files, _request, _values
from ._request import RequestFileError as RequestFileError

if TYPE_CHECKING:
    from .._ca import Core

__all__ = ["AutoSaver", "RequestFileError", "restore_pvs", "save_pvs"]

CONNECTION_TIMEOUT = 5.0
"""Seconds that all PVs of a file may take to connect."""

TIMEOUT = 10.0
"""Seconds that reading or writing all PVs of a file may take."""

_END = "<END>"


def save_pvs(
    request_file: str | os.PathLike[str],
    save_file: str | os.PathLike[str],
    debug: bool = False,
    macros: Mapping[str, str] | None = None,
    search_path: Sequence[str] = (),
) -> None:
    """Write the values of the PVs that a request file names to a save file.

    Parameters
    ----------
    debug : bool
        Print a line for each PV, also for those that are not connected.
    macros, search_path
        As of `AutoSaver`.
    """
    AutoSaver(request_file, macros, search_path).save(save_file, verbose=debug)


def restore_pvs(filepath: str | os.PathLike[str], debug: bool = False) -> bool:
    """Write the values of a save file to their PVs: True if all of them have been sent.

    A PV that is not connected, or cannot be written to, or whose value does not fit, is told in a printed line.

    Parameters
    ----------
    debug : bool
        Print a line for each PV.

    Raises
    ------
    OSError
        The file cannot be read.
    RequestFileError
        A line of it is not complete; nothing has been written. If strict, also if its ``<END>`` is missing.
    CAError
        If strict: the first PV that is not connected, not writable, or whose value does not fit. Nothing has been
        written.
    """
    wanted = _read_save_file(os.fspath(filepath))
    pvs = [get_pv(name, connect=False) for name, _ in wanted]
    missing = _connect(pvs)
    failures: list[str] = []
    cores: list[Core] = []
    values: list[Any] = []

    def told(text: str, error: Exception | None = None) -> None:
        print(text)
        failures.append(failed(_as_ca_error(text, error), text))

    for pv, (name, value) in zip(pvs, wanted, strict=True):
        core = pv._core
        if core in missing:
            told(f"Cannot connect to {name}")
        elif not core.write_access:
            told(f"No write access to {name}")
        else:
            if debug:
                print(f"Setting {name} to {value}")
            try:
                values.append(_values.for_record(value, core.native_type, core.count))
                cores.append(core)
            except ValueError as error:
                told(f"Error restoring {name} to {value} : {error}", error)
    answers = _bulk.put_all(cores, values, False, TIMEOUT, False)
    for core, value, answer in zip(cores, values, answers, strict=True):
        if answer is not None:
            told(f"Error restoring {core.name} to {value} : {answer}", answer)
    return not failures


def _as_ca_error(text: str, error: Exception | None) -> CAError:
    if isinstance(error, CAError):
        return error
    return DisconnectedError(text) if error is None else RequestFileError(text)


def _connect(pvs: Sequence[PV]) -> set[Core]:
    """The channels of PVs that are not connected, in spite of waiting for all."""
    cores = list(dict.fromkeys(pv._core for pv in pvs))
    return set(_bulk.connect_all(cores, CONNECTION_TIMEOUT))


def _read_save_file(path: str) -> list[tuple[str, Any]]:
    """The names and values of a save file."""
    found: list[tuple[str, Any]] = []
    complete = False
    with open(path, encoding=IOENCODING, newline="\n") as file:
        for number, line in enumerate(file, 1):
            line = line.lstrip().rstrip("\r\n")
            complete = complete or line.startswith(_END)
            name, space, text = line.partition(" ")
            # `!` and a number of channels: what synApps says of those it could not read
            if not name or not space or line.startswith(("#", "!", _END)):
                continue
            try:
                found.append((name, _values.from_text(text.strip())))
            except ValueError as error:
                raise RequestFileError(f"{path}:{number}: the value of {name}: {error}") from None
    if not complete:
        failed(lambda: RequestFileError(f"{path} has no {_END}: it is not complete"), None)
    return found


class AutoSaver:
    """Saves the PVs that a request file names, as often as asked to.

    Parameters
    ----------
    request_file : str or path
        Read at once; or later, by `read_request_file`.
    macros : mapping of str to str
        Macros that the request file uses, and nobody else gives.
    search_path : sequence of str
        Folders in which included request files are looked for, after that of the including one.
    """

    def __init__(
        self,
        request_file: str | os.PathLike[str] | None = None,
        macros: Mapping[str, str] | None = None,
        search_path: Sequence[str] = (),
    ) -> None:
        self.request_file = request_file
        self.macros: dict[str, str] = dict(macros or {})
        self.search_path: tuple[str, ...] = tuple(search_path)
        self.pvs: list[PV] = []
        if request_file is not None:
            self.read_request_file(request_file)

    def read_request_file(self, request_file: str | os.PathLike[str] | None = None) -> None:
        """Take the PVs of another request file, or of the same once more. They begin to connect.

        Raises
        ------
        RequestFileError, OSError
            The file, or one that it includes, cannot be read or understood.
        """
        if request_file is not None:
            self.request_file = request_file
        if self.request_file is None:
            raise ValueError("AutoSaver has no request file")
        names = _parse_request_file(self.request_file, self.macros, self.search_path)
        self.pvs = [get_pv(name, connect=False) for name in names]

    def save(self, save_file: str | os.PathLike[str] | None = None, verbose: bool = False) -> None:
        """Write the present values to a file, which is replaced as a whole, and print its name.

        A PV that is not connected, or does not answer, is left out.

        Parameters
        ----------
        save_file : str or path
            By default the request file's name with the time and ``.sav``: ``x_2026Nov23_074458.sav``.
        verbose : bool
            Print a line for each PV.
        """
        now = datetime.datetime.now()
        if save_file is None:
            if self.request_file is None:
                raise ValueError("AutoSaver has no request file to name the save file after")
            stem = os.fspath(self.request_file).removesuffix(".req")
            save_file = f"{stem}_{now:%Y%b%d_%H%M%S}.sav"
        lines = [f"# File saved by epicsx AutoSaver.save() on {now}", "# Edit with extreme care."]
        missing = _connect(self.pvs)
        cores = [pv._core for pv in self.pvs if pv._core not in missing]
        samples = dict(zip(cores, _bulk.get_all(cores, -1, 0, TIMEOUT, _bulk.SAMPLES), strict=True))
        for pv in self.pvs:
            name, core = pv.pvname, pv._core
            found = samples.get(core)
            if found is None or isinstance(found, CAError):
                if verbose:
                    why = "not connected" if found is None else f"not read: {found}"
                    print(f"PV {name} {why}")
                failed(found or DisconnectedError(cannot_connect(name), name=name), None)
                continue
            text = _values.as_text(found.value, core.native_type, core.count)
            lines.append(f"{name} {text}")
            if verbose:
                print(f"PV {name} = {text}")
        _files.replace(os.fspath(save_file), "\n".join((*lines, _END, "")))
        print(f"wrote {save_file}")


def _parse_request_file(
    request_file: str | os.PathLike[str],
    macro_values: Mapping[str, str] | None = None,
    search_path: Sequence[str] = (),
) -> list[str]:
    """The PV names of a request file and those it includes, with all macros replaced."""
    return _request.read(os.fspath(request_file), macro_values or {}, search_path)
