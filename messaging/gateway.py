"""Commands over NATS, the API's side: they go to all engines of a cell, of which the one that leads answers."""

import asyncio
import sys
import time

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from commands.writer.gateway import Actor, Answer, Envelope
from domain.errors import Unavailable
from eventlog.tasks import end_tasks
from messaging import subjects
from messaging.wire import WireReply, decode_reply, encode_envelope

ANSWER_GRACE_S = 2.0
NO_ENGINE_PATIENCE_S, NO_ENGINE_RETRY_S = 5.0, 0.1
RESEND_S, RESEND_S_MAX = 0.5, 8.0
TAKE_OVER_S = 3.0  # a standby leads within this time

log = structlog.get_logger()


class NatsGateway:
    """Implements `Gateway`."""

    is_leading = True  # an engine that does not lead, or has no room, says so in its answer

    def __init__(self, client: Client, cell: str) -> None:
        self._client = client
        self._subject = subjects.of_commands(cell)

    def room_for(self, actor: Actor) -> int:
        return sys.maxsize

    async def submit(self, envelope: Envelope) -> list[Answer]:
        patience_s = max(0.0, envelope.expires_at - time.time()) + envelope.wait_s + ANSWER_GRACE_S
        asked: set[asyncio.Task[Msg]] = set()
        try:
            async with asyncio.timeout(patience_s):
                reply = await self._ask(envelope, asked, patience_s=patience_s)
        except (TimeoutError, nats.errors.Error) as error:
            # Nobody listens, or nobody answered: either way only the log knows.
            log.warning("engine not reached", command=envelope.items[0].id, error=str(error) or "no answer in time")
            raise Unavailable(envelope.items[0].id) from None
        finally:
            await end_tasks(*asked)
        if reply.unavailable:
            raise Unavailable(reply.command)
        return reply.answers

    async def _ask(self, envelope: Envelope, asked: "set[asyncio.Task[Msg]]", *, patience_s: float) -> WireReply:
        """The first answer. Silence may be a lost message, or a leader that is dead: then it is sent again, which is
        safe, since a command's id is in the log once at most.

        What is sent again goes to one engine by its name, which the one that leads tells first. If that is silent too,
        no third is asked: perhaps the command itself is what costs each leader its place.
        """
        began = time.monotonic()
        pause_s, give_up_at = RESEND_S, began + NO_ENGINE_PATIENCE_S
        data, leader = encode_envelope(envelope), ""
        while True:
            asked.add(asyncio.create_task(self._client.request(self._subject, data, timeout=patience_s)))
            done, _ = await asyncio.wait(asked, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            asked -= done
            for task in done:
                try:
                    reply = decode_reply(task.result().data)
                except nats.errors.NoRespondersError:
                    # It reached nobody: an engine that is restarted listens within a second.
                    if time.monotonic() > give_up_at:
                        raise
                    await asyncio.sleep(NO_ENGINE_RETRY_S)
                else:
                    if not reply.leader:
                        return reply
                    leader = leader or reply.leader
            if not done and time.monotonic() - began > TAKE_OVER_S:
                pause_s = min(2 * pause_s, RESEND_S_MAX)
            data = encode_envelope(envelope, resent=True, leader=leader)
