"""The administrator's token in a file: what stands in the audit of it is what it changed."""

from commands.tokens import hash_of
from commands.writer.engine import Engine
from eventlog.read import LogReader
from projections.resources import resource
from tests.conftest import Database


async def test_a_start_with_a_secret_that_is_known_records_nothing(database: Database) -> None:
    reader = LogReader(database.service)
    found = []
    for secret in ("first", "first", "second", "second", "first"):  # the last as from an old copy of the file
        engine = Engine(database.service, resource=resource, admin_token_hash=hash_of(secret))
        await engine.start()
        await engine.ready()
        assert engine.is_leading
        await engine.stop()
        found.append([row.topic for row in reader.of_topics("", after=0, until=reader.end()) if row.stream != "log"])
    reader.close()
    first = ["token.created", "command.accepted"]
    both = [*first, "token.reset", "command.accepted"]
    assert found == [first, first, both, both, both]
