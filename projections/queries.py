"""Reading the read model: one resource, lists, capacity, the audit, receipts; each from one snapshot with its position.

wait_for(position) ──► begin (REPEATABLE READ) ──► progress ──► page ──► facts of others ──► JSON
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from psycopg.types.json import set_json_loads
from sqlalchemy import exc, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from domain.errors import Unavailable
from eventlog.tasks import end_tasks
from projections import capacity, cursors, facts, lists, schema
from projections.documents import Document
from projections.tables import CHANNEL, LIVING, SCHEMA, audit, hosts, progress, tokens

WAIT_S_MAX = 5.0
POLL_S = 1.0
RETRY_S = 0.2
# No overflow: such a connection is closed after each use, and opening one takes longer than what it is used for.
POOL_CONNECTIONS = 16
POOL_WAIT_S = 5
LIST_MAX = 1_000

log = structlog.get_logger()


class TokenRow(msgspec.Struct, frozen=True):
    """What authentication needs to know of a token. `expires_at` is microseconds since 1970."""

    name: str
    role: str
    tenant: str | None
    hash: str
    state: str
    expires_at: int | None


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
        self._listener: asyncio.Task[None] | None = None
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S,
        )

    async def __aenter__(self) -> "ReadModel":
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            await end_tasks(self._listener)
        await self._engine.dispose()

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
        return (await self.one_at(kind, *name, scope=scope))[0]

    async def one_at(self, kind: str, *name: str, scope: str | None = None) -> tuple[Document | None, int]:
        """The same, with the position at which it is so."""
        table, listing = LIVING[kind], lists.LISTINGS[kind]
        where = lists.conditions(kind, filters={}, q=None, labels=(), scope=scope)
        statement = select(table.c.key, table.c.document, *listing.columns).select_from(listing.source)
        async with self._snapshot() as (connection, position):
            found = (await connection.execute(statement.where(table.c.key == "/".join(name), *where))).all()
            documents = await facts.present(connection, kind, found)
        if not documents:
            return None, position
        return (facts.confine(kind, documents[0], scope=scope) if scope is not None else documents[0]), position

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
        """`{"items", "next_cursor", "position"}`, and `count` of all pages together if asked for.

        Raises:
            ValueError: an unknown filter or sort, a value that can't be, a cursor of another list; says which.
        """
        given = {name: value for name, value in (filters or {}).items() if value is not None}
        _must_be_limit(limit)
        of = cursors.asked(kind, given, sort, q, list(labels), scope)
        after = cursors.decode(cursor, of=of) if cursor is not None else None
        where = lists.conditions(kind, filters=given, q=q, labels=labels, scope=scope)
        order = lists.sort_of(kind, sort, scope=scope)
        page = await self._page(kind, where, order, of=of, after=after, limit=limit, count=count)
        if scope is not None:
            page["items"] = [facts.confine(kind, item, scope=scope) for item in page["items"]]
        return page

    async def _page(
        self,
        kind: str,
        where: Sequence[lists.Condition],
        order: lists.Sort,
        *,
        of: str,
        after: cursors.Cursor | None,
        limit: int,
        count: bool,
    ) -> dict[str, Any]:
        table, listing = LIVING[kind], lists.LISTINGS[kind]
        matching = select(table.c.key, table.c.document, *listing.columns).select_from(listing.source).where(*where)
        statement = lists.page(matching, sort=order, key=table.c.key, after=after, limit=limit)
        async with self._snapshot() as (connection, position):
            found = (await connection.execute(statement)).all()
            total = None
            if count:
                counted = select(func.count()).select_from(listing.source).where(*where)
                total = (await connection.execute(counted)).scalar_one()
            items = await facts.present(connection, kind, found[:limit])
        following = None
        if len(found) > limit:
            last = found[limit - 1]
            following = cursors.encode(cursors.Cursor(of, last.sort_value, last.key))
        answer: dict[str, Any] = {"items": items, "next_cursor": following, "position": position}
        return answer if total is None else {**answer, "count": total}

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
        given = {name: value for name, value in (filters or {}).items() if value is not None}
        _must_be_limit(limit)
        capacity.must_be_answered(by, given, scope=scope)
        capacity.must_sort(sort)
        of = cursors.asked("capacity", by, given, sort, q, scope)
        after = cursors.decode(cursor, of=of) if cursor is not None else None
        if by == "host":
            where = [capacity.HOST_FILTERS[name](value) for name, value in given.items()]
            if q:
                where.append(func.strpos(hosts.c.key, q.lower()) > 0)
            order = capacity.host_sort(sort)
            page = await self._page("host", where, order, of=of, after=after, limit=limit, count=count)
            return {**page, "items": [capacity.host_row(item) for item in page["items"]]}
        async with self._snapshot() as (connection, position):
            found = await capacity.capacity(connection, by=by, filters=given, scope=scope)
        if q:
            found = [row for row in found if q.lower() in (row["name"] or "")]
        if after is not None and not (isinstance(after.value, int) and isinstance(after.key, str | None)):
            raise ValueError(cursors.NO_CURSOR)
        last = (after.value, after.key) if after is not None else None
        items, following = capacity.page(found, sort=sort, after=last, limit=limit)
        next_cursor = cursors.encode(cursors.Cursor(of, *following)) if following is not None else None
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
        given = {name: value for name, value in (filters or {}).items() if value is not None}
        _must_be_limit(limit)
        if sort not in ("position", "-position"):
            raise ValueError(f"the audit is sorted by position or -position, not by {sort!r}")
        of = cursors.asked("audit", given, sort, q, scope)
        after = cursors.decode(cursor, of=of) if cursor is not None else None
        where = lists.audit_conditions(filters=given, q=q, scope=scope)
        order = lists.Sort(audit.c.position, sort.startswith("-"), True)
        matching = select(audit.c.document).where(*where)
        statement = lists.page(matching, sort=order, key=audit.c.position, after=after, limit=limit)
        async with self._snapshot() as (connection, position):
            found = (await connection.execute(statement)).all()
            total = None
            if count:
                total = (await connection.execute(select(func.count()).select_from(audit).where(*where))).scalar_one()
        items = [row.document for row in found[:limit]]
        following = None
        if len(found) > limit:
            last = found[limit - 1].sort_value
            following = cursors.encode(cursors.Cursor(of, last, last))
        answer: dict[str, Any] = {"items": items, "next_cursor": following, "position": position}
        return answer if total is None else {**answer, "count": total}

    async def command(self, id: str, *, scope: str | None = None) -> Document | None:
        """The audit's entry of a command: with `position`, `resource` (a stream), `operation`, `created`, `problem`."""
        statement = select(audit.c.document).where(audit.c.id == id)
        if scope is not None:
            statement = statement.where(lists.audit_in_scope(scope))
        async with self._snapshot() as (connection, _):
            found: Document | None = (await connection.execute(statement)).scalars().first()
        return found

    async def token_by_hash(self, hash: str) -> TokenRow | None:
        """The token whose secret has this hash, be it revoked or expired."""
        return next((token for token in await self._tokens(tokens.c.hash == hash)), None)

    async def all_tokens(self) -> list[TokenRow]:
        """Every token there ever was, for a cache."""
        return await self._tokens(None)

    async def _tokens(self, where: Any) -> list[TokenRow]:
        columns = (tokens.c.key, tokens.c.role, tokens.c.tenant, tokens.c.hash, tokens.c.state, tokens.c.expires_at)
        statement = select(*columns) if where is None else select(*columns).where(where)
        async with self._snapshot() as (connection, _):
            return [TokenRow(*row) for row in await connection.execute(statement)]

    @contextlib.asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[tuple[AsyncConnection, int]]:
        """A connection on which all statements see one state, and that state's position."""
        try:
            async with self._engine.connect() as connection:
                found = (await connection.execute(select(progress.c.position, progress.c.is_complete))).all()
                if len(found) != 1 or not found[0].is_complete:
                    raise Unavailable()
                yield connection, found[0].position
        except (exc.OperationalError, exc.ProgrammingError, exc.InternalError, exc.TimeoutError, OSError) as error:
            if isinstance(error, exc.ProgrammingError) and not isinstance(error.orig, psycopg.errors.UndefinedTable):
                raise
            log.warning("read model not reached", error=str(error).partition("\n")[0])
            raise Unavailable() from error
        except psycopg.OperationalError as error:
            raise Unavailable() from error

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        options: dict[str, Any] = dict(conninfo_to_dict(self._conninfo))
        settings = (
            f"-c search_path={self.schema} -c default_transaction_isolation=repeatable\\ read"
            " -c default_transaction_read_only=on"
        )
        options["options"] = f"{options.get('options') or ''} {settings}".strip()
        connection = await psycopg.AsyncConnection.connect(**{"connect_timeout": 2, **options})
        # SQLAlchemy would set it by its own `connect`, which is not asked here; with json's a page takes 1.5 × as long.
        set_json_loads(msgspec.json.decode, connection)
        return connection

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


def _must_be_limit(limit: int) -> None:
    if not 1 <= limit <= LIST_MAX:
        raise ValueError(f"limit is 1 to {LIST_MAX}")
