"""What happens to a log behind Berth's back: its owner removes its end, or a fail-over goes to a replica without it."""

import psycopg


def lose(owner: str, *, after: int) -> None:
    """All events after a position are gone."""
    with psycopg.connect(owner) as connection:
        connection.execute("ALTER TABLE berth.events DISABLE TRIGGER events_are_final")
        connection.execute("DELETE FROM berth.events WHERE notification_id > %s", (after,))
        connection.execute("ALTER TABLE berth.events ENABLE ALWAYS TRIGGER events_are_final")


def lose_last_command(owner: str) -> int:
    """The events of the last command, which share their time; answers the position before."""
    with psycopg.connect(owner) as connection:
        found = connection.execute(
            "SELECT max(notification_id) FROM berth.events WHERE state::text <> '' AND"
            " convert_from(state, 'UTF8')::json->>'at' < (SELECT convert_from(state, 'UTF8')::json->>'at'"
            " FROM berth.events ORDER BY notification_id DESC LIMIT 1)"
        ).fetchone()
    assert found is not None
    lose(owner, after=found[0])
    return int(found[0])
