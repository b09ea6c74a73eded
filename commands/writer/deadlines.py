"""Deadlines that have passed: the engine itself commands that the step is given up, and undone where that can be."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from commands.catalogue import ENGINE_ROLE
from commands.operations import ExpireOperation
from commands.writer import ids
from commands.writer.deciding import now_us
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import Unavailable
from domain.fleet import Fleet

GRACE_S = 30.0  # after a take-over, controllers first get the chance to say what they did meanwhile
INTERVAL_S = 0.5
PATIENCE_S = 30.0
BERTH = Actor("berth", ENGINE_ROLE, origin="engine")

log = structlog.get_logger()


async def expire(fleet: Fleet, submit: Callable[[Envelope], Awaitable[list[Answer]]], *, grace_s: float) -> None:
    """Command the expiry of every step whose deadline has passed, for ever."""
    await asyncio.sleep(grace_s)
    while True:
        now = now_us()
        due = [id for id, deadline in fleet.deadlines.items() if deadline < now]
        await asyncio.gather(*(_expire(id, fleet, submit) for id in due))
        await asyncio.sleep(INTERVAL_S)


async def _expire(id: str, fleet: Fleet, submit: Callable[[Envelope], Awaitable[list[Answer]]]) -> None:
    operation = fleet.operation(id)
    step = operation.current if operation is not None else None
    if step is None:
        return
    command = ExpireOperation(operation=id, step=step.name, attempt=step.attempt)
    item = Item(ids.uuid7(), command, command.model_dump(), f"{id}:{step.name}:{step.attempt}:expired")
    try:
        await submit(Envelope(BERTH, (item,), time.time() + PATIENCE_S))
    except Unavailable:
        log.warning("deadline not settled yet", operation=id, step=step.name)
