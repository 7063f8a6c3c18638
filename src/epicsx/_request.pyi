from collections.abc import Callable
from typing import Any, final

from typing_extensions import Self

from ._ca import Core
from ._sample import Sample

@final
class Request:
    @property
    def core(self) -> Core: ...
    def done(self) -> bool: ...
    def result(self, timeout: float | None = None) -> Sample | None: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    def add_done_callback(self, callback: Callable[[Request], object]) -> None: ...
    def cancel(self) -> bool: ...

@final
class Inbox:
    def __new__(cls, fd: int) -> Self: ...
    def take(self) -> list[Request]: ...
    def kill(self) -> int: ...

def get_async(
    core: Core, dbr_type: int, count: int, timeout: Any, owner: Any, callback: Any, inbox: Any
) -> Request: ...
def put_async(
    core: Core,
    value: Any,
    timeout: Any,
    lenient: bool,
    callback: Any,
    owner: Any,
    inbox: Any,
    dbr_type: int = -2,
) -> Request: ...
