import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventlog import schema
from eventlog.schema import UnsafeRole
from tests.conftest import Database, making_roles
from tests.eventlog.rows import a_row, an_open_log
from tests.servers import Cluster

CHANGES = (
    "UPDATE berth.events SET state = ''",
    "UPDATE berth.events SET state = '' WHERE false",
    "DELETE FROM berth.events",
    "TRUNCATE berth.events",
    "INSERT INTO berth.events SELECT * FROM berth.events ON CONFLICT (notification_id) DO UPDATE SET state = ''",
    "MERGE INTO berth.events e USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
)
BEYOND = (
    "CREATE TABLE berth.mine (n int)",
    "ALTER TABLE berth.events DISABLE TRIGGER events_are_final",
    "DROP TRIGGER events_are_final ON berth.events",
    "DROP TABLE berth.events",
    "CREATE INDEX ON berth.events (topic)",
    "BEGIN; LOCK TABLE berth.events IN EXCLUSIVE MODE",
    "TRUNCATE berth.progress",
    "SELECT berth.events_are_final()",
    "SET session_replication_role = replica",
    "CREATE ROLE another",
)


def count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM berth.events").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("statement", CHANGES)
async def test_an_event_is_never_changed_or_removed_not_even_by_the_owner(database: Database, statement: str) -> None:
    await (await an_open_log(database.service, [a_row(2)])).close()
    with psycopg.connect(database.owner, autocommit=True) as owner:
        with pytest.raises(errors.InsufficientPrivilege, match="An event is never changed or removed"):
            owner.execute(statement)
        # A session that replicates fires no ordinary trigger.
        owner.execute("SET session_replication_role = replica")
        with pytest.raises(errors.InsufficientPrivilege, match="An event is never changed or removed"):
            owner.execute(statement)
        assert count(owner) == 2


@pytest.mark.parametrize("statement", CHANGES + BEYOND)
async def test_the_service_may_append_and_read_and_nothing_else(database: Database, statement: str) -> None:
    await (await an_open_log(database.service, [a_row(2)])).close()
    with psycopg.connect(database.service, autocommit=True) as service:
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute(statement)
        service.rollback()
        assert count(service) == 2


def test_the_service_makes_schemas_of_its_own_and_writes_progress(database: Database) -> None:
    with psycopg.connect(database.service, autocommit=True) as service:
        service.execute("CREATE SCHEMA read_1")
        service.execute("CREATE TABLE read_1.hosts (name text)")
        service.execute(
            "INSERT INTO berth.progress (operation, step, attempt, percent) VALUES ('o', 'vm.create', 1, 5)"
        )
        service.execute("UPDATE berth.progress SET percent = 10, at = now()")
        assert service.execute("SELECT percent FROM berth.progress").fetchone() == (10,)
        service.execute("DELETE FROM berth.progress")


def test_the_table_has_no_sequence_and_no_function_of_the_library(database: Database) -> None:
    with psycopg.connect(database.owner) as owner:
        made = owner.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'berth'::regnamespace AND relkind <> 'c'"
            " UNION ALL SELECT proname || '()' FROM pg_proc WHERE pronamespace = 'berth'::regnamespace ORDER BY 1"
        ).fetchall()
        types = owner.execute(
            "SELECT attname, atttypid::regtype::text, attnotnull FROM pg_attribute"
            " WHERE attrelid = 'berth.events'::regclass AND attname IN ('notification_id', 'originator_version')"
        ).fetchall()
    assert [name for (name,) in made] == [
        "checkpoints",
        "checkpoints_pkey",
        "components",
        "components_pkey",
        "events",
        "events_are_final()",
        "events_notification_id_idx",
        "events_pkey",
        "heartbeat",
        "heartbeat_pkey",
        "progress",
        "progress_pkey",
    ]
    assert sorted(types) == [("notification_id", "bigint", True), ("originator_version", "bigint", True)]


async def test_preparing_again_keeps_what_stands_and_restores_the_rules(database: Database, postgres: Cluster) -> None:
    await (await an_open_log(database.service, [a_row(2)])).close()
    service = conninfo_to_dict(database.service)
    with psycopg.connect(database.owner, autocommit=True) as owner:
        owner.execute("DROP TRIGGER events_are_final ON berth.events")
        owner.execute(f"GRANT DELETE ON berth.events TO {service['user']}")
    # The same password, since the role belongs to all databases of the run.
    with making_roles(postgres):
        schema.prepare(database.owner, service_role=str(service["user"]), service_password=str(service["password"]))
    for conninfo in (database.owner, database.service):
        with psycopg.connect(conninfo, autocommit=True) as connection:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("DELETE FROM berth.events")
            assert count(connection) == 2


def test_a_password_of_any_characters_serves_and_is_stored_as_a_verifier(database: Database) -> None:
    role, password = "other " + str(conninfo_to_dict(database.owner)["dbname"])[-8:], 'it\'s \\ 租戶 "%s"'
    with psycopg.connect(database.owner, autocommit=True) as owner:
        try:
            schema.prepare(database.owner, service_role=role, service_password=password)
            stored = owner.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,)).fetchone()
            assert stored is not None
            assert stored[0].startswith("SCRAM-SHA-256$")
            with psycopg.connect(make_conninfo(database.owner, user=role, password=password)) as service:
                assert count(service) == 0
        finally:
            owner.execute(f'DROP OWNED BY "{role}"')
            owner.execute(f'DROP ROLE "{role}"')


def test_the_owner_cannot_be_the_service(database: Database) -> None:
    owner = conninfo_to_dict(database.owner)
    with pytest.raises(UnsafeRole):
        schema.prepare(database.owner, service_role=str(owner["user"]), service_password="x")
    with psycopg.connect(database.owner):
        pass  # its password is what it was
