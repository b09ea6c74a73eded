"""What must hold, checked by a fold of the log that is nobody else's, at each commit and at each answer; and what must
come true once the faults are over."""

from collections.abc import Sequence
from typing import Any

import msgspec

from commands.writer.gateway import Answer, Envelope
from domain.command import CommandAccepted, CommandRejected
from domain.entry import Entry
from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import HostClaimed
from domain.invariants import violations
from domain.kinds import ENDS
from domain.operation import Operation
from domain.quota import QuotaConsumed
from domain.recorded import LeaderTookOver, LogOpened, Recorded
from domain.values import usable
from domain.vm import Vm
from eventlog.codec import Row, decode
from projections import rows as projected
from projections.broken import Broken
from projections.resources import resource
from projections.sums import Sums
from tests.simulation.controllers import Machines

STALE = "stale"  # the message of reports that must never be accepted
TAKE_OVERS_MAX = 400  # where a batch is one command, each may have settled one that stood already
GROWTH = ("vm.provision", "vm.resize")
Receipt = tuple[int, CommandAccepted | CommandRejected, bytes]

_encode = msgspec.json.Encoder().encode


class LogWatch:
    """Told of every row that is committed. `broken` are the laws that were broken, in the order of finding."""

    def __init__(self, machines: Machines) -> None:
        self.fleet = Fleet()
        self.broken: list[str] = []
        self.receipts: dict[str, Receipt] = {}
        self.command_ends = {0}
        self.commands = 0
        self.ended_operations: dict[str, tuple[int, Entry]] = {}
        self.last_rows: dict[str, Entry] = {}  # of operations, which keep their row when they end
        self.take_overs = 0
        self._in_a_row = 0
        self._machines = machines
        self._writer: object = None
        self._keys: set[str] = set()
        self._ended: dict[str, Entry] = {}
        self._unit: list[Recorded] = []
        self._unsettled: list[str] = []  # operations that ended in the unit under way

    def appended(self, rows: Sequence[Row], *, writer: object) -> None:
        before = self.fleet.at
        if writer is not self._writer and rows[0].topic not in ("log.opened", "leader.took_over"):
            self.broken.append(f"{writer} writes at {rows[0].position}, and has not taken over from {self._writer}")
        self._writer = writer
        for row in rows:
            if row.position != self.fleet.position + 1:
                self.broken.append(f"position {row.position} follows {self.fleet.position}")
                return
            recorded = decode(row)
            if recorded.at <= before:
                self.broken.append(f"time of {row.position} is not later than that of the append before it")
            if self._unit and recorded.at != self._unit[0].at:
                self._end_unit()
            self._fold(recorded)
            self._unit.append(recorded)
        self._end_unit()

    def projected(self, position: int) -> None:
        if position not in self.command_ends:
            self.broken.append(f"a read model stands at {position}, which is within a command")

    def _fold(self, recorded: Recorded) -> None:
        entry = self.fleet.fold(recorded)
        event, stream = recorded.event, recorded.stream
        if entry is not None and stream.startswith("operation/"):
            self.last_rows[stream] = entry
        if entry is not None and type(event) in ENDS:
            self._ended[stream] = entry
            if stream.startswith("operation/"):
                self._unsettled.append(stream[10:])
        # Nothing is given back before it is known to be gone.
        is_free = entry is not None and isinstance(entry.state, Vm) and not entry.state.claims
        if entry is not None and is_free and (complaint := self._machines.freed(entry.state.uid)):
            self.broken.append(f"at {recorded.position}: {complaint}")
        if isinstance(event, CommandAccepted | CommandRejected):
            self._note_receipt(recorded)

    def _note_receipt(self, recorded: Recorded) -> None:
        event, position = recorded.event, recorded.position
        self.commands += 1
        self._in_a_row = 0
        if event.id in self.receipts:
            self.broken.append(f"command {event.id} stands twice, at {self.receipts[event.id][0]} and {position}")
        if recorded.stream in self._keys:
            self.broken.append(f"{recorded.stream} stands twice, again at {position}")
        self._keys.add(recorded.stream)
        own = [one.position for one in self._unit if one.command == event.id]
        told = event.positions if isinstance(event, CommandAccepted) else []
        if own != told:
            self.broken.append(f"command at {position} says it caused {told}, but {own} stand")
        if isinstance(event, CommandAccepted):
            if event.command == "operation.report" and event.request.get("message") == STALE:
                self.broken.append(f"at {position}: a report of what is not asked was accepted: {event.request}")
            if event.command in GROWTH:
                self._check_growth([one for one in self._unit if one.command == event.id])
        on = event.resource
        if isinstance(event, CommandRejected) and event.problem["code"] == "not_found" and on in self.last_rows:
            self.broken.append(f"at {position}: {on} is said not to be there, but it was")
        shown = resource(self.fleet, on, self._ended.get(on)) if on is not None else None
        self.receipts[event.id] = (position, event, _encode(shown))

    def _check_growth(self, events: list[Recorded]) -> None:
        """A grant takes neither a host nor a quota beyond its limit."""
        for recorded in events:
            entry, limits = self.fleet.entry(recorded.stream), {}
            if entry is None:
                continue
            if isinstance(recorded.event, HostClaimed):
                group = self.fleet.get(GROUP, entry.state.group)
                limits = usable(entry.state.capacity, group.overcommit if group is not None else {})
            elif isinstance(recorded.event, QuotaConsumed):
                limits = entry.state.limits
            else:
                continue
            for name in recorded.event.resources:
                if entry.state.used.get(name, 0) > limits.get(name, 2**62):
                    self.broken.append(f"at {recorded.position}: {recorded.stream} is granted beyond its limit")

    def _end_unit(self) -> None:
        last = self._unit[-1]
        if isinstance(last.event, LeaderTookOver):
            self.take_overs += 1
            self._in_a_row += 1
            if self._in_a_row > TAKE_OVERS_MAX:
                self.broken.append(f"{self._in_a_row} take-overs in a row, and no command decided")
        elif not isinstance(last.event, CommandAccepted | CommandRejected | LogOpened):
            self.broken.append(f"a command's events end with {last.event} at {last.position}")
        self.broken += [f"at {last.position}: {violation}" for violation in violations(self.fleet)]
        self.command_ends.add(last.position)
        for id in self._unsettled:
            self.ended_operations[id] = (last.position, self._ended["operation/" + id])
        self._unsettled = []
        self._unit = []
        self._ended = {}


class AnswerWatch:
    """Told of every answer that reaches a client. What it speaks of must be committed by then, and be so."""

    def __init__(self, log: LogWatch) -> None:
        self._log = log
        self._of_key: dict[tuple[str, str], str] = {}
        self._never: set[str] = set()
        self.is_deaf = False
        self.answered = 0
        self.repeated = 0

    def answers(self, envelope: Envelope, answers: list[Answer]) -> None:
        if self.is_deaf:
            return
        broken = self._log.broken
        if len(answers) != len(envelope.items):
            broken.append(f"{len(envelope.items)} commands got {len(answers)} answers")
        refused = [answer for answer in answers if answer.problem is not None and answer.status != 424]
        if envelope.atomic and refused and len(refused) != len(answers):
            broken.append(f"an atomic batch is done in part: {answers}")
        for item, answer in zip(envelope.items, answers, strict=True):
            self.answered += 1
            self.repeated += answer.replayed
            if complaint := self._complaint(envelope, item.id, item.key, answer):
                broken.append(f"answer to {item.command.kind} {item.id}: {complaint}; {answer}")

    def at_the_end(self) -> None:
        for id in self._never & self._log.receipts.keys():
            self._log.broken.append(f"command {id} stands, though nothing was to be recorded")

    def _complaint(self, envelope: Envelope, id: str, key: str, answer: Answer) -> str | None:
        code = answer.problem["code"] if answer.problem is not None else None
        if code == "unavailable":
            return None
        if envelope.dry_run or (answer.position == 0 and code != "idempotency_mismatch"):
            if answer.command == id:
                self._never.add(id)
            return None
        receipt = self._log.receipts.get(answer.command)
        if receipt is None:
            return "it is not in the log"
        if code == "idempotency_mismatch":
            return None
        position, event, shown = receipt
        if self._of_key.setdefault((envelope.actor.name, key), answer.command) != answer.command:
            return "the key was another command's"
        if answer.command != id and not answer.replayed:
            return "it is another command's, and no repeat"
        if isinstance(event, CommandRejected):
            return None if (code, answer.position) == (event.problem["code"], position) else f"recorded is {event}"
        if code is not None and code != "operation_failed":
            return "it was accepted"
        if answer.position == position and code is None:
            if not answer.replayed and _encode(answer.resource) != shown:
                return f"the resource was {shown.decode()}"
            return None
        if answer.operation is None or envelope.wait_s <= 0:
            return f"it stands at {position}"
        if answer.operation not in self._log.ended_operations:
            return "its operation has not ended"
        ended_at, ended = self._log.ended_operations[answer.operation]
        state: Operation = ended.state
        if (state.state == "succeeded") != (code is None):
            return f"its operation is {state.state}"
        if answer.position < ended_at or (not answer.replayed and answer.position != ended_at):
            return f"its operation ended at {ended_at}"
        return None


def what_differs(living: dict[str, dict[str, Any]], audit: list[dict[str, Any]], log: LogWatch) -> list[str]:
    """How a read model's tables differ from the fold."""
    found: list[str] = []
    expected: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in living}
    for stream, entry in {**dict(log.fleet.entries()), **log.last_rows}.items():
        row = projected.row(stream, entry)
        expected[stream.partition("/")[0]][row["key"]] = row
    expected["sums"] = {row["key"]: row for row in Sums.of(log.fleet).rows()}
    expected["broken_rules"] = {row["key"]: row for row in Broken.of(log.fleet).rows(log.fleet)}
    for kind, table in living.items():
        for key in table.keys() | expected[kind].keys():
            if table.get(key) != expected[kind].get(key):
                found.append(f"{kind} {key}: {table.get(key)}, but the fold has {expected[kind].get(key)}")
    positions = [row["position"] for row in audit]
    if positions != sorted(receipt[0] for receipt in log.receipts.values()):
        found.append(f"the audit's {len(positions)} rows are not the log's {len(log.receipts)} commands, once each")
    return found


COMPARED = (
    *("position", "at", "living", "references", "members", "outstanding", "deadlines"),
    *("racks_by_place", "hosts_by_bmc", "by_external_id", "hosts_of_class"),
)


def what_fleets_differ_in(fleet: Fleet, log: Fleet) -> list[str]:
    found = [name for name in COMPARED if getattr(fleet, name) != getattr(log, name)]
    return found + violations(fleet)
