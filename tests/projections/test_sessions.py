"""Readers' connections: each is kept, and one that was lost or left in the middle is never used again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from projections import sessions
from projections.sessions import Sessions, statement

SLOW = statement(text("SELECT pg_sleep(30)"))
WHO = statement(text("SELECT pg_backend_pid()"))
SUM = statement(text("SELECT CAST(:a AS bigint) + CAST(:b AS bigint), CAST(:b AS text), CAST(:c AS boolean)"))


@pytest.fixture
async def readers(database: Any) -> AsyncIterator[Sessions]:
    readers = Sessions(database.service, in_schema="read_none")
    yield readers
    await readers.close()


async def fetched(readers: Sessions, *asked: Any) -> list[tuple[bytes | None, ...]]:
    return list(await readers.fetch(*asked))


async def pid(readers: Sessions) -> int:
    ((found,),) = await readers.fetch(WHO)
    return int(found or b"")


async def test_values_are_given_by_name(readers: Sessions) -> None:
    assert await fetched(readers, SUM, {"b": -2, "a": 44, "c": True}) == [(b"42", b"-2", b"t")]
    assert await fetched(readers, SUM, {"a": None, "b": None, "c": False}) == [(None, None, b"f")]


async def test_a_text_with_nul_is_refused_and_not_cut(readers: Sessions) -> None:
    asked = statement(text("SELECT CAST(:a AS text)"))
    with pytest.raises(ValueError, match="NUL"):
        await readers.fetch(asked, {"a": "x\0y"})
    assert await fetched(readers, asked, {"a": "公"}) == [("公".encode(),)]


async def test_connections_are_kept_and_no_more_than_are_needed(readers: Sessions) -> None:
    first = await pid(readers)
    assert [await pid(readers) for _ in range(5)] == [first] * 5
    many = await asyncio.gather(*(pid(readers) for _ in range(100)))
    assert len(set(many)) <= sessions.CONNECTIONS_MAX


async def test_nobody_writes(readers: Sessions, database: Any) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await readers.fetch(statement(text("DELETE FROM berth.progress")))
    assert await pid(readers)


async def test_a_connection_that_was_left_in_the_middle_is_not_used_again(readers: Sessions) -> None:
    before = await pid(readers)
    asked = asyncio.create_task(readers.fetch(SLOW))
    while (await seen(readers, before)) != b"active":
        pass
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    for _ in range(3):
        assert await fetched(readers, SUM, {"a": 1, "b": 2, "c": None}) == [(b"3", b"2", None)]


async def test_what_takes_too_long_is_given_up_and_its_connection_kept(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "STATEMENT_S_MAX", 1)
    readers = Sessions(database.service, in_schema="read_none")
    first = await pid(readers)
    with pytest.raises(psycopg.errors.QueryCanceled):
        await readers.fetch(SLOW)
    assert await pid(readers) == first
    await readers.close()


async def seen(readers: Sessions, backend: int) -> bytes | None:
    query = statement(text("SELECT state FROM pg_stat_activity WHERE pid = CAST(:pid AS int)"))
    ((state,),) = await readers.fetch(query, {"pid": backend})
    return state


async def test_lost_connections_are_replaced_after_one_failure(readers: Sessions, database: Any) -> None:
    lost = set(await asyncio.gather(*(pid(readers) for _ in range(8))))
    with psycopg.connect(database.service, autocommit=True) as connection:
        for backend in lost:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
    with pytest.raises(psycopg.OperationalError):
        await pid(readers)
    for _ in range(8):
        assert await pid(readers) not in lost


async def test_an_error_leaves_the_connection_as_it_was(readers: Sessions) -> None:
    first = await pid(readers)
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await readers.fetch(statement(text("SELECT 1 / CAST(:n AS int)")), {"n": 0})
        with pytest.raises(psycopg.errors.UndefinedTable):
            await readers.fetch(statement(text("SELECT * FROM nothing")))
    assert await pid(readers) == first


async def test_prepared_statements_are_forgotten_when_they_are_many(
    readers: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PREPARED_MAX", 3)
    for _ in range(5):  # more often than psycopg sees a statement before it prepares it
        for n in range(7):
            assert await fetched(readers, statement(text(f"SELECT {n}"))) == [(b"%d" % n,)]
    ((kept,),) = await readers.fetch(statement(text("SELECT count(*) FROM pg_prepared_statements")))
    assert int(kept or b"") <= 4
