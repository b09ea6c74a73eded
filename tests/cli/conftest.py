"""stdout as a string: of a terminal, or of a file or pipe. And what a server told of its kinds."""

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cli import discovery
from cli.kinds import Kinds
from tests.cli.kinds_document import document

KINDS = Kinds(document())
NOBODY = "http://127.0.0.1:1"  # a server that never answers

Printed = Callable[[], AbstractContextManager[io.StringIO]]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def _printed(stdout: type[io.StringIO]) -> Iterator[io.StringIO]:
    made = stdout()
    with contextlib.redirect_stdout(made):
        yield made


@pytest.fixture
def on_screen(monkeypatch: pytest.MonkeyPatch) -> Printed:
    """What a person sees on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda: _printed(Screen)


@pytest.fixture
def in_file() -> Printed:
    """What a file or a pipe gets."""
    return lambda: _printed(io.StringIO)


def told(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server at `url` has is known in `cache`, as after a call."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    discovery._keep(url, '"1"', document())


@pytest.fixture
def told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that told what it has, and is away now."""
    monkeypatch.setenv("BERTH_URL", NOBODY)
    monkeypatch.setenv("BERTH_TOKEN", "t")
    told(NOBODY, tmp_path, monkeypatch)
