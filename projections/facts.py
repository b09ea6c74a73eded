"""What belongs to others: read with each row, in the same statement, and put behind what the resource itself knows.

A document goes to the client as it stands in its table: it is decoded only where a fact changes what is inside of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import literal_column

from domain.values import Overcommit, Resources
from projections import documents, resources
from projections.amounts import Totals, added, free_on, in_order
from projections.documents import Document, Place
from projections.sums import BY_DC
from projections.tables import groups, hosts, racks, vms
from projections.views import VIEWS

Facts = Sequence[bytes | None]

_MOST = documents.INNER_LIST_MAX + 1

_PATH = """
(
    WITH RECURSIVE up AS (
        SELECT own.key, own.state, own.parent, 0 AS depth FROM tenants own WHERE own.key = tenants.key
        UNION ALL
        SELECT above.key, above.state, above.parent, depth + 1 FROM up JOIN tenants above ON above.key = up.parent
    )
    SELECT json_agg(json_build_array(key, state) ORDER BY depth DESC) FROM up
)
"""
_CHILDREN = f"""
array_to_json(ARRAY(SELECT child.key FROM tenants child WHERE child.parent = tenants.key ORDER BY 1 LIMIT {_MOST}))
"""
_VMS = f"array_to_json(ARRAY(SELECT vms.key FROM vms WHERE vms.host = hosts.key ORDER BY 1 LIMIT {_MOST}))"
_SUMS = f"(SELECT json_agg(document) FROM sums WHERE level = '{BY_DC}' AND sums.group = groups.key)"
_BROKEN = "(SELECT broken_rules.document FROM broken_rules WHERE broken_rules.key = vms.key)"
_ABOVE = """
(
    WITH RECURSIVE up AS (
        SELECT own.parent FROM tenants own WHERE own.key = quotas.tenant
        UNION ALL
        SELECT above.parent FROM up JOIN tenants above ON above.key = up.parent
    )
    SELECT json_agg(json_build_array(above.limits, above.used))
    FROM up JOIN quotas above ON above.tenant = up.parent AND above.group = quotas.group
)
"""
# The log's own side table, outside of any read model: progress is never an event.
_PROGRESS = """
CASE WHEN state = 'running' THEN (
    SELECT json_agg(json_build_array(step, attempt, percent, message)) FROM berth.progress
    WHERE operation = operations.key
) END
"""

# Beside key and document, in the order in which the functions below take them.
COLUMNS: dict[str, tuple[Any, ...]] = {
    "tenant": (literal_column(_PATH), literal_column(_CHILDREN)),
    "group": (literal_column(_SUMS),),
    "host": (racks.c.region, racks.c.dc, racks.c.room, groups.c.overcommit, literal_column(_VMS)),
    "quota": (literal_column(_ABOVE),),
    "vm": (vms.c.group, hosts.c.group, hosts.c.rack, racks.c.region, racks.c.dc, racks.c.room, literal_column(_BROKEN)),
    "operation": (literal_column(_PROGRESS),),
    "token": (),
    "capacity": (groups.c.overcommit,),  # a host as a row of capacity
    **{kind: tuple(map(literal_column, resources.facts(view).values())) for kind, view in VIEWS.items()},
}

_json = msgspec.json.Encoder().encode
_document = msgspec.json.Decoder(Document).decode
_documents = msgspec.json.Decoder(list[Document]).decode
_names = msgspec.json.Decoder(list[str]).decode
_path = msgspec.json.Decoder(list[tuple[str, str]]).decode
_sums = msgspec.json.Decoder(list[Totals]).decode
_overcommit = msgspec.json.Decoder(Overcommit).decode
_above = msgspec.json.Decoder(list[tuple[Resources, Resources]]).decode
_progress = msgspec.json.Decoder(list[tuple[str, int, int | None, str | None]]).decode


class _HostPart(msgspec.Struct):
    name: str
    state: str
    capacity: Resources
    used: Resources


class _QuotaPart(msgspec.Struct):
    available: Resources


_host_part = msgspec.json.Decoder(_HostPart).decode
_quota_part = msgspec.json.Decoder(_QuotaPart).decode


def _tenant(document: bytes, facts: Facts, scope: str | None) -> bytes:
    path, children = _path(facts[0] or b""), _names(facts[1] or b"")
    found = documents.tenant_facts(path=path, children=children)
    if scope is None:
        return _with(document, found)
    own = _document(document)
    if own["name"] == scope:
        own["parent"] = own["owner"] = None
    names = found["path"][found["path"].index(scope) :]
    by = found["suspended_by"]
    return _json(own | found | {"path": names, "suspended_by": by if by in names else None})


def _group(document: bytes, facts: Facts, scope: str | None) -> bytes:
    if scope is not None:
        return document
    (cells,) = facts
    return _with(document, documents.group_facts(added(_sums(cells) if cells else ())))


def _host(document: bytes, facts: Facts, scope: str | None) -> bytes:
    region, dc, room, overcommit, vms = facts
    place = Place(None, None, _name(region), _name(dc), _name(room))
    free = _free_on(_host_part(document), overcommit)
    return _with(document, documents.host_facts(place=place, free=free, vms=_names(vms or b"")))


def _capacity(document: bytes, facts: Facts, scope: str | None) -> bytes:
    host = _host_part(document)
    capacity, used, free = map(in_order, (host.capacity, host.used, _free_on(host, facts[0])))
    row = {"name": host.name, "hosts": 1, "capacity": capacity, "used": used, "available": free, "largest_fit": free}
    return _json(row)


def _free_on(host: _HostPart, overcommit: bytes | None) -> Resources:
    ratios = _overcommit(overcommit or b"")
    return free_on(host.capacity, ratios, host.used, is_schedulable=host.state == "available")


def _quota(document: bytes, facts: Facts, scope: str | None) -> bytes:
    (above,) = facts
    available = _quota_part(document).available
    return _with(document, documents.quota_facts(available, above=_above(above) if above else ()))


def _vm(document: bytes, facts: Facts, scope: str | None) -> bytes:
    own_group, *names, broken = facts
    group, rack, region, dc, room = map(_name, names)
    added = documents.vm_facts(Place(group, rack, region, dc, room), _documents(broken) if broken else ())
    if group is None or names[0] == own_group:
        return _with(document, added)
    return _json(_document(document) | {"group": group} | added)


def _operation(document: bytes, facts: Facts, scope: str | None) -> bytes:
    (told,) = facts
    if not told:
        return document
    progress = {(step, attempt): (percent, message) for step, attempt, percent, message in _progress(told)}
    return _json(documents.present_operation(_document(document), progress=progress))


def _as_it_stands(document: bytes, facts: Facts, scope: str | None) -> bytes:
    return document


# The whole resource as JSON. Within a scope, no tenant above its own is named, and no sums of a group.
SHOWN: dict[str, Callable[[bytes, Facts, str | None], bytes]] = {
    "tenant": _tenant,
    "group": _group,
    "host": _host,
    "quota": _quota,
    "vm": _vm,
    "operation": _operation,
    "token": _as_it_stands,
    "audit": _as_it_stands,
    "capacity": _capacity,
    **{kind: resources.from_row(kind) for kind in VIEWS},
}


def _with(document: bytes, facts: Document) -> bytes:
    """A JSON object with more members."""
    return document[:-1] + b"," + _json(facts)[1:]


def _name(text: bytes | None) -> str | None:
    return text.decode() if text is not None else None
