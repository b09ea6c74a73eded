"""A list of the past is, byte for byte, what the list was when the read model stood there: whatever it is asked by,
sorted by, cut to, and within a scope."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from domain.fleet import Fleet
from eventlog.codec import decode
from eventlog.read import LogReader
from projections import capacity
from projections.as_of import capacity_as_of, list_as_of
from projections.capacity_of_fleet import classes
from projections.capacity_of_fleet import portion as capacity_portion
from projections.listing import CapacityQuery, ListQuery, Portion, ScopeThen
from projections.lists_of_fleet import portion
from projections.projector import catch_up
from projections.queries import ReadModel, decoded
from projections.sums import Sums
from projections.views import VIEWS
from tests.deciding import Site
from tests.projections.logs import a_site, live, write

SCOPES = (None, "acme", "search", "other")
AMOUNTS = ("cpu", "gpu", "memory_mib")
ABSENT = "no-such"


class FoldedPast:
    """Answers from fleets, as a worker of the past does."""

    def __init__(self) -> None:
        self.fleets: dict[int, Fleet] = {}

    async def list_(self, query: ListQuery, *, as_of: int) -> Portion:
        return portion(self.fleets[as_of], query)

    async def capacity(self, query: CapacityQuery, *, as_of: int) -> Portion:
        return capacity_portion(self.fleets[as_of], Sums.of(self.fleets[as_of]), query)


class Asked(NamedTuple):
    """A list, or capacity by something."""

    what: str
    more: dict[str, Any]

    async def now(self, model: ReadModel, scope: str | None) -> list[bytes]:
        ask = model.capacity if self.is_capacity else model.list_
        return await self._pages(lambda cursor: ask(self._of, cursor=cursor, scope=scope, **self.more))

    async def then(self, model: ReadModel, past: FoldedPast, position: int, scope: ScopeThen | None) -> list[bytes]:
        ask: Any = capacity_as_of if self.is_capacity else list_as_of
        return await self._pages(
            lambda cursor: ask(model, past, self._of, as_of=position, cursor=cursor, scope=scope, **self.more)
        )

    @property
    def is_capacity(self) -> bool:
        return self.what.startswith("capacity:")

    @property
    def _of(self) -> str:
        return self.what.removeprefix("capacity:")

    async def _pages(self, ask: Any) -> list[bytes]:
        """All of them, as they go to the client."""
        found = []
        cursor = None
        while True:
            page = await ask(cursor)
            found.append(msgspec.json.encode(page))
            if (cursor := page["next_cursor"]) is None:
                return found


def sorts_of(kind: str, *, is_scoped: bool) -> list[str]:
    view = VIEWS[kind]
    names = [field.name for field in view.fields if field.sorts and not (is_scoped and field.is_hidden)]
    by_amount = view.amount_sorts
    if by_amount is not None and not (is_scoped and by_amount.is_hidden):
        names += [f"{of}_{what}" for of in AMOUNTS for what in by_amount.sql]
    return [sign + name for name in names for sign in ("", "-")]


async def values_of(model: ReadModel, kind: str) -> dict[str, list[Any]]:
    """By filter, some that there are and one that there is not."""
    items = decoded(await model.list_(kind, limit=1_000))["items"]
    found: dict[str, list[Any]] = {}
    for one in VIEWS[kind].all_filters():
        match one.schema.get("type"), one.schema.get("format"):
            case "boolean", _:
                found[one.name] = [True, False]
            case _, "date-time":
                found[one.name] = [item["updated_at"] for item in items[::5]]
            case _:
                seen = {item.get(one.name) for item in items} - {None}
                if one.name == "subtree":
                    seen = {"acme", "search"}
                if one.name == "set":
                    seen = {"web"}
                found[one.name] = [*sorted(seen)[:4], ABSENT]
    found["state"] = [sorted({item["state"] for item in items})[:2], [VIEWS[kind].kind.states[0]]]
    return found


async def lists(model: ReadModel, kind: str, chance: random.Random, *, is_scoped: bool) -> list[Asked]:
    """The kind by every sort, by every filter with some values, and by several things at once."""
    sorts = sorts_of(kind, is_scoped=is_scoped)
    found = [Asked(kind, {"sort": sort, "limit": chance.choice([4, 20])}) for sort in sorts]
    values = await values_of(model, kind)
    for name, some in values.items():
        for value in some:
            asked = {"filters": {name: value}, "sort": chance.choice(sorts), "limit": 3, "count": True}
            found.append(Asked(kind, asked))
    for q in ("a", "部門", "web", "1"):
        found.append(Asked(kind, {"q": q, "sort": chance.choice(sorts), "limit": 3, "count": True}))
    for labels in (["disk=ssd"], ["row=1"], ["disk=ssd", "row=1"]):
        found.append(Asked(kind, {"labels": labels, "sort": chance.choice(sorts), "limit": 3}))
    for _ in range(10):
        some_names = chance.sample(sorted(values), 2)
        filters = {name: chance.choice(values[name]) for name in some_names}
        found.append(Asked(kind, {"filters": filters, "q": chance.choice(["a", None]), "sort": chance.choice(sorts)}))
    return found


def capacities(scope: str | None) -> Iterator[Asked]:
    places: dict[str, list[str]] = {"region": ["tp", "hk"], "dc": ["tp1"], "group": ["std"], "tenant": ["acme"]}
    amounts = ("capacity", "used", "available", "largest_fit")
    for by in capacity.BY if scope is None else ("tenant",):
        for sort in (
            "name",
            "-name",
            *(f"{sign}{of}_{what}" for of in AMOUNTS for what in amounts for sign in ("", "-")),
        ):
            yield Asked(f"capacity:{by}", {"sort": sort, "limit": 2, "count": True})
        for name, some in places.items():
            for value in (*some, ABSENT):
                yield Asked(f"capacity:{by}", {"filters": {name: value}, "count": True})
        yield Asked(f"capacity:{by}", {"filters": {"region": "tp", "group": "std"}, "q": "1"})


async def scope_then(model: ReadModel, root: str | None) -> ScopeThen | None:
    if root is None:
        return None
    _, lives = await model.in_scope(root)
    tenants, groups = ({name: life.began_at for name, life in lives[kind].items()} for kind in ("tenant", "group"))
    return ScopeThen(root, tenants, groups)


def a_history(seed: int) -> Site:
    site = a_site()
    site.given("token.create", name="short", role="viewer", expires_at="2099-01-01T00:00:00Z")
    site.given("rack.update", rack="r1", units=42, description="the tall one")
    live(site, seed=seed, commands=120)
    site.given("tenant.suspend", tenant="search")
    live(site, seed=seed + 1, commands=120)
    return site


def folded(site: Site, position: int) -> Fleet:
    fleet = Fleet()
    for row in site.rows[:position]:
        fleet.fold(decode(row))
    return fleet


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_list_of_the_past_is_what_it_was(database: Any, seed: int) -> None:
    site, chance, reader = a_history(seed), random.Random(seed), LogReader(database.service)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    moments = [ends[len(ends) // 3], ends[-1]]
    past, was, written = FoldedPast(), [], 0
    write(database.service, site.rows[:1])
    catch_up(database.service, reader)
    async with ReadModel(database.service) as model:
        for moment in moments:
            write(database.service, site.rows[max(written, 1) : moment])
            written = moment
            catch_up(database.service, reader)
            await model.wait_for(moment)
            past.fleets[moment] = folded(site, moment)
            for root in SCOPES:
                scope = await scope_then(model, root)
                is_scoped = root is not None
                questions = [one for kind in VIEWS for one in await lists(model, kind, chance, is_scoped=is_scoped)]
                if is_scoped:
                    questions = chance.sample(questions, 100)
                for asked in (*questions, *capacities(root)):
                    pages = await asked.now(model, root)
                    assert await asked.then(model, past, moment, scope) == pages, (moment, root, asked)
                    was.append((moment, scope, asked, pages))
        shown = [len(msgspec.json.decode(page)["items"]) for _, _, _, pages in was for page in pages]
        assert sum(shown) > 10_000, "too little is listed to tell anything"
        # The read model went on, and knows what has ended since.
        for moment, scope, asked, pages in was:
            if scope is None:
                assert await asked.then(model, past, moment, None) == pages, (moment, asked)
    reader.close()


@pytest.mark.parametrize("root", SCOPES)
async def test_the_classes_of_the_past_are_those_that_were_known(database: Any, root: str | None) -> None:
    site, reader = a_history(3), LogReader(database.service)
    write(database.service, site.rows)
    catch_up(database.service, reader)
    async with ReadModel(database.service) as model:
        await model.wait_for(site.fleet.position)
        scope = await scope_then(model, root)
        assert classes(site.fleet, scope) == sorted(await model.classes(scope=root))
    reader.close()
