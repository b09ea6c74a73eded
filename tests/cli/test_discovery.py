"""What a server told of its kinds is kept for a while, asked for again when it may have changed, never in the way."""

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import discovery
from cli.connection import Connection
from cli.errors import Failed, Unreachable
from cli.main import main
from tests.cli.kinds_document import document

LIST = {"items": [], "next_cursor": None, "position": 1}


class Server:
    """Tells its kinds, and remembers what it was asked."""

    def __init__(self) -> None:
        self.document: Any = document()
        self.etag = '"1"'
        self.asked: list[tuple[str, str | None, int]] = []
        serving = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                tag = self.headers.get("If-None-Match")
                is_kinds = self.path == discovery.PATH
                status = 304 if is_kinds and tag == serving.etag else 200
                serving.asked.append((self.path.partition("?")[0], tag, status))
                body = b"" if status == 304 else json.dumps(serving.document if is_kinds else LIST).encode()
                self.send_response(status)
                self.send_header("ETag", serving.etag)
                if status == 200:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def asked_kinds(self) -> list[tuple[str | None, int]]:
        found = [(tag, status) for path, tag, status in self.asked if path == discovery.PATH]
        self.asked.clear()
        return found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    started = Server()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BERTH_URL", started.url)
    monkeypatch.setenv("BERTH_TOKEN", "a-secret-token")
    yield started
    started.stop()


def call(*words: str) -> Any:
    return CliRunner().invoke(main, words)


def file_of(url: str) -> Path:
    return discovery._file(url)


def aged(url: str, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(file_of(url), (at, at))


def test_kinds_are_asked_once_a_minute_and_then_only_whether_they_changed(server: Server) -> None:
    assert call("get", "hosts").exit_code == 0
    assert server.asked_kinds() == [(None, 200)]
    assert call("get", "hosts").exit_code == 0
    assert server.asked_kinds() == []
    aged(server.url, 61)
    assert call("get", "hosts").exit_code == 0
    assert server.asked_kinds() == [('"1"', 304)]
    assert call("get", "hosts").exit_code == 0
    assert server.asked_kinds() == []


def test_a_file_from_the_future_is_asked_about(server: Server) -> None:
    call("get", "hosts")
    server.asked_kinds()
    aged(server.url, -3600)
    call("get", "hosts")
    assert server.asked_kinds() == [('"1"', 304)]


def test_what_changed_is_learnt(server: Server) -> None:
    call("get", "hosts")
    server.document["kinds"][3]["plural"], server.etag = "machines", '"2"'
    aged(server.url, 61)
    assert call("get", "machines").exit_code == 0
    assert json.loads(file_of(server.url).read_text())["etag"] == '"2"'


@pytest.mark.parametrize(
    "words", [("get", "machines"), ("mend", "host", "h1", "--dry-run"), ("get", "hosts", "--cabinet", "c1")]
)
def test_a_kind_verb_or_flag_that_is_not_known_is_asked_for_at_once(words: tuple[str, ...], server: Server) -> None:
    assert call(*words).exit_code == 2
    server.asked_kinds()
    host = server.document["kinds"][3]
    host["plural"] = "hosts" if "hosts" in words else "machines"
    cordon = next(one for one in host["commands"] if one["verb"] == "cordon")
    host["commands"].append(
        {**cordon, "name": "host.mend", "verb": "mend", "method": "GET", "path": "/v1/hosts/{host}"}
    )
    host["filters"].append({"name": "cabinet", "description": "x", "schema": {"type": "string"}, "repeatable": False})
    server.etag = '"2"'
    ended = call(*words)
    assert "Usage:" not in ended.output
    assert server.asked_kinds()[0] == ('"1"', 200)


def test_what_is_still_not_known_is_asked_for_once(server: Server) -> None:
    call("get", "hosts")
    server.asked_kinds()
    ended = call("get", "hoss")
    assert (ended.exit_code, "Did you mean 'hosts'" in ended.output) == (2, True)
    assert server.asked_kinds() == [('"1"', 304)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"url": 1}',
        b'{"url": "http://elsewhere", "etag": "x", "document": {}}',
        b'{"url": "%s", "etag": "x", "document": {}}',
        b'{"url": "%s", "etag": 3, "document": {}}',
        b'{"url": "%s", "etag": "x", "document": {"kinds": [{}], "strategies": [], "roles": []}}',
    ],
)
def test_a_file_that_is_damaged_or_foreign_is_asked_for_anew(content: bytes, server: Server) -> None:
    file_of(server.url).parent.mkdir(parents=True)
    file_of(server.url).write_bytes(content.replace(b"%s", server.url.encode()))
    file_of(server.url).chmod(0o600)
    ended = call("get", "hosts")
    assert (ended.exit_code, ended.stderr) == (0, "no hosts found\n")
    assert server.asked_kinds() == [(None, 200)]
    assert json.loads(file_of(server.url).read_text())["document"] == server.document


def test_what_others_could_have_written_is_not_believed(server: Server) -> None:
    call("get", "hosts")
    server.asked_kinds()
    file_of(server.url).chmod(0o620)
    call("get", "hosts")
    assert server.asked_kinds() == [(None, 200)]
    assert file_of(server.url).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("away", [lambda file: file.symlink_to("/etc/hostname"), lambda file: os.mkfifo(file)])
def test_nor_is_a_link_or_a_pipe(away: Any, server: Server) -> None:
    file_of(server.url).parent.mkdir(parents=True)
    away(file_of(server.url))
    assert call("get", "hosts").exit_code == 0
    assert file_of(server.url).is_file()
    assert not file_of(server.url).is_symlink()


def test_it_is_kept_for_its_owner_alone_and_without_the_token(server: Server) -> None:
    call("get", "hosts")
    file = file_of(server.url)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert "a-secret-token" not in file.read_text()
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_who_cannot_write_there_works_without(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    for place in (tmp_path / "a-file", Path("/proc/nowhere"), Path("/dev/null")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        ended = call("get", "hosts")
        assert (ended.exit_code, ended.stderr) == (0, "no hosts found\n")
        assert server.asked_kinds() == [(None, 200)]


def test_each_server_has_a_file_of_its_own(server: Server) -> None:
    other = Server()
    try:
        call("get", "hosts")
        call("get", "hosts", "--url", other.url)
        assert other.asked_kinds() == [(None, 200)]
        assert len(list(discovery.folder().iterdir())) == 2
    finally:
        other.stop()


def test_a_server_that_is_away_is_known_by_what_it_told(server: Server) -> None:
    call("get", "hosts")
    aged(server.url, 3600)
    server.stop()
    assert call("get", "hosts").exit_code == 3
    assert "Did you mean 'hosts'" in call("get", "hoss").output
    with pytest.raises(Unreachable):
        discovery.known(Connection("http://127.0.0.1:1", "t"))


def test_two_calls_at_once_read_the_whole_of_one_or_the_other(server: Server) -> None:
    """Written in one step: a reader beside many writers never finds a part."""
    server.asked.clear()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            discovery._keep(server.url, '"1"', server.document)

    discovery._keep(server.url, '"1"', server.document)
    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(50):
            assert discovery._kept(server.url) is not None
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [entry.name for entry in discovery.folder().iterdir()] == [file_of(server.url).name]


def test_an_answer_that_tells_no_kinds_is_not_kept(server: Server) -> None:
    server.document = {"kinds": [{}], "strategies": [], "roles": []}
    with pytest.raises(Failed, match="not Berth's API"):
        discovery.known(Connection(server.url, "t"))
    assert not file_of(server.url).exists()


@pytest.mark.parametrize("url", ["http://ann:s3cret@127.0.0.1:8420", "ann:s3cret@127.0.0.1:8420"])
def test_a_password_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Failed) as refused:
        Connection(url, "t")
    assert "s3cret" not in refused.value.message
