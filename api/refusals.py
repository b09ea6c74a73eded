"""What a scope shows of a refusal: listed for each code, and nothing that is not listed.

A recorded refusal was decided with what its actor sees, which may be the whole platform. So its fields are taken one by
one, names only if the reader sees whose they are, and the sentence for people is made anew from what is left.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from api.tenant_scope import TenantScope
from domain import errors
from domain.kinds import tenant_of

Document = dict[str, Any]

ALWAYS = ("type", "title", "status", "code", "index", "command", "instance")


class Reader(msgspec.Struct, frozen=True):
    """Who reads, of which time, and whether it is the refusal of a command of its own, whose words it may have back."""

    scope: TenantScope
    at: int | None
    is_own: bool

    def name(self, kind: Any, name: Any) -> Any:
        return name if self.is_own or self.scope.has(kind, name, self.at) else None

    def hint(self, kind: Any, name: Any) -> Any:
        """A name that comes from Berth, not from who asked."""
        return name if name is not None and self.scope.has(kind, name, self.at) else None

    def tenant(self, name: Any) -> Any:
        return name if self.scope.has_tenant(name, self.at) else None

    def groups(self, names: Any) -> Any:
        """As one asked for them: a name, a list of names, or all."""
        if isinstance(names, list):
            return [name for name in names if self.is_own or self.scope.has_group(name, self.at)]
        return names if names == "*" else self.name("group", names)

    def stream(self, name: Any) -> Any:
        """Whose a quota is does not say that its group is seen: what was refused there may never have been."""
        kind, *names = (name or "").split("/")
        return name if kind != "quota" or self.name("group", names[0]) is not None else None

    def streams(self, found: Iterable[str]) -> list[str]:
        return [stream for stream in found if self.scope.has_tenant(tenant_of(stream), self.at)]


def in_scope(
    problem: Mapping[str, Any], scope: TenantScope | None, *, at: int | None = None, is_own: bool = True
) -> Document:
    """The refusal as it may be shown: whole to who sees everything. `at` is when it was recorded."""
    if scope is None:
        return dict(problem)
    reader = Reader(scope, at, is_own)
    shown = {field: problem[field] for field in ALWAYS if field in problem}
    show = SHOWN.get(problem["code"])
    detail: str | None = None
    if show is not None:
        fields, detail = show(problem, reader)
        shown |= fields
    return {**shown, "detail": detail or f"{problem['title']}."}


Shown = tuple[Document, str | None]
Show = Callable[[Mapping[str, Any], Reader], Shown]


def _fields(*names: str) -> Show:
    """Fields that name nobody; the sentence is made of them alone."""

    def show(problem: Mapping[str, Any], reader: Reader) -> Shown:
        return {name: problem[name] for name in names if name in problem}, problem["detail"]

    return show


def _own_fields(*names: str) -> Show:
    """Fields, and a sentence, that may speak of anybody: for who was answered with them."""

    def show(problem: Mapping[str, Any], reader: Reader) -> Shown:
        return _fields(*names)(problem, reader) if reader.is_own else ({}, None)

    return show


def _not_found(problem: Mapping[str, Any], reader: Reader) -> Shown:
    kind = problem["kind"]
    name, near = reader.name(kind, problem["name"]), reader.hint(kind, problem.get("did_you_mean"))
    fields = {"kind": kind, "name": name, "did_you_mean": near}
    found = errors.NotFound(kind, name, near, in_scope=True)
    return fields, found.detail if name is not None else f"There is no such {kind}."


def _already_exists(problem: Mapping[str, Any], reader: Reader) -> Shown:
    kind, name = problem["kind"], reader.name(problem["kind"], problem["name"])
    fields = {"kind": kind, "name": name, "used_by": reader.streams(problem["used_by"])}
    return fields, errors.AlreadyExists(kind, name).detail if name is not None else None


def _in_use(problem: Mapping[str, Any], reader: Reader) -> Shown:
    kind, name, used_by = problem["kind"], reader.name(problem["kind"], problem["name"]), problem["used_by"]
    seen = reader.streams(used_by)
    is_whole = name is not None and seen and len(seen) == len(used_by)
    return {"kind": kind, "name": name, "used_by": seen}, errors.InUse(kind, name, seen).detail if is_whole else None


def _conflict(problem: Mapping[str, Any], reader: Reader) -> Shown:
    """Its sentence is free text."""
    if not reader.is_own:
        return {"used_by": reader.streams(problem["used_by"])}, None
    return {"name": problem["name"], "used_by": reader.streams(problem["used_by"])}, problem["detail"]


def _invalid_state(problem: Mapping[str, Any], reader: Reader) -> Shown:
    """What is seen by its name is seen with its state."""
    kind, name = problem["kind"], reader.name(problem["kind"], problem["name"])
    fields = ("state", "allowed", "operation", "ways_out") if name is not None else ("allowed",)
    found = {field: problem[field] for field in fields if field in problem}
    return {"kind": kind, "name": name, **found}, problem["detail"] if name is not None else None


def _protected(problem: Mapping[str, Any], reader: Reader) -> Shown:
    if not reader.is_own:
        return {}, None
    return {"kind": problem["kind"], "name": problem["name"]}, problem["detail"]


def _quota_exceeded(problem: Mapping[str, Any], reader: Reader) -> Shown:
    tenant, group = reader.tenant(problem["tenant"]), reader.groups(problem["group"])
    shortfalls = _shortfalls(problem["shortfalls"], reader)
    fields = {"tenant": tenant, "group": group, "shortfalls": shortfalls, **_of_each(problem, reader)}
    return fields, errors.QuotaExceeded(tenant, group, shortfalls).detail


def _no_quota(problem: Mapping[str, Any], reader: Reader) -> Shown:
    tenant, group = reader.tenant(problem["tenant"]), reader.groups(problem["group"])
    granted = [name for name in problem["groups"] if reader.scope.has_group(name, reader.at)]
    fields = {"tenant": tenant, "group": group, "groups": granted}
    return fields, errors.NoQuota(tenant, group, granted).detail if tenant and group else None


def _no_capacity(problem: Mapping[str, Any], reader: Reader) -> Shown:
    """Without the host that lacks least; other groups only if they are seen."""
    fields = {name: problem[name] for name in ("requested", "considered", "reasons", "largest_fit")}
    fields["group"] = group = reader.groups(problem["group"])
    near = [one for one in problem["alternatives"] if reader.scope.has_group(one["group"], reader.at)]
    fields["alternatives"] = [{name: one[name] for name in ("group", "hosts", "quota_ok")} for one in near]
    if reader.is_own:  # decided with what it sees, so its sentence is, too
        truncated = {"alternatives_truncated": True} if "alternatives_truncated" in problem else {}
        return fields | truncated | _of_each(problem, reader), problem["detail"]
    found = errors.NoCapacity(
        group=group,
        requested=fields["requested"],
        considered=fields["considered"],
        reasons=fields["reasons"],
        nearest=None,
        largest_fit=fields["largest_fit"],
        alternatives=near,
    )
    return fields | _of_each(problem, reader), found.detail if group else None


def _below_use(problem: Mapping[str, Any], reader: Reader) -> Shown:
    fields = ("kind", "name", "resource", "limit", "used")
    seen = [
        {field: one[field] for field in fields if field in one}
        for one in problem["would_break"]
        if reader.scope.has(one["kind"], one["name"], reader.at) and one["kind"] != "group"
    ]
    return {"would_break": seen}, errors.BelowUse(seen).detail if seen else None


def _suspended(problem: Mapping[str, Any], reader: Reader) -> Shown:
    tenant = reader.tenant(problem["tenant"])
    above = "A tenant above this one is suspended: no new or larger workload until it is resumed."
    return {"tenant": tenant}, errors.Suspended(tenant).detail if tenant is not None else above


SHOWN: Mapping[str, Show] = {
    "malformed": _own_fields("errors"),
    "validation": _own_fields("errors"),
    "unauthenticated": _fields(),
    "forbidden": _fields("permission"),
    "not_found": _not_found,
    "already_exists": _already_exists,
    "in_use": _in_use,
    "conflict": _conflict,
    "invalid_state": _invalid_state,
    "quota_exceeded": _quota_exceeded,
    "no_quota": _no_quota,
    "no_capacity": _no_capacity,
    "below_use": _below_use,
    "suspended": _suspended,
    "protected": _protected,
    "operation_failed": _fields("operation", "step", "reason", "resource"),
    "version_mismatch": _fields("version"),
    "idempotency_mismatch": _fields(),
    "aborted": _fields(),
    "too_large": _fields("limit"),
    "unavailable": _fields(),
    "internal": _fields(),
}


def _of_each(problem: Mapping[str, Any], reader: Reader) -> Document:
    """`groups`, where several were offered: each one's own problem."""
    found = problem.get("groups")
    if found is None:
        return {}
    seen = [one for one in found if reader.is_own or reader.scope.has_group(one["group"], reader.at)]
    groups = [
        {"group": one["group"], **in_scope(one, reader.scope, at=reader.at, is_own=reader.is_own)} for one in seen
    ]
    return {"groups": groups, **({"groups_truncated": True} if "groups_truncated" in problem else {})}


def _shortfalls(found: Iterable[Mapping[str, Any]], reader: Reader) -> list[Document]:
    """Those of tenants above the scope are one that has no name."""
    fields = ("resource", "limit", "used", "requested", "short", "tenant", "group")
    entries = [{field: entry[field] for field in fields if field in entry} for entry in found]
    for entry in entries:
        if "group" in entry:
            entry["group"] = reader.groups(entry["group"])
    own = [entry for entry in entries if reader.tenant(entry["tenant"]) is not None]
    above = [entry for entry in entries if reader.tenant(entry["tenant"]) is None]
    if not above:
        return own
    first = above[0]["resource"]
    worst = max((entry for entry in above if entry["resource"] == first), key=lambda entry: int(entry["short"]))
    return [*own, {**worst, "tenant": None, "limit": None, "used": None}]
