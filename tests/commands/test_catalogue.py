"""Commands are found by the kinds, and say themselves how they are given."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from commands import catalogue, racks
from commands.catalogue import COMMANDS, HANDLERS, handlers_of
from commands.model import ENGINE, Command, Name, Route
from domain.host import KIND as HOST
from domain.kinds import KINDS, path_of, tenant_of
from domain.quota import KIND as QUOTA
from domain.rack import KIND as RACK


def test_a_kind_without_commands_says_which_file_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"kind .dock. has no commands: write commands/docks\.py"):
        handlers_of(replace(RACK, name="dock", plural="docks"))


def test_a_file_of_commands_that_cannot_be_read_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")

    monkeypatch.setattr(catalogue.importlib, "import_module", read)
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        handlers_of(RACK)


def test_a_file_without_handlers_or_with_those_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match=r"commands/hosts\.py has commands that are not about the kind 'dock'"):
        handlers_of(replace(HOST, name="dock"))
    monkeypatch.delattr(racks, "HANDLERS")
    with pytest.raises(ImportError, match=r"commands/racks\.py needs HANDLERS"):
        handlers_of(RACK)


@pytest.mark.parametrize("keywords", [{"creates": RACK, "ends": RACK}, {"does": RACK}])
def test_a_command_says_one_thing_that_it_does(keywords: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="SealRack must say one of creates, changes"):
        type(Command)("SealRack", (Command,), {"__module__": __name__, "__doc__": "Seal it."}, **keywords)


def test_a_command_needs_words() -> None:
    with pytest.raises(TypeError, match="SealRack needs a docstring"):

        class SealRack(Command, does=RACK, verb="seal"):
            rack: Name


def test_a_command_says_its_route_its_name_and_its_words() -> None:
    class LetGo(Command, does=HOST, verb="let_go"):
        """Let a host go.

        It is somebody
        else's then.
        """

        host: Name

    assert LetGo.route == Route("POST", "/v1/hosts/{host}/let-go", "let_go")
    assert (LetGo.kind, LetGo.about_kind) == ("host.let_go", HOST)
    assert (LetGo.summary(), LetGo.details()) == ("Let a host go", "It is somebody else's then.")
    assert LetGo(host="h1").on() == "host/h1"


@pytest.mark.parametrize("model", COMMANDS.values(), ids=lambda model: model.kind)
def test_what_a_command_is_about_can_be_made_of_its_fields(model: type[Command]) -> None:
    kind = model.about_kind
    named = (*kind.named_by[:-1], "name") if model.creates_it else kind.named_by
    command = model.model_construct(**{field: f"x-{field}" for field in named})
    assert command.on() == kind.stream(*(f"x-{field}" for field in named))
    assert set(named) <= model.model_fields.keys()


def test_no_command_is_forgotten_in_its_handlers() -> None:
    def below(model: type[Command]) -> Iterator[type[Command]]:
        for one in model.__subclasses__():
            yield one
            yield from below(one)

    written = {model for model in below(Command) if "kind" in vars(model) and model.__module__.startswith("commands.")}
    assert written == set(HANDLERS), f"{[model.__name__ for model in written - set(HANDLERS)]} have no handler"


def test_no_two_commands_are_given_alike() -> None:
    assert len(COMMANDS) == len(HANDLERS), "two have one name"
    routes = [(model.route.method, model.route.path) for model in HANDLERS if model.route is not None]
    assert len(routes) == len(set(routes))


def test_what_the_engine_alone_may_give_has_no_route() -> None:
    assert {kind for kind, model in COMMANDS.items() if model.route is None} == {
        kind for kind, model in COMMANDS.items() if model.roles == ENGINE
    }


def test_where_a_resource_is_read() -> None:
    assert path_of("rack/r1") == "/v1/racks/r1"
    assert path_of("vm/acme/web-1") == "/v1/vms/acme/web-1"
    assert path_of("quota/std/acme") == "/v1/groups/std/quotas/acme"
    assert QUOTA.list_path == "/v1/quotas"


def test_who_is_confined_to_a_tenant_commands_what_has_its_name() -> None:
    """The tenant of a workload is told by its stream alone: authorisation looks nowhere else."""
    for kind in KINDS:
        if kind.is_workload:
            assert tenant_of(kind.stream(*(f"x-{part}" for part in kind.named_by))) == "x-tenant"
