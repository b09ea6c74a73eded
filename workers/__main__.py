"""`python -m workers NAME` runs one process of Berth: the supervisor, or one of those that it keeps running."""

import sys

from workers.log import log_to_stderr
from workers.settings import SettingRefused, Settings

# What a deployment runs; `supervisor` starts all of them but `prepare` and `engine` beside embedded servers.
PROCESSES = ("supervisor", "prepare", "engine", "api", "projector", "relay", "dispatcher", "controller", "past")
# What a person runs by hand.
BY_HAND = ("relay-rebuild",)
# What another process starts.
BENEATH = ("past-worker",)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PROCESSES + BY_HAND + BENEATH:
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
    log_to_stderr(settings.log_level, file=settings.log_file)
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
        case "past-worker":
            from workers.past import worker

            return worker.run(settings)
        case _:
            from workers import processes

            processes.run(name, settings)
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
