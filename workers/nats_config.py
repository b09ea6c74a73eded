"""Who may do what on NATS: the users, their permissions, and the server's configuration made from them.

Nobody may publish into a stream but the one process that owns it, and every user of ours has an inbox that no other
user may listen to (`settings.inbox_of`). Programs from outside use NATS' default inbox.

Permissions are not enough. The server itself sends what is asked for to whatever reply or delivery subject the asker
names, and checks no permission there: with one account for all, a reader could have an old event sent into BERTH_EVENTS
again, or to the engine. So there are three, and what is asked across them is answered in the asker's own:

    BERTH     engine, api, past, dispatcher, controllers: commands, reports, BERTH_WORK
    EVENTS    relay: BERTH_EVENTS, BERTH_AUDIT
    READERS   reader: nothing of its own; what it may ask of EVENTS, and deliveries to its inboxes
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
MAIN_ACCOUNT, EVENTS_ACCOUNT, READERS_ACCOUNT = "BERTH", "EVENTS", "READERS"
OUTSIDE_INBOXES = "_INBOX.>"


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a user may publish to and subscribe to, beside its inboxes; `answers` lets it reply to requests.
    One that `is_outside` is no process of ours, and listens where NATS' clients do by default."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    answers: bool = False
    is_outside: bool = False
    account: str = MAIN_ACCOUNT


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
        f"$JS.API.CONSUMER.*.{stream}",  # CREATE, LIST, NAMES
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def working(controller: str) -> tuple[str, ...]:
    """JetStream's API for a controller: the pull consumer with its name, which the dispatcher makes."""
    return (
        "$JS.API.STREAM.NAMES",  # by which clients find the stream of a subject
        f"$JS.API.CONSUMER.INFO.{WORK}.{controller}",
        f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.{controller}",
        f"$JS.ACK.{WORK}.{controller}.>",
    )


LOOKING_ROUND = ("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST")
HOW_FAR_EVENTS_ARE = f"$JS.API.STREAM.INFO.{EVENTS}"
# In an account with streams of its own, `$JS.API` is these streams'.
EVENTS_API = "$JS.EVENTS.API"


def users(controllers: Iterable[str]) -> dict[str, Permissions]:
    return {
        "engine": Permissions(subscribe=("berth.commands.>", "berth.reports.*"), answers=True),
        "api": Permissions(
            publish=("berth.commands.*", "berth.past.>", _from_afar(HOW_FAR_EVENTS_ARE)),
            subscribe=("berth.reports.*",),
            answers=True,
        ),
        "past": Permissions(subscribe=("berth.past.>",), answers=True),
        "relay": Permissions(
            publish=("berth.events.>", *managing(EVENTS), *managing(AUDIT)),
            account=EVENTS_ACCOUNT,
        ),
        "dispatcher": Permissions(publish=("berth.work.>", *managing(WORK))),
        "reader": Permissions(
            publish=(*LOOKING_ROUND, *consuming(EVENTS), *consuming(AUDIT)), is_outside=True, account=READERS_ACCOUNT
        ),
        **{
            f"controller-{name}": Permissions(publish=(f"berth.reports.{name}", *working(name)), is_outside=True)
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
        "accounts": _accounts(
            granted, {name: _user(json.loads(files[name].read_text()), granted[name]) for name in granted}
        ),
    }
    # The server's own format is a superset of JSON.
    return write_secret(directory / "nats.conf", json.dumps(configuration, indent=1))


def _from_afar(subject: str) -> str:
    return subject.replace("$JS.API", EVENTS_API)


def _accounts(granted: dict[str, Permissions], told: dict[str, dict[str, object]]) -> dict[str, object]:
    """The three accounts: what others may ask of EVENTS is what their users may publish there, and nothing else."""
    asked = {MAIN_ACCOUNT: (HOW_FAR_EVENTS_ARE,), READERS_ACCOUNT: granted["reader"].publish}

    def of(account: str) -> list[dict[str, object]]:
        return [user for name, user in told.items() if granted[name].account == account]

    def imported(account: str) -> list[dict[str, object]]:
        return [{"service": {"account": EVENTS_ACCOUNT, "subject": subject}} for subject in asked[account]]

    exports: list[dict[str, object]] = [
        # A stream of answers: one request for the next messages is answered with many.
        {"service": subject, "response_type": "Stream", "accounts": [by for by in asked if subject in asked[by]]}
        for subject in dict.fromkeys(subject for subjects in asked.values() for subject in subjects)
    ]
    inboxes = (OUTSIDE_INBOXES, inbox_of("reader") + ".>")
    return {
        MAIN_ACCOUNT: {
            "jetstream": "enabled",
            "users": of(MAIN_ACCOUNT),
            "imports": [{**service, "to": _from_afar(HOW_FAR_EVENTS_ARE)} for service in imported(MAIN_ACCOUNT)],
        },
        EVENTS_ACCOUNT: {
            "jetstream": "enabled",
            "users": of(EVENTS_ACCOUNT),
            "exports": [*exports, *({"stream": inbox, "accounts": [READERS_ACCOUNT]} for inbox in inboxes)],
        },
        READERS_ACCOUNT: {
            "users": of(READERS_ACCOUNT),
            "imports": [
                *imported(READERS_ACCOUNT),
                *({"stream": {"account": EVENTS_ACCOUNT, "subject": inbox}} for inbox in inboxes),
            ],
        },
    }


def _user(credential: dict[str, str], allowed: Permissions) -> dict[str, object]:
    inboxes = (inbox_of(credential["user"]) + ".>", *((OUTSIDE_INBOXES,) if allowed.is_outside else ()))
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
