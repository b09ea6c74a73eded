"""What a server knows of itself (GET /v1/kinds), kept on this machine so that a call need not ask for it first.

    kept less than a minute ago ─► taken as it is
    kept longer ago             ─► asked with If-None-Match: 304, or the new one
    not kept, damaged, foreign  ─► asked

One file a server, for its owner alone, without a token. Who can't write there works without.
"""

import contextlib
import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

from cli.connection import Connection
from cli.errors import Failed, Refused, Unreachable
from cli.kinds import Kinds

PATH = "/v1/kinds"
FRESH_S = 60.0
KEPT_BYTES_MAX = 16 * 2**20


class Kept(NamedTuple):
    """What was answered, and when it was last known to be so."""

    etag: str
    document: Any
    at_s: float


class Known(NamedTuple):
    kinds: Kinds
    etag: str
    is_asked: bool  # the server itself said so, in this call


def known(connection: Connection, *, anew: bool = False, old_is_good: bool = False) -> Known:
    """The kinds of that server; asked `anew` even if they were kept just now, or not asked at all if any are kept.

    Raises:
        Failed: none are kept, and they cannot be asked for.
    """
    kept = _kept(connection.url)
    from_kept = _known(kept) if kept else None
    if kept is None or from_kept is None:
        return _asked(connection)
    age_s = time.time() - kept.at_s
    if old_is_good or (not anew and 0 <= age_s < FRESH_S):
        return from_kept
    try:
        answer = connection.request("GET", PATH, headers={"If-None-Match": kept.etag})
    except (Refused, Unreachable):  # what is asked next fails in the same way, and says why
        return from_kept
    if answer.status == 304:
        with contextlib.suppress(OSError):
            os.utime(_file(connection.url))
        return from_kept._replace(is_asked=True)
    return _learnt(connection.url, answer.etag or "", answer.json(kinds=list))


def _asked(connection: Connection) -> Known:
    answer = connection.request("GET", PATH)
    return _learnt(connection.url, answer.etag or "", answer.json(kinds=list))


def _learnt(url: str, etag: str, document: dict[str, Any]) -> Known:
    learnt = Known(Kinds(document), etag, True)
    with contextlib.suppress(OSError):
        _keep(url, etag, document)
    return learnt


def _known(kept: Kept) -> Known | None:
    try:
        return Known(Kinds(kept.document), kept.etag, False)
    except Failed:  # kept by another version of this command line
        return None


def folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "berth"


def _file(url: str) -> Path:
    """Two servers may have one: then it is the last one's, as what stands in it says."""
    return folder() / f"kinds-{re.sub('[^a-z0-9.]+', '-', url.lower())[:200]}.json"


def _kept(url: str) -> Kept | None:
    """What stands in the file, if it is this user's own and about that server."""
    try:
        descriptor = os.open(_file(url), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            is_own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
            if not is_own or status.st_size > KEPT_BYTES_MAX:
                return None
            content = json.loads(file.read())
        if content["url"] != url or not isinstance(content["etag"], str):
            return None
        return Kept(content["etag"], content["document"], status.st_mtime)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _keep(url: str, etag: str, document: dict[str, Any]) -> None:
    """In one step, so that another call reads the whole of the old or of the new."""
    file = _file(url)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = file.with_name(f".{os.getpid()}-{time.monotonic_ns()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({"url": url, "etag": etag, "document": document}, stream, separators=(",", ":"))
        os.replace(partial, file)
    except OSError:
        os.unlink(partial)
        raise
