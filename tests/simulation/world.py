"""A whole Berth in one thread: two engines, relay, dispatcher, two projectors and controllers, all of them the real
code, on a simulated PostgreSQL and a simulated NATS, with faults between any two steps.

    seed ──► sizes, faults and their weights, customers' wishes, order of steps ──► a history, the same each time
"""

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from commands.writer.engine import Engine
from domain.vm import KIND as VM
from eventlog.codec import Row
from eventlog.components import Health
from messaging import commands, dispatch, gateway, relay, reports, subjects
from projections import projector
from projections.definitions import SCHEMA
from projections.resources import resource
from tests.simulation import connections, nats_server, postgres
from tests.simulation.controllers import Controller, Machines
from tests.simulation.customers import Customers
from tests.simulation.faults import RATES, Faults
from tests.simulation.laws import AnswerWatch, LogWatch, what_differs, what_fleets_differ_in
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.surroundings import simulated

CELL = "main"
AMBUSH_STEPS_MAX = 400
SETTLE_S = 900.0
SETTLE_STEPS_MAX = 500_000
TOLD_MAX = 200


class Report(msgspec.Struct, frozen=True):
    """What came of a run. `broken` is empty when every law held; `digest` tells one history from another."""

    seed: int
    steps: int
    seconds: float
    commands: int
    answered: int
    repeated: int
    take_overs: int
    made: int
    faults: dict[str, int]
    digest: str
    broken: list[str]
    told: list[str]


class World:
    """One run. `alter` may take a protection out, to see the alarm ring."""

    def __init__(self, seed: int, *, alter: "Callable[[World], None] | None" = None) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.loop = SimulatedLoop(random.Random(self.chance.getrandbits(64)))
        self.faults = Faults(random.Random(self.chance.getrandbits(64)))
        self.machines = Machines()
        self.log = LogWatch(self.machines)
        self.answers = AnswerWatch(self.log)
        self.postgres = postgres.Server(
            self.loop,
            random.Random(self.chance.getrandbits(64)),
            self.faults,
            on_append=self._note_append,
            on_project=self.log.projected,
        )
        self.nats = nats_server.Server(self.loop, random.Random(self.chance.getrandbits(64)), self.faults)
        self.customers = Customers(
            self.loop,
            random.Random(self.chance.getrandbits(64)),
            self.faults,
            log=self.log,
            answers=self.answers,
            machines=self.machines,
        )
        self.engines: dict[str, Engine] = {}
        self.told: deque[str] = deque(maxlen=TOLD_MAX)
        self.listener: Callable[[str], None] | None = None
        self._is_over = False
        self._history = hashlib.sha256()
        self._live: dict[str, Process] = {}
        self._step_timeout_s = self.chance.choice([5, 20, 60])
        self._grace_s = self.chance.choice([0.5, 5.0, 30.0])
        self._checkpoint_events = self.chance.choice([20, 200, 10**9])
        self._delay_ms = self.chance.choice([0, 50, 300, 4_000])
        self._fail_rate = self.chance.uniform(0.0, 2 * self.faults.weights["work fails"])
        self._programs: dict[str, Callable[[str], Awaitable[None]]] = {
            "engine-1": self._engine,
            "engine-2": self._engine,
            "api": self._api,
            "relay": self._relay,
            "dispatcher": self._dispatcher,
            "projector-1": self._projector,
            "projector-2": self._projector,
            "controller": self._controller,
        }
        if alter is not None:
            alter(self)

    def run(self, steps: int) -> Report:
        """So many steps with faults, then as many as it takes without, until all is settled."""
        with simulated(self.loop, random.Random(self.chance.getrandbits(64)), self.postgres, tell=self._tell):
            for name in self._programs:
                self._start(name)
            self.loop.spawn(self.loop.world, self._make_trouble())
            self.loop.run_steps(steps, is_done=self._is_broken)
            if not self._is_broken():
                self._settle()
            self._is_over = True
            self.loop.bury()
        log, answers = self.log, self.answers
        return Report(
            self.seed,
            self.loop.steps,
            self.loop.time(),
            log.commands,
            answers.answered,
            answers.repeated,
            log.take_overs,
            self.machines.made,
            {kind: count for kind, count in self.faults.counts.items() if count},
            self._history.hexdigest()[:16],
            self.broken,
            list(self.told),
        )

    @property
    def broken(self) -> list[str]:
        fault = self.loop.fault
        faults = [] if fault is None else [f"{fault.get('message')}: {fault.get('exception')!r}"]
        return self.log.broken + self.machines.broken + faults

    def _is_broken(self) -> bool:
        return bool(self.log.broken or self.machines.broken)

    # ── processes ──

    def _start(self, name: str) -> None:
        if name in self._live:
            return
        process = self._live[name] = Process(name)
        process.skew_s = 0.0
        self.loop.spawn(process, self._program(name))

    async def _program(self, name: str) -> None:
        try:
            await self._programs[name](name)
        except Exception as error:
            if self._is_over:
                return
            self._tell(f"{name} ended: {error!r}")
            self.log.broken.append(f"{name} ended by itself: {error!r}")

    def kill(self, name: str) -> None:
        """As kill -9; the supervisor starts it again soon."""
        process = self._live.pop(name, None)
        if process is None:
            return
        self._tell(f"kill {name}")
        self.loop.kill(process)
        self.postgres.end_all_of(process)
        self.nats.forget(process)
        self.engines.pop(name, None)
        self.loop.later(self.chance.uniform(0.1, 2.0), self._start, name)

    def pause(self, name: str, seconds: float) -> None:
        """As SIGSTOP, and SIGCONT after a while."""
        process = self._live.get(name)
        if process is None or process.is_paused:
            return
        self._tell(f"pause {name} for {seconds:.2f} s")
        process.is_paused = True
        self.loop.later(seconds, self._wake, process)

    def _wake(self, process: Process) -> None:
        process.is_paused = False

    async def _engine(self, name: str) -> None:
        client: Any = nats_server.Client(self.nats)
        engine = Engine(
            name,
            resource=resource,
            admin_token_hash="0" * 64,
            step_timeout_s=self._step_timeout_s,
            expiry_grace_s=self._grace_s,
        )
        self.engines[name] = engine
        await engine.start()
        await commands.serve_commands(client, CELL, engine)
        await reports.serve_reports(client, engine)
        await engine.ended()

    async def _api(self, name: str) -> None:
        client: Any = nats_server.Client(self.nats)
        way = gateway.NatsGateway(client, CELL)
        await asyncio.gather(
            self.customers.ask_for_ever(way),
            self.customers.look_after_the_stuck(way),
            self.customers.report_what_is_not_so(client),
        )

    async def _relay(self, name: str) -> None:
        client: Any = nats_server.Client(self.nats)
        await relay.run(client, connections.SimulatedReader(self.postgres), name, health=Health("relay"))

    async def _dispatcher(self, name: str) -> None:
        client: Any = nats_server.Client(self.nats)
        reader = connections.SimulatedReader(self.postgres)
        await dispatch.run(client, reader, name, controllers=("vm",), health=Health("dispatcher"))

    async def _projector(self, name: str) -> None:
        reader = connections.SimulatedReader(self.postgres)
        await projector.run(name, reader, health=Health("projector"), checkpoint_events=self._checkpoint_events)

    async def _controller(self, name: str) -> None:
        controller = Controller(
            nats_server.Client(self.nats),
            self.machines,
            self.faults,
            timeout_s=self._step_timeout_s,
            delay_ms=self._delay_ms,
            fail_rate=self._fail_rate,
        )
        await controller.run()

    # ── faults ──

    async def _make_trouble(self) -> None:
        """Each fault comes at a time, and then some steps later: so between any two steps."""
        while (coming := self.faults.next_of(RATES)) is not None:
            after_s, kind = coming
            await asyncio.sleep(after_s)
            ambushed = self.loop.create_future()
            self.loop.ambush(self.chance.randrange(AMBUSH_STEPS_MAX), ambushed)
            await ambushed
            if self.faults.is_over:
                return
            self.faults.counts[kind] += 1
            self._do(kind)

    def _do(self, kind: str) -> None:
        chance = self.chance
        # Half of the time it is about the one that leads: nothing else decides.
        leading = [name for name, engine in self.engines.items() if engine.is_leading]
        name = chance.choice(leading) if leading and chance.random() < 0.5 else chance.choice(list(self._programs))
        match kind:
            case "kill":
                self.kill(name)
            case "pause":
                self.pause(name, chance.choice([0.2, 1.0, 3.0, 10.0]) * chance.uniform(0.5, 1.5))
            case "backend ended":
                if self.postgres.backends:
                    self.postgres.leave(chance.choice(list(self.postgres.backends.values())))
            case "postgres restarts":
                self._tell("PostgreSQL restarts")
                self.postgres.restart()
            case "nats restarts":
                self.nats.restart(down_s=chance.uniform(0.1, 8.0))
            case "nats wiped":
                self.nats.wipe()
            case "work wiped":
                self.nats.wipe(subjects.WORK)
            case "clock jumps":
                if name in self._live:
                    self._live[name].skew_s = chance.choice([-3600.0, -5.0, 0.0, 2.0])
            case "read model wiped":
                self.postgres.models.clear()
            case _:
                raise AssertionError(kind)

    # ── what must come true ──

    def _settle(self) -> None:
        """The faults are over. Everything must end, catch up and agree within a bounded time."""
        self.faults.is_over = True
        self.customers.is_over = True
        self._delay_ms = min(self._delay_ms, 300)
        for process in self._live.values():
            process.is_paused = False
        until_s = self.loop.time() + SETTLE_S
        last = self.loop.steps + SETTLE_STEPS_MAX
        unsettled = ["nothing looked at yet"]
        while unsettled and not self.broken and self.loop.time() < until_s and self.loop.steps < last:
            self.loop.run_steps(last, until_s=self.loop.time() + 2.0, is_done=self._is_broken)
            unsettled = self._unsettled()
        self.answers.at_the_end()
        if unsettled and not self.broken:
            self.log.broken.append(f"not settled {SETTLE_S:.0f} s after the last fault: " + "; ".join(unsettled[:5]))

    def _unsettled(self) -> list[str]:
        log, end = self.log, self.log.fleet.position
        found = [
            f"{stream} is {entry.state.state}: {entry.state.steps}"
            for stream, entry in log.fleet.living["operation"].items()
        ]
        leading = [name for name, engine in self.engines.items() if engine.is_leading]
        if len(leading) != 1:
            found.append(f"those who lead: {leading}")
        for name, engine in self.engines.items():
            if differs := what_fleets_differ_in(engine.fleet, log.fleet):
                found.append(f"{name} at {engine.fleet.position} of {end} differs in {differs}")
        model = self.postgres.models.get(SCHEMA)
        if model is None or model.progress[1] != end:
            found.append(f"the read model stands at {model and model.progress} of {end}")
        else:
            found += what_differs(model.living, model.audit, log)[:3]
        found += self._streams_not_right()
        standing = self.machines.standing
        vms = list(log.fleet.each(VM))
        if leaked := standing - {vm.uid for vm in vms if vm.claims}:
            found.append(f"machines stand that nobody has: {leaked}")
        if lost := {vm.uid for vm in vms if vm.state in ("active", "stopped")} - standing:
            found.append(f"VMs are shown that do not stand: {lost}")
        return found

    def _streams_not_right(self) -> list[str]:
        events, work = self.nats.streams.get(subjects.EVENTS), self.nats.streams.get(subjects.WORK)
        if events is None or work is None:
            return ["streams are missing"]
        found = [f"work is left: {next(iter(work.messages.values())).data!r}"] if work.messages else []
        if events.last_seq != self.log.fleet.position:
            return [*found, f"{subjects.EVENTS} stands at {events.last_seq} of {self.log.fleet.position}"]
        for seq, stored in events.messages.items():
            row = self.postgres.by_position[seq]
            told = (stored.headers["ce-id"], stored.headers["ce-type"], stored.headers["ce-subject"])
            if told != (str(seq), row.topic, row.stream):
                return [*found, f"{subjects.EVENTS} holds {told} at {seq}"]
        if list(events.messages) != list(range(1, events.last_seq + 1)):
            found.append(f"{subjects.EVENTS} has gaps")
        return found

    def _note_append(self, rows: Sequence[Row], writer: Process) -> None:
        for row in rows:
            self._history.update(f"{self.loop.steps} {row.position} {row.topic}".encode() + row.state)
        self.log.appended(rows, writer=writer)

    def _tell(self, what: str) -> None:
        if self._is_over:
            return
        line = f"{self.loop.time():9.3f} {self.loop.steps:7d} {what}"
        self.told.append(line)
        if self.listener is not None:
            self.listener(line)
