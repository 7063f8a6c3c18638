"""A file that is replaced as a whole: a reader sees the old content or the new one, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from ..utils import IOENCODING


def replace(path: str, text: str) -> None:
    """Give the file `path` the content `text`.

    It is written beside it and renamed, under its own rights or those of any new file. Something that is no regular
    file, such as a pipe, is written to as it is.
    """
    path = os.path.realpath(path)
    try:
        mode: int | None = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        with open(path, "w", encoding=IOENCODING) as file:
            file.write(text)
        return
    beside = f"{path}.{secrets.token_hex(8)}.tmp"
    # O_EXCL: nobody else has it; and the process's umask counts, as for any file
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(number, "w", encoding=IOENCODING) as file:
            file.write(text)
            file.flush()
            os.fsync(number)
        if mode is not None:
            with contextlib.suppress(OSError):
                os.chmod(beside, stat.S_IMODE(mode))
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
