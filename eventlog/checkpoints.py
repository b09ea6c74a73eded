"""Checkpoints: the fleet as it stood at a command's end, kept beside the log, so that a start need not fold all of it.

    fold ── Checkpointer ──► parts ──► berth.checkpoints ──► restore ──► fold on from there

A checkpoint is a cache. It counts only for the definition that wrote it (a hash of the sources that say what a fleet
is), for its own log, and only if the log still holds the event that it ends with. One that is damaged is passed over
with a warning; losing all of them costs time and nothing else. `berth verify --full` compares each with a full replay.

Entries are written as JSON, as the log itself is: so whatever came out of the log comes back the same. Indexes are not
written: they are functions of the entries.
"""

import gc
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
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
from domain.kinds import KINDS
from domain.values import kind_of
from eventlog.codec import Row, decode, time_of
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

_PACKAGES = Path(__file__).resolve().parent.parent
_SOURCES = [
    *sorted((_PACKAGES / "domain").rglob("*.py")),
    _PACKAGES / "eventlog" / "checkpoints.py",
    _PACKAGES / "eventlog" / "codec.py",
]
DEFINITION = hashlib.sha256(b"\0".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:16]

_HEADS = SQL(
    "SELECT c.log, c.position, c.at, c.entries, c.parts, first.topic, first.state, last.topic, last.state"
    " FROM {checkpoints} c JOIN {events} first ON first.notification_id = 1"
    " JOIN {events} last ON last.notification_id = c.position"
    " WHERE c.definition = %s AND c.part = 0 ORDER BY c.position"
).format(checkpoints=CHECKPOINTS_TABLE, events=EVENTS_TABLE)
_PARTS = SQL(
    "SELECT part, digest, data FROM {} WHERE definition = %s AND log = %s AND position = %s ORDER BY part"
).format(CHECKPOINTS_TABLE)
_WRITE = SQL(
    "INSERT INTO {} (definition, log, position, at, entries, part, parts, digest, data)"
    " VALUES (%b, %b, %b, %b, %b, %b, %b, %b, %b)"
).format(CHECKPOINTS_TABLE)
_KEEP_ONLY = SQL("DELETE FROM {} WHERE definition = %s AND log = %s AND position <> ALL(%s::bigint[])").format(
    CHECKPOINTS_TABLE
)
_DROP_UNUSED = SQL(
    "DELETE FROM {checkpoints} WHERE (definition, log) <> (%s, %s) AND (definition, log) NOT IN"
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


class Head(msgspec.Struct, frozen=True):
    """A kept checkpoint: where it stands, how many entries it has, in how many parts."""

    log: str
    position: int
    at: int
    entries: int
    parts: int


STATES: tuple[type, ...] = tuple(kind.state for kind in KINDS)
_NUMBER_OF = {state: number for number, state in enumerate(STATES)}


# Some entries in their order, by column: which of STATES comes next (a byte an entry), streams, versions, times of the
# first and of the last event; then for each of STATES a column a field: its values, each once, and which of them comes
# next, or as they come if most differ. So what is read shares what is equal: a running VM takes 0.8 KiB, where it takes
# 1.1 as its events make it and took 1.7 when states were written whole; and it is read a third faster.
Column = tuple[list[Any], list[int] | None]
_FIELDS = {state: msgspec.structs.fields(state) for state in STATES}
_COLUMNS: Any = GenericAlias(
    tuple,
    tuple(
        GenericAlias(
            tuple,
            tuple(GenericAlias(tuple, (GenericAlias(list, (field.type,)), list[int] | None)) for field in fields),
        )
        for fields in _FIELDS.values()
    ),
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[bytes, list[str], list[int], list[int], list[int], _COLUMNS]).decode


# ── a snapshot as parts, and back ──


def snapshot(fleet: Fleet) -> Snapshot:
    return Snapshot(fleet.log, fleet.position, fleet.at, {kind: dict(living) for kind, living in fleet.living.items()})


def parts(taken: Snapshot) -> Iterator[bytes]:
    """The entries as compressed parts, at least one."""
    entries = taken.entries()
    for _ in range(count_of_parts(taken)):
        some = list(islice(entries, PART_ENTRIES))
        states: list[list[Any]] = [[] for _ in STATES]
        kinds = bytes(_NUMBER_OF[type(entry.state)] for _, entry in some)
        for kind, (_, entry) in zip(kinds, some, strict=True):
            states[kind].append(entry.state)
        columns = (
            kinds,
            [stream for stream, _ in some],
            [entry.version for _, entry in some],
            [entry.created_at for _, entry in some],
            [entry.updated_at for _, entry in some],
            [
                [_column([getattr(state, field.name) for state in of_kind]) for field in _FIELDS[STATES[kind]]]
                for kind, of_kind in enumerate(states)
            ],
        )
        yield zlib.compress(_encode(columns), COMPRESSION)


def count_of_parts(taken: Snapshot) -> int:
    return max(1, -(-taken.size // PART_ENTRIES))


def entries_of(part: bytes) -> Iterable[tuple[str, Entry]]:
    """Raises zlib.error or msgspec.MsgspecError of bytes that are no part."""
    kinds, streams, versions, created_at, updated_at, by_kind = _decode(zlib.decompress(part))
    left = [map(state, *map(_values, columns)) for state, columns in zip(STATES, by_kind, strict=True)]
    states = [next(left[kind]) for kind in kinds]
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


def fill(fleet: Fleet, taken: Snapshot, *, only: type | None = None) -> None:
    """An empty fleet becomes what was taken; with `only`, as far as states of that kind go."""
    assert not fleet.size(), "a checkpoint is restored into an empty fleet"
    with _without_collection():
        for stream, entry in taken.entries():
            if only is None or type(entry.state) is only:
                fleet.put(stream, None, entry)
    fleet.log, fleet.position, fleet.at = taken.log, taken.position, taken.at


# ── reading ──


def restore(conninfo: str, fleet: Fleet, *, until: int | None = None, only: type | None = None) -> bool:
    """Bring an empty fleet to the newest sound checkpoint, at most at `until`; False if there is none. Blocking.

    Cost: some 4 µs an entry. Raises psycopg.Error if the database can't be reached.
    """
    with _reading(conninfo) as connection:
        for head in reversed(heads(connection)):
            if until is not None and head.position > until:
                continue
            try:
                taken = load(connection, head)
            except Unsound as reason:
                log.warning("checkpoint passed over", position=head.position, reason=str(reason))
                continue
            fill(fleet, taken, only=only)
            log.info("checkpoint restored", position=head.position, entries=head.entries)
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
            held = dict(load(connection, head).entries())
        except Unsound as reason:
            return [f"{what} is damaged: {reason}."]
    standing = dict(fleet.entries())
    found = [f"{what} has {stream}, which was not there." for stream in sorted(held.keys() - standing.keys())]
    found += [f"{what} does not have {stream}." for stream in sorted(standing.keys() - held.keys())]
    # What they hold is not told: tokens are among them.
    return found + [
        f"{what} has {stream} otherwise than it was."
        for stream, entry in standing.items()
        if stream in held and held[stream] != entry
    ]


def heads(connection: Connection) -> list[Head]:
    """Those of this definition and of this very log: it holds the event that each ends with."""
    found = []
    try:
        rows = connection.execute(_HEADS, (DEFINITION,)).fetchall()
    except psycopg.ProgrammingError as error:  # no such table, or it is not for us: nobody needs it
        log.warning("no checkpoints", error=str(error).strip())
        return []
    for *values, first_topic, first_state, last_topic, last_state in rows:
        head = Head(*values)
        first = Row("log", 1, 1, first_topic, bytes(first_state))
        last = Row("", 0, head.position, last_topic, bytes(last_state))
        if _ends_in(head, first, last):
            found.append(head)
    return found


def load(connection: Connection, head: Head) -> Snapshot:
    """All of it, in memory.

    Raises:
        Unsound: a part is missing or is not what was written.
    """
    living: dict[str, dict[str, Entry]] = {kind.name: {} for kind in KINDS}
    count = 0
    with _without_collection(), connection.cursor() as cursor:
        for part, digest, data in cursor.stream(_PARTS, (DEFINITION, head.log, head.position), binary=True):
            if part != count or _digest(head, part, data) != digest:
                raise Unsound(f"part {part} is not what was written")
            count += 1
            try:
                for stream, entry in entries_of(data):
                    living[kind_of(stream)][stream] = entry
            except (zlib.error, msgspec.MsgspecError, ValueError, StopIteration, LookupError) as error:
                raise Unsound(f"part {part} can't be read: {error!r}") from error
    taken = Snapshot(head.log, head.position, head.at, living)
    if (count, taken.size) != (head.parts, head.entries):
        raise Unsound(f"{count} of {head.parts} parts with {taken.size} of {head.entries} entries are there")
    return taken


def _ends_in(head: Head, first: Row, last: Row) -> bool:
    """Whether this is its log, and went the way that it did: a restored one may have gone another."""
    try:
        return bool(decode(first).event.log == head.log and time_of(last) == head.at)
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
            self._last = max((head.position for head in kept(self._conninfo)), default=0)
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
        connection.execute(_KEEP_ONLY, (DEFINITION, taken.log, sorted(stay - {taken.position})))
        connection.execute(_DROP_UNUSED, (DEFINITION, taken.log, UNUSED_AFTER))
        head = Head(taken.log, taken.position, taken.at, taken.size, count_of_parts(taken))
        for part, data in enumerate(parts(taken)):
            digest = _digest(head, part, data)
            values = (DEFINITION, head.log, head.position, head.at, head.entries, part, head.parts, digest, data)
            connection.execute(_WRITE, values)
    POSITION.set(taken.position)
    log.info("checkpoint written", position=head.position, entries=head.entries, parts=head.parts)


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


def _digest(head: Head, part: int, data: bytes) -> bytes:
    digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES)
    digest.update(_encode((DEFINITION, head, part)))
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
