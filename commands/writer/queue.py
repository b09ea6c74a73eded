"""What waits to be decided: bounded, so that what is admitted is answered within seconds and all else is told at once.

    submit ─► admit ─► look-ups ─► put ─► [controllers, the engine itself] ─┐ three of four
                │                         [clients]                       ──┴──► take ─► decided
                └─ full ─► Unavailable

Those who finish work go first: were they kept waiting behind clients, their work would time out and be done again, and
what it holds would be given back late, just when there is most to do. A quarter stays with the clients even then.

Within a line actors take turns, a ticket each: a thousand commands in one request, however dear, keep others waiting
for one of them. And no actor may take more than its share of the places.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from commands.model import ENGINE_ROLE
from commands.writer.batch import Ticket
from commands.writer.gateway import Actor, Envelope
from domain.errors import Unavailable

# Of one actor: two seconds at the slowest measured rate (some 1,000/s over HTTP on two shared cores; see
# docs/limits.md). Two batches of 1,000 fit, so that one is always admitted when little else of it waits.
CLIENT_COMMANDS_OF_ONE_MAX = 2_000
CLIENT_COMMANDS_MAX = 2 * CLIENT_COMMANDS_OF_ONE_MAX
# Each provisioning that a client got through is reported on at least twice. What does not fit is delivered again.
REPORT_COMMANDS_OF_ONE_MAX = 4_000
REPORT_COMMANDS_MAX = 2 * REPORT_COMMANDS_OF_ONE_MAX
OF_FOUR_FOR_REPORTS = 3


def is_of_reports(actor: Actor) -> bool:
    """Whether the actor's commands stand in the line of those who finish work."""
    return actor.role in ("controller", ENGINE_ROLE)


class Rooms(msgspec.Struct, frozen=True):
    """How many commands would be admitted: of both lines, and of the actors that have taken more than half of their
    share. Below 0 when some were put back."""

    clients: int = CLIENT_COMMANDS_MAX
    reports: int = REPORT_COMMANDS_MAX
    crowded: dict[str, int] = {}

    def of(self, actor: Actor) -> int:
        """For an actor; without a name, for whoever has least."""
        is_reports = is_of_reports(actor)
        line = self.reports if is_reports else self.clients
        least = (REPORT_COMMANDS_OF_ONE_MAX if is_reports else CLIENT_COMMANDS_OF_ONE_MAX) // 2
        if actor.name:
            return min(line, self.crowded.get(actor.name, least))
        return min(line, least, *self.crowded.values())


class _Line:
    """Tickets by actor; the first actor is the one whose turn it is. `waiting` counts them; `taken` the commands
    admitted and not decided, those in look-ups included."""

    __slots__ = ("most", "most_of_one", "put_back", "taken", "taken_by", "turns", "waiting")

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self.waiting = 0
        self.taken = 0
        self.taken_by: dict[str, int] = {}
        self.put_back: deque[Ticket] = deque()  # before all others
        self.turns: dict[str, deque[Ticket]] = {}

    def __iter__(self) -> Iterator[Ticket]:
        return chain(self.put_back, *self.turns.values())

    def take_places(self, actor: str, commands: int) -> None:
        self.taken += commands
        self.taken_by[actor] = self.taken_by.get(actor, 0) + commands

    def give_places(self, actor: str, commands: int) -> None:
        self.taken -= commands
        left = self.taken_by[actor] - commands
        if left > 0:
            self.taken_by[actor] = left
        else:
            del self.taken_by[actor]

    def room_for(self, actor: str) -> int:
        """Without a name, of whoever has least."""
        most_taken = self.taken_by.get(actor, 0) if actor else max(self.taken_by.values(), default=0)
        return min(self.most - self.taken, self.most_of_one - most_taken)

    def first(self) -> Ticket:
        return self.put_back[0] if self.put_back else next(iter(self.turns.values()))[0]

    def take(self) -> Ticket:
        self.waiting -= 1
        if self.put_back:
            ticket = self.put_back.popleft()
        else:
            actor, tickets = next(iter(self.turns.items()))
            ticket = tickets.popleft()
            del self.turns[actor]
            if tickets:
                self.turns[actor] = tickets  # behind all others
        self.give_places(ticket.context.actor.name, len(ticket.items))
        return ticket


class Queue:
    """Two lines of tickets; belongs to the engine's event loop."""

    def __init__(self) -> None:
        self._clients = _Line(most=CLIENT_COMMANDS_MAX, most_of_one=CLIENT_COMMANDS_OF_ONE_MAX)
        self._reports = _Line(most=REPORT_COMMANDS_MAX, most_of_one=REPORT_COMMANDS_OF_ONE_MAX)
        self._reports_in_turn = 0

    def __bool__(self) -> bool:
        return self._clients.waiting > 0 or self._reports.waiting > 0

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._reports
        yield from self._clients

    def room_for(self, actor: Actor) -> int:
        """How many commands of the actor would be admitted now; without a name, of whoever has least room."""
        return self._line(actor).room_for(actor.name)

    @property
    def rooms(self) -> Rooms:
        crowded = {
            actor: line.most_of_one - taken
            for line in (self._clients, self._reports)
            for actor, taken in line.taken_by.items()
            if taken > line.most_of_one // 2
        }
        return Rooms(self._clients.most - self._clients.taken, self._reports.most - self._reports.taken, crowded)

    def admit(self, envelope: Envelope) -> None:
        """Take places for its commands; `put` or `let_go` comes next.

        Raises:
            Unavailable: there are not that many, so nothing was handed in.
        """
        line, actor = self._line(envelope.actor), envelope.actor.name
        if line.room_for(actor) < len(envelope.items):
            raise Unavailable()
        line.take_places(actor, len(envelope.items))

    def let_go(self, envelope: Envelope) -> None:
        """It is not put after all."""
        self._line(envelope.actor).give_places(envelope.actor.name, len(envelope.items))

    def put(self, tickets: Sequence[Ticket]) -> None:
        """The tickets of one admitted envelope."""
        for ticket in tickets:
            actor = ticket.context.actor
            line = self._line(actor)
            line.waiting += 1
            if (turn := line.turns.get(actor.name)) is not None:
                turn.append(ticket)
            else:
                line.turns[actor.name] = deque((ticket,))

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """Tickets that were taken, in front of all others, in their order; over the bound if need be."""
        for ticket in reversed(tickets):
            actor = ticket.context.actor
            line = self._line(actor)
            line.put_back.appendleft(ticket)
            line.waiting += 1
            line.take_places(actor.name, len(ticket.items))

    def first(self) -> Ticket:
        """The one whose turn it is; not empty."""
        return self._next().first()

    def take(self) -> Ticket:
        line = self._next()
        self._reports_in_turn = self._reports_in_turn + 1 if line is self._reports else 0
        return line.take()

    def take_all(self) -> list[Ticket]:
        tickets = list(self)
        for ticket in tickets:
            self._line(ticket.context.actor).give_places(ticket.context.actor.name, len(ticket.items))
        for line in (self._reports, self._clients):
            line.put_back.clear()
            line.turns.clear()
            line.waiting = 0
        return tickets

    def _next(self) -> _Line:
        if not self._reports.waiting:
            return self._clients
        is_clients_turn = self._reports_in_turn >= OF_FOUR_FOR_REPORTS and self._clients.waiting
        return self._clients if is_clients_turn else self._reports

    def _line(self, actor: Actor) -> _Line:
        return self._reports if is_of_reports(actor) else self._clients
