"""The ways in which a command ends badly, each with its exit code (2, wrong use, is click's own UsageError)."""

from typing import Any

import click


class Failed(click.ClickException):
    """Something went wrong that no problem of the API describes; exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"berth: {self.message}", err=True)


class Refused(Failed):
    """The API answered with a problem (RFC 9457); exit code 1."""

    def __init__(self, problem: dict[str, Any], *, position: int | None = None) -> None:
        super().__init__(str(problem.get("title") or problem.get("code") or "refused"))
        self.problem = problem
        self.position = position

    @property
    def code(self) -> str:
        return str(self.problem.get("code", ""))

    def show(self, file: Any = None) -> None:
        from cli.refusal import lines

        for line in lines(self.problem):
            click.echo(line, err=True)


class Unreachable(Failed):
    """No server answered there; exit code 3."""

    exit_code = 3


class TimedOut(Failed):
    """What was waited for did not come in time; it may still come. Exit code 4."""

    exit_code = 4
