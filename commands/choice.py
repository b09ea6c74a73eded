"""Choosing among the groups that a request offers: quota first, then a host in each; the least loaded group wins."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from commands import finding
from domain.errors import DomainError, NoCapacity, NoQuota, QuotaExceeded
from domain.fleet import Transaction
from domain.quota import check
from domain.scheduling.place import Placement, PlacementRequest, fitting_hosts, load_after, place
from domain.values import Resources
from domain.vm import Vm

ANY_GROUP = "*"


def choose(
    tx: Transaction, request: PlacementRequest, *, offered: str | list[str], chain: list[str], strategy: str | None
) -> Placement:
    """The group and host for one VM of `request.tenant`, whose chain of tenants is `chain`.

    Raises:
        NotFound: a group that is named does not exist.
        NoQuota, QuotaExceeded, NoCapacity: as the contract says for one group, and for several.
    """
    members = {rule.set: tx.fleet.members_of(request.tenant, rule.set) for rule in request.rules}
    counted = {**request.resources, "vms": 1}
    if isinstance(offered, str) and offered != ANY_GROUP:
        try:
            return _place(tx, request, offered, chain=chain, counted=counted, strategy=strategy, members=members)
        except NoCapacity as refusal:
            refusal.alternatives = _alternatives(tx, request, {offered}, chain=chain, counted=counted, members=members)
            raise

    granted = sorted(tx.fleet.quotas_by_tenant.get(request.tenant, ()))
    names = granted if offered == ANY_GROUP else list(dict.fromkeys(offered))
    fits: list[tuple[float, str, Placement]] = []
    refusals: dict[str, DomainError] = {}
    for name in names:
        try:
            placement = _place(tx, request, name, chain=chain, counted=counted, strategy=strategy, members=members)
            fits.append((load_after(tx.fleet.capacity, request, group=name), name, placement))
        except (NoQuota, QuotaExceeded, NoCapacity) as refusal:
            refusals[name] = refusal
    if not fits:
        summary = _refused_everywhere(request, offered, refusals, granted=granted)
        if isinstance(summary, NoCapacity):
            summary.alternatives = _alternatives(tx, request, set(names), chain=chain, counted=counted, members=members)
        raise summary
    load, _, chosen = min(fits, key=lambda fit: fit[:2])
    loads = {name: load for load, name, _ in fits}
    groups = [
        {"group": name, "load": loads[name]} if name in loads else {"group": name, "code": refusals[name].code}
        for name in names
    ]
    return Placement(chosen.group, chosen.host, {**chosen.explanation, "load": load, "groups": groups})


def _place(
    tx: Transaction,
    request: PlacementRequest,
    name: str,
    *,
    chain: list[str],
    counted: Resources,
    strategy: str | None,
    members: Mapping[str, Sequence[Vm]],
) -> Placement:
    group = finding.group(tx, name)
    if tx.fleet.quota(name, request.tenant) is None:
        raise NoQuota(request.tenant, name, sorted(tx.fleet.quotas_by_tenant.get(request.tenant, ())))
    check(tx.fleet.quotas(name, chain), counted)
    return place(tx.fleet.capacity, request, group=name, strategy=strategy or group.strategy, members=members)


def _refused_everywhere(
    request: PlacementRequest, offered: Any, refusals: dict[str, DomainError], *, granted: list[str]
) -> DomainError:
    problems = [{"group": name, **refusal.problem()} for name, refusal in refusals.items()]
    no_room = [refusal for refusal in refusals.values() if isinstance(refusal, NoCapacity)]
    over = [refusal for refusal in refusals.values() if isinstance(refusal, QuotaExceeded)]
    if no_room:
        hosts: Counter[str] = Counter()
        for refusal in no_room:
            hosts.update({reason["reason"]: reason["hosts"] for reason in refusal.reasons})
        nearest = [refusal.nearest for refusal in no_room if refusal.nearest is not None]
        largest = [refusal.largest_fit for refusal in no_room if refusal.largest_fit is not None]
        return NoCapacity(
            offered,
            request.resources,
            sum(refusal.considered for refusal in no_room),
            [{"reason": reason, "hosts": count} for reason, count in hosts.items()],
            min(nearest, key=lambda n: (_part(n["short"], request.resources), n["host"]), default=None),
            max(largest, key=lambda fit: _part(fit, request.resources), default=None),
            [],
            problems,
        )
    if over:
        return QuotaExceeded(request.tenant, offered, over[0].shortfalls, problems)
    return NoQuota(request.tenant, offered, list(granted))


def _alternatives(
    tx: Transaction,
    request: PlacementRequest,
    tried: set[str],
    *,
    chain: list[str],
    counted: Resources,
    members: Mapping[str, Sequence[Vm]],
) -> list[dict[str, Any]]:
    """The other groups that would take it now, those with quota first."""
    found: list[dict[str, Any]] = []
    for name in sorted(tx.fleet.hosts_by_group.keys() - tried):
        hosts = fitting_hosts(tx.fleet.capacity, request, group=name, members=members)
        if hosts:
            found.append({"group": name, "hosts": hosts, "quota_ok": _quota_allows(tx, request, name, chain, counted)})
    return sorted(found, key=lambda group: (not group["quota_ok"], group["group"]))


def _quota_allows(tx: Transaction, request: PlacementRequest, group: str, chain: list[str], counted: Resources) -> bool:
    if tx.fleet.quota(group, request.tenant) is None:
        return False
    try:
        check(tx.fleet.quotas(group, chain), counted)
    except QuotaExceeded:
        return False
    return True


def _part(amounts: Resources, requested: Resources) -> float:
    return sum(amount / requested[name] for name, amount in amounts.items())
