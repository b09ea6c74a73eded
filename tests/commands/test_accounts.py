"""The whole command set against a naive model that keeps nothing but who runs where: every account must follow from
it."""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.invariants import violations
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from domain.values import Resources, available, plus, usable
from domain.vm import KIND as VM
from projections.resources import resource
from tests.deciding import ENGINE, HOUR_US, Site

TENANTS = ("acme", "payments", "search", "ads")
GROUPS = ("std", "mem")
HOSTS = ("h0", "h1", "h2", "h3")
NAMES = st.sampled_from([f"vm-{n}" for n in range(6)])
tenants, groups, hosts = st.sampled_from(TENANTS), st.sampled_from(GROUPS), st.sampled_from(HOSTS)
amounts = st.fixed_dictionaries({"cpu": st.integers(1, 6)}, optional={"memory_mib": st.integers(1, 8)})
limits = st.fixed_dictionaries({}, optional={"cpu": st.integers(0, 24), "vms": st.integers(0, 6)})


class Accounts(RuleBasedStateMachine):
    """`claims` is the model: (tenant, name) → (host, what it holds). Everything else is derived from it by plain
    sums."""

    operations = Bundle("operations")

    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.claims: dict[tuple[str, str], tuple[str, Resources]] = {}
        self.parents: dict[str, str | None] = {}
        self.homes: dict[str, str] = {}

    @initialize()
    def a_small_site(self) -> None:
        for tenant, parent in (("acme", None), ("payments", "acme"), ("search", "acme"), ("ads", "search")):
            self.site.given("tenant.create", name=tenant, parent=parent)
            self.parents[tenant] = parent
        for group in GROUPS:
            self.site.given("group.create", name=group, strategy="balanced" if group == "mem" else "best_fit")
        for n, host in enumerate(HOSTS):
            self.homes[host] = GROUPS[n % 2]
            self.site.given("host.register", name=host, group=self.homes[host], capacity={"cpu": 8, "memory_mib": 16})
        for tenant in ("acme", "payments", "ads"):
            self.site.given("quota.set", group="std", tenant=tenant, limits={"cpu": 16})

    # ── workloads ──

    @rule(target=operations, tenant=tenants, name=NAMES, group=st.one_of(groups, st.just("*")), resources=amounts)
    def provision(self, tenant: str, name: str, group: str, resources: Resources) -> Any:
        answer = self.site.when("vm.provision", tenant=tenant, name=name, group=group, resources=resources)
        if answer.problem is not None:
            return multiple()
        vm = self.site.fleet.get(VM, tenant, name)
        assert vm is not None
        assert vm.host is not None
        self.claims[tenant, name] = (vm.host, resources)
        self._nothing_is_over(vm.host, tenant, asked=resources)
        return answer.operation

    @rule(target=operations, tenant=tenants, name=NAMES, resources=amounts)
    def resize(self, tenant: str, name: str, resources: Resources) -> Any:
        answer = self.site.when("vm.resize", tenant=tenant, vm=name, resources=resources)
        if answer.operation is None:
            return multiple()
        host, held = self.claims[tenant, name]
        larger = {k: max(held.get(k, 0), resources.get(k, 0)) for k in held.keys() | resources.keys()}
        self.claims[tenant, name] = (host, larger)
        return answer.operation

    @rule(target=operations, tenant=tenants, name=NAMES, kind=st.sampled_from(["delete", "start", "stop"]))
    def change(self, tenant: str, name: str, kind: str) -> Any:
        answer = self.site.when(f"vm.{kind}", tenant=tenant, vm=name)
        return answer.operation if answer.operation is not None else multiple()

    @rule(id=operations, outcome=st.sampled_from(["started", "succeeded", "failed"]))
    def report(self, id: str, outcome: str) -> None:
        operation = self.site.fleet.get(OPERATION, id)
        if operation is None or operation.current is None:
            return
        self.site.report(id, outcome, attempt=operation.current.attempt)
        self._follow(operation.target)

    @rule(id=operations)
    def expire(self, id: str) -> None:
        operation = self.site.fleet.get(OPERATION, id)
        if operation is None or operation.current is None or operation.state != "running":
            return
        self.site.now += HOUR_US
        step = operation.current
        kind = "given" if step.state == "started" else "when"
        body = {"operation": id, "step": step.name, "attempt": step.attempt}
        getattr(self.site, kind)("operation.expire", actor=ENGINE, **body)

    @rule(id=operations, kind=st.sampled_from(["cancel", "retry"]))
    def decide_by_hand(self, id: str, kind: str) -> None:
        operation = self.site.fleet.get(OPERATION, id)
        self.site.when(f"operation.{kind}", operation=id)
        if operation is not None:
            self._follow(operation.target)

    @rule(id=operations, verdict=st.sampled_from(["succeeded", "failed"]))
    def settle(self, id: str, verdict: str) -> None:
        operation = self.site.fleet.get(OPERATION, id)
        self.site.when("operation.settle", operation=id, reason="seen to be so", **{"as": verdict})
        if operation is not None:
            self._follow(operation.target)

    # ── the ground under them ──

    @rule(group=groups, tenant=tenants, limits=limits, force=st.booleans())
    def set_quota(self, group: str, tenant: str, limits: Resources, force: bool) -> None:
        self.site.when("quota.set", group=group, tenant=tenant, limits=limits, force=force)

    @rule(group=groups, tenant=tenants)
    def delete_quota(self, group: str, tenant: str) -> None:
        self.site.when("quota.delete", group=group, tenant=tenant)

    @rule(host=hosts, group=groups, force=st.booleans())
    def move_host(self, host: str, group: str, force: bool) -> None:
        if self.site.when("host.move", host=host, group=group, force=force).problem is None:
            self.homes[host] = group

    @rule(tenant=tenants, parent=st.one_of(st.none(), tenants), force=st.booleans())
    def move_tenant(self, tenant: str, parent: str | None, force: bool) -> None:
        if self.site.when("tenant.move", tenant=tenant, parent=parent, force=force).problem is None:
            self.parents[tenant] = parent

    @rule(host=hosts, cpu=st.integers(1, 12), force=st.booleans())
    def change_capacity(self, host: str, cpu: int, force: bool) -> None:
        self.site.when("host.update", host=host, capacity={"cpu": cpu, "memory_mib": 16}, force=force)

    @rule(group=groups, ratio=st.sampled_from([0.5, 1, 1.5, 3]), force=st.booleans())
    def change_overcommit(self, group: str, ratio: float, force: bool) -> None:
        self.site.when("group.update", group=group, overcommit={"cpu": ratio}, force=force)

    @rule(host=hosts, kind=st.sampled_from(["cordon", "uncordon"]))
    def cordon(self, host: str, kind: str) -> None:
        self.site.given(f"host.{kind}", host=host)

    @rule(tenant=tenants, kind=st.sampled_from(["suspend", "resume"]))
    def suspend(self, tenant: str, kind: str) -> None:
        self.site.given(f"tenant.{kind}", tenant=tenant)

    # ── what must follow ──

    @invariant()
    def every_account_follows_from_who_runs_where(self) -> None:
        fleet = self.site.fleet
        assert violations(fleet) == []
        for host in HOSTS:
            used: Resources = {}
            for standing, held in self.claims.values():
                used = plus(used, held) if standing == host else used
            found = fleet.get(HOST, host)
            assert found is None or found.used == used
        uses: dict[tuple[str, str], Counter[str]] = {}
        for (tenant, _), (host, held) in self.claims.items():
            name: str | None = tenant
            while name is not None:
                uses.setdefault((self.homes[host], name), Counter()).update({**held, "vms": 1})
                name = self.parents[name]
        for group in GROUPS:
            for tenant in TENANTS:
                quota = fleet.get(QUOTA, group, tenant)
                assert quota is None or quota.used == dict(uses.get((group, tenant), {}))

    def teardown(self) -> None:
        """Replaying the log gives the same fleet and the same answers, byte for byte, as often as it is done."""
        replayed = self.site.replayed()
        assert replayed.living == self.site.fleet.living
        assert _answers(replayed) == _answers(self.site.replayed()) == _answers(self.site.fleet)

    def _follow(self, target: str) -> None:
        """The model learns what a VM holds only from whether it still stands and how large it was asked to be."""
        _, tenant, name = target.split("/")
        vm = self.site.fleet.get(VM, tenant, name)
        if vm is None or not vm.claims:
            self.claims.pop((tenant, name), None)
        elif (tenant, name) in self.claims and vm.operation is None:
            self.claims[tenant, name] = (self.claims[tenant, name][0], vm.resources)

    def _nothing_is_over(self, host: str, tenant: str, *, asked: Resources) -> None:
        """A grant never takes a host beyond its usable capacity, nor a quota of the chain beyond its limit."""
        fleet = self.site.fleet
        found = fleet.get(HOST, host)
        assert found is not None
        group = fleet.get(GROUP, found.group)
        assert group is not None
        room = usable(found.capacity, group.overcommit)
        assert all(found.used[name] <= room[name] for name in asked)
        assert all(amount >= 0 for amount in available(found.capacity, group.overcommit, found.used).values())
        for quota in fleet.quotas(found.group, fleet.chain(tenant)):
            for name in (*asked, "vms"):
                assert quota.used[name] <= quota.limits.get(name, quota.used[name])


def _answers(fleet: Fleet) -> list[bytes]:
    return [msgspec.json.encode(resource(fleet, stream)) for stream, _ in sorted(fleet.entries())]


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
