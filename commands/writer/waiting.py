"""Those who wait for the end of the operation that their command started (`Prefer: wait`)."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from commands.writer.batch import Ticket
from commands.writer.deciding import unseen
from commands.writer.gateway import Actor, Answer


class Waits(msgspec.Struct, frozen=True, eq=False):
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
        operation = answer.operation
        timer = asyncio.get_running_loop().call_later(ticket.wait_s, _give, ticket, answer)
        one = Waits(ticket, answer, timer)
        self._by_operation.setdefault(operation, []).append(one)
        # However it ends, nothing of it stays: neither the timer of who was told, nor the place of who went away.
        ticket.future.add_done_callback(lambda _: self._drop(operation, one))

    def tell(self, ends: Mapping[str, Answer]) -> None:
        """These operations have ended, and that is committed."""
        for operation, end in ends.items():
            for one in self._by_operation.pop(operation, ()):
                sees = self._sees(one.ticket.context.actor, end.on)
                _give(one.ticket, ended(one.answer, end) if sees else unseen(one.answer))

    def give_up(self) -> None:
        """The end will not be seen here: all get the answer that they would get when their patience is over."""
        waiting, self._by_operation = self._by_operation, {}
        for one in (one for those in waiting.values() for one in those):
            _give(one.ticket, one.answer)

    def _drop(self, operation: str, one: Waits) -> None:
        one.timer.cancel()
        those = self._by_operation.get(operation, [])
        if one in those:
            those.remove(one)
            if not those:
                del self._by_operation[operation]


def _give(ticket: Ticket, answer: Answer) -> None:
    if not ticket.future.done():
        ticket.future.set_result([answer])


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
