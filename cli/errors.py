"""The ways in which a command ends badly, each with its exit code (2, wrong use, is click's own UsageError)."""

from typing import Any

import click

MESSAGE_CHARACTERS_MAX = 2_000  # what a file or a server says is quoted, and may be megabytes


class Failed(click.ClickException):
    """Something went wrong that no problem of the API describes; exit code 1."""

    def __init__(self, message: str) -> None:
        is_cut = len(message) > MESSAGE_CHARACTERS_MAX
        super().__init__(f"{message[:MESSAGE_CHARACTERS_MAX]} …" if is_cut else message)

    def lines(self) -> list[str]:
        """What a person is told, on stderr."""
        return [f"berth: {self.message}"]


class NotKnown(click.UsageError):
    """A kind or verb that what is known of the server lacks; the server may know more by now."""


class Refused(Failed):
    """The API answered with a problem (RFC 9457); exit code 1, or 2 if it is the query that makes no sense."""

    def __init__(self, problem: dict[str, Any], *, position: int | None = None) -> None:
        super().__init__(str(problem.get("title") or problem.get("code") or "refused"))
        self.problem = problem
        self.position = position

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has it as an attribute of the class
        """An unknown state, sort or moment in the query is wrong use: nothing was decided."""
        return 2 if self.code == "validation" and _is_about_the_query(self.problem.get("errors")) else 1

    @property
    def code(self) -> str:
        return str(self.problem.get("code", ""))

    def lines(self) -> list[str]:
        from cli.refusal import lines

        return lines(self.problem)


class Unreachable(Failed):
    """No server answered there; exit code 3."""

    exit_code = 3


class TimedOut(Failed):
    """What was waited for did not come in time; it may still come. Exit code 4."""

    exit_code = 4


def _is_about_the_query(errors: Any) -> bool:
    return isinstance(errors, list) and all(
        isinstance(entry, dict) and str(entry.get("field")).startswith("query:") for entry in errors
    )
