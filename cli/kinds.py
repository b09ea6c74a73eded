"""The kinds of resources: what they are called, where they live, what may be asked of them, what a table shows.

A new kind is a row here; `get`, `describe`, `delete`, `wait` and `history` follow from it.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import click

DESCRIBED = ("display_name", "description", "external_id", "labels", "protected")
COMMON_FILTERS = ("state", "owner", "external_id", "updated_since", "label", "q")


class Kind(NamedTuple):
    """One kind. `named_by` are the parts of its full name, as they stand before and after the slash."""

    name: str
    plural: str
    short: tuple[str, ...]
    named_by: tuple[str, ...]
    filters: tuple[str, ...]
    columns: tuple[str, ...]
    wide: tuple[str, ...]
    # The fields with amounts, a column per class: one field alone, or two as `used/limit`.
    amounts: tuple[str, ...] = ()
    # The columns that give way in a narrow terminal, first those that go first; not shown either if all are empty.
    yields: tuple[str, ...] = ("display_name",)
    failed_states: tuple[str, ...] = ("failed",)

    @property
    def usage(self) -> str:
        return "/".join(part.upper() for part in self.named_by)


PLACE = ("region", "dc", "room", "rack")

TENANT = Kind(
    name="tenant",
    plural="tenants",
    short=("t",),
    named_by=("tenant",),
    filters=("parent",),
    columns=("name", "display_name", "parent", "state", "children"),
    wide=("path", "labels", "external_id", "version"),
    yields=("children", "display_name"),
)
RACK = Kind(
    name="rack",
    plural="racks",
    short=("r",),
    named_by=("rack",),
    filters=("region", "dc", "room"),
    columns=("name", "display_name", "region", "dc", "room", "units", "hosts"),
    wide=("state", "labels", "external_id", "version"),
    yields=("units", "room", "display_name", "region"),
)
GROUP = Kind(
    name="group",
    plural="groups",
    short=("g",),
    named_by=("group",),
    filters=("region",),
    columns=("name", "display_name", "region", "strategy", "hosts"),
    wide=("overcommit", "available", "labels", "version"),
    amounts=("used", "capacity"),
    yields=("region", "display_name", "strategy"),
)
HOST = Kind(
    name="host",
    plural="hosts",
    short=("h",),
    named_by=("host",),
    filters=("group", *PLACE),
    columns=("name", "display_name", "state", "group", "rack", "vms"),
    wide=("dc", "region", "room", "unit", "owner", "available", "labels", "external_id", "version"),
    amounts=("used", "capacity"),
    yields=("display_name", "vms", "rack"),
)
QUOTA = Kind(
    name="quota",
    plural="quotas",
    short=("q",),
    named_by=("group", "tenant"),
    filters=("tenant", "subtree", "group", "over"),
    columns=("group", "tenant", "display_name", "over"),
    wide=("effective_available", "version"),
    amounts=("used", "limits"),
)
VM = Kind(
    name="vm",
    plural="vms",
    short=("v",),
    named_by=("tenant", "vm"),
    filters=("tenant", "subtree", "group", "host", *PLACE, "cluster", "pool", "set", "rules_broken"),
    columns=("name", "display_name", "state", "group", "host"),
    wide=("rack", "dc", "region", "image", "addresses", "operation", "reason", "rules_broken", "labels", "version"),
    amounts=("resources",),
    yields=("display_name", "group"),
)
OPERATION = Kind(
    name="operation",
    plural="operations",
    short=("op", "ops"),
    named_by=("operation",),
    filters=("target", "kind"),
    columns=("name", "kind", "target", "state", "percent", "started_at"),
    wide=("waiting_for", "ended_at", "message", "version"),
    yields=("percent", "started_at"),
    failed_states=("failed", "cancelled", "stuck"),
)
TOKEN = Kind(
    name="token",
    plural="tokens",
    short=(),
    named_by=("token",),
    filters=(),
    columns=("name", "display_name", "role", "tenant", "state", "created_at", "expires_at"),
    wide=("description", "version"),
    yields=("created_at", "display_name", "expires_at", "tenant"),
)

KINDS = (TENANT, RACK, GROUP, HOST, QUOTA, VM, OPERATION, TOKEN)
_BY_WORD = {word: kind for kind in KINDS for word in (kind.name, kind.plural, *kind.short)}


def find(word: str, *, among: tuple[Kind, ...] = KINDS) -> Kind:
    """The kind that `word` means: singular, plural or short, in any case.

    Raises:
        UsageError: there is no such kind, or it cannot be used here; says what was probably meant.
    """
    kind = _BY_WORD.get(word.lower())
    if kind is not None and kind in among:
        return kind
    words = {name: kind for kind in among for name in (kind.name, kind.plural)}
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(kind.plural for kind in among)
    reason = f"there is no kind {word!r}" if kind is None else f"{kind.plural} do not go with this verb"
    raise click.UsageError(f"{reason}.{hint} Kinds: {known}.")


def is_a_word_for_one(word: str) -> bool:
    return word.lower() in _BY_WORD


def parts(kind: Kind, name: str) -> tuple[str, ...]:
    """The parts of a full name as a person types it (`acme/web-1`).

    Raises:
        UsageError: it has too many or too few.
    """
    given = tuple(name.split("/"))
    if len(given) == len(kind.named_by) and all(given):
        return given
    raise click.UsageError(f"{name!r} does not name a {kind.name}: write it as {kind.usage}")


def full_names(kind: Kind, words: Sequence[str]) -> list[str]:
    """The names that `words` are; a quota's parts may stand apart: `std acme` is `std/acme`.

    Raises:
        UsageError: a group stands without its tenant.
    """
    if kind is not QUOTA:
        return list(words)
    names, left = [], list(words)
    while left:
        word = left.pop(0)
        if "/" not in word:
            if not left or "/" in left[0]:
                raise click.UsageError(f"{word!r} does not name a quota: write it as GROUP/TENANT or GROUP TENANT")
            word = f"{word}/{left.pop(0)}"
        names.append(word)
    return names


def one_name(kind: Kind, words: Sequence[str]) -> str:
    """The one name that `words` are.

    Raises:
        UsageError: they are more.
    """
    names = full_names(kind, words)
    if len(names) != 1:
        raise click.UsageError(f"one {kind.name} is named, as {kind.usage}; these are {len(names)}: {' '.join(names)}")
    return names[0]


def list_path(kind: Kind) -> str:
    return f"/v1/{kind.plural}"


def path(kind: Kind, name: str) -> str:
    """Where the resource of that full name is read, changed and deleted."""
    if kind is QUOTA:
        group, _, tenant = path_name(kind, name).partition("/")
        return f"/v1/groups/{group}/quotas/{tenant}"
    return f"/v1/{kind.plural}/{path_name(kind, name)}"


def path_name(kind: Kind, name: str) -> str:
    """A full name as it stands in a path."""
    return "/".join(quote(part, safe="") for part in parts(kind, name))


def explanation_path(vm: str) -> str:
    """Where it is read why that VM runs where it runs."""
    return f"/v1/explain/vms/{path_name(VM, vm)}"


def kept(resource: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """What a PUT has to say again of people's words and protection, since it replaces the whole: all but the given."""
    return {field: resource[field] for field in DESCRIBED if resource.get(field) and field not in given}


def full_name(kind: Kind, resource: dict[str, Any]) -> str:
    """The name by which the CLI would find this resource again."""
    if kind is QUOTA:
        return f"{resource.get('group')}/{resource.get('tenant')}"
    name = resource.get("name") or resource.get("id") or resource.get("uid") or "?"
    return f"{resource.get('tenant')}/{name}" if kind is VM else str(name)
