"""The past, asked in the test's own process: what a worker does, without its pool."""

import threading
import time
from typing import Any

import msgspec

from domain.errors import Unavailable
from eventlog.read import LogReader
from messaging.past import OfCapacity, OfClasses, OfList, OfResource, OfVerification, Question
from projections.listing import Portion, ScopeThen
from workers.past.questions import Questions


def answer_of(questions: Questions, question: Question, *, type: Any = Any) -> Any:
    """Raises Unavailable: there is none."""
    questions.ask(question)
    while question.id in questions.open:
        time.sleep(questions.due_in_s or 0.0)
        for found in questions.step():
            if found.id == question.id and found.answer is not None:
                return msgspec.json.decode(found.answer, type=type)
    raise Unavailable(None)


class Past:
    """As the API asks it, of any thread."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self.questions = Questions(conninfo, reader)
        self._lock = threading.Lock()

    def answer(self, question: Question, *, type: Any = Any) -> Any:
        with self._lock:
            return answer_of(self.questions, question, type=type)

    def portion(self, question: OfList | OfCapacity) -> Portion:
        found: Portion = self.answer(question, type=Portion)
        return found

    def classes(self, scope: ScopeThen | None, as_of: int) -> list[str]:
        found: list[str] = self.answer(OfClasses(scope=scope, as_of=as_of))
        return found

    def resource(self, stream: str, as_of: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.answer(OfResource(stream=stream, as_of=as_of))["resource"]
        return found

    def verify(self, *, full: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = self.answer(OfVerification(full=full))
        return found
