"""A log that is replaced under a running API: what was learned from the old one is worth nothing from then on."""

from typing import Any

from tests.api.served import ADMIN, Api, served
from tests.conftest import eventually
from tests.losing import lose
from tests.projections.logs import a_site, live, write


def test_tokens_and_listeners_of_a_replaced_log_are_dropped(database: Any) -> None:
    other = a_site()
    live(other, seed=3, commands=300)  # longer than the first: that a position is there proves nothing
    with served(database.service) as url:
        api = Api(url, database.service)
        viewer = api.token("viewer")
        assert api.get("/v1/whoami", token=viewer).status_code == 200
        asked = {"Authorization": f"Bearer {viewer}"}
        with api.http.stream("GET", "/v1/events/stream?after=0", headers=asked) as listening:
            lines = listening.iter_lines()
            next(line for line in lines if line.startswith("data:"))
            lose(database.owner, after=0)
            write(database.service, other.rows)
            told = list(lines)  # it ends
        assert not [line for line in told if "部門" in line], "the other log's events in the stream of the first"
        eventually(lambda: api.get("/v1/whoami", token=viewer).status_code == 401)
        assert api.get("/v1/whoami", token=ADMIN).status_code == 401
