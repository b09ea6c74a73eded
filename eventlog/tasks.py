"""How background tasks end."""

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks until they have ended, whatever they end with.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which nats-py uses, swallows a cancellation that comes at the
    moment of its result, and a loop around it would go on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
