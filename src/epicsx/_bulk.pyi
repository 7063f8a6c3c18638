from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from ._ca import Core
from ._request import Inbox, Request

SAMPLES: int
VALUES: int
PYEPICS: int

def connect_all(cores: list[Core], timeout: float | None = 5.0) -> list[Core]: ...
def get_all(
    cores: list[Core],
    dbr_type: int = -1,
    count: int = 0,
    timeout: float | None = 5.0,
    shape: int = 0,
) -> list[Any]: ...
def put_all(
    cores: list[Core],
    values: Sequence[Any],
    wait: bool = False,
    timeout: float | None = 5.0,
    lenient: bool = False,
    types: list[int] | None = None,
) -> list[Any]: ...

@final
class UnderWay:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def request(self) -> Request: ...
    def collect(self, timeout: float | None) -> list[Any]: ...

def get_all_async(
    cores: list[Core],
    types: list[int] | int,
    counts: list[int] | int,
    callback: Any,
    inbox: Inbox | None,
) -> UnderWay: ...
def put_all_async(
    cores: list[Core], values: list[Any], types: list[int], callback: Any, inbox: Inbox | None
) -> UnderWay: ...
def identical(items: object, others: tuple[object, ...]) -> bool: ...

@final
class Targets:
    def __new__(cls, cores: list[Core]) -> Self: ...

@final
class Reading:
    def __new__(cls, targets: Targets, rows: list[int] | None = None) -> Self: ...
    @property
    def missing(self) -> list[int]: ...
    def collect(
        self,
        timeout: float | None,
        seconds: float | None,
        values: list[Any],
        stamps: npt.NDArray[np.int64],
        severity: npt.NDArray[np.int16],
        status: npt.NDArray[np.int16],
        ok: npt.NDArray[np.bool_],
        errors: dict[int, BaseException],
    ) -> None: ...
