"""Those who wait for the end of the operation that their command started (`Prefer: wait`)."""

import asyncio
from collections.abc import Mapping

import msgspec

from commands.writer.batch import Ticket
from commands.writer.gateway import Answer


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
