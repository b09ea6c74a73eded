"""`berth up`: become the supervisor. The process is replaced, so signals and the exit code are the supervisor's."""

import os
import sys

import click


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where everything is kept (else BERTH_DATA, else .berth).",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="The API's port; 0 = any free one (else BERTH_PORT, 8420).",
)
@click.option("--standby", is_flag=True, help="Run two engines, one of which stands by to take over.")
@click.option("--no-sample", is_flag=True, help="Leave an empty store empty, without the sample site.")
def up(data: str | None, port: int | None, standby: bool, no_sample: bool) -> None:
    """Start Berth on this machine, with PostgreSQL and NATS of its own. Ctrl-C stops it."""
    environment = dict(os.environ)
    if data is not None:
        environment["BERTH_DATA"] = data
    if port is not None:
        environment["BERTH_PORT"] = str(port)
    if standby:
        environment["BERTH_STANDBY"] = "1"
    if no_sample:
        environment["BERTH_SAMPLE"] = "0"
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "workers", "supervisor"], environment)
