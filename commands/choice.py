"""Choosing among the groups that a request offers: quota first, then a host in each; the least loaded group wins.

names ─► offered() ─► quota? room? of each, cheaply ─┬─► the least loaded that takes it ─► place()
                                                     └─► none: what the first few say, and alternatives
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Any

from commands import finding, suggesting
from domain.errors import DomainError, NoCapacity, NoQuota, QuotaExceeded
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.quota import Quota, allows, check
from domain.scheduling.filters import binding
from domain.scheduling.place import Placement, fitting_hosts, load_after, place
from domain.scheduling.request import PlacementRequest
from domain.transaction import Transaction
from domain.values import FIRST_CLASSES, Resources
from domain.vm import Vm

ANY_GROUP = "*"

# A refusal may cost less than 1 ms, however many groups there are.
GROUPS_TOLD_MAX = 8  # whose problem is worked out in full, 0.1 ms each
ALTERNATIVES_LOOKED_AT_MAX = 64  # some 5 µs each, where nothing is to be made first
RULED_LOOKS_MAX = 400  # some 10 µs each: a rule in a group, or one more for each 50 members

FIRST_TOLD = [NoCapacity.code, QuotaExceeded.code, NoQuota.code]

Members = Mapping[str, Sequence[Vm]]


def offered_groups(tx: Transaction, tenant: str, offered: str | list[str]) -> list[str]:
    """
    Raises:
        NotFound: a group that is named does not exist.
    """
    if offered == ANY_GROUP:
        return sorted(tx.fleet.granted(tenant))
    names = [offered] if isinstance(offered, str) else list(dict.fromkeys(offered))
    return [finding.group_with_quota(tx, name).name for name in names]


def choose(
    tx: Transaction,
    request: PlacementRequest,
    *,
    offered: str | list[str],
    groups: list[str],
    chain: list[str],
    strategy: str | None,
) -> Placement:
    """The group and host for one VM of `request.tenant`, whose chain of tenants is `chain`. `groups` are those
    `offered`.

    Raises:
        NoQuota, QuotaExceeded, NoCapacity: as the contract says for one group, and for several.
    """
    members = {rule.set: tx.fleet.members_of(request.tenant, rule.set) for rule in request.rules}
    counted = {**request.resources, "vms": 1}
    choice = _Choice(tx, request, chain=chain, counted=counted, strategy=strategy, members=members)
    if isinstance(offered, str) and offered != ANY_GROUP:
        try:
            return choice.place_in(offered)
        except NoCapacity as refusal:
            choice.complete(refusal, tried=groups)
            raise

    codes, loads = {}, {}
    for name in groups:
        if (code := choice.code(name)) is not None:
            codes[name] = code
        else:
            loads[name] = choice.load(name)
    if not loads:
        raise choice.refused_everywhere(offered, codes)
    chosen = min(loads, key=lambda name: (loads[name], name))
    placement = choice.place_in(chosen)
    told = [{"group": name, **({"load": loads[name]} if name in loads else {"code": codes[name]})} for name in groups]
    return Placement(chosen, placement.host, {**placement.explanation, "load": loads[chosen], "groups": told})


class _Choice:
    """One request, and what is asked about each group for it."""

    def __init__(
        self,
        tx: Transaction,
        request: PlacementRequest,
        *,
        chain: list[str],
        counted: Resources,
        strategy: str | None,
        members: Members,
    ) -> None:
        self._tx = tx
        self._request = request
        self._chain = chain
        self._counted = counted
        self._strategy = strategy
        self._members = members

    def place_in(self, name: str) -> Placement:
        """Raises NoQuota, QuotaExceeded, NoCapacity."""
        tx, request = self._tx, self._request
        quotas = tx.fleet.quotas(name, self._chain)
        if not _has_own(quotas, request.tenant):
            raise NoQuota(request.tenant, name, sorted(tx.fleet.granted(request.tenant)))
        check(quotas, self._counted)
        group = tx.fleet.get(GROUP, name)
        assert group is not None, "a quota's group stands, as they end together"
        strategy = self._strategy or group.strategy
        return place(tx.fleet.capacity, request, group=name, strategy=strategy, members=self._members)

    def code(self, name: str) -> str | None:
        """Why it would be refused there; None if it would not."""
        quotas = self._tx.fleet.quotas(name, self._chain)
        if not _has_own(quotas, self._request.tenant):
            return NoQuota.code
        if not allows(quotas, self._counted):
            return QuotaExceeded.code
        return None if self._hosts(name) else NoCapacity.code

    def load(self, name: str) -> float:
        return load_after(self._tx.fleet.capacity, self._request, group=name)

    def refused_everywhere(self, offered: Any, codes: Mapping[str, str]) -> DomainError:
        """Of what the groups say, that of the first in the order of refusals; the others' stand beside."""
        request = self._request
        names = sorted(codes, key=lambda name: FIRST_TOLD.index(codes[name]))
        refusals = {name: self._refusal(name) for name in names[:GROUPS_TOLD_MAX]}
        problems = [{"group": name, **refusals[name].problem()} for name in codes if name in refusals]
        is_cut = len(names) > len(refusals)
        no_room = [refusal for refusal in refusals.values() if isinstance(refusal, NoCapacity)]
        over = [refusal for refusal in refusals.values() if isinstance(refusal, QuotaExceeded)]
        if no_room:
            summary = _summary(offered, request.resources, no_room)
            summary.groups, summary.groups_truncated = problems, is_cut
            self.complete(summary, tried=list(codes))
            return summary
        if over:
            return QuotaExceeded(request.tenant, offered, over[0].shortfalls, problems, is_cut)
        return NoQuota(request.tenant, offered, sorted(self._tx.fleet.granted(request.tenant)))

    def complete(self, refusal: NoCapacity, *, tried: list[str]) -> None:
        """With the other groups that would take it now, those with quota first; or, where no host has a class that is
        asked for, with that."""
        request = self._request
        unknown = unknown_class(self._tx, request.resources, tenant=request.tenant, groups=tried)
        if unknown is not None and refusal.considered:
            refusal.message = unknown
            return
        index = self._tx.fleet.capacity
        left = self._looks()
        for name in self._others(set(tried)):
            left -= index.price_of(name)
            if left < 0:
                refusal.alternatives_truncated = True
                break
            if hosts := self._hosts(name):
                refusal.alternatives.append({"group": name, "hosts": hosts, "quota_ok": self._has_quota(name)})
        refusal.alternatives.sort(key=lambda group: (not group["quota_ok"], group["group"]))

    def _looks(self) -> int:
        """How many other groups are looked at: fewer, the more rules and members there are to look through in each."""
        if not self._request.rules:
            return ALTERNATIVES_LOOKED_AT_MAX
        rules, members = len(binding(self._request.rules, self._members)), sum(map(len, self._members.values()))
        return max(1, min(ALTERNATIVES_LOOKED_AT_MAX, RULED_LOOKS_MAX // (rules * (1 + members // 50))))

    def _others(self, tried: set[str]) -> Iterator[str]:
        """Groups with hosts, those where the tenant has quota first; within a scope, those alone."""
        fleet = self._tx.fleet
        granted = fleet.granted(self._request.tenant)
        hosts = fleet.referred(HOST, by="group")
        yield from sorted(name for name in granted if name not in tried and name in hosts)
        if self._tx.scope is None:
            foreign = (name for name in hosts if name not in tried and name not in granted)
            yield from nsmallest(ALTERNATIVES_LOOKED_AT_MAX + 1, foreign)

    def _hosts(self, name: str) -> int:
        return fitting_hosts(self._tx.fleet.capacity, self._request, group=name, members=self._members)

    def _has_quota(self, name: str) -> bool:
        quotas = self._tx.fleet.quotas(name, self._chain)
        return _has_own(quotas, self._request.tenant) and allows(quotas, self._counted)

    def _refusal(self, name: str) -> DomainError:
        try:
            self.place_in(name)
        except (NoQuota, QuotaExceeded, NoCapacity) as refusal:
            return refusal
        raise AssertionError(f"group {name} took what did not fit there")


def _has_own(quotas: Sequence[Quota], tenant: str) -> bool:
    """Of those along the tenant's chain, which begins with itself."""
    return bool(quotas) and quotas[0].tenant == tenant


def unknown_class(tx: Transaction, resources: Resources, *, tenant: str, groups: Iterable[str]) -> str | None:
    """The sentence for a class that no host has: what is asked for is misspelt, or nobody has it yet.

    A scoped actor knows the classes of its own groups: those that are asked for, and where `tenant` has quota.
    """
    known: Collection[str] = tx.fleet.hosts_of_class
    if tx.scope is not None:
        if all(name in FIRST_CLASSES for name in resources):
            return None
        own = tx.fleet.granted(tenant).union(groups)
        known = {name for group in own for name in tx.fleet.capacity.table(group).classes}
    for name in resources:
        if name not in known:
            near = class_like(name, known)
            hint = (
                f"; did you mean {near!r}?" if near is not None else ", so leave it out or have such hosts registered."
            )
            return f"No host has the resource class {name!r}{hint}"
    return None


def class_like(name: str, known: Collection[str], *, also: tuple[str, ...] = ()) -> str | None:
    """Which of these, or of the classes that every site knows, was probably meant. `known` is quick to look into."""
    first = FIRST_CLASSES + also
    return suggesting.nearest(
        name, known=itertools.chain(first, known), exists=lambda slip: slip in first or slip in known
    )


def _summary(offered: Any, requested: Resources, refusals: Sequence[NoCapacity]) -> NoCapacity:
    hosts: Counter[str] = Counter()
    for refusal in refusals:
        hosts.update({reason["reason"]: reason["hosts"] for reason in refusal.reasons})
    nearest = [refusal.nearest for refusal in refusals if refusal.nearest is not None]
    largest = [refusal.largest_fit for refusal in refusals if refusal.largest_fit is not None]
    return NoCapacity(
        group=offered,
        requested=requested,
        considered=sum(refusal.considered for refusal in refusals),
        reasons=[{"reason": reason, "hosts": count} for reason, count in hosts.items()],
        nearest=min(nearest, key=lambda n: (_part(n["short"], requested), n["host"]), default=None),
        largest_fit=max(largest, key=lambda fit: _part(fit, requested), default=None),
        alternatives=[],
    )


def _part(amounts: Resources, requested: Resources) -> float:
    return sum(amount / requested[name] for name, amount in amounts.items())
