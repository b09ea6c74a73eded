"""Commands over NATS, the engine's side: each engine of a cell hears every command, and the one that leads answers."""

import uuid

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from messaging import subjects
from messaging.request_reply import serve
from messaging.wire import NOT_UNDERSTOOD, UNAVAILABLE, Answers, EngineGateway, WireReply, decode_envelope

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


async def serve_commands(client: Client, cell: str, engine: EngineGateway) -> None:
    """Answer commands of a cell from now on, whenever the engine leads."""
    answers = Answers(engine)
    name = uuid.uuid4().hex

    async def answer(message: Msg) -> bytes | None:
        if not engine.is_leading:
            return None
        try:
            envelope = decode_envelope(message.data)
        except NOT_UNDERSTOOD as error:
            log.error("command not understood", error=str(error))
            return UNAVAILABLE
        id = envelope.items[0].id
        if envelope.resent and id not in answers and envelope.leader != name:
            if not envelope.leader:
                return _encode(WireReply(leader=name))
            log.warning("command not taken over", command=id, reason="two leaders received it and did not answer")
            return _encode(WireReply(unavailable=True, command=id))
        return await answers.once(envelope)

    await serve(client, subjects.of_commands(cell), answer)
