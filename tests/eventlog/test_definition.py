"""A cache's name changes with what defines it, and with nothing else."""

import shutil
from pathlib import Path

import pytest

from eventlog.definition import ROOT, definition

VM = ("domain.vm:evolve", "domain.vm:Vm")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder of its own for each test, as what was read of one is kept."""
    for package in ("domain", "eventlog"):
        shutil.copytree(ROOT / package, tmp_path / "before" / package)
        shutil.copytree(ROOT / package, tmp_path / "after" / package)
    return tmp_path


def changes(sources: Path, file: str, old: str, new: str, *, of: tuple[str, ...] = VM, **how: tuple[str, ...]) -> bool:
    """Does the definition change with these words of the file?"""
    path = sources / "after" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    before = definition(*of, root=sources / "before", **how)
    return definition(*of, root=sources / "after", **how) != before


def test_what_evolves_a_state_counts(sources: Path) -> None:
    assert changes(sources, "domain/vm.py", 'return replace(vm, state="creating")', 'return replace(vm, state="made")')


def test_what_it_uses_of_another_file_counts(sources: Path) -> None:
    assert changes(sources, "domain/values.py", "    labels: dict[str, str] = {}", "    labels: dict[str, int] = {}")


def test_a_constant_that_it_uses_counts(sources: Path) -> None:
    assert changes(sources, "domain/vm.py", "BEING_CREATED = ", "BEING_CREATED = ('levitating',) + ")


def test_a_comment_does_not_count(sources: Path) -> None:
    assert not changes(sources, "domain/vm.py", "def evolve(", "# Another word.\ndef evolve(")


def test_a_docstring_does_not_count(sources: Path) -> None:
    assert not changes(sources, "domain/values.py", '"""What people say about a resource;', '"""What is said;')


def test_a_decision_does_not_count(sources: Path) -> None:
    assert not changes(sources, "domain/vm.py", "def start(vm: Vm,", "def begin(vm: Vm,")


def test_another_kind_does_not_count(sources: Path) -> None:
    assert not changes(sources, "domain/host.py", "class HostMoved(", "class HostWasMoved(")


def test_an_argument_that_is_left_out_does_not_count(sources: Path) -> None:
    kind = ("domain.host:KIND",)
    assert not changes(sources, "domain/host.py", 'plural="hosts"', 'plural="machines"', of=kind, left_out=("plural",))


def test_the_same_argument_counts_where_it_is_not_left_out(sources: Path) -> None:
    assert changes(sources, "domain/host.py", 'plural="hosts"', 'plural="machines"', of=("domain.host:KIND",))


def test_a_type_that_a_function_names_does_not_count(sources: Path) -> None:
    assert not changes(sources, "domain/vm.py", "def evolve(vm: Vm, event: VmEvent) -> Vm:", "def evolve(vm, event):")


def test_what_is_not_followed_does_not_count(sources: Path) -> None:
    of = ("domain.kinds:owner_of",)
    assert changes(sources, "domain/rack.py", "dc: str", "dc: int", of=of)
    assert not changes(sources, "domain/rack.py", "dc: int", "dc: bool", of=of, not_followed=("domain.kinds:KINDS",))


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(LookupError, match=r"domain\.vm has no levitate"):
        definition("domain.vm:levitate")
