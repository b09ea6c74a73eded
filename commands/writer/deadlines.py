"""Deadlines that have passed: the engine itself commands that the step is given up, and undone where that can be."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from commands.model import ENGINE_ROLE
from commands.operations import ExpireOperation
from commands.writer import ids
from commands.writer.deciding import now_us
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.operation import KIND as OPERATION

GRACE_S = 30.0  # after a take-over, controllers first get the chance to say what they did meanwhile
INTERVAL_S = 0.5
PATIENCE_S = 30.0
AFTER_REFUSAL_US = 30 * 1_000_000
BERTH = Actor("berth", ENGINE_ROLE, origin="engine")

Submit = Callable[[Envelope], Awaitable[list[Answer]]]

log = structlog.get_logger()


async def expire(fleet: Fleet, submit: Submit, *, grace_s: float) -> None:
    """Command the expiry of every step whose deadline has passed, for ever.

    A refusal (it was decided meanwhile, or the clock was set back between here and the decision) holds for this time
    alone: if the deadline still stands, it is commanded anew after a while.
    """
    await asyncio.sleep(grace_s)
    refused_at: dict[str, int] = {}
    while True:
        now = now_us()
        refused_at = {
            id: at for id, at in refused_at.items() if id in fleet.deadlines and 0 <= now - at < AFTER_REFUSAL_US
        }
        due = [id for id, deadline in fleet.deadlines.items() if deadline < now and id not in refused_at]
        is_refused = await asyncio.gather(*(_is_refused(id, fleet, submit) for id in due))
        refused_at.update((id, now) for id, refused in zip(due, is_refused, strict=True) if refused)
        await asyncio.sleep(INTERVAL_S)


async def _is_refused(id: str, fleet: Fleet, submit: Submit) -> bool:
    operation = fleet.get(OPERATION, id)
    step = operation.current if operation is not None else None
    if step is None:
        return False
    command = ExpireOperation(operation=id, step=step.name, attempt=step.attempt)
    item = Item(made := ids.uuid7(), command, command.model_dump(), made)
    try:
        (answer,) = await submit(Envelope(BERTH, (item,), time.time() + PATIENCE_S))
    except Unavailable:
        log.warning("deadline not settled yet", operation=id, step=step.name)
        return False
    return answer.problem is not None
