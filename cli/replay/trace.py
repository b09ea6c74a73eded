"""The two files of a trace: requests and hosts, plain or gzipped. Amounts are taken as they stand."""

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cli.errors import Failed

REQUEST_FIELDS = ("time_s", "action", "vm", "rule", "set", "domain")
HOST_FIELDS = ("host", "region", "dc", "rack")
GZIP_MAGIC = b"\x1f\x8b"
RULES = ("affinity", "anti_affinity", "fault_domain")


class Request(NamedTuple):
    """One line of the requests; `rule` is empty where there is none."""

    time_s: float
    action: str  # create or delete
    vm: str
    resources: dict[str, int]
    rule: str
    set: str
    domain: int


class Machine(NamedTuple):
    """One line of the hosts."""

    host: str
    region: str
    dc: str
    rack: str
    capacity: dict[str, int]


class Trace(NamedTuple):
    name: str
    requests: list[Request]
    machines: list[Machine]


class BadTrace(Failed):
    """The file is no trace; exit code 2, as another file should have been named."""

    exit_code = 2


def read(trace: str, hosts: str | None) -> Trace:
    """The trace of a file or folder; `hosts` may be left out where they lie beside it.

    Raises:
        BadTrace: a file is missing or not of this form; says the line and what was expected.
    """
    requests_path = _inside(Path(trace), "requests")
    hosts_path = _inside(Path(hosts), "hosts") if hosts else _beside(requests_path)
    machines = list(read_hosts(hosts_path))
    if not machines:
        raise BadTrace(f"{hosts_path} names no host")
    name = requests_path.name.split(".")[0]
    if name == "requests":
        name = requests_path.resolve().parent.name
    return Trace(name, list(read_requests(requests_path)), machines)


def read_requests(path: Path) -> Iterator[Request]:
    last_s = float("-inf")
    for line, row in _rows(path, required=REQUEST_FIELDS[:3]):
        time_s = _number(path, line, "time_s", row["time_s"])
        if time_s < last_s:
            raise BadTrace(
                f"{path}, line {line}: time_s goes back from {last_s:g} to {time_s:g}; sort the trace by time"
            )
        last_s = time_s
        action, rule = row["action"], row.get("rule") or ""
        if action not in ("create", "delete"):
            raise BadTrace(f"{path}, line {line}: action is create or delete, not {action!r}")
        if rule and (rule not in RULES or not row.get("set")):
            raise BadTrace(f"{path}, line {line}: rule is empty or one of {', '.join(RULES)}, with a set")
        domain = row.get("domain") or "0"
        if not (domain.isascii() and domain.isdigit()):
            raise BadTrace(f"{path}, line {line}: domain is a whole number, not {domain!r}")
        if not row["vm"]:
            raise BadTrace(f"{path}, line {line}: vm has no name")
        resources = _amounts(path, line, row, but=REQUEST_FIELDS)
        yield Request(
            time_s=time_s,
            action=action,
            vm=row["vm"],
            resources=resources,
            rule=rule,
            set=row.get("set") or "",
            domain=int(domain),
        )


def read_hosts(path: Path) -> Iterator[Machine]:
    seen: set[str] = set()
    for line, row in _rows(path, required=HOST_FIELDS):
        if row["host"] in seen:
            raise BadTrace(f"{path}, line {line}: host {row['host']} stands there twice")
        seen.add(row["host"])
        capacity = _amounts(path, line, row, but=HOST_FIELDS)
        yield Machine(row["host"], row["region"], row["dc"], row["rack"], capacity)


def _rows(path: Path, *, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with _opened(path) as file:
            reader = csv.DictReader(file)
            missing = [field for field in required if field not in (reader.fieldnames or ())]
            if missing:
                raise BadTrace(f"{path}: the header has no {', '.join(missing)}")
            for row in reader:
                if None in row or None in row.values():
                    raise BadTrace(f"{path}, line {reader.line_num}: it has another number of fields than the header")
                yield reader.line_num, row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _opened(path: Path) -> IO[str]:
    """The text of a file, gzipped or not: told by how it begins, as a download may have lost or gained a suffix."""
    with path.open("rb") as file:
        is_gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    # A spreadsheet puts a mark of byte order before the header; utf-8-sig takes it off.
    if is_gzipped:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _amounts(path: Path, line: int, row: dict[str, str], *, but: tuple[str, ...]) -> dict[str, int]:
    """The resource classes of the header; zero means not asked for, and is left out."""
    found: dict[str, int] = {}
    for field, text in row.items():
        if field in but:
            continue
        if not (text.isascii() and text.isdigit()):
            raise BadTrace(f"{path}, line {line}: {field} is a whole number, not {text!r}")
        if int(text):
            found[field] = int(text)
    return found


def _number(path: Path, line: int, field: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadTrace(f"{path}, line {line}: {field} is a number, not {text!r}")
    return number


def _inside(path: Path, stem: str) -> Path:
    """The file itself, or the one of that name in the folder."""
    if not path.is_dir():
        return path
    for name in (f"{stem}.csv.gz", f"{stem}.csv"):
        if (path / name).is_file():
            return path / name
    raise BadTrace(f"{path} holds neither {stem}.csv nor {stem}.csv.gz")


def _beside(requests: Path) -> Path:
    for name in ("hosts.csv.gz", "hosts.csv"):
        if (requests.parent / name).is_file():
            return requests.parent / name
    raise BadTrace(f"no hosts.csv beside {requests}; say where they are with --hosts")
