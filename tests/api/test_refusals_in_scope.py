"""What a scope shows of a refusal is listed for each code: nothing of it names what its reader doesn't see."""

import json
from typing import Any

import pytest

from api import refusals
from api.tenant_scope import TenantScope
from domain import errors
from domain.errors import DomainError
from projections.queries import Life
from tests.api.served import Api

SCOPE = TenantScope("reader", "own", 100, {"own": Life(10, "u1"), "team": Life(50, "u2")}, {"lit": Life(20)})
FOREIGN = ("tango", "dark", "h7", "corp")  # tenants, groups and hosts that the reader does not see

SHORT = {"resource": "cpu", "limit": 4, "used": 4, "requested": 1, "short": 1, "tenant": "corp", "group": "dark"}
REASONS = [{"reason": "insufficient:cpu", "hosts": 3}]
NEAREST = {"host": "h7", "short": {"cpu": 1}}
ELSEWHERE = [{"group": "dark", "hosts": 3, "quota_ok": False}]
OF_DARK = {"group": "dark", **errors.NoQuota("tango", "dark", ["dark"]).problem()}
BELOW = {"resource": "cpu", "limit": 1, "used": 2}

# One of each at least, decided for somebody who sees everything.
RECORDED: list[DomainError] = [
    errors.Forbidden("vm.provision"),
    errors.NotFound("vm", "tango/web", "tango/web-1"),
    errors.NotFound("group", "dakr", "dark"),
    errors.NotFound("host", "h8", "h7"),
    errors.AlreadyExists("vm", "tango/web"),
    errors.InUse("tenant", "own", ["tenant/tango", "vm/tango/web", "token/tango-ci"]),
    errors.InUse("quota", "dark/tango", ["vm/tango/web"]),
    errors.Conflict("Unit 4 of rack 'h7' holds host 'h7'; ask corp.", "h7", ["host/h7"]),
    errors.InvalidState("host", "h7", "draining", ["available"]),
    errors.QuotaExceeded("own", "dark", [SHORT]),
    errors.QuotaExceeded("tango", ["lit", "dark"], [SHORT], [OF_DARK]),
    errors.NoQuota("own", "dark", ["dark"]),
    errors.NoQuota("tango", ["dark", "lit"], ["dark", "lit"]),
    errors.NoCapacity("dark", {"cpu": 1}, 3, REASONS, NEAREST, {"cpu": 1}, ELSEWHERE),
    errors.NoCapacity("*", {"cpu": 1}, 3, REASONS, NEAREST, None, ELSEWHERE, [OF_DARK]),
    errors.BelowUse([{"kind": "quota", "name": "dark/tango", **BELOW}, {"kind": "host", "name": "h7", **BELOW}]),
    errors.Suspended("corp"),
    errors.VersionMismatch(7),
    errors.IdempotencyMismatch("01a2"),
    errors.Aborted(3),
    errors.TooLarge(7),
    errors.Unavailable("01a2"),
    errors.Internal(),
    errors.Validation([{"field": "/group", "message": "dark is not for tango"}]),
    errors.Malformed([{"field": "", "message": "not of corp"}]),
]  # fmt: skip


def family(kind: type[DomainError] = DomainError) -> set[str]:
    own = {kind.code} if hasattr(kind, "code") else set()
    return own.union(*(family(heir) for heir in kind.__subclasses__()))


def test_every_code_is_listed() -> None:
    of_http = {"method_not_allowed", "unsupported_media_type", "rate_limited", "too_slow"}  # never a command's
    assert errors.Unauthenticated.code in family()
    missing = family() - of_http - refusals.SHOWN.keys()
    assert not missing, f"say in api/refusals.py what a scope shows of {sorted(missing)}"


@pytest.mark.parametrize("refusal", RECORDED, ids=lambda refusal: refusal.code)
def test_anothers_refusal_names_nobody_who_is_not_seen(refusal: DomainError) -> None:
    shown = refusals.in_scope({**refusal.problem(), "added_later": "tango"}, SCOPE, at=60, is_own=False)
    told = json.dumps({field: value for field, value in shown.items() if field not in ("type", "title", "code")})
    assert not [name for name in FOREIGN if name in told], told
    assert shown["detail"]
    assert (shown["code"], shown["status"], shown["title"]) == (refusal.code, refusal.status, refusal.title)


@pytest.mark.parametrize("refusal", RECORDED, ids=lambda refusal: refusal.code)
def test_who_sees_everything_is_shown_all(refusal: DomainError) -> None:
    assert refusals.in_scope(refusal.problem(), None) == refusal.problem()


OWN: list[DomainError] = [
    errors.NotFound("group", "dakr", in_scope=True),
    errors.Conflict("VM 'own/web' is protected; set protected to false first.", "own/web"),
    errors.InvalidState("vm", "own/web", "creating", ["active"]),
    errors.NoQuota("own", "lit", ["lit"]),
    errors.QuotaExceeded("own", "lit", [{**SHORT, "tenant": "own", "group": "lit"}]),
    errors.Suspended("own"),
    errors.VersionMismatch(7),
    errors.Validation([{"field": "/group", "message": "is needed"}]),
]


@pytest.mark.parametrize("refusal", OWN, ids=lambda refusal: refusal.code)
def test_ones_own_refusal_stays_whole(refusal: DomainError) -> None:
    assert refusals.in_scope(refusal.problem(), SCOPE) == refusal.problem()


def test_ones_own_refusal_hides_what_it_was_not_decided_upon() -> None:
    """Where the engine let something slip, this is the second door."""
    for refusal in RECORDED:
        hidden = {"nearest", "alternatives", "did_you_mean", "used_by", "would_break", "added_later"}
        shown = refusals.in_scope({**refusal.problem(), "added_later": "tango"}, SCOPE)
        told = json.dumps({field: value for field, value in shown.items() if field in hidden})
        assert not [name for name in FOREIGN if name in told], told


def test_what_is_told_whole_is_counted() -> None:
    few = errors.InUse("tenant", "own", [f"tenant/t{n}" for n in range(5)])
    assert "tenant/t0, tenant/t1, tenant/t2 and 2 more;" in few.detail


def test_what_is_seen_is_named() -> None:
    def shown(refusal: DomainError, at: int = 60) -> dict[str, Any]:
        return refusals.in_scope(refusal.problem(), SCOPE, at=at, is_own=False)

    assert shown(errors.NotFound("vm", "own/wbe", "own/web"))["did_you_mean"] == "own/web"
    assert shown(errors.InUse("tenant", "own", ["tenant/team"]))["used_by"] == ["tenant/team"]
    assert "'team'" in shown(errors.Suspended("team"))["detail"]
    assert shown(errors.Suspended("team"), at=40)["tenant"] is None, "another bore that name then"
    exceeded = shown(errors.QuotaExceeded("own", "lit", [{**SHORT, "tenant": "own", "group": "lit"}, SHORT]))
    assert [entry["tenant"] for entry in exceeded["shortfalls"]] == ["own", None]


@pytest.fixture(scope="module")
def site(api: Api) -> str:
    """`corp` > `own` > `team`, and `red` beside `own`; then commands of the administrator's on `own`, refused."""
    n = "refused"
    for name, parent in (("corp", None), ("own", "corp"), ("team", "own"), ("red", "corp")):
        api.done("POST", "/v1/tenants", {"name": f"{n}-{name}", "parent": parent and f"{n}-{parent}"})
    for group in ("lit", "dark"):
        api.done("POST", "/v1/groups", {"name": f"{n}-{group}"})
        api.done("POST", "/v1/hosts", {"name": f"{n}-{group}-h", "group": f"{n}-{group}", "capacity": {"cpu": 2}})
    for group, tenant in (("lit", "team"), ("dark", "red")):
        api.done("PUT", f"/v1/groups/{n}-{group}/quotas/{n}-{tenant}", {"limits": {}})
    vm = {"tenant": f"{n}-team", "name": "web", "group": f"{n}-lit", "resources": {"cpu": 1}}
    api.post(f"/v1/tenants/{n}-own/move", {"parent": f"{n}-rde"})
    api.post("/v1/vms", {**vm, "group": f"{n}-dakr"})
    api.post("/v1/vms", {**vm, "group": f"{n}-dark"})
    api.post("/v1/vms", {**vm, "group": [f"{n}-dark", f"{n}-lit"], "resources": {"cpu": 9}})
    api.post("/v1/vms", {**vm, "where": {"host": f"{n}-dark-h"}})
    for group in ("dark", "dakr"):  # the tenant of a quota is seen, what it is of is not
        api.call("PUT", f"/v1/groups/{n}-{group}/quotas/{n}-team", {"limits": {"cpu": 1}}, headers={"If-Match": '"1"'})
    api.call("PUT", f"/v1/groups/{n}-lit/quotas/{n}-team", {"limits": {}}, headers={"If-Match": '"1"'})
    api.done("POST", f"/v1/tenants/{n}-corp/suspend")
    api.post("/v1/vms", vm)
    api.shown(api.done("POST", f"/v1/tenants/{n}-corp/resume"), "/v1/tenants")
    return n


def test_no_recorded_refusal_tells_of_others(api: Api, site: str) -> None:
    auditor = api.token("auditor", tenant=f"{site}-own")
    entries = api.get("/v1/audit", token=auditor, params={"outcome": "rejected", "limit": 1000}).json()["items"]
    assert {entry["problem"]["code"] for entry in entries} >= {"not_found", "no_quota", "suspended"}
    events = api.get("/v1/events", token=auditor, params={"topic": "command.rejected", "limit": 1000}).json()["items"]
    receipts = [api.get(f"/v1/commands/{entry['id']}", token=auditor).json() for entry in entries]
    assert len(events) == len(entries) == len(receipts) >= 6
    of_quotas = [entry["resource"] for entry in entries if entry["command"] == "quota.set"]
    assert of_quotas == [None, None, f"quota/{site}-lit/{site}-team"]
    for told in map(json.dumps, (*entries, *events, *receipts)):
        assert not [name for name in ("corp", "red", "rde", "dark", "dakr") if f"{site}-{name}" in told], told
