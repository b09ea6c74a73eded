"""One kept-alive HTTP connection to the API, on `http.client`: nothing else starts as fast.

A write carries its Idempotency-Key from the first attempt on. That is what makes it safe to send it again when the
server says 503, when it says 429, and when the line breaks before the answer.
"""

import csv
import http.client
import io
import json
import os
import re
import socket
import ssl
import time
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from cli.errors import Failed, Refused, Unreachable

TIMEOUT_S = 75.0  # more than the 60 s that `Prefer: wait` may take
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # a page of 1,000 hosts has about one
ATTEMPTS_MAX = 5
ANY_VERSION = "*"  # as If-Match: whatever the version, if it is there
READ_AGAIN_S_MAX = 8.0  # a read that the server itself waited for is not asked five times over
PAUSE_S_MAX = 10.0
# Everything printable in ASCII but the percent sign, which is the escape itself.
HEADER_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

NOT_BERTH = "what answers there is not Berth's API. Is the address right (`berth context show`)?"

TOKEN = re.compile(r"[!-~]+")
NEXT = re.compile(r'<([^>]*)>; rel="next"')

Query = list[tuple[str, str]]


class Answer(NamedTuple):
    """What came back with a status below 400. `headers` are looked up without regard to case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self, **fields: Any) -> dict[str, Any]:
        """The object that it is, with at least these fields of these types.

        Raises:
            Failed: it is not, so it is no Berth that answered.
        """
        try:
            content = json.loads(self.body)
        except (ValueError, RecursionError):
            raise Failed(NOT_BERTH) from None
        if not isinstance(content, dict) or not all(isinstance(content.get(name), of) for name, of in fields.items()):
            raise Failed(NOT_BERTH)
        return content

    def objects(self, field: str, *, count: int | None = None, **fields: Any) -> list[dict[str, Any]]:
        """The list in `field`, of objects with these fields at least; so many of them, if that is known."""
        found: list[dict[str, Any]] = self.json(**{field: list})[field]
        for entry in found:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(name), of) for name, of in fields.items()):
                raise Failed(NOT_BERTH)
        if count not in (None, len(found)):
            raise Failed(NOT_BERTH)
        return found

    def csv(self) -> list[list[str]]:
        """The rows of a table, its titles first."""
        if self.headers.get_content_type() != "text/csv":
            raise Failed(NOT_BERTH)
        try:
            rows = list(csv.reader(io.StringIO(self.body.decode("utf-8"), newline="")))
        except (ValueError, csv.Error):
            raise Failed(NOT_BERTH) from None
        if not rows:
            raise Failed(NOT_BERTH)
        return rows

    @property
    def next_page(self) -> Query | None:
        """Of a table: the query of the next page, as the server has it: only it knows what that takes."""
        link = NEXT.search(self.headers.get("Link", ""))
        return parse_qsl(urlsplit(link.group(1)).query, keep_blank_values=True) if link else None

    @property
    def etag(self) -> str | None:
        return self.headers.get("ETag")


def inner(item: dict[str, Any], field: str) -> dict[str, Any]:
    """The object in that field of an answer; none is an empty one.

    Raises:
        Failed: it is something else, so it is no Berth that answered.
    """
    found = item.get(field)
    if not isinstance(found, dict | None):
        raise Failed(NOT_BERTH)
    return found or {}


class Connection:
    """Requests to one server, one at a time; a thread that wants to ask at the same time takes its own (`another`)."""

    def __init__(self, url: str, token: str | None) -> None:
        if "@" in url.partition("://")[2].partition("/")[0] or ("://" not in url and "@" in url.partition("/")[0]):
            raise Failed("an address of a server has no user and password in it; BERTH_TOKEN says who asks")
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise Failed(f"{url!r} is no address of a server ({error}); write it as http://127.0.0.1:8420") from None
        if token is not None and not TOKEN.fullmatch(token):
            raise Failed("the token holds what no token does (spaces, line ends, other letters): see BERTH_TOKEN")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failed(f"{url!r} is no address of a server; write it as http://127.0.0.1:8420")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._secure else 80)
        self._line: http.client.HTTPConnection | None = None
        self._was_reached = False

    def another(self) -> "Connection":
        return Connection(self.url, self._token)

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Ask, again where that is safe and promises something, and answer with what has a status below 400.

        Raises:
            Refused: the status is 400 or more; carries the problem.
            Unreachable: nobody answers there.
        """
        target = f"{self._prefix}{path}" + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        sent = {"Accept": "application/json", **({"Content-Type": "application/json"} if content else {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        sent.update(headers or {})
        may_repeat = method in ("GET", "HEAD") or "Idempotency-Key" in sent
        asked_at = time.monotonic()
        for attempt in range(1, ATTEMPTS_MAX + 1):
            is_last = attempt == ATTEMPTS_MAX or not may_repeat
            try:
                answer = self._once(method, target, content, sent, timeout_s)
                if content is None and "Idempotency-Key" not in sent:
                    is_last = is_last or time.monotonic() > asked_at + READ_AGAIN_S_MAX
            except TimeoutError:
                self.close()
                raise Unreachable(f"{self.url} did not answer within {timeout_s:.0f} s") from None
            except ssl.SSLError as error:
                raise Unreachable(f"{self.url} cannot be trusted or speaks no TLS: {error.reason or error}") from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A server that never answered is not there; one that did is being restarted, or closed an idle line.
                if is_last or not self._was_reached:
                    raise Unreachable(f"cannot reach {self.url}: {_why(error)}") from None
                time.sleep(_pause_s(attempt))
                continue
            if answer.status in (429, 503) and not is_last:
                time.sleep(_pause_s(attempt, retry_after=answer.headers.get("Retry-After")))
                continue
            if answer.status >= 400:
                raise Refused(_problem(answer), position=_position(answer))
            return answer
        raise AssertionError("the last attempt answers or raises")

    def _once(
        self, method: str, target: str, content: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Answer:
        response = self._send(method, target, content, headers, timeout_s)
        return Answer(response.status, response.headers, _whole(response, until=time.monotonic() + timeout_s))

    def stream(self, path: str, *, query: Query, headers: dict[str, str], timeout_s: float) -> http.client.HTTPResponse:
        """Open an endless answer (server-sent events) on this connection; the caller reads it line by line."""
        sent = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        target = f"{self._prefix}{path}" + (f"?{urlencode(query)}" if query else "")
        response = self._send("GET", target, None, sent, timeout_s)
        if response.status >= 400:
            answer = Answer(response.status, response.headers, response.read())
            raise Refused(_problem(answer))
        return response

    def _send(
        self, method: str, target: str, content: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> http.client.HTTPResponse:
        if self._line is None or self._line.sock is None:  # the server closes a line by saying so in its answer
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._line = kind(self._host, self._port, timeout=timeout_s)
            self._line.connect()
            # Head and body leave as two writes; without this the second waits for the first one's acknowledgement.
            self._line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line.sock.settimeout(timeout_s)
        self._line.request(method, target, body=content, headers=headers)
        response = self._line.getresponse()
        self._was_reached = True
        return response


def _whole(response: http.client.HTTPResponse, *, until: float) -> bytes:
    """The body, if it is not too large and comes in time: a socket's own timeout begins anew with each byte.

    Raises:
        Failed: it is too large to be an answer of Berth's.
        TimeoutError: it did not come in time.
    """
    found = bytearray()
    while piece := response.read1(65_536):
        found += piece
        if len(found) > ANSWER_BYTES_MAX:
            raise Failed(f"the answer is larger than {ANSWER_BYTES_MAX // 1024**2} MiB; {NOT_BERTH}")
        if time.monotonic() > until:
            raise TimeoutError
    if response.length:
        raise http.client.IncompleteRead(bytes(found), response.length)
    response.close()  # read piece by piece, it does not see by itself that the line is free
    return bytes(found)


def new_key() -> str:
    """An Idempotency-Key that nobody used before."""
    return f"cli-{os.urandom(12).hex()}"


def header_text(text: str) -> str:
    """`text` as the API wants free text in a header: UTF-8, percent-encoded outside printable ASCII."""
    return quote(text, safe=HEADER_SAFE)


def _pause_s(attempt: int, *, retry_after: str | None = None) -> float:
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), PAUSE_S_MAX)
    return min(0.2 * 2.0 ** (attempt - 1), PAUSE_S_MAX)


def _problem(answer: Answer) -> dict[str, Any]:
    try:
        problem = json.loads(answer.body)
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return {**problem, "status": answer.status}
    text = answer.body.decode(errors="replace").strip()[:300]
    return {"status": answer.status, "title": f"HTTP {answer.status}", "detail": text or "the server gave no reason"}


def _position(answer: Answer) -> int | None:
    position = answer.headers.get("Berth-Position", "")
    return int(position) if position.isdigit() else None


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused. Is it up (`berth up`)?"
    if isinstance(error, socket.gaierror):
        return "no such host. Is the address right (`berth context show`)?"
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return NOT_BERTH
    return f"{str(error) or type(error).__name__}. Is it up (`berth up`)?"
