"""The names of streams and subjects, as the contract fixes them."""

import msgspec

from eventlog.codec import Row

EVENTS, AUDIT, WORK = "BERTH_EVENTS", "BERTH_AUDIT", "BERTH_WORK"
EVENT_SUBJECTS = "berth.events.>"
COMMAND_EVENTS = "berth.events.command.>"
AUDIT_SUBJECTS = "berth.audit.>"
WORK_SUBJECTS = "berth.work.>"


class _Data(msgspec.Struct, frozen=True):
    command: str


class _Command(msgspec.Struct, frozen=True):
    """Of a command's event, what its subject needs."""

    data: _Data


_decode_command = msgspec.json.Decoder(_Command).decode


def of_event(row: Row) -> str:
    """`berth.events.vm.scheduled`; a command's event ends with the command:
    `berth.events.command.accepted.vm.resize`."""
    if row.topic.startswith("command."):
        return f"berth.events.{row.topic}.{_decode_command(row.state).data.command}"
    return f"berth.events.{row.topic}"


def of_work(step: str) -> str:
    """The work of a step, whose name is `<controller>.<action>`."""
    return f"berth.work.{step}"


def of_commands(cell: str) -> str:
    return f"berth.commands.{cell}"


def of_reports(controller: str) -> str:
    return f"berth.reports.{controller}"


def of_past(cell: str) -> str:
    return f"berth.past.{cell}"


def of_questions_given_up(past: str) -> str:
    """Beside the subject on which they were asked."""
    return f"{past}.given_up"
