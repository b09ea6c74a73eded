"""The HTTP API as an ASGI app: everything it works on is given to it.

FastAPI keeps the lifespan and the description. The endpoints themselves are rows of tables (`routes/`)
that `Path` carries out without its dependency injection.
"""

import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path

from api import openapi
from api.admission import Admission
from api.auth import Tokens
from api.brief_cache import BriefCache
from api.context import ComponentStatuses, Context, EngineMetrics, LogChanges, Past, RelayLag, RoomFor
from api.endpoint import Call, Endpoint, Path
from api.live import Tail
from api.metrics import KEPT_S, exposition
from api.problems import NoSuchRoute
from api.rate import RateLimit
from api.reply import Answerable, encode
from api.routes import audit, batch, events, insight, kinds, public, resources
from api.source import Network
from api.token_lookups import TokenLookUps
from commands.writer.gateway import Gateway
from eventlog.read import LogReader
from projections.queries import ReadModel

ENDPOINTS: tuple[Endpoint, ...] = (
    *resources.ENDPOINTS,
    *kinds.ENDPOINTS,
    *batch.ENDPOINTS,
    *events.ENDPOINTS,
    *audit.ENDPOINTS,
    *insight.ENDPOINTS,
    *public.ENDPOINTS,
)


class App(FastAPI):
    """FastAPI, but that a path is found at once, however many kinds there are: one without fields in a table, one with
    fields among those that begin alike. Routing in turn was 23 of the 633 µs of a provisioning, and half a µs a route.

    `Path` catches whatever is raised, so it needs none of the layers around the routes. `nowhere` is the path of all
    that no route has.
    """

    def __init__(self, paths: Sequence[Path], *, nowhere: Path, **options: Any) -> None:
        super().__init__(**options)
        self._literal = {path.path: path for path in paths if "{" not in path.path}
        self._with_fields: defaultdict[str, list[tuple[re.Pattern[str], Path]]] = defaultdict(list)
        for path in paths:
            if "{" in path.path:
                pattern, _, _ = compile_path(path.path)
                self._with_fields[_beginning_of(path.path)].append((pattern, path))
        self._nowhere = nowhere

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        scope["path_params"] = {}
        await self._found(scope)(scope, receive, send)

    def _found(self, scope: Any) -> Path:
        asked: str = scope["path"]
        if (path := self._literal.get(asked)) is not None:
            return path
        # Patterns of routes pass over the end of a line, or a line's end at the end of a path.
        if "\n" not in asked:
            for pattern, path in self._with_fields.get(_beginning_of(asked), ()):
                if (match := pattern.match(asked)) is not None:
                    scope["path_params"] = match.groupdict()
                    return path
        return self._nowhere


def _beginning_of(path: str) -> str:
    """`vms`, of `/v1/vms/acme/web-1`; `problems`, of `/problems/no_quota`."""
    first, _, rest = path.removeprefix("/").partition("/")
    return rest.partition("/")[0] if first == "v1" else first


def create_app(
    *,
    gateway: Gateway,
    read_model: ReadModel,
    log_reader: LogReader,
    log_changes: LogChanges,
    past: Past,
    component_statuses: ComponentStatuses,
    relay_lag: RelayLag | None = None,
    room_for: RoomFor = lambda actor: sys.maxsize,
    rate_limit_per_s: float = 0.0,
    trusted_proxies: tuple[Network, ...] = (),
    engine_metrics: EngineMetrics | None = None,
) -> FastAPI:
    """The app. The caller opens and closes what it gives; the app's lifespan runs the live tail alone.

    `log_changes` gives a fresh iterator that yields when something was appended; `component_statuses` the status of
    each component; `relay_lag` how many events NATS still lacks; `room_for` how many commands of an actor would be
    taken now (an engine on another machine says so when it is asked, so nobody is kept out before); `engine_metrics`
    what an engine in a process of its own counts.
    `rate_limit_per_s` is how many requests a token may send; 0: as many as it likes. `trusted_proxies` say where their
    requests came from.
    """

    def replaced() -> None:
        known.forget_all()
        context.own_writes.forget_all()

    look_ups = TokenLookUps(read_model, log_reader, began_at=lambda: tail.began_at)
    known = Tokens(look_ups.look_up)
    tail = Tail(log_reader, log_changes, on_event=known.note, on_replaced=replaced)
    admission = Admission(known, room_for, not_commands=_writes_that_are_no_commands())
    limit = RateLimit(rate_limit_per_s)
    context = Context(
        gateway=gateway,
        read_model=read_model,
        log=log_reader,
        past=past,
        tokens=known,
        tail=tail,
        component_statuses=component_statuses,
        relay_lag=relay_lag,
        room_for=room_for,
        rate_limit=limit,
        trusted_proxies=trusted_proxies,
        engine_metrics=engine_metrics,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await tail.start()
        yield {"admission": admission}
        await look_ups.stop()
        await tail.stop()

    # What FastAPI would tell OpenTelemetry is looked up anew for every request, whether anybody listens or not.
    silent: Any = {"tracing": False, "metrics": False, "logs": False}
    app = App(
        _by_path(context, ENDPOINTS),
        nowhere=Path(context, [_NOWHERE], otherwise=_NOWHERE),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=silent,
    )
    description = openapi.describe(ENDPOINTS)
    app.state.end_streams = tail.end_streams
    app.state.openapi = encode(description)
    app.state.metrics = BriefCache(partial(exposition, context), for_s=KEPT_S)
    app.openapi = lambda: description  # type: ignore[method-assign]  # FastAPI's own way
    return app


def _by_path(context: Context, endpoints: Sequence[Endpoint]) -> list[Path]:
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.path, []).append(endpoint)
    return [Path(context, same) for same in found.values()]


def _writes_that_are_no_commands() -> frozenset[bytes]:
    return frozenset(one.path.encode() for one in ENDPOINTS if one.method != "GET" and not one.is_command)


async def _nowhere(call: Call) -> Answerable:
    raise NoSuchRoute("route", call.scope["path"][:200])


# A path that is not ours is not there, whatever the method.
_NOWHERE = Endpoint(method="GET", path="/{rest:path}", summary="", handle=_nowhere, roles=None)
