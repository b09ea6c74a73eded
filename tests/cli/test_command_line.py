"""Wrong use, unreachable servers, and what the parts of a command make of their text."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli import flags, options, rules, schema
from cli.connection import NOT_BERTH, Answer, header_text
from cli.description import changes
from cli.errors import Failed
from cli.kinds import Kind
from cli.main import VERBS, main
from cli.session import Session
from cli.verbs.events import messages
from tests.cli.conftest import KINDS, NOBODY, told

ROOT = Path(__file__).resolve().parents[2]


def berth(
    *arguments: str, directory: Path, given: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "XDG_"))}
    environment = {**inherited, "HOME": str(directory), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, input=given
    )


def test_a_wrong_kind_is_wrong_use(told_before: None, tmp_path: Path) -> None:
    ended = berth("get", "hoss", directory=tmp_path, BERTH_URL=NOBODY, XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert "Did you mean 'hosts'?" in ended.stderr


def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    ended = berth("get", "hosts", directory=tmp_path, BERTH_URL="http://127.0.0.1:1")
    assert ended.returncode == 3
    assert ended.stderr.startswith("berth: cannot reach http://127.0.0.1:1: connection refused")
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BERTH_URL": "http://127.0.0.1:99999"}, "is no address of a server"),
        ({"BERTH_URL": "http://[::1"}, "is no address of a server"),
        ({"BERTH_TOKEN": "ключ"}, "the token holds what no token does"),
        ({"BERTH_TOKEN": "a\nb"}, "the token holds what no token does"),
    ],
)
def test_an_address_or_a_token_that_can_be_none_is_said_so(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    ended = berth(
        "get", "hosts", directory=tmp_path, **{"BERTH_URL": "http://127.0.0.1:1", "BERTH_TOKEN": "t", **variables}
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_file_is_refused_before_anything_is_sent(told_before: None, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("{kind: Tenant, name: a}\n---\n{kind: Rack, name: r}\n")
    ended = berth("apply", "-f", "site.yaml", directory=tmp_path, BERTH_URL=NOBODY, XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 1
    assert (
        ended.stderr
        == "berth: site.yaml, document 2 (line 3), rack r, field region: it is missing, and a rack needs it\n"
    )


def leaves() -> list[list[str]]:
    """Every verb with every kind that has it."""
    own = KINDS.own_verbs()
    static = {verb: list(KINDS) for verb in ("get", "describe", "history", "wait")}
    made = {verb: [kind for kind in KINDS if kind.command(verb)] for verb in ("create", "set", "delete")}
    return [[verb, kind.name] for verb, having in {**static, **made, **own}.items() for kind in having]


@pytest.mark.parametrize("words", [*([verb] for verb in VERBS), *([verb] for verb in KINDS.own_verbs()), *leaves()])
def test_every_verb_explains_itself(words: list[str], told_before: None) -> None:
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_the_verbs_of_kinds_are_helped_with_though_no_server_is_there(tmp_path: Path) -> None:
    for words in ((), ("create",), ("get",)):
        ended = berth(*words, "--help", directory=tmp_path, BERTH_URL="http://127.0.0.1:1")
        assert ended.returncode == 0, ended.stderr
        assert "server" in ended.stdout
    ended = berth("cordon", "host", "h1", directory=tmp_path, BERTH_URL="http://127.0.0.1:1")
    assert (ended.returncode, "cannot reach" in ended.stderr) == (3, True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.creation], ids=lambda kind: str(kind.name))
def test_help_lists_every_field_with_what_is_needed_and_an_example_that_says_it(
    kind: Kind, told_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = kind.creation
    assert command is not None
    help = CliRunner().invoke(main, [command.verb, kind.name, "--help"]).output
    in_name = {kind.field_of(part) for part in kind.named_by}
    made = flags.of_command(command, kind, KINDS)
    for field in schema.properties(command.body).keys() - in_name:
        ways = [flag for flag in made if flag.field.path[0] == field]
        assert ways, field
        assert all(flag.option.hidden or flag.title in help for flag in ways), field
        assert (field not in schema.needed(command.body)) or "Needed" in help
    example = help.partition("Example:")[2].split()[1:]
    sent: list[tuple[str, Any]] = []
    monkeypatch.setattr(Session, "command", lambda session, method, path, body, **more: sent.append((path, body)))
    CliRunner().invoke(main, [word.lower() if word.isupper() else word for word in example])
    if command.method == "POST":
        assert set(schema.needed(command.body)) <= set(sent[0][1]), (example, sent)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "quota", "std", "acme"], "say what to set, for example --cpu"),
        (["set", "vm", "acme/web-1", "--cpu", "4"], "No such option '--cpu'"),
        (["set", "host", "h1"], "say what to set, for example"),
        (["set", "quota", "std/acme", "--cpu", "four"], "'four' is no amount"),
        (["set", "quota", "std/acme", "--cpu", "1", "--limit", "cpu=2"], "cpu is given twice"),
        (["set", "quota", "std/acme", "--unlimited", "--cpu", "1"], "--unlimited goes without"),
        (["set", "rack", "r1", "--unts", "42"], "--units"),
        (["set", "racks", "r1", "--units", "many"], "'many' is not a valid integer"),
        (["create", "vm", "web-1", "--group", "std", "--cpu", "1"], "write it as TENANT/VM"),
        (["create", "vm", "--group", "std", "--cpu", "1"], "say the vm's name, as TENANT/VM"),
        (["create", "vm", "a/b", "--group", "std"], "create vm needs resources (--cpu, --memory"),
        (["create", "vm", "a/b"], "create vm needs --group and resources"),
        (["create", "vm", "a/b", "--group", "std", "--cpu", "1", "--rule", "near:x"], "--rule takes type:set:level"),
        (["create", "vm", "a/b", "--group", "std", "--cpu", "1", "--where-label", "disk"], "takes key=value"),
        (["create", "vm", "a/b", "--labels.team"], "--labels.team needs a value behind it"),
        (["create", "vm", "a/b", "--group", "g", "--cpu", "1", "--where", "rack=r1"], "'rack=r1' is no JSON"),
        (["create", "vm", "a/b", "--group", "g", "--cpu", "1", "--rule", "{"], "--rule: '{' is no JSON"),
        (["settle", "operation", "o", "--as", "failed", "--outputs", "{"], "'{' is no JSON"),
        (["create", "vm", "a/b", "--where", "[" * 9999], "is no JSON"),
        (["create", "vm", "a/b", "--rules", "[" * 9999], "is no JSON"),
        (["report", "operation", "o"], "report operation needs --step, --attempt and --outcome"),
        (["create", "group", "g", "--overcommit", "cpu=much"], "'much' is no number"),
        (["create", "quota", "std/acme"], "a quota is set: berth set quota"),
        (["create", "hosst", "h1"], "Did you mean 'host'"),
        (["create", "operation", "x"], "operations do not go with 'create'"),
        (["create", "token", "t", "--role", "god"], "'god' is not one of 'viewer'"),
        (["create", "token", "t", "--role", "viewer", "--expires-at", "soon"], "2026-11-24 (UTC)"),
        (["get", "racks", "--host", "h1"], "No such option '--host'"),
        (["get", "vms", "acme/web-1", "--state", "active"], "go with a list"),
        (["get", "vms", "--state", "aktive"], "'aktive' is not one of 'scheduled'"),
        (["get", "-o", "json", "hoss"], "Did you mean 'hosts'"),
        (["move", "host", "h1", "--parent", "acme"], "No such option '--parent'"),
        (["move", "host", "h1"], "move host needs --group"),
        (["move", "tenant", "t1"], "move tenant needs --parent"),
        (["move", "h1", "--group", "b"], "there is no kind 'h1'"),
        (["cordon", "racks", "r1"], "racks do not go with 'cordon'. Kinds: hosts"),
        (["explain", "rack", "r1"], "racks do not go with 'explain'. Kinds: vms"),
        (["gat", "hosts"], "Did you mean 'get'?"),
        (["cordn", "h1"], "Did you mean 'cordon'?"),
        (["operation", "retry", "x"], "'operation' is a kind; the verb stands first"),
        (["audit", "--as-of", "7"], "No such option"),
        (["set", "tenant", "a", "b", "--protected"], "one tenant is named"),
        (["delete", "quota", "std"], "write it as GROUP/TENANT or GROUP TENANT"),
        (["audit", "--since", "tomorrow"], "how long ago (90s, 10m, 1h, 2d)"),
        (["get", "hosts", "--updated-since", "7"], "2026-11-24T15:00:00Z"),
        (["events", "--after", "noon"], "a position, a time"),
        (["wait", "vm", "a/b", "--for", "aktive"], "'aktive' is not one of"),
        (["describe", "vm", "a/b", "-o", "name"], "'name' is not one of"),
        (["audit", "-o", "name"], "'name' is not one of"),
        (["history", "vm", "a/b", "-o", "name"], "'name' is not one of"),
        (["apply", "-f", "x", "--idempotency-key", "k"], "No such option"),
        (["settle", "operation", "id"], "settle operation needs --as"),
        (["cordon", "a", "b", "--idempotency-key", "k"], "cannot name several"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], said: str, told_before: None) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (
            "create host h1 --group std --cpu 4 --memory 8GiB --resource nvme=2 --bmc-address 10.0.0.1 --bmc.system 1"
            " --labels.team pay -l a=b --label c=",
            {
                "name": "h1",
                "group": "std",
                "capacity": {"cpu": 4, "memory_mib": 8192, "nvme": 2},
                "bmc": {"address": "10.0.0.1", "system": "1"},
                "labels": {"team": "pay", "a": "b", "c": ""},
            },
        ),
        ("create host h1 --group std --capacity.memory_mib 1TiB", {"capacity": {"memory_mib": 2**20}}),
        ("create vm a/b --group std --cpu 1", {"tenant": "a", "name": "b", "group": "std", "resources": {"cpu": 1}}),
        ("create vm a/b --group std --group mem,gpu --cpu 1", {"group": ["std", "mem", "gpu"]}),
        ("create vm a/b --group=* --cpu 1", {"group": "*"}),
        (
            "create vm a/b --group std --cpu 1 --region tw --where.rack r1 --where-label disk=nvme",
            {"where": {"region": "tw", "rack": "r1", "labels": {"disk": "nvme"}}},
        ),
        (
            "create vm a/b --group std --cpu 1 --rule spread:web:rack:1 --rule affinity:db:host",
            {
                "rules": [
                    {"type": "spread", "set": "web", "level": "rack", "max_skew": 1},
                    {"type": "affinity", "set": "db", "level": "host"},
                ]
            },
        ),
        ('create vm a/b --group g --cpu 1 --where {"dc":"d","rack":"r"} --rack s', {"where": {"dc": "d", "rack": "s"}}),
        ("report operation o --step vm.create --attempt 2 --outcome failed --no-retryable", {"retryable": False}),
        (
            "create group g --overcommit cpu=1.5 --overcommit.memory_mib 2",
            {"overcommit": {"cpu": 1.5, "memory_mib": 2}},
        ),
        ("create tenant t --display_name X --protected", {"name": "t", "display_name": "X", "protected": True}),
        ("set rack r1 --units 42 --room null", {"units": 42, "room": None}),
        ("set rack r1 --no-units --no-protected", {"units": None, "protected": False}),
        ("set rack r1 --labels.old null --label new=x", {"labels": {"old": None, "new": "x"}}),
        ("set host h1 --cpu 8 --capacity.nvme null --no-bmc", {"capacity": {"cpu": 8, "nvme": None}, "bmc": None}),
        (
            "set group g --overcommit cpu=null --strategy best_fit",
            {"overcommit": {"cpu": None}, "strategy": "best_fit"},
        ),
        ("move tenant t1 --no-parent", {"parent": None}),
        ("move host h1 --group b --force", {"group": "b", "force": True}),
        ("resize vm a/b --cpu 2 --memory 0", {"resources": {"cpu": 2, "memory_mib": 0}}),
        ("cordon h1", {}),
        ("cordon --reason x host h1", {}),
        ("cordon host", {}),
        (
            'settle operation o1 --as succeeded --outputs {"addresses":["10.0.0.1"]}',
            {"as": "succeeded", "outputs": {"addresses": ["10.0.0.1"]}},
        ),
        ('settle operation o1 --as failed --outputs.addresses ["10.0.0.1"]', {"outputs": {"addresses": ["10.0.0.1"]}}),
    ],
)
def test_fields_are_flags_at_any_depth(
    arguments: str, sent: dict[str, Any], told_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[dict[str, Any]] = []

    def command(session: Session, method: str, path: str, body: dict[str, Any], **more: Any) -> Answer:
        bodies.append(body)
        raise Failed("sent")

    monkeypatch.setattr(Session, "command", command)
    result = CliRunner().invoke(main, arguments.split(" "))
    assert "berth: sent" in result.output, result.output
    assert {field: bodies[0].get(field) for field in sent} == sent
    assert len(arguments.split()) > 5 or bodies[0] == sent


def test_a_file_says_the_fields_and_a_flag_beside_it_wins(
    told_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[dict[str, Any]] = []
    monkeypatch.setattr(Session, "command", lambda session, method, path, body: bodies.append(body))
    said = {"tenant": "a", "name": "b", "group": "std", "resources": {"cpu": 1, "gpu": 1}, "where": {"dc": "x"}}
    (tmp_path / "vm.json").write_text(json.dumps({"kind": "VM", **said}))
    file = ["-f", str(tmp_path / "vm.json")]
    CliRunner().invoke(main, ["create", "vm", *file, "--cpu", "2", "--where.rack", "r1"])
    CliRunner().invoke(main, ["create", "vm", "c/d", *file])
    first, second = bodies
    assert first == {**said, "resources": {"cpu": 2, "gpu": 1}, "where": {"dc": "x", "rack": "r1"}}
    assert (second["tenant"], second["name"]) == ("c", "d")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 5000, "nested too deeply"),
        (b"{" * 5000, "nested too deeply"),
        (b"a: [", "this is no YAML"),
        (b"a: 1\na: 2", "stands there twice"),
        (b"a: 1\n---\na: 2", "the fields of one vm are expected"),
        (b"- a", "the fields of one vm are expected"),
        (b"", "the fields of one vm are expected"),
        (b"kind: host\nname: x", "is about a host, not a vm"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_file_of_fields_that_is_none_is_said_so(content: bytes, said: str, told_before: None, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(content)
    ended = CliRunner().invoke(main, ["create", "vm", "a/b", "-f", str(tmp_path / "f.yaml")])
    assert (ended.exit_code, said in ended.output) == (1, True), ended.output


@pytest.mark.parametrize(
    ("arguments", "wait_s", "left"),
    [
        (["--wait", "acme/web-1"], 60, "acme/web-1"),
        (["acme/web-1", "--wait"], 60, "acme/web-1"),
        (["--wait=2m", "acme/web-1"], 120, "acme/web-1"),
        (["--wait", "5s", "acme/web-1"], 5, "acme/web-1"),
        (["acme/web-1"], None, "acme/web-1"),
    ],
)
def test_wait_may_stand_alone(arguments: list[str], wait_s: float | None, left: str) -> None:
    seen: list[tuple[float | None, str]] = []

    @click.command(cls=options.Verb)
    @click.argument("name")
    @options.write_and_wait
    @click.pass_context
    def verb(ctx: click.Context, name: str) -> None:
        session = ctx.find_object(Session)
        assert session is not None
        seen.append((session.wait_s, name))

    CliRunner().invoke(verb, arguments, catch_exceptions=False)
    assert seen == [(wait_s, left)]


def test_a_reason_in_any_script_fits_into_a_header() -> None:
    assert header_text("disk swap, 5% left") == "disk swap, 5%25 left"
    assert header_text("換碟") == "%E6%8F%9B%E7%A2%9F"
    assert header_text("a\nb") == "a%0Ab"


def test_a_rule_is_written_short() -> None:
    assert rules.parse("anti_affinity:web:host") == {"type": "anti_affinity", "set": "web", "level": "host"}
    assert rules.parse("spread:web:rack:1") == {"type": "spread", "set": "web", "level": "rack", "max_skew": 1}
    for text in ("spread:web:rack", "near:web:host", "affinity:web", "partition:web:rack:x"):
        with pytest.raises(click.UsageError, match="--rule"):
            rules.parse(text)


def test_server_sent_events_are_read_by_their_empty_lines() -> None:
    lines = [
        b": hello\n",
        b"\n",
        b"id: 7\n",
        b"event: vm.scheduled\n",
        b'data: {"a":\r\n',
        b"data: 1}\n",
        b"\n",
        b"data: cut",
    ]
    assert list(messages(lines)) == [("7", '{"a":\n1}')]


def test_a_change_is_told_by_the_fields_that_differ() -> None:
    before = {"state": "creating", "version": 1, "resources": {"cpu": 4}}
    after = {"state": "active", "version": 2, "resources": {"cpu": 8}}
    assert changes({"before": before, "after": after}) == ["state: creating → active", "resources.cpu: 4 → 8"]
    assert changes({"before": None, "after": after}) == ["made"]


def test_an_answer_that_is_not_berths_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        for arguments, code in ((("get", "hosts"), 1), (("whoami",), 1), (("get", "tenants"), 3)):
            ended = berth(*arguments, directory=tmp_path, BERTH_URL=url)
            assert ended.returncode == code, ended.stderr
            assert "what answers there is not Berth's API" in ended.stderr


# In no form what Berth answers to anything.
STRANGE = (b"", b"null", b"3", b'"x"', b"[]", b"{}", b'{"items":{}}', b'{"items":[3]}', b'{"items":[],"next_cursor":3}')
STRANGE += (b'{"results":[3]}', b'{"results":[]}', b'{"name":7,"position":"x"}', b"\xff", b"[" * 100_000)
ASKING = (
    ("verify",),
    ("whoami",),
    ("whoami", "-o", "name"),
    ("get", "hosts"),
    ("get", "hosts", "-o", "csv"),
    ("get", "host", "h1"),
    ("describe", "vm", "acme/web"),
    ("explain", "vm", "acme/web"),
    ("history", "host", "h1"),
    ("audit",),
    ("capacity",),
    ("events",),
    ("wait", "host", "h1", "--for", "available"),
    ("set", "quota", "std", "acme", "--cpu", "1"),
    ("create", "tenant", "acme"),
    ("create", "token", "t1", "--role", "viewer"),
    ("delete", "host", "h1"),
    ("retry", "operation", "01a20f26-aa2c-7525-8531-d59adc8dacf6"),
    ("retry", "operation", "01a20f26-aa2c-7525-8531-d59adc8dacf6", "--wait"),
    ("set", "rack", "r1", "--units", "4"),
    ("diff", "-f", "site.yaml"),
    ("apply", "-f", "site.yaml"),
    ("replay", "trace.csv", "--hosts", "hosts.csv"),
)


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_no_strange_answer_is_a_traceback(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site.yaml").write_text("kind: tenant\nname: acme\n")
    (tmp_path / "trace.csv").write_text(
        "time_s,action,vm,cpu_milli,memory_mib,storage_gib,gpu_milli\n0,create,a,1,1,0,0\n"
    )
    (tmp_path / "hosts.csv").write_text(
        "host,region,dc,rack,cpu_milli,memory_mib,storage_gib,gpu_milli\nh,n,d,r,9,9,0,0\n"
    )
    monkeypatch.chdir(tmp_path)
    for body in STRANGE:
        with strangely_answering(body) as url:
            told(url, tmp_path, monkeypatch)
            ended = CliRunner().invoke(main, arguments, env={"BERTH_URL": url, "BERTH_TOKEN": "t"})
        assert isinstance(ended.exception, SystemExit), (body[:40], ended.output, ended.exc_info)
        assert (ended.exit_code, NOT_BERTH in ended.output) == (1, True), (body[:40], ended.output)


@pytest.mark.parametrize("body", STRANGE)
def test_nor_are_strange_kinds(body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with strangely_answering(body) as url:
        ended = CliRunner().invoke(main, ["get", "hosts"], env={"BERTH_URL": url, "BERTH_TOKEN": "t"})
    assert (ended.exit_code, NOT_BERTH in ended.output) == (1, True), ended.output


@pytest.mark.parametrize("strange", [b"5", b'"x"', b"[1]", b'[{"a":{}}]'])
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("get", "hosts"), b"capacity"),
        (("get", "hosts"), b"used"),
        (("get", "quotas"), b"limits"),
        (("capacity",), b"available"),
        (("audit",), b"problem"),
    ],
)
def test_nor_is_one_with_something_strange_in_it(
    arguments: tuple[str, ...], field: bytes, strange: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"name":"a","items":[{"name":"a","%s":%s}]}' % (field, strange)
    with strangely_answering(body) as url:
        told(url, tmp_path, monkeypatch)
        ended = CliRunner().invoke(main, arguments, env={"BERTH_URL": url, "BERTH_TOKEN": "t"})
    assert (ended.exit_code, NOT_BERTH in ended.output) == (1, True), ended.output


@contextlib.contextmanager
def strangely_answering(body: bytes) -> Iterator[str]:
    """The URL of a server that answers everything with 200 and this."""

    class Strange(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _answer(server: socket.socket) -> None:
    """A list that is none, a page of HTML, and another protocol."""
    for body in (b"[]", b"<html>", None):
        line, _ = server.accept()
        with line:
            line.recv(65536)
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
            line.sendall(b"INFO {}\x1b[2J\r\n" if body is None else head + body)


def test_a_change_of_an_amount_has_its_unit_unless_it_would_not_show() -> None:
    def told(old: int, new: int, **more: bool) -> list[str]:
        return changes({"before": {"limits": {"memory_mib": old}}, "after": {"limits": {"memory_mib": new}}}, **more)

    assert told(4096, 8192) == ["limits.memory_mib: 4 GiB → 8 GiB"]
    assert told(2097152, 2093056) == ["limits.memory_mib: 2097152 → 2093056"]
    assert told(4096, 8192, human=False) == ["limits.memory_mib: 4096 → 8192"]


@pytest.mark.parametrize("words", [(), ("create",), ("context",)])
def test_a_call_without_a_verb_prints_its_help_once(words: tuple[str, ...], tmp_path: Path) -> None:
    ended = berth(*words, directory=tmp_path)
    assert ended.returncode == 2
    assert (ended.stderr.count("Usage:"), ended.stdout) == (1, "")


@pytest.mark.parametrize(
    ("given", "token"), [("from-the-pipe\n", "from-the-pipe"), ("", "of-the-directory"), ("\n", "of-the-directory")]
)
def test_a_token_from_a_pipe_comes_before_that_of_the_directory(given: str, token: str, tmp_path: Path) -> None:
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_whoami, args=(server, seen), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "admin.token").write_text("of-the-directory\n")
        (tmp_path / ".berth").mkdir()
        here = {"http": url, "token_file": str(tmp_path / "admin.token")}
        (tmp_path / ".berth" / "endpoints.json").write_text(json.dumps(here))
        ended = berth("login", url, "--name", "p2", directory=tmp_path, given=given)
    assert ended.returncode == 0, ended.stderr
    assert seen == [f"Bearer {token}"]
    assert f"token: {token}" in (tmp_path / ".config" / "berth" / "config.yaml").read_text()


def _whoami(server: socket.socket, seen: list[str]) -> None:
    line, _ = server.accept()
    with line:
        asked = line.recv(65536).decode()
        seen += [part.partition(": ")[2] for part in asked.split("\r\n") if part.startswith("Authorization")]
        body = b'{"name": "p", "role": "viewer"}'
        line.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
