"""What a handler answers, in the form in which it is sent: nothing is worked out twice on the way to the socket."""

from typing import Any, Protocol

import msgspec

JSON = b"application/json"
PROBLEM = b"application/problem+json"
HTML = b"text/html; charset=utf-8"
CSV = b"text/csv; charset=utf-8; header=present"

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
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [
                    (b"content-type", self.content_type),
                    (b"content-length", b"%d" % len(self.body)),
                    (b"x-content-type-options", b"nosniff"),
                    *self.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": self.body})


def json_reply(document: Any, status: int = 200, headers: Headers = ()) -> Reply:
    return Reply(status, encode(document), JSON, headers)
