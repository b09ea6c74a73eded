"""Tab, as a shell asks for it: verbs, kinds, flags, choices from what the server told before, names from the server."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import NOBODY, told
from tests.cli.test_command_line import ROOT, berth

Ask = Callable[[str], list[str]]


def variables(shell: str, words: str) -> dict[str, str]:
    """What the script of that shell hands over when Tab is pressed behind these words."""
    _, _, current = words.rpartition(" ")
    place = current if shell == "fish" else str(len(words.split(" ")) - 1)
    return {"COMP_WORDS": words, "COMP_CWORD": place, "_BERTH_COMPLETE": f"{shell}_complete"}


def values(shell: str, answer: str) -> list[str]:
    lines = answer.strip().splitlines()
    if shell == "zsh":
        return lines[1::3]
    return [line.partition(",")[2].partition("\t")[0] for line in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str, tmp_path: Path) -> None:
    ended = berth("completion", shell, directory=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"_BERTH_COMPLETE={shell}_complete" in ended.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("berth desc", ["describe"]),
        ("berth get ho", ["hosts"]),
        ("berth move ", ["tenant", "host"]),
        ("berth get hosts -o j", ["json"]),
        ("berth create host h1 --bmc.a", ["--bmc.address"]),
    ],
)
def test_every_shell_is_answered_in_its_way(
    shell: str, words: str, offered: list[str], told_before: None, tmp_path: Path
) -> None:
    ended = berth(directory=tmp_path, BERTH_URL=NOBODY, XDG_CACHE_HOME=str(tmp_path), **variables(shell, words))
    assert ended.stderr == ""
    assert values(shell, ended.stdout) == offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("berth delete t", ["tenant", "token"]),
        ("berth mov", ["move"]),
        ("berth set rack r1 --un", ["--units"]),
        ("berth create vm a/b --strategy w", ["worst_fit"]),
        ("berth wait vm a/b --for act", ["active"]),
        ("berth get hosts --sort na", ["name"]),
        ("berth get vms --state st", ["stopped"]),
        ("berth get hosts --upd", ["--updated-since"]),
        ("berth create v", ["vm"]),
        ("berth settle operation x --as f", ["failed"]),
        ("berth apply -f ./", ["./"]),
        ("berth replay ./", ["./"]),
        ("berth get hosts --token-file ./", ["./"]),
        ("berth --context nowhere get ho", []),
    ],
)
def test_tab_completes_verbs_kinds_flags_and_choices(
    words: str, offered: list[str], told_before: None, tmp_path: Path
) -> None:
    ended = berth(directory=tmp_path, BERTH_URL=NOBODY, XDG_CACHE_HOME=str(tmp_path), **variables("bash", words))
    assert ended.stderr == ""
    assert values("bash", ended.stdout) == offered


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("is_known", [True, False])
def test_a_server_that_does_not_answer_is_waited_for_half_a_second(
    is_known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_server() as url:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        if is_known:
            told(url, tmp_path, monkeypatch)
        settings = {"directory": tmp_path, "BERTH_URL": url, "BERTH_TOKEN": "t", "XDG_CACHE_HOME": str(tmp_path)}
        began = time.monotonic()
        berth(**settings, **variables("bash", "berth desc"))  # type: ignore[arg-type]
        alone_s = time.monotonic() - began
        began = time.monotonic()
        ended = berth(**settings, **variables("bash", "berth get hosts h"))  # type: ignore[arg-type]
        waited_s = time.monotonic() - began
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "", "")
    assert waited_s < alone_s + 10  # the connection itself would wait for more than a minute


@pytest.fixture
def in_bash(tmp_path: Path, told_before: None) -> Ask:
    """What bash itself offers, with the script that it was given."""
    wrapper = tmp_path / "bin" / "berth"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli "$@"\n')
    wrapper.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{wrapper.parent}:{os.environ['PATH']}"}

    def ask(words: str) -> list[str]:
        script = (
            'eval "$(berth completion bash)"\n'
            f'COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMP_LINE="${{COMP_WORDS[*]}}"\n'
            '$(complete -p berth | sed "s/.*-F \\([^ ]*\\).*/\\1/") berth\n'
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        command = ["bash", "--norc", "-c", script]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        return ended.stdout.split()

    return ask


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
def test_bash_offers_what_is_meant(in_bash: Ask) -> None:
    assert in_bash("berth wh") == ["whoami"]
    assert in_bash("berth cor") == ["cordon"]
    assert in_bash("berth set q") == ["quota"]
    assert in_bash("berth create vm acme/web-1 --where.r") == ["--where.region", "--where.room", "--where.rack"]
    assert in_bash("berth get hosts -o j") == ["json"]
