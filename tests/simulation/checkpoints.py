"""The table of checkpoints of the simulated PostgreSQL. What is in a checkpoint goes through the real bytes."""

from typing import Any

import psycopg

from domain.fleet import Fleet
from domain.kind import Kind
from domain.kinds import KINDS
from eventlog.checkpoints import Head, Of, Snapshot, chosen, entries_of, fill, parts
from tests.simulation.connections import LATENCY_S
from tests.simulation.postgres import Server


class Checkpoints:
    """Stands for the functions of `eventlog.checkpoints` that speak with the database."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stored: dict[int, tuple[Head, dict[str, list[bytes]]]] = {}

    def kept(self, conninfo: str) -> list[Head]:
        self._ask()
        return [head for head, _ in self._stored.values()]

    def restore(self, conninfo: str, fleet: Fleet, *, until: int | None = None, only: Kind[Any] | None = None) -> bool:
        self._ask()
        position = max((at for at in self._stored if until is None or at <= until), default=None)
        if position is None:
            return False
        head, data = self._stored[position]
        living = {
            kind.name: {stream: entry for part in data[kind.name] for stream, entry in entries_of(kind.state, part)}
            for kind in ([only] if only is not None else KINDS)
        }
        self._ask()
        fill(fleet, Snapshot(head.log, head.position, head.at, living))
        return True

    def write(self, conninfo: str, taken: Snapshot) -> None:
        self._ask()
        data = {kind.name: list(parts(kind.state, taken.living[kind.name])) for kind in KINDS}
        held = {name: Of(len(taken.living[name]), len(of_kind)) for name, of_kind in data.items()}
        head = Head(taken.log, taken.position, taken.at, held)
        self._ask()
        self._stored[taken.position] = head, data
        stay = chosen(list(self._stored))
        self._stored = {at: self._stored[at] for at in sorted(stay)}

    def _ask(self) -> None:
        server = self._server
        server.loop.block(LATENCY_S * server.chance.uniform(0.2, 4.0))
        if not server.is_up or server.faults.happens("read fails"):
            raise psycopg.OperationalError("server closed the connection unexpectedly")
