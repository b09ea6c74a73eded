"""What waits to be decided: bounded, so that what is admitted is answered within seconds and all else is told at once.

    submit ─► admit ─► look-ups ─► put ─► [controllers, the engine itself] ─┐ three of four
                │                         [clients]                       ──┴──► take ─► decided
                └─ full ─► Unavailable

Those who finish work go first: were they kept waiting behind clients, their work would time out and be done again, and
what it holds would be given back late, just when there is most to do. A quarter stays with the clients even then.

Within a line actors take turns, and a turn is time, not a ticket: whose units are dear waits until each other who has
something to decide has had as much (start-time fair queueing, Goyal et al. 1996). So whatever one sends, another waits
for one unit of it. And no actor may take more than its share of the places.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import chain, count

import msgspec

from commands.costs import LONG_US, PLAIN_US
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
REPORTS_WEIGHT = 3  # times as much time as clients get, while both wait


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
    """Tickets by actor. `waiting` counts them; `taken` the commands admitted and not decided, those in look-ups
    included.

    An actor's turn comes when its time is the least. That is the line's own time when it comes anew, and from there on
    what was spent on it: nobody saves up turns by asking for nothing.
    """

    __slots__ = (
        "_arrivals",
        "_now_us",
        "_order",
        "_time_us",
        "most",
        "most_of_one",
        "put_back",
        "taken",
        "taken_by",
        "turns",
        "waiting",
    )

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self.waiting = 0
        self.taken = 0
        self.taken_by: dict[str, int] = {}
        self.put_back: deque[Ticket] = deque()  # before all others
        self.turns: dict[str, deque[Ticket]] = {}
        self._order: list[tuple[int, int, str]] = []  # a heap: (time, arrival, actor) of each that has a ticket
        self._arrivals = count()
        self._now_us = 0  # of the turn that was taken last
        self._time_us: dict[str, int] = {}

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

    def put(self, ticket: Ticket) -> None:
        if not self.waiting and self._time_us:
            # After a pause, who asked for little before it comes in the order of arrival.
            owing = self._now_us + LONG_US
            self._time_us = {actor: us for actor, us in self._time_us.items() if us > owing}
        self.waiting += 1
        actor = ticket.context.actor.name
        if (tickets := self.turns.get(actor)) is not None:
            tickets.append(ticket)
        else:
            self.turns[actor] = deque((ticket,))
            heappush(self._order, (self._time_of(actor), next(self._arrivals), actor))

    def first(self) -> Ticket:
        return self.put_back[0] if self.put_back else self.turns[self._whose_turn()][0]

    def take(self) -> Ticket:
        self.waiting -= 1
        if self.put_back:
            ticket = self.put_back.popleft()
        else:
            actor = self._whose_turn()
            self._now_us = self._order[0][0]
            self.charge(actor, PLAIN_US)
            tickets = self.turns[actor]
            ticket = tickets.popleft()
            if tickets:
                heapreplace(self._order, (self._time_of(actor), next(self._arrivals), actor))
            else:
                heappop(self._order)
                del self.turns[actor]
        self.give_places(ticket.context.actor.name, len(ticket.items))
        return ticket

    def charge(self, actor: str, us: int) -> None:
        """So much was spent on it."""
        self._time_us[actor] = self._time_of(actor) + us

    def clear(self) -> None:
        self.put_back.clear()
        self.turns.clear()
        self._order.clear()
        self._time_us.clear()
        self.waiting = 0

    def _time_of(self, actor: str) -> int:
        return max(self._now_us, self._time_us.get(actor, 0))

    def _whose_turn(self) -> str:
        """The actor with the least time; what was charged since it was put in order is seen here."""
        while True:
            us, _, actor = self._order[0]
            if (spent := self._time_us.get(actor, 0)) <= us:
                return actor
            heapreplace(self._order, (spent, next(self._arrivals), actor))


class Queue:
    """Two lines of tickets; belongs to the engine's event loop."""

    def __init__(self) -> None:
        self._clients = _Line(most=CLIENT_COMMANDS_MAX, most_of_one=CLIENT_COMMANDS_OF_ONE_MAX)
        self._reports = _Line(most=REPORT_COMMANDS_MAX, most_of_one=REPORT_COMMANDS_OF_ONE_MAX)
        self._owed_us = REPORTS_WEIGHT * PLAIN_US  # to reports, before it is the clients' turn

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
            self._line(ticket.context.actor).put(ticket)

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
        """Counted as a plain command, until `charge` says what it was."""
        line = self._next()
        self._note_spent(line, PLAIN_US)
        return line.take()

    def charge(self, ticket: Ticket, us: int) -> None:
        """Deciding it took so long."""
        if (more := us - PLAIN_US) > 0:
            line = self._line(ticket.context.actor)
            self._note_spent(line, more)
            line.charge(ticket.context.actor.name, more)

    def take_all(self) -> list[Ticket]:
        tickets = list(self)
        for ticket in tickets:
            self._line(ticket.context.actor).give_places(ticket.context.actor.name, len(ticket.items))
        for line in (self._reports, self._clients):
            line.clear()
        return tickets

    def _next(self) -> _Line:
        if not self._reports.waiting:
            return self._clients
        return self._clients if self._owed_us <= 0 and self._clients.waiting else self._reports

    def _note_spent(self, line: _Line, us: int) -> None:
        """Who waits for nobody saves up nothing, and owes nothing."""
        if line is self._clients:
            before = max(0, self._owed_us) if self._reports.waiting else 0
            self._owed_us = before + REPORTS_WEIGHT * us
        elif self._clients.waiting:
            self._owed_us -= us

    def _line(self, actor: Actor) -> _Line:
        return self._reports if is_of_reports(actor) else self._clients
