"""The log's place in PostgreSQL, built by the owner: the table, what the service may do with it, what nobody may."""

import psycopg
from eventsourcing.postgres import PostgresDatastore
from psycopg.sql import SQL, Identifier, Literal

from eventlog.table import (
    CHECKPOINTS_TABLE,
    COMPONENTS_TABLE,
    EVENTS_TABLE,
    HEARTBEAT_TABLE,
    SCHEMA,
    Datastore,
    EventRecorder,
)

_PREPARE_LOCK = 0x62657274685F64  # "berth_d", beside the leader's
_PROGRESS_TABLE = Identifier(SCHEMA, "progress")

# A statement trigger stops the owner too, and ALWAYS a session that replicates. It can be dropped by the owner alone.
_FINAL = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'An event is never changed or removed: % on the event log is refused.', TG_OP
    USING ERRCODE = 'insufficient_privilege', HINT = 'Record a new event through a command.';
END $$;
CREATE OR REPLACE TRIGGER events_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON {events}
FOR EACH STATEMENT EXECUTE FUNCTION {function}();
ALTER TABLE {events} ENABLE ALWAYS TRIGGER events_are_final;
"""

# Unlogged and outside of the log: progress is never an event, and lost with a crash.
_PROGRESS = """
CREATE UNLOGGED TABLE IF NOT EXISTS {progress} (
    operation text NOT NULL,
    step text NOT NULL,
    attempt int NOT NULL,
    percent int,
    message text,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (operation, step)
)
"""

# Unlogged too: after a crash of the server the leader writes it anew.
_HEARTBEAT = """
CREATE UNLOGGED TABLE IF NOT EXISTS {heartbeat} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    backend int NOT NULL,
    beat bigint NOT NULL
)
"""

# Unlogged too: each tells again within seconds.
_COMPONENTS = """
CREATE UNLOGGED TABLE IF NOT EXISTS {components} (
    component text NOT NULL,
    instance text NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    ok_at timestamptz,
    PRIMARY KEY (component, instance)
)
"""

# A cache, but one that a crash of the server should not cost: starts are slow without. Parts are compressed already.
_CHECKPOINTS = """
CREATE TABLE IF NOT EXISTS {checkpoints} (
    definition text NOT NULL,
    log text NOT NULL,
    position bigint NOT NULL,
    at bigint NOT NULL,
    entries bigint NOT NULL,
    part int NOT NULL,
    parts int NOT NULL,
    digest bytea NOT NULL,
    data bytea STORAGE EXTERNAL NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (definition, log, position, part)
)
"""

_GRANTS = """
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, {service};
REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {service};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC, {service};
GRANT CONNECT, CREATE ON DATABASE {database} TO {service};
GRANT USAGE ON SCHEMA {schema} TO {service};
GRANT SELECT, INSERT ON {events} TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON {progress} TO {service};
GRANT SELECT, INSERT, UPDATE ON {heartbeat} TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON {components} TO {service};
GRANT SELECT, INSERT, DELETE ON {checkpoints} TO {service};
"""


class UnsafeRole(Exception):
    """The role that the service would use can do more than append."""


def prepare(owner: str, *, service_role: str, service_password: str) -> None:
    """Make the schema and the service's role, or bring those that stand to this form; all or nothing, and repeatable.

    `owner` is a connection string. The password goes to the server as a SCRAM verifier, so no log of the server has it.

    Raises:
        UnsafeRole: `service_role` is the owner itself or a superuser.
    """
    with psycopg.connect(owner) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PREPARE_LOCK,))
        _make_role(connection, service_role, service_password)
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(SCHEMA)))
        _make_events(connection, Datastore(owner))
        connection.execute(SQL(_PROGRESS).format(progress=_PROGRESS_TABLE))
        connection.execute(SQL(_HEARTBEAT).format(heartbeat=HEARTBEAT_TABLE))
        connection.execute(SQL(_COMPONENTS).format(components=COMPONENTS_TABLE))
        connection.execute(SQL(_CHECKPOINTS).format(checkpoints=CHECKPOINTS_TABLE))
        connection.execute(
            SQL(_GRANTS).format(
                schema=Identifier(SCHEMA),
                service=Identifier(service_role),
                database=Identifier(connection.info.dbname),
                events=EVENTS_TABLE,
                progress=_PROGRESS_TABLE,
                heartbeat=HEARTBEAT_TABLE,
                components=COMPONENTS_TABLE,
                checkpoints=CHECKPOINTS_TABLE,
            )
        )


def _make_role(connection: psycopg.Connection, name: str, password: str) -> None:
    found = connection.execute(
        "SELECT rolsuper OR rolname = current_user FROM pg_roles WHERE rolname = %s", (name,)
    ).fetchone()
    if found and found[0]:
        raise UnsafeRole(f"{name!r} owns the log or is a superuser: give the service a role of its own.")
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    connection.execute(
        SQL("{verb} ROLE {name} LOGIN PASSWORD {verifier}").format(
            verb=SQL("ALTER" if found else "CREATE"), name=Identifier(name), verifier=Literal(verifier)
        )
    )


def _make_events(connection: psycopg.Connection, datastore: PostgresDatastore) -> None:
    for statement in EventRecorder(datastore).sql_create_statements:
        connection.execute(statement)
    connection.execute(SQL(_FINAL).format(function=Identifier(SCHEMA, "events_are_final"), events=EVENTS_TABLE))
