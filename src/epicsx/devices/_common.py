"""What the devices share: records, reads past the monitor, keywords by their old names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from ..device import Device

F = TypeVar("F", bound=Callable[..., Any])


class RecordDevice(Device):
    """The fields of one record, those of `attrs`; its name may end in a dot."""

    attrs: Sequence[str] = ()

    def __init__(self, prefix: str, **kwargs: Any) -> None:
        super().__init__(prefix.removesuffix("."), delim=".", attrs=self.attrs, **kwargs)


def fresh(device: Device, attr: str, as_string: bool = False) -> Any:
    """The value that the server has now. What a monitor brought may be older than one's own last put."""
    return device.PV(attr).get(as_string=as_string, use_monitor=False)


def spelt_before(**names: str) -> Callable[[F], F]:
    """A decorator: arguments may also be given by the names they had in earlier releases, ``old='new'``."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def call(*args: Any, **kwds: Any) -> Any:
            for old, new in names.items():
                if old in kwds:
                    if new in kwds:
                        raise TypeError(f"{method.__name__}() got both {old!r} and {new!r}")
                    kwds[new] = kwds.pop(old)
            return method(*args, **kwds)

        return cast(F, call)

    return decorate
