"""The past as its process tells it."""

from typing import Any

import pytest

from domain.fleet import Fleet
from eventlog.codec import Row, decode
from eventlog.read import LogReader
from projections.rows import resource
from tests.projections.logs import a_site, live, write
from workers.past import PastService


class Counting(LogReader):
    """Knows how many rows were read by position."""

    read = 0

    def page(self, after: int, limit: int) -> list[Row]:
        rows = super().page(after, limit)
        self.read += len(rows)
        return rows


@pytest.mark.parametrize("kept", [1, 3])
async def test_it_is_as_it_was_in_whatever_order_one_asks(
    database: Any, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("workers.past.FOLDS_KEPT", kept)
    site = a_site()
    live(site, seed=2, commands=60)
    write(database.service, site.rows)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    told: dict[int, list[dict[str, Any] | None]] = {}
    fleet = Fleet()
    for row in site.rows:
        fleet.fold(decode(row))
        if row.position in ends:
            told[row.position] = [resource(fleet, "host/h1"), resource(fleet, "group/std")]
    reader = LogReader(database.service)
    past = PastService(database.service, reader)
    for position in [*ends[::-7], *ends[::5], *ends[::-11]]:
        for stream, expected in zip(("host/h1", "group/std"), told[position], strict=True):
            answer = await past.answer({"do": "resource", "stream": stream, "as_of": position})
            assert answer["resource"] == expected
    reader.close()


async def test_a_moment_before_and_a_moment_after_cost_one_fold_each(database: Any) -> None:
    site = a_site()
    live(site, seed=4, commands=60)
    write(database.service, site.rows)
    reader = Counting(database.service)
    past = PastService(database.service, reader)
    for position in range(40, site.fleet.position, 10):
        for moment in (position, position - 5):
            await past.answer({"do": "resource", "stream": "host/h1", "as_of": moment})
    assert reader.read <= 2 * site.fleet.position
    reader.close()
