"""Each kind has a view, which says of it what is so; a missing one is named before anything is served."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.kinds import BY_NAME
from projections.fields import value_of
from projections.resources import own, resource
from projections.views import VIEWS, views_of
from tests.projections.logs import a_site, live


def test_a_kind_without_a_view_is_told_by_the_file_to_write() -> None:
    unknown: Any = replace(BY_NAME["rack"], name="air_pump", plural="air-pumps")
    with pytest.raises(ImportError, match=r"'air_pump' has no view: write projections/kinds/air_pumps\.py, with VIEW"):
        views_of([unknown])


def test_a_file_without_its_own_view_is_told_too() -> None:
    racks_in_name_alone: Any = replace(BY_NAME["rack"])
    with pytest.raises(ImportError, match=r"projections/kinds/racks\.py needs VIEW"):
        views_of([racks_in_name_alone])


@pytest.mark.parametrize("kind", VIEWS)
def test_a_document_that_is_written_out_is_what_its_fields_say(kind: str) -> None:
    site, view = a_site(), VIEWS[kind]
    live(site, seed=4, commands=150)
    named = [(field.name, value_of(field.shown)) for field in view.fields if field.shown is not None]
    streams = list(site.fleet.living[kind])
    assert streams
    for stream in streams:
        entry = site.fleet.living[kind][stream]
        key = stream.partition("/")[2]
        expected = {name: of(key, entry) for name, of in named}
        assert list(own(stream, entry).items()) == list(expected.items())


@pytest.mark.parametrize("kind", VIEWS)
def test_a_schema_tells_what_is_shown_field_by_field_and_no_other(kind: str) -> None:
    site, view = a_site(), VIEWS[kind]
    live(site, seed=5, commands=80)
    told = view.schema()
    for stream in site.fleet.living[kind]:
        shown = resource(site.fleet, stream)
        assert shown is not None
        assert set(told["required"]) - {field.name for field in view.fields if field.is_optional} <= shown.keys()
        assert shown.keys() <= told["properties"].keys()


@pytest.mark.parametrize("kind", VIEWS)
def test_a_terminal_shows_fields_that_there_are(kind: str) -> None:
    view = VIEWS[kind]
    names = {field.name for field in view.fields}
    assert {*view.columns, *view.wide, *view.amounts} <= names
    assert set(view.yields) <= {*view.columns, *view.wide}
    assert set(view.failed_states) & {*view.kind.states, "failed"}
