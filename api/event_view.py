"""Events of the log as an actor sees them: which ones, in which form, and for whom what is left out.

A command's own event is the audit's entry, and so is for who may read the audit. What is left out of an event for all
(the hash of a token's secret) is left out in `messaging/event_json.py`.
"""

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple

from api import redaction
from api.auth import AUDITORS, FOR_AUDITORS
from api.context import Context
from api.tenant_scope import TenantScope, tenant_scope_of
from commands.writer.gateway import Actor
from domain.kinds import tenant_of
from domain.operation import OperationStarted
from domain.tenant import KIND as TENANT
from domain.values import kind_of
from eventlog.codec import Row, decode, time_of
from messaging.event_json import document as document_of
from projections.queries import Life

KEPT_MAX = 100_000
# A tenant that comes, goes or moves changes who sees what; so does a quota, for groups.
CHANGES_SCOPE = frozenset({"tenant.created", "tenant.moved", "tenant.deleted", "quota.set", "quota.deleted"})


class Owned(NamedTuple):
    """Whose an event is: the tenant of that name that lived at that place of the log."""

    tenant: str
    at: int
    position: int


class EventView:
    """For one actor. Whose an operation is, and where a tenant's life begins, is looked up in the log and kept."""

    def __init__(self, context: Context, actor: Actor, scope: TenantScope | None) -> None:
        self._context = context
        self._actor = actor
        self.scope = scope
        self._operations: OrderedDict[str, Owned | None] = OrderedDict()
        self._begins: OrderedDict[Life, int] = OrderedDict()

    @property
    def is_whole(self) -> bool:
        """Nothing is left out."""
        return self.scope is None and self._actor.role in AUDITORS

    async def shown(self, row: Row) -> dict[str, Any] | None:
        """The event's JSON, None if it is not for this actor."""
        if not await self.sees(row):
            return None
        document = document_of(row)
        return document if self.scope is None else redaction.event(document, self.scope)

    async def sees(self, row: Row) -> bool:
        kind = kind_of(row.stream)
        if kind in FOR_AUDITORS and self._actor.role not in AUDITORS:
            return False
        if self.scope is None:
            return True
        if row.topic in CHANGES_SCOPE and row.position > self.scope.position:
            await self._context.read_model.wait_for(row.position)
            root = self.scope.root
            self.scope = await tenant_scope_of(self._context.read_model, actor=self._actor.name, root=root)
        if row.topic == "tenant.created":
            created = decode(row)
            _keep(self._begins, Life(created.at, created.event.uid), row.position)
        owned = await self._owned(row, kind)
        return owned is not None and await self._lived(owned, self.scope)

    async def _owned(self, row: Row, kind: str) -> Owned | None:
        stream: str | None = row.stream
        if kind == "command":
            stream = decode(row).event.resource
        if stream is not None and stream.startswith("operation/"):
            return await self._owned_operation(stream)
        tenant = tenant_of(stream) if stream is not None else None
        return Owned(tenant, time_of(row), row.position) if tenant is not None else None

    async def _owned_operation(self, stream: str) -> Owned | None:
        """Whose it was when it began: it outlives its tenant, and then others may bear that name."""
        if stream not in self._operations:
            first = (await asyncio.to_thread(self._context.log.existing, [stream])).get(stream)
            started = decode(first).event if first is not None else None
            tenant = tenant_of(started.target) if isinstance(started, OperationStarted) else None
            owned = Owned(tenant, time_of(first), first.position) if first is not None and tenant is not None else None
            _keep(self._operations, stream, owned)
        return self._operations[stream]

    async def _lived(self, owned: Owned, scope: TenantScope) -> bool:
        life = scope.tenants.get(owned.tenant)
        if life is None or owned.at < life.began_at:
            return False
        return owned.at > life.began_at or owned.position >= await self._begin(owned.tenant, life)

    async def _begin(self, tenant: str, life: Life) -> int:
        """The position of a tenant's creation: what is of the same time may be of one atomic batch with it, in which
        the one before was deleted."""
        if life not in self._begins:
            rows = await asyncio.to_thread(self._context.log.stream, TENANT.stream(tenant))
            created = (row for row in rows if row.topic == "tenant.created" and decode(row).event.uid == life.uid)
            _keep(self._begins, life, next(row.position for row in created))
        return self._begins[life]


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    while len(kept) > KEPT_MAX:
        kept.popitem(last=False)
