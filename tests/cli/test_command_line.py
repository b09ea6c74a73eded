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

import click
import pytest
from click.testing import CliRunner

from cli import options, rules
from cli.connection import NOT_BERTH, header_text
from cli.description import changes
from cli.main import VERBS, main
from cli.session import Session
from cli.verbs.events import messages

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


def test_a_wrong_kind_is_wrong_use(tmp_path: Path) -> None:
    ended = berth("get", "hoss", directory=tmp_path)
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


def test_a_bad_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("{kind: Tenant, name: a}\n---\n{kind: Rack, name: r}\n")
    ended = berth("apply", "-f", "site.yaml", directory=tmp_path, BERTH_URL="http://127.0.0.1:1")
    assert ended.returncode == 1
    assert (
        ended.stderr
        == "berth: site.yaml, document 2 (line 3), rack r, field region: it is missing, and a rack needs it\n"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "quota", "std", "acme"], "say at least one limit"),
        (["set", "vm", "acme/web-1", "--cpu", "4"], "a VM's amounts: berth resize"),
        (["set", "host", "h1"], "of a host --protected or --no-protected is set"),
        (["set", "quota", "std/acme", "--cpu", "four"], "'four' is no amount"),
        (["set", "quota", "std/acme", "--cpu", "1", "--limit", "cpu=2"], "cpu is given twice"),
        (["create", "vm", "web-1", "--group", "std", "--cpu", "1"], "write it as TENANT/VM"),
        (["create", "vm", "a/b", "--group", "std"], "say what the VM needs"),
        (["create", "quota", "std/acme"], "a quota is set: berth set quota"),
        (["create", "hosst", "h1"], "Did you mean 'host'"),
        (["get", "racks", "--host", "h1"], "racks cannot be filtered by host; they can by --region"),
        (["get", "vms", "acme/web-1", "--state", "active"], "go with a list"),
        (["move", "host", "h1", "--parent", "acme"], "a host moves to a group"),
        (["cordon", "racks", "r1"], "racks do not go with this verb"),
        (["gat", "hosts"], "Did you mean 'get'?"),
        (["get", "vms", "--as-of", "1h"], "--as-of shows one resource as it was"),
        (["capacity", "--as-of", "7"], "No such option"),
        (["set", "tenant", "a", "b", "--protected"], "one tenant is named"),
        (["delete", "quota", "std"], "write it as GROUP/TENANT or GROUP TENANT"),
        (["audit", "--since", "tomorrow"], "how long ago (90s, 10m, 1h, 2d)"),
        (["get", "hosts", "--updated-since", "7"], "2026-11-24T15:00:00Z"),
        (["events", "--after", "noon"], "a position, a time"),
        (["create", "token", "t", "--role", "viewer", "--expires-at", "soon"], "2026-11-24 (UTC)"),
        (["describe", "vm", "a/b", "-o", "name"], "'name' is not one of"),
        (["audit", "-o", "name"], "'name' is not one of"),
        (["history", "vm", "a/b", "-o", "name"], "'name' is not one of"),
        (["apply", "-f", "x", "--idempotency-key", "k"], "No such option"),
        (["operation", "settle", "id", "--as", "failed"], "say with --reason"),
        (["cordon", "a", "b", "--idempotency-key", "k"], "cannot name several"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output


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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str, tmp_path: Path) -> None:
    ended = berth("completion", shell, directory=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"_BERTH_COMPLETE={shell}_complete" in ended.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("berth desc", ["describe"]),
        ("berth get ho", ["hosts"]),
        ("berth delete t", ["tenants", "tokens"]),
        ("berth get hosts -o j", ["json"]),
        ("berth get hosts --upd", ["--updated-since"]),
        ("berth create v", ["vm"]),
        ("berth apply -f ./", ["./"]),
        ("berth replay ./", ["./"]),
        ("berth get hosts --token-file ./", ["./"]),
    ],
)
def test_tab_completes_verbs_kinds_flags_and_choices(words: str, offered: list[str], tmp_path: Path) -> None:
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_BERTH_COMPLETE": "bash_complete"}
    ended = berth(directory=tmp_path, **variables)
    assert [line.partition(",")[2] for line in ended.stdout.splitlines()] == offered


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
    ("operation", "retry", "01a20f26-aa2c-7525-8531-d59adc8dacf6"),
    ("operation", "retry", "01a20f26-aa2c-7525-8531-d59adc8dacf6", "--wait"),
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
            ended = CliRunner().invoke(main, arguments, env={"BERTH_URL": url, "BERTH_TOKEN": "t"})
        assert isinstance(ended.exception, SystemExit), (body[:40], ended.output, ended.exc_info)
        assert (ended.exit_code, NOT_BERTH in ended.output) == (1, True), (body[:40], ended.output)


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
def test_nor_is_one_with_something_strange_in_it(arguments: tuple[str, ...], field: bytes, strange: bytes) -> None:
    body = b'{"name":"a","items":[{"name":"a","%s":%s}]}' % (field, strange)
    with strangely_answering(body) as url:
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

        do_POST = do_PUT = do_DELETE = do_GET

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


@pytest.mark.parametrize("words", [(), ("create",), ("operation",)])
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
