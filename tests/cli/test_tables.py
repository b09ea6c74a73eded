"""What a person sees, and what a pipe gets."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import description, tables, terminal, units
from cli.tables import Table
from tests.cli.conftest import KINDS

HOST = {
    "name": "h1",
    "display_name": None,
    "state": "available",
    "group": "std",
    "rack": None,
    "vms": ["acme/web-1", "acme/web-2"],
    "capacity": {"cpu": 64, "memory_mib": 262144},
    "used": {"cpu": 12, "memory_mib": 1536},
}


def test_a_person_sees_use_against_what_is_promised_with_one_unit_a_column() -> None:
    table = tables.of_kind(KINDS["host"], [HOST], human=True, overcommit={"std": {"cpu": 1.5}})
    assert table.titles == ["name", "state", "group", "vms", "cpu", "memory GiB"]
    assert table.rows == [["h1", "available", "std", "2", "12/96", "1.5/256"]]


def test_a_pipe_gets_the_numbers_of_the_api() -> None:
    table = tables.of_kind(KINDS["host"], [HOST], human=False)
    assert table.titles == ["name", "display_name", "state", "group", "rack", "vms", "cpu", "memory_mib"]
    assert table.rows == [["h1", "", "available", "std", "", "2", "12/64", "1536/262144"]]


def test_a_class_that_a_quota_does_not_name_is_unlimited() -> None:
    items = [
        {"group": "std", "tenant": "a", "over": False, "limits": {"cpu": 0}, "used": {}},
        {"group": "std", "tenant": "b", "over": True, "limits": {"gpu": 4}, "used": {"gpu": 5}},
    ]
    table = tables.of_kind(KINDS["quota"], items, human=True)
    assert table.titles == ["group", "tenant", "over", "cpu", "gpu"]
    assert table.rows[0] == ["std", "a", "no", "0/0", "0/∞"]
    assert table.rows[1] == ["std", "b", "yes", "0/∞", "5/4"]


def test_a_groups_use_is_against_capacity_times_overcommit() -> None:
    item = {"name": "g", "capacity": {"cpu": 3}, "used": {"cpu": 1}, "overcommit": {"cpu": 1.333}}
    assert tables.of_kind(KINDS["group"], [item], human=True).rows[0][-1] == "1/3"


@pytest.mark.parametrize(
    ("resource_class", "limits", "unit", "shown"),
    [
        ("memory_mib", [262144, 1048576], "GiB", ["256", "1024"]),
        ("memory_mib", [512, 4096], "GiB", ["0.5", "4"]),
        ("memory_mib", [100, 4096], "MiB", ["100", "4096"]),
        ("memory_mib", [16 * 2**20 + 300, 12 * 2**20], "TiB", ["16", "12"]),
        ("memory_mib", [0], "GiB", ["0"]),
        ("storage_gib", [4000, 2000], "GiB", ["4000", "2000"]),
        ("storage_gib", [24000, 168000], "TiB", ["23.4", "164.1"]),
        ("gpu_milli", [1500], "", ["1.5"]),
        ("cpu", [6000], "", ["6000"]),
    ],
)
def test_a_column_has_the_largest_unit_that_shows_every_amount(
    resource_class: str, limits: list[int], unit: str, shown: list[str]
) -> None:
    scale = units.scale(resource_class, limits)
    assert scale.unit == unit
    assert [units.scaled(limit, scale) for limit in limits] == shown


def test_a_little_use_is_not_shown_as_none() -> None:
    scale = units.Scale("TiB", 1024**2)
    assert [units.scaled(mib, scale) for mib in (0, 1, 12 * 1024, 700 * 1024)] == ["0", "<0.01", "0.01", "0.68"]


def wide_rows(count: int) -> Table:
    item = {
        **HOST,
        "name": "tpe1-row07-rack12-unit33",
        "display_name": "Taipei 1 台北一號機房 33",
        "rack": "tpe1-row07-rack12",
        "capacity": {"cpu": 64, "memory_mib": 262144, "storage_gib": 4000, "gpu": 8, "nvme": 12},
    }
    return tables.of_kind(KINDS["host"], [item] * count, human=True)


@pytest.mark.parametrize("columns", [64, 80, 100, 120, 300])
def test_a_table_fits_the_terminal_and_keeps_names_and_states(columns: int) -> None:
    fitted = tables.fit(wide_rows(3), columns)
    lines = tables.text_lines(fitted)
    assert max(map(terminal.width, lines)) <= columns
    assert fitted.rows[0][0] == "tpe1-row07-rack12-unit33"
    assert {"state", "cpu", "memory GiB"} <= set(fitted.titles)
    if columns == 300:
        assert fitted.titles == wide_rows(3).titles


def test_the_narrower_the_terminal_the_fewer_columns() -> None:
    kept = [len(tables.fit(wide_rows(3), columns).titles) for columns in range(40, 200)]
    assert kept == sorted(kept)
    assert len(set(kept)) > 3


def test_text_is_cut_before_a_column_goes() -> None:
    table = Table(["name", "reason"], [["h1", "x" * 200]], cut=frozenset({1}), yields=(1,))
    assert tables.fit(table, 40).rows == [["h1", "x" * 33 + "…"]]
    assert tables.fit(table, 10).titles == ["name"]


def test_an_operation_says_nothing_twice_and_fits() -> None:
    item = {
        "id": "01a23089-0eb5-74f7-aa42-4159d0370375",
        "kind": "vm.provision",
        "target": "vm/payments/web-1",
        "state": "running",
        "percent": 40,
    }
    table = tables.of_kind(KINDS["operation"], [item], human=True)
    assert table.rows[0][1:4] == ["vm.provision", "payments/web-1", "running 40%"]
    assert "target" in tables.fit(table, 80).titles
    piped = tables.of_kind(KINDS["operation"], [item], human=False)
    assert piped.rows[0][1:5] == ["vm.provision", "vm/payments/web-1", "running", "40"]


def test_a_tenant_shows_by_whom_it_is_suspended() -> None:
    items = [
        {"name": "corp", "state": "suspended", "suspended": True, "suspended_by": "corp"},
        {"name": "team", "state": "active", "suspended": True, "suspended_by": "corp"},
        {"name": "free", "state": "active", "suspended": False, "suspended_by": None},
    ]
    table = tables.of_kind(KINDS["tenant"], items, human=True)
    states = [row[table.titles.index("state")] for row in table.rows]
    assert states == ["suspended", "suspended by corp", "active"]


def test_times_are_short() -> None:
    today = date(2026, 12, 1)
    given = ("2026-12-01T07:36:58.292272Z", "2026-11-30T23:59:59Z", "2025-12-01T07:36:58Z", "soon\x1b")
    assert [tables.short_time(text, today=today) for text in given] == [
        "07:36:58",
        "11-30 23:59",
        "2025-12-01",
        "soon\\x1b",
    ]


def test_a_name_cannot_move_the_cursor_or_break_a_line() -> None:
    rows = tables.of_kind(KINDS["tenant"], [{"name": "a", "display_name": "x\x1b[2J\ty\n支付\u202e"}], human=False).rows
    assert rows[0][1] == "x\\x1b[2J y 支付\\u202e"


def test_columns_of_chinese_stay_aligned() -> None:
    table = tables.Table(["name", "n"], [["支付部", "1"], ["pay", "10"]], frozenset({1}))
    assert tables.text_lines(table) == ["name     n", "支付部   1", "pay     10"]


def test_csv_spreads_amounts_over_columns() -> None:
    assert dict(tables.flat(HOST)) == {
        "name": "h1",
        "display_name": "",
        "state": "available",
        "group": "std",
        "rack": "",
        "vms": "acme/web-1 acme/web-2",
        "capacity.cpu": "64",
        "capacity.memory_mib": "262144",
        "used.cpu": "12",
        "used.memory_mib": "1536",
    }


def test_csv_writes_a_list_of_things_as_json() -> None:
    rule = {"type": "affinity", "set": "db"}
    assert dict(tables.flat({"rules": [rule], "addresses": ["10.0.0.1", "10.0.0.2"], "path": []})) == {
        "rules": '[{"type": "affinity", "set": "db"}]',
        "addresses": "10.0.0.1 10.0.0.2",
        "path": "",
    }


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_a_wide_table_shows_every_column_in_sections_that_fit(columns: int) -> None:
    table = wide_rows(3)
    found = tables.sections(table, columns)
    assert all(max(map(terminal.width, tables.text_lines(part))) <= columns for part in found)
    assert [title for part in found for title in part.titles[1:]] == table.titles[1:]
    assert {part.rows[0][0] for part in found} == {"tpe1-row07-rack12-unit33"}


@given(st.text(alphabet=st.sampled_from("ab 支\u0301-"), max_size=120), st.integers(4, 60))
def test_a_folded_line_fits_and_loses_nothing_but_spaces(line: str, cells: int) -> None:
    folded = terminal.fold(line, cells)
    assert all(terminal.width(part) <= cells for part in folded)
    assert "".join(folded).replace(" ", "") == line.replace(" ", "")


def test_words_are_not_broken_and_what_follows_is_indented() -> None:
    line = "  description: General workload, packed tightly"
    assert terminal.fold(line, 32) == ["  description: General workload,", "      packed tightly"]


def test_two_classes_have_two_titles_and_amounts_in_the_unit_that_they_name() -> None:
    group = {
        "name": "g",
        "capacity": {"cpu": 8, "cpu_milli": 4000, "memory_mib": 2048},
        "used": {"cpu": 0, "cpu_milli": 500},
    }
    table = tables.of_kind(KINDS["group"], [group], human=True)
    assert table.titles[-3:] == ["cpu", "memory GiB", "cpu_milli"]
    assert table.rows[0][-3:] == ["0/8", "0/2", "500/4000"]
    shown = tables.amounts_of([group], ("capacity",), by="group", human=True)
    assert [row[1:] for row in shown.rows] == [["cpu", "8"], ["memory", "2 GiB"], ["cpu_milli", "4,000"]]
    alone = tables.of_kind(KINDS["group"], [{"name": "g", "capacity": {"cpu_milli": 4000}}], human=True)
    assert (alone.titles[-1], alone.rows[0][-1]) == ("cpu", "0/4")


def test_a_title_says_that_times_are_in_utc_to_a_person_alone() -> None:
    entry = {"at": "2026-12-01T09:00:00Z", "started_at": None, "actor": "a"}
    fields = ("at", "started_at", "actor")
    assert tables.of_fields([entry], fields, human=True).titles == ["at (UTC)", "started (UTC)", "actor"]
    assert tables.of_fields([entry], fields, human=False).titles == list(fields)


def test_an_operation_is_described_with_its_id_once() -> None:
    operation = {"uid": "o-1", "name": "o-1", "id": "o-1", "state": "running", "kind": "vm.start"}
    assert "\n".join(description.lines(KINDS["operation"], operation)).count("o-1") == 1


@pytest.mark.parametrize("members", [2, 12])
def test_a_broken_rule_names_the_first_of_its_vms(members: int) -> None:
    names = [f"acme/web-{number}" for number in range(members)]
    broken = {"type": "anti_affinity", "set": "web", "level": "host", "vms": names}
    vm = {"tenant": "acme", "name": "web-0", "state": "active", "broken_rules": [broken]}
    for told in (
        description.lines(KINDS["vm"], vm),
        description.value_lines({"vm": "acme/web-0", "broken_rules": [broken]}),
    ):
        (line,) = [line for line in told if "anti_affinity" in line]
        assert ", ".join(names[:5]) in line
        assert ("acme/web-5" in line, line.endswith(" and 7 others")) == (False, members > 5)


def test_a_cut_list_of_names_says_that_there_may_be_more() -> None:
    broken = {"type": "affinity", "vms": [f"a/w{number}" for number in range(1000)], "vms_truncated": True}
    told = description.value_lines({"broken_rules": [broken]})
    assert told[-1].endswith(" and at least 995 others")
    assert "truncated" not in "".join(told)
