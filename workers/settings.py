"""Every setting of every process, read once from environment variables (`BERTH_…`).

A secret is never a setting: settings name the file that holds it, so that nothing secret stands in an argument list,
an environment that children inherit, or a log.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventlog.checkpoints import EVENTS_BETWEEN_MIN

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ENGINES = ("local", "remote")
LOG_LEVELS = ("debug", "info", "warning", "error")

Number = TypeVar("Number", int, float)


class SettingRefused(Exception):
    """A variable holds what it must not; the message names it and says what is allowed."""

    def __init__(self, variable: str, *, value: str, allowed: str) -> None:
        super().__init__(f"{variable} is {value!r}, but must be {allowed}")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told from outside. Each field is the variable `BERTH_<FIELD>`."""

    data: Path = Path(".berth")
    """Directory of all data: PostgreSQL's cluster, NATS' streams, tokens, logs."""
    host: str = "127.0.0.1"
    """Address that the API listens on."""
    port: int = 8420
    """Port that the API listens on; 0 takes any free one."""
    metrics_port: int = 0
    """Port on which a process other than the API serves its own `/metrics`; 0: it does not."""
    sample: bool = True
    """Whether an empty store gets the site of `examples/site.yaml`; 0 or 1."""
    sim_delay_ms: int = 50
    """How long a simulated controller takes for a step."""
    sim_fail_rate: float = 0.0
    """Which part of its steps a simulated controller lets fail, 0…1."""
    sim_journal: Path | None = None
    """File in which simulated controllers write down what they did, a line of JSON each."""
    postgres: str = "host=127.0.0.1 dbname=berth user=berth_service"
    """Where PostgreSQL is: a libpq connection string or URL, without a password."""
    postgres_password_file: Path | None = None
    """File with the password for `BERTH_POSTGRES`; none: libpq's own ways (`~/.pgpass`, certificates)."""
    service_password_file: Path | None = None
    """File with the password that `prepare` gives to the role `berth_service`."""
    nats: str = "nats://127.0.0.1:4222"
    """Where NATS is."""
    nats_credentials: Path | None = None
    """File (mode 0600) with `{"user", "password"}` for NATS; none: without a user."""
    engine: str = "remote"
    """Where commands are decided: `remote`, by an engine that is a process of its own; `local`, in the API's process,
    where heavy reads keep commands waiting."""
    engine_sockets: tuple[Path, ...] = ()
    """Unix sockets of this machine's engines, separated by commas: an engine listens on the first, an API asks all of
    them; empty: over NATS alone."""
    rate_limit: float = 0.0
    """How many requests a second each API process takes from one token, in bursts of a second's worth; 0: no limit."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose `X-Forwarded-For` is believed, separated by commas; empty: nobody's."""
    standby: bool = False
    """Whether the supervisor runs a second engine, which stands by and takes over; 0 or 1."""
    cell: str = "main"
    """Name of the engine's cell: commands go to `berth.commands.<cell>`."""
    admin_token_file: Path | None = None
    """File with the secret of the token `admin`. Whoever can put another secret there gets in with it: the engine looks
    at the file each second."""
    log_level: str = "info"
    """The least that is logged: debug, info, warning or error."""
    log_file: Path | None = None
    """The file that stderr goes to, which the process puts aside when it is full; none: nothing is put aside."""
    step_timeout_s: int = 600
    """How long a controller has for one attempt of a step before its compensation begins."""
    checkpoint_events: int = EVENTS_BETWEEN_MIN
    """How many events pass at least between two checkpoints of the fleet, from which processes start."""
    controllers: tuple[str, ...] = ("vm",)
    """The simulated controllers that are run, separated by commas; empty: none."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read all settings.

        Raises:
            SettingRefused: some variable has a value that is not allowed.
        """
        given = {
            field: environment[variable]
            for field in cls.__struct_fields__
            if (variable := variable_of(field)) in environment
        }
        return msgspec.convert(
            {field: READERS[field](variable_of(field), value) for field, value in given.items()}, cls
        )

    def environment(self) -> dict[str, str]:
        """The variables that give these settings to a child process; what is None stays out."""
        values = {variable_of(field): getattr(self, field) for field in self.__struct_fields__}
        return {variable: _written(value) for variable, value in values.items() if value is not None}

    def conninfo(self) -> str:
        """`postgres` with its password, for psycopg alone: never log it."""
        return with_password(self.postgres, file=self.postgres_password_file)

    def nats_options(self) -> dict[str, Any]:
        """Keyword arguments for `nats.connect`.

        Answers come to an inbox of the user's own, which no other user may listen to.
        """
        if self.nats_credentials is None:
            return {"servers": [self.nats]}
        credentials = json.loads(self.nats_credentials.read_text())
        user = credentials["user"]
        return {
            "servers": [self.nats],
            "user": user,
            "password": credentials["password"],
            "inbox_prefix": inbox_of(user).encode(),
        }


def variable_of(field: str) -> str:
    return f"BERTH_{field.upper()}"


def inbox_of(user: str) -> str:
    return f"_INBOX_{user}"


def with_password(conninfo: str, *, file: Path | None) -> str:
    return conninfo if file is None else make_conninfo(conninfo, password=file.read_text().strip())


def _written(value: object) -> str:
    match value:
        case bool():
            return str(int(value))
        case tuple():
            return ",".join(map(_written, value))
        case Path():
            return str(value.absolute())
        case _:
            return str(value)


def _number(convert: Callable[[str], Number], *, least: float, most: float, what: str) -> Callable[[str, str], Number]:
    def read(variable: str, value: str) -> Number:
        try:
            number = convert(value)
        except ValueError:
            raise SettingRefused(variable, value=value, allowed=what) from None
        # Written so that a NaN, which compares as false, is refused too.
        if not least <= number <= most:
            raise SettingRefused(variable, value=value, allowed=what)
        return number

    return read


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(variable: str, value: str) -> str:
        if value.lower() not in choices:
            raise SettingRefused(variable, value=value, allowed="one of " + ", ".join(choices))
        return value.lower()

    return read


def _flag(variable: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise SettingRefused(variable, value=value, allowed="0 or 1")
    return value == "1"


def _text(variable: str, value: str) -> str:
    if not value.strip():
        raise SettingRefused(variable, value=value, allowed="something that is not empty")
    return value.strip()


def _path(variable: str, value: str) -> Path:
    return Path(_text(variable, value)).expanduser()


def _file(variable: str, value: str) -> Path:
    path = Path(_text(variable, value)).expanduser()
    if not path.is_file():
        raise SettingRefused(variable, value=value, allowed="a file that exists")
    return path


def _conninfo(variable: str, value: str) -> str:
    try:
        parts = conninfo_to_dict(value)
    except psycopg.ProgrammingError:
        # Without the value: what could not be read may hold a password.
        raise SettingRefused(variable, value="…", allowed="a libpq connection string or URL") from None
    if "password" in parts:
        allowed = "without a password; put it into a file that BERTH_POSTGRES_PASSWORD_FILE names"
        raise SettingRefused(variable, value="…", allowed=allowed)
    return value


def _name(variable: str, value: str) -> str:
    if not NAME.fullmatch(value):
        raise SettingRefused(variable, value=value, allowed="a name of a-z, 0-9 and -, at most 63 long")
    return value


def _names(variable: str, value: str) -> tuple[str, ...]:
    return tuple(_name(variable, name.strip()) for name in value.split(",") if name.strip())


def _paths(variable: str, value: str) -> tuple[Path, ...]:
    return tuple(_path(variable, part) for part in value.split(",") if part.strip())


def _networks(variable: str, value: str) -> tuple[str, ...]:
    texts = [text.strip() for text in value.split(",") if text.strip()]
    try:
        return tuple(str(ip_network(text)) for text in texts)
    except ValueError:
        allowed = "addresses and networks such as 10.0.0.5,10.1.0.0/24, separated by commas"
        raise SettingRefused(variable, value=value, allowed=allowed) from None


READERS: dict[str, Callable[[str, str], object]] = {
    "data": _path,
    "host": _text,
    "port": _number(int, least=0, most=65_535, what="a port, 0…65535 (0: any free one)"),
    "metrics_port": _number(int, least=0, most=65_535, what="a port, 0…65535 (0: none)"),
    "sample": _flag,
    "standby": _flag,
    "sim_delay_ms": _number(int, least=0, most=3_600_000, what="milliseconds, 0…3600000"),
    "step_timeout_s": _number(int, least=1, most=604_800, what="seconds, 1…604800"),
    "checkpoint_events": _number(int, least=1, most=10**12, what="a number of events, 1 or more"),
    "trusted_proxies": _networks,
    "rate_limit": _number(float, least=0, most=1e6, what="requests per second, 0…1000000 (0: no limit)"),
    "sim_fail_rate": _number(float, least=0, most=1, what="a number from 0 to 1"),
    "sim_journal": _path,
    "postgres": _conninfo,
    "postgres_password_file": _file,
    "service_password_file": _file,
    "nats": _text,
    "nats_credentials": _file,
    "engine": _one_of(*ENGINES),
    "engine_sockets": _paths,
    "cell": _name,
    "admin_token_file": _path,
    "log_level": _one_of(*LOG_LEVELS),
    "log_file": _path,
    "controllers": _names,
}
