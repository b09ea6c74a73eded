"""The process of a worker: it reads questions from its pool and writes the answers, on the socket that is its stdin.

It ends with the pool, whatever ends that: there is nobody left to answer.
"""

import os
import select
import socket

import msgspec

from eventlog.read import LogReader
from workers.past.frames import Frames, FromWorker, ToWorker, frame
from workers.past.questions import Questions
from workers.settings import Settings

RECEIVED_BYTES_MAX = 1 << 16
NOTHING = msgspec.Raw(b"null")

_decode = msgspec.json.Decoder(ToWorker).decode


def run(settings: Settings) -> int:
    with socket.socket(fileno=os.dup(0)) as pool:
        work(settings.conninfo(), pool)
    return 0


def work(conninfo: str, pool: socket.socket) -> None:
    """Until the pool closes its end."""
    reader = LogReader(conninfo)
    questions, frames = Questions(conninfo, reader), Frames()
    try:
        pool.sendall(frame(FromWorker("", False, NOTHING, questions.folds)))
        while True:
            if select.select([pool], [], [], questions.due_in_s)[0]:
                received = pool.recv(RECEIVED_BYTES_MAX)
                if not received:
                    return
                for data in frames.of(received):
                    message = _decode(data)
                    if message.question is not None:
                        questions.ask(message.question)
                    if message.give_up is not None:
                        questions.give_up(message.give_up)
            for id, answer in questions.step():
                found = msgspec.Raw(answer) if answer is not None else NOTHING
                pool.sendall(frame(FromWorker(id, answer is not None, found, questions.folds)))
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        reader.close()
