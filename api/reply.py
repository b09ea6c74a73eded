"""What a handler answers, in the form in which it is sent: nothing is worked out twice on the way to the socket."""

from typing import Any, Protocol

import msgspec

JSON = b"application/json"
PROBLEM = b"application/problem+json"
HTML = b"text/html; charset=utf-8"
CSV = b"text/csv; charset=utf-8; header=present"

# The type of an ASGI message of our own, which `api/connection.py` takes: {type, reply}, a response as a whole.
WHOLE = "berth.http.response"

Headers = tuple[tuple[bytes, bytes], ...]

encode = msgspec.json.Encoder().encode


class Answerable(Protocol):
    """Anything that sends itself as an ASGI response; `status` is for the access log."""

    @property
    def status(self) -> int: ...

    async def send(self, receive: Any, send: Any) -> None: ...


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: Headers = ()

    async def send(self, receive: Any, send: Any) -> None:
        await send({"type": WHOLE, "reply": self})

    def rest(self, *, with_body: bool = True) -> bytes:
        """What follows the status and the headers of every answer: its own headers, and the body."""
        if self.status == 304:  # speaks of the body that whoever asked has
            return b"".join([b"%s: %s\r\n" % header for header in self.headers]) + b"\r\n"
        return b"content-type: %s\r\ncontent-length: %d\r\nx-content-type-options: nosniff\r\n%s\r\n%s" % (
            self.content_type,
            len(self.body),
            b"".join([b"%s: %s\r\n" % header for header in self.headers]),
            self.body if with_body else b"",
        )


def json_reply(document: Any, status: int = 200, headers: Headers = ()) -> Reply:
    return Reply(status, encode(document), JSON, headers)
