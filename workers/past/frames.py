"""Messages on a socket between a pool and its workers: each a length and so many bytes of JSON."""

import struct
from collections.abc import Iterator

import msgspec

from messaging.past import Question

LENGTH = struct.Struct(">I")


class ToWorker(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question, or the id of one that nobody awaits any more."""

    question: Question | None = None
    give_up: str | None = None


class FromWorker(msgspec.Struct, frozen=True):
    """That there is an answer to the question `id`, and which, or that there is none. `folds` are the positions of what
    the worker keeps. The first one of each worker answers nothing, and says that it is ready."""

    id: str
    is_answered: bool
    answer: msgspec.Raw
    folds: list[int]


def frame(message: ToWorker | FromWorker) -> bytes:
    data = msgspec.json.encode(message)
    return LENGTH.pack(len(data)) + data


class Frames:
    """The whole frames in a stream of bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def of(self, more: bytes) -> Iterator[bytes]:
        rest = self._rest
        rest += more
        while len(rest) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(rest)
            end = LENGTH.size + length
            if len(rest) < end:
                return
            found = bytes(rest[LENGTH.size : end])
            del rest[:end]
            yield found
