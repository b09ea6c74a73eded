"""Those who wait for the end of the operation that their command started (`Prefer: wait`)."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from commands.writer.batch import Ticket
from commands.writer.deciding import unseen
from commands.writer.gateway import Actor, Answer


class Waits(msgspec.Struct, frozen=True):
    """A ticket, its answer if nothing ends in time, and the timer that gives it."""

    ticket: Ticket
    answer: Answer
    timer: asyncio.TimerHandle


class Waiting:
    """Tickets by the operation whose end they wait for. `sees` tells whether an actor may be told of a resource now:
    while it waits, its tenant may have lost it, or its token may have been revoked."""

    def __init__(self, sees: Callable[[Actor, str | None], bool]) -> None:
        self._sees = sees
        self._by_operation: dict[str, list[Waits]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_operation.values()))

    def add(self, ticket: Ticket, answer: Answer) -> None:
        """The ticket gets the end of its operation, or `answer` when its patience is over.

        If that operation has ended in a batch that is not committed yet, the release of that batch finds it here.
        """
        assert answer.operation is not None
        timer = asyncio.get_running_loop().call_later(ticket.wait_s, self._too_late, answer.operation, ticket)
        self._by_operation.setdefault(answer.operation, []).append(Waits(ticket, answer, timer))
        # Who gives up waiting leaves nothing here, and neither does a timer whose answer has been given.
        ticket.future.add_done_callback(lambda _: timer.cancel())

    def tell(self, ends: Mapping[str, Answer]) -> None:
        """These operations have ended, and that is committed."""
        for operation, end in ends.items():
            for one in self._by_operation.pop(operation, ()):
                sees = self._sees(one.ticket.context.actor, end.on)
                _give(one, ended(one.answer, end) if sees else unseen(one.answer))

    def give_up(self) -> None:
        """The end will not be seen here: all get the answer that they would get when their patience is over."""
        waiting, self._by_operation = self._by_operation, {}
        for one in (one for those in waiting.values() for one in those):
            _give(one, one.answer)

    def _too_late(self, operation: str, ticket: Ticket) -> None:
        those = self._by_operation.pop(operation, [])
        if left := [one for one in those if one.ticket is not ticket]:
            self._by_operation[operation] = left
        for one in those:
            if one.ticket is ticket:
                _give(one, one.answer)


def _give(one: Waits, answer: Answer) -> None:
    one.timer.cancel()
    if not one.ticket.future.done():
        one.ticket.future.set_result([answer])


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
