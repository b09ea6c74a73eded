"""Each kind has a view, and a missing one is named before anything is served."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.kinds import BY_NAME
from projections.views import views_of


def test_a_kind_without_a_view_is_told_by_the_file_to_write() -> None:
    unknown: Any = replace(BY_NAME["rack"], name="air_pump", plural="air-pumps")
    with pytest.raises(ImportError, match=r"'air_pump' has no view: write projections/kinds/air_pumps\.py, with VIEW"):
        views_of([unknown])


def test_a_file_without_its_own_view_is_told_too() -> None:
    racks_in_name_alone: Any = replace(BY_NAME["rack"])
    with pytest.raises(ImportError, match=r"projections/kinds/racks\.py needs VIEW"):
        views_of([racks_in_name_alone])
