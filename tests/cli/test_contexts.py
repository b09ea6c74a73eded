"""Where a call goes, as whom; and that a token goes nowhere else."""

import json
from pathlib import Path

import pytest

from cli import contexts
from cli.contexts import Place, Saved
from cli.errors import Failed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BERTH_URL", "BERTH_TOKEN", "BERTH_DATA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def runs_here(home: Path, url: str = "http://127.0.0.1:9000") -> None:
    (home / ".berth").mkdir()
    (home / "admin.token").write_text("local-token\n")
    (home / ".berth" / "endpoints.json").write_text(json.dumps({"http": url, "token_file": str(home / "admin.token")}))


def save(url: str = "https://berth.example", token: str = "saved-token") -> None:
    contexts.write_saved(Saved("prod", {"prod": {"url": url, "token": token}}))


def test_the_server_of_this_directory_is_found_without_a_word(home: Path) -> None:
    runs_here(home)
    assert contexts.find() == Place("http://127.0.0.1:9000", "local-token", ".berth/endpoints.json")


def test_a_saved_context_comes_before_it_and_the_environment_before_both(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_here(home)
    save()
    assert contexts.find() == Place("https://berth.example", "saved-token", "context prod")
    monkeypatch.setenv("BERTH_URL", "http://other:1")
    monkeypatch.setenv("BERTH_TOKEN", "from-environment")
    assert contexts.find() == Place("http://other:1", "from-environment", "BERTH_URL")
    assert contexts.find(url="http://flag:1").url == "http://flag:1"


def test_a_token_is_not_sent_to_another_server(home: Path) -> None:
    runs_here(home)
    save()
    assert contexts.find(url="http://evil.example").token is None
    assert contexts.find(url="https://berth.example/").token == "saved-token"
    assert contexts.find(url="http://127.0.0.1:9000").token == "local-token"


def test_without_anything_the_default_is_asked_without_a_token() -> None:
    assert contexts.find() == Place(contexts.DEFAULT_URL, None, "the default")


def test_saved_contexts_are_for_their_owner_alone() -> None:
    save()
    assert contexts.config_path().stat().st_mode & 0o777 == 0o600
    assert contexts.read_saved() == Saved("prod", {"prod": {"url": "https://berth.example", "token": "saved-token"}})
    assert [path.name for path in contexts.config_path().parent.iterdir()] == ["config.yaml"]


def test_a_broken_file_and_an_unknown_context_say_what_to_do() -> None:
    save()
    with pytest.raises(Failed, match="there is no context 'dev'; saved are: prod"):
        contexts.find(context="dev")
    contexts.config_path().write_text("- nonsense")
    with pytest.raises(Failed, match="mend it, or delete it"):
        contexts.find()


def test_a_token_file_holds_one_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("two words")
    with pytest.raises(Failed, match="holds no token"):
        contexts.read_token(str(tmp_path / "t"))
    with pytest.raises(Failed, match="cannot read the token"):
        contexts.read_token(str(tmp_path / "missing"))


def test_who_lets_others_read_the_saved_tokens_is_warned_once(capsys: pytest.CaptureFixture[str]) -> None:
    save()
    contexts.config_path().chmod(0o644)
    contexts.read_saved()
    contexts.read_saved()
    said = capsys.readouterr().err
    assert f"chmod 600 {contexts.config_path()}" in said
    assert said.count("warning") == 1
