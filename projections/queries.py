"""Reading the read model: one resource, lists, capacity, the audit, receipts; each in one statement, with its position.

wait_for(position) ──► statement (lists, capacity, ledger) ──► sessions ──► facts ──► JSON

Items of pages are JSON as it goes to the client (`msgspec.Raw`), but for rows of capacity; `decoded` is for those who
look into them.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
import psycopg
import structlog
from psycopg import errors
from psycopg.sql import SQL, Identifier
from sqlalchemy import column, text

from domain.errors import Unavailable
from eventlog.tasks import end_tasks
from projections import capacity, classes, cursors, ledger, lists, resources, schema, sessions
from projections.definitions import SCHEMA
from projections.listing import COUNT_MAX, Portion
from projections.pages import Question, at_a_position
from projections.sessions import RawRow, RawRows, Sessions, Statement
from projections.tables import CHANNEL
from projections.view import Document
from projections.words import folded

WAIT_S_MAX = 5.0
POLL_S = 1.0
RETRY_S = 0.2
LIST_MAX = 1_000
# A page that has more ends there, with a cursor to go on from; it is looked at after each ROWS_AT_ONCE.
PAGE_BYTES_MAX = 8 * 1024 * 1024
ENTRIES_AT_ONCE = 100
# So many rows are made before others have their turn: half a millisecond.
ROWS_AT_ONCE = 50

_document = msgspec.json.Decoder(Document).decode
_TOKEN_COLUMNS = ("key", "role", "tenant", "hash", "state", "expires_at")
_TOKENS_BY_HASH = sessions.statement(
    at_a_position(
        text(f"SELECT {', '.join(_TOKEN_COLUMNS)} FROM tokens WHERE hash = ANY(CAST(:hashes AS text[]))").columns(
            *map(column, _TOKEN_COLUMNS)
        )
    )
)

# What whoever is confined to a tenant sees today, and since when it is: tenants, and groups where they have quota.
_IN_SCOPE = sessions.statement(
    at_a_position(
        text(
            """
            SELECT 'tenant' AS kind, key, uid, created_at FROM scope
            UNION ALL
            SELECT 'group', key, NULL, created_at FROM groups
            WHERE key IN (SELECT quotas.group FROM quotas WHERE tenant IN (SELECT key FROM scope))
            """
        ).columns(*map(column, ("kind", "key", "uid", "created_at"))),
        is_scoped=True,
    )
)

T = TypeVar("T")
Made = TypeVar("Made")

log = structlog.get_logger()


class QueryTooSlow(Unavailable):
    """The question has an answer, but it takes too long to find."""

    @property
    def detail(self) -> str:
        return f"This query takes more than {sessions.STATEMENT_S_MAX} s; narrow it, for example with since and until."


class TokenRow(msgspec.Struct, frozen=True):
    """What authentication needs to know of a token. `expires_at` is microseconds since 1970."""

    name: str
    role: str
    tenant: str | None
    hash: str
    state: str
    expires_at: int | None


class Life(msgspec.Struct, frozen=True):
    """Since when what bears a name today has borne it, in microseconds since 1970. `uid` is a tenant's."""

    began_at: int
    uid: str | None = None


class ReadModel:
    """The readers' side of one schema: `async with ReadModel(conninfo) as model`. Safe for any number of tasks.

    While it is open its schema is not dropped. All of its methods raise Unavailable while there is nothing to read: the
    database is away, or the schema is being built.
    """

    def __init__(self, conninfo: str, *, in_schema: str = SCHEMA) -> None:
        self.schema = in_schema
        self.position = 0  # as far as is known here; only ever told by the projector
        self.at = 0  # the time of the last event read, in microseconds since 1970
        self._conninfo = conninfo
        self._is_built = False
        self._moved = asyncio.Event()
        self._turn = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._sessions = Sessions(conninfo, in_schema=in_schema)

    async def __aenter__(self) -> "ReadModel":
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            await end_tasks(self._listener)
        await self._sessions.close()

    async def wait_for(self, position: int, *, timeout_s: float = WAIT_S_MAX) -> None:
        """Until what is read is at `position` or later.

        Raises:
            Unavailable: it was not so in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.position < position:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable() from None

    async def one(self, kind: str, *name: str, scope: str | None = None) -> Document | None:
        """The resource, or None: `one("vm", "acme", "web-1")`, `one("quota", group, tenant)`, `one("host", name)`."""
        found, _ = await self.one_at(kind, *name, scope=scope)
        return _document(found) if found is not None else None

    async def one_at(self, kind: str, *name: str, scope: str | None = None) -> tuple[bytes | None, int]:
        """The same in JSON, with the position at which it is so."""
        asked = lists.one(kind, is_scoped=scope is not None)
        position, rows = await self._read(asked, {"key": "/".join(name), "scope": scope})
        _, _, _, _, document, *others = rows[0]
        if document is None:
            return None, position
        return resources.from_row(kind)(document, others, scope), position

    async def list_(
        self,
        kind: str,
        *,
        filters: Mapping[str, Any] | None = None,
        sort: str = "name",
        cursor: str | None = None,
        limit: int = 100,
        q: str | None = None,
        labels: Sequence[str] = (),
        count: bool = False,
        scope: str | None = None,
    ) -> dict[str, Any]:
        """`{"items", "next_cursor", "position"}`, and `count` of all pages together if asked for. It is
        COUNT_MAX at most, with `count_truncated` if there are more.

        Raises:
            ValueError: an unknown filter or sort, a value that can't be, a cursor of another list; says which.
        """
        given = given_of(filters)
        must_be_limit(limit)
        of = cursors.asked(kind, given, sort, q, list(labels), scope)
        question = lists.several(
            kind,
            filters=given,
            sort=sort,
            after=cursors.decode(cursor, of=of) if cursor is not None else None,
            limit=limit,
            q=q,
            labels=labels,
            scope=scope,
            count=count,
        )
        return await self._page(question, kind, of=of, limit=limit, scope=scope)

    async def capacity(
        self,
        by: str,
        *,
        filters: Mapping[str, Any] | None = None,
        sort: str = "name",
        cursor: str | None = None,
        limit: int = LIST_MAX,
        q: str | None = None,
        count: bool = False,
        scope: str | None = None,
    ) -> dict[str, Any]:
        """A row by what it is asked by; hosts alone are cut to pages by the database. `q` looks in names.

        Raises:
            ValueError: an unknown `by`, filter or sort, or a cursor of another list.
            Forbidden: a scoped asker asks by anything but tenant.
        """
        given = given_of(filters)
        must_be_limit(limit)
        capacity.must_be_answered(by, given, sort=sort, scope=scope)
        of = cursors.asked("capacity", by, given, sort, q, scope)
        after = cursors.decode(cursor, of=of) if cursor is not None else None
        if by == "host":
            # What is free on a host is the most that fits there, too.
            column = sort.removesuffix("_largest_fit") + "_available" if sort.endswith("_largest_fit") else sort
            question = lists.several(
                "capacity",
                filters=given,
                sort=column,
                after=after,
                limit=limit,
                q=q,
                labels=(),
                scope=None,
                count=count,
            )
            return await self._page(question, "capacity", of=of, limit=limit, scope=None)
        asked = capacity.statement(by, tuple(given), is_scoped=scope is not None)
        position, rows = await self._read(asked, {**given, "scope": scope})
        found = capacity.lines(by, await self._in_turns(rows, lambda row: row))
        if q:
            words = folded(q)
            found = [line for line in found if words in (line.name or "")]
        last = capacity.after(by, sort, after) if after is not None else None
        if capacity.is_by_amount(sort):
            await self._in_turns(found, lambda line: line.row)
        shown, following = capacity.page(found, sort=sort, after=last, limit=limit)
        next_cursor = cursors.encode(cursors.Cursor(of, *following)) if following is not None else None
        items = [line.shown for line in shown]
        answer: dict[str, Any] = {"items": items, "next_cursor": next_cursor, "position": position}
        return {**answer, "count": len(found)} if count else answer

    async def audit(
        self,
        *,
        filters: Mapping[str, Any] | None = None,
        sort: str = "position",
        cursor: str | None = None,
        limit: int = 100,
        q: str | None = None,
        count: bool = False,
        scope: str | None = None,
    ) -> dict[str, Any]:
        """One entry a command, by position: rising, or falling with `-position`. `q` looks in who, what and why.

        Raises:
            ValueError: an unknown filter or sort, a value that can't be, a cursor of another list; says which.
        """
        given = given_of(filters)
        must_be_limit(limit)
        if sort not in ("position", "-position"):
            raise ValueError(f"the audit is sorted by position or -position, not by {sort!r}")
        of = cursors.asked("audit", given, sort, q, scope)
        is_falling = sort.startswith("-")

        async def portion(cursor: str | None, limit: int, *, count: bool) -> dict[str, Any]:
            after = cursors.decode(cursor, of=of) if cursor is not None else None
            question = ledger.entries(
                filters=given, is_falling=is_falling, after=after, limit=limit, q=q, scope=scope, count=count
            )
            return await self._page(question, "audit", of=of, limit=limit, scope=scope)

        # An entry may have 256 KiB, so not a thousand are read at once. Entries never change: portions fit together.
        page = await portion(cursor, min(limit, ENTRIES_AT_ONCE), count=count)
        items: list[msgspec.Raw] = page["items"]
        while page["next_cursor"] is not None and len(items) < limit and _bytes(items) < PAGE_BYTES_MAX:
            more = await portion(page["next_cursor"], min(limit - len(items), ENTRIES_AT_ONCE), count=False)
            items += more["items"]
            # Rising, the last portion may show what came since the first was read; falling, none does.
            page |= {"next_cursor": more["next_cursor"]} | ({} if is_falling else {"position": more["position"]})
        return page

    async def command(self, id: str, *, scope: str | None = None) -> Document | None:
        """The audit's entry of a command: with `position`, `resource` (a stream), `operation`, `created`, `problem`."""
        _, rows = await self._read(ledger.entry(is_scoped=scope is not None), {"id": id, "scope": scope})
        document = rows[0][-1]
        return _document(document) if document is not None else None

    async def classes(self, *, scope: str | None = None) -> list[str]:
        """Every resource class, and count, that a list may show. Some milliseconds: all quotas are looked through."""
        asked = classes.ALL if scope is None else classes.IN_SCOPE
        _, rows = await self._read(asked, {"scope": scope})
        found: list[str] = msgspec.json.decode(rows[0][1] or b"[]")
        return found

    async def in_scope(self, scope: str) -> tuple[int, dict[str, dict[str, Life]]]:
        """The tenants of a scope, and the groups where they have quota: by kind and name, with the position at which it
        is so."""
        position, rows = await self._read(_IN_SCOPE, {"scope": scope})
        found: dict[str, dict[str, Life]] = {"tenant": {}, "group": {}}
        for _, _, kind, key, uid, began_at in await self._in_turns(rows, lambda row: row):
            if kind is not None:
                life = Life(int(began_at or b""), uid.decode() if uid is not None else None)
                found[kind.decode()][(key or b"").decode()] = life
        return position, found

    async def tokens_by_hash(self, hashes: Sequence[str]) -> dict[str, TokenRow]:
        """The tokens whose secrets have these hashes (in hex), be they revoked or expired."""
        _, rows = await self._read(_TOKENS_BY_HASH, {"hashes": f"{{{','.join(hashes)}}}"})
        found = [_token_row(row[2:]) for row in rows if row[2] is not None]
        return {token.hash: token for token in found}

    async def ended(self, question: Question, kind: str, *, limit: int, scope: str | None) -> Portion:
        """Rows of what has ended and is still listed. It never changes again, so that they stand for whatever position
        the question names."""
        _, rows = await self._read(question.statement, question.values)
        shown = resources.from_row(kind)

        def made(row: RawRow) -> tuple[Any, Any, msgspec.Raw]:
            _, _, value, key, document, *others = row
            assert document is not None
            found = msgspec.Raw(shown(document, others, scope))
            return cursors.value(value, question.sort), cursors.value(key, question.key), found

        first = rows[0]
        count = int(first[1]) if first[1] is not None else None
        if first[4] is None:
            return Portion([], False, count)
        shown_rows = await self._in_turns(
            islice(rows, limit), made, is_enough=lambda rows: _bytes(row[2] for row in rows) >= PAGE_BYTES_MAX
        )
        return Portion(shown_rows, len(rows) > len(shown_rows), count)

    async def _page(self, question: Question, kind: str, *, of: str, limit: int, scope: str | None) -> dict[str, Any]:
        position, rows = await self._read(question.statement, question.values)
        shown = _FROM_ROW.get(kind) or resources.from_row(kind)

        def item(row: RawRow) -> msgspec.Raw:
            _, _, _, _, document, *others = row
            assert document is not None
            return msgspec.Raw(shown(document, others, scope))

        is_empty = rows[0][4] is None
        rest = islice(rows, 0 if is_empty else limit)
        items = await self._in_turns(rest, item, is_enough=lambda items: _bytes(items) >= PAGE_BYTES_MAX)
        following = None
        if not is_empty and len(rows) > len(items):
            _, _, value, key, *_ = rows[len(items) - 1]
            last = cursors.Cursor(of, cursors.value(value, question.sort), cursors.value(key, question.key))
            following = cursors.encode(last)
        answer: dict[str, Any] = {"items": items, "next_cursor": following, "position": position}
        if rows[0][1] is None:
            return answer
        count = int(rows[0][1])
        return answer | ({"count": COUNT_MAX, "count_truncated": True} if count > COUNT_MAX else {"count": count})

    async def _in_turns(
        self,
        found: Iterable[T],
        make: Callable[[T], Made],
        *,
        is_enough: Callable[[list[Made]], bool] = lambda made: False,
    ) -> list[Made]:
        """Make something of each; of all long pages, one goes on at a time, and then whoever asks for less."""
        rest = iter(found)
        made = [make(one) for one in islice(rest, ROWS_AT_ONCE)]
        while made and len(made) % ROWS_AT_ONCE == 0 and not is_enough(made):
            async with self._turn:
                await asyncio.sleep(0)
                portion = [make(one) for one in islice(rest, ROWS_AT_ONCE)]
            if not portion:
                break
            made += portion
        return made

    async def _read(self, asked: Statement, values: Mapping[str, Any]) -> tuple[int, RawRows]:
        """The position, and the rows, of which there is one at least (`pages.at_a_position`)."""
        try:
            rows = await self._sessions.fetch(asked, values)
        except errors.QueryCanceled:
            raise QueryTooSlow() from None
        except (psycopg.OperationalError, psycopg.InternalError, errors.UndefinedTable, TimeoutError, OSError) as error:
            log.warning("read model not reached", error=str(error).partition("\n")[0])
            raise Unavailable() from error
        if not rows:
            raise Unavailable()
        return int(rows[0][0] or b""), rows

    async def _listen(self) -> None:
        """Follow the projector, and keep the schema from being dropped; comes back after any loss of the database."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, connect_timeout=2
                ) as connection:
                    await connection.execute(schema.SHARE, (schema.READERS_LOCK, schema.lock_number(self.schema)))
                    await connection.execute(schema.USE, (self.schema,))
                    await connection.execute(SQL("LISTEN {}").format(Identifier(CHANNEL)))
                    is_told = False
                    while True:
                        if not (is_told and self._is_built):
                            await self._look(connection)
                        is_told = False
                        async for told in connection.notifies(timeout=POLL_S, stop_after=1):
                            is_told = True
                            name, position, at = told.payload.split(" ")
                            if name == self.schema and self._is_built:
                                self._now_at(int(position), int(at))
            except psycopg.Error as error:
                log.warning("projector not followed", error=str(error).strip())
                await asyncio.sleep(RETRY_S)

    async def _look(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Where it stands: at first, and now and then, as a notification may be lost with its connection."""
        try:
            cursor = await connection.execute("SELECT position, at FROM progress WHERE is_complete")
            row = await cursor.fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        self._is_built = row is not None
        if row is not None:
            self._now_at(*row)

    def _now_at(self, position: int, at: int) -> None:
        self.position, self.at = position, at
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _as_it_stands(document: bytes, facts: Sequence[bytes | None], scope: str | None) -> bytes:
    return document


# Of what is no kind.
_FROM_ROW: dict[str, resources.OfRow] = {"audit": _as_it_stands, "capacity": capacity.from_row}


def _bytes(items: Iterable[msgspec.Raw]) -> int:
    return sum(map(len, items))


def _token_row(row: RawRow) -> TokenRow:
    texts = [text.decode() if text is not None else None for text in row]
    fields = dict(zip(TokenRow.__struct_fields__, texts, strict=True))
    return msgspec.convert(fields, TokenRow, strict=False)


def must_be_limit(limit: int) -> None:
    if not 1 <= limit <= LIST_MAX:
        raise ValueError(f"limit is 1 to {LIST_MAX}")


def given_of(filters: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (filters or {}).items() if value is not None}


def decoded(page: Mapping[str, Any]) -> dict[str, Any]:
    items = [_document(item) if isinstance(item, msgspec.Raw) else item for item in page["items"]]
    return {**page, "items": items}
