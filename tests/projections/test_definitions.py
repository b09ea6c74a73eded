"""Which tables of the read model are made anew when something in the sources changes."""

import shutil
from pathlib import Path

import pytest

from eventlog.definition import ROOT
from projections.definitions import DEFINITIONS, of_tables

PACKAGES = ("domain", "eventlog", "projections")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("before")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package)
    return root


def changed(before: Path, after: Path, file: str, old: str, new: str) -> set[str]:
    """The tables that are defined otherwise with these words of the file."""
    for package in PACKAGES:
        shutil.copytree(before / package, after / package)
    path = after / file
    text = path.read_text()
    assert old in text, f"{file} no longer says {old!r}"
    path.write_text(text.replace(old, new, 1))
    was, now = of_tables(before), of_tables(after)
    return {name for name in DEFINITIONS if was[name] != now[name]}


CASES = {
    "a field of a view": ("projections/kinds/racks.py", 'own("dc"', 'own("hall"', {"rack"}),
    "a filter of a view": ("projections/kinds/racks.py", "filters=True", "filters=False", set()),
    "what a terminal shows": ("projections/kinds/racks.py", 'columns=("name"', 'columns=("state", "name"', set()),
    "an index": ("projections/kinds/operations.py", "operations_by_owner", "operations_by_tenant", {"operation"}),
    "a comment": ("projections/kinds/racks.py", "VIEW: View[Rack]", "# Racks.\nVIEW: View[Rack]", set()),
    "a docstring": ("domain/rack.py", '"""A rack:', '"""It is a rack:', set()),
    "how a state evolves": ("domain/rack.py", 'state="deleted"', 'state="gone"', {"rack", "sums"}),
    "a decision": ("domain/vm.py", "def start(vm: Vm,", "def begin(vm: Vm,", set()),
    "what all rows have": (
        "projections/words.py",
        "casefold()",
        "lower()",
        set(DEFINITIONS) - {"sums", "broken_rules", "progress"},
    ),
    "an audit's entry": ("projections/ledger.py", '"source": event.source', '"from": event.source', {"audit"}),
    "a column of a table beside": ("projections/tables.py", 'Column("usable"', 'Column("room"', {"sums"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_makes_anew_what_it_defines_and_nothing_else(before: Path, tmp_path: Path, case: str) -> None:
    file, old, new, expected = CASES[case]
    assert changed(before, tmp_path, file, old, new) == expected
