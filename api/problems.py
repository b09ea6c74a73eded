"""The one place where refusals become RFC 9457 problems: the domain's, and those that only HTTP has."""

import math
from dataclasses import dataclass, field
from typing import Any

from api.reply import PROBLEM, Headers, Reply, encode
from domain.errors import DomainError, Internal, Unauthenticated, Unavailable

RETRY_S = 1  # nothing was decided, so a client may retry at once


@dataclass(eq=False)
class NoSuchRoute(DomainError):
    code = "not_found"
    status = 404
    title = "Not found"
    kind: str
    name: str
    did_you_mean: str | None = None

    @property
    def detail(self) -> str:
        return f"There is no route {self.name}; see /docs for those that exist."


@dataclass(eq=False)
class MethodNotAllowed(DomainError):
    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"
    method: str
    allowed: list[str]

    @property
    def detail(self) -> str:
        return f"{self.method} is not possible here, only {', '.join(self.allowed)}."


@dataclass(eq=False)
class UnsupportedMediaType(DomainError):
    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"
    accepted: list[str]

    @property
    def detail(self) -> str:
        return f"Send the body as {' or '.join(self.accepted)}, and say so in Content-Type."


@dataclass(eq=False)
class TooSlow(DomainError):
    """The rest of a body took too long. The connection is closed with the answer."""

    code = "too_slow"
    status = 408
    title = "The body came too slowly"
    bytes_per_s_min: int

    @property
    def detail(self) -> str:
        return (
            f"The body arrived at less than {self.bytes_per_s_min} bytes a second. Nothing was done; send it again, in"
            " smaller parts if the connection is slow."
        )


@dataclass(eq=False)
class NotHttp(DomainError):
    """The bytes received are not an HTTP request. The connection is closed with the answer."""

    code = "malformed"
    status = 400
    title = "The request can't be read"
    why: str
    errors: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.errors = [{"field": "", "message": self.why}]

    @property
    def detail(self) -> str:
        return f"{self.why} Send it again as valid HTTP/1.1, on a new connection."


@dataclass(eq=False)
class RepeatedHeader(DomainError):
    """A header that may come only once was repeated: a proxy and Berth might each take another one."""

    code = "malformed"
    status = 400
    title = "The request can't be read"
    errors: list[dict[str, str]]

    @property
    def detail(self) -> str:
        return f"The {self.errors[0]['field'].replace(':', ' ')} came more than once; send it once."


@dataclass(eq=False)
class NotThereYet(Unavailable):
    """The read model did not reach position `wanted` in time; the log ends at `end`."""

    wanted: int = 0
    shown: int = 0
    end: int = 0

    @property
    def detail(self) -> str:
        if self.wanted > self.end:
            return (
                f"The log ends at position {self.end}, before {self.wanted}. Ask again when that has been written, or"
                " for a position that this log has."
            )
        return (
            f"Reads have reached position {self.shown}, not {self.wanted} yet; the log ends at {self.end}. Try again"
            " shortly."
        )

    def problem(self) -> dict[str, Any]:
        return {**Unavailable().problem(), "detail": self.detail}


@dataclass(eq=False)
class RateLimited(DomainError):
    """`after_s` is when the next request will be let through; it goes into Retry-After."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"
    limit_per_s: float
    after_s: float

    @property
    def detail(self) -> str:
        return (
            f"This token may send {self.limit_per_s:g} requests a second; wait as long as Retry-After says. Many"
            " commands can be sent in one request, to /v1/commands."
        )


@dataclass(eq=False)
class TooMuchAtOnce(DomainError):
    """`at_once` of `what` may be under way for one token."""

    code = "rate_limited"
    status = 429
    title = "Too many requests at once"
    what: str
    at_once: int

    @property
    def detail(self) -> str:
        return (
            f"This token may have {self.at_once} {self.what} in progress at once, and all tokens together have a limit"
            " too; one of the two is reached. Wait for answers before you send more."
        )


@dataclass(eq=False)
class NotReady(DomainError):
    """Some component needs an operator, or has been down for longer than a restart takes."""

    code = "unavailable"
    status = 503
    title = "Not ready"
    components: list[dict[str, Any]]

    @property
    def detail(self) -> str:
        return " ".join(
            f"{one['name']}: {one['state']}. {one['reason']}" for one in self.components if not one["ready"]
        )


def reply(problem: dict[str, Any], headers: Headers = ()) -> Reply:
    return Reply(problem["status"], encode(problem), PROBLEM, headers)


def refusal(error: DomainError, *, position: int | None = None) -> Reply:
    """A refusal that was not recorded; of what a read did not find, with the position at which it is so."""
    problem = error.problem()
    match error:
        case Unauthenticated():
            return reply(problem, ((b"www-authenticate", b"Bearer"),))
        case MethodNotAllowed():
            return reply(problem, ((b"allow", ", ".join(error.allowed).encode()),))
        case RateLimited():
            return reply(problem, ((b"retry-after", b"%d" % math.ceil(error.after_s)),))
        case TooMuchAtOnce() | NotReady():
            return reply(problem, ((b"retry-after", b"%d" % RETRY_S),))
        case Unavailable():
            if problem["command"] is None:
                del problem["command"]
            return reply(problem, ((b"retry-after", b"%d" % RETRY_S),))
        case _:
            return reply(problem, ((b"berth-position", b"%d" % position),) if position is not None else ())


def recorded(problem: dict[str, Any], *, command: str, position: int, headers: Headers = ()) -> Reply:
    """The refusal of a command by a decision; `position` is 0 if nothing was written."""
    body = of_command(problem, command=command, position=position)
    return reply(body, ((b"berth-position", b"%d" % position), *headers) if position else headers)


def of_command(problem: dict[str, Any], *, command: str, position: int) -> dict[str, Any]:
    """The body of a command's refusal; where it is recorded, it says where to read of it again."""
    return {**problem, "command": command, "instance": f"/v1/commands/{command}"} if position else problem


def fault(command: str | None) -> Reply:
    """A bug outside of any decision."""
    problem = Internal().problem()
    if command is not None:
        problem["command"] = command
    return reply(problem)
