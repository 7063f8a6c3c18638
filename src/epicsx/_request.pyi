from collections.abc import Callable
from typing import Any, final

from typing_extensions import Self

from ._ca import Core, Subscription
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
    @property
    def requests(self) -> set[Request]: ...
    @property
    def subscriptions(self) -> set[LoopSubscription]: ...
    @property
    def wakes(self) -> int: ...
    @property
    def lost(self) -> int: ...
    def take(self, limit: int = 1000) -> bool: ...
    def kill(self) -> int: ...

@final
class LoopSubscription(Subscription):
    def __init__(
        self,
        core: Core,
        inbox: Inbox,
        callback: Callable[[], object],
        ended: Callable[[], object] | None,
        mask: int = 5,
        count: int = 0,
        queue: str | int = "all",
        dbr_type: int = -1,
        lane: str = "auto",
    ) -> None: ...
    def take(self) -> Sample | bool | None: ...

def connect_async(cores: list[Core], callback: Any, inbox: Inbox | None) -> Request: ...
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
