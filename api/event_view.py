"""Events of the log as an actor sees them: which ones, in which form, and for whom what is left out."""

import asyncio
from collections import OrderedDict
from typing import Any

from api import scope
from api.auth import AUDITOR
from api.context import Context
from api.scope import Sight, owner_of
from commands.writer.gateway import Actor
from domain.operation import OperationStarted
from domain.values import kind_of
from eventlog.codec import Row, decode
from messaging.document import document as document_of

OWNERS_KEPT_MAX = 100_000
# A tenant that comes, goes or moves changes who sees what; so does a quota, for groups.
CHANGES_SIGHT = frozenset({"tenant.created", "tenant.moved", "tenant.deleted", "quota.set", "quota.deleted"})


class EventView:
    """For one actor. Owners of operations are looked up in the log and kept: they never change."""

    def __init__(self, context: Context, actor: Actor, sight: Sight | None) -> None:
        self._context = context
        self._actor = actor
        self.sight = sight
        self._owners: OrderedDict[str, str | None] = OrderedDict()

    @property
    def is_whole(self) -> bool:
        """Nothing is left out."""
        return self.sight is None and self._actor.role in AUDITOR

    async def shown(self, row: Row) -> dict[str, Any] | None:
        """The event's JSON, None if it is not for this actor."""
        kind = kind_of(row.stream)
        if kind == "token" and self._actor.role not in AUDITOR:
            return None
        sight = self.sight
        if sight is None:
            return document_of(row)
        owner = await self._owner(row, kind)
        if owner is None or owner not in sight.tenants:
            return None
        return scope.event(document_of(row), sight)

    async def _owner(self, row: Row, kind: str) -> str | None:
        if kind == "command":
            resource = decode(row).event.resource
            if resource is None or not resource.startswith("operation/"):
                return owner_of(resource)
            return await self._owner_of_operation(resource)
        if kind == "operation":
            return await self._owner_of_operation(row.stream)
        return owner_of(row.stream)

    async def _owner_of_operation(self, stream: str) -> str | None:
        if stream in self._owners:
            return self._owners[stream]
        first = (await asyncio.to_thread(self._context.log.existing, [stream])).get(stream)
        started = decode(first).event if first is not None else None
        owner = owner_of(started.target) if isinstance(started, OperationStarted) else None
        self._owners[stream] = owner
        while len(self._owners) > OWNERS_KEPT_MAX:
            self._owners.popitem(last=False)
        return owner
