"""Deciding without servers: a fleet, the real handlers, and the words given / when / then for tests."""

import time
from typing import Any

from commands.catalogue import COMMANDS
from commands.operations import ReportOperation
from commands.writer import ids
from commands.writer.batch import Batch, Ticket
from commands.writer.deciding import CommandContext, Decider
from commands.writer.engine import Engine
from commands.writer.gateway import Actor, Answer, Envelope, Item
from commands.writer.keys import batch_key
from commands.writer.receipts import KnownRows
from domain.entry import Entry
from domain.fleet import Fleet
from domain.invariants import violations
from domain.operation import KIND as OPERATION
from domain.recorded import LogOpened, Recorded
from domain.token import KIND as TOKEN
from domain.token import TokenCreated
from eventlog.codec import Row, decode, encode

ADMIN = Actor("ann", "admin")
ENGINE = Actor("berth", "engine", origin="engine")
VM_CONTROLLER = Actor("vm", "controller", origin="controller")
START_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000


async def make_token(engine: Engine, actor: Actor) -> None:
    """The actor's token, if there is none yet: as the engine makes the first administrator's."""
    if engine.fleet.get(TOKEN, actor.name) is None:
        body = {"name": actor.name, "hash": ids.uuid7()}
        item = Site.item("token.install", body)
        (answer,) = await engine.submit(Envelope(ENGINE, (item,), time.time() + 30.0))
        assert answer.problem is None, answer.problem


class Site:
    """A fleet on which commands are decided, one at a time; the invariants are checked after each."""

    def __init__(self, *, step_timeout_s: int = 600) -> None:
        self.fleet = Fleet()
        self.now = START_US
        self.rows: list[Row] = []
        self.progress: list[ReportOperation] = []  # what was kept beside the log
        self.decider = Decider(
            self.fleet,
            resource=_state_as_json,
            step_timeout_s=step_timeout_s,
            controllers=("vm", "rackd"),
            report_progress=self.progress.append,
            clock=lambda: self.now,
        )
        opened = Recorded("log", 1, 1, self.now, "berth", ids.uuid7(), LogOpened("test"))
        self.fleet.fold(opened)
        self.rows.append(encode(opened))

    def when(
        self,
        kind: str,
        *,
        actor: Actor = ADMIN,
        key: str | None = None,
        fingerprint: str = "",
        if_match: int | None = None,
        reason: str | None = None,
        dry_run: bool = False,
        known: KnownRows | None = None,
        **body: Any,
    ) -> Answer:
        """Decide one command and check that every account is still right. `known`: what a look-up found in the log."""
        item = self.item(kind, body, key=key, fingerprint=fingerprint, if_match=if_match)
        (answer,) = self.decide([item], actor=actor, reason=reason, dry_run=dry_run, known=known)
        return answer

    @staticmethod
    def item(
        kind: str, body: dict[str, Any], *, key: str | None = None, fingerprint: str = "", if_match: int | None = None
    ) -> Item:
        """With a key that a client gave there is a fingerprint, as of the API; a report's is made up."""
        command = COMMANDS[kind].model_validate(body)
        id = ids.uuid7()
        fingerprint = fingerprint or ("same" if key and kind != "operation.report" else "")
        return Item(id, command, body, key or id, fingerprint, if_match)

    def decide(
        self,
        items: list[Item],
        *,
        actor: Actor = ADMIN,
        reason: str | None = None,
        batch: str | None = None,
        dry_run: bool = False,
        known: KnownRows | None = None,
    ) -> list[Answer]:
        """All of them, as one unit."""
        self.knows(actor)
        decided = Batch(self.decider)
        context = CommandContext(actor, reason, batch, dry_run)
        keyed = batch_key(actor.name, items, batch) if batch and items[0].fingerprint else None
        # Nobody waits: what would be told to them is read here.
        decided.decide(Ticket(tuple(items), context, 0.0, 0.0, None, known or {}, keyed))  # type: ignore[arg-type]
        if keyed is not None:
            self.decider.keys.let_go(keyed)
        self.rows += decided.rows
        assert violations(self.fleet) == []
        ((_, answers),) = decided.answered
        return answers

    def knows(self, actor: Actor) -> None:
        """The actor of a token that was not made yet gets it: with its role, within its tenant."""
        if actor.origin != "token" or self.fleet.get(TOKEN, actor.name) is not None:
            return
        position = self.fleet.position + 1
        made = TokenCreated(ids.uuid7(), actor.name, actor.role, ids.uuid7(), actor.tenant)
        stream, at = TOKEN.stream(actor.name), self.decider.next_at()
        recorded = Recorded(stream, position, position, at, "berth", ids.uuid7(), made)
        self.fleet.fold(recorded)
        self.rows.append(encode(recorded))

    def given(self, kind: str, **body: Any) -> Answer:
        """As `when`, of what must succeed for the test to make sense."""
        answer = self.when(kind, **body)
        assert answer.problem is None, answer.problem
        return answer

    def refused(self, code: str, kind: str, **body: Any) -> dict[str, Any]:
        """The problem with which a command is refused."""
        answer = self.when(kind, **body)
        assert answer.problem is not None, f"{kind} was accepted"
        assert answer.problem["code"] == code, answer.problem
        return answer.problem

    def report(self, operation: str | None, outcome: str, *, attempt: int = 1, **body: Any) -> Answer:
        """What the controller of the operation's current step reports."""
        assert operation is not None
        found = self.fleet.get(OPERATION, operation)
        assert found is not None and found.current is not None
        step = body.pop("step", found.current.name)
        return self.when(
            "operation.report",
            actor=VM_CONTROLLER,
            operation=operation,
            step=step,
            attempt=attempt,
            outcome=outcome,
            **body,
        )

    def finish(self, answer: Answer) -> Answer:
        """The controller begins and completes the work of the operation that `answer` started."""
        assert answer.problem is None, answer.problem
        self.report(answer.operation, "started")
        return self.report(answer.operation, "succeeded")

    def settle(self, operation: str | None, verdict: str, *, reason: str = "looked at the hypervisor") -> Answer:
        """A person says what is so."""
        return self.given("operation.settle", operation=operation, reason=reason, **{"as": verdict})

    def topics(self, answer: Answer) -> list[str]:
        """The topics of the events of the command that was answered so, in order."""
        at = next(decode(row).at for row in self.rows if row.position == answer.position)
        return [row.topic for row in self.rows if decode(row).at == at]

    def replayed(self) -> Fleet:
        """The fleet that the recorded rows fold to."""
        fleet = Fleet()
        for row in self.rows:
            fleet.fold(decode(row))
        return fleet


def a_site(*, hosts: int = 2, cpu: int = 8, memory_mib: int = 16_384, quota: dict[str, int] | None = None) -> Site:
    """Tenants acme > payments with quota in group std, whose hosts h0, h1, … stand in rack r1."""
    site = Site()
    site.given("tenant.create", name="acme")
    site.given("tenant.create", name="payments", parent="acme")
    site.given("rack.create", name="r1", region="north", dc="dc1")
    site.given("group.create", name="std")
    for n in range(hosts):
        site.given(
            "host.register", name=f"h{n}", group="std", rack="r1", capacity={"cpu": cpu, "memory_mib": memory_mib}
        )
    for tenant in ("acme", "payments"):
        site.given("quota.set", group="std", tenant=tenant, limits=quota or {"cpu": 1000})
    return site


def a_vm(name: str = "web-1", *, cpu: int = 4, memory_mib: int = 1024, **more: Any) -> dict[str, Any]:
    return {
        "tenant": "payments",
        "name": name,
        "group": "std",
        "resources": {"cpu": cpu, "memory_mib": memory_mib},
        **more,
    }


def _state_as_json(fleet: Fleet, stream: str, ended: Entry | None) -> dict[str, Any] | None:
    entry = fleet.entry(stream) or ended
    return {"state": entry.state.state, "version": entry.version} if entry is not None else None
