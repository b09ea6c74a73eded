"""What is shown of a resource: its own document, a function of its own state alone, and what others add to it.

What belongs to other aggregates (a VM's rack, a group's sums) are facts: more members behind the document's own. The
functions that make them serve the fleet's answer and the database's, so that these can't differ in form.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from domain.entry import Entry
from domain.group import Group
from domain.host import Host
from domain.operation import Operation
from domain.quota import Quota
from domain.scheduling.broken import BrokenRule
from domain.tenant import Tenant
from domain.token import Token
from domain.values import About, Resources, ratios
from domain.vm import Vm
from projections import resources
from projections.amounts import Totals, in_order, with_zeros
from projections.fields import shown_time

Document = dict[str, Any]

INNER_LIST_MAX = 1_000  # a list inside a resource stops here, with `<field>_truncated`

_json = msgspec.json.Encoder().encode


# ── documents: a function of one aggregate's own state ──


def own(stream: str, entry: Entry) -> Document:
    """What the aggregate itself knows, as it is shown. A fresh dict, the caller's to complete; values may be shared."""
    of = _OWN.get(type(entry.state))
    return of(stream, entry) if of is not None else resources.own(stream, entry)


def _tenant(stream: str, entry: Entry) -> Document:
    """A tenant's owner is the tenant above it; a root has none."""
    tenant: Tenant = entry.state
    return {
        **_base(tenant.uid, tenant.name, tenant.parent, tenant.state, tenant.about, entry),
        "parent": tenant.parent,
    }


def _group(stream: str, entry: Entry) -> Document:
    group: Group = entry.state
    return {
        **_base(group.uid, group.name, None, group.state, group.about, entry),
        "region": group.region,
        "strategy": group.strategy,
        "overcommit": ratios(group.overcommit),
    }


def _quota(stream: str, entry: Entry) -> Document:
    quota: Quota = entry.state
    limits, used = quota.limits, quota.used
    return {
        **_base(quota.uid, stream[6:], quota.tenant, quota.state, quota.about, entry),
        "tenant": quota.tenant,
        "group": quota.group,
        "limits": limits,
        "used": with_zeros(used, limits),
        "available": {name: max(0, limit - used.get(name, 0)) for name, limit in limits.items()},
        "over": quota.over,
    }


def _host(stream: str, entry: Entry) -> Document:
    host: Host = entry.state
    return {
        **_base(host.uid, host.name, None, host.state, host.about, entry),
        "group": host.group,
        "rack": host.rack,
        "unit": host.unit,
        "capacity": host.capacity,
        "used": with_zeros(host.used, host.capacity),
        "bmc": msgspec.to_builtins(host.bmc) if host.bmc is not None else None,
    }


def _vm(stream: str, entry: Entry) -> Document:
    """In the writer's path of every provisioning, so spelled out: no `_base`."""
    vm: Vm = entry.state
    about = vm.about
    created_at = shown_time(entry.created_at)
    return {
        "uid": vm.uid,
        "name": vm.name,
        "display_name": about.display_name,
        "external_id": about.external_id,
        "owner": vm.tenant,
        "state": vm.state,
        "labels": about.labels,
        "description": about.description,
        "protected": about.protected,
        "version": entry.version,
        "created_at": created_at,
        "updated_at": shown_time(entry.updated_at) if entry.updated_at != entry.created_at else created_at,
        "tenant": vm.tenant,
        "group": vm.group,
        "resources": vm.resources,
        "host": vm.host,
        "cluster": None,
        "pool": None,
        "image": vm.image,
        "where": msgspec.to_builtins(vm.where) if vm.where is not None else None,
        "rules": [msgspec.to_builtins(rule) for rule in vm.rules] if vm.rules else [],
        "addresses": list(vm.addresses),
        "operation": vm.operation,
        "reason": vm.reason,
    }


def _operation(stream: str, entry: Entry) -> Document:
    """Its `message` is why it fails or is stuck; progress of the moment is no state, and joined by queries alone."""
    operation: Operation = entry.state
    id = stream[10:]
    ended_at = shown_time(entry.updated_at) if operation.is_over else None
    return {
        "uid": id,
        "name": id,
        "display_name": None,
        "external_id": None,
        "owner": owner_of_target(operation.target),
        "state": operation.state,
        "labels": {},
        "description": None,
        "protected": False,
        "version": entry.version,
        "created_at": shown_time(entry.created_at),
        "updated_at": shown_time(entry.updated_at),
        "id": id,
        "kind": operation.kind,
        "target": operation.target,
        "waiting_for": operation.waiting_for,
        "steps": [
            {
                "name": step.name,
                "controller": step.controller,
                "state": step.state,
                "attempt": step.attempt,
                "message": step.message,
            }
            for step in operation.steps
        ],
        "percent": 100 if operation.state == "succeeded" else None,
        "message": operation.reason,
        "started_at": shown_time(operation.started_at),
        "ended_at": ended_at,
    }


def _token(stream: str, entry: Entry) -> Document:
    """Never the hash."""
    token: Token = entry.state
    return {
        **_base(token.uid, token.name, token.tenant, token.state, token.about, entry),
        "role": token.role,
        "tenant": token.tenant,
        "expires_at": shown_time(token.expires_at) if token.expires_at is not None else None,
    }


_OWN: dict[type, Callable[[str, Entry], Document]] = {
    Tenant: _tenant,
    Group: _group,
    Quota: _quota,
    Host: _host,
    Vm: _vm,
    Operation: _operation,
    Token: _token,
}


def _base(uid: str, name: str, owner: str | None, state: str, about: About, entry: Entry) -> Document:
    return {
        "uid": uid,
        "name": name,
        "display_name": about.display_name,
        "external_id": about.external_id,
        "owner": owner,
        "state": state,
        "labels": about.labels,
        "description": about.description,
        "protected": about.protected,
        "version": entry.version,
        "created_at": shown_time(entry.created_at),
        "updated_at": shown_time(entry.updated_at),
    }


def owner_of_target(stream: str) -> str | None:
    """The tenant that a stream of a tenant's own speaks of; None for what no tenant has, and for operations."""
    parts = stream.split("/")
    match parts[0]:
        case "tenant" | "vm" | "cluster":
            return parts[1]
        case "quota":
            return parts[2]
        case _:
            return None


# ── facts: what others know ──


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a host stands, and in which group."""

    group: str | None = None
    rack: str | None = None
    region: str | None = None
    dc: str | None = None
    room: str | None = None


NOWHERE = Place()


def tenant_facts(*, path: Sequence[tuple[str, str]], children: Sequence[str]) -> Document:
    """`path` are names and states, root first, and ends with the tenant; `children` are sorted, one more than shown if
    there are more.

    It is suspended with any tenant above it; by whom, the nearest says.
    """
    by = next((name for name, state in reversed(path) if state == "suspended"), None)
    facts = {"suspended": by is not None, "suspended_by": by}
    return _cut({**facts, "path": [name for name, _ in path], "children": children}, "children")


def group_facts(sums: Totals) -> Document:
    return {"hosts": sums.hosts, "capacity": sums.capacity, "used": sums.used, "available": sums.available}


def quota_facts(available: Resources, *, above: Iterable[tuple[Resources, Resources]]) -> Document:
    """`above` are limits and use of the ancestors' quotas in the same group."""
    least: Resources = dict(available)
    for limits, used in above:
        for name, limit in limits.items():
            left = max(0, limit - used.get(name, 0))
            least[name] = min(least.get(name, left), left)
    return {"effective_available": in_order(least)}


def host_facts(*, place: Place, free: Resources, vms: Sequence[str]) -> Document:
    """`vms` are `tenant/vm`, sorted; one more than is shown if there are more."""
    facts = {"region": place.region, "dc": place.dc, "room": place.room, "available": free, "vms": vms}
    return _cut(facts, "vms")


def vm_facts(place: Place, broken: Sequence[Document]) -> Document:
    """Its group, too, is its host's while it has one: that is no fact beside the document, but in it."""
    return {
        "rack": place.rack,
        "dc": place.dc,
        "region": place.region,
        "room": place.room,
        "rules_broken": bool(broken),
        "broken_rules": broken,
    }


def broken_rule(broken: BrokenRule) -> Document:
    shown = {name: value for name, value in msgspec.to_builtins(broken.rule).items() if value}  # `where` is of no set
    return _cut({**shown, "vms": list(broken.vms[: INNER_LIST_MAX + 1])}, "vms")


def present_operation(
    document: Document, progress: Mapping[tuple[str, int], tuple[int | None, str | None]]
) -> Document:
    """`progress` of the moment, (percent, message) by (step, attempt): what a started step's controller told last."""
    if document["state"] != "running":
        return document
    for step in document["steps"]:
        told = progress.get((step["name"], step["attempt"])) if step["state"] == "started" else None
        if told is not None:
            document["percent"], message = told
            step["message"] = message or step["message"]
            document["message"] = message or document["message"]
    return document


def _cut(facts: Document, field: str) -> Document:
    """With the list that is its last member at its longest."""
    if len(facts[field]) > INNER_LIST_MAX:
        facts[field] = facts[field][:INNER_LIST_MAX]
        facts[field + "_truncated"] = True
    return facts
