"""A command's body as flags: which there are follows from the shapes of its fields, whatever the kind.

    --group std  --cpu 4 --memory 8GiB  --bmc.address 10.0.0.1  --labels.team pay  --rule anti_affinity:web:host
        │            │                      │                       │
        └────────────┴─ Flag.option (click) ┴───────────────────────┴─► Flag.put ─► {"group": "std", …}

`spelled` turns what can't be declared beforehand (`--labels.team pay`) into what can (`--label team=pay`).
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from cli import options, rules, schema
from cli.kinds import Command, Kind, Kinds
from cli.names import completing
from cli.schema import Field

NULL = object()  # a field is to become null, which click's None can't say
CLASSES = {"cpu": "cpu", "memory": "memory_mib", "storage": "storage_gib", "gpu": "gpu"}
LIMITS = "limits"  # which may also have counts, and none of which means that there is no limit
# In words what the fields mean that all kinds have, and that many have; others are described by the server.
MEANINGS = {
    "display_name": "For people; any script.",
    "description": "For people; longer.",
    "external_id": "Your own key, for example of the CMDB.",
    "labels": "May be repeated.",
    "protected": "Refuse to delete it, until this is lifted.",
    "force": "Even if what runs breaks a limit, a promise or a rule then.",
}

Put = Callable[[dict[str, Any], Any], None]


class Flag(NamedTuple):
    """One flag. `put` writes its value into a body; `title` is how a message and the help call it."""

    option: click.Option
    field: Field
    put: Put

    @property
    def title(self) -> str:
        return self.option.opts[0]


def of_command(command: Command, kind: Kind, kinds: Kinds, *, taken: frozenset[str] = frozenset()) -> list[Flag]:
    """The flags of a command's body, in the order in which help lists them; `taken` are flags of another meaning.

    The parts of the resource's name are no flags: they stand in its name. Nor is `reason`, which every command has.
    """
    in_name = {kind.field_of(part) for part in kind.named_by} if command is kind.creation else set()
    fields = schema.fields(command.body, without=frozenset({"reason", *in_name}))
    maker = _Maker(fields, kind, kinds, can_be_null=command.verb != "create", taken=set(taken))
    # What is particular to the kind is read first, the words that all kinds have last.
    ordered = sorted(fields, key=lambda field: (not _is_needed(field, command), field.path[0] in MEANINGS))
    flags = [flag for field in ordered for flag in maker.flags_of(field)]
    return [*flags, *(_in_path(part, kind, kinds) for part in command.in_path if part not in kind.named_by)]


def spelled(args: Sequence[str], flags: Sequence[Flag], known: Sequence[str]) -> list[str]:
    """The words of a call with every flag as click knows it: `--bmc-address` is `--bmc.address`, `--labels.team pay` is
    `--label team=pay`. `known` are all flags of the command, which stay as they are.

    Raises:
        UsageError: nothing follows such a flag.
    """
    declared = {_plain(name): name for flag in flags for name in (*flag.option.opts, *flag.option.secondary_opts)}
    maps = {
        "--" + ".".join(flag.field.path): flag.option.opts[0]
        for flag in flags
        if flag.field.shape.word in schema.MAPS and flag.option.multiple
    }
    found: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*found, word, *words]
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in known:
            found.append(word)
        elif _plain(name) in declared:
            found.append(declared[_plain(name)] + equals + value)
        elif (above := _map_of(name, maps)) is not None:
            if not equals and not words:
                raise click.UsageError(f"{name} needs a value behind it")
            found += [maps[above], f"{name[len(above) + 1 :]}={value if equals else words.pop(0)}"]
        else:
            found.append(word)
    return found


def body_of(flags: Sequence[Flag], given: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """`body` (what a file says) with what the flags say in it.

    Raises:
        UsageError: one says twice what can be said once.
    """
    for flag in flags:
        value = given.get(str(flag.option.name))
        if value is not None and value != ():
            flag.put(body, value)
    return body


def lacking(command: Command, flags: Sequence[Flag], body: dict[str, Any], kind: Kind) -> None:
    """
    Raises:
        UsageError: a field that the command needs is not there; names the flags of all of them.
    """
    missing = [name for name in schema.needed(command.body) if name not in body]
    if missing:
        *others, last = [_ways(name, flags) for name in missing]
        said = f"{', '.join(others)} and {last}" if others else last
        raise click.UsageError(f"{command.verb} {kind.name} needs {said}")


def _ways(name: str, flags: Sequence[Flag]) -> str:
    """How a field can be said: its flag, or those for its parts."""
    titles = [flag.title for flag in flags if flag.field.path[0] == name and not flag.option.hidden]
    if len(titles) > 1:
        return f"{name} ({', '.join(titles[:6])}{' …' if len(titles) > 6 else ''})"
    return titles[0] if titles else f"{name} (by -f FILE)"


class _Maker:
    """Makes the flags of fields. A part of an object also has its own name alone as a flag, if that says enough."""

    def __init__(self, fields: list[Field], kind: Kind, kinds: Kinds, *, can_be_null: bool, taken: set[str]) -> None:
        self._kind, self._kinds = kind, kinds
        self._can_be_null = can_be_null
        self._taken = taken
        tops = {field.name for field in fields if len(field.path) == 1}
        parts = [field.name for field in fields if len(field.path) > 1 and field.shape.word not in schema.MAPS]
        self._said_alone = {name for name in parts if parts.count(name) == 1 and name not in tops}
        amounts = (field for field in fields if field.shape.word == schema.AMOUNTS and field.shape.is_of_classes)
        self._amounts = next(amounts, None)

    def flags_of(self, field: Field) -> list[Flag]:
        made = self._flags_of(field)
        if field.shape.is_nullable and self._can_be_null and field.shape.word != schema.SWITCH:
            made.append(self._none_of(field))
        for flag in made:
            self._taken |= {*flag.option.opts, *flag.option.secondary_opts}
        return made

    def _flags_of(self, field: Field) -> list[Flag]:
        shape = field.shape
        match shape.word:
            case schema.OBJECT:  # its parts have flags
                return [self._one(field._replace(is_needed=False), metavar="JSON", read=_json, hidden=True)]
            case schema.AMOUNTS:
                return self._amount_flags(field)
            case schema.TEXTS | schema.MAP:
                more = ("-l",) if field.path == ("labels",) else ()
                read = _null_or_text if shape.inner is not None and shape.inner.is_nullable else _text_pair
                read = read if shape.word == schema.TEXTS else _json_pair
                return [self._map(field, _one_of_many(field), *more, metavar="KEY=VALUE", read=read)]
            case schema.RATIOS:
                return [self._map(field, _one_of_many(field), metavar="CLASS=RATIO", read=_ratio_pair)]
            case schema.RULES:
                flag = self._many(field, metavar="TYPE:SET:LEVEL[:N]", read=rules.parse, help=rules.HELP)
                return [flag]
            case schema.OBJECTS | schema.ANY:
                is_list = shape.word == schema.OBJECTS
                return [(self._many if is_list else self._one)(field, metavar="JSON", read=_json)]
            case schema.LIST | schema.ONE_OR_MORE:
                return [self._list(field)]
            case schema.SWITCH:
                return [self._one(field, is_switch=True)]
        return [self._one(field)]

    def _option(self, names: Sequence[str], field: Field, *, help: str = "", **more: Any) -> click.Option:
        is_needed = field.is_needed and len(field.path) == 1 and not more.get("hidden")
        text = help or _sentence(field.description) or MEANINGS.get(field.name) or self._refers(field)
        named = self._kinds.named_in(self._kind, field.name)
        free = [name for name in names if not self._taken & set(name.split("/"))]
        return click.Option(
            [*(free or [f"--{self._kind.name}.{names[0].lstrip('-')}"]), _dest(field, more.pop("dest", ""))],
            help=f"{'Needed. ' if is_needed else ''}{text}".strip() or None,
            default=None,
            shell_complete=completing(named.name) if named is not None else None,
            **more,
        )

    def _refers(self, field: Field) -> str:
        named = self._kinds.named_in(self._kind, field.name)
        return f"A {named.name}'s name." if named is not None else ""

    def _one(
        self, field: Field, *, is_switch: bool = False, metavar: str = "", read: Any = None, hidden: bool = False
    ) -> Flag:
        long = _long(field)
        if is_switch:
            # What a resource shows can be taken back; what is about this one command is said or not.
            is_shown = field.path[0] in self._kind.fields and self._can_be_null
            is_on = field.shape.schema.get("default") is True
            names = [f"{long}/--no-{long[2:]}"] if is_shown or is_on else [long]
            return Flag(self._option(names, field, is_flag=True), field, _at(field))
        alone = [f"--{_dashed(field.name)}"] if len(field.path) > 1 and field.name in self._said_alone else []
        shown = metavar or self._metavar(field)
        option = self._option([long, *alone], field, type=read or self._type(field), metavar=shown, hidden=hidden)
        return Flag(option, field, _at(field))

    def _none_of(self, field: Field) -> Flag:
        option = self._option(
            [f"--no-{_long(field)[2:]}"], field, dest="none", is_flag=True, flag_value="none", hidden=True
        )

        def put(body: dict[str, Any], _: Any) -> None:
            _at(field)(body, NULL)

        return Flag(option, field, put)

    def _list(self, field: Field) -> Flag:
        """`--address a --address b` or `--addresses a,b`. What may be one or more is one if one is given."""
        names = list(dict.fromkeys([_one_of_many(field), _long(field)]))
        option = self._option(names, field, multiple=True, metavar=f"{self._metavar(field) or 'ONE'}[,…]")
        inner = field.shape.inner
        assert inner is not None
        read = _text_reader(inner)

        def put(body: dict[str, Any], texts: tuple[str, ...]) -> None:
            values = [read(part, str(option.opts[0])) for text in texts for part in text.split(",")]
            is_one = field.shape.word == schema.ONE_OR_MORE and len(values) == 1
            _at(field)(body, values[0] if is_one else values)

        return Flag(option, field, put)

    def _many(self, field: Field, *, metavar: str, read: Any, help: str = "") -> Flag:
        names = list(dict.fromkeys([_one_of_many(field), _long(field)]))
        option = self._option(names, field, multiple=True, metavar=metavar, help=help)

        def put(body: dict[str, Any], texts: tuple[str, ...]) -> None:
            values = [_json(text) if text.startswith(("{", "[")) else read(text) for text in texts]
            _at(field)(body, [one for value in values for one in (value if isinstance(value, list) else [value])])

        return Flag(option, field, _or_wrong_use(put, option))

    def _map(self, field: Field, *names: str, metavar: str, read: Any, help: str = "") -> Flag:
        all_names = list(dict.fromkeys([*names, _long(field)]))
        option = self._option(all_names, field, multiple=True, metavar=metavar, help=help)

        def put(body: dict[str, Any], texts: tuple[str, ...]) -> None:
            found: dict[str, Any] = {}
            for text in texts:
                if field.shape.word == schema.MAP and text.startswith("{"):
                    found |= _json(text)
                    continue
                name, value = read(text, str(option.opts[0]))
                if name in found:
                    raise click.UsageError(f"{name} is given twice")
                found[name] = value
            _into(body, field, found)

        return Flag(option, field, put)

    def _amount_flags(self, field: Field) -> list[Flag]:
        """`--cpu 4 --memory 8GiB`, of the amounts that the body is about, and any class by its name."""
        is_about = field is self._amounts
        inner = field.shape.inner
        can_be_null = inner is not None and inner.is_nullable
        found = [self._class(field, word, name) for word, name in CLASSES.items()] if is_about else []
        if is_about and field.name == LIMITS:
            found += [self._class(field, "vms", "vms"), self._unlimited(field)]

        def read(text: str, flag: str) -> tuple[str, Any]:
            name, _, value = text.partition("=")
            return (name, NULL) if can_be_null and value == "null" and name else _or_bad(options.assignment, text, flag)

        names = [_one_of_many(field), *(["--resource"] if is_about and field.name != LIMITS else [])]
        text = "Any class by its name." + (" Needed, if none of the above is given." if field.is_needed else "")
        more = field._replace(is_needed=False)
        return [*found, self._map(more, *dict.fromkeys(names), metavar="CLASS=N", read=read, help=text)]

    def _class(self, field: Field, word: str, resource_class: str) -> Flag:
        metavar, text = {
            "cpu": ("N", "vCPU."),
            "memory_mib": ("N|8GiB", "Memory; MiB without a unit."),
            "storage_gib": ("N|2TiB", "Storage; GiB without a unit."),
            "gpu": ("N", "GPUs."),
        }.get(resource_class, ("N", f"How many {resource_class}."))
        option = self._option(
            [f"--{word}"],
            field._replace(is_needed=False),
            dest=word,
            type=options.amount_of(resource_class),
            metavar=metavar,
            help=text,
        )
        return Flag(option, field, lambda body, value: _into(body, field, {resource_class: value}))

    def _unlimited(self, field: Field) -> Flag:
        option = self._option(
            ["--unlimited"],
            field._replace(is_needed=False),
            dest="unlimited",
            is_flag=True,
            flag_value=True,
            help="No limit in any class: the quota is access alone.",
        )

        def put(body: dict[str, Any], _: Any) -> None:
            if body.get(field.name):
                raise click.UsageError("--unlimited goes without any limit beside it")
            body[field.name] = {}

        return Flag(option, field, put)

    def _type(self, field: Field) -> Any:
        """What reads the flag's value: null of what may become so, else by its shape."""
        read = self._reader(field)
        if not (field.shape.is_nullable and self._can_be_null):
            return read
        inner = click.types.convert_type(read)

        def or_null(text: str) -> Any:
            return NULL if text == "null" else inner.convert(text, None, None)

        return or_null

    def _reader(self, field: Field) -> Any:
        shape = field.shape
        choices = shape.choices or self._choices(field)
        if choices:
            return click.Choice(choices)
        match shape.word:
            case schema.TIME:
                return options.time
            case schema.WHOLE:
                return click.IntRange(_bound(shape, "minimum"), _bound(shape, "maximum"))
            case schema.NUMBER:
                return click.FLOAT
        return click.STRING

    def _choices(self, field: Field) -> Sequence[str]:
        """What the platform has as a whole (strategies) is listed beside the kinds, not in each schema."""
        return self._kinds.strategies if field.name == "strategy" else ()

    def _metavar(self, field: Field) -> str | None:
        named = self._kinds.named_in(self._kind, field.name)
        if named is not None:
            return named.usage
        if field.shape.choices or self._choices(field):
            return None
        return {schema.WHOLE: "N", schema.NUMBER: "X", schema.TIME: "TIME"}.get(field.shape.word, "TEXT")


def _in_path(part: str, kind: Kind, kinds: Kinds) -> Flag:
    """What stands in a command's path beside the resource's name."""
    option = click.Option([f"--{_dashed(part)}", f"in_path_{part}"], required=True, metavar="NAME", help="Needed.")
    field = Field((part,), schema.Shape(schema.TEXT, {}), True, "")
    return Flag(option, field, lambda body, value: None)


def _is_needed(field: Field, command: Command) -> bool:
    return field.path[0] in schema.needed(command.body)


def _sentence(text: str) -> str:
    """A description of the server as a sentence."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def _at(field: Field) -> Put:
    """Writes a value at the field's place."""

    def put(body: dict[str, Any], value: Any) -> None:
        place = _inside(body, field.path[:-1])
        place[field.name] = None if value is NULL else value

    return put


def _into(body: dict[str, Any], field: Field, entries: dict[str, Any]) -> None:
    """Adds entries to a map; one that a file has is written over, one of another flag is given twice."""
    place = _inside(body, field.path[:-1])
    standing = place.get(field.name)
    if not isinstance(standing, _Given):
        standing = _Given(standing if isinstance(standing, dict) else {})
        place[field.name] = standing
    for name, value in entries.items():
        if name in standing.given:
            raise click.UsageError(f"{name} is given twice")
        standing.given.add(name)
        standing[name] = None if value is NULL else value


class _Given(dict[str, Any]):
    """A map of a body that remembers what flags have put there."""

    def __init__(self, standing: dict[str, Any]) -> None:
        super().__init__(standing)
        self.given: set[str] = set()


def _inside(body: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    for name in path:
        if not isinstance(body.get(name), dict):
            body[name] = {}
        body = body[name]
    return body


def _long(field: Field) -> str:
    return "--" + ".".join(map(_dashed, field.path))


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _plain(flag: str) -> str:
    """A flag without the ways in which it may be spelled."""
    return flag.replace(".", "-").replace("_", "-")


def _map_of(name: str, maps: dict[str, str]) -> str | None:
    return next((above for above in sorted(maps, key=len, reverse=True) if name.startswith(f"{above}.")), None)


def _one_of_many(field: Field) -> str:
    """The flag for one entry: `--label` of labels, `--address` of addresses."""
    path = [*field.path[:-1], _singular(field.name)]
    return "--" + ".".join(map(_dashed, path))


def _singular(word: str) -> str:
    if re.search(r"(ss|x|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _dest(field: Field, kind: str) -> str:
    return re.sub(r"\W", "_", "_".join(["flag", *field.path, kind]))


def _bound(shape: schema.Shape, name: str) -> int | None:
    found = shape.schema.get(name)
    return found if isinstance(found, int) else None


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"{flag} takes key=value, not {text!r}")
    return name, value


def _text_pair(text: str, flag: str) -> tuple[str, Any]:
    name, value = _pair(text, flag)
    return name, value


def _null_or_text(text: str, flag: str) -> tuple[str, Any]:
    name, value = _pair(text, flag)
    return name, NULL if value == "null" else value


def _json_pair(text: str, flag: str) -> tuple[str, Any]:
    name, value = _pair(text, flag)
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _ratio_pair(text: str, flag: str) -> tuple[str, Any]:
    name, value = _pair(text, flag)
    if value == "null":
        return name, NULL
    try:
        ratio = float(value)
    except ValueError:
        raise click.UsageError(f"{flag} takes class=ratio, and {value!r} is no number") from None
    return name, int(ratio) if ratio.is_integer() else ratio


def _text_reader(shape: schema.Shape) -> Callable[[str, str], Any]:
    if shape.word == schema.WHOLE:
        return lambda text, flag: _or_bad(int, text, flag)
    return lambda text, flag: text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise click.BadParameter(f"{text[:100]!r} is no JSON") from None


def _or_bad(read: Callable[[str], Any], text: str, flag: str) -> Any:
    try:
        return read(text)
    except click.BadParameter as error:
        raise click.UsageError(f"{flag}: {error.message}") from None
    except ValueError:
        raise click.UsageError(f"{flag}: {text!r} is no number") from None


def _or_wrong_use(put: Put, option: click.Option) -> Put:
    def guarded(body: dict[str, Any], value: Any) -> None:
        try:
            put(body, value)
        except click.BadParameter as error:
            raise click.UsageError(f"{option.opts[0]}: {error.message}") from None

    return guarded
