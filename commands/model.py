"""What every command shares: strict fields, and what a handler answers."""

from collections.abc import Mapping
from functools import lru_cache
from inspect import cleandoc
from typing import Annotated, Any, ClassVar, Unpack

import msgspec
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from commands.characters import one_line, printable, prose, shown, without_nul
from domain.command import Warned
from domain.errors import Validation
from domain.kind import Kind
from domain.values import AMOUNT_MAX, COUNTS, NAME_PATTERN, NOTHING_SAID, About, Resources, ordered

TEXT_CHARACTERS_MAX = 2_000
LABELS_MAX = 64
CLASSES_MAX = 32


def without_nul_inside(value: JsonValue) -> JsonValue:
    """The same value, if no text and no member's name in it has a NUL, which PostgreSQL can't keep."""
    match value:
        case str():
            without_nul(value)
        case list():
            for entry in value:
                without_nul_inside(entry)
        case dict():
            for name, entry in value.items():
                without_nul(name)
                without_nul_inside(entry)
    return value


def _asked(resources: Resources) -> Resources:
    return _shape(tuple(resources.items()))


@lru_cache(maxsize=4096)
def _shape(amounts: tuple[tuple[str, int], ...]) -> Resources:
    """What is asked for, in order. Few shapes are asked for again and again: all their VMs share one mapping, so that
    neither memory nor the collector meets one for each."""
    resources = _no_counts(dict(amounts))
    asked = {name: resources[name] for name in ordered(resources) if resources[name] > 0}
    if not asked:
        raise ValueError("at least one amount must be above 0")
    return asked


def _no_counts(resources: dict[str, Any]) -> dict[str, Any]:
    for name in resources:
        if name in COUNTS:
            raise ValueError(f"{name} is a count of quotas, not a resource class")
    return resources


Name = Annotated[
    str,
    StringConstraints(pattern=NAME_PATTERN),
    Field(description="RFC 1123 label: 1–63 of a-z, 0-9 and -, beginning and ending with a letter or digit"),
]
Prose = Annotated[str, StringConstraints(max_length=TEXT_CHARACTERS_MAX), AfterValidator(prose)]
# What a controller tells, as its tools print it: refused, its report would be lost for a colour. So it is kept as it
# may be shown.
Text = Annotated[
    str, StringConstraints(max_length=TEXT_CHARACTERS_MAX), AfterValidator(without_nul), AfterValidator(shown)
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=253), AfterValidator(one_line)]
ClassName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
# Any script, as people's words are; a `=` would end the key in `label=key=value`.
_KEY_PATTERN = r"^[^=\x00-\x1f\x7f]{1,128}$"
LabelKey = Annotated[str, StringConstraints(pattern=_KEY_PATTERN), AfterValidator(printable)]
LabelValue = Annotated[str, StringConstraints(max_length=253), AfterValidator(one_line)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_MAX)]
# As defaults. Made by a factory, since any other default that can be changed is copied deeply for each command.
NO_LABELS: dict[str, str] = Field(
    default_factory=dict,
    json_schema_extra={"default": {}},
    description="Labels of your own, to filter by",
)
Amount = Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
Amounts = Annotated[dict[ClassName, Amount], Field(max_length=CLASSES_MAX)]
Asked = Annotated[Amounts, AfterValidator(_asked)]
Limits = Amounts
# What is bounded is the result of a merge (`at_most`). A patch may remove all that stands and add as much.
LABELS_PATCHED_MAX = 2 * LABELS_MAX
CLASSES_PATCHED_MAX = 2 * CLASSES_MAX
# A merge patch of amounts: a class that is absent stays as it is, null or 0 removes one.
PatchedAmounts = Annotated[
    dict[ClassName, Amount | None], Field(max_length=CLASSES_PATCHED_MAX), AfterValidator(_no_counts)
]


def _keys_of_values(labels: dict[str, str | None]) -> dict[str, str | None]:
    """A key that would be refused today may stand since before: it can still be removed."""
    for key, value in labels.items():
        if value is not None:
            printable(key)
    return labels


# A merge patch of labels.
PatchedLabels = Annotated[
    dict[Annotated[str, StringConstraints(pattern=_KEY_PATTERN)], LabelValue | None],
    Field(max_length=LABELS_PATCHED_MAX),
    AfterValidator(_keys_of_values),
]


def at_most(limit: int, merged: Mapping[str, Any], before: Mapping[str, Any], *, field: str) -> None:
    """What stands above the limit since before it held may stay or shrink.

    Raises:
        Validation: the result of a merge has more entries than may be sent as a whole.
    """
    if len(merged) > max(limit, len(before)):
        message = f"would be {len(merged)} with those that it has; at most {limit}, so remove some (null removes one)"
        raise Validation([{"field": field, "message": message}])


def merged_amounts(amounts: Resources, patch: Mapping[str, int | None], *, field: str) -> Resources:
    """
    Raises:
        Validation: the result has nothing above 0, or more classes than may be sent as a whole.
    """
    left = tuple((name, amount) for name, amount in {**amounts, **patch}.items() if amount)
    if not left:
        raise Validation([{"field": field, "message": "at least one amount must stay above 0"}])
    merged = _shape(left)
    at_most(CLASSES_MAX, merged, amounts, field=field)
    return merged


class Done(msgspec.Struct, frozen=True, gc=False):
    """What a handler answers: the operation that it started, whether it made the resource, a secret for the first
    answer, and what it wondered at."""

    operation: str | None = None
    created: bool = False
    secret: str | None = None
    warnings: tuple[Warned, ...] = ()


ENGINE_ROLE = "engine"
ADMINS = frozenset({"admin"})
OPERATORS = frozenset({"operator", "admin"})
REPORTERS = frozenset({"controller", "operator", "admin"})
ENGINE = frozenset({ENGINE_ROLE})  # what it alone may give has no route


class Route(msgspec.Struct, frozen=True):
    """How a command is given over HTTP. `verb` is what the command line calls it: create, set, delete, or its own."""

    method: str
    path: str
    verb: str


class Command(BaseModel):
    """A request to change something. Each says in its class's keywords what it does to which kind:

        class CreateRack(Protectable, creates=RACK)             POST /v1/racks                 rack.create
        class UpdateRack(_OnRack, Redescribed, changes=RACK)    PATCH /v1/racks/{rack}         rack.update
        class SetQuota(Protectable, sets=QUOTA)                 PUT, makes it or replaces it   quota.set
        class DeleteRack(_OnRack, ends=RACK)                    DELETE                         rack.delete
        class CordonHost(_OnHost, does=HOST, verb="cordon")     POST /v1/hosts/{host}/cordon   host.cordon

    `verb` is the second half of its name, where that is another (`creates=HOST, verb="register"`), and `roles` are
    those that may give it. One that leaves work to controllers says `starts_operation=True`. The first line of its
    docstring is its summary. Its fields say the name of what it is about: `name` and those above it if it creates,
    else each part by its own name.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, serialize_by_alias=True)

    kind: ClassVar[str]
    """Its name in the contract."""
    about_kind: ClassVar[Kind[Any]]
    roles: ClassVar[frozenset[str]]
    route: ClassVar[Route | None]
    creates_it: ClassVar[bool]
    starts_operation: ClassVar[bool]
    _named_by: ClassVar[tuple[str, ...]]

    def __init_subclass__(
        cls,
        *,
        creates: Kind[Any] | None = None,
        changes: Kind[Any] | None = None,
        sets: Kind[Any] | None = None,
        ends: Kind[Any] | None = None,
        does: Kind[Any] | None = None,
        verb: str = "",
        roles: frozenset[str] = OPERATORS,
        starts_operation: bool = False,
        **config: Unpack[ConfigDict],
    ) -> None:
        super().__init_subclass__(**config)
        match (creates, changes, sets, ends, does):
            case (None, None, None, None, None):  # what several have in common
                return
            case (Kind() as kind, None, None, None, None):
                method, path, word, called = "POST", kind.list_path, "create", "create"
            case (None, Kind() as kind, None, None, None):
                method, path, word, called = "PATCH", kind.path, "set", "update"
            case (None, None, Kind() as kind, None, None):
                method, path, word, called = "PUT", kind.path, "set", "set"
            case (None, None, None, Kind() as kind, None):
                method, path, word, called = "DELETE", kind.path, "delete", "delete"
            case (None, None, None, None, Kind() as kind) if verb:
                method, path, word, called = "POST", f"{kind.path}/{verb.replace('_', '-')}", verb, verb
            case _:
                raise TypeError(f"{cls.__name__} must say one of creates, changes, sets, ends, or does with its verb")
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__} needs a docstring, whose first line says in the API what it does")
        cls.kind, cls.about_kind, cls.roles = f"{kind.name}.{verb or called}", kind, roles
        cls.route = Route(method, path, word) if roles != ENGINE else None
        cls.creates_it, cls.starts_operation = creates is not None, starts_operation
        cls._named_by = (*kind.named_by[:-1], "name") if cls.creates_it else kind.named_by

    @classmethod
    def summary(cls) -> str:
        """What it does, in a line without its full stop."""
        return cls._said()[0].removesuffix(".")

    @classmethod
    def details(cls) -> str:
        """What else is to be known about it."""
        return cls._said()[2].strip().replace("\n", " ")

    @classmethod
    def _said(cls) -> tuple[str, str, str]:
        return cleandoc(cls.__doc__ or "").partition("\n")

    @property
    def is_recorded(self) -> bool:
        """Whether it changes anything, and so is recorded; what does not is authorised and checked all the same."""
        return True

    @property
    def own_reason(self) -> str | None:
        """The reason in the body, which wins over the request's header."""
        return None

    def on(self) -> str:
        """The stream of the resource that it is about, as `Kind.stream` gives it (0.2 µs for 0.35)."""
        stream, fields = self.about_kind.name, self.__dict__
        for part in self._named_by:
            stream = f"{stream}/{fields[part]}"
        return stream


class Described(Command):
    """The words that people give a new resource."""

    labels: Labels = NO_LABELS
    description: Prose | None = Field(None, description="Notes in free text")
    display_name: Line | None = Field(None, description="A name for people, in any script")
    external_id: Line | None = Field(None, description="Its key in a system of yours, such as a CMDB")

    def about(self) -> About:
        if not self.labels and self.description is self.display_name is self.external_id is None:
            return NOTHING_SAID
        return About(self.display_name, self.external_id, self.description, self.labels)


class Protectable(Described):
    """`protected`: no destructive verb is obeyed until it is taken back."""

    protected: bool = Field(False, description="Refuse to delete it until this is false")

    def about(self) -> About:
        about = super().about()
        return replace(about, protected=True) if self.protected else about


class Redescribed(Command):
    """A merge patch of the words and of the protection: absent leaves as it is, null removes."""

    labels: PatchedLabels | None = Field(None, description="Merged label by label; null removes one")
    description: Prose | None = Field(None, description="Notes in free text")
    display_name: Line | None = Field(None, description="A name for people, in any script")
    external_id: Line | None = Field(None, description="Its key in a system of yours, such as a CMDB")
    protected: bool | None = Field(None, description="Refuse to delete it until this is false")

    def patched(self, about: About) -> About:
        labels = about.labels
        if "labels" in self.model_fields_set:
            merged = {**about.labels, **self.labels} if self.labels is not None else {}
            labels = {key: value for key, value in merged.items() if value is not None}
            at_most(LABELS_MAX, labels, about.labels, field="/labels")
        return About(
            self.given("display_name", about.display_name),
            self.given("external_id", about.external_id),
            self.given("description", about.description),
            labels,
            bool(self.given("protected", about.protected)),
        )

    def given(self, field: str, otherwise: Any) -> Any:
        """The field's value if the patch names it (null included), else what stands."""
        return getattr(self, field) if field in self.model_fields_set else otherwise
