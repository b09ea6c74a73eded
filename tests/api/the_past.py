"""The past, asked in the test's own process: what a worker does, without its pool."""

import threading
import time
from typing import Any

import msgspec

from domain.errors import Unavailable
from eventlog.read import LogReader
from messaging.past import OfResource, OfVerification, Question
from workers.past.questions import Questions


def answer_of(questions: Questions, question: Question) -> dict[str, Any]:
    """Raises Unavailable: there is none."""
    questions.ask(question)
    while question.id in questions.open:
        time.sleep(questions.due_in_s or 0.0)
        for found in questions.step():
            if found.id == question.id and found.answer is not None:
                answer: dict[str, Any] = msgspec.json.decode(found.answer)
                return answer
    raise Unavailable(None)


class Past:
    """As the API asks it, of any thread."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self.questions = Questions(conninfo, reader)
        self._lock = threading.Lock()

    def answer(self, question: Question) -> dict[str, Any]:
        with self._lock:
            return answer_of(self.questions, question)

    def resource(self, stream: str, as_of: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.answer(OfResource(stream=stream, as_of=as_of))["resource"]
        return found

    def verify(self, *, full: bool = False) -> dict[str, Any]:
        return self.answer(OfVerification(full=full))
