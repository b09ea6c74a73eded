"""`python -m workers NAME` runs one process of Berth: the supervisor, or one of those that it keeps running."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

from workers.settings import SettingRefused, Settings

# What a deployment runs; `supervisor` starts all of them but `prepare` and `engine` beside embedded servers.
PROCESSES = ("supervisor", "prepare", "engine", "api", "projector", "relay", "dispatcher", "controller", "past")
# What a person runs by hand.
BY_HAND = ("relay-rebuild",)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PROCESSES + BY_HAND:
        print(f"usage: python -m workers NAME, where NAME is one of {', '.join(PROCESSES + BY_HAND)}", file=sys.stderr)
        return 2
    if not __debug__:
        # Assertions guard the recorded state: without them a bug would be written down for ever.
        print("Berth does not run with assertions switched off: start Python without -O", file=sys.stderr)
        return 2
    try:
        settings = Settings.from_environment()
    except SettingRefused as refused:
        print(refused, file=sys.stderr)
        return 2
    log_to_stderr(settings.log_level)
    return run(arguments[0], settings)


def run(name: str, settings: Settings) -> int:
    """Each process imports what it needs alone, so that a small one starts fast and stays small."""
    match name:
        case "supervisor":
            from workers import supervisor

            return supervisor.run(settings)
        case "prepare":
            from workers import embedded

            return embedded.prepare(settings)
        case _:
            from workers import processes

            processes.run(name, settings)
            return 0


def log_to_stderr(level: str) -> None:
    """One JSON object a line, or coloured columns where a person looks on."""
    is_watched = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if is_watched else _json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_watched else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
