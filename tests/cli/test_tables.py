"""What a person sees, and what a pipe gets."""

from cli import kinds, tables

HOST = {
    "name": "h1",
    "state": "available",
    "group": "std",
    "rack": None,
    "vms": ["acme/web-1", "acme/web-2"],
    "capacity": {"cpu": 64, "memory_mib": 262144},
    "used": {"cpu": 12},
}


def test_a_person_sees_units_and_dashes() -> None:
    table = tables.of_kind(kinds.HOST, [HOST], human=True)
    assert table.titles == ["name", "state", "group", "rack", "vms", "cpu", "memory"]
    assert table.rows == [["h1", "available", "std", "–", "2", "12 / 64", "0 MiB / 256 GiB"]]


def test_a_pipe_gets_the_numbers_of_the_api() -> None:
    table = tables.of_kind(kinds.HOST, [HOST], human=False)
    assert table.titles[-2:] == ["cpu", "memory_mib"]
    assert table.rows == [["h1", "available", "std", "", "2", "12/64", "0/262144"]]


def test_a_class_that_a_quota_does_not_name_is_unlimited() -> None:
    items = [
        {"group": "std", "tenant": "a", "over": False, "limits": {"cpu": 0}, "used": {}},
        {"group": "std", "tenant": "b", "over": True, "limits": {"gpu": 4}, "used": {"gpu": 5}},
    ]
    table = tables.of_kind(kinds.QUOTA, items, human=True)
    assert table.titles == ["group", "tenant", "over", "cpu", "gpu"]
    assert table.rows[0] == ["std", "a", "no", "0 / 0", "0 / ∞"]
    assert table.rows[1] == ["std", "b", "yes", "0 / ∞", "5 / 4"]


def test_a_name_cannot_move_the_cursor_or_break_a_line() -> None:
    rows = tables.of_kind(kinds.TENANT, [{"name": "a", "display_name": "x\x1b[2J\ty\n支付\u202e"}], human=False).rows
    assert rows[0][1] == "x [2J y 支付 "


def test_columns_of_chinese_stay_aligned() -> None:
    table = tables.Table(["name", "n"], [["支付部", "1"], ["pay", "10"]], frozenset({1}))
    assert tables.text_lines(table) == ["name     n", "支付部   1", "pay     10"]


def test_csv_spreads_amounts_over_columns() -> None:
    assert dict(tables.flat(HOST)) == {
        "name": "h1",
        "state": "available",
        "group": "std",
        "rack": "",
        "vms": "acme/web-1 acme/web-2",
        "capacity.cpu": "64",
        "capacity.memory_mib": "262144",
        "used.cpu": "12",
    }


def test_csv_writes_a_list_of_things_as_json() -> None:
    rule = {"type": "affinity", "set": "db"}
    assert dict(tables.flat({"rules": [rule], "addresses": ["10.0.0.1", "10.0.0.2"], "path": []})) == {
        "rules": '[{"type": "affinity", "set": "db"}]',
        "addresses": "10.0.0.1 10.0.0.2",
        "path": "",
    }
