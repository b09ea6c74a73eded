"""What the routes work on: given to `create_app`, and by it to every call."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol

import msgspec

from api.access_log import AccessLog
from api.auth import Tokens
from api.budget import Budget, Slots, all_slots
from api.live import Tail
from api.own_writes import OwnWrites
from api.rate import RateLimit
from api.source import Network
from commands.writer.gateway import Actor, Gateway
from eventlog.components import ComponentStatus
from eventlog.read import LogReader
from projections.listing import CapacityQuery, ListQuery, Portion, ScopeThen
from projections.queries import ReadModel


class Past(Protocol):
    """The process that folds the log up to any position."""

    async def resource(self, stream: str, *, as_of: int) -> dict[str, Any] | None:
        """The resource as it was at the end of the command at `as_of`, or None."""
        ...

    async def list_(self, query: ListQuery, *, as_of: int) -> Portion:
        """Rows of a list at the end of the command at `as_of`."""
        ...

    async def capacity(self, query: CapacityQuery, *, as_of: int) -> Portion:
        """Rows of capacity at the end of the command at `as_of`."""
        ...

    async def classes(self, scope: ScopeThen | None, *, as_of: int) -> list[str]:
        """Every resource class, and count, that a list at `as_of` may show."""
        ...

    async def verify(self, *, full: bool = False) -> dict[str, Any]:
        """{`position`, `events`, `violations`, `differences`}; `full`: those of the checkpoints too."""
        ...


LogChanges = Callable[[], AsyncGenerator[None]]
ComponentStatuses = Callable[[], Awaitable[list[ComponentStatus]]]
RelayLag = Callable[[], Awaitable[int]]
RoomFor = Callable[[Actor], int]
EngineMetrics = Callable[[], Awaitable[str]]


class Context(msgspec.Struct, frozen=True):
    gateway: Gateway
    read_model: ReadModel
    log: LogReader
    past: Past
    tokens: Tokens
    tail: Tail
    component_statuses: ComponentStatuses
    relay_lag: RelayLag | None
    room_for: RoomFor
    rate_limit: RateLimit
    access_log: AccessLog = msgspec.field(default_factory=AccessLog)
    trusted_proxies: tuple[Network, ...] = ()
    own_writes: OwnWrites = msgspec.field(default_factory=OwnWrites)
    engine_metrics: EngineMetrics | None = None
    slots: dict[Budget, Slots] = msgspec.field(default_factory=all_slots)
