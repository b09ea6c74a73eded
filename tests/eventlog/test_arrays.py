"""Arrays as the server takes them."""

from typing import Any

import psycopg
import pytest

from eventlog import arrays
from eventlog.arrays import Bigints, Bools, Texts
from tests.conftest import Database


@pytest.mark.parametrize(
    ("sent", "of_type"),
    [
        (Texts(["", "a", None, "übergröße", '{"quoted, by": "hand"}']), "text"),
        (Texts(), "text"),
        (Bigints([0, -1, None, 2**63 - 1, -(2**63)]), "bigint"),
        (Bools([True, None, False]), "bool"),
    ],
)
def test_the_server_reads_what_was_sent(database: Database, sent: list[Any], of_type: str) -> None:
    with psycopg.connect(database.service) as connection:
        arrays.register(connection)
        found = connection.execute(f"SELECT element FROM unnest(%b::{of_type}[]) AS element", (sent,))
        assert [row[0] for row in found] == sent
