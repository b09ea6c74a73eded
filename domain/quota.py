"""A quota: the limits of one tenant in one group, and what the tenant and its descendants use there."""

from collections.abc import Iterable
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import QuotaExceeded
from domain.kind import Kind
from domain.values import About, Resources, minus, ordered, plus


class QuotaSet(msgspec.Struct, frozen=True, omit_defaults=True):
    """Granted anew, with the use that exists; or `limits` replaced as a whole, and `used` is what it was."""

    uid: str
    group: str
    tenant: str
    limits: Resources
    used: Resources
    about: About = About()


class QuotaConsumed(msgspec.Struct, frozen=True, gc=False):
    """`by` is what takes it: a VM's stream, or the host or tenant whose move brings its use along."""

    by: str
    resources: Resources


class QuotaReleased(msgspec.Struct, frozen=True, gc=False):
    by: str
    resources: Resources


class QuotaDeleted(msgspec.Struct, frozen=True):
    pass


QuotaEvent = QuotaSet | QuotaConsumed | QuotaReleased | QuotaDeleted


class Quota(msgspec.Struct, frozen=True, gc=False):
    uid: str
    group: str
    tenant: str
    limits: Resources
    used: Resources
    state: str  # active, deleted
    about: About

    @property
    def over(self) -> bool:
        return any(self.used.get(name, 0) > limit for name, limit in self.limits.items())


def evolve(quota: Quota, event: QuotaEvent) -> Quota:
    match event:
        case QuotaConsumed():
            return replace(quota, used=plus(quota.used, event.resources))
        case QuotaReleased():
            return replace(quota, used=minus(quota.used, event.resources))
        case QuotaSet():
            return Quota(
                uid=event.uid,
                group=event.group,
                tenant=event.tenant,
                limits=event.limits,
                used=event.used,
                state="active",
                about=event.about,
            )
        case QuotaDeleted():
            return replace(quota, state="deleted")
        case _:
            assert_never(event)


def check(chain: Iterable[Quota], requested: Resources) -> None:
    """May `requested` be taken beside what is used, from each quota of the chain (the requesting tenant's first)?

    Raises:
        QuotaExceeded: with one shortfall per class and per tenant that is short.
    """
    shortfalls: list[dict[str, Any]] = []
    first: Quota | None = None
    for quota in chain:
        first = first or quota
        limits, used = quota.limits, quota.used
        for name, amount in requested.items():
            limit = limits.get(name)
            if limit is None or used.get(name, 0) + amount <= limit:
                continue
            shortfalls.append(
                {
                    "resource": name,
                    "limit": limit,
                    "used": used.get(name, 0),
                    "requested": amount,
                    "short": used.get(name, 0) + amount - limit,
                    "tenant": quota.tenant,
                    "group": quota.group,
                }
            )
    if shortfalls:
        assert first is not None
        raise QuotaExceeded(first.tenant, first.group, shortfalls)


def allows(chain: Iterable[Quota], requested: Resources) -> bool:
    """Would `check` let it pass?"""
    for quota in chain:
        used = quota.used
        for name, limit in quota.limits.items():
            if name in requested and used.get(name, 0) + requested[name] > limit:
                return False
    return True


def would_break(name: str, *, limits: Resources, used: Resources) -> list[dict[str, Any]]:
    """The classes in which `used` would stand above `limits` in quota `name`, as `below_use` tells them."""
    return [
        {"kind": "quota", "name": name, "resource": resource, "limit": limits[resource], "used": used[resource]}
        for resource in ordered(limits)
        if used.get(resource, 0) > limits[resource]
    ]


KIND = Kind(
    name="quota",
    plural="quotas",
    named_by=("group", "tenant"),
    state=Quota,
    states=("active", "deleted"),
    events={
        "quota.set": QuotaSet,
        "quota.consumed": QuotaConsumed,
        "quota.released": QuotaReleased,
        "quota.deleted": QuotaDeleted,
    },
    evolve=evolve,
    ends=frozenset({QuotaDeleted}),
    owner=lambda quota: quota.tenant,
    refs={"group": "group", "tenant": "tenant"},
    own_path="/v1/groups/{group}/quotas/{tenant}",
)
