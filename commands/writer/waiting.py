"""Those who wait for the end of the operation that their command started (`Prefer: wait`)."""

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from commands.writer.batch import Ticket, end_of
from commands.writer.gateway import Answer
from commands.writer.lookups import FAILURES
from domain.errors import Unavailable
from domain.fleet import Entry, Fleet
from domain.values import operation_stream
from eventlog.codec import decode
from eventlog.read import LogReader

log = structlog.get_logger()


class Waiting:
    """Tickets by the operation whose end they wait for."""

    def __init__(self) -> None:
        self._by_operation: dict[str, list[tuple[Ticket, Answer]]] = {}

    def add(self, ticket: Ticket, answer: Answer) -> None:
        """The ticket gets the end of its operation, or `answer` when its patience is over.

        If that operation has ended in a batch that is not committed yet, the release of that batch finds it here.
        """
        assert answer.operation is not None
        operation = answer.operation
        self._by_operation.setdefault(operation, []).append((ticket, answer))

        def too_late() -> None:
            left = [one for one in self._by_operation.pop(operation, ()) if one[0] is not ticket]
            if left:
                self._by_operation[operation] = left
            if not ticket.future.done():
                ticket.future.set_result([answer])

        asyncio.get_running_loop().call_later(ticket.wait_s, too_late)

    def tell(self, ends: Mapping[str, Answer]) -> None:
        """These operations have ended, and that is committed."""
        for operation, end in ends.items():
            for ticket, answer in self._by_operation.pop(operation, ()):
                if not ticket.future.done():
                    ticket.future.set_result([ended(answer, end)])

    def give_up(self) -> None:
        """The end will not be seen here: all get the answer that they would get when their patience is over."""
        waiting, self._by_operation = self._by_operation, {}
        for ticket, answer in (one for those in waiting.values() for one in those):
            if not ticket.future.done():
                ticket.future.set_result([answer])


async def told_from_the_log(answer: Answer, reader: LogReader) -> Answer:
    """A repeat whose operation has left the fleet is told from the log how that ended.

    Raises:
        Unavailable: the log could not be read.
    """
    id = answer.operation
    if not answer.replayed or id is None or answer.status == 202 or answer.problem is not None:
        return answer
    if answer.on == operation_stream(id):
        return answer
    try:
        rows = await asyncio.to_thread(reader.stream, operation_stream(id))
        # The newest that the answer reflects: the operation's end, or what became of the resource since.
        last = max([row.position for row in rows] + [answer.version])
        position = await asyncio.to_thread(reader.command_end, last)
    except FAILURES as error:
        log.warning("end of operation not read", operation=id, error=str(error).strip())
        raise Unavailable(answer.command) from None
    past = Fleet()
    entry: Entry | None = None
    for row in rows:
        entry = past.fold(decode(row))
    if entry is None or not entry.state.is_over:
        return answer
    return ended(answer, end_of(id, entry.state, answer.resource, answer.version, position))


def ended(answer: Answer, end: Answer) -> Answer:
    """The answer to a command whose operation has ended as `end` tells."""
    return msgspec.structs.replace(
        answer,
        status=end.status if end.problem is not None else 201 if answer.created else 200,
        position=end.position,
        resource=end.resource,
        version=end.version,
        problem=end.problem,
    )
