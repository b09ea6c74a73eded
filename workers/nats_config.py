"""Who may do what on NATS: the users, their permissions, and the server's configuration made from them.

Nobody may publish into a stream but the one process that owns it, and every user of ours has an inbox that no other
user may listen to (`settings.inbox_of`). Programs from outside use NATS' default inbox.
"""

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from workers.settings import inbox_of

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
EVENTS, AUDIT, WORK = "BERTH_EVENTS", "BERTH_AUDIT", "BERTH_WORK"


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a user may publish to and subscribe to, beside its inboxes; `answers` lets it reply to requests."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    answers: bool = False


def managing(stream: str) -> tuple[str, ...]:
    """JetStream's API for the owner of a stream: make, change, read, delete it and its consumers."""
    return (
        f"$JS.API.STREAM.*.{stream}",
        f"$JS.API.STREAM.*.*.{stream}",  # MSG.GET, MSG.DELETE, PEER.REMOVE
        f"$JS.ACK.{stream}.>",
        *consuming(stream),
    )


def consuming(stream: str) -> tuple[str, ...]:
    """JetStream's API for a reader of a stream: consumers of its own, single messages; nothing that changes it."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.*.{stream}",
        f"$JS.API.CONSUMER.*.{stream}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def working(controller: str) -> tuple[str, ...]:
    """JetStream's API for a controller: the pull consumer with its name, with its own work as the filter."""
    return (
        f"$JS.API.STREAM.INFO.{WORK}",
        f"$JS.API.CONSUMER.CREATE.{WORK}.{controller}.berth.work.{controller}.>",
        f"$JS.API.CONSUMER.INFO.{WORK}.{controller}",
        f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.{controller}",
        f"$JS.ACK.{WORK}.{controller}.>",
    )


LOOKING_ROUND = ("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST")


def users(controllers: Iterable[str]) -> dict[str, Permissions]:
    return {
        "engine": Permissions(subscribe=("berth.commands.>", "berth.reports.*"), answers=True),
        "api": Permissions(
            publish=("berth.commands.*", "berth.past.>", f"$JS.API.STREAM.INFO.{EVENTS}"),
            subscribe=("berth.reports.*",),
            answers=True,
        ),
        "past": Permissions(subscribe=("berth.past.>",), answers=True),
        "relay": Permissions(publish=("berth.events.>", *LOOKING_ROUND, *managing(EVENTS), *managing(AUDIT))),
        "dispatcher": Permissions(publish=("berth.work.>", *LOOKING_ROUND, *managing(WORK))),
        "reader": Permissions(publish=(*LOOKING_ROUND, *consuming(EVENTS), *consuming(AUDIT))),
        **{
            f"controller-{name}": Permissions(publish=(f"berth.reports.{name}", *LOOKING_ROUND, *working(name)))
            for name in controllers
        },
    }


def credentials(directory: Path, names: Iterable[str]) -> dict[str, Path]:
    """Each user's file `{"user", "password"}`, made where missing, so that a password outlives restarts."""
    files = {name: directory / f"{name}.json" for name in names}
    for name, file in files.items():
        if not file.exists():
            write_secret(file, json.dumps({"user": name, "password": secrets.token_urlsafe(24)}))
    return files


def write(directory: Path, *, listen: str, streams: str, controllers: Sequence[str]) -> Path:
    """Write the server's configuration with every user's password into `directory`, and give its path.

    `streams` is where the server keeps JetStream's files, as the server sees it.
    """
    granted = users(controllers)
    files = credentials(directory, granted)
    configuration = {
        "server_name": "berth",
        "listen": listen,
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {"store_dir": streams},
        "authorization": {
            "users": [_user(json.loads(files[name].read_text()), allowed) for name, allowed in granted.items()]
        },
    }
    # The server's own format is a superset of JSON.
    return write_secret(directory / "nats.conf", json.dumps(configuration, indent=1))


def _user(credential: dict[str, str], allowed: Permissions) -> dict[str, object]:
    inboxes = ("_INBOX.>", inbox_of(credential["user"]) + ".>")
    permissions: dict[str, object] = {
        "publish": {"allow": list(allowed.publish)} if allowed.publish else {"deny": [">"]},
        "subscribe": {"allow": [*allowed.subscribe, *inboxes]},
    }
    if allowed.answers:
        permissions["allow_responses"] = True
    return {**credential, "permissions": permissions}


def write_secret(file: Path, text: str) -> Path:
    """Write a file that its owner alone may read, all at once: a reader sees the old one or the new one."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)
    return file
