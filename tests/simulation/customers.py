"""Who asks for things: customers through the API's gateway, a person who looks after what is stuck, and somebody who
reports what nobody asked for. Names are few, so that requests get into each other's way."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import nats.errors

from commands.catalogue import COMMANDS
from commands.writer import ids
from commands.writer.gateway import Actor, Envelope, Gateway, Item
from domain.errors import Unavailable
from domain.operation import KIND as OPERATION
from domain.operation import Operation
from domain.values import name_of
from domain.vm import BEING_CREATED
from domain.vm import KIND as VM
from messaging import subjects
from tests.simulation.controllers import Machines
from tests.simulation.faults import Faults
from tests.simulation.laws import STALE, AnswerWatch, LogWatch
from tests.simulation.loop import STARTED_AT_S, SimulatedLoop
from tests.simulation.nats_server import Client
from tests.simulation.postgres import UNSTORABLE

OWNER = Actor("admin", "admin")  # whose token the engines install
OPERATOR = Actor("ann", "operator")
PERSON = Actor("eve", "operator")
TENANTS = ("acme", "payments", "research")
GROUPS = ("std", "big")
HOSTS = tuple(f"h{n}" for n in range(6))
PATIENCE_S = 20.0
SENT_KEPT = 200
NEVER_REACHED = 1_000  # attempts

TOKENS: list[tuple[str, dict[str, Any]]] = [
    ("token.create", {"name": actor.name, "role": actor.role}) for actor in (OPERATOR, PERSON)
]
SITE: list[tuple[str, dict[str, Any]]] = [
    ("tenant.create", {"name": "acme"}),
    ("tenant.create", {"name": "payments", "parent": "acme"}),
    ("tenant.create", {"name": "research", "parent": "acme"}),
    ("rack.create", {"name": "r1", "region": "north", "dc": "dc1"}),
    ("rack.create", {"name": "r2", "region": "north", "dc": "dc1"}),
    ("group.create", {"name": "std", "overcommit": {"cpu": 1.5}}),
    ("group.create", {"name": "big", "strategy": "worst_fit"}),
    *(
        ("host.register", {"name": name, "group": GROUPS[n % 2], "rack": f"r{n % 2 + 1}", "capacity": {"cpu": 8}})
        for n, name in enumerate(HOSTS)
    ),
    *(
        ("quota.set", {"group": group, "tenant": tenant, "limits": {"cpu": 24, "vms": 12}})
        for group in GROUPS
        for tenant in TENANTS
    ),
]


class Customers:
    """Each request's answer is told to `watch`; `pending` counts those who still wait."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: random.Random,
        faults: Faults,
        *,
        log: LogWatch,
        answers: AnswerWatch,
        machines: Machines,
    ) -> None:
        self._loop = loop
        self._chance = chance
        self._faults = faults
        self._log = log
        self._answers = answers
        self._machines = machines
        self._sent: deque[Envelope] = deque(maxlen=SENT_KEPT)
        self._pause_s = chance.choice([0.03, 0.1, 0.4])
        self.asked = 0
        self.is_over = False

    async def ask_for_ever(self, gateway: Gateway) -> None:
        for actor, commands in ((OWNER, TOKENS), (OPERATOR, SITE)):
            for command in commands:
                while not await self._ask(gateway, self._unconditional(actor, command), is_patient=True):
                    pass
        while not self.is_over:
            await asyncio.sleep(self._chance.expovariate(1 / self._pause_s))
            for _ in range(self._chance.choice([1, 1, 1, 2, 8])):
                task = asyncio.create_task(self._one(gateway))
                task.add_done_callback(lambda task: task.cancelled() or task.result())

    async def _one(self, gateway: Gateway) -> None:
        chance = self._chance
        if self._sent and self._faults.happens("request repeated"):
            sent = chance.choice(self._sent)
            if chance.random() < 0.2:  # the same key for something else
                kind, body = self._wish()
                other = self._item(kind, body, key=sent.items[0].key, fingerprint=str([(kind, body)]))
                sent = msgspec.structs.replace(sent, items=(other,), atomic=False, batch=None)
            else:
                sent = self._anew(sent)
            await self._ask(gateway, sent)
            return
        if chance.random() < 0.06:
            bodies = [self._wish() for _ in range(chance.randint(2, 4))]
            envelope = self._envelope(OPERATOR, bodies, atomic=chance.random() < 0.6, dry_run=chance.random() < 0.1)
        else:
            envelope = self._envelope(
                OPERATOR,
                [self._wish()],
                wait_s=chance.choice([0.0, 0.0, 1.0, 10.0]),
                dry_run=chance.random() < 0.05,
            )
        if not envelope.dry_run:
            self._sent.append(envelope)
        if self._faults.happens("client gives up"):
            try:
                async with asyncio.timeout(chance.uniform(0.0, 0.02)):
                    await self._ask(gateway, envelope)
            except TimeoutError:
                return
        elif not await self._ask(gateway, envelope) and chance.random() < 0.7:
            await self._ask(gateway, self._anew(envelope))

    async def _ask(self, gateway: Gateway, envelope: Envelope, *, is_patient: bool = False) -> bool:
        self.asked += 1
        try:
            answers = await gateway.submit(envelope)
        except Unavailable:
            if is_patient:
                await asyncio.sleep(0.5)
            return False
        self._answers.answers(envelope, answers)
        return True

    def _unconditional(self, actor: Actor, command: tuple[str, dict[str, Any]]) -> Envelope:
        """What everything else needs: without a version that may not match."""
        envelope = self._envelope(actor, [command])
        items = tuple(msgspec.structs.replace(item, if_match=None) for item in envelope.items)
        return msgspec.structs.replace(envelope, items=items)

    def _anew(self, envelope: Envelope) -> Envelope:
        """The same request under the same keys; only its ids are others."""
        items = tuple(
            msgspec.structs.replace(item, id=id, key=id if item.key == item.id else item.key)
            for item in envelope.items
            for id in [ids.uuid7()]
        )
        return msgspec.structs.replace(envelope, items=items, expires_at=self._expires_at())

    def _envelope(self, actor: Actor, bodies: list[tuple[str, dict[str, Any]]], **more: Any) -> Envelope:
        key = f"k-{ids.uuid7()[-12:]}" if self._chance.random() < 0.7 else None
        several = len(bodies) > 1
        fingerprint = str(bodies) if key is not None else ""
        items = tuple(
            self._item(kind, body, key=f"{key}.{n}" if key is not None and several else key, fingerprint=fingerprint)
            for n, (kind, body) in enumerate(bodies)
        )
        return Envelope(actor, items, self._expires_at(), batch=key if several else None, **more)

    def _item(self, kind: str, body: dict[str, Any], *, key: str | None, fingerprint: str) -> Item:
        id = ids.uuid7()
        if_match = None
        if self._chance.random() < 0.05 and (entries := dict(self._log.fleet.entries())):
            if_match = self._chance.choice(list(entries.values())).version
        return Item(id, COMMANDS[kind].model_validate(body), body, key or id, fingerprint, if_match)

    def _expires_at(self) -> float:
        return self._loop.time() + STARTED_AT_S + PATIENCE_S

    def _wish(self) -> tuple[str, dict[str, Any]]:
        chance = self._chance
        tenant = chance.choice(TENANTS[1:])
        vm = {"tenant": tenant, "vm": f"vm-{chance.randrange(20)}"}
        host = {"host": chance.choice(HOSTS)}
        size = {"resources": {"cpu": chance.randint(1, 5)}}
        wishes: list[tuple[int, Callable[[], tuple[str, dict[str, Any]]]]] = [
            (36, lambda: ("vm.provision", self._vm(tenant, vm["vm"], size))),
            (24, lambda: ("vm.delete", vm)),
            (8, lambda: ("vm.resize", {**vm, **size})),
            (6, lambda: ("vm.stop", vm)),
            (6, lambda: ("vm.start", vm)),
            (3, lambda: ("vm.update", {**vm, "description": f"as of {chance.randrange(100)}"})),
            (2, lambda: ("host.cordon", host)),
            (4, lambda: ("host.uncordon", host)),
            (3, lambda: ("host.move", {**host, "group": chance.choice(GROUPS), "force": chance.random() < 0.3})),
            (2, lambda: ("host.update", {**host, "capacity": {"cpu": chance.randint(4, 12)}})),
            (3, lambda: ("quota.set", self._quota(tenant))),
            (1, lambda: ("quota.delete", {"group": chance.choice(GROUPS), "tenant": tenant})),
            (1, lambda: ("tenant.suspend", {"tenant": tenant})),
            (6, lambda: ("tenant.resume", {"tenant": tenant})),
            (1, lambda: ("tenant.move", {"tenant": tenant, "parent": chance.choice(["acme", None]), "force": True})),
            (1, lambda: ("group.update", {"group": "std", "overcommit": {"cpu": chance.choice([1.0, 1.5, 2.0])}})),
            (2, self._cancellation),
        ]
        (wish,) = chance.choices([wish for _, wish in wishes], [weight for weight, _ in wishes])
        return wish()

    def _vm(self, tenant: str, name: str, size: dict[str, Any]) -> dict[str, Any]:
        chance = self._chance
        body = {"tenant": tenant, "name": name, "group": chance.choice(["std", "big", "*", ["std", "big"]]), **size}
        if chance.random() < 0.1:
            body["rules"] = [{"type": "anti_affinity", "set": "web", "level": "host"}]
        if self._faults.happens("unstorable"):
            body["name"] = UNSTORABLE
        return body

    def _quota(self, tenant: str) -> dict[str, Any]:
        chance = self._chance
        limits = {"cpu": chance.randint(4, 30), "vms": chance.randint(2, 15)}
        return {"group": chance.choice(GROUPS), "tenant": tenant, "limits": limits, "force": chance.random() < 0.3}

    def _cancellation(self) -> tuple[str, dict[str, Any]]:
        running = list(map(name_of, self._log.fleet.streams(OPERATION))) or [ids.uuid7()]
        return "operation.cancel", {"operation": self._chance.choice(running)}

    # ── the person, and the one who reports what is not so ──

    async def look_after_the_stuck(self, gateway: Gateway) -> None:
        """Retries, or settles after having made sure that it is so, and stays so."""
        while True:
            await asyncio.sleep(self._chance.uniform(0.5, 3.0))
            for id, operation in self._operations():
                if operation.state != "stuck":
                    continue
                if id not in self._machines.called_off and self._chance.random() < 0.5:
                    await self._ask(gateway, self._envelope(PERSON, [("operation.retry", {"operation": id})]))
                    continue
                body = {"operation": id, "as": self._verdict(id, operation)}
                settle = self._envelope(PERSON, [("operation.settle", body)], reason="looked, and made sure")
                await self._ask(gateway, settle)

    def _operations(self) -> list[tuple[str, Operation]]:
        return [(name_of(stream), entry.state) for stream, entry in self._log.fleet.living[OPERATION.name].items()]

    def _verdict(self, id: str, operation: Operation) -> str:
        """What is so from now on. Work that could make it untrue is called off first, for good."""
        stands, gone = ("succeeded", "failed") if operation.kind == "vm.provision" else ("failed", "succeeded")
        if operation.kind not in ("vm.provision", "vm.delete"):
            return self._chance.choice([stands, gone])
        uid: str = operation.input["uid"]
        vm = self._log.fleet.at_stream(VM, operation.target)
        # What was being created need not stand to be kept: as failed it holds what it may have.
        may_be_kept = uid in self._machines.standing or vm.former in BEING_CREATED
        if id in self._machines.called_off or (may_be_kept and self._chance.random() < 0.5):
            self._machines.called_off.add(id)
            return stands
        self._machines.remove_by_hand(uid)
        return gone

    async def report_what_is_not_so(self, client: Client) -> None:
        chance = self._chance
        known: deque[tuple[str, str, int]] = deque(maxlen=100)
        while True:
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            for id, operation in self._operations():
                known += [(id, step.name, step.attempt) for step in operation.steps]
            if not known or not self._faults.happens("stale report"):
                continue
            id, step, attempt = chance.choice(known)
            found = self._log.fleet.get(OPERATION, id)
            current = found.current if found is not None else None
            is_asked = current is not None and (current.name, current.attempt) == (step, attempt)
            controller = "net" if is_asked else chance.choice(["vm", "net"])
            if chance.random() < 0.4 or (is_asked and controller == "vm"):
                controller, attempt = "vm", attempt + NEVER_REACHED  # the next one may come true on the way
            outcome = chance.choice(["started", "succeeded", "failed"])
            report = {"operation": id, "step": step, "attempt": attempt, "outcome": outcome, "message": STALE}
            report["key"] = f"stale-{ids.uuid7()[-12:]}"
            try:
                reply = await client.request(subjects.of_reports(controller), msgspec.json.encode(report), timeout=3.0)
            except nats.errors.Error:
                continue
            if "code" not in msgspec.json.decode(reply.data):
                self._log.broken.append(f"a report of what is not so was taken: {report}")
