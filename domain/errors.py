"""The one family of refusals. Each has its problem of the contract: code, status, fields, and what a person can do
next."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from domain.values import Resources

USED_BY_MAX = 100  # so many of the resources that block a command are named at most


@dataclass(eq=False)
class DomainError(Exception):
    """A refusal by a decision; never a bug. `problem()` is the RFC 9457 body."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    @property
    def detail(self) -> str:
        """A sentence that tells the operator what to do next."""
        return self.title

    def problem(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        body.update(
            (f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("why", "message", "in_scope")
        )
        return body

    def __str__(self) -> str:
        return self.detail


@dataclass(eq=False)
class Malformed(DomainError):
    """What came is not JSON of the right form; `errors` are {`field`, `message`}."""

    code = "malformed"
    status = 400
    title = "The body can't be read"
    errors: list[dict[str, str]]

    @property
    def detail(self) -> str:
        return f"{self.errors[0]['message']}; send one JSON object in UTF-8."


@dataclass(eq=False)
class Validation(DomainError):
    """The request is readable but not valid; `errors` are {`field`, `message`}."""

    code = "validation"
    status = 422
    title = "The request is not valid"
    errors: list[dict[str, str]]

    @property
    def detail(self) -> str:
        first = self.errors[0]
        return f"{first['field']}: {first['message']}"


@dataclass(eq=False)
class Unauthenticated(DomainError):
    code = "unauthenticated"
    status = 401
    title = "Authentication required"

    @property
    def detail(self) -> str:
        return (
            "Send the header `Authorization: Bearer <token>` with a token that is known, not revoked and not expired."
        )


@dataclass(eq=False)
class Forbidden(DomainError):
    code = "forbidden"
    status = 403
    title = "Not permitted"
    permission: str

    @property
    def detail(self) -> str:
        return f"Your token lacks the permission {self.permission}; ask an administrator for a token that has it."


@dataclass(eq=False)
class NotFound(DomainError):
    code = "not_found"
    status = 404
    title = "Not found"
    kind: str
    name: str
    did_you_mean: str | None = None
    in_scope: bool = False  # the reader is confined to a tenant, and may not learn whether one exists elsewhere

    @property
    def detail(self) -> str:
        hint = f" Did you mean {self.did_you_mean!r}?" if self.did_you_mean else ""
        where = " in this token's scope" if self.in_scope else ""
        return f"There is no {self.kind} {self.name!r}{where}.{hint}"


@dataclass(eq=False)
class AlreadyExists(DomainError):
    code = "already_exists"
    status = 409
    title = "The name is taken"
    kind: str
    name: str
    used_by: list[str] = field(default_factory=list)  # the streams of what has the name; its own if none is given

    def __post_init__(self) -> None:
        self._is_its_name = not self.used_by
        self.used_by = self.used_by or [f"{self.kind}/{self.name}"]

    @property
    def detail(self) -> str:
        if not self._is_its_name:
            return (
                f"The {self.kind} {self.name!r} belongs to {self.used_by[0]} already; correct it, or change that first."
            )
        return f"The {self.kind} {self.name!r} exists already; choose another name, or change the one that is there."


@dataclass(eq=False)
class InUse(DomainError):
    code = "in_use"
    status = 409
    title = "Still in use"
    kind: str
    name: str
    used_by: list[str]

    @property
    def detail(self) -> str:
        shown, more = ", ".join(self.used_by[:3]), len(self.used_by) - 3
        if more > 0:
            shown += f" and {'at least ' if len(self.used_by) == USED_BY_MAX else ''}{more} more"
        return f"The {self.kind} {self.name!r} is in use by {shown}; move or delete those first."


@dataclass(eq=False)
class Conflict(DomainError):
    code = "conflict"
    status = 409
    title = "Conflict with the current state"
    why: str
    name: str  # what it is in conflict with, or about
    used_by: list[str] = field(default_factory=list)  # the streams in its way, if there are such

    @property
    def detail(self) -> str:
        return self.why


@dataclass(eq=False)
class InvalidState(DomainError):
    code = "invalid_state"
    status = 409
    title = "Not possible in this state"
    kind: str
    name: str
    state: str
    allowed: list[str]
    operation: str | None = None  # the one that runs or is stuck there
    ways_out: list[str] = field(default_factory=list)  # what can be done about that one: of retry, settle and cancel
    why: str = ""  # the same as a sentence

    @property
    def detail(self) -> str:
        possible = f"; this is possible when it is {' or '.join(self.allowed)}" if self.allowed else ""
        return f"The {self.kind} {self.name!r} is {self.state}{possible}. {self.why}".rstrip()


@dataclass(eq=False)
class Protected(DomainError):
    code = "protected"
    status = 409
    title = "The resource is protected"
    kind: str
    name: str

    @property
    def detail(self) -> str:
        return f"The {self.kind} {self.name!r} is protected; set its `protected` to false first."


@dataclass(eq=False)
class QuotaExceeded(DomainError):
    """`shortfalls`: {`resource`, `limit`, `used`, `requested`, `short`, `tenant`}, the requesting tenant's first."""

    code = "quota_exceeded"
    status = 409
    title = "Quota exceeded"
    tenant: str
    group: str | list[str]
    shortfalls: list[dict[str, Any]]
    groups: list[dict[str, Any]] | None = None
    groups_truncated: bool = False

    @property
    def detail(self) -> str:
        first = self.shortfalls[0]
        whose = f"the quota of {first['tenant']!r}" if first["tenant"] else "a quota above this tenant"
        return (
            f"{first['resource']}: {first['requested']} more would exceed {whose} by {first['short']};"
            " ask for less, free something, or have the quota raised."
        )

    def problem(self) -> dict[str, Any]:
        return _without_empty_fields(super().problem())


@dataclass(eq=False)
class NoQuota(DomainError):
    code = "no_quota"
    status = 409
    title = "No quota in this group"
    tenant: str
    group: str | list[str]
    groups: list[str]

    @property
    def detail(self) -> str:
        more = f" and {len(self.groups) - 10} more" if len(self.groups) > 10 else ""
        where = f" It has one in: {', '.join(self.groups[:10])}{more}." if self.groups else ""
        return f"Tenant {self.tenant!r} has no quota in {self.group!r}; have one granted, or name another group.{where}"


@dataclass(eq=False)
class NoCapacity(DomainError):
    """Nothing fits. `reasons` add up to `considered`; `alternatives` are the groups that would take it now."""

    code = "no_capacity"
    status = 409
    title = "No host fits"
    group: str | list[str]
    requested: Resources
    considered: int
    reasons: list[dict[str, Any]]
    nearest: dict[str, Any] | None
    largest_fit: Resources | None
    alternatives: list[dict[str, Any]]
    groups: list[dict[str, Any]] | None = None
    groups_truncated: bool = False  # there are more; all other fields are about these alone
    alternatives_truncated: bool = False  # not all groups were checked
    message: str | None = None  # replaces the sentence made of the fields

    @property
    def detail(self) -> str:
        if self.message is not None:
            return self.message
        if not self.considered:
            return f"Group {self.group!r} has no hosts; register hosts there, or name another group."
        why = ", ".join(f"{r['hosts']} × {r['reason']}" for r in self.reasons)
        return (
            f"None of {self.considered} hosts fits ({why}); ask for less, relax the conditions, or try an alternative."
        )

    def problem(self) -> dict[str, Any]:
        return _without_empty_fields(super().problem())


@dataclass(eq=False)
class BelowUse(DomainError):
    """Running workload would no longer fit; `would_break` are {`kind`, `name`, `resource`, `limit`, `used`}, or for a
    rule {`kind`, `name`, `rule`, `set`, `level`, `vms`}."""

    code = "below_use"
    status = 409
    title = "Running workload would no longer fit"
    would_break: list[dict[str, Any]]

    @property
    def detail(self) -> str:
        first = self.would_break[0]
        if first["kind"] == "rule":
            return (
                f"{first['rule']} at {first['level']} of {first['name']!r} would no longer hold for"
                f" {', '.join(first['vms'][:3])}; move or delete one first, or send force: true to leave it broken."
            )
        return (
            f"{first['kind']} {first['name']!r} uses {first['used']} {first['resource']}, more than the"
            f" {first['limit']} that would remain; free something first, or send force: true to leave it above."
        )


@dataclass(eq=False)
class Suspended(DomainError):
    code = "suspended"
    status = 409
    title = "The tenant is suspended"
    tenant: str

    @property
    def detail(self) -> str:
        return f"Tenant {self.tenant!r} is suspended: no new or larger workload until it is resumed."


@dataclass(eq=False)
class OperationFailed(DomainError):
    code = "operation_failed"
    status = 424
    title = "The operation failed"
    operation: str
    step: str | None
    reason: str | None
    resource: dict[str, Any] | None = None

    @property
    def detail(self) -> str:
        return f"{self.step or 'The operation'} failed: {self.reason or 'no reason given'}."


@dataclass(eq=False)
class VersionMismatch(DomainError):
    code = "version_mismatch"
    status = 412
    title = "The resource has changed since it was read"
    version: int

    @property
    def detail(self) -> str:
        if self.version == 0:
            return "The resource does not exist, so no version matches; leave out If-Match to create it."
        return f"The resource is at version {self.version}; read it again and repeat the change on that."


@dataclass(eq=False)
class IdempotencyMismatch(DomainError):
    code = "idempotency_mismatch"
    status = 422
    title = "The key belongs to another request"
    command: str

    @property
    def detail(self) -> str:
        return "This Idempotency-Key was used for a different request; use a new key for a new request."


@dataclass(eq=False)
class Aborted(DomainError):
    """Another item of the same atomic batch failed, so this one was not done; `index` is the failed item's."""

    code = "aborted"
    status = 409
    title = "Another command of the batch failed"
    index: int

    @property
    def detail(self) -> str:
        return f"Item {self.index} failed, so nothing of this batch was done; fix that item and send the batch again."


@dataclass(eq=False)
class TooLarge(DomainError):
    code = "too_large"
    status = 413
    title = "Too large"
    limit: int

    @property
    def detail(self) -> str:
        return f"At most {self.limit} bytes are accepted; send less at once."


@dataclass(eq=False)
class Unavailable(DomainError):
    """The outcome is not known yet, or nothing was decided; asking for `command` later gives the definite answer."""

    code = "unavailable"
    status = 503
    title = "Temporarily unavailable"
    command: str | None = None

    @property
    def detail(self) -> str:
        if self.command is None:
            return "Berth can't answer at the moment; try again shortly."
        return (
            f"Berth can't answer at the moment. Ask GET /v1/commands/{self.command} for the outcome, or send the"
            " request again with the same Idempotency-Key."
        )


@dataclass(eq=False)
class Internal(DomainError):
    code = "internal"
    status = 500
    title = "Internal error"

    @property
    def detail(self) -> str:
        return "An unexpected error; nothing was changed. Report the command's id to whoever runs Berth."


def _without_empty_fields(body: dict[str, Any]) -> dict[str, Any]:
    """`groups` and `…_truncated` are left out where they do not apply, as everywhere in the API."""
    for name in ("groups", "groups_truncated", "alternatives_truncated"):
        if not body.get(name, True):
            del body[name]
    return body
