"""The kinds of resources as the server tells of them (GET /v1/kinds): what they are called, where they live, what may
be asked of them, what changes them, what a table shows. Nothing here knows a kind by its name.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import click

from cli.connection import NOT_BERTH
from cli.errors import Failed, NotKnown
from cli.schema import Schema, needed, properties

_IN_PATH = re.compile(r"{(\w+)}")


class Command(NamedTuple):
    """What changes a resource. `verb` is create, set, delete or the kind's own; `body` the JSON Schema of its body."""

    name: str
    verb: str
    method: str
    path: str
    summary: str
    description: str
    body: Schema
    starts_operation: bool

    @property
    def in_path(self) -> list[str]:
        return _IN_PATH.findall(self.path)


class Filter(NamedTuple):
    name: str
    description: str
    schema: Schema
    is_repeatable: bool


class Kind(NamedTuple):
    """One kind. `named_by` are the parts of its full name, as they stand before and after the slash; `refs` the fields
    that name another resource, with its kind. `columns` are a table's, `wide` those that `-o wide` adds, `amounts` the
    fields that have a column a class: one field alone, or two as `used/limit`; `yields` the columns that give way in a
    narrow terminal, first those that go first."""

    name: str
    plural: str
    short: tuple[str, ...]
    named_by: tuple[str, ...]
    path_pattern: str
    list_path: str
    states: tuple[str, ...]
    failed_states: tuple[str, ...]
    refs: Mapping[str, str]
    fields: tuple[str, ...]
    filters: tuple[Filter, ...]
    sorts: tuple[str, ...]
    amount_sorts: tuple[str, ...]
    columns: tuple[str, ...]
    wide: tuple[str, ...]
    amounts: tuple[str, ...]
    yields: tuple[str, ...]
    commands: tuple[Command, ...]

    @property
    def usage(self) -> str:
        return "/".join(part.upper() for part in self.named_by)

    @property
    def words(self) -> tuple[str, ...]:
        return (self.name, self.plural, *self.short)

    def command(self, verb: str, *methods: str) -> Command | None:
        """The one of that verb, if it has one (by one of these methods)."""
        found = (one for one in self.commands if one.verb == verb and (not methods or one.method in methods))
        return next(found, None)

    @property
    def is_placed(self) -> bool:
        """Whether it runs on a host, so that one may ask why there."""
        return "host" in self.refs.values()

    @property
    def creation(self) -> Command | None:
        """What makes one: POST, or a PUT that also replaces."""
        return self.command("create") or self.command("set", "PUT")

    def changing(self, field: str) -> Command | None:
        """The command that changes a field alone: it needs nothing else (`move` a host's group)."""
        found = (one for one in self.commands if one.method == "POST" and one.verb != "create")
        return next((one for one in found if needed(one.body) == [field]), None)

    def parts(self, name: str) -> tuple[str, ...]:
        """The parts of a full name as a person types it (`acme/web-1`).

        Raises:
            UsageError: it has too many or too few.
        """
        given = tuple(name.split("/"))
        if len(given) == len(self.named_by) and all(given):
            return given
        raise click.UsageError(f"{name!r} does not name a {self.name}: write it as {self.usage}")

    def named(self, name: str) -> dict[str, str]:
        """The parts of a full name by what they are: `{"tenant": "acme", "vm": "web-1"}`."""
        return dict(zip(self.named_by, self.parts(name), strict=True))

    def full_names(self, words: Sequence[str]) -> list[str]:
        """The names that `words` are. The parts of one may stand apart, if it does not begin with a part that names
        another kind's resource alone: `std acme` is `std/acme`.

        Raises:
            UsageError: a part stands without the others.
        """
        if not self.is_named_apart:
            return list(words)
        names, left, more = [], list(words), len(self.named_by) - 1
        while left:
            word = left.pop(0)
            if "/" not in word:
                rest, left = left[:more], left[more:]
                if len(rest) < more or any("/" in part for part in rest):
                    raise click.UsageError(
                        f"{word!r} does not name a {self.name}: write it as {self.usage} or "
                        f"{self.usage.replace('/', ' ')}"
                    )
                word = "/".join([word, *rest])
            names.append(word)
        return names

    @property
    def is_named_apart(self) -> bool:
        """Whether it has no name of its own: it is only what its parts are to each other, as a quota is."""
        return len(self.named_by) > 1 and self.name not in self.named_by

    def one_name(self, words: Sequence[str]) -> str:
        """The one name that `words` are.

        Raises:
            UsageError: they are more.
        """
        names = self.full_names(words)
        if len(names) != 1:
            raise click.UsageError(
                f"one {self.name} is named, as {self.usage}; these are {len(names)}: {' '.join(names)}"
            )
        return names[0]

    def path(self, name: str) -> str:
        """Where the resource of that full name is read."""
        return filled(self.path_pattern, self.named(name))

    def path_name(self, name: str) -> str:
        """A full name as it stands in a path of one."""
        return "/".join(quote(part, safe="") for part in self.parts(name))

    def field_of(self, part: str) -> str:
        """The field of a resource, or of a creation's body, in which that part of its name stands."""
        return "name" if part == self.name else part

    def full_name(self, resource: Mapping[str, Any]) -> str:
        """The name by which the CLI would find this resource again."""
        own = resource.get("name") or resource.get("id") or resource.get("uid") or "?"
        return "/".join(
            str(own if part == self.name or len(self.named_by) == 1 else resource.get(part)) for part in self.named_by
        )


class Kinds:
    """All kinds of a server, in the order in which they can be made, and what is the same for all of them."""

    def __init__(self, document: Any) -> None:
        """
        Raises:
            Failed: it is no document of kinds.
        """
        try:
            self.all = tuple(_kind(entry) for entry in document["kinds"])
            self.strategies = _words(document["strategies"])
            self.roles = _words(document["roles"])
        except (KeyError, TypeError, AttributeError, ValueError):
            raise Failed(NOT_BERTH) from None
        self._by_word = {word: kind for kind in self.all for word in kind.words}
        self._by_name = {kind.name: kind for kind in self.all}

    def __iter__(self) -> Iterator[Kind]:
        return iter(self.all)

    def __getitem__(self, name: str) -> Kind:
        """The kind of that very name.

        Raises:
            Failed: what the server knows lacks one on which the command line itself relies.
        """
        found = self._by_name.get(name)
        if found is None:
            raise Failed(NOT_BERTH)
        return found

    def get(self, name: str) -> Kind | None:
        return self._by_name.get(name)

    def of_word(self, word: str) -> Kind | None:
        return self._by_word.get(word.lower())

    def own_verbs(self) -> dict[str, list[Kind]]:
        """The verbs that some kinds have of their own, with these kinds."""
        found: dict[str, list[Kind]] = {}
        for kind in self.all:
            for command in kind.commands:
                if command.verb not in ("create", "set", "delete"):
                    found.setdefault(command.verb, []).append(kind)
        return found

    def find(self, word: str, *, among: Iterable[Kind] | None = None, verb: str = "") -> Kind:
        """The kind that `word` means: singular, plural or short, in any case.

        Raises:
            NotKnown: there is no such kind, or it cannot be used here; says what was probably meant.
        """
        usable = list(self.all if among is None else among)
        kind = self.of_word(word)
        if kind is not None and any(kind is one for one in usable):
            return kind
        words = [name for one in usable for name in (one.name, one.plural)]
        near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near and kind is None else ""
        if kind is None:
            reason = f"there is no kind {word!r}"
        else:
            reason = f"{kind.plural} do not go with " + (f"{verb!r}" if verb else "this verb")
        raise NotKnown(f"{reason}.{hint} Kinds: {', '.join(one.plural for one in usable)}.")

    def named_in(self, kind: Kind, field: str) -> Kind | None:
        """The kind of which a field holds a name: it refers to it, or is called like it."""
        return self._by_name.get(kind.refs.get(field, field))


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """A path with these values in it."""
    return _IN_PATH.sub(lambda match: quote(values[match.group(1)], safe=""), pattern)


def kept(command: Command, resource: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """What a PUT has to say again, since it replaces the whole: all that stands there and is not given."""
    known = [field for field in properties(command.body) if field not in given and field in resource]
    return {field: resource[field] for field in known if resource[field] or field in needed(command.body)}


def _kind(entry: Any) -> Kind:
    return Kind(
        name=_word(entry["name"]),
        plural=_word(entry["plural"]),
        short=_words(entry["short"]),
        named_by=_words(entry["named_by"]),
        path_pattern=_word(entry["path"]),
        list_path=_word(entry["list"]),
        states=_words(entry["states"]),
        failed_states=_words(entry["failed_states"]),
        refs={_word(name): _word(target) for name, target in entry["refs"].items()},
        fields=tuple(_word(field["name"]) for field in entry["fields"]),
        filters=tuple(
            Filter(_word(one["name"]), _word(one["description"]), _schema(one["schema"]), bool(one["repeatable"]))
            for one in entry["filters"]
        ),
        sorts=_words(entry["sorts"]),
        amount_sorts=_words(entry["amount_sorts"]),
        columns=_words(entry["columns"]),
        wide=_words(entry["wide"]),
        amounts=_words(entry["amounts"]),
        yields=_words(entry["yields"]),
        commands=tuple(_command(one) for one in entry["commands"]),
    )


def _command(entry: Any) -> Command:
    return Command(
        name=_word(entry["name"]),
        verb=_word(entry["verb"]),
        method=_word(entry["method"]),
        path=_word(entry["path"]),
        summary=_word(entry["summary"]),
        description=_word(entry.get("description") or ""),
        body=_schema(entry["body"] or {}),
        starts_operation=bool(entry["starts_operation"]),
    )


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _words(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(values)
    return tuple(map(_word, values))


def _schema(value: Any) -> Schema:
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return value
