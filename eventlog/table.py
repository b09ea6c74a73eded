"""The `eventsourcing` library's table of events, in the form that our writer needs, and the recorder that owns it."""

from typing import Any

from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

SCHEMA = "berth"
EVENTS = "events"
LOG_CHANNEL = EVENTS  # the library's own, so that its subscriptions wake too

EVENTS_TABLE = Identifier(SCHEMA, EVENTS)
HEARTBEAT_TABLE = Identifier(SCHEMA, "heartbeat")
CHECKPOINTS_TABLE = Identifier(SCHEMA, "checkpoints")
COMPONENTS_TABLE = Identifier(SCHEMA, "components")

POOL_WAIT_S = 1  # the library tries ten times, so ten times this passes before a read gives up
CONNECT_TIMEOUT_S = 2  # libpq's least
POOL_OVERFLOW = 9


class Datastore(PostgresDatastore):
    """The library's pool of connections, with all of a connection string's options."""

    def __init__(self, conninfo: str) -> None:
        options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **conninfo_to_dict(conninfo)}
        super().__init__(
            dbname=options.get("dbname", ""),
            host=options.get("host", ""),
            port=options.get("port", ""),
            user=options.get("user", ""),
            password=options.get("password", ""),
            connect_timeout=POOL_WAIT_S,
            idle_in_transaction_session_timeout=5,
            max_overflow=POOL_OVERFLOW,
            schema=SCHEMA,
            originator_id_type="text",
        )
        # The library names five of the options; TLS and the rest count as well.
        self.pool.kwargs = {**options, "row_factory": dict_row}

    def register_type_adapters(self) -> None:
        """Nothing: the type serves the library's insert alone, and asking for it would connect in a constructor."""


class EventRecorder(PostgresApplicationRecorder):
    """The library's recorder, for the table and for reading. Its insert stays unused and does not work.

    The writer numbers the events itself, so that positions have no gaps and a deposed writer collides: hence no
    sequence behind the position, and neither the function nor the type for the library's insert.
    """

    def __init__(self, datastore: PostgresDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS)
        assert self.channel_name == LOG_CHANNEL
        statements = [statement.as_string() for statement in self.sql_create_statements]
        table = statements[self.create_table_statement_index]
        assert "bigserial" in table, table
        assert "originator_version bigint" in table, table
        index = next(statement for statement in statements if statement.startswith("CREATE UNIQUE INDEX"))
        self.sql_create_statements = [
            Composed([SQL(table.replace("bigserial", "bigint NOT NULL"))]),
            Composed([SQL(index)]),
        ]
