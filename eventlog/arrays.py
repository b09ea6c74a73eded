"""Arrays as parameters of a statement, in the server's binary form: as bytes, or by lists that psycopg dumps (`%b`).

psycopg looks at every element of a list for its type, and at every list for its dumper: 0.23 to 0.27 µs an element of
long lists, and much more of short ones. A list that says what it holds takes 0.09 to 0.15: 1.5 × on what the projector
takes for an event in pages of 60 (bench/README.md).
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_head = struct.Struct("!5i").pack  # dimensions, whether there are nulls, the elements' type, how many, the first index
_length = struct.Struct("!i").pack
_bigint = struct.Struct("!iq").pack
_NULL, _TRUE, _FALSE = _length(-1), _length(1) + b"\1", _length(1) + b"\0"
_TEXT, _BYTEA, _INT8, _BOOL = 25, 17, 20, 16  # PostgreSQL's numbers of its types


class Texts(list[str | None]):
    """text[]"""


class Bigints(list[int | None]):
    """bigint[]"""


class Bools(list[bool | None]):
    """bool[]"""


def dump_texts(texts: Sequence[str | None]) -> bytes:
    return _of_lengths(_TEXT, len(texts), (None if text is None else text.encode() for text in texts))


def dump_bytes(elements: Sequence[bytes]) -> bytes:
    return _of_lengths(_BYTEA, len(elements), elements)


def dump_bigints(numbers: Sequence[int | None]) -> bytes:
    return _of(_INT8, len(numbers), [_NULL if number is None else _bigint(8, number) for number in numbers])


def dump_bools(bools: Sequence[bool | None]) -> bytes:
    return _of(_BOOL, len(bools), [_NULL if one is None else _TRUE if one else _FALSE for one in bools])


class _ArrayDumper(Dumper):
    format = Format.BINARY


class _TextsDumper(_ArrayDumper):
    oid = 1009

    def dump(self, obj: Any) -> bytes:
        return dump_texts(obj)


class _BigintsDumper(_ArrayDumper):
    oid = 1016

    def dump(self, obj: Any) -> bytes:
        return dump_bigints(obj)


class _BoolsDumper(_ArrayDumper):
    oid = 1000

    def dump(self, obj: Any) -> bytes:
        return dump_bools(obj)


_DUMPERS: dict[type, type[Dumper]] = {Texts: _TextsDumper, Bigints: _BigintsDumper, Bools: _BoolsDumper}


def _of_lengths(of_type: int, count: int, elements: Iterable[bytes | None]) -> bytes:
    parts: list[bytes] = []
    for element in elements:
        if element is None:
            parts.append(_NULL)
        else:
            parts += (_length(len(element)), element)
    return _of(of_type, count, parts)


def _of(of_type: int, count: int, parts: list[bytes]) -> bytes:
    return _head(1, 1, of_type, count, 1) + b"".join(parts)


def register(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Let the connection's statements take these lists."""
    for held, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(held, dumper)
