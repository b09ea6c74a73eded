"""What belongs to others: read for a whole page at once, in the page's own snapshot, and put beside each document."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.values import Resources
from projections import documents
from projections.documents import Document, Place, Sums
from projections.sums import BY_DC

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

_SUMS = """
SELECT {name}, sums.document::text FROM sums JOIN groups ON groups.key = sums.group WHERE level = :level AND {where}
"""

_sums = msgspec.json.Decoder(Sums).decode


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
            sums = await sums_by(connection, "sums.group", where="sums.group = ANY(:keys)", values={"keys": keys})
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
    connection: AsyncConnection, name: str, *, level: str = BY_DC, where: str = "true", values: dict[str, Any]
) -> dict[str | None, Sums]:
    """Sums over the hosts that fulfil `where`, by the SQL expression `name`: both speak of sums and groups."""
    cells: defaultdict[str | None, list[Sums]] = defaultdict(list)
    statement = text(_SUMS.format(name=name, where=where))
    for key, document in await connection.execute(statement, {**values, "level": level}):
        cells[key].append(_sums(document))
    return {key: documents.total(found) for key, found in cells.items()}


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
