"""What a worker is asked: a step of each question in turn, so that none keeps another waiting."""

import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.kinds import BY_NAME
from domain.values import kind_of
from eventlog.read import LogReader
from messaging.past import OfCapacity, OfClasses, OfList, OfResource, OfVerification, Question
from projections import capacity_of_fleet, lists_of_fleet
from projections.history import history
from projections.resources import resource
from projections.sums import Sums
from projections.view import Document
from workers.past.folds import Folds, Steps
from workers.past.replay import verification

IDLE_S = 60.0

log = structlog.get_logger()


class _UnderWay:
    def __init__(self, question: Question, steps: Steps[Any]) -> None:
        self.question = question
        self.steps = steps
        self.due_at = 0.0


class Answered(NamedTuple):
    """`answer` is None where there is none: the database is away, or nobody awaits it any more."""

    id: str
    answer: bytes | None


class Questions:
    """Those that one worker has under way, and the folds that it keeps for them. Call it in one thread."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self._conninfo = conninfo
        self._reader = reader
        self._folds = Folds(conninfo, reader)
        self._under_way: dict[str, _UnderWay] = {}
        self._sums: WeakKeyDictionary[Fleet, tuple[int, Sums]] = WeakKeyDictionary()
        self._free_at: float | None = None  # what is kept is freed then, if nobody asks

    @property
    def folds(self) -> list[int]:
        """The positions of those that are kept."""
        return self._folds.positions

    @property
    def open(self) -> Collection[str]:
        """The ids of those that are not answered yet."""
        return self._under_way.keys()

    def ask(self, question: Question) -> None:
        self._under_way[question.id] = _UnderWay(question, self._steps(question))

    def give_up(self, id: str) -> None:
        """Whoever asked this question has gone."""
        if (left := self._under_way.pop(id, None)) is not None:
            left.steps.close()

    @property
    def due_in_s(self) -> float | None:
        """How long until `step` has something to do; None: until somebody asks."""
        now = time.monotonic()
        if self._under_way:
            return max(0.0, min(one.due_at for one in self._under_way.values()) - now)
        return max(0.0, self._free_at - now) if self._free_at is not None else None

    def step(self) -> Iterator[Answered]:
        """A step of each that is due; what is answered by it."""
        for id, one in list(self._under_way.items()):
            if id in self._under_way and one.due_at <= time.monotonic():
                try:
                    if time.time() > one.question.ends_at:
                        raise Unavailable(None)
                    one.due_at = time.monotonic() + next(one.steps)
                    continue
                except StopIteration as done:
                    answer = msgspec.json.encode(done.value)
                except (Unavailable, psycopg.Error, PersistenceError) as error:
                    log.warning("question about the past not answered", error=str(error).strip())
                    answer = None
                except Exception:
                    # A bug of ours: whoever asked need not wait until its patience is over.
                    log.exception("question about the past not answered")
                    answer = None
                self.give_up(id)
                self._free_at = time.monotonic() + IDLE_S
                yield Answered(id, answer)
        if not self._under_way and self._free_at is not None and self._free_at <= time.monotonic():
            self._free_at = None if self._folds.free() else time.monotonic() + IDLE_S

    def _steps(self, question: Question) -> Steps[Any]:
        match question:
            case OfVerification():
                return (yield from verification(self._conninfo, self._reader, full=question.full))
            case OfResource() if kind_of(question.stream) == "operation":
                return {"resource": self._operation(question.stream, question.as_of), "position": question.as_of}
        fleet = yield from self._folds.at(question.as_of)
        match question:
            case OfResource():
                return {"resource": _resource(fleet, question.stream), "position": question.as_of}
            case OfList():
                return lists_of_fleet.portion(fleet, question.query)
            case OfCapacity():
                return capacity_of_fleet.portion(fleet, self._sums_of(fleet), question.query)
            case OfClasses():
                return capacity_of_fleet.classes(fleet, question.scope)

    def _operation(self, stream: str, position: int) -> Document | None:
        """One that is over has left the fleet; its own stream says all of it."""
        changes = history(row for row in self._reader.stream(stream) if row.position <= position)
        return changes[-1]["after"] if changes else None

    def _sums_of(self, fleet: Fleet) -> Sums:
        """Made once for as long as the fleet stands where it does."""
        position, sums = self._sums.get(fleet, (None, None))
        if sums is None or position != fleet.position:
            sums = Sums.of(fleet)
            self._sums[fleet] = fleet.position, sums
        return sums


def _resource(fleet: Fleet, stream: str) -> Document | None:
    """As it was shown at a command's end. What has ended and never leaves the fleet, as a revoked token, is shown no
    more."""
    found = resource(fleet, stream)
    return None if found is not None and found["state"] in BY_NAME[kind_of(stream)].ended else found
