"""YAML documents as resources: parsed, checked field by field, and put into the order in which they can be made."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from cli import kinds
from cli.errors import Failed
from cli.kinds import Kind

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# What can be made by a file, in the order in which it can be made.
ORDER = (kinds.TENANT, kinds.RACK, kinds.GROUP, kinds.HOST, kinds.QUOTA, kinds.VM)
DESCRIBED = {
    "display_name": "text",
    "description": "text",
    "external_id": "text",
    "labels": "labels",
    "protected": "switch",
}
# field: what it must be; a star means that it must be there.
FIELDS: dict[str, dict[str, str]] = {
    "tenant": {"name": "*name", "parent": "name", **DESCRIBED},
    "rack": {"name": "*name", "region": "*name", "dc": "*name", "room": "name", "units": "count", **DESCRIBED},
    "group": {"name": "*name", "region": "name", "strategy": "text", "overcommit": "ratios", **DESCRIBED},
    "host": {
        "name": "*name",
        "group": "*name",
        "rack": "name",
        "unit": "count",
        "capacity": "*amounts",
        "bmc": "mapping",
        **DESCRIBED,
    },
    "quota": {"group": "*name", "tenant": "*name", "limits": "*amounts", **DESCRIBED},
    "vm": {
        "tenant": "*name",
        "name": "*name",
        "group": "*name",
        "resources": "*amounts",
        "image": "text",
        "strategy": "text",
        "where": "mapping",
        "rules": "list",
        **DESCRIBED,
    },
}


class Document(NamedTuple):
    """One resource as the file says it, and where it says so."""

    kind: Kind
    name: str
    body: dict[str, Any]
    place: str


class BadDocument(Failed):
    """The file cannot be applied; the message says where and what to do."""


def read(text: str, *, file: str) -> list[Document]:
    """The documents of a file in the order in which they can be made.

    Raises:
        BadDocument: the first thing that is wrong: file, document (and line), field, and what to do.
    """
    documents: dict[tuple[str, str], Document] = {}
    for place, content in _contents(text, file):
        document = _document(place, content)
        key = (document.kind.name, document.name)
        if key in documents:
            raise BadDocument(f"{place}: {document.kind.name} {document.name} stands already in {documents[key].place}")
        documents[key] = document
    return in_order(list(documents.values()))


def in_order(documents: list[Document]) -> list[Document]:
    """Tenants (parents first), racks, groups, hosts, quotas, VMs; within a kind as they stand in the file."""
    rank = {kind.name: index for index, kind in enumerate(ORDER)}
    depths = _depths([document for document in documents if document.kind is kinds.TENANT])
    return sorted(documents, key=lambda document: (rank[document.kind.name], depths.get(document.name, 0)))


def _depths(tenants: list[Document]) -> dict[str, int]:
    """How many parents of this file stand above each tenant."""
    by_name = {document.name: document for document in tenants}
    depths: dict[str, int] = {}
    for document in tenants:
        above: list[str] = []
        parent = document.body.get("parent")
        while parent in by_name:
            if parent == document.name or parent in above:
                circle = " > ".join([document.name, *above])
                raise BadDocument(
                    f"{document.place}, field parent: {circle} is a circle; a tenant cannot be its own parent"
                )
            above.append(parent)
            parent = by_name[parent].body.get("parent")
        depths[document.name] = len(above)
    return depths


def _contents(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """Every document, and every item of a `kind: List`, with the words that say where it stands."""
    loader = yaml.SafeLoader(text)
    number = 0
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # as check_node said
            number += 1
            place = f"{file}, document {number} (line {node.start_mark.line + 1})"
            _refuse_duplicates(node, place)
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


def _document(place: str, content: Any) -> Document:
    if not isinstance(content, dict):
        raise BadDocument(f"{place}: a document is a mapping with `kind:` and the fields of the resource")
    word = content.get("kind")
    kind = next((kind for kind in ORDER if str(word).lower() in (kind.name, kind.plural)), None)
    if kind is None:
        known = ", ".join(kind.name.capitalize() for kind in ORDER)
        what = "it is missing" if word is None else f"there is none called {word!r}"
        raise BadDocument(f"{place}, field kind: {what}; write one of {known} or List")
    place = f"{place}, {kind.name} {content.get('name') or ''}".rstrip()
    fields = FIELDS[kind.name]
    body = {field: value for field, value in content.items() if field != "kind"}
    for field in body:
        if field not in fields:
            raise BadDocument(f"{place}, field {field}: a {kind.name} has no such field{_meant(str(field), fields)}")
    for field, rule in fields.items():
        if rule.startswith("*") and body.get(field) is None:
            raise BadDocument(f"{place}, field {field}: it is missing, and a {kind.name} needs it")
        if body.get(field) is not None:
            _check(place, field, body[field], rule.lstrip("*"))
    name = "/".join(str(body[_field_of(kind, part)]) for part in kind.named_by)
    return Document(kind, name, body, place)


def _field_of(kind: Kind, part: str) -> str:
    return "name" if part == kind.name else part


def _meant(field: str, fields: dict[str, str]) -> str:
    import difflib

    near = difflib.get_close_matches(field, fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(fields)}"


def _check(place: str, field: str, value: Any, rule: str) -> None:
    """Types are as strict as the API's; what only the API can know (does the rack exist?) is left to it."""

    def bad(path: str, wanted: str, found: Any) -> BadDocument:
        return BadDocument(f"{place}, field {path}: {wanted}, not {found!r}")

    match rule:
        case "name":
            if not isinstance(value, str):
                raise bad(field, "write the name in quotes, as text", value)
            if not NAME.fullmatch(value):
                raise bad(
                    field, "a name has 1 to 63 of a–z, 0–9 and inner hyphens (use display_name for the rest)", value
                )
        case "text":
            if not isinstance(value, str):
                raise bad(field, "write text, in quotes if it looks like a number or a date", value)
        case "count":
            if not _is_whole(value) or value < 1:
                raise bad(field, "write a whole number from 1 on", value)
        case "switch":
            if not isinstance(value, bool):
                raise bad(field, "write true or false", value)
        case "list":
            if not isinstance(value, list):
                raise bad(field, "write a list", value)
        case "mapping" | "labels" | "amounts" | "ratios":
            if not isinstance(value, dict):
                raise bad(field, "write a mapping, one key: value a line", value)
            for name, entry in value.items():
                _check_entry(bad, f"{field}.{name}", entry, rule)


def _check_entry(bad: Any, path: str, value: Any, rule: str) -> None:
    if rule == "labels" and not isinstance(value, str):
        raise bad(path, "write text, in quotes if it looks like a number, a date or yes/no", value)
    if rule == "amounts" and (not _is_whole(value) or value < 0):
        raise bad(path, "write a whole number without quotes, in the unit of its class (memory_mib: 8192)", value)
    if rule == "ratios" and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
        raise bad(path, "write a number above 0, for example 1.5", value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
