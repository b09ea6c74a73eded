"""A trace through the handlers that decide, without log and servers: the decisions of `berth replay`, in its order.

A test holds the two together (tests/platform/test_placement_study.py).
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench import baselines
from cli.replay import stage
from cli.replay.bodies import Bodies
from cli.replay.tally import Tally
from cli.replay.trace import Request, Trace
from commands.catalogue import COMMANDS, HANDLERS
from commands.model import Done
from commands.writer import ids
from domain.errors import DomainError
from domain.fleet import Fleet
from domain.invariants import violations
from domain.scheduling import registry
from domain.transaction import Transaction
from domain.vm import KIND as VM

RUN = "replay"


class Outcome(NamedTuple):
    """`empty_hosts` when most VMs ran; `broken`: accounts and rules that do not hold at the end."""

    tally: Tally
    empty_hosts: int
    broken: list[str]


def replay(trace: Trace, strategy: str, *, stop_at_first_refusal: bool = False) -> Outcome:
    """Replay all of it, or until a request is refused."""
    fleet = Fleet()
    with _registered(strategy, fleet):
        return _replay(Ground(fleet, trace, strategy), trace, stop_at_first_refusal=stop_at_first_refusal)


@contextmanager
def _registered(strategy: str, fleet: Fleet) -> Iterator[None]:
    """A baseline is a strategy for as long as it is replayed, and no longer."""
    score = baselines.scores(fleet.capacity, RUN).get(strategy)
    if score is not None:
        registry.STRATEGIES[strategy] = score
    try:
        yield
    finally:
        if score is not None:
            del registry.STRATEGIES[strategy]


def _replay(ground: "Ground", trace: Trace, *, stop_at_first_refusal: bool) -> Outcome:
    bodies = Bodies(group=RUN, tenant=RUN)
    tally = Tally(stage.total_capacity(trace), requests=len(trace.requests))
    peak, empty_hosts = 0, 0
    for request in trace.requests:
        if request.action == "create":
            problem = ground.create(bodies.of(request))
            if problem is None:
                tally.place(request.vm, request.resources, request.time_s)
            else:
                tally.refuse(problem, request.time_s)
                if stop_at_first_refusal:
                    break
        elif tally.is_running(request.vm):
            ground.delete(request.vm)
            tally.delete(request.vm, request.time_s)
        else:
            tally.skip_deletion(request.time_s)
        running = tally.placed - tally.deleted
        if running > peak:
            peak, empty_hosts = running, len(trace.machines) - len(ground.fleet.referred(VM, by="host"))
    return Outcome(tally, empty_hosts, violations(ground.fleet) + list(broken_rules(ground.fleet)))


class Ground:
    """A fleet with the trace's hosts in one group, and a tenant whose quota is no limit."""

    def __init__(self, fleet: Fleet, trace: Trace, strategy: str) -> None:
        self.fleet = fleet
        self._is_chance = strategy == baselines.RANDOM
        self._given("group.create", name=RUN, strategy=strategy)
        self._given("tenant.create", name=RUN)
        self._given("quota.set", group=RUN, tenant=RUN, limits=stage.ample_limits(trace))
        racks = stage.rack_commands(trace, RUN)
        hosts = stage.host_commands(trace, RUN, racks)
        if self._is_chance:  # hosts that are alike are scored once, so each is made the only one of its kind
            hosts = [{**host, "capacity": {**host["capacity"], "lot": n + 1}} for n, host in enumerate(hosts)]
        for command in [*(command for _, command in racks), *hosts]:
            self._given(**command)

    def create(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The problem with which it is refused, if it is."""
        if self._is_chance:
            self.fleet.capacity.table(RUN).scores_by_shape.clear()
        try:
            self._decide("vm.provision", body)
        except DomainError as refusal:
            return refusal.problem()
        return None

    def delete(self, vm: str) -> None:
        operation = self._given("vm.delete", tenant=RUN, vm=vm).operation
        for outcome in ("started", "succeeded"):
            self._given("operation.report", operation=operation, step="vm.delete", attempt=1, outcome=outcome)

    def _given(self, command: str, **body: Any) -> Done:
        return self._decide(command, body)

    def _decide(self, command: str, body: dict[str, Any]) -> Done:
        tx = Transaction(self.fleet)
        tx.at, tx.role, tx.new_id = self.fleet.at + 1, "admin", ids.uuid7
        asked = COMMANDS[command].model_validate(body)
        try:
            return HANDLERS[type(asked)](asked, tx)
        except DomainError:
            tx.undo()
            raise


def broken_rules(fleet: Fleet) -> Iterator[str]:
    """The rules of all VMs that stand, looked at anew: each set once for each of its rules' types and levels."""
    sets: defaultdict[tuple[str, str, str], list[tuple[str | None, int | None]]] = defaultdict(list)
    for vm in fleet.each(VM):
        if vm.host is not None:
            for rule in vm.rules:
                sets[rule.type, rule.set, rule.level].append(
                    (fleet.capacity.place_of(vm.host, rule.level), rule.partition)
                )
    for (kind, name, level), members in sorted(sets.items()):
        places = [place for place, _ in members]
        match kind:
            case "affinity":
                is_kept = len(set(places)) == 1
            case "anti_affinity":
                is_kept = len(set(places)) == len(places)
            case "partition":
                is_kept = len(set(members)) == len(set(places))
            case _:
                raise AssertionError(f"no trace has a {kind} rule")
        if not is_kept or None in places:
            yield f"{kind} of {name} at {level} level is broken"


def without_rules(trace: Trace) -> Trace:
    requests = [request._replace(rule="", set="", domain=0) for request in trace.requests]
    return Trace(trace.name, requests, trace.machines)


def repeated(trace: Trace, *, times: int) -> Trace:
    """The creations again and again, nothing deleted, until something must be refused."""
    created = [request for request in trace.requests if request.action == "create"]
    requests: list[Request] = []
    for n in range(times):
        requests += [request._replace(time_s=0.0, vm=f"{request.vm}-{n}") for request in created]
    return Trace(trace.name, requests, trace.machines)
