from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

MAX_STRING_SIZE: Final = 40
MAX_UNITS_SIZE: Final = 8
MAX_ENUM_STATES: Final = 16
MAX_ENUM_STRING_SIZE: Final = 26
EPICS_EPOCH: Final = 631152000

class Layout(NamedTuple):
    dbr_type: int
    native_type: int
    value_offset: int
    element_size: int
    dtype: np.dtype[Any]

@final
class Control:
    units: Final[str | None]
    precision: Final[int | None]
    enum_strings: Final[tuple[str, ...] | None]
    lower_disp_limit: Final[float | None]
    upper_disp_limit: Final[float | None]
    lower_alarm_limit: Final[float | None]
    upper_alarm_limit: Final[float | None]
    lower_warning_limit: Final[float | None]
    upper_warning_limit: Final[float | None]
    lower_ctrl_limit: Final[float | None]
    upper_ctrl_limit: Final[float | None]
    status: Final[int]
    severity: Final[int]

    def __init__(
        self,
        *,
        units: str | None = None,
        precision: int | None = None,
        enum_strings: tuple[str, ...] | list[str] | None = None,
        lower_disp_limit: float | None = None,
        upper_disp_limit: float | None = None,
        lower_alarm_limit: float | None = None,
        upper_alarm_limit: float | None = None,
        lower_warning_limit: float | None = None,
        upper_warning_limit: float | None = None,
        lower_ctrl_limit: float | None = None,
        upper_ctrl_limit: float | None = None,
        status: int = 0,
        severity: int = 0,
    ) -> None: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Decoded:
    dbr_type: Final[int]
    native_type: Final[int]
    count: Final[int]
    value: Final[int | float | str | list[str] | NDArray[Any]]
    status: Final[int | None]
    severity: Final[int | None]
    timestamp_ns: Final[int | None]
    control: Final[Control | None]
    ackt: Final[int | None]
    acks: Final[int | None]

def layout(dbr_type: int) -> Layout: ...
def dtype_of(dbr_type: int) -> np.dtype[Any]: ...
def nbytes(dbr_type: int, count: int) -> int: ...
def set_encoding(name: str) -> None: ...
def get_encoding() -> str: ...
def decode(
    dbr_type: int, count: int, data: Buffer, *, scalar: bool = True, copy: bool = True
) -> Decoded: ...
def encode_value(
    value: object,
    native_type: int,
    native_count: int = 1,
    *,
    lenient: bool = False,
    name: str = "",
) -> tuple[int, int, bytes]: ...
def encode_string(text: str | bytes, *, name: str = "") -> bytes: ...
def state_index(
    text: str, strings: tuple[str, ...] | list[str], *, name: str = ""
) -> int | str: ...
def encode_block(
    dbr_type: int,
    count: int,
    value: object,
    *,
    status: int = 0,
    severity: int = 0,
    timestamp_ns: int | None = None,
    control: Control | None = None,
    ackt: int = 0,
    acks: int = 0,
) -> bytes: ...
