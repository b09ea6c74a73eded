"""Who may do what on NATS: the users, their permissions, and the server's configuration made from them.

Nobody may publish into a stream but the one process that owns it, and every user of ours has an inbox that no other
user may listen to (`settings.inbox_of`). Programs from outside use NATS' default inbox.

Permissions are not enough. The server itself, and whoever answers requests, sends what is asked for to whatever reply
or delivery subject the asker names, and the asker's permissions are not checked there: with one account for all, a
controller could have the server's empty answer sent to the subject that deletes the work of all controllers. So there
are several. What is asked across them is answered in the asker's own, where a subject leads on only if the asker may
publish to it anyway:

    EVENTS            relay: BERTH_EVENTS, BERTH_AUDIT
    BERTH             dispatcher: BERTH_WORK
    COMMANDS          engine, api, past: commands, reports, the past; no streams
    READERS           reader: nothing of its own; what it may ask of EVENTS, and deliveries to its inboxes
    CONTROLLER_<name> one controller: nothing of its own; its work, asked of BERTH, and its reports, of COMMANDS
"""

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from workers.settings import inbox_of

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
EVENTS, AUDIT, WORK = "BERTH_EVENTS", "BERTH_AUDIT", "BERTH_WORK"
# The server keeps streams under their account's name: BERTH_WORK stays where it was when BERTH held all processes.
EVENTS_ACCOUNT, WORK_ACCOUNT, COMMANDS_ACCOUNT, READERS_ACCOUNT = "EVENTS", "BERTH", "COMMANDS", "READERS"
OUTSIDE_INBOXES = "_INBOX.>"
# To an account without streams that does not import this, the server itself answers JetStream's API (with a refusal),
# whatever of it the account imports.
ACCOUNT_INFO = "$JS.API.INFO"
# For as long as anybody waits for an answer: `messaging.past.VERIFY_PATIENCE_S`, and some more.
ANSWERS_S = 660


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a user may publish to and subscribe to, beside its inboxes; `answers` lets it reply to requests,
    once to each.
    One that `is_outside` is no process of ours, and listens where NATS' clients do by default."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    answers: bool = False
    is_outside: bool = False
    account: str = COMMANDS_ACCOUNT


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
        ACCOUNT_INFO,
        "$JS.API.STREAM.NAMES",  # by which clients find the stream of a subject
        f"$JS.API.CONSUMER.INFO.{WORK}.{controller}",
        f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.{controller}",
        f"$JS.ACK.{WORK}.{controller}.>",
    )


LOOKING_ROUND = (ACCOUNT_INFO, "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST")
HOW_FAR_STREAMS_ARE = {
    EVENTS_ACCOUNT: (ACCOUNT_INFO, f"$JS.API.STREAM.INFO.{EVENTS}", f"$JS.API.STREAM.INFO.{AUDIT}"),
    WORK_ACCOUNT: (f"$JS.API.STREAM.INFO.{WORK}",),
}


def users(controllers: Iterable[str]) -> dict[str, Permissions]:
    return {
        "engine": Permissions(subscribe=("berth.commands.>", "berth.reports.*"), answers=True),
        "api": Permissions(
            publish=(
                "berth.commands.*",
                "berth.past.>",
                *(subject for subjects in HOW_FAR_STREAMS_ARE.values() for subject in subjects),
            ),
            subscribe=("berth.reports.*",),
            answers=True,
        ),
        "past": Permissions(subscribe=("berth.past.>",), answers=True),
        "relay": Permissions(
            publish=("berth.events.>", *managing(EVENTS), *managing(AUDIT)),
            account=EVENTS_ACCOUNT,
        ),
        "dispatcher": Permissions(publish=("berth.work.>", *managing(WORK)), account=WORK_ACCOUNT),
        "reader": Permissions(
            publish=(*LOOKING_ROUND, *consuming(EVENTS), *consuming(AUDIT)), is_outside=True, account=READERS_ACCOUNT
        ),
        **{
            f"controller-{name}": Permissions(
                publish=(f"berth.reports.{name}", *working(name)), is_outside=True, account=account_of(name)
            )
            for name in controllers
        },
    }


def account_of(controller: str) -> str:
    return f"CONTROLLER_{controller}"


class Service(msgspec.Struct, frozen=True):
    """What one account may ask of another. One that `answers_on` may answer a request many times."""

    subject: str
    of: str
    by: str
    answers_on: bool = False


def services(controllers: Iterable[str]) -> list[Service]:
    """All that is asked across accounts."""
    return [
        *(
            Service(subject, of=account, by=COMMANDS_ACCOUNT)
            for account, subjects in HOW_FAR_STREAMS_ARE.items()
            for subject in subjects
        ),
        *(
            Service(subject, of=EVENTS_ACCOUNT, by=READERS_ACCOUNT, answers_on=True)
            for subject in users(())["reader"].publish
        ),
        *(
            service
            for name in controllers
            for service in (
                Service(f"berth.reports.{name}", of=COMMANDS_ACCOUNT, by=account_of(name)),
                *(Service(subject, of=WORK_ACCOUNT, by=account_of(name), answers_on=True) for subject in working(name)),
            )
        ),
    ]


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
            {name: _user(json.loads(files[name].read_text()), granted[name]) for name in granted},
            granted=granted,
            asked=services(controllers),
        ),
    }
    # The server's own format is a superset of JSON, but for its \u escapes: a path may hold any letter.
    return write_secret(directory / "nats.conf", json.dumps(configuration, indent=1, ensure_ascii=False))


def _accounts(
    told: Mapping[str, object], *, granted: Mapping[str, Permissions], asked: Sequence[Service]
) -> dict[str, object]:
    inboxes = (OUTSIDE_INBOXES, inbox_of("reader") + ".>")  # what is delivered to readers unasked
    accounts: dict[str, object] = {}
    for account in dict.fromkeys(user.account for user in granted.values()):
        exports, imports = _exports(account, asked), _imports(account, asked)
        if account == EVENTS_ACCOUNT:
            exports += [{"stream": inbox, "accounts": [READERS_ACCOUNT]} for inbox in inboxes]
        if account == READERS_ACCOUNT:
            imports += [{"stream": {"account": EVENTS_ACCOUNT, "subject": inbox}} for inbox in inboxes]
        accounts[account] = {
            **({"jetstream": "enabled"} if account in (EVENTS_ACCOUNT, WORK_ACCOUNT) else {}),
            "users": [user for name, user in told.items() if granted[name].account == account],
            "exports": exports,
            "imports": imports,
        }
    return accounts


def _exports(account: str, asked: Sequence[Service]) -> list[dict[str, object]]:
    by_subject: dict[str, list[Service]] = {}
    for service in asked:
        if service.of == account:
            by_subject.setdefault(service.subject, []).append(service)
    return [
        {
            "service": subject,
            "accounts": [one.by for one in same],
            # The way back is kept for as long: a pull that waits longer for work would not get it.
            **(
                {"response_type": "Stream", "response_threshold": f"{ANSWERS_S}s"}
                if any(one.answers_on for one in same)
                else {"response_type": "Singleton"}
            ),
        }
        for subject, same in by_subject.items()
    ]


def _imports(account: str, asked: Sequence[Service]) -> list[dict[str, object]]:
    return [{"service": {"account": one.of, "subject": one.subject}} for one in asked if one.by == account]


def _user(credential: dict[str, str], allowed: Permissions) -> dict[str, object]:
    inboxes = (inbox_of(credential["user"]) + ".>", *((OUTSIDE_INBOXES,) if allowed.is_outside else ()))
    permissions: dict[str, object] = {
        "publish": {"allow": list(allowed.publish)} if allowed.publish else {"deny": [">"]},
        "subscribe": {"allow": [*allowed.subscribe, *inboxes]},
    }
    if allowed.answers:
        permissions["allow_responses"] = {"max": 1, "expires": f"{ANSWERS_S}s"}
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
