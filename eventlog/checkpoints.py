"""Checkpoints: the fleet as it stood at a command's end, kept beside the log, so that a start need not fold all of it.

    fold ── Checkpointer ──► parts of each kind ──► berth.checkpoints ──► restore ──► fold on from there

A checkpoint is a cache. Of each kind it has parts of their own, which count only for the definition of that kind that
wrote them (its state, its events, how they evolve), for their own log, and only if the log still holds the event that
it ends with. A kind whose definition has changed since is folded anew, up to there, from its own events alone. One that
is damaged is passed over with a warning; losing all of them costs time and nothing else. `berth verify --full` compares
each with a full replay.

Entries are written as JSON, as the log itself is: so whatever came out of the log comes back the same. Indexes are not
written: they are functions of the entries.
"""

import gc
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from threading import Thread
from types import GenericAlias
from typing import Any

import msgspec
import psycopg
import structlog
from prometheus_client import Gauge
from psycopg import IsolationLevel
from psycopg.sql import SQL

from domain.entry import Entry
from domain.fleet import Fleet
from domain.kind import Kind
from domain.kinds import KINDS
from domain.values import kind_of
from eventlog.codec import Row, decode, time_of
from eventlog.definition import definition
from eventlog.table import CHECKPOINTS_TABLE, CONNECT_TIMEOUT_S, EVENTS_TABLE

# Or as many as the fleet has entries, if those are more: to write an entry costs a tenth of projecting an event, so
# checkpoints never take more than a tenth of the time.
EVENTS_BETWEEN_MIN = 200_000
KEPT_MAX = 12
NEWEST_KEPT = 2  # were the newest damaged, the next is not far
PART_ENTRIES = 5_000  # some 5 ms each in which whoever folds beside has to wait
COMPRESSION = 1
DIGEST_BYTES = 16
UNUSED_AFTER = "1 day"  # of other definitions and logs, when nobody has written one for so long

# What a kind says beside how it is folded; it changes no state.
BESIDE_THE_FOLD = ("named_by", "owner", "path", "plural", "rebinds", "refs", "states", "ended", "target")
_FORM = ("eventlog.checkpoints:_entries_in", "eventlog.checkpoints:_written")

_HEADS = SQL(
    "SELECT c.definition, c.log, c.position, c.at, c.entries, c.parts, first.topic, first.state, last.topic, last.state"
    " FROM {checkpoints} c JOIN {events} first ON first.notification_id = 1"
    " JOIN {events} last ON last.notification_id = c.position"
    " WHERE c.definition = ANY(%s) AND c.part = 0 ORDER BY c.position"
).format(checkpoints=CHECKPOINTS_TABLE, events=EVENTS_TABLE)
_PARTS = SQL(
    "SELECT part, digest, data FROM {} WHERE definition = %s AND log = %s AND position = %s ORDER BY part"
).format(CHECKPOINTS_TABLE)
_EVENTS_OF_A_KIND = SQL(
    "SELECT originator_id, originator_version, notification_id, topic, state FROM {}"
    " WHERE notification_id <= %s AND topic = ANY(%s) ORDER BY notification_id"
).format(EVENTS_TABLE)
_WRITE = SQL(
    "INSERT INTO {} (definition, log, position, at, entries, part, parts, digest, data)"
    " VALUES (%b, %b, %b, %b, %b, %b, %b, %b, %b)"
).format(CHECKPOINTS_TABLE)
_KEEP_ONLY = SQL("DELETE FROM {} WHERE definition = ANY(%s) AND log = %s AND position <> ALL(%s::bigint[])").format(
    CHECKPOINTS_TABLE
)
_DROP_UNUSED = SQL(
    "DELETE FROM {checkpoints} WHERE NOT (definition = ANY(%s) AND log = %s) AND (definition, log) NOT IN"
    " (SELECT definition, log FROM {checkpoints} WHERE part = 0 AND made_at > now() - %s::interval)"
).format(checkpoints=CHECKPOINTS_TABLE)

POSITION = Gauge("berth_checkpoint_position", "Position of the newest checkpoint that this process wrote or found")

log = structlog.get_logger()

Connection = psycopg.Connection[Any]


class Unsound(Exception):
    """The checkpoint is not what was written."""


class Snapshot(msgspec.Struct, frozen=True):
    """A fleet at a command's end: what lives, by kind. States never change, so copies of the dictionaries hold it while
    others fold on."""

    log: str
    position: int
    at: int
    living: Mapping[str, Mapping[str, Entry]]

    @property
    def size(self) -> int:
        return sum(map(len, self.living.values()))

    def entries(self) -> Iterator[tuple[str, Entry]]:
        return (item for living in self.living.values() for item in living.items())


class Of(msgspec.Struct, frozen=True):
    """What a checkpoint holds of one kind."""

    entries: int
    parts: int


class Head(msgspec.Struct, frozen=True):
    """A kept checkpoint: where it stands, and what it holds by kind. A kind that it lacks is folded from its events."""

    log: str
    position: int
    at: int
    kinds: Mapping[str, Of]

    @property
    def is_whole(self) -> bool:
        return len(self.kinds) == len(KINDS)

    @property
    def entries(self) -> int:
        return sum(of.entries for of in self.kinds.values())


@cache
def definitions() -> dict[str, str]:
    """What each kind's parts are written as: its name, and a hash of what defines them. Cost: some 100 ms, once."""
    return {
        kind.name: f"{kind.name}/{definition(f'{kind.state.__module__}:KIND', *_FORM, left_out=BESIDE_THE_FOLD)}"
        for kind in KINDS
    }


# Some entries of one kind in their order, by column: streams, versions, times of the first and of the last event; then
# a column a field of the state: its values, each once, and which of them comes next, or as they come if most differ. So
# what is read shares what is equal: a running VM takes 0.8 KiB, where it takes 1.1 as its events make it and took 1.7
# when states were written whole; and it is read a third faster.
Column = tuple[list[Any], list[int] | None]
_encode = msgspec.json.Encoder().encode


@cache
def _decoder(state: type[msgspec.Struct]) -> Any:
    fields = msgspec.structs.fields(state)
    columns = tuple(GenericAlias(tuple, (GenericAlias(list, (field.type,)), list[int] | None)) for field in fields)
    types: Any = GenericAlias(tuple, (list[str], list[int], list[int], list[int], GenericAlias(tuple, columns)))
    return msgspec.json.Decoder(types).decode


# ── a snapshot as parts, and back ──


def snapshot(fleet: Fleet) -> Snapshot:
    return Snapshot(fleet.log, fleet.position, fleet.at, {kind: dict(living) for kind, living in fleet.living.items()})


def parts(state: type[msgspec.Struct], living: Mapping[str, Entry]) -> Iterator[bytes]:
    """The entries of one kind as compressed parts, at least one."""
    entries = iter(living.items())
    for _ in range(count_of_parts(living)):
        yield _written(state, list(islice(entries, PART_ENTRIES)))


def count_of_parts(living: Mapping[str, Entry]) -> int:
    return max(1, -(-len(living) // PART_ENTRIES))


def entries_of(state: type[msgspec.Struct], part: bytes) -> Iterable[tuple[str, Entry]]:
    """Raises zlib.error, msgspec.MsgspecError or another error of bytes that are no part of that kind."""
    return _entries_in(state, part)


def _written(state: type[msgspec.Struct], some: Sequence[tuple[str, Entry]]) -> bytes:
    columns = (
        [stream for stream, _ in some],
        [entry.version for _, entry in some],
        [entry.created_at for _, entry in some],
        [entry.updated_at for _, entry in some],
        [_column([getattr(entry.state, field) for _, entry in some]) for field in state.__struct_fields__],
    )
    return zlib.compress(_encode(columns), COMPRESSION)


def _entries_in(state: type[msgspec.Struct], part: bytes) -> Iterable[tuple[str, Entry]]:
    streams, versions, created_at, updated_at, columns = _decoder(state)(zlib.decompress(part))
    states = map(state, *map(_values, columns))
    return zip(streams, map(Entry, states, versions, created_at, updated_at), strict=True)


def _column(values: list[Any]) -> Column:
    numbers: dict[str | bytes | None, int] = {}
    different: list[Any] = []
    codes = []
    for value in values:
        # As JSON, 1, 1.0 and True differ, and so do two orders of a dictionary's keys.
        key = value if value is None or type(value) is str else _encode(value)
        code = numbers.setdefault(key, len(different))
        if code == len(different):
            different.append(value)
        codes.append(code)
    return (different, codes) if 2 * len(different) <= len(values) else (values, None)


def _values(column: Column) -> Iterable[Any]:
    values, codes = column
    return values if codes is None else map(values.__getitem__, codes)


def fill(fleet: Fleet, taken: Snapshot) -> None:
    """An empty fleet becomes what was taken."""
    assert not fleet.size(), "a checkpoint is restored into an empty fleet"
    with _without_collection():
        for stream, entry in taken.entries():
            fleet.put(stream, None, entry)
    fleet.log, fleet.position, fleet.at = taken.log, taken.position, taken.at


# ── reading ──


def restore(conninfo: str, fleet: Fleet, *, until: int | None = None, only: Kind[Any] | None = None) -> bool:
    """Bring an empty fleet to the newest sound checkpoint, at most at `until`; False if there is none. With `only`, as
    far as that kind goes. Blocking.

    One that has all kinds goes before newer ones that lack some. Cost: some 4 µs an entry, and of a kind that it lacks
    some 10 µs for each of that kind's events. Raises psycopg.Error if the database can't be reached.
    """
    kinds = KINDS if only is None else (only,)
    with _reading(conninfo) as connection:
        found = [head for head in heads(connection) if until is None or head.position <= until]
        for head in sorted(found, key=lambda head: (all(kind.name in head.kinds for kind in kinds), head.position))[
            ::-1
        ]:
            try:
                taken = load(connection, head, kinds)
            except Unsound as reason:
                log.warning("checkpoint passed over", position=head.position, reason=str(reason))
                continue
            fill(fleet, taken)
            log.info("checkpoint restored", position=head.position, entries=taken.size)
            return True
    return False


def kept(conninfo: str) -> list[Head]:
    """The checkpoints that count here, by position. Blocking."""
    with _reading(conninfo) as connection:
        return heads(connection)


def differences(conninfo: str, head: Head, fleet: Fleet) -> list[str]:
    """What the checkpoint holds otherwise than the fleet that was folded up to its position; a sentence for each. None
    of one that is gone meanwhile. Blocking."""
    what = f"the checkpoint at position {head.position}"
    with _reading(conninfo) as connection:
        if head not in heads(connection):
            return []
        try:
            held = dict(load(connection, head, [kind for kind in KINDS if kind.name in head.kinds]).entries())
        except Unsound as reason:
            return [f"{what} is damaged: {reason}."]
    standing = {stream: entry for stream, entry in fleet.entries() if kind_of(stream) in head.kinds}
    found = [f"{what} has {stream}, which was not there." for stream in sorted(held.keys() - standing.keys())]
    found += [f"{what} does not have {stream}." for stream in sorted(standing.keys() - held.keys())]
    # What they hold is not told: tokens are among them.
    return found + [
        f"{what} has {stream} otherwise than it was."
        for stream, entry in standing.items()
        if stream in held and held[stream] != entry
    ]


def heads(connection: Connection) -> list[Head]:
    """Those with any kind of today's definition and of this very log: it holds the event that each ends with."""
    kind_of_definition = {name: kind for kind, name in definitions().items()}
    try:
        rows = connection.execute(_HEADS, (list(kind_of_definition),)).fetchall()
    except psycopg.ProgrammingError as error:  # no such table, or it is not for us: nobody needs it
        log.warning("no checkpoints", error=str(error).strip())
        return []
    found: dict[tuple[str, int, int], dict[str, Of]] = {}
    for name, log_id, position, at, entries, count, first_topic, first_state, last_topic, last_state in rows:
        first = Row("log", 1, 1, first_topic, bytes(first_state))
        last = Row("", 0, position, last_topic, bytes(last_state))
        if _ends_in(log_id, at, first, last):
            found.setdefault((log_id, position, at), {})[kind_of_definition[name]] = Of(entries, count)
    return [Head(*where, kinds) for where, kinds in found.items()]


def load(connection: Connection, head: Head, kinds: Iterable[Kind[Any]]) -> Snapshot:
    """All that lived of these kinds, in memory.

    Raises:
        Unsound: a part is missing or is not what was written.
    """
    with _without_collection():
        living = {
            kind.name: (_loaded if kind.name in head.kinds else _folded)(connection, head, kind) for kind in kinds
        }
    return Snapshot(head.log, head.position, head.at, living)


def _loaded(connection: Connection, head: Head, kind: Kind[Any]) -> dict[str, Entry]:
    held, name = head.kinds[kind.name], definitions()[kind.name]
    living: dict[str, Entry] = {}
    count = 0
    with connection.cursor() as cursor:
        for part, digest, data in cursor.stream(_PARTS, (name, head.log, head.position), binary=True):
            if part != count or _digest(name, head, of=held, part=part, data=data) != digest:
                raise Unsound(f"part {part} of {kind.plural} is not what was written")
            count += 1
            try:
                living.update(entries_of(kind.state, data))
            except (zlib.error, msgspec.MsgspecError, ValueError, StopIteration, LookupError) as error:
                raise Unsound(f"part {part} of {kind.plural} can't be read: {error!r}") from error
    if (count, len(living)) != (held.parts, held.entries):
        wanted = f"{held.parts} parts with {held.entries} entries"
        raise Unsound(f"of {kind.plural} {count} parts with {len(living)} entries are there, not {wanted}")
    return living


def _folded(connection: Connection, head: Head, kind: Kind[Any]) -> dict[str, Entry]:
    """A kind that the checkpoint lacks, from its own events up to there: nothing else changes its states."""
    log.info("kind folded anew", kind=kind.name, until=head.position)
    living: dict[str, Entry] = {}
    with connection.cursor() as cursor:
        for row in cursor.stream(_EVENTS_OF_A_KIND, (head.position, [*kind.events, *kind.former])):
            stream, version, position, topic, state = row
            recorded = decode(Row(stream, version, position, topic, bytes(state)))
            event, old = recorded.event, living.get(stream)
            if type(event) in kind.ends:
                living.pop(stream, None)
            else:
                evolved = kind.evolve(old.state if old is not None else None, event)
                living[stream] = Entry(
                    evolved, position, old.created_at if old is not None else recorded.at, recorded.at
                )
    return living


def _ends_in(log_id: str, at: int, first: Row, last: Row) -> bool:
    """Whether this is its log, and went the way that it did: a restored one may have gone another."""
    try:
        return bool(decode(first).event.log == log_id and time_of(last) == at)
    except (msgspec.MsgspecError, AttributeError):
        return False


@contextmanager
def _reading(conninfo: str) -> Iterator[Connection]:
    """One view of the table, whatever is dropped meanwhile."""
    with psycopg.connect(conninfo, connect_timeout=CONNECT_TIMEOUT_S, application_name="checkpoints") as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection


# ── writing ──


class Checkpointer:
    """Writes a checkpoint now and then, one at a time, in a thread beside whoever folds."""

    def __init__(self, conninfo: str, *, events_between: int = EVENTS_BETWEEN_MIN) -> None:
        self._conninfo = conninfo
        self._events_between = events_between
        self._last: int | None = None  # position of the newest that stands or is being written
        self._writing: Thread | None = None

    def note(self, fleet: Fleet) -> None:
        """To be called at ends of commands, by the one who folds. Cost when one is due: a copy of dictionaries.

        Raises psycopg.Error if the database can't be reached.
        """
        if self._writing is not None and self._writing.is_alive():
            return
        if self._last is None:
            self._last = max((head.position for head in kept(self._conninfo) if head.is_whole), default=0)
            POSITION.set(self._last)
        if fleet.position - self._last >= max(self._events_between, fleet.size()):
            self._last = fleet.position
            # A process that ends does not wait for it: then it was not written.
            self._writing = Thread(target=self._write, args=(snapshot(fleet),), name="checkpoint", daemon=True)
            self._writing.start()

    def settle(self) -> None:
        """Wait until what is being written stands."""
        if self._writing is not None:
            self._writing.join()

    def _write(self, taken: Snapshot) -> None:
        try:
            write(self._conninfo, taken)
        except psycopg.Error as error:
            log.warning("checkpoint not written", position=taken.position, error=str(error).strip())
        except Exception:
            # A bug of ours; but whoever folds must not stop for a cache.
            log.exception("checkpoint not written", position=taken.position)


def write(conninfo: str, taken: Snapshot) -> None:
    """Write it and drop what is not kept any more, whole or not at all. Blocking; some 4 µs an entry."""
    with psycopg.connect(conninfo, connect_timeout=CONNECT_TIMEOUT_S, application_name="checkpoints") as connection:
        connection.execute("SET LOCAL synchronous_commit = off")
        positions = [head.position for head in heads(connection) if head.position != taken.position]
        stay = chosen([*positions, taken.position])
        ours = list(definitions().values())
        connection.execute(_KEEP_ONLY, (ours, taken.log, sorted(stay - {taken.position})))
        connection.execute(_DROP_UNUSED, (ours, taken.log, UNUSED_AFTER))
        held = {kind: Of(len(living), count_of_parts(living)) for kind, living in taken.living.items()}
        head = Head(taken.log, taken.position, taken.at, held)
        for kind in KINDS:
            name, of = definitions()[kind.name], held[kind.name]
            for part, data in enumerate(parts(kind.state, taken.living[kind.name])):
                digest = _digest(name, head, of=of, part=part, data=data)
                values = (name, head.log, head.position, head.at, of.entries, part, of.parts, digest, data)
                connection.execute(_WRITE, values)
    POSITION.set(taken.position)
    log.info("checkpoint written", position=head.position, entries=head.entries)


def chosen(positions: Sequence[int], *, kept_max: int = KEPT_MAX) -> set[int]:
    """Which of them are kept: the newest, and of the others so many that the gap behind each grows with its age.

    So a question about yesterday finds one near, and history has some all along.
    """
    stay = sorted(positions)
    while len(stay) > kept_max:
        end = stay[-1]

        def gap_by_age(n: int, stay: list[int] = stay, end: int = end) -> float:
            before = stay[n - 1] if n else 0
            return (stay[n + 1] - before) / (end - before)

        del stay[min(range(len(stay) - NEWEST_KEPT), key=gap_by_age)]
    return set(stay)


def _digest(name: str, head: Head, *, of: Of, part: int, data: bytes) -> bytes:
    digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES)
    digest.update(_encode((name, head.log, head.position, head.at, of, part)))
    return digest.digest()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Millions of objects are made and none is garbage: the collector would walk through them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
