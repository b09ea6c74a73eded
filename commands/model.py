"""What every command shares: strict fields, and what a handler answers."""

from functools import lru_cache
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from domain.values import AMOUNT_MAX, COUNTS, NAME_PATTERN, NOTHING_SAID, About, Resources, ordered

TEXT_CHARACTERS_MAX = 2_000
LABELS_MAX = 64
CLASSES_MAX = 32


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not allowed")
    return text


def without_nul_inside(value: JsonValue) -> JsonValue:
    """The same value, if no text and no member's name in it has a NUL, which PostgreSQL can't keep."""
    match value:
        case str():
            _without_nul(value)
        case list():
            for entry in value:
                without_nul_inside(entry)
        case dict():
            for name, entry in value.items():
                _without_nul(name)
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
Text = Annotated[str, StringConstraints(max_length=TEXT_CHARACTERS_MAX), AfterValidator(_without_nul)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=253), AfterValidator(_without_nul)]
ClassName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
# Any script, as people's words are; a `=` would end the key in `label=key=value`.
LabelKey = Annotated[str, StringConstraints(pattern=r"^[^=\x00-\x1f\x7f]{1,128}$")]
LabelValue = Annotated[str, StringConstraints(max_length=253), AfterValidator(_without_nul)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_MAX)]
# As defaults. Made by a factory, since any other default that can be changed is copied deeply for each command.
NO_LABELS: dict[str, str] = Field(default_factory=dict, json_schema_extra={"default": {}})
Amount = Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
Amounts = Annotated[dict[ClassName, Amount], Field(max_length=CLASSES_MAX)]
Asked = Annotated[Amounts, AfterValidator(_asked)]
Limits = Amounts
# A merge patch of amounts: a class that is absent stays as it is, null or 0 removes one.
PatchedAmounts = Annotated[dict[ClassName, Amount | None], Field(max_length=CLASSES_MAX), AfterValidator(_no_counts)]


class Done(msgspec.Struct, frozen=True, gc=False):
    """What a handler answers: the operation that it started, whether it made the resource, a secret for the first
    answer."""

    operation: str | None = None
    created: bool = False
    secret: str | None = None


class Command(BaseModel):
    """A request to change something. `kind` is its name in the contract; `on()` the stream of the resource it is
    about."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: ClassVar[str]

    @property
    def is_recorded(self) -> bool:
        """Whether it changes anything, and so is recorded; what does not is authorised and checked all the same."""
        return True

    def on(self) -> str:
        raise AssertionError(f"{type(self).__name__} must say what it is about")


class Described(Command):
    """The words that people give a new resource."""

    labels: Labels = NO_LABELS
    description: Text | None = None
    display_name: Line | None = None
    external_id: Line | None = None

    def about(self) -> About:
        if not self.labels and self.description is self.display_name is self.external_id is None:
            return NOTHING_SAID
        return About(self.display_name, self.external_id, self.description, self.labels)


class Redescribed(Command):
    """A merge patch of the words: absent leaves as it is, null removes."""

    labels: Annotated[dict[LabelKey, LabelValue | None], Field(max_length=LABELS_MAX)] | None = None
    description: Text | None = None
    display_name: Line | None = None
    external_id: Line | None = None

    def patched(self, about: About) -> About:
        labels = about.labels
        if "labels" in self.model_fields_set:
            merged = {**about.labels, **self.labels} if self.labels is not None else {}
            labels = {key: value for key, value in merged.items() if value is not None}
        return About(
            self.given("display_name", about.display_name),
            self.given("external_id", about.external_id),
            self.given("description", about.description),
            labels,
        )

    def given(self, field: str, otherwise: Any) -> Any:
        """The field's value if the patch names it (null included), else what stands."""
        return getattr(self, field) if field in self.model_fields_set else otherwise
