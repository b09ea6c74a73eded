"""What belongs to others: read for a whole page at once, in the page's own snapshot, and put beside each document."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.values import Resources
from projections import documents
from projections.documents import Document, Place, Sums

Rows = Sequence[Row[*tuple[Any, ...]]]

_PATHS = text("""
WITH RECURSIVE up AS (
    SELECT key AS origin, key, parent, 0 AS depth FROM tenants WHERE key = ANY(:keys)
    UNION ALL
    SELECT up.origin, above.key, above.parent, depth + 1 FROM up JOIN tenants above ON above.key = up.parent
)
SELECT origin, array_agg(key ORDER BY depth DESC) FROM up GROUP BY origin
""")

_CHILDREN = text("""
SELECT asked.key, child.key FROM unnest(CAST(:keys AS text[])) AS asked (key)
CROSS JOIN LATERAL (SELECT key FROM tenants WHERE parent = asked.key ORDER BY key LIMIT :most) AS child
""")

_VMS = text("""
SELECT asked.key, vm.key FROM unnest(CAST(:keys AS text[])) AS asked (key)
CROSS JOIN LATERAL (SELECT key FROM vms WHERE host = asked.key ORDER BY key LIMIT :most) AS vm
""")

_HOSTS = text("SELECT rack, count(*) FROM hosts WHERE rack = ANY(:keys) GROUP BY rack")

_ABOVE = text("""
WITH RECURSIVE up AS (
    SELECT key AS origin, parent AS key FROM tenants
    WHERE key IN (SELECT tenant FROM quotas WHERE key = ANY(:keys)) AND parent IS NOT NULL
    UNION ALL
    SELECT up.origin, above.parent FROM up JOIN tenants above ON above.key = up.key WHERE above.parent IS NOT NULL
)
SELECT own.key, above.limits, above.used FROM quotas own JOIN up ON up.origin = own.tenant
JOIN quotas above ON above.tenant = up.key AND above.group = own.group WHERE own.key = ANY(:keys)
""")

# The log's own side table, outside of any read model: progress is never an event.
_PROGRESS = text("SELECT operation, step, attempt, percent, message FROM berth.progress WHERE operation = ANY(:keys)")

# Per class, as classes are the operator's own. A class that a host uses and no longer has counts as used alone.
# In numeric, since amounts times ratios, and their sums, may lie beyond a bigint.
_SUMS = """
SELECT name, class, sum(capacity), sum(used), sum(free), sum(usable), max(free)
FROM (
    SELECT name, class, capacity, used, usable,
        CASE WHEN capacity IS NULL THEN NULL WHEN is_free THEN greatest(0, usable - used) ELSE 0 END AS free
    FROM (
        SELECT {name} AS name, class, hosts.state = 'available' AS is_free,
            (hosts.capacity ->> class)::bigint AS capacity,
            coalesce((hosts.used ->> class)::bigint, 0) AS used,
            div((hosts.capacity ->> class)::numeric * coalesce((groups.overcommit ->> class)::bigint, 1000), 1000)
                AS usable
        FROM {source} CROSS JOIN LATERAL jsonb_object_keys(hosts.capacity || hosts.used) AS class
        WHERE {where}
    ) AS amounts
) AS frees
GROUP BY name, class
"""
_COUNTS = "SELECT {name} AS name, count(*) FROM {source} WHERE {where} GROUP BY 1"
_SOURCE = "hosts JOIN groups ON groups.key = hosts.group LEFT JOIN racks ON racks.key = hosts.rack"


async def present(connection: AsyncConnection, kind: str, found: Rows) -> list[Document]:
    """The resources of a page; each row is key, document, and the columns of the kind's listing."""
    keys = [row[0] for row in found]
    page: list[Document] = [row[1] for row in found]
    if not keys:
        return page
    match kind:
        case "vm":
            for row, document in zip(found, page, strict=True):
                group, rack, region, dc, room = row[2:7]
                documents.present_vm(document, place=Place(group, rack, region, dc, room))
        case "host":
            names = await _lists(connection, _VMS, keys)
            for row, document in zip(found, page, strict=True):
                region, dc, room, overcommit = row[2:6]
                documents.present_host(
                    document,
                    place=Place(document["group"], document["rack"], region, dc, room),
                    overcommit=overcommit,
                    schedulable=document["state"] == "available",
                    vms=names[row[0]],
                )
        case "tenant":
            paths: dict[str, list[str]] = dict((await connection.execute(_PATHS, {"keys": keys})).all())
            children = await _lists(connection, _CHILDREN, keys)
            for key, document in zip(keys, page, strict=True):
                documents.present_tenant(document, path=paths[key], children=children[key])
        case "group":
            sums = await sums_by(connection, "hosts.group", where="hosts.group = ANY(:keys)", values={"keys": keys})
            for key, document in zip(keys, page, strict=True):
                documents.present_group(document, sums=sums.get(key, documents.NOTHING))
        case "quota":
            above: defaultdict[str, list[tuple[Resources, Resources]]] = defaultdict(list)
            for key, limits, used in await connection.execute(_ABOVE, {"keys": keys}):
                above[key].append((limits, used))
            for key, document in zip(keys, page, strict=True):
                documents.present_quota(document, above=above[key])
        case "rack":
            counts: dict[str, int] = dict((await connection.execute(_HOSTS, {"keys": keys})).all())
            for key, document in zip(keys, page, strict=True):
                documents.present_rack(document, hosts=counts.get(key, 0))
        case "operation":
            await _add_progress(connection, page)
    return page


def confine(kind: str, document: Document, *, scope: str) -> Document:
    """What a token that is confined to `scope` sees of what it sees: no tenant above its own, no sums of a group."""
    if kind == "tenant":
        document["path"] = document["path"][document["path"].index(scope) :]
        if document["name"] == scope:
            document["parent"] = document["owner"] = None
    elif kind == "group":
        for field in ("hosts", "capacity", "used", "available"):
            document.pop(field, None)
    return document


async def sums_by(
    connection: AsyncConnection, name: str, *, where: str = "true", values: dict[str, Any]
) -> dict[str | None, Sums]:
    """Sums over the hosts that fulfil `where`, by the SQL expression `name`: both speak of hosts, groups and racks."""
    parts: defaultdict[str | None, tuple[Resources, ...]] = defaultdict(lambda: ({}, {}, {}, {}, {}))
    statement = text(_SUMS.format(name=name, source=_SOURCE, where=where))
    for key, resource_class, has, used, free, usable, largest in await connection.execute(statement, values):
        capacities, uses, frees, usables, largests = parts[key]
        if has is not None or used:
            uses[resource_class] = int(used)
        if has is not None:
            capacities[resource_class], frees[resource_class] = int(has), int(free)
            usables[resource_class], largests[resource_class] = int(usable), int(largest)
    counts = await connection.execute(text(_COUNTS.format(name=name, source=_SOURCE, where=where)), values)
    return {
        key: documents.in_order(Sums(count, capacities, uses, frees, usables, largests))
        for key, count in counts
        for capacities, uses, frees, usables, largests in [parts[key]]
    }


async def _lists(connection: AsyncConnection, statement: Any, keys: list[str]) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    values = {"keys": keys, "most": documents.INNER_LIST_MAX + 1}
    for key, name in await connection.execute(statement, values):
        found[key].append(name)
    return found


async def _add_progress(connection: AsyncConnection, page: list[Document]) -> None:
    running = {document["id"]: document for document in page if document["state"] == "running"}
    if not running:
        return
    told: defaultdict[str, dict[tuple[str, int], tuple[int | None, str | None]]] = defaultdict(dict)
    for id, step, attempt, percent, message in await connection.execute(_PROGRESS, {"keys": list(running)}):
        told[id][step, attempt] = (percent, message)
    for id, progress in told.items():
        documents.present_operation(running[id], progress=progress)
