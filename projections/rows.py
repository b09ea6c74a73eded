"""What a read model and the fleet hold of a resource.

state ── own() ──► document ──┬── row() ──► the living table ── facts.py: others' rows ──┐
                              └── resource(): the fleet knows the rest ────────────── facts ──┴──► JSON
"""

from typing import Any

import msgspec

from domain.command import CommandAccepted, CommandEvent, CommandRejected
from domain.entry import Entry
from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.group import Group
from domain.host import KIND as HOST
from domain.host import Host
from domain.operation import Operation
from domain.quota import Quota
from domain.rack import KIND as RACK
from domain.recorded import Recorded
from domain.scheduling.broken import Places, broken_for
from domain.tenant import KIND as TENANT
from domain.tenant import Tenant
from domain.token import Token
from domain.values import About, kind_of
from domain.vm import KIND as VM
from domain.vm import Vm
from projections import resources
from projections.amounts import Totals, free_on
from projections.documents import (
    NOWHERE,
    Document,
    Place,
    broken_rule,
    group_facts,
    host_facts,
    own,
    owner_of_target,
    quota_facts,
    tenant_facts,
    vm_facts,
)
from projections.fields import shown_time
from projections.tables import row_of
from projections.views import VIEWS
from projections.words import folded

_json = msgspec.json.Encoder().encode


# ── the whole resource, from the fleet ──


def resource(fleet: Fleet, stream: str, entry: Entry | None = None) -> Document | None:
    """The resource's JSON as it is now, equal to what `queries.py` gives at the fleet's position.

    `entry` is the last state of something that has just left. None: it is not there. A revoked token never leaves the
    fleet, as its name stands in the audit for ever: it answers its own revocation here, and queries omit it.
    """
    standing = fleet.entry(stream) or entry
    if standing is None:
        return None
    state = standing.state
    document = own(stream, standing)
    match state:
        case Vm():
            place = _place_of(fleet, state.host)
            if place.group is not None:
                document["group"] = place.group
            if not state.rules and state.where is None:
                return document | vm_facts(place, [])
            found = broken_for(state, fleet.broken_rules, places=Places(fleet.capacity))
            return document | vm_facts(place, [broken_rule(one) for one in found])
        case Operation() | Token():
            return document
        case Host():
            group = fleet.get(GROUP, state.group)
            names = sorted(stream[3:] for stream in fleet.streams(VM, host=state.name))
            overcommit = group.overcommit if group is not None else {}
            free = free_on(state.capacity, overcommit, state.used, is_schedulable=state.is_schedulable)
            return document | host_facts(place=_place(fleet, state), free=free, vms=names)
        case Quota():
            chain = fleet.chain(state.tenant)[1:]
            above = [(quota.limits, quota.used) for quota in fleet.quotas(state.group, chain)]
            return document | quota_facts(document["available"], above=above)
        case Tenant():
            names = fleet.chain(state.parent) if state.parent is not None else []
            tenants = [tenant for name in reversed(names) if (tenant := fleet.get(TENANT, name)) is not None]
            path = [(tenant.name, tenant.state) for tenant in (*tenants, state)]
            children = [child.name for child in fleet.each(TENANT, parent=state.name)]
            return document | tenant_facts(path=path, children=children)
        case Group():
            hosts, capacity = fleet.capacity.capacity_of(state.name)
            used, available = fleet.capacity.totals(state.name)
            return document | group_facts(Totals(hosts, capacity, used, available))
        case _:
            return resources.resource(fleet, stream, entry)


def _place_of(fleet: Fleet, host: str | None) -> Place:
    found = fleet.get(HOST, host) if host is not None else None
    return _place(fleet, found) if found is not None else NOWHERE


def _place(fleet: Fleet, host: Host) -> Place:
    rack = fleet.get(RACK, host.rack) if host.rack is not None else None
    if rack is None:
        return Place(host.group, host.rack)
    return Place(host.group, host.rack, rack.region, rack.dc, rack.room)


# ── rows: what the living tables hold ──


def row(stream: str, entry: Entry) -> dict[str, Any]:
    """The living table's row by column: `key`, the document as JSON, and what filters, sorts and joins look at."""
    if kind_of(stream) in VIEWS:
        return row_of(stream, entry)
    document = own(stream, entry)
    state = entry.state
    about: About | None = getattr(state, "about", None)
    said = (about.display_name, about.description, about.external_id) if about is not None else ()
    columns: dict[str, Any] = {
        "key": stream.partition("/")[2],
        "state": document["state"],
        "external_id": document["external_id"],
        "words": folded("\n".join([document["name"], *(text for text in said if text)])),
        "labels": _text(document["labels"]),
        "version": entry.version,
        "created_at": entry.created_at,
        "updated_at": entry.updated_at,
        "document": _text(document),
    }
    match state:
        case Vm():
            columns["tenant"], columns["name"], columns["group"] = state.tenant, state.name, state.group
            columns["host"] = state.host
            columns["sets"] = ",".join(sorted({rule.set for rule in state.rules}))
        case Operation():
            columns["owner"], columns["kind"], columns["target"] = document["owner"], state.kind, state.target
        case Host():
            columns["group"], columns["rack"] = state.group, state.rack
            columns["capacity"], columns["used"] = _text(state.capacity), _text(state.used)
        case Quota():
            columns["group"], columns["tenant"], columns["over"] = state.group, state.tenant, state.over
            columns["limits"], columns["used"] = _text(state.limits), _text(state.used)
        case Tenant():
            columns["uid"], columns["parent"] = state.uid, state.parent
        case Group():
            columns["region"], columns["overcommit"] = state.region, _text(state.overcommit)
        case Token():
            columns["role"], columns["tenant"], columns["hash"] = state.role, state.tenant, state.hash
            columns["expires_at"] = state.expires_at
        case _:
            raise AssertionError(f"{stream} holds a {type(state).__name__}")
    return columns


def audit_row(recorded: Recorded, fleet: Fleet) -> dict[str, Any]:
    """The ledger's row of a command's own event; `document` is the audit's entry. `fleet` stands at that event."""
    event: CommandEvent = recorded.event
    accepted = event if isinstance(event, CommandAccepted) else None
    rejected = event if isinstance(event, CommandRejected) else None
    outcome = "accepted" if accepted is not None else "rejected"
    owner = owner_of_target(event.resource) if event.resource is not None else None
    tenant = fleet.get(TENANT, owner) if owner is not None else None
    entry = {
        "id": event.id,
        "position": recorded.position,
        "at": shown_time(recorded.at),
        "actor": recorded.actor,
        "role": event.role,
        "token": event.token or recorded.actor,
        "source": event.source,
        "command": event.command,
        "resource": event.resource,
        "reason": event.reason,
        "request": event.request,
        "outcome": outcome,
        "problem": rejected.problem if rejected is not None else None,
        "positions": accepted.positions if accepted is not None else [],
        "operation": accepted.operation if accepted is not None else None,
        "created": accepted.created if accepted is not None else False,
        "batch": event.batch,
    }
    if accepted is not None and accepted.warnings:
        entry["warnings"] = accepted.warnings
    return {
        "position": recorded.position,
        "at": recorded.at,
        "id": event.id,
        "actor": recorded.actor,
        "resource": event.resource,
        "command": event.command,
        "outcome": outcome,
        "owner": tenant.uid if tenant is not None else None,
        "reason": folded(event.reason) if event.reason is not None else None,
        "document": _text(entry),
    }


def _text(value: Any) -> str:
    return _json(value).decode()
