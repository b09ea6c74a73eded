"""What a repeat is told that the fleet no longer holds: the last state of what is gone, how an operation ended."""

import asyncio

import msgspec
import structlog

from commands.writer.batch import end_of
from commands.writer.deciding import Decider, unseen
from commands.writer.gateway import Actor, Answer
from commands.writer.lookups import FAILURES
from commands.writer.waiting import ended
from domain.entry import Entry, last_entry
from domain.errors import Unavailable
from domain.operation import KIND as OPERATION
from eventlog.codec import decode
from eventlog.read import LogReader

log = structlog.get_logger()


class Repeats:
    """Completes the answers of repeats from the log."""

    def __init__(self, reader: LogReader, decider: Decider) -> None:
        self._reader = reader
        self._decider = decider

    async def complete(self, answer: Answer, *, actor: Actor, wait_s: float) -> Answer:
        """The answer with the last state of its resource, and with the end of its operation: told as such to who waits,
        while nobody is told that a creation which failed has made something. Without either for who may not see it any
        more, and without the resource if that is gone and its name was used again.

        Raises:
            Unavailable: the log could not be read.
        """
        if not answer.replayed or answer.problem is not None or answer.on is None:
            return answer
        try:
            if answer.resource is None:
                gone = await self._last_entry(answer.on)
                at = await asyncio.to_thread(self._reader.time_at, answer.position)
                resource, version = self._decider.view_of_life(answer.on, at=at, ended=gone)
                answer = msgspec.structs.replace(answer, resource=resource, version=version)
            if answer.status == 201 or (wait_s > 0 and answer.status != 202):
                answer = await self._with_end(answer, waits=wait_s > 0)
        except FAILURES as error:
            log.warning("repeat not completed", command=answer.command, error=str(error).strip())
            raise Unavailable(answer.command) from None
        return answer if self._decider.sees(actor, answer.on) else unseen(answer)

    async def _with_end(self, answer: Answer, *, waits: bool) -> Answer:
        id = answer.operation
        if id is None or answer.on == OPERATION.stream(id):
            return answer
        operation = await self._last_entry(OPERATION.stream(id))
        if operation is None or not operation.state.is_over:
            return answer
        if not waits:
            return answer if operation.state.state == "succeeded" else msgspec.structs.replace(answer, status=200)
        # The newest that the answer reflects: the operation's end, or what became of the resource since.
        position = await asyncio.to_thread(self._reader.command_end, max(operation.version, answer.version))
        return ended(answer, end_of(id, operation.state, answer.resource, answer.version, position))

    async def _last_entry(self, stream: str) -> Entry | None:
        return last_entry(map(decode, await asyncio.to_thread(self._reader.stream, stream)))
