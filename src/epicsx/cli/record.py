"""Write what PVs send to an HDF5 file, as it comes, with stamps, alarms and an account
of every frame that was lost.

Arrays become a dataset each, of one row for each frame; numbers become rows of one
dataset, `scalars/rows`. The file can be read while it grows, by
h5py.File(path, "r", swmr=True); a killed process leaves a file that can be read, too.
docs/recording.md tells the layout. Without --seconds and --frames it goes on until
Ctrl-C or SIGTERM, which end it as well as the time does: all is written.
"""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._tools import complain, one_line, some_seconds

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._channel import Channel
    from .._hdf5_tracks import FrameTrack, RowTrack
    from .._streams import Stream
    from ..errors import CAError

__all__ = ["arguments", "run"]

EPILOG = """\
Exit codes:
  0    all that came was stored, however it ended
  1    something was lost or may have been: a frame was dropped, a connection was lost,
       a PV was never found or refused to be read, the disk could not be written
  2    it could not begin: bad option, h5py missing, no place for the file, a PV of text
  130  ended by Ctrl-C (143: by SIGTERM) before it began, and nothing is written; or by a
       second Ctrl-C, and what was not written yet is lost
"""

FIRST_SECONDS = 2.0
"""How long a first frame of each array is waited for before the file is laid out without it."""


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is wanted, not {text!r}")
    return int(text)


def _reducer(text: str) -> str:
    # An array has at most 2**32 - 1 elements.
    if not re.fullmatch(r"mean|minmax|decimate:0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(
            f"mean, minmax or decimate:N with N below 1000000000 is wanted, not {text!r}"
        )
    return text


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a recording."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("pvs", nargs="+", metavar="PV", help="what is recorded: numbers and arrays of numbers")
    add("-o", "--output", required=True, metavar="FILE", help="the HDF5 file")
    add("--seconds", type=some_seconds, metavar="S", help="end after S seconds of recording")
    add(
        "--frames",
        type=_whole,
        metavar="N",
        help="end when N frames of each array are stored; without any array, N rows",
    )
    both = parser.add_mutually_exclusive_group()
    both.add_argument("--append", action="store_true", help="go on in a file of epicsx record")
    both.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    add("--compression", choices=("gzip", "lzf"), help="compress the values")
    add(
        "--reduce",
        type=_reducer,
        metavar="HOW",
        help="of arrays store the mean, the minmax, or each N-th element (decimate:N)",
    )
    add(
        "--timeout",
        type=some_seconds,
        default=5.0,
        metavar="S",
        help="how long to look for the PVs before it begins (default: %(default)g); "
        "those found later are recorded from then on",
    )
    add(
        "--buffer",
        type=_whole,
        default=256,
        metavar="MB",
        help="what may wait for a slow disk, of each array (default: %(default)d)",
    )
    add("--quiet", action="store_true", help="no progress and no summary")


def _complain(text: object, code: int = 2) -> int:
    return complain("record", text, code)


def _told(error: OSError | ValueError) -> str:
    """What an error of a file says, in one line; HDF5 has long ones."""
    text = error.strerror if isinstance(error, OSError) else ""
    return " ".join((text or str(error)).split())


class _Signals:
    """Ctrl-C and SIGTERM as a wish to end; the second of a kind does what it always does."""

    def __init__(self) -> None:
        self.came = 0
        """The number of the first one."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        self.came = self.came or number
        signal.signal(number, self._before[number])

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def stop(self) -> bool:
        return self.came != 0


class _Recording:
    """The PVs of one command, those that are found and those that are not yet."""

    def __init__(self, options: argparse.Namespace) -> None:
        from .._channel import Channel
        from ..errors import CAError

        self.options = options
        self.channels: list[Channel] = []
        self.late: list[Channel] = []
        self.arrays: dict[str, FrameTrack] = {}
        self.rows: RowTrack | None = None
        self.failed = False
        self._refused: set[str] = set()
        self._scalars: list[Channel] = []
        self._open: list[Any] = []
        try:
            for name in dict.fromkeys(options.pvs):
                self.channels.append(Channel(name))
        except CAError:
            self.close()
            raise

    def find(self, signals: _Signals) -> None:
        """Wait for the PVs, as long as the options say."""
        from time import monotonic

        deadline = monotonic() + self.options.timeout
        for channel in self.channels:
            while not channel.connected and not signals.came:
                left = deadline - monotonic()
                if left <= 0:
                    break
                channel._core.wait_connected(min(left, 0.1))
        self.late = [channel for channel in self.channels if not channel.connected]

    def texts(self) -> list[str]:
        """The names of those that have no numbers."""
        from ..enums import DBR

        return [c.name for c in self.channels if c.native_type == DBR.STRING]

    def tracks(self) -> list[FrameTrack | RowTrack]:
        """What the file is to have: each PV is asked for from now on."""
        from .._hdf5_tracks import FrameTrack, RowTrack

        found = [c for c in self.channels if c not in self.late]
        scalars = [c for c in found if c.count <= 1]
        frames = self.options.frames
        for channel in found:
            if channel.count > 1:
                self.arrays[channel.name] = FrameTrack(self._stream(channel), frames)
        decides = bool(self.arrays)
        for channel in self.late:  # it may turn out to be either
            track = self.arrays[channel.name] = FrameTrack(None, frames, channel.name)
            track.decides = False
        if scalars or self.late:
            names = [c.name for c in (*scalars, *self.late)]
            self.rows = RowTrack(names, None if decides else frames)
            self.rows.decides = frames is None or not decides
            self.rows.ask_units(scalars)
            if scalars:
                self.rows.add(self._recorder(scalars))
                self._scalars += scalars
                self.look_at_rights()
        return [*self.arrays.values(), *([self.rows] if self.rows else [])]

    def _stream(self, channel: Channel) -> Stream:
        from .. import reducers
        from .._streams import Stream, _element_bytes

        how = self.options.reduce
        reduce = None
        if how is not None:
            name, _, number = how.partition(":")
            reduce = getattr(reducers, name)(*([int(number)] if number else []))
        frame = max(1, channel.count * _element_bytes(channel))
        depth = max(16, min(16384, (self.options.buffer << 20) // frame))
        made = Stream(channel, depth=depth, reduce=reduce)
        self._open.append(made)
        return made

    def _recorder(self, channels: list[Channel]) -> Any:
        from .._record import Recorder

        made = Recorder(channels)
        self._open.append(made)
        return made

    def look(self) -> None:
        """Begin with those that were found meanwhile."""
        from ..enums import DBR

        for channel in [c for c in self.late if c.connected]:
            self.late.remove(channel)
            if channel.native_type == DBR.STRING:
                self.failed = True
                _complain(f"{channel.name} has text, which is not recorded")
            elif channel.count > 1:
                track = self.arrays[channel.name]
                track.stream, track.decides = self._stream(channel), True
            elif self.rows is not None:
                self.rows.add(self._recorder([channel]))
                self._scalars.append(channel)
        self.look_at_rights()

    def look_at_rights(self) -> None:
        """Tell which scalars cannot be read: a recorder has no error for that, as an array has."""
        for channel in self._scalars:
            if channel.connected and not channel.access & 1:
                self._refuse(channel.name, f"'{channel.name}': the server gives no read access")

    def refused(self, track: FrameTrack | RowTrack, error: CAError) -> None:
        """Tell once that a PV cannot be read; it may be allowed later."""
        self._refuse(error.name or "", error)

    def _refuse(self, name: str, told: object) -> None:
        self.failed = True
        if name not in self._refused:
            self._refused.add(name)
            _complain(told)

    def logged(self, text: str) -> None:
        """Tell what the core would log, but what `look_at_rights` tells."""
        from ..enums import ECA

        if "no value from the server" not in text:
            _complain(text)
        elif f"ECA status {int(ECA.NORDACCESS)}" not in text:
            self._refuse(text, text)

    def close(self) -> None:
        for each in (*self._open, *self.channels):
            each.close()


def run(options: argparse.Namespace) -> int:
    """Record until the end and return the exit code."""
    if find_spec("h5py") is None:
        return _complain("h5py is not installed: pip install 'epicsx[hdf5]'")
    from .._hdf5_files import check_target
    from ..errors import CAError

    mode = "a" if options.append else "w" if options.overwrite else "x"
    try:
        check_target(options.output, mode)
    except (OSError, ValueError) as error:
        return _refuse(options.output, error)
    with _Signals() as signals:
        try:
            recording = _Recording(options)
        except CAError as error:
            return _complain(error)
        try:
            with _logged(recording):
                return _record(options, mode, recording, signals)
        except KeyboardInterrupt:
            return _complain("interrupted: what was not written yet is lost", 130)
        finally:
            recording.close()


@contextmanager
def _logged(recording: _Recording) -> Iterator[None]:
    """What is logged meanwhile goes to the recording."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            recording.logged(record.getMessage())

    logger, handler = logging.getLogger("epicsx"), Handler(logging.WARNING)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _refuse(path: str, error: OSError | ValueError) -> int:
    if isinstance(error, FileExistsError):
        return _complain(f"{path} is there already: --append or --overwrite")
    return _complain(f"{path}: {_told(error)}")


def _record(
    options: argparse.Namespace, mode: str, recording: _Recording, signals: _Signals
) -> int:
    from .._hdf5 import Writer, lost_of, record
    from ..errors import CAError

    recording.find(signals)
    if signals.came:
        return 128 + signals.came
    if texts := recording.texts():
        return _complain(f"{', '.join(texts)}: text, and only numbers are recorded")
    if recording.late:
        names = ", ".join(c.name for c in recording.late)
        _complain(f"no server has answered within {options.timeout:g} s for {names}")
        if len(recording.late) == len(recording.channels):
            return 1
    try:
        writer = Writer(options.output, mode, options.compression)
    except (OSError, ValueError) as error:
        return _refuse(options.output, error)
    writer.tracks += recording.tracks()
    try:
        record(
            writer,
            seconds=options.seconds,
            first_wait=FIRST_SECONDS,
            stop=signals.stop,
            tick=recording.look,
            on_error=recording.refused,
            progress=not options.quiet,
        )
    except CAError as error:
        return _complain(error, 1)
    except OSError as error:
        return _complain(f"{options.output} cannot be written: {_told(error)}", 1)
    recording.look_at_rights()
    lost = 0
    for track in writer.tracks:
        ledger = track.noted
        missing = 0 if ledger is None else lost_of(ledger)
        lost += missing
        if options.quiet or (not track.taken and len(writer.tracks) > 1):
            continue
        if track is recording.rows:
            n = len(recording.rows.names)
            what = f"{n} scalar{'s' * (n != 1)}: {track.taken} rows"
        else:
            what = f"{one_line(getattr(track, 'name', ''))}: {track.taken} frames"
        print(f"{what}, {track.bytes / 1e6:.1f} MB, lost {missing}")
    return 1 if lost or recording.failed or recording.late else 0
