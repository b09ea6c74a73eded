"""Nothing is answered before it is authorised, by the engine, in its own fleet: token, role, scope."""

import asyncio
import json
import time
from typing import Any

import pytest

from api import refusals
from api.tenant_scope import TenantScope
from commands.catalogue import COMMANDS, ROUTED
from commands.writer import ids
from commands.writer.engine import Engine
from commands.writer.gateway import Actor, Answer, Envelope, Item
from commands.writer.refusals import HOUR_US, REFUSAL_BYTES_MAX, REFUSALS_MAX
from domain.command import CommandRejected
from domain.host import KIND as HOST
from domain.tenant import KIND as TENANT
from domain.token import KIND as TOKEN
from domain.values import from_rfc3339
from eventlog.codec import decode
from projections.queries import Life
from tests.api.test_access import body_of
from tests.commands.writer.test_engine import ADMIN, Client, a_stocked_engine, an_engine
from tests.commands.writer.test_engine import a_vm as an_engines_vm
from tests.conftest import Database
from tests.deciding import ENGINE, VM_CONTROLLER, Site, a_site, a_vm

VIEWER = Actor("vera", "viewer")
OPERATOR = Actor("otto", "operator")
SCOPED = Actor("sam", "operator", "acme")
SCOPE = TenantScope("sam", "acme", 1, {"acme": Life(0), "payments": Life(0)}, {"std": Life(0)})
CONTROLLER_TOKEN = Actor("vm", "controller")
OTHER_CONTROLLER = Actor("ipam", "controller", origin="controller")


def progress(operation: str | None, *, step: str = "vm.create", attempt: int = 1) -> dict[str, Any]:
    return {"operation": operation, "step": step, "attempt": attempt, "outcome": "progress", "percent": 50}


def a_site_with_work() -> tuple[Site, str]:
    """A VM of payments, and the operation that creates it."""
    site = a_site()
    answer = site.given("vm.provision", **a_vm())
    assert answer.operation is not None
    return site, answer.operation


# ── progress ──


@pytest.mark.parametrize(
    ("actor", "code"),
    [(VIEWER, "forbidden"), (Actor("aud", "auditor"), "forbidden"), (OTHER_CONTROLLER, "forbidden")],
    ids=lambda value: getattr(value, "name", value),
)
def test_progress_by_who_may_not_report_is_forbidden_and_tells_nothing(actor: Actor, code: str) -> None:
    site, operation = a_site_with_work()
    site.knows(actor)
    recorded = len(site.rows)
    answer = site.when("operation.report", actor=actor, **progress(operation))
    assert answer.problem is not None
    assert (answer.problem["code"], answer.resource, answer.position) == (code, None, 0)
    assert (site.progress, len(site.rows)) == ([], recorded)


def test_progress_by_who_is_confined_to_a_tenant_is_on_nothing_that_exists() -> None:
    site, operation = a_site_with_work()
    there = site.refused("not_found", "operation.report", actor=SCOPED, **progress(operation))
    missing = site.refused("not_found", "operation.report", actor=SCOPED, **progress(unknown := ids.uuid7()))
    assert json.dumps(there).replace(operation, "") == json.dumps(missing).replace(unknown, "")
    assert site.progress == []


@pytest.mark.parametrize("actor", [VM_CONTROLLER, CONTROLLER_TOKEN, OPERATOR], ids=lambda actor: actor.origin)
def test_progress_by_who_may_report_is_kept_and_leaves_nothing_in_the_log(actor: Actor) -> None:
    site, operation = a_site_with_work()
    site.report(operation, "started")
    site.knows(actor)
    recorded = len(site.rows)
    answer = site.given("operation.report", actor=actor, **progress(operation))
    assert (answer.status, answer.operation) == (200, operation)
    assert answer.resource is not None
    assert [kept.percent for kept in site.progress] == [50]
    assert len(site.rows) == recorded


@pytest.mark.parametrize("told", [{"attempt": 2}, {"step": "vm.delete"}], ids=["attempt", "step"])
def test_progress_of_what_is_not_current_is_refused_and_not_kept(told: dict[str, Any]) -> None:
    site, operation = a_site_with_work()
    recorded = len(site.rows)
    site.refused("conflict", "operation.report", actor=VM_CONTROLLER, **progress(operation, **told))
    assert (site.progress, len(site.rows)) == ([], recorded)


# ── tokens ──


@pytest.mark.parametrize("claimed", ["nobody", "berth", "vm", "engine"])
@pytest.mark.parametrize("role", ["admin", "engine", "controller", ""])
async def test_an_actor_without_a_token_is_nobody_whatever_it_claims(
    database: Database, claimed: str, role: str
) -> None:
    async with an_engine(database.service) as client:
        position = client.engine.fleet.position
        for kind, body in (("tenant.create", {"name": "acme"}), ("token.install", {"name": "mine", "hash": "0"})):
            answer = await client.send(kind, actor=Actor(claimed, role), **body)
            assert answer.problem is not None
            assert (answer.status, answer.problem["code"], answer.position) == (401, "unauthenticated", 0)
        assert client.engine.fleet.position == position


async def test_a_token_is_refused_from_its_revocation_on(database: Database) -> None:
    async with an_engine(database.service) as client:
        await client.send("token.create", name="otto", role="operator")
        assert (await client.send("tenant.create", actor=OPERATOR, name="before")).status == 201
        revoked, late, repeated = await asyncio.gather(
            client.send("token.revoke", token="otto"),
            client.send("tenant.create", actor=OPERATOR, name="late"),
            client.send("tenant.create", actor=OPERATOR, name="before", key="k-1"),
        )
        after = await client.send("tenant.create", actor=OPERATOR, name="after")
        assert revoked.problem is None
        assert [answer.status for answer in (late, repeated, after)] == [401, 401, 401]
        assert client.engine.fleet.get(TENANT, "late") is None
        assert client.engine.fleet.position == revoked.position


async def test_a_repeat_of_a_revoked_token_tells_nothing(database: Database) -> None:
    async with an_engine(database.service) as client:
        await client.send("token.create", name="otto", role="operator")
        await client.send("tenant.create", actor=OPERATOR, key="k-1", name="acme")
        await client.send("token.revoke", token="otto")
        again = await client.send("tenant.create", actor=OPERATOR, key="k-1", name="acme")
        assert (again.status, again.resource) == (401, None)


def test_a_token_is_refused_when_its_time_is_over() -> None:
    site = a_site()
    site.given("token.create", name="otto", role="operator", expires_at="2026-09-21T15:00:00Z")
    site.given("tenant.create", actor=OPERATOR, name="before")
    site.now = from_rfc3339("2026-09-21T15:00:00Z")
    site.refused("unauthenticated", "tenant.create", actor=OPERATOR, name="after")


def test_role_and_scope_are_the_fleets_and_not_the_senders() -> None:
    site = a_site()
    site.knows(VIEWER)
    site.knows(SCOPED)
    site.refused("forbidden", "tenant.create", actor=Actor("vera", "admin"), name="mine")
    site.refused("not_found", "tenant.update", actor=Actor("sam", "admin"), tenant="acme", description="mine")
    assert site.fleet.get(TENANT, "mine") is None


def test_what_only_the_engine_commands_no_token_can() -> None:
    site, operation = a_site_with_work()
    root = Actor("root", "admin")
    for kind, body in (
        ("token.install", {"name": "mine", "hash": "0"}),
        ("operation.expire", {"operation": operation, "step": "vm.create", "attempt": 1}),
    ):
        site.refused("forbidden", kind, actor=root, **body)


# ── controllers' names ──


@pytest.mark.parametrize("name", ["vm", "rackd", "volume"])
def test_a_controllers_name_is_no_other_tokens(name: str) -> None:
    """`rackd` is one that runs here; `vm` and `volume` are those of Berth's own steps."""
    site = a_site()
    for role in ("viewer", "operator", "admin"):
        site.refused("conflict", "token.create", name=name, role=role)
    site.given("token.create", name=name, role="controller")


def test_the_engines_name_is_nobodys() -> None:
    a_site().refused("already_exists", "token.create", name="berth", role="controller")


@pytest.mark.parametrize("own", [None, "its-own"], ids=["made up", "given"])
def test_a_report_that_came_too_early_is_taken_when_it_comes_again(own: str | None) -> None:
    site, operation = a_site_with_work()
    site.report(operation, "started")
    early = {"operation": operation, "step": "vm.delete", "attempt": 1, "outcome": "started"}
    key = own or f"{operation}:vm.delete:1:started"
    sent = {"actor": VM_CONTROLLER, "key": key, "fingerprint": "f00" if own else "", **early}
    refused = site.when("operation.report", **sent)
    assert refused.problem is not None
    assert refused.problem["code"] == "conflict"
    (event,) = (decode(row).event for row in site.rows if row.position == refused.position)
    assert event.key == refused.command
    site.report(operation, "failed")
    assert site.given("operation.report", **sent).replayed is False
    assert site.given("operation.report", **sent).replayed


def test_a_token_of_old_that_bears_a_controllers_name_takes_nothing_from_it() -> None:
    """Such a name can't be given any more, but a log may have one."""
    site, operation = a_site_with_work()
    viewer = Actor("vm", "viewer")
    site.knows(viewer)
    key = f"{operation}:vm.create:1:started"
    started = {"operation": operation, "step": "vm.create", "attempt": 1, "outcome": "started"}
    refused = site.when("operation.report", actor=viewer, key=key, **started)
    assert refused.problem is not None
    assert refused.problem["code"] == "forbidden"
    assert site.given("operation.report", actor=VM_CONTROLLER, key=key, **started).replayed is False


async def test_a_refused_report_that_is_sent_again_by_the_api_is_recorded_once(database: Database) -> None:
    """The API sends an envelope again when no answer came, and another engine may have decided it."""
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        vm = await client.send("vm.provision", **an_engines_vm("web-1"))
        body = {"operation": vm.operation, "step": "vm.create", "attempt": 7, "outcome": "started"}
        item = Site.item("operation.report", body, key=f"{vm.operation}:vm.create:7:started")
        envelope = Envelope(VM_CONTROLLER, (item,), time.time() + 30.0)
        (first,) = await client.engine.submit(envelope)
        position = client.engine.fleet.position
        again = Envelope(VM_CONTROLLER, (item,), time.time() + 30.0, resent=True)
        (second,) = await client.engine.submit(again)
        assert (second.replayed, second.position, second.problem) == (True, first.position, first.problem)
        assert client.engine.fleet.position == position


# ── what a refusal leaves in the log ──


def rejected(site: Site) -> list[tuple[int, CommandRejected]]:
    """Each with the bytes that it takes."""
    found = ((len(row.state), decode(row).event) for row in site.rows if row.topic == "command.rejected")
    return [(size, event) for size, event in found if isinstance(event, CommandRejected)]


def test_what_was_forbidden_or_is_not_there_for_the_actor_is_recorded_without_its_request() -> None:
    site, operation = a_site_with_work()
    report = {"operation": operation, "step": "vm.create", "attempt": 1, "outcome": "failed"}
    large = {**report, "outputs": {"x": "x" * 200_000}}
    for actor in (VIEWER, OTHER_CONTROLLER, SCOPED):
        assert site.when("operation.report", actor=actor, **large).position > 0
    assert [event.request for _, event in rejected(site)] == [{}, {}, {}]
    assert all(size < 1_000 for size, _ in rejected(site))


def test_what_a_refusal_records_is_bounded() -> None:
    site, operation = a_site_with_work()
    late = {"operation": operation, "step": "vm.create", "attempt": 9, "outcome": "failed"}
    site.refused("conflict", "operation.report", actor=VM_CONTROLLER, **late, outputs={"x": "x" * 1_000})
    site.refused("conflict", "operation.report", actor=VM_CONTROLLER, **late, outputs={"x": "x" * 200_000})
    (small, kept), (large, bare) = rejected(site)
    assert kept.request["outputs"] == {"x": "x" * 1_000}
    assert bare.request == {}
    assert max(small, large) < REFUSAL_BYTES_MAX


def test_items_of_a_forbidden_batch_are_recorded_without_their_requests() -> None:
    site = a_site()
    items = [Site.item("tenant.create", {"name": f"t{n}", "description": "x" * 2_000}) for n in range(3)]
    answers = site.decide(items, actor=VIEWER)
    assert [answer.problem["code"] for answer in answers if answer.problem] == ["forbidden", "aborted", "aborted"]
    assert [event.request for _, event in rejected(site)] == [{}, {}, {}]


def test_an_actor_who_is_refused_all_the_time_fills_no_log() -> None:
    site = a_site()
    for n in range(REFUSALS_MAX + 50):
        site.refused("forbidden", "tenant.create", actor=VIEWER, name=f"t{n}")
    assert len(rejected(site)) == REFUSALS_MAX
    site.refused("forbidden", "tenant.create", actor=Actor("val", "viewer"), name="t")
    assert len(rejected(site)) == REFUSALS_MAX + 1
    site.now += 2 * HOUR_US
    site.refused("forbidden", "tenant.create", actor=VIEWER, name="t")
    assert len(rejected(site)) == REFUSALS_MAX + 2


# ── scope before all that can tell a difference ──

# The names of what is another tenant's, or nobody's, and as many that nothing bears.
NAMED = ("tenant", "parent", "vm", "group", "rack", "host", "token")
FOREIGN = {field: f"foreign-{'tenant' if field == 'parent' else field}" for field in NAMED}
MISSING = {field: name.replace("foreign", "missing") for field, name in FOREIGN.items()}
KIND_OF_NAME = {"tenant.create": "tenant", "rack.create": "rack", "group.create": "group", "host.register": "host"}


def a_site_with_others() -> tuple[Site, str]:
    """All that SCOPED must not see, of each kind one, and an operation there."""
    site = a_site()
    site.given("tenant.create", name="foreign-tenant")
    site.given("rack.create", name="foreign-rack", region="south", dc="dc9")
    site.given("group.create", name="foreign-group")
    site.given(
        "host.register",
        name="foreign-host",
        group="foreign-group",
        rack="foreign-rack",
        capacity={"cpu": 8, "memory_mib": 2048},
    )
    site.given("quota.set", group="foreign-group", tenant="foreign-tenant", limits={"cpu": 8})
    site.given("token.create", name="foreign-token", role="operator", tenant="foreign-tenant")
    vm = site.given(
        "vm.provision", tenant="foreign-tenant", name="foreign-vm", group="foreign-group", resources={"cpu": 1}
    )
    assert vm.operation is not None
    return site, vm.operation


def told(site: Site, kind: str, names: dict[str, str], if_match: int | None) -> str:
    """What a scoped operator is told, without the names that it sent."""
    made = {**names, "name": names[KIND_OF_NAME.get(kind, "token" if kind.startswith("token") else "vm")]}
    body = body_of(COMMANDS[kind], made)
    answer = site.when(kind, actor=SCOPED, if_match=if_match, **body)
    assert answer.resource is None
    return without(names, answer)


def without(names: dict[str, str], answer: Answer) -> str:
    """The problem as the API shows it, without the names that were sent."""
    assert answer.problem is not None
    text = json.dumps(refusals.in_scope(answer.problem, SCOPE))
    for name in names.values():
        text = text.replace(name, "…")
    return text


@pytest.mark.parametrize("if_match", [None, 1, -1], ids=["any version", "an old version", "what is there"])
@pytest.mark.parametrize("kind", sorted(ROUTED))
def test_what_is_foreign_cannot_be_told_from_what_is_not_there(kind: str, if_match: int | None) -> None:
    site, operation = a_site_with_others()
    foreign = told(site, kind, {**FOREIGN, "operation": operation}, if_match)
    missing = told(site, kind, {**MISSING, "operation": ids.uuid7()}, if_match)
    assert foreign == missing


@pytest.mark.parametrize(
    "more",
    [{"group": "{group}"}, {"group": ["std", "{group}"]}, {"where": {"host": "{host}"}}, {"where": {"rack": "{rack}"}}],
    ids=["group", "groups", "host", "rack"],
)
def test_foreign_names_in_a_body_cannot_be_told_from_missing_ones(more: dict[str, Any]) -> None:
    site, _ = a_site_with_others()
    found = []
    for names in (FOREIGN, MISSING):
        answer = site.when("vm.provision", actor=SCOPED, **{**a_vm("own", cpu=4), **_filled(more, names)})
        found.append(without(names, answer))
    assert found[0] == found[1]


def _filled(value: Any, names: dict[str, str]) -> Any:
    match value:
        case dict():
            return {key: _filled(entry, names) for key, entry in value.items()}
        case list():
            return [_filled(entry, names) for entry in value]
        case str():
            return value.format(**names)
    return value


def test_what_is_not_found_is_told_before_a_version_that_does_not_match() -> None:
    site = a_site()
    site.refused("not_found", "host.move", host="h0", group="nowhere", if_match=1)
    site.refused("version_mismatch", "host.move", host="h0", group="std", if_match=1)
    assert site.fleet.get(HOST, "h0") is not None


# ── repeats ──


def test_a_repeat_shows_nothing_of_what_left_the_scope() -> None:
    site = a_site()
    first = site.given("vm.provision", actor=SCOPED, key="k-1", **a_vm())
    site.given("tenant.move", tenant="payments", parent=None)
    again = site.given("vm.provision", actor=SCOPED, key="k-1", **a_vm())
    assert (again.replayed, again.command, again.position) == (True, first.command, first.position)
    assert (again.status, again.resource, again.version, again.operation) == (200, None, 0, None)
    site.given("tenant.move", tenant="payments", parent="acme")
    assert site.given("vm.provision", actor=SCOPED, key="k-1", **a_vm()).resource is not None


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
async def test_who_waits_is_told_nothing_of_what_left_the_scope_meanwhile(database: Database, outcome: str) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        await client.send("token.create", name="sam", role="operator", tenant="acme")
        waiting = [
            asyncio.create_task(client.send("vm.provision", actor=SCOPED, wait_s=20, key=key, **an_engines_vm("web-1")))
            for key in ("k-1",)
        ]
        while not client.engine.fleet.outstanding:
            await asyncio.sleep(0)
        (operation,) = client.engine.fleet.outstanding
        await client.report(operation, "started")
        await client.send("tenant.move", tenant="payments", parent=None, force=True)
        await client.report(operation, outcome)
        if outcome == "failed":
            await client.report(operation, "succeeded", "vm.delete")
        waited = await waiting[0]
        again = await client.send("vm.provision", actor=SCOPED, wait_s=20, key="k-1", **an_engines_vm("web-1"))
        for answer in (waited, again):
            assert (answer.status, answer.resource, answer.operation, answer.problem) == (200, None, None, None)
            assert answer.position == waited.position


# ── a batch's key ──


def keyed(client: Client, key: str, *names: str, fingerprint: str = "") -> tuple[Item, ...]:
    return tuple(
        client.item("tenant.create", {"name": name}, key=f"{key}.{n}", fingerprint=fingerprint or "+".join(names))
        for n, name in enumerate(names)
    )


async def send_batch(engine: Engine, items: tuple[Item, ...], key: str, **more: Any) -> list[Answer]:
    return await engine.submit(Envelope(ADMIN, items, time.time() + 30.0, batch=key, **more))


def codes(answers: list[Answer]) -> list[str | None]:
    return [answer.problem["code"] if answer.problem is not None else None for answer in answers]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("used", ["b", "b.0", "b.1", "b.2"])
async def test_a_key_that_was_used_alone_keeps_the_whole_batch_back(
    database: Database, used: str, atomic: bool
) -> None:
    async with an_engine(database.service) as client:
        await client.send("tenant.create", name="first", key=used, fingerprint="alone")
        answers = await send_batch(client.engine, keyed(client, "b", "one", "two", "three"), "b", atomic=atomic)
        assert codes(answers) == ["idempotency_mismatch"] * 3
        assert [client.engine.fleet.get(TENANT, name) for name in ("one", "two", "three")] == [None] * 3
    async with an_engine(database.service) as client:  # whose memory holds no receipts
        answers = await send_batch(client.engine, keyed(client, "b", "one", "two", "three"), "b", atomic=atomic)
        assert codes(answers) == ["idempotency_mismatch"] * 3


async def test_a_key_of_a_batch_that_is_under_way_is_nobody_elses(database: Database) -> None:
    async with an_engine(database.service) as client:
        names = [f"t{n}" for n in range(600)]
        batch = asyncio.create_task(send_batch(client.engine, keyed(client, "b", *names), "b"))
        while client.engine.fleet.get(TENANT, "t0") is None:
            await asyncio.sleep(0)
        last = await client.send("tenant.create", name="other", key="b.599", fingerprint="alone")
        assert codes([last]) == ["idempotency_mismatch"]
        assert codes(await batch) == [None] * 600
        assert client.engine.fleet.get(TENANT, "other") is None


@pytest.mark.parametrize("again", [("one",), ("one", "two", "three"), ("one", "other")], ids=len)
async def test_another_batch_under_a_used_key_does_nothing(database: Database, again: tuple[str, ...]) -> None:
    async with an_engine(database.service) as client:
        first = await send_batch(client.engine, keyed(client, "b", "one", "two"), "b")
        position = client.engine.fleet.position
        other = await send_batch(client.engine, keyed(client, "b", *again), "b")
        assert codes(other) == ["idempotency_mismatch"] * len(again)
        same = await send_batch(client.engine, keyed(client, "b", "one", "two"), "b")
        assert [answer.position for answer in same] == [answer.position for answer in first]
        assert client.engine.fleet.position == position


async def test_the_key_of_a_batch_is_no_commands_and_that_of_an_item_no_batchs(database: Database) -> None:
    async with an_engine(database.service) as client:
        await send_batch(client.engine, keyed(client, "b", "one", "two"), "b")
        alone = await client.send("tenant.create", name="three", key="b", fingerprint="alone")
        below = await send_batch(client.engine, keyed(client, "b.1", "four"), "b.1")
        assert codes([alone, *below]) == ["idempotency_mismatch"] * 2
        assert client.engine.fleet.get(TENANT, "three") is client.engine.fleet.get(TENANT, "four") is None


async def test_a_batch_whose_first_item_was_no_command_has_its_key_all_the_same(database: Database) -> None:
    """The items of a batch are those that could be meant so, by their index."""
    async with an_engine(database.service) as client:
        second = keyed(client, "b", "bad", "one")[1:]
        assert codes(await send_batch(client.engine, second, "b")) == [None]
        other = await send_batch(client.engine, keyed(client, "b", "two"), "b")
        alone = await client.send("tenant.create", name="three", key="b", fingerprint="alone")
        assert codes([*other, alone]) == ["idempotency_mismatch"] * 2
        assert (await send_batch(client.engine, second, "b"))[0].replayed


async def test_a_dry_run_between_settles_nothing(database: Database) -> None:
    async with an_engine(database.service) as client:
        tried = await send_batch(client.engine, keyed(client, "b", "one", "two"), "b", dry_run=True)
        assert codes(tried) == [None, None]
        done = await send_batch(client.engine, keyed(client, "b", "three", "four"), "b")
        assert codes(done) == [None, None]
        assert client.engine.fleet.get(TENANT, "one") is None


def test_the_engine_itself_and_controllers_over_nats_need_no_token() -> None:
    site, operation = a_site_with_work()
    site.given(
        "operation.report", actor=VM_CONTROLLER, operation=operation, step="vm.create", attempt=1, outcome="started"
    )
    site.refused("conflict", "operation.expire", actor=ENGINE, operation=operation, step="vm.create", attempt=1)
    assert site.fleet.get(TOKEN, "vm") is site.fleet.get(TOKEN, "berth") is None
