"""Reading a request's body: bounded while it streams, in UTF-8, as JSON that means one thing only.

What is large is read and checked in a thread. It shares Python's lock with the event loop, which so waits for single
steps of it (20,000 values that are all wrong: some 50 ms while pydantic makes its list), and never for the whole.
"""

import asyncio
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from api.problems import UnsupportedMediaType
from domain.errors import Malformed, TooLarge, Validation

COMMAND_BYTES_MAX = 1024 * 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
# Members and entries of all objects and lists together: what each costs to check, and to complain about, is bounded
# before the work is begun.
COMMAND_VALUES_MAX = 20_000
BATCH_VALUES_MAX = 200_000
NESTED_MAX = 200
ON_LOOP_BYTES_MAX = 16 * 1024
PLAIN_BYTES_MAX = 400
NUMBER_CHARACTERS_MAX = 400
JSON_TYPE = "application/json"
PATCH_TYPE = "application/merge-patch+json"


# One thread: two large bodies at once would take the event loop's turns twice.
_apart = ThreadPoolExecutor(1, thread_name_prefix="large-body")

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody is left to be answered."""


async def read(receive: Any, headers: dict[bytes, bytes], *, limit: int) -> bytes:
    """The whole body. What is too large is refused before it is held.

    Raises:
        TooLarge: more than `limit` bytes were announced, or came.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise TooLarge(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(limit)
        return body
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


def must_be_json(headers: dict[bytes, bytes], *, accepted: tuple[str, ...] = (JSON_TYPE,)) -> None:
    """Raises UnsupportedMediaType unless the body is announced as one of `accepted`, in UTF-8."""
    given = headers.get(b"content-type", b"")
    if given == b"application/json":
        return
    media, _, parameters = given.decode("latin-1").partition(";")
    name, _, charset = parameters.strip().lower().partition("=")
    if media.strip().lower() not in accepted or (name == "charset" and charset.strip('" ') not in ("utf-8", "utf8")):
        raise UnsupportedMediaType(list(accepted))


async def understood(body: bytes, read: Callable[[bytes], T]) -> T:
    """What `read` makes of the body: in a thread, one after another, if it is large."""
    if len(body) <= ON_LOOP_BYTES_MAX:
        return read(body)
    return await asyncio.get_running_loop().run_in_executor(_apart, read, body)


def parse(body: bytes, *, values_max: int = COMMAND_VALUES_MAX) -> dict[str, Any]:
    """The JSON object that the body is.

    Stricter than JSON asks: a member that is named twice, NaN, Infinity and half of a surrogate pair are refused, as
    two readers would not agree on what was meant.

    Raises:
        Malformed: it is not such an object, or is nested more than `NESTED_MAX` deep.
        Validation: it has more than `values_max` values.
    """
    document = _parse_plain(body)
    return document if document is not None else parse_with_care(body, values_max=values_max)


def _parse_plain(body: bytes) -> dict[str, Any] | None:
    """What is short and surely means one thing only, in half the time (2.0 for 4.6 µs): with as many colons as members,
    no member is named twice, and no text contains a colon."""
    if len(body) > PLAIN_BYTES_MAX:
        return None
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and body.count(b":") == _members(document) else None


def _members(value: dict[str, Any] | list[Any]) -> int:
    own, inner = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    return own + sum([_members(entry) for entry in inner if isinstance(entry, dict | list)])


def parse_with_care(body: bytes, *, values_max: int = COMMAND_VALUES_MAX) -> dict[str, Any]:
    """As `parse`, whatever the body; says what is wrong with it, and where."""
    if not _has_at_most(values_max, body):
        raise Validation([{"field": "", "message": f"has more than {values_max:,} values; send several requests"}])
    try:
        document = _decoder.decode(body.decode())
        if b"\\u" in body:
            msgspec.json.encode(document)  # finds lone surrogates
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise _malformed("half of a surrogate pair stands alone in a text") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"line {error.lineno}, column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except ValueError as error:
        raise _malformed(str(error)) from None
    if not isinstance(document, dict):
        raise _malformed("the body must be an object")
    if not _is_shallow(document):
        raise _malformed("it is nested too deeply")
    return document


def _has_at_most(most: int, body: bytes) -> bool:
    """Counts values by what stands before each, without parsing: first wherever that stands, then outside of texts."""
    if _separators(body) <= most:
        return True
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A member is two texts at most, of two quotes each.
    return text.count(b'"') <= 4 * most and _separators(b"".join(text.split(b'"')[::2])) <= most


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _is_shallow(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(NESTED_MAX):
        level = [
            entry
            for value in level
            for entry in (value.values() if isinstance(value, dict) else value)
            if isinstance(entry, dict | list)
        ]
        if not level:
            return True
    return False


def _malformed(message: str) -> Malformed:
    return Malformed([{"field": "", "message": message}])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the member {name[:100]!r} is named twice")
            seen.add(name)
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text) if len(text) <= NUMBER_CHARACTERS_MAX else math.inf
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _whole(text: str) -> int:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise ValueError(f"the number {text[:40]}… is out of range")
    return int(text)


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)
