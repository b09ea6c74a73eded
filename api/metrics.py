"""What Prometheus scrapes: HTTP, the engine's own from the same registry, and how far readers are behind the log."""

import asyncio
import time

import structlog
from eventsourcing.persistence import PersistenceError
from nats.errors import Error as NatsError
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from psycopg import Error as DatabaseError

from api.context import Context
from commands.writer.metrics import Counts, Part, Seconds
from eventlog.codec import time_of

log = structlog.get_logger()

KEPT_S = 1.0  # anybody may ask: so often it is made at most
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

HTTP_REQUESTS = Counts("berth_http_requests", "Requests answered", ["method", "route", "status"]).of
HTTP_SECONDS = Seconds(
    "berth_http_request_seconds",
    "Time from a request's head to the end of its answer",
    ["method", "route"],
    buckets=(1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0),
)


async def exposition(context: Context) -> bytes:
    """The text format. Asks the log and the read model where they are. Costs some 10 ms, in a thread."""
    own = CollectorRegistry()
    ready = Gauge("berth_component_ready", "1: ready, as /readyz says", ["component"], registry=own)
    for one in await context.component_statuses():
        ready.labels(one.name).set(one.is_ready)
    try:
        shown = context.read_model.position  # first: below 0 it shows what the log does not hold
        end = await asyncio.to_thread(context.log.end)
        behind, since_s = end - shown, 0.0
        if behind > 0 and (row := await asyncio.to_thread(context.log.row, shown + 1)) is not None:
            since_s = max(0.0, time.time() - time_of(row) / 1e6)
        _gauge(own, "berth_projector_lag_events", "Events of the log that the read model does not show yet", behind)
        _gauge(own, "berth_projector_lag_seconds", "Age of the oldest event that is not shown yet", since_s)
        if context.relay_lag is not None:
            relay_behind = await context.relay_lag()
            _gauge(own, "berth_relay_lag_events", "Events of the log that are not in NATS yet", relay_behind)
    except (PersistenceError, DatabaseError, NatsError, OSError) as error:
        # What can't be asked is left out: the rest is worth most just then.
        log.warning("lag not known", error=str(error).strip())
    if context.engine_metrics is None:
        return await asyncio.to_thread(lambda: generate_latest(REGISTRY) + generate_latest(own))
    # An engine beside this process counts for itself; what is of its kind here was never counted.
    of_engine = (await context.engine_metrics()).encode()
    ours = Part(is_engines=False)
    return await asyncio.to_thread(lambda: generate_latest(ours) + generate_latest(own) + of_engine)


def _gauge(registry: CollectorRegistry, name: str, text: str, value: float) -> None:
    Gauge(name, text, registry=registry).set(value)
