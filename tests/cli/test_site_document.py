"""A site's file: read as a whole, checked field by field, put into an order in which it can be made."""

from pathlib import Path

import pytest

from cli.site import document
from cli.site.document import BadDocument
from tests.cli.conftest import KINDS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "site.yaml"


def names(text: str) -> list[str]:
    return [f"{entry.kind.name}/{entry.name}" for entry in document.read(text, file="site.yaml", kinds=KINDS)]


def test_documents_are_made_in_the_order_of_what_needs_what() -> None:
    text = """
kind: VM
tenant: team
name: web-1
group: std
resources: {cpu: 1}
---
{kind: Quota, group: std, tenant: team, limits: {}}
---
{kind: Host, name: h1, group: std, rack: r1, capacity: {cpu: 8}}
---
{kind: Tenant, name: team, parent: dept}
---
{kind: Group, name: std}
---
{kind: Tenant, name: dept, parent: acme}
---
{kind: Rack, name: r1, region: north, dc: dc1}
---
{kind: Tenant, name: acme}
"""
    assert names(text) == [
        "tenant/acme",
        "tenant/dept",
        "tenant/team",
        "rack/r1",
        "group/std",
        "host/h1",
        "quota/std/team",
        "vm/team/web-1",
    ]


def test_a_list_shares_parts_by_anchors() -> None:
    text = """
kind: List
x-shape: &shape {kind: Host, group: std, capacity: {cpu: 8}}
items:
  - {<<: *shape, name: h1}
  - {<<: *shape, name: h2, group: mem}
"""
    first, second = document.read(text, file="site.yaml", kinds=KINDS)
    assert first.body == {"group": "std", "capacity": {"cpu": 8}, "name": "h1"}
    assert second.body["group"] == "mem"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: Tenant, name: 7}", r"document 1 \(line 1\), tenant 7, field name: write the name in quotes.*not 7"),
        ("{kind: Tenant, name: Acme}", r"field name: a name has .*display_name.*not 'Acme'"),
        ("{kind: Tenent, name: a}", r"field kind: there is none called 'Tenent'; write one of Tenant"),
        ("{name: a}", "field kind: it is missing"),
        ("{kind: Rack, name: r1, region: n}", "rack r1, field dc: it is missing, and a rack needs it"),
        ("{kind: Tenant, name: a, parnet: b}", r"field parnet: a tenant has no such field; did you mean parent\?"),
        ("{kind: Host, name: h, group: g, capacity: {cpu: '4'}}", r"host h, field capacity\.cpu: .*whole number.*'4'"),
        ("{kind: Host, name: h, group: g, capacity: {cpu: true}}", r"field capacity\.cpu: .*not True"),
        ("{kind: Host, name: h, group: g, capacity: {cpu: 1.5}}", r"field capacity\.cpu: .*not 1\.5"),
        ("{kind: Group, name: g, overcommit: {cpu: 0}}", r"field overcommit\.cpu: write a number above 0"),
        ("{kind: Tenant, name: a, labels: {on: yes}}", r"field labels\.True: write text, in quotes"),
        (
            "{kind: Tenant, name: a}\n---\n{kind: Tenant, name: a}",
            r"document 2 \(line 3\).*stands already in .*document 1",
        ),
        ("kind: Tenant\nname: a\nname: b", r"field name \(line 3\): it stands there twice"),
        ("{kind: Tenant, name: a}\n---\nkind: [", r"document 2 \(line 3\): this is no YAML"),
        (
            "kind: List\nitems:\n - {kind: Tenant, name: a}\n - {kind: Tenant}",
            r"document 1, item 2 \(line 4\).*field name",
        ),
        ("{kind: List, itmes: []}", "field items: a List has its documents there"),
        ("- a", "a document is a mapping"),
        ("{kind: Tenant, name: a, parent: b}\n---\n{kind: Tenant, name: b, parent: a}", "is a circle"),
    ],
)
def test_a_bad_document_says_where_and_what_to_do(text: str, said: str) -> None:
    with pytest.raises(BadDocument, match=said):
        document.read(text, file="site.yaml", kinds=KINDS)


def test_the_example_is_a_site_of_the_promised_size() -> None:
    documents = document.read(EXAMPLE.read_text(encoding="utf-8"), file="site.yaml", kinds=KINDS)
    hosts = [entry for entry in documents if entry.kind.name == "host"]
    assert len(hosts) == 60
    assert {entry.body["group"] for entry in hosts} == {"std", "mem", "gpu"}
    slots = [(entry.body["rack"], entry.body["unit"]) for entry in hosts]
    assert len(set(slots)) == len(slots)


def test_the_example_promises_children_no_more_than_it_has() -> None:
    documents = document.read(EXAMPLE.read_text(encoding="utf-8"), file="site.yaml", kinds=KINDS)
    tenants = {entry.name: entry.body.get("parent") for entry in documents if entry.kind.name == "tenant"}
    limits = {entry.name: entry.body["limits"] for entry in documents if entry.kind.name == "quota"}
    for name, own in limits.items():
        group, tenant = name.split("/")
        above = limits.get(f"{group}/{tenants[tenant]}", {})
        assert all(own.get(resource_class, 0) <= above[resource_class] for resource_class in above), name


def bomb(levels: int) -> str:
    lines = ["x0: &a0 [lol]"] + [f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, "kind: Tenant", f"name: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{a: " * 3_000, "nested too deeply"),
        ("[" * 150 + "]" * 150, "nested too deeply"),
        (bomb(30), "aliases stand for more than"),
        (f"kind: {'x' * 1_000_000}\nname: a", "there is none called"),
        (bomb(4), "field (name|x0)"),
    ],
    ids=["lists", "mappings", "some levels", "bomb", "long", "small bomb"],
)
def test_a_hostile_file_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(BadDocument, match=said) as refused:
        names(text)
    assert len(refused.value.message) < 3_000
