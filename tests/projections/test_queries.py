"""What queries give is what the fleet gives, in every list order, page by page, and within a scope."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import psycopg
import pytest

from domain.errors import Forbidden, Unavailable
from domain.fleet import Fleet
from domain.invariants import violations
from domain.token import KIND as TOKEN
from eventlog.codec import decode
from eventlog.read import LogReader
from projections import schema, sessions
from projections.capacity import CapacityItem, page
from projections.definitions import SCHEMA
from projections.pages import COUNT_MAX
from projections.projector import catch_up
from projections.queries import ReadModel, decoded
from projections.resources import resource
from projections.tables import LIVING
from tests.deciding import Site
from tests.projections.logs import a_site, live, write

NAMED = {"vm": 2, "quota": 2}


class Model(ReadModel):
    """The read model, with pages that can be looked into."""

    async def list_(self, *asked: Any, **more: Any) -> dict[str, Any]:
        return decoded(await super().list_(*asked, **more))

    async def capacity(self, *asked: Any, **more: Any) -> dict[str, Any]:
        return decoded(await super().capacity(*asked, **more))

    async def audit(self, **asked: Any) -> dict[str, Any]:
        return decoded(await super().audit(**asked))


@pytest.fixture(scope="module")
def site() -> Site:
    site = a_site()
    live(site, seed=7, commands=300)
    return site


@pytest.fixture
async def model(database: Any, site: Site) -> AsyncIterator[ReadModel]:
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    async with Model(database.service) as model:
        await model.wait_for(site.fleet.position)
        yield model


def shown(fleet: Fleet, kind: str) -> dict[str, dict[str, Any]]:
    """By key, all that a list of the kind must show (of operations: those that run)."""
    found: dict[str, dict[str, Any]] = {}
    for stream in fleet.living[kind]:
        document = resource(fleet, stream)
        assert document is not None
        if (kind, document["state"]) != ("token", "revoked"):
            found[stream.partition("/")[2]] = document
    return found


async def everything(model: ReadModel, kind: str, *, limit: int = 3, **asked: Any) -> list[dict[str, Any]]:
    """All pages of a list, in small pages."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await model.list_(kind, cursor=cursor, limit=limit, **asked)
        items += page["items"]
        if (cursor := page["next_cursor"]) is None:
            return items


def key_of(kind: str, document: dict[str, Any]) -> str:
    return f"{document['tenant']}/{document['name']}" if kind == "vm" else str(document["name"])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_is_read_equals_what_the_fleet_shows(database: Any, seed: int) -> None:
    site = a_site()
    live(site, seed=seed, commands=250)
    site.given("host.register", name="spare", group="mem", capacity={"cpu": 4})
    site.given("quota.set", group="mem", tenant="other", limits={})
    site.given("vm.provision", tenant="other", name="last", group="mem", resources={"cpu": 4})
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    async with Model(database.service) as model:
        await model.wait_for(site.fleet.position)
        for kind in LIVING:
            expected = shown(site.fleet, kind)
            assert expected, f"this history has no {kind}"
            filters = {"state": ["running", "stuck"]} if kind == "operation" else {}
            page = await model.list_(kind, filters=filters, limit=1000)
            assert page["position"] == site.fleet.position
            assert {key_of(kind, item): item for item in page["items"]} == expected
            for key, document in expected.items():
                assert await model.one(kind, *key.split("/", NAMED.get(kind, 1) - 1)) == document


async def test_an_ended_operation_is_shown_for_ever(model: ReadModel, site: Site) -> None:
    fleet, ended = Fleet(), {}
    for row in site.rows:
        entry = fleet.fold(decode(row))
        if entry is not None and row.stream.startswith("operation/") and fleet.entry(row.stream) is None:
            ended[row.stream.partition("/")[2]] = resource(fleet, row.stream, entry)
    assert len(ended) > 10
    for id, document in ended.items():
        assert await model.one("operation", id) == document


async def test_progress_of_a_started_step_is_shown_and_of_another_attempt_is_not(database: Any) -> None:
    site = a_site()
    operations = [
        site.given("vm.provision", tenant="acme", name=f"p{n}", group="std", resources={"cpu": 1}).operation
        for n in range(2)
    ]
    for operation in operations:
        site.report(operation, "started")
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    with psycopg.connect(database.service) as connection:
        connection.cursor().executemany(
            "INSERT INTO berth.progress (operation, step, attempt, percent, message)"
            " VALUES (%s, 'vm.create', %s, 40, %s)",
            [(operations[0], 1, "copying"), (operations[1], 2, "too early")],
        )
    async with Model(database.service) as model:
        told = await model.one("operation", str(operations[0]))
        assert told is not None
        assert (told["percent"], told["message"], told["steps"][0]["message"]) == (40, "copying", "copying")
        untold = await model.one("operation", str(operations[1]))
        assert untold is not None
        assert (untold["percent"], untold["message"]) == (None, None)


SORTS = {
    "host": [
        "name",
        "-name",
        "rack",
        "-dc",
        "cpu_available",
        "-cpu_used",
        "gpu_capacity",
        "-updated_at",
        "external_id",
    ],
    "vm": ["name", "-name", "host", "-group", "created_at", "image", "-state", "tenant", "rack"],
    "group": ["hosts", "cpu_available", "-cpu_used", "memory_mib_capacity", "region", "-description"],
    "quota": ["name", "cpu_available", "-cpu_used", "memory_mib_capacity", "over", "tenant"],
    "tenant": ["parent", "-display_name", "owner", "uid"],
    "operation": ["name", "-started_at", "ended_at", "kind", "target"],
    "rack": ["-hosts", "room", "-units", "version"],
    "token": ["role", "expires_at"],
}


@pytest.mark.parametrize("kind", SORTS)
async def test_pages_give_each_row_once_and_in_order(model: ReadModel, kind: str) -> None:
    for sort in SORTS[kind]:
        await pages_are_in_order(model, kind, sort)


async def pages_are_in_order(model: ReadModel, kind: str, sort: str) -> None:
    whole = (await model.list_(kind, sort=sort, limit=1000))["items"]
    assert await everything(model, kind, sort=sort, limit=1 if len(whole) < 10 else 3) == whole
    assert len({key_of(kind, item) for item in whole}) == len(whole)
    field = sort.removeprefix("-")
    resource_class, _, what = field.rpartition("_")
    if what in ("available", "used", "capacity"):
        field_of = {"capacity": "limits"}.get(what, what) if kind == "quota" else what
        absent = None if kind == "quota" and what != "used" else 0
        values = [item[field_of].get(resource_class, absent) for item in whole]
    else:
        values = [item.get(field) for item in whole]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known, "nulls come last"
    assert known == sorted(known, reverse=sort.startswith("-"))


FILTERS: list[tuple[str, dict[str, Any]]] = [
    ("vm", {"group": "std"}),
    ("vm", {"tenant": "payments"}),
    ("vm", {"dc": "tp1", "state": ["active", "creating"]}),
    ("vm", {"owner": "acme"}),
    ("vm", {"rack": "r1"}),
    ("host", {"group": "mem", "state": "available"}),
    ("host", {"region": "tp"}),
    ("host", {"room": "room-2"}),
    ("host", {"external_id": "asset-1"}),
    ("quota", {"over": True}),
    ("quota", {"over": False, "group": "mem"}),
    ("operation", {"state": ["failed"], "kind": "vm.provision"}),
    ("operation", {"owner": "payments"}),
    ("tenant", {"parent": "acme"}),
    ("tenant", {"owner": "acme"}),
    ("rack", {"dc": "tp1"}),
    ("group", {"region": "tp"}),
]


@pytest.mark.parametrize(("kind", "filters"), FILTERS)
async def test_a_filter_shows_what_has_that_value(model: ReadModel, kind: str, filters: dict[str, Any]) -> None:
    whole = (await model.list_(kind, limit=1000))["items"]
    expected = [
        item
        for item in whole
        if all(
            item[field] in value if isinstance(value, list) else item[field] == value
            for field, value in filters.items()
        )
    ]
    answer = await model.list_(kind, filters=filters, limit=1000, count=True)
    assert answer["items"] == expected
    assert answer["count"] == len(expected)


async def test_lists_are_found_by_subtree_set_label_words_and_time(model: ReadModel, site: Site) -> None:
    vms = (await model.list_("vm", limit=1000))["items"]
    below = site.fleet.subtree("acme")
    found = await model.list_("vm", filters={"subtree": "acme"}, limit=1000)
    assert found["items"] == [vm for vm in vms if vm["tenant"] in below]
    found = await model.list_("vm", filters={"set": "web"}, limit=1000)
    assert found["items"] == [vm for vm in vms if vm["rules"]]
    hosts = (await model.list_("host", limit=1000))["items"]
    found = await model.list_("host", labels=["disk=ssd"])
    assert found["items"] == [host for host in hosts if host["labels"].get("disk") == "ssd"]
    assert (await model.list_("host", labels=["disk=ssd", "disk=hdd"]))["items"] == []
    assert [item["name"] for item in (await model.list_("tenant", q="部門 ACME"))["items"]] == ["acme"]
    assert [item["name"] for item in (await model.list_("group", q="Much"))["items"]] == ["mem"]
    middle = sorted(vm["updated_at"] for vm in vms)[len(vms) // 2]
    found = await model.list_("vm", filters={"updated_since": middle}, limit=1000)
    assert found["items"] == [vm for vm in vms if vm["updated_at"] >= middle]


async def test_a_page_shows_what_stands_all_the_while_once(database: Any) -> None:
    site = a_site()
    live(site, seed=9, commands=150)
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    async with Model(database.service) as model:
        await model.wait_for(site.fleet.position)
        await paging_misses_nothing(database, site, model)


async def paging_misses_nothing(database: Any, site: Site, model: ReadModel) -> None:
    before = [key_of("vm", item) for item in (await model.list_("vm", limit=1000))["items"]]
    first = await model.list_("vm", limit=2)
    written = len(site.rows)
    live(site, seed=11, commands=60)
    write(database.service, site.rows[written:])
    catch_up(database.service, LogReader(database.service))
    await model.wait_for(site.fleet.position)
    seen = [key_of("vm", item) for item in first["items"]]
    cursor = first["next_cursor"]
    while cursor is not None:
        page = await model.list_("vm", limit=2, cursor=cursor)
        seen += [key_of("vm", item) for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen))
    assert set(before) & set(shown(site.fleet, "vm")) <= set(seen)


@pytest.mark.parametrize("sort", ["name", "-name", "cpu_available", "-cpu_available"])
def test_pages_of_capacity_go_on_where_they_were(sort: str) -> None:
    amounts = {"a": 3, "b": 1, "ba": 3, "c": 0, None: 3}
    lines = [CapacityItem(name, row={"available": {"cpu": amount}}) for name, amount in amounts.items()]
    whole, end = page(lines, sort=sort, after=None, limit=5)
    assert end is None
    for kept in ({"a", "b", "ba", "c", None}, {"a", "c", None}, {"ba"}):
        _, after = page(lines, sort=sort, after=None, limit=2)
        rest, _ = page([line for line in lines if line.name in kept], sort=sort, after=after, limit=5)
        assert rest == [line for line in whole[2:] if line.name in kept]


async def test_a_cursor_is_good_for_its_own_list_alone(model: ReadModel) -> None:
    cursor = (await model.list_("host", limit=1))["next_cursor"]
    for asked in ({"sort": "-name"}, {"filters": {"group": "std"}}, {"q": "h"}, {"scope": "acme"}):
        with pytest.raises(ValueError, match="belongs to a list"):
            await model.list_("host", cursor=cursor, **asked)
    with pytest.raises(ValueError, match="no cursor"):
        await model.list_("host", cursor="abc")
    with pytest.raises(ValueError, match="no filter colour"):
        await model.list_("host", filters={"colour": "red"})
    with pytest.raises(ValueError, match="can't sort by 'bmc'"):
        await model.list_("host", sort="bmc")


async def test_who_is_below_a_suspended_tenant_says_so_and_by_whom(database: Any) -> None:
    site = a_site()
    site.given("tenant.suspend", tenant="acme")
    site.given("tenant.suspend", tenant="search")
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))

    def told(items: Iterable[dict[str, Any]]) -> dict[str, tuple[str, bool, str | None]]:
        return {item["name"]: (item["state"], item["suspended"], item["suspended_by"]) for item in items}

    async with Model(database.service) as model:
        await model.wait_for(site.fleet.position)
        everywhere = (await model.list_("tenant"))["items"]
        assert told(everywhere) == {
            "acme": ("suspended", True, "acme"),
            "payments": ("active", True, "acme"),
            "search": ("suspended", True, "search"),
            "ads": ("active", True, "search"),
            "other": ("active", False, None),
        }
        assert {item["name"]: item for item in everywhere} == shown(site.fleet, "tenant")
        below = (await model.list_("tenant", scope="payments"))["items"]
        assert told(below) == {"payments": ("active", True, None)}, "who is above a scope has no name there"
        below = (await model.list_("tenant", scope="search"))["items"]
        assert told(below) == {"search": ("suspended", True, "search"), "ads": ("active", True, "search")}


async def test_who_asks_too_much_is_told_to_ask_for_less(
    database: Any, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "STATEMENT_S_MAX", 1)
    with psycopg.connect(database.service) as held:
        held.execute(schema.USE, (SCHEMA,))
        held.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="since and until"):
            await model.audit(q="rare")
    assert (await model.audit(q="rare"))["items"] == []


async def test_a_count_goes_so_far_and_no_further(database: Any, model: ReadModel) -> None:
    assert "count_truncated" not in await model.audit(limit=1, count=True)
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        columns = "at, id, actor, resource, command, outcome, owner, reason, document"
        connection.execute(
            f"INSERT INTO audit SELECT 1000000 + n, {columns} FROM generate_series(0, %s) AS n,"  # type: ignore[arg-type]
            " (SELECT * FROM audit LIMIT 1) AS one",
            (COUNT_MAX,),
        )
    page = await model.audit(limit=1, count=True, filters={"since": "1000000"})
    assert (page["count"], page["count_truncated"]) == (COUNT_MAX, True)
    page = await model.audit(limit=1, count=True, filters={"since": "1000001"})
    assert page["count"] == COUNT_MAX
    assert "count_truncated" not in page


async def test_a_scope_hides_what_is_outside_of_it(model: ReadModel, site: Site) -> None:
    for scope in ("acme", "other", "search"):
        below = set(site.fleet.subtree(scope))
        vms = (await model.list_("vm", limit=1000, scope=scope))["items"]
        assert vms == [vm for vm in (await model.list_("vm", limit=1000))["items"] if vm["tenant"] in below]
        tenants = (await model.list_("tenant", scope=scope))["items"]
        assert {tenant["name"] for tenant in tenants} == below
        assert all(tenant["path"][0] == scope for tenant in tenants)
        assert all(tenant["parent"] is None for tenant in tenants if tenant["name"] == scope)
        quotas = (await model.list_("quota", scope=scope))["items"]
        assert {quota["tenant"] for quota in quotas} <= below
        groups = (await model.list_("group", scope=scope))["items"]
        assert {group["name"] for group in groups} == {quota["group"] for quota in quotas}
        assert all("capacity" not in group and "hosts" not in group for group in groups)
        operations = (await model.list_("operation", scope=scope, limit=1000))["items"]
        assert {operation["owner"] for operation in operations} <= below
        for kind in ("host", "rack", "token"):
            assert (await model.list_(kind, scope=scope))["items"] == []
        for kind in ("vm", "quota"):
            inside = (await model.list_(kind, scope=scope, filters={"subtree": scope}, limit=1000))["items"]
            assert inside == (await model.list_(kind, scope=scope, limit=1000))["items"]
    for kind in ("vm", "quota"):
        above = await model.list_(kind, scope="search", filters={"subtree": "acme"}, count=True)
        assert (above["items"], above["count"]) == ([], 0), "who is above a scope is nobody there"
    assert await model.one("host", "h1", scope="acme") is None
    assert await model.one("vm", "nobody", "x", scope="acme") is None
    with pytest.raises(Forbidden):
        await model.capacity("host", scope="acme")


async def test_a_scoped_audit_shows_commands_on_the_subtree(model: ReadModel, site: Site) -> None:
    below = set(site.fleet.subtree("acme"))
    operations = {op["id"]: op["owner"] for op in (await model.list_("operation", limit=1000))["items"]}

    def tenant_of(stream: str) -> str | None:
        kind, *names = stream.split("/")
        match kind:
            case "operation":
                return operations.get(names[0])
            case "quota":
                return names[1]
            case "tenant" | "vm":
                return names[0]
        return None

    whole = (await model.audit(limit=1000))["items"]
    scoped = (await model.audit(limit=1000, scope="acme"))["items"]
    assert scoped == [entry for entry in whole if tenant_of(entry["resource"]) in below]
    hidden = next(entry for entry in whole if entry["resource"].startswith("host/"))
    assert await model.command(hidden["id"]) == hidden
    assert await model.command(hidden["id"], scope="acme") is None


async def test_the_audit_has_an_entry_a_command_in_the_logs_order(model: ReadModel, site: Site) -> None:
    commands = [row for row in site.rows if row.topic.startswith("command.")]
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await model.audit(limit=100, cursor=cursor)
        seen += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert [entry["position"] for entry in seen] == [row.position for row in commands]
    refused = [entry for entry in seen if entry["outcome"] == "rejected"]
    assert (await model.audit(filters={"outcome": "rejected"}, limit=1000))["items"] == refused
    assert all(entry["problem"]["code"] for entry in refused)
    falling = await model.audit(sort="-position", limit=2)
    assert falling["items"] == [seen[-1], seen[-2]]
    since = {"since": str(seen[10]["position"]), "until": seen[20]["at"]}
    assert (await model.audit(filters=since, limit=1000))["items"] == seen[10:21]
    command = {"command": "quota.set", "actor": "ann"}
    expected = [entry for entry in seen if entry["command"] == "quota.set"]
    assert (await model.audit(filters=command, limit=1000))["items"] == expected


async def test_capacity_by_anything_adds_up_to_the_hosts(model: ReadModel, site: Site) -> None:
    assert violations(site.fleet) == []
    by = {name: (await model.capacity(name))["items"] for name in ("region", "dc", "rack", "group", "host", "tenant")}
    for name in ("region", "dc", "rack", "group"):
        for what in ("capacity", "used", "available"):
            for resource_class in ("cpu", "memory_mib"):
                total = sum(row[what].get(resource_class, 0) for row in by[name])
                assert total == sum(row[what].get(resource_class, 0) for row in by["host"]), (name, what)
        assert max(row["largest_fit"].get("cpu", 0) for row in by[name]) == max(
            row["available"]["cpu"] for row in by["host"]
        )
    groups = {group["name"]: group for group in (await model.list_("group"))["items"]}
    assert all(row["available"] == groups[row["name"]]["available"] for row in by["group"])
    quotas = (await model.list_("quota", limit=1000))["items"]
    for row in by["tenant"]:
        own = [quota for quota in quotas if quota["tenant"] == row["name"]]
        assert row["capacity"].get("cpu", 0) == sum(quota["limits"].get("cpu", 0) for quota in own)
        assert row["used"].get("vms", 0) == sum(quota["used"].get("vms", 0) for quota in own)
    scoped = (await model.capacity("tenant", scope="other"))["items"]
    assert scoped == [row for row in by["tenant"] if row["name"] in site.fleet.subtree("other")]
    std = (await model.capacity("host", filters={"group": "std", "region": "tp"}))["items"]
    hosts = (await model.list_("host", filters={"group": "std", "region": "tp"}, limit=1000))["items"]
    assert [row["name"] for row in std] == [host["name"] for host in hosts]


async def test_what_top_tenants_were_promised_is_shown_per_group(database: Any) -> None:
    site = a_site()
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    async with Model(database.service) as model:
        std, mem = sorted((await model.capacity("group"))["items"], key=lambda row: row["name"], reverse=True)
    assert std["promised"] == {"cpu": 40, "vms": 40}  # acme's; payments and ads are below it
    assert std["unpromised"]["cpu"] == (8 + 10 + 12) * 3 // 2 - 40
    assert mem["promised"] == {"cpu": 20}


async def test_a_token_is_known_by_its_hash_revoked_or_not(model: ReadModel, site: Site) -> None:
    hashes = {}
    for name, state in (("boss", "active"), ("gone", "revoked")):
        token = site.fleet.get(TOKEN, name)
        assert token is not None
        found = (await model.tokens_by_hash(["none", token.hash]))[token.hash]
        assert (found.name, found.state, found.tenant) == (name, state, token.tenant)
        hashes[name] = token.hash
    assert await model.one("token", "gone") is None
    assert await model.tokens_by_hash(["none"]) == {}
    both = await model.tokens_by_hash(list(hashes.values()))
    assert {hash: token.name for hash, token in both.items()} == {hash: name for name, hash in hashes.items()}


async def test_a_long_list_inside_a_resource_says_that_it_was_cut(database: Any) -> None:
    site = Site()
    site.given("tenant.create", name="root")
    for n in range(1001):
        site.given("tenant.create", name=f"t{n}", parent="root")
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    async with Model(database.service) as model:
        found = await model.one("tenant", "root")
    assert found == resource(site.fleet, "tenant/root")
    assert found is not None
    assert len(found["children"]) == 1000
    assert found["children_truncated"] is True


async def test_amounts_beyond_64_bits_are_summed_and_sorted(database: Any) -> None:
    site = Site()
    most, ratio = 2**53 - 1, 1000
    site.given("group.create", name="std", overcommit={"cpu": ratio})
    for n in range(3):
        site.given("host.register", name=f"h{n}", group="std", capacity={"cpu": most - n})
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    async with Model(database.service) as model:
        await model.wait_for(site.fleet.position)
        group = await model.one("group", "std")
        assert group == resource(site.fleet, "group/std")
        assert group["available"]["cpu"] == sum((most - n) * ratio for n in range(3))
        for kind in ("host", "group"):
            falling = await everything(model, kind, sort="-cpu_available", limit=1)
            assert [document["available"]["cpu"] for document in falling] == sorted(
                (document["available"]["cpu"] for document in falling), reverse=True
            )


async def test_within_a_scope_nobody_sorts_by_what_the_scope_does_not_show(model: ReadModel) -> None:
    for sort in ("hosts", "-cpu_available"):
        assert (await model.list_("group", sort=sort))["items"]
        with pytest.raises(ValueError, match="may not see sums"):
            await model.list_("group", sort=sort, scope="acme")
    assert (await model.list_("quota", sort="cpu_available", scope="acme"))["items"]
