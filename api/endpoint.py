"""One request: which endpoint, who asks, what came of it. Every request passes through `Path` and no other door.

    uvicorn ─► App (routing by path) ─► Path (by method) ─► Endpoint.handle(call) ─► Reply
                                              └─ DomainError ─► problem     always: access log, metrics

An endpoint is also data: `api/openapi.py` describes the API from these very values.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from eventsourcing.persistence import PersistenceError
from psycopg import Error as DatabaseError

from api import problems
from api.auth import must_be_one_of
from api.awaited import ClientGone, while_awaited
from api.body_schemas import path_fields
from api.budget import READS, Budget, Slots, budget_of
from api.context import Context
from api.metrics import HTTP_REQUESTS, HTTP_SECONDS
from api.parameters import Parameter
from api.parameters import query as read_query
from api.problems import MethodNotAllowed
from api.reply import Answerable
from api.request_headers import combined
from api.source import source
from api.tenant_scope import TenantScope, tenant_scope_of
from commands.model import Command
from commands.writer.gateway import Actor
from commands.writer.ids import uuid7
from domain.errors import DomainError, NotFound, Unavailable
from domain.kinds import BY_NAME
from domain.values import NAME_PATTERN
from projections.view import EVERY_ROLE

log = structlog.get_logger()

BODILESS = frozenset({"GET", "HEAD"})
IS_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z")).match
IS_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z").match


class Call:
    """One request on its way. `command` is the id of the command that it became, for the logs; `position` the one at
    which what it asks for was found not to be there."""

    __slots__ = (
        "_slots",
        "actor",
        "command",
        "context",
        "endpoint",
        "headers",
        "path",
        "position",
        "receive",
        "scope",
        "token",
    )

    def __init__(self, context: Context, endpoint: "Endpoint", scope: Any, receive: Any) -> None:
        self.context = context
        self.endpoint = endpoint
        self.scope = scope
        self.receive = receive
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.path: dict[str, str] = scope["path_params"]
        self.command: str | None = None
        self.position: int | None = None
        self.actor: Actor
        self._slots: Slots | None = None  # of which it holds one
        self.token = ""  # the hash of the secret, to ask whether it is still good

    async def authenticate(self) -> None:
        known, self.token = await self.context.tokens.authenticate(self.headers.get(b"authorization"))
        client = self.scope.get("client")
        peer = client[0] if client else None
        address = source(peer, self.scope["headers"], trusted=self.context.trusted_proxies)
        self.actor = Actor(known.name, known.role, known.tenant, address)

    async def take_place(self) -> None:
        """Wait until the actor may have one more request of this kind under way; the place is held until it is given
        back.

        Raises:
            TooMuchAtOnce: it has too many.
            ClientGone: nobody waits for the answer any more.
        """
        await self.take_place_of(budget_of(self.endpoint.budget, self.scope))

    async def take_place_of(self, budget: Budget) -> None:
        """The same, of a budget."""
        slots = self.context.slots[budget]
        if not slots.take_at_once(self.actor.name):
            taking = slots.take(self.actor.name)
            has_body = self.scope["method"] not in BODILESS
            await (taking if has_body else while_awaited(self.receive, taking))
        self._slots = slots

    def give_place_back(self) -> None:
        if self._slots is not None:
            self._slots.give_back(self.actor.name)
            self._slots = None

    async def tenant_scope(self, *, at_least: int = 0) -> TenantScope | None:
        """What the actor sees today, at that position or later; None: everything.

        Raises:
            Unavailable: the read model did not get there in time.
        """
        root = self.actor.tenant
        if root is None:
            return None
        await self.context.read_model.wait_for(at_least)
        return await tenant_scope_of(self.context.read_model, actor=self.actor.name, root=root)

    def query(self) -> dict[str, Any]:
        return read_query(self.scope, self.endpoint.parameters)


Handle = Callable[[Call], Coroutine[Any, Any, Answerable]]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    `roles` may use it (None: nobody need say who they are); a command's roles are the engine's matter. `model` is the
    command that the body becomes, `answer` the name of the schema of what is answered when all is well. `name` is what
    generated clients call it; a command's is made from its kind. `budget` is what its requests take a place of;
    commands and what needs no token have none.
    """

    method: str
    path: str
    name: str = ""
    summary: str
    handle: Handle
    roles: frozenset[str] | None = EVERY_ROLE
    permission: str = ""
    parameters: Mapping[str, Parameter] = {}
    headers: tuple[str, ...] = ()
    model: type[Command] | None = None
    body: str | None = None
    answer: str | None = None
    answer_type: str = "application/json"
    statuses: tuple[int, ...] = (200,)
    refusals: tuple[int, ...] = ()
    budget: Budget = READS

    @property
    def is_command(self) -> bool:
        return self.model is not None or self.body == "Batch"

    @property
    def path_fields(self) -> tuple[str, ...]:
        return path_fields(self.path)


def declared(*parameters: Parameter) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


class Path:
    """All endpoints of one path, as an ASGI app. `otherwise` answers every other method, if there is one."""

    def __init__(self, context: Context, endpoints: Sequence[Endpoint], *, otherwise: Endpoint | None = None) -> None:
        self._context = context
        self._otherwise = otherwise
        self._endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        if "GET" in self._endpoints:
            self._endpoints["HEAD"] = self._endpoints["GET"]
        self._any = endpoints[0]
        self.path = self._any.path
        self._observe = {method: HTTP_SECONDS.of(method, self.path).observe for method in self._endpoints}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        began = time.perf_counter()
        method: str = scope["method"]
        endpoint = self._endpoints.get(method, self._otherwise)
        call = Call(self._context, endpoint or self._any, scope, receive)
        reply: Answerable
        try:
            try:
                if len(call.headers) != len(scope["headers"]):
                    call.headers = combined(scope["headers"])
                if endpoint is None:
                    raise MethodNotAllowed(method, sorted(self._endpoints))
                if endpoint.roles is not None:
                    await call.authenticate()
                    self._context.rate_limit.take(call.actor.name)
                    must_be_one_of(endpoint.roles, call.actor, permission=endpoint.permission)
                    if not endpoint.is_command:
                        await call.take_place()
                    elif self._context.room_for(call.actor) <= 0:
                        # Before its body is read: what is refused must cost little, or what is admitted gets slower.
                        call.command = uuid7()
                        raise Unavailable(call.command)
                if call.path:
                    _must_be_names(call.path)
                reply = await endpoint.handle(call)
            except DomainError as refusal:
                reply = problems.refusal(refusal, position=call.position)
            except (PersistenceError, DatabaseError) as error:
                log.warning("log not reached", route=self.path, error=str(error).strip())
                reply = problems.refusal(Unavailable())
            except ClientGone:
                return
            except asyncio.CancelledError:
                # The process stops, and nothing else ends a request: whoever asked is told to ask again.
                reply = problems.refusal(Unavailable(call.command))
            except Exception:
                # Here and at no deeper place: a bug in one request is that request's, and its command's id leads to it.
                log.exception("request failed", method=method, route=self.path, command=call.command)
                reply = problems.fault(call.command)
            try:
                await reply.send(receive, send)
            except asyncio.CancelledError:
                pass  # the process stops, and the client did not take its answer in time
            finally:
                self._note(call, method, reply.status, time.perf_counter() - began)
        finally:
            call.give_place_back()

    def _note(self, call: Call, method: str, status: int, seconds: float) -> None:
        known = self._observe.get(method)
        if known is None:
            method = "other"
        else:
            known(seconds)
        HTTP_REQUESTS[method, self.path, status] += 1
        # What needs no token, or is not there, may have come with one all the same.
        who = getattr(call, "actor", None) or self._context.tokens.cached(call.headers.get(b"authorization"))
        self._context.access_log.note(
            method=method,
            route=self.path,
            status=status,
            seconds=seconds,
            command=call.command,
            actor=who.name if who is not None else None,
        )


def _must_be_names(path: Mapping[str, str]) -> None:
    """What can't be the name of a kind is not there. All else in a path is its endpoint's own matter."""
    for field, value in path.items():
        kind = BY_NAME.get(field)
        if kind is not None and not (IS_ID(value) if kind.has_id_for_name else IS_NAME(value)):
            raise NotFound(field, value[:253])
