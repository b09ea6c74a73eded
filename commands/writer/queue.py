"""What waits to be decided: bounded, so that what is admitted is answered within seconds and all else is told at once.

    submit ─► admit ─► look-ups ─► put ─► [controllers, the engine itself] ─┐ three of four
                │                         [clients]                       ──┴──► take ─► decided
                └─ full ─► Unavailable

Those who finish work go first: were they kept waiting behind clients, their work would time out and be done again, and
what it holds would be given back late, just when there is most to do. A quarter stays with the clients even then.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from commands.catalogue import ENGINE_ROLE
from commands.writer.batch import Ticket
from commands.writer.gateway import Actor, Envelope
from domain.errors import Unavailable

# Two seconds at the slowest measured rate (some 1,000/s over HTTP on two shared cores; see docs/limits.md). Two batches
# of 1,000 fit, so that one is always admitted when little else waits.
CLIENT_COMMANDS_MAX = 2_000
# Each provisioning that a client got through is reported on at least twice. What does not fit is delivered again.
REPORT_COMMANDS_MAX = 4_000
OF_FOUR_FOR_REPORTS = 3


def is_of_reports(actor: Actor) -> bool:
    """Whether the actor's commands stand in the line of those who finish work."""
    return actor.role in ("controller", ENGINE_ROLE)


class _Line:
    """Tickets in their order. `taken` counts the commands admitted and not decided, those in look-ups included."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.tickets: deque[Ticket] = deque()


class Queue:
    """Two lines of tickets; belongs to the engine's event loop."""

    def __init__(self) -> None:
        self._clients = _Line(CLIENT_COMMANDS_MAX)
        self._reports = _Line(REPORT_COMMANDS_MAX)
        self._reports_in_turn = 0

    def __bool__(self) -> bool:
        return bool(self._clients.tickets or self._reports.tickets)

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._reports.tickets
        yield from self._clients.tickets

    def room_for(self, actor: Actor) -> int:
        """How many commands of the actor would be admitted now; below 0 when some were put back."""
        line = self._line(actor)
        return line.most - line.taken

    def admit(self, envelope: Envelope) -> None:
        """Take places for its commands; `put` or `let_go` comes next.

        Raises:
            Unavailable: there are not that many, so nothing was handed in.
        """
        line = self._line(envelope.actor)
        if line.taken + len(envelope.items) > line.most:
            raise Unavailable()
        line.taken += len(envelope.items)

    def let_go(self, envelope: Envelope) -> None:
        """It is not put after all."""
        self._line(envelope.actor).taken -= len(envelope.items)

    def put(self, tickets: Sequence[Ticket]) -> None:
        """The tickets of one admitted envelope."""
        for ticket in tickets:
            self._line(ticket.context.actor).tickets.append(ticket)

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """Tickets that were taken, in front of all others, in their order; over the bound if need be."""
        for ticket in reversed(tickets):
            line = self._line(ticket.context.actor)
            line.tickets.appendleft(ticket)
            line.taken += len(ticket.items)

    def first(self) -> Ticket:
        """The one whose turn it is; not empty."""
        return self._next().tickets[0]

    def take(self) -> Ticket:
        line = self._next()
        self._reports_in_turn = self._reports_in_turn + 1 if line is self._reports else 0
        ticket = line.tickets.popleft()
        line.taken -= len(ticket.items)
        return ticket

    def take_all(self) -> list[Ticket]:
        tickets = list(self)
        for line in (self._reports, self._clients):
            line.taken -= sum(len(ticket.items) for ticket in line.tickets)
            line.tickets.clear()
        return tickets

    def _next(self) -> _Line:
        if not self._reports.tickets:
            return self._clients
        is_clients_turn = self._reports_in_turn >= OF_FOUR_FOR_REPORTS and self._clients.tickets
        return self._clients if is_clients_turn else self._reports

    def _line(self, actor: Actor) -> _Line:
        return self._reports if is_of_reports(actor) else self._clients
