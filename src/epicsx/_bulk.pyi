from collections.abc import Sequence
from typing import Any

from ._ca import Core

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
) -> list[Any]: ...
