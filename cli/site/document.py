"""YAML documents as resources: parsed, checked field by field, and put into the order in which they can be made."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from cli import schema
from cli.errors import Failed
from cli.kinds import Kind, Kinds
from cli.schema import Schema
from cli.site.check import check

DEEP_MAX = 100  # levels of a document
QUOTED_MAX = 100  # characters of what a message repeats
VALUES_MAX = 1_000_000  # of a document, those that aliases repeat counted each time


class Document(NamedTuple):
    """One resource as the file says it, and where it says so."""

    kind: Kind
    name: str
    body: dict[str, Any]
    place: str


class BadDocument(Failed):
    """The file cannot be applied; the message says where and what to do."""


def read(text: str, *, file: str, kinds: Kinds) -> list[Document]:
    """The documents of a file in the order in which they can be made.

    Raises:
        BadDocument: the first thing that is wrong: file, document (and line), field, and what to do.
    """
    documents: dict[tuple[str, str], Document] = {}
    for place, content in contents(text, file):
        document = _document(place, content, kinds)
        key = (document.kind.name, document.name)
        if key in documents:
            raise BadDocument(f"{place}: {document.kind.name} {document.name} stands already in {documents[key].place}")
        documents[key] = document
    return in_order(list(documents.values()), kinds)


def made_by_files(kinds: Kinds) -> list[Kind]:
    """The kinds of which a file can say how they are to be: they can be made, and changed afterwards."""
    return [kind for kind in kinds if kind.creation is not None and kind.command("set") is not None]


def fields_of(kind: Kind) -> dict[str, Schema]:
    """The fields that a document of that kind may have: those of its creation, and the parts of its name.

    What a PUT takes and no resource shows is about this one change (`force`), and nothing that can be so.
    """
    creation = kind.creation
    assert creation is not None
    found: dict[str, Schema] = {}
    for part in kind.named_by:
        field = kind.field_of(part)
        found[field] = schema.properties(creation.body).get(field, {"type": "string", "pattern": "."})
    for field, of in schema.properties(creation.body).items():
        if creation.method != "PUT" or field in kind.fields:
            found[field] = of
    return found


def in_order(documents: list[Document], kinds: Kinds) -> list[Document]:
    """By their kinds, as these need each other; within a kind those that others of it refer to first, and else as they
    stand in the file."""
    rank = {kind.name: index for index, kind in enumerate(kinds)}
    depths: dict[tuple[str, str], int] = {}
    for kind in kinds:
        for field, target in kind.refs.items():
            if target == kind.name:
                depths |= _depths([document for document in documents if document.kind.name == kind.name], field)
    return sorted(
        documents,
        key=lambda document: (rank[document.kind.name], depths.get((document.kind.name, document.name), 0)),
    )


def _depths(documents: list[Document], field: str) -> dict[tuple[str, str], int]:
    """How many of this file stand above each of one kind, by the field that refers to its own kind."""
    by_name = {document.name: document for document in documents}
    depths: dict[tuple[str, str], int] = {}
    for document in documents:
        above: list[str] = []
        parent = document.body.get(field)
        while parent in by_name:
            if parent == document.name or parent in above:
                circle = " > ".join([document.name, *above])
                raise BadDocument(
                    f"{document.place}, field {field}: {circle} is a circle; "
                    f"a {document.kind.name} cannot be its own {field}"
                )
            above.append(parent)
            parent = by_name[parent].body.get(field)
        depths[document.kind.name, document.name] = len(above)
    return depths


def contents(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """Every document, and every item of a `kind: List`, with the words that say where it stands.

    Raises:
        BadDocument: it is no YAML (of which JSON is a part), says a field twice, or is too large or too deep.
    """
    loader = yaml.SafeLoader(text)
    number = 0
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # as check_node said
            number += 1
            place = f"{file}, document {number} (line {node.start_mark.line + 1})"
            _refuse_duplicates(node, place)
            _must_be_bounded(node, place)
            lines = _item_lines(node)
            content = loader.construct_document(node)
            if content is None:
                continue
            if not isinstance(content, dict) or content.get("kind") != "List":
                yield place, content
                continue
            yield from _items(content, lines, f"{file}, document {number}", place)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1})" if mark else ""
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise BadDocument(f"{file}, document {number + 1}{line}: this is no YAML: {reason}") from None
    except yaml.YAMLError as error:
        raise BadDocument(f"{file}: this is no YAML: {error}") from None
    except RecursionError:
        message = f"it is nested too deeply; at most {DEEP_MAX} levels are read"
        raise BadDocument(f"{file}, document {number + 1}: {message}") from None
    finally:
        loader.dispose()


def _items(content: dict[str, Any], lines: list[int], document: str, place: str) -> Iterator[tuple[str, Any]]:
    items = content.get("items")
    if not isinstance(items, list):
        raise BadDocument(f"{place}, field items: a List has its documents there, as a list")
    for field in content:
        if field not in ("kind", "items") and not str(field).startswith("x-"):
            raise BadDocument(f"{place}, field {field}: a List has `kind`, `items` and, for anchors, `x-…` alone")
    for index, (item, line) in enumerate(zip(items, lines, strict=True), start=1):
        yield f"{document}, item {index} (line {line})", item


def _item_lines(node: yaml.Node) -> list[int]:
    """The lines on which the items of a List begin, taken before construction merges them."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if getattr(key, "value", None) == "items" and isinstance(value, yaml.SequenceNode):
                return [entry.start_mark.line + 1 for entry in value.value]
    return []


def _refuse_duplicates(node: yaml.Node, place: str) -> None:
    """YAML forbids a key twice, PyYAML keeps the last one silently."""
    pending, seen_nodes = [node], set()
    while pending:
        current = pending.pop()
        if id(current) in seen_nodes:
            continue
        seen_nodes.add(id(current))
        if isinstance(current, yaml.SequenceNode):
            pending += current.value
        elif isinstance(current, yaml.MappingNode):
            keys = set()
            for key, value in current.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        line = key.start_mark.line + 1
                        raise BadDocument(f"{place}, field {key.value} (line {line}): it stands there twice; keep one")
                    keys.add(key.value)
                pending.append(value)


def _must_be_bounded(node: yaml.Node, place: str) -> None:
    """A few lines of aliases to aliases stand for billions of values. Those within a node are counted once, and the
    counts added up wherever it stands."""
    counts: dict[int, int] = {}

    def count(current: yaml.Node, depth: int) -> int:
        if depth > DEEP_MAX:
            raise BadDocument(f"{place}: it is nested too deeply; at most {DEEP_MAX} levels are read")
        if (known := counts.get(id(current))) is None:
            inner: list[yaml.Node] = []
            if isinstance(current, yaml.SequenceNode):
                inner = current.value
            elif isinstance(current, yaml.MappingNode):
                inner = [part for pair in current.value for part in pair]
            counts[id(current)] = 0  # one that holds itself is refused where it is made
            known = counts[id(current)] = 1 + sum(count(part, depth + 1) for part in inner)
        return known

    if count(node, 0) > VALUES_MAX:
        raise BadDocument(f"{place}: its aliases stand for more than {VALUES_MAX:,} values; write out what is meant")


def _document(place: str, content: Any, kinds: Kinds) -> Document:
    if not isinstance(content, dict):
        raise BadDocument(f"{place}: a document is a mapping with `kind:` and the fields of the resource")
    word = content.get("kind")
    usable = made_by_files(kinds)
    kind = next((kind for kind in usable if str(word).lower() in (kind.name, kind.plural)), None)
    if kind is None:
        known = ", ".join(kind.name.capitalize() for kind in usable)
        what = "it is missing" if word is None else f"there is none called {str(word)[:QUOTED_MAX]!r}"
        raise BadDocument(f"{place}, field kind: {what}; write one of {known} or List")
    place = f"{place}, {kind.name} {str(content.get('name') or '')[:QUOTED_MAX]}".rstrip()
    fields = fields_of(kind)
    body = {field: value for field, value in content.items() if field != "kind"}
    for field in body:
        if field not in fields:
            raise BadDocument(f"{place}, field {field}: a {kind.name} has no such field{_meant(str(field), fields)}")
    _must_be_whole(place, kind, body)
    assert kind.creation is not None
    for field, of in fields.items():
        if body.get(field) is not None and (wrong := check(field, body[field], of, kind.creation.body)) is not None:
            raise BadDocument(f"{place}, field {wrong}")
    name = "/".join(str(body[kind.field_of(part)]) for part in kind.named_by)
    return Document(kind, name, body, place)


def _must_be_whole(place: str, kind: Kind, body: dict[str, Any]) -> None:
    assert kind.creation is not None
    for field in (*map(kind.field_of, kind.named_by), *schema.needed(kind.creation.body)):
        if body.get(field) is None:
            raise BadDocument(f"{place}, field {field}: it is missing, and a {kind.name} needs it")


def _meant(field: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(field, fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(fields)}"
