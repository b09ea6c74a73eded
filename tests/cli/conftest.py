"""stdout as a string: of a terminal, or of a file or pipe."""

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

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
